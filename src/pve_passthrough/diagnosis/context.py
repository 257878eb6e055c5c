"""Lines whose meaning depends on something else that was noticed: the card, another line, how often it stands there.

1. A row of the catalogue may name other points under conditions (`Sign.when`); the first conditions that hold win.
2. A condition is another sign, with `*` for any rest. Where both name a device, it must be of the same slot.
3. `!` turns a condition round, `times:N` asks for a number of lines.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from fnmatch import fnmatchcase

from ..knowledge.signs import SIGNS
from ..model.diagnosis import Observation, Point

_WHEN = {sign.id: sign.when for sign in SIGNS if sign.when}


def settled(observations: Sequence[Observation]) -> list[Observation]:
    """The same observations, each with the points that hold among the others."""
    return [_settle(one, observations) if one.sign in _WHEN else one for one in observations]


def _settle(one: Observation, others: Sequence[Observation]) -> Observation:
    for conditions, points in _WHEN[one.sign]:
        if all(_holds(condition, one, others) for condition in conditions):
            return replace(one, points=tuple(Point(*point) for point in points))
    return one


def _holds(condition: str, one: Observation, others: Sequence[Observation]) -> bool:
    if condition.startswith("!"):
        return not _holds(condition[1:], one, others)
    if condition.startswith("times:"):
        return one.count >= int(condition.removeprefix("times:"))
    return any(fnmatchcase(other.sign, condition) and _same_slot(one, other) for other in others)


def _same_slot(one: Observation, other: Observation) -> bool:
    """Functions of a slot belong to one card; a line without a device says nothing against it."""
    if not one.device or not other.device:
        return not other.sign.startswith("device.")
    return one.device.rpartition(".")[0] == other.device.rpartition(".")[0]
