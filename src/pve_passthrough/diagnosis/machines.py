"""Whose lines these are, where a log holds those of several machines.

1. Only names in the lines' own prefixes count, and only against others in the same source: another source may be a
   guest's log, or an older name of this machine.
2. Lines of another machine are kept and speak less; which machine was meant is said.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..model.diagnosis import Observation

SHARE = 0.25
"""How much of its points a line of another machine keeps."""
ENOUGH = 3
"""Lines of a name that make it the machine of a log, where nobody said which it is."""


def weighed(
    observations: Sequence[Observation], machines: Mapping[str, Sequence[tuple[str, int]]], node: str = ""
) -> tuple[list[Observation], list[str]]:
    """The same observations, those of other machines with fewer points; and what was taken for another machine.

    `machines`: for each source, how many lines each host name has. `node`: this machine's own name.
    """
    own = {source: _own(counts, node) for source, counts in machines.items()}
    doubts = []
    for source, name in own.items():
        others = sorted({plain(other) for other, _ in machines[source]} - {name}) if name else []
        if others:
            doubts.append(f"{source}: lines of {', '.join(others[:5])} among those of {name}; they count less")
    return [_weighed(one, own.get(one.source, "")) for one in observations], doubts


def plain(name: str) -> str:
    """A host's name without its domain."""
    return name.lower().partition(".")[0]


def _own(counts: Sequence[tuple[str, int]], node: str) -> str:
    """The machine that a source is of; empty when nobody can tell, or when it is the only one."""
    total: dict[str, int] = {}
    for name, count in counts:
        total[plain(name)] = total.get(plain(name), 0) + count
    if len(total) < 2:
        return ""
    if node and plain(node) in total:
        return plain(node)
    name, most = max(total.items(), key=lambda pair: pair[1])
    return name if most >= ENOUGH and most * 2 > sum(total.values()) else ""


def _weighed(one: Observation, own: str) -> Observation:
    if not own or not one.machine or plain(one.machine) == own:
        return one
    return replace(one, share=one.share * SHARE)
