"""Everything that is known about one machine at one moment. Frozen, no I/O.

1. `None` means that nobody could answer, and a `Gap` says why: unknown is not no.
2. `files` holds the text of every file that a plan may edit, so that planning never reads the machine.
3. Field names follow the kernel and Proxmox.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field
from enum import Enum

from .attached import Attached
from .ct import Ct, DevNode, GivenNode
from .identity import Assignment
from .lifecycle import Lifecycle
from .mediated import Mediated
from .pci import Address, Device
from .sriov import PhysicalFunction
from .usb import UsbDevice
from .value import dataclass
from .vm import Vm


@dataclass(frozen=True, slots=True)
class Gap:
    """A question that nobody answered: `about` names the fact (`kernel.cmdline`), `reason` why it is missing."""

    about: str
    reason: str


@dataclass(frozen=True, slots=True)
class Iommu:
    """`units` are the names under /sys/class/iommu (dmar0, ivhd0, …): not empty is Proxmox' own test for "on"."""

    units: tuple[str, ...] | None = None
    interrupt_remapping: bool | None = None
    address_width: int | None = None
    """Bits of the host IOMMU's address space, the smallest of all units."""
    unsafe_interrupts: bool | None = None

    @property
    def on(self) -> bool | None:
        return None if self.units is None else bool(self.units)


@dataclass(frozen=True, slots=True)
class Cpu:
    """The processors; all of them are taken to be alike."""

    vendor: str | None = None
    """`GenuineIntel` or `AuthenticAMD`, as in /proc/cpuinfo."""
    model: str | None = None
    physical_bits: int | None = None
    flags: frozenset[str] | None = None
    count: int | None = None
    x86: bool | None = None


@dataclass(frozen=True, slots=True)
class NumaNode:
    """One memory node: its processors, and its memory in bytes."""

    number: int
    cpus: tuple[int, ...]
    memory: int | None = None


@dataclass(frozen=True, slots=True)
class Firmware:
    """What the firmware says about itself and about the IOMMU."""

    uefi: bool | None = None
    secure_boot: bool | None = None
    dmar: bool | None = None
    """The DMAR table (Intel VT-d) is there."""
    ivrs: bool | None = None
    """The IVRS table (AMD-Vi) is there."""
    product: str | None = None
    laptop: bool | None = None


@dataclass(frozen=True, slots=True)
class Kernel:
    """The running kernel and how it was started."""

    release: str | None = None
    """As `uname -r` says: `6.8.12-4-pve`."""
    cmdline: str | None = None
    boot_id: str | None = None

    @property
    def version(self) -> tuple[int, int] | None:
        """(major, minor), None when the release is unknown or odd."""
        head = (self.release or "").split("-")[0].split(".")
        if len(head) < 2 or not all(part.isascii() and part.isdigit() and len(part) < 6 for part in head[:2]):
            return None
        return int(head[0]), int(head[1])


@dataclass(frozen=True, slots=True)
class Modules:
    """Loaded modules, and those that are loaded before the root file system is there."""

    loaded: frozenset[str] | None = None
    """Names as in /proc/modules, underscores."""
    initramfs: frozenset[str] | None = None
    """Modules inside the running kernel's initramfs; None when it was not looked into."""
    initramfs_files: frozenset[str] | None = None
    """Our and modprobe's files inside that initramfs, as paths of the host; None when it was not looked into."""
    initramfs_tool: str | None = None
    """`initramfs-tools` or `dracut`."""


class Loader(Enum):
    """Who builds the command line of the next boot, and from which file."""

    GRUB = "grub"
    """GRUB on the root file system: /etc/default/grub, update-grub."""
    GRUB_ESP = "grub-esp"
    """GRUB on ESPs kept by proxmox-boot-tool: /etc/default/grub, proxmox-boot-tool refresh."""
    SYSTEMD_BOOT = "systemd-boot"
    """/etc/kernel/cmdline, proxmox-boot-tool refresh."""


@dataclass(frozen=True, slots=True)
class Esp:
    """One ESP that proxmox-boot-tool keeps: its UUID, and which loaders are configured on it."""

    uuid: str
    loaders: tuple[Loader, ...]


