"""The simulated kernel's virtual functions: drivers/pci/iov.c, and what `ip` says of them."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from pve_passthrough.host.base import Missing, Unreadable
from pve_passthrough.host.simulated import Simulated, power_cut
from tests.copies import copy_of

PF = "0000:05:00.0"
HOME = f"/sys/bus/pci/devices/{PF}"
NUMBER = f"{HOME}/sriov_numvfs"


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return copy_of("sriov-nic", tmp_path / "host")


def test_numbers_are_taken_and_refused_as_the_kernel_does(host: Simulated) -> None:
    for text, words in ((b"8\n", "Numerical result out of range"), (b"-1\n", "Invalid"), (b"x\n", "Invalid")):
        with pytest.raises(Unreadable, match=words):
            host.write(NUMBER, text)
    host.write(NUMBER, b"3\n")
    host.write(NUMBER, b"3\n")
    with pytest.raises(Unreadable, match="busy"):
        host.write(NUMBER, b"4\n")
    assert "3 VFs already enabled. Disable before enabling 4 VFs" in host.run(("dmesg",)).stdout
    assert host.read(NUMBER) == b"3\n"


def test_without_a_driver_or_with_vfio_pci_there_are_none(host: Simulated) -> None:
    host.write("/sys/bus/pci/drivers/igb/unbind", PF.encode())
    with pytest.raises(Missing):
        host.write(NUMBER, b"1\n")
    assert "no driver bound to device" in host.run(("dmesg",)).stdout
    host.run(("modprobe", "vfio-pci"))
    host.world.place(PF, "vfio-pci")
    with pytest.raises(Missing):
        host.write(NUMBER, b"1\n")
    assert "driver does not support SR-IOV" in host.run(("dmesg",)).stdout


def test_links_addresses_groups_and_drivers_come_and_go(host: Simulated) -> None:
    groups = set(host.names("/sys/kernel/iommu_groups"))
    host.write(NUMBER, b"2\n")
    assert host.link(f"{HOME}/virtfn1") == "../0000:06:10.2"
    assert host.link("/sys/bus/pci/devices/0000:06:10.2/physfn") == f"../{PF}"
    assert host.read("/sys/bus/pci/devices/0000:06:10.2/device") == b"0x10ca\n"
    assert host.world.driver_of("0000:06:10.2") == "igbvf"
    assert "enp5s0f0v1" in host.names("/sys/class/net")
    assert len(set(host.names("/sys/kernel/iommu_groups")) - groups) == 2
    host.write(NUMBER, b"0\n")
    assert set(host.names("/sys/kernel/iommu_groups")) == groups
    assert "virtfn0" not in host.names(HOME) and "0000:06:10.0" not in host.world.addresses()
    assert "enp5s0f0v1" not in host.names("/sys/class/net")


@pytest.mark.parametrize("end", ["start", "driver"])
def test_power_and_the_driver_take_them_away(host: Simulated, end: str) -> None:
    host.write(NUMBER, b"2\n")
    power_cut(host.world) if end == "start" else host.write("/sys/bus/pci/drivers/igb/unbind", PF.encode())
    assert host.read(NUMBER) == b"0\n" and "0000:06:10.0" not in host.world.addresses()


def test_without_autoprobe_only_an_override_lets_a_driver_have_one(host: Simulated) -> None:
    host.write(f"{HOME}/sriov_drivers_autoprobe", b"0\n")
    host.write(NUMBER, b"1\n")
    assert host.world.driver_of("0000:06:10.0") is None
    with pytest.raises(Unreadable, match="No such device"):
        host.write("/sys/bus/pci/drivers/igbvf/bind", b"0000:06:10.0")
    host.write("/sys/bus/pci/devices/0000:06:10.0/driver_override", b"igbvf\n")
    host.write("/sys/bus/pci/drivers/igbvf/bind", b"0000:06:10.0")
    assert host.world.driver_of("0000:06:10.0") == "igbvf"


def test_ip_shows_and_sets_what_is_enforced(host: Simulated) -> None:
    show = ("ip", "-j", "link", "show", "dev", "enp5s0f0")
    assert "vfinfo_list" not in json.loads(host.run(show).stdout)[0]
    host.write(NUMBER, b"1\n")
    words = ("ip", "link", "set", "dev", "enp5s0f0", "vf")
    assert host.run((*words, "0", "mac", "02:00:00:00:00:01", "vlan", "5", "trust", "on")).ok
    (one,) = json.loads(host.run(show).stdout)[0]["vfinfo_list"]
    assert (one["address"], one["vlan_list"], one["trust"]) == ("02:00:00:00:00:01", [{"vlan": 5}], True)
    for wrong in (("1", "trust", "on"), ("0", "mac", "01:00:00:00:00:01"), ("0", "vlan", "4096")):
        ran = host.run((*words, *wrong))
        assert ran.rc == 2 and ran.stderr.startswith("RTNETLINK answers: Invalid argument")
    assert not host.run(("ip", "-j", "link", "show", "dev", "nowhere")).ok
