"""Whose picture does the guest show: the card's alone, or its virtual display's as well?

1. Pure. The virtual display is the rescue console: it goes last, once somebody is known to get in without it.
2. Only a card with outputs can be a display (class 0300; a 3D controller has none).
   Source: PCI code and ID assignment specification; qemu-server PCI.pm (x-vga).
"""

from __future__ import annotations

from ..errors import Exit, Failure
from ..model.facts import Facts
from ..model.vm import HostPci, Vm
from ..model.wish import VmOption

_VGA = 0x0300


def card_only(facts: Facts, guest: Vm) -> tuple[VmOption, ...]:
    """The first card with outputs becomes the guest's display, and the virtual one goes. Raises Failure."""
    entries = [entry for entry in guest.hostpci if _shows(facts, entry)]
    if not entries:
        held = [f"{entry.key}: {guest.config.get(entry.key, '')}" for entry in guest.hostpci]
        raise Failure(
            "display.no-card", f"Nothing was planned: guest {guest.vmid} ({guest.name}) has no card with outputs.",
            *held, hint=f"pve-passthrough up gpu --vm {guest.vmid}", code=Exit.REFUSED,
        )  # fmt: skip
    _refuse_pending(guest, entries[0].key, "vga")
    wishes = [VmOption(guest.vmid, "vga", "none", "somebody gets in without it, and systems then use the card alone")]
    legacy = any(entry.on("legacy-igd") for entry in entries)  # which excludes x-vga (qemu-server PCI.pm)
    if not legacy and not any(entry.on("x-vga") for entry in entries):
        value = f"{guest.config[entries[0].key]},x-vga=1"
        wishes.insert(0, VmOption(guest.vmid, entries[0].key, value, "the card is the guest's first display"))
    return tuple(wishes)


def with_rescue(facts: Facts, guest: Vm) -> tuple[VmOption, ...]:
    """The virtual display comes back, and no card claims to be the first one. Raises Failure."""
    entries = [entry for entry in guest.hostpci if entry.on("x-vga")]
    _refuse_pending(guest, "vga", *(entry.key for entry in entries))
    wishes = [
        VmOption(guest.vmid, entry.key, _without(guest.config[entry.key], "x-vga"), "the virtual display comes first")
        for entry in entries
    ]
    return (*wishes, VmOption(guest.vmid, "vga", "std", "Proxmox VE's own console shows the guest again"))


def _shows(facts: Facts, entry: HostPci) -> bool:
    """x-vga applies to the first function of an entry only (qemu-server PCI.pm)."""
    device = facts.device(entry.addresses[0]) if entry.addresses else None
    return device is not None and device.subclass == _VGA


def _without(value: str, option: str) -> str:
    return ",".join(part for part in value.split(",") if part.partition("=")[0] != option)


def _refuse_pending(guest: Vm, *keys: str) -> None:
    for key in keys:
        if key in guest.pending or key in guest.deleting:
            raise Failure(
                "guest.pending", f"Nothing was planned: guest {guest.vmid} has an unapplied change of {key}.",
                hint=f"Start and stop the guest, or take it back: qm set {guest.vmid} --revert {key}",
            )  # fmt: skip
