"""Write down what a host answers, and answer the same again anywhere.

1. A capture is what a probe asked and what it was told: no collector can fall out of step with the probe.
2. "Not there" and "could not say" are answers too and are kept apart.
3. A question that was never asked has no answer: `Unreadable`, which becomes a gap, never a "no".
4. A replay changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager
from dataclasses import field
from typing import NoReturn, TypeVar

from ..model.value import dataclass
from .base import Host, HostError, Missing, Ran, Refused, Room, Unreadable

_Key = TypeVar("_Key")
_Answer = TypeVar("_Answer")


@dataclass(frozen=True, slots=True)
class NoAnswer:
    """A recorded `Missing` (`absent`) or `Unreadable`."""

    absent: bool
    reason: str


@dataclass(slots=True)
class Answers:
    """All questions and answers of one recording, by kind."""

    reads: dict[str, bytes | NoAnswer] = field(default_factory=dict)
    names: dict[str, tuple[str, ...] | NoAnswer] = field(default_factory=dict)
    links: dict[str, str | NoAnswer] = field(default_factory=dict)
    rooms: dict[str, Room | NoAnswer] = field(default_factory=dict)
    runs: dict[tuple[str, ...], Ran | NoAnswer] = field(default_factory=dict)


class Recorder:
    """A host that remembers every question put to `inner`, and what it said. Effects are passed on unrecorded."""

    def __init__(self, inner: Host) -> None:
        self._inner = inner
        self.answers = Answers()
        self.name = inner.name
        self.changeable = inner.changeable

    def read(self, path: str) -> bytes:
        with _remembering(self.answers.reads, path):
            self.answers.reads[path] = answer = self._inner.read(path)
        return answer

    def head(self, path: str, size: int) -> bytes:
        """The whole file is recorded, so that a later probe may ask for more of it."""
        return self.read(path)[:size]

    def names(self, path: str) -> tuple[str, ...]:
        with _remembering(self.answers.names, path):
            self.answers.names[path] = answer = self._inner.names(path)
        return answer

    def link(self, path: str) -> str:
        with _remembering(self.answers.links, path):
            self.answers.links[path] = answer = self._inner.link(path)
        return answer

    def room(self, path: str) -> Room:
        with _remembering(self.answers.rooms, path):
            self.answers.rooms[path] = answer = self._inner.room(path)
        return answer

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        key = tuple(argv)
        with _remembering(self.answers.runs, key):
            self.answers.runs[key] = answer = self._inner.run(argv, stdin, timeout)
        return answer

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        self._inner.write(path, data, mode)

    def append(self, path: str, data: bytes) -> None:
        self._inner.append(path, data)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._inner.make_dir(path, mode)

    def remove_dir(self, path: str) -> None:
        self._inner.remove_dir(path)

    def lock(self, path: str) -> AbstractContextManager[None]:
        return self._inner.lock(path)


class Replay:
    """A host that answers from a recording, named `name`."""

    changeable = False

    def __init__(self, answers: Answers, name: str) -> None:
        self.answers = answers
        self.name = name

    def read(self, path: str) -> bytes:
        return _told(self.answers.reads.get(path), path)

    def head(self, path: str, size: int) -> bytes:
        return self.read(path)[:size]

    def names(self, path: str) -> tuple[str, ...]:
        return _told(self.answers.names.get(path), path)

    def link(self, path: str) -> str:
        return _told(self.answers.links.get(path), path)

    def room(self, path: str) -> Room:
        return _told(self.answers.rooms.get(path), path)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        return _told(self.answers.runs.get(tuple(argv)), argv[0])

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        _refuse(path)

    def append(self, path: str, data: bytes) -> None:
        _refuse(path)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        _refuse(path)

    def remove_dir(self, path: str) -> None:
        _refuse(path)

    def lock(self, path: str) -> AbstractContextManager[None]:
        _refuse(path)


@contextmanager
def _remembering(answers: dict[_Key, _Answer | NoAnswer], key: _Key) -> Iterator[None]:
    """Keep a host's refusal to answer before it travels on."""
    try:
        yield
    except HostError as error:
        answers[key] = NoAnswer(isinstance(error, Missing), error.reason)
        raise


def _told(answer: _Answer | NoAnswer | None, path: str) -> _Answer:
    if answer is None:
        raise Unreadable(path, "not asked when this capture was made")
    if isinstance(answer, NoAnswer):
        raise (Missing if answer.absent else Unreadable)(path, answer.reason)
    return answer


def _refuse(path: str) -> NoReturn:
    raise Refused(path, "a capture is only read, never changed")
