"""Spellings of options that the real parser takes or refuses, with its words (`option-forms-*.txt`)."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_passthrough.host.simulated.pve import COMMANDS
from tests.host.simulated.recorded_node import build
from tests.shared import SHARED, needs_shared

CONFIG = "bios: ovmf\nboot: \nmachine: q35\nmemory: 2048\nname: forms\nostype: l26\n"
NOT_COMPARED = ("--args", "--efidisk0", "--scsi0 'local", "--virtio0 'local-lvm:1'")
"""Forms whose outcome on that node hung on disks that the list does not show."""


def forms(major: int) -> Iterator[tuple[int, list[str], list[str]]]:
    """(exit code, options, what was said) of every form."""
    rc, argv, said = -1, [""], [""]
    for line in (SHARED / "pve" / f"option-forms-{major}.txt").read_text().splitlines():
        if match := re.match(r"\[rc=(\d+)\] qm set (.*)", line):
            if rc >= 0:
                yield rc, argv, said
            rc, argv, said = int(match.group(1)), shlex.split(match.group(2)), []
        elif line.startswith("     ") and not line.startswith("      "):
            said.append(line.strip())
    yield rc, argv, said


@needs_shared
@pytest.mark.parametrize("major", (8, 9))
def test_forms_are_taken_and_refused_and_a_refused_one_changes_nothing(major: int, tmp_path: Path) -> None:
    world = build(tmp_path, SHARED, major)
    path = f"/etc/pve/nodes/{(world.text('/etc/hostname') or '').strip()}/qemu-server/999.conf"
    wrong = []
    count = 0
    for rc, argv, said in forms(major):
        if shlex.join(argv).startswith(NOT_COMPARED):
            continue
        count += 1
        world.put(path, CONFIG)
        ran = COMMANDS["qm"](world, ["qm", "set", "999", *argv], b"")
        got = [line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip()]
        refused = [line for line in said if "showcmd" not in line and not line.startswith(("-", "..."))]
        if ran.rc != rc or (rc and sorted(got) != sorted(line for line in refused if line)):
            wrong.append(f"{argv}: {ran.rc} {got} instead of {rc} {refused}")
        if rc and world.text(path) != CONFIG:
            wrong.append(f"{argv}: refused and yet stored")
    assert count > 80
    assert not wrong, "\n".join(wrong)
