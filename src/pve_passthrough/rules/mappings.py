"""Rules about the cluster's resource mappings, whoever uses them.

1. Of this node's lines only; what another node has cannot be seen from here.
2. Whether a guest starts with its mapping is said by `guests.mapping`; here the mapping itself is the subject.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..knowledge.mappings import Judged, State, describe, hardware_of, judge_mapping
from ..model.facts import Facts, ResourceMapping
from ..model.finding import Actor, Finding, Level
from ..model.mappings import lines_of, users
from ..model.pci import Address
from ..model.vm import Vm, expand_host
from .subject import Request, ask, guests, is_local, names, show


def _asked(facts: Facts, request: Request) -> Iterator[ResourceMapping]:
    """Mappings in question: those that offer a device asked for, or that the guest asked for names; else all."""
    if request == Request() or not facts.mappings:
        yield from facts.mappings
        return
    known = [device.address for device in facts.devices]
    for mapping in facts.mappings:
        offered = {a for line in lines_of(mapping, facts.pve.node) for a in expand_host(line.path, known)}
        if offered & set(request.addresses) or any(guest.vmid == request.vmid for guest, _ in users(facts, mapping)):
            yield mapping


def _told(facts: Facts, request: Request, mapping: ResourceMapping) -> bool:
    """Whether `guests.mapping` says it already: the guest asked for names this PCI mapping."""
    return mapping.kind == "pci" and any(guest.vmid == request.vmid for guest, _ in users(facts, mapping))


def _here(facts: Facts, mapping: ResourceMapping) -> tuple[Judged, ...]:
    judged = judge_mapping(hardware_of(facts), mapping)
    return tuple(one for one in judged if one.state is not State.ELSEWHERE)


def _local_users(facts: Facts, mapping: ResourceMapping) -> tuple[str, ...]:
    local = (guest for guest, _ in users(facts, mapping) if is_local(facts, guest))
    return tuple(dict.fromkeys(f"{guest.name} ({guest.vmid})" for guest in local))


def _place(mapping: ResourceMapping, one: Judged) -> str:
    what = one.line.path or one.line.options.get("id", "")
    return f"/etc/pve/mapping/{mapping.kind}.cfg: {mapping.name}: {one.line.node}: {what}"


def _evidence(mapping: ResourceMapping, one: Judged) -> tuple[str, ...]:
    place = _place(mapping, one)
    return tuple(f"{place}: {difference}" for difference in one.differences) or (place,)


def stale(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the numbers in this node's mappings still right?

    Why: At start Proxmox compares id, subsystem-id and iommugroup of every line of its node with the hardware, letter
        by letter, and one wrong line of a pool is enough: "PCI device mapping invalid (hardware probably changed)".
        New firmware, another kernel and another slot renumber groups and addresses.
    Look at: `pve-passthrough mapping check`; /etc/pve/mapping/pci.cfg, usb.cfg.
    Fix: `pve-passthrough mapping repair NAME` writes the present numbers, where it is certain that it is the device.
    Source: pve-guest-common, PVE/Mapping/PCI.pm and USB.pm, assert_valid; recorded exchanges with Proxmox VE 8.4, 9.2.
    """
    for mapping in _asked(facts, request):
        for one in _here(facts, mapping):
            if one.state in (State.STALE, State.ABSENT) and not _told(facts, request, mapping):
                used = _local_users(facts, mapping)
                yield Finding(
                    "mappings.stale",
                    Level.HARMS if used else Level.NOTE,
                    f"mapping:{mapping.name}",
                    f"The mapping {mapping.name} {describe(one)}"
                    + (f", so {names(used)} cannot start." if used else ", and nobody uses it."),
                    _evidence(mapping, one),
                    Actor.US if one.state is State.STALE else Actor.NOBODY,
                    ask("Write the present numbers.", f"pve-passthrough mapping repair {mapping.name}"),
                )


