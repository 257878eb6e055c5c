"""Rules about resets: who stays behind on a bus, what a rule of ours wants, and what is no fault."""

from __future__ import annotations

from dataclasses import replace

from pve_passthrough.model.facts import Facts
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.own import UDEV_RULES
from pve_passthrough.model.pci import Address
from pve_passthrough.rules import Request, judge

from .worlds import BOTH, DEVICES, GPU, NIC, PORT, device, guest, host, with_device

USB = Address(0, 1, 0, 2)


def found(rule: str, facts: Facts, request: Request = BOTH) -> list[Finding]:
    return [finding for finding in judge(facts, request) if finding.rule == rule]


def shared_bus(group: int, **more: object) -> Facts:
    """A card that can only be reset with its bus, and a USB controller on that bus."""
    usb = device(USB, "USB Controller", "10de:1ad8", 0x0C0330, group, "xhci_hcd", parent=PORT)
    return host(devices=(*with_device(GPU, reset_methods=("bus",)), usb), **more)


def test_a_neighbour_that_stays_is_named_with_its_owner() -> None:
    (finding,) = found("resets.bus-siblings", shared_bus(9))
    assert finding.subject == str(GPU)
    assert "USB Controller" in finding.message
    assert finding.evidence[-1] == f"{USB}: on the same bus, the host has it, driver xhci_hcd"


def test_a_neighbour_of_another_guest_is_that_guests() -> None:
    other = guest(101, name="other", hostpci0=f"{USB}")
    (finding,) = found("resets.bus-siblings", shared_bus(9, guests=(guest(), other)))
    assert finding.evidence[-1] == f"{USB}: on the same bus, guest 101 (other) has it"


def test_a_neighbour_that_goes_along_harms_nobody() -> None:
    assert found("resets.bus-siblings", shared_bus(1)) == []
    assert found("resets.bus-siblings", shared_bus(9), Request((*BOTH.addresses, USB), 100)) == []


def test_a_card_with_a_reset_of_its_own_needs_no_bus() -> None:
    facts = shared_bus(9)
    devices = (replace(one, reset_methods=("flr",)) if one.address == GPU else one for one in facts.devices)
    own = replace(facts, devices=tuple(devices))
    assert found("resets.bus-siblings", own) == []


def test_a_function_that_has_no_reset_at_all_is_not_switched_off() -> None:
    none = host(devices=with_device(GPU, reset_methods=(), resettable=False))
    assert found("resets.switched-off", none) == []
    assert found("resets.switched-off", host(devices=with_device(GPU, reset_methods=())))


def test_a_rule_in_force_and_a_rule_for_another_are_no_fault() -> None:
    def ruled(address: Address, wanted: str) -> Facts:
        comment = f'# KERNEL=="{GPU}", ATTR{{reset_method}}="pm"'
        files = {UDEV_RULES: f'{comment}\nKERNEL=="{address}", ATTR{{reset_method}}="{wanted}"\n'}
        return host(devices=with_device(GPU, reset_methods=("flr",)), files=files)

    assert found("resets.not-in-force", ruled(GPU, "flr")) == []
    assert found("resets.not-in-force", ruled(NIC, "pm")) == []
    assert found("resets.not-in-force", ruled(GPU, "pm"))[0].level is Level.HARMS


def test_a_rule_that_loads_a_module_is_read_too() -> None:
    line = f'KERNEL=="{GPU}", RUN+="/bin/sh -c \'/sbin/modprobe x; echo device_specific > /sys/y/%k/reset_method\'"\n'
    facts = host(devices=with_device(GPU, reset_methods=("bus", "flr")), files={UDEV_RULES: line})
    (finding,) = found("resets.not-in-force", facts)
    assert "device_specific" in finding.message


def test_a_device_specific_reset_that_somebody_switched_off_is_a_note() -> None:
    nvme = device(Address(0, 5, 0, 0), "NVMe", "144d:a804", 0x010802, 12, "nvme", reset_methods=("flr",))
    (finding,) = found("resets.known", host(devices=(*DEVICES, nvme)), Request((nvme.address,)))
    assert finding.level is Level.NOTE
    assert "device_specific" in finding.message
