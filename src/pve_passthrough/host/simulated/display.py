"""Which framebuffer shows the console: /proc/fb and /sys/class/graphics/fb0.

1. The firmware's framebuffer (simpledrm) shows first, unless `initcall_blacklist=sysfb_init` forbids it; the native
   driver of the boot display takes over when it binds. vfio-pci evicts whatever is there from a VGA-class function
   (drivers/vfio/pci: aperture helpers, kernels 6.1 to 6.18). With several displays the driver that registers first has
   fb0, whichever the boot display is (seen in Debian 12); a machine made from a recording says which: `console`.
2. A framebuffer that was evicted, or whose driver let go, does not come back before the next start.
"""

from __future__ import annotations

from .world import DEVICES, World

_LINK = "/sys/class/graphics/fb0"
_SIMPLE = "../../devices/platform/simple-framebuffer.0/graphics/fb0"


def settle(world: World, fresh: bool = False) -> None:
    """Bring the framebuffer into step with the drivers. `fresh`: the machine has just started."""
    machine = world.machine()
    screens = machine.get("screens", {})
    primary = machine.get("console") or _boot_display(world)
    now = world.link(_LINK) if not fresh else _first(world)
    if primary is not None:
        driver = world.driver_of(primary)
        if driver == "vfio-pci":
            now = None
        elif driver and driver == machine.get("natural", {}).get(primary, {}).get("driver") and primary in screens:
            now = f"../../{world.device_directory(primary).removeprefix('/sys/')}/graphics/fb0"
        elif now is not None and now != _SIMPLE:
            now = None
    if world.link(_LINK) != now:
        world.put_link(_LINK, now)
    name = (world.text(f"{_LINK}/name") or "").strip() if now else ""
    shown = f"0 {name}\n" if name else ""
    if world.text("/proc/fb") != shown:
        world.put("/proc/fb", shown)


def _boot_display(world: World) -> str | None:
    return next((address for address in world.addresses() if world.attribute(address, "boot_vga") == "1"), None)


def _first(world: World) -> str | None:
    line = (world.text("/proc/cmdline") or "").split()
    uefi = world.machine().get("firmware", {}).get("uefi", True)
    return _SIMPLE if uefi and "initcall_blacklist=sysfb_init" not in line else None


def concerns(path: str) -> bool:
    """Whether a write to `path` may move a driver."""
    return path.startswith(("/sys/bus/pci/", DEVICES))
