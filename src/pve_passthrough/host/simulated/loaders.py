"""Boot loaders: what is generated, and which entry the firmware starts.

1. The next boot's command line comes from what was generated last (grub.cfg, boot entries), never from a source file.
2. proxmox-boot-tool behaves as recorded from 9.2: first line of /etc/kernel/cmdline only, `root=` demanded even where
   GRUB boots, ESPs with EFI/proxmox/grubx64.efi get GRUB, others systemd-boot under UEFI and GRUB under BIOS.
3. An ESP is the directory /sim/esp/UUID; no host question reaches it, as an unmounted file system.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from ..base import Ran
from . import grub, initramfs
from .world import World

UUIDS = "/etc/kernel/proxmox-boot-uuids"
PIN = "/etc/kernel/proxmox-boot-pin"
NEXT_PIN = "/etc/kernel/next-boot-pin"
MANUAL = "/etc/kernel/proxmox-boot-manual-kernels"
GRUB_PIN = "/etc/default/grub.d/proxmox-kernel-pin.cfg"
CMDLINE = "/etc/kernel/cmdline"
TOOL = "/usr/sbin/proxmox-boot-tool"
KEPT_KERNELS = 3
ROOM_ON_ESP = 1024 * 1024 * 1024

_NAMESPACE = "in new private mount namespace..\n"
_USAGE = """USAGE: /usr/sbin/proxmox-boot-tool <commands> [ARGS]

  /usr/sbin/proxmox-boot-tool format <partition> [--force]
  /usr/sbin/proxmox-boot-tool init <partition> [grub]
  /usr/sbin/proxmox-boot-tool reinit
  /usr/sbin/proxmox-boot-tool clean [--dry-run]
  /usr/sbin/proxmox-boot-tool refresh [--hook <name>]
  /usr/sbin/proxmox-boot-tool kernel <add|remove> <kernel-version>
  /usr/sbin/proxmox-boot-tool kernel pin <kernel-version> [--next-boot]
  /usr/sbin/proxmox-boot-tool kernel unpin [--next-boot]
  /usr/sbin/proxmox-boot-tool kernel list
  /usr/sbin/proxmox-boot-tool status [--quiet]
  /usr/sbin/proxmox-boot-tool help
"""


@dataclass(frozen=True, slots=True)
class Entry:
    """What the firmware ends up starting: the command line as /proc/cmdline will show it, the image's text."""

    release: str
    cmdline: str
    image: str | None


# -- which entry starts ----------------------------------------------------------------------


def next_entry(world: World) -> Entry | None:
    """The entry of the first place in the boot order that can start anything; None: this machine does not start."""
    for where in world.machine().get("boot_order", ["disk"]):
        entry = _from_disk(world) if where == "disk" else _from_esp(world, where)
        if entry is not None:
            return entry
    return None


def _from_disk(world: World) -> Entry | None:
    found = grub.chosen(world.text("/boot/grub/grub.cfg") or "")
    if found is None:
        return None
    release, path, args, initrd = found
    return Entry(release, _joined(f"BOOT_IMAGE={path}", args), world.text(initrd))


def _from_esp(world: World, uuid: str) -> Entry | None:
    base = f"/sim/esp/{uuid}"
    if _uses_grub(world, uuid):
        found = grub.chosen(world.text(f"{base}/grub/grub.cfg") or "")
        if found is None:
            return None
        release, path, args, initrd = found
        return Entry(release, _joined(f"BOOT_IMAGE={path}", args), world.text(f"{base}{initrd}"))
    return _from_systemd_boot(world, base)


def _from_systemd_boot(world: World, base: str) -> Entry | None:
    names = [name for name in world.names(f"{base}/loader/entries") if name.endswith(".conf")]
    if not names:
        return None
    default = next(
        (
            line.split()[-1]
            for line in (world.text(f"{base}/loader/loader.conf") or "").splitlines()
            if line.startswith("default")
        ),
        "",
    )
    name = default if default in names else max(names, key=lambda one: initramfs.release_key(_release_in(one)))
    lines = dict(
        line.split(None, 1)
        for line in (world.text(f"{base}/loader/entries/{name}") or "").splitlines()
        if len(line.split()) > 1
    )
    initrd = lines.get("initrd", "").strip()
    # systemd-boot hands the image to the EFI stub by name, so it shows up first in /proc/cmdline
    shown = "initrd=" + initrd.replace("/", "\\")
    return Entry(_release_in(name), _joined(shown, lines.get("options", "")), world.text(f"{base}{initrd}"))


def _release_in(name: str) -> str:
    return name.removeprefix("proxmox-").removesuffix(".conf")


