"""Rules about drift: are the devices that a guest claims still the ones that it was given?

1. An address is a place. What was given is remembered with the run that gave it; entries made by hand name a place
   only, and that is said.
2. One card, one voice: it has moved, or it is gone, or something else has its place, or its group has changed.
3. What is proven blocks a start. What cannot be told apart is unknown and does not.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level
from ..model.hookscript import PREFIX
from ..model.mediated import plain_type
from ..model.pci import Address, Device
from ..model.sighting import Sighting, Where, covers, path_of, regrouped, sightings, standing, unremembered
from ..model.vm import Vm
from .subject import Request, ask, guests, is_local, names, show


def moved(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a card that was given to the guest at another address now?

    Why: Addresses count buses, and a firmware update, another card or another slot renumbers them. The guest's
        configuration and the claims at boot still name the old place, so its start would take whatever is there now:
        a disk controller, or another guest's card.
    Look at: `lspci -tv`; the hostpci lines of `qm config VMID`; plan.json of the run that gave the card, `identities`.
    Fix: `pve-passthrough reassign --vm VMID`: the configuration, the mapping and the claims follow the card.
    Source: kernel, drivers/pci/probe.c (bus numbers are given out in order of discovery); qemu-server PCI.pm (hostpci
        names addresses).
    """
    for guest, seen in _sightings(facts, request):
        if seen.where is Where.MOVED:
            yield _moved(facts, guest, seen)
        elif seen.where is Where.AMBIGUOUS:
            yield _doubtful(facts, guest, seen)


def _moved(facts: Facts, guest: Vm, seen: Sighting) -> Finding:
    new = facts.device(seen.moves[seen.head.address]) if seen.head.address in seen.moves else None
    return Finding(
        "drift.moved",
        Level.BLOCKS,
        f"vm:{guest.vmid}",
        f"{_card(seen)}, which was given to guest {guest.vmid}, has moved: it was at {seen.head.address} and is at "
        f"{new.address if new else 'another address'} now.",
        (_old_place(seen), *((_new_place(facts, new),) if new else ()), *_serial(seen)),
        Actor.HARDWARE,
        _follow(guest),
    )


def _doubtful(facts: Facts, guest: Vm, seen: Sighting) -> Finding:
    """The place may still be right: then nobody is stopped. When it is certainly wrong, the start is."""
    here = any(device.address == seen.head.address for device in seen.candidates)
    candidates = tuple(_new_place(facts, device) for device in seen.candidates)
    message = (
        f"Whether {seen.head.address} still holds the {seen.head.name or seen.head.id} that guest {guest.vmid} was "
        "given, nobody can tell: the machine has several, and none is at the remembered place."
        if here
        else f"{_card(seen)}, which was given to guest {guest.vmid}, has moved, and it may be any of "
        f"{names(device.address for device in seen.candidates)}."
    )
    return Finding(
        "drift.moved",
        Level.UNKNOWN if here else Level.BLOCKS,
        f"vm:{guest.vmid}",
        message,
        (_old_place(seen), *candidates, *_serial(seen)),
        Actor.HARDWARE,
        ask(
            "Say which card it is.",
            f"pve-passthrough reassign --vm {guest.vmid} {seen.head.address}={seen.candidates[0].address}",
        ),
    )


