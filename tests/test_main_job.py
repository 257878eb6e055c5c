"""The main job through the command line, from a bare host to a guest that has the device, and back to the byte."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pve_passthrough.change.engine import LOCK
from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, create


class Machine:
    """One simulated host, driven as a person would."""

    def __init__(self, folder: Path, seed: str) -> None:
        self.folder = folder / seed
        create(str(self.folder), seed)
        self.host = Simulated(str(self.folder))

    def says(self, *words: str) -> int:
        return run(["--host", f"sim:{self.folder}", *words])

    def inside(self, *words: str) -> int:
        return run(["sim", "exec", str(self.folder), "--", *words])

    def reboot(self) -> None:
        assert self.inside("systemctl", "reboot") == 0

    def driver(self, address: str) -> str:
        return self.host.world.driver_of(address) or ""

    def text(self, path: str) -> str:
        return self.host.world.text(path) or ""

    def on_disk(self) -> dict[str, str]:
        """Digest of every file of /etc and /boot, links by their text, and every directory."""
        found = {}
        for top in ("etc", "boot"):
            for folder, folders, files in os.walk(self.folder / top):
                for name in folders + files:
                    path = Path(folder, name)
                    data = (
                        os.readlink(path).encode()
                        if path.is_symlink()
                        else path.read_bytes()
                        if path.is_file()
                        else b"d"
                    )
                    found[str(path.relative_to(self.folder))] = hashlib.sha256(data).hexdigest()
        return found

    def give_driver(self, address: str, driver: str) -> None:
        """Let another driver fit the function, as if its package were installed; takes effect at the next boot."""
        machine = self.host.world.machine()
        machine["natural"][address] = {"driver": driver, "module": driver, "others": []}
        self.host.world.save_machine(machine)
        self.reboot()

    def boot_with(self, argument: str) -> None:
        """Put an argument onto the kernel command line, the way this machine's boot loader wants it."""
        path = "/etc/kernel/cmdline"
        if "zfs" in self.folder.name:
            self.host.world.put(path, self.text(path).rstrip("\n") + f" {argument}\n")
            assert self.inside("proxmox-boot-tool", "refresh") == 0
        else:
            grub = self.text("/etc/default/grub").replace('quiet"', f'quiet {argument}"')
            self.host.world.put("/etc/default/grub", grub)
            assert self.inside("update-grub") == 0
        self.reboot()
        assert argument in self.text("/proc/cmdline").split()


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Machine]:
    return lambda seed: Machine(tmp_path, seed)


def _there_and_back(host: Machine, device: str, *more: str, reboots: bool) -> None:
    """up, reboot if it must be, prove, stop, undo, reboot if it must be: files and derived files as before."""
    before = host.on_disk()
    assert host.says("up", device, "--vm", "100", "--yes", "--patience", "0", *more) == Exit.FINE
    assert host.says("verify", "--vm", "100", "--patience", "0") == Exit.FINE
    assert host.on_disk() != before
    assert host.inside("qm", "stop", "100") == 0
    assert host.says("undo", "--yes") == (Exit.REBOOT if reboots else Exit.UNDONE)
    if reboots:
        host.reboot()
    assert host.says("status") == Exit.FINE
    assert host.on_disk() == before


def test_intel_6_5_with_grub(machine: Callable[[str], Machine]) -> None:
    host = machine("intel-6.5-grub")
    assert host.says("up", "gpu", "--vm", "100", "--yes", "--no-reboot") == Exit.REBOOT
    assert "intel_iommu=on" not in host.text("/proc/cmdline")
    host.reboot()
    assert "intel_iommu=on" in host.text("/proc/cmdline").split()
    assert host.says("verify", "--vm", "100", "--patience", "0") == Exit.FINE
    assert host.driver("0000:01:00.0") == "vfio-pci"
    assert host.says("up", "gpu", "--vm", "100", "--yes", "--patience", "0") == Exit.FINE  # again: nothing to do


def test_intel_6_5_there_and_back(machine: Callable[[str], Machine]) -> None:
    _there_and_back(machine("intel-6.5-grub"), "gpu", reboots=True)


