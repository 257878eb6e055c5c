"""What can go wrong, said in four parts.

1. Every failure that reaches a person is a `Failure` with a `Problem`.
2. A `Problem` says the state of the world before it says what to do.
3. An exit code is a promise to scripts; the numbers never change their meaning.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum


class Exit(IntEnum):
    """Exit codes of the program (the contract of the command line)."""

    FINE = 0
    COULD_NOT = 1
    USAGE = 2
    BLOCKED = 3
    PENDING = 4
    REBOOT = 5
    UNDONE = 6
    REFUSED = 7
    LOCKED = 8


@dataclass(frozen=True, slots=True)
class Problem:
    """A failure in four parts.

    ref      stable short name, e.g. `plan.device-gone`; never translated
    message  what happened, the state of the world first
    context  the lines that prove it, in order
    hint     the next thing to do; empty when there is none
    """

    ref: str
    message: str
    context: tuple[str, ...] = ()
    hint: str = ""


class Failure(Exception):
    """Raised with the problem to show and the exit code to leave with."""

    def __init__(
        self,
        ref: str,
        message: str,
        *context: str,
        hint: str = "",
        code: Exit = Exit.COULD_NOT,
    ) -> None:
        super().__init__(message)
        self.problem = Problem(ref, message, context, hint)
        self.code = code
