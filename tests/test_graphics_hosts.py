"""From nothing to a guest with its card, on one host of each kind; and every line of the guest is one Proxmox takes."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pytest

from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.model.vm import parse_config
from tests.pve_schema import about, complaint, needs_schema, parameters

_ISO = "/var/lib/vz/template/iso"
_WRITTEN_BY_PROXMOX = frozenset({"meta", "vmgenid", "smbios1"})


@dataclass(frozen=True)
class Case:
    """A host, what is given to which guest, and what the guest's entries are then."""

    seed: str
    words: tuple[str, ...]
    vmid: int
    profile: str
    entries: dict[str, str]


CASES = (
    Case("rtx-3080", ("gpu",), 200, "windows-gaming", {"hostpci0": "0000:01:00,pcie=1"}),
    Case("p40-node", ("01:00.0",), 201, "linux-ai", {"hostpci0": "0000:01:00.0,pcie=1"}),
    Case("p40-node", ("82:00.0",), 202, "linux-ai", {"hostpci0": "0000:82:00.0,pcie=1"}),
    Case(
        "amd-apu", ("gpu", "--accept", "only-display"), 200, "linux-desktop",
        {"hostpci0": "0000:15:00.0,pcie=1", "hostpci1": "0000:15:00.1,pcie=1"},
    ),
    Case(
        "intel-igpu", ("gpu", "--accept", "only-display"), 200, "transcode", {"hostpci0": "0000:00:02.0,pcie=1"},
    ),
    Case(
        "arc", ("gpu:2",), 200, "transcode",
        {"hostpci0": "0000:07:00.0,pcie=1", "hostpci1": "0000:08:00.0,pcie=1"},
    ),
    Case(
        "only-display", ("gpu", "--accept", "only-display"), 200, "windows-gaming", {"hostpci0": "0000:01:00,pcie=1"}
    ),
)  # fmt: skip


def up(host: Simulated, case: Case) -> int:
    words = ("up", *case.words, "--vm", str(case.vmid), "--profile", case.profile, "--yes", "--patience", "0")
    return run(["--host", host.name, *words])


def config(host: Simulated, vmid: int) -> dict[str, str]:
    return parse_config(host.read(f"/etc/pve/qemu-server/{vmid}.conf").decode())[0]


@pytest.fixture(scope="module", params=dict.fromkeys(case.seed for case in CASES))
def host(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """A machine on which all its cases have been carried out."""
    seed = str(request.param)
    host = create(str(tmp_path_factory.mktemp(seed) / seed), seed)
    for name in ("win11.iso", "virtio-win-0.1.271.iso"):
        host.world.put(f"{_ISO}/{name}", "x")
    for case in _cases(host):
        assert up(host, case) == Exit.FINE, case
    return host


def _cases(host: Simulated) -> list[Case]:
    return [case for case in CASES if case.seed == Path(host.world.directory).name]


def test_from_nothing_to_a_running_guest_that_has_its_card(host: Simulated) -> None:
    for case in _cases(host):
        found = config(host, case.vmid)
        assert {key: value for key, value in found.items() if key.startswith("hostpci")} == case.entries
        assert (found["cpu"], found["bios"], found["balloon"]) == ("host", "ovmf", "0")
        assert "vga" in found and "x-vga" not in str(found), "the rescue console stays until the second step"
        given = [value.split(",")[0] for value in case.entries.values()]
        for address in (one if "." in one else f"{one}.0" for one in given):
            assert host.link(f"/sys/bus/pci/devices/{address}/driver").endswith("/vfio-pci")
    if len(_cases(host)) > 1:
        for left in ("0000:02:00.0", "0000:83:00.0"):  # the same ID: neither claimed nor taken
            assert host.link(f"/sys/bus/pci/devices/{left}/driver").endswith("/nouveau")


@needs_schema
def test_every_line_of_the_guest_is_one_that_proxmox_takes(host: Simulated) -> None:
    for case in _cases(host):
        for major in (8, 9):
            schema = parameters(major)
            for key, text in config(host, case.vmid).items():
                if key not in _WRITTEN_BY_PROXMOX:
                    assert not complaint(about(schema, key), text), f"{major}: {key}: {text}"
