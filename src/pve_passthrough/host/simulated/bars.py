"""Resizable BARs: what a write into resourceN_resize does.

1. Laws: drivers/pci/pci-sysfs.c, __resource_resize_store (EBUSY while a driver or virtual functions are there; a VGA
   function loses the firmware's console first) and drivers/pci/rebar.c, pci_resize_resource (EINVAL for a size that is
   not offered; ENOSPC when the bridges have no room, and the old size stays).
2. Reading gives the bitmap of sizes, bit n for 2^n MiB; the size itself shows in `resource` and in the capability.
3. The size is the firmware's again after every start.
4. Room: the windows of the root bus in /proc/iomem; a machine without them has room for everything.
"""

from __future__ import annotations

import errno
import posixpath
import re

from .world import DEVICES, SysfsError, World

_HIGH = 1 << 32
_MEBIBYTE_POWER = 20
_EXT_REBAR = 0x0015
_STANDARD_BARS = 6
_PREFETCHABLE_64 = 0x102000
"""IORESOURCE_MEM_64 and IORESOURCE_PREFETCH (include/linux/ioport.h)."""
_WINDOW = re.compile(r"^([0-9a-f]+)-([0-9a-f]+) : PCI Bus ", re.MULTILINE)
"""A root bus is not indented; what lies inside it is."""


def store(world: World, path: str, value: str) -> None:
    """write(2) of `value` into …/resourceN_resize. Raises SysfsError."""
    directory, _, name = path.rpartition("/")
    address, index = posixpath.basename(directory), int(name[len("resource") : -len("_resize")])
    try:
        power = int(value, 0)
    except ValueError:
        raise SysfsError(errno.EINVAL, path) from None
    if world.driver_of(address) is not None or world.attribute(address, "sriov_numvfs") not in (None, "0"):
        raise SysfsError(errno.EBUSY, path)
    _resize(world, address, index, power)


def at_boot(world: World, address: str, index: int, power: int, holder: str | None) -> list[str]:
    """The script's line, before any module is loaded; what the kernel and the script say about it."""
    path = f"{DEVICES}/{address}/resource{index}_resize"
    if not world.exists(path) or _sizes(world, address)[index] == 1 << power + _MEBIBYTE_POWER:
        return []
    try:
        if holder is not None:
            raise SysfsError(errno.EBUSY, path)
        _resize(world, address, index, power)
    except SysfsError as error:
        refused = f"pci {address}: BAR {index}: can't assign; no space" if error.errno == errno.ENOSPC else ""
        return [*([refused] if refused else []), f"pve-passthrough: BAR {index} of {address} keeps its size"]
    return [f"pci {address}: BAR {index}: assigned"]


def _resize(world: World, address: str, index: int, power: int) -> None:
    path = f"{DEVICES}/{address}/resource{index}_resize"
    if (world.attribute(address, "class") or "").startswith("0x0300"):
        state = world.state()
        state.setdefault("evicted", []).append(address)
        world.save_state(state)
    offered = int(world.attribute(address, f"resource{index}_resize") or "0", 16)
    if not 0 <= power < 44 or not offered >> power & 1:
        raise SysfsError(errno.EINVAL, path)
    size = 1 << power + _MEBIBYTE_POWER
    grows = size > _sizes(world, address)[index]
    start = None if grows and _pinned(world, address) else _room(world, address, index, size)
    if start is None:
        raise SysfsError(errno.ENOSPC, path)
    _move(world, address, index, start, size)
    _tell(world, address, index, start, power)


def _pinned(world: World, address: str) -> bool:
    """Whether the windows above cannot grow: a bridge on the way, or another function on the same bus, has a 64-bit
    prefetchable BAR there, which is not released (linux-pci, 2024-05-07, Arc A380: ENOSPC)."""
    above = [part for part in world.device_directory(address).split("/")[4:-1] if part.count(":") == 2]
    if not above:
        return False
    bus = address.rpartition(":")[0]
    beside = [other for other in world.addresses() if other != address and other.rpartition(":")[0] == bus]
    return any(
        int(row[2], 16) & _PREFETCHABLE_64 == _PREFETCHABLE_64
        for other in (*above, *beside)
        for row in _rows(world, other)[:_STANDARD_BARS]
    )


def _room(world: World, address: str, index: int, size: int) -> int | None:
    """The first free multiple of the size in a window of the root bus, the BAR's own place being free."""
    found = _WINDOW.findall(world.text("/proc/iomem") or "")
    windows = [(int(start, 16), int(end, 16)) for start, end in found] or [(_HIGH, 1 << 52)]
    own = _ranges(world, address)[index]
    places = [place for one in world.addresses() for place in _ranges(world, one)[:_STANDARD_BARS]]
    taken = [(start, end) for start, end in places if end > start and (start, end) != own]
    firsts = [start for start, _ in windows] + [end + 1 for _, end in taken]
    starts = sorted(-(-first // size) * size for first in firsts)
    return next((start for start in starts if _free(start, start + size - 1, windows, taken)), None)


def _free(first: int, last: int, windows: list[tuple[int, int]], taken: list[tuple[int, int]]) -> bool:
    inside = any(start <= first and last <= end for start, end in windows)
    return inside and all(last < start or end < first for start, end in taken)


def _keep(world: World, path: str) -> None:
    """What the next start brings back (see `boot`)."""
    state = world.state()
    state.setdefault("attributes", {}).setdefault(path, world.text(path))
    world.save_state(state)


def _rows(world: World, address: str) -> list[list[str]]:
    text = world.text(f"{DEVICES}/{address}/resource") or ""
    return [line.split() for line in text.splitlines() if line]


def _ranges(world: World, address: str) -> list[tuple[int, int]]:
    return [(int(row[0], 16), int(row[1], 16)) for row in _rows(world, address)]


def _sizes(world: World, address: str) -> list[int]:
    return [end - start + 1 for start, end in _ranges(world, address)]


def _move(world: World, address: str, index: int, start: int, size: int) -> None:
    path = f"{DEVICES}/{address}/resource"
    rows = _rows(world, address)
    rows[index] = [f"0x{start:016x}", f"0x{start + size - 1:016x}", rows[index][2]]
    _keep(world, path)
    world.put(path, "".join(" ".join(row) + "\n" for row in rows))


def _tell(world: World, address: str, index: int, start: int, power: int) -> None:
    """The function's own registers: the BAR and the capability's control register (pci_regs.h)."""
    path = f"{DEVICES}/{address}/config"
    space = bytearray(world.tree.read(path))
    register = 0x10 + 4 * index
    low = int.from_bytes(space[register : register + 4], "little") & 0xF
    space[register : register + 8] = (start | low).to_bytes(8, "little")
    control = _control(space, index)
    if control:
        space[control + 1] = space[control + 1] & ~0x3F | power
    _keep(world, path)
    world.put(path, space.decode("utf-8", "surrogateescape"))


def _control(space: bytearray, index: int) -> int:
    """Where the control register of this BAR lies; 0 when the capability was not readable."""
    at = 0x100
    while 0x100 <= at <= len(space) - 8:
        header = int.from_bytes(space[at : at + 4], "little")
        if header & 0xFFFF == _EXT_REBAR:
            pairs = space[at + 8] >> 5
            places = range(at + 8, min(at + 8 + 8 * pairs, len(space) - 4), 8)
            return next((place for place in places if space[place] & 0x07 == index), 0)
        at = header >> 20 & 0xFFC
    return 0
