"""Names: the search in pci.ids against a plain reading of the same list, and what stands in for it."""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from pve_passthrough.host.local import Local
from pve_passthrough.knowledge.pci_names import PRODUCTS
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.names import LISTS, Names, shortened

LIST = b"""# a comment
0001  First Maker, Inc.
\t00aa  Thing A
\t\t0002 00bb  Branded B of somebody
\t00ac  Thing C \xe2\x84\xa2
# a remark inside
\t00ad  Thing D
0002  Second [Two]
\t00bb  Thing \x1b[31mB
000g  broken line
ffff  Last
C 03  Display controller
\t00  VGA compatible controller
"""


@pytest.mark.parametrize(
    ("vendor", "product", "maker", "name"),
    [
        (1, 0xAA, "First Maker", "First Maker Thing A"),
        (1, 0xAC, "First Maker", "First Maker Thing C ™"),
        (1, 0xAD, "First Maker", "First Maker Thing D"),
        (1, 0xBB, "First Maker", "First Maker 0001:00bb"),
        (2, 0xBB, "Two", "Two Thing [31mB"),
        (2, 0xAA, "Two", "Two 0002:00aa"),
        (0xFFFF, 0, "Last", "Last ffff:0000"),
        (3, 4, "", "0003:0004"),
    ],
)
def test_lookup(vendor: int, product: int, maker: str, name: str) -> None:
    names = Names(LIST)
    assert names.lookup(vendor, product) == (maker, name)
    assert names.lookup(vendor, product) == (maker, name), "and again, out of what is remembered"


def test_unknown_numbers_have_no_name() -> None:
    assert Names(LIST).lookup(None, 1) == ("", "")
    assert Names(LIST).lookup(1, None) == ("First Maker", "")


def test_a_list_without_a_last_newline() -> None:
    assert Names(b"0001  Maker\n\t0002  Thing").lookup(1, 2) == ("Maker", "Maker Thing")


def test_the_supplement_speaks_where_the_list_is_silent() -> None:
    assert Names(b"10de  NVIDIA Corporation\n").lookup(0x10DE, 0x2B85)[1] == "NVIDIA GB202 [GeForce RTX 5090]"
    assert Names(b"10de  NVIDIA Corporation\n\t2b85  Mine\n").lookup(0x10DE, 0x2B85)[1] == "NVIDIA Mine"
    assert Names().lookup(0x10DE, 0x2B85) == ("NVIDIA", "NVIDIA GB202 [GeForce RTX 5090]")


def test_the_supplement_is_well_formed() -> None:
    for (vendor, product), name in PRODUCTS.items():
        assert 0 < vendor <= 0xFFFF and 0 <= product <= 0xFFFF
        assert name.isprintable() and name == name.strip() and name


@pytest.mark.parametrize(
    ("long", "short"),
    [
        ("NVIDIA Corporation", "NVIDIA"),
        ("Advanced Micro Devices, Inc. [AMD/ATI]", "AMD/ATI"),
        ("Red Hat, Inc.", "Red Hat"),
        ("Realtek Semiconductor Co., Ltd.", "Realtek Semiconductor"),
        ("Samsung Electronics Co Ltd", "Samsung Electronics Co Ltd"),
        (" Corporation", " Corporation"),
        ("Odd []", "Odd []"),
        ("", ""),
    ],
)
def test_shortened(long: str, short: str) -> None:
    assert shortened(long) == short


@pytest.mark.parametrize("path", LISTS)
def test_the_hosts_own_list_comes_first(tmp_path: Path, path: str) -> None:
    file = tmp_path / path.lstrip("/")
    file.parent.mkdir(parents=True)
    file.write_bytes(LIST)
    ask = Asking(Local(str(tmp_path)))
    assert Names.load(ask, b"0001  Other\n").lookup(1, 0xAA)[1] == "First Maker Thing A"
    assert ask.gaps == ()


def test_without_a_list_the_fallback_speaks_and_without_both_there_is_a_gap(tmp_path: Path) -> None:
    helped, alone = Asking(Local(str(tmp_path))), Asking(Local(str(tmp_path)))
    assert Names.load(helped, b"0001  Other\n").lookup(1, 2)[0] == "Other"
    assert helped.gaps == ()
    assert Names.load(alone).lookup(1, 2) == ("", "0001:0002")
    assert [gap.about for gap in alone.gaps] == ["pci.names"]


def plainly(text: str) -> dict[tuple[int, int], str]:
    """The whole list, read line by line."""
    found: dict[tuple[int, int], str] = {}
    vendor = -1
    for line in text.splitlines():
        if line.startswith("C "):
            break
        if line[:1] not in ("\t", "#", ""):
            vendor = int(line[:4], 16)
        elif line.startswith("\t") and not line.startswith("\t\t"):
            found[vendor, int(line[1:5], 16)] = line[7:].strip()
    return found


@pytest.mark.skipif(not any(Path(path).exists() for path in LISTS), reason="no pci.ids on this machine")
def test_a_real_list_reads_as_when_read_plainly() -> None:
    data = next(Path(path) for path in LISTS if Path(path).exists()).read_bytes()
    whole = plainly(data.decode("utf-8", "replace"))
    names = Names(data)
    sample = random.Random(7).sample(sorted(whole), 400)
    for vendor, product in sample:
        maker, name = names.lookup(vendor, product)
        assert name == f"{maker} {whole[vendor, product]}".strip()
