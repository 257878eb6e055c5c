"""Option ROMs and the ACPI table VFCT: bytes in, values out.

1. Any bytes give a value, never an exception: a ROM comes from a device, a web page or a stranger.
2. Linear in the size of the input: an image is looked at once, and there are at most `MOST_IMAGES` of them.
3. What the bytes say is here; what firmware makes of it is `knowledge.rom_marks`.

Sources of the layouts: PCI Firmware Specification 3.0, 5.1 (header 55AA, PCI data structure, device list); UEFI
Specification 2.8, 14.4.2 (EFI header); kernel, drivers/pci/rom.c and drivers/gpu/drm/amd/amdgpu/amdgpu_bios.c with
include/atombios.h (UEFI_ACPI_VFCT).
"""

from __future__ import annotations

from dataclasses import replace
from enum import Enum

from .value import dataclass

SIZE_LIMIT = 16 * 1024 * 1024
"""An expansion ROM window has 16 MiB at most (PCI Local Bus Specification 3.0, 6.2.5.2)."""
MOST_IMAGES = 64
"""Images of one file; of 66 ROM files of graphics cards none had more than three."""
MOST_DEVICES = 256
UNIT = 512

LEGACY, OPEN_FIRMWARE, HP, EFI = 0, 1, 2, 3
CODE_TYPES = {LEGACY: "legacy", OPEN_FIRMWARE: "open-firmware", HP: "hp-pa-risc", EFI: "efi"}
X64, AA64, IA32 = 0x8664, 0xAA64, 0x014C
MACHINES = {X64: "x86-64", AA64: "arm64", IA32: "x86-32"}
DRIVERS = frozenset({0x0B, 0x0C})
"""EFI subsystems that firmware loads from a ROM: boot service and run-time drivers."""

_SIGNATURE = b"\x55\xaa"
_NVIDIA = b"NVGI"
_ODD_PLACES = 1000
"""Places off the 512-byte raster that are tried for a first image."""


class Form(Enum):
    """What a file is by its bytes."""

    ROM = "option-rom"
    PREFIXED = "prefixed"
    """Something lies before the first image: the container of a vendor's flash tool, for example."""
    BROKEN = "broken-rom"
    """Begins with 55AA, and nothing valid follows."""
    EFI_PROGRAM = "efi-program"
    """A bare EFI driver (MZ and PE), as in AMDGopDriver.efi."""
    EMPTY = "empty"
    ZEROS = "zeros"
    ONES = "ones"
    TOO_LARGE = "too-large"
    OTHER = "other"


@dataclass(frozen=True, slots=True)
class EfiHeader:
    """Of an image with code type 3. `valid`: its signature 0x0EF1 is there."""

    valid: bool
    subsystem: int
    machine: int
    compressed: bool


@dataclass(frozen=True, slots=True)
class Image:
    """One image. `offset` counts from the file's beginning.

    length    as the image declares it, in bytes
    revision  of the PCI data structure: 3 has a list of further device IDs
    checksum  whether the bytes sum to zero; None where that says nothing (it holds for code type 0 only) or the image
              is cut off
    complete  all of its declared length lies in the file
    devices   further device IDs that the image serves
    """

    offset: int
    length: int
    code_type: int
    vendor: int
    device: int
    class_code: int
    revision: int
    last: bool
    complete: bool
    checksum: bool | None = None
    efi: EfiHeader | None = None
    devices: tuple[int, ...] = ()

    @property
    def end(self) -> int:
        return self.offset + self.length

    @property
    def runs_in_uefi(self) -> bool:
        """Firmware of an x86-64 guest would load this image."""
        header = self.efi
        return (
            self.complete and header is not None and header.valid
            and header.machine == X64 and header.subsystem in DRIVERS
        )  # fmt: skip

    def serves(self, vendor: int, device: int) -> bool:
        return self.vendor == vendor and device in (self.device, *self.devices)


