"""What a new guest needs to know about the host: memory nodes, bridges, containers, the kind of processor."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Unreadable
from pve_passthrough.host.local import Local
from pve_passthrough.model.facts import NumaNode, Pve
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.network import probe_bridges
from pve_passthrough.probe.platform import NUMA, cpus_in, probe_cpu, probe_numa
from pve_passthrough.probe.pve import probe_containers
from tests.probe.trees import DIRECTORY, Link, plant

NET = "/sys/class/net"


class Silent(Local):
    """Nothing below `quiet` can be read."""

    def __init__(self, root: Path, quiet: str) -> None:
        super().__init__(str(root))
        self.quiet = quiet

    def names(self, path: str) -> tuple[str, ...]:
        if path.startswith(self.quiet):
            raise Unreadable(path, "I/O error")
        return super().names(path)


def ask(root: Path) -> Asking:
    return Asking(Local(str(root)))


def test_memory_nodes_with_their_processors_and_memory(tmp_path: Path) -> None:
    files = {
        f"{NUMA}/node0/cpulist": "0-3,8-11\n",
        f"{NUMA}/node0/meminfo": "Node 0 MemTotal:       32768 kB\nNode 0 MemFree:        1 kB\n",
        f"{NUMA}/node10/cpulist": "\n",
        f"{NUMA}/node2/cpulist": "4-7\n",
        f"{NUMA}/possible": "0-10\n",
        f"{NUMA}/nodes": "trap\n",
    }
    found = probe_numa(ask(plant(tmp_path, files)))
    assert found == (
        NumaNode(0, (0, 1, 2, 3, 8, 9, 10, 11), 32 << 20),
        NumaNode(2, (4, 5, 6, 7), None),
        NumaNode(10, (), None),
    )


def test_a_kernel_without_memory_nodes_is_no_gap_and_a_silent_one_is(tmp_path: Path) -> None:
    asking = ask(plant(tmp_path, {"/sys": DIRECTORY}))
    assert probe_numa(asking) == () and asking.gaps == ()
    silent = Asking(Silent(tmp_path, NUMA))
    assert probe_numa(silent) is None and silent.gaps[0].about == "numa"


@pytest.mark.parametrize(
    ("text", "cpus"),
    [("", ()), ("5", (5,)), ("0-2, 7", (0, 1, 2, 7)), ("3-1", ()), ("x,1", (1,)), ("-4", ()), ("99999", ())],
    ids=repr,
)
def test_lists_of_processors(text: str, cpus: tuple[int, ...]) -> None:
    assert cpus_in(text) == cpus


def test_no_list_names_processors_without_end() -> None:
    assert len(cpus_in("0-9999,0-9999")) <= 8193


def bridge(name: str) -> dict[str, str]:
    home = f"/sys/devices/virtual/net/{name}"
    return {f"{NET}/{name}": Link(f"../../devices/virtual/net/{name}"), f"{home}/bridge/bridge_id": "8000.0\n"}


def test_linux_bridges_are_told_from_cards_and_guests_interfaces(tmp_path: Path) -> None:
    files = {
        **bridge("vmbr0"), **bridge("vnet7"), **bridge("fwbr100i0"),
        f"{NET}/eno1": Link("../../devices/pci0000:00/0000:00:1f.6/net/eno1"),
        "/sys/devices/pci0000:00/0000:00:1f.6/net/eno1/bridge/bridge_id": "no card has this\n",
        f"{NET}/tap100i0": Link("../../devices/virtual/net/tap100i0"),
        "/sys/devices/virtual/net/tap100i0/mtu": "1500\n",
        f"{NET}/bond0": Link("../../devices/virtual/net/bond0"),
        "/sys/devices/virtual/net/bond0/mtu": "1500\n",
    }  # fmt: skip
    assert probe_bridges(ask(plant(tmp_path, files))) == ("vmbr0", "vnet7")


def test_open_vswitch_bridges_are_told_by_their_configuration(tmp_path: Path) -> None:
    text = (
        "auto vmbr1\niface vmbr1 inet manual\n\tovs_type OVSBridge\n\tovs_ports eno1\n\n"
        "auto vmbr2\niface vmbr2 inet manual\n\tovs_ports eno2\n\tovs_type OVSBridge\n\n"
        "iface mgmt inet static\n\taddress 10.0.0.1/24\n\tovs_type OVSIntPort\n"
    )
    files: dict[str, str] = {"/etc/network/interfaces": text}
    for name in ("ovs-system", "vmbr1", "mgmt"):
        files |= {
            f"{NET}/{name}": Link(f"../../devices/virtual/net/{name}"),
            f"/sys/devices/virtual/net/{name}/mtu": "1",
        }
    assert probe_bridges(ask(plant(tmp_path, files))) == ("vmbr1",)  # vmbr2 is configured, but not there


def test_without_a_list_of_networks_bridges_are_unknown(tmp_path: Path) -> None:
    asking = ask(plant(tmp_path, {"/sys": DIRECTORY}))
    assert probe_bridges(asking) is None and asking.gaps[0].about == "bridges"


def test_containers_of_all_nodes(tmp_path: Path) -> None:
    files = {
        "/etc/pve/nodes/a/lxc/101.conf": "", "/etc/pve/nodes/b/lxc/205.conf": "", "/etc/pve/nodes/b/lxc/x.conf": "",
        "/etc/pve/nodes/b/lxc/notes.txt": "", "/etc/pve/nodes/c/qemu-server/300.conf": "",
    }  # fmt: skip
    host = plant(tmp_path, files)
    known = Pve(installed=True, node="a", nodes=("a", "b", "c"))
    assert probe_containers(ask(host), known) == {101: "a", 205: "b"}
    assert probe_containers(ask(host), Pve(installed=False)) == {}
    assert probe_containers(ask(host), Pve(installed=True)) is None
    silent = Asking(Silent(host, "/etc/pve/nodes/b/lxc"))
    assert probe_containers(silent, known) is None and silent.gaps[0].about == "containers"


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu svm\n", True),
        ("processor\t: 0\nFeatures\t: fp asimd\nCPU implementer\t: 0x41\n", False),
        ("processor\t: 0\nhart\t: 1\nisa\t: rv64imafdc\n", False),
        ("processor\t: 0\n", None),
    ],
    ids=["amd", "arm", "riscv", "nothing"],
)
def test_the_kind_of_processor(tmp_path: Path, text: str, kind: bool | None) -> None:
    assert probe_cpu(ask(plant(tmp_path, {"/proc/cpuinfo": text}))).x86 is kind
