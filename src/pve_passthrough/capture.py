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
import hashlib
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
from .model.hookscript import OURS, Hook, parse_older, render
from .model.own import RUNS

FORMAT = 1
ANSWERS = "answers.json"
README = "README.txt"
_BLOCK = 512
MEMBER_LIMIT = 32 * 1024 * 1024
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
_PUBLIC = r"8be4df61-93ca-11d2-aa0d-00e098032b8c|0000\d{4}-0000-0000-0000-\d{12}(?!\w)"
"""EFI's own namespace of variables (UEFI specification 3.3), the same on every machine; and what Proxmox VE calls a
guest's share of a device: the numbers of entry and guest (qemu-server PCI.pm, generate_mdev_uuid)."""


class StandIns:
    """One stand-in for each original, numbered in order of appearance, so that nothing can be computed back."""

    def __init__(self, key: bytes = b"") -> None:
        self._given: dict[tuple[str, str], str] = {}
        self._counts: dict[str, int] = {}
        self._key = key

    def of(self, kind: str, original: str, form: Callable[[int], str]) -> str:
        key = (kind, original.lower())
        if key not in self._given:
            self._counts[kind] = number = self._counts.get(kind, 0) + 1
            self._given[key] = form(number)
        return self._given[key]

    def ipv4(self, original: int) -> int:
        """An address that shares as many leading bits with other stand-ins as the originals share with each other: a
        route still leads to the addresses that it led to. The bits hang on a digest of the whole recording."""
        found = int(self.of("octet", str(original >> 24), lambda number: str(min(9 + number, 126))))
        for bit in range(23, -1, -1):
            flip = hashlib.sha256(self._key + b"%d/%d" % (original >> bit + 1, bit)).digest()[0] & 1
            found = found << 1 | (original >> bit & 1 ^ flip)
        return found


def _uuid(number: int) -> str:
    return f"00000000-0000-4000-8000-{number:012x}"


def _mac(number: int) -> str:
    return "02:00:00:" + ":".join(f"{number:06x}"[at : at + 2] for at in (0, 2, 4))


def _ipv6(number: int) -> str:
    return f"2001:db8::{number:x}"


