"""Network cards, storage controllers, accelerators: what is known of single devices, as rows with a source each.

1. A row is what its source says, no more; `certain` False marks a report of users.
2. Nothing is concluded for a device without a row.
"""

from __future__ import annotations

from ..model.pci import Bar, Device, MsixLayout
from ..model.value import dataclass

INTEL = 0x8086


@dataclass(frozen=True, slots=True)
class DeviceRow:
    """One device, or a family. `subsystems` empty: all boards with that chip."""

    vendor: int
    products: frozenset[int]
    name: str
    text: str
    source: str
    certain: bool = True
    subsystems: frozenset[str] = frozenset()


def _ids(text: str) -> frozenset[int]:
    return frozenset(int(one, 16) for one in text.split())


DENYLIST: tuple[DeviceRow, ...] = (
    DeviceRow(
        INTEL, _ids("19e2 19e3 37c8 37c9 0435 0443"), "Intel QuickAssist (C3xxx, C62x, DH895x)",
        "a wrong request from the guest can hang the device or the whole machine",
        "kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_dev_in_denylist; commit message of the QAT denylist (5.9)",
    ),
    DeviceRow(
        INTEL, _ids("0b25 0cfe"), "Intel DSA and IAX of Sapphire Rapids",
        "a guest can reach what it must not; kernels since May 2024 refuse them",
        "kernel 6.18: drivers/vfio/pci/vfio_pci.c:63-99, vfio_pci_dev_in_denylist",
    ),
)  # fmt: skip
"""vfio-pci refuses to hold these unless its option disable_denylist is set."""

_NO_INTERRUPT = (
    "its old-style interrupt is broken, so the guest is shown none: a guest driver without MSI-X gets no interrupts"
)

NO_INTX: tuple[DeviceRow, ...] = (
    DeviceRow(
        INTEL,
        frozenset({0x1572, 0x1574, 0x1580, 0x1581, *range(0x1583, 0x158C), *range(0x37D0, 0x37D3)}),
        "Intel X710, XL710, XXV710 and X722 (i40e)",
        _NO_INTERRUPT,
        "kernel 6.18: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_nointx",
    ),
    DeviceRow(
        INTEL, _ids("1563"), "Intel X550",
        _NO_INTERRUPT,
        "kernel 6.18: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_nointx",
    ),
)  # fmt: skip

OPTION_ROMS: tuple[DeviceRow, ...] = (
    DeviceRow(
        0x14E4, _ids("168e"), "Broadcom BCM57810",
        "its option ROM hangs guests; QEMU leaves it out by itself and warns",
        "QEMU 9.2: hw/vfio/pci-quirks.c, the list of option ROMs that are left out",
    ),
    DeviceRow(
        0x103C, _ids("323b"), "HP Smart Array P222",
        "under SeaBIOS its option ROM was seen to initialise for ever; without it the guest started",
        "relax-intel-rmrr issue 32 (Proxmox VE 7.3)", certain=False, subsystems=frozenset({"103c:3350"}),
    ),
    DeviceRow(
        0x1000, _ids("0097"), "LSI SAS3008",
        "its option ROM was seen to keep a guest from starting; without it the guest started",
        "vagrant-libvirt issue 881", certain=False,
    ),
)  # fmt: skip
"""Option ROMs that hang a guest's firmware."""

MSIX: tuple[DeviceRow, ...] = (
    DeviceRow(
        0x126F, _ids("2262 2263"), "Silicon Motion SM2262 and SM2263 NVMe",
        "its MSI-X table and pending bits overlap as QEMU reads them",
        "kernel bugzilla 202055; QEMU 9.2: hw/pci/msix.c:342",
    ),
    DeviceRow(
        0xC0A9, _ids("2263"), "Crucial P1 NVMe",
        "its MSI-X table and pending bits overlap as QEMU reads them",
        "a public record of a Proxmox VE host; QEMU 9.2: hw/pci/msix.c:342", certain=False,
    ),
)  # fmt: skip
"""Devices that QEMU refuses as they are: "table & pba overlap, or they don't fit in BARs, or don't align"."""

ACCELERATORS: tuple[DeviceRow, ...] = (
    DeviceRow(
        0x1AC1, _ids("089a"), "Coral Edge TPU",
        "the guest needs the drivers gasket and apex; its MSI-X table shares a page with other registers, which ESXi "
        "cannot pass on and Proxmox VE was reported to; a Linux container gets /dev/apex_0 with no passthrough at all",
        "libedgetpu issue 48; edgetpu issue 343", certain=False,
    ),
)  # fmt: skip


