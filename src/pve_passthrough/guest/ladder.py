"""Is it really working? One rung after the other, each a question to the one who knows.

L0 config   the guest's configuration claims devices, and the machine has them
L1 bound    each claimed function is held by vfio-pci, asked by address in sysfs; of a pool the member that was taken;
            each share exists and is the guest's own
L2 starts   Proxmox starts the guest and it keeps running
L3 seen     the guest's own kernel lists a device with each passed id

1. A rung that nobody could answer is `unknown`; the rungs above it are still asked.
2. A single USB device is opened by QEMU and bound to nothing: L1 has nothing to say about it.
3. Starting the guest is the only effect, and only when the caller allows it.
4. Nothing is stopped, reset or repaired here.
"""

from __future__ import annotations

import contextlib
import posixpath
import time
from collections.abc import Callable, Iterable
from dataclasses import replace
from enum import Enum

from ..host.base import Host, HostError, Missing
from ..knowledge.usb_devices import changeling
from ..model.facts import Facts
from ..model.mappings import find, lines_of
from ..model.mediated import shares
from ..model.pci import Address, Device
from ..model.usb import UsbDevice
from ..model.usb_guest import UsbEntry, matching, usb_entries
from ..model.value import dataclass
from ..model.vm import HostPci, Vm, expand_host
from . import agent
from .shared import seen_as, share

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
    started = _starts(host, vm, start) if top >= 2 and rungs[0].outcome is Outcome.PASSED else None
    running = started.outcome is Outcome.PASSED if started else is_running(host, vm.vmid) is True
    wanted = taken(host, facts, vm)
    if top >= 1:
        rungs.append(_in_hand(host, vm, wanted, running))
    if started is not None:
        rungs.append(started)
    if top >= 3 and started is not None:
        rungs.append(_seen(host, facts, vm, wanted, running, patience, sleep))
    return tuple(rungs)


def _configured(facts: Facts, vm: Vm) -> Rung:
    plugged = [entry for entry in usb_entries(facts, vm) if not entry.spice]
    if not vm.hostpci and not plugged:
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
    lost += [
        f"{entry.key}: no guest starts with the mapping {entry.mapping} as it is"
        for entry in plugged
        if entry.mapping and (entry.fault or not matching(facts, entry))
    ]
    if lost:
        return Rung(0, "config", Outcome.FAILED, f"{vm.name} ({vm.vmid}) claims devices that are gone", tuple(lost))
    evidence = tuple(
        f"{entry.key}: {f'{entry.mdev} of ' if entry.mdev else ''}{_named(facts, address)}"
        for entry in vm.hostpci
        for address in entry.addresses
    )
    claimed = [f"{len(evidence)} function(s)"] if vm.hostpci else []
    claimed += [f"{len(plugged)} USB device(s)"] if plugged else []
    evidence += tuple(f"{entry.key}: {_plugged(facts, entry)}" for entry in plugged)
    return Rung(0, "config", Outcome.PASSED, f"{vm.name} ({vm.vmid}) claims {' and '.join(claimed)}", evidence)


def _plugged(facts: Facts, entry: UsbEntry) -> str:
    found = matching(facts, entry)
    return str(found[0]) if found else f"{entry.names} is not plugged in; the guest gets it when it appears"


def taken(host: Host, facts: Facts, vm: Vm) -> tuple[Address, ...]:
    """The functions that this start took: all of each entry's, and of a pool the member that the guest got.

    Proxmox notes who has what: lines `ADDRESS VMID pid:N`. Source: qemu-server PCI.pm, reserve_pci_usage; recorded
    rows `mapstart`. Without a note the first member that vfio-pci holds stands for the pool, else the first.
    """
    noted = _reserved(host, vm.vmid)
    found: list[Address] = []
    for entry in vm.hostpci:
        members = [one for one in _members(facts, vm, entry) if not set(one) & set(found)]
        mine = [one for one in members if noted.issuperset(one)]
        held = [one for one in members if all(_driver(host, address) == "vfio-pci" for address in one)]
        found += (mine or held or members)[0] if len(members) > 1 else entry.addresses
    return tuple(dict.fromkeys(found))


def _members(facts: Facts, vm: Vm, entry: HostPci) -> list[tuple[Address, ...]]:
    """What a mapping offers on the guest's node, one after the other."""
    known = [device.address for device in facts.devices]
    mapping = find(facts.mappings, "pci", entry.mapping)
    lines = lines_of(mapping, vm.node) if mapping else ()
    return [functions for line in lines if (functions := expand_host(line.path, known))]


RESERVATIONS = "/run/qemu-server/pci-id-reservations"


def _reserved(host: Host, vmid: int) -> frozenset[Address]:
    """What is noted for this guest; nothing when nobody could say."""
    try:
        text = host.read(RESERVATIONS).decode("utf-8", "replace")
    except HostError:
        return frozenset()
    words = (line.split() for line in text.splitlines())
    named = {part[0] for part in words if len(part) >= 2 and part[1] == str(vmid)}
    found = set()
    for word in named:
        with contextlib.suppress(ValueError):
            found.add(Address.parse(word))
    return frozenset(found)


