"""Rules about option ROMs: what the guest's firmware will find on a graphics card.

1. Only what the facts say: the files themselves are judged by `rom check`, on the machine where they lie.
2. A card without outputs needs no ROM to be seen, so nothing is said about it.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model.cards import processor_functions
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from ..model.vm import ROM_DIR
from .subject import OUTPUTS_NOT, Request, chosen, guests, is_local, reason, show, unknown

SHADOW = 0xC0000
_INTEL = 0x8086


def option_rom(facts: Facts, request: Request) -> Iterator[Finding]:
    """Will the guest find the card's ROM?

    Why: Before the guest's own driver runs, the card shows only what its ROM draws, and some Windows drivers read the
        video BIOS too. The boot display's ROM is not read from the card: the kernel shows the copy at 0xC0000, which
        the firmware has changed, or nothing valid ("Invalid PCI ROM header signature"). Graphics in a processor have no
        ROM of their own; AMD's lies in the ACPI table VFCT.
    Look at: /sys/bus/pci/devices/ADDRESS/resource, line 7 (0xc0000: the copy); /sys/firmware/acpi/tables/VFCT;
        `pve-passthrough rom check FILE`.
    Fix: Take the ROM while another card is the boot display, or from the board maker's file, check it and give it to
        the guest: `pve-passthrough rom dump`, `rom check`, `rom install`.
    Source: kernel: arch/x86/pci/fixup.c, pci_fixup_video; drivers/pci/rom.c; drivers/gpu/drm/amd/amdgpu/amdgpu_bios.c;
        QEMU hw/vfio/pci.c, vfio_pci_load_rom; ryzen-gpu-passthrough-proxmox README (2026-01-28).
    """
    if request == Request():
        return  # nobody asked for a card
    named = {entry.addresses[0] for guest in guests(facts, request) for entry in guest.hostpci
             if entry.addresses and entry.options.get("romfile")}  # fmt: skip
    for device in chosen(facts, request):
        if not device.is_display or device.subclass == OUTPUTS_NOT or device.address in named:
            continue
        if device.vendor == _INTEL and device.address[1:] == (0, 2, 0):
            continue  # gpu.intel-graphics speaks about it
        if processor_functions(facts, device):
            yield _processors(device, request)
        elif _shadowed(device):
            yield _copy(device, request)
        elif device.option_rom is False:
            yield _none(device)
        elif device.option_rom is None:
            about = f"Whether {device} shows a ROM to a guest, nobody could say."
            yield unknown("gpu.option-rom", str(device.address), about, reason(facts, "pci.resource"))


def _shadowed(device: Device) -> bool:
    return any(bar.index == 6 and bar.start == SHADOW for bar in device.bars or ())


def _processors(device: Device, request: Request) -> Finding:
    return Finding(
        "gpu.option-rom",
        Level.NOTE,
        str(device.address),
        f"{device} has no ROM of its own: a guest needs its video BIOS as a file.",
        (f"{device.address}: functions of the processor are in the same slot",),
        Actor.NOBODY,
        show(
            "Take it from the firmware's table, then give it to the guest.",
            f"pve-passthrough rom dump {device.address} -o vbios.rom",
            f"pve-passthrough rom install vbios.rom {device.address} --vm {request.vmid or 'ID'}",
        ),
    )


def _copy(device: Device, request: Request) -> Finding:
    return Finding(
        "gpu.option-rom",
        Level.NOTE,
        str(device.address),
        f"{device} is the boot display: a guest sees the firmware's changed copy of its ROM, or none, and may stay "
        "dark until its own driver runs.",
        (f"/sys/bus/pci/devices/{device.address}/resource: line 7 begins at {SHADOW:#x}",),
        Actor.NOBODY,
        show(
            "If the guest stays dark: take the ROM while another card is the boot display, and give it to the guest.",
            f"pve-passthrough rom dump {device.address} -o FILE",
            f"pve-passthrough rom install FILE {device.address} --vm {request.vmid or 'ID'}",
        ),
    )


def _none(device: Device) -> Finding:
    return Finding(
        "gpu.option-rom",
        Level.NOTE,
        str(device.address),
        f"{device} offers no ROM: the guest sees nothing on it before its own driver runs.",
        (f"/sys/bus/pci/devices/{device.address}: there is no rom",),
        Actor.HARDWARE,
        show("If that is not enough, give it a ROM file: pve-passthrough rom install FILE DEVICE --vm ID."),
    )


def rom_file(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the ROM files there that the guest names?

    Why: QEMU ends with "failed to find romfile" when a hostpci line names a file that is not in /usr/share/kvm of the
        node. The directory belongs to the node alone: it is neither in the cluster's file system nor in a backup.
    Look at: `qm config ID | grep romfile`, `ls /usr/share/kvm`.
    Fix: Put the file there (`pve-passthrough rom install`), or take romfile out of the line.
    Source: qemu-server, QemuServer/PCI.pm, print_hostpci_devices; QEMU hw/pci/pci.c, pci_add_option_rom.
    """
    for guest in guests(facts, request):
        for entry in guest.hostpci if is_local(facts, guest) else ():
            name = entry.options.get("romfile", "")
            there = facts.rom_files.get(name)
            if not name or "/" in name or there:
                continue
            line = f"/etc/pve/nodes/{guest.node}/qemu-server/{guest.vmid}.conf: {entry.key}: romfile={name}"
            if there is None:
                about = f"Whether the ROM file {name} of {guest.name} ({guest.vmid}) is there, nobody could say."
                yield unknown("guests.rom-file", f"vm:{guest.vmid}", about, reason(facts, "rom_files"))
                continue
            yield Finding(
                "guests.rom-file",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"{guest.name} ({guest.vmid}) does not start: its ROM file {name} is not in {ROM_DIR}.",
                (line, f"{ROM_DIR}/{name}: not there"),
                Actor.NOBODY,
                show(
                    "Put the file there, or take romfile out of the line.",
                    f"pve-passthrough rom install {name} {entry.addresses[0] if entry.addresses else 'DEVICE'} "
                    f"--vm {guest.vmid}",
                ),
            )
