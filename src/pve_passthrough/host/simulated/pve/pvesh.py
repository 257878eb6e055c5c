"""`pvesh`: the API's paths on the command line.

1. One row per path and method in the literal tables below: a pattern, a table of options, a function.
2. POST on a guest's status runs a task: its UPID is the last line of stdout and the exit code is 0 even when the task
   fails (recorded with PVE 8.4 and 9.2); who asks must read the task's status.
3. A path without a row is refused with Proxmox' own words for a path that does not exist.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from typing import Any

from . import agent, changes, containers, guests, ha, inventory, jobs, mappings, pools, storage, tasks
from .arguments import Words, failed, params, require, split
from .changes import create_table, update_table
from .config import load
from .node import Die, Node, NotCovered, versions
from .options import FILE_ONLY, config_id, guest_options
from .output import FORMATS, formatted
from .qm import patience, request_ha, snapshot
from .schema import Format, Invalid, Prop, judge
from .tasks import run_task

_FLAG, _TEXT, _COUNT = Prop("boolean"), Prop(), Prop("integer", minimum=0)
_FORMAT: Format = {
    "output-format": Prop(enum=FORMATS),
    "noborder": _FLAG,
    "noheader": _FLAG,
    "quiet": _FLAG,
    "human-readable": _FLAG,
}
_VERBS = {"get": "GET", "set": "PUT", "create": "POST", "delete": "DELETE"}


class Call:
    """One request: the node, what the path matched, and the options."""

    __slots__ = ("node", "options", "parts", "usage", "words")

    def __init__(self, node: Node, parts: Sequence[str], usage: str, words: Words) -> None:
        self.node = node
        self.parts = tuple(parts)
        self.usage = usage
        self.words = words
        self.options: dict[str, str] = {}

    @property
    def vmid(self) -> int:
        """The path's guest id; its configuration must be there."""
        return int(self.parts[-1])


_Handler = Callable[[Call], Any]
_Row = tuple[str, str, Callable[[int], Format], _Handler]


def run(node: Node, argv: Sequence[str]) -> int:
    """One call of `pvesh`; its exit code. Raises `Die`."""
    verb, path, *rest = [*argv, *("", "")[len(argv) :]]
    if verb not in _VERBS:
        raise NotCovered(f"pvesh {verb}")
    for method, pattern, table, handler in _ROWS:
        match = re.fullmatch(pattern, path.rstrip("/") or "/") if method == _VERBS[verb] else None
        if match:
            return _answer(node, verb, match.groups(), {**table(node.major), **_FORMAT}, handler, rest)
    raise Die(f"No '{verb}' handler defined for '{path}'", 1)


def _answer(node: Node, verb: str, parts: Sequence[str], table: Format, handler: _Handler, argv: Sequence[str]) -> int:
    needed = "".join(f" --{name} <{_kind(name)}>" for name in sorted(table) if not table[name].optional)
    usage = f"pvesh {verb} <api_path>{needed} [OPTIONS] [FORMAT_OPTIONS]"
    call = Call(node, parts, usage, split(argv, table, usage))
    call.options = _with_maps(call, table) if "map" in table else params(call.words, table, usage)
    form = call.options.pop("output-format", "text")
    for name in ("noborder", "noheader", "quiet", "human-readable"):
        call.options.pop(name, None)
    node.out.append(formatted(handler(call), form))
    return 0


def _kind(name: str) -> str:
    return "array" if name == "map" else "string"


def _with_maps(call: Call, table: Format) -> dict[str, str]:
    """Options of a mapping: `map` may stand more than once and each one is judged by its number."""
    problems: dict[str, str] = {}
    keys = table["map"].keys
    for number, text in enumerate(call.words.options.get("map", ())):
        name = f"map[{number}]"
        try:
            judge(Prop(keys=keys), text, name)
        except Invalid as error:
            problems[name] = error.text
    others = Words({name: values for name, values in call.words.options.items() if name != "map"})
    require({"map": table["map"]}, call.words.options, problems)
    if problems:
        raise failed(problems, call.usage)
    return params(others, {name: prop for name, prop in table.items() if name != "map"}, call.usage)


