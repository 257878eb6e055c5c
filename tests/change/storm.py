"""The fault storm: every effect of a run fails, is killed or loses its power, and the host must still end well.

1. A scenario is a world, a plan and a story (make it real, or take it back). It is played without faults once, to count
   its effects; then once for each effect and each fault, and for pairs, the second fault during the recovery.
2. After each play the run has ended as KEPT (all after), UNDONE (every byte that survives a power cut as before, and
   every refresh newer than the last write) or STUCK (each cell one of its two texts, foreign texts untouched, and the
   way back works once nothing fails any more), or it never began and nothing differs.
3. `python -m tests.change.storm` plays what the quick suite plays and prints counts; `--full` plays every pair.
"""

from __future__ import annotations

import random
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Protocol

from pve_passthrough import change
from pve_passthrough.change.cells import may_be_between
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Host, text_or_none
from pve_passthrough.model.plan import UNTIL_REBOOT, Plan
from pve_passthrough.model.run import Kind, Phase, Run
from tests.hosts import faulty
from tests.hosts.faulty import APPEND_ONLY, Fault, Faulty, Killed, PowerCut

SINGLES = (
    *(Fault(kind, after) for kind in (faulty.KILL, faulty.POWER_CUT, faulty.FAIL) for after in (False, True)),
    *(Fault(kind, after) for kind in APPEND_ONLY for after in (False, True)),
    Fault(faulty.MEDDLE),
)
FAILING = (faulty.FAIL, faulty.SHORT)
CALLS = 16
"""More calls than this before a run has ended is a failure of its own."""

Script = Mapping[int, Fault]


class World(Protocol):
    """A machine to play on. `lasting` is everything that survives a power cut, without our own records."""

    host: Host

    def power_cut(self) -> None: ...

    def lasting(self) -> Mapping[str, bytes]: ...

    def refreshed(self) -> bool: ...

    def meddle(self) -> None: ...

    def meddled(self) -> bool: ...

    def close(self) -> None: ...


@dataclass(frozen=True, slots=True)
class Scenario:
    """before_faults: calls made while nothing fails (the run's earlier life); act: the call that meets the faults."""

    name: str
    world: Callable[[], World]
    plan: Callable[[World], Plan]
    act: Callable[[Host, Plan], Run]
    before_faults: Callable[[World, Plan], None] = lambda world, plan: None
    keeps: bool = True
    """Whether the run is KEPT when nothing fails; else UNDONE."""


class Broken(AssertionError):
    """A play that ended badly."""


def apply(host: Host, plan: Plan) -> Run:
    return change.start(host, plan)


def take_back(host: Host, plan: Plan) -> Run:
    return change.undo(host, plan.id)


def until_ended(world: World, plan: Plan) -> None:
    """Make the plan real without faults."""
    run: Run | None = change.start(world.host, plan)
    while run is not None and not run.ended:
        world.power_cut()
        run = change.resume(world.host)


def until_reboot(world: World, plan: Plan) -> None:
    """Make the plan real up to the moment where it waits for its reboot."""
    assert change.start(world.host, plan).phase is Phase.REBOOT


# -- one play ------------------------------------------------------------------------------------


@dataclass(slots=True)
class Play:
    """What one play looked like: the faulty host, the texts before, whether the power went, how the run ended."""

    scenario: Scenario
    world: World
    plan: Plan
    host: Faulty
    before: Mapping[str, bytes]
    live: tuple[str | None, ...]
    """What the running system answered to the plan's expectations before anything."""
    cut: bool = False
    run: Run | None = None

    @property
    def ending(self) -> str:
        return self.run.phase.value if self.run else "not-begun"


def play(scenario: Scenario, script: Script) -> str:
    """Play once and judge. Returns how the run ended. Raises Broken."""
    world = scenario.world()
    try:
        plan = scenario.plan(world)
        before = world.lasting()
        live = _answers(world.host, plan)
        scenario.before_faults(world, plan)
        told = Play(scenario, world, plan, Faulty(world.host, script, world.meddle), before, live)
        try:
            _act(told)
            _judge(told)
        except Exception as error:
            struck = ", ".join(f"{number}:{fault}" for number, fault in script.items())
            log = "\n  ".join(f"{number} {name}" for number, name in enumerate(told.host.log, 1))
            events = [f"{event.kind.value} {event.detail}" for event in told.run.events] if told.run else []
            raise Broken(f"{scenario.name} [{struck}]: {error!r}\n  {log}\n  {events}") from error
        return told.ending
    finally:
        world.close()