@dataclass(frozen=True, slots=True)
class Rom:
    """A file as it is.

    prefix   bytes before the first image
    trailer  bytes after the last image that was found
    padding  the one byte value that the trailer consists of; None: there is no trailer, or it is no mere padding
    alone    no second chain of images lies behind the first
    nvidia   the prefix is NVIDIA's container
    """

    form: Form
    size: int
    images: tuple[Image, ...] = ()
    prefix: int = 0
    trailer: int = 0
    padding: int | None = None
    alone: bool = True
    nvidia: bool = False

    @property
    def uefi(self) -> bool:
        return any(image.runs_in_uefi for image in self.images)

    @property
    def legacy(self) -> bool:
        return any(image.complete and image.code_type == LEGACY for image in self.images)

    @property
    def cut(self) -> bool:
        """An image goes on beyond the end of the file."""
        return any(not image.complete for image in self.images)

    @property
    def unfinished(self) -> bool:
        """The last image found says that another one follows, and none does."""
        return bool(self.images) and not self.cut and not self.images[-1].last


def parse(data: bytes) -> Rom:
    """What these bytes are."""
    size = len(data)
    plain = _plain(data)
    if plain is not None:
        return Rom(plain, size)
    start = _first(data)
    if start is None:
        return Rom(_formless(data), size)
    images = _chain(data, start)
    end = min(images[-1].end, size)
    padding = data[end] if end < size and data.count(data[end : end + 1], end) == size - end else None
    return Rom(
        Form.PREFIXED if start else Form.ROM,
        size,
        images,
        prefix=start,
        trailer=size - end,
        padding=padding if padding in (0x00, 0xFF) else None,
        alone=padding is not None or not _another(data, end),
        nvidia=start > 0 and data.startswith(_NVIDIA),
    )


def _plain(data: bytes) -> Form | None:
    """What needs no look inside."""
    if not data:
        return Form.EMPTY
    if len(data) > SIZE_LIMIT:
        return Form.TOO_LARGE
    uniform = data.count(data[:1]) == len(data)
    return {0x00: Form.ZEROS, 0xFF: Form.ONES}.get(data[0]) if uniform else None


def _formless(data: bytes) -> Form:
    if data.startswith(_SIGNATURE):
        return Form.BROKEN
    portable = _word(data, 0x3C, 4)
    if data.startswith(b"MZ") and data[portable : portable + 4] == b"PE\0\0":
        return Form.EFI_PROGRAM
    return Form.OTHER


def _first(data: bytes) -> int | None:
    """Where the first image begins: on the raster of 512 bytes, else one of the first places elsewhere."""
    for place in range(0, len(data), UNIT):
        if data.startswith(_SIGNATURE, place) and _image(data, place) is not None:
            return place
    place = data.find(_SIGNATURE)
    for _ in range(_ODD_PLACES):
        if place < 0:
            return None
        if _image(data, place) is not None:
            return place
        place = data.find(_SIGNATURE, place + 1)
    return None


