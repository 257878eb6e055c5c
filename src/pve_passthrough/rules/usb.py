"""Rules about USB: single devices that guests have or shall have, and all that goes with a whole controller.

1. A single device is the business of QEMU and usbfs: no IOMMU, no group and no driver of ours has a part in it.
2. What a guest has is read from its usbN entries; what it shall have is in the request.
3. A device that is not plugged in is told and is no fault: guests start without it, unless a mapping names it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator

from ..knowledge.usb_devices import changeling, is_serial, kinds
from ..knowledge.usb_guests import FEW, modern, slots
from ..model.facts import Facts, UsbUse, UseKind
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from ..model.usb import UsbDevice
from ..model.usb_guest import UsbEntry, all_entries, claims, claims_by_port, matching, usb_entries
from ..model.vm import Vm
from .subject import Request, are, chosen, is_local, names, reason, show, taken, unknown

_SHOWN = 12
_HAZARDS = {
    UseKind.KEYBOARD: "keyboard",
    UseKind.BRIDGE_NET: "bridge-net",
    UseKind.DATA_DISK: "data-disk",
}
"""Uses that people may give up by name. All others cost the host itself; nothing accepts these."""


def _entries(facts: Facts, request: Request) -> Iterator[tuple[Vm, UsbEntry]]:
    """Entries of the guest asked for, else of every guest of this node."""
    if request.vmid is None:
        yield from all_entries(facts)
        return
    guest = facts.guest(request.vmid)
    if guest is not None and is_local(facts, guest):
        for entry in usb_entries(facts, guest):
            yield guest, entry


def _asked(facts: Facts, request: Request) -> tuple[UsbDevice, ...]:
    """Devices that the request names, and those that the guest asked for has."""
    ports = dict.fromkeys(request.usb)
    if request.vmid is not None:
        ports |= dict.fromkeys(
            device.port for _, entry in _entries(facts, request) for device in matching(facts, entry)[:1]
        )
    return tuple(device for port in ports if (device := facts.usb_at(port)) is not None)


def _line(device: UsbDevice) -> str:
    words = ", ".join(kinds(device))
    return f"{device.port}: {device.id} {device.name}".rstrip() + (f" ({words})" if words else "")


def _entry_line(vm: Vm, entry: UsbEntry) -> str:
    return f"guest {vm.vmid}: {entry.key}: {entry.value}"


# -- whole controllers ---------------------------------------------------------------------------


def controller(facts: Facts, request: Request) -> Iterator[Finding]:
    """What goes along with a whole USB controller?

    Why: A controller takes its root hubs, all hubs behind them and everything that is plugged in, now and later: the
        keyboard, a stick, a UPS, the serial adapter of another guest.
    Look at: `pve-passthrough usb`: the tree below the controller.
    Fix: Give the guest single devices, or move what shall stay to a port of another controller.
    Source: pve-common, SysFSTools.pm, pci_dev_group_bind_to_vfio; kernel: drivers/usb/core/hcd-pci.c,
        usb_hcd_pci_remove.
    """
    wanted = {device.address for device in chosen(facts, request)}
    for device in taken(facts, request):
        if device.subclass == _USB_HOST and (request.addresses or request.vmid is not None):
            yield _what_goes(facts, device, device.address in wanted)


_USB_HOST = 0x0C03
"""Serial bus controller, USB (PCI code and ID assignment specification)."""


def _what_goes(facts: Facts, device: Device, named: bool) -> Finding:
    subject = str(device.address)
    behind = [one for one in facts.usb if one.controller == device.address]
    leaving = [one for one in behind if not one.hub]
    if not facts.usb and facts.gap("usb.devices") is not None:
        why = reason(facts, "usb.devices")
        return unknown("usb.controller", subject, f"What hangs on {device} is unknown.", why)
    if device.driver == "vfio-pci":
        return Finding("usb.controller", Level.FINE, subject, f"The host has given {device} away already.")
    through = "" if named else ", which leaves with its IOMMU group,"
    if not leaving:
        return Finding("usb.controller", Level.FINE, subject, f"Nothing is plugged into {device}{through or ''}.")
    hubs = [one for one in behind if one.hub and not one.root_hub]
    count = f"{len(leaving)} USB device{'s' if len(leaving) > 1 else ''}"
    others = [f"{vm.vmid} ({entry.key})" for one in leaving for vm, entry in claims(facts, one)]
    lines = [_line(one) for one in leaving[:_SHOWN]]
    lines += [f"more: {len(leaving) - _SHOWN}"] if len(leaving) > _SHOWN else []
    lines += [f"guest {other}: has one of these by itself" for other in dict.fromkeys(others)]
    return Finding(
        "usb.controller",
        Level.NOTE,
        subject,
        f"{device}{through} takes {count}"
        + (f" and {len(hubs)} hub{'s' if len(hubs) > 1 else ''}" if hubs else "")
        + f" along: {names([one.name or one.id for one in leaving[:4]] + (['others'] if len(leaving) > 4 else []))}.",
        tuple(lines),
        fix=show("Move what shall stay to another controller, or give single devices.", "pve-passthrough usb"),
    )


# -- what the host needs -------------------------------------------------------------------------


def host_uses(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the host need the USB device itself?

    Why: QEMU takes a device from the host's driver without asking: a mounted disk is gone with all that was not yet
        written, a network adapter with the connection that runs over it, a keyboard with the way to the console.
    Look at: `pve-passthrough usb`; `findmnt`, `ip address`, `lsusb -t`.
    Fix: Unmount it, take it out of the bridge, or give another device. Whether a program holds a serial device open
        cannot be seen from here.
    Source: QEMU: hw/usb/host-libusb.c, usb_host_detach_kernel; kernel: drivers/usb/core/devio.c.
    """
    devices = _asked(facts, request)
    for device in devices:
        for use in facts.usb_uses_of(device.port):
            yield _use(facts, devices, device, use, device.port in request.usb)
        if device.storage and "disks" not in facts.uses_known:
            yield unknown(
                "usb.host-uses", device.port, f"Whether the host uses {device} is unknown.", reason(facts, "uses.disks")
            )


