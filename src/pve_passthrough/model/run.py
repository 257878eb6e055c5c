"""A plan happening: the state of a run is a fold over its events.

1. Values only. `phase` is computed from the events and never stored, so the two can never disagree.
2. `TRANSITIONS` is the whole state machine: (phase, event kind) -> phase. A pair that is not in the table is an error,
   not a surprise: `IllegalEvent`.
3. Forward is APPLYING -> (REBOOT ->) VERIFYING -> KEPT. Back is UNDOING -> (UNDO_REBOOT ->) UNDONE.
   From back there is no way forward; STUCK is left only when a person asks for the way back again.
4. RETREATED is the automatic way back and UNDO_ASKED the one that a person chose. The table has no way from the way
   back to RETREATED, so a run retreats by itself at most once.
5. WROTE, REFRESHED and NOTED tell what happened and never change the phase.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import replace
from enum import Enum

from .plan import UNTIL_REBOOT, Plan
from .value import dataclass


class Phase(Enum):
    APPLYING = "applying"
    """Cells are being written and derived things rebuilt."""
    REBOOT = "reboot"
    """All is written; it takes effect at the next boot."""
    VERIFYING = "verifying"
    """All should be true now; the expectations have not been looked at."""
    KEPT = "kept"
    UNDOING = "undoing"
    UNDO_REBOOT = "undo-reboot"
    """All is written back, but the running system was booted with the changes."""
    UNDONE = "undone"
    STUCK = "stuck"
    """Neither way went through; nothing happens until a person asks."""


class Kind(Enum):
    STARTED = "started"
    WROTE = "wrote"
    REFRESHED = "refreshed"
    NOTED = "noted"
    APPLIED = "applied"
    BOOT_NEEDED = "boot-needed"
    BOOTED = "booted"
    VERIFIED = "verified"
    RETREATED = "retreated"
    UNDO_ASKED = "undo-asked"
    RESTORED = "restored"
    STUCK = "stuck"


TRANSITIONS: Mapping[tuple[Phase | None, Kind], Phase] = {
    (None, Kind.STARTED): Phase.APPLYING,
    (Phase.APPLYING, Kind.WROTE): Phase.APPLYING,
    (Phase.APPLYING, Kind.REFRESHED): Phase.APPLYING,
    (Phase.APPLYING, Kind.NOTED): Phase.APPLYING,
    (Phase.APPLYING, Kind.APPLIED): Phase.VERIFYING,
    (Phase.APPLYING, Kind.BOOT_NEEDED): Phase.REBOOT,
    (Phase.APPLYING, Kind.RETREATED): Phase.UNDOING,
    (Phase.APPLYING, Kind.UNDO_ASKED): Phase.UNDOING,
    (Phase.APPLYING, Kind.STUCK): Phase.STUCK,
    (Phase.REBOOT, Kind.BOOTED): Phase.VERIFYING,
    (Phase.REBOOT, Kind.UNDO_ASKED): Phase.UNDOING,
    (Phase.VERIFYING, Kind.VERIFIED): Phase.KEPT,
    (Phase.VERIFYING, Kind.RETREATED): Phase.UNDOING,
    (Phase.VERIFYING, Kind.UNDO_ASKED): Phase.UNDOING,
    (Phase.VERIFYING, Kind.STUCK): Phase.STUCK,
    (Phase.KEPT, Kind.UNDO_ASKED): Phase.UNDOING,
    (Phase.UNDOING, Kind.WROTE): Phase.UNDOING,
    (Phase.UNDOING, Kind.REFRESHED): Phase.UNDOING,
    (Phase.UNDOING, Kind.NOTED): Phase.UNDOING,
    (Phase.UNDOING, Kind.RESTORED): Phase.UNDONE,
    (Phase.UNDOING, Kind.BOOT_NEEDED): Phase.UNDO_REBOOT,
    (Phase.UNDOING, Kind.STUCK): Phase.STUCK,
    (Phase.UNDO_REBOOT, Kind.RESTORED): Phase.UNDONE,
    (Phase.UNDO_REBOOT, Kind.STUCK): Phase.STUCK,
    (Phase.STUCK, Kind.UNDO_ASKED): Phase.UNDOING,
}

ENDED = frozenset({Phase.KEPT, Phase.UNDONE, Phase.STUCK})
"""Nothing happens by itself any more."""


class IllegalEvent(ValueError):
    """An event that cannot follow the events before it."""


@dataclass(frozen=True, slots=True)
class Event:
    """One line of a journal.

    boot_id  the boot during which it happened, as in /proc/sys/kernel/random/boot_id
    time     UTC, `2026-11-21T14:05:01Z`; told to people, never compared
    detail   a cell, a refresh or the words of a problem
    """

    kind: Kind
    boot_id: str
    time: str
    detail: str = ""


def phase_after(events: Iterable[Event]) -> Phase | None:
    """Fold the events; None when there are none. Raises `IllegalEvent`."""
    phase: Phase | None = None
    for event in events:
        following = TRANSITIONS.get((phase, event.kind))
        if following is None:
            raise IllegalEvent(f"'{event.kind.value}' cannot happen in phase '{phase.value if phase else 'none'}'")
        phase = following
    return phase


@dataclass(frozen=True, slots=True)
class Run:
    """A plan and what has happened to it. Has at least one event."""

    plan: Plan
    events: tuple[Event, ...]

    @property
    def id(self) -> str:
        return self.plan.id

    @property
    def phase(self) -> Phase:
        """Raises `IllegalEvent` for events that the table does not allow, or when there are none."""
        phase = phase_after(self.events)
        if phase is None:
            raise IllegalEvent(f"run {self.id} has no events")
        return phase

    @property
    def ended(self) -> bool:
        return self.phase in ENDED

    @property
    def retreats(self) -> int:
        """How often the run turned back by itself: 0 or 1."""
        return sum(event.kind is Kind.RETREATED for event in self.events)

    @property
    def started_boot(self) -> str:
        """The boot in which every change was made; a run never goes forward in a later one."""
        return self.events[0].boot_id

    @property
    def last_boot(self) -> str:
        """The boot of the latest event."""
        return self.events[-1].boot_id

    @property
    def reason(self) -> str:
        """Why the run last turned back or got stuck; empty when it never did."""
        telling = (Kind.RETREATED, Kind.STUCK)
        return next((event.detail for event in reversed(self.events) if event.kind in telling), "")

    def with_event(self, event: Event) -> Run:
        """The same run one event later. Raises `IllegalEvent`."""
        after = replace(self, events=(*self.events, event))
        phase_after(after.events)
        return after

    def way_back(self, boot_id: str) -> Plan:
        """The plan that takes this run back in boot `boot_id`: a reboot has already undone what lives until reboot."""
        back = self.plan.inverse()
        if boot_id == self.started_boot:
            return back
        return replace(back, changes=tuple(change for change in back.changes if change.cell.kind not in UNTIL_REBOOT))
