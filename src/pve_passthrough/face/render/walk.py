"""The guided walk as data and for people: which steps are fine, where it stands, the one try to make now."""

from __future__ import annotations

from typing import Any

from rich.console import Console
from rich.text import Text

from ...app.walk import Judged, Step, Try, Walk
from ..printable import printable
from .diagnosis import indented

_MARKS = {Judged.FINE: ("✓", "green"), Judged.WRONG: ("✗", "bold red"), Judged.OPEN: ("?", "bold magenta")}
LINES = 6


def walk_data(result: Walk) -> dict[str, Any]:
    """`{format, vmid, steps: [{step, title, judged, shows, tries}], tried, now, helped, remembered}`."""
    return {
        "format": 1,
        "vmid": result.vmid,
        "steps": [_step_data(one) for one in result.steps],
        "tried": [{"try": one.name, "answer": one.answer.value, "when": one.when} for one in result.tried],
        "now": {"step": result.here.name, **_try_data(result.now)} if result.here and result.now else None,
        "helped": result.helped.name if result.helped else None,
        "remembered": result.remembered,
    }


def _step_data(step: Step) -> dict[str, Any]:
    return {
        "step": step.name,
        "title": step.title,
        "judged": step.judged.value,
        "shows": list(step.shows),
        "tries": [_try_data(one) for one in step.tries],
    }


def _try_data(one: Try) -> dict[str, Any]:
    return {
        "try": one.name,
        "change": one.change,
        "commands": list(one.commands),
        "back": list(one.back),
        "helped": one.helped,
    }


def walked(out: Console, result: Walk, *, asking: bool = False) -> None:
    """Every step up to the one where the walk stands, then the try."""
    made = {one.name: one.answer.value for one in result.tried}
    for number, step in enumerate(result.steps, 1):
        mark, style = _MARKS[step.judged]
        out.print(Text.assemble((f"{mark} ", style), (f"{number}. {step.title}", "bold")))
        for line in step.shows[:LINES] if step.judged is not Judged.FINE or step is result.here else step.shows[:2]:
            indented(out, Text(printable(line), style="dim"), 5)
        for one in step.tries:
            if one.name in made:
                indented(out, Text(f"tried: {printable(one.change)} – {made[one.name]}", style="cyan"), 5)
        if step is result.here:
            break
    _ending(out, result, asking)


def _ending(out: Console, result: Walk, asking: bool) -> None:
    if result.helped is not None:
        out.print(Text(f"\n✓ This was it: {printable(result.helped.name)} ({printable(result.helped.when)}).",
                       style="bold green"))  # fmt: skip
        indented(out, Text(f"{result.program} diagnose --walk --vm {result.vmid} --anew begins again."), 2)
        return
    if result.now is None:
        out.print(Text("\n? Everything that this walk knows was tried, or is fine.", style="bold magenta"))
        indented(out, Text(f"{result.program} capture --logs records what there is, to be looked at by others."), 2)
        return
    out.print(Text.assemble(("\n→ try one thing: ", "bold cyan"), printable(result.now.change)))
    for command in result.now.commands:
        indented(out, Text(f"$ {printable(command)}", style="bold"), 4)
    if result.now.helped:
        indented(out, Text.assemble(("it helped if: ", "cyan"), printable(result.now.helped)), 2)
    for command in result.now.back:
        indented(out, Text.assemble(("put back if not: ", "cyan"), f"$ {printable(command)}"), 2)
    if not result.remembered:
        indented(out, Text("Nothing is remembered: this host can only be looked at.", style="dim"), 2)
    elif not asking:
        again = f"{result.program} diagnose --walk --vm {result.vmid} --answer helped|no|skip"
        indented(out, Text.assemble(("then: ", "cyan"), again), 2)
