"""Where remembered devices are now. Pure: facts in, sightings out.

1. A card is known by its kind (vendor:device, subsystem, base class, the same function number), then by its serial
   number, then by the place that it sits in: root port and slots below it, which keep when buses are renumbered.
2. Nothing is guessed. Of two cards of one kind without serial numbers, the place decides only if it decides alone; a
   card that may as well be one of the twins that were there before is not taken for the missing one.
3. The functions of one slot are one card and move together; the lowest remembered function speaks for it.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from enum import Enum

from .facts import Facts
from .identity import Identity
from .pci import Address, Device
from .value import dataclass
from .vm import Vm

_NO_SUBSYSTEM = frozenset({"????:????", "0000:0000"})


class Where(Enum):
    """HERE: at its address · MOVED: at another one · GONE: nowhere, and nothing is at its address · OTHER: nowhere, and
    another device is at its address · AMBIGUOUS: several devices may be it."""

    HERE = "here"
    MOVED = "moved"
    GONE = "gone"
    OTHER = "other"
    AMBIGUOUS = "ambiguous"


@dataclass(frozen=True, slots=True)
class Sighting:
    """One remembered card and where it is.

    card        its remembered functions, lowest first
    moves       remembered address to present address, of every function that is there
    candidates  first functions of the cards that may be it, when that is ambiguous
    alike       first functions of all cards of this kind that no serial number rules out
    holder      what sits at the first function's old address now
    missing     remembered functions that the card does not show any more
    """

    card: tuple[Identity, ...]
    where: Where
    moves: Mapping[Address, Address]
    candidates: tuple[Device, ...] = ()
    holder: Device | None = None
    missing: tuple[Identity, ...] = ()
    alike: tuple[Device, ...] = ()

    @property
    def head(self) -> Identity:
        return self.card[0]


# -- remembering ---------------------------------------------------------------------------------


def remember(facts: Facts, addresses: Iterable[Address]) -> tuple[Identity, ...]:
    """What will be remembered of these functions; those that the machine does not have are left out."""
    devices = (facts.device(address) for address in sorted(set(addresses)))
    return tuple(_identity(facts, device) for device in devices if device is not None)


def _identity(facts: Facts, device: Device) -> Identity:
    places = {other.address: other for other in facts.devices}
    plain = Identity(
        device.address, device.id, device.name, _subsystem(device), device.class_code, device.serial or "",
        path_of(places, device), _group(facts, device),
    )  # fmt: skip
    twins = (o for o in facts.devices if o.address != device.address and _same_kind(plain, o))
    return Identity(
        plain.address, plain.id, plain.name, plain.subsystem, plain.class_code, plain.serial, plain.path, plain.group,
        tuple(sorted(path_of(places, twin) for twin in twins)),
    )  # fmt: skip


def path_of(places: Mapping[Address, Device], device: Device) -> str:
    """`0000:00:01.0/00.0`: the function on the root bus, then slot.function below each bridge."""
    steps: list[str] = []
    seen: set[Address] = set()
    here = device
    while here.parent is not None and here.parent in places and here.address not in seen:
        seen.add(here.address)
        steps.append(f"{here.address.device:02x}.{here.address.function:x}")
        here = places[here.parent]
    return "/".join([str(here.address), *reversed(steps)])


def _subsystem(device: Device) -> str:
    return "" if device.subsystem in _NO_SUBSYSTEM else device.subsystem


def _group(facts: Facts, device: Device) -> dict[str, str] | None:
    number = device.iommu_group
    if number is None or number < 0:
        return None
    return {str(member.address): member.id for member in facts.group(number) if not member.bridge}


# -- what stands ---------------------------------------------------------------------------------


def standing(facts: Facts, guest: Vm) -> tuple[Identity, ...]:
    """What is remembered of the devices that the guest's configuration claims; of an address the latest run counts."""
    hosts = entry_hosts(facts, guest)
    found: dict[Address, Identity] = {}
    for assignment in sorted(facts.assignments, key=lambda one: one.run):
        if assignment.vmid == guest.vmid:
            found.update({one.address: one for one in assignment.identities})
    return tuple(found[address] for address in sorted(found) if any(covers(host, address) for host in hosts))


def entry_hosts(facts: Facts, guest: Vm) -> tuple[str, ...]:
    """The texts that name the guest's functions: `host=` of each entry, and the paths of its mappings on its node."""
    hosts = [entry.options["host"] for entry in guest.hostpci if "host" in entry.options]
    names = {entry.mapping for entry in guest.hostpci if entry.mapping}
    for mapping in facts.mappings:
        if mapping.kind == "pci" and mapping.name in names:
            hosts += [line.path for line in mapping.entries if line.node == guest.node]
    return tuple(hosts)


def covers(host: str, address: Address) -> bool:
    """Whether the text `01:00`, `0000:01:00.0` or several of them with `;` between them name this function."""
    short = (address.slot, str(address))
    return any((part if part.count(":") == 2 else f"0000:{part}").lower() in short for part in host.split(";"))


def unremembered(facts: Facts, guest: Vm) -> tuple[Address, ...]:
    """Functions that the guest claims and nobody has remembered."""
    known = {identity.address for identity in standing(facts, guest)}
    claimed = dict.fromkeys(address for entry in guest.hostpci for address in entry.addresses)
    return tuple(address for address in claimed if address not in known)


