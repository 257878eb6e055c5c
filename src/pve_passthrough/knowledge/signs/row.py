"""What a row of the catalogue is.

1. `pattern` fits the format string that the source prints, no more: a harmless line must not match it by accident.
2. `needle` is a literal part of every match, the rarer the better: only lines that hold it are looked at closely.
3. `sample` is a line that the pattern matches; it is made from the format string, not taken from anybody's log.
4. Weights are points (`model.diagnosis.Point`).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ...model.value import dataclass


@dataclass(frozen=True, slots=True)
class Sign:
    """A line that means something.

    id       AREA.NAME
    where    whose log the words mean this in: `host`, `guest`, empty for either; where nobody knows whose log it
             is, every row speaks (diagnosis/kinds.py, side_of)
    follows  signs of which it is a mere consequence
    since    version (major, minor) of `program` from which the words exist; until: the last one that has them
    program  whose words they are: `kernel`, `qemu`, `qemu-server`
    confirm  what would confirm its first cause; refute: what would speak against it
    when     (conditions, points): the first whose conditions hold gives its points instead of `points`
             (diagnosis/context.py): another sign's id with `*`, about the same slot where both name a device;
             `!` before it: not noticed; `times:N`: the line stands there at least N times
    """

    id: str
    needle: str
    pattern: re.Pattern[str]
    says: str
    points: tuple[tuple[str, float], ...]
    source: str
    sample: str
    harmless: bool = False
    follows: tuple[str, ...] = ()
    since: tuple[int, int] | None = None
    until: tuple[int, int] | None = None
    confirm: str = ""
    refute: str = ""
    where: str = ""
    when: tuple[tuple[tuple[str, ...], tuple[tuple[str, float], ...]], ...] = ()
    program: str = "kernel"


def sign(
    name: str,
    needle: str,
    pattern: str,
    says: str,
    points: Mapping[str, float],
    *,
    source: str,
    sample: str,
    follows: tuple[str, ...] = (),
    since: tuple[int, int] | None = None,
    until: tuple[int, int] | None = None,
    confirm: str = "",
    refute: str = "",
    where: str = "",
    when: Mapping[tuple[str, ...], Mapping[str, float]] | None = None,
    program: str = "kernel",
) -> Sign:
    """A row for a line that speaks for causes."""
    return Sign(
        name, needle, re.compile(pattern), says, tuple(points.items()), source, sample,
        follows=follows, since=since, until=until, confirm=confirm, refute=refute, where=where, program=program,
        when=tuple((conditions, tuple(instead.items())) for conditions, instead in (when or {}).items()),
    )  # fmt: skip


AMD_CARDS: tuple[tuple[str, ...], ...] = (
    ("device.amd-*",),
    ("given.amd-*", "!given.nvidia-*"),
    ("said.amd-*", "!given.nvidia-*"),
)
"""What shows that a device is an AMD card: what stands in its slot, what is given away, what a person says."""


def on_amd(points: Mapping[str, float], *also: str) -> dict[tuple[str, ...], Mapping[str, float]]:
    """Conditions for `when`: these points where the device is an AMD card and all of `also` hold."""
    return {(*shown, *also): points for shown in AMD_CARDS}


def harmless(name: str, needle: str, pattern: str, says: str, *, source: str, sample: str, where: str = "") -> Sign:
    """A row for a line that alarms people and means nothing by itself."""
    return Sign(name, needle, re.compile(pattern), says, (), source, sample, harmless=True, where=where)
