"""Rows about devices name devices and sources; MSI-X tables are judged as QEMU judges them."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.knowledge import device_classes as known
from pve_passthrough.model.pci import Address, Bar, Capabilities, Device, MsixLayout

TABLES = (known.DENYLIST, known.NO_INTX, known.OPTION_ROMS, known.MSIX, known.ACCELERATORS)
CARD = Device(Address(0, 4, 0, 0), 0x8086, 0x1521, 0x020000)


def with_table(layout: MsixLayout, *bars: Bar) -> Device:
    return replace(CARD, capabilities=Capabilities(msix=True, msix_layout=layout), bars=bars)


def test_no_two_rows_of_a_table_name_the_same_board() -> None:
    for rows in TABLES:
        seen = [(row.vendor, product, row.subsystems) for row in rows for product in row.products]
        assert len(seen) == len(set(seen))
        assert all(row.source and row.text and row.text[-1] not in "." for row in rows)


def test_a_row_for_one_board_is_silent_about_the_chip_elsewhere() -> None:
    array = replace(CARD, vendor=0x103C, product=0x323B, subsystem_vendor=0x103C, subsystem_product=0x3350)
    assert known.row_of(known.OPTION_ROMS, array)
    assert known.row_of(known.OPTION_ROMS, replace(array, subsystem_product=0x3351)) is None


@pytest.mark.parametrize(
    ("layout", "words"),
    [
        (MsixLayout(16, 0, 0x2000, 0, 0x3000), ""),
        (MsixLayout(16, 0, 0x2000, 0, 0x2100), ""),  # side by side, to the byte
        (MsixLayout(17, 0, 0x2000, 0, 0x2100), "overlap"),
        (MsixLayout(65, 0, 0x2000, 0, 0x1FF8), "overlap"),  # two words of pending bits
        (MsixLayout(64, 0, 0x2000, 0, 0x1FF8), ""),
        (MsixLayout(16, 0, 0x2000, 2, 0x2000), "pending bits end"),
        (MsixLayout(16, 0, 0x3F80, 0, 0x0), "table end"),
        (MsixLayout(16, 0, 0x3F00, 0, 0x0), ""),
        (MsixLayout(16, 5, 0x9000, 5, 0xA000), ""),  # a BAR that nobody could read is not judged
    ],
)
def test_which_tables_qemu_refuses(layout: MsixLayout, words: str) -> None:
    fault = known.msix_fault(with_table(layout, Bar(0, 0x1000, 0x4000, wide=True), Bar(2, 0x9000, 0x1000)))
    assert words in fault if words else fault == ""


@pytest.mark.parametrize(
    ("bars", "first"),
    [
        ((Bar(0, 1, 0x4000, wide=True),), 2),
        ((Bar(0, 1, 0x4000, wide=True), Bar(2, 1, 0x100, io=True)), 3),
        ((Bar(1, 1, 0x4000, wide=True),), 0),
        ((Bar(0, 1, 1 << 31), Bar(1, 1, 16, wide=True), Bar(3, 1, 16, wide=True), Bar(5, 1, 16, io=True)), 1),
    ],
)
def test_where_a_table_can_go(bars: tuple[Bar, ...], first: int) -> None:
    able = known.relocation_targets(bars)
    assert able[0] == first
    assert not {bar.index for bar in bars if bar.io}.intersection(able)
    assert not {bar.index + 1 for bar in bars if bar.wide}.intersection(able)
