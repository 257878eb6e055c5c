"""Network, storage, sound, serial cards and accelerators through the main job: there, proven, and back to the byte."""

from __future__ import annotations

import hashlib
import itertools
import json
import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.host.simulated.world import DEVICES
from pve_passthrough.host.simulated.zfs import imported, write_cache
from pve_passthrough.model.finding import Finding
from pve_passthrough.model.own import CLAIM_SCRIPT, MODPROBE
from tests.copies import copy_of

HBA, NIC, SSD, QAT, SHARED = (f"0000:{bus}:00.0" for bus in ("04", "05", "06", "0a", "0b"))
CONFIG = "/etc/pve/nodes/pve/qemu-server/100.conf"
SCAN = "/etc/systemd/system/zfs-import.target.wants/zfs-import-scan.service"
NAS = "\nzfspool: nas\n\tpool tank/vms\n\tcontent images\n"


@pytest.fixture
def node(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Simulated:
    seconds = itertools.count(10)
    monkeypatch.setattr(app, "now", lambda: f"20261121-1405{next(seconds)}")  # runs are named after the second
    return copy_of("storage-node", tmp_path / "host")


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, *words])


def up(host: Simulated, *words: str) -> int:
    return says(host, "up", *words, "--vm", "100", "--yes", "--patience", "0")


def text(host: Simulated, path: str) -> str:
    return host.world.text(path) or ""


def export(host: Simulated, pool: str = "tank") -> None:
    assert host.run(("zpool", "export", pool)).ok


def found(host: Simulated, rule: str, *words: str) -> list[Finding]:
    return [one for one in app.check(host, words, 100).findings if one.rule == rule]


def on_disk(host: Simulated) -> dict[str, str]:
    """Digest of every file of /etc and /boot, links by their text."""
    root = Path(host.world.directory)
    kept = {}
    for top in ("etc", "boot"):
        for folder, folders, files in os.walk(root / top):
            for path in (Path(folder, name) for name in folders + files):
                data = (
                    os.readlink(path).encode() if path.is_symlink() else (path.is_file() and path.read_bytes()) or b""
                )
                kept[str(path.relative_to(root))] = hashlib.sha256(data).hexdigest()
    return kept


# -- each class once ---------------------------------------------------------------------------


AT_ONCE = (
    ("sata",),
    (NIC,),
    ("0000:07:00.0",),
    ("0000:08:00.0",),
    ("serial",),
    (SSD, "--tweak", "msix-relocation"),
)
AFTER_A_BOOT = (("accelerator", "--tweak", "disable-denylist"), ("hba", "--tweak", "no-rom-bar"))