def test_intel_7_0_zfs_needs_no_reboot(machine: Callable[[str], Machine]) -> None:
    _there_and_back(machine("intel-zfs"), "gpu", reboots=False)


def test_undo_of_a_running_guest_says_that_it_must_stop(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    before = host.on_disk()
    assert host.says("up", "gpu", "--vm", "100", "--yes", "--patience", "0") == Exit.FINE
    assert host.says("undo", "--yes") == Exit.UNDONE
    assert "Guest 100 still runs" in capsys.readouterr().err
    assert host.inside("qm", "stop", "100") == 0
    assert host.on_disk() == before


def test_systemd_boot_gets_its_own_file_edited(machine: Callable[[str], Machine]) -> None:
    host = machine("intel-zfs")
    host.boot_with("intel_iommu=off")
    assert not host.host.world.names("/sys/class/iommu")
    _there_and_back(host, "gpu", reboots=True)


def test_amd_with_grub_on_esps_and_secure_boot(machine: Callable[[str], Machine]) -> None:
    host = machine("amd-secureboot")
    _there_and_back(host, "gpu", reboots=True)


def test_amd_claims_before_its_own_driver(machine: Callable[[str], Machine]) -> None:
    host = machine("amd-secureboot")
    assert host.says("apply", "gpu", "--vm", "100", "--yes") == Exit.REBOOT
    host.reboot()
    claimed = [address for address in host.host.world.addresses() if host.driver(address) == "vfio-pci"]
    assert len(claimed) >= 2


def test_mixed_loaders_are_both_written(machine: Callable[[str], Machine]) -> None:
    host = machine("mixed")
    host.give_driver("0000:01:00.0", "nvidia")
    _there_and_back(host, "gpu", reboots=True)


def test_one_of_two_identical_cards_goes(machine: Callable[[str], Machine]) -> None:
    host = machine("twins")
    cards = [
        a for a in host.host.world.addresses() if host.host.world.id_of(a) == host.host.world.id_of("0000:01:00.0")
    ]
    assert len(cards) == 2
    for card in cards:
        host.give_driver(card, "nvidia")
    before = host.on_disk()
    assert host.says("up", cards[1], "--vm", "100", "--yes", "--patience", "0") == Exit.FINE
    assert host.driver(cards[1]) == "vfio-pci"
    assert host.driver(cards[0]) == "nvidia"
    assert f"claim {cards[1]}" in host.text("/etc/initramfs-tools/scripts/init-top/pve-passthrough")
    host.reboot()
    assert (host.driver(cards[0]), host.driver(cards[1])) == ("nvidia", "vfio-pci")
    assert host.says("undo", "--yes") == Exit.REBOOT
    host.reboot()
    assert (host.driver(cards[0]), host.driver(cards[1])) == ("nvidia", "nvidia")
    assert host.says("status") == Exit.FINE
    assert host.on_disk() == before


def test_two_cards_and_no_number_is_a_question(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    assert machine("twins").says("plan", "gpu", "--vm", "100") == Exit.USAGE
    assert "0000:01:00.0" in capsys.readouterr().err


def test_a_group_with_the_root_pool_is_refused_by_name(
    machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("shared-sata")
    before = host.on_disk()
    words = [
        "up",
        "gpu",
        "--vm",
        "100",
        "--yes",
        "--accept",
        "never",
        "--accept",
        "shared-group",
        "--accept",
        "root-disk",
    ]
    assert host.says(*words) == Exit.REFUSED
    told = capsys.readouterr().err
    assert "SATA Controller" in told and "rpool" in told and "0000:00:17.0" in told
    assert "--accept" not in told
    assert host.on_disk() == before


def test_the_only_display_asks(machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]) -> None:
    host = machine("only-display")
    before = host.on_disk()
    assert host.says("up", "gpu", "--vm", "100", "--yes") == Exit.REFUSED
    assert "--accept only-display" in capsys.readouterr().err
    assert host.on_disk() == before
    _there_and_back(host, "gpu", "--accept", "only-display", reboots=True)


def test_both_tell_the_same_in_json(machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]) -> None:
    host = machine("default")
    capsys.readouterr()
    assert host.says("check", "gpu", "--vm", "100", "--output-format", "json") == Exit.PENDING
    checked = json.loads(capsys.readouterr().out)
    assert checked["format"] == 1 and checked["verdict"] == "changes-needed"
    assert {"rule", "level", "subject", "message", "evidence", "actor", "fix", "hazard"} == set(checked["findings"][0])
    assert host.says("plan", "gpu", "--vm", "100", "--output-format", "json-pretty") == Exit.PENDING
    planned = json.loads(capsys.readouterr().out)
    assert [change["cell"] for change in planned["changes"]][-1] == "vm:100/hostpci0"
    assert host.says("apply", "gpu", "--vm", "100", "--yes", "--output-format", "yaml") == Exit.FINE
    assert "phase: KEPT" in capsys.readouterr().out
    assert host.says("devices", "gpu", "--output-format", "json") == Exit.FINE
    listed = json.loads(capsys.readouterr().out)["devices"]
    assert listed[0]["guests"] == [100]


# -- bad input -----------------------------------------------------------------------------------


@pytest.mark.parametrize("word", ["zz:00.0", "99:00.0", "0000:01:00.9", "10de:ffff", "gpuu", "gpu:7", "../etc", ""])
def test_nonsense_devices(word: str, machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]) -> None:
    host = machine("default")
    assert host.says("plan", word, "--vm", "100") == Exit.USAGE
    assert "device." in capsys.readouterr().err


