"""Whether a resource mapping's line still fits the hardware, as Proxmox VE judges it when a guest starts.

1. Pure: a mapping, a machine's devices in; a judgement of each line out.
2. What Proxmox compares, and nothing else. Texts are compared letter by letter: a mapping with `10DE:2684` starts no
   guest, although the schema takes it (recorded rows `map`, 8.4 and 9.2: "'id' does not match … (10de:2684 !=
   10DE:2684)").
3. A line of another node cannot be judged from here.

Sources: pve-guest-common, PVE/Mapping/PCI.pm and PVE/Mapping/USB.pm, assert_valid; recorded rows `map`, `mapstart`,
`usbmap` and `noiommu` of Proxmox VE 8.4 and 9.2.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from enum import Enum

from ..model.facts import Facts, MapEntry, ResourceMapping
from ..model.mappings import flag, lines_of
from ..model.pci import Address, Device
from ..model.usb import UsbDevice
from ..model.value import dataclass
from ..model.vm import expand_host


class State(Enum):
    """FINE: a guest would start with it · STALE: the device is there, and its numbers or its group are not what was
    written down · LIES: another device is at that path · ABSENT: nothing is there · ELSEWHERE: a line of another node ·
    UNKNOWN: nobody could say."""

    FINE = "fine"
    STALE = "stale"
    LIES = "lies"
    ABSENT = "absent"
    ELSEWHERE = "elsewhere"
    UNKNOWN = "unknown"


WRONG = frozenset({State.STALE, State.LIES, State.ABSENT})
"""No guest starts with such a line."""


@dataclass(frozen=True, slots=True)
class Difference:
    """One property: what the line says and what the hardware has; None: it is not there."""

    name: str
    said: str | None
    real: str | None

    def __str__(self) -> str:
        if self.said is None:
            return f"lacks {self.name}={self.real}"
        if self.real is None:
            return f"says {self.name}={self.said}, and the hardware has none"
        return f"says {self.name}={self.said}, and the hardware has {self.real}"


@dataclass(frozen=True, slots=True)
class Judged:
    """One line. `device`: what is at its path now, as text; empty when nothing is, or nobody could say."""

    line: MapEntry
    state: State
    differences: tuple[Difference, ...] = ()
    device: str = ""
    reason: str = ""
    addresses: tuple[Address, ...] = ()

    @property
    def wrong(self) -> bool:
        return self.state in WRONG


@dataclass(frozen=True, slots=True)
class Hardware:
    """What the lines are held against. `usb` None: nobody could say what is plugged in."""

    node: str | None
    devices: Sequence[Device]
    usb: Sequence[UsbDevice] | None = None

    @property
    def grouped(self) -> bool:
        """Whether the IOMMU gives groups; while it is off, Proxmox expects no group, and starts no such guest."""
        return any(one.iommu_group is not None and one.iommu_group >= 0 for one in self.devices)


def hardware_of(facts: Facts) -> Hardware:
    """This machine, as far as it is known."""
    return Hardware(facts.pve.node, facts.devices, None if facts.gap("usb.devices") else facts.usb)


def judge_mapping(hardware: Hardware, mapping: ResourceMapping) -> tuple[Judged, ...]:
    """Every line of the mapping, in its order."""
    return tuple(_judge(hardware, mapping, line) for line in mapping.entries)


def fault(hardware: Hardware, mapping: ResourceMapping) -> str:
    """Why no guest with this mapping starts on the node; empty when nothing is known to be wrong.

    One wrong line is enough: Proxmox looks at all lines of its node before it takes the first free one (qemu-server
    PCI.pm, parse_hostpci).
    """
    if not lines_of(mapping, hardware.node):
        return f"has no entry for node {hardware.node}"
    if mapping.kind == "usb" and hardware.node and len(lines_of(mapping, hardware.node)) > 1:
        return "has more than one device for this node, and Proxmox takes one USB device per node"
    wrong = next((one for one in judge_mapping(hardware, mapping) if one.wrong), None)
    return "" if wrong is None else describe(wrong)


def describe(one: Judged) -> str:
    """`names 0000:0a:00.0, which this machine does not have`."""
    what = one.line.path or one.line.options.get("id", "")
    if one.state is State.ABSENT:
        return f"names {what}, which this machine does not have"
    if one.state is State.LIES:
        first = one.differences[0]
        real = f", {first.name} {first.real}" if first.real else ""
        return f"says {first.name}={first.said}, and another device is at {what} now: {one.device}{real}"
    if one.differences:
        return f"{one.differences[0]} ({one.device})"
    return one.reason


def _judge(hardware: Hardware, mapping: ResourceMapping, line: MapEntry) -> Judged:
    if hardware.node is None:
        return Judged(line, State.UNKNOWN, reason="which node this is could not be read")
    if line.node != hardware.node:
        return Judged(line, State.ELSEWHERE, reason=f"only node {line.node} can say")
    return _judge_usb(hardware, line) if mapping.kind == "usb" else _judge_pci(hardware, mapping, line)


# -- PCI ------------------------------------------------------------------------------------------


def _judge_pci(hardware: Hardware, mapping: ResourceMapping, line: MapEntry) -> Judged:
    """Each path of the line; the first one that is worse than fine speaks for it."""
    if not hardware.devices:
        return Judged(line, State.UNKNOWN, reason="the devices of this machine could not be read")
    known = [device.address for device in hardware.devices]
    addresses = expand_host(line.path, known)
    for number, part in enumerate(line.path.split(";")):
        first = expand_host(part, known)[:1]
        device = next((one for one in hardware.devices if first and one.address == first[0]), None)
        # A path without a function means the whole card, and is compared by its function 0.
        if device is None or ("." not in part and device.address.function != 0):
            return Judged(line, State.ABSENT, reason=f"nothing is at {part}")
        found = tuple(_differences(hardware, mapping, line, device, number))
        judged = _verdict(line, device, found, addresses, first=number == 0)
        if judged.state is not State.FINE:
            return judged
    head = next(one for one in hardware.devices if one.address == addresses[0])
    return Judged(line, State.FINE, device=str(head), addresses=addresses)


def _verdict(
    line: MapEntry, device: Device, found: tuple[Difference | str, ...], addresses: tuple[Address, ...], *, first: bool
) -> Judged:
    """A further path that differs from the first one is a line that never fitted, not another device."""
    unknown = [one for one in found if isinstance(one, str)]
    differ = tuple(one for one in found if isinstance(one, Difference))
    if first and any(_another(one) for one in differ):
        return Judged(line, State.LIES, differ, str(device), addresses=addresses)
    if differ:
        return Judged(line, State.STALE, differ, str(device), addresses=addresses)
    if unknown:
        return Judged(line, State.UNKNOWN, (), str(device), unknown[0], addresses)
    return Judged(line, State.FINE, (), str(device), addresses=addresses)


def _another(one: Difference) -> bool:
    """Numbers that name another product, not merely another spelling or a missing entry."""
    if one.name not in ("id", "subsystem-id") or one.said is None:
        return False
    return one.real is None or one.said.lower() != one.real.lower()


def _differences(
    hardware: Hardware, mapping: ResourceMapping, line: MapEntry, device: Device, number: int
) -> Iterator[Difference | str]:
    """Properties that differ, and as text what nobody could say. Of several paths only the first one's group counts."""
    for name, real in real_properties(hardware, device, number == 0).items():
        said = line.options.get(name)
        if real is None:
            off = name == "iommugroup" and not hardware.grouped
            why = "the IOMMU is off, so the group is not known" if off else f"{name} of {device} could not be read"
            if said is not None or name == "id":
                yield why
        elif (real or None) != said:
            yield Difference(name, said, real or None)
    if flag(mapping, "mdev") and not device.mediated_types and not device.nvidia_types:
        yield Difference("mdev", "1", None)


