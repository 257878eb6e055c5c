"""Reading and writing cells: named places whose content is text.

1. One literal table, `KINDS`, says for each kind how it is read, written and compared. Nothing here knows why a cell is
   changed, or anything about passthrough.
2. Reading changes nothing. A place that cannot be read is a `Failure` (`cell.unreadable`), never a guess, never None:
   None means that the host answered "there is nothing".
3. A write either happens or raises a `Failure` (`cell.write`); the caller reads back. Commands appear here only as the
   inside of a cell's write and are judged by their exit status.
4. A write that takes several steps names the texts that may be seen between them (`CellKind.between`), so that a
   process killed half-way can be told apart from somebody else's edit.
5. Names come from a plan that lay on a disk: each kind checks the form of its names before it touches a path.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from ..errors import Exit, Failure
from ..host.base import Host, HostError, Missing, Ran, Unreadable, read_text, text_or_none, to_bytes
from ..model.ct import parse_ct, same_device
from ..model.pci import Address
from ..model.plan import Cell, Change
from ..model.texts import split_argument, split_cmdline
from ..model.vm import digest_of, parse_config, same_options
from . import virtual

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
NODES = "/etc/pve/nodes"
SHUTDOWN_SECONDS = 180
TAIL = 6
"""Lines of a program's last words that a problem shows."""


@dataclass(frozen=True, slots=True)
class CellKind:
    """How one kind of cell is handled.

    name     form of a cell's name
    read     (host, name) -> text or None; may raise HostError
    write    (host, name, now, after) -> a note for the journal, empty in the ordinary case; None: read only
    same     whether two texts mean the same
    between  texts that an interrupted write of ours may leave behind
    """

    name: re.Pattern[str]
    read: Callable[[Host, str], str | None]
    write: Callable[[Host, str, str | None, str | None], str] | None
    same: Callable[[str | None, str | None], bool]
    between: tuple[str | None, ...] = ()


def read_cell(host: Host, cell: Cell) -> str | None:
    """The cell's text now, None when there is nothing. Raises Failure `cell.unknown`, `cell.unreadable`."""
    kind = _kind(cell)
    try:
        return kind.read(host, cell.name)
    except HostError as error:
        message = f"nothing was changed: the present content of {cell} could not be read"
        hint = "make it readable, then run the same again"
        raise Failure("cell.unreadable", message, str(error), hint=hint) from error


def write_cell(host: Host, cell: Cell, now: str | None, after: str | None) -> str:
    """Give the cell the text `after` (None: remove it); `now` is what was just read.

    Returns a note worth recording, usually empty. Raises Failure `cell.unknown`, `cell.write`.
    """
    kind = _kind(cell)
    if kind.write is None:
        raise Failure("cell.unknown", f"{cell} can be read and not written", code=Exit.REFUSED)
    try:
        return kind.write(host, cell.name, now, after)
    except _Refusal as refusal:
        raise Failure("cell.write", f"{cell} could not be written: {refusal}", *refusal.lines) from refusal
    except HostError as error:
        raise Failure("cell.write", f"{cell} could not be written: {error.reason}", str(error)) from error


def same_text(cell: Cell, left: str | None, right: str | None) -> bool:
    """Whether two texts of this cell mean the same."""
    return _kind(cell).same(left, right)


def may_be_between(cell: Cell, text: str | None, change: Change | None = None) -> bool:
    """Whether an interrupted write of ours (this change's, where it is known) can have left this text."""
    if cell.kind == "sriov":
        return virtual.between(text, *((change.before, change.after) if change else ()))
    return text in _kind(cell).between or (cell.name.endswith("/sriov_numvfs") and text == "0")


def _kind(cell: Cell) -> CellKind:
    kind = KINDS.get(cell.kind)
    if kind is None or kind.name.fullmatch(cell.name) is None or "/../" in f"{cell.name}/":
        raise Failure("cell.unknown", f"nothing was changed: {str(cell)!r} is not a place that can be read or written")
    return kind


class _Refusal(Exception):
    """A command inside a cell's write said no; `lines` are its last words."""

    def __init__(self, reason: str, lines: Sequence[str] = ()) -> None:
        super().__init__(reason)
        self.lines = tuple(lines)


