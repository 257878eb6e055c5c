"""The ladder for single USB devices: what the guest lists, in Linux and in Windows, and what nobody could ask."""

from __future__ import annotations

import json

import pytest

from pve_passthrough.guest import Outcome, Rung, agent, climb
from pve_passthrough.host.base import Ran
from pve_passthrough.model.facts import Facts, MapEntry, ResourceMapping
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.model.vm import HostPci, Vm

from .test_ladder import FACTS, GPU, LINUX_GUEST, Table

RECEIVER = UsbDevice("1-2", 0x046D, 0xC52B, 0, "Unifying Receiver", None)
STICK = UsbDevice("2-1", 0x1A6E, 0x089A, 0, "", None)
USB = Facts("test", usb=(RECEIVER, STICK))

LINUX_USB = (
    "MAJOR=189\nMINOR=0\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=1d6b/2/606\n"
    "DEVTYPE=usb_interface\nDRIVER=hub\nPRODUCT=1d6b/2/606\n"
    "DEVTYPE=usb_interface\nDRIVER=usbhid\nPRODUCT=46d/c52b/1211\nMODALIAS=usb:v046DpC52B\n"
    "MAJOR=189\nDEVTYPE=usb_device\nDRIVER=usb\nPRODUCT=46d/c52b/1211\n"
)


def answers(text: str, code: int = 0, system: str = "debian", pci: str = LINUX_GUEST) -> dict[str, Ran]:
    def said(out: str) -> Ran:
        return Ran(0, json.dumps({"exited": 1, "exitcode": code, "out-data": out}))

    return {
        "qm guest cmd 100 get-osinfo": Ran(0, json.dumps({"id": system})),
        "qm guest exec 100 --timeout 60 -- find -L /sys/bus/pci": said(pci),
        "qm guest exec": said(text),
    }


def climbed(programs: dict[str, Ran], facts: Facts = USB, **config: str) -> tuple[Rung, ...]:
    vm = Vm(100, "pve", {"name": "win", **config})
    return climb(Table(programs, running=True), facts, vm, patience=0)


def test_linux_lists_it_with_its_driver() -> None:
    rungs = climbed(answers(LINUX_USB), usb0="host=046d:c52b")
    assert [rung.outcome for rung in rungs] == [Outcome.PASSED, Outcome.SKIPPED, Outcome.PASSED, Outcome.PASSED]
    assert rungs[0].evidence == ("usb0: Unifying Receiver (1-2)",)
    assert "bound to nothing" in rungs[1].message
    assert rungs[3].evidence == ("guest: 046d:c52b driver usbhid (Unifying Receiver (1-2))",)


def test_windows_lists_it() -> None:
    rows = [
        {"InstanceId": "USB\\VID_046D&PID_C52B\\5&1&0&2", "Status": "OK", "Problem": 0, "Service": "usbccgp"},
        {"InstanceId": "USB\\VID_046D&PID_C52B&MI_00\\6&1&0&0", "Status": "OK", "Problem": 0, "Service": "HidUsb"},
        {"InstanceId": "PCI\\VEN_8086&DEV_2918\\3&1", "Status": "OK", "Problem": 0, "Service": ""},
    ]
    rungs = climbed(answers(json.dumps(rows), system="mswindows"), usb0="host=046d:c52b")
    assert rungs[3].outcome is Outcome.PASSED
    assert rungs[3].evidence == ("guest: 046d:c52b driver usbccgp (Unifying Receiver (1-2))",)


def test_what_the_guest_lacks_fails() -> None:
    rungs = climbed(answers(LINUX_USB), usb0="host=046d:c52b", usb1="host=2-1")
    assert rungs[3].outcome is Outcome.FAILED
    assert rungs[3].evidence[-1] == "guest: no USB device with id 1a6e:089a (1a6e:089a (2-1))"


def test_one_device_does_not_count_twice() -> None:
    twin = UsbDevice("1-3", 0x046D, 0xC52B, 0, "Unifying Receiver", None)
    rungs = climbed(answers(LINUX_USB), Facts("test", usb=(RECEIVER, twin)), usb0="host=1-2", usb1="host=1-3")
    assert rungs[3].outcome is Outcome.FAILED


def test_a_device_that_has_changed_its_id_is_known_again() -> None:
    rungs = climbed(answers("DEVTYPE=usb_device\nPRODUCT=18d1/9302/100\n"), usb1="host=2-1")
    assert rungs[3].outcome is Outcome.PASSED
    assert rungs[3].evidence[0].startswith("guest: 18d1:9302")


def test_a_device_that_is_not_plugged_in_is_not_asked_for() -> None:
    rungs = climbed(answers(LINUX_USB), usb0="host=dead:beef", usb1="spice")
    assert [rung.outcome for rung in rungs] == [Outcome.PASSED, Outcome.SKIPPED, Outcome.PASSED, Outcome.SKIPPED]
    assert "not plugged in" in rungs[0].evidence[0]


def test_a_mapping_without_its_device_fails_before_the_start() -> None:
    mapping = ResourceMapping("usb", "key", (MapEntry("pve", "", {"id": "dead:beef"}),))
    rungs = climbed(answers(LINUX_USB), Facts("test", usb=(RECEIVER,), mappings=(mapping,)), usb0="mapping=key")
    assert rungs[0].outcome is Outcome.FAILED
    assert len(rungs) == 2


def test_a_card_and_a_stick_are_both_asked_for() -> None:
    vm = Vm(100, "pve", {"name": "win", "usb0": "host=046d:c52b"}, hostpci=(HostPci("hostpci0", {}, (GPU,)),))
    facts = Facts("test", devices=FACTS.devices, usb=USB.usb)
    rungs = climb(Table(answers(LINUX_USB), running=True), facts, vm, patience=0)
    assert rungs[0].message.endswith("claims 1 function(s) and 1 USB device(s)")
    assert rungs[1].outcome is Outcome.PASSED
    assert [line.split()[1] for line in rungs[3].evidence] == ["10de:2684", "046d:c52b"]


@pytest.mark.parametrize("text", ["PRODUCT=zz/1/1\n", "DEVTYPE=usb_device\nPRODUCT=1/2\n", "\0" * 50, "PRODUCT=/" * 99])
def test_nonsense_from_the_guest_is_no_device(text: str) -> None:
    rungs = climbed(answers(text), usb0="host=046d:c52b")
    assert rungs[3].outcome is Outcome.FAILED


def test_a_guest_without_an_agent_is_unknown() -> None:
    rungs = climbed({"qm guest": Ran(255, "", "QEMU guest agent is not running\n")}, usb0="host=046d:c52b")
    assert rungs[3].outcome is Outcome.UNKNOWN
    assert "agent" in rungs[3].hint


def test_a_program_that_fails_in_the_guest_is_unknown() -> None:
    assert climbed(answers("", code=1), usb0="host=046d:c52b")[3].outcome is Outcome.UNKNOWN
    assert isinstance(agent.usb_devices_in(Table({}), 100), agent.Silence)