def _here(call: Call, name: str) -> None:
    """A path's node must be this one; pvesh asks the name service about any other."""
    if name not in (call.node.name, "localhost"):
        raise Die(
            f"hostname lookup '{name}' failed - failed to get address info for: {name}: "
            "Temporary failure in name resolution",
            11,
        )


# -- node and cluster -----------------------------------------------------------------------------


def _version(call: Call) -> Any:
    if call.parts:
        _here(call, call.parts[0])
    return versions(call.node)


def _nodes(call: Call) -> Any:
    return [{"node": call.node.name, "id": f"node/{call.node.name}", "type": "node", "status": "online"}]


def _node_status(call: Call) -> Any:
    _here(call, call.parts[0])
    version = versions(call.node)
    kernel = (call.node.world.text("/proc/sys/kernel/osrelease") or "").strip()
    efi = call.node.world.exists("/sys/firmware/efi")
    memory = re.search(r"(?m)^MemTotal:\s+(\d+) kB", call.node.world.text("/proc/meminfo") or "")
    return {
        "pveversion": f"pve-manager/{version['version']}/{version['repoid']}",
        "boot-info": {"mode": "efi" if efi else "legacy-bios"},
        "cpuinfo": {"cpus": guests.host_cpus(call.node)},
        "current-kernel": {"machine": "x86_64", "release": kernel, "sysname": "Linux"},
        "memory": {"total": int(memory.group(1)) * 1024 if memory else 0},
    }


def _cluster_status(call: Call) -> Any:
    name = call.node.name
    row = {"id": f"node/{name}", "level": "", "local": 1, "name": name, "nodeid": 0, "online": 1, "type": "node"}
    address = _address(call.node)
    return [{**row, **({"ip": address} if address else {})}]


def _address(node: Node) -> str:
    """The node's own address, from /etc/hosts as Proxmox keeps it."""
    for line in (node.world.text("/etc/hosts") or "").splitlines():
        words = line.split("#")[0].split()
        if node.name in words[1:]:
            return words[0]
    return ""


def _resources(call: Call) -> Any:
    kind = call.options.get("type")
    rows: list[dict[str, Any]] = []
    if kind in (None, "node"):
        rows.append({"id": f"node/{call.node.name}", "node": call.node.name, "status": "online", "type": "node"})
    if kind in (None, "vm"):
        rows += [_vm_resource(call.node, row) for row in guests.listed(call.node)]
    if kind in (None, "storage"):
        rows += _storage_resources(call.node)
    return rows


def _vm_resource(node: Node, row: dict[str, Any]) -> dict[str, Any]:
    names: tuple[str, ...] = ("name", "status", "tags", "vmid", "memhost", "lock")
    kept = {key: row[key] for key in names if key in row}
    zero: dict[str, Any] = dict.fromkeys(("cpu", "disk", "diskread", "diskwrite", "mem", "netin", "netout"), 0)
    resource = ha.resource(node, row["vmid"])
    found: dict[str, Any] = {
        **zero,
        **kept,
        "id": f"qemu/{row['vmid']}",
        "maxcpu": row["cpus"],
        "maxdisk": row["maxdisk"],
        "maxmem": row["maxmem"],
        "node": node.name,
        "template": row.get("template", 0),
        "type": "qemu",
        "uptime": row["uptime"],
    }
    if pool := pools.pool_of(node, row["vmid"]):
        found["pool"] = pool
    return found if resource is None else {**found, "hastate": resource.values.get("state")}


def _storage_resources(node: Node) -> list[dict[str, Any]]:
    return [
        {
            "id": f"storage/{node.name}/{name}",
            "storage": name,
            "type": "storage",
            "plugintype": section.type,
            "node": node.name,
            "content": section.values.get("content", ""),
            "shared": 0,
            "status": "available",
        }
        for name, section in storage.storages(node).items()
    ]


