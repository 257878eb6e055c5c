"""Containers: their files, a change of them, start and end, and what can be asked inside.

1. The file is read and written as pve-container does it (PVE/LXC/Config.pm, parse_pct_config, write_pct_config): keys
   sorted, lxc.* lines kept in order behind them, then `[pve:pending]`, then snapshots.
2. A devN entry is judged when it is set: a path below /dev that is a device now (update_pct_config). The same happens
   at a start: what is missing then ends it with "Device … does not exist" (LXC.pm, update_lxc_config).
3. On a running container a new entry is plugged in at once; a change or a removal waits for the next start
   (vmconfig_hotplug_pending).
4. Runs while /sys/fs/cgroup/lxc/NUMBER exists; the nodes that it was started with are in state.json, `containers`.
5. The inside is machine.json's `containers`: {number: {groups: {name: gid}, users: {name: [uid, [gids]]}, programs:
   {name: what it says}}}. A program that is not listed is not there: lxc-attach ends with 127.
"""

from __future__ import annotations

import re
import shutil
from collections.abc import Mapping, Sequence
from typing import Any

from .. import nodes
from .arguments import failed
from .node import Die, Node, sha1
from .schema import Format, Invalid, Prop, parse

MOST = 256
CGROUPS = "/sys/fs/cgroup/lxc"
_SECTION = re.compile(r"(?m)^(?=\[)")
_AT_ONCE = frozenset(
    {"cores", "description", "hookscript", "hostname", "lock", "onboot", "protection", "startup", "tags"}
)
"""What takes effect on a running container, too (PVE/LXC/Config.pm, $LXC_FASTPLUG_OPTIONS)."""
_LINE = re.compile(r"([a-z][a-z_]*\d*):\s*(.+?)\s*")


def _dev_path(text: str) -> None:
    if re.search(r"/\.\.?(?:/|$)", text) or not text.startswith("/dev/"):
        raise Invalid(f"{text} is not a valid device path\n")


DEVICE: Format = {
    "path": Prop(default_key=True, check=_dev_path),
    "deny-write": Prop("boolean"),
    "gid": Prop("integer", minimum=0),
    "mode": Prop(pattern="0[0-7]{3}"),
    "uid": Prop("integer", minimum=0),
}
_DEV = Prop(keys=DEVICE)


def table(major: int) -> Format:
    """What `pct set` takes, as far as devices need it."""
    found: Format = {f"dev{number}": _DEV for number in range(MOST)}
    known = {name: Prop() for name in ("hostname", "description", "features", "tags", "lock", "startup")}
    flags = {name: Prop("boolean") for name in ("onboot", "protection", "unprivileged")}
    return {**found, **known, **flags, "delete": Prop(), "revert": Prop(), "digest": Prop(max_length=40)}


class Container:
    """One container's file: head, raw lines, pending and the rest as text."""

    def __init__(self, number: int, text: str) -> None:
        self.number, self.digest = number, sha1(text)
        head, *sections = _SECTION.split(text)
        self.notes = [line for line in head.splitlines() if line.startswith("#")]
        self.active = _values(head)
        self.raw = [line for line in head.splitlines() if line.startswith("lxc.")]
        self.pending: dict[str, str] = {}
        self.deleting: list[str] = []
        self.snapshots = [section for section in sections if not section.lower().startswith("[pve:pending]")]
        for section in sections:
            if section.lower().startswith("[pve:pending]"):
                self.pending = _values(section.partition("\n")[2])
                self.deleting = [one for one in re.split(r"[\s,;]+", self.pending.pop("delete", "")) if one]

    def render(self) -> str:
        lines = [*self.notes, *(f"{key}: {self.active[key]}" for key in sorted(self.active)), *self.raw]
        text = "".join(f"{line}\n" for line in lines)
        if self.pending or self.deleting:
            waiting = self.pending | ({"delete": ",".join(self.deleting)} if self.deleting else {})
            text += "\n[pve:pending]\n" + "".join(f"{key}: {waiting[key]}\n" for key in sorted(waiting))
        return text + "".join(f"\n{section.strip()}\n" for section in self.snapshots)

    def shown(self) -> dict[str, str]:
        values = {key: text for key, text in self.active.items() if key not in self.deleting}
        return values | self.pending


def _values(text: str) -> dict[str, str]:
    return {match.group(1): match.group(2) for line in text.splitlines() if (match := _LINE.fullmatch(line))}


