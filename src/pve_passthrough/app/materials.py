"""What people name on the command line - files, folders, archives, pipes - as materials for a diagnosis.

1. Everything is streamed. Nothing is written, unpacked to disk, or followed: links, devices and sockets are left
   alone.
2. What is packed is bounded: `UNPACKED` bytes of a name, `MOST_FILES` members, `HEADER` bytes that a member may claim
   at once. A limit that was reached is a doubt, and so is a member or a file that cannot be read to its end.
3. A name that cannot be opened at all is a `Failure` before anything is read.
"""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import stat
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Iterable, Iterator, Sequence
from itertools import chain
from typing import IO

from ..diagnosis import Material
from ..errors import Exit, Failure

CHUNK = 1 << 18
MOST_FILES = 2000
UNPACKED = 1 << 30
"""Bytes that come out of one packed file, or through one pipe."""
HEADER = 1 << 23
"""Bytes that an archive may want at once, as for the long names of a member."""
DICTIONARY = 1 << 28
"""Memory that an xz file may ask for. Source: xz(1), --memlimit-decompress; `xz -9` needs 65 MiB."""
DIRECTORY = 1 << 24
"""Bytes of a zip file's directory."""
DEPTH = 2
"""A packed log inside an archive is read, an archive inside of that is not."""

_BROKEN = (OSError, EOFError, zlib.error, lzma.LZMAError, tarfile.TarError, zipfile.BadZipFile,
           NotImplementedError, RuntimeError, ValueError)  # fmt: skip
"""What the standard library raises about broken, encrypted or unknown packing."""
_LIKELY = ("log", "dmesg", "journal", "syslog", "messages", "task", "lspci", "lsusb", "iommu", "grub", "cmdline",
           "modprobe", "conf", "cfg", "modules", "version", "report", "txt", "md")  # fmt: skip
"""Words in names of files that are worth reading first."""


def materials(paths: Sequence[str], doubts: list[str]) -> Iterator[Material]:
    """What these names stand for, `-` being standard input. `doubts` grows while the materials are read.

    Raises Failure at once for a name that cannot be opened."""
    for path in paths:
        if path != "-":
            _openable(path)
    return chain.from_iterable(_of_name(path, doubts) for path in paths)


def is_capture(path: str) -> bool:
    """Whether a file is a machine that this program recorded; what else is wrong with it, its own reader says."""
    try:
        if path == "-" or not stat.S_ISREG(os.stat(path).st_mode):
            return False
        with open(path, "rb") as stream:
            begin = stream.read(1 << 16)
        head = zlib.decompressobj(31).decompress(begin, 512) if begin.startswith(b"\x1f\x8b") else b""
    except (OSError, ValueError, zlib.error):
        return False
    return head[:100].rstrip(b"\0") in (b"README.txt", b"answers.json") and head[257:262] == b"ustar"


def _openable(path: str) -> None:
    try:
        mode = os.stat(path).st_mode
        if stat.S_ISDIR(mode):
            os.scandir(path).close()
        elif stat.S_ISREG(mode):
            open(path, "rb").close()
    except OSError as error:
        raise Failure("diagnose.unreadable", f"Nothing was read: {path}: {error.strerror}.", code=Exit.USAGE) from error
    except ValueError as error:
        raise Failure("diagnose.unreadable", "Nothing was read: a name holds a zero byte.", code=Exit.USAGE) from error
    if not (stat.S_ISDIR(mode) or stat.S_ISREG(mode) or stat.S_ISFIFO(mode)):
        raise Failure(
            "diagnose.no-file", f"Nothing was read: {path} is neither a file nor a folder nor a pipe.", code=Exit.USAGE
        )  # fmt: skip


def _of_name(path: str, doubts: list[str]) -> Iterator[Material]:
    if path == "-":
        yield from _unpacked("standard input", _limited(_chunks(sys.stdin.buffer), "standard input", doubts), doubts)
    elif os.path.isdir(path):
        yield from _folder(path, doubts)
    else:
        yield from _file(path, path, doubts)


# -- folders and files ---------------------------------------------------------------------------


