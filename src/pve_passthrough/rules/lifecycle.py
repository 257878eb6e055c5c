"""Rules about a guest's life beyond its start: backups, snapshots, replication, high availability, its hookscript.

1. Nothing here stands in the way of a device; it says what will not work, or will take the device, on another day.
2. Jobs, HA and storages are shared: every way out is shown, with its command, and none is carried out.
3. `pve-passthrough lifecycle --vm ID` shows the same as one table, with what works.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.lifecycle import (
    Advice,
    calmer,
    has_devices,
    job_line,
    keep_at_home,
    lacking,
    may_recover_on,
    missing_on,
    other_devices,
    other_nodes,
    placement_line,
    rivals,
    ties,
    without,
)
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level, Safety
from ..model.hookscript import PREFIX, place_of
from ..model.lent import lent_to
from ..model.lifecycle import BackupJob
from ..model.vm import Vm
from .subject import Request, are, ask, assigned, guests, is_local, names, show


def _called(guest: Vm) -> str:
    return f"{guest.name} ({guest.vmid})"


def _line(guest: Vm, key: str) -> str:
    return (
        f"/etc/pve/nodes/{guest.node or 'NODE'}/qemu-server/{guest.vmid}.conf: {key}: {guest.value(key) or '(not set)'}"
    )


def _lines(guest: Vm) -> tuple[str, ...]:
    return tuple(_line(guest, entry.key) for entry in guest.hostpci)


def _shown(*advice: Advice) -> Fix | None:
    """Several ways out as one fix; None where there is none."""
    if not advice:
        return None
    commands = tuple(one.command for one in advice if one.command)
    return Fix(" ".join(one.text for one in advice), Safety.SHOW, commands)


# -- backup ---------------------------------------------------------------------------------------


def backup(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a backup job touch the device?

    Why: The backup of a guest that does not run starts QEMU paused with its devices: they are bound and reset, its
        hookscript runs, and the backup fails when another guest has them. A guest that borrows the host's display
        takes it for that long. Mode stop shuts a running guest down and starts it anew, card included. Mode snapshot
        on a running guest leaves the device alone.
    Look at: /etc/pve/jobs.cfg, /etc/pve/vzdump.cron, the line `mode` of /etc/vzdump.conf; Datacenter, Backup.
    Fix: Use mode snapshot and keep the guest running at that time, or take it out of the job.
    Source: qemu-server VZDump/QemuServer.pm, enforce_vm_running_for_backup; pve-manager VZDump.pm; Proxmox VE
        administration guide, Backup and Restore; recorded: jobs.cfg of 9.2.
    """
    for guest in guests(facts, request):
        if not (has_devices(guest) or request.addresses):
            continue
        for job in facts.lifecycle.backups_of(guest):
            if guest.running is False or job.mode != "snapshot":
                yield _backup(facts, guest, job)


def _backup(facts: Facts, guest: Vm, job: BackupJob) -> Finding:
    advice = [one for one in (calmer(job),) if one]
    others = rivals(facts, guest) if guest.running is False else ()
    dark = guest.running is False and bool(lent_to(facts.files, guest.vmid))
    if guest.running is False:
        what = "and does not run: the backup starts it with its devices, which are bound and reset"
        what += f", and fails while {names(map(_called, others))} has them" if others else ""
        what += "; the host's screen goes dark meanwhile" if dark else ""
        away = "Keep it running at that time, or take it out of the job."
        advice.append(Advice(away, without(job, guest)))
    elif job.mode == "stop":
        what = "in mode stop: that shuts it down and starts it anew with its devices"
    else:
        what = "in mode suspend: that pauses it for as long as the backup takes to begin"
    return Finding(
        "guests.backup",
        Level.HARMS if others or dark else Level.NOTE,
        f"vm:{guest.vmid}",
        f"{_called(guest)} is in backup job {job.name} {what}.",
        (job_line(job), *(_lines(other)[0] for other in others if other.hostpci)),
        Actor.NOBODY,
        _shown(*advice),
    )


# -- snapshots ------------------------------------------------------------------------------------


