"""Resource mappings for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...app.mappings import Listed, Shown
from ...knowledge.mappings import Judged, State
from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...planning.grants import Recipe

Values = dict[str, Any]
_MARKS = {
    State.FINE: ("✓", "green"),
    State.STALE: ("✗", "bold red"),
    State.LIES: ("✗", "bold red"),
    State.ABSENT: ("✗", "bold red"),
    State.UNKNOWN: ("?", "magenta"),
    State.ELSEWHERE: ("·", "dim"),
}


# -- as data -------------------------------------------------------------------------------------


def listed_data(found: Listed) -> Values:
    return {
        "format": FORMAT,
        "host": found.facts.host,
        "node": found.facts.pve.node,
        "mappings": [_shown_data(one) for one in found.mappings],
        "unread": list(found.unread),
    }


def _shown_data(one: Shown) -> Values:
    return {
        "name": one.mapping.name,
        "kind": one.mapping.kind,
        "state": one.state.value,
        "fault": one.fault or None,
        "options": dict(one.mapping.options),
        "lines": [_line_data(line) for line in one.lines],
        "users": None
        if one.users is None
        else [{"vmid": guest.vmid, "name": guest.name, "node": guest.node, "key": key} for guest, key in one.users],
    }


def _line_data(one: Judged) -> Values:
    return {
        "node": one.line.node,
        "path": one.line.path or None,
        "options": dict(one.line.options),
        "state": one.state.value,
        "device": one.device or None,
        "differences": [{"name": each.name, "said": each.said, "real": each.real} for each in one.differences],
        "reason": one.reason or None,
    }


def recipe_data(recipe: Recipe) -> Values:
    return {
        "format": FORMAT,
        "who": recipe.who,
        "rights": [
            {"right": one.name, "path": one.path, "role": one.role, "why": one.why, "source": one.source}
            for one in recipe.rights
        ],
        "commands": list(recipe.commands),
        "check": recipe.check,
        "notes": list(recipe.notes),
    }


# -- for people ----------------------------------------------------------------------------------


def listed(out: Console, found: Listed) -> None:
    if not found.mappings and not found.unread:
        out.print("No mappings.")
        out.print("Next: pve-passthrough mapping create NAME DEVICE", style="dim")
        return
    for one in found.mappings:
        _shown(out, one)
    for line in found.unread:
        out.print(f"? could not be read: {printable(line)}", style="magenta", markup=False, highlight=False)
    wrong = next((one for one in found.mappings if one.state in (State.STALE, State.LIES, State.ABSENT)), None)
    if wrong is not None:
        out.print(f"Next: pve-passthrough mapping repair {wrong.mapping.name}", style="dim", highlight=False)


def _shown(out: Console, one: Shown) -> None:
    options = ", ".join(f"{key} {value}" for key, value in sorted(one.mapping.options.items()))
    head = f"{one.mapping.name}  ({one.mapping.kind.upper()}{'; ' + options if options else ''})"
    out.print(printable(head), style="bold", markup=False, highlight=False)
    for line in one.lines:
        mark, style = _MARKS[line.state]
        place = line.line.path or line.line.options.get("id", "")
        out.print(f"  {mark} {line.line.node}: {printable(place)}  {_says(line)}", style=style, markup=False,
                  highlight=False)  # fmt: skip
    if one.fault and not any(line.wrong for line in one.lines):
        out.print(f"  ✗ {printable(one.fault)}", style="bold red", markup=False, highlight=False)
    out.print(f"    {_used(one)}", style="dim", markup=False, highlight=False)


def _says(one: Judged) -> str:
    if one.state is State.FINE:
        return printable(one.device)
    if one.state is State.ABSENT:
        return "nothing is there now" if not one.reason else printable(one.reason)
    if one.differences:
        told = "; ".join(str(each) for each in one.differences)
        lying = "ANOTHER DEVICE is there now" if one.state is State.LIES else "the device has changed"
        return printable(f"{lying}: {told} ({one.device})")
    return printable(one.reason)


def _used(one: Shown) -> str:
    if one.users is None:
        return "used by: nobody could say"
    if not one.users:
        return "used by no guest"
    named = (f"{guest.vmid} {printable(guest.name)} on {guest.node} ({key})" for guest, key in one.users)
    return "used by " + ", ".join(named)


def recipe(out: Console, found: Recipe) -> None:
    out.print(f"What {printable(found.who)} needs, and no more:", style="bold", markup=False, highlight=False)
    for one in found.rights:
        out.print(f"  {one.name} on {printable(one.path)}: {one.why}", markup=False, highlight=False)
    out.print("As root@pam, on any node (a role that is there already is no harm):", style="bold")
    for command in found.commands:
        out.print(f"  {printable(command)}", markup=False, highlight=False, soft_wrap=True)
    out.print(f"Then look: {printable(found.check)}", markup=False, highlight=False)
    for note in found.notes:
        out.print(f"Note: {printable(note)}", style="dim", markup=False, highlight=False)
