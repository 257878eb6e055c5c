"""Small machines, made of facts alone. `host()` is one on which everything is right; a test changes what it is about.

host(iommu=Iommu(units=()))                 the same machine with its IOMMU off
host(files={GRUB: 'GRUB_CMDLINE_LINUX=""'}) the same machine with this text in a file
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import Any

from pve_passthrough.model.facts import (
    Boot,
    Cpu,
    Display,
    Facts,
    Firmware,
    Iommu,
    Kernel,
    Loader,
    Modules,
    Pve,
    Space,
    Use,
    UseKind,
)
from pve_passthrough.model.pci import Address, Capabilities, Device
from pve_passthrough.model.vm import HostPci, Vm, expand_host, parse_options
from pve_passthrough.rules import Request

GRUB = "/etc/default/grub"
CMDLINE = "/etc/kernel/cmdline"
VFIO = "/etc/modprobe.d/vfio.conf"
MODULES = "/etc/modules"

IGPU, GPU, SOUND = Address(0, 0, 2, 0), Address(0, 1, 0, 0), Address(0, 1, 0, 1)
PORT, SATA, NIC, XHCI = Address(0, 0, 1, 0), Address(0, 0, 0x17, 0), Address(0, 3, 0, 0), Address(0, 0, 0x14, 0)

EXPRESS = Capabilities(express=0, extended=True)


def device(address: Address, name: str, ids: str, klass: int, group: int, driver: str = "", **more: Any) -> Device:
    vendor, product = (int(part, 16) for part in ids.split(":"))
    known: dict[str, Any] = {"resettable": True, "power_state": "D0", "capabilities": EXPRESS, "option_rom": True}
    return Device(address, vendor, product, klass, name=name, driver=driver, iommu_group=group, **(known | more))


DEVICES = (
    device(PORT, "Root Port", "8086:460d", 0x060400, 1, "pcieport", bridge=True),
    device(IGPU, "UHD Graphics", "8086:4680", 0x030000, 0, "i915", boot_vga=True),
    device(XHCI, "USB Controller", "8086:7ae0", 0x0C0330, 3, "xhci_hcd"),
    device(SATA, "SATA Controller", "8086:7ae2", 0x010601, 4, "ahci"),
    device(GPU, "GeForce RTX 4090", "10de:2684", 0x030000, 1, "vfio-pci", parent=PORT),
    device(SOUND, "AD102 Sound", "10de:22ba", 0x040300, 1, "vfio-pci", parent=PORT),
    device(NIC, "I225 Ethernet", "8086:15f3", 0x020000, 5, "igc"),
)

GOOD_GRUB = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n'
GOOD_CONFIG = {
    "name": "work",
    "bios": "ovmf",
    "efidisk0": "local-lvm:vm-100-disk-0,efitype=4m,size=4M",
    "machine": "q35",
    "cpu": "host",
    "memory": "8192",
    "balloon": "0",
    "agent": "1",
    "ostype": "l26",
    "hostpci0": "0000:01:00,pcie=1",
}

BOTH = Request((GPU, SOUND), 100)
"""The card of the good machine and the guest that already has it."""


def with_device(address: Address, **changes: Any) -> tuple[Device, ...]:
    """The machine's devices with one of them changed."""
    return tuple(replace(one, **changes) if one.address == address else one for one in DEVICES)


def guest(vmid: int = 100, *, drop: tuple[str, ...] = (), running: bool | None = False, **config: Any) -> Vm:
    """The good guest with these keys changed; hostpci entries are expanded."""
    values = {key: value for key, value in (GOOD_CONFIG | config).items() if key not in drop}
    return vm(vmid, values, running=running)


def vm(vmid: int, values: Mapping[str, str], *, running: bool | None = False, **more: Any) -> Vm:
    known = [one.address for one in DEVICES]
    entries = []
    for key in sorted(key for key in values if key.startswith("hostpci")):
        options = parse_options(values[key], "host")
        found = expand_host(options.get("host", ""), known)
        entries.append(HostPci(key, options, found, options.get("mapping", "")))
    return Vm(vmid, "pve", dict(values), running=running, hostpci=tuple(entries), **more)


def host(**changes: Any) -> Facts:
    files: dict[str, str | None] = {GRUB: GOOD_GRUB, CMDLINE: None, **changes.pop("files", {})}
    good = Facts(
        host="test",
        devices=DEVICES,
        iommu=Iommu(("dmar0",), interrupt_remapping=True, address_width=46, unsafe_interrupts=False),
        cpu=Cpu("GenuineIntel", "i7", 46, frozenset(), 16),
        firmware=Firmware(uefi=True, secure_boot=False, dmar=True, ivrs=False),
        kernel=Kernel("6.8.12-9-pve", "BOOT_IMAGE=/boot/vmlinuz root=/dev/mapper/pve-root ro quiet", "boot"),
        modules=Modules(frozenset({"vfio_pci"})),
        boot=Boot((Loader.GRUB,), managed=False),
        display=Display(console_owner=IGPU, framebuffer="i915drmfb", serial_console=False),
        pve=Pve(True, "8.4.1", "8.3.12", "pve", ("pve",), quorate=True, writable=True),
        guests=(guest(),),
        uses=(
            Use(SATA, UseKind.ROOT_DISK, "vg pve on /dev/sda3", vital=True),
            Use(NIC, UseKind.MANAGEMENT_NET, "vmbr0 over enp3s0", vital=True),
            Use(IGPU, UseKind.CONSOLE, "fb0"),
            Use(XHCI, UseKind.KEYBOARD, "keyboard at 1-2"),
        ),
        uses_known=frozenset({"disks", "network", "console", "keyboard"}),
        spaces=(Space("/boot", 10 * 1024**3, 5 * 1024**3),),
        memory_total=64 * 1024**3,
        memory_free=32 * 1024**3,
        files=files,
    )
    return replace(good, **changes)


def in_group(kind: UseKind, detail: str = "in use", **more: Any) -> Facts:
    """The SATA controller shares the card's group, and the host uses it for `kind`."""
    return host(devices=with_device(SATA, iommu_group=1), uses=(Use(SATA, kind, detail, **more),))
