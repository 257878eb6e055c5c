"""The unit that goes on after a reboot: there while it is needed, and only then."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest

from pve_passthrough.change import MARKER, boot_unit
from pve_passthrough.errors import Failure
from pve_passthrough.host.local import run_program
from tests.hosts.memory import Memory


def _machine() -> Memory:
    memory = Memory()
    memory.directories.add("/etc/systemd/system")
    return memory


def test_it_comes_and_goes_without_a_trace() -> None:
    memory = _machine()
    before = memory.lasting()
    boot_unit.install(memory, "/usr/bin/pve-passthrough")
    boot_unit.install(memory, "/usr/bin/pve-passthrough")
    assert memory.enabled == {boot_unit.NAME}
    assert b"ExecStart=/usr/bin/pve-passthrough resume" in memory.disk[boot_unit.PATH]
    boot_unit.remove(memory)
    boot_unit.remove(memory)
    assert memory.lasting() == before


def test_a_packaged_unit_is_enabled_and_left_alone() -> None:
    memory = _machine()
    memory.disk[boot_unit.PACKAGED] = b"[Unit]\n"
    boot_unit.install(memory, "/x")
    assert boot_unit.PATH not in memory.disk
    boot_unit.remove(memory)
    assert memory.enabled == {boot_unit.NAME}


def test_it_starts_only_for_an_unfinished_run_and_before_any_guest() -> None:
    lines = boot_unit.unit_text("/x").splitlines()
    assert f"ConditionPathExists={MARKER}" in lines
    before = next(line for line in lines if line.startswith("Before="))
    assert "pve-guests.service" in before and "pve-ha-lrm.service" in before  # the second starts guests under HA
    assert any(line.startswith("After=") and "pve-cluster.service" in line for line in lines)


def test_a_path_with_blanks_and_percent_signs_is_one_word() -> None:
    text = boot_unit.unit_text("/srv/my tools/100%/pve-passthrough")
    assert 'ExecStart="/srv/my tools/100%%/pve-passthrough" resume --boot' in text.splitlines()


@pytest.mark.skipif(shutil.which("systemd-analyze") is None, reason="systemd-analyze is not here")
def test_systemd_takes_the_unit(tmp_path: Path) -> None:
    program = tmp_path / "my tools 100%h" / "pve-passthrough"
    program.parent.mkdir()
    program.write_text("#!/bin/sh\n")
    program.chmod(0o755)
    unit = tmp_path / boot_unit.NAME
    unit.write_text(boot_unit.unit_text(str(program)))
    ran = run_program(["systemd-analyze", "verify", "--man=no", str(unit)], b"", 30.0)
    assert ran.rc == 0, ran.stderr


@pytest.mark.parametrize("program", ["/a\nExecStart=/bin/sh", "/it's/x", '/a"b', "/a\\b", "/\udcff"])
def test_a_path_that_no_unit_can_hold_is_refused(program: str) -> None:
    memory = _machine()
    before = memory.lasting()
    with pytest.raises(Failure, match="cannot stand in a unit"):
        boot_unit.install(memory, program)
    assert memory.lasting() == before
