"""diagnose --for slow: a guest that works but is slow, measured on the host and through the guest's agent.

1. Only looks. No load is made anywhere: whoever wants a link or an encoder measured at work starts the work.
2. What idles is looked at several times, and the best that was seen counts.
3. A guest that does not run, or has no agent, is measured as far as its configuration and the host tell.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host
from ..knowledge.performance import row
from ..model.performance import LinkSample, Measured, Pages, Samples, State
from ..model.value import dataclass
from . import look

if TYPE_CHECKING:
    from ..guest.agent import Silence
    from ..model.diagnosis import Observation
    from ..model.facts import Facts
    from ..model.pci import Address, Device
    from ..model.performance import Inside
    from ..model.vm import Vm

SECONDS = 3.0
"""How long is looked when nobody says so."""
LONGEST = 600.0
STEP = 1.0
ASK_AGAIN = 5.0
"""Seconds between two questions to the guest: each starts programs in it."""


@dataclass(frozen=True, slots=True)
class Slow:
    """The table of one guest. `seconds`: how long was looked."""

    vm: Vm
    measured: tuple[Measured, ...]
    seconds: float
    host: str = ""

    @property
    def observations(self) -> tuple[Observation, ...]:
        """What is slow, for a diagnosis."""
        from ..diagnosis.performance import observations

        return observations(self.measured)

    @property
    def remark(self) -> str:
        """One line that leads to the table; empty when nothing is slow."""
        slow = [row(one.measure).title for one in self.measured if one.state is State.SLOW]
        if not slow:
            return ""
        titles = ", ".join(dict.fromkeys(slow))
        return f"Measured as slow: {titles}. See: pve-passthrough diagnose --for slow --vm {self.vm.vmid}"


def measure(
    host: Host,
    vmid: int,
    seconds: float = SECONDS,
    *,
    sleep: Callable[[float], None] = time.sleep,
    clock: Callable[[], float] = time.monotonic,
) -> Slow:
    """Measure one guest of this node for `seconds`. Raises Failure when there is no such guest here."""
    from ..diagnosis.performance import judge
    from ..guest.ladder import is_running, taken

    if not 0 <= seconds <= LONGEST:
        raise Failure("slow.seconds", f"Nothing was measured: {seconds:g} seconds are not between 0 and {LONGEST:g}.",
                      code=Exit.USAGE)  # fmt: skip
    facts = look(host, inventory=True)
    vm = _guest(facts, vmid)
    shared = [address for entry in vm.hostpci if entry.mdev for address in entry.addresses]
    devices = _devices(facts, (*taken(host, facts, vm), *shared))
    running = is_running(host, vmid)
    samples = (
        _sampled(host, facts, vm, devices, seconds, sleep, clock) if running else _still(host, facts, devices, running)
    )
    return Slow(vm, judge(facts, vm, devices, samples), samples.seconds, facts.host)


def _guest(facts: Facts, vmid: int) -> Vm:
    from ..rules.subject import is_local

    vm = facts.guest(vmid)
    if vm is None:
        why = "its guests could not be read" if facts.guests is None else f"this node has no guest {vmid}"
        raise Failure("guest.missing", f"Nothing was measured: {why}.", hint="qm list", code=Exit.USAGE)
    if not is_local(facts, vm):
        raise Failure(
            "guest.elsewhere", f"Nothing was measured: {vm.name} ({vmid}) is on the node {vm.node}.",
            hint=f"Measure it there: pve-passthrough diagnose --for slow --vm {vmid}", code=Exit.USAGE,
        )  # fmt: skip
    return vm


def _devices(facts: Facts, addresses: tuple[Address, ...]) -> tuple[Device, ...]:
    """The functions, each once, in the guest's own order."""
    found: dict[Address, Device] = {}
    for address in addresses:
        device = facts.device(address)
        if device is not None:
            found[address] = device
    return tuple(found.values())


# -- looking -------------------------------------------------------------------------------------