def last_words(ran: Ran) -> tuple[str, ...]:
    """The last lines that a program said, errors preferred."""
    said = ran.stderr.strip() or ran.stdout.strip()
    return tuple(line.rstrip() for line in said.splitlines()[-TAIL:])


def _command(host: Host, argv: Sequence[str], timeout: float = 120.0) -> Ran:
    """Run one command of a write; any status but 0 is a refusal (pvesh: 2, 11, 17, 25 and 255 were recorded)."""
    ran = host.run(argv, timeout=timeout)
    if not ran.ok:
        raise _Refusal(f"{argv[0]} ended with status {ran.rc}", (f"$ {' '.join(argv)}", *last_words(ran)))
    return ran


def _equal(left: str | None, right: str | None) -> bool:
    return left == right


# -- files and directories -----------------------------------------------------------------------


def _write_file(host: Host, name: str, now: str | None, after: str | None) -> str:
    host.write(name, None if after is None else to_bytes(after))
    return ""


def _write_script(host: Host, name: str, now: str | None, after: str | None) -> str:
    host.write(name, None if after is None else to_bytes(after), 0o755)
    return ""


def _read_directory(host: Host, name: str) -> str | None:
    try:
        host.names(name.rstrip("/") or "/")
    except Missing:
        return None
    return "directory"


