"""`inside` on simulated hosts: devices, guests, absent cards, and everything that is no such thing."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import yaml

from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, create


@pytest.fixture(scope="module")
def default(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("default") / "host"
    create(str(place), "default")
    return str(place)


@pytest.fixture(scope="module")
def node(tmp_path_factory: pytest.TempPathFactory) -> str:
    place = tmp_path_factory.mktemp("node") / "host"
    create(str(place), "p40-node")
    return str(place)


def inside(place: str, *words: str) -> int:
    return run(["--host", f"sim:{place}", "inside", *words])


def test_a_card_of_the_host(default: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(default, "gpu", "--os", "ubuntu-24.04") == Exit.FINE
    said = capsys.readouterr()
    assert "linux-modules-nvidia-580-server-open-$kernel" in said.out and "0000:01:00.0" in said.out
    assert "nvidia-smi" in said.out and said.err == ""


def test_user_data_is_all_that_comes_out(default: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(default, "gpu", "--os", "debian-12", "--use", "transcode", "--format", "cloud-init") == Exit.FINE
    said = capsys.readouterr()
    assert said.out.startswith("#cloud-config\n") and said.err == ""
    assert "libnvidia-encode1" in yaml.safe_load(said.out)["write_files"][0]["content"]


def test_published_values(default: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(default, "gpu", "--os", "debian-13", "--output-format", "json") == Exit.FINE
    data = json.loads(capsys.readouterr().out)
    assert data["format"] == 1 and data["dkms"] is True and data["os"] == "debian-13"
    assert data["cards"][0]["id"] == "10de:2684" and data["cards"][0]["seen"] is True
    assert data["cloud_init"].startswith("#cloud-config") and data["shell"].startswith("#!/bin/sh")


def test_one_of_four_equal_cards_needs_no_choice(node: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(node, "10de:1b38", "--os", "ubuntu-22.04") == Exit.FINE
    assert "branch 580 is the last" in " ".join(capsys.readouterr().out.split())


def test_a_card_that_is_not_here(default: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(default, "10DE:1B38", "--os", "ubuntu-24.04") == Exit.FINE
    assert "No device was looked at for 10de:1b38" in " ".join(capsys.readouterr().out.split())


@pytest.mark.parametrize(
    ("words", "code", "ref"),
    [
        (("10de:22bb", "--os", "debian-13"), Exit.USAGE, "inside.unknown-card"),
        (("ffff:ffff", "--os", "debian-13"), Exit.USAGE, "inside.unknown-card"),
        (("nic", "--os", "debian-13"), Exit.USAGE, "inside.no-card"),
        (("gpu:9", "--os", "debian-13"), Exit.USAGE, "device.unknown"),
        (("--os", "debian-13"), Exit.USAGE, "inside.nothing-named"),
        (("--os", "debian-13", "--vm", "999"), Exit.USAGE, "inside.no-guest"),
        (("10de:2b85", "--os", "debian-13"), Exit.COULD_NOT, "inside.not-in-archive"),
    ],
)
def test_what_is_refused(
    default: str, capsys: pytest.CaptureFixture[str], words: tuple[str, ...], code: Exit, ref: str
) -> None:
    assert inside(default, *words) == code
    said = capsys.readouterr()
    assert ref in said.err and "→" in said.err and said.out == ""


def test_the_system_must_be_named(default: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert inside(default, "gpu") == Exit.USAGE
    assert inside(default, "gpu", "--os", "windows-11") == Exit.USAGE
    assert "ubuntu-24.04" in capsys.readouterr().err


def configured(place: str, *arguments: str) -> None:
    assert Simulated(place).run(("qm", "set", "100", *arguments)).ok


def test_the_devices_of_a_guest(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    place = str(tmp_path / "host")
    create(place, "default")
    assert inside(place, "--vm", "100", "--os", "debian-13") == Exit.USAGE
    assert "inside.no-devices" in capsys.readouterr().err
    configured(place, "--hostpci0", "0000:01:00,pcie=1", "--ostype", "l26", "--bios", "ovmf")
    assert inside(place, "--vm", "100", "--os", "debian-13") == Exit.FINE
    assert "10de:2684" in capsys.readouterr().out
    configured(place, "--ostype", "win11")
    assert inside(place, "--vm", "100", "--os", "debian-13") == Exit.USAGE
    said = capsys.readouterr().err
    assert "inside.windows" in said and "guest-windows.md" in said


@pytest.mark.parametrize(("keys", "noted"), [("1", True), ("0", False)])
def test_the_guests_keys_decide_what_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], keys: str, noted: bool
) -> None:
    place = str(tmp_path / "host")
    create(place, "default")
    file = Path(place) / "etc/pve/qemu-server/100.conf"
    rows = [row for row in file.read_text().split("\n") if not row.startswith(("efidisk0", "bios"))]
    disk = f"efidisk0: local-lvm:vm-100-disk-9,efitype=4m,pre-enrolled-keys={keys},size=4M"
    file.write_text("\n".join(("bios: ovmf", disk, "hostpci0: 0000:01:00,pcie=1", *rows)))
    assert inside(place, "--vm", "100", "--os", "debian-12") == Exit.FINE
    assert ("mokutil" in capsys.readouterr().out) is noted
