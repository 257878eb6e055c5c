"""A recorded host in one file that can be shared, and read back without trusting it.

1. The file is a gzipped tar with exactly two members: `answers.json` and `README.txt`. Anything else in it - another
   name, a link, a device, a second copy, a member larger than the limit - refuses the whole file.
2. Redaction happens before anything is written. Serial numbers, MAC addresses, UUIDs, host and guest names,
   IP addresses, keys and cloud-init passwords are replaced; the same original always gets the same stand-in, so that
   a redacted capture replays to the same facts with other names.
3. Reading a capture never writes a file and never starts a program.
"""

from __future__ import annotations

import base64
import binascii
import gzip
import io
import json
import re
import tarfile
import zlib
from collections.abc import Callable, Iterable
from typing import Any

from .errors import Failure
from .host.base import Ran, Room
from .host.replay import Answers, NoAnswer

FORMAT = 1
ANSWERS = "answers.json"
README = "README.txt"
MEMBER_LIMIT = 64 * 1024 * 1024
"""Bytes of one unpacked member: the largest host on record (559 functions) needs about 3 MB."""
ARCHIVE_LIMIT = 32 * 1024 * 1024

_README = """This is a recording of the questions that pve-passthrough asked a host, and of the answers.
It holds no file that was not asked for. Serial numbers, MAC and IP addresses, UUIDs, host and guest names, keys and
passwords were replaced by stand-ins before it was written; the same original always has the same stand-in.
answers.json is plain text: look through it before you share it.
"""


# -- writing -------------------------------------------------------------------------------------


def pack(answers: Answers, *, redacted: bool = True) -> bytes:
    """The capture file of a recording, redacted unless the caller knows better. Same answers, same bytes."""
    document = to_document(trim_pci_ids(answers))
    if redacted:
        document = redact(document)
    text = json.dumps(document, indent=1, sort_keys=True, ensure_ascii=True) + "\n"
    buffer = io.BytesIO()
    with (
        gzip.GzipFile(fileobj=buffer, mode="wb", mtime=0) as zipped,
        tarfile.open(fileobj=zipped, mode="w", format=tarfile.USTAR_FORMAT) as archive,
    ):
        for name, content in ((README, _README), (ANSWERS, text)):
            member = tarfile.TarInfo(name)
            data = content.encode()
            member.size = len(data)
            member.mode = 0o600
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def to_document(answers: Answers) -> dict[str, Any]:
    """Answers as JSON values. Bytes that are text stay readable; others become {"base64": …}."""
    return {
        "format": FORMAT,
        "reads": {path: _encode(answer, _bytes_out) for path, answer in answers.reads.items()},
        "names": {path: _encode(answer, list) for path, answer in answers.names.items()},
        "links": {path: _encode(answer, str) for path, answer in answers.links.items()},
        "rooms": {
            path: _encode(answer, lambda room: [room.total, room.free]) for path, answer in answers.rooms.items()
        },
        "runs": [
            {"argv": list(argv), "answer": _encode(answer, lambda ran: [ran.rc, ran.stdout, ran.stderr])}
            for argv, answer in sorted(answers.runs.items())
        ],
    }


def _encode(answer: Any, out: Callable[[Any], Any]) -> Any:
    if isinstance(answer, NoAnswer):
        return {"none": "absent" if answer.absent else "unreadable", "reason": answer.reason}
    return out(answer)


def _bytes_out(data: bytes) -> Any:
    try:
        text = data.decode()
    except UnicodeDecodeError:
        return {"base64": base64.b64encode(data).decode()}
    return {"base64": base64.b64encode(data).decode()} if "\0" in text else text


def trim_pci_ids(answers: Answers) -> Answers:
    """Keep of pci.ids (1.4 MB) what names this host's devices: the lines of vendors and products that were read."""
    numbers = {
        answer.strip().removeprefix(b"0x").lower()
        for path, answer in answers.reads.items()
        if isinstance(answer, bytes) and path.rpartition("/")[2] in _ID_ATTRIBUTES
    }
    reads = {
        path: _trimmed_list(answer, numbers) if path.endswith("/pci.ids") and isinstance(answer, bytes) else answer
        for path, answer in answers.reads.items()
    }
    return Answers(reads, answers.names, answers.links, answers.rooms, answers.runs)


