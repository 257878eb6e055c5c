"""Rules about what the host loses: everything that a guest start takes, held against what the host lives on.

1. The radius is that of `model.blast`: the chosen devices, the guest's other devices, and all members of their groups.
2. Hazard `never` is accepted by nothing. Every other hazard must be named to be accepted.
3. What was not looked at is UNKNOWN: that no use was found proves nothing then.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..model.blast import blast_radius
from ..model.facts import Facts, ResourceMapping, UseKind
from ..model.finding import Actor, Finding, Level
from ..model.lent import lent_to
from ..model.mappings import lines_of
from ..model.pci import Address, Device
from ..model.vm import Vm
from .pools import pool_has_room, roomy_pool, shared_pool
from .storage import pool_steps
from .subject import OUTPUTS_NOT, Request, assigned, chosen, is_local, names, reason, show, taken, uses

__all__ = ["blast_radius"]


def _loss(
    facts: Facts, request: Request, rule: str, kind: UseKind, level: Level, loss: str, hazard: str, way: str
) -> Iterator[Finding]:
    """One finding per device that the guest start takes and the host uses for `kind`."""
    wanted = {device.address for device in chosen(facts, request)}
    for device, detail, vital in uses(facts, taken(facts, request), kind):
        through = "" if device.address in wanted else ", which is in the same IOMMU group,"
        serious = vital or hazard == "never"
        yield Finding(
            rule,
            Level.BLOCKS if serious else level,
            str(device.address),
            f"{device}{through} {loss} ({detail}): the host loses it when the guest starts.",
            (f"{device.address}: {detail}", *_group_line(device)),
            Actor.NOBODY,
            show(way),
            "never" if serious else hazard,
        )


def _group_line(device: Device) -> tuple[str, ...]:
    group = device.iommu_group
    return (f"/sys/bus/pci/devices/{device.address}/iommu_group: {group}",) if group is not None and group >= 0 else ()


_OTHER = "Pass another device, or split the group (another slot, the firmware's ACS switch)."


def root_disk(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the disk that the host's root lies on?

    Why: Proxmox unbinds every member of the group without asking. If the root's disk controller is one of them, the
        host loses its root file system in the same second and must be reset by hand.
    Look at: `findmnt /`, `lsblk -s`, and the group's members.
    Fix: Pass another device, or split the group. Nothing accepts this hazard.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    yield from _loss(
        facts, request, "hazards.root-disk", UseKind.ROOT_DISK, Level.BLOCKS, "carries the host's root", "never", _OTHER
    )


def boot_disk(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take a disk that the host boots from?

    Why: A host whose /boot or ESP went to a guest cannot be changed and may not start again.
    Look at: `findmnt /boot /boot/efi`, `proxmox-boot-tool status`.
    Fix: Pass another device, or split the group. Nothing accepts this hazard.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio; Proxmox VE administration guide, Host Bootloader.
    """
    yield from _loss(
        facts, request, "hazards.boot-disk", UseKind.BOOT_DISK, Level.BLOCKS, "carries boot files", "never", _OTHER
    )


