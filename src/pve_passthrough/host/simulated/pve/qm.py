"""`qm`: guests on this node, by words and exit codes as Proxmox VE 8.4 and 9.2 leave them.

1. One function per command, registered in the literal table at the end.
2. A command that runs a task prints the task's log and leaves 255 when the task fails (recorded rows `start`).
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping, Sequence

from . import agent, changes, guests, ha
from .arguments import Words, failed, params, split
from .config import Config, load, vmids
from .node import Die, Node, NotCovered
from .output import pretty
from .schema import Format, Prop
from .tasks import run_task

_FLAG, _TEXT, _COUNT = Prop("boolean"), Prop(), Prop("integer", minimum=0)


def run(node: Node, argv: Sequence[str]) -> int:
    """One call of `qm`; its exit code. Raises `Die`."""
    words = list(argv)
    name = words.pop(0) if words else "help"
    if name in ("guest", "disk") and words:
        name = f"{name} {words.pop(0)}"
    if name not in _COMMANDS:
        raise Die(f"ERROR: unknown command 'qm {name}'\nUSAGE: qm <COMMAND> [ARGS] [OPTIONS]")
    return _COMMANDS[name](node, words)


def _read(
    name: str, argv: Sequence[str], table: Format, count: int, tail: str = "[OPTIONS]", extra: str = ""
) -> tuple[int, Words, dict[str, str]]:
    """The guest's id, the words and the judged options. `count` words are needed, the first is the id."""
    usage = f"qm {name} <vmid>{extra} {tail}".rstrip()
    words = split(argv, table, usage)
    if len(words.words) < count:
        raise Die(f"400 not enough arguments\n{usage}")
    if len(words.words) > count:
        raise Die(f"400 too many arguments\n{usage}")
    text = words.words[0]
    if not re.fullmatch(r"[+-]?\d+", text):
        raise failed({"vmid": f"type check ('integer') failed - got '{text}'"}, usage)
    if not re.fullmatch(r"[1-9]\d{2,8}", text):
        raise failed({"vmid": "invalid format - value does not look like a valid VM ID\n"}, usage)
    return int(text), words, params(words, table, usage)


# -- looking --------------------------------------------------------------------------------------


def _list(node: Node, argv: Sequence[str]) -> int:
    split(argv, {"full": _FLAG}, "qm list  [OPTIONS]")
    rows = guests.listed(node)
    if rows:
        node.say(f"{'VMID':>10} {'NAME':<20} {'STATUS':<10} {'MEM(MB)':<10} {'BOOTDISK(GB)':>12} {'PID':<10}")
    for row in rows:
        memory, disk = row["maxmem"] >> 20, row["maxdisk"] / (1 << 30)
        head = f"{row['vmid']:>10} {row['name']:<20} {row['status']:<10} {memory:<10} "
        node.say(f"{head}{disk:>12.2f} {row.get('pid', 0):<10}")
    return 0


