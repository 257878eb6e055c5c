"""Resets for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...app.resets import Cycle, Tested, Verdict
from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...knowledge.resets import ResetRow
    from ...model.facts import Facts
    from ...planning.resets import Method, Outlook

Values = dict[str, Any]
_WORDS = {
    Verdict.HOLDS: ("HOLDS", "bold green"),
    Verdict.FAILS: ("FAILS", "bold red"),
    Verdict.UNKNOWN: ("UNKNOWN", "bold magenta"),
}
_MARKS = {Verdict.HOLDS: "✓", Verdict.FAILS: "✗", Verdict.UNKNOWN: "?"}
_SHOWN = 12


# -- as data -------------------------------------------------------------------------------------


def shown_data(facts: Facts, found: Iterable[Outlook]) -> Values:
    return {"format": FORMAT, "host": facts.host, "devices": [_outlook_data(one) for one in found]}


def _outlook_data(one: Outlook) -> Values:
    return {
        "address": str(one.device.address),
        "id": one.device.id,
        "name": one.device.name or None,
        "methods": None
        if one.methods is None
        else [{"name": each.name, "order": each.order, "possible": each.possible} for each in one.methods],
        "lasting": one.lasting,
        "other_rules": list(one.foreign),
        "same_bus": [str(each.address) for each in one.siblings],
        "known": [_row_data(row) for row in one.rows],
        "at_start": list(one.at_start),
        "advice": [{"text": each.text, "command": each.command or None} for each in one.advice],
    }


def _row_data(row: ResetRow) -> Values:
    return {
        "family": row.family,
        "behaviour": row.behaviour,
        "remedy": row.remedy,
        "certain": row.certain,
        "vendor_reset": row.vendor_reset,
        "source": row.source,
    }


def tested_data(result: Tested) -> Values:
    return {
        "format": FORMAT,
        "address": str(result.device.address),
        "id": result.device.id,
        "vmid": result.vm.vmid,
        "verdict": result.verdict.value,
        "wanted": result.wanted,
        "left": result.left,
        "as_found": result.as_found,
        "cycles": [_cycle_data(one) for one in result.cycles],
    }


def _cycle_data(one: Cycle) -> Values:
    return {
        "number": one.number,
        "verdict": one.verdict.value,
        "started": one.started,
        "stopped": one.stopped,
        "answers": one.answers,
        "seconds": round(one.seconds, 1),
        "log": None if one.lines is None else list(one.lines),
        "troubles": [
            {"line": each.line, "fatal": each.row.fatal, "what": each.row.what, "remedy": each.row.remedy or None}
            for each in one.troubles
        ],
        "said": list(one.said),
    }


# -- for people ----------------------------------------------------------------------------------


def shown(out: Console, facts: Facts, found: Iterable[Outlook]) -> None:
    """One function after the other: methods, what is known, what happens at a start, what to do."""
    from rich.text import Text

    for number, one in enumerate(found):
        out.print(
            Text("" if number == 0 else "\n", end=""), Text(printable(str(one.device)), style="bold"), end="\n", sep=""
        )
        _methods(out, one)
        for row in one.rows:
            _said(out, "known", f"{row.family}: {row.behaviour}", "yellow" if not row.handled else "")
            _said(out, "", f"source: {row.source}{'' if row.certain else ' (reports of users)'}", "dim")
        if one.siblings:
            names = ", ".join(str(each.address) for each in one.siblings)
            _said(
                out,
                "same bus",
                f"{names}: the kernel resets the bus for all of them or for none",
            )
        for line in one.at_start:
            _said(out, "at start", line)
        for advice in one.advice:
            _said(out, "→", advice.text)
            if advice.command:
                _said(out, "", f"$ {advice.command}", "cyan")


def _methods(out: Console, one: Outlook) -> None:
    if one.methods is None:
        _said(out, "methods", "nobody could say which ones the kernel has", "magenta")
        return
    if not any(each.order for each in one.methods):
        _said(out, "methods", "none is on", "yellow")
    for each in one.methods:
        _said(out, _place(each), f"{each.name}: {each.meaning}", "" if each.order else "dim")
    if one.lasting is not None:
        _said(out, "chosen", f"{one.lasting}, by our rule, at every boot")
    for rule in one.foreign:
        _said(out, "also", f"another rule chooses too: {rule}", "yellow")


def _place(each: Method) -> str:
    if each.order is not None:
        return f"{each.order}."
    return "off" if each.possible else "off?"


def _said(out: Console, label: str, text: str, style: str = "") -> None:
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_column(width=10, no_wrap=True)
    row.add_column(ratio=1)
    row.add_row(Text(f"  {label}", style="dim"), Text(printable(text), style=style))
    out.print(row)


def cycle_line(one: Cycle, wanted: int) -> str:
    """One line of progress."""
    parts = [_did(one.started, "started", "did not start"), _did(one.stopped, "stopped", "did not stop")]
    parts.append(_did(one.answers, "answers", "DOES NOT ANSWER", "could not be read"))
    log = (
        "the kernel's log could not be read"
        if one.lines is None
        else f"{len(one.lines)} new line(s) in the kernel's log"
    )
    said = ", ".join(parts if one.started else [parts[0], parts[2]])
    return f"{_MARKS[one.verdict]} cycle {one.number} of {wanted}: {said}, {log}, {one.seconds:.0f} s"


def _did(state: bool | None, yes: str, no: str, unknown: str = "gave no answer in time") -> str:
    return unknown if state is None else (yes if state else no)


def tested(out: Console, result: Tested) -> None:
    """The verdict, the lines that prove it, and what to do next."""
    from rich.text import Text

    word, style = _WORDS[result.verdict]
    out.print(Text.assemble((word, style), f"  {printable(str(result.device))} in guest {result.vm.vmid}"))
    for one in result.cycles:
        out.print(Text(cycle_line(one, result.wanted)))
        for trouble in one.troubles:
            _said(
                out,
                "!" if trouble.row.fatal else "·",
                f"{trouble.row.what}: {trouble.line}",
                "red" if trouble.row.fatal else "",
            )
        for line in one.said:
            _said(out, "said", line, "dim")
        explained = {trouble.line for trouble in one.troubles}
        others = [line for line in one.lines or () if line not in explained]
        for line in others[:_SHOWN]:
            _said(out, "log", line, "dim")
        if len(others) > _SHOWN:
            _said(out, "log", f"… and {len(others) - _SHOWN} more (--output-format json has them all)", "dim")
    left = "as it was found" if result.as_found else "NOT as it was found"
    out.print(Text(f"The guest is {result.left}, {left}.", style="" if result.as_found else "bold red"))
    for text in _next(result):
        out.print(Text.assemble(("→ ", "bold cyan"), printable(text)))


def _next(result: Tested) -> list[str]:
    if result.verdict is Verdict.HOLDS:
        return []
    remedies = [each.row.remedy for one in result.cycles for each in one.troubles if each.row.remedy]
    if result.verdict is Verdict.UNKNOWN:
        return ["Nobody could say all of it: run it on the machine itself, as root."]
    return [*dict.fromkeys(remedies), f"pve-passthrough reset show {result.device.address}"]
