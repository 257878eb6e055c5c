"""Resource mappings: the text that a mapping shall have, made from the hardware of this node.

1. Pure. What Proxmox compares at a guest's start is written down as it compares it, or nothing is planned
   (`knowledge.mappings`).
2. Lines of other nodes are never touched: what they have cannot be seen from here.
3. A card of several functions is one line, with a path that names no function: Proxmox compares the ID with every path
   of a line, so that picture and sound as `…00.0;…00.1` never fit (recorded row `rec-two` of 8.4 and 9.2).
4. Several lines of one node are a pool: a guest's start takes the first free one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from ..errors import Exit, Failure
from ..knowledge.mappings import Hardware, State, describe, hardware_of, judge_mapping, real_properties
from ..model.facts import Facts, MapEntry, ResourceMapping
from ..model.mappings import KINDS, NAME, find, flag, lines_of, mapping_text, parse_mapping, with_mapping
from ..model.pci import Address, Device
from ..model.plan import Cell, Change
from ..model.usb import UsbDevice
from ..model.wish import MappingText, Wish
from .goals import changeable_cluster, refuse_vital, unknown


def mapping_of(
    facts: Facts,
    kind: str,
    name: str,
    devices: Sequence[Device | UsbDevice | Address],
    *,
    mdev: bool = False,
    description: str = "",
    live_migration: bool = False,
    by_port: bool = True,
) -> MappingText:
    """The mapping `name` (made, or extended by lines of this node) that offers these devices. Raises Failure.

    Each virtual function, each function beside others of its own kind and each other card is a line of its own.
    `by_port`: a USB device is the one in this socket, not any with its number. Nothing to change: before == text.
    """
    changeable_cluster(facts)
    before = changeable_mapping(facts, kind, name)
    if not devices:
        raise Failure("device.none", "Nothing was planned: no device was named.", code=Exit.USAGE)
    node = this_node(facts)
    wanted = _usb_lines(facts, node, devices, by_port) if kind == "usb" else _pci_lines(facts, node, devices)
    made = _extended(before or ResourceMapping(kind, name, ()), wanted, node)
    if kind == "usb":
        _refuse_several(made, node)
    made = _with_options(before, made, mdev=mdev, description=description, live_migration=live_migration)
    old = None if before is None else mapping_text(before)
    return MappingText(name, old, mapping_text(made), _why(made, wanted, before), kind)


def changes(wishes: Iterable[Wish]) -> tuple[Change, ...]:
    """The mappings' own changes."""
    return tuple(
        Change(Cell("mapping", f"{wish.kind}/{wish.name}"), wish.before, wish.text, wish.why)
        for wish in wishes
        if isinstance(wish, MappingText) and wish.before != wish.text
    )


def with_wish(facts: Facts, wish: MappingText) -> Facts:
    """The facts as they will be when the mapping has this text."""
    made = parse_mapping(wish.kind, wish.name, wish.text)
    if made is None:
        rest = (one for one in facts.mappings if (one.kind, one.name) != (wish.kind, wish.name))
        return replace(facts, mappings=tuple(rest))
    return replace(facts, mappings=with_mapping(facts.mappings, made))


# -- what may be changed --------------------------------------------------------------------------


def this_node(facts: Facts) -> str:
    if facts.pve.node is None:
        raise unknown(facts, "pve.node", "which node this is")
    return facts.pve.node


