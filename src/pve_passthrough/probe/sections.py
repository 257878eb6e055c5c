"""Proxmox VE's section files: `kind: name`, properties indented below.

1. Text in, sections out; nothing is judged here, and nothing in a file is trusted.
2. A key may come more than once (`map`); where it must not, the last one counts, as in Proxmox.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..model.value import dataclass

TRUE = frozenset({"1", "on", "yes", "true"})
_VMIDS = re.compile(r"[1-9][0-9]{1,8}")


@dataclass(frozen=True, slots=True)
class Section:
    """One section of a Proxmox section file; a key may come more than once (`map`)."""

    kind: str
    name: str
    pairs: tuple[tuple[str, str], ...] = ()

    def get(self, key: str, default: str = "") -> str:
        """The last value of `key`: Proxmox keeps the last."""
        return next((value for name, value in reversed(self.pairs) if name == key), default)

    def all(self, key: str) -> tuple[str, ...]:
        return tuple(value for name, value in self.pairs if name == key)


def sections(text: str) -> Iterator[Section]:
    """Sections of jobs.cfg, ha/resources.cfg (`kind: name`) and mapping/*.cfg (`name` alone), properties indented."""
    head: tuple[str, str] | None = None
    pairs: list[tuple[str, str]] = []
    for line in text.splitlines():
        if not line.strip() or line.lstrip().startswith("#"):
            continue
        if line[0] in " \t":
            key, _, value = line.strip().partition(" ")
            pairs.append((key, value.strip()))
            continue
        if head is not None:
            yield Section(*head, tuple(pairs))
        kind, colon, name = line.strip().partition(":")
        head = (kind, name.strip()) if colon else ("", kind)
        pairs = []
    if head is not None:
        yield Section(*head, tuple(pairs))


def numbers(text: str) -> frozenset[int]:
    """Numbers of guests in a list such as `100, 101;102`."""
    return frozenset(int(word) for word in re.split(r"[\s,;]+", text) if _VMIDS.fullmatch(word))
