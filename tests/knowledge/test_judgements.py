"""Rows that say what a finding speaks for: every one names a rule, a level and a cause that there are."""

from __future__ import annotations

from pve_passthrough.knowledge.causes import cause
from pve_passthrough.knowledge.judgements import JUDGEMENTS, judgement
from pve_passthrough.model.finding import Level
from pve_passthrough.rules import page_ids


def test_every_row_names_a_rule_that_there_is() -> None:
    rules = page_ids()
    for row in JUDGEMENTS:
        stem = row.rule.removesuffix("*")
        assert any(rule == row.rule or (row.rule.endswith("*") and rule.startswith(stem)) for rule in rules), row.rule


def test_every_row_speaks_of_causes_and_levels_that_there_are() -> None:
    levels = {level.value for level in Level}
    for row in JUDGEMENTS:
        assert row.levels <= levels
        for code, weight in row.points:
            found = cause(code)
            assert found is not None and found.code == code, (row.rule, code)
            assert 0 < weight <= 6


def test_no_row_hides_behind_a_wider_one_above_it() -> None:
    for number, row in enumerate(JUDGEMENTS):
        for above in JUDGEMENTS[:number]:
            same = above.rule == row.rule and row.levels <= above.levels
            assert not (same and above.words is None and not above.whole), row


def test_the_words_of_a_message_choose_the_row() -> None:
    stale = "Guest 100: mapping gpu says iommugroup=15, and the hardware has 17, so the guest does not start."
    row = judgement("guests.mapping", "harms", stale, whole=False)
    assert row is not None and dict(row.points) == {"group-renumbered": 5} and row.sure


def test_what_only_a_whole_listing_shows_is_not_said_of_a_part() -> None:
    gone = "Guest 100 does not start: hostpci0 names 0000:03:00.0, which this machine does not have."
    assert judgement("guests.hostpci", "harms", gone, whole=False) is None
    whole = judgement("guests.hostpci", "harms", gone, whole=True)
    assert whole is not None and dict(whole.points) == {"bdf-renumbered": 4}


def test_what_could_merely_be_better_says_nothing() -> None:
    for rule in ("guests.cpu", "guests.efi-disk", "guests.agent", "guests.onboot", "bootconfig.needless"):
        assert judgement(rule, "harms", "", whole=True) is None
