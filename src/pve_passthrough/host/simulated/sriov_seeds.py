"""Built-in machines with a network card that several guests share. Data only.

1. Vendor and device numbers are those of the PCI ID list; offset and stride are those that lspci shows for a real
   82576 (384 and 2; QEMU's igb has an offset of 128), of whose eight virtual functions the driver igb uses seven.
2. Neither card is the one through which people reach the host.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .spec import MachineSpec, NicSpec, PciSpec, SriovSpec

_PORT = "0000:00:1b.0"
_GEN2_X4 = ("5.0 GT/s PCIe", "5.0 GT/s PCIe", 4, 4)

SRIOV_NIC = replace(
    seeds.DEFAULT,
    name="sriov-nic",
    devices=(
        *seeds.DEFAULT.devices,
        PciSpec(_PORT, "8086:7ac0", 0x060400, 30, "pcieport", port=4, revision=0x11, acs=True, link=_GEN2_X4),
        PciSpec(
            "0000:05:00.0", "8086:10c9", 0x020000, 31, "igb", "igb", _PORT, "8086:a03c", 1, port=0,
            bars=((0, 128 << 10, False),), reset=("flr", "bus"), flr=True, link=_GEN2_X4, early=True,
            sriov=SriovSpec(7, 0x180, 2, "10ca", "igbvf", "igbvf", "enp5s0f0v"),
        ),
        PciSpec(
            "0000:05:00.1", "8086:10c9", 0x020000, 32, "igb", "igb", _PORT, "8086:a03c", 1, port=0,
            bars=((0, 128 << 10, False),), reset=("flr", "bus"), flr=True, link=_GEN2_X4, early=True,
            sriov=SriovSpec(7, 0x180, 2, "10ca", "igbvf", "igbvf", "enp5s0f1v"),
        ),
    ),
    nics=(
        *seeds.DEFAULT.nics,
        NicSpec("enp5s0f0", "0000:05:00.0", "90:e2:ba:00:00:01"),
        NicSpec("enp5s0f1", "0000:05:00.1", "90:e2:ba:00:00:02"),
    ),
)  # fmt: skip

_IGPU = SriovSpec(7, 1, 1, "4680", callback=False)

SRIOV_IGPU = replace(
    seeds.DEFAULT,
    name="sriov-igpu",
    devices=tuple(
        replace(device, sriov=_IGPU) if device.address == "0000:00:02.0" else device
        for device in seeds.DEFAULT.devices
    ),
)  # fmt: skip
"""The kernel's own i915 shows the capability and cannot use it."""

SRIOV_SEEDS: dict[str, MachineSpec] = {seed.name: seed for seed in (SRIOV_NIC, SRIOV_IGPU)}
