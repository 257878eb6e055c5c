"""PCI configuration space: bytes in, capabilities out.

1. Pure: no host, no gaps, no exceptions for any bytes; a broken device or a forged capture may have written them.
2. Both lists are walked with a bound, so that a loop or a pointer into nothing ends the walk and not the program.
3. What was not readable is None or absent, never "no": 64 bytes are all that the kernel shows to other users than root
   (drivers/pci/pci-sysfs.c, pci_read_config).
4. Offsets and bits are those of the kernel's include/uapi/linux/pci_regs.h.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from struct import Struct

from ..model.pci import Capabilities, Link, MsixLayout
from ..model.value import dataclass

HEADER = 64
STANDARD = 256
EXTENDED = 4096

_CAP_PM, _CAP_MSI, _CAP_EXPRESS, _CAP_MSIX, _CAP_AF = 0x01, 0x05, 0x10, 0x11, 0x13
_EXT_SERIAL, _EXT_ACS, _EXT_ATS, _EXT_SRIOV, _EXT_REBAR = 0x0003, 0x000D, 0x000F, 0x0010, 0x0015
_ATS_CONTROL, _ATS_ENABLE = 6, 0x8000
"""Source: kernel, include/uapi/linux/pci_regs.h, PCI_ATS_CTRL and PCI_ATS_CTRL_ENABLE."""
_CARDBUS = 2
_SPEEDS = (None, 2.5, 5.0, 8.0, 16.0, 32.0, 64.0)
"""GT/s by the speed codes of the link registers (PCI_EXP_LNKCAP_SLS_*)."""
_NO_LINK = frozenset({9, 10})
"""Root complex integrated endpoints and event collectors have no link registers (drivers/pci/access.c)."""
_MEBIBYTE_BIT = 20
_REBAR_BARS = 6

_WORD = Struct("<H").unpack_from
_DWORD = Struct("<I").unpack_from


@dataclass(frozen=True, slots=True)
class ConfigSpace:
    """What the bytes say.

    answering       False: every byte of the header is FF, as reads of a device in D3cold or gone return
    capabilities    None when fewer than 256 bytes were readable or the device did not answer
    rebar           sizes in bytes by BAR index, from the resizable-BAR capability
    rebar_now       the size that each of these has now
    registers       the six BAR registers of a header of type 0; empty for bridges
    serial          as lspci writes it; empty: none; None: the extended space was not readable
    """

    length: int
    answering: bool = False
    revision: int | None = None
    capabilities: Capabilities | None = None
    link: Link | None = None
    rebar: Mapping[int, tuple[int, ...]] = field(default_factory=dict)
    rebar_now: Mapping[int, int] = field(default_factory=dict)
    registers: tuple[int, ...] = ()
    serial: str | None = None


def read_config(data: bytes) -> ConfigSpace:
    """Read a configuration space of any length, 0 to 4096 bytes; more is ignored."""
    data = data[:EXTENDED]
    length = len(data)
    if length < HEADER or data[:HEADER].count(0xFF) == HEADER:
        return ConfigSpace(length)
    if length < STANDARD:
        return ConfigSpace(length, True, data[8])
    standard = _standard(data)
    extended = _extended(data)
    express = standard.get(_CAP_EXPRESS)
    rebar, rebar_now = _rebar(data, extended[_EXT_REBAR]) if _EXT_REBAR in extended else ({}, {})
    capabilities = Capabilities(
        express=None if express is None else data[express + 2] >> 4,
        flr=_flr(data, standard),
        pm_reset=_pm_reset(data, standard),
        acs=_WORD(data, extended[_EXT_ACS] + 4)[0] if _EXT_ACS in extended else None,
        sriov=_EXT_SRIOV in extended,
        ats=bool(_WORD(data, extended[_EXT_ATS] + _ATS_CONTROL)[0] & _ATS_ENABLE) if _EXT_ATS in extended else None,
        rebar=_EXT_REBAR in extended,
        extended=length == EXTENDED and data[STANDARD : STANDARD + 4] != b"\xff\xff\xff\xff",
        msi=_CAP_MSI in standard,
        msix=_CAP_MSIX in standard,
        msix_layout=_msix(data, standard),
    )
    registers = () if data[0x0E] & 0x7F else tuple(_DWORD(data, 0x10 + 4 * index)[0] for index in range(_REBAR_BARS))
    serial = _serial(data, extended) if capabilities.extended else ("" if express is None else None)
    return ConfigSpace(length, True, data[8], capabilities, _link(data, express), rebar, rebar_now, registers, serial)


def _standard(data: bytes) -> dict[int, int]:
    """Offset by id of each capability in the first 256 bytes; the first of a kind counts, as in the kernel's search."""
    found: dict[int, int] = {}
    if not data[6] & 0x10:
        return found
    at = data[0x14 if data[0x0E] & 0x7F == _CARDBUS else 0x34] & 0xFC
    seen: set[int] = set()
    while at >= HEADER and at not in seen:
        seen.add(at)
        kind = data[at]
        if kind == 0xFF:
            break
        if at + _NEEDED.get(kind, 2) <= STANDARD:
            found.setdefault(kind, at)
        at = data[at + 1] & 0xFC
    return found