_PATTERNS: tuple[tuple[str, re.Pattern[str], Callable[[int], str]], ...] = (
    ("user", re.compile(r"(?<=://)[^/\s@]+(?=@)"), lambda n: f"user{n}"),
    # Whoever started a task (pve-common, PVE/Tools.pm, upid_encode: …:TYPE:ID:USER@REALM[!TOKEN]:).
    (
        "user",
        re.compile(r"(?<=:)(?!root@pam:)[^\s:@/]+@[\w.-]+(?:![\w.-]+)?(?=:(?:\s|$|\"))"),
        lambda n: f"user{n}@pve",
    ),
    ("mail", re.compile(r"[\w.+-]+@[\w-]+(?:\.[\w-]+)+"), lambda n: f"mail{n}@example.invalid"),
    ("iscsi", re.compile(r"\b(?:iqn\.\d{4}-\d\d\.|naa\.|eui\.)[\w.:-]+"), lambda n: f"iqn.2000-01.invalid:{n}"),
    ("secret", re.compile(r"grub\.pbkdf2\.\S+"), lambda n: f"secret{n}"),
    (
        "uuid",
        re.compile(rf"(?<!\w)(?!{_PUBLIC}){_HEX}{{8}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{4}}-{_HEX}{{12}}(?!\w)"),
        _uuid,
    ),
    # LVM's names for its volumes (dm/uuid): two ids of 32 letters and digits.
    ("lvm", re.compile(r"(?<=LVM-)[A-Za-z0-9]{32,64}"), lambda n: f"{n:064d}"),
    (
        "wwid",
        re.compile(rf"(?<![\w.])3{_HEX}{{32}}(?![\w.])|(?<![\w.])3(?=\d*[a-f]){_HEX}{{16}}(?![\w.])"),
        lambda n: f"3{n:032x}",
    ),
    ("hex128", re.compile(rf"(?<![\w.])(?!0{{32}}){_HEX}{{32}}(?![\w.])"), lambda n: f"{n:032x}"),
    # A file system UUID of VFAT: the form of /etc/kernel/proxmox-boot-uuids.
    ("vfat", re.compile(r"(?<![\w-])[0-9A-F]{4}-[0-9A-F]{4}(?![\w-])"), lambda n: f"0000-{n:04X}"),
    ("ipv6", re.compile(rf"(?<![\w:.])(?:{_HEX}{{1,4}}:){{7}}{_HEX}{{1,4}}(?![\w:])"), _ipv6),
    (
        "mac",
        re.compile(rf"(?<![\w:])(?!(?:00:){{5}}00)(?!(?:ff:){{5}}ff){_HEX}{{2}}(?::{_HEX}{{2}}){{5}}(?![\w:])", re.I),
        _mac,
    ),
    (
        "mac-dashed",
        re.compile(rf"(?<![\w-]){_HEX}{{2}}(?:-{_HEX}{{2}}){{5}}(?![\w-])"),
        lambda n: _mac(n).replace(":", "-"),
    ),
    # Without separators: in interface names (systemd.net-naming-scheme(7), `enx`), and wherever a letter shows that it
    # is no decimal number.
    (
        "mac-plain",
        re.compile(rf"(?:(?<=enx)|(?<=wlx)|(?<![\w.-])(?=\d*[A-Fa-f])){_HEX}{{12}}(?!\w)"),
        lambda n: _mac(n).replace(":", ""),
    ),
    (
        "ipv6",
        re.compile(rf"(?<![\w:.])(?=[0-9a-fA-F:]*::)(?:{_HEX}{{1,4}}:{{1,2}}){{2,7}}{_HEX}{{0,4}}(?![\w:]|\.\d)"),
        _ipv6,
    ),
    ("serial", re.compile(r"(?<=serial=)[^,\s]+"), lambda n: f"SERIAL{n}"),
    ("serial", re.compile(r"(?i)(?<=serialnumber: )\S+|(?<=serial number: )\S+"), lambda n: f"SERIAL{n}"),
    # Names below /dev/disk/by-id end in the disk's serial number, wwn- and eui- names are one.
    ("disk", re.compile(r"(?<=/by-id/)[^\s/]+?(?=(?:-part\d+)?(?:[\s/]|$))"), lambda n: f"disk-{n}"),
    ("key", re.compile(r"(?:ssh-|ecdsa-|sk-)[a-z0-9@.-]+(?:\s|%20)+[A-Za-z0-9+/=%]{40,}[^\s,]*"), lambda n: f"key{n}"),
    # WireGuard keys: 32 bytes as base64.
    ("key", re.compile(r"(?<![\w+/=])[A-Za-z0-9+/]{42}[AEIMQUYcgkosw048]=(?![\w+/=])"), lambda n: f"key{n}"),
)
_IPV4 = re.compile(r"(?<![\w.-])(?!0\.|127\.|255\.)\d{1,3}\.\d{1,3}\.\d{1,3}\.\d{1,3}(?![\w-]|\.\d)")
_SECRET_VALUE = re.compile(
    r"(?i)\b([\w.-]*(?:passw(?:or)?d|passphrase|secret|token|api[_-]?key|private[_-]?key|wpa-(?:psk|ssid)|credentials?|username))"
    r"(\s*[=:]\s*|[ \t]+)([^\s,;&'\"]+)"
)
"""A key that names a secret, and its value."""

