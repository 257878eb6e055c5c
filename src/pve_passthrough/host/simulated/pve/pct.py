"""`pct`: containers on this node, by the words of pve-container's PVE/CLI/pct.pm.

1. One function per command, registered in the literal table at the end; what is not in it is said to be unknown.
2. A start or an end is a task: its failure leaves 255.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence

from . import containers
from .arguments import failed, params, split
from .node import Die, Node, NotCovered
from .schema import Format, Prop
from .tasks import run_task

_FLAG, _COUNT = Prop("boolean"), Prop("integer", minimum=0)


def run(node: Node, argv: Sequence[str]) -> int:
    name, words = (argv[0] if argv else "help"), list(argv[1:])
    if name not in _COMMANDS:
        raise NotCovered(f"pct {name}")
    return _COMMANDS[name](node, words)


def _read(name: str, argv: Sequence[str], table: Format) -> tuple[int, dict[str, str], list[str]]:
    usage = f"pct {name} <vmid> [OPTIONS]"
    words = split(argv, table, usage)
    if not words.words:
        raise Die(f"400 not enough arguments\n{usage}")
    if not re.fullmatch(r"[1-9]\d{2,8}", words.words[0]):
        raise failed({"vmid": "invalid format - value does not look like a valid VM ID\n"}, usage)
    return int(words.words[0]), params(words, table, usage), [*words.words[1:], *words.rest]


def _list(node: Node, argv: Sequence[str]) -> int:
    rows = containers.numbers(node)
    form = "{:<10} {:<10} {:<12} {:<20}"
    if rows:
        node.say(form.format("VMID", "Status", "Lock", "Name"))
    for number in rows:
        values = containers.load(node, number).active
        state = "running" if containers.is_running(node, number) else "stopped"
        node.say(form.format(number, state, values.get("lock", ""), values.get("hostname", f"CT{number}")))
    return 0


def _status(node: Node, argv: Sequence[str]) -> int:
    number, _, _ = _read("status", argv, {"verbose": _FLAG})
    containers.load(node, number)
    node.say(f"status: {'running' if containers.is_running(node, number) else 'stopped'}")
    return 0


def _config(node: Node, argv: Sequence[str]) -> int:
    number, _, _ = _read("config", argv, {"current": _FLAG})
    container = containers.load(node, number)
    values = container.shown()
    for key in sorted(values):
        node.say(f"{key}: {values[key]}")
    for line in container.raw:
        node.say(line)
    return 0


def _set(node: Node, argv: Sequence[str]) -> int:
    number, values, _ = _read("set", argv, containers.table(node.major))
    containers.update(node, number, values, "pct set <vmid> [OPTIONS]")
    return 0


def _task(node: Node, kind: str, number: int, work: Callable[[], None]) -> int:
    ended = run_task(node, kind, str(number), work)
    if ended.error is None:
        return 0
    node.err.append(f"{ended.error}\n")
    return 255


def _start(node: Node, argv: Sequence[str]) -> int:
    number, _, _ = _read("start", argv, {"skiplock": _FLAG, "debug": _FLAG})
    return _task(node, "vzstart", number, lambda: containers.start(node, number))


def _stop(node: Node, argv: Sequence[str]) -> int:
    number, _, _ = _read("stop", argv, {"skiplock": _FLAG, "timeout": _COUNT, "forceStop": _FLAG})
    return _task(node, "vzstop", number, lambda: containers.stop(node, number))


def _reboot(node: Node, argv: Sequence[str]) -> int:
    number, _, _ = _read("reboot", argv, {"timeout": _COUNT})

    def work() -> None:
        containers.stop(node, number)
        containers.start(node, number)

    return _task(node, "vzreboot", number, work)


def _exec(node: Node, argv: Sequence[str]) -> int:
    if len(argv) < 2 or not re.fullmatch(r"[1-9]\d{2,8}", argv[0]):
        raise Die("400 not enough arguments\npct exec <vmid> [<extra-args>]")
    program = [word for number, word in enumerate(argv[1:]) if number or word != "--"]
    return containers.execute(node, int(argv[0]), program)


_COMMANDS: dict[str, Callable[[Node, Sequence[str]], int]] = {
    "config": _config,
    "exec": _exec,
    "list": _list,
    "reboot": _reboot,
    "set": _set,
    "shutdown": _stop,
    "start": _start,
    "status": _status,
    "stop": _stop,
}
