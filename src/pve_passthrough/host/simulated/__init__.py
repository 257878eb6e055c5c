"""A simulated machine as a host: `sim:DIR`.

1. Every question is answered from the directory's tree; /sim, the simulation's own knowledge, is hidden.
2. A write into /sys obeys the kernel's rules (world.sysfs); a program is a function in a table (programs).
3. A machine that did not start answers nothing.
4. Room on file systems is what machine.json says under `rooms` and does not shrink while files are written.
"""

from __future__ import annotations

import contextlib
import errno
import os
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..base import Host, HostError, Missing, Ran, Refused, Room, Unreadable
from .world import STATE, SysfsError, World, replace_quickly

if TYPE_CHECKING:
    from .spec import MachineSpec

__all__ = [
    "SEEDS",
    "Simulated",
    "World",
    "become",
    "create",
    "create_from",
    "finish_boot",
    "move",
    "plug",
    "power_cut",
    "power_on",
    "unplug",
]

SEEDS = (
    "default", "intel-6.5-grub", "intel-zfs", "amd-secureboot", "mixed", "bios-grub", "twins", "shared-sata",
    "only-display", "rtx-3080", "p40-node", "amd-apu", "intel-igpu", "arc", "polaris", "usb-desk", "storage-node",
    "sriov-nic", "sriov-igpu",
    "containers", "containers-nvidia",
    "gvt-g", "vgpu-node", "vgpu-bare", "vgpu-old",
    "slow-guest", "quick-guest",
)  # fmt: skip
"""Names of the built-in machines."""

_GENEROUS = Room(64 << 30, 32 << 30)


class Simulated:
    """See the module's rules. `directory` was made by `create` or `create_from`."""

    changeable = True

    def __init__(self, directory: str) -> None:
        self.name = f"sim:{directory}"
        self.world = World(directory)
        if not os.path.isfile(f"{self.world.directory}/sim/machine.json"):
            raise Missing(directory, "no simulated machine lies here")
        self._seen: tuple[int, ...] = ()
        self._down = ""

    # -- questions ---------------------------------------------------------------------------

    def read(self, path: str) -> bytes:
        self._awake(path)
        return self._rom(path) if path.startswith("/sys/") and path.endswith("/rom") else self.world.tree.read(path)

    def head(self, path: str, size: int) -> bytes:
        return self.read(path)[:size]

    def _rom(self, path: str) -> bytes:
        from . import option_rom

        try:
            return option_rom.read(self.world, path)
        except SysfsError as error:
            raise _answer(path, error) from error

    def names(self, path: str) -> tuple[str, ...]:
        self._awake(path)
        found = self.world.tree.names(path)
        return tuple(name for name in found if name != "sim") if not path.strip("/") else found

    def link(self, path: str) -> str:
        self._awake(path)
        return self.world.tree.link(path)

    def room(self, path: str) -> Room:
        self._awake(path)
        rooms = self.world.machine().get("rooms", {})
        holders = [name for name in rooms if path == name or path.startswith(name.rstrip("/") + "/")]
        if not holders:
            return _GENEROUS
        total, free = rooms[max(holders, key=len)]
        return Room(total, free)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        from . import programs

        self._awake(argv[0])
        return programs.start(self.world, argv, stdin)

    # -- effects -----------------------------------------------------------------------------

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        self._may_write(path, len(data or b""))
        if path.startswith("/sys/"):
            self._write_attribute(path, data or b"")
            return
        with _answering(path):
            real = self.world.tree.real(path)
            if path.startswith("/proc/") and not os.path.exists(real):
                raise FileNotFoundError(errno.ENOENT, os.strerror(errno.ENOENT))
            if os.path.isdir(real):
                raise IsADirectoryError(errno.EISDIR, os.strerror(errno.EISDIR))
            replace_quickly(real, data, mode)

    def append(self, path: str, data: bytes) -> None:
        self._may_write(path, len(data))
        with _answering(path):
            handle = os.open(self.world.tree.real(path), os.O_WRONLY | os.O_CREAT | os.O_APPEND | os.O_CLOEXEC, 0o600)
            try:
                os.write(handle, data)
            finally:
                os.close(handle)

    def make_dir(self, path: str, mode: int = 0o755) -> None:
        self._may_write(path, 0)
        with _answering(path), contextlib.suppress(FileExistsError):
            os.mkdir(self.world.tree.real(path), mode)

    def remove_dir(self, path: str) -> None:
        self._may_write(path, 0)
        with _answering(path), contextlib.suppress(FileNotFoundError):
            os.rmdir(self.world.tree.real(path))

    @contextlib.contextmanager
    def lock(self, path: str) -> Iterator[None]:
        self._may_write(path, 0)
        with self.world.tree.lock(path):
            yield

    # -- rules -------------------------------------------------------------------------------

    def _awake(self, path: str) -> None:
        """Not hidden, and the machine runs. The state file is looked into only when it has changed."""
        if path.startswith("/"):
            normal = self.world.tree.real(os.path.normpath(path))
            if normal.startswith(f"{self.world.directory}/sim/") or normal == f"{self.world.directory}/sim":
                raise Missing(path, os.strerror(errno.ENOENT))
        with contextlib.suppress(OSError):
            stamp = os.stat(self.world.directory + STATE)
            seen = (stamp.st_ino, stamp.st_mtime_ns, stamp.st_size)
            if seen != self._seen:
                self._seen, self._down = seen, str(self.world.state().get("down", ""))
        if self._down:
            raise Unreadable(path, f"the simulated machine did not start: {self._down}")

    def _may_write(self, path: str, size: int) -> None:
        self._awake(path)
        if path.startswith("/etc/pve/") and self.world.machine().get("pve_readonly"):
            raise Refused(path, "Permission denied: the cluster file system is read-only")
        if size and size > self.room(path).free:
            raise Unreadable(path, os.strerror(errno.ENOSPC))

    def _write_attribute(self, path: str, data: bytes) -> None:
        from . import display

        try:
            self.world.sysfs(path, data.decode("utf-8", "replace"))
        except SysfsError as error:
            raise _answer(path, error) from error
        if display.concerns(path):
            display.settle(self.world)


