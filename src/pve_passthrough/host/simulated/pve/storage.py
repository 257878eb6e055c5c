"""Volumes and storages, as far as guests with passed-through devices need them.

1. Volumes are rows of /sim/volumes.json ({volume id: {"size": bytes, "vmid": id}}): no image exists.
2. Storages are sections of /etc/pve/storage.cfg; without the file there are `local` and `local-lvm`,
   as a fresh installation has them.
"""

from __future__ import annotations

import json
import os
import re
from typing import Any

from .node import Die, Node
from .sections import Section, parse_sections

VOLUMES = "/sim/volumes.json"
DEFAULT = (
    "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup,snippets\n\n"
    "lvmthin: local-lvm\n\tthinpool data\n\tvgname pve\n\tcontent rootdir,images\n"
)
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}


def storages(node: Node) -> dict[str, Section]:
    return {section.name: section for section in parse_sections(node.world.text("/etc/pve/storage.cfg") or DEFAULT)}


def storage_of(node: Node, name: str) -> Section:
    found = storages(node).get(name)
    if found is None:
        raise Die(f"storage '{name}' does not exist")
    return found


def volumes(node: Node) -> dict[str, dict[str, Any]]:
    text = node.world.text(VOLUMES)
    found: dict[str, dict[str, Any]] = json.loads(text) if text else {}
    return found


def save_volumes(node: Node, table: dict[str, dict[str, Any]]) -> None:
    node.world.put(VOLUMES, json.dumps(table, indent=1, sort_keys=True) + "\n")


def allocate(node: Node, storage: str, vmid: int, size: int, form: str = "raw") -> str:
    """A new volume; its id. The name is the first free `vm-ID-disk-N`."""
    table = volumes(node)
    index = 0
    while any(f"{storage}:{name}" in table for name in _names_of(node, storage, vmid, index)):
        index += 1
    return _add(node, storage, vmid, f"vm-{vmid}-disk-{index}", size, form)


def allocate_cloudinit(node: Node, storage: str, vmid: int, form: str) -> str:
    """The volume of a cloud-init drive: 4 MiB with a name of its own, a qcow2 file on a directory storage
    (PVE/API2/Qemu.pm, create_disks)."""
    form = form or ("qcow2" if _directory(node, storage) else "raw")
    return _add(node, storage, vmid, f"vm-{vmid}-cloudinit", 4 << 20, form)


def _add(node: Node, storage: str, vmid: int, name: str, size: int, form: str) -> str:
    """Directory storages keep a guest's images in a folder of its number, as files with the format as their ending."""
    volume = f"{storage}:{vmid}/{name}.{form}" if _directory(node, storage) else f"{storage}:{name}"
    save_volumes(node, {**volumes(node), volume: {"size": size, "vmid": vmid}})
    if storage_of(node, storage).type.startswith("lvm"):
        node.say(f'  Logical volume "{name}" created.')
    return volume


def _names_of(node: Node, storage: str, vmid: int, index: int) -> tuple[str, ...]:
    name = f"vm-{vmid}-disk-{index}"
    return tuple(f"{vmid}/{name}.{form}" for form in ("raw", "qcow2", "vmdk")) if _directory(node, storage) else (name,)


def _directory(node: Node, storage: str) -> bool:
    return storage_of(node, storage).type in ("dir", "nfs", "cifs", "cephfs", "btrfs")


def takes_images(node: Node, storage: str) -> bool:
    return "images" in storage_of(node, storage).values.get("content", "images").split(",")


def firmware_size(node: Node, storage: str) -> int:
    """What the 528 KiB of firmware variables take: LVM rounds up to extents of 4 MiB (recorded), ZFS to 1 MiB
    (pve-storage, ZFSPoolPlugin.pm, alloc_image), a file nothing."""
    kind = storage_of(node, storage).type
    if kind.startswith("lvm"):
        return 4 << 20
    return 1 << 20 if kind == "zfspool" else 528 << 10


def image_size(node: Node, path: str) -> int:
    """Virtual size of a disk image: in a qcow2 header at byte 24 (QEMU, docs/interop/qcow2), else the file's own."""
    real = node.world.tree.real(path)
    try:
        with open(real, "rb") as stream:
            head = stream.read(32)
    except OSError:
        raise Die(f"can't find file '{path}'") from None
    return int.from_bytes(head[24:32], "big") if head[:4] == b"QFI\xfb" else os.stat(real).st_size


def resize(node: Node, volume: str, size: int) -> None:
    table = volumes(node)
    if volume not in table:
        raise Die(f"volume '{volume}' does not exist")
    table[volume] = {**table[volume], "size": size}
    save_volumes(node, table)


def remove(node: Node, volume: str) -> None:
    table = volumes(node)
    if table.pop(volume, None) is not None:
        save_volumes(node, table)
        storage, _, name = volume.partition(":")
        if storages(node)[storage].type.startswith("lvm"):
            node.say(f'  Logical volume "{name}" successfully removed.')


def bytes_of(size: str) -> int:
    """`32G` → bytes; 0 when it is not a size."""
    match = re.fullmatch(r"(\d+(?:\.\d+)?)([KMGT]?)", size)
    return int(float(match.group(1)) * _UNITS[match.group(2)]) if match else 0


def size_text(size: int) -> str:
    """Bytes in the largest unit that keeps them whole: 4294967296 → `4G`."""
    for unit in ("T", "G", "M", "K"):
        if size and size % _UNITS[unit] == 0:
            return f"{size // _UNITS[unit]}{unit}"
    return str(size)


def volume_path(node: Node, volume: str) -> str:
    """Where a volume lies. Raises `Die` with PVE's words."""
    storage, _, name = volume.partition(":")
    section = storage_of(node, storage)
    if section.type.startswith("lvm"):
        if not re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9_.\-]*", name):
            raise Die(f"lvm name '{name}' contains illegal characters")
        return f"/dev/{section.values.get('vgname', 'pve')}/{name}"
    kind, _, file = name.partition("/")
    folders = {
        "snippets": "snippets", "iso": "template/iso", "vztmpl": "template/cache", "backup": "dump", "import": "import",
    }  # fmt: skip
    endings = {
        "iso": r"(?i:[^/]+\.(iso|img))", "snippets": r"[^/]+", "vztmpl": r"[^/]+\.tar\.\w+", "backup": r"[^/]+",
        "import": r"[^/]+\.(qcow2|raw|vmdk|ova|ovf)",
    }  # fmt: skip
    if kind not in folders or not re.fullmatch(endings[kind], file):
        raise Die(f"unable to parse directory volume name '{name}'")
    return f"{section.values.get('path', '/var/lib/vz')}/{folders[kind]}/{file}"


def check_hookscript(node: Node, volume: str) -> None:
    """What PVE asks about a hookscript when it is set and at every start (recorded rows `hookscript`, `hook`)."""
    path = volume_path(node, volume)
    if not volume.partition(":")[2].startswith("snippets/"):
        raise Die(f"'{volume}' is not in the snippets directory")
    if not node.world.exists(path):
        raise Die(f"script '{volume}' does not exist")
    if not os.stat(node.world.tree.real(path)).st_mode & 0o111:
        raise Die(f"script '{volume}' is not executable")
