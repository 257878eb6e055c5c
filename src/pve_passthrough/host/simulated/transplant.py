"""A simulated machine made from a host that answers: a recording, a bare sysfs tree, or the machine itself.

1. The source is only asked, never changed; links are asked for as links and rewritten so that none leads out.
2. What is copied is bounded: each file at most a mebibyte (package and name lists more), together 40,000 files, links
   and directories and 256 MiB. A name that is not one plain component of a path is passed over.
3. What the source could not tell is taken from an ordinary Proxmox host, and each such part is named in
   `machine.json` under `invented`.
"""

from __future__ import annotations

import contextlib
import posixpath
import re
from typing import Any

from ...errors import Failure
from ..base import Host, HostError
from ..replay import Answers, Replay
from . import build, etc, initramfs, sriov, sysfs
from .spec import Root
from .world import DEVICES, World

MOST_FILES = 40_000
MOST_BYTES = 256 << 20
MOST_FUNCTIONS = 4096
LONGEST = 1 << 20
LONG_FILES = frozenset({"/var/lib/dpkg/status", "/usr/share/misc/pci.ids"})

ATTRIBUTES = (
    "vendor", "device", "subsystem_vendor", "subsystem_device", "class", "revision", "boot_vga", "numa_node", "enable",
    "power_state", "d3cold_allowed", "resource", "reset", "reset_method", "current_link_speed", "current_link_width",
    "max_link_speed", "max_link_width", "modalias", "irq", "config", "sriov_totalvfs", "sriov_numvfs", "label",
    "sriov_offset", "sriov_stride", "sriov_vf_device", "sriov_drivers_autoprobe",
    *(f"resource{number}_resize" for number in range(6)),
)  # fmt: skip
"""Attributes of a function that are asked for by name; a recording may not have been asked for the listing."""

CLASSES = ("iommu", "net", "block", "drm", "graphics", "vtconsole", "dmi")

TREES = (
    "/etc/hostname", "/etc/machine-id", "/etc/hosts", "/etc/os-release", "/etc/fstab", "/etc/modules",
    "/etc/modules-load.d", "/etc/modprobe.d", "/etc/default/grub", "/etc/default/grub.d", "/etc/kernel",
    "/etc/initramfs-tools", "/etc/network", "/etc/pve", "/etc/zfs/zpool.cache", "/etc/udev/rules.d",
    "/usr/lib/modules-load.d", "/lib/modprobe.d", "/dev/mapper", "/dev/disk/by-uuid", "/dev/disk/by-id",
    "/proc/cpuinfo", "/proc/meminfo", "/proc/mounts", "/proc/swaps", "/proc/net/route", "/proc/net/ipv6_route",
    "/proc/iomem", "/proc/cmdline", "/proc/version", "/proc/sys/kernel/osrelease", "/proc/sys/kernel/hostname",
    "/var/lib/dpkg/status", "/usr/share/misc/pci.ids", "/sys/firmware/acpi/tables/DMAR",
    "/sys/firmware/acpi/tables/IVRS", "/sys/firmware/efi/fw_platform_size",
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c",
)  # fmt: skip

RECORDED = ("/etc/", "/proc/", "/dev/", "/sys/class/", "/sys/devices/", "/usr/share/misc/", "/var/lib/dpkg/")

USB = "/sys/bus/usb/devices"
LISTED = ("/slaves", "/brif", "/holders")

PRIVATE = ("/etc/pve/priv", "/etc/pve/nodes/.*/(priv|pve-ssl.key)", ".*\\.(key|pem)", "/etc/network/.*secret.*")
"""Never copied: keys and passwords have no business in a simulated machine."""

USUAL_DRIVERS: tuple[tuple[int, str, str, str | None], ...] = (
    (0x0300, "10de", "nouveau", "nouveau"),
    (0x0302, "10de", "nouveau", "nouveau"),
    (0x0300, "1002", "amdgpu", "amdgpu"),
    (0x0380, "1002", "amdgpu", "amdgpu"),
    (0x0300, "8086", "i915", "i915"),
    (0x0403, "", "snd_hda_intel", "snd_hda_intel"),
    (0x0C03, "", "xhci_hcd", "xhci_pci"),
    (0x0108, "", "nvme", "nvme"),
    (0x0106, "", "ahci", "ahci"),
    (0x0604, "", "pcieport", None),
)
"""(class and subclass, vendor, driver, module) that an ordinary host uses where the source does not say."""

