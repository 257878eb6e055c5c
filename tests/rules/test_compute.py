"""Cards made for servers: what is said of which, and when an NVSwitch matters."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.model.facts import Facts
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.pci import Address
from pve_passthrough.rules import Request, judge

from .worlds import BOTH, DEVICES, GPU, device, host, with_device

SWITCH = Address(0, 9, 0, 0)


def said(rule: str, facts: Facts, request: Request = BOTH) -> list[Finding]:
    return [finding for finding in judge(facts, request) if finding.rule == rule]


def server(product: int, klass: int = 0x030200) -> Facts:
    return host(devices=with_device(GPU, product=product, class_code=klass))


@pytest.mark.parametrize(
    ("product", "words", "never"),
    [
        (0x1B38, "branch 580 is the last", "open modules"),
        (0x17FD, "Maxwell works with the proprietary modules only", "NVLink"),
        (0x27B8, "no fan", "branch"),
        (0x2BB5, "needs the open modules, of branch 570", "proprietary"),
        (0x2330, "NVLink", "branch"),
    ],
)
def test_each_card_hears_what_concerns_it(product: int, words: str, never: str) -> None:
    (finding,) = said("gpu.data-centre", server(product))
    assert words in finding.message and never not in finding.message
    assert finding.level is Level.NOTE and finding.hazard == ""
    assert finding.fix and finding.fix.commands == (f"pve-passthrough inside {GPU} --os ubuntu-24.04",)


def test_outputs_are_told_once() -> None:
    assert "monitor outputs" not in said("gpu.data-centre", server(0x1B38))[0].message
    assert "no monitor outputs" in said("gpu.data-centre", server(0x13F2, 0x030000))[0].message
    assert "may be switched off" in said("gpu.data-centre", server(0x26B9, 0x030000))[0].message


def test_other_makers_cards_are_told_of_no_nvidia_driver() -> None:
    facts = host(devices=with_device(GPU, vendor=0x1002, product=0x740F, class_code=0x038000))
    (finding,) = said("gpu.data-centre", facts)
    assert "branch" not in finding.message and "Instinct" in finding.message


def test_a_desktop_card_is_left_in_peace() -> None:
    assert said("gpu.data-centre", host()) == []


def with_switch(group: int, product: int = 0x2330, *, switch: str = "10de:22a3", at: Address = SWITCH) -> Facts:
    devices = with_device(GPU, product=product, class_code=0x030200)
    return host(devices=(*devices, device(at, "NVSwitch", switch, 0x068000, group, "")))


def test_a_switch_in_the_group_harms() -> None:
    (finding,) = said("groups.nvswitch", with_switch(1))
    assert finding.level is Level.HARMS and "IOMMU group 1" in finding.message
    assert finding.evidence == (f"{SWITCH}: 10de:22a3, class 068000",)


def test_a_switch_elsewhere_is_a_note_for_cards_of_a_board_only() -> None:
    (finding,) = said("groups.nvswitch", with_switch(9))
    assert finding.level is Level.NOTE and "its board" in finding.message
    assert said("groups.nvswitch", with_switch(9, 0x2331)) == []


def test_a_switch_that_no_list_names_is_told_by_its_class() -> None:
    assert said("groups.nvswitch", with_switch(1, switch="10de:ffff")) != []
    assert said("groups.nvswitch", with_switch(1, switch="1002:ffff")) == []


def test_the_ethernet_of_an_old_chipset_is_no_switch() -> None:
    assert said("groups.nvswitch", with_switch(1, switch="10de:0373", at=Address(0, 0, 8, 0))) == []


def test_unknown_groups_are_not_taken_for_the_same() -> None:
    facts = with_switch(1)
    unread = tuple(replace(one, iommu_group=None) for one in facts.devices)
    assert [one.level for one in said("groups.nvswitch", replace(facts, devices=unread))] == [Level.NOTE]
    assert len(DEVICES) < len(facts.devices)
