"""What the editors of boot texts share: the refusal to write what cannot be proven.

1. A candidate text is read again by the same reader that its consumer's rules are written in; only if it then yields
   exactly the wanted words is it handed out.
2. Whatever cannot be read with certainty is `Unprovable`, with the place and the reason. Nothing is guessed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

MARK = "# Written by pve-passthrough. `pve-passthrough undo` takes it back."
"""The first comment in each file that is ours alone; a file without it under our name is somebody else's."""

_SAFE = re.compile(r"[A-Za-z0-9][A-Za-z0-9_.:,=@%/+-]*")


class Unprovable(Exception):
    """The text at `where` (`path` or `path:line`) cannot be edited with certainty, because of `reason`."""

    def __init__(self, where: str, reason: str) -> None:
        super().__init__(f"{where}: {reason}")
        self.where = where
        self.reason = reason


def require_plain(tokens: Iterable[str]) -> None:
    """Only words that mean the same to the shell, to GRUB's own language and to the kernel may be written.

    Quotes, `$`, `;`, backslashes and blanks mean different things to the three of them.
    """
    for token in tokens:
        if not _SAFE.fullmatch(token):
            raise Unprovable("kernel command line", f"{token!r} would not pass unchanged through shell and boot loader")


def require_readable(where: str, tokens: Sequence[str]) -> None:
    """Words behind an open quote or behind `--` would not be kernel parameters."""
    for token in tokens:
        if token.count('"') % 2:
            raise Unprovable(where, f"the double quote in {token!r} is never closed")
        if token == "--":
            # Source: kernel, Documentation/admin-guide/kernel-parameters.rst: everything after `--` goes to init.
            raise Unprovable(where, "everything after the word `--` is handed to init")


def require_result(
    where: str, got: Sequence[str], before: Sequence[str], add: Sequence[str], drop: Sequence[str]
) -> None:
    """The proof: every word that stood before still stands, in its order, without `drop`, and `add` is there once."""
    kept = [token for token in before if token not in drop]
    if [token for token in got if token not in add] != [token for token in kept if token not in add]:
        raise Unprovable(where, "the edited text would change other words too")
    if any(token in drop for token in got) or any(token not in got for token in add):
        raise Unprovable(where, "the edited text would not give the wanted words")
