"""The simulated machine's matter: a directory of plain files, a little state, and the kernel's laws for PCI attributes.

1. The tree (etc, boot, sys, proc, var, run …) lies in the directory itself; anybody can look at it.
2. What no file of a real machine would show (firmware switches, which driver fits which device, guests running) is
   `sim/machine.json` (what the machine is) and `sim/state.json` (what has happened since power-on).
3. A write to a PCI attribute goes through `sysfs` and obeys drivers/pci/pci-driver.c and drivers/base/bus.c
   (kernel ABI: Documentation/ABI/testing/sysfs-bus-pci); every such write is remembered in order.
4. Nothing here knows Proxmox, boot loaders or modprobe.
5. Files are replaced in one step (rename) but never synced: a power cut here is `boot.power_cut`, not a real one.
6. Class devices (a disk, an interface) live only as long as their driver holds the function: `machine.json` lists them
   under `classes`, {address: {driver: {path of a link: its text}}}.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import posixpath
import shutil
from collections.abc import Callable, Sequence
from typing import Any

from ..base import Missing, Ran, Unreadable, to_bytes
from ..local import Local
from . import resets, sriov

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
PLATFORM = "/sys/bus/platform"
MACHINE = "/sim/machine.json"
STATE = "/sim/state.json"


_DENIED = frozenset(f"8086 {one}" for one in ("19e2", "19e3", "37c8", "37c9", "0435", "0443", "0b25", "0cfe"))
"""What vfio-pci's probe refuses (kernel 6.18: drivers/vfio/pci/vfio_pci.c, vfio_pci_dev_in_denylist)."""


def denied(identity: str, options: str) -> bool:
    """Whether vfio-pci, loaded with these options, refuses a function with this `vvvv dddd`."""
    return identity in _DENIED and not any(f"disable_denylist={yes}" in options.split() for yes in ("1", "Y", "y"))


class SysfsError(OSError):
    """What write(2) into an attribute answers, e.g. SysfsError(ENODEV)."""

    def __init__(self, number: int, path: str) -> None:
        super().__init__(number, os.strerror(number), path)


class Tree(Local):
    """The directory as a root. It changes under our hands, so only places that no law moves are remembered."""

    def __init__(self, root: str) -> None:
        super().__init__(root)
        self.changeable = True

    def _directory(self, path: str) -> str:
        if path.startswith(DRIVERS) or "/driver" in path or "/iommu_group" in path or not path.startswith("/sys/"):
            return self._resolve(path)
        known = self._directories.get(path)
        if known is None:
            known = self._resolve(path)
            if os.path.isdir(known):
                self._directories[path] = known
        return known


