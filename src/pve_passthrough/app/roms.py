"""Option ROMs: look at a file, mend it, take one from a card, give one to a guest's card.

1. A ROM file is a file of the machine that runs this program; the card and the guest are the host's.
2. Nothing that exists is overwritten.
3. A card's ROM window is closed again, whatever happens in between: the kernel shuts it for exactly two bytes, "0" and
   a line feed, and anything else leaves it open (drivers/pci/pci-sysfs.c, pci_write_rom).
4. A card in use is not read unless that is accepted by name: while the ROM is decoded, a card may not answer at its
   other addresses (PCI Local Bus Specification 3.0, 6.2.5.2), which is where its driver works.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import re
import stat
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host, HostError, Missing, text_or_none
from ..knowledge.rom_marks import Problem, Verdict, problems, verdict
from ..model.cards import processor_functions
from ..model.rom import SIZE_LIMIT, Form, Mended, Rom, VideoBios, mend, parse, parse_vfct
from ..model.value import dataclass
from ..model.vm import ROM_DIR
from . import HazardRefused, look, machine_of, may_change, now, resolve

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.pci import Device
    from ..model.plan import Plan

VFCT = "/sys/firmware/acpi/tables/VFCT"
SHADOW = 0xC0000
"""Where the firmware copies the boot display's ROM, and where the kernel then reads it: IORESOURCE_ROM_SHADOW, 128 KiB
(arch/x86/pci/fixup.c, pci_fixup_video)."""
IN_USE = "rom-in-use"
PLAN_LIMIT = 14 * 1024 * 1024
"""A plan is read back whole (at most 16 MiB), and a byte that is no ASCII takes six in it."""
_ID = re.compile(r"(?:0x)?([0-9a-fA-F]{4}):(?:0x)?([0-9a-fA-F]{4})")
_AMD = 0x1002


@dataclass(frozen=True, slots=True)
class Report:
    """What is known about one ROM. `wanted`: vendor and device that it was held against."""

    name: str
    size: int
    sha256: str
    rom: Rom
    verdict: Verdict
    problems: tuple[Problem, ...]
    wanted: tuple[int, int] | None = None

    @property
    def usable(self) -> bool:
        """Whether a guest has anything from it."""
        return self.verdict in (Verdict.USABLE, Verdict.LEGACY_ONLY)


@dataclass(frozen=True, slots=True)
class Fixed:
    """A mended file: `before` and `after` bytes were taken away."""

    report: Report
    out: str
    before: int
    after: int


@dataclass(frozen=True, slots=True)
class Dumped:
    """A ROM taken from a card. `source`: where it was read; `notes`: what to know about it."""

    report: Report
    out: str
    device: Device
    source: str
    notes: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Installing:
    """The plan that gives a ROM to a guest's card."""

    report: Report
    facts: Facts
    plan: Plan


# -- files -----------------------------------------------------------------------------------------


def check(host: Host | None, file: str, word: str | None = None) -> Report:
    """What the ROM file holds, and whether it is for the device that `word` names (an ID needs no host)."""
    found = report(file, read_file(file), _wanted(host, word))
    return replace(found, size=os.path.getsize(file)) if found.rom.form is Form.TOO_LARGE else found


def report(name: str, data: bytes, wanted: tuple[int, int] | None = None, *, checksums: bool = True) -> Report:
    import hashlib

    rom = parse(data)
    sha256 = "" if rom.form is Form.TOO_LARGE else hashlib.sha256(data).hexdigest()
    found = problems(rom, wanted, checksums=checksums)
    return Report(name, len(data), sha256, rom, verdict(rom), found, wanted)


def fix(file: str, out: str) -> Fixed:
    """The images alone, in a new file. Raises Failure when that cannot be proven right."""
    mended = mend(read_file(file))
    if not isinstance(mended, Mended):
        raise Failure(
            "rom.unmended", f"Nothing was written: {file} was not changed, because {mended}.",
            hint=f"pve-passthrough rom check {file}", code=Exit.REFUSED,
        )  # fmt: skip
    write_new(out, mended.data)
    return Fixed(report(out, mended.data), out, mended.before, mended.after)


