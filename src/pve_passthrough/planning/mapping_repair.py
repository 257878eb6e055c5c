"""Mending and taking away resource mappings.

1. Pure. The present numbers are written only where it is certain that it is the device that was mapped: what was
   remembered of it says so, or nothing else on the machine could be it, or a person says so.
2. All of this node's lines or none: one wrong line keeps every guest of the mapping from starting.
3. A mapping that lies is never made to tell the truth about another device.
4. Lines of other nodes stay, and so does a mapping that a guest names.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..errors import Exit, Failure
from ..knowledge.mappings import Difference, Hardware, Judged, State, describe, hardware_of, judge_mapping
from ..model.facts import Facts, MapEntry, ResourceMapping
from ..model.mappings import lines_of, mapping_text, users
from ..model.pci import Device
from ..model.sighting import Sighting, Where, covers, sight, standing
from ..model.usb import UsbDevice
from ..model.wish import MappingText
from .choose import resolve
from .goals import changeable_cluster, unknown
from .mappings import changeable_mapping, existing, pci_line, this_node


def repair(facts: Facts, name: str, words: Sequence[str] = ()) -> MappingText:
    """The mapping with this node's lines set right. `words`: `OLD=NEW`, where it is not certain. Raises Failure."""
    mapping = existing(facts, name)
    changeable_cluster(facts)
    changeable_mapping(facts, mapping.kind, name)
    node = this_node(facts)
    hardware = hardware_of(facts)
    judged = judge_mapping(hardware, mapping)
    mine = [one for one in judged if one.state is not State.ELSEWHERE]
    if not mine:
        raise Failure(
            "mapping.elsewhere", f"Nothing was planned: the mapping {name} has no device on this node, {node}.",
            *(f"{line.node}: {line.path}" for line in mapping.entries),
            hint=f"pve-passthrough mapping add {name} DEVICE", code=Exit.USAGE,
        )  # fmt: skip
    said = _read(mine, words)
    lines = tuple(_mended(facts, hardware, mapping, one, said) for one in judged)
    _refuse_doubled(name, [line for line in lines if line.node == node])
    made = replace(mapping, entries=lines)
    return MappingText(name, mapping_text(mapping), mapping_text(made), _why(mapping, made), mapping.kind)


def _why(old: ResourceMapping, new: ResourceMapping) -> str:
    moved = [
        f"{was.path} is at {now.path} now"
        for was, now in zip(old.entries, new.entries, strict=True) if was.path != now.path
    ]  # fmt: skip
    return "; ".join(moved) or "the numbers are those of the hardware"


def _read(mine: Sequence[Judged], words: Sequence[str]) -> dict[str, str]:
    """New place by old place. A word without `=` is for the only line that is wrong."""
    said: dict[str, str] = {}
    wrong = [one.line for one in mine if one.wrong]
    for word in words:
        old, equals, new = word.rpartition("=")
        line = next((one.line for one in mine if equals and _same(one.line, old)), None)
        if not equals and len(wrong) == 1:
            line = wrong[0]
        if line is None or not new:
            raise Failure(
                "mapping.word", f"Nothing was planned: {word!r} does not say which of the mapping's devices is where.",
                *(f"of this node: {_place(one.line)}" for one in mine),
                hint="Write OLD=NEW, with OLD as the mapping has it.", code=Exit.USAGE,
            )  # fmt: skip
        said[_place(line)] = new
    return said


def _place(line: MapEntry) -> str:
    return line.path or line.options.get("id", "")


def _same(line: MapEntry, old: str) -> bool:
    return old in (_place(line), _place(line).removeprefix("0000:"))


def _mended(
    facts: Facts, hardware: Hardware, mapping: ResourceMapping, one: Judged, said: Mapping[str, str]
) -> MapEntry:
    """The line as it shall be. Raises Failure where nothing is certain."""
    word = said.get(_place(one.line))
    if word is not None:
        return _as_said(facts, hardware, mapping, one.line, word)
    if one.state in (State.ELSEWHERE, State.FINE):
        return one.line
    if one.state is State.UNKNOWN:
        raise unknown(facts, "mappings", f"whether {mapping.name} still fits: {one.reason}")
    if mapping.kind == "usb":
        return _mended_usb(facts, mapping, one)
    seen = _remembered(facts, mapping, one.line)
    if seen is not None:
        return _followed(facts, hardware, mapping, one, seen)
    if one.state is State.STALE and not _doubtful(facts, one):
        return _rewritten(facts, hardware, one.line, one.line.path, _head(facts, one))
    raise _uncertain(facts, mapping, one)


def _head(facts: Facts, one: Judged) -> Device:
    found = facts.device(one.addresses[0])
    assert found is not None
    return found


def _rewritten(facts: Facts, hardware: Hardware, line: MapEntry, path: str, device: Device) -> MapEntry:
    made = pci_line(facts, hardware, line.node, path, device)
    kept = {key: text for key, text in line.options.items() if key == "description"}
    return replace(made, options={**made.options, **kept})


