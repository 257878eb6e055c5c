"""Rows about cards and what a guest needs for them: complete, sourced, and in agreement with each other."""

from __future__ import annotations

import os
import re
import subprocess
from pathlib import Path

import pytest

from pve_passthrough.knowledge.compute_cards import (
    AMD,
    COMPUTE_CARDS,
    GENERATIONS,
    INTEL,
    NVIDIA,
    compute_card,
    nvidia_generation,
)
from pve_passthrough.knowledge.error43 import HIDING, hiding_rows
from pve_passthrough.knowledge.guest_drivers import (
    AGENT,
    AI,
    CHECKS,
    CUDA_TOOLKIT,
    LACKS,
    OSES,
    PACKAGES,
    SYSTEMS,
    USES,
    family,
    rows_for,
    system,
    toolkit_compiles,
)
from pve_passthrough.knowledge.guestconfig import CPU_OPTIONS, HV_VENDOR_ID

PCI_IDS = Path("/usr/share/misc/pci.ids")


# -- generations and cards ---------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("product", "name"),
    [
        (0x17FD, "Maxwell"), (0x13F2, "Maxwell"), (0x1B38, "Pascal"), (0x15F8, "Pascal"), (0x172E, "Pascal"),
        (0x1DB4, "Volta"), (0x1EB8, "Turing"), (0x2187, "Turing"), (0x20B5, "Ampere"), (0x2235, "Ampere"),
        (0x2330, "Hopper"), (0x26B9, "Ada"), (0x27B8, "Ada"), (0x2901, "Blackwell"), (0x2B85, "Blackwell"),
        (0x102D, "Kepler"),
    ],
)  # fmt: skip
def test_the_number_tells_the_generation(product: int, name: str) -> None:
    generation = nvidia_generation(product)
    assert generation is not None and generation.name == name


@pytest.mark.parametrize("product", [0x22BA, 0x10F0, 0x1AD8, 0x22A3, 0x1AF1, 0x0622, 0x15C3])
def test_sound_usb_switches_and_old_chips_have_none(product: int) -> None:
    assert nvidia_generation(product) is None


def test_blocks_do_not_overlap() -> None:
    numbers = [
        number
        for row in GENERATIONS
        for low, high in row.chips
        for number in range(low, high + 1)
        if row.name not in ("Maxwell",)
    ]
    assert len(numbers) == len(set(numbers))


CODES = {
    "GK": "Kepler", "GM": "Maxwell", "GP": "Pascal", "GV": "Volta", "TU": "Turing", "GA": "Ampere", "GH": "Hopper",
    "AD": "Ada", "GB": "Blackwell",
}  # fmt: skip


def nvidia_names() -> list[tuple[int, str]]:
    found: list[tuple[int, str]] = []
    ours = False
    for line in PCI_IDS.read_text(errors="replace").split("\n"):
        if re.match(r"[0-9a-f]{4} ", line):
            ours = line.startswith("10de")
        elif ours and (match := re.match(r"\t([0-9a-f]{4})\s+(.*)", line)):
            found.append((int(match.group(1), 16), match.group(2)))
    return found


@pytest.mark.skipif(not PCI_IDS.is_file(), reason=f"there is no {PCI_IDS}")
def test_the_installed_list_of_names_agrees_with_the_blocks() -> None:
    chips = 0
    for product, name in nvidia_names():
        code = re.match(r"(GM|GP|GV|TU|GA|GH|AD|GB)\d", name)
        if code is None or re.search("Audio|USB|UCSI|Type-C|Switch|SMBus", name):
            continue
        generation = nvidia_generation(product)
        assert generation is not None and generation.name == CODES[code.group(1)], f"{product:04x} {name}"
        chips += 1
    assert chips > 300


_MODEL = re.compile(r"[A-Z]*\d+(?!\d|GB)")
"""`P40`, `A100`, and the 6000 of `RTX PRO 6000`; not how much memory it has."""


@pytest.mark.skipif(not PCI_IDS.is_file(), reason=f"there is no {PCI_IDS}")
def test_the_installed_list_of_names_agrees_with_the_cards() -> None:
    """Where Debian's list has a name in brackets, one of the row's words is in it."""
    names = dict(nvidia_names())
    known = 0
    for row in (row for row in COMPUTE_CARDS if row.vendor == NVIDIA):
        words = set(_MODEL.findall(row.name))
        for product in row.products:
            shown = re.search(r"\[(.*)\]", names.get(product, ""))
            if shown and not shown.group(1).startswith("PG"):
                known += 1
                assert (
                    words & set(_MODEL.findall(shown.group(1)))
                    or "A800" in shown.group(1)
                    or ("H800" in shown.group(1))
                ), f"{product:04x}: {row.name} is {shown.group(1)}"
    assert known > 40


def test_each_card_is_in_one_row_and_each_row_has_a_source() -> None:
    seen: set[tuple[int, int]] = set()
    for row in COMPUTE_CARDS:
        ids = {(row.vendor, product) for product in row.products}
        assert ids and not ids & seen and row.source
        seen |= ids
    for row in COMPUTE_CARDS:
        if row.vendor == NVIDIA:
            assert all(nvidia_generation(product) for product in row.products), row.name


