"""Lay a lab machine's recorded answers out as a directory that can be read as if it were `/`.

1. Everything comes from the recording: what it does not hold is not in the tree.
2. Links are relative, as in the kernel's sysfs, so that the tree can lie anywhere.
3. Attributes that were listed but whose content was not recorded (`reset`, `rom`, `resource0`) are there and empty.
"""

from __future__ import annotations

import os
import re
from pathlib import Path

DEVICES = "/sys/bus/pci/devices"
_FOLDERS = re.compile(
    r"link|power|pci_bus|msi_irqs|net|drm|graphics|nvme|sound|ptp|wakeup|vfio-dev|remapped_nvme|\w+\.\d+\.auto"
    r"|(?:i2c-|ata|usb|virtio)\d+|[0-9a-f]{4,}:[0-9a-f]{2}:.*"
)
_LINKS = ("driver", "iommu_group", "subsystem", "physfn", "iommu")
_LISTED_LINK = re.compile(r"l\S+ .* (\S+) -> (\S+)")
_TEXTS = {
    "cmdline.txt": "/proc/cmdline",
    "cpuinfo.txt": "/proc/cpuinfo",
    "meminfo.txt": "/proc/meminfo",
    "interrupts.txt": "/proc/interrupts",
    "iomem.txt": "/proc/iomem",
    "etc-default-grub.txt": "/etc/default/grub",
    "grub.cfg": "/boot/grub/grub.cfg",
    "modprobe.d.txt": "/etc/modprobe.d/recorded.conf",
}


def complete(capture: Path) -> bool:
    """Whether the recording holds a machine at all; one of them is only a serial console's log."""
    return (capture / "sys").is_dir()


def lay_out(capture: Path, target: Path) -> Path:
    """Build the tree of the recording in folder `capture` below `target` and return its root."""
    root = target / capture.name
    for folder in ("sys/bus/pci/devices", "sys/bus/pci/drivers", "sys/class", "proc/sys/kernel", "etc", "dev"):
        (root / folder).mkdir(parents=True)
    for device in sorted((capture / "sys").iterdir()):
        _lay_device(device, root)
    _lay_virtual_functions(root)
    _lay_groups(capture, root)
    _lay_class(capture / "class-iommu.txt", "iommu", root)
    _lay_graphics(capture, root)
    _lay_system(capture, root)
    return root


def listed_groups(capture: Path) -> dict[str, int]:
    """Group by address, as the recording's list of /sys/kernel/iommu_groups says."""
    lines = (capture / "iommu-groups.txt").read_text().split()
    return {line.rsplit("/", 1)[1]: int(line.split("/")[4]) for line in lines}


def _put(root: Path, path: str, data: bytes) -> None:
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(data)


def _link(root: Path, path: str, destination: str) -> None:
    """A relative link at `path` to `destination`, both absolute in the tree."""
    file = root / path.lstrip("/")
    file.parent.mkdir(parents=True, exist_ok=True)
    if not file.is_symlink():
        file.symlink_to(os.path.relpath(destination, os.path.dirname(path)))


def _lay_device(device: Path, root: Path) -> None:
    real = (device / "@realpath").read_text().strip()
    folder = root / real.lstrip("/")
    folder.mkdir(parents=True, exist_ok=True)
    listed = (device / "@ls").read_text().split()
    for name in {file.name for file in device.iterdir()} & set(listed):
        (folder / name).write_bytes((device / name).read_bytes())
    for name in _LINKS:
        destination = _recorded_link(device, name, real)
        if destination:
            _link(root, f"{real}/{name}", destination)
    for name in listed:
        _lay_listed(folder, name)
    _link(root, f"{DEVICES}/{device.name}", real)
    driver = _recorded_link(device, "driver", real)
    if driver:
        for name in ("bind", "unbind", "new_id", "remove_id"):
            _put(root, f"{driver}/{name}", b"")
        _link(root, f"{driver}/{device.name}", real)


def _recorded_link(device: Path, name: str, real: str) -> str:
    """Where the link leads, absolute; empty when there was none (some recordings then hold an empty text)."""
    recorded = device / f"@{name}"
    text = recorded.read_text().strip() if recorded.exists() else ""
    return os.path.normpath(f"{real}/{text}") if text else ""


