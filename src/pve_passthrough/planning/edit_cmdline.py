"""/etc/kernel/cmdline, the one line that systemd-boot entries are made from. Text in, proven text out.

1. Only the first line is read by proxmox-boot-tool, and it must hold `root=`; every byte that is not a removed or an
   added word stays as it is. Source: proxmox-boot-tool 9.2, zz-proxmox-boot.
2. There is no comment syntax: a `#` is a word like any other.
3. A text that cannot be proven is refused (`Unprovable`).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..model.texts import KERNEL_CMDLINE, split_cmdline
from .proof import Unprovable, require_plain, require_readable, require_result


def tokens_of(text: str) -> list[str]:
    """Words of the first line. Raises Unprovable for an open quote or a `--`."""
    tokens = split_cmdline(_first(text)[0])
    require_readable(KERNEL_CMDLINE, tokens)
    return tokens


def has_root(text: str) -> bool:
    return any(token.startswith("root=") for token in split_cmdline(_first(text)[0]))


def edit(text: str, add: Sequence[str], drop: Sequence[str]) -> str:
    """The text with `drop` removed from and `add` appended to its first line; words already there are not doubled."""
    require_plain(add)
    before = tokens_of(text)
    if not has_root(text):
        raise Unprovable(KERNEL_CMDLINE, "the first line has no root=, so no boot entry can be made from it")
    drop = [token for token in drop if token in before and token not in add]
    line, rest = _first(text)
    for token in drop:
        line = _without(line, token)
    body = line.rstrip(" \t\r")
    fresh = [token for token in dict.fromkeys(add) if token not in before]
    edited = body + "".join(f" {token}" for token in fresh) + line[len(body) :] + rest
    require_result(KERNEL_CMDLINE, tokens_of(edited), before, add, drop)
    return edited


def _first(text: str) -> tuple[str, str]:
    line, newline, rest = text.partition("\n")
    return line, newline + rest


def _without(line: str, token: str) -> str:
    """Take out each whole word together with the blanks before it (after it, at the beginning of the line)."""
    word = re.escape(token)
    line = re.sub(rf"[ \t]+{word}(?=[ \t\r]|$)", "", line)
    return re.sub(rf"^{word}(?:[ \t]+|(?=\r)|$)", "", line)