def _joined(*parts: str) -> str:
    return " ".join(" ".join(parts).split())


# -- generating ------------------------------------------------------------------------------


def managed(world: World) -> bool:
    return world.exists(UUIDS)


def refresh_all(world: World) -> Ran:
    """What an installer does at its end."""
    return refresh(world) if managed(world) else update_grub(world)


def update_grub(world: World, output: str = "/boot/grub/grub.cfg") -> Ran:
    """`update-grub`. On a managed host GRUB's header script runs proxmox-boot-tool refresh first."""
    said = "Generating grub configuration file ...\n"
    if "update-grub" in world.machine().get("failing", ()):
        return Ran(1, "", said + "/usr/sbin/grub-probe: error: failed to get canonical path of `rpool/ROOT/pve-1'.\n")
    inner = Ran(0)
    try:
        variables = _variables(world)
        if managed(world):
            said += "W: This system is booted via proxmox-boot-tool:\n"
            said += "W: Executing 'update-grub' directly does not update the correct configs!\n"
            said += "W: Running: 'proxmox-boot-tool refresh'\n\n"
            inner = sync(world)
            if not inner.ok:
                return Ran(inner.rc, inner.stdout, said + inner.stderr)
    except grub.ShellError as error:
        return Ran(error.status, "", f"{error.text}\n")
    releases = list(reversed(initramfs.kernels(world)))
    found = "".join(
        f"Found linux image: /boot/vmlinuz-{one}\nFound initrd image: /boot/initrd.img-{one}\n" for one in releases
    )
    if free_for(world, output) < 64 * 1024:
        return Ran(1, inner.stdout, said + inner.stderr + "cat: write error: No space left on device\n")
    world.put(output, grub.config(variables, releases, _grub_root(world), "/boot"), 0o600)
    return Ran(0, inner.stdout, said + inner.stderr + found + "done\n")


def free_for(world: World, path: str) -> int:
    """Free bytes on the file system of `path`, by `rooms` in machine.json: {directory: [total, free]}."""
    rooms = world.machine().get("rooms", {})
    best = max(
        (name for name in rooms if path == name or path.startswith(name.rstrip("/") + "/")), key=len, default=None
    )
    return int(rooms[best][1]) if best is not None else 1 << 40


def _variables(world: World) -> dict[str, str]:
    names = [f"/etc/default/grub.d/{name}" for name in world.names("/etc/default/grub.d") if name.endswith(".cfg")]
    paths = [path for path in ("/etc/default/grub", *names) if not path.rpartition("/")[2].startswith(".")]
    return grub.evaluate((path, text) for path in paths if (text := world.text(path)) is not None)


def _grub_root(world: World) -> str:
    """GRUB finds the root by itself: a device for LVM, `ZFS=/ROOT/pve-1` on a pool."""
    root: str = world.machine().get("root", "root=/dev/mapper/pve-root")
    return "root=ZFS=/ROOT/pve-1 ro" if root.startswith("root=ZFS") else f"{root} ro"


def _uses_grub(world: World, uuid: str) -> bool:
    uefi = world.machine().get("firmware", {}).get("uefi", True)
    return not uefi or world.exists(f"/sim/esp/{uuid}/EFI/proxmox/grubx64.efi")


def refresh(world: World) -> Ran:
    """`proxmox-boot-tool refresh`: its two hooks."""
    inner = sync(world)
    return Ran(inner.rc, f"Running hook script 'proxmox-auto-removal'..\n{inner.stdout}", inner.stderr)


def sync(world: World) -> Ran:
    """The hook zz-proxmox-boot: kernels, images and entries onto every ESP."""
    said = (
        f"Running hook script 'zz-proxmox-boot'..\nRe-executing '/etc/kernel/postinst.d/zz-proxmox-boot' {_NAMESPACE}"
    )
    if not managed(world):
        return Ran(0, said, f"No {UUIDS} found, skipping ESP sync.\n")
    if "proxmox-boot-tool" in world.machine().get("failing", ()):
        return Ran(1, said, "mount: /var/tmp/espmounts: can't find UUID.\n")
    complained = ""
    line = world.text(CMDLINE)
    if line is None:
        complained = f"No {CMDLINE} found - falling back to /proc/cmdline\n"
        words = (world.text("/proc/cmdline") or "").split()
        line = " ".join(word for word in words if not word.startswith("initrd="))
    first = line.split("\n")[0]
    if "root=" not in first:
        return Ran(1, said, f"{complained}No root= parameter in {CMDLINE} found!\n")
    for uuid in (world.text(UUIDS) or "").split():
        done = _fill_esp(world, uuid, first)
        said, complained = said + done.stdout, complained + done.stderr
        if not done.ok:
            return Ran(done.rc, said, complained)
    return Ran(0, said, complained)


