"""A bootable disk image from a tree: a GPT with an EFI system partition and an ext4 root; no loop device, no mount."""

from __future__ import annotations

from pathlib import Path

from .host_tree import ROOT_UUID
from .programs import in_root, run

_MIB = 1 << 20
_ESP_AT, _ESP_SIZE = 1, 40
_ROOT_AT = 42
"""MiB from the start of the disk."""
_GRUB_MODULES = (
    "part_gpt", "fat", "ext2", "normal", "linux", "search", "search_fs_uuid", "search_label", "configfile", "serial",
    "terminal", "echo", "test", "all_video", "gzio", "zstd", "efi_gop", "loadenv", "true", "minicmd", "probe",
)  # fmt: skip
_EARLY = (
    f"search --no-floppy --fs-uuid --set=root {ROOT_UUID}\nset prefix=($root)/boot/grub\nconfigfile $prefix/grub.cfg\n"
)


def build(root: Path, image: Path, root_mib: int = 2600) -> None:
    """Write `image` (sparse) with the tree's files. Raises LabError."""
    loader = _loader(root)
    image.unlink(missing_ok=True)
    with image.open("wb") as file:
        file.truncate((_ROOT_AT + root_mib + 2) * _MIB)
    extended = f"offset={_ROOT_AT * _MIB},lazy_itable_init=1,lazy_journal_init=1,nodiscard"
    file_system = ("-q", "-F", "-t", "ext4", "-U", ROOT_UUID, "-L", "root", "-m", "0", "-O", "^metadata_csum")
    run(("mke2fs", *file_system, "-E", extended, "-d", root, image, f"{root_mib * 1024}k"), 300)
    _put_esp(image, loader)
    # Last, because making the file system at an offset clears the first sectors of the file.
    table = (
        "label: gpt\n"
        f"start={_ESP_AT * 2048}, size={_ESP_SIZE * 2048}, type=U, name=ESP\n"
        f"start={_ROOT_AT * 2048}, size={root_mib * 2048}, type=L, name=root\n"
    )
    run(("sfdisk", "-q", image), 60, table.encode())


def overlay(base: Path, target: Path) -> None:
    """A disk that begins as `base` and keeps its changes in `target`."""
    target.unlink(missing_ok=True)
    kind = "qcow2" if base.suffix == ".qcow2" else "raw"
    run(("qemu-img", "create", "-q", "-f", "qcow2", "-F", kind, "-b", base, target), 60)


def _loader(root: Path) -> bytes:
    """A GRUB for UEFI that goes on to the root file system's grub.cfg."""
    early, made = root / "tmp/early.cfg", root / "tmp/BOOTX64.EFI"
    early.write_text(_EARLY)
    argv = ("grub-mkimage", "-O", "x86_64-efi", "-o", "/tmp/BOOTX64.EFI", "-c", "/tmp/early.cfg", "-p", "/boot/grub")
    in_root(root, (*argv, *_GRUB_MODULES), 60)
    loader = made.read_bytes()
    early.unlink()
    made.unlink()
    return loader


def _put_esp(image: Path, loader: bytes) -> None:
    esp, file = image.with_suffix(".esp"), image.with_suffix(".efi")
    with esp.open("wb") as empty:
        empty.truncate(_ESP_SIZE * _MIB)
    file.write_bytes(loader)
    run(("mkfs.vfat", "-n", "ESP", esp), 60)
    run(("mmd", "-i", esp, "::/EFI", "::/EFI/BOOT"), 60)
    run(("mcopy", "-i", esp, file, "::/EFI/BOOT/BOOTX64.EFI"), 60)
    with image.open("r+b") as disk:
        disk.seek(_ESP_AT * _MIB)
        disk.write(esp.read_bytes())
    esp.unlink()
    file.unlink()
