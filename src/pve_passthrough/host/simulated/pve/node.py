"""One command at work on a simulated Proxmox node: who it is, what it says, how it fails, what it may write.

1. Every failure is a `Die` with Proxmox' own words and the exit code that Proxmox leaves.
2. /etc/pve is written through `write` alone, which knows the conditions under which pmxcfs refuses.
3. What is said goes to stdout (`say`) or stderr (`warn`); inside a task both go to stdout, as a task's log does.
"""

from __future__ import annotations

import errno
import hashlib
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Protocol

from ..world import World

if TYPE_CHECKING:
    from .config import Config
    from .passthrough import Entry

DEFAULT_VERSIONS = {"version": "9.2.11", "repoid": "14a22df35955d97d", "qemu_server": "9.2.6"}
"""What a node is when machine.json does not say: the newer of the two recorded ones."""


class Die(Exception):
    """What Perl's die() leaves: words for stderr and an exit code.

    `log` holds lines that a failing task has also put into its log, which the command prints on stdout.
    """

    def __init__(self, text: str, rc: int = 255, log: str = "") -> None:
        super().__init__(text)
        self.text = text
        self.rc = rc
        self.log = log


class NotCovered(Die):
    """Real Proxmox could do this and the simulation cannot: said in plain words, never answered with a guess."""

    def __init__(self, what: str) -> None:
        super().__init__(f"the simulated Proxmox does not know: {what}")


class Machinery(Protocol):
    """What runs guests in earnest, where there is more than a simulation. Every method raises `Die` in PVE's words."""

    def start(self, node: Node, config: Config, found: Sequence[Entry]) -> int:
        """Start QEMU over the prepared devices; its process id. /run/qemu-server/ID.pid is there afterwards."""

    def end(self, node: Node, vmid: int) -> None:
        """The guest's QEMU is gone when this returns."""

    def power_button(self, node: Node, vmid: int, through_agent: bool, seconds: int) -> bool:
        """Ask the guest to end, by its agent or by ACPI; whether it was gone in time."""

    def reset(self, node: Node, vmid: int) -> None:
        """Press the reset button."""

    def pause(self, node: Node, vmid: int, paused: bool) -> None:
        """Stop or continue the guest's processors."""

    def plug(self, node: Node, config: Config, key: str) -> None:
        """The device of the entry usbN comes into the running guest, in place of what was there under that name."""

    def unplug(self, node: Node, config: Config, key: str) -> None:
        """The device of usbN leaves the running guest; `config` has the entry no more."""

    def hook(self, node: Node, path: str, vmid: int, phase: str) -> str:
        """Run a hookscript; empty when it ended with 0, else what is wrong with it."""

    def answers(self, node: Node, vmid: int) -> bool:
        """Whether the guest's agent answers a ping."""

    def ask(self, node: Node, vmid: int, command: str, arguments: dict[str, Any]) -> Any:
        """One command of the agent's own protocol; its `return`."""


@dataclass(slots=True)
class Node:
    """The node of a world, and the text that the running command has said so far."""

    world: World
    machine: dict[str, Any]
    name: str
    version: str
    major: int
    out: list[str] = field(default_factory=list)
    err: list[str] = field(default_factory=list)
    in_task: bool = False
    machinery: Machinery | None = None
    """None: nothing runs anywhere, starts and answers are simulated."""

    def say(self, line: str) -> None:
        self.out.append(f"{line}\n")

    def warn(self, line: str) -> None:
        (self.out if self.in_task else self.err).append(f"{line}\n")

    def state(self) -> dict[str, Any]:
        return self.world.state()

    def fault(self, name: str) -> bool:
        return name in self.machine.get("faults", ())

    def guest(self, vmid: int) -> dict[str, Any]:
        """What machine.json says about the inside of a guest."""
        found: dict[str, Any] = self.machine.get("guests", {}).get(str(vmid), {})
        return found

    def write(self, path: str, text: str | None) -> None:
        """Replace or remove a file of the cluster file system; it refuses as pmxcfs does."""
        self.require_writable(path)
        self.world.put(path, text)

    def require_writable(self, path: str) -> None:
        """pmxcfs answers EACCES to every write when there is no quorum, and its files are then mode 0444
        (Proxmox VE administration guide, chapter on pmxcfs: without quorum the file system is read-only).
        The words and the exit code are those of a failed open; no recording holds this case."""
        if self.machine.get("pve_readonly") or self.machine.get("quorate") is False:
            raise Die(f"unable to open file '{path}.tmp.{os.getpid()}' - {os.strerror(errno.EACCES)}", errno.EACCES)

    def require_quorum(self) -> None:
        """What is asked before a guest starts, in the words of Proxmox' cluster check; no recording holds this case."""
        if self.machine.get("quorate") is False:
            raise Die("cluster not ready - no quorum?")

    @contextmanager
    def task(self) -> Iterator[None]:
        before, self.in_task = self.in_task, True
        try:
            yield
        finally:
            self.in_task = before


def node_of(world: World) -> Node:
    machine = world.machine()
    pve = {**DEFAULT_VERSIONS, **machine.get("pve", {})}
    version = str(pve["version"])
    name = (world.text("/etc/hostname") or "pve").strip().partition(".")[0]
    return Node(world, machine, name, version, int(version.partition(".")[0]))


def versions(node: Node) -> dict[str, str]:
    """`release`, `repoid` and `version` as /version gives them."""
    pve = {**DEFAULT_VERSIONS, **node.machine.get("pve", {})}
    release = ".".join(node.version.split(".")[:2])
    return {"release": release, "repoid": str(pve["repoid"]), "version": node.version}


def sha1(text: str) -> str:
    """Proxmox' digest of a file."""
    return hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def now() -> int:
    return int(time.time())
