"""Backup jobs, replication, high availability, and hookscripts that are there or not."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Unreadable
from pve_passthrough.model.facts import Storage
from pve_passthrough.model.lifecycle import HaResource, Lifecycle, Placement, Replication
from pve_passthrough.model.pci import Address
from pve_passthrough.model.vm import HostPci, Vm
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.lifecycle import probe_hook_files, probe_jobs, probe_lifecycle

from .trees import Content, Scripted, plant

GPU = HostPci("hostpci0", {"host": "0000:01:00"}, (Address(0, 1, 0, 0),))
VMS = (*(Vm(vmid, "pve", {}) for vmid in (100, 101, 102)), Vm(200, "pve2", {}))
GIVEN = (Vm(100, "pve", {"hostpci0": "0000:01:00"}, hostpci=(GPU,)),)
JOBS = "/etc/pve/jobs.cfg"
CRON = "/etc/pve/vzdump.cron"


def ask(root: Path, files: dict[str, Content]) -> Asking:
    return Asking(Scripted(plant(root, files)))


def modes(asking: Asking) -> dict[int, str]:
    """Guest to mode; of several jobs the last one."""
    jobs = probe_jobs(asking)
    assert jobs is not None
    return {vm.vmid: job.mode for job in jobs for vm in VMS if job.covers(vm)}


# -- backup jobs ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        ({JOBS: "vzdump: a\n\tmode stop\n\tvmid 100,102\n"}, {100: "stop", 102: "stop"}),
        ({JOBS: "vzdump: a\n\tenabled 0\n\tall 1\n"}, {}),
        ({JOBS: "vzdump: a\n\tall 1\n\texclude 101\n\tnode pve\n"}, {100: "snapshot", 102: "snapshot"}),
        ({JOBS: "vzdump: a\n\texclude 100,101,200\n"}, {102: "snapshot"}),
        ({JOBS: "vzdump: a\n\tvmid 100\n\tall 1\n"}, {100: "snapshot"}),
        (
            {JOBS: "vzdump: a\n\tpool p\n\tmode suspend\n", "/etc/pve/user.cfg": "pool:p:c:101,200:s:\n"},
            {101: "suspend", 200: "suspend"},
        ),
        ({JOBS: "vzdump: a\n\tpool p\n", "/etc/pve/user.cfg": "pool:p/below:c:101:s:\n"}, {}),
        ({JOBS: "vzdump: a\n\tvmid 100\n\tmode stop\nrealm-sync: c\n\tvmid 101\n"}, {100: "stop"}),
        (
            {CRON: "0 2 * * 6 root vzdump 100 101 --mode stop --quiet 1\n# x vzdump 102\n"},
            {100: "stop", 101: "stop"},
        ),
        ({CRON: "0 2 * * 6 root vzdump --all --exclude=100,200 --node pve\n"}, {101: "snapshot", 102: "snapshot"}),
        ({JOBS: "vzdump: a\n\tvmid 100\n", "/etc/vzdump.conf": "# mode: suspend\nmode: stop\n"}, {100: "stop"}),
        ({JOBS: "vzdump: a\n\tvmid 100\n\tmode bogus\n"}, {100: "snapshot"}),
        ({}, {}),
    ],
)
def test_backup_jobs(tmp_path: Path, files: dict[str, Content], expected: dict[int, str]) -> None:
    assert modes(ask(tmp_path, files)) == expected


def test_a_job_knows_when_where_to_and_who_says_its_mode(tmp_path: Path) -> None:
    text = "vzdump: nightly\n\tschedule mon 02:30\n\tstorage nas\n\tvmid 100\n"
    text += "vzdump: old\n\tdow sun\n\tstarttime 01:00\n\tall\n"
    jobs = probe_jobs(ask(tmp_path, {JOBS: text, CRON: "0 2 * * 6 root vzdump 100 --mode stop\n"})) or ()
    assert [(one.name, one.schedule, one.storage, one.mode_from) for one in jobs] == [
        ("nightly", "mon 02:30", "nas", ""),
        ("old", "sun 01:00", "", ""),
        ("vzdump.cron:1", "0 2 * * 6", "", CRON),
    ]


class Shut(Scripted):
    """Files that may not be read, as another user than root finds them."""

    shut: tuple[str, ...] = ()

    def read(self, path: str) -> bytes:
        if path in self.shut:
            raise Unreadable(path, "Permission denied")
        return super().read(path)


def shut(root: Path, *paths: str) -> Asking:
    host = Shut(plant(root, {"/etc/pve/.version": "{}"}))
    host.shut = paths
    return Asking(host)


def test_jobs_that_nobody_may_read_are_unknown(tmp_path: Path) -> None:
    asking = shut(tmp_path, JOBS)
    assert probe_jobs(asking) is None
    assert [gap.about for gap in asking.gaps] == ["pve.backup"]


# -- replication and high availability --------------------------------------------------------

FILES: dict[str, Content] = {
    "/etc/pve/replication.cfg": "local: 100-0\n\ttarget pve2\n\tschedule */30\n\n"
    "local: 100-1\n\ttarget pve3\n\tdisable 1\n\n"
    "local: 100-2\n\ttarget pve4\n\tremove_job full\n\nlocal: 7-x\n\ttarget ../etc\n",
    # The texts of the next two are those that the commands have written: 9.2 (rules) and 8.4 (groups).
    "/etc/pve/ha/rules.cfg": "node-affinity: rec-r\n\tnodes pve\n\tresources vm:700\n\n"
    "node-affinity: home\n\tnodes pve:2,pve2\n\tresources vm:100,ct:300\n\tstrict 1\n\n"
    "node-affinity: off\n\tdisable 1\n\tnodes pve2\n\tresources vm:100\n\n"
    "resource-affinity: apart\n\tresources vm:100,vm:101\n\taffinity negative\n",
    "/etc/pve/ha/groups.cfg": "group: rec-g\n\tnodes pve8\n\n",
    "/etc/pve/ha/resources.cfg": "vm: 100\n\tcomment c\n\tstate ignored\n\nct: 300\n\nvm: 101\n\tgroup rec-g\n\n",
    "/etc/pve/datacenter.cfg": "keyboard: de\nha: shutdown_policy=migrate\n",
}


def test_everything_is_read_where_a_guest_has_devices(tmp_path: Path) -> None:
    found = probe_lifecycle(ask(tmp_path, FILES), GIVEN, "pve")
    assert found.replications == (
        Replication(100, 0, "pve2", "*/30"),
        Replication(100, 1, "pve3", "*/15", disabled=True),
    )
    assert found.ha == (HaResource(100, "ignored"), HaResource(101, "started", "rec-g"))
    assert found.placements == (
        Placement("rec-g", ("pve8",), path="/etc/pve/ha/groups.cfg"),
        Placement("rec-r", ("pve",), vmids=frozenset({700}), path="/etc/pve/ha/rules.cfg"),
        Placement("home", ("pve", "pve2"), True, frozenset({100}), "/etc/pve/ha/rules.cfg"),
    )
    assert (found.shutdown_policy, found.looked) == ("migrate", True)
    assert found.placement_of(GIVEN[0]) == found.placements[2]
    assert found.placement_of(VMS[1]) == found.placements[0]
    assert found.placement_of(VMS[2]) is None


def test_without_devices_only_the_two_files_of_a_glance_are_read(tmp_path: Path) -> None:
    asking = ask(tmp_path, FILES)
    read: list[str] = []
    original = asking.host.read

    def noted(path: str) -> bytes:
        read.append(path)
        return original(path)

    asking.host.read = noted  # type: ignore[method-assign]
    found = probe_lifecycle(asking, VMS, "pve")
    assert found == Lifecycle(jobs=(), ha=(HaResource(100, "ignored"), HaResource(101, "started", "rec-g")))
    assert set(read) <= {JOBS, CRON, "/etc/pve/ha/resources.cfg"}


@pytest.mark.parametrize("usb", ["host=046d:c52b", "mapping=stick", "1-4"])
def test_a_usb_device_counts_and_a_spice_port_does_not(tmp_path: Path, usb: str) -> None:
    assert probe_lifecycle(ask(tmp_path / "a", FILES), (Vm(100, "pve", {"usb0": usb}),), "pve").looked
    assert not probe_lifecycle(ask(tmp_path / "b", FILES), (Vm(100, "pve", {"usb0": "spice,usb3=1"}),), "pve").looked


def test_files_that_nobody_may_read_are_gaps_and_not_an_empty_cluster(tmp_path: Path) -> None:
    asking = shut(tmp_path, *FILES)
    found = probe_lifecycle(asking, GIVEN, "pve")
    assert found == Lifecycle(jobs=(), placements=(), shutdown_policy="conditional", looked=True)
    assert {gap.about for gap in asking.gaps} == {"pve.replication", "guests.ha"}


# -- hookscripts ------------------------------------------------------------------------------

STORAGES = (
    Storage("local", "dir", frozenset({"iso"}), "/var/lib/vz"),
    Storage("nas", "nfs", frozenset({"snippets"}), "/mnt/pve/nas", shared=True),
    Storage("away", "dir", frozenset({"snippets"}), "/srv", nodes=frozenset({"pve2"})),
    Storage("moved", "dir", frozenset({"snippets"}), "/srv", folders="snippets=/x"),
)


def test_hookscripts_are_looked_for_where_proxmox_does(tmp_path: Path) -> None:
    names = ["local:snippets/here.sh", "local:snippets/gone.sh", "nas:snippets/a.sh", "away:snippets/a.sh"]
    names += ("moved:snippets/a.sh", "nosuch:snippets/a.sh", "local:snippets/../../etc/passwd", "local:iso/a.sh")
    vms = [Vm(100 + number, "pve", {"hookscript": name}) for number, name in enumerate(names)]
    vms.append(Vm(300, "pve2", {"hookscript": "local:snippets/other-node.sh"}))
    asking = ask(tmp_path, {"/var/lib/vz/snippets/here.sh": "#!/bin/sh\n"})
    assert probe_hook_files(asking, vms, STORAGES, "pve") == {names[0]: True, names[1]: False}


def test_a_folder_that_is_not_there_holds_nothing(tmp_path: Path) -> None:
    vms = [Vm(100, "pve", {"hookscript": "local:snippets/a.sh"})]
    assert probe_hook_files(ask(tmp_path, {"/var/lib/x": ""}), vms, STORAGES, "pve") == {"local:snippets/a.sh": False}
    assert probe_hook_files(ask(tmp_path, {}), vms, None, "pve") == {}
