"""Making a plan real, and taking it back, so that it may stop anywhere.

1. The engine knows cells, refreshes and boots. It knows nothing of devices, guests or why.
2. Nothing is written before every cell has been read. A cell with neither the text before nor the text after is
   somebody else's (`Drift`): nothing is touched, and the three texts are shown.
3. `start`, `advance` and `undo` may be called by anybody, at any time, twice: one lock lets one in, and the journal and
   the cells themselves say what is left to do. Replay after a killed process is the same call again.
4. After an unexpected reboot while the changes were being made the way is back, never forward.
5. A failure on the way there turns the run back by itself, once. A failure on the way back makes it STUCK, with the
   words that explain it; a person may ask for the way back again.
6. The refreshes run again after the way back, even when they were what failed.
7. An unreadable cell is no answer. On the way there the run waits where it is; on the way back it is STUCK.
8. A reboot undoes what lives until reboot: such cells have no way back in a later boot.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Iterable, Iterator
from dataclasses import replace
from datetime import datetime, timedelta

from ..errors import Exit, Failure
from ..host.base import Busy, Host, HostError, read_text
from ..model.plan import UNTIL_REBOOT, Change, Plan, binary
from ..model.run import Kind, Phase, Run
from . import journal
from .candidates import judge_candidates
from .cells import may_be_between, read_cell, same_text, write_cell
from .refresh import check_known, check_room, run_refresh

LOCK = "/run/pve-passthrough/lock"
"""Not in /run/lock, where everybody may put a file: a lock that is somebody else's cannot be opened there, not even by
root (kernel, Documentation/admin-guide/sysctl/fs.rst, protected_regular), or can be held for ever."""
SHOWN_LINES = 12
_STAMP = "%Y%m%d-%H%M%S"


class Drift(Failure):
    """A cell holds neither of the plan's two texts."""


class _Course:
    """A run on its way: the host, and the run as it is recorded so far."""

    def __init__(self, host: Host, run: Run) -> None:
        self.host = host
        self.run = run

    def tell(self, kind: Kind, detail: str = "") -> None:
        """Record an event, durably, before anything else happens. Raises Unrecorded."""
        self.run = journal.record(self.host, self.run, kind, detail)


# -- what anybody may call -----------------------------------------------------------------------


def start(host: Host, plan: Plan) -> Run:
    """Carry out a plan until it is KEPT, UNDONE, STUCK or waits for a reboot.

    Raises Failure with nothing changed: `run.locked`, `run.other-machine`, `run.unfinished`, `run.exists`,
    `plan.drift`, `plan.no-space`, `plan.bad-text`, `plan.unjudged`, `cell.unreadable`, `refresh.unknown`.
    Raises Unrecorded when the journal cannot be written; `advance` goes on from there.
    """
    with _locked(host):
        _check_machine(host, plan)
        _check_none_unfinished(host, "")
        check_known(plan.refreshes)
        survey(host, plan.changes)
        notes = (*check_room(host, plan.refreshes), *judge_candidates(host, plan.changes))
        course = _Course(host, journal.create(host, _latest(host, plan)))
        for note in notes:
            course.tell(Kind.NOTED, note)
        return _drive(course)


def _latest(host: Host, plan: Plan) -> Plan:
    """The plan under a name that sorts after every run there is, so that the newest run is the one to undo first.

    A plan is named after the second in which it was made: two may share it, and a saved one may run much later. The
    very plan of a run that there is keeps its name: it is not to run twice.
    """
    runs = journal.run_ids(host)
    newest = max(filter(None, map(_made, runs)), default=None)
    if newest is None or _made(plan.id) is None or plan.id > max(runs) or _is_run(host, plan, runs):
        return plan
    later = newest + timedelta(seconds=1)
    return replace(plan, id=later.strftime(_STAMP) + plan.id[15:])


def _is_run(host: Host, plan: Plan, runs: Iterable[str]) -> bool:
    """Whether this plan, and not merely its name, is that of a run; also when nobody can say."""
    if plan.id not in runs:
        return False
    try:
        return journal.load(host, plan.id).plan == plan
    except Failure:
        return True


def _made(run_id: str) -> datetime | None:
    """The second that a run is named after: 20261121-140501-gpu-100."""
    with contextlib.suppress(ValueError):
        return datetime.strptime(run_id[:15], _STAMP)
    return None


