"""Containers and their device nodes for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.containers import Checked, Holder, Listed, Shared
    from ...model.facts import Facts

Values = dict[str, Any]


# -- as data -------------------------------------------------------------------------------------


def listed_data(found: Listed) -> Values:
    cts = found.facts.own_containers
    return {
        "format": FORMAT,
        "host": found.facts.host,
        "nodes": [_shared_data(found.facts, one) for one in found.nodes],
        "absent": [{"ct": ct.number, "entry": one.key, "path": one.path} for ct, one in found.absent],
        "containers": None
        if cts is None
        else [
            {"ct": ct.number, "name": ct.name, "running": ct.running, "unprivileged": ct.unprivileged,
             "devices": [{"entry": one.key, "path": one.path, "gid": one.gid, "uid": one.uid, "mode": one.mode or None,
                          "deny_write": one.deny_write} for one in ct.devices],
             "raw": [*(one.line for one in ct.allows), *(one.line for one in ct.mounts), *ct.idmaps]}
            for ct in cts
        ],
    }  # fmt: skip


def _shared_data(facts: Facts, one: Shared) -> Values:
    node, device = one.node, facts.device(one.node.address) if one.node.address else None
    return {
        "path": node.path,
        "number": node.number,
        "mode": None if node.mode is None else f"{node.mode:04o}",
        "uid": node.uid,
        "gid": node.gid,
        "owner": node.owner or None,
        "group": node.group or None,
        "address": None if node.address is None else str(node.address),
        "usb_port": node.port or None,
        "device": _behind(facts, one) or None,
        "driver": None if device is None or node.port else device.driver,
        "links": list(node.links),
        "containers": [
            {"ct": held.ct.number, "name": held.ct.name, "entry": held.entry, "raw": held.raw} for held in one.holders
        ],
    }


def checked_data(result: Checked) -> Values:
    return {
        "format": FORMAT,
        "ct": result.ct.number,
        "name": result.ct.name,
        "running": result.ct.running,
        "rungs": [
            {
                "level": rung.level,
                "name": rung.name,
                "outcome": rung.outcome.value,
                "message": rung.message,
                "evidence": list(rung.evidence),
                "hint": rung.hint or None,
            }
            for rung in result.rungs
        ],
    }


# -- for people ----------------------------------------------------------------------------------


def _behind(facts: Facts, one: Shared) -> str:
    node = one.node
    usb = next((each for each in facts.usb if node.port and each.port == node.port), None)
    if usb is not None:
        return f"{usb.name} at usb:{usb.port}"
    device = facts.device(node.address) if node.address else None
    return str(device) if device is not None else (f"usb:{node.port}" if node.port else "")


def listed(out: Console, found: Listed) -> None:
    """One block for each node: what it is, its name that lasts, who has it."""
    from rich.text import Text

    if not found.nodes:
        out.print("This host has no device node that containers share: no driver of a card is loaded.")
    for one in found.nodes:
        _block(out, found.facts, one)
    for ct, entry in found.absent:
        line = f"✗ {ct.name} ({ct.number}) {entry.key}: {entry.path} is not there: it does not start."
        out.print(Text(printable(line), style="bold red"))
    cts = found.facts.own_containers
    if cts is None:
        out.print(Text("Which containers there are could not be read.", style="magenta"))
    elif found.nodes:
        number = cts[0].number if cts else "ID"
        out.print(Text.assemble(("→ ", "bold cyan"), f"pve-passthrough lxc add DEVICE --ct {number}"))


def _block(out: Console, facts: Facts, one: Shared) -> None:
    from rich.text import Text

    node = one.node
    device = facts.device(node.address) if node.address and not node.port else None
    access = f"{node.mode:04o} {node.owner}:{node.group}" if node.mode is not None else "owner and mode unknown"
    out.print(Text.assemble((printable(node.path), "bold"), (f"  {printable(access)}", "dim")))
    behind = _behind(facts, one)
    if behind:
        _said(out, "of", behind + (f", driver {device.driver}" if device is not None and device.driver else ""))
    for link in node.links:
        _said(out, "also", link, "dim")
    for held in one.holders:
        _said(out, "in", _holder(held), "yellow" if held.raw else "green")


def _holder(held: Holder) -> str:
    state = {True: "runs", False: "stopped", None: "state unknown"}[held.ct.running]
    return f"{held.ct.name} ({held.ct.number}, {state}): {held.entry}"


def _said(out: Console, label: str, text: str, style: str = "") -> None:
    from rich.table import Table
    from rich.text import Text

    row = Table.grid(padding=(0, 1))
    row.add_column(width=7, no_wrap=True)
    row.add_column(ratio=1, overflow="fold")
    row.add_row(Text(f"  {label}", style="dim"), Text(printable(text), style=style))
    out.print(row)


def checked(out: Console, result: Checked) -> None:
    from .text import rungs

    rungs(out, result.rungs)
