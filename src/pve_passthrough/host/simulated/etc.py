"""/etc, /proc, /var and /boot of a described machine as a fresh Proxmox VE installation has them. Facts, own words.

1. Which files exist and what they must say follows from how the installer lays a system down: LVM gets GRUB on /boot,
   ZFS gets ESPs that proxmox-boot-tool keeps (Proxmox administration guide, Host Bootloader).
2. Nothing derived is written: grub.cfg, boot entries and initramfs images come from refreshing.
"""

from __future__ import annotations

import hashlib

from .spec import MachineSpec, Root
from .world import World

GRUB = """# If you change this file, run 'update-grub' afterwards to update
# /boot/grub/grub.cfg.

GRUB_DEFAULT=0
GRUB_TIMEOUT=5
GRUB_DISTRIBUTOR=`( . /etc/os-release && echo ${NAME} )`
GRUB_CMDLINE_LINUX_DEFAULT="{cmdline}"
GRUB_CMDLINE_LINUX=""
"""

MODULES = """# /etc/modules: kernel modules to load at boot time.
#
# This file contains the names of kernel modules that should be loaded
# at boot time, one per line. Lines beginning with "#" are ignored.
"""

INITRAMFS_MODULES = """# List of modules that you want to include in your initramfs.
# They will be loaded at boot time in the order below.
"""

STORAGE = {
    Root.LVM: """dir: local
	path /var/lib/vz
	content iso,backup,vztmpl,snippets

lvmthin: local-lvm
	thinpool data
	vgname pve
	content images,rootdir
""",
    Root.ZFS: """dir: local
	path /var/lib/vz
	content iso,backup,vztmpl,snippets

zfspool: local-zfs
	pool rpool/data
	sparse
	content images,rootdir
""",
}

BOOT_UNITS = ("pve-cluster.service", "pve-guests.service", "pveproxy.service")

PCI_NAMES = """# A small part of the PCI ID list: the devices of the built-in machines.
1002  Advanced Micro Devices, Inc. [AMD/ATI]
	1478  Navi 10 XL Upstream Port of PCI Express Switch
	1479  Navi 10 XL Downstream Port of PCI Express Switch
	1637  Renoir Radeon High Definition Audio Controller
	1638  Cezanne [Radeon Vega Series / Radeon Vega Mobile Series]
	1640  Rembrandt Radeon High Definition Audio Controller
	164e  Raphael
	73ff  Navi 23 [Radeon RX 6600/6600 XT/6600M]
	ab28  Navi 21/23 HDMI/DP Audio Controller
1000  Broadcom / LSI
	0097  SAS3008 PCI-Express Fusion-MPT SAS-3
1022  Advanced Micro Devices, Inc. [AMD]
	15e3  Family 17h/19h HD Audio Controller
	1630  Renoir/Cezanne Root Complex
	1631  Renoir/Cezanne IOMMU
	1632  Renoir PCIe Dummy Host Bridge
	1633  Renoir PCIe GPP Bridge
	1634  Renoir/Cezanne PCIe GPP Bridge
	1635  Renoir Internal PCIe GPP Bridge to Bus
	1639  Renoir/Cezanne USB 3.1
	1649  VanGogh PSP/CCP
	790b  FCH SMBus Controller
	790e  FCH LPC Bridge
10de  NVIDIA Corporation
	10f8  TU104 HD Audio Controller
	1ad8  TU104 USB 3.1 Host Controller
	1ad9  TU104 USB Type-C UCSI Controller
	1aef  GA102 High Definition Audio Controller
	1b38  GP102GL [Tesla P40]
	1e87  TU104 [GeForce RTX 2080 Rev. A]
	2206  GA102 [GeForce RTX 3080]
	22ba  AD102 High Definition Audio Controller
	2684  AD102 [GeForce RTX 4090]
10ec  Realtek Semiconductor Co., Ltd.
	8125  RTL8125 2.5GbE Controller
	8168  RTL8111/8168/8411 PCI Express Gigabit Ethernet Controller
1102  Creative Labs
	0012  Sound Core3D [Sound Blaster Recon3D / Z-Series]
126f  Silicon Motion, Inc.
	2263  SM2263EN/SM2263XT SSD Controller
144d  Samsung Electronics Co Ltd
	a80a  NVMe SSD Controller PM9A1/PM9A3/980PRO
14e4  Broadcom Inc. and subsidiaries
	168e  NetXtreme II BCM57810 10 Gigabit Ethernet
1a03  ASPEED Technology, Inc.
	1150  AST1150 PCI-to-PCI Bridge
	2000  ASPEED Graphics Family
1ac1  Global Unichip Corp.
	089a  Coral Edge TPU
1c00  Nanjing Qinheng Microelectronics Co., Ltd.
	3253  CH352/CH382 PCI/PCIe Dual Port Serial Adapter
8086  Intel Corporation
	1521  I350 Gigabit Network Connection
	37c8  C62x Chipset QuickAssist Technology
	1533  I210 Gigabit Network Connection
	15bc  Ethernet Connection (7) I219-V
	15f3  Ethernet Controller I225-V
	1901  6th-10th Gen Core Processor PCIe Controller (x16)
	3e92  CoffeeLake-S GT2 [UHD Graphics 630]
	3ec2  8th Gen Core Processor Host Bridge/DRAM Registers
	460d  12th Gen Core Processor PCI Express x16 Controller #1
	464d  12th Gen Core Processor PCI Express x4 Controller #0
	4668  12th Gen Core Processor Host Bridge/DRAM Registers
	467d  Platform Monitoring Technology
	4680  AlderLake-S GT1
	4f90  DG2 Audio Controller
	56a0  DG2 [Arc A770]
	6f00  Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D DMI2
	6f02  Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D PCI Express Root Port 1
	6f08  Xeon E7 v4/Xeon E5 v4/Xeon E3 v4/Xeon D PCI Express Root Port 3
	7a84  Z690 Chipset LPC/eSPI Controller
	7aa3  Alder Lake-S PCH SMBus Controller
	7aa4  Alder Lake-S PCH SPI Controller
	7aa7  Alder Lake-S PCH Shared SRAM
	7ab8  Alder Lake-S PCH PCI Express Root Port #1
	7ac8  Alder Lake-S PCH PCI Express Root Port #25
	7ad0  Alder Lake-S HD Audio Controller
	7ae0  Alder Lake-S PCH USB 3.2 Gen 2x2 XHCI Controller
	7ae2  Alder Lake-S PCH SATA Controller [AHCI Mode]
	8d31  C610/X99 series chipset USB xHCI Host Controller
	a305  Z390 Chipset LPC/eSPI Controller
	a323  Cannon Lake PCH SMBus Controller
	a348  Cannon Lake PCH cAVS
	a352  Cannon Lake PCH SATA AHCI Controller
	a36d  Cannon Lake PCH USB 3.1 xHCI Host Controller
"""


