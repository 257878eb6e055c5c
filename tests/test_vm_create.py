"""Guests made for devices: through the command line on simulated hosts, and held against Proxmox' own schema."""

from __future__ import annotations

import json
import struct
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough.app import look
from pve_passthrough.app.guests import create as make
from pve_passthrough.app.guests import plan_guest
from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.knowledge.guest_profiles import NAMES
from pve_passthrough.model.pci import Address
from pve_passthrough.model.vm import parse_config
from pve_passthrough.planning.guest_wanted import NewGuest, Wanted
from pve_passthrough.planning.new_guest import command
from tests.pve_schema import about, complaint, needs_schema, parameters
from tests.shared import SHARED

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0LWtleS1mb3ItdGVzdHMtb25seS0wMQ me@desk\n"
ISO, IMAGE = "/var/lib/vz/template/iso", "/root/noble.img"


class Machine:
    """One simulated host with an installer, Windows' drivers, an image and a key."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder = folder / seed
        create(str(self.folder), seed)
        self.host = Simulated(str(self.folder))
        world = self.host.world
        world.put(f"{ISO}/win11.iso", "x" * 2048)
        world.put(f"{ISO}/virtio-win-0.1.271.iso", "")
        world.put("/root/id.pub", KEY)
        header = b"QFI\xfb" + struct.pack(">I", 3) + bytes(16) + struct.pack(">Q", 3584 << 20)
        Path(self.folder, IMAGE.lstrip("/")).write_bytes(header + bytes(64))

    def says(self, *words: str) -> int:
        return run(["--host", f"sim:{self.folder}", *words])

    def inside(self, *words: str) -> int:
        return self.host.run(words).rc

    def config(self, vmid: int) -> dict[str, str]:
        return parse_config(self.host.world.text(f"/etc/pve/nodes/pve/qemu-server/{vmid}.conf") or "")[0]

    def guests(self) -> set[str]:
        return set(self.host.world.names("/etc/pve/nodes/pve/qemu-server"))

    def volumes(self) -> str:
        return self.host.world.text("/sim/volumes.json") or ""


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Machine]:
    return lambda seed: Machine(tmp_path, seed)


# -- every profile on both majors and three kinds of storage --------------------------------------


@pytest.mark.parametrize("seed", ["default", "intel-6.5-grub", "intel-zfs"])
def test_every_profile_is_made_as_wanted(machine: Callable[[str], Machine], seed: str) -> None:
    host = machine(seed)
    for number, profile in enumerate(NAMES, start=101):
        assert host.says("vm", "create", "--profile", profile, "--yes") == Exit.FINE, profile
        config = host.config(number)
        assert config["bios"] == "ovmf" and "efidisk0" in config and "hostpci0" not in config
        assert host.inside("qm", "start", str(number)) == 0 and host.inside("qm", "stop", str(number)) == 0
        assert host.inside("qm", "destroy", str(number), "--purge") == 0
        host.host.world.put(f"/etc/pve/nodes/pve/qemu-server/{number}.conf", "name: kept\n")
    assert "vm-101" not in host.volumes()


def test_all_that_can_be_asked_for_arrives(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    words = (
        "--vm", "321", "--name", "box.example", "--storage", "local-lvm", "--disk", "40G", "--memory", "4096",
        "--cores", "4", "--bridge", "vmbr0", "--vlan", "7", "--secure-boot", "--tpm", "--cloud-image", IMAGE,
        "--user", "ubuntu", "--ssh-key", "/root/id.pub", "--ip", "10.1.2.3/24,gw=10.1.2.1", "--hugepages", "2",
    )  # fmt: skip
    assert host.says("vm", "create", "--profile", "linux-ai", *words, "--yes", "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    assert told["format"] == 1 and told["made"] and told["vmid"] == 321 and told["differences"] == []
    assert told["remove"] == "qm destroy 321 --purge"
    config = host.config(321)
    assert config["scsi0"] == "local-lvm:vm-321-disk-1,discard=on,iothread=1,size=40G,ssd=1"
    assert config["scsi1"] == "local-lvm:vm-321-cloudinit,media=cdrom"
    assert config["net0"].endswith(",bridge=vmbr0,tag=7") and config["hugepages"] == "2"
    assert config["ciuser"] == "ubuntu" and config["sshkeys"].startswith("ssh-ed25519%20")
    assert "tpmstate0" in config and "pre-enrolled-keys=1" in config["efidisk0"]


def test_a_dry_run_makes_nothing_and_needs_no_right_to_change(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    before = host.guests(), host.volumes()
    assert host.says("vm", "create", "--profile", "headless", "--dry-run") == Exit.PENDING
    assert "$ qm create 101 " in capsys.readouterr().out
    tree = ["--host", f"root:{host.folder}", "vm", "create", "--profile", "headless"]
    assert run([*tree, "--dry-run", "--output-format", "json"]) == Exit.PENDING
    assert json.loads(capsys.readouterr().out)["made"] is False
    assert run([*tree, "--yes"]) == Exit.USAGE  # a tree can only be looked at
    assert (host.guests(), host.volumes()) == before


def test_nobody_to_ask_makes_nothing(machine: Callable[[str], Machine]) -> None:
    host = machine("default")
    assert host.says("vm", "create", "--profile", "headless") == Exit.USAGE
    assert host.guests() == {"100.conf"}


def test_it_is_started_only_when_asked(machine: Callable[[str], Machine]) -> None:
    host = machine("default")
    assert host.says("vm", "create", "--profile", "headless", "--yes") == Exit.FINE
    assert host.says("vm", "create", "--profile", "headless", "--yes", "--start") == Exit.FINE
    assert set(host.host.world.names("/run/qemu-server")) & {"101.pid", "102.pid"} == {"102.pid"}


# -- refusals and failures -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("words", "ref", "code"),
    [
        (("--vm", "100"), "guest.exists", Exit.COULD_NOT),
        (("--vm", "150"), "guest.exists", Exit.COULD_NOT),
        (("--ssh-key", "/root/none.pub", "--cloud-init"), "guest.ssh-key", Exit.USAGE),
        (("--ssh-key", "id.pub", "--cloud-init"), "guest.ssh-key", Exit.USAGE),
        (("--iso", "local:iso/none.iso"), "guest.iso", Exit.COULD_NOT),
        (("--numa-of", "ffff:ffff"), "device.unknown", Exit.USAGE),
        (("--cloud-image", "/root/none.img"), "guest.not-made", Exit.COULD_NOT),
        (("--storage", "local"), "guest.no-storage", Exit.COULD_NOT),
        (("--memory", "999999"), "guest.memory", Exit.COULD_NOT),
    ],
    ids=lambda value: "-".join(value) if isinstance(value, tuple) else str(value),
)
def test_a_refusal_leaves_nothing_behind(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str], words: tuple[str, ...], ref: str, code: Exit
) -> None:
    host = machine("default")
    host.host.world.put("/etc/pve/nodes/pve/lxc/150.conf", "hostname: box\n")
    before = host.guests(), host.volumes()
    assert host.says("vm", "create", "--profile", "linux-ai", "--memory", "2048", *words, "--yes") == code
    told = capsys.readouterr().err
    assert f"{ref}: No" in told
    assert host.guests() == before[0] and json.loads(host.volumes() or "{}") == json.loads(before[1] or "{}")


def test_an_image_larger_than_the_disk_says_what_stays(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    words = ("--memory", "2048", "--cloud-image", IMAGE, "--disk", "2G", "--yes")
    assert host.says("vm", "create", "--profile", "linux-ai", *words) == Exit.COULD_NOT
    told = capsys.readouterr().err
    assert "guest.half-made: Guest 101 was made" in told and "shrinking disks" in told
    assert "qm destroy 101 --purge" in told and "101.conf" in host.guests()


class Meddled(Simulated):
    """Somebody changes the guest as soon as it is made."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        ran = super().run(argv, stdin, timeout)
        if tuple(argv[:2]) == ("qm", "create"):
            super().run(("qm", "set", argv[2], "--cores", "1", "--delete", "agent"))
        return ran


