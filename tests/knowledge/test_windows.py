"""The window that OVMF opens, against what edk2's MemDetect.c does with the same numbers."""

from __future__ import annotations

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.knowledge import windows
from pve_passthrough.knowledge.windows import (
    GIB,
    GuestCpu,
    demand,
    fits,
    guest_cpu,
    ovmf_window,
    parse_size,
    short,
    shown,
)
from pve_passthrough.model.facts import Cpu, Iommu
from pve_passthrough.model.pci import Address, Bar, Device
from pve_passthrough.model.vm import Vm

DESKTOP = Cpu("GenuineIntel", "i7", 39, frozenset({"pdpe1gb"}), 16)
XEON = Cpu("GenuineIntel", "Xeon", 46, frozenset({"pdpe1gb"}), 32)
RYZEN = Cpu("AuthenticAMD", "Ryzen", 48, frozenset({"pdpe1gb"}), 16)
NOBODY = Cpu()
TIB = 1 << 40


def guest(cpu: str = "", **config: str) -> Vm:
    values = {"bios": "ovmf", "memory": "8192", **({"cpu": cpu} if cpu else {}), **config}
    return Vm(100, "pve", values)


@pytest.mark.parametrize(
    ("cpu", "host", "size"),
    [
        ("host", DESKTOP, 64 * GIB),  # 39 bits, known to be right for Intel
        ("host", XEON, 8 * TIB),  # 46 bits
        ("host", RYZEN, 8 * TIB),  # 48 bits, limited to 46 by four-level paging
        ("max", XEON, 8 * TIB),
        ("", XEON, 32 * GIB),  # kvm64: 40 bits, which says nothing on Intel
        ("x86-64-v2-AES", XEON, 32 * GIB),
        ("x86-64-v2-AES", RYZEN, 128 * GIB),  # 40 bits are believed on AMD
        ("Skylake-Server", XEON, 32 * GIB),
        ("EPYC-Rome", RYZEN, 128 * GIB),
        ("x86-64-v2-AES,phys-bits=host", XEON, 128 * GIB),  # no pages of 1 GiB: 40 bits
        ("x86-64-v2-AES,phys-bits=host,flags=+pdpe1gb", XEON, 8 * TIB),
        ("Skylake-Server,phys-bits=host", XEON, 8 * TIB),
        ("Skylake-Client,phys-bits=host", XEON, 128 * GIB),
        ("host,flags=-pdpe1gb", XEON, 128 * GIB),
        ("host,guest-phys-bits=39", XEON, 64 * GIB),
        ("kvm64,guest-phys-bits=39", XEON, 64 * GIB),  # always believed
        ("host,phys-bits=39", XEON, 64 * GIB),
        ("host,phys-bits=38", XEON, 32 * GIB),  # no Intel processor has 38
        ("host,phys-bits=36", XEON, 32 * GIB),  # believed, but an eighth is less than the classic window
        ("host", NOBODY, None),
        ("x86-64-v2-AES", NOBODY, None),
        ("custom-mine", XEON, None),
        ("host,phys-bits=lots", XEON, None),
        ("host", Cpu("GenuineIntel", "i7", 46, None, 4), None),  # nobody knows whether it has pages of 1 GiB
    ],
)
def test_ovmf(cpu: str, host: Cpu, size: int | None) -> None:
    found = windows.window_of(guest(cpu), host)
    assert found.size == size
    assert found.why


def test_what_makes_the_window_unknown() -> None:
    for config in ({"bios": "seabios"}, {"args": "-cpu host,kvm=off"}, {"kvm": "0"}, {"arch": "aarch64"}):
        assert windows.window_of(guest("host", **config), XEON).size is None, config
    assert windows.window_of(Vm(1, "pve", {"cpu": "host"}), XEON).size is None, "SeaBIOS is the default"
    assert windows.window_of(guest("host", args="-device x-cpu"), XEON).size == 8 * TIB


def test_the_firmwares_own_switch() -> None:
    args = "-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=65536"
    assert windows.window_of(guest("kvm64", args=args), XEON).size == 64 * GIB
    assert windows.window_of(guest("host", args=args), XEON).size == 8 * TIB, "the larger of both counts"
    huge = "-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string=99999999"
    assert windows.window_of(guest("kvm64", args=huge), XEON).size == 32 * GIB, "more than 16 TiB is ignored"


