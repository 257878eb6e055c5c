"""A guest's life beyond its start, for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...planning.lifecycle import Answer, Works
from ..printable import printable
from .data import FORMAT, finding

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.lifecycle import Shown

Values = dict[str, Any]
_WORDS = {
    Works.YES: ("yes", "green"),
    Works.PARTLY: ("partly", "yellow"),
    Works.NO: ("no", "bold red"),
    Works.UNKNOWN: ("unknown", "magenta"),
    Works.NONE: ("–", "dim"),
}
_NAMES = {
    "backup": "backup",
    "snapshot": "snapshot",
    "memory-snapshot": "snapshot with memory",
    "rollback": "rollback",
    "pause": "pause",
    "hibernate": "hibernate",
    "replication": "replication",
    "offline-migration": "migration, stopped",
    "live-migration": "migration, running",
    "ha": "high availability",
    "host-shutdown": "host shutdown",
    "clone": "clone",
}


# -- as data -------------------------------------------------------------------------------------


def shown_data(result: Shown) -> Values:
    return {
        "format": FORMAT,
        "host": result.facts.host,
        "vmid": result.vm.vmid,
        "name": result.vm.config.get("name"),
        "node": result.vm.node,
        "running": result.vm.running,
        "versions": {"pve_manager": result.facts.pve.version, "qemu_server": result.facts.pve.qemu_server},
        "operations": [_answer(one) for one in result.answers],
        "findings": [finding(one) for one in result.findings],
    }


def _answer(one: Answer) -> Values:
    return {
        "operation": one.row.operation,
        "works": one.works.value,
        "why": one.why,
        "evidence": list(one.evidence),
        "set": [{"text": each.text, "command": each.command or None} for each in one.advice],
        "behaviour": one.row.what,
        "since": one.row.since or None,
        "source": one.row.source,
    }


# -- for people ----------------------------------------------------------------------------------


def shown(out: Console, result: Shown) -> None:
    """One table, then what to set, each with its command."""
    from rich.table import Table
    from rich.text import Text

    vm, pve = result.vm, result.facts.pve
    state = {True: "running", False: "stopped", None: "whether it runs is unknown"}[vm.running]
    version = f"Proxmox VE {pve.version}" if pve.version else "Proxmox VE of unknown version"
    out.print(Text(printable(f"{vm.name} ({vm.vmid}) on {vm.node}, {state}, {version}"), style="bold"))
    if not result.answers:
        out.print(Text("It takes no device of its host: nothing here is different from any other guest."))
        return
    table = Table(box=None, pad_edge=False, show_header=False, padding=(0, 2, 0, 0))
    table.add_column(no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(ratio=1)
    for one in result.answers:
        word, style = _WORDS[one.works]
        why = Text(printable(one.why))
        for line in one.evidence:
            why.append(f"\n{printable(line)}", style="dim")
        table.add_row(Text(_NAMES[one.row.operation]), Text(word, style=style), why)
    out.print(table)
    _advice(out, result)


def _advice(out: Console, result: Shown) -> None:
    """What to set, once each, and what the rules say that no operation shows: the hookscript, the start at boot."""
    from rich.text import Text

    told = [(one.row.operation, each) for one in result.answers for each in one.advice]
    extra = [
        one for one in result.findings if one.rule.startswith(("lifecycle.hook", "guests.onboot", "drift.guarded"))
    ]
    if not told and not extra:
        return
    out.print(Text("\nTo set", style="bold"))
    seen: set[str] = set()
    for operation, each in told:
        if each.command and each.command in seen:
            continue
        seen.add(each.command)
        out.print(Text.assemble((f"  {_NAMES[operation]}: ", "dim"), printable(each.text)))
        if each.command:
            out.print(Text(f"    $ {printable(each.command)}", style="cyan"))
    for one in extra:
        out.print(Text.assemble(("  start: ", "dim"), printable(one.message)))
        for command in one.fix.commands if one.fix else ():
            out.print(Text(f"    $ {printable(command)}", style="cyan"))
