"""A text that holds many things - words, a log, a listing, a configuration - as the parts that it is made of.

1. Every line belongs to one part, in order, with the number that it has in the text. What fits nothing is PROSE.
2. A line is told by its form, never by what stands in another text; a form that prose has too needs a neighbour of its
   own kind.
3. A command, a heading or a bare path above a part names the file that it shows.
4. Pure. The text is as untrusted as anything pasted, and looked at once.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from ..model.diagnosis import Kind
from ..model.value import dataclass
from .kinds import is_named
from .lines import TIMED, unmarked

MOST_LINES = 60_000
"""Lines of one text that are told apart; what stands further back is read as what the text is as a whole."""
_LOG_SHARE = 0.6
"""From this share on of lines with a time a text is a log, odd lines included."""

LOGS = frozenset({Kind.KERNEL_LOG, Kind.GUEST_LOG, Kind.TASK_LOG, Kind.JOURNAL})

_BDF = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_VM_KEY = (
    r"agent|args|balloon|bios|boot|bootdisk|cores|cpu|cpulimit|cpuunits|hookscript|hotplug|hugepages"
    r"|keyboard|kvm|machine"
    r"|memory|meta|name|numa|onboot|ostype|protection|scsihw|smbios1|sockets|startup|tablet|tags|template|vcpus|vga"
    r"|vmgenid|affinity|description|parent|lock|arch|audio0|rng0|localtime|nameserver|searchdomain|digest"
)
_STRONG = re.compile(
    r"^(?:hostpci\d{1,2}: ?(?:host=|mapping=|legacy-igd=|pcie=|x-vga=|\"|"
    + _BDF
    + r"|[0-9a-f]{2}:[01][0-9a-f]\b|[0-9a-f]{4}:[0-9a-f]{2}:)"
    r"|usb\d{1,2}: ?(?:host=|mapping=|spice)|(?:scsi|virtio|sata|ide)\d{1,2}: ?\S+[:,/]\S|efidisk0: ?\S+:"
    r"|tpmstate0: ?\S+:"
    r"|net\d{1,2}: ?(?:virtio|e1000e?|vmxnet3|rtl8139)[=,]|smbios1: ?uuid=|vmgenid: ?[0-9a-f-]{36}"
    r"|ostype: ?(?:l2\d|win\w+|w2k\w*|wxp|wvista|other|solaris)$"
    r"|bios: ?(?:ovmf|seabios)$|scsihw: ?\S+$|machine: ?(?:type=)?(?:pc-)?(?:q35|i440fx)\S*$)"
)
_WEAK = re.compile(rf"^(?:{_VM_KEY}|unused\d+|serial\d|parallel\d|ipconfig\d+|numa\d+): ?\S")
_LSPCI = re.compile(rf"^(?:{_BDF}) (?:\"?[A-Z][^:\[\]\"]{{2,60}}(?: \[[0-9a-f]{{4}}\])?\"?[: ]|[0-9a-f]{{4}}: )")
_LSPCI_DETAIL = re.compile(
    r"^\s+(?:Subsystem|Kernel driver in use|Kernel modules|Capabilities|Control|Status|Flags|Memory at"
    r"|Region \d|I/O ports"
    r"|Expansion ROM|Interrupt|Latency|NUMA node|IOMMU group|DeviceName|Physical Slot|Bus|LnkCap|LnkSta"
    r"|LnkCtl|DevCap|DevCtl"
    r"|Address|Kernel|Prefetchable|I/O behind|Memory behind|\[virtual\]|Secondary status|BridgeCtl"
    r"|Vendor Specific|UE|CE)"
)
_GROUP_HEAD = re.compile(r"^\W{0,8}IOMMU[ _]?group\W{0,3}\d{1,5}\b", re.I)
_GROUP_PATH = re.compile(rf"^\S*iommu_groups/\d{{1,5}}/devices/{_BDF}\s*$")
_INDENTED_ROW = re.compile(rf"^[\s\-*→|└├─`]+(?:\[[0-9a-f:]+\]\s*)?(?:\[RESET\]\s*)?(?P<row>{_BDF}\s.*)$")
_LSUSB = re.compile(r"^Bus \d{3} Device \d{3}: ID [0-9a-f]{4}:|^/?[ |:_]*(?:/: {2}Bus|\|__ Port) \d", re.I)
_GRUB = re.compile(r"^\s*#?\s?(?:export )?GRUB_[A-Z_0-9]+=")
_MODPROBE = re.compile(
    r"^#?\s?(?:options\s+[\w-]+\s+[\w.-]+=\S|blacklist\s+[\w-]+\s*(?:#.*)?$|softdep\s+[\w-]+\s+(?:pre"
    r"|post):|install\s+[\w-]+\s+/"
    r"|alias\s+\S+\s+[\w-]+$)"
)
_MODULE = re.compile(
    r"^(?:vfio|vfio_iommu_type1|vfio_pci|vfio_virqfd|vfio_mdev|kvmgt|mdev|i2c-dev|nct6775|coretemp|it87"
    r"|vendor[-_]reset)(?:\s+\S+=\S+)*$"
)
_MAP = re.compile(r"^\s+map \S*id=[0-9a-f]{4}:[0-9a-f]{4}")
_CMDLINE = re.compile(
    r"^(?:BOOT_IMAGE=\S|initrd=\\\S|root=(?:ZFS=|UUID=|/dev/|PARTUUID=|LABEL=)\S+(?: \S+)*$|Command line: \S)"
)
_TASK = re.compile(
    r"^(?:TASK (?:OK|ERROR|WARNINGS)|kvm: |qemu-system-x86_64: |QEMU: |start failed: |UPID:"
    r"|stopping swtpm|swtpm_setup: "
    r"|error writing '|can't (?:reset|bind|unbind) PCI|WARN: |Error: (?:start|timeout)|org\.freedesktop\.systemd1"
    r"|failed to reset PCI device '|Cannot bind \S+ to vfio|can't unbind/bind (?:PCI|pci)"
    r"|Verify all devices in group \d"
    r"|Please ensure all devices within the iommu_group|leftover PCI reservation|waited \d+ seconds for mediated"
    r"|mdev instance '|no (?:PCI device found|pci device info) for|(?:PCI|pci) device (?:'|mapping )"
    r"|device '\S+' assigned"
    r"|cannot prepare PCI pass-through|vm \d+ - unable to parse|q35 machine model is|legacy IGD assignment"
    r"|(?:info: )?IGD (?:legacy|device) |vfio(?:-pci)?: |vfio [0-9a-f]{4}:|VFIO_MAP_DMA failed|VM \d+ qmp command '"
    r"|vgpu type '|no nvidia sysfs api|Cannot (?:find vfio-pci module|open iommu_group)|hookscript error for \d"
    r"|could not (?:find a free device for|cleanup nvidia vgpu))"
)
_WINDOWS = re.compile(
    r"CM_PROB_\w+|This device (?:cannot|is not working)|Windows has stopped this device|\(Code \d{1,2}\)"
)
_FENCE = re.compile(r"^\s*(?:```|~~~)")
_PROMPT = re.compile(
    r"^\s*(?:\[?[\w.-]{1,32}@[\w.-]{1,64}[: ][^\s#$%>]{0,80}\]?\s?[#$%>]"
    r"|[#$%>])\s*(?:sudo\s+)?(?P<command>[a-z][\w./-]{1,40}(?:\s.*)?)$"
)
_SHOWS = re.compile(r"\b(?:cat|nano|vim?|less|more|tail|head|bat|micro)\s+(?:-\S+\s+)*(?P<path>/[\w./@+:-]+)")
_HEADING = re.compile(r"^[\s*#_`'\"(>=-]*(?P<path>/(?:etc|proc|sys|boot)/[\w./@+:-]*[\w])[\s*`'\"):=-]*$")
_COMMANDS: tuple[tuple[re.Pattern[str], Kind, str], ...] = (
    (re.compile(r"\bqm (?:config|showcmd|pending) (\d{3,9})"), Kind.GUEST_CONFIG, "/etc/pve/qemu-server/{}.conf"),
    (re.compile(r"\buname\b"), Kind.PROSE, "uname -r"),
    (re.compile(r"\bpveversion\b"), Kind.PROSE, "pveversion -v"),
    (re.compile(r"\bproxmox-boot-tool (?:status|kernel)"), Kind.PROSE, "proxmox-boot-tool status"),
)
_FILES: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (re.compile(r"/etc/default/grub"), Kind.GRUB),
    (re.compile(r"/etc/modprobe\.d/"), Kind.MODPROBE),
    (re.compile(r"/etc/modules"), Kind.MODULES),
    (re.compile(r"/(?:etc/kernel|proc)/cmdline$"), Kind.CMDLINE),
    (re.compile(r"/etc/pve/mapping/"), Kind.MAPPING),
    (re.compile(r"/qemu-server/\d{3,9}\.conf$"), Kind.GUEST_CONFIG),
)
_INDENTED = frozenset({Kind.LSPCI, Kind.IOMMU_LISTING, Kind.LSUSB, Kind.MAPPING})
"""Indented lines below a row of these belong to it."""


@dataclass(frozen=True, slots=True)
class Part:
    """Some lines of a text. `first`: number of the first, from 1. `path`: what file or command they show, if said."""

    kind: Kind
    first: int
    lines: tuple[str, ...]
    path: str = ""
    last: int = 0

    @property
    def text(self) -> str:
        return "\n".join(self.lines)


def split(name: str, kind: Kind, lines: Sequence[str], numbers: Sequence[int] = ()) -> tuple[Part, ...]:
    """The parts of a text of this name and kind; one alone when it is of one piece. `numbers`: of the lines, where they
    are not simply counted."""
    counted = numbers or range(1, len(lines) + 1)
    whole = (Part(kind, 1, tuple(lines), last=counted[-1] if lines else 0),)
    if is_named(name) or kind in (Kind.STATEMENTS, Kind.BINARY) or not lines or _is_log(kind, lines):
        return whole
    parts = tuple(_parts(lines[:MOST_LINES], counted))
    kinds = {part.kind for part in parts if any(line.strip() for line in part.lines)}
    if kinds <= {Kind.PROSE}:
        return (replace(whole[0], kind=Kind.PROSE if kind in _FORMED else kind, path=parts[0].path),)
    if len(kinds) == 1:
        return (replace(whole[0], kind=kinds.pop(), path=next((part.path for part in parts if part.path), "")),)
    rest = tuple(lines[MOST_LINES:])
    return (*parts, Part(kind, counted[MOST_LINES], rest, last=counted[-1])) if rest else parts


_FORMED = frozenset({Kind.MODPROBE, Kind.GUEST_CONFIG, Kind.CMDLINE})
"""Kinds that a text cannot be of without a single line that has their form."""


def _is_log(kind: Kind, lines: Sequence[str]) -> bool:
    said = [line for line in lines[:2000] if line.strip()]
    return kind in LOGS and sum(1 for line in said if TIMED.match(line)) >= len(said) * _LOG_SHARE


# -- lines ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class _Told:
    """What one line is by itself. `weak`: only beside a neighbour of this kind. `path`: what the lines below show."""

    kind: Kind
    weak: bool = False
    path: str = ""


_PROSE = _Told(Kind.PROSE)


def _told(line: str) -> _Told:
    """The kind of one line."""
    if TIMED.match(line):
        return _Told(Kind.KERNEL_LOG)
    plain = unmarked(line)
    if not plain or len(plain) > 20_000:
        return _PROSE
    for pattern, kind in _FORMS:
        if pattern.match(plain):
            return _Told(kind)
    indented = _INDENTED_ROW.match(line)
    if _MAP.match(line):
        return _Told(Kind.MAPPING)
    if _GROUP_HEAD.match(plain) or _GROUP_PATH.match(plain) or (indented and _LSPCI.match(indented["row"])):
        return _Told(Kind.IOMMU_LISTING)
    if _WINDOWS.search(plain):
        return _Told(Kind.WINDOWS, weak=True)
    if _WEAK.match(plain):
        return _Told(Kind.GUEST_CONFIG, weak=True)
    if _MODULE.match(plain):
        return _Told(Kind.MODULES, weak=True)
    return _shown(plain)


_FORMS: tuple[tuple[re.Pattern[str], Kind], ...] = (
    (_STRONG, Kind.GUEST_CONFIG),
    (_LSPCI, Kind.LSPCI),
    (_LSUSB, Kind.LSUSB),
    (_GRUB, Kind.GRUB),
    (_MODPROBE, Kind.MODPROBE),
    (_CMDLINE, Kind.CMDLINE),
    (_TASK, Kind.TASK_LOG),
)


def _shown(plain: str) -> _Told:
    """A line that says what stands below it."""
    if match := _HEADING.match(plain):
        return _Told(Kind.PROSE, path=match["path"])
    prompt = _PROMPT.match(plain)
    command = prompt["command"] if prompt else plain if plain.startswith(("cat /", "qm config ", "pveversion")) else ""
    if not command:
        return _PROSE
    if match := _SHOWS.search(command):
        return _Told(Kind.PROSE, path=match["path"])
    for pattern, _, path in _COMMANDS:
        if match := pattern.search(command):
            return _Told(Kind.PROSE, path=path.format(*match.groups()))
    return _Told(Kind.PROSE, path=" ") if prompt else _PROSE


# -- parts ---------------------------------------------------------------------------------------


def _parts(lines: Sequence[str], numbers: Sequence[int]) -> Iterator[Part]:
    """Runs of lines of one kind, with what belongs to them."""
    kinds, paths = _kinds(lines)
    start, path = 0, ""
    for index in range(1, len(lines) + 1):
        if index < len(lines) and kinds[index] is kinds[index - 1] and not (paths[index] or paths[index - 1]):
            continue
        yield Part(kinds[start], numbers[start], tuple(lines[start:index]), path, numbers[index - 1])
        if paths[index - 1]:
            path = paths[index - 1].strip()
        elif any(line.strip() and not _FENCE.match(line) for line in lines[start:index]):
            path = ""
        start = index


def _kinds(lines: Sequence[str]) -> tuple[list[Kind], list[str]]:
    """Each line's kind, and the path that a line says to be shown below it."""
    told = [_told(line) for line in lines]
    kinds = [one.kind for one in told]
    _settle_weak(told, kinds)
    _below_headings(lines, told, kinds)
    _attach(lines, told, kinds)
    return kinds, [one.path if kinds[index] is Kind.PROSE else "" for index, one in enumerate(told)]


