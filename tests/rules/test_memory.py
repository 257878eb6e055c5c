"""Windows and BARs: what is said, with which numbers, and which way out is offered."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.model.facts import Cpu, Facts, Iommu, Pve
from pve_passthrough.model.finding import Actor, Finding, Level
from pve_passthrough.model.pci import Address, Bar
from pve_passthrough.rules import Request, memory

from .worlds import BOTH, DEVICES, GPU, SOUND, device, guest, host, with_device

GIB = 1 << 30
XEON = Cpu("GenuineIntel", "Xeon", 46, frozenset({"pdpe1gb"}), 16)
DESKTOP = replace(XEON, physical_bits=39)
SIZES = tuple(1 << power for power in range(28, 36))


def with_bar(size: int, cpu: Cpu = XEON, sizes: tuple[int, ...] = (), /, **config: Any) -> Facts:
    bars = (Bar(1, 1 << 38, size, wide=True, prefetchable=True, sizes=sizes),)
    return host(devices=with_device(GPU, bars=bars), cpu=cpu, guests=(guest(**config),))


def window(facts: Facts) -> list[Finding]:
    return list(memory.window(facts, BOTH))


def commands(finding: Finding) -> tuple[str, ...]:
    return finding.fix.commands if finding.fix else ()


def test_the_numbers_are_in_the_message_and_the_evidence() -> None:
    (found,) = window(with_bar(32 * GIB, cpu="x86-64-v2-AES"))
    assert (found.level, found.actor) == (Level.HARMS, Actor.US)
    assert "needs 32 GiB" in found.message and "opens 32 GiB" in found.message
    assert f"{GPU}: BAR 1 is 32 GiB" in found.evidence
    assert commands(found) == (f"pve-passthrough up {GPU} --vm 100",)


@pytest.mark.parametrize(
    ("facts", "silent"),
    [
        (with_bar(32 * GIB, cpu="host"), True),
        (with_bar(16 * GIB - (1 << 28), cpu="kvm64"), True),
        (with_bar(64 * GIB, DESKTOP, cpu="host"), False),  # an eighth of 512 GiB, and nothing beside it
        (with_bar(32 * GIB, Cpu("AuthenticAMD", "EPYC", 48, frozenset({"pdpe1gb"}), 8), cpu="kvm64"), True),
    ],
)
def test_what_fits_is_silent(facts: Facts, silent: bool) -> None:
    assert (not window(facts)) is silent


def test_a_host_processor_that_is_not_enough_is_never_offered() -> None:
    """39 bits give 64 GiB: too little for a BAR of 64 GiB whatever the cpu line says."""
    (found,) = window(with_bar(64 * GIB, DESKTOP, (*SIZES, 1 << 36), cpu="kvm64"))
    assert commands(found) == (f"pve-passthrough bars {GPU} --set 1=16G",)
    (found,) = window(with_bar(64 * GIB, DESKTOP, cpu="kvm64"))
    assert commands(found) == ("qm set 100 --args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=131072'",)


def test_a_smaller_bar_is_the_largest_that_fits() -> None:
    (found,) = window(with_bar(64 * GIB, DESKTOP, (*SIZES, 1 << 36), cpu="host"))
    assert commands(found) == (f"pve-passthrough bars {GPU} --set 1=32G",)


def test_seabios_is_a_note_and_an_unknown_processor_is_unknown() -> None:
    (found,) = window(with_bar(32 * GIB, bios="seabios"))
    assert found.level is Level.NOTE and "not verified" in found.message
    (found,) = window(with_bar(32 * GIB, cpu="custom-mine"))
    assert found.level is Level.UNKNOWN and "custom-mine" in found.evidence[0]
    assert window(with_bar(1 * GIB, bios="seabios")) == []


def test_two_cards_need_more_than_their_sum() -> None:
    other = Address(0, 4, 0, 0)
    bars = (Bar(1, 1 << 38, 16 * GIB, wide=True), Bar(3, 1 << 37, 1 << 25, wide=True))
    second = device(other, "second", "10de:2684", 0x030000, 9, bars=bars)
    facts = host(devices=(*with_device(GPU, bars=bars), second), cpu=XEON, guests=(guest(cpu="kvm64"),))
    (found,) = memory.window(facts, Request((GPU, SOUND, other), 100))
    assert "48.03 GiB" in found.message


# -- the IOMMU's width ------------------------------------------------------------------------------------------------


def width(cpu: str, qemu_server: str, physical: int = 46) -> list[Finding]:
    facts = host(
        iommu=Iommu(("dmar0",), True, 39), cpu=replace(XEON, physical_bits=physical), guests=(guest(cpu=cpu),),
        pve=Pve(True, "9.1", qemu_server, "pve", ("pve",), quorate=True, writable=True),
    )  # fmt: skip
    return list(memory.address_width(facts, BOTH))


@pytest.mark.parametrize(
    ("version", "option"),
    [("9.2.6", "guest-phys-bits"), ("9.0.18", "guest-phys-bits"), ("9.0.17", "phys-bits"), ("8.4.10", "phys-bits"),
     ("", "phys-bits"), ("10.0.1~rc1", "phys-bits")],
)  # fmt: skip
def test_the_option_follows_the_version_of_proxmox(version: str, option: str) -> None:
    (found,) = width("host,hidden=1", version)
    assert commands(found) == (f"qm set 100 --cpu host,hidden=1,{option}=39",)
    assert found.fix and "64 GiB" in found.fix.text


def test_a_limited_guest_and_a_model_need_no_word() -> None:
    assert width("host,guest-phys-bits=39", "9.2.6") == []
    assert width("x86-64-v2-AES", "9.2.6") == [], "its window lies right above its memory"
    assert width("host", "9.2.6", physical=39) == []
    (found,) = width("host,guest-phys-bits=40", "9.2.6")
    assert commands(found) == ("qm set 100 --cpu host,guest-phys-bits=39",)


# -- BARs on the host -------------------------------------------------------------------------------------------------


def test_an_arc_card_with_a_small_bar_is_harmed_and_others_are_not() -> None:
    arc = device(
        Address(0, 3, 0, 0), "Arc A770", "8086:56a0", 0x030000, 9,
        bars=(Bar(2, 1 << 38, 1 << 28, wide=True, sizes=SIZES),),
    )  # fmt: skip
    (found,) = memory.resizable(host(devices=(*DEVICES, arc)), Request((arc.address,)))
    assert found.level is Level.HARMS and found.actor is Actor.FIRMWARE
    assert commands(found) == ("pve-passthrough bars 0000:03:00.0 --set 2=32G",)
    (found,) = memory.resizable(with_bar(1 << 28, XEON, SIZES), BOTH)
    assert found.level is Level.NOTE
    assert list(memory.resizable(with_bar(32 * GIB, XEON, SIZES), BOTH)) == []


def test_an_unplaced_bar_names_the_firmwares_switch_when_nothing_lies_high() -> None:
    lost = Bar(1, 0, 16 * GIB, wide=True)
    (found,) = memory.unplaced(host(devices=with_device(GPU, bars=(lost,))), BOTH)
    assert (found.level, found.actor) == (Level.HARMS, Actor.FIRMWARE)
    assert "BAR 1 (16 GiB)" in found.message and "pci=realloc" in (found.fix.text if found.fix else "")
    assert any("Above 4G" in line for line in found.evidence)
    others = with_device(GPU, bars=(lost, Bar(3, 1 << 38, 1 << 25, wide=True)))
    (found,) = memory.unplaced(host(devices=others), BOTH)
    assert not any("Above 4G" in line for line in found.evidence)
    fine = (Bar(0, 0, 32, io=True), Bar(6, 0, 1 << 16))
    assert list(memory.unplaced(host(devices=with_device(GPU, bars=fine)), BOTH)) == []