def _config(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("config", argv, {"current": _FLAG, "snapshot": _TEXT}, 1)
    config = load(node, vmid)
    values = snapshot(node, config, options) or (config.active if options.get("current") == "1" else config.shown())
    for key in sorted(values):
        text = values[key].replace("\n", "%0A") if key == "description" else values[key]
        node.say(f"{key}: {text}")
    return 0


def snapshot(node: Node, config: Config, options: Mapping[str, str]) -> dict[str, str]:
    """A snapshot's values, {} when none is asked for."""
    from .config import read

    name = options.get("snapshot")
    if name is None:
        return {}
    if name not in config.snapshots:
        raise Die(f"snapshot '{name}' does not exist")
    return read(node, config.vmid, config.snapshots[name]).active


def _pending(node: Node, argv: Sequence[str]) -> int:
    vmid, _, _ = _read("pending", argv, {}, 1, "")
    config = load(node, vmid)
    for key in sorted({*config.active, *config.pending}):
        if key in config.active:
            node.say(f"{'del' if key in config.deleting else 'cur'} {key}: {config.active[key]}")
        if key in config.pending:
            node.say(f"new {key}: {config.pending[key]}")
    return 0


def _status(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("status", argv, {"verbose": _FLAG}, 1)
    row = guests.status(node, vmid, True)
    if options.get("verbose") != "1":
        node.say(f"status: {row['qmpstatus']}")
        return 0
    for key in sorted(key for key in row if key not in ("cpu",)):
        node.say(f"{key}: {row[key]}")
    return 0


def _showcmd(node: Node, argv: Sequence[str]) -> int:
    """The refusals of a start, and a command line that names the passed devices only."""
    vmid, _, options = _read("showcmd", argv, {"pretty": _FLAG, "snapshot": _TEXT}, 1)
    config = load(node, vmid)
    found = guests.command(node, config)
    parts = ["/usr/bin/kvm", f"-id {vmid}", f"-name {config.active.get('name', f'vm{vmid}')}"]
    for entry in found:
        for function, address in enumerate(entry.taken):
            tail = f".{function}" if len(entry.taken) > 1 else ""
            parts.append(f"-device 'vfio-pci,host={address},id={entry.key}{tail}'")
    node.say((" \\\n  " if options.get("pretty") == "1" else " ").join(parts))
    return 0


# -- changing -------------------------------------------------------------------------------------


def _with_keys(node: Node, options: dict[str, str]) -> dict[str, str]:
    """On this command line `sshkeys` names a file; what is in it goes on."""
    return options | {"sshkeys": changes.keys_of_file(node, options["sshkeys"])} if "sshkeys" in options else options


def _set(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("set", argv, {**changes.update_table(node.major), "sshkeys": _TEXT}, 1)
    options = _with_keys(node, options)
    changes.update(node, vmid, options, "qm set <vmid> [OPTIONS]")()
    return 0


def _create(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("create", argv, {**changes.create_table(node.major), "sshkeys": _TEXT}, 1)
    work = changes.create(node, vmid, _with_keys(node, options), "qm create <vmid> [OPTIONS]")
    return _task(node, "qmcreate", vmid, work)


def _destroy(node: Node, argv: Sequence[str]) -> int:
    table = {"purge": _FLAG, "skiplock": _FLAG, "destroy-unreferenced-disks": _FLAG}
    vmid, _, options = _read("destroy", argv, table, 1)
    return _task(node, "qmdestroy", vmid, changes.destroy(node, vmid, options.get("purge") == "1"))


def _resize(node: Node, argv: Sequence[str]) -> int:
    vmid, words, _ = _read("disk resize", argv, {"digest": _TEXT, "skiplock": _FLAG}, 3, extra=" <disk> <size>")
    usage = "qm disk resize <vmid> <disk> <size> [OPTIONS]"
    if not re.fullmatch(r"\+?\d+(\.\d+)?[KMGT]?", words.words[2]):
        raise failed({"size": "value does not match the regex pattern"}, usage)
    changes.resize(node, vmid, words.words[1], words.words[2])
    return 0


def _unlock(node: Node, argv: Sequence[str]) -> int:
    vmid, _, _ = _read("unlock", argv, {}, 1, "")
    changes.unlock(node, vmid)
    return 0


# -- running --------------------------------------------------------------------------------------


def _task(node: Node, kind: str, vmid: int, work: Callable[[], None]) -> int:
    ended = run_task(node, kind, str(vmid), work)
    if ended.error is None:
        return 0
    node.err.append(f"{ended.error}\n")
    return 255


def _start(node: Node, argv: Sequence[str]) -> int:
    table = {"skiplock": _FLAG, "timeout": _COUNT, "machine": _TEXT, "force-cpu": _TEXT}
    vmid, _, options = _read("start", argv, table, 1)
    if ha.managed(node, vmid):
        return _task(node, "hastart", vmid, lambda: request_ha(node, vmid, "start"))
    return _task(node, "qmstart", vmid, lambda: guests.start(node, vmid, options.get("skiplock") == "1"))


def _stop(node: Node, argv: Sequence[str]) -> int:
    table = {"skiplock": _FLAG, "timeout": _COUNT, "keepActive": _FLAG, "overrule-shutdown": _FLAG}
    vmid, _, options = _read("stop", argv, table, 1)
    if ha.managed(node, vmid):
        return _task(node, "hastop", vmid, lambda: request_ha(node, vmid, "stop"))
    return _task(node, "qmstop", vmid, lambda: guests.stop(node, vmid, options.get("skiplock") == "1"))


def request_ha(node: Node, vmid: int, what: str) -> None:
    """A start changes the wanted state; a stop goes to the manager, which does not run here (recorded rows `ha`)."""
    node.say(f"Requesting HA {what} for VM {vmid}")
    if what == "start":
        ha.set_values(node, vmid, {"state": "started"})


def patience(options: Mapping[str, str]) -> int:
    """`--timeout` in seconds."""
    return int(options.get("timeout", guests.SHUTDOWN_SECONDS))


def _shutdown(node: Node, argv: Sequence[str]) -> int:
    table = {"timeout": _COUNT, "forceStop": _FLAG, "skiplock": _FLAG, "keepActive": _FLAG}
    vmid, _, options = _read("shutdown", argv, table, 1)
    if ha.managed(node, vmid):
        return _task(node, "hastop", vmid, lambda: request_ha(node, vmid, "stop"))
    force, seconds = options.get("forceStop") == "1", patience(options)
    return _task(node, "qmshutdown", vmid, lambda: guests.shutdown(node, vmid, force, seconds))


def _reboot(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("reboot", argv, {"timeout": _COUNT}, 1)
    load(node, vmid)
    if not changes.is_running(node, vmid):
        raise Die(f"VM {vmid} not running\n\nVM {vmid} not running", 2)
    return _task(node, "qmreboot", vmid, lambda: guests.reboot(node, vmid, patience(options)))


def _reset(node: Node, argv: Sequence[str]) -> int:
    vmid, _, _ = _read("reset", argv, {"skiplock": _FLAG}, 1)
    return _task(node, "qmreset", vmid, lambda: guests.reset(node, vmid))


def _suspend(node: Node, argv: Sequence[str]) -> int:
    vmid, _, options = _read("suspend", argv, {"todisk": _FLAG, "skiplock": _FLAG, "statestorage": _TEXT}, 1)
    if options.get("todisk") == "1":
        guests.suspend(node, vmid, True)
        raise NotCovered("qm suspend --todisk")
    return _task(node, "qmsuspend", vmid, lambda: guests.suspend(node, vmid, False))


def _resume(node: Node, argv: Sequence[str]) -> int:
    vmid, _, _ = _read("resume", argv, {"nocheck": _FLAG, "skiplock": _FLAG}, 1)
    return _task(node, "qmresume", vmid, lambda: guests.resume(node, vmid))


def _wait(node: Node, argv: Sequence[str]) -> int:
    vmid, _, _ = _read("wait", argv, {"timeout": _COUNT}, 1)
    if changes.is_running(node, vmid):
        raise Die(f"VM {vmid} is still running" if vmid in vmids(node) else "no such VM")
    return 0


# -- the guest's inside ---------------------------------------------------------------------------


def _agent(node: Node, argv: Sequence[str]) -> int:
    vmid, words, _ = _read("agent", argv, {}, 2, "", " <command>")
    result = agent.command(node, vmid, words.words[1])
    if result:
        node.out.append(pretty(result))
    return 0


def _exec(node: Node, argv: Sequence[str]) -> int:
    table = {"timeout": _COUNT, "synchronous": _FLAG, "pass-stdin": _FLAG}
    usage = "qm guest exec <vmid> [<extra-args>] [OPTIONS]"
    words = split(argv, table, usage)
    if not words.words:
        raise Die(f"400 not enough arguments\n{usage}")
    program = [*words.words[1:], *words.rest]
    vmid, _, options = _read("guest exec", [words.words[0]], table, 1)
    options |= params(words, table, usage)
    if options.get("synchronous", "1") == "1":
        node.out.append(pretty(agent.execute(node, vmid, program, int(options.get("timeout", agent.EXEC_SECONDS)))))
    else:
        node.out.append(pretty({"pid": agent.exec_start(node, vmid, program)}))
    return 0


def _exec_status(node: Node, argv: Sequence[str]) -> int:
    vmid, words, _ = _read("guest exec-status", argv, {}, 2, "", " <pid>")
    node.out.append(pretty(agent.exec_status(node, vmid, words.words[1])))
    return 0


_COMMANDS: dict[str, Callable[[Node, Sequence[str]], int]] = {
    "agent": _agent,
    "config": _config,
    "create": _create,
    "destroy": _destroy,
    "disk resize": _resize,
    "guest cmd": _agent,
    "guest exec": _exec,
    "guest exec-status": _exec_status,
    "list": _list,
    "pending": _pending,
    "reboot": _reboot,
    "reset": _reset,
    "resume": _resume,
    "set": _set,
    "showcmd": _showcmd,
    "shutdown": _shutdown,
    "start": _start,
    "status": _status,
    "stop": _stop,
    "suspend": _suspend,
    "unlock": _unlock,
    "wait": _wait,
}
