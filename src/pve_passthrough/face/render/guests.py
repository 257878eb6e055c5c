"""A new guest for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING, Any

from ...planning.new_guest import command, grow_command, remove_command
from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.guests import Made
    from ...planning.guest_wanted import NewGuest

UNDO = "undo does not remove a guest, for somebody's data may lie on its disk by then."


def data(new: NewGuest, made: Made | None) -> dict[str, Any]:
    """`made` None: nothing was made."""
    return {
        "format": FORMAT,
        "vmid": new.vmid,
        "node": new.node,
        "profile": new.profile,
        "options": dict(new.options),
        "commands": [list(command(new)), *([list(grow_command(new))] if new.grow else [])],
        "notes": list(new.notes),
        "made": made is not None,
        "differences": list(made.differences) if made is not None else [],
        "remove": remove_command(new.vmid),
    }


def planned(out: Console, new: NewGuest) -> None:
    """The guest that would be made, option by option, and the commands that make it."""
    from rich.table import Table
    from rich.text import Text

    out.print(Text.assemble(("NEW GUEST  ", "bold"), f"{new.vmid} on {new.node}, for {new.profile}"))
    table = Table.grid(padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True, style="cyan")
    table.add_column(ratio=1, overflow="fold")
    for key, text in new.options.items():
        table.add_row(f"  {key}", Text(printable(_shown(key, text))))
    out.print(table)
    for note in new.notes:
        _item(out, note)
    for argv in (command(new), grow_command(new)):
        if argv:
            out.print(Text(f"$ {printable(shlex.join(argv))}", style="dim"), soft_wrap=True)


def _item(out: Console, note: str) -> None:
    from rich.table import Table
    from rich.text import Text

    table = Table.grid(padding=0)
    table.add_column(width=2, no_wrap=True)
    table.add_column(ratio=1)
    table.add_row(Text("·", style="cyan"), Text(printable(note)))
    out.print(table)


def _shown(key: str, text: str) -> str:
    return f"{text[:40]}…" if key == "sshkeys" and len(text) > 48 else text


def made(out: Console, one: Made) -> None:
    from rich.text import Text

    vmid = one.new.vmid
    if one.differences:
        out.print(Text(f"Guest {vmid} was made, but not every option is stored as wanted:", style="bold yellow"))
        for line in one.differences:
            out.print(Text(f"  {printable(line)}"))
    else:
        out.print(Text(f"Guest {vmid} was made; every option is stored as wanted.", style="green"))
    out.print(Text(f"To remove it, its disks included: {remove_command(vmid)}\n  {UNDO}", style="dim"))
