"""A change as text to read: unified diffs for files, one line per column for everything else."""

from __future__ import annotations

from ..model.plan import Change, binary

_FILES = frozenset({"file", "script"})


def unified(change: Change) -> str:
    """The change as a unified diff, ending in a newline. Bytes that are not UTF-8 show as question marks."""
    if binary(change.before) or binary(change.after):
        text = _sizes(change)
    else:
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


def _sizes(change: Change) -> str:
    """A file that is no text, by its size and hash: its bytes are nothing to read."""
    path = change.cell.name
    lines = [f"--- {'/dev/null' if change.before is None else path}\n"]
    lines += [f"+++ {'/dev/null' if change.after is None else path}\n"]
    for sign, text in (("-", change.before), ("+", change.after)):
        if text is not None:
            lines.append(f"{sign}{binary(text) or f'(text, {len(text)} characters)'}\n")
    return "".join(lines)


def _columns(change: Change) -> str:
    name = change.cell.name.partition("/")[2] if change.cell.kind == "vm" else str(change.cell)
    lines = [f"--- {change.cell}\n", f"+++ {change.cell}\n"]
    for sign, text in (("-", change.before), ("+", change.after)):
        lines += [f"{sign}{name}: {line}\n" for line in ([] if text is None else text.split("\n"))]
    return "".join(lines)