def read_file(file: str) -> bytes:
    """A plain file's bytes, one more than the limit at most. Raises Failure."""
    try:
        handle = os.open(file, os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK)
        with os.fdopen(handle, "rb") as stream:
            if not stat.S_ISREG(os.fstat(handle).st_mode):
                raise OSError(errno.EINVAL, "no plain file")
            return stream.read(SIZE_LIMIT + 1)
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name that a file can have"
        raise Failure("rom.unreadable", f"Nothing was done: {file} could not be read ({reason}).") from error


def write_new(file: str, data: bytes) -> None:
    """A new file, whole or not at all. Raises Failure; a file that exists stays as it is."""
    exists = Failure(
        "rom.exists", f"Nothing was written: {file} exists.", hint="Choose another name.", code=Exit.REFUSED
    )
    if os.path.lexists(file):
        raise exists
    scratch = f"{file}.{os.getpid()}.new"
    try:
        with open(scratch, "xb", opener=lambda path, flags: os.open(path, flags, 0o644)) as stream:
            stream.write(data)
            stream.flush()
            os.fsync(stream.fileno())
        try:
            _appear(scratch, file)
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(scratch)
    except FileExistsError:
        raise exists from None
    except (OSError, ValueError) as error:
        reason = error.strerror if isinstance(error, OSError) else "no name that a file can have"
        raise Failure("rom.not-written", f"The ROM was not written: {file}: {reason}.") from error


def _appear(scratch: str, file: str) -> None:
    """Give the finished file its name; a second link, unlike a rename, never replaces a file of that name."""
    try:
        os.link(scratch, file)
    except FileExistsError:
        raise
    except OSError:  # a file system without links: the name was free a moment ago
        if os.path.lexists(file):
            raise FileExistsError(errno.EEXIST, os.strerror(errno.EEXIST), file) from None
        os.rename(scratch, file)


def _wanted(host: Host | None, word: str | None) -> tuple[int, int] | None:
    if word is None:
        return None
    if match := _ID.fullmatch(word):
        return int(match.group(1), 16), int(match.group(2), 16)
    if host is None:
        raise Failure("rom.no-host", f"Nothing was done: {word} needs a host to look it up.", code=Exit.USAGE)
    device = _function(look(host), word)
    return _identity(device)


def _identity(device: Device) -> tuple[int, int]:
    if device.vendor is None or device.product is None:
        raise Failure("rom.no-id", f"Nothing was done: the vendor and device ID of {device.address} are unknown.")
    return device.vendor, device.product


def _function(facts: Facts, word: str) -> Device:
    """The one function that is meant: the one named, else the card's display, else its first. Raises Failure."""
    addresses = resolve(facts, (word,))
    devices = [device for address in addresses if (device := facts.device(address)) is not None]
    if not devices:
        raise Failure("device.unknown", f"Nothing was done: {word} is not on this machine.", code=Exit.USAGE)
    cards = {device.address.slot for device in devices if device.is_display}
    if len(cards) > 1:
        raise Failure(
            "device.several", f"Nothing was done: {word} names more than one card.", *map(str, devices),
            hint="Name one of these addresses.", code=Exit.USAGE,
        )  # fmt: skip
    return next((device for device in devices if device.is_display), devices[0])


# -- taking a card's ROM -----------------------------------------------------------------------------


