"""Built-in machines whose cards are shared. Data only.

1. Vendor, device and class numbers are those of the PCI ID list; types' numbers are those of NVIDIA's documentation
   where they are known (L4: unverified), their law is in `mediated`.
2. `gvt-g` has Coffee Lake graphics with GVT-g not yet switched on; `vgpu-node` an L4 with four virtual functions on a
   kernel of today, `vgpu-bare` the same without the unit that makes them; `vgpu-old` a Tesla T4 with
   mediated devices on kernel 6.5.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import seeds
from .graphics_seeds import INTEL_IGPU
from .spec import GIB, MIB, MachineSpec, PciSpec, SriovSpec

_GEN4_X16 = ("16.0 GT/s PCIe", "16.0 GT/s PCIe", 16, 16)
_ROOT_PORT = "0000:00:01.0"
_CARD = "0000:01:00.0"

_SCREEN = {"0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb")}

GVT_G = replace(
    INTEL_IGPU,
    name="gvt-g",
    devices=tuple(
        replace(one, bars=((0, 16 * MIB, True), (2, 512 * MIB, True))) if one.address == "0000:00:02.0" else one
        for one in INTEL_IGPU.devices
    ),
    mediated={
        "0000:00:02.0": {
            "law": "gvt", "driver": "i915", "module": "kvmgt", "argument": "i915.enable_gvt=1", "window": 512,
        },
    },
)  # fmt: skip


def _types(card: str, total: int, numbers: tuple[tuple[int, int], ...], letter: str = "Q") -> list[dict[str, Any]]:
    """Types by number and gigabytes, as NVIDIA's mediated devices describe them."""
    return [
        {
            "id": f"nvidia-{number}",
            "name": f"{card}-{size}{letter}",
            "memory": size * 1024,
            "description": f"num_heads=4, frl_config=60, framebuffer={size * 1024}M, max_resolution=5120x2880, "
            f"max_instance={total // size}\n",
        }
        for number, size in numbers
    ]


_T4 = _types("GRID T4", 16, ((230, 1), (231, 2), (232, 4), (233, 8), (234, 16)))
_L4 = _types("NVIDIA L4", 24, ((909, 1), (910, 2), (912, 4), (914, 8), (916, 12), (917, 24)))

VGPU_OLD = replace(
    seeds.DEFAULT,
    name="vgpu-old",
    kernel=seeds.KERNEL_65,
    pve=seeds.PVE_81,
    cmdline="quiet intel_iommu=on",
    devices=(
        *seeds.ALDER_LAKE,
        PciSpec(_CARD, "10de:1eb8", 0x030200, 1, "nvidia", "nvidia", _ROOT_PORT, "10de:12a2", 0xA1, port=0,
                bars=((0, 16 * MIB, False), (1, 256 * MIB, True), (3, 32 * MIB, True)), reset=("flr", "bus"),
                flr=True, link=_GEN4_X16),
    ),
    mediated={_CARD: {"law": "nvidia-mdev", "driver": "nvidia", "memory": 16 * 1024, "types": _T4}},
    screens=_SCREEN,
    files={"/etc/modules-load.d/nvidia-vgpu.conf": "nvidia_vgpu_vfio\n",
           "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  535.161.05  Thu\n"},
)  # fmt: skip


_PORT = "0000:00:1b.0"
_L4_CARD = "0000:05:00.0"
_FUNCTIONS = tuple(f"0000:05:00.{number}" for number in (4, 5, 6, 7))

VGPU_NODE = replace(
    seeds.DEFAULT,
    name="vgpu-node",
    devices=(
        *seeds.ALDER_LAKE,
        PciSpec(_PORT, "8086:7ac0", 0x060400, 30, "pcieport", port=4, revision=0x11, acs=True, link=_GEN4_X16),
        PciSpec(_L4_CARD, "10de:27b8", 0x030200, 31, "nvidia", "nvidia", _PORT, "10de:16ca", 0xA1, port=0,
                bars=((0, 16 * MIB, False), (1, 32 * GIB, True), (3, 32 * MIB, True)), reset=("flr", "bus"),
                flr=True, link=_GEN4_X16, sriov=SriovSpec(4, 4, 1, "27b8", "nvidia", "nvidia")),
    ),
    mediated={
        address: {"law": "nvidia-vf", "driver": "nvidia", "card": _L4_CARD, "memory": 24 * 1024, "types": _L4,
                  "unit": True}
        for address in _FUNCTIONS
    },
    screens=_SCREEN,
    files={"/etc/modules-load.d/nvidia-vgpu.conf": "nvidia_vgpu_vfio\n",
           "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  595.58.03  Thu\n"},
)  # fmt: skip

VGPU_BARE = replace(
    VGPU_NODE,
    name="vgpu-bare",
    mediated={address: law | {"unit": False} for address, law in VGPU_NODE.mediated.items()},
)

VGPU_SEEDS: dict[str, MachineSpec] = {seed.name: seed for seed in (GVT_G, VGPU_NODE, VGPU_BARE, VGPU_OLD)}