def _answers(host: Host, plan: Plan) -> tuple[str | None, ...]:
    return tuple(change.read_cell(host, expected.cell) for expected in plan.expects)


def effects(scenario: Scenario) -> list[str]:
    """The effects of the scenario when nothing fails."""
    world = scenario.world()
    try:
        plan = scenario.plan(world)
        before = world.lasting()
        live = _answers(world.host, plan)
        scenario.before_faults(world, plan)
        told = Play(scenario, world, plan, Faulty(world.host, {}), before, live)
        _act(told)
        _judge(told)
        assert told.ending == ("kept" if scenario.keeps else "undone"), told.ending
        return told.host.log
    finally:
        world.close()


def _act(told: Play) -> None:
    """Call, and call again as the boot unit or a person would, until nothing is unfinished."""
    call: Callable[[], Run | None] = lambda: told.scenario.act(told.host, told.plan)  # noqa: E731
    for _ in range(CALLS):
        try:
            run = call()
        except Killed:
            pass
        except PowerCut:
            _reboot(told)
        except Failure:
            pass  # told to the person, who calls again
        else:
            if run is None or run.ended:
                break
            _reboot(told)
        call = lambda: change.resume(told.host)  # noqa: E731
    else:
        raise AssertionError(f"not ended after {CALLS} calls")
    told.run = _loaded(told)


def _reboot(told: Play) -> None:
    """The boot unit starts only when its condition is met, so nothing unfinished may lie there without the marker."""
    told.cut = True
    told.world.power_cut()
    if text_or_none(told.world.host, change.MARKER) is None:
        assert change.unfinished(told.world.host) is None, "an unfinished run that no boot would take on"


def _loaded(told: Play) -> Run | None:
    """The run as it lies on the disk; None when it never began."""
    listing = change.all_runs(told.world.host)
    assert not listing.problems, listing.problems
    return next((run for run in listing.runs if run.id == told.plan.id), None)


# -- what must be true afterwards ----------------------------------------------------------------


def _judge(told: Play) -> None:
    host = told.world.host
    failed = sum(fault.kind in FAILING for fault in told.host.fired)
    meddled = any(fault.kind == faulty.MEDDLE for fault in told.host.fired)
    if meddled:
        assert told.world.meddled(), "a foreign text was overwritten"
    assert change.unfinished(host) is None
    assert change.resume(host) is None, "resuming what has ended does nothing"
    assert told.run is None or told.run.retreats <= 1
    phase = told.run.phase if told.run else None
    if phase is Phase.KEPT:
        _forward_in_one_boot(told)
        _all_after(told, meddled)
    elif phase is Phase.UNDONE or phase is None:
        _all_before(told, meddled)
    else:
        assert phase is Phase.STUCK
        assert failed or meddled, "nothing failed, and yet the run is stuck"
        assert meddled or len(told.host.fired) > 1 or not told.scenario.keeps, (
            "one failure on the way there must lead back"
        )
        assert told.run is not None and told.run.reason
        _way_back_is_open(told, meddled)


def _forward_in_one_boot(told: Play) -> None:
    """After an unexpected reboot while the changes were being made: back, never forward."""
    assert told.run is not None
    boots = set()
    for event in told.run.events:
        boots.add(event.boot_id)
        if event.kind in (Kind.APPLIED, Kind.BOOT_NEEDED):
            break
    assert len(boots) == 1, "forward after an unexpected reboot"


def _all_after(told: Play, meddled: bool) -> None:
    """Somebody who meddles after the last look has changed one cell, and that is theirs."""
    host = told.world.host
    wrong = []
    for one in told.plan.changes:
        now = change.read_cell(host, one.cell)
        if not (told.cut and one.cell.kind in UNTIL_REBOOT) and not change.same_text(one.cell, now, one.after):
            wrong.append((str(one.cell), now))
    assert len(wrong) <= meddled, wrong
    for expected in told.plan.expects:
        if not (told.cut and expected.cell.kind in UNTIL_REBOOT and not told.plan.reboot):
            assert change.read_cell(host, expected.cell) == expected.text, str(expected.cell)
    assert meddled or told.world.refreshed(), "a refresh is older than the last write"


