"""The smaller programs: `pveversion`, `pvesm`, `ha-manager`, as far as passthrough needs them.

1. What they cannot do is said, not guessed.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from . import ha, storage
from .arguments import params, split
from .config import vmids
from .node import Die, Node, NotCovered, versions
from .schema import Prop


def pveversion(node: Node, argv: Sequence[str]) -> int:
    if argv:
        raise NotCovered(f"pveversion {' '.join(argv)}")
    version = versions(node)
    kernel = (node.world.text("/proc/sys/kernel/osrelease") or "unknown").strip()
    node.say(f"pve-manager/{version['version']}/{version['repoid']} (running kernel: {kernel})")
    return 0


def pvesm(node: Node, argv: Sequence[str]) -> int:
    if len(argv) == 2 and argv[0] == "path":
        node.say(storage.volume_path(node, argv[1]))
        return 0
    if len(argv) == 2 and argv[0] == "list":
        return _list(node, argv[1])
    raise NotCovered(f"pvesm {' '.join(argv)}")


def _list(node: Node, name: str) -> int:
    section = storage.storage_of(node, name)
    if not section.type.startswith("lvm"):
        raise NotCovered(f"pvesm list {name}")
    found = {volume: about for volume, about in storage.volumes(node).items() if volume.startswith(f"{name}:")}
    width = max((len(volume) for volume in found), default=5)
    node.say(f"{'Volid':<{width}} {'Format':<7} {'Type':<9} {'Size':>11} VMID")
    for volume, about in sorted(found.items()):
        node.say(f"{volume:<{width}} {'raw':<7} {'images':<9} {about['size']:>11} {about['vmid']}")
    return 0


_HA_OPTIONS = {
    "state": Prop(enum=ha.STATES),
    "comment": Prop(max_length=4096),
    "group": Prop(),
    "max_restart": Prop("integer", minimum=0),
    "max_relocate": Prop("integer", minimum=0),
    "failback": Prop("boolean"),
}


def ha_manager(node: Node, argv: Sequence[str]) -> int:
    name, rest = (argv[0] if argv else ""), list(argv[1:])
    if name == "status" and not rest:
        return _ha_status(node)
    if name == "config" and not rest:
        return _ha_config(node)
    if name not in ("add", "set", "remove"):
        raise NotCovered(f"ha-manager {' '.join(argv)}")
    usage = f"ha-manager {name} <sid> [OPTIONS]"
    words = split(rest, {} if name == "remove" else _HA_OPTIONS, usage)
    match = re.fullmatch(r"(?:vm:)?(\d+)", words.words[0] if words.words else "")
    if match is None:
        raise Die(f"400 not enough arguments\n{usage}")
    _ha_change(node, name, int(match.group(1)), params(words, _HA_OPTIONS, usage))
    return 0


def _ha_change(node: Node, name: str, vmid: int, values: dict[str, str]) -> None:
    if name == "add":
        ha.add(node, vmid, values, vmid in vmids(node))
    elif name == "set":
        ha.set_values(node, vmid, values)
    elif not ha.remove(node, vmid):
        raise Die(f"cannot delete service 'vm:{vmid}', not HA managed!")


def _ha_status(node: Node) -> int:
    node.say("quorum OK" if node.machine.get("quorate", True) else "quorum No quorum on node")
    if node.major >= 9:
        node.say("fencing standby (CRM watchdog standby)")
    for section in ha.resources(node):
        node.say(f"service vm:{section.name} ({node.name}, queued)")
    return 0


def _ha_config(node: Node) -> int:
    for section in ha.resources(node):
        node.say(f"vm:{section.name}")
        for key in sorted(section.values):
            node.say(f"\t{key} {section.values[key]}")
        node.say("")
    return 0