def _storages(call: Call) -> Any:
    _here(call, call.parts[0])
    wanted = call.options.get("content")
    rows = []
    for name, section in storage.storages(call.node).items():
        content = section.values.get("content", "")
        if wanted is None or wanted in content.split(","):
            state = {"active": 0 if call.node.fault(f"storage:{name}") else 1, "enabled": 1, "shared": 0}
            rows.append({"storage": name, "type": section.type, "content": content, **state})
    return rows


def _next_id(call: Call) -> Any:
    wanted = call.options.get("vmid")
    if wanted is not None:
        if changes.taken(call.node, int(wanted)):
            raise failed({"vmid": f"VM {wanted} already exists"}, call.usage)
        return wanted
    return str(next(number for number in range(100, 10**9) if not changes.taken(call.node, number)))


# -- hardware -------------------------------------------------------------------------------------


def _hardware(call: Call) -> Any:
    _here(call, call.parts[0])
    return [{"type": "pci"}, {"type": "usb"}]


def _pci(call: Call) -> Any:
    _here(call, call.parts[0])
    given = call.words.options.get("pci-class-blacklist", ["05;06;0b"])
    hidden = [part for text in given for part in re.split(r"[\s,;]+", text) if part]
    return inventory.pci_list(call.node, hidden, call.options.get("verbose", "1") == "1")


def _usb(call: Call) -> Any:
    _here(call, call.parts[0])
    return inventory.usb_devices(call.node)


def _pci_one(call: Call) -> Any:
    _here(call, call.parts[0])
    return [{"method": "mdev"}]


def _mdev(call: Call) -> Any:
    _here(call, call.parts[0])
    name = call.parts[1]
    if re.match(r"[0-9a-f]{2}:", name):
        name = f"0000:{name}"
    elif not re.match(r"[0-9a-f]{4,}:", name):
        _, maps = mappings.node_maps(call.node, "pci", name)
        name = maps[0]["path"].split(";")[0] if maps else ""
    rows = inventory.mdev_types(call.node, name) if name else []
    return [
        {"type": row.type, "available": row.available, "description": row.description, "name": row.name} for row in rows
    ]


# -- mappings -------------------------------------------------------------------------------------


def _mapping_index(call: Call) -> Any:
    return [{"name": name} for name in ("dir", "pci", "usb")]


def _mapping_table(kind: str, needs_map: bool, digest: bool) -> Callable[[int], Format]:
    def table(major: int) -> Format:
        found = {"map": Prop(optional=not needs_map, keys=mappings.KEYS[kind])}
        found["description"] = Prop(max_length=4096)
        if kind == "pci":
            found["mdev"] = _FLAG
            if major >= 9 or not digest:
                found["live-migration-capable"] = _FLAG
        if digest:
            return {**found, "digest": Prop(max_length=64), "delete": _TEXT}
        return {**found, "id": Prop(optional=False, check=config_id)}

    return table


def _mapping_list(call: Call) -> Any:
    checked = call.options.get("check-node")
    if checked is not None:
        _here(call, checked)
    return mappings.listed(call.node, call.parts[0], checked is not None)


def _mapping_get(call: Call) -> Any:
    return mappings.shown(call.node, call.parts[0], call.parts[1])


def _mapping_create(call: Call) -> None:
    values = dict(call.options)
    maps = call.words.options.get("map", [])
    mappings.create(call.node, call.parts[0], values.pop("id"), maps, values)


def _mapping_update(call: Call) -> None:
    values = dict(call.options)
    digest, gone = values.pop("digest", ""), re.split(r"[\s,;]+", values.pop("delete", ""))
    maps = call.words.options.get("map", [])
    mappings.update(call.node, call.parts[0], call.parts[1], maps, values, gone, digest)


def _mapping_delete(call: Call) -> None:
    mappings.delete(call.node, call.parts[0], call.parts[1])


# -- guests ---------------------------------------------------------------------------------------


