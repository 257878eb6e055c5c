"""The guard of a start in place, and where it is left away."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Facts, Gap, MapEntry, Pve, ResourceMapping, Storage
from pve_passthrough.model.hookscript import Hook, parse, render
from pve_passthrough.model.lifecycle import HaResource, Lifecycle, Placement
from pve_passthrough.model.plan import Cell
from pve_passthrough.model.wish import Script, VmOption
from pve_passthrough.planning import guard, make_plan
from pve_passthrough.planning.hookscript import Guard

from .worlds import FIT, facts, guest

LOCAL = Storage("local", "dir", frozenset({"iso", "snippets"}), "/var/lib/vz")
FOLDER = "/var/lib/vz/snippets"
MINE = "local:snippets/pve-passthrough-hook-100"


def world(config: Mapping[str, str] | None = None, *storages: Storage, **files: str | None) -> Facts:
    known = facts(storages=storages or (LOCAL,), guests=(guest(config={**FIT, **(config or {})}),))
    texts = {f"{FOLDER}/{name.replace('_', '-')}": text for name, text in files.items()}
    return replace(known, files={**known.files, f"{FOLDER}/": "directory", **texts})


def script(found: Guard) -> Hook:
    (wish,) = [wish for wish in found.wishes if isinstance(wish, Script)]
    hook = parse(wish.text)
    assert hook is not None
    return hook


def reason(found: Guard) -> str:
    assert found.wishes == ()
    (note,) = found.notes
    assert note.rule == "plan.no-guard"
    return note.evidence[0]


def test_a_plan_puts_the_script_before_the_option_and_asks_for_no_reboot() -> None:
    known = world()
    found = guard(known, 100, "/opt/pve-passthrough")
    assert script(found) == Hook("/opt/pve-passthrough")
    made = make_plan(known, found.wishes, goal="x", vmid=100, now="20260101-000000", machine="m")
    path = f"{FOLDER}/pve-passthrough-hook-100"
    assert [change.cell for change in made.changes] == [Cell("script", path), Cell("vm", "100/hookscript")]
    assert not made.reboot and made.refreshes == () and made.way_home == ()
    assert [change.cell.kind for change in made.inverse().changes] == ["vm", "script"], "never a name without its file"


def test_a_missing_folder_is_made() -> None:
    known = world()
    known = replace(known, files={**known.files, f"{FOLDER}/": None})
    made = make_plan(known, guard(known, 100).wishes, goal="x", vmid=100, now="20260101-000000", machine="m")
    assert made.changes[0].cell == Cell("dir", FOLDER)


def test_what_is_in_place_is_left_alone() -> None:
    known = world({"hookscript": MINE}, pve_passthrough_hook_100=render(Hook("/elsewhere")))
    assert guard(known, 100) == Guard()


def test_a_name_without_its_file_is_put_right() -> None:
    found = guard(world({"hookscript": MINE}), 100)
    assert {type(wish) for wish in found.wishes} == {Script, VmOption}


def test_the_guests_own_script_is_called_on() -> None:
    assert script(guard(world({"hookscript": "local:snippets/mine.pl"}), 100)).other == "local:snippets/mine.pl"


def test_another_versions_script_stays_and_a_strangers_is_never_called_by_itself() -> None:
    older = render(Hook(other="local:snippets/mine.pl")).replace("timeout -k 10", "timeout -k 5")
    assert guard(world({"hookscript": MINE}, pve_passthrough_hook_100=older), 100) == Guard()
    found = guard(world({"hookscript": MINE}, pve_passthrough_hook_100="#!/bin/sh\nexit 0\n"), 100)
    assert "has not written it" in reason(found)
    assert script(guard(world({"hookscript": MINE}), 100)).other == "", "a missing file is not called"


def test_a_clone_gets_a_guard_of_its_own() -> None:
    config = {"hookscript": "local:snippets/pve-passthrough-hook-90"}
    found = guard(world(config, pve_passthrough_hook_90=render(Hook(other="local:snippets/mine.pl"))), 100)
    assert script(found).other == "local:snippets/mine.pl", "not the original's guard, which goes with its run"


@pytest.mark.parametrize(
    ("storages", "chosen"),
    [
        ((replace(LOCAL, name="b"), LOCAL), "local"),
        ((replace(LOCAL, name="b"), replace(LOCAL, name="a")), "a"),
        ((replace(LOCAL, nodes=frozenset({"other"})), replace(LOCAL, name="b")), "b"),
        ((replace(LOCAL, type="cifs"), replace(LOCAL, name="b", type="btrfs")), "b"),
    ],
)
def test_which_storage(storages: tuple[Storage, ...], chosen: str) -> None:
    (option,) = [wish for wish in guard(world(None, *storages), 100).wishes if isinstance(wish, VmOption)]
    assert option.value == f"{chosen}:snippets/pve-passthrough-hook-100"


def test_without_such_a_storage_it_is_said_how() -> None:
    found = guard(world(None, replace(LOCAL, content=frozenset({"iso"}))), 100)
    assert "no storage on this machine's own disks takes snippets" in reason(found)
    fix = found.notes[0].fix
    assert fix is not None and fix.commands == ("pvesm set local --content iso,snippets",)
    nothing = guard(world(None, Storage("nas", "nfs", frozenset({"snippets"}))), 100).notes[0].fix
    assert nothing is not None and not nothing.commands


def test_what_is_unknown_is_said() -> None:
    assert "could not be read" in reason(guard(replace(world(), storages=None), 100))
    known = world()
    unread = {path: text for path, text in known.files.items() if not path.startswith(FOLDER)}
    assert "could not be read" in reason(guard(replace(known, files=unread), 100))


def test_another_node_must_not_miss_the_script() -> None:
    known = world()
    (there,) = known.guests or ()
    ha = replace(known, guests=(replace(there, ha_managed=True),), pve=Pve(True, node="pve", nodes=("pve", "pve2")))
    assert "high availability" in reason(guard(ha, 100))
    assert guard(replace(ha, pve=Pve(True, node="pve", nodes=("pve",))), 100).wishes
    lines = (MapEntry("pve", "0000:01:00", {}), MapEntry("pve2", "0000:01:00", {}))
    mapped = world({"hostpci0": "mapping=gpu"})
    assert "other nodes" in reason(guard(replace(mapped, mappings=(ResourceMapping("pci", "gpu", lines),)), 100))


def test_a_pending_change_is_not_overtaken() -> None:
    known = world()
    (there,) = known.guests or ()
    assert "unapplied" in reason(guard(replace(known, guests=(replace(there, pending={"hookscript": "x"}),)), 100))


def test_a_script_that_nobody_could_read_is_not_written_over() -> None:
    known = world()
    wishes = guard(known, 100).wishes
    gap = Gap(f"files.{FOLDER}/pve-passthrough-hook-100", "permission denied")
    with pytest.raises(Failure):
        make_plan(replace(known, gaps=(gap,)), wishes, goal="x", now="20260101-000000", machine="m")


@pytest.mark.parametrize(
    ("lifecycle", "guarded"),
    [
        (Lifecycle(ha=(HaResource(100),), placements=()), False),
        (Lifecycle(ha=(HaResource(100),), placements=None), False),
        (Lifecycle(ha=(HaResource(100, "ignored"),), placements=()), True),
        (Lifecycle(ha=(HaResource(100),), placements=(Placement("x", ("pve",), True, frozenset({100})),)), True),
        (Lifecycle(ha=(HaResource(100),), placements=(Placement("x", ("pve",), False, frozenset({100})),)), False),
        (Lifecycle(ha=(HaResource(100),), placements=(Placement("x", ("pve2",), True, frozenset({100})),)), False),
    ],
)
def test_ha_that_is_kept_to_this_node_needs_the_script_here_alone(lifecycle: Lifecycle, guarded: bool) -> None:
    known = world()
    there = known.guest(100)
    assert there is not None
    pve = Pve(True, node=there.node, nodes=(there.node, "pve2"))
    known = replace(known, guests=(replace(there, ha_managed=True),), pve=pve, lifecycle=lifecycle)
    assert bool(guard(known, 100).wishes) is guarded
