"""docs/guides.md keeps its word: the rules, refusals and commands it names exist, and no line is left unanswered."""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cache
from pathlib import Path

import click
import pytest

from pve_passthrough.face.cli import cli
from pve_passthrough.rules import page_ids

from .shared import SHARED

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "guides.md").read_text(encoding="utf-8")
VERDICTS = {"right", "outdated", "incomplete", "wrong", "dangerous", "unverified"}
COMMAND = re.compile(
    r"\becho\b|update-|GRUB_CMDLINE|blacklist|\boptions |hostpci|\bargs\b|\bqm [a-z]|lspci|lsusb|dmesg|nano |modprobe"
    r"|dkms|git clone|\bapt |find /|\bgrep |\bcat /|nvidia-smi|pcie_acs_override|iommu=|^vfio|^reboot|^cpu: |romfile"
    r"|kvm=off"
)
"""What a line of a guide holds that somebody is meant to type."""


@dataclass(frozen=True)
class Row:
    """One statement: where it stands (`guide: lines` in the common table, lines elsewhere) and what is said to it."""

    name: str
    lines: str
    statement: str
    verdict: str
    truth: str
    answer: str

    @property
    def common(self) -> set[str]:
        """Rows of the common table that this one points to."""
        return set(re.findall(r"\bC\d+\b", f"{self.truth} {self.answer}"))


@dataclass(frozen=True)
class Guide:
    """One guide's part of the page."""

    number: int
    length: int
    rows: tuple[Row, ...]
    left_out: frozenset[int]

    def pointing_to(self, name: str) -> set[int]:
        return {line for row in self.rows if name in row.common for line in numbers(row.lines)}


def numbers(text: str) -> set[int]:
    """`3, 5-7` as numbers."""
    found: set[int] = set()
    for part in text.split(","):
        first, _, last = part.strip().partition("-")
        found.update(range(int(first), int(last or first) + 1))
    return found


def cells(section: str) -> Iterator[list[str]]:
    """The rows of the one table in a section, below its head; each as wide as the head."""
    lines = [line for line in section.splitlines() if line.startswith("|")]
    width = lines[0].count("|")
    assert set(lines[1]) == {"|", "-"} and lines[1].count("|") == width
    for line in lines[2:]:
        assert line.count("|") == width and line.endswith("|"), line
        yield [cell.strip() for cell in line.strip("|").split("|")]


@cache
def sections() -> dict[str, str]:
    parts = re.split(r"^## (.+)$", PAGE, flags=re.M)
    return dict(zip(parts[1::2], parts[2::2], strict=True))


@cache
def common() -> tuple[Row, ...]:
    return tuple(Row(*row) for row in cells(sections()["Said by several"]))


@cache
def guides() -> tuple[Guide, ...]:
    found = []
    for title, section in sections().items():
        if match := re.fullmatch(r"Guide (\d): .+ \((\d+) lines\)", title):
            left = re.search(r"^Left out: ([\d, -]+)\.$", section, re.M)
            assert left is not None, title
            rows = tuple(Row(f"guide {match[1]}, line {row[0]}", *row) for row in cells(section))
            found.append(Guide(int(match[1]), int(match[2]), rows, frozenset(numbers(left[1]))))
    return tuple(found)


def every_row() -> list[Row]:
    return [*common(), *(row for guide in guides() for row in guide.rows)]


def spans() -> list[str]:
    """What stands in backticks, once each; a line break inside one is a space."""
    return list(dict.fromkeys(" ".join(span.split()) for span in re.findall(r"`([^`]+)`", PAGE)))


def refusals() -> set[str]:
    """References that the text calls a refusal."""
    return set(re.findall(r"refuse[^`;.]*`([a-z]+(?:\.[a-z-]+)+)`", PAGE, re.I))


def commands() -> list[str]:
    return [span for span in spans() if span.startswith("pve-passthrough ")]


def test_there_are_five_guides_and_a_table_of_what_several_say() -> None:
    assert [guide.number for guide in guides()] == [1, 2, 3, 4, 5]
    assert [row.name for row in common()] == [f"C{number}" for number in range(1, len(common()) + 1)]


def test_the_numbers_are_those_of_the_tables() -> None:
    head, *_ = (line for line in sections()["In numbers"].splitlines() if line.startswith("|"))
    words = [cell.strip() for cell in head.strip("|").split("|")][2:]
    assert set(words) == VERDICTS
    for name, *figures in cells(sections()["In numbers"]):
        rows = [row for guide in guides() if name in ("all", str(guide.number)) for row in guide.rows]
        assert [int(figure) for figure in figures] == [
            len(rows),
            *(sum(row.verdict == word for row in rows) for word in words),
        ], name


@pytest.mark.parametrize("row", every_row(), ids=lambda row: row.name)
def test_every_row_has_a_verdict_a_source_and_an_answer(row: Row) -> None:
    assert row.verdict in VERDICTS
    assert row.statement and row.answer
    sourced = re.search(r"\[[^\]]{4,}\]", row.truth) or row.common or row.verdict == "unverified"
    assert sourced, f"no source: {row.truth}"
    assert re.search(r"`|\bC\d|not yet|\.md\)|outside the program", row.answer, re.I), f"no answer: {row.answer}"


