"""Tasks: what Proxmox runs in a worker, with its log and its end, kept in the machine's state.

1. A task's failure is recorded and handed back; whether a command fails with it is the command's business
   (`qm start` leaves 255, `pvesh create …/status/start` leaves 0: recorded exchanges with PVE 8.4 and 9.2).
2. The newest 50 tasks are kept in state.json under `tasks`, oldest first.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from .node import Die, Node, now

KEPT = 50
LOGS = "/var/log/pve/tasks"


@dataclass(frozen=True, slots=True)
class Ended:
    """A finished task. `error` is None when it went well."""

    upid: str
    error: str | None


def run_task(node: Node, kind: str, ident: str, work: Callable[[], None]) -> Ended:
    """Run `work` as a task of root@pam."""
    start, first = now(), len(node.out)
    error: str | None = None
    with node.task():
        try:
            work()
        except Die as died:
            node.out += [f"{died.log}\n"] if died.log else []
            error = died.text.replace("\n", " ")
    number = int(node.state().get("task_count", 0)) + 1
    pid, pstart = 1000 + number, 100000 + 100 * number
    upid = f"UPID:{node.name}:{pid:08X}:{pstart:08X}:{start:08X}:{kind}:{ident}:root@pam:"
    lines = "".join(node.out[first:]).splitlines()
    lines += ["TASK OK"] if error is None else ["", f"TASK ERROR: {error.strip()}"]
    record: dict[str, Any] = {
        "upid": upid,
        "node": node.name,
        "pid": pid,
        "pstart": pstart,
        "starttime": start,
        "endtime": now(),
        "type": kind,
        "id": ident,
        "user": "root@pam",
        "status": "OK" if error is None else error.strip(),
        "log": lines,
    }
    state = node.state()
    state["task_count"] = number
    state["tasks"] = [*state.get("tasks", []), record][-KEPT:]
    node.world.save_state(state)
    _keep(node, record)
    return Ended(upid, error)


def _keep(node: Node, record: dict[str, Any]) -> None:
    """The files in which Proxmox VE keeps a task: its log, in one of sixteen folders by the last digit of its start,
    and a line of the index (pve-common, PVE/Tools.pm, upid_decode; pve-manager, PVE/API2/Tasks.pm, node_tasks)."""
    folder = f"{record['starttime']:08X}"[-1]
    node.world.put(f"{LOGS}/{folder}/{record['upid']}", "".join(f"{line}\n" for line in record["log"]))
    index = node.world.text(f"{LOGS}/index") or ""
    node.world.put(f"{LOGS}/index", f"{index}{record['upid']} {record['endtime']:08X} {record['status']}\n")


def listed(node: Node, vmid: str | None) -> list[dict[str, Any]]:
    """What GET /nodes/N/tasks gives: newest first."""
    chosen = [task for task in node.state().get("tasks", []) if vmid is None or task["id"] == vmid]
    return [{key: value for key, value in task.items() if key != "log"} for task in reversed(chosen)]


def _task(node: Node, upid: str) -> dict[str, Any]:
    for task in node.state().get("tasks", []):
        if task["upid"] == upid:
            found: dict[str, Any] = task
            return found
    raise Die("no such task")


def status(node: Node, upid: str) -> dict[str, Any]:
    task = _task(node, upid)
    keys = ("id", "node", "pid", "pstart", "starttime", "type", "upid", "user")
    return {**{key: task[key] for key in keys}, "status": "stopped", "exitstatus": task["status"]}


def log(node: Node, upid: str) -> list[dict[str, Any]]:
    return [{"n": index, "t": line} for index, line in enumerate(_task(node, upid)["log"], 1)]
