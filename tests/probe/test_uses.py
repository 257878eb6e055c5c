"""What the host needs its devices for: every way from a mount, a pool, a bridge or a route down to a PCI function."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.model.facts import Boot, Display, Esp, Loader, Pve, UsbUse, Use, UseKind
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.model.vm import Vm
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.disks import mounts, pool_devices
from pve_passthrough.probe.network import configured, corosync_links
from pve_passthrough.probe.paths import function_behind, functions_behind, plain
from pve_passthrough.probe.uses import probe_uses

from .trees import DIRECTORY, Content, Link, Scripted, plant

SATA, NVME, NVME2, XHCI = (Address.parse(text) for text in ("00:17.0", "02:00.0", "03:00.0", "00:14.0"))
NIC, NIC2 = Address.parse("04:00.0"), Address.parse("05:00.0")
PCI = "../../devices/pci0000:00"
BLOCK, NET = "/sys/class/block", "/sys/class/net"

SDA: dict[str, Content] = {
    f"{BLOCK}/sda": Link(f"{PCI}/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda"),
    f"{BLOCK}/sda2": Link(f"{PCI}/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda2"),
    f"{BLOCK}/sda3": Link(f"{PCI}/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda3"),
}
NVME0: dict[str, Content] = {
    f"{BLOCK}/nvme0n1": Link(f"{PCI}/0000:00:1d.0/0000:02:00.0/nvme/nvme0/nvme0n1"),
    f"{BLOCK}/nvme0n1p3": Link(f"{PCI}/0000:00:1d.0/0000:02:00.0/nvme/nvme0/nvme0n1/nvme0n1p3"),
}
USB: dict[str, Content] = {
    f"{BLOCK}/sdz1": Link(f"{PCI}/0000:00:14.0/usb2/2-1/2-1:1.0/host6/target6:0:0/6:0:0:0/block/sdz/sdz1"),
}
SWAPS = "Filename Type Size Used Priority\n"


def virtual(name: str, *slaves: str, label: str = "", uuid: str = "") -> dict[str, Content]:
    """A device mapper or MD device on `slaves`."""
    base = f"/sys/devices/virtual/block/{name}"
    found: dict[str, Content] = {f"{BLOCK}/{name}": Link(f"../../devices/virtual/block/{name}")}
    found |= {f"{base}/slaves/{slave}": Link(f"../../../{slave}") for slave in slaves}
    return found | ({f"{base}/dm/name": f"{label}\n", f"{base}/dm/uuid": f"{uuid}\n"} if label else {})


def looked_at(
    root: Path,
    files: dict[str, Content],
    boot: Boot = Boot(),
    programs: dict[tuple[str, ...], Ran | str] | None = None,
    **known: tuple[Device, ...] | tuple[UsbDevice, ...] | Display,
) -> tuple[tuple[Use, ...], frozenset[str], Asking]:
    ask = Asking(Scripted(plant(root, files), programs))
    devices, usb, display = known.get("devices", ()), known.get("usb", ()), known.get("display", Display())
    uses, sure, _ = probe_uses(ask, devices, usb, display, boot, Pve(node="pve"), mounts(ask))  # type: ignore[arg-type]
    return uses, sure, ask


def kinds(uses: tuple[Use, ...]) -> set[tuple[Address, UseKind]]:
    return {(use.address, use.kind) for use in uses}


# -- paths ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("path", "expected"),
    [
        ("../../devices/pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0", ["02:00.0"]),
        ("../../devices/virtual/net/vmbr0", []),
        # A VMD controller carries a PCI domain of its own: both are needed.
        (
            "/sys/devices/pci0000:00/0000:00:0e.0/pci10000:e0/10000:e0:1d.0/10000:e1:00.0/nvme",
            ["00:0e.0", "10000:e1:00.0"],
        ),
        ("0000:01:00.0/0:0:0:0/block", ["01:00.0"]),
        ("", []),
    ],
)
def test_functions_on_a_path(path: str, expected: list[str]) -> None:
    assert list(functions_behind(path)) == [Address.parse(text) for text in expected]
    assert function_behind(path) == (Address.parse(expected[-1]) if expected else None)


def test_names_that_may_become_part_of_a_path() -> None:
    assert plain("sda1") and plain("..x")
    assert not any(plain(name) for name in ("", ".", "..", "a/b", "a\0b", "x" * 256))


# -- disks ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (SDA | {"/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n"}, {(SATA, UseKind.ROOT_DISK)}),
        (
            SDA | NVME0 | {"/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n/dev/nvme0n1p3 /mnt/my\\040data xfs rw 0 0\n"},
            {(SATA, UseKind.ROOT_DISK), (NVME, UseKind.DATA_DISK)},
        ),
        (
            SDA | NVME0 | {"/proc/mounts": "/dev/nvme0n1p3 / ext4 rw 0 0\n/dev/sda2 /boot/efi vfat rw 0 0\n"},
            {(NVME, UseKind.ROOT_DISK), (SATA, UseKind.BOOT_DISK)},
        ),
        # LVM by name, on MD, on two disks.
        (
            SDA
            | NVME0
            | virtual("md0", "sda3", "nvme0n1p3")
            | virtual("dm-1", "md0", label="pve-root", uuid="LVM-x")
            | {"/proc/mounts": "/dev/mapper/pve-root / ext4 rw 0 0\n"},
            {(SATA, UseKind.ROOT_DISK), (NVME, UseKind.ROOT_DISK)},
        ),
        # The same through a link in /dev.
        (
            SDA | {"/dev/disk/by-label/r": Link("../../sda3"), "/proc/mounts": "/dev/disk/by-label/r / ext4 rw 0 0\n"},
            {(SATA, UseKind.ROOT_DISK)},
        ),
        # Root on a USB stick, and the loader on another.
        (USB | {"/proc/mounts": "/dev/sdz1 / ext4 rw 0 0\n"}, {(XHCI, UseKind.ROOT_DISK)}),
        (
            SDA | USB | {"/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n/dev/sdz1 /boot ext4 rw 0 0\n"},
            {(SATA, UseKind.ROOT_DISK), (XHCI, UseKind.BOOT_USB)},
        ),
        # BTRFS on two devices, of which /proc/mounts shows one.
        (
            SDA
            | NVME0
            | {
                "/sys/fs/btrfs/features/x": "",
                "/sys/fs/btrfs/uuid-1/devices/sda3": DIRECTORY,
                "/sys/fs/btrfs/uuid-1/devices/nvme0n1p3": DIRECTORY,
                "/proc/mounts": "/dev/sda3 / btrfs rw 0 0\n",
            },
            {(SATA, UseKind.ROOT_DISK), (NVME, UseKind.ROOT_DISK)},
        ),
        # Guest storage on LVM: nothing of it is mounted.
        (
            SDA
            | {f"{BLOCK}/nvme1n1": Link("../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/nvme1n1")}
            | {"/sys/devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/nvme1n1/holders/dm-9": DIRECTORY}
            | virtual("dm-9", "nvme1n1", label="big--vg-vm--100", uuid="LVM-y")
            | {"/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n"},
            {(SATA, UseKind.ROOT_DISK), (NVME2, UseKind.POOL_DISK)},
        ),
        (
            SDA
            | NVME0
            | {
                "/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n",
                "/proc/swaps": f"{SWAPS}/dev/nvme0n1p3 partition 1 0 -2\n/f file 1 0 -3\n",
            },
            {(SATA, UseKind.ROOT_DISK), (NVME, UseKind.DATA_DISK)},
        ),
        # Made of memory, files and the network: no function, and no doubt.
        (
            SDA
            | virtual("zram0")
            | virtual("loop3")
            | {
                "/proc/mounts": "tmpfs /run tmpfs rw 0 0\n/dev/sda3 / ext4 rw 0 0\n/dev/loop3 /snap squashfs ro 0 0\n"
                "nas:/x /mnt nfs rw 0 0\n/dev/fuse /etc/pve fuse rw 0 0\n",
                "/proc/swaps": f"{SWAPS}/dev/zram0 partition 1 0 100\n",
            },
            {(SATA, UseKind.ROOT_DISK)},
        ),
        # A Ceph OSD.
        (
            SDA
            | {f"{BLOCK}/nvme1n1": Link("../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/nvme1n1")}
            | virtual("dm-4", "nvme1n1", label="ceph-osd", uuid="LVM-z")
            | {
                "/var/lib/ceph/osd/ceph-0/block": Link("/dev/ceph-x/osd-y"),
                "/dev/ceph-x/osd-y": Link("../dm-4"),
                "/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n",
            },
            {(SATA, UseKind.ROOT_DISK), (NVME2, UseKind.POOL_DISK)},
        ),
    ],
)
def test_disks(tmp_path: Path, files: dict[str, Content], expected: set[tuple[Address, UseKind]]) -> None:
    uses, known, ask = looked_at(tmp_path, files)
    assert kinds(uses) == expected
    assert "disks" in known, [gap for gap in ask.gaps if gap.about == "uses.disks"]


def test_details_and_what_is_vital(tmp_path: Path) -> None:
    files = SDA | {
        "/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n/dev/sda2 /mnt/a ext4 rw 0 0\n/dev/sda2 /mnt/a ext4 rw 0 0\n",
    }
    uses, _, _ = looked_at(tmp_path, files)
    assert [(use.kind, use.detail, use.vital) for use in uses] == [
        (UseKind.ROOT_DISK, "/ on /dev/sda3", True),
        (UseKind.DATA_DISK, "/mnt/a on /dev/sda2", False),
    ]


def test_a_disk_that_a_guest_uses_raw_needs_its_controller(tmp_path: Path) -> None:
    by_id: dict[str, Content] = {"/dev/disk/by-id/ata-X": Link("../../sda"), "/proc/mounts": "", "/proc/swaps": SWAPS}
    raw = {
        "scsi1": "/dev/disk/by-id/ata-X,size=4T",
        "scsi2": "/dev/disk/by-id/ata-gone",
        "scsi0": "local-lvm:vm-7-disk-0",
    }
    ask = Asking(Scripted(plant(tmp_path, SDA | by_id), None))
    guests = [Vm(101, "pve", raw), Vm(102, "other", {"sata0": "/dev/nvme0n1"})]
    uses, *_ = probe_uses(ask, (), (), Display(), Boot(), Pve(node="pve"), mounts(ask), guests)
    (use,) = uses
    assert (use.address, use.kind, use.detail) == (SATA, UseKind.DATA_DISK, "scsi1 of guest 101 on /dev/sda")
    assert not use.vital
    assert not any("ata-gone" in gap.reason for gap in ask.gaps)


def test_native_nvme_multipath_needs_every_controller(tmp_path: Path) -> None:
    subsystem = "/sys/devices/virtual/nvme-subsystem/nvme-subsys0"
    files: dict[str, Content] = {
        f"{BLOCK}/nvme0n1": Link("../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1"),
        f"{BLOCK}/nvme0n1p3": Link("../../devices/virtual/nvme-subsystem/nvme-subsys0/nvme0n1/nvme0n1p3"),
        f"{subsystem}/nvme0": Link("../../../pci0000:00/0000:00:1d.0/0000:02:00.0/nvme/nvme0"),
        f"{subsystem}/nvme1": Link("../../../pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1"),
        "/proc/mounts": "/dev/nvme0n1p3 / ext4 rw 0 0\n",
    }
    uses, known, _ = looked_at(tmp_path, files)
    assert kinds(uses) == {(NVME, UseKind.ROOT_DISK), (NVME2, UseKind.ROOT_DISK)}
    assert "disks" in known


ZPOOL = ("zpool", "status", "-P", "-L")
POOLS = """  pool: rpool
 state: ONLINE
