"""GRUB's configuration: the assignments that grub-mkconfig would end up with, and the grub.cfg made from them.

1. Files are evaluated as the shell sources them (grub-mkconfig: /etc/default/grub, then /etc/default/grub.d/*.cfg in
   order, under `set -e`), by a small evaluator of assignments; no shell is started.
2. What the shell would refuse fails with the shell's own text. What this evaluator cannot know (a command's output)
   counts as empty; a conditional or a sourced file fails and says that it is not simulated.
3. Pure: texts in, texts out.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_CONTROL = frozenset(
    {"if", "then", "else", "elif", "fi", "for", "while", "until", "do", "done", "case", "esac", "{", "}", "."}
)


class ShellError(Exception):
    """What the shell says and the status that it leaves with."""

    def __init__(self, text: str, status: int) -> None:
        super().__init__(text)
        self.text = text
        self.status = status


def evaluate(files: Iterable[tuple[str, str]]) -> dict[str, str]:
    """Variables after sourcing (path, text) pairs in order. Raises ShellError as `sh -e` would end."""
    variables: dict[str, str] = {}
    for path, text in files:
        for number, words in _commands(path, text):
            _run(path, number, words, variables)
    return variables


def check_syntax(path: str, text: str) -> str:
    """`sh -n`: empty, or the shell's complaint. Looks at quoting only."""
    try:
        for _ in _commands(path, text):
            pass
    except ShellError as error:
        return error.text
    return ""


def _run(path: str, number: int, words: list[str], variables: dict[str, str]) -> None:
    """One simple command: assignments count, `export` and `:` are known, anything else is not found."""
    pending: dict[str, str] = {}
    for index, word in enumerate(words):
        name, equals, raw = word.partition("=")
        if equals and _NAME.fullmatch(name):
            pending[name] = expand(raw, {**variables, **pending})
            continue
        if word == "export":
            for exported in words[index + 1 :]:
                name, equals, raw = exported.partition("=")
                if equals:
                    variables[name] = expand(raw, variables)
            return
        if word in (":", "true", "set", "unset", "readonly"):
            return
        if word in _CONTROL or word.startswith("["):
            raise ShellError(f"{path}: {number}: {word}: conditions and loops are not simulated", 2)
        raise ShellError(f"{path}: {number}: {word}: not found", 127)
    variables.update(pending)


def _commands(path: str, text: str) -> Iterable[tuple[int, list[str]]]:
    """(line number, raw words) of each simple command; quotes and substitutions are still in the words."""
    words: list[str] = []
    word = ""
    line, started, place = 1, 1, 0
    while place < len(text):
        end, kept = _piece(path, text, place, word)
        if kept is None:
            words += [word] if word else []
            word = ""
            if text[place] not in " \t":
                if words:
                    yield started, words
                words = []
        else:
            if kept and not words and not word:
                started = line
            word += kept
        line += text.count("\n", place, end)
        place = end
    words += [word] if word else []
    if words:
        yield started, words


def _piece(path: str, text: str, place: int, word: str) -> tuple[int, str | None]:
    """The next piece: where it ends, and what it adds to the word; None where a word ends."""
    char = text[place]
    if char in "'\"`" or text.startswith("$(", place):
        end = _closing(path, text, place)
        return end, text[place:end]
    if char == "\\" and place + 1 < len(text):
        return place + 2, "" if text[place + 1] == "\n" else text[place : place + 2]
    if char == "#" and not word:
        end = text.find("\n", place)
        return len(text) if end < 0 else end, ""
    return place + 1, None if char in " \t\n;&|" else char


def _closing(path: str, text: str, start: int) -> int:
    """Index after the quote or substitution that opens at `start`."""
    closer = ")" if text[start] in "$(" else text[start]
    place = start + (2 if text[start] == "$" else 1)
    while place < len(text):
        char = text[place]
        if char == closer:
            return place + 1
        if char == "\\" and closer != "'":
            place += 2
        elif (closer == ")" and char in "'\"(") or (closer == '"' and (char == "`" or text.startswith("$(", place))):
            place = _closing(path, text, place)
        else:
            place += 1
    what = {")": 'end of file unexpected (expecting ")")', "`": "EOF in backquote substitution"}
    trouble = what.get(closer, "Unterminated quoted string")
    raise ShellError(f"{path}: {text.count(chr(10)) + 1}: Syntax error: {trouble}", 2)


