"""Which functions are one card. Pure: facts in, devices out.

1. A card is what people buy: its picture, and its own sound, USB and USB-C functions, wherever they sit.
2. What merely shares the slot is not part of it: a processor's USB controllers lie beside its graphics.
"""

from __future__ import annotations

from .facts import Facts
from .pci import Address, Device

_COMPANIONS = frozenset({0x0403, 0x0C03, 0x0C80})
"""Sound, USB host, and USB-C control. Source: PCI code and ID assignment specification; functions 1 to 3 of NVIDIA
cards since Turing and of AMD cards since Navi 21."""
_AUDIO = 0x0403
_AMD_GRAPHICS, _AMD_PROCESSOR, _INTEL = 0x1002, 0x1022, 0x8086


def companions(facts: Facts, device: Device) -> tuple[Device, ...]:
    """The other functions that belong to a graphics card whose function 0 is `device`; none for anything else."""
    if not device.is_display or device.address.function != 0:
        return ()
    slot, vendor = device.address.slot, device.vendor
    beside = tuple(
        other for other in facts.devices
        if other.address.slot == slot and other.vendor == vendor and other.subclass in _COMPANIONS
    )  # fmt: skip
    return beside + _behind_its_switch(facts, device)


def _behind_its_switch(facts: Facts, device: Device) -> tuple[Device, ...]:
    """An Intel Arc card is a PCI Express switch with its picture behind one port and its sound behind another, so the
    sound has an address of its own. Source: published lspci listings of Arc A310, A380 and A770 (8086:4fa0 or 4fa1
    above two 4fa4)."""
    switch = _switch_above(facts, device)
    if device.vendor != _INTEL or switch is None:
        return ()
    return tuple(
        other for other in facts.devices
        if other.vendor == _INTEL and other.subclass == _AUDIO and _switch_above(facts, other) == switch
    )  # fmt: skip


def _switch_above(facts: Facts, device: Device) -> Address | None:
    """The upstream port of the Intel switch that the function sits behind; None when there is no such switch."""
    below = facts.device(device.parent) if device.parent else None
    above = facts.device(below.parent) if below is not None and below.parent else None
    if above is None or above.parent is None or above.vendor != _INTEL or not above.bridge:
        return None
    return above.address


def processor_functions(facts: Facts, device: Device) -> tuple[Device, ...]:
    """An AMD processor's own functions (security processor, USB, sound) in the slot of its graphics; empty when
    `device` is not such graphics. Source: lspci listings of Ryzen processors: 1002 display, 1022 beside it."""
    if device.vendor != _AMD_GRAPHICS or not device.is_display:
        return ()
    slot = device.address.slot
    return tuple(other for other in facts.devices if other.vendor == _AMD_PROCESSOR and other.address.slot == slot)
