"""Kernel builds that are known to break passthrough, as rows with a source each.

1. A build is named by `uname -r` up to its flavour: `7.0.14-1`.
2. Rows say which driver or device is hit; the rules decide whether this machine has it.
"""

from __future__ import annotations

import re

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class BadBuild:
    """Builds `first` to `last` (both included, `(major, minor, patch, abi)`) break what `hits` names."""

    first: tuple[int, int, int, int]
    last: tuple[int, int, int, int]
    hits: str
    """`driver:amdgpu` a device bound to that driver; `intel-igpu` the Intel graphics at 00:02.0."""
    what: str
    better: str
    source: str


BAD_BUILDS: tuple[BadBuild, ...] = (
    BadBuild(
        (7, 0, 14, 1),
        (7, 0, 14, 2),
        "driver:amdgpu",
        "amdgpu oopses when Proxmox unbinds it, and the guest start hangs",
        "7.0.14-4",
        "Proxmox kernel changelog 7.0.14-3 (reverted) and 7.0.14-4 (fixed)",
    ),
    BadBuild(
        (6, 8, 4, 1),
        (6, 8, 12, 4),
        "intel-igpu",
        "these builds switch DMA remapping off for Skylake to Comet Lake graphics, so they have no IOMMU group",
        "6.8.12-5",
        "Proxmox kernel changelog 6.8.12-5, patch 0011",
    ),
    BadBuild(
        (6, 11, 0, 1),
        (6, 11, 0, 1),
        "intel-igpu",
        "this build switches DMA remapping off for Skylake to Comet Lake graphics, so they have no IOMMU group",
        "6.11.0-2",
        "Proxmox kernel changelog 6.11.0-2",
    ),
)

_RELEASE = re.compile(r"(\d+)\.(\d+)\.(\d+)-(\d+)")


def build_of(release: str | None) -> tuple[int, int, int, int] | None:
    """`6.8.12-4-pve` gives (6, 8, 12, 4); None for anything that is not a Proxmox kernel."""
    if release is None or not release.endswith("-pve"):
        return None
    match = _RELEASE.match(release)
    if match is None:
        return None
    major, minor, patch, abi = (int(part) for part in match.groups())
    return major, minor, patch, abi


def bad_builds(release: str | None) -> tuple[BadBuild, ...]:
    """Rows that speak about this build."""
    build = build_of(release)
    if build is None:
        return ()
    return tuple(row for row in BAD_BUILDS if row.first <= build <= row.last)


INITRAMFS_ROOM = 128 * 1024**2
"""Bytes wanted on /boot before an initramfs is rebuilt: update-initramfs writes the new image beside the old one and
then renames it, one kernel after the other (initramfs-tools, update-initramfs), so one image's room is needed.
No source says how large an image is; 128 MiB is an estimate on the safe side."""
