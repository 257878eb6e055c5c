"""diagnose --watch: what the kernel and Proxmox VE say while a guest starts, as it comes.

1. Logs are followed by asking again, from where the last answer ended: a host runs programs to their end only.
2. The start is the person's, or `qm start` once, after the same guard as every start of this program. Nothing else is
   changed, and nothing is stopped when the watch ends.
3. It ends when the guest's agent answers, when a start has failed, or when patience is over.
"""

from __future__ import annotations

import re
import threading
import time
from collections.abc import Callable, Iterator
from enum import Enum
from typing import TYPE_CHECKING

from ..diagnosis.stream import scan
from ..errors import Exit, Failure
from ..host.base import Host, HostError
from ..model.diagnosis import Observation
from ..model.value import dataclass
from .evidence import Task, log_path, said, task_name, tasks_of

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.vm import Vm

PATIENCE = 300.0
START_LIMIT = 600.0
"""Seconds that `qm start` may take: with a device all memory is pinned first."""
AGENTLESS = 20.0
"""Seconds for which a guest without an agent is still watched after its start."""
_CURSOR = re.compile(r"^-- cursor: (\S+)$", re.M)
_FOLLOW = ("journalctl", "-k", "-b", "-o", "short-monotonic", "--no-pager", "--show-cursor")
KERNEL = "kernel log"


class Ended(Enum):
    WORKS = "works"
    """It runs, and its agent answers."""
    RUNS = "runs"
    """It runs; whether its system is up, nobody said."""
    FAILED = "failed"
    TIMEOUT = "timeout"


@dataclass(frozen=True, slots=True)
class Said:
    """Something new: a line that the catalogue knows (`sign`), or what became of the start (`text`)."""

    text: str = ""
    sign: Observation | None = None


Tell = Callable[[Said], None]


def watch(
    host: Host,
    vmid: int,
    *,
    tell: Tell,
    start: bool = False,
    patience: float = PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Ended:
    """Follow one start. Raises Failure when the guest is not there, runs already, or must not be started."""
    vm = _startable(host, vmid, start)
    follower = _Follower(host, vmid)
    starter = _Starter(host, vmid) if start else None
    tell(Said(f"guest {vmid} is being started" if start else f"waiting for a start of guest {vmid}: press Start"))
    if starter is not None:
        starter.go()
    end, up_since = clock() + patience, None
    while True:
        finished = starter is None or starter.over
        for one in follower.news():
            tell(one)
        if follower.failed and finished:
            return Ended.FAILED
        if _runs(host, vmid) and finished:
            if up_since is None:
                up_since = clock()
                tell(Said(f"guest {vmid} runs; waiting for its agent"))
            if _answers(host, vm):
                return Ended.WORKS
            if not _has_agent(vm) and clock() - up_since >= AGENTLESS:
                return Ended.RUNS
        elif starter is not None and starter.over and starter.refused:
            tell(Said(starter.refused))
            return Ended.FAILED
        if clock() >= end:
            return Ended.RUNS if up_since is not None else Ended.TIMEOUT
        sleep(1.0)


def _startable(host: Host, vmid: int, start: bool) -> Vm:
    """The guest, which does not run. With `start` the guard of every start has looked at it."""
    from . import look

    facts: Facts = look(host)
    vm = facts.guest(vmid)
    if vm is None:
        raise Failure("guest.missing", f"Nothing was watched: this node has no guest {vmid}.",
                      hint="qm list shows the guests.", code=Exit.USAGE)  # fmt: skip
    if vm.running:
        raise Failure("watch.running", f"Nothing was watched: guest {vmid} runs already.",
                      hint=f"pve-passthrough diagnose --vm {vmid} looks at it as it is; shut it down to watch a start.",
                      code=Exit.USAGE)  # fmt: skip
    if start:
        from . import may_change
        from .hooks import refuse

        may_change(host)
        refuse(facts, vm)
    return vm


def _runs(host: Host, vmid: int) -> bool:
    from ..guest import is_running

    return bool(is_running(host, vmid))


def _answers(host: Host, vm: Vm) -> bool:
    from ..guest.agent import Silence, os_of

    return _has_agent(vm) and not isinstance(os_of(host, vm.vmid), Silence)


def _has_agent(vm: Vm) -> bool:
    """`agent: 1` and `agent: enabled=1,…` mean the same (qemu-server, Agent.pm, default_key)."""
    return (vm.value("agent") or "").split(",")[0].removeprefix("enabled=") in ("1", "on", "yes", "true")


class _Starter:
    """`qm start` beside the watch. `refused`: what it said when it failed without a task."""

    def __init__(self, host: Host, vmid: int) -> None:
        self._host, self._vmid = host, vmid
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.refused = ""

    def go(self) -> None:
        self._thread.start()

    @property
    def over(self) -> bool:
        return not self._thread.is_alive()

    def _run(self) -> None:
        try:
            ran = self._host.run(("qm", "start", str(self._vmid)), timeout=START_LIMIT)
        except HostError as error:
            self.refused = f"qm start: {error.reason}"
            return
        if not ran.ok:
            self.refused = (ran.stderr.strip() or f"qm start ended with status {ran.rc}").split("\n")[-1]


class _Follower:
    """What is new since the last question, in the kernel's log and in the guest's tasks."""

    def __init__(self, host: Host, vmid: int) -> None:
        self._host, self._vmid = host, vmid
        self._doubts: list[str] = []
        self._known = {task.upid for task in tasks_of(host, vmid, self._doubts)}
        self._told: dict[str, int] = {}
        self._ended: set[str] = set()
        self._lines = 0
        self._cursor = ""
        self._kernel_news()
        self.failed = False

    def news(self) -> Iterator[Said]:
        yield from (Said(sign=one) for one in scan((self._kernel_news().encode("utf-8", "surrogateescape"),), KERNEL))
        for task in tasks_of(self._host, self._vmid, self._doubts):
            if task.upid not in self._known and task.upid not in self._ended:
                yield from self._task_news(task)

    def _task_news(self, task: Task) -> Iterator[Said]:
        if task.upid not in self._told:
            self._told[task.upid] = 0
            yield Said(f"{task_name(task)} began")
        log = self._log(task)
        whole = len(log) if task.status else log.rfind(b"\n") + 1
        fresh, self._told[task.upid] = log[self._told[task.upid] : whole], whole
        yield from (Said(sign=one) for one in scan((fresh,), task_name(task)))
        if task.status:
            self._ended.add(task.upid)
            if task.kind == "qmstart":
                self.failed = not task.well
            yield Said(f"{task_name(task)} ended: {task.status[:200]}")

    def _log(self, task: Task) -> bytes:
        try:
            return self._host.read(log_path(task.upid))
        except HostError:
            return b""

    def _kernel_news(self) -> str:
        """Lines since the last time; the first call only remembers where the log ends."""
        first = not self._cursor and not self._lines
        after = (f"--after-cursor={self._cursor}",) if self._cursor else ("-n", "1")
        answer = said(self._host, (*_FOLLOW, *after))
        if isinstance(answer, str):
            found = _CURSOR.search(answer)
            self._cursor = found[1] if found else self._cursor
            return "" if first else _CURSOR.sub("", answer)
        return self._from_memory(first)

    def _from_memory(self, first: bool) -> str:
        """Without a journal: the kernel's own memory, from the line at which it ended before."""
        answer = said(self._host, ("dmesg",))
        lines = answer.splitlines() if isinstance(answer, str) else []
        fresh = lines[self._lines :] if len(lines) >= self._lines else lines
        self._lines = len(lines)
        return "" if first else "\n".join(fresh)
