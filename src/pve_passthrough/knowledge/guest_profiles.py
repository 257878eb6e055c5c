"""What a new guest is made of, by what it is for: one row per profile.

1. Rows only; which options follow from a row is `planning/new_guest`.
2. Memory, processors and disk are starting points of our own; what an operating system demands is in `NEEDS`.
3. Sources: Proxmox VE administration guide, "Qemu/KVM Virtual Machines" (QM below); qemu-server 9.2.6, Drive.pm.
"""

from __future__ import annotations

from ..model.value import dataclass

WINDOWS, LINUX = "win11", "l26"
"""Values of `ostype`: Windows 11 and Server 2022 and later; any Linux since 2.6 (QM, OS Settings)."""


@dataclass(frozen=True, slots=True)
class GuestProfile:
    """A kind of guest.

    os             its `ostype`
    shows_picture  the card becomes the guest's own display once remote access or a monitor has been seen to work;
                   until then every profile keeps a virtual display
    memory         MiB, all of it taken at start: a device may write anywhere, so nothing can be lent
    disk           GiB
    secure_boot    Microsoft's keys are in the firmware from the start; why: `secure_why`
    tpm            a TPM 2.0 is there
    display        `vga`
    serial         a serial line as a second console
    """

    name: str
    about: str
    os: str
    shows_picture: bool
    memory: int
    cores: int
    disk: int
    secure_boot: bool
    secure_why: str
    tpm: bool
    display: str
    serial: bool
    source: str


@dataclass(frozen=True, slots=True)
class Needs:
    """The least that an operating system's setup asks for: MiB, processors, GiB."""

    memory: int
    cores: int
    disk: int
    who: str
    source: str


NEEDS: dict[str, Needs] = {
    WINDOWS: Needs(4096, 2, 64, "Windows 11", "Microsoft, Windows 11 specifications and system requirements"),
    LINUX: Needs(512, 1, 2, "A Linux guest under OVMF", "our own floor, below it nothing useful starts"),
}

_DKMS = "drivers built in the guest (DKMS) are unsigned and would not load under Secure Boot without an own key"
_QM = "QM; qemu-server, QemuServer/Drive.pm (efitype, pre-enrolled-keys)"

PROFILES: tuple[GuestProfile, ...] = (
    GuestProfile(
        "windows-gaming", "Windows 11 with a graphics card of its own",
        WINDOWS, shows_picture=True, memory=16384, cores=8, disk=128,
        secure_boot=True, secure_why="Windows 11 asks for it, and the vendors' Windows drivers are signed",
        tpm=True, display="std", serial=False,
        source=f"{_QM}; Microsoft, Windows 11 specifications: UEFI with Secure Boot, TPM 2.0",
    ),
    GuestProfile(
        "linux-ai", "Linux that computes on accelerators; no picture comes from the card",
        LINUX, shows_picture=False, memory=32768, cores=8, disk=128,
        secure_boot=False, secure_why=_DKMS, tpm=False, display="virtio", serial=True, source=_QM,
    ),
    GuestProfile(
        "linux-desktop", "a Linux desktop on a graphics card of its own",
        LINUX, shows_picture=True, memory=8192, cores=6, disk=64,
        secure_boot=False, secure_why=_DKMS, tpm=False, display="virtio", serial=True, source=_QM,
    ),
    GuestProfile(
        "transcode", "Linux with a media engine for Jellyfin, Plex, Frigate and the like",
        LINUX, shows_picture=False, memory=4096, cores=4, disk=32,
        secure_boot=False, secure_why=_DKMS, tpm=False, display="virtio", serial=True, source=_QM,
    ),
    GuestProfile(
        "headless", "Linux with a device that has nothing to do with pictures: network, storage, USB, radio",
        LINUX, shows_picture=False, memory=4096, cores=2, disk=32,
        secure_boot=False, secure_why=_DKMS, tpm=False, display="virtio", serial=True, source=_QM,
    ),
)  # fmt: skip

NAMES: tuple[str, ...] = tuple(row.name for row in PROFILES)


def profile_named(name: str) -> GuestProfile | None:
    return next((row for row in PROFILES if row.name == name), None)
