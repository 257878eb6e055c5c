"""The guest that runs inside a lab host: a kernel and an initramfs with a shell, a few modules and the guest agent.

1. Made from the files of an unpacked Debian tree; nothing of the tree is executed but its dynamic loader, which lists
   the agent's libraries.
2. The kernel is the tree's own, unpacked: an emulated processor would spend most of the start on unpacking it.
3. The guest has no disk. What it sees it says on its console (`NESTED PCI …`, `NESTED USB …`) and through its agent.
"""

from __future__ import annotations

from pathlib import Path

from ..programs import LabError, run
from . import archive, kernel

MODULES = ("virtio_pci", "virtio_console", "xhci_pci", "button", "evdev")
"""What the guest's own kernel needs: the agent's port first, the USB controller, the power button and its events."""
ARGUMENTS = (
    "console=ttyS0 quiet panic=-1 mitigations=off nokaslr pci=noearly tsc=reliable no_timer_check cryptomgr.notests "
    "audit=0 apparmor=0 random.trust_cpu=on"
)
"""The kernel's arguments: each of them leaves out something that takes seconds under nested virtualisation. `noearly`:
the search for an AMD GART reads the configuration space of every bus twice (arch/x86/kernel/aperture_64.c)."""
_APPLETS = (
    "acpid", "basename", "cat", "echo", "find", "grep", "head", "hostname", "insmod", "ip", "ln", "ls", "lsmod",
    "mkdir", "mount", "poweroff", "printf", "ps", "readlink", "reboot", "sed", "seq", "sh", "sleep", "sort", "tail",
    "test", "tr", "true", "uname", "wc",
)  # fmt: skip
_AGENT = "usr/sbin/qemu-ga"
_LOADER = "lib64/ld-linux-x86-64.so.2"
_FOLDERS = ("dev", "etc", "lib", "modules", "proc", "root", "run", "sbin", "sys", "tmp", "usr", "var", "var/run")
_HERE = Path(__file__).parent


def build(root: Path, out: Path) -> tuple[Path, Path]:
    """The guest's kernel (an ELF image) and initramfs, written into the folder `out`. Raises LabError."""
    releases = sorted(path.name for path in (root / "lib/modules").iterdir())
    if not releases:
        raise LabError(f"{root} has no kernel modules")
    release = releases[-1]
    out.mkdir(parents=True, exist_ok=True)
    image, initrd = out / "vmlinux", out / "nested.img"
    image.write_bytes(kernel.unpacked((root / f"boot/vmlinuz-{release}").read_bytes()))
    initrd.write_bytes(archive.pack(_entries(root, release)))
    return image, initrd


def _entries(root: Path, release: str) -> list[archive.Entry]:
    """Everything in the initramfs, folders before what lies in them."""
    modules = kernel.modules(root / "lib/modules" / release, MODULES)
    files = {f"modules/{name}": data for name, data in modules}
    files["modules/order"] = "".join(f"{name}\n" for name, _ in modules).encode()
    files |= {"bin/busybox": (root / "bin/busybox").read_bytes(), "sbin/qemu-ga": (root / _AGENT).read_bytes()}
    files |= {f"lib/{name}": data for name, data in _libraries(root)}
    files |= {name: (_HERE / name.rpartition("/")[2]).read_bytes() for name in ("init", "bin/lsusb", "sbin/shutdown")}
    files |= {
        "etc/os-release": (root / "etc/os-release").read_bytes(),
        "etc/hostname": b"nested\n",
        "etc/passwd": b"root::0:0:root:/root:/bin/sh\n",
        "etc/acpi/PWRF/00000080": b"#!/bin/sh\nexec /sbin/shutdown -h\n",
    }
    folders = {*_FOLDERS, *(parent for name in files for parent in _parents(name))}
    entries = [archive.folder(name) for name in sorted(folders)]
    entries += [archive.link("lib64", "lib"), archive.link("bin/kill", "busybox")]
    entries += [archive.link(f"bin/{name}", "busybox") for name in _APPLETS]
    entries += [archive.device("dev/console", 5, 1), archive.device("dev/null", 1, 3)]
    return entries + [archive.file(name, data) for name, data in sorted(files.items())]


def _parents(name: str) -> list[str]:
    parts = name.split("/")[:-1]
    return ["/".join(parts[: length + 1]) for length in range(len(parts))]


def _libraries(root: Path) -> list[tuple[str, bytes]]:
    """Name and content of the shared libraries that the agent loads, the loader included."""
    folders = ":".join(str(root / name) for name in ("lib/x86_64-linux-gnu", "usr/lib/x86_64-linux-gnu"))
    said = run((root / _LOADER, "--inhibit-cache", "--library-path", folders, "--list", root / _AGENT), 30)
    found = {"ld-linux-x86-64.so.2": (root / _LOADER).read_bytes()}
    for line in said.splitlines():
        name, arrow, rest = line.strip().partition(" => ")
        if arrow and not name.startswith("/"):
            place = rest.rpartition(" (")[0]
            if not place.startswith(f"{root}/"):
                raise LabError(f"the agent's library {name} was looked for outside the tree: {line.strip()}")
            found[name] = Path(place).read_bytes()
    return sorted(found.items())