@pytest.mark.parametrize("vmid", ["7", "abc", "-1", "99999999999"])
def test_nonsense_guests(vmid: str, machine: Callable[[str], Machine]) -> None:
    assert machine("default").says("plan", "gpu", "--vm", vmid) == Exit.USAGE


def test_a_guest_that_is_not_there(machine: Callable[[str], Machine], capsys: pytest.CaptureFixture[str]) -> None:
    assert machine("default").says("plan", "gpu", "--vm", "4711") in (Exit.COULD_NOT, Exit.USAGE, Exit.BLOCKED)
    assert "4711" in capsys.readouterr().err


def _lose_quorum(host: Machine) -> None:
    """A cluster of three that lost two: the cluster file system says so and takes no writes."""
    _flag(host, "quorate", False)
    members = {"nodename": "pve", "version": 4, "cluster": {"name": "lab", "version": 3, "nodes": 3, "quorate": 0}}
    host.host.world.put("/etc/pve/.members", json.dumps(members))


def _flag(host: Machine, name: str, value: object) -> None:
    host.host.world.save_machine(host.host.world.machine() | {name: value})


@pytest.mark.parametrize(
    ("change", "needle"),
    [
        (lambda host: host.inside("qm", "set", "100", "--lock", "backup"), "lock"),
        (lambda host: host.inside("qm", "start", "100"), "run"),
        (lambda host: _flag(host, "pve_readonly", True), "/etc/pve"),
        (lambda host: _flag(host, "quorate", False), "Permission denied"),
        (_lose_quorum, "no quorum"),
        (lambda host: _flag(host, "failing", ["update-initramfs"]), "update-initramfs"),
        (lambda host: _flag(host, "rooms", {"/boot": [500 << 20, 1 << 20]}), ""),
    ],
    ids=["locked", "running", "read-only", "quorum-goes", "no-quorum", "failing-refresh", "full-boot"],
)
def test_states_that_forbid_a_run_leave_everything_as_it_was(
    change: Callable[[Machine], object],
    needle: str,
    machine: Callable[[str], Machine],
    capsys: pytest.CaptureFixture[str],
) -> None:
    host = machine("amd-secureboot")
    change(host)
    before = host.on_disk()
    capsys.readouterr()
    code = host.says("up", "gpu", "--vm", "100", "--yes", "--no-reboot")
    told = capsys.readouterr().err
    assert code in (Exit.COULD_NOT, Exit.BLOCKED, Exit.REFUSED, Exit.UNDONE), told
    assert needle in " ".join(told.split())
    assert host.on_disk() == before


