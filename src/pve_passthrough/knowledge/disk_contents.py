"""Contents of disks that a host takes by itself, and what takes them.

1. Kinds are libblkid's names, as lsblk shows them.
2. "Nothing was found that would" is said as such: a person's own script is not looked for.
"""

from __future__ import annotations

from ..model.attached import Disk
from ..model.facts import Facts, Storage
from ..model.value import dataclass

TAKEN_BY_ITSELF = frozenset({"zfs_member", "LVM2_member", "linux_raid_member"})
"""What is imported, activated or assembled without anybody asking. Sources: OpenZFS, etc/systemd/system; lvm2,
udev/69-dm-lvm.rules (autoactivation); mdadm, udev-md-raid-assembly.rules."""

_NAMES = {"zfs_member": "ZFS pool", "LVM2_member": "LVM volume group", "linux_raid_member": "md array"}


@dataclass(frozen=True, slots=True)
class Importers:
    """What would take a disk's contents: in words, the lines that prove it, and the Proxmox storages among it."""

    words: str
    evidence: tuple[str, ...] = ()
    storages: tuple[str, ...] = ()


def pool_of(disk: Disk) -> str:
    """`the ZFS pool tank`; `an LVM volume group` where the contents do not tell which."""
    kind = _NAMES.get(disk.kind, disk.kind)
    if disk.label:
        return f"the {kind} {disk.label}"
    return f"{'an' if kind[0] in 'Lm' else 'a'} {kind}"


def importers(facts: Facts, disk: Disk) -> Importers:
    """Everything known that takes this disk's contents when the host boots, or a few seconds later."""
    if disk.kind == "zfs_member":
        return _zfs(facts, disk.label)
    if disk.kind == "LVM2_member":
        wanting = tuple(one for one in facts.storages or () if _here(facts, one) and one.vgname == disk.label != "")
        lines = tuple(f"/etc/pve/storage.cfg: {one.name}: vgname {one.vgname}" for one in wanting)
        return Importers("LVM activates it when the host sees the disk", lines, tuple(one.name for one in wanting))
    return Importers("mdadm, where it is installed, assembles it when the host sees the disk")


def _zfs(facts: Facts, pool: str) -> Importers:
    imports = facts.attached.imports if facts.attached else None
    storages = tuple(one for one in facts.storages or () if _wants(facts, one, pool))
    lines = [f"/etc/pve/storage.cfg: {one.name}: pool {one.pool}" for one in storages]
    if imports is not None and pool in (imports.cached or ()):
        lines.append(f"/etc/zfs/zpool.cache: {pool}")
    if imports is not None and pool in (imports.units or ()):
        lines.append(f"/etc/systemd/system: zfs-import@{pool}.service is enabled")
    if imports is not None and imports.scan and not imports.cached:
        lines.append("/etc/systemd/system: zfs-import-scan.service is enabled, and no cache holds it back")
    ways = [line.partition(": ")[2] for line in lines]
    words = f"the host would import it again ({'; '.join(ways)})" if ways else (
        "nothing was found that imports it at boot, but any `zpool import -a` does"
    )  # fmt: skip
    return Importers(words, tuple(lines), tuple(one.name for one in storages))


def _here(facts: Facts, storage: Storage) -> bool:
    return storage.enabled and (facts.pve.node is None or not storage.nodes or facts.pve.node in storage.nodes)


def _wants(facts: Facts, storage: Storage, pool: str) -> bool:
    return _here(facts, storage) and storage.type == "zfspool" and storage.pool.partition("/")[0] == pool != ""
