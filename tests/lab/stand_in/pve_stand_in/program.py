"""One program under the names of Proxmox' own: `qm`, `pvesh`, `pveversion`, `pvesm`, `ha-manager`, and `start-guests`.

1. First the node learns which guests have ended by themselves, as qmeventd would have told it.
2. What changes something works under one lock; what only looks does not wait. A child of a locked call (a hookscript's
   `qm`) does not lock again.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sys
from collections.abc import Iterator, Sequence

from pve_passthrough.host.simulated.pve import PROGRAMS, answer, changes, guests, qm
from pve_passthrough.host.simulated.pve.config import load, vmids
from pve_passthrough.host.simulated.pve.node import Die, Node, node_of

from .machinery import Qemu, alive
from .world import RealWorld

_LOCK = "/run/lock/pve-stand-in"
_LOCKED = "PVE_STAND_IN_LOCKED"
_LOOKING = {"list", "config", "pending", "status", "showcmd", "wait", "guest", "agent", "get", "ls", "path", "", "help"}
"""First words of calls that change nothing."""


def main(argv: Sequence[str]) -> int:
    """`argv[0]` tells which program is meant; the exit code."""
    name, words = os.path.basename(argv[0]), list(argv[1:])
    node = node_of(RealWorld())
    node.machinery = Qemu()
    looking = name == "pveversion" or (words[0] if words else "") in _LOOKING
    with contextlib.nullcontext() if looking and name != "start-guests" else _locked():
        _sweep(node)
        ran = answer(_start_guests if name == "start-guests" else PROGRAMS[name], node, words)
    sys.stdout.write(ran.stdout)
    sys.stderr.write(ran.stderr)
    return ran.rc if 0 <= ran.rc < 256 else 255


def _sweep(node: Node) -> None:
    """Guests whose QEMU has ended without being asked: what `qm cleanup` does for them."""
    started = {int(vmid) for vmid in node.state().get("running", {})}
    for vmid in sorted(started | {vmid for vmid in vmids(node) if changes.is_running(node, vmid)}):
        if not alive(node, vmid):
            guests.ended(node, vmid)


def _start_guests(node: Node, argv: Sequence[str]) -> int:
    """What pve-guests.service does at the end of a start: every guest with `onboot: 1`, lowest id first."""
    for vmid in vmids(node):
        if load(node, vmid).active.get("onboot") != "1" or changes.is_running(node, vmid):
            continue
        node.say(f"Starting VM {vmid}")
        try:
            if qm.run(node, ["start", str(vmid)]):
                node.say(f"Starting VM {vmid} failed")
        except Die as died:
            node.say(f"Starting VM {vmid} failed: {died.text}")
    return 0


@contextlib.contextmanager
def _locked() -> Iterator[None]:
    if os.environ.get(_LOCKED):
        yield
        return
    os.makedirs(os.path.dirname(_LOCK), exist_ok=True)
    with open(_LOCK, "w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        os.environ[_LOCKED] = "1"
        yield
