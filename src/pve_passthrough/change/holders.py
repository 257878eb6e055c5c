"""Which processes have a function's device files open.

1. Only looks. Whoever is found is named, and never ended.
2. Device files are found by way of sysfs from the function's own driver; a driver that tells nothing there (nvidia) has
   a rule of its own.
3. A process that ends while it is looked at holds nothing.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ..host.base import Host, HostError, text_or_none

DEVICES = "/sys/bus/pci/devices"
_CONTAINER = re.compile(r"/lxc(?:\.payload)?[./](\d{3,9})(?:/|$)", re.MULTILINE)
_GUEST = re.compile(r"/qemu\.slice/(\d{3,9})\.scope")
_MINOR = re.compile(r"^Device Minor:\s*(\d{1,3})\s*$", re.MULTILINE)


@dataclass(frozen=True, slots=True)
class Holder:
    """`where`: `container 105`, `guest 100`, or empty for a process of the host's own."""

    pid: int
    name: str
    where: str
    path: str

    def __str__(self) -> str:
        return f"{self.name} (process {self.pid}{f', {self.where}' if self.where else ''}) has {self.path} open"


def holders(host: Host, address: str) -> tuple[Holder, ...]:
    """Processes that have a device file of this function open, one line for each process and file."""
    wanted = _files_of(host, address)
    if wanted is None:
        return ()
    found: list[Holder] = []
    for pid in _names(host, "/proc"):
        if pid.isdecimal():
            found += [_holder(host, pid, path) for path in _open_files(host, pid) if wanted.fullmatch(path)]
    return tuple(found)


def _open_files(host: Host, pid: str) -> list[str]:
    paths = dict.fromkeys(_link(host, f"/proc/{pid}/fd/{name}") for name in _names(host, f"/proc/{pid}/fd"))
    return [path for path in paths if path.startswith("/dev/")]


def _files_of(host: Host, address: str) -> re.Pattern[str] | None:
    """What the device files of a function are called; None when it has none now."""
    device = f"{DEVICES}/{address}"
    parts = [f"/dev/dri/{re.escape(name)}" for name in _names(host, f"{device}/drm")]
    parts += [f"/dev/{re.escape(name)}" for name in _names(host, f"{device}/graphics")]
    for name in _names(host, f"{device}/sound"):
        if name.startswith("card") and name[4:].isdecimal():
            parts.append(rf"/dev/snd/[a-z]+C{name[4:]}(?:D\d+[a-z]?)?")
    parts += [f"/dev/vfio/devices/{re.escape(name)}" for name in _names(host, f"{device}/vfio-dev")]
    driver = _link(host, f"{device}/driver").rpartition("/")[2]
    if driver == "nvidia":
        parts.append(_nvidia(host, address))
    elif driver == "amdgpu":
        parts.append("/dev/kfd")  # one for all cards: whoever computes on one of them has it open
    elif driver == "vfio-pci" and (group := _link(host, f"{device}/iommu_group").rpartition("/")[2]):
        parts.append(f"/dev/vfio/{re.escape(group)}")
    return re.compile("|".join(parts)) if parts else None


def _nvidia(host: Host, address: str) -> str:
    """/dev/nvidiaN, where N is the driver's own count; any of them when it does not tell.

    Source: NVIDIA driver README, /proc/driver/nvidia/gpus/DOMAIN:BUS:DEVICE.FUNCTION/information.
    """
    try:
        text = text_or_none(host, f"/proc/driver/nvidia/gpus/{address}/information") or ""
    except HostError:
        text = ""
    match = _MINOR.search(text)
    return f"/dev/nvidia{match.group(1) if match else '[0-9]+'}"


def _holder(host: Host, pid: str, path: str) -> Holder:
    cgroup = _text(host, f"/proc/{pid}/cgroup")
    container, guest = _CONTAINER.search(cgroup), _GUEST.search(cgroup)
    where = f"container {container.group(1)}" if container else f"guest {guest.group(1)}" if guest else ""
    return Holder(int(pid), _text(host, f"/proc/{pid}/comm").strip() or "a process", where, path)


def _names(host: Host, path: str) -> tuple[str, ...]:
    try:
        return host.names(path)
    except HostError:
        return ()


def _link(host: Host, path: str) -> str:
    try:
        return host.link(path)
    except HostError:
        return ""


def _text(host: Host, path: str) -> str:
    try:
        return text_or_none(host, path) or ""
    except HostError:
        return ""
