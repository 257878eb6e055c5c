"""Who can share a graphics card, by which way, and with which driver.

1. Rows with a source each; a card in no row is unknown, never "cannot".
2. What unlocks cards that their maker does not share is stated where it exists, and never done here.
"""

from __future__ import annotations

from enum import Enum

from ..model.pci import Device
from ..model.value import dataclass
from .compute_cards import INTEL, NVIDIA, compute_card, nvidia_generation

NVIDIA_MODULE = "nvidia_vgpu_vfio"
"""Module of NVIDIA's vGPU manager; the desktop driver has none (NVIDIA vGPU user guide, installing the manager)."""

HELPER = "pve-nvidia-vgpu-helper"
"""Prepares a host for NVIDIA's driver (headers, DKMS, nouveau off); needs pve-manager 8.3.4. Source: its changelog."""
HELPER_SINCE = (8, 3, 4)
SRIOV_UNIT = "pve-nvidia-sriov@ALL.service"
"""Makes the virtual functions of all NVIDIA cards at boot. Source: Proxmox VE wiki, NVIDIA vGPU."""

OWN_WAY_SINCE = (6, 8)
"""From this kernel on NVIDIA's driver gives types to virtual functions by itself, without the kernel's mediated
devices. Source: qemu-server 8.2.5, PCI.pm, create_nvidia_device."""

LICENCE = (
    "NVIDIA vGPU needs a licence for each guest (vApps, vPC, vCS or vWS), from a CLS or DLS licence server, and the "
    "guest a client token and the vGPU guest driver"
)
"""Source: NVIDIA Virtual GPU Client Licensing User Guide. What happens without one is not stated: unverified."""


@dataclass(frozen=True, slots=True)
class VgpuGeneration:
    """What NVIDIA's vGPU software does for a generation of chips.

    releases   first and last release that supports its server cards; last None: still supported
    vf         it is shared through virtual functions (on kernels from 6.8 by NVIDIA's own way)
    unlock     what is reported about desktop cards of this generation; empty: not supported
    """

    name: str
    releases: tuple[int, int | None]
    vf: bool
    unlock: str
    source: str


_MATRIX = "matrix of a community installer for Proxmox VE, v1.84 (2026-08); not NVIDIA's own words"

VGPU_GENERATIONS: tuple[VgpuGeneration, ...] = (
    VgpuGeneration("Maxwell", (16, 16), False, "reported on kernels up to 6.5 only", _MATRIX),
    VgpuGeneration("Pascal", (16, 16), False, "reported on kernels up to 6.5 only", _MATRIX),
    VgpuGeneration("Turing", (16, None), False, "reported with release 17.6 on kernels up to 6.14", _MATRIX),
    VgpuGeneration("Ampere", (16, None), True, "", _MATRIX),
    VgpuGeneration("Ada", (16, None), True, "", _MATRIX),
    VgpuGeneration("Blackwell", (19, None), True, "", _MATRIX),
)

BRANCHES: dict[int, int] = {16: 535, 17: 550, 18: 570, 19: 580, 20: 595}
"""Driver branch of each release of NVIDIA's vGPU software. Source: the same matrix."""

NEW_KERNEL = (7, 0)
NEW_KERNEL_RELEASE = 20
"""Kernels from 7.0 on need release 20 (the same matrix; what it says about 16.14 there contradicts itself)."""


def vgpu_generation(device: Device) -> VgpuGeneration | None:
    """The row of an NVIDIA display's generation."""
    known = nvidia_generation(device.product) if device.vendor == NVIDIA else None
    return next((row for row in VGPU_GENERATIONS if known is not None and row.name == known.name), None)


def releases_for(row: VgpuGeneration, kernel: tuple[int, int] | None) -> tuple[int, ...]:
    """Releases that support these chips on this kernel, oldest first; empty: none that is known."""
    first, last = row.releases
    fit = [one for one in BRANCHES if one >= first and (last is None or one <= last)]
    if kernel is not None and kernel >= NEW_KERNEL:
        fit = [one for one in fit if one >= NEW_KERNEL_RELEASE]
    return tuple(fit)


