"""Readers of the texts that decide about the next boot: kernel command lines, GRUB settings, modprobe, modules.

1. Pure: text in, values out. Nothing is run: shell text is read, never executed.
2. What cannot be evaluated without running it (`$(…)`, backticks) is kept verbatim and marked `dynamic`.
3. Every value knows its file and line, so that a finding can point at it.
4. The one text that no reader can take is shell with an unterminated quote: `TextError`, with the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import replace

from .value import dataclass

GRUB_FILE = "/etc/default/grub"
GRUB_DIR = "/etc/default/grub.d/"
KERNEL_CMDLINE = "/etc/kernel/cmdline"
MODPROBE_DIR = "/etc/modprobe.d/"
MODULES_FILE = "/etc/modules"
MODULES_DIR = "/etc/modules-load.d/"
INITRAMFS_MODULES = "/etc/initramfs-tools/modules"


class TextError(ValueError):
    """A text that its own consumer could not read either: `path`, `line` (from 1), `reason`."""

    def __init__(self, path: str, line: int, reason: str) -> None:
        super().__init__(f"{path}:{line}: {reason}")
        self.path = path
        self.line = line
        self.reason = reason


# --- kernel command line ---------------------------------------------------------------------------------------------


def split_cmdline(text: str) -> list[str]:
    """Tokens of a kernel command line, verbatim with their quotes: `a="b c" d` gives [`a="b c"`, `d`].

    Double quotes keep spaces together and nothing else is special; a quote that is never closed runs to the end,
    as in the kernel. Source: kernel, lib/cmdline.c, next_arg.
    """
    tokens: list[str] = []
    word: list[str] = []
    quoted = False
    for letter in text:
        if letter == '"':
            quoted = not quoted
        if letter in " \t\n\r\v\f\xa0" and not quoted:
            if word:
                tokens.append("".join(word))
                word = []
            continue
        word.append(letter)
    if word:
        tokens.append("".join(word))
    return tokens


def split_argument(token: str) -> tuple[str, str | None]:
    """Name and value of one token: `vfio-pci.ids="10de:1"` gives (`vfio_pci.ids`, `10de:1`); no `=`: None.

    `-` and `_` are the same in a name and come out as `_`; one pair of double quotes is taken off.
    Source: kernel, kernel/params.c, parameq; lib/cmdline.c, next_arg.
    """
    bare = token[1:-1] if len(token) > 1 and token[0] == token[-1] == '"' else token
    name, equals, value = bare.partition("=")
    if len(value) > 1 and value[0] == value[-1] == '"':
        value = value[1:-1]
    return name.replace("-", "_"), value if equals else None


def argument_values(text: str, name: str) -> list[str]:
    """All values of the argument `name`, in order; an argument without `=` gives an empty string."""
    wanted = name.replace("-", "_")
    pairs = map(split_argument, split_cmdline(text))
    return [value or "" for found, value in pairs if found == wanted]


# --- modprobe and module lists ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class ModprobeLine:
    """One statement of a modprobe.d file.

    number   line of its first character, from 1; a statement may run over several lines that end in a backslash
    command  `options`, `blacklist`, `softdep`, `install`, `alias`, `remove`, … as written
    module   with underscores, as kmod compares it; glob patterns are kept
    rest     what follows the module, verbatim without the spaces around it
    raw      the statement as written, continuation lines joined
    """

    path: str
    number: int
    command: str
    module: str
    rest: str
    raw: str


def parse_modprobe(path: str, text: str) -> list[ModprobeLine]:
    """Statements of a modprobe.d file; empty lines and lines that begin with `#` are passed over.

    A `#` later in a line is not a comment: it belongs to `rest`. Source: kmod, man/modprobe.d and
    libkmod/libkmod-config.c, kmod_config_parse.
    """
    return [
        ModprobeLine(path, number, command, module.replace("-", "_"), rest.strip(), raw)
        for number, raw in _joined_lines(text)
        if (raw.strip() and not raw.lstrip().startswith("#"))
        for command, module, rest in [_three(raw)]
    ]


def _three(raw: str) -> tuple[str, str, str]:
    parts = [*raw.strip().split(None, 2), "", ""]
    return parts[0], parts[1], parts[2]


def _joined_lines(text: str) -> list[tuple[int, str]]:
    """(number of the first line, text) with backslash-newline taken out."""
    joined: list[tuple[int, str]] = []
    pending, start = "", 0
    for number, line in enumerate(text.split("\n"), 1):
        start = start or number
        if line.endswith("\\"):
            pending += line[:-1]
            continue
        joined.append((start, pending + line))
        pending, start = "", 0
    if pending:
        joined.append((start, pending))
    return joined


@dataclass(frozen=True, slots=True)
class ModuleLine:
    """One line of /etc/modules, a modules-load.d file or /etc/initramfs-tools/modules; `module` with underscores."""

    path: str
    number: int
    module: str
    rest: str


def parse_modules(path: str, text: str) -> list[ModuleLine]:
    """Modules that a list names; lines that begin with `#` or `;` are comments (modules-load.d(5))."""
    lines = enumerate(text.split("\n"), 1)
    return [
        ModuleLine(path, number, parts[0].replace("-", "_"), " ".join(parts[1:]))
        for number, line in lines
        if (parts := line.split()) and parts[0][0] not in "#;"
    ]


# --- GRUB's settings: shell assignments ------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Assignment:
    """One assignment in a shell file.

    value        after quotes and the variables known so far; what would have to be run is kept verbatim
    operator     `=`, or `+=`, which a POSIX shell takes for the name of a command
    line, end    first and last line of the word, from 1
    raw          the word as written, `NAME="value"`
    dynamic      the value holds something that only running the file could tell
    conditional  stands inside if, case, a loop, a function, or behind && or ||
    swallowed    the command that follows on the same line and makes the assignment its private environment, as written:
                 `A=quiet splash` sets nothing and starts `splash`; empty in an ordinary assignment
    """

    path: str
    name: str
    value: str
    operator: str
    line: int
    end: int
    raw: str
    dynamic: bool = False
    conditional: bool = False
    swallowed: str = ""

    @property
    def effective(self) -> bool:
        """Whether a POSIX shell keeps the value."""
        return self.operator == "=" and not self.swallowed


_ASSIGN = re.compile(r"([A-Za-z_][A-Za-z0-9_]*)(\+?=)")
_VARIABLE = re.compile(r"\$(?:([A-Za-z_][A-Za-z0-9_]*)|\{([A-Za-z_][A-Za-z0-9_]*)\})")
_QUOTES = frozenset("'\"")
"""A word with one of them is a word even when it is empty; one that expands to nothing without them vanishes."""
_OPENERS = frozenset({"if", "case", "for", "while", "until", "{"})
_CLOSERS = frozenset({"fi", "esac", "done", "}"})
_MIDDLES = frozenset({"then", "else", "elif", "do", "!", "in"})


def parse_grub(
    path: str, text: str, variables: Mapping[str, str] | None = None, fluid: Iterable[str] = ()
) -> list[Assignment]:
    """All assignments of /etc/default/grub or a grub.d snippet, in order, with shell quoting.

    `variables` are those set by the files read before, `fluid` the names among them whose value is dynamic. Raises
    TextError for a quote, backtick or `$(` that is never closed; the line is that of the first quoted text that runs
    past the end of its line, which is where the missing quote most likely belongs.
    """
    return _Shell(path, text, dict(variables or {}), set(fluid)).read()


@dataclass(frozen=True, slots=True)
class _Word:
    raw: str
    text: str
    line: int
    end: int
    dynamic: bool


def _assigned(word: _Word) -> re.Match[str] | None:
    """NAME= at the word's beginning; a shell joins lines before it looks."""
    return _ASSIGN.match(word.raw.replace("\\\n", ""))


