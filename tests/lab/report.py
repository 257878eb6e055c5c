"""What the lab has to say: a table of scenarios and steps, each with pass, fail or the reason why it was not run.

1. A step that fails ends its scenario: what follows would be about another state than it says. `aside` steps go on.
2. "Not run" is never "passed": a missing tool or no time left is named, and counted by itself.
"""

from __future__ import annotations

import time
import traceback
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field

from .programs import LabError, Say, Unavailable


class Broken(Exception):
    """A step failed; the scenario that it belongs to is over."""


@dataclass(slots=True)
class Row:
    """outcome: `pass`, `FAIL` or `not run` · seconds: wall time."""

    scenario: str
    step: str
    outcome: str
    seconds: float
    detail: str = ""


@dataclass(slots=True)
class Report:
    """All rows in the order in which they happened; `until`: when no new scenario may begin (time.monotonic)."""

    say: Say
    until: float
    rows: list[Row] = field(default_factory=list)
    scenario: str = ""

    @property
    def left(self) -> float:
        """Seconds until the time is over."""
        return self.until - time.monotonic()

    @contextmanager
    def step(self, name: str) -> Iterator[None]:
        """Time a step and note how it ended. Raises Broken when it failed."""
        began = time.monotonic()
        try:
            yield
        except Broken:
            raise
        except Unavailable as error:
            self._note(name, "not run", began, str(error))
            raise Broken(name) from None
        except (AssertionError, LabError) as error:
            self._note(name, "FAIL", began, _words(error))
            raise Broken(name) from error
        except Exception as error:
            self._note(name, "FAIL", began, "".join(traceback.format_exception(error))[-1500:])
            raise Broken(name) from error
        self._note(name, "pass", began)

    @contextmanager
    def aside(self, name: str) -> Iterator[None]:
        """A step whose failure does not touch the steps after it."""
        try:
            with self.step(name):
                yield
        except Broken:
            pass

    def skip(self, name: str, reason: str) -> None:
        self._note(name, "not run", time.monotonic(), reason)

    def row(self, name: str, ok: bool | None, seconds: float, detail: str = "") -> None:
        """A step that was timed elsewhere; `ok` None: not run, `detail` says why."""
        outcome = {True: "pass", False: "FAIL", None: "not run"}[ok]
        self._note(name, outcome, time.monotonic() - seconds, "" if ok else detail)

    def fail(self, name: str, error: BaseException) -> None:
        self._note(name, "FAIL", time.monotonic(), _words(error))

    def _note(self, name: str, outcome: str, began: float, detail: str = "") -> None:
        row = Row(self.scenario, name, outcome, time.monotonic() - began, detail)
        self.rows.append(row)
        self.say(_line(row))
        if detail:
            self.say("\n".join(f"      {line}" for line in detail.strip().splitlines()))

    @property
    def failed(self) -> bool:
        """Whether anything failed, or nothing at all was tried."""
        return any(row.outcome == "FAIL" for row in self.rows) or not any(row.outcome == "pass" for row in self.rows)

    def table(self) -> str:
        """One line per scenario, and the counted steps in the form that test runners close with."""
        lines = [f"{'scenario':<24}{'passed':>8}{'failed':>8}{'not run':>9}{'seconds':>9}"]
        for name in dict.fromkeys(row.scenario for row in self.rows):
            rows = [row for row in self.rows if row.scenario == name]
            counts = [sum(row.outcome == outcome for row in rows) for outcome in ("pass", "FAIL", "not run")]
            seconds = sum(row.seconds for row in rows)
            lines.append(f"{name:<24}{counts[0]:>8}{counts[1]:>8}{counts[2]:>9}{seconds:>9.1f}")
        total = [sum(row.outcome == outcome for row in self.rows) for outcome in ("pass", "FAIL", "not run")]
        return "\n".join([*lines, f"{total[0]} passed, {total[1]} failed, {total[2]} skipped"])


def _line(row: Row) -> str:
    return f"  {row.outcome:<8}{row.seconds:>7.1f} s  {row.scenario}: {row.step}"


def _words(error: BaseException) -> str:
    """An assertion's own words, or the line that failed when it has none."""
    if isinstance(error, AssertionError) and not str(error):
        frame = traceback.extract_tb(error.__traceback__)[-1]
        return f"{frame.name}, line {frame.lineno}: {frame.line}"
    return str(error) or type(error).__name__