def changeable_mapping(facts: Facts, kind: str, name: str) -> ResourceMapping | None:
    """The mapping as it is, None when there is none. Raises Failure for a name or a file that cannot be used.

    Proxmox writes the whole file anew with each change and drops what it could not read, so a file with a broken part
    is left alone (pve-common, SectionConfig.pm: what is ignored when reading is not written back).
    """
    if kind not in KINDS:
        raise ValueError(f"no kind of mapping: {kind!r}")
    if NAME.fullmatch(name) is None:
        raise Failure(
            "mapping.name", f"Nothing was planned: {name!r} cannot be the name of a mapping.",
            hint="A letter first, then at least one of letters, digits, _ and -: for example gpu-1.", code=Exit.USAGE,
        )  # fmt: skip
    gap = facts.gap(f"mappings.{kind}") or facts.gap("mappings")
    if gap is not None:
        raise Failure(
            "mapping.unread", f"Nothing was planned: /etc/pve/mapping/{kind}.cfg could not be read to its end, and "
            "Proxmox drops what it cannot read with the next change of the file.",
            f"{gap.about}: {gap.reason}", hint=f"Mend it first: pvesh get /cluster/mapping/{kind}", code=Exit.REFUSED,
        )  # fmt: skip
    other = next((one for one in facts.mappings if one.name == name and one.kind != kind), None)
    found = find(facts.mappings, kind, name)
    if found is None and other is not None:
        raise Failure(
            "mapping.kind", f"Nothing was planned: {name} is the name of a {other.kind.upper()} mapping already.",
            hint="Take another name: in a guest's configuration nobody could tell them apart.", code=Exit.USAGE,
        )  # fmt: skip
    return found


def existing(facts: Facts, name: str) -> ResourceMapping:
    """The mapping with this name, of either kind. Raises Failure."""
    found = [one for one in facts.mappings if one.name == name]
    if not found:
        gaps = [gap for gap in facts.gaps if gap.about.startswith("mappings.")]
        raise Failure(
            "mapping.missing", f"Nothing was done: there is no mapping {name!r}"
            + (", as far as could be read." if gaps else "."),
            *(f"{gap.about}: {gap.reason}" for gap in gaps),
            *(f"{one.kind}: {one.name}" for one in facts.mappings[:20]),
            hint="`pve-passthrough mapping list` shows all; `pve-passthrough mapping create --help`.", code=Exit.USAGE,
        )  # fmt: skip
    if len(found) > 1:
        raise Failure(
            "mapping.kind", f"Nothing was done: a PCI and a USB mapping are both called {name}.",
            hint=f"Take one of them away: pvesh delete /cluster/mapping/usb/{name}", code=Exit.USAGE,
        )  # fmt: skip
    return found[0]


# -- lines ----------------------------------------------------------------------------------------


def _pci_lines(facts: Facts, node: str, devices: Sequence[Device | UsbDevice | Address]) -> tuple[MapEntry, ...]:
    """One line for each card or function, in the order in which they were named."""
    present = [_device(facts, one) for one in devices]
    refuse_vital(facts, [one.address for one in present])
    hardware = hardware_of(facts)
    lines: dict[str, MapEntry] = {}
    for device in present:
        beside = [one for one in present if one.address.slot == device.address.slot]
        if _alternatives(beside):
            lines[str(device.address)] = pci_line(facts, hardware, node, str(device.address), device)
        elif device.address.slot not in lines:
            lines[device.address.slot] = _whole(facts, hardware, node, beside)
    return tuple(lines.values())


def _device(facts: Facts, one: Device | UsbDevice | Address) -> Device:
    if isinstance(one, UsbDevice):
        raise ValueError(f"{one.port} is no PCI device")
    found = facts.device(one.address if isinstance(one, Device) else one)
    if found is None:
        raise Failure("device.unknown", f"Nothing was planned: {one} is not on this machine.", code=Exit.USAGE)
    if found.bridge:
        raise Failure("device.bridge", f"Nothing was planned: {found} is a bridge, and bridges stay with the host.",
                      code=Exit.USAGE)  # fmt: skip
    return found


def _alternatives(beside: Sequence[Device]) -> bool:
    """Functions that stand for themselves: a single one, virtual ones, and ports of one kind (a card with four equal
    network ports is four devices, not one)."""
    virtual = any(one.physical_function is not None for one in beside)
    return len(beside) == 1 or virtual or len({(one.id, one.class_code) for one in beside}) == 1


