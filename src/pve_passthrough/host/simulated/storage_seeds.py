"""A built-in machine with the devices that are no graphics: a storage node. Data only.

1. Vendor, device and class numbers are those of the PCI ID list; serial numbers and names are made up.
2. The root lies on NVMe; a SAS controller carries a pool of its own, and every further class stands in a slot alone.
3. 0000:0b:00.0 is a card whose memory the firmware shares, as some HPE servers have it.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .spec import GIB, MIB, DiskSpec, MachineSpec, NicSpec, PciSpec

_GEN3_X8 = ("8.0 GT/s PCIe", "8.0 GT/s PCIe", 8, 8)
_GEN2_X1 = ("5.0 GT/s PCIe", "5.0 GT/s PCIe", 1, 1)


def _port(function: int, ids: str, group: int) -> PciSpec:
    return PciSpec(
        f"0000:00:1d.{function}", ids, 0x060400, group, "pcieport", port=4, revision=0x11, acs=True, link=_GEN3_X8
    )


def _behind(function: int) -> str:
    return f"0000:00:1d.{function}"


STORAGE_NODE = replace(
    seeds.DEFAULT,
    name="storage-node",
    product="ProLiant MicroServer Gen10",
    devices=(
        *seeds.ALDER_LAKE,
        *(_port(number, f"8086:7ab{number}", 20 + number) for number in range(8)),
        PciSpec("0000:04:00.0", "1000:0097", 0x010700, 12, "mpt3sas", "mpt3sas", _behind(0), "1000:30e0", 2, port=0,
                bars=((1, 64 << 10, True),), rom=True, reset=("flr", "bus"), flr=True, link=_GEN3_X8, early=True,
                msix=(96, 1, 0xE000, 1, 0xF000)),
        PciSpec("0000:05:00.0", "8086:1521", 0x020000, 13, "igb", "igb", _behind(1), "8086:0002", 1, port=0,
                bars=((0, 512 << 10, False), (3, 16 << 10, False)), rom=True, reset=("flr", "bus"), flr=True,
                link=_GEN2_X1, early=True, msix=(10, 3, 0, 3, 0x2000)),
        PciSpec("0000:06:00.0", "126f:2263", 0x010802, 14, "nvme", "nvme", _behind(2), "126f:2263", 3, port=0,
                bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN3_X8, early=True,
                msix=(16, 0, 0x2000, 0, 0x2080)),
        PciSpec("0000:07:00.0", "1102:0012", 0x040300, 15, "snd_hda_intel", "snd_hda_intel", _behind(3), "1102:0023",
                1, port=0, bars=((0, 16 << 10, True),), reset=("bus",), link=_GEN2_X1),
        PciSpec("0000:08:00.0", "1ac1:089a", 0x0880FF, 16, "", "", _behind(4), "1ac1:089a", port=0,
                bars=((0, 16 << 10, True), (2, 1 * MIB, True)), reset=("flr", "bus"), flr=True, link=_GEN2_X1,
                msix=(128, 2, 0x46800, 2, 0x46068)),
        PciSpec("0000:09:00.0", "1c00:3253", 0x070005, 17, "serial", "", _behind(5), "1c00:3253", 0x10, port=0,
                bars=((1, 32 << 10, False),), reset=("bus",), link=_GEN2_X1),
        PciSpec("0000:0a:00.0", "8086:37c8", 0x0B4000, 18, "c6xx", "qat_c62x", _behind(6), "8086:0000", 4, port=0,
                bars=((0, 512 << 10, True), (2, 256 << 10, True)), reset=("flr", "bus"), flr=True, link=_GEN3_X8),
        PciSpec("0000:0b:00.0", "14e4:168e", 0x020000, 19, "bnx2x", "bnx2x", _behind(7), "103c:1932", 0x10, port=0,
                bars=((0, 8 * MIB, True),), rom=True, reset=("flr", "bus"), flr=True, link=_GEN3_X8, early=True),
    ),
    disks=(
        *seeds.DEFAULT.disks,
        DiskSpec("sdb", "0000:04:00.0", "ZC1AB001", 8000 * GIB, (8000 * GIB,)),
        DiskSpec("sdc", "0000:04:00.0", "ZC1AB002", 8000 * GIB, (8000 * GIB,)),
        DiskSpec("nvme1n1", "0000:06:00.0", "AA000000001", 512 * GIB, (512 * GIB,)),
    ),
    nics=(
        *seeds.DEFAULT.nics,
        NicSpec("enp5s0", "0000:05:00.0", "a0:36:9f:00:00:02"),
        NicSpec("enp11s0", "0000:0b:00.0", "9c:dc:71:00:00:0b"),
    ),
    screens={"0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb")},
    pools={"tank": ("sdb1", "sdc1")},
    contents={"nvme1n1p1": ("ext4", "scratch"), "nvme0n1p3": ("LVM2_member", "pve")},
    reserved={19: ("0x00000000791f8000 0x00000000791fffff direct",)},
)  # fmt: skip

STORAGE_SEEDS: dict[str, MachineSpec] = {STORAGE_NODE.name: STORAGE_NODE}