def real_properties(hardware: Hardware, device: Device, first: bool = True) -> dict[str, str | None]:
    """What a line must say of a device; empty: it must not say it; None: nobody could tell.

    While the IOMMU is off there is no group to tell: no guest with a device starts then, whatever the mapping says. A
    device without a subsystem shows zeros, and those must be written down like any other number (pve-common,
    SysFSTools.pm, pci_device_info: what sysfs shows is expected; kernel, drivers/pci/pci-sysfs.c: it is always shown).
    """
    subsystem = device.subsystem
    found: dict[str, str | None] = {"id": None if "?" in device.id else device.id}
    if first:
        group = device.iommu_group
        known = group is not None and (group >= 0 or hardware.grouped)
        found["iommugroup"] = None if not known else (str(group) if group is not None and group >= 0 else "")
    found["subsystem-id"] = None if "?" in subsystem else subsystem
    return found


# -- USB ------------------------------------------------------------------------------------------


def _judge_usb(hardware: Hardware, line: MapEntry) -> Judged:
    """With a path what is plugged in there must have the id; without one any device with it will do."""
    if hardware.usb is None:
        return Judged(line, State.UNKNOWN, reason="the USB devices of this machine could not be read")
    said = line.options.get("id", "")
    if line.path:
        there = next((one for one in hardware.usb if one.port == line.path), None)
        if there is None:
            return Judged(line, State.ABSENT, reason=f"nothing is plugged in at {line.path}")
        if there.id == said:
            return Judged(line, State.FINE, device=f"{there.name or there.id} ({there.port})")
        state = State.STALE if there.id == said.lower() else State.LIES
        return Judged(line, state, (Difference("id", said, there.id),), f"{there.name or there.id} ({there.port})")
    alike = [one for one in hardware.usb if one.id == said]
    if alike:
        return Judged(line, State.FINE, device=f"{alike[0].name or alike[0].id} ({alike[0].port})")
    spelt = next((one for one in hardware.usb if one.id == said.lower()), None)
    if spelt is not None:
        return Judged(line, State.STALE, (Difference("id", said, spelt.id),), f"{spelt.name or spelt.id}")
    return Judged(line, State.ABSENT, reason=f"no device {said} is plugged in")