def _guest_list(call: Call) -> Any:
    _here(call, call.parts[0])
    return guests.listed(call.node)


def _typed(node: Node, key: str, text: str) -> Any:
    """Numbers and booleans are numbers in JSON, everything else text (recorded: memory is text, cores a number)."""
    prop = guest_options(node.major).get(key)
    if key in FILE_ONLY or prop is None or prop.kind == "string":
        return text
    return float(text) if "." in text else int(text)


def _config(call: Call) -> Any:
    _here(call, call.parts[0])
    config = load(call.node, call.vmid)
    values = snapshot(call.node, config, call.options)
    values = values or (config.active if call.options.get("current") == "1" else config.shown())
    return {**{key: _typed(call.node, key, text) for key, text in values.items()}, "digest": config.digest}


def _pending(call: Call) -> Any:
    _here(call, call.parts[0])
    config = load(call.node, call.vmid)
    rows: list[dict[str, Any]] = [{"key": "digest", "value": config.digest}]
    for key in sorted({*config.active, *config.pending}):
        row: dict[str, Any] = {"key": key}
        if key in config.active:
            row["value"] = _typed(call.node, key, config.active[key])
        if key in config.pending:
            row["pending"] = _typed(call.node, key, config.pending[key])
        if key in config.deleting:
            row["delete"] = 2 if config.deleting[key] else 1
        rows.append(row)
    return rows


def _set(call: Call) -> None:
    _here(call, call.parts[0])
    changes.update(call.node, call.vmid, call.options, call.usage)()


def _set_later(call: Call) -> str | None:
    """POST …/config: the same change as a task; no UPID when it ended within `background_delay` seconds."""
    _here(call, call.parts[0])
    waits = call.options.pop("background_delay", None) is not None
    work = changes.update(call.node, call.vmid, call.options, call.usage)
    upid = _task(call, "qmconfig", work)
    return None if waits else upid


def _create(call: Call) -> str:
    _here(call, call.parts[0])
    values = dict(call.options)
    vmid = int(values.pop("vmid"))
    return _run(call.node, "qmcreate", vmid, changes.create(call.node, vmid, values, call.usage))


def _destroy(call: Call) -> str:
    _here(call, call.parts[0])
    work = changes.destroy(call.node, call.vmid, call.options.get("purge") == "1")
    return _task(call, "qmdestroy", work)


def _task(call: Call, kind: str, work: Callable[[], None]) -> str:
    return _run(call.node, kind, call.vmid, work)


def _run(node: Node, kind: str, vmid: int, work: Callable[[], None]) -> str:
    ended = run_task(node, kind, str(vmid), work)
    if ended.error is not None:
        node.err.append(f"{ended.error}\n")
    return ended.upid


def _current(call: Call) -> Any:
    _here(call, call.parts[0])
    return guests.current(call.node, call.vmid)


def _start(call: Call) -> str:
    _here(call, call.parts[0])
    node, vmid = call.node, call.vmid
    if ha.managed(node, vmid):
        return _task(call, "hastart", lambda: request_ha(node, vmid, "start"))
    return _task(call, "qmstart", lambda: guests.start(node, vmid, call.options.get("skiplock") == "1"))


def _stop(call: Call) -> str:
    _here(call, call.parts[0])
    node, vmid = call.node, call.vmid
    if ha.managed(node, vmid):
        return _task(call, "hastop", lambda: request_ha(node, vmid, "stop"))
    return _task(call, "qmstop", lambda: guests.stop(node, vmid, call.options.get("skiplock") == "1"))


def _shutdown(call: Call) -> str:
    _here(call, call.parts[0])
    node, vmid = call.node, call.vmid
    if ha.managed(node, vmid):
        return _task(call, "hastop", lambda: request_ha(node, vmid, "stop"))
    force, seconds = call.options.get("forceStop") == "1", patience(call.options)
    return _task(call, "qmshutdown", lambda: guests.shutdown(node, vmid, force, seconds))


