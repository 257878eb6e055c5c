"""IOMMU, CPU, firmware, kernel, modules: each fact from its evidence, and unknown without it."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.model.facts import Firmware, Iommu, Kernel
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.dpkg import Packages
from pve_passthrough.probe.platform import (
    SECURE_BOOT,
    modules_listed,
    probe_cpu,
    probe_firmware,
    probe_iommu,
    probe_kernel,
    probe_memory,
    probe_modules,
    remapping_in_interrupts,
    remapping_in_log,
)

from .trees import DIRECTORY, Content, Link, Scripted, plant

TABLES = "/sys/firmware/acpi/tables"


def ask(root: Path, files: dict[str, Content], programs: dict[tuple[str, ...], Ran | str] | None = None) -> Asking:
    return Asking(Scripted(plant(root, files), programs))


def abouts(asking: Asking) -> set[str]:
    return {gap.about for gap in asking.gaps}


def dmar(flags: int) -> bytes:
    return b"DMAR" + bytes(32) + bytes([38, flags]) + bytes(10)


# -- interrupt remapping ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("table", "expected"),
    [
        (b"  9:  0  0  IR-IO-APIC  9-fasteoi  acpi\n", True),
        (b" 24:  0  IR-PCI-MSIX-0000:00:1c.0  0-edge\n", True),
        (b"  9:  0  0  IO-APIC  9-fasteoi  acpi\n 24:  1  PCI-MSI 512-edge\n", False),
        (b" 24:  0  ITS-MSI 512-edge\n", None),
        (b"", None),
        (None, None),
    ],
)
def test_live_interrupt_controllers_tell(table: bytes | None, expected: bool | None) -> None:
    assert remapping_in_interrupts(table) is expected


def test_the_log_tells_and_its_silence_does_not() -> None:
    assert remapping_in_log("DMAR-IR: Enabled IRQ remapping in x2apic mode") is True
    assert remapping_in_log("AMD-Vi: Interrupt remapping enabled") is True
    assert remapping_in_log("DMAR-IR: Failed to enable irq remapping. You are vulnerable") is False
    assert remapping_in_log("AMD-Vi: Disabling interrupt remapping") is False
    assert remapping_in_log("DMAR: IOMMU enabled") is None


INTEL = Firmware(dmar=True, ivrs=False)
AMD = Firmware(dmar=False, ivrs=True)


@pytest.mark.parametrize(
    ("firmware", "cmdline", "files", "expected"),
    [
        (INTEL, "quiet", {f"{TABLES}/DMAR": dmar(1), "/sys/class/iommu/dmar0": ""}, True),
        (INTEL, "quiet", {f"{TABLES}/DMAR": dmar(0), "/sys/class/iommu/dmar0": ""}, False),
        (INTEL, "quiet", {f"{TABLES}/DMAR": b"DMAR"}, None),
        (INTEL, "quiet", {}, None),
        (INTEL, "quiet intremap=off", {f"{TABLES}/DMAR": dmar(1)}, False),
        (INTEL, None, {f"{TABLES}/DMAR": dmar(1)}, None),
        (AMD, "quiet", {"/sys/class/iommu/ivhd0": ""}, True),
        (AMD, "intremap=off", {"/sys/class/iommu/ivhd0": ""}, False),
        (AMD, "amd_iommu=off", {"/sys/class/iommu": DIRECTORY}, None),
        (Firmware(dmar=False, ivrs=False), "", {}, False),
        (Firmware(), "quiet", {}, None),
        # A live controller outweighs what the table promises.
        (INTEL, "", {f"{TABLES}/DMAR": dmar(1), "/proc/interrupts": " 9: 0 IO-APIC 9-edge\n"}, False),
    ],
)
def test_interrupt_remapping(
    tmp_path: Path, firmware: Firmware, cmdline: str | None, files: dict[str, Content], expected: bool | None
) -> None:
    asking = ask(tmp_path, files)
    found = probe_iommu(asking, Kernel(cmdline=cmdline), firmware, deep=False)
    assert found.interrupt_remapping is expected
    assert ("iommu.interrupt_remapping" in abouts(asking)) is (expected is None)


def test_only_a_deep_probe_reads_the_kernel_log(tmp_path: Path) -> None:
    programs: dict[tuple[str, ...], Ran | str] = {("dmesg",): "AMD-Vi: Interrupt remapping enabled\n"}
    asking = ask(tmp_path, {"/sys/class/iommu": DIRECTORY}, programs)
    assert probe_iommu(asking, Kernel(cmdline=""), Firmware(), deep=False).interrupt_remapping is None
    assert probe_iommu(asking, Kernel(cmdline=""), Firmware(), deep=True).interrupt_remapping is True


# -- the IOMMU itself -------------------------------------------------------------------------


def test_units_width_and_unsafe_interrupts(tmp_path: Path) -> None:
    asking = ask(
        tmp_path,
        {
            "/sys/class/iommu/dmar0": Link("../../devices/virtual/iommu/dmar0"),
            "/sys/class/iommu/dmar1": Link("../../devices/virtual/iommu/dmar1"),
            "/sys/devices/virtual/iommu/dmar0/intel-iommu/cap": "d2008c40660462\n",
            "/sys/devices/virtual/iommu/dmar1/intel-iommu/cap": "d2008c222f0606\n",
            "/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts": "Y\n",
        },
    )
    found = probe_iommu(asking, Kernel(cmdline="intremap=off"), Firmware(), deep=False)
    # 0x26 + 1 and 0x2f + 1 bits: the narrower unit counts.
    assert found == Iommu(("dmar0", "dmar1"), False, 39, True)


def test_an_empty_class_is_off_and_a_missing_one_is_unknown(tmp_path: Path) -> None:
    off = ask(tmp_path / "off", {"/sys/class/iommu": DIRECTORY})
    assert probe_iommu(off, Kernel(), Firmware(), deep=False).on is False
    bare = ask(tmp_path / "bare", {"/sys/bus": DIRECTORY})
    assert probe_iommu(bare, Kernel(), Firmware(), deep=False).on is None
    assert "iommu.units" in abouts(bare)


def test_a_width_that_is_no_number_is_a_gap(tmp_path: Path) -> None:
    asking = ask(tmp_path, {"/sys/class/iommu/dmar0/intel-iommu/cap": "zz"})
    assert probe_iommu(asking, Kernel(), Firmware(), deep=False).address_width is None
    assert "iommu.address_width" in abouts(asking)


# -- firmware ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "uefi", "secure"),
    [
        ({"/sys/firmware/efi/efivars/" + SECURE_BOOT: b"\x06\0\0\0\x01"}, True, True),
        ({"/sys/firmware/efi/efivars/" + SECURE_BOOT: b"\x06\0\0\0\x00"}, True, False),
        ({"/sys/firmware/efi/efivars/" + SECURE_BOOT: b"\x06"}, True, None),
        ({"/sys/firmware/efi/efivars/BootOrder-8be4df61": b"x"}, True, False),
        ({"/sys/firmware/efi/efivars": DIRECTORY}, True, None),
        ({"/sys/firmware/acpi": DIRECTORY}, False, False),
        ({"/sys/bus": DIRECTORY}, None, None),
    ],
)
def test_uefi_and_secure_boot(
    tmp_path: Path, files: dict[str, Content], uefi: bool | None, secure: bool | None
) -> None:
    asking = ask(tmp_path, files)
    found = probe_firmware(asking)
    assert (found.uefi, found.secure_boot) == (uefi, secure)
    assert ("firmware.uefi" in abouts(asking)) is (uefi is None)


def test_tables_product_and_chassis(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        f"{TABLES}/DMAR": b"",
        f"{TABLES}/FACP": b"",
        "/sys/class/dmi/id/product_name": "Machine 7\n",
        "/sys/class/dmi/id/chassis_type": "10\n",
    }
    assert probe_firmware(ask(tmp_path, files)) == Firmware(False, False, True, False, "Machine 7", True)


@pytest.mark.parametrize(("chassis", "laptop"), [("3\n", False), ("31", True), ("x", None), ("", None)])
def test_laptop(tmp_path: Path, chassis: str, laptop: bool | None) -> None:
    assert probe_firmware(ask(tmp_path, {"/sys/class/dmi/id/chassis_type": chassis})).laptop is laptop


# -- kernel, CPU, memory, modules -------------------------------------------------------------


def test_kernel(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "/proc/version": "Linux version 6.8.12-4-pve (build@proxmox) #1 SMP\n",
        "/proc/cmdline": "BOOT_IMAGE=/boot/vmlinuz quiet\n",
        "/proc/sys/kernel/random/boot_id": "a-b-c\n",
    }
    assert probe_kernel(ask(tmp_path, files)) == Kernel("6.8.12-4-pve", "BOOT_IMAGE=/boot/vmlinuz quiet", "a-b-c")


def test_cpu_and_memory(tmp_path: Path) -> None:
    block = (
        "processor\t: 0\nvendor_id\t: GenuineIntel\nmodel name\t: CPU: X\nflags\t\t: fpu vmx\n"
        "address sizes\t: 46 bits physical, 48 bits virtual\n\n"
    )
    asking = ask(
        tmp_path,
        {
            "/proc/cpuinfo": block + block.replace(": 0", ": 1"),
            "/proc/meminfo": "MemTotal: 16 kB\nMemAvailable: 4 kB\n",
        },
    )
    cpu = probe_cpu(asking)
    assert (cpu.vendor, cpu.model, cpu.physical_bits, cpu.count) == ("GenuineIntel", "CPU: X", 46, 2)
    assert cpu.flags == frozenset({"fpu", "vmx"})
    assert probe_memory(asking) == (16384, 4096)


def test_modules_without_looking_into_the_initramfs(tmp_path: Path) -> None:
    asking = ask(tmp_path, {"/proc/modules": "vfio_pci 1 0 - Live 0x0\nnvme 2 1 - Live 0x0\n"})
    found = probe_modules(asking, Kernel("6.8"), Packages(None), deep=False)
    assert found.loaded == frozenset({"vfio_pci", "nvme"})
    assert found.initramfs is None and "modules.initramfs" in abouts(asking)
    assert not isinstance(asking.host, Scripted) or asking.host.started == []


def test_modules_in_the_initramfs(tmp_path: Path) -> None:
    listing = "usr/lib/modules/6.8/kernel/drivers/vfio/vfio-pci.ko.zst\nusr/lib/modules/6.8/x/nvme.ko\nusr/bin/ko.x\n"
    programs: dict[tuple[str, ...], Ran | str] = {("lsinitramfs", "/boot/initrd.img-6.8"): listing}
    found = probe_modules(ask(tmp_path, {}, programs), Kernel("6.8"), Packages(None), deep=True)
    assert found.initramfs == frozenset({"vfio_pci", "nvme"}) == modules_listed(listing)


def test_a_failing_lsinitramfs_is_a_gap(tmp_path: Path) -> None:
    programs: dict[tuple[str, ...], Ran | str] = {("lsinitramfs", "/boot/initrd.img-6.8"): Ran(1, "x.ko", "broken")}
    asking = ask(tmp_path, {}, programs)
    assert probe_modules(asking, Kernel("6.8"), Packages(None), deep=True).initramfs is None
    assert any("broken" in gap.reason for gap in asking.gaps)


STATUS = b"""Package: dracut
Status: deinstall ok config-files
Version: 1

Package: initramfs-tools
Status: install ok installed
Version: 0.148
"""


def test_packages_installed_and_removed() -> None:
    packages = Packages(STATUS)
    assert packages.version("initramfs-tools") == "0.148"
    assert packages.version("dracut") is None
    assert packages.version("initramfs") is None


@pytest.mark.parametrize(
    ("status", "files", "expected"),
    [
        (STATUS, {}, "initramfs-tools"),
        (STATUS.replace(b"deinstall ok config-files", b"install ok installed")[:70], {}, "dracut"),
        (None, {"/usr/sbin/update-initramfs": "#!/bin/sh\n"}, "initramfs-tools"),
        (None, {"/usr/bin/dracut": "#!/bin/bash\n"}, "dracut"),
        (None, {"/etc/initramfs-tools/modules": ""}, "initramfs-tools"),
        (None, {}, None),
    ],
)
def test_initramfs_tool(tmp_path: Path, status: bytes | None, files: dict[str, Content], expected: str | None) -> None:
    asking = ask(tmp_path, files)
    assert probe_modules(asking, Kernel(), Packages(status), deep=False).initramfs_tool == expected
    assert ("modules.initramfs_tool" in abouts(asking)) is (expected is None)