def _operator(word: _Word) -> str:
    match = _assigned(word)
    return match.group(2) if match else ""


class _Shell:
    """A reader of simple shell text: words, quotes, comments and the separators between commands."""

    def __init__(self, path: str, text: str, variables: dict[str, str], fluid: set[str]) -> None:
        self.path = path
        self.text = text
        self.at = 0
        self.line = 1
        self.variables = variables
        self.fluid = fluid
        self.suspect: tuple[int, str] | None = None
        self.found: list[Assignment] = []
        self.depth = 0
        self.parens = 0
        self.chained = False

    def read(self) -> list[Assignment]:
        command: list[_Word] = []
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == "\\" and self.text.startswith("\\\n", self.at):
                self._step(2)
            elif letter in " \t\r":
                self._step(1)
            elif letter == "#":
                self._skip_comment()
            elif letter in "\n;&|()":
                self._finish(command)
                self._separator(empty=not command)
                command = []
            elif letter in "<>":
                self._step(1)
            else:
                command.append(self._word())
        self._finish(command)
        return self.found

    def _step(self, count: int) -> str:
        taken = self.text[self.at : self.at + count]
        self.at += count
        self.line += taken.count("\n")
        return taken

    def _skip_comment(self) -> None:
        end = self.text.find("\n", self.at)
        self.at = len(self.text) if end < 0 else end

    def _separator(self, *, empty: bool) -> None:
        both = self.text[self.at : self.at + 2]
        if not (both[0] == "\n" and empty):  # a newline after && only continues it
            self.chained = both in ("&&", "||")
        self.parens = max(self.parens + {"(": 1, ")": -1}.get(both[0], 0), 0)
        self._step(2 if both in ("&&", "||", ";;") else 1)

    def _finish(self, command: list[_Word]) -> None:
        """Keep the assignments of one simple command."""
        words = command
        while words and words[0].raw in _OPENERS | _CLOSERS | _MIDDLES:
            self.depth += (words[0].raw in _OPENERS) - (words[0].raw in _CLOSERS)
            self.depth = max(self.depth, 0)
            words = words[1:]
        lasting = bool(words) and words[0].raw in ("export", "readonly")
        words = words[1:] if lasting else words
        plain = next((index for index, word in enumerate(words) if _operator(word) != "="), len(words))
        command_words = () if lasting else (word.raw for word in words[plain:] if word.text or _QUOTES & set(word.raw))
        swallowed = next(iter(command_words), "")
        named: set[str] = set()
        for word in words if lasting else words[:plain]:
            # Shells differ in whether an assignment sees those before it in the same command (POSIX leaves it open).
            used = {match.group(1) or match.group(2) for match in _VARIABLE.finditer(word.raw)}
            self._keep(word if named.isdisjoint(used) else replace(word, dynamic=True), swallowed)
            named.add(word.text.partition("=")[0])
        for word in () if lasting else words[plain : plain + 1]:
            self._keep(word, "")  # NAME+=…, which a POSIX shell takes for the command's name

    def _keep(self, word: _Word, swallowed: str) -> None:
        match = _assigned(word)
        if match is None:
            return
        name, operator = match.groups()
        value = word.text[match.end() :]
        conditional = self.depth + self.parens > 0 or self.chained
        self.found.append(
            Assignment(
                self.path, name, value, operator, word.line, word.end, word.raw, word.dynamic, conditional, swallowed
            )
        )
        if operator == "=" and not swallowed:
            self.variables[name] = value
            (self.fluid.add if word.dynamic else self.fluid.discard)(name)

    def _word(self) -> _Word:
        start, line = self.at, self.line
        out: list[str] = []
        dynamic = False
        while self.at < len(self.text) and self.text[self.at] not in " \t\r\n;&|()<>":
            letter = self.text[self.at]
            if letter == "'":
                out.append(self._quoted("'")[1:-1])
            elif letter == '"':
                inner, fluid = self._double()
                out.append(inner)
                dynamic |= fluid
            elif letter == "\\":
                out.append(self._escaped())
            elif letter in "$`":
                inner, fluid = self._expand()
                out.append(inner)
                dynamic |= fluid
            else:
                out.append(self._step(1))
        return _Word(self.text[start : self.at], "".join(out), line, self.line, dynamic)

    def _escaped(self) -> str:
        """A backslash outside of quotes and what it protects; the last letter of a file protects nothing."""
        pair = self._step(2)
        return pair if len(pair) == 1 else pair[1:].replace("\n", "")

    def _quoted(self, mark: str) -> str:
        """From the opening mark through the closing one."""
        start, opened = self.at, self.line
        end = self.text.find(mark, self.at + 1)
        while mark == "`" and end > 0 and self.text[end - 1] == "\\":
            end = self.text.find(mark, end + 1)
        if end < 0:
            raise self._unterminated(opened, mark)
        taken = self._step(end + 1 - start)
        self._remember(opened, mark)
        return taken

    def _double(self) -> tuple[str, bool]:
        opened = self.line
        self._step(1)
        out: list[str] = []
        dynamic = False
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == '"':
                self._step(1)
                self._remember(opened, '"')
                return "".join(out), dynamic
            if letter == "\\":
                pair = self._step(2)
                out.append(pair[1:].replace("\n", "") if pair[1:] in ("$", "`", '"', "\\", "\n") else pair)
            elif letter in "$`":
                inner, fluid = self._expand()
                out.append(inner)
                dynamic |= fluid
            else:
                out.append(self._step(1))
        raise self._unterminated(opened, '"')

    def _expand(self) -> tuple[str, bool]:
        """A `$` or backtick: (text, whether only running the file could tell)."""
        if self.text[self.at] == "`":
            return self._quoted("`"), True
        if match := _VARIABLE.match(self.text, self.at):
            self._step(match.end() - self.at)
            name = match.group(1) or match.group(2)
            return self.variables.get(name, ""), name in self.fluid or self._goes_on()
        if self.text.startswith(("$(", "${"), self.at):
            return self._nested(), True
        if self.text[self.at + 1 : self.at + 2] in tuple("0123456789#?$!@*-"):
            return self._step(2), True
        return self._step(1), self._goes_on()

    def _goes_on(self) -> bool:
        """A joined line: a shell joins before it looks for names, so the name may be longer than what stands here."""
        return self.text.startswith("\\\n", self.at)

    def _nested(self) -> str:
        """`$(…)` or `${…}` with what is nested in it, verbatim."""
        start, opened = self.at, self.line
        self._step(1)
        open_mark, close_mark = ("(", ")") if self.text[self.at] == "(" else ("{", "}")
        depth = 0
        while self.at < len(self.text):
            letter = self.text[self.at]
            if letter == "'" and open_mark == "(":
                self._quoted("'")
                continue
            if letter == '"' and open_mark == "(":
                self._double()
                continue
            depth += (letter == open_mark) - (letter == close_mark)
            self._step(2 if letter == "\\" else 1)
            if depth == 0:
                return self.text[start : self.at]
        raise self._unterminated(opened, "$" + open_mark)

    def _remember(self, opened: int, mark: str) -> None:
        if self.line > opened and self.suspect is None:
            self.suspect = (opened, mark)

    def _unterminated(self, opened: int, mark: str) -> TextError:
        line, what = self.suspect or (opened, mark)
        return TextError(self.path, line, f"unterminated {what}: the quote that begins here is not closed on this line")


