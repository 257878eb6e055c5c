"""What people see, in one word each, and which causes show so, as rows.

1. A word is a filter, not evidence: it lifts what shows so a little and lowers what does not, and can name no cause
   by itself (its points stay below those of "not enough evidence").
2. A cause that no row names is neither lifted nor lowered: unknown is not no.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model.value import dataclass

LIFT = 1.0
LOWER = -1.5


@dataclass(frozen=True, slots=True)
class Seen:
    """says: what the word means · so: causes that show so, each with the reason · never: causes that stop the start
    or the host before anything like this could be seen"""

    says: str
    so: Mapping[str, str]
    never: tuple[str, ...] = ()


STOPS_THE_START = (
    "iommu-off", "no-interrupt-remapping", "group-no-acs", "group-shared-host-device", "group-renumbered",
    "reserved-region", "memory-pinning", "msix-layout",
)  # fmt: skip
"""With these QEMU does not come up, or Proxmox VE refuses before: nobody sees a picture or a device manager."""

WORDS: Mapping[str, Seen] = {
    "black-screen": Seen(
        "the guest runs, and its screen stays dark",
        {
            "rom-invalid": "without a usable ROM the guest's firmware never starts the card",
            "boot-framebuffer": "the host's boot picture holds the card's memory, so the guest draws into nothing",
            "guest-firmware": "the firmware and the card's ROM speak different languages",
            "amd-reset-bug": "the card was not brought back after its last guest",
            "reset-defective": "the card was not brought back after its last guest",
            "igd-legacy": "Intel's graphics shows a picture early only in legacy mode",
            "guest-address-space": "a card without its large BAR draws nothing",
        },
        STOPS_THE_START,
    ),
    "error-43": Seen(
        "the driver in Windows stops the card with code 43",
        {
            "guest-detects-vm": "drivers stop where they see a hypervisor",
            "laptop-battery": "drivers of mobile cards stop where there is no battery",
            "rom-invalid": "the driver reads the ROM and does not find its own",
            "boot-framebuffer": "part of the card's memory cannot be used",
            "guest-address-space": "a BAR has no place in the guest",
            "amd-reset-bug": "the card is half alive",
            "reset-defective": "the card is half alive",
            "identical-ids": "a driver of the host has had the card",
            "guest-firmware": "the firmware did not start the card",
        },
        STOPS_THE_START,
    ),
    "no-start": Seen(
        "the guest does not start",
        {
            "iommu-off": "Proxmox VE refuses without an IOMMU",
            "no-interrupt-remapping": "VFIO refuses every device",
            "group-no-acs": "the group cannot be given away",
            "group-shared-host-device": "the group is not viable",
            "group-renumbered": "a mapping whose group has changed is refused",
            "bdf-renumbered": "the device is not there, or another one is",
            "bad-vm-config": "Proxmox VE or QEMU rejects the configuration",
            "reserved-region": "the kernel refuses to attach the device",
            "memory-pinning": "the memory cannot be had or takes too long",
            "power-state": "QEMU cannot wake the device",
            "reset-defective": "the device does not answer any more",
            "amd-reset-bug": "the device does not answer any more",
            "host-driver-busy": "the device cannot be taken from its driver",
            "rom-invalid": "QEMU ends when the ROM file is not there",
            "msix-layout": "QEMU rejects the table",
            "qemu-regression": "QEMU itself fails",
        },
    ),
    "hang": Seen(
        "the host or the guest stands still",
        {
            "host-driver-busy": "unbinding waits for ever",
            "group-shared-host-device": "the start took the host's disk or network card with it",
            "ats-broken": "invalidations are never answered",
            "intx-broken": "an interrupt storm",
            "reset-defective": "reads from a dead device never end",
            "kernel-regression": "a kernel that hangs does so for everybody",
            "firmware-defect": "the firmware touches the device behind the kernel's back",
            "memory-pinning": "the host runs out of memory while it pins the guest's",
        },
    ),
    "no-device": Seen(
        "the guest runs and does not have the device, or the host does not show it",
        {
            "bdf-renumbered": "the address is another device's now",
            "bad-vm-config": "a line that cannot be parsed is left out silently",
            "iommu-firmware": "the firmware hides it",
            "guest-address-space": "a BAR without a place makes the device disappear",
            "power-state": "a sleeping device reads as nothing",
            "sriov-setup": "the functions are not made",
            "vgpu-config": "the type is not offered",
            "partial-multifunction": "only a part of the card was given",
        },
        ("no-interrupt-remapping", "reserved-region"),
    ),
    "slow": Seen(
        "it works, and too slowly",
        {
            "memory-pinning": "the start takes long while memory is pinned",
            "intx-broken": "line interrupts are shared and slow",
            "power-state": "the device sleeps between requests",
            "guest-address-space": "a small window of the card's memory",
        },
        STOPS_THE_START,
    ),
    "reset": Seen(
        "it works once, and not again until the host is restarted",
        {
            "amd-reset-bug": "this is what it looks like",
            "reset-defective": "the reset leaves the device dead",
            "vendor-reset-method": "vendor-reset is there and another method is used",
            "partial-multifunction": "without the other functions no reset is possible",
            "power-state": "the device does not wake up again",
            "host-driver-busy": "a driver of the host takes it between two starts",
        },
        ("iommu-off", "no-interrupt-remapping", "reserved-region"),
    ),
    "usb": Seen(
        "a USB device or controller is the trouble",
        {
            "group-shared-host-device": "the controller shares its group",
            "reset-defective": "controllers that advertise a reset that they do not survive",
            "bdf-renumbered": "the controller or the port has another number now",
            "power-state": "the controller does not wake up",
            "host-driver-busy": "the host's driver has the device",
        },
        ("guest-detects-vm", "laptop-battery", "rom-invalid", "guest-firmware", "boot-framebuffer", "igd-legacy"),
    ),
}


def points(word: str) -> tuple[tuple[str, float], ...]:
    """What a word adds to causes, and takes from others."""
    seen = WORDS[word]
    return (*((cause, LIFT) for cause in seen.so), *((cause, LOWER) for cause in seen.never if cause not in seen.so))
