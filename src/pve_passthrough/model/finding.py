"""What we think about the facts. Values only."""

from __future__ import annotations

from enum import Enum

from .value import dataclass


class Level(Enum):
    """How bad it is, worst first; UNKNOWN is a level of its own, never folded into FINE."""

    BLOCKS = "blocks"
    HARMS = "harms"
    UNKNOWN = "unknown"
    NOTE = "note"
    FINE = "fine"


class Actor(Enum):
    """Who can mend it."""

    US = "us"
    FIRMWARE = "firmware"
    HARDWARE = "hardware"
    NOBODY = "nobody"


class Safety(Enum):
    """What a fix touches: SAFE our own drop-ins only; ASK boot, guests or shared files; SHOW is printed, never done."""

    SAFE = "safe"
    ASK = "ask"
    SHOW = "show"


@dataclass(frozen=True, slots=True)
class Fix:
    """The way out: `text` for people, `commands` as they would be typed."""

    text: str
    safety: Safety = Safety.SHOW
    commands: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Finding:
    """One rule's opinion about one subject.

    rule      id of the rule, `groups.shared`; its page is `explain RULE`
    subject   what it is about: an address, `vm:100`, a file path, or `host`
    evidence  the lines that prove it, each `where: what`
    hazard    name that `--accept` takes, empty when none; `never` means that nothing accepts it
    """

    rule: str
    level: Level
    subject: str
    message: str
    evidence: tuple[str, ...] = ()
    actor: Actor = Actor.NOBODY
    fix: Fix | None = None
    hazard: str = ""


class Verdict(Enum):
    READY = "ready"
    CHANGES_NEEDED = "changes-needed"
    BLOCKED = "blocked"
    UNKNOWN = "unknown"
