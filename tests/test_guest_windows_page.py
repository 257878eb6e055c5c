"""The page about Windows names rules and commands that exist, and every row of its tables ends with a source."""

from __future__ import annotations

import re
import shlex
from pathlib import Path

import click
import pytest

from pve_passthrough.face.cli import cli
from pve_passthrough.rules import page_ids

PAGE = (Path(__file__).resolve().parents[1] / "docs" / "guest-windows.md").read_text(encoding="utf-8")
COMMANDS = sorted(set(re.findall(r"`pve-passthrough ([^`]+)`", PAGE)))
RULES = sorted(set(re.findall(r"`([a-z]+\.[a-z-]+)`", PAGE)))


def test_the_page_names_rules_and_commands() -> None:
    assert len(RULES) > 8 and len(COMMANDS) > 6


@pytest.mark.parametrize("rule", RULES)
def test_every_rule_exists(rule: str) -> None:
    assert rule in page_ids()


@pytest.mark.parametrize("line", COMMANDS)
def test_every_command_is_taken(line: str) -> None:
    """Parsed as it stands, down to its options, and not run."""
    words = shlex.split(line)
    command: click.Command = cli
    context = click.Context(cli, info_name="pve-passthrough")
    while isinstance(command, click.Group):
        inner = command.get_command(context, words[0])
        assert inner is not None, line
        command, context, words = inner, click.Context(inner, parent=context, info_name=words[0]), words[1:]
    if words != ["--help"] and line != "inside":
        command.make_context(command.name, words, parent=context.parent)


def tables() -> list[list[list[str]]]:
    blocks = re.findall(r"(?:^\|.*\n)+", PAGE, re.M)
    return [
        [[cell.strip() for cell in row.strip("|").split("|")] for row in block.strip().split("\n")] for block in blocks
    ]


def test_tables_are_even_and_no_cell_of_a_source_is_empty() -> None:
    found = tables()
    assert len(found) == 3
    for head, rule, *rows in found:
        assert set("".join(rule)) <= {"-"}
        for row in rows:
            assert len(row) == len(head), row
            assert all(row), row


def test_the_console_goes_last() -> None:
    steps = [row for row in tables()[0] if row[0].isdigit()]
    place = {
        key: int(row[0]) for row in steps for key in ("Remote Desktop,", "verify", "display --vm") if key in row[1]
    }
    assert place["Remote Desktop,"] < place["verify"] < place["display --vm"] == len(steps)
