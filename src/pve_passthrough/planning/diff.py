"""A change as text to read: unified diffs for files, one line per column for everything else."""

from __future__ import annotations

from ..model.plan import Change

_FILES = frozenset({"file", "script"})


def unified(change: Change) -> str:
    """The change as a unified diff, ending in a newline. Bytes that are not UTF-8 show as question marks."""
    text = _file_diff(change) if change.cell.kind in _FILES else _columns(change)
    return text.encode("utf-8", "replace").decode("utf-8")


def _file_diff(change: Change) -> str:
    import difflib  # costs start-up time, and only a printed plan needs it

    before, after = (text if text is None else text.splitlines(keepends=True) for text in (change.before, change.after))
    path = change.cell.name
    mode = " (executable)" if change.cell.kind == "script" else ""
    lines = difflib.unified_diff(
        before or [], after or [], "/dev/null" if before is None else path,
        "/dev/null" if after is None else path + mode, n=2,
    )  # fmt: skip
    shown = [line if line.endswith("\n") else f"{line}\n\\ No newline at end of file\n" for line in lines]
    return "".join(shown) or f"--- {change.before!r}\n+++ {change.after!r}\n"


def _columns(change: Change) -> str:
    name = change.cell.name.partition("/")[2] if change.cell.kind == "vm" else str(change.cell)
    lines = [f"--- {change.cell}\n", f"+++ {change.cell}\n"]
    for sign, text in (("-", change.before), ("+", change.after)):
        lines += [f"{sign}{name}: {line}\n" for line in ([] if text is None else text.split("\n"))]
    return "".join(lines)
