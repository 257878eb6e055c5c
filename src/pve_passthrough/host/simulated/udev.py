"""udev's rules, as far as they write attributes of PCI functions: at every start, and on `udevadm trigger`.

1. Files *.rules by name; one in /etc hides one of the same name in /run and /usr/lib (udev(7)).
2. Understood: ACTION, SUBSYSTEM, KERNEL and ATTR{} as matches (with * and ?), ATTR{}= as assignment, and RUN+= of a
   shell that loads a module and echoes one word into an attribute. A line with anything else does nothing here.
3. An assignment that the kernel refuses is told in the log and stops nothing (udev(7), systemd's udev-rules.c).
"""

from __future__ import annotations

import re
from fnmatch import fnmatchcase

from . import kernel
from .world import DEVICES, SysfsError, World

DIRECTORIES = ("/etc/udev/rules.d", "/run/udev/rules.d", "/usr/lib/udev/rules.d", "/lib/udev/rules.d")
_PART = re.compile(r'\s*([A-Z_]+)(?:\{([^}]*)\})?\s*(==|!=|\+=|=)\s*"((?:[^"\\]|\\.)*)"\s*(?:,|$)')
_SHELL = re.compile(r"/bin/sh -c '/sbin/modprobe ([\w-]+); echo (\w+) > (/sys/[^' ;]+)'")

Part = tuple[str, str, str, str]


def trigger(world: World) -> None:
    """`add` for every function."""
    rules = [parts for text in _texts(world) for line in text.splitlines() if (parts := _parse(line))]
    for address in world.addresses() if rules else ():
        for parts in rules:
            if all(_fits(world, address, part) for part in parts if part[2] in ("==", "!=")):
                for part in parts:
                    _act(world, address, part)


def _texts(world: World) -> list[str]:
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        for name in world.names(directory):
            if name.endswith(".rules"):
                found.setdefault(name, world.text(f"{directory}/{name}") or "")
    return [found[name] for name in sorted(found)]


def _parse(line: str) -> tuple[Part, ...]:
    parts: list[Part] = []
    rest = line.strip()
    if rest.startswith("#"):
        return ()
    while rest:
        match = _PART.match(rest)
        if match is None:
            return ()
        parts.append((match[1], match[2] or "", match[3], match[4]))
        rest = rest[match.end() :]
    return tuple(parts)


def _fits(world: World, address: str, part: Part) -> bool:
    key, inner, sign, pattern = part
    texts = {"ACTION": "add", "SUBSYSTEM": "pci", "KERNEL": address}
    text = world.attribute(address, inner) if key == "ATTR" else texts.get(key)
    if text is None:
        return False
    return any(fnmatchcase(text, one) for one in pattern.split("|")) == (sign == "==")


def _act(world: World, address: str, part: Part) -> None:
    key, inner, sign, text = part
    if key == "ATTR" and sign == "=":
        _write(world, f"{DEVICES}/{address}/{inner}", text)
    elif key == "RUN" and (match := _SHELL.fullmatch(text.replace("%k", address))):
        loader = kernel.running_loader(world)
        loader.load(match[1])
        kernel.list_modules(world, loader.loaded)
        _write(world, match[3], match[2])


def _write(world: World, path: str, text: str) -> None:
    try:
        world.sysfs(path, text)
    except SysfsError as error:
        state = world.state()
        said = f"systemd-udevd: Failed to write '{text}' to '{path}': {error.strerror}"
        state.setdefault("dmesg", []).append(said)
        world.save_state(state)