def _whole(facts: Facts, hardware: Hardware, node: str, beside: Sequence[Device]) -> MapEntry:
    """The line of a whole card. Raises Failure when only some of its functions were named."""
    slot = beside[0].address.slot
    every = [one for one in facts.devices if one.address.slot == slot and not one.bridge]
    missing = [one for one in every if one not in beside]
    head = next((one for one in beside if one.address.function == 0), None)
    if missing or head is None:
        raise Failure(
            "mapping.part", f"Nothing was planned: {len(beside)} of the {len(every)} functions at {slot} cannot be one "
            "mapping: a mapping offers one function, or a whole card.",
            *(f"left out: {one}" for one in missing),
            hint=f"Name the whole card, {slot}, or one function for each mapping.", code=Exit.REFUSED,
        )  # fmt: skip
    return pci_line(facts, hardware, node, slot, head)


def pci_line(facts: Facts, hardware: Hardware, node: str, path: str, device: Device) -> MapEntry:
    """A line with everything that Proxmox compares. Raises Failure for what nobody could tell."""
    if facts.iommu.on is False or not hardware.grouped:
        raise Failure(
            "mapping.no-iommu", "Nothing was planned: the IOMMU is off, so the group that the mapping must name is "
            "not known yet.",
            f"{device}: no IOMMU group", hint="Switch it on first (`pve-passthrough check` says how), restart, and "
            "make the mapping then.", code=Exit.BLOCKED,
        )  # fmt: skip
    options: dict[str, str] = {}
    for name, real in real_properties(hardware, device).items():
        if real is None:
            raise unknown(facts, f"pci.{device.address}", f"the {name} of {device}")
        if real:
            options[name] = real
    return MapEntry(node, path, options)


def _usb_lines(
    facts: Facts, node: str, devices: Sequence[Device | UsbDevice | Address], by_port: bool
) -> tuple[MapEntry, ...]:
    lines = []
    for one in devices:
        if not isinstance(one, UsbDevice):
            raise ValueError(f"{one} is no USB device")
        if "?" in one.id:
            raise unknown(facts, "usb.devices", f"the number of the USB device at {one.port}")
        twins = [other.port for other in facts.usb if other.id == one.id]
        if not by_port and len(twins) > 1:
            raise Failure(
                "mapping.ambiguous-usb", f"Nothing was planned: {len(twins)} devices {one.id} are plugged in, and "
                "Proxmox takes the first that it finds.", *twins,
                hint="Name the socket: " + ", ".join(twins), code=Exit.USAGE,
            )  # fmt: skip
        lines.append(MapEntry(node, one.port if by_port else "", {"id": one.id}))
    return tuple(lines)


def _refuse_several(made: ResourceMapping, node: str) -> None:
    """Source: recorded rows `usbmap` of 8.4 and 9.2: "More than one USB mapping per host not supported"."""
    lines = lines_of(made, node)
    if len(lines) > 1:
        raise Failure(
            "mapping.usb-several", f"Nothing was planned: the USB mapping {made.name} would have {len(lines)} devices "
            "on this node, and Proxmox takes one.",
            *(f"{line.path or line.options.get('id', '')}" for line in lines),
            hint="Make a mapping for each USB device.", code=Exit.REFUSED,
        )  # fmt: skip


def _extended(mapping: ResourceMapping, wanted: Sequence[MapEntry], node: str) -> ResourceMapping:
    """The mapping with these lines: a line of this node with the same path gets the present numbers and keeps the
    rest, a new one goes to the end."""
    lines = list(mapping.entries)
    for new in wanted:
        same = next((n for n, old in enumerate(lines) if old.node == node and _same_place(old, new)), None)
        if same is None:
            lines.append(new)
            continue
        kept = {key: text for key, text in lines[same].options.items() if key == "description"}
        lines[same] = replace(new, options={**new.options, **kept})
    return replace(mapping, entries=tuple(lines))


