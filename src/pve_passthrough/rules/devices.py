"""Rules about devices beside graphics: what the kernel or QEMU refuses, what hangs, and what virtio does as well.

1. Known devices are rows in `knowledge.device_classes`, with a source each.
2. What the kernel or QEMU would refuse at a guest's start is told before the start.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.device_classes import (
    ACCELERATORS,
    DENYLIST,
    MSIX,
    OPTION_ROMS,
    msix_fault,
    row_of,
    virtio_words,
)
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from ..model.texts import modprobe_lines
from ..model.vm import HostPci, Vm, same_options
from .subject import Request, cards, chosen, show, taken, up


def reserved_region(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the firmware keep a piece of memory mapped for this device?

    Why: On some servers the firmware shares memory with a card (RMRR), so that a management processor can read its
        temperature or its counters. The kernel then never gives the card to a guest: "Firmware has requested this
        device have a 1:1 IOMMU mapping, rejecting configuring the device without a 1:1 mapping", or on older kernels
        "Device is ineligible for IOMMU domain attach due to platform RMRR requirement". Regions of graphics and USB
        are `direct-relaxable` and do no harm.
    Look at: /sys/kernel/iommu_groups/N/reserved_regions: a line that ends with `direct`; `dmesg | grep RMRR`.
    Fix: Firmware setup: HPE has "Shared Memory" switches for single slots (conrep, RBSU), Dell and others an update; or
        another slot. Proxmox VE's kernels know intel_iommu=on,relax_rmrr, which ignores the wish: the firmware and the
        guest then use the same memory, which can lead to instability or loss of data.
    Source: kernel: Documentation/ABI/testing/sysfs-kernel-iommu_groups; drivers/iommu/iommu.c, require_direct (6.6 and
        later); drivers/iommu/intel/iommu.c, device_is_rmrr_locked (before); Proxmox kernel patch 0009, relax_rmrr.
    """
    if facts.attached is None or request == Request():
        return
    asked = {device.address for device in chosen(facts, request)}
    for device in taken(facts, request):
        lines = facts.attached.direct.get(device.iommu_group if device.iommu_group is not None else -1, ())
        if lines and device.address in asked:
            yield _refused_region(facts, device, lines)


def _refused_region(facts: Facts, device: Device, lines: tuple[str, ...]) -> Finding:
    enforced = facts.intel_iommu or (facts.kernel.version or (0, 0)) >= (6, 6)
    return Finding(
        "platform.reserved-region",
        Level.BLOCKS if enforced else Level.NOTE,
        str(device.address),
        f"The firmware keeps memory mapped for {device}, and the kernel gives no such device to a guest.",
        tuple(f"/sys/kernel/iommu_groups/{device.iommu_group}/reserved_regions: {line}" for line in lines[:4]),
        Actor.FIRMWARE,
        show(
            "Switch off the memory that the firmware shares with this slot (HPE: Shared Memory in conrep or RBSU), or "
            "use another slot. The kernel argument intel_iommu=on,relax_rmrr ignores it at the risk of lost data."
        ),
    )