def _reboot(call: Call) -> str:
    _here(call, call.parts[0])
    node, vmid = call.node, call.vmid
    load(node, vmid)
    if not changes.is_running(node, vmid):
        raise Die(f"VM {vmid} not running\n", 2)
    return _task(call, "qmreboot", lambda: guests.reboot(node, vmid, patience(call.options)))


# -- containers -----------------------------------------------------------------------------------


def _ct_set(call: Call) -> None:
    _here(call, call.parts[0])
    containers.update(call.node, call.vmid, call.options, call.usage)


def _ct_config(call: Call) -> Any:
    _here(call, call.parts[0])
    container = containers.load(call.node, call.vmid)
    raw = [line.split(": ", 1) for line in container.raw]
    return {**container.shown(), **({"lxc": raw} if raw else {}), "digest": container.digest}


# -- the agent ------------------------------------------------------------------------------------


def _agent_get(call: Call) -> Any:
    _here(call, call.parts[0])
    return {"result": agent.command(call.node, int(call.parts[1]), call.parts[2])}


def _agent_exec(call: Call) -> Any:
    _here(call, call.parts[0])
    return {"pid": agent.exec_start(call.node, call.vmid, call.words.options.get("command", []))}


def _agent_status(call: Call) -> Any:
    _here(call, call.parts[0])
    return agent.exec_status(call.node, call.vmid, call.options["pid"])


# -- tasks, HA, backup jobs -----------------------------------------------------------------------


def _tasks(call: Call) -> Any:
    _here(call, call.parts[0])
    return tasks.listed(call.node, call.options.get("vmid"))


def _task_status(call: Call) -> Any:
    _here(call, call.parts[0])
    return tasks.status(call.node, call.parts[1])


def _task_log(call: Call) -> Any:
    _here(call, call.parts[0])
    return tasks.log(call.node, call.parts[1])


def _ha_list(call: Call) -> Any:
    return [ha.item(call.node, section) for section in ha.resources(call.node)]


def _ha_get(call: Call) -> Any:
    section = ha.resource(call.node, int(call.parts[0]))
    if section is None:
        raise Die(f"no such resource 'vm:{call.parts[0]}'", 2 if call.node.major >= 9 else 255)
    return ha.item(call.node, section)


def _jobs(call: Call) -> Any:
    return jobs.listed(call.node)


def _job(call: Call) -> Any:
    return jobs.shown(call.node, call.parts[0], call.usage)


# -- the table ------------------------------------------------------------------------------------


def _none(major: int) -> Format:
    return {}


def _table(**options: Prop) -> Callable[[int], Format]:
    found = {name.replace("_", "-"): prop for name, prop in options.items()}
    return lambda major: found


def _post_config(major: int) -> Format:
    return {**update_table(major), "background_delay": Prop("integer", minimum=1, maximum=30)}


def _post_guest(major: int) -> Format:
    return {**create_table(major), "vmid": Prop("integer", optional=False, minimum=100, maximum=999999999)}


