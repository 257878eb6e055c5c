"""Starting programs for the lab: argument vectors, bounded in time, with their last words when they fail."""

from __future__ import annotations

import os
import shutil
import subprocess
from collections.abc import Callable, Sequence
from pathlib import Path

Say = Callable[[str], None]
"""Tells the person who waits, one line at a time."""


class LabError(Exception):
    """The lab itself could not do its work; the text is for people."""


class Unavailable(LabError):
    """Something that the lab needs is not on this machine."""


NEEDED = {
    "mmdebstrap": "mmdebstrap",
    "qemu-img": "qemu-utils",
    "mke2fs": "e2fsprogs",
    "mkfs.vfat": "dosfstools",
    "mcopy": "mtools",
    "sfdisk": "fdisk",
    "setpriv": "util-linux",
}
"""Program → Debian package."""
OVMF_CODE = Path("/usr/share/OVMF/OVMF_CODE_4M.fd")
OVMF_VARS = Path("/usr/share/OVMF/OVMF_VARS_4M.fd")


def require() -> None:
    """Raises Unavailable, naming every missing package at once."""
    missing = sorted({package for program, package in NEEDED.items() if shutil.which(program) is None})
    missing += [] if OVMF_CODE.exists() and OVMF_VARS.exists() else ["ovmf"]
    if missing:
        raise Unavailable(f"missing Debian packages: {' '.join(missing)} (tools/lab installs them)")
    if os.geteuid() != 0:
        raise Unavailable("Debian trees are built as root; run it as root")


def run(argv: Sequence[str | Path], timeout: float, stdin: bytes | None = None) -> str:
    """What the program said. Raises LabError when it failed or took longer than `timeout` seconds."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words, input=stdin, stdin=None if stdin is not None else subprocess.DEVNULL,
            capture_output=True, timeout=timeout, check=False,
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise LabError(f"{words[0]} did not end within {timeout:.0f} s") from None
    except OSError as error:
        raise Unavailable(f"{words[0]}: {error}") from None
    if done.returncode != 0:
        said = (done.stderr or done.stdout).decode(errors="replace").strip()[-1500:]
        raise LabError(f"{' '.join(words[:6])} ended with {done.returncode}: {said}")
    return done.stdout.decode(errors="replace")


def in_root(root: Path, argv: Sequence[str], timeout: float) -> str:
    """Run a program inside a Debian tree; nothing of this machine's environment goes along."""
    clean = (
        "env",
        "-i",
        "HOME=/root",
        "PATH=/usr/sbin:/usr/bin:/sbin:/bin",
        "LC_ALL=C",
        "DEBIAN_FRONTEND=noninteractive",
    )
    return run(("chroot", root, *clean, *argv), timeout)
