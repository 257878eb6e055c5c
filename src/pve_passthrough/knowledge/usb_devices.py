"""USB devices that do not stay what they are, and host drivers that tell what a device is for. Rows with a source each.

1. A device in no row is not called stable: its ID is used because nothing speaks against it.
2. Nothing is matched by name; names come from the device.
"""

from __future__ import annotations

from ..model.usb import UsbDevice
from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class Changeling:
    """A device that leaves the bus and comes back as another one.

    ids      what it is known as; any of them may be seen on the host
    changes  what happens, in words
    """

    family: str
    ids: tuple[str, ...]
    changes: str
    source: str


CHANGELINGS: tuple[Changeling, ...] = (
    Changeling(
        "Google Coral USB Accelerator", ("1a6e:089a", "18d1:9302"),
        "it is 1a6e:089a until the first program uses it, then it loads its firmware and comes back as 18d1:9302",
        "blakeblackshear/frigate issue 1807; google-coral/edgetpu issue 782",
    ),
    Changeling(
        "Intel Neural Compute Stick 2", ("03e7:2485",),
        "a program loads its firmware, and it comes back with another product number until the program ends",
        "openvinotoolkit/openvino issues 2933 and 346",
    ),
    Changeling(
        "Huawei modem with a mode switch", ("12d1:1f01", "12d1:14dc"),
        "it is a CD-ROM (12d1:1f01) until usb_modeswitch makes a modem of it (12d1:14dc)",
        "clearlinux/distribution issue 1513",
    ),
)  # fmt: skip

SERIAL_DRIVERS = frozenset({"ftdi_sio", "cp210x", "ch341", "pl2303", "cdc_acm"})
"""Host drivers that make a serial device (kernel: drivers/usb/serial; drivers/usb/class/cdc-acm.c)."""

_CLASSES: dict[int, str] = {
    0x01: "audio", 0x02: "communication", 0x03: "input", 0x06: "camera", 0x07: "printer", 0x08: "storage", 0x09: "hub",
    0x0B: "smart card", 0x0D: "security", 0x0E: "video", 0xE0: "radio",
}  # fmt: skip
"""Base classes: usb.org, Defined Class Codes (usb.ids, section C)."""


def changeling(identity: str) -> Changeling | None:
    return next((row for row in CHANGELINGS if identity in row.ids), None)


def kinds(device: UsbDevice) -> tuple[str, ...]:
    """What its interfaces are for, in words, each once: `keyboard`, `input`, `storage`, `serial`, …"""
    found: dict[str, None] = {"keyboard": None} if device.keyboard else {}
    if is_serial(device):
        found["serial"] = None
    for interface in device.interfaces:
        word = _CLASSES.get(interface.interface_class or 0)
        if word is not None and not (word == "communication" and "serial" in found):
            found[word] = None
    return tuple(found)


def is_serial(device: UsbDevice) -> bool:
    """Whether the host makes a serial device of it, as far as anybody looked."""
    return bool(device.terminals) or not SERIAL_DRIVERS.isdisjoint(device.drivers)
