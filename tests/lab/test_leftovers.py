"""What a killed run left behind goes at the next start; what a living run uses stays."""

from __future__ import annotations

import fcntl
from pathlib import Path

from .__main__ import sweep


def folder(scratch: Path, name: str) -> Path:
    made = scratch / f"pve-passthrough-lab-{name}"
    made.mkdir()
    (made / "0-disk.raw").write_bytes(b"x")
    return made


def test_leftovers_go_and_the_living_stay(tmp_path: Path) -> None:
    left, used, starting = (folder(tmp_path, name) for name in ("left", "used", "starting"))
    for one in (left, used):
        (one / "in-use").touch()
    other = tmp_path / "pve-passthrough-notes"
    other.mkdir()
    said: list[str] = []
    with (used / "in-use").open() as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        sweep(tmp_path, said.append)
    assert not left.exists()
    assert used.exists() and starting.exists() and other.exists()
    assert len(said) == 1 and str(left) in said[0]
