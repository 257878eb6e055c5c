"""Resource mappings: /etc/pve/mapping/pci.cfg and usb.cfg, and whether an entry still fits the hardware.

1. Creating a mapping never looks at the hardware (recorded: a wrong id is stored); starting a guest does.
2. The file's digest guards an update, in words of its own.
Source: recorded rows `map`, `mapstart`, `usbmap` of PVE 8.4 and 9.2.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..world import DEVICES
from .inventory import device_ids, offers_shares, usb_devices
from .node import Die, Node, sha1
from .options import PCI_MAP_KEYS, USB_MAP_KEYS
from .schema import Invalid, parse
from .sections import Section, parse_sections, render_sections

KEYS = {"pci": PCI_MAP_KEYS, "usb": USB_MAP_KEYS}


class Unfit(Exception):
    """An entry that does not fit the hardware, in Proxmox' words."""


def path_of(kind: str) -> str:
    return f"/etc/pve/mapping/{kind}.cfg"


def sections(node: Node, kind: str) -> tuple[list[Section], str]:
    """The mappings of a kind and the file's digest."""
    text = node.world.text(path_of(kind)) or ""
    return parse_sections(text), sha1(text)


def _save(node: Node, kind: str, found: list[Section]) -> None:
    node.write(path_of(kind), render_sections(found))


def node_maps(node: Node, kind: str, name: str) -> tuple[Section | None, list[dict[str, str]]]:
    """A mapping and its entries for this node."""
    section = next((found for found in sections(node, kind)[0] if found.name == name), None)
    if section is None:
        return None, []
    maps = [read_map(kind, text) for text in section.maps]
    return section, [entry for entry in maps if entry.get("node") == node.name]


def read_map(kind: str, text: str) -> dict[str, str]:
    try:
        return parse(KEYS[kind], text)
    except Invalid:
        return {}


def fit_pci(node: Node, section: Section, entry: Mapping[str, str]) -> None:
    """Raises `Unfit` when the machine's device is not the one that was mapped. Of several paths only the first one's
    group counts (pve-guest-common, PVE/Mapping/PCI.pm, assert_valid)."""
    for number, part in enumerate(entry["path"].split(";")):
        address = part if "." in part else f"{part}.0"
        if not node.world.exists(f"{DEVICES}/{address}"):
            raise Unfit(f"pci device '{address}' not found")
        correct, configured = _correct(node, section, address), _configured(section, entry)
        if number:
            correct.pop("iommugroup", None)
            configured.pop("iommugroup", None)
        _compare(section.name, address, correct, configured)


def _correct(node: Node, section: Section, address: str) -> dict[str, str]:
    ids = device_ids(node, address)
    group = node.world.group_of(address)
    correct = {"id": f"{ids.vendor}:{ids.device}"}
    if group is not None:
        correct["iommugroup"] = str(group)
    if ids.subsystem:
        correct["subsystem-id"] = ids.subsystem
    if section.values.get("mdev") == "1":
        correct["mdev"] = "1" if offers_shares(node, address) else "0"
    return correct


def _configured(section: Section, entry: Mapping[str, str]) -> dict[str, str]:
    configured = {key: entry[key] for key in ("id", "iommugroup", "subsystem-id") if key in entry}
    if section.values.get("mdev") == "1":
        configured["mdev"] = "1"
    return configured


def _compare(name: str, address: str, correct: dict[str, str], configured: dict[str, str]) -> None:
    for key in sorted({*correct, *configured}):
        if key not in configured:
            raise Unfit(f"missing expected property '{key}' for device '{address}'")
        if key not in correct:
            raise Unfit(f"unexpected property '{key}' configured for device '{address}'")
        if correct[key] != configured[key]:
            raise Unfit(f"'{key}' does not match for '{name}' ({correct[key]} != {configured[key]})")


def fit_usb(present: list[dict[str, Any]], name: str, entry: Mapping[str, str]) -> None:
    """Raises `Unfit`. With a path the device there must have the id, without one any device may."""
    wanted = entry["id"]
    if "path" in entry:
        bus, _, ports = entry["path"].partition("-")
        at = [usb for usb in present if str(usb["busnum"]) == bus and usb.get("usbpath") == ports]
        if not at:
            raise Unfit(f"usb device '{entry['path']}' not found")
        found = f"{at[0]['vendid']}:{at[0]['prodid']}"
        if found != wanted:
            raise Unfit(f"'id' does not match for '{name}' ({found} != {wanted})")
    elif all(f"{usb['vendid']}:{usb['prodid']}" != wanted for usb in present):
        raise Unfit(f"usb device '{wanted}' not found")


# -- the API --------------------------------------------------------------------------------------


def as_item(kind: str, section: Section, digest: str) -> dict[str, Any]:
    values: dict[str, Any] = dict(section.values)
    for flag in ("mdev", "live-migration-capable"):
        if flag in values:
            values[flag] = int(values[flag])
    return {**values, "map": list(section.maps), "digest": digest, "type": kind}


def listed(node: Node, kind: str, check: bool) -> list[dict[str, Any]]:
    found, digest = sections(node, kind)
    items = []
    for section in found:
        item = {"id": section.name, **as_item(kind, section, digest)}
        if check:
            item["checks" if kind == "pci" else "errors"] = _checks(node, kind, section)
        items.append(item)
    return items


def _checks(node: Node, kind: str, section: Section) -> list[dict[str, str]]:
    _, maps = node_maps(node, kind, section.name)
    if not maps:
        return [{"severity": "warning", "message": f"No mapping for node {node.name}."}]
    problems = []
    for entry in maps:
        try:
            if kind == "pci":
                fit_pci(node, section, entry)
            else:
                fit_usb(usb_devices(node), section.name, entry)
        except Unfit as error:
            problems.append({"severity": "error", "message": f"Invalid configuration: {error}\n"})
    return problems


def shown(node: Node, kind: str, name: str) -> dict[str, Any]:
    found, digest = sections(node, kind)
    for section in found:
        if section.name == name:
            return as_item(kind, section, digest)
    raise Die(f"mapping '{name}' not found")


def create(node: Node, kind: str, name: str, maps: list[str], values: dict[str, str]) -> None:
    found, _ = sections(node, kind)
    if any(section.name == name for section in found):
        raise Die(f"create hardware mapping failed: {kind} ID '{name}' already defined")
    _save(node, kind, [*found, Section(name, "", values, maps)])


def update(
    node: Node, kind: str, name: str, maps: list[str], values: dict[str, str], gone: list[str], digest: str
) -> None:
    """PUT: `map` must be given again each time (recorded for pci; usb refuses in the parameters already)."""
    found, current = sections(node, kind)
    failed = "update hardware mapping failed: "
    if digest and digest != current:
        raise Die(f"{failed}detected modified configuration - file changed by other user? Try again.")
    section = next((section for section in found if section.name == name), None)
    if section is None:
        raise Die(f"{failed}{kind} ID '{name}' does not exist")
    if not maps:
        raise Die(f"{failed}missing value for required option 'map'")
    section.maps = maps
    section.values = {key: text for key, text in section.values.items() if key not in gone} | values
    _save(node, kind, found)


def delete(node: Node, kind: str, name: str) -> None:
    """Deleting what is not there is no error (recorded)."""
    found, _ = sections(node, kind)
    kept = [section for section in found if section.name != name]
    if len(kept) != len(found):
        _save(node, kind, kept)
