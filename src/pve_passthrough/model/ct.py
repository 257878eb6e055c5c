"""Containers as Proxmox VE writes them down, and the device nodes that they can be given.

1. Values and text only; reading files is the probe's work.
2. Sections and lines are told apart as Proxmox does (pve-container, PVE/LXC/Config.pm, parse_pct_config): `lxc.*` lines
   are kept in order, since later ones add to or undo earlier ones; snapshot sections are passed over.
3. Nothing in a container's file is trusted: numbers are bounded, a line that is not understood is no device.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import field

from .pci import Address
from .value import dataclass
from .vm import parse_options

MOST_DEVICES = 256
"""dev0 to dev255. Source: pve-container, PVE/LXC/Config.pm, $MAX_DEVICES."""

_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):\s*(.+?)\s*")
_RAW = re.compile(r"(lxc\.[a-z0-9_\-.]+)(?::|\s*=)\s*(.*?)\s*")
_PENDING = re.compile(r"\[pve:pending\]\s*", re.IGNORECASE)
_SECTION = re.compile(r"\[([a-z][a-z0-9_\-]+)\]\s*", re.IGNORECASE)
_KEY = re.compile(r"dev(0|[1-9][0-9]{0,2})")
_TRUE = frozenset({"1", "on", "yes", "true"})
_ALLOW = re.compile(r"([abc])(?:\s+(\d{1,7}|\*):(\d{1,7}|\*))?(?:\s+([rwm]+))?")
_MODE = re.compile(r"0[0-7]{3}")


@dataclass(frozen=True, slots=True)
class CtDevice:
    """One devN entry. `mode` as written (`0660`); a number is None where it is not set or is none."""

    key: str
    path: str
    gid: int | None = None
    uid: int | None = None
    mode: str = ""
    deny_write: bool = False


@dataclass(frozen=True, slots=True)
class RawAllow:
    """`lxc.cgroup2.devices.allow: c 226:128 rwm`: type, major and minor (None: all of them)."""

    line: str
    type: str
    major: int | None
    minor: int | None


@dataclass(frozen=True, slots=True)
class RawMount:
    """`lxc.mount.entry: /dev/dri dev/dri none bind,…`: what of the host is bound, and whether a start needs it."""

    line: str
    source: str
    target: str
    optional: bool


@dataclass(frozen=True, slots=True)
class Ct:
    """One container. `raw`: its lxc.* lines in order. `running`: None when nobody could say."""

    number: int
    node: str
    config: Mapping[str, str]
    raw: tuple[tuple[str, str], ...] = ()
    pending: Mapping[str, str] = field(default_factory=dict)
    deleting: tuple[str, ...] = ()
    running: bool | None = None

    @property
    def name(self) -> str:
        return self.config.get("hostname", f"CT{self.number}")

    @property
    def lock(self) -> str:
        return self.config.get("lock", "")

    @property
    def unprivileged(self) -> bool:
        return self.config.get("unprivileged", "0").lower() in _TRUE

    @property
    def template(self) -> bool:
        return self.config.get("template", "0").lower() in _TRUE

    @property
    def devices(self) -> tuple[CtDevice, ...]:
        """Its devN entries as the next start will see them, by number."""
        found = [
            device for key in {*self.config, *self.pending} if (value := self.value(key)) is not None
            if (device := parse_device(key, value)) is not None
        ]  # fmt: skip
        return tuple(sorted(found, key=lambda one: int(one.key[3:])))

    @property
    def allows(self) -> tuple[RawAllow, ...]:
        lines = [(key, value) for key, value in self.raw if re.fullmatch(r"lxc\.cgroup2?\.devices\.allow", key)]
        return tuple(one for key, value in lines if (one := _allow(key, value)) is not None)

    @property
    def mounts(self) -> tuple[RawMount, ...]:
        """Raw bind mounts of something below /dev."""
        found = [_mount(value) for key, value in self.raw if key == "lxc.mount.entry"]
        return tuple(one for one in found if one is not None)

    @property
    def idmaps(self) -> tuple[str, ...]:
        return tuple(f"{key}: {value}" for key, value in self.raw if key in ("lxc.idmap", "lxc.id_map"))

    def value(self, key: str) -> str | None:
        """What the next start will see: pending over active, None when unset."""
        if key in self.pending:
            return self.pending[key]
        return None if key in self.deleting else self.config.get(key)


@dataclass(frozen=True, slots=True)
class DevNode:
    """One device node of the host.

    address  the PCI function behind it, None: there is none or nobody could say
    port     the USB device behind it (`1-4.2`), empty: none
    mode     permission bits, None with uid and gid when only sysfs told of it
    group    the name of its group on the host; the number may mean another group inside a container
    """

    path: str
    type: str
    major: int
    minor: int
    mode: int | None = None
    uid: int | None = None
    gid: int | None = None
    owner: str = ""
    group: str = ""
    address: Address | None = None
    port: str = ""
    links: tuple[str, ...] = ()
    """Names that follow the device and not the order in which drivers loaded: /dev/dri/by-path, /dev/serial/by-id."""

    @property
    def number(self) -> str:
        return f"{self.major}:{self.minor}"


@dataclass(frozen=True, slots=True)
class GivenNode:
    """What a kept run of ours has given: the node and the PCI function that was behind it then."""

    number: int
    path: str
    address: Address


def parse_ct(text: str) -> tuple[dict[str, str], tuple[tuple[str, str], ...], dict[str, str], tuple[str, ...]]:
    """Split a container's file into (active, lxc lines, pending, keys that pending deletes)."""
    active: dict[str, str] = {}
    pending: dict[str, str] = {}
    raw: list[tuple[str, str]] = []
    deleting: tuple[str, ...] = ()
    section: dict[str, str] | None = active
    for line in text.splitlines():
        if _PENDING.fullmatch(line):
            section = pending
        elif _SECTION.fullmatch(line):
            section = None
        elif section is None:
            continue
        elif match := _RAW.fullmatch(line):
            raw += [(match.group(1), match.group(2))] if section is active else []
        elif match := _LINE.fullmatch(line):
            key, value = match.groups()
            if section is pending and key == "delete":
                deleting += tuple(part.lstrip("!") for part in re.split(r"[\s,;]+", value) if part)
            else:
                section[key] = value
    return active, tuple(raw), pending, deleting


