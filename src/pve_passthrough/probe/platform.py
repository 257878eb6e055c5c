"""IOMMU, CPU, firmware, kernel, modules and memory: what the machine is before anybody plugs something in.

1. Files only, except that a deep probe reads the kernel log and looks into the initramfs.
2. "No" needs an answer: a table that is not listed is absent only when the list itself could be read.
3. Interrupt remapping is told by the live interrupt controllers first, by the kernel log next, and by the firmware's
   tables last: a table promises, an interrupt that runs through remapping proves.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..host.base import HostError, Missing
from ..model.facts import Cpu, Firmware, Iommu, Kernel, Modules, NumaNode
from .asking import Asking
from .dpkg import Packages
from .paths import plain, there

_LAPTOP_CHASSIS = frozenset({8, 9, 10, 14, 31, 32})
"""SMBIOS 3.x, system enclosure types: portable, laptop, notebook, sub-notebook, convertible, detachable."""

SECURE_BOOT = "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
"""UEFI specification, global variable GUID. efivarfs puts four bytes of attributes before the value."""

_INTREMAP_OFF = frozenset({"intremap=off", "nointremap"})
"""Kernel: Documentation/admin-guide/kernel-parameters.txt, `intremap=` and its older spelling."""

_CONTROLLER = re.compile(rb"\b(IR-)?(?:IO-APIC|PCI-MSI)")
_LOG_ON = re.compile(r"DMAR-IR: Enabled IRQ remapping|AMD-Vi: Interrupt remapping enabled")
_LOG_OFF = re.compile(
    r"AMD-Vi: Disabling interrupt remapping|No interrupt remapping support"
    r"|interrupt remapping is being disabled|DMAR-IR: Failed to enable irq remapping"
)
_BITS = re.compile(r"(\d{1,3}) bits physical")

NUMA = "/sys/devices/system/node"
MOST_NODES = 1024
"""The kernel's own limit, MAX_NUMNODES with CONFIG_NODES_SHIFT=10."""
MOST_CPUS = 8192
_NUMA_NODE = re.compile(r"node[0-9]{1,4}")
_CPU_RANGE = re.compile(r"([0-9]{1,4})(?:-([0-9]{1,4}))?")


# -- kernel -----------------------------------------------------------------------------------


def probe_kernel(ask: Asking) -> Kernel:
    release = _line(ask.text("/proc/sys/kernel/osrelease", "kernel.release"))
    if release is None:
        release = _release_of(ask.need("/proc/version", "kernel.release"))
    cmdline = ask.need("/proc/cmdline", "kernel.cmdline")
    boot_id = _line(ask.need("/proc/sys/kernel/random/boot_id", "kernel.boot_id"))
    return Kernel(release, None if cmdline is None else cmdline.rstrip("\n"), boot_id)


def _release_of(version: str | None) -> str | None:
    """`Linux version 6.8.12-4-pve (build@…) …`"""
    words = (version or "").split()
    return words[2] if len(words) > 2 and words[:2] == ["Linux", "version"] else None


def _line(text: str | None) -> str | None:
    return (text.strip() or None) if text is not None else None


# -- IOMMU ------------------------------------------------------------------------------------


def probe_iommu(ask: Asking, kernel: Kernel, firmware: Firmware, deep: bool) -> Iommu:
    units = _units(ask)
    remapping = _remapping(ask, kernel, firmware, units, deep)
    if remapping is None:
        ask.gap("iommu.interrupt_remapping", "neither /proc/interrupts nor the firmware's tables say")
    return Iommu(units, remapping, _address_width(ask, units or ()), _unsafe_interrupts(ask))


