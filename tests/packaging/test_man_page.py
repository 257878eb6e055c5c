"""The manual page says everything that the command line takes, and nothing that it does not take."""

from __future__ import annotations

import re
from pathlib import Path

import click
import pytest

from pve_passthrough.change import boot_unit, journal
from pve_passthrough.change.engine import LOCK
from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import VERBS, cli
from pve_passthrough.model.own import OWN_FILES
from pve_passthrough.planning.choose import CLASS_WORDS
from pve_passthrough.planning.tweaks import TWEAKS

PAGE = (Path(__file__).resolve().parents[2] / "packaging" / "pve-passthrough.8.rst").read_text(encoding="utf-8")
COMMON = "--output-format"


def leaves() -> dict[str, click.Command]:
    """Every command by its words: `check`, `sim create`."""
    found: dict[str, click.Command] = {}
    context = click.Context(cli)
    for name, _, _ in VERBS:
        command = cli.get_command(context, name)
        assert command is not None
        if isinstance(command, click.Group):
            found.update({f"{name} {inner}": command.commands[inner] for inner in command.commands})
        else:
            found[name] = command
    return found


def options(command: click.Command) -> set[str]:
    words = (word for parameter in command.params for word in (*parameter.opts, *parameter.secondary_opts))
    return {word for word in words if word.startswith("-")}


def section(title: str) -> str:
    match = re.search(rf"^{title}\n=+\n(.*?)(?=^[A-Z ]+\n=+\n|\Z)", PAGE, re.M | re.S)
    assert match is not None, title
    return match.group(1)


def entry(words: str) -> str:
    """The lines that belong to one command: from its own, at the margin, to the next one at the margin."""
    blocks = re.findall(rf"^\*\*{words}\*\*(?= |$).*(?:\n(?:[ ].*)?$)*", PAGE, re.M)
    return "\n".join(blocks)


@pytest.mark.parametrize("words", leaves())
def test_every_verb_has_its_entry_with_all_of_its_options(words: str) -> None:
    text = entry(words)
    assert text, f"{words} has no entry"
    told = set(re.findall(r"(?<![\w-])--?[a-z][a-z0-9-]*", text))
    assert options(leaves()[words]) - {COMMON} <= told


@pytest.mark.parametrize("words", leaves())
def test_an_entry_promises_no_option_that_does_not_exist(words: str) -> None:
    told = set(re.findall(r"\*\*(--[a-z0-9-]+)\*\*", entry(words)))
    assert told <= {*options(leaves()[words]), "--host", "--saved"}


def test_the_shared_option_names_the_verbs_that_have_it() -> None:
    lines = re.search(rf"^\*\*{COMMON}\*\*.*\n((?: .*\n)+)", PAGE, re.M)
    assert lines is not None
    told = set(re.findall(r"\*\*([a-z -]+)\*\*", lines.group(1).partition(" for ")[2]))
    assert told == {words for words, command in leaves().items() if COMMON in options(command)}


def test_the_options_of_the_program_itself_are_there() -> None:
    for word in options(cli) | {"-h", "--help"}:
        assert f"**{word}**" in section("OPTIONS"), word


def test_every_exit_code_is_there_with_its_meaning_and_no_other() -> None:
    told = re.findall(r"^(\d+)\n    ([^:]+):", section("EXIT STATUS"), re.M)
    assert told == [(str(int(code)), code.name.replace("_", " ").capitalize()) for code in Exit]


@pytest.mark.parametrize(
    "place", [*OWN_FILES, journal.MARKER, f"{journal.RUNS}/ID/", LOCK, boot_unit.PACKAGED], ids=str
)
def test_every_file_of_ours_is_there(place: str) -> None:
    assert f"*{place}*" in section("FILES")


def test_class_words_and_tweaks_are_there() -> None:
    for word in CLASS_WORDS:
        assert f"**{word}**" in section("DEVICE"), word
    for word in TWEAKS:
        assert f"**{word}**" in entry("plan"), word
