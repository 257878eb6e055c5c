"""What modprobe's configuration means, and in which order modules get into the kernel.

1. Pure: configuration texts and names in, calls of `insert` out. The simulation decides what inserting means.
2. The rules are kmod's own (libkmod/libkmod-module.c, libkmod-config.c): blacklist names are compared as strings, so a
   glob there is a no-op; softdep and install lines are matched with fnmatch and only the first match counts; options
   are matched by exact name and the kernel command line (`vfio-pci.ids=`, `modprobe.blacklist=`) is read last.
3. A blacklist holds for loading by alias (and for systemd-modules-load), never for a plain `modprobe NAME`,
   a dependency or a softdep.
4. `install` commands are never executed. `true`, `false` and `modprobe --ignore-install NAME` are understood.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from fnmatch import fnmatchcase

from .world import World

DIRECTORIES = (
    "/etc/modprobe.d",
    "/run/modprobe.d",
    "/usr/local/lib/modprobe.d",
    "/usr/lib/modprobe.d",
    "/lib/modprobe.d",
)
"""Where modprobe reads `*.conf`; a name in an earlier directory hides the same name in a later one (modprobe.d(5))."""

DEPENDS: dict[str, tuple[str, ...]] = {
    "vfio_pci": ("vfio_pci_core",),
    "vfio_pci_core": ("vfio", "irqbypass"),
    "vfio_iommu_type1": ("vfio",),
    "nvidia_drm": ("nvidia_modeset",),
    "nvidia_modeset": ("nvidia",),
    "nvidia_uvm": ("nvidia",),
    "nouveau": ("drm_kms_helper",),
    "i915": ("drm_kms_helper",),
    "amdgpu": ("drm_kms_helper",),
    "radeon": ("drm_kms_helper",),
    "snd_hda_intel": ("snd_hda_codec",),
    "kvmgt": ("mdev", "i915", "kvm"),
    "mdev": ("vfio",),
    "nvidia_vgpu_vfio": ("nvidia", "mdev"),
}
"""Hard dependencies that people meet while passing devices through (modules.dep)."""

EMBEDDED_SOFTDEPS = (("vfio", (), ("vfio_iommu_type1",)),)
"""`softdep` lines compiled into modules (modules.softdep): drivers/vfio/vfio_main.c, MODULE_SOFTDEP("post: …")."""

ALWAYS = frozenset(
    {"kvm", "kvm_intel", "kvm_amd", "vhost_net", "msr", "zfs", "dm_mod", "nvidia", "pci_stub", "overlay"}
)
"""Further modules that exist in every simulated kernel."""

DRIVERS = {"vfio_pci": "vfio-pci", "pci_stub": "pci-stub"}
"""Modules whose driver no device names as its natural one."""


@dataclass(frozen=True, slots=True)
class Softdep:
    pattern: str
    pre: tuple[str, ...]
    post: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Config:
    """All modprobe.d files and the kernel command line, read in order."""

    blacklist: frozenset[str] = frozenset()
    options: tuple[tuple[str, str], ...] = ()
    softdeps: tuple[Softdep, ...] = ()
    installs: tuple[tuple[str, str], ...] = ()
    banned: frozenset[str] = frozenset()
    """`module_blacklist=`: the kernel itself refuses these (kernel-parameters.txt)."""

    def options_for(self, module: str) -> str:
        return " ".join(text for name, text in self.options if name == module and text)

    def softdep_for(self, module: str) -> Softdep:
        empty = Softdep(module, (), ())
        return next((dep for dep in self.softdeps if fnmatchcase(module, dep.pattern)), empty)

    def install_for(self, module: str) -> str | None:
        return next((text for pattern, text in self.installs if fnmatchcase(module, pattern)), None)


def plain(name: str) -> str:
    """A module's name as the kernel knows it: underscores."""
    return name.replace("-", "_")


def config_files(world: World) -> dict[str, str]:
    """{path: text} of the files that modprobe would read now, in its order (by file name)."""
    found: dict[str, str] = {}
    for directory in DIRECTORIES:
        for name in world.names(directory):
            if name.endswith(".conf") and name not in found:
                found[name] = f"{directory}/{name}"
    texts = {path: world.text(path) for _, path in sorted(found.items())}
    return {path: text for path, text in texts.items() if text is not None}


def parse(files: Iterable[str], cmdline: str = "") -> Config:
    """Read configuration texts in order, then the kernel command line."""
    blacklist: set[str] = set()
    options: list[tuple[str, str]] = []
    softdeps: list[Softdep] = []
    installs: list[tuple[str, str]] = []
    for text in files:
        for line in text.replace("\\\n", " ").splitlines():
            words = line.split(None, 2)
            if len(words) < 2 or words[0].startswith("#"):
                continue
            command, name, rest = words[0], plain(words[1]), words[2] if len(words) > 2 else ""
            if command == "blacklist":
                blacklist.add(name)
            elif command == "options":
                options.append((name, rest.strip()))
            elif command == "softdep":
                softdeps.append(_softdep(name, rest))
            elif command == "install":
                installs.append((name, rest.strip()))
    softdeps += [Softdep(name, pre, post) for name, pre, post in EMBEDDED_SOFTDEPS]
    banned = _from_cmdline(cmdline, blacklist, options)
    return Config(frozenset(blacklist), tuple(options), tuple(softdeps), tuple(installs), banned)


