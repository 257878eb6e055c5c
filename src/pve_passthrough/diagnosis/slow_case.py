"""What all measurements of a slow guest need: the machine, the guest, its devices, what was sampled. Pure."""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..knowledge import performance as known
from ..model.facts import Facts
from ..model.pci import Address, Device
from ..model.performance import Inside, Measured, Samples, State
from ..model.value import dataclass
from ..model.vm import Vm, parse_options

_ROOT_PORT, _DOWNSTREAM = 4, 6
STOPPED = "the guest does not run"


@dataclass(frozen=True, slots=True)
class Case:
    """What all measurements need. `devices`: the functions that the guest has, in its own order."""

    facts: Facts
    vm: Vm
    devices: tuple[Device, ...]
    samples: Samples

    @property
    def guest(self) -> str:
        return f"vm:{self.vm.vmid}"

    @property
    def last(self) -> Inside | None:
        return self.samples.inside[-1] if self.samples.inside else None

    @property
    def windows(self) -> bool:
        return self.last.system == "windows" if self.last else (self.vm.value("ostype") or "").startswith("w")

    def silence(self, *abouts: str) -> str:
        """Why the guest, or the host, did not say it."""
        if not self.samples.running:
            return STOPPED if self.samples.running is False else "whether the guest runs could not be read"
        inside = self.last.silences if self.last else {}
        for about in abouts:
            if why := self.samples.silences.get(about) or inside.get(about):
                return why
        return self.samples.silence or "the guest did not say"

    def unknown(self, measure: str, subject: str, reason: str, should: str = "", here: str = "") -> Measured:
        return Measured(measure, subject, State.UNKNOWN, here, should, reason=reason)


def heads(devices: Sequence[Device]) -> tuple[Device, ...]:
    """One function of each card: its link is that of all."""
    first: dict[str, Device] = {}
    for device in devices:
        first.setdefault(device.address.slot, device)
    return tuple(first.values())


def links(facts: Facts, device: Device) -> tuple[tuple[Device, Device], ...]:
    """(what is below, the port above) for each link between the device and the processor that says something.

    A virtual function has its physical one's. A switch of the card's own is passed over: see
    `knowledge.performance.INSIDE_REPORTS`.
    """
    found = []
    node = (facts.device(device.physical_function) if device.physical_function else None) or device
    for _ in range(16):
        port = None if node.parent is None else facts.device(node.parent)
        if port is None:
            break
        kind = port.capabilities.express if port.capabilities else None
        own = kind == _DOWNSTREAM and port.vendor == node.vendor and port.vendor in known.INSIDE_REPORTS
        if port.link is not None and kind in (_ROOT_PORT, _DOWNSTREAM, None) and not own:
            found.append((node, port))
        node = port
    return tuple(found)


def addresses(facts: Facts, devices: Sequence[Device]) -> tuple[Address, ...]:
    """Functions whose link or power state has to be sampled: the devices, and what lies between them and the root."""
    found: dict[Address, None] = {}
    for device in devices:
        found[device.address] = None
        for below, port in links(facts, device):
            found[below.address] = found[port.address] = None
    return tuple(found)


def cores_of(vm: Vm) -> int:
    return whole(vm.config.get("cores"), 1) * whole(vm.config.get("sockets"), 1)


def whole(text: str | None, otherwise: int) -> int:
    return int(text) if text and re.fullmatch(r"[1-9]\d{0,8}", text) else otherwise


def memory_of(vm: Vm) -> int:
    return whole(parse_options(vm.value("memory") or "", "current").get("current"), 512)


def shown(size: int | None) -> str:
    if size is None:
        return "?"
    for unit, bits in (("GiB", 30), ("MiB", 20), ("KiB", 10)):
        if size >= 1 << bits:
            return f"{size / (1 << bits):.4g} {unit}"
    return f"{size} B"
