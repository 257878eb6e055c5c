"""USB for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

from ...app import prefix
from ...knowledge.usb_devices import changeling, kinds
from ...knowledge.usb_guests import NAMINGS, slots
from ...model.usb_guest import all_entries, claims, mappings_of, matching, twins_of, usb_keys
from ...planning.usb import usual_way
from ..printable import printable
from .data import FORMAT, gaps

if TYPE_CHECKING:
    from rich.console import Console
    from rich.text import Text

    from ...model.facts import Facts
    from ...model.pci import Address
    from ...model.usb import UsbDevice

Values = dict[str, Any]


# -- as data -------------------------------------------------------------------------------------


def listed_data(facts: Facts) -> Values:
    return {
        "format": FORMAT,
        "host": facts.host,
        "controllers": [_controller_data(facts, address) for address in _controllers(facts)],
        "devices": [_device_data(facts, one) for one in facts.usb],
        "guests": _guests_data(facts),
        "gaps": [one for one in gaps(facts) if str(one["about"]).startswith(("usb.", "uses.", "guests"))],
    }


def _controller_data(facts: Facts, address: Address | None) -> Values:
    device = None if address is None else facts.device(address)
    return {
        "address": None if address is None else str(address),
        "name": (device.name or None) if device else None,
        "driver": device.driver if device else None,
        "iommu_group": device.iommu_group if device else None,
        "ports": [one.port for one in facts.usb if one.controller == address],
    }


def _device_data(facts: Facts, one: UsbDevice) -> Values:
    return {
        "port": one.port,
        "parent": one.parent,
        "id": one.id,
        "name": one.name or None,
        "hub": one.hub,
        "ports": one.ports,
        "speed": one.speed,
        "serial": one.serial,
        "kinds": list(kinds(one)),
        "drivers": list(one.drivers),
        "terminals": None if one.terminals is None else list(one.terminals),
        "paths": None if one.paths is None else list(one.paths),
        "controller": None if one.controller is None else str(one.controller),
        "host_uses": [
            {"kind": use.kind.value, "detail": use.detail, "vital": use.vital} for use in facts.usb_uses_of(one.port)
        ],
        "guests": [{"vmid": vm.vmid, "entry": entry.key} for vm, entry in claims(facts, one)],
        "naming": None
        if one.hub
        else {
            "usual": usual_way(facts, one)[0],
            "why": usual_way(facts, one)[1],
            "id": one.id,
            "port": one.port,
            "mappings": list(mappings_of(facts, one)),
            "twins": [other.port for other in twins_of(facts, one)],
        },
    }


def _guests_data(facts: Facts) -> list[Values]:
    return [
        {
            "vmid": vm.vmid,
            "entry": entry.key,
            "value": entry.value,
            "present": [one.port for one in matching(facts, entry)],
            "free_entries": slots(vm) - len(usb_keys(vm)),
        }
        for vm, entry in all_entries(facts)
    ]


def _controllers(facts: Facts) -> tuple[Address | None, ...]:
    """Those with devices, and USB controllers without (their ports are not ours to see), by address."""
    found: set[Address] = {one.controller for one in facts.usb if one.controller is not None}
    found |= {one.address for one in facts.devices if one.subclass == 0x0C03}
    astray: tuple[Address | None, ...] = (None,) if any(one.controller is None for one in facts.usb) else ()
    return (*sorted(found), *astray)


# -- for people ----------------------------------------------------------------------------------


def listed(out: Console, facts: Facts, *, flat: bool = False) -> None:
    from rich.text import Text
    from rich.tree import Tree

    if not facts.usb:
        out.print(Text("No USB device is seen."))
    for address in _controllers(facts):
        root = Tree(_controller_line(facts, address))
        nodes: dict[str, Tree] = {}
        for one in facts.usb:
            if one.controller == address:
                above = root if flat else nodes.get(one.parent or "", root)
                nodes[one.port] = above.add(_device_text(facts, one))
        out.print(root)
    _absent(out, facts)
    _legend(out, facts)
    for gap in facts.gaps:
        if gap.about.startswith("usb."):
            out.print(Text(printable(f"? {gap.about}: {gap.reason}"), style="magenta"))


def _controller_line(facts: Facts, address: Address | None) -> Text:
    from rich.text import Text

    device = None if address is None else facts.device(address)
    if address is None:
        return Text("on an unknown controller", style="bold")
    group = "?" if device is None or device.iommu_group is None else str(device.iommu_group)
    name = device.name or device.id if device else ""
    driver = (device.driver or "no driver") if device and device.driver is not None else "driver unknown"
    text = Text(printable(f"{address}  {name}  group {group}  [{driver}]"), style="bold")
    return text.append("  it is a guest's, or waits for one", "dim") if driver == "vfio-pci" else text


def _device_text(facts: Facts, one: UsbDevice) -> Text:
    from rich.text import Text

    text = Text.assemble((f"{printable(one.port):<8}", "bold"), f" {_speed(one.speed):>7}  ")
    if one.hub:
        ports = f", {one.ports} ports" if one.ports else ""
        return text.append(printable(f"{'root hub' if one.root_hub else 'hub'}{ports}  {one.name}".rstrip()), "dim")
    what = ", ".join((*kinds(one), *(one.terminals or ())))
    row = changeling(one.id)
    text.append(f"{one.id}  {printable(one.name) or (row.family if row else '–')}")
    text.append(printable(f"  {what}") if what else "", "dim")
    for words, style in _users(facts, one):
        text.append(f"\n  {printable(words)}", style)
    way, why = usual_way(facts, one)
    names = [f"port {one.port}", *(f"mapping {name}" for name in mappings_of(facts, one))]
    names = [f"id {one.id}", *names] if way == "id" else names
    text.append(f"\n  {printable(' · '.join(names))}", "dim")
    if way == "port":
        text.append(printable(f"  ({why})"), "dim")
    if one.paths:
        text.append(f"\n  {printable(one.paths[0])}", "dim")
    return text


def _users(facts: Facts, one: UsbDevice) -> Iterator[tuple[str, str]]:
    for use in facts.usb_uses_of(one.port):
        what = use.kind.value if use.detail in (one.name, one.id) else f"{use.kind.value}, {use.detail}"
        yield f"host: {what}", "bold red" if use.vital else "yellow"
    for vm, entry in claims(facts, one):
        state = {True: "runs", False: "stopped", None: "?"}[vm.running]
        yield f"guest {vm.vmid} ({vm.name}, {state}): {entry.key}: {entry.value}", "cyan"


def _speed(speed: float | None) -> str:
    """Mbit/s, and Gbit/s from 5000 on, as `lsusb -t` counts in M."""
    if speed is None:
        return "?"
    return f"{speed / 1000:g} G" if speed >= 1000 else f"{speed:g} M"


def _absent(out: Console, facts: Facts) -> None:
    from rich.text import Text

    for vm, entry in all_entries(facts):
        if not entry.spice and not matching(facts, entry):
            line = f"not plugged in: guest {vm.vmid} ({vm.name}) waits for {entry.names} ({entry.key})"
            out.print(Text(printable(line), style="yellow"))


def _legend(out: Console, facts: Facts) -> None:
    from rich.text import Text

    if any(not one.hub for one in facts.usb):
        out.print()
        for row in NAMINGS:
            out.print(Text.assemble((f"{row.way:<8}", "bold"), f" follows {row.follows}; breaks when {row.breaks}."))
        out.print(Text(f"→ {prefix(facts.host)} usb add PORT --vm ID", style="cyan"))
