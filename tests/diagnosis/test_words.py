"""Words of people: what is said, what is denied, and where words come from."""

from __future__ import annotations

import re

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.diagnosis import diagnose
from pve_passthrough.diagnosis.words import LIMIT, cards, complaints, heard, plain, spoken, statements, talk
from pve_passthrough.knowledge.causes import CAUSES
from pve_passthrough.knowledge.complaints import COMPLAINTS
from pve_passthrough.model.diagnosis import NO_FAULT

CODES = {cause.code for cause in CAUSES}


def signs(text: str) -> set[str]:
    return {one.sign for one in complaints(text, "symptom")}


def first(text: str) -> str:
    return diagnose((), text).first.cause


# -- the rows ------------------------------------------------------------------------------------


def test_ids_are_unique_and_causes_known() -> None:
    assert len({row.id for row in COMPLAINTS}) == len(COMPLAINTS)
    for row in COMPLAINTS:
        assert {cause for cause, _ in row.points} <= CODES, row.id
        assert row.source and row.says.endswith("."), row.id
        assert all(abs(weight) <= 5 for _, weight in row.points), row.id


@pytest.mark.parametrize("row", COMPLAINTS, ids=lambda row: row.id)
def test_patterns_compile_and_never_match_nothing(row: object) -> None:
    for pattern in (*row.all_of, *row.anywhere, *row.none_of):  # type: ignore[attr-defined]
        assert re.compile(pattern).search("") is None, pattern
        assert pattern == pattern.lower() or re.search(r"\\[A-Z]", pattern), "words are searched in lower case"


def test_every_cause_has_words() -> None:
    spoken_of = {cause for row in COMPLAINTS for cause, weight in row.points if weight >= 3}
    assert spoken_of == CODES - {"unknown"}


# -- denial --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "text",
    [
        "No error 43 any more since the change.",
        "There is no code 43 in the guest.",
        "The guest never showed an error 43.",
        "Code 43 is gone.",
        "error 43: no",
        "I am not seeing code 43 here.",
    ],
)
def test_denied_symptoms_are_not_said(text: str) -> None:
    assert not any("43" in sign for sign in signs(text))


@pytest.mark.parametrize(
    "text",
    [
        "The guest shows error 43.",
        "The VM does not boot and shows code 43.",
        "Not only code 43, the picture is missing as well.",
        "Code 43 is not solved by a new driver.",
    ],
)
def test_a_denial_of_something_else_denies_nothing(text: str) -> None:
    assert any("43" in sign for sign in signs(text))


def test_a_desktop_is_no_laptop() -> None:
    assert "said.laptop-43" in signs("Code 43 on my laptop")
    assert "said.laptop-43" not in signs("Code 43, and this is not a laptop")


# -- conditions ----------------------------------------------------------------------------------


def test_the_second_start_of_an_amd_card_and_of_another() -> None:
    words = "The guest works once, after a shutdown of the VM it only shows a black screen until the host is rebooted."
    assert first(f"RX 580. {words}") == "amd-reset-bug"
    assert first(f"GTX 1080. {words}") == "reset-defective"


def test_a_condition_may_come_from_another_text() -> None:
    words = ("symptom", "After a reboot of the VM the screen stays black.")
    alone = {one.sign for one in heard((words,))}
    beside = {one.sign for one in heard((words, ("facts.json", "gpu: Radeon RX 6800")))}
    around = {one.sign for one in heard((words,), "vga compatible controller: amd/ati navi 21")}
    assert "said.amd-second-start" not in alone
    assert "said.amd-second-start" in beside & around


def test_words_far_apart_make_no_row() -> None:
    near = "The host loses its network as soon as the VM is started."
    far = "The host loses its network." + " It is a nice machine otherwise." * 30 + " The VM is started."
    assert "said.host-loses" in signs(near)
    assert "said.host-loses" not in signs(far)


def test_kernels_are_compared() -> None:
    assert first("It works with kernel 6.8.12-11-pve and fails with 6.8.12-12-pve.") == "kernel-regression"
    assert first("Same error with every kernel, old kernels did not help.") != "kernel-regression"
    assert first("I use kernel 6.8.12 and QEMU 9.2.") == "unknown"


def test_updates_are_told_apart() -> None:
    assert first("Since the BIOS update the card hangs in every guest.") == "firmware-defect"
    assert first("Since the upgrade of pve-qemu-kvm to 10.1 the guest crashes.") == "qemu-regression"
    assert first("After the BIOS update all PCI addresses have shifted.") == "bdf-renumbered"


@pytest.mark.parametrize("text", ["", "black screen", "please help", "My VM is slow", "passthrough does not work"])
def test_too_little_is_no_diagnosis(text: str) -> None:
    assert first(text) == "unknown"


def test_it_works_is_believed_unless_something_fails() -> None:
    assert first("There are lines in dmesg, but everything works. Are they harmless?") == NO_FAULT
    assert first("Everything works the first time, the second start ends with a black screen.") != NO_FAULT


# -- texts ---------------------------------------------------------------------------------------


def test_pasted_lines_are_no_speech() -> None:
    text = "Here is my log:\n[   12.000000] vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up\nThanks"
    assert "flr" not in plain(text)
    assert "flr" in plain("The card is not ready after FLR")


def test_talk_is_what_a_person_wrote() -> None:
    assert talk("# This option is not used, it is ignored when there is no such module\nE: TYPE=Battery\n") == ""
    assert "second time" in talk("options vfio-pci ids=10de:1234\nThe card does not start a second time.\n")


def test_statements_become_words() -> None:
    stated = '{"reset_method": "bus", "host": {"root": "ZFS"}, "laptop": false, "devices": [1, null]}'
    words = spoken(statements(stated))
    assert words.split("\n\n") == ["reset method: bus", "root: ZFS", "laptop: no", "devices: 1"]
    assert statements("[1]") == statements("{") == statements("[" * 100_000) == {}


def test_the_cards_of_a_listing_count_when_one_maker_made_them() -> None:
    amd = "01:00.0 VGA compatible controller: Advanced Micro Devices, Inc. [AMD/ATI] Navi 21"
    other = "02:00.0 VGA compatible controller: NVIDIA Corporation GP104"
    assert cards(amd) == amd
    assert cards(f"{amd}\n{other}") == ""


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=400))
def test_any_text_is_taken(text: str) -> None:
    complaints(text, "symptom")
    talk(text)


def test_long_texts_are_read_in_a_short_time() -> None:
    import time

    text = "the guest does not start after the update of the kernel and the card is in the same group, " * 2000
    complaints(text, "warm")
    started = time.process_time()
    complaints(text, "symptom")
    assert len(text) > LIMIT
    assert time.process_time() - started < 6
