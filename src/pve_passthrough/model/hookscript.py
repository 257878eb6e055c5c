"""The hookscript that Proxmox VE calls around a guest's start and stop: its text, its name, where it may lie.

1. Text and names only. One file for each guest: two guests' runs can be taken back independently, and a hookscript that
   the guest had before stays in use, named in the file.
2. A text is ours only when it is exactly what `render` writes for what `parse` found in it.
3. POSIX shell, builtins, `timeout` (coreutils) and `pvesm` only; it runs as root in a task of Proxmox VE, and what it
   says goes to the task's log. Source: pve-guest-common, GuestHelpers.pm, exec_hookscript; recorded starts on 8.4, 9.2.
4. Before a start our look comes first, so that a refused start has touched nothing: a start that fails gets no
   post-stop (recorded 9.2). In every other phase the guest's own script comes first and keeps its exit status.
5. Only exit status 7 of our program stops a start. When the program is gone, crashes or hangs, the guest starts: a
   guard that keeps machines off because of its own defects does more harm than it prevents.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterable

from .facts import Storage
from .value import dataclass

OURS = "pve-passthrough-"
"""Every snippet of ours begins so."""

PREFIX = f"{OURS}hook-"
PACKAGED = "/usr/bin/pve-passthrough"
"""Where the Debian package puts the program."""

PATIENCE = 300
"""Seconds for one call; giving back a display may wait for services to stop."""

_LOCAL = frozenset({"dir", "btrfs"})
"""Storages that lie in a directory of this machine. Source: Proxmox VE administration guide, storage types."""


@dataclass(frozen=True, slots=True)
class Hook:
    """`program`: the launcher to call; `other`: volume of the hookscript that the guest had before, or empty."""

    program: str = PACKAGED
    other: str = ""


def volume(storage: Storage, vmid: int) -> str:
    return f"{storage.name}:snippets/{PREFIX}{vmid}"


def folder_of(storage: Storage) -> str | None:
    """Where the snippets of a storage lie on this machine; None when it is not ours to say.

    `content-dirs` may move a folder (Proxmox VE administration guide, directory storage): then it is left alone.
    """
    usable = storage.enabled and "snippets" in storage.content and storage.type in _LOCAL
    plain = storage.path.startswith("/") and not storage.folders and "\n" not in storage.path
    return f"{storage.path.rstrip('/')}/snippets" if usable and plain else None


def place_of(storages: Iterable[Storage], name: str, node: str | None) -> str | None:
    """The folder of this machine in which Proxmox looks for the hookscript `name`; None when it is none of these.

    Which kinds of volumes the storage takes does not matter here: a hookscript is found, set and started on one that
    does not take snippets (recorded 9.2, storage-863 to storage-866; pve-guest-common GuestHelpers.pm,
    check_hookscript).
    """
    storage_name, _, file = name.partition(":snippets/")
    storage = next((one for one in storages if one.name == storage_name), None)
    if storage is None or not file or "/" in file or file in (".", "..") or storage.type not in _LOCAL:
        return None
    if storage.folders or not storage.path.startswith("/") or "\n" in storage.path:
        return None
    return f"{storage.path.rstrip('/')}/snippets" if not storage.nodes or node in storage.nodes else None


def render(hook: Hook) -> str:
    return _TEXT.replace("@PROGRAM@", shlex.quote(hook.program)).replace("@OTHER@", shlex.quote(hook.other))


def parse(text: str | None) -> Hook | None:
    """What a script of ours calls; None when it is not exactly ours."""
    hook = parse_older(text)
    return hook if hook is not None and render(hook) == text else None


def parse_older(text: str | None) -> Hook | None:
    """The same for a script that another version of this program has written."""
    found = re.search(r"^program=(.*)\nother=(.*)$", text or "", re.M)
    if found is None or _MARK not in (text or "").split("\n")[:3]:
        return None
    try:
        program, other = (shlex.split(part) for part in found.groups())
    except ValueError:
        return None
    return Hook("".join(program), "".join(other))


_MARK = "# Written by pve-passthrough. `pve-passthrough undo` takes it back."

_TEXT = f"""#!/bin/sh
{_MARK}
# Proxmox VE calls this as SCRIPT VMID PHASE. Before a start, pve-passthrough looks whether the guest's devices are
# still the ones that it was given, and whether the host could do without them. Nothing but that stops the start.
program=@PROGRAM@
other=@OTHER@

ours() {{
    if ! test -x "$program"; then
        program=$(command -v pve-passthrough) || {{
            echo "pve-passthrough is not installed any more: guest $1 goes on ($2) without its guard." >&2
            return 0
        }}
    fi
    timeout -k 10 {PATIENCE} "$program" hook "$1" "$2"
    status=$?
    case "$2:$status" in
        pre-start:7)
            return 1
            ;;
        *:0)
            return 0
            ;;
    esac
    echo "pve-passthrough hook $1 $2 ended with status $status: guest $1 goes on without it." >&2
    return 0
}}

theirs() {{
    test -n "$other" || return 0
    path=$(pvesm path "$other") || return 1
    "$path" "$@"
}}

if test "$2" = pre-start; then
    ours "$@" || exit 1
    theirs "$@"
    exit
fi
theirs "$@"
status_of_theirs=$?
ours "$@"
exit "$status_of_theirs"
"""
