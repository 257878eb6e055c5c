"""Machines made from hosts that answer: other simulated machines and recorded sysfs trees."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.host.local import Local
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.host.simulated import Simulated, create, create_from, power_on, transplant
from tests.shared import needs_shared, realhosts

SOME = (
    "sysfs-derived-h310-coffeelake-nvidia",
    "sysfs-hwloc-2pa-pcidomain32bits",
    "sysfs-udev-shuttle-dh270-with-coral",
)


@pytest.mark.parametrize("seed", ["default", "amd-secureboot", "mixed"])
def test_a_copy_behaves_as_its_original(tmp_path: Path, seed: str) -> None:
    original = create(str(tmp_path / "original"), seed)
    copy = create_from(str(tmp_path / "copy"), original)
    for address in original.world.addresses():
        assert copy.world.driver_of(address) == original.world.driver_of(address)
        assert copy.world.group_of(address) == original.world.group_of(address)
        for name in ("vendor", "class", "resource", "config", "reset_method"):
            assert copy.world.attribute(address, name) == original.world.attribute(address, name)
    for path in ("/sys/class/net", "/sys/class/block", "/sys/class/iommu", "/etc/modprobe.d"):
        assert copy.names(path) == original.names(path), path
    for path in ("/proc/cmdline", "/proc/fb", "/etc/default/grub", "/etc/pve/nodes/pve/qemu-server/100.conf"):
        assert copy.read(path) == original.read(path), path
    status = ["proxmox-boot-tool", "status"]
    assert copy.run(status) == original.run(status)
    assert copy.world.machine()["zpool"] == original.world.machine()["zpool"]
    assert copy.world.machine()["invented"] == []


def test_it_obeys_the_laws(tmp_path: Path) -> None:
    copy = create_from(str(tmp_path / "copy"), create(str(tmp_path / "original"), "default"))
    copy.write("/etc/modprobe.d/x.conf", b"blacklist nouveau\n")
    power_on(copy.world)
    assert copy.world.driver_of("0000:01:00.0") is None
    copy.write("/sys/bus/pci/drivers/igc/unbind", b"0000:03:00.0")
    assert "nic0" not in copy.names("/sys/class/net")


def test_links_and_secrets_of_the_source_stay_there(tmp_path: Path) -> None:
    tree = tmp_path / "tree"
    device = tree / "sys/bus/pci/devices/0000:01:00.0"
    device.mkdir(parents=True)
    (device / "vendor").write_text("0x10de\n")
    (device / "class").write_text("0x030000\n")
    (tree / "etc/pve/priv").mkdir(parents=True)
    (tree / "etc/pve/priv/authkey.key").write_text("secret\n")
    (tree / "etc/modprobe.d").mkdir()
    outside = tmp_path / "outside.conf"
    outside.write_text("mine\n")
    (tree / "etc/modprobe.d/a.conf").symlink_to(outside)
    (tree / "etc/modprobe.d/b.conf").symlink_to("../../../../outside.conf")
    (tree / "etc/kernel").symlink_to("/etc")
    host = create_from(str(tmp_path / "new"), Local(str(tree)))
    for folder, folders, files in os.walk(tmp_path / "new"):
        for name in folders + files:
            path = Path(folder, name)
            assert "secret" not in name and name != "authkey.key"
            if path.is_symlink() and not os.readlink(path).startswith("/usr/lib/systemd"):
                assert path.resolve().is_relative_to(tmp_path / "new"), path
    assert outside.read_text() == "mine\n"
    invented = host.world.machine()["invented"]
    assert {"driver of 0000:01:00.0", "kernel release", "/etc/default/grub", "UEFI"} <= set(invented)
    assert host.world.driver_of("0000:01:00.0") == "nouveau"


def test_without_devices_or_room_nothing_is_written(tmp_path: Path) -> None:
    (tmp_path / "tree").mkdir()
    with pytest.raises(Failure) as caught:
        create_from(str(tmp_path / "new"), Local(str(tmp_path / "tree")))
    assert caught.value.problem.ref == "sim.no-devices"
    assert not (tmp_path / "new").exists()


@needs_shared
@pytest.mark.parametrize("case", SOME)
def test_recorded_trees_come_up(tmp_path: Path, case: str) -> None:
    source = Local(str(realhosts() / "share" / case / "fsroot"))
    host = create_from(str(tmp_path / "new"), source)
    assert isinstance(host, Simulated)
    found = [name for name in source.names("/sys/bus/pci/devices") if ":" in name]
    assert list(host.world.addresses()) == found
    for address in found:
        path = f"/sys/bus/pci/devices/{address}/vendor"
        assert host.read(path) == source.read(path)
    assert host.run(["update-initramfs", "-u", "-k", "all"]).ok
    assert host.world.machine()["invented"]


# -- hostile sources -------------------------------------------------------------------------

CARD = "/sys/bus/pci/devices/0000:01:00.0"
HOME = "/sys/devices/pci0000:00/0000:01:00.0"


def _hostile() -> Answers:
    evil = (
        "../../../../escape",
        "..",
        ".",
        "",
        "a\0b",
        "x" * 300,
        "line\nfeed",
        "\udcff",
        "/abs",
        "virtfn/../../x",
        "ok",
    )
    return Answers(
        reads={
            f"{HOME}/vendor": b"0x10de\n",
            f"{HOME}/class": b"0x030000\n",
            f"{HOME}/resource": b"\xff\x00garbage",
            "/etc/../../../outside": b"evil",
            "/etc/modprobe.d/../../../../outside": b"evil",
            "/etc/modules": b"vfio\n",
            "/etc/modules/below": b"a file in a file",
            "/etc/network/interfaces": b"x",
            "/etc/hostname": b"../../x\n",
            "/proc/cmdline": b'root=ZFS=a\0b BOOT_IMAGE=/vmlinuz-../../../x $(touch x) "quote\n',
        },
        names={
            "/sys/bus/pci/devices": ("0000:01:00.0", "../0000:01:00.0", "x"),
            HOME: ("vendor", "class", "resource", "physfn", *evil),
            f"{HOME}/pci_bus": evil,
            "/etc/modprobe.d": evil,
            "/etc/modules": evil,
            "/boot": ("vmlinuz-../../x", "vmlinuz-" + "9" * 300, "vmlinuz-a\0"),
            **{f"/sys/class/{name}": evil for name in ("net", "block", "iommu", "drm")},
            "/sys/class/net/../../../../../out/slaves": evil,
        },
        links={
            CARD: "../../../devices/pci0000:00/0000:01:00.0",
            f"{HOME}/driver": "../../bus/pci/drivers/..",
            f"{HOME}/driver/module": "/",
            f"{HOME}/iommu_group": "../../\u00b2",
            f"{HOME}/physfn": "../" * 60 + "etc/passwd",
            "/etc/network": "/",
            "/etc/network/up": "../" * 40 + "etc",
            "/etc/modprobe.d/ok": "",
            "/sys/class/net/ok": "/etc/../../../../../../tmp",
            "/sys/class/block/ok": "../../devices/" + "y/" * 3000,
            "/dev/mapper/nul": "a\0b",
        },
    )


def test_no_answer_leads_out_of_a_new_machine(tmp_path: Path) -> None:
    new = tmp_path / "deep" / "new"
    host = create_from(str(new), Replay(_hostile(), "capture:evil"))
    assert [path.name for path in tmp_path.iterdir()] == ["deep"] and os.listdir(tmp_path / "deep") == ["new"]
    for folder, folders, files in os.walk(new):
        for name in folders + files:
            path = Path(folder, name)
            if path.is_symlink() and not os.readlink(path).startswith("/usr/lib/systemd"):
                assert os.path.normpath(os.path.join(os.path.realpath(folder), os.readlink(path))).startswith(str(new))
            assert "outside" not in name
    assert host.world.addresses() == ("0000:01:00.0",)


def test_the_size_of_a_new_machine_is_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    answers = _hostile()
    answers.names["/etc/modprobe.d"] = tuple(f"{number}.conf" for number in range(50))
    for number in range(50):
        answers.reads[f"/etc/modprobe.d/{number}.conf"] = b"#" * 1000
    monkeypatch.setattr(transplant, "MOST_BYTES", 20_000)
    host = create_from(str(tmp_path / "new"), Replay(answers, "capture:large"))
    assert sum(host.world.text(f"/etc/modprobe.d/{number}.conf") is not None for number in range(50)) <= 20
    monkeypatch.setattr(transplant, "MOST_FUNCTIONS", 0)
    with pytest.raises(Failure) as caught:
        create_from(str(tmp_path / "other"), Replay(answers, "capture:large"))
    assert caught.value.problem.ref == "sim.too-large" and not (tmp_path / "other").exists()