def path_of(node: Node, number: int) -> str:
    return f"/etc/pve/nodes/{node.name}/lxc/{number}.conf"


def numbers(node: Node) -> list[int]:
    names = node.world.names(f"/etc/pve/nodes/{node.name}/lxc")
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"[1-9]\d{2,8}\.conf", name))


def load(node: Node, number: int) -> Container:
    text = node.world.text(path_of(node, number))
    if text is None:
        raise Die(f"Configuration file 'nodes/{node.name}/lxc/{number}.conf' does not exist", 2)
    return Container(number, text)


def save(node: Node, container: Container) -> None:
    node.write(path_of(node, container.number), container.render())


def is_running(node: Node, number: int) -> bool:
    return node.world.exists(f"{CGROUPS}/{number}")


# -- changing -------------------------------------------------------------------------------------


def update(node: Node, number: int, given: Mapping[str, str], usage: str) -> None:
    params = dict(given)
    digest, gone = params.pop("digest", ""), _names(params.pop("delete", ""))
    _names(params.pop("revert", ""))
    if not params and not gone:
        raise Die("no options specified")
    for name in gone:
        if name not in table(node.major):
            raise failed({"delete": f"unknown option '{name}'"}, usage)
    container = load(node, number)
    if lock := container.active.get("lock"):
        raise Die(f"CT is locked ({lock})")
    if digest and digest != container.digest:
        raise Die("checksum mismatch (file change by other user?)")
    for key in gone:
        _delete(node, container, key)
    for key in sorted(params):
        if key.startswith("dev"):
            rdev(node, parse(DEVICE, params[key])["path"])
        container.pending[key] = params[key]
        container.deleting = [one for one in container.deleting if one != key]
    _settle(node, container)
    save(node, container)


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[\s,;\0]+", text) if name]


def _delete(node: Node, container: Container, key: str) -> None:
    if key not in container.shown():
        node.warn(f"cannot delete '{key}' - not set in current configuration!")
        return
    if key in ("memory", "rootfs", "ostype"):
        raise Die(f"unable to delete required option '{key}'")
    container.pending.pop(key, None)
    if key in container.active and key not in container.deleting:
        container.deleting.append(key)


def _settle(node: Node, container: Container) -> None:
    """Pending values that take effect now."""
    running = is_running(node, container.number)
    for key in [key for key, text in container.pending.items() if container.active.get(key) == text]:
        del container.pending[key]
    if not running:
        for key in container.deleting:
            container.active.pop(key, None)
        container.active |= container.pending
        container.pending, container.deleting = {}, []
        return
    for key in [key for key in container.pending if key in _AT_ONCE]:
        container.active[key] = container.pending.pop(key)
    for key in [key for key in container.deleting if key in _AT_ONCE]:
        container.active.pop(key, None)
        container.deleting.remove(key)
    for key in [key for key in container.pending if key.startswith("dev") and key not in container.active]:
        _plug(node, container, container.pending[key])
        container.active[key] = container.pending.pop(key)


def rdev(node: Node, path: str) -> nodes.Node:
    """Raises `Die` in the words of PVE/LXC/Tools.pm, get_device_mode_and_rdev."""
    found = nodes.node_at(node.world, path, nodes.present(node.world))
    if found is None:
        there = node.world.exists(path)
        raise Die(f"{path} is not a device" if there else f"Device {path} does not exist")
    return found


# -- running --------------------------------------------------------------------------------------


def start(node: Node, number: int) -> None:
    node.require_quorum()
    container = load(node, number)
    if lock := container.active.get("lock"):
        raise Die(f"CT is locked ({lock})")
    if container.active.get("template") == "1":
        raise Die("you can't start a CT if it's a template")
    if is_running(node, number):
        raise Die(f"CT {number} already running")
    _settle(node, container)
    save(node, container)
    inside = {}
    for key in sorted(key for key in container.active if re.fullmatch(r"dev\d+", key)):
        path, values = _made(node, container.active[key])
        inside[path] = values
    inside |= _bound(node, container)
    state = node.state()
    state.setdefault("containers", {})[str(number)] = {"nodes": inside}
    node.world.save_state(state)
    node.world.make_dir(f"{CGROUPS}/{number}")


def stop(node: Node, number: int) -> None:
    container = load(node, number)
    if not is_running(node, number):
        raise Die(f"CT {number} not running")
    shutil.rmtree(node.world.tree.real(f"{CGROUPS}/{number}"), ignore_errors=True)
    state = node.state()
    state.get("containers", {}).pop(str(number), None)
    node.world.save_state(state)
    _settle(node, container)
    save(node, container)


