"""Who shows the console: the framebuffer's function, the firmware's display, or nobody."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.model.facts import Kernel
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.display import probe_display

from .trees import DIRECTORY, Content, Link, Scripted, plant

IGPU, CARD = Address.parse("00:02.0"), Address.parse("01:00.0")
DEVICES = (
    Device(IGPU, class_code=0x030000, boot_vga=False),
    Device(CARD, class_code=0x030000, boot_vga=True),
)
FB_IGPU: dict[str, Content] = {
    "/proc/fb": "0 i915drmfb\n1 nouveaudrmfb\n",
    "/sys/class/graphics/fb0": Link("../../devices/pci0000:00/0000:00:02.0/graphics/fb0"),
}
FB_SIMPLE: dict[str, Content] = {
    "/proc/fb": "0 simpledrmdrmfb\n",
    "/sys/class/graphics/fb0": Link("../../devices/platform/simple-framebuffer.0/graphics/fb0"),
}
FB_NONE: dict[str, Content] = {"/proc/fb": ""}
VGA: dict[str, Content] = {"/sys/class/vtconsole/vtcon0/bind": "1\n", "/sys/class/vtconsole/vtcon0/name": "(S) VGA+\n"}
DUMMY: dict[str, Content] = {
    "/sys/class/vtconsole/vtcon0/bind": "1\n",
    "/sys/class/vtconsole/vtcon0/name": "(S) dummy device\n",
}


@pytest.mark.parametrize(
    ("files", "owner", "framebuffer"),
    [
        (FB_IGPU, IGPU, "i915drmfb"),
        (FB_SIMPLE, CARD, "simpledrmdrmfb"),
        (FB_NONE | VGA, CARD, ""),
        (FB_NONE | DUMMY, None, ""),
        (FB_NONE, None, ""),
        ({}, None, None),
        ({"/sys/class/graphics": DIRECTORY} | DUMMY, None, ""),
        # The name is not known, the owner is.
        ({"/sys/class/graphics/fb0": FB_IGPU["/sys/class/graphics/fb0"]}, IGPU, None),
        # Newer kernels hang the firmware framebuffer below its PCI function.
        (
            {
                "/proc/fb": "0 EFI VGA\n",
                "/sys/class/graphics/fb0": Link("../../devices/pci0000:00/0000:00:02.0/efi-framebuffer.0/graphics/fb0"),
            },
            IGPU,
            "EFI VGA",
        ),
    ],
)
def test_owner(tmp_path: Path, files: dict[str, Content], owner: Address | None, framebuffer: str | None) -> None:
    found = probe_display(Asking(Scripted(plant(tmp_path, files))), DEVICES, Kernel())
    assert (found.console_owner, found.framebuffer) == (owner, framebuffer)


def test_two_cards_without_a_mark_leave_the_owner_open(tmp_path: Path) -> None:
    ask = Asking(Scripted(plant(tmp_path, FB_SIMPLE)))
    unmarked = tuple(Device(device.address, class_code=0x030000) for device in DEVICES)
    assert probe_display(ask, unmarked, Kernel()).console_owner is None
    assert "display.console_owner" in {gap.about for gap in ask.gaps}


def test_the_only_card_is_the_firmwares(tmp_path: Path) -> None:
    ask = Asking(Scripted(plant(tmp_path, FB_SIMPLE)))
    assert probe_display(ask, (Device(CARD, class_code=0x030200),), Kernel()).console_owner == CARD


@pytest.mark.parametrize(
    ("cmdline", "serial"),
    [("quiet console=ttyS0,115200n8", True), ("console=tty0", False), ("xconsole=ttyS0", False), (None, None)],
)
def test_serial_console(tmp_path: Path, cmdline: str | None, serial: bool | None) -> None:
    assert probe_display(Asking(Scripted(tmp_path)), (), Kernel(cmdline=cmdline)).serial_console is serial


def test_monitors(tmp_path: Path) -> None:
    ask = Asking(
        Scripted(
            plant(
                tmp_path,
                {
                    "/sys/class/drm/card0": Link("../../devices/pci0000:00/0000:00:02.0/drm/card0"),
                    "/sys/class/drm/card1": Link("../../devices/pci0000:00/0000:00:01.0/0000:01:00.0/drm/card1"),
                    "/sys/class/drm/card0-HDMI-A-1/status": "disconnected\n",
                    "/sys/class/drm/card1-DP-1/status": "connected\n",
                    "/sys/class/drm/card1-DP-2/status": "connected\n",
                },
            )
        )
    )
    assert probe_display(ask, DEVICES, Kernel()).connected == (CARD,)
