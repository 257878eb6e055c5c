"""USB devices that come and go: what the tree shows, what a running guest has, and what Proxmox VE does with usbN."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.host.simulated import Simulated, plug, power_cut, unplug
from tests.copies import copy_of

USB = "/sys/bus/usb/devices"


@pytest.fixture
def desk(tmp_path: Path) -> Simulated:
    return copy_of("usb-desk", tmp_path / "host")


def ran(host: Simulated, *argv: str) -> str:
    result = host.run(argv)
    assert result.ok, result.stderr
    return result.stdout


def in_guest(host: Simulated, vmid: str = "201") -> str:
    return ran(host, "qm", "guest", "exec", vmid, "--", "lsusb")


def test_what_hangs_on_a_hub_goes_with_it_and_comes_back_under_its_new_port(desk: Simulated) -> None:
    before = set(desk.names(USB))
    unplug(desk.world, "1-4")
    gone = before - set(desk.names(USB))
    assert gone == {"1-4", "1-4:1.0"} | {f"1-4.{n}" for n in (1, 2, 3)} | {
        "1-4.1:1.0", "1-4.2:1.0", "1-4.3:1.0", "1-4.3:1.1",
    }  # fmt: skip
    assert desk.names("/sys/class/tty") == ()
    plug(desk.world, "1-9", pulled="1-4")
    assert set(desk.names(USB)) - (before - gone) == {name.replace("1-4", "1-9") for name in gone}
    assert desk.read(f"{USB}/1-9.2/serial") == b"a0002\n"
    assert desk.link("/sys/class/tty/ttyUSB1").endswith("/usb1/1-9/1-9.2/1-9.2:1.0/ttyUSB1/tty/ttyUSB1")
    assert desk.read(f"{USB}/1-9.2:1.0/bInterfaceClass") == b"ff\n"


def test_it_is_still_unplugged_after_a_power_cut(desk: Simulated) -> None:
    unplug(desk.world, "1-5")
    power_cut(desk.world)
    assert "1-5" not in desk.names(USB)
    plug(desk.world, "1-5")
    power_cut(desk.world)
    assert "1-5" in desk.names(USB)


def test_a_controller_without_its_driver_has_no_bus(desk: Simulated) -> None:
    desk.write("/sys/bus/pci/drivers/xhci_hcd/unbind", b"0000:00:14.0\n")
    assert desk.names(USB) == ()
    with pytest.raises(Failure):
        unplug(desk.world, "1-5")
    with pytest.raises(Failure):
        plug(desk.world, "1-9", ids="dead:beef")


def test_a_running_guest_has_what_is_plugged_in(desk: Simulated) -> None:
    ran(desk, "qm", "set", "201", "--usb0", "host=051d:0002", "--usb1", "host=1-4.3")
    ran(desk, "qm", "start", "201")
    assert "051d:0002" in in_guest(desk) and "1cf1:0030" in in_guest(desk)
    unplug(desk.world, "1-4.3")
    assert "1cf1:0030" not in in_guest(desk)
    plug(desk.world, "1-4.3", ids="dead:beef")
    assert "dead:beef" in in_guest(desk), "by its port it takes whatever is there"


@pytest.mark.parametrize(
    ("options", "at_once"),
    [
        ((), True),
        (("--machine", "pc-q35-7.1"), True),
        (("--hotplug", "disk,network"), False),
        (("--ostype", "other"), False),
        (("--machine", "pc-q35-7.0"), False),
    ],
)
def test_usb_of_a_running_guest(desk: Simulated, options: tuple[str, ...], at_once: bool) -> None:
    """qemu-server, QemuServer.pm, vmconfig_hotplug_pending: adding and deleting obey the same condition."""
    ran(desk, "qm", "set", "201", *options, "--usb3", "host=1-5")
    ran(desk, "qm", "start", "201")
    ran(desk, "qm", "set", "201", "--usb0", "host=1-1")
    ran(desk, "qm", "set", "201", "--delete", "usb3")
    current = ran(desk, "qm", "config", "201", "--current", "1")
    assert ("usb0: host=1-1" in current) is at_once
    assert ("usb3: host=1-5" in current) is not at_once
    ran(desk, "qm", "stop", "201")
    after = ran(desk, "qm", "config", "201", "--current", "1")
    assert "usb0: host=1-1" in after
    assert "usb3" not in after
