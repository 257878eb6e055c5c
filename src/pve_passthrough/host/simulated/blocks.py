"""`lsblk`, `pvs` and `ip` of a simulated machine: what udev found on its disks, and other names of its interfaces.

1. A disk is listed only while its driver holds the controller, as in /sys/class/block.
2. What lies on it is `contents` in machine.json, {name: [kind, label]}; members of pools are known from `pools`.
3. Only the questions that this program asks are simulated.
"""

from __future__ import annotations

import json
from collections.abc import Sequence

from ..base import Ran
from . import sriov
from .world import World


def lsblk(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if list(argv[1:]) != ["--json", "--list", "--output", "KNAME,FSTYPE,LABEL"]:
        return Ran(1, "", "lsblk: only --json --list --output KNAME,FSTYPE,LABEL is simulated\n")
    machine = world.machine()
    found = {name: tuple(what) for name, what in machine.get("contents", {}).items()}
    for pools in (machine.get("zpool", {}), machine.get("pools", {})):
        found |= {member: ("zfs_member", pool) for pool, members in pools.items() for member in members}
    for name in world.names("/sys/class/block"):
        if name.startswith("dm-"):
            found |= dict.fromkeys(world.names(f"/sys/class/block/{name}/slaves"), ("LVM2_member", ""))
    rows = []
    for name in world.names("/sys/class/block"):
        kind, label = found.get(name, ("", ""))
        label = "" if kind == "LVM2_member" else label  # a volume group's name is no label
        rows.append({"kname": name, "fstype": kind or None, "label": label or None})
    return Ran(0, json.dumps({"blockdevices": rows}, indent=3) + "\n")


def pvs(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if list(argv[1:]) != ["--reportformat", "json", "-o", "pv_name,vg_name"]:
        return Ran(3, "", "pvs: only --reportformat json -o pv_name,vg_name is simulated\n")
    contents = world.machine().get("contents", {})
    rows = [
        {"pv_name": f"/dev/{name}", "vg_name": what[1]}
        for name, what in sorted(contents.items())
        if what[0] == "LVM2_member" and world.exists(f"/sys/class/block/{name}")
    ]
    return Ran(0, json.dumps({"report": [{"pv": rows}]}, indent=2) + "\n")


def ip(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`altnames` in machine.json: {interface: [other names]}."""
    if list(argv[1:]) != ["-json", "link", "show"]:
        return sriov.ip(world, argv, stdin)
    others: dict[str, list[str]] = world.machine().get("altnames", {})
    names = world.names("/sys/class/net")
    rows = [{"ifname": name} | ({"altnames": others[name]} if name in others else {}) for name in names]
    return Ran(0, json.dumps(rows) + "\n")