def _folder(path: str, doubts: list[str]) -> Iterator[Material]:
    """Plain files below a folder, the likely ones first; links are not followed."""
    found: list[str] = []
    more = False
    for directory, folders, files in os.walk(path, onerror=lambda error: doubts.append(_of_error(error))):
        folders.sort()
        found += (os.path.join(directory, name) for name in sorted(files))
        if len(found) > 50 * MOST_FILES:
            more = True
            break
    found.sort(key=lambda name: (not _likely(name), name))
    plain = [full for full in found if _is_plain(full, doubts)][: MOST_FILES + 1]
    if more or len(plain) > MOST_FILES:
        doubts.append(f"{path}: more than {MOST_FILES} files; name the logs and configurations that matter")
    if not plain:
        doubts.append(f"{path}: no file in it")
    for full in plain[:MOST_FILES]:
        yield from _file(full, os.path.relpath(full, path), doubts)


def _likely(name: str) -> bool:
    plain = os.path.basename(name).lower()
    return any(word in plain for word in _LIKELY)


def _is_plain(full: str, doubts: list[str]) -> bool:
    try:
        mode = os.lstat(full).st_mode
    except OSError as error:
        doubts.append(_of_error(error))
        return False
    return stat.S_ISREG(mode)


def _file(path: str, name: str, doubts: list[str]) -> Iterator[Material]:
    """A file by name. A pipe is opened without waiting for somebody to write."""
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NONBLOCK | os.O_CLOEXEC)
    except OSError as error:
        doubts.append(_of_error(error))
        return
    with open(descriptor, "rb", buffering=0) as stream:
        mode = os.fstat(descriptor).st_mode
        os.set_blocking(descriptor, True)
        if stat.S_ISREG(mode) and stream.read(4) == b"PK\x03\x04":
            stream.seek(0)
            yield from _zip(name, stream, doubts)
        elif stat.S_ISREG(mode):
            stream.seek(0)
            yield from _unpacked(name, _said(_chunks(stream), name, doubts), doubts)
        else:
            yield from _unpacked(name, _limited(_chunks(stream), name, doubts), doubts)


def _of_error(error: OSError) -> str:
    return f"{error.filename}: {error.strerror or error}"


# -- what is packed ------------------------------------------------------------------------------


def _unpacked(name: str, chunks: Iterable[bytes], doubts: list[str], depth: int = 0) -> Iterator[Material]:
    """A text, or what is packed in it."""
    source = _Forward(chunks)
    head = source.peek(512)
    unpack = next((unpack for magic, unpack in _PACKED if head.startswith(magic)), None)
    if unpack is not None and depth < DEPTH:
        inner = _limited(unpack(source), name, doubts)
        yield from _unpacked(
            name.removesuffix(".gz").removesuffix(".xz").removesuffix(".bz2"), inner, doubts, depth + 1
        )
    elif head[257:262] == b"ustar" and depth < DEPTH:
        yield from _tar(name, source, doubts)
    elif head.startswith(b"PK\x03\x04") or unpack is not None or head[257:262] == b"ustar":
        doubts.append(f"{name}: an archive where only a file can be read; unpack it and name the folder")
    else:
        yield Material(name, iter(lambda: source.read(CHUNK), b""))


def _tar(name: str, source: _Forward, doubts: list[str]) -> Iterator[Material]:
    """Members of an archive, in order."""
    left = 0
    try:
        with tarfile.open(fileobj=source, mode="r:") as packed:
            for count, member in enumerate(packed):
                if count >= MOST_FILES:
                    doubts.append(f"{name}: more than {MOST_FILES} members; the others were not read")
                    break
                stream = packed.extractfile(member) if member.isreg() else None
                if stream is None:
                    left += not member.isdir()
                    continue
                label = f"{name}: {member.name}"
                yield from _unpacked(label, _said(_chunks(stream), label, doubts), doubts, DEPTH - 1)
    except _BROKEN as error:
        doubts.append(f"{name}: could not be read to its end: {error}")
    if left:
        doubts.append(f"{name}: {left} links or devices in it were left alone")


def _zip(name: str, stream: IO[bytes], doubts: list[str]) -> Iterator[Material]:
    """Members of a zip file."""
    try:
        if _directory_size(stream) > DIRECTORY:
            doubts.append(f"{name}: its directory is larger than {DIRECTORY >> 20} MiB; nothing of it was read")
            return
        with zipfile.ZipFile(stream) as packed:
            room = [UNPACKED]
            for count, member in enumerate(packed.infolist()):
                if count >= MOST_FILES:
                    doubts.append(f"{name}: more than {MOST_FILES} members; the others were not read")
                    return
                if member.is_dir() or stat.S_ISLNK(member.external_attr >> 16):
                    continue
                label = f"{name}: {member.filename}"
                yield from _unpacked(
                    label, _said(_member(packed, member, label, room, doubts), label, doubts), doubts, 1
                )
    except _BROKEN as error:
        doubts.append(f"{name}: could not be read to its end: {error}")