_SECRET_LINE = re.compile(
    r"^(cipassword|sshkeys|ciuser|cicustom|hookscript|searchdomain|nameserver|description|tags|smbios1|args|vmgenid):"
    r"[ \t]*(.*)$", re.M
)  # fmt: skip
_SNAPSHOT = re.compile(r"^\[(?!PENDING\]|special:)(.+)\]|^parent:[ \t]*(\S+)", re.M)
_SECTION_LINE = re.compile(
    r"^([ \t]+)(comment|description|mailto|notes-template|notification-target|storage|username|password|server|export"
    r"|share|portal|target|domain|fingerprint|keyring|encryption-key|master-pubkey|path(?![ \t]+/var/lib/vz[ \t]*$))"
    r"([ \t]+).*$", re.M
)  # fmt: skip
"""Properties of Proxmox' section files that no rule asks for and people fill in; the path of `local` is everybody's."""
_MAIL_OPTION = re.compile(r"(--?(?:mailto|storage|notes-template|notification-target))([ =])(?:'[^']*'|\"[^\"]*\"|\S+)")
_GUEST_NAME = re.compile(r"^(?:name|hostname):[ \t]*(\S+)", re.M)
_VOLUME = re.compile(
    r"^(?:scsi|virtio|ide|sata|efidisk|tpmstate|unused|rootfs|mp)\d*:[ \t]*(?:file=)?([A-Za-z][\w.-]*):", re.M
)
_ARGS_KEPT = re.compile(r"(?:^|(?<=\s))-cpu\s+(?:'[^']*'|\S+)|(?:^|(?<=\s))-[a-z][\w-]*")
_COMMENT = re.compile(r"^#.*$", re.M)
_INDENTED_COMMENT = re.compile(r"^([ \t]*)#.*$", re.M)
_SERIAL_FILES = re.compile(r"/(?:serial|\w+_serial|\w+_asset_tag|wwid|product_uuid)$")
_GUEST_FILE = re.compile(r"/(?:qemu-server|lxc)/\d+\.conf$")
_FUNCTION_RULE = re.compile(r"^[^#]*(?:reset_method|d3cold_allowed|driver_override)|^$|^# Written by pve-passthrough\.")
"""The lines of udev's rules that are about PCI functions; the others name people's disks, sticks and network cards."""
_SECTION_FILE = re.compile(r"^/etc/pve/(?:mapping/|ha/|sdn/|)[\w-]+\.cfg$")
_ONE_LINE_OF = {"/etc/pve/datacenter.cfg": "ha:", "/etc/vzdump.conf": "mode:"}
"""Files of which one line is asked for; the others hold addresses, proxies with passwords, and people's words."""
_AS_THEY_ARE = re.compile(r"^/(?:var/lib/dpkg/status|usr/share/.*|etc/os-release|proc/version|proc/cpuinfo)$")
"""Texts that every installation of a release has alike; numbers in them are versions."""
_BYTES = re.compile(r"^/sys/firmware/|/pci\.ids$")
_NODES = "/etc/pve/nodes"
_KERNEL_LOG = re.compile(r"DMAR|AMD-Vi|iommu|remapping|vfio", re.I)
_START_OF_LOG = re.compile(r"(?:^|\] |kernel: )(?:Linux version \d|Command line: )")
_TASKS = "/var/log/pve/tasks"
_GUEST_TASK = re.compile(r"UPID:\S+:qm(?:start|reboot|stop):\d+:")


def redact(document: dict[str, Any]) -> dict[str, Any]:
    """Replace everything that points to a person or a place. Paths are treated like texts: node names occur in both."""
    document = {**document, "names": {path: _listed(path, names) for path, names in document["names"].items()}}
    stand_ins = StandIns(hashlib.sha256(json.dumps(document, sort_keys=True).encode()).digest())
    names = _names_to_hide(document)
    hide_names = _name_pattern(names)

    def address(match: re.Match[str]) -> str:
        octets = [int(part) for part in match.group().split(".")]
        if max(octets) > 255:
            return match.group()
        return ".".join(map(str, stand_ins.ipv4(int.from_bytes(bytes(octets), "big")).to_bytes(4, "big")))

    def text(value: str) -> str:
        value = _SECRET_VALUE.sub(r"\1\2redacted", value)
        for kind, pattern, form in _PATTERNS:
            value = pattern.sub(lambda match, k=kind, f=form: stand_ins.of(k, match.group(), f), value)  # type: ignore[misc]
        value = _IPV4.sub(address, value)
        return hide_names.sub(lambda match: names[match.group().lower()], value) if hide_names else value

    def content(path: str, value: str) -> str:
        if _AS_THEY_ARE.search(path):
            return value
        if path == "/proc/net/route":
            return _routes(value, stand_ins)
        return text(_without_secrets(path, value))

    def walk(value: Any, path: str = "") -> Any:
        if isinstance(value, str):
            return content(path, value)
        if isinstance(value, list) and path.endswith("/by-id"):
            return [text(f"{path}/{name}").removeprefix(f"{path}/") for name in value]  # as the links below are called
        if isinstance(value, list):
            return [walk(item) for item in value]
        if isinstance(value, dict):
            if "base64" in value:
                return _bytes_redacted(path, value, content)
            if path == "" and "argv" in value:
                return {"argv": walk(value["argv"]), "answer": walk(_said(value["argv"], value["answer"]))}
            return {text(key): walk(item, key) for key, item in value.items()}
        return value

    redacted: dict[str, Any] = {key: walk(part) for key, part in document.items()}
    return redacted


