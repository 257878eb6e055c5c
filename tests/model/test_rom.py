"""Option ROMs and VFCT: what the bytes say, and that no bytes can do harm."""

from __future__ import annotations

import gzip
import json
import time
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.host.simulated.option_rom import make, vfct
from pve_passthrough.host.simulated.spec import PciSpec
from pve_passthrough.knowledge.rom_marks import MARKS, Verdict, problems, verdict
from pve_passthrough.model.rom import EFI, LEGACY, MOST_IMAGES, SIZE_LIMIT, Form, Mended, mend, parse, parse_vfct

from ..shared import needs_shared, realhosts

CARD = "10de:2684"
WHOLE = make(CARD, 0x030000)
OLD = make(CARD, 0x030000, kinds=(LEGACY,))
NEW = make(CARD, 0x030000, kinds=(EFI,))
SHADOW = make(CARD, 0x030000, kinds=(LEGACY,), last=False)
CONTAINER = b"NVGI" + bytes(range(252)) * 6 + bytes(20)


def names(data: bytes, wanted: tuple[int, int] | None = None) -> list[str]:
    return [problem.mark.name for problem in problems(parse(data), wanted)]


def word(data: bytes) -> Verdict:
    return verdict(parse(data))


def patched(data: bytes, offset: int, value: bytes) -> bytes:
    return data[:offset] + value + data[offset + len(value) :]


# -- what is right -----------------------------------------------------------------------------------


def test_a_whole_rom_is_told_image_by_image() -> None:
    rom = parse(WHOLE)
    first, second = rom.images
    assert (rom.form, rom.prefix, rom.trailer, rom.uefi, rom.legacy) == (Form.ROM, 0, 0, True, True)
    assert (first.offset, first.code_type, first.vendor, first.device) == (0, LEGACY, 0x10DE, 0x2684)
    assert (first.class_code, first.last, first.checksum, first.efi) == (0x030000, False, True, None)
    assert (second.offset, second.code_type, second.last, second.checksum) == (first.end, EFI, True, None)
    assert second.efi is not None
    assert (second.efi.machine, second.efi.subsystem, second.efi.compressed) == (0x8664, 0x0B, True)
    assert (names(WHOLE), word(WHOLE)) == ([], Verdict.USABLE)


def test_a_video_bios_without_uefi_image_is_for_seabios() -> None:
    assert (names(OLD), word(OLD)) == (["no-uefi"], Verdict.LEGACY_ONLY)


def test_a_uefi_driver_alone_is_usable() -> None:
    assert (names(NEW), word(NEW)) == (["no-legacy"], Verdict.USABLE)


def test_a_sum_counts_for_legacy_images_only() -> None:
    assert names(patched(WHOLE, len(OLD) + 0x100, b"\x01")) == []
    assert names(patched(WHOLE, 0x100, b"\x01")) == ["checksum"]


def test_without_its_bytes_a_sum_says_nothing() -> None:
    spoiled = parse(patched(WHOLE, 0x100, b"\x01"))
    assert problems(spoiled, checksums=False) == ()


@pytest.mark.parametrize("size", [0x5000, 1])
def test_padding_is_no_problem_and_other_bytes_are_told(size: int) -> None:
    assert names(WHOLE + b"\xff" * size) == []
    assert names(WHOLE + bytes(size)) == []
    assert names(WHOLE + b"\x12" * size) == ["trailing"]


def test_a_list_of_devices_counts() -> None:
    data = bytearray(OLD)
    data[0x5C] = 3
    data[0x58:0x5A] = (0x20).to_bytes(2, "little")
    data[0x70:0x76] = b"\x85\x26\x86\x26\x00\x00"
    (image,) = parse(bytes(data)).images
    assert image.devices == (0x2685, 0x2686)
    assert "other-device" not in names(bytes(data), (0x10DE, 0x2686))
    assert "other-device" in names(bytes(data), (0x10DE, 0x2687))


# -- what is wrong -----------------------------------------------------------------------------------

