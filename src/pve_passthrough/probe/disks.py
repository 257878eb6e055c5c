"""Which PCI functions carry disks that the host needs: root, boot, pools, swap, everything mounted.

1. What is not understood is a gap about `uses.disks`; then the disks are not fully known, whatever else was found.
2. A block device is followed down: partition to disk by the sysfs path, device mapper and MD by `slaves`,
   BTRFS by its list of devices, a multipath NVMe disk to all of its controllers.
3. Depth and number of steps are bounded; names are checked before they become part of a path.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from typing import NamedTuple

from ..model.facts import Boot, UseKind
from ..model.pci import Address
from .asking import Asking
from .paths import functions_behind, plain, target

ABOUT = "uses.disks"
BLOCK = "/sys/class/block"
MOST_DEVICES = 8192
DEEPEST = 16

_VITAL = frozenset({UseKind.ROOT_DISK, UseKind.BOOT_DISK, UseKind.BOOT_USB, UseKind.POOL_DISK})
_BOOT_MOUNTS = frozenset({"/boot", "/boot/efi", "/efi"})
_OCTAL = re.compile(r"\\([0-7]{3})")
_USB = re.compile(r"/usb\d+/")
_ISCSI = re.compile(r"/session\d+/")
_NVME_CONTROLLER = re.compile(r"nvme\d+")
_NOT_ON_PCI = re.compile(r"(?:loop|ram|zram|zd|nbd|rbd)\d+(?:p\d+)?")
"""Made of memory, files, ZFS volumes or the network; their backing, where it is local, is found by itself."""


class Mount(NamedTuple):
    source: str
    point: str
    kind: str


class Disk(NamedTuple):
    """One reason why the host needs a function."""

    address: Address
    kind: UseKind
    detail: str
    vital: bool
    path: str = ""
    """The disk's own path in sysfs."""


def mounts(ask: Asking) -> tuple[Mount, ...] | None:
    """What is mounted, None when nobody could say. Lines are `SOURCE POINT TYPE OPTIONS 0 0`, with octal escapes."""
    text = ask.text("/proc/mounts", "mounts")
    if text is None:
        return None
    rows = [line.split() for line in text.splitlines()]
    return tuple(Mount(_unescaped(r[0]), _unescaped(r[1]), r[2]) for r in rows if len(r) >= 3)


def _unescaped(text: str) -> str:
    return _OCTAL.sub(lambda match: chr(int(match.group(1), 8)), text)


class RawDisk(NamedTuple):
    """A block device that a guest uses as it is: its path, and whose it is (`scsi1 of guest 101`)."""

    path: str
    owner: str


def disks(
    ask: Asking, mounted: tuple[Mount, ...] | None, boot: Boot, raw: Sequence[RawDisk] = ()
) -> tuple[list[Disk], bool]:
    """(what was found, whether everything was understood)."""
    walk = _Walk(ask)
    if not walk.ready:
        return [], False
    if mounted is None:
        walk.doubt("there is no /proc/mounts")
    found = [*_of_mounts(walk, mounted or ()), *_of_esps(walk, boot), *_of_swap(walk)]
    found += [*_of_zfs(walk, mounted or ()), *_of_ceph(walk), *_of_holders(walk)]
    found += _of_guests(walk, raw)
    return found, walk.certain


