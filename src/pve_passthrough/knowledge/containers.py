"""What containers can be given, and which group opens it: one row per kind of device node.

1. The group is a name. Its number differs from distribution to distribution and from container to container, so it is
   always asked for inside; only base-passwd's fixed ones (video 44, dialout 20) are the same on all Debians.
2. What no source says is marked unverified.
"""

from __future__ import annotations

import re

from ..model.value import dataclass

NEEDS_VERSION = (8, 1)
"""`dev[n]` came with Proxmox VE 8.1. Source: pve-container 5.0.6; release notes of 8.1."""
SHARING_DRIVERS = frozenset({"amdgpu", "i915", "xe", "nvidia"})
"""Drivers of the host whose nodes many programs, and so many containers, can use at once."""


@dataclass(frozen=True, slots=True)
class NodeKind:
    """One kind. `group`: who may open it, empty: everybody may, None: no rule of any distribution says."""

    name: str
    pattern: re.Pattern[str]
    group: str | None
    about: str
    source: str


_UDEV = "systemd, rules.d/50-udev-default.rules.in"
KINDS: tuple[NodeKind, ...] = (
    NodeKind("render", re.compile(r"/dev/dri/(renderD\d+|by-path/.*-render)"), "render",
             "graphics without a screen: video engines, OpenCL, Vulkan", _UDEV),
    NodeKind("card", re.compile(r"/dev/dri/(card\d+|by-path/.*-card)"), "video",
             "the card with its outputs; only what sets a picture needs it", _UDEV),
    NodeKind("kfd", re.compile(r"/dev/kfd"), "render",
             "AMD's compute driver, one node for all cards; ROCm needs it beside the render node", _UDEV),
    NodeKind("nvidia", re.compile(r"/dev/nvidia(\d+|ctl|-uvm|-uvm-tools|-modeset)"), "",
             "NVIDIA's own driver; CUDA needs the card, nvidiactl and nvidia-uvm",
             "NVIDIA driver README, device nodes"),
    NodeKind("nvidia-caps", re.compile(r"/dev/nvidia-caps/.+"), "",
             "access to a MIG slice", "NVIDIA MIG user guide, device nodes and capabilities"),
    NodeKind("serial", re.compile(r"/dev/(tty(USB|ACM)\d+|serial/by-id/.+)"), "dialout",
             "a serial line; its name in /dev/serial/by-id follows the adapter", _UDEV),
    NodeKind("accel", re.compile(r"/dev/accel/.+"), "render", "a compute accelerator", _UDEV),
    NodeKind("apex", re.compile(r"/dev/apex_\d+"), None,
             "a Coral accelerator on PCI Express", "gasket-dkms: no udev rule of its own (unverified)"),
)  # fmt: skip

REFUSED: tuple[tuple[re.Pattern[str], str, str], ...] = (
    (re.compile(r"/dev/(mem|kmem|port)"), "it is the host's memory", "Nothing in a container needs it."),
    (re.compile(r"/dev/vfio(/.*)?"), "it hands a whole device to whoever opens it",
     "pve-passthrough plan DEVICE --vm ID"),
    (re.compile(r"/dev/loop-control"), "Proxmox never gives it to a container (lxc-pve-autodev-hook)",
     "Let the host make the loop device."),
    (re.compile(r"/dev/bus/usb/.*"), "its number changes whenever the device is plugged in or changes its firmware",
     "Name a serial adapter below /dev/serial/by-id; else give it to a guest: pve-passthrough plan usb:PORT --vm ID"),
)  # fmt: skip
"""Nodes that are given to no container: pattern, why, what to do instead."""

NVIDIA_NODES = ("/dev/nvidiactl", "/dev/nvidia-uvm", "/dev/nvidia-uvm-tools", "/dev/nvidia-modeset")
"""What a CUDA program opens beside its card. Source: NVIDIA driver README, chapter on device nodes."""

NVIDIA_VERSION = (
    "The libraries in the container should be of the host driver's version (unverified): install them there with "
    "--no-kernel-module, or from a package of exactly that version."
)


def kind_of(path: str) -> NodeKind | None:
    return next((kind for kind in KINDS if kind.pattern.fullmatch(path)), None)


def refused(path: str) -> tuple[str, str] | None:
    """(why, what to do instead) for a node that no container is given."""
    return next(((why, way) for pattern, why, way in REFUSED if pattern.fullmatch(path)), None)
