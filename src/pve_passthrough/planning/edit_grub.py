"""GRUB's settings: what the next boot's command line will be, and how to change it. Text in, proven text out.

1. Words are added by our own drop-in, which extends GRUB_CMDLINE_LINUX_DEFAULT; nobody else's file is touched for it.
2. Words are removed where they stand, line by line, whatever the quoting; every other byte stays.
3. update-grub sources the files with a POSIX shell: /etc/default/grub, then /etc/default/grub.d/*.cfg by name
   (Debian, grub-mkconfig). Only files made of plain assignments and comments can be foretold; conditions, other
   commands, `+=` and values that only running them would tell are refused (`Unprovable`).
4. Every result is read again and must give exactly the wanted words.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..model.own import GRUB_DROP_IN
from ..model.texts import Assignment, TextError, grub_files, parse_grub, split_cmdline
from .proof import MARK, Unprovable, require_plain, require_readable, require_result

DEFAULT = "GRUB_CMDLINE_LINUX_DEFAULT"
ALWAYS = "GRUB_CMDLINE_LINUX"
_OURS = re.compile(rf'^{DEFAULT}="\${DEFAULT} ([^"]*)"$', re.MULTILINE)
_NAME = re.compile(r"\$(?:\{([A-Za-z_]\w*)\}|([A-Za-z_]\w*)|(.?))", re.ASCII | re.DOTALL)


def tokens_of(files: Mapping[str, str | None]) -> list[str]:
    """Words of an ordinary entry's command line as the files stand: GRUB_CMDLINE_LINUX, then …_DEFAULT.

    Source: GRUB, util/grub.d/10_linux.in. Raises Unprovable.
    """
    values = _evaluate(files)
    return [*values[ALWAYS], *values[DEFAULT]]


def edit(files: Mapping[str, str | None], add: Sequence[str], drop: Sequence[str]) -> dict[str, str | None]:
    """New texts by path (None: the file goes), only for files that change."""
    require_plain(add)
    before = _evaluate(files)
    drop = [token for token in drop if token in before[ALWAYS] + before[DEFAULT] and token not in add]
    changed: dict[str, str | None] = {}
    for path in grub_files(files):
        text = files[path] or ""
        edited = text if path == GRUB_DROP_IN else _without(path, text, drop)
        if edited != text:
            changed[path] = edited
    standing = _evaluate({**files, **changed, GRUB_DROP_IN: None})
    dropin = _dropin(files.get(GRUB_DROP_IN), [*standing[ALWAYS], *standing[DEFAULT]], add, drop)
    if dropin != files.get(GRUB_DROP_IN):
        changed[GRUB_DROP_IN] = dropin
    _prove(before, _evaluate({**files, **changed}), add, drop)
    return changed


def _prove(
    before: Mapping[str, Sequence[str]], after: Mapping[str, Sequence[str]], add: Sequence[str], drop: Sequence[str]
) -> None:
    got, had = ([*values[ALWAYS], *values[DEFAULT]] for values in (after, before))
    require_result("/etc/default/grub", got, had, add, drop)
    if [token for token in before[ALWAYS] if token not in drop] != list(after[ALWAYS]):
        raise Unprovable("/etc/default/grub", f"the edited text would change {ALWAYS} in other words too")


def own_tokens(dropin: str | None) -> list[str]:
    """Words that our drop-in adds. Raises Unprovable when the file is not the way we write it."""
    if dropin is None:
        return []
    lines = [line for line in dropin.split("\n") if line.strip() and not line.lstrip().startswith("#")]
    match = _OURS.fullmatch(lines[0]) if len(lines) == 1 else None
    if match is None:
        raise Unprovable(GRUB_DROP_IN, "this program's own file was changed by somebody else")
    return match.group(1).split()


def _dropin(text: str | None, standing: Sequence[str], add: Sequence[str], drop: Sequence[str]) -> str | None:
    """Our file with the words it has, the missing ones of `add`, and without `drop`; None when nothing is left."""
    own = [token for token in own_tokens(text) if token not in drop]
    wanted = [*own, *(token for token in dict.fromkeys(add) if token not in own and token not in standing)]
    if text is not None and wanted == own_tokens(text):
        return text
    return f'{MARK}\n{DEFAULT}="${DEFAULT} {" ".join(wanted)}"\n' if wanted else None


def _evaluate(files: Mapping[str, str | None]) -> dict[str, list[str]]:
    """The words of both variables after all files. Raises Unprovable."""
    variables: dict[str, str] = {}
    unsure: dict[str, tuple[str, str]] = {}
    for path in grub_files(files):
        for assignment in _plain(path, files[path] or "", variables):
            variables[assignment.name] = assignment.value
            doubt = _doubt(assignment, unsure)
            unsure.pop(assignment.name, None)
            if doubt:
                unsure[assignment.name] = (f"{path}:{assignment.line}", doubt)
    for name in (ALWAYS, DEFAULT):
        if name in unsure:
            raise Unprovable(*unsure[name])
    return {name: _words(name, variables.get(name, "")) for name in (ALWAYS, DEFAULT)}


def _words(name: str, value: str) -> list[str]:
    if "\n" in value:
        raise Unprovable(name, "its value runs over several lines")
    tokens = split_cmdline(value)
    require_readable(name, tokens)
    return tokens


def _doubt(assignment: Assignment, unsure: Mapping[str, object]) -> str:
    """Why the value could be another one in a real shell; empty when it could not."""
    raw = assignment.raw
    if assignment.dynamic:
        return "only running the file could tell its value"
    if "$'" in raw or "=~" in raw:
        return "its quoting means different things to different shells"
    for braced, plain, other in _NAME.findall(raw):
        name = braced or plain
        if name and (name in unsure or not name.startswith("GRUB_")):
            return f"it depends on ${name}, whose value nobody can foretell"
        if other and other not in " \t\"'\\":
            return f"it depends on ${other}, whose value nobody can foretell"
    return ""


def _plain(path: str, text: str, variables: Mapping[str, str]) -> list[Assignment]:
    """The assignments of one file that holds nothing but assignments and comments. Raises Unprovable."""
    if "\r" in text or "\0" in text:
        raise Unprovable(path, "it has carriage returns or null bytes, which the shell takes for part of the words")
    try:
        assignments = parse_grub(path, text, variables)
    except TextError as error:
        raise Unprovable(f"{path}:{error.line}", error.reason) from error
    rest = text
    for start, end, assignment in reversed(_spans(path, text, assignments)):
        where = f"{path}:{assignment.line}"
        if assignment.operator != "=":
            raise Unprovable(where, "`+=` is no assignment in the shell that update-grub uses (dash), but a command")
        if assignment.dynamic and ALWAYS in assignment.raw.partition("=")[2]:
            raise Unprovable(where, "the kernel command line depends on a command")
        rest = rest[:start] + "\n" * text.count("\n", start, end) + rest[end:]
    for number, line in enumerate(rest.replace("\\\n", "\n").split("\n"), 1):
        words = line.partition("#")[0].replace(";", " ").split()
        if words and words != ["export"]:
            raise Unprovable(f"{path}:{number}", f"it holds more than plain assignments: {line.strip()}")
    return assignments


def _spans(path: str, text: str, assignments: Sequence[Assignment]) -> list[tuple[int, int, Assignment]]:
    """Where each assignment's word stands: (start, end, assignment), in order."""
    starts = [0]
    for line in text.split("\n"):
        starts.append(starts[-1] + len(line) + 1)
    spans: list[tuple[int, int, Assignment]] = []
    at = 0
    for assignment in assignments:
        start = text.find(assignment.raw, max(at, starts[assignment.line - 1]))
        if start < 0:
            raise Unprovable(f"{path}:{assignment.line}", "the assignment could not be found again")
        at = start + len(assignment.raw)
        spans.append((start, at, assignment))
    return spans


def _without(path: str, text: str, drop: Sequence[str]) -> str:
    """Take whole words out of the two variables' assignments, with the blanks before them (or after, at the start)."""
    for start, end, assignment in reversed(_spans(path, text, _plain(path, text, {}))):
        if assignment.name in (ALWAYS, DEFAULT):
            name, equals, value = text[start:end].partition("=")
            for token in drop:
                word = re.escape(token)
                value = re.sub(rf"""[ \t]+{word}(?=[\s"']|$)""", "", value)
                value = re.sub(rf"""((?:^|["'\n])){word}(?:[ \t]+|(?=["'\n])|$)""", r"\1", value)
            text = text[:start] + name + equals + value + text[end:]
    return text