def _settle_weak(told: Sequence[_Told], kinds: list[Kind]) -> None:
    """A line with a form that prose has as well counts beside one of its kind."""
    weak = {index for index, one in enumerate(told) if one.weak}
    strong = {index for index, one in enumerate(told) if not one.weak and one.kind is not Kind.PROSE}
    for order in (sorted(weak), sorted(weak, reverse=True)):
        step = 1 if order == sorted(weak) else -1
        for index in order:
            beside = index - step
            if beside in strong and kinds[beside] is told[index].kind:
                strong.add(index)
    for index in weak - strong:
        twin = told[index].kind is Kind.MODULES and any(
            0 <= beside < len(told) and told[beside].kind is Kind.MODULES for beside in (index - 1, index + 1)
        )
        if not twin and told[index].kind is not Kind.WINDOWS:
            kinds[index] = Kind.PROSE


def _below_headings(lines: Sequence[str], told: Sequence[_Told], kinds: list[Kind]) -> None:
    """Lines below a named file are of that file until a blank line, a prompt or the end of the fence."""
    for index, one in enumerate(told):
        kind = next((kind for pattern, kind in _FILES if one.path and pattern.search(one.path)), None)
        if kind is None or kinds[index] is not Kind.PROSE:
            continue
        below = index + 1
        while below < len(lines) and (not lines[below].strip() or _FENCE.match(lines[below])) and below < index + 3:
            below += 1
        while below < len(lines) and lines[below].strip() and not told[below].path and not _FENCE.match(lines[below]):
            if (
                kinds[below] is Kind.PROSE
                and kind in (Kind.GRUB, Kind.MODPROBE, Kind.MODULES, Kind.MAPPING)
                and len(lines[below].split()) > 7
                and not lines[below].lstrip().startswith("#")
            ):
                break
            if kinds[below] in (Kind.PROSE, Kind.CMDLINE) or told[below].weak:
                kinds[below] = kind
            below += 1