def _use(facts: Facts, leaving: Iterable[UsbDevice], device: UsbDevice, use: UsbUse, new: bool) -> Finding:
    """`new`: the guest shall get it now. What it has already is told, and needs no name again."""
    ports = {one.port for one in leaving}
    left = [one for one in facts.usb if one.keyboard and one.port not in ports]
    evidence = (f"{device.port}: {use.kind.value}: {use.detail}",)
    if use.kind is UseKind.KEYBOARD:
        if left:
            text = f"{device} is a keyboard of the host; {left[0]} stays."
            return Finding("usb.host-uses", Level.NOTE, device.port, text, evidence)
        text = f"{device} is the host's only keyboard: nobody could type at its console while the guest has it."
        way = "Plug in another keyboard, or make sure that SSH works."
    else:
        text = f"The host uses {device} ({use.detail}): it loses it at once when the guest gets it."
        way = "Unmount it, or take it out of the network's configuration first; or give another device."
    hazard = "never" if use.vital else _HAZARDS.get(use.kind, "never")
    level = Level.BLOCKS if hazard == "never" else Level.HARMS
    hazard = hazard if new or hazard == "never" else ""
    return Finding("usb.host-uses", level, device.port, text, evidence, Actor.NOBODY, show(way), hazard)


# -- what guests have ----------------------------------------------------------------------------


