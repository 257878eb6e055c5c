"""USB devices, and the PCI function of the host controller that each hangs on, out of sysfs.

1. Root hubs (`usbN`) are devices too: they show which controllers have ports at all. Interfaces are not devices.
2. Names come from the device itself: they are cut to printable text before anybody sees them.
3. What cannot be read is None or a gap.
4. A quick look reads names, numbers, speed and the interfaces' classes; drivers, serial numbers, ports of hubs and
   serial devices only a closer one.
5. Attributes: Documentation/ABI/stable/sysfs-bus-usb and drivers/usb/core/sysfs.c.
"""

from __future__ import annotations

import posixpath
import re
from collections.abc import Mapping
from dataclasses import replace

from ..model.pci import Address
from ..model.usb import UsbDevice, UsbInterface, port_order
from .asking import Asking
from .paths import plain, target

DEVICES = "/sys/bus/usb/devices"

_KEYBOARD = (0x03, 0x01, 0x01)
"""HID, boot interface subclass, keyboard protocol: Device Class Definition for HID 1.11 (usb.org), 4.2 and 4.3."""
_STORAGE = 0x08
_NAME_LIMIT = 120
_MOST_TERMINALS = 256
_TERMINAL = re.compile(r"tty(?:USB|ACM)[0-9]{1,4}")
_DEVICE_ON_THE_WAY = re.compile(r"/([0-9]+-[0-9]+(?:\.[0-9]+)*)(?=/)")


def probe_usb(ask: Asking, *, closely: bool = False) -> tuple[UsbDevice, ...]:
    """All USB devices, by bus and port; empty with a gap when the bus cannot be seen."""
    entries = ask.names(DEVICES, "usb.devices")
    if entries is None:
        ask.gap("usb.devices", "the kernel shows no USB bus", DEVICES)
        return ()
    ports = sorted((entry for entry in entries if ":" not in entry), key=port_order)
    links = {port: ask.link(f"{DEVICES}/{port}", "usb.controller") for port in ports}
    found = (_device(ask, port, entries, _controller(ask, port, links), closely) for port in ports)
    return _with_terminals(ask, tuple(found)) if closely else tuple(found)


def port_on(path: str) -> str:
    """The USB device nearest to the end of a sysfs path: `…/usb1/1-4/1-4.2/1-4.2:1.0/host6/…` gives 1-4.2."""
    return next(reversed(_DEVICE_ON_THE_WAY.findall(f"{path}/")), "")


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


def _device(
    ask: Asking, port: str, entries: tuple[str, ...], controller: Address | None, closely: bool
) -> UsbDevice:  # fmt: skip
    path = f"{DEVICES}/{port}"
    have = ask.names(path, "usb.devices")
    if have is None:
        ask.gap("usb.devices", "the device's directory could not be listed", port)
        return UsbDevice(port, None, None, None, "", controller)
    interfaces = _interfaces(ask, port, have, entries, closely)
    return UsbDevice(
        port,
        _number(ask, path, port, "idVendor", 0xFFFF),
        _number(ask, path, port, "idProduct", 0xFFFF),
        _number(ask, path, port, "bDeviceClass", 0xFF),
        _name(ask, path, have),
        controller,
        keyboard=any((one.interface_class, one.subclass, one.protocol) == _KEYBOARD for one in interfaces),
        storage=any(one.interface_class == _STORAGE for one in interfaces),
        speed=_speed(ask, path, have),
        interfaces=interfaces,
        serial=_serial(ask, path, have) if closely else None,
        ports=_ports(ask, path, have) if closely else None,
    )


def _interfaces(
    ask: Asking, port: str, inside: tuple[str, ...], beside: tuple[str, ...], closely: bool
) -> tuple[UsbInterface, ...]:
    """Each interface `PORT:CONFIG.INTERFACE`, which lies in its device's directory and is linked beside it. A root
    hub's interface is a hub; nobody asks for it."""
    paths = {name: f"{DEVICES}/{name}" for name in beside if name.startswith(f"{port}:")}
    paths |= {name: f"{DEVICES}/{port}/{name}" for name in inside if name.startswith(f"{port}:")}
    return tuple(
        UsbInterface(
            name.partition(":")[2],
            _number(ask, path, name, "bInterfaceClass", 0xFF),
            _number(ask, path, name, "bInterfaceSubClass", 0xFF),
            _number(ask, path, name, "bInterfaceProtocol", 0xFF),
            _driver(ask, path) if closely else None,
        )
        for name, path in sorted(paths.items())
    )


def _driver(ask: Asking, path: str) -> str:
    return posixpath.basename(ask.link(f"{path}/driver", "usb.driver") or "")


def _speed(ask: Asking, path: str, have: tuple[str, ...]) -> float | None:
    """Mbit/s as the kernel writes it: 1.5, 12, 480, 5000, 10000, 20000; `unknown` while it is not known."""
    text = ask.text(f"{path}/speed", "usb.speed") if "speed" in have else None
    try:
        speed = float((text or "").strip())
    except ValueError:
        return None
    return speed if 0 < speed < 1e6 else None


def _serial(ask: Asking, path: str, have: tuple[str, ...]) -> str:
    return _printable(ask.text(f"{path}/serial", "usb.serial") or "")[:_NAME_LIMIT] if "serial" in have else ""


def _ports(ask: Asking, path: str, have: tuple[str, ...]) -> int | None:
    text = (ask.text(f"{path}/maxchild", "usb.maxchild") or "").strip() if "maxchild" in have else ""
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 4 else None


# -- serial devices ------------------------------------------------------------------------------


def _with_terminals(ask: Asking, devices: tuple[UsbDevice, ...]) -> tuple[UsbDevice, ...]:
    """Which serial devices hang on which port, by the path of /sys/class/tty, and their stable names.

    udev makes the stable names (60-serial.rules): by-id from maker, product and serial number, by-path from the port.
    """
    names = [name for name in ask.names("/sys/class/tty", "usb.terminals") or () if _TERMINAL.fullmatch(name)]
    on: dict[str, list[str]] = {}
    for name in names[:_MOST_TERMINALS]:
        on.setdefault(port_on(target(ask, f"/sys/class/tty/{name}") or ""), []).append(name)
    stable = _stable_names(ask) if on else {}
    return tuple(_with(one, tuple(on.get(one.port, ())), stable) for one in devices)


def _stable_names(ask: Asking) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for kind in ("by-id", "by-path"):
        for name in (ask.names(f"/dev/serial/{kind}") or ())[:_MOST_TERMINALS]:
            if plain(name) and name.isprintable():
                node = posixpath.basename(target(ask, f"/dev/serial/{kind}/{name}") or "")
                found.setdefault(node, []).append(f"/dev/serial/{kind}/{name}")
    return found


def _with(device: UsbDevice, terminals: tuple[str, ...], stable: Mapping[str, list[str]]) -> UsbDevice:
    paths = tuple(path for name in terminals for path in stable.get(name, ()))
    return replace(device, terminals=terminals, paths=paths)


# -- values --------------------------------------------------------------------------------------


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
