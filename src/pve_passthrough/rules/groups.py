"""Rules about IOMMU groups: with whom does a device leave the host?

1. A group says who can reach whom by DMA; it leaves the host as a whole. Bridges stay.
2. Devices are named, never only numbered.
3. ACS override is the last resort, in its narrowest form, with its price.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import replace

from ..model.cards import companions
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level, Safety
from ..model.pci import NO_GROUP, Device
from .bootfiles import argument_fix, find
from .subject import (
    Request,
    beside,
    card_name,
    cards,
    chosen,
    claimed,
    names,
    reason,
    same_card,
    show,
    unknown,
    up,
)

_OVERRIDE = re.compile(r"downstream|multifunction|id:[0-9a-f]{4}:[0-9a-f]{4}", re.IGNORECASE)
"""What the argument takes. Source: Proxmox kernel patch 0004, pcie_acs_override_setup."""

_EXPRESS_UPSTREAM = frozenset({4, 5, 6})
"""PCI Express port types that may carry ACS: root, upstream and downstream port (PCI Express base spec 7.5.3)."""


def group(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device have an IOMMU group?

    Why: VFIO attaches groups, not devices. A function without a group cannot be passed through, whatever the guest's
        settings say.
    Look at: the link /sys/bus/pci/devices/ADDRESS/iommu_group; `pvesh get /nodes/NODE/hardware/pci`, where -1 means
        that there is none.
    Fix: Switch on the IOMMU. If it is on and only this function has no group, the kernel or the firmware excludes it:
        update both.
    Source: kernel: Documentation/driver-api/vfio.rst; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    for card in cards(chosen(facts, request)):
        unsaid = [device for device in card if device.iommu_group is None]
        without = [device for device in card if device.iommu_group == NO_GROUP]
        if unsaid:
            yield unknown(
                "groups.group",
                str(unsaid[0].address),
                f"Which IOMMU group {card_name(unsaid)} belongs to, nobody could say.",
                reason(facts, "pci.iommu_group", "pci.group", "pci", "iommu"),
            )
        if without and facts.iommu.on:
            yield Finding(
                "groups.group",
                Level.BLOCKS,
                str(without[0].address),
                f"{card_name(without)} has no IOMMU group although the IOMMU is on.",
                tuple(f"/sys/bus/pci/devices/{device.address}/iommu_group: absent" for device in without),
                Actor.FIRMWARE,
                show("Update the firmware and the kernel; this function is excluded from DMA remapping."),
            )


def alone(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the device alone in its group?

    Why: A group of its own means that nothing else is taken from the host and nothing else can be reached from the
        guest. Functions of the same card may share it or not; a GPU and its sound function need not be in one group.
    Look at: `ls /sys/bus/pci/devices/ADDRESS/iommu_group/devices`.
    Fix: Nothing to do.
    Source: kernel: Documentation/driver-api/vfio.rst; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    for card in cards(chosen(facts, request)):
        if any(device.iommu_group is None or device.iommu_group < 0 for device in card):
            continue
        if any(foreign(facts, request, device) for device in card):
            continue
        groups = sorted({device.iommu_group for device in card if device.iommu_group is not None})
        members = list(dict.fromkeys(member for device in card for member in _members(facts, device)))
        company = names(member.address for member in members if member.address != card[0].address)
        if len(groups) > 1:
            text = "and its functions have groups of their own"
        else:
            text = f"shares its group with nobody but its own card: {company}" if company else "has a group of its own"
        yield Finding(
            "groups.alone",
            Level.FINE,
            str(card[0].address),
            f"{card[0]} {text}.",
            tuple(f"iommu_group {n}: {names(m for m in members if m.iommu_group == n)}" for n in groups),
        )


def shared(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device share its group with strangers?

    Why: At guest start Proxmox takes every member of the group that is not a bridge from its driver and binds it to
        vfio-pci: disks, network and USB controllers included, and it asks nobody. The members need not go to the
        guest, but the host loses them.
    Look at: `pve-passthrough devices --groups`, or the group's devices in /sys/kernel/iommu_groups.
    Fix: In this order: put the card into another slot; look for ACS or a similar switch in the firmware's setup; pass
        the strangers through as well if the host can spare them. As the last resort Proxmox kernels have
        pcie_acs_override: the narrow form id:VVVV:DDDD names the ports that lack ACS. Its price: the kernel then
        claims an isolation that the hardware does not give, and devices may reach each other's memory by DMA.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio; Proxmox kernel patch 0004, pcie_acs_override;
        kernel: drivers/pci/pci.c, pci_acs_enabled.
    """
    told: set[int] = set()
    for device in chosen(facts, request):
        strangers = foreign(facts, request, device)
        if not strangers or device.iommu_group in told:
            continue
        told.add(device.iommu_group or 0)
        if all(_idle(facts, other) for other in strangers):
            yield Finding(
                "groups.shared",
                Level.NOTE,
                str(device.address),
                f"{device} shares IOMMU group {device.iommu_group} with {names(strangers)}, "
                f"which no driver uses: the host loses nothing that works.",
                tuple(f"/sys/bus/pci/devices/{other.address}/driver: absent" for other in strangers),
                Actor.HARDWARE,
            )
            continue
        token = narrow_override(facts, device)
        narrow = (
            f"as the last resort, which gives isolation up for real: {_lowered(argument_fix(facts, token).text)}"
            if token
            else "pcie_acs_override does not split functions behind ports that have ACS."
        )
        yield Finding(
            "groups.shared",
            Level.HARMS,
            str(device.address),
            f"{device} shares IOMMU group {device.iommu_group} with {names(strangers)}: "
            f"the host loses {'it' if len(strangers) == 1 else 'all of them'} when the guest starts.",
            tuple(
                f"/sys/bus/pci/devices/{other.address}/iommu_group: {other.iommu_group} "
                f"(driver {other.driver or ('none' if other.driver == '' else 'unknown')})"
                for other in strangers
            ),
            Actor.HARDWARE,
            show(f"Try another slot or the firmware's ACS switch; {narrow}"),
            "shared-group",
        )