def _another(data: bytes, start: int) -> bool:
    """Whether an image begins on the raster somewhere behind `start`."""
    first = -(-start // UNIT) * UNIT
    places = (place for place in range(first, len(data), UNIT) if data.startswith(_SIGNATURE, place))
    return any(_image(data, place) is not None for place in places)


def _chain(data: bytes, start: int) -> tuple[Image, ...]:
    """The first image and those that follow it, each at the end of the one before."""
    found: list[Image] = []
    image = _image(data, start)
    while image is not None and len(found) < MOST_IMAGES:
        found.append(_summed(data, image))
        if image.last or not image.complete:
            break
        image = _image(data, image.end)
    return tuple(found)


def _image(data: bytes, offset: int) -> Image | None:
    """The image at `offset`; None unless 55AA, a PCI data structure in the file and a length are there."""
    if not data.startswith(_SIGNATURE, offset) or offset + 0x1A > len(data):
        return None
    at = offset + _word(data, offset + 0x18)
    if not data.startswith(b"PCIR", at) or at + 0x16 > len(data):
        return None
    length = UNIT * _word(data, at + 0x10)
    if length == 0:
        return None
    code_type, revision = data[at + 0x14], data[at + 0x0C]
    return Image(
        offset,
        length,
        code_type,
        _word(data, at + 4),
        _word(data, at + 6),
        _word(data, at + 0x0D, 3),
        revision,
        last=bool(data[at + 0x15] & 0x80),
        complete=offset + length <= len(data),
        efi=_efi(data, offset) if code_type == EFI else None,
        devices=_device_list(data, at, offset + length) if revision >= 3 else (),
    )


def _summed(data: bytes, image: Image) -> Image:
    """With the checksum of a legacy image: over the declared length, or over the size in its third byte."""
    if image.code_type != LEGACY or not image.complete:
        return image
    lengths = {image.length, UNIT * data[image.offset + 2]} - {0}
    good = any(sum(data[image.offset : image.offset + length]) % 256 == 0 for length in sorted(lengths))
    return replace(image, checksum=good)


def _efi(data: bytes, offset: int) -> EfiHeader:
    return EfiHeader(
        valid=_word(data, offset + 4, 4) == 0x0EF1,
        subsystem=_word(data, offset + 8),
        machine=_word(data, offset + 0x0A),
        compressed=_word(data, offset + 0x0C) == 1,
    )


def _device_list(data: bytes, at: int, end: int) -> tuple[int, ...]:
    """Device IDs up to a zero; the pointer counts from the PCI data structure."""
    pointer = _word(data, at + 8)
    place = at + pointer
    found: list[int] = []
    while pointer and len(found) < MOST_DEVICES and place + 2 <= min(end, len(data)):
        device = _word(data, place)
        if device == 0:
            return tuple(found)
        found.append(device)
        place += 2
    return ()  # a list that does not end is none


def _word(data: bytes, offset: int, width: int = 2) -> int:
    """A little-endian number; bytes beyond the end count as zero."""
    return int.from_bytes(data[offset : offset + width], "little")


# -- mending ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Mended:
    """A ROM without what does not belong to it."""

    data: bytes
    before: int
    after: int


def mend(data: bytes) -> Mended | str:
    """The chain of images alone: without what lies before it, and without mere padding behind it.

    The answer is a reason in words where that cannot be proven from the bytes, or nothing is to be done. Other bytes
    behind the images stay: a vendor's driver may look for them.
    """
    rom = parse(data)
    if not rom.images:
        return "there is no image in it that could be kept"
    if rom.cut or rom.unfinished:
        return "it is incomplete, and what is missing cannot be made up"
    if rom.prefix and not (rom.alone or rom.nvidia):
        return "a second ROM lies behind the first one, so which of them is meant cannot be told"
    end = rom.size - (rom.trailer if rom.padding is not None else 0)
    if not rom.prefix and end == rom.size:
        return "nothing lies before its first image, and no padding behind its last one"
    return Mended(data[rom.prefix : end], rom.prefix, rom.size - end)


# -- VFCT --------------------------------------------------------------------------------------------

_VFCT_OFFSET = 0x34
_VFCT_LENGTH = 76
_VFCT_HEADER = 28


@dataclass(frozen=True, slots=True)
class VideoBios:
    """One image of the table VFCT, and the function that it is for (the table knows no PCI domain)."""

    bus: int
    device: int
    function: int
    vendor: int
    product: int
    data: bytes


def parse_vfct(table: bytes) -> tuple[VideoBios, ...]:
    """Video BIOSes in an ACPI table VFCT; those before the first thing that does not fit."""
    length = min(_word(table, 4, 4), len(table))
    if not table.startswith(b"VFCT") or length < _VFCT_LENGTH:
        return ()
    found: list[VideoBios] = []
    place = _word(table, _VFCT_OFFSET, 4)
    for _ in range(MOST_IMAGES):
        if place < _VFCT_LENGTH or place + _VFCT_HEADER > length:
            break
        bus, device, function = (_word(table, place + 4 * number, 4) for number in range(3))
        size = _word(table, place + 24, 4)
        end = place + _VFCT_HEADER + size
        if end > length:
            break
        if size:
            content = table[place + _VFCT_HEADER : end]
            vendor, product = _word(table, place + 12), _word(table, place + 14)
            found.append(VideoBios(bus, device, function, vendor, product, content))
        place = end
    return tuple(found)
