"""What Proxmox VE does with a guest that has devices, beyond starting it; since which version, and who says so.

1. Rows and predicates; nothing here judges whether it is good.
2. A version is that of the package that does it; where no source names one, there is none.
3. What ties a guest to its node is worked out as Proxmox does it before a migration.
   Source: qemu-server, PVE/QemuMigrate/Helpers.pm, check_local_resources; recorded: GET …/migrate on 9.2 (rows
   start-649 and mapstart-760: local_resources, mapped-resources).
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from shlex import quote

from ..model.blast import blast_radius
from ..model.facts import Facts, ResourceMapping, Storage
from ..model.lifecycle import BackupJob
from ..model.value import dataclass
from ..model.vm import Vm, gives_usb, parse_options

_TRUE = frozenset({"1", "on", "yes", "true"})
_DISK = re.compile(r"(?:ide|sata|scsi|virtio|efidisk|tpmstate)[0-9]{1,2}")
_DEVICE = re.compile(r"(?:hostpci|usb|serial|parallel)[0-9]{1,2}")


@dataclass(frozen=True, slots=True)
class Row:
    """One operation. `since`: the version that brought the behaviour, empty: as long as 8.0 at least."""

    operation: str
    what: str
    since: str = ""
    source: str = ""


ROWS: tuple[Row, ...] = (
    Row(
        "backup",
        "vzdump reads the disks through QEMU. A guest that does not run is started paused, with its devices and after "
        "its hookscript, and stopped again; a running one is left alone in mode snapshot, and stopped and started in "
        "mode stop.",
        source="qemu-server VZDump/QemuServer.pm, enforce_vm_running_for_backup; pve-manager VZDump.pm",
    ),
    Row(
        "snapshot",
        "Disks only: the storages do it, and the device is not asked.",
        source="qemu-server QemuConfig.pm, __snapshot_create_vol_snapshots_hook; recorded 9.2, qm snapshot 703",
    ),
    Row(
        "memory-snapshot",
        "Proxmox lets it begin, and QEMU refuses: the state of a passed-through function cannot be read.",
        source="QEMU hw/vfio/migration.c; qemu-server QemuConfig.pm, __snapshot_assert_no_blockers",
    ),
    Row(
        "rollback",
        "The configuration of that day comes back with the disks, its devices and its hookscript included.",
        source="pve-guest-common AbstractConfig.pm, snapshot_rollback; recorded 9.2, qm config 703 --snapshot s1",
    ),
    Row("pause", "QEMU stops the processors; the guest stays where it is.", source="recorded 9.2, qm suspend 701"),
    Row(
        "hibernate",
        "Refused for every guest with a hostpci line, and for guests that HA manages.",
        "qemu-server 7.2-5",
        "qemu-server API2/Qemu.pm, vm_suspend; recorded 9.2, qm suspend 703 --todisk 1",
    ),
    Row(
        "replication",
        "Disks on ZFS are copied to another node; devices play no part until the guest is to start there.",
        source="qemu-server QemuConfig.pm, get_replicatable_volumes; pve-docs, pvesr",
    ),
    Row(
        "offline-migration",
        "Refused while a line names a device of the host; allowed through mappings, to nodes that have an entry.",
        "qemu-server 8.0.4",
        "qemu-server QemuMigrate.pm, prepare",
    ),
    Row(
        "live-migration",
        "Only with mappings that are marked live-migration-capable (experimental), and drivers that can do it.",
        "qemu-server 8.3.9 (Proxmox VE 8.4)",
        "qemu-server QemuMigrate/Helpers.pm, check_local_resources; pve-guest-common Mapping/PCI.pm",
    ),
    Row(
        "ha",
        "HA moves a stopped guest like an offline migration, and after a node's failure by moving its file alone: then "
        "nobody asks whether the device is there before the start.",
        source="pve-ha-manager Resources/PVEVM.pm, Manager.pm, recover_fenced_service; pve-docs, ha-manager",
    ),
    Row(
        "host-shutdown",
        "Guests are shut down in the opposite of their start order. HA's guests follow shutdown_policy; with `migrate` "
        "the node waits until all have left.",
        source="pve-docs, qm, Automatic Start and Shutdown; pve-docs, ha-manager, Shutdown Policy",
    ),
    Row(
        "clone",
        "The copy keeps the device lines and the hookscript of the original. A template's devices are never started.",
        source="qemu-server API2/Qemu.pm, clone_vm; qemu-server QemuServer.pm, skiptemplate",
    ),
)

LIVE_SINCE = (8, 3, 9)
"""qemu-server that knows `live-migration-capable`. Source: its changelog; Proxmox VE 8.4."""

RULES_SINCE = (9,)
"""pve-manager from which HA groups are node affinity rules (recorded: "ha groups have been migrated to rules")."""

SNAPSHOT_STORAGES = frozenset({"btrfs", "cephfs", "lvmthin", "rbd", "zfs", "zfspool"})
"""Storages that make snapshots of any volume. Source: pve-docs, pvesm, Storage Types."""

FILE_STORAGES = frozenset({"cifs", "dir", "glusterfs", "nfs"})
"""Storages that make snapshots of qcow2 files alone. Source: pve-docs, pvesm, Storage Types."""

REPLICATED = frozenset({"zfspool"})
"""Source: pve-docs, pvesr, Supported Storage Types."""


def row(operation: str) -> Row:
    return next(one for one in ROWS if one.operation == operation)


def version(text: str | None) -> tuple[int, ...] | None:
    """`8.3.12` or `7.2-5` as numbers; None when nobody could say or it is odd."""
    parts = re.split(r"[.-]", (text or "").partition("~")[0])
    if not parts[0] or not all(part.isascii() and part.isdecimal() and len(part) < 6 for part in parts):
        return None
    return tuple(int(part) for part in parts)


@dataclass(frozen=True, slots=True)
class Advice:
    """What to set. `command` as it would be typed, empty when there is none."""

    text: str
    command: str = ""


# -- what ties a guest to its node ----------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Ties:
    """What holds a guest where it is.

    raw     lines that name this node's devices: no migration at all
    mapped  line to mapping, `pci` and `usb` alike
    live    lines of `mapped` whose mapping is marked live-migration-capable
    memory  what forbids a live migration and a snapshot with memory besides
    """

    raw: tuple[str, ...]
    mapped: Mapping[str, ResourceMapping | None]
    live: frozenset[str]
    memory: tuple[str, ...]


def ties(facts: Facts, guest: Vm) -> Ties:
    raw: list[str] = []
    mapped: dict[str, ResourceMapping | None] = {}
    live: set[str] = set()
    for key, value in sorted(guest.config.items()):
        if not _DEVICE.fullmatch(key):
            continue
        options = parse_options(value, "host")
        if key.startswith("usb") and options.get("host", "").lower() == "spice":
            continue
        if key.startswith("serial") and value == "socket":
            continue
        name = options.get("mapping", "") if key.startswith(("usb", "hostpci")) else ""
        if not name:
            raw.append(key)
            continue
        kind = "usb" if key.startswith("usb") else "pci"
        found = next((one for one in facts.mappings if (one.kind, one.name) == (kind, name)), None)
        mapped[key] = found
        if found and kind == "pci" and found.options.get("live-migration-capable", "0").lower() in _TRUE:
            live.add(key)
    raw += ["ivshmem"] if guest.config.get("ivshmem") else []
    memory = tuple(key for key in sorted(guest.config) if key == "amd-sev" or re.fullmatch(r"virtiofs[0-9]{1,2}", key))
    return Ties(tuple(raw), mapped, frozenset(live), memory)


def missing_on(held: Ties, node: str) -> tuple[str, ...]:
    """Lines whose mapping has no entry for this node."""
    return tuple(
        key for key, found in held.mapped.items() if found is None or all(one.node != node for one in found.entries)
    )


def has_devices(guest: Vm) -> bool:
    """Whether the guest takes a PCI or USB device from its host."""
    return bool(guest.hostpci) or gives_usb(guest.config)


def rivals(facts: Facts, guest: Vm) -> tuple[Vm, ...]:
    """Guests of this node that run with something that this guest's start would take."""
    wanted = {
        one.address
        for one in blast_radius(facts, (a for e in guest.hostpci if not _share(e.options) for a in e.addresses))
    }
    return tuple(
        other
        for other in facts.guests or ()
        if other.running and other.vmid != guest.vmid and other.node == guest.node
        if any(address in wanted for entry in other.hostpci if not entry.mapping for address in entry.addresses)
    )


