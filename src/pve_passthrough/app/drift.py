"""After a card has moved: look, plan the repair, remember anew.

1. A plan like any other: shown, run by the engine, taken back by `undo`.
2. The new places are judged as if the devices were given there for the first time; what was accepted for the old place
   is not accepted for the new one.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import replace

from .. import rules
from ..host.base import Host
from ..model.facts import Facts
from ..model.hookscript import PACKAGED
from ..model.plan import Plan
from ..model.sighting import remember
from ..model.value import dataclass
from . import Checked, hook_program, look, machine_of, now, refuse_hazards


@dataclass(frozen=True, slots=True)
class Reassigned:
    """The plan, the look that it rests on, and what it is about: (old, new) by name, and cards that are nowhere."""

    checked: Checked
    plan: Plan
    moved: tuple[tuple[str, str], ...] = ()
    gone: tuple[str, ...] = ()


def reassign(host: Host, vmid: int, words: Sequence[str] = (), *, accept: Iterable[str] = ()) -> Reassigned:
    """The plan that lets guest `vmid`'s configuration follow its cards. Raises Failure when that is not proven.

    A plan without changes that remembers something (`identities`) is worth running; one that remembers nothing is not.
    """
    facts = look(host, deep=True)
    return reassign_from(facts, vmid, words, machine=machine_of(host), accept=accept, program=hook_program(host))


def reassign_from(
    facts: Facts,
    vmid: int,
    words: Sequence[str] = (),
    *,
    machine: str,
    accept: Iterable[str] = (),
    program: str = PACKAGED,
) -> Reassigned:
    """The same from facts alone."""
    from ..planning import guard, make_plan
    from ..planning.reassign import afterwards, remembered, repair

    found = repair(facts, vmid, words)
    guarded = guard(facts, vmid, program)
    made = make_plan(
        facts,
        (*guarded.wishes, *found.wishes),
        goal=f"reassign the devices of guest {vmid}",
        vmid=vmid,
        now=now(),
        machine=machine,
    )
    then = afterwards(facts, made, found)
    places = tuple(sorted(found.moves.values()))
    judged = rules.judge(then, rules.Request(places, vmid))
    findings = tuple(one for one in judged if not one.rule.startswith("drift."))
    if found.news or made.changes:
        refuse_hazards(findings, frozenset(accept))
    guest = then.guest(vmid)
    kept = remembered(facts, guest, found) if guest is not None else ()
    made = replace(
        made,
        risks=(*made.risks, *guarded.notes),
        devices={str(device.address): device.id for device in map(facts.device, places) if device},
        identities=(*remember(facts, places), *kept) if found.news or made.changes else (),
    )
    checked = Checked(facts, places, vmid, findings, rules.verdict(findings))
    moved = tuple((str(old), str(facts.device(new) or new)) for old, new in found.moves.items() if old != new)
    return Reassigned(checked, made, moved, tuple(str(one.head) for one in found.gone))
