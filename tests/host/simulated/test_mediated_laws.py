"""What the simulated kernel makes of shares: counts, errors, and that they come and go with driver and power."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest

from pve_passthrough.host.simulated import Simulated, power_on
from pve_passthrough.host.simulated.world import SysfsError
from tests.copies import copy_of

T4, FIRST, SECOND = "0000:01:00.0", "0000:05:00.4", "0000:05:00.5"
TYPES = f"/sys/bus/pci/devices/{T4}/mdev_supported_types"
UUID = "00000000-0000-0000-0000-000000000100"


def left(host: Simulated, kind: str) -> int:
    return int(host.world.text(f"{TYPES}/{kind}/available_instances") or -1)


def failed(host: Simulated, path: str, text: str) -> int | None:
    with pytest.raises(SysfsError) as caught:
        host.world.sysfs(path, text)
    return caught.value.errno


@pytest.fixture
def old(tmp_path: Path) -> Simulated:
    return copy_of("vgpu-old", tmp_path / "host")


@pytest.fixture
def node(tmp_path: Path) -> Simulated:
    return copy_of("vgpu-node", tmp_path / "host")


def test_one_size_for_all_shares_of_a_card(old: Simulated) -> None:
    assert (left(old, "nvidia-232"), left(old, "nvidia-234")) == (4, 1)
    old.world.sysfs(f"{TYPES}/nvidia-232/create", UUID)
    assert (left(old, "nvidia-232"), left(old, "nvidia-231"), left(old, "nvidia-234")) == (3, 0, 0)
    assert failed(old, f"{TYPES}/nvidia-232/create", UUID) == errno.EEXIST
    assert failed(old, f"{TYPES}/nvidia-234/create", UUID.replace("100", "101")) == errno.ENOSPC
    assert failed(old, f"{TYPES}/nvidia-232/create", "no uuid") == errno.EINVAL
    old.world.sysfs(f"/sys/bus/mdev/devices/{UUID}/remove", "1")
    assert left(old, "nvidia-234") == 1 and old.world.names("/sys/bus/mdev/devices") == ()


def test_types_go_with_the_driver_and_instances_with_the_power(old: Simulated) -> None:
    old.world.sysfs(f"{TYPES}/nvidia-232/create", UUID)
    power_on(old.world)
    assert old.world.names("/sys/bus/mdev/devices") == () and left(old, "nvidia-232") == 4
    old.world.sysfs("/sys/bus/pci/drivers/nvidia/unbind", T4)
    assert not old.world.exists(TYPES) and old.world.names("/sys/class/mdev_bus") == ()
    old.world.sysfs("/sys/bus/pci/drivers/nvidia/bind", T4)
    assert left(old, "nvidia-232") == 4


def test_the_types_of_nvidia_s_functions(node: Simulated) -> None:
    def path(address: str) -> str:
        return f"/sys/bus/pci/devices/{address}/nvidia/current_vgpu_type"

    assert failed(node, path(FIRST), "1") == errno.EINVAL
    node.world.sysfs(path(FIRST), "916")
    assert failed(node, path(FIRST), "912") == errno.EPERM
    assert failed(node, path(SECOND), "912") == errno.EINVAL
    node.world.sysfs(path(SECOND), "916")
    full = node.world.text(f"/sys/bus/pci/devices/{FIRST}/nvidia/creatable_vgpu_types")
    assert full == "ID    : vGPU Name\n"
    node.world.sysfs(path(FIRST), "0")
    assert "916" in (node.world.text(f"/sys/bus/pci/devices/{SECOND}/nvidia/creatable_vgpu_types") or "")
