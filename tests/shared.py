"""Where the recorded material lies, for the tests that need it; they skip, and say so, where it is absent.

`PVE_PASSTHROUGH_SHARED` names the folder; without it, `shared` beside the checkout is used.
"""

from __future__ import annotations

import os
import tarfile
import tempfile
from functools import cache
from pathlib import Path

import pytest

SHARED = Path(os.environ.get("PVE_PASSTHROUGH_SHARED") or Path(__file__).resolve().parents[2] / "shared")

needs_shared = pytest.mark.skipif(
    not (SHARED / "realhosts").is_dir(), reason=f"recorded material is not at {SHARED}; see docs/limits.md"
)


def realhosts() -> Path:
    """The unpacked captures of real machines: `share/<id>/…` below the returned folder."""
    return _unpacked(SHARED / "realhosts" / "cases.tar.xz")


def lab_captures() -> Path:
    """The unpacked answers of lab machines: `captures/<name>/…` below the returned folder."""
    return _unpacked(SHARED / "lab" / "captures.tar.xz")


@cache
def _unpacked(archive: Path) -> Path:
    """Unpack once per archive version into the user's cache of temporary files."""
    stamp = archive.stat()
    folder = Path(tempfile.gettempdir()) / f"pve-passthrough-tests-{os.getuid()}"
    target = folder / f"{archive.parent.name}-{stamp.st_size}-{int(stamp.st_mtime)}"
    if not target.exists():
        folder.mkdir(mode=0o700, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            with tarfile.open(archive) as packed:
                # "data" refuses a tree that holds an absolute link; Debian 12 began without filters (3.11.2).
                packed.extraction_filter = getattr(tarfile, "tar_filter", None)
                packed.extractall(scratch)
            ready = Path(scratch) / "ready"
            ready.mkdir()
            for entry in list(Path(scratch).iterdir()):
                if entry != ready:
                    entry.rename(ready / entry.name)
            try:
                ready.rename(target)
            except OSError:  # another test process was faster
                if not target.exists():
                    raise
    return target
