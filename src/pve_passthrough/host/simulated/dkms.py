"""`dkms` and `mokutil`: modules that are built from a tree in /usr/src, and whose key is trusted.

1. Installed where the tree has the program's file; every state is files below /var/lib/dkms, as DKMS keeps them.
2. Nothing is compiled: a build fails where the kernel's headers are missing, or where the tree still includes a header
   that kernel 6.12 moved (vendor-reset issues 87, 104 and 105). The statuses are DKMS' own as far as 0 and not 0.
3. A build signs with the key in /var/lib/dkms/mok.pub, made before the first one; under Secure Boot the kernel takes a
   module only when `machine.json` lists that key's SHA-1 under `enrolled_keys`.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
from collections.abc import Sequence

from ..base import Missing, Ran, to_bytes
from . import initramfs, modprobe
from .world import World

TREE = "/var/lib/dkms"
KEY = f"{TREE}/mok.pub"
_ARCH = "x86_64"


def dkms(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`dkms status|add|install|uninstall|remove -m NAME -v VERSION [-k KERNEL] [--all]`"""
    if not world.exists("/usr/sbin/dkms"):
        raise Missing(argv[0], "no such program")
    words = list(argv[1:])
    options = {word: words[place + 1] for place, word in enumerate(words[:-1]) if word in ("-m", "-v", "-k")}
    name, version = options.get("-m", ""), options.get("-v", "")
    if not words or words[0] not in _VERBS or not name or not version:
        return Ran(1, "", "Error! Arguments <module> and <module-version> are not specified.\n")
    release = options.get("-k", (world.text("/proc/sys/kernel/osrelease") or "").strip())
    return _VERBS[words[0]](world, name, version, "" if "--all" in words else release)


def _home(name: str, version: str) -> str:
    return f"{TREE}/{name}/{version}"


def _module(name: str, release: str) -> str:
    return f"/lib/modules/{release}/updates/dkms/{name}.ko"


def _built(world: World, name: str, version: str) -> list[str]:
    return [one for one in world.names(_home(name, version)) if one != "source"]


def _status(world: World, name: str, version: str, release: str) -> Ran:
    if not world.exists(_home(name, version)):
        return Ran(0)
    lines = [
        f"{name}/{version}, {one}, {_ARCH}: {'installed' if world.exists(_module(name, one)) else 'built'}\n"
        for one in _built(world, name, version)
    ]
    return Ran(0, "".join(lines) or f"{name}/{version}: added\n")


def _add(world: World, name: str, version: str, release: str) -> Ran:
    source = f"/usr/src/{name}-{version}"
    if world.text(f"{source}/dkms.conf") is None:
        return Ran(2, "", f"Error! Could not find module source directory.\nDirectory: {source} does not exist.\n")
    world.put_link(f"{_home(name, version)}/source", source)
    return Ran(0, f"Creating symlink {_home(name, version)}/source -> {source}\n")


def _install(world: World, name: str, version: str, release: str) -> Ran:
    added = Ran(0) if world.exists(_home(name, version)) else _add(world, name, version, release)
    if not added.ok:
        return added
    if not world.names(f"/lib/modules/{release}/build"):
        said = f"Error! Your kernel headers for kernel {release} cannot be found.\n"
        return Ran(1, added.stdout, f"{said}Please install the linux-headers-{release} package.\n")
    if _moved_header(world, f"/usr/src/{name}-{version}", release):
        said = f"Error! Bad return status for module build on kernel: {release} ({_ARCH})\n"
        return Ran(10, added.stdout, f"{said}Consult {_home(name, version)}/build/make.log for more information.\n")
    if not world.exists(KEY):
        world.put(KEY, f"the key of {(world.text('/etc/hostname') or '').strip()}\n")
    world.put(f"{_home(name, version)}/{release}/{_ARCH}/module/{name}.ko", "a module\n")
    world.put(_module(name, release), "a module\n")
    _known(world, name, True)
    return Ran(
        0, f"{added.stdout}Building module:\n{name}.ko:\nInstallation\n - Installing to {_module(name, release)}\n"
    )


def _moved_header(world: World, source: str, release: str) -> bool:
    text = world.text(f"{source}/src/amd/amdgpu/atom.c") or ""
    new = initramfs.release_key(release)[:2] >= initramfs.release_key("6.12.0-1-pve")[:2]
    return new and "asm/unaligned.h" in text and "linux/unaligned.h" not in text


def _uninstall(world: World, name: str, version: str, release: str) -> Ran:
    if not world.exists(_home(name, version)):
        return _unknown(name, version)
    world.put(_module(name, release), None)
    _known(world, name, False)
    return Ran(0)


def _remove(world: World, name: str, version: str, release: str) -> Ran:
    """For one kernel, or for all; with the last one goes the whole record (dkms(8))."""
    if not world.exists(_home(name, version)):
        return _unknown(name, version)
    for one in _built(world, name, version):
        if release in ("", one):
            _uninstall(world, name, version, one)
            shutil.rmtree(world.tree.real(f"{_home(name, version)}/{one}"))
    if not _built(world, name, version):
        shutil.rmtree(world.tree.real(_home(name, version)))
        with contextlib.suppress(OSError):
            os.rmdir(world.tree.real(f"{TREE}/{name}"))
    return Ran(0, f"Deleting module {name}-{version} completely from the DKMS tree.\n")


def _unknown(name: str, version: str) -> Ran:
    return Ran(3, "", f"Error! The module/version combo: {name}-{version} is not located in the DKMS tree.\n")


def _known(world: World, name: str, there: bool) -> None:
    """modules.dep: which modules modprobe finds."""
    machine = world.machine()
    plain = modprobe.plain(name)
    for key in ("modules", "dkms_modules"):
        kept = [one for one in machine.get(key, []) if one != plain]
        machine[key] = [*kept, plain] if there else kept
    world.save_machine(machine)


_VERBS = {"status": _status, "add": _add, "install": _install, "uninstall": _uninstall, "remove": _remove}


# -- Secure Boot ---------------------------------------------------------------------------------


def refused(world: World) -> frozenset[str]:
    """Modules that the kernel does not take, for want of a trusted key (lockdown)."""
    machine = world.machine()
    if not machine.get("firmware", {}).get("secure_boot") or _fingerprint(world) in machine.get("enrolled_keys", ()):
        return frozenset()
    return frozenset(machine.get("dkms_modules", ()))


def _fingerprint(world: World) -> str:
    return hashlib.sha1(to_bytes(world.text(KEY) or ""), usedforsecurity=False).hexdigest()


def mokutil(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`mokutil --list-enrolled`: one block for each key, with its fingerprint."""
    if list(argv[1:]) != ["--list-enrolled"]:
        return Ran(1, "", "mokutil: only --list-enrolled is simulated\n")
    keys: list[str] = world.machine().get("enrolled_keys", [])
    blocks = (
        f"[key {number}]\nSHA1 Fingerprint: {':'.join(key[at : at + 2] for at in range(0, len(key), 2))}\n"
        for number, key in enumerate(keys, 1)
    )
    return Ran(0, "\n".join(blocks))
