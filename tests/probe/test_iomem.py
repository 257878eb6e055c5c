"""Root windows out of /proc/iomem."""

from __future__ import annotations

from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.app import look
from pve_passthrough.host.local import Local
from pve_passthrough.model.facts import RootWindow
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.iomem import parse, probe_root_windows
from tests.lab_tree import complete, lay_out
from tests.shared import SHARED, lab_captures, needs_shared

TEXT = """\
00001000-0009ffff : System RAM
000a0000-000bffff : PCI Bus 0000:00
e0000000-efffffff : Reserved
  e0000000-efffffff : PCI Bus 0000:40
    e0000000-e0ffffff : PCI Bus 0000:41
c0000000-febfffff : PCI Bus 0000:00
  c0000000-c10fffff : PCI Bus 0000:01
    c0000000-c0ffffff : 0000:01:00.0
4000000000-7fffffffff : PCI Bus 0000:00
  6000000000-60ffffffff : PCI Bus 0000:01
10000000000-100ffffffff : PCI Bus 10000:e0
"""


def test_only_the_outermost_windows_count() -> None:
    assert parse(TEXT) == (
        RootWindow(0, 0x00, 0xA0000, 0xBFFFF),
        RootWindow(0, 0x40, 0xE0000000, 0xEFFFFFFF),
        RootWindow(0, 0x00, 0xC0000000, 0xFEBFFFFF),
        RootWindow(0, 0x00, 0x4000000000, 0x7FFFFFFFFF),
        RootWindow(0x10000, 0xE0, 0x10000000000, 0x100FFFFFFFF),
    )


def asked(tmp_path: Path, text: str | None) -> tuple[tuple[RootWindow, ...] | None, list[str]]:
    (tmp_path / "proc").mkdir()
    if text is not None:
        (tmp_path / "proc" / "iomem").write_text(text)
    ask = Asking(Local(str(tmp_path)))
    return probe_root_windows(ask), [gap.about for gap in ask.gaps]


def test_zeros_and_silence_are_no_answer(tmp_path: Path) -> None:
    zeros = "00000000-00000000 : PCI Bus 0000:00\n  00000000-00000000 : PCI Bus 0000:01\n"
    assert asked(tmp_path, zeros) == (None, ["root_windows"])


def test_a_missing_file_is_a_gap(tmp_path: Path) -> None:
    assert asked(tmp_path, None) == (None, ["root_windows"])


@given(st.text(alphabet="0123456789abcdef-: PCIBusx\n", max_size=300))
def test_any_text_is_read_without_harm(text: str) -> None:
    assert all(window.start >= 0 for window in parse(text))


@needs_shared
@pytest.mark.skipif(not (SHARED / "lab").is_dir(), reason="recorded machines of the lab are not there")
def test_recorded_kernels_placed_every_bar_in_a_window(tmp_path: Path) -> None:
    folders = [folder for folder in sorted((lab_captures() / "captures").iterdir()) if complete(folder)][:4]
    assert folders
    for number, folder in enumerate(folders):
        facts = look(Local(str(lay_out(folder, tmp_path / str(number)))), deep=True)
        assert facts.root_windows, folder
        every = [bar for device in facts.devices for bar in device.bars or () if bar.index < 6]
        placed = [bar for bar in every if bar.start and bar.size and not bar.io]
        assert placed, folder
        for bar in placed:
            last = bar.start + bar.size - 1
            assert any(one.start <= bar.start and last <= one.end for one in facts.root_windows), (folder, bar)
