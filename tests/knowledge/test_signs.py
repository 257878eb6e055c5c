"""The catalogue of lines: every row is what it says it is, and none speaks where another should."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Mapping
from fnmatch import fnmatchcase

import pytest
import yaml

from pve_passthrough.diagnosis import Material, diagnose
from pve_passthrough.diagnosis.lines import clean
from pve_passthrough.knowledge.causes import CAUSES
from pve_passthrough.knowledge.signs import SIGNS, Sign

from ..shared import SHARED, needs_shared

CODES = {row.code for row in CAUSES}
IDS = [sign.id for sign in SIGNS]
AREAS = {name.split(".")[0] for name in IDS}

TOGETHER: Mapping[str, frozenset[str]] = {
    "driver.vfio-bug": frozenset({"trace.reset-3"}),
}
"""Samples that two rows are meant to match."""
CONTEXT = ("device.amd-*", "given.*")
"""Rows that only say which card it is; they stand beside any other."""


def told_apart(one: Sign, other: Sign) -> bool:
    """Whether a log's side decides between the two, or one of them only says which card it is."""
    sides = {one.where, other.where}
    return sides == {"host", "guest"} or any(
        fnmatchcase(row.id, pattern) for row in (one, other) for pattern in CONTEXT
    )


def matching(line: str) -> set[str]:
    return {sign.id for sign in SIGNS if sign.needle in line and sign.pattern.search(line)}


def by_id(sign: Sign) -> str:
    return sign.id


def test_every_row_has_a_name_of_its_own() -> None:
    assert [name for name, count in Counter(IDS).items() if count > 1] == []


@pytest.mark.parametrize("sign", SIGNS, ids=by_id)
def test_a_row_matches_its_own_sample_and_no_other_row_does(sign: Sign) -> None:
    matched = matching(sign.sample)
    assert sign.id in matched
    others = {other.id for other in SIGNS if other.id in matched and other is not sign and not told_apart(sign, other)}
    assert others <= TOGETHER.get(sign.id, frozenset())


@pytest.mark.parametrize("sign", SIGNS, ids=by_id)
def test_a_needle_stands_in_the_sample_and_can_be_looked_for(sign: Sign) -> None:
    assert sign.needle in sign.sample
    assert len(re.sub("[0-9a-f]", "", sign.needle)) >= 2, "lines are sorted by what is no hexadecimal digit"


@pytest.mark.parametrize("sign", SIGNS, ids=by_id)
def test_points_are_for_causes_that_exist_and_within_bounds(sign: Sign) -> None:
    for points in (sign.points, *(points for _, points in sign.when)):
        for cause, weight in points:
            assert cause in CODES
            assert -6 <= weight <= 6 and weight != 0


@pytest.mark.parametrize("sign", SIGNS, ids=by_id)
def test_other_signs_that_a_row_names_exist(sign: Sign) -> None:
    conditions = [word.removeprefix("!") for words, _ in sign.when for word in words]
    asked = [word for word in conditions if not word.startswith(("times:", "said."))]
    for pattern in (*sign.follows, *asked):
        found = any(fnmatchcase(name, pattern) for name in IDS)
        assert found or pattern.split(".")[0] not in AREAS, pattern


def test_no_row_follows_only_itself() -> None:
    for sign in SIGNS:
        assert not any(fnmatchcase(sign.id, pattern) and "*" not in pattern for pattern in sign.follows), sign.id


def test_a_row_names_its_source_and_says_a_sentence() -> None:
    for sign in SIGNS:
        assert sign.source, sign.id
        assert sign.says.rstrip("\"'").endswith((".", "!")), sign.id
        assert sign.harmless or sign.points or not sign.when, sign.id


def test_harmless_rows_have_no_points_and_no_reasons() -> None:
    for sign in SIGNS:
        assert not sign.harmless or (not sign.points and not sign.follows and not sign.when), sign.id


# -- lines that people paste, and what each may mean ------------------------------------------------------------------

