"""Built-in machines for what graphics cards have of their own. Data only.

1. Vendor, device and class numbers are those of the PCI ID list; serial numbers and names are made up.
2. Each machine stands for one way in which people use a card: a gaming host, a node full of compute cards, the graphics
   inside a processor of either maker, an Arc card. A single-GPU desktop is `only-display` in `seeds`.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .spec import GIB, MIB, MachineSpec, NicSpec, PciSpec, UsbSpec

_GEN1_X16 = ("2.5 GT/s PCIe", "8.0 GT/s PCIe", 16, 16)
_GEN4_X16 = ("2.5 GT/s PCIe", "16.0 GT/s PCIe", 16, 16)
_GEN3_X4 = ("8.0 GT/s PCIe", "8.0 GT/s PCIe", 4, 4)
_GEN1_X1 = ("2.5 GT/s PCIe", "2.5 GT/s PCIe", 1, 1)
_ROOT_PORT = "0000:00:01.0"

RTX_3080 = replace(
    seeds.DEFAULT,
    name="rtx-3080",
    devices=(
        *seeds.ALDER_LAKE,
        PciSpec(
            "0000:01:00.0", "10de:2206", 0x030000, 1, "nouveau", "nouveau", _ROOT_PORT, "1458:403f", 0xA1, port=0,
            bars=((0, 16 * MIB, False), (1, 256 * MIB, True), (3, 32 * MIB, True)), rom=True, boot_vga=False,
            reset=("flr", "bus"), flr=True, rebar=tuple(1 << bit for bit in range(26, 35)), link=_GEN4_X16,
            others=(("nvidiafb", "nvidiafb"),),
        ),
        PciSpec("0000:01:00.1", "10de:1aef", 0x040300, 1, "snd_hda_intel", "snd_hda_intel", _ROOT_PORT, "1458:403f",
                0xA1, port=0, bars=((0, 16 << 10, False),), link=_GEN4_X16),
    ),
)  # fmt: skip


def _p40(bus: str, port: str, group: int, node: int) -> PciSpec:
    """Class 0302, no outputs. That BAR1 has 32 GiB is reported, not verified."""
    return PciSpec(
        f"0000:{bus}:00.0", "10de:1b38", 0x030200, group, "nouveau", "nouveau", port, "10de:11d9", 0xA1, port=0,
        bars=((0, 16 * MIB, False), (1, 32 * GIB, True), (3, 32 * MIB, True)), reset=("bus",), link=_GEN1_X16,
        others=(("nvidiafb", "nvidiafb"),), numa=node,
    )  # fmt: skip


def _socket_port(address: str, ids: str, group: int, node: int) -> PciSpec:
    return PciSpec(address, ids, 0x060400, group, "pcieport", port=4, revision=1, acs=True, link=_GEN1_X16, numa=node)


P40_NODE = replace(
    seeds.DEFAULT,
    name="p40-node",
    product="X10DRG-Q",
    cpu_model="Intel(R) Xeon(R) CPU E5-2680 v4 @ 2.40GHz",
    devices=(
        PciSpec("0000:00:00.0", "8086:6f00", 0x060000, 0, revision=1, numa=0),
        _socket_port("0000:00:01.0", "8086:6f02", 1, 0),
        _socket_port("0000:00:02.0", "8086:6f04", 2, 0),
        _socket_port("0000:00:03.0", "8086:6f08", 3, 0),
        PciSpec("0000:00:14.0", "8086:8d31", 0x0C0330, 4, "xhci_hcd", "xhci_pci", subsystem="15d9:0834", revision=5,
                bars=((0, 64 << 10, True),), reset=("pm",), early=True, numa=0),
        PciSpec("0000:00:1c.0", "8086:8d10", 0x060400, 5, "pcieport", port=4, revision=5, acs=True, link=_GEN1_X1,
                numa=0),
        PciSpec("0000:00:1c.4", "8086:8d18", 0x060400, 6, "pcieport", port=4, revision=5, acs=True, link=_GEN1_X1,
                numa=0),
        _p40("01", "0000:00:01.0", 7, 0),
        _p40("02", "0000:00:02.0", 8, 0),
        PciSpec("0000:03:00.0", "144d:a80a", 0x010802, 9, "nvme", "nvme", "0000:00:03.0", "144d:a801", port=0,
                bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN3_X4, early=True, numa=0),
        PciSpec("0000:04:00.0", "8086:1533", 0x020000, 10, "igb", "igb", "0000:00:1c.0", "15d9:1533", 3, port=0,
                bars=((0, 512 << 10, False),), reset=("flr", "bus"), flr=True, link=_GEN1_X1, early=True, numa=0),
        PciSpec("0000:05:00.0", "1a03:1150", 0x060400, 11, parent="0000:00:1c.4", port=7, revision=3, numa=0),
        PciSpec("0000:06:00.0", "1a03:2000", 0x030000, 11, "ast", "ast", "0000:05:00.0", "15d9:0834", 0x30,
                bars=((0, 16 * MIB, False), (1, 128 << 10, False)), boot_vga=True, numa=0),
        PciSpec("0000:80:00.0", "8086:6f01", 0x060400, 12, "pcieport", port=4, revision=1, acs=True, numa=1),
        _socket_port("0000:80:02.0", "8086:6f04", 13, 1),
        _socket_port("0000:80:03.0", "8086:6f08", 14, 1),
        _p40("82", "0000:80:02.0", 15, 1),
        _p40("83", "0000:80:03.0", 16, 1),
    ),
    disks=(replace(seeds.DEFAULT.disks[0], controller="0000:03:00.0"),),
    nics=(NicSpec("eno1", "0000:04:00.0", "ac:1f:6b:00:00:01", "vmbr0"),),
    usb=(UsbSpec("1-8", "0000:00:14.0", "0557:2419", "Virtual keyboard and mouse", ((3, 1, 1), (3, 1, 2)), "12"),),
    screens={"0000:06:00.0": ("card0", "VGA-1", "astdrmfb")},
    cores=56,
    memory=256 * GIB,
    nodes=2,
)  # fmt: skip

AMD_APU = replace(
    seeds.AMD_SECUREBOOT,
    name="amd-apu",
    product="ROG STRIX B650E-I",
    cpu_model="AMD Ryzen 9 7950X 16-Core Processor",
    devices=(
        PciSpec("0000:00:00.0", "1022:14d8", 0x060000, 0),
        PciSpec("0000:00:00.2", "1022:14d9", 0x080600, 0),
        PciSpec("0000:00:01.0", "1022:14da", 0x060000, 1),
        PciSpec("0000:00:01.2", "1022:14db", 0x060400, 2, "pcieport", port=4, acs=True, link=_GEN3_X4),
        PciSpec("0000:00:02.0", "1022:14da", 0x060000, 3),
        PciSpec("0000:00:02.1", "1022:14db", 0x060400, 4, "pcieport", port=4, acs=True, link=_GEN1_X1),
        PciSpec("0000:00:08.0", "1022:14da", 0x060000, 5),
        PciSpec("0000:00:08.1", "1022:14dd", 0x060400, 6, "pcieport", port=4, acs=True, link=_GEN4_X16),
        PciSpec("0000:00:08.3", "1022:14dd", 0x060400, 7, "pcieport", port=4, acs=True, link=_GEN1_X1),
        PciSpec("0000:00:14.0", "1022:790b", 0x0C0500, 8, "piix4_smbus", "i2c_piix4", revision=0x71, early=True),
        PciSpec("0000:00:14.3", "1022:790e", 0x060100, 8, revision=0x51),
        PciSpec("0000:01:00.0", "144d:a80a", 0x010802, 9, "nvme", "nvme", "0000:00:01.2", "144d:a801", port=0,
                bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN3_X4, early=True),
        PciSpec("0000:02:00.0", "10ec:8125", 0x020000, 10, "r8169", "r8169", "0000:00:02.1", "1043:87d7", 5, port=0,
                bars=((2, 64 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN1_X1, early=True),
        PciSpec("0000:15:00.0", "1002:164e", 0x030000, 38, "amdgpu", "amdgpu", "0000:00:08.1", "1043:8877", 0xC1,
                port=0, bars=((0, 256 * MIB, True), (2, 2 * MIB, True), (5, 512 << 10, False)), boot_vga=True,
                reset=("bus",), link=_GEN4_X16),
        PciSpec("0000:15:00.1", "1002:1640", 0x040300, 39, "snd_hda_intel", "snd_hda_intel", "0000:00:08.1",
                "1002:1640", port=0, bars=((0, 16 << 10, False),), link=_GEN4_X16),
        PciSpec("0000:15:00.2", "1022:1649", 0x108000, 40, "ccp", "ccp", "0000:00:08.1", "1022:1649", port=0,
                bars=((2, 1 * MIB, False),), link=_GEN4_X16),
        PciSpec("0000:15:00.3", "1022:15b6", 0x0C0330, 41, "xhci_hcd", "xhci_pci", "0000:00:08.1", "1043:8877", port=0,
                bars=((0, 1 * MIB, True),), reset=("pm",), link=_GEN4_X16, early=True),
        PciSpec("0000:15:00.6", "1022:15e3", 0x040300, 43, "snd_hda_intel", "snd_hda_intel", "0000:00:08.1",
                "1043:8877", port=0, bars=((0, 32 << 10, False),), link=_GEN4_X16),
        PciSpec("0000:16:00.0", "1022:15b8", 0x0C0330, 44, "xhci_hcd", "xhci_pci", "0000:00:08.3", "1043:8877", port=0,
                bars=((0, 1 * MIB, True),), reset=("pm",), link=_GEN1_X1, early=True),
    ),
    disks=(replace(seeds.DEFAULT.disks[0], controller="0000:01:00.0"),),
    nics=(NicSpec("enp2s0", "0000:02:00.0", "c8:7f:54:00:00:01", "vmbr0"),),
    usb=(UsbSpec("1-2", "0000:16:00.0", "046d:c31c", "Keyboard K120", ((3, 1, 1), (3, 0, 0)), "1.5"),),
    secure_boot=False,
    screens={"0000:15:00.0": ("card0", "HDMI-A-1", "amdgpudrmfb")},
)  # fmt: skip
"""The functions and their groups are those of a recorded Ryzen 9 7950X."""

INTEL_IGPU = replace(
    seeds.INTEL_65_GRUB,
    name="intel-igpu",
    kernel=seeds.KERNEL_70,
    pve=seeds.PVE_92,
    devices=tuple(device for device in seeds.INTEL_65_GRUB.devices if not device.address.startswith("0000:01:")),
    screens={"0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb")},
)

ARC = replace(
    seeds.DEFAULT,
    name="arc",
    devices=(
        *seeds.ALDER_LAKE,
        PciSpec("0000:05:00.0", "8086:4fa0", 0x060400, 1, "pcieport", "", _ROOT_PORT, port=5, revision=1, acs=True,
                link=_GEN4_X16),
        PciSpec("0000:06:01.0", "8086:4fa4", 0x060400, 1, "pcieport", "", "0000:05:00.0", port=6, acs=True,
                link=_GEN1_X1),
        PciSpec("0000:06:04.0", "8086:4fa4", 0x060400, 1, "pcieport", "", "0000:05:00.0", port=6, acs=True,
                link=_GEN1_X1),
        PciSpec("0000:07:00.0", "8086:56a0", 0x030000, 1, "i915", "i915", "0000:06:01.0", "8086:1020", 8, port=0,
                bars=((0, 16 * MIB, True), (2, 256 * MIB, True)), rom=True, boot_vga=False, reset=("flr", "bus"),
                flr=True, rebar=tuple(1 << bit for bit in range(28, 35)), link=_GEN1_X1, others=(("xe", "xe"),)),
        PciSpec("0000:08:00.0", "8086:4f90", 0x040300, 1, "snd_hda_intel", "snd_hda_intel", "0000:06:04.0",
                "8086:1020", port=0, bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN1_X1),
    ),
    screens={
        "0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb"),
        "0000:07:00.0": ("card1", "DP-1", "i915drmfb"),
    },
)  # fmt: skip
"""The card is a switch with two devices behind it: picture and sound have addresses of their own."""

GRAPHICS_SEEDS: dict[str, MachineSpec] = {seed.name: seed for seed in (RTX_3080, P40_NODE, AMD_APU, INTEL_IGPU, ARC)}
