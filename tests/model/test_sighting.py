"""Which card is which, after buses were renumbered, cards moved, swapped or taken out. Nothing is guessed."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.model.facts import Facts, MapEntry, ResourceMapping
from pve_passthrough.model.identity import Assignment, Identity
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.sighting import (
    Where,
    covers,
    path_of,
    regrouped,
    remember,
    sight,
    sightings,
    standing,
    unremembered,
)
from pve_passthrough.model.vm import HostPci, Vm, expand_host, parse_options

PORT_A, PORT_B, PORT_C = (Address.parse(text) for text in ("00:01.0", "00:06.0", "00:1c.0"))


def at(text: str) -> Address:
    return Address.parse(text)


def port(address: Address, group: int) -> Device:
    return Device(address, 0x8086, 0x460D, 0x060400, bridge=True, iommu_group=group)


def card(bus: int, parent: Address, group: int = 1, serial: str | None = None, **more: object) -> tuple[Device, ...]:
    """A graphics card with its sound function."""
    both = (
        Device(Address(0, bus, 0, 0), 0x10DE, 0x2684, 0x030000, name="RTX 4090", subsystem_vendor=0x1043,
               subsystem_product=0x889A, iommu_group=group, parent=parent, serial=serial),
        Device(Address(0, bus, 0, 1), 0x10DE, 0x22BA, 0x040300, name="Sound", iommu_group=group, parent=parent),
    )  # fmt: skip
    return tuple(replace(one, **more) for one in both)  # type: ignore[arg-type]


PORTS = (port(PORT_A, 1), port(PORT_B, 12), port(PORT_C, 8))


def machine(*cards: tuple[Device, ...], **more: object) -> Facts:
    return replace(Facts("test", devices=(*PORTS, *(one for two in cards for one in two))), **more)  # type: ignore[arg-type]


def given_at(bus: int, *cards: tuple[Device, ...]) -> tuple[Identity, ...]:
    facts = machine(*cards)
    return remember(facts, (Address(0, bus, 0, 0), Address(0, bus, 0, 1)))


ALONE = card(1, PORT_A)
TWINS = (card(1, PORT_A), card(4, PORT_B, 12))


def test_the_path_survives_a_new_number() -> None:
    for bus in (1, 7):
        facts = machine(card(bus, PORT_A))
        places = {one.address: one for one in facts.devices}
        assert path_of(places, facts.devices[-1]) == "0000:00:01.0/00.1"


def test_what_is_remembered() -> None:
    head, sound = given_at(1, *TWINS)
    assert (head.id, head.subsystem, head.class_code, head.serial) == ("10de:2684", "1043:889a", 0x030000, "")
    assert head.group == {"0000:01:00.0": "10de:2684", "0000:01:00.1": "10de:22ba"}
    assert head.twins == ("0000:00:06.0/00.0",) and sound.twins == ("0000:00:06.0/00.1",)


def test_here() -> None:
    seen = sight(machine(ALONE), given_at(1, ALONE))
    assert seen.where is Where.HERE and not seen.missing


def test_the_only_one_of_its_kind_is_it_wherever_it_is() -> None:
    for now in (card(7, PORT_A), card(7, PORT_C)):
        seen = sight(machine(now), given_at(1, ALONE))
        assert seen.where is Where.MOVED
        assert seen.moves == {at("01:00.0"): at("07:00.0"), at("01:00.1"): at("07:00.1")}


def test_twins_whose_buses_changed_places_are_told_apart_by_their_ports() -> None:
    swapped = machine(card(4, PORT_A), card(1, PORT_B))
    assert sight(swapped, given_at(1, *TWINS)).moves[at("01:00.0")] == at("04:00.0")
    assert sight(swapped, given_at(4, *TWINS)).moves[at("04:00.0")] == at("01:00.0")


def test_the_twin_that_was_there_before_is_not_the_missing_card() -> None:
    seen = sight(machine(card(4, PORT_B)), given_at(1, *TWINS))
    assert seen.where is Where.GONE and [one.address for one in seen.alike] == [at("04:00.0")]
    # … nor is it when its bus has got the number that the missing card had
    renumbered = sight(machine(card(1, PORT_B)), given_at(1, *TWINS))
    assert renumbered.where is Where.OTHER


def test_a_twin_in_a_third_slot_may_be_either() -> None:
    seen = sight(machine(card(3, PORT_C)), given_at(1, *TWINS))
    assert seen.where is Where.AMBIGUOUS and [one.address for one in seen.candidates] == [at("03:00.0")]
    both = sight(machine(card(3, PORT_C), card(5, at("00:1d.0"))), given_at(1, *TWINS))
    assert both.where is Where.AMBIGUOUS and len(both.candidates) == 2 and not both.moves


def test_a_serial_number_decides_where_the_place_does_not() -> None:
    one, two = card(1, PORT_A, serial="aa"), card(4, PORT_B, serial="bb")
    cards_exchanged = machine(card(1, PORT_A, serial="bb"), card(4, PORT_B, serial="aa"))
    assert sight(cards_exchanged, given_at(1, one, two)).moves[at("01:00.0")] == at("04:00.0")
    third_slot = machine(card(3, PORT_C, serial="aa"), card(4, PORT_B, serial="bb"))
    assert sight(third_slot, given_at(1, one, two)).moves[at("01:00.0")] == at("03:00.0")
    replaced = sight(machine(card(1, PORT_A, serial="cc")), given_at(1, one))
    assert replaced.where is Where.OTHER and not replaced.alike


def test_a_serial_that_nobody_can_read_now_contradicts_nothing() -> None:
    assert sight(machine(card(1, PORT_A, serial=None)), given_at(1, card(1, PORT_A, serial="aa"))).where is Where.HERE


def test_another_device_at_the_address() -> None:
    disk = Device(at("01:00.0"), 0x144D, 0xA80A, 0x010802, name="SSD", parent=PORT_A)
    seen = sight(machine((disk,)), given_at(1, ALONE))
    assert seen.where is Where.OTHER and seen.holder == disk
    moved = sight(machine((disk,), card(7, PORT_C)), given_at(1, ALONE))
    assert moved.where is Where.MOVED and moved.holder == disk


def test_another_board_of_the_same_chip_is_another_card() -> None:
    other = card(1, PORT_A, subsystem_vendor=0x1462, subsystem_product=1)
    assert sight(machine((other[0],)), given_at(1, ALONE)).where is Where.OTHER


def test_a_function_that_was_switched_off_is_missing() -> None:
    seen = sight(machine((ALONE[0],)), given_at(1, ALONE))
    assert seen.where is Where.HERE and [one.address for one in seen.missing] == [at("01:00.1")]


@settings(deadline=None, max_examples=60)
@given(
    buses=st.lists(st.integers(1, 9), min_size=0, max_size=4, unique=True),
    ports=st.permutations((PORT_A, PORT_B, PORT_C, at("00:1d.0"))),
    twins=st.booleans(),
)
def test_what_is_found_is_never_anothers(buses: list[int], ports: list[Address], twins: bool) -> None:
    """Without serials: whatever is called found is of the kind, and sits where it sat or had no rival."""
    before = TWINS if twins else (ALONE,)
    now = machine(*(card(bus, parent) for bus, parent in zip(buses, ports, strict=False)))
    seen = sight(now, given_at(1, *before))
    if not seen.moves:
        return
    found = now.device(seen.moves[at("01:00.0")])
    assert found is not None and found.id == "10de:2684"
    same_place = found.parent == PORT_A
    rivals = [one for one in now.devices if one.id == "10de:2684" and one != found and one.parent != PORT_B]
    twin_accounted_for = not twins or any(one.parent == PORT_B for one in now.devices)
    assert same_place or (not rivals and twin_accounted_for and found.parent != (PORT_B if twins else None))


# -- what stands ---------------------------------------------------------------------------------


def guest(vmid: int = 100, **entries: str) -> Vm:
    known = [one.address for one in machine(ALONE).devices]
    made = []
    for key, value in entries.items():
        options = parse_options(value, "host")
        made.append(
            HostPci(key, options, expand_host(options.get("host", ""), known), options.get("mapping", ""))
        )  # fmt: skip
    return Vm(vmid, "pve", dict(entries), hostpci=tuple(made))


@pytest.mark.parametrize(
    ("host", "named"),
    [("01:00", True), ("0000:01:00", True), ("01:00.0", True), ("0000:01:00.1", False), ("02:00;01:00.0", True),
     ("0001:01:00", False), ("", False)],
)  # fmt: skip
def test_what_an_entry_names(host: str, named: bool) -> None:
    assert covers(host, at("01:00.0")) is named


def test_an_assignment_stands_while_the_entry_does_even_when_the_card_is_gone() -> None:
    given = Assignment("run-1", 100, given_at(1, ALONE))
    facts = machine(assignments=(given,))
    assert len(standing(facts, guest(hostpci0="0000:01:00,pcie=1"))) == 2
    assert standing(facts, guest(hostpci0="0000:02:00")) == ()
    assert standing(facts, guest(101, hostpci0="0000:01:00")) == ()
    assert unremembered(machine(ALONE), guest(hostpci0="01:00")) == (at("01:00.0"), at("01:00.1"))


def test_of_an_address_the_latest_run_counts() -> None:
    old, new = given_at(1, ALONE), tuple(replace(one, serial="new") for one in given_at(1, ALONE))
    facts = machine(ALONE, assignments=(Assignment("20260102-a", 100, new), Assignment("20260101-b", 100, old)))
    assert {one.serial for one in standing(facts, guest(hostpci0="01:00"))} == {"new"}


def test_a_mapping_on_the_guests_node_names_its_devices() -> None:
    lines = (MapEntry("pve", "0000:01:00", {}), MapEntry("other", "0000:09:00", {}))
    facts = machine(ALONE, mappings=(ResourceMapping("pci", "gpu", lines),))
    facts = replace(facts, assignments=(Assignment("run", 100, given_at(1, ALONE)),))
    assert len(standing(facts, guest(hostpci0="mapping=gpu"))) == 2
    assert [one.where for one in sightings(facts, guest(hostpci0="mapping=gpu"))] == [Where.HERE]


# -- its group -----------------------------------------------------------------------------------


def usb(group: int) -> tuple[Device, ...]:
    return (Device(at("00:14.0"), 0x8086, 0x7AE0, 0x0C0330, name="USB", iommu_group=group),)


def test_who_leaves_with_the_card_now() -> None:
    given, entry = given_at(1, ALONE, usb(4)), guest(hostpci0="01:00")
    assert regrouped(machine(ALONE, usb(4)), entry, sight(machine(ALONE, usb(4)), given)) == ((), ())
    joined = machine(ALONE, usb(1))
    newcomers, lost = regrouped(joined, entry, sight(joined, given))
    assert [one.name for one in newcomers] == ["USB"] and lost == ()


def test_who_leaves_no_more_and_who_moved_along() -> None:
    entry, given = guest(hostpci0="01:00"), given_at(1, ALONE, usb(1))
    alone = machine(ALONE, usb(4))
    assert regrouped(alone, entry, sight(alone, given)) == ((), ("8086:7ae0",))
    renumbered = machine(card(7, PORT_A, 3), usb(3))
    assert regrouped(renumbered, entry, sight(renumbered, given)) == ((), ())


def test_an_unknown_group_is_no_news() -> None:
    unknown = machine(tuple(replace(one, iommu_group=None) for one in ALONE), usb(1))
    assert regrouped(unknown, guest(hostpci0="01:00"), sight(unknown, given_at(1, ALONE))) == ((), ())