def lies(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a mapping name a place where another device sits now?

    Why: A mapping names a slot. When another card sits there now, writing its numbers into the mapping would give it to
        every guest that was meant to get the first one. Proxmox refuses the start, and that is right.
    Look at: `pve-passthrough mapping check NAME`, `lspci -nn`.
    Fix: If the card has moved: `pve-passthrough reassign --vm VMID`, or `mapping repair NAME OLD=NEW`. If it was
        replaced: make the mapping anew.
    Source: pve-guest-common, PVE/Mapping/PCI.pm, assert_valid: "'id' does not match".
    """
    for mapping in _asked(facts, request):
        for one in _here(facts, mapping):
            if one.state is State.LIES:
                yield Finding(
                    "mappings.lies",
                    Level.HARMS,
                    f"mapping:{mapping.name}",
                    f"The mapping {mapping.name} {describe(one)}.",
                    _evidence(mapping, one),
                    Actor.NOBODY,
                    show(
                        "Say where the device is now, or make the mapping anew.",
                        f"pve-passthrough mapping repair {mapping.name} OLD=NEW",
                    ),
                )


def other_node(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the guest start wherever high availability may put it?

    Why: HA restarts a guest on another node when its own fails. Where the mapping has no line for that node the start
        fails: "PCI device mapping not found". Only that node can say what it has.
    Look at: `ha-manager config`; the `map` lines in /etc/pve/mapping.
    Fix: On each such node: `pve-passthrough mapping add NAME DEVICE`; or keep the guest away from it with an HA rule.
    Source: Proxmox VE administration guide, Resource Mapping; High Availability; recorded rows `mapstart`.
    """
    for guest in guests(facts, request):
        if not guest.ha_managed:
            continue
        for mapping, key in _of_guest(facts, guest):
            lacking = sorted(set(facts.pve.nodes or ()) - {line.node for line in mapping.entries})
            if lacking:
                yield Finding(
                    "mappings.other-node",
                    Level.HARMS,
                    f"vm:{guest.vmid}",
                    f"{guest.name} ({guest.vmid}) is managed by HA, and its mapping {mapping.name} has no device on "
                    f"{names(lacking)}: it would not start there.",
                    (f"{key}: {guest.value(key) or ''}", *(f"map: node={line.node}" for line in mapping.entries)),
                    Actor.NOBODY,
                    show(
                        f"On {names(lacking)}: add a line, or keep the guest away from there with an HA rule.",
                        f"pve-passthrough mapping add {mapping.name} DEVICE",
                    ),
                )


def _of_guest(facts: Facts, guest: Vm) -> Iterator[tuple[ResourceMapping, str]]:
    for mapping in facts.mappings:
        for user, key in users(facts, mapping):
            if user.vmid == guest.vmid:
                yield mapping, key


def pool_mixed(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the members of a pool alike, and can they run in two guests at once?

    Why: Each start takes the first free member. Of different products the guest's driver finds another device each
        time. Members that share an IOMMU group go to one guest together: a second guest cannot start while the first
        runs.
    Look at: `pve-passthrough mapping list`, `pve-passthrough devices --tree`.
    Fix: A pool for each product; for a shared group another slot, or one guest for all of them.
    Source: qemu-server PCI.pm, parse_hostpci; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    for mapping in _asked(facts, request):
        lines = lines_of(mapping, facts.pve.node)
        if mapping.kind != "pci" or len(lines) < 2:
            continue
        ids = sorted({line.options.get("id", "") for line in lines})
        if len(ids) > 1:
            yield _mixed(
                mapping,
                f"holds different products: {names(ids)}",
                [f"{line.path}: id={line.options.get('id', '')}" for line in lines],
            )
        for group, paths in _shared_groups(facts, mapping).items():
            message = f"has {names(paths)} in one IOMMU group ({group}), so only one guest can run with them"
            yield _mixed(mapping, message, [f"{path}: iommugroup={group}" for path in paths])


def _mixed(mapping: ResourceMapping, message: str, evidence: Iterable[str]) -> Finding:
    return Finding(
        "mappings.pool-mixed", Level.HARMS, f"mapping:{mapping.name}", f"The pool {mapping.name} {message}.",
        tuple(evidence), Actor.NOBODY, show("Make a pool of members that are alike and lie in groups of their own."),
    )  # fmt: skip


def _shared_groups(facts: Facts, mapping: ResourceMapping) -> dict[int, list[str]]:
    """Groups that members of several lines lie in, and those lines' paths."""
    known = [device.address for device in facts.devices]
    found: dict[int, list[str]] = {}
    for path in dict.fromkeys(line.path for line in lines_of(mapping, facts.pve.node)):
        for group in sorted({_group(facts, address) for address in expand_host(path, known)} - {-1}):
            found.setdefault(group, []).append(path)
    return {group: paths for group, paths in found.items() if len(paths) > 1}


def _group(facts: Facts, address: Address) -> int:
    device = facts.device(address)
    return -1 if device is None or device.iommu_group is None else device.iommu_group


def ambiguous_usb(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a USB mapping name exactly one device?

    Why: A line without a socket takes the first device with that number, and two sticks of one kind are told apart by
        nothing. More than one line for a node starts no guest: "More than one USB mapping per host not supported".
    Look at: /etc/pve/mapping/usb.cfg, `lsusb`.
    Fix: Name the socket: make the mapping anew with `pve-passthrough mapping create NAME --usb BUS-PORT`.
    Source: pve-guest-common, PVE/Mapping/USB.pm; recorded rows `usbmap` of Proxmox VE 8.4 and 9.2.
    """
    for mapping in _asked(facts, request):
        lines = lines_of(mapping, facts.pve.node) if mapping.kind == "usb" else ()
        if len(lines) > 1 and facts.pve.node is not None:
            message = f"has {len(lines)} devices for this node, and no guest starts with it"
            places = [f"/etc/pve/mapping/usb.cfg: {line.path or line.options.get('id', '')}" for line in lines]
            yield _unclear(facts, mapping, message, places)
            continue
        for line in lines:
            twins = [one for one in facts.usb if not line.path and one.id == line.options.get("id")]
            if len(twins) > 1:
                message = f"fits {len(twins)} devices that are plugged in, and the first one found is taken"
                yield _unclear(facts, mapping, message, [f"{one.port}: {one.name or one.id}" for one in twins])


def _unclear(facts: Facts, mapping: ResourceMapping, message: str, evidence: Iterable[str]) -> Finding:
    return Finding(
        "mappings.ambiguous-usb",
        Level.HARMS if _local_users(facts, mapping) else Level.NOTE,
        f"mapping:{mapping.name}",
        f"The USB mapping {mapping.name} {message}.",
        tuple(evidence),
        Actor.NOBODY,
        show(
            "Make it anew with the socket.",
            f"pve-passthrough mapping delete {mapping.name}",
            f"pve-passthrough mapping create {mapping.name} --usb BUS-PORT",
        ),
    )


def unused(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a mapping there that no guest names?

    Why: Nothing is wrong with it. Whoever may use it can give its device to a guest of theirs, and who looks for a free
        device takes it for given away.
    Look at: `pve-passthrough mapping list`.
    Fix: `pve-passthrough mapping delete NAME`, when nobody is meant to use it.
    Source: Proxmox VE administration guide, Resource Mapping.
    """
    if facts.guests is None or facts.gap("guests") or request != Request():
        return
    for mapping in facts.mappings:
        if not users(facts, mapping) and lines_of(mapping, facts.pve.node):
            yield Finding(
                "mappings.unused", Level.NOTE, f"mapping:{mapping.name}",
                f"No guest names the {mapping.kind.upper()} mapping {mapping.name}.",
                (f"/etc/pve/mapping/{mapping.kind}.cfg: {mapping.name}",), Actor.NOBODY,
                show("If nobody is meant to use it, take it away.", f"pve-passthrough mapping delete {mapping.name}"),
            )  # fmt: skip