def _doubtful(facts: Facts, one: Judged) -> bool:
    """Whether a twin could as well be the device that was mapped: a group that changed says that things have moved."""
    if any(difference.name == "mdev" for difference in one.differences):
        return True
    regrouped = any(item.name == "iommugroup" and item.said is not None for item in one.differences)
    head = _head(facts, one)
    mapped = set(one.line.path.split(";"))
    twins = [
        other for other in facts.devices
        if other.address != head.address and other.id == head.id and other.subsystem == head.subsystem
        and other.address.slot not in mapped and str(other.address) not in mapped
        and other.physical_function is None
    ]  # fmt: skip
    return regrouped and bool(twins)


# -- what was remembered --------------------------------------------------------------------------


def _remembered(facts: Facts, mapping: ResourceMapping, line: MapEntry) -> Sighting | None:
    """Where the card is now that a guest was given through this line; None when nobody remembers it."""
    for guest, _ in users(facts, mapping):
        found = [one for one in standing(facts, guest) if covers(line.path, one.address)]
        if len({one.address.slot for one in found}) == 1:
            return sight(facts, tuple(found))
    return None


def _followed(
    facts: Facts, hardware: Hardware, mapping: ResourceMapping, one: Judged, seen: Sighting
) -> MapEntry:  # fmt: skip
    """The line at the place where its card is."""
    if seen.where not in (Where.HERE, Where.MOVED):
        raise _uncertain(facts, mapping, one, seen)
    new = seen.moves[seen.head.address]
    device = facts.device(new)
    path = one.line.path if seen.where is Where.HERE else (str(new) if "." in one.line.path else new.slot)
    if device is None or (seen.where is Where.MOVED and ";" in one.line.path):
        raise _uncertain(facts, mapping, one, seen)
    return _rewritten(facts, hardware, one.line, path, device)


def _uncertain(facts: Facts, mapping: ResourceMapping, one: Judged, seen: Sighting | None = None) -> Failure:
    lying = one.state is State.LIES
    others = [line.path for line in mapping.entries if line is not one.line and line.node == one.line.node]
    likely = [
        device for device in facts.devices
        if _product(one.line, device) and not any(covers(path, device.address) for path in others)
    ]  # fmt: skip
    place = _place(one.line)
    new = (likely[0].address if "." in place else likely[0].address.slot) if likely else "NEW"
    mdev = any(difference.name == "mdev" for difference in one.differences)
    hint = (
        "Its driver does not offer mediated devices now: load it, or make a mapping without --mdev."
        if mdev
        else f"If you know which it is, say so: pve-passthrough mapping repair {mapping.name} {place}={new}"
        if likely
        else f"Put the device back, or make the mapping anew: pve-passthrough mapping delete {mapping.name}"
    )
    return Failure(
        "mapping.lies" if lying else "mapping.uncertain",
        f"Nothing was planned: the mapping {mapping.name} {describe(one)}; "
        + ("its numbers are not written over with another device's." if lying else "which device was meant is not "
           "certain."),
        *map(str, one.differences), *(f"of the kind that was mapped: {line}" for line in likely),
        *((f"remembered: {seen.head}, serial {seen.head.serial or 'none'}",) if seen else ()),
        hint=hint, code=Exit.REFUSED,
    )  # fmt: skip


def _product(line: MapEntry, device: Device | UsbDevice) -> bool:
    """The same product of the same maker, as far as the line says."""
    if device.id != line.options.get("id", "").lower():
        return False
    if isinstance(device, UsbDevice):
        return True
    subsystem = line.options.get("subsystem-id", "").lower()
    return not subsystem or "?" in device.subsystem or device.subsystem == subsystem


# -- what a person says ---------------------------------------------------------------------------


def _as_said(facts: Facts, hardware: Hardware, mapping: ResourceMapping, line: MapEntry, word: str) -> MapEntry:
    """The line at the place that a person names; only ever the same product."""
    if mapping.kind == "usb":
        return _usb_as_said(facts, mapping, line, word)
    addresses = resolve(facts, (word,), alone=True)
    if len({address.slot for address in addresses}) != 1:
        raise Failure("mapping.word", f"Nothing was planned: {word!r} names several cards.", code=Exit.USAGE)
    whole = "." not in line.path
    wanted = min(addresses) if not whole else min(addresses)._replace(function=0)
    device = facts.device(wanted)
    if device is None or not _product(line, device) or ";" in line.path:
        raise _other_product(mapping, line, str(device or word))
    return _rewritten(facts, hardware, line, device.address.slot if whole else str(device.address), device)


