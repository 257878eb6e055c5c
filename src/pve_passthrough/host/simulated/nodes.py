"""Device nodes: what devtmpfs and udev make in /dev of graphics cards, compute drivers and USB serial adapters.

1. A node is there while a driver holds its device, and no longer (drivers/base/devtmpfs.c). In the tree it is an empty
   file; `stat` says what it would be.
2. /sys/dev/char/MAJOR:MINOR leads to the device's directory (Documentation/ABI/testing/sysfs-dev). NVIDIA's own module
   registers no devices there; /proc/driver/nvidia/gpus tells its cards, and major 195 is its own
   (Documentation/admin-guide/devices.txt).
3. Owners and modes are those of Debian's udev (50-udev-default.rules): cards root:video, render nodes, kfd and accel
   root:render, serial lines root:dialout, all 0660. The number of `render` is given out when udev is installed.
4. AMD's compute node is one for all cards of amdgpu. /dev/nvidia-uvm comes with its module, which nothing loads.
"""

from __future__ import annotations

import posixpath
import re
import shutil
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from ..base import Ran
from .world import World

GROUPS = {"root": 0, "dialout": 20, "video": 44, "render": 993}
_DISPLAY_ONLY = frozenset({"ast", "mgag200", "vfio-pci"})
"""Drivers without DRIVER_RENDER (drivers/gpu/drm/ast, mgag200)."""
_CGROUPS = "/sys/fs/cgroup/lxc"
_UVM_MAJOR, _KFD_MAJOR = 511, 234
"""Given out when the module loads; these are what a recent host has."""


@dataclass(frozen=True, slots=True)
class Node:
    """home: the device's directory in sysfs, empty where the kernel knows none · links: names that udev adds"""

    path: str
    major: int
    minor: int
    group: str
    home: str = ""
    mode: int = 0o660
    links: tuple[str, ...] = ()


def present(world: World) -> dict[str, Node]:
    """All nodes that are there now, by path."""
    found = [*_graphics(world), *_kfd(world), *_nvidia(world), *_serial(world)]
    return {node.path: node for node in found}


def settle(world: World, fresh: bool = False) -> None:
    """Bring /dev and /sys/dev/char into step with the drivers. `fresh`: the machine has just started."""
    if fresh:
        shutil.rmtree(world.tree.real(_CGROUPS), ignore_errors=True)
        world.make_dir("/sys/fs/cgroup")
    now, before = present(world), set(_there(world))
    kfd = next((node for node in now.values() if node.path == "/dev/kfd"), None)
    if kfd is not None and not world.exists(f"{kfd.home}/dev"):
        world.put(f"{kfd.home}/dev", f"{kfd.major}:{kfd.minor}\n")
    for path in before - set(now):
        world.put(path, None)
    for path in set(now) - before:
        world.put(path, "")
    _links(world, "/sys/dev/char", {f"{one.major}:{one.minor}": one.home for one in now.values() if one.home})
    for folder in ("/dev/dri/by-path", "/dev/serial/by-id"):
        names = {
            link.rpartition("/")[2]: one.path for one in now.values() for link in one.links if link.startswith(folder)
        }
        _links(world, folder, names)


def _links(world: World, folder: str, wanted: dict[str, str]) -> None:
    """The folder holds exactly these links; a folder that would be empty is not made."""
    for name in set(world.names(folder)) - set(wanted):
        world.put_link(f"{folder}/{name}", None)
    for name, target in wanted.items():
        text = posixpath.relpath(target, folder)
        if world.link(f"{folder}/{name}") != text:
            world.put_link(f"{folder}/{name}", text)


def _there(world: World) -> Iterator[str]:
    yield from (f"/dev/dri/{name}" for name in world.names("/dev/dri") if name != "by-path")
    yield from (
        f"/dev/{name}" for name in world.names("/dev") if re.fullmatch(r"kfd|nvidia.*|ttyUSB\d+|ttyACM\d+", name)
    )


def _graphics(world: World) -> Iterator[Node]:
    for name in world.names("/sys/class/drm"):
        match = re.fullmatch(r"(card|renderD)(\d+)", name)
        number = re.fullmatch(r"(\d+):(\d+)", (world.text(f"/sys/class/drm/{name}/dev") or "").strip())
        if match and number:
            home = _home(world, f"/sys/class/drm/{name}")
            address = next(
                (part for part in reversed(home.split("/")) if re.fullmatch(r"[0-9a-f:]{10,14}\.\d", part)), ""
            )
            kind = {"card": "card", "renderD": "render"}[match.group(1)]
            links = (f"/dev/dri/by-path/pci-{address}-{kind}",) if address else ()
            group = {"card": "video", "renderD": "render"}[match.group(1)]
            yield Node(f"/dev/dri/{name}", int(number.group(1)), int(number.group(2)), group, home, links=links)


def _home(world: World, path: str) -> str:
    link = world.link(path)
    return path if link is None else posixpath.normpath(f"{path.rpartition('/')[0]}/{link}")


def _bound(world: World, driver: str) -> list[str]:
    return [name for name in world.names(f"/sys/bus/pci/drivers/{driver}") if re.fullmatch(r"[0-9a-f:]+\.\d", name)]


