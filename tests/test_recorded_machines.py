"""Every recorded machine through check, devices and plan: no crash, all functions counted, unknown stays unknown."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.errors import Failure
from pve_passthrough.host.local import Local
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.finding import Level, Verdict

from .lab_tree import complete, lay_out
from .shared import SHARED, lab_captures, needs_shared, realhosts

pytestmark = needs_shared


def _trees() -> list[str]:
    if not (SHARED / "realhosts").is_dir():
        return []
    return sorted(folder.name for folder in (realhosts() / "share").glob("sysfs-*"))


def _captures() -> list[str]:
    if not (SHARED / "lab").is_dir():
        return []
    return sorted(folder.name for folder in (lab_captures() / "captures").iterdir())


def _lspci_count(tree: Path) -> int | None:
    if shutil.which("lspci") is None:
        return None
    argv = ["lspci", "-O", f"sysfs.path={tree}/sys/bus/pci", "-Dnn"]
    ran = subprocess.run(argv, capture_output=True, text=True, check=False)
    # It gives up on one tree whose devices have no numbers.
    return len(ran.stdout.splitlines()) if ran.returncode == 0 else None


@pytest.mark.parametrize("name", _trees())
def test_real_machines(name: str) -> None:
    tree = realhosts() / "share" / name / "fsroot"
    facts = _look(tree)
    count = _lspci_count(tree)
    assert len(facts.devices) == (len(list((tree / "sys/bus/pci/devices").iterdir())) if count is None else count)
    _judged_without_guessing(facts)


@pytest.mark.parametrize("name", _captures())
def test_lab_machines(name: str, tmp_path: Path) -> None:
    folder = lab_captures() / "captures" / name
    if not complete(folder):
        pytest.skip(f"{name} holds a serial log and no machine")
    facts = _look(lay_out(folder, tmp_path / "root"))
    listed = [line for line in (folder / "lspci-vmmnnkD.txt").read_text().splitlines() if line.startswith("Slot:")]
    assert len(facts.devices) == len(listed)
    _judged_without_guessing(facts)


def _look(tree: Path) -> Facts:
    facts = app.look(Local(str(tree)), deep=True)
    assert facts.gaps, "a bare tree cannot answer everything"
    return facts


def _judged_without_guessing(facts: Facts) -> None:
    whole = app.judge(facts, (), None)
    assert whole.verdict is not Verdict.READY
    for device in facts.devices:
        if not device.is_display:
            continue
        checked = app.judge(facts, (str(device.address),), None)
        if device.iommu_group is None:
            unknown = {finding.rule for finding in checked.findings if finding.level is Level.UNKNOWN}
            assert any(rule.startswith("groups.") for rule in unknown), checked.findings
            assert checked.verdict in (Verdict.UNKNOWN, Verdict.BLOCKED)
        with pytest.raises(Failure) as refusal:  # a tree has no Proxmox, no guest 100 and no boot loader to plan for
            app.plan_from(facts, (str(device.address),), 100, machine="tree")
        assert refusal.value.problem.message and refusal.value.problem.ref