def _lay_listed(folder: Path, name: str) -> None:
    place = folder / name
    if name in {"firmware_node", *_LINKS} or name.startswith("virtfn") or place.exists() or place.is_symlink():
        return
    if _FOLDERS.fullmatch(name):
        place.mkdir()
    else:
        place.write_bytes(b"")


def _lay_virtual_functions(root: Path) -> None:
    """`virtfnN` links were listed but not read; the functions' own `physfn` links say the same."""
    owned: dict[str, list[str]] = {}
    for entry in sorted((root / "sys/bus/pci/devices").iterdir()):
        if (entry / "physfn").is_symlink():
            owned.setdefault(os.path.basename(os.readlink(entry / "physfn")), []).append(entry.name)
    for owner, functions in owned.items():
        for number, function in enumerate(functions):
            real = (root / "sys/bus/pci/devices" / owner).resolve()
            (real / f"virtfn{number}").symlink_to(f"../{function}")


def _lay_groups(capture: Path, root: Path) -> None:
    (root / "sys/kernel/iommu_groups").mkdir(parents=True)
    for address, group in listed_groups(capture).items():
        real = "/" + str((root / "sys/bus/pci/devices" / address).resolve().relative_to(root.resolve()))
        _link(root, f"/sys/kernel/iommu_groups/{group}/devices/{address}", real)
    for line in (capture / "iommu-groups-attrs.txt").read_text().splitlines():
        path, _, value = line.partition(": ")
        _put(root, path, value.replace(";", "\n").encode())


def _lay_class(listing: Path, name: str, root: Path) -> None:
    """A class directory from its `ls -l`; a listing that only says that it is not there makes none."""
    text = listing.read_text()
    if "No such file" in text:
        return
    (root / "sys/class" / name).mkdir()
    for entry, target in _LISTED_LINK.findall(text):
        _lay_class_link(root, name, entry, target)


def _lay_class_link(root: Path, name: str, entry: str, target: str) -> None:
    destination = os.path.normpath(f"/sys/class/{name}/{target}")
    (root / destination.lstrip("/")).mkdir(parents=True, exist_ok=True)
    _link(root, f"/sys/class/{name}/{entry}", destination)


def _lay_graphics(capture: Path, root: Path) -> None:
    name = ""
    for line in (capture / "drm-ls.txt").read_text().splitlines():
        if line.startswith("/sys/class/"):
            name = line.removeprefix("/sys/class/").rstrip(":")
            (root / "sys/class" / name).mkdir(exist_ok=True)
        elif found := _LISTED_LINK.fullmatch(line):
            _lay_class_link(root, name, found[1], found[2])
    for line in (capture / "drm.txt").read_text().splitlines():
        connector, status = line.split()
        (root / connector.lstrip("/") / "status").write_text(f"{status}\n")


def _lay_system(capture: Path, root: Path) -> None:
    for name, path in _TEXTS.items():
        data = (capture / name).read_bytes()
        if data:
            _put(root, path, data)
    for line in (capture / "lsmod.txt").read_text().splitlines()[1:]:
        module = line.split()[0]
        (root / "sys/module" / module).mkdir(parents=True)
    _put(root, "/proc/modules", _modules((capture / "lsmod.txt").read_text()).encode())
    _put(root, "/proc/sys/kernel/osrelease", f"{(capture / 'uname.txt').read_text().split()[2]}\n".encode())
    (root / "sys/firmware/acpi/tables").mkdir(parents=True)
    for table in (capture / "acpi-tables.txt").read_text().split():
        if table.isupper():
            _put(root, f"/sys/firmware/acpi/tables/{table}", b"")
    for file in (capture / "acpi").iterdir():
        _put(root, f"/sys/firmware/acpi/tables/{file.name}", file.read_bytes())
    if (capture / "firmware.txt").read_text().strip() == "uefi":
        (root / "sys/firmware/efi").mkdir()


def _modules(lsmod: str) -> str:
    """/proc/modules from what lsmod made of it."""
    lines = []
    for line in lsmod.splitlines()[1:]:
        name, size, users, *holders = line.split()
        lines.append(f"{name} {size} {users} {holders[0] + ',' if holders else '-'} Live 0x0000000000000000\n")
    return "".join(lines)
