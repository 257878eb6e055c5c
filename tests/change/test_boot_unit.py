"""The unit that goes on after a reboot: there while it is needed, and only then."""

from __future__ import annotations

from pve_passthrough.change import MARKER, boot_unit
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
    assert "Before=pve-guests.service" in lines
    assert any(line.startswith("After=") and "pve-cluster.service" in line for line in lines)