_SKIP = {"skiplock": _FLAG, "timeout": _COUNT}
_NODE = r"/nodes/([^/]+)"
_CT = rf"{_NODE}/lxc/([1-9]\d{{2,8}})"
_VM = rf"{_NODE}/qemu/([1-9]\d{{2,8}})"
_ROWS: tuple[_Row, ...] = (
    ("GET", "/version", _none, _version),
    ("GET", "/nodes", _none, _nodes),
    ("GET", rf"{_NODE}/version", _none, _version),
    ("GET", rf"{_NODE}/status", _none, _node_status),
    ("GET", rf"{_NODE}/hardware", _none, _hardware),
    ("GET", rf"{_NODE}/hardware/pci", _table(pci_class_blacklist=_TEXT, verbose=_FLAG), _pci),
    ("GET", rf"{_NODE}/hardware/pci/([^/]+)", _none, _pci_one),
    ("GET", rf"{_NODE}/hardware/pci/([^/]+)/mdev", _none, _mdev),
    ("GET", rf"{_NODE}/hardware/usb", _none, _usb),
    ("GET", rf"{_NODE}/storage", _table(content=_TEXT, enabled=_FLAG, storage=_TEXT, target=_TEXT), _storages),
    ("GET", rf"{_NODE}/tasks", _table(vmid=_TEXT, limit=_COUNT, start=_COUNT), _tasks),
    ("GET", rf"{_NODE}/tasks/(UPID:[^/]+)/status", _none, _task_status),
    ("GET", rf"{_NODE}/tasks/(UPID:[^/]+)/log", _table(limit=_COUNT, start=_COUNT), _task_log),
    ("GET", rf"{_NODE}/qemu", _table(full=_FLAG), _guest_list),
    ("POST", rf"{_NODE}/qemu", _post_guest, _create),
    ("DELETE", _VM, _table(purge=_FLAG, skiplock=_FLAG, destroy_unreferenced_disks=_FLAG), _destroy),
    ("GET", rf"{_VM}/config", _table(current=_FLAG, snapshot=_TEXT), _config),
    ("PUT", rf"{_VM}/config", update_table, _set),
    ("PUT", rf"{_CT}/config", containers.table, _ct_set),
    ("GET", rf"{_CT}/config", _none, _ct_config),
    ("POST", rf"{_VM}/config", _post_config, _set_later),
    ("GET", rf"{_VM}/pending", _none, _pending),
    ("GET", rf"{_VM}/status/current", _none, _current),
    ("POST", rf"{_VM}/status/start", _table(**_SKIP), _start),
    ("POST", rf"{_VM}/status/stop", _table(**_SKIP, keepActive=_FLAG, overrule_shutdown=_FLAG), _stop),
    ("POST", rf"{_VM}/status/shutdown", _table(**_SKIP, forceStop=_FLAG, keepActive=_FLAG), _shutdown),
    ("POST", rf"{_VM}/status/reboot", _table(timeout=_COUNT), _reboot),
    ("POST", rf"{_VM}/agent/(ping)", _none, _agent_get),
    ("GET", rf"{_VM}/agent/(get-osinfo|get-host-name|network-get-interfaces)", _none, _agent_get),
    ("POST", rf"{_VM}/agent/exec", _table(command=_TEXT, input_data=_TEXT), _agent_exec),
    ("GET", rf"{_VM}/agent/exec-status", _table(pid=Prop("integer", optional=False)), _agent_status),
    ("GET", "/cluster/status", _none, _cluster_status),
    ("GET", "/cluster/resources", _table(type=Prop(enum=("vm", "storage", "node", "sdn"))), _resources),
    ("GET", "/cluster/nextid", _table(vmid=Prop("integer", minimum=100)), _next_id),
    ("GET", "/cluster/mapping", _none, _mapping_index),
    ("GET", "/cluster/mapping/(pci|usb)", _table(check_node=_TEXT), _mapping_list),
    ("POST", "/cluster/mapping/(pci)", _mapping_table("pci", True, False), _mapping_create),
    ("POST", "/cluster/mapping/(usb)", _mapping_table("usb", True, False), _mapping_create),
    ("GET", "/cluster/mapping/(pci|usb)/([^/]+)", _none, _mapping_get),
    ("PUT", "/cluster/mapping/(pci)/([^/]+)", _mapping_table("pci", False, True), _mapping_update),
    ("PUT", "/cluster/mapping/(usb)/([^/]+)", _mapping_table("usb", True, True), _mapping_update),
    ("DELETE", "/cluster/mapping/(pci|usb)/([^/]+)", _none, _mapping_delete),
    ("GET", "/cluster/ha/resources", _none, _ha_list),
    ("GET", r"/cluster/ha/resources/(?:vm:)?(\d+)", _none, _ha_get),
    ("GET", "/cluster/backup", _none, _jobs),
    ("GET", "/cluster/backup/([^/]+)", _none, _job),
)
