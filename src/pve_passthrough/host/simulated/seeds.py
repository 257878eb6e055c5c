"""The machines that are built in, by name. Data only.

1. Vendor, device and class numbers are those of the PCI ID list; serial numbers and names are made up.
2. Each seed differs from `default` in the one thing that it is named after.
"""

from __future__ import annotations

from dataclasses import replace

from .spec import GIB, MIB, DiskSpec, EspSpec, MachineSpec, NicSpec, PciSpec, Root, UsbSpec

PVE_92 = ("9.2.11", "14a22df35955d97d", "9.2.6")
PVE_81 = ("8.1.10", "4b06efb5db453f29", "8.0.10")
KERNEL_70 = "7.0.14-4-pve"
KERNEL_65 = "6.5.13-6-pve"

_GEN4_X16 = ("2.5 GT/s PCIe", "16.0 GT/s PCIe", 16, 16)
_GEN3_X16 = ("2.5 GT/s PCIe", "8.0 GT/s PCIe", 16, 16)
_GEN4_X4 = ("16.0 GT/s PCIe", "16.0 GT/s PCIe", 4, 4)
_GEN2_X1 = ("5.0 GT/s PCIe", "5.0 GT/s PCIe", 1, 1)


def _rtx_4090(bus: str, parent: str, group: int, subsystem: str = "1043:889a") -> tuple[PciSpec, ...]:
    """Card and its audio function, on nouveau as a fresh Proxmox host has it."""
    card = PciSpec(
        f"0000:{bus}:00.0", "10de:2684", 0x030000, group, "nouveau", "nouveau", parent, subsystem, 0xA1, port=0,
        bars=((0, 16 * MIB, False), (1, 32 * GIB, True), (3, 32 * MIB, True)), rom=True, boot_vga=False,
        reset=("flr", "bus"), flr=True, rebar=tuple(1 << bit for bit in range(26, 36)), link=_GEN4_X16,
        others=(("nvidiafb", "nvidiafb"),),
    )  # fmt: skip
    audio = PciSpec(
        f"0000:{bus}:00.1", "10de:22ba", 0x040300, group, "snd_hda_intel", "snd_hda_intel", parent, subsystem, 0xA1,
        port=0, bars=((0, 16 << 10, False),), link=_GEN4_X16,
    )  # fmt: skip
    return card, audio


def _rtx_2080(bus: str, parent: str, group: int) -> tuple[PciSpec, ...]:
    """Four functions: picture, sound, USB-C host, USB-C control."""
    sub = "1458:37a8"
    return (
        PciSpec(
            f"0000:{bus}:00.0", "10de:1e87", 0x030000, group, "nouveau", "nouveau", parent, sub, 0xA1, port=0,
            bars=((0, 16 * MIB, False), (1, 256 * MIB, True), (3, 32 * MIB, True)), rom=True, boot_vga=False,
            reset=("bus",), link=_GEN3_X16, others=(("nvidiafb", "nvidiafb"),),
        ),
        PciSpec(f"0000:{bus}:00.1", "10de:10f8", 0x040300, group, "snd_hda_intel", "snd_hda_intel", parent, sub, 0xA1,
                port=0, bars=((0, 16 << 10, False),), link=_GEN3_X16),
        PciSpec(f"0000:{bus}:00.2", "10de:1ad8", 0x0C0330, group, "xhci_hcd", "xhci_pci", parent, sub, 0xA1,
                port=0, bars=((0, 256 << 10, True),), reset=("pm",), link=_GEN3_X16, early=True),
        PciSpec(f"0000:{bus}:00.3", "10de:1ad9", 0x0C8000, group, "nvidia-gpu", "i2c_nvidia_gpu", parent, sub, 0xA1,
                port=0, bars=((0, 4 << 10, False),), link=_GEN3_X16, early=True),
    )  # fmt: skip


_SUB = "1043:8694"

