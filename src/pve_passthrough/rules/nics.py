"""Rules about network cards: what the host's own configuration still says about a card that leaves.

1. Which interface belongs to which card is known only while the host's driver holds it, and to a deep look.
2. A card under the management path, the cluster or a bridge is `hazards`' matter.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..knowledge.device_classes import NO_INTX, row_of
from ..model.attached import Interface
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from .subject import Request, chosen, names, show, taken

_KERNEL_NAME = re.compile(r"eth\d+")


def name_in_config(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the host's network configuration name the card's interface?

    Why: When the card is with a guest, or claimed at boot, its interface is not there. A bridge or a bond that lists
        it comes up without it, an address on it is lost, and `ifreload -a` complains about it at every change.
    Look at: /etc/network/interfaces and interfaces.d: `bridge-ports`, `bond-slaves`, `iface NAME`.
    Fix: Take the name out of the file, or the stanza, before the card is given away; `ifreload -a` applies it.
    Source: interfaces(5) and ifupdown2; Proxmox VE administration guide, Network Configuration.
    """
    for interface in _of_taken(facts, request):
        lines = [line for line in interface.named if not _only_manual(interface, line)]
        if lines:
            yield Finding(
                "nics.name-in-config",
                Level.NOTE,
                str(interface.function),
                f"The host's network configuration names {interface.name}, which is not there while a guest has "
                f"{facts.device(interface.function) or interface.function}.",
                tuple(lines[:6]),
                Actor.NOBODY,
                show("Take the name out of these lines, then apply the change.", "ifreload -a"),
            )


def _of_taken(facts: Facts, request: Request) -> list[Interface]:
    if facts.attached is None or request == Request():
        return []
    leaving = {device.address for device in taken(facts, request)}
    return [one for one in facts.attached.interfaces or () if one.function in leaving]


def _only_manual(interface: Interface, line: str) -> bool:
    """`iface NAME inet manual` does nothing by itself; the installer writes one for every card."""
    return re.search(rf"\biface\s+{re.escape(interface.name)}\s+inet6?\s+manual\s*$", line) is not None


def names_may_change(facts: Facts, request: Request) -> Iterator[Finding]:
    """Could other interfaces get another name?

    Why: Names such as eth0 are given in the order in which the drivers find the cards. When a card is claimed for
        vfio-pci at boot, the cards behind it move up: eth1 becomes eth0, and the bridge of the management network
        looks for a card that now has another name. Names by slot or MAC address do not move.
    Look at: `ip -br link`, net.ifnames=0 on the kernel command line.
    Fix: Pin the names first: `pve-network-interface-pinning generate` (Proxmox VE 9), or a .link file in
        /etc/systemd/network with the MAC address; then reboot once, and only then give the card away.
    Source: systemd.net-naming-scheme(7); Proxmox VE administration guide, Network Configuration, Naming Conventions
        and Pinning a specific network device name.
    """
    leaving = _of_taken(facts, request)
    if not leaving or facts.attached is None:
        return
    given = {one.name for one in leaving}
    others = [
        one
        for one in facts.attached.interfaces or ()
        if one.name not in given and _KERNEL_NAME.fullmatch(one.name) and not one.pinned
    ]
    if others:
        yield Finding(
            "nics.names-may-change",
            Level.HARMS,
            str(leaving[0].function),
            f"{names(one.name for one in others)} may get another name once {names(sorted(given))} is gone at boot.",
            tuple(f"/sys/class/net/{one.name}: on {one.function}, named by the kernel's order" for one in others[:8]),
            Actor.NOBODY,
            show("Pin the names by MAC address first, and reboot once.", "pve-network-interface-pinning generate"),
        )


def no_intx(facts: Facts, request: Request) -> Iterator[Finding]:
    """Must the guest's driver use MSI-X?

    Why: The old-style interrupt of these cards cannot be masked as it must be, so vfio-pci shows the guest none. A
        driver that cannot do MSI or MSI-X gets no interrupts, and the kernel's log says "Masking broken INTx support".
    Look at: `dmesg | grep INTx`; in the guest `/proc/interrupts`.
    Fix: None is needed with a current driver. Do not switch MSI off in the guest.
    Source: kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_nointx.
    """
    for device in chosen(facts, request):
        row = row_of(NO_INTX, device)
        if row is not None:
            yield Finding(
                "nics.no-intx",
                Level.NOTE,
                str(device.address),
                f"{device}: {row.text}.",
                (f"{device.address}: {device.id}, {row.name}",),
                Actor.HARDWARE,
                show("Use a guest driver with MSI-X; every current one has it."),
            )
