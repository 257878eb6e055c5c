"""Steps that look at a lab host through the program and hold it against lspci and sysfs."""

from __future__ import annotations

from .. import answers
from ..answers import Answers
from ..lab import program
from ..machine import Machine
from ..stand_in import VMID

_UNIT = "pve-passthrough-resume.service"


def boot_unit_waits(machine: Machine) -> None:
    """Enabled by the package; at boot systemd looked at its condition and did not start it."""
    said = machine.run(
        "/usr/bin/systemctl", "show", "-p", "UnitFileState,ActiveState,ConditionResult,FragmentPath", _UNIT
    )
    state = dict(line.split("=", 1) for line in said.out.split())
    assert state["UnitFileState"] == "enabled", state
    assert state["ActiveState"] == "inactive", state
    assert state["ConditionResult"] == "no", state
    assert state["FragmentPath"].endswith(f"/lib/systemd/system/{_UNIT}"), state


def inventory_agrees(machine: Machine) -> Answers:
    """`devices` lists what lspci lists, with the kernel's own drivers and groups; the kernel's answers."""
    kernel = answers.kernel(machine)
    rows = program(machine, "devices", "--output-format", "json").data["devices"]
    listed = {row["address"]: row for row in rows}
    spoken = machine.shell("lspci -Dn | cut -d' ' -f1,3").split()
    lspci = dict(zip(spoken[::2], spoken[1::2], strict=True))
    ids = {address: f"{row['vendor']}:{row['product']}".replace("0x", "") for address, row in listed.items()}
    assert ids == lspci, f"{ids} is not {lspci}"
    for address, function in kernel.functions.items():
        row = listed[address]
        assert (row["driver"] or "") == function.driver, f"{address}: {row['driver']} is {function.driver}"
        group = "" if row["iommu_group"] == -1 else str(row["iommu_group"])  # -1: none, None: unknown
        assert group == function.group, f"{address}: group {group} is {function.group}"
    return kernel


def check_blocks(machine: Machine, rule: str) -> None:
    """`check` has a finding of this rule that blocks."""
    found = program(machine, "check", "--output-format", "json").data["findings"]
    levels = {finding["level"] for finding in found if finding["rule"] == rule}
    assert "BLOCKS" in {level.upper() for level in levels}, f"{rule}: {levels or 'no finding'}"


def refused(machine: Machine, address: str, use: str) -> None:
    """A plan for what the host itself needs is refused, names the use, and nothing accepts it."""
    ended = program(machine, "plan", address, "--vm", str(VMID))
    assert ended.rc == 7, f"exit {ended.rc}: {ended.out}{ended.err}"
    assert ended.says("Nothing was changed", use), ended.out + ended.err
    assert not ended.says("--accept"), f"it can be accepted: {ended.err}"


def finding_names(machine: Machine, address: str, family: str, stranger: str) -> None:
    """`check ADDRESS` has a finding of that family of rules that names another function."""
    found = program(machine, "check", address, "--output-format", "json").data["findings"]
    for finding in found:
        words = " ".join([finding["message"], *finding["evidence"]])
        if finding["rule"].startswith(family) and stranger in words:
            return
    raise AssertionError(f"nothing of {family} names {stranger}: {[(f['rule'], f['message']) for f in found]}")
