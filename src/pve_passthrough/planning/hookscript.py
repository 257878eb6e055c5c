"""The guard of a guest's start: our hookscript in place, and whatever hookscript the guest had still called.

1. Pure. The guard is wished for together with the devices; where it cannot be put in place, the plan goes on without it
   and says why, because nothing that it guards against is wrong yet.
2. No storage is changed for it: which kinds of volumes a storage takes is a setting that others rely on.
3. A guest that another node may start gets none: a hookscript that is missing there stops the start
   (recorded 9.2 and 8.4: "script 'local:snippets/nope.sh' does not exist").
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..knowledge.lifecycle import keep_at_home, may_recover_on
from ..model.facts import Facts, Storage
from ..model.finding import Actor, Finding, Fix, Level, Safety
from ..model.hookscript import PACKAGED, PREFIX, Hook, folder_of, parse_older, render, volume
from ..model.plan import Cell, Change
from ..model.value import dataclass
from ..model.vm import Vm
from ..model.wish import Script, VmOption, Wish
from .goals import changeable_guest, unknown

WHY = "before each start, look whether the devices are still the ones that were given"


@dataclass(frozen=True, slots=True)
class Guard:
    """What puts the guard in place, or why there is none."""

    wishes: tuple[Wish, ...] = ()
    notes: tuple[Finding, ...] = ()


def guard(facts: Facts, vmid: int, program: str = PACKAGED) -> Guard:
    """The guard of this guest's starts; `program` is the launcher that it calls."""
    guest = changeable_guest(facts, vmid)
    had = guest.config.get("hookscript", "")
    if _is_ours(facts, guest, had):
        return Guard()
    if reason := _elsewhere(facts, guest):
        return _none(guest, reason, _stay(facts, guest))
    if "hookscript" in guest.pending or "hookscript" in guest.deleting:
        return _none(guest, "the guest has an unapplied change of its hookscript")
    if facts.storages is None:
        return _none(guest, "which storages there are could not be read")
    chosen = snippets_storage(facts)
    if chosen is None:
        return _none(guest, "no storage on this machine's own disks takes snippets", how_to_enable(facts))
    return _placed(facts, guest, program, *chosen)


def _placed(facts: Facts, guest: Vm, program: str, storage: Storage, folder: str) -> Guard:
    """The script and the option that names it; whatever script the guest has now is called on."""
    path, name, had = f"{folder}/{PREFIX}{guest.vmid}", volume(storage, guest.vmid), guest.config.get("hookscript", "")
    if path not in facts.files and f"{folder}/" not in facts.files:
        return _none(guest, f"what lies in {folder} could not be read")
    there = facts.files.get(path)
    if there is not None and parse_older(there) is None:
        return _none(guest, f"{path} is there, and this program has not written it")
    # A clone names the original's script, which goes with the original's run: what that one calls is called here, too.
    original = _script_of(facts, had)
    other = original.other if original is not None else "" if had == name else had
    why = f"{WHY}; {other} is still called" if other else WHY
    script = Script(path, render(Hook(program, other)), why)
    return Guard((script, VmOption(guest.vmid, "hookscript", name, why)))


def _is_ours(facts: Facts, guest: Vm, had: str) -> bool:
    """The guest's hookscript is its own guard, and the file is there."""
    return had.endswith(f":snippets/{PREFIX}{guest.vmid}") and _script_of(facts, had) is not None


def _script_of(facts: Facts, name: str) -> Hook | None:
    """What the script behind this volume calls, when it is one of ours, whichever version has written it."""
    storage_name, _, file = name.partition(":snippets/")
    storage = next((one for one in facts.storages or () if one.name == storage_name), None)
    folder = None if storage is None else folder_of(storage)
    return parse_older(facts.files.get(f"{folder}/{file}")) if file.startswith(PREFIX) else None


def _elsewhere(facts: Facts, guest: Vm) -> str:
    """Why another node may start this guest; empty when none does."""
    if guest.ha_managed and may_recover_on(facts, guest):
        return "high availability may start the guest on another node, where the script would be missing"
    names = {entry.mapping for entry in guest.hostpci if entry.mapping}
    nodes = {line.node for mapping in facts.mappings if mapping.name in names for line in mapping.entries}
    if nodes - {guest.node}:
        return "its mapping offers devices on other nodes, where the script would be missing"
    return ""


def _stay(facts: Facts, guest: Vm) -> Fix | None:
    """How high availability is kept from the other nodes; a mapping's entries are somebody's intention."""
    strange = may_recover_on(facts, guest) if guest.ha_managed else ()
    if not strange:
        return None
    commands = tuple(one.command for one in keep_at_home(facts, guest, strange))
    return Fix("Keep HA to this node, or let it leave the guest alone; then plan again.", Safety.SHOW, commands)


def snippets_storage(facts: Facts) -> tuple[Storage, str] | None:
    """Where snippets can lie, and in which folder: `local` if it will do, else the first by name."""
    here = [one for one in facts.storages or () if not one.nodes or facts.pve.node in one.nodes]
    usable = [(one, folder) for one in here if (folder := folder_of(one)) is not None]
    return min(usable, key=lambda one: (one[0].name != "local", one[0].name), default=None)


def how_to_enable(facts: Facts) -> Fix:
    """The command for a person: storages are shared, and so is the setting."""
    named = {one.name: one for one in facts.storages or () if one.type in ("dir", "btrfs") and one.enabled}
    storage = named.get("local") or next(iter(named.values()), None)
    if storage is None:
        return Fix("Add a directory storage that takes snippets, then plan again.", Safety.SHOW)
    content = ",".join(sorted({*storage.content, "snippets"}))
    command = f"pvesm set {storage.name} --content {content}"
    return Fix("Let a storage take snippets, then plan again.", Safety.SHOW, (command,))


def _none(guest: Vm, reason: str, fix: Fix | None = None) -> Guard:
    note = Finding(
        "plan.no-guard", Level.NOTE, f"vm:{guest.vmid}",
        "Nothing will look before the guest's starts whether the devices are still the same ones: "
        "`pve-passthrough check --vm` does when it is called.",
        (f"hookscript: {reason}",), Actor.NOBODY, fix,
    )  # fmt: skip
    return Guard((), (note,))


def changes(facts: Facts, wishes: Iterable[Wish]) -> tuple[Change, ...]:
    """The scripts themselves. No boot depends on them, so they ask for none."""
    found: list[Change] = []
    for wish in wishes:
        if isinstance(wish, Script):
            found += _change(facts, wish)
    return tuple(found)


def _change(facts: Facts, wish: Script) -> Sequence[Change]:
    folder = wish.path.rpartition("/")[0]
    if facts.gap(f"files.{wish.path}") or (wish.path not in facts.files and f"{folder}/" not in facts.files):
        raise unknown(facts, f"files.{wish.path}", f"what {wish.path} holds")
    before = facts.files.get(wish.path)
    missing = facts.files.get(f"{folder}/", "directory") is None
    made = [Change(Cell("dir", folder), None, "directory", "holds the new file")] if missing else []
    kind = "script" if wish.executable else "file"
    return [*made, Change(Cell(kind, wish.path), before, wish.text, wish.why)] if before != wish.text else []