@dataclass(frozen=True, slots=True)
class Boot:
    """`loaders`: all that may start this host next time; more than one is a mixed host. None: nobody could say."""

    loaders: tuple[Loader, ...] | None = None
    esps: tuple[Esp, ...] = ()
    managed: bool | None = None
    """Whether proxmox-boot-tool manages ESPs (/etc/kernel/proxmox-boot-uuids exists)."""


@dataclass(frozen=True, slots=True)
class Space:
    """Room on a file system, in bytes."""

    path: str
    total: int
    free: int


@dataclass(frozen=True, slots=True)
class RootWindow:
    """Addresses from `start` to `end` that the root bus `bus` of a PCI domain decodes."""

    domain: int
    bus: int
    start: int
    end: int


class UseKind(Enum):
    """Why the host needs a device."""

    ROOT_DISK = "root-disk"
    BOOT_DISK = "boot-disk"
    POOL_DISK = "pool-disk"
    DATA_DISK = "data-disk"
    MANAGEMENT_NET = "management-net"
    CLUSTER_NET = "cluster-net"
    BRIDGE_NET = "bridge-net"
    STORAGE_NET = "storage-net"
    CONSOLE = "console"
    KEYBOARD = "keyboard"
    BOOT_USB = "boot-usb"


@dataclass(frozen=True, slots=True)
class Use:
    """The host uses the function at `address` for `kind`; `detail` names it: `pve on /dev/nvme0n1`, `vmbr0 ← eno1`."""

    address: Address
    kind: UseKind
    detail: str
    vital: bool = False
    """Losing it costs people the host: its root, its boot disk, its management network, its cluster."""


@dataclass(frozen=True, slots=True)
class UsbUse:
    """The host uses the USB device at `port` for `kind`; the use of its controller is in `uses` as well."""

    port: str
    kind: UseKind
    detail: str
    vital: bool = False


@dataclass(frozen=True, slots=True)
class Display:
    """Who shows the host's console. `console_owner`: the function behind the active framebuffer."""

    console_owner: Address | None = None
    framebuffer: str | None = None
    """Driver name of fb0 (`simpledrmdrmfb`, `i915drmfb`); empty when the host has no framebuffer."""
    serial_console: bool | None = None
    connected: tuple[Address, ...] = ()
    """Functions with a monitor connected, by DRM."""


@dataclass(frozen=True, slots=True)
class MapEntry:
    """One `map` line of a cluster resource mapping."""

    node: str
    path: str
    options: Mapping[str, str]


@dataclass(frozen=True, slots=True)
class ResourceMapping:
    """A PCI (`kind` pci) or USB (`kind` usb) resource mapping."""

    kind: str
    name: str
    entries: tuple[MapEntry, ...]
    options: Mapping[str, str] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Storage:
    """One section of /etc/pve/storage.cfg. `content`: kinds of volumes that may lie on it (`images`, `snippets`, …).

    path   where a directory storage lies, empty for others
    nodes  the nodes that have it, empty: all
    """

    name: str
    type: str
    content: frozenset[str] = frozenset()
    path: str = ""
    nodes: frozenset[str] = frozenset()
    enabled: bool = True
    shared: bool = False
    """Every node that has it sees the same volumes."""
    folders: str = ""
    """`content-dirs`: where kinds of volumes lie instead of their usual folders; empty in the ordinary case."""
    pool: str = ""
    """The ZFS pool, or the data set in it, of a `zfspool` storage."""
    vgname: str = ""
    """The volume group of an `lvm` or `lvmthin` storage."""


@dataclass(frozen=True, slots=True)
class Pve:
    """Proxmox VE. `version` None with `installed` False: this is not a Proxmox host."""

    installed: bool | None = None
    version: str | None = None
    """pve-manager's version: `9.2.11`."""
    qemu_server: str | None = None
    node: str | None = None
    nodes: tuple[str, ...] | None = None
    quorate: bool | None = None
    writable: bool | None = None
    """/etc/pve accepts writes."""


