"""The verbs: what the command line's own tests do not reach."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.errors import Failure
from pve_passthrough.host.local import Local
from tests.hosts.memory import Memory


@pytest.fixture
def launched(monkeypatch: pytest.MonkeyPatch) -> pytest.MonkeyPatch:
    monkeypatch.setattr("os.access", lambda path, mode: True)
    monkeypatch.setattr("os.path.realpath", lambda path: path)
    return monkeypatch


@pytest.mark.parametrize("place", ["/tmp/clone", "/run/x", "/dev/shm/x"])
def test_a_launcher_that_a_reboot_takes_away_is_refused(launched: pytest.MonkeyPatch, place: str) -> None:
    launched.setattr(sys, "argv", [f"{place}/pve-passthrough"])
    with pytest.raises(Failure, match="after a reboot"):
        app._program(Local())
    assert app._program(Memory()) == f"{place}/pve-passthrough"  # a simulated host has no boot that would miss it


@pytest.mark.parametrize("place", ["/opt/clone", "/tmpfiles", "/var/tmp/x", "/usr/bin"])
def test_a_launcher_in_a_lasting_place_is_taken(launched: pytest.MonkeyPatch, place: str) -> None:
    launched.setattr(sys, "argv", [f"{place}/pve-passthrough"])
    assert app._program(Local()) == f"{place}/pve-passthrough"


def test_a_terminal_without_utf_8_gets_an_answer(tmp_path: Path) -> None:
    (tmp_path / "sys").mkdir()
    environment = {**os.environ, "PYTHONIOENCODING": "ascii"}
    argv = [sys.executable, "-m", "pve_passthrough", "--host", f"root:{tmp_path}", "check"]
    ran = subprocess.run(argv, capture_output=True, env=environment, timeout=60, check=False)
    assert b"UnicodeEncodeError" not in ran.stderr and b"UNKNOWN" in ran.stdout