def snapshots(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the guest still be hibernated and snapshotted with memory?

    Why: A device's state cannot be saved: hibernate is refused, snapshots with memory fail, live migration works only
        for mappings that are marked capable. Snapshots of the disks and backups of a running guest work.
    Look at: `lock: suspended` or `vmstate:` in the configuration.
    Fix: Resume and shut down a hibernated guest first; take snapshots without memory.
    Source: qemu-server changelog 7.2-5 and 8.3.9; QEMU hw/vfio/migration.c.
    """
    for guest in guests(facts, request):
        if guest.lock == "suspended" or guest.value("vmstate"):
            yield Finding(
                "guests.snapshots",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"{_called(guest)} is hibernated: its saved state does not know the device.",
                tuple(_line(guest, key) for key in ("lock", "vmstate") if guest.value(key)),
                Actor.US,
                show("Resume it and shut it down.", f"qm resume {guest.vmid}", f"qm shutdown {guest.vmid}"),
            )
        elif request.addresses and not assigned(guest, request):
            yield Finding(
                "guests.snapshots",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"{_called(guest)} can neither hibernate nor be snapshotted with memory once it has a device.",
                (),
                Actor.US,
            )


def snapshot_devices(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would a rollback bring other devices back?

    Why: A snapshot keeps the whole configuration. A rollback brings back its device lines, so the guest loses a card
        that it was given since, or names an address where another device sits by now; and it brings back its
        hookscript line, so the guard of its starts may be gone, or a script may be named that is no more.
    Look at: `qm config VMID --snapshot NAME` beside `qm config VMID`.
    Fix: After a rollback: `pve-passthrough check --vm VMID`, then give the device again with `pve-passthrough up`.
    Source: pve-guest-common AbstractConfig.pm, snapshot_rollback; recorded on 9.2: the [s1] section of 703.conf.
    """
    for guest in guests(facts, request):
        changed = tuple(other_devices(guest)) if has_devices(guest) else ()
        if changed:
            taken = tuple(dict.fromkeys(name for name, *_ in changed))
            what = "has other device lines or another hookscript" if len(taken) == 1 else "have other device lines"
            yield Finding(
                "lifecycle.snapshot-devices",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"{names(taken)} of {_called(guest)} {what}: a rollback brings them back.",
                tuple(
                    f"[{name}] {key}: {then or '(not set)'}; now {now or '(not set)'}"
                    for name, key, then, now in changed
                )[:8],
                Actor.NOBODY,
                show("Look again after a rollback.", f"pve-passthrough check --vm {guest.vmid}"),
            )


# -- replication ----------------------------------------------------------------------------------


def replication(facts: Facts, request: Request) -> Iterator[Finding]:
    """Could the guest start where its disks are replicated to?

    Why: Replication copies disks and knows no devices. When this node has failed, the guest is to start from the copy,
        and a line that names a device of this node, or a mapping without an entry there, stops the start.
    Look at: /etc/pve/replication.cfg; `pvesr status`; the mapping's entries.
    Fix: Give the device through a mapping with an entry for the target, or note that the lines must go first.
    Source: qemu-server QemuConfig.pm, get_replicatable_volumes; QemuMigrate/Helpers.pm, check_local_resources;
        pve-guest-common ReplicationConfig.pm.
    """
    for guest in guests(facts, request):
        held = ties(facts, guest)
        for job in facts.lifecycle.replications_of(guest) if has_devices(guest) else ():
            lines = held.raw or missing_on(held, job.target)
            if lines and not job.disabled:
                yield Finding(
                    "lifecycle.replication",
                    Level.NOTE,
                    f"vm:{guest.vmid}",
                    f"{_called(guest)} is replicated to {job.target}, and does not start there with {names(lines)}.",
                    (f"/etc/pve/replication.cfg: {job} to {job.target}", *(_line(guest, key) for key in lines)),
                    Actor.NOBODY,
                    show(f"Give it a mapping with an entry for {job.target}, or take the lines out before that start."),
                )


# -- high availability ----------------------------------------------------------------------------


def ha(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does high availability manage the guest?

    Why: HA restarts a guest that is stopped behind its back, and moves it to nodes that may not have the device. A
        raw host address never works elsewhere; a resource mapping works where every node of the group has an entry.
    Look at: `ha-manager status`; /etc/pve/ha/resources.cfg.
    Fix: Use a mapping that every node of the group has, or take the guest out of HA while working on it.
    Source: Proxmox VE administration guide, High Availability; Resource Mapping; qemu-server QemuMigrate.pm.
    """
    for guest in guests(facts, request):
        resource = facts.lifecycle.resource_of(guest)
        ignored = resource is not None and resource.state == "ignored"
        if not guest.ha_managed or ignored or not (guest.hostpci or request.addresses):
            continue
        raw = [entry.key for entry in guest.hostpci if not entry.mapping]
        new = bool(request.addresses) and not assigned(guest, request)
        yield Finding(
            "guests.ha",
            Level.HARMS if new else Level.NOTE,
            f"vm:{guest.vmid}",
            f"{_called(guest)} is managed by HA"
            + (
                ", which starts it by itself, also before its new device was ever seen to work."
                if new
                else f", and {names(raw)} {are(raw)} on this node only."
                if raw
                else "; every node needs the mapping."
            ),
            tuple(_line(guest, key) for key in raw[:1]),
            Actor.US,
            show(
                "Take it out meanwhile, and back with --state started; give it a mapping that every node has.",
                f"ha-manager set vm:{guest.vmid} --state ignored",
            ),
        )


def ha_nodes(facts: Facts, request: Request) -> Iterator[Finding]:
    """May HA start the guest on a node that lacks its device?

    Why: When a node fails, HA moves the guest's file to another node and starts it, and nobody asks first whether the
        device is there. That start fails, again and again, until HA gives up and the guest is in state error. Only a
        strict rule (until 8.4 a restricted group) keeps HA from the other nodes; any other names a preference.
    Look at: `ha-manager status`; /etc/pve/ha/rules.cfg or groups.cfg; the mapping's entries.
    Fix: A mapping with an entry for every such node, or a strict rule that names the nodes which have one.
    Source: Proxmox VE administration guide, High Availability, Node Affinity Rules; pve-ha-manager Manager.pm,
        Resources/PVEVM.pm; recorded: rules.cfg of 9.2, groups.cfg of 8.4.
    """
    for guest in guests(facts, request):
        resource = facts.lifecycle.resource_of(guest)
        if resource is None or resource.state == "ignored" or not has_devices(guest):
            continue
        held = ties(facts, guest)
        strange = lacking(facts, guest, held) or ()
        if strange:
            lines = tuple(_line(guest, key) for key in (held.raw or missing_on(held, strange[0])) if key != "ivshmem")
            yield Finding(
                "lifecycle.ha-nodes",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"HA may start {_called(guest)} on {names(strange)}, where its device is not: that start fails.",
                (*placement_line(facts, guest), *lines),
                Actor.NOBODY,
                _shown(*keep_at_home(facts, guest, strange)),
            )


def ha_shutdown(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can this node go down while the guest runs?

    Why: With shutdown_policy=migrate a node that is to reboot moves HA's guests away first and waits until all have
        gone. A running guest with a device cannot be moved, so the node does not go down.
    Look at: the line `ha:` of /etc/pve/datacenter.cfg; Datacenter, Options, HA Settings.
    Fix: Shut the guest down before a reboot, or choose another policy.
    Source: Proxmox VE administration guide, High Availability, Shutdown Policy; qemu-server QemuMigrate/Helpers.pm.
    """
    if facts.lifecycle.shutdown_policy != "migrate":
        return
    for guest in guests(facts, request):
        resource, held = facts.lifecycle.resource_of(guest), ties(facts, guest)
        stuck = (*held.raw, *sorted(set(held.mapped) - held.live))
        managed = resource is not None and resource.state not in ("ignored", "disabled", "stopped")
        if managed and stuck and other_nodes(facts, guest) and is_local(facts, guest):
            yield Finding(
                "lifecycle.ha-shutdown",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"This node does not go down while {_called(guest)} runs: HA wants to move it first, and cannot.",
                ("/etc/pve/datacenter.cfg: ha: shutdown_policy=migrate", *(_line(guest, key) for key in stuck)),
                Actor.NOBODY,
                show("Before a reboot, let HA stop it.", f"ha-manager set vm:{guest.vmid} --state stopped"),
            )


# -- the hookscript -------------------------------------------------------------------------------


def hook_missing(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the guest's hookscript there?

    Why: Proxmox does not start a guest whose hookscript is missing or not executable. It goes missing when a guest is
        moved or restored to another node, when its original is taken back after it was cloned, or when somebody
        cleans up.
    Look at: `qm config VMID`, the line `hookscript`; `pvesm path VOLUME`.
    Fix: Put the script back, have this program write its own again (`pve-passthrough up`), or take the line out.
    Source: pve-guest-common GuestHelpers.pm, check_hookscript; recorded on 8.4 and 9.2: "script
        'local:snippets/nope.sh' does not exist".
    """
    for guest in guests(facts, request):
        name = guest.value("hookscript") or ""
        if facts.hook_files.get(name, True) or not is_local(facts, guest):
            continue
        ours = name.endswith(f":snippets/{PREFIX}{guest.vmid}")
        again = f"pve-passthrough lifecycle --vm {guest.vmid} --guard"
        folder = place_of(facts.storages or (), name, facts.pve.node)
        yield Finding(
            "lifecycle.hook-missing",
            Level.HARMS,
            f"vm:{guest.vmid}",
            f"{_called(guest)} does not start: its hookscript {name} is not there.",
            (_line(guest, "hookscript"), f"{folder}: no file {name.rpartition('/')[2]}"),
            Actor.US if ours else Actor.NOBODY,
            ask("Have the guard written again.", again)
            if ours
            else show("Put the script back, or take the line out.", f"qm set {guest.vmid} --delete hookscript"),
        )


def hook_elsewhere(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest's hookscript lie where every node that may start it finds it?

    Why: A hookscript is a file on a storage. On a storage that is this node's own, the same name on another node is
        another file, or none: a migrated or recovered guest does not start there.
    Look at: `qm config VMID`, the line `hookscript`; /etc/pve/storage.cfg, the line `shared`; HA and the mapping.
    Fix: Put the script on every such node, on a shared storage, or take the line out before the guest moves.
    Source: pve-guest-common GuestHelpers.pm, check_hookscript; Proxmox VE administration guide, hookscripts, storages.
    """
    for guest in guests(facts, request):
        name = guest.value("hookscript") or ""
        storage = next((one for one in facts.storages or () if one.name == name.partition(":")[0]), None)
        if not name or storage is None or storage.shared or not has_devices(guest):
            continue
        away = tuple(_may_start_on(facts, guest))
        if away:
            yield Finding(
                "lifecycle.hook-elsewhere",
                Level.HARMS,
                f"vm:{guest.vmid}",
                f"{_called(guest)} may start on {names(away)}, and its hookscript lies on this node alone.",
                (_line(guest, "hookscript"), f"/etc/pve/storage.cfg: {storage.type}: {storage.name} is not shared"),
                Actor.NOBODY,
                show(
                    f"Copy the script to {names(away)}, to the same place; see it with the first command.",
                    f"pvesm path {name}",
                ),
            )


def _may_start_on(facts: Facts, guest: Vm) -> Iterator[str]:
    """Other nodes on which the guest's lines name something, or on which HA may start it."""
    held, recovered = ties(facts, guest), may_recover_on(facts, guest) if guest.ha_managed else ()
    for node in other_nodes(facts, guest) or ():
        by_mapping = bool(held.mapped) and not held.raw and not missing_on(held, node)
        if by_mapping or node in recovered:
            yield node


def hook_borrowed(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest use another guest's guard?

    Why: A clone names the hookscript of its original. The guard works for it, too, since it is called with the
        clone's number; but it goes when the original's run is taken back, and then the clone does not start. And a
        clone names the same devices: only one of the two can run.
    Look at: `qm config VMID`, the lines `hookscript` and `hostpci`.
    Fix: Give the clone a guard of its own with `pve-passthrough lifecycle --vm VMID --guard`, or take the line out.
    Source: qemu-server API2/Qemu.pm, clone_vm; pve-guest-common GuestHelpers.pm, check_hookscript.
    """
    for guest in guests(facts, request):
        script = (guest.value("hookscript") or "").partition(":snippets/")[2]
        if script.startswith(PREFIX) and script != f"{PREFIX}{guest.vmid}":
            yield Finding(
                "lifecycle.hook-borrowed",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"{_called(guest)} uses the guard of guest {script.removeprefix(PREFIX)}: without that one's run it "
                "does not start.",
                (_line(guest, "hookscript"),),
                Actor.US,
                ask("Give it a guard of its own.", f"pve-passthrough lifecycle --vm {guest.vmid} --guard"),
            )
