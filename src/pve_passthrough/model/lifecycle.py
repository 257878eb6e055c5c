"""What is arranged for guests beyond their start: backup jobs, replication, high availability. Values only.

1. Names follow Proxmox: a job's `mode`, a resource's `state`, `shutdown_policy`.
2. None means that nobody could say; an empty tuple, that there is none.
3. Which guests a job takes is answered here and nowhere else, as vzdump does: a pool's members, else the listed
   numbers, else all but the excluded ones. Source: pve-manager, PVE/VZDump.pm, get_included_guests.
"""

from __future__ import annotations

from .value import dataclass
from .vm import Vm

MODES = ("snapshot", "suspend", "stop")
"""How a running guest is backed up, the least disturbing first. Source: pve-docs, vzdump, Backup Modes."""


@dataclass(frozen=True, slots=True)
class BackupJob:
    """An enabled job.

    name        the job's name in jobs.cfg; a line of the older vzdump.cron: `vzdump.cron:LINE`
    everything  all guests of its nodes but `excluded`; otherwise `vmids`
    mode_from   file that says the mode; empty: nobody says it, and vzdump's default counts
    """

    name: str
    mode: str
    path: str
    vmids: frozenset[int] = frozenset()
    everything: bool = False
    excluded: frozenset[int] = frozenset()
    node: str = ""
    storage: str = ""
    schedule: str = ""
    pool: str = ""
    mode_from: str = ""

    def covers(self, guest: Vm) -> bool:
        if self.node not in ("", guest.node):
            return False
        return guest.vmid not in self.excluded if self.everything else guest.vmid in self.vmids


@dataclass(frozen=True, slots=True)
class Replication:
    """One storage replication job: `vmid`-`number` to node `target`."""

    vmid: int
    number: int
    target: str
    schedule: str = ""
    disabled: bool = False

    def __str__(self) -> str:
        return f"{self.vmid}-{self.number}"


@dataclass(frozen=True, slots=True)
class HaResource:
    """A guest that the HA stack manages. `state`: started, stopped, disabled or ignored."""

    vmid: int
    state: str = "started"
    group: str = ""


@dataclass(frozen=True, slots=True)
class Placement:
    """Nodes that an HA group (until 8.4) or a node affinity rule (since 9.0) gives to its guests.

    strict  the guests run on no other node: `restricted` of a group, `strict` of a rule
    avoids  the nodes are those on which they shall not run (`affinity negative`, proposed for rules in 2026)
    """

    name: str
    nodes: tuple[str, ...]
    strict: bool = False
    vmids: frozenset[int] = frozenset()
    path: str = ""
    avoids: bool = False

    def allows(self, node: str) -> bool:
        """Whether the guests may end up on this node: only what is strict keeps them away."""
        return not self.strict or (node in self.nodes) is not self.avoids


@dataclass(frozen=True, slots=True)
class Lifecycle:
    """All that is arranged in the cluster. `looked`: the files beyond the jobs were read, because a guest of this node
    has devices; otherwise they are None without a gap."""

    jobs: tuple[BackupJob, ...] | None = None
    replications: tuple[Replication, ...] | None = None
    ha: tuple[HaResource, ...] | None = None
    placements: tuple[Placement, ...] | None = None
    shutdown_policy: str | None = None
    """What HA does when a node goes down; `conditional` unless /etc/pve/datacenter.cfg says otherwise."""
    looked: bool = False

    def backups_of(self, guest: Vm) -> tuple[BackupJob, ...]:
        return tuple(job for job in self.jobs or () if job.covers(guest))

    def replications_of(self, guest: Vm) -> tuple[Replication, ...]:
        return tuple(one for one in self.replications or () if one.vmid == guest.vmid)

    def resource_of(self, guest: Vm) -> HaResource | None:
        return next((one for one in self.ha or () if one.vmid == guest.vmid), None)

    def placement_of(self, guest: Vm) -> Placement | None:
        """The rule or group that says where HA may start the guest; None: any node."""
        resource = self.resource_of(guest)
        if resource is None:
            return None
        return next(
            (
                one
                for one in self.placements or ()
                if guest.vmid in one.vmids or (resource.group and one.name == resource.group)
            ),
            None,
        )