def lay_down(world: World, spec: MachineSpec) -> None:
    _system(world, spec)
    _network(world, spec)
    _boot(world, spec)
    configuration(world, spec.cmdline, zfs=spec.root is Root.ZFS)
    cluster(world, spec.node)
    world.put("/etc/pve/storage.cfg", STORAGE[spec.root])
    for vmid, text in spec.guests.items():
        world.put(f"/etc/pve/nodes/{spec.node}/qemu-server/{vmid}.conf", text, 0o640)
    packages(world, *spec.pve, spec.kernel)
    processors(world, spec.cpu_vendor, spec.cpu_model, spec.cores)
    memory(world, spec.memory)
    _mounts(world, spec)
    world.put("/usr/share/misc/pci.ids", PCI_NAMES)


def _system(world: World, spec: MachineSpec) -> None:
    release = "13" if spec.pve[0].startswith("9") else "12"
    world.put("/etc/hostname", spec.node + "\n")
    world.put("/etc/machine-id", hashlib.md5(spec.name.encode(), usedforsecurity=False).hexdigest() + "\n")
    world.put("/etc/hosts", f"127.0.0.1 localhost\n192.168.1.10 {spec.node}.example {spec.node}\n")
    world.put("/etc/os-release", f'NAME="Debian GNU/Linux"\nID=debian\nVERSION_ID="{release}"\n')
    world.put("/proc/sys/kernel/hostname", spec.node + "\n")
    base(world)


def base(world: World) -> None:
    """Directories and programs that every Proxmox host has."""
    for name in (
        "/etc/modprobe.d", "/etc/modules-load.d", "/etc/default/grub.d", "/etc/udev/rules.d", "/etc/systemd/system",
        "/etc/initramfs-tools/scripts/init-top", "/etc/initramfs-tools/hooks", "/etc/kernel", "/run/lock",
        "/run/qemu-server", "/var/lib", "/var/log/pve/tasks", "/var/lib/vz/snippets", "/usr/share/kvm", "/root", "/tmp",
        "/usr/local/sbin", "/usr/lib/systemd/system", "/dev",
    ):  # fmt: skip
        world.make_dir(name)
    for name in ("update-initramfs", "update-grub", "proxmox-boot-tool", "modprobe", "grub-mkconfig", "qm"):
        if not world.exists(f"/usr/sbin/{name}"):
            world.put(f"/usr/sbin/{name}", "", 0o755)
    for name in BOOT_UNITS:
        if not world.exists(f"/usr/lib/systemd/system/{name}"):
            world.put(
                f"/usr/lib/systemd/system/{name}",
                f"[Unit]\nDescription={name}\n[Install]\nWantedBy=multi-user.target\n",
            )
            world.put_link(f"/etc/systemd/system/multi-user.target.wants/{name}", f"/usr/lib/systemd/system/{name}")