def _lowered(text: str) -> str:
    return text[:1].lower() + text[1:]


def _idle(facts: Facts, device: Device) -> bool:
    """Nothing on the host works through it: no driver has it, and no use of it is known.

    AMD's `Dummy Host Bridge` functions are of that kind (a recorded EPYC host has them without a driver); Proxmox binds
    them to vfio-pci with the rest of the group (pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio).
    """
    return device.driver in ("", "pci-stub") and not facts.uses_of(device.address)


def foreign(facts: Facts, request: Request, device: Device) -> list[Device]:
    """Members of the group that are neither bridges, nor asked for, nor the guest's, nor of the same card."""
    wanted = set(request.addresses) | claimed(facts, request.vmid)
    return [
        other
        for other in _members(facts, device)
        if other.address != device.address and other.address not in wanted and not same_card(device, other)
    ]


def _members(facts: Facts, device: Device) -> tuple[Device, ...]:
    if device.iommu_group is None or device.iommu_group < 0:
        return ()
    return tuple(other for other in facts.group(device.iommu_group) if not other.bridge)


def narrow_override(facts: Facts, device: Device) -> str:
    """`pcie_acs_override=id:…` with the IDs of the group's ports that lack ACS; empty when none is known to.

    Ports whose extended configuration space could not be read count as lacking it: the override does nothing
    to a device that has ACS (Proxmox kernel patch 0004).
    """
    ports = [member for member in facts.group(device.iommu_group or 0) if member.bridge]
    if not ports and device.parent is not None:
        ports = [port for port in (facts.device(device.parent),) if port is not None]
    lacking = [port for port in ports if _lacks_acs(port)]
    if not lacking and not ports and len(beside(facts, device)) > 0:
        lacking = [device]
    ids = dict.fromkeys(port.id for port in lacking if "?" not in port.id)
    return f"pcie_acs_override={','.join(f'id:{name}' for name in list(ids)[:16])}" if ids else ""


def _lacks_acs(port: Device) -> bool:
    seen = port.capabilities
    if seen is None:
        return True
    return seen.acs is None and (seen.express is None or seen.express in _EXPRESS_UPSTREAM)


def acs_override(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the ACS override on?

    Why: pcie_acs_override makes the kernel believe in an isolation that the hardware does not give. Groups look
        small, but devices may still reach each other, and so a guest may reach the host's disks. The wide words
        `downstream` and `multifunction` do this to every port of the machine.
    Look at: `cat /proc/cmdline`, and the file that this boot loader reads.
    Fix: Take it away if no device needs it. If one does, name only the ports in question:
        pcie_acs_override=id:VVVV:DDDD, at most 16 of them, separated by commas.
    Source: Proxmox kernel patch 0004, pcie_acs_override ("may allow non-IOMMU protected peer-to-peer DMA").
    """
    mentions = find(facts, "pcie_acs_override")
    if not mentions:
        return
    lines = tuple(f"{source.where}: pcie_acs_override={value}" for source, value in mentions)
    words = [word for _, value in mentions for word in value.split(",")]
    odd = list(dict.fromkeys(word for word in words if not _OVERRIDE.fullmatch(word)))
    if odd:
        yield Finding(
            "groups.acs-override",
            Level.HARMS,
            "host",
            f"pcie_acs_override does not know {names(map(repr, odd))}.",
            lines,
            Actor.US,
            show("It takes downstream, multifunction and id:VVVV:DDDD, separated by commas."),
        )
    wide = any(word in ("downstream", "multifunction") for word in words)
    serious = wide and bool(request.addresses)
    token = f"pcie_acs_override={mentions[-1][1]}"
    yield Finding(
        "groups.acs-override",
        Level.HARMS if serious else Level.NOTE,
        "host",
        "The ACS override is on for every port of the machine: groups are smaller than the hardware's isolation."
        if wide
        else "The ACS override is on for single ports: their groups are smaller than the hardware's isolation.",
        lines,
        Actor.US,
        replace(argument_fix(facts, token, remove=True), safety=Safety.SHOW),
        "acs-override" if serious else "",
    )


def companion(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the whole card passed through?

    Why: A GPU brings its own sound, USB and USB-C functions: in the same slot, and on an Intel Arc card, which is a
        switch with two ports, at another address. A reset of the slot needs all of them, and a function left to the
        host keeps its driver on a card that has gone.
    Look at: `lspci -s 01:00`; `pve-passthrough devices --tree`.
    Fix: Pass the slot, `hostpci0: 0000:01:00,pcie=1`, instead of one function; on an Arc card its sound as well.
    Source: qemu-server PCI.pm, parse_hostpci (a host without function takes all functions); kernel:
        drivers/vfio/pci/vfio_pci_core.c, vfio_pci_dev_set_needs_reset; published lspci listings of Arc cards.
    """
    if not request.addresses:
        return
    wanted = set(request.addresses)
    for device in chosen(facts, request):
        left = [other for other in companions(facts, device) if other.address not in wanted]
        if left:
            yield Finding(
                "groups.companions",
                Level.NOTE,
                str(device.address),
                f"{device} goes without its own {names(left)}.",
                tuple(f"{other.address}: of the same card, driver {other.driver or 'none'}" for other in left),
                Actor.US,
                show("Pass the card as a whole.", up(facts, request, device)),
            )
