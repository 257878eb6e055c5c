"""What lspci prints, as values: an independent opinion about the same bytes."""

from __future__ import annotations

import re
from dataclasses import dataclass, field

_ADDRESS = r"((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[0-9a-f]{2}\.[0-7])"
_WORDS = re.compile(_ADDRESS + r" .*?\[([0-9a-f]{4})\]: .*\[([0-9a-f]{4}:[0-9a-f]{4})\]")
_NUMBERS = re.compile(_ADDRESS + r" ([0-9a-f]{4}): ([0-9a-f]{4}:[0-9a-f]{4})")
_REGION = re.compile(r"\s+Region (\d): (?:\[virtual\] )?(Memory|I/O ports) at \S+(.*)\[size=(\d+)([KMGT]?)\]")
_REBAR = re.compile(r"\s+BAR (\d): current size: \S+, supported: (.*)")
_SIZE = re.compile(r"(\d+)([KMGT]?)B?")
_UNITS = {"": 1, "K": 1 << 10, "M": 1 << 20, "G": 1 << 30, "T": 1 << 40}
_ACS_BITS = ("SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans")


@dataclass
class Region:
    size: int
    io: bool
    wide: bool
    prefetchable: bool


@dataclass
class Printed:
    """One function. None: the line was not printed."""

    address: str
    subclass: int
    id: str
    driver: str = ""
    group: int | None = None
    flr: bool | None = None
    af_flr: bool = False
    no_soft_reset: bool | None = None
    acs: int | None = None
    now: tuple[float | None, int] | None = None
    best: tuple[float | None, int] | None = None
    regions: dict[int, Region] = field(default_factory=dict)
    rebar: dict[int, tuple[int, ...]] = field(default_factory=dict)
    names: set[str] = field(default_factory=set)


def read_lspci(text: str) -> dict[str, Printed]:
    """Functions by address with domain. Of `-nn` and `-n` the latter is safer: long names are cut, numbers and all."""
    found: dict[str, Printed] = {}
    current: Printed | None = None
    virtual = False
    for line in text.splitlines():
        head = _NUMBERS.match(line) or _WORDS.match(line)
        if head:
            address = head[1] if head[1].count(":") == 2 else f"0000:{head[1]}"
            current = found[address] = Printed(address, int(head[2], 16), head[3])
            virtual = False
        elif current is not None:
            virtual = "IOVCap" in line or (virtual and not line.startswith("\tCapabilities"))
            if not (virtual and "Region" in line):
                _line(current, line)
    return found


def _line(printed: Printed, line: str) -> None:
    if match := re.match(r"\tKernel driver in use: (\S+)", line):
        printed.driver = match[1]
    elif match := re.match(r"\tIOMMU group: (\d+)", line):
        printed.group = int(match[1])
    elif match := re.search(r"RBE[+-].*FLReset([+-])", line):
        printed.flr = match[1] == "+"
    elif match := re.search(r"AFCap: TP([+-]) FLR([+-])", line):
        printed.af_flr = match[1] + match[2] == "++"
    elif match := re.search(r"NoSoftRst([+-])", line):
        printed.no_soft_reset = match[1] == "+"
    elif "ACSCap:" in line:
        printed.acs = sum(1 << bit for bit, name in enumerate(_ACS_BITS) if f"{name}+" in line)
    elif match := re.search(r"Lnk(Sta|Cap):.*Speed (\S+?)(?:GT/s)?(?: \(\w+\))?, Width x(\d+)", line):
        value = (None if match[2] == "unknown" else float(match[2]), int(match[3]))
        if match[1] == "Sta":
            printed.now = value
        else:
            printed.best = value
    elif match := _REGION.match(line):
        printed.regions[int(match[1])] = Region(
            int(match[4]) * _UNITS[match[5]], match[2] != "Memory", "64-bit" in match[3], " prefetchable" in match[3]
        )
    elif match := _REBAR.match(line):
        printed.rebar[int(match[1])] = tuple(int(size) * _UNITS[unit] for size, unit in _SIZE.findall(match[2]))
    elif match := re.match(r"\tCapabilities: \[[^]]+\] (.*)", line):
        printed.names.add(match[1])