def denylist(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does vfio-pci refuse this device by name?

    Why: The kernel keeps a short list of devices with which a guest can hang or read more than its own:
        "8086:37c8 exists in vfio-pci device denylist, driver probing disallowed". Proxmox' bind then fails and the
        guest does not start.
    Look at: `dmesg | grep denylist`; /sys/module/vfio_pci/parameters/disable_denylist.
    Fix: Only for a guest that you trust as much as the host: --tweak disable-denylist writes the option and rebuilds
        the initramfs; it counts for all devices.
    Source: kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_dev_in_denylist, disable_denylist.
    """
    switched_off = _denylist_off(facts)
    for device in chosen(facts, request):
        row = row_of(DENYLIST, device)
        if row is not None and device.driver != "vfio-pci":
            yield Finding(
                "devices.denylist",
                Level.NOTE if switched_off else Level.HARMS,
                str(device.address),
                f"vfio-pci refuses {device}: {row.text}."
                if not switched_off
                else f"vfio-pci refuses {device} by itself, and an option has switched that off: {row.text}.",
                (f"{device.address}: {device.id}, {row.name}", *switched_off),
                Actor.US,
                None
                if switched_off
                else show(
                    "Give it only to a guest that you trust as much as the host.",
                    f"{up(facts, request, device)} --tweak disable-denylist",
                ),
            )


def _denylist_off(facts: Facts) -> tuple[str, ...]:
    """Lines that switch the list off."""
    return tuple(
        f"{line.path}:{line.number}: {line.raw.strip()}"
        for line in modprobe_lines(facts.files)
        if line.command == "options" and line.module == "vfio_pci" and "disable_denylist" in line.rest
    )


def msix_layout(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can QEMU show the guest this device's MSI-X table?

    Why: Some NVMe controllers describe a table and pending bits that overlap or lie outside their BARs. QEMU refuses:
        "failed to add PCI capability 0x11: table & pba overlap, or they don't fit in BARs, or don't align". Moving
        them to another BAR, which exists for the guest only, helps.
    Look at: `lspci -vvs ADDRESS`: MSI-X, Vector table and PBA; the guest's start log.
    Fix: --tweak msix-relocation writes `-set device.hostpciN.x-msix-relocation=barM` into the guest's `args`.
    Source: QEMU: hw/pci/msix.c, msix_init; hw/vfio/pci.c, vfio_pci_relocate_msix (`auto` is not implemented); kernel
        bugzilla 202055.
    """
    for device in chosen(facts, request):
        fault, row = msix_fault(device), row_of(MSIX, device)
        if (not fault and row is None) or _relocated(facts, request, device):
            continue
        certain = bool(fault) or (row is not None and row.certain)
        said = fault or (row.text if row is not None else "")
        proof = f"{device.address}: {said}" if fault or row is None else f"{device.address}: {device.id}, {row.source}"
        yield Finding(
            "devices.msix-layout",
            Level.HARMS if certain else Level.NOTE,
            str(device.address),
            f"QEMU refuses the MSI-X table of {device}: {said}." if certain else f"{device}: users report that {said}.",
            (proof,),
            Actor.US,
            show("Move the table for the guest.", f"{up(facts, request, device)} --tweak msix-relocation"),
        )


def _entries(facts: Facts, request: Request, device: Device) -> Iterator[tuple[Vm, HostPci]]:
    guest = None if request.vmid is None else facts.guest(request.vmid)
    for entry in guest.hostpci if guest else ():
        if guest is not None and device.address in entry.addresses:
            yield guest, entry


def _relocated(facts: Facts, request: Request, device: Device) -> bool:
    return any(
        f"device.{entry.key}.x-msix-relocation=" in (guest.value("args") or "")
        for guest, entry in _entries(facts, request, device)
    )


def option_rom(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the card bring a boot program that can hang the guest?

    Why: Storage and network cards carry an option ROM, which the guest's firmware runs before anything else. It looks
        for disks or for a network to boot from, takes seconds to minutes, and with some cards never ends. A guest that
        does not boot from that card needs none of it.
    Look at: the guest's console at start: a banner of the card that stays.
    Fix: --tweak no-rom-bar hides the ROM from the guest (rombar=0). Not for a guest that boots from this card.
    Source: QEMU: hw/vfio/pci-quirks.c, option ROMs that are left out; relax-intel-rmrr issue 32; Proxmox VE
        administration guide, PCI(e) passthrough, rombar.
    """
    for device in chosen(facts, request):
        if device.base_class not in (0x01, 0x02) or not device.option_rom:
            continue
        hidden = any(same_options(f"rombar={entry.options.get('rombar', 1)}", "rombar=0") for _, entry in _entries(
            facts, request, device
        ))  # fmt: skip
        row = row_of(OPTION_ROMS, device)
        if row is None or hidden:
            continue
        yield Finding(
            "devices.option-rom",
            Level.NOTE,
            str(device.address),
            f"{device}: {row.text}.",
            (f"{device.address}: {device.id}, {row.source}",),
            Actor.US,
            show("Hide the ROM from the guest.", f"{up(facts, request, device)} --tweak no-rom-bar"),
        )


def virtio_serves(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would a virtual device serve as well?

    Why: A guest with a passed-through device cannot move to another node while it runs, its memory is pinned whole, and
        the device serves nobody else. Proxmox' virtual disks, network cards and sound are quick and cost none of that.
    Look at: what the guest does with the device.
    Fix: None is needed. Pass the device when the guest must own the hardware itself.
    Source: Proxmox VE administration guide, QEMU/KVM Virtual Machines; PCI(e) passthrough.
    """
    if not request.addresses:
        return
    displays = {device.address.slot for device in facts.devices if device.is_display}
    for device in (card[0] for card in cards(chosen(facts, request))):
        found = virtio_words(device)
        if found is not None and device.address.slot not in displays:
            words, source = found
            yield Finding(
                "devices.virtio-serves",
                Level.NOTE,
                str(device.address),
                f"{device} may not be needed. {words}",
                (f"{device.address}: class {device.class_code or 0:06x}; {source}",),
            )


def accelerator(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there something to know about this accelerator?

    Why: Accelerators need a driver from outside the kernel in the guest, and some are better served by a container.
    Look at: `lspci -nnk`; the vendor's instructions for the guest's system.
    Fix: Install the driver in the guest; or give the device node to a container (dev0: /dev/…).
    Source: named with each device; Proxmox VE administration guide, Linux Container, dev[n].
    """
    for device in chosen(facts, request):
        row = row_of(ACCELERATORS, device)
        if row is not None:
            yield Finding(
                "devices.accelerator",
                Level.NOTE,
                str(device.address),
                f"{device}: {row.text}.",
                (f"{device.address}: {device.id}, {row.source}",),
            )
