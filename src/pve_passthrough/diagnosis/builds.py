"""Versions that were named, and whether one of them is known for just this trouble.

1. Versions come from what the materials say in a program's own words (`versions`) and from a person's prose.
2. A version that the person calls good is none of the machine that fails.
3. A row speaks where its words are found in the speech or in the lines that were noticed; see `knowledge.regressions`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from ..knowledge.regressions import regressions
from ..model.diagnosis import Observation, Point
from .versions import KERNEL, QEMU, Version, number_of

_PVE_KERNEL = re.compile(r"\b(\d\.\d{1,2}\.\d{1,3}-\d{1,3}(?:-bpo\d+)?-pve)\b")
_KERNEL = re.compile(r"\b(?:kernel|linux)(?: version)?:? v?(\d\.\d{1,2}(?:\.\d{1,3})?[\w.-]{0,20})", re.I)
_QEMU = re.compile(
    r"\b(?:pve-)?qemu(?:-kvm|-system-x86_64)?(?: emulator)?(?: version)?:?[ /]v?"
    r"(\d{1,2}\.\d{1,2}(?:\.\d{1,2})?(?:-\d+)?)",
    re.I,
)
_GOOD = re.compile(
    r"\b(?:works?|worked|working|fine|good|ok|back|fixed|solved|old|older|previous|before|until)\b[^.;\n]{0,24}$", re.I
)
LIMIT = 1 << 15


def faulty(
    speech: Sequence[tuple[str, str]], noticed: Sequence[Observation], stated: Iterable[Version]
) -> tuple[Observation, ...]:
    """Known faults of the builds that were named, where the trouble fits; once per row."""
    everything = "\n".join((*(text[:LIMIT] for _, text in speech), *(one.text for one in noticed))).lower()
    found: dict[str, Observation] = {}
    for version in (*stated, *_spoken(speech)):
        for row in regressions(version.program, version.number, version.text):
            if row.id not in found and all(re.search(pattern, everything) for pattern in row.fits):
                points = tuple(Point(*point) for point in row.points)
                text = f"{version.program} {version.text}" + (f"; better: {row.better}" if row.better else "")
                found[row.id] = Observation(row.id, row.says, version.source, text, points)
    return tuple(found.values())


def _spoken(speech: Sequence[tuple[str, str]]) -> Iterator[Version]:
    for source, text in speech:
        for program, pattern in ((KERNEL, _PVE_KERNEL), (KERNEL, _KERNEL), (QEMU, _QEMU)):
            for match in pattern.finditer(text[:LIMIT]):
                if not _GOOD.search(text[max(0, match.start() - 40) : match.start()]):
                    yield Version(program, match[1], number_of(match[1]), source)
