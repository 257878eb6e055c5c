"""Settings that guides give to everybody and few guests need: each by its name, and only where it can help.

1. Pure. Nothing here is ever wished unless somebody names it.
2. A tweak that cannot do what people expect of it is refused with the reason.
3. Never `args: -cpu`: QEMU keeps the last -cpu, so it would lose everything that Proxmox VE generates.
   Source: qemu-server, QemuServer.pm ("add custom args"); QEMU, system/vl.c.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import field

from ..errors import Exit, Failure
from ..knowledge.error43 import OWN_VENDOR, hiding_rows
from ..model.facts import Facts
from ..model.pci import Address, Device
from ..model.texts import argument_values, split_cmdline
from ..model.value import dataclass
from ..model.vm import Vm
from ..model.wish import ArgPresent, ModuleOption, Wish
from . import msix

TWEAKS: Mapping[str, str] = {
    "disable-denylist": "vfio-pci holds devices that the kernel refuses to give to guests; it counts for all of them",
    "hide-hypervisor": "the guest's processor does not say that it is a virtual one",
    "ignore-msrs": "the guest may use model specific registers that KVM does not know",
    "msix-relocation": "QEMU shows the device's MSI-X table in another BAR; msix-relocation=bar2 says which",
    "no-rom-bar": "the guest's firmware does not see the card's option ROM, which hangs some guests",
    "split-lock": "the kernel does not slow down programs that lock across cache lines",
}


@dataclass(frozen=True, slots=True)
class GuestTweaks:
    """What was asked for in the guest: options of `cpu` and why, options of each new or completed hostpci entry."""

    cpu: Mapping[str, str]
    why: str
    entry: Mapping[str, str]
    msix: Mapping[Address, int] = field(default_factory=dict)
    """BARs that take the MSI-X tables of these functions."""


NO_TWEAKS = GuestTweaks({}, "", {})


def host_tweaks(facts: Facts, tweaks: Sequence[str]) -> tuple[Wish, ...]:
    """Wishes for the host. Raises Failure for a name that is none."""
    for name in tweaks:
        if name not in TWEAKS and not name.startswith("msix-relocation="):
            raise Failure(
                "tweak.unknown", f"Nothing was planned: there is no tweak {name!r}.",
                *(f"{known}: {what}" for known, what in TWEAKS.items()), code=Exit.USAGE,
            )  # fmt: skip
    wishes: list[Wish] = []
    if "ignore-msrs" in tweaks:
        # Source: kernel, arch/x86/kvm/x86.c: an unknown register raises #GP in the guest unless ignore_msrs is set.
        why = "a guest that reads a register unknown to KVM dies of it otherwise (macOS, some Windows programs)"
        wishes += [ModuleOption("kvm", option, why) for option in ("ignore_msrs=1", "report_ignored_msrs=0")]
    if "disable-denylist" in tweaks:
        # Source: kernel, drivers/vfio/pci/vfio_pci.c: a read-only parameter, so it has to be there when it is loaded.
        why = "vfio-pci refuses the device by name otherwise; a guest that is not trusted can hang or spy with it"
        wishes.append(ModuleOption("vfio-pci", "disable_denylist=1", why))
    if "split-lock" in tweaks and not _says(facts, "split_lock_detect", "off"):
        # Source: kernel-parameters.txt, split_lock_detect=; the default slows the offending program down.
        why = "games that lock across cache lines stall otherwise, and the kernel's log says split_lock"
        wishes.append(ArgPresent("split_lock_detect=off", why))
    return tuple(wishes)


def _says(facts: Facts, name: str, value: str) -> bool:
    return value in argument_values(" ".join(split_cmdline(facts.kernel.cmdline or "")), name)


def guest_tweaks(guest: Vm, devices: Sequence[Device], tweaks: Sequence[str]) -> GuestTweaks:
    """What was asked for in the guest's configuration. Raises Failure for what cannot help."""
    cpu, why = _hiding(guest, devices) if "hide-hypervisor" in tweaks else ({}, "")
    rom = {"rombar": "0"} if "no-rom-bar" in tweaks else {}
    return GuestTweaks(cpu, why, rom, msix.targets(devices, tweaks))


def _hiding(guest: Vm, devices: Sequence[Device]) -> tuple[dict[str, str], str]:
    """What hides the hypervisor from this guest's driver, and for whose sake."""
    windows = (guest.value("ostype") or "").startswith("w")
    cards = [device for device in devices if device.is_display]
    rows = [row for card in cards for row in hiding_rows(card.vendor, card.product, windows=windows) if row.cpu]
    if not rows:
        raise Failure(
            "tweak.no-use", "Nothing was planned: hiding the hypervisor helps none of these devices in this guest.",
            *(str(card) for card in cards),
            hint="It is for NVIDIA GeForce cards with a guest driver older than 465; leave it out.", code=Exit.REFUSED,
        )  # fmt: skip
    row = rows[0]
    words = dict(word.split("=", 1) for word in row.cpu)
    if not windows:
        words.pop(OWN_VENDOR, None)  # told to Windows guests only (qemu-server CPUConfig.pm, get_hyperv_enlightenments)
    sure = "" if row.certain else "; users report it, nobody here has checked it"
    return words, f"{row.name}: its driver refuses a hypervisor that it sees{sure}; the cost: {row.cost}"
