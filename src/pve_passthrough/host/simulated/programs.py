"""The programs of a simulated machine: a literal table from name to function.

1. A program is a function of the world; nothing of the machine that runs us is started, no script is ever executed.
2. A name that is not in the table is not installed.
3. `machine.json` may list programs under `failing`: they end with status 1 and the kind of words they would use.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Sequence

from ..base import Missing, Ran
from . import (
    blocks,
    boot,
    display,
    dkms,
    grub,
    initramfs,
    journal,
    kernel,
    loaders,
    modprobe,
    nodes,
    systemd,
    udev,
    zfs,
)
from .world import DRIVERS, SysfsError, World

Program = Callable[[World, Sequence[str], bytes], Ran]


def start(world: World, argv: Sequence[str], stdin: bytes = b"") -> Ran:
    """Run a program. Missing when there is none of this name."""
    name = argv[0].rpartition("/")[2]
    program = COMMANDS.get(name) or _proxmox(name)
    if program is None or (argv[0].startswith("/") and argv[0].rpartition("/")[0] not in _FOLDERS):
        raise Missing(argv[0], "no such program")
    if name in world.machine().get("failing", ()) and name not in _OWN_WORDS:
        return Ran(1, "", f"{name}: failed\n")
    done = program(world, argv, stdin)
    display.settle(world) if name in _MOVES_DRIVERS else None
    return done


def _proxmox(name: str) -> Program | None:
    """qm, pvesh and their like: loaded late, they bring the option schemas along."""
    if name not in ("qm", "pct", "pvesh", "pveversion", "pvesm", "ha-manager"):
        return None
    from .pve import COMMANDS as PROXMOX

    return PROXMOX.get(name)


def _update_initramfs(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    free = loaders.free_for(world, "/boot/initrd.img")
    return initramfs.update(world, list(argv[1:]), free, lambda release: loaders.after_image(world, release))


def _lsinitramfs(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    names = [word for word in argv[1:] if not word.startswith("-")]
    said = ""
    for name in names:
        image = initramfs.open_image(world.text(name))
        if image is None:
            return Ran(1, said, f"unmkinitramfs: cannot access '{name}': No such file or directory\n")
        said += "\n".join(initramfs.contents(image)) + "\n"
    return Ran(0, said) if names else Ran(1, "", "Usage: lsinitramfs [-l] initramfs-file [initramfs-file ...]\n")


def _update_grub(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    return loaders.update_grub(world)


def _grub_mkconfig(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if "-o" in argv[:-1]:
        return loaders.update_grub(world, argv[list(argv).index("-o") + 1])
    return Ran(1, "", "grub-mkconfig: only `-o FILE` is simulated\n")


def _boot_tool(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    return loaders.boot_tool(world, list(argv[1:]))


def _modprobe(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`modprobe [-r] [-n] [-c [-C DIR]] MODULE [OPTION=VALUE…]`."""
    words = list(argv[1:])
    flags = {word for word in words if word.startswith("-")}
    if flags & {"-c", "--showconfig"}:
        return _show_config(world, words)
    names = [word for word in words if not word.startswith("-") and "=" not in word]
    if not names:
        return Ran(1, "", "modprobe: ERROR: missing parameters. See -h.\n")
    loader = kernel.running_loader(world)
    if flags & {"-r", "--remove"}:
        return _remove(world, names, loader.loaded)
    if flags & {"-n", "--dry-run", "--show"}:
        missing = [name for name in names if modprobe.plain(name) not in loader.available]
        return Ran(1, "", _not_found(world, missing[0])) if missing else Ran(0)
    if flags & {"-b", "--use-blacklist"} and modprobe.plain(names[0]) in loader.config.blacklist:
        return Ran(0)
    problem = loader.load(names[0], " ".join(word for word in words if "=" in word))
    kernel.list_modules(world, loader.loaded)
    if problem.endswith("not found"):
        return Ran(1, "", _not_found(world, names[0]))
    return Ran(1, "", f"modprobe: ERROR: {problem}\n") if problem else Ran(0)


def _not_found(world: World, name: str) -> str:
    release = (world.text("/proc/sys/kernel/osrelease") or "").strip()
    return f"modprobe: FATAL: Module {name} not found in directory /lib/modules/{release}\n"


def _remove(world: World, names: list[str], loaded: list[str]) -> Ran:
    drivers = kernel.drivers_of(world.machine())
    for name in names:
        plain = modprobe.plain(name)
        if plain not in loaded:
            return Ran(1, "", f"modprobe: FATAL: Module {name} is not currently loaded\n")
        for address in world.addresses():
            if world.driver_of(address) == drivers.get(plain):
                world.place(address, None)
        if plain in drivers:
            shutil.rmtree(world.tree.real(f"{DRIVERS}/{drivers[plain]}"), ignore_errors=True)
        loaded.remove(plain)
    kernel.list_modules(world, loaded)
    return Ran(0)


