"""The description that a simulated machine is built from. Values only.

1. Numbers are the kernel's own; what is not said here gets the builder's default, never a random value.
2. A description says what the hardware is, how Proxmox was installed on it and which guests it has; which driver holds
   what, the command line and the groups follow from the laws of motion.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from enum import Enum
from typing import Any

GIB = 1 << 30
MIB = 1 << 20


@dataclass(frozen=True, slots=True)
class SriovSpec:
    """A function that can have virtual ones: how many, where they are, their device number and driver.

    names     begins the names of their interfaces; empty: they are no network cards
    callback  whether the function's own driver makes them when sysfs says so
    """

    total: int
    offset: int
    stride: int
    product: str
    driver: str = ""
    module: str = ""
    names: str = ""
    callback: bool = True


@dataclass(frozen=True, slots=True)
class PciSpec:
    """One PCI function. `group` is its IOMMU group while the IOMMU is on.

    module    empty: the driver is built in (pcieport) or there is none
    bars      (index, size in bytes, 64-bit prefetchable); starts are given out by the builder
    link      (current, maximum) as sysfs writes the speed, and (current, maximum) lanes
    early     its module is inside the initramfs (MODULES=most takes disks, networks, USB hosts, i2c and spi busses)
    others    further (driver, module) pairs whose alias matches, tried before the natural one
    acs_group group when `pcie_acs_override=downstream` is on the command line; None: the same
    numa      NUMA node, -1: the machine has none
    """

    address: str
    ids: str
    class_code: int
    group: int
    driver: str = ""
    module: str = ""
    parent: str = ""
    subsystem: str = ""
    revision: int = 0
    port: int | None = None
    bars: tuple[tuple[int, int, bool], ...] = ()
    rom: bool = False
    boot_vga: bool | None = None
    reset: tuple[str, ...] = ()
    flr: bool = False
    acs: bool = False
    rebar: tuple[int, ...] = ()
    link: tuple[str, str, int, int] | None = None
    early: bool = False
    others: tuple[tuple[str, str], ...] = ()
    acs_group: int | None = None
    serial: str = ""
    """Device Serial Number as lspci writes it; empty: the function has none."""
    numa: int = -1
    msix: tuple[int, int, int, int, int] | None = None
    """MSI-X: vectors, then BAR and offset of the table, BAR and offset of the pending bits."""
    sriov: SriovSpec | None = None


@dataclass(frozen=True, slots=True)
class DiskSpec:
    """A disk on the controller at `controller`; `parts` are sizes in bytes. NVMe when the name says so."""

    name: str
    controller: str
    serial: str
    size: int
    parts: tuple[int, ...] = ()


@dataclass(frozen=True, slots=True)
class NicSpec:
    """A network interface; `master` is the bridge that it is a port of."""

    name: str
    address: str
    mac: str
    master: str = ""


@dataclass(frozen=True, slots=True)
class UsbSpec:
    """A USB device at `port` (1-2, 1-4.2 behind a hub) of the controller; `interfaces`: (class, subclass, protocol)."""

    port: str
    controller: str
    ids: str
    name: str
    interfaces: tuple[tuple[int, int, int], ...]
    speed: str = "12"
    serial: str = ""
    driver: str = ""
    """The host's driver of its interfaces."""
    terminal: str = ""
    """The serial device that the driver makes: `ttyUSB0`."""
    hub: int = 0
    """How many ports it has as a hub."""


class Root(Enum):
    """What carries the root file system."""

    LVM = "lvm"
    ZFS = "zfs"


@dataclass(frozen=True, slots=True)
class EspSpec:
    """An ESP that proxmox-boot-tool keeps: on which partition, and whether GRUB was installed on it."""

    uuid: str
    partition: str
    grub: bool = False


@dataclass(frozen=True, slots=True)
class MachineSpec:
    """A whole machine. `esps` empty: plain GRUB from /boot. `screens`: function → (card, connector, framebuffer)."""

    name: str
    product: str
    cpu_vendor: str
    cpu_model: str
    kernel: str
    pve: tuple[str, str, str]
    devices: tuple[PciSpec, ...]
    disks: tuple[DiskSpec, ...]
    root: Root
    root_partitions: tuple[str, ...]
    nics: tuple[NicSpec, ...]
    usb: tuple[UsbSpec, ...] = ()
    esps: tuple[EspSpec, ...] = ()
    efi_partition: str = ""
    uefi: bool = True
    secure_boot: bool = False
    cmdline: str = "quiet"
    screens: dict[str, tuple[str, str, str]] = field(default_factory=dict)
    guests: dict[int, str] = field(default_factory=dict)
    insides: dict[int, dict[str, Any]] = field(default_factory=dict)
    """What a guest is made of inside, as `machine.json` names it, beyond what every built-in one is."""
    cores: int = 8
    nodes: int = 1
    memory: int = 64 * GIB
    node: str = "pve"
    older_kernels: tuple[str, ...] = ()
    faults: tuple[str, ...] = ()
    """Defects of the hardware, as `machine.json` names them."""
    files: dict[str, str] = field(default_factory=dict)
    """Further files by path."""
    mediated: dict[str, dict[str, Any]] = field(default_factory=dict)
    """What drivers share, by function: see `mediated`."""
    pools: dict[str, tuple[str, ...]] = field(default_factory=dict)
    """ZFS pools beside the root's, by name their partitions; imported at first."""
    contents: dict[str, tuple[str, str]] = field(default_factory=dict)
    """(kind as libblkid names it, label) of what else lies on disks and partitions."""
    reserved: dict[int, tuple[str, ...]] = field(default_factory=dict)
    """Lines of reserved_regions, by IOMMU group, beside the one for interrupts."""
    containers: dict[str, dict[str, Any]] = field(default_factory=dict)
    """The inside of containers by number, as `machine.json` names it; their configuration is among `files`."""
