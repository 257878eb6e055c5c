"""Devices that are no cards: virtual functions, USB, NVMe and shares of a device, on a real kernel to a real guest.

1. One machine, started twice: what is made before the second start has to be there after it.
2. What the program says is held against sysfs and `ip`; what the guest has, against the guest's own kernel.
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from typing import Any

from .. import answers, differential, mtty
from ..answers import Answers
from ..hardware import HOST_DEVICES
from ..lab import Ended, Lab, changing, program
from ..machine import Machine
from ..programs import LabError
from ..stand_in import VMID
from . import looking, nested_guest
from .nested_guest import qm

PF, NVME, PARENT = "08.0/00.0", "09.0/00.0", "0b.0"
KEYBOARD, SPARE = "04.0/00.0", "0a.0/00.0"
"""Places (see `hardware`): the network card, the second NVMe, the mediated parent, the USB controllers."""
STICK, TWIN, LINE = "2-3", "2-2", "3-1.2"
"""Ports: two sticks that share all IDs, and a serial adapter behind a hub."""
STICK_ID, LINE_ID, VIRTUAL_ID = "46f4:0001", "0403:6001", "8086:10ca"
_SHARE = "mtty-1"
_MODULE = "/root/mtty.ko"
_TYPES = "/sys/bus/pci/devices/{}/mdev_supported_types"
_PATIENCE = 60.0


def run(lab: Lab) -> None:
    """On Debian 12, started by UEFI and GRUB, with an Intel IOMMU."""
    step, aside = lab.report.step, lab.report.aside
    with lab.host("devices", HOST_DEVICES, "bookworm") as machine:
        with step("devices, groups and USB tree are those of lspci and sysfs"):
            before = _with_one_virtual_function(machine)
            _usb_agrees(machine, before)
        with step("the kernel's sample of a mediated device is built, and its types are listed"):
            machine.write(_MODULE, mtty.module(lab.workshop.plain_tree("bookworm"), lab.report.say))
            _shares_listed(machine, answers.at(before, PARENT))
        pf = answers.at(before, PF)
        files = answers.files(machine)
        with step("a simulated host is made from this host's capture"):
            twin = differential.Twin(machine, lab.workshop.folder / "devices-twin")
        with step("more virtual functions than the card has are refused"):
            _refused(program(machine, "sriov", "create", pf, "8", "--yes"), "7")
            assert answers.kernel(machine).functions[pf] == before.functions[pf]
        with step("two virtual functions with fixed addresses on VLAN 5, by way of none: so says the kernel"):
            _ran(changing(machine, "sriov", "create", pf, "2", "--vlan", "5"))
            enforced = _enforced(machine, pf, 2)
        with aside("the simulated host predicts it: virtual functions and their groups"):
            twin.virtual_functions(pf, 2, 5)
            twin.agrees()
        with step("they come back at the next start, with the same addresses"):
            machine.reboot()
            assert _enforced(machine, pf, 2) == enforced
        virtual = answers.kernel(machine).functions[pf].vfs[2]
        with step("a guest gets a virtual function, an NVMe drive, a share and one of two identical sticks"):
            _given(machine, virtual, answers.at(before, NVME), answers.at(before, PARENT))
        with step("the guest's own kernel lists all four"):
            qm(machine, "start")
            nested_guest.await_agent(machine)
            _arrived(machine, before)
        with step("virtual functions of which a running guest has one are not taken away"):
            _refused(program(machine, "sriov", "remove", pf, "--yes"), str(VMID))
            assert answers.kernel(machine).functions[pf].vfs[0] == "2"
        with step("a serial adapter is plugged into the running guest, by its port behind a hub"):
            _ran(changing(machine, "usb", "add", LINE, "--vm", str(VMID)))
            _await(lambda: LINE_ID in nested_guest.usb_ids(machine), "the adapter in the guest")
        with step("pulled out, it leaves the guest; plugged in again, it comes back"):
            _replugged(machine)
        with step("taken from the running guest, it is the host's again"):
            _ran(changing(machine, "usb", "remove", LINE, "--vm", str(VMID)))
            _await(lambda: LINE_ID not in nested_guest.usb_ids(machine), "the guest without the adapter")
            _await(lambda: "ttyUSB" in machine.shell("ls /dev"), "the host's terminal")
        with step("the guest stops: the kernel has its share back"):
            nested_guest.stopped(machine)
            assert _left(machine, answers.at(before, PARENT)) == 24
            assert not machine.shell("ls /sys/bus/mdev/devices").split()
        with step("a controller with the host's keyboard is refused by name; a spare one is not"):
            said = program(machine, "plan", answers.at(before, KEYBOARD), "--vm", str(VMID))
            assert said.rc == 7, said.out + said.err
            assert said.says("keyboard"), said.err
            said = program(machine, "plan", answers.at(before, SPARE), "--vm", str(VMID))
            assert said.rc == 4, said.out + said.err
        with step("undo of what was given and made: files, virtual functions and addresses as before"):
            _undone(machine)
            changed = answers.differences(files, answers.files(machine))
            assert not changed, f"not as before: {changed}"
            after = answers.kernel(machine)
            assert after.functions[pf] == before.functions[pf], after.functions[pf]
            assert after.functions.keys() == before.functions.keys()


def _with_one_virtual_function(machine: Machine) -> Answers:
    """Somebody has made one by hand; the kernel takes no other number before it is gone (EBUSY)."""
    pf = answers.at(answers.kernel(machine), PF)
    machine.shell(f"echo 1 > /sys/bus/pci/devices/{pf}/sriov_numvfs && udevadm settle")
    said = machine.run("/bin/sh", "-c", f"echo 2 > /sys/bus/pci/devices/{pf}/sriov_numvfs")
    assert said.rc != 0, "the kernel took another number at once"
    return looking.inventory_agrees(machine)


def _usb_agrees(machine: Machine, kernel: Answers) -> None:
    """`usb list` has the kernel's names, IDs, speeds and controllers."""
    rows = program(machine, "usb", "list", "--output-format", "json").data["devices"]
    said = {row["port"]: (row["id"], row["controller"]) for row in rows}
    assert said == {name: (one.id, one.at) for name, one in kernel.usb.items()}, said


