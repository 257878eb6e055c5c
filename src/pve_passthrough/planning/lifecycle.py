"""What works today for this guest, with its devices, on this version: one answer for each operation, and what to set.

1. Pure. An answer rests on a row of `knowledge.lifecycle`, which names its source, and on the facts.
2. Jobs, HA and storages are shared with others: their commands are shown, never carried out. What a plan sets is the
   guest's own: `onboot`, `startup` and the guard of its starts.
3. Unknown is an answer. NONE says that the question does not arise: there is no second node, or no such job.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Iterator, Sequence
from enum import Enum
from shlex import quote

from ..errors import Exit, Failure
from ..knowledge.lifecycle import (
    LIVE_SINCE,
    REPLICATED,
    Advice,
    Row,
    Ties,
    calmer,
    disks,
    has_devices,
    job_line,
    joined,
    keep_at_home,
    lacking,
    missing_on,
    other_devices,
    other_nodes,
    placement_line,
    plural,
    rivals,
    row,
    ties,
    version,
    without,
    without_snapshots,
)
from ..model.facts import Facts
from ..model.lent import lent_to
from ..model.lifecycle import BackupJob
from ..model.value import dataclass
from ..model.vm import Vm, parse_options
from ..model.wish import VmOption, Wish


class Works(Enum):
    YES = "yes"
    PARTLY = "partly"
    NO = "no"
    UNKNOWN = "unknown"
    NONE = "none"


@dataclass(frozen=True, slots=True)
class Answer:
    """One operation: does it work, why, and what to set."""

    row: Row
    works: Works
    why: str
    evidence: tuple[str, ...] = ()
    advice: tuple[Advice, ...] = ()


def outlook(facts: Facts, guest: Vm) -> tuple[Answer, ...]:
    """Every operation; none for a guest that takes nothing from its host."""
    return tuple(answer(facts, guest) for answer in ANSWERS) if has_devices(guest) else ()


# -- backup ---------------------------------------------------------------------------------------


def _backup(facts: Facts, guest: Vm) -> Answer:
    jobs = facts.lifecycle.backups_of(guest)
    evidence = tuple(job_line(job) for job in jobs) or (
        ("no backup job takes this guest",) if facts.lifecycle.jobs is not None else (_gap(facts, "pve.backup"),)
    )
    advice = (*(one for job in jobs if (one := calmer(job))), *_stopped_advice(facts, guest, jobs))
    works, why = _backup_now(facts, guest, jobs)
    return Answer(row("backup"), works, why, evidence, advice)


def _backup_now(facts: Facts, guest: Vm, jobs: Sequence[BackupJob]) -> tuple[Works, str]:
    rude = [job for job in jobs if job.mode != "snapshot"]
    others = rivals(facts, guest)
    if guest.running is None:
        return Works.UNKNOWN, "Whether the guest runs is unknown; running, mode snapshot leaves the device alone."
    if guest.running and not rude:
        return Works.YES, "It runs, and mode snapshot leaves the device alone."
    if guest.running:
        acts = {"stop": "stops the guest and starts it anew with its devices", "suspend": "pauses the guest"}
        return Works.PARTLY, f"Job {rude[0].name} {acts[rude[0].mode]}."
    if others:
        names = " and ".join(f"{other.name} ({other.vmid})" for other in others)
        return Works.NO, f"It does not run, so a backup would start it with its devices, and {names} runs with them."
    dark = " The host's screen goes dark meanwhile." if lent_to(facts.files, guest.vmid) else ""
    return Works.PARTLY, f"It does not run: a backup starts it paused, which binds and resets its devices.{dark}"


def _stopped_advice(facts: Facts, guest: Vm, jobs: Iterable[BackupJob]) -> Iterator[Advice]:
    if guest.running is not False:
        return
    for job in jobs:
        when = f" at {job.schedule}" if job.schedule else ""
        yield Advice(f"Keep the guest running{when}, or take it out of job {job.name}.", without(job, guest))


# -- snapshots and memory -------------------------------------------------------------------------


def _snapshot(facts: Facts, guest: Vm) -> Answer:
    if facts.storages is None:
        return Answer(
            row("snapshot"), Works.UNKNOWN, "The device does not matter; which storages there are is unknown."
        )
    never, unknown = without_snapshots(disks(facts, guest), version(facts.pve.version))
    told = tuple(f"{disk.key}: {disk.volume} on {_kind(disk.storage)}" for disk in (*never, *unknown))
    if never:
        why = f"The device does not matter, but {joined(disk.key for disk in never)} cannot be snapshotted."
        return Answer(row("snapshot"), Works.NO, why, told)
    if unknown:
        why = (
            f"The device does not matter; whether {joined(disk.key for disk in unknown)} can be snapshotted is unknown."
        )
        return Answer(row("snapshot"), Works.UNKNOWN, why, told)
    return Answer(row("snapshot"), Works.YES, "Without memory; the device is not asked.", told)


def _kind(storage: object) -> str:
    return getattr(storage, "type", "") or "no storage that is known"


def _memory_snapshot(facts: Facts, guest: Vm) -> Answer:
    held = ties(facts, guest)
    pci = tuple(entry.key for entry in guest.hostpci)
    if held.memory:
        return Answer(row("memory-snapshot"), Works.NO, f"{joined(held.memory)} forbids it.")
    if set(pci) - held.live:
        why = f"QEMU cannot read the state of {joined(sorted(set(pci) - held.live))}."
        advice = Advice("Take snapshots of the disks alone.", f"qm snapshot {guest.vmid} NAME")
        return Answer(row("memory-snapshot"), Works.NO, why, (), (advice,))
    what = "the driver of the device decides" if pci else "no source says it for USB devices"
    return Answer(row("memory-snapshot"), Works.UNKNOWN, f"Proxmox lets it begin; {what}.")


def _rollback(facts: Facts, guest: Vm) -> Answer:
    changed = tuple(other_devices(guest))
    if not guest.snapshots:
        return Answer(row("rollback"), Works.NONE, "The guest has no snapshots.")
    if not changed:
        return Answer(row("rollback"), Works.YES, "Its snapshots have the same devices and the same hookscript.")
    told = tuple(f"[{name}] {key}: {then or '(not set)'}; now {now or '(not set)'}" for name, key, then, now in changed)
    names = joined(dict.fromkeys(name for name, *_ in changed))
    advice = Advice("After a rollback, give the device again.", f"pve-passthrough check --vm {guest.vmid}")
    return Answer(
        row("rollback"), Works.PARTLY, f"{names} brings other devices or another hookscript back.", told, (advice,)
    )


def _pause(facts: Facts, guest: Vm) -> Answer:
    return Answer(row("pause"), Works.YES, "The guest stays where it is, with its devices.")


def _hibernate(facts: Facts, guest: Vm) -> Answer:
    if guest.hostpci:
        why = f"Refused: {joined(entry.key for entry in guest.hostpci)} cannot be saved."
        return Answer(row("hibernate"), Works.NO, why)
    if guest.ha_managed:
        return Answer(row("hibernate"), Works.NO, "Refused: HA manages the guest.")
    return Answer(row("hibernate"), Works.UNKNOWN, "Not refused; no source says what becomes of its USB devices.")


# -- other nodes ----------------------------------------------------------------------------------


def _replication(facts: Facts, guest: Vm) -> Answer:
    kind, others = row("replication"), other_nodes(facts, guest)
    if others is None or (facts.lifecycle.looked and facts.lifecycle.replications is None):
        return Answer(
            kind, Works.UNKNOWN, "The nodes or the replication jobs are unknown.", (_gap(facts, "pve.replication"),)
        )
    if not others:
        return Answer(kind, Works.NONE, "There is no other node.")
    jobs = facts.lifecycle.replications_of(guest)
    told = tuple(
        f"/etc/pve/replication.cfg: {job} to {job.target}{f', {job.schedule}' if job.schedule else ''}" for job in jobs
    )
    odd = [disk for disk in disks(facts, guest) if disk.storage and not disk.storage.shared]
    odd = [disk for disk in odd if disk.storage and disk.storage.type not in REPLICATED]
    if odd:
        why = f"{joined(disk.key for disk in odd)} {plural(odd, 'does', 'do')} not lie on ZFS."
        return Answer(
            kind, Works.NO, why, (*told, *(f"{one.key}: {one.volume} on {_kind(one.storage)}" for one in odd))
        )
    held = ties(facts, guest)
    targets = tuple(job.target for job in jobs if not job.disabled) or others
    away = [node for node in targets if held.raw or missing_on(held, node)]
    if away:
        why = f"The disks are copied, but on {joined(away)} the guest does not start with these lines."
        return Answer(kind, Works.PARTLY, why, told, _mapping_advice(guest, held, away))
    return Answer(
        kind,
        Works.YES,
        f"The disks are copied, and {joined(targets)} {plural(targets, 'has', 'have')} the device.",
        told,
    )


def _offline(facts: Facts, guest: Vm) -> Answer:
    kind, others, held = row("offline-migration"), other_nodes(facts, guest), ties(facts, guest)
    if others is None:
        return Answer(kind, Works.UNKNOWN, "Which nodes there are is unknown.", (_gap(facts, "pve.nodes"),))
    if not others:
        return Answer(kind, Works.NONE, "There is no other node.")
    if held.raw:
        told = tuple(f"{key}: {guest.config[key]}" for key in held.raw if key in guest.config)
        why = f"Refused: {joined(held.raw)} {plural(held.raw, 'names a device', 'name devices')} of this node."
        return Answer(kind, Works.NO, why, told, _mapping_advice(guest, held, others))
    away = [node for node in others if missing_on(held, node)]
    if len(away) == len(others):
        why = "Refused: no other node has an entry in its mappings."
        return Answer(kind, Works.NO, why, (), _mapping_advice(guest, held, away))
    if away:
        able = joined(node for node in others if node not in away)
        return Answer(
            kind,
            Works.PARTLY,
            f"To {able}; {joined(away)} {plural(away, 'has', 'have')} no entry.",
            (),
            _mapping_advice(guest, held, away),
        )
    return Answer(kind, Works.YES, f"To {joined(others)}, while it is stopped.", (), _hook_advice(facts, guest))


def _live(facts: Facts, guest: Vm) -> Answer:
    kind, others, held = row("live-migration"), other_nodes(facts, guest), ties(facts, guest)
    release = version(facts.pve.qemu_server)
    if others == ():
        return Answer(kind, Works.NONE, "There is no other node.")
    if held.raw or held.memory:
        return Answer(kind, Works.NO, f"Refused because of {joined((*held.raw, *held.memory))}.")
    plain = sorted(set(held.mapped) - held.live)
    if release is not None and release < LIVE_SINCE:
        return Answer(
            kind, Works.NO, f"Refused: qemu-server {facts.pve.qemu_server} moves no running guest with a mapped device."
        )
    if plain:
        why = f"Refused: the mapping of {joined(plain)} is not marked live-migration-capable."
        mark = "Mark a mapping so only if the driver of its devices can do it: NVIDIA's vGPU is known to."
        return Answer(
            kind, Works.NO, why, (), (Advice(mark), Advice("Move it stopped.", f"qm migrate {guest.vmid} NODE"))
        )
    return Answer(kind, Works.UNKNOWN, "Proxmox lets it begin (experimental); the driver of the device decides.")


def _ha(facts: Facts, guest: Vm) -> Answer:
    kind, others, held = row("ha"), other_nodes(facts, guest), ties(facts, guest)
    resource = facts.lifecycle.resource_of(guest)
    if resource is None and facts.lifecycle.ha is None:
        return Answer(kind, Works.UNKNOWN, "Whether HA manages the guest is unknown.", (_gap(facts, "guests.ha"),))
    if resource is None:
        return Answer(kind, Works.NONE, "HA does not manage the guest.")
    told = (f"/etc/pve/ha/resources.cfg: vm:{guest.vmid}, state {resource.state}",)
    if resource.state == "ignored":
        return Answer(kind, Works.NONE, "HA leaves the guest alone (state ignored).", told)
    if not others:
        return Answer(kind, Works.YES, "HA restarts it here; there is no other node.", told)
    strange = lacking(facts, guest, held)
    if strange is None:
        return Answer(kind, Works.UNKNOWN, "Where HA may start the guest is unknown.", (_gap(facts, "pve.ha-rules"),))
    if strange:
        why = f"HA may start it on {joined(strange)}, where its device is not."
        return Answer(
            kind, Works.NO, why, (*told, *placement_line(facts, guest)), tuple(keep_at_home(facts, guest, strange))
        )
    return Answer(
        kind, Works.YES, "Every node on which HA may start it has the device.", (*told, *placement_line(facts, guest))
    )


def _mapping_advice(guest: Vm, held: Ties, nodes: Sequence[str]) -> tuple[Advice, ...]:
    """A line that names a device of this node becomes a mapping; a mapping gets an entry where it lacks one."""
    raw = [key for key in held.raw if key.startswith(("hostpci", "usb"))]
    if held.raw and not raw:
        return (Advice(f"{joined(held.raw)} knows no mappings: take it out before the guest moves."),)
    devices = dict.fromkeys(str(entry.addresses[0]) for entry in guest.hostpci if entry.key in raw and entry.addresses)
    first = [
        Advice("Give it through a mapping.", f"pve-passthrough up {device} --vm {guest.vmid} --mapping NAME")
        for device in devices
    ]
    sticks = [key for key in raw if key.startswith("usb")]
    if sticks:
        text = f"Give {joined(sticks)} through a mapping."
        first.append(Advice(text, f"pve-passthrough usb add DEVICE --vm {guest.vmid} --by mapping"))
    names = dict.fromkeys(guest_mapping(guest, key) for key in held.mapped) if not raw else {"NAME": None}
    there = f"On {joined(nodes)}, let the mapping offer the device there."
    return (*first, *(Advice(there, f"pve-passthrough mapping add {quote(name)} DEVICE") for name in names))


def guest_mapping(guest: Vm, key: str) -> str:
    return parse_options(guest.config.get(key, ""), "host").get("mapping", "")


def _hook_advice(facts: Facts, guest: Vm) -> tuple[Advice, ...]:
    name = guest.value("hookscript") or ""
    storage = next((one for one in facts.storages or () if one.name == name.partition(":")[0]), None)
    if not name or storage is None or storage.shared:
        return ()
    return (Advice(f"Its hookscript {name} must lie on that node, too, or it does not start there."),)


# -- the host -------------------------------------------------------------------------------------


def _host_shutdown(facts: Facts, guest: Vm) -> Answer:
    kind, resource, policy = row("host-shutdown"), facts.lifecycle.resource_of(guest), facts.lifecycle.shutdown_policy
    told: tuple[str, ...] = (
        f"onboot: {guest.value('onboot') or '0'}; startup: {guest.value('startup') or '(not set)'}",
    )
    agent = (
        ()
        if guest.flag("agent")
        else (Advice("A guest agent makes the shutdown certain.", f"qm set {guest.vmid} --agent 1"),)
    )
    if resource is None or resource.state == "ignored":
        wait = "It is shut down with the others and waited for 180 s, unless startup says another time."
        return Answer(kind, Works.YES, wait, told, agent)
    told = (*told, f"/etc/pve/datacenter.cfg: ha: shutdown_policy={policy or '(unknown)'}")
    if policy is None:
        return Answer(kind, Works.UNKNOWN, "What HA does with it when the node goes down is unknown.", told)
    held = ties(facts, guest)
    if policy == "migrate" and other_nodes(facts, guest) and (held.raw or set(held.mapped) - held.live):
        why = "With shutdown_policy=migrate the node waits until the guest has moved, which it cannot while it runs."
        advice = Advice("Shut the guest down first.", f"ha-manager set vm:{guest.vmid} --state stopped")
        return Answer(kind, Works.NO, why, told, (advice,))
    elsewhere = policy in ("failover", "conditional")
    if elsewhere and lacking(facts, guest, held):
        when = "after any shutdown" if policy == "failover" else "after a power-off"
        return Answer(kind, Works.PARTLY, f"{when.capitalize()} HA starts it on a node without the device.", told)
    return Answer(kind, Works.YES, f"HA follows shutdown_policy={policy}.", told, agent)


def _clone(facts: Facts, guest: Vm) -> Answer:
    held = ties(facts, guest)
    pools = [key for key, found in held.mapped.items() if found and _alternatives(found, guest.node) > 1]
    keys = [key for key in (*held.raw, *held.mapped) if key.startswith(("hostpci", "usb")) and key not in pools]
    told = tuple(f"{key}: {guest.config[key]}" for key in (*keys, *pools) if key in guest.config)
    if guest.flag("template"):
        return Answer(row("clone"), Works.PARTLY, "Each copy names the devices of the template.", told)
    script = " and the same hookscript" if guest.config.get("hookscript") else ""
    if not keys:
        return Answer(row("clone"), Works.YES, f"Each copy takes a free device of {joined(pools)}.", told)
    why = f"The copy names the same devices ({joined(keys)}){script}; only one of the two can run."
    delete = ",".join((*keys, *(["hookscript"] if guest.config.get("hookscript") else [])))
    return Answer(
        row("clone"), Works.PARTLY, why, told, (Advice("Take them out of the copy.", f"qm set COPY --delete {delete}"),)
    )


def _alternatives(mapping: object, node: str) -> int:
    entries = getattr(mapping, "entries", ())
    return sum(1 for one in entries if one.node == node)


ANSWERS: tuple[Callable[[Facts, Vm], Answer], ...] = (
    _backup,
    _snapshot,
    _memory_snapshot,
    _rollback,
    _pause,
    _hibernate,
    _replication,
    _offline,
    _live,
    _ha,
    _host_shutdown,
    _clone,
)


# -- what a plan sets -----------------------------------------------------------------------------

_STARTUP = re.compile(r"(?:(?:order|up|down)=)?[0-9]{1,7}(?:,(?:order|up|down)=[0-9]{1,7}){0,2}")


def start_at_boot(guest: Vm, wanted: bool) -> tuple[Wish, ...]:
    """`onboot`. That the guest was seen to work is the caller's business."""
    if guest.flag("onboot") == wanted:
        return ()
    why = "its start with its devices was seen to work" if wanted else "it shall not start by itself"
    return (VmOption(guest.vmid, "onboot", "1" if wanted else "0", why),)


def start_order(guest: Vm, text: str) -> tuple[Wish, ...]:
    """`startup`. Raises Failure for what Proxmox would not take (recorded 9.2: "unable to parse startup options")."""
    keys = [part.partition("=")[0] if "=" in part else "order" for part in text.split(",")]
    if _STARTUP.fullmatch(text) is None or len(set(keys)) != len(keys):
        raise Failure(
            "lifecycle.startup", f"Nothing was planned: {text!r} is no start order.",
            hint="Write it as order=2,up=30,down=120: its place, and seconds to wait after its start and stop.",
            code=Exit.USAGE,
        )  # fmt: skip
    if guest.value("startup") == text:
        return ()
    return (VmOption(guest.vmid, "startup", text, "when it starts and stops among the others"),)


# -- words ----------------------------------------------------------------------------------------


def _gap(facts: Facts, about: str) -> str:
    gap = facts.gap(about)
    return f"{about}: {gap.reason if gap else 'not answered'}"
