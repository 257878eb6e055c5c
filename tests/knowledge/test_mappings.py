"""What is held against Proxmox' own judgement of mappings, as it was recorded."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import pytest

from pve_passthrough.knowledge.mappings import Hardware, State, describe, fault, judge_mapping
from pve_passthrough.model.facts import MapEntry, ResourceMapping
from pve_passthrough.model.mappings import mapping_text, parse_mapping
from pve_passthrough.model.pci import NO_GROUP, Address, Device
from pve_passthrough.model.usb import UsbDevice
from tests.shared import SHARED

RECORDED = SHARED / "pve"
needs_recordings = pytest.mark.skipif(not RECORDED.is_dir(), reason=f"recorded exchanges are not at {RECORDED}")


def hardware(node: str, iommu: bool = True) -> Hardware:
    told = json.loads((RECORDED / ("hardware-default.json" if iommu else "hardware-noiommu.json")).read_text())
    usb = tuple(_usb(one) for one in told["usb"])
    return Hardware(node, tuple(_device(one, iommu) for one in told["pci"]), usb)


def _device(told: dict[str, Any], iommu: bool) -> Device:
    vendor, product = (int(part, 16) for part in told["sub"].split(":")) if "sub" in told else (None, None)
    return Device(
        Address.parse(told["id"]), int(told["ven"], 16), int(told["dev"], 16), int(told["class"], 16),
        subsystem_vendor=vendor, subsystem_product=product,
        iommu_group=told["group"] if iommu else NO_GROUP, mediated_types=tuple(told.get("mdev", ())),
    )  # fmt: skip


def _usb(told: dict[str, Any]) -> UsbDevice:
    vendor, product = (int(part, 16) for part in told["id"].split(":"))
    return UsbDevice(told["name"], vendor, product, int(told["class"], 16), told.get("product", ""), None)


def checks(version: int) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """(row, node, mapping) of every recorded check of this node."""
    for text in (RECORDED / f"pve{version}.jsonl").read_text().splitlines():
        row = json.loads(text)
        argv = row.get("argv") or []
        if "--check-node" in argv and "elsewhere" not in argv and row["rc"] == 0:
            for mapping in json.loads(row["stdout"]):
                yield row["id"], argv[argv.index("--check-node") + 1], mapping


@needs_recordings
@pytest.mark.parametrize("version", [8, 9])
def test_every_recorded_check_is_judged_alike(version: int) -> None:
    seen = 0
    for row, node, told in checks(version):
        off = row.startswith("noiommu")
        if off and any("iommugroup" in line for line in told["map"]):
            continue  # while the IOMMU is off no guest with a device starts, and the group is unknown
        mapping = parse_mapping(told["type"], told["id"], "\n".join(f"map {line}" for line in told["map"]))
        assert mapping is not None
        judged = judge_mapping(hardware(node, not off), mapping)
        wrong = [one for one in judged if one.wrong]
        items = told["checks"] if "checks" in told else told["errors"]
        errors = [item for item in items if item["severity"] == "error"]
        assert len(wrong) == len(errors), (row, told, wrong)
        for one, error in zip(wrong, errors, strict=True):
            assert (one.state is State.ABSENT) == ("not found" in error["message"]) or one.state is State.STALE
            named = {item.name for item in one.differences}
            said = error["message"]
            assert not named or "not found" in said or any(f"'{name}'" in said for name in named)
        seen += 1
    assert seen >= 20


def test_a_line_of_another_node_cannot_be_judged() -> None:
    mapping = ResourceMapping("pci", "card", (MapEntry("second", "0000:01:00", {"id": "10de:2684"}),))
    here = Hardware("pve", (Device(Address(0, 1, 0, 0), 0x10DE, 0x2684, iommu_group=1),), ())
    assert [one.state for one in judge_mapping(here, mapping)] == [State.ELSEWHERE]
    assert fault(here, mapping) == "has no entry for node pve"
    assert [one.state for one in judge_mapping(Hardware(None, here.devices, ()), mapping)] == [State.UNKNOWN]


def test_what_nobody_could_read_is_unknown() -> None:
    mapping = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00.0", {"id": "10de:2684", "iommugroup": "1"}),))
    for devices in ((), (Device(Address(0, 1, 0, 0), None, None, iommu_group=1),)):
        (one,) = judge_mapping(Hardware("pve", devices, None), mapping)
        assert one.state is State.UNKNOWN and one.reason
        assert fault(Hardware("pve", devices, None), mapping) == ""
    usb = ResourceMapping("usb", "stick", (MapEntry("pve", "1-2", {"id": "1a86:7523"}),))
    assert [one.state for one in judge_mapping(Hardware("pve", (), None), usb)] == [State.UNKNOWN]


def test_of_several_lines_one_that_is_wrong_is_enough() -> None:
    good = MapEntry("pve", "0000:01:00.0", {"id": "10de:2684", "iommugroup": "1", "subsystem-id": "0000:0000"})
    bad = MapEntry("pve", "0000:02:00.0", {"id": "10de:2684", "iommugroup": "9", "subsystem-id": "0000:0000"})
    devices = tuple(
        Device(Address(0, bus, 0, 0), 0x10DE, 0x2684, subsystem_vendor=0, subsystem_product=0, iommu_group=bus)
        for bus in (1, 2)
    )
    here = Hardware("pve", devices, ())
    mapping = ResourceMapping("pci", "cards", (good, bad))
    assert [one.state for one in judge_mapping(here, mapping)] == [State.FINE, State.STALE]
    assert "iommugroup=9" in fault(here, mapping)
    assert describe(judge_mapping(here, mapping)[1]) == fault(here, mapping)


def test_a_mapping_survives_its_text() -> None:
    lines = (MapEntry("pve", "0000:01:00", {"id": "10de:2684"}), MapEntry("b", "", {"id": "1a86:7523"}))
    mapping = ResourceMapping("pci", "card", lines, {"mdev": "1", "description": "two words"})
    assert parse_mapping("pci", "card", mapping_text(mapping)) == mapping
    assert parse_mapping("pci", "card", None) is None
