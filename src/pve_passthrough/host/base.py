"""The handful of questions that a host answers, and the few ways to change it.

1. Every path is absolute, as the host itself would name it (`/sys/…`), whatever directory stands behind it.
2. Two ways not to answer: `Missing` (asked and answered: it is not there) and `Unreadable` (nobody could say).
   They are never mixed up, because unknown is not no.
3. Programs are argument vectors; there is no shell.
4. Effects are `write`, `append`, `make_dir`, `remove_dir` and `run` of a command that changes something;
   everything else leaves the host as it was.
"""

from __future__ import annotations

from collections.abc import Sequence
from contextlib import AbstractContextManager
from typing import Protocol

from ..model.value import dataclass


class HostError(Exception):
    """A question without an answer, about `path` (or a program's name)."""

    def __init__(self, path: str, reason: str) -> None:
        super().__init__(f"{path}: {reason}")
        self.path = path
        self.reason = reason


class Missing(HostError):
    """The host answered: there is no such file, directory, link or program."""


class Unreadable(HostError):
    """No answer: permission denied, an I/O error, a question that a capture was never asked, a time-out."""


class Refused(HostError):
    """The host may not be changed in this way: a capture, a bare tree, a read-only file system."""


class Busy(HostError):
    """Somebody else holds the lock."""


@dataclass(frozen=True, slots=True)
class Ran:
    """A finished program: exit status (negative: the signal that ended it) and what it said."""

    rc: int
    stdout: str = ""
    stderr: str = ""

    @property
    def ok(self) -> bool:
        return self.rc == 0


@dataclass(frozen=True, slots=True)
class Room:
    """Bytes on a file system."""

    total: int
    free: int


class Host(Protocol):
    """See the module's rules. All methods raise `HostError`s and nothing else for the world's answers."""

    name: str
    """How the host was named on the command line: `local`, `root:DIR`, `capture:FILE`, `sim:DIR`."""
    changeable: bool
    """Whether effects are possible at all."""

    def read(self, path: str) -> bytes:
        """Whole content of a file (at most 16 MiB; longer is `Unreadable`)."""

    def head(self, path: str, size: int) -> bytes:
        """The first `size` bytes of a file, without asking the kernel for more."""

    def names(self, path: str) -> tuple[str, ...]:
        """Names in a directory, sorted."""

    def link(self, path: str) -> str:
        """Text of a symbolic link, one level."""

    def room(self, path: str) -> Room:
        """Room on the file system that holds `path`."""

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        """Run a program to its end. `Missing` when there is no such program, `Unreadable` on a time-out."""

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        """Replace a file's content atomically and durably, or remove it (None). Mode and owner of an existing
        file are kept unless `mode` is given; a symbolic link is followed. Parents must exist."""

    def append(self, path: str, data: bytes) -> None:
        """Append to a file (created 0600) and fsync."""

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        """Make one directory; no error when it is there."""

    def remove_dir(self, path: str) -> None:
        """Remove an empty directory; no error when it is gone."""

    def lock(self, path: str) -> AbstractContextManager[None]:
        """Hold an exclusive advisory lock; `Busy` when somebody else has it."""


def read_text(host: Host, path: str) -> str:
    """A file's text; bytes that are not UTF-8 survive as surrogates, so that writing it back gives the same bytes."""
    return host.read(path).decode("utf-8", "surrogateescape")


def text_or_none(host: Host, path: str) -> str | None:
    """The text, or None when the file is not there. `Unreadable` is still raised."""
    try:
        return read_text(host, path)
    except Missing:
        return None


def to_bytes(text: str) -> bytes:
    """The inverse of `read_text`."""
    return text.encode("utf-8", "surrogateescape")
