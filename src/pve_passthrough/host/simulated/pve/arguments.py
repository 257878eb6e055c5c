"""Command lines of `qm`, `pvesh` and their like, judged against a table of options as Proxmox judges them.

1. Unknown options, missing values and refused values give Proxmox' words and its usage line.
2. Nothing here touches the machine.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from .node import Die
from .schema import Format, Invalid, boolean, judge


@dataclass(slots=True)
class Words:
    """Options by name (a repeated one keeps every value), the other words, and what stood behind `--`."""

    options: dict[str, list[str]] = field(default_factory=dict)
    words: list[str] = field(default_factory=list)
    rest: list[str] = field(default_factory=list)

    def value(self, name: str, default: str = "") -> str:
        return self.options[name][-1] if name in self.options else default

    def flag(self, name: str) -> bool:
        return boolean(self.value(name, "0")) == "1"


def split(argv: Sequence[str], table: Format, usage: str) -> Words:
    """Sort a command line. Raises `Die`."""
    found = Words()
    words = list(argv)
    while words:
        word = words.pop(0)
        if word == "--":
            found.rest = words
            break
        if not word.startswith("-") or len(word) < 2:
            found.words.append(word)
            continue
        name, equals, value = word.lstrip("-").partition("=")
        if name not in table:
            raise Die(f"Unknown option: {name}\n400 unable to parse option\n{usage}")
        if equals:
            found.options.setdefault(name, []).append(value)
        elif table[name].kind == "boolean" and (not words or words[0].startswith("-")):
            found.options.setdefault(name, []).append("1")
        elif words:
            found.options.setdefault(name, []).append(words.pop(0))
        else:
            raise Die(f"Option {name} requires an argument\n400 unable to parse option\n{usage}")
    return found


def params(words: Words, table: Format, usage: str) -> dict[str, str]:
    """The last value of every option, judged; booleans as 1 and 0. Raises `Die`."""
    found = {name: values[-1] for name, values in words.options.items()}
    for name, value in found.items():
        if table[name].kind == "boolean":
            plain = boolean(value)
            if plain is None:
                raise Die(f"400 unable to parse boolean option\n{usage}")
            found[name] = plain
    problems: dict[str, str] = {}
    rc = 255
    for name, value in found.items():
        try:
            judge(table[name], value, name)
        except Invalid as error:
            problems[name] = error.text
            rc = error.rc
    require(table, found, problems)
    if problems:
        raise failed(problems, usage, rc)
    return found


def require(table: Format, found: Mapping[str, object], problems: dict[str, str]) -> None:
    for name, prop in table.items():
        if not prop.optional and name not in found:
            problems[name] = "property is missing and it is not optional"


def failed(problems: Mapping[str, str], usage: str, rc: int = 255) -> Die:
    """`400 Parameter verification failed.` with one line per problem and the usage line."""
    lines = [f"{name}: {text}" for name, text in sorted(problems.items())]
    return Die("\n".join(["400 Parameter verification failed.", *lines, usage]), rc)