def branch_of(version: str) -> int | None:
    """535 of `535.230.02`."""
    head = version.partition(".")[0]
    return int(head) if head.isascii() and head.isdecimal() and len(head) < 5 else None


_DESKTOP = ("geforce", "titan")


def desktop_card(device: Device) -> bool:
    """Whether its name says that it is made for desktops; a card without a name is not called one."""
    name = device.name.lower()
    return (
        device.vendor == NVIDIA
        and device.is_display
        and compute_card(device.vendor, device.product) is None
        and any(word in name for word in _DESKTOP)
    )


# -- Intel ---------------------------------------------------------------------------------------


class Igpu(Enum):
    """How Intel's processor graphics can be shared."""

    GVT = "gvt"
    SRIOV = "sriov"
    NEITHER = "neither"


@dataclass(frozen=True, slots=True)
class IgpuRow:
    """Processor graphics of one generation; `blocks` are first and last product number of each block."""

    name: str
    blocks: tuple[tuple[int, int], ...]
    way: Igpu


IGPU_SOURCE = (
    "kernel 6.18: include/drm/intel/pciids.h; drivers/gpu/drm/i915/intel_gvt.c, is_supported_device; "
    "drivers/gpu/drm/xe/xe_pci.c, has_sriov"
)
IGPUS: tuple[IgpuRow, ...] = (
    IgpuRow("Broadwell", ((0x1600, 0x163F),), Igpu.GVT),
    IgpuRow("Skylake", ((0x1900, 0x193F),), Igpu.GVT),
    IgpuRow("Broxton (Apollo Lake)", ((0x0A84, 0x0A84), (0x1A84, 0x1A85), (0x5A84, 0x5A85)), Igpu.GVT),
    IgpuRow("Gemini Lake", ((0x3184, 0x3185),), Igpu.NEITHER),
    IgpuRow("Kaby Lake", ((0x5900, 0x593F), (0x87C0, 0x87C0)), Igpu.GVT),
    IgpuRow(
        "Coffee Lake",
        ((0x3E90, 0x3E9C), (0x3EA0, 0x3EA9), (0x87CA, 0x87CA)),
        Igpu.GVT,
    ),
    IgpuRow("Comet Lake", ((0x9B21, 0x9B21), (0x9B41, 0x9B41), (0x9BA0, 0x9BFF)), Igpu.GVT),
    IgpuRow("Ice Lake", ((0x8A50, 0x8A71),), Igpu.NEITHER),
    IgpuRow("Elkhart and Jasper Lake", ((0x4500, 0x4571), (0x4E51, 0x4E71)), Igpu.NEITHER),
    IgpuRow("Rocket Lake", ((0x4C80, 0x4C9A),), Igpu.NEITHER),
    IgpuRow("Tiger Lake", ((0x9A40, 0x9AF8),), Igpu.SRIOV),
    IgpuRow("Alder and Raptor Lake", ((0x4626, 0x46D4), (0xA720, 0xA7AD)), Igpu.SRIOV),
)

GVT_ARGUMENT = "i915.enable_gvt=1"
GVT_MODULE = "kvmgt"
GVT_SOURCE = "kernel: drivers/gpu/drm/i915/i915_params.c, enable_gvt; drivers/gpu/drm/i915/gvt/kvmgt.c"
HOST_LOW_GM = 128
"""MiB of the aperture (BAR 2) that the host keeps; the rest is shared out. Source: drivers/gpu/drm/i915/gvt/gvt.h."""


def igpu(device: Device) -> IgpuRow | None:
    """The row of Intel's processor graphics; None for anything else, and for graphics that nobody has listed."""
    if device.vendor != INTEL or not device.is_display or device.address[1:] != (0, 2, 0) or device.product is None:
        return None
    number = device.product
    return next((row for row in IGPUS if any(low <= number <= high for low, high in row.blocks)), None)