MODULE_OF = {"xhci_hcd": "xhci_pci", "ehci-pci": "ehci_pci", "i801_smbus": "i2c_i801", "piix4_smbus": "i2c_piix4"}
BUILT_IN = frozenset({"pcieport", "shpchp", "ata_piix"})
_LONGEST_PATH = 2048
VIRTUAL_DRIVERS = {"igb": "igbvf", "ixgbe": "ixgbevf", "i40e": "iavf", "ice": "iavf", "bnxt_en": "bnxt_en",
                   "mlx5_core": "mlx5_core", "nvme": "nvme"}  # fmt: skip
"""Driver of a physical function → of its virtual ones, which no recording without any shows (kernel: the device tables
of drivers/net/ethernet and drivers/nvme/host/pci.c)."""
_DEEPEST = 64
"""Directories inside each other; a device's own path in sysfs has some twenty."""
_NAME = re.compile(r"[A-Za-z0-9][\w.:!-]{0,63}")
_USB = re.compile(r"usb\d{1,5}|\d{1,5}-\d{1,3}(\.\d{1,3}){0,6}(:\d{1,3}\.\d{1,3})?")
_PCI = re.compile(r"[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]")


def create_from(directory: str, source: Host) -> World:
    """See the module. Raises Failure when the directory is not empty or the source knows no PCI device."""
    try:
        addresses = [name for name in source.names(DEVICES) if _PCI.fullmatch(name)]
    except HostError as error:
        raise Failure(
            "sim.no-devices",
            f"{source.name} does not tell its PCI devices; nothing was written",
            str(error),
            hint="take a capture of the machine as root, or name a built-in machine",
        ) from error
    if len(addresses) > MOST_FUNCTIONS:
        raise Failure("sim.too-large", f"{source.name} tells of {len(addresses)} PCI functions; nothing was written")
    world = build.empty_world(directory)
    try:
        return _filled(world, source, addresses)
    except (OSError, ValueError, LookupError, TypeError, RecursionError) as error:
        raise Failure(
            "sim.odd-source",
            f"{source.name} holds what no machine has; {directory} is incomplete and of no use",
            f"{type(error).__name__}: {error}",
            hint=f"remove {directory}; a fresh capture of the machine may help",
        ) from error


def _filled(world: World, source: Host, addresses: list[str]) -> World:
    copy = _Copy(source, world)
    for address in addresses:
        copy.function(address)
    for path in TREES:
        copy.tree(path)
    for name in CLASSES:
        copy.entries(f"/sys/class/{name}")
    copy.entries(USB)
    if isinstance(source, Replay):
        copy.recorded(source.answers)
    copy.kernels()
    copy.rom_files()
    world.save_machine(_Gaps(copy).machine(addresses))
    build.first_boot(world)
    sriov.adopt(world)
    return world