config:

\tNAME             STATE     READ WRITE CKSUM
\trpool            ONLINE       0     0     0
\t  mirror-0       ONLINE       0     0     0
\t    /dev/sda3    ONLINE       0     0     0
\tlogs
\t  /dev/nvme0n1p3 ONLINE       0     0     0

errors: No known data errors

  pool: tank
config:

\ttank             ONLINE       0     0     0
\t  /dev/nvme1n1   ONLINE       0     0     0
"""
ZFS: dict[str, Content] = (
    SDA
    | NVME0
    | {
        f"{BLOCK}/nvme1n1": Link("../../devices/pci0000:00/0000:00:1c.0/0000:03:00.0/nvme/nvme1/nvme1n1"),
        "/proc/mounts": "rpool/ROOT/pve-1 / zfs rw 0 0\n",
        "/dev/disk/by-uuid/AAAA-0002": Link("../../sda2"),
    }
)


def test_zfs_pools_and_the_esps_of_the_boot_tool(tmp_path: Path) -> None:
    boot = Boot((Loader.SYSTEMD_BOOT,), (Esp("AAAA-0002", ()),), True)
    uses, known, _ = looked_at(tmp_path, ZFS, boot, {ZPOOL: POOLS})
    assert kinds(uses) == {
        (SATA, UseKind.ROOT_DISK),
        (NVME, UseKind.ROOT_DISK),
        (NVME2, UseKind.POOL_DISK),
        (SATA, UseKind.BOOT_DISK),
    }
    assert all(use.vital for use in uses) and "disks" in known
    stale = Boot(boot.loaders, (*boot.esps, Esp("AAAA-9999", ())), True)
    assert "disks" in looked_at(tmp_path / "stale", ZFS, stale, {ZPOOL: POOLS})[1]  # its disk was taken out
    assert list(pool_devices(POOLS)) == [("rpool", "/dev/sda3"), ("rpool", "/dev/nvme0n1p3"), ("tank", "/dev/nvme1n1")]


@pytest.mark.parametrize(
    ("files", "programs"),
    [
        (ZFS, {}),
        (ZFS, {ZPOOL: Ran(1, "", "permission denied")}),
        (ZFS, {ZPOOL: "no pools available\n"}),
        (SDA, {}),  # no /proc/mounts
        (SDA | {"/proc/mounts": "/dev/sdq1 / ext4 rw 0 0\n"}, {}),
        (SDA | {"/proc/mounts": "overlay / overlay rw 0 0\n"}, {}),
        (SDA | {"/proc/mounts": "/dev/sda2 /boot ext4 rw 0 0\n"}, {}),
        (SDA | virtual("drbd0") | {"/proc/mounts": "/dev/sda3 / ext4 rw 0 0\n/dev/drbd0 /x ext4 rw 0 0\n"}, {}),
        (SDA | {"/proc/mounts": "/dev/sda3 / btrfs rw 0 0\n"}, {}),
        (virtual("dm-0", "dm-1") | virtual("dm-1", "dm-0") | {"/proc/mounts": "/dev/dm-0 / ext4 rw 0 0\n"}, {}),
        (virtual("loop0") | {"/proc/mounts": "/dev/loop0 / ext4 rw 0 0\n"}, {}),
    ],
)
def test_disks_that_are_not_understood_are_unknown(
    tmp_path: Path, files: dict[str, Content], programs: dict[tuple[str, ...], Ran | str]
) -> None:
    _, known, ask = looked_at(tmp_path, files, programs=programs)
    assert "disks" not in known
    assert "uses.disks" in {gap.about for gap in ask.gaps}


# -- network ----------------------------------------------------------------------------------

ROUTE_HEAD = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\tMTU\tWindow\tIRTT\n"
CARDS: dict[str, Content] = {
    f"{NET}/eno1": Link(f"{PCI}/0000:00:1c.1/0000:04:00.0/net/eno1"),
    f"{NET}/eno2": Link(f"{PCI}/0000:00:1c.2/0000:05:00.0/net/eno2"),
    f"{NET}/lo": Link("../../devices/virtual/net/lo"),
}


def route(name: str, network: str = "00000000", mask: str = "00000000", flags: str = "0003") -> str:
    return f"{name}\t{network}\t0101A8C0\t{flags}\t0\t0\t0\t{mask}\t0\t0\t0\n"


def netdev(name: str, *entries: str) -> dict[str, Content]:
    base = f"/sys/devices/virtual/net/{name}"
    found: dict[str, Content] = {f"{NET}/{name}": Link(f"../../devices/virtual/net/{name}"), base: DIRECTORY}
    return found | {f"{base}/{entry}": DIRECTORY for entry in entries}


VMBR0 = netdev("vmbr0", "bridge", "brif/eno1", "lower_eno1")


@pytest.mark.parametrize(
    ("files", "expected"),
    [
        (
            CARDS | VMBR0 | {"/proc/net/route": ROUTE_HEAD + route("vmbr0")},
            {(NIC, UseKind.MANAGEMENT_NET), (NIC, UseKind.BRIDGE_NET)},
        ),
        # Bridge on a VLAN on a bond of two cards.
        (
            CARDS
            | netdev("vmbr0", "bridge", "brif/bond0.5", "lower_bond0.5")
            | netdev("bond0.5", "lower_bond0")
            | netdev("bond0", "lower_eno1", "lower_eno2")
            | {"/proc/net/route": ROUTE_HEAD + route("vmbr0")},
            {(card, kind) for card in (NIC, NIC2) for kind in (UseKind.MANAGEMENT_NET, UseKind.BRIDGE_NET)},
        ),
        # Bond members in their own file, the VLAN's parent by its name only.
        (
            CARDS
            | netdev("bond0.5")
            | netdev("bond0", "bonding")
            | {"/sys/devices/virtual/net/bond0/bonding/slaves": "eno2 eno1\n"}
            | {"/proc/net/route": ROUTE_HEAD + route("bond0.5")},
            {(NIC, UseKind.MANAGEMENT_NET), (NIC2, UseKind.MANAGEMENT_NET)},
        ),
        (
            CARDS
            | {
                "/proc/net/route": ROUTE_HEAD,
                "/proc/net/ipv6_route": f"{'0' * 32} 00 {'0' * 32} 00 {'f' * 32} 1 1 0 00000003 eno2\n",
            },
            {(NIC2, UseKind.MANAGEMENT_NET)},
        ),
        # Only an address in the configuration.
        (
            CARDS
            | {
                "/proc/net/route": ROUTE_HEAD,
                "/etc/network/interfaces": "iface eno2 inet static\n\taddress 10.0.0.2/24\n",
            },
            {(NIC2, UseKind.MANAGEMENT_NET)},
        ),
        # Open vSwitch: the ports hang on the datapath.
        (
            CARDS
            | netdev("ovs-system", "lower_eno1")
            | netdev("vmbr0")
            | {"/proc/net/route": ROUTE_HEAD + route("vmbr0")},
            {(NIC, UseKind.MANAGEMENT_NET), (NIC, UseKind.BRIDGE_NET)},
        ),
        # A USB network card needs its USB controller.
        (
            {
                f"{NET}/enx1": Link(f"{PCI}/0000:00:14.0/usb2/2-1/2-1:1.0/net/enx1"),
                "/proc/net/route": ROUTE_HEAD + route("enx1"),
            },
            {(XHCI, UseKind.MANAGEMENT_NET)},
        ),
        # An interface that is no link itself.
        (
            {f"{NET}/eth0/device": Link("../../../0000:04:00.0"), "/proc/net/route": ROUTE_HEAD + route("eth0")},
            {(NIC, UseKind.MANAGEMENT_NET)},
        ),
    ],
)
def test_networks(tmp_path: Path, files: dict[str, Content], expected: set[tuple[Address, UseKind]]) -> None:
    uses, known, ask = looked_at(tmp_path, files)
    assert kinds(uses) == expected
    assert "network" in known, [gap for gap in ask.gaps if gap.about == "uses.network"]
    assert all(use.vital is (use.kind is UseKind.MANAGEMENT_NET) for use in uses)


def test_the_default_route_is_vital_and_another_address_is_not(tmp_path: Path) -> None:
    files = CARDS | {
        "/proc/net/route": ROUTE_HEAD + route("eno1") + route("eno2", flags="0203"),
        "/etc/network/interfaces": "iface eno2 inet static\n\taddress 10.0.0.2/24\n",
    }
    uses, _, _ = looked_at(tmp_path, files)
    assert {use.address: use.vital for use in uses} == {NIC: True, NIC2: False}
    assert "eno1 (default route)" in {use.detail for use in uses}


def test_the_nodes_own_address_is_vital(tmp_path: Path) -> None:
    files = CARDS | {
        "/proc/net/route": ROUTE_HEAD + route("eno1"),
        "/etc/network/interfaces": "iface eno2 inet static\n\taddress 10.0.0.2/24\n",
        "/etc/hosts": "127.0.0.1 localhost\n10.0.0.2 pve.example.org pve\n",
    }
    uses, _, _ = looked_at(tmp_path, files)
    assert all(use.vital for use in uses) and {use.address for use in uses} == {NIC, NIC2}


COROSYNC = """totem { version: 2 }
nodelist {
  node {
    name: pve2
    ring0_addr: 10.9.9.3
  }
  node {
    name: pve
    ring0_addr: 10.9.9.2
    ring1_addr: 10.8.8.2
  }
}
"""


def test_cluster_links(tmp_path: Path) -> None:
    files = CARDS | {
        "/etc/pve/corosync.conf": COROSYNC,
        # 10.9.9.2 by configuration, 10.8.8.0/24 by its connected route.
        "/etc/network/interfaces": "iface eno2 inet static\n\taddress 10.9.9.2/24\n",
        "/proc/net/route": ROUTE_HEAD + route("eno1") + route("eno1", "0008080A", "00FFFFFF", "0001"),
    }
    uses, known, _ = looked_at(tmp_path, files)
    cluster = {use.address: use.detail for use in uses if use.kind is UseKind.CLUSTER_NET}
    assert cluster == {NIC2: "eno2 (cluster link 10.9.9.2)", NIC: "eno1 (cluster link 10.8.8.2)"}
    assert "network" in known
    assert corosync_links(COROSYNC, "pve") == ("10.9.9.2", "10.8.8.2")
    assert corosync_links(COROSYNC, "other") == ()


@pytest.mark.parametrize(
    "files",
    [
        {},
        CARDS,  # neither routes nor addresses
        CARDS | {"/proc/net/route": ROUTE_HEAD},
        CARDS | {"/proc/net/route": ROUTE_HEAD + route("gone0")},
        CARDS | netdev("wg0") | {"/proc/net/route": ROUTE_HEAD + route("wg0")},
        CARDS | {"/proc/net/route": ROUTE_HEAD + route("eno1"), "/etc/pve/corosync.conf": COROSYNC},
        CARDS | {"/proc/net/route": ROUTE_HEAD + route("eno1"), "/etc/pve/corosync.conf": "nodelist {"},
    ],
)
def test_networks_that_are_not_understood_are_unknown(tmp_path: Path, files: dict[str, Content]) -> None:
    _, known, ask = looked_at(tmp_path, files)
    assert "network" not in known
    assert "uses.network" in {gap.about for gap in ask.gaps}


def test_addresses_of_interfaces() -> None:
    text = (
        "auto lo\niface lo inet loopback\n  address 127.0.0.1\n\n"
        "iface vmbr0 inet6 static\n\taddress FE80::1/64\nsource x\n\taddress 9.9.9.9\n"
    )
    assert list(configured(text)) == [("vmbr0", "fe80::1")]


def test_an_alias_is_one_more_address_of_its_interface(tmp_path: Path) -> None:
    text = "iface lo:0 inet static\n\taddress 10.9.9.9/32\niface eno1:1 inet static\n\taddress 10.0.0.7/24\n"
    assert list(configured(text)) == [("eno1", "10.0.0.7")]
    _, known, _ = looked_at(tmp_path, CARDS | {"/etc/network/interfaces": text})
    assert "network" in known


# -- console, keyboards, virtual functions ----------------------------------------------------


def test_console_and_keyboard(tmp_path: Path) -> None:
    keyboard = UsbDevice("1-2", 0x046D, 0xC31C, 0, "Keyboard K120", XHCI, keyboard=True)
    display = Display(Address.parse("00:02.0"), "i915drmfb")
    uses, known, _ = looked_at(tmp_path, {"/sys/bus/usb/devices": DIRECTORY}, usb=(keyboard,), display=display)
    assert [(use.kind, use.detail, use.vital) for use in uses] == [
        (UseKind.CONSOLE, "console (i915drmfb)", False),
        (UseKind.KEYBOARD, "Keyboard K120 at 1-2", False),
    ]
    assert known == {"console", "keyboard"}


def test_a_keyboard_on_an_unknown_controller_is_a_gap(tmp_path: Path) -> None:
    keyboard = UsbDevice("1-2", None, None, None, "", None, keyboard=True)
    uses, known, ask = looked_at(tmp_path, {"/sys/bus/usb/devices": DIRECTORY}, usb=(keyboard,))
    assert uses == () and "keyboard" not in known
    assert "uses.keyboard" in {gap.about for gap in ask.gaps}


def test_nobody_owns_the_console_only_when_that_is_known(tmp_path: Path) -> None:
    assert "console" in looked_at(tmp_path / "a", {"/sys": DIRECTORY}, display=Display(None, ""))[1]
    assert "console" not in looked_at(tmp_path / "b", {"/sys": DIRECTORY}, display=Display(None, None))[1]


def test_a_virtual_function_needs_its_physical_one(tmp_path: Path) -> None:
    files = CARDS | {"/proc/net/route": ROUTE_HEAD + route("eno1")}
    uses, _, _ = looked_at(tmp_path, files, devices=(Device(NIC, physical_function=NIC2), Device(NIC2)))
    assert kinds(uses) == {(NIC, UseKind.MANAGEMENT_NET), (NIC2, UseKind.MANAGEMENT_NET)}
    assert all(use.vital for use in uses)


# -- USB devices -----------------------------------------------------------------------------------


def test_uses_of_usb_devices_name_their_ports(tmp_path: Path) -> None:
    """A stick behind a hub that is mounted, a network adapter with the default route, and a keyboard."""
    way = f"{PCI}/0000:00:14.0"
    files: dict[str, Content] = CARDS | {
        f"{BLOCK}/sdz": Link(f"{way}/usb2/2-1/2-1.4/2-1.4:1.0/host6/target6:0:0/6:0:0:0/block/sdz"),
        f"{NET}/enx1": Link(f"{way}/usb1/1-3/1-3:1.0/net/enx1"),
        "/proc/net/route": ROUTE_HEAD + route("enx1"),
        "/proc/mounts": "/dev/sdz /mnt/usb ext4 rw 0 0\n",
    }
    keyboard = UsbDevice("1-2", 0x046D, 0xC31C, 0, "Keyboard K120", XHCI, keyboard=True)
    ask = Asking(Scripted(plant(tmp_path, files)))
    found = probe_uses(ask, (), (keyboard,), Display(), Boot(), Pve(node="pve"), mounts(ask))
    assert found.usb == (
        UsbUse("2-1.4", UseKind.DATA_DISK, "/mnt/usb on /dev/sdz (USB)"),
        UsbUse("1-3", UseKind.MANAGEMENT_NET, "enx1 (default route)", vital=True),
        UsbUse("1-2", UseKind.KEYBOARD, "Keyboard K120"),
    )
    assert {one.address for one in found.uses} == {XHCI}
