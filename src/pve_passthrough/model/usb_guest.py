"""What guests claim of the host's USB devices, and who uses a device. Values only, worked out from facts.

1. An entry names a device by vendor:product, by its port, or through a mapping; `spice` names none.
   Source: qemu-server, QemuServer/USB.pm, parse_usb_device.
2. By vendor:product the first device that fits is taken; which one of identical twins that is, nobody can say.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from .facts import Facts, ResourceMapping
from .usb import UsbDevice, is_id, is_port, port_order
from .value import dataclass
from .vm import Vm, parse_options

_KEY = re.compile(r"usb([0-9]|1[0-3])")
_TRUE = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True, slots=True)
class UsbEntry:
    """One usbN entry. Of `id` and `port` one at most is set: what QEMU looks for. A mapping's own id is `expected`."""

    key: str
    value: str
    mapping: str = ""
    id: str = ""
    port: str = ""
    spice: bool = False
    usb3: bool = False
    expected: str = ""
    """The vendor:product that the mapping's line demands."""
    fault: str = ""
    """Why the mapping offers nothing on the guest's node; empty when it does."""

    @property
    def slot(self) -> int:
        return int(self.key.removeprefix("usb"))

    @property
    def names(self) -> str:
        """What it names, in words: `1-4`, `046d:c52b`, `mapping dongle`, `spice`."""
        if self.mapping:
            return f"mapping {self.mapping}"
        return "spice" if self.spice else self.port or self.id or self.value


def usb_keys(vm: Vm) -> tuple[str, ...]:
    """usbN keys that are set or wait for the next start, in the order of their numbers."""
    keys = {key for key in (*vm.config, *vm.pending) if key.startswith("usb") and _KEY.fullmatch(key)}
    return tuple(sorted(keys, key=lambda key: int(key.removeprefix("usb"))))


def usb_entries(facts: Facts, vm: Vm) -> tuple[UsbEntry, ...]:
    """The entries that the guest's next start will see."""
    found = ((key, vm.value(key)) for key in usb_keys(vm))
    return tuple(parse_entry(facts, vm.node, key, value) for key, value in found if value)


def parse_entry(facts: Facts, node: str, key: str, value: str) -> UsbEntry:
    options = parse_options(value, "host")
    usb3 = options.get("usb3", "0").lower() in _TRUE
    mapping = options.get("mapping", "")
    if mapping:
        return _mapped(facts, node, key, value, mapping, usb3)
    host = options.get("host", "").lower()
    if host == "spice":
        return UsbEntry(key, value, spice=True, usb3=usb3)
    return UsbEntry(key, value, id=_plain_id(host), port=host if is_port(host) else "", usb3=usb3)


def _plain_id(host: str) -> str:
    """`0x046d:0xc52b` is as good as `046d:c52b` (USB.pm, USB_ID_RE)."""
    text = ":".join(part.removeprefix("0x") for part in host.split(":"))
    return text if is_id(text) else ""


def _mapped(facts: Facts, node: str, key: str, value: str, name: str, usb3: bool) -> UsbEntry:
    mapping = next((one for one in facts.mappings if one.kind == "usb" and one.name == name), None)
    if mapping is None:
        return UsbEntry(key, value, name, usb3=usb3, fault="there is no such mapping")
    lines = [line for line in mapping.entries if line.node == node]
    if len(lines) != 1:
        # USB.pm: "USB device mapping not found", "More than one USB mapping per host not supported"
        fault = f"it has {len(lines) or 'no'} line{'s' if len(lines) > 1 else ''} for node {node}, not one"
        return UsbEntry(key, value, name, usb3=usb3, fault=fault)
    expected, port = lines[0].options.get("id", "").lower(), lines[0].path
    if port:
        return UsbEntry(key, value, name, port=port if is_port(port) else "", usb3=usb3, expected=expected)
    return UsbEntry(key, value, name, id=_plain_id(expected), usb3=usb3, expected=expected)


def matching(facts: Facts, entry: UsbEntry) -> tuple[UsbDevice, ...]:
    """Devices that are there and that the entry names, in the order of their ports. More than one: twins."""
    if entry.spice:
        return ()
    fits = (one for one in facts.usb if not one.hub and (one.port == entry.port if entry.port else one.id == entry.id))
    return tuple(sorted(fits, key=lambda one: port_order(one.port)))


def mapping_ids(mapping: ResourceMapping, node: str | None) -> tuple[tuple[str, str], ...]:
    """(vendor:product, port or nothing) of the mapping's lines for this node."""
    return tuple(
        (line.options.get("id", "").lower(), line.path) for line in mapping.entries if node is None or line.node == node
    )


def mappings_of(facts: Facts, device: UsbDevice) -> tuple[str, ...]:
    """USB mappings whose line for this node names the device."""
    return tuple(
        one.name
        for one in facts.mappings
        if one.kind == "usb"
        for identity, port in mapping_ids(one, facts.pve.node)
        if identity == device.id and port in ("", device.port)
    )


def claims(facts: Facts, device: UsbDevice) -> tuple[tuple[Vm, UsbEntry], ...]:
    """Guests of this node with an entry that names the device."""
    return tuple((vm, entry) for vm, entry in all_entries(facts) if device in matching(facts, entry))


def claims_by_port(facts: Facts) -> dict[str, list[tuple[Vm, UsbEntry]]]:
    """What `claims` says, of all devices at once."""
    found: dict[str, list[tuple[Vm, UsbEntry]]] = {}
    for vm, entry in all_entries(facts):
        for device in matching(facts, entry):
            found.setdefault(device.port, []).append((vm, entry))
    return found


def all_entries(facts: Facts) -> Iterator[tuple[Vm, UsbEntry]]:
    """Every USB entry of the guests of this node."""
    for vm in facts.guests or ():
        if facts.pve.node is None or not vm.node or vm.node == facts.pve.node:
            for entry in usb_entries(facts, vm):
                yield vm, entry


def twins_of(facts: Facts, device: UsbDevice) -> tuple[UsbDevice, ...]:
    """Other devices with the same vendor:product."""
    if device.vendor is None or device.product is None:
        return ()
    return tuple(one for one in facts.usb if one.id == device.id and one.port != device.port and not one.hub)


def below(facts: Facts, port: str) -> tuple[UsbDevice, ...]:
    """What hangs on a hub, through other hubs, too."""
    head = f"{port.removeprefix('usb')}-" if port.startswith("usb") else f"{port}."
    return tuple(one for one in facts.usb if one.port.startswith(head))
