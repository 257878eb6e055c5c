"""What QEMU and a guest's firmware make of an option ROM: problems as rows, with a source each, and one word for all.

Verdicts

usable       firmware of a UEFI guest finds a driver in it
legacy-only  whole, and for SeaBIOS only; the video BIOS of an AMD processor is usually so
fixable      of no use as it is; `rom fix` makes a usable or legacy-only one of it
truncated    a part is missing
unusable     no ROM, or none that a guest on x86-64 can use

QEMU itself looks at nothing but the size: it gives the guest any bytes, padded to a power of two (hw/pci/pci.c,
pci_add_option_rom), and with a romfile it never reads the card's own ROM (hw/vfio/pci.c, vfio_pci_size_rom).
"""

from __future__ import annotations

from collections.abc import Iterator
from enum import Enum

from ..model.finding import Level
from ..model.rom import CODE_TYPES, LEGACY, MACHINES, SIZE_LIMIT, Form, Image, Rom
from ..model.value import dataclass

NO_DEVICE = frozenset({0x0000, 0xFFFF})
"""Device IDs that tools write when they know none; seen in published ROM files of Intel and AMD drivers."""


class Verdict(Enum):
    USABLE = "usable"
    LEGACY_ONLY = "legacy-only"
    FIXABLE = "fixable"
    TRUNCATED = "truncated"
    UNUSABLE = "unusable"


@dataclass(frozen=True, slots=True)
class Mark:
    """A kind of problem. `hazard`: what `--accept` takes to install such a file all the same."""

    name: str
    level: Level
    source: str
    hazard: str = ""


_QEMU = "QEMU, hw/pci/pci.c, pci_add_option_rom"
_EDK2 = "edk2, MdeModulePkg/Bus/Pci/PciBusDxe/PciOptionRomSupport.c"
_SEABIOS = "SeaBIOS, src/optionroms.c"
_PCI = "PCI Firmware Specification 3.0, 5.1"
_UEFI = "UEFI Specification 2.8, 14.4.2"

MARKS = (
    Mark("empty", Level.BLOCKS, _QEMU),
    Mark("all-zero", Level.BLOCKS, _PCI),
    Mark("all-ones", Level.BLOCKS, _PCI),
    Mark("too-large", Level.BLOCKS, "PCI Local Bus Specification 3.0, 6.2.5.2"),
    Mark("efi-program", Level.BLOCKS, _UEFI),
    Mark("no-data-structure", Level.BLOCKS, "kernel, drivers/pci/rom.c, pci_get_rom_size"),
    Mark("no-rom", Level.BLOCKS, "kernel, drivers/pci/rom.c, pci_get_rom_size"),
    Mark("prefix", Level.BLOCKS, _EDK2),
    Mark("several", Level.BLOCKS, _PCI),
    Mark("cut", Level.BLOCKS, _PCI),
    Mark("unfinished", Level.BLOCKS, _PCI, "rom-unfinished"),
    Mark("no-x86", Level.BLOCKS, _UEFI),
    Mark("checksum", Level.HARMS, _SEABIOS, "rom-checksum"),
    Mark("other-device", Level.HARMS, _SEABIOS, "rom-other-device"),
    Mark("no-device", Level.NOTE, _SEABIOS),
    Mark("sibling", Level.NOTE, _SEABIOS),
    Mark("no-uefi", Level.NOTE, _EDK2),
    Mark("no-legacy", Level.NOTE, _SEABIOS),
    Mark("trailing", Level.NOTE, _PCI),
)
_MARKS = {mark.name: mark for mark in MARKS}


@dataclass(frozen=True, slots=True)
class Problem:
    """What is wrong, or worth knowing, with one file."""

    mark: Mark
    message: str

    @property
    def blocks(self) -> bool:
        return self.mark.level is Level.BLOCKS


def problems(rom: Rom, wanted: tuple[int, int] | None = None, *, checksums: bool = True) -> tuple[Problem, ...]:
    """Everything that can be said, worst first. `wanted`: vendor and device that the ROM shall serve.

    `checksums` off: the file holds the headers alone, so that its sums mean nothing.
    """
    found = [*_formless(rom), *_incomplete(rom), *_contents(rom, checksums), *_identity(rom, wanted)]
    order = (Level.BLOCKS, Level.HARMS, Level.NOTE)
    made = (Problem(_MARKS[name], message) for name, message in found)
    return tuple(sorted(made, key=lambda problem: order.index(problem.mark.level)))


def verdict(rom: Rom) -> Verdict:
    """One word for the file."""
    if rom.cut or rom.unfinished:
        return Verdict.TRUNCATED
    if not rom.images or not (rom.uefi or rom.legacy):
        return Verdict.UNUSABLE
    if rom.prefix:
        return Verdict.FIXABLE if rom.alone or rom.nvidia else Verdict.UNUSABLE
    return Verdict.USABLE if rom.uefi else Verdict.LEGACY_ONLY


_Found = Iterator[tuple[str, str]]

