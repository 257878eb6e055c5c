"""What a diagnosis is made of: materials, what was noticed in them, and the causes that this speaks for. Values only.

1. Whatever was noticed keeps where it stands (source and line) and what it says, so that a person can look it up.
2. Points are logarithms of odds on a scale of our own (see `Point`); they are added up, never multiplied.
3. "Nothing is wrong" and "not enough evidence" are answers like any other.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from .value import dataclass

NO_FAULT = "no-fault"
UNKNOWN = "unknown"


class Kind(Enum):
    """What a text is."""

    KERNEL_LOG = "kernel-log"
    """Of the host, or of a machine that nobody named."""
    GUEST_LOG = "guest-log"
    """Kernel log of a guest."""
    TASK_LOG = "task-log"
    """What Proxmox VE and QEMU said when a guest was started or stopped."""
    JOURNAL = "journal"
    LSPCI = "lspci"
    IOMMU_LISTING = "iommu-listing"
    LSUSB = "lsusb"
    GUEST_CONFIG = "guest-config"
    MAPPING = "mapping"
    CMDLINE = "cmdline"
    GRUB = "grub"
    MODPROBE = "modprobe"
    MODULES = "modules"
    STATEMENTS = "statements"
    """Keys and values that a person wrote down."""
    PROSE = "prose"
    """A person's own words, with or without pasted lines."""
    WINDOWS = "windows"
    BINARY = "binary"


@dataclass(frozen=True, slots=True)
class Point:
    """How much something speaks for a cause (below zero: against it).

    1 faint, 2 suggests it, 4 strong, 6 decides unless something else decides otherwise.
    """

    cause: str
    weight: float


@dataclass(frozen=True, slots=True)
class Observation:
    """One thing that was noticed.

    sign     what it is, an id of the catalogue, or `rule:…` for a finding
    says     its meaning in one sentence
    source   file or log it stands in; `line` counts from 1, None where lines mean nothing
    text     the words themselves, cleaned of prefixes and colours
    device   PCI address in the words, empty when none
    seconds  time in the log, in seconds of its own clock
    count    how often it was noticed in this source
    machine  host name in the line's prefix, empty when none
    """

    sign: str
    says: str
    source: str
    text: str
    points: tuple[Point, ...] = ()
    line: int | None = None
    device: str = ""
    seconds: float | None = None
    count: int = 1
    machine: str = ""
    harmless: bool = False
    follows: tuple[str, ...] = ()
    """Signs of which this is a mere consequence when they were noticed as well; a trailing `*` stands for any rest."""
    side: str = ""
    """Whose log it stands in: `host`, `guest`, empty when nobody knows."""
    boot: int = 0
    """Which start of the machine within this source, from 0; times of different boots cannot be compared."""
    kernel: tuple[int, int] | None = None
    """Kernel (major, minor) that this log says it is of."""
    share: float = 1.0
    """How much of its points count: less for lines of another machine, none for words of another version."""


@dataclass(frozen=True, slots=True)
class Candidate:
    """A cause with all that speaks for and against it. `confidence`: from 0 to 1, of all candidates together 1."""

    cause: str
    confidence: float
    score: float
    supporting: tuple[Observation, ...]
    contradicting: tuple[Observation, ...] = ()
    explains: tuple[Observation, ...] = ()
    """Consequences that need no cause of their own."""


@dataclass(frozen=True, slots=True)
class Diagnosis:
    """Ranked causes, the likeliest first; never empty: `unknown` or `no-fault` stand there when nothing else does."""

    candidates: tuple[Candidate, ...]
    harmless: tuple[Observation, ...] = ()
    """Alarming lines that mean nothing."""
    read: Mapping[str, Kind] = field(default_factory=dict)
    """What each material was taken for."""
    doubts: tuple[str, ...] = ()
    """What could not be read, or was left aside, and why."""

    @property
    def first(self) -> Candidate:
        return self.candidates[0]