class World:
    """One simulated machine below `directory`."""

    def __init__(self, directory: str) -> None:
        self.directory = os.path.realpath(directory)
        self.tree: Local = Tree(self.directory)
        self.own_program: Callable[[Sequence[str]], Ran] | None = None
        """How this very program runs on the machine, when somebody has said so: argument vector to what it said."""

    def forget_places(self) -> None:
        """Directories have moved: nothing that was remembered of the tree holds."""
        self.tree = Tree(self.directory)

    # -- files -------------------------------------------------------------------------------

    def text(self, path: str) -> str | None:
        """A file's text, None when it is not there."""
        try:
            return self.tree.read(path).decode("utf-8", "surrogateescape")
        except (Missing, Unreadable):
            return None

    def names(self, path: str) -> tuple[str, ...]:
        """Names in a directory; none when it is not there."""
        try:
            return self.tree.names(path)
        except Missing:
            return ()

    def link(self, path: str) -> str | None:
        try:
            return self.tree.link(path)
        except (Missing, Unreadable):
            return None

    def exists(self, path: str) -> bool:
        return os.path.lexists(self.tree.real(path))

    def put(self, path: str, text: str | None, mode: int | None = None) -> None:
        """Write a plain file (parents are made) or remove it."""
        real = self.tree.real(path)
        data = None if text is None else to_bytes(text)
        try:
            replace_quickly(real, data, mode)
        except FileNotFoundError:
            os.makedirs(os.path.dirname(real), exist_ok=True)
            replace_quickly(real, data, mode)

    def make_dir(self, path: str) -> None:
        """A directory and its parents."""
        os.makedirs(self.tree.real(path), exist_ok=True)

    def forget_process(self, pid: int) -> None:
        """A process that has ended."""
        shutil.rmtree(self.tree.real(f"/proc/{pid}"), ignore_errors=True)

    def put_link(self, path: str, target: str | None) -> None:
        """Make or remove a symbolic link; `target` is its text."""
        directory, _, name = path.rpartition("/")
        real = f"{self.tree.real(directory)}/{name}"
        with contextlib.suppress(OSError):
            os.unlink(real)
        if target is not None:
            try:
                os.symlink(target, real)
            except FileNotFoundError:
                os.makedirs(os.path.dirname(real), exist_ok=True)
                os.symlink(target, real)

    # -- state -------------------------------------------------------------------------------

    def machine(self) -> dict[str, Any]:
        """What the machine is: `natural` {address: {driver, module, others: [{driver, module}]}}, `groups`, `classes`,
        `firmware`, `cpu`, `esps`, `rooms`, `failing`, `guests`, `faults`, `pve`, `pve_readonly`, `invented` …"""
        return self._json(MACHINE)

    def state(self) -> dict[str, Any]:
        """What has happened since power-on: `dynamic_ids` {driver: ["10de 2684"]}, `sysfs_writes`, `running` …"""
        return self._json(STATE)

    def save_machine(self, machine: dict[str, Any]) -> None:
        self.put(MACHINE, json.dumps(machine, indent=1, sort_keys=True) + "\n")

    def save_state(self, state: dict[str, Any]) -> None:
        self.put(STATE, json.dumps(state, indent=1, sort_keys=True) + "\n")

    def _json(self, path: str) -> dict[str, Any]:
        text = self.text(path)
        loaded: dict[str, Any] = json.loads(text) if text else {}
        return loaded

    # -- PCI devices and drivers -------------------------------------------------------------

    def addresses(self) -> tuple[str, ...]:
        return self.names(DEVICES)

    def attribute(self, address: str, name: str) -> str | None:
        """Trimmed text of one attribute of a device."""
        text = self.text(f"{DEVICES}/{address}/{name}")
        return None if text is None else text.strip()

    def driver_of(self, address: str) -> str | None:
        target = self.link(f"{DEVICES}/{address}/driver")
        return None if target is None else posixpath.basename(target)

    def group_of(self, address: str) -> int | None:
        target = self.link(f"{DEVICES}/{address}/iommu_group")
        return None if target is None else int(posixpath.basename(target))

    def id_of(self, address: str) -> str:
        """`10de 2684`, the form that new_id takes."""
        parts = (self.attribute(address, name) or "" for name in ("vendor", "device"))
        return " ".join(part.removeprefix("0x").lower() for part in parts)

    def load_driver(self, driver: str, ids: tuple[str, ...] = ()) -> None:
        """Register a driver (its module has been loaded, with these `vvvv dddd` ids) and let it bind what it can."""
        self.register_driver(driver)
        for known in ids:
            self._learn(driver, known)
        for address in self.addresses():
            if self.driver_of(address) is None and self.fits(driver, address):
                self._attach(address, driver)

    def register_driver(self, driver: str) -> None:
        """The driver's directory with its attributes; nothing is bound yet."""
        if not self.driver_loaded(driver):
            for name in ("bind", "unbind", "new_id", "remove_id"):
                self.put(f"{DRIVERS}/{driver}/{name}", "")
            for natural in self.machine().get("natural", {}).values():
                if natural.get("driver") == driver and natural.get("module"):
                    self.put_link(f"{DRIVERS}/{driver}/module", f"../../../../module/{natural['module']}")
                    break

    def place(self, address: str, driver: str | None) -> None:
        """Let `driver` (None: nobody) hold the function, whoever held it before. What power-on decides, not a write."""
        now = self.driver_of(address)
        if now == driver:
            return
        if now is not None:
            self._detach(address, now)
        if driver is not None:
            self._attach(address, driver)

    def driver_loaded(self, driver: str) -> bool:
        return self.exists(f"{DRIVERS}/{driver}/bind")

    def fits(self, driver: str, address: str) -> bool:
        """pci_match_device: an override admits its driver alone; else dynamic ids, else the driver's own table."""
        if driver == "vfio-pci" and denied(self.id_of(address), self._denylist_switch()):
            return False
        override = self.attribute(address, "driver_override")
        if override and override != "(null)":
            return override == driver
        if sriov.left_alone(self, address):
            return False
        if self.id_of(address) in self.state().get("dynamic_ids", {}).get(driver, ()):
            return True
        natural: dict[str, Any] = self.machine().get("natural", {}).get(address, {})
        return any(entry.get("driver") == driver for entry in (natural, *natural.get("others", ())))

    def _denylist_switch(self) -> str:
        text = self.text("/sys/module/vfio_pci/parameters/disable_denylist") or ""
        return f"disable_denylist={text.strip()}"

    def sysfs(self, path: str, text: str) -> None:
        """write(2) of `text` into a kernel attribute. Raises SysfsError as the kernel would."""
        value = text.strip("\n")
        self._remember(path, value)
        directory, _, name = path.rpartition("/")
        if directory.startswith(f"{DRIVERS}/"):
            self._driver_attribute(posixpath.basename(directory), name, value, path)
        elif directory.startswith(f"{PLATFORM}/drivers/") and name in ("bind", "unbind"):
            self._platform_driver(posixpath.basename(directory), name, value, path)
        elif path == "/sys/bus/pci/drivers_probe":
            self._probe(value, path)
        elif name == "driver_override":
            self._require(path)
            self._keep(path)
            self.put(path, (value or "(null)") + "\n")
        elif name == "rom":
            from . import option_rom

            self._require(path)
            option_rom.write(self, path, text)
        elif name.startswith("resource") and name.endswith("_resize"):
            from . import bars

            self._require(path)
            bars.store(self, path, value)
        elif name == "enable":
            self._require(path)
            self._enable(posixpath.basename(directory), value, path)
        elif name == "reset":
            self._require(path)
            self._fault("reset", posixpath.basename(directory), errno.ENOTTY, path)
            if self._shares_its_only_reset(posixpath.basename(directory)):
                raise SysfsError(errno.ENOTTY, path)
            resets.happened(self, posixpath.basename(directory))
        elif sriov.concerns(path):
            self._require(path)
            self._keep(path)
            self.put(path, sriov.write(self, path, value) + "\n")
        elif resets.concerns(path):
            self._require(path)
            self._keep(path)
            self.put(path, resets.write(self, path, value) + "\n")
        else:
            self._require(path)
            self._plain(path, value)

    def _plain(self, path: str, value: str) -> None:
        """An attribute that keeps what is written, or one that makes, ends or chooses a share of the device."""
        from . import mediated

        if mediated.concerns(path):
            mediated.write(self, path, value)
            return
        self._keep(path)
        self.put(path, value + "\n")

    def _enable(self, address: str, value: str, path: str) -> None:
        """drivers/pci/pci-sysfs.c, enable_store: only a function without a driver can be switched, and off but once."""
        if self.driver_of(address) is not None:
            raise SysfsError(errno.EBUSY, path)
        if value == "0" and self.attribute(address, "enable") == "0":
            raise SysfsError(errno.EIO, path)
        self._keep(path)
        self.put(path, ("0" if value == "0" else "1") + "\n")

    def _platform_driver(self, driver: str, name: str, device: str, path: str) -> None:
        """As for PCI functions (drivers/base/bus.c); a platform driver takes the devices that bear its name."""
        self._require(path)
        link = f"{PLATFORM}/devices/{device}/driver"
        here = self.exists(f"{PLATFORM}/devices/{device}") and device.partition(".")[0] == driver
        if not here or (self.link(link) is None) != (name == "bind"):
            raise SysfsError(errno.ENODEV, path)
        self.put_link(link, f"../../../bus/platform/drivers/{driver}" if name == "bind" else None)

    def _driver_attribute(self, driver: str, name: str, value: str, path: str) -> None:
        self._require(path)
        if name == "bind":
            self._require_device(value, path)
            self._fault("bind", value, errno.EIO, path)
            if self.driver_of(value) is not None:
                raise SysfsError(errno.EBUSY, path)
            if not self.fits(driver, value):
                raise SysfsError(errno.ENODEV, path)
            self._attach(value, driver)
        elif name == "unbind":
            if self.driver_of(value) != driver:
                raise SysfsError(errno.ENODEV, path)
            self._fault("unbind", value, errno.EBUSY, path)
            self._detach(value, driver)
        elif name == "new_id":
            if not self._learn(driver, value.lower()):
                raise SysfsError(errno.EEXIST, path)
            for address in self.addresses():
                if self.driver_of(address) is None and self.fits(driver, address):
                    self._attach(address, driver)
        elif name == "remove_id":
            state = self.state()
            known = state.get("dynamic_ids", {}).get(driver, [])
            if value.lower() not in known:
                raise SysfsError(errno.ENODEV, path)
            known.remove(value.lower())
            self.save_state(state)

    def _probe(self, address: str, path: str) -> None:
        self._require_device(address, path)
        if self.driver_of(address) is None:
            for driver in self.names(DRIVERS):
                if self.driver_loaded(driver) and self.fits(driver, address):
                    self._attach(address, driver)
                    return

    def _attach(self, address: str, driver: str) -> None:
        device = self.device_directory(address)
        up = "../" * (device.count("/") - 1)
        self.put_link(f"{device}/driver", f"{up}bus/pci/drivers/{driver}")
        self.put_link(f"{DRIVERS}/{driver}/{address}", f"../../../../{device.removeprefix('/sys/')}")
        for path, target in self._class_links(address, driver).items():
            self.put_link(path, target)
        self._shares(address)

    def _detach(self, address: str, driver: str) -> None:
        sriov.let_go(self, address)
        self.put_link(f"{self.device_directory(address)}/driver", None)
        self.put_link(f"{DRIVERS}/{driver}/{address}", None)
        for path in self._class_links(address, driver):
            self.put_link(path, None)
        self._shares(address)

    def _shares(self, address: str) -> None:
        """Types of mediated devices come and go with the driver that offers them."""
        if address in self.machine().get("mediated", {}):
            from . import mediated

            mediated.settle(self, address)

    def _class_links(self, address: str, driver: str) -> dict[str, str]:
        links: dict[str, str] = self.machine().get("classes", {}).get(address, {}).get(driver, {})
        return links

    def device_directory(self, address: str) -> str:
        """Where the function's directory really lies: /sys/devices/pci0000:00/…"""
        target = self.link(f"{DEVICES}/{address}")
        return posixpath.normpath(f"{DEVICES}/{target}") if target else f"{DEVICES}/{address}"

    def _learn(self, driver: str, identity: str) -> bool:
        state = self.state()
        known = state.setdefault("dynamic_ids", {}).setdefault(driver, [])
        if identity in known:
            return False
        known.append(identity)
        self.save_state(state)
        return True

    def _remember(self, path: str, value: str) -> None:
        state = self.state()
        state.setdefault("sysfs_writes", []).append([path, value])
        self.save_state(state)

    def _keep(self, path: str) -> None:
        """Remember what power-on has to bring back: the text before the first write (`state.json`: `attributes`)."""
        state = self.state()
        state.setdefault("attributes", {}).setdefault(path, self.text(path))
        self.save_state(state)

    def _fault(self, action: str, address: str, number: int, path: str) -> None:
        """A defect of the machine: `machine.json` lists `faults` such as "bind:0000:01:00.1"."""
        if f"{action}:{address}" in self.machine().get("faults", ()):
            raise SysfsError(number, path)

    def _shares_its_only_reset(self, address: str) -> bool:
        """A bus is reset for one function only when no other lies on it (drivers/pci/pci.c, pci_parent_bus_reset). Yet
        function 0 shows `bus` and the attribute: it was asked before the others were found (seen in Debian 12)."""
        bus = address.rpartition(":")[0]
        alone = sum(other.startswith(f"{bus}:") for other in self.addresses()) == 1
        shown = self.attribute(address, "reset_method")
        return shown == "" or (shown == "bus" and not alone)

    def _require(self, path: str) -> None:
        if not self.exists(path):
            raise SysfsError(errno.ENOENT, path)

    def _require_device(self, address: str, path: str) -> None:
        if not self.exists(f"{DEVICES}/{address}"):
            raise SysfsError(errno.ENODEV, path)


def replace_quickly(real: str, data: bytes | None, mode: int | None = None) -> None:
    """Give the file `real` its content in one step, or remove it. It keeps its mode unless one is given."""
    if data is None:
        with contextlib.suppress(FileNotFoundError):
            os.unlink(real)
        return
    directory, _, name = real.rpartition("/")
    temporary = f"{directory}/.{name}.new"
    with contextlib.suppress(OSError):
        mode = os.stat(real).st_mode & 0o7777 if mode is None else mode
    try:
        handle = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_CLOEXEC, 0o644)
        try:
            os.write(handle, data)
            if mode is not None:
                os.fchmod(handle, mode)
        finally:
            os.close(handle)
        os.rename(temporary, real)
    except OSError:
        with contextlib.suppress(OSError):
            os.unlink(temporary)
        raise
