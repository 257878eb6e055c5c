"""Whether a guest has its shares of devices: asked of the kernel, by the guest's own names for them.

1. A mediated device belongs to a guest by its UUID, which Proxmox VE makes from entry and guest (`model.mediated`).
2. A virtual function of NVIDIA's driver belongs to the guest that reserved it and has the type of the guest's entry.
3. Only looks. What could not be read is None, with the reason.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..host.base import Host, HostError, Missing
from ..model.mediated import nvidia_number, uuid_of
from ..model.pci import Address, Device
from ..model.value import dataclass
from ..model.vm import HostPci, Vm
from .agent import GuestDevice

_NVIDIA = 0x10DE


@dataclass(frozen=True, slots=True)
class Share:
    """Whether it is there (None: nobody could say), and the line that shows it."""

    there: bool | None
    evidence: str


def share(host: Host, vm: Vm, entry: HostPci, reserved: Iterable[Address]) -> Share:
    """The share of one entry."""
    mine = [address for address in entry.addresses if address in set(reserved)] or list(entry.addresses)
    number = nvidia_number(entry.mdev)
    for address in mine if number is not None else ():
        path = f"/sys/bus/pci/devices/{address}/nvidia/current_vgpu_type"
        try:
            now = host.read(path).decode("ascii", "replace").strip()
        except Missing:
            continue
        except HostError as error:
            return Share(None, f"{path}: {error.reason}")
        return Share(now == str(number), f"{path}: {now[:20]}")
    return _instance(host, vm, entry)


def _instance(host: Host, vm: Vm, entry: HostPci) -> Share:
    path = f"/sys/bus/mdev/devices/{uuid_of(vm.vmid, entry.key)}"
    try:
        kind = host.link(f"{path}/mdev_type").rpartition("/")[2]
    except Missing:
        return Share(False, f"{path}: not there")
    except HostError as error:
        return Share(None, f"{path}: {error.reason}")
    return Share(kind == entry.mdev, f"{path}: {kind}")


def seen_as(left: Iterable[GuestDevice], device: Device, shared: bool) -> GuestDevice | None:
    """The device inside the guest that is this one of the host. A share has the number of the physical card and a
    subsystem of its own (NVIDIA vGPU user guide; i915 gvt/cfg_space.c copies the card's); of NVIDIA's any will do."""
    there = list(left)
    found = next((one for one in there if one.id == device.id), None)
    if found is None and shared and device.vendor == _NVIDIA:
        found = next((one for one in there if one.id.startswith("10de:")), None)
    return found