def dump(host: Host, word: str, out: str, *, source: str | None = None, accept: Iterable[str] = ()) -> Dumped:
    """Take the ROM of a card into a new file: from its window, or from the firmware's table VFCT.

    source  `card` or `vfct`; None: the table for AMD's graphics when it has them and the card offers no ROM of its own
    Raises Failure with nothing written.
    """
    may_change(host)
    if os.path.lexists(out):
        raise Failure("rom.exists", f"Nothing was read: {out} exists.", hint="Choose another name.", code=Exit.REFUSED)
    facts = look(host)
    device = _function(facts, word)
    if source == "vfct" or (source is None and _table_first(facts, device)):
        data, notes = _from_table(host, device, must=source == "vfct" or not device.option_rom)
        if data is not None:
            return _kept(device, VFCT, data, out, notes)
    data = _from_card(host, facts, device, frozenset(accept))
    place = f"/sys/bus/pci/devices/{device.address}/rom"
    return _kept(device, place, data, out, _shadow_notes(device))


def _kept(device: Device, source: str, data: bytes, out: str, notes: tuple[str, ...]) -> Dumped:
    found = report(out, data, _identity(device))
    if not found.rom.images:
        raise Failure(
            "rom.nothing", f"Nothing was written: what {source} gave for {device} is no option ROM.",
            *(problem.message for problem in found.problems), f"{found.size} bytes, beginning {data[:16].hex(' ')}",
            *notes, hint=_elsewhere(device),
        )  # fmt: skip
    write_new(out, data)
    return Dumped(found, out, device, source, notes)


def _elsewhere(device: Device) -> str:
    table = f"pve-passthrough rom dump {device.address} --source vfct -o FILE; or " if device.vendor == _AMD else ""
    return f"{table}take the ROM while another card is the boot display, or from the board maker's own file."


def shadowed(device: Device) -> bool:
    """The kernel shows the copy in memory instead of the card's own ROM."""
    return any(bar.index == 6 and bar.start == SHADOW for bar in device.bars or ())


def _shadow_notes(device: Device) -> tuple[str, ...]:
    if not shadowed(device):
        return ()
    return (
        f"{device.address} is the boot display: what can be read is the copy at {SHADOW:#x}, at most 128 KiB, "
        "which the firmware may have changed; a UEFI image is rarely in it.",
    )


def _table_first(facts: Facts, device: Device) -> bool:
    """Graphics in an AMD processor have no ROM chip; and what a boot display shows is a copy."""
    amd = device.vendor == _AMD and device.is_display
    return amd and (not device.option_rom or shadowed(device) or bool(processor_functions(facts, device)))


def _from_table(host: Host, device: Device, *, must: bool) -> tuple[bytes | None, tuple[str, ...]]:
    """The function's video BIOS in VFCT, None when the table has none for it and it need not."""
    try:
        table = host.read(VFCT)
    except HostError as error:
        if not must:
            return None, ()
        gone = isinstance(error, Missing)
        what = "this machine's firmware has no table VFCT" if gone else f"{VFCT} could not be read ({error.reason})"
        raise Failure(
            "rom.no-table", f"Nothing was written: {device} shows no ROM of its own, and {what}.",
            hint="The table is there when the firmware has started the graphics: switch them on in its setup, "
            "and boot in UEFI mode." if gone else "",
        ) from error  # fmt: skip
    found = parse_vfct(table)
    match = next((bios for bios in found if _is_for(bios, device)), None)
    if match is None and not must:
        return None, ()
    if match is None:
        has = [f"{one.bus:02x}:{one.device:02x}.{one.function:x} {one.vendor:04x}:{one.product:04x}" for one in found]
        raise Failure(
            "rom.not-in-table", f"Nothing was written: the table VFCT has no video BIOS for {device}.",
            *(f"{VFCT}: {line}" for line in has or ["no image that can be read"]),
        )  # fmt: skip
    return match.data, ("the firmware's copy in the ACPI table VFCT; the card itself was not touched",)


def _is_for(bios: VideoBios, device: Device) -> bool:
    """As the kernel compares (amdgpu_bios.c, amdgpu_acpi_vfct_bios); the table knows domain 0 alone."""
    here = (0, bios.bus, bios.device, bios.function) == tuple(device.address)
    return here and (bios.vendor, bios.product) == (device.vendor, device.product)


