"""Disks behind controllers, pools in the cache, interfaces in the configuration: each from its evidence, or unknown."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated.world import World
from pve_passthrough.host.simulated.zfs import CACHE, write_cache
from pve_passthrough.model.facts import Boot, UseKind
from pve_passthrough.model.pci import Address
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.attached import cached_pools, probe_attached
from pve_passthrough.probe.disks import disks, mounts
from pve_passthrough.probe.network import alternative_names, networks

from .trees import Content, Link, Scripted, plant

PCI = "../../devices/pci0000:00"
LSBLK = ("lsblk", "--json", "--list", "--output", "KNAME,FSTYPE,LABEL")
SDB: dict[str, Content] = {
    "/sys/class/block/sdb1": Link(f"{PCI}/0000:00:01.0/0000:04:00.0/host1/target1:0:0/1:0:0:0/block/sdb/sdb1"),
}
HBA = Address.parse("04:00.0")


def ask(root: Path, files: dict[str, Content], programs: dict[tuple[str, ...], Ran | str] | None = None) -> Asking:
    return Asking(Scripted(plant(root, files), programs))


def said(*rows: tuple[str, str | None, str | None]) -> dict[tuple[str, ...], Ran | str]:
    keys = ("kname", "fstype", "label")
    return {LSBLK: Ran(0, json.dumps({"blockdevices": [dict(zip(keys, row, strict=True)) for row in rows]}))}


def test_contents_by_the_function_that_carries_them(tmp_path: Path) -> None:
    asking = ask(tmp_path, SDB, said(("sdb1", "zfs_member", "tank"), ("sdq", "ext4", None)))
    (disk,) = probe_attached(asking).disks or ()
    assert (disk.name, disk.functions, disk.kind, disk.label) == ("sdb1", (HBA,), "zfs_member", "tank")


@pytest.mark.parametrize("answer", ["", "{}", "[]", '{"blockdevices": [1]}', '{"blockdevices": {"a": {}}}', "[" * 9999])
def test_an_odd_answer_is_unknown(tmp_path: Path, answer: str) -> None:
    asking = ask(tmp_path, SDB, {LSBLK: Ran(0, answer)})
    assert probe_attached(asking).disks is None
    assert any(gap.about == "attached.disks" for gap in asking.gaps)


# -- zpool.cache -----------------------------------------------------------------------------------


def cache(folder: Path, *names: str) -> bytes:
    (folder / "etc/zfs").mkdir(parents=True, exist_ok=True)
    world = World(str(folder))
    write_cache(world, names)
    return (world.text(CACHE) or "").encode("utf-8", "surrogateescape")


@pytest.mark.parametrize("names", [("tank",), ("a", "rpool", "tank-2"), ("x" * 200,)])
def test_names_in_a_cache(tmp_path: Path, names: tuple[str, ...]) -> None:
    assert cached_pools(cache(tmp_path, *names)) == frozenset(names)


def test_a_cache_cut_short_is_no_cache(tmp_path: Path) -> None:
    data = cache(tmp_path, "tank", "other")
    assert all(cached_pools(data[:length]) is None for length in range(len(data) - 4))


@given(st.binary(max_size=200))
def test_any_bytes_are_borne(data: bytes) -> None:
    names = cached_pools(b"\x01\x01\x00\x00" + data)
    assert names is None or all(0 < len(name) < 256 for name in names)


# -- interfaces ------------------------------------------------------------------------------------


def test_lines_that_name_an_interface_and_files_that_pin_it(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "/sys/class/net/eth1": Link(f"{PCI}/0000:00:01.0/0000:04:00.0/net/eth1"),
        "/sys/class/net/vmbr0": Link("../../devices/virtual/net/vmbr0"),
        "/etc/network/interfaces": "auto vmbr0\n\tbridge-ports eth1\n# eth1\nauto eth10\nauto eth1.5\n",
        "/etc/systemd/network/10-a.link": "[Match]\nMACAddress=aa:bb:cc:00:00:01\n[Link]\nName=eth1\n",
    }
    (one,) = probe_attached(ask(tmp_path, files, said())).interfaces or ()
    assert one.name == "eth1" and one.function == HBA
    assert one.named == ("/etc/network/interfaces:2: bridge-ports eth1", "/etc/network/interfaces:5: auto eth1.5")
    assert one.pinned == ("/etc/systemd/network/10-a.link",)


@pytest.mark.parametrize("text", ["", "{}", "[1]", '[{"altnames": 3}]', '[{"altnames": ["a"]}]'])
def test_odd_words_about_other_names(text: str) -> None:
    assert alternative_names(text) == {}


# -- reserved regions --------------------------------------------------------------------------------


def test_only_direct_regions_count(tmp_path: Path) -> None:
    files: dict[str, Content] = {
        "/sys/kernel/iommu_groups/1/reserved_regions": "0x1000 0x1fff direct\n0xfee00000 0xfeefffff msi\n",
        "/sys/kernel/iommu_groups/2/reserved_regions": "0x1000 0x1fff direct-relaxable\n",
        "/sys/kernel/iommu_groups/x/reserved_regions": "0x1000 0x1fff direct\n",
    }
    assert probe_attached(ask(tmp_path, files, said())).direct == {1: ("0x1000 0x1fff direct",)}


# -- disks that hang on no PCI function --------------------------------------------------------------

ISCSI = "../../devices/platform/host9/session1/target9:0:0/9:0:0:1/block/sdi"
EMMC = "../../devices/platform/80860F14:00/mmc_host/mmc0/mmc0:0001/block/mmcblk0"
FIBRE = f"{PCI}/0000:00:01.0/0000:04:00.0/host5/rport-5:0-1/target5:0:0/5:0:0:0/block/sdf"


@pytest.mark.parametrize(
    ("name", "path", "words"),
    [("sdi", ISCSI, "iSCSI"), ("mmcblk0", EMMC, "no PCI function"), ("sdf", FIBRE, "")],
)
def test_a_root_off_the_bus_is_a_doubt_and_never_silence(tmp_path: Path, name: str, path: str, words: str) -> None:
    files: dict[str, Content] = {f"/sys/class/block/{name}": Link(path), "/proc/mounts": f"/dev/{name} / ext4 rw 0 0\n"}
    asking = ask(tmp_path, files | {"/proc/swaps": "Filename\n"})
    found, sure = disks(asking, mounts(asking), Boot())
    reasons = " ".join(gap.reason for gap in asking.gaps)
    assert sure is not bool(words) and words in reasons
    assert ([one.address for one in found if one.kind is UseKind.ROOT_DISK] == [HBA]) is not bool(words)


def test_a_multipath_disk_hangs_on_each_of_its_controllers(tmp_path: Path) -> None:
    base = "/sys/devices/virtual/nvme-subsystem/nvme-subsys1"
    files: dict[str, Content] = {
        "/sys/class/block/nvme1n1": Link("../../devices/virtual/nvme-subsystem/nvme-subsys1/nvme1n1"),
        f"{base}/nvme1": Link("../../../pci0000:00/0000:00:01.0/0000:04:00.0/nvme/nvme1"),
        f"{base}/nvme2": Link("../../../pci0000:00/0000:00:02.0/0000:05:00.0/nvme/nvme2"),
    }
    (disk,) = probe_attached(ask(tmp_path, files, said(("nvme1n1", "zfs_member", "tank")))).disks or ()
    assert disk.functions == (HBA, Address.parse("05:00.0"))


# -- the way to storage on the network ----------------------------------------------------------------

ROUTES = "Iface\tDestination\tGateway\tFlags\tRefCnt\tUse\tMetric\tMask\n"
CARDS: dict[str, Content] = {
    "/sys/class/net/eno1": Link(f"{PCI}/0000:00:01.0/0000:04:00.0/net/eno1"),
    "/sys/class/net/eno2": Link(f"{PCI}/0000:00:02.0/0000:05:00.0/net/eno2"),
    "/proc/net/route": f"{ROUTES}eno1\t00000000\t0101A8C0\t3\t0\t0\t0\t00000000\n"
    "eno2\t0002A8C0\t00000000\t1\t0\t0\t0\t00FFFFFF\n",
}


@pytest.mark.parametrize(
    ("more", "card"),
    [
        ({"/proc/mounts": "nas:/x /mnt/pve/nas nfs4 rw,vers=4.2,addr=192.168.2.9 0 0\n"}, "05:00.0"),
        ({"/proc/mounts": "//far/x /mnt/pve/far cifs rw,addr=10.9.9.9 0 0\n"}, "04:00.0"),
        ({"/sys/class/iscsi_connection/connection1:0/persistent_address": "192.168.2.7\n"}, "05:00.0"),
        ({"/proc/mounts": "nas:/x /mnt/here nfs rw,addr=127.0.0.1 0 0\n"}, ""),
    ],
)
def test_the_card_towards_network_storage(tmp_path: Path, more: dict[str, Content], card: str) -> None:
    found, _ = networks(ask(tmp_path, CARDS | more), None)
    wanted = [Address.parse(card)] if card else []
    assert [one.address for one in found if one.kind is UseKind.STORAGE_NET] == wanted


# -- every way in which a host may hold a disk -----------------------------------------------------------


SDB1 = "/sys/devices/pci0000:00/0000:00:01.0/0000:04:00.0/host1/target1:0:0/1:0:0:0/block/sdb/sdb1"


def held(name: str, label: str = "", uuid: str = "") -> dict[str, Content]:
    base = f"/sys/devices/virtual/block/{name}"
    files: dict[str, Content] = {
        f"/sys/class/block/{name}": Link(f"../../devices/virtual/block/{name}"),
        f"{SDB1}/holders/{name}": Link(f"../../x/{name}"),
    }
    return files | ({f"{base}/dm/name": f"{label}\n", f"{base}/dm/uuid": f"{uuid}\n"} if label else {})


STATUS = (
    "  pool: tank\nconfig:\n\n\tNAME STATE\n\ttank ONLINE\n\t  /dev/sda1 ONLINE 0 0 0\n\t{kind}\n\t  /dev/sdb1 AVAIL\n"
)
SDA: dict[str, Content] = {
    "/sys/class/block/sda1": Link(f"{PCI}/0000:00:17.0/ata1/host0/target0:0:0/0:0:0:0/block/sda/sda1"),
    "/sys/class/block/sdb1": Link(f"{PCI}/0000:00:01.0/0000:04:00.0/host1/target1:0:0/1:0:0:0/block/sdb/sdb1"),
}


@pytest.mark.parametrize(
    ("more", "kind"),
    [
        (held("dm-5", "cryptdata", "CRYPT-LUKS2-x"), UseKind.DATA_DISK),
        (held("dm-5", "mpatha", "mpath-36000"), UseKind.DATA_DISK),
        (held("dm-5", "vg-lv", "LVM-x"), UseKind.POOL_DISK),
        (held("md127"), UseKind.DATA_DISK),
        ({"/proc/swaps": "Filename Type\n/dev/sdb1 partition 1 0 -2\n"}, UseKind.DATA_DISK),
        ({"/proc/mounts": "/dev/sdb1 /mnt/x ext4 rw 0 0\n"}, UseKind.DATA_DISK),
        *(({"/etc/zfs/zpool.cache": kind}, UseKind.POOL_DISK) for kind in ("spares", "cache", "logs", "special")),
    ],
)
def test_held_in_any_way_is_a_use(tmp_path: Path, more: dict[str, Content], kind: UseKind) -> None:
    status = Ran(0, STATUS.replace("{kind}", str(more.get("/etc/zfs/zpool.cache", ""))))
    base: dict[str, Content] = {"/proc/mounts": "/dev/sda1 / ext4 rw 0 0\n", "/proc/swaps": "Filename\n"}
    asking = ask(tmp_path, SDA | base | more, {("zpool", "status", "-P", "-L"): status})
    found, _ = disks(asking, mounts(asking), Boot())
    assert kind in {one.kind for one in found if one.address == HBA}
