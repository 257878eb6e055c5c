"""A built-in machine whose card does not come back from a reset. Data only.

1. Vendor and device numbers are those of the PCI ID list. The source tree is as much of vendor-reset as DKMS and people
   look at: its configuration, and the line by which old trees are told from new ones.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .spec import GIB, MIB, MachineSpec, PciSpec

_GEN3_X16 = ("2.5 GT/s PCIe", "8.0 GT/s PCIe", 16, 16)
_ROOT_PORT = "0000:00:01.0"
_CARD = "0000:01:00.0"
_TREE = "/usr/src/vendor-reset-0.1.1"

POLARIS = replace(
    seeds.DEFAULT,
    name="polaris",
    devices=(
        *seeds.ALDER_LAKE,
        PciSpec(
            _CARD, "1002:67df", 0x030000, 1, "amdgpu", "amdgpu", _ROOT_PORT, "1da2:e353", 0xE7, port=0,
            bars=((0, 8 * GIB, True), (2, 2 * MIB, True), (5, 256 << 10, False)), rom=True, boot_vga=False,
            reset=("bus",), link=_GEN3_X16,
        ),
        PciSpec("0000:01:00.1", "1002:aaf0", 0x040300, 1, "snd_hda_intel", "snd_hda_intel", _ROOT_PORT, "1da2:aaf0",
                port=0, bars=((0, 16 << 10, True),), link=_GEN3_X16),
    ),
    screens={
        "0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb"),
        _CARD: ("card1", "DP-1", "amdgpudrmfb"),
    },
    faults=(f"dead-after-stop:{_CARD}",),
    files={
        "/usr/sbin/dkms": "#!/bin/sh\n",
        f"/lib/modules/{seeds.KERNEL_70}/build/Makefile": "# headers\n",
        f"{_TREE}/dkms.conf": 'PACKAGE_NAME="vendor-reset"\nPACKAGE_VERSION="0.1.1"\nAUTOINSTALL="yes"\n',
        f"{_TREE}/src/amd/amdgpu/atom.c": "#include <linux/unaligned.h>\n",
    },
)  # fmt: skip
"""An RX 580: after the first stop of its guest it is gone until power is cut, unless vendor-reset resets it."""

RESET_SEEDS: dict[str, MachineSpec] = {POLARIS.name: POLARIS}
