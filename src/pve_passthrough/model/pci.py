"""PCI functions as the kernel names them.

1. Values only: nothing here reads a machine.
2. `None` means that nobody could say; an empty tuple, string or `NO_GROUP` means "there is none".
"""

from __future__ import annotations

import re
from typing import NamedTuple

from .value import dataclass

NO_GROUP = -1
"""The function has no IOMMU group (Proxmox' API uses the same number for it)."""

_ADDRESS = re.compile(
    r"(?:(?P<domain>[0-9a-fA-F]{4,8}):)?(?P<bus>[0-9a-fA-F]{2}):(?P<device>[01][0-9a-fA-F])\.(?P<function>[0-7])"
)


class Address(NamedTuple):
    """Domain, bus, device and function of one PCI function.

    Domains are wider than four hex digits on real hosts (Intel VMD starts at 10000:).
    """

    domain: int
    bus: int
    device: int
    function: int

    @classmethod
    def parse(cls, text: str) -> Address:
        """Read `0000:01:00.0`, or `01:00.0` in domain 0. Raises ValueError for anything else."""
        match = _ADDRESS.fullmatch(text)
        if match is None:
            raise ValueError(f"not a PCI address: {text!r}")
        domain, bus, device, function = match.groups()
        return cls(int(domain or "0", 16), int(bus, 16), int(device, 16), int(function, 16))

    @property
    def slot(self) -> str:
        """All functions of the card at once, as Proxmox writes it: `0000:01:00`."""
        return f"{self.domain:04x}:{self.bus:02x}:{self.device:02x}"

    def __str__(self) -> str:
        return f"{self.slot}.{self.function:x}"


@dataclass(frozen=True, slots=True)
class Bar:
    """One base address register: `index` 0-5, 6 is the expansion ROM; `size` in bytes."""

    index: int
    start: int
    size: int
    io: bool = False
    wide: bool = False
    prefetchable: bool = False
    sizes: tuple[int, ...] = ()
    """Sizes in bytes that the resizable-BAR capability offers; empty when it has none."""

    @property
    def placed(self) -> bool:
        """Whether the kernel found room for it: one that got no address starts at 0 (drivers/pci/setup-res.c)."""
        return self.start != 0


@dataclass(frozen=True, slots=True)
class Link:
    """PCI Express link: speeds in GT/s, widths in lanes."""

    speed: float | None
    width: int | None
    max_speed: float | None
    max_width: int | None


@dataclass(frozen=True, slots=True)
class MsixLayout:
    """Where the MSI-X capability puts its table, 16 bytes for each of `vectors`, and its pending bits: BAR, offset."""

    vectors: int
    table_bar: int
    table_offset: int
    pending_bar: int
    pending_offset: int


@dataclass(frozen=True, slots=True)
class Capabilities:
    """What the configuration space says. Absent (`None` on the device) when fewer than 256 bytes were readable.

    express   PCI Express port type as in the capability (0 endpoint, 4 root port, 5 upstream,
              6 downstream, 7 PCIe-to-PCI bridge, 9 root complex integrated endpoint), None: conventional PCI
    flr       function level reset, from the PCIe or the Advanced Features capability
    acs       the ACS capability's bits, None when the function has no ACS capability
              or when the extended space (past byte 256) was not readable
    extended  whether the extended configuration space was readable
    ats       Address Translation Services are switched on, None: there are none, or nobody could read them
    """

    express: int | None = None
    flr: bool = False
    pm_reset: bool = False
    acs: int | None = None
    sriov: bool = False
    rebar: bool = False
    extended: bool = False
    msi: bool = False
    msix: bool = False
    msix_layout: MsixLayout | None = None
    ats: bool | None = None


@dataclass(frozen=True, slots=True)
class Device:
    """One PCI function. Numbers are as in sysfs; names come from pci.ids."""

    address: Address
    vendor: int | None = None
    product: int | None = None
    class_code: int | None = None
    """24 bits: class, subclass, programming interface."""
    revision: int | None = None
    subsystem_vendor: int | None = None
    subsystem_product: int | None = None
    vendor_name: str = ""
    name: str = ""
    """`Vendor Product`; the bare numbers when no list knows it."""
    driver: str | None = None
    """Empty string: bound to no driver."""
    driver_override: str | None = None
    iommu_group: int | None = None
    bridge: bool = False
    parent: Address | None = None
    boot_vga: bool | None = None
    resettable: bool | None = None
    reset_methods: tuple[str, ...] | None = None
    d3cold_allowed: bool | None = None
    power_state: str | None = None
    numa_node: int | None = None
    link: Link | None = None
    bars: tuple[Bar, ...] | None = None
    option_rom: bool | None = None
    capabilities: Capabilities | None = None
    sriov_total: int | None = None
    sriov_active: int | None = None
    physical_function: Address | None = None
    virtual_functions: tuple[Address, ...] = ()
    mediated_types: tuple[str, ...] = ()
    nvidia_types: bool = False
    """NVIDIA's driver gives types to this function by itself (the directory `nvidia`, since kernel 6.8)."""
    serial: str | None = None
    """PCI Express Device Serial Number as lspci writes it; empty: it has none; None: extended space was not read."""

    @property
    def id(self) -> str:
        """`10de:2684`, with question marks for what is unknown."""
        return f"{_hex4(self.vendor)}:{_hex4(self.product)}"

    @property
    def subsystem(self) -> str:
        return f"{_hex4(self.subsystem_vendor)}:{_hex4(self.subsystem_product)}"

    @property
    def base_class(self) -> int | None:
        return None if self.class_code is None else self.class_code >> 16

    @property
    def subclass(self) -> int | None:
        """16 bits: class and subclass, e.g. 0x0300 for a VGA controller."""
        return None if self.class_code is None else self.class_code >> 8

    @property
    def is_display(self) -> bool:
        return self.base_class == 0x03

    def __str__(self) -> str:
        return f"{self.name or self.id} ({self.address})"


def _hex4(number: int | None) -> str:
    return "????" if number is None else f"{number:04x}"
