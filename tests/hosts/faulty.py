"""A host on which things go wrong at a chosen moment.

1. Effects (write, append, make_dir, remove_dir, run) are counted from 1; a fault strikes before or after the n-th.
2. `kill` ends the process, `power_cut` ends the machine, `fail` makes the effect fail; `torn` and `short` write half of
   what an append was given and then kill, cut the power or fail.
3. `meddle` lets somebody else edit a file, and kills the process, so that the next call finds a foreign text.
4. Questions are passed on untouched.
5. A simulated host stays one (`FaultySimulated`), so that whoever treats simulated hosts specially still does.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import TypeVar

from pve_passthrough.host.base import Host, Ran, Room, Unreadable
from pve_passthrough.host.simulated import Simulated

T = TypeVar("T")

KILL, POWER_CUT, FAIL, TORN, TORN_CUT, SHORT, MEDDLE = (
    "kill",
    "power-cut",
    "fail",
    "torn",
    "torn-cut",
    "short",
    "meddle",
)
APPEND_ONLY = (TORN, TORN_CUT, SHORT)


class Killed(BaseException):
    """The process is gone; nothing of it runs any more. Not an Exception, so that nobody catches it by accident."""


class PowerCut(BaseException):
    """The machine is gone: the world must lose what is volatile."""


@dataclass(frozen=True, slots=True)
class Fault:
    """What goes wrong, and whether the effect itself still happens (`after`) or not."""

    kind: str
    after: bool = False

    def __str__(self) -> str:
        return f"{self.kind}{'+' if self.after else '-'}"


class Faulty:
    """`script` maps the number of an effect to its fault.

    `log` names every effect, `done` has the numbers of those without a fault, `fired` the faults that struck.
    """

    def __init__(self, inner: Host, script: Mapping[int, Fault], meddle: Callable[[], None] = lambda: None) -> None:
        self.inner = inner
        self.script = dict(script)
        self.meddle = meddle
        self.name = inner.name
        self.changeable = inner.changeable
        self.log: list[str] = []
        self.done: set[int] = set()
        self.fired: list[Fault] = []

    def read(self, path: str) -> bytes:
        return self.inner.read(path)

    def head(self, path: str, size: int) -> bytes:
        return self.inner.head(path, size)

    def names(self, path: str) -> tuple[str, ...]:
        return self.inner.names(path)

    def link(self, path: str) -> str:
        return self.inner.link(path)

    def room(self, path: str) -> Room:
        return self.inner.room(path)

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[None]:
        with self.inner.lock(path):
            yield

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        return self._effect(
            f"run {' '.join(argv[:4])}",
            lambda: self.inner.run(argv, stdin, timeout),
            lambda: Ran(1, "", f"{argv[0]}: something went wrong\n"),
        )

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        self._effect(f"write {path}", lambda: self.inner.write(path, data, mode), lambda: _refuse(path))

    def append(self, path: str, data: bytes) -> None:
        fault = self.script.get(len(self.log) + 1)
        if fault is None or fault.kind not in APPEND_ONLY:
            self._effect(f"append {path}", lambda: self.inner.append(path, data), lambda: _refuse(path))
            return
        self.log.append(f"append {path}")
        self.fired.append(fault)
        self.inner.append(path, data[: len(data) - 1 if fault.after else len(data) // 2])
        if fault.kind == SHORT:
            raise Unreadable(path, "No space left on device")
        raise Killed() if fault.kind == TORN else PowerCut()

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._effect(f"make_dir {path}", lambda: self.inner.make_dir(path, mode), lambda: _refuse(path))

    def remove_dir(self, path: str) -> None:
        self._effect(f"remove_dir {path}", lambda: self.inner.remove_dir(path), lambda: _refuse(path))

    def _effect(self, name: str, act: Callable[[], T], fail: Callable[[], T]) -> T:
        self.log.append(name)
        number = len(self.log)
        fault = self.script.get(number)
        if fault is None or fault.kind in APPEND_ONLY:
            answer = act()
            self.done.add(number)
            return answer
        self.fired.append(fault)
        if fault.after:
            act()
        if fault.kind == FAIL:
            return fail()
        if fault.kind == MEDDLE:
            self.meddle()
        if fault.kind == POWER_CUT:
            raise PowerCut()
        raise Killed()


class FaultySimulated(Faulty, Simulated):
    """The same before a simulated host."""

    def __init__(self, inner: Simulated, script: Mapping[int, Fault], meddle: Callable[[], None]) -> None:
        Faulty.__init__(self, inner, script, meddle)
        self.world = inner.world


def _refuse(path: str) -> None:
    raise Unreadable(path, "Input/output error")