def _other_product(mapping: ResourceMapping, line: MapEntry, device: str) -> Failure:
    return Failure(
        "mapping.other-product", f"Nothing was planned: {device} is not what the mapping {mapping.name} names.",
        f"mapped: {line.options.get('id', '')}, board {line.options.get('subsystem-id', 'not said')}",
        hint=f"For another product make the mapping anew: pve-passthrough mapping delete {mapping.name}",
        code=Exit.REFUSED,
    )  # fmt: skip


# -- USB ------------------------------------------------------------------------------------------


def _mended_usb(facts: Facts, mapping: ResourceMapping, one: Judged) -> MapEntry:
    """Only a number's spelling is mended by itself: nothing else says which of two sticks was meant."""
    spelling = all(
        isinstance(item, Difference) and item.said and item.real and item.said.lower() == item.real
        for item in one.differences
    )
    if one.state is State.STALE and spelling:
        return replace(one.line, options={**one.line.options, "id": one.differences[0].real or ""})
    alike = [device for device in facts.usb if _product(one.line, device)]
    hint = (
        f"If you know which it is, say so: pve-passthrough mapping repair {mapping.name} "
        f"{_place(one.line)}={alike[0].port}"
        if alike
        else "Plug it in again, in the socket that the mapping names."
    )
    raise Failure(
        "mapping.lies" if one.state is State.LIES else "mapping.uncertain",
        f"Nothing was planned: the mapping {mapping.name} {describe(one)}; which device was meant is not certain.",
        *(f"of the kind that was mapped: {device.name or device.id} ({device.port})" for device in alike),
        hint=hint, code=Exit.REFUSED,
    )  # fmt: skip


def _usb_as_said(facts: Facts, mapping: ResourceMapping, line: MapEntry, word: str) -> MapEntry:
    port = word.removeprefix("usb:")
    device = next((one for one in facts.usb if one.port == port), None)
    if device is None:
        raise Failure(
            "device.unknown", f"Nothing was planned: nothing is plugged in at {word!r}.",
            *(f"{one.port}: {one.name or one.id}" for one in facts.usb if not one.port.startswith("usb")),
            hint="Name a socket: 1-4, 2-1.3.", code=Exit.USAGE,
        )  # fmt: skip
    if not _product(line, device):
        raise _other_product(mapping, line, f"{device.name or device.id} ({device.port})")
    return replace(line, path=port, options={**line.options, "id": device.id})


def _refuse_doubled(name: str, lines: Sequence[MapEntry]) -> None:
    places = [_place(line) for line in lines]
    double = next((place for place in places if places.count(place) > 1), None)
    if double is not None and len(set(places)) < len(places):
        raise Failure(
            "mapping.doubled", f"Nothing was planned: two lines of {name} would name {double}.",
            hint="Take one of them away in the web interface (Datacenter, Resource Mappings).", code=Exit.REFUSED,
        )  # fmt: skip


# -- taking away ----------------------------------------------------------------------------------


def remove(facts: Facts, name: str, *, here: bool = False) -> MappingText:
    """The mapping taken away; `here`: only this node's lines of it. Raises Failure while a guest names it."""
    mapping = existing(facts, name)
    changeable_cluster(facts)
    changeable_mapping(facts, mapping.kind, name)
    others = [line for line in mapping.entries if line.node != this_node(facts)]
    _refuse_used(facts, mapping, here=here and bool(others))
    if others and not here:
        raise Failure(
            "mapping.shared", f"Nothing was planned: the mapping {name} offers devices of other nodes too.",
            *(f"{line.node}: {line.path or line.options.get('id', '')}" for line in others),
            hint=f"Only this node's: pve-passthrough mapping delete {name} --here", code=Exit.REFUSED,
        )  # fmt: skip
    if here and others and not lines_of(mapping, this_node(facts)):
        raise Failure("mapping.elsewhere", f"Nothing was planned: {name} has no device on this node.", code=Exit.USAGE)
    before = mapping_text(mapping)
    after = mapping_text(replace(mapping, entries=tuple(others))) if others else None
    why = "this node's devices are offered no longer" if others else "nobody uses the mapping"
    return MappingText(name, before, after, why, mapping.kind)


def _refuse_used(facts: Facts, mapping: ResourceMapping, *, here: bool) -> None:
    gap = facts.gap("guests")
    if facts.guests is None or gap is not None:
        raise unknown(facts, "guests", f"whether a guest uses {mapping.name}")
    node = this_node(facts)
    named = [(guest, key) for guest, key in users(facts, mapping) if not here or guest.node == node]
    if named:
        raise Failure(
            "mapping.used", f"Nothing was planned: {len(named)} guests name the mapping {mapping.name}."
            if len(named) > 1 else f"Nothing was planned: a guest names the mapping {mapping.name}.",
            *(f"{guest.vmid} {guest.name} on {guest.node}: {key}" for guest, key in named),
            hint=f"Take it out first: qm set {named[0][0].vmid} --delete {named[0][1]}", code=Exit.REFUSED,
        )  # fmt: skip