def _in_hand(host: Host, vm: Vm, wanted: tuple[Address, ...], running: bool) -> Rung:
    """What the guest takes is held by vfio-pci; what it shares exists, and is its own."""
    entries = shares(vm)
    shared = {address for entry in entries for address in entry.addresses}
    bare = tuple(address for address in wanted if address not in shared)
    if not entries:
        return _bound(host, bare, running)
    reserved = _reserved(host, vm.vmid)
    found = [share(host, vm, entry, reserved) for entry in entries]
    whole = _bound(host, bare, running) if bare else None
    evidence = (*(whole.evidence if whole else ()), *(one.evidence for one in found))
    if whole is not None and whole.outcome is not Outcome.PASSED:
        return replace(whole, evidence=evidence)
    if not running:
        why = "the guest is stopped; Proxmox makes the share when it starts"
        return Rung(1, "bound", Outcome.SKIPPED, why, evidence)
    if all(one.there for one in found):
        return Rung(1, "bound", Outcome.PASSED, f"{len(found)} share(s) exist and belong to this guest", evidence)
    if any(one.there is None for one in found):
        return Rung(1, "bound", Outcome.UNKNOWN, "whether the guest has its share could not be read", evidence)
    return Rung(
        1, "bound", Outcome.FAILED, "the guest runs without its share", evidence,
        "Proxmox makes shares at guest start only: stop the guest and start it again",
    )  # fmt: skip


def _bound(host: Host, wanted: tuple[Address, ...], running: bool) -> Rung:
    if not wanted:
        return Rung(1, "bound", Outcome.SKIPPED, "single USB devices are bound to nothing: QEMU opens them itself")
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
    fitting = (matching(facts, entry) for entry in usb_entries(facts, vm))
    plugged = [devices[0] for devices in fitting if devices]
    if not wanted and not plugged:
        return Rung(3, "seen", Outcome.SKIPPED, "none of its devices is plugged in, so it was not asked")
    inside = _patiently(host, vm.vmid, patience, sleep) if wanted else ()
    if isinstance(inside, agent.Silence):
        return Rung(
            3, "seen", Outcome.UNKNOWN, "nobody could ask the guest what it sees", (f"guest agent: {inside.reason}",),
            f"install the QEMU guest agent in the guest and set `qm set {vm.vmid} --agent 1`",
        )  # fmt: skip
    left = list(inside)
    shared = {address for entry in shares(vm) for address in entry.addresses}
    evidence: list[str] = []
    missing: list[str] = []
    troubled = False
    for device in filter(None, map(facts.device, wanted)):
        found = seen_as(left, device, device.address in shared)
        if found is None:
            missing.append(f"guest: no device with id {device.id} ({device})")
            continue
        left.remove(found)
        troubled = troubled or bool(found.problem)
        evidence.append(f"guest: {device.id} {_state(found)} ({device})")
    usb = _patiently(host, vm.vmid, patience, sleep, agent.usb_devices_in) if plugged else ()
    if isinstance(usb, agent.Silence):
        return Rung(
            3, "seen", Outcome.UNKNOWN, "nobody could ask the guest which USB devices it sees",
            (*evidence, f"guest agent: {usb.reason}"),
            f"install the QEMU guest agent in the guest and set `qm set {vm.vmid} --agent 1`",
        )  # fmt: skip
    _sort_usb(plugged, usb, evidence, missing)
    if missing:
        return Rung(3, "seen", Outcome.FAILED, "the guest does not list every device", (*evidence, *missing))
    if troubled:
        return Rung(3, "seen", Outcome.PASSED, "the guest lists every device, but complains about one", tuple(evidence))
    return Rung(3, "seen", Outcome.PASSED, "the guest lists every device", tuple(evidence))


def _sort_usb(
    plugged: Iterable[UsbDevice], inside: Iterable[agent.GuestDevice], seen: list[str], missing: list[str]
) -> None:
    """Adds what the guest lists and what it lacks. What comes back under another ID is known by any of its IDs."""
    left = list(inside)
    for device in plugged:
        row = changeling(device.id)
        found = next((one for one in left if one.id in (row.ids if row else (device.id,))), None)
        if found is None:
            missing.append(f"guest: no USB device with id {device.id} ({device})")
        else:
            left.remove(found)
            seen.append(f"guest: {found.id} {_state(found)} ({device})")


def _patiently(
    host: Host,
    vmid: int,
    patience: float,
    sleep: Callable[[float], None],
    ask: Callable[[Host, int], tuple[agent.GuestDevice, ...] | agent.Silence] = agent.devices_in,
) -> tuple[agent.GuestDevice, ...] | agent.Silence:
    """Ask until the agent answers or the patience is used up; the guest may still be booting."""
    waited, pause = 0.0, 2.0
    while True:
        answer = ask(host, vmid)
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
