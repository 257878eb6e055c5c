"""Whether a guest that was just made is the guest that was wanted, option by option.

1. Pure: wanted options against the stored configuration. Compared as Proxmox stores them, parsed, never as text.
2. What Proxmox chooses itself (addresses, volume names, a pinned machine version) is no difference.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model.vm import parse_options, same_options
from .guest_wanted import NewGuest

_MADE = re.compile(r"(scsi|ide|efidisk|tpmstate)\d+")


def differences(new: NewGuest, stored: Mapping[str, str]) -> tuple[str, ...]:
    """One line per option that was stored otherwise than wanted; empty: every one is as wanted."""
    found = []
    for key, text in new.options.items():
        now = stored.get(key)
        if now is None or not _same(new, key, text, now):
            found.append(f"{key}: wanted {text}, stored {'nothing' if now is None else now}")
    return tuple(found)


def _same(new: NewGuest, key: str, wanted: str, stored: str) -> bool:
    if key == "sshkeys":
        return _decoded(wanted) == _decoded(stored)
    if key == "machine":
        # Windows guests are pinned to a version when they are made (recorded: "pinning machine type to 'pc-q35-…'")
        return same_options(wanted, stored) or re.fullmatch(r"pc-q35-[0-9.]+(\+pve[0-9]+)?", stored) is not None
    if key == "net0":
        return _without_address(wanted) == _without_address(stored)
    if _MADE.fullmatch(key):
        return _same_disk(new, key, parse_options(wanted, "file"), parse_options(stored, "file"))
    return wanted == stored if key == "affinity" else same_options(wanted, stored)  # a list, no property string


def _decoded(text: str) -> str:
    from urllib.parse import unquote

    return unquote(text).strip()


def _without_address(text: str) -> dict[str, str]:
    """`virtio=BC:24:…,bridge=vmbr0` and `virtio,bridge=vmbr0` are the same card: the address is Proxmox' choice."""
    options = parse_options(text, "model")
    if "virtio" in options:
        options = {"model": "virtio", **{key: value for key, value in options.items() if key != "virtio"}}
    return {key: value for key, value in options.items() if key != "macaddr"}


def _same_disk(new: NewGuest, key: str, wanted: dict[str, str], stored: dict[str, str]) -> bool:
    asked, made = wanted.pop("file", ""), stored.pop("file", "")
    size = stored.pop("size", "")
    storage, _, what = asked.partition(":")
    imported = wanted.pop("import-from", "")
    if what == "cloudinit":
        wanted["media"] = "cdrom"
        return made.startswith(f"{storage}:") and "cloudinit" in made and wanted == stored
    if not re.fullmatch(r"[0-9]+", what):
        return made == asked and wanted == stored
    fixed = imported or not key.startswith("scsi")  # firmware and TPM volumes have a size of their own
    sized = fixed or _bytes(size) == int(what) << 30
    return made.startswith(f"{storage}:") and made != asked and sized and same_options(_joined(wanted), _joined(stored))


def _joined(options: Mapping[str, str]) -> str:
    return ",".join(f"{key}={text}" for key, text in options.items())


def _bytes(size: str) -> int:
    match = re.fullmatch(r"([0-9]{1,18})([KMGT]?)", size)
    return int(match.group(1)) << {"": 0, "K": 10, "M": 20, "G": 30, "T": 40}[match.group(2)] if match else -1
