"""The machine itself (`local`), or a directory read as if it were its root (`root:DIR`).

1. Below a directory no link leads out: every path is resolved inside it, absolute links included.
2. In `root:DIR` no program is started and nothing is written: it is somebody else's tree. Only plain files are opened
   there: opening a device node would reach this machine's device, and a FIFO says nothing about a host.
3. Writing is atomic and durable: a temporary file beside the target, fsync, rename, fsync of the directory.
   On /etc/pve (pmxcfs, a FUSE file system) mode and owner are not ours to set, so they are left alone there.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import itertools
import os
import stat
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from .base import Busy, HostError, Missing, Ran, Refused, Room, Unreadable

if TYPE_CHECKING:
    from subprocess import Popen

READ_LIMIT = 16 * 1024 * 1024
NAMES_LIMIT = 100_000
"""Names in one directory of a tree; no directory that is looked into has a hundredth of them."""
KILL_SECONDS = 2.0
"""How long a killed program is given to be gone."""
_MAX_LINKS = 40
_ABSENT = frozenset({errno.ENOENT, errno.ENOTDIR})
_NOT_PLAIN = {
    stat.S_IFDIR: "Is a directory", stat.S_IFIFO: "a FIFO", stat.S_IFSOCK: "a socket",
    stat.S_IFCHR: "a device node", stat.S_IFBLK: "a device node",
}  # fmt: skip
_READ = os.O_RDONLY | os.O_CLOEXEC | os.O_NONBLOCK


class Local:
    """A host made of files and programs."""

    def __init__(self, root: str = "/") -> None:
        self._root = os.path.realpath(root).rstrip("/")
        self.name = f"root:{root}" if self._root else "local"
        self.changeable = not self._root
        self._directories: dict[str, str] = {}

    # -- questions ---------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        try:
            handle = self._open(path)
            try:
                return _drain(handle, path)
            finally:
                os.close(handle)
        except (OSError, ValueError) as error:
            raise _answer(path, error) from error

    def head(self, path: str, size: int) -> bytes:
        try:
            handle = self._open(path)
            try:
                return os.read(handle, size)
            finally:
                os.close(handle)
        except (OSError, ValueError) as error:
            raise _answer(path, error) from error

    def names(self, path: str) -> tuple[str, ...]:
        with _answering(path):
            if not self._root:
                return tuple(sorted(os.listdir(path)))
            with os.scandir(self.real(path)) as entries:
                found = [entry.name for entry in itertools.islice(entries, NAMES_LIMIT + 1)]
        if len(found) > NAMES_LIMIT:
            raise Unreadable(path, f"more than {NAMES_LIMIT} names")
        return tuple(sorted(found))

    def link(self, path: str) -> str:
        with _answering(path):
            directory, _, name = path.rpartition("/")
            return os.readlink(f"{self._directory(directory)}/{name}")

    def room(self, path: str) -> Room:
        if self._root:
            raise Unreadable(path, "free space of the host behind a directory tree is not known")
        with _answering(path):
            answer = os.statvfs(path)
            return Room(answer.f_blocks * answer.f_frsize, answer.f_bavail * answer.f_frsize)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if self._root:
            raise Unreadable(argv[0], "no program is started for a directory tree")
        return run_program(argv, stdin, timeout)

    # -- effects -----------------------------------------------------------------------------

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        self._may_change(path)
        with _answering(path):
            if path.startswith(("/sys/", "/proc/")):
                _write_attribute(self.real(path), data or b"")
            else:
                replace_file(self.real(path), data, mode, foreign=path.startswith("/etc/pve/"))

    def append(self, path: str, data: bytes) -> None:
        self._may_change(path)
        with _answering(path):
            append_file(self.real(path), data)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._may_change(path)
        with _answering(path), contextlib.suppress(FileExistsError):
            os.mkdir(self.real(path), mode)
            _sync_directory(os.path.dirname(self.real(path).rstrip("/")) or "/")

    def remove_dir(self, path: str) -> None:
        self._may_change(path)
        with _answering(path), contextlib.suppress(FileNotFoundError):
            os.rmdir(self.real(path))

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[None]:
        self._may_change(path)
        with _answering(path):
            os.makedirs(os.path.dirname(self.real(path)), exist_ok=True)
            handle = os.open(self.real(path), os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
        try:
            try:
                fcntl.flock(handle, fcntl.LOCK_EX | fcntl.LOCK_NB)
            except BlockingIOError:
                raise Busy(path, "another run holds the lock") from None
            yield
        finally:
            os.close(handle)

    # -- paths -------------------------------------------------------------------------------

    def _open(self, path: str) -> int:
        """Open for reading; below a root only a plain file, and only after a look at what it is."""
        if not self._root:
            return os.open(path, _READ)
        place = self.real(path)
        kind = stat.S_IFMT(os.lstat(place).st_mode)
        if kind != stat.S_IFREG:
            raise OSError(errno.EISDIR if kind == stat.S_IFDIR else errno.EINVAL, _NOT_PLAIN.get(kind, "no plain file"))
        return os.open(place, _READ | os.O_NOFOLLOW)

    def real(self, path: str) -> str:
        """Where `path` of this host lies on the machine that runs us. Raises OSError for a loop of links."""
        if not self._root:
            return path
        directory, _, name = path.rpartition("/")
        target = f"{self._directory(directory)}/{name}"
        return self._resolve(path) if name in (".", "..") or os.path.islink(target) else target

    def _directory(self, path: str) -> str:
        if not self._root:
            return path
        known = self._directories.get(path)
        if known is None:
            known = self._directories[path] = self._resolve(path)
        return known

    def _resolve(self, path: str) -> str:
        """Walk `path` below the root, links included; `..` stops at the root as in a chroot."""
        pending = [part for part in reversed(path.split("/")) if part and part != "."]
        done: list[str] = []
        links = 0
        while pending:
            part = pending.pop()
            if part == "..":
                del done[-1:]
                continue
            here = "/".join((self._root, *done, part))
            try:
                text = os.readlink(here)
            except OSError:
                done.append(part)
                continue
            links += 1
            if links > _MAX_LINKS:
                raise OSError(errno.ELOOP, "too many links")
            if text.startswith("/"):
                done.clear()
            pending += [piece for piece in reversed(text.split("/")) if piece and piece != "."]
        return "/".join((self._root, *done))

    def _may_change(self, path: str) -> None:
        if not self.changeable:
            raise Refused(path, "a directory tree is only read, never changed")


@contextlib.contextmanager
def _answering(path: str) -> Iterator[None]:
    """Turn the operating system's refusals into the host's two ways not to answer."""
    try:
        yield
    except (OSError, ValueError) as error:
        raise _answer(path, error) from error


def _answer(path: str, error: OSError | ValueError) -> HostError:
    if isinstance(error, ValueError):  # NUL, or a character that no file system encodes
        return Unreadable(path, "no name that a file can have")
    reason = error.strerror or str(error)
    if error.errno in _ABSENT:
        return Missing(path, reason)
    if error.errno == errno.EROFS:
        return Refused(path, reason)
    return Unreadable(path, reason)


def _drain(handle: int, path: str) -> bytes:
    """Read to the end in as few calls as possible: sysfs gives up to a page at once (fs/kernfs/file.c).

    A short read says nothing elsewhere: /proc ends one before the first line that does not fit into a page
    (fs/seq_file.c, seq_read_iter), so that /proc/modules comes in pieces of some 4050 bytes.
    """
    chunk = os.read(handle, 65536)
    if len(chunk) < 4096 and path.startswith("/sys/"):
        return chunk
    if not chunk and not stat.S_ISREG(os.fstat(handle).st_mode):
        raise Unreadable(path, "no plain file")
    parts = [chunk]
    total = len(chunk)
    while chunk:
        chunk = os.read(handle, 1 << 20)
        parts.append(chunk)
        total += len(chunk)
        if total > READ_LIMIT:
            raise Unreadable(path, f"longer than {READ_LIMIT} bytes")
    return b"".join(parts)


def run_program(argv: Sequence[str], stdin: bytes, timeout: float) -> Ran:
    """Run a program with LC_ALL=C, so that its words do not depend on the administrator's language."""
    import subprocess

    environment = {**os.environ, "LC_ALL": "C", "LANGUAGE": "C"}
    environment["PATH"] = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
    pipe = subprocess.PIPE
    try:
        process = subprocess.Popen(list(argv), stdin=pipe, stdout=pipe, stderr=pipe, env=environment)
    except OSError as error:
        if error.errno in _ABSENT:
            raise Missing(argv[0], "no such program") from error
        raise Unreadable(argv[0], error.strerror or str(error)) from error
    except ValueError as error:
        raise Unreadable(argv[0], f"no argument that a program can have: {error}") from error
    try:
        said, complained = process.communicate(stdin, timeout)
    except subprocess.TimeoutExpired as error:
        _abandon(process)
        raise Unreadable(argv[0], f"gave no answer in {timeout:g} s") from error
    except BaseException:
        _abandon(process)
        raise
    return Ran(process.returncode, said.decode("utf-8", "replace"), complained.decode("utf-8", "replace"))


