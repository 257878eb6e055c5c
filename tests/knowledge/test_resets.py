"""What is known about resets: rows by ID and by circumstance, and what the kernel's list really means."""

from __future__ import annotations

import pytest

from pve_passthrough.knowledge.reset_log import ROWS, row_for
from pve_passthrough.knowledge.resets import (
    AMD_APU,
    ATI_VGA,
    INTEL_500,
    METHODS,
    RESETS,
    effective,
    on_same_bus,
    reset_row,
    rows_of,
)
from pve_passthrough.model.pci import Address, Device

CARD, SOUND = Address(0, 3, 0, 0), Address(0, 3, 0, 1)


def device(address: Address, ids: str, klass: int, *methods: str) -> Device:
    vendor, product = (int(part, 16) for part in ids.split(":"))
    above = None if address.bus == 0 else Address(0, 0, 1, 0)
    return Device(
        address, vendor, product, klass, parent=above, resettable=bool(methods), reset_methods=methods or None
    )


def families(one: Device, *others: Device) -> list[str]:
    return [row.family for row in rows_of(one, (one, *others))]


@pytest.mark.parametrize(
    ("ids", "family", "vendor_reset"),
    [
        ("1002:67df", "AMD Polaris 10", True),
        ("1002:6864", "AMD Vega 10", True),
        ("1002:738c", "AMD Arcturus", True),
        ("1002:73ff", "AMD RDNA2 to RDNA4", False),
        ("10de:237f", "NVIDIA H100 class", False),
        ("10de:2b85", "NVIDIA Blackwell (RTX 50)", False),
        ("1022:149c", "AMD Matisse and Starship", False),
        ("8086:1503", "Intel 82579", False),
        ("14c3:0616", "MediaTek MT7922", False),
        ("144d:a804", "Samsung NVMe a804", False),
        ("8086:0a54", "Intel NVMe 0953 and 0a54", False),
        ("025e:f1ac", "Solidigm NVMe f1ac", False),
    ],
)
def test_a_device_is_found_by_its_id(ids: str, family: str, vendor_reset: bool) -> None:
    vendor, product = (int(part, 16) for part in ids.split(":"))
    row = reset_row(vendor, product)
    assert row is not None
    assert (row.family, row.vendor_reset) == (family, vendor_reset)


def test_an_id_of_nobody_and_half_an_id_are_in_no_row() -> None:
    assert reset_row(0x10DE, 0x2684) is None
    assert reset_row(0x1002, None) is None
    assert reset_row(0x10DE, 0x67DF) is None  # the number is AMD's


def test_no_id_stands_in_two_rows_and_every_row_has_a_source() -> None:
    seen = [(row.vendor, product) for row in RESETS for product in row.products]
    assert len(seen) == len(set(seen))
    for row in (*RESETS, ATI_VGA, AMD_APU, INTEL_500):
        assert row.source
        assert set(row.doubted) | set(row.absent) | set(row.offers) <= set(METHODS)


def test_rows_without_ids_go_by_what_stands_around_the_device() -> None:
    vega = device(Address(0, 6, 0, 0), "1002:1638", 0x030000, "bus")
    processor = device(Address(0, 6, 0, 3), "1022:1639", 0x0C0330)
    assert families(vega, processor) == ["AMD and ATI display", "AMD processor graphics"]
    assert families(vega) == ["AMD and ATI display"]
    igpu = device(Address(0, 0, 2, 0), "8086:4c8a", 0x030000, "flr")
    board = device(Address(0, 0, 0x1F, 0), "8086:438b", 0x060100)
    other = device(Address(0, 0, 0x1F, 0), "8086:7a84", 0x060100)
    assert families(igpu, board) == ["Intel processor graphics on a 500-series board"]
    assert families(igpu, other) == []


def test_bus_is_no_method_of_a_function_that_has_company_in_its_slot() -> None:
    card, sound = device(CARD, "10de:2684", 0x030000, "flr", "bus"), device(SOUND, "10de:22ba", 0x040300)
    assert effective(card, (card, sound)) == ("flr",)
    assert effective(card, (card,)) == ("flr", "bus")
    assert on_same_bus(card, (card, sound, device(Address(0, 4, 0, 0), "8086:15f3", 0x020000))) == (sound,)


def test_a_root_bus_is_never_reset_and_nobody_on_it_counts() -> None:
    igpu, usb = (device(Address(0, 0, slot, 0), "8086:4680", 0x030000, "flr") for slot in (2, 20))
    assert on_same_bus(igpu, (igpu, usb)) == ()


def test_no_list_is_unknown_and_no_reset_is_none() -> None:
    assert effective(Device(CARD), ()) is None
    assert effective(Device(CARD, resettable=False), ()) == ()


@pytest.mark.parametrize(
    ("line", "fatal"),
    [
        ("vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up", True),
        ("vfio-pci 0000:01:00.0: not ready 1023ms after bus reset; waiting", False),
        ("vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible", True),
        ("vfio-pci 0000:01:00.0: Refused to change power state from D0 to D3hot", False),
        ("vfio-pci 0000:01:00.0: vfio_bar_restore: reset recovery - restoring BARs", False),
        ("pci 0000:01:00.0: unknown header type 7f, ignoring device", True),
        ("pcieport 0000:00:01.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer", True),
        ("AMD-Vi: Completion-Wait loop timed out", True),
        ("DMAR: VT-d detected Invalidation Time-out Error: SID 100", True),
        ("kvm: vfio: Unable to power on device, stuck in D3", True),
        ("vfio: Cannot reset device 0000:04:00.0, depends on group 17 which is not owned.", False),
    ],
)
def test_a_line_of_trouble_is_known(line: str, fatal: bool) -> None:
    row = row_for(line)
    assert row is not None
    assert row.fatal is fatal


@pytest.mark.parametrize(
    "line",
    [
        "vfio-pci 0000:01:00.0: enabling device (0000 -> 0003)",
        "vfio-pci 0000:01:00.0: ready 1023ms after FLR",
        "pci 0000:01:00.0: Adding to iommu group 12",
        "pcieport 0000:00:01.0: PCIe Bus Error: severity=Corrected, type=Physical Layer",
    ],
)
def test_an_everyday_line_is_no_trouble(line: str) -> None:
    assert row_for(line) is None


def test_every_row_of_the_log_has_words_and_a_source() -> None:
    assert all(row.what and row.source for row in ROWS)
