"""Any bytes as lines: other encodings, mark-up, and lines that a terminal or a mail program broke in two.

1. Bytes come in chunks; no more than one chunk and one line is held. A line longer than `LONGEST` is cut.
2. Lines keep the number that they have in the file, also when they are joined or taken out of mark-up.
3. What is repaired is decided once, by the first bytes: an ordinary log costs nothing.
"""

from __future__ import annotations

import codecs
import html
import re
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain, pairwise

from ..model.value import dataclass
from .lines import TIMED, decode, unmarked

CHUNK = 1 << 18
LONGEST = 1 << 16
HEAD = 1 << 16
"""Bytes that are enough to tell what a text is."""

_MARKS = ((b"\xff\xfe\0\0", "utf-32"), (b"\0\0\xfe\xff", "utf-32"), (b"\xff\xfe", "utf-16"), (b"\xfe\xff", "utf-16"))
_NARROW, _WIDE = 48, 140
"""Columns at which terminals and mail programs break lines."""
_BREAK = re.compile(rb"(?i)<br ?/?>|</(?:p|div|li|tr|pre)>")
_SOFT = re.compile(rb"=([0-9A-F]{2})")
_COLOUR = re.compile(rb"\x1b\[[0-9;?]{0,20}[A-Za-z]")
_ENTITY = re.compile(rb"&(?:#39|#x27|quot|gt|lt|amp|nbsp);")


@dataclass(frozen=True, slots=True)
class Block:
    """Some lines. `numbers`: of each in its file; `first` is that of the first one."""

    lines: Sequence[bytes]
    numbers: Sequence[int]


