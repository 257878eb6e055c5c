"""How many USB devices a guest takes, and whether a running one takes them at once.

Sources: qemu-server, QemuServer/USB.pm (get_usb_controllers, assert_usb_index_is_useable), QemuServer.pm
(vmconfig_hotplug_pending), QemuServer/Helpers.pm (windows_version).
"""

from __future__ import annotations

import re

from ..model.value import dataclass
from ..model.vm import Vm, parse_options

FEW, MANY = 5, 14
"""usb0 to usb4 for every guest; usb0 to usb13 for one with QEMU's own xHCI controller."""

XHCI_MACHINE = (7, 1)
"""Machine version from which on guests of a modern system get that controller. A guest that is not pinned to a version
has that of the installed QEMU, which is newer in every Proxmox VE 8 and 9."""

_PINNED = re.compile(r"pc-(?:i440fx|q35)-(\d+)\.(\d+)")
_WINDOWS = re.compile(r"win(\d+)")


@dataclass(frozen=True, slots=True)
class Naming:
    """One way in which a usbN entry names a device. `form` as it is written."""

    way: str
    form: str
    follows: str
    breaks: str


NAMINGS: tuple[Naming, ...] = (
    Naming(
        "id", "host=VVVV:PPPP", "the device, to whatever port it is plugged into",
        "a second device of the same kind is plugged in, or the device changes its ID",
    ),
    Naming(
        "port", "host=BUS-PORT", "the socket, whatever is plugged into it",
        "it is plugged into another socket; for USB 2 and USB 3 one socket has two names",
    ),
    Naming(
        "mapping", "mapping=NAME", "the mapping's line for the node; people who are not root may use it",
        "the device is not there when the guest starts: with a mapping it does not start",
    ),
)  # fmt: skip
"""Source: qemu-server, USB.pm; pve-guest-common, Mapping/USB.pm, assert_valid; QEMU: hw/usb/host-libusb.c."""


def naming(way: str) -> Naming:
    return next(one for one in NAMINGS if one.way == way)


def modern(vm: Vm) -> bool:
    """Whether all its USB devices sit on QEMU's xHCI controller: Linux, or Windows 8 and later, on a machine from 7.1
    on. Without `ostype` it is taken for another system."""
    windows = _WINDOWS.fullmatch(vm.value("ostype") or "")
    system = vm.value("ostype") == "l26" or (windows is not None and int(windows.group(1)) > 7)
    kind = parse_options(vm.value("machine") or "", "type").get("type", "")
    pinned = _PINNED.match(kind)
    return system and (pinned is None or (int(pinned.group(1)), int(pinned.group(2))) >= XHCI_MACHINE)


def slots(vm: Vm) -> int:
    return MANY if modern(vm) else FEW


def plugs_at_once(vm: Vm) -> bool:
    """Whether Proxmox VE applies a changed usbN to the guest while it runs; else it waits for the next start."""
    features = vm.config.get("hotplug", "1")
    # parse_hotplug_features: 1 stands for network, disk and usb, 0 for nothing
    return modern(vm) and (features == "1" or "usb" in re.split(r"[\s,;]+", features))
