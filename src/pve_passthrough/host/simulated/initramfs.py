"""What `update-initramfs` packs, and what lies inside an image. The image file is readable JSON.

1. An image is a copy: it holds modprobe.d, its module list and the init-top scripts as they were when it was built
   (initramfs-tools 0.142, mkinitramfs). Later edits do nothing until the next build.
2. Modules inside: those for disks, networks and USB hosts (MODULES=most), those in /etc/initramfs-tools/modules,
   and what they pull in by dependency or softdep. Display and sound drivers are not among them.
3. Only executable scripts count (mkinitramfs skips the others); none is ever executed here.
"""

from __future__ import annotations

import json
import os
from typing import Any

from ..base import Ran
from . import kernel, modprobe
from .world import World

SCRIPTS = "/etc/initramfs-tools/scripts/init-top"
MODULE_LIST = "/etc/initramfs-tools/modules"
SIZE = 64 * 1024 * 1024
"""Room that one image needs while it is written, in bytes (a plain MODULES=most image is 50 to 80 MiB)."""

_FOLDERS = {
    "nvme": "drivers/nvme/host",
    "ahci": "drivers/ata",
    "xhci_pci": "drivers/usb/host",
    "vfio_pci": "drivers/vfio/pci",
}


def kernels(world: World) -> tuple[str, ...]:
    """Releases with a kernel in /boot, oldest first."""
    found = [name.removeprefix("vmlinuz-") for name in world.names("/boot") if name.startswith("vmlinuz-")]
    return tuple(sorted(found, key=release_key))


def release_key(release: str) -> tuple[tuple[int, str], ...]:
    """Orders releases as versions: 6.17 after 6.8."""
    words = release.replace("-", ".").split(".")
    return tuple((int(word), "") if word.isdigit() else (-1, word) for word in words)


def image_path(release: str) -> str:
    return f"/boot/initrd.img-{release}"


def build(world: World, release: str) -> None:
    """Write the image of one kernel."""
    files = {
        path: text
        for path, text in modprobe.config_files(world).items()
        if path.startswith(("/etc/modprobe.d/", "/lib/modprobe.d/", "/usr/lib/modprobe.d/"))
    }
    listed = world.text(MODULE_LIST) or ""
    scripts = {name: world.text(f"{SCRIPTS}/{name}") or "" for name in world.names(SCRIPTS) if _runs(world, name)}
    config = modprobe.parse(files.values())
    machine = world.machine()
    wanted = [*machine.get("early", ()), *(line.split()[0] for line in list_lines(listed))]
    inside = modprobe.closure(wanted, config, kernel.known_modules(machine))
    image = {"kernel": release, "modprobe": files, "modules": inside, "list": listed, "init-top": scripts}
    world.put(image_path(release), json.dumps(image, indent=1) + "\n")


def _runs(world: World, name: str) -> bool:
    return os.access(world.tree.real(f"{SCRIPTS}/{name}"), os.X_OK) and not name.startswith(".")


def list_lines(text: str) -> list[str]:
    """Lines of a module list that say something: `vfio-pci ids=…`."""
    return [line.strip() for line in text.splitlines() if line.strip() and not line.strip().startswith(("#", ";"))]


def open_image(text: str | None) -> dict[str, Any] | None:
    """The image's content, None when there is none or it is torn."""
    try:
        loaded = json.loads(text or "")
    except ValueError:
        return None
    return loaded if isinstance(loaded, dict) and "modprobe" in loaded else None


def contents(image: dict[str, Any]) -> list[str]:
    """Names as lsinitramfs lists them."""
    release = image["kernel"]
    names = [
        f"usr/lib/modules/{release}/kernel/{_FOLDERS.get(one, 'drivers')}/{one.replace('_', '-')}.ko"
        for one in image["modules"]
    ]
    names += [path.lstrip("/") for path in image["modprobe"]]
    names += [f"scripts/init-top/{name}" for name in image["init-top"]]
    return sorted(
        [*names, "conf/modules", "conf/initramfs.conf", "init", "scripts/init-top/udev", "scripts/init-top/ORDER"]
    )


def claims(image: dict[str, Any]) -> list[tuple[str, str]]:
    """(address, vendor:device) of each `claim` line in the script pve-passthrough."""
    found = []
    for line in image["init-top"].get("pve-passthrough", "").splitlines():
        words = line.split()
        if len(words) == 3 and words[0] == "claim":
            found.append((words[1].strip("'\""), words[2].strip("'\"")))
    return found


def resizes(image: dict[str, Any]) -> list[tuple[str, str, int, int]]:
    """(address, vendor:device, BAR, power) of each `resize` line in the script pve-passthrough."""
    rows = (line.split() for line in image["init-top"].get("pve-passthrough", "").splitlines())
    return [(row[1], row[2], int(row[3]), int(row[4])) for row in rows if len(row) == 5 and row[0] == "resize"]


def update(world: World, argv: list[str], free: int, after: Any) -> Ran:
    """`update-initramfs`. `free` is the room on /boot; `after(release)` runs the hooks that follow each image."""
    options = {"-u": False, "-c": False}
    wanted = ""
    words = list(argv)
    while words:
        word = words.pop(0)
        if word in options:
            options[word] = True
        elif word == "-k" and words:
            wanted = words.pop(0)
        elif word != "-v":
            return Ran(1, "", f"update-initramfs: invalid option {word}\n")
    if not any(options.values()):
        return Ran(1, "", "You must specify at least one of -c, -u, or -d.\n")
    known = kernels(world)
    chosen = known if wanted == "all" else known[-1:] if not wanted else (wanted,)
    said, complained = "", ""
    for release in chosen:
        if release not in known:
            return Ran(1, said, complained + f"{release} is not a valid kernel version\n")
        said += f"update-initramfs: Generating {image_path(release)}\n"
        if "update-initramfs" in world.machine().get("failing", ()):
            return Ran(
                1, said, f"E: /usr/share/initramfs-tools/hooks/udev failed with return 1.\n{_failed(release, 1)}"
            )
        if free < SIZE:
            trouble = "zstd: error 70 : Write error : cannot write block : No space left on device\n"
            return Ran(1, said, f"{trouble}E: mkinitramfs failure zstd -q -9 -T0 70\n{_failed(release, 1)}")
        build(world, release)
        hook: Ran = after(release)
        said, complained = said + hook.stdout, complained + hook.stderr
        if not hook.ok:
            failed = f"run-parts: /etc/initramfs/post-update.d//proxmox-boot-sync exited with return code {hook.rc}\n"
            return Ran(1, said, complained + failed)
    return Ran(0, said, complained)


def _failed(release: str, status: int) -> str:
    return f"update-initramfs: failed for {image_path(release)} with {status}.\n"
