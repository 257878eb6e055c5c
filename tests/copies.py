"""Simulated hosts at the price of hard links.

A template of each built-in machine is made once per session and never changed: the simulation replaces files and never
writes into them, so a copy may share them. What is appended to (the journal) is made anew in each copy.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path

from pve_passthrough.host.simulated import Simulated, create

BESIDE = os.environ.get("PYTEST_DEBUG_TEMPROOT")
"""Where templates and copies lie: links do not reach into another file system."""


def copy_of(seed: str, folder: Path, prepare: Callable[[Simulated], None] | None = None) -> Simulated:
    """A fresh machine of this kind in a directory that does not exist yet; `prepare` has been done to it."""
    shutil.copytree(_template(seed, prepare), folder, symlinks=True, copy_function=os.link)
    return Simulated(str(folder))


@cache
def _template(seed: str, prepare: Callable[[Simulated], None] | None) -> str:
    root = tempfile.mkdtemp(prefix=f"template-{seed}-", dir=BESIDE)
    atexit.register(shutil.rmtree, root, ignore_errors=True)
    host = create(f"{root}/host", seed)
    if prepare is not None:
        prepare(host)
    return f"{root}/host"