def _bytes_redacted(path: str, value: dict[str, str], content: Callable[[str, str], str]) -> dict[str, str]:
    """Of bytes, those that are a text with some odd letter are redacted like any text."""
    if path.endswith("/config"):
        return _without_device_serial(value)
    if _BYTES.search(path):
        return value
    data = base64.b64decode(value["base64"]).decode("utf-8", "surrogateescape")
    return {"base64": base64.b64encode(content(path, data).encode("utf-8", "surrogateescape")).decode()}


def _said(argv: list[str], answer: Any) -> Any:
    """The kernel's log holds whatever was ever plugged in; of it stays what a probe looks for."""
    if argv[:1] not in (["dmesg"], ["journalctl"]) or not isinstance(answer, list):
        return answer
    return [answer[0], "\n".join(line for line in answer[1].split("\n") if _telling(line)), answer[2]]


def _telling(line: str) -> bool:
    """A line that a probe looks for, or one that the catalogue knows; nothing else leaves the machine."""
    from .knowledge.signs import SIGNS

    if _KERNEL_LOG.search(line) or _START_OF_LOG.search(line):
        return True
    return any(sign.needle in line and sign.pattern.search(line) for sign in SIGNS)


def _task_index(value: str) -> str:
    """Starts and stops of guests; whatever else the cluster did is nobody's business."""
    return "".join(f"{line}\n" for line in value.split("\n") if _GUEST_TASK.match(line))


def _routes(table: str, stand_ins: StandIns) -> str:
    """/proc/net/route: destination, gateway and mask are addresses as little-endian hexadecimal words."""
    rows = []
    for row in table.split("\n"):
        fields = row.split("\t")
        try:
            target, gateway, mask = (int.from_bytes(bytes.fromhex(fields[at]), "little") for at in (1, 2, 7))
        except (IndexError, ValueError):
            rows.append(row if not re.search(rf"\b{_HEX}{{8}}\b", row) else "")
            continue
        fields[1] = ((stand_ins.ipv4(target) & mask if target else 0).to_bytes(4, "little")).hex().upper()
        fields[2] = ((stand_ins.ipv4(gateway) if gateway else 0).to_bytes(4, "little")).hex().upper()
        rows.append("\t".join(fields))
    return "\n".join(rows)