ALDER_LAKE = (
    PciSpec("0000:00:00.0", "8086:4668", 0x060000, 0, subsystem=_SUB, revision=2),
    PciSpec("0000:00:01.0", "8086:460d", 0x060400, 1, "pcieport", port=4, revision=2, link=_GEN4_X16),
    PciSpec("0000:00:02.0", "8086:4680", 0x030000, 2, "i915", "i915", subsystem=_SUB, revision=0x0C, port=9,
            bars=((0, 16 * MIB, True), (2, 256 * MIB, True)), boot_vga=True, reset=("flr",), flr=True),
    PciSpec("0000:00:0a.0", "8086:467d", 0x118000, 3, "intel_vsec", "intel_vsec", subsystem=_SUB, revision=1, port=9,
            bars=((0, 32 << 10, True),), reset=("flr",), flr=True),
    PciSpec("0000:00:14.0", "8086:7ae0", 0x0C0330, 4, "xhci_hcd", "xhci_pci", subsystem=_SUB, revision=0x11,
            bars=((0, 64 << 10, True),), reset=("pm",), early=True),
    PciSpec("0000:00:14.2", "8086:7aa7", 0x050000, 4, subsystem=_SUB, revision=0x11, bars=((0, 16 << 10, True),)),
    PciSpec("0000:00:17.0", "8086:7ae2", 0x010601, 6, "ahci", "ahci", subsystem=_SUB, revision=0x11,
            bars=((0, 8 << 10, False), (5, 2 << 10, False)), reset=("pm",), early=True),
    PciSpec("0000:00:1a.0", "8086:7ac8", 0x060400, 7, "pcieport", port=4, revision=0x11, acs=True, link=_GEN4_X4),
    PciSpec("0000:00:1c.0", "8086:7ab8", 0x060400, 8, "pcieport", port=4, revision=0x11, acs=True, link=_GEN2_X1),
    PciSpec("0000:00:1f.0", "8086:7a84", 0x060100, 9, subsystem=_SUB, revision=0x11),
    PciSpec("0000:00:1f.3", "8086:7ad0", 0x040300, 9, "snd_hda_intel", "snd_hda_intel", subsystem=_SUB, revision=0x11,
            bars=((0, 16 << 10, True),), reset=("pm",)),
    PciSpec("0000:00:1f.4", "8086:7aa3", 0x0C0500, 9, "i801_smbus", "i2c_i801", subsystem=_SUB, revision=0x11,
            early=True),
    PciSpec("0000:00:1f.5", "8086:7aa4", 0x0C8000, 9, "intel-spi", "spi_intel_pci", subsystem=_SUB, revision=0x11,
            bars=((0, 4 << 10, False),), early=True),
    PciSpec("0000:02:00.0", "144d:a80a", 0x010802, 10, "nvme", "nvme", "0000:00:1a.0", "144d:a801", port=0,
            bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN4_X4, early=True),
    PciSpec("0000:03:00.0", "8086:15f3", 0x020000, 11, "igc", "igc", "0000:00:1c.0", "1043:87d2", 3, port=0,
            bars=((0, 1 * MIB, False),), reset=("flr", "bus"), flr=True, link=_GEN2_X1, early=True),
)  # fmt: skip

_COFFEE = (
    PciSpec("0000:00:00.0", "8086:3ec2", 0x060000, 0, subsystem="1458:5000", revision=0x0A),
    PciSpec("0000:00:01.0", "8086:1901", 0x060400, 1, "pcieport", port=4, revision=0x0A, link=_GEN3_X16),
    PciSpec("0000:00:02.0", "8086:3e92", 0x030000, 2, "i915", "i915", subsystem="1458:d000", port=9,
            bars=((0, 16 * MIB, True), (2, 256 * MIB, True)), boot_vga=True, reset=("flr",), flr=True),
    PciSpec("0000:00:14.0", "8086:a36d", 0x0C0330, 3, "xhci_hcd", "xhci_pci", subsystem="1458:5007", revision=0x10,
            bars=((0, 64 << 10, True),), reset=("pm",), early=True),
    PciSpec("0000:00:17.0", "8086:a352", 0x010601, 4, "ahci", "ahci", subsystem="1458:b005", revision=0x10,
            bars=((0, 8 << 10, False), (5, 2 << 10, False)), reset=("pm",), early=True),
    PciSpec("0000:00:1f.0", "8086:a305", 0x060100, 5, subsystem="1458:5001", revision=0x10),
    PciSpec("0000:00:1f.3", "8086:a348", 0x040300, 5, "snd_hda_intel", "snd_hda_intel", subsystem="1458:a0d0",
            revision=0x10, bars=((0, 16 << 10, True),), reset=("pm",)),
    PciSpec("0000:00:1f.4", "8086:a323", 0x0C0500, 5, "i801_smbus", "i2c_i801", subsystem="1458:5001", revision=0x10,
            early=True),
    PciSpec("0000:00:1f.6", "8086:15bc", 0x020000, 5, "e1000e", "e1000e", subsystem="1458:e000", revision=0x10,
            bars=((0, 128 << 10, False),), reset=("flr",), flr=True, early=True),
)  # fmt: skip