def _kfd(world: World) -> Iterator[Node]:
    if any((world.attribute(address, "class") or "").startswith("0x03") for address in _bound(world, "amdgpu")):
        yield Node("/dev/kfd", _KFD_MAJOR, 0, "render", "/sys/devices/virtual/kfd/kfd")


def _nvidia(world: World) -> Iterator[Node]:
    cards = [one for one in _bound(world, "nvidia") if (world.attribute(one, "class") or "").startswith("0x03")]
    for minor, _ in enumerate(cards):
        yield Node(f"/dev/nvidia{minor}", 195, minor, "root", mode=0o666)
    if cards:
        yield Node("/dev/nvidiactl", 195, 255, "root", mode=0o666)
        yield Node("/dev/nvidia-modeset", 195, 254, "root", mode=0o666)
    loaded = {line.split()[0] for line in (world.text("/proc/modules") or "").splitlines() if line.strip()}
    if cards and "nvidia_uvm" in loaded:
        yield Node("/dev/nvidia-uvm", _UVM_MAJOR, 0, "root", mode=0o666)
        yield Node("/dev/nvidia-uvm-tools", _UVM_MAJOR, 1, "root", mode=0o666)


def _serial(world: World) -> Iterator[Node]:
    """Lines of USB serial adapters: INTERFACE/ttyUSB0/tty/ttyUSB0."""
    for name in world.names("/sys/bus/usb/devices"):
        interface = f"/sys/bus/usb/devices/{name}"
        for home in _terminals(world, interface) if ":" in name else ():
            port = posixpath.basename(home)
            number = re.fullmatch(r"(\d+):(\d+)", (world.text(f"{home}/dev") or "").strip())
            if number:
                device = f"/sys/bus/usb/devices/{name.partition(':')[0]}"
                words = [(world.text(f"{device}/{key}") or "").strip() for key in ("manufacturer", "product", "serial")]
                called = "_".join(re.sub(r"[^A-Za-z0-9]+", "_", word) for word in words if word)
                link = f"/dev/serial/by-id/usb-{called}-if00{'-port0' if port.startswith('ttyUSB') else ''}"
                yield Node(f"/dev/{port}", int(number.group(1)), int(number.group(2)), "dialout", home, links=(link,))


def _terminals(world: World, interface: str) -> list[str]:
    home = _home(world, interface)
    found = [f"{home}/{one}/tty/{one}" for one in world.names(interface) if one.startswith("ttyUSB")]
    return found + [f"{home}/tty/{one}" for one in world.names(f"{interface}/tty") if one.startswith("ttyACM")]


# -- stat ------------------------------------------------------------------------------------


def stat(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`stat -L -c FORMAT -- PATH...` (coreutils); other forms are not simulated."""
    words = list(argv[1:])
    if words[:2] != ["-L", "-c"] or "--" not in words:
        return Ran(1, "", "stat: only `stat -L -c FORMAT -- FILE...` is simulated\n")
    form, paths = words[2], words[words.index("--") + 1 :]
    said, wrong, nodes = "", "", present(world)
    for path in paths:
        values = stated(world, path, nodes)
        if values is None:
            wrong += f"stat: cannot statx '{path}': No such file or directory\n"
        else:
            said += formatted(form, values | {"n": path}) + "\n"
    return Ran(1 if wrong else 0, said, wrong)


def formatted(form: str, values: dict[str, str]) -> str:
    return re.sub(r"%([a-zA-Z])", lambda match: values.get(match.group(1), "?"), form)


def node_at(world: World, path: str, nodes: dict[str, Node]) -> Node | None:
    """The node that a path leads to, links followed."""
    real = world.tree.real(path)
    return nodes.get(real.removeprefix(world.directory)) if real.startswith(world.directory) else None


def stated(world: World, path: str, nodes: dict[str, Node]) -> dict[str, str] | None:
    """stat's letters for a path; None: there is nothing."""
    node = node_at(world, path, nodes)
    if node is not None:
        return letters(0x2000 | node.mode, node.major, node.minor, 0, GROUPS[node.group], "root", node.group)
    real = world.tree.real(path)
    if not posixpath.lexists(real):
        return None
    name = real.rpartition("/")[2]
    number = re.fullmatch(r"(\d+):(\d+)", (world.text(f"/sys/class/block/{name}/dev") or "").strip())
    if number and real == f"{world.directory}/dev/{name}":
        return letters(0x61B0, int(number.group(1)), int(number.group(2)), 0, 6, "root", "disk")
    return letters(0x41ED if posixpath.isdir(real) else 0x81A4, 0, 0, 0, 0, "root", "root")


def letters(mode: int, major: int, minor: int, uid: int, gid: int, owner: str, group: str) -> dict[str, str]:
    return {
        "f": f"{mode:x}", "a": f"{mode & 0o7777:o}", "t": f"{major:x}", "T": f"{minor:x}",
        "u": str(uid), "g": str(gid), "U": owner, "G": group,
    }  # fmt: skip


def render_number(card: str) -> int:
    """Minor and number of a card's render node: 128 on (drivers/gpu/drm/drm_drv.c, drm_minor_alloc)."""
    return 128 + int(card.removeprefix("card"))


def has_render_node(driver: str) -> bool:
    return driver not in _DISPLAY_ONLY
