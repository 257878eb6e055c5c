"""What shows the host's console, who must be asked before it goes, and where taking it away has gone wrong.

1. Rows with a source each. A framebuffer without a row is judged by where it hangs in sysfs, not by its name.
2. Nothing here says how anything is taken or given back.
"""

from __future__ import annotations

import re

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class Framebuffer:
    """`name` as in /proc/fb. `driver`: who draws it; `firmware`: on memory that the firmware set up, without knowing
    the card, so that it does not come back once a driver of the card, or vfio-pci, has taken its place."""

    name: str
    driver: str
    firmware: bool
    source: str


_DRM = "kernel: drivers/gpu/drm/drm_fb_helper.c names it DRIVERdrmfb"
_SYSFB = "kernel: drivers/firmware/sysfb.c, drivers/video/aperture.c"

FRAMEBUFFERS: tuple[Framebuffer, ...] = (
    Framebuffer("simpledrmdrmfb", "simpledrm", True, f"{_DRM}; drivers/gpu/drm/tiny/simpledrm.c"),
    Framebuffer("efidrmdrmfb", "efidrm", True, f"{_DRM}; drivers/gpu/drm/sysfb/efidrm.c"),
    Framebuffer("vesadrmdrmfb", "vesadrm", True, f"{_DRM}; drivers/gpu/drm/sysfb/vesadrm.c"),
    Framebuffer("simple", "simple-framebuffer", True, f"drivers/video/fbdev/simplefb.c; {_SYSFB}"),
    Framebuffer("EFI VGA", "efi-framebuffer", True, f"drivers/video/fbdev/efifb.c; {_SYSFB}"),
    Framebuffer("VESA VGA", "vesa-framebuffer", True, f"drivers/video/fbdev/vesafb.c; {_SYSFB}"),
    Framebuffer("amdgpudrmfb", "amdgpu", False, _DRM),
    Framebuffer("astdrmfb", "ast", False, _DRM),
    Framebuffer("bochs-drmdrmfb", "bochs-drm", False, _DRM),
    Framebuffer("cirrusdrmfb", "cirrus", False, _DRM),
    Framebuffer("i915drmfb", "i915", False, _DRM),
    Framebuffer("mgag200drmfb", "mgag200", False, _DRM),
    Framebuffer("nouveaudrmfb", "nouveau", False, _DRM),
    Framebuffer("nvidia-drmdrmfb", "nvidia", False, _DRM),
    Framebuffer("radeondrmfb", "radeon", False, _DRM),
    Framebuffer("virtio_gpudrmfb", "virtio_gpu", False, _DRM),
    Framebuffer("xedrmfb", "xe", False, _DRM),
)


def framebuffer(name: str) -> Framebuffer | None:
    """The row of a framebuffer, None when nothing is known about it."""
    return next((row for row in FRAMEBUFFERS if row.name == name), None)


TEXT_CONSOLE = "frame buffer device"
"""How the text console on framebuffers is called in /sys/class/vtconsole/*/name, after `(M) ` or `(S) `. It is
unregistered with the last framebuffer and comes back with the first (kernel: drivers/video/fbdev/core/fbcon.c,
fbcon_fb_unregistered and fbcon_fb_registered)."""

EVICTED_CLASS = 0x0300
"""vfio-pci evicts framebuffers from functions of this class alone (kernel: drivers/vfio/pci/vfio_pci_core.c,
vfio_pci_vga_init calls the aperture helpers for VGA devices only)."""


@dataclass(frozen=True, slots=True)
class Service:
    """A unit that has the card open as long as it runs, and ends politely when it is told to."""

    unit: str
    drivers: tuple[str, ...]
    """Only where one of these drives the card; empty: whichever does."""
    source: str


SERVICES: tuple[Service, ...] = (
    Service("display-manager.service", (), "systemd: the alias of whichever display manager is enabled"),
    Service(
        "nvidia-persistenced.service", ("nvidia",),
        "nvidia-persistenced(1): keeps the driver from releasing a device's state while nobody uses it",
    ),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class Unbinding:
    """What is known about taking a card from this driver while the host runs.

    builds  kernel packages in which it is broken; there it is not tried at all
    """

    driver: str
    says: str
    source: str
    builds: tuple[str, ...] = ()


UNBINDING: tuple[Unbinding, ...] = (
    Unbinding(
        "amdgpu", "amdgpu has crashed the kernel when it let go of a card; if that happens only a restart helps",
        "Proxmox forum, thread 184792; changelogs of the kernels 7.0.14-1 to 7.0.14-4", ("7.0.14-1", "7.0.14-2"),
    ),
    Unbinding(
        "nvidia", "nvidia waits inside the kernel, without end, for whoever still has the card open",
        "NVIDIA's open kernel modules, kernel-open/nvidia/nv-pci.c: waits until the usage count is zero",
    ),
)  # fmt: skip

_BUILD = re.compile(r"(\d+\.\d+\.\d+-\d+)")


def unbinding(driver: str | None) -> Unbinding | None:
    """What is known about letting go of a card, None when nothing is."""
    return next((row for row in UNBINDING if row.driver == driver), None)


def broken_build(driver: str | None, release: str | None) -> Unbinding | None:
    """The row that says that this kernel must not be asked to unbind this driver."""
    row, match = unbinding(driver), _BUILD.match(release or "")
    return row if row is not None and match is not None and match.group(1) in row.builds else None