@dataclass(frozen=True, slots=True)
class Facts:
    """The whole machine."""

    host: str
    """How the host was named: `local`, `sim:DIR`, `capture:FILE`, `root:DIR`."""
    devices: tuple[Device, ...] = ()
    usb: tuple[UsbDevice, ...] = ()
    iommu: Iommu = Iommu()
    cpu: Cpu = Cpu()
    firmware: Firmware = Firmware()
    kernel: Kernel = Kernel()
    modules: Modules = Modules()
    boot: Boot = Boot()
    display: Display = Display()
    pve: Pve = Pve()
    guests: tuple[Vm, ...] | None = None
    mappings: tuple[ResourceMapping, ...] = ()
    mediated: Mediated | None = None
    """Shares of devices; None: nobody looked that deep, and there may be some."""
    assignments: tuple[Assignment, ...] = ()
    """What runs that are kept have given to guests; a record that could not be read is a gap."""
    storages: tuple[Storage, ...] | None = None
    """None: nobody could read which storages there are."""
    attached: Attached | None = None
    """Disks and interfaces behind controllers and cards; None: nobody looked that deep."""
    lifecycle: Lifecycle = Lifecycle()
    hook_files: Mapping[str, bool] = field(default_factory=dict)
    """Whether each hookscript that a guest of this node names is there, by volume; one that is missing here: nobody
    looked, because it lies on no directory of this machine."""
    rom_files: Mapping[str, bool] = field(default_factory=dict)
    """Whether each ROM file that a guest of this node names lies where Proxmox looks for it; a name that is missing
    here: nobody could say."""
    uses: tuple[Use, ...] = ()
    usb_uses: tuple[UsbUse, ...] = ()
    uses_known: frozenset[str] = frozenset()
    """Which of `disks`, `network`, `console`, `keyboard` were fully looked at; the others are unknown."""
    spaces: tuple[Space, ...] = ()
    containers: Mapping[int, str] | None = None
    """Node by number, of every container of the cluster: guests and containers share one range of numbers."""
    own_containers: tuple[Ct, ...] | None = None
    """This node's containers with their configuration; None: nobody could say, or nobody looked that deep."""
    dev_nodes: tuple[DevNode, ...] | None = None
    """Device nodes that a container could be given; None as above."""
    given_nodes: tuple[GivenNode, ...] = ()
    """What kept runs have given to containers; looked for by a deep look alone."""
    bridges: tuple[str, ...] | None = None
    """Linux and Open vSwitch bridges of this node, SDN networks among them."""
    memory_total: int | None = None
    memory_free: int | None = None
    root_windows: tuple[RootWindow, ...] | None = None
    """None: nobody could say, or nobody looked that deep."""
    numa_nodes: tuple[NumaNode, ...] | None = None
    """Empty: the kernel knows no memory nodes."""
    sriov: tuple[PhysicalFunction, ...] | None = None
    """Every function that can have virtual ones; None: nobody looked that close."""
    files: Mapping[str, str | None] = field(default_factory=dict)
    """Text by path; None: the file is not there; a path missing from the map was not readable.
    A directory is listed with a trailing slash and the text `directory`."""
    gaps: tuple[Gap, ...] = ()

    @property
    def intel_iommu(self) -> bool | None:
        """Whether the IOMMU, on or off, is Intel's. The firmware's table says so, whatever the processor is: a virtual
        machine on an AMD processor can have Intel's (seen in QEMU). Without a table the processor's maker does."""
        if self.firmware.dmar is not self.firmware.ivrs and (self.firmware.dmar or self.firmware.ivrs):
            return bool(self.firmware.dmar)
        return None if self.cpu.vendor is None else self.cpu.vendor == "GenuineIntel"

    def device(self, address: Address) -> Device | None:
        return next((device for device in self.devices if device.address == address), None)

    def guest(self, vmid: int) -> Vm | None:
        return next((guest for guest in self.guests or () if guest.vmid == vmid), None)

    def container(self, number: int) -> Ct | None:
        return next((one for one in self.own_containers or () if one.number == number), None)

    def group(self, number: int) -> tuple[Device, ...]:
        """All members of an IOMMU group, bridges included."""
        return tuple(device for device in self.devices if device.iommu_group == number)

    def uses_of(self, address: Address) -> tuple[Use, ...]:
        return tuple(use for use in self.uses if use.address == address)

    def usb_at(self, port: str) -> UsbDevice | None:
        return next((device for device in self.usb if device.port == port), None)

    def usb_uses_of(self, port: str) -> tuple[UsbUse, ...]:
        return tuple(use for use in self.usb_uses if use.port == port)

    def gap(self, about: str) -> Gap | None:
        return next((gap for gap in self.gaps if gap.about == about), None)