def kept_releases(world: World) -> list[str]:
    """Kernels that go onto the ESPs, newest first: the newest few, the pinned one and the hand-picked ones."""
    present = list(reversed(initramfs.kernels(world)))
    extra = set((world.text(MANUAL) or "").split()) | set((world.text(PIN) or "").split())
    extra |= set((world.text(NEXT_PIN) or "").split())
    return [release for number, release in enumerate(present) if number < KEPT_KERNELS or release in extra]


def _fill_esp(world: World, uuid: str, cmdline: str) -> Ran:
    """One ESP. It fills up file by file: without room the old entries stay as they are."""
    device = f"/dev/disk/by-uuid/{uuid}"
    if not world.exists(device):
        return Ran(0, "", f"WARN: {device} does not exist - clean '{UUIDS}'! - skipping\n")
    base = f"/sim/esp/{uuid}"
    said = f"Copying and configuring kernels on {device}\n"
    releases = kept_releases(world)
    room = world.machine().get("rooms", {}).get(f"esp:{uuid}", [ROOM_ON_ESP, ROOM_ON_ESP])[1]
    if room < initramfs.SIZE:
        return Ran(1, said, "cp: error writing 'initrd.img': No space left on device\n")
    if _uses_grub(world, uuid):
        return _fill_grub(world, base, releases, said)
    _remove_old(world, f"{base}/EFI/proxmox", releases)
    _remove_old(world, f"{base}/loader/entries", [f"proxmox-{release}.conf" for release in releases])
    for release in releases:
        said += f"\tCopying kernel and creating boot-entry for {release}\n"
        folder = f"/EFI/proxmox/{release}"
        for name in (f"vmlinuz-{release}", f"initrd.img-{release}"):
            world.put(f"{base}{folder}/{name}", world.text(f"/boot/{name}") or "")
        world.put(
            f"{base}/loader/entries/proxmox-{release}.conf",
            f"title    Proxmox Virtual Environment\nversion  {release}\noptions  {cmdline}\n"
            f"linux    {folder}/vmlinuz-{release}\ninitrd   {folder}/initrd.img-{release}\n",
        )
    pinned = (world.text(NEXT_PIN) or world.text(PIN) or "").strip()
    default = f"proxmox-{pinned}.conf" if pinned else "proxmox-*"
    world.put(f"{base}/loader/loader.conf", f"timeout 3\ndefault {default}\n")
    return Ran(0, said)


def _fill_grub(world: World, base: str, releases: list[str], said: str) -> Ran:
    for release in releases:
        said += f"\tCopying kernel {release}\n"
        for name in (f"vmlinuz-{release}", f"initrd.img-{release}"):
            world.put(f"{base}/{name}", world.text(f"/boot/{name}") or "")
    try:
        variables = _variables(world)
    except grub.ShellError as error:
        return Ran(error.status, said, f"Generating grub configuration file ...\n{error.text}\n")
    pinned = (world.text(NEXT_PIN) or world.text(PIN) or "").strip()
    if pinned:
        variables["GRUB_DEFAULT"] = f"gnulinux-{pinned}-advanced"
    world.put(f"{base}/grub/grub.cfg", grub.config(variables, releases, _grub_root(world), ""))
    return Ran(0, said, "Generating grub configuration file ...\ndone\n")


def _remove_old(world: World, folder: str, keep: Sequence[str]) -> None:
    for name in world.names(folder):
        if name not in keep and (name.startswith("proxmox-") or name[:1].isdigit()):
            for inner in world.names(f"{folder}/{name}") if not name.endswith(".conf") else ():
                world.put(f"{folder}/{name}/{inner}", None)
            if name.endswith(".conf"):
                world.put(f"{folder}/{name}", None)


# -- proxmox-boot-tool -----------------------------------------------------------------------


def boot_tool(world: World, argv: list[str]) -> Ran:
    """`proxmox-boot-tool ARGS`, texts and codes as recorded."""
    match argv:
        case [] | ["help"]:
            return Ran(0, "", _USAGE)
        case ["status", *rest]:
            return _status(world, "--quiet" in rest)
        case ["refresh", *_]:
            return refresh(world)
        case ["kernel", "list"]:
            return _list(world)
        case ["kernel", "pin", release, *rest]:
            return _pin(world, release, "--next-boot" in rest)
        case ["kernel", "unpin", *rest]:
            return _unpin(world, "--next-boot" in rest)
        case ["kernel", ("add" | "remove") as verb, release]:
            return _by_hand(world, verb, release)
    return Ran(1, "", f"Invalid/unknown command '{argv[0]}'.\n\n{_USAGE}")


