"""What a text is: by its name, then by its first lines. Only the meaning of what is found depends on it.

1. A guess is never an error: whatever is taken for PROSE is searched for the catalogue's lines all the same.
2. Pure; the caller hands over the name and the first bytes.
"""

from __future__ import annotations

import codecs
import json
import re

from ..model.diagnosis import Kind
from .layout import HEAD, wide
from .lines import TIMED, decode, unmarked

_NAMES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"lspci", re.I), Kind.LSPCI),
    (re.compile(r"lsusb", re.I), Kind.LSUSB),
    (re.compile(r"iommu[._-]?groups?|lsiommu", re.I), Kind.IOMMU_LISTING),
    (re.compile(r"(^|/|__)(grub)(\.(txt|cfg))?$|default__grub", re.I), Kind.GRUB),
    (re.compile(r"modprobe\.d|(^|/|__)(vfio|blacklist|kvm|pve-blacklist)[\w-]*\.conf$", re.I), Kind.MODPROBE),
    (re.compile(r"cmdline|kernel_args", re.I), Kind.CMDLINE),
    (re.compile(r"(^|/|__)modules(\.txt)?$", re.I), Kind.MODULES),
    (re.compile(r"(qemu-server|/)(\d{3,9})[\w.]*\.conf$|(^|__)\d{3,9}[\w.]*\.conf$"), Kind.GUEST_CONFIG),
    (re.compile(r"(^|/|__|\W)(pci|usb)\.cfg$"), Kind.MAPPING),
)

_LOOKS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"^[0-9a-f:]{2,13}[0-9a-f]{2}:[01][0-9a-f]\.[0-7] .+(\[[0-9a-f]{4}\]|:) ", re.M), Kind.LSPCI),
    (re.compile(r"^Bus \d{3} Device \d{3}: ID [0-9a-f]{4}:", re.M), Kind.LSUSB),
    (re.compile(r"^\W*IOMMU Group \d+", re.M | re.I), Kind.IOMMU_LISTING),
    (re.compile(r"^\s+map (?:[\w-]+=[^,\n]*,)+[\w-]+=", re.M), Kind.MAPPING),
    (re.compile(r"^GRUB_CMDLINE_LINUX", re.M), Kind.GRUB),
    (re.compile(r"^(options|softdep|blacklist|install) \w", re.M), Kind.MODPROBE),
    (re.compile(r"^(hostpci|scsi|virtio|net|ide|sata)\d+: ", re.M), Kind.GUEST_CONFIG),
    (re.compile(r"\A\s*(BOOT_IMAGE=|initrd=\\)"), Kind.CMDLINE),
    (re.compile(r"TASK (OK|ERROR)|start failed: |UPID:"), Kind.TASK_LOG),
    (re.compile(r"CM_PROB_|This device (cannot|is not working)|Windows has stopped this device"), Kind.WINDOWS),
    (re.compile(r"Hypervisor detected: KVM|DMI: QEMU"), Kind.GUEST_LOG),
    (re.compile(r"Linux version \d|Command line: |^\[\s*\d+\.\d{6}\] ", re.M), Kind.KERNEL_LOG),
    (re.compile(r"^[A-Z][a-z]{2} [ \d]\d \d\d:\d\d:\d\d \S+ \S+(\[\d+\])?: ", re.M), Kind.JOURNAL),
)

_LOGS = frozenset({Kind.TASK_LOG, Kind.KERNEL_LOG, Kind.GUEST_LOG, Kind.JOURNAL})
"""These show themselves whatever the file is called."""


def kind_of(name: str, head: bytes) -> Kind:
    """What a material of this name and these first bytes is."""
    encoding = wide(head)
    if encoding is None and _is_binary(head):
        return Kind.BINARY
    text = head.decode(encoding, "replace") if encoding else decode(head[:HEAD].replace(b"\0", b""))
    if _is_statements(text):
        return Kind.STATEMENTS
    named = next((kind for pattern, kind in _NAMES if pattern.search(name)), None)
    seen = next((kind for pattern, kind in _LOOKS if pattern.search(text)), None)
    if named is None and seen in _TIMED_LOGS and _is_told(text):
        return Kind.PROSE
    if seen is Kind.GUEST_LOG and side_of(text) == "host":
        seen = Kind.KERNEL_LOG
    if named is None or seen in _LOGS:
        return seen or Kind.PROSE
    return named


