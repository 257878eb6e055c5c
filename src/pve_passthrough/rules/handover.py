"""Rules about a guest that borrows the host's own display.

1. What the guest borrows is what its list says; a list that cannot be read is no list.
2. Whether the display is lent just now is not judged here: the guest's hook and its timer see to that.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.hookscript import PREFIX
from ..model.lent import lent_file, lent_to, parse_lent
from ..model.vm import Vm
from .subject import Request, guests, names, show


def lent(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest borrow the display on which the host shows its console?

    Why: While the guest runs the host's screen is dark and nobody can work at the machine itself; the display manager
        is stopped. After the guest's stop everything is given back.
    Look at: /etc/pve-passthrough/lent-ID.conf; /run/pve-passthrough/handover while the guest runs.
    Fix: Nothing is wrong. Make sure of SSH or a serial console for the time in which the guest runs.
    Source: qemu-server: hookscript phases pre-start and post-stop; kernel: drivers/video/fbdev/core/fbcon.c.
    """
    for guest in guests(facts, request):
        devices = [device for device in facts.devices if device.address in lent_to(facts.files, guest.vmid)]
        if devices and _guarded(guest):
            yield Finding(
                "handover.lent",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"{guest.name or 'The guest'} ({guest.vmid}) borrows the host's display for as long as it runs: "
                f"{names(devices)}.",
                (f"{lent_file(guest.vmid)}: {len(devices)} function(s)",),
            )


def no_hook(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the hook there that hands the display over and back?

    Why: Without it Proxmox takes the card from the host's driver while the console and the desktop still use it, which
        can hang or crash the host, and nobody gives it back after the guest has stopped.
    Look at: `qm config ID`, hookscript; /etc/pve-passthrough/lent-ID.conf.
    Fix: Plan the device again with --lend-display, or remove the list and have the card claimed at boot.
    Source: pve-common: SysFSTools.pm, pci_dev_bind_to_vfio; qemu-server: hookscript phases.
    """
    for guest in guests(facts, request):
        if lent_to(facts.files, guest.vmid) and not _guarded(guest):
            yield Finding(
                "handover.no-hook",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"{guest.name or 'The guest'} ({guest.vmid}) borrows the host's display, and nothing hands it over: "
                "Proxmox would take the card by force.",
                (
                    f"{lent_file(guest.vmid)}: there",
                    f"/etc/pve/nodes/{guest.node}/qemu-server/{guest.vmid}.conf: hookscript: "
                    f"{guest.config.get('hookscript', 'not set')}",
                ),
                Actor.US,
                show(
                    "Plan it again, or remove the list.",
                    f"pve-passthrough up gpu --vm {guest.vmid} --lend-display",
                    f"rm {lent_file(guest.vmid)}",
                ),
            )


def stale(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the list of what the guest borrows still fit the machine?

    Why: A card that moved, or was replaced, is not taken from the host on the word of an old list: the guest does not
        start until the list is right.
    Look at: /etc/pve-passthrough/lent-ID.conf; `lspci -nn`.
    Fix: Plan the device again with --lend-display, or remove the list.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, vendor and device.
    """
    for guest in guests(facts, request):
        if wrong := _outdated(facts, guest):
            yield Finding(
                "handover.stale",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"{guest.name or 'The guest'} ({guest.vmid}) does not start: what it borrows of the host's display is "
                "not what the machine has.",
                tuple(f"{lent_file(guest.vmid)}: {line}" for line in wrong),
                Actor.US,
                show(
                    "Plan it again, or remove the list.",
                    f"pve-passthrough up gpu --vm {guest.vmid} --lend-display",
                    f"rm {lent_file(guest.vmid)}",
                ),
            )


def _guarded(guest: Vm) -> bool:
    return guest.config.get("hookscript", "").endswith(f":snippets/{PREFIX}{guest.vmid}")


def _outdated(facts: Facts, guest: Vm) -> list[str]:
    """Lines of the list that do not fit; functions that the guest no longer has do not matter."""
    text = facts.files.get(lent_file(guest.vmid))
    if text is None:
        return []
    try:
        listed = parse_lent(text)
    except ValueError as error:
        return [str(error)]
    given = {address for entry in guest.hostpci for address in entry.addresses}
    wrong: list[str] = []
    for address, identity in listed.items():
        device = facts.device(address)
        now = "nothing is there" if device is None else f"{device.id} is there"
        if address in given and facts.devices and (device is None or device.id != identity):
            wrong.append(f"{address} {identity}, and {now}")
    return wrong
