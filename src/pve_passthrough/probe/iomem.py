"""Which addresses the host's root busses decode, out of /proc/iomem.

1. Read in a deep look only, and only once: it is for plans that make a BAR larger.
2. The kernel shows zeros instead of addresses to everybody but root (kernel/resource.c, r_show): that is no answer.
3. A window of a bridge lies inside one of its root bus; only the outermost `PCI Bus` is taken, at whatever depth.
"""

from __future__ import annotations

import re

from ..model.facts import RootWindow
from .asking import Asking

IOMEM = "/proc/iomem"
_LINE = re.compile(r"( *)([0-9a-f]{1,16})-([0-9a-f]{1,16}) : (.*)")
_BUS = re.compile(r"PCI Bus ([0-9a-f]{4,8}):([0-9a-f]{2})")


def probe_root_windows(ask: Asking) -> tuple[RootWindow, ...] | None:
    text = ask.need(IOMEM, "root_windows")
    if text is None:
        return None
    found = parse(text)
    if found and not any(window.end for window in found):
        ask.gap("root_windows", "the kernel shows addresses to root only", IOMEM)
        return None
    return found


def parse(text: str) -> tuple[RootWindow, ...]:
    """The windows in order; lines that the kernel would not write are passed over."""
    found: list[RootWindow] = []
    inside = -1
    for line in text.splitlines():
        match = _LINE.fullmatch(line)
        if match is None:
            continue
        depth = len(match.group(1))
        if 0 <= inside < depth:
            continue
        bus = _BUS.fullmatch(match.group(4))
        inside = depth if bus else -1
        if bus:
            start, end = int(match.group(2), 16), int(match.group(3), 16)
            found.append(RootWindow(int(bus.group(1), 16), int(bus.group(2), 16), start, end))
    return tuple(found)