ACCEPTED: Mapping[str, frozenset[str]] = {
    "I04": frozenset({"iommu-off"}),
    "I05": frozenset({"iommu-off", "iommu-firmware"}),
    "I09": frozenset({"no-interrupt-remapping"}),
    "I10": frozenset({"no-interrupt-remapping"}),
    "I11": frozenset({"iommu-firmware"}),
    "I12": frozenset({"reset-defective", "firmware-defect", "amd-reset-bug"}),
    "I13": frozenset({"ats-broken", "reset-defective"}),
    "A06": frozenset({"iommu-firmware", "no-interrupt-remapping"}),
    "A07": frozenset({"ats-broken", "reset-defective", "amd-reset-bug"}),
    "A08": frozenset({"ats-broken", "reset-defective", "amd-reset-bug"}),
    "A09": frozenset({"ats-broken", "reset-defective"}),
    "A10": frozenset({"iommu-firmware", "firmware-defect"}),
    "V01": frozenset({"no-interrupt-remapping"}),
    "V02": frozenset({"reserved-region"}),
    "V05": frozenset({"boot-framebuffer"}),
    "V07": frozenset({"bad-modprobe"}),
    "V08": frozenset({"bad-modprobe"}),
    "V11": frozenset({"reset-defective"}),
    "V12": frozenset({"host-driver-busy"}),
    "V13": frozenset({"sriov-setup"}),
    "V14": frozenset({"sriov-setup"}),
    "V15": frozenset({"memory-pinning"}),
    "V16": frozenset({"igd-legacy"}),
    "D01": frozenset({"reset-defective"}),
    "D02": frozenset({"power-state"}),
    "D03": frozenset({"power-state"}),
    "D04": frozenset({"reset-defective"}),
    "D05": frozenset({"vendor-reset-method"}),
    "D08": frozenset({"amd-reset-bug"}),
    "D09": frozenset({"rom-invalid"}),
    "D10": frozenset({"rom-invalid"}),
    "D11": frozenset({"reset-defective"}),
    "D12": frozenset({"reset-defective"}),
    "D13": frozenset({"reset-defective", "power-state"}),
    "D14": frozenset({"sriov-setup"}),
    "D15": frozenset({"sriov-setup"}),
    "D16": frozenset({"firmware-defect", "guest-address-space"}),
    "D17": frozenset({"host-driver-busy"}),
    "D18": frozenset({"host-driver-busy"}),
}
"""Lines of the host's kernel that mean trouble, by their number in the list of symptoms, and the causes that fit."""
SILENT = (
    *("I01", "I02", "I03", "I06", "I07", "I08", "I14", "I15", "A01", "A02", "A03", "A04", "A05"),
    *("V03", "V04", "V06", "V09", "V10", "D06", "D07", "D19", "D20", "D21", "D22"),
)
"""Lines of the same list that stand in the logs of machines that work: known, and no cause by themselves."""


def leading(line: str) -> str:
    words = clean(line.encode()).text
    log = f"[    0.000000] Command line: quiet\n[   10.000000] {words}\n"
    return diagnose([Material("kernel.log", (log.encode(),))]).first.cause


@pytest.fixture(scope="module")
def symptoms() -> dict[str, str]:
    rows = yaml.safe_load((SHARED / "symptoms.yaml").read_text())
    return {row["id"]: row["sample"] for row in rows}


@needs_shared
@pytest.mark.parametrize("number", ACCEPTED)
def test_a_line_of_the_list_leads_to_a_cause_that_fits(number: str, symptoms: Mapping[str, str]) -> None:
    assert matching(symptoms[number])
    assert leading(symptoms[number]) in ACCEPTED[number] | ({"unknown"} if weak(symptoms[number]) else set())
    named = {cause for sign in SIGNS if sign.id in matching(symptoms[number]) for cause, _ in sign.points}
    assert named & ACCEPTED[number]


def weak(line: str) -> bool:
    """Lines that working machines have as well: too little to name a cause by."""
    return all(weight < 1.5 for sign in SIGNS if sign.id in matching(line) for _, weight in sign.points)


@needs_shared
@pytest.mark.parametrize("number", SILENT)
def test_a_line_of_the_list_that_works_is_known_and_accuses_nobody(number: str, symptoms: Mapping[str, str]) -> None:
    assert matching(symptoms[number])
    assert leading(symptoms[number]) in ("unknown", "no-fault")