_ID_ATTRIBUTES = frozenset({"vendor", "device", "subsystem_vendor", "subsystem_device"})


def _trimmed_list(text: bytes, numbers: set[bytes]) -> bytes:
    kept: list[bytes] = []
    wanted = False
    for line in text.split(b"\n"):
        if line[:1] not in (b"\t", b"#", b""):
            wanted = line[:4].lower() in numbers
            if wanted:
                kept.append(line)
        elif wanted and line[:1] == b"\t" and line[1:2] != b"\t" and line[1:5].lower() in numbers:
            kept.append(line)
    return b"\n".join([*kept, b""])


# -- redaction -----------------------------------------------------------------------------------

_HEX = "[0-9a-fA-F]"
_PUBLIC = "8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""EFI's own namespace of variables (UEFI specification 3.3): the same on every machine."""


class StandIns:
    """One stand-in for each original, numbered in order of appearance, so that nothing can be computed back."""

    def __init__(self) -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}

    def of(self, kind: str, original: str, form: Callable[[int], str]) -> str:
        key = (kind, original.lower())
        if key not in self._given:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            self._given[key] = form(number)
        return self._given[key]


def _uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def _mac(number: int) -> str:
    return "02:00:00:" + ":".join(f"{number:06x}"[at : at + 2] for at in (0, 2, 4))


def _ipv4(number: int) -> str:
    return f"198.18.{number >> 8 & 255}.{number & 255}"


