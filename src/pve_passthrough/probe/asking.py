"""Asking a host without ever losing a "nobody could say".

1. `Missing` is an answer (None). `Unreadable` is a gap: None, and the reason is kept.
2. No method raises for what the world answers; every probe module asks through here and nowhere else.
3. Gaps are for people: the same gap of 559 functions is one `Gap` that counts them and names the first.
4. Nothing here changes a host. `run` is for commands that only look.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..host.base import Host, HostError, Missing, Ran, Room
from ..model.facts import Gap

REASONS_PER_FACT = 8
"""Different reasons kept for one fact; a damaged tree may hold thousands."""
_PLACES_SHOWN = 3


class Asking:
    """A host, and the questions that it left open.

    `about` names the fact (`kernel.cmdline`, `pci.config`); empty, the path names it.
    """

    def __init__(self, host: Host) -> None:
        self.host = host
        self._open: dict[str, dict[str, _Tally]] = {}

    # -- questions ---------------------------------------------------------------------------

    def data(self, path: str, about: str = "") -> bytes | None:
        """A file's bytes; None when it is not there, or with a gap when it could not be read."""
        try:
            return self.host.read(path)
        except Missing:
            return None
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def head(self, path: str, size: int, about: str = "") -> bytes | None:
        """Like `data`, the first `size` bytes only."""
        try:
            return self.host.head(path, size)
        except Missing:
            return None
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def text(self, path: str, about: str = "") -> str | None:
        """Like `data`, decoded; bytes that are not UTF-8 survive as surrogates."""
        data = self.data(path, about)
        return None if data is None else data.decode("utf-8", "surrogateescape")

    def trimmed(self, path: str, about: str = "") -> str | None:
        """Like `text`, without white space (and the NUL bytes of device-tree files) at its ends."""
        data = self.data(path, about)
        return None if data is None else data.decode("utf-8", "surrogateescape").strip(" \t\r\n\0")

    def need(self, path: str, about: str) -> str | None:
        """Like `text`, for a file that every host has: that it is missing is a gap, too."""
        try:
            return self.host.read(path).decode("utf-8", "surrogateescape")
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def names(self, path: str, about: str = "") -> tuple[str, ...] | None:
        """Names in a directory, sorted; None when it is not there, or with a gap when it could not be read."""
        try:
            return self.host.names(path)
        except Missing:
            return None
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def link(self, path: str, about: str = "") -> str | None:
        """Text of a symbolic link; None when it is not there, or with a gap when it could not be read."""
        try:
            return self.host.link(path)
        except Missing:
            return None
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def room(self, path: str, about: str) -> Room | None:
        """Room on the file system that holds `path`; None with a gap when nobody could say."""
        try:
            return self.host.room(path)
        except HostError as error:
            self._unanswered(about, path, error)
            return None

    def run(self, argv: Sequence[str], about: str, timeout: float = 60.0) -> Ran | None:
        """A finished program, whatever its exit status; None with a gap when it is missing or gave no answer."""
        try:
            return self.host.run(argv, timeout=timeout)
        except HostError as error:
            self._unanswered(about, " ".join(argv), error)
            return None

    # -- gaps --------------------------------------------------------------------------------

    def gap(self, about: str, reason: str, place: str = "") -> None:
        """Note that nobody could say `about`. `place` (an address, a path) tells gaps of one reason apart."""
        reasons = self._open.setdefault(about, {})
        if reason not in reasons and len(reasons) >= REASONS_PER_FACT:
            reason = "other reasons"
        reasons.setdefault(reason, _Tally()).add(place)

    @property
    def gaps(self) -> tuple[Gap, ...]:
        """In the order in which they first came up, each fact's reasons together."""
        return tuple(
            Gap(about, tally.words(reason))
            for about, reasons in self._open.items()
            for reason, tally in reasons.items()
        )

    def _unanswered(self, about: str, place: str, error: HostError) -> None:
        self.gap(about or place, error.reason, place if about else "")


class _Tally:
    """How often one gap came up, and where first. Nameless repeats are the same gap again, not another one."""

    __slots__ = ("places",)

    def __init__(self) -> None:
        self.places: dict[str, None] = {}

    def add(self, place: str) -> None:
        if place:
            self.places[place] = None

    def words(self, reason: str) -> str:
        if not self.places:
            return reason
        shown = ", ".join(list(self.places)[:_PLACES_SHOWN])
        more = len(self.places) - _PLACES_SHOWN
        return f"{shown}: {reason}" if more <= 0 else f"{shown} and {more} more: {reason}"
