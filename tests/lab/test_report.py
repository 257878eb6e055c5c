"""What the lab says about itself: nothing that was not tried counts as passed."""

from __future__ import annotations

import time

import pytest

from .programs import LabError, Unavailable
from .report import Broken, Report


@pytest.fixture
def report() -> Report:
    made = Report(lambda text: None, time.monotonic() + 60)
    made.scenario = "one"
    return made


def outcomes(report: Report) -> list[str]:
    return [row.outcome for row in report.rows]


def test_a_failed_step_ends_its_scenario_and_fails_the_run(report: Report) -> None:
    with report.step("first"):
        pass
    with pytest.raises(Broken), report.step("second"):
        raise AssertionError("the driver is nvme")
    assert outcomes(report) == ["pass", "FAIL"]
    assert report.rows[1].detail == "the driver is nvme"
    assert report.failed


def test_an_aside_that_fails_lets_the_scenario_go_on_and_still_fails_the_run(report: Report) -> None:
    with report.aside("by the way"):
        raise LabError("no answer")
    with report.step("next"):
        pass
    assert outcomes(report) == ["FAIL", "pass"]
    assert report.failed


def test_what_is_missing_is_not_run_and_never_passed(report: Report) -> None:
    with pytest.raises(Broken), report.step("needs a tool"):
        raise Unavailable("mmdebstrap is not here")
    report.skip("the rest", "no time left")
    assert outcomes(report) == ["not run", "not run"]
    assert report.failed, "a run in which nothing was tried is no success"
    assert report.table().endswith("0 passed, 0 failed, 2 skipped")


def test_a_bare_assertion_names_its_line(report: Report) -> None:
    with report.aside("bare"):
        raise AssertionError
    assert report.rows[0].detail.endswith("raise AssertionError")


def test_a_surprise_is_shown_with_its_place(report: Report) -> None:
    with report.aside("surprise"):
        raise KeyError("driver")
    assert "test_report.py" in report.rows[0].detail


def test_the_table_has_a_line_per_scenario(report: Report) -> None:
    with report.step("a"):
        pass
    report.scenario = "two"
    report.row("b", None, 1.5, "no archive")
    lines = report.table().splitlines()
    assert [line.split()[:4] for line in lines[1:3]] == [["one", "1", "0", "0"], ["two", "0", "0", "1"]]
    assert lines[-1] == "1 passed, 0 failed, 1 skipped"
    assert not report.failed