def _units(ask: Asking) -> tuple[str, ...] | None:
    """Proxmox' own test for "on" is that this directory is not empty (pve-common, SysFSTools.pm, check_iommu_support).

    The kernel makes the class whenever IOMMU support is built in, so an empty directory is the answer "off",
    and so is a missing one where the other classes can be read.
    """
    units = ask.names("/sys/class/iommu", "iommu.units")
    if units is not None:
        return units
    if ask.names("/sys/class") and ask.names("/sys/kernel/iommu_groups") == ():
        return ()
    ask.gap("iommu.units", "there is no /sys/class/iommu to look into")
    return None


def _remapping(
    ask: Asking, kernel: Kernel, firmware: Firmware, units: tuple[str, ...] | None, deep: bool
) -> bool | None:
    live = remapping_in_interrupts(ask.data("/proc/interrupts", "iommu.interrupt_remapping"))
    if live is None and deep:
        ran = ask.run(("dmesg",), "kernel.log", 20.0)
        live = remapping_in_log(ran.stdout) if ran is not None and ran.ok else None
    return live if live is not None else _remapping_promised(ask, kernel, firmware, units)


def remapping_in_interrupts(table: bytes | None) -> bool | None:
    """Controllers behind interrupt remapping carry `IR-` before their name (`IR-IO-APIC`, `IR-PCI-MSI-0000:00:1f.2`).

    Source: arch/x86/kernel/apic/io_apic.c and drivers/iommu/{intel,amd}: a remapped I/O APIC is `IR-IO-APIC`; seen to
    agree with the kernel log on recorded machines with and without remapping, Intel, AMD and neither.
    None: no such controller at all (not x86, or no table).
    """
    found = {match.group(1) for match in _CONTROLLER.finditer(table or b"")}
    return None if not found else b"IR-" in found


def remapping_in_log(log: str) -> bool | None:
    """The kernel's own words; no word is no evidence, the ring buffer may have moved on."""
    if _LOG_OFF.search(log):
        return False
    return True if _LOG_ON.search(log) else None


def _remapping_promised(ask: Asking, kernel: Kernel, firmware: Firmware, units: tuple[str, ...] | None) -> bool | None:
    if kernel.cmdline is None:
        return None
    if _INTREMAP_OFF & set(kernel.cmdline.split()):
        return False
    if firmware.dmar:
        return _dmar_flag(ask)
    if firmware.ivrs and units:
        # drivers/iommu/amd/init.c: set up together with the IOMMU, unless switched off or the table is broken.
        return True
    return False if firmware.dmar is False and firmware.ivrs is False else None


def _dmar_flag(ask: Asking) -> bool | None:
    """Bit 0 of the flags byte, after 36 bytes of ACPI header and one of address width (VT-d specification, 8.1)."""
    table = ask.data("/sys/firmware/acpi/tables/DMAR", "iommu.interrupt_remapping")
    if table is None or len(table) < 38 or table[:4] != b"DMAR":
        return None
    return bool(table[37] & 1)


def _address_width(ask: Asking, units: tuple[str, ...]) -> int | None:
    """Smallest width of all Intel units: `((cap & 0x3f0000) >> 16) + 1` (VT-d specification, MGAW; qemu-server)."""
    widths = []
    for unit in units:
        text = ask.trimmed(f"/sys/class/iommu/{unit}/intel-iommu/cap", "iommu.address_width") if plain(unit) else None
        if text is None:
            continue
        try:
            widths.append(((int(text, 16) & 0x3F0000) >> 16) + 1)
        except ValueError:
            ask.gap("iommu.address_width", "not a hexadecimal number", unit)
    return min(widths, default=None)


def _unsafe_interrupts(ask: Asking) -> bool | None:
    """None while vfio_iommu_type1 is not loaded: there is no value then."""
    text = ask.trimmed("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts", "iommu.unsafe_interrupts")
    return {"Y": True, "N": False, "1": True, "0": False}.get(text or "")


# -- CPU, memory ------------------------------------------------------------------------------


