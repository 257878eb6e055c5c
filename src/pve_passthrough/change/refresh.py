"""Refreshes: commands that rebuild something derived from files. They have no before and after.

1. Each is idempotent and named in one literal table; a plan names them, it never carries a command.
2. Run once after the changes and again after their undo, whatever happened in between.
3. Room is looked at before: a full /boot breaks the way there and the way back alike.
4. A refresh that fails is a `Failure` with the program's last lines; nothing is retried here.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from ..errors import Failure
from ..host.base import Host, HostError, Missing
from ..knowledge.kernels import INITRAMFS_ROOM
from .cells import last_words

MIB = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Refresh:
    """argv: the command · rebuilds: what it derives, in words · room: (path, bytes) that must be free before."""

    argv: tuple[str, ...]
    rebuilds: str
    room: tuple[tuple[str, int], ...] = ()
    timeout: float = 600.0


REFRESHES: dict[str, Refresh] = {
    # `-k all`: modprobe.d is copied into every installed kernel's image, not only into the newest one's
    # (Proxmox VE administration guide, PCI(e) passthrough). Images are built beside the old ones and renamed, one after
    # the other, so one image's room is needed; Proxmox' images are 60 to 110 MiB (MODULES=most).
    "initramfs": Refresh(
        ("update-initramfs", "-u", "-k", "all"),
        "the initial RAM disk of every kernel, from /etc/modprobe.d and /etc/initramfs-tools",
        (("/boot", INITRAMFS_ROOM),),
        3600.0,
    ),
    "grub": Refresh(
        ("update-grub",),
        "GRUB's menu, from /etc/default/grub and /etc/default/grub.d",
        (("/boot", 4 * MIB),),
        900.0,
    ),
    # Copies kernels and images to every EFI system partition. It mounts them itself, so their room is not ours to see;
    # a full one makes it fail, which is judged by its status.
    "boot-tool": Refresh(
        ("proxmox-boot-tool", "refresh"),
        "the boot entries on every EFI system partition, from /etc/kernel/cmdline or GRUB's settings",
        (("/boot", 4 * MIB),),
        1800.0,
    ),
    "udev": Refresh(("udevadm", "control", "--reload"), "udev's rules in memory", (), 60.0),
}


def check_known(names: Iterable[str]) -> None:
    """Raises Failure `refresh.unknown` for a name that is not in the table."""
    for name in names:
        if name not in REFRESHES:
            message = f"nothing was changed: the plan names the refresh {name!r}, which is unknown"
            raise Failure("refresh.unknown", message)


def check_room(host: Host, names: Iterable[str]) -> tuple[str, ...]:
    """Look for room before any of these refreshes. Raises Failure `plan.no-space`.

    Returns what could not be found out, in words: unknown room stops nobody, the program itself will say.
    """
    notes: list[str] = []
    needed: dict[str, int] = {}
    for name in names:
        for path, size in REFRESHES[name].room:
            needed[path] = max(size, needed.get(path, 0))
    for path, size in needed.items():
        try:
            free = host.room(path).free
        except HostError as error:
            notes.append(f"free space is unknown: {error}")
            continue
        if free < size:
            raise Failure(
                "plan.no-space",
                f"{path} has {free // MIB} MiB free, and rebuilding what the next boot needs takes {size // MIB} MiB",
                hint="remove old kernels (apt autoremove) or other files there, then run the same again",
            )
    return tuple(notes)


def run_refresh(host: Host, name: str) -> None:
    """Run one refresh to its end. Raises Failure `refresh.failed`."""
    refresh = REFRESHES[name]
    command = " ".join(refresh.argv)
    try:
        ran = host.run(refresh.argv, timeout=refresh.timeout)
    except Missing as error:
        message = f"{refresh.argv[0]} is not installed; it rebuilds {refresh.rebuilds}"
        raise Failure("refresh.failed", message) from error
    except HostError as error:
        raise Failure("refresh.failed", f"{command} gave no answer", str(error)) from error
    if not ran.ok:
        message = f"{command} ended with status {ran.rc}; it rebuilds {refresh.rebuilds}"
        raise Failure("refresh.failed", message, f"$ {command}", *last_words(ran))
