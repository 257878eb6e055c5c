"""The cell `sriov:ADDRESS`: all virtual functions of a physical function, with what it enforces for each.

1. The kernel changes the number by way of 0 only (drivers/pci/iov.c: else EBUSY), so another number takes every virtual
   function away and makes new ones; the same number leaves them where they are.
2. They are made without drivers, get their settings, and only then their drivers: a driver asks for its hardware
   address once, when it starts (Documentation/ABI/testing/sysfs-bus-pci, sriov_drivers_autoprobe). A held one is let
   go to vfio-pci alone; a driver of the host that has it already keeps it until the next start.
3. A function that is not there, or that is another one now, has no virtual functions of ours; and gets none.
4. Programs are argument vectors. What the kernel refuses is told in the kernel's own words.
"""

from __future__ import annotations

import contextlib
import time

from ..host.base import Host, HostError, text_or_none, to_bytes
from ..host.virtual import DEVICES, interface, state_of
from ..model.pci import Address
from ..model.sriov import SriovState, parse_state, same_state, state_text
from .holders import holders

TRIES = 6
"""A virtual function that was just made may still reset (i40e: EAGAIN), and udev may be renaming the interface."""
PAUSE = 1.0
_PASSING = ("Resource temporarily unavailable", "Cannot find device", "Device or resource busy")
_KEYWORDS = {"mac": "mac", "vlan": "vlan", "trust": "trust", "spoofcheck": "spoofchk", "link": "state"}
"""Our names and those of ip-link(8), `ip link set DEVICE vf NUM …`."""


def read(host: Host, name: str) -> str | None:
    """The cell's text. Raises HostError when nobody could say."""
    return state_text(state_of(host, str(Address.parse(name))))


def same(left: str | None, right: str | None) -> bool:
    if left is None or right is None:
        return left == right
    try:
        return same_state(parse_state(left), parse_state(right))
    except ValueError:
        return left == right


def between(text: str | None, *planned: str | None) -> bool:
    """Whether an interrupted write of ours, or a start before our unit has run, can have left this text.

    planned  the plan's two texts: their numbers are the only ones that are ours; none: any number is taken
    """
    try:
        found = parse_state(text or "")
        numbers = {parse_state(one).count for one in planned if one is not None} | {0}
    except ValueError:
        return False
    return found.count in numbers or not planned


# -- writing -------------------------------------------------------------------------------------


def write(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Make it so. Raises HostError with what the kernel or `ip` said."""
    address = str(Address.parse(name))
    wanted = _parsed(address, after)
    current = state_of(host, address)
    home = f"{DEVICES}/{address}"
    if wanted.count and wanted.id and current.id != wanted.id:
        raise HostError(home, f"{wanted.id} was expected there, and it is {current.id or 'not there'}")
    probing = current.autoprobe if wanted.autoprobe is None else wanted.autoprobe
    if current.count != wanted.count:
        _number(host, address, current.count, wanted.count, quiet=current.autoprobe is not None)
    if wanted.count:
        _settle(host, address, wanted)
    if probing is not None and text_or_none(host, f"{home}/sriov_drivers_autoprobe") is not None:
        host.write(f"{home}/sriov_drivers_autoprobe", b"1\n" if probing else b"0\n")
        if probing and wanted.count:
            _let_bind(host, home)
    return ""


def _parsed(address: str, text: str | None) -> SriovState:
    try:
        return parse_state(text or "")
    except ValueError as error:
        raise HostError(f"sriov:{address}", str(error)) from error


def _number(host: Host, address: str, before: int, after: int, *, quiet: bool) -> None:
    home = f"{DEVICES}/{address}"
    if before:
        _refuse_used(host, home)
        _attribute(host, address, "sriov_numvfs", 0)
    if after and quiet:
        host.write(f"{home}/sriov_drivers_autoprobe", b"0\n")
    if after:
        _attribute(host, address, "sriov_numvfs", after)


def _refuse_used(host: Host, home: str) -> None:
    """Whoever takes away a virtual function that a program has open waits for that program and cannot be stopped
    (drivers/vfio/vfio_main.c, vfio_unregister_group_dev). So this is asked at the last moment, on the way back, too."""
    for name in host.names(home):
        if name.startswith("virtfn") and name[6:].isdecimal():
            virtual = host.link(f"{home}/{name}").rpartition("/")[2]
            for one in holders(host, virtual):
                raise HostError(f"{DEVICES}/{virtual}", f"it is in use: {one}")


def _attribute(host: Host, address: str, name: str, value: int) -> None:
    path = f"{DEVICES}/{address}/{name}"
    try:
        host.write(path, to_bytes(f"{value}\n"))
    except HostError as error:
        told = _kernel_says(host, address)
        raise HostError(path, f"{error.reason}{f'; the kernel says: {told}' if told else ''}") from error


def _kernel_says(host: Host, address: str) -> str:
    """The last lines about this function in the kernel's log: the errno alone does not tell why."""
    with contextlib.suppress(HostError):
        ran = host.run(("dmesg",), timeout=20.0)
        about = [line.partition(f"{address}: ")[2] for line in ran.stdout.splitlines() if f"{address}: " in line]
        return "; ".join(about[-2:])
    return ""


def _settle(host: Host, address: str, wanted: SriovState) -> None:
    """Only what differs is set: a driver may refuse a setting that it has not, even if it asks for nothing new."""
    standing = state_of(host, address).vfs
    for index, one in enumerate(wanted.vfs):
        here = standing[index].named() if index < len(standing) else {}
        for name, word in one.named().items():
            if here.get(name) == word:
                continue
            if name == "held":
                override = f"{DEVICES}/{address}/virtfn{index}/driver_override"
                host.write(override, b"vfio-pci\n" if one.held else b"\n")
            else:
                _set(host, address, index, name, word)


def _set(host: Host, address: str, index: int, name: str, word: str) -> None:
    for left in range(TRIES - 1, -1, -1):
        argv = ("ip", "link", "set", "dev", interface(host, address), "vf", str(index), _KEYWORDS[name], word)
        ran = host.run(argv, timeout=30.0)
        if ran.ok:
            return
        said = ran.stderr.strip() or ran.stdout.strip() or f"status {ran.rc}"
        if not left or not any(words in said for words in _PASSING):
            raise HostError(" ".join(argv), said)
        time.sleep(PAUSE)


def _let_bind(host: Host, home: str) -> None:
    """Drivers for those that have none and are not held. Whether a driver likes them is no matter of this cell."""
    for name in host.names(home):
        if name.startswith("virtfn") and name[6:].isdecimal():
            virtual = host.link(f"{home}/{name}").rpartition("/")[2]
            with contextlib.suppress(HostError):
                if "driver" not in host.names(f"{DEVICES}/{virtual}") and not _is_held(host, f"{home}/{name}"):
                    host.write("/sys/bus/pci/drivers_probe", to_bytes(virtual))


def _is_held(host: Host, home: str) -> bool:
    return (text_or_none(host, f"{home}/driver_override") or "").strip() == "vfio-pci"