def _without_secrets(path: str, value: str) -> str:
    """Blank what no stand-in can keep useful: passwords, comments, guest descriptions, whole serial files."""
    if path.startswith(f"{RUNS}/"):
        return _remembered(path, value)
    if f"/snippets/{OURS}" in path:
        hook = parse_older(value)
        return "" if hook is None else render(Hook(other="redacted" if hook.other else ""))
    if _SERIAL_FILES.search(path):
        return "SERIAL\n"
    if path in (f"{_TASKS}/index", f"{_TASKS}/index.1", f"{_TASKS}/active"):
        return _task_index(value)
    if path.startswith("/etc/network/"):
        return _INDENTED_COMMENT.sub(r"\1# (redacted)", value)
    if path == "/etc/pve/user.cfg":
        return "".join(_pool_line(line) for line in value.split("\n") if line.startswith("pool:"))
    if path == "/etc/pve/vzdump.cron":
        return _MAIL_OPTION.sub(r"\1\2redacted", _COMMENT.sub("# (redacted)", value))
    if path.startswith("/etc/udev/rules.d/"):
        return "\n".join(line if _FUNCTION_RULE.search(line) else "# (redacted)" for line in value.split("\n"))
    if path in _ONE_LINE_OF:
        return "".join(f"{line}\n" for line in value.split("\n") if line.startswith(_ONE_LINE_OF[path]))
    if path == "/etc/pve/replication.cfg":  # `target` is a node here, and nodes have stand-ins
        return re.sub(r"^([ \t]+comment[ \t]+).*$", r"\1redacted", value, flags=re.M)
    if _SECTION_FILE.search(path):
        return _SECTION_LINE.sub(r"\1\2\3redacted", value)
    if not _GUEST_FILE.search(path):
        return value
    value = _COMMENT.sub("# (redacted)", value)
    return _SECRET_LINE.sub(lambda match: f"{match.group(1)}: {_hidden(match.group(1), match.group(2))}", value)


def _listed(path: str, names: Any) -> Any:
    """Of a storage's snippets only our own: people give files the names of people and places."""
    ours = path.endswith("/snippets") and isinstance(names, list)
    return [name for name in names if name.startswith(OURS)] if ours else names


def _remembered(path: str, value: str) -> str:
    """Of a run's record what the probe asks for: the events without their words, the devices without their serials."""
    if path.endswith("/journal.jsonl"):
        kinds = re.findall(r'^\{"event": "([a-z-]+)"', value, re.M)
        return "".join(f'{{"event": "{kind}", "boot": "", "time": "", "detail": ""}}\n' for kind in kinds)
    try:
        plan = json.loads(value)["plan"]
        identities = [{**one, "serial": ""} for one in plan.get("identities", ())]
        kept = {"vmid": plan.get("vmid"), "identities": identities, "usb": plan.get("usb", {})}
        return json.dumps({"format": FORMAT, "plan": kept}) + "\n"
    except (ValueError, KeyError, TypeError, AttributeError):
        return ""


def _pool_line(line: str) -> str:
    """`pool:NAME:COMMENT:VMIDS:STORAGES:` (pve-access-control, AccessControl.pm) without comment and storages."""
    parts = [*line.split(":"), "", "", ""]
    return f"pool:{parts[1]}::{parts[3]}::\n"


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
    """Names of hosts, guests, clusters, storages, pools and snapshots, in lower case, each with its stand-in."""
    hidden: dict[str, str] = {}
    counts: dict[str, int] = {}
    technical = _technical(document)

    def hide(name: str, prefix: str) -> None:
        name = name.strip().lower()
        known = name in hidden or name in _COMMON_WORDS or name in technical
        if len(name) > 1 and not known and not re.fullmatch(r"[\d.:/]+|(?:vmbr|eno|ens|enp|eth|bond)\w*", name):
            counts[prefix] = counts.get(prefix, 0) + 1
            hidden[name] = f"{prefix}{counts[prefix]}"

    def hide_host(name: str, prefix: str = "node") -> None:
        if not re.fullmatch(r"[\d.]+|[\da-fA-F:]*:[\da-fA-F:.]*", name):
            first, _, domain = name.partition(".")
            hide(first, prefix)
            hide(domain, "domain")

    texts = {path: _plain(value) for path, value in document["reads"].items()}
    hide_host(texts.get("/etc/hostname", "").strip())
    nodes = document["names"].get(_NODES)
    for node in nodes if isinstance(nodes, list) else ():
        hide(node, "node")
    for prefix, pattern, path in _NAMED_IN:
        for match in pattern.finditer(texts.get(path, "")):
            (hide_host if prefix in ("node", "server") else hide)(next(filter(None, match.groups())), prefix)
    for line in texts.get("/etc/hosts", "").splitlines():
        for word in line.partition("#")[0].split()[1:]:
            if not word.startswith(("localhost", "ip6-")):
                hide_host(word)
    guests = (value for path, value in texts.items() if _GUEST_FILE.search(path))
    said = ((run["argv"][0], run["answer"][1]) for run in document["runs"] if isinstance(run["answer"], list))
    places = [("", text) for text in guests] + list(said)
    for program, text in places:
        for prefix, pattern in _NAMED_BY.get(program, ()):
            for match in pattern.finditer(text):
                (hide_host if prefix in ("node", "guest") else hide)(next(filter(None, match.groups())), prefix)
    return hidden