def _from_card(host: Host, facts: Facts, device: Device, accepted: frozenset[str]) -> bytes:
    """The bytes behind the card's ROM window. The kernel ends them with the last image it finds valid."""
    if device.option_rom is False:
        raise Failure(
            "rom.no-window", f"Nothing was written: {device} has no ROM window: its ROM is part of the machine's "
            "firmware, if it has one.", hint=_elsewhere(device),
        )  # fmt: skip
    _refuse_in_use(facts, device, accepted)
    home = f"/sys/bus/pci/devices/{device.address}"
    trouble: HostError | None = None
    data = b""
    undo: list[tuple[str, bytes]] = []
    try:
        _wake(host, device, undo)
        undo.append((f"{home}/rom", b"0\n"))
        host.write(f"{home}/rom", b"1\n")
        data = host.read(f"{home}/rom")
    except HostError as error:
        trouble = error
    finally:
        left = _put_back(host, undo)
    if left:
        raise Failure(
            "rom.left-open", f"Nothing was written, and {device.address} is not as it was before.", *left,
            *([str(trouble)] if trouble else []), hint="Write these values by hand, or restart the machine.",
        )  # fmt: skip
    if trouble is not None:
        raise _unread(device, trouble) from trouble
    return data


def _wake(host: Host, device: Device, undo: list[tuple[str, bytes]]) -> None:
    """A sleeping card answers nothing, and one that no driver has may not decode its memory.

    Sources: kernel, Documentation/ABI/testing/sysfs-devices-power (control); Documentation/PCI/sysfs-pci.rst (enable);
    pci-sysfs.c, enable_store: EBUSY while a driver has it.
    """
    home = f"/sys/bus/pci/devices/{device.address}"
    if (text_or_none(host, f"{home}/power/control") or "").strip() == "auto":
        undo.append((f"{home}/power/control", b"auto\n"))
        host.write(f"{home}/power/control", b"on\n")
    if device.driver == "" and (text_or_none(host, f"{home}/enable") or "").strip() == "0":
        host.write(f"{home}/enable", b"1\n")
        undo.append((f"{home}/enable", b"0\n"))


def _put_back(host: Host, undo: Sequence[tuple[str, bytes]]) -> list[str]:
    """Every change in the opposite order; what could not be put back, in words."""
    left = []
    for path, text in reversed(undo):
        try:
            host.write(path, text)
        except Missing:
            continue  # it could not be opened in the first place
        except HostError as error:
            left.append(f"{path}: should be {text.decode().strip()} ({error.reason})")
    return left


def _refuse_in_use(facts: Facts, device: Device, accepted: frozenset[str]) -> None:
    users = [guest for guest in facts.guests or () if any(device.address in one.addresses for one in guest.hostpci)]
    running = [guest for guest in users if guest.running]
    if running:
        raise Failure(
            "rom.guest-runs", f"Nothing was read: {running[0].name} ({running[0].vmid}) runs with {device}.",
            "a card may not answer its driver while its ROM is being read",
            hint=f"qm shutdown {running[0].vmid}", code=Exit.REFUSED,
        )  # fmt: skip
    unsure = [guest.vmid for guest in users if guest.running is None and guest.node == facts.pve.node]
    if (device.driver in ("", "vfio-pci") and not unsure) or IN_USE in accepted:
        return
    who = (
        f"whether guest {unsure[0]} runs with it is unknown" if unsure else f"the driver {device.driver or '?'} has it"
    )
    refusal = HazardRefused(
        "rom.in-use", f"Nothing was read: {device} is in use: {who}.",
        "a card may not answer its driver while its ROM is being read: the picture can freeze, the driver can fail",
        hint=f"Claim the card for guests first, or name the hazard: --accept {IN_USE}", code=Exit.REFUSED,
    )  # fmt: skip
    refusal.names = (IN_USE,)
    raise refusal


