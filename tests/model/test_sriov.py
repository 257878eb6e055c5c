"""Virtual functions as text: what is written is read again, and nothing else is."""

from __future__ import annotations

import contextlib

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.model.pci import Address
from pve_passthrough.model.sriov import (
    SriovState,
    VfSettings,
    conf_text,
    is_mac,
    parse_conf,
    parse_links,
    parse_state,
    same_state,
    state_text,
    vf_address,
)

MACS = st.binary(min_size=6, max_size=6).map(lambda raw: ":".join(f"{byte:02x}" for byte in raw))
SWITCH = st.none() | st.booleans()
SETTINGS = st.builds(
    VfSettings, st.none() | MACS, st.none() | st.integers(0, 4095), SWITCH, SWITCH,
    st.none() | st.sampled_from(("auto", "enable", "disable")), SWITCH,
)  # fmt: skip


@st.composite
def states(draw: st.DrawFn) -> SriovState:
    vfs = draw(st.lists(SETTINGS, max_size=5))
    while vfs and not vfs[-1].named():
        vfs.pop()
    count = draw(st.integers(len(vfs), 300))
    return SriovState(count, draw(st.sampled_from(("", "8086:10c9"))), draw(SWITCH), tuple(vfs))


@given(states())
def test_what_is_written_is_read_again(state: SriovState) -> None:
    assert parse_state(state_text(state)) == state
    assert same_state(state, state)
    if state.id:
        assert parse_conf(conf_text(state)) == state


@given(states().filter(lambda one: bool(one.id)), st.integers(0, 400))
def test_no_part_of_a_file_is_taken_for_the_whole(state: SriovState, length: int) -> None:
    text = conf_text(state)
    part = text[:length].rstrip("\n")
    if part != text.rstrip("\n"):
        with pytest.raises(ValueError):
            parse_conf(part)


@given(st.text(max_size=200))
def test_nothing_else_does_more_than_raise_a_value_error(text: str) -> None:
    for parse in (parse_state, parse_conf):
        with contextlib.suppress(ValueError):
            parse(text)


@pytest.mark.parametrize("text", [
    "vfs 70000", "vfs -1", "vfs 2\nvfs 2", "vfs 1\nvf 1 mac=02:00:00:00:00:01", "vfs 1\nvf 0 mac=02", "vf 0 trust=on",
    "vfs 1\nvf 0 vlan=4096", "vfs 1\nvf 0 trust=yes", "vfs 1\nvf 0 vlan=1 vlan=2", "vfs 1\nvf 0 named=1",
    "device x\nvfs 1",
    "vfs 1\nvf 0 link=up", "vfs 1\nvf 0 trust=on\nvf 0 trust=off", "vfs ١",
])  # fmt: skip
def test_what_makes_no_sense_is_refused(text: str) -> None:
    with pytest.raises(ValueError):
        parse_state(text)


def test_only_what_both_say_can_differ() -> None:
    full = SriovState(1, "8086:10c9", True, (VfSettings("02:00:00:00:00:01", 0, False, True, "auto", False),))
    assert same_state(full, SriovState(1, vfs=(VfSettings(mac="02:00:00:00:00:01"),)))
    assert not same_state(full, SriovState(1, vfs=(VfSettings(vlan=10),)))
    assert not same_state(full, SriovState(1, "8086:1521"))
    assert same_state(SriovState(0, "8086:10c9"), SriovState(0, "8086:1521")), "no virtual functions of any card"


@pytest.mark.parametrize("data, first", [
    ([{"ifname": "a", "vfinfo_list": [{"vf": 0, "address": "AA:BB:CC:00:00:01", "vlan_list": [{"vlan": 7}],
       "spoofchk": False, "trust": True, "link_state": "enable"}]}],
     VfSettings("aa:bb:cc:00:00:01", 7, True, False, "enable")),
    ([{"ifname": "a", "vfinfo_list": [{"vf": 0, "mac": "00:00:00:00:00:00", "vlan": 9}]}],
     VfSettings("00:00:00:00:00:00", 9)),
    ([{"vfinfo_list": [{"vf": 0, "address": "80:00:00:28:fe:80:00:00:00:00:00:00:00:02:c9:03:00:0a:0b:0c"}]}],
     VfSettings(None, 0)),
])  # fmt: skip
def test_what_ip_says(data: object, first: VfSettings) -> None:
    assert parse_links(data) == (first,)


@pytest.mark.parametrize("data", [None, [], {}, [1], [{}, {}], [{"vfinfo_list": [{"vf": "0"}]}],
                                  [{"vfinfo_list": [{"vf": -1}]}], [{"vfinfo_list": [3]}]])  # fmt: skip
def test_what_ip_does_not_say(data: object) -> None:
    with pytest.raises(ValueError):
        parse_links(data)


def test_no_list_is_no_virtual_function() -> None:
    assert parse_links([{"ifname": "eno1"}]) == ()


def test_addresses_run_on_into_the_next_bus() -> None:
    """As an 82576 has them: offset 384, stride 2 (seen in many a machine's lspci)."""
    pf = Address.parse("0000:05:00.0")
    found = [str(vf_address(pf, 384, 2, index)) for index in range(3)]
    assert found == ["0000:06:10.0", "0000:06:10.2", "0000:06:10.4"]
    assert str(vf_address(Address.parse("0000:00:02.0"), 1, 1, 6)) == "0000:00:02.7"


@pytest.mark.parametrize("text, fine", [
    ("02:00:00:00:00:01", True), ("01:00:5e:00:00:01", False), ("00:00:00:00:00:00", False), ("02-00", False),
    ("", False),
])  # fmt: skip
def test_an_address_of_one_station(text: str, fine: bool) -> None:
    assert is_mac(text) is fine
