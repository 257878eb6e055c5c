"""Is it really working? One rung after the other, each a question to the one who knows.

L0 config   the guest's configuration claims devices, and the machine has them
L1 bound    each claimed function is held by vfio-pci, asked by address in sysfs
L2 starts   Proxmox starts the guest and it keeps running
L3 seen     the guest's own kernel lists a device with each passed id

1. A rung that nobody could answer is `unknown`; the rungs above it are still asked.
2. Starting the guest is the only effect, and only when the caller allows it.
3. Nothing is stopped, reset or repaired here.
"""

from __future__ import annotations

import posixpath
import time
from collections.abc import Callable
from enum import Enum

from ..host.base import Host, HostError, Missing
from ..model.facts import Facts
from ..model.pci import Address, Device
from ..model.value import dataclass
from ..model.vm import Vm
from . import agent

AGENT_PATIENCE = 180.0
"""Seconds that a freshly started guest gets until its agent answers; slow firmware and big BARs take their time."""


class Outcome(Enum):
    PASSED = "passed"
    FAILED = "failed"
    UNKNOWN = "unknown"
    SKIPPED = "skipped"


@dataclass(frozen=True, slots=True)
class Rung:
    """One level's answer; `evidence` lines are `where: what`."""

    level: int
    name: str
    outcome: Outcome
    message: str
    evidence: tuple[str, ...] = ()
    hint: str = ""


def climb(
    host: Host,
    facts: Facts,
    vm: Vm,
    *,
    top: int = 3,
    start: bool = True,
    patience: float = AGENT_PATIENCE,
    sleep: Callable[[float], None] = time.sleep,
) -> tuple[Rung, ...]:
    """Rungs 0 to `top` for one guest of this node. Starts the guest only when `start` is true and it is stopped."""
    rungs = [_configured(facts, vm)]
    wanted = tuple(address for entry in vm.hostpci for address in entry.addresses)
    started = _starts(host, vm, start) if top >= 2 and rungs[0].outcome is Outcome.PASSED else None
    running = started.outcome is Outcome.PASSED if started else is_running(host, vm.vmid) is True
    if top >= 1:
        rungs.append(_bound(host, wanted, running))
    if started is not None:
        rungs.append(started)
    if top >= 3 and started is not None:
        rungs.append(_seen(host, facts, vm, wanted, running, patience, sleep))
    return tuple(rungs)


def _configured(facts: Facts, vm: Vm) -> Rung:
    if not vm.hostpci:
        return Rung(
            0, "config", Outcome.FAILED, f"{vm.name} ({vm.vmid}) has no hostpci entry: no device is given to it",
            hint="pve-passthrough up DEVICE --vm " + str(vm.vmid),
        )  # fmt: skip
    present = {device.address for device in facts.devices}
    lost = [
        f"{entry.key}: {address} is not on this machine"
        for entry in vm.hostpci
        for address in entry.addresses
        if address not in present
    ]
    lost += [f"{entry.key}: names no device of this machine" for entry in vm.hostpci if not entry.addresses]
    if lost:
        return Rung(0, "config", Outcome.FAILED, f"{vm.name} ({vm.vmid}) claims devices that are gone", tuple(lost))
    evidence = tuple(f"{entry.key}: {_named(facts, address)}" for entry in vm.hostpci for address in entry.addresses)
    return Rung(0, "config", Outcome.PASSED, f"{vm.name} ({vm.vmid}) claims {len(evidence)} function(s)", evidence)


def _bound(host: Host, wanted: tuple[Address, ...], running: bool) -> Rung:
    drivers = {address: _driver(host, address) for address in wanted}
    evidence = tuple(
        f"/sys/bus/pci/devices/{address}/driver: {driver or 'none'}" for address, driver in drivers.items()
    )
    if any(driver is None for driver in drivers.values()):
        return Rung(1, "bound", Outcome.UNKNOWN, "the driver of a function could not be read", evidence)
    foreign = [address for address, driver in drivers.items() if driver != "vfio-pci"]
    if not foreign:
        return Rung(1, "bound", Outcome.PASSED, "every function is held by vfio-pci", evidence)
    if running:
        return Rung(
            1, "bound", Outcome.FAILED,
            f"the guest runs, but {len(foreign)} function(s) are not held by vfio-pci", evidence,
            "Proxmox takes devices at guest start only: stop the guest and start it again",
        )  # fmt: skip
    return Rung(
        1, "bound", Outcome.SKIPPED, "the guest is stopped; Proxmox binds the functions when it starts", evidence
    )