def _abandon(process: Popen[bytes]) -> None:
    """End a program, and do not wait for one that the kernel will not let go.

    A process in uninterruptible sleep (a pool without its disks, a driver that hangs in unbind) does not even die of
    SIGKILL; `subprocess.run` would wait for it without end, so a time-out would be none.
    """
    import subprocess

    process.kill()
    with contextlib.suppress(subprocess.TimeoutExpired):
        process.wait(KILL_SECONDS)
    for stream in (process.stdin, process.stdout, process.stderr):
        if stream is not None:
            with contextlib.suppress(OSError):
                stream.close()


def _write_attribute(path: str, data: bytes) -> None:
    """One write(2) into an existing kernel attribute; the kernel's refusal is the error."""
    handle = os.open(path, os.O_WRONLY | os.O_CLOEXEC)
    try:
        os.write(handle, data)
    finally:
        os.close(handle)


def replace_file(path: str, data: bytes | None, mode: int | None, foreign: bool = False) -> None:
    """Give `path` the content `data` in one step that survives a power cut, or remove it.

    `foreign`: a file system that manages mode and owner itself.
    """
    path = os.path.realpath(path) if os.path.islink(path) else path
    directory = os.path.dirname(path)
    if data is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(path)
    else:
        temporary = f"{directory}/.{os.path.basename(path)}.pve-passthrough"
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        try:
            try:
                _write_all(handle, data)
                if not foreign:
                    _dress(handle, path, mode)
                os.fsync(handle)
            finally:
                os.close(handle)
            os.rename(temporary, path)
        except OSError:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise
    _sync_directory(directory)


def _dress(handle: int, path: str, mode: int | None) -> None:
    """Mode and owner: those of the file that is replaced, 0644 root for a new one, `mode` when it is given."""
    try:
        old = os.stat(path)
    except FileNotFoundError:
        os.fchmod(handle, 0o644 if mode is None else mode)
        return
    os.fchown(handle, old.st_uid, old.st_gid)
    os.fchmod(handle, stat.S_IMODE(old.st_mode) if mode is None else mode)


def append_file(path: str, data: bytes) -> None:
    new = not os.path.exists(path)
    handle = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
    try:
        _write_all(handle, data)
        os.fsync(handle)
    finally:
        os.close(handle)
    if new:
        _sync_directory(os.path.dirname(path))


def _write_all(handle: int, data: bytes) -> None:
    view = memoryview(data)
    while view:
        view = view[os.write(handle, view) :]


def _sync_directory(directory: str) -> None:
    """Make a rename durable. FUSE file systems may not offer fsync on a directory; they are synchronous themselves."""
    handle = os.open(directory, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        with contextlib.suppress(OSError):
            os.fsync(handle)
    finally:
        os.close(handle)