class _Copy:
    """Asks and writes; counts files."""

    def __init__(self, source: Host, world: World) -> None:
        self.source = source
        self.world = world
        self.files = 0
        self.bytes = 0
        self.homes: dict[str, str] = {}
        self.asked: dict[str, str] = {}
        self.links: dict[str, dict[str, str]] = {}

    def function(self, address: str) -> None:
        """One PCI function: its attributes at its place below /sys/devices."""
        where = self.link(f"{DEVICES}/{address}")
        home = _absolute(f"{DEVICES}/{address}", where) if where else ""
        if not home.startswith("/sys/devices/") or not home.endswith(f"/{address}") or len(home) > _LONGEST_PATH:
            home = f"/sys/devices/pci{address.rpartition(':')[0]}/{address}"
        self.homes[address] = home
        self.make_dir(home)
        # A recording knows a function under the path that the probe used, which is the one behind the link.
        asked = self.asked[address] = home if self.names(home) else f"{DEVICES}/{address}"
        for name in ATTRIBUTES:
            text = self.text(f"{asked}/{name}")
            if text is None and asked == home:  # some probes ask by the link, and a recording has their words alone
                text = self.text(f"{DEVICES}/{address}/{name}")
            if text is not None:
                self.put(f"{home}/{name}", text)
        listing = self.names(asked)
        if "rom" in listing:
            self.put(f"{home}/rom", "")
        if "reset" in listing:
            self.put(f"{home}/reset", "")
        for bus in self.names(f"{asked}/pci_bus"):
            self.make_dir(f"{home}/pci_bus/{bus}")
        for name in listing:
            if name == "physfn" or re.fullmatch(r"virtfn[0-9]{1,5}", name):
                self.tree(f"{asked}/{name}", as_path=f"{home}/{name}")
        self.put(f"{home}/driver_override", "(null)\n")
        self.put_link(f"{DEVICES}/{address}", f"../../../{home.removeprefix('/sys/')}")

    def entries(self, directory: str) -> None:
        """Links of a class or bus directory, and a little of what lies behind each."""
        self.make_dir(directory)
        for name in self.names(directory):
            path = f"{directory}/{name}"
            text = self.link(path)
            if text is None:
                self.tree(path, depth=3)
                continue
            home = _absolute(path, text)
            if not home.startswith("/sys/devices/"):
                continue
            self.put_link(path, _relative(path, text))
            self.make_dir(home)  # a recording may know the link alone; what it leads to is there
            self.tree(home, depth=2)
            found = _PCI.findall(home)
            if found and found[-1] in self.homes:
                self.links.setdefault(found[-1], {})[path] = _relative(path, text)

    def tree(self, path: str, depth: int = 6, as_path: str = "") -> None:
        """A file, a link (as a link) or a directory with what is in it, `depth` levels deep."""
        to = as_path or path
        if self.files > MOST_FILES or any(re.fullmatch(pattern, path) for pattern in PRIVATE):
            return
        link = self.link(path)
        if link is not None:
            if not self.world.exists(to):
                self.put_link(to, _relative(to, link))
            return
        names = self.names(path, none_is_file=True)
        if names is None:
            text = self.text(path)
            if text is not None:
                self.put(to, text)
            return
        self.make_dir(to)
        for name in names if depth > 0 else ():
            if not _PCI.fullmatch(name):
                self.tree(f"{path}/{name}", depth - 1, f"{to}/{name}")

    def recorded(self, answers: Answers) -> None:
        """Files and links below RECORDED that a recording holds, whether or not their directories were listed,
        and the names in LISTED directories, whose entries nobody opens (ports of a bridge, disks below a volume)."""
        for path, names in answers.names.items():
            if (
                path.endswith(LISTED)
                and path.startswith("/sys/class/")
                and _ordinary(path)
                and isinstance(names, tuple)
            ):
                self.make_dir(path)
                for name in names:
                    if _NAME.fullmatch(name) and not self.world.exists(f"{path}/{name}"):
                        self.put(f"{path}/{name}", "")
        for path, data in answers.reads.items():
            if _ordinary(path) and isinstance(data, bytes) and not self.world.exists(path):
                self.tree(path)
        for path, text in answers.links.items():
            if _ordinary(path) and isinstance(text, str) and not self.world.exists(path):
                self.tree(path)
        for path in (*answers.reads, *answers.links):
            self._usb(path)

    def _usb(self, path: str) -> None:
        """A recording knows a USB device under the path that the probe used: it goes where the link leads."""
        name, _, rest = path.removeprefix(f"{USB}/").partition("/")
        if not path.startswith(f"{USB}/{name}/") or not _USB.fullmatch(name) or ".." in rest:
            return
        link = self.link(f"{USB}/{name}")
        home = _absolute(f"{USB}/{name}", link) if link else ""
        if home.startswith("/sys/devices/") and not self.world.exists(f"{home}/{rest}"):
            self.tree(path, as_path=f"{home}/{rest}")

    def kernels(self) -> None:
        """Names in /boot; the files themselves stay where they are."""
        for name in self.names("/boot"):
            if name.startswith("vmlinuz-"):
                self.put(f"/boot/{name}", f"kernel {name}\n")

    def rom_files(self) -> None:
        """Names of the ROM files that guests may name; what is in them was not recorded."""
        for name in self.names("/usr/share/kvm"):
            if re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._+()-]{0,99}", name):
                self.put(f"/usr/share/kvm/{name}", f"ROM file {name}\n")

    # What the source contradicts itself about (a file with files in it) is left out.

    def put(self, path: str, text: str) -> None:
        if self._room(len(text)):
            with contextlib.suppress(OSError, ValueError):
                self.world.put(path, text)

    def make_dir(self, path: str) -> None:
        if self._room() and path.count("/") <= _DEEPEST:
            with contextlib.suppress(OSError, ValueError):
                self.world.make_dir(path)

    def put_link(self, path: str, text: str) -> None:
        """Only where the directory is what its path says: behind another link a relative text would lead elsewhere."""
        directory = posixpath.dirname(path)
        if self._room() and self.world.tree.real(directory) == f"{self.world.directory}{directory}":
            with contextlib.suppress(OSError, ValueError):
                self.world.put_link(path, text)

    def _room(self, size: int = 0) -> bool:
        self.files += 1
        self.bytes += size
        return self.files <= MOST_FILES and self.bytes <= MOST_BYTES

    def text(self, path: str) -> str | None:
        try:
            data = self.source.read(path)
        except HostError:
            return None
        if len(data) > LONGEST and path not in LONG_FILES:
            return None
        return data.decode("utf-8", "surrogateescape")

    def link(self, path: str) -> str | None:
        try:
            return self.source.link(path)
        except HostError:
            return None

    def names(self, path: str, none_is_file: bool = False) -> Any:
        try:
            return tuple(name for name in self.source.names(path) if _plain(name))
        except HostError:
            return None if none_is_file else ()