def _same_place(old: MapEntry, new: MapEntry) -> bool:
    return old.path == new.path and (bool(new.path) or old.options.get("id") == new.options.get("id"))


def _with_options(
    before: ResourceMapping | None, made: ResourceMapping, *, mdev: bool, description: str, live_migration: bool
) -> ResourceMapping:
    """A mapping's own properties. What it offers must not change under the guests of other nodes."""
    if before is not None and mdev and not flag(before, "mdev"):
        raise Failure(
            "mapping.mdev", f"Nothing was planned: the mapping {before.name} is there and is not for mediated devices.",
            hint="Take another name.", code=Exit.REFUSED,
        )  # fmt: skip
    options = dict(made.options)
    if description:
        options["description"] = _one_line(description)
    if mdev:
        options["mdev"] = "1"
    if live_migration and made.kind == "pci":
        options["live-migration-capable"] = "1"
    return replace(made, options=options)


def _one_line(text: str) -> str:
    """A property of a section file is one line (pve-common, SectionConfig.pm)."""
    if len(text) > 4096 or any(ord(one) < 32 for one in text) or text != text.strip():
        raise Failure(
            "mapping.description", "Nothing was planned: a mapping's description is one line of at most 4096 letters.",
            code=Exit.USAGE,
        )  # fmt: skip
    return text


def _why(made: ResourceMapping, wanted: Sequence[MapEntry], before: ResourceMapping | None) -> str:
    what = ", ".join(line.path or line.options["id"] for line in wanted)
    verb = "the mapping offers" if before is None else "the mapping also offers"
    several = " (a start takes the first free one)" if len(lines_of(made, wanted[0].node)) > 1 else ""
    return f"{verb} {what} on {wanted[0].node}{several}"


# -- giving by mapping ----------------------------------------------------------------------------


def through(facts: Facts, name: str, addresses: Sequence[Address]) -> MappingText:
    """The mapping through which a guest gets these functions: as it is, or made, or with a line for this node.

    Raises Failure when this node's line offers something else, or when one entry of a guest cannot hold them all.
    """
    slots = {address.slot for address in addresses}
    if len(slots) > 1:
        raise Failure(
            "mapping.several", f"Nothing was planned: {len(slots)} cards cannot be one entry of a guest.",
            *(str(facts.device(address) or address) for address in addresses),
            hint="Make a mapping for each: pve-passthrough mapping create NAME DEVICE; then name the mappings.",
            code=Exit.USAGE,
        )  # fmt: skip
    made = mapping_of(facts, "pci", name, addresses)
    found = find(facts.mappings, "pci", name)
    here = lines_of(found, this_node(facts)) if found else ()
    after = with_wish(facts, made)
    lines = [one for one in judge_mapping(hardware_of(after), _named(after, name)) if one.state is not State.ELSEWHERE]
    if len({line.line.path for line in lines}) > 1 or len(lines) > max(len(here), 1):
        raise Failure(
            "mapping.taken", f"Nothing was planned: the mapping {name} offers other devices on this node.",
            *(f"{line.node}: {line.path}" for line in here),
            hint="Take another name; or name the mapping itself as the device, so that a start takes any of it: "
            f"pve-passthrough plan {name} --vm ID", code=Exit.USAGE,
        )  # fmt: skip
    wrong = next((one for one in lines if one.wrong), None)
    if wrong is not None:
        raise stale(name, describe(wrong))
    return made


def _named(facts: Facts, name: str) -> ResourceMapping:
    found = find(facts.mappings, "pci", name)
    assert found is not None
    return found


def stale(name: str, why: str) -> Failure:
    return Failure(
        "mapping.stale", f"Nothing was planned: the mapping {name} {why}, so no guest starts with it.",
        hint=f"pve-passthrough mapping repair {name}", code=Exit.REFUSED,
    )  # fmt: skip
