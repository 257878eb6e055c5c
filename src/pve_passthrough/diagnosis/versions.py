"""Which kernel, QEMU and Proxmox VE materials speak of, and which rows of the catalogue hold for them.

1. A log's own first lines count for that log; what a listing of packages says counts for the host's other logs.
2. Two different answers are no answer: nothing is left aside because of them.
"""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..knowledge.signs import SIGNS, Sign
from ..model.diagnosis import Observation
from ..model.facts import Facts
from ..model.value import dataclass

Number = tuple[int, ...]

KERNEL, QEMU, MANAGER, SERVER = "kernel", "qemu", "pve-manager", "qemu-server"

_RUNNING = re.compile(r"\brunning kernel: ?(\d{1,2}\.\d{1,3}[\w.+~-]*)")
_BOOTED = re.compile(r"\bLinux version (\d{1,2}\.\d{1,3}[\w.+~-]*)")
_UNAME = re.compile(r"^Linux [\w.-]{1,64} (\d{1,2}\.\d{1,3}[\w.+~-]*) #\d", re.M)
_RELEASE = re.compile(r"\A\s*(\d{1,2}\.\d{1,3}\.\d{1,4}(?:-[\w.+~-]+)?)\s*\Z")
_PACKAGE = re.compile(r"^\s*(pve-qemu-kvm|qemu-server|pve-manager):?[/ ]+(\d{1,3}\.\d{1,3}[\w.+~:-]*)", re.M)
_EMULATOR = re.compile(r"\bQEMU emulator version (\d{1,2}\.\d{1,3}[\w.]*)")
_NAMES = {"pve-qemu-kvm": QEMU, "qemu-server": SERVER, "pve-manager": MANAGER}


@dataclass(frozen=True, slots=True)
class Version:
    """One program's version as some material says it: `6.8.12-4-pve`, (6, 8, 12, 4). `source`: who says so."""

    program: str
    text: str
    number: Number
    source: str = ""


def number_of(text: str) -> Number:
    """The leading numbers of a version: `6.8.12-4-pve` is (6, 8, 12, 4)."""
    match = re.match(r"(?:\d+:)?(\d{1,6}(?:[.-]\d{1,6}){0,5})(?![\w])", text) or re.match(
        r"(\d{1,6}(?:\.\d{1,6}){0,3})", text
    )
    return tuple(int(part) for part in re.split(r"[.-]", match[1])) if match else ()


def named(text: str, source: str = "") -> Iterator[Version]:
    """Versions that a text states in a program's own words: `uname -a`, `pveversion -v`, a kernel's first line."""
    for pattern in (_BOOTED, _RUNNING, _UNAME, _RELEASE):
        for match in pattern.finditer(text):
            yield Version(KERNEL, match[1], number_of(match[1]), source)
    for match in _PACKAGE.finditer(text):
        yield Version(_NAMES[match[1]], match[2], number_of(match[2]), source)
    for match in _EMULATOR.finditer(text):
        yield Version(QEMU, match[1], number_of(match[1]), source)


def of_facts(facts: Facts) -> Iterator[Version]:
    """Versions that the machine itself says."""
    said = ((KERNEL, facts.kernel.release), (SERVER, facts.pve.qemu_server), (MANAGER, facts.pve.version))
    return (Version(program, text, number_of(text), facts.host) for program, text in said if text)


def agreed(versions: Iterable[Version]) -> Mapping[str, Version]:
    """The version of each program about which all agree."""
    said: dict[str, dict[Number, Version]] = defaultdict(dict)
    for one in versions:
        said[one.program].setdefault(one.number, one)
    return {program: next(iter(numbers.values())) for program, numbers in said.items() if len(numbers) == 1}


def fitting(observations: Sequence[Observation], host: Mapping[str, Version]) -> tuple[list[Observation], list[str]]:
    """Without the points of words that the machine's kernel does not have, or means differently; and what that was."""
    rows = {sign.id: sign for sign in SIGNS if sign.since or sign.until}
    kept: list[Observation] = []
    doubts: list[str] = []
    for one in observations:
        sign = rows.get(one.sign)
        version = _version(sign.program, one, host) if sign else None
        if sign is None or version is None or _within(sign, version):
            kept.append(one)
            continue
        kept.append(replace(one, share=0.0))
        doubts.append(
            f"{one.source}:{one.line}: these words mean something {_span(sign)} only, and here it is "
            f"{version[0]}.{version[1]}"
        )
    return kept, doubts


def _version(program: str, one: Observation, host: Mapping[str, Version]) -> tuple[int, int] | None:
    """Of the program whose words they are: as the log itself says, else as the host's packages do."""
    if program == KERNEL and (one.kernel is not None or one.side == "guest"):
        return one.kernel
    number = host[program].number if program in host else ()
    return (number[0], number[1]) if len(number) > 1 else None


def _within(sign: Sign, version: tuple[int, int]) -> bool:
    return (sign.since is None or version >= sign.since) and (sign.until is None or version <= sign.until)


def _span(sign: Sign) -> str:
    first, last = (".".join(map(str, one)) if one else "" for one in (sign.since, sign.until))
    if first and last:
        return f"in {sign.program} {first} to {last}"
    return f"from {sign.program} {first} on" if first else f"up to {sign.program} {last}"