def _share(options: Mapping[str, str]) -> bool:
    return bool(options.get("mdev"))


# -- disks ----------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Disk:
    """A disk of a guest. `storage` None: a path of the host, or a storage that nobody knows."""

    key: str
    volume: str
    storage: Storage | None


def disks(facts: Facts, guest: Vm) -> tuple[Disk, ...]:
    """All but CD drives."""
    found = []
    for key, value in sorted(guest.config.items()):
        options = parse_options(value, "file")
        if _DISK.fullmatch(key) and options.get("media") != "cdrom" and options.get("file", "none") != "none":
            volume = options["file"]
            name = volume.partition(":")[0] if not volume.startswith("/") else ""
            found.append(Disk(key, volume, next((one for one in facts.storages or () if one.name == name), None)))
    return tuple(found)


def without_snapshots(
    found: Iterable[Disk], release: tuple[int, ...] | None
) -> tuple[tuple[Disk, ...], tuple[Disk, ...]]:
    """(disks that no snapshot can be made of, disks of which nobody could say)."""
    never: list[Disk] = []
    unknown: list[Disk] = []
    for disk in found:
        kind = disk.storage.type if disk.storage else ""
        if disk.volume.startswith("/"):
            never.append(disk)
        elif kind in SNAPSHOT_STORAGES or (kind in FILE_STORAGES and disk.volume.endswith(".qcow2")):
            continue
        elif kind in ("lvm", *FILE_STORAGES) and release is not None and release < RULES_SINCE:
            never.append(disk)
        else:  # since 9.0 a storage may chain volumes (snapshot-as-volume-chain), which the facts do not hold
            unknown.append(disk)
    return tuple(never), tuple(unknown)


