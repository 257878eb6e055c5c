"""Settings that few guests need: only by name, only where they help, and never through args."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Kernel
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.wish import ArgPresent, ModuleOption, VmOption
from pve_passthrough.planning import give, make_plan

from .worlds import DEVICES, FIT, GPU, at, facts, guest
from .worlds import RADEON as RADEON_CARD

CARD = (at("01:00.0"), at("01:00.1"))
RADEON = (at("03:00.0"), at("03:00.1"))


TURING = tuple(replace(one, product=0x1E87) if one is GPU else one for one in DEVICES)
"""A card that a driver before 465 knows."""


def cpu_of(
    config: dict[str, str], devices: tuple[Device, ...] = TURING, card: tuple[Address, ...] = CARD
) -> str | None:
    known = facts(devices=devices, guests=(guest(known=devices, config=config),))
    wishes = give(known, card, 100, tweaks=("hide-hypervisor",))
    return next((wish.value for wish in wishes if isinstance(wish, VmOption) and wish.key == "cpu"), None)


def test_nothing_is_tweaked_by_itself() -> None:
    wishes = give(facts(), CARD, 100)
    assert not any(isinstance(wish, ArgPresent | ModuleOption) for wish in wishes)
    assert not any(isinstance(wish, VmOption) and wish.key in ("cpu", "args") for wish in wishes)


def test_hiding_keeps_what_the_cpu_line_says_and_never_writes_args() -> None:
    assert cpu_of(FIT) == "host,hidden=1"
    assert cpu_of({**FIT, "cpu": "host,flags=+pdpe1gb"}) == "host,flags=+pdpe1gb,hidden=1"
    assert cpu_of({"machine": "q35", "cpu": "x86-64-v2-AES"}) == "host,hidden=1"
    assert cpu_of({**FIT, "cpu": "host,hidden=1"}) is None
    assert cpu_of({**FIT, "ostype": "win11"}) == "host,hidden=1,hv-vendor-id=proxmox"


@pytest.mark.parametrize("card", [CARD, RADEON])
def test_hiding_is_refused_where_no_driver_looks_for_a_hypervisor(card: tuple[Address, ...]) -> None:
    """An RTX 4090 is younger than 465, and AMD's Linux driver does not care."""
    with pytest.raises(Failure) as caught:
        give(facts(), card, 100, tweaks=("hide-hypervisor",))
    assert caught.value.problem.ref == "tweak.no-use"
    assert any(str(card[0]) in line for line in caught.value.problem.context)


def test_what_only_users_report_is_said_to_be_a_report() -> None:
    navi = tuple(replace(one, product=0x747E) if one is RADEON_CARD else one for one in DEVICES)
    windows = {**FIT, "ostype": "win11"}
    assert cpu_of(windows, navi, RADEON) == "host,hv-vendor-id=AuthenticAMD"
    known = facts(devices=navi, guests=(guest(known=navi, config=windows),))
    wish = next(
        one for one in give(known, RADEON, 100, tweaks=("hide-hypervisor",)) if getattr(one, "key", "") == "cpu"
    )
    assert "nobody here has checked it" in wish.why


def test_ignored_registers_become_options_of_kvm() -> None:
    known = facts()
    plan = make_plan(
        known, give(known, CARD, 100, tweaks=("ignore-msrs",)), goal="g", now="20261121140501", machine="m"
    )
    text = next(one.after for one in plan.changes if one.cell.name == "/etc/modprobe.d/pve-passthrough.conf") or ""
    assert "options kvm ignore_msrs=1" in text and "report_ignored_msrs=0" in text
    assert plan.reboot and plan.refreshes == ("initramfs",)


def test_split_lock_is_a_kernel_argument_that_is_not_given_twice() -> None:
    told = [wish for wish in give(facts(), CARD, 100, tweaks=("split-lock",)) if isinstance(wish, ArgPresent)]
    assert [wish.token for wish in told] == ["split_lock_detect=off"]
    known = facts(kernel=Kernel("7.0.14-4-pve", "root=/dev/mapper/pve-root ro split_lock_detect=off"))
    assert not any(isinstance(wish, ArgPresent) for wish in give(known, CARD, 100, tweaks=("split-lock",)))


def test_an_entry_may_hide_its_rom_and_keeps_what_else_it_says() -> None:
    def entry(config: dict[str, str]) -> str | None:
        wishes = give(facts(guests=(guest(config={**FIT, **config}),)), CARD, 100, tweaks=("no-rom-bar",))
        return next((wish.value for wish in wishes if isinstance(wish, VmOption) and wish.key == "hostpci0"), None)

    assert entry({}) == "0000:01:00,pcie=1,rombar=0"
    assert entry({"hostpci0": "0000:01:00,pcie=1,rombar=1"}) == "0000:01:00,pcie=1,rombar=0"
    assert entry({"hostpci0": "0000:01:00,pcie=1,rombar=0"}) is None
