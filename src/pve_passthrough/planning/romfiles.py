"""A ROM file for a function that a guest has: where the file goes, and which hostpci entry names it.

1. Pure, as all planning: what the file holds and what stands under its name is handed in.
2. An entry's ROM file goes to its first function and to no other. Any other function gets an entry of its own.
   Source: qemu-server, QemuServer/PCI.pm, print_hostpci_devices (romfile, rombar and x-vga where `$j == 0`).
3. QEMU looks for the file below /usr/share/kvm, on the node where the guest starts. Source: the same.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import Exit, Failure
from ..knowledge.rom_marks import fits_firmware
from ..model.cards import processor_functions
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Address, Device
from ..model.plan import Cell, Change, Plan
from ..model.rom import Rom
from ..model.vm import ROM_DIR, HostPci, Vm
from ..model.wish import VmOption
from .goals import changeable_guest, free_key, refuse_busy

NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9._+()-]{0,99}")
"""Narrower than Proxmox VE's own `[^,;]+`: a name that no shell and no property string reads differently."""


def install(
    facts: Facts,
    device: Device,
    vmid: int,
    name: str,
    text: str,
    standing: str | None,
    rom: Rom,
    *,
    now: str,
    machine: str,
) -> Plan:
    """The plan that lays `text` down as `name` and lets the guest's entry of `device` name it. Raises Failure.

    standing  what lies under that name now; None: nothing
    now       `YYYYMMDD-HHMMSS`, names the run
    """
    guest = changeable_guest(facts, vmid)
    if standing is not None and standing != text:
        raise Failure(
            "rom.other-file", f"Nothing was planned: {ROM_DIR}/{name} is there already, and it is another file.",
            hint="Choose another name: --name NAME.", code=Exit.REFUSED,
        )  # fmt: skip
    why = f"the ROM that {device} shows to guest {vmid}"
    files = [] if standing == text else [Change(Cell("file", f"{ROM_DIR}/{name}"), None, text, why)]
    wishes = _entries(guest, device, name)
    if files or wishes:
        refuse_busy(facts, guest)
    options = [
        Change(Cell("vm", f"{vmid}/{wish.key}"), guest.config.get(wish.key), wish.value, wish.why) for wish in wishes
    ]
    return Plan(
        id=f"{now}-rom-{vmid}",
        machine=machine,
        goal=f"give the ROM {name} to {device.address} of guest {vmid}",
        wishes=tuple(wishes),
        changes=(*files, *options),
        risks=tuple(_risks(facts, guest, device, rom)),
        vmid=vmid,
        devices={str(device.address): device.id},
    )


def _entries(guest: Vm, device: Device, name: str) -> list[VmOption]:
    """The guest's entry with the ROM file, or the entry split in two; empty when it names the file already."""
    entry = next((entry for entry in guest.hostpci if device.address in entry.addresses), None)
    if entry is None:
        raise Failure(
            "rom.not-given", f"Nothing was planned: guest {guest.vmid} ({guest.name}) does not have {device}.",
            hint=f"Give it first: pve-passthrough up {device.address} --vm {guest.vmid}", code=Exit.REFUSED,
        )  # fmt: skip
    _refuse_odd(guest, entry)
    options = dict(entry.options)
    if entry.addresses[0] == device.address:
        if options.get("romfile") == name:
            return []
        value = _joined(options | {"romfile": name})
        return [VmOption(guest.vmid, entry.key, value, f"{device} shows the ROM {name} instead of its own")]
    return _split(guest, entry, device.address, name)


def _refuse_odd(guest: Vm, entry: HostPci) -> None:
    """Entries in which a ROM file would do nothing, and those that somebody else is changing."""
    if entry.key in guest.pending or entry.key in guest.deleting:
        raise Failure(
            "guest.pending", f"Nothing was planned: guest {guest.vmid} has an unapplied change of {entry.key}.",
            hint=f"Start and stop the guest, or take it back: qm set {guest.vmid} --revert {entry.key}",
        )  # fmt: skip
    if "rombar" in entry.options and not entry.on("rombar"):
        raise Failure(
            "rom.no-window", f"Nothing was planned: {entry.key} of guest {guest.vmid} has rombar=0, "
            "so the guest would not see the ROM.", f"{entry.key}: {guest.config.get(entry.key, '')}",
            hint=f"Take rombar=0 out of it first: qm set {guest.vmid} --{entry.key} "
            f"'{_joined({key: text for key, text in entry.options.items() if key != 'rombar'})}'", code=Exit.REFUSED,
        )  # fmt: skip
    if "mdev" in entry.options:
        raise Failure(
            "rom.mediated", f"Nothing was planned: {entry.key} of guest {guest.vmid} is a mediated device, "
            "which has no ROM of its own.", code=Exit.REFUSED,
        )  # fmt: skip


def _split(guest: Vm, entry: HostPci, address: Address, name: str) -> list[VmOption]:
    """Two entries: what is left of the present one, and one for this function with its ROM file."""
    rest = [other for other in entry.addresses if other != address]
    key = free_key(guest, {*guest.config})
    pcie = ",pcie=1" if entry.on("pcie") else ""
    first = _joined({"host": ";".join(map(str, rest))} | {k: v for k, v in entry.options.items() if k != "host"})
    second = f"{address}{pcie},romfile={name}"
    if entry.mapping:
        raise Failure(
            "rom.mapped", f"Nothing was planned: {entry.key} of guest {guest.vmid} takes {address} through the mapping "
            f"{entry.mapping}, and an entry's ROM file goes to its first function only.",
            hint=f"Make a mapping for {address} alone, take it out of {entry.mapping}, and then: "
            f"qm set {guest.vmid} --{key} mapping=NAME{pcie},romfile={name}", code=Exit.REFUSED,
        )  # fmt: skip
    why = f"an entry's ROM file goes to its first function only, so {address} gets an entry of its own"
    return [VmOption(guest.vmid, entry.key, first, why), VmOption(guest.vmid, key, second, why)]


def _joined(options: Mapping[str, str]) -> str:
    """A hostpci value: the address first and bare, everything else by name."""
    rest = [f"{key}={text}" for key, text in options.items() if key != "host"]
    return ",".join(([options["host"]] if "host" in options else []) + rest)


# -- what the file does not do -----------------------------------------------------------------------


def _risks(facts: Facts, guest: Vm, device: Device, rom: Rom) -> Sequence[Finding]:
    found = []
    ovmf = guest.value("bios") == "ovmf"
    # The video BIOS of an AMD processor is meant for the guest's driver; OVMF's part is a second file, for the sound.
    if not fits_firmware(rom, ovmf) and not processor_functions(facts, device):
        firmware = "OVMF" if ovmf else "SeaBIOS"
        found.append(
            Finding(
                "rom.firmware", Level.NOTE, f"vm:{guest.vmid}",
                f"Guest {guest.vmid} starts with {firmware}, and the file has no image for it: the card stays dark "
                "until the guest's own driver starts it.", (f"bios: {guest.value('bios') or 'seabios'}",), Actor.NOBODY,
            )
        )  # fmt: skip
    if len(facts.pve.nodes or ()) > 1:
        found.append(
            Finding(
                "rom.one-node", Level.NOTE, f"vm:{guest.vmid}",
                f"{ROM_DIR} belongs to this node alone: on another node the guest does not start without the file.",
                tuple(f"node: {node}" for node in facts.pve.nodes or ()), Actor.NOBODY,
            )
        )  # fmt: skip
    return found