def advance(host: Host, run_id: str) -> Run:
    """Take the run as far as it goes now; a run that has ended, or waits for a reboot, is returned as it is.

    Raises Failure `run.locked`, `run.missing`, `run.unreadable`, `run.other-machine`, `cell.unreadable`, Unrecorded.
    """
    with _locked(host):
        return _advance(host, journal.load(host, run_id))


def resume(host: Host, patience: float = 0.0) -> Run | None:
    """Advance the unfinished run, if there is one; this is what the boot unit calls. Raises as `advance` does.

    patience  seconds to wait for the cluster's quorum when the run concerns guests or mappings: early in a boot
              /etc/pve is there and read-only, and a way back that fails for that would be stuck for nothing
    """
    with _locked(host):
        run = journal.unfinished(host)
        if run is None:
            journal.finish(host)
            return None
        _await_quorum(host, run.plan, patience)
        return _advance(host, run)


def undo(host: Host, run_id: str) -> Run:
    """Take a run back, from whatever phase it is in. A run that is UNDONE is returned as it is.

    Raises Failure with nothing changed: `run.locked`, `run.missing`, `run.unreadable`, `run.other-machine`,
    `run.unfinished` (another one), and for a run that had ended `plan.drift`, `plan.no-space`, `cell.unreadable`.
    """
    with _locked(host):
        run = journal.load(host, run_id)
        _check_machine(host, run.plan)
        _check_none_unfinished(host, run_id)
        if run.phase in (Phase.UNDONE, Phase.UNDOING, Phase.UNDO_REBOOT):
            return _advance(host, run)
        if run.ended:
            survey(host, run.way_back(journal.boot_id(host)).changes, resumed=run.phase is Phase.STUCK)
        if run.phase is Phase.KEPT:
            check_room(host, run.plan.refreshes)
        journal.mark(host, run_id)
        course = _Course(host, run)
        course.tell(Kind.UNDO_ASKED)
        return _drive(course)


def machine_name(host: Host) -> str:
    """Which machine this is: its node name, and eight digits of a hash of its machine id when that can be read.

    The id itself is confidential (machine-id(5)), so only a hash goes into plans. Raises Failure `host.nameless`.
    """
    import hashlib

    name = _word(host, "/etc/hostname") or _word(host, "/proc/sys/kernel/hostname")
    if not name:
        raise Failure("host.nameless", "the host has no readable name, so a plan could not say which machine it is for")
    node = name.partition(".")[0]
    machine = _word(host, "/etc/machine-id")
    return f"{node}-{hashlib.sha256(machine.encode()).hexdigest()[:8]}" if machine else node


# -- reading before writing ----------------------------------------------------------------------


def survey(host: Host, changes: Iterable[Change], resumed: bool = False) -> list[tuple[Change, str | None]]:
    """Read every cell. Returns each change with the text its cell has now; writes nothing.

    resumed  the changes may have been interrupted: texts between two steps of a write are ours too
    Raises Drift `plan.drift` when a cell holds a third text, Failure `cell.unreadable`.
    """
    standing = [(change, read_cell(host, change.cell)) for change in changes]
    foreign = [(change, now) for change, now in standing if not _ours(change, now, resumed)]
    if foreign:
        cells = ", ".join(str(change.cell) for change, _ in foreign)
        lines = [line for change, now in foreign for line in _three_texts(change, now)]
        raise Drift(
            "plan.drift",
            f"nothing was written: {cells} changed since the plan was made, and not by it",
            *lines,
            hint="put one of the two texts back or make a new plan",
        )
    return standing


def _ours(change: Change, now: str | None, resumed: bool) -> bool:
    cell = change.cell
    known = same_text(cell, now, change.before) or same_text(cell, now, change.after)
    return known or (resumed and may_be_between(cell, now, change))


def _three_texts(change: Change, now: str | None) -> list[str]:
    lines = [str(change.cell)]
    for title, text in (("before", change.before), ("planned", change.after), ("now", now)):
        if text is None:
            lines.append(f"  {title}: (nothing)")
            continue
        shown = (binary(text) or text).splitlines() or [""]
        lines += [f"  {title}: {line}" for line in shown[:SHOWN_LINES]]
        if len(shown) > SHOWN_LINES:
            lines.append(f"  {title}: … {len(shown) - SHOWN_LINES} more lines")
    return lines