def configuration(world: World, cmdline: str, zfs: bool) -> None:
    """Files that people and plans edit."""
    texts = {
        "/etc/default/grub": GRUB.replace("{cmdline}", cmdline),
        "/etc/modules": MODULES,
        "/etc/initramfs-tools/modules": INITRAMFS_MODULES,
        "/etc/initramfs-tools/initramfs.conf": "MODULES=most\nCOMPRESS=zstd\n",
        "/etc/initramfs-tools/conf.d/pve-initramfs.conf": "RESUME=none\n",
        "/etc/modprobe.d/pve-blacklist.conf": "# nidiafb see bugreport https://bugzilla.proxmox.com/show_bug.cgi?id=701\n"
        "blacklist nvidiafb\n",
        "/usr/lib/modules-load.d/qemu-server.conf": "vhost_net\nmsr\n",
    }
    if zfs:
        texts["/etc/default/grub.d/zfs.cfg"] = (
            'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX root=ZFS=rpool/ROOT/pve-1 boot=zfs"\n'
        )
        texts["/etc/kernel/cmdline"] = " ".join(("root=ZFS=rpool/ROOT/pve-1 boot=zfs", cmdline)).strip() + "\n"
    for path, text in texts.items():
        if not world.exists(path):
            world.put(path, text)
    if not world.exists("/etc/modules-load.d/modules.conf"):
        world.put_link("/etc/modules-load.d/modules.conf", "../modules")


def cluster(world: World, node: str) -> None:
    """/etc/pve of one node on its own."""
    base = f"/etc/pve/nodes/{node}"
    for name in (f"{base}/qemu-server", f"{base}/lxc", "/etc/pve/mapping", "/etc/pve/ha", "/etc/pve/priv"):
        world.make_dir(name)
    for link, target in (
        ("local", f"nodes/{node}"),
        ("qemu-server", f"nodes/{node}/qemu-server"),
        ("lxc", f"nodes/{node}/lxc"),
    ):
        if not world.exists(f"/etc/pve/{link}"):
            world.put_link(f"/etc/pve/{link}", target)
    texts = {
        "/etc/pve/.members": f'{{\n"nodename": "{node}",\n"version": 0\n}}\n',
        "/etc/pve/datacenter.cfg": "keyboard: en-us\n",
        "/etc/pve/user.cfg": "user:root@pam:1:0:::root@example.invalid:::\n",
    }
    for path, text in texts.items():
        if not world.exists(path):
            world.put(path, text, 0o640)


def packages(world: World, version: str, repoid: str, qemu_server: str, kernel: str) -> None:
    rows = {
        "pve-manager": version,
        "qemu-server": qemu_server,
        "proxmox-ve": version.rpartition(".")[0] + ".0",
        f"proxmox-kernel-{kernel}-signed": kernel.split("-", maxsplit=1)[0],
        "initramfs-tools": "0.148",
        "grub-efi-amd64": "2.12",
        "pve-qemu-kvm": "11.0.0-2" if version.startswith("9") else "8.1.5-6",
    }
    blocks = (
        f"Package: {name}\nStatus: install ok installed\nArchitecture: amd64\nVersion: {text}\n"
        for name, text in rows.items()
    )
    world.put("/var/lib/dpkg/status", "\n".join(blocks))


def processors(world: World, vendor: str, model: str, count: int) -> None:
    intel = vendor == "GenuineIntel"
    bits = 46 if intel else 48
    flags = "fpu msr pae cx8 apic sep pge cmov pat mmx fxsr sse sse2 ht syscall nx pdpe1gb rdtscp lm aes avx2 "
    flags += "vmx ept" if intel else "svm npt"
    world.put(
        "/proc/cpuinfo",
        "".join(
            f"processor\t: {number}\nvendor_id\t: {vendor}\nmodel name\t: {model}\nflags\t\t: {flags}\n"
            f"address sizes\t: {bits} bits physical, 48 bits virtual\n\n"
            for number in range(count)
        ),
    )


