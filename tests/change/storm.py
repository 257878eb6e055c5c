"""The fault storm: every effect of a run fails, is killed or loses its power, and the host must still end well.

1. A scenario is a world, a plan and a story (make it real, or take it back). It is played without faults once, to count
   its effects; then once for each effect and each fault, and for pairs, the second fault during what follows.
2. After each play the run has ended as KEPT (all after), UNDONE (every byte that survives a power cut as before, and
   every refresh newer than the last write) or STUCK (each cell one of its two texts, foreign texts untouched, and the
   way back works once nothing fails any more), or it never began and nothing differs. After one more start the machine
   runs as it ran before, or as an undisturbed run leaves it.
3. However it ended, the boot unit and its marker are gone when the last call has returned. A call of the program that
   fails before anything has begun leaves neither of them behind.
4. `python -m tests.change.storm [--minutes N] [--full] [--seed N] [WORD…]` plays every single fault and a sample of
   pairs on the scenarios whose names hold a WORD; random pairs for N minutes; or every pair.
"""

from __future__ import annotations

import random
from collections import Counter
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import islice
from typing import Protocol

from pve_passthrough import change
from pve_passthrough.change.cells import may_be_between
from pve_passthrough.change.journal import boot_id
from pve_passthrough.change.refresh import REFRESHES
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Host
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
    """A machine to play on."""

    host: Host

    def faulty(self, script: Script) -> Faulty:
        """The host, with faults."""

    def power_cut(self) -> None:
        """Lose what is volatile, and start."""

    def is_taken_on(self) -> bool:
        """Whether the boot unit is due: the machine has just started and its condition holds."""

    def lasting(self) -> Mapping[str, bytes]:
        """Everything that survives a power cut, without our own records."""

    def running(self) -> Mapping[str, str]:
        """What a start decides."""

    def lasting_when(self, kept: bool) -> Mapping[str, bytes] | None:
        """What lasts after an undisturbed run, or (not kept) before any; None where a world does not know."""

    def running_when(self, kept: bool) -> Mapping[str, str]:
        """How it then runs when it is started once more."""

    def traces(self) -> list[str]:
        """What is still there of what a run needs only while it is unfinished."""

    def refreshed(self) -> bool:
        """Whether every refresh is newer than the last write."""

    def meddle(self) -> None:
        """Somebody else edits what the plan edits."""

    def meddled(self) -> bool: ...

    def close(self) -> None: ...


def take_back(host: Host, plan: Plan) -> Run:
    return change.undo(host, plan.id)


@dataclass(frozen=True, slots=True)
class Drive:
    """Who calls what: the engine by itself, or the program.

    go_on      what happens next while something is unfinished: the boot unit's call, or a person's
    restart    the restart that a plan asked for
    take_back  a person asks for the way back
    """

    go_on: Callable[[World, Host], Run | None]
    restart: Callable[[World, Host], None]
    take_back: Callable[[Host, Plan], Run]


ENGINE = Drive(lambda world, host: change.resume(host), lambda world, host: world.power_cut(), take_back)


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
    drive: Drive = ENGINE


class Broken(AssertionError):
    """A play that ended badly."""


def apply(host: Host, plan: Plan) -> Run:
    return change.start(host, plan)


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
    boot: str
    events: int
    """How many events the run had before the faults."""
    cut: bool = False
    foreign_boot: bool = False
    """Whether the machine was started with a foreign text in place, which decides how it runs then."""
    run: Run | None = None

    @property
    def ending(self) -> str:
        return self.run.phase.value if self.run else "not-begun"


def play(scenario: Scenario, script: Script) -> str:
    """Play once and judge. Returns how the run ended. Raises Broken."""
    return strike(scenario, script)[0]


def strike(scenario: Scenario, script: Script) -> tuple[str, int]:
    """The same, and how many of the faults struck: what follows the first may be over before the second."""
    told = _play(scenario, script)
    return told.ending, len(told.host.fired)