def test_what_is_not_as_wanted_is_told_line_by_line(machine: Callable[[str], Machine]) -> None:
    host = machine("default")
    done = make(Meddled(str(host.folder)), _guest(host, "headless"))
    assert done.differences == ("cores: wanted 2, stored 1", "agent: wanted enabled=1, stored nothing")


def test_up_gives_no_device_to_a_guest_that_is_not_as_wanted(
    machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    monkeypatch.setattr("pve_passthrough.host.simulated.Simulated", Meddled)
    words = ("gpu:2", "--vm", "200", "--profile", "linux-desktop", "--yes")
    assert host.says("up", *words) == Exit.COULD_NOT
    assert "guest.differs: Guest 200 was made" in capsys.readouterr().err
    assert "hostpci0" not in host.config(200)


def test_a_storage_that_is_not_active_is_refused(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    world = host.host.world
    world.save_machine(world.machine() | {"faults": ["storage:local-lvm"]})
    assert host.says("vm", "create", "--profile", "headless", "--yes") == Exit.COULD_NOT
    assert "not active now" in capsys.readouterr().err and host.guests() == {"100.conf"}


# -- up and plan from nothing ----------------------------------------------------------------------


def test_up_makes_the_guest_and_undo_leaves_it(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    words = ("gpu:2", "--vm", "200", "--profile", "linux-desktop")
    assert host.says("plan", *words, "--output-format", "json") == Exit.PENDING
    told = json.loads(capsys.readouterr().out)
    assert told["new_guest"]["vmid"] == 200 and not told["new_guest"]["made"]
    assert any(change["cell"] == "vm:200/hostpci0" for change in told["changes"])
    assert "200.conf" not in host.guests()
    assert host.says("up", *words, "--yes", "--patience", "0") == Exit.FINE
    said = capsys.readouterr()
    assert all(words in said.err for words in ("Guest 200 was made", "verify --vm 200", "display --vm 200"))
    config = host.config(200)
    assert config["hostpci0"].startswith("0000:01:00") and config["vga"] == "virtio" and config["serial0"] == "socket"
    assert host.says("up", *words, "--memory", "4096", "--yes", "--patience", "0") == Exit.COULD_NOT  # no agent in it
    assert "is there already" in capsys.readouterr().err
    assert host.inside("qm", "stop", "200") == 0
    assert host.says("undo", "--yes") == Exit.UNDONE
    assert "hostpci0" not in host.config(200) and host.config(200)["memory"] == "8192"


def test_a_hazard_is_refused_before_anything_is_made(machine: Callable[[str], Machine]) -> None:
    host = machine("shared-sata")
    before = host.guests(), host.volumes()
    assert host.says("up", "gpu:2", "--vm", "200", "--profile", "linux-desktop", "--yes") == Exit.REFUSED
    assert (host.guests(), host.volumes()) == before


def test_a_plan_for_a_guest_to_be_is_not_saved(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    host = machine("default")
    file = tmp_path / "plan.json"
    words = ("gpu:2", "--vm", "200", "--profile", "linux-desktop", "--save", str(file))
    assert host.says("plan", *words) == Exit.USAGE
    assert not file.exists()


def test_when_the_plan_fails_the_guest_stays_and_that_is_said(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("intel-6.5-grub")
    world = host.host.world
    world.save_machine(world.machine() | {"failing": ["update-grub"]})
    words = ("gpu:2", "--vm", "200", "--profile", "linux-desktop", "--memory", "4096")
    assert host.says("up", *words, "--yes", "--no-reboot") == Exit.COULD_NOT  # the way back needs update-grub, too
    assert "qm destroy 200 --purge" in capsys.readouterr().err
    assert "200.conf" in host.guests() and "hostpci0" not in host.config(200)


# -- against Proxmox' own schema -------------------------------------------------------------------


def _guest(host: Machine, profile: str, **wanted: Any) -> NewGuest:
    return plan_guest(host.host, look(host.host), profile, Wanted(**wanted))


@needs_schema
def test_every_option_is_one_that_the_api_knows_and_takes(machine: Callable[[str], Machine]) -> None:
    host = machine("p40-node")
    card = next(device.address for device in look(host.host).devices if device.is_display and device.numa_node == 1)
    cloud = {"cloud_image": IMAGE, "user": "u", "ssh_key": "/root/id.pub", "ip": "10.0.0.2/8,gw=10.0.0.1"}
    made = [_guest(host, profile) for profile in NAMES]
    made += [_guest(host, "linux-ai", numa_of=card, hugepages="1024", vlan=5, secure_boot=True, tpm=True, **cloud)]
    made += [
        _guest(host, "windows-gaming", iso="local:iso/win11.iso", numa_of=card),
        _guest(host, "headless", bios="seabios"),
    ]
    for major in (8, 9):
        schema = parameters(major)
        for new in made:
            for key, text in new.options.items():
                assert not complaint(about(schema, key), text), f"{major}: {key}: {text}"


@needs_schema
def test_the_judge_of_this_test_does_refuse() -> None:
    schema = parameters(9)
    assert complaint(schema["scsi[n]"], "local-lvm:1,nosuch=1") and complaint(schema["bios"], "OVMF")
    assert complaint(schema["efidisk0"], "local-lvm:1,efitype=4M") and complaint(schema["cores"], "0")
    assert complaint(schema["numa[n]"], "cpus=a")


@needs_schema
@pytest.mark.parametrize("major", [8, 9])
def test_the_recorded_nodes_make_every_profile(tmp_path: Path, major: int, machine: Callable[[str], Machine]) -> None:
    """The same commands on the simulation of the node whose answers were recorded."""
    from pve_passthrough.host.simulated.pve import COMMANDS
    from tests.host.simulated.recorded_node import build

    planner = machine("p40-node")
    for profile in NAMES:
        new = _guest(planner, profile, vmid=710, cores=2, memory=4096)
        world = build(tmp_path / f"{profile}{major}", SHARED, major)
        for name in ("virtio-win-0.1.271.iso", "win11.iso"):
            world.put(f"{ISO}/{name}", "")
        ran = COMMANDS["qm"](world, command(new), b"")
        assert ran.rc == 0, (profile, ran.stderr)
        assert ("pinning machine type" in ran.stdout) == (profile == "windows-gaming")


def test_a_device_on_the_second_node_binds_the_guest_there(machine: Callable[[str], Machine]) -> None:
    host = machine("p40-node")
    card = next(device.address for device in look(host.host).devices if device.is_display and device.numa_node == 1)
    words = ("--vm", "300", "--numa-of", str(card), "--yes")
    assert isinstance(card, Address)
    assert host.says("vm", "create", "--profile", "linux-ai", *words) == Exit.FINE
    assert host.config(300)["affinity"] == "28-55" and "hostnodes=1" in host.config(300)["numa0"]
