"""USB devices and the controller that each hangs on. Values only.

1. What a quick look leaves out is None; an empty tuple or string means that there is none.
2. A port's name says where it is: `BUS-PORT[.PORT…]`, and `usbN` for the root hub of bus N
   (kernel: drivers/usb/core/usb.c, usb_alloc_dev).
"""

from __future__ import annotations

import re

from .pci import Address
from .value import dataclass

HUB = 0x09
"""Class of a hub (USB 2.0 specification, 11.23.1)."""
SUPER_SPEED = 5000.0
"""Mbit/s from which on a port is a USB 3 port."""

_PORT = re.compile(r"[0-9]{1,4}-[0-9]{1,3}(?:\.[0-9]{1,3}){0,6}")
_ROOT_HUB = re.compile(r"usb[0-9]{1,4}")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def is_port(text: str) -> bool:
    """`1-4.2`: a bus, and the ports on the way (at most five hubs below the root hub: USB 2.0 specification, 4.1.1)."""
    return _PORT.fullmatch(text) is not None


def is_root_hub(text: str) -> bool:
    return _ROOT_HUB.fullmatch(text) is not None


def is_id(text: str) -> bool:
    """`046d:c52b`, lower case."""
    return _ID.fullmatch(text) is not None


def parent_of(port: str) -> str | None:
    """The port of the hub above, `usbN` for a device at a root hub, None for a root hub."""
    if "." in port:
        return port.rpartition(".")[0]
    return None if is_root_hub(port) else f"usb{port.partition('-')[0]}"


def port_order(port: str) -> tuple[tuple[int, ...], str]:
    """Bus, then the ports on the way; the root hub before what hangs on it."""
    numbers = port.removeprefix("usb").replace("-", ".").split(".")
    return tuple(int(number) for number in numbers if number.isdecimal() and len(number) < 6), port


@dataclass(frozen=True, slots=True)
class UsbInterface:
    """One interface of a device. `driver`: the host's, empty: none, None: nobody looked or nobody could say."""

    number: str
    interface_class: int | None
    subclass: int | None
    protocol: int | None
    driver: str | None = None


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One USB device; `port` is the kernel's name, `BUS-PORT[.PORT…]`, or `usbN` for a root hub."""

    port: str
    vendor: int | None
    product: int | None
    device_class: int | None
    name: str
    controller: Address | None
    """The PCI function of its host controller; None when the path did not lead to one."""
    keyboard: bool = False
    """Has an interface of class 03, subclass 01, protocol 01 (HID boot keyboard)."""
    storage: bool = False
    """Has an interface of class 08 (mass storage)."""
    speed: float | None = None
    """Mbit/s."""
    interfaces: tuple[UsbInterface, ...] = ()
    serial: str | None = None
    """The device's own serial number, empty: it has none. None: nobody looked, or nobody could say."""
    ports: int | None = None
    """How many ports a hub has. None: nobody looked, or nobody could say."""
    terminals: tuple[str, ...] | None = None
    """Serial devices that the host made of it: `ttyUSB0`. None: nobody looked."""
    paths: tuple[str, ...] | None = None
    """Stable names of these: `/dev/serial/by-id/…`, then `/dev/serial/by-path/…`. None: nobody looked."""

    @property
    def id(self) -> str:
        vendor = "????" if self.vendor is None else f"{self.vendor:04x}"
        product = "????" if self.product is None else f"{self.product:04x}"
        return f"{vendor}:{product}"

    @property
    def root_hub(self) -> bool:
        return is_root_hub(self.port)

    @property
    def hub(self) -> bool:
        return self.device_class == HUB or self.root_hub

    @property
    def parent(self) -> str | None:
        return parent_of(self.port)

    @property
    def bus(self) -> str:
        return self.port.removeprefix("usb") if self.root_hub else self.port.partition("-")[0]

    @property
    def drivers(self) -> tuple[str, ...]:
        """The host's drivers of its interfaces, each once."""
        return tuple(dict.fromkeys(one.driver for one in self.interfaces if one.driver))

    def __str__(self) -> str:
        return f"{self.name or self.id} ({self.port})"