def _member(
    packed: zipfile.ZipFile, member: zipfile.ZipInfo, label: str, room: list[int], doubts: list[str]
) -> Iterator[bytes]:
    with packed.open(member) as inner:
        yield from _limited(_chunks(inner), label, doubts, room)


def _directory_size(stream: IO[bytes]) -> int:
    """Bytes of the directory as the record at a zip file's end claims them. Source: APPNOTE.TXT 4.3.16."""
    stream.seek(0, os.SEEK_END)
    stream.seek(max(0, stream.tell() - (1 << 16) - 22))
    tail = stream.read()
    stream.seek(0)
    at = tail.rfind(b"PK\x05\x06")
    return int.from_bytes(tail[at + 12 : at + 16], "little") if at >= 0 else 0


def _gzip(source: _Forward) -> Iterator[bytes]:
    with gzip.GzipFile(fileobj=source) as stream:
        while data := stream.read1(CHUNK):
            yield data


def _bzip2(source: _Forward) -> Iterator[bytes]:
    with bz2.BZ2File(source) as stream:
        while data := stream.read1(CHUNK):
            yield data


def _xz(source: _Forward) -> Iterator[bytes]:
    """By hand, because LZMAFile takes whatever memory a file asks for."""
    unpacker, data = lzma.LZMADecompressor(memlimit=DICTIONARY), b""
    while True:
        if unpacker.eof:
            data = unpacker.unused_data.lstrip(b"\0") or source.read(CHUNK).lstrip(b"\0")
            if not data:
                return
            unpacker = lzma.LZMADecompressor(memlimit=DICTIONARY)
        elif unpacker.needs_input:
            data = source.read(CHUNK)
            if not data:
                raise EOFError("it ends in the middle")
        else:
            data = b""
        yield unpacker.decompress(data, CHUNK)


_PACKED = ((b"\x1f\x8b\x08", _gzip), (b"\xfd7zXZ\0", _xz), (b"BZh", _bzip2))


# -- bytes ---------------------------------------------------------------------------------------


def _chunks(stream: IO[bytes]) -> Iterator[bytes]:
    while data := stream.read(CHUNK):
        yield data


def _said(chunks: Iterable[bytes], name: str, doubts: list[str]) -> Iterator[bytes]:
    """The same bytes; where reading breaks off, that is a doubt."""
    count = 0
    try:
        for chunk in chunks:
            count += len(chunk)
            yield chunk
    except _BROKEN as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or error or type(error).__name__
        doubts.append(f"{name}: could not be read beyond byte {count}: {reason}")


def _limited(chunks: Iterable[bytes], name: str, doubts: list[str], room: list[int] | None = None) -> Iterator[bytes]:
    """The same bytes, up to `UNPACKED` of them."""
    left = room if room is not None else [UNPACKED]
    for chunk in _said(chunks, name, doubts):
        if len(chunk) > left[0]:
            doubts.append(f"{name}: more than {UNPACKED >> 20} MiB come out of it; the rest was not read")
            return
        left[0] -= len(chunk)
        yield chunk
    if room is None and left[0] == UNPACKED:
        doubts.append(f"{name}: nothing came out of it")


class _Forward(io.RawIOBase):
    """Chunks as a file that can only be read onwards; no more than `HEADER` bytes at once."""

    def __init__(self, chunks: Iterable[bytes]) -> None:
        super().__init__()
        self._chunks = iter(chunks)
        self._held = b""
        self._place = 0

    def peek(self, size: int) -> bytes:
        while len(self._held) < size and (more := next(self._chunks, b"")):
            self._held += more
        return self._held[:size]

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        return True

    def read(self, size: int = -1) -> bytes:
        if size < 0 or size > HEADER:
            raise OSError(f"it wants {size} bytes at once")
        data = self.peek(size)
        self._held = self._held[len(data) :]
        self._place += len(data)
        return data

    def tell(self) -> int:
        return self._place

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        target = offset + (self._place if whence == os.SEEK_CUR else 0)
        if whence == os.SEEK_END or target < self._place:
            raise OSError("it can only be read onwards")
        while self._place < target and self.read(min(CHUNK, target - self._place)):
            pass
        return self._place
