"""BARs that the kernel found no room for: only the device itself still says that they are there."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.model.pci import Bar
from pve_passthrough.probe.config_space import read_config

from .test_pci import GPU, NO_WINDOWS, ROOT, function, one

ZERO = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
PLACED = "0x0000000060000000 0x0000000060ffffff 0x0000000000040200\n"
MIB, GIB = 1 << 20, 1 << 30


def config(registers: tuple[int, ...], rebar: tuple[int, int, int] | None = None) -> bytes:
    """4096 bytes of an endpoint with these BAR registers; `rebar` is (BAR, bitmap, power now)."""
    space = bytearray(4096)
    space[0:4] = bytes.fromhex("de108426")
    space[6] = 0x10
    space[0x34] = 0x60
    space[0x60:0x64] = bytes((0x10, 0x00, 0x02, 0x00))
    for index, register in enumerate(registers):
        space[0x10 + 4 * index : 0x14 + 4 * index] = register.to_bytes(4, "little")
    if rebar:
        index, bitmap, power = rebar
        space[0x100:0x104] = (0x0015 | 1 << 16).to_bytes(4, "little")
        space[0x104:0x108] = (bitmap << 4).to_bytes(4, "little")
        space[0x108:0x10C] = (index | 1 << 5 | power << 8).to_bytes(4, "little")
    return bytes(space)


def bars(tmp_path: Path, space: bytes, resource: str) -> tuple[Bar, ...] | None:
    function(tmp_path, f"{ROOT}/{GPU}", None, config=space, resource=resource)
    return one(tmp_path)[0].bars


def test_the_size_of_now_is_in_the_control_register() -> None:
    found = read_config(config((0x0, 0xC), (1, 0x7FC0, 14)))
    assert found.rebar_now == {1: 16 * GIB} and found.rebar[1][-1] == 16 * GIB
    assert found.registers == (0, 0xC, 0, 0, 0, 0)


def test_a_resizable_bar_without_an_address_keeps_its_size(tmp_path: Path) -> None:
    found = bars(tmp_path, config((0x60000000, 0xC), (1, 0x7FC0, 14)), PLACED + ZERO * 6)
    assert found is not None
    placed, lost = found
    assert placed.placed and not lost.placed
    assert (lost.index, lost.size, lost.wide, lost.prefetchable) == (1, 16 * GIB, True, True)
    assert lost.sizes[-1] == 16 * GIB


def test_a_64_bit_bar_without_an_address_has_no_known_size(tmp_path: Path) -> None:
    found = bars(tmp_path, config((0x60000000, 0xC, 0, 0x4)), PLACED + ZERO * 6)
    assert found is not None
    assert [(bar.index, bar.size, bar.placed) for bar in found] == [(0, 16 * MIB, True), (1, 0, False), (3, 0, False)]


@pytest.mark.parametrize(
    ("registers", "resource"),
    [
        ((0, 0, 0, 0, 0, 0), NO_WINDOWS),  # no BARs at all, or 32-bit ones: nobody can tell
        ((0x6000000C, 0x40), NO_WINDOWS),  # a tree whose `resource` was made up
        ((0xC, 0x4, 0), PLACED + ZERO * 6),  # the second register is the first one's upper half
        ((0xE001,), PLACED + ZERO * 6),
    ],
)
def test_what_is_no_proof(tmp_path: Path, registers: tuple[int, ...], resource: str) -> None:
    found = bars(tmp_path, config(registers), resource)
    assert found is not None and all(bar.placed for bar in found)


def test_bridges_have_no_such_registers() -> None:
    space = bytearray(config((0xC, 0xC)))
    space[0x0E] = 1
    assert read_config(bytes(space)).registers == ()


def test_the_kernels_own_mark(tmp_path: Path) -> None:
    """IORESOURCE_UNSET keeps the size and starts at 0."""
    unset = "0x0000000000000000 0x00000003ffffffff 0x000000002014220c\n"
    found = bars(tmp_path, config((0x60000000, 0xC)), PLACED + unset + ZERO * 5)
    assert found is not None and [(bar.size, bar.placed) for bar in found] == [(16 * MIB, True), (16 * GIB, False)]
