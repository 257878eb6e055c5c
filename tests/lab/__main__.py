"""Run the lab: `python -m tests.lab [--minutes N] [--list] [SCENARIO …]`.

Exit: 0 every scenario that was tried passed · 1 something failed, or nothing could be tried · 2 usage.
"""

from __future__ import annotations

import argparse
import shutil
import sys
import tempfile
import time
from pathlib import Path

from . import programs, scenarios
from .images import Workshop
from .lab import Lab
from .programs import LabError
from .report import Broken, Report
from .scenarios import Scenario

MINUTES = 25.0
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
    with tempfile.TemporaryDirectory(prefix="pve-passthrough-lab-", dir=asked.scratch) as folder:
        if shutil.disk_usage(folder).free < _ROOM:
            print(f"the lab cannot run here: {folder} has less than {_ROOM >> 30} GiB free", file=sys.stderr)
            return 1
        _all(report, Path(folder), [one for one in scenarios.ALL if not asked.only or one.name in asked.only])
    print(report.table())
    return 1 if report.failed else 0


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
