"""What a row about people's words is.

1. Patterns are searched in words in lower case: one space between words, one line per paragraph or per stated key.
   They name conditions (a laptop, an update, the second start), never a particular report.
2. `all_of` must stand close together in one text (`diagnosis.words.REACH`), `anywhere` somewhere in what was said or
   stated; none of `none_of` may be there. What is denied ("no error 43 any more") does not count as said.
3. A person's words are weaker evidence than a log: above 4 they must say the cause itself, or the test that proves it
   (it works with the other kernel).
"""

from __future__ import annotations

from collections.abc import Mapping

from ...model.value import dataclass


@dataclass(frozen=True, slots=True)
class Complaint:
    """id · says: what it means in one sentence · points: cause and weight · source: where the connection is from

    Patterns are kept as text: reading a machine's logs without a word of a person must not cost their compilation.
    follows  signs and complaints that explain this one when they were noticed as well; `*` at the end: any rest
    """

    id: str
    all_of: tuple[str, ...]
    anywhere: tuple[str, ...]
    none_of: tuple[str, ...]
    says: str
    points: tuple[tuple[str, float], ...]
    source: str
    follows: tuple[str, ...] = ()


def said(
    name: str,
    all_of: tuple[str, ...],
    says: str,
    points: Mapping[str, float],
    source: str,
    *,
    anywhere: tuple[str, ...] = (),
    none_of: tuple[str, ...] = (),
    follows: tuple[str, ...] = (),
) -> Complaint:
    """A row; its id is `said.` and the name."""
    return Complaint(f"said.{name}", all_of, anywhere, none_of, says, tuple(points.items()), source, follows)
