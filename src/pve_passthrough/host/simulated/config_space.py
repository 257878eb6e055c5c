"""The bytes of a simulated function's configuration space.

1. Only what passthrough asks about: header, power management, MSI, MSI-X, PCI Express with FLR and link, ACS,
   resizable BAR.
2. Layout after the kernel's include/uapi/linux/pci_regs.h.
"""

from __future__ import annotations

from .spec import PciSpec

_SPEEDS = {"2.5": 1, "5.0": 2, "8.0": 3, "16.0": 4, "32.0": 5}


def config_bytes(spec: PciSpec, multifunction: bool, starts: dict[int, int]) -> bytes:
    """4096 bytes for PCI Express, 256 for conventional PCI. `starts` are the BARs' addresses by index."""
    space = bytearray(4096 if spec.port is not None else 256)
    vendor, _, device = spec.ids.partition(":")
    _put(space, 0x00, int(vendor, 16), 2)
    _put(space, 0x02, int(device, 16), 2)
    _put(space, 0x04, 0x0006, 2)
    _put(space, 0x06, 0x0010, 2)
    _put(space, 0x08, spec.class_code << 8 | spec.revision, 4)
    bridge = spec.class_code >> 8 == 0x0604
    space[0x0E] = (1 if bridge else 0) | (0x80 if multifunction else 0)
    if not bridge:
        _header_0(space, spec, starts)
    space[0x34] = 0x40
    space[0x40:0x44] = bytes((0x01, 0x50, 0x03, 0x00))
    # PM control/status bit 3 is No_Soft_Reset: without it a move D3hot → D0 resets the function (`pm` in reset_method)
    space[0x44] = 0x00 if "pm" in spec.reset else 0x08
    space[0x50:0x54] = bytes((0x05, 0x60 if spec.port is not None else 0x00, 0x80, 0x00))
    if spec.port is not None:
        _express(space, spec)
        _extended(space, spec)
    return bytes(space)


def _put(space: bytearray, offset: int, value: int, size: int) -> None:
    space[offset : offset + size] = value.to_bytes(size, "little")


def _header_0(space: bytearray, spec: PciSpec, starts: dict[int, int]) -> None:
    for index, _, wide in spec.bars:
        flags = 0x0C if wide else 0x00
        _put(space, 0x10 + 4 * index, starts[index] & 0xFFFFFFF0 | flags, 4)
        if wide:
            _put(space, 0x14 + 4 * index, starts[index] >> 32, 4)
    if spec.subsystem:
        vendor, _, device = spec.subsystem.partition(":")
        _put(space, 0x2C, int(vendor, 16), 2)
        _put(space, 0x2E, int(device, 16), 2)
    space[0x3D] = 1


def _express(space: bytearray, spec: PciSpec) -> None:
    space[0x60:0x62] = bytes((0x10, 0xB0 if spec.msix else 0x00))
    if spec.msix:
        vectors, table_bar, table, pending_bar, pending = spec.msix
        space[0xB0:0xB2] = bytes((0x11, 0x00))
        _put(space, 0xB2, vectors - 1, 2)
        _put(space, 0xB4, table | table_bar, 4)
        _put(space, 0xB8, pending | pending_bar, 4)
    _put(space, 0x62, 2 | (spec.port or 0) << 4, 2)
    _put(space, 0x64, (1 << 28 if spec.flr else 0) | 1 << 15, 4)
    if spec.link:
        speed, top, lanes, most = spec.link
        _put(space, 0x6C, _SPEEDS[top.split()[0]] | most << 4, 4)
        _put(space, 0x72, _SPEEDS[speed.split()[0]] | lanes << 4, 2)


def _extended(space: bytearray, spec: PciSpec) -> None:
    """ACS (0x000d) with all but egress control and direct translation, then resizable BAR (0x0015) for BAR 1 or 0."""
    place = 0x100
    if spec.acs:
        _put(space, place, 0x000D | 1 << 16 | (0x140 << 20 if spec.rebar else 0), 4)
        _put(space, place + 4, 0x001F, 2)
        _put(space, place + 6, 0x001D, 2)
        place = 0x140
    if spec.rebar:
        index, size = next((index, size) for index, size, wide in spec.bars if wide and size >= 1 << 28)
        _put(space, place, 0x0015 | 1 << 16, 4)
        _put(space, place + 4, sum(1 << (one.bit_length() - 21 + 4) for one in spec.rebar), 4)
        _put(space, place + 8, index | 1 << 5 | (size.bit_length() - 21) << 8, 4)
    if spec.serial:
        _serial(space, spec.serial)
    if spec.sriov:
        _append(space, 0x0010, 0x200)


def _append(space: bytearray, capability: int, at: int) -> None:
    """An empty capability as the last of the list, at a place that no other has."""
    last = 0x100
    while following := int.from_bytes(space[last : last + 4], "little") >> 20:
        last = following
    if any(space[last : last + 4]):
        _put(space, last, int.from_bytes(space[last : last + 4], "little") | at << 20, 4)
        last = at
    _put(space, last, capability | 1 << 16, 4)


def _serial(space: bytearray, serial: str) -> None:
    """Device Serial Number (0x0003) as the last capability of the list: the low word first (pci.c, pci_get_dsn)."""
    at = last = 0x100
    while at and any(space[at : at + 4]):
        last, at = at, int.from_bytes(space[at : at + 4], "little") >> 20
    if any(space[last : last + 4]):
        at = 0x180
        _put(space, last, int.from_bytes(space[last : last + 4], "little") | at << 20, 4)
    _put(space, at or last, 0x0003 | 1 << 16, 4)
    space[(at or last) + 4 : (at or last) + 12] = bytes.fromhex(serial.replace("-", ""))[::-1]
