"""A plan: named places whose content is text, each with the text it has and the text it shall have.

1. Values only. Diff, apply, verify, undo and replay compare the two columns; nothing else knows how to undo.
2. Invariants are checked when a plan is made: a cell once, `before != after`,
   no until-reboot cell in a plan that reboots.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field, replace

from .finding import Finding
from .identity import Identity
from .value import dataclass
from .wish import Wish

UNTIL_REBOOT = frozenset({"driver", "sysfs", "vmstate"})
"""Kinds of cells whose content a reboot resets."""

READ_ONLY = frozenset({"arg", "bar", "group", "iommu", "node"})
"""Kinds that can be expected but not changed."""

WRITABLE = UNTIL_REBOOT | {"file", "script", "dir", "vm", "unit", "mapping", "pci", "sriov", "dkms", "ct"}


@dataclass(frozen=True, slots=True, order=True)
class Cell:
    """A named place whose content is text, or None when there is nothing.

    file:/PATH            whole content; text is UTF-8 with surrogateescape, so any bytes survive
    script:/PATH          the same, executable (mode 0755)
    dir:/PATH             `directory`
    driver:ADDRESS        driver name, empty text: none
    sysfs:/PATH           trimmed content
    vm:VMID/KEY           option string as Proxmox stores it
    ct:NUMBER/devN        entry of a container, as Proxmox stores it
    vmstate:VMID          `running` or `stopped`
    unit:NAME             `enabled` or `disabled`
    mapping:KIND/NAME     canonical entry
    pci:ADDRESS/ATTRIBUTE kernel attribute of a function that a udev rule of ours sets again at every boot
    sriov:ADDRESS         virtual functions of a physical one and their settings; a unit of ours makes them at boot
    dkms:NAME/VERSION     `added`, `built` or `installed` for the running kernel; None: DKMS does not know it
    arg:NAME              read only: the running kernel's argument, `NAME=VALUE` or `NAME`
    bar:ADDRESS/N         read only: size of BAR N, as `256M` or `8G`
    group:ADDRESS         read only: IOMMU group number
    iommu:                read only: `on` or `off`
    node:/dev/PATH        read only: address of the PCI function behind a device node
    """

    kind: str
    name: str

    @classmethod
    def parse(cls, text: str) -> Cell:
        kind, colon, name = text.partition(":")
        if not colon or kind not in WRITABLE | READ_ONLY:
            raise ValueError(f"not a cell: {text!r}")
        return cls(kind, name)

    def __str__(self) -> str:
        return f"{self.kind}:{self.name}"


@dataclass(frozen=True, slots=True)
class Change:
    """One cell, the text that it has and the text that it shall have; None: nothing there."""

    cell: Cell
    before: str | None
    after: str | None
    why: str


def binary(text: str | None) -> str:
    """What stands for a cell's content when it is no text (it has a NUL): size and SHA-256. Empty for text."""
    if text is None or "\0" not in text:
        return ""
    import hashlib  # costs start-up time, and hardly a plan has such a file

    data = text.encode("utf-8", "surrogateescape")
    return f"(binary, {len(data)} bytes, SHA-256 {hashlib.sha256(data).hexdigest()})"


@dataclass(frozen=True, slots=True)
class Expectation:
    """Read-only proof wanted after the changes (and after the reboot, if there is one)."""

    cell: Cell
    text: str | None
    why: str


@dataclass(frozen=True, slots=True)
class Plan:
    """All changes of one run.

    id            short name of the run, unique on the machine: `20261121-140501-gpu-100`
    machine       node name, and the hosts' machine id when known: a plan is for this machine only
    refreshes     names in the table of change.refresh, run once after the changes and again after their undo
    reboot        whether the changes take effect only at the next boot
    irreversible  what no undo brings back, in words; empty in an ordinary plan
    way_home      lines printed before a reboot: which key to press, which words to delete
    """

    id: str
    machine: str
    goal: str
    wishes: tuple[Wish, ...] = ()
    changes: tuple[Change, ...] = ()
    refreshes: tuple[str, ...] = ()
    reboot: bool = False
    expects: tuple[Expectation, ...] = ()
    irreversible: tuple[str, ...] = ()
    risks: tuple[Finding, ...] = ()
    way_home: tuple[str, ...] = ()
    vmid: int | None = None
    devices: Mapping[str, str] = field(default_factory=dict)
    """Address to vendor:device of every function the plan is for: they must still sit there when it is applied."""
    identities: tuple[Identity, ...] = ()
    """What is remembered of these functions, so that they are known again elsewhere; older plans have none."""
    usb: Mapping[str, str] = field(default_factory=dict)
    """Port to vendor:product of every USB device the plan is for: they must still be plugged in when it is applied."""

    def __post_init__(self) -> None:
        cells = [change.cell for change in self.changes]
        if len(set(cells)) != len(cells):
            raise ValueError("a plan names a cell twice")
        for change in self.changes:
            if change.before == change.after:
                raise ValueError(f"{change.cell} would not change")
            if change.cell.kind not in WRITABLE:
                raise ValueError(f"{change.cell} cannot be written")
            if self.reboot and change.cell.kind in UNTIL_REBOOT:
                raise ValueError(f"{change.cell} does not survive the reboot that this plan needs")

    def same_changes(self, other: Plan) -> bool:
        """Whether the other plan changes exactly the same, at the same cost: what was agreed to still stands."""
        mine, others = ({(one.cell, one.before, one.after) for one in plan.changes} for plan in (self, other))
        return mine == others and self.reboot == other.reboot and set(self.refreshes) == set(other.refreshes)

    def inverse(self) -> Plan:
        """The way back: the same cells in the opposite order with their columns exchanged, the same refreshes."""
        back = tuple(
            Change(change.cell, change.after, change.before, f"undo: {change.why}") for change in reversed(self.changes)
        )
        return replace(self, goal=f"take back: {self.goal}", changes=back, expects=(), risks=(), way_home=())
