"""USB devices of a simulated machine: root hubs, hubs, devices, what their drivers make of them. As sysfs shows it.

1. One bus per number before the hyphen; a bus with a SuperSpeed device is a USB 3 bus (kernel: drivers/usb/core/hcd.c).
2. A device's directory lies in that of the hub above; its interfaces lie in its own, and all are linked on the bus.
3. A serial driver's terminal comes with the device; its node and stable name follow from it (`nodes`).
4. Attributes: Documentation/ABI/stable/sysfs-bus-usb; numbers as the kernel prints them (drivers/usb/core/sysfs.c).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from .spec import UsbSpec
from .world import World

DEVICES = "/sys/bus/usb/devices"
_SUPER = 5000.0
_PORTS = {False: 16, True: 10}
"""Ports of the root hubs of Intel's chipset controllers, as `lsusb -t` lists them there; USB 2, USB 3."""


def bus_of(port: str) -> str:
    return port.partition("-")[0]


def home(controller: str, port: str) -> str:
    """Directory of the device at `port` below the controller's directory: …/usb1/1-4/1-4.2."""
    bus, _, ports = port.partition("-")
    numbers = ports.split(".")
    steps = [f"{bus}-{'.'.join(numbers[: count + 1])}" for count in range(len(numbers))]
    return "/".join((controller, f"usb{bus}", *steps))


def lay_down(world: World, devices: Sequence[UsbSpec], places: dict[str, str]) -> None:
    """`places`: directory of each controller."""
    for number, usb in enumerate(devices):
        controller = places[usb.controller]
        fast = any(bus_of(one.port) == bus_of(usb.port) and float(one.speed) >= _SUPER for one in devices)
        root_hub(world, controller, bus_of(usb.port), fast)
        put_device(world, controller, usb, number + 2)


def root_hub(world: World, controller: str, bus: str, fast: bool) -> None:
    hub = UsbSpec(
        f"{bus}-0", "", "1d6b:0003" if fast else "1d6b:0002", "xHCI Host Controller", ((9, 0, 0),),
        "10000" if fast else "480", hub=_PORTS[fast], driver="hub",
    )  # fmt: skip
    _put(world, f"{controller}/usb{bus}", hub, 1)


def put_device(world: World, controller: str, usb: UsbSpec, number: int) -> None:
    place = home(controller, usb.port)
    _put(world, place, usb, number)
    if usb.terminal:
        major = 166 if usb.terminal.startswith("ttyACM") else 188  # Documentation/admin-guide/devices.txt
        minor = int(usb.terminal.lstrip("tyUSBACM"))
        world.put(f"{_terminal(place, usb)}/dev", f"{major}:{minor}\n")


def _put(world: World, place: str, usb: UsbSpec, number: int) -> None:
    vendor, product = usb.ids.split(":")
    values = {
        "idVendor": vendor,
        "idProduct": product,
        "bDeviceClass": "09" if usb.hub else "00",
        "product": usb.name,
        "speed": usb.speed,
        "busnum": bus_of(usb.port),
        "devnum": str(number),
        "maxchild": str(usb.hub),
    } | ({"serial": usb.serial} if usb.serial else {})
    for key, value in values.items():
        world.put(f"{place}/{key}", f"{value}\n")
    for index, (cls, sub, protocol) in enumerate(usb.interfaces):
        interface = f"{place}/{usb.port}:1.{index}"
        world.put(f"{interface}/bInterfaceClass", f"{cls:02x}\n")
        world.put(f"{interface}/bInterfaceSubClass", f"{sub:02x}\n")
        world.put(f"{interface}/bInterfaceProtocol", f"{protocol:02x}\n")
        if usb.driver:
            up = "../" * (interface.count("/") - 1)
            world.put_link(f"{interface}/driver", f"{up}bus/usb/drivers/{usb.driver}")


def links(usb: UsbSpec, controller: str) -> Iterator[tuple[str, str]]:
    """(path of a link, its text) for the device and its bus: there while a host driver holds the controller."""
    place = home(controller, usb.port)
    bus = bus_of(usb.port)
    yield from _on_the_bus(f"usb{bus}", f"{controller}/usb{bus}")
    yield from _on_the_bus(usb.port, place)
    for number in range(len(usb.interfaces)):
        name = f"{usb.port}:1.{number}"
        yield from _on_the_bus(name, f"{place}/{name}")
    if usb.terminal:
        yield f"/sys/class/tty/{usb.terminal}", f"../../{_terminal(place, usb).removeprefix('/sys/')}"


def _on_the_bus(name: str, place: str) -> Iterator[tuple[str, str]]:
    yield f"{DEVICES}/{name}", f"../../../{place.removeprefix('/sys/')}"


def _terminal(place: str, usb: UsbSpec) -> str:
    """drivers/usb/serial/bus.c and drivers/usb/class/cdc-acm.c: the first has a device of its own in between."""
    own = "" if usb.terminal.startswith("ttyACM") else f"/{usb.terminal}"
    return f"{place}/{usb.port}:1.0{own}/tty/{usb.terminal}"