# -- finding again -------------------------------------------------------------------------------


def sightings(facts: Facts, guest: Vm) -> tuple[Sighting, ...]:
    """Every remembered card of the guest; nothing when the machine's devices are unknown."""
    if not facts.devices:
        return ()
    cards: dict[str, list[Identity]] = {}
    for identity in standing(facts, guest):
        cards.setdefault(identity.address.slot, []).append(identity)
    return tuple(sight(facts, tuple(card)) for card in cards.values())


def sight(facts: Facts, card: tuple[Identity, ...]) -> Sighting:
    """Where this card is now."""
    head = card[0]
    places = {device.address: device for device in facts.devices}
    alike = tuple(device for device in facts.devices if _fits(card, device, places))
    holder = places.get(head.address)
    found, candidates = _found(card, alike, places)
    if found is not None:
        return taken_for(facts, card, found)
    where = Where.AMBIGUOUS if candidates else Where.GONE if holder is None else Where.OTHER
    return Sighting(card, where, {}, candidates, holder, (), alike)


def taken_for(facts: Facts, card: tuple[Identity, ...], found: Device) -> Sighting:
    """The sighting in which the card's first function is `found`: proven, or said by a person."""
    places = {device.address for device in facts.devices}
    moves = {one.address: _at(found.address, one.address.function) for one in card}
    there = {old: new for old, new in moves.items() if new in places}
    missing = tuple(one for one in card if one.address not in there)
    where = Where.HERE if found.address == card[0].address else Where.MOVED
    return Sighting(card, where, there, (), facts.device(card[0].address), missing, (found,))


def _at(slot: Address, function: int) -> Address:
    return Address(slot.domain, slot.bus, slot.device, function)


def _same_kind(identity: Identity, device: Device) -> bool:
    """The same product of the same maker; what nobody could read contradicts nothing."""
    subsystem = _subsystem(device)
    was, now = identity.class_code, device.base_class
    return (
        device.id == identity.id
        and "?" not in device.id
        and not device.bridge
        and device.address.function == identity.address.function
        and ("?" in subsystem or not subsystem or not identity.subsystem or subsystem == identity.subsystem)
        and (was is None or now is None or was >> 16 == now)  # a card's mode may change its subclass
    )


def _fits(card: Sequence[Identity], device: Device, places: Mapping[Address, Device]) -> bool:
    """Whether the card whose first remembered function would be `device` may be this one."""
    if not _same_kind(card[0], device):
        return False
    there = [(one, places.get(_at(device.address, one.address.function))) for one in card]
    return all(now is None or (_same_kind(one, now) and not _other_serial(one, now)) for one, now in there)


def _other_serial(identity: Identity, device: Device) -> bool:
    return bool(identity.serial and device.serial) and identity.serial != device.serial


def _proven(card: Sequence[Identity], device: Device, places: Mapping[Address, Device]) -> bool:
    """A serial number says that it is this card."""
    there = [(one, places.get(_at(device.address, one.address.function))) for one in card]
    return any(now is not None and one.serial and one.serial == now.serial for one, now in there)


def _found(
    card: Sequence[Identity], fits: Sequence[Device], places: Mapping[Address, Device]
) -> tuple[Device | None, tuple[Device, ...]]:
    """The card's first function, or those that it may be."""
    head = card[0]
    proven = [device for device in fits if _proven(card, device, places)]
    pool = proven or fits
    if len(proven) == 1:
        return proven[0], ()
    paths = {device.address: path_of(places, device) for device in pool}
    here = next((device for device in pool if device.address == head.address), None)
    if here is not None and paths[here.address] == head.path:
        return here, ()
    in_place = [device for device in pool if paths[device.address] == head.path]
    if len(in_place) == 1:
        return in_place[0], ()
    rest = [device for device in pool if paths[device.address] not in head.twins]
    lost_twins = set(head.twins) - set(paths.values())
    if len(rest) == 1 and not lost_twins:
        return rest[0], ()
    return None, tuple(rest)


# -- its group -----------------------------------------------------------------------------------


def regrouped(facts: Facts, guest: Vm, seen: Sighting) -> tuple[tuple[Device, ...], tuple[str, ...]]:
    """(devices that now leave the host with this card and did not before, vendor:device of those that no longer do).

    Bridges stay with the host, and what the guest has itself is no news. Compared by kind: addresses may have changed.
    """
    known = [one.group for one in seen.card if one.group is not None]
    present = [device for device in map(facts.device, seen.moves.values()) if device is not None]
    groups = {device.iommu_group for device in present}
    if not known or not groups or any(number is None or number < 0 for number in groups):
        return (), ()
    own = {str(one.address) for one in seen.card}
    before = Counter(id_ for addr, id_ in {k: v for g in known for k, v in g.items()}.items() if addr not in own)
    mine = {address for entry in guest.hostpci for address in entry.addresses} | set(seen.moves.values())
    newcomers: list[Device] = []
    for device in facts.devices:
        if device.iommu_group in groups and not device.bridge and device.address not in seen.moves.values():
            if before[device.id] > 0:
                before[device.id] -= 1
            elif device.address not in mine:
                newcomers.append(device)
    return tuple(newcomers), tuple(sorted(before.elements()))
