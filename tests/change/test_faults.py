"""The fault storm at the size of the quick suite; `python -m tests.change.storm --full` plays every pair."""

from __future__ import annotations

import pytest

from tests.change import scenarios, sims, storm
from tests.change.storm import Scenario
from tests.hosts import faulty
from tests.hosts.faulty import Fault


def _name(scenario: Scenario) -> str:
    return scenario.name.replace(" ", "-")


@pytest.mark.parametrize("scenario", scenarios.TOYS, ids=_name)
def test_every_single_fault_and_a_sample_of_pairs_end_well(scenario: Scenario) -> None:
    endings = storm.storm(scenario, pair_count=30)
    assert endings["undone"], "no fault ever turned a run back: the storm proves nothing"
    assert endings["stuck"] or scenario.keeps, "a failing way back must have been played"


@pytest.mark.parametrize("scenario", sims.SIMS, ids=_name)
def test_a_sample_of_single_faults_on_simulated_hosts(scenario: Scenario) -> None:
    """Every single one is played by `python -m tests.change.storm sim`."""
    log = storm.effects(scenario)
    for script in storm.sample(storm.singles(log), 4, seed=len(log)):
        storm.play(scenario, script)


def test_a_killed_process_goes_forward_and_a_power_cut_goes_back() -> None:
    scenario = scenarios.TOYS[0]
    log = storm.effects(scenario)
    written = log.index("write /etc/default/grub") + 1
    assert storm.play(scenario, {written: Fault(faulty.KILL, after=True)}) == "kept"
    assert storm.play(scenario, {written: Fault(faulty.POWER_CUT, after=True)}) == "undone"


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
