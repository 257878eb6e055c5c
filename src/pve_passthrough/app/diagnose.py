"""diagnose: gathering what there is to read, and asking what it speaks for.

1. Materials are files, folders, archives, standard input, or the host itself; any of them alone is enough.
2. How files and archives are read, `materials` knows; what is too large or odd is a doubt.
3. What the host and the guest can show is gathered by `evidence`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from itertools import chain
from typing import TYPE_CHECKING

from ..diagnosis import Material
from ..diagnosis.filtering import filtered, now_only
from ..errors import Exit, Failure
from ..host.base import Host
from ..model.diagnosis import UNKNOWN, Diagnosis, Observation, Point
from ..model.value import dataclass
from .evidence import LAST_BOOT
from .materials import is_capture, materials
from .next_change import NextChange, next_change, next_look
from .pasted import files_beside, tree_in, understood

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.finding import Finding


@dataclass(frozen=True, slots=True)
class Asked:
    """What was read and what it speaks for. `facts` None: only files were read. `remarks`: what is known besides, such
    as when the guest last started."""

    diagnosis: Diagnosis
    facts: Facts | None
    vmid: int | None
    remarks: tuple[str, ...] = ()
    nexts: tuple[NextChange, ...] = ()
    """For each candidate, in order."""


def ask(
    host: Host | None,
    logs: Sequence[str] = (),
    vmid: int | None = None,
    symptom: str = "",
    pasted: bytes = b"",
    seen: str = "",
) -> Asked:
    """Diagnose from files and folders (`logs`, `-` is standard input), from pasted text, and from the host unless it is
    None. `seen`: one of the words of `knowledge.symptom_words`. Raises Failure for a file that cannot be opened."""
    doubts: list[str] = []
    host, logs = _recorded(host, logs, doubts)
    named = materials(logs, doubts)
    if pasted:
        named = chain(named, (Material("standard input", (pasted,)),))
    facts: Facts | None = None
    live: Sequence[Material] = ()
    remarks: tuple[str, ...] = ()
    noticed: tuple[Observation, ...] = ()
    if host is not None:
        from . import look
        from .evidence import gather

        facts = look(host, deep=True, inventory=True)
        _known(facts, vmid)
        gathered = gather(host, facts, vmid, complained=bool(symptom or seen))
        noticed = gathered.noticed
        live = gathered.materials
        doubts += gathered.doubts
        remarks = gathered.remarks
    slow, told = _slow(host, vmid, seen)
    found = understood(
        named, symptom, facts=facts, vmid=vmid, doubts=doubts, live=live,
        also=(*noticed, *slow),
    )  # fmt: skip
    if live:
        found = replace(found, candidates=now_only(found.candidates, LAST_BOOT))
    if seen:
        found = replace(found, candidates=filtered(found.candidates, _word(seen)))
    findings = _findings(facts, vmid)
    nexts = tuple(
        next_look(found.read, facts, vmid) if one.cause == UNKNOWN else next_change(one, facts, vmid, findings)
        for one in found.candidates
    )
    return Asked(found, facts, vmid, (*remarks, *told), nexts)


def _findings(facts: Facts | None, vmid: int | None) -> tuple[Finding, ...]:
    """What the rules say of a host, and of a guest with its devices."""
    if facts is None:
        return ()
    from .. import rules

    guest = facts.guest(vmid) if vmid is not None else None
    addresses = tuple(address for entry in guest.hostpci for address in entry.addresses) if guest is not None else ()
    return rules.judge(facts, rules.Request(addresses, vmid))


def _recorded(host: Host | None, logs: Sequence[str], doubts: list[str]) -> tuple[Host | None, tuple[str, ...]]:
    """A capture among the files, or a folder that holds a machine's tree, is looked at as the machine that it is,
    unless there is one already."""
    from . import open_host

    others: list[str] = []
    for path in logs:
        tree = tree_in(path)
        if tree and host is None:
            host = open_host(f"root:{tree}")
            others += () if tree == path else files_beside(path)
        elif not is_capture(path):
            others.append(path)
        elif host is not None:
            doubts.append(f"{path}: a recorded machine, and another one is looked at; diagnose --host capture:{path}")
        else:
            host = open_host(f"capture:{path}")
    return host, tuple(others)


def _known(facts: Facts, vmid: int | None) -> None:
    """A guest that is not there is a slip of the keyboard, unless nobody could list the guests."""
    if vmid is not None and facts.guests is not None and facts.guest(vmid) is None:
        there = ", ".join(str(one.vmid) for one in facts.guests) or "none"
        raise Failure(
            "guest.missing", f"Nothing was diagnosed: there is no guest {vmid} on this node.", f"Guests here: {there}",
            code=Exit.USAGE,
        )  # fmt: skip


def _word(seen: str) -> Observation:
    """What a person sees, as faint points."""
    from ..knowledge.symptom_words import WORDS, points

    given = tuple(Point(*point) for point in points(seen))
    return Observation(f"seen.{seen}", f"What you see: {WORDS[seen].says}.", f"--for {seen}", "", given)


def _slow(host: Host | None, vmid: int | None, seen: str) -> tuple[tuple[Observation, ...], tuple[str, ...]]:
    """What was measured of a guest that is slow, and a remark about it."""
    if host is None or vmid is None or seen != "slow":
        return (), ()
    from .performance import measure

    measured = measure(host, vmid)
    return measured.observations, (measured.remark,) if measured.remark else ()
