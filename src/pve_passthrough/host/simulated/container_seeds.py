"""Built-in machines with containers. Data only.

1. `video` 44 and `dialout` 20 are base-passwd's fixed numbers; that of `render` is given out: another one in each
   container here, and on the host.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from . import graphics_seeds
from .spec import MachineSpec, UsbSpec

_HUB = "/sys/devices/pci0000:00/0000:00:08.3/0000:16:00.0/usb1/1-3"

JELLYFIN = (
    "arch: amd64\ncores: 4\nhostname: jellyfin\nmemory: 2048\n"
    "net0: name=eth0,bridge=vmbr0,hwaddr=BC:24:11:00:02:00,ip=dhcp,type=veth\nonboot: 1\nostype: debian\n"
    "rootfs: local-lvm:vm-200-disk-0,size=16G\nswap: 512\nunprivileged: 1\n"
)
FRIGATE = (
    "arch: amd64\ncores: 4\nfeatures: nesting=1\nhostname: frigate\nmemory: 4096\nostype: debian\n"
    "rootfs: local-lvm:vm-201-disk-0,size=16G\nswap: 512\n"
    "lxc.cgroup2.devices.allow: c 226:128 rwm\n"
    "lxc.mount.entry: /dev/dri/renderD128 dev/dri/renderD128 none bind,optional,create=file\n"
)
_INSIDE: dict[str, dict[str, Any]] = {
    "200": {
        "groups": {"root": 0, "dialout": 20, "video": 44, "render": 106, "jellyfin": 110},
        "users": {"jellyfin": [103, [110, 44, 106]], "nobody": [65534, [65534]]},
        "programs": {"vainfo": [0, "vainfo: Driver version: Mesa Gallium driver for AMD Radeon Graphics\n"]},
    },
    "201": {"groups": {"root": 0, "dialout": 20, "video": 44, "render": 104}, "users": {}, "programs": {}},
}

CONTAINERS = replace(
    graphics_seeds.AMD_APU,
    name="containers",
    usb=(
        *graphics_seeds.AMD_APU.usb,
        UsbSpec("1-3", "0000:16:00.0", "10c4:ea60", "Sonoff Zigbee 3.0 USB Dongle Plus", ((0xFF, 0, 0),)),
    ),
    files={
        "/etc/pve/nodes/pve/lxc/200.conf": JELLYFIN,
        "/etc/pve/nodes/pve/lxc/201.conf": FRIGATE,
        f"{_HUB}/manufacturer": "Silicon Labs\n",
        f"{_HUB}/1-3:1.0/ttyUSB0/tty/ttyUSB0/dev": "188:0\n",
    },
    containers=_INSIDE,
)  # fmt: skip
"""A processor's graphics that two containers share: one wants it, one has it by raw lines."""

NVIDIA = replace(
    graphics_seeds.RTX_3080,
    name="containers-nvidia",
    devices=tuple(
        replace(one, driver="nvidia", module="nvidia", others=(("nouveau", "nouveau"),))
        if one.ids == "10de:2206" else one
        for one in graphics_seeds.RTX_3080.devices
    ),
    screens={**graphics_seeds.RTX_3080.screens, "0000:01:00.0": ("card1", "DP-1", "nvidia-drmdrmfb")},
    files={
        "/etc/modprobe.d/nvidia.conf": "blacklist nouveau\n",
        "/etc/pve/nodes/pve/lxc/200.conf": JELLYFIN.replace("onboot: 1\n", ""),
        "/proc/driver/nvidia/gpus/0000:01:00.0/information": "Model: \t\t NVIDIA\nDevice Minor: \t 0\n",
        "/proc/driver/nvidia/version": "NVRM version: NVIDIA UNIX x86_64 Kernel Module  580.95.05\n",
    },
    containers=_INSIDE,
)  # fmt: skip
"""NVIDIA's own driver on the host; its unified memory module is not loaded, as after a boot where nothing computed."""

CONTAINER_SEEDS: dict[str, MachineSpec] = {seed.name: seed for seed in (CONTAINERS, NVIDIA)}