def expand(raw: str, variables: Mapping[str, str]) -> str:
    """A word's value: quotes removed, variables put in, command substitutions empty."""
    result = ""
    place = 0
    quoted = False
    while place < len(raw):
        char = raw[place]
        if char == "'" and not quoted:
            end = raw.index("'", place + 1)
            result += raw[place + 1 : end]
            place = end + 1
        elif char == '"':
            quoted = not quoted
            place += 1
        elif char == "\\" and place + 1 < len(raw):
            keep = quoted and raw[place + 1] not in '$`"\\'
            result += raw[place : place + 2] if keep else raw[place + 1]
            place += 2
        elif char == "`" or raw.startswith("$(", place):
            place = _closing("", raw, place)
        elif char == "$":
            value, place = _variable(raw, place, variables)
            result += value
        else:
            result += char
            place += 1
    return result


def _variable(raw: str, place: int, variables: Mapping[str, str]) -> tuple[str, int]:
    match = re.compile(r"\$(?:\{([A-Za-z_][A-Za-z0-9_]*)(?:(:?[-+])([^}]*))?\}|([A-Za-z_][A-Za-z0-9_]*))").match(
        raw, place
    )
    if match is None:
        return "$", place + 1
    braced, operator, other, bare = match.groups()
    value = variables.get(braced or bare, "")
    if operator and operator.endswith("-") and not value:
        value = other.strip('"')
    elif operator and operator.endswith("+"):
        value = other.strip('"') if value else ""
    return value, match.end()


def config(variables: Mapping[str, str], kernels: Iterable[str], root: str, prefix: str) -> str:
    """grub.cfg: one entry for each kernel, newest first, with a recovery entry each (GRUB's 10_linux).

    `root` is GRUB's own idea of the root (`root=/dev/mapper/pve-root ro`), `prefix` is `/boot` or empty on an ESP.
    """
    linux = variables.get("GRUB_CMDLINE_LINUX", "")
    default = variables.get("GRUB_CMDLINE_LINUX_DEFAULT", "")
    lines = ["# DO NOT EDIT THIS FILE", f'set default="{variables.get("GRUB_DEFAULT", "0")}"']
    lines.append(f"set timeout={variables.get('GRUB_TIMEOUT', '5')}")
    for release in kernels:
        for name, args in (("advanced", f"{linux} {default}"), ("recovery", f"single {linux}")):
            lines += [
                f"menuentry 'Proxmox VE GNU/Linux, with Linux {release}' $menuentry_id_option "
                f"'gnulinux-{release}-{name}' {{",
                f"\tlinux\t{prefix}/vmlinuz-{release} {root} {args}".rstrip(),
                f"\tinitrd\t{prefix}/initrd.img-{release}",
                "}",
            ]
    return "\n".join(lines) + "\n"


_ENTRY = re.compile(
    r"menuentry '[^']*'.*'gnulinux-([^']*)-(advanced|recovery)[^']*' \{"
    r"\s+linux\s+(\S+) ?(.*)\n\s+initrd\s+(\S+)"
)
_DEFAULT = re.compile(r'^set default="([^"]*)"', re.M)


def chosen(text: str) -> tuple[str, str, str, str] | None:
    """(release, kernel path, arguments, initrd path) of the entry that this grub.cfg starts; None: none can start."""
    entries = _ENTRY.findall(text)
    default = _DEFAULT.search(text)
    wanted = default.group(1) if default else "0"
    for release, kind, path, args, initrd in entries:
        if kind == "advanced" and f"gnulinux-{release}-advanced" in wanted:
            return release, path, args, initrd
    ordinary = [entry for entry in entries if entry[1] == "advanced"]
    if not ordinary:
        return None
    release, _, path, args, initrd = ordinary[int(wanted) if wanted.isdigit() and int(wanted) < len(ordinary) else 0]
    return release, path, args, initrd
