"""Asking: what becomes a gap, what is an answer, and how gaps are told to people."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import pytest

from pve_passthrough.host.base import Host, Missing, Ran, Room, Unreadable
from pve_passthrough.host.local import Local
from pve_passthrough.model.facts import Gap
from pve_passthrough.probe.asking import REASONS_PER_FACT, Asking


class Mute(Local):
    """A host that answers nothing, in one way or the other."""

    def __init__(self, error: type[Missing] | type[Unreadable]) -> None:
        super().__init__("/")
        self.error = error

    def read(self, path: str) -> bytes:
        raise self.error(path, "no")

    def names(self, path: str) -> tuple[str, ...]:
        raise self.error(path, "no")

    def link(self, path: str) -> str:
        raise self.error(path, "no")

    def room(self, path: str) -> Room:
        raise self.error(path, "no")

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        raise self.error(argv[0], "no")


def ask_everything(ask: Asking) -> list[object]:
    return [
        ask.text("/a", "a"),
        ask.trimmed("/b", "b"),
        ask.data("/c", "c"),
        ask.names("/d", "d"),
        ask.link("/e", "e"),
        ask.need("/f", "f"),
        ask.room("/g", "g"),
        ask.run(("h", "-x"), "h"),
    ]


def test_not_there_is_an_answer_except_where_it_was_needed() -> None:
    ask = Asking(Mute(Missing))
    assert ask_everything(ask) == [None] * 8
    assert [gap.about for gap in ask.gaps] == ["f", "g", "h"]


def test_nobody_could_say_is_always_a_gap() -> None:
    ask = Asking(Mute(Unreadable))
    assert ask_everything(ask) == [None] * 8
    assert [gap.about for gap in ask.gaps] == list("abcdefgh")
    assert ask.gaps[0] == Gap("a", "/a: no")


def test_without_a_fact_the_path_names_the_gap() -> None:
    ask = Asking(Mute(Unreadable))
    ask.text("/proc/x")
    assert ask.gaps == (Gap("/proc/x", "no"),)


def test_answers_come_through(tmp_path: Path) -> None:
    (tmp_path / "file").write_bytes(b" text\xff \n\0")
    (tmp_path / "link").symlink_to("file")
    ask = Asking(Local(str(tmp_path)))
    assert ask.data("/file") == b" text\xff \n\0"
    assert ask.text("/file") == " text\udcff \n\0"
    assert ask.need("/file", "f") == ask.text("/file")
    assert ask.trimmed("/file") == "text\udcff"
    assert ask.names("/") == ("file", "link")
    assert ask.link("/link") == "file"
    assert ask.gaps == ()


def test_room_and_programs_come_through() -> None:
    host: Host = Local("/")
    ask = Asking(host)
    ran, room = ask.run(("sh", "-c", "echo $LC_ALL; exit 3"), "x"), ask.room("/", "y")
    assert ran == Ran(3, "C\n")
    assert room is not None and room.total == os.statvfs("/").f_blocks * os.statvfs("/").f_frsize
    assert ask.host is host and ask.gaps == ()


def test_many_of_one_kind_become_one_that_counts() -> None:
    ask = Asking(Mute(Missing))
    for number in range(559):
        ask.gap("pci.config", "denied", f"device {number}")
        ask.gap("pci.config", "denied", f"device {number}")
    assert ask.gaps == (Gap("pci.config", "device 0, device 1, device 2 and 556 more: denied"),)


@pytest.mark.parametrize(("places", "words"), [(1, "p0: r"), (3, "p0, p1, p2: r"), (4, "p0, p1, p2 and 1 more: r")])
def test_few_are_named(places: int, words: str) -> None:
    ask = Asking(Mute(Missing))
    for number in range(places):
        ask.gap("x", "r", f"p{number}")
    assert ask.gaps == (Gap("x", words),)


def test_a_thousand_different_reasons_stay_few_gaps() -> None:
    ask = Asking(Mute(Missing))
    for number in range(1000):
        ask.gap("x", f"reason {number}", f"place {number}")
    assert len(ask.gaps) == REASONS_PER_FACT + 1
    assert f"{1000 - REASONS_PER_FACT - 3} more: other reasons" in ask.gaps[-1].reason
