"""How many virtual functions a physical one has, and what it enforces for each: questions that are asked in two places.

1. It only asks. What cannot be answered is a HostError, never a guess.
2. A function that is not there has no virtual functions, and neither has one without the capability.
"""

from __future__ import annotations

import json
from dataclasses import replace

from ..model.sriov import SriovState, VfSettings, parse_links
from .base import Host, Missing, Unreadable, read_text, text_or_none

DEVICES = "/sys/bus/pci/devices"


def state_of(host: Host, address: str) -> SriovState:
    home = f"{DEVICES}/{address}"
    text = text_or_none(host, f"{home}/sriov_numvfs")
    if text is None:
        return SriovState(0)
    if not text.strip().isdecimal():
        raise Unreadable(f"{home}/sriov_numvfs", f"not a number: {text[:20]!a}")
    count = int(text.strip())
    probing = text_or_none(host, f"{home}/sriov_drivers_autoprobe")
    autoprobe = None if probing is None else probing.strip() != "0"
    vfs = links(host, address) if count else ()
    every = tuple(
        replace(vfs[index] if index < len(vfs) else VfSettings(), held=_held(host, home, index))
        for index in range(count)
    )
    return SriovState(count, identity(host, address), autoprobe, every)


def _held(host: Host, home: str, index: int) -> bool:
    """Whether only vfio-pci may have it (Documentation/ABI/testing/sysfs-bus-pci, driver_override)."""
    return (text_or_none(host, f"{home}/virtfn{index}/driver_override") or "").strip() == "vfio-pci"


def identity(host: Host, address: str) -> str:
    """`8086:10c9`, as the kernel says it now."""
    words = (read_text(host, f"{DEVICES}/{address}/{name}").strip().removeprefix("0x") for name in ("vendor", "device"))
    return ":".join(words)


def interface(host: Host, address: str) -> str:
    """Name of the function's network interface; empty when it has none."""
    try:
        return next(iter(host.names(f"{DEVICES}/{address}/net")), "")
    except Missing:
        return ""


def links(host: Host, address: str) -> tuple[VfSettings, ...]:
    """What the physical function enforces for each virtual one; nothing for what is no network card."""
    name = interface(host, address)
    if not name:
        return ()
    argv = ("ip", "-j", "link", "show", "dev", name)
    ran = host.run(argv, timeout=30.0)
    if not ran.ok:
        raise Unreadable(" ".join(argv), ran.stderr.strip() or f"status {ran.rc}")
    try:
        return parse_links(json.loads(ran.stdout))
    except ValueError as error:
        raise Unreadable(" ".join(argv), f"not what ip writes: {error}") from error