def _status(world: World, quiet: bool) -> Ran:
    if quiet:
        return Ran(0 if managed(world) else 2)
    said = f"Re-executing '{TOOL}' {_NAMESPACE}"
    if not managed(world):
        return Ran(2, said, f"E: {UUIDS} does not exist.\n")
    uefi = world.machine().get("firmware", {}).get("uefi", True)
    said += f"System currently booted with {'uefi' if uefi else 'legacy bios'}\n"
    complained = ""
    for uuid in (world.text(UUIDS) or "").split():
        if not world.exists(f"/dev/disk/by-uuid/{uuid}"):
            complained += f"WARN: /dev/disk/by-uuid/{uuid} does not exist - clean '{UUIDS}'! - skipping\n"
        elif parts := _configured(world, uuid):
            said += f"{uuid} is configured with: {', '.join(parts)}\n"
    return Ran(0, said, complained)


def _configured(world: World, uuid: str) -> list[str]:
    """`uefi` is systemd-boot (loader/loader.conf is there), `grub` is GRUB (a grub directory is there)."""
    base = f"/sim/esp/{uuid}"
    parts = []
    if world.exists(f"{base}/loader/loader.conf"):
        releases = [
            name
            for name in world.names(f"{base}/EFI/proxmox")
            if name[:1].isdigit() and world.names(f"{base}/EFI/proxmox/{name}")
        ]
        parts.append(f"uefi (versions: {', '.join(releases)})")
    if world.exists(f"{base}/grub"):
        releases = [name.removeprefix("vmlinuz-") for name in world.names(base) if name.startswith("vmlinuz-")]
        parts.append(f"grub (versions: {', '.join(releases)})")
    return parts


def _list(world: World) -> Ran:
    manual = (world.text(MANUAL) or "").split()
    automatic = [release for release in initramfs.kernels(world) if release not in manual]
    said = "Manually selected kernels:\n" + ("".join(f"{one}\n" for one in manual) or "None.\n")
    said += "\nAutomatically selected kernels:\n" + "\n".join(automatic) + "\n"
    if pinned := (world.text(PIN) or "").strip():
        said += f"\nPinned kernel:\n{pinned}\n"
    if once := (world.text(NEXT_PIN) or "").strip():
        said += f"\nKernel pinned on next-boot:\n{once}\n"
    return Ran(0, said)


def _pin(world: World, release: str, once: bool) -> Ran:
    known = initramfs.kernels(world)
    if release not in known:
        listing = "\n".join(reversed(known))
        trouble = f"E: no kernel image found in /boot for '{release}', not setting default.\n\n"
        return Ran(1, "", f"{trouble}Possible Proxmox kernel versions are:\n{listing}\n")
    path = NEXT_PIN if once else PIN
    world.put(path, release + "\n")
    tail = "Pinned for next boot only.\n" if once else ""
    if managed(world):
        return Ran(0, f"Set kernel '{release}' in {path}. Use the 'refresh' command to update the ESPs.\n{tail}")
    root = "/dev/mapper/pve-root"
    world.put(GRUB_PIN, f'GRUB_DEFAULT="gnulinux-advanced-{root}>gnulinux-{release}-advanced-{root}"\n')
    done = update_grub(world)
    return Ran(done.rc, f"Setting '{release}' as grub default entry and running update-grub.\n{tail}", done.stderr)


def _unpin(world: World, once: bool) -> Ran:
    said = f"Removed {NEXT_PIN}.\n"
    pinned = (world.text(PIN) or "").strip()
    world.put(NEXT_PIN, None)
    if not once:
        said += f"Removed {PIN}.\n"
        world.put(PIN, None)
    if managed(world):
        return Ran(0, f"{said}Unpinned kernel '{pinned}'. Use the 'refresh' command to update the ESPs.\n")
    world.put(GRUB_PIN, None)
    done = update_grub(world)
    return Ran(done.rc, f"{said}Reset default grub entry and running update-grub.\n", done.stderr)


def _by_hand(world: World, verb: str, release: str) -> Ran:
    listed = (world.text(MANUAL) or "").split()
    kept = sorted({*listed, release}) if verb == "add" else [one for one in listed if one != release]
    world.put(MANUAL, "".join(one + "\n" for one in kept))
    said = f"Added kernel '{release}' to" if verb == "add" else f"Removed kernel '{release}' from"
    return Ran(0, f"{said} manual kernel list. Use the 'refresh' command to update the ESPs.\n")


def after_image(world: World, release: str) -> Ran:
    """The hook after an initramfs was built: the ESPs get it at once (proxmox-boot-sync)."""
    del release
    return sync(world) if managed(world) else Ran(0)