_NAMED_BY = {
    "": (("guest", _GUEST_NAME), ("snap", _SNAPSHOT), ("storage", _VOLUME)),
    "zpool": (("pool", re.compile(r"^\s*pool: (\S+)", re.M)),),
    "pvesh": (("node", re.compile(r'"name"\s*:\s*"([^"]+)"')),),
}
"""Kind of name, and how guests' files (no program) and programs write it."""


_NAMED_IN = (
    ("node", re.compile(r"^\s*name\s*:\s*(\S+)", re.M), "/etc/pve/corosync.conf"),
    ("node", re.compile(r"^\s*(?:ring|link)\d_addr\s*:\s*(\S+)", re.M), "/etc/pve/corosync.conf"),
    ("cluster", re.compile(r"^\s*cluster_name\s*:\s*(\S+)", re.M), "/etc/pve/corosync.conf"),
    ("node", re.compile(r'"nodename"\s*:\s*"([^"]+)"'), "/etc/pve/.members"),
    ("cluster", re.compile(r'"name"\s*:\s*"([^"]+)"'), "/etc/pve/.members"),
    ("pool", re.compile(r"^pool:([^:]+):", re.M), "/etc/pve/user.cfg"),
    ("job", re.compile(r"^vzdump:[ \t]*(\S+)", re.M), "/etc/pve/jobs.cfg"),
    ("group", re.compile(r"^group:[ \t]*(\S+)", re.M), "/etc/pve/ha/groups.cfg"),
    ("rule", re.compile(r"^[a-z-]+-affinity:[ \t]*(\S+)", re.M), "/etc/pve/ha/rules.cfg"),
    ("server", re.compile(r"^([A-Za-z][^\s:/]*):/|^//([^/\s]+)/", re.M), "/proc/mounts"),
    ("share", re.compile(r"^[^\s:/]+:/(?:\S*/)?([^\s/]+) |^//[^/\s]+/(?:\S*/)?([^\s/]+) ", re.M), "/proc/mounts"),
    ("storage", re.compile(r"^\S+ /(?:mnt/pve|mnt|media|srv|home)/([^\s/]+)", re.M), "/proc/mounts"),
)
"""Kind of name, where it stands in a file, and the file."""


def _plain(value: Any) -> str:
    """A file's text, also where a byte of it is no UTF-8; nothing for what was not read."""
    if isinstance(value, dict) and "base64" in value:
        return base64.b64decode(value["base64"]).decode("utf-8", "surrogateescape")
    return value if isinstance(value, str) else ""


def _technical(document: dict[str, Any]) -> frozenset[str]:
    """Words that the kernel uses on this host: a guest that is called like a driver keeps its name."""
    found: set[str] = set()
    for path in (*document["reads"], *document["names"]):
        if path.startswith(("/etc/", "/proc/", "/sys/")):
            rest = path.removeprefix(f"{_NODES}/").partition("/")[2] if path.startswith(f"{_NODES}/") else path
            found.update(part.lower() for part in rest.split("/"))
    for path, names in document["names"].items():
        if path.startswith("/sys/") and isinstance(names, list):
            found.update(name.lower() for name in names)
    for path, target in document["links"].items():
        if path.startswith("/sys/") and isinstance(target, str):
            found.add(target.rpartition("/")[2].lower())
    for path, text in document["reads"].items():
        if isinstance(text, str) and path.startswith(("/proc/cmdline", "/etc/default/grub", "/etc/modprobe.d/")):
            found.update(word.lower() for word in re.findall(r"(?<![\w.-])[a-z_]+(?==)|\bvfio\w*", text))
    return frozenset(found)


