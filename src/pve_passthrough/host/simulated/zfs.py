"""`zpool` and `zfs` of a simulated machine, and what imports pools without being asked.

1. The root's pool is `zpool` in machine.json, {pool: [partitions]}; further ones are `pools`, and those of them that
   are not imported are listed under `pools_out`.
2. At boot a pool whose disks the host sees is imported by the cache, by its unit, by a scan while there is no cache; an
   enabled zfspool storage imports it a few seconds later, at boot or at any time (pvestatd). Sources: OpenZFS,
   etc/systemd/system/zfs-import-*.service; pve-storage, ZFSPoolPlugin.pm, activate_storage.
3. An import by a storage or a scan leaves no trace in the cache (`-o cachefile=none`).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from ..base import Ran
from .world import World

_BY_ID = "/dev/disk/by-id"


CACHE = "/etc/zfs/zpool.cache"
_UNITS = "/etc/systemd/system/zfs-import.target.wants"


def zpool(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if list(argv[1:2]) in (["export"], ["import"]) and len(argv) > 2:
        return _move(world, argv[1], argv[-1])
    pools = imported(world)
    flags = "".join(word[1:] for word in argv[2:] if word.startswith("-") and not word.startswith("--"))
    names = [word for word in argv[2:] if word in pools and word != "name"] or list(pools)
    match list(argv[1:2]):
        case ["status"]:
            if not pools:
                return Ran(0, "no pools available\n")
            return Ran(0, "\n".join(_status(world, name, pools[name], flags) for name in names))
        case ["list"] if "o" in flags and "name" in argv:
            return Ran(0, "".join(f"{name}\n" for name in names if name in pools))
        case ["list"]:
            if not pools:
                return Ran(0, "" if "H" in flags else "no pools available\n")
            return Ran(0, "".join(_list(world, name, pools[name], flags) for name in names))
    return Ran(2, "", "zpool: only status, list, export NAME and import NAME are simulated\n")


def imported(world: World) -> dict[str, list[str]]:
    """Pools that are imported now, with their members."""
    machine = world.machine()
    out = machine.get("pools_out", ())
    others = {name: members for name, members in machine.get("pools", {}).items() if name not in out}
    return {**machine.get("zpool", {}), **others}


def _move(world: World, what: str, name: str) -> Ran:
    here = imported(world)
    if what == "export" and name not in here:
        return Ran(1, "", f"cannot open '{name}': no such pool\n")
    if what == "import" and name in here:
        return Ran(1, "", f"cannot import '{name}': a pool with that name already exists\n")
    if what == "import" and not _visible(world, name):
        return Ran(1, "", f"cannot import '{name}': no such pool available\n")
    if name in world.machine().get("zpool", {}):
        return Ran(1, "", f"cannot export '{name}': pool is busy\n")
    _put(world, name, out=what == "export")
    write_cache(world, cached(world) - {name} if what == "export" else cached(world) | {name})
    storages(world)
    return Ran(0)


def _put(world: World, name: str, *, out: bool) -> None:
    machine = world.machine()
    names = [one for one in machine.get("pools_out", ()) if one != name]
    machine["pools_out"] = [*names, name] if out else names
    world.save_machine(machine)


def _visible(world: World, name: str) -> bool:
    members = world.machine().get("pools", {}).get(name, ())
    return bool(members) and all(world.exists(f"/sys/class/block/{one}") for one in members)


def cached(world: World) -> set[str]:
    """Pools in the cache, by their names in its bytes: a name's length stands before it."""
    text = world.text(CACHE) or ""
    return {name for name in world.machine().get("pools", {}) if f"{chr(len(name))}{name}" in text}


def write_cache(world: World, names: Iterable[str]) -> None:
    """A cache with these pools: an nvlist in XDR, of empty nvlists (OpenZFS, module/nvpair/nvpair.c). None: no file."""
    pairs = b""
    for name in sorted(names):
        data = name.encode() + bytes(-len(name) % 4)
        body = len(name).to_bytes(4, "big") + data + (19).to_bytes(4, "big") + (1).to_bytes(4, "big") + bytes(16)
        size = (8 + len(body)).to_bytes(4, "big")
        pairs += size + size + body
    head = bytes((1, 1, 0, 0)) + bytes(4) + (1).to_bytes(4, "big")
    text = (head + pairs + bytes(8)).decode("utf-8", "surrogateescape")
    world.put(CACHE, text if pairs else None)


def at_boot(world: World) -> None:
    """What the host imports once its drivers hold what they hold; a pool whose disks are gone is not there."""
    machine = world.machine()
    known = machine.get("pools", {})
    if not known:
        return
    by_cache = cached(world)
    scan = world.exists(f"{_UNITS}/zfs-import-scan.service") and not by_cache
    for name in known:
        asked = name in by_cache or scan or world.exists(f"{_UNITS}/zfs-import@{name}.service")
        _put(world, name, out=not (asked and _visible(world, name)))
    storages(world)


def storages(world: World) -> None:
    """pvestatd: every enabled zfspool storage has its pool imported, where its disks are seen."""
    for section in re.split(r"(?m)^(?=\S)", world.text("/etc/pve/storage.cfg") or ""):
        pool = re.search(r"(?m)^\s+pool\s+([^\s/]+)", section)
        if pool is None or not section.startswith("zfspool:") or re.search(r"(?m)^\s+disable(?!\s+0)\b", section):
            continue
        if pool.group(1) in world.machine().get("pools_out", ()) and _visible(world, pool.group(1)):
            _put(world, pool.group(1), out=False)


def zfs(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if list(argv[1:2]) != ["list"]:
        return Ran(2, "", "zfs: only list is simulated\n")
    rows = [line.split()[:2] for line in (world.text("/proc/mounts") or "").splitlines() if " zfs " in line]
    return Ran(0, "".join(f"{name}\t12G\t452G\t96K\t{path}\n" for name, path in rows))


def _member(world: World, partition: str, flags: str) -> str:
    """A pool names its members by id; `-L` follows the link, `-P` gives the whole path."""
    name = partition
    if "L" not in flags:
        links = (one for one in world.names(_BY_ID) if (world.link(f"{_BY_ID}/{one}") or "").endswith(f"/{partition}"))
        name = next(links, partition)
    whole = f"/dev/{name}" if "L" in flags or name == partition else f"{_BY_ID}/{name}"
    return whole if "P" in flags else name


def _status(world: World, pool: str, members: list[str], flags: str) -> str:
    rows = [f"\t{pool}  ONLINE       0     0     0"]
    depth = "  "
    if len(members) > 1:
        rows.append("\t  mirror-0  ONLINE       0     0     0")
        depth = "    "
    rows += [f"\t{depth}{_member(world, one, flags)}  ONLINE       0     0     0" for one in members]
    table = "\n".join(["\tNAME        STATE     READ WRITE CKSUM", *rows])
    return f"  pool: {pool}\n state: ONLINE\nconfig:\n\n{table}\n\nerrors: No known data errors\n"


def _list(world: World, pool: str, members: list[str], flags: str) -> str:
    numbers = "464G\t12.1G\t452G\t-\t-\t1%\t2%\t1.00x\tONLINE\t-"
    text = f"{pool}\t{numbers}\n"
    if "v" in flags:
        if len(members) > 1:
            text += f"\tmirror-0\t{numbers}\n"
        text += "".join(f"\t{_member(world, one, flags)}\t{numbers}\n" for one in members)
    return text