def two_guests(facts: Facts, request: Request) -> Iterator[Finding]:
    """Do two guests claim one USB device?

    Why: One QEMU can have a device at a time. Proxmox VE does not check: the second guest starts without the device and
        says nothing, and gets it the moment the first one stops.
    Look at: `grep ^usb /etc/pve/qemu-server/*.conf`; `pve-passthrough usb`.
    Fix: Take it away from one of them. To take turns is fine when they never run at the same time.
    Source: qemu-server, QemuServer/USB.pm (nothing is reserved); QEMU: hw/usb/host-libusb.c, usb_host_open.
    """
    asked = {device.port for device in _asked(facts, request)}
    claimed = claims_by_port(facts)
    for device in facts.usb:
        having = claimed.get(device.port, [])
        owners = {vm.vmid for vm, _ in having} | ({request.vmid} if device.port in request.usb else set()) - {None}
        if len(owners) < 2 or not (request == Request() or device.port in asked):
            continue
        others = [vm for vm, _ in having if vm.vmid != request.vmid]
        free = all(len(matching(facts, entry)) > 1 for _, entry in having)
        yield Finding(
            "usb.two-guests",
            Level.NOTE if free else Level.HARMS,
            device.port,
            f"{device} is claimed by {names([f'guest {vm.vmid} ({vm.name})' for vm in others])}"
            + (f" and by guest {request.vmid}" if request.vmid is not None else "")
            + ": whichever starts first has it.",
            tuple(_entry_line(vm, entry) for vm, entry in having),
            Actor.NOBODY,
            show(
                "Take it away from one of them.",
                *(f"pve-passthrough usb remove usb:{device.port} --vm {vm.vmid}" for vm in others[:1]),
            ),
            "" if free or device.port not in request.usb else "guest-conflict",
        )


