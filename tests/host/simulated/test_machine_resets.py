"""What the simulated machine believes about resets: the kernel's refusals, udev's rules, DKMS, and cards that die.

Where the beliefs come from: kernel, drivers/pci/pci-sysfs.c (reset_method_store, d3cold_allowed_store) and pci.c
(pci_parent_bus_reset, pci_dev_wait); udev(7); dkms(8); vendor-reset, README.
"""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pve_passthrough.host.base import Missing
from pve_passthrough.host.simulated import Simulated
from pve_passthrough.host.simulated.world import SysfsError
from tests.copies import copy_of

CARD, SOUND, NIC = "0000:01:00.0", "0000:01:00.1", "0000:03:00.0"
RULES = "/etc/udev/rules.d/99-pve-passthrough.rules"
DKMS = ("-m", "vendor-reset", "-v", "0.1.1")


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return copy_of("polaris", tmp_path / "host")


def path(address: str, name: str = "reset_method") -> str:
    return f"/sys/bus/pci/devices/{address}/{name}"


def shown(host: Simulated, address: str, name: str = "reset_method") -> str | None:
    return host.world.attribute(address, name)


def log(host: Simulated) -> str:
    return host.run(("dmesg",)).stdout


def refused(host: Simulated, address: str, text: str, name: str = "reset_method") -> int | None:
    with pytest.raises(SysfsError) as caught:
        host.world.sysfs(path(address, name), text)
    return caught.value.errno


def reboot(host: Simulated) -> None:
    assert host.run(("reboot",)).ok


# -- attributes ------------------------------------------------------------------------------


def test_a_list_is_taken_whole_or_not_at_all(host: Simulated) -> None:
    assert refused(host, NIC, "flr warm") == errno.EINVAL
    assert refused(host, NIC, "flr pm") == errno.EINVAL
    assert shown(host, NIC) == "flr bus"
    assert "Invalid reset method 'warm'" in log(host)
    assert "Unsupported reset method 'pm'" in log(host)


def test_default_asks_again_and_empty_switches_off(host: Simulated) -> None:
    host.world.sysfs(path(NIC), "bus")
    host.world.sysfs(path(NIC), "default")
    assert shown(host, NIC) == "flr bus"
    host.world.sysfs(path(NIC), "")
    assert shown(host, NIC) == ""
    assert refused(host, NIC, "1", "reset") == errno.ENOTTY


def test_bus_is_refused_where_another_function_is_on_the_bus(host: Simulated) -> None:
    assert shown(host, CARD) == "bus"
    assert refused(host, CARD, "bus") == errno.EINVAL
    assert shown(host, CARD) == "bus"


def test_a_choice_is_gone_after_a_start(host: Simulated) -> None:
    host.world.sysfs(path(NIC), "bus")
    reboot(host)
    assert shown(host, NIC) == "flr bus"


def test_d3cold_takes_a_number_and_wakes_the_function(host: Simulated) -> None:
    assert refused(host, NIC, "maybe", "d3cold_allowed") == errno.EINVAL
    host.world.put(path(NIC, "power_state"), "D3cold\n")
    host.world.sysfs(path(NIC, "d3cold_allowed"), "0")
    assert (shown(host, NIC, "d3cold_allowed"), shown(host, NIC, "power_state")) == ("0", "D0")


# -- udev ------------------------------------------------------------------------------------


def rule(address: str, device: str, action: str) -> str:
    return f'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}", ATTR{{device}}=="{device}", {action}\n'


def test_rules_are_obeyed_at_every_start_and_on_demand(host: Simulated) -> None:
    host.world.put(RULES, "# a comment\n" + rule(NIC, "0x15f3", 'ATTR{reset_method}="bus"'))
    assert host.run(("udevadm", "control", "--reload")).ok
    assert shown(host, NIC) == "flr bus"
    assert host.run(("udevadm", "trigger")).ok
    assert shown(host, NIC) == "bus"
    reboot(host)
    assert shown(host, NIC) == "bus"