_CEZANNE = (
    PciSpec("0000:00:00.0", "1022:1630", 0x060000, 0, subsystem="1462:7c91"),
    PciSpec("0000:00:00.2", "1022:1631", 0x080600, 0, subsystem="1462:7c91"),
    PciSpec("0000:00:01.0", "1022:1632", 0x060000, 1),
    PciSpec("0000:00:01.1", "1022:1633", 0x060400, 2, "pcieport", port=4, acs=True, link=_GEN3_X16),
    PciSpec("0000:00:02.0", "1022:1632", 0x060000, 3),
    PciSpec("0000:00:02.1", "1022:1634", 0x060400, 4, "pcieport", port=4, acs=True, link=_GEN4_X4),
    PciSpec("0000:00:02.2", "1022:1634", 0x060400, 5, "pcieport", port=4, acs=True, link=_GEN2_X1),
    PciSpec("0000:00:08.0", "1022:1632", 0x060000, 6),
    PciSpec("0000:00:08.1", "1022:1635", 0x060400, 6, "pcieport", port=4, link=_GEN3_X16),
    PciSpec("0000:00:14.0", "1022:790b", 0x0C0500, 7, "piix4_smbus", "i2c_piix4", subsystem="1462:7c91", revision=0x51,
            early=True),
    PciSpec("0000:00:14.3", "1022:790e", 0x060100, 7, subsystem="1462:7c91", revision=0x51),
    PciSpec("0000:01:00.0", "1002:1478", 0x060400, 8, "pcieport", "", "0000:00:01.1", port=5, revision=0xC7, acs=True,
            link=_GEN3_X16),
    PciSpec("0000:02:00.0", "1002:1479", 0x060400, 9, "pcieport", "", "0000:01:00.0", port=6, acs=True, link=_GEN3_X16),
    PciSpec("0000:03:00.0", "1002:73ff", 0x030000, 10, "amdgpu", "amdgpu", "0000:02:00.0", "1458:2332", 0xC7, port=0,
            bars=((0, 256 * MIB, True), (2, 2 * MIB, True), (5, 1 * MIB, False)), rom=True, boot_vga=False,
            reset=("bus",), rebar=tuple(1 << bit for bit in range(28, 34)), link=_GEN3_X16),
    PciSpec("0000:03:00.1", "1002:ab28", 0x040300, 11, "snd_hda_intel", "snd_hda_intel", "0000:02:00.0", "1002:ab28",
            port=0, bars=((0, 16 << 10, False),), link=_GEN3_X16),
    PciSpec("0000:04:00.0", "144d:a80a", 0x010802, 12, "nvme", "nvme", "0000:00:02.1", "144d:a801", port=0,
            bars=((0, 16 << 10, True),), reset=("flr", "bus"), flr=True, link=_GEN4_X4, early=True),
    PciSpec("0000:05:00.0", "10ec:8168", 0x020000, 13, "r8169", "r8169", "0000:00:02.2", "1462:7c91", 0x15, port=0,
            bars=((2, 4 << 10, True), (4, 16 << 10, True)), reset=("flr", "bus"), flr=True, link=_GEN2_X1, early=True),
    PciSpec("0000:06:00.0", "1002:1638", 0x030000, 6, "amdgpu", "amdgpu", "0000:00:08.1", "1462:7c91", 0xC8, port=0,
            bars=((0, 256 * MIB, True), (2, 2 * MIB, True), (5, 512 << 10, False)), boot_vga=True, reset=("bus",),
            link=_GEN3_X16),
    PciSpec("0000:06:00.1", "1002:1637", 0x040300, 6, "snd_hda_intel", "snd_hda_intel", "0000:00:08.1", "1462:7c91",
            port=0, bars=((0, 16 << 10, False),), link=_GEN3_X16),
    PciSpec("0000:06:00.3", "1022:1639", 0x0C0330, 6, "xhci_hcd", "xhci_pci", "0000:00:08.1", "1462:7c91", port=0,
            bars=((0, 1 * MIB, True),), reset=("pm",), link=_GEN3_X16, early=True),
)  # fmt: skip

