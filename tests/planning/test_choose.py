"""Words to functions: nothing is guessed, and every refusal names what there is."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.model.facts import Display, Facts, MapEntry, ResourceMapping
from pve_passthrough.planning import resolve

from .worlds import DEVICES, GPU, RADEON, SOUND, TWIN, at, device, facts

CARD = (at("01:00.0"), at("01:00.1"))


def refusal(known: Facts, *words: str) -> Failure:
    with pytest.raises(Failure) as caught:
        resolve(known, words)
    return caught.value


@pytest.mark.parametrize("word", ["0000:01:00.0", "01:00.0", "01:00", "0000:01:00", "10de:2684", "10DE:2684"])
def test_a_graphics_card_is_taken_whole(word: str) -> None:
    assert resolve(facts(), [word]) == CARD


def test_another_function_is_taken_alone() -> None:
    assert resolve(facts(), ["01:00.1"]) == (at("01:00.1"),)


def test_an_integrated_card_takes_only_its_own_makers_functions() -> None:
    igpu = device("0b:00.0", "1002:164e", 0x030000, "amdgpu")
    hdmi = device("0b:00.1", "1002:1640", 0x040300, "snd_hda_intel")
    usb = device("0b:00.3", "1022:15b6", 0x0C0330, "xhci_hcd")
    assert resolve(facts(devices=(igpu, hdmi, usb)), ["0b:00.0"]) == (igpu.address, hdmi.address)


def test_a_port_of_a_network_card_is_taken_alone() -> None:
    ports = tuple(device(f"05:00.{number}", "8086:1521", 0x020000, "igb") for number in range(2))
    assert resolve(facts(devices=ports), ["05:00.0"]) == (ports[0].address,)


def test_gpu_is_the_one_that_does_not_show_the_console() -> None:
    devices = tuple(entry for entry in DEVICES if entry.address.bus != 3)
    assert resolve(facts(devices=devices), ["gpu"]) == CARD


def test_gpu_with_two_free_cards_is_refused_with_both_names() -> None:
    failure = refusal(facts(), "gpu")
    assert (failure.problem.ref, failure.code) == ("device.ambiguous", Exit.USAGE)
    assert any(str(GPU) in line for line in failure.problem.context)
    assert any(str(RADEON) in line for line in failure.problem.context)


def test_gpu_with_nobody_knowing_the_console_is_refused() -> None:
    devices = tuple(replace(entry, boot_vga=None) for entry in DEVICES if entry.address.bus != 3)
    assert refusal(facts(devices=devices, display=Display()), "gpu").problem.ref == "device.ambiguous"


def test_the_only_gpu_is_chosen_although_it_shows_the_console() -> None:
    only = replace(GPU, boot_vga=True)
    assert resolve(facts(devices=(only, SOUND), display=Display(only.address)), ["gpu"]) == CARD


def test_counted_cards_go_by_address_and_count_cards_not_functions() -> None:
    assert [resolve(facts(), [f"gpu:{number}"])[0] for number in (1, 2, 3)] == [
        at("00:02.0"), at("01:00.0"), at("03:00.0"),
    ]  # fmt: skip
    for number in ("0", "4"):
        assert refusal(facts(), f"gpu:{number}").problem.ref == "device.unknown"


def test_an_id_that_two_cards_have_is_refused() -> None:
    failure = refusal(facts(devices=(*DEVICES, TWIN)), "10de:2684")
    assert failure.problem.ref == "device.ambiguous"
    assert any("0000:04:00.0" in line for line in failure.problem.context)


def test_nonsense_gets_the_nearest_names() -> None:
    failure = refusal(facts(), "01:00.4")
    assert (failure.problem.ref, failure.code) == ("device.unknown", Exit.USAGE)
    assert any("01:00.0" in line for line in failure.problem.context)


def test_a_bridge_stays() -> None:
    bridge = device("00:01.0", "8086:460d", 0x060400, "pcieport", bridge=True)
    assert refusal(facts(devices=(bridge, *DEVICES)), "00:01.0").problem.ref == "device.bridge"


@pytest.mark.parametrize(
    ("entries", "wanted"),
    [
        ([MapEntry("pve", "0000:01:00", {})], CARD),
        ([MapEntry("other", "0000:03:00", {}), MapEntry("pve", "0000:01:00.1", {})], (at("01:00.1"),)),
        ([MapEntry("pve", "0000:01:00", {}), MapEntry("pve", "0000:02:00.0", {})], (*CARD, at("02:00.0"))),
        ([MapEntry("pve", "0000:01:00", {}), MapEntry("pve", "0000:0a:00.0", {})], "device.unknown"),
        ([MapEntry("other", "0000:01:00", {})], "device.unknown"),
        ([MapEntry("pve", "0000:0a:00.0", {})], "device.unknown"),
    ],
)
def test_mappings(entries: list[MapEntry], wanted: tuple[object, ...] | str) -> None:
    known = facts(mappings=(ResourceMapping("pci", "card", tuple(entries)),))
    if isinstance(wanted, str):
        assert refusal(known, "card").problem.ref == wanted
    else:
        assert resolve(known, ["card"]) == wanted


def test_words_add_up_without_doubles() -> None:
    assert resolve(facts(), ["01:00.1", "01:00", "nic"]) == (at("01:00.1"), at("01:00.0"), at("02:00.0"))


@settings(max_examples=50, deadline=None)
@given(st.lists(st.text(max_size=12), max_size=3))
def test_any_words_give_functions_of_this_machine_or_a_usage_failure(words: list[str]) -> None:
    known = facts()
    try:
        assert set(resolve(known, words)) <= {entry.address for entry in known.devices}
    except Failure as failure:
        assert failure.code is Exit.USAGE
