"""Results as plain values: the published JSON, versioned by `format`.

These shapes are a contract with scripts, so they are written out here and not derived from internal types.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from ...app import Checked, Planned, Proof
    from ...change import Listing
    from ...model.facts import Facts
    from ...model.finding import Finding
    from ...model.pci import Address, Device
    from ...model.plan import Plan
    from ...model.run import Run

FORMAT = 1

Values = dict[str, Any]


def checked(result: Checked, next_step: str) -> Values:
    return {
        "format": FORMAT,
        "host": result.facts.host,
        "verdict": result.verdict.value,
        "devices": [str(address) for address in result.addresses],
        "vmid": result.vmid,
        "findings": [finding(one) for one in result.findings],
        "gaps": gaps(result.facts),
        "next": next_step,
    }


def finding(one: Finding) -> Values:
    fix = one.fix
    return {
        "rule": one.rule,
        "level": one.level.value,
        "subject": one.subject,
        "message": one.message,
        "evidence": list(one.evidence),
        "actor": one.actor.value,
        "fix": None if fix is None else {"text": fix.text, "safety": fix.safety.value, "commands": list(fix.commands)},
        "hazard": one.hazard,
    }


def gaps(facts: Facts) -> list[Values]:
    return [{"about": gap.about, "reason": gap.reason} for gap in facts.gaps]


def devices(facts: Facts, chosen: Iterable[Device]) -> Values:
    takes = companions(facts)
    return {
        "format": FORMAT,
        "host": facts.host,
        "devices": [device(facts, one, takes.get(one.address, ())) for one in chosen],
        "usb": [
            {
                "port": usb.port,
                "id": usb.id,
                "name": usb.name,
                "controller": None if usb.controller is None else str(usb.controller),
                "keyboard": usb.keyboard,
                "storage": usb.storage,
            }
            for usb in facts.usb
        ],
        "gaps": gaps(facts),
    }


def device(facts: Facts, one: Device, takes: Iterable[Address]) -> Values:
    link, caps = one.link, one.capabilities
    return {
        "address": str(one.address),
        "vendor": _hex(one.vendor, 4),
        "product": _hex(one.product, 4),
        "subsystem": one.subsystem,
        "class": None if one.class_code is None else f"0x{one.class_code:06x}",
        "revision": _hex(one.revision, 2),
        "name": one.name or None,
        "driver": one.driver,
        "driver_override": one.driver_override,
        "iommu_group": one.iommu_group,
        "bridge": one.bridge,
        "parent": None if one.parent is None else str(one.parent),
        "boot_vga": one.boot_vga,
        "reset_methods": None if one.reset_methods is None else list(one.reset_methods),
        "flr": None if caps is None else caps.flr,
        "power_state": one.power_state,
        "numa_node": one.numa_node,
        "link": None
        if link is None
        else {"speed": link.speed, "width": link.width, "max_speed": link.max_speed, "max_width": link.max_width},
        "bars": None
        if one.bars is None
        else [{"index": bar.index, "size": bar.size, "prefetchable": bar.prefetchable} for bar in one.bars],
        "option_rom": one.option_rom,
        "sriov": None if one.sriov_total is None else {"total": one.sriov_total, "active": one.sriov_active},
        "uses": [
            {"kind": use.kind.value, "detail": use.detail, "vital": use.vital} for use in facts.uses_of(one.address)
        ],
        "guests": claims(facts, one.address),
        "takes": [str(address) for address in takes],
    }


def claims(facts: Facts, address: Address) -> list[int]:
    """Guests whose configuration takes this function."""
    return [guest.vmid for guest in facts.guests or () if any(address in entry.addresses for entry in guest.hostpci)]


def companions(facts: Facts) -> dict[Address, tuple[Address, ...]]:
    """For each function, what else a guest start with it would take from the host (see model.blast)."""
    groups: dict[int, list[Address]] = defaultdict(list)
    for one in facts.devices:
        if one.iommu_group is not None and one.iommu_group >= 0 and not one.bridge:
            groups[one.iommu_group].append(one.address)
    return {
        address: tuple(other for other in members if other != address)
        for members in groups.values()
        for address in members
    }


def planned(result: Planned) -> Values:
    return plan(result.plan) | {"findings": [finding(one) for one in result.checked.findings]}


def plan(made: Plan) -> Values:
    from ...model.plan import binary
    from ...planning import unified

    return {
        "format": FORMAT,
        "id": made.id,
        "machine": made.machine,
        "goal": made.goal,
        "vmid": made.vmid,
        "devices": dict(made.devices),
        "usb": dict(made.usb),
        "identities": [
            {
                "address": str(one.address),
                "id": one.id,
                "subsystem": one.subsystem,
                "serial": one.serial,
                "path": one.path,
                "group": None if one.group is None else dict(one.group),
            }
            for one in made.identities
        ],
        "changes": [
            {
                "cell": str(change.cell),
                "before": binary(change.before) or change.before,
                "after": binary(change.after) or change.after,
                "why": change.why,
                "diff": unified(change),
            }
            for change in made.changes
        ],
        "refreshes": list(made.refreshes),
        "reboot": made.reboot,
        "expects": [{"cell": str(one.cell), "text": one.text, "why": one.why} for one in made.expects],
        "risks": [finding(one) for one in made.risks],
        "irreversible": list(made.irreversible),
        "way_home": list(made.way_home),
    }


def run(one: Run) -> Values:
    return {
        "format": FORMAT,
        "id": one.plan.id,
        "goal": one.plan.goal,
        "phase": one.phase.name,
        "vmid": one.plan.vmid,
        "events": [
            {"time": event.time, "event": event.kind.value, "detail": event.detail, "boot_id": event.boot_id}
            for event in one.events
        ],
    }


def history(listing: Listing) -> Values:
    return {
        "format": FORMAT,
        "runs": [run(one) for one in listing.runs],
        "unreadable": [{"ref": one.ref, "message": one.message} for one in listing.problems],
    }


def proof(result: Proof) -> Values:
    return {
        "format": FORMAT,
        "vmid": result.vm.vmid,
        "rungs": [
            {
                "level": rung.level,
                "name": rung.name,
                "outcome": rung.outcome.value,
                "message": rung.message,
                "evidence": list(rung.evidence),
                "hint": rung.hint,
            }
            for rung in result.rungs
        ],
    }


def _hex(number: int | None, digits: int) -> str | None:
    return None if number is None else f"{number:0{digits}x}"