_GUEST = """agent: 1
balloon: 2048
bios: ovmf
boot: order=scsi0;net0
cores: 4
cpu: x86-64-v2-AES
efidisk0: {storage}:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M
memory: 8192
meta: creation-qemu=11.0.0,ctime=1784192712
name: workstation
net0: virtio=BC:24:11:5A:01:00,bridge=vmbr0,firewall=1
numa: 0
ostype: l26
scsi0: {storage}:vm-100-disk-1,iothread=1,size=64G
scsihw: virtio-scsi-single
smbios1: uuid=2f2c1d5e-8c0a-4d0f-9a43-2f3a61c3a100
sockets: 1
vmgenid: 6a0a9f59-52c9-4a4c-8f0a-0e4c6f0aa100
"""


def _guests(storage: str) -> dict[int, str]:
    return {100: _GUEST.format(storage=storage)}


def _keyboard(controller: str) -> tuple[UsbSpec, ...]:
    """A keyboard with two interfaces and a serial dongle on the chipset's USB controller."""
    return (
        UsbSpec("1-2", controller, "046d:c31c", "Keyboard K120", ((3, 1, 1), (3, 0, 0)), "1.5"),
        UsbSpec("1-3", controller, "1a86:7523", "USB Serial", ((255, 1, 2),)),
    )


_NVME = DiskSpec("nvme0n1", "0000:02:00.0", "S5GXNX0R100001", 1000 * GIB, (1 * MIB, 1 * GIB, 998 * GIB))
_SATA = DiskSpec("sda", "0000:00:17.0", "WD-WX11D100001", 4000 * GIB, (4000 * GIB,))


def _mirror(controller: str) -> tuple[DiskSpec, ...]:
    """Two SATA disks, each with a BIOS boot partition, an ESP and a ZFS partition, as the installer makes them."""
    parts = (1 * MIB, 1 * GIB, 464 * GIB)
    return (
        DiskSpec("sda", controller, "S4EMNX0R200001", 466 * GIB, parts),
        DiskSpec("sdb", controller, "S4EMNX0R200002", 466 * GIB, parts),
    )


DEFAULT = MachineSpec(
    name="default",
    product="ROG STRIX Z690-A",
    cpu_vendor="GenuineIntel",
    cpu_model="12th Gen Intel(R) Core(TM) i7-12700K",
    kernel=KERNEL_70,
    pve=PVE_92,
    devices=ALDER_LAKE + _rtx_4090("01", "0000:00:01.0", 1),
    disks=(_NVME, _SATA),
    root=Root.LVM,
    root_partitions=("nvme0n1p3",),
    nics=(NicSpec("nic0", "0000:03:00.0", "04:42:1a:00:00:01", "vmbr0"),),
    usb=_keyboard("0000:00:14.0"),
    efi_partition="nvme0n1p2",
    screens={
        "0000:00:02.0": ("card0", "HDMI-A-1", "i915drmfb"),
        "0000:01:00.0": ("card1", "DP-1", "nouveaudrmfb"),
    },
    guests=_guests("local-lvm"),
)

_COFFEE_BASE = replace(
    DEFAULT,
    product="Z390 AORUS PRO",
    cpu_model="Intel(R) Core(TM) i7-8700K CPU @ 3.70GHz",
    devices=_COFFEE + _rtx_2080("01", "0000:00:01.0", 1),
    disks=(DiskSpec("sda", "0000:00:17.0", "S4EMNX0R300001", 466 * GIB, (1 * MIB, 1 * GIB, 464 * GIB)),),
    root_partitions=("sda3",),
    nics=(NicSpec("eno1", "0000:00:1f.6", "b4:2e:99:00:00:01", "vmbr0"),),
    efi_partition="sda2",
)

