"""Debian trees for lab hosts, made from packages as root; no loop device, no mount.

1. A tree is kept as long as the wanted packages are the same and the archive has no newer version of any of them.
2. An archive that cannot be reached is no reason to stop while a tree is there.
3. A tree that was left half-made is removed and made again.
"""

from __future__ import annotations

import hashlib
import json
import os
import shutil
from pathlib import Path

from .programs import LabError, Say, in_root, run

BUILD_SECONDS = 900.0
_SUITES = ("bookworm", "trixie")
PACKAGES = (
    "linux-image-amd64", "systemd", "systemd-sysv", "dbus", "udev", "kmod", "grub-efi-amd64", "initramfs-tools",
    "pciutils", "usbutils", "iproute2", "procps", "zstd", "qemu-guest-agent", "qemu-system-x86", "busybox-static",
    "python3", "python3-click", "python3-rich", "python3-attr", "python3-cattr", "python3-yaml",
)  # fmt: skip


def cache_folder() -> Path:
    """Where built trees and images lie: `PVE_PASSTHROUGH_LAB`, else below the user's cache."""
    named = os.environ.get("PVE_PASSTHROUGH_LAB")
    base = Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache")
    return Path(named) if named else base / "pve-passthrough-lab"


def tree(suite: str, say: Say) -> Path:
    """A Debian tree with `PACKAGES`, from the cache when it is still good. Raises LabError."""
    if suite not in _SUITES:
        raise LabError(f"no such Debian: {suite}")
    wanted = hashlib.sha256(json.dumps(PACKAGES).encode()).hexdigest()[:12]
    target = cache_folder() / f"{suite}-{wanted}"
    if target.exists():
        newer = _newer(target, say)
        if not newer:
            return target
        say(f"{suite}: {len(newer)} packages have a newer version ({', '.join(newer[:3])} …): built again")
        shutil.rmtree(target)
    cache_folder().mkdir(parents=True, exist_ok=True)
    for old in cache_folder().glob(f"{suite}-*"):
        shutil.rmtree(old, ignore_errors=True)  # of other packages, or left half-made
    scratch = target.with_name(f"{target.name}.part")
    say(f"{suite}: building a Debian tree from packages (about two minutes)")
    options = ('--aptopt=APT::Install-Recommends "false"', '--aptopt=Acquire::Languages "none"')
    excluded = ("--dpkgopt=path-exclude=/usr/share/doc/*", "--dpkgopt=path-exclude=/usr/share/locale/*")
    included = f"--include={','.join(PACKAGES)}"
    try:
        words = ("mmdebstrap", "--variant=minbase", "--mode=root", *options, *excluded, included, suite, scratch)
        run(words, BUILD_SECONDS)
    except LabError:
        shutil.rmtree(scratch, ignore_errors=True)
        raise
    scratch.rename(target)
    return target


def kernel_of(root: Path) -> str:
    """The release of the tree's newest kernel."""
    found = sorted((root / "boot").glob("vmlinuz-*"))
    if not found:
        raise LabError(f"{root} has no kernel")
    return found[-1].name.removeprefix("vmlinuz-")


def _newer(root: Path, say: Say) -> list[str]:
    """Packages of the tree that the archive has in a newer version; none when the archive cannot be asked."""
    try:
        in_root(root, ("apt-get", "-qq", "update"), 120)
        said = in_root(root, ("apt-get", "-qq", "-s", "dist-upgrade"), 60)
    except LabError as error:
        say(f"the archive cannot be asked for newer packages, the kept tree is used: {str(error)[:120]}")
        return []
    return [line.split()[1] for line in said.splitlines() if line.startswith("Inst ")]