def mapping(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest start with its USB mapping?

    Why: With host= a guest starts although the device is absent. With a mapping it does not: Proxmox VE looks whether a
        device with the mapping's ID is there (at its path, when it names one), and exactly one line for the node.
    Look at: `cat /etc/pve/mapping/usb.cfg`, `pve-passthrough usb`.
    Fix: Plug the device in, write what is there into the mapping, or name the device itself.
    Source: pve-guest-common, Mapping/USB.pm, assert_valid; recorded starts of 8.4 and 9.2 ("USB Mapping invalid
        (hardware probably changed)", "More than one USB mapping per host not supported").
    """
    for vm, entry in _entries(facts, request):
        fault = _mapping_fault(facts, entry)
        if fault and facts.usb:
            yield Finding(
                "usb.mapping", Level.HARMS, f"vm:{vm.vmid}",
                f"Guest {vm.vmid} ({vm.name}) will not start: mapping {entry.mapping}: {fault}.",
                (_entry_line(vm, entry),), Actor.NOBODY,
                show("Plug it in, mend the mapping, or take the entry away.",
                     f"pve-passthrough usb remove {entry.key} --vm {vm.vmid}"),
            )  # fmt: skip


def _mapping_fault(facts: Facts, entry: UsbEntry) -> str:
    if not entry.mapping or entry.fault:
        return entry.fault
    found = matching(facts, entry)
    if not found:
        return f"{entry.port or entry.id or 'what it names'} is not plugged in"
    return "" if entry.expected == found[0].id else f"it says {entry.expected}, and at {found[0].port} is {found[0].id}"


def limit(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the guest have USB devices in all these entries?

    Why: usb5 to usb13 need QEMU's own xHCI controller: a machine from 7.1 on, and Linux or Windows 8 and later as
        `ostype`. Proxmox VE stores such an entry for every guest and refuses the start.
    Look at: `qm config ID`: usbN, machine, ostype.
    Fix: Set the ostype that is true, unpin an old machine version, or use usb0 to usb4.
    Source: qemu-server, QemuServer/USB.pm, assert_usb_index_is_useable: "using usb5 is only possible with machine type
        >= 7.1 and ostype l26 or windows > 7".
    """
    for vm in dict.fromkeys(vm.vmid for vm, _ in _entries(facts, request)):
        guest = facts.guest(vm)
        if guest is None or modern(guest):
            continue
        beyond = [entry for entry in usb_entries(facts, guest) if entry.slot >= FEW]
        if beyond:
            yield Finding(
                "usb.limit", Level.HARMS, f"vm:{vm}",
                f"Guest {vm} ({guest.name}) will not start: it can have {slots(guest)} USB devices, "
                f"and {names([entry.key for entry in beyond])} {are(beyond)} beyond that.",
                (
                    *(_entry_line(guest, entry) for entry in beyond),
                    f"machine: {guest.value('machine') or 'default'}, ostype: {guest.value('ostype') or 'not set'}",
                ),
                Actor.NOBODY,
                show("Set the ostype that is true, or use usb0 to usb4."),
            )  # fmt: skip


def port_moved(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is another device plugged into the guest's port than the one that was given?

    Why: An entry by port takes whatever is plugged in there. When people change plugs, the guest gets the other device
        without a word, be it the backup disk.
    Look at: `pve-passthrough usb`.
    Fix: Plug it back, or name the device anew.
    Source: QEMU: hw/usb/host-libusb.c, usb_host_auto_check compares bus and port alone when they are given.
    """
    for vm, entry in _entries(facts, request):
        was = _given_as(facts, vm, entry.port) if entry.port and not entry.mapping else ""
        now = facts.usb_at(entry.port) if was else None
        row = changeling(was)
        elsewhere = [one for one in facts.usb if one.id == was and one.port != entry.port]
        if not was or (now is None and not elsewhere) or (now is not None and now.id == was):
            continue
        if now is not None and row is not None and now.id in row.ids:
            continue
        there = f"{now.id} {now.name}".rstrip() if now is not None else "nothing"
        yield Finding(
            "usb.port-moved", Level.HARMS, f"vm:{vm.vmid}",
            f"Guest {vm.vmid} ({vm.name}) was given {was} at port {entry.port}, and {there} is plugged in there now.",
            (_entry_line(vm, entry), *(f"{one.port}: {one.id} {one.name}".rstrip() for one in elsewhere)),
            Actor.HARDWARE,
            show("Plug it back, or name it anew.",
                 f"pve-passthrough usb remove {entry.key} --vm {vm.vmid}",
                 *(f"pve-passthrough usb add usb:{one.port} --vm {vm.vmid}" for one in elsewhere[:1])),
        )  # fmt: skip


def _given_as(facts: Facts, vm: Vm, port: str) -> str:
    """vendor:product of what the latest kept run gave to the guest at this port; empty when nobody remembers."""
    given = (one.usb[port] for one in reversed(facts.assignments) if one.vmid == vm.vmid and port in one.usb)
    return next(given, "")


def absent(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a USB device that the guest claims plugged in?

    Why: The guest starts without it. QEMU attaches it when it appears, and again whenever it comes back.
    Look at: `pve-passthrough usb`, `lsusb`.
    Fix: Plug it in when the guest needs it.
    Source: QEMU: hw/usb/host-libusb.c, usb_host_auto_check; recorded starts with an absent device.
    """
    for vm, entry in _entries(facts, request):
        if entry.mapping or entry.spice or not facts.usb:
            continue
        if not (entry.id or entry.port):
            yield Finding(
                "usb.absent", Level.HARMS, f"vm:{vm.vmid}",
                f"Guest {vm.vmid} ({vm.name}): {entry.key} names no device in a form that Proxmox VE knows.",
                (_entry_line(vm, entry),), Actor.NOBODY,
                show("Take it away.", f"pve-passthrough usb remove {entry.key} --vm {vm.vmid}"),
            )  # fmt: skip
        elif not matching(facts, entry):
            yield Finding(
                "usb.absent", Level.NOTE, f"vm:{vm.vmid}",
                f"Guest {vm.vmid} ({vm.name}): {entry.names} is not plugged in; the guest starts without it and gets "
                "it when it appears.",
                (_entry_line(vm, entry),),
            )  # fmt: skip


def twins(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest's entry fit several devices?

    Why: By vendor:product QEMU takes the first device that fits; with twins plugged in, which one that is may change
        from start to start.
    Look at: `lsusb`: the same ID more than once.
    Fix: Name the device by its port.
    Source: QEMU: hw/usb/host-libusb.c, usb_host_auto_check.
    """
    for vm, entry in _entries(facts, request):
        found = matching(facts, entry)
        mine = [one for one in usb_entries(facts, vm) if one.id == entry.id]
        if entry.id and len(found) > len(mine):
            yield Finding(
                "usb.twins", Level.HARMS, f"vm:{vm.vmid}",
                f"Guest {vm.vmid} ({vm.name}): {entry.names} fits {len(found)} devices, and the guest gets any one.",
                (_entry_line(vm, entry), *(_line(one) for one in found)), Actor.NOBODY,
                show("Name it by its port.", f"pve-passthrough usb add usb:{found[0].port} --vm {vm.vmid} --by port"),
            )  # fmt: skip


def re_enumerates(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device come back under another ID?

    Why: Some devices leave the bus and come back as another one, when firmware is loaded or a mode is switched. An
        entry by vendor:product loses them at that moment, and with a mapping, which holds the ID against what is there,
        the next start fails.
    Look at: `lsusb` before and after the first use.
    Fix: Name it by its port, or pass the whole controller.
    Source: blakeblackshear/frigate issue 1807 (Coral); openvinotoolkit/openvino issue 2933; knowledge of this program,
        with a source for each row.
    """
    for vm, entry in _entries(facts, request):
        row = changeling(entry.expected or entry.id)
        if row is None:
            continue
        found = matching(facts, entry)
        port = found[0].port if found else "PORT"
        loss = f"will lose the {row.family}"
        if entry.mapping:
            loss = f"will not start once the {row.family} has changed"
        yield Finding(
            "usb.re-enumerates", Level.HARMS, f"vm:{vm.vmid}",
            f"Guest {vm.vmid} ({vm.name}) {loss}: {row.changes}.",
            (_entry_line(vm, entry), f"{entry.expected or entry.id}: {row.source}"), Actor.NOBODY,
            show("Name it by its port.", f"pve-passthrough usb add usb:{port} --vm {vm.vmid} --by port"),
        )  # fmt: skip


def serial_path(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would a serial port serve better than the USB adapter?

    Why: A serial adapter (ZigBee, Z-Wave, a UPS cable, a meter) can stay with the host and reach the guest as serial0
        through its stable path: the name is the adapter's own, whatever port it is in and whatever else is plugged in,
        and the guest needs no driver for it. That QEMU opens it again when it was pulled meanwhile is unverified.
    Look at: /dev/serial/by-id; `pve-passthrough usb`.
    Fix: `qm set ID --serial0 /dev/serial/by-id/…`, and no usbN entry for the same adapter. Only root may do that, and
        the guest must be restarted.
    Source: qemu-server, serialN in qm.conf(5); Koenkk/zigbee2mqtt issues 23761 and 23282.
    """
    for device in _asked(facts, request):
        if is_serial(device) and device.paths:
            vmid = "ID" if request.vmid is None else request.vmid
            yield Finding(
                "usb.serial-path", Level.NOTE, device.port,
                f"{device} is a serial adapter: as serial0 it would reach the guest by a name that stays.",
                _paths(device), Actor.NOBODY,
                show("Instead of a USB device:", f"qm set {vmid} --serial0 {device.paths[0]}"),
            )  # fmt: skip


def _paths(device: UsbDevice) -> tuple[str, ...]:
    drivers = ", ".join(device.drivers) or "unknown"
    return (*(f"{device.port}: {path}" for path in (device.paths or ())[:2]), f"host driver: {drivers}")
