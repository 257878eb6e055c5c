"""Small hand-made hosts: a directory with a few files, and programs that answer from a table."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from pve_passthrough.host.base import Missing, Ran
from pve_passthrough.host.local import Local


class Link(str):
    """A symbolic link with this text."""


DIRECTORY = Link("")
"""An empty directory."""

Content = str | bytes | Link


def plant(root: Path, files: Mapping[str, Content]) -> Path:
    """Lay `files` (absolute path to content) out below `root`."""
    for path, content in files.items():
        place = root / path.lstrip("/")
        if content is DIRECTORY:
            place.mkdir(parents=True, exist_ok=True)
            continue
        place.parent.mkdir(parents=True, exist_ok=True)
        if isinstance(content, Link):
            os.symlink(content, place)
        elif isinstance(content, bytes):
            place.write_bytes(content)
        else:
            place.write_text(content)
    return root


class Scripted(Local):
    """A directory tree whose programs answer from a table; every start is remembered."""

    def __init__(self, root: Path, programs: Mapping[tuple[str, ...], Ran | str] | None = None) -> None:
        super().__init__(str(root))
        self.programs = dict(programs or {})
        self.started: list[tuple[str, ...]] = []

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        self.started.append(tuple(argv))
        answer = self.programs.get(tuple(argv))
        if answer is None:
            raise Missing(argv[0], "no such program")
        return Ran(0, answer) if isinstance(answer, str) else answer
