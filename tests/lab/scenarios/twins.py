"""Two identical cards of which one goes, by its address, on a host whose IOMMU is switched off on the command line."""

from __future__ import annotations

from .. import answers, differential
from ..answers import Answers
from ..hardware import HOST_TWINS
from ..lab import Lab, changing, phase
from ..machine import Machine
from ..stand_in import VMID
from .main_job import ACCEPTED

CARDS = (("0000:04:00.0", "0000:04:00.1"), ("0000:05:00.0", "0000:05:00.1"))
_SCRIPT = "/etc/initramfs-tools/scripts/init-top/pve-passthrough"


def run(lab: Lab) -> None:
    """On Debian 12, started by UEFI and GRUB, with an Intel IOMMU that the command line switches off."""
    with lab.host("twins", HOST_TWINS, "bookworm", arguments="intel_iommu=off") as machine:
        step = lab.report.step
        before = answers.kernel(machine)
        given, twin_card = cards(machine)
        with step("the host starts as it was left: IOMMU off, no group, both cards with their host driver"):
            assert [before.functions[address].id for address in given] == _ids(before, twin_card)
            assert "intel_iommu=off" in before.cmdline, before.cmdline
            assert not before.groups()
            assert [before.functions[address].driver for address in given] == _drivers(before, twin_card)
        with step("GRUB's own configuration is made by update-grub"):
            machine.shell("update-grub", 300)
        with step("a simulated host is made from this host's capture"):
            twin = differential.Twin(machine, lab.workshop.folder / "twins-twin")
        files = answers.files(machine)
        with step("apply writes the argument and the claim by address"):
            _apply(machine, given, twin_card)
        with step("after the reboot the argument is in /proc/cmdline, and the kernel makes groups"):
            machine.reboot()
            assert phase(machine) == "KEPT", machine.shell("journalctl -b --no-pager -u pve-passthrough-resume.service")
            after = answers.kernel(machine)
            assert "intel_iommu=on" in after.cmdline, after.cmdline
            assert "intel_iommu=off" not in after.cmdline, after.cmdline
            assert frozenset(given) in after.groups(), after.groups()
        with step("the card is vfio-pci's from the initramfs on; its twin never left its driver"):
            assert _drivers(after, given) == ["vfio-pci", "vfio-pci"], after.drivers()
            assert _drivers(after, twin_card) == _drivers(before, twin_card), after.drivers()
            assert not _touched(machine, given), "the host's driver had the card before"
        with lab.report.aside("the simulated host predicts it: after the reboot"):
            twin.apply(given[0][:-2], *ACCEPTED[1::2])
            twin.reboot()
            twin.agrees()
        with step("undo puts every file of /etc and /boot back"):
            ended = changing(machine, "undo")
            assert ended.rc == 5, ended.out + ended.err
            changed = answers.differences(files, answers.files(machine))
            assert not changed, f"not as before: {changed}"
        with step("a second reboot gives back the first state of the kernel"):
            machine.reboot()
            again = answers.kernel(machine)
            assert again == before, (again.cmdline, again.drivers())
        with lab.report.aside("the simulated host predicts it: after undo and reboot"):
            twin.undo()
            twin.reboot()
            twin.agrees()


def cards(machine: Machine) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The card with the kernel's console, which has to be claimed at boot, and its twin."""
    behind = machine.shell("readlink /sys/class/graphics/fb0")
    return CARDS if CARDS[0][0] in behind else (CARDS[1], CARDS[0])


def _apply(machine: Machine, given: tuple[str, ...], twin_card: tuple[str, ...]) -> None:
    ended = changing(
        machine, "apply", given[0][:-2], "--vm", str(VMID), "--accept", "console", "--accept", "only-display"
    )
    assert ended.rc == 5, ended.out + ended.err
    script = machine.read(_SCRIPT)
    for address in given:
        assert f"claim {address} " in script, script
    for address in twin_card:
        assert address not in script, script


def _drivers(kernel: Answers, addresses: tuple[str, ...]) -> list[str]:
    return [kernel.functions[address].driver for address in addresses]


def _ids(kernel: Answers, addresses: tuple[str, ...]) -> list[str]:
    return [kernel.functions[address].id for address in addresses]


def _touched(machine: Machine, given: tuple[str, ...]) -> list[str]:
    """What the kernel's log says of another driver at the given card."""
    lines = machine.shell("dmesg").splitlines()
    return [
        line for line in lines if any(address in line for address in given) and ("bochs" in line or "snd_hda" in line)
    ]
