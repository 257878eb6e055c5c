"""Which drivers make virtual functions, and what the graphics inside Intel processors need before theirs does.

1. A row only where a source says so. A driver in no row is left to the kernel, which says no by itself.
2. Whether a driver *can* is one question; whether this machine has room for it the kernel alone knows.
"""

from __future__ import annotations

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class PfDriver:
    """A driver of physical functions. `able` False: it makes none; then `why`, and the `way` out, in words."""

    name: str
    able: bool
    source: str
    why: str = ""
    way: str = ""


_CALLBACK = "kernel: struct pci_driver with sriov_configure"

PF_DRIVERS = (
    PfDriver("igb", True, f"{_CALLBACK}, igb_main.c"),
    PfDriver("ixgbe", True, f"{_CALLBACK}, ixgbe_main.c"),
    PfDriver("mlx5_core", True, f"{_CALLBACK}, mlx5/core/main.c"),
    PfDriver("ionic", True, f"{_CALLBACK}, ionic_bus_pci.c"),
    PfDriver("nvme", True, f"{_CALLBACK} (pci_sriov_configure_simple), nvme/host/pci.c"),
    PfDriver("xe", True, f"{_CALLBACK}, xe_pci.c"),
    PfDriver(
        "vfio-pci", False, "kernel: drivers/vfio/pci/vfio_pci.c, enable_sriov",
        "vfio-pci holds it for a guest; it makes virtual functions only for programs that know its token",
        "Give it back to its own driver: pve-passthrough undo, or take away the claim at boot.",
    ),
    PfDriver(
        "nvidia", False, "Proxmox VE: pve-nvidia-vgpu-helper and pve-nvidia-sriov@.service, since pve-manager 8.3.4",
        "virtual functions of NVIDIA's driver are made by a unit of Proxmox VE, which knows how that driver wants it",
        "systemctl enable --now pve-nvidia-sriov@ALL.service; then pve-passthrough vgpu list",
    ),
)  # fmt: skip
"""i915 is not among them: the kernel's own makes none, the one of i915-sriov-dkms does (see `IGPU_DRIVERS`)."""


@dataclass(frozen=True, slots=True)
class IgpuDriver:
    """A release of i915-sriov-dkms and the kernels that it builds for, first and last."""

    release: str
    first: tuple[int, int]
    last: tuple[int, int]
    source: str = "i915-sriov-dkms README and release notes, May 2026"


IGPU_DRIVERS = (
    IgpuDriver("2026.05.06", (6, 17), (7, 0)),
    IgpuDriver("2026.03.05.1", (6, 12), (6, 19)),
    IgpuDriver("2025.07.22", (6, 8), (6, 12)),
    IgpuDriver("the branch intel-lts", (6, 1), (6, 7)),
)
"""Newest first."""

IGPU_MOST = 7
"""Virtual functions that the graphics of Tiger Lake to Arrow Lake offer (i915-sriov-dkms README)."""

IGPU_ARGUMENTS = "i915.enable_guc=3 i915.max_vfs=7 module_blacklist=xe"
"""Kernel arguments beside those of the IOMMU (i915-sriov-dkms README)."""


def pf_driver(name: str | None) -> PfDriver | None:
    """The row of a driver; None: nothing is known of it."""
    return next((row for row in PF_DRIVERS if row.name == name), None)


def igpu_driver(version: tuple[int, int] | None) -> IgpuDriver | None:
    """The newest release that builds for this kernel; None: none does, or the kernel is unknown."""
    return next((row for row in IGPU_DRIVERS if version is not None and row.first <= version <= row.last), None)