_TIMED_LOGS = frozenset({Kind.KERNEL_LOG, Kind.GUEST_LOG, Kind.JOURNAL})
_SENTENCE = re.compile(r"^\W{0,3}[A-Za-z][A-Za-z',-]*(?: [A-Za-z0-9',/()\"-]+[,;]?){5,60}[.?!:)]{0,3}$", re.M)


def _is_told(text: str) -> bool:
    """Whether somebody writes, and shows some lines of a log in between."""
    lines = [line for line in text.splitlines()[:2000] if line.strip()]
    spoken = sum(1 for line in lines if _SENTENCE.match(unmarked(line)))
    return (
        spoken >= 2
        and spoken * 10 >= len(lines)
        and sum(1 for line in lines if TIMED.match(line)) * 10 < len(lines) * 6
    )


def is_named(name: str) -> bool:
    """Whether a material's name says what it is."""
    return any(pattern.search(name) for pattern, _ in _NAMES)


def _is_statements(text: str) -> bool:
    if not text.lstrip().startswith("{"):
        return False
    try:
        return isinstance(json.loads(text), dict)
    except ValueError:
        return False


_ODD = re.compile(rb"[\x01-\x08\x0e-\x1a\x1c-\x1f\x7f]")
_HIGH = re.compile(rb"[\x80-\xff]")
_MAGIC = (b"\x7fELF", b"\x55\xaa", b"LPKSHHRH", b"\x89PNG", b"\xff\xd8\xff", b"PK\x03\x04", b"\x1f\x8b", b"\xfd7zXZ",
          b"BZh",
          b"\x28\xb5\x2f\xfd", b"%PDF", b"QFI\xfb")  # fmt: skip
"""Beginnings of files that are no text. Source: file(1)'s magic, and systemd's docs/JOURNAL_FILE_FORMAT."""


def _is_binary(head: bytes) -> bool:
    """Zeros alone do not make a text binary: a crash leaves them in a log."""
    if head.startswith(_MAGIC):
        return True
    said = head.replace(b"\0", b"")
    if not said:
        return bool(head)
    if len(_ODD.findall(said)) * 100 > len(said) * 3:
        return True
    try:
        codecs.getincrementaldecoder("utf-8")().decode(said)
    except UnicodeDecodeError:
        return len(_HIGH.findall(said)) * 10 > len(said) * 3
    return False


def no_text(head: bytes) -> str:
    """What a material that is no text seems to be, and how to make it one."""
    if head.startswith(b"LPKSHHRH"):
        return "a file of the journal; journalctl --file FILE -k writes it as text"
    if head.startswith(b"\x55\xaa"):
        return "an option ROM; pve-passthrough rom check FILE reads it"
    if head.startswith(b"\x28\xb5\x2f\xfd"):
        return "packed with zstd; unzstd unpacks it"
    if not head.strip(b"\0"):
        return "nothing but zeros"
    return "no text"


# -- whose log ---------------------------------------------------------------------------------------

_OURS = re.compile(r"Linux version \S+-pve\b|running kernel: ?\S+-pve\b")
_VIRTUAL = re.compile(
    r"Hypervisor detected: (?:KVM|Microsoft|VMware|Xen)|DMI: (?:QEMU|Red Hat KVM|oVirt|Bochs|VMware|Xen"
    r"|Microsoft Corporation Virtual)"
)
_REAL = re.compile(r"DMI: \S")


def side_of(text: str, known: str = "") -> str:
    """Whose log a line belongs to: `host`, `guest`, or what was `known` before. Proxmox VE's own kernel says host, also
    in a virtual machine; a hypervisor below says guest; a maker of mainboards says host.

    Source: kernel arch/x86/kernel/cpu/hypervisor.c (Hypervisor detected), drivers/firmware/dmi_scan.c (DMI:).
    """
    if known == "host":
        return known
    if _OURS.search(text):
        return "host"
    if _VIRTUAL.search(text):
        return "guest"
    return "host" if not known and _REAL.search(text) else known
