"""Builds that are known for a fault: only where the trouble fits."""

from __future__ import annotations

import pytest

from pve_passthrough.diagnosis import Material, diagnose
from pve_passthrough.diagnosis.builds import faulty
from pve_passthrough.knowledge.causes import CAUSES
from pve_passthrough.knowledge.regressions import REGRESSIONS, regressions

DENIED = "vfio 0000:00:02.1: error getting device from group 22: Permission denied"


def names(text: str) -> set[str]:
    return {one.sign for one in faulty((("symptom", text),), (), ())}


def test_rows_are_whole() -> None:
    codes = {cause.code for cause in CAUSES}
    assert len({row.id for row in REGRESSIONS}) == len(REGRESSIONS)
    for row in REGRESSIONS:
        assert row.first <= row.last and row.source and row.fits
        assert {cause for cause, _ in row.points} <= codes


@pytest.mark.parametrize(
    ("program", "number", "text", "found"),
    [
        ("kernel", (6, 8, 12, 12), "6.8.12-12-pve", {"build.vf-permission-6.8"}),
        ("kernel", (6, 8, 12, 11), "6.8.12-11-pve", set()),
        ("kernel", (6, 8, 12, 13), "6.8.12-13-pve", set()),
        ("kernel", (6, 8, 12, 12), "6.8.12-12-generic", set()),
        ("kernel", (6, 14, 2), "6.14.2-arch1", {"build.reset-6.14.2"}),
        ("kernel", (6, 14, 2, 1), "6.14.2-1-pve", {"build.reset-6.14.2"}),
        ("kernel", (6, 14, 3), "6.14.3", set()),
        ("qemu", (10, 1, 1, 2), "10.1.1-2", {"build.qemu-10.1-vfio", "build.qemu-10.1-igd"}),
        ("qemu", (10, 1, 2, 1), "10.1.2-1", {"build.qemu-10.1-igd"}),
    ],
)
def test_a_version_finds_its_rows(program: str, number: tuple[int, ...], text: str, found: set[str]) -> None:
    rows = {row.id for row in regressions(program, number, text)}
    assert rows - {"build.vendor-reset-order", "build.vgpu-unlock-6.8"} == found


def test_a_version_alone_is_no_evidence() -> None:
    assert names("I run 6.8.12-12-pve.") == set()
    assert "build.vf-permission-6.8" in names(f"I run 6.8.12-12-pve. {DENIED}")


def test_a_version_that_works_is_not_the_faulty_one() -> None:
    assert names(f"It worked with 6.8.12-12-pve. {DENIED}") == set()


def test_the_version_may_stand_in_another_material() -> None:
    log = b"[    0.000000] Linux version 6.14.8-1-pve (build@proxmox) #1 SMP\n"
    asked = diagnose([Material("dmesg.txt", (log,))], f"The guest does not start. {DENIED}")
    assert asked.first.cause == "kernel-regression"
    assert any("6.14.8-2" in one.text for one in asked.first.supporting)


def test_amdgpu_in_the_build_that_oopses() -> None:
    words = "After the update to kernel 7.0.14-2-pve the start of my VM hangs, amdgpu shows a NULL pointer in dmesg."
    assert diagnose((), words).first.cause == "kernel-regression"
    assert "build.amdgpu-unbind" not in names(words.replace("7.0.14-2", "7.0.14-4"))
