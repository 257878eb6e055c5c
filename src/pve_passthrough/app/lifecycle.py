"""A guest's life beyond its start: what works with its devices, and the few settings that are the guest's own.

1. `show` only looks. Jobs, HA and storages are never changed; their commands are part of the answers.
2. `onboot` is set only after the guest was seen running with its devices: a start that takes the host's network or
   disk away at every boot cannot be mended from afar.
3. The guard is put in place as part of a run, so that `undo` takes it away again, and the devices are remembered as
   they are then.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host
from ..model.value import dataclass
from . import NEVER, hazards, hook_program, judge, look, look_closely, machine_of, now, refusal

if TYPE_CHECKING:
    from ..guest import Rung
    from ..model.facts import Facts
    from ..model.finding import Finding
    from ..model.plan import Plan
    from ..model.vm import Vm
    from ..model.wish import Wish
    from ..planning.lifecycle import Answer


@dataclass(frozen=True, slots=True)
class Shown:
    """What works for one guest, and what the rules say about its life."""

    facts: Facts
    vm: Vm
    answers: tuple[Answer, ...]
    findings: tuple[Finding, ...]


FAMILIES = ("lifecycle.", "guests.backup", "guests.ha", "guests.snapshots", "guests.onboot", "drift.guarded")
"""Rules that speak about what `show` shows."""


def show(host: Host, vmid: int) -> Shown:
    """Every operation for this guest, on this version. Raises Failure for a guest that nobody knows."""
    from ..planning.lifecycle import outlook

    facts = look_closely(host, vmid)
    vm = _known(facts, vmid)
    findings = judge(facts, (), vmid).findings
    return Shown(facts, vm, outlook(facts, vm), tuple(one for one in findings if one.rule.startswith(FAMILIES)))


def _known(facts: Facts, vmid: int) -> Vm:
    vm = facts.guest(vmid)
    if vm is not None:
        return vm
    gap = facts.gap("guests")
    if facts.guests is None or gap is not None:
        raise Failure(
            "guest.unknown", f"Nothing was looked at: whether there is a guest {vmid} is unknown.",
            f"guests: {gap.reason if gap else 'not answered'}",
            hint="Run it on the machine itself, as root.", code=Exit.COULD_NOT,
        )  # fmt: skip
    raise Failure(
        "guest.missing", f"Nothing was looked at: there is no guest {vmid}.",
        hint="qm list shows the guests of a node.", code=Exit.USAGE,
    )  # fmt: skip


# -- what a plan sets -----------------------------------------------------------------------------


def plan(host: Host, vmid: int, *, onboot: bool | None = None, startup: str | None = None, guard: bool = False) -> Plan:
    """The plan for the guest's own settings. Raises Failure for what cannot be wished for."""
    from ..model.sighting import remember
    from ..planning import changeable_guest, make_plan
    from ..planning import guard as guarded
    from ..planning.lifecycle import start_at_boot, start_order

    facts = look(host, deep=True)
    vm = changeable_guest(facts, vmid)
    wishes: list[Wish] = []
    if onboot is not None:
        wishes += start_at_boot(vm, onboot)
        if onboot and wishes:
            _refuse_unproven(host, facts, vm)
    if startup is not None:
        wishes += start_order(vm, startup)
    if guard:
        _refuse_unguardable(facts, vm)
        made = guarded(facts, vmid, hook_program(host))
        if made.notes:
            raise _no_guard(made.notes[0])
        wishes = [*made.wishes, *wishes]
    planned = make_plan(
        facts, wishes, goal=_goal(vmid, onboot, startup, guard), vmid=vmid, now=now(), machine=machine_of(host)
    )
    given = tuple(address for entry in vm.hostpci for address in entry.addresses) if guard else ()
    present = [device for device in map(facts.device, given) if device is not None]
    return replace(
        planned,
        devices={str(device.address): device.id for device in present},
        identities=remember(facts, given),
    )


def _goal(vmid: int, onboot: bool | None, startup: str | None, guard: bool) -> str:
    parts = ["guard the starts"] if guard else []
    parts += [] if onboot is None else ["start at boot" if onboot else "do not start at boot"]
    parts += [] if startup is None else [f"start order {startup}"]
    return f"{', '.join(parts)} of guest {vmid}"


def _no_guard(note: Finding) -> Failure:
    fix = note.fix
    return Failure(
        "lifecycle.no-guard", "Nothing was planned: no guard can stand before the guest's starts.", *note.evidence,
        hint=" ".join((fix.text, *fix.commands)) if fix else "pve-passthrough check --vm looks when it is called.",
        code=Exit.REFUSED,
    )  # fmt: skip


def _refuse_unguardable(facts: Facts, vm: Vm) -> None:
    """A guard would stand before devices that the host cannot spare, or that are not what was given: say so now."""
    from ..knowledge.lifecycle import has_devices

    if not has_devices(vm):
        raise Failure(
            "lifecycle.no-devices", f"Nothing was planned: {vm.name} ({vm.vmid}) has no device of the host to guard.",
            hint=f"Give it one: pve-passthrough up DEVICE --vm {vm.vmid}", code=Exit.USAGE,
        )  # fmt: skip
    findings = judge(facts, (), vm.vmid).findings
    never = [one for one in hazards(findings, frozenset()) if one.hazard == NEVER]
    if never:
        raise refusal(tuple(never))
    from .hooks import refuse

    refuse(facts, vm)


def _refuse_unproven(host: Host, facts: Facts, vm: Vm) -> None:
    """`onboot` only for a guest that runs now, with every device bound to it."""
    from ..guest import AGENT_PATIENCE, Outcome, climb

    if not vm.hostpci:
        return
    rungs: Sequence[Rung] = climb(host, facts, vm, top=2, start=False, patience=AGENT_PATIENCE)
    wrong = [rung for rung in rungs if rung.outcome is not Outcome.PASSED]
    if wrong or vm.running is not True:
        raise Failure(
            "lifecycle.not-seen-to-work",
            f"Nothing was planned: {vm.name} ({vm.vmid}) was not seen running with its devices, and a start at boot "
            "that goes wrong cannot be mended from afar.",
            *(f"L{rung.level} {rung.name}: {rung.outcome.value}: {rung.message}" for rung in wrong),
            hint=f"pve-passthrough verify --vm {vm.vmid}, then again while it runs.", code=Exit.REFUSED,
        )  # fmt: skip
