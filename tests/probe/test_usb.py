"""USB: devices, their controllers, what makes a keyboard and a disk, and what devices may say about themselves."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.local import Local
from pve_passthrough.model.pci import Address
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.usb import probe_usb

from ..shared import needs_shared, realhosts

XHCI = "devices/pci0000:00/0000:00:14.0"


def device(root: Path, way: str, **attributes: str) -> None:
    """A device or interface at /sys/`way`, linked on the bus."""
    folder = root / "sys" / way
    folder.mkdir(parents=True, exist_ok=True)
    for name, value in attributes.items():
        (folder / name).write_text(f"{value}\n")
    bus = root / "sys/bus/usb/devices"
    bus.mkdir(parents=True, exist_ok=True)
    (bus / folder.name).symlink_to(f"../../../{way}")


def interface(root: Path, way: str, triple: str) -> None:
    kind, sub, protocol = triple.split("/")
    device(root, way, bInterfaceClass=kind, bInterfaceSubClass=sub, bInterfaceProtocol=protocol)


def ids(vendor: str, product: str, kind: str = "00") -> dict[str, str]:
    return {"idVendor": vendor, "idProduct": product, "bDeviceClass": kind}


def probed(root: Path) -> tuple[dict[str, UsbDevice], Asking]:
    ask = Asking(Local(str(root)))
    return {found.port: found for found in probe_usb(ask)}, ask


def test_a_desk(tmp_path: Path) -> None:
    device(tmp_path, f"{XHCI}/usb1", **ids("1d6b", "0002", "09"), manufacturer="Linux", product="xHCI Host Controller")
    device(tmp_path, f"{XHCI}/usb1/1-10", **ids("046d", "c31c"), manufacturer="Logitech", product="Logitech K120")
    interface(tmp_path, f"{XHCI}/usb1/1-10/1-10:1.0", "03/01/01")
    interface(tmp_path, f"{XHCI}/usb1/1-10/1-10:1.1", "03/00/00")
    device(tmp_path, f"{XHCI}/usb1/1-2", **ids("0781", "5583"))
    device(tmp_path, f"{XHCI}/usb1/1-2/1-2.4", **ids("0781", "5583"), product="Ultra")
    interface(tmp_path, f"{XHCI}/usb1/1-2/1-2.4/1-2.4:1.0", "08/06/50")
    found, ask = probed(tmp_path)
    assert ask.gaps == ()
    assert list(found) == ["usb1", "1-2", "1-2.4", "1-10"]
    assert {one.controller for one in found.values()} == {Address.parse("0000:00:14.0")}
    assert (found["1-10"].id, found["1-10"].name, found["1-10"].keyboard) == ("046d:c31c", "Logitech K120", True)
    assert (found["1-2.4"].storage, found["1-2.4"].keyboard, found["1-2.4"].name) == (True, False, "Ultra")
    assert not found["1-2"].storage, "what hangs behind it is another device"
    assert (found["usb1"].device_class, found["usb1"].name) == (9, "Linux xHCI Host Controller")


def test_a_mouse_is_no_keyboard(tmp_path: Path) -> None:
    device(tmp_path, f"{XHCI}/usb1/1-1", **ids("046d", "c077"))
    interface(tmp_path, f"{XHCI}/usb1/1-1/1-1:1.0", "03/01/02")
    assert not probed(tmp_path)[0]["1-1"].keyboard


def test_the_controller_is_the_last_function_on_the_way(tmp_path: Path) -> None:
    device(tmp_path, "devices/pci0000:00/0000:00:01.0/10000:01:00.2/usb3", **ids("1d6b", "0003", "09"))
    assert probed(tmp_path)[0]["usb3"].controller == Address(0x10000, 1, 0, 2)


def test_a_device_without_a_way_takes_its_root_hubs(tmp_path: Path) -> None:
    device(tmp_path, f"{XHCI}/usb1", **ids("1d6b", "0002", "09"))
    (tmp_path / "sys/bus/usb/devices/1-3").mkdir()
    found, ask = probed(tmp_path)
    assert found["1-3"].controller == Address.parse("0000:00:14.0")
    assert found["1-3"].vendor is None
    assert "usb.idVendor" in {gap.about for gap in ask.gaps}


def test_a_controller_that_is_not_on_the_pci_bus_is_a_gap(tmp_path: Path) -> None:
    device(tmp_path, "devices/platform/vhci_hcd.0/usb7", **ids("1d6b", "0002", "09"))
    found, ask = probed(tmp_path)
    assert found["usb7"].controller is None
    assert ask.gaps[0].about == "usb.controller" and "usb7" in ask.gaps[0].reason


@pytest.mark.parametrize("value", ["", "zzzz", "12345", "-1"])
def test_odd_numbers_are_unknown_not_fatal(tmp_path: Path, value: str) -> None:
    device(tmp_path, f"{XHCI}/usb1/1-1", **ids(value, "0001"))
    found, ask = probed(tmp_path)
    assert found["1-1"].vendor is None and found["1-1"].product == 1
    assert [gap.about for gap in ask.gaps] == ["usb.idVendor"]


def test_what_a_device_says_about_itself_is_cut_to_printable_text(tmp_path: Path) -> None:
    device(tmp_path, f"{XHCI}/usb1/1-1", **ids("1", "2"), manufacturer="Ev\x1b[2Jil\x07", product="x" * 500)
    name = probed(tmp_path)[0]["1-1"].name
    assert name.startswith("Ev[2Jil xxx") and name.isprintable() and len(name) <= 120


def test_a_dangling_device_is_kept(tmp_path: Path) -> None:
    device(tmp_path, f"{XHCI}/usb1/1-1", **ids("1", "2"))
    (tmp_path / "sys/bus/usb/devices/1-9").symlink_to(f"../../../{XHCI}/usb1/1-9")
    found, ask = probed(tmp_path)
    assert found["1-9"] == UsbDevice("1-9", None, None, None, "", Address.parse("0000:00:14.0"))
    assert "usb.devices" in {gap.about for gap in ask.gaps}


def test_no_bus_is_a_gap(tmp_path: Path) -> None:
    found, ask = probed(tmp_path)
    assert found == {}
    assert [gap.about for gap in ask.gaps] == ["usb.devices"]


@needs_shared
def test_recorded_machines_with_a_usb_bus() -> None:
    trees = sorted((realhosts() / "share").glob("sysfs-*/fsroot/sys/bus/usb/devices"))
    assert trees
    for tree in trees:
        found, _ = probed(tree.parents[3])
        assert set(found) == {entry.name for entry in tree.iterdir() if ":" not in entry.name}
        for port, one in found.items():
            assert one.id == ":".join((tree / port / name).read_text().strip() for name in ("idVendor", "idProduct"))
            inside = [file.read_text().strip() for file in (tree / port).glob(f"{port}:*/bInterfaceClass")]
            assert one.storage == ("08" in inside)
            assert str(one.controller) in str((tree / port).resolve())


# -- the closer look -----------------------------------------------------------------------------


def closely(root: Path) -> tuple[dict[str, UsbDevice], Asking]:
    ask = Asking(Local(str(root)))
    return {found.port: found for found in probe_usb(ask, closely=True)}, ask


def adapter(root: Path) -> None:
    """A serial adapter behind a hub, with its driver, its terminal and udev's names."""
    way = f"{XHCI}/usb1/1-4/1-4.2"
    device(root, f"{XHCI}/usb1", **ids("1d6b", "0002", "09"), speed="480", maxchild="16")
    device(root, f"{XHCI}/usb1/1-4", **ids("05e3", "0608", "09"), speed="480", maxchild="4")
    device(root, way, **ids("10c4", "ea60"), speed="12", serial="a0002", maxchild="0")
    interface(root, f"{way}/1-4.2:1.0", "ff/00/00")
    (root / "sys" / way / "1-4.2:1.0/driver").symlink_to("../../../../../../../../bus/usb/drivers/cp210x")
    (root / "sys" / way / "1-4.2:1.0/ttyUSB3/tty/ttyUSB3").mkdir(parents=True)
    (root / "sys/class/tty").mkdir(parents=True)
    (root / "sys/class/tty/ttyUSB3").symlink_to(f"../../{way}/1-4.2:1.0/ttyUSB3/tty/ttyUSB3")
    (root / "sys/class/tty/ttyS0").symlink_to("../../devices/pnp0/00:01/tty/ttyS0")
    for kind, name in (("by-id", "usb-CP2102_a0002-if00-port0"), ("by-path", "pci-0000:00:14.0-usb-0:4.2:1.0-port0")):
        (root / "dev/serial" / kind).mkdir(parents=True)
        (root / "dev/serial" / kind / name).symlink_to("../../ttyUSB3")


