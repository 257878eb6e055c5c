"""Functions that can have virtual ones: how many they have, what each may do, and what makes them at a start.

1. Only functions whose listing says so are looked at; a machine without any costs nothing here.
2. What `ip` cannot say leaves the text None with a gap: what an interface enforces is then unknown.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..host.base import Host, HostError
from ..host.virtual import interface, state_of
from ..model.own import SRIOV_UNIT
from ..model.pci import Device
from ..model.sriov import PhysicalFunction, state_text
from .asking import Asking

DEVICES = "/sys/bus/pci/devices"
UNITS = "/etc/systemd/system"
_FIRST, _LAST = 7, 13
"""Lines of `resource` that hold the memory of the virtual functions: after six BARs and the ROM (kernel,
include/linux/pci.h, PCI_IOV_RESOURCES)."""


def look_at_sriov(host: Host, devices: Iterable[Device]) -> tuple[PhysicalFunction, ...]:
    """The closer look alone, for who has the devices already."""
    return probe_sriov(Asking(host), devices)


def probe_sriov(ask: Asking, devices: Iterable[Device]) -> tuple[PhysicalFunction, ...]:
    return tuple(_look(ask, device) for device in devices if device.sriov_total)


def _look(ask: Asking, device: Device) -> PhysicalFunction:
    home = f"{DEVICES}/{device.address}"
    about = f"sriov.{device.address}"
    unit = SRIOV_UNIT.format(address=device.address)
    wants = ask.names(f"{UNITS}/multi-user.target.wants", about)
    return PhysicalFunction(
        device.address,
        _text(ask, device),
        _number(ask, f"{home}/sriov_vf_device", about, 16),
        _number(ask, f"{home}/sriov_offset", about, 10),
        _number(ask, f"{home}/sriov_stride", about, 10),
        _interface(ask, device),
        "enabled" if unit in (wants or ()) else "disabled",
        ask.text(f"{UNITS}/{unit}", about),
        ask.trimmed(f"/sys/module/{device.driver}/parameters/max_vfs", about) if device.driver else None,
        _placed(ask, f"{home}/resource", about),
    )


def _text(ask: Asking, device: Device) -> str | None:
    try:
        return state_text(state_of(ask.host, str(device.address)))
    except HostError as error:
        ask.gap(f"sriov.{device.address}", str(error))
        return None


def _interface(ask: Asking, device: Device) -> str:
    try:
        return interface(ask.host, str(device.address))
    except HostError as error:
        ask.gap(f"sriov.{device.address}", str(error))
        return ""


def _number(ask: Asking, path: str, about: str, base: int) -> int | None:
    """Kernels before 4.15 have none of these (Documentation/ABI/testing/sysfs-bus-pci)."""
    text = ask.trimmed(path, about)
    try:
        return None if text is None else int(text, base)
    except ValueError:
        ask.gap(about, f"not a number that the kernel writes: {text[:20] if text else ''!a}", path)
        return None


def _placed(ask: Asking, path: str, about: str) -> bool | None:
    """A BAR without an address starts at 0, or has lost its flags as well (drivers/pci/setup-bus.c, reset_resource)."""
    lines = (ask.text(path, about) or "").splitlines()[_FIRST:_LAST]
    try:
        rows = [tuple(int(word, 16) for word in line.split()[:3]) for line in lines]
    except ValueError:
        return None
    if not rows or any(len(row) != 3 for row in rows):
        return None
    return any(start for start, _, _ in rows) and all(start for start, _, flags in rows if flags)
