"""`zpool` and `zfs` of a simulated machine: questions only. Pools are `zpool` in machine.json, {pool: [partitions]}."""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Ran
from .world import World

_BY_ID = "/dev/disk/by-id"


def zpool(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    pools: dict[str, list[str]] = world.machine().get("zpool", {})
    flags = "".join(word[1:] for word in argv[2:] if word.startswith("-") and not word.startswith("--"))
    names = [word for word in argv[2:] if word in pools] or list(pools)
    match list(argv[1:2]):
        case ["status"]:
            if not pools:
                return Ran(0, "no pools available\n")
            return Ran(0, "\n".join(_status(world, name, pools[name], flags) for name in names))
        case ["list"]:
            if not pools:
                return Ran(0, "" if "H" in flags else "no pools available\n")
            return Ran(0, "".join(_list(world, name, pools[name], flags) for name in names))
    return Ran(2, "", "zpool: only status and list are simulated\n")


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