def effects(scenario: Scenario) -> list[str]:
    """The effects of the scenario when nothing fails."""
    told = _play(scenario, {})
    assert told.ending == ("kept" if scenario.keeps else "undone"), told.ending
    return told.host.log


def _play(scenario: Scenario, script: Script) -> Play:
    world = scenario.world()
    try:
        plan = scenario.plan(world)
        before = world.lasting_when(kept=False) or world.lasting()
        live = _answers(world.host, plan)
        scenario.before_faults(world, plan)
        told = Play(scenario, world, plan, world.faulty(script), before, live, boot_id(world.host), 0)
        told.events = _events(told)
        try:
            _act(told)
            _judge(told)
        except Exception as error:
            struck = ", ".join(f"{number}:{fault}" for number, fault in script.items())
            log = "\n  ".join(f"{number} {name}" for number, name in enumerate(told.host.log, 1))
            events = [f"{event.kind.value} {event.detail}" for event in told.run.events] if told.run else []
            raise Broken(f"{scenario.name} [{struck}]: {error!r}\n  {log}\n  {events}") from error
        return told
    finally:
        world.close()


def _answers(host: Host, plan: Plan) -> tuple[str | None, ...]:
    return tuple(change.read_cell(host, expected.cell) for expected in plan.expects)


def _act(told: Play) -> None:
    """Call, and call again as the boot unit or a person would, until nothing is unfinished."""
    world, drive = told.world, told.scenario.drive
    call: Callable[[], Run | None] = lambda: told.scenario.act(told.host, told.plan)  # noqa: E731
    for _ in range(CALLS):
        try:
            run = call()
            if run is None or run.ended:
                break
            drive.restart(world, told.host)
        except Killed:
            pass
        except PowerCut:
            world.power_cut()
        except Failure:
            _left_nothing(told)  # the person is told, and calls again
        _notice_boot(told)
        call = lambda: drive.go_on(world, told.host)  # noqa: E731
    else:
        raise AssertionError(f"not ended after {CALLS} calls")
    told.run = _loaded(told)


def _left_nothing(told: Play) -> None:
    """After a call that failed. (The engine by itself leaves its marker to the next call.)"""
    if told.scenario.drive is not ENGINE and len(told.host.fired) == 1 and _events(told) == told.events:
        assert not told.world.traces(), f"nothing has begun, and there is {told.world.traces()}"


def _events(told: Play) -> int:
    run = _loaded(told)
    return len(run.events) if run else 0


def _notice_boot(told: Play) -> None:
    """The boot unit starts only when its condition is met, so nothing unfinished may lie there without the marker."""
    now = boot_id(told.world.host)
    if now != told.boot:
        told.boot, told.cut = now, True
        told.foreign_boot = any(fault.kind == faulty.MEDDLE for fault in told.host.fired)
        if not told.world.is_taken_on():
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
    assert not told.world.traces(), f"left behind: {told.world.traces()}"
    if meddled:
        assert told.world.meddled(), "a foreign text was overwritten"
    assert change.unfinished(host) is None
    assert told.scenario.drive.go_on(told.world, host) is None, "resuming what has ended does nothing"
    assert told.run is None or told.run.retreats <= 1
    phase = told.run.phase if told.run else None
    if phase in (Phase.KEPT, Phase.UNDONE):
        _refreshed_after_the_last_write(told)
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


def _refreshed_after_the_last_write(told: Play) -> None:
    """By the log alone: after the last attempt to write a file each refresh went through undisturbed."""
    paths = {one.cell.name for one in told.plan.changes if one.cell.kind in ("file", "script")}
    wrote = [number for number, name in enumerate(told.host.log, 1) if name.removeprefix("write ") in paths]
    for name in told.plan.refreshes if wrote else ():
        command = f"run {' '.join(REFRESHES[name].argv[:4])}"
        ran = [number for number, name in enumerate(told.host.log, 1) if name == command and number in told.host.done]
        assert ran and ran[-1] > wrote[-1], f"{name} did not run after the last write"


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
    for expected in () if told.foreign_boot else told.plan.expects:
        if not (told.cut and expected.cell.kind in UNTIL_REBOOT and not told.plan.reboot):
            assert change.read_cell(host, expected.cell) == expected.text, str(expected.cell)
    if meddled:
        return
    assert told.world.refreshed(), "a refresh is older than the last write"
    _lasts(told, told.world.lasting_when(kept=True))
    _runs(told, kept=True)


