"""What the simulated `qm` does with a new guest's volumes, keys and numbers.

Beliefs: PVE/API2/Qemu.pm (create_disks, check_storage_access, resize_vm), PVE/CLI/qm.pm (param_mapping),
PVE::Cluster::check_vmid_unused, pve-common JSONSchema.pm; the rest is recorded.
"""

from __future__ import annotations

import json
import struct
from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated import Simulated, create

KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0LWtleS1mb3ItdGVzdHMtb25seS0wMQ me@desk\n"


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    create(str(tmp_path / "host"), "default")
    made = Simulated(str(tmp_path / "host"))
    world = made.world
    storages = (world.text("/etc/pve/storage.cfg") or "").replace("content iso,", "content images,import,iso,")
    world.put("/etc/pve/storage.cfg", storages + "\nzfspool: tank\n\tpool tank\n\tcontent images\n")
    return made


def qm(host: Simulated, *words: str) -> Ran:
    return host.run(("qm", *words))


def config(host: Simulated, vmid: int) -> str:
    return host.world.text(f"/etc/pve/nodes/pve/qemu-server/{vmid}.conf") or ""


def test_volumes_are_named_as_their_storage_names_them(host: Simulated) -> None:
    ran = qm(
        host, "create", "200", "--bios", "ovmf", "--efidisk0", "local:1,efitype=4m", "--scsi0", "local:4,format=qcow2",
        "--scsi1", "local:cloudinit", "--scsi2", "tank:2", "--tpmstate0", "tank:1,version=v2.0", "--ide0",
        "local-lvm:cloudinit,format=raw",
    )  # fmt: skip
    assert ran.rc == 0, ran.stderr
    text = config(host, 200)
    assert "efidisk0: local:200/vm-200-disk-0.raw,efitype=4m,size=528K\n" in text
    assert "scsi0: local:200/vm-200-disk-1.qcow2,size=4G\n" in text
    assert "scsi1: local:200/vm-200-cloudinit.qcow2,media=cdrom\n" in text
    assert "scsi2: tank:vm-200-disk-0,size=2G\n" in text
    assert "tpmstate0: tank:vm-200-disk-1,size=4M,version=v2.0\n" in text
    assert "ide0: local-lvm:vm-200-cloudinit,media=cdrom\n" in text
    assert qm(host, "destroy", "200").rc == 0
    assert "vm-200" not in (host.world.text("/sim/volumes.json") or "")


def test_an_image_gives_its_own_size_and_grows_only(host: Simulated) -> None:
    image = b"QFI\xfb" + struct.pack(">I", 3) + bytes(16) + struct.pack(">Q", 3 << 30) + bytes(40)
    place = Path(host.world.directory, "var/lib/vz/import")
    place.mkdir(parents=True)
    (place / "noble.qcow2").write_bytes(image)
    assert qm(host, "create", "200", "--scsi0", "local-lvm:0,import-from=local:import/noble.qcow2").rc == 0
    assert "scsi0: local-lvm:vm-200-disk-0,size=3G\n" in config(host, 200)
    assert qm(host, "disk", "resize", "200", "scsi0", "10G").rc == 0
    assert "size=10G" in config(host, 200)
    assert qm(host, "disk", "resize", "200", "scsi0", "+2G").rc == 0 and "size=12G" in config(host, 200)
    shrunk = qm(host, "disk", "resize", "200", "scsi0", "5G")
    assert shrunk.rc != 0 and "shrinking disks is not supported" in shrunk.stderr
    assert "disk 'scsi5' does not exist" in qm(host, "disk", "resize", "200", "scsi5", "5G").stderr


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (("--scsi0", "local-lvm:0,import-from=local:iso/x.img"), "needs to be 'images' or 'import'"),
        (
            ("--scsi0", "local-lvm:0,import-from=/nowhere.img"),
            "unable to create VM 200 - can't find file '/nowhere.img'",
        ),
        (("--efidisk0", "local-lvm:1", "--ide2", "local:iso/no.iso,media=cdrom"), "volume local:iso/no.iso does not"),
        (("--ipconfig0", "ip=10.0.0.300"), "ipconfig0: invalid format"),
        (("--ipconfig0", "nonsense=1"), "ipconfig0: invalid format"),
        (("--sshkeys", "/root/none"), "can't open '/root/none'"),
        (("--sshkeys", "/etc/hostname"), "SSH public key validation error"),
    ],
    ids=lambda value: value[1] if isinstance(value, tuple) else "",
)
def test_what_is_refused_leaves_no_volume(host: Simulated, words: tuple[str, ...], said: str) -> None:
    before = host.world.text("/sim/volumes.json")
    ran = qm(host, "create", "200", *words)
    assert ran.rc != 0 and said in ran.stderr
    assert not config(host, 200)
    assert json.loads(host.world.text("/sim/volumes.json") or "{}") == json.loads(before or "{}")


def test_a_storage_without_images_takes_no_disk(host: Simulated) -> None:
    text = (host.world.text("/etc/pve/storage.cfg") or "").replace("content images,import,iso,", "content iso,")
    host.world.put("/etc/pve/storage.cfg", text)
    ran = qm(host, "create", "200", "--scsi0", "local:4")
    assert ran.rc != 0 and "storage: storage 'local' does not support vm images" in ran.stderr


def test_keys_are_read_from_a_file_here_and_taken_encoded_there(host: Simulated) -> None:
    host.world.put("/root/id.pub", KEY)
    assert qm(host, "create", "200", "--sshkeys", "/root/id.pub").rc == 0
    encoded = "ssh-ed25519%20AAAA"
    assert f"sshkeys: {encoded}" in config(host, 200)
    api = ("pvesh", "create", "/nodes/pve/qemu", "--vmid", "201", "--sshkeys")
    refused = host.run((*api, KEY.strip()))
    assert refused.rc != 0 and "invalid urlencoded string" in refused.stderr
    assert host.run((*api, config(host, 200).split("sshkeys: ")[1].split("\n", maxsplit=1)[0])).rc == 0


def test_numbers_are_shared_with_containers_and_other_nodes(host: Simulated) -> None:
    host.world.put("/etc/pve/nodes/pve/lxc/101.conf", "hostname: a\n")
    host.world.put("/etc/pve/nodes/other/qemu-server/102.conf", "name: b\n")
    assert "CT 101 already exists on node 'pve'" in qm(host, "create", "101").stderr
    assert "VM 102 already exists on node 'other'" in qm(host, "create", "102").stderr
    answer = host.run(("pvesh", "get", "/cluster/nextid", "--output-format", "json"))
    assert json.loads(answer.stdout) == "103"
