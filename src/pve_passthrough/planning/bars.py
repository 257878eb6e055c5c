"""Another size for a resizable BAR, at every boot. Facts in, a wish and what goes with it out.

1. Only at boot. The kernel resizes a BAR while no driver holds the function, and what is written is lost with the next
   start (Documentation/ABI/testing/sysfs-bus-pci, resourceN_resize); so the size is set inside the initramfs, before
   any driver is loaded (see claim_script), and nothing is tried on a running host.
2. What the card does not offer is refused before anything is written; whether the bridges above it have room is known
   to the kernel alone. It refuses with ENOSPC and leaves the size; the plan expects the size and goes back without it.
3. The guest sees the size that the BAR has on the host and cannot change it (QEMU commit b5048a4cbf, since 8.1).
"""

from __future__ import annotations

from collections.abc import Iterable

from ..errors import Exit, Failure
from ..knowledge.windows import short, shown
from ..model.facts import Facts, RootWindow
from ..model.finding import Actor, Finding, Level
from ..model.own import CLAIM_SCRIPT
from ..model.pci import Bar, Device
from ..model.plan import Cell, Expectation
from ..model.wish import BarSize, ClaimByAddress, ClaimById, Wish
from . import claim_script
from .goals import unknown
from .proof import Unprovable

FOUR_GIB = 4 << 30
RESIZES = (6, 1)
"""First kernel with resourceN_resize (commit 91fa127794ac, September 2022)."""
RESIZES_ITSELF = ("amdgpu", "i915", "xe")
"""Drivers that give the BAR the size that they want when they load (kernel: amdgpu, amdgpu_device_resize_fb_bar;
i915, i915_resize_lmem_bar; xe, xe_pci_rebar)."""


def size(facts: Facts, device: Device, index: int, wanted: int) -> tuple[BarSize, ...]:
    """The wish that this BAR has `wanted` bytes; none when it has them already. Raises Failure."""
    if device.bars is None:
        raise unknown(facts, "pci.resource", f"which BARs {device} has")
    bar = next((bar for bar in device.bars if bar.index == index), None)
    if bar is None or bar.io or index > 5:
        raise Failure(
            "bars.no-such", f"Nothing was planned: {device} has no memory BAR {index}.", *_listed(device),
            hint=f"pve-passthrough bars {device.address}", code=Exit.USAGE,
        )  # fmt: skip
    if not bar.sizes:
        raise _not_resizable(facts, device, bar)
    if wanted not in bar.sizes:
        raise Failure(
            "bars.not-offered", f"Nothing was planned: BAR {index} of {device} cannot be {shown(wanted)}.",
            f"offered: {', '.join(map(shown, bar.sizes))}", hint="Name one of these sizes.", code=Exit.USAGE,
        )  # fmt: skip
    _refuse_needed(facts, device)
    if facts.kernel.version is not None and facts.kernel.version < RESIZES:
        raise Failure(
            "bars.old-kernel", f"Nothing was planned: kernel {facts.kernel.release} cannot resize BARs.",
            hint="Kernels can from 6.1 on (Proxmox VE 8).", code=Exit.REFUSED,
        )  # fmt: skip
    if "?" in device.id:
        raise unknown(facts, "pci.vendor", f"what {device.address} is")
    _refuse_no_window(facts, device, wanted)
    if bar.size == wanted and _kept(facts, device, index) in (None, wanted):
        return ()
    why = f"BAR {index} of {device} is {shown(bar.size)} and shall be {shown(wanted)} from the next boot on"
    return (BarSize(device.address, device.id, index, wanted, why),)


def _kept(facts: Facts, device: Device, index: int) -> int | None:
    """The size that our script gives this BAR at boot; None when it has no line for it."""
    try:
        sizes = claim_script.sizes_of(facts.files.get(CLAIM_SCRIPT))
    except Unprovable:
        return None
    identity, size = sizes.get((device.address, index), ("", 0))
    return size if identity == device.id else None


def _listed(device: Device) -> list[str]:
    return [f"BAR {bar.index}: {shown(bar.size)}" for bar in device.bars or () if bar.index < 6 and not bar.io]


def _not_resizable(facts: Facts, device: Device, bar: Bar) -> Failure:
    """A function whose capabilities nobody could read may well have the capability."""
    known = device.capabilities
    if known is None or (known.express is not None and not known.extended):
        return unknown(facts, "pci.config", f"whether BAR {bar.index} of {device} can be resized")
    return Failure(
        "bars.fixed", f"Nothing was planned: BAR {bar.index} of {device} has one size only, {shown(bar.size)}.",
        "the function has no resizable-BAR capability for it",
        hint="A firmware update of the card may add the capability; some makers gave one." if device.is_display else "",
        code=Exit.REFUSED,
    )  # fmt: skip


def _refuse_needed(facts: Facts, device: Device) -> None:
    """A device without which people lose the host is left as it is: if its window is lost, so is the host."""
    vital = [use for use in facts.uses_of(device.address) if use.vital]
    if vital:
        raise Failure(
            "plan.vital", f"Nothing was planned: the host lives on {device}.",
            *(f"{use.kind.value}: {use.detail}" for use in vital), hint="Nothing overrides this.", code=Exit.REFUSED,
        )  # fmt: skip


