"""The rules about a guest's life beyond its start, where they differ from one world to the next."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.model.facts import Facts, MapEntry, Pve, ResourceMapping, Storage
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.lifecycle import BackupJob, HaResource, Lifecycle, Placement, Replication
from pve_passthrough.model.vm import Vm
from pve_passthrough.rules import Request, judge

from .worlds import GPU, SOUND, guest, host

ASKED = Request((), 100)
HOOK = "local:snippets/pve-passthrough-hook-100"
LOCAL = Storage("local", "dir", frozenset({"snippets"}), "/var/lib/vz")
NAS = Storage("nas", "nfs", frozenset({"snippets"}), "/mnt/pve/nas", shared=True)
GPU_EVERYWHERE = ResourceMapping("pci", "gpu", tuple(MapEntry(node, "0000:01:00", {}) for node in ("pve", "pve2")))


def cluster(*guests: Vm, **more: Any) -> Facts:
    pve = Pve(True, "9.2.11", "9.2.6", "pve", ("pve", "pve2"), quorate=True, writable=True)
    return host(pve=pve, guests=guests or (guest(),), **({"storages": (LOCAL, NAS)} | more))


def said(rule: str, facts: Facts, request: Request = ASKED) -> list[Finding]:
    return [one for one in judge(facts, request) if one.rule == rule]


def commands(found: Iterable[Finding]) -> list[str]:
    return [command for one in found if one.fix for command in one.fix.commands]


def jobs(*modes: str) -> Lifecycle:
    return Lifecycle(tuple(BackupJob(f"job-{mode}", mode, "/etc/pve/jobs.cfg", everything=True) for mode in modes))


# -- backup ----------------------------------------------------------------------------------


def test_each_job_that_touches_the_device_is_named() -> None:
    facts = host(guests=(guest(running=True),), lifecycle=jobs("snapshot", "stop", "suspend"))
    found = said("guests.backup", facts)
    assert ["job-stop" in one.message or "job-suspend" in one.message for one in found] == [True, True]
    assert commands(found) == [f"pvesh set /cluster/backup/job-{mode} --mode snapshot" for mode in ("stop", "suspend")]


def test_a_backup_that_must_fail_is_more_than_a_note() -> None:
    other = guest(101, running=True, name="other")
    (alone,) = said("guests.backup", host(lifecycle=jobs("snapshot")))
    (found,) = said("guests.backup", host(guests=(guest(), other), lifecycle=jobs("snapshot")))
    assert (alone.level, found.level) == (Level.NOTE, Level.HARMS)
    assert "fails while other (101) has them" in found.message


def test_a_backup_of_a_guest_that_borrows_the_display_darkens_the_host() -> None:
    lent = {"/etc/pve-passthrough/lent-100.conf": "0000:01:00.0 10de:2684\n"}
    (found,) = said("guests.backup", host(files=lent, lifecycle=jobs("snapshot")))
    assert found.level is Level.HARMS and "screen goes dark" in found.message


def test_guests_without_devices_are_left_alone() -> None:
    plain = guest(drop=("hostpci0",))
    assert said("guests.backup", host(guests=(plain,), lifecycle=jobs("stop"))) == []
    assert said("guests.backup", host(guests=(plain,), lifecycle=jobs("stop")), Request((GPU, SOUND), 100)) != []
    stick = guest(drop=("hostpci0",), usb0="host=1-4")
    assert said("guests.backup", host(guests=(stick,), lifecycle=jobs("stop"))) != []


# -- the hookscript --------------------------------------------------------------------------


def test_a_missing_guard_is_written_again_and_a_strange_script_is_not() -> None:
    ours = said("lifecycle.hook-missing", host(guests=(guest(hookscript=HOOK),), hook_files={HOOK: False}))
    assert commands(ours) == ["pve-passthrough lifecycle --vm 100 --guard"]
    name = "local:snippets/own.sh"
    theirs = said("lifecycle.hook-missing", host(guests=(guest(hookscript=name),), hook_files={name: False}))
    assert commands(theirs) == ["qm set 100 --delete hookscript"]


@pytest.mark.parametrize("there", [{HOOK: True}, {}])
def test_a_script_that_is_there_or_that_nobody_looked_for_is_not_missing(there: dict[str, bool]) -> None:
    assert said("lifecycle.hook-missing", host(guests=(guest(hookscript=HOOK),), hook_files=there)) == []


@pytest.mark.parametrize(
    ("config", "more", "fires"),
    [
        ({"hookscript": HOOK}, {}, False),  # raw host=: it never leaves this node
        ({"hookscript": HOOK, "hostpci0": "mapping=gpu"}, {"mappings": (GPU_EVERYWHERE,)}, True),
        ({"hookscript": "nas:snippets/a", "hostpci0": "mapping=gpu"}, {"mappings": (GPU_EVERYWHERE,)}, False),
        ({"hookscript": HOOK, "hostpci0": "mapping=gpu", "usb0": "host=1-4"}, {"mappings": (GPU_EVERYWHERE,)}, False),
        ({"hostpci0": "mapping=gpu"}, {"mappings": (GPU_EVERYWHERE,)}, False),
    ],
)
def test_a_script_of_this_node_for_a_guest_that_may_leave(
    config: dict[str, Any], more: dict[str, Any], fires: bool
) -> None:
    assert bool(said("lifecycle.hook-elsewhere", cluster(guest(**config), **more))) is fires


def test_ha_takes_a_guest_to_other_nodes_unless_a_rule_or_its_state_keeps_it() -> None:
    vm = replace(guest(hookscript=HOOK), ha_managed=True)
    home = Placement("home", ("pve",), True, frozenset({100}), "/etc/pve/ha/rules.cfg")
    for lifecycle, fires in (
        (Lifecycle(ha=(HaResource(100),), placements=()), True),
        (Lifecycle(ha=(HaResource(100),), placements=(home,)), False),
        (Lifecycle(ha=(HaResource(100, "ignored"),), placements=()), False),
    ):
        facts = cluster(vm, lifecycle=lifecycle)
        assert bool(said("lifecycle.hook-elsewhere", facts)) is fires
        assert bool(said("lifecycle.ha-nodes", facts)) is fires


# -- high availability -----------------------------------------------------------------------


def test_where_ha_may_start_it_is_unknown_is_no_accusation() -> None:
    assert said("lifecycle.ha-nodes", cluster(lifecycle=Lifecycle(ha=(HaResource(100),), placements=None))) == []


def test_an_ignored_guest_is_no_longer_managed() -> None:
    vm = replace(guest(), ha_managed=True)
    assert said("guests.ha", cluster(vm, lifecycle=Lifecycle(ha=(HaResource(100),)))) != []
    assert said("guests.ha", cluster(vm, lifecycle=Lifecycle(ha=(HaResource(100, "ignored"),)))) == []


@pytest.mark.parametrize(("state", "fires"), [("started", True), ("stopped", False), ("ignored", False)])
def test_a_node_that_waits_for_a_guest_which_cannot_leave(state: str, fires: bool) -> None:
    lifecycle = Lifecycle(ha=(HaResource(100, state),), shutdown_policy="migrate")
    assert bool(said("lifecycle.ha-shutdown", cluster(lifecycle=lifecycle))) is fires
    assert said("lifecycle.ha-shutdown", cluster(lifecycle=replace(lifecycle, shutdown_policy="freeze"))) == []
    alone = host(lifecycle=lifecycle)
    assert said("lifecycle.ha-shutdown", alone) == []


# -- replication and snapshots ---------------------------------------------------------------


def test_replication_to_a_node_that_has_the_device() -> None:
    lifecycle = Lifecycle(replications=(Replication(100, 0, "pve2"), Replication(100, 1, "pve3", disabled=True)))
    vm = guest(hostpci0="mapping=gpu")
    assert said("lifecycle.replication", cluster(vm, mappings=(GPU_EVERYWHERE,), lifecycle=lifecycle)) == []
    (found,) = said("lifecycle.replication", cluster(lifecycle=lifecycle))
    assert "does not start there with hostpci0" in found.message


def test_many_snapshots_are_one_finding() -> None:
    snapshots = {f"s{number}": {"hostpci0": f"0000:0{number}:00"} for number in range(9)}
    (found,) = said("lifecycle.snapshot-devices", host(guests=(replace(guest(), snapshots=snapshots),)))
    assert len(found.evidence) == 8 and found.level is Level.NOTE