_COMMON_WORDS = frozenset({
    "pve", "local", "proxmox", "vm", "gpu", "qemu", "root", "host", "debian", "localhost", "local-lvm",
    "local-zfs", "local-btrfs", "rpool", "bpool", "tank", "data", "zfs", "lvm", "nvme", "ssd", "hdd", "intel",
    "amd", "nvidia", "radeon", "kvm", "vfio", "pci", "pcie", "usb", "linux", "windows", "win10", "win11",
    "ubuntu", "server", "node", "guest", "storage", "backup", "cluster", "default", "none", "on", "off", "yes",
    "no", "quiet", "splash", "boot", "grub", "uefi", "ovmf", "seabios", "q35", "i440fx", "virtio", "scsi", "net",
    "network", "bridge", "iommu", "pt", "cpu", "memory", "disk", "cdrom", "video", "audio", "test", "name",
    "current", "unknown", "ext4", "xfs", "btrfs", "nfs", "cifs",
})  # fmt: skip
"""Names that are also ordinary words of these files and say nothing about a person."""


def _name_pattern(names: Iterable[str]) -> re.Pattern[str] | None:
    """All names, the longest first. An underscore ends a name: `vg_NAME` is a usual name of a volume group."""
    ordered = sorted(names, key=len, reverse=True)
    if not ordered:
        return None
    return re.compile(rf"(?<![^\W_])(?:{'|'.join(map(re.escape, ordered))})(?![^\W_])", re.I)


# -- reading -------------------------------------------------------------------------------------


def unpack(data: bytes, name: str) -> Answers:
    """Answers of a capture file. Raises Failure (`capture.…`) for anything that is not one; nothing is written."""
    if len(data) > ARCHIVE_LIMIT:
        raise _bad(name, f"the file is larger than {ARCHIVE_LIMIT // 2**20} MiB")
    text = _member(data, name)
    try:
        document = json.loads(text, object_pairs_hook=_once)
    except (ValueError, RecursionError) as error:
        raise _bad(name, f"{ANSWERS} is not whole: {error}") from error
    if not isinstance(document, dict) or type(document.get("format")) is not int or document["format"] != FORMAT:
        raise _bad(name, f"{ANSWERS} has no `format` {FORMAT}; another version of this program may have written it")
    try:
        return from_document(document)
    except (AttributeError, KeyError, TypeError, ValueError, binascii.Error) as error:
        raise _bad(name, f"{ANSWERS} has an answer of a wrong form: {error!r:.200}") from error


def _member(data: bytes, name: str) -> bytes:
    """The text of answers.json. Only what `pack` and a plain tar write is understood: no extended or sparse headers."""
    stream = _Bounded(data)
    found: dict[str, bytes] = {}
    try:
        while (header := _exactly(stream, _BLOCK)).strip(b"\0"):
            member, size = _header(header, name)
            if member in found:
                raise _bad(name, f"it holds {member} twice", "capture.hostile")
            found[member] = _exactly(stream, size)
            _exactly(stream, -size % _BLOCK)
        while stream.read(1 << 20):
            pass  # to the end, where gzip keeps its checksum
    except (EOFError, OSError, zlib.error) as error:
        raise _bad(name, f"it ends early or is not a gzipped tar archive ({error})") from error
    if ANSWERS not in found:
        raise _bad(name, f"it holds no {ANSWERS}")
    return found[ANSWERS]


