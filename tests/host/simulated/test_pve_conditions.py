"""Conditions that no recording holds: no quorum, faults, a group that is not viable, and the inside of guests."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated.pve import COMMANDS, config
from pve_passthrough.host.simulated.pve.node import node_of
from pve_passthrough.host.simulated.world import World
from tests.host.simulated import recorded_node

CONF = "/etc/pve/qemu-server/100.conf"
GPU = {"id": "0000:01:00.0", "ven": "10de", "dev": "2684", "class": "030000", "group": 1, "driver": "nouveau"}
SOUND = {"id": "0000:01:00.1", "ven": "10de", "dev": "22ba", "class": "040300", "group": 1, "driver": "snd_hda_intel"}
DISK = {"id": "0000:01:00.2", "ven": "144d", "dev": "a80a", "class": "010802", "group": 1, "driver": "nvme"}
Machine = Callable[..., World]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    def build(devices: list[dict[str, Any]], conf: str = "", **about: Any) -> World:
        world = World(str(tmp_path))
        hardware = {"pci": devices, "cpus": 4, "cmdline": "quiet"}
        recorded_node.put_software(world, hardware, {"version": {"version": "9.2.11", "repoid": "0"}}, 9)
        for device in devices:
            recorded_node.put_pci(world, {**device, "reset": True}, True)
        world.put("/sys/class/iommu/dmar0/name", "")
        world.save_machine({**world.machine(), **about})
        world.put(CONF, conf)
        return world

    return build


def run(world: World, *argv: str) -> Ran:
    return COMMANDS[argv[0]](world, argv, b"")


def drivers(world: World) -> dict[str, str | None]:
    return {address: world.driver_of(address) for address in world.addresses()}


def test_a_start_takes_the_whole_group_and_a_stop_gives_nothing_back(machine: Machine) -> None:
    world = machine([GPU, SOUND, DISK], "hostpci0: 01:00.0\n")
    assert run(world, "qm", "start", "100") == Ran(0)
    taken = dict.fromkeys(("0000:01:00.0", "0000:01:00.1", "0000:01:00.2"), "vfio-pci")
    assert drivers(world) == taken
    assert run(world, "qm", "status", "100").stdout == "status: running\n"
    assert run(world, "qm", "stop", "100").rc == 0
    assert drivers(world) == taken
    assert world.text("/run/qemu-server/pci-id-reservations") == ""


def test_keep_leaves_the_group_and_the_kernel_refuses(machine: Machine) -> None:
    world = machine([GPU, SOUND], "hostpci0: 01:00.0,driver=keep\n")
    recorded_node.set_driver(world, "0000:01:00.0", "vfio-pci")
    ran = run(world, "qm", "start", "100")
    assert ran.rc == 255
    assert "group 1 is not viable" in ran.stdout
    assert drivers(world)["0000:01:00.1"] == "snd_hda_intel"


def test_qemu_that_ends_frees_the_reservation(machine: Machine) -> None:
    world = machine([GPU], "hostpci0: 01:00.0\n", faults=["qemu:100"])
    assert run(world, "qm", "start", "100").stderr == "start failed: QEMU exited with code 1\n"
    assert world.text("/run/qemu-server/pci-id-reservations") == ""
    assert run(world, "qm", "status", "100").stdout == "status: stopped\n"


def test_without_the_module_nothing_is_bound(machine: Machine) -> None:
    world = machine([GPU], "hostpci0: 01:00.0\n", faults=["modprobe:vfio-pci"])
    assert run(world, "qm", "start", "100").stderr == "Cannot find vfio-pci module!\n"
    assert drivers(world) == {"0000:01:00.0": "nouveau"}


@pytest.mark.parametrize("condition", [{"pve_readonly": True}, {"quorate": False}])
def test_a_read_only_cluster_refuses_changes_and_keeps_files(machine: Machine, condition: dict[str, Any]) -> None:
    world = machine([GPU], "memory: 512\n", **condition)
    ran = run(world, "qm", "set", "100", "--hostpci0", "01:00.0")
    assert ran.rc != 0
    assert "Permission denied" in ran.stderr
    assert world.text(CONF) == "memory: 512\n"
    assert run(world, "qm", "config", "100").stdout == "memory: 512\n"


def test_without_quorum_no_guest_starts(machine: Machine) -> None:
    world = machine([GPU], "memory: 512\n", quorate=False)
    assert run(world, "qm", "start", "100").stderr == "cluster not ready - no quorum?\n"


def test_an_interrupted_change_is_seen_by_its_digest(machine: Machine) -> None:
    world = machine([GPU], "memory: 512\n")
    shown = json.loads(run(world, "pvesh", "get", "/nodes/pve/qemu/100/config", "--output-format", "json").stdout)
    world.put(CONF, "memory: 1024\n")
    ran = run(world, "qm", "set", "100", "--hostpci0", "01:00.0", "--digest", shown["digest"])
    assert (ran.rc, ran.stderr) == (255, "checksum mismatch (file change by other user?)\n")
    assert world.text(CONF) == "memory: 1024\n"


def test_the_link_qemu_server_and_the_node_folder_are_one(machine: Machine) -> None:
    world = machine([GPU], "memory: 512\n")
    run(world, "qm", "set", "100", "--name", "one")
    assert world.text(CONF) == world.text("/etc/pve/nodes/pve/qemu-server/100.conf") == "memory: 512\nname: one\n"
    assert world.link("/etc/pve/qemu-server") == "nodes/pve/qemu-server"


# -- inside ---------------------------------------------------------------------------------------

LINUX = {
    "100": {"agent": True, "drivers": {"10de:2684": "nvidia"}, "commands": {"nvidia-smi -L": {"out-data": "GPU 0"}}}
}
WINDOWS = {"100": {"agent": True, "os": "windows", "drivers": {"10de:2684": "nvlddmkm"}, "problems": {"10de:2684": 43}}}
INSIDE = "agent: 1\nhostpci0: 01:00,pcie=1\nmachine: q35\n"


def inside(world: World, *argv: str) -> dict[str, Any]:
    ran = run(world, "qm", "guest", "exec", "100", "--timeout", "30", "--", *argv)
    assert ran.rc == 0, ran.stderr
    found: dict[str, Any] = json.loads(ran.stdout)
    return found


def test_a_linux_guest_lists_what_it_was_given(machine: Machine) -> None:
    world = machine([GPU, SOUND], INSIDE, guests=LINUX)
    run(world, "qm", "start", "100")
    assert run(world, "qm", "guest", "cmd", "100", "ping") == Ran(0)
    assert json.loads(run(world, "qm", "guest", "cmd", "100", "get-osinfo").stdout)["id"] == "debian"
    listed = inside(world, "lspci", "-Dnnk")["out-data"].splitlines()
    assert listed[0] == "0000:01:00.0 VGA compatible controller [0300]: Device [10de:2684]"
    assert "\tKernel driver in use: nvidia" in listed
    assert "\tKernel driver in use:" not in listed[listed.index("\tKernel driver in use: nvidia") + 1 :]
    events = inside(world, "find", "-L", "/sys/bus/pci/devices", "-name", "uevent", "-exec", "cat", "{}", ";")
    assert "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2684\n" in events["out-data"]
    assert inside(world, "nvidia-smi", "-L")["out-data"] == "GPU 0"
    assert run(world, "qm", "guest", "exec", "100", "--", "glxinfo").rc == 255


def test_a_windows_guest_shows_code_43(machine: Machine) -> None:
    world = machine([GPU], INSIDE, guests=WINDOWS)
    run(world, "qm", "start", "100")
    row = json.loads(inside(world, "powershell.exe", "-Command", "Get-PnpDevice | ConvertTo-Json")["out-data"])
    assert row["InstanceId"].startswith("PCI\\VEN_10DE&DEV_2684&")
    assert (row["Status"], row["Problem"], row["Service"]) == ("Error", 43, "nvlddmkm")


def test_a_guest_without_an_agent_and_one_that_does_not_run_say_so(machine: Machine) -> None:
    world = machine([GPU], INSIDE)
    assert run(world, "qm", "guest", "cmd", "100", "ping") == Ran(2, "", "VM 100 is not running\n")
    run(world, "qm", "start", "100")
    assert run(world, "qm", "guest", "cmd", "100", "ping") == Ran(255, "", "QEMU guest agent is not running\n")


def test_a_program_started_in_the_background_is_asked_for_later(machine: Machine) -> None:
    world = machine([GPU], INSIDE, guests=LINUX)
    run(world, "qm", "start", "100")
    pid = json.loads(run(world, "qm", "guest", "exec", "100", "--synchronous", "0", "--", "uname", "-r").stdout)["pid"]
    assert json.loads(run(world, "qm", "guest", "exec-status", "100", str(pid)).stdout)["exitcode"] == 0


def test_a_guest_obeys_the_power_button_unless_told_otherwise(machine: Machine) -> None:
    world = machine([GPU], "hostpci0: 01:00.0\n")
    run(world, "qm", "start", "100")
    assert run(world, "qm", "shutdown", "100").rc == 0
    assert run(world, "qm", "status", "100").stdout == "status: stopped\n"


# -- properties -----------------------------------------------------------------------------------

TEXT = st.text(st.characters(exclude_categories=("Cs", "Cc")), min_size=1, max_size=30)


@given(st.lists(TEXT, min_size=1, max_size=3))
def test_a_description_survives_the_file(lines: list[str]) -> None:
    """What is written as `#` lines is read back as it was (line ends other than \\n are encoded)."""
    text = "\n".join(line.replace("\u2028", "").replace("\u2029", "").replace("\x85", "") or "x" for line in lines)
    encoded = "".join(f"#{config.encode(line)}\n" for line in text.split("\n"))
    assert "\n".join(config.decode(line[1:]) for line in encoded.splitlines()) == text


@given(
    st.lists(
        st.sampled_from(["cores: 2", "cpu: host", "hostpci0: 01:00", "foo: bar", "GPU: yes", "# note", "cores: x"])
    )
)
def test_reading_never_fails_and_rewriting_is_stable(lines: list[str]) -> None:
    node = node_of(World("/nonexistent"))
    first = config.read(node, 100, "".join(f"{line}\n" for line in lines))
    again = config.read(node, 100, config.render(first))
    assert (again.active, again.pending) == (first.active, first.pending)
    assert config.render(again) == config.render(first)


@pytest.mark.parametrize("argv", [(), ("nosuch",), ("guest",), ("set",), ("set", "100", "--hostpci0"), ("start", "-1")])
def test_a_wrong_command_line_is_refused_in_words(machine: Machine, argv: tuple[str, ...]) -> None:
    ran = run(machine([GPU], "memory: 512\n"), "qm", *argv)
    assert ran.rc == 255
    assert ran.stderr


def test_what_is_not_simulated_is_said(machine: Machine) -> None:
    ran = run(machine([GPU]), "pvesm", "scan", "lvm")
    assert ran.rc != 0
    assert "the simulated Proxmox does not know" in ran.stderr