def _refuse_no_window(facts: Facts, device: Device, wanted: int) -> None:
    """Where no window of the root bus can hold such a BAR at a multiple of its size, the kernel will not find one. What
    lies in the way inside a window is not judged: the kernel may move it (drivers/pci/setup-bus.c)."""
    windows = _root_windows(facts, device)
    if not windows or any(-(-window.start // wanted) * wanted + wanted - 1 <= window.end for window in windows):
        return
    raise Failure(
        "bars.no-room", f"Nothing was planned: the host decodes no addresses for a BAR of {shown(wanted)} here.",
        *(f"/proc/iomem: {one.start:x}-{one.end:x}, {shown(one.end - one.start + 1)}" for one in windows),
        hint="Switch on Above 4G Decoding (and Resizable BAR) in the firmware's setup, or name a smaller size.",
        code=Exit.REFUSED,
    )  # fmt: skip


def _root_windows(facts: Facts, device: Device) -> tuple[RootWindow, ...]:
    """Windows of the root bus that the device hangs on; empty when they or its place are not known."""
    top, seen = device, {device.address}
    while top.parent is not None and top.parent not in seen:
        above = facts.device(top.parent)
        if above is None:
            return ()
        top = above
        seen.add(top.address)
    place = (top.address.domain, top.address.bus)
    return tuple(one for one in facts.root_windows or () if (one.domain, one.bus) == place)


def expectations(wishes: Iterable[Wish]) -> list[Expectation]:
    """The sizes, once the host has started again."""
    return [
        Expectation(Cell("bar", f"{wish.address}/{wish.index}"), short(wish.size), wish.why)
        for wish in wishes
        if isinstance(wish, BarSize)
    ]


def manual(wishes: Iterable[Wish]) -> list[str]:
    """What a person would type before any driver is loaded, bit n being 2^n MiB."""
    return [
        f"before any driver loads: echo {wish.size.bit_length() - 21} > "
        f"/sys/bus/pci/devices/{wish.address}/resource{wish.index}_resize"
        for wish in wishes
        if isinstance(wish, BarSize)
    ]


def risks(facts: Facts, wishes: Iterable[Wish]) -> list[Finding]:
    """What may go otherwise than planned, per BAR."""
    every = tuple(wishes)
    claimed = {wish.address for wish in every if isinstance(wish, ClaimByAddress)}
    ids = {identity for wish in every if isinstance(wish, ClaimById) for identity in wish.ids}
    found: list[Finding] = []
    for wish in every:
        device = facts.device(wish.address) if isinstance(wish, BarSize) else None
        if device is None or not isinstance(wish, BarSize):
            continue
        found += _no_room(facts, device, wish)
        found += _in_the_way(facts, device, wish)
        if device.driver in RESIZES_ITSELF and device.address not in claimed and device.id not in ids:
            found.append(_overridden(device, wish))
        if device.subclass == 0x0300 and facts.display.console_owner == device.address:
            found.append(_dark(device))
    return found


def _no_room(facts: Facts, device: Device, wish: BarSize) -> list[Finding]:
    high = any(bar.start >= FOUR_GIB for one in facts.devices for bar in one.bars or ())
    if high or wish.size < FOUR_GIB // 2 or _root_windows(facts, device):
        return []
    return [
        Finding(
            "platform.unplaced-bars", Level.HARMS, str(device.address),
            f"The kernel may find no room for {shown(wish.size)}: nothing on this host lies above 4 GiB. "
            "Switch on Above 4G Decoding in the firmware's setup first.",
            ("the size is then left as it is, and this run goes back",), Actor.FIRMWARE,
        )
    ]  # fmt: skip


def _in_the_way(facts: Facts, device: Device, wish: BarSize) -> list[Finding]:
    """What shares the bridge windows above and is not released with the device pins them, so that they cannot grow: the
    BAR of a switch above it, as Intel Arc cards have one, or one of another function beside it. Source: linux-pci,
    "PCI: Release unused bridge resources during resize", 2024-05-07 (ENOSPC on an Arc A380)."""
    now = next((bar.size for bar in device.bars or () if bar.index == wish.index), 0)
    above: list[Device] = []
    one = device
    while one.parent is not None and len(above) < 16:
        bridge = facts.device(one.parent)
        if bridge is None:
            break
        above.append(bridge)
        one = bridge
    beside = [other for other in facts.devices if other.parent == device.parent and other.address != device.address]
    pinning = [
        other for other in (*above, *(beside if device.parent else ())) if any(map(_shares_window, other.bars or ()))
    ]
    if wish.size <= now or not pinning:
        return []
    return [
        Finding(
            "gpu.resizable-bar", Level.HARMS, str(device.address),
            f"The kernel will probably refuse: {pinning[0]} has a BAR in the same window, and the bridges above cannot "
            "grow around it. Resizable BAR in the firmware's setup is the way that works.",
            tuple(f"{other.address}: a 64-bit prefetchable BAR" for other in pinning), Actor.FIRMWARE,
        )
    ]  # fmt: skip


def _shares_window(bar: Bar) -> bool:
    return bar.wide and bar.prefetchable and not bar.io and bar.placed and bar.index < 6


def _overridden(device: Device, wish: BarSize) -> Finding:
    return Finding(
        "gpu.resizable-bar", Level.NOTE, str(device.address),
        f"{device.driver} sets the size itself when it loads on the host, and keeps {shown(wish.size)} only if that is "
        "the one it wants; a card that is claimed at boot keeps it.",
        (f"{device.address}: driver {device.driver}",),
    )  # fmt: skip


def _dark(device: Device) -> Finding:
    return Finding(
        "gpu.framebuffer", Level.NOTE, str(device.address),
        f"The kernel takes the boot console from {device} while it resizes it: the screen stays dark until a graphics "
        "driver loads.",
        (f"{device.address} shows the host's console",),
    )  # fmt: skip