def test_drivers_ports_and_terminals(tmp_path: Path) -> None:
    adapter(tmp_path)
    found, ask = closely(tmp_path)
    assert ask.gaps == ()
    one = found["1-4.2"]
    assert (one.speed, one.serial, one.drivers, one.parent) == (12.0, "a0002", ("cp210x",), "1-4")
    assert one.terminals == ("ttyUSB3",)
    assert one.paths == (
        "/dev/serial/by-id/usb-CP2102_a0002-if00-port0",
        "/dev/serial/by-path/pci-0000:00:14.0-usb-0:4.2:1.0-port0",
    )
    assert (found["1-4"].ports, found["usb1"].ports, found["1-4"].terminals) == (4, 16, ())


def test_a_glance_opens_neither_drivers_nor_terminals(tmp_path: Path) -> None:
    adapter(tmp_path)
    one = probed(tmp_path)[0]["1-4.2"]
    assert one.speed == 12.0
    assert (one.serial, one.ports, one.terminals, one.paths, one.drivers) == (None, None, None, None, ())


class Counting(Local):
    """Counts what it is asked."""

    asked = 0

    def read(self, path: str) -> bytes:
        Counting.asked += 1
        return super().read(path)

    def link(self, path: str) -> str:
        Counting.asked += 1
        return super().link(path)


def test_a_glance_asks_one_thing_more_of_each_device_than_it_did(tmp_path: Path) -> None:
    """Numbers, names, class, the way to it, the interface's three, and the speed."""
    adapter(tmp_path)
    Counting.asked = 0
    probe_usb(Asking(Counting(str(tmp_path))))
    assert Counting.asked == 3 * 5 + 3


@pytest.mark.parametrize("text", ["unknown", "", "-5", "nan", "inf", "480 Mbit", "9" * 400])
def test_a_speed_that_is_none_is_unknown(tmp_path: Path, text: str) -> None:
    device(tmp_path, f"{XHCI}/usb1", **ids("1d6b", "0002", "09"), speed=text, maxchild="many")
    found, _ = closely(tmp_path)
    assert found["usb1"].speed is None
    assert found["usb1"].ports is None
