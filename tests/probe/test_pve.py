"""Proxmox VE: installation, cluster, mappings, guests of all nodes."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Unreadable
from pve_passthrough.model.facts import MapEntry, Pve
from pve_passthrough.model.pci import Address
from pve_passthrough.model.vm import Vm, digest_of
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.dpkg import Packages
from pve_passthrough.probe.pve import (
    probe_guests,
    probe_mappings,
    probe_pve,
    probe_storages,
    quorate_in,
)
from pve_passthrough.probe.sections import sections

from .trees import DIRECTORY, Content, Link, Scripted, plant

STATUS = """Package: pve-manager
Status: install ok installed
Version: 9.2.11

Package: qemu-server
Status: install ok installed
Version: 9.2.6
"""
CARD = tuple(Address.parse(f"01:00.{function}") for function in (0, 1))
NVME = Address.parse("02:00.0")
KNOWN = (*CARD, NVME)
NODE = "/etc/pve/nodes/pve/qemu-server"
OTHER = "/etc/pve/nodes/pve2/qemu-server"
BASE: dict[str, Content] = {
    "/etc/pve/local": Link("nodes/pve"),
    "/etc/hostname": "pve.example.org\n",
    f"{NODE}/100.conf": "name: a\nhostpci0: 01:00,pcie=1\n",
    "/run/qemu-server/100.pid": "1\n",
}


def ask(root: Path, files: dict[str, Content]) -> Asking:
    return Asking(Scripted(plant(root, files)))


def guests(root: Path, files: dict[str, Content]) -> dict[int, Vm]:
    asking = ask(root, files)
    pve = probe_pve(asking, Packages(STATUS.encode()), deep=False)
    found = probe_guests(asking, pve, probe_mappings(asking), KNOWN)
    assert found is not None
    return {vm.vmid: vm for vm in found}


def abouts(asking: Asking) -> set[str]:
    return {gap.about for gap in asking.gaps}


# -- installation and cluster -----------------------------------------------------------------


def test_versions_and_node(tmp_path: Path) -> None:
    found = probe_pve(ask(tmp_path, BASE), Packages(STATUS.encode()), deep=False)
    assert found == Pve(True, "9.2.11", "9.2.6", "pve", ("pve",), True, None)


@pytest.mark.parametrize(
    ("status", "files", "installed"),
    [
        (b"Package: bash\nStatus: install ok installed\nVersion: 5\n", {}, False),
        (STATUS.replace("install ok installed", "deinstall ok config-files").encode(), {}, False),
        (None, {}, None),
        (None, {"/etc/os-release": "ID=fedora\n"}, False),
        (None, {"/etc/pve/nodes/pve": DIRECTORY}, True),
    ],
)
def test_installed(tmp_path: Path, status: bytes | None, files: dict[str, Content], installed: bool | None) -> None:
    asking = ask(tmp_path, files)
    assert probe_pve(asking, Packages(status), deep=False).installed is installed
    assert ("pve.installed" in abouts(asking)) is (installed is None)


@pytest.mark.parametrize(
    ("files", "node"),
    [
        ({"/etc/hostname": "pve.example.org\n"}, "pve"),
        ({"/etc/hostname": "a\n", "/etc/pve/local": Link("nodes/b")}, "b"),
        ({"/etc/hostname": "../../x\n"}, None),
        ({}, None),
    ],
)
def test_node(tmp_path: Path, files: dict[str, Content], node: str | None) -> None:
    assert probe_pve(ask(tmp_path, files), Packages(STATUS.encode()), deep=False).node == node


@pytest.mark.parametrize(
    ("members", "quorate"),
    [
        ('{"nodename": "pve", "version": 0}', True),
        ('{"nodename": "pve", "version": 3, "cluster": {"name": "c", "quorate": 1}}', True),
        ('{"nodename": "pve", "version": 3, "cluster": {"name": "c", "quorate": 0}}', False),
        ('{"nodename": "pve", "cluster": 7}', None),
        ("[" * 100000, None),
        ("null", None),
        ("", None),
    ],
)
def test_quorum_in_the_member_list(members: str, quorate: bool | None) -> None:
    assert quorate_in(members) is quorate


def test_without_quorum_nothing_can_be_written(tmp_path: Path) -> None:
    members = '{"nodename": "pve", "cluster": {"quorate": 0}}'
    found = probe_pve(ask(tmp_path, BASE | {"/etc/pve/.members": members}), Packages(STATUS.encode()), deep=False)
    assert (found.quorate, found.writable) == (False, False)


def test_a_cluster_without_a_member_list_is_unknown(tmp_path: Path) -> None:
    asking = ask(tmp_path, BASE | {"/etc/pve/corosync.conf": "nodelist {}\n"})
    assert probe_pve(asking, Packages(STATUS.encode()), deep=False).quorate is None
    assert "pve.quorate" in abouts(asking)


def test_a_read_only_cluster_file_system(tmp_path: Path) -> None:
    files = BASE | {"/proc/mounts": "/dev/fuse /etc/pve fuse ro,nosuid 0 0\n"}
    assert probe_pve(ask(tmp_path, files), Packages(STATUS.encode()), deep=False).writable is False


# -- storages ---------------------------------------------------------------------------------

STORAGES = (
    "dir: local\n\tpath /var/lib/vz\n\tcontent iso, snippets\n\tdisable\n\n"
    "zfspool: tank\n\tpool tank\n\tcontent images,rootdir\n\tnodes one,two\n\tdisable 0\n"
)


def test_storages(tmp_path: Path) -> None:
    local, tank = probe_storages(ask(tmp_path, {"/etc/pve/storage.cfg": STORAGES})) or ()
    assert (local.name, local.type, local.path, local.content) == (
        "local", "dir", "/var/lib/vz", frozenset({"iso", "snippets"}),
    )  # fmt: skip
    assert not local.enabled and not local.nodes
    assert (tank.name, tank.type, tank.path, tank.nodes) == ("tank", "zfspool", "", frozenset({"one", "two"}))
    assert tank.enabled


def test_a_node_without_a_storage_file_has_unknown_storages(tmp_path: Path) -> None:
    asking = ask(tmp_path, {"/etc/pve/datacenter.cfg": "keyboard: de\n"})
    assert probe_storages(asking) is None
    assert "storages" in abouts(asking)


# -- sections and mappings --------------------------------------------------------------------


def test_sections_of_both_kinds() -> None:
    found = list(sections("# c\nvm: 700\n\nvm: 702\n\tcomment a: b\n\tstate started\n\nplain\n\tmap x\n\tmap y\n"))
    assert [(section.kind, section.name) for section in found] == [("vm", "700"), ("vm", "702"), ("", "plain")]
    assert found[1].get("comment") == "a: b"
    assert found[2].all("map") == ("x", "y")
    assert found[2].get("mdev", "-") == "-"


MAPPING = (
    "gpu\n\tmap node=pve,path=0000:01:00,id=10de:2684,iommugroup=1\n"
    "\tmap node=pve2,path=0000:41:00,id=10de:2684\n\tdescription RTX\n\n"
    "pool\n\tmap node=pve,path=0000:02:00.0,id=144d:a80a\n\tmap node=pve,path=0000:03:00.0,id=144d:a80a\n"
)


def test_mappings(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "/etc/pve/mapping/pci.cfg": MAPPING,
        "/etc/pve/mapping/usb.cfg": "key\n\tmap node=pve,id=1a86:7523\n",
    }
    gpu, pool, key = probe_mappings(ask(tmp_path, files))
    assert (gpu.kind, gpu.name, dict(gpu.options)) == ("pci", "gpu", {"description": "RTX"})
    assert gpu.entries[0] == MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "1"})
    assert [entry.path for entry in pool.entries] == ["0000:02:00.0", "0000:03:00.0"]
    assert (key.kind, key.entries[0].options) == ("usb", {"id": "1a86:7523"})


# -- guests -----------------------------------------------------------------------------------


def test_a_guest_of_this_node(tmp_path: Path) -> None:
    vm = guests(tmp_path, BASE)[100]
    assert (vm.node, vm.name, vm.running, vm.ha_managed) == ("pve", "a", True, False)
    assert vm.digest == digest_of("name: a\nhostpci0: 01:00,pcie=1\n")
    (entry,) = vm.hostpci
    assert (entry.key, entry.addresses, entry.on("pcie")) == ("hostpci0", CARD, True)


def test_guests_of_all_nodes(tmp_path: Path) -> None:
    files = BASE | {
        f"{OTHER}/200.conf": "hostpci0: 01:00\nhostpci1: 0000:01:00.1\n",
        f"{OTHER}/x.conf": "",
        f"{OTHER}/1.tmp": "",
    }
    asking = ask(tmp_path, files)
    pve = probe_pve(asking, Packages(STATUS.encode()), deep=False)
    found = probe_guests(asking, pve, (), KNOWN)
    assert found is not None and [(vm.vmid, vm.node, vm.running) for vm in found] == [
        (100, "pve", True),
        (200, "pve2", None),
    ]
    # A whole slot of another node is not expanded with this machine's functions.
    assert [entry.addresses for entry in found[1].hostpci] == [(), (CARD[1],)]
    assert "guests.running" in abouts(asking)


def test_mapped_devices_of_the_guests_own_node(tmp_path: Path) -> None:
    vm = guests(
        tmp_path,
        BASE
        | {
            "/etc/pve/mapping/pci.cfg": MAPPING,
            f"{NODE}/101.conf": "hostpci0: mapping=gpu,x-vga=1\nhostpci1: mapping=pool\n"
            "hostpci2: mapping=gone\nhostpci16: 02:00\n",
        },
    )[101]
    first, second, third = vm.hostpci
    assert (first.mapping, first.addresses) == ("gpu", CARD)
    assert second.addresses == (NVME, Address.parse("03:00.0"))
    assert third.addresses == ()


def test_the_next_start_counts(tmp_path: Path) -> None:
    text = (
        "hostpci0: 01:00\nhostpci1: 02:00.0\n[PENDING]\ndelete: hostpci0\nhostpci1: 01:00.1\n[snap]\nhostpci9: 02:00\n"
    )
    vm = guests(tmp_path, BASE | {f"{NODE}/102.conf": text})[102]
    assert [(entry.key, entry.addresses) for entry in vm.hostpci] == [("hostpci1", (CARD[1],))]


def test_ha_and_stopped(tmp_path: Path) -> None:
    files = BASE | {
        "/etc/pve/ha/resources.cfg": "vm: 103\n\tstate started\nct: 100\n",
        f"{NODE}/103.conf": "cores: 2\n",
    }
    found = guests(tmp_path, files)
    assert found[103].ha_managed is True and found[100].ha_managed is False
    assert found[103].running is False


def test_an_unreadable_guest_is_named_not_empty(tmp_path: Path) -> None:
    asking = ask(tmp_path, BASE | {f"{NODE}/104.conf": DIRECTORY})
    found = probe_guests(asking, probe_pve(asking, Packages(STATUS.encode()), deep=False), (), KNOWN)
    assert [vm.vmid for vm in found or ()] == [100]
    assert any("104.conf" in gap.reason for gap in asking.gaps if gap.about == "guests")


def test_whether_guests_run_is_unknown_without_run(tmp_path: Path) -> None:
    files = {path: content for path, content in BASE.items() if not path.startswith("/run")}
    assert guests(tmp_path, files)[100].running is None


def test_no_guests_and_unknown_guests(tmp_path: Path) -> None:
    asking = ask(tmp_path, {})
    assert probe_guests(asking, Pve(installed=False), (), ()) == ()
    assert probe_guests(asking, Pve(installed=True), (), ()) is None
    assert "guests" in abouts(asking)


# -- a tree that is not all open ---------------------------------------------------------------


class Closed(Scripted):
    """A tree in which one directory may not be listed, as another user than root finds it."""

    shut = ""

    def names(self, path: str) -> tuple[str, ...]:
        if path.startswith(self.shut):
            raise Unreadable(path, "Permission denied")
        return super().names(path)


def closed(root: Path, shut: str) -> Asking:
    host = Closed(plant(root, BASE))
    host.shut = shut
    return Asking(host)


def test_pid_files_that_cannot_be_listed_do_not_say_that_nothing_runs(tmp_path: Path) -> None:
    asking = closed(tmp_path, "/run/qemu-server")
    found = probe_guests(asking, Pve(True, node="pve", nodes=("pve",)), (), KNOWN)
    assert found is not None and [vm.running for vm in found] == [None]
    assert "guests.running" in abouts(asking)


def test_nobody_but_root_reads_the_cluster_and_the_gap_says_why(tmp_path: Path) -> None:
    asking = closed(tmp_path, "/etc/pve")
    found = probe_pve(asking, Packages(STATUS.encode()), deep=False)
    assert found.installed and found.nodes is None and probe_guests(asking, found, (), KNOWN) is None
    reasons = {gap.reason for gap in asking.gaps if gap.about in ("pve.nodes", "guests")}
    assert reasons and all("Permission denied" in reason for reason in reasons)
