"""The facts as they will be when a plan has been carried out, so that what remains can be judged beforehand.

1. Only what the plan writes is changed: texts of files, options of guests. What a reboot will bring is not guessed.
2. Pure, like everything here.
"""

from __future__ import annotations

from dataclasses import replace

from ..model.facts import Facts
from ..model.plan import Change, Plan
from ..model.vm import HostPci, Vm, expand_host, parse_options


def outcome(facts: Facts, plan: Plan) -> Facts:
    """Facts with the plan's texts in place."""
    files = dict(facts.files)
    for change in plan.changes:
        if change.cell.kind in ("file", "script"):
            files[change.cell.name] = change.after
        elif change.cell.kind == "dir":
            files[f"{change.cell.name.rstrip('/')}/"] = change.after
    guests = None if facts.guests is None else tuple(_guest(facts, guest, plan) for guest in facts.guests)
    return replace(facts, files=files, guests=guests)


def _guest(facts: Facts, guest: Vm, plan: Plan) -> Vm:
    changes = [change for change in plan.changes if change.cell.kind == "vm" and _vmid(change) == guest.vmid]
    if not changes:
        return guest
    config = dict(guest.config)
    entries = {entry.key: entry for entry in guest.hostpci}
    for change in changes:
        key = change.cell.name.partition("/")[2]
        config.pop(key, None)
        entries.pop(key, None)
        if change.after is not None:
            config[key] = change.after
            if key.startswith("hostpci"):
                entries[key] = _entry(facts, key, change.after)
    return replace(guest, config=config, hostpci=tuple(entries[key] for key in sorted(entries)))


def _vmid(change: Change) -> int:
    return int(change.cell.name.partition("/")[0])


def _entry(facts: Facts, key: str, value: str) -> HostPci:
    options = parse_options(value, "host")
    known = [device.address for device in facts.devices]
    return HostPci(key, options, expand_host(options.get("host", ""), known), options.get("mapping", ""))
