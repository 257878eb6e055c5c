"""Configuration space: the parser against made spaces, arbitrary bytes, and lspci's reading of real ones."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.probe.config_space import EXTENDED, HEADER, STANDARD, read_config, sizes_of_bitmap

from ..shared import needs_shared, realhosts
from .lspci_text import Printed, read_lspci

MIB = 1 << 20


def space(length: int = EXTENDED) -> bytearray:
    """A header-type-0 function with a capability list that is empty so far."""
    data = bytearray(length)
    data[0:4] = b"\xde\x10\x84\x26"
    data[6] = 0x10
    data[8] = 0xA1
    return data


def put(data: bytearray, at: int, content: bytes) -> None:
    data[at : at + len(content)] = content


def chained(data: bytearray, *capabilities: tuple[int, bytes]) -> bytearray:
    """Capabilities (offset, id and body without the next pointer) in a list from 0x34."""
    data[0x34] = capabilities[0][0]
    for (at, body), following in zip(capabilities, [*capabilities[1:], (0, b"")], strict=True):
        put(data, at, bytes([body[0], following[0]]) + body[1:])
    return data


def express(port: int, device: int = 0, link: int = 0, status: int = 0, speeds: int = 0, version: int = 2) -> bytes:
    body = bytearray(0x3C)
    body[0] = 0x10
    put(body, 1, (port << 4 | version).to_bytes(2, "little"))
    put(body, 3, device.to_bytes(4, "little"))
    put(body, 11, link.to_bytes(4, "little"))
    put(body, 17, status.to_bytes(2, "little"))
    put(body, 43, speeds.to_bytes(4, "little"))
    return bytes(body)


FLR = 1 << 28


@pytest.mark.parametrize(
    ("words", "serial"),
    [(b"\x01\x00\xff\xff" + b"\xff\x1a\x42\x04", "04-42-1a-ff-ff-ff-00-01"), (bytes(8), ""), (b"\xff" * 8, "")],
)
def test_a_device_serial_number_is_written_as_lspci_does(words: bytes, serial: str) -> None:
    data = chained(space(), (0x60, express(0)))
    put(data, 0x100, (0x000D | 1 << 16 | 0x140 << 20).to_bytes(4, "little"))
    put(data, 0x140, (0x0003 | 1 << 16).to_bytes(4, "little") + words)
    assert read_config(bytes(data)).serial == serial
    assert read_config(bytes(data[:STANDARD])).serial is None, "past byte 256 nobody could look"
    assert read_config(bytes(space(STANDARD))).serial == "", "conventional PCI has none"


def test_a_graphics_card() -> None:
    data = chained(
        space(),
        (0x60, b"\x01" + bytes([3, 0, 0x08, 0])),
        (0x68, b"\x05" + bytes(12)),
        (0x78, express(0, FLR, 16 << 4 | 4, 8 << 4 | 1, speeds=0b11110)),
        (0xB4, b"\x11" + bytes(10)),
    )
    put(data, 0x100, (0x0D | 1 << 16 | 0x140 << 20).to_bytes(4, "little") + (0x005F).to_bytes(2, "little"))
    put(data, 0x140, (0x10 | 1 << 16 | 0x180 << 20).to_bytes(4, "little"))
    put(data, 0x180, (0x15 | 1 << 16).to_bytes(4, "little"))
    put(data, 0x184, (0b111 << 8 << 4).to_bytes(4, "little") + (1 | 1 << 5).to_bytes(4, "little"))
    found = read_config(bytes(data))
    assert found.capabilities is not None
    assert found.link is not None
    assert (found.revision, found.capabilities.express, found.capabilities.acs) == (0xA1, 0, 0x5F)
    assert found.capabilities.flr and found.capabilities.msi and found.capabilities.msix
    assert found.capabilities.sriov and found.capabilities.rebar and found.capabilities.extended
    assert not found.capabilities.pm_reset, "No_Soft_Reset is set"
    assert (found.link.speed, found.link.width, found.link.max_speed, found.link.max_width) == (2.5, 8, 16.0, 16)
    assert found.rebar == {1: (256 * MIB, 512 * MIB, 1024 * MIB)}


def test_power_management_without_no_soft_reset_resets() -> None:
    found = read_config(bytes(chained(space(STANDARD), (0x60, b"\x01" + bytes(6)))))
    assert found.capabilities is not None and found.capabilities.pm_reset


@pytest.mark.parametrize(("bits", "expected"), [(0b11, True), (0b10, False), (0b01, False)])
def test_advanced_features_reset_needs_both_bits(bits: int, expected: bool) -> None:
    found = read_config(bytes(chained(space(STANDARD), (0x60, b"\x13" + bytes([6, bits, 0, 0])))))
    assert found.capabilities is not None and found.capabilities.flr is expected


def test_no_capability_bit_means_no_list() -> None:
    data = chained(space(STANDARD), (0x60, b"\x05" + bytes(4)))
    data[6] = 0
    found = read_config(bytes(data))
    assert found.capabilities is not None and not found.capabilities.msi


def test_integrated_endpoints_have_no_link() -> None:
    found = read_config(bytes(chained(space(), (0x60, express(9, FLR)))))
    assert found.capabilities is not None and found.capabilities.express == 9
    assert found.link is None


def test_speed_of_a_version_1_capability_comes_from_the_link_capability() -> None:
    found = read_config(bytes(chained(space(), (0x60, express(0, link=1 << 4 | 2, speeds=0b11110, version=1)))))
    assert found.link is not None and found.link.max_speed == 5.0


def test_cardbus_bridges_keep_their_list_elsewhere() -> None:
    data = space(STANDARD)
    data[0x0E], data[0x14] = 2, 0xA0
    put(data, 0xA0, b"\x01\x00")
    found = read_config(bytes(data))
    assert found.capabilities is not None and found.capabilities.pm_reset


def test_a_list_that_bites_its_tail_ends() -> None:
    data = space(STANDARD)
    data[0x34] = 0x60
    put(data, 0x60, b"\x09\x70")
    put(data, 0x70, b"\x05\x60")
    found = read_config(bytes(data))
    assert found.capabilities is not None and found.capabilities.msi


def test_an_extended_list_that_bites_its_tail_ends() -> None:
    data = space()
    put(data, 0x100, (0x01 | 1 << 16 | 0x100 << 20).to_bytes(4, "little"))
    assert read_config(bytes(data)).capabilities is not None


@pytest.mark.parametrize("length", [0, 1, HEADER - 1])
def test_less_than_a_header_says_nothing(length: int) -> None:
    found = read_config(bytes(space())[:length])
    assert (found.answering, found.capabilities, found.revision) == (False, None, None)


@pytest.mark.parametrize("length", [HEADER, STANDARD - 1])
def test_a_header_alone_says_nothing_about_capabilities(length: int) -> None:
    found = read_config(bytes(space())[:length])
    assert (found.answering, found.capabilities, found.revision, found.length) == (True, None, 0xA1, length)


def test_a_truncated_extended_space_is_not_called_readable() -> None:
    found = read_config(bytes(space())[:1024])
    assert found.capabilities is not None and not found.capabilities.extended


@pytest.mark.parametrize("length", [HEADER, STANDARD, EXTENDED])
def test_a_function_that_does_not_answer(length: int) -> None:
    found = read_config(b"\xff" * length)
    assert not found.answering and found.capabilities is None


def test_a_virtual_function_answers_although_its_ids_read_ff() -> None:
    data = chained(space(), (0x60, express(0, FLR)))
    data[0:4] = b"\xff\xff\xff\xff"
    found = read_config(bytes(data))
    assert found.capabilities is not None and found.capabilities.flr


def test_sizes_of_a_bitmap() -> None:
    assert sizes_of_bitmap(0) == ()
    assert sizes_of_bitmap(0b1001) == (MIB, 8 * MIB)


@settings(max_examples=150, deadline=None)
@given(st.binary(max_size=700), st.sampled_from([HEADER, STANDARD, 300, EXTENDED, 5000]), st.booleans())
def test_any_bytes_end_in_a_value(noise: bytes, length: int, listed: bool) -> None:
    """Neither an exception nor an endless walk, whatever the device says; the answer stays within the types' limits."""
    data = bytearray((noise * (length // (len(noise) or 1) + 1))[:length])
    if listed and len(data) > 0x34:
        data[6] |= 0x10
    found = read_config(bytes(data))
    assert found.length == min(len(data), EXTENDED)
    if found.capabilities is not None:
        assert found.length >= STANDARD
        assert found.capabilities.express is None or 0 <= found.capabilities.express < 16
        assert found.capabilities.acs is None or found.length > STANDARD
    assert all(0 <= bar < 6 for bar in found.rebar)


def recorded() -> list[tuple[str, bytes, Printed]]:
    """Every recorded configuration space of 256 bytes and more, beside what lspci reads out of it."""
    found = []
    for tree in sorted((realhosts() / "share").glob("sysfs-*/fsroot/sys/bus/pci")):
        configs = {file.parent.name: file.read_bytes() for file in (tree / "devices").glob("*/config")}
        if not any(len(data) >= STANDARD for data in configs.values()):
            continue
        printed = read_lspci(lspci(tree, "-nvv"))
        found += [
            (f"{tree.parts[-5]} {name}", data, printed[name])
            for name, data in configs.items()
            if name in printed and len(data) >= STANDARD
        ]
    return found


def lspci(tree: Path, *options: str) -> str:
    command = ["lspci", "-O", f"sysfs.path={tree}", "-D", *options]
    return subprocess.run(command, capture_output=True, text=True, errors="replace", timeout=60, check=False).stdout


@needs_shared
@pytest.mark.skipif(shutil.which("lspci") is None, reason="lspci is not installed")
def test_real_spaces_read_as_lspci_reads_them() -> None:
    seen = {"flr": 0, "acs": 0, "rebar": 0, "link": 0, "all": 0}
    for place, data, printed in recorded():
        found = read_config(data)
        if found.capabilities is None:
            assert data.count(0xFF) >= HEADER, place
            continue
        capabilities = found.capabilities
        assert capabilities.flr == bool(printed.flr or printed.af_flr), place
        assert capabilities.acs == printed.acs, place
        assert capabilities.pm_reset == (printed.no_soft_reset is False), place
        assert capabilities.msi == any(name.startswith("MSI:") for name in printed.names), place
        assert capabilities.msix == any(name.startswith("MSI-X:") for name in printed.names), place
        assert capabilities.sriov == any("(SR-IOV)" in name for name in printed.names), place
        assert dict(found.rebar) == printed.rebar, place
        if found.link is not None and printed.now is not None and printed.best is not None:
            assert (found.link.speed, found.link.width) == printed.now, place
            assert (found.link.max_speed, found.link.max_width) == printed.best, place
        seen["all"] += 1
        seen["flr"] += capabilities.flr
        seen["acs"] += capabilities.acs is not None
        seen["rebar"] += bool(found.rebar)
        seen["link"] += found.link is not None and printed.now is not None
    assert min(seen.values()) > 0, f"the recordings no longer show each kind: {seen}"
