"""Backup jobs, replication, high availability, and whether the hookscripts that guests name are there.

1. Files of /etc/pve only, none of them longer than a few kilobytes. Beyond the backup jobs and the HA resources nothing
   is read unless a guest of this node has devices: a glance at a host without them costs nothing more.
2. A file that is not there says that there is none; one that could not be read is a gap, and the answer is None.
3. Hookscripts are looked for on directory storages of this machine's own disks alone, one listing for each folder: a
   file server that does not answer must not hold up a look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

from ..host.base import HostError, Missing
from ..model.facts import Storage
from ..model.hookscript import place_of
from ..model.lifecycle import MODES, BackupJob, HaResource, Lifecycle, Placement, Replication
from ..model.vm import Vm, gives_usb, parse_options
from .asking import Asking
from .paths import answered
from .sections import TRUE, numbers, sections

JOBS = "/etc/pve/jobs.cfg"
CRON = "/etc/pve/vzdump.cron"
DEFAULTS = "/etc/vzdump.conf"
RESOURCES = "/etc/pve/ha/resources.cfg"
GROUPS = "/etc/pve/ha/groups.cfg"
RULES = "/etc/pve/ha/rules.cfg"
REPLICATION = "/etc/pve/replication.cfg"
DATACENTER = "/etc/pve/datacenter.cfg"

_VMID = re.compile(r"[1-9][0-9]{2,8}")
_REPLICATION = re.compile(r"([1-9][0-9]{2,8})-([0-9]{1,9})")
_NODE = re.compile(r"[A-Za-z0-9][A-Za-z0-9.-]{0,250}")
_WORD = re.compile(r"[a-z][a-z-]{0,40}")


def probe_lifecycle(ask: Asking, guests: Iterable[Vm], node: str | None, *, deep: bool = False) -> Lifecycle:
    """Everything that is arranged for guests. `node`: this machine's name in the cluster. `deep`: for guests without
    devices, too, because one of them may get some."""
    local = [guest for guest in guests if guest.node == node]
    here = [guest for guest in local if deep or guest.hostpci or gives_usb(guest.config)]
    resources = ha_resources(ask)
    if not here:
        return Lifecycle(jobs=probe_jobs(ask), ha=resources)
    managed = any(one.vmid == guest.vmid for one in resources or () for guest in here)
    return Lifecycle(
        jobs=probe_jobs(ask),
        replications=_replications(ask),
        ha=resources,
        placements=_placements(ask) if managed else (),
        shutdown_policy=_shutdown_policy(ask) if managed else "conditional",
        looked=True,
    )


# -- backup jobs ------------------------------------------------------------------------------


def probe_jobs(ask: Asking) -> tuple[BackupJob, ...] | None:
    """Every enabled backup job; None when a file that may hold some could not be read."""
    known, text = answered(ask, JOBS, "pve.backup")
    older, cron = answered(ask, CRON, "pve.backup")
    if not (known and older):
        return None
    return (*_jobs(ask, text or ""), *_cron_jobs(ask, cron or ""))


def _jobs(ask: Asking, text: str) -> Iterator[BackupJob]:
    for section in sections(text):
        if section.kind != "vzdump" or section.get("enabled", "1").lower() not in TRUE:
            continue
        pool, vmids = section.get("pool"), numbers(section.get("vmid"))
        everything = not pool and not vmids and (_true(section.get("all")) or bool(section.get("exclude")))
        mode, said = _mode(ask, section.get("mode"), JOBS)
        yield BackupJob(
            name=section.name,
            mode=mode,
            path=JOBS,
            vmids=_pool_members(ask, pool) if pool else vmids,
            everything=everything,
            excluded=numbers(section.get("exclude")),
            node=section.get("node"),
            storage=section.get("storage"),
            schedule=section.get("schedule") or " ".join((section.get("dow"), section.get("starttime"))).strip(),
            pool=pool,
            mode_from=said,
        )


def _cron_jobs(ask: Asking, text: str) -> Iterator[BackupJob]:
    """Lines `MIN HOUR DAY MONTH WEEKDAY root vzdump VMID… --option value …`."""
    for number, line in enumerate(text.splitlines(), 1):
        words = line.split()
        if line.lstrip().startswith("#") or "vzdump" not in words:
            continue
        when, words = " ".join(words[:5]), words[words.index("vzdump") + 1 :]
        options, vmids = _command_line(words)
        pool = options.get("pool", "")
        everything = not pool and not vmids and (_true(options.get("all", "")) or "exclude" in options)
        mode, said = _mode(ask, options.get("mode", ""), CRON)
        yield BackupJob(
            name=f"vzdump.cron:{number}",
            mode=mode,
            path=CRON,
            vmids=_pool_members(ask, pool) if pool else vmids,
            everything=everything,
            excluded=numbers(options.get("exclude", "")),
            node=options.get("node", ""),
            storage=options.get("storage", ""),
            schedule=when,
            pool=pool,
            mode_from=said,
        )


def _command_line(words: list[str]) -> tuple[dict[str, str], frozenset[int]]:
    options: dict[str, str] = {}
    vmids: set[int] = set()
    rest = list(words)
    while rest:
        word = rest.pop(0)
        if word.startswith("-"):
            key, equals, value = word.lstrip("-").partition("=")
            options[key] = value if equals else (rest.pop(0) if rest and not rest[0].startswith("-") else "1")
        else:
            vmids |= numbers(word)
    return options, frozenset(vmids)


def _mode(ask: Asking, text: str, path: str) -> tuple[str, str]:
    """The mode, and which file says so: the job, else /etc/vzdump.conf, else nobody and snapshot counts (vzdump(1))."""
    if text in MODES:
        return text, path
    for line in (ask.text(DEFAULTS, "pve.backup") or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "mode" and value.strip() in MODES:
            return value.strip(), DEFAULTS
    return "snapshot", ""


def _true(text: str) -> bool:
    return text.lower() in TRUE


def _pool_members(ask: Asking, pool: str) -> frozenset[int]:
    """user.cfg has lines `pool:NAME:COMMENT:VMIDS:STORAGES:`; the guests of a pool below it do not belong to it.

    Source: pve-access-control, AccessControl.pm; pve-manager, API2Tools.pm, get_resource_pool_guest_members.
    """
    for line in (ask.text("/etc/pve/user.cfg", "pve.backup") or "").splitlines():
        parts = line.split(":")
        if len(parts) >= 4 and parts[0] == "pool" and parts[1] == pool:
            return numbers(parts[3])
    return frozenset()


# -- replication ------------------------------------------------------------------------------


def _replications(ask: Asking) -> tuple[Replication, ...] | None:
    """Sections `local: VMID-NUMBER`. Source: pve-guest-common, ReplicationConfig.pm."""
    known, text = answered(ask, REPLICATION, "pve.replication")
    if not known:
        return None
    found = []
    for section in sections(text or ""):
        match, target = _REPLICATION.fullmatch(section.name), section.get("target")
        if match is None or not _NODE.fullmatch(target) or section.get("remove_job"):
            continue
        disabled = section.get("disable", "0") != "0"
        schedule = section.get("schedule", "*/15")
        found.append(Replication(int(match.group(1)), int(match.group(2)), target, schedule, disabled))
    return tuple(found)


# -- high availability ------------------------------------------------------------------------


def ha_resources(ask: Asking) -> tuple[HaResource, ...] | None:
    """Sections `vm: NUMBER` with `state` and `group` (recorded, 8.4 and 9.2)."""
    known, text = answered(ask, RESOURCES, "guests.ha")
    if not known:
        return None
    return tuple(
        HaResource(int(section.name), _word(section.get("state")) or "started", section.get("group"))
        for section in sections(text or "")
        if section.kind == "vm" and _VMID.fullmatch(section.name)
    )


def _word(text: str) -> str:
    return text if _WORD.fullmatch(text) else ""


def _placements(ask: Asking) -> tuple[Placement, ...] | None:
    """HA groups (recorded on 8.4) and node affinity rules (recorded on 9.2, where groups have become rules)."""
    rules_known, rules = answered(ask, RULES, "pve.ha-rules")
    groups_known, groups = answered(ask, GROUPS, "pve.ha-groups")
    if not (rules_known and groups_known):
        return None
    found = [
        Placement(section.name, _nodes(section.get("nodes")), _true(section.get("restricted", "0")), path=GROUPS)
        for section in sections(groups or "")
        if section.kind == "group"
    ]
    found += [
        Placement(
            section.name,
            _nodes(section.get("nodes")),
            _true(section.get("strict", "0")),
            frozenset(_vm_number(one) for one in re.split(r"[\s,;]+", section.get("resources"))) - {0},
            RULES,
            section.get("affinity") == "negative",
        )
        for section in sections(rules or "")
        if section.kind == "node-affinity" and section.get("disable", "0") == "0"
    ]
    return tuple(found)


def _nodes(text: str) -> tuple[str, ...]:
    """`one:2,two`: names with priorities."""
    names = (part.partition(":")[0].strip() for part in text.split(","))
    return tuple(name for name in names if _NODE.fullmatch(name))


def _vm_number(sid: str) -> int:
    kind, _, name = sid.partition(":")
    return int(name) if kind == "vm" and _VMID.fullmatch(name) else 0


def _shutdown_policy(ask: Asking) -> str | None:
    """`ha: shutdown_policy=migrate` of datacenter.cfg. Source: pve-docs, datacenter.cfg and ha-manager."""
    known, text = answered(ask, DATACENTER, "pve.shutdown-policy")
    if not known:
        return None
    for line in (text or "").splitlines():
        key, _, value = line.partition(":")
        if key.strip() == "ha":
            return _word(parse_options(value.strip(), "").get("shutdown_policy", "")) or "conditional"
    return "conditional"


# -- hookscripts ------------------------------------------------------------------------------


def probe_hook_files(
    ask: Asking, guests: Iterable[Vm], storages: Iterable[Storage] | None, node: str | None
) -> dict[str, bool]:
    """Whether the hookscript that each guest of this node names lies where Proxmox looks for it; a name that is
    missing here: nobody looked."""
    wanted: dict[str, set[str]] = {}
    for guest in guests:
        name = guest.value("hookscript") or ""
        folder = place_of(storages or (), name, node) if guest.node == node and name else None
        if folder is not None:
            wanted.setdefault(folder, set()).add(name)
    found: dict[str, bool] = {}
    for folder, names in wanted.items():
        there = _listed(ask, folder)
        if there is not None:
            found.update({name: name.rpartition("/")[2] in there for name in names})
    return found


def _listed(ask: Asking, folder: str) -> frozenset[str] | None:
    try:
        return frozenset(ask.host.names(folder))
    except Missing:
        return frozenset()
    except HostError as error:
        ask.gap("guests.hookscript", error.reason, folder)
        return None
