"""The initramfs script, run by a real POSIX shell over a made-up sysfs."""

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
CARD = {Address.parse("01:00.0"): "10de:2684", Address.parse("01:00.1"): "10de:22ba"}


def sysfs(root: Path, address: str, vendor: str, product: str) -> Path:
    device = root / "devices" / address
    device.mkdir(parents=True)
    for name, text in (("vendor", f"{vendor}\n"), ("device", f"{product}\n"), ("driver_override", "(null)\n")):
        (device / name).write_text(text)
    return device


def run(shell: list[str], root: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Run the script with `root` in the place of /sys/bus/pci, without any program to call."""
    text = claim_script.render(CARD)
    assert text is not None
    assert "/sys/bus/pci" in text
    script = root / "script"
    script.write_text(text.replace("/sys/bus/pci", str(root)))
    program = shutil.which(shell[0]) or shell[0]
    return subprocess.run(
        [program, *shell[1:], str(script), *arguments],
        env={"PATH": "/nonexistent"}, capture_output=True, text=True, check=False,
    )  # fmt: skip


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_only_the_expected_device_is_claimed(shell: list[str], tmp_path: Path) -> None:
    right = sysfs(tmp_path, "0000:01:00.0", "0x10de", "0x2684")
    wrong = sysfs(tmp_path, "0000:01:00.1", "0x8086", "0x22ba")
    other = sysfs(tmp_path, "0000:02:00.0", "0x10de", "0x2684")
    ran = run(shell, tmp_path)
    assert (ran.returncode, ran.stdout, ran.stderr) == (0, "", "")
    assert (right / "driver_override").read_text() == "vfio-pci\n"
    assert (wrong / "driver_override").read_text() == "(null)\n"
    assert (other / "driver_override").read_text() == "(null)\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_nothing_stops_the_boot(shell: list[str], tmp_path: Path) -> None:
    """No device at all; a device without attributes; an attribute that is a directory; an empty one."""
    assert run(shell, tmp_path).returncode == 0
    (tmp_path / "devices" / "0000:01:00.0").mkdir(parents=True)
    assert run(shell, tmp_path).returncode == 0
    (tmp_path / "devices" / "0000:01:00.0" / "driver_override").mkdir()
    (tmp_path / "devices" / "0000:01:00.0" / "vendor").write_text("")
    (tmp_path / "devices" / "0000:01:00.0" / "device").write_text("0x2684")
    second = sysfs(tmp_path, "0000:01:00.1", "0x10de", "0x22ba")
    assert run(shell, tmp_path).returncode == 0
    assert (second / "driver_override").read_text() == "vfio-pci\n"


@pytest.mark.parametrize("shell", SHELLS, ids=lambda words: words[0])
def test_asked_for_its_prerequisites_it_names_none_and_does_nothing(shell: list[str], tmp_path: Path) -> None:
    device = sysfs(tmp_path, "0000:01:00.0", "0x10de", "0x2684")
    ran = run(shell, tmp_path, "prereqs")
    assert (ran.returncode, ran.stdout.strip()) == (0, "")
    assert (device / "driver_override").read_text() == "(null)\n"


@pytest.mark.skipif(shutil.which("tsort") is None, reason="tsort is not installed")
def test_it_runs_before_udev() -> None:
    """initramfs-tools feeds `name name` pairs to tsort and runs the scripts in the order that comes out."""
    names = ["udev", "keymap", "blacklist", "pve-passthrough", "all_generic_ide", "plymouth"]
    pairs = "".join(f"{name} {name}\n" for name in sorted(names))
    order = subprocess.run(["tsort"], input=pairs, capture_output=True, text=True, check=True).stdout.split()
    assert order.index("pve-passthrough") < order.index("udev")


def test_a_foreign_script_of_the_same_name_is_refused() -> None:
    with pytest.raises(Unprovable):
        claim_script.edit("#!/bin/sh\nexit 0\n", CARD)


def test_nothing_claimed_is_no_script() -> None:
    assert claim_script.render({}) is None


def test_addresses_of_wide_domains_and_unreadable_ones() -> None:
    wide = {Address.parse("10000:e1:00.0"): "8086:0b60"}
    text = claim_script.edit(None, wide)
    assert claim_script.claims_of(text) == wide
    with pytest.raises(Unprovable):
        claim_script.claims_of((text or "").replace("10000:e1:00.0", "10000:e1:00.9"))


ADDRESSES = st.builds(Address, st.integers(0, 0x1FFFF), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7))
CLAIMS = st.dictionaries(ADDRESSES, st.from_regex(r"[0-9a-f]{4}:[0-9a-f]{4}", fullmatch=True), max_size=5)


@settings(max_examples=50, deadline=None)
@given(CLAIMS, CLAIMS)
def test_earlier_claims_stay(first: dict[Address, str], second: dict[Address, str]) -> None:
    text = claim_script.edit(claim_script.edit(None, first), second)
    assert claim_script.claims_of(text) == {**first, **second}
    assert claim_script.edit(text, second) == text


def test_a_write_that_fails_does_not_stop_the_boot(tmp_path: Path) -> None:
    """Here: a write to a full device."""
    if not os.path.exists("/dev/full"):
        pytest.skip("no /dev/full")
    device = sysfs(tmp_path, "0000:01:00.0", "0x10de", "0x2684")
    (device / "driver_override").unlink()
    (device / "driver_override").symlink_to("/dev/full")
    assert run(SHELLS[0], tmp_path).returncode == 0
