"""Who has a function's device files open, by driver."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.change.holders import DEVICES, Holder, holders
from tests.probe.trees import Content, Link, Scripted, plant

CARD = "0000:01:00.0"
HOME = f"{DEVICES}/{CARD}"


def process(pid: int, name: str, *files: str, cgroup: str = "0::/user.slice") -> dict[str, Content]:
    links: dict[str, Content] = {f"/proc/{pid}/fd/{number}": Link(path) for number, path in enumerate(files, 3)}
    return {f"/proc/{pid}/comm": f"{name}\n", f"/proc/{pid}/cgroup": f"{cgroup}\n", **links}


def driver(name: str) -> dict[str, Content]:
    return {f"{HOME}/driver": Link(f"../../../bus/pci/drivers/{name}"), f"{HOME}/vendor": "0x10de\n"}


DRM: dict[str, Content] = {f"{HOME}/drm/card1/dev": "226:1\n", f"{HOME}/drm/renderD129/dev": "226:129\n"}
FB: dict[str, Content] = {f"{HOME}/graphics/fb0/name": "amdgpudrmfb\n"}
GPU1: dict[str, Content] = {f"/proc/driver/nvidia/gpus/{CARD}/information": "Model: P40\nDevice Minor: \t 1\n"}


@pytest.mark.parametrize(
    ("files", "found"),
    [
        (driver("amdgpu") | DRM | process(7, "Xorg", "/dev/dri/card1"), ["/dev/dri/card1"]),
        (driver("amdgpu") | DRM | process(7, "Xorg", "/dev/dri/card10", "/dev/dri/card0"), []),
        (driver("amdgpu") | DRM | process(7, "rocm", "/dev/kfd", "/dev/dri/renderD129"),
         ["/dev/kfd", "/dev/dri/renderD129"]),
        (driver("nouveau") | DRM | process(7, "rocm", "/dev/kfd"), []),
        (driver("amdgpu") | FB | process(7, "fbi", "/dev/fb0", "/dev/fb0"), ["/dev/fb0"]),
        (driver("nvidia") | GPU1 | process(7, "python", "/dev/nvidia1", "/dev/nvidia0", "/dev/nvidiactl"),
         ["/dev/nvidia1"]),
        # Which one is not told: any of them counts, the shared control files do not.
        (driver("nvidia") | process(7, "python", "/dev/nvidia0", "/dev/nvidia-uvm"), ["/dev/nvidia0"]),
        (driver("snd_hda_intel") | {f"{HOME}/sound/card2/id": "x\n"}
         | process(7, "mpd", "/dev/snd/pcmC2D7p", "/dev/snd/controlC2", "/dev/snd/controlC20", "/dev/snd/timer"),
         ["/dev/snd/pcmC2D7p", "/dev/snd/controlC2"]),
        (driver("vfio-pci") | {f"{HOME}/iommu_group": Link("../../../kernel/iommu_groups/14")}
         | process(7, "kvm", "/dev/vfio/vfio", "/dev/vfio/1", "/dev/vfio/14"), ["/dev/vfio/14"]),
        (driver("vfio-pci") | {f"{HOME}/vfio-dev/vfio3/dev": "1:1\n"} | process(7, "kvm", "/dev/vfio/devices/vfio3"),
         ["/dev/vfio/devices/vfio3"]),
        (process(7, "Xorg", "/dev/dri/card1"), []),
    ],
)  # fmt: skip
def test_files(tmp_path: Path, files: dict[str, Content], found: list[str]) -> None:
    assert [holder.path for holder in holders(Scripted(plant(tmp_path, files)), CARD)] == found


@pytest.mark.parametrize(
    ("cgroup", "said"),
    [
        ("0::/user.slice/user-0.slice", "kwin (process 7) has /dev/dri/card1 open"),
        ("0::/lxc/105/ns/init.scope", "kwin (process 7, container 105) has /dev/dri/card1 open"),
        ("0::/lxc.payload.105/x", "kwin (process 7, container 105) has /dev/dri/card1 open"),
        ("0::/qemu.slice/200.scope", "kwin (process 7, guest 200) has /dev/dri/card1 open"),
    ],
)
def test_names(tmp_path: Path, cgroup: str, said: str) -> None:
    files = driver("i915") | DRM | process(7, "kwin", "/dev/dri/card1", cgroup=cgroup)
    (holder,) = holders(Scripted(plant(tmp_path, files)), CARD)
    assert str(holder) == said


def test_a_process_without_a_name(tmp_path: Path) -> None:
    files = driver("i915") | DRM | {"/proc/9/fd/0": Link("/dev/dri/card1"), "/proc/self/fd/0": Link("/dev/dri/card1")}
    found = holders(Scripted(plant(tmp_path, files)), CARD)
    assert found == (Holder(9, "a process", "", "/dev/dri/card1"),)