# -- jobs, snapshots, high availability ------------------------------------------------------------


def job_line(job: BackupJob) -> str:
    """`/etc/pve/jobs.cfg: nightly: mode stop, 21:00, to backup-store`."""
    parts = [f"mode {job.mode}" + ("" if job.mode_from else " (nothing else is said)")]
    parts += [job.schedule] if job.schedule else []
    parts += [f"pool {job.pool}"] if job.pool else ["all guests"] if job.everything else []
    parts += [f"to {job.storage}"] if job.storage else []
    return f"{job.path}: {job.name}: {', '.join(parts)}"


def calmer(job: BackupJob) -> Advice | None:
    """The way to mode snapshot; None for a job that has it."""
    if job.mode == "snapshot":
        return None
    if job.path.endswith("vzdump.cron"):
        return Advice(f"Write --mode snapshot into {job.path}, line {job.name.partition(':')[2]}.")
    return Advice(
        "Let the job back up in mode snapshot.", f"pvesh set /cluster/backup/{quote(job.name)} --mode snapshot"
    )


def without(job: BackupJob, guest: Vm) -> str:
    """The command that takes a guest out of a job; empty where a person has to choose."""
    if job.path.endswith("vzdump.cron") or job.pool:
        return ""
    if job.everything:
        listed = ",".join(str(one) for one in sorted({*job.excluded, guest.vmid}))
        return f"pvesh set /cluster/backup/{quote(job.name)} --exclude {listed}"
    rest = ",".join(str(one) for one in sorted(job.vmids - {guest.vmid}))
    return (
        f"pvesh set /cluster/backup/{quote(job.name)} --vmid {rest}"
        if rest
        else f"pvesh delete /cluster/backup/{quote(job.name)}"
    )