def _starts(host: Host, vm: Vm, start: bool) -> Rung:
    running = is_running(host, vm.vmid)
    if running is None:
        return Rung(2, "starts", Outcome.UNKNOWN, f"whether {vm.name} ({vm.vmid}) runs could not be read")
    if running:
        return Rung(2, "starts", Outcome.PASSED, f"{vm.name} ({vm.vmid}) is running")
    if not start:
        return Rung(2, "starts", Outcome.SKIPPED, f"{vm.name} ({vm.vmid}) is stopped and was not to be started")
    try:
        ran = host.run(("qm", "start", str(vm.vmid)), timeout=900.0)
    except HostError as error:
        return Rung(2, "starts", Outcome.UNKNOWN, "the guest could not be started from here", (str(error),))
    said = tuple(line for line in (ran.stdout + ran.stderr).splitlines() if line.strip())[-12:]
    if not ran.ok:
        return Rung(
            2, "starts", Outcome.FAILED, f"Proxmox did not start {vm.name} ({vm.vmid}); it is stopped",
            tuple(f"qm start {vm.vmid}: {line}" for line in said),
        )  # fmt: skip
    if not is_running(host, vm.vmid):
        return Rung(2, "starts", Outcome.FAILED, f"{vm.name} ({vm.vmid}) was started and is gone again", said)
    return Rung(2, "starts", Outcome.PASSED, f"Proxmox started {vm.name} ({vm.vmid}) and it keeps running", said)


def _seen(
    host: Host,
    facts: Facts,
    vm: Vm,
    wanted: tuple[Address, ...],
    running: bool,
    patience: float,
    sleep: Callable[[float], None],
) -> Rung:
    if not running:
        return Rung(3, "seen", Outcome.SKIPPED, "the guest does not run, so it was not asked")
    inside = _patiently(host, vm.vmid, patience, sleep)
    if isinstance(inside, agent.Silence):
        return Rung(
            3, "seen", Outcome.UNKNOWN, "nobody could ask the guest what it sees", (f"guest agent: {inside.reason}",),
            f"install the QEMU guest agent in the guest and set `qm set {vm.vmid} --agent 1`",
        )  # fmt: skip
    left = list(inside)
    evidence: list[str] = []
    missing: list[str] = []
    troubled = False
    for device in filter(None, map(facts.device, wanted)):
        found = next((candidate for candidate in left if candidate.id == device.id), None)
        if found is None:
            missing.append(f"guest: no device with id {device.id} ({device})")
            continue
        left.remove(found)
        troubled = troubled or bool(found.problem)
        evidence.append(f"guest: {device.id} {_state(found)} ({device})")
    if missing:
        return Rung(3, "seen", Outcome.FAILED, "the guest does not list every device", (*evidence, *missing))
    if troubled:
        return Rung(3, "seen", Outcome.PASSED, "the guest lists every device, but complains about one", tuple(evidence))
    return Rung(3, "seen", Outcome.PASSED, "the guest lists every device", tuple(evidence))


def _patiently(
    host: Host, vmid: int, patience: float, sleep: Callable[[float], None]
) -> tuple[agent.GuestDevice, ...] | agent.Silence:
    """Ask until the agent answers or the patience is used up; the guest may still be booting."""
    waited, pause = 0.0, 2.0
    while True:
        answer = agent.devices_in(host, vmid)
        if not isinstance(answer, agent.Silence) or waited >= patience or "not running" not in answer.reason:
            return answer
        sleep(pause)
        waited += pause


def _state(device: agent.GuestDevice) -> str:
    if device.problem:
        return f"reports {device.problem}"
    return f"driver {device.driver}" if device.driver else "no driver yet"


def is_running(host: Host, vmid: int) -> bool | None:
    """A guest runs while its pid file lies in /run/qemu-server (qemu-server removes it at the end). None: unknown."""
    try:
        host.read(f"/run/qemu-server/{vmid}.pid")
    except Missing:
        return False
    except HostError:
        return None
    return True


def _driver(host: Host, address: Address) -> str | None:
    """Driver name by address, empty when none, None when unknown."""
    try:
        return posixpath.basename(host.link(f"/sys/bus/pci/devices/{address}/driver"))
    except Missing:
        return ""
    except HostError:
        return None


def _named(facts: Facts, address: Address) -> str:
    device: Device | None = facts.device(address)
    return str(device) if device else str(address)
