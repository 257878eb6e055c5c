"""The kernel's log of a simulated machine, of this start and of earlier ones: `dmesg` and `journalctl -k`.

1. Lines are what the laws of motion said (`dmesg` in state.json); a start puts those of the one before away, and the
   last three are kept, as a persistent journal would (systemd-journald.service(8); Debian has /var/log/journal).
2. Only the kernel's lines are simulated; a question for anything else is refused in plain words.
3. Source of words and forms: journalctl(1): `-- No entries --`, `-- cursor:`, short-monotonic, and for a boot that is
   not there "Data from the specified boot (-1) is not available: No such boot ID in journal", status 1.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ..base import Ran
from .world import World

KEPT = 3
_PLAIN = frozenset({"-k", "--dmesg", "--no-pager", "-q", "--quiet", "--show-cursor"})
_VALUED = frozenset({"-b", "--boot", "-n", "--lines", "-o", "--output", "--after-cursor"})


def put_away(state: dict[str, Any]) -> list[list[str]]:
    """The logs of earlier starts, with the one that ends now."""
    earlier: list[list[str]] = list(state.get("journal", []))
    return [*earlier, list(state["dmesg"])][-KEPT:] if state.get("dmesg") else earlier


def dmesg(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    return Ran(0, "".join(f"[{_clock(number)}] {line}\n" for number, line in enumerate(world.state().get("dmesg", ()))))


def journalctl(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    words = _read(list(argv[1:]))
    if words is None or not {"-k", "--dmesg"} & words.keys():
        return Ran(1, "", "journalctl: only the kernel's log is simulated\n")
    state = world.state()
    boots = [*state.get("journal", []), list(state.get("dmesg", ()))]
    offset = int(words.get("-b", words.get("--boot", "0")) or 0)
    number = len(boots) - 1 + offset
    if offset > 0 or number < 0:
        return Ran(1, "", f"Data from the specified boot ({offset:+d}) is not available: No such boot ID in journal\n")
    return Ran(0, _shown(world, boots[number], words, f"b={state.get('boots', 0) + offset}"))


def _shown(world: World, lines: list[str], words: dict[str, str], boot: str) -> str:
    node = (world.text("/etc/hostname") or "pve").strip().partition(".")[0]
    after = words.get("--after-cursor", "")
    first = int(after.rpartition("i=")[2]) + 1 if after.startswith(f"{boot};i=") else 0
    count = words.get("-n", words.get("--lines", "all"))
    chosen = list(enumerate(lines))[first:]
    chosen = chosen if count in ("", "all") else chosen[-int(count) :]
    said = "".join(f"[{_clock(at)}] {node} kernel: {line}\n" for at, line in chosen)
    if not chosen:
        said = "" if {"-q", "--quiet"} & words.keys() else "-- No entries --\n"
    if "--show-cursor" in words and lines:
        said += f"-- cursor: {boot};i={len(lines) - 1}\n"
    return said


def _clock(number: int) -> str:
    return f"{number / 1000:12.6f}"


def _read(words: list[str]) -> dict[str, str] | None:
    """Options by name; None for one that is not simulated. `-b` takes a word only when that is a number."""
    found: dict[str, str] = {}
    while words:
        name, equals, value = words.pop(0).partition("=")
        if name in _PLAIN:
            found[name] = ""
        elif name in ("-b", "--boot"):
            found[name] = value if equals else words.pop(0) if words and words[0].lstrip("+-").isdecimal() else "0"
        elif name in _VALUED and (equals or words):
            found[name] = value if equals else words.pop(0)
        else:
            return None
    return found if found.get("-o", found.get("--output", "short-monotonic")) == "short-monotonic" else None
