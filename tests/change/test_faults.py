"""The fault storm at the size of the quick suite; `tools/storm --full` plays every pair."""

from __future__ import annotations

from itertools import islice

import pytest

from pve_passthrough import app
from pve_passthrough.change import Unrecorded
from pve_passthrough.model.run import Phase
from tests.change import scenarios, sims, storm
from tests.change.sims import Machine
from tests.change.storm import Scenario
from tests.hosts import faulty
from tests.hosts.faulty import Fault


def _name(scenario: Scenario) -> str:
    return scenario.name.replace(" ", "-")


@pytest.mark.parametrize("scenario", scenarios.TOYS, ids=_name)
def test_a_sample_of_single_faults_and_of_pairs_end_well(scenario: Scenario) -> None:
    endings = storm.storm(scenario, single_count=150, pair_count=20)
    assert endings["undone"], "no fault ever turned a run back: the storm proves nothing"
    assert endings["stuck"] or scenario.keeps, "a failing way back must have been played"


@pytest.mark.parametrize("machine", sims.MACHINES, ids=lambda machine: machine.name.replace(" ", "-"))
def test_a_sample_of_faults_on_whole_runs_of_simulated_hosts(machine: Machine) -> None:
    """Every single one is played by `tools/storm`."""
    for scenario in sims.scenarios(machine):
        log = storm.effects(scenario)
        assert "run systemctl enable pve-passthrough-resume.service" in log
        assert "run systemctl disable pve-passthrough-resume.service" in log
        assert sims.plan(machine).reboot == ("run systemctl reboot" in log)
        for script in storm.sample(storm.singles(log), 5, seed=len(log)):
            storm.play(scenario, script)
        for script in islice(storm.random_pairs(log, seed=len(log)), 3):
            storm.play(scenario, script)


def test_the_machines_are_those_that_differ_in_what_is_written() -> None:
    """Each way to reach the next boot, and each way to claim a device, is stormed on some machine."""
    plans = [sims.plan(machine) for machine in sims.MACHINES]
    names = {change.cell.name for plan in plans for change in plan.changes}
    assert {"grub", "boot-tool", "initramfs"} == {name for plan in plans for name in plan.refreshes}
    assert {"/etc/kernel/cmdline", "/etc/modprobe.d/pve-passthrough.conf"} <= names
    assert "/etc/initramfs-tools/scripts/init-top/pve-passthrough" in names
    assert [plan.reboot for plan in plans].count(False) == 1


def test_a_power_cut_in_the_middle_of_a_whole_run_is_taken_back_by_the_boot_unit_alone() -> None:
    scenario, _ = sims.scenarios(sims.MACHINES[0])
    log = storm.effects(scenario)
    written = log.index("write /etc/default/grub.d/zz-pve-passthrough.cfg") + 1
    assert storm.play(scenario, {written: Fault(faulty.POWER_CUT, after=True)}) == "undone"
    assert storm.play(scenario, {written: Fault(faulty.KILL, after=True)}) == "kept"


def test_a_killed_process_goes_forward_and_a_power_cut_goes_back() -> None:
    scenario = scenarios.TOYS[0]
    log = storm.effects(scenario)
    written = log.index("write /etc/default/grub") + 1
    assert storm.play(scenario, {written: Fault(faulty.KILL, after=True)}) == "kept"
    assert storm.play(scenario, {written: Fault(faulty.POWER_CUT, after=True)}) == "undone"


def test_a_call_that_fails_before_anything_has_begun_leaves_nothing_of_the_boot_unit() -> None:
    for scenario in sims.scenarios(sims.MACHINES[2]):
        log = storm.effects(scenario)
        for number in range(1, _begin(log) + 1):
            for after in (False, True):
                storm.play(scenario, {number: Fault(faulty.FAIL, after)})


def test_guests_start_whatever_becomes_of_the_boot_unit() -> None:
    machine = sims.MACHINES[0]
    world = sims.Sim(machine)
    world.begin(sims.template(machine))
    assert app.apply(world.host, sims.plan(machine)).phase is Phase.REBOOT
    app.reboot(world.host)
    assert world.is_taken_on()
    with pytest.raises(Unrecorded):
        app.after_boot(world.faulty({1: Fault(faulty.FAIL)}))
    assert not world.is_taken_on()
    run = app.resume(world.host)
    assert run is not None and run.phase is Phase.KEPT


@pytest.mark.parametrize("program", ["update-initramfs", "update-grub"])
def test_a_refresh_that_fails_leads_back_and_is_run_again(program: str) -> None:
    scenario = scenarios.TOYS[0]
    log = storm.effects(scenario)
    number = next(at for at, name in enumerate(log, 1) if name.startswith(f"run {program}"))
    for after in (False, True):
        assert storm.play(scenario, {number: Fault(faulty.FAIL, after)}) == "undone"


def test_a_half_written_event_does_not_swallow_the_next_one() -> None:
    scenario = scenarios.TOYS[0]
    log = storm.effects(scenario)
    for number, name in enumerate(log, 1):
        if name.startswith("append"):
            assert storm.play(scenario, {number: Fault(faulty.TORN)}) == (
                "kept" if number > _begin(log) else "not-begun"
            )


def _begin(log: list[str]) -> int:
    return next(number for number, name in enumerate(log, 1) if name.startswith("append"))