# -- writing -------------------------------------------------------------------------------------


def settle(course: _Course, plan: Plan) -> None:
    """Read every cell, write those that are not yet `after`, read each back, run the refreshes.

    Raises Drift and `cell.unreadable` with nothing touched; `cell.write`, `cell.unchanged`, `plan.no-space`,
    `refresh.failed` half-way; Unrecorded.
    """
    _carry_out(course, plan, survey(course.host, plan.changes, resumed=True))


def _carry_out(course: _Course, plan: Plan, standing: list[tuple[Change, str | None]]) -> None:
    for change, now in standing:
        if not same_text(change.cell, now, change.after):
            _write(course, change, now)
    for note in check_room(course.host, plan.refreshes):
        course.tell(Kind.NOTED, note)
    for name in plan.refreshes:
        run_refresh(course.host, name)
        course.tell(Kind.REFRESHED, name)


def _write(course: _Course, change: Change, surveyed: str | None) -> None:
    """Look once more, write, read back: the cells before this one may have taken a while."""
    now = read_cell(course.host, change.cell)
    if not same_text(change.cell, now, surveyed):
        raise Drift("plan.drift", f"{change.cell} was changed by somebody else meanwhile", *_three_texts(change, now))
    note = write_cell(course.host, change.cell, now, change.after)
    if note:
        course.tell(Kind.NOTED, note)
        return
    seen = read_cell(course.host, change.cell)
    if not same_text(change.cell, seen, change.after):
        raise Failure(
            "cell.unchanged",
            f"{change.cell} was written and does not hold what was written",
            *_three_texts(change, seen),
        )
    course.tell(Kind.WROTE, str(change.cell))


# -- one step for each phase ---------------------------------------------------------------------


def _drive(course: _Course) -> Run:
    """Take steps until the run has ended or waits for a reboot."""
    while (step := _STEPS.get(course.run.phase)) is not None:
        phase = course.run.phase
        step(course)
        if course.run.phase is phase:
            return course.run
    journal.finish(course.host)
    return course.run


def _apply(course: _Course) -> None:
    """APPLYING: forward within the boot that began it, back in any later one."""
    plan = course.run.plan
    if journal.boot_id(course.host) != course.run.started_boot:
        course.tell(Kind.RETREATED, "the machine was restarted while the changes were being made")
        return
    try:
        standing = survey(course.host, plan.changes, resumed=True)
    except Drift as drift:
        course.tell(Kind.STUCK, _words(drift))
        return
    try:
        _carry_out(course, plan, standing)
    except journal.Unrecorded:
        raise
    except Failure as failure:
        course.tell(Kind.RETREATED, _words(failure))
    else:
        course.tell(Kind.BOOT_NEEDED if plan.reboot else Kind.APPLIED)


def _await_boot(course: _Course) -> None:
    """REBOOT: nothing to do until the boot id changes."""
    if journal.boot_id(course.host) != course.run.last_boot:
        course.tell(Kind.BOOTED)


def _verify(course: _Course) -> None:
    """VERIFYING: every cell still as planned, every expectation true; else back."""
    try:
        wrong = _mismatches(course)
    except Drift as drift:
        course.tell(Kind.STUCK, _words(drift))
        return
    if wrong:
        course.tell(Kind.RETREATED, "\n".join(["what was planned did not come true", *wrong]))
    else:
        course.tell(Kind.VERIFIED)


def _mismatches(course: _Course) -> list[str]:
    """What is not as planned, in words. Raises Drift, and Failure `cell.unreadable`."""
    host, run = course.host, course.run
    rebooted = journal.boot_id(host) != run.started_boot
    lasting = [change for change in run.plan.changes if not (rebooted and change.cell.kind in UNTIL_REBOOT)]
    reset = [change for change in run.plan.changes if rebooted and change.cell.kind in UNTIL_REBOOT]
    wanted = [(change.cell, change.after, now) for change, now in survey(host, lasting, resumed=True)]
    wanted += [(change.cell, change.after, read_cell(host, change.cell)) for change in reset]
    wanted += [(expected.cell, expected.text, read_cell(host, expected.cell)) for expected in run.plan.expects]
    return [
        f"{cell}: {binary(now) or repr(now)} instead of {binary(text) or repr(text)}"
        for cell, text, now in wanted
        if not same_text(cell, now, text)
    ]