_FORMS = {
    Form.EMPTY: ("empty", "The file is empty: QEMU refuses it, and the guest does not start."),
    Form.ZEROS: ("all-zero", "Every byte is 00: it hides the card's own ROM from the guest and gives it none."),
    Form.ONES: ("all-ones", "Every byte is ff: nothing answered when the ROM was read."),
    Form.TOO_LARGE: ("too-large", f"It is larger than the {SIZE_LIMIT >> 20} MiB that a PCI device can show."),
    Form.EFI_PROGRAM: (
        "efi-program",
        "It is a bare UEFI driver (MZ), not an option ROM: firmware loads a driver only from an image that begins with "
        "55AA. EfiRom, one of edk2's BaseTools, wraps it: EfiRom -f VENDOR -i DEVICE -e FILE.efi -o FILE.rom",
    ),
    Form.BROKEN: ("no-data-structure", "It begins with 55AA, and no PCI data structure (PCIR) lies where it points."),
    Form.OTHER: (
        "no-rom",
        "It is no option ROM: no image that begins with 55AA and has a PCI data structure is in it.",
    ),
}
_PREFIX = "{0}, {1} bytes, lies before the first image: firmware looks at the beginning only and finds no ROM there."
_SEVERAL = "A second ROM lies behind the first one: it looks like a whole firmware, not like one ROM."
_CUT = "The {0} image at {1:#x} goes on for {2} bytes beyond the file's end."
_UNFINISHED = (
    "The last image says that another one follows, and none does: the rest is missing, usually the UEFI image. "
    "A copy taken from the boot display looks like this."
)
_CHECKSUM = (
    "The checksum of the legacy image is wrong: the file is damaged, or it may be the copy that the firmware made of "
    "the boot display's ROM and changed."
)
_NO_UEFI = (
    "It has no UEFI image: in a guest with OVMF the card shows nothing before the guest's own driver starts it. "
    "The video BIOS of an AMD processor is usually so."
)
_NO_LEGACY = "It has no legacy image: SeaBIOS does nothing with it, OVMF loads it."
_TRAILING = "{0} bytes follow the last image; firmware does not look at them."
_NO_DEVICE = "It names no device of its own ({0}), so whether it is for {1} cannot be told."
_SIBLING = "Its UEFI driver was packed for {0}, not for {1}; whether it runs there is the driver's choice."
_OTHER_DEVICE = (
    "It is for {0}, not for {1}: SeaBIOS does not run it there. Boards of one family sometimes carry a sister card's "
    "number; for any other card the ROM is wrong."
)


def _formless(rom: Rom) -> _Found:
    if rom.form in _FORMS:
        yield _FORMS[rom.form]


def _incomplete(rom: Rom) -> _Found:
    if rom.prefix:
        yield "prefix", _PREFIX.format("NVIDIA's container (NVGI)" if rom.nvidia else "Something else", rom.prefix)
        if not (rom.alone or rom.nvidia):
            yield "several", _SEVERAL
    for image in rom.images:
        if not image.complete:
            yield "cut", _CUT.format(named(image), image.offset, image.end - rom.size)
    if rom.unfinished:
        yield "unfinished", _UNFINISHED


def _contents(rom: Rom, checksums: bool) -> _Found:
    if checksums and any(image.checksum is False for image in rom.images):
        yield "checksum", _CHECKSUM
    if not rom.images or rom.cut:
        return
    if not rom.uefi and not rom.legacy:
        kinds = ", ".join(dict.fromkeys(named(image) for image in rom.images))
        yield "no-x86", f"No image is for an x86-64 guest; it has: {kinds}."
    elif not rom.uefi:
        yield "no-uefi", _NO_UEFI
    elif not rom.legacy:
        yield "no-legacy", _NO_LEGACY
    if rom.trailer and rom.padding is None and not rom.unfinished:
        yield "trailing", _TRAILING.format(rom.trailer)


def _identity(rom: Rom, wanted: tuple[int, int] | None) -> _Found:
    """SeaBIOS runs an image only for its own vendor and device; OVMF leaves the choice to the driver inside."""
    if wanted is None or not rom.images or any(image.serves(*wanted) for image in rom.images):
        return
    has = ", ".join(dict.fromkeys(f"{image.vendor:04x}:{image.device:04x}" for image in rom.images))
    asked = f"{wanted[0]:04x}:{wanted[1]:04x}"
    packed = all(image.efi is not None for image in rom.images)
    if packed and all(image.device in NO_DEVICE for image in rom.images):
        yield "no-device", _NO_DEVICE.format(has, asked)
    elif packed and any(image.vendor == wanted[0] for image in rom.images):
        yield "sibling", _SIBLING.format(has, asked)
    else:
        yield "other-device", _OTHER_DEVICE.format(has, asked)


def named(image: Image) -> str:
    """`legacy`, `UEFI x86-64`, `code type 0x70`."""
    if image.efi is not None:
        return f"UEFI {MACHINES.get(image.efi.machine, f'machine {image.efi.machine:#06x}')}"
    return CODE_TYPES.get(image.code_type, f"code type {image.code_type:#04x}")


def fits_firmware(rom: Rom, ovmf: bool) -> bool:
    """Whether the guest's own firmware finds an image in it."""
    return rom.uefi if ovmf else any(image.code_type == LEGACY and image.complete for image in rom.images)