def _unread(device: Device, error: HostError) -> Failure:
    """What the kernel's refusals mean (drivers/pci/pci-sysfs.c, pci_read_rom; drivers/pci/rom.c, pci_map_rom)."""
    why = {
        os.strerror(errno.EIO): (
            "no address for the ROM, or no image at its beginning: the kernel's log then has `Invalid PCI ROM header "
            "signature`", "ffff there means that nothing answered: the card sleeps, or its ROM is switched off",
            *_shadow_notes(device),
        ),
        os.strerror(errno.EACCES): ("only root may read it",),
    }.get(error.reason, ())  # fmt: skip
    if isinstance(error, Missing):
        why = ("the card has no ROM window: its ROM is part of the machine's firmware, if it has one",)
    return Failure(
        "rom.unread", f"Nothing was written: the ROM of {device} could not be read, and the card is as it was before.",
        str(error), *why, hint=_elsewhere(device),
    )  # fmt: skip


# -- giving a ROM to a guest -------------------------------------------------------------------------


def plan_install(
    host: Host, file: str, word: str, vmid: int, *, name: str | None = None, accept: Iterable[str] = ()
) -> Installing:
    """The plan that lays the file down for Proxmox VE and names it in the guest's entry. Raises Failure."""
    from ..planning import romfiles

    data = read_file(file)
    chosen = name or os.path.basename(file)
    if not romfiles.NAME.fullmatch(chosen):
        raise Failure(
            "rom.bad-name", f"Nothing was planned: {chosen!r} cannot be the file's name in {ROM_DIR}.",
            hint="Letters, digits and . _ - + ( ) only: --name NAME.", code=Exit.USAGE,
        )  # fmt: skip
    facts = look(host)
    device = _function(facts, word)
    found = report(file, data, _identity(device))
    _refuse_marks(found, frozenset(accept))
    text = data.decode("utf-8", "surrogateescape")
    if len(json.dumps(text)) > PLAN_LIMIT:
        raise Failure(
            "rom.plan-too-large", f"Nothing was planned: a plan could not hold the {len(data)} bytes of {file}.",
            hint=f"Try `pve-passthrough rom fix`, or copy it to {ROM_DIR} by hand.",
        )  # fmt: skip
    made = romfiles.install(
        facts, device, vmid, chosen, text, _standing(host, chosen), found.rom,
        now=now(), machine=machine_of(host),
    )  # fmt: skip
    return Installing(found, facts, made)


def _standing(host: Host, name: str) -> str | None:
    try:
        host.names(ROM_DIR)
        return text_or_none(host, f"{ROM_DIR}/{name}")
    except HostError as error:
        raise Failure(
            "rom.no-directory", f"Nothing was planned: what lies in {ROM_DIR} could not be told.", str(error)
        ) from error


def _refuse_marks(found: Report, accepted: frozenset[str]) -> None:
    """A file that does nothing in a guest is refused; what can be taken on is taken on by its name."""
    fatal = [one for one in found.problems if one.blocks and not one.mark.hazard]
    if fatal:
        fixable = found.verdict is Verdict.FIXABLE
        raise Failure(
            f"rom.{fatal[0].mark.name}", f"Nothing was planned: {found.name} is of no use to a guest.",
            *(problem.message for problem in fatal),
            hint=f"pve-passthrough rom fix {found.name} -o NEWFILE" if fixable else "", code=Exit.BLOCKED,
        )  # fmt: skip
    open_ones = [one for one in found.problems if one.mark.hazard and one.mark.hazard not in accepted]
    if open_ones:
        names = tuple(sorted({one.mark.hazard for one in open_ones}))
        refusal = HazardRefused(
            f"rom.{open_ones[0].mark.name}", f"Nothing was planned. {open_ones[0].message}",
            *(one.message for one in open_ones[1:]), code=Exit.REFUSED,
            hint=f"If that is what you want, name it: {' '.join(f'--accept {one}' for one in names)}",
        )  # fmt: skip
        refusal.names = names
        raise refusal