def row_of(rows: tuple[DeviceRow, ...], device: Device) -> DeviceRow | None:
    """The row that names this device."""
    return next(
        (
            row
            for row in rows
            if row.vendor == device.vendor
            and device.product in row.products
            and (not row.subsystems or device.subsystem in row.subsystems)
        ),
        None,
    )


# -- MSI-X -------------------------------------------------------------------------------------

ENTRY = 16
"""Bytes of one entry of an MSI-X table (PCI_MSIX_ENTRY_SIZE)."""


def _spans(layout: MsixLayout) -> tuple[tuple[int, int, int], tuple[int, int, int]]:
    """(BAR, first byte, byte behind) of the table and of the pending bits: 8 bytes for each 64 vectors."""
    pending = (layout.vectors + 63) // 64 * 8
    return (
        (layout.table_bar, layout.table_offset, layout.table_offset + layout.vectors * ENTRY),
        (layout.pending_bar, layout.pending_offset, layout.pending_offset + pending),
    )


def msix_fault(device: Device) -> str:
    """Why QEMU refuses this MSI-X layout; empty when it does not, or when nobody could say.

    Source: QEMU 9.2, hw/pci/msix.c:342 (msix_init): overlap in one BAR, or past a BAR's end.
    """
    layout = None if device.capabilities is None else device.capabilities.msix_layout
    if layout is None or device.bars is None:
        return ""
    (table_bar, start, end), (pending_bar, first, last) = _spans(layout)
    if table_bar == pending_bar and start < last and first < end:
        return f"its table ({start:#x}-{end - 1:#x}) and its pending bits ({first:#x}-{last - 1:#x}) overlap"
    sizes = {bar.index: bar.size for bar in device.bars}
    for bar, stop, what in ((table_bar, end, "table"), (pending_bar, last, "pending bits")):
        if bar in sizes and stop > sizes[bar]:
            return f"its {what} end at {stop:#x}, past BAR {bar} of {sizes[bar]:#x} bytes"
    return ""


def relocation_targets(bars: tuple[Bar, ...]) -> tuple[int, ...]:
    """BARs that can take a moved MSI-X table, the unused ones first. Not one for I/O ports, not the upper half of a
    64-bit one, not a 32-bit one of more than 1 GiB (QEMU 9.2: hw/vfio/pci.c, vfio_pci_relocate_msix)."""
    known = {bar.index: bar for bar in bars if bar.index < 6}
    shadows = {bar.index + 1 for bar in known.values() if bar.wide}
    free = [index for index in range(6) if index not in known and index not in shadows]
    # Every report names BAR 2 where it is unused, so it is the first choice.
    free.sort(key=lambda index: (index != 2, index))
    fit = [index for index, bar in known.items() if not bar.io and (bar.wide or bar.size <= 1 << 30)]
    return (*free, *sorted(index for index in fit if index not in shadows))


# -- what virtio does as well --------------------------------------------------------------------

VIRTIO: tuple[tuple[str, str, str], ...] = (
    (
        "0108",
        "A virtual disk on virtio-scsi with an I/O thread moves, is backed up and snapshotted, and is nearly as fast; "
        "the bare controller is for a guest that needs its firmware, namespaces or last microsecond.",
        "Proxmox VE administration guide, QEMU/KVM Virtual Machines, Hard Disk",
    ),
    (
        "0106",
        "A virtual disk on virtio-scsi with an I/O thread moves, is backed up and snapshotted; a whole controller is "
        "for a guest that must see the disks themselves, as a storage system with ZFS does.",
        "Proxmox VE administration guide, QEMU/KVM Virtual Machines, Hard Disk",
    ),
    (
        "02",
        "A virtio network card on a bridge lets the guest move to another node and shares the card; the bare card is "
        "for a router or a firewall that must own its port, or for features that virtio lacks.",
        "Proxmox VE administration guide, QEMU/KVM Virtual Machines, Network Device",
    ),
    (
        "0403",
        "A virtual sound card (audio0 with SPICE) is enough for sound at a remote desktop; the real one is for "
        "speakers and microphones at the machine itself.",
        "Proxmox VE administration guide, QEMU/KVM Virtual Machines, Audio Device",
    ),
    (
        "0700",
        "A guest's serial0 can be the host's port itself (/dev/ttyS0 or /dev/serial/by-id/…), without passthrough.",
        "Proxmox VE administration guide, qm.conf, serial[n]",
    ),
)
"""(leading digits of the class, what a virtual device does as well, source)."""


def virtio_words(device: Device) -> tuple[str, str] | None:
    """What would serve as well, and its source; None where only the device itself does."""
    if device.class_code is None or device.physical_function is not None:
        return None
    text = f"{device.class_code:06x}"
    return next(((words, source) for prefix, words, source in VIRTIO if text.startswith(prefix)), None)
