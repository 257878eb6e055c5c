"""What the host itself needs its devices for.

1. Disks and networks are found in modules of their own; here they become uses, one for each function and kind.
2. `uses_known` names what was fully looked at; a kind that is not in it is unknown, however many uses were found.
3. A use of a virtual function is a use of its physical function, too: without it the other one is gone.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from typing import NamedTuple

from ..model.facts import Boot, Display, Pve, UsbUse, Use, UseKind
from ..model.pci import Address, Device
from ..model.usb import UsbDevice
from ..model.vm import Vm
from .asking import Asking
from .disks import Mount, RawDisk, disks
from .network import networks
from .usb import port_on

_REASONS_SHOWN = 4
_DISK_KEY = re.compile(r"(?:scsi|sata|virtio|ide)\d{1,2}")


class Uses(NamedTuple):
    """`known`: which of `disks`, `network`, `console`, `keyboard` are fully known."""

    uses: tuple[Use, ...] = ()
    known: frozenset[str] = frozenset()
    usb: tuple[UsbUse, ...] = ()


def probe_uses(
    ask: Asking,
    devices: Sequence[Device],
    usb: Sequence[UsbDevice],
    display: Display,
    boot: Boot,
    pve: Pve,
    mounted: tuple[Mount, ...] | None,
    guests: Sequence[Vm] = (),
) -> Uses:
    """What the host needs its functions and USB devices for, sorted by place and kind."""
    of_disks, disks_known = disks(ask, mounted, boot, tuple(_raw_disks(guests, pve.node)))
    of_nets, nets_known = networks(ask, pve.node)
    of_keys, keys_known = _keyboards(ask, usb)
    found = [Use(*disk[:4]) for disk in of_disks] + [Use(*net[:4]) for net in of_nets] + _console(display) + of_keys
    known = {
        "disks": disks_known,
        "network": nets_known,
        "console": _console_known(ask, display),
        "keyboard": keys_known,
    }
    on_usb = [UsbUse(port, *disk[1:4]) for disk in of_disks if (port := port_on(disk.path))]
    on_usb += [UsbUse(port, *net[1:4]) for net in of_nets if (port := port_on(net.path))]
    on_usb += [UsbUse(one.port, UseKind.KEYBOARD, one.name or one.id) for one in usb if one.keyboard]
    sure = frozenset(name for name, is_sure in known.items() if is_sure)
    return Uses(_merged(_with_physical(found, devices)), sure, tuple(dict.fromkeys(on_usb)))


def _raw_disks(guests: Iterable[Vm], node: str | None) -> Iterator[RawDisk]:
    """`scsi1: /dev/disk/by-id/…` and its like, of the guests of this node (qm.conf(5): a volume may be a device)."""
    for guest in guests:
        for key, value in guest.config.items() if guest.node == node else ():
            path = value.partition(",")[0].removeprefix("file=")
            if _DISK_KEY.fullmatch(key) and path.startswith("/dev/"):
                yield RawDisk(path, f"{key} of guest {guest.vmid}")


def _console(display: Display) -> list[Use]:
    if display.console_owner is None:
        return []
    what = display.framebuffer or "VGA text"
    return [Use(display.console_owner, UseKind.CONSOLE, f"console ({what})")]


def _console_known(ask: Asking, display: Display) -> bool:
    """Nobody owning the console is an answer only where nothing about it was left open."""
    if display.console_owner is not None:
        return True
    open_questions = {gap.about for gap in ask.gaps}
    return display.framebuffer == "" and "display.console_owner" not in open_questions


def _keyboards(ask: Asking, usb: Sequence[UsbDevice]) -> tuple[list[Use], bool]:
    known = ask.names("/sys/bus/usb/devices") is not None
    found = []
    for device in usb:
        if device.keyboard and device.controller is not None:
            found.append(Use(device.controller, UseKind.KEYBOARD, f"{device.name or device.id} at {device.port}"))
        elif device.keyboard:
            known = False
            ask.gap("uses.keyboard", "its USB controller is not known", device.port)
    return found, known


def _with_physical(uses: Iterable[Use], devices: Sequence[Device]) -> list[Use]:
    physical = {d.address: d.physical_function for d in devices if d.physical_function is not None}
    found = list(uses)
    for use in list(found):
        above = physical.get(use.address)
        if above is not None:
            found.append(Use(above, use.kind, f"{use.detail}, through its virtual function {use.address}", use.vital))
    return found


def _merged(uses: Iterable[Use]) -> tuple[Use, ...]:
    """One use for each function and kind; its detail lists the first few reasons."""
    reasons: dict[tuple[Address, UseKind], dict[str, bool]] = {}
    for use in uses:
        known = reasons.setdefault((use.address, use.kind), {})
        known[use.detail] = known.get(use.detail, False) or use.vital
    order = list(UseKind)
    keys = sorted(reasons, key=lambda key: (key[0], order.index(key[1])))
    return tuple(Use(*key, _listed(reasons[key]), any(reasons[key].values())) for key in keys)


def _listed(details: dict[str, bool]) -> str:
    shown = list(details)[:_REASONS_SHOWN]
    more = len(details) - len(shown)
    return "; ".join(shown) + (f"; {more} more" if more else "")