def _plain(name: str) -> bool:
    """Whether `name` is one component of a path, and nothing more."""
    return 0 < len(name) < 256 and name not in (".", "..") and "/" not in name and "\0" not in name


def _ordinary(path: str) -> bool:
    """Whether a recorded path is one that is copied, and goes straight there."""
    return path.startswith(RECORDED) and len(path) < _LONGEST_PATH and all(map(_plain, path[1:].split("/")))


def _absolute(path: str, text: str) -> str:
    """Where a link points, never above the root."""
    return posixpath.normpath(posixpath.join(posixpath.dirname(path), text))


def _relative(path: str, text: str) -> str:
    """The link's text as a relative one that stays inside the copy."""
    return posixpath.relpath(_absolute(path, text), posixpath.dirname(path))


class _Gaps:
    """machine.json from what was copied; what is missing is invented and listed."""

    def __init__(self, copy: _Copy) -> None:
        self.copy = copy
        self.world = copy.world
        self.invented: list[str] = []

    def machine(self, addresses: list[str]) -> dict[str, Any]:
        natural = {address: found for address in addresses if (found := self._natural(address)) is not None}
        line = self._command_line()
        uefi = self._uefi()
        pve = self._proxmox()
        vendor = self._processor()
        root = self._root(line)
        release = self._kernel(line)
        self._system(line, zfs=root.startswith("root=ZFS"), release=release, pve=pve)
        esps = self._esps()
        return {
            "name": f"from {self.copy.source.name}",
            "natural": natural,
            "groups": self._groups(addresses),
            "early": sorted({natural[one]["module"] for one in natural if self._early(one) and natural[one]["module"]}),
            "cpu": {"vendor": vendor},
            **self._iommu_default(line),
            "firmware": {"uefi": uefi, "iommu": True},
            "esps": esps,
            "boot_order": [esp["uuid"] for esp in esps] or ["disk"],
            "root": root,
            "root_devices": [],
            "screens": self._screens(addresses, natural),
            "sriov": {
                one: self._virtual(one, natural[one]["driver"]) for one in natural if self._can_have_virtual(one)
            },
            **({"console": console} if (console := self._console()) in natural else {}),
            "classes": {
                one: {natural[one]["driver"]: links} for one, links in self.copy.links.items() if one in natural
            },
            "zpool": self._pools(),
            "pve": pve,
            "rooms": {},
            "failing": [],
            "faults": [],
            "invented": sorted(self.invented),
        }

    def _missing(self, path: str, about: str = "") -> bool:
        if self.world.exists(path):
            return False
        self.invented.append(about or path)
        return True

    # -- devices -----------------------------------------------------------------------------

    def _natural(self, address: str) -> dict[str, Any] | None:
        """The driver that holds it, unless that is a stand-in; else the usual one for its class, marked as invented."""
        link = self.copy.link(f"{self.copy.asked[address]}/driver")
        driver = posixpath.basename(link) if link else ""
        if _NAME.fullmatch(driver) and driver not in ("vfio-pci", "pci-stub"):
            return {"driver": driver, "module": self._module(address, driver), "others": []}
        vendor = self._hex(address, "vendor")
        code = self._class(address)
        for known, maker, usual, module in USUAL_DRIVERS:
            if code == known and maker in ("", vendor):
                self.invented.append(f"driver of {address}")
                return {"driver": usual, "module": module, "others": []}
        return None

    def _can_have_virtual(self, address: str) -> bool:
        return self.world.attribute(address, "sriov_totalvfs") not in (None, "0")

    def _virtual(self, address: str, driver: str) -> dict[str, Any]:
        """What a simulated machine knows about the virtual functions of a physical one."""
        found = VIRTUAL_DRIVERS.get(driver, "")
        if not found:
            self.invented.append(f"driver of the virtual functions of {address}: none")
        cards = self.world.names(f"{DEVICES}/{address}/net")
        return {"driver": found, "module": found or None, "names": f"{cards[0]}v" if cards and found else ""}

    def _module(self, address: str, driver: str) -> str | None:
        link = self.copy.link(f"{self.copy.asked[address]}/driver/module")
        if link and _NAME.fullmatch(posixpath.basename(link)):
            return posixpath.basename(link)
        if driver in BUILT_IN:
            return None
        self.invented.append(f"module of {driver}")
        return MODULE_OF.get(driver, driver.replace("-", "_"))

    def _hex(self, address: str, name: str) -> str:
        return (self.world.attribute(address, name) or "").removeprefix("0x").lower()

    def _class(self, address: str) -> int:
        try:
            return int(self._hex(address, "class") or "0", 16) >> 8
        except ValueError:
            return 0

    def _early(self, address: str) -> bool:
        """Whether its module is in an initramfs of MODULES=most: disks, networks, USB hosts, serial busses."""
        code = self._class(address)
        return code >> 8 in (0x01, 0x02) or code in (0x0C03, 0x0C05)

    def _groups(self, addresses: list[str]) -> dict[str, int]:
        found: dict[str, int] = {}
        for address in addresses:
            link = self.copy.link(f"{self.copy.asked[address]}/iommu_group")
            name = posixpath.basename(link) if link else ""
            if re.fullmatch(r"[0-9]{1,6}", name):
                found[address] = int(name)
        if not found:
            self.invented.append("IOMMU groups: one for each slot")
            slots = sorted({address.rpartition(".")[0] for address in addresses})
            found = {address: slots.index(address.rpartition(".")[0]) for address in addresses}
        return found

    def _screens(self, addresses: list[str], natural: dict[str, dict[str, Any]]) -> dict[str, list[str]]:
        sysfs.firmware_framebuffer(self.world)
        self.world.make_dir("/sys/class/graphics")
        found: dict[str, list[str]] = {}
        for address in addresses:
            shows = self.world.attribute(address, "boot_vga") == "1" or address == self._console()
            if shows and address in natural:
                home = f"{self.copy.homes[address]}/graphics/fb0"
                if self._missing(f"{home}/name", f"framebuffer of {address}"):
                    self.world.put(f"{home}/name", f"{natural[address]['driver']}drmfb\n")
                    self.world.put_link(f"{home}/device", "../../")
                found[address] = ["card0", "", ""]
        return found

    def _console(self) -> str:
        """The function whose framebuffer is the first: of several drivers the quickest, not the boot display's."""
        behind = _PCI.findall(self.copy.link("/sys/class/graphics/fb0") or "")
        return behind[-1] if behind else ""

    # -- system ------------------------------------------------------------------------------

    def _command_line(self) -> str:
        line = self.world.text("/proc/cmdline")
        if line is None:
            self.invented.append("/proc/cmdline")
        return (line or "quiet").strip()

    def _root(self, line: str) -> str:
        roots = [word for word in line.split() if word.startswith("root=")]
        if not roots:
            self.invented.append("root file system")
        return roots[-1] if roots else "root=/dev/mapper/pve-root"

    def _kernel(self, line: str) -> str:
        release = (self.world.text("/proc/sys/kernel/osrelease") or "").strip()
        if not release:
            version = (self.world.text("/proc/version") or "").split()
            release = version[2] if len(version) > 2 else ""
        if not release:
            image = next((word for word in line.split() if word.startswith("BOOT_IMAGE=")), "")
            release = image.rpartition("vmlinuz-")[2]
        if not re.fullmatch(r"[0-9]+\.[0-9][\w.+~-]{0,60}", release):
            from .seeds import KERNEL_70

            self.invented.append("kernel release")
            release = KERNEL_70
        for other in initramfs.kernels(self.world):
            if other != release and initramfs.release_key(other) > initramfs.release_key(release):
                self.world.put(f"/boot/vmlinuz-{other}", None)
        if self._missing(f"/boot/vmlinuz-{release}"):
            self.world.put(f"/boot/vmlinuz-{release}", f"kernel {release}\n")
        return release

    def _uefi(self) -> bool:
        firmware = self.copy.names("/sys/firmware", none_is_file=True)
        if firmware is not None:
            if "efi" in firmware:
                self.world.make_dir("/sys/firmware/efi")
            return "efi" in firmware
        if not self.world.exists("/sys/firmware/efi"):
            self.invented.append("UEFI")
            self.world.put("/sys/firmware/efi/fw_platform_size", "64\n")
        return True

    def _processor(self) -> str:
        text = self.world.text("/proc/cpuinfo")
        if text is None:
            self.invented.append("/proc/cpuinfo")
            bridges = {self._hex(one, "vendor") for one in self.copy.homes if self._class(one) == 0x0600}
            vendor = "AuthenticAMD" if "1022" in bridges else "GenuineIntel"
            etc.processors(self.world, vendor, "simulated", 4)
        else:
            vendor = "AuthenticAMD" if "AuthenticAMD" in text else "GenuineIntel"
        tables = self.copy.names("/sys/firmware/acpi/tables", none_is_file=True)
        table = next((one for one in ("DMAR", "IVRS") if one in (tables or ())), "")
        table = table or ("IVRS" if vendor == "AuthenticAMD" else "DMAR")
        if tables is None and self._missing(f"/sys/firmware/acpi/tables/{table}", f"ACPI table {table}"):
            sysfs.acpi_table(self.world, table)
        elif tables is not None and table in tables and not self.world.exists(f"/sys/firmware/acpi/tables/{table}"):
            self.invented.append(f"content of ACPI table {table}")
            sysfs.acpi_table(self.world, table)
        self._units(table)
        return vendor

    def _iommu_default(self, line: str) -> dict[str, bool]:
        """A kernel that has Intel's IOMMU on without being told is built so, whatever its version is."""
        told = any(word.startswith("intel_iommu=") for word in line.split())
        return {"iommu_by_default": True} if self.world.names("/sys/class/iommu") and not told else {}

    def _units(self, table: str) -> None:
        """The directories of IOMMU units, so that switching it on has something to show."""
        if not self.world.names("/sys/class/iommu"):
            name, kind = ("ivhd0", "amd-iommu") if table == "IVRS" else ("dmar0", "intel-iommu")
            self.invented.append(f"IOMMU unit {name}")
            self.world.put(f"/sys/devices/virtual/iommu/{name}/{kind}/cap", "1c0000c40660462\n")

    def _proxmox(self) -> dict[str, str]:
        from .seeds import PVE_92

        found = dict(zip(("version", "repoid", "qemu_server"), PVE_92, strict=True))
        status = self.world.text("/var/lib/dpkg/status") or ""
        for key, package in (("version", "pve-manager"), ("qemu_server", "qemu-server")):
            match = re.search(rf"^Package: {package}\n(?:[^\n]+\n)*?Version: (\S+)", status, re.M)
            if match:
                found[key] = match.group(1)
            else:
                self.invented.append(f"version of {package}")
        return found

    def _node(self) -> str:
        """The node's name where no file tells it: the one that /etc/pve/local leads to (pmxcfs(8))."""
        local = posixpath.basename(self.copy.link("/etc/pve/local") or "")
        if re.fullmatch(r"[A-Za-z0-9-]{1,63}", local):
            return local
        self.invented.append("/etc/hostname")
        return "pve"

    def _system(self, line: str, zfs: bool, release: str, pve: dict[str, str]) -> None:
        world = self.world
        if not world.exists("/etc/hostname"):
            world.put("/etc/hostname", self._node() + "\n")
        node = (world.text("/etc/hostname") or "").strip().split(".")[0]
        if not re.fullmatch(r"[A-Za-z0-9-]{1,63}", node):
            node = "pve"
            world.put("/etc/hostname", "pve\n")
            self.invented.append("/etc/hostname")
        if self._missing("/etc/machine-id"):
            world.put("/etc/machine-id", "0" * 31 + "1\n")
        if self._missing("/proc/meminfo"):
            etc.memory(world, 32 << 30)
        if self._missing("/var/lib/dpkg/status"):
            etc.packages(world, pve["version"], pve["repoid"], pve["qemu_server"], release)
        if self._missing("/proc/mounts"):
            root = "rpool/ROOT/pve-1 / zfs" if zfs else "/dev/mapper/pve-root / ext4"
            world.put("/proc/mounts", f"{root} rw,relatime 0 0\n")
        self._missing("/etc/default/grub")
        self._missing(f"/etc/pve/nodes/{node}/qemu-server")
        kept = [
            word
            for word in line.split()
            if not word.startswith(("BOOT_IMAGE=", "root=", "initrd=", "boot=")) and word != "ro"
        ]
        etc.configuration(world, " ".join(kept).replace('"', ""), zfs)
        etc.cluster(world, node)
        etc.base(world)
        world.make_dir("/boot/grub")
        if self._missing("/etc/pve/storage.cfg"):
            world.put("/etc/pve/storage.cfg", etc.STORAGE[Root.ZFS if zfs else Root.LVM])
        if self._missing("/etc/network/interfaces"):
            world.put("/etc/network/interfaces", "auto lo\niface lo inet loopback\n")

    def _pools(self) -> dict[str, list[str]]:
        """{pool: partitions} as the source's zpool says; nothing when it does not answer."""
        said = ""
        for argv in (["zpool", "list", "-vHPL"], ["zpool", "status", "-P", "-L"]):
            with contextlib.suppress(HostError):
                said = said or self.copy.source.run(argv).stdout
        found: dict[str, list[str]] = {}
        pool = ""
        for line in said.splitlines():
            words = line.split()
            if line.strip().startswith("pool:") or (line[:1].strip() and "\t" in line):
                pool = words[1] if words[0] == "pool:" else words[0]
            elif words and words[0].startswith("/dev/") and pool:
                members = found.setdefault(pool, [])
                members += [] if words[0][5:] in members else [words[0].removeprefix("/dev/")]
        return found

    def _esps(self) -> list[dict[str, Any]]:
        """ESPs of proxmox-boot-tool; which loader each has is asked of the source, else systemd-boot is assumed."""
        found = []
        said = ""
        with contextlib.suppress(HostError):
            said = self.copy.source.run(["proxmox-boot-tool", "status"]).stdout
        for uuid in (self.world.text("/etc/kernel/proxmox-boot-uuids") or "").split():
            if not re.fullmatch(r"[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}", uuid):
                continue
            told = next((row for row in said.splitlines() if row.startswith(uuid)), "")
            if not told:
                self.invented.append(f"loader on ESP {uuid}")
            with_grub = " grub (" in told
            etc.init_esp(self.world, uuid, with_grub)
            if not self.world.exists(f"/dev/disk/by-uuid/{uuid}"):
                self.world.put_link(f"/dev/disk/by-uuid/{uuid}", None)
                self.world.put(f"/dev/disk/by-uuid/{uuid}", "")
            found.append({"uuid": uuid, "grub": with_grub})
        return found