def _attach(lines: Sequence[str], told: Sequence[_Told], kinds: list[Kind]) -> None:
    """What belongs to the row above it: indented details; and blank lines between two pieces of one kind."""
    above = Kind.PROSE
    for index, line in enumerate(lines):
        if not line.strip():
            following = next(
                (kinds[after] for after in range(index + 1, min(index + 3, len(lines))) if lines[after].strip()), None
            )
            kinds[index] = above if following is above else Kind.PROSE
            above = above if following is above else Kind.PROSE
            continue
        if _belongs(line, told[index], kinds[index], above):
            kinds[index] = above
        elif kinds[index] is Kind.MAPPING and above is Kind.PROSE and index and len(lines[index - 1].split()) == 1:
            kinds[index - 1] = Kind.MAPPING
        above = kinds[index]


def _belongs(line: str, told: _Told, kind: Kind, above: Kind) -> bool:
    """Whether a line is a part of the row above it."""
    if kind is Kind.LSPCI:
        return above is Kind.IOMMU_LISTING
    if kind is not Kind.PROSE or told.path:
        return False
    if above is Kind.LSPCI and _LSPCI_DETAIL.match(f" {line}"):
        return True
    return above in _INDENTED and line[:1] in " \t"


_SPOKEN = frozenset({Kind.PROSE, Kind.WINDOWS})
"""Windows' own words are repeated in a person's sentences."""


def words_of(parts: Iterable[Part]) -> str:
    """What the writer said, without what was pasted."""
    said = (line for part in parts if part.kind in _SPOKEN for line in part.lines if not _PROMPT.match(line))
    return "\n".join(said)