def parse_device(key: str, value: str) -> CtDevice | None:
    """A devN entry; None for another key or an entry without a path."""
    match = _KEY.fullmatch(key)
    if match is None or int(match.group(1)) >= MOST_DEVICES:
        return None
    options = parse_options(value, "path")
    path = options.get("path", "")
    if not is_dev_path(path):
        return None
    mode = options.get("mode", "")
    return CtDevice(
        key, path, _number(options.get("gid")), _number(options.get("uid")), mode if _MODE.fullmatch(mode) else "",
        options.get("deny-write", "0").lower() in _TRUE,
    )  # fmt: skip


def render_device(path: str, gid: int | None, uid: int | None, mode: str, deny_write: bool) -> str:
    """The entry's text. Keys and forms: pve-container, PVE/LXC/Config.pm, $dev_desc."""
    parts = [path]
    parts += [] if gid is None else [f"gid={gid}"]
    parts += [f"mode={mode}"] if mode else []
    parts += [] if uid is None else [f"uid={uid}"]
    return ",".join((*parts, *(("deny-write=1",) if deny_write else ())))


def same_device(left: str | None, right: str | None) -> bool:
    """Whether two devN entries mean the same: order, `path=` and spellings of true do not count."""
    if left is None or right is None:
        return left == right
    return left == right or _canonical(left) == _canonical(right)


def is_dev_path(path: str) -> bool:
    """What Proxmox takes as a path: below /dev, without . and .. (pve-container, verify_lxc_dev_string); a comma would
    end it, and control characters have no place in a line of a file."""
    plain = path.startswith("/dev/") and path.isprintable() and not set(path) & {",", " "}
    return plain and re.search(r"/\.\.?(?:/|$)", path) is None


def _canonical(value: str) -> dict[str, str]:
    options = parse_options(value, "path")
    if options.get("deny-write", "0").lower() not in _TRUE:
        options.pop("deny-write", None)
    else:
        options["deny-write"] = "1"
    return options


def _number(text: str | None) -> int | None:
    return int(text) if text and re.fullmatch(r"[0-9]{1,9}", text) else None


def _allow(key: str, value: str) -> RawAllow | None:
    """`a` alone allows every device (kernel, Documentation/admin-guide/cgroup-v1/devices.rst)."""
    match = _ALLOW.fullmatch(value)
    if match is None:
        return None
    kind, major, minor, _ = match.groups()
    return RawAllow(f"{key}: {value}", kind, _number(major), _number(minor))


def _mount(value: str) -> RawMount | None:
    words = value.split()
    if len(words) < 2 or not words[0].startswith("/dev/"):
        return None
    options = words[3].split(",") if len(words) > 3 else []
    return RawMount(f"lxc.mount.entry: {value}", words[0], words[1], "optional" in options)
