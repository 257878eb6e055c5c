"""What hangs on controllers and network cards: disks with their contents, interfaces, reserved memory. A deep look.

1. Disks' contents are what lsblk says that udev found; nothing here reads a disk.
2. /etc/zfs/zpool.cache is read as far as the names of its pools, within bounds; what is odd in it is a gap.
3. Names are checked before they become part of a path.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from struct import Struct

from ..model.attached import Attached, Disk, Interface, PoolImports
from .asking import Asking
from .disks import BLOCK, MOST_DEVICES, nvme_controllers
from .network import MOST_INTERFACES, NET
from .paths import function_behind, functions_behind, plain, target

GROUPS = "/sys/kernel/iommu_groups"
ZPOOL_CACHE = "/etc/zfs/zpool.cache"
UNITS = "/etc/systemd/system"
LINK_FOLDERS = ("/etc/systemd/network", "/usr/local/lib/systemd/network")
"""Where people and pve-network-interface-pinning put .link files. Source: systemd.link(5); Proxmox VE administration
guide, Network Configuration, Pinning a specific network device name."""
MOST_LINKS = 512
MOST_LINES = 20

_LSBLK = ("lsblk", "--json", "--list", "--output", "KNAME,FSTYPE,LABEL")
_PVS = ("pvs", "--reportformat", "json", "-o", "pv_name,vg_name")
_IMPORT_UNIT = re.compile(r"zfs-import@(.+)\.service")
_ESCAPED = re.compile(r"\\x([0-9a-f]{2})")
_INT = Struct(">i").unpack_from
_XDR, _NVLIST = 1, 19
_MOST_POOLS = 256


def probe_attached(ask: Asking) -> Attached:
    return Attached(_disks(ask), _imports(ask), _interfaces(ask), _direct(ask))


# -- disks ------------------------------------------------------------------------------------


def _disks(ask: Asking) -> tuple[Disk, ...] | None:
    about = "attached.disks"
    names = ask.names(BLOCK, about)
    ran = ask.run(_LSBLK, about, 30.0) if names is not None else None
    contents = _contents(ran.stdout) if ran is not None and ran.ok else None
    if contents is None or names is None:
        ask.gap(about, "lsblk gave no answer" if names is not None else f"there is no {BLOCK} to look into")
        return None
    contents = _with_groups(ask, contents)
    found = []
    for name in sorted(names)[:MOST_DEVICES]:
        path = target(ask, f"{BLOCK}/{name}") if plain(name) else None
        ways = (path, *nvme_controllers(ask, path)) if path is not None else ()
        functions = tuple(dict.fromkeys(one for way in ways for one in functions_behind(way)))
        if functions:
            found.append(Disk(name, functions, *contents.get(name, ("", ""))))
    return tuple(found)


def _contents(text: str) -> dict[str, tuple[str, str]] | None:
    """(kind, label) by kernel name, from lsblk's JSON; None when it is none."""
    try:
        rows = json.loads(text)["blockdevices"]
        return {str(row["kname"]): (str(row["fstype"] or ""), str(row["label"] or "")) for row in rows}
    except (ValueError, LookupError, TypeError, RecursionError):
        return None


def _with_groups(ask: Asking, contents: dict[str, tuple[str, str]]) -> dict[str, tuple[str, str]]:
    """The same, with the volume group's name as the label of LVM's members; pvs is asked only where there are some, and
    without its answer they stay nameless (pvs(8), lvmreport(7))."""
    if not any(kind == "LVM2_member" for kind, _ in contents.values()):
        return contents
    ran = ask.run(_PVS, "attached.volume_groups", 30.0)
    try:
        report = json.loads(ran.stdout)["report"] if ran is not None and ran.ok else []
        rows = [row for part in report for row in part["pv"]]
        groups = {str(row["pv_name"]).removeprefix("/dev/"): str(row["vg_name"]) for row in rows}
    except (ValueError, LookupError, TypeError, RecursionError):
        groups = {}
    named = {name: (kind, groups.get(name, "")) for name, (kind, _) in contents.items() if kind == "LVM2_member"}
    return contents | named


# -- ZFS ----------------------------------------------------------------------------------------


def _imports(ask: Asking) -> PoolImports:
    cache = ask.data(ZPOOL_CACHE, "attached.zpool_cache")
    cached = frozenset[str]() if not cache else cached_pools(cache)
    if cached is None:
        ask.gap("attached.zpool_cache", "not understood", ZPOOL_CACHE)
    folders = [name for name in ask.names(UNITS) or () if name.endswith((".wants", ".requires")) and plain(name)]
    enabled = {name for folder in folders for name in ask.names(f"{UNITS}/{folder}") or ()}
    units = (match for match in map(_IMPORT_UNIT.fullmatch, enabled) if match)
    return PoolImports(
        _imported(ask, bool(cache)),
        cached,
        "zfs-import-scan.service" in enabled,
        frozenset(_unescaped(match.group(1)) for match in units),
    )