def probe_cpu(ask: Asking) -> Cpu:
    text = ask.need("/proc/cpuinfo", "cpu")
    if text is None:
        return Cpu()
    fields: dict[str, str] = {}
    for line in text.partition("\n\n")[0].splitlines():
        key, colon, value = line.partition(":")
        if colon:
            fields[key.strip()] = value.strip()
    bits = _BITS.search(fields.get("address sizes", ""))
    flags = fields.get("flags")
    count = text.count("\nprocessor\t") + text.startswith("processor\t")
    return Cpu(
        vendor=fields.get("vendor_id") or None,
        model=fields.get("model name") or None,
        physical_bits=int(bits.group(1)) if bits else None,
        flags=None if flags is None else frozenset(flags.split()),
        count=count or None,
        x86=_is_x86(fields),
    )


def _is_x86(fields: Mapping[str, str]) -> bool | None:
    """`flags` and `vendor_id` are x86's words, `CPU implementer` ARM's, `isa` RISC-V's (their kernels' cpuinfo)."""
    if "vendor_id" in fields and "flags" in fields:
        return True
    return False if "CPU implementer" in fields or "isa" in fields else None


def probe_memory(ask: Asking) -> tuple[int | None, int | None]:
    """(total, available) bytes."""
    text = ask.need("/proc/meminfo", "memory") or ""
    return _kilobytes(text, "MemTotal:"), _kilobytes(text, "MemAvailable:")


def _kilobytes(text: str, name: str) -> int | None:
    for line in text.splitlines():
        words = line.split()
        if len(words) >= 2 and words[0] == name and words[1].isascii() and words[1].isdigit() and len(words[1]) < 20:
            return int(words[1]) * 1024
    return None


def probe_numa(ask: Asking) -> tuple[NumaNode, ...] | None:
    """Source: kernel, Documentation/ABI/stable/sysfs-devices-node. No directory: a kernel without memory nodes."""
    try:
        names = ask.host.names(NUMA)
    except Missing:
        return ()
    except HostError as error:
        ask.gap("numa", error.reason)
        return None
    numbers = sorted(int(name[4:]) for name in names if _NUMA_NODE.fullmatch(name))
    return tuple(_numa_node(ask, number) for number in numbers[:MOST_NODES])


def _numa_node(ask: Asking, number: int) -> NumaNode:
    listed = ask.trimmed(f"{NUMA}/node{number}/cpulist", "numa")
    memory = re.search(r"MemTotal:\s+(\d{1,15}) kB", ask.text(f"{NUMA}/node{number}/meminfo", "numa") or "")
    return NumaNode(number, cpus_in(listed or ""), int(memory.group(1)) * 1024 if memory else None)


def cpus_in(listed: str) -> tuple[int, ...]:
    """`0-3,8` → 0 1 2 3 8; what is no such list names no processor."""
    found: set[int] = set()
    for part in listed.split(","):
        match = _CPU_RANGE.fullmatch(part.strip())
        if match:
            first = int(match.group(1))
            found.update(range(first, min(int(match.group(2) or first), first + MOST_CPUS) + 1))
    return tuple(sorted(found))


# -- firmware ---------------------------------------------------------------------------------


def probe_firmware(ask: Asking) -> Firmware:
    listing = ask.names("/sys/firmware", "firmware.uefi")
    if not listing:
        ask.gap("firmware.uefi", "there is no /sys/firmware to look into")
    uefi = None if not listing else "efi" in listing
    tables = ask.names("/sys/firmware/acpi/tables", "firmware.tables")
    if not tables:
        ask.gap("firmware.tables", "there is no list of ACPI tables")
    return Firmware(
        uefi=uefi,
        secure_boot=_secure_boot(ask, uefi),
        dmar=None if not tables else "DMAR" in tables,
        ivrs=None if not tables else "IVRS" in tables,
        product=_line(ask.trimmed("/sys/class/dmi/id/product_name", "firmware.product")),
        laptop=_laptop(ask),
    )