@contextlib.contextmanager
def _answering(path: str) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise _answer(path, error) from error


def _answer(path: str, error: OSError) -> HostError:
    reason = error.strerror or str(error)
    return Missing(path, reason) if error.errno in (errno.ENOENT, errno.ENOTDIR) else Unreadable(path, reason)


def create(directory: str, seed: str | MachineSpec = "default") -> Simulated:
    """Make a machine from a built-in description and switch it on. Raises Failure."""
    from . import build

    build.create(directory, seed)
    return Simulated(directory)


def create_from(directory: str, source: Host) -> Simulated:
    """Make a machine from any host that answers, and switch it on. Raises Failure."""
    from . import transplant

    transplant.create_from(directory, source)
    return Simulated(directory)


def power_on(world: World, cmdline: str | None = None) -> None:
    """Start the machine (again); `cmdline` is typed at the boot menu."""
    from . import boot

    boot.power_on(world, cmdline)


def power_cut(world: World) -> None:
    """Lose everything volatile without a shutdown, and start."""
    from . import boot

    boot.power_cut(world)


def move(world: World, old: str, new: str) -> None:
    """Renumber the bus of a card and start the machine again. Raises Failure."""
    from . import moving

    moving.move(world, old, new)


def unplug(world: World, port: str) -> None:
    """Pull a USB device from its port. Raises Failure."""
    from . import usb_plugging

    usb_plugging.unplug(world, port)


def plug(world: World, port: str, *, pulled: str = "", ids: str = "", name: str = "") -> None:
    """Plug in the USB device that was pulled from `pulled` (default: from this port), or a new one. Raises Failure."""
    from . import usb_plugging

    if ids:
        usb_plugging.plug_new(world, port, ids, name)
    else:
        usb_plugging.plug(world, port, pulled=pulled)


def become(world: World, port: str, ids: str) -> None:
    """The USB device in this port comes back with another vendor:product. Raises Failure."""
    from . import usb_plugging

    usb_plugging.become(world, port, ids)


def finish_boot(world: World) -> None:
    """The boot unit is done: guests with onboot start."""
    from . import boot

    boot.finish_boot(world)