def other_devices(guest: Vm) -> Iterator[tuple[str, str, str, str]]:
    """(snapshot, line, its value then, its value now) of device lines and hookscripts that differ."""
    for name, then in sorted(guest.snapshots.items()):
        keys = sorted({key for config in (then, guest.config) for key in config if _LINES.fullmatch(key)})
        for key in keys:
            if then.get(key, "") != guest.config.get(key, ""):
                yield name, key, then.get(key, ""), guest.config.get(key, "")


_LINES = re.compile(r"(?:hostpci|usb)[0-9]{1,2}|hookscript")


def other_nodes(facts: Facts, guest: Vm) -> tuple[str, ...] | None:
    """The cluster's other nodes; None: nobody could say."""
    return None if facts.pve.nodes is None else tuple(one for one in facts.pve.nodes if one != guest.node)


def may_recover_on(facts: Facts, guest: Vm) -> tuple[str, ...]:
    """Other nodes on which HA may start the guest, if it manages it; all of them where nobody could say.

    Only a strict rule (a restricted group) keeps HA from the other nodes, and the state `ignored` from the guest.
    Source: pve-docs, ha-manager, Node Affinity, Service States.
    """
    resource, others = facts.lifecycle.resource_of(guest), other_nodes(facts, guest) or ()
    if resource is not None and resource.state == "ignored":
        return ()
    placement = None if facts.lifecycle.placements is None else facts.lifecycle.placement_of(guest)
    return tuple(node for node in others if placement is None or placement.allows(node))


def lacking(facts: Facts, guest: Vm, held: Ties) -> tuple[str, ...] | None:
    """Nodes on which HA may start the guest and where its lines name nothing; None: nobody could say."""
    if facts.pve.nodes is None or facts.lifecycle.placements is None:
        return None
    return tuple(node for node in may_recover_on(facts, guest) if held.raw or missing_on(held, node))


def placement_line(facts: Facts, guest: Vm) -> tuple[str, ...]:
    placement = facts.lifecycle.placement_of(guest)
    if placement is None:
        return ("no HA rule or group names the guest: any node may start it",)
    strict = "strict" if placement.strict else "not strict: the other nodes count when these are gone"
    nodes = f"{'not on' if placement.avoids else 'nodes'} {', '.join(placement.nodes)}"
    return (f"{placement.path}: {placement.name}: {nodes}, {strict}",)


def keep_at_home(facts: Facts, guest: Vm, strange: Sequence[str]) -> Iterator[Advice]:
    """The ways to keep HA from nodes without the device."""
    good = [node for node in facts.pve.nodes or () if node not in strange]
    release = version(facts.pve.version)
    nodes = ",".join(good)
    if release is not None and release >= RULES_SINCE:
        command = (
            f"pvesh create /cluster/ha/rules --rule vm-{guest.vmid}-devices --type node-affinity --strict 1 "
            f"--nodes {nodes} --resources vm:{guest.vmid}"
        )
    else:
        command = (
            f"ha-manager groupadd vm-{guest.vmid}-devices --restricted 1 --nodes {nodes} && "
            f"ha-manager set vm:{guest.vmid} --group vm-{guest.vmid}-devices"
        )
    yield Advice(f"Keep HA to {joined(good)}.", command)
    yield Advice("Or let HA leave it alone.", f"ha-manager set vm:{guest.vmid} --state ignored")


# -- words ----------------------------------------------------------------------------------------


def plural(words: Sequence[object], one: str, more: str) -> str:
    """The word that fits one or several."""
    return one if len(words) == 1 else more


def joined(words: Iterable[object]) -> str:
    """`A, B and C`."""
    listed = [str(word) for word in words]
    return " and ".join((", ".join(listed[:-1]), listed[-1])) if len(listed) > 1 else "".join(listed)
