"""What was measured of a guest that works but is slow. Values only.

1. `None` means that nobody could measure it, and `silences` says why: unknown is not no.
2. What the guest said is a number, a word of a known set, or cut text; it is never a command.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from .pci import Address
from .value import dataclass


class State(Enum):
    """What a measurement says."""

    SLOW = "slow"
    """This costs speed, and can be changed."""
    NOTE = "note"
    """This may cost speed, or is worth knowing."""
    UNKNOWN = "unknown"
    GOOD = "good"


@dataclass(frozen=True, slots=True)
class Measured:
    """One line of the table.

    measure   id of the row in `knowledge.performance`
    subject   what was measured: an address, or `vm:100`
    here      what it is
    should    what it should be
    change    what to do, empty when there is nothing to do
    reason    why it could not be measured, for `UNKNOWN`
    evidence  where it stands, each `where: what`
    """

    measure: str
    subject: str
    state: State
    here: str = ""
    should: str = ""
    change: str = ""
    commands: tuple[str, ...] = ()
    evidence: tuple[str, ...] = ()
    reason: str = ""


@dataclass(frozen=True, slots=True)
class LinkSample:
    """Speed in GT/s and lanes of one function's link, at one moment."""

    speed: float | None
    width: int | None


@dataclass(frozen=True, slots=True)
class Pages:
    """Where a process has its memory, in bytes.

    nodes    by memory node; None: nobody could say
    huge     in huge pages, transparent ones and reserved ones
    total    all that is resident
    pinned   what devices may reach, and therefore never moves
    swapped  what was swapped out
    """

    nodes: Mapping[int, int] | None = None
    huge: int | None = None
    total: int | None = None
    pinned: int | None = None
    swapped: int | None = None


@dataclass(frozen=True, slots=True)
class Gpu:
    """A graphics card as its own driver in the guest sees it.

    id        `10de:2206`; empty when the driver did not say
    use, encoder   busy, in per cent
    sessions  encoding at the moment
    state     `P0` (fastest) to `P15`
    brakes    why the card holds its clocks down, in the driver's words
    window    bytes of its memory that a processor can reach at once, `memory` all of it
    link      generation and lanes that the driver sees
    """

    id: str
    source: str
    use: int | None = None
    encoder: int | None = None
    sessions: int | None = None
    state: str = ""
    brakes: tuple[str, ...] = ()
    window: int | None = None
    memory: int | None = None
    profile: str = ""


@dataclass(frozen=True, slots=True)
class Inside:
    """What the guest said about itself at one moment.

    system   `linux` or `windows`
    steal    (waiting for a processor of the host, all) in ticks since its start
    engines  nanoseconds of work by engine, of programs that run now (kernel: drm-usage-stats)
    msi      by `10de:2206` whether Windows lets the device use message interrupts; None: it does not say
    vbs      whether Windows runs under its own hypervisor
    plan     GUID of Windows' power plan
    """

    system: str
    flags: frozenset[str] | None = None
    model: str = ""
    clock: str = ""
    steal: tuple[int, int] | None = None
    engines: Mapping[str, int] | None = None
    gpus: tuple[Gpu, ...] | None = None
    msi: Mapping[str, bool | None] | None = None
    vbs: bool | None = None
    plan: str = ""
    silences: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Samples:
    """All that was measured over `seconds`.

    links       what each function's link did, in order of time
    power       each function's power state, in order of time
    interrupts  by function the kinds that vfio has set up (`msi`, `msix`, `intx`) and how often each came in all
    waiting     share of the time, 0 to 1, that the guest's processors waited for one of the host, by thread
    allowed     processors of the host on which the guest may run
    efficient  the host's small processors, where it has two kinds; None: nobody could say, empty: there are none
    governors   by governor the driver that has it
    drivers     (`10de:2206`, driver, problem) of each device as the guest lists it; None: it did not
    inside      the guest's answers in order of time; empty: it gave none, `silence` says why
    """

    running: bool | None
    seconds: float = 0.0
    links: Mapping[Address, tuple[LinkSample, ...]] = field(default_factory=dict)
    power: Mapping[Address, tuple[str, ...]] = field(default_factory=dict)
    interrupts: Mapping[Address, Mapping[str, int]] | None = None
    waiting: Mapping[str, float] | None = None
    allowed: frozenset[int] | None = None
    pages: Pages = Pages()
    efficient: frozenset[int] | None = None
    governors: Mapping[str, str] | None = None
    drivers: tuple[tuple[str, str, str], ...] | None = None
    aspm: str = ""
    split_locks: int | None = None
    inside: tuple[Inside, ...] = ()
    silence: str = ""
    silences: Mapping[str, str] = field(default_factory=dict)
