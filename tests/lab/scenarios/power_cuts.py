"""The plug is pulled while the program changes the host: the next boot takes it back, or to its end."""

from __future__ import annotations

import time
from pathlib import Path

from .. import answers
from ..answers import Answers
from ..hardware import HOST_TWINS
from ..lab import CHANGE_SECONDS, Lab, phase
from ..machine import Machine
from ..programs import LabError
from ..stand_in import VMID
from .main_job import ACCEPTED
from .twins import cards

_OURS = "/etc/modules-load.d/pve-passthrough.conf"
_UNIT = "pve-passthrough-resume.service"


def run(lab: Lab) -> None:
    """On Debian 13, started by UEFI and GRUB: one apply, its disk kept at three moments, one boot from each."""
    with lab.host("power-cuts", HOST_TWINS, "trixie") as machine:
        step = lab.report.step
        card, _ = cards(machine)
        files, before = answers.files(machine), answers.kernel(machine)
        with step("apply is under way: the disk after the first write, and amid the new initramfs"):
            words = ("apply", card[0][:-2], "--vm", str(VMID), *ACCEPTED, "--yes")
            applying = machine.agent.begin(("/usr/bin/pve-passthrough", *words))
            _await(machine, f"test -e {_OURS}", applying)
            first = machine.freeze_disk()
            _await(machine, "pgrep -x mkinitramfs", applying)
            time.sleep(10)
            amid = machine.freeze_disk()
        with step("QEMU is killed when apply has ended and the reboot is due"):
            _await(machine, "grep -q boot-needed /var/lib/pve-passthrough/runs/*/journal.jsonl", applying)
            machine.power_cut()
        with step("that boot is the one the run waited for: it ends, and the card is bound"):
            machine.start()
            assert phase(machine) == "KEPT", _journal(machine)
            assert {answers.kernel(machine).functions[address].driver for address in card} == {"vfio-pci"}
        machine.power_cut()
        with step("cut amid the new initramfs: the boot unit retreats before guests start, nothing half done"):
            _retreats(machine, amid, files, before)
        with step("one more boot, and the run is over: the kernel is as it was"):
            machine.reboot()
            assert phase(machine) == "UNDONE", _journal(machine)
            assert answers.kernel(machine) == before
            assert not machine.shell("ls /var/lib/pve-passthrough/unfinished 2>/dev/null; true")
        machine.power_cut()
        with step("cut after the first write: the boot unit retreats before guests start, nothing half done"):
            _retreats(machine, first, files, before)


def _retreats(machine: Machine, disk: Path, files: dict[str, str], before: Answers) -> None:
    """Files are as before at once; the running kernel, started amid the change, may need one more boot."""
    machine.insert(disk)
    machine.start()
    assert phase(machine) == "UNDO_REBOOT", _journal(machine)
    changed = answers.differences(files, answers.files(machine))
    assert not changed, f"not as before: {changed}"
    assert answers.kernel(machine).drivers() == before.drivers()
    assert _order(machine) == [_UNIT, "pve-guests.service"], _order(machine)


def _await(machine: Machine, question: str, applying: int) -> None:
    """Until the shell answers a question with yes, while a program is at work. Raises LabError when it ends first."""
    until = time.monotonic() + CHANGE_SECONDS
    while machine.run("/bin/sh", "-c", question).rc != 0:
        if (said := machine.agent.ended(applying)) is not None and machine.run("/bin/sh", "-c", question).rc != 0:
            raise LabError(f"apply ended with {said.rc} before that: {said.text[-1500:]}")
        if time.monotonic() > until:
            raise LabError(f"not within {CHANGE_SECONDS:.0f} s: {question}")
        time.sleep(0.2)


def _order(machine: Machine) -> list[str]:
    """The two units in the order in which they became active or ended, by the system's own clock."""
    ended = machine.shell(
        f"systemctl show -p ExecMainExitTimestampMonotonic --value {_UNIT};"
        "systemctl show -p ExecMainStartTimestampMonotonic --value pve-guests.service"
    ).split()
    return [name for _, name in sorted(zip(map(int, ended), (_UNIT, "pve-guests.service"), strict=True))]


def _journal(machine: Machine) -> str:
    return machine.shell(
        f"journalctl -b --no-pager -u {_UNIT}; cat /var/lib/pve-passthrough/runs/*/journal.jsonl; true"
    )
