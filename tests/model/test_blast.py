"""What a guest start takes from the host."""

from __future__ import annotations

from dataclasses import replace

from pve_passthrough.model.blast import blast_radius
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.pci import NO_GROUP, Address, Device

PORT, GPU, SOUND, SATA = (Address(0, bus, 0, function) for bus, function in ((0, 0), (1, 0), (1, 1), (2, 0)))
DEVICES = (
    Device(SATA, iommu_group=1),
    Device(GPU, iommu_group=1),
    Device(SOUND, iommu_group=2),
    Device(PORT, iommu_group=1, bridge=True),
)


def radius(*addresses: Address, devices: tuple[Device, ...] = DEVICES) -> list[Address]:
    return [device.address for device in blast_radius(Facts("x", devices), addresses)]


def test_the_group_goes_without_its_bridges() -> None:
    assert radius(GPU) == [GPU, SATA]


def test_groups_add_up_in_order() -> None:
    assert radius(SOUND, GPU) == [GPU, SOUND, SATA]


def test_without_a_group_a_device_stands_for_itself() -> None:
    for group in (None, NO_GROUP):
        lone = tuple(replace(device, iommu_group=group) for device in DEVICES)
        assert radius(GPU, devices=lone) == [GPU]


def test_an_absent_address_takes_nothing() -> None:
    assert radius(Address(0, 9, 0, 0)) == []
