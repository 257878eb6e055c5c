"""Our udev rules file: what is written is read again, what is foreign stays, what goes leaves nothing."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.model.own import UDEV_RULES
from pve_passthrough.model.pci import Address
from pve_passthrough.planning.edit_udev import edit, foreign_rules, settings_of
from pve_passthrough.planning.proof import MARK, Unprovable

CARD = Address(0, 1, 0, 0)
ADDRESSES = st.builds(
    Address, st.sampled_from([0, 0x10000]), st.integers(0, 255), st.integers(0, 31), st.integers(0, 7)
)
VALUES = st.sampled_from(["bus", "flr pm", "0", None])
STEPS = st.lists(st.tuples(ADDRESSES, st.sampled_from(["reset_method", "d3cold_allowed"]), VALUES), max_size=6)


def test_the_rule_names_the_function_and_what_it_must_be() -> None:
    text = edit(None, CARD, "10de:2684", "reset_method", "flr bus")
    assert text is not None
    assert text.startswith(MARK + "\n")
    assert 'KERNEL=="0000:01:00.0", ATTR{vendor}=="0x10de", ATTR{device}=="0x2684", ' in text
    assert text.endswith('ATTR{reset_method}="flr bus"\n')


def test_a_method_that_a_module_brings_is_written_after_the_module_is_loaded() -> None:
    text = edit(None, CARD, "1002:67df", "reset_method", "device_specific", "vendor-reset") or ""
    assert text.index("modprobe vendor-reset") < text.index("echo device_specific")
    assert settings_of(text) == {(CARD, "reset_method"): "device_specific"}


def test_the_same_again_changes_nothing_and_another_value_replaces() -> None:
    once = edit(None, CARD, "10de:2684", "reset_method", "flr")
    assert edit(once, CARD, "10de:2684", "reset_method", "flr") == once
    other = edit(once, CARD, "10de:2684", "reset_method", "pm")
    assert settings_of(other) == {(CARD, "reset_method"): "pm"}


def test_the_last_line_takes_the_file_along_and_a_strangers_line_keeps_it() -> None:
    once = edit(None, CARD, "10de:2684", "reset_method", "flr") or ""
    assert edit(once, CARD, "10de:2684", "reset_method", None) is None
    stranger = 'SUBSYSTEM=="usb", MODE="0666"'
    assert edit(f"{once}{stranger}\n", CARD, "10de:2684", "reset_method", None) == f"{MARK}\n{stranger}\n"


def test_a_comment_sets_nothing() -> None:
    line = (edit(None, CARD, "10de:2684", "reset_method", "flr") or "").split("\n")[1]
    assert settings_of(f"# {line}\n") == {}


def test_a_value_that_would_not_be_read_again_is_refused() -> None:
    with pytest.raises(Unprovable):
        edit(None, CARD, "10de:2684", "reset_method", 'flr", RUN+="/bin/false')


@settings(max_examples=60, deadline=None)
@given(STEPS)
def test_any_sequence_of_settings_is_what_the_file_says(steps: list[tuple[Address, str, str | None]]) -> None:
    text: str | None = None
    wanted: dict[tuple[Address, str], str] = {}
    for address, attribute, value in steps:
        text = edit(text, address, "10de:2684", attribute, value)
        wanted.pop((address, attribute), None)
        wanted |= {} if value is None else {(address, attribute): value}
    assert settings_of(text) == wanted
    assert (text is None) == (not wanted)


def test_other_peoples_rules_are_found_and_ours_are_not() -> None:
    files = {
        UDEV_RULES: 'ATTR{reset_method}="bus"\n',
        "/etc/udev/rules.d/99-vendor-reset.rules": '# reset_method\nATTR{device}=="0x67df", RUN+="reset_method"\n',
        "/etc/modprobe.d/x.conf": "reset_method\n",
    }
    found = foreign_rules(files, "reset_method")
    assert [one.partition(": ")[0] for one in found] == ["/etc/udev/rules.d/99-vendor-reset.rules:2"]
