"""Words of the kernel, of QEMU and of Proxmox that tell how a reset went, as rows with a source each.

1. A row's pattern fits the format string that its source prints, or the line that its source quotes.
2. `fatal`: the device is gone, or the guest will be. The others are worth knowing and no failure by themselves.
"""

from __future__ import annotations

import re

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class LogRow:
    """what: what the line means, in a few words · remedy: what helps, empty when another row says it"""

    pattern: re.Pattern[str]
    fatal: bool
    what: str
    remedy: str
    source: str


def _row(pattern: str, fatal: bool, what: str, remedy: str, source: str) -> LogRow:
    return LogRow(re.compile(pattern), fatal, what, remedy, source)


_CYCLE = "power the host off and on"
_OTHER = f"{_CYCLE}, then choose another reset method"

ROWS: tuple[LogRow, ...] = (
    _row(
        r"not ready \d+ms after .+; giving up", True, "the device did not come back from its reset", _OTHER,
        "kernel: drivers/pci/pci.c, pci_dev_wait",
    ),
    _row(
        r"not ready \d+ms after .+; waiting", False, "the device takes long to come back from its reset", "",
        "kernel: drivers/pci/pci.c, pci_dev_wait",
    ),
    _row(
        r"Unable to change power state from \S+ to \S+, device inaccessible", True, "the device has stopped answering",
        f"{_CYCLE}, then keep it out of D3cold", "kernel: drivers/pci/pci.c, pci_power_up",
    ),
    _row(
        r"Refused to change power state from \S+ to \S+", False, "the device ignores a change of its power state",
        "options vfio-pci disable_idle_d3=1", "kernel: drivers/pci/pci.c, pci_set_low_power_state",
    ),
    _row(
        r"timed out waiting for pending transaction; performing", False, "the device was still busy when it was reset",
        "let the guest shut down cleanly", "kernel: drivers/pci/pci.c, pcie_flr",
    ),
    _row(
        r"vfio_bar_restore: reset recovery", False, "the device lost its addresses and got them back", "",
        "kernel: drivers/vfio/pci/vfio_pci_config.c, vfio_bar_restore",
    ),
    _row(
        r"No device request channel registered, blocked until released by user", True,
        "something wants the device away from a guest that still has it", "stop the guest first",
        "kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_request",
    ),
    _row(
        r"unknown header type [0-9a-f]{2}, ignoring device", True, "the device answers with nothing but ones", _CYCLE,
        "kernel: drivers/pci/probe.c, pci_setup_device",
    ),
    _row(
        r"PCIe Bus Error: severity=Uncorrected", True, "the link or the device failed", "look at riser, slot and power",
        "vendor-reset issue 72",
    ),
    _row(
        r"broken device, retraining non-functional downstream link", False, "the link did not come up after the reset",
        "look at riser and slot", "kernel: drivers/pci/quirks.c, pcie_failed_link_retrain",
    ),
    _row(
        r"AMD_\w+: failed to reset device|SMU error 0x[0-9a-f]+|could not get enabled SMU features", True,
        "vendor-reset could not reset the card", "take a tree of vendor-reset of 2026-05-31 or later",
        "vendor-reset issues 3, 25 and 109",
    ),
    _row(
        r"(Unsupported|Invalid) reset method '[^']*'", False, "somebody asked for a method that is not there", "",
        "kernel: drivers/pci/pci-sysfs.c, reset_method_store",
    ),
    _row(
        r"AMD-Vi: Completion-Wait loop timed out", True, "the IOMMU waits for a device that is gone", _OTHER,
        "kernel: drivers/iommu/amd/iommu.c, wait_on_sem",
    ),
    _row(
        r"VT-d detected Invalidation (Time-out|Queue|Completion) Error", True,
        "the IOMMU waits for a device that is gone", _OTHER, "kernel: drivers/iommu/intel/dmar.c, qi_check_fault",
    ),
    _row(
        r"Unable to power on device, stuck in D\d", True, "the device does not leave its sleep",
        "keep it out of D3cold; options vfio-pci disable_idle_d3=1", "QEMU: hw/vfio/pci.c, vfio_pci_pre_reset",
    ),
    _row(
        r"Cannot reset device \S+, (no available reset mechanism|depends on group \d+ which is not owned)", False,
        "QEMU has no way to reset the device", "pass every function of its slot",
        "QEMU: hw/vfio/pci.c, vfio_pci_hot_reset",
    ),
    _row(
        r"pci_irq_handler: Assertion", True, "QEMU fell over a device that answers with nothing but ones", _CYCLE,
        "vendor-reset issue 76",
    ),
    _row(
        r"failed to reset PCI device '[^']+', but trying to continue", False,
        "Proxmox could not reset it before the start", "", "qemu-server: QemuServer/PCI.pm, prepare_pci_device",
    ),
)  # fmt: skip


def row_for(line: str) -> LogRow | None:
    """The first row that explains the line."""
    return next((row for row in ROWS if row.pattern.search(line)), None)
