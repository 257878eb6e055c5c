"""A diagnosis as data and for people: ranked causes, the lines that prove them, and the one thing to do next.

1. Evidence comes before advice, and every line with the place where it stands.
2. Nothing read is trusted: each word of a log, a guest or a file passes `printable` and stays on one line.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rich.console import Console
from rich.text import Text

from ...app.diagnose import Asked
from ...app.next_change import NextChange
from ...knowledge.causes import cause
from ...model.diagnosis import NO_FAULT, UNKNOWN, Candidate, Observation
from ..printable import printable

SHOWN = 3
"""Causes that people are shown; JSON has all."""
LINES = 4
HARMLESS = 6
FAINT = 0.03
"""A cause with less confidence than this is not worth a person's time."""
PLACE = 56
"""Letters of a source; of a longer path the end is kept."""


# -- data ----------------------------------------------------------------------------------------


def diagnosed_data(asked: Asked) -> dict[str, Any]:
    """`{format, causes: [{cause, confidence, evidence, against, explains, next}], harmless, remarks, read, doubts}`."""
    found = asked.diagnosis
    pairs = zip(found.candidates, asked.nexts, strict=True)
    return {
        "format": 1,
        "causes": [_candidate_data(one, step) for one, step in pairs],
        "harmless": [evidence(one) for one in found.harmless],
        "remarks": list(asked.remarks),
        "read": {name: kind.value for name, kind in found.read.items()},
        "doubts": list(found.doubts),
    }


def _candidate_data(one: Candidate, step: NextChange) -> dict[str, Any]:
    row = cause(one.cause)
    return {
        "cause": one.cause,
        "title": row.title if row else one.cause,
        "confidence": round(one.confidence, 3),
        "evidence": [evidence(seen) for seen in one.supporting],
        "against": [evidence(seen) for seen in one.contradicting],
        "explains": [evidence(seen) for seen in one.explains],
        "next": {
            "confirm": step.confirm,
            "change": step.change,
            "commands": list(step.commands),
            "helped": step.helped,
            "meanwhile": step.keep,
        },
    }


def evidence(one: Observation) -> dict[str, Any]:
    return {
        "sign": one.sign,
        "says": one.says,
        "source": one.source,
        "line": one.line,
        "text": one.text,
        "device": one.device or None,
        "count": one.count,
    }


# -- people --------------------------------------------------------------------------------------


def diagnosed(out: Console, asked: Asked) -> None:
    """The likeliest cause in full, the others in short."""
    found = asked.diagnosis
    first = found.first
    _headline(out, first)
    _remarks(out, asked.remarks)
    _block(out, "what speaks for it", first.supporting, LINES)
    _block(out, "what speaks against it", first.contradicting, LINES)
    _block(out, "its consequences, no causes of their own", first.explains, LINES)
    if asked.nexts:
        _advice(out, asked.nexts[0], "next: " if first.cause in _MARKS else "change one thing: ")
    _others(out, asked)
    _harmless(out, found.harmless)
    _doubts(out, found.doubts)


_MARKS = {NO_FAULT: ("✓", "bold green"), UNKNOWN: ("?", "bold magenta")}


def _headline(out: Console, one: Candidate) -> None:
    row = cause(one.cause)
    mark, style = _MARKS.get(one.cause, ("✗", "bold red"))
    title = row.title if row else one.cause
    _marked(out, mark, style, Text.assemble((title[:1].upper() + title[1:], "bold"), (f"  {_share(one)}", "dim")))
    if row:
        indented(out, Text(row.means), 2)


def _share(one: Candidate) -> str:
    if one.cause == UNKNOWN:
        return one.cause
    return f"{one.cause}, {min(one.confidence, 0.99):.0%} sure"


def _marked(out: Console, mark: str, style: str, body: Text) -> None:
    """A sign at the margin, and words that stay right of it when they wrap."""
    for number, line in enumerate(body.wrap(out, max(out.width - 2, 20))):
        line.rstrip()
        lead = "  " if number else f"{mark} "
        out.print(Text(lead, style="" if number else style).append_text(line), soft_wrap=True)