def _softdep(name: str, rest: str) -> Softdep:
    """`pre:` and `post:` are words of their own; names before the first of them, and `pre:x` in one word, are lost."""
    lists: dict[str, list[str]] = {"pre:": [], "post:": [], "": []}
    mode = ""
    for word in rest.split():
        if word in ("pre:", "post:"):
            mode = word
        else:
            lists[mode].append(plain(word))
    return Softdep(name, tuple(lists["pre:"]), tuple(lists["post:"]))


def _from_cmdline(cmdline: str, blacklist: set[str], options: list[tuple[str, str]]) -> frozenset[str]:
    banned: set[str] = set()
    for token in cmdline.split():
        key, equals, value = token.partition("=")
        module, dot, parameter = key.partition(".")
        if key == "module_blacklist":
            banned.update(plain(name) for name in value.split(","))
        elif key == "modprobe.blacklist":
            blacklist.update(plain(name) for name in value.split(","))
        elif dot and equals and parameter:
            options.append((plain(module), f"{parameter}={value}"))
    return frozenset(banned)


def vfio_ids(options: str) -> tuple[str, ...]:
    """`vvvv dddd` of each well-formed entry of the last `ids=`; vfio_pci.c takes `%x:%x…` and skips anything else.

    The kernel splits parameters at blanks, so what follows a space inside `ids=` is another, unknown parameter.
    """
    value = ""
    for word in options.split():
        key, _, text = word.partition("=")
        if plain(key) == "ids":
            value = text.strip('"')
    found = []
    for entry in value.split(","):
        parts = entry.split(":")
        try:
            vendor, device = int(parts[0], 16), int(parts[1], 16)
        except (IndexError, ValueError):
            continue
        found.append(f"{vendor:04x} {device:04x}")
    return tuple(found)


class Loader:
    """modprobe at work. `insert(module, options)` puts one module into the kernel; `loaded` is kept up to date.

    `available` are the modules that can be reached now (in the initramfs: those inside it).
    """

    def __init__(
        self, config: Config, available: frozenset[str], loaded: list[str], insert: Callable[[str, str], None]
    ) -> None:
        self.config = config
        self.available = available
        self.loaded = loaded
        self._insert = insert
        self._busy: set[str] = set()

    def by_alias(self, module: str) -> None:
        """What udev and systemd-modules-load do: the blacklist holds (KMOD_PROBE_APPLY_BLACKLIST)."""
        if plain(module) not in self.config.blacklist:
            self.load(module)

    def load(self, module: str, extra: str = "", ignore_install: bool = False) -> str:
        """`modprobe MODULE`: empty when it went well, else the error's text. Soft dependencies never fail it."""
        name = plain(module)
        if name in self.loaded or name in self._busy:
            return ""
        command = None if ignore_install else self.config.install_for(name)
        if command is not None:
            return self._run_install(name, command)
        if name not in self.available:
            return f"Module {module} not found"
        self._busy.add(name)
        try:
            return self._load_with_friends(name, extra)
        finally:
            self._busy.discard(name)

    def _load_with_friends(self, name: str, extra: str) -> str:
        softdep = self.config.softdep_for(name)
        for friend in softdep.pre:
            self.load(friend)
        for needed in DEPENDS.get(name, ()):
            if needed in self.available and (problem := self.load(needed)):
                return problem
        if name in self.config.banned:
            return "could not insert: Operation not permitted"
        if name not in self.loaded:
            self.loaded.append(name)
            self._insert(name, f"{self.config.options_for(name)} {extra}".strip())
        for friend in softdep.post:
            self.load(friend)
        return ""

    def _run_install(self, name: str, command: str) -> str:
        result = ""
        for part in command.replace("&&", ";").replace("||", ";").split(";"):
            words = part.split()
            program = words[0].rpartition("/")[2] if words else ""
            if program == "false":
                result = f"Error running install command '{command}' for module {name}: retcode 1"
            elif program == "modprobe":
                for word in words[1:]:
                    if not word.startswith(("-", "$")):
                        result = self.load(word, ignore_install=plain(word) == name)
        return result


def closure(modules: Iterable[str], config: Config, available: frozenset[str]) -> tuple[str, ...]:
    """What an initramfs holds when it shall hold `modules`: their dependencies and softdeps too.

    initramfs-tools 0.142, hook-functions: `modprobe --show-depends`, with install commands and without.
    """
    found: list[str] = []
    pending = [plain(module) for module in modules]
    while pending:
        name = pending.pop(0)
        if name in found or name not in available:
            continue
        found.append(name)
        softdep = config.softdep_for(name)
        pending += [*DEPENDS.get(name, ()), *softdep.pre, *softdep.post]
    return tuple(sorted(found))
