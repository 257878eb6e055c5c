"""What a running guest shows on its host: QEMU's files in /proc, its interrupts, and the links of its devices.

1. A device whose driver in the guest is known (machine.json, `drivers`) has message interrupts, unless `interrupts`
   of the guest says {"10de:2206": "intx"}; without a driver it has none (drivers/vfio/pci/vfio_pci_intrs.c: an
   interrupt is asked for when the guest's driver enables it).
2. With `busy` the links run at what both ends can do; else a card has lowered its speed, as it was described.
3. All of its memory is pinned and counted as locked (drivers/vfio/vfio_iommu_type1.c, vfio_lock_acct). It lies on the
   nodes that `numa0` binds it to, else in equal parts on all; `huge` (0 to 1) is the share in huge pages, 1 by default.
4. Counters stand still: no time passes in a simulated machine.
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from itertools import pairwise
from typing import Any

from ..world import DEVICES, World
from .config import Config, options_of
from .node import Node

_TABLE = "/proc/interrupts"
_NODES = "/sys/devices/system/node"
_DMAR = "/sys/firmware/acpi/tables/DMAR"


def appears(node: Node, config: Config, pid: int, functions: Iterable[str]) -> None:
    """QEMU runs as `pid` and has these functions."""
    memory = int(options_of(node, "memory", config.active.get("memory", "512")).get("current", "512")) << 10
    held = tuple(functions)
    guest = node.guest(config.vmid)
    _memory(node.world, config, pid, memory, guest, pinned=bool(held))
    _threads(node.world, config, pid)
    _interrupts(node.world, guest, held)
    if guest.get("busy"):
        _links(node, config.vmid, held)


def disappears(node: Node, vmid: int, functions: Iterable[str]) -> None:
    """It has ended: its interrupts are gone, and its devices' links idle."""
    held = tuple(functions)
    text = node.world.text(_TABLE)
    if text is not None:
        lines = [line for line in text.splitlines(True) if not any(f"({one})" in line for one in held)]
        node.world.put(_TABLE, "".join(lines) if any("vfio" in line for line in lines) else None)
    state = node.state()
    before = state.get("links", {}).pop(str(vmid), None)
    if before is not None:
        for path, value in before.items():
            node.world.put(path, value)
        node.world.save_state(state)


def _memory(world: World, config: Config, pid: int, memory: int, guest: dict[str, Any], *, pinned: bool) -> None:
    """Forms: Documentation/filesystems/proc.rst, status, smaps_rollup, numa_maps; sizes in KiB."""
    huge = int(memory * float(guest.get("huge", 1.0)))
    allowed = config.active.get("affinity") or _all_processors(world)
    home = f"/proc/{pid}"
    world.put(
        f"{home}/status",
        f"Name:\tkvm\nPid:\t{pid}\nVmLck:\t{memory if pinned else 0:8d} kB\nVmPin:\t       0 kB\n"
        f"VmRSS:\t{memory:8d} kB\nVmSwap:\t{int(guest.get('swapped', 0)):8d} kB\nCpus_allowed_list:\t{allowed}\n",
    )
    world.put(
        f"{home}/smaps_rollup",
        f"00000000-ffffffff ---p 00000000 00:00 0    [rollup]\nRss:            {memory:8d} kB\n"
        f"AnonHugePages:  {huge:8d} kB\nShmemPmdMapped:        0 kB\nPrivate_Hugetlb:       0 kB\n",
    )
    bound = re.search(r"hostnodes=(\d+)", config.active.get("numa0", ""))
    nodes = [bound.group(1)] if bound else _memory_nodes(world)
    parts = " ".join(f"N{number}={memory // 4 // len(nodes)}" for number in nodes)
    world.put(f"{home}/numa_maps", f"7f0000000000 default anon={memory // 4} dirty={memory // 4} {parts} "
                                   "kernelpagesize_kB=4\n")  # fmt: skip


def _memory_nodes(world: World) -> list[str]:
    return [name[4:] for name in world.names(_NODES) if re.fullmatch(r"node\d+", name)] or ["0"]


def _all_processors(world: World) -> str:
    count = len(re.findall(r"(?m)^processor\s*:", world.text("/proc/cpuinfo") or "")) or 1
    return f"0-{count - 1}"


def _threads(world: World, config: Config, pid: int) -> None:
    """One thread for each processor of the guest (recorded command lines: debug-threads=on)."""
    count = int(config.active.get("cores", "1")) * int(config.active.get("sockets", "1"))
    for number in range(count):
        home = f"/proc/{pid}/task/{pid + 1 + number}"
        world.put(f"{home}/comm", f"CPU {number}/KVM\n")
        world.put(f"{home}/schedstat", "1000000000 1000000 1000\n")


def _interrupts(world: World, guest: dict[str, Any], functions: Iterable[str]) -> None:
    remapped = _remaps(world)
    rows = (world.text(_TABLE) or "            CPU0\n").splitlines()
    for function in functions:
        identity = ":".join((world.attribute(function, name) or "").removeprefix("0x") for name in ("vendor", "device"))
        if not guest.get("drivers", {}).get(identity):
            continue
        kind = guest.get("interrupts", {}).get(identity, "msi")
        number = 120 + len(rows)
        chip = f"{'IR-' if remapped else ''}{'IO-APIC' if kind == 'intx' else f'PCI-MSI-{function}'}"
        name = f"vfio-intx({function})" if kind == "intx" else f"vfio-{kind}[0]({function})"
        rows.append(f" {number}:       1000  {chip}    0-{'fasteoi' if kind == 'intx' else 'edge'}      {name}")
    if len(rows) > 1:
        world.put(_TABLE, "\n".join(rows) + "\n")


def _remaps(world: World) -> bool:
    """Bit 0 of the DMAR's flags (VT-d specification, 8.1); AMD's IOMMU always remaps."""
    table = world.text(_DMAR)
    data = b"" if table is None else table.encode("utf-8", "surrogateescape")
    return bool(data[37] & 1) if len(data) > 37 else bool(world.names("/sys/class/iommu"))


def _links(node: Node, vmid: int, functions: Iterable[str]) -> None:
    """Each function and the ports above it at what both ends can do."""
    before: dict[str, str] = {}
    for function in functions:
        chain = [function, *_above(node.world, function)]
        for below, above in pairwise(chain):
            speed = min(filter(None, (_speed(node.world, one) for one in (below, above))), default=None)
            for one in (below, above) if speed is not None else ():
                path = f"{DEVICES}/{one}/current_link_speed"
                text = node.world.text(path)
                if text is not None:
                    before.setdefault(path, text)
                    node.world.put(path, f"{speed:.1f} GT/s PCIe\n")
    state = node.state()
    state.setdefault("links", {})[str(vmid)] = before
    node.world.save_state(state)


def _speed(world: World, function: str) -> float | None:
    match = re.match(r"([\d.]+) GT/s", world.attribute(function, "max_link_speed") or "")
    return float(match.group(1)) if match else None


def _above(world: World, function: str) -> list[str]:
    """The ports between the function and the root, the nearest first."""
    place = world.link(f"{DEVICES}/{function}") or ""
    found = [part for part in place.split("/") if re.fullmatch(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]", part)]
    return found[-2::-1]
