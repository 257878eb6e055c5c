"""What QEMU refuses of a function that is bound to vfio-pci: its group's reserved memory, its MSI-X table.

1. Each law bears its source; the words are those of real logs.
2. What is there is read from the tree: configuration space, resource lines, reserved_regions.
"""

from __future__ import annotations

from ..world import DEVICES, World

_MSIX, _TABLE_ENTRY = 0x11, 16


def group_refusal(world: World, address: str) -> str:
    """A region of type `direct`: the kernel attaches no such device to a guest's domain (6.6 and later, and Intel's
    before: drivers/iommu/iommu.c, require_direct). Words as in reports of HPE servers (relax-intel-rmrr)."""
    group = world.group_of(address)
    text = world.text(f"/sys/kernel/iommu_groups/{group}/reserved_regions") or ""
    if not any(line.split()[-1:] == ["direct"] for line in text.splitlines()):
        return ""
    return f"failed to setup container for group {group}: Failed to set iommu for container: Operation not permitted"


def msix_refusal(world: World, address: str, key: str, args: str) -> str:
    """QEMU 9.2, hw/pci/msix.c:342, unless `args` move the table to another BAR (hw/vfio/pci.c)."""
    if f"-set device.{key}.x-msix-relocation=bar" in args:
        return ""
    data = (world.text(f"{DEVICES}/{address}/config") or "").encode("utf-8", "surrogateescape")
    at = data[0x34] if len(data) >= 256 else 0
    for _ in range(48):
        if at < 0x40 or data[at] == _MSIX:
            break
        at = data[at + 1]
    if at < 0x40 or data[at] != _MSIX:
        return ""
    vectors = (int.from_bytes(data[at + 2 : at + 4], "little") & 0x7FF) + 1
    table, pending = (int.from_bytes(data[at + part : at + part + 4], "little") for part in (4, 8))
    end, last = (table & ~7) + vectors * _TABLE_ENTRY, (pending & ~7) + (vectors + 63) // 64 * 8
    overlap = table & 7 == pending & 7 and (table & ~7) < last and (pending & ~7) < end
    outside = end > _size(world, address, table & 7) or last > _size(world, address, pending & 7)
    if not overlap and not outside:
        return ""
    why = "table & pba overlap, or they don't fit in BARs, or don't align"
    return f"failed to add PCI capability 0x11[0x50]@{at:#x}: {why}"


def _size(world: World, address: str, bar: int) -> int:
    lines = (world.text(f"{DEVICES}/{address}/resource") or "").splitlines()
    start, end = (int(word, 16) for word in lines[bar].split()[:2]) if bar < len(lines) else (0, 0)
    return end - start + 1 if end else 0