def test_what_several_say_names_exactly_the_lines_that_point_to_it() -> None:
    for row in common():
        told = {int(number): numbers(lines) for number, _, lines in (p.partition(":") for p in row.lines.split(";"))}
        meant = {guide.number: guide.pointing_to(row.name) for guide in guides()}
        assert told == {number: lines for number, lines in meant.items() if lines}, row.name
        assert len(told) > 1, f"{row.name} is said by one guide only"


def test_no_guide_points_to_a_row_that_is_not_there() -> None:
    known = {row.name for row in common()}
    assert not {name for guide in guides() for row in guide.rows for name in row.common} - known


def test_every_rule_that_is_named_has_a_page() -> None:
    named = {span for span in spans() if re.fullmatch(r"[a-z]+\.[a-z0-9-]+", span)} - refusals()
    assert len(named) > 40
    assert sorted(named - set(page_ids())) == []


def test_every_refusal_that_is_named_is_made_somewhere() -> None:
    source = "\n".join(path.read_text(encoding="utf-8") for path in (ROOT / "src").rglob("*.py"))
    made = set(re.findall(r"Failure\(\s*\"([a-z]+\.[a-z-]+)\"", source))
    assert 'f"refused.{' in source  # a finding that stops a plan gives its rule's name to the refusal
    made |= {f"refused.{rule}" for rule in page_ids()}
    assert refusals()
    assert sorted(refusals() - made) == []


def parse(command: click.Command, words: list[str], parent: click.Context | None = None) -> None:
    """Take a command line apart as click would, without running anything."""
    if not isinstance(command, click.Group):
        command.make_context(command.name, words, parent=parent)
        return
    context = click.Context(command, info_name=command.name, parent=parent)
    _, rest, _ = command.make_parser(context).parse_args(args=list(words))
    inner = command.get_command(context, rest[0]) if rest else None
    assert inner is not None, f"no such verb: {' '.join(words)}"
    parse(inner, rest[1:], context)


@pytest.mark.parametrize("line", commands())
def test_every_command_is_accepted(line: str) -> None:
    meant = {"DEVICE": "gpu", "N": "100", "FILE": "/dev/null"}
    parse(cli, [meant.get(word, word) for word in line.split()[1:]])


def test_a_command_that_does_not_exist_is_not_accepted() -> None:
    for words in (["chekc"], ["check", "--vn", "100"], ["plan", "gpu"], ["check", "--vm", "7"]):
        with pytest.raises((click.UsageError, AssertionError)):
            parse(cli, words)


def test_links_lead_somewhere() -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", PAGE):
        assert (ROOT / "docs" / target).is_file(), target


@pytest.mark.parametrize("guide", guides(), ids=lambda guide: f"guide-{guide.number}")
def test_lines_are_inside_the_guide_and_answered_or_left_out_but_not_both(guide: Guide) -> None:
    answered = {line for row in guide.rows for line in numbers(row.lines)}
    assert answered | guide.left_out <= set(range(1, guide.length + 1))
    assert not answered & guide.left_out
    assert guide.rows == tuple(sorted(guide.rows, key=lambda row: min(numbers(row.lines))))


# -- against the guides themselves ----------------------------------------------------------------


@cache
def text_of(number: int) -> tuple[str, ...]:
    files = sorted((SHARED / "guides").glob("*.txt"))
    if len(files) != len(guides()):
        pytest.skip(f"the five guides are not at {SHARED / 'guides'}; see docs/limits.md")
    return tuple(files[number - 1].read_text(encoding="utf-8").splitlines())


@pytest.mark.parametrize("guide", guides(), ids=lambda guide: f"guide-{guide.number}")
def test_every_line_of_the_guide_is_answered_or_left_out(guide: Guide) -> None:
    lines = text_of(guide.number)
    answered = {line for row in guide.rows for line in numbers(row.lines)}
    assert guide.length == len(lines)
    written = {number for number, line in enumerate(lines, 1) if line.strip()}
    assert sorted(written - answered - guide.left_out) == []


@pytest.mark.parametrize("guide", guides(), ids=lambda guide: f"guide-{guide.number}")
def test_no_line_with_a_command_is_left_out(guide: Guide) -> None:
    lines = text_of(guide.number)
    typed = {number for number, line in enumerate(lines, 1) if COMMAND.search(line)}
    assert len(typed) > 5
    assert sorted(typed & guide.left_out) == []


@pytest.mark.parametrize("guide", guides(), ids=lambda guide: f"guide-{guide.number}")
def test_the_words_are_our_own(guide: Guide) -> None:
    """No eight words in a row stand in the guide and on the page."""
    ours = runs(re.sub(r"`[^`]*`", " ", PAGE))
    assert sorted(runs(" ".join(text_of(guide.number))) & ours) == []


def runs(text: str, length: int = 8) -> set[str]:
    words = re.findall(r"[a-z0-9']+", text.lower())
    return {" ".join(words[at : at + length]) for at in range(len(words) - length + 1)}
