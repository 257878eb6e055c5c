"""What a new guest installs at its first boot: vendor data, and nothing of anybody's is replaced."""

from __future__ import annotations

from pathlib import Path

import pytest
import yaml

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import create
from pve_passthrough.model.facts import Facts, Storage
from pve_passthrough.model.vm import parse_config
from pve_passthrough.model.wish import Script, VmOption
from pve_passthrough.planning.first_boot import first_boot

from .worlds import FIT, GPU, facts, guest

LOCAL = Storage("local", "dir", frozenset({"iso", "snippets"}), "/var/lib/vz")
CLOUD = {**FIT, "bios": "ovmf", "ide2": "local-lvm:vm-100-cloudinit,media=cdrom"}
KNOWN = facts(storages=(LOCAL,))


def planned(known: Facts = KNOWN, system: str = "ubuntu-24.04", **config: str) -> tuple[Script, VmOption]:
    script, option = first_boot(known, guest(config={**CLOUD, **config}), [GPU], system)
    assert isinstance(script, Script) and isinstance(option, VmOption)
    return script, option


def refused(known: Facts = KNOWN, config: dict[str, str] | None = None) -> str:
    with pytest.raises(Failure) as caught:
        first_boot(known, guest(config=CLOUD if config is None else config), [GPU], "ubuntu-24.04")
    assert caught.value.code is Exit.REFUSED
    return caught.value.problem.ref


def test_vendor_data_that_cloud_init_reads() -> None:
    script, option = planned()
    assert option.value == "vendor=local:snippets/pve-passthrough-guest-100.yaml"
    assert script.path == "/var/lib/vz/snippets/pve-passthrough-guest-100.yaml" and not script.executable
    data = yaml.safe_load(script.text)
    assert "nvidia" in data["write_files"][0]["content"] and data["runcmd"]


def test_what_the_card_is_for_may_be_said() -> None:
    assert planned(system="debian-12:transcode")[0].text != planned(system="debian-12:ai")[0].text


def test_the_guests_own_custom_data_stays() -> None:
    assert planned(cicustom="user=local:snippets/u.yaml")[1].value == (
        "user=local:snippets/u.yaml,vendor=local:snippets/pve-passthrough-guest-100.yaml"
    )
    assert refused(config={**CLOUD, "cicustom": "vendor=local:snippets/mine.yaml"}) == "inside.vendor-data"


def test_without_a_drive_or_a_place_it_is_refused() -> None:
    assert refused(config=FIT) == "inside.no-cloud-init"
    assert refused(facts(storages=())) == "inside.no-snippets"


def test_it_comes_with_the_card_and_goes_with_it(tmp_path: Path) -> None:
    host = create(str(tmp_path / "host"), "p40-node")
    assert host.run(("qm", "set", "100", "--ide2", "local-lvm:cloudinit")).ok
    before = host.read("/etc/pve/qemu-server/100.conf")
    words = ("--host", host.name, "apply", "01:00.0", "--vm", "100", "--inside", "debian-13", "--yes")
    assert run([*words]) == Exit.FINE
    config = parse_config(host.read("/etc/pve/qemu-server/100.conf").decode())[0]
    assert config["cicustom"] == "vendor=local:snippets/pve-passthrough-guest-100.yaml"
    assert b"#cloud-config" in host.read("/var/lib/vz/snippets/pve-passthrough-guest-100.yaml")
    assert run([*words]) == Exit.FINE, "again: nothing to change"
    assert run(["--host", host.name, "undo", "--yes"]) == Exit.UNDONE
    assert host.read("/etc/pve/qemu-server/100.conf") == before
    assert host.names("/var/lib/vz/snippets") == ()


@pytest.mark.parametrize(
    ("bios", "disk", "keys"),
    [
        ("ovmf", "local-lvm:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1", True),
        ("ovmf", "local-lvm:vm-100-disk-0,pre-enrolled-keys=on", True),
        ("ovmf", "local-lvm:vm-100-disk-0,efitype=4m", False),
        ("seabios", "local-lvm:vm-100-disk-0,pre-enrolled-keys=1", False),
    ],
)
def test_whether_the_firmware_starts_with_microsofts_keys(bios: str, disk: str, keys: bool) -> None:
    assert guest(config={"bios": bios, "efidisk0": disk}).secure_boot is keys
