"""Which host drivers let go of a device while the host runs, and what has to be held back at boot where they do not.

1. Rows with a source each; a driver without a row is unknown, and Proxmox VE is left to try at guest start.
2. `before` lists modules for `softdep MODULE pre: vfio-pci`: an order of loading, not a blacklist.
"""

from __future__ import annotations

from ..model.pci import Device
from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class HostDriver:
    """`lets_go` False: unbinding it on a running host hangs, oopses or is refused, so the device is claimed at boot."""

    name: str
    lets_go: bool
    why: str
    source: str


_AT_START = "pve-docs: qm-pci-passthrough (Proxmox VE unbinds at guest start); nothing is known of one that holds on"

HOST_DRIVERS: tuple[HostDriver, ...] = (
    HostDriver(
        "amdgpu", False, "amdgpu can oops when it is unbound, and the guest's start then hangs",
        "forum thread 184792 and Proxmox kernels 7.0.14-1/-2; pve-docs: qm-pci-passthrough, host device passthrough",
    ),
    HostDriver(
        "nvidia", False, "nvidia does not let go while anything on the host has it open",
        "NVIDIA kernel modules: removal waits for open handles; nothing in sysfs says whether there are any",
    ),
    HostDriver("nouveau", True, "lets go unless it drives the console", "kernel: drivers/gpu/drm/nouveau"),
    HostDriver("i915", True, "lets go unless it drives the console", "kernel: drivers/gpu/drm/i915"),
    HostDriver("snd_hda_intel", True, "sound functions are unbound at guest start", "pve-docs: qm-pci-passthrough"),
    HostDriver("xhci_hcd", True, "USB controllers are unbound at guest start", "pve-docs: qm-pci-passthrough"),
    HostDriver("nvme", True, "an idle disk's controller is unbound at guest start", "pve-docs: qm-pci-passthrough"),
    HostDriver("ahci", True, "an idle disk controller is unbound at guest start", "pve-docs: qm-pci-passthrough"),
    *(
        HostDriver(name, True, "a network card that the host does not use is unbound at guest start", _AT_START)
        for name in ("igb", "igc", "ixgbe", "i40e", "ice", "e1000e", "r8169", "mlx5_core", "tg3", "bnxt_en", "bnx2x")
    ),
    *(
        HostDriver(name, True, "a controller whose disks the host does not use is unbound at guest start", _AT_START)
        for name in ("mpt3sas", "megaraid_sas", "hpsa", "aacraid", "smartpqi")
    ),
    HostDriver("serial", True, "a serial card that nobody has open is unbound at guest start", _AT_START),
)  # fmt: skip


@dataclass(frozen=True, slots=True)
class HoldBack:
    """Modules that may take a device of this vendor (None: any) and class (`prefix`: leading hex digits) at boot."""

    vendor: int | None
    prefix: str
    modules: tuple[str, ...]
    source: str


_DOCS = "pve-docs: qm-pci-passthrough, softdep; module aliases of the named drivers"

_ALIASES = "kernel: drivers/scsi, module aliases of mpt3sas, megaraid_sas and hpsa"

HOLD_BACK: tuple[HoldBack, ...] = (
    HoldBack(0x10DE, "03", ("nouveau", "nvidiafb", "nvidia", "nvidia_drm", "nvidia_modeset"), _DOCS),
    HoldBack(0x10DE, "0c80", ("i2c_nvidia_gpu", "ucsi_ccg"), "kernel: drivers/i2c/busses/i2c-nvidia-gpu.c"),
    HoldBack(0x1002, "03", ("amdgpu", "radeon"), _DOCS),
    HoldBack(0x8086, "03", ("i915", "xe"), _DOCS),
    HoldBack(None, "0403", ("snd_hda_intel",), _DOCS),
    HoldBack(None, "0c0330", ("xhci_pci",), "Proxmox kernels: CONFIG_USB_XHCI_PCI=m in every branch"),
    HoldBack(None, "0c0320", ("ehci_pci",), "kernel: drivers/usb/host/ehci-pci.c"),
    HoldBack(None, "0c0310", ("ohci_pci",), "kernel: drivers/usb/host/ohci-pci.c"),
    HoldBack(None, "0c0300", ("uhci_hcd",), "kernel: drivers/usb/host/uhci-hcd.c"),
    HoldBack(None, "0108", ("nvme",), _DOCS),
    HoldBack(None, "0106", ("ahci",), _DOCS),
    HoldBack(0x1000, "0107", ("mpt3sas",), _ALIASES),
    HoldBack(0x1000, "0104", ("megaraid_sas", "mpt3sas"), _ALIASES),
    HoldBack(0x103C, "0104", ("hpsa",), _ALIASES),
)

_MODULE_OF = {"xhci_hcd": "xhci_pci", "nvidia-gpu": "i2c_nvidia_gpu"}
"""Drivers whose module has another name (kernel: drivers/usb/host/xhci-pci.c, drivers/i2c/busses/i2c-nvidia-gpu.c)."""


def module_of(driver: str) -> str:
    """The module that brings a driver, as softdep and blacklist lines name it."""
    return _MODULE_OF.get(driver, driver.replace("-", "_"))


NOT_A_HOST_DRIVER = frozenset({"", "vfio-pci", "pci-stub"})


def host_driver(name: str | None) -> HostDriver | None:
    """The row of a driver, None when nothing is known about it."""
    return next((row for row in HOST_DRIVERS if row.name == name), None)


def likely_driver(device: Device) -> str | None:
    """The driver that would take the function at the next boot: the present one, or what its class suggests when
    vfio-pci or nobody holds it now; None when nothing suggests one."""
    if device.driver and device.driver not in NOT_A_HOST_DRIVER:
        return device.driver
    modules = _by_class(device)
    return modules[0] if modules else None


def hold_back(device: Device) -> tuple[str, ...]:
    """Modules that vfio-pci must precede for this function: the present driver's, then those of its class."""
    present = device.driver if device.driver not in NOT_A_HOST_DRIVER else None
    first = (module_of(present),) if present else ()
    return tuple(dict.fromkeys((*first, *_by_class(device))))


def _by_class(device: Device) -> tuple[str, ...]:
    if device.class_code is None:
        return ()
    text = f"{device.class_code:06x}"
    rows = (row for row in HOLD_BACK if row.vendor in (None, device.vendor) and text.startswith(row.prefix))
    return tuple(module for row in rows for module in row.modules)
