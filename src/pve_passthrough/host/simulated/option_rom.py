"""What a simulated card's ROM window and the firmware's table VFCT hold, and the kernel's rules for reading the window.

1. A window is shut until something other than "0" and a line feed is written into it; then it is open
   (drivers/pci/pci-sysfs.c, pci_write_rom and pci_read_rom: EINVAL while it is shut).
2. A read ends with the last image that is valid, and gives EIO when the first one is not: so it is when nothing answers
   because the card sleeps or decodes no memory (drivers/pci/rom.c, pci_get_rom_size and pci_map_rom).
3. The boot display shows the copy at 0xC0000: nothing on a machine that started in UEFI mode, else the legacy image
   alone, which its firmware has changed (arch/x86/pci/fixup.c, pci_fixup_video).
4. The images are headers alone and no code; their checksums are right.
"""

from __future__ import annotations

import errno
import posixpath
from collections.abc import Iterable

from ...model.rom import EFI, LEGACY, UNIT, X64, Form, parse
from .spec import MachineSpec, PciSpec
from .world import SysfsError, World

SHADOW = 0xC0000
SHADOW_SIZE = 0x20000
SHADOW_FLAGS = 0x212
"""IORESOURCE_MEM, PCI_FIXED and ROM_SHADOW (include/linux/ioport.h; seen on a recorded machine)."""
_LEGACY_BLOCKS, _EFI_BLOCKS = 110, 128
_OPEN = "rom_open"


# -- the kernel's rules ------------------------------------------------------------------------------


def write(world: World, path: str, text: str) -> None:
    """write(2) into the window's attribute; the content of the window stays as it is."""
    address = posixpath.basename(posixpath.dirname(path))
    state = world.state()
    found = set(state.get(_OPEN, ()))
    state[_OPEN] = sorted(found - {address} if text == "0\n" else found | {address})
    world.save_state(state)


def is_open(world: World, address: str) -> bool:
    return address in world.state().get(_OPEN, ())


def read(world: World, path: str) -> bytes:
    """read(2) to the end. Raises SysfsError as the kernel would."""
    data = world.tree.read(path)
    address = posixpath.basename(posixpath.dirname(path))
    if not is_open(world, address):
        raise SysfsError(errno.EINVAL, path)
    asleep = (world.attribute(address, "power_state") or "D0").startswith("D3")
    silent = world.driver_of(address) is None and world.attribute(address, "enable") == "0"
    rom = parse(data)
    if asleep or silent or rom.form is not Form.ROM:
        raise SysfsError(errno.EIO, path)
    return data[: rom.images[-1].end]


# -- contents ----------------------------------------------------------------------------------------


def shadowed(device: PciSpec) -> bool:
    return bool(device.boot_vga) and device.class_code >> 8 == 0x0300


def content(spec: MachineSpec, device: PciSpec) -> bytes:
    """What the function's ROM window shows; empty when nothing valid is there."""
    if not shadowed(device):
        return make(device.ids, device.class_code)
    if spec.uefi:
        return b""
    copy = bytearray(make(device.ids, device.class_code, kinds=(LEGACY,), last=False))
    copy[0x40] ^= 0x5A
    return bytes(copy)


def make(ids: str, class_code: int, *, kinds: Iterable[int] = (LEGACY, EFI), last: bool = True) -> bytes:
    """A ROM with these images, in this order; `last`: the final one says so."""
    wanted = tuple(kinds)
    vendor, device = (int(part, 16) for part in ids.split(":"))
    made = [_image(kind, vendor, device, class_code, last and kind == wanted[-1]) for kind in wanted]
    return b"".join(made)


def _image(kind: int, vendor: int, device: int, class_code: int, last: bool) -> bytes:
    blocks = _EFI_BLOCKS if kind == EFI else _LEGACY_BLOCKS
    image = bytearray(UNIT * blocks)
    at = 0x1C if kind == EFI else 0x50
    image[0:2] = b"\x55\xaa"
    image[0x18:0x1A] = at.to_bytes(2, "little")
    if kind == EFI:
        image[2:4] = blocks.to_bytes(2, "little")
        image[4:8] = (0x0EF1).to_bytes(4, "little")
        image[8:0x0E] = b"".join(number.to_bytes(2, "little") for number in (0x0B, X64, 1))
    else:
        image[2] = blocks
    image[at : at + 4] = b"PCIR"
    for offset, width, number in (
        (4, 2, vendor), (6, 2, device), (0x0A, 2, 0x18), (0x0D, 3, class_code), (0x10, 2, blocks), (0x14, 1, kind),
        (0x15, 1, 0x80 if last else 0),
    ):  # fmt: skip
        image[at + offset : at + offset + width] = number.to_bytes(width, "little")
    if kind == LEGACY:
        image[-1] = -sum(image) % 256
    return bytes(image)


# -- VFCT --------------------------------------------------------------------------------------------


def lay_down_vfct(world: World, spec: MachineSpec) -> None:
    """The table, for the graphics in an AMD processor (those beside functions of vendor 1022)."""
    slots = {device.address[:-2] for device in spec.devices if device.ids.startswith("1022:")}
    own = [
        device
        for device in spec.devices
        if device.ids.startswith("1002:") and device.class_code >> 16 == 3 and device.address[:-2] in slots
    ]
    if own:
        world.put("/sys/firmware/acpi/tables/VFCT", vfct(own).decode("utf-8", "surrogateescape"))


def vfct(devices: Iterable[PciSpec]) -> bytes:
    """Layout: kernel, drivers/gpu/drm/amd/include/atombios.h, UEFI_ACPI_VFCT and VFCT_IMAGE_HEADER."""
    body = b""
    for device in devices:
        image = make(device.ids, device.class_code, kinds=(LEGACY,))
        bus, slot, function = (int(device.address[at : at + n], 16) for at, n in ((5, 2), (8, 2), (11, 1)))
        vendor, product = (int(part, 16) for part in device.ids.split(":"))
        numbers = ((bus, 4), (slot, 4), (function, 4), (vendor, 2), (product, 2), (0, 2), (0, 2), (0, 4))
        body += b"".join(number.to_bytes(width, "little") for number, width in (*numbers, (len(image), 4))) + image
    head = bytes(16) + (76).to_bytes(4, "little") + bytes(20)
    length = (36 + len(head) + len(body)).to_bytes(4, "little")
    return b"VFCT" + length + b"\x01\x00" + b"SIMUL " + b"SIMULATE" + bytes(12) + head + body