def plain(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same text in an encoding that has ASCII, without the zeros that a crash leaves in a log."""
    iterator = iter(chunks)
    head = next(iterator, b"")
    while len(head) < 4 and (more := next(iterator, b"")):
        head += more
    name = wide(head)
    if name is None:
        for chunk in chain((head.removeprefix(codecs.BOM_UTF8),), iterator):
            yield chunk.replace(b"\0", b"") if b"\0" in chunk else chunk
        return
    decoder = codecs.getincrementaldecoder(name)("replace")
    for chunk in chain((head,), iterator):
        yield decoder.decode(chunk).replace("\0", "").encode("utf-8", "replace")


def wide(head: bytes) -> str | None:
    """The encoding of a text whose letters take two or four bytes; None when they do not."""
    for mark, name in _MARKS:
        if head.startswith(mark):
            return name
    sample = head[:512]
    if len(sample) < 16 or sample.count(0) * 3 < len(sample):
        return None
    odd, even = sample[1::2].count(0), sample[::2].count(0)
    if odd * 10 >= len(sample) * 4 and even * 20 < len(sample):
        return "utf-16-le"
    return "utf-16-be" if even * 10 >= len(sample) * 4 and odd * 20 < len(sample) else None


def blocks(chunks: Iterable[bytes]) -> Iterator[Block]:
    """The lines of a text, some at a time."""
    iterator = plain(chunks)
    head = b""
    for chunk in iterator:
        head += chunk
        if len(head) >= HEAD:
            break
    repair = _repair(head[:HEAD])
    number = 1
    for data in _whole_lines(chain((head,), iterator)):
        lines = (_COLOUR.sub(b"", data) if b"\x1b[" in data else data).split(b"\n")
        ended = not lines[-1]
        if ended:
            lines.pop()
        block = Block(lines, range(number, number + len(lines)))
        number += len(lines) if ended else len(lines) - 1
        yield repair.repaired(block) if repair else block
    if repair:
        yield repair.rest()


def _whole_lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """The same bytes, cut at ends of lines; a line without end is cut at `LONGEST`."""
    rest = b""
    for chunk in chunks:
        for start in range(0, len(chunk), CHUNK):
            data = rest + chunk[start : start + CHUNK]
            held = b"\r" if data.endswith(b"\r") else b""
            if b"\r" in data:
                data = data[: len(data) - len(held)].replace(b"\r\n", b"\n").replace(b"\r", b"\n")
            cut = data.rfind(b"\n") + 1
            if cut == 0 and len(data) >= LONGEST:
                cut = len(data)
            rest = data[cut:] + held
            if cut:
                yield data[:cut]
    if rest:
        yield rest.replace(b"\r", b"\n")


# -- repairs -------------------------------------------------------------------------------------


class _Repair:
    """What is broken in a text, and the line that may go on.

    marked  lines end at mark-up
    coded   signs are written as HTML writes them
    soft    a mail in quoted-printable
    width   column at which timed lines were broken, 0 when they were not
    """

    PIECES = 6

    def __init__(self, marked: bool, coded: bool, soft: bool, width: int) -> None:
        self._marked, self._coded, self._soft, self._width = marked, coded, soft, width
        self._open: list[bytes] = []
        self._number = 1
        self._timed = False

    def repaired(self, block: Block) -> Block:
        lines: list[bytes] = []
        numbers: list[int] = []
        for line, number in zip(block.lines, block.numbers, strict=True):
            for piece in _BREAK.split(line) if self._marked else (line,):
                if self._open and not self._goes_on(piece):
                    self._close(lines, numbers)
                if not self._open:
                    self._number, self._timed = number, self._width > 0 and _timed(piece)
                self._open.append(piece)
        return Block(lines, numbers)

    def rest(self) -> Block:
        lines: list[bytes] = []
        numbers: list[int] = []
        if self._open:
            self._close(lines, numbers)
        return Block(lines, numbers)

    def _goes_on(self, piece: bytes) -> bool:
        last = self._open[-1]
        if len(self._open) >= self.PIECES or len(last) + len(piece) > LONGEST:
            return False
        if self._soft and last.endswith(b"="):
            return True
        return self._timed and _broken(last, piece, self._width)

    def _close(self, lines: list[bytes], numbers: list[int]) -> None:
        """A line that was broken at the very edge may be so in the middle of a word: then it counts both ways."""
        ways = (b" ", b"") if any(self._at_edge(piece) for piece in self._open[:-1]) else (b" ",)
        for whole in dict.fromkeys(map(self._joined, ways)):
            lines.append(html.unescape(decode(whole)).encode() if self._coded and b"&" in whole else whole)
            numbers.append(self._number)
        self._open = []

    def _joined(self, between: bytes) -> bytes:
        whole = self._open[0]
        for last, piece in pairwise(self._open):
            if self._soft and last.endswith(b"="):
                whole = whole[:-1] + piece
            else:
                said = unmarked(decode(piece)).encode()
                whole = whole + piece if self._at_edge(last) and not between else whole.rstrip() + b" " + said
        return _SOFT.sub(lambda match: bytes((int(match[1], 16),)), whole) if self._soft else whole

    def _at_edge(self, piece: bytes) -> bool:
        return self._width > 0 and len(decode(piece)) == self._width


def _repair(head: bytes) -> _Repair | None:
    """What the first bytes ask for; None for an ordinary text."""
    marked = len(_BREAK.findall(head[: 1 << 14])) >= 3
    soft = b"quoted-printable" in head and len(_SOFT.findall(head)) >= 3
    coded = marked or len(_ENTITY.findall(head[: 1 << 14])) >= 3
    width = 0 if soft else _width(head)
    return _Repair(marked, coded, soft, width) if marked or coded or soft or width else None


def _width(head: bytes) -> int:
    """The column at which the lines of a log were broken; 0 when they were not."""
    lines = head.replace(b"\r\n", b"\n").split(b"\n")[:400]
    timed = [_timed(line) for line in lines]
    if sum(timed) < 3:
        return 0
    pairs = [
        (line, lines[index + 1])
        for index, line in enumerate(lines[:-1])
        if timed[index] and not timed[index + 1] and unmarked(decode(lines[index + 1]))
    ]
    width = max((len(decode(line)) for line, is_timed in zip(lines, timed, strict=True) if is_timed), default=0)
    if not pairs or not _NARROW <= width <= _WIDE:
        return 0
    broken = [line for line, following in pairs if _broken(line, following, width)]
    return width if len(broken) * 10 >= len(pairs) * 6 else 0


def _broken(line: bytes, following: bytes, width: int) -> bool:
    """Whether the second is the rest of the first: its first word did not fit any more, and it says no time."""
    words = unmarked(decode(following[:LONGEST])).split(None, 1)
    if not words or words[0].startswith("```") or _timed(following):
        return False
    return len(decode(line.rstrip())) + 1 + len(words[0]) > width


def _timed(line: bytes) -> bool:
    return TIMED.match(decode(line[:160])) is not None or TIMED.match(unmarked(decode(line[:160]))) is not None
