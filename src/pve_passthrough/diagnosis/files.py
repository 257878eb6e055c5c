"""What people write down about a machine, as the files and listings that it stands for.

1. Statements (keys and values) become the text of the files that they quote, so that one reader reads both.
2. A key is understood by the words in it, in any spelling; what no key says is left out, never guessed.
3. Pure. Names and values are as untrusted as anything pasted.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..model.diagnosis import Kind
from ..model.value import dataclass
from .lines import clean
from .parts import Part

MOST = 400
"""Values of one set of statements that are looked at."""
DEPTH = 5
LONGEST = 1 << 16


@dataclass(frozen=True, slots=True)
class Paper:
    """One part of what was pasted: the material's name, what it is, its text, the path or the command that it shows if
    that is said, and the number of its first line."""

    name: str
    kind: Kind
    text: str
    path: str = ""
    first: int = 1


_ADDRESS = re.compile(r"(?<![0-9a-f:.])((?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7])(?![0-9a-f])", re.I)
_IDS = re.compile(r"(?<![0-9a-f:.])([0-9a-f]{4}):([0-9a-f]{4})(?![0-9a-f:.])", re.I)
BOOT = 1 << 23
"""Bytes of a log that are sifted: a kernel says what the machine is when it starts."""
SIFTED = 1 << 20
"""Bytes of its lines that are kept."""
TELLING = (
    b"Linux version ", b"Command line: ", b"iommu group ", b"] type ", b"PCI bridge to [bus", b"boot VGA device",
    b"ACPI: DMAR", b"ACPI: IVRS", b"efi: EFI v", b"smpboot: CPU0", b"Run /init as init", b"Freeing unused kernel image",
    b"DMAR: IOMMU enabled",
)  # fmt: skip
"""Words of the kernel's lines that say what the machine is."""

_PLACES = ("bdf", "address", "slot", "pci", "pci_address", "device_address")
_GUEST_KEY = re.compile(
    r"(hostpci|usb|scsi|virtio|net|ide|sata|numa)\d{1,2}|args|balloon|bios|cores|cpu|efidisk0|hugepages|machine|memory"
    r"|numa|onboot|ostype|sockets|vga|vmgenid|hookscript"
)
"""Source: Proxmox VE administration guide, qm.conf(5), options."""
_PLAIN_RELEASE = re.compile(r"\d{1,2}\.\d{1,3}(\.\d{1,4})?([-.][\w.+~-]{1,60})?")


def settings(papers: Iterable[Paper]) -> bool:
    """Whether papers hold something that a person wrote and that may be wrong, whoever complains."""
    return any(paper.kind in (Kind.GUEST_CONFIG, Kind.MAPPING, Kind.GRUB, Kind.CMDLINE) for paper in papers)