class _Walk:
    """The block devices of one host, followed down to their controllers."""

    def __init__(self, ask: Asking) -> None:
        self.ask = ask
        self.certain = True
        names = ask.names(BLOCK, ABOUT)
        self.ready = names is not None
        if names is None:
            self.doubt(f"there is no {BLOCK} to look into")
        self.names = frozenset(name for name in (names or ())[:MOST_DEVICES] if plain(name))
        if len(names or ()) > MOST_DEVICES:
            self.doubt(f"more than {MOST_DEVICES} block devices")
        self._mapped: dict[str, str] | None = None
        self._leaves: dict[str, tuple[str, ...]] = {}

    def doubt(self, reason: str, place: str = "") -> None:
        self.certain = False
        self.ask.gap(ABOUT, reason, place)

    # -- names -------------------------------------------------------------------------------

    def resolve(self, source: str) -> str | None:
        """Kernel name of the block device that `/dev/…` means; None with a doubt when it leads nowhere."""
        path = source
        for _ in range(8):
            name = path.removeprefix("/dev/")
            if path.startswith("/dev/") and name in self.names:
                return name
            if path.startswith("/dev/mapper/") and (mapped := self._mapper().get(path.removeprefix("/dev/mapper/"))):
                return mapped
            text = target(self.ask, path) if "\0" not in path else None
            if text is None:
                break
            path = _joined(path, text)
        self.doubt("leads to no block device", source)
        return None

    def _mapper(self) -> dict[str, str]:
        """Device mapper names (`pve-root`) to kernel names (`dm-0`)."""
        if self._mapped is None:
            self._mapped = {}
            for name in sorted(self.names):
                if name.startswith("dm-") and (label := self.ask.trimmed(f"{BLOCK}/{name}/dm/name", ABOUT)):
                    self._mapped[label] = name
        return self._mapped

    # -- down to the hardware ----------------------------------------------------------------

    def leaves(self, name: str) -> tuple[str, ...]:
        """sysfs paths of the hardware below a block device."""
        if name not in self._leaves:
            self._leaves[name] = tuple(dict.fromkeys(self._down(name, DEEPEST, set())))
        return self._leaves[name]

    def _down(self, name: str, depth: int, seen: set[str]) -> Iterator[str]:
        if name in seen:
            return
        seen.add(name)
        if depth == 0 or len(seen) > MOST_DEVICES:
            self.doubt("stacked too deep", name)
            return
        path = target(self.ask, f"{BLOCK}/{name}")
        if path is None:
            self.doubt("has no path in sysfs", name)
        elif functions_behind(path) or "/virtual/" not in path:
            yield path
        else:
            yield from self._virtual(name, path, depth, seen)

    def _virtual(self, name: str, path: str, depth: int, seen: set[str]) -> Iterator[str]:
        if "/nvme-subsystem/" in path:
            yield from self._nvme(name, path)
            return
        parent = path.split("/")[-2]
        slaves = self.ask.names(f"{BLOCK}/{name}/slaves", ABOUT)
        if not slaves and parent in self.names:  # a partition of a virtual disk
            slaves = (parent,)
        if not slaves and not _NOT_ON_PCI.fullmatch(name):
            self.doubt("is virtual, and what is below it is not known", name)
        for slave in slaves or ():
            if plain(slave):
                yield from self._down(slave, depth - 1, seen)

    def _nvme(self, name: str, path: str) -> Iterator[str]:
        """With native multipath the disk hangs on a subsystem, whose directory links to every controller."""
        controllers = nvme_controllers(self.ask, path)
        yield from controllers
        if not controllers:
            self.doubt("none of its NVMe controllers was found", name)

    def below(self, name: str, kind: UseKind, why: str, vital: bool = False) -> Iterator[Disk]:
        """Uses of all functions below a block device; the vital kinds are vital whatever is asked for."""
        paths = self.leaves(name)
        if not paths and (kind is UseKind.ROOT_DISK or not _NOT_ON_PCI.fullmatch(name)):
            self.doubt("nothing below it is hardware", name)
        for path in paths:
            leaf = path.rpartition("/")[2]
            usb = bool(_USB.search(path))
            shown = kind if not (usb and kind is UseKind.BOOT_DISK) else UseKind.BOOT_USB
            on = f"/dev/{leaf}" + (" (USB)" if usb else "")
            functions = functions_behind(path)
            if not functions:
                self._off_pci(path, vital or shown in _VITAL)
            for address in functions:
                yield Disk(address, shown, f"{why} on {on}", vital or shown in _VITAL, path)

    def _off_pci(self, path: str, vital: bool) -> None:
        """A disk whose path names no PCI function: one of the network (drivers/scsi/scsi_transport_iscsi.c puts it
        below a session), or one on a platform device, as eMMC often is. Fibre Channel hangs on its adapter."""
        leaf = path.rpartition("/")[2]
        if _ISCSI.search(path):
            self.doubt("is reached by iSCSI, and which network card carries that is not followed", leaf)
        elif vital:
            self.doubt("the host needs it, and no PCI function is above it in sysfs", leaf)


