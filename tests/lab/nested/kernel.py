"""A distribution's kernel as an ELF image, and its modules in the order in which they can be inserted.

1. Everything is bounded: a wrong or huge payload is a LabError, not a full memory.
"""

from __future__ import annotations

import lzma
import subprocess
import zlib
from collections.abc import Sequence
from pathlib import Path

from ..programs import LabError

LIMIT = 256 << 20
"""Bytes that an unpacked kernel or module may have."""
_ELF = b"\x7fELF"


def unpacked(image: bytes) -> bytes:
    """The ELF kernel inside a bzImage. Raises LabError.

    Source: Documentation/arch/x86/boot.rst: setup_sects at 0x1f1, the magic `HdrS` at 0x202, payload_offset at 0x248
    and payload_length at 0x24c, counted from the end of the set-up sectors.
    """
    if image[0x202:0x206] != b"HdrS":
        raise LabError("this is no bzImage")
    start = (image[0x1F1] + 1) * 512 + int.from_bytes(image[0x248:0x24C], "little")
    payload = image[start : start + int.from_bytes(image[0x24C:0x250], "little")]
    found = _expand(payload)
    if not found.startswith(_ELF):
        raise LabError("the kernel's payload is no ELF image")
    return found


def modules(folder: Path, wanted: Sequence[str]) -> list[tuple[str, bytes]]:
    """(file name, unpacked content) of the wanted modules and all that they need, needed ones first.

    A module that is compiled into the kernel (modules.builtin) is left out. Raises LabError when one is missing.
    """
    depends = _depends(folder)
    built_in = {_plain(line) for line in (folder / "modules.builtin").read_text().split()}
    order: list[str] = []

    def visit(path: str) -> None:
        for needed in depends[path]:
            visit(needed)
        if path not in order:
            order.append(path)

    by_name = {_plain(path): path for path in depends}
    for name in wanted:
        if name in by_name:
            visit(by_name[name])
        elif name not in built_in:
            raise LabError(f"{folder} has no module {name}")
    return [(f"{_plain(path)}.ko", _expand((folder / path).read_bytes())) for path in order]


def _depends(folder: Path) -> dict[str, list[str]]:
    """modules.dep: path → paths that it needs, nearest last to be inserted first (depmod(8), modules.dep(5))."""
    found = {}
    for line in (folder / "modules.dep").read_text().splitlines():
        path, _, needed = line.partition(":")
        found[path] = needed.split()
    return found


def _plain(path: str) -> str:
    """A module's name from its file's."""
    return path.rpartition("/")[2].partition(".ko")[0].replace("-", "_")


def _expand(data: bytes) -> bytes:
    """Unpacked content by its first bytes; anything after the packed stream is ignored. Raises LabError."""
    try:
        if data.startswith(b"\xfd7zXZ\0"):
            return _bounded(lzma.LZMADecompressor().decompress(data, LIMIT + 1))
        if data.startswith(b"\x1f\x8b"):
            return _bounded(zlib.decompressobj(31).decompress(data, LIMIT + 1))
    except (lzma.LZMAError, zlib.error) as error:
        raise LabError(f"damaged compressed data: {error}") from None
    if data.startswith(b"\x28\xb5\x2f\xfd"):
        return _zstd(data)
    return _bounded(data)


def _zstd(data: bytes) -> bytes:
    """Python learns zstd in 3.14. The program complains about what follows the stream, after having written it all."""
    argv = ("zstd", "-dcq", f"--memory={LIMIT >> 20}MB")
    try:
        ran = subprocess.run(argv, input=data, capture_output=True, timeout=60, check=False)
    except FileNotFoundError:
        raise LabError("zstd is not installed") from None
    except subprocess.TimeoutExpired:
        raise LabError("zstd gave no answer in 60 s") from None
    if not ran.stdout:
        raise LabError(f"zstd: {ran.stderr.decode(errors='replace').strip()}")
    return _bounded(ran.stdout)


def _bounded(data: bytes) -> bytes:
    if len(data) > LIMIT:
        raise LabError(f"more than {LIMIT >> 20} MiB unpacked")
    return data