def _all_before(told: Play, meddled: bool) -> None:
    for one in told.plan.changes:
        if not (told.cut and one.cell.kind in UNTIL_REBOOT):
            now = change.read_cell(told.world.host, one.cell)
            assert change.same_text(one.cell, now, one.before) or meddled, (str(one.cell), now)
    if meddled:
        return
    after = told.world.lasting()
    different = {name for name in {*after, *told.before} if after.get(name) != told.before.get(name)}
    assert not different, f"not as before: {sorted(different)}"
    if told.plan.reboot:
        assert _answers(told.world.host, told.plan) == told.live, "the running system still has the changes"
    assert told.world.refreshed(), "a refresh is older than the last write"


def _way_back_is_open(told: Play, meddled: bool) -> None:
    """A stuck run holds no torn text; when nothing fails any more, and nobody meddled, it can be taken back."""
    host = told.world.host
    foreign = 0
    for one in told.plan.changes:
        now = change.read_cell(host, one.cell)
        known = any(change.same_text(one.cell, now, text) for text in (one.before, one.after))
        reset = told.cut and one.cell.kind in UNTIL_REBOOT
        foreign += not (known or reset or may_be_between(one.cell, now))
    assert foreign <= meddled, "a cell holds neither of its texts"
    if meddled:
        return
    run: Run | None = change.undo(host, told.plan.id)
    if run is not None and run.phase is Phase.UNDO_REBOOT:
        told.cut = True
        told.world.power_cut()
        run = change.resume(host)
    assert run is not None and run.phase is Phase.UNDONE, run
    _all_before(told, meddled=False)


# -- many plays ----------------------------------------------------------------------------------


def singles(log: list[str]) -> Iterator[Script]:
    """Every effect with every fault that can strike it."""
    for number, name in enumerate(log, 1):
        for fault in SINGLES:
            if fault.kind not in APPEND_ONLY or name.startswith("append"):
                yield {number: fault}


def pairs(log: list[str]) -> Iterator[Script]:
    """Every single fault with every second one; the recovery may be longer than the undisturbed run.

    Before the run's first event nothing is recovered, so no second fault could strike.
    """
    begins = next(number for number, name in enumerate(log, 1) if name.startswith("append"))
    for first in singles(log):
        (number,) = first
        if number < begins:
            continue
        for second in range(number + 1, number + len(log) + 8):
            for fault in SINGLES:
                yield {**first, second: fault}


def sample(scripts: Iterator[Script], count: int, seed: int) -> list[Script]:
    """`count` scripts, evenly spread, from a start that `seed` chooses."""
    known = list(scripts)
    chosen = random.Random(seed)
    stride = max(1, len(known) // count)
    return [known[min(len(known) - 1, at + chosen.randrange(stride))] for at in range(0, len(known), stride)]


def storm(scenario: Scenario, pair_count: int | None, seed: int = 1) -> Counter[str]:
    """Play all singles and `pair_count` pairs (None: all). Returns how often each ending came. Raises Broken."""
    log = effects(scenario)
    scripts: list[Script] = list(singles(log))
    scripts += list(pairs(log)) if pair_count is None else sample(pairs(log), pair_count, seed)
    return Counter(play(scenario, script) for script in scripts)


def main(arguments: list[str]) -> int:
    from tests.change import scenarios

    full = "--full" in arguments
    wanted = [word for word in arguments if not word.startswith("-")]
    total = 0
    for scenario in scenarios.every():
        if wanted and not any(word in scenario.name for word in wanted):
            continue
        began = time.perf_counter()
        endings = storm(scenario, None if full else scenarios.pairs_of(scenario))
        took = time.perf_counter() - began
        runs = sum(endings.values())
        total += runs
        told = "  ".join(f"{name} {count}" for name, count in sorted(endings.items()))
        print(f"{scenario.name:<24} {runs:>7} runs  {told}  ({took * 1000 / runs:.1f} ms a run)", flush=True)
    print(f"{total} runs, every one ended well")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