def _header(block: bytes, name: str) -> tuple[str, int]:
    """(name, size) from one header block: POSIX.1-2017, pax, `ustar Interchange Format`."""
    blanked = block[:148] + b" " * 8 + block[156:]
    if _octal(block[148:156]) != sum(blanked):
        raise EOFError("a header's checksum is wrong")
    member = block[:100].partition(b"\0")[0].decode("utf-8", "backslashreplace")
    if block[156:157] not in (b"0", b"\0") or member not in (ANSWERS, README) or block[345] != 0:
        raise _bad(name, f"it holds {member!r}, which no capture has", "capture.hostile")
    size = _octal(block[124:136])
    if size is None or size > MEMBER_LIMIT:
        raise _bad(name, f"{member} claims more than {MEMBER_LIMIT} bytes", "capture.hostile")
    return member, size


def _octal(field: bytes) -> int | None:
    digits = field.strip(b"\0 ")
    return int(digits, 8) if digits and not digits.strip(b"01234567") else None


def _exactly(stream: _Bounded, size: int) -> bytes:
    parts = []
    while size:
        parts.append(stream.read(size))
        if not parts[-1]:
            raise EOFError("the end is missing")
        size -= len(parts[-1])
    return b"".join(parts)


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


def _once(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    """An object whose keys differ: of two equal ones a reader sees one and the program the other."""
    found = dict(pairs)
    if len(found) != len(pairs):
        raise ValueError("it answers one question twice")
    return found


def from_document(document: dict[str, Any]) -> Answers:
    """The inverse of `to_document`. Raises KeyError, TypeError, ValueError for a wrong form."""
    runs = [(_items(run["argv"]), run["answer"]) for run in _list(document["runs"])]
    if not all(argv for argv, _ in runs) or len(dict(runs)) != len(runs):
        raise ValueError("a program without a name, or one asked twice")
    return Answers(
        {_path(path): _decode(value, _bytes_in) for path, value in document["reads"].items()},
        {_path(path): _decode(value, _items) for path, value in document["names"].items()},
        {_path(path): _decode(value, _string) for path, value in document["links"].items()},
        {_path(path): _decode(value, _room_in) for path, value in document["rooms"].items()},
        {argv: _decode(answer, _ran_in) for argv, answer in runs},
    )


def _decode(value: Any, into: Callable[[Any], Any]) -> Any:
    if isinstance(value, dict) and "none" in value:
        if value["none"] not in ("absent", "unreadable"):
            raise ValueError(f"{value['none']!r} is no way not to answer")
        return NoAnswer(value["none"] == "absent", _string(value["reason"]))
    return into(value)


def _bytes_in(value: Any) -> bytes:
    if isinstance(value, dict):
        return base64.b64decode(_string(value["base64"]), validate=True)
    return _string(value).encode()


def _room_in(value: Any) -> Room:
    total, free = map(_number, _list(value))
    if min(total, free) < 0:
        raise ValueError("less than no room")
    return Room(total, free)


def _ran_in(value: Any) -> Ran:
    code, stdout, stderr = _list(value)
    return Ran(_number(code), _string(stdout), _string(stderr))


def _items(value: Any) -> tuple[str, ...]:
    return tuple(map(_string, _list(value)))


def _list(value: Any) -> list[Any]:
    if not isinstance(value, list):
        raise TypeError(f"{value!r:.80} is not a list")
    return value


def _number(value: Any) -> int:
    """A whole number of 64 bits; JSON's true, 1.5, NaN and 1e999 are none."""
    if type(value) is not int or not -(2**63) <= value < 2**63:
        raise TypeError(f"{value!r:.80} is not a number that a host says")
    return value


def _path(value: str) -> str:
    if not value.startswith("/") or "\0" in value:
        raise ValueError(f"{value!r:.80} is no path")
    return _string(value)


def _string(value: Any) -> str:
    """A text; bytes of names that are not UTF-8 are lone surrogates in it (PEP 383), no other ones are."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r:.80} is not a text")
    value.encode("utf-8", "surrogateescape")
    return value


def _bad(name: str, reason: str, ref: str = "capture.unreadable") -> Failure:
    return Failure(
        ref,
        f"{name} was not read and nothing was changed: {reason}.",
        hint="Make a new one on that host with `pve-passthrough capture -o FILE`.",
    )
