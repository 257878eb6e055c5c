"""Which function shows the console, and which have a monitor.

1. The console is what the kernel's first framebuffer draws on. A firmware framebuffer (simpledrm, efifb, vesafb)
   belongs to the function that the firmware used: the one with `boot_vga` 1.
2. Without any framebuffer the text console may still be VGA; /sys/class/vtconsole tells.
3. No owner and no gap means: this host has no console on a PCI display.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..model.facts import Display, Kernel
from ..model.pci import Address, Device
from .asking import Asking
from .paths import function_behind, target

_CONNECTOR = re.compile(r"(card\d{1,5})-.{1,64}")
_SERIAL = re.compile(r"console=(?:tty(?:S|AMA|USB)|hvc)\d*(?:,\S*)?")
MOST_CONNECTORS = 1024


def probe_display(ask: Asking, devices: Sequence[Device], kernel: Kernel) -> Display:
    framebuffer = _framebuffer(ask)
    owner = _owner(ask, devices, framebuffer)
    return Display(owner, framebuffer, _serial(kernel), _connected(ask))


def _framebuffer(ask: Asking) -> str | None:
    """Name of fb0; empty when the host has none. /proc/fb has lines `0 i915drmfb`."""
    text = ask.text("/proc/fb", "display.framebuffer")
    for line in (text or "").splitlines():
        number, _, name = line.strip().partition(" ")
        if number == "0":
            return name.strip() or None
    name = ask.trimmed("/sys/class/graphics/fb0/name", "display.framebuffer") or ""
    if name or text is not None:
        return name
    listing = ask.names("/sys/class/graphics", "display.framebuffer")
    if listing is not None and "fb0" not in listing:
        return ""
    ask.gap("display.framebuffer", "neither /proc/fb nor /sys/class/graphics says")
    return None


def _owner(ask: Asking, devices: Sequence[Device], framebuffer: str | None) -> Address | None:
    if framebuffer != "":
        drawn_on = _behind(ask, "/sys/class/graphics/fb0")
        if drawn_on is not None or framebuffer is None:
            return drawn_on
        return _boot_display(ask, devices)
    return _boot_display(ask, devices) if _vga_console(ask) else None


def _behind(ask: Asking, path: str) -> Address | None:
    """The function behind a class directory: from the link itself, or from its `device` link."""
    for link in (path, f"{path}/device"):
        if (address := function_behind(target(ask, link) or "")) is not None:
            return address
    return None


def _boot_display(ask: Asking, devices: Sequence[Device]) -> Address | None:
    """The function whose legacy VGA ranges the firmware used (kernel: Documentation/ABI, boot_vga)."""
    marked = [device for device in devices if device.boot_vga]
    if len(marked) == 1:
        return marked[0].address
    displays = [device for device in devices if device.is_display]
    if not marked and len(displays) == 1:
        return displays[0].address  # the only one that there is
    if displays:
        ask.gap("display.console_owner", "no single function is marked as the firmware's display")
    return None


def _vga_console(ask: Asking) -> bool:
    """Whether the bound text console is VGA hardware; a host without one has the kernel's dummy console."""
    names = ask.names("/sys/class/vtconsole", "display.console_owner")
    if not names:
        ask.gap("display.console_owner", "there is no /sys/class/vtconsole to look into")
        return False
    for name in names[:64]:
        bound = ask.trimmed(f"/sys/class/vtconsole/{name}/bind", "display.console_owner") == "1"
        if bound and "VGA" in (ask.trimmed(f"/sys/class/vtconsole/{name}/name", "display.console_owner") or ""):
            return True
    return False


def _serial(kernel: Kernel) -> bool | None:
    if kernel.cmdline is None:
        return None
    return any(_SERIAL.fullmatch(word) for word in kernel.cmdline.split())


def _connected(ask: Asking) -> tuple[Address, ...]:
    """Functions with a monitor, by DRM: connectors `card0-HDMI-A-1` with status `connected`."""
    names = ask.names("/sys/class/drm", "display.connected")
    if names is None:
        ask.gap("display.connected", "there is no /sys/class/drm to look into")
        return ()
    cards: dict[str, None] = {}
    for name in names[:MOST_CONNECTORS]:
        match = _CONNECTOR.fullmatch(name)
        if match is None or match.group(1) in cards:
            continue
        if ask.trimmed(f"/sys/class/drm/{name}/status", "display.connected") == "connected":
            cards[match.group(1)] = None
    found = {_behind(ask, f"/sys/class/drm/{card}") for card in cards}
    return tuple(sorted(address for address in found if address is not None))