DOES_NOTHING = (
    rule(NIC, "0x9999", 'ATTR{reset_method}="bus"'),
    rule(CARD, "0x15f3", 'ATTR{reset_method}="bus"'),
    rule(NIC, "0x15f3", 'ATTR{reset_method}="pm"'),
    rule(NIC, "0x15f3", 'ATTR{reset_method}="bus" nonsense'),
)


def test_a_rule_for_something_else_or_refused_by_the_kernel_does_nothing(host: Simulated) -> None:
    for line in DOES_NOTHING:
        host.world.put(RULES, line)
        assert host.run(("udevadm", "trigger")).ok
        assert shown(host, NIC) == "flr bus", line


def test_a_rule_in_etc_hides_its_namesake(host: Simulated) -> None:
    host.world.put("/usr/lib/udev/rules.d/50-x.rules", rule(NIC, "0x15f3", 'ATTR{reset_method}="bus"'))
    reboot(host)
    assert shown(host, NIC) == "bus"
    host.world.put("/etc/udev/rules.d/50-x.rules", "")
    reboot(host)
    assert shown(host, NIC) == "flr bus"


# -- DKMS and Secure Boot --------------------------------------------------------------------


def in_charge(host: Simulated) -> None:
    assert host.run(("dkms", "install", *DKMS)).ok
    shell = "/sbin/modprobe vendor-reset; echo device_specific > /sys/bus/pci/devices/%k/reset_method"
    action = f"RUN+=\"/bin/sh -c '{shell}'\""
    host.world.put(RULES, rule(CARD, "0x67df", action))
    reboot(host)


def test_device_specific_needs_the_module(host: Simulated) -> None:
    assert refused(host, CARD, "device_specific") == errno.EINVAL
    in_charge(host)
    assert shown(host, CARD) == "device_specific"
    assert refused(host, NIC, "device_specific") == errno.EINVAL


def test_secure_boot_keeps_an_unsigned_module_out(host: Simulated) -> None:
    machine = host.world.machine()
    machine["firmware"]["secure_boot"] = True
    host.world.save_machine(machine)
    in_charge(host)
    assert shown(host, CARD) == "bus"
    assert not host.run(("modprobe", "vendor-reset")).ok


def test_dkms_refuses_what_it_cannot_do(host: Simulated) -> None:
    unknown = ("install", "-m", "none", "-v", "1")
    for words in (unknown, ("remove", *DKMS, "--all"), ("status",), ("frobnicate", *DKMS)):
        assert not host.run(("dkms", *words)).ok, words


def test_dkms_needs_headers_and_is_not_everywhere(host: Simulated, tmp_path: Path) -> None:
    host.world.put("/lib/modules/7.0.14-4-pve/build/Makefile", None)
    ran = host.run(("dkms", "install", *DKMS))
    assert not ran.ok
    assert "headers" in ran.stderr
    plain = copy_of("default", tmp_path / "plain")
    with pytest.raises(Missing):
        plain.run(("dkms", "status", *DKMS))


# -- cards that die --------------------------------------------------------------------------


def cycle(host: Simulated) -> bool:
    started = host.run(("qm", "start", "100")).ok
    return started and host.run(("qm", "stop", "100")).ok


def give(host: Simulated) -> None:
    assert host.run(("qm", "set", "100", "--hostpci0", "0000:01:00,pcie=1", "--machine", "q35")).ok


def test_a_card_with_the_reset_bug_serves_one_guest_per_power_on(host: Simulated) -> None:
    give(host)
    assert cycle(host)
    assert "not ready 65535ms after bus reset; giving up" in log(host)
    assert host.read(path(CARD, "config"))[:2] == b"\xff\xff"
    assert not cycle(host)
    reboot(host)
    assert host.read(path(CARD, "config"))[:2] == b"\x02\x10"
    assert cycle(host)


def test_vendor_reset_brings_it_back(host: Simulated) -> None:
    give(host)
    in_charge(host)
    assert cycle(host)
    assert cycle(host)
    assert "AMD_POLARIS10: performing reset" in log(host)