def test_memory_that_reaches_into_the_last_eighth() -> None:
    """39 bits are 512 GiB, of which OVMF wants the last 64."""
    assert windows.window_of(guest("host", memory=str(300 * 1024)), DESKTOP).size == 64 * GIB
    assert windows.window_of(guest("host", memory=str(440 * 1024)), DESKTOP).size == 32 * GIB


@given(st.integers(32, 64), st.sampled_from(["GenuineIntel", "AuthenticAMD", None]), st.booleans(), st.booleans())
def test_never_smaller_than_classic_and_never_more_than_an_eighth(
    bits: int, maker: str | None, pages: bool, told: bool
) -> None:
    found = ovmf_window(GuestCpu(bits, maker, pages, told, "test"), 8 * GIB)
    if found.size is None:
        assert maker is None and not told and bits <= 40
    else:
        assert 32 * GIB <= found.size <= max(32 * GIB, 1 << min(bits, 46) - 3)


# -- what devices need -----------------------------------------------------------------------------------------------


def card(*sizes: int, address: str = "0000:01:00.0") -> tuple[Device, ...]:
    bars = tuple(Bar(2 * index, 1 << 38, size, wide=True, prefetchable=True) for index, size in enumerate(sizes))
    return (Device(Address.parse(address), bars=bars),)


def test_demand_of_one_card_is_the_sum_and_of_several_has_gaps() -> None:
    assert demand([card(16 * GIB, 32 << 20)]) == 16 * GIB + (32 << 20)
    assert demand([card(16 * GIB, 32 << 20), card(16 * GIB, 32 << 20)]) == 48 * GIB + (32 << 20)
    assert demand([card(1 << 20), card(32 * GIB)]) == 32 * GIB + (1 << 20), "the large one goes first"
    assert demand([]) == 0
    assert demand([(Device(Address(0, 1, 0, 0)),)]) == 0, "BARs that nobody could read"


def test_ports_32_bit_and_rom_do_not_count() -> None:
    bars = (Bar(0, 1, 1 << 30), Bar(1, 1, 256, io=True), Bar(6, 1, 1 << 19, wide=True))
    assert demand([(Device(Address(0, 1, 0, 0), bars=bars),)]) == 0


def test_a_bar_as_large_as_the_window_does_not_fit_beside_the_guests_own_devices() -> None:
    classic = windows.window_of(guest("kvm64"), XEON)
    assert fits(demand([card(16 * GIB, 32 << 20)]), classic) is True
    assert fits(demand([card(32 * GIB)]), classic) is False
    assert fits(demand([card(32 * GIB)]), windows.window_of(guest("host"), NOBODY)) is None
    assert fits(256 << 20, windows.window_of(guest("host"), NOBODY)) is True, "little fits into any window"


def test_the_iommu_may_reach_less_far_than_the_guest() -> None:
    narrow = Iommu(("dmar0",), address_width=39)
    assert windows.beyond_iommu(46, narrow) and not windows.beyond_iommu(39, narrow)
    assert not windows.beyond_iommu(None, narrow) and not windows.beyond_iommu(46, replace(narrow, address_width=None))


# -- words -----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "size"),
    [("8G", 8 * GIB), ("256M", 1 << 28), ("8GiB", 8 * GIB), ("8 gb", 8 * GIB), ("512", 1 << 29), ("1t", TIB),
     ("", None), ("G", None), ("-1G", None), ("1.5G", None), ("8X", None), ("٨G", None), ("9" * 12, None)],
)  # fmt: skip
def test_sizes_as_people_write_them(text: str, size: int | None) -> None:
    assert parse_size(text) == size


def test_sizes_as_people_read_them() -> None:
    assert [shown(size) for size in (32 * GIB, 32 * GIB + (32 << 20), 1 << 28, 16 << 10, 512, 0)] == [
        "32 GiB", "32.03 GiB", "256 MiB", "16 KiB", "512 bytes", "0 bytes"
    ]  # fmt: skip


@pytest.mark.parametrize(("size", "text"), [(8 * GIB, "8G"), (1 << 28, "256M"), (1536 << 20, "1536M")])
def test_sizes_as_the_program_writes_them(size: int, text: str) -> None:
    assert short(size) == text and parse_size(text) == size


@given(st.text(max_size=60))
def test_any_cpu_line_has_an_answer(line: str) -> None:
    assert guest_cpu(line, XEON).why
