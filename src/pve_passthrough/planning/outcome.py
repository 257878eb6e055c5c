"""The facts as they will be when a plan has been carried out, so that what remains can be judged beforehand.

1. Only what the plan writes is changed, texts of files and options of guests, and what it expects of drivers: a card
   that is claimed at boot has vfio-pci then. What else a reboot will bring is not guessed.
2. Pure, like everything here.
"""

from __future__ import annotations

from dataclasses import replace

from ..knowledge.guestconfig import entry_functions
from ..model.facts import Facts, ResourceMapping, UseKind
from ..model.mappings import parse_mapping, with_mapping
from ..model.plan import Change, Plan
from ..model.vm import HostPci, Vm, parse_options


def outcome(facts: Facts, plan: Plan) -> Facts:
    """Facts with the plan's texts in place."""
    files = dict(facts.files)
    for change in plan.changes:
        if change.cell.kind in ("file", "script"):
            files[change.cell.name] = change.after
        elif change.cell.kind == "dir":
            files[f"{change.cell.name.rstrip('/')}/"] = change.after
    for change in plan.changes:
        if change.cell.kind == "mapping":
            facts = replace(facts, mappings=_mappings(facts.mappings, change))
    if "initramfs" in plan.refreshes:
        facts = replace(facts, modules=replace(facts.modules, initramfs=None, initramfs_files=None))
    guests = None if facts.guests is None else tuple(_guest(facts, guest, plan) for guest in facts.guests)
    return _booted(replace(facts, files=files, guests=guests), plan)


def _mappings(mappings: tuple[ResourceMapping, ...], change: Change) -> tuple[ResourceMapping, ...]:
    kind, _, name = change.cell.name.partition("/")
    made = parse_mapping(kind, name, change.after)
    if made is None:
        return tuple(one for one in mappings if (one.kind, one.name) != (kind, name))
    return with_mapping(mappings, made)


def _booted(facts: Facts, plan: Plan) -> Facts:
    """Claimed cards have the driver that the plan expects, and no console is on them any more."""
    awaited = {one.cell.name: one.text for one in plan.expects if one.cell.kind == "driver" and one.text}
    if not awaited:
        return facts
    return replace(
        facts,
        devices=tuple(replace(one, driver=awaited.get(str(one.address), one.driver)) for one in facts.devices),
        uses=tuple(use for use in facts.uses if use.kind is not UseKind.CONSOLE or str(use.address) not in awaited),
        display=replace(facts.display, console_owner=None)
        if str(facts.display.console_owner) in awaited
        else facts.display,
    )


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
                entries[key] = _entry(facts, guest, key, change.after)
    return replace(guest, config=config, hostpci=tuple(entries[key] for key in sorted(entries)))


def _vmid(change: Change) -> int:
    return int(change.cell.name.partition("/")[0])


def _entry(facts: Facts, guest: Vm, key: str, value: str) -> HostPci:
    options = parse_options(value, "host")
    known = [device.address for device in facts.devices]
    return HostPci(
        key, options, entry_functions(options, guest.node, facts.mappings, known), options.get("mapping", "")
    )
