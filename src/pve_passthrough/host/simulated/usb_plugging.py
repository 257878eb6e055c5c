"""USB devices come and go while the simulated machine runs.

1. Pulling a plug takes the device, what hangs on it, and every link that leads to it; nobody is asked.
2. What was pulled is kept in machine.json under `unplugged` and can be plugged in again, into another port, too.
3. A port is that of a hub that is there and has that many ports. Source: kernel, drivers/usb/core/hub.c.
4. QEMU loses the device at that moment and takes it again when one that its entry names appears
   (QEMU: hw/usb/host-libusb.c, usb_host_nodev and usb_host_auto_check): that follows from the tree by itself.
"""

from __future__ import annotations

import os
import posixpath
import re
from typing import Any

from ...errors import Exit, Failure
from ...model.usb import is_id, is_port, parent_of
from . import display, usb_tree
from .spec import UsbSpec
from .world import World

_DEVICES = usb_tree.DEVICES


def unplug(world: World, port: str) -> None:
    """Pull the plug at `port`. Raises Failure."""
    _check_port(port)
    place = _place(world, port)
    if place is None:
        raise _refusal(f"nothing is plugged into port {port}")
    machine = world.machine()
    taken: dict[str, str] = {}
    for drivers in machine.get("classes", {}).values():
        for links in drivers.values():
            for path in [path for path, text in links.items() if _leads(path, text, port)]:
                taken[path] = links.pop(path)
    for path in taken:
        world.put_link(path, None)
    kept = f"/sim/unplugged/{port}"
    if world.exists(kept):
        raise _refusal(f"a device that was pulled from port {port} still lies there; plug it in first")
    world.make_dir("/sim/unplugged")
    os.rename(world.tree.real(place), world.tree.real(kept))
    machine.setdefault("unplugged", {})[port] = {
        "links": taken,
        "place": place,
        "controller": _controller(world, place),
    }
    world.save_machine(machine)
    world.forget_places()
    display.settle(world)


def plug(world: World, port: str, *, pulled: str = "") -> None:
    """Plug in again what was pulled from `pulled` (default: from this port). Raises Failure."""
    _check_port(port)
    old = pulled or port
    machine = world.machine()
    record: dict[str, Any] | None = machine.get("unplugged", {}).get(old)
    if record is None:
        raise _refusal(f"nothing was pulled from port {old}; a new device needs --id")
    controller = _free_port(world, port)
    place = usb_tree.home(controller, port)
    del machine["unplugged"][old]
    os.rename(world.tree.real(f"/sim/unplugged/{old}"), world.tree.real(place))
    _rename(world.tree.real(place), old, port)
    world.put(f"{place}/busnum", f"{usb_tree.bus_of(port)}\n")
    was, pattern = record["place"], re.compile(rf"(?<![0-9.]){re.escape(old)}(?=[:.]|$)")
    links = {}
    for path, text in record["links"].items():
        moved = text.replace(was.removeprefix("/sys/"), place.removeprefix("/sys/"))
        head, _, tail = moved.partition(place.removeprefix("/sys/"))
        links[pattern.sub(port, path)] = head + place.removeprefix("/sys/") + pattern.sub(port, tail) if tail else moved
    _put_links(world, machine, _address(controller), links)


def plug_new(world: World, port: str, ids: str, name: str, *, speed: str = "480") -> None:
    """Plug in a device that was not there before. Raises Failure."""
    _check_port(port)
    if not is_id(ids):
        raise _refusal(f"{ids!r} is no vendor:product")
    controller = _free_port(world, port)
    usb = UsbSpec(port, _address(controller), ids, name, ((0xFF, 0, 0),), speed)
    usb_tree.put_device(world, controller, usb, 2 + len(world.names(_DEVICES)))
    _put_links(world, world.machine(), usb.controller, dict(usb_tree.links(usb, controller)))


def become(world: World, port: str, ids: str) -> None:
    """The device leaves the bus and comes back as another one in the same port, as when it loads its firmware."""
    _check_port(port)
    place = _place(world, port)
    if place is None or not is_id(ids):
        raise _refusal(f"nothing is plugged into port {port}" if place is None else f"{ids!r} is no vendor:product")
    vendor, product = ids.split(":")
    world.put(f"{place}/idVendor", f"{vendor}\n")
    world.put(f"{place}/idProduct", f"{product}\n")
    number = int((world.text(f"{place}/devnum") or "1").strip())
    world.put(f"{place}/devnum", f"{number + 1}\n")


# -- ports and places ----------------------------------------------------------------------------


def _refusal(reason: str) -> Failure:
    return Failure("sim.usb", f"Nothing was changed: {reason}.", code=Exit.USAGE)


def _check_port(port: str) -> None:
    if not is_port(port):
        raise _refusal(f"{port!r} is no port of a hub, such as 1-4 or 1-4.2")


def _place(world: World, port: str) -> str | None:
    """The device's directory; None: nothing is plugged in there."""
    text = world.link(f"{_DEVICES}/{port}")
    return None if text is None else posixpath.normpath(f"{_DEVICES}/{text}")


def _free_port(world: World, port: str) -> str:
    """Directory of the controller whose hub has this port, and has it free."""
    above = _place(world, parent_of(port) or "")
    if above is None:
        raise _refusal(f"there is no {parent_of(port)}, so there is no port {port}")
    ports = (world.text(f"{above}/maxchild") or "0").strip()
    number = int(port.replace("-", ".").rpartition(".")[2])
    if not 1 <= number <= int(ports):
        raise _refusal(f"{parent_of(port)} has {ports} ports")
    if _place(world, port) is not None:
        raise _refusal(f"port {port} is taken")
    return _controller(world, above)


def _controller(world: World, place: str) -> str:
    return re.split(r"/usb\d+(?:/|$)", place)[0]


def _address(controller: str) -> str:
    return posixpath.basename(controller)


def _leads(path: str, text: str, port: str) -> bool:
    """Whether a link is the device's or leads into it: `1-4`, `1-4:1.0`, `1-4.2`, and what lies below these."""
    name = posixpath.basename(path)
    if path.startswith(_DEVICES) and (name == port or name.startswith((f"{port}:", f"{port}."))):
        return True
    return port in text.split("/")


def _rename(folder: str, old: str, new: str) -> None:
    """Directories below are named after the port, too: `1-4:1.0`, `1-4.2`."""
    for name in os.listdir(folder):
        path = f"{folder}/{name}"
        if os.path.isdir(path) and not os.path.islink(path):
            if old != new and name.startswith((f"{old}:", f"{old}.")):
                os.rename(path, f"{folder}/{new}{name[len(old) :]}")
                path = f"{folder}/{new}{name[len(old) :]}"
            _rename(path, old, new)


def _put_links(world: World, machine: dict[str, Any], address: str, links: dict[str, str]) -> None:
    """They belong to the driver that holds the controller now, and come and go with it."""
    driver = world.driver_of(address)
    machine.setdefault("classes", {}).setdefault(address, {}).setdefault(driver or "", {}).update(links)
    world.save_machine(machine)
    world.forget_places()
    for path, text in links.items():
        world.put_link(path, text)
    display.settle(world)
