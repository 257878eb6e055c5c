"""Bytes become lines, whatever was done to them on the way."""

from __future__ import annotations

import codecs
import quopri
from collections.abc import Iterator, Sequence

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.diagnosis.kinds import kind_of
from pve_passthrough.diagnosis.layout import LONGEST, blocks
from pve_passthrough.diagnosis.stream import scan
from pve_passthrough.model.diagnosis import Kind

LOG = "\n".join(
    f"[{number:5}.000000] vfio-pci 0000:01:00.0: not ready {number}ms after bus reset; waiting for it to come back"
    for number in range(1000, 1012)
)


def lines(data: bytes, size: int = 1 << 20) -> list[tuple[int, str]]:
    chunks = (data[start : start + size] for start in range(0, len(data), size))
    return [
        pair
        for block in blocks(chunks)
        for pair in zip(block.numbers, (one.decode() for one in block.lines), strict=True)
    ]


@pytest.mark.parametrize("end", ["\n", "\r\n", "\r"])
@pytest.mark.parametrize("size", [1, 7, 1 << 20])
def test_ends_of_lines(end: str, size: int) -> None:
    assert lines(end.join(("one", "two", "", "four")).encode(), size) == [(1, "one"), (2, "two"), (3, ""), (4, "four")]


@pytest.mark.parametrize("encoding", ["utf-16", "utf-16-le", "utf-16-be", "utf-32", "utf-8-sig"])
def test_wide_letters(encoding: str) -> None:
    mark = codecs.BOM_UTF16_BE if encoding == "utf-16-be" else b""
    data = mark + LOG.encode(encoding)
    assert kind_of("a.log", data) is Kind.KERNEL_LOG
    assert [text for _, text in lines(data, 999)] == LOG.split("\n")


def test_zeros_that_a_crash_left() -> None:
    data = LOG.encode() + b"\0" * 5000 + b"\n[ 2000.000000] after the crash\n"
    assert kind_of("kern.log", data) is Kind.KERNEL_LOG
    assert lines(data)[-1] == (13, "[ 2000.000000] after the crash")


@pytest.mark.parametrize(
    "head",
    [
        b"\x7fELF\x02\x01\x01" + bytes(60),
        bytes(range(256)) * 4,
        b"\x55\xaa\x40\xeb" + bytes(60),
        b"\0" * 100,
        b"LPKSHHRH" + bytes(90),
    ],
)
def test_what_is_no_text(head: bytes) -> None:
    assert kind_of("thing", head) is Kind.BINARY


@pytest.mark.parametrize(
    "head", ["größer als".encode("latin-1"), "größer".encode(), "мост не найден\n".encode() * 40, b"", b"\x1b[1mx"]
)
def test_what_is_text(head: bytes) -> None:
    assert kind_of("thing", head) is Kind.PROSE


def hard(text: str, width: int) -> str:
    """As a terminal shows it."""
    return "\n".join(line[at : at + width] for line in text.split("\n") for at in range(0, len(line), width))


def soft(text: str, width: int, lead: str = "") -> str:
    """As a mail program breaks it, between words."""
    broken = []
    for line in text.split("\n"):
        row = lead
        for word in line.split(" "):
            if len(row) + 1 + len(word) > width and row != lead:
                broken.append(row)
                row = ""
            row += word if row in ("", lead) else f" {word}"
        broken.append(row)
    return "\n".join(broken)


@pytest.mark.parametrize("width", [60, 72, 80, 100])
def test_broken_by_a_terminal(width: int) -> None:
    found = [text for _, text in lines(hard(LOG, width).encode())]
    assert [text for text in found if text in LOG] == LOG.split("\n")


@pytest.mark.parametrize("width", [60, 72, 76])
@pytest.mark.parametrize("lead", ["", "> "])
def test_broken_by_a_mail(width: int, lead: str) -> None:
    found = lines(soft(LOG, width, lead).encode())
    whole = [(number, text.removeprefix(lead)) for number, text in found if text.removeprefix(lead) in LOG]
    assert whole == list(zip(range(1, 24, 2), LOG.split("\n"), strict=True))


def test_a_broken_line_counts_once() -> None:
    (found,) = (one for one in scan([hard(LOG, 72).encode()], "x") if "not ready" in one.text)
    assert found.count == 12


def test_whole_lines_stay_whole() -> None:
    trace = "[ 1.000000] Call Trace:\nnot a log line\n[ 2.000000] end\n[ 3.000000] " + "x" * 90 + "\nshort"
    assert [text for _, text in lines(trace.encode())] == trace.split("\n")


def test_mark_up() -> None:
    page = "<pre>" + "<br/>".join(LOG.split("\n")[:5]).replace("'", "&#39;") + "</pre>"
    assert [one.count for one in scan([page.encode()], "page.html")] == [5]


def test_entities() -> None:
    text = "can&#39;t &lt;here&gt; &quot;x&quot;\nBAR 0: can&#39;t reserve [mem 0xe0000000]\n"
    assert lines(text.encode())[1] == (2, "BAR 0: can't reserve [mem 0xe0000000]")


def test_quoted_printable() -> None:
    raw = "Content-Transfer-Encoding: quoted-printable\n\n" + LOG.replace("bus", "bus=")
    packed = quopri.encodestring(raw.encode())
    assert [text for _, text in lines(packed)][2:] == LOG.replace("bus", "bus=").split("\n")


def test_colours_inside_the_words() -> None:
    assert lines(b"\x1b[31mnot \x1b[0mready\n") == [(1, "not ready")]


def test_a_line_without_end_is_cut() -> None:
    def endless() -> Iterator[bytes]:
        for _ in range(100):
            yield b"x" * 100_000

    held = [len(line) for block in blocks(endless()) for line in block.lines]
    assert sum(held) == 10_000_000
    assert max(held) <= LONGEST + 100_000


@settings(max_examples=60)
@given(st.lists(st.binary(max_size=60), max_size=30), st.integers(1, 20))
def test_any_bytes_pass(pieces: Sequence[bytes], size: int) -> None:
    data = b"\n".join((*pieces, LOG.encode()[: size * 40], *pieces))
    numbers = [
        number for number, _ in ((n, t) for b in blocks([data]) for n, t in zip(b.numbers, b.lines, strict=True))
    ]
    assert numbers == sorted(numbers)
    assert kind_of("x", data[:65536]) in Kind
