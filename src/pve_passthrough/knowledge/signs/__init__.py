"""The catalogue: lines of kernels, QEMU, Proxmox VE and guests, as rows with a source each.

1. One module per area; `SIGNS` is all of them, the more particular row before the more general one.
2. Patterns are precise: they never match the harmless lines, which have rows of their own.
"""

from __future__ import annotations

from . import (
    builds,
    devices,
    drivers,
    guest,
    interrupts,
    iommu,
    memory,
    proxmox,
    qemu,
    resets,
    sriov,
    usb,
    vfio,
    vgpu,
    windows,
)
from .row import Sign

__all__ = ["SIGNS", "Sign"]

SIGNS: tuple[Sign, ...] = (
    *iommu.SIGNS,
    *vfio.SIGNS,
    *resets.SIGNS,
    *devices.SIGNS,
    *interrupts.SIGNS,
    *memory.SIGNS,
    *drivers.SIGNS,
    *sriov.SIGNS,
    *vgpu.SIGNS,
    *qemu.SIGNS,
    *proxmox.SIGNS,
    *guest.SIGNS,
    *windows.SIGNS,
    *usb.SIGNS,
    *builds.SIGNS,
)
