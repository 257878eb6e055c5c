"""Run the lab: `python -m tests.lab [--minutes N] [--list] [SCENARIO …]`.

Exit: 0 every scenario that was tried passed · 1 something failed, or nothing could be tried · 2 usage.
"""

from __future__ import annotations

import argparse
import fcntl
import shutil
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from . import programs, scenarios
from .images import Workshop
from .lab import Lab
from .programs import LabError, Say
from .report import Broken, Report
from .scenarios import Scenario

MINUTES = 45.0
_PREFIX, _LOCK = "pve-passthrough-lab-", "in-use"
_ROOM = 12 << 30
"""Bytes: two trees, two images, and what machines write."""


def main() -> int:
    """See the module."""
    asked = _arguments()
    if asked.list:
        for scenario in scenarios.ALL:
            print(f"{scenario.name:<16}{scenario.seconds:>4} s  {scenario.about}")
        return 0
    report = Report(lambda text: print(text, flush=True), time.monotonic() + asked.minutes * 60)
    try:
        programs.require()
    except LabError as error:
        print(f"the lab cannot run here: {error}", file=sys.stderr)
        return 1
    sweep(Path(asked.scratch), report.say)
    with tempfile.TemporaryDirectory(prefix=_PREFIX, dir=asked.scratch) as folder, _in_use(Path(folder)):
        if shutil.disk_usage(folder).free < _ROOM:
            print(f"the lab cannot run here: {folder} has less than {_ROOM >> 30} GiB free", file=sys.stderr)
            return 1
        _all(report, Path(folder), [one for one in scenarios.ALL if not asked.only or one.name in asked.only])
    print(report.table())
    return 1 if report.failed else 0


@contextmanager
def _in_use(folder: Path) -> Iterator[None]:
    """For as long as this process lives nobody takes the folder for a leftover."""
    with (folder / _LOCK).open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        yield


def sweep(scratch: Path, say: Say) -> None:
    """Remove what runs that were killed have left behind; a run that goes on holds its lock."""
    for folder in sorted(scratch.glob(f"{_PREFIX}*")):
        try:
            with (folder / _LOCK).open("r") as lock:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError:
            continue  # held by a run, or about to be locked
        say(f"{folder}: left behind by a run that was killed, removed")
        shutil.rmtree(folder, ignore_errors=True)


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="tests.lab", description="Scenarios on real kernels in virtual machines.")
    parser.add_argument("only", nargs="*", metavar="SCENARIO", choices=[[], *(one.name for one in scenarios.ALL)])
    parser.add_argument(
        "--minutes", type=float, default=MINUTES, help="begin no scenario that would not fit (%(default)s)"
    )
    parser.add_argument("--list", action="store_true", help="name the scenarios and what each takes")
    parser.add_argument("--scratch", default="/var/tmp", help="where disks of machines lie while it runs (%(default)s)")
    return parser.parse_args()


def _all(report: Report, folder: Path, chosen: list[Scenario]) -> None:
    report.scenario = "package"
    try:
        with report.step("the package is built"):
            deb = _deb(folder)
    except Broken:
        return
    lab = Lab(Workshop(folder, deb, report.say), report)
    for scenario in chosen:
        report.scenario = scenario.name
        if report.left < scenario.seconds:
            report.skip(
                scenario.about, f"no time left: {max(0, report.left):.0f} s, it needs about {scenario.seconds} s"
            )
            continue
        try:
            scenario.run(lab)
        except Broken:
            continue
        except (AssertionError, LabError) as error:
            report.fail("between two steps", error)


def _deb(folder: Path) -> Path:
    build = Path(__file__).parents[2] / "packaging/build"
    return Path(programs.run((build, folder), 600).strip().splitlines()[-1])


if __name__ == "__main__":
    sys.exit(main())