def nvme_controllers(ask: Asking, path: str) -> tuple[str, ...]:
    """Links to every controller of the subsystem that a multipath disk's sysfs path names; empty for another path."""
    parts = path.split("/")
    if "nvme-subsystem" not in parts:
        return ()
    subsystem = "/".join(("/sys", *(part for part in parts[: parts.index("nvme-subsystem") + 2] if part != "..")))
    entries = (entry for entry in ask.names(subsystem, ABOUT) or () if _NVME_CONTROLLER.fullmatch(entry))
    links = (target(ask, f"{subsystem}/{entry}") for entry in entries)
    return tuple(text for text in links if text is not None)


def _joined(path: str, text: str) -> str:
    """`text` of the link at `path`, as an absolute path, without asking the host."""
    parts = [] if text.startswith("/") else path.split("/")[1:-1]
    for part in text.split("/"):
        if part == "..":
            parts = parts[:-1]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


# -- the reasons ------------------------------------------------------------------------------


def _of_mounts(walk: _Walk, mounted: tuple[Mount, ...]) -> Iterator[Disk]:
    if mounted and not any(mount.point == "/" for mount in mounted):
        walk.doubt("nothing is mounted at /")
    seen: set[tuple[str, UseKind]] = set()
    for mount in mounted:
        kind = _kind(mount.point)
        if mount.kind == "zfs":
            continue
        if not mount.source.startswith("/dev/") or mount.source == "/dev/fuse":
            if mount.point == "/" and mount.kind != "rootfs":
                walk.doubt(f"the root file system ({mount.kind}) is on no block device that can be followed")
            continue
        if (mount.source, kind) in seen:
            continue
        seen.add((mount.source, kind))
        name = walk.resolve(mount.source)
        for member in _members(walk, name, mount) if name is not None else ():
            yield from walk.below(member, kind, mount.point)


def _kind(point: str) -> UseKind:
    if point == "/":
        return UseKind.ROOT_DISK
    return UseKind.BOOT_DISK if point in _BOOT_MOUNTS else UseKind.DATA_DISK


def _members(walk: _Walk, name: str, mount: Mount) -> tuple[str, ...]:
    """All devices of a BTRFS file system; /proc/mounts shows only one (kernel: fs/btrfs/sysfs.c, `devices`)."""
    if mount.kind != "btrfs":
        return (name,)
    for uuid in (walk.ask.names("/sys/fs/btrfs", ABOUT) or ())[:256]:
        members = walk.ask.names(f"/sys/fs/btrfs/{uuid}/devices", ABOUT) if uuid != "features" else None
        if members and name in members:
            return tuple(member for member in members if plain(member))
    walk.doubt("which devices the BTRFS file system has is not known", mount.point)
    return (name,)


def _of_guests(walk: _Walk, raw: Sequence[RawDisk]) -> Iterator[Disk]:
    """Disks that guests use raw. One that is not plugged in is on no controller of this machine."""
    for disk in raw:
        if disk.path.removeprefix("/dev/") not in walk.names and target(walk.ask, disk.path) is None:
            continue
        if (name := walk.resolve(disk.path)) is not None:
            yield from walk.below(name, UseKind.DATA_DISK, disk.owner)


def _of_esps(walk: _Walk, boot: Boot) -> Iterator[Disk]:
    """ESPs that proxmox-boot-tool keeps; they are mounted only while it works.

    Its list keeps the ESPs of disks that were taken out; such a one is on no disk of this machine (proxmox-boot-tool
    warns, "does not exist - clean", and skips it).
    """
    here = walk.ask.names("/dev/disk/by-uuid") or ()
    for esp in boot.esps:
        if here and esp.uuid not in here:
            continue
        if plain(esp.uuid) and (name := walk.resolve(f"/dev/disk/by-uuid/{esp.uuid}")) is not None:
            yield from walk.below(name, UseKind.BOOT_DISK, f"ESP {esp.uuid}")


