"""What a guest start takes from the host. Pure: facts in, devices out.

1. At guest start Proxmox VE binds every member of the device's IOMMU group to vfio-pci that has no `pci_bus`
   directory, that is everything but bridges: SATA, NVMe, NIC and USB controllers included. It asks nobody.
   Source: pve-common, src/PVE/SysFSTools.pm, pci_dev_group_bind_to_vfio; qemu-server, QemuServer/PCI.pm,
   prepare_pci_device.
2. Whether the host survives that is not said here; the rules judge it.
"""

from __future__ import annotations

from collections.abc import Iterable

from .facts import Facts
from .pci import Address, Device


def blast_radius(facts: Facts, addresses: Iterable[Address]) -> tuple[Device, ...]:
    """All functions that leave the host when a guest with `addresses` starts, sorted by address.

    The addresses themselves are included as far as the machine has them; those whose group is unknown
    (`iommu_group` None) or that have none stand for themselves only.
    """
    wanted = frozenset(addresses)
    named = [device for device in facts.devices if device.address in wanted]
    groups = {device.iommu_group for device in named if device.iommu_group is not None and device.iommu_group >= 0}
    taken = {device.address: device for device in named}
    taken |= {d.address: d for d in facts.devices if d.iommu_group in groups and not d.bridge}
    return tuple(taken[address] for address in sorted(taken))
