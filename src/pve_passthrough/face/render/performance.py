"""The table of a slow guest, for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...knowledge.performance import row
from ...model.performance import Measured, State
from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.performance import Slow

_WORDS = {
    State.SLOW: ("SLOW", "bold red"),
    State.NOTE: ("NOTE", "bold yellow"),
    State.UNKNOWN: ("UNKNOWN", "bold magenta"),
    State.GOOD: ("good", "green"),
}
EVIDENCE = 4


def slow_data(result: Slow) -> dict[str, Any]:
    """`{format, host, vmid, seconds, measured: [{measure, title, subject, state, here, should, …}]}`."""
    return {
        "format": FORMAT,
        "host": result.host,
        "vmid": result.vm.vmid,
        "seconds": result.seconds,
        "measured": [_data(one) for one in result.measured],
    }


def _data(one: Measured) -> dict[str, Any]:
    known = row(one.measure)
    return {
        "measure": one.measure,
        "title": known.title,
        "subject": one.subject,
        "state": one.state.value,
        "here": one.here or None,
        "should": one.should or None,
        "change": one.change or None,
        "commands": list(one.commands),
        "evidence": list(one.evidence),
        "reason": one.reason or None,
        "speaks_for": [point.cause for point in known.points] if one.state is State.SLOW else [],
        "means": known.means,
        "source": known.source,
    }


def slow(out: Console, result: Slow) -> None:
    """The table; below it, for each line that wants something, why and what to change."""
    from rich.table import Table
    from rich.text import Text

    counts = {state: sum(one.state is state for one in result.measured) for state in State}
    out.print(Text(f"{printable(result.vm.name)} ({result.vm.vmid}), {result.seconds:g} s: {_summary(counts)}", "bold"))
    table = Table(box=None, padding=(0, 2, 0, 0), show_edge=False)
    for heading in ("", "measure", "of", "here", "should be"):
        table.add_column(heading, overflow="fold")
    for one in result.measured:
        word, style = _WORDS[one.state]
        here = one.here or one.reason
        table.add_row(*(Text(printable(cell), style=look) for cell, look in (
            (word, style), (row(one.measure).title, ""), (_of(one.subject), "dim"), (here, ""), (one.should, "dim"),
        )))  # fmt: skip
    out.print(table)
    for one in result.measured:
        if one.state in (State.SLOW, State.NOTE) or one.commands:
            _advice(out, one)


def _of(subject: str) -> str:
    return f"guest {subject[3:]}" if subject.startswith("vm:") else subject


def _summary(counts: dict[State, int]) -> str:
    if counts[State.SLOW]:
        return f"{counts[State.SLOW]} thing{'s cost' if counts[State.SLOW] > 1 else ' costs'} speed"
    if counts[State.UNKNOWN]:
        return f"nothing that was measured costs speed; {counts[State.UNKNOWN]} could not be measured"
    return "nothing that was measured costs speed"


def _advice(out: Console, one: Measured) -> None:
    from rich.padding import Padding
    from rich.text import Text

    known = row(one.measure)
    word, style = _WORDS[one.state]
    out.print(Text.assemble("\n", (word, style), f"  {known.title}, {_of(one.subject)}: ", printable(one.here)))
    out.print(Padding(Text(known.means, style="italic"), (0, 0, 0, 2)))
    if one.reason:
        out.print(Padding(Text(printable(one.reason)), (0, 0, 0, 2)))
    for line in one.evidence[:EVIDENCE]:
        out.print(Padding(Text(printable(line), style="dim"), (0, 0, 0, 2)))
    if one.change:
        out.print(Padding(Text.assemble(("→ ", "bold cyan"), printable(one.change)), (0, 0, 0, 2)))
    for command in one.commands:
        out.print(Text(f"    {printable(command)}"), soft_wrap=True)
