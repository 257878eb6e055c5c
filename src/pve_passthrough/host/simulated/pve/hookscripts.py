"""Our own hookscript on a simulated node: what it would do is done, without executing anything from the tree.

1. Only a file that is exactly what this program writes counts; of any other nothing is known, and it is passed over.
2. The program that it calls is this very program over this machine (`World.own_program`), whatever path stands in it;
   where nobody has said how that runs, it counts as not installed, and the script says so as the real one does.
3. A script that ours calls in turn is looked at as Proxmox VE would: it must exist and be executable.
4. Words go to the task's log; the exit statuses are those of the real script.
"""

from __future__ import annotations

from ....model.hookscript import Hook, parse
from . import storage
from .node import Die, Node

_STOPS = 7
"""The exit status of our program that stops a start."""


def hook(node: Node, path: str, vmid: int, phase: str) -> str:
    """Empty when the script ended with 0, else what is wrong, in Proxmox VE's words."""
    script = parse(node.world.text(path))
    if script is None:
        return ""
    if phase == "pre-start":
        status = _ours(node, vmid, phase) or _theirs(node, script)
    else:
        status = _theirs(node, script)
        _ours(node, vmid, phase)
    return f"command '{path} {vmid} {phase}' failed: exit code {status}" if status else ""


def _ours(node: Node, vmid: int, phase: str) -> int:
    if node.world.own_program is None:
        node.say(f"pve-passthrough is not installed any more: guest {vmid} goes on ({phase}) without its guard.")
        return 0
    ran = node.world.own_program(("pve-passthrough", "hook", str(vmid), phase))
    for line in (ran.stdout + ran.stderr).splitlines():
        node.say(line)
    if phase == "pre-start" and ran.rc == _STOPS:
        return 1
    if ran.rc:
        node.say(f"pve-passthrough hook {vmid} {phase} ended with status {ran.rc}: guest {vmid} goes on without it.")
    return 0


def _theirs(node: Node, script: Hook) -> int:
    if not script.other:
        return 0
    try:
        storage.check_hookscript(node, script.other)
    except Die as error:
        node.say(error.text)
        return 1
    return 0
