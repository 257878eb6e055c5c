"""The text of every file that a plan may edit, so that planning never reads the machine.

1. A path maps to its text, or to None when the host answered that it is not there.
   A path that could not be read is left out, and a gap says why.
2. A directory is listed with a trailing slash and the text `directory`.
3. Below a tree without /etc nothing is known, not even that something is missing.
"""

from __future__ import annotations

from ..host.base import HostError, Missing
from ..model.own import CLAIM_SCRIPT, LENT, OWN_FILES, UDEV_RULES
from .asking import Asking
from .boot import UUIDS
from .paths import plain

LONGEST = 1024 * 1024
"""Bytes. No file that a person edits is longer; a longer one is not ours to edit."""

MOST_IN_DIRECTORY = 512

FILES = (
    "/etc/default/grub",
    "/etc/kernel/cmdline",
    "/etc/modules",
    "/etc/initramfs-tools/modules",
    UUIDS,
    *OWN_FILES,
)

DIRECTORIES = (
    ("/etc/default/grub.d", ".cfg"),
    ("/etc/modprobe.d", ".conf"),
    ("/etc/modules-load.d", ".conf"),
    (UDEV_RULES.rpartition("/")[0], ".rules"),
    (CLAIM_SCRIPT.rpartition("/")[0], ""),
    (LENT.rpartition("/")[0], ".conf"),
)
"""Directory, and the ending of the files in it that count; none counts where there is no ending.
Sources: grub-mkconfig reads *.cfg, modprobe.d(5) and modules-load.d(5) read *.conf, udev(7) reads *.rules."""


def probe_files(ask: Asking) -> dict[str, str | None]:
    if not ask.names("/etc", "files"):
        ask.gap("files", "there is no /etc to look into")
        return {}
    found: dict[str, str | None] = {}
    for path in FILES:
        _read(ask, path, found)
    for directory, ending in DIRECTORIES:
        _list(ask, directory, ending, found)
    return dict(sorted(found.items()))


def _read(ask: Asking, path: str, found: dict[str, str | None]) -> None:
    try:
        data = ask.host.read(path)
    except Missing:
        found[path] = None
    except HostError as error:
        ask.gap(f"files.{path}", error.reason)
    else:
        if len(data) > LONGEST:
            ask.gap(f"files.{path}", f"longer than {LONGEST} bytes")
        else:
            found[path] = data.decode("utf-8", "surrogateescape")


def _list(ask: Asking, directory: str, ending: str, found: dict[str, str | None]) -> None:
    try:
        names = ask.host.names(directory)
    except Missing:
        found[f"{directory}/"] = None
        return
    except HostError as error:
        ask.gap(f"files.{directory}/", error.reason)
        return
    found[f"{directory}/"] = "directory"
    wanted = [name for name in names if ending and name.endswith(ending) and plain(name)]
    if len(wanted) > MOST_IN_DIRECTORY:
        ask.gap(f"files.{directory}/", f"more than {MOST_IN_DIRECTORY} files")
    for name in wanted[:MOST_IN_DIRECTORY]:
        if f"{directory}/{name}" not in found:
            _read(ask, f"{directory}/{name}", found)
