"""Plans meet the simulated machine's laws: written, refreshed and restarted, all that was expected holds; and back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import pytest

from pve_passthrough.change import read_cell
from pve_passthrough.change.refresh import REFRESHES
from pve_passthrough.host.simulated import Simulated, create, power_cut
from pve_passthrough.model.plan import Change, Plan
from pve_passthrough.model.wish import ArgPresent, ClaimByAddress, Wish
from pve_passthrough.planning import give, make_plan, resolve
from pve_passthrough.probe import probe

from .worlds import at


def machine(folder: Path, seed: str) -> Simulated:
    create(str(folder / "host"), seed)
    return Simulated(str(folder / "host"))


def carry_out(host: Simulated, changes: Sequence[Change], refreshes: Sequence[str]) -> None:
    """The texts as a plan has them, the refreshes, a restart; guests' options are not this test's business."""
    for change in changes:
        if change.cell.kind in ("file", "script"):
            data = None if change.after is None else change.after.encode("utf-8", "surrogateescape")
            host.write(change.cell.name, data, 0o755 if change.cell.kind == "script" else None)
        elif change.cell.kind == "dir":
            host.make_dir(change.cell.name) if change.after else host.remove_dir(change.cell.name)
    for name in refreshes:
        ran = host.run(REFRESHES[name].argv)
        assert ran.ok, ran.stderr
    power_cut(host.world)


def make(host: Simulated, wishes: Sequence[Wish]) -> Plan:
    return make_plan(probe(host, deep=True), wishes, goal="test", now="20261121140501", machine="m")


@pytest.mark.parametrize("seed", ["intel-6.5-grub", "amd-secureboot", "only-display"])
def test_what_is_planned_for_a_card_comes_true(seed: str, tmp_path: Path) -> None:
    host = machine(tmp_path, seed)
    known = probe(host, deep=True)
    wishes = give(known, resolve(known, ["gpu"]), 100)
    plan = make(host, wishes)
    assert plan.reboot
    before = {str(expected.cell): read_cell(host, expected.cell) for expected in plan.expects}
    carry_out(host, plan.changes, plan.refreshes)
    assert {str(e.cell): read_cell(host, e.cell) for e in plan.expects} == {str(e.cell): e.text for e in plan.expects}
    carry_out(host, plan.inverse().changes, plan.refreshes)
    assert {str(expected.cell): read_cell(host, expected.cell) for expected in plan.expects} == before


def test_one_of_two_twins_is_claimed(tmp_path: Path) -> None:
    host = machine(tmp_path, "twins")
    plan = make(host, [ClaimByAddress(at("04:00.0"), "10de:2684", "w")])
    carry_out(host, plan.changes, plan.refreshes)
    drivers = {str(d.address): d.driver for d in probe(host).devices if d.id == "10de:2684"}
    assert drivers == {"0000:01:00.0": "nouveau", "0000:04:00.0": "vfio-pci"}


@pytest.mark.parametrize("seed", ["default", "intel-zfs", "amd-secureboot", "mixed", "bios-grub"])
def test_a_word_reaches_the_running_kernel_through_every_loader(seed: str, tmp_path: Path) -> None:
    host = machine(tmp_path, seed)
    plan = make(host, [ArgPresent("split_lock_detect=off", "w")])
    carry_out(host, plan.changes, plan.refreshes)
    (expected,) = plan.expects
    assert read_cell(host, expected.cell) == expected.text
    assert make(host, [ArgPresent("split_lock_detect=off", "w")]).changes == ()
