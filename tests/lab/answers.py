"""What a lab host's kernel and files say, as plain data: the same questions before, after, and of the simulated host.

1. One program in the host answers all of it at once; an emulated processor starts programs slowly.
2. Only what the kernel or the file system says; nothing here comes from the program under test.
"""

from __future__ import annotations

import json
from dataclasses import dataclass, field

from .machine import Machine
from .programs import LabError

_KERNEL = r"""
import json, os
B, U = "/sys/bus/pci/devices", "/sys/bus/usb/devices"
def last(path):
    try:
        return os.path.basename(os.readlink(path))
    except OSError:
        return ""
def text(path):
    try:
        with open(path) as file:
            return file.read().strip()
    except OSError:
        return ""
print(json.dumps({
    "cmdline": text("/proc/cmdline"),
    "functions": {
        a: {"driver": last(f"{B}/{a}/driver"), "group": last(f"{B}/{a}/iommu_group"),
            "id": text(f"{B}/{a}/vendor")[2:] + ":" + text(f"{B}/{a}/device")[2:],
            "place": "/".join(part.rpartition(":")[2] for part in os.path.realpath(f"{B}/{a}").split("/")[4:]),
            "vfs": [text(f"{B}/{a}/sriov_numvfs"), last(f"{B}/{a}/physfn"),
                    *(last(f"{B}/{a}/virtfn{n}") for n in range(int(text(f"{B}/{a}/sriov_numvfs") or 0)))]}
        for a in os.listdir(B)
    },
    "usb": {
        name: {"id": text(f"{U}/{name}/idVendor") + ":" + text(f"{U}/{name}/idProduct"),
               "speed": text(f"{U}/{name}/speed"), "serial": text(f"{U}/{name}/serial"),
               "at": os.path.realpath(f"{U}/{name}").split("/usb")[0].rpartition("/")[2]}
        for name in os.listdir(U) if ":" not in name
    } if os.path.isdir(U) else {},
}))
"""
_FILES = r"""
find /etc /boot /usr/lib/modules-load.d /usr/lib/modprobe.d -xdev -type f ! -name 'initrd.img-*' \
  ! -path '/boot/grub/grubenv' ! -path '/etc/machine-id' -print0 | sort -z | xargs -0 sha256sum
find /etc /boot -xdev -type l -printf '%l  %p\n' | sort
"""
"""Every file that a plan may touch, and all around them. The initramfs is derived: its list of files is asked for."""


@dataclass(frozen=True, slots=True)
class Function:
    """One PCI function: driver and group as the kernel links them, empty when there is none · place: the slots on the
    way from the root, without bus numbers, e.g. `02.0/00.1` · vfs: sriov_numvfs (empty without that ability), the
    physical function (empty for others), then the virtual ones in their order."""

    driver: str
    group: str
    id: str
    place: str
    vfs: tuple[str, ...] = ("", "")


@dataclass(frozen=True, slots=True)
class Usb:
    """One USB device or root hub as the kernel describes it · at: its controller."""

    id: str
    speed: str
    serial: str
    at: str


@dataclass(frozen=True, slots=True)
class Answers:
    """cmdline: words of /proc/cmdline without those of the boot loader · functions by address · usb by the kernel's
    name (usb1, 1-4.2)."""

    cmdline: tuple[str, ...]
    functions: dict[str, Function] = field(default_factory=dict)
    usb: dict[str, Usb] = field(default_factory=dict)

    def drivers(self) -> dict[str, str]:
        return {address: function.driver for address, function in self.functions.items()}

    def groups(self) -> frozenset[frozenset[str]]:
        """The groups as sets of addresses; their numbers are the kernel's business."""
        members: dict[str, set[str]] = {}
        for address, function in self.functions.items():
            if function.group:
                members.setdefault(function.group, set()).add(address)
        return frozenset(frozenset(found) for found in members.values())


def kernel(machine: Machine) -> Answers:
    """What the running kernel says. Raises LabError."""
    said = machine.run("/usr/bin/python3", "-c", _KERNEL)
    if said.rc != 0:
        raise LabError(said.text)
    return _answers(json.loads(said.out))


def _answers(found: dict[str, object]) -> Answers:
    functions, usb = found["functions"], found["usb"]
    assert isinstance(functions, dict)
    assert isinstance(usb, dict)
    rows = {
        address: Function(row["driver"], row["group"], row["id"], row["place"], tuple(row["vfs"]))
        for address, row in sorted(functions.items())
    }
    return Answers(arguments(str(found["cmdline"])), rows, {name: Usb(**row) for name, row in sorted(usb.items())})


def at(kernel: Answers, place: str) -> str:
    """The address of the function at a place. Raises LabError."""
    for address, function in kernel.functions.items():
        if function.place == place:
            return address
    raise LabError(f"nothing is plugged in at {place}")


def arguments(line: str) -> tuple[str, ...]:
    """The kernel's arguments without those that the boot loader adds by itself."""
    return tuple(word for word in line.split() if not word.startswith("BOOT_IMAGE="))


def files(machine: Machine) -> dict[str, str]:
    """Path → checksum or target of each file and link that a change or its undo could touch."""
    lines = machine.shell(_FILES, 300).splitlines()
    return {path: what for what, _, path in (line.partition("  ") for line in lines)}


def initramfs(machine: Machine) -> list[str]:
    """What the newest initramfs holds."""
    return sorted(machine.shell("lsinitramfs /boot/initrd.img-$(uname -r)", 300).splitlines())


def differences(before: dict[str, str], after: dict[str, str]) -> list[str]:
    """Paths that are not the same in both."""
    return sorted(path for path in before.keys() | after.keys() if before.get(path) != after.get(path))
