"""Steps with a guest inside the lab host: what its own kernel sees of the devices that it was given."""

from __future__ import annotations

import json
import time

from ..answers import Answers
from ..lab import program
from ..machine import Machine
from ..programs import LabError
from ..stand_in import VMID

_PATIENCE = "240"


def verified(machine: Machine, kernel: Answers, card: tuple[str, ...]) -> None:
    """`verify` climbs to L3, and the guest's own list holds every function of the card."""
    ended = program(machine, "verify", "--vm", str(VMID), "--patience", _PATIENCE, seconds=600)
    assert ended.rc == 0, ended.out + ended.err
    seen = uevents(machine)
    for address in card:
        wanted = kernel.functions[address].id
        assert f"PCI_ID={wanted.upper()}" in seen, f"{wanted} ({address}) is not among {seen}"


def uevents(machine: Machine) -> list[str]:
    """Lines of the guest kernel's own descriptions of its PCI functions, through its agent."""
    words = ("find", "-L", "/sys/bus/pci/devices", "-maxdepth", "2", "-name", "uevent", "-exec", "cat", "{}", ";")
    return in_guest(machine, *words).splitlines()


def in_guest(machine: Machine, *words: str) -> str:
    """A program's output in the nested guest. Raises LabError."""
    said = machine.run("/usr/sbin/qm", "guest", "exec", str(VMID), "--timeout", "60", "--", *words)
    if said.rc != 0:
        raise LabError(f"qm guest exec {' '.join(words)}: {said.text}")
    answer = json.loads(said.out)
    if answer.get("exitcode") != 0:
        raise LabError(f"in the guest: {' '.join(words)}: {answer}")
    return str(answer.get("out-data", ""))


def await_agent(machine: Machine, seconds: float = 240.0) -> None:
    """Until the nested guest's agent answers."""
    until = time.monotonic() + seconds
    while machine.run("/usr/sbin/qm", "guest", "cmd", str(VMID), "ping").rc != 0:
        if time.monotonic() > until:
            console = machine.shell(f"tail -c 1500 /var/log/lab/{VMID}.serial; true")
            raise LabError(f"the nested guest's agent did not answer within {seconds:.0f} s; its console:\n{console}")
        time.sleep(1.0)


def stopped(machine: Machine) -> None:
    qm(machine, "stop")
    assert "stopped" in machine.run("/usr/sbin/qm", "status", str(VMID)).out


def qm(machine: Machine, verb: str, *words: str) -> str:
    """`qm VERB 100 …`. Raises LabError when it fails."""
    said = machine.run("/usr/sbin/qm", verb, str(VMID), *words, seconds=400)
    if said.rc != 0:
        raise LabError(f"qm {verb}: {said.text}")
    return said.out


def usb_ids(machine: Machine) -> list[str]:
    """`vvvv:dddd` of each device that the nested guest's kernel lists."""
    script = "for d in /sys/bus/usb/devices/*/idVendor; do echo $(cat $d):$(cat ${d%Vendor}Product); done"
    return in_guest(machine, "sh", "-c", script).split()
