"""Rules about cards that are made for servers: what they lack, what they need, and what they hang together with.

1. Known cards are rows in `knowledge.compute_cards`; a card in no row is not called a desktop card.
2. These rules never block: such cards work, once people know what they are.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.compute_cards import (
    NVIDIA,
    NVSWITCHES,
    OTHER_BRIDGE,
    PROPRIETARY,
    ComputeCard,
    Generation,
    compute_card,
    nvidia_generation,
)
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from .subject import OUTPUTS_NOT, Request, chosen, names, show


def data_centre(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it a card made for servers?

    Why: Such cards have no monitor outputs, or none that are switched on; no fan, so that they need the server's air;
        and not every driver knows them. NVIDIA's Maxwell, Pascal and Volta work with the proprietary kernel modules
        only, and driver branch 580 is the last that knows them; Blackwell works with the open modules only. On an
        HGX board the cards hang together by NVLink, and a single one may fail to start in a guest.
    Look at: `lspci -nn -s ADDRESS`; `pve-passthrough inside ADDRESS --os ubuntu-24.04` says what the guest installs.
    Fix: Keep a virtual display (`vga: std`, no x-vga), and install the driver branch and the flavour that the card
        needs. See to the air: cards slow down or switch off when they get too hot.
    Source: NVIDIA CUDA Toolkit, Driver, and Architecture Matrix; NVIDIA Driver Installation Guide, Kernel Modules;
        pci.ids of 2025-06-09; Proxmox forum thread 179366 (HGX).
    """
    for device in chosen(facts, request):
        row = compute_card(device.vendor, device.product)
        if row is None:
            continue
        generation = nvidia_generation(device.product) if device.vendor == NVIDIA else None
        words = " ".join(_sentences(device, row, generation))
        yield Finding(
            "gpu.data-centre",
            Level.NOTE,
            str(device.address),
            f"{device} is a card for servers ({row.name}). {words}",
            (f"{device.address}: {device.id} ({row.source})",),
            Actor.NOBODY,
            show(
                "Keep the guest's virtual display; what the guest installs:",
                f"pve-passthrough inside {device.address} --os ubuntu-24.04",
            ),
        )


def _sentences(device: Device, row: ComputeCard, generation: Generation | None) -> Iterator[str]:
    if device.subclass == OUTPUTS_NOT:
        pass  # gpu.no-outputs has said it
    elif row.outputs is False:
        yield "It has no monitor outputs: keep a virtual display."
    else:
        yield "Its monitor outputs may be switched off: keep a virtual display."
    if row.passive:
        yield "It has no fan of its own and needs the server's air."
    if generation is not None and generation.last_branch is not None:
        yield (
            f"{generation.name} works with the proprietary modules only, "
            f"and driver branch {generation.last_branch} is the last that knows it."
        )
    elif generation is not None and generation.flavour != PROPRIETARY and generation.first_branch is not None:
        yield f"{generation.name} needs the open modules, of branch {generation.first_branch} or newer."
    if row.fabric:
        yield "It belongs to a board whose cards hang together by NVLink: a single one may fail to start in a guest."


def nvswitch(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the card share its IOMMU group, or its board, with an NVSwitch?

    Why: The cards of an HGX board reach each other through NVSwitches, and a fabric manager has to set these up before
        a card works. A guest that has one card and not its switches may fail to start the card. In one IOMMU group,
        Proxmox VE takes the switch from the host together with the card.
    Look at: `lspci -nn -d 10de::0680`; `pve-passthrough devices --groups`.
    Fix: Give all cards of the board and their switches to one guest that runs the fabric manager; or keep the switches
        on the host with the fabric manager there, and follow NVIDIA's guide for shared NVSwitch virtualisation.
    Source: NVIDIA Fabric Manager user guide (modes of virtualisation; not tried here); Proxmox forum thread 179366;
        pci.ids of 2025-06-09; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    switches = [device for device in facts.devices if _is_switch(device)]
    for device in chosen(facts, request):
        if device.vendor != NVIDIA or not device.is_display or not switches:
            continue
        together = [one for one in switches if _same_group(one, device)]
        row = compute_card(device.vendor, device.product)
        if not together and not (row is not None and row.fabric):
            continue
        yield Finding(
            "groups.nvswitch",
            Level.HARMS if together else Level.NOTE,
            str(device.address),
            f"{device} shares {f'IOMMU group {device.iommu_group}' if together else 'its board'} "
            f"with {names(together or switches)}: the card may not start in a guest without them.",
            tuple(f"{one.address}: {one.id}, class {one.class_code or 0:06x}" for one in together or switches)[:8],
            Actor.HARDWARE,
            show("Give the whole board to one guest, or let a fabric manager on the host set the switches up."),
        )


def _same_group(one: Device, other: Device) -> bool:
    return one.iommu_group is not None and one.iommu_group >= 0 and one.iommu_group == other.iommu_group


def _is_switch(device: Device) -> bool:
    """A known NVSwitch, else an NVIDIA function of its class that is no part of an old chipset (those sit on bus 0)."""
    if device.vendor != NVIDIA:
        return False
    return device.product in NVSWITCHES or (device.subclass == OTHER_BRIDGE and device.address.bus != 0)
