"""Observations -> causes in order of likelihood.

1. A sign speaks once, however often it was noticed; another device with the same sign adds nothing.
2. A consequence of something else that was noticed (`follows`) needs no cause of its own: its points are dropped, and
   it is listed as explained by the cause of what it follows. It follows within one boot only, and not what came later.
3. `unknown` stands at `DOUBT` points: what does not reach that is no diagnosis. `no-fault` has to be earned as well.
4. Confidence is the softmax of the points: with one weak hint it stays low, and nothing is ever certain.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from fnmatch import fnmatchcase

from ..model.diagnosis import NO_FAULT, UNKNOWN, Candidate, Observation
from .context import settled
from .lines import WALL

DOUBT = 1.5
"""Points of "not enough evidence"."""
HARMLESS = 2.0
"""Points of "nothing is wrong" when all that was noticed are harmless lines."""
FADE = 0.5
"""Each further sign for the same cause counts this much of the one before: ten hints are not ten proofs."""
SHOWN = 8
SLACK = 2.0
"""Seconds by which a consequence may be written down before what it follows."""


def rank(observations: Sequence[Observation]) -> tuple[Candidate, ...]:
    """Candidates, the likeliest first. Never empty."""
    speaking, explained = _consequences(settled(observations))
    pro: dict[str, list[tuple[float, Observation]]] = defaultdict(list)
    con: dict[str, list[tuple[float, Observation]]] = defaultdict(list)
    for one in _once(speaking):
        for point in one.points:
            (pro if point.weight > 0 else con)[point.cause].append((point.weight * one.share, one))
    scores = {cause: _total(pro[cause]) + sum(weight for weight, _ in con[cause]) for cause in {*pro, *con}}
    scores[UNKNOWN] = scores.get(UNKNOWN, 0.0) + DOUBT
    alarming = any(point.weight > 0 for one in speaking for point in one.points)
    if any(one.harmless for one in observations) and not alarming:
        scores[NO_FAULT] = scores.get(NO_FAULT, 0.0) + HARMLESS
    made = [
        Candidate(cause, share, scores[cause], _worded(pro[cause]), _worded(con[cause]), _follow(pro[cause], explained))
        for cause, share in _shares(scores).items()
    ]
    return tuple(sorted(made, key=lambda one: (-one.score, one.cause)))[:SHOWN]


def _consequences(observations: Sequence[Observation]) -> tuple[list[Observation], list[Observation]]:
    """Those that speak for themselves, and those that another one explains."""
    by_sign: dict[str, list[Observation]] = defaultdict(list)
    for one in observations:
        by_sign[one.sign].append(one)
    speaking: list[Observation] = []
    explained: list[Observation] = []
    for one in observations:
        if one.share == 0.0:
            continue
        if one.follows and _is_consequence(one, by_sign):
            explained.append(one)
        elif not one.harmless:
            speaking.append(one)
    return speaking, explained


def _is_consequence(one: Observation, by_sign: Mapping[str, Sequence[Observation]]) -> bool:
    return any(
        _may_follow(one, other)
        for sign, others in by_sign.items()
        if sign != one.sign and any(fnmatchcase(sign, pattern) for pattern in one.follows)
        for other in others
    )


def _may_follow(one: Observation, first: Observation) -> bool:
    """Whether it can come after the other: not in another boot of the same log, nor before it where a clock tells."""
    if first.share == 0.0:
        return False
    if one.source != first.source:
        return True
    if one.boot != first.boot:
        return False
    if one.seconds is None or first.seconds is None or (one.seconds < WALL) is not (first.seconds < WALL):
        return True
    return one.seconds >= first.seconds - SLACK


def _among(pattern: str, signs: set[str]) -> bool:
    return any(fnmatchcase(sign, pattern) for sign in signs)


def _once(observations: Sequence[Observation]) -> list[Observation]:
    best: dict[str, Observation] = {}
    for one in observations:
        if one.sign not in best or one.share > best[one.sign].share:
            best[one.sign] = one
    return list(best.values())


def _total(weighted: Sequence[tuple[float, Observation]]) -> float:
    ordered = sorted((weight for weight, _ in weighted), reverse=True)
    return sum(weight * FADE**rank for rank, weight in enumerate(ordered))


def _shares(scores: dict[str, float]) -> dict[str, float]:
    positive = {cause: score for cause, score in scores.items() if score > 0}
    top = max(positive.values())
    powers = {cause: math.exp(score - top) for cause, score in positive.items()}
    return {cause: power / sum(powers.values()) for cause, power in powers.items()}


def _worded(weighted: Sequence[tuple[float, Observation]]) -> tuple[Observation, ...]:
    return tuple(one for _, one in sorted(weighted, key=lambda pair: -abs(pair[0])))


def _follow(weighted: Sequence[tuple[float, Observation]], explained: Sequence[Observation]) -> tuple[Observation, ...]:
    """What the signs of a cause explain."""
    signs = {one.sign for _, one in weighted}
    return tuple(one for one in explained if any(_among(pattern, signs) for pattern in one.follows))
