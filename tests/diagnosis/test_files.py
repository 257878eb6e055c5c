"""Keys and values that people write down, as the files and listings that they stand for."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.diagnosis.bridge import remembered
from pve_passthrough.diagnosis.files import Paper, Sifted, as_config, maker_of, stated
from pve_passthrough.diagnosis.listings import listed
from pve_passthrough.model.diagnosis import Kind

RUNNING = "BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro quiet"


def papers(**statements: object) -> tuple[Paper, ...]:
    return stated(statements, "statements")


@pytest.mark.parametrize("key", ["proc_cmdline", "cmdline", "/proc/cmdline", "running cmdline"])
def test_the_running_command_line(key: str) -> None:
    (paper,) = stated({key: RUNNING}, "x")
    assert (paper.kind, paper.path, paper.text) == (Kind.CMDLINE, "/proc/cmdline", RUNNING)


@pytest.mark.parametrize("key", ["etc_default_grub", "grub", "/etc/default/grub", "GRUB_CMDLINE_LINUX_DEFAULT"])
def test_arguments_alone_become_grubs_line(key: str) -> None:
    (paper,) = stated({key: "quiet intel_iommu=on"}, "x")
    assert paper.kind is Kind.GRUB and paper.text == 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"\n'


def test_lines_of_a_file_as_a_list() -> None:
    (paper,) = papers(modprobe_d=["options vfio-pci ids=10de:1b81", "blacklist nouveau"])
    assert paper.kind is Kind.MODPROBE and paper.text.count("\n") == 1


def test_devices_in_a_group_become_a_listing() -> None:
    made = papers(group=14, devices=[
        {"bdf": "01:00.0", "class": "0300", "driver": "vfio-pci", "id": "10de:1b81"},
        {"bdf": "0000:02:00.0", "class": "0x010802", "driver": "nvme", "name": "SM981"},
    ])  # fmt: skip
    gpu, disk = (one.device for one in listed(next(p.text for p in made if p.kind is Kind.IOMMU_LISTING)))
    assert (gpu.id, gpu.driver, gpu.iommu_group, gpu.is_display) == ("10de:1b81", "vfio-pci", 14, True)
    assert (disk.driver, disk.iommu_group, disk.base_class) == ("nvme", 14, 0x01)


def test_a_guests_lines_among_other_statements() -> None:
    made = papers(vm={"hostpci0": "0000:01:00,pcie=1", "machine": "q35", "memory": 8192, "wish": "games"})
    (paper,) = made
    assert paper.kind is Kind.GUEST_CONFIG
    assert paper.text.splitlines() == ["hostpci0: 0000:01:00,pcie=1", "machine: q35", "memory: 8192"]


def test_attributes_of_the_device_that_is_spoken_of() -> None:
    made = {
        paper.path: paper.text
        for paper in papers(bdf="0a:00.0", reset_method="flr bus", ram_gib=32, kernel="6.8.12-4-pve")
    }
    assert made["/sys/bus/pci/devices/0000:0a:00.0/reset_method"] == "flr bus\n"
    assert made["/proc/meminfo"] == f"MemTotal: {32 * 1024 * 1024} kB\n"
    assert made["/proc/sys/kernel/osrelease"] == "6.8.12-4-pve\n"


@pytest.mark.parametrize(
    ("words", "maker"),
    [("Intel Core i7-8700", "GenuineIntel"), ("AMD Ryzen 9 5950X", "AuthenticAMD"), ("some processor", "")],
)
def test_the_processors_maker(words: str, maker: str) -> None:
    assert maker_of(words) == maker


def test_what_was_stored_against_what_is() -> None:
    (found,) = remembered({"bdf": "01:00.0", "group": 15, "stored_group": 14}, "x")
    assert {point.cause for point in found.points} == {"group-renumbered"}
    (found,) = remembered({"configured_bdf": "02:00.0", "actual_bdf": "03:00.0"}, "x")
    assert {point.cause for point in found.points} == {"bdf-renumbered"}
    assert remembered({"group": 15, "stored_group": 15, "old_kernel": "6.5", "kernel": "6.8"}, "x") == ()


def test_devices_of_a_libvirt_domain() -> None:
    text = """<domain><os><type arch='x86_64' machine='pc-q35-8.1'>hvm</type></os><devices>
<hostdev mode='subsystem' type='pci' managed='yes'><driver name='vfio'/>
  <source><address domain='0x0000' bus='0x0a' slot='0x00' function='0x1'/></source>
  <address type='pci' domain='0x0000' bus='0x06' slot='0x00' function='0x0'/></hostdev>
<hostdev mode='subsystem' type='usb'><source><vendor id='0x1'/></source></hostdev></devices></domain>"""
    assert as_config(text) == "hostpci0: 0000:0a:00.1\nmachine: q35"


def test_devices_of_a_command_line_of_qemu() -> None:
    text = "qemu-system-x86_64 -machine type=pc-i440fx-8.1 -device vfio-pci,host=01:00.0,id=hostpci0,rombar=0 -m 8G"
    assert as_config(text) == "hostpci0: 0000:01:00.0"
    assert as_config("-device virtio-net-pci,netdev=net0") == ""


@given(st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(max_size=20),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=12), inner, max_size=3),
    max_leaves=12,
))  # fmt: skip
def test_any_statements_give_papers_or_nothing(value: object) -> None:
    statements = json.loads(json.dumps({"devices": value, "bdf": value, "group": value, "grub": value}))
    assert all(isinstance(paper.text, str) for paper in stated(statements, "x"))
    assert isinstance(remembered(statements, "x"), tuple)


def test_of_a_long_log_only_telling_lines_are_kept() -> None:
    sifted = Sifted(Kind.KERNEL_LOG)
    first = b"[    0.000000] Linux version 6.8.12-4-pve (build@proxmox)\n"
    flood = b"[   99.000000] vfio-pci 0000:01:00.0: not ready\n" * 5000
    chunks = [first, *[flood] * 20]
    assert b"".join(sifted.passing(chunks)) == b"".join(chunks)
    (paper,) = sifted.papers("log", ())
    assert paper.text.strip() == "Linux version 6.8.12-4-pve (build@proxmox)"
