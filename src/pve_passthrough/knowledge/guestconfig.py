"""What Proxmox VE accepts in a guest's configuration, as far as passthrough cares.

Sources: qemu-server 9.2.6 and 8.4.10, QemuServer/CPUConfig.pm, QemuServer/PCI.pm; recorded exchanges with both.
A line that the schema does not allow is dropped as a whole when the file is read: the guest starts without it.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..model.facts import MapEntry, ResourceMapping
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


def mapping_fault(mapping: ResourceMapping, node: str, devices: Sequence[Device]) -> str:
    """Why a guest with this PCI mapping would not start on `node`; empty when nothing is known to be wrong.

    Of several entries one that is right is enough: Proxmox takes the first that is free. What the hardware has must be
    written down and be right: id, subsystem-id and the first path's iommugroup.
    Source: pve-guest-common, PVE/Mapping/PCI.pm, assert_valid; recorded starts on 8.4 and 9.2 ("missing expected
    property 'subsystem-id' for device").
    """
    lines = [line for line in mapping.entries if line.node == node]
    if not lines:
        return f"has no entry for node {node}"
    faults = [_entry_fault(line, devices) for line in lines]
    return "" if "" in faults else faults[0]


def _entry_fault(line: MapEntry, devices: Sequence[Device]) -> str:
    addresses = expand_host(line.path, (device.address for device in devices))
    device = next((one for one in devices if addresses and one.address == addresses[0]), None)
    if device is None:
        return f"names {line.path}, which this machine does not have" if devices else ""
    known = None if "?" in device.id else device.id
    for name, real in (("id", known), ("subsystem-id", _subsystem(device)), ("iommugroup", _group(device))):
        said = line.options.get(name)
        if real is not None and said is None:
            return f"lacks {name}={real}"
        if real is not None and said is not None and said.lower() != real:
            return f"says {name}={said}, but {device} has {real}"
    return ""


def _subsystem(device: Device) -> str | None:
    """The number that a mapping must carry, None when the device has none or nobody could say."""
    return None if "?" in device.subsystem or device.subsystem == "0000:0000" else device.subsystem


def _group(device: Device) -> str | None:
    """None while the IOMMU is off or unknown: which group it will be is told at the next boot only."""
    return None if device.iommu_group is None or device.iommu_group < 0 else str(device.iommu_group)
