"""Lines about virtual functions: room, numbers, and drivers that do not make them."""

from __future__ import annotations

from .row import Sign, sign

_PCI = "kernel: drivers/pci/iov.c"

SIGNS: tuple[Sign, ...] = (
    sign(
        "sriov.no-room", "resources for SR-IOV", r"not enough MMIO resources for SR-IOV",
        "The firmware left no memory for the virtual functions.", {"sriov-setup": 6}, where="host",
        source=f"{_PCI}, sriov_enable", sample="ixgbe 0000:03:00.0: not enough MMIO resources for SR-IOV",
        confirm="lspci -vvv: Region lines below SR-IOV; the switches Above 4G and SR-IOV in the firmware",
    ),
    sign(
        "sriov.no-bus", "SR-IOV: bus", r"SR-IOV: bus number out of range",
        "The virtual functions would need bus numbers that the port above them does not have.", {"sriov-setup": 6},
        source=f"{_PCI}, sriov_enable", sample="igb 0000:03:00.0: SR-IOV: bus number out of range", where="host",
    ),
    sign(
        "sriov.no-bus-range", "VFs", r"can't enable \d+ VFs \(bus [0-9a-f]+ out of range",
        "The virtual functions would need bus numbers that the port above them does not have.", {"sriov-setup": 6},
        source=f"{_PCI}, sriov_enable", where="host",
        sample="ixgbe 0000:03:00.0: can't enable 63 VFs (bus 04 out of range of [bus 03])",
    ),
    sign(
        "sriov.no-driver-support", "SR-IOV configuration", r"driver does not support SR-IOV configuration via sysfs",
        "The driver of the physical function makes no virtual functions: it is the wrong one, or a build without it.",
        {"sriov-setup": 6}, where="host",
        source="kernel: drivers/pci/pci-sysfs.c, sriov_numvfs_store",
        sample="i915 0000:00:02.0: driver does not support SR-IOV configuration via sysfs",
    ),
    sign(
        "sriov.no-driver", "configure SR-IOV", r"no driver bound to device; cannot configure SR-IOV",
        "The physical function has no driver, so nothing can make virtual functions.", {"sriov-setup": 6}, where="host",
        source="kernel: drivers/pci/pci-sysfs.c, sriov_numvfs_store",
        sample="pci 0000:03:00.0: no driver bound to device; cannot configure SR-IOV",
    ),
    sign(
        "sriov.already", "VFs", r"\d+ VFs already enabled\. Disable before enabling \d+ VFs",
        "The number of virtual functions is changed by way of zero only.", {"sriov-setup": 6}, where="host",
        source="kernel: drivers/pci/pci-sysfs.c, sriov_numvfs_store",
        sample="i40e 0000:03:00.0: 4 VFs already enabled. Disable before enabling 8 VFs",
    ),
    sign(
        "sriov.fewer", "VFs", r"\d+ VFs requested; only \d+ enabled",
        "The driver made fewer virtual functions than asked for.", {"sriov-setup": 5}, where="host",
        source="kernel: drivers/pci/pci-sysfs.c, sriov_numvfs_store",
        sample="igb 0000:03:00.0: 8 VFs requested; only 7 enabled",
    ),
    sign(
        "sriov.driver-failed", "enable PCI sriov", r"Failed to enable PCI sriov\b",
        "The driver could not make virtual functions.", {"sriov-setup": 5}, follows=("sriov.no-*",), where="host",
        source="kernel: drivers/net/ethernet/intel/ixgbe/ixgbe_sriov.c; mellanox/mlx5/core/sriov.c",
        sample="ixgbe 0000:03:00.0: Failed to enable PCI sriov: -12",
    ),
    sign(
        "sriov.assigned", "VFs", r"(?:VFs? (?:are|is|still)|while VFs are) (?:still )?assigned",
        "A guest holds a virtual function, so their number stays.", {"sriov-setup": 4}, where="host",
        source="kernel: drivers/net/ethernet/intel/i40e/i40e_virtchnl_pf.c, i40e_free_vfs",
        sample="i40e 0000:03:00.0: Unable to free VFs because some VFs are assigned to VMs.",
    ),
    sign(
        "sriov.bar-no-room", "VF BAR", r"VF BAR \d[^:]*: (?:can't assign; no space|failed to assign|no space for)",
        "The virtual functions found no room; that matters only when they are wanted.", {"sriov-setup": 1.4},
        source="kernel: drivers/pci/setup-res.c, pci_assign_resource (words from 6.9)", where="host",
        sample="pci 0000:5e:00.0: VF BAR 2 [mem size 0x01000000 64bit]: can't assign; no space",
    ),
)  # fmt: skip
