"""The pages of causes: what a diagnosis means by its words, and the lines by which it knows.

1. A page is made from the rows of `knowledge`; nothing is written here that does not stand there.
"""

from __future__ import annotations

import textwrap

from ..knowledge.causes import CAUSES, Cause, cause
from ..knowledge.one_change import one_change
from ..knowledge.signs import SIGNS, Sign
from ..knowledge.symptom_words import WORDS

WIDTH = 100
LEAST = 2.0
"""Signs that speak for a cause with fewer points are not on its page."""
_HOW = ((6.0, "decides"), (4.0, "strong"), (2.0, "suggests"))


def names() -> tuple[str, ...]:
    return tuple(row.code for row in CAUSES)


def page(word: str) -> str | None:
    """The page of a cause by its code or another word for it; None for a word that means none."""
    row = cause(word)
    return None if row is None else _page(row)


def _page(row: Cause) -> str:
    title = f"{row.code}: {row.title}"
    parts = [title, "=" * len(title), "", _wrapped(row.means), ""]
    parts += _entry("Make sure", row.confirm)
    parts += _entry("Change", row.change, tuple(f"$ {command}" for command in (*_typed(row), *row.commands)))
    parts += _entry("It helped if", row.helped)
    parts += _entry("Meanwhile", one_change(row.code).keep)
    seen = [f"{word}: {why}" for word, shown in WORDS.items() if (why := shown.so.get(row.code))]
    parts += _entry("Seen as", "", tuple(seen))
    parts += _entry("Known by", "", tuple(line for one in _pointing(row.code) for line in _sign(one, row.code)))
    parts += _entry("Also called", ", ".join(row.also))
    parts += _entry("Source", row.source)
    return "\n".join(parts).rstrip()


def _typed(row: Cause) -> tuple[str, ...]:
    words = one_change(row.code).types
    for place, capitals in (("{device}", "DEVICE"), ("{vmid}", "ID"), ("{mapping}", "NAME")):
        words = words.replace(place, capitals)
    return (f"pve-passthrough {words}",) if words else ()


def _pointing(code: str) -> list[Sign]:
    """Signs that speak for the cause, the strongest first."""
    found = [(weight, sign) for sign in SIGNS for name, weight in sign.points if name == code and weight >= LEAST]
    return [sign for _, sign in sorted(found, key=lambda pair: -pair[0])]


def _sign(one: Sign, code: str) -> tuple[str, ...]:
    weight = dict(one.points)[code]
    how = next(word for least, word in _HOW if weight >= least)
    return (f"{one.sample}", f"    {how}: {one.says} ({one.source})")


def _entry(name: str, text: str, lines: tuple[str, ...] = ()) -> list[str]:
    if not text and not lines:
        return []
    body = [_wrapped(text, "    ")] if text else []
    return [f"{name}:", *body, *(_wrapped(line, "    ") for line in lines), ""]


def _wrapped(text: str, indent: str = "") -> str:
    inner = indent + " " * (len(text) - len(text.lstrip()))
    return textwrap.fill(text.strip(), WIDTH, initial_indent=inner, subsequent_indent=inner, break_long_words=False,
                         break_on_hyphens=False)  # fmt: skip