def _lasts(told: Play, wanted: Mapping[str, bytes] | None) -> None:
    if wanted is not None:
        now = told.world.lasting()
        different = {name for name in {*now, *wanted} if now.get(name) != wanted.get(name)}
        assert not different, f"not as it should be: {sorted(different)}"


def _runs(told: Play, kept: bool) -> None:
    """After one more start."""
    told.world.power_cut()
    assert not told.world.is_taken_on(), "the boot unit starts though nothing is unfinished"
    now, wanted = told.world.running(), told.world.running_when(kept)
    different = {name: (now.get(name), wanted.get(name)) for name in wanted if now.get(name) != wanted.get(name)}
    assert now == wanted, f"it runs differently: {different}"


def _all_before(told: Play, meddled: bool) -> None:
    for one in told.plan.changes:
        if not (told.cut and one.cell.kind in UNTIL_REBOOT):
            now = change.read_cell(told.world.host, one.cell)
            assert change.same_text(one.cell, now, one.before) or meddled, (str(one.cell), now)
    if meddled:
        return
    _lasts(told, told.before)
    if told.plan.reboot:
        assert _answers(told.world.host, told.plan) == told.live, "the running system still has the changes"
    assert told.world.refreshed(), "a refresh is older than the last write"
    _runs(told, kept=False)


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
    run: Run | None = told.scenario.drive.take_back(host, told.plan)
    if run is not None and run.phase is Phase.UNDO_REBOOT:
        told.cut = True
        told.scenario.drive.restart(told.world, host)
        run = told.scenario.drive.go_on(told.world, host)
    assert run is not None and run.phase is Phase.UNDONE, run
    assert not told.world.traces(), f"left behind: {told.world.traces()}"
    _all_before(told, meddled=False)


# -- many plays ----------------------------------------------------------------------------------


def singles(log: list[str]) -> Iterator[Script]:
    """Every effect with every fault that can strike it."""
    for number, name in enumerate(log, 1):
        for fault in SINGLES:
            if fault.kind not in APPEND_ONLY or name.startswith("append"):
                yield {number: fault}


def pairs(log: list[str]) -> Iterator[Script]:
    """Every single fault with every second one; what follows may be longer than the undisturbed run."""
    for first in singles(log):
        (number,) = first
        for second in range(number + 1, number + len(log) + 8):
            for fault in SINGLES:
                yield {**first, second: fault}


def sample(scripts: Iterator[Script], count: int, seed: int) -> list[Script]:
    """`count` scripts, evenly spread, from a start that `seed` chooses."""
    known = list(scripts)
    chosen = random.Random(seed)
    stride = max(1, len(known) // count)
    return [known[min(len(known) - 1, at + chosen.randrange(stride))] for at in range(0, len(known), stride)]


def random_pairs(log: list[str], seed: int) -> Iterator[Script]:
    """Pairs without end; the second fault comes rather soon, for what follows the first may be short."""
    chosen = random.Random(seed)
    firsts = list(singles(log))
    while True:
        (first,) = (script := chosen.choice(firsts))
        second = first + 1 + int(chosen.expovariate(1 / 12))
        yield {**script, second: chosen.choice(SINGLES)}


def storm(scenario: Scenario, single_count: int, pair_count: int, seed: int = 1) -> Counter[str]:
    """Play about so many singles and pairs. Returns how often each ending came. Raises Broken."""
    log = effects(scenario)
    scripts = [*sample(singles(log), single_count, seed), *islice(random_pairs(log, seed), pair_count)]
    return Counter(play(scenario, script) for script in scripts)


if __name__ == "__main__":
    import sys

    from tests.change.storming import main

    sys.exit(main(sys.argv[1:]))
