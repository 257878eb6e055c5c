"""The launcher is this checkout's own, whichever program runs the tests: the boot unit's text names it."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture(autouse=True, scope="session")
def _launcher() -> Iterator[None]:
    before, sys.argv[0] = sys.argv[0], str(Path(__file__).resolve().parent.parent / "pve-passthrough")
    yield
    sys.argv[0] = before
