"""The initramfs script's lines that resize BARs, run by real POSIX shells over a made-up sysfs."""

from __future__ import annotations

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.model.pci import Address
from pve_passthrough.planning import claim_script
from pve_passthrough.planning.proof import Unprovable

SHELLS = [words for words in (["dash"], ["busybox", "sh"], ["bash", "--posix"]) if shutil.which(words[0])]
CARD = Address.parse("03:00.0")
GIB = 1 << 30
NONE = "0x0000000000000000 0x0000000000000000 0x0000000000000000\n"
SMALL = "0x0000004000000000 0x000000400fffffff 0x000000000014220c\n"
LARGE = "0x0000004200000000 0x00000043ffffffff 0x000000000014220c\n"


def sysfs(root: Path, rows: str, ids: str = "1002:73ff", bar: int = 0) -> Path:
    device = root / "devices" / str(CARD)
    device.mkdir(parents=True)
    vendor, _, product = ids.partition(":")
    files = {"vendor": f"0x{vendor}\n", "device": f"0x{product}\n", "resource": rows, f"resource{bar}_resize": "3f00\n"}
    for name, text in files.items():
        (device / name).write_text(text)
    return device


def run(shell: list[str], root: Path, sizes: claim_script.Sizes) -> subprocess.CompletedProcess[str]:
    text = claim_script.render({}, sizes)
    assert text is not None
    script = root / "script"
    script.write_text(text.replace("/sys/bus/pci", str(root)).replace("/dev/kmsg", str(root / "kmsg")))
    return subprocess.run(
        [shutil.which(shell[0]) or shell[0], *shell[1:], str(script)],
        env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_another_size_is_written_as_its_power_of_two(shell: list[str], tmp_path: Path) -> None:
    device = sysfs(tmp_path, SMALL)
    ran = run(shell, tmp_path, {(CARD, 0): ("1002:73ff", 8 * GIB)})
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (device / "resource0_resize").read_text() == "13\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_the_right_size_and_another_card_are_left_alone(shell: list[str], tmp_path: Path) -> None:
    device = sysfs(tmp_path, NONE + LARGE, bar=1)
    assert run(shell, tmp_path, {(CARD, 1): ("1002:73ff", 8 * GIB)}).returncode == 0
    assert (device / "resource1_resize").read_text() == "3f00\n", "it has this size"
    assert run(shell, tmp_path, {(CARD, 1): ("10de:2684", 4 * GIB)}).returncode == 0
    assert (device / "resource1_resize").read_text() == "3f00\n", "another card sits there"
    assert run(shell, tmp_path, {(CARD, 1): ("1002:73ff", 4 * GIB)}).returncode == 0
    assert (device / "resource1_resize").read_text() == "12\n", "this one was meant"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_nothing_stops_the_boot(shell: list[str], tmp_path: Path) -> None:
    """No device; no resource; an attribute that cannot be written; a resource file of rubbish."""
    wanted = {(CARD, 0): ("1002:73ff", 8 * GIB), (CARD, 1): ("1002:73ff", 4 * GIB)}
    assert run(shell, tmp_path, wanted).returncode == 0
    device = sysfs(tmp_path, NONE + SMALL, bar=1)
    (device / "resource0_resize").mkdir()
    ran = run(shell, tmp_path, wanted)
    assert (ran.returncode, ran.stderr) == (0, "")
    assert (tmp_path / "kmsg").read_text() == f"pve-passthrough: BAR 0 of {CARD} keeps its size\n"
    assert (device / "resource1_resize").read_text() == "12\n", "the next line is tried all the same"
    (device / "resource").unlink()
    assert run(shell, tmp_path, wanted).returncode == 0


def test_claims_and_sizes_keep_each_other() -> None:
    first = claim_script.edit(None, {CARD: "1002:73ff"})
    assert first is not None and "resize" not in first
    both = claim_script.edit(first, {}, {(CARD, 0): ("1002:73ff", 8 * GIB)})
    assert claim_script.claims_of(both) == {CARD: "1002:73ff"}
    assert claim_script.sizes_of(both) == {(CARD, 0): ("1002:73ff", 8 * GIB)}
    later = claim_script.edit(both, {Address.parse("01:00.0"): "10de:2684"})
    assert claim_script.sizes_of(later) == claim_script.sizes_of(both)
    assert claim_script.edit(both, {}, {(CARD, 0): ("1002:73ff", 8 * GIB)}) is both


def test_a_foreign_script_is_not_read() -> None:
    with pytest.raises(Unprovable):
        claim_script.sizes_of("#!/bin/sh\nresize 0000:03:00.0 1002:73ff 0 13\n")
    with pytest.raises(Unprovable):
        claim_script.edit("#!/bin/sh\n", {}, {(CARD, 0): ("1002:73ff", 8 * GIB)})


ADDRESSES = st.builds(Address, st.integers(0, 0xFFFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
SIZES = st.tuples(
    st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True), st.integers(20, 63).map(lambda power: 1 << power)
)


@settings(max_examples=50)
@given(st.dictionaries(st.tuples(ADDRESSES, st.integers(0, 5)), SIZES, min_size=1, max_size=5))
def test_what_is_written_is_read_again(sizes: dict[tuple[Address, int], tuple[str, int]]) -> None:
    assert claim_script.sizes_of(claim_script.render({}, sizes)) == sizes


def test_the_script_is_sound_shell(tmp_path: Path) -> None:
    text = claim_script.render({CARD: "1002:73ff"}, {(CARD, 0): ("1002:73ff", GIB)})
    assert text is not None and max(map(len, text.split("\n"))) <= 120
    for shell in SHELLS:
        (tmp_path / "script").write_text(text)
        program = shutil.which(shell[0]) or shell[0]
        subprocess.run([program, *shell[1:], "-n", str(tmp_path / "script")], env=dict(os.environ), check=True)