def _ipv6(number: int) -> str:
    return f"2001:db8::{number:x}"


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[int], str]], ...] = (
    ("uuid", re.compile(rf"\b(?!{_PUBLIC}){_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}\b"), _uuid),
    ("hex128", re.compile(rf"(?<![\w.])(?!0{{32}}){_HEX}{{32}}(?![\w.])"), lambda n: f"{n:032x}"),
    # A file system UUID of VFAT: the form of /etc/kernel/proxmox-boot-uuids.
    ("vfat", re.compile(r"(?<![\w-])[0-9A-F]{4}-[0-9A-F]{4}(?![\w-])"), lambda n: f"0000-{n:04X}"),
    (
        "mac",
        re.compile(rf"(?<![\w:])(?!(?:00:){{5}}00)(?!(?:ff:){{5}}ff){_HEX}{{2}}(?::{_HEX}{{2}}){{5}}(?![\w:])"),
        _mac,
    ),
    (
        "ipv6",
        re.compile(rf"(?<![\w:.])(?=[0-9a-fA-F:]*::)(?:{_HEX}{{1,4}}:{{1,2}}){{2,7}}{_HEX}{{0,4}}(?![\w:.])"),
        _ipv6,
    ),
    ("ipv4", re.compile(r"(?<![\w.-])(?!0\.|127\.|255\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w.-])"), _ipv4),
    ("serial", re.compile(r"(?<=serial=)[^,\s]+"), lambda n: f"SERIAL{n}"),
    # Names below /dev/disk/by-id end in the disk's serial number, wwn- and eui- names are one.
    ("disk", re.compile(r"(?<=/by-id/)[^\s/]+?(?=(?:-part\d+)?(?:[\s/]|$))"), lambda n: f"disk-{n}"),
    ("key", re.compile(r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+(?:\s|%20)+[A-Za-z0-9+/=%]{40,}[^\s,]*"), lambda n: f"key{n}"),
)

_SECRET_LINE = re.compile(
    r"^(cipassword|sshkeys|ciuser|searchdomain|nameserver|description|tags|smbios1|args|vmgenid):[ \t]*(.*)$", re.M
)
_GUEST_NAME = re.compile(r"^(?:name|hostname):[ \t]*(\S+)", re.M)
_ARGS_KEPT = re.compile(r"(?:^|(?<=\s))-cpu\s+(?:'[^']*'|\S+)|(?:^|(?<=\s))-[a-z][\w-]*")
_COMMENT = re.compile(r"^#.*$", re.M)
_SERIAL_FILES = re.compile(r"/(?:serial|product_serial|board_serial|chassis_serial|wwid|product_uuid)$")
_GUEST_FILE = re.compile(r"/(?:qemu-server|lxc)/\d+\.conf$")
_NODES = "/etc/pve/nodes"


def redact(document: dict[str, Any]) -> dict[str, Any]:
    """Replace everything that points to a person or a place. Paths are treated like texts: node names occur in both."""
    stand_ins = StandIns()
    names = _names_to_hide(document)
    hide_names = _name_pattern(names)

    def text(value: str) -> str:
        for kind, pattern, form in _PATTERNS:
            value = pattern.sub(lambda match, k=kind, f=form: stand_ins.of(k, match.group(), f), value)  # type: ignore[misc]
        return hide_names.sub(lambda match: names[match.group()], value) if hide_names else value

    def walk(value: Any, path: str = "") -> Any:
        if isinstance(value, str):
            return text(_without_secrets(path, value))
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            if "base64" in value:
                return _without_device_serial(value) if path.endswith("/config") else value
            return {text(key): walk(item, key) for key, item in value.items()}
        return value

    redacted: dict[str, Any] = {key: walk(part) for key, part in document.items()}
    return redacted


def _without_secrets(path: str, value: str) -> str:
    """Blank what no stand-in can keep useful: passwords, comments, guest descriptions, whole serial files."""
    if _SERIAL_FILES.search(path):
        return "SERIAL\n"
    if not _GUEST_FILE.search(path):
        return value
    value = _COMMENT.sub("# (redacted)", value)
    return _SECRET_LINE.sub(lambda match: f"{match.group(1)}: {_hidden(match.group(1), match.group(2))}", value)


def _hidden(key: str, value: str) -> str:
    """What may stay of a secret line: of `args`, which the rules judge, QEMU's option names and the -cpu value."""
    if key == "args":
        return " ".join(_ARGS_KEPT.findall(value)) or "-redacted"
    return "redacted"


def _without_device_serial(value: dict[str, str]) -> dict[str, str]:
    """Blank the Device Serial Number capability (extended id 0003), from which network cards' MACs can be read."""
    space = bytearray(base64.b64decode(value["base64"]))
    at, hops = 0x100, 0
    while 0x100 <= at <= len(space) - 12 and hops < 64:
        header = int.from_bytes(space[at : at + 4], "little")
        if header & 0xFFFF == 0x0003:
            space[at + 4 : at + 12] = bytes(8)
        at, hops = header >> 20, hops + 1
    return {"base64": base64.b64encode(space).decode()}


def _names_to_hide(document: dict[str, Any]) -> dict[str, str]:
    """Host, node and guest names, each with its stand-in; the longest is replaced first."""
    hidden: dict[str, str] = {}

    def hide(name: str, prefix: str) -> None:
        if len(name) > 1 and name not in hidden and name not in _COMMON_WORDS:
            hidden[name] = f"{prefix}{sum(other.startswith(prefix) for other in hidden.values()) + 1}"

    reads = document["reads"]
    hostname = reads.get("/etc/hostname")
    if isinstance(hostname, str):
        first, _, domain = hostname.strip().partition(".")
        hide(first, "node")
        hide(domain, "domain")
    nodes = document["names"].get(_NODES)
    for node in nodes if isinstance(nodes, list) else ():
        hide(node, "node")
    for path, value in reads.items():
        if isinstance(value, str) and _GUEST_FILE.search(path):
            for match in _GUEST_NAME.finditer(value):
                hide(match.group(1), "guest")
    return hidden


_COMMON_WORDS = frozenset({"pve", "local", "proxmox", "vm", "gpu", "qemu", "root", "host", "debian", "localhost"})
"""Names that are also ordinary words of these files and say nothing about a person."""


def _name_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    ordered = sorted(names, key=len, reverse=True)
    return re.compile(rf"(?<!\w)(?:{'|'.join(map(re.escape, ordered))})(?!\w)") if ordered else None


# -- reading -------------------------------------------------------------------------------------


def unpack(data: bytes, name: str) -> Answers:
    """Answers of a capture file. Raises Failure (`capture.…`) for anything that is not one; nothing is written."""
    if len(data) > ARCHIVE_LIMIT:
        raise _bad(name, f"the file is larger than {ARCHIVE_LIMIT // 2**20} MiB")
    text = _member(data, name)
    try:
        document = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _bad(name, f"{ANSWERS} is not whole: {error}") from error
    if not isinstance(document, dict) or document.get("format") != FORMAT:
        raise _bad(name, f"{ANSWERS} has no `format` {FORMAT}; another version of this program may have written it")
    try:
        return from_document(document)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _bad(name, f"{ANSWERS} has an answer of a wrong form: {error!r}") from error


def _member(data: bytes, name: str) -> bytes:
    found: bytes | None = None
    stream = _Bounded(data)
    try:
        with tarfile.open(fileobj=stream, mode="r|") as archive:
            for member in archive:
                if not member.isreg() or member.name not in (ANSWERS, README):
                    raise _bad(name, f"it holds {member.name!r}, which no capture has", "capture.hostile")
                if member.size > MEMBER_LIMIT:
                    raise _bad(name, f"{member.name} claims {member.size} bytes", "capture.hostile")
                content = archive.extractfile(member)
                if member.name == ANSWERS and content is not None:
                    if found is not None:
                        raise _bad(name, f"it holds {ANSWERS} twice", "capture.hostile")
                    found = content.read(MEMBER_LIMIT + 1)
        while stream.read(1 << 20):
            pass  # to the end, where gzip keeps its checksum
    except (tarfile.TarError, EOFError, OSError, zlib.error, ValueError) as error:
        raise _bad(name, f"it ends early or is not a gzipped tar archive ({error})") from error
    if found is None:
        raise _bad(name, f"it holds no {ANSWERS}")
    return found


class _Bounded(io.RawIOBase):
    """Unpacks gzip on the fly and stops at the limit: a small file must not unpack to an endless one."""

    def __init__(self, data: bytes) -> None:
        self._stream = gzip.GzipFile(fileobj=io.BytesIO(data))
        self._left = 2 * MEMBER_LIMIT

    def read(self, size: int = -1) -> bytes:
        chunk = self._stream.read(min(size if size >= 0 else self._left, self._left) or 1)
        self._left -= len(chunk)
        if self._left <= 0:
            raise OSError("unpacks to more than a capture may hold")
        return chunk


def from_document(document: dict[str, Any]) -> Answers:
    """The inverse of `to_document`. Raises KeyError, TypeError, ValueError for a wrong form."""
    return Answers(
        {path: _decode(value, _bytes_in) for path, value in document["reads"].items()},
        {path: _decode(value, lambda names: tuple(map(_string, names))) for path, value in document["names"].items()},
        {path: _decode(value, _string) for path, value in document["links"].items()},
        {
            path: _decode(value, lambda room: Room(int(room[0]), int(room[1])))
            for path, value in document["rooms"].items()
        },
        {
            tuple(map(_string, run["argv"])): _decode(
                run["answer"], lambda ran: Ran(int(ran[0]), _string(ran[1]), _string(ran[2]))
            )
            for run in document["runs"]
        },
    )


def _decode(value: Any, into: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict) and "none" in value:
        return NoAnswer(value["none"] == "absent", _string(value["reason"]))
    return into(value)


def _bytes_in(value: Any) -> bytes:
    if isinstance(value, dict):
        return base64.b64decode(value["base64"], validate=True)
    return _string(value).encode()


def _string(value: Any) -> str:
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is not a text")
    return value


def _bad(name: str, reason: str, ref: str = "capture.unreadable") -> Failure:
    return Failure(
        ref,
        f"{name} was not read and nothing was changed: {reason}.",
        hint="Make a new one on that host with `pve-passthrough capture -o FILE`.",
    )
