"""What Proxmox VE accepts in a guest's configuration, as far as passthrough cares.

Sources: qemu-server 9.2.6 and 8.4.10, QemuServer/CPUConfig.pm, QemuServer/PCI.pm; recorded exchanges with both.
A line that the schema does not allow is dropped as a whole when the file is read: the guest starts without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..model.facts import ResourceMapping
from ..model.pci import Address, Device
from ..model.vm import expand_host

CPU_OPTIONS: frozenset[str] = frozenset(
    {"cputype", "hidden", "hv-vendor-id", "flags", "phys-bits", "guest-phys-bits", "reported-model", "level"}
)
"""Keys of `cpu:`; guest-phys-bits since qemu-server 9 (API schema of 9.2, option cpu)."""

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

WINDOW = 16 * 1024**3
"""Bytes of BARs that OVMF's classic 32 GiB window takes for sure: BARs are aligned to their own size.
Source: edk2, OvmfPkg/Library/PlatformInitLib/MemDetect.c."""


def own_cpu(options: Mapping[str, str]) -> bool:
    """Whether a guest with these `cpu` options knows the host's number of address bits.

    Source: QEMU target/i386/host-cpu.c (host-phys-bits; max is taken to be like host); qemu-server CPUConfig.pm,
    phys-bits; edk2 MemDetect.c.
    """
    return options.get("cputype") in ("host", "max") or "phys-bits" in options


def bar_bytes(device: Device) -> int:
    """Bytes of the device's 64-bit memory BARs, as far as they are known."""
    return sum(bar.size for bar in device.bars or () if bar.wide and not bar.io)


def entry_functions(
    options: Mapping[str, str], node: str, mappings: Sequence[ResourceMapping], known: Iterable[Address]
) -> tuple[Address, ...]:
    """Functions that a hostpci entry with these options may take on `node`, through a mapping, too."""
    present = tuple(known)
    hosts = [options["host"]] if "host" in options else []
    named = (one for one in mappings if one.kind == "pci" and one.name == options.get("mapping"))
    hosts += [line.path for one in named for line in one.entries if line.node == node]
    return tuple(dict.fromkeys(address for host in hosts for address in expand_host(host, present)))