def test_there_and_back(node: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    """One after the other on one machine, since each way back ends where it began."""
    export(node)
    before = on_disk(node)
    for words in AT_ONCE + AFTER_A_BOOT:
        assert up(node, *words) == Exit.FINE, words
        assert "hostpci0: " in text(node, CONFIG)
        assert "✓ L3 seen" in capsys.readouterr().out
        assert node.run(("qm", "stop", "100")).ok
        assert says(node, "undo", "--yes") == (Exit.REBOOT if words in AFTER_A_BOOT else Exit.UNDONE), words
        if words in AFTER_A_BOOT:
            assert node.run(("systemctl", "reboot")).ok
        assert says(node, "status") == Exit.FINE
        assert on_disk(node) == before, words


def test_the_same_device_twice_is_one_device(node: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(node, "plan", NIC, "05:00.0", "--vm", "100", "--output-format", "json") == Exit.PENDING
    changes = json.loads(capsys.readouterr().out)["changes"]
    assert [one["after"] for one in changes if one["cell"].endswith("/hostpci0")] == [NIC]
    assert not [one for one in changes if one["cell"].endswith("/hostpci1")]


def test_unplugged_between_plan_and_apply(node: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    saved = tmp_path / "plan.json"
    assert says(node, "plan", NIC, "--vm", "100", "--save", str(saved)) == Exit.PENDING
    before = on_disk(node)
    node.world.put_link(f"{DEVICES}/{NIC}", None)
    assert says(node, "apply", "--saved", str(saved), "--yes") == Exit.COULD_NOT
    assert "plan.device-gone" in capsys.readouterr().err
    assert on_disk(node) == before


# -- what the host lives on ----------------------------------------------------------------------


LIVED_ON = {
    "0000:02:00.0": "hazards.root-disk",
    "0000:03:00.0": "hazards.management-net",
    "hba": "hazards.pool-disk",
}


def test_refused_and_no_option_helps(node: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    before = on_disk(node)
    accept = [part for name in ("root-disk", "pool-disk", "data-disk", "bridge-net") for part in ("--accept", name)]
    for word, rule in LIVED_ON.items():
        assert says(node, "up", word, "--vm", "100", "--yes", *accept) == Exit.REFUSED
        assert f"refused.{rule}" in capsys.readouterr().err
    assert on_disk(node) == before


def test_a_card_below_a_bond_with_the_management_address(node: Simulated) -> None:
    """No route and no bridge leads there, only an address on a bond."""
    bond = "/sys/devices/virtual/net/bond0"
    node.world.put_link(f"{bond}/lower_enp5s0", "../../x")
    node.world.put_link("/sys/class/net/bond0", "../../devices/virtual/net/bond0")
    node.world.put("/etc/network/interfaces.d/bond", "auto bond0\niface bond0 inet static\n\taddress 192.168.1.10/24\n")
    assert up(node, NIC) == Exit.REFUSED


def test_another_name_of_the_management_interface_counts(node: Simulated) -> None:
    machine = node.world.machine()
    machine["altnames"] = {"enp5s0": ["lan0"]}
    node.world.save_machine(machine)
    node.world.put("/etc/network/interfaces.d/lan", "auto lan0\niface lan0 inet static\n\taddress 192.168.1.10/24\n")
    facts = app.look(node)
    assert "network" in facts.uses_known
    assert any(use.vital and str(use.address) == NIC for use in facts.uses)
    assert up(node, NIC) == Exit.REFUSED


# -- pools of a controller -----------------------------------------------------------------------


def test_an_imported_pool_is_refused_with_the_steps(node: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    node.world.put("/etc/pve/storage.cfg", text(node, "/etc/pve/storage.cfg") + NAS)
    assert up(node, "hba") == Exit.REFUSED
    told = " ".join(capsys.readouterr().err.split())
    assert "pvesm set nas --disable 1 zpool export tank" in told


def test_a_storage_takes_an_exported_pool_back_until_it_is_disabled(node: Simulated) -> None:
    node.world.put("/etc/pve/storage.cfg", text(node, "/etc/pve/storage.cfg") + NAS)
    export(node)
    assert "tank" in imported(node.world)
    node.world.put("/etc/pve/storage.cfg", text(node, "/etc/pve/storage.cfg") + "\tdisable\n")
    export(node)
    assert "tank" not in imported(node.world)
    assert not found(node, "storage.asks", "hba")
    assert found(node, "storage.would-import", "hba")


def test_the_claim_keeps_the_host_from_importing_whatever_would(node: Simulated) -> None:
    export(node)
    storages = text(node, "/etc/pve/storage.cfg")
    ways: dict[str, Callable[[], None]] = {
        "zfs-import-scan": lambda: node.world.put(SCAN, ""),
        "zfs-import@tank": lambda: node.world.put(SCAN.replace("zfs-import-scan", "zfs-import@tank"), ""),
        "nas": lambda: node.world.put("/etc/pve/storage.cfg", storages + NAS),
        "zpool.cache": lambda: write_cache(node.world, ["tank"]),
    }
    for words, prepare in ways.items():
        prepare()
        (one,) = found(node, "storage.would-import", "hba")
        assert words in str(one.evidence)
        assert bool(found(node, "storage.asks", "hba")) is (text(node, "/etc/pve/storage.cfg") != storages)
    assert up(node, "hba") == Exit.FINE
    assert f"claim {HBA} 1000:0097" in text(node, CLAIM_SCRIPT)
    power_cut(node.world)
    assert node.world.driver_of(HBA) == "vfio-pci"
    assert "tank" not in imported(node.world)
    assert not found(node, "storage.would-import")


def test_without_the_claim_the_host_takes_the_pool(node: Simulated) -> None:
    """What the claim is for: the simulated host does import."""
    export(node)
    power_cut(node.world)
    assert "tank" not in imported(node.world)
    node.world.put(SCAN, "")
    power_cut(node.world)
    assert "tank" in imported(node.world)


def test_no_claim_for_disks_that_nothing_takes(node: Simulated) -> None:
    assert up(node, SSD, "--tweak", "msix-relocation") == Exit.FINE
    assert not text(node, CLAIM_SCRIPT)


def test_volume_groups_and_arrays_without_anything_on_them_are_claimed_too(node: Simulated) -> None:
    machine = node.world.machine()
    machine["contents"]["sda1"] = ["LVM2_member", "data"]
    node.world.save_machine(machine)
    storages = text(node, "/etc/pve/storage.cfg")
    node.world.put("/etc/pve/storage.cfg", f"{storages}\nlvm: slow\n\tvgname data\n\tcontent images\n")
    (one,) = found(node, "storage.would-import", "sata")
    assert "the LVM volume group data" in one.message and "LVM activates" in one.message
    (asks,) = found(node, "storage.asks", "sata")
    assert asks.fix and asks.fix.commands == ("pvesm set slow --disable 1",)
    assert up(node, "sata") == Exit.FINE
    assert "claim 0000:00:17.0 " in text(node, CLAIM_SCRIPT)


# -- MSI-X ---------------------------------------------------------------------------------------


def test_a_table_that_qemu_refuses_is_told_before_and_moved_by_name(node: Simulated) -> None:
    (one,) = found(node, "devices.msix-layout", SSD)
    assert "0x2000-0x20ff" in one.message and one.fix and "--tweak msix-relocation" in one.fix.commands[0]
    assert up(node, SSD) != Exit.FINE
    assert "table & pba overlap" in node.run(("qm", "start", "100")).stdout
    assert node.run(("qm", "set", "100", "--args", "-device pvpanic")).ok
    assert up(node, SSD, "--tweak", "msix-relocation") == Exit.FINE
    assert "args: -device pvpanic -set device.hostpci0.x-msix-relocation=bar2\n" in text(node, CONFIG)
    assert not found(node, "devices.msix-layout", SSD)
    assert up(node, SSD, "--tweak", "msix-relocation") == Exit.FINE
    assert text(node, CONFIG).count("x-msix-relocation") == 1


BAD_TWEAKS = {
    (SSD, "msix-relocation=bar1"): (Exit.USAGE, "tweak.bar"),
    (SSD, "msix-relocation=auto"): (Exit.USAGE, "tweak.bar"),
    (NIC, "msix-relocation"): (Exit.REFUSED, "tweak.no-use"),
    (SSD, "msix-relocate"): (Exit.USAGE, "tweak.unknown"),
}


def test_bad_tweaks_change_nothing(node: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    before = on_disk(node)
    for (device, tweak), (code, ref) in BAD_TWEAKS.items():
        assert up(node, device, "--tweak", tweak) == code
        assert ref in capsys.readouterr().err
    assert on_disk(node) == before
    # Whoever knows better names the BAR.
    assert up(node, NIC, "--tweak", "msix-relocation=bar2") == Exit.FINE
    assert "args: -set device.hostpci0.x-msix-relocation=bar2\n" in text(node, CONFIG)


# -- what the kernel refuses ---------------------------------------------------------------------


def test_memory_that_the_firmware_shares_is_told_before_any_start(
    node: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    assert up(node, SHARED) == Exit.BLOCKED
    assert "platform.reserved-region" in capsys.readouterr().err
    assert node.run(("qm", "set", "100", "--hostpci0", SHARED)).ok
    assert "Failed to set iommu for container" in node.run(("qm", "start", "100")).stdout


def test_relaxed_regions_do_not_block(node: Simulated) -> None:
    grub = text(node, "/etc/default/grub").replace('"quiet"', '"quiet intel_iommu=on,relax_rmrr"')
    node.world.put("/etc/default/grub", grub)
    assert node.run(("update-grub",)).ok and node.run(("reboot",)).ok
    assert not found(node, "platform.reserved-region", SHARED)
    assert up(node, SHARED) == Exit.FINE


def test_the_denylist_holds_until_it_is_switched_off(node: Simulated) -> None:
    assert found(node, "devices.denylist", QAT)[0].level.value == "harms"
    assert up(node, QAT) != Exit.FINE
    assert "Cannot bind" in str(node.run(("qm", "start", "100")))
    assert up(node, QAT, "--tweak", "disable-denylist") == Exit.FINE
    assert "options vfio-pci disable_denylist=1" in text(node, MODPROBE)
    assert not found(node, "devices.denylist", QAT)


# -- advice --------------------------------------------------------------------------------------


def test_virtio_is_named_where_it_serves_and_only_there(node: Simulated) -> None:
    for word, words in ((NIC, "virtio network card"), (SSD, "virtio-scsi"), ("0000:07:00.0", "audio0")):
        (one,) = found(node, "devices.virtio-serves", word)
        assert words in one.message and one.level.value == "note"
    for word in ("hba", "0000:08:00.0", QAT):
        assert not found(node, "devices.virtio-serves", word)


def test_names_that_the_configuration_still_says(node: Simulated) -> None:
    assert not found(node, "nics.name-in-config", NIC)  # `iface enp5s0 inet manual` does nothing
    more = "auto vmbr1\niface vmbr1 inet manual\n\tbridge-ports enp5s0\n# enp5s0 again\n"
    node.world.put("/etc/network/interfaces.d/guests", more)
    (one,) = found(node, "nics.name-in-config", NIC)
    assert one.evidence == ("/etc/network/interfaces.d/guests:3: bridge-ports enp5s0",)