def indented(out: Console, body: Text, left: int) -> None:
    """Wrapped, and right of the margin on every line."""
    for line in body.wrap(out, max(out.width - left, 20)):
        line.rstrip()
        out.print(Text(" " * left).append_text(line), soft_wrap=True)


def _heading(out: Console, words: str, style: str = "bold") -> None:
    out.print()
    indented(out, Text(words, style=style), 2)


def _remarks(out: Console, remarks: Iterable[str]) -> None:
    for remark in remarks:
        indented(out, Text(printable(remark), style="dim"), 2)


def _block(out: Console, title: str, seen: Sequence[Observation], most: int) -> None:
    if not seen:
        return
    _heading(out, title)
    for one in seen[:most]:
        _observation(out, one)
    if len(seen) > most:
        indented(out, Text(f"and {len(seen) - most} more; --output-format json lists them", style="dim"), 4)


def _observation(out: Console, one: Observation) -> None:
    """Where, the words themselves, what they mean."""
    indented(out, Text(place(one), style="cyan"), 4)
    if one.text:
        indented(out, Text(printable(one.text)), 6)
    indented(out, Text(f"= {one.says}", style="italic"), 6)


def place(one: Observation) -> str:
    """Source, line, and how often."""
    source = printable(one.source)
    source = source if len(source) <= PLACE else "…" + source[1 - PLACE :]
    times = f", {one.count} times" if one.count > 1 else ""
    return source + (f", line {one.line}" if one.line is not None else "") + times


def _advice(out: Console, step: NextChange, lead: str) -> None:
    if step.change:
        out.print()
        _marked(out, "→", "bold cyan", Text.assemble((lead, "bold cyan"), step.change))
    for command in step.commands:
        indented(out, Text(f"$ {printable(command)}", style="bold"), 4)
    for name, words in (("make sure", step.confirm), ("it helped if", step.helped), ("meanwhile", step.keep)):
        if words:
            indented(out, Text.assemble((f"{name}: ", "cyan"), printable(words)), 2)


def _others(out: Console, asked: Asked) -> None:
    """What comes next should the first not be it, with its strongest line."""
    others = asked.diagnosis.candidates[1:]
    worth = [one for one in others if one.confidence >= FAINT and one.cause != UNKNOWN and one.supporting]
    if not worth:
        return
    out.print(Text("\nless likely", style="bold"))
    for one in worth[: SHOWN - 1]:
        row = cause(one.cause)
        indented(out, Text.assemble(row.title if row else one.cause, (f"  {_share(one)}", "dim")), 2)
        _observation(out, one.supporting[0])


def _harmless(out: Console, seen: Sequence[Observation]) -> None:
    if not seen:
        return
    out.print(Text("\nharmless, whatever it looks like", style="bold green"))
    firsts = {one.sign: one for one in reversed(seen)}
    kinds = [firsts[sign] for sign in dict.fromkeys(one.sign for one in seen)]
    for one in kinds[:HARMLESS]:
        _observation(out, one)
    if len(kinds) > HARMLESS:
        indented(out, Text(f"and {len(kinds) - HARMLESS} more; --output-format json lists them", style="dim"), 4)


def _doubts(out: Console, doubts: Sequence[str]) -> None:
    if doubts:
        out.print(Text("\nnot read", style="bold magenta"))
    for doubt in doubts:
        indented(out, Text(printable(doubt), style="dim"), 2)


# -- watching ------------------------------------------------------------------------------------


def noticed(out: Console, one: Observation) -> None:
    """A sign while it comes."""
    mark, style = ("·", "green") if one.harmless else ("!", "bold yellow")
    _marked(out, mark, style, Text.assemble((f"{place(one)}: ", "dim"), printable(one.text)))
    indented(out, Text(f"= {one.says}", style="italic"), 4)


def remark(out: Console, words: str) -> None:
    """What becomes of the start."""
    out.print(Text(f"– {printable(words)}", style="dim"))
