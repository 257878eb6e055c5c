"""Looking for the catalogue's lines in any amount of bytes, with bounded memory.

1. Blocks of lines come from `layout`; nothing of them is kept but what was noticed.
2. Lines are told apart by their shape: what is left of them without the digits and letters of hexadecimal numbers.
   Which rows may fit a shape is found out once; a needle cannot be in a line whose shape lacks what is left of it.
3. The same sign about the same device in the same boot is one observation with a count; at most `KEPT` are kept.
4. After `ENOUGH` of one sign a line of a known shape is counted without a closer look: a flood must not cost minutes.
5. A log says itself whose it is, of which kernel, and where a boot begins; what is noticed carries it.
"""

from __future__ import annotations

import re
from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from dataclasses import replace
from functools import cache
from typing import Any

from ..knowledge.signs import SIGNS, Sign
from ..model.diagnosis import Observation, Point
from ..model.value import dataclass
from .kinds import side_of
from .layout import LONGEST, Block, blocks
from .lines import WALL, WIDTH, Line, clean, decode
from .versions import KERNEL, Version, named

KEPT = 4000
ENOUGH = 300
SHAPES = 20_000
LONG_SHAPE = 2000
SAMPLED = 97
"""One line of so many is asked for the name of its machine."""
MOST_VERSIONS = 50
_HEX = b"0123456789abcdef"
_DEVICE = re.compile(r"\b((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7])\b")
_DEVICE_BYTES = re.compile(_DEVICE.pattern.encode())
_BOOT = re.compile(r"^-- (?:Boot [0-9a-f]{32}|Reboot) --$")


@dataclass(frozen=True, slots=True)
class Read:
    """What one source showed.

    machines  lines by host name, of a sample
    side      whose log it is, as its last boot says
    """

    observations: tuple[Observation, ...]
    versions: tuple[Version, ...] = ()
    machines: tuple[tuple[str, int], ...] = ()
    side: str = ""


@dataclass(frozen=True, slots=True)
class _Row:
    """A row of the catalogue, or a mark of the log itself (`sign` None), ready to be looked for. `free`: its pattern,
    where that fits a line with its prefix as well as without."""

    shape: bytes
    needle: bytes
    sign: Sign | None
    place: int
    free: re.Pattern[str] | None = None


def _shape(raw: bytes) -> bytes:
    return raw.translate(None, _HEX)


_MARKS = ("Linux version ", "DMI: ", "Hypervisor detected", "-- Boot ", "-- Reboot --", "QEMU emulator version ",
          "running kernel: ", "pve-qemu-kvm: ", "qemu-server: ")  # fmt: skip


@cache
def _index() -> tuple[re.Pattern[bytes], Mapping[bytes, tuple[_Row, ...]]]:
    """A pattern that finds the shapes of all needles in one go, and the rows that each find stands for: it finds the
    shortest where one begins with another."""
    needles = [(mark, None) for mark in _MARKS] + [(sign.needle, sign) for sign in SIGNS]
    rows = [
        _Row(_shape(needle.encode()), needle.encode(), sign, place, _free(sign))
        for place, (needle, sign) in enumerate(needles)
    ]
    tree: dict[int, Any] = {}
    for row in rows:
        node = tree
        for letter in row.shape:
            node = node.setdefault(letter, {})
        node[_END] = {}
    found = re.compile(b"(?=(" + _alternatives(tree) + b"))")
    table: dict[bytes, list[_Row]] = defaultdict(list)
    for row in rows:
        match = found.match(row.shape)
        table[match[1] if match else b""].append(row)
    return found, {shape: tuple(group) for shape, group in table.items()}


def _free(sign: Sign | None) -> re.Pattern[str] | None:
    return sign.pattern if sign is not None and not _BOUND.search(sign.pattern.pattern) else None


_BOUND = re.compile(r"(?<![\[\\])\^|(?<!\\)\$|\\A|\\Z|\(\?<?!|\(\?<=")
"""What makes a pattern depend on where a line begins or ends, or on what must not stand there."""
_END = -1


def _alternatives(tree: Mapping[int, Any]) -> bytes:
    if _END in tree:
        return b""
    ways = [re.escape(bytes((letter,))) + _alternatives(rest) for letter, rest in tree.items()]
    return ways[0] if len(ways) == 1 else b"(?:" + b"|".join(ways) + b")"


class _Shapes(dict[bytes, tuple[_Row, ...]]):
    """Which rows may fit a line of this shape; bounded."""

    def __missing__(self, shape: bytes) -> tuple[_Row, ...]:
        pattern, table = _index()
        rows = [row for found in set(pattern.findall(shape)) for row in table[found] if shape.find(row.shape) >= 0]
        fitting = tuple(sorted(rows, key=lambda row: row.place))
        if len(shape) <= LONG_SHAPE:
            if len(self) >= SHAPES:
                self.clear()
            self[shape] = fitting
        return fitting


_SHAPES = _Shapes()