def _imported(ask: Asking, cache: bool) -> frozenset[str] | None:
    """Pools that are imported now. Without the module there are none, and no program need be asked."""
    if not cache and ask.names("/proc/spl/kstat/zfs") is None and "zfs" not in (ask.text("/proc/filesystems") or ""):
        return frozenset()
    ran = ask.run(("zpool", "list", "-H", "-o", "name"), "attached.imported", 30.0)
    if ran is None or not ran.ok:
        ask.gap("attached.imported", "zpool list gave no answer")
        return None
    return frozenset(line.strip() for line in ran.stdout.splitlines() if line.strip())


def _unescaped(instance: str) -> str:
    r"""A unit's instance as it was before systemd-escape: `\x2d` is a hyphen, `-` a slash, which no pool's name has."""
    return _ESCAPED.sub(lambda match: chr(int(match.group(1), 16)), instance)


def cached_pools(data: bytes) -> frozenset[str] | None:
    """Names of the pools in a zpool.cache, None when it is no such file.

    An nvlist in XDR: four bytes (encoding, byte order, two reserved), version and flags, then pairs that each begin
    with their own length; a length of zero ends the list. A pool's pair bears its name and is an nvlist itself.
    Source: OpenZFS, module/nvpair/nvpair.c (nvs_xdr_nvlist, nvs_xdr_nvp_op), module/zfs/spa_config.c.
    """
    if len(data) < 16 or data[0] != _XDR:
        return None
    found: set[str] = set()
    at = 12
    while at + 4 <= len(data) and len(found) <= _MOST_POOLS:
        (size,) = _INT(data, at)
        if size == 0:
            return frozenset(found)
        name = _pair_name(data, at, size)
        if name is None:
            return None
        found.add(name)
        at += size
    return None


def _pair_name(data: bytes, at: int, size: int) -> str | None:
    """The name of an nvlist pair of `size` bytes at `at`; None when it sticks out or is of another kind."""
    if size < 20 or at + size > len(data):
        return None
    (length,) = _INT(data, at + 8)
    padded = (length + 3) // 4 * 4
    if not 0 < length < 256 or 12 + padded + 8 > size:
        return None
    (kind,) = _INT(data, at + 12 + padded)
    name = data[at + 12 : at + 12 + length]
    return name.decode("ascii", "replace") if kind == _NVLIST and b"\0" not in name else None


# -- network ------------------------------------------------------------------------------------


def _interfaces(ask: Asking) -> tuple[Interface, ...] | None:
    names = ask.names(NET, "attached.interfaces")
    if names is None:
        ask.gap("attached.interfaces", f"there is no {NET} to look into")
        return None
    lines = tuple(_configuration(ask))
    links = tuple(_links(ask))
    found = []
    for name in [one for one in names if plain(one)][:MOST_INTERFACES]:
        path = target(ask, f"{NET}/{name}") or target(ask, f"{NET}/{name}/device") or ""
        function = None if "/virtual/" in path else function_behind(path)
        if function is not None:
            word = re.compile(rf"(?<![\w.@:-]){re.escape(name)}(?![\w@-])")
            said = tuple(f"{where}: {text}" for where, text in lines if word.search(text))
            pinned = tuple(where for where, given in links if given == name)
            found.append(Interface(name, function, said[:MOST_LINES], pinned))
    return tuple(found)


def _configuration(ask: Asking) -> Iterator[tuple[str, str]]:
    """(`path:line`, text) of interfaces(5), comments left out."""
    folder = "/etc/network/interfaces.d"
    paths = ["/etc/network/interfaces", *(f"{folder}/{name}" for name in (ask.names(folder) or ())[:64] if plain(name))]
    for path in paths:
        for number, line in enumerate((ask.text(path) or "").splitlines(), 1):
            text = line.strip()
            if text and not text.startswith("#"):
                yield f"{path}:{number}", text


def _links(ask: Asking) -> Iterator[tuple[str, str]]:
    """(path, name) of .link files that give a name."""
    for folder in LINK_FOLDERS:
        for name in (ask.names(folder) or ())[:MOST_LINKS]:
            if name.endswith(".link") and plain(name):
                text = ask.text(f"{folder}/{name}") or ""
                given = re.search(r"(?m)^\s*Name\s*=\s*(\S+)\s*$", text)
                if given:
                    yield f"{folder}/{name}", given.group(1)


# -- the IOMMU ------------------------------------------------------------------------------------


def _direct(ask: Asking) -> dict[int, tuple[str, ...]]:
    """Regions that the firmware wants mapped one to one: `START END direct`. Those of graphics and USB are
    `direct-relaxable` and do no harm. Source: kernel, Documentation/ABI/testing/sysfs-kernel-iommu_groups."""
    found = {}
    for group in ask.names(GROUPS) or ():
        if group.isdecimal() and len(group) < 10:
            text = ask.text(f"{GROUPS}/{group}/reserved_regions", "attached.reserved_regions") or ""
            lines = tuple(line.strip() for line in text.splitlines()[:64] if line.split()[-1:] == ["direct"])
            if lines:
                found[int(group)] = lines
    return found
