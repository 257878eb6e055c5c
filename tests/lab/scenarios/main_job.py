"""The main job on a real kernel: a card with its audio goes to a guest by its IDs, is seen inside, and comes back."""

from __future__ import annotations

from .. import answers, differential
from ..answers import Answers
from ..hardware import HOST_INTEL
from ..lab import Lab, changing, phase
from ..machine import Machine
from ..stand_in import VMID
from . import looking, nested_guest

CARD = ("0000:01:00.0", "0000:01:00.1")
ROOT_DISK = "0000:02:00.0"
MANAGEMENT = "0000:04:00.0"
ACCEPTED = ("--accept", "console", "--accept", "only-display")
_PLACES = ("/etc/modprobe.d/pve-passthrough.conf", "/etc/modules-load.d/pve-passthrough.conf")


def run(lab: Lab) -> None:
    """On Debian 12, started by UEFI and GRUB, with an Intel IOMMU."""
    with lab.host("main-job", HOST_INTEL, "bookworm") as machine:
        step = lab.report.step
        with step("the package's boot unit is enabled and was not started"):
            looking.boot_unit_waits(machine)
        with step("devices and groups are those of lspci and sysfs"):
            before = looking.inventory_agrees(machine)
        with step("the controller of the root disk is refused"):
            looking.refused(machine, ROOT_DISK, "/ on /dev/nvme0n1p2")
        with step("the network card with the management address is refused"):
            looking.refused(machine, MANAGEMENT, "vmbr0")
        with step("a simulated host is made from this host's capture"):
            twin = differential.Twin(machine, lab.workshop.folder / "main-job-twin")
        with step("every file of /etc and /boot, and of the initramfs, is noted"):
            files, initramfs = answers.files(machine), answers.initramfs(machine)
        with step("apply writes the files and rebuilds the initramfs; nothing moves yet"):
            _apply(machine, before)
        with lab.report.aside("the simulated host predicts it: after apply"):
            twin.apply(CARD[0][:-2], *ACCEPTED[1::2])
            twin.agrees()
        with step("a reboot through GRUB binds the card at boot by its IDs"):
            machine.reboot()
            _bound(machine, before)
        with lab.report.aside("the simulated host predicts it: after the reboot"):
            twin.reboot()
            twin.agrees()
        with step("verify starts the guest, whose own kernel lists card and audio"):
            nested_guest.verified(machine, answers.kernel(machine), CARD)
        with lab.report.aside("the simulated host predicts it: guest started"):
            twin.command("qm", "start", str(VMID))
            twin.agrees()
        with step("the guest stops; the card stays with vfio-pci"):
            nested_guest.stopped(machine)
            assert _drivers(machine, CARD) == {"vfio-pci"}
        with step("undo puts every file of /etc and /boot back"):
            _undo(machine, files)
        with step("a second reboot gives back the first state of the kernel"):
            machine.reboot()
            after = answers.kernel(machine)
            assert after == before, _moved(before, after)
            assert answers.initramfs(machine) == initramfs, "the initramfs holds other files than before"
        with lab.report.aside("the simulated host predicts it: after undo and reboot"):
            twin.command("qm", "stop", str(VMID))
            twin.undo()
            twin.reboot()
            twin.agrees()


def _apply(machine: Machine, before: Answers) -> None:
    ended = changing(machine, "apply", CARD[0][:-2], "--vm", str(VMID), *ACCEPTED)
    assert ended.rc == 5, ended.out + ended.err
    assert ended.data["phase"] == "REBOOT", ended.out
    now = answers.kernel(machine)
    assert now == before, f"before the reboot: {_moved(before, now)}"
    text = machine.read(_PLACES[0])
    assert "ids=1013:00b8,8086:293e" in text, text
    held = answers.initramfs(machine)
    for wanted in ("etc/modprobe.d/pve-passthrough.conf", "vfio-pci.ko"):
        assert any(wanted in name for name in held), f"the initramfs does not hold {wanted}"


def _bound(machine: Machine, before: Answers) -> None:
    assert phase(machine) == "KEPT", machine.shell("journalctl -b --no-pager -u pve-passthrough-resume.service")
    after = answers.kernel(machine)
    assert {after.functions[address].driver for address in CARD} == {"vfio-pci"}, after.drivers()
    others = {address: driver for address, driver in before.drivers().items() if address not in CARD}
    now = {address: driver for address, driver in after.drivers().items() if address not in CARD}
    assert now == others, _moved(before, after)
    assert after.groups() == before.groups()


def _undo(machine: Machine, files: dict[str, str]) -> None:
    ended = changing(machine, "undo")
    assert ended.rc == 5, ended.out + ended.err
    changed = answers.differences(files, answers.files(machine))
    assert not changed, f"not as before: {changed}"


def _drivers(machine: Machine, addresses: tuple[str, ...]) -> set[str]:
    found = answers.kernel(machine).functions
    return {found[address].driver for address in addresses}


def _moved(before: Answers, after: Answers) -> str:
    rows = [
        f"{address}: {before.functions.get(address)} → {after.functions.get(address)}"
        for address in sorted(before.functions.keys() | after.functions.keys())
        if before.functions.get(address) != after.functions.get(address)
    ]
    return "; ".join([*rows, *([] if before.cmdline == after.cmdline else [f"{before.cmdline} → {after.cmdline}"])])
