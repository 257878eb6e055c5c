"""What Proxmox' own inventory says about the machine: /nodes/N/hardware/pci and usb, mediated device types.

1. Everything is read from the simulated /sys, names from /usr/share/misc/pci.ids where the tree has it.
2. Numbers and spellings follow recorded answers of PVE 9.2 (`iommugroup` -1 for none, `class` as 0x030000).
"""

from __future__ import annotations

import posixpath
import re
from dataclasses import dataclass
from typing import Any

from ..world import DEVICES
from .node import Node

USB = "/sys/bus/usb/devices"
PCI_IDS = "/usr/share/misc/pci.ids"


@dataclass(frozen=True, slots=True)
class Mdev:
    """A type of mediated device of one PCI device."""

    type: str
    available: int
    description: str
    name: str


@dataclass(frozen=True, slots=True)
class Ids:
    """Four hex digits each; the subsystem is empty when the device shows none."""

    vendor: str
    device: str
    subsystem: str


def device_ids(node: Node, address: str) -> Ids:
    def text(name: str) -> str:
        return (node.world.attribute(address, name) or "").removeprefix("0x")

    vendor, device = text("subsystem_vendor"), text("subsystem_device")
    return Ids(text("vendor"), text("device"), f"{vendor}:{device}" if vendor and device else "")


def mdev_types(node: Node, address: str) -> list[Mdev]:
    base = f"{DEVICES}/{address}/mdev_supported_types"
    found = []
    for kind in node.world.names(base):
        names = ("available_instances", "description", "name")
        text = {name: node.world.text(f"{base}/{kind}/{name}") for name in names}
        count = (text["available_instances"] or "0").strip()
        name = (text["name"] or "").strip()
        found.append(Mdev(kind, int(count) if count.isdigit() else 0, text["description"] or "", name))
    return found if node.world.exists(base) else _nvidia_types(node, address)


def _nvidia_types(node: Node, address: str) -> list[Mdev]:
    """Types of NVIDIA's own way (SysFSTools.pm; since 9.1.11 Proxmox asks NVIDIA's library for the same)."""
    text = node.world.text(f"{DEVICES}/{address}/nvidia/creatable_vgpu_types") or ""
    rows = (line.partition(":") for line in text.splitlines() if not line.startswith("ID") and ":" in line)
    return [Mdev(f"nvidia-{number.strip()}", 1, "", name.strip()) for number, _, name in rows]


def offers_shares(node: Node, address: str) -> bool:
    """`mdev` of the inventory: types of either way (SysFSTools.pm, lspci)."""
    home = f"{DEVICES}/{address}"
    return node.world.exists(f"{home}/mdev_supported_types") or node.world.exists(f"{home}/nvidia")


def pci_list(node: Node, hidden: list[str], verbose: bool) -> list[dict[str, Any]]:
    """GET /nodes/N/hardware/pci; `hidden` are class prefixes in hex."""
    names = _pci_names(node) if verbose else {}
    found = []
    for address in node.world.addresses():
        code = (node.world.attribute(address, "class") or "").removeprefix("0x")
        if any(code.startswith(prefix.lower()) for prefix in hidden):
            continue
        ids = device_ids(node, address)
        group = node.world.group_of(address)
        item: dict[str, Any] = {
            "id": address,
            "class": f"0x{code}",
            "vendor": f"0x{ids.vendor}",
            "device": f"0x{ids.device}",
            "iommugroup": -1 if group is None else group,
        }
        if offers_shares(node, address):
            item["mdev"] = 1
            if not node.world.exists(f"{DEVICES}/{address}/mdev_supported_types"):
                item["nvidia"] = 1
        if verbose:
            item |= _verbose(node, address, ids, names)
        found.append(item)
    return found


def _verbose(node: Node, address: str, ids: Ids, names: dict[str, str]) -> dict[str, Any]:
    item: dict[str, Any] = {
        "vendor_name": names.get(ids.vendor),
        "device_name": names.get(f"{ids.vendor}:{ids.device}"),
    }
    if ids.subsystem:
        vendor, _, device = ids.subsystem.partition(":")
        item["subsystem_vendor"], item["subsystem_device"] = f"0x{vendor}", f"0x{device}"
        item["subsystem_vendor_name"] = names.get(vendor)
        item["subsystem_device_name"] = names.get(f"{ids.vendor}:{ids.device} {ids.subsystem}")
    if node.major >= 9:  # 8.4 leaves both out of its answer
        item |= _virtual_functions(node, address)
    return {key: value for key, value in item.items() if value is not None}


def _virtual_functions(node: Node, address: str) -> dict[str, Any]:
    item: dict[str, Any] = {}
    if physical := node.world.link(f"{DEVICES}/{address}/physfn"):
        item["physfn"] = posixpath.basename(physical)
    virtual = [name for name in node.world.names(f"{DEVICES}/{address}") if name.startswith("virtfn")]
    if virtual:
        item["virtfns"] = {
            name: posixpath.basename(node.world.link(f"{DEVICES}/{address}/{name}") or "") for name in virtual
        }
    return item


def _pci_names(node: Node) -> dict[str, str]:
    """`10de`, `10de:2684` and `10de:2684 1043:889a` → names, from pci.ids."""
    names: dict[str, str] = {}
    vendor = device = ""
    for line in (node.world.text(PCI_IDS) or "").splitlines():
        if line.startswith("C "):
            break
        if match := re.fullmatch(r"([0-9a-f]{4})  (.+)", line):
            vendor = match.group(1)
            names[vendor] = match.group(2)
        elif match := re.fullmatch(r"\t([0-9a-f]{4})  (.+)", line):
            device = f"{vendor}:{match.group(1)}"
            names[device] = match.group(2)
        elif match := re.fullmatch(r"\t\t([0-9a-f]{4}) ([0-9a-f]{4})  (.+)", line):
            names[f"{device} {match.group(1)}:{match.group(2)}"] = match.group(3)
    return names


def usb_devices(node: Node) -> list[dict[str, Any]]:
    """GET /nodes/N/hardware/usb. `port` counts from 0; `serial` is never filled (a slip in SysFSTools.pm)."""
    found = []
    for name in node.world.names(USB):
        if not re.fullmatch(r"usb\d+|\d+-\d+(\.\d+)*", name):
            continue
        text = {key: _usb(node, name, key) for key in ("busnum", "devnum", "idVendor", "idProduct", "speed")}
        if any(value is None for value in text.values()):
            continue
        path = name.partition("-")[2]
        ports = path.split(".") if path else []
        item: dict[str, Any] = {
            "busnum": int(text["busnum"] or 0),
            "devnum": int(text["devnum"] or 0),
            "class": int(_usb(node, name, "bDeviceClass") or "0", 16),
            "level": len(ports),
            "port": int(ports[-1]) - 1 if ports else 0,
            "prodid": text["idProduct"],
            "vendid": text["idVendor"],
            "speed": text["speed"],
        }
        if path:
            item["usbpath"] = path
        item |= {key: value for key in ("manufacturer", "product") if (value := _usb(node, name, key)) is not None}
        found.append(item)
    return sorted(found, key=lambda item: (item["busnum"], item["devnum"]))


def _usb(node: Node, name: str, attribute: str) -> str | None:
    text = node.world.text(f"{USB}/{name}/{attribute}")
    return None if text is None else text.strip()