def _of_swap(walk: _Walk) -> Iterator[Disk]:
    """/proc/swaps: a heading, then `FILE TYPE …`; a swap file is on a file system that is mounted anyhow."""
    for line in (walk.ask.text("/proc/swaps", ABOUT) or "").splitlines()[1:]:
        words = line.split()
        if len(words) < 2 or words[1] != "partition":
            continue
        if (name := walk.resolve(_unescaped(words[0]))) is not None:
            yield from walk.below(name, UseKind.DATA_DISK, "swap", vital=True)  # what is swapped out dies with it


def _of_zfs(walk: _Walk, mounted: tuple[Mount, ...]) -> Iterator[Disk]:
    root = next((mount.source.partition("/")[0] for mount in mounted if mount.kind == "zfs" and mount.point == "/"), "")
    in_use = any(mount.kind == "zfs" for mount in mounted) or walk.ask.names("/proc/spl/kstat/zfs") is not None
    if not in_use and walk.ask.data("/etc/zfs/zpool.cache") is None:
        return
    ran = walk.ask.run(("zpool", "status", "-P", "-L"), ABOUT, 30.0)
    if ran is None or not ran.ok:
        walk.doubt("ZFS is in use, and zpool status gave no answer")
        return
    pools = tuple(pool_devices(ran.stdout))
    if root and not any(pool == root for pool, _ in pools):
        walk.doubt("zpool status names no disk of the root pool", root)
    for pool, device in pools:
        kind = UseKind.ROOT_DISK if pool == root else UseKind.POOL_DISK
        if (name := walk.resolve(device)) is not None:
            yield from walk.below(name, kind, f"ZFS pool {pool}")


def pool_devices(status: str) -> Iterator[tuple[str, str]]:
    """(pool, /dev/…) of every member in what `zpool status -P -L` prints: logs, caches and spares included."""
    pool = ""
    for line in status.splitlines():
        words = line.split()
        if words[:1] == ["pool:"] and len(words) > 1:
            pool = words[1]
        elif words and words[0].startswith("/dev/"):
            yield pool, words[0]


def _of_ceph(walk: _Walk) -> Iterator[Disk]:
    """An OSD's directory links to its data, database and journal devices (ceph-volume)."""
    for osd in (walk.ask.names("/var/lib/ceph/osd") or ())[:1024]:
        for part in ("block", "block.db", "block.wal"):
            text = target(walk.ask, f"/var/lib/ceph/osd/{osd}/{part}") if plain(osd) else None
            name = walk.resolve(_joined(f"/var/lib/ceph/osd/{osd}/{part}", text)) if text is not None else None
            if name is not None:
                yield from walk.below(name, UseKind.POOL_DISK, f"Ceph {osd}")


def _of_holders(walk: _Walk) -> Iterator[Disk]:
    """Disks that device mapper or MD holds although nothing on them is mounted: guest storage on LVM, mostly."""
    for name in sorted(walk.names):
        if name.startswith(("dm-", "loop", "zd", "ram", "zram")):
            continue
        for reason in dict.fromkeys(_holding(walk, holder) for holder in _holders(walk, name)):
            yield from walk.below(name, *reason)


def _holders(walk: _Walk, name: str) -> tuple[str, ...]:
    return tuple(holder for holder in walk.ask.names(f"{BLOCK}/{name}/holders") or () if plain(holder))


def _holding(walk: _Walk, holder: str) -> tuple[UseKind, str]:
    uuid = walk.ask.trimmed(f"{BLOCK}/{holder}/dm/uuid") or ""
    label = walk.ask.trimmed(f"{BLOCK}/{holder}/dm/name") or holder
    if uuid.startswith("LVM-"):
        # LVM names its devices `vg-lv` and doubles the hyphens inside either name.
        group = re.split(r"(?<!-)-(?!-)", label)[0].replace("--", "-")
        return UseKind.POOL_DISK, f"vg {group}"
    return UseKind.DATA_DISK, f"device {label}"
