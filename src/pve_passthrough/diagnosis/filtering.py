"""What a person sees, as a filter over causes that evidence has brought up.

1. A word brings up no cause: only those that something else speaks for are lifted or lowered.
2. "Not enough evidence" stays where it is, so that a word alone never names anything.
"""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

from ..model.diagnosis import UNKNOWN, Candidate, Observation


def filtered(candidates: Sequence[Candidate], seen: Observation) -> tuple[Candidate, ...]:
    """The same candidates in the order in which they stand with the word; `seen` carries its points."""
    weights = {point.cause: point.weight for point in seen.points}
    moved = [_moved(one, weights, seen) for one in candidates]
    ordered = sorted(moved, key=lambda one: (-one.score, one.cause))
    return _shared(ordered)


def _moved(one: Candidate, weights: Mapping[str, float], seen: Observation) -> Candidate:
    weight = weights.get(one.cause, 0.0)
    if not weight or one.cause == UNKNOWN or not one.supporting:
        return one
    if weight > 0:
        return replace(one, score=one.score + weight, supporting=(*one.supporting, seen))
    return replace(one, score=one.score + weight, contradicting=(*one.contradicting, seen))


def _shared(ordered: Sequence[Candidate]) -> tuple[Candidate, ...]:
    """Confidence anew; a cause that fell to nothing is no candidate any more."""
    alive = [one for one in ordered if one.score > 0] or list(ordered[:1])
    powers = [math.exp(one.score - alive[0].score) for one in alive]
    return tuple(
        replace(one, confidence=power / sum(powers)) for one, power in zip(alive, powers, strict=True)
    )  # fmt: skip


def now_only(candidates: Sequence[Candidate], before: str) -> tuple[Candidate, ...]:
    """What the log of an earlier boot (the source `before`) shows to be well says nothing about today: it refutes no
    cause. What went wrong there still counts."""
    return _shared(sorted((_unrefuted(one, before) for one in candidates), key=lambda one: (-one.score, one.cause)))


def _unrefuted(one: Candidate, before: str) -> Candidate:
    old = [seen for seen in one.contradicting if seen.source == before]
    if not old:
        return one
    taken = sum(point.weight for seen in old for point in seen.points if point.cause == one.cause and point.weight < 0)
    kept = tuple(seen for seen in one.contradicting if seen not in old)
    return replace(one, score=one.score - taken, contradicting=kept)