def memory(world: World, total: int) -> None:
    kib = total >> 10
    world.put(
        "/proc/meminfo",
        f"MemTotal:       {kib} kB\nMemFree:        {kib * 7 // 8} kB\nMemAvailable:   {kib * 7 // 8} kB\n"
        "HugePages_Total:       0\nHugepagesize:       2048 kB\n",
    )


def _network(world: World, spec: MachineSpec) -> None:
    stanzas = ["auto lo\niface lo inet loopback\n"]
    for nic in spec.nics:
        stanzas.append(f"iface {nic.name} inet manual\n")
        if nic.master:
            stanzas.append(
                f"auto {nic.master}\niface {nic.master} inet static\n\taddress 192.168.1.10/24\n\tgateway 192.168.1.1\n"
                f"\tbridge-ports {nic.name}\n\tbridge-stp off\n\tbridge-fd 0\n"
            )
    world.put("/etc/network/interfaces", "\n".join(stanzas))
    header = "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT\n"
    world.put(
        "/proc/net/route",
        header + "vmbr0\t00000000\t0101A8C0\t0003\t0\t0\t0\t00000000\t0\t0\t0\n"
        "vmbr0\t0001A8C0\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0\n",
    )
    world.put("/proc/net/ipv6_route", "")


def _boot(world: World, spec: MachineSpec) -> None:
    for release in (spec.kernel, *spec.older_kernels):
        world.put(f"/boot/vmlinuz-{release}", f"kernel {release}\n")
        world.put(f"/boot/config-{release}", "CONFIG_VFIO_PCI=m\nCONFIG_VFIO=m\n")
        world.make_dir(f"/usr/lib/modules/{release}")
    if spec.esps:
        world.put("/etc/kernel/proxmox-boot-uuids", "".join(esp.uuid + "\n" for esp in spec.esps))
        world.make_dir("/boot/grub")
        for esp in spec.esps:
            world.put_link(f"/dev/disk/by-uuid/{esp.uuid}", f"../../{esp.partition}")
            init_esp(world, esp.uuid, esp.grub)
    else:
        world.make_dir("/boot/grub")
    if spec.efi_partition:
        world.put_link("/dev/disk/by-uuid/4C2F-81D0", f"../../{spec.efi_partition}")
        world.put("/boot/efi/EFI/proxmox/grubx64.efi", "")


def init_esp(world: World, uuid: str, with_grub: bool) -> None:
    """`proxmox-boot-tool init`: what tells later which loader this ESP has."""
    if with_grub:
        world.put(f"/sim/esp/{uuid}/EFI/proxmox/grubx64.efi", "")
        world.make_dir(f"/sim/esp/{uuid}/grub")
    else:
        world.put(f"/sim/esp/{uuid}/EFI/systemd/systemd-bootx64.efi", "")
        world.put(f"/sim/esp/{uuid}/loader/loader.conf", "timeout 3\ndefault proxmox-*\n")


def _mounts(world: World, spec: MachineSpec) -> None:
    lines = ["sysfs /sys sysfs rw,nosuid,nodev,noexec,relatime 0 0", "proc /proc proc rw,relatime 0 0"]
    if spec.root is Root.LVM:
        lines.append("/dev/mapper/pve-root / ext4 rw,relatime,errors=remount-ro 0 0")
        swaps = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n/dev/dm-0 partition\t8388604\t\t0\t\t-2\n"
        fstab = "/dev/pve/root / ext4 errors=remount-ro 0 1\n/dev/pve/swap none swap sw 0 0\n"
        if spec.efi_partition:
            lines.append(f"/dev/{spec.efi_partition} /boot/efi vfat rw,relatime 0 0")
            fstab += "UUID=4C2F-81D0 /boot/efi vfat defaults 0 1\n"
    else:
        lines += [f"rpool/{name} {path} zfs rw,relatime,xattr,posixacl 0 0" for name, path in _DATASETS]
        swaps, fstab = "Filename\t\t\t\tType\t\tSize\t\tUsed\t\tPriority\n", "proc /proc proc defaults 0 0\n"
        world.put("/etc/zfs/zpool.cache", "")
    lines += ["tmpfs /run tmpfs rw,nosuid,nodev 0 0", "/dev/fuse /etc/pve fuse rw,nosuid,nodev,relatime,user_id=0 0 0"]
    world.put("/proc/mounts", "\n".join(lines) + "\n")
    world.put("/proc/swaps", swaps)
    world.put("/etc/fstab", fstab)


_DATASETS = (("ROOT/pve-1", "/"), ("ROOT", "/rpool/ROOT"), ("data", "/rpool/data"))