BAD: dict[str, tuple[bytes, str, Verdict]] = {
    "empty": (b"", "empty", Verdict.UNUSABLE),
    "zeros": (bytes(4096), "all-zero", Verdict.UNUSABLE),
    "ones": (b"\xff" * 4096, "all-ones", Verdict.UNUSABLE),
    "too large": (b"\x55\xaa" + bytes(SIZE_LIMIT), "too-large", Verdict.UNUSABLE),
    "text": (b"This is no ROM.\n", "no-rom", Verdict.UNUSABLE),
    "signature alone": (b"\x55\xaa" + bytes(4094), "no-data-structure", Verdict.UNUSABLE),
    "two bytes": (b"\x55\xaa", "no-data-structure", Verdict.UNUSABLE),
    "no length": (patched(OLD, 0x60, b"\0\0"), "no-data-structure", Verdict.UNUSABLE),
    "bare driver": (b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0\x64\x86" + bytes(64), "efi-program", Verdict.UNUSABLE),
    "container": (CONTAINER + WHOLE, "prefix", Verdict.FIXABLE),
    "junk before": (b"junk!" * 7 + WHOLE, "prefix", Verdict.FIXABLE),
    "whole firmware": (bytes(512) + WHOLE + b"\x01" * 512 + NEW, "several", Verdict.UNUSABLE),
    "cut in the first": (WHOLE[:2000], "cut", Verdict.TRUNCATED),
    "cut in the second": (WHOLE[:-1], "cut", Verdict.TRUNCATED),
    "cut between": (WHOLE[: len(OLD)], "unfinished", Verdict.TRUNCATED),
    "shadow copy": (SHADOW, "unfinished", Verdict.TRUNCATED),
    "not the last": (SHADOW + bytes(512), "unfinished", Verdict.TRUNCATED),
    "for arm": (patched(NEW, 0x0A, b"\x64\xaa"), "no-x86", Verdict.UNUSABLE),
    "application": (patched(NEW, 0x08, b"\x0a"), "no-x86", Verdict.UNUSABLE),
    "no EFI signature": (patched(NEW, 0x04, b"\0\0"), "no-x86", Verdict.UNUSABLE),
    "open firmware": (patched(OLD, 0x64, b"\x01"), "no-x86", Verdict.UNUSABLE),
}


@pytest.mark.parametrize("case", BAD)
def test_what_a_guest_has_nothing_from_is_named(case: str) -> None:
    data, name, expected = BAD[case]
    found = problems(parse(data))
    assert found[0].mark.name == name or name in [one.mark.name for one in found]
    assert word(data) is expected
    assert found[0].blocks


def test_the_efi_image_of_another_processor_does_not_harm_beside_the_right_one() -> None:
    arm = patched(NEW, 0x0A, b"\x64\xaa")
    not_last = patched(WHOLE, len(OLD) + 0x1C + 0x15, b"\0")
    rom = parse(not_last + arm)
    assert (len(rom.images), verdict(rom), problems(rom)) == (3, Verdict.USABLE, ())


def test_whose_rom_it_is() -> None:
    other = make("10de:2700", 0x030000, kinds=(EFI,))
    nobody = make("10de:ffff", 0x030000, kinds=(EFI,))
    assert names(WHOLE, (0x10DE, 0x2684)) == []
    assert names(WHOLE, (0x10DE, 0x2700)) == ["other-device"]
    assert names(other, (0x10DE, 0x2684)) == ["no-legacy", "sibling"]
    assert names(other, (0x1002, 0x2700)) == ["other-device", "no-legacy"]
    assert names(nobody, (0x10DE, 0x2684)) == ["no-legacy", "no-device"]
    assert names(OLD + NEW, (0x10DE, 0x2684)) == ["no-uefi", "trailing"]


def test_every_mark_is_used() -> None:
    used = {name for data, _, _ in BAD.values() for name in names(data)}
    used |= {"checksum", "other-device", "sibling", "no-device", "no-uefi", "no-legacy", "trailing"}
    assert used == {mark.name for mark in MARKS}


# -- mending -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("before", [b"", CONTAINER, b"x" * 1000])
@pytest.mark.parametrize("after", [b"", bytes(300), b"\xff" * 4096])
def test_what_does_not_belong_to_it_goes(before: bytes, after: bytes) -> None:
    mended = mend(before + WHOLE + after)
    if before or after:
        assert mended == Mended(WHOLE, len(before), len(after))
    else:
        assert isinstance(mended, str)


def test_bytes_that_may_be_needed_stay() -> None:
    assert mend(CONTAINER + WHOLE + b"signed") == Mended(WHOLE + b"signed", len(CONTAINER), 0)
    assert isinstance(mend(WHOLE + b"signed"), str)


@pytest.mark.parametrize("case", sorted(set(BAD) - {"container", "junk before", "not the last"}))
def test_what_cannot_be_proven_is_left_alone(case: str) -> None:
    data = BAD[case][0]
    mended = mend(data)
    assert isinstance(mended, str) or parse(mended.data).images == parse(data).images


def test_a_mended_file_needs_no_mending() -> None:
    mended = mend(CONTAINER + WHOLE + bytes(512))
    assert isinstance(mended, Mended) and isinstance(mend(mended.data), str)


# -- VFCT ------------------------------------------------------------------------------------------------

APU = PciSpec("0000:15:00.0", "1002:164e", 0x030000, 1)
DISCRETE = PciSpec("0000:03:00.0", "1002:73ff", 0x030000, 2)


def test_the_firmwares_table_gives_a_video_bios_for_each_function() -> None:
    first, second = parse_vfct(vfct([APU, DISCRETE]))
    assert (first.bus, first.device, first.function, first.vendor, first.product) == (0x15, 0, 0, 0x1002, 0x164E)
    assert first.data == make("1002:164e", 0x030000, kinds=(LEGACY,))
    assert second.product == 0x73FF


@pytest.mark.parametrize("cut", [0, 4, 35, 75, 80, 103, 104, 5000])
def test_a_table_that_is_cut_off_gives_nothing(cut: int) -> None:
    assert parse_vfct(vfct([APU])[:cut]) == ()


def test_an_image_that_leaves_the_table_is_not_followed() -> None:
    table = vfct([APU])
    assert parse_vfct(patched(table, 76 + 24, b"\xff\xff\xff\xff")) == ()
    assert parse_vfct(patched(table, 0x34, b"\xff\xff\xff\x7f")) == ()
    assert parse_vfct(patched(table, 0x34, b"\0\0\0\0")) == ()


# -- hostile bytes -----------------------------------------------------------------------------------------

PIECES = st.sampled_from([WHOLE, OLD, NEW, SHADOW, CONTAINER, b"\x55\xaa", b"PCIR", b"MZ", b"NVGI", bytes(512)])
MIXED = st.lists(st.one_of(st.binary(max_size=600), PIECES), max_size=6).map(b"".join)


def in_time(data: bytes, limit: float) -> None:
    before = time.process_time()
    rom = parse(data)
    problems(rom, (0x10DE, 0x2684))
    verdict(rom)
    mend(data)
    parse_vfct(b"VFCT" + data)
    assert time.process_time() - before < limit
    assert all(0 <= image.offset < len(data) for image in rom.images)
    assert rom.prefix + rom.trailer <= rom.size == len(data)


@settings(max_examples=100, deadline=None)
@given(MIXED)
def test_any_bytes_give_a_value(data: bytes) -> None:
    in_time(data, 0.05)


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_a_rom_with_wrong_bytes_gives_a_value(data: Any) -> None:
    spoiled = bytearray(WHOLE)
    for _ in range(data.draw(st.integers(1, 8))):
        spoiled[data.draw(st.integers(0, 0x70) | st.integers(len(OLD), len(OLD) + 0x40))] = data.draw(
            st.integers(0, 255)
        )
    in_time(bytes(spoiled), 0.05)


@pytest.mark.parametrize(
    "data",
    [
        b"\x55\xaa" * (SIZE_LIMIT // 2),
        (b"\x55\xaa" + bytes(22) + b"\x1c\0\0\0PCIR" + bytes(480)) * (SIZE_LIMIT // 512),
        make("10de:0001", 0x030000, kinds=(EFI,), last=False) * (SIZE_LIMIT // 65536),
        b"\x01" + bytes(SIZE_LIMIT - 1),
    ],
    ids=["signatures", "headers without length", "images without end", "nothing"],
)
def test_the_largest_file_is_looked_at_once(data: bytes) -> None:
    in_time(data, 3.0)
    assert len(parse(data).images) <= MOST_IMAGES


# -- recorded ROMs -----------------------------------------------------------------------------------------


def skeletons() -> dict[str, tuple[dict[str, Any], bytes]]:
    found = {}
    for source in sorted(realhosts().glob("share/rom-*/source.json")):
        packed, head = source.with_name("rom.skel.gz"), source.with_name("rom.head")
        data = gzip.decompress(packed.read_bytes()) if packed.exists() else head.read_bytes()
        found[source.parent.name] = (json.loads(source.read_text()), data)
    return found


@needs_shared
def test_recorded_roms_are_told_as_they_were_recorded() -> None:
    cases = skeletons()
    assert len(cases) == 66
    wrong = [name for name, (source, data) in cases.items() if _told(data) != _recorded(source)]
    assert wrong == []


def _recorded(source: dict[str, Any]) -> list[tuple[object, ...]]:
    return [
        (
            one["offset"], one["image_blocks"] * 512, one["code_type"], one["vendor"], one["device"], one["class_code"],
            one["last"], one["in_file"], one.get("efi", {}).get("machine"),
        )
        for one in source["images"]
    ]  # fmt: skip


def _told(data: bytes) -> list[tuple[object, ...]]:
    return [
        (
            one.offset, one.length, one.code_type, f"{one.vendor:04x}", f"{one.device:04x}", f"{one.class_code:06x}",
            one.last, one.complete, f"{one.efi.machine:04x}" if one.efi else None,
        )
        for one in parse(data).images
    ]  # fmt: skip


@needs_shared
def test_recorded_roms_by_property() -> None:
    """Their sums are not judged: between the headers of these files there is nothing."""
    cases = skeletons()
    roms = {name: parse(data) for name, (_, data) in cases.items()}
    found = {name: {one.mark.name for one in problems(rom, checksums=False)} for name, rom in roms.items()}
    verdicts = [verdict(rom) for rom in roms.values()]
    assert {one: verdicts.count(one) for one in Verdict} == {
        Verdict.USABLE: 32, Verdict.LEGACY_ONLY: 27, Verdict.FIXABLE: 4, Verdict.TRUNCATED: 1, Verdict.UNUSABLE: 2,
    }  # fmt: skip
    assert [name for name, (source, _) in cases.items() if source["has_uefi"] != roms[name].uefi] == []
    assert sum(rom.nvidia for rom in roms.values()) == 4
    assert [name for name, marks in found.items() if "all-zero" in marks] == ["rom-fu3coco-dummy-rom"]
    assert [name for name, marks in found.items() if "efi-program" in marks] == ["rom-thieuson1984-amdgopdriver-efi"]
    assert [name for name, rom in roms.items() if rom.unfinished] == ["rom-mendesguii-vbios-original-dump-rtx2060-rom"]
    assert max(len(rom.images) for rom in roms.values()) == 3
    assert sum(any(image.devices for image in rom.images) for rom in roms.values()) == 7


@needs_shared
def test_recorded_efi_images_with_any_sum_are_fine() -> None:
    """Of these files' EFI images many sum to something else than zero, and none is blamed for that."""
    uneven = [
        data
        for source, data in skeletons().values()
        if source["code_types"] == [EFI] and not any(one["checksum_ok"] for one in source["images"])
    ]
    assert len(uneven) == 14
    assert not any("checksum" in names(data) for data in uneven)


@needs_shared
def test_containers_of_recorded_roms_are_taken_off() -> None:
    for name, (source, data) in skeletons().items():
        if "container" in source["verdict"]:
            mended = mend(data)
            assert isinstance(mended, Mended), name
            assert mended.before == source["images"][0]["offset"]
            assert verdict(parse(mended.data)) is Verdict.USABLE


@needs_shared
def test_all_recorded_roms_take_less_than_a_second(capsys: pytest.CaptureFixture[str]) -> None:
    files = [data for _, data in skeletons().values()]
    before = time.process_time()
    for data in files:
        problems(parse(data))
    spent = time.process_time() - before
    with capsys.disabled():
        print(f"\n{len(files)} ROM files: {spent:.3f} s of processor time")
    assert spent < 1.0


def test_the_tool_prints_a_row_for_each_file(tmp_path: Path) -> None:
    import subprocess
    import sys

    (tmp_path / "good.rom").write_bytes(WHOLE)
    (tmp_path / "bad.bin").write_bytes(bytes(100))
    (tmp_path / "packed.rom.gz").write_bytes(gzip.compress(OLD))
    tool = Path(__file__).resolve().parents[2] / "tools" / "roms"
    said = subprocess.run([sys.executable, str(tool), str(tmp_path)], capture_output=True, text=True, check=True).stdout
    assert "good.rom" in said and "usable" in said and "all-zero" in said and "legacy-only" in said
    assert "3 files" in said
