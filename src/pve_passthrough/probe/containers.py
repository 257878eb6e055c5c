"""Containers of this node with all that their files say, and the device nodes that they could be given.

1. A deep look's work: one file per container; /dev is listed, and one `stat` asks about all that is known there.
2. What a device node is, is told by the kernel: /sys/dev/char/MAJOR:MINOR leads to the device's own directory
   (kernel, Documentation/ABI/testing/sysfs-dev). NVIDIA's module registers none; its /proc files tell the card.
3. Names below /dev come from udev's rules and from root: those that Proxmox would not take are passed over.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import replace

from ..host.base import Host, HostError, Missing
from ..model.ct import Ct, DevNode, GivenNode, is_dev_path, parse_ct
from ..model.facts import Pve
from ..model.pci import Address
from .asking import Asking
from .assignments import kept_plans

NODES = "/etc/pve/nodes"
MOST_CONTAINERS = 5000
MOST_NODES = 512
LONGEST_CONFIG = 1024 * 1024
_FILE = re.compile(r"([1-9][0-9]{2,8})\.conf")
_TOP = re.compile(r"nvidia(?:[0-9]{1,3}|ctl|-uvm|-uvm-tools|-modeset)|kfd|apex_[0-9]{1,3}")
_DRM = re.compile(r"(?:card|renderD)[0-9]{1,4}")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_PORT = re.compile(r"[0-9]{1,3}-[0-9]{1,3}(?:\.[0-9]{1,3}){0,6}")
STAT = "%n\t%f\t%t\t%T\t%u\t%g\t%U\t%G"
"""stat(1): name, mode in hex, major and minor in hex, owner and group as numbers and as names."""


def probe_own_containers(ask: Asking, pve: Pve) -> tuple[Ct, ...] | None:
    """The containers of this node; None: nobody could say."""
    if pve.installed is False:
        return ()
    if pve.node is None or pve.nodes is None:
        return None
    folder = f"{NODES}/{pve.node}/lxc"
    names = ask.names(folder, "own_containers")
    if names is None:
        return None if ask.gaps and any(gap.about == "own_containers" for gap in ask.gaps) else ()
    found, running = [], _running(ask)
    for match in [match for name in names if (match := _FILE.fullmatch(name))][:MOST_CONTAINERS]:
        text = ask.need(f"{folder}/{match.group(0)}", "own_containers")
        if text is None or len(text) > LONGEST_CONFIG or "\0" in text:
            ask.gap("own_containers", "no configuration of a container", f"{folder}/{match.group(0)}")
            continue
        number = int(match.group(1))
        config, raw, pending, deleting = parse_ct(text)
        state = None if running is None else number in running
        found.append(Ct(number, pve.node, config, raw, pending, deleting, state))
    return tuple(sorted(found, key=lambda one: one.number))


def _running(ask: Asking) -> frozenset[int] | None:
    """Numbers of containers with a control group: LXC makes lxc/NUMBER at the start and removes it at the end
    (pve-container, lxc-pve-prestart-hook, cleanup_cgroups: cgroup v2)."""
    try:
        return frozenset(int(name) for name in ask.host.names("/sys/fs/cgroup/lxc") if name.isdecimal())
    except Missing:
        if ask.names("/sys/fs"):
            return frozenset()
        ask.gap("own_containers.running", "there is no /sys/fs to look into")
    except HostError as error:
        ask.gap("own_containers.running", error.reason, "/sys/fs/cgroup/lxc")
    return None


# -- device nodes ----------------------------------------------------------------------------


def probe_nodes(ask: Asking) -> tuple[DevNode, ...] | None:
    """Graphics, compute, accelerator and serial nodes of the host; None: nobody could say."""
    top = ask.names("/dev", "dev_nodes")
    if top is None:
        return None
    links = dict(_links(ask, "/dev/dri/by-path")) | dict(_links(ask, "/dev/serial/by-id"))
    paths = [*_paths(ask, top), *sorted(set(links.values()))]
    paths = [path for path in dict.fromkeys(paths) if is_dev_path(path)][:MOST_NODES]
    if not paths:
        return ()
    gpus = _nvidia(ask) if any(name.startswith("nvidia") for name in top) else {}
    found = [_behind(ask, node, gpus) for node in _stated(ask, paths)]
    named: dict[str, list[str]] = {}
    for link, target in links.items():
        named.setdefault(target, []).append(link)
    return tuple(_with_links(node, named.get(node.path, ())) for node in found)


def _paths(ask: Asking, top: Iterable[str]) -> Iterator[str]:
    there = frozenset(top)
    if "dri" in there:
        yield from (f"/dev/dri/{name}" for name in ask.names("/dev/dri", "dev_nodes") or () if _DRM.fullmatch(name))
    yield from (f"/dev/{name}" for name in sorted(there) if _TOP.fullmatch(name))
    if "nvidia-caps" in there:
        yield from (f"/dev/nvidia-caps/{name}" for name in ask.names("/dev/nvidia-caps", "dev_nodes") or ())
    if "accel" in there:
        yield from (f"/dev/accel/{name}" for name in ask.names("/dev/accel", "dev_nodes") or ())


def _links(ask: Asking, folder: str) -> Iterator[tuple[str, str]]:
    """(link, the node that it leads to); udev writes them relative (`../renderD128`)."""
    for name in (ask.names(folder, "dev_nodes") or ())[:MOST_NODES]:
        text = ask.link(f"{folder}/{name}", "dev_nodes")
        if text is not None and (target := _joined(folder, text)) and is_dev_path(f"{folder}/{name}"):
            yield f"{folder}/{name}", target


def _joined(folder: str, text: str) -> str:
    parts = [] if text.startswith("/") else folder.strip("/").split("/")
    for part in text.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in ("", "."):
            parts.append(part)
    return "/" + "/".join(parts)


def _stated(ask: Asking, paths: list[str]) -> Iterator[DevNode]:
    """What stat says, of those that are device nodes. One that vanished meanwhile is not there: status 1, no line."""
    ran = ask.run(("stat", "-L", "-c", STAT, "--", *paths), "dev_nodes", 20.0)
    if ran is None:
        yield from _from_sysfs(ask, paths)
        return
    for line in ran.stdout.splitlines():
        node = node_of(line.split("\t"))
        if node is not None and node.path in paths:
            yield node


def node_of(words: list[str]) -> DevNode | None:
    if len(words) != 8 or not all(re.fullmatch(r"[0-9a-f]{1,8}", word) for word in words[1:6]):
        return None
    bits, kind = int(words[1], 16), {0x2: "c", 0x6: "b"}.get(int(words[1], 16) >> 12)
    if kind is None:
        return None
    major, minor = int(words[2], 16), int(words[3], 16)
    owner, group = (word if word.isprintable() else "?" for word in words[6:8])
    return DevNode(words[0], kind, major, minor, bits & 0o7777, int(words[4]), int(words[5]), owner, group)


def node_at(host: Host, path: str) -> DevNode | None:
    """One node by its path, links followed; None: it is not there, or nobody could say."""
    ask = Asking(host)
    found = [node for node in _stated(ask, [path]) if node.path == path] if is_dev_path(path) else []
    return _behind(ask, found[0], _nvidia(ask)) if found else None


def _from_sysfs(ask: Asking, paths: list[str]) -> Iterator[DevNode]:
    """Where no program answers (a tree, an old capture): the number alone, for classes that the kernel knows."""
    for path in paths:
        name = path.rpartition("/")[2]
        for kind in ("drm", "misc", "accel", "kfd", "tty", "apex"):
            number = re.fullmatch(r"(\d{1,5}):(\d{1,7})", ask.trimmed(f"/sys/class/{kind}/{name}/dev") or "")
            if number:
                yield DevNode(path, "c", int(number.group(1)), int(number.group(2)))
                break


def _behind(ask: Asking, node: DevNode, gpus: dict[int, Address]) -> DevNode:
    """The same node with what is behind it."""
    if re.fullmatch(r"/dev/nvidia[0-9]+", node.path):
        return replace(node, address=gpus.get(node.minor))
    text = ask.link(f"/sys/dev/{'block' if node.type == 'b' else 'char'}/{node.number}") or ""
    places = text.split("/")
    functions = [place for place in places if _ADDRESS.fullmatch(place)]
    ports = [place for place in places if _PORT.fullmatch(place)]
    address = Address.parse(functions[-1]) if functions else None
    return replace(node, address=address, port=ports[-1] if ports else "")


def _nvidia(ask: Asking) -> dict[int, Address]:
    """Minor number to card: `Device Minor:` in /proc/driver/nvidia/gpus/ADDRESS/information (NVIDIA's module)."""
    found = {}
    for name in (ask.names("/proc/driver/nvidia/gpus", "dev_nodes") or ())[:64]:
        text = ask.text(f"/proc/driver/nvidia/gpus/{name}/information") or ""
        minor = re.search(r"(?m)^Device Minor:\s*(\d{1,3})\s*$", text)
        if minor and _ADDRESS.fullmatch(name):
            found[int(minor.group(1))] = Address.parse(name)
    return found


def _with_links(node: DevNode, links: Iterable[str]) -> DevNode:
    found = tuple(sorted(links))
    return replace(node, links=found) if found else node


# -- what our runs gave ----------------------------------------------------------------------


def probe_given_nodes(ask: Asking) -> tuple[GivenNode, ...]:
    """Nodes that kept runs have given to containers, with the function that was behind each then, oldest first."""
    found: dict[tuple[int, str], GivenNode] = {}
    for plan in kept_plans(ask):
        match = re.fullmatch(r"ct:([1-9][0-9]{2,8})", _subject(plan))
        listed = plan.get("expects")
        for one in listed if match and isinstance(listed, list) else ():
            given = _given(int(match.group(1)), one) if match and isinstance(one, dict) else None
            if given is not None:
                found[given.number, given.path] = given
    return tuple(found.values())


def _subject(plan: Mapping[str, object]) -> str:
    """The container whose cells the plan changes."""
    changes = plan.get("changes")
    for change in changes if isinstance(changes, list) else ():
        cell = change.get("cell") if isinstance(change, dict) else None
        text = cell if isinstance(cell, str) else ""
        if isinstance(cell, dict):
            text = f"{cell.get('kind')}:{cell.get('name')}"
        if text.startswith("ct:"):
            return text.partition("/")[0]
    return ""


def _given(number: int, expected: Mapping[str, object]) -> GivenNode | None:
    cell, text = expected.get("cell"), str(expected.get("text"))
    name = f"{cell.get('kind')}:{cell.get('name')}" if isinstance(cell, dict) else str(cell)
    if not name.startswith("node:") or not is_dev_path(name[5:]) or not _ADDRESS.fullmatch(text):
        return None
    return GivenNode(number, name[5:], Address.parse(text))
