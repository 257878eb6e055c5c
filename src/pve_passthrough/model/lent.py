"""The list of what a guest borrows of the host's display, as it lies in our own file for it.

1. Text in, values out, and back; nothing here reads a machine.
2. Whatever `lent_text` would not have written is refused: the functions named there are taken from the host.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from .own import LENT
from .pci import Address

_LINE = re.compile(r"([0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]) ([0-9a-f]{4}:[0-9a-f]{4})")
MOST = 64
"""Functions that one file may name."""


def lent_file(vmid: int) -> str:
    return LENT.format(vmid=vmid)


def lent_text(vmid: int, functions: Iterable[str]) -> str:
    """The file for a guest; each function is `ADDRESS VENDOR:DEVICE`."""
    head = (
        f"# Guest {vmid} borrows the host's display. Its hook hands these functions over before each start\n"
        "# and gives them back after it. Written by pve-passthrough; `pve-passthrough undo` takes it away.\n"
    )
    return head + "".join(f"{line}\n" for line in functions)


def parse_lent(text: str) -> Mapping[Address, str]:
    """Function to vendor:device. Raises ValueError for anything that `lent_text` would not have written."""
    found: dict[Address, str] = {}
    for line in (line.strip() for line in text.splitlines() if not line.startswith("#")):
        match = _LINE.fullmatch(line)
        if match is not None:
            found[Address.parse(match.group(1))] = match.group(2)
        elif line:
            raise ValueError(f"not a function and its ID: {line[:80]!r}")
    if not 0 < len(found) <= MOST:
        raise ValueError(f"names {len(found)} functions")
    return found


def lent_to(files: Mapping[str, str | None], vmid: int) -> frozenset[Address]:
    """What a guest borrows, as far as its list can be read: nothing of it is claimed at boot, or judged as a claim."""
    try:
        return frozenset(parse_lent(files.get(lent_file(vmid)) or ""))
    except ValueError:
        return frozenset()
