"""A simulated Proxmox VE 8.4 or 9.2: `qm`, `pct`, `pvesh`, `pveversion`, `pvesm`, `ha-manager` over a `World`.

1. What it accepts, refuses, stores and says is what the real one did in recorded exchanges; tests replay all of them.
   What it does not know it refuses ("the simulated Proxmox does not know: …"); it never makes up an answer.
2. Everything that Proxmox keeps in files lies in the tree: /etc/pve (guests under nodes/NODE/qemu-server, mapping, ha,
   jobs.cfg, storage.cfg), /run/qemu-server (ID.pid of a running guest, pci-id-reservations). Tasks and what a guest was
   started with are in state.json (`tasks`, `running`); volumes are rows of /sim/volumes.json.
3. The node is named by /etc/hostname. Files of machine.json that count here:
   pve           {"version": "9.2.11", "repoid": …, "qemu": "11.0.0", "qemu_machine": "11.0+pve2"}; 8.x selects PVE 8
   pve_readonly  true: every write to /etc/pve is refused with EACCES
   quorate       false: the same, and no guest starts ("cluster not ready - no quorum?")
   faults        "bind:ADDRESS", "unbind:ADDRESS", "reset:ADDRESS" (the kernel refuses), "qemu:ID" (QEMU ends with 1),
                 "modprobe:vfio-pci" (there is no such module)
   guests        the inside of guests, see `agent` and `guests`
   containers    the inside of containers, see `containers`
4. Hookscripts are never executed: a tree may come from strangers. That they exist and are executable is still asked,
   and one that is exactly ours has its effect (`hookscripts`).
5. The same programs work in earnest where `answer` gets a node with a `Machinery` over a world that is a real machine.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from ...base import Ran
from ..world import World
from . import pct, programs, pvesh, qm
from .node import Die, Node, node_of

_Program = Callable[[Node, Sequence[str]], int]


PROGRAMS: dict[str, _Program] = {
    "ha-manager": programs.ha_manager,
    "pct": pct.run,
    "pvesh": pvesh.run,
    "pvesm": programs.pvesm,
    "pveversion": programs.pveversion,
    "qm": qm.run,
}
"""Program name → function(node, its arguments), giving the exit code or raising `Die`."""


def answer(program: _Program, node: Node, argv: Sequence[str]) -> Ran:
    """Run a program with its arguments on a node; what it said and its exit code."""
    try:
        rc = program(node, argv)
    except Die as died:
        rc = died.rc
        node.out += [f"{died.log}\n"] if died.log else []
        node.err.append(f"{died.text}\n")
    return Ran(rc, "".join(node.out), "".join(node.err))


def _command(program: _Program) -> Callable[[World, Sequence[str], bytes], Ran]:
    return lambda world, argv, stdin: answer(program, node_of(world), argv[1:])


COMMANDS: dict[str, Callable[[World, Sequence[str], bytes], Ran]] = {
    name: _command(program) for name, program in PROGRAMS.items()
}
"""Program name → function(world, argv with the program's name first, stdin) → what it said."""
