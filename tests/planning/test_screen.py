"""The virtual display goes last and comes back first."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.vm import Vm
from pve_passthrough.planning.screen import card_only, with_rescue

from .worlds import DEVICES, FIT, GPU, facts, guest

GIVEN = {**FIT, "hostpci0": "0000:01:00,pcie=1"}


def wished(known: Facts, vm: Vm) -> dict[str, str | None]:
    return {wish.key: wish.value for wish in card_only(known, vm)}


def test_the_card_becomes_the_first_display_and_the_virtual_one_goes() -> None:
    assert wished(facts(), guest(config=GIVEN)) == {"hostpci0": "0000:01:00,pcie=1,x-vga=1", "vga": "none"}


def test_a_card_that_is_the_first_display_already_stays_so() -> None:
    shown = guest(config={**GIVEN, "hostpci0": "0000:01:00,pcie=1,x-vga=1"})
    assert wished(facts(), shown) == {"vga": "none"}


def test_legacy_graphics_exclude_x_vga() -> None:
    legacy = guest(config={"hostpci0": "0000:00:02.0,legacy-igd=1"})
    assert wished(facts(), legacy) == {"vga": "none"}


def test_a_card_without_outputs_is_no_display() -> None:
    tesla = replace(GPU, class_code=0x030200)
    known = facts(devices=(tesla, *DEVICES[3:]))
    for vm in (guest(config=GIVEN), guest(config=FIT)):
        with pytest.raises(Failure) as caught:
            card_only(known, vm)
        assert caught.value.problem.ref == "display.no-card"


def test_the_way_back_takes_x_vga_out_and_leaves_the_rest() -> None:
    shown = guest(config={**GIVEN, "hostpci0": "0000:01:00,x-vga=1,pcie=1,romfile=a.rom", "vga": "none"})
    back = {wish.key: wish.value for wish in with_rescue(facts(), shown)}
    assert back == {"hostpci0": "0000:01:00,pcie=1,romfile=a.rom", "vga": "std"}


def test_a_change_that_waits_for_the_next_start_is_not_overwritten() -> None:
    waiting = replace(guest(config=GIVEN), pending={"vga": "qxl"})
    for plan in (card_only, with_rescue):
        with pytest.raises(Failure) as caught:
            plan(facts(), waiting)
        assert caught.value.problem.ref == "guest.pending"
