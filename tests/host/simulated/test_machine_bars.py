"""The kernel's laws for resizable BARs: drivers/pci/pci-sysfs.c, __resource_resize_store, and drivers/pci/rebar.c."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_passthrough.change.cells import read_cell
from pve_passthrough.host.base import Missing, Unreadable
from pve_passthrough.host.simulated import Simulated, create, power_on
from pve_passthrough.model.own import CLAIM_SCRIPT
from pve_passthrough.model.pci import Address, Bar
from pve_passthrough.model.plan import Cell
from pve_passthrough.planning import claim_script
from pve_passthrough.probe import probe

CARD = "0000:03:00.0"
HOME = f"/sys/bus/pci/devices/{CARD}"
RESIZE = f"{HOME}/resource0_resize"
GIB = 1 << 30
NARROW = "80000000-dfffffff : PCI Bus 0000:00\n4000000000-40ffffffff : PCI Bus 0000:00\n"
"""4 GiB above 4 GiB."""
BAR = Cell("bar", f"{CARD}/0")


@pytest.fixture(scope="module")
def original() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        create(f"{folder}/machine", "amd-secureboot")
        yield Path(folder)


@pytest.fixture
def host(original: Path) -> Iterator[Simulated]:
    with tempfile.TemporaryDirectory(dir=original) as folder:
        shutil.copytree(original / "machine", f"{folder}/machine", symlinks=True, copy_function=os.link)
        yield Simulated(f"{folder}/machine")


def unbind(host: Simulated) -> None:
    host.write(f"{HOME}/driver/unbind".replace(f"{HOME}/driver", "/sys/bus/pci/drivers/amdgpu"), CARD.encode())


def bar(host: Simulated) -> Bar:
    device = probe(host, inventory=True).device(Address.parse(CARD))
    assert device is not None and device.bars is not None
    return device.bars[0]


def refused(host: Simulated, value: bytes) -> str:
    with pytest.raises(Unreadable) as caught:
        host.write(RESIZE, value)
    return caught.value.reason


def boot_with(host: Simulated, size: int, ids: str = "1002:73ff") -> None:
    script = claim_script.render({}, {(Address.parse(CARD), 0): (ids, size)})
    assert script is not None
    host.write(CLAIM_SCRIPT, script.encode(), 0o755)
    assert host.run(["update-initramfs", "-u", "-k", "all"]).ok
    power_on(host.world)


def test_reading_gives_the_bitmap_of_sizes(host: Simulated) -> None:
    assert int(host.read(RESIZE), 16) == sum(1 << bit for bit in range(8, 14))
    assert bar(host).sizes == tuple(1 << bit for bit in range(28, 34))
    with pytest.raises(Missing):
        host.read(f"{HOME}/resource2_resize")


def test_a_bound_function_is_busy(host: Simulated) -> None:
    assert refused(host, b"13") == os.strerror(16)
    assert read_cell(host, BAR) == "256M"


def test_what_is_not_offered_is_invalid(host: Simulated) -> None:
    unbind(host)
    for value in (b"14", b"7", b"-1", b"99", b"large"):
        assert refused(host, value) == os.strerror(22), value


def test_a_size_is_there_at_once_and_lost_with_the_next_start(host: Simulated) -> None:
    unbind(host)
    host.write(RESIZE, b"13\n")
    now = bar(host)
    assert (now.size, now.start % now.size, now.prefetchable) == (8 * GIB, 0, True)
    assert read_cell(host, BAR) == "8G"
    assert int(host.read(RESIZE), 16) == 0x3F00, "the bitmap stays"
    config = host.read(f"{HOME}/config")
    assert int.from_bytes(config[0x10:0x18], "little") & ~0xF == now.start
    power_on(host.world)
    assert read_cell(host, BAR) == "256M"


def test_no_room_above_leaves_the_size(host: Simulated) -> None:
    host.world.put("/proc/iomem", NARROW)
    unbind(host)
    assert refused(host, b"13") == os.strerror(28)
    assert read_cell(host, BAR) == "256M"
    host.write(RESIZE, b"11")
    assert read_cell(host, BAR) == "2G"


def test_a_bar_of_the_bridge_above_pins_its_window(host: Simulated) -> None:
    """As with Intel Arc, whose switch has a BAR: growing is refused, shrinking is not."""
    port = "/sys/bus/pci/devices/0000:02:00.0/resource"
    own = "0x0000007f00000000 0x0000007f007fffff 0x000000000014220c\n"
    host.world.put(port, own + "\n".join((host.world.text(port) or "").split("\n")[1:]))
    unbind(host)
    assert refused(host, b"13") == os.strerror(28)
    host.write(RESIZE, b"8")
    assert read_cell(host, BAR) == "256M"


def test_our_script_resizes_before_any_driver_is_there(host: Simulated) -> None:
    boot_with(host, 8 * GIB)
    assert read_cell(host, BAR) == "8G"
    assert host.link(f"{HOME}/driver").endswith("amdgpu")
    power_on(host.world)
    assert read_cell(host, BAR) == "8G", "at every start"


def test_another_card_at_the_address_keeps_its_size(host: Simulated) -> None:
    boot_with(host, 8 * GIB, "10de:2684")
    assert read_cell(host, BAR) == "256M"


def test_a_boot_without_room_goes_on(host: Simulated) -> None:
    host.world.put("/proc/iomem", NARROW)
    boot_with(host, 8 * GIB)
    assert read_cell(host, BAR) == "256M"
    log = host.run(["dmesg"]).stdout
    assert f"BAR 0 of {CARD} keeps its size" in log and "no space" in log


def test_a_display_that_is_resized_loses_the_boot_console() -> None:
    with tempfile.TemporaryDirectory() as folder:
        host = create(f"{folder}/machine", "only-display")
        card = Address.parse("0000:01:00.0")
        assert host.read("/proc/fb") != b""
        host.write("/sys/bus/pci/drivers/nouveau/unbind", str(card).encode())
        script = claim_script.render({card: "10de:2684"}, {(card, 1): ("10de:2684", 16 * GIB)})
        assert script is not None
        host.write(CLAIM_SCRIPT, script.encode(), 0o755)
        host.run(["update-initramfs", "-u", "-k", "all"])
        power_on(host.world)
        assert read_cell(host, Cell("bar", f"{card}/1")) == "16G"
        assert host.read("/proc/fb") == b"", "and no driver brings it back to a claimed card"


@pytest.mark.parametrize("name", [f"{CARD}/2", f"{CARD}/1"])
def test_the_cell_of_other_bars(host: Simulated, name: str) -> None:
    assert read_cell(host, Cell("bar", name)) == {"2": "2M", "1": None}[name[-1]]