def _still(host: Host, facts: Facts, devices: tuple[Device, ...], running: bool | None) -> Samples:
    """What is there to see of a guest that does not run."""
    from ..diagnosis.slow_case import addresses
    from ..probe import performance as probe

    silences: dict[str, str] = {}
    places = addresses(facts, devices)
    return Samples(
        running,
        links={address: (probe.link(host, address),) for address in places},
        efficient=probe.efficient(host),
        governors=probe.governors(host, silences),
        aspm=probe.aspm(host),
        split_locks=probe.split_locks(host, None, silences),
        silences=silences,
    )


def _sampled(
    host: Host,
    facts: Facts,
    vm: Vm,
    devices: tuple[Device, ...],
    seconds: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> Samples:
    from ..diagnosis.slow_case import addresses
    from ..probe import performance as probe

    silences: dict[str, str] = {}
    pid = probe.pid_of(host, vm.vmid)
    places = addresses(facts, devices)
    begun = clock()
    before = probe.waits(host, pid, silences) if pid else None
    links, power, answers = _over_time(host, vm.vmid, places, devices, seconds, sleep, clock)
    after = probe.waits(host, pid, silences) if pid and before else None
    took = clock() - begun
    inside = tuple(one for one in answers if not _silent(one))
    many = facts.numa_nodes is not None and len(facts.numa_nodes) > 1
    return Samples(
        True,
        round(took, 1),
        links,
        power,
        probe.interrupts(host, [device.address for device in devices], silences),
        _shares(before, after, took),
        probe.allowed(host, pid) if pid else None,
        probe.pages(host, pid, by_node=many, silences=silences) if pid else Pages(),
        probe.efficient(host),
        probe.governors(host, silences),
        _drivers(host, vm.vmid, silences) if inside else None,
        probe.aspm(host),
        probe.split_locks(host, pid, silences),
        inside,  # type: ignore[arg-type]
        next((one.reason for one in answers if _silent(one)), "") if not inside else "",  # type: ignore[union-attr]
        silences,
    )


def _drivers(host: Host, vmid: int, silences: dict[str, str]) -> tuple[tuple[str, str, str], ...] | None:
    from ..guest.agent import Silence, devices_in

    found = devices_in(host, vmid)
    if isinstance(found, Silence):
        silences["driver"] = found.reason
        return None
    return tuple((one.id, one.driver, one.problem) for one in found)


def _silent(answer: Inside | Silence) -> bool:
    from ..guest.agent import Silence

    return isinstance(answer, Silence)


def _over_time(
    host: Host,
    vmid: int,
    places: tuple[Address, ...],
    devices: tuple[Device, ...],
    seconds: float,
    sleep: Callable[[float], None],
    clock: Callable[[], float],
) -> tuple[
    Mapping[Address, tuple[LinkSample, ...]], Mapping[Address, tuple[str, ...]], list[Inside | Silence]
]:  # fmt: skip
    """Links and power states each second, the guest at both ends and each few seconds between."""
    from ..guest.performance import inside
    from ..probe import performance as probe

    links: dict[Address, list[LinkSample]] = {address: [] for address in places}
    power: dict[Address, list[str]] = {device.address: [] for device in devices}
    answers: list[Inside | Silence] = [inside(host, vmid)]
    begun = asked = clock()
    while True:
        for address, seen in links.items():
            seen.append(probe.link(host, address))
        for address, states in power.items():
            states.append(probe.power_state(host, address))
        now = clock()
        left = seconds - (now - begun)
        if left <= 0:
            break
        if now - asked >= ASK_AGAIN and not _silent(answers[0]):
            answers.append(inside(host, vmid))
            asked = now
        sleep(min(STEP, left))
    if not _silent(answers[0]) and seconds:
        answers.append(inside(host, vmid))
    return (
        {address: tuple(seen) for address, seen in links.items()},
        {address: tuple(seen) for address, seen in power.items()},
        answers,
    )


def _shares(
    before: Mapping[str, int] | None, after: Mapping[str, int] | None, took: float
) -> Mapping[str, float] | None:
    """Share of the time that each thread waited in between."""
    if before is None or after is None or took <= 0:
        return None
    both = ((name, after[name] - begun) for name, begun in before.items() if name in after)
    return {name: min(1.0, max(0.0, waited / (took * 1e9))) for name, waited in both}
