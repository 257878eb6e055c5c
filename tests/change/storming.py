"""Playing the storm on every core, and telling how it ended.

1. Templates are made once, before the workers are forked; each worker has its own benches.
2. A play that ended badly is shown with its faults and its effects, and the others go on.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import signal
import sys
import time
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from itertools import islice
from pathlib import Path

from tests.change import scenarios, storm
from tests.change.storm import Broken, Scenario, Script

ENDINGS = ("kept", "undone", "stuck", "not-begun")
SHOWN = 5
"""Plays that ended badly, shown in full."""
MANY = 1_000_000_000

Task = tuple[int, Script]


@dataclass(slots=True)
class Row:
    """What is known about one scenario."""

    scenario: Scenario
    log: list[str]
    endings: Counter[str] = field(default_factory=Counter)
    doubly: int = 0
    """Runs in which two faults struck."""


_ROWS: list[Row] = []
"""Known to the workers by being forked."""


def main(arguments: Sequence[str]) -> int:
    options = _options(arguments)
    sys.argv[0] = str(Path(__file__).resolve().parents[2] / "pve-passthrough")  # the boot unit's text names it
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that the scratch folder goes
    began = time.perf_counter()
    wanted = [one for one in scenarios.every() if not options.words or any(word in one.name for word in options.words)]
    _ROWS[:] = [Row(scenario, storm.effects(scenario)) for scenario in wanted]
    if not _ROWS:
        print("no scenario has such a name", file=sys.stderr)
        return 2
    broken: list[str] = []
    _storm(_fixed(options.full, options.minutes is not None), broken, MANY)
    told = time.perf_counter() - began
    if options.minutes is not None:
        print(f"every single fault in {told:.0f} s; random pairs for {options.minutes:g} minutes, seed {options.seed}")
        _storm(_random(options.seed), broken, time.perf_counter() + options.minutes * 60)
    _table()
    total = sum(row.endings.total() for row in _ROWS)
    print(f"{total} runs in {time.perf_counter() - began:.0f} s, {len(broken)} ended badly")
    return 1 if broken else 0


def _options(arguments: Sequence[str]) -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="storm", description="Inject faults into whole runs and judge every ending.")
    parser.add_argument(
        "--minutes", type=float, metavar="N", help="after all single faults, random pairs for N minutes"
    )
    parser.add_argument("--full", action="store_true", help="every pair (hours on simulated hosts)")
    parser.add_argument("--seed", type=int, default=int(time.time()), help="of the random pairs")
    parser.add_argument("words", nargs="*", metavar="WORD", help="only scenarios whose names hold a word")
    return parser.parse_args(arguments)


def _fixed(full: bool, only_singles: bool) -> Iterator[Task]:
    for number, row in enumerate(_ROWS):
        scripts = list(storm.singles(row.log))
        if full:
            scripts += storm.pairs(row.log)
        elif not only_singles:
            scripts += islice(storm.random_pairs(row.log, seed=1), scenarios.pairs_of(row.scenario))
        yield from ((number, script) for script in scripts)


def _random(seed: int) -> Iterator[Task]:
    endless = [storm.random_pairs(row.log, seed + number) for number, row in enumerate(_ROWS)]
    while True:
        yield from ((number, next(scripts)) for number, scripts in enumerate(endless))


def _storm(tasks: Iterable[Task], broken: list[str], until: float) -> None:
    """Play on every core until the tasks or the time come to an end."""
    tasks = iter(tasks)
    with multiprocessing.get_context("fork").Pool(os.cpu_count() or 1, _die_quietly) as pool:
        while time.perf_counter() < until and (chunk := list(islice(tasks, 400))):
            for number, ending, struck, words in pool.imap_unordered(_work, chunk, chunksize=8):
                _ROWS[number].endings[ending] += 1
                _ROWS[number].doubly += struck > 1
                if words:
                    broken.append(words)
                    print(words if len(broken) <= SHOWN else words.splitlines()[0], flush=True)


def _die_quietly() -> None:
    """In a worker: the scratch folder is its parent's."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)


def _work(task: Task) -> tuple[int, str, int, str]:
    """The row, how the run ended, how many faults struck, and the words of a bad ending."""
    number, script = task
    try:
        return number, *storm.strike(_ROWS[number].scenario, script), ""
    except Broken as error:
        return number, "badly", 0, str(error)


def _table() -> None:
    columns = ENDINGS if not any(row.endings["badly"] for row in _ROWS) else (*ENDINGS, "badly")
    _line("scenario", "effects", "runs", *(name.upper() for name in columns), "two faults")
    for row in _ROWS:
        counts = [row.endings[name] for name in columns]
        _line(row.scenario.name, len(row.log), row.endings.total(), *counts, row.doubly)
    sums = [sum(row.endings[name] for row in _ROWS) for name in columns]
    _line("total", sum(len(row.log) for row in _ROWS), sum(sums), *sums, sum(row.doubly for row in _ROWS))


def _line(name: str, *values: object) -> None:
    print(f"{name:<26}" + "".join(f"{value!s:>11}" for value in values))