def _show_config(world: World, words: list[str]) -> Ran:
    """The configuration as modprobe understands it; `-C DIR` reads that directory alone."""
    if "-C" in words[:-1]:
        folder = words[words.index("-C") + 1].rstrip("/")
        names = [f"{folder}/{name}" for name in world.names(folder) if name.endswith(".conf")] or [folder]
        texts = [text for name in names if (text := world.text(name)) is not None]
    else:
        texts = list(modprobe.config_files(world).values())
    config = modprobe.parse(texts, world.text("/proc/cmdline") or "")
    lines = [f"blacklist {name}" for name in sorted(config.blacklist)]
    lines += [f"install {name} {text}" for name, text in config.installs]
    lines += [f"options {name} {text}" for name, text in config.options]
    for dep in config.softdeps:
        pre, post = (
            " ".join(("", label, *names)) if names else "" for label, names in (("pre:", dep.pre), ("post:", dep.post))
        )
        lines.append(f"softdep {dep.pattern}{pre}{post}")
    return Ran(0, "".join(line + "\n" for line in lines))


def _lsmod(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    rows = (line.split() for line in (world.text("/proc/modules") or "").splitlines())
    return Ran(
        0, "Module                  Size  Used by\n" + "".join(f"{row[0]:<20}{row[1]:>9}  {row[2]}\n" for row in rows)
    )


def _uname(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    release = (world.text("/proc/sys/kernel/osrelease") or "").strip()
    node = (world.text("/etc/hostname") or "").strip()
    if "-r" in argv:
        return Ran(0, release + "\n")
    return Ran(0, f"Linux {node} {release} x86_64 GNU/Linux\n" if "-a" in argv else "Linux\n")


def _udevadm(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    if len(argv) < 2 or argv[1] not in ("control", "trigger", "settle"):
        return Ran(1, "", "udevadm: only control, trigger and settle are simulated\n")
    if argv[1] == "trigger":
        udev.trigger(world)
    return Ran(0)


def _reboot(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    boot.power_on(world)
    return Ran(0)


def _tee(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`tee ATTRIBUTE`: what comes in is written and said."""
    said = stdin.decode("utf-8", "replace")
    if len(argv) != 2 or not argv[1].startswith("/sys/"):
        return Ran(1, said, "tee: only one attribute of the kernel is simulated\n")
    try:
        world.sysfs(argv[1], said)
    except SysfsError as error:
        return Ran(1, said, f"tee: {argv[1]}: {error.strerror}\n")
    return Ran(0, said)


def _sh(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`sh -n FILE` alone: nothing is executed."""
    if len(argv) != 3 or argv[1] != "-n":
        return Ran(126, "", "sh: the simulation executes no scripts\n")
    text = world.text(argv[2])
    if text is None:
        return Ran(2, "", f"sh: 0: cannot open {argv[2]}: No such file\n")
    trouble = grub.check_syntax(argv[2], text)
    return Ran(2, "", trouble + "\n") if trouble else Ran(0)


_FOLDERS = frozenset({"/usr/sbin", "/usr/bin", "/sbin", "/bin"})
_OWN_WORDS = frozenset({"update-initramfs", "update-grub", "proxmox-boot-tool"})
_MOVES_DRIVERS = frozenset({"modprobe", "qm", "pvesh", "tee"})

COMMANDS: dict[str, Program] = {
    "dkms": dkms.dkms,
    "dmesg": journal.dmesg,
    "grub-mkconfig": _grub_mkconfig,
    "ip": blocks.ip,
    "journalctl": journal.journalctl,
    "lsblk": blocks.lsblk,
    "lsinitramfs": _lsinitramfs,
    "lsmod": _lsmod,
    "modprobe": _modprobe,
    "mokutil": dkms.mokutil,
    "proxmox-boot-tool": _boot_tool,
    "pvs": blocks.pvs,
    "reboot": _reboot,
    "sh": _sh,
    "stat": nodes.stat,
    "systemctl": systemd.systemctl,
    "systemd-run": systemd.systemd_run,
    "tee": _tee,
    "udevadm": _udevadm,
    "uname": _uname,
    "update-grub": _update_grub,
    "update-initramfs": _update_initramfs,
    "zfs": zfs.zfs,
    "zpool": zfs.zpool,
}
