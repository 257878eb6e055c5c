"""After a card has moved: what makes the guest's configuration, and all that names the card by its address, follow it.

1. Pure. Only what is proven is followed; where several cards may be the one, a person says which.
2. What is repaired: hostpci entries, resource mappings, claims at boot by address, our own files that name addresses.
   Everything else about the guest stays as it is.
3. All addresses are exchanged at once, so that two cards that changed places are no special case.
4. A claim by address stays where another guest's card of the same kind sits now; otherwise it goes with its card, so
   that no twin of the host's is taken at boot.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import Exit, Failure
from ..knowledge.guestconfig import entry_functions
from ..model.facts import Facts, MapEntry, ResourceMapping
from ..model.identity import Identity
from ..model.mappings import mapping_text
from ..model.own import CLAIM_SCRIPT, LENT, UDEV_RULES
from ..model.pci import Address, Device
from ..model.plan import Plan
from ..model.sighting import Sighting, Where, covers, regrouped, sightings, standing, taken_for
from ..model.value import dataclass
from ..model.vm import Vm, expand_host
from ..model.wish import MappingText, Script, Text, VmOption, Wish
from . import claim_script
from .choose import resolve
from .goals import changeable_guest, refuse_busy
from .outcome import outcome
from .proof import Unprovable

_ADDRESS = re.compile(r"(?<![\w:.])[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7](?![\w:])")


@dataclass(frozen=True, slots=True)
class Repair:
    """wishes     what follows the cards; empty when everything is in place
    moves         remembered address to present address, of every function that is there
    gone          remembered cards that are nowhere: their entries stay as they are
    mappings      the resource mappings as they will be
    news          whether something about the devices is worth remembering anew
    """

    wishes: tuple[Wish, ...]
    moves: Mapping[Address, Address]
    gone: tuple[Sighting, ...]
    mappings: tuple[ResourceMapping, ...]
    news: bool


def repair(facts: Facts, vmid: int, words: Sequence[str] = ()) -> Repair:
    """What has to change so that guest `vmid` has its own devices again.

    `words`: which device is meant, where that is not proven: `NEW`, or `OLD=NEW` for one of several. Raises Failure.
    """
    guest = changeable_guest(facts, vmid)
    if not standing(facts, guest):
        raise _unremembered(facts, guest)
    seen = _chosen(facts, sightings(facts, guest), words)
    gone = tuple(one for one in seen if one.where in (Where.GONE, Where.OTHER))
    moves = {old: new for one in seen for old, new in one.moves.items()}
    if gone and all(old == new for old, new in moves.items()):
        raise _gone(gone)
    wishes, mappings = _wishes(facts, guest, moves)
    if wishes:
        refuse_busy(facts, guest)
    news = bool(wishes) or any(any(regrouped(facts, guest, one)) for one in seen)
    return Repair(wishes, moves, gone, mappings, news)


def afterwards(facts: Facts, made: Plan, found: Repair) -> Facts:
    """The facts as they will be when the plan has been carried out, mappings included."""
    then = outcome(replace(facts, mappings=found.mappings), made)
    known = [device.address for device in facts.devices]
    guests = (
        replace(
            guest,
            hostpci=tuple(
                replace(entry, addresses=entry_functions(entry.options, guest.node, found.mappings, known))
                if entry.mapping
                else entry
                for entry in guest.hostpci
            ),
        )
        for guest in then.guests or ()
    )
    return replace(then, guests=tuple(guests))


# -- which card is which -------------------------------------------------------------------------


def _unremembered(facts: Facts, guest: Vm) -> Failure:
    entries = [f"{entry.key}: {guest.config.get(entry.key, '')}" for entry in guest.hostpci]
    gap = facts.gap("assignments")
    return Failure(
        "reassign.unremembered",
        f"Nothing was changed: what guest {guest.vmid} ({guest.name}) was given is not remembered.",
        *entries, *((f"assignments: {gap.reason}",) if gap else ()),
        hint="Entries made by hand name a place, not a card. Set them right by hand, then "
        f"`pve-passthrough up DEVICE --vm {guest.vmid}` remembers the card.", code=Exit.USAGE,
    )  # fmt: skip


def _gone(gone: Sequence[Sighting]) -> Failure:
    lines = [f"{one.head}: {_lost(one)}" for one in gone]
    alike = [str(device) for one in gone for device in one.alike]
    more = " If it is one of the others of its kind, say so: OLD=NEW." if alike else ""
    return Failure(
        "reassign.gone", f"Nothing was changed: {gone[0].head} is nowhere on this machine.", *lines,
        *(f"of the same kind: {line}" for line in alike),
        hint=f"Put the card back, or take its entry out of the guest.{more}", code=Exit.BLOCKED,
    )  # fmt: skip


def _lost(one: Sighting) -> str:
    return "nothing is at its address now" if one.holder is None else f"its address now holds {one.holder}"


def _chosen(facts: Facts, seen: Sequence[Sighting], words: Sequence[str]) -> tuple[Sighting, ...]:
    """The sightings, the doubtful ones settled by what a person said. Raises Failure."""
    named, open_words = _read(facts, words)
    settled = [_settled(facts, one, named, open_words) for one in seen]
    doubtful = [one for one in settled if one.where is Where.AMBIGUOUS]
    if doubtful:
        raise _ambiguous(doubtful[0])
    used = {new.slot for one in settled for new in one.moves.values()}
    lost = [slot for slot in [*open_words, *named.values()] if slot not in used]
    if lost:
        raise Failure(
            "reassign.not-it", f"Nothing was changed: {lost[0]} cannot be what the guest was given.",
            *(f"given: {one.head}, {one.head.id}" for one in seen),
            hint="Another device is given with `pve-passthrough up`.", code=Exit.USAGE,
        )  # fmt: skip
    return tuple(settled)


def _read(facts: Facts, words: Sequence[str]) -> tuple[dict[str, str], list[str]]:
    """Slots: those said for an old slot, and those said without one."""
    named: dict[str, str] = {}
    open_slots: list[str] = []
    for word in words:
        old, equals, new = word.rpartition("=")
        slots = {address.slot for address in resolve(facts, (new,), alone=True)}
        if len(slots) != 1:
            raise Failure("reassign.word", f"Nothing was changed: {new!r} names several cards.", code=Exit.USAGE)
        if not equals:
            open_slots += slots
            continue
        try:
            named[Address.parse(old if "." in old else f"{old}.0").slot] = slots.pop()
        except ValueError as error:
            raise Failure("reassign.word", f"Nothing was changed: {error}.", code=Exit.USAGE) from error
    return named, open_slots


def _settled(facts: Facts, one: Sighting, named: Mapping[str, str], open_slots: Sequence[str]) -> Sighting:
    wanted = named.get(one.head.address.slot)
    if wanted is not None:
        chosen = [device for device in one.alike if device.address.slot == wanted]
    elif one.where is Where.AMBIGUOUS:
        chosen = [device for device in one.candidates if device.address.slot in open_slots]
    else:
        chosen = [device for device in one.alike if device.address.slot in open_slots and not one.moves]
    return taken_for(facts, one.card, chosen[0]) if len(chosen) == 1 else one


def _ambiguous(one: Sighting) -> Failure:
    old = one.head.address
    return Failure(
        "reassign.ambiguous", f"Nothing was changed: {one.head} has moved, and several cards may be it.",
        *(f"may be: {device}" for device in one.candidates),
        f"remembered: below {one.head.path}, {'serial ' + one.head.serial if one.head.serial else 'no serial number'}",
        hint="Say which it is, for example: "
        f"pve-passthrough reassign --vm ID {old}={one.candidates[0].address}", code=Exit.USAGE,
    )  # fmt: skip


# -- what follows --------------------------------------------------------------------------------


def _wishes(
    facts: Facts, guest: Vm, moves: Mapping[Address, Address]
) -> tuple[tuple[Wish, ...], tuple[ResourceMapping, ...]]:
    """Everything that names an old address, and mappings whose numbers the hardware no longer confirms."""
    mappings = tuple(_mapping(facts, guest, mapping, moves) for mapping in facts.mappings)
    mapped = (
        MappingText(new.name, mapping_text(old), mapping_text(new), "the mapping follows its device")
        for old, new in zip(facts.mappings, mappings, strict=True)
        if old != new
    )
    moved = {old: new for old, new in moves.items() if old != new}
    files = _files(facts, guest, moved) if moved else ()
    return (*files, *mapped, *_entries(guest, moved)), mappings


def _entries(guest: Vm, moved: Mapping[Address, Address]) -> tuple[VmOption, ...]:
    """hostpci entries with their other options word for word."""
    found = []
    for entry in guest.hostpci:
        text = guest.config.get(entry.key, "")
        new = ",".join(_option(part, moved) for part in text.split(","))
        if entry.key in guest.pending or entry.key in guest.deleting:
            raise Failure(
                "guest.pending", f"Nothing was planned: guest {guest.vmid} has an unapplied change of {entry.key}.",
                hint=f"Start and stop the guest, or take it back: qm set {guest.vmid} --revert {entry.key}",
            )  # fmt: skip
        if new != text:
            found.append(VmOption(guest.vmid, entry.key, new, "the entry follows its device"))
    return tuple(found)


def _option(part: str, moved: Mapping[Address, Address]) -> str:
    key, equals, value = part.partition("=")
    if equals and key != "host":
        return part
    return f"{key}={_host(value, moved)}" if equals else _host(key, moved)


def _host(host: str, moved: Mapping[Address, Address]) -> str:
    """`01:00` and `0000:01:00.0`, several joined by `;`: each part in its own form, at its new place."""
    return ";".join(_part(part, moved) for part in host.split(";"))


def _part(part: str, moved: Mapping[Address, Address]) -> str:
    for old, new in moved.items():
        if covers(part, old):
            text = str(new) if "." in part else new.slot
            return text if part.count(":") == 2 or new.domain else text.removeprefix("0000:")
    return part


# -- mappings ------------------------------------------------------------------------------------


def _mapping(facts: Facts, guest: Vm, mapping: ResourceMapping, moves: Mapping[Address, Address]) -> ResourceMapping:
    """The mapping with this node's lines set right, as far as they name the guest's remembered devices."""
    names = {entry.mapping for entry in guest.hostpci if entry.mapping}
    if mapping.kind != "pci" or mapping.name not in names:
        return mapping
    lines = tuple(
        _line(facts, line, moves) if line.node == guest.node and any(covers(line.path, old) for old in moves) else line
        for line in mapping.entries
    )
    return replace(mapping, entries=lines) if lines != mapping.entries else mapping


def _line(facts: Facts, line: MapEntry, moves: Mapping[Address, Address]) -> MapEntry:
    """Path, id, subsystem-id and iommugroup of the device that is there now.

    Source: pve-guest-common, PVE/Mapping/PCI.pm, assert_valid: what the hardware has must be written down and be right.
    """
    path = _host(line.path, {old: new for old, new in moves.items() if old != new})
    first = expand_host(path, (device.address for device in facts.devices))[:1]
    device = facts.device(first[0]) if first else None
    if device is None:
        return line
    options = dict(line.options)
    for name, real in _real(device).items():
        if real is None:
            continue
        if real:
            options[name] = real
        else:
            options.pop(name, None)
    return replace(line, path=path, options=options)


def _real(device: Device) -> dict[str, str | None]:
    """What a mapping must say of a device; empty: it must not say it, None: nobody could tell."""
    group, subsystem = device.iommu_group, device.subsystem
    return {
        "id": None if "?" in device.id else device.id,
        "subsystem-id": None if "?" in subsystem else subsystem,
        "iommugroup": None if group is None or group < 0 else str(group),
    }


# -- our own files -------------------------------------------------------------------------------


def _files(facts: Facts, guest: Vm, moved: Mapping[Address, Address]) -> tuple[Wish, ...]:
    """Files of ours that name functions by their address."""
    wishes: list[Wish] = []
    script = _claims(facts, guest, moved)
    if script is not None and script != facts.files.get(CLAIM_SCRIPT):
        wishes.append(Text(CLAIM_SCRIPT, script, "what is done for the device at boot follows it"))
    for path, boot in ((UDEV_RULES, True), (LENT.format(vmid=guest.vmid), False)):
        text = facts.files.get(path)
        new = text and _ADDRESS.sub(lambda match: str(moved.get(Address.parse(match.group()), match.group())), text)
        if text and new and new != text:
            why = "what is set for the device follows it"
            wishes.append(Text(path, new, why) if boot else Script(path, new, why, executable=False))
    return tuple(wishes)


def _claims(facts: Facts, guest: Vm, moved: Mapping[Address, Address]) -> str | None:
    """The script with the moved functions' claims and sizes at their new places; None when there is none."""
    text = facts.files.get(CLAIM_SCRIPT)
    kept = _others(facts, guest)
    try:
        claims, sizes = claim_script.claims_of(text), claim_script.sizes_of(text)
    except Unprovable as error:
        raise Failure(
            "plan.unprovable", f"Nothing was planned: {error.where} claims devices by address, and cannot be edited.",
            error.reason, hint="Set the addresses in it right by hand.", code=Exit.REFUSED,
        ) from error  # fmt: skip
    stays = {address: identity for address, identity in claims.items() if address not in moved or address in kept}
    stays |= {moved[old]: identity for old, identity in claims.items() if old in moved}
    sized = {key: value for key, value in sizes.items() if key[0] not in moved or key[0] in kept}
    sized |= {(moved[old], index): value for (old, index), value in sizes.items() if old in moved}
    return text if (stays, sized) == (claims, sizes) else claim_script.render(stays, sized)


def _others(facts: Facts, guest: Vm) -> frozenset[Address]:
    """Where other guests' devices are: where they are now if that is remembered, else where they are claimed."""
    found: set[Address] = set()
    for other in facts.guests or ():
        if other.vmid != guest.vmid:
            found |= {address for entry in other.hostpci for address in entry.addresses}
            found |= {new for one in sightings(facts, other) for new in one.moves.values()}
    return frozenset(found)


def remembered(facts: Facts, guest: Vm, found: Repair) -> tuple[Identity, ...]:
    """Of cards that are gone, what was remembered stays so."""
    gone = [identity for one in found.gone for identity in one.card]
    return tuple(identity for identity in standing(facts, guest) if identity in gone)