def scan(chunks: Iterable[bytes], source: str) -> tuple[Observation, ...]:
    """What the catalogue knows of these bytes, in the order of the lines."""
    return read(blocks(chunks), source).observations


def read(parts: Iterable[Block], source: str, side: str = "") -> Read:
    """What these lines show. `side`: whose log it is where it does not say so itself."""
    tally = _Tally(source, side)
    for block in parts:
        shapes = _shape(b"\n".join(block.lines)).split(b"\n")
        for index, shape in enumerate(shapes):
            if rows := _SHAPES[shape]:
                tally.look(rows, shape, block.lines[index], block.numbers[index])
        for line in block.lines[::SAMPLED]:
            tally.sample(line)
    return tally.result()


class _Tally:
    """What one source has shown so far; bounded by `KEPT` and `ENOUGH`.

    found     the first of each (boot, sign, device)
    counts    how often each was noticed
    flooding  shapes of lines that are only counted by now, and the signs that they showed
    """

    def __init__(self, source: str, side: str) -> None:
        self.source, self.side, self._given = source, side, side
        self.kernel: tuple[int, int] | None = None
        self.boot, self._begun, self._began = 0, False, 0.0
        self.versions: list[Version] = []
        self.found: dict[tuple[int, str, str], Observation] = {}
        self.counts: Counter[tuple[int, str, str]] = Counter()
        self.machines: Counter[str] = Counter()
        self._times: Counter[str] = Counter()
        self._flooding: dict[bytes, tuple[str, ...]] = {}
        self._last: tuple[tuple[int, str, str], int, str] = (0, "", ""), 0, ""

    def look(self, rows: tuple[_Row, ...], shape: bytes, raw: bytes, number: int) -> None:
        """One line that may show something."""
        if flood := self._flooding.get(shape):
            match = _DEVICE_BYTES.search(raw)
            device = _full(match[1].decode()) if match else ""
            keys = [(self.boot, name, device) for name in flood]
            if all(key in self.found for key in keys):
                for key in keys:
                    self.counts[key] += 1
                return
        fitting = [row for row in rows if raw.find(row.needle) >= 0]
        if not fitting:
            return
        text = decode(raw[: 4 * WIDTH])
        fitting = [row for row in fitting if row.free is None or row.free.search(text)]
        if not fitting:
            return
        line = clean(raw[:LONGEST])
        device = _device(line.text)
        shown = []
        for row in fitting:
            if row.sign is None:
                self._mark(line.text, line.seconds)
            elif (not self.side or row.sign.where in ("", self.side)) and row.sign.pattern.search(line.text):
                self._note(row.sign, device, line, number)
                shown.append(row.sign.id)
        if shown and all(self._times[name] >= ENOUGH for name in shown) and len(self._flooding) < SHAPES:
            self._flooding[shape] = tuple(shown)

    def sample(self, raw: bytes) -> None:
        """Whose name a line has in its prefix, whatever it says."""
        if machine := clean(raw[:LONGEST]).machine:
            self.machines[machine] += 1

    def _note(self, sign: Sign, device: str, line: Line, number: int) -> None:
        key = (self.boot, sign.id, device)
        if key not in self.found:
            if len(self.found) >= KEPT:
                return
            self.found[key] = Observation(
                sign.id, sign.says, self.source, line.text, tuple(Point(*point) for point in sign.points),
                line=number, device=device, seconds=line.seconds, machine=line.machine, harmless=sign.harmless,
                follows=sign.follows, side=self.side, boot=self.boot, kernel=self.kernel,
            )  # fmt: skip
            self._begun = True
        elif self._last == (key, number, line.text.replace(" ", "")):
            return
        self._last = (key, number, line.text.replace(" ", ""))
        self.counts[key] += 1
        self._times[sign.id] += 1

    def _mark(self, text: str, seconds: float | None) -> None:
        """The log speaks of itself."""
        if _BOOT.match(text):
            self._begin()
        elif text.startswith("Linux version "):
            again = self._begun and seconds is not None and seconds >= WALL and abs(seconds - self._began) < 30
            if self._begun and not again:
                self._begin()
            self._begun, self._began = True, seconds or 0.0
        if len(self.versions) < MOST_VERSIONS:
            for version in named(text, self.source):
                self.versions.append(version)
                if version.program == KERNEL and text.startswith("Linux version ") and len(version.number) > 1:
                    self.kernel = version.number[0], version.number[1]
        self.side = side_of(text, self.side)

    def _begin(self) -> None:
        self.boot += 1
        self.side, self.kernel, self._begun = self._given, None, False
        self._flooding.clear()

    def result(self) -> Read:
        counted = (replace(one, count=self.counts[key]) for key, one in self.found.items())
        ordered = tuple(sorted(counted, key=lambda one: one.line or 0))
        return Read(ordered, tuple(self.versions), tuple(self.machines.most_common()), self.side)


def _device(text: str) -> str:
    """The first PCI address in the words, with its domain."""
    match = _DEVICE.search(text)
    return _full(match[1]) if match else ""


def _full(address: str) -> str:
    return address if address.count(":") == 2 else f"0000:{address}"
