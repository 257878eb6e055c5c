"""USB devices, and the PCI function of the host controller that each hangs on, out of sysfs.

1. Root hubs (`usbN`) are devices too: they show which controllers have ports at all. Interfaces are not devices.
2. Names come from the device itself: they are cut to printable text before anybody sees them.
3. What cannot be read is None or a gap.
4. Attributes: Documentation/ABI/stable/sysfs-bus-usb and drivers/usb/core/sysfs.c.
"""

from __future__ import annotations

from ..model.pci import Address
from ..model.usb import UsbDevice
from .asking import Asking

DEVICES = "/sys/bus/usb/devices"

_KEYBOARD = (0x03, 0x01, 0x01)
"""HID, boot interface subclass, keyboard protocol: Device Class Definition for HID 1.11 (usb.org), 4.2 and 4.3."""
_STORAGE = 0x08
_NAME_LIMIT = 120


def probe_usb(ask: Asking) -> tuple[UsbDevice, ...]:
    """All USB devices, by bus and port; empty with a gap when the bus cannot be seen."""
    entries = ask.names(DEVICES, "usb.devices")
    if entries is None:
        ask.gap("usb.devices", "the kernel shows no USB bus", DEVICES)
        return ()
    ports = sorted((entry for entry in entries if ":" not in entry), key=_order)
    links = {port: ask.link(f"{DEVICES}/{port}", "usb.controller") for port in ports}
    return tuple(_device(ask, port, entries, _controller(ask, port, links)) for port in ports)


def _order(port: str) -> tuple[tuple[int, ...], str]:
    """Bus, then the ports on the way; the root hub before what hangs on it."""
    numbers = port.removeprefix("usb").replace("-", ".").split(".")
    return tuple(int(number) for number in numbers if number.isdecimal() and len(number) < 6), port


def _controller(ask: Asking, port: str, links: dict[str, str | None]) -> Address | None:
    """The last PCI function on the way to the device, from its own link or from its root hub's."""
    root_hub = port if port.startswith("usb") else f"usb{port.partition('-')[0]}"
    for text in (links.get(port), links.get(root_hub)):
        if text is None:
            continue
        for part in reversed(text.split("/")):
            address = _address(part)
            if address is not None:
                return address
    ask.gap("usb.controller", "no PCI function is on the way to the device", port)
    return None


def _address(name: str) -> Address | None:
    try:
        return Address.parse(name) if name.count(":") == 2 else None
    except ValueError:
        return None


def _device(ask: Asking, port: str, entries: tuple[str, ...], controller: Address | None) -> UsbDevice:
    path = f"{DEVICES}/{port}"
    have = ask.names(path, "usb.devices")
    if have is None:
        ask.gap("usb.devices", "the device's directory could not be listed", port)
        return UsbDevice(port, None, None, None, "", controller)
    interfaces = _interfaces(ask, port, have, entries)
    return UsbDevice(
        port,
        _number(ask, path, port, "idVendor", 0xFFFF),
        _number(ask, path, port, "idProduct", 0xFFFF),
        _number(ask, path, port, "bDeviceClass", 0xFF),
        _name(ask, path, have),
        controller,
        keyboard=_KEYBOARD in interfaces,
        storage=any(interface[0] == _STORAGE for interface in interfaces),
    )


_Interface = tuple[int | None, int | None, int | None]


def _interfaces(ask: Asking, port: str, inside: tuple[str, ...], beside: tuple[str, ...]) -> set[_Interface]:
    """(class, subclass, protocol) of each interface `PORT:CONFIG.INTERFACE`, which lies in its device's directory and
    is linked beside it. A root hub's interface is a hub; nobody asks for it."""
    paths = {name: f"{DEVICES}/{name}" for name in beside if name.startswith(f"{port}:")}
    paths |= {name: f"{DEVICES}/{port}/{name}" for name in inside if name.startswith(f"{port}:")}
    return {
        (
            _number(ask, path, name, "bInterfaceClass", 0xFF),
            _number(ask, path, name, "bInterfaceSubClass", 0xFF),
            _number(ask, path, name, "bInterfaceProtocol", 0xFF),
        )
        for name, path in paths.items()
    }


def _number(ask: Asking, path: str, place: str, name: str, limit: int) -> int | None:
    """A hexadecimal attribute without prefix: `046d`."""
    text = ask.need(f"{path}/{name}", f"usb.{name}")
    if text is None:
        return None
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if 0 <= number <= limit:
        return number
    ask.gap(f"usb.{name}", f"not a value that the kernel writes: {text[:40]!a}", place)
    return None


def _name(ask: Asking, path: str, have: tuple[str, ...]) -> str:
    """`Manufacturer Product` as the device says, the maker once; empty when it says nothing."""
    maker, product = (
        _printable(ask.text(f"{path}/{name}", "usb.name") or "") if name in have else ""
        for name in ("manufacturer", "product")
    )
    name = product if maker and product.lower().startswith(maker.lower()) else f"{maker} {product}"
    return name.strip()[:_NAME_LIMIT]


def _printable(text: str) -> str:
    return "".join(letter for letter in text.strip() if letter.isprintable())
