"""The one card that shows a real kernel's console is handed to a guest and taken back; no reboot on the way."""

from __future__ import annotations

import time

from .. import answers
from ..hardware import HOST_INTEL
from ..lab import Lab, changing
from ..machine import Machine
from ..stand_in import VMID
from .nested_guest import qm

CARD = ("0000:01:00.0", "0000:01:00.1")
_HOOK = f"/var/lib/vz/snippets/pve-passthrough-hook-{VMID}"
_NOTE = f"/run/pve-passthrough/handover/{VMID}.json"
_TIMER = f"pve-passthrough-handback-{VMID}"
_DISPLAY = """
cat /proc/fb
for console in /sys/class/vtconsole/*; do echo "$(cat $console/name): $(cat $console/bind)"; done
for function in 0 1; do
    basename "$(readlink /sys/bus/pci/devices/0000:01:00.$function/driver || echo nobody)"
    cat /sys/bus/pci/devices/0000:01:00.$function/driver_override
done
systemctl is-active display-manager.service || true
"""
_SCREENS = (
    b"[Unit]\nDescription=Has the card open\n[Service]\nExecStart=/bin/sh -c 'exec 3<>/dev/dri/card0; sleep 9999'\n"
)
_PATIENCE = 240.0
"""The timer looks after 30 s, and a busy machine takes its time for what follows."""


def run(lab: Lab) -> None:
    """On Debian 12, with the kernel's own framebuffer console on an emulated card."""
    with lab.host("handover", HOST_INTEL, "bookworm") as machine:
        step = lab.report.step
        with step("the console is on the card; a service has the card open, as a display manager does"):
            machine.write("/etc/systemd/system/display-manager.service", _SCREENS)
            machine.shell("systemctl daemon-reload && systemctl start display-manager.service")
            before = display(machine)
            assert "drmfb" in before and "frame buffer device: 1" in before, before
            assert before.rstrip().endswith("\nactive"), before
        with step("the plan lends the display, and nothing is claimed at boot"):
            ended = changing(machine, "apply", CARD[0][:-2], "--vm", str(VMID), "--lend-display")
            assert ended.rc == 0, ended.out + ended.err
            assert display(machine) == before
        with step("somebody who has the card open is named, and the host keeps its display"):
            _refused(machine, before)
        with step("the guest starts: console, display manager and driver have let go; the timer waits"):
            qm(machine, "start")
            now = display(machine)
            assert "drmfb" not in now and "frame buffer device: 1" not in now, now
            assert now.count("vfio-pci\n") == 2 and now.rstrip().endswith("inactive"), now
            assert machine.run("systemctl", "is-active", f"{_TIMER}.timer").rc == 0
        with step("the guest stops: the same framebuffer, console, drivers and service are back"):
            qm(machine, "stop")
            _as_before(machine, before)
        with step("a start that fails after the hook gets no post-stop: the timer brings the display back"):
            machine.shell(f"{_HOOK} {VMID} pre-start")
            taken = display(machine)
            assert "drmfb" not in taken, taken
            _await(machine, before)
            _as_before(machine, before)


def display(machine: Machine) -> str:
    """What the kernel and systemd say about the host's display."""
    return machine.shell(_DISPLAY)


def _refused(machine: Machine, before: str) -> None:
    machine.shell("systemd-run --quiet --unit=viewer sh -c 'exec 3<>/dev/dri/card0; sleep 9999'; sleep 1")
    said = machine.run("/usr/sbin/qm", "start", str(VMID), seconds=240)
    machine.shell("systemctl stop viewer.service")
    assert said.rc != 0, said.text
    assert "has /dev/dri/card0 open" in said.text and "display as before" in said.text, said.text
    assert display(machine) == before, display(machine)
    assert machine.run("systemctl", "is-active", f"{_TIMER}.timer").rc != 0


def _as_before(machine: Machine, before: str) -> None:
    now = display(machine)
    assert now == before, f"{before} → {now}"
    assert machine.run("test", "-e", _NOTE).rc != 0, machine.read(_NOTE)
    assert machine.run("systemctl", "is-active", f"{_TIMER}.timer").rc != 0
    held = answers.kernel(machine)
    assert {held.functions[address].driver for address in CARD}.isdisjoint({"vfio-pci", ""}), held.drivers()


def _await(machine: Machine, before: str) -> None:
    until = time.monotonic() + _PATIENCE
    while display(machine) != before or machine.run("test", "-e", _NOTE).rc == 0:
        if time.monotonic() > until:
            words = f"systemctl list-timers --all; journalctl --no-pager -n 30 -u {_TIMER}.service -u {_TIMER}.timer"
            raise AssertionError(f"not back: {display(machine)}; {machine.shell(words)}")
        time.sleep(2.0)