def boot_usb(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the USB controller of the stick that the host boots from?

    Why: Passing a USB controller takes the whole tree behind it, the boot stick included.
    Look at: `pve-passthrough devices --usb --tree`.
    Fix: Plug the stick into a port of another controller, or pass single USB devices instead.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    yield from _loss(
        facts,
        request,
        "hazards.boot-usb",
        UseKind.BOOT_USB,
        Level.HARMS,
        "carries USB storage that the host uses",
        "boot-usb",
        "Plug it into a port of another controller, or pass single USB devices.",
    )


def pool_disk(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take a disk of a pool or volume group?

    Why: The pool loses members while it is in use; ZFS suspends it, LVM reports errors, and two writers on one disk
        destroy it.
    Look at: `zpool status -P`, `pvs`, `cat /proc/mdstat`.
    Fix: Export the pool first and keep the host from importing it, or pass another controller.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio; Proxmox VE administration guide, ZFS on Linux.
    """
    for finding in _loss(
        facts,
        request,
        "hazards.pool-disk",
        UseKind.POOL_DISK,
        Level.BLOCKS,
        "carries disks of a pool",
        "never",
        "Export the pool and keep the host from importing it, or pass another controller.",
    ):
        steps = pool_steps(facts, Address.parse(finding.subject))
        way = show("If the pool is meant to go to the guest, let the host go of it first, then try again:", *steps)
        yield replace(finding, fix=way) if steps else finding


def data_disk(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take a disk that is in use?

    Why: A mounted file system whose disk disappears loses what was not yet written.
    Look at: `findmnt`, `lsblk -s`.
    Fix: Unmount it and take it out of /etc/fstab and of the storage configuration first.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    yield from _loss(
        facts,
        request,
        "hazards.data-disk",
        UseKind.DATA_DISK,
        Level.HARMS,
        "carries disks in use",
        "data-disk",
        "Unmount them and take them out of /etc/fstab and the storage configuration first.",
    )


def management_net(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the network card that the host is reached through?

    Why: With the management bridge's port gone nobody reaches the host any more, neither its web page nor SSH.
    Look at: `ip route get 1.1.1.1`, `bridge link`, /etc/network/interfaces.
    Fix: Move the bridge to another card first. Nothing accepts this hazard.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio; Proxmox VE administration guide, Network
        Configuration.
    """
    yield from _loss(
        facts,
        request,
        "hazards.management-net",
        UseKind.MANAGEMENT_NET,
        Level.BLOCKS,
        "carries the management network",
        "never",
        "Move the management bridge to another card first.",
    )


def cluster_net(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take a card that carries a cluster link?

    Why: A node that loses its corosync links loses quorum; with HA it fences itself, and every guest on it stops.
    Look at: /etc/pve/corosync.conf, `corosync-cfgtool -s`.
    Fix: Move the link to another card first. Nothing accepts this hazard.
    Source: Proxmox VE administration guide, Cluster Manager, Cluster Network; High Availability, Fencing.
    """
    yield from _loss(
        facts,
        request,
        "hazards.cluster-net",
        UseKind.CLUSTER_NET,
        Level.BLOCKS,
        "carries a cluster link",
        "never",
        "Move the cluster link to another card first.",
    )


def bridge_net(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the port of a bridge?

    Why: Guests on that bridge lose their network. A card that is passed through cannot be a bridge port at the same
        time.
    Look at: `bridge link`, /etc/network/interfaces.
    Fix: Take the port out of the bridge first.
    Source: Proxmox VE administration guide, Network Configuration.
    """
    yield from _loss(
        facts,
        request,
        "hazards.bridge-net",
        UseKind.BRIDGE_NET,
        Level.HARMS,
        "is the port of a bridge",
        "bridge-net",
        "Take the port out of the bridge first.",
    )


def storage_net(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the network card that leads to the host's storage?

    Why: Guests with disks on NFS, SMB or iSCSI hang when the way there is gone, backups fail, and whatever waits for
        such a mount cannot be stopped.
    Look at: `findmnt -t nfs,nfs4,cifs`, `iscsiadm -m session`, `ip route get ADDRESS`.
    Fix: Move the storage's address to another card first.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio; Proxmox VE administration guide, Storage: NFS, iSCSI.
    """
    yield from _loss(
        facts,
        request,
        "hazards.storage-net",
        UseKind.STORAGE_NET,
        Level.HARMS,
        "leads to storage that the host uses",
        "storage-net",
        "Move the way to that storage to another card first.",
    )


def keyboard(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the guest take the controller of the keyboard?

    Why: Without a keyboard nobody can choose another kernel or answer the console when something goes wrong.
    Look at: `pve-passthrough devices --usb --tree`.
    Fix: Plug the keyboard into a port of another controller, or make sure that a serial console or SSH works.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    lost = {device.address for device in taken(facts, request)}
    left = [device for device in facts.usb if device.keyboard and device.controller and device.controller not in lost]
    for finding in _loss(
        facts,
        request,
        "hazards.keyboard",
        UseKind.KEYBOARD,
        Level.HARMS,
        "carries the keyboard",
        "keyboard",
        "Plug the keyboard into a port of another controller, or make sure that SSH works.",
    ):
        if left:
            extra = f"{left[0].controller}: {left[0].name or left[0].id} stays with the host"
            yield Finding(
                finding.rule, Level.NOTE, finding.subject, finding.message, (*finding.evidence, extra), fix=finding.fix
            )
        else:
            yield finding


def only_display(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is this the host's only display?

    Why: With its one graphics card in the guest the host has no console: no boot messages, no login, no way to see
        why it does not start. It works, but only for people who can reach the host by SSH or a serial line.
    Look at: `lspci -d ::03xx`, `ls /sys/class/drm`; 3D controllers (class 0302) have no outputs and do not count.
    Fix: Switch on the processor's own graphics in the firmware's setup, add a second card, or prove that SSH or a
        serial console works and accept the hazard by its name: --accept only-display. Or lend the card to the guest
        for as long as it runs: --lend-display.
    Source: Proxmox VE administration guide, PCI(e) passthrough, GPU passthrough; kernel: drivers/video/aperture.c.
    """
    radius = {device.address for device in taken(facts, request)}
    outputs = [device for device in facts.devices if _has_outputs(device) and device.driver != "vfio-pci"]
    lost = [device for device in outputs if device.address in radius]
    left = [device for device in outputs if device.address not in radius]
    if not request.addresses and request.vmid is None:
        left = lost[1:]  # every display is in the radius then: what counts is whether there is a second one
    if not lost or left or _borrowed(facts, request).issuperset(device.address for device in lost):
        return
    serial = {True: " A serial console is set up.", False: " There is no serial console either."}
    yield Finding(
        "hazards.only-display",
        Level.BLOCKS,
        str(lost[0].address),
        f"{names(lost)} {'is' if len(lost) == 1 else 'are'} the only display that the host has left: "
        "its console goes dark when a guest starts with it."
        + ("" if facts.display.serial_console is None else serial[facts.display.serial_console]),
        tuple(f"{device.address}: class {device.class_code or 0:06x}, driver {device.driver}" for device in lost),
        Actor.HARDWARE,
        show(f"{_another_display(lost)}, or make sure of SSH and accept it by name."),
        "only-display",
    )


def _borrowed(facts: Facts, request: Request) -> frozenset[Address]:
    """What the guest gets only for as long as it runs (see handover.lent): whoever lent it knows of the dark screen."""
    return frozenset() if request.vmid is None else lent_to(facts.files, request.vmid)


def _another_display(lost: Sequence[Device]) -> str:
    """The processor's own graphics is no way out where it is what goes."""
    own = any(device.address.bus == 0 for device in lost)
    return "Add a card for the host" if own else "Switch on the processor's own graphics or add a card"


def _has_outputs(device: Device) -> bool:
    return device.is_display and device.subclass != OUTPUTS_NOT and device.physical_function is None


def console(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the host's console run on this device?

    Why: The console's driver and the boot frame buffer hold the card's memory. Taking it away at run time can fail or
        hang, and the console is dark afterwards even though another card is there.
    Look at: /sys/class/graphics/fb0/device, boot_vga in /sys/bus/pci/devices/ADDRESS, /sys/class/vtconsole.
    Fix: Choose the other graphics as primary in the firmware's setup, so that the console moves there.
    Source: kernel: drivers/video/aperture.c, drivers/vfio/pci/vfio_pci_core.c (evicts frame buffers of class 0300
        only).
    """
    if request == Request() or any(True for _ in only_display(facts, request)):
        return  # nobody asked for this card, and some card has to show the console
    radius = taken(facts, request)
    owner = facts.display.console_owner
    owners = [device for device in radius if device.address == owner]
    owners += [d for d, _, _ in uses(facts, radius, UseKind.CONSOLE) if d not in owners]
    for device in (one for one in owners if one.address not in _borrowed(facts, request)):
        yield Finding(
            "hazards.console",
            Level.HARMS,
            str(device.address),
            f"The host's console runs on {device}: it goes dark when a guest starts with it.",
            (f"/sys/class/graphics/fb0: {facts.display.framebuffer or 'frame buffer'} on {device.address}",),
            Actor.FIRMWARE,
            show("Choose the other graphics as primary in the firmware's setup."),
            "console",
        )


def guest_conflict(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does another guest claim one of these devices?

    Why: Two guests may name one device, but only one of them can run: the second start fails with "PCI device already
        in use by VMID". Through a shared group a guest can even lose a device that it is using.
    Look at: `grep -r hostpci /etc/pve/nodes/*/qemu-server`, /run/qemu-server/pci-id-reservations.
    Fix: Take the device out of the other guest (`qm set VMID --delete hostpciN`), or never run both.
    Source: qemu-server PCI.pm, reserve_pci_usage; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    if not request.addresses and request.vmid is None:
        yield from _twice(facts)
        return
    radius = {device.address: device for device in taken(facts, request)}
    radius |= {device.address: device for device in chosen(facts, request)}
    mine = facts.guest(request.vmid) if request.vmid is not None else None
    settled = mine is not None and assigned(mine, request)
    for guest in facts.guests or ():
        if guest.vmid == request.vmid or not is_local(facts, guest):
            continue
        for key, hit in _claims(guest, radius):
            pool = shared_pool(facts, guest, key, mine, hit)
            if pool is None:
                yield _conflict(guest, key, hit, settled)
            elif not pool_has_room(facts, pool, request.vmid):
                yield _pool_is_empty(facts, guest, pool, hit)


def _claims(guest: Vm, radius: dict[Address, Device]) -> Iterator[tuple[str, list[Device]]]:
    for entry in guest.hostpci:
        hit = [radius[address] for address in entry.addresses if address in radius]
        if hit:
            yield entry.key, hit


def _conflict(guest: Vm, key: str, hit: list[Device], settled: bool) -> Finding:
    state = {True: "is running with", False: "also claims", None: "also claims"}[guest.running]
    level = Level.BLOCKS if guest.running else (Level.NOTE if settled else Level.HARMS)
    return Finding(
        "hazards.guest-conflict",
        level,
        str(hit[0].address),
        f"{guest.name} ({guest.vmid}) {state} {names(hit)}: only one guest can have it.",
        (f"/etc/pve/nodes/{guest.node}/qemu-server/{guest.vmid}.conf: {key}: {guest.value(key) or ''}",),
        Actor.NOBODY,
        show("Take it out of the other guest, or never run both.", f"qm set {guest.vmid} --delete {key}"),
        "" if settled and not guest.running else "guest-conflict",
    )


def _pool_is_empty(facts: Facts, guest: Vm, pool: ResourceMapping, hit: list[Device]) -> Finding:
    count = len(lines_of(pool, facts.pve.node))
    return Finding(
        "hazards.guest-conflict",
        Level.BLOCKS,
        str(hit[0].address),
        f"All {count} members of the pool {pool.name} are taken by running guests, {guest.name} ({guest.vmid}) among "
        "them.",
        (f"/etc/pve/nodes/{guest.node}/qemu-server/{guest.vmid}.conf: mapping={pool.name}",),
        Actor.NOBODY,
        show("Stop one of them, or add a member.", f"pve-passthrough mapping add {pool.name} DEVICE"),
        "guest-conflict",
    )


def _twice(facts: Facts) -> Iterator[Finding]:
    """Without a request: devices that more than one guest of this node claims."""
    owners: dict[Address, list[Vm]] = {}
    for guest in facts.guests or ():
        if is_local(facts, guest):
            own = (entry for entry in guest.hostpci if not roomy_pool(facts, entry))
            for address in sorted({address for entry in own for address in entry.binds}):
                owners.setdefault(address, []).append(guest)
    for address, claimants in sorted(owners.items()):
        if len(claimants) > 1:
            yield Finding(
                "hazards.guest-conflict",
                Level.NOTE,
                str(address),
                f"{facts.device(address) or address} is claimed by {names(f'{g.name} ({g.vmid})' for g in claimants)}: "
                "only one of them can run.",
                tuple(f"/etc/pve/nodes/{g.node}/qemu-server/{g.vmid}.conf: hostpci" for g in claimants),
            )


def unknown_uses(facts: Facts, request: Request) -> Iterator[Finding]:
    """Was everything looked at that the host may need?

    Why: Proxmox does not ask what the host loses, so this has to be known before. Where disks, network, console or
        keyboard could not be looked at, "no use found" proves nothing.
    Look at: the gaps in the report; run as root on the host itself.
    Fix: Run the check as root on the host, or make a capture there.
    Source: pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio (binds without any such check).
    """
    if not request.addresses and request.vmid is None:
        return
    if request.vmid is not None and not request.addresses and not chosen(facts, request):
        return
    missing = [what for what in ("disks", "network", "console", "keyboard") if what not in facts.uses_known]
    if missing:
        yield Finding(
            "hazards.unknown-uses",
            Level.UNKNOWN,
            "host",
            f"Whether the host needs one of these devices for its {' or '.join(missing)}, nobody could say.",
            tuple(dict.fromkeys(reason(facts, f"uses.{what}", "uses") for what in missing)),
        )
