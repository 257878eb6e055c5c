"""Guests as Proxmox VE writes them down: the configuration file's text and what it claims.

1. Values and text only; reading files is the probe's work.
2. Values are kept verbatim: Proxmox stores `pcie=on` and key order as given, so compare parsed, never as text
   (recorded exchanges with PVE 8.4 and 9.2: values of hostpci, cpu, machine, vga and usb are stored as given).
3. `None` where the file could not be read; a guest whose file we cannot read is unknown, not empty.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping
from dataclasses import field

from .pci import Address
from .value import dataclass

ROM_DIR = "/usr/share/kvm"
"""Where `romfile=NAME` is looked for. Source: qemu-server, QemuServer/PCI.pm, print_hostpci_devices."""

_LINE = re.compile(r"([a-z][a-z_]*[0-9]*):\s*(.*?)\s*")
_SECTION = re.compile(r"\[(.*)\]\s*")
_TRUE = frozenset({"1", "on", "yes", "true"})


@dataclass(frozen=True, slots=True)
class HostPci:
    """One hostpciN entry, expanded. `addresses` lists every function that the entry takes."""

    key: str
    options: Mapping[str, str]
    addresses: tuple[Address, ...]
    mapping: str = ""

    def on(self, option: str) -> bool:
        return self.options.get(option, "0").lower() in _TRUE

    @property
    def mdev(self) -> str:
        """The type of which the entry takes a share; empty: it takes the functions themselves."""
        return self.options.get("mdev", "")

    @property
    def binds(self) -> tuple[Address, ...]:
        """Functions that Proxmox VE binds to vfio-pci for this entry, with their groups: none for a share.
        Source: qemu-server PCI.pm, prepare_pci_device; recorded starts on 8.4 and 9.2."""
        return () if self.mdev else self.addresses


@dataclass(frozen=True, slots=True)
class Vm:
    """One guest.

    config   active section of the configuration, last value of a repeated key wins as in Proxmox
    pending  what becomes active at the next start of a running guest
    digest   SHA-1 of the file's text, what Proxmox calls `digest`
    running  None when nobody could say
    """

    vmid: int
    node: str
    config: Mapping[str, str]
    pending: Mapping[str, str] = field(default_factory=dict)
    deleting: tuple[str, ...] = ()
    digest: str = ""
    running: bool | None = None
    ha_managed: bool | None = None
    hostpci: tuple[HostPci, ...] = ()
    snapshots: Mapping[str, Mapping[str, str]] = field(default_factory=dict)
    """What the configuration was when each snapshot was taken: a rollback brings it back."""

    @property
    def name(self) -> str:
        return self.config.get("name", f"VM {self.vmid}")

    @property
    def lock(self) -> str:
        return self.config.get("lock", "")

    @property
    def secure_boot(self) -> bool:
        """Whether its firmware starts with Microsoft's keys. Source: qemu-server Drive.pm, pre-enrolled-keys."""
        disk = parse_options(self.value("efidisk0") or "", "file")
        return self.value("bios") == "ovmf" and disk.get("pre-enrolled-keys", "0").lower() in _TRUE

    def value(self, key: str) -> str | None:
        """The value that the next start will see: pending over active, None when unset."""
        if key in self.pending:
            return self.pending[key]
        return None if key in self.deleting else self.config.get(key)

    def flag(self, key: str, default: bool = False) -> bool:
        value = self.value(key)
        return default if value is None else value.split(",")[0].lower() in _TRUE


def digest_of(text: str) -> str:
    """Proxmox' `digest`: SHA-1 of the configuration file's text (seen in every recorded exchange)."""
    import hashlib  # OpenSSL is the largest single cost of a glance, and most hosts have few guests

    return hashlib.sha1(text.encode("utf-8", "surrogateescape"), usedforsecurity=False).hexdigest()


def parse_config(text: str) -> tuple[dict[str, str], dict[str, str], tuple[str, ...]]:
    """Split a qemu-server configuration into (active, pending, keys that pending deletes).

    Snapshot and cloud-init sections are passed over; lines that Proxmox could not parse are too.
    """
    active: dict[str, str] = {}
    pending: dict[str, str] = {}
    deleting: tuple[str, ...] = ()
    section: dict[str, str] | None = active
    for line in text.splitlines():
        if header := _SECTION.fullmatch(line):
            section = pending if header.group(1) == "PENDING" else None
            continue
        match = _LINE.fullmatch(line)
        if match is None or section is None:
            continue
        key, value = match.groups()
        if section is pending and key == "delete":
            deleting += tuple(part.lstrip("!") for part in re.split(r"[\s,;]+", value) if part)
        else:
            section[key] = value
    return active, pending, deleting


def parse_snapshots(text: str) -> dict[str, dict[str, str]]:
    """The configuration at each snapshot; pending changes and special sections (`[special:…]`) are none.

    Source: qemu-server QemuServer.pm, parse_vm_config; recorded: `qm snapshot 703 s1` on 9.2.
    """
    found: dict[str, dict[str, str]] = {}
    section: dict[str, str] | None = None
    for line in text.splitlines() if "\n[" in text else ():
        if header := _SECTION.fullmatch(line):
            name = header.group(1)
            section = None if name.upper() == "PENDING" or name.startswith("special:") else found.setdefault(name, {})
        elif section is not None and (match := _LINE.fullmatch(line)):
            section[match.group(1)] = match.group(2)
    return found


def parse_options(value: str, default_key: str) -> dict[str, str]:
    """Read a property string: `host,hidden=1` with default key `cputype` gives {cputype: host, hidden: 1}."""
    options: dict[str, str] = {}
    for part in value.split(","):
        if part:
            key, equals, text = part.partition("=")
            options.update({key: text} if equals else {default_key: key})
    return options


def same_options(left: str | None, right: str | None) -> bool:
    """Whether two property strings mean the same: key order, empty parts and spellings of true do not count."""
    if left is None or right is None:
        return left == right
    return _canonical(left) == _canonical(right)


def _canonical(value: str) -> dict[str, str]:
    truth = dict.fromkeys(_TRUE, "1") | dict.fromkeys(("off", "no", "false"), "0")
    return {key: truth.get(text.lower(), text) for key, text in parse_options(value, "").items()}


def gives_usb(config: Mapping[str, str]) -> bool:
    """Whether a guest takes a USB device from its host; a SPICE client's devices are none of the host's."""
    values = (value for key, value in config.items() if key.startswith("usb") and key[3:].isdecimal())
    return any(parse_options(value, "host").get("host", "").lower() != "spice" for value in values)


def expand_host(host: str, known: Iterable[Address]) -> tuple[Address, ...]:
    """Functions that a hostpci `host=` takes, in order. `01:00` is a prefix match over all functions.

    `;` joins several functions. Source: qemu-server PCI.pm, parse_hostpci. Unknown addresses with a function are kept:
    the configuration claims them although the machine lacks them.
    """
    present = sorted(known)
    found: list[Address] = []
    for part in host.split(";"):
        full = part if part.count(":") == 2 else f"0000:{part}"
        if "." in full:
            try:
                found.append(Address.parse(full))
            except ValueError:
                continue
        else:
            found += [address for address in present if address.slot == full.lower()]
    return tuple(found)