def grub_files(files: Mapping[str, str | None]) -> list[str]:
    """The files that GRUB's settings come from and that have a text, in the order in which they are read.

    Source: Debian, grub-mkconfig: /etc/default/grub, then /etc/default/grub.d/*.cfg in the order of their names.
    """
    snippets = sorted(path for path in files if path.startswith(GRUB_DIR) and path.endswith(".cfg"))
    return [path for path in (GRUB_FILE, *snippets) if files.get(path) is not None]


def grub_assignments(files: Mapping[str, str | None]) -> list[Assignment]:
    """All assignments of all GRUB files in reading order; variables carry over. Raises TextError."""
    found: list[Assignment] = []
    for path in grub_files(files):
        last = {assignment.name: assignment for assignment in found if assignment.effective}
        variables = {name: assignment.value for name, assignment in last.items()}
        fluid = [name for name, assignment in last.items() if assignment.dynamic]
        found += parse_grub(path, files[path] or "", variables, fluid)
    return found


def final_value(assignments: Iterable[Assignment], name: str) -> Assignment | None:
    """The assignment of `name` that counts: the last one that a POSIX shell keeps."""
    kept = [assignment for assignment in assignments if assignment.name == name and assignment.effective]
    return kept[-1] if kept else None


def modprobe_lines(files: Mapping[str, str | None]) -> list[ModprobeLine]:
    """Statements of all /etc/modprobe.d/*.conf, in the order of the files' names (modprobe.d(5))."""
    paths = sorted(path for path in files if path.startswith(MODPROBE_DIR) and path.endswith(".conf"))
    return [line for path in paths for line in parse_modprobe(path, files[path] or "")]


def module_lines(files: Mapping[str, str | None]) -> list[ModuleLine]:
    """Modules that systemd-modules-load loads: /etc/modules-load.d/*.conf and /etc/modules.

    Debian links /etc/modules-load.d/modules.conf to /etc/modules; the same text is read once.
    """
    paths = [path for path in files if path.startswith(MODULES_DIR) and path.endswith(".conf")]
    lists = sorted(path for path in paths if not (path.endswith("/modules.conf") and files.get(MODULES_FILE)))
    return [line for path in (*lists, MODULES_FILE) for line in parse_modules(path, files.get(path) or "")]