def gone(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a card that was given to the guest missing?

    Why: Nothing is at its address and no other place holds it: it was taken out, switched off in the firmware setup,
        or has failed. Proxmox refuses the start.
    Look at: `lspci -nn`; `dmesg | grep -i pci`; the firmware's setup.
    Fix: Put the card back or switch it on again; or take its entry out of the guest.
    Source: qemu-server PCI.pm ("no PCI device found for"), recorded starts on 8.4 and 9.2.
    """
    for guest, seen in _sightings(facts, request):
        lost = seen.card if seen.where is Where.GONE else seen.missing
        if lost:
            yield Finding(
                "drift.gone",
                Level.BLOCKS,
                f"vm:{guest.vmid}",
                f"{names(lost)}, given to guest {guest.vmid}, {'are' if len(lost) > 1 else 'is'} not on this machine.",
                (_old_place(seen), *_serial(seen)),
                Actor.HARDWARE,
                _put_back(guest, seen),
            )


def other_card(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does another device have the address of a card that was given to the guest?

    Why: The card is nowhere, and the guest's configuration names a place that now holds something else. The start would
        take that from the host, whatever it is.
    Look at: `lspci -nn -s ADDRESS`; plan.json of the run that gave the card, `identities`.
    Fix: Put the card back, or take the entry out of the guest; another card is given with `pve-passthrough up`.
    Source: qemu-server PCI.pm: a raw hostpci entry is not compared with what sits at the address; resource mappings are
        (pve-guest-common, Mapping/PCI.pm, assert_valid).
    """
    for guest, seen in _sightings(facts, request):
        if seen.where is Where.OTHER and seen.holder is not None:
            yield Finding(
                "drift.other-card",
                Level.BLOCKS,
                f"vm:{guest.vmid}",
                f"{seen.head.address} holds another device now: guest {guest.vmid} was given "
                f"{seen.head.name or seen.head.id}, and there is {seen.holder.name or seen.holder.id}.",
                (_old_place(seen), f"{seen.head.address}: {_kind(seen.holder)}", *_serial(seen)),
                Actor.HARDWARE,
                _replace(guest, seen),
            )


def group(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does more leave the host with the card than when it was given?

    Why: The whole IOMMU group leaves the host at the guest's start. Firmware settings, kernel arguments and new cards
        change groups; what was judged when the card was given may not hold any more.
    Look at: `pve-passthrough devices --groups`; plan.json of the run that gave the card, `identities`.
    Fix: When the newcomers may leave the host: `pve-passthrough reassign --vm VMID` judges the new group and remembers
        it. When not: move the card to another slot, or put the firmware's or the kernel's setting back.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio: every function of the group but bridges is taken.
    """
    for guest, seen in _sightings(facts, request):
        newcomers, lost = regrouped(facts, guest, seen)
        if newcomers:
            yield Finding(
                "drift.group",
                Level.BLOCKS,
                f"vm:{guest.vmid}",
                f"The IOMMU group of {_card(seen)} has changed: {names(newcomers)} would leave the host with it when "
                f"guest {guest.vmid} starts.",
                tuple(f"{device.address}: {_kind(device)}, group {device.iommu_group}" for device in newcomers),
                Actor.HARDWARE,
                ask("If the host can do without them, have the new group judged and remembered.", _reassign(guest)),
            )
        elif lost:
            yield Finding(
                "drift.group",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"The IOMMU group of {_card(seen)} is smaller than when it was given to guest {guest.vmid}.",
                tuple(f"{identity}: is in another group now, or gone" for identity in lost),
            )


def remembered(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it known which card the guest was given?

    Why: A hostpci entry made by hand names a place, not a card. If the card moves, nothing can notice it, and the next
        start takes whatever is at that place.
    Look at: `pve-passthrough status`: no run has given the guest these devices.
    Fix: `pve-passthrough up ADDRESS --vm VMID` puts the guard in place and remembers the card; the entry stays.
    Source: qemu-server PCI.pm: a raw hostpci entry holds an address and nothing about the device.
    """
    if request.vmid is None:
        return
    for guest in guests(facts, request):
        unknown = unremembered(facts, guest) if is_local(facts, guest) else ()
        if not unknown:
            continue
        gap = facts.gap("assignments")
        yield Finding(
            "drift.remembered",
            Level.NOTE,
            f"vm:{guest.vmid}",
            f"Which card guest {guest.vmid} was given at {names(unknown)} is not remembered, so a move would go "
            "unnoticed.",
            (f"assignments: {gap.reason if gap else 'no run that stands has given them'}",),
            Actor.US,
            ask("Have it remembered.", _up(guest, unknown[0])),
        )


def guarded(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does something look at the devices before each start of the guest?

    Why: A moved card is noticed at the guest's start only if the guest's hookscript looks; otherwise somebody has to
        ask for a check. A guest without a storage for snippets on this machine, or one that other nodes may start, has
        none; and a hookscript set by hand takes its place.
    Look at: `qm config VMID`, the line `hookscript`; /etc/pve/storage.cfg, the lines `content`.
    Fix: `pve-passthrough up ADDRESS --vm VMID` puts it in place where that is possible, calls the guest's own
        hookscript as before, and says what is missing where it is not.
    Source: Proxmox VE administration guide, hookscripts; pve-guest-common GuestHelpers.pm, exec_hookscript.
    """
    if request.vmid is None:
        return
    for guest in _claiming(facts, request):
        known = standing(facts, guest)
        script = guest.value("hookscript") or ""
        if known and f":snippets/{PREFIX}" not in script:
            yield Finding(
                "drift.guarded",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"Nothing looks before the starts of guest {guest.vmid} whether its devices are still the same ones.",
                (f"hookscript: {script or 'none'}",),
                Actor.US,
                ask("Have the guard put in place.", _up(guest, known[0].address)),
            )


# -- words ---------------------------------------------------------------------------------------


def _sightings(facts: Facts, request: Request) -> Iterator[tuple[Vm, Sighting]]:
    for guest in _claiming(facts, request):
        for seen in sightings(facts, guest):
            yield guest, seen


def _claiming(facts: Facts, request: Request) -> tuple[Vm, ...]:
    """The guests in question that live here: another node's devices are not these."""
    return tuple(guest for guest in guests(facts, request) if is_local(facts, guest))


def _card(seen: Sighting) -> str:
    more = len(seen.card) - 1
    extra = f" with {more} more function{'s' if more > 1 else ''}" if more else ""
    return f"{seen.head.name or seen.head.id}{extra}"


def _kind(device: Device) -> str:
    return f"{device.id} {device.name}" if device.name else device.id


def _old_place(seen: Sighting) -> str:
    now = f"now holds {seen.holder.name or seen.holder.id}" if seen.holder else "now holds nothing"
    return f"{seen.head.address}: was {seen.head.name or seen.head.id}{_below(seen.head.path)}; {now}"


def _new_place(facts: Facts, device: Device) -> str:
    path = path_of({one.address: one for one in facts.devices}, device)
    return f"{device.address}: {_kind(device)}{_below(path)}"


def _up(guest: Vm, address: Address) -> str:
    """The command that gives the guest again what it has: a share stays a share."""
    kind = next((entry.mdev for entry in guest.hostpci if address in entry.addresses), "")
    return f"pve-passthrough up {address} --vm {guest.vmid}" + (f" --mdev {kind}" if plain_type(kind) else "")


def _below(path: str) -> str:
    root, slash, _ = path.partition("/")
    return f", below {root}" if slash else ""


def _serial(seen: Sighting) -> tuple[str, ...]:
    return (f"serial number: {seen.head.serial}",) if seen.head.serial else ()


def _reassign(guest: Vm) -> str:
    return f"pve-passthrough reassign --vm {guest.vmid}"


def _follow(guest: Vm) -> Fix:
    return ask("Let the configuration follow the card.", _reassign(guest))


def _put_back(guest: Vm, seen: Sighting) -> Fix:
    return show("Put the card back, or take its entry out of the guest.", _take_out(guest, seen))


def _replace(guest: Vm, seen: Sighting) -> Fix:
    """The new device may be meant: then it is given like any other."""
    return show(
        "Put the card back. If the guest is to have the new one, take the old entry out and give it the new one.",
        _take_out(guest, seen),
        f"pve-passthrough up {seen.head.address} --vm {guest.vmid}",
    )


def _take_out(guest: Vm, seen: Sighting) -> str:
    keys = [entry.key for entry in guest.hostpci if entry.mapping or _names_it(entry.options.get("host", ""), seen)]
    return f"qm set {guest.vmid} --delete {keys[0] if keys else 'hostpciN'}"


def _names_it(host: str, seen: Sighting) -> bool:
    return any(covers(host, one.address) for one in seen.card)