def _made(node: Node, text: str) -> tuple[str, list[int]]:
    """The node that the container finds: its path, and type and mode, major, minor, uid, gid as seen inside."""
    values = parse(DEVICE, text)
    found = rdev(node, values["path"])
    mode = int(values.get("mode", "0660"), 8)
    return values["path"], [
        0x2000 | mode,
        found.major,
        found.minor,
        int(values.get("uid", 0)),
        int(values.get("gid", 0)),
    ]


def _bound(node: Node, container: Container) -> dict[str, list[int]]:
    """Raw bind mounts keep the host's numbers; in an unprivileged container those are nobody's (65534)."""
    there, made = nodes.present(node.world), {}
    nobody = container.active.get("unprivileged") == "1" and not any("lxc.idmap" in line for line in container.raw)
    for line in container.raw:
        words = line.partition(":")[2].split() if line.startswith("lxc.mount.entry:") else []
        for path, one in there.items():
            if len(words) > 1 and (path == words[0] or path.startswith(f"{words[0]}/")):
                inside = f"/{words[1].strip('/')}{path.removeprefix(words[0])}"
                uid, gid = (65534, 65534) if nobody else (0, nodes.GROUPS[one.group])
                made[inside] = [0x2000 | one.mode, one.major, one.minor, uid, gid]
    return made


def _plug(node: Node, container: Container, text: str) -> None:
    path, values = _made(node, text)
    state = node.state()
    state.setdefault("containers", {}).setdefault(str(container.number), {"nodes": {}})["nodes"][path] = values
    node.world.save_state(state)


# -- the inside -----------------------------------------------------------------------------------


def execute(node: Node, number: int, argv: Sequence[str]) -> int:
    """`lxc-attach -n NUMBER -- ARGV`; its exit code is the program's."""
    load(node, number)
    if not is_running(node, number):
        raise Die(f"lxc-attach: {number}: ../src/lxc/attach.c: get_attach_context: 406 Connection refused - "
                  "Failed to get init pid", 1)  # fmt: skip
    inside: dict[str, Any] = node.machine.get("containers", {}).get(str(number), {})
    name, words = argv[0], list(argv[1:])
    if name in inside.get("without", ()):
        return _not_there(node, name)
    if name == "getent" and words[:1] == ["group"]:
        return _getent(node, inside.get("groups", {}), words[1:])
    if name == "id":
        return _id(node, inside.get("users", {}), words)
    if name == "stat" and words[:1] == ["-c"] and "--" in words:
        return _stat(node, number, words[1], words[words.index("--") + 1 :], inside)
    if name in inside.get("programs", {}):
        rc, said = inside["programs"][name]
        node.out.append(said)
        return int(rc)
    return _not_there(node, name)


def _not_there(node: Node, name: str) -> int:
    node.err.append(f'lxc-attach: Failed to exec "{name}": No such file or directory\n')
    return 127


def _getent(node: Node, groups: Mapping[str, int], names: Sequence[str]) -> int:
    """getent(1): 2 when one of the keys was not found."""
    for name in names or groups:
        if name in groups:
            node.say(f"{name}:x:{groups[name]}:")
    return 0 if all(name in groups for name in names) else 2


def _id(node: Node, users: Mapping[str, Any], words: Sequence[str]) -> int:
    option, user = words[0], words[-1]
    if user != "root" and user not in users:
        node.err.append(f"id: '{user}': no such user\n")
        return 1
    uid, gids = users.get(user, [0, [0]])
    node.say(str(uid) if option == "-u" else " ".join(map(str, gids)))
    return 0


def _stat(node: Node, number: int, form: str, paths: Sequence[str], inside: Mapping[str, Any]) -> int:
    there = node.state().get("containers", {}).get(str(number), {}).get("nodes", {})
    names = {gid: name for name, gid in inside.get("groups", {}).items()}
    rc = 0
    for path in paths:
        if path not in there:
            node.err.append(f"stat: cannot statx '{path}': No such file or directory\n")
            rc = 1
            continue
        mode, major, minor, uid, gid = there[path]
        owner = {0: "root", 65534: "nobody"}.get(uid, "UNKNOWN")
        group = names.get(gid, {0: "root", 65534: "nogroup"}.get(gid, "UNKNOWN"))
        node.say(nodes.formatted(form, nodes.letters(mode, major, minor, uid, gid, owner, group) | {"n": path}))
    return rc
