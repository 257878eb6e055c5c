"""From words to usbN entries: pure facts, odd guests, and text of any kind."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.knowledge.usb_guests import modern, plugs_at_once, slots
from pve_passthrough.model.facts import Facts, Gap, MapEntry, Pve, ResourceMapping
from pve_passthrough.model.usb import UsbDevice, is_port, parent_of
from pve_passthrough.model.usb_guest import below, mappings_of, matching, parse_entry, usb_entries
from pve_passthrough.model.vm import Vm
from pve_passthrough.planning import UsbHow, give_usb, resolve, resolve_usb
from pve_passthrough.planning.usb import remove_usb

HUB = UsbDevice("usb1", 0x1D6B, 2, 9, "xHCI Host Controller", None, ports=16)
FAST_HUB = UsbDevice("usb2", 0x1D6B, 3, 9, "xHCI Host Controller", None, ports=4)
TOKEN = UsbDevice("1-4", 0x0529, 1, 0, "HASP", None, speed=12.0)
DISK = UsbDevice("2-1", 0x0781, 0x5583, 0, "Ultra Fit", None, speed=5000.0)
NAMELESS = UsbDevice("1-6", None, None, None, "", None)


def guest(vmid: int = 100, running: bool | None = False, **config: str) -> Vm:
    return Vm(vmid, "pve", {"name": "work", "ostype": "l26", **config}, running=running)


def facts(*guests: Vm, usb: tuple[UsbDevice, ...] = (HUB, FAST_HUB, TOKEN, DISK), **more: Any) -> Facts:
    pve = Pve(True, "9.2.1", node="pve", nodes=("pve",), quorate=True, writable=True)
    return Facts("test", usb=usb, pve=pve, guests=guests or (guest(),), **more)


def given_to(world: Facts, *words: str, how: UsbHow | None = None, vmid: int = 100) -> dict[str, str | None]:
    return {one.key: one.value for one in give_usb(world, resolve_usb(world, words, how), vmid, how)}


def refusal(world: Facts, *words: str, how: UsbHow | None = None) -> Failure:
    with pytest.raises(Failure) as caught:
        given_to(world, *words, how=how)
    return caught.value


# -- what a guest can have -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("config", "many"),
    [
        ({}, True),
        ({"machine": "q35"}, True),
        ({"machine": "pc-q35-7.1"}, True),
        ({"machine": "pc-q35-11.0+pve2"}, True),
        ({"machine": "pc-i440fx-7.0"}, False),
        ({"machine": "pc-q35-6.2,viommu=intel"}, False),
        ({"ostype": "win7"}, False),
        ({"ostype": "win8"}, True),
        ({"ostype": "win11"}, True),
        ({"ostype": "w2k8"}, False),
        ({"ostype": "other"}, False),
        ({"ostype": "l24"}, False),
    ],
)
def test_fourteen_or_five(config: dict[str, str], many: bool) -> None:
    one = guest(**config)  # type: ignore[arg-type]
    assert (modern(one), slots(one), plugs_at_once(one)) == ((True, 14, True) if many else (False, 5, False))


@pytest.mark.parametrize(
    ("hotplug", "at_once"),
    [("1", True), ("0", False), ("network,disk,usb", True), ("network;usb", True), ("network,disk", False)],
)
def test_a_running_guest_takes_it_where_hotplug_has_usb(hotplug: str, at_once: bool) -> None:
    assert plugs_at_once(guest(hotplug=hotplug)) is at_once
    world = facts(guest(running=True, hotplug=hotplug))
    if at_once:
        assert given_to(world, "usb:1-4") == {"usb0": "host=0529:0001"}
    else:
        failure = refusal(world, "usb:1-4")
        assert (failure.problem.ref, failure.code) == ("guest.running", Exit.REFUSED)


def test_usb3_is_written_only_where_it_means_something() -> None:
    assert given_to(facts(), "usb:2-1") == {"usb0": "host=0781:5583"}
    old = facts(guest(ostype="win7"))
    assert given_to(old, "usb:2-1") == {"usb0": "host=0781:5583,usb3=1"}
    assert given_to(old, "usb:1-4") == {"usb0": "host=0529:0001"}
    assert given_to(old, "usb:2-1", how=UsbHow(usb3=False)) == {"usb0": "host=0781:5583"}
    had = facts(guest(ostype="win7", usb2="0781:5583,usb3=yes"))
    assert given_to(had, "usb:2-1") == {}
    assert given_to(had, "usb:2-1", how=UsbHow(usb3=False)) == {"usb2": "host=0781:5583"}


def test_the_first_free_entry_is_taken_and_what_waits_is_not_free() -> None:
    world = facts(replace(guest(usb0="spice", usb2="host=1-9"), pending={"usb1": "host=1-8"}))
    assert given_to(world, "usb:1-4", "usb:2-1") == {"usb3": "host=0529:0001", "usb4": "host=0781:5583"}


def test_two_words_for_one_device_are_one_entry() -> None:
    assert given_to(facts(), "usb:1-4", "usb:0529:0001", "USB:1-4") == {"usb0": "host=0529:0001"}


def test_a_change_that_waits_for_the_next_start_is_not_overwritten() -> None:
    waiting = replace(guest(usb0="host=1-4"), pending={"usb0": "host=1-9"})
    with pytest.raises(Failure) as caught:
        remove_usb(facts(waiting), "usb0", 100)
    assert caught.value.problem.ref == "guest.pending"


def test_a_guest_that_nobody_saw_run_is_unknown() -> None:
    assert refusal(facts(guest(running=None)), "usb:1-4").problem.ref == "plan.unknown"


def test_an_unseen_bus_is_unknown_and_not_empty() -> None:
    world = facts(usb=(), gaps=(Gap("usb.devices", "Permission denied"),))
    failure = refusal(world, "usb:1-4")
    assert failure.problem.ref == "plan.unknown"
    assert "usb.devices: Permission denied" in failure.problem.context


# -- names -----------------------------------------------------------------------------------------


def test_a_device_whose_id_nobody_read_goes_by_its_port() -> None:
    world = facts(usb=(HUB, NAMELESS))
    assert given_to(world, "usb:1-6") == {"usb0": "host=1-6"}
    assert refusal(world, "usb:1-6", how=UsbHow("id")).problem.ref == "usb.twins"
    assert refusal(world, "usb:????:????").problem.ref == "device.unknown"


def usb_map(name: str, *lines: tuple[str, str, str]) -> ResourceMapping:
    return ResourceMapping("usb", name, tuple(MapEntry(node, path, {"id": ids}) for node, path, ids in lines))


@pytest.mark.parametrize(
    ("lines", "fault"),
    [
        ((("pve", "", "0529:0001"),), ""),
        ((("pve", "1-4", "0529:0001"), ("other", "", "dead:beef")), ""),
        ((("other", "", "0529:0001"),), "no line for node pve"),
        ((("pve", "", "0529:0001"), ("pve", "", "dead:beef")), "2 lines for node pve"),
        ((("pve", "", "dead:beef"),), "not plugged in"),
        ((("pve", "2-1", "0529:0001"),), "at 2-1 is 0781:5583"),
        ((("pve", "usb1", "1d6b:0002"),), "not plugged in"),
    ],
)
def test_a_mapping_is_held_against_what_is_there(lines: tuple[tuple[str, str, str], ...], fault: str) -> None:
    world = facts(mappings=(usb_map("key", *lines),))
    if fault:
        failure = refusal(world, "key")
        assert failure.problem.ref == "mapping.stale"
        assert fault in failure.problem.message
    else:
        assert given_to(world, "key") == {"usb0": "mapping=key"}
        assert mappings_of(world, TOKEN) == ("key",)


def test_a_name_of_both_kinds_of_mapping_means_the_card() -> None:
    both = (usb_map("key", ("pve", "", "0529:0001")), ResourceMapping("pci", "key", ()))
    world = facts(mappings=both)
    assert resolve_usb(world, ("key",)) == ()
    assert given_to(world, "usb:key") == {"usb0": "mapping=key"}


def test_a_usb_word_is_no_function() -> None:
    with pytest.raises(Failure) as caught:
        resolve(facts(), ("usb:1-4",))
    assert caught.value.problem.ref == "device.usb"


def test_ports_and_what_is_above_and_below() -> None:
    assert [parent_of(port) for port in ("1-4.2.1", "1-4.2", "1-4", "usb1")] == ["1-4.2", "1-4", "usb1", None]
    nested = tuple(UsbDevice(port, 1, 2, 0, "", None) for port in ("1-4.1", "1-4.10", "1-44", "11-4"))
    world = facts(usb=(HUB, TOKEN, *nested))
    assert [one.port for one in below(world, "1-4")] == ["1-4.1", "1-4.10"]
    assert [one.port for one in below(world, "usb1")] == ["1-4", "1-4.1", "1-4.10", "1-44"]


# -- entries that people wrote ----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("value", "port"),
    [
        ("host=0529:0001", "1-4"),
        ("0529:0001", "1-4"),
        ("0x0529:0x0001,usb3=1", "1-4"),
        ("usb3=yes,host=1-4", "1-4"),
        ("host=0781:5583", "2-1"),
        ("SPICE", ""),
        ("host=1.4", ""),
        ("host=usb1", ""),
        ("mapping=none", ""),
        ("", ""),
    ],
)
def test_forms_of_entries(value: str, port: str) -> None:
    found = matching(facts(), parse_entry(facts(), "pve", "usb0", value))
    assert [one.port for one in found] == ([port] if port else [])


def test_removing_by_any_name_of_the_device() -> None:
    world = facts(guest(usb0="0x0529:0x0001", usb7="host=2-1", usb8="spice"))
    for word, key in (
        ("usb:1-4", "usb0"),
        ("0529:0001", "usb0"),
        ("2-1", "usb7"),
        ("0781:5583", "usb7"),
        ("usb8", "usb8"),
    ):
        assert [(one.key, one.value) for one in remove_usb(world, word, 100)] == [(key, None)]


WORDS = st.text(max_size=30) | st.from_regex(r"(usb:)?[0-9a-f.:-]{0,12}", fullmatch=True)


@settings(max_examples=150, deadline=None)
@given(WORDS)
def test_any_word_is_understood_or_refused(word: str) -> None:
    for usb_word in (f"usb:{word}", word):
        try:
            found = resolve_usb(facts(), (usb_word,))
        except Failure as failure:
            assert failure.code in (Exit.USAGE, Exit.COULD_NOT)
        else:
            assert all(one.device in (TOKEN, DISK) for one in found)


@settings(max_examples=150, deadline=None)
@given(st.dictionaries(st.from_regex(r"usb[0-9]{1,2}", fullmatch=True), WORDS, max_size=5))
def test_any_configuration_is_only_text(config: dict[str, str]) -> None:
    for entry in usb_entries(facts(), guest(**config)):  # type: ignore[arg-type]
        assert not entry.port or is_port(entry.port)
        assert len(matching(facts(), entry)) <= 1