def _write_directory(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Removing leaves a directory that has become somebody else's home alone, and says so."""
    path = name.rstrip("/")
    if after is not None:
        host.make_dir(path)
        return ""
    if others := host.names(path):
        return f"{path} stays: it holds {', '.join(others[:4])}"
    host.remove_dir(path)
    return ""


# -- PCI drivers and kernel attributes -------------------------------------------------------------


def _read_driver(host: Host, name: str) -> str | None:
    """Driver name; empty when the device is there and bound to nothing."""
    address = str(Address.parse(name))
    try:
        return host.link(f"{DEVICES}/{address}/driver").rpartition("/")[2]
    except Missing:
        host.names(f"{DEVICES}/{address}")
        return ""


def _write_driver(host: Host, name: str, now: str | None, after: str | None) -> str:
    """driver_override admits one driver alone, drivers_probe lets it bind; the override is put back afterwards.

    Source: kernel, Documentation/ABI/testing/sysfs-bus-pci (driver_override: does not unbind or bind by itself, a lone
    newline clears it). vfio-pci's new_id is not used: it would take every device with the same ids.
    """
    address = str(Address.parse(name))
    override = f"{DEVICES}/{address}/driver_override"
    if now:
        host.write(f"{DRIVERS}/{now}/unbind", to_bytes(address))
    if not after:
        return ""
    _load_driver(host, after)
    original = (text_or_none(host, override) or "").strip()
    host.write(override, to_bytes(f"{after}\n"))
    host.write("/sys/bus/pci/drivers_probe", to_bytes(address))
    ours = original in ("", "(null)", now, after)
    host.write(override, to_bytes("\n" if ours else f"{original}\n"))
    return ""


def _load_driver(host: Host, driver: str) -> None:
    try:
        host.names(f"{DRIVERS}/{driver}")
    except Missing:
        _command(host, ("modprobe", driver))


def _read_attribute(host: Host, name: str) -> str | None:
    text = text_or_none(host, name)
    return None if text is None else text.strip()


def _write_attribute(host: Host, name: str, now: str | None, after: str | None) -> str:
    """A number of virtual functions only changes by way of 0 (kernel, drivers/pci/iov.c: else EBUSY)."""
    if after is None:
        raise _Refusal("a kernel attribute cannot be removed")
    if name.endswith("/sriov_numvfs") and "0" not in (now, after):
        host.write(name, b"0\n")
    host.write(name, to_bytes(f"{after}\n"))
    return ""


def _same_stripped(left: str | None, right: str | None) -> bool:
    return (left if left is None else left.strip()) == (right if right is None else right.strip())


# -- guests ------------------------------------------------------------------------------------------


def _guest(host: Host, vmid: str) -> tuple[str, str]:
    """Node and configuration text of a guest. Raises Missing when no node has it."""
    for node in host.names(NODES):
        text = text_or_none(host, f"{NODES}/{node}/qemu-server/{vmid}.conf")
        if text is not None:
            return node, text
    raise Missing(f"{NODES}/*/qemu-server/{vmid}.conf", f"there is no guest {vmid}")


def _value(text: str, key: str) -> str | None:
    """What the next start will see: pending over active."""
    active, pending, deleting = parse_config(text)
    if key in pending:
        return pending[key]
    return None if key in deleting else active.get(key)


def _read_option(host: Host, name: str) -> str | None:
    vmid, _, key = name.partition("/")
    return _value(_guest(host, vmid)[1], key)


def _write_option(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Compare and set by Proxmox' digest. An edit of other keys by others changes the digest too: then look again.

    Source: recorded exchanges with PVE 8.4 and 9.2: the digest is the SHA-1 of the file's text, a wrong one gives
    status 255 and "checksum mismatch"; deleting an option that is not set ends with 0.
    """
    vmid, _, key = name.partition("/")
    for attempt in (1, 2, 3):
        node, text = _guest(host, vmid)
        if not same_options(_value(text, key), now):
            raise _Refusal("somebody changed it at this moment", (f"{key}: {_value(text, key)}",))
        words = ("--delete", key) if after is None else (f"--{key}", after)
        argv = ("pvesh", "set", f"/nodes/{node}/qemu/{vmid}/config", *words, "--digest", digest_of(text))
        ran = host.run(argv, timeout=120.0)
        if ran.ok:
            return ""
        if attempt == 3 or "checksum mismatch" not in ran.stderr:
            raise _Refusal(f"pvesh ended with status {ran.rc}", (f"$ {' '.join(argv)}", *last_words(ran)))
    return ""


# -- containers --------------------------------------------------------------------------------------


def _container(host: Host, number: str) -> tuple[str, str]:
    """Node and configuration text of a container. Raises Missing when no node has it."""
    for node in host.names(NODES):
        text = text_or_none(host, f"{NODES}/{node}/lxc/{number}.conf")
        if text is not None:
            return node, text
    raise Missing(f"{NODES}/*/lxc/{number}.conf", f"there is no container {number}")


def _container_value(text: str, key: str) -> str | None:
    """What the next start will see: pending over active."""
    active, _, pending, deleting = parse_ct(text)
    if key in pending:
        return pending[key]
    return None if key in deleting else active.get(key)


def _read_entry(host: Host, name: str) -> str | None:
    number, _, key = name.partition("/")
    return _container_value(_container(host, number)[1], key)


def _write_entry(host: Host, name: str, now: str | None, after: str | None) -> str:
    """As for a guest's option: compare and set by the digest, the SHA-1 of the file's text (pve-container,
    PVE/LXC/Config.pm, parse_pct_config; PVE/API2/LXC/Config.pm, update_vm)."""
    number, _, key = name.partition("/")
    for attempt in (1, 2, 3):
        node, text = _container(host, number)
        if not same_device(_container_value(text, key), now):
            raise _Refusal("somebody changed it at this moment", (f"{key}: {_container_value(text, key)}",))
        words = ("--delete", key) if after is None else (f"--{key}", after)
        argv = ("pvesh", "set", f"/nodes/{node}/lxc/{number}/config", *words, "--digest", digest_of(text))
        ran = host.run(argv, timeout=120.0)
        if ran.ok:
            return ""
        if attempt == 3 or "checksum mismatch" not in ran.stderr:
            raise _Refusal(f"pvesh ended with status {ran.rc}", (f"$ {' '.join(argv)}", *last_words(ran)))
    return ""


def _read_node(host: Host, name: str) -> str | None:
    """The last PCI function on the way to the device (kernel, Documentation/ABI/testing/sysfs-dev); None: no node."""
    ran = host.run(("stat", "-L", "-c", "%t:%T", "--", name), timeout=30.0)
    if not ran.ok:
        return None
    try:
        major, minor = (int(part, 16) for part in ran.stdout.strip().split(":"))
    except ValueError as error:
        raise Unreadable(f"stat {name}", f"no numbers: {ran.stdout[:60]!a}") from error
    try:
        places = host.link(f"/sys/dev/char/{major}:{minor}").split("/")
    except Missing:
        return ""
    return next((place for place in reversed(places) if _ADDRESS.fullmatch(place)), "")


def _read_state(host: Host, name: str) -> str | None:
    """`qm status`: anything but stopped (prelaunch, paused, internal-error were recorded) is a QEMU that runs."""
    ran = host.run(("qm", "status", name), timeout=60.0)
    word = ran.stdout.strip().removeprefix("status:").strip()
    if not ran.ok or not word:
        raise Unreadable(f"qm status {name}", "; ".join(last_words(ran)) or f"status {ran.rc}")
    return "stopped" if word == "stopped" else "running"


def _write_state(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Start, or ask the guest to shut down; a guest that does not listen is left running and reported."""
    if after not in ("running", "stopped"):
        raise _Refusal(f"{after!r} is not a state of a guest")
    if after == "running":
        _command(host, ("qm", "start", name), timeout=600.0)
    else:
        _command(host, ("qm", "shutdown", name, "--timeout", str(SHUTDOWN_SECONDS)), timeout=SHUTDOWN_SECONDS + 60.0)
    for _ in range(10):
        if _read_state(host, name) == after:
            break
        time.sleep(1.0)
    return ""


# -- units ------------------------------------------------------------------------------------------


def _read_unit(host: Host, name: str) -> str | None:
    """`enabled` or `disabled`; a unit that is not there is as disabled as it can be. Other words are told verbatim."""
    ran = host.run(("systemctl", "is-enabled", name), timeout=30.0)
    word = ran.stdout.strip()
    if word in ("", "not-found") and ("No such file" in ran.stderr or "not found" in ran.stderr or word):
        return "disabled"
    if not word:
        raise Unreadable(f"systemctl is-enabled {name}", "; ".join(last_words(ran)) or f"status {ran.rc}")
    return word


def _write_unit(host: Host, name: str, now: str | None, after: str | None) -> str:
    verbs = {"enabled": "enable", "disabled": "disable"}
    if after not in verbs:
        raise _Refusal(f"{after!r} is not a state of a unit that we set")
    _command(host, ("systemctl", verbs[after], name))
    return ""


# -- cluster resource mappings -------------------------------------------------------------------------


def canonical_mapping(text: str) -> str:
    """`map` lines in order (the first free one wins), their properties sorted, then the other lines sorted."""
    maps: list[str] = []
    others: list[str] = []
    for line in filter(None, map(str.strip, text.splitlines())):
        word, _, rest = line.partition(" ")
        if word == "map":
            maps.append(f"map {','.join(sorted(rest.strip().split(',')))}")
        else:
            others.append(f"{word} {rest.strip()}")
    return "\n".join([*maps, *sorted(others)])


def _mapping_section(text: str, name: str) -> str | None:
    """The body of one section: a header at the margin, then indented lines up to a blank one."""
    body: list[str] | None = None
    inside = False
    for line in text.splitlines():
        if not line.strip():
            inside = False
        elif not line[0].isspace():
            inside = line.strip().rpartition(":")[2].strip() == name
            body = [] if inside else body
        elif inside and body is not None:
            body.append(line.strip())
    return None if body is None else canonical_mapping("\n".join(body))


def _mapping_file(host: Host, kind: str) -> str:
    return text_or_none(host, f"/etc/pve/mapping/{kind}.cfg") or ""


def _read_mapping(host: Host, name: str) -> str | None:
    kind, _, entry = name.partition("/")
    return _mapping_section(_mapping_file(host, kind), entry)


def _same_mapping(left: str | None, right: str | None) -> bool:
    if left is None or right is None:
        return left == right
    return canonical_mapping(left) == canonical_mapping(right)


def _write_mapping(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Through the cluster's API, compared and set by the digest of the whole file where the API takes one.

    PUT takes a digest; POST refuses a name that is there; DELETE has neither (API schema of 8.4 and 9.2), so the text
    is looked at again right before. A wrong digest gives "detected modified configuration" (recorded row `map-705`):
    then look again, since somebody may have changed another mapping of the file.
    """
    kind, _, entry = name.partition("/")
    for attempt in (1, 2, 3):
        text = _mapping_file(host, kind)
        there = _mapping_section(text, entry)
        if not _same_mapping(there, now):
            raise _Refusal("somebody changed it at this moment", tuple((there or "it is gone").splitlines()))
        argv = _mapping_command(kind, entry, now, after, digest_of(text))
        ran = host.run(argv, timeout=120.0)
        if ran.ok:
            return ""
        if attempt == 3 or "detected modified configuration" not in ran.stderr:
            raise _Refusal(f"pvesh ended with status {ran.rc}", (f"$ {' '.join(argv)}", *last_words(ran)))
    return ""


def _mapping_command(kind: str, entry: str, now: str | None, after: str | None, digest: str) -> tuple[str, ...]:
    path = f"/cluster/mapping/{kind}"
    if after is None:
        return "pvesh", "delete", f"{path}/{entry}"
    if now is None:
        return "pvesh", "create", path, "--id", entry, *_mapping_words(after)
    gone = sorted(_mapping_keys(now) - _mapping_keys(after))
    dropped = ("--delete", ",".join(gone)) if gone else ()
    return "pvesh", "set", f"{path}/{entry}", *_mapping_words(after), *dropped, "--digest", digest


def _mapping_words(text: str) -> list[str]:
    words: list[str] = []
    for line in filter(None, text.splitlines()):
        key, _, value = line.strip().partition(" ")
        words += [f"--{key}", value]
    return words


def _mapping_keys(text: str) -> set[str]:
    return {line.strip().partition(" ")[0] for line in text.splitlines() if line.strip()} - {"map"}


# -- settings of functions that a udev rule of ours repeats at every boot ------------------------------


def _read_setting(host: Host, name: str) -> str | None:
    """The attribute's text; of `reset_method` what the kernel would carry out.

    A bus is reset for one function alone only when no other lies on it, yet function 0 of a card shows `bus`: it was
    asked before the others were found. Written back, `bus` would be refused (kernel: drivers/pci/pci.c,
    pci_parent_bus_reset; drivers/pci/pci-sysfs.c, reset_method_store), so it is left out where it means nothing.
    """
    address, _, attribute = name.partition("/")
    text = _read_attribute(host, f"{DEVICES}/{address}/{attribute}")
    if text is None or attribute != "reset_method" or "bus" not in text.split():
        return text
    slot = Address.parse(address).slot
    alone = sum(other.startswith(f"{slot}.") for other in host.names(DEVICES)) == 1
    return text if alone else " ".join(method for method in text.split() if method != "bus")


def _write_setting(host: Host, name: str, now: str | None, after: str | None) -> str:
    """No method at all is not written as such, which would forbid every reset; `default` lets the kernel look again."""
    address, _, attribute = name.partition("/")
    if after is None:
        raise _Refusal("a kernel attribute cannot be removed")
    host.write(f"{DEVICES}/{address}/{attribute}", to_bytes(f"{after or 'default'}\n"))
    return ""


# -- modules that DKMS builds ----------------------------------------------------------------------------

_DKMS_LINE = re.compile(r"[^/,]+(?:/|, )([^,:]+)(?:, ([^,]+), [^:]+)?: (\w+)")
"""`vendor-reset/0.1.1, 6.14.8-2-pve, x86_64: installed`; before DKMS 2.8.6 a comma stood for the slash."""


def _read_dkms(host: Host, name: str) -> str | None:
    """The state for the running kernel; DKMS says nothing and ends with 0 for what it does not know (dkms(8))."""
    module, _, version = name.partition("/")
    ran = host.run(("dkms", "status", "-m", module, "-v", version), timeout=60.0)
    if not ran.ok:
        raise Unreadable("dkms status", "; ".join(last_words(ran)) or f"status {ran.rc}")
    found = [match.groups() for line in ran.stdout.splitlines() if (match := _DKMS_LINE.match(line.strip()))]
    release = read_text(host, "/proc/sys/kernel/osrelease").strip()
    states = [state for said, kernel, state in found if said == version and kernel in (None, release)]
    if states:
        return states[-1]
    return "added" if found else None


def _write_dkms(host: Host, name: str, now: str | None, after: str | None) -> str:
    """Adding, building and installing are one command; the way back is a removal and, if need be, adding again."""
    module, _, version = name.partition("/")
    which = ("-m", module, "-v", version)
    if after == "installed":
        _command(host, ("dkms", "install", *which), timeout=1800.0)
    elif after is None:
        _command(host, ("dkms", "remove", *which, "--all"), timeout=300.0)
    elif after == "added":
        release = read_text(host, "/proc/sys/kernel/osrelease").strip()
        _command(host, ("dkms", "remove", *which, "-k", release), timeout=300.0)
        if _read_dkms(host, name) is None:  # the last kernel's removal takes the whole record along (dkms(8))
            _command(host, ("dkms", "add", *which))
    elif after == "built":
        _command(host, ("dkms", "uninstall", *which), timeout=300.0)
    else:
        raise _Refusal(f"{after!r} is not a state that DKMS can be given")
    return ""


# -- read only ---------------------------------------------------------------------------------------


def _read_argument(host: Host, name: str) -> str | None:
    """The last token called `name` (`intel_iommu` finds `intel_iommu=on`); a name with `=` is looked for whole."""
    tokens = split_cmdline(read_text(host, "/proc/cmdline"))
    if "=" in name:
        return name if name in tokens else None
    wanted = split_argument(name)[0]
    return next((token for token in reversed(tokens) if split_argument(token)[0] == wanted), None)


def _read_group(host: Host, name: str) -> str | None:
    device = f"{DEVICES}/{Address.parse(name)}"
    try:
        return host.link(f"{device}/iommu_group").rpartition("/")[2]
    except Missing:
        host.names(device)
        return None


def _read_bar(host: Host, name: str) -> str | None:
    """The size that the kernel gave the BAR; None: it has none. Lines of `resource` are `start end flags`."""
    address, _, index = name.partition("/")
    line = (read_text(host, f"{DEVICES}/{address}/resource").split("\n") + [""] * 6)[int(index)]
    try:
        start, end = (int(word, 16) for word in line.split()[:2])
    except ValueError as error:
        raise Unreadable(f"{DEVICES}/{address}/resource", f"not a line of the kernel's: {line[:60]!a}") from error
    size = end - start + 1 if end > start else 0
    return (f"{size >> 30}G" if size and size % (1 << 30) == 0 else f"{size >> 20}M") if size else None


def _read_iommu(host: Host, name: str) -> str | None:
    """Proxmox' own test: /sys/class/iommu is not empty."""
    try:
        return "on" if host.names("/sys/class/iommu") else "off"
    except Missing:
        host.names("/sys/class")
        return "off"


_PATH = re.compile(r"/[^\0\n]+")
_ADDRESS = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")
_SETTING = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]/(reset_method|d3cold_allowed)")
_DKMS = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.-]*/[A-Za-z0-9][A-Za-z0-9_+.~-]*")
_VMID = r"[1-9][0-9]{2,8}"
_ENTRY = re.compile(rf"{_VMID}/dev([0-9]|[1-9][0-9]|[12][0-9]{{2}})")

KINDS: dict[str, CellKind] = {
    "file": CellKind(_PATH, text_or_none, _write_file, _equal),
    "script": CellKind(_PATH, text_or_none, _write_script, _equal),
    "dir": CellKind(_PATH, _read_directory, _write_directory, _equal),
    "driver": CellKind(_ADDRESS, _read_driver, _write_driver, _equal, between=("",)),
    "sysfs": CellKind(re.compile(r"/sys/[^\0\n]+"), _read_attribute, _write_attribute, _same_stripped),
    "vm": CellKind(re.compile(rf"{_VMID}/[a-z][a-z_]*[0-9]*"), _read_option, _write_option, same_options),
    "ct": CellKind(_ENTRY, _read_entry, _write_entry, same_device),
    "vmstate": CellKind(re.compile(_VMID), _read_state, _write_state, _equal),
    "unit": CellKind(re.compile(r"[A-Za-z0-9][A-Za-z0-9:_.@-]*"), _read_unit, _write_unit, _equal),
    "mapping": CellKind(re.compile(r"(pci|usb)/[A-Za-z][A-Za-z0-9_-]+"), _read_mapping, _write_mapping, _same_mapping),
    "pci": CellKind(_SETTING, _read_setting, _write_setting, _same_stripped),
    "sriov": CellKind(_ADDRESS, virtual.read, virtual.write, virtual.same),
    "dkms": CellKind(_DKMS, _read_dkms, _write_dkms, _equal, between=(None, "added", "built")),
    "arg": CellKind(re.compile(r"\S+"), _read_argument, None, _equal),
    "bar": CellKind(re.compile(rf"{_ADDRESS.pattern}/[0-5]"), _read_bar, None, _equal),
    "group": CellKind(_ADDRESS, _read_group, None, _equal),
    "node": CellKind(re.compile(r"/dev/[^\0\n]+"), _read_node, None, _equal),
    "iommu": CellKind(re.compile(r""), _read_iommu, None, _equal),
}