def _secure_boot(ask: Asking, uefi: bool | None) -> bool | None:
    if not uefi:
        return uefi
    try:
        data = ask.host.read(f"/sys/firmware/efi/efivars/{SECURE_BOOT}")
        if len(data) == 5:
            return data[4] == 1
    except Missing:
        if ask.names("/sys/firmware/efi/efivars"):
            return False  # the variables are there, this one is not: firmware without Secure Boot
    except HostError as error:
        ask.gap("firmware.secure_boot", error.reason)
        return None
    ask.gap("firmware.secure_boot", "the SecureBoot variable could not be read")
    return None


def _laptop(ask: Asking) -> bool | None:
    text = ask.trimmed("/sys/class/dmi/id/chassis_type", "firmware.laptop")
    if text is None or not (text.isascii() and text.isdigit() and len(text) < 4):
        return None
    return int(text) in _LAPTOP_CHASSIS


# -- modules ----------------------------------------------------------------------------------


def probe_modules(ask: Asking, kernel: Kernel, packages: Packages, deep: bool) -> Modules:
    text = ask.need("/proc/modules", "modules.loaded")
    loaded = None if text is None else frozenset(line.split()[0] for line in text.splitlines() if line.strip())
    listing = _initramfs_listing(ask, kernel, deep)
    return Modules(
        loaded,
        None if listing is None else modules_listed(listing),
        None if listing is None else copies_listed(listing),
        _initramfs_tool(ask, packages),
    )


def _initramfs_listing(ask: Asking, kernel: Kernel, deep: bool) -> str | None:
    about = "modules.initramfs"
    if not deep:
        ask.gap(about, "a quick look does not open the initramfs")
        return None
    if kernel.release is None or not plain(kernel.release):
        ask.gap(about, "the kernel's release is not known")
        return None
    ran = ask.run(("lsinitramfs", f"/boot/initrd.img-{kernel.release}"), about, 120.0)
    if ran is None:
        return None
    if not ran.ok:
        ask.gap(about, f"lsinitramfs ended with {ran.rc}: {ran.stderr.strip()[-200:]}")
        return None
    return ran.stdout


def copies_listed(listing: str) -> frozenset[str]:
    """Copies of files of /etc/modprobe.d and of boot scripts, as the paths that they were copied from.

    Source: initramfs-tools, mkinitramfs: /etc/modprobe.d/*.conf as they are, scripts below scripts/.
    """
    found = set()
    for line in listing.splitlines():
        path = line.strip().lstrip("./")
        if path.startswith("etc/modprobe.d/") and path.endswith(".conf"):
            found.add(f"/{path}")
        elif path.startswith("scripts/init-top/") and not path.endswith("/"):
            found.add(f"/etc/initramfs-tools/{path}")
    return frozenset(found)


def modules_listed(listing: str) -> frozenset[str]:
    """Module names, with underscores as in /proc/modules, from a list of paths (`…/vfio-pci.ko.zst`)."""
    found = set()
    for line in listing.splitlines():
        name, dot, suffix = line.rpartition("/")[2].partition(".ko")
        if dot and name and suffix in ("", ".xz", ".zst", ".gz"):
            found.add(name.replace("-", "_"))
    return frozenset(found)


def _initramfs_tool(ask: Asking, packages: Packages) -> str | None:
    """Proxmox kernels depend on `initramfs-tools | linux-initramfs-tool`: either may be there (debian/control)."""
    for package in ("initramfs-tools", "dracut"):
        if packages.version(package) is not None:
            return package
    if there(ask, "/usr/sbin/update-initramfs"):
        return "initramfs-tools"
    if there(ask, "/usr/bin/dracut"):
        return "dracut"
    # The configuration alone proves less (pve-manager puts a file there too), but dracut was not found.
    if not packages.known and ask.names("/etc/initramfs-tools") and not ask.names("/etc/dracut.conf.d"):
        return "initramfs-tools"
    ask.gap("modules.initramfs_tool", "neither initramfs-tools nor dracut was found")
    return None