def _shares_listed(machine: Machine, parent: str) -> None:
    """`vgpu list` has the kernel's types and counts."""
    _load(machine)
    words = f"cd {_TYPES.format(parent)} && grep . */available_instances"
    counts = dict(line.split("/available_instances:") for line in machine.shell(words).split())
    found = program(machine, "vgpu", "list", "--output-format", "json").data["shared"]
    assert [row["device"] for row in found] == [parent], found
    assert {row["type"]: str(row["available"]) for row in found[0]["types"]} == counts, found


def _load(machine: Machine) -> None:
    machine.shell(f"modprobe -a vfio mdev && insmod {_MODULE} && udevadm settle")


def _left(machine: Machine, parent: str) -> int:
    return int(machine.read(f"{_TYPES.format(parent)}/{_SHARE}/available_instances"))


def _enforced(machine: Machine, pf: str, count: int) -> list[dict[str, Any]]:
    """What the card enforces for each virtual function, as `ip` tells it; each of them has a group of its own."""
    kernel = answers.kernel(machine)
    shown, _, *virtual = kernel.functions[pf].vfs
    assert (shown, len(virtual)) == (str(count), count), kernel.functions[pf]
    for address in virtual:
        assert kernel.functions[address].id == VIRTUAL_ID, kernel.functions[address]
        assert kernel.functions[address].vfs[1] == pf
        assert frozenset((address,)) in kernel.groups(), kernel.groups()
    interface = machine.shell(f"ls /sys/bus/pci/devices/{pf}/net").strip()
    rows: list[dict[str, Any]] = json.loads(machine.shell(f"ip -json link show {interface}"))[0]["vfinfo_list"]
    names = ("vf", "address", "vlan_list", "spoofchk", "trust")
    found: list[dict[str, Any]] = [{name: row.get(name) for name in names} for row in rows]
    assert all(row["vlan_list"][0]["vlan"] == 5 for row in found), found
    assert len({row["address"] for row in found} - {"00:00:00:00:00:00"}) == count, found
    return found


def _given(machine: Machine, virtual: str, nvme: str, parent: str) -> None:
    _load(machine)
    _ran(changing(machine, "apply", virtual, nvme, f"usb:{STICK}", "--vm", str(VMID)))
    _ran(changing(machine, "vgpu", "give", parent, _SHARE, "--vm", str(VMID)))
    said = program(machine, "usb", "add", STICK_ID, "--vm", str(VMID), "--by", "id", "--plan")
    assert said.rc not in (0, 4), f"either of two identical sticks: {said.out}"


def _arrived(machine: Machine, before: Answers) -> None:
    seen = nested_guest.uevents(machine)
    wanted = (VIRTUAL_ID, before.functions[answers.at(before, NVME)].id, mtty.MEDIATED)
    missing = [one for one in wanted if f"PCI_ID={one.upper()}" not in seen]
    assert not missing, f"{missing} not among {seen}"
    serials = nested_guest.in_guest(machine, "sh", "-c", "cat /sys/bus/usb/devices/*/serial").split()
    assert machine.read(f"/sys/bus/usb/devices/{STICK}/serial").strip() in serials, serials
    assert machine.read(f"/sys/bus/usb/devices/{TWIN}/serial").strip() not in serials, serials
    assert _left(machine, answers.at(before, PARENT)) == 23


def _replugged(machine: Machine) -> None:
    machine.command("device_del", id="line")
    _await(lambda: LINE_ID not in nested_guest.usb_ids(machine), "the guest without the adapter")
    _await(lambda: LINE not in answers.kernel(machine).usb, "the host without the adapter")
    adapter = {"driver": "usb-serial", "id": "line", "bus": "more.0", "port": "1.2", "chardev": "serial1"}
    machine.command("device_add", **adapter, **{"always-plugged": True})
    _await(lambda: LINE_ID in nested_guest.usb_ids(machine), "the adapter back in the guest")


def _undone(machine: Machine) -> None:
    """Run after run, newest first, but the adapter's two, which undo each other; exit 6 says that it is undone."""
    runs = program(machine, "status", "--output-format", "json").data["runs"]
    for name in [row["id"] for row in runs if row["phase"] == "KEPT" and LINE not in row["goal"]][::-1]:
        ended = changing(machine, "undo", name)
        assert ended.rc == 6, f"exit {ended.rc}: {ended.out}{ended.err}"


def _ran(ended: Ended) -> None:
    assert ended.rc == 0, f"exit {ended.rc}: {ended.out}{ended.err}"


def _refused(ended: Ended, *words: str) -> None:
    assert ended.rc not in (0, 1, 4, 5), f"exit {ended.rc}: {ended.out}{ended.err}"
    assert ended.says("Nothing was", *words), ended.out + ended.err


def _await(true: Callable[[], bool], what: str) -> None:
    until = time.monotonic() + _PATIENCE
    while not true():
        if time.monotonic() > until:
            raise LabError(f"not within {_PATIENCE:.0f} s: {what}")
        time.sleep(0.5)
