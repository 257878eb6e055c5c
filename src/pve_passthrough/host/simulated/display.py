"""Which framebuffer shows the console: /proc/fb and /sys/class/graphics/fb0.

1. The firmware's framebuffer (simpledrm) shows first, unless `initcall_blacklist=sysfb_init` forbids it; the native
   driver of the boot display takes over when it binds. vfio-pci evicts whatever is there from a VGA-class function
   (drivers/vfio/pci: aperture helpers, kernels 6.1 to 6.18). With several displays the driver that registers first has
   fb0, whichever the boot display is (seen in Debian 12); a machine made from a recording says which: `console`.
2. A firmware framebuffer that was evicted does not come back before the next start: its platform device is unregistered
   (drivers/video/aperture.c, drivers/firmware/sysfb.c). simpledrm alone can be unbound from it, and bound again.
   `state.json` may list under `evicted` functions from which something else evicted it.
3. The text console on framebuffers is registered with the first of them and unregistered with the last
   (drivers/video/fbdev/core/fbcon.c, fbcon_fb_registered and fbcon_fb_unregistered); when it comes it is bound.
4. `machine.json` may list `users`, {unit: [{pid, name, open: [paths]}]}: processes that are there while the unit runs.
   systemd ends them with it (systemd.kill(5)).
"""

from __future__ import annotations

import shutil

from . import nodes
from .world import DEVICES, World

_LINK = "/sys/class/graphics/fb0"
_VGA = "0x0300"
_FIRMWARE = "/sys/bus/platform/devices/simple-framebuffer.0"
_TEXT_CONSOLES = "/sys/devices/virtual/vtconsole"
_SIMPLE = "../../devices/platform/simple-framebuffer.0/graphics/fb0"


def settle(world: World, fresh: bool = False) -> None:
    """Bring the framebuffer into step with the drivers. `fresh`: the machine has just started."""
    machine = world.machine()
    screens = machine.get("screens", {})
    primary = machine.get("console") or _boot_display(world)
    if fresh:
        _firmware_device(world, _first(world) is not None)
    simple = _SIMPLE if world.link(f"{_FIRMWARE}/driver") else None
    now = world.link(_LINK) if not fresh else simple
    now = simple if now in (None, _SIMPLE) else now
    if primary is not None:
        driver = world.driver_of(primary)
        evicted = _evicted(world, primary)
        if evicted:
            now = None
        elif driver and driver == machine.get("natural", {}).get(primary, {}).get("driver") and primary in screens:
            now = f"../../{world.device_directory(primary).removeprefix('/sys/')}/graphics/fb0"
        elif now != _SIMPLE:
            now = None
        if world.exists(_FIRMWARE) and (evicted or now not in (None, _SIMPLE)):
            _firmware_device(world, False)
    if world.link(_LINK) != now:
        world.put_link(_LINK, now)
    name = (world.text(f"{_LINK}/name") or "").strip() if now else ""
    shown = f"0 {name}\n" if name else ""
    if world.text("/proc/fb") != shown:
        world.put("/proc/fb", shown)
    _text_console(world, bool(shown))
    nodes.settle(world, fresh)
    if fresh:
        users(world)


def _text_console(world: World, wanted: bool) -> None:
    for entry in world.names(_TEXT_CONSOLES):
        if "frame buffer device" not in (world.text(f"{_TEXT_CONSOLES}/{entry}/name") or ""):
            continue
        link = f"/sys/class/vtconsole/{entry}"
        if wanted != world.exists(link):
            world.put(f"{_TEXT_CONSOLES}/{entry}/bind", f"{int(wanted)}\n")
            world.put_link(link, f"../../devices/virtual/vtconsole/{entry}" if wanted else None)


def users(world: World) -> None:
    """The processes of units that run, in /proc; those of units that do not run are gone."""
    from . import systemd

    for unit, processes in world.machine().get("users", {}).items():
        runs = systemd.is_active(world, unit)
        for process in processes:
            home = f"/proc/{process['pid']}"
            if not runs:
                shutil.rmtree(world.tree.real(home), ignore_errors=True)
                continue
            world.put(f"{home}/comm", f"{process['name']}\n")
            world.put(f"{home}/cgroup", f"0::/system.slice/{unit}\n")
            for number, path in enumerate(process["open"], 3):
                world.put_link(f"{home}/fd/{number}", path)


def _evicted(world: World, address: str) -> bool:
    """By vfio-pci, which does so for VGA devices (drivers/vfio/pci/vfio_pci_core.c, vfio_pci_vga_init)."""
    taken = world.driver_of(address) == "vfio-pci" and (world.attribute(address, "class") or "").startswith(_VGA)
    return taken or (world.driver_of(address) is None and address in world.state().get("evicted", ()))


def _firmware_device(world: World, wanted: bool) -> None:
    """The platform device of the firmware's framebuffer, with simpledrm on it."""
    home = "/sys/devices/platform/simple-framebuffer.0"
    world.put_link(_FIRMWARE, f"../../../{home.removeprefix('/sys/')}" if wanted else None)
    world.put_link(f"{home}/driver", "../../../bus/platform/drivers/simple-framebuffer" if wanted else None)
    if wanted:
        for name in ("bind", "unbind"):
            world.put(f"/sys/bus/platform/drivers/simple-framebuffer/{name}", "")


def _boot_display(world: World) -> str | None:
    return next((address for address in world.addresses() if world.attribute(address, "boot_vga") == "1"), None)


def _first(world: World) -> str | None:
    line = (world.text("/proc/cmdline") or "").split()
    uefi = world.machine().get("firmware", {}).get("uefi", True)
    return _SIMPLE if uefi and "initcall_blacklist=sysfb_init" not in line else None


def concerns(path: str) -> bool:
    """Whether a write to `path` may move a driver."""
    return path.startswith(("/sys/bus/pci/", "/sys/bus/platform/", DEVICES))
