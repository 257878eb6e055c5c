"""From "it does not work" to the cause, with the lines that prove it.

1. Pure: materials (names and bytes) and facts in, a `Diagnosis` out. Nothing here reads the machine.
2. Every statement keeps the source and the line that it rests on.
3. A material that nobody understands is a doubt, never an error.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..model.diagnosis import NO_FAULT, Diagnosis, Kind, Observation, Point
from ..model.facts import Facts
from ..model.value import dataclass
from .bridge import judged, remembered
from .builds import faulty
from .files import Paper, Sifted, settings
from .files import stated as stands_for
from .kinds import kind_of, no_text
from .layout import HEAD
from .lines import decode
from .machines import weighed
from .ranking import rank
from .reader import KEEP, read_text
from .stream import scan
from .versions import Version, agreed, fitting, of_facts
from .words import cards, heard, spoken, statements, talk

__all__ = ["Material", "diagnose"]

HINT = 0.25
"""What counts of a line in a listing when nobody complains."""
ZEROS = 1 << 26
"""So many zeros may stand before a text: a crash leaves them where the file was to grow."""
TROUBLE = 4.0
"""Points from which a single line is a complaint of its own."""


@dataclass(frozen=True, slots=True)
class Material:
    """One text by name. `chunks` are its bytes, read once."""

    name: str
    chunks: Iterable[bytes]
    live: bool = False
    """It comes from the machine that the facts are about."""


def diagnose(
    materials: Iterable[Material],
    symptom: str = "",
    *,
    facts: Facts | None = None,
    vmid: int | None = None,
    doubts: Sequence[str] = (),
    also: Sequence[Observation] = (),
    pasted: Callable[[Sequence[Paper]], tuple[Facts | None, Mapping[str, Paper]]] | None = None,
) -> Diagnosis:
    """What all materials together, and what is known of the machine, speak for.

    `doubts`: what the caller could not read; it may grow while the materials are read. `also`: what the caller noticed
    itself. `pasted`: makes of papers what they say about a machine, and tells which of them each path is from.
    """
    noticed: list[Observation] = [*also, *scan([symptom.encode()], "symptom")]
    speech, scene = [("symptom", symptom)], [""]
    unread: list[str] = []
    read: dict[str, Kind] = {}
    papers: list[Paper] = []
    machines: dict[str, Sequence[tuple[str, int]]] = {}
    versions: list[Version] = []
    for material in materials:
        head, chunks = _head(material.chunks)
        kind = read[material.name] = kind_of(material.name, head)
        if kind is Kind.BINARY:
            unread.append(f"{material.name}: {no_text(head)}")
        elif kind is Kind.STATEMENTS:
            stated = statements(decode(b"".join(chunks)[:KEEP]))
            words = spoken(stated)
            noticed += remembered(stated, material.name)
            papers += stands_for(stated, material.name)
            speech.append((material.name, words))
            noticed += scan([words.encode()], material.name)
        else:
            kept = Sifted(kind)
            text = read_text(material.name, kind, kept.passing(chunks))
            papers += () if material.live else kept.papers(material.name, text.parts)
            read |= text.kinds
            speech += [(material.name, talk(text.said))] if text.said.strip() else []
            scene += [cards(text.listings)] if text.listings else []
            noticed += text.observations
            machines[material.name] = text.machines
            versions += () if text.side == "guest" else text.versions
    noticed, left = _weighed(noticed, machines, versions, facts)
    unread += left
    words_said = heard(speech, "\n\n".join(scene))
    asked = bool(symptom.strip()) or vmid is not None or any(one.points for one in words_said)
    noticed = [*(noticed if asked else (_state(one, read) for one in noticed)), *words_said]
    noticed += faulty(speech, noticed, versions if facts is None else [*versions, *of_facts(facts)])
    asked = asked or any(_trouble(one) for one in noticed)
    mentioned = [one.device for one in noticed if one.device and one.points]
    suspected = frozenset(point.cause for one in noticed for point in one.points if point.weight >= 1)
    if facts is not None:
        noticed += judged(facts, asked, vmid, None, mentioned, suspected)
    if pasted is not None and (asked or settings(papers)):
        shown, origins = pasted(papers)
        noticed += () if shown is None else judged(shown, asked, None, origins, mentioned, suspected)
    return Diagnosis(rank(noticed), tuple(one for one in noticed if one.harmless), read, (*doubts, *unread))


def _weighed(
    noticed: Sequence[Observation],
    machines: Mapping[str, Sequence[tuple[str, int]]],
    versions: Sequence[Version],
    facts: Facts | None,
) -> tuple[list[Observation], list[str]]:
    """What was noticed, by whose machine and which versions it is of; and what counts less because of that."""
    known = agreed(versions if facts is None else [*versions, *of_facts(facts)])
    fit, misfits = fitting(noticed, known)
    own, strangers = weighed(fit, machines, (facts.pve.node or "") if facts is not None else "")
    return own, [*misfits, *strangers]


def _state(one: Observation, read: Mapping[str, Kind]) -> Observation:
    """What a listing shows is a state, and nobody complained of it: a hint, no more (a laptop's card that is switched
    off answers nothing but ones, and should)."""
    if read.get(one.source) not in (Kind.LSPCI, Kind.IOMMU_LISTING, Kind.LSUSB):
        return one
    return replace(one, points=tuple(Point(point.cause, point.weight * HINT) for point in one.points))


def _trouble(one: Observation) -> bool:
    """Whether somebody complains: a person's words, or a line that all but names a cause. Faint hints stand in the logs
    of machines that work."""
    return any(point.weight >= TROUBLE for point in one.points if point.cause != NO_FAULT)


def _head(chunks: Iterable[bytes]) -> tuple[bytes, Iterator[bytes]]:
    """The first bytes, and all of them again."""
    iterator = iter(chunks)
    held, dropped = b"", 0
    for chunk in iterator:
        held += chunk
        if len(held) >= HEAD:
            if dropped > ZEROS or held.strip(b"\0"):
                break
            held, dropped = b"", dropped + len(held)
    if not held[:HEAD].strip(b"\0"):
        held = held.lstrip(b"\0") or held

    def everything() -> Iterator[bytes]:
        yield held
        yield from iterator

    return held[:HEAD], everything()