_COFFEE_ZFS = replace(
    _COFFEE_BASE,
    disks=_mirror("0000:00:17.0"),
    root=Root.ZFS,
    root_partitions=("sda3", "sdb3"),
    efi_partition="",
    cmdline="",
    guests=_guests("local-zfs"),
)

INTEL_65_GRUB = replace(_COFFEE_BASE, name="intel-6.5-grub", kernel=KERNEL_65, pve=PVE_81)

INTEL_ZFS = replace(
    _COFFEE_ZFS,
    name="intel-zfs",
    esps=(EspSpec("5EBA-2B61", "sda2"), EspSpec("5EBA-9A63", "sdb2")),
    older_kernels=("6.17.2-1-pve",),
)

MIXED = replace(
    _COFFEE_ZFS,
    name="mixed",
    esps=(EspSpec("5EBA-2B61", "sda2", grub=True), EspSpec("5EBA-9A63", "sdb2")),
    cmdline="quiet",
)

AMD_SECUREBOOT = replace(
    DEFAULT,
    name="amd-secureboot",
    product="MAG B550 TOMAHAWK (MS-7C91)",
    cpu_vendor="AuthenticAMD",
    cpu_model="AMD Ryzen 7 5700G with Radeon Graphics",
    devices=_CEZANNE,
    disks=(replace(_NVME, controller="0000:04:00.0"),),
    root=Root.ZFS,
    root_partitions=("nvme0n1p3",),
    nics=(NicSpec("enp5s0", "0000:05:00.0", "2c:f0:5d:00:00:01", "vmbr0"),),
    usb=_keyboard("0000:06:00.3"),
    esps=(EspSpec("A1B2-C3D4", "nvme0n1p2", grub=True),),
    efi_partition="",
    secure_boot=True,
    screens={
        "0000:06:00.0": ("card0", "HDMI-A-1", "amdgpudrmfb"),
        "0000:03:00.0": ("card1", "DP-1", "amdgpudrmfb"),
    },
    guests=_guests("local-zfs"),
)

BIOS_GRUB = replace(_COFFEE_BASE, name="bios-grub", uefi=False, efi_partition="")

TWINS = replace(
    DEFAULT,
    name="twins",
    devices=(
        *ALDER_LAKE,
        *_rtx_4090("01", "0000:00:01.0", 1),
        PciSpec("0000:00:06.0", "8086:464d", 0x060400, 12, "pcieport", port=4, revision=2, link=_GEN4_X4),
        *_rtx_4090("04", "0000:00:06.0", 12),
    ),
    screens={**DEFAULT.screens, "0000:04:00.0": ("card2", "DP-2", "nouveaudrmfb")},
)

SHARED_SATA = replace(
    DEFAULT,
    name="shared-sata",
    devices=tuple(
        replace(device, group=1, acs_group=6) if device.address == "0000:00:17.0" else device
        for device in DEFAULT.devices
    ),
    disks=_mirror("0000:00:17.0"),
    root=Root.ZFS,
    root_partitions=("sda3", "sdb3"),
    esps=(EspSpec("7C1D-4E2F", "sda2"), EspSpec("7C1E-5A3B", "sdb2")),
    efi_partition="",
    cmdline="",
    guests=_guests("local-zfs"),
)

ONLY_DISPLAY = replace(
    DEFAULT,
    name="only-display",
    cpu_model="12th Gen Intel(R) Core(TM) i5-12400F",
    devices=tuple(
        replace(device, boot_vga=True) if device.address == "0000:01:00.0" else device
        for device in DEFAULT.devices
        if device.address != "0000:00:02.0"
    ),
    screens={"0000:01:00.0": ("card0", "DP-1", "nouveaudrmfb")},
)

SEEDS: dict[str, MachineSpec] = {
    seed.name: seed
    for seed in (
        DEFAULT,
        INTEL_65_GRUB,
        INTEL_ZFS,
        AMD_SECUREBOOT,
        MIXED,
        BIOS_GRUB,
        TWINS,
        SHARED_SATA,
        ONLY_DISPLAY,
    )
}
