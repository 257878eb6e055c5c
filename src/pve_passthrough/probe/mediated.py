"""Shares of devices: mediated types and instances, and the types of NVIDIA's virtual functions.

1. Reads only; names from drivers become part of a path only when they are plain.
2. A glance reads no further than one directory; it goes deeper where a guest's configuration names a share.
3. A count that is no number is a gap, never zero.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..model.mediated import MDEV, VF, Instance, Mediated, MediatedType, Parent, parse_creatable, shares
from ..model.pci import Address, Device
from ..model.vm import Vm
from .asking import Asking
from .paths import function_behind, plain

BUS = "/sys/class/mdev_bus"
INSTANCES = "/sys/bus/mdev/devices"
DEVICES = "/sys/bus/pci/devices"
MOST = 4096
"""Names of one directory that are looked at; no driver makes as many."""
_ABOUT = "mediated"


def probe_mediated(
    ask: Asking, devices: Sequence[Device], guests: Iterable[Vm] | None, thorough: bool
) -> Mediated | None:
    """None: nobody looked that deep, and the machine may have some."""
    names = ask.names(BUS, f"{_ABOUT}.parents") or ()
    functions = [device for device in devices if device.nvidia_types]
    if not thorough and not any(shares(guest) for guest in guests or ()):
        return None if names or functions else Mediated()
    parents = [parent for name in names[:MOST] if (parent := _parent(ask, name)) is not None]
    parents += [_function(ask, device) for device in functions]
    listed = (ask.names(INSTANCES, f"{_ABOUT}.instances") or ())[:MOST]
    instances = (_instance(ask, name) for name in listed if plain(name))
    return Mediated(tuple(parents), tuple(instances))


def _parent(ask: Asking, name: str) -> Parent | None:
    """A parent by its link in /sys/class/mdev_bus; a PCI function by its address, another by its name."""
    if not plain(name):
        ask.gap(f"{_ABOUT}.parents", "a name that no driver gives", repr(name)[:40])
        return None
    home = f"{BUS}/{name}/mdev_supported_types"
    types = [
        _type(ask, home, identity) for identity in (ask.names(home, f"{_ABOUT}.types") or ())[:MOST] if plain(identity)
    ]
    return Parent(name, MDEV, tuple(types), _address(name))


def _address(name: str) -> Address | None:
    try:
        return Address.parse(name)
    except ValueError:
        return None


def _type(ask: Asking, home: str, identity: str) -> MediatedType:
    """`name` and `description` are optional (Documentation/ABI/testing/sysfs-bus-vfio-mdev)."""
    place = f"{home}/{identity}"
    text = ask.trimmed(f"{place}/available_instances", f"{_ABOUT}.available")
    count = int(text) if text and text.isascii() and text.isdecimal() and len(text) < 10 else None
    if text is not None and count is None:
        ask.gap(f"{_ABOUT}.available", f"not a number: {text[:40]!a}", identity)
    name = ask.trimmed(f"{place}/name", f"{_ABOUT}.name") or ""
    description = ask.trimmed(f"{place}/description", f"{_ABOUT}.description") or ""
    return MediatedType(identity, name[:128], description[:1024], count)


def _function(ask: Asking, device: Device) -> Parent:
    """A virtual function of NVIDIA's driver: what it can become, and what it is."""
    place = f"{DEVICES}/{device.address}/nvidia"
    types = parse_creatable(ask.text(f"{place}/creatable_vgpu_types", f"{_ABOUT}.types") or "")
    text = ask.trimmed(f"{place}/current_vgpu_type", f"{_ABOUT}.current")
    known = text is not None and text.isascii() and text.isdecimal() and len(text) < 10
    if text is not None and not known:
        ask.gap(f"{_ABOUT}.current", f"not a number: {text[:40]!a}", str(device.address))
    current = None if not known else f"nvidia-{int(text or 0)}" if int(text or 0) else ""
    return Parent(str(device.address), VF, types, device.address, current)


def _instance(ask: Asking, uuid: str) -> Instance:
    """Its directory lies below its parent's; the link `mdev_type` ends in the type (sysfs-bus-vfio-mdev)."""
    place = ask.link(f"{INSTANCES}/{uuid}", f"{_ABOUT}.instances") or ""
    kind = (ask.link(f"{INSTANCES}/{uuid}/mdev_type", f"{_ABOUT}.instances") or "").rpartition("/")[2]
    function = function_behind(place.rpartition("/")[0])
    parent = place.rpartition("/")[0].rpartition("/")[2]
    return Instance(uuid, str(function) if function is not None and str(function) == parent else parent, kind)
