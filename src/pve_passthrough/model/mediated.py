"""Devices that their driver cuts into shares: who offers which types, and which shares exist.

1. Values and text only; what nobody could say is None.
2. There are two ways. `MDEV`: the kernel's mediated devices; a share is an instance with a UUID, made below its parent
   (Documentation/driver-api/vfio-mediated-device.rst). `VF`: NVIDIA's driver on kernel 6.8 and later; a share is a
   virtual function whose `nvidia/current_vgpu_type` is not 0 (qemu-server 8.2.5, PCI.pm, create_nvidia_device).
3. A parent need not be a PCI function (the kernel's sample driver mtty has none): then it has no address.
4. Names come from drivers and configuration files: whether one may be written into a configuration says `plain_type`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable

from .pci import Address
from .value import dataclass
from .vm import HostPci, Vm

MDEV, VF = "mdev", "vf"
"""The two ways, see rule 2."""

_UUID = re.compile(r"(\d{8})-0000-0000-0000-(\d{12})")
_NVIDIA = re.compile(r"nvidia-([0-9]{1,9})")
_PLAIN = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+-]{0,63}")
_FRAMEBUFFER = re.compile(r"(?m)\bframebuffer=(\d{1,7})M\b")
_LOW_GM = re.compile(r"(?m)^low_gm_size: (\d{1,7})MB$")
_PROFILE = re.compile(r"-(\d{1,4})[A-Z](?:\b|$)")


@dataclass(frozen=True, slots=True)
class MediatedType:
    """One type that a parent offers. `id` is what `mdev=` of a hostpci line takes.

    available  instances that can still be made, None: nobody could say
    """

    id: str
    name: str = ""
    description: str = ""
    available: int | None = None

    @property
    def memory(self) -> int | None:
        """MiB of graphics memory of a share, as far as the driver's text or its name tells."""
        return memory_of(self.name, self.description)


@dataclass(frozen=True, slots=True)
class Parent:
    """Who offers types. `name`: its name in /sys/class/mdev_bus, or its PCI address.

    current  way VF: type that the function has now, empty: none; None: nobody could say
    """

    name: str
    way: str
    types: tuple[MediatedType, ...] = ()
    address: Address | None = None
    current: str | None = ""

    def type(self, identity: str) -> MediatedType | None:
        return next((one for one in self.types if one.id == identity), None)


@dataclass(frozen=True, slots=True)
class Instance:
    """A mediated device that exists. `parent` and `type` are empty where nobody could say."""

    uuid: str
    parent: str
    type: str


@dataclass(frozen=True, slots=True)
class Mediated:
    """All of it, as far as somebody looked."""

    parents: tuple[Parent, ...] = ()
    instances: tuple[Instance, ...] = ()

    def at(self, address: Address) -> Parent | None:
        return next((one for one in self.parents if one.address == address), None)

    def of(self, name: str) -> tuple[Instance, ...]:
        """Instances of the parent with this name."""
        return tuple(one for one in self.instances if one.parent == name)


# -- guests --------------------------------------------------------------------------------------


def uuid_of(vmid: int, key: str) -> str:
    """The UUID that Proxmox VE gives to the share of entry `key` (hostpci0). Source: qemu-server, PCI.pm,
    generate_mdev_uuid; recorded starts on 8.4 and 9.2."""
    return f"{int(key.removeprefix('hostpci')):08d}-0000-0000-0000-{vmid:012d}"


def guest_of(uuid: str) -> tuple[int, str] | None:
    """(guest, hostpci entry) of an instance that Proxmox VE has made; None for one that others have made."""
    match = _UUID.fullmatch(uuid)
    if match is None or int(match[1]) > 15 or int(match[2]) < 100:
        return None
    return int(match[2]), f"hostpci{int(match[1])}"


def shares(guest: Vm) -> tuple[HostPci, ...]:
    """The guest's entries that take a share of a device, not a device."""
    return tuple(entry for entry in guest.hostpci if entry.mdev)


def whole(guest: Vm) -> tuple[HostPci, ...]:
    """The guest's entries that take devices."""
    return tuple(entry for entry in guest.hostpci if not entry.mdev)


def sharers(guests: Iterable[Vm], address: Address) -> tuple[tuple[Vm, HostPci], ...]:
    """Who has a share of this function in its configuration."""
    return tuple((guest, entry) for guest in guests for entry in shares(guest) if address in entry.addresses)


# -- text ----------------------------------------------------------------------------------------


def plain_type(text: str) -> bool:
    """Whether this may stand in a configuration: Proxmox VE takes `[^/.:]+` (recorded: even `a b`), and a comma, an
    equals sign or a control character would say something else there. No driver's type needs more than this."""
    return _PLAIN.fullmatch(text) is not None


def nvidia_number(identity: str) -> int | None:
    """660 of `nvidia-660`, the number that NVIDIA's driver knows the type by."""
    match = _NVIDIA.fullmatch(identity)
    return int(match[1]) if match else None


def memory_of(name: str, description: str) -> int | None:
    """MiB: `framebuffer=4096M` of NVIDIA's mediated types, `low_gm_size: 128MB` of Intel's (the part of its memory that
    the processor reaches), else gigabytes in NVIDIA's names: L4-6Q (NVIDIA vGPU documentation, names of types)."""
    found = _FRAMEBUFFER.search(description) or _LOW_GM.search(description)
    if found:
        return int(found[1])
    profile = _PROFILE.search(name) if name.upper().startswith(("NVIDIA", "GRID")) else None
    return int(profile[1]) * 1024 if profile else None


def parse_creatable(text: str) -> tuple[MediatedType, ...]:
    """Lines `NUMBER : NAME` of nvidia/creatable_vgpu_types below a headline `ID    : vGPU Name`; one share each.

    Source: NVIDIA's vgpu-vfio module, creatable_vgpu_types_show; pve-common SysFSTools.pm, get_mdev_types.
    """
    found = []
    for line in text.split("\n"):
        number, colon, name = (part.strip() for part in line.partition(":"))
        if colon and number.isascii() and number.isdecimal() and len(number) < 10:
            found.append(MediatedType(f"nvidia-{int(number)}", name[:128], "", 1))
    return tuple(found)
