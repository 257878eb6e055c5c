"""Each rule fires on a machine that has its fault, and is silent on one that has not; and each has a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.model.attached import Attached, Interface
from pve_passthrough.model.attached import Disk as DiskOn
from pve_passthrough.model.facts import (
    Boot,
    Display,
    Esp,
    Facts,
    Firmware,
    Iommu,
    Kernel,
    Loader,
    MapEntry,
    Modules,
    NumaNode,
    Pve,
    ResourceMapping,
    Space,
    Storage,
    UsbUse,
    UseKind,
)
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.identity import Assignment
from pve_passthrough.model.lifecycle import BackupJob, HaResource, Lifecycle, Replication
from pve_passthrough.model.mediated import MDEV, Mediated, MediatedType, Parent
from pve_passthrough.model.own import UDEV_RULES
from pve_passthrough.model.pci import NO_GROUP, Address, Bar, Capabilities, Device, Link, MsixLayout
from pve_passthrough.model.sighting import remember
from pve_passthrough.model.sriov import PhysicalFunction
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.model.vm import HostPci, Vm
from pve_passthrough.rules import RULES, Request, page, page_ids

from .container_worlds import RAW, RENDER, ct, sharing
from .container_worlds import given as given_node
from .worlds import (
    BOTH,
    CMDLINE,
    DEVICES,
    GPU,
    GRUB,
    IGPU,
    MODULES,
    NIC,
    PORT,
    SATA,
    SOUND,
    VFIO,
    XHCI,
    device,
    guest,
    host,
    in_group,
    with_device,
)

SYSTEMD = Boot((Loader.SYSTEMD_BOOT,), (Esp("AAAA-BBBB", (Loader.SYSTEMD_BOOT,)),), managed=True)
MIXED = Boot((Loader.GRUB_ESP, Loader.SYSTEMD_BOOT), (Esp("AAAA-BBBB", (Loader.GRUB_ESP,)),), managed=True)
TESLA = Address(0, 4, 0, 0)


def kernel(cmdline: str = "root=/dev/sda1 quiet", release: str = "6.8.12-9-pve") -> Kernel:
    return Kernel(release, cmdline, "boot")


LENT = "0000:01:00.0 10de:2684\n0000:01:00.1 10de:22ba\n"
HOOK = "local:snippets/pve-passthrough-hook-100"


def line(path: str, **options: str) -> MapEntry:
    """A mapping's line that fits the good machine's card, but for these."""
    card = next(one for one in DEVICES if one.address == GPU)
    fitting = {"id": card.id, "iommugroup": str(card.iommu_group)}
    if "?" not in card.subsystem:
        fitting["subsystem-id"] = card.subsystem
    return MapEntry("pve", path, {**fitting, **{key.replace("_", "-"): text for key, text in options.items()}})


def mapped(**options: str) -> Facts:
    """The good machine, whose guest gets the card through a mapping with these numbers in it."""
    mapping = ResourceMapping("pci", "card", (line("0000:01:00", **options),))
    return host(mappings=(mapping,), guests=(guest(hostpci0="mapping=card,pcie=1"),))


def lending(text: str = LENT, **config: str) -> Facts:
    """The good machine, whose guest borrows the card."""
    return host(files={"/etc/pve-passthrough/lent-100.conf": text}, guests=(guest(**config),))  # type: ignore[arg-type]


def initramfs(*files: str) -> Modules:
    """A deep look has opened the image, and these are in it."""
    return Modules(frozenset({"vfio_pci"}), frozenset(), frozenset(files), "initramfs-tools")


def grub(words: str) -> dict[str, str]:
    return {GRUB: f'GRUB_CMDLINE_LINUX_DEFAULT="{words}"\n'}


TOKEN = UsbDevice("1-4", 0x0529, 0x0001, 0, "HASP token", XHCI)
DISK = UsbDevice("2-3", 0x0781, 0x5583, 0, "Ultra Fit", XHCI, storage=True)
CORAL = UsbDevice("2-1", 0x1A6E, 0x089A, 0, "", XHCI)
ADAPTER = UsbDevice(
    "1-6", 0x10C4, 0xEA60, 0, "CP2102", XHCI, terminals=("ttyUSB0",), paths=("/dev/serial/by-id/usb-CP2102",)
)
GIVEN_USB = Assignment("run", 100, (), {"1-4": "0529:0007"})


def plugged(*devices: UsbDevice, **changes: Any) -> Facts:
    """The good machine with these USB devices; keys of facts change facts, all others the guest."""
    hub = UsbDevice("usb1", 0x1D6B, 2, 9, "xHCI Host Controller", XHCI, ports=16)
    known = {key: changes.pop(key) for key in ("usb_uses", "guests", "mappings", "assignments") if key in changes}
    return host(**{"usb": (hub, *devices), "guests": (guest(**changes),)} | known)


def usb_mapping(identity: str) -> ResourceMapping:
    return ResourceMapping("usb", "key", (MapEntry("pve", "", {"id": identity}),))


def modprobe(*lines: str) -> Facts:
    return host(files={VFIO: "".join(f"{line}\n" for line in lines)})


def config(*, drop: tuple[str, ...] = (), running: bool | None = False, **values: Any) -> Facts:
    return host(guests=(guest(drop=drop, running=running, **values),))


def cluster(*guests: Vm, **more: Any) -> Facts:
    """The good machine as one of two nodes."""
    pve = Pve(True, "9.2.11", "9.2.6", "pve", ("pve", "pve2"), quorate=True, writable=True)
    return host(pve=pve, guests=guests or (guest(),), **more)


def plus(address: Address, name: str, ids: str, klass: int, group: int, driver: str = "", **more: object) -> Facts:
    return host(devices=(*DEVICES, device(address, name, ids, klass, group, driver, **more)))


NEW = (guest(drop=("hostpci0",)),)
"""A guest that does not have the card yet."""


def given(**changes: Any) -> Facts:
    """The good machine, changed since the guest was given its card."""
    return replace(host(**changes), assignments=(Assignment("run", 100, remember(host(), (GPU, SOUND))),))


def on_bus_7() -> tuple[Device, ...]:
    """The card behind its port, whose bus has another number now."""
    return tuple(replace(one, address=one.address._replace(bus=7)) if one.parent else one for one in DEVICES)


def without_card() -> tuple[Device, ...]:
    return tuple(one for one in DEVICES if one.parent is None)


CONF = f"/etc/pve-passthrough/sriov-{NIC}.conf"
VF = Address(0, 3, 0x10, 0)


def sriov(conf: str | None = "device 8086:15f3\nvfs 2\nend\n", text: str = "vfs 2", **changes: Any) -> Facts:
    """The good machine, whose network card has two virtual functions, as our file says; guest 100 gets the first."""
    nic = {"sriov_total": 7, "sriov_active": 2, "virtual_functions": (VF, VF._replace(function=2))} | changes
    virtual = device(VF, "Virtual Function", "8086:10ca", 0x020000, 20, "igbvf", physical_function=NIC)
    facts = host(devices=(*with_device(NIC, **nic), virtual), files={CONF: conf})
    entry = HostPci("hostpci1", {"host": str(VF)}, (VF,))
    guests = (replace(guest(), hostpci=(*guest().hostpci, entry)),)
    return replace(facts, guests=guests, sriov=(PhysicalFunction(NIC, text, interface="nic0", placed=True),))


def unplaced() -> Facts:
    facts = sriov(sriov_active=0, virtual_functions=())
    return replace(facts, sriov=(PhysicalFunction(NIC, "vfs 0", placed=False),))


def given_whole() -> Facts:
    facts = sriov()
    entry = HostPci("hostpci2", {"host": str(NIC)}, (NIC,))
    return replace(facts, guests=tuple(replace(one, hostpci=(*one.hostpci, entry)) for one in facts.guests or ()))


FUNCTION = Address(0, 1, 0, 4)
VIRTUAL = device(
    FUNCTION, "Virtual Function", "10de:2684", 0x030200, 20, "nvidia", physical_function=GPU, nvidia_types=True
)
SHARER = Request(vmid=100)


def offering(parent: Address, kind: str, left: int = 1, **changed: Any) -> Facts:
    """The good machine, whose guest has a share of this type; its card offers nvidia-660 alone."""
    offered = Parent(str(parent), MDEV, (MediatedType("nvidia-660", "GRID A-4Q", "", left),), parent)
    return host(
        devices=with_device(parent, **({"driver": "nvidia"} | changed)),
        guests=(guest(hostpci0=f"{parent},mdev={kind}"),),
        mediated=Mediated((offered,)),
    )


FIRES: dict[str, tuple[Facts, Request, Level]] = {
    "sriov.conf-broken": (sriov("device 8086:15f3\nvfs 2\n"), BOTH, Level.HARMS),
    "sriov.conf-stale": (sriov("device 8086:10c9\nvfs 2\nend\n"), BOTH, Level.HARMS),
    "sriov.not-ready": (sriov(driver=""), BOTH, Level.HARMS),
    "sriov.count-differs": (sriov(sriov_active=1), BOTH, Level.HARMS),
    "sriov.pf-claimed": (given_whole(), BOTH, Level.HARMS),
    "sriov.not-persistent": (sriov(None), BOTH, Level.HARMS),
    "sriov.autoprobe-off": (sriov(text="vfs 2\nautoprobe off"), Request((VF,), 100), Level.HARMS),
    "sriov.vf-without-mac": (
        sriov(text="vfs 2\nvf 0 mac=00:00:00:00:00:00\nvf 1 mac=02:00:00:00:00:01"),
        Request((VF,), 100),
        Level.NOTE,
    ),
    "sriov.no-room": (unplaced(), BOTH, Level.HARMS),
    "platform.proxmox": (host(pve=Pve(installed=False)), BOTH, Level.BLOCKS),
    "platform.iommu": (host(iommu=Iommu(units=()), firmware=Firmware(dmar=False, ivrs=False)), BOTH, Level.BLOCKS),
    "platform.interrupt-remapping": (host(iommu=Iommu(("dmar0",), False)), BOTH, Level.BLOCKS),
    "platform.unsafe-interrupts": (
        modprobe("options vfio_iommu_type1 allow_unsafe_interrupts=1"),
        BOTH,
        Level.HARMS,
    ),
    "platform.kernel-build": (
        host(kernel=kernel(release="7.0.14-2-pve"), devices=with_device(GPU, driver="amdgpu")),
        BOTH,
        Level.BLOCKS,
    ),
    "platform.quorum": (host(pve=Pve(True, node="pve", quorate=False)), BOTH, Level.BLOCKS),
    "platform.config-writable": (host(pve=Pve(True, node="pve", quorate=True, writable=False)), BOTH, Level.BLOCKS),
    "platform.boot-space": (host(spaces=(Space("/boot", 512 * 1024**2, 20 * 1024**2),)), BOTH, Level.HARMS),
    "platform.address-width": (host(iommu=Iommu(("dmar0",), True, 39)), BOTH, Level.NOTE),
    "platform.secure-boot": (host(firmware=Firmware(True, secure_boot=True, dmar=True)), BOTH, Level.NOTE),
    "platform.unplaced-bars": (
        host(devices=with_device(GPU, bars=(Bar(1, 0, 16 * 1024**3, wide=True),))),
        BOTH,
        Level.HARMS,
    ),
    "drivers.present": (host(), Request((Address(0, 9, 0, 0),)), Level.BLOCKS),
    "groups.group": (host(devices=with_device(GPU, iommu_group=NO_GROUP)), BOTH, Level.BLOCKS),
    "hazards.root-disk": (in_group(UseKind.ROOT_DISK, vital=True), BOTH, Level.BLOCKS),
    "hazards.boot-disk": (in_group(UseKind.BOOT_DISK, vital=True), BOTH, Level.BLOCKS),
    "hazards.pool-disk": (in_group(UseKind.POOL_DISK), BOTH, Level.BLOCKS),
    "hazards.management-net": (in_group(UseKind.MANAGEMENT_NET, vital=True), BOTH, Level.BLOCKS),
    "hazards.cluster-net": (in_group(UseKind.CLUSTER_NET), BOTH, Level.BLOCKS),
    "hazards.only-display": (
        host(devices=tuple(one for one in with_device(GPU, driver="nouveau") if one.address != IGPU)),
        BOTH,
        Level.BLOCKS,
    ),
    "hazards.guest-conflict": (
        host(guests=(*NEW, guest(101, name="other", running=True))),
        BOTH,
        Level.BLOCKS,
    ),
    "hazards.boot-usb": (in_group(UseKind.BOOT_USB), BOTH, Level.HARMS),
    "hazards.data-disk": (in_group(UseKind.DATA_DISK), BOTH, Level.HARMS),
    "hazards.bridge-net": (in_group(UseKind.BRIDGE_NET), BOTH, Level.HARMS),
    "hazards.storage-net": (in_group(UseKind.STORAGE_NET), BOTH, Level.HARMS),
    "hazards.console": (
        host(display=Display(GPU, framebuffer="nouveaudrmfb"), devices=with_device(GPU, driver="nouveau")),
        BOTH,
        Level.HARMS,
    ),
    "hazards.keyboard": (in_group(UseKind.KEYBOARD), BOTH, Level.HARMS),
    "hazards.unknown-uses": (host(uses_known=frozenset({"disks"})), BOTH, Level.UNKNOWN),
    "groups.shared": (host(devices=with_device(XHCI, iommu_group=1)), BOTH, Level.HARMS),
    "groups.alone": (host(), BOTH, Level.FINE),
    "groups.companions": (host(), Request((GPU,), 100), Level.NOTE),
    "groups.nvswitch": (plus(TESLA, "NVSwitch", "10de:22a3", 0x068000, 1), BOTH, Level.HARMS),
    "groups.acs-override": (
        host(kernel=kernel("quiet pcie_acs_override=downstream,multifunction")),
        BOTH,
        Level.HARMS,
    ),
    "drivers.holder": (host(devices=with_device(GPU, driver="amdgpu")), BOTH, Level.HARMS),
    "drivers.after-boot": (
        replace(modprobe("options vfio-pci ids=10de:2684"), devices=with_device(GPU, driver="nouveau")),
        BOTH,
        Level.HARMS,
    ),
    "drivers.identical-ids": (plus(TESLA, "second RTX 4090", "10de:2684", 0x030000, 9, "nouveau"), BOTH, Level.NOTE),
    "drivers.sriov-pf": (
        host(devices=with_device(NIC, sriov_active=4)),
        Request((NIC,)),
        Level.BLOCKS,
    ),
    "drivers.reset": (host(devices=with_device(NIC, resettable=False)), Request((NIC,)), Level.NOTE),
    "drivers.d3cold": (host(devices=with_device(GPU, power_state="D3cold")), BOTH, Level.NOTE),
    "resets.bus-siblings": (
        host(
            devices=(
                *with_device(GPU, reset_methods=("bus",)),
                device(Address(0, 1, 0, 2), "USB", "10de:1ad8", 0x0C0330, 9, "xhci_hcd", parent=PORT),
            )
        ),
        BOTH,
        Level.HARMS,
    ),
    "resets.switched-off": (host(devices=with_device(GPU, reset_methods=())), BOTH, Level.HARMS),
    "resets.not-in-force": (
        host(
            devices=with_device(GPU, reset_methods=("flr",)),
            files={UDEV_RULES: f'KERNEL=="{GPU}", ATTR{{reset_method}}="pm"\n'},
        ),
        BOTH,
        Level.HARMS,
    ),
    "resets.never-ends": (
        host(
            devices=(
                *with_device(IGPU, reset_methods=("flr",)),
                device(Address(0, 0, 0x1F, 0), "LPC", "8086:438b", 0x060100, 7),
            )
        ),
        Request((IGPU,)),
        Level.HARMS,
    ),
    "resets.known": (
        host(devices=with_device(NIC, product=0x1502, reset_methods=("pm",))),
        Request((NIC,)),
        Level.FINE,
    ),
    "drivers.conventional-pci": (
        plus(TESLA, "Sound Blaster", "1102:0004", 0x040100, 9, capabilities=Capabilities()),
        Request((TESLA,)),
        Level.NOTE,
    ),
    "guests.bound-elsewhere": (
        host(
            devices=with_device(GPU, numa_node=1),
            numa_nodes=(NumaNode(0, tuple(range(8))), NumaNode(1, tuple(range(8, 16)))),
            guests=(guest(affinity="0-7", numa0="cpus=0-3,hostnodes=0,memory=8192,policy=bind"),),
        ),
        BOTH,
        Level.NOTE,
    ),
    "drivers.link": (host(devices=with_device(GPU, link=Link(2.5, 4, 16.0, 16))), BOTH, Level.NOTE),
    "gpu.reset-bug": (host(devices=with_device(GPU, vendor=0x1002, product=0x67DF)), BOTH, Level.HARMS),
    "gpu.vendor-reset": (host(files={MODULES: "vendor-reset\n"}), BOTH, Level.NOTE),
    "gpu.apu": (
        host(
            devices=(
                *with_device(GPU, vendor=0x1002, product=0x1636),
                device(Address(0, 1, 0, 2), "PSP", "1022:15df", 0x108000, 1),
            )
        ),
        BOTH,
        Level.HARMS,
    ),
    "gpu.framebuffer": (
        host(
            display=Display(console_owner=GPU, framebuffer="simpledrmdrmfb"),
            devices=with_device(GPU, class_code=0x038000),
        ),
        BOTH,
        Level.HARMS,
    ),
    "vgpu.driver": (offering(GPU, "nvidia-660", driver="nouveau"), SHARER, Level.BLOCKS),
    "vgpu.mdev-on-vfio": (
        replace(
            offering(GPU, "nvidia-660", virtual_functions=(FUNCTION,)),
            devices=(*with_device(GPU, virtual_functions=(FUNCTION,)), VIRTUAL),
        ),
        SHARER,
        Level.HARMS,
    ),
    "vgpu.gvt-generation": (
        host(kernel=kernel("root=/dev/sda1 i915.enable_gvt=1")),
        BOTH,
        Level.NOTE,
    ),
    "vgpu.mig": (offering(GPU, "nvidia-660", product=0x20B7), SHARER, Level.NOTE),
    "vgpu.licence": (offering(GPU, "nvidia-660"), SHARER, Level.NOTE),
    "vgpu.whole-and-share": (
        host(guests=(guest(hostpci0="0000:01:00.0,mdev=nvidia-660"), guest(101, name="whole"))),
        SHARER,
        Level.HARMS,
    ),
    "vgpu.type-gone": (offering(GPU, "nvidia-661"), SHARER, Level.BLOCKS),
    "vgpu.instances": (offering(GPU, "nvidia-660", left=0), SHARER, Level.HARMS),
    "vgpu.mapping-mdev": (
        host(
            guests=(replace(guest(), hostpci=(HostPci("hostpci0", {"mdev": "nvidia-660"}, (GPU,), "card"),)),),
            mappings=(ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00.0", {"id": "10de:2684"}),)),),
        ),
        SHARER,
        Level.HARMS,
    ),
    "gpu.data-centre": (host(devices=with_device(GPU, product=0x1B38, class_code=0x030200)), BOTH, Level.NOTE),
    "gpu.no-outputs": (host(devices=with_device(GPU, class_code=0x030200)), BOTH, Level.NOTE),
    "gpu.intel-graphics": (host(), Request((IGPU,)), Level.NOTE),
    "gpu.option-rom": (host(devices=with_device(GPU, option_rom=False)), BOTH, Level.NOTE),
    "gpu.resizable-bar": (
        host(devices=with_device(GPU, bars=(Bar(1, 1 << 38, 1 << 28, wide=True, sizes=(1 << 28, 1 << 33)),))),
        BOTH,
        Level.NOTE,
    ),
    "platform.reserved-region": (
        host(attached=Attached(direct={1: ("0x00000000791f8000 0x00000000791fffff direct",)})),
        BOTH,
        Level.BLOCKS,
    ),
    "devices.denylist": (host(devices=with_device(NIC, product=0x37C8)), Request((NIC,), 100), Level.HARMS),
    "devices.msix-layout": (
        host(
            devices=with_device(
                SATA,
                bars=(Bar(0, 0x1000, 16 << 10),),
                capabilities=Capabilities(express=0, msix=True, msix_layout=MsixLayout(16, 0, 0x2000, 0, 0x2080)),
            )
        ),
        Request((SATA,), 100),
        Level.HARMS,
    ),
    "devices.option-rom": (
        host(devices=with_device(SATA, vendor=0x1000, product=0x97)),
        Request((SATA,), 100),
        Level.NOTE,
    ),
    "devices.accelerator": (host(devices=with_device(NIC, vendor=0x1AC1, product=0x89A)), Request((NIC,)), Level.NOTE),
    "devices.virtio-serves": (host(), Request((NIC,), 100), Level.NOTE),
    "nics.name-in-config": (
        host(attached=Attached(interfaces=(Interface("enp3s0", NIC, ("interfaces:9: bridge-ports enp3s0",)),))),
        Request((NIC,), 100),
        Level.NOTE,
    ),
    "nics.names-may-change": (
        host(attached=Attached(interfaces=(Interface("eth0", NIC), Interface("eth1", SATA)))),
        Request((NIC,), 100),
        Level.HARMS,
    ),
    "nics.no-intx": (host(devices=with_device(NIC, product=0x1572)), Request((NIC,)), Level.NOTE),
    "storage.would-import": (
        host(uses=(), attached=Attached(disks=(DiskOn("sdb1", (SATA,), "zfs_member", "tank"),))),
        Request((SATA,), 100),
        Level.HARMS,
    ),
    "storage.asks": (
        host(
            attached=Attached(disks=(DiskOn("sdb1", (SATA,), "zfs_member", "tank"),)),
            storages=(Storage("nas", "zfspool", pool="tank/vms"),),
        ),
        Request((SATA,), 100),
        Level.HARMS,
    ),
    "guests.known": (host(), Request((GPU,), 999), Level.BLOCKS),
    "guests.locked": (config(lock="backup"), BOTH, Level.BLOCKS),
    "guests.template": (config(template="1"), BOTH, Level.BLOCKS),
    "guests.running": (config(drop=("hostpci0",), running=True), BOTH, Level.HARMS),
    "guests.assigned": (host(guests=NEW), BOTH, Level.HARMS),
    "guests.hostpci": (config(hostpci0="0A:00.0,pcie=1"), BOTH, Level.HARMS),
    "guests.rom-file": (
        host(guests=(guest(hostpci0="0000:01:00,romfile=gpu.rom"),), rom_files={"gpu.rom": False}),
        BOTH,
        Level.HARMS,
    ),
    "guests.twice": (config(hostpci1="01:00.1"), BOTH, Level.HARMS),
    "guests.mapping": (config(hostpci0="mapping=gone"), Request((), 100), Level.HARMS),
    "mappings.stale": (mapped(iommugroup="99"), Request(), Level.HARMS),
    "mappings.lies": (mapped(id="10de:1b81"), BOTH, Level.HARMS),
    "mappings.other-node": (
        replace(
            mapped(),
            guests=(replace(guest(hostpci0="mapping=card,pcie=1"), ha_managed=True),),
            pve=replace(host().pve, nodes=("pve", "second")),
        ),
        BOTH,
        Level.HARMS,
    ),
    "mappings.pool-mixed": (
        host(mappings=(ResourceMapping("pci", "card", (line("0000:01:00"), line("0000:02:00.0", id="144d:a80a"))),)),
        Request(),
        Level.HARMS,
    ),
    "mappings.ambiguous-usb": (
        host(mappings=(ResourceMapping("usb", "stick", (MapEntry("pve", "", {"id": "1a86:7523"}),) * 2),)),
        Request(),
        Level.NOTE,
    ),
    "mappings.unused": (host(mappings=mapped().mappings), Request(), Level.NOTE),
    "guests.machine": (config(machine="pc"), BOTH, Level.HARMS),
    "guests.firmware": (config(bios="seabios"), BOTH, Level.NOTE),
    "guests.efi-disk": (config(drop=("efidisk0",)), BOTH, Level.HARMS),
    "guests.cpu": (config(cpu="kvm64"), BOTH, Level.HARMS),
    "guests.cpu-invalid": (config(cpu="host,hv_vendor_id=proxmox,hidden=1"), BOTH, Level.HARMS),
    "guests.args-cpu": (config(args="-cpu 'host,kvm=off'"), BOTH, Level.HARMS),
    "guests.hidden": (config(cpu="host,hidden=1"), BOTH, Level.NOTE),
    "guests.window": (
        host(
            guests=(guest(cpu="x86-64-v2-AES"),),
            devices=with_device(GPU, bars=(Bar(1, 0, 32 * 1024**3, wide=True),)),
        ),
        BOTH,
        Level.HARMS,
    ),
    "guests.balloon": (config(balloon="2048"), BOTH, Level.HARMS),
    "guests.memory": (config(memory="131072"), BOTH, Level.BLOCKS),
    "guests.hugepages": (config(hugepages="1024"), BOTH, Level.HARMS),
    "guests.display": (config(hostpci0="0000:01:00,pcie=1,x-vga=1", vga="std"), BOTH, Level.NOTE),
    "guests.legacy-igd": (config(hostpci0="00:02.0,legacy-igd=1", machine="pc"), BOTH, Level.HARMS),
    "guests.onboot": (host(guests=(guest(drop=("hostpci0",), onboot="1"),)), BOTH, Level.HARMS),
    "guests.ha": (host(guests=(replace(guest(), ha_managed=True),)), BOTH, Level.NOTE),
    "guests.backup": (
        host(lifecycle=Lifecycle(jobs=(BackupJob("nightly", "snapshot", "/etc/pve/jobs.cfg", everything=True),))),
        BOTH,
        Level.NOTE,
    ),
    "guests.snapshots": (config(lock="suspended"), BOTH, Level.HARMS),
    "lifecycle.hook-missing": (
        host(guests=(guest(hookscript=HOOK),), hook_files={HOOK: False}),
        BOTH,
        Level.HARMS,
    ),
    "lifecycle.hook-elsewhere": (
        cluster(replace(guest(hookscript=HOOK), ha_managed=True), storages=(Storage("local", "dir"),)),
        BOTH,
        Level.HARMS,
    ),
    "lifecycle.hook-borrowed": (config(hookscript=HOOK.replace("100", "101")), BOTH, Level.NOTE),
    "lifecycle.ha-nodes": (cluster(lifecycle=Lifecycle(ha=(HaResource(100),), placements=())), BOTH, Level.HARMS),
    "lifecycle.ha-shutdown": (
        cluster(lifecycle=Lifecycle(ha=(HaResource(100),), shutdown_policy="migrate")),
        BOTH,
        Level.HARMS,
    ),
    "lifecycle.replication": (
        cluster(lifecycle=Lifecycle(replications=(Replication(100, 0, "pve2"),))),
        BOTH,
        Level.NOTE,
    ),
    "lifecycle.snapshot-devices": (
        host(guests=(replace(guest(), snapshots={"before": {"name": "work"}}),)),
        BOTH,
        Level.NOTE,
    ),
    "guests.comments": (config(balloon="0  # off"), BOTH, Level.HARMS),
    "guests.agent": (config(drop=("agent",)), BOTH, Level.NOTE),
    "drift.moved": (given(devices=on_bus_7()), Request((), 100), Level.BLOCKS),
    "drift.gone": (given(devices=without_card()), Request((), 100), Level.BLOCKS),
    "drift.other-card": (given(devices=with_device(GPU, product=0x1234)), Request((), 100), Level.BLOCKS),
    "drift.group": (given(devices=with_device(XHCI, iommu_group=1)), Request((), 100), Level.BLOCKS),
    "drift.remembered": (host(), Request((), 100), Level.NOTE),
    "drift.guarded": (given(), Request((), 100), Level.NOTE),
    "lxc.also-in-container": (sharing(ct(dev0=RENDER)), BOTH, Level.HARMS),
    "lxc.better": (sharing(), BOTH, Level.NOTE),
    "lxc.absent-node": (sharing(ct(dev0="/dev/dri/renderD130")), Request(), Level.HARMS),
    "lxc.node-renumbered": (sharing(ct(dev0=RENDER), given_nodes=given_node(IGPU)), Request(), Level.HARMS),
    "lxc.raw-lines": (sharing(ct(raw=RAW)), Request(), Level.NOTE),
    "usb.controller": (plugged(TOKEN), Request((XHCI,), 100), Level.NOTE),
    "usb.host-uses": (
        plugged(DISK, usb_uses=(UsbUse("2-3", UseKind.DATA_DISK, "/mnt on /dev/sdb"),)),
        Request((), 100, ("2-3",)),
        Level.HARMS,
    ),
    "usb.two-guests": (
        plugged(TOKEN, guests=(guest(usb0="host=1-4"), guest(101, usb0="host=0529:0001"))),
        Request((), 100),
        Level.HARMS,
    ),
    "usb.mapping": (plugged(TOKEN, usb0="mapping=key", mappings=(usb_mapping("0529:0002"),)), BOTH, Level.HARMS),
    "usb.limit": (plugged(TOKEN, usb5="host=1-4", ostype="win7"), BOTH, Level.HARMS),
    "usb.port-moved": (plugged(TOKEN, usb0="host=1-4", assignments=(GIVEN_USB,)), BOTH, Level.HARMS),
    "usb.absent": (plugged(TOKEN, usb0="host=0529:0002"), BOTH, Level.NOTE),
    "usb.twins": (plugged(TOKEN, replace(TOKEN, port="1-5"), usb0="host=0529:0001"), BOTH, Level.HARMS),
    "usb.re-enumerates": (plugged(CORAL, usb0="host=1a6e:089a"), BOTH, Level.HARMS),
    "usb.serial-path": (plugged(ADAPTER, usb0="host=10c4:ea60"), BOTH, Level.NOTE),
    "handover.lent": (lending(hookscript=HOOK), Request((), 100), Level.NOTE),
    "handover.no-hook": (lending(), Request((), 100), Level.HARMS),
    "handover.stale": (lending(LENT.replace("2684", "2685"), hookscript=HOOK), Request((), 100), Level.HARMS),
    "bootconfig.loader": (host(boot=MIXED), BOTH, Level.NOTE),
    "bootconfig.readable": (replace(host(boot=SYSTEMD), files={}), BOTH, Level.UNKNOWN),
    "bootconfig.broken-quote": (
        host(files={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet amd_iommu=on\nGRUB_CMDLINE_LINUX=""\n'}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.lost-assignment": (
        host(files={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX_DEFAULT+=" iommu=pt"\n'}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.wrong-file": (
        host(boot=SYSTEMD, files={**grub("quiet intel_iommu=on"), CMDLINE: "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n"}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.no-root": (host(boot=SYSTEMD, files={CMDLINE: "quiet intel_iommu=on\n"}), BOTH, Level.HARMS),
    "bootconfig.not-running": (host(files=grub("quiet intel_iommu=on")), BOTH, Level.NOTE),
    "bootconfig.prose": (host(files=grub("quiet # added by me")), BOTH, Level.HARMS),
    "bootconfig.no-effect": (host(kernel=kernel("quiet amd_iommu=on")), BOTH, Level.NOTE),
    "bootconfig.dark-console": (host(files=grub("quiet initcall_blacklist=sysfb_init")), BOTH, Level.NOTE),
    "bootconfig.duplicates": (host(kernel=kernel("vfio-pci.ids=10de:1 vfio-pci.ids=10de:2")), BOTH, Level.NOTE),
    "bootconfig.vfio-ids-host": (modprobe("options vfio-pci ids=10de:2684,8086:7ae2"), BOTH, Level.BLOCKS),
    "bootconfig.vfio-ids": (modprobe("options vfio-pci ids=10de,2684"), BOTH, Level.HARMS),
    "bootconfig.vfio-ids-stale": (modprobe("options vfio-pci ids=10de:1b81"), BOTH, Level.NOTE),
    "bootconfig.vfio-options": (modprobe("options vfio-pci diable_vga=1"), BOTH, Level.HARMS),
    "bootconfig.disable-vga": (
        host(
            guests=(guest(bios="seabios", hostpci0="0000:01:00,pcie=1,x-vga=1"),),
            files={VFIO: "options vfio-pci disable_vga=1\n"},
        ),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.blacklist-host": (modprobe("blacklist i915"), BOTH, Level.HARMS),
    "bootconfig.blacklist-glob": (modprobe("blacklist nvidia*"), BOTH, Level.NOTE),
    "bootconfig.misspelt": (modprobe("blacklist nvidia_fb"), BOTH, Level.NOTE),
    "bootconfig.softdep": (modprobe("softdep nouveau pre:vfio-pci"), BOTH, Level.HARMS),
    "bootconfig.modprobe-comments": (modprobe("options kvm ignore_msrs=1 # for macOS"), BOTH, Level.HARMS),
    "bootconfig.stale-initramfs": (
        host(files={VFIO: "options vfio-pci ids=10de:2684\n"}, modules=initramfs()),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.needless": (
        host(files=grub("quiet intel_iommu=on"), kernel=kernel("root=/dev/sda1 quiet intel_iommu=on")),
        BOTH,
        Level.NOTE,
    ),
    "bootconfig.package-file": (
        host(files={"/etc/modprobe.d/pve-blacklist.conf": "blacklist nvidiafb\nblacklist igb\n"}),
        BOTH,
        Level.NOTE,
    ),
    "bootconfig.virqfd": (host(files={MODULES: "vfio\nvfio_virqfd\n"}), BOTH, Level.NOTE),
    "bootconfig.module-list": (host(files={MODULES: "vfio vfio_pci ids=10de:2684\n"}), BOTH, Level.HARMS),
}

NOBODY = Request()
SILENT_ELSEWHERE: dict[str, tuple[Facts, Request]] = {
    **{rule.id: (sriov(), BOTH) for rule in RULES if rule.id.startswith("sriov.")},
    "sriov.autoprobe-off": (sriov(text="vfs 2\nautoprobe on"), Request((VF,), 100)),
    "sriov.vf-without-mac": (sriov(text="vfs 2\nvf 0 mac=02:00:00:00:00:01"), Request((VF,), 100)),
    "drift.remembered": (given(), BOTH),
    "drift.guarded": (given(guests=(guest(hookscript="local:snippets/pve-passthrough-hook-100"),)), BOTH),
    "groups.alone": FIRES["groups.shared"][:2],
    "usb.controller": (plugged(), Request((XHCI,), 100)),
    "usb.host-uses": (plugged(DISK, TOKEN, usb0="host=1-4"), Request((), 100, ("1-4",))),
    "usb.two-guests": (plugged(TOKEN, guests=(guest(usb0="host=1-4"), guest(101, usb0="host=1-5"))), Request((), 100)),
    "usb.mapping": (plugged(TOKEN, usb0="mapping=key", mappings=(usb_mapping("0529:0001"),)), BOTH),
    "usb.limit": (plugged(TOKEN, usb5="host=1-4"), BOTH),
    "usb.port-moved": (plugged(replace(TOKEN, product=7), usb0="host=1-4", assignments=(GIVEN_USB,)), BOTH),
    "usb.absent": (plugged(TOKEN, usb0="host=0x0529:0x0001", usb1="spice"), BOTH),
    "usb.twins": (
        plugged(TOKEN, replace(TOKEN, port="1-5"), usb0="host=0529:0001", usb1="host=0529:0001"),
        BOTH,
    ),
    "usb.re-enumerates": (plugged(CORAL, usb0="host=2-1"), BOTH),
    "usb.serial-path": (plugged(replace(ADAPTER, terminals=(), interfaces=()), usb0="host=10c4:ea60"), BOTH),
    "lxc.also-in-container": (sharing(ct(dev0="/dev/dri/renderD129")), BOTH),
    "lxc.absent-node": (sharing(ct(dev0=RENDER)), BOTH),
    "lxc.node-renumbered": (sharing(ct(dev0=RENDER), given_nodes=given_node(GPU)), BOTH),
    "lxc.raw-lines": (sharing(ct(dev0=RENDER)), BOTH),
    "guests.snapshots": (host(guests=()), NOBODY),
    "guests.memory": (host(guests=()), NOBODY),
}
"""Rules that have something to say on the good machine, too."""


def findings(rule_id: str, facts: Facts, request: Request) -> list[Finding]:
    rule = next(rule for rule in RULES if rule.id == rule_id)
    return list(rule.function(facts, request))


def test_the_table_names_every_rule() -> None:
    assert sorted(FIRES) == sorted(rule.id for rule in RULES)


@pytest.mark.parametrize("rule_id", [rule.id for rule in RULES])
def test_fires(rule_id: str) -> None:
    facts, request, level = FIRES[rule_id]
    found = findings(rule_id, facts, request)
    assert level in {finding.level for finding in found}
    for finding in found:
        assert finding.rule == rule_id
        assert finding.subject and finding.message.endswith(".")
        if finding.level not in (Level.FINE, Level.NOTE):
            assert finding.evidence or rule_id in NO_LINE, "a serious finding proves itself"
        for line in finding.evidence:
            assert ": " in line or rule_id in ("hazards.keyboard",), line


NO_LINE = frozenset({"guests.assigned", "guests.running", "guests.known", "platform.interrupt-remapping"})
"""Rules about something that is absent: there is no line to show."""


@pytest.mark.parametrize("rule_id", [rule.id for rule in RULES])
def test_silent(rule_id: str) -> None:
    facts, request = SILENT_ELSEWHERE.get(rule_id, (host(), BOTH))
    found = findings(rule_id, facts, request)
    if rule_id == "groups.alone":
        assert GPU not in {Address.parse(finding.subject) for finding in found}
    else:
        assert [finding for finding in found if finding.level is not Level.FINE] == []


@pytest.mark.parametrize("rule_id", page_ids())
def test_every_page_has_its_four_sections(rule_id: str) -> None:
    text = page(rule_id)
    assert text is not None
    lines = text.split("\n")
    assert lines[0].endswith("?"), "a page begins with its question"
    heads = [line.split(":")[0] for line in lines if line and not line.startswith(" ") and ":" in line]
    sections = ["Why", "Look at", "Fix", "Source"]
    assert [head for head in heads if head in sections] == sections
    assert "http" not in text


def test_an_unknown_rule_has_no_page() -> None:
    assert page("platform.nonsense") is None


def test_ids_are_unique_and_in_families() -> None:
    ids = page_ids()
    assert len(set(ids)) == len(ids)
    families = {
        "platform",
        "groups",
        "drivers",
        "resets",
        "sriov",
        "gpu",
        "vgpu",
        "hazards",
        "guests",
        "drift",
        "handover",
        "lifecycle",
        "bootconfig",
        "devices",
        "nics",
        "storage",
        "usb",
        "mappings",
        "lxc",
    }
    assert {one.split(".")[0] for one in ids} == families