def test_a_device_that_vanishes_between_plan_and_apply(
    machine: Callable[[str], Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    saved = tmp_path / "plan.json"
    assert host.says("plan", "gpu", "--vm", "100", "--save", str(saved)) == Exit.PENDING
    before = host.on_disk()
    host.host.world.put_link("/sys/bus/pci/devices/0000:01:00.0", None)
    assert host.says("apply", "--saved", str(saved), "--yes") == Exit.COULD_NOT
    assert "plan.device-gone" in capsys.readouterr().err
    assert host.on_disk() == before


def test_a_saved_plan_is_for_its_machine_only(
    machine: Callable[[str], Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    saved = tmp_path / "plan.json"
    assert host.says("plan", "gpu", "--vm", "100", "--save", str(saved)) == Exit.PENDING
    host.host.world.put("/etc/machine-id", "0" * 31 + "1\n")
    assert host.says("apply", "--saved", str(saved), "--yes") != Exit.FINE
    assert "machine" in capsys.readouterr().err


@pytest.mark.parametrize("text", ["", "{", "[]", '{"format": 1}', '{"format": 99, "plan": {}}', "\udcff"])
def test_a_broken_saved_plan(text: str, machine: Callable[[str], Machine], tmp_path: Path) -> None:
    saved = tmp_path / "plan.json"
    saved.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert machine("default").says("apply", "--saved", str(saved), "--yes") == Exit.COULD_NOT


def test_a_second_run_at_once_is_locked_out(machine: Callable[[str], Machine]) -> None:
    host = machine("default")
    with host.host.lock(LOCK):
        assert host.says("apply", "gpu", "--vm", "100", "--yes") == Exit.LOCKED


def test_nobody_to_ask_means_no_change(machine: Callable[[str], Machine], monkeypatch: pytest.MonkeyPatch) -> None:
    host = machine("default")
    before = host.on_disk()
    assert host.says("apply", "gpu", "--vm", "100") == Exit.USAGE
    assert host.on_disk() == before


def test_a_start_that_nothing_accepts_is_guarded_when_groups_are_known_late(machine: Callable[[str], Machine]) -> None:
    """While the IOMMU is off there are no groups; the guard must stand again before the guest is started."""
    host = machine("shared-sata")
    host.host.world.put(
        "/etc/pve/nodes/pve/qemu-server/100.conf",
        host.text("/etc/pve/nodes/pve/qemu-server/100.conf") + "hostpci0: 0000:01:00\n",
    )
    assert host.says("verify", "--vm", "100") == Exit.REFUSED
    assert host.driver("0000:00:17.0") == "ahci"


# -- captures ------------------------------------------------------------------------------------


def test_a_capture_replays_to_the_same_judgement(
    machine: Callable[[str], Machine], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    host = machine("amd-secureboot")
    file = tmp_path / "machine.tar.gz"
    assert host.says("capture", "-o", str(file)) == Exit.FINE
    capsys.readouterr()
    words = ["check", "gpu", "--vm", "100", "--output-format", "json"]
    code = host.says(*words)
    live = json.loads(capsys.readouterr().out)
    assert run(["--host", f"capture:{file}", *words]) == code
    replayed = json.loads(capsys.readouterr().out)
    assert [one["rule"] for one in replayed["findings"]] == [one["rule"] for one in live["findings"]]
    assert replayed["verdict"] == live["verdict"]


def test_a_capture_becomes_a_simulated_host(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    host = machine("default")
    file = tmp_path / "machine.tar.gz"
    assert host.says("capture", "-o", str(file)) == Exit.FINE
    assert run(["sim", "create", str(tmp_path / "again"), "--from", f"capture:{file}"]) == Exit.FINE
    assert run(["--host", f"sim:{tmp_path / 'again'}", "check", "gpu"]) in (Exit.FINE, Exit.PENDING)


def test_a_capture_is_only_looked_at(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    file = tmp_path / "machine.tar.gz"
    assert machine("default").says("capture", "-o", str(file)) == Exit.FINE
    assert run(["--host", f"capture:{file}", "apply", "gpu", "--vm", "100", "--yes"]) == Exit.USAGE
    assert run(["--host", f"capture:{file}", "undo", "--yes"]) == Exit.USAGE
