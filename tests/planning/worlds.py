"""Small machines for the planner: facts with a graphics card, a guest and the files that a plan may edit."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

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
from pve_passthrough.model.own import OWN_FILES
from pve_passthrough.model.pci import Address, Capabilities, Device
from pve_passthrough.model.vm import HostPci, Vm, expand_host, parse_options
from pve_passthrough.planning import edit_cmdline, edit_grub

GRUB = 'GRUB_DEFAULT=0\nGRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX=""\n'
CMDLINE = "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n"
EXPRESS = Capabilities(express=0)


def at(text: str) -> Address:
    return Address.parse(text)


def device(address: str, identity: str, class_code: int, driver: str = "", **more: object) -> Device:
    """`device("01:00.0", "10de:2684", 0x030000, "nouveau", group=1)`; everything else has a plain default."""
    vendor, product = (int(part, 16) for part in identity.split(":"))
    group = more.pop("group", 0)
    plain = Device(
        at(address), vendor, product, class_code, name=str(more.pop("name", "")), driver=driver,
        iommu_group=group if isinstance(group, int) else None, capabilities=EXPRESS,
    )  # fmt: skip
    return replace(plain, **more)  # type: ignore[arg-type]


IGPU = device("00:02.0", "8086:4680", 0x030000, "i915", group=0, name="Intel UHD 770", boot_vga=True)
GPU = device("01:00.0", "10de:2684", 0x030000, "nouveau", group=13, name="NVIDIA AD102", boot_vga=False)
SOUND = device("01:00.1", "10de:22ba", 0x040300, "snd_hda_intel", group=13, name="NVIDIA AD102 Audio")
NIC = device("02:00.0", "8086:15f3", 0x020000, "igc", group=14, name="Intel I225-V")
SATA = device("00:17.0", "8086:7ae2", 0x010601, "ahci", group=9, name="Intel SATA")
TWIN = device("04:00.0", "10de:2684", 0x030000, "nouveau", group=16, name="NVIDIA AD102", boot_vga=False)
RADEON = device("03:00.0", "1002:73bf", 0x030000, "amdgpu", group=15, name="AMD Navi 21", boot_vga=False)
RADEON_SOUND = device("03:00.1", "1002:ab28", 0x040300, "snd_hda_intel", group=15, name="AMD Navi 21 Audio")

FIT = {"cpu": "host", "machine": "q35"}
DEVICES = (IGPU, SATA, GPU, SOUND, NIC, RADEON, RADEON_SOUND)


def guest(vmid: int = 100, known: tuple[Device, ...] = DEVICES, config: Mapping[str, str] | None = None) -> Vm:
    """A stopped guest on this node; hostpci entries are expanded over `known`."""
    config = {"name": "lab", "memory": "4096", **(config or {})}
    addresses = [entry.address for entry in known]
    entries = tuple(
        HostPci(key, options, expand_host(options.get("host", ""), addresses), options.get("mapping", ""))
        for key, value in config.items() if key.startswith("hostpci") for options in [parse_options(value, "host")]
    )  # fmt: skip
    return Vm(vmid, "pve", config, running=False, hostpci=entries)


def files(grub: str | None = GRUB, cmdline: str | None = None, **more: str | None) -> dict[str, str | None]:
    """The texts of a Proxmox host; further ones by path with `files(**{"/etc/…": text})`."""
    directories = (
        "/etc/default/grub.d/", "/etc/modprobe.d/", "/etc/modules-load.d/", "/etc/initramfs-tools/scripts/init-top/",
    )  # fmt: skip
    return {
        "/etc/default/grub": grub,
        "/etc/kernel/cmdline": cmdline,
        **dict.fromkeys(OWN_FILES),
        **dict.fromkeys(directories, "directory"),
        **more,
    }


def facts(**changes: object) -> Facts:
    """An Intel host with GRUB and kernel 7.0 whose IOMMU is on; any field of Facts may be replaced."""
    base = Facts(
        host="test",
        devices=DEVICES,
        iommu=Iommu(units=("dmar0",)),
        cpu=Cpu(vendor="GenuineIntel"),
        firmware=Firmware(uefi=True, dmar=True, ivrs=False),
        kernel=Kernel("7.0.14-4-pve", "BOOT_IMAGE=/vmlinuz root=/dev/mapper/pve-root ro quiet"),
        modules=Modules(initramfs_tool="initramfs-tools"),
        boot=Boot((Loader.GRUB,), managed=False),
        display=Display(at("00:02.0"), "i915drmfb"),
        pve=Pve(True, "9.2.11", node="pve"),
        guests=(guest(config=FIT),),
        uses=(Use(at("00:17.0"), UseKind.ROOT_DISK, "vg pve on /dev/sda3", vital=True),),
        uses_known=frozenset({"disks", "network", "console", "keyboard"}),
        spaces=(Space("/boot", 1 << 34, 1 << 33),),
        files=files(),
    )
    return replace(base, **changes)  # type: ignore[arg-type]


def old_kernel(cmdline: str = "root=/dev/mapper/pve-root ro quiet") -> dict[str, object]:
    """Changes to `facts`: a kernel of PVE 8.1 that leaves Intel's IOMMU off."""
    return {"kernel": Kernel("6.5.13-6-pve", cmdline), "iommu": Iommu(units=())}


def after(before: Facts, changes: Mapping[str, str | None]) -> Facts:
    """The facts with these files changed."""
    return replace(before, files={**before.files, **changes})


def next_words(known: Facts) -> list[str]:
    """The kernel's words at the next boot by the first loader's source, read with the planner's own readers."""
    assert known.boot.loaders
    if known.boot.loaders[0] is Loader.SYSTEMD_BOOT:
        return edit_cmdline.tokens_of(known.files["/etc/kernel/cmdline"] or "")
    return edit_grub.tokens_of(known.files)