def test_the_cards_that_people_buy_are_there() -> None:
    wanted = "17fd 13f2 1bb3 1b38 15f8 1db4 1eb8 25b6 2236 2235 27b8 26b9 20b5 2331 2335"
    assert all(compute_card(NVIDIA, int(word, 16)) for word in wanted.split())
    assert compute_card(AMD, 0x740F) and compute_card(INTEL, 0x56C0)
    assert compute_card(NVIDIA, 0x2684) is None and compute_card(None, 1) is None


# -- what a guest needs ------------------------------------------------------------------------------


def test_every_family_has_a_driver_or_a_reason_on_every_system() -> None:
    for name in CHECKS:
        for os_name in OSES:
            for use in USES:
                lacking = any(
                    name in row.families and os_name in row.oses and (not row.uses or use in row.uses) for row in LACKS
                )
                rows = rows_for(name, os_name, use)
                assert lacking or any(row.modules and not row.uses for row in rows), (name, os_name, use)


def test_every_row_has_a_source_and_plain_names() -> None:
    for row in PACKAGES:
        assert row.source and row.names and set(row.oses) <= set(OSES) and set(row.uses) <= set(USES)
        assert all(re.fullmatch(r"[a-z0-9$][a-z0-9.+$-]+", name) for name in row.names)
    assert all(row.source and row.maker for row in LACKS)


def test_flavours_follow_the_generation_and_the_system() -> None:
    ubuntu, debian = system("ubuntu-24.04"), system("debian-13")
    pascal, ada, blackwell = (nvidia_generation(product) for product in (0x1B38, 0x2684, 0x2B85))
    assert family(NVIDIA, pascal, ubuntu, beside_old=False) == "nvidia-proprietary"
    assert family(NVIDIA, ada, ubuntu, beside_old=False) == "nvidia-open"
    assert family(NVIDIA, ada, ubuntu, beside_old=True) == "nvidia-proprietary"
    assert family(NVIDIA, ada, debian, beside_old=False) == "nvidia-proprietary"
    assert family(NVIDIA, blackwell, debian, beside_old=False) == "nvidia-open"
    assert family(NVIDIA, None, ubuntu, beside_old=False) is None
    assert family(0x144D, None, ubuntu, beside_old=False) is None


def test_the_toolkit_goes_by_version() -> None:
    pascal, blackwell = nvidia_generation(0x1B38), nvidia_generation(0x2B85)
    assert pascal and blackwell
    assert [toolkit_compiles(row, pascal) for row in SYSTEMS] == [True] * 4
    assert [toolkit_compiles(row, blackwell) for row in SYSTEMS] == [False] * 4


LISTS = os.environ.get("PVE_PASSTHROUGH_PACKAGE_LISTS", "")
SUITES = {"jammy": "ubuntu-22.04", "noble": "ubuntu-24.04", "bookworm": "debian-12", "trixie": "debian-13"}


@pytest.mark.skipif(not LISTS, reason="PVE_PASSTHROUGH_PACKAGE_LISTS names no folder of apt package lists")
def test_every_package_is_in_its_systems_archive() -> None:
    """The folder holds /var/lib/apt/lists of the four systems, all components, backports left out."""
    have: dict[str, set[str]] = {name: set() for name in OSES}
    for file in Path(LISTS).rglob("*_Packages*"):
        suite = next((suite for suite in SUITES if f"_{suite}" in file.name), None)
        if suite and "backports" not in file.name:
            text = subprocess.run(["/usr/lib/apt/apt-helper", "cat-file", str(file)], check=True, capture_output=True)
            have[SUITES[suite]] |= set(re.findall(r"^Package: (\S+)", text.stdout.decode(), re.M))
    wanted = {
        (os_name, name.replace("$kernel", suffix))
        for row in PACKAGES
        for os_name in row.oses
        for name in row.names
        for _, suffix in system(os_name).kernels
    }
    wanted |= {(f"{row.id}-{row.version}", name) for row in SYSTEMS for name in (row.desktop, CUDA_TOOLKIT, AGENT)}
    assert all(have.values()), "the folder lacks a system"
    assert [one for one in sorted(wanted) if one[1] not in have[one[0]]] == []


# -- hiding the hypervisor ---------------------------------------------------------------------------


def test_every_word_is_one_that_proxmox_takes() -> None:
    for row in HIDING:
        assert row.source and row.cost
        for word in row.cpu:
            key, _, value = word.partition("=")
            assert key in CPU_OPTIONS
            assert key != "hv-vendor-id" or HV_VENDOR_ID.fullmatch(value)
        assert "args" not in " ".join(row.cpu)


@pytest.mark.parametrize(
    ("vendor", "product", "windows", "below"),
    [
        (NVIDIA, 0x1B81, True, [465]),
        (NVIDIA, 0x1B81, False, [465]),
        (NVIDIA, 0x2684, True, []),  # Ada: no driver is old enough
        (NVIDIA, 0x2B85, False, []),
        (INTEL, 0x56A0, True, [None]),
        (INTEL, 0x56A0, False, []),
        (AMD, 0x747E, True, [None]),
        (AMD, 0x747E, False, []),
        (AMD, 0x73BF, True, []),
        (None, None, True, []),
    ],
)
def test_who_may_need_hiding_and_up_to_which_driver(
    vendor: int | None, product: int | None, windows: bool, below: list[int | None]
) -> None:
    assert [row.below for row in hiding_rows(vendor, product, windows=windows)] == below


def test_reports_of_users_are_not_certain() -> None:
    assert [row.certain for row in hiding_rows(INTEL, 0x56A0, windows=True)] == [False]
    assert AI in USES
