"""What works for a guest with devices: by how the device is named, by version, by node, by what is arranged."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.knowledge.lifecycle import ROWS, lacking, ties, version, without
from pve_passthrough.model.facts import Facts, Gap, MapEntry, Pve, ResourceMapping, Storage
from pve_passthrough.model.lifecycle import BackupJob, HaResource, Lifecycle, Placement, Replication
from pve_passthrough.model.vm import Vm
from pve_passthrough.planning.lifecycle import ANSWERS, Answer, Works, outlook, start_at_boot, start_order
from tests.rules.worlds import guest, host

JOBS = "/etc/pve/jobs.cfg"
STORAGES = (
    Storage("local-lvm", "lvmthin", frozenset({"images"})),
    Storage("local", "dir", frozenset({"images", "snippets"}), "/var/lib/vz"),
    Storage("tank", "zfspool", frozenset({"images"})),
    Storage("thick", "lvm", frozenset({"images"})),
    Storage("ceph", "rbd", frozenset({"images"}), shared=True),
)


def mapping(*nodes: str, **options: str) -> ResourceMapping:
    flags = {key.replace("_", "-"): value for key, value in options.items()}
    return ResourceMapping("pci", "gpu", tuple(MapEntry(node, "0000:01:00.0", {}) for node in nodes), flags)


def cluster(*guests: Vm, pve: str = "9.2.11", qemu: str = "9.2.6", nodes: str = "pve pve2 pve3", **more: Any) -> Facts:
    named = Pve(True, pve, qemu, "pve", tuple(nodes.split()), quorate=True, writable=True)
    more = {"storages": STORAGES, "lifecycle": LIVE} | more
    return host(pve=named, guests=guests or (guest(),), **more)


LIVE = Lifecycle((), (), (), (), "conditional", looked=True)
MAPPED = guest(hostpci0="mapping=gpu")


def said(facts: Facts, operation: str) -> Answer:
    assert facts.guests
    return next(one for one in outlook(facts, facts.guests[0]) if one.row.operation == operation)


def works(facts: Facts, operation: str) -> Works:
    return said(facts, operation).works


def commands(answer: Answer) -> list[str]:
    return [one.command for one in answer.advice if one.command]


def test_every_row_has_its_answer_and_its_source() -> None:
    assert [one.row for one in outlook(cluster(), guest())] == list(ROWS)
    assert len(ANSWERS) == len(ROWS) and all(row.source and row.what for row in ROWS)
    assert outlook(cluster(), guest(drop=("hostpci0",))) == ()
    assert outlook(cluster(), guest(drop=("hostpci0",), usb0="host=1-4")) != ()


# -- migration -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("facts", "offline", "live"),
    [
        (cluster(nodes="pve"), Works.NONE, Works.NONE),
        (cluster(), Works.NO, Works.NO),
        (cluster(MAPPED), Works.NO, Works.NO),  # there is no such mapping
        (cluster(MAPPED, mappings=(mapping("pve"),)), Works.NO, Works.NO),
        (cluster(MAPPED, mappings=(mapping("pve", "pve2"),)), Works.PARTLY, Works.NO),
        (cluster(MAPPED, mappings=(mapping("pve", "pve2", "pve3"),)), Works.YES, Works.NO),
        (
            cluster(MAPPED, mappings=(mapping("pve", "pve2", "pve3", live_migration_capable="1"),)),
            Works.YES,
            Works.UNKNOWN,
        ),
        (
            cluster(
                MAPPED,
                mappings=(mapping("pve", "pve2", "pve3", live_migration_capable="1"),),
                pve="8.3.5",
                qemu="8.3.8",
            ),
            Works.YES,
            Works.NO,
        ),
        (cluster(guest(drop=("hostpci0",), usb0="host=046d:c52b")), Works.NO, Works.NO),
        (
            cluster(
                guest(drop=("hostpci0",), usb0="mapping=gpu"),
                mappings=(replace(mapping("pve", "pve2", "pve3"), kind="usb"),),
            ),
            Works.YES,
            Works.NO,
        ),
        (
            cluster(guest(hostpci0="mapping=gpu", serial0="/dev/ttyS0"), mappings=(mapping("pve", "pve2", "pve3"),)),
            Works.NO,
            Works.NO,
        ),
        (
            cluster(guest(hostpci0="mapping=gpu", serial0="socket"), mappings=(mapping("pve", "pve2", "pve3"),)),
            Works.YES,
            Works.NO,
        ),
    ],
)
def test_migration(facts: Facts, offline: Works, live: Works) -> None:
    assert (works(facts, "offline-migration"), works(facts, "live-migration")) == (offline, live)


def test_what_ties_a_guest_is_what_proxmox_names() -> None:
    """The recorded answers of 9.2: local_resources, and mapped-resources."""
    held = ties(cluster(), guest(hostpci0="0000:01:00,pcie=1"))
    assert (held.raw, dict(held.mapped)) == (("hostpci0",), {})
    both = guest(hostpci0="mapping=gpu", hostpci1="mapping=gpu")
    held = ties(cluster(both, mappings=(mapping("pve"),)), both)
    assert (held.raw, sorted(held.mapped), held.live) == ((), ["hostpci0", "hostpci1"], frozenset())


def test_nodes_that_nobody_knows_are_unknown() -> None:
    facts = replace(cluster(), pve=Pve(True, node="pve"), gaps=(Gap("pve.nodes", "no /etc/pve"),))
    found = said(facts, "offline-migration")
    assert (found.works, found.evidence) == (Works.UNKNOWN, ("pve.nodes: no /etc/pve",))


# -- backup ----------------------------------------------------------------------------------


def job(mode: str = "snapshot", **more: Any) -> Lifecycle:
    return replace(LIVE, jobs=(BackupJob("nightly", mode, JOBS, **({"vmids": frozenset({100, 101})} | more)),))


@pytest.mark.parametrize(
    ("running", "lifecycle", "expected"),
    [
        (True, LIVE, Works.YES),
        (True, job(), Works.YES),
        (True, job("stop"), Works.PARTLY),
        (True, job("suspend"), Works.PARTLY),
        (False, job(), Works.PARTLY),
        (None, job(), Works.UNKNOWN),
    ],
)
def test_backup(running: bool | None, lifecycle: Lifecycle, expected: Works) -> None:
    assert works(cluster(guest(running=running), lifecycle=lifecycle), "backup") is expected


def test_a_stopped_guest_whose_card_another_one_has_cannot_be_backed_up() -> None:
    found = said(cluster(guest(), guest(101, running=True, name="other"), lifecycle=job()), "backup")
    assert found.works is Works.NO and "other (101) runs with them" in found.why
    assert commands(found) == ["pvesh set /cluster/backup/nightly --vmid 101"]


def test_how_a_guest_leaves_a_job() -> None:
    one = BackupJob("a b", "stop", JOBS, everything=True, excluded=frozenset({7, 300}))
    assert without(one, guest()) == "pvesh set /cluster/backup/'a b' --exclude 7,100,300"
    assert without(replace(one, everything=False, vmids=frozenset({100})), guest()).startswith("pvesh delete")
    assert without(replace(one, pool="p"), guest()) == ""
    assert without(replace(one, path="/etc/pve/vzdump.cron", name="vzdump.cron:3"), guest()) == ""


# -- snapshots -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("disk", "release", "expected"),
    [
        ("tank:vm-100-disk-0,size=4M", "9.2.11", Works.YES),
        ("local:100/vm-100-disk-0.qcow2,size=4M", "9.2.11", Works.YES),
        ("local:100/vm-100-disk-0.raw,size=4M", "8.4.1", Works.NO),
        ("thick:vm-100-disk-0", "8.4.1", Works.NO),
        ("thick:vm-100-disk-0", "9.2.11", Works.UNKNOWN),
        ("/dev/disk/by-id/ata-x", "9.2.11", Works.NO),
        ("nosuch:vm-100-disk-0", "9.2.11", Works.UNKNOWN),
        ("none,media=cdrom", "9.2.11", Works.YES),
    ],
)
def test_disks_decide_about_a_snapshot(disk: str, release: str, expected: Works) -> None:
    assert works(cluster(guest(scsi0=disk), pve=release), "snapshot") is expected


def test_memory_and_hibernation() -> None:
    capable = cluster(MAPPED, mappings=(mapping("pve", live_migration_capable="1"),))
    stick = cluster(guest(drop=("hostpci0",), usb0="host=1-4"))
    assert [works(facts, "memory-snapshot") for facts in (cluster(), capable, stick)] == [
        Works.NO, Works.UNKNOWN, Works.UNKNOWN
    ]  # fmt: skip
    assert works(cluster(guest(hostpci0="mapping=gpu", virtiofs0="data")), "memory-snapshot") is Works.NO
    assert [works(facts, "hibernate") for facts in (cluster(), capable, stick)] == [
        Works.NO, Works.NO, Works.UNKNOWN
    ]  # fmt: skip


def test_a_rollback_that_brings_other_lines_back_is_named() -> None:
    then = {"old": {"hostpci0": "0000:07:00,pcie=1", "name": "work"}, "same": {"hostpci0": "0000:01:00,pcie=1"}}
    found = said(cluster(replace(guest(), snapshots=then)), "rollback")
    assert found.works is Works.PARTLY
    assert found.evidence == ("[old] hostpci0: 0000:07:00,pcie=1; now 0000:01:00,pcie=1",)
    assert works(cluster(replace(guest(), snapshots={"same": then["same"]})), "rollback") is Works.YES


# -- high availability -----------------------------------------------------------------------

HOME = Placement("home", ("pve",), True, frozenset({100}), "/etc/pve/ha/rules.cfg")


def managed(state: str = "started", *placements: Placement, policy: str | None = "conditional") -> Lifecycle:
    return replace(LIVE, ha=(HaResource(100, state),), placements=placements, shutdown_policy=policy)


@pytest.mark.parametrize(
    ("lifecycle", "expected"),
    [
        (LIVE, Works.NONE),
        (managed(), Works.NO),
        (managed("ignored"), Works.NONE),
        (managed("started", HOME), Works.YES),
        (managed("started", replace(HOME, strict=False)), Works.NO),
        (managed("started", replace(HOME, vmids=frozenset({101}))), Works.NO),
        (managed("started", replace(HOME, nodes=("pve2", "pve3"), avoids=True)), Works.YES),
        (managed("started", replace(HOME, nodes=("pve2",), avoids=True)), Works.NO),
        (replace(managed(), placements=None), Works.UNKNOWN),
        (replace(LIVE, ha=None), Works.UNKNOWN),
    ],
)
def test_high_availability(lifecycle: Lifecycle, expected: Works) -> None:
    assert works(cluster(lifecycle=lifecycle), "ha") is expected


def test_a_group_of_8_4_is_found_by_its_name_and_the_commands_follow_the_version() -> None:
    group = Placement("g", ("pve", "pve2"), True, path="/etc/pve/ha/groups.cfg")
    lifecycle = replace(managed("started", group), ha=(HaResource(100, "started", "g"),))
    facts = cluster(lifecycle=lifecycle)
    assert lacking(facts, guest(), ties(facts, guest())) == ("pve2",)
    assert commands(said(cluster(lifecycle=managed()), "ha"))[0] == (
        "pvesh create /cluster/ha/rules --rule vm-100-devices --type node-affinity --strict 1 --nodes pve "
        "--resources vm:100"
    )
    older = commands(said(cluster(lifecycle=managed(), pve="8.4.1"), "ha"))
    assert older[0].startswith("ha-manager groupadd vm-100-devices --restricted 1 --nodes pve")


@pytest.mark.parametrize(
    ("lifecycle", "expected"),
    [
        (LIVE, Works.YES),
        (managed(), Works.PARTLY),
        (managed("started", HOME), Works.YES),
        (managed(policy="migrate"), Works.NO),
        (managed("ignored", policy="migrate"), Works.YES),
        (managed(policy="failover"), Works.PARTLY),
        (managed(policy="freeze"), Works.YES),
        (managed(policy=None), Works.UNKNOWN),
    ],
)
def test_the_host_goes_down(lifecycle: Lifecycle, expected: Works) -> None:
    assert works(cluster(lifecycle=lifecycle), "host-shutdown") is expected


# -- replication and clones ------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "mappings", "expected"),
    [
        ({}, (), Works.NO),  # its EFI disk lies on LVM-thin
        ({"efidisk0": "tank:vm-100-disk-0"}, (), Works.PARTLY),
        ({"efidisk0": "ceph:vm-100-disk-0"}, (), Works.PARTLY),
        ({"efidisk0": "tank:vm-100-disk-0", "hostpci0": "mapping=gpu"}, (mapping("pve", "pve2"),), Works.YES),
        ({"efidisk0": "tank:vm-100-disk-0", "hostpci0": "mapping=gpu"}, (mapping("pve", "pve3"),), Works.PARTLY),
    ],
)
def test_replication(config: dict[str, Any], mappings: tuple[ResourceMapping, ...], expected: Works) -> None:
    lifecycle = replace(LIVE, replications=(Replication(100, 0, "pve2"), Replication(100, 1, "pve3", disabled=True)))
    assert works(cluster(guest(**config), mappings=mappings, lifecycle=lifecycle), "replication") is expected


def test_the_copies_of_a_pool_do_not_fight() -> None:
    pool = ResourceMapping("pci", "gpu", tuple(MapEntry("pve", f"0000:03:10.{n}", {}) for n in range(3)))
    assert works(cluster(MAPPED, mappings=(pool,)), "clone") is Works.YES
    found = said(cluster(guest(hookscript="local:snippets/x")), "clone")
    assert (found.works, commands(found)) == (Works.PARTLY, ["qm set COPY --delete hostpci0,hookscript"])


# -- settings --------------------------------------------------------------------------------


def test_what_is_so_already_is_no_wish() -> None:
    assert start_at_boot(guest(onboot="1"), True) == ()
    assert [wish.value for wish in start_at_boot(guest(), True) if hasattr(wish, "value")] == ["1"]
    assert start_order(guest(startup="order=2"), "order=2") == ()


@pytest.mark.parametrize("text", ["order=1,up=30", "1", "order=1,up=30,down=60"])
def test_start_orders_that_proxmox_takes(text: str) -> None:
    assert len(start_order(guest(), text)) == 1


@pytest.mark.parametrize("text", ["", "up=abc", "order=1,order=2", "order", "order=1\nargs: -x", "first=1"])
def test_start_orders_that_it_does_not_take(text: str) -> None:
    with pytest.raises(Failure, match="no start order"):
        start_order(guest(), text)


@pytest.mark.parametrize(
    ("text", "expected"), [("8.3.12", (8, 3, 12)), ("7.2-5", (7, 2, 5)), ("9.0~beta", (9, 0)), ("", None), ("x", None)]
)
def test_versions(text: str, expected: tuple[int, ...] | None) -> None:
    assert version(text) == expected
