"""Who shares an IOMMU group with whom, on every kind of machine; binding at run time; what QEMU itself refuses."""

from __future__ import annotations

from .. import answers
from ..answers import Answers
from ..hardware import HOST_AMD, HOST_VIRTIO, NO_REMAPPING, ZOO, ZOO_GROUPS
from ..lab import Lab
from ..machine import Machine
from ..stand_in import VMID
from . import looking, nested_guest

_CELL = r"""
import sys
from pve_passthrough.change.cells import read_cell, write_cell
from pve_passthrough.host.local import Local
from pve_passthrough.model.plan import Cell
host, cell = Local("/"), Cell("driver", sys.argv[1])
write_cell(host, cell, read_cell(host, cell), sys.argv[2])
print(read_cell(host, cell))
"""


def zoo(lab: Lab) -> None:
    """Debian 12 on an Intel IOMMU, with one of each kind of slot."""
    with lab.host("zoo", ZOO, "bookworm") as machine:
        step = lab.report.step
        with step("devices and groups are those of lspci and sysfs"):
            kernel = looking.inventory_agrees(machine)
        for what, places in ZOO_GROUPS.items():
            with lab.report.aside(f"group: {what}"):
                _grouped(kernel, places)
        card = answers.at(kernel, "02.0/00.0"), answers.at(kernel, "02.0/00.1")
        with step("check names the strangers in the group of a port without ACS"):
            shared = answers.at(kernel, "04.0/00.0")
            looking.finding_names(machine, shared, "groups.", answers.at(kernel, "04.2/00.0"))
        with step("a function is bound to vfio-pci by its address at run time"):
            _bind(machine, card[0], "vfio-pci")
            now = answers.kernel(machine).drivers()
            assert now == kernel.drivers() | {card[0]: "vfio-pci"}, now
        with step("QEMU refuses a group of which the host still holds a member"):
            said = _qemu(machine, card[0])
            assert "is not viable" in said, said
        with step("with the whole group bound, QEMU takes it"):
            _bind(machine, card[1], "vfio-pci")
            assert _qemu(machine, card[0]) == "", "QEMU complained"
        with step("both functions go back to the host's drivers"):
            for address in card:
                _bind(machine, address, kernel.functions[address].driver)
            after = answers.kernel(machine)
            assert after == kernel, after.drivers()


def amd(lab: Lab) -> None:
    """Debian 13 on an AMD IOMMU."""
    with lab.host("amd", HOST_AMD, "trixie") as machine:
        with lab.report.step("devices and groups are those of lspci and sysfs"):
            kernel = looking.inventory_agrees(machine)
        with lab.report.step("the IOMMU is an AMD one, and the card has a group of its own"):
            assert "ivhd0" in machine.shell("ls /sys/class/iommu").split()
            _grouped(kernel, ("02.0/00.0", "02.0/00.1"))


def virtio(lab: Lab) -> None:
    """Debian 13 on a virtio-iommu."""
    with lab.host("virtio-iommu", HOST_VIRTIO, "trixie") as machine:
        with lab.report.step("devices and groups are those of lspci and sysfs"):
            kernel = looking.inventory_agrees(machine)
        with lab.report.step("functions that this IOMMU leaves without a group are said to have none"):
            assert kernel.groups(), "no group at all"


def no_remapping(lab: Lab) -> None:
    """Debian 12 on an Intel IOMMU without interrupt remapping: the kernel refuses assignment."""
    with lab.host("no-remapping", NO_REMAPPING, "bookworm") as machine:
        with lab.report.step("devices and groups are those of lspci and sysfs"):
            kernel = looking.inventory_agrees(machine)
        with lab.report.step("check says that interrupts are not remapped"):
            looking.check_blocks(machine, "platform.interrupt-remapping")
        with lab.report.step("the kernel refuses, as the finding says"):
            card = answers.at(kernel, "02.0/00.0")
            nested_guest.qm(machine, "set", "--hostpci0", card[:-2])
            said = machine.run("/usr/sbin/qm", "start", str(VMID), seconds=300)
            assert said.rc != 0, "the guest started"
            assert "Operation not permitted" in said.text, said.text
            assert "No interrupt remapping" in machine.shell("dmesg"), "the kernel gives no reason"


def _grouped(kernel: Answers, places: tuple[str, ...]) -> None:
    """These functions are a group, with nobody else in it."""
    wanted = frozenset(answers.at(kernel, place) for place in places)
    group = kernel.functions[min(wanted)].group
    found = {address: row.place for address, row in kernel.functions.items() if row.group == group}
    assert wanted == found.keys(), f"group {group} holds {sorted(found.values())}"


def _bind(machine: Machine, address: str, driver: str) -> None:
    """The program's own way to give a function to a driver now."""
    said = machine.run("/usr/bin/python3", "-c", _CELL, address, driver)
    assert said.rc == 0, said.text
    assert said.out.strip() == driver, said.text


def _qemu(machine: Machine, address: str) -> str:
    """What a QEMU says that takes the function, does not run, and ends; empty when it is content."""
    argv = ("qemu-system-x86_64", "-M", "q35", "-accel", "tcg", "-m", "64", "-S", "-nodefaults", "-display", "none")
    words = (*argv, "-monitor", "stdio", "-device", f"vfio-pci,host={address}")
    said = machine.run("/usr/bin/timeout", "120", *words, stdin=b"quit\n", seconds=150)
    return "\n".join(line for line in said.err.splitlines() if "vfio" in line)