def _go_back(course: _Course) -> None:
    """UNDOING: the inverse plan; when the running system was booted with the changes, it takes one more boot."""
    run = course.run
    boot = journal.boot_id(course.host)
    try:
        settle(course, run.way_back(boot))
    except journal.Unrecorded:
        raise
    except Failure as failure:
        course.tell(Kind.STUCK, _words(failure))
        return
    course.tell(Kind.BOOT_NEEDED if run.plan.reboot and boot != run.started_boot else Kind.RESTORED)


def _arrive_back(course: _Course) -> None:
    """UNDO_REBOOT: after the boot, every cell must hold the text it had before the run."""
    boot = journal.boot_id(course.host)
    if boot == course.run.last_boot:
        return
    back = course.run.way_back(boot)
    try:
        standing = survey(course.host, back.changes)
    except Failure as failure:
        course.tell(Kind.STUCK, _words(failure))
        return
    wrong = [str(change.cell) for change, now in standing if not _is_back(change, now)]
    if wrong:
        course.tell(Kind.STUCK, f"taken back, and changed again by somebody: {', '.join(wrong)}")
    else:
        course.tell(Kind.RESTORED)


def _is_back(change: Change, now: str | None) -> bool:
    """A directory that others have moved into stays, and that is as far back as it goes."""
    return same_text(change.cell, now, change.after) or (change.cell.kind == "dir" and change.after is None)


_STEPS = {
    Phase.APPLYING: _apply,
    Phase.REBOOT: _await_boot,
    Phase.VERIFYING: _verify,
    Phase.UNDOING: _go_back,
    Phase.UNDO_REBOOT: _arrive_back,
}


def _advance(host: Host, run: Run) -> Run:
    _check_machine(host, run.plan)
    return _drive(_Course(host, run))


def _words(failure: Failure) -> str:
    return "\n".join((failure.problem.message, *failure.problem.context))


# -- who may begin -------------------------------------------------------------------------------


@contextlib.contextmanager
def _locked(host: Host) -> Iterator[None]:
    """One at a time. Raises Failure `run.locked` (Exit.LOCKED), `host.read-only` (Exit.REFUSED)."""
    if not host.changeable:
        message = f"nothing was changed: {host.name} can only be looked at"
        raise Failure("host.read-only", message, code=Exit.REFUSED)
    with contextlib.ExitStack() as stack:
        try:
            stack.enter_context(host.lock(LOCK))
        except Busy as error:
            message = "nothing was changed: another pve-passthrough is at work on this machine"
            raise Failure("run.locked", message, str(error), hint="wait for it to end", code=Exit.LOCKED) from error
        except HostError as error:
            raise Failure("host.read-only", "nothing was changed: no lock to be had", str(error)) from error
        yield


def _check_machine(host: Host, plan: Plan) -> None:
    here = machine_name(host)
    if plan.machine != here:
        raise Failure(
            "run.other-machine",
            f"nothing was changed: plan {plan.id} was made for {plan.machine}, and this is {here}",
            hint="make the plan on this machine",
            code=Exit.REFUSED,
        )


def _check_none_unfinished(host: Host, but: str) -> None:
    other = journal.unfinished(host)
    if other is not None and other.id != but:
        raise Failure(
            "run.unfinished",
            f"nothing was changed: run {other.id} has not ended, it is in phase '{other.phase.value}'",
            hint=f"`pve-passthrough resume` takes it on, `pve-passthrough undo {other.id}` takes it back",
            code=Exit.REFUSED,
        )


def _await_quorum(host: Host, plan: Plan, patience: float) -> None:
    """pmxcfs tells quorum in /etc/pve/.members; a machine without a cluster has no such entry there."""
    if not any(change.cell.kind in ("vm", "mapping", "vmstate") for change in plan.changes):
        return
    deadline = time.monotonic() + patience
    while _lacks_quorum(host) and time.monotonic() < deadline:
        time.sleep(1.0)


def _lacks_quorum(host: Host) -> bool:
    try:
        members = json.loads(read_text(host, "/etc/pve/.members"))
        return not members.get("cluster", {}).get("quorate", 1)
    except (HostError, ValueError, AttributeError):
        return False


def _word(host: Host, path: str) -> str:
    try:
        return read_text(host, path).strip()
    except HostError:
        return ""
