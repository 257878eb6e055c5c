"""Devices whose Address Translation Services do not work, as rows: the kernel switches ATS off for them.

1. The kernel's list names single revisions and boards; others of the same chip may be affected or not, so a row is a
   hint, never a proof.
2. Source of all rows: kernel, drivers/pci/quirks.c, quirk_amd_harvest_no_ats and quirk_intel_e2000_no_ats.
"""

from __future__ import annotations

from ..model.value import dataclass

_AMD, _INTEL = 0x1002, 0x8086


@dataclass(frozen=True, slots=True)
class AtsRow:
    """`revisions`: those that the kernel names; empty: all, or chosen by the board."""

    vendor: int
    products: frozenset[int]
    name: str
    revisions: frozenset[int] = frozenset()


ROWS: tuple[AtsRow, ...] = (
    AtsRow(_AMD, frozenset({0x98E4}), "Stoney graphics"),
    AtsRow(_AMD, frozenset({0x6900}), "Iceland"),
    AtsRow(_AMD, frozenset({0x7312}), "Navi 10", frozenset({0x00})),
    AtsRow(_AMD, frozenset({0x7340}), "Navi 14", frozenset({0xC5})),
    AtsRow(_AMD, frozenset({0x7341}), "Navi 14", frozenset({0x00})),
    AtsRow(_AMD, frozenset({0x7347, 0x734F}), "Navi 14"),
    AtsRow(_AMD, frozenset({0x15D8}), "Raven graphics"),
    AtsRow(
        _INTEL, frozenset({0x1451, 0x1452, 0x1453, 0x1454, 0x1455, 0x1457, 0x1459, 0x145A, 0x145C}), "IPU E2000",
        frozenset(range(0x20)),
    ),
)  # fmt: skip


def ats_row(vendor: int | None, product: int | None) -> AtsRow | None:
    """The row of a chip, whatever its revision."""
    return next((row for row in ROWS if row.vendor == vendor and product in row.products), None)