_NEEDED = {_CAP_PM: 6, _CAP_EXPRESS: 0x14, _CAP_AF: 4, _CAP_MSIX: 12}
"""Bytes of a capability that are read below; one that sticks out of the space is not believed."""


def _extended(data: bytes) -> dict[int, int]:
    """Offset by id of each capability from byte 256 on. A zero header ends the list; an empty list starts with one."""
    found: dict[int, int] = {}
    at = STANDARD
    seen: set[int] = set()
    while STANDARD <= at <= len(data) - 8 and at not in seen:
        seen.add(at)
        header: int = _DWORD(data, at)[0]
        if header in {0, 0xFFFFFFFF}:
            break
        found.setdefault(header & 0xFFFF, at)
        at = header >> 20 & 0xFFC
    return found


def _flr(data: bytes, standard: Mapping[int, int]) -> bool:
    """Function level reset, as the kernel believes it: PCIe DevCap bit 28, or both TP and FLR of Advanced Features
    (drivers/pci/pci.c, pcie_reset_flr and pci_af_flr)."""
    express = standard.get(_CAP_EXPRESS)
    if express is not None and data[express + 7] & 0x10:
        return True
    features = standard.get(_CAP_AF)
    return features is not None and data[features + 3] & 0x03 == 0x03


def _pm_reset(data: bytes, standard: Mapping[int, int]) -> bool:
    """Going to D3hot and back resets the function: power management without No_Soft_Reset (pci.c, pci_pm_reset)."""
    power = standard.get(_CAP_PM)
    return power is not None and not data[power + 4] & 0x08


def _msix(data: bytes, standard: Mapping[int, int]) -> MsixLayout | None:
    """Message control bits 10:0 are the number of vectors less one; the table's and the pending bits' words have the
    BAR in bits 2:0 and the offset above (PCI_MSIX_FLAGS_QSIZE, PCI_MSIX_TABLE, PCI_MSIX_PBA)."""
    at = standard.get(_CAP_MSIX)
    if at is None:
        return None
    table, pending = _DWORD(data, at + 4)[0], _DWORD(data, at + 8)[0]
    vectors = (_WORD(data, at + 2)[0] & 0x7FF) + 1
    return MsixLayout(vectors, table & 7, table & ~7, pending & 7, pending & ~7)


def _link(data: bytes, express: int | None) -> Link | None:
    """Link speed and width now and at most; None for conventional PCI and for functions without a link."""
    if express is None or data[express + 2] >> 4 in _NO_LINK:
        return None
    (able,) = _DWORD(data, express + 0x0C)
    (now,) = _WORD(data, express + 0x12)
    best = _speed(able & 0x0F)
    if data[express + 2] & 0x0F >= 2 and express + 0x30 <= STANDARD:
        # LnkCap2 lists each speed; LnkCap alone cannot (pci.c, pcie_get_speed_cap).
        (speeds,) = _DWORD(data, express + 0x2C)
        best = _speed((speeds >> 1 & 0x7F).bit_length()) or best
    return Link(_speed(now & 0x0F), now >> 4 & 0x3F, best, able >> 4 & 0x3F)


def _speed(code: int) -> float | None:
    return _SPEEDS[code] if code < len(_SPEEDS) else None


def _rebar(data: bytes, at: int) -> tuple[dict[int, tuple[int, ...]], dict[int, int]]:
    """Sizes by BAR, and the size now: pairs of a capability register (bit 4 is 1 MiB) and a control register (bits 2:0
    the BAR, bits 13:8 the size as a power of two from 1 MiB, in the first one bits 7:5 the number of pairs)."""
    found: dict[int, tuple[int, ...]] = {}
    now: dict[int, int] = {}
    if at + 12 > len(data):
        return found, now
    pairs = min(_DWORD(data, at + 8)[0] >> 5 & 0x07, _REBAR_BARS)
    for offset in range(at + 4, at + 4 + 8 * pairs, 8):
        if offset + 8 > len(data):
            break
        control = _DWORD(data, offset + 4)[0]
        index = control & 0x07
        if index < _REBAR_BARS:
            found[index] = sizes_of_bitmap(_DWORD(data, offset)[0] >> 4)
            now[index] = 1 << (control >> 8 & 0x3F) + _MEBIBYTE_BIT
    return found, now


def _serial(data: bytes, extended: Mapping[int, int]) -> str:
    """Device Serial Number: the low word at offset 4, the high one at 8 (drivers/pci/pci.c, pci_get_dsn); written from
    the high byte down as lspci does. All zeros or all ones name nothing."""
    at = extended.get(_EXT_SERIAL)
    if at is None or at + 12 > len(data):
        return ""
    number = data[at + 4 : at + 12][::-1]
    return "" if number in (bytes(8), b"\xff" * 8) else number.hex("-")


def sizes_of_bitmap(bitmap: int) -> tuple[int, ...]:
    """Bytes by bit: bit n stands for 2^(n+20), as in resourceN_resize (Documentation/ABI/testing/sysfs-bus-pci)."""
    return tuple(1 << bit + _MEBIBYTE_BIT for bit in range(bitmap.bit_length()) if bitmap >> bit & 1)