class Sifted:
    """What a material of one kind says about the machine, kept while its bytes pass by."""

    def __init__(self, kind: Kind) -> None:
        self._log = kind in (Kind.KERNEL_LOG, Kind.JOURNAL)
        self._kind = kind
        self._seen = 0
        self._lines = bytearray()

    def passing(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The same bytes. A line that is cut by the end of a chunk may be lost."""
        for chunk in chunks:
            if self._log and self._seen < BOOT and len(self._lines) < SIFTED:
                self._seen += len(chunk)
                self._lines += _telling(chunk)[:SIFTED]
            yield chunk

    def papers(self, name: str, parts: Sequence[Part]) -> Iterator[Paper]:
        """The parts, and of a log the lines that were kept."""
        if self._log:
            lines = (clean(line).text for line in bytes(self._lines).split(b"\n"))
            yield Paper(name, self._kind, "\n".join(lines))
        for part in parts[:MOST]:
            if part.kind in (Kind.KERNEL_LOG, Kind.JOURNAL) and not self._log:
                told = _telling(part.text.encode("utf-8", "replace") + b"\n").split(b"\n")
                yield Paper(name, part.kind, "\n".join(clean(line).text for line in told))
            elif part.kind not in (Kind.KERNEL_LOG, Kind.JOURNAL, Kind.GUEST_LOG, Kind.TASK_LOG) and part.text.strip():
                yield Paper(name, part.kind, part.text, part.path.strip(), part.first)


def _telling(chunk: bytes) -> bytes:
    if not any(word in chunk for word in TELLING):
        return b""
    return b"".join(line for line in chunk.splitlines(keepends=True) if any(word in line for word in TELLING))


_PATHS: tuple[tuple[re.Pattern[str], Kind, str], ...] = (
    (re.compile(r"proc_?cmdline|running_?cmdline|^(kernel_?)?(cmdline|command_?line)$"), Kind.CMDLINE, "/proc/cmdline"),
    (re.compile(r"etc_?kernel_?cmdline|systemd_?boot_?cmdline"), Kind.CMDLINE, "/etc/kernel/cmdline"),
    (re.compile(r"grub"), Kind.GRUB, "/etc/default/grub"),
    (re.compile(r"modprobe|blacklist|vfio_?(conf|options)"), Kind.MODPROBE, "/etc/modprobe.d/stated.conf"),
    (re.compile(r"^(etc_?)?modules$"), Kind.MODULES, "/etc/modules"),
    (re.compile(r"mapping.*cfg|pci_?cfg"), Kind.MAPPING, "/etc/pve/mapping/pci.cfg"),
    (re.compile(r"(vm|qm|guest|qemu)_?(conf|config)"), Kind.GUEST_CONFIG, ""),
    (re.compile(r"lspci"), Kind.LSPCI, ""),
    (re.compile(r"iommu_?groups?(_?list(ing)?)?$"), Kind.IOMMU_LISTING, ""),
    (re.compile(r"lsusb"), Kind.LSUSB, ""),
    (re.compile(r"dmesg|kernel_?log|journal"), Kind.KERNEL_LOG, ""),
    (re.compile(r"boot_?tool(_?status)?"), Kind.PROSE, "proxmox-boot-tool status"),
    (re.compile(r"pveversion|package"), Kind.PROSE, "pveversion -v"),
)
"""Key, and what its text is; the first that fits counts."""


def stated(statements: Mapping[str, object], name: str) -> tuple[Paper, ...]:
    """The papers that keys and values stand for."""
    found = [*_quoted(statements, name, 0)]
    if listing := "\n".join(_listing(statements)):
        found.append(Paper(name, Kind.IOMMU_LISTING, listing))
    if config := "\n".join(_config(statements)):
        found.append(Paper(name, Kind.GUEST_CONFIG, config))
    found += _attributes(statements, name)
    return tuple(found[:MOST])


def _quoted(stated: Mapping[str, object], name: str, depth: int) -> Iterator[Paper]:
    """Files and outputs that a key names."""
    for key, value in list(stated.items())[:MOST]:
        if isinstance(value, Mapping):
            if depth < DEPTH:
                yield from _quoted({str(inner): content for inner, content in value.items()}, name, depth + 1)
            continue
        text = _text(value)
        if text and key.startswith("/"):
            yield _said(Paper(name, _kind_of_path(key), text, key))
        elif text and (row := _row(key)):
            yield _said(Paper(name, row[0], text, row[1]))


def _said(paper: Paper) -> Paper:
    """Arguments alone stand for the line of GRUB's file that holds them."""
    if paper.kind is Kind.GRUB and not re.search(r"^\s*(export\s+)?GRUB_\w+=", paper.text, re.M):
        return replace(paper, text=f'GRUB_CMDLINE_LINUX_DEFAULT="{paper.text.strip().strip(chr(34))}"\n')
    if paper.path == "/proc/cmdline" and re.match(r"\s*GRUB_CMDLINE", paper.text):
        return replace(paper, kind=Kind.GRUB, path="/etc/default/grub")
    return paper


def _row(key: str) -> tuple[Kind, str] | None:
    plain = re.sub(r"\W+", "_", key.lower()).strip("_")
    return next(((kind, path) for pattern, kind, path in _PATHS if pattern.search(plain)), None)


def _kind_of_path(path: str) -> Kind:
    row = _row(path)
    if path.startswith("/sys/") or row is None:
        return Kind.PROSE
    return row[0]


def _text(value: object) -> str:
    """A text, or a list of lines."""
    if isinstance(value, str):
        return value[:LONGEST]
    if isinstance(value, Sequence) and all(isinstance(one, str) for one in value):
        return "\n".join(value)[:LONGEST]
    return ""


# -- devices ---------------------------------------------------------------------------------


def _listing(stated: Mapping[str, object]) -> Iterator[str]:
    """Every function that the statements describe, as a listing of IOMMU groups would show it."""
    for about, group in _descriptions(stated, None, 0):
        words = {re.sub(r"\W+", "_", str(key).lower()): value for key, value in about.items()}
        address = next((str(words[key]) for key in _PLACES if key in words), "")
        match = _ADDRESS.search(address)
        if match is None:
            continue
        number = _number(words.get("iommu_group", words.get("group", words.get("current_group", group))))
        ids = next((one for one in (_IDS.search(str(value)) for value in words.values()) if one), None)
        code = re.fullmatch(r"(?:0x)?([0-9a-f]{4})(?:[0-9a-f]{2})?", str(words.get("class", "")).strip().lower())
        name = str(words.get("name") or words.get("model") or words.get("device") or words.get("gpu") or "")
        kind = str(words.get("class") or "").strip()
        shown = f"{'Device' if code or not kind else kind}{f' [{code[1]}]' if code else ''}"
        lead = f"IOMMU Group {number} " if number is not None else ""
        yield f"{lead}{match[1].lower()} {shown}: {name or 'Device'}{f' [{ids[1]}:{ids[2]}]'.lower() if ids else ''}"
        if "driver" in words:
            driver = words["driver"]
            yield f"\tKernel driver in use: {driver if isinstance(driver, str) and driver != 'none' else ''}"


def _descriptions(value: object, group: object, depth: int) -> Iterator[tuple[Mapping[str, object], object]]:
    """Maps that describe something, with the group that stands around them."""
    if depth > DEPTH:
        return
    if isinstance(value, Mapping):
        yield value, group
        around = value.get("group", value.get("iommu_group", group))
        for inner in list(value.values())[:MOST]:
            yield from _descriptions(inner, around, depth + 1)
    elif isinstance(value, Sequence) and not isinstance(value, str):
        for inner in value[:MOST]:
            yield from _descriptions(inner, group, depth + 1)


def _number(value: object) -> int | None:
    text = str(value) if isinstance(value, (int, str)) and not isinstance(value, bool) else ""
    return int(text) if re.fullmatch(r"\d{1,5}", text.strip()) else None


def _attributes(stated: Mapping[str, object], name: str) -> Iterator[Paper]:
    """What sysfs and procfs would say."""
    words = {re.sub(r"\W+", "_", key.lower()).strip("_"): value for key, value in stated.items()}
    place = next((match[1] for match in map(_ADDRESS.search, map(str, words.values())) if match), "")
    for key, value in words.items():
        if "vendor_reset" in key and value and isinstance(value, (str, int)):
            yield Paper(name, Kind.PROSE, f"vendor_reset: {value}\n")
    for key in ("reset_method", "reset_methods"):
        if place and (methods := _text(words.get(key)).replace("\n", " ")):
            yield Paper(name, Kind.PROSE, f"{methods}\n", f"/sys/bus/pci/devices/{_whole(place)}/reset_method")
    if (size := _float(words.get("ram_gib", words.get("memory_gib", words.get("ram_gb"))))) is not None:
        yield Paper(name, Kind.PROSE, f"MemTotal: {int(size * 1024 * 1024)} kB\n", "/proc/meminfo")
    if (cpu := _text(words.get("cpu"))) and (maker := maker_of(cpu)):
        yield Paper(name, Kind.PROSE, f"vendor_id\t: {maker}\nmodel name\t: {cpu[:100]}\n", "/proc/cpuinfo")
    release = _text(words.get("kernel", words.get("kernel_release", words.get("uname_r")))).strip()
    if _PLAIN_RELEASE.fullmatch(release):
        yield Paper(name, Kind.PROSE, f"{release}\n", "/proc/sys/kernel/osrelease")


def maker_of(cpu: str) -> str:
    """The processor's maker as /proc/cpuinfo writes it; empty when the words do not tell."""
    if re.search(r"\b(intel|xeon|core i\d|i[3579]-\d{4,5}|celeron|pentium|n100|n305)", cpu, re.I):
        return "GenuineIntel"
    return "AuthenticAMD" if re.search(r"\b(amd|ryzen|epyc|threadripper|opteron)", cpu, re.I) else ""


def _float(value: object) -> float | None:
    match = re.match(r"\d{1,6}(\.\d+)?", str(value)) if isinstance(value, (int, float, str)) else None
    return float(match[0]) if match else None


def _whole(address: str) -> str:
    return (address if address.count(":") == 2 else f"0000:{address}").lower()


# -- guests of other programs ---


_HOSTDEV = re.compile(r"<hostdev\b[^>]*type=['\"]pci['\"].*?</hostdev>", re.S)
_SOURCE = re.compile(
    r"<source>\s*<address[^>]*\bdomain=['\"]0x([0-9a-f]{4})['\"][^>]*\bbus=['\"]0x([0-9a-f]{2})['\"]"
    r"[^>]*\bslot=['\"]0x([01][0-9a-f])['\"][^>]*\bfunction=['\"]0x([0-7])['\"]", re.S,
)  # fmt: skip
"""Source: libvirt, formatdomain, host device assignment."""
_ARGUMENT = re.compile(rf"vfio-pci,\S*?\bhost=({_ADDRESS.pattern})", re.I)
_MACHINE = re.compile(r"machine=['\"]([\w.-]+)|-(?:machine|M)[ =](?:type=)?([\w.-]+)")


def as_config(text: str) -> str:
    """The devices of a libvirt domain, or of a QEMU command line, as lines of a guest's configuration; empty: none."""
    found = ["{}:{}:{}.{}".format(*match.groups()) for one in _HOSTDEV.findall(text) if (match := _SOURCE.search(one))]
    found += [match[1].lower() for match in _ARGUMENT.finditer(text)]
    machine = _MACHINE.search(text)
    q35 = machine is not None and "q35" in (machine[1] or machine[2])
    lines = [f"hostpci{number}: {_whole(one)}" for number, one in enumerate(dict.fromkeys(found[:16]))]
    return "\n".join([*lines, *(["machine: q35"] if q35 else [])]) if lines else ""


# -- guests ----------------------------------------------------------------------------------


def _config(stated: Mapping[str, object]) -> Iterator[str]:
    """A guest's lines, where its devices are among the statements."""
    for about, _ in _descriptions(stated, None, 0):
        lines = [
            f"{key}: {value}"
            for key, value in about.items()
            if isinstance(key, str) and isinstance(value, (str, int)) and _GUEST_KEY.fullmatch(key)
        ]
        if any(line.startswith("hostpci") for line in lines):
            yield from (line.replace("\n", " ") for line in lines)
            return
