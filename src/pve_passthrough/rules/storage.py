"""Rules about controllers with disks: would the host take the disks again that a guest is to have?

1. A pool that is imported now is `hazards.pool-disk`'s matter; here are those that are not, and would be.
2. What nobody looked at gives no finding: only a deep look knows what lies on disks.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.disk_contents import TAKEN_BY_ITSELF, importers, pool_of
from ..model.attached import Disk
from ..model.facts import Facts, UseKind
from ..model.finding import Actor, Finding, Level
from ..model.pci import Address, Device
from .bootfiles import address_claims
from .subject import Request, chosen, names, show, up, uses


def would_import(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would the host take these disks again at its next boot?

    Why: A pool, volume group or array that is exported or inactive now is found again when the host boots: by
        zpool.cache, by zfs-import-scan while there is no cache, by a zfs-import@ unit, by a Proxmox storage (pvestatd
        activates every enabled storage some seconds later, and a zfspool storage imports its pool), by LVM's and md's
        own detection. The guest has not started by then. Two systems that write to one pool destroy it, and a pool
        whose controller is taken away while it is imported hangs the host.
    Look at: `lsblk -o NAME,FSTYPE,LABEL`, `zpool list`, `systemctl list-unit-files 'zfs-import*'`,
        /etc/pve/storage.cfg.
    Fix: A plan claims the controller at boot by its address, before the host's driver sees it: no driver, no disks.
        Disable the storage as well: `pvesm set NAME --disable 1`.
    Source: OpenZFS, etc/systemd/system/zfs-import-scan.service and zfs-import-cache.service; pve-storage,
        ZFSPoolPlugin.pm (activate_storage), API2/Disks/ZFS.pm; udev rules of lvm2 and mdadm.
    """
    if facts.attached is None or not facts.attached.disks or (not request.addresses and request.vmid is None):
        return
    claimed = address_claims(facts)
    for device in chosen(facts, request):
        if str(device.address) in claimed or any(True for _ in uses(facts, (device,), UseKind.POOL_DISK)):
            continue
        disks = [disk for disk in facts.attached.disks if device.address in disk.functions and disk.kind]
        for name, members in _pools(disks).items():
            yield _taken_again(facts, request, device, name, members)


def _pools(disks: list[Disk]) -> dict[str, list[Disk]]:
    """Members by what they belong to; what nothing takes by itself is left out."""
    found: dict[str, list[Disk]] = {}
    for disk in disks:
        if disk.kind in TAKEN_BY_ITSELF:
            found.setdefault(pool_of(disk), []).append(disk)
    return found


def _taken_again(facts: Facts, request: Request, device: Device, name: str, members: list[Disk]) -> Finding:
    by = importers(facts, members[0])
    storages = [word for word in by.storages if word]
    return Finding(
        "storage.would-import",
        Level.HARMS,
        str(device.address),
        f"{device} carries {name} ({names(disk.name for disk in members)}): {by.words}.",
        tuple(f"/dev/{disk.name}: {disk.kind} {disk.label}".rstrip() for disk in members[:8]) + by.evidence,
        Actor.US,
        show(
            "A plan claims the controller at boot, so that the host never sees these disks"
            + (", and the storage must not ask for them." if storages else "."),
            *(f"pvesm set {storage} --disable 1" for storage in storages),
            up(facts, request, device),
        ),
    )


def storage_asks(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a Proxmox storage want what is on these disks?

    Why: An enabled storage is activated every few seconds and before a guest starts. When its pool or volume group
        went to a guest, every such attempt fails and fills the log, and guests with volumes there do not start.
    Look at: /etc/pve/storage.cfg; `pvesm status`.
    Fix: Disable the storage: `pvesm set NAME --disable 1`. In a cluster, limit it to the nodes that have it.
    Source: pve-storage, ZFSPoolPlugin.pm and LVMPlugin.pm (activate_storage); pve-manager, pvestatd.
    """
    if facts.attached is None or not facts.attached.disks:
        return
    given = {device.address: device for device in chosen(facts, request)}
    seen: set[str] = set()
    for disk in facts.attached.disks:
        device = next((given[address] for address in disk.functions if address in given), None)
        for storage in importers(facts, disk).storages if device is not None else ():
            if storage not in seen and device is not None:
                seen.add(storage)
                yield Finding(
                    "storage.asks",
                    Level.HARMS,
                    str(device.address),
                    f"The storage {storage} wants {pool_of(disk)}, which lies behind {device}.",
                    (f"/etc/pve/storage.cfg: {storage}",),
                    Actor.NOBODY,
                    show("Disable the storage first.", f"pvesm set {storage} --disable 1"),
                )


def pool_steps(facts: Facts, address: Address) -> tuple[str, ...]:
    """Commands that take the host's hands off the ZFS pools and volume groups behind a function; empty when what lies
    there is not known."""
    commands: dict[str, None] = {}
    for disk in (facts.attached.disks if facts.attached else None) or ():
        if address in disk.functions and disk.kind == "zfs_member" and disk.label:
            commands |= {f"pvesm set {storage} --disable 1": None for storage in importers(facts, disk).storages}
            commands[f"zpool export {disk.label}"] = None
    return tuple(commands)
