"""Layouts in which people paste their devices and groups."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.diagnosis.listings import Listed, listed
from pve_passthrough.model.pci import Address
from tests.shared import needs_shared, realhosts

GPU, SOUND = Address(0, 1, 0, 0), Address(0, 1, 0, 1)
ROW = "01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GP104 [GeForce GTX 1070] [10de:1b81] (rev a1)"


def one(text: str, address: Address = GPU) -> Listed:
    return next(found for found in listed(text) if found.device.address == address)


GROUPED = {
    "a loop with headings": f"IOMMU Group 1:\n\t{ROW}\n",
    "a loop with dashes": f"IOMMU Group 1:\n  -> {ROW}\n",
    "group before each row": f"IOMMU Group 1 {ROW}\n",
    "group with a colon": f"IOMMU group 1: {ROW}\n",
    "markdown": f"### IOMMU Group 1\n\n* {ROW}\n",
    "quoted": f"IOMMU Group 1:\n    `{ROW}`\n",
    "find": "/sys/kernel/iommu_groups/1/devices/0000:01:00.0\n",
    "kernel log": "[    0.5] pci 0000:01:00.0: Adding to iommu group 1\n",
    "verbose listing": f"{ROW}\n\tIOMMU group: 1\n",
    "machine readable": "Slot:\t01:00.0\nClass:\tVGA compatible controller [0300]\nIOMMUGroup:\t1\n",
    "table of pvesh": "│ class │ device │ id │ iommugroup │ vendor │\n"
    "│ 0x030000 │ 0x1b81 │ 0000:01:00.0 │ 1 │ 0x10de │\n",
}


@pytest.mark.parametrize("text", GROUPED.values(), ids=GROUPED.keys())
def test_the_group_in_every_layout(text: str) -> None:
    assert one(text).device.iommu_group == 1


NUMBERED = {
    "lspci -nn": ROW,
    "lspci -n": "01:00.0 0300: 10de:1b81 (rev a1)",
    "lspci -nnD": f"0000:{ROW}",
    "lspci -nnmm": '01:00.0 "VGA compatible controller [0300]" "NVIDIA Corporation [10de]" "GP104 [1b81]" -ra1 "" ""',
    "lspci -nnvmm": "Slot:\t01:00.0\nClass:\tVGA controller [0300]\nVendor:\tNVIDIA [10de]\nDevice:\tGP [1b81]\n",
    "kernel log": "[    0.3] pci 0000:01:00.0: [10de:1b81] type 00 class 0x030000 PCIe Legacy Endpoint",
    "table of pvesh": GROUPED["table of pvesh"],
}


@pytest.mark.parametrize("text", NUMBERED.values(), ids=NUMBERED.keys())
def test_numbers_and_class_in_every_layout(text: str) -> None:
    device = one(text).device
    assert (device.vendor, device.product, (device.class_code or 0) >> 8) == (0x10DE, 0x1B81, 0x0300)


def test_a_driver_is_unknown_where_the_listing_shows_none_and_absent_where_it_shows_others() -> None:
    assert one(ROW).device.driver is None
    both = f"{ROW}\n01:00.1 Audio device [0403]: NVIDIA [10de:10f0]\n\tKernel driver in use: snd_hda_intel\n"
    assert one(both).device.driver == "" and one(both, SOUND).device.driver == "snd_hda_intel"


def test_a_bridge_tells_the_bus_behind_it() -> None:
    text = (
        "00:01.0 PCI bridge [0604]: Intel [8086:1901]\n\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0\n"
    )
    assert one(text, Address(0, 0, 1, 0)).secondary == 1
    assert one("pci 0000:00:01.0: PCI bridge to [bus 01]", Address(0, 0, 1, 0)).secondary == 1


def test_the_boot_display_is_marked_by_the_kernel() -> None:
    assert one("[    0.4] pci 0000:01:00.0: vgaarb: setting as boot VGA device").device.boot_vga is True


def test_a_port_without_acs_is_told_from_one_that_was_not_looked_at() -> None:
    port = "00:1c.0 PCI bridge [0604]: Intel [8086:a110]\n\tCapabilities: [40] Express (v2) Root Port (Slot+), MSI 00\n"
    assert one(ROW).device.capabilities is None
    capabilities = one(port, Address(0, 0, 0x1C, 0)).device.capabilities
    assert capabilities is not None and capabilities.express == 4 and capabilities.acs is None


@given(st.text(alphabet=st.characters(codec="utf-8"), max_size=400))
def test_any_text_gives_devices_or_nothing(text: str) -> None:
    assert all(found.device.address.device < 32 for found in listed(text))


@needs_shared
def test_every_recorded_listing_shows_devices() -> None:
    folders = sorted((realhosts() / "share").glob("iommu-*")) + sorted((realhosts() / "share").glob("lspci-*"))
    assert len(folders) > 30
    silent = [
        file for folder in folders for file in folder.glob("*.txt")
        if ("lspci" in file.name or "iommu" in file.name) and not listed(file.read_text(errors="replace"))
    ]  # fmt: skip
    # A tree (`lspci -t`) shows places without saying what is there.
    assert [file.parent.name for file in silent if "tree" not in file.parent.name] == []
