"""Shares of devices for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...app.vgpus import CouldShare, Listing, Setup, Shared, Step, owner
from ...model.mediated import MDEV
from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from rich.console import Console

    from ...model.mediated import MediatedType

Values = dict[str, Any]
_WAYS = {MDEV: "mediated devices", "vf": "virtual functions of NVIDIA's driver"}
_MARKS = {True: "✓", False: "✗", None: "?"}


# -- as data -------------------------------------------------------------------------------------


def listing_data(found: Listing) -> Values:
    return {
        "format": FORMAT,
        "host": found.facts.host,
        "shared": [_shared_data(one) for one in found.shared],
        "not_shared": [_other_data(one) for one in found.others],
    }


def _shared_data(one: Shared) -> Values:
    return {
        "device": one.name,
        "pci": one.device is not None,
        "id": one.device.id if one.device else None,
        "name": (one.device.name or None) if one.device else None,
        "way": one.way,
        "types": [_type_data(kind) for kind in one.types],
        "functions": [
            {"address": parent.name, "type": parent.current or None, "known": parent.current is not None}
            for parent in one.functions
            if parent.way != MDEV
        ],
        "instances": [{"uuid": each.uuid, "type": each.type or None, "owner": owner(each)} for each in one.instances],
        "guests": [
            {
                "vmid": guest.vmid,
                "name": guest.name,
                "entry": entry.key,
                "type": entry.mdev,
                "functions": [str(address) for address in entry.addresses],
                "mapping": entry.mapping or None,
                "running": guest.running,
            }
            for guest, entry in one.names
        ],
    }


def _type_data(kind: MediatedType) -> Values:
    return {
        "type": kind.id,
        "name": kind.name or None,
        "memory_mib": kind.memory,
        "available": kind.available,
        "description": kind.description or None,
    }


def _other_data(one: CouldShare) -> Values:
    return {"address": str(one.device.address), "id": one.device.id, "why": one.why, "next": one.hint}


def setup_data(found: Setup) -> Values:
    return {
        "format": FORMAT,
        "address": str(found.device.address),
        "id": found.device.id,
        "steps": [{"text": one.text, "done": one.done, "command": one.command or None} for one in found.steps],
        "notes": list(found.notes),
        "changes": found.planned is not None,
    }


# -- for people ----------------------------------------------------------------------------------


def listing(console: Console, found: Listing) -> None:
    for one in found.shared:
        _shared(console, one)
    if not found.shared:
        _say(console, "No device of this host is shared now.")
    for other in found.others:
        _say(console, f"{other.device}: {other.why}", "dim")
        _say(console, f"    → {other.hint}", "dim")


def _shared(console: Console, one: Shared) -> None:
    _say(console, f"{one.device or one.name}: shared by {_WAYS.get(one.way, one.way)}", "bold")
    if one.device is None:
        _say(console, "    no PCI device: Proxmox VE cannot give its shares to a guest")
    width = max((len(kind.id) for kind in one.types), default=0)
    for kind in one.types:
        memory = f"{kind.memory} MiB" if kind.memory else "memory unknown"
        left = "left unknown" if kind.available is None else f"{kind.available} left"
        _say(console, f"    {kind.id:<{width}}  {memory:>14}  {left:>8}  {kind.name}")
    if not one.types:
        _say(console, "    no type can be made now")
    for each in one.instances:
        _say(console, f"    in use: {each.type or 'a share'} by {owner(each)}")
    for parent in one.functions:
        if parent.current:
            _say(console, f"    in use: {parent.current} on {parent.name}")
    for guest, entry in one.names:
        state = {True: "runs", False: "stopped", None: "state unknown"}[guest.running]
        source = f"the mapping {entry.mapping}" if entry.mapping else ", ".join(map(str, entry.addresses))
        _say(console, f"    guest {guest.vmid} ({guest.name}): {entry.mdev} of {source}, {state}")


def types(console: Console, found: Listing) -> None:
    """The same with each type's own words."""
    for one in found.shared:
        _shared(console, one)
        for kind in one.types:
            for line in kind.description.splitlines():
                _say(console, f"    {kind.id}: {line}", "dim")
    for other in found.others:
        _say(console, f"{other.device}: {other.why}")
        _say(console, f"    → {other.hint}", "dim")


def setup(console: Console, found: Setup) -> None:
    _say(console, f"{found.device}: what its driver needs before it can be shared", "bold")
    for step in found.steps:
        _step(console, step)
    for note in found.notes:
        _say(console, f"  {note}", "dim")


def _step(console: Console, step: Step) -> None:
    _say(console, f"  {_MARKS[step.done]} {step.text}")
    if step.command and step.done is not True:
        _say(console, f"      → {step.command}", "cyan")


def _say(console: Console, text: str, style: str = "") -> None:
    console.print(printable(text), style=style or None, markup=False, highlight=False)
