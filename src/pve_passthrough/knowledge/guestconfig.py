"""What Proxmox VE accepts in a guest's configuration, as far as passthrough cares.

Sources: qemu-server 9.2.6 and 8.4.10, QemuServer/CPUConfig.pm, QemuServer/PCI.pm; recorded exchanges with both.
A line that the schema does not allow is dropped as a whole when the file is read: the guest starts without it.
"""

from __future__ import annotations

import re

CPU_OPTIONS: frozenset[str] = frozenset(
    {"cputype", "hidden", "hv-vendor-id", "flags", "phys-bits", "guest-phys-bits", "reported-model"}
)
"""Keys of `cpu:`; guest-phys-bits since qemu-server 9."""

CPU_FLAGS: frozenset[str] = frozenset(
    {
        "aes",
        "amd-no-ssb",
        "amd-ssbd",
        "hv-evmcs",
        "hv-tlbflush",
        "ibpb",
        "md-clear",
        "nested-virt",
        "pcid",
        "pdpe1gb",
        "spec-ctrl",
        "ssbd",
        "virt-ssbd",
    }
)
"""Flags that a guest may switch, separated by `;` (nested-virt since PVE 9)."""

HV_VENDOR_ID = re.compile(r"[a-zA-Z0-9]{1,12}")

HOSTPCI_OPTIONS: frozenset[str] = frozenset(
    {
        "host",
        "mapping",
        "pcie",
        "x-vga",
        "rombar",
        "romfile",
        "legacy-igd",
        "mdev",
        "driver",
        "vendor-id",
        "device-id",
        "sub-vendor-id",
        "sub-device-id",
    }
)

HOSTPCI_HOST = re.compile(
    r"(?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?"
    r"(?:;(?:[a-f0-9]{4,}:)?[a-f0-9]{2}:[a-f0-9]{2}(?:\.[a-f0-9])?)*"
)
"""Lower-case hexadecimal, two digits for bus and device, `;` between functions (recorded refusals of other forms)."""

HOSTPCI_MAX = 16
"""hostpci0 to hostpci15."""
