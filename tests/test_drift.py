"""Drift through the command line: a card moves, the start is stopped with both places, and reassign mends it."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pve_passthrough.app import hooks
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import HostError
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.host.simulated.seeds import SEEDS
from pve_passthrough.host.simulated.spec import MachineSpec, PciSpec
from pve_passthrough.model.hookscript import Hook, parse, render

CONF = "/etc/pve/nodes/pve/qemu-server/100.conf"
HOOK = "/var/lib/vz/snippets/pve-passthrough-hook-100"
SERIALS = {"0000:01:00.0": "04-42-1a-ff-ff-00-00-01", "0000:04:00.0": "04-42-1a-ff-ff-00-00-02"}


class Machine:
    def __init__(self, folder: Path, spec: MachineSpec) -> None:
        self.folder = folder
        create(str(folder), spec)
        self.host = Simulated(str(folder))

    def says(self, *words: str) -> int:
        return run(["--host", f"sim:{self.folder}", *words])

    def inside(self, *words: str) -> int:
        return run(["sim", "exec", str(self.folder), "--", *words])

    def move(self, old: str, new: str) -> None:
        assert run(["sim", "move", str(self.folder), old, new]) == 0

    def text(self, path: str) -> str:
        return self.host.world.text(path) or ""

    def option(self, key: str) -> str:
        found = [line.partition(": ")[2] for line in self.text(CONF).splitlines() if line.startswith(f"{key}:")]
        return found[0] if found else ""

    def regroup(self, address: str, group: int) -> None:
        machine = self.host.world.machine()
        machine["groups"][address] = group
        self.host.world.save_machine(machine)
        assert self.inside("systemctl", "reboot") == 0


@pytest.fixture
def machine(tmp_path: Path) -> Callable[[str], Machine]:
    return lambda seed: Machine(tmp_path / "host", SEEDS[seed])


def given(machine: Machine, device: str = "01:00.0", vmid: str = "100") -> Machine:
    assert machine.says("apply", device, "--vm", vmid, "--yes") in (Exit.FINE, Exit.REBOOT)
    return machine


def test_a_moved_card_stops_the_start_and_reassign_brings_it_back(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = given(machine("default"))
    before = host.text(CONF)
    host.move("01:00", "07:00")
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 255
    said = capfd.readouterr()
    assert "workstation (100) was not started" in said.out
    assert "it was at 0000:01:00.0 and is at 0000:07:00.0 now" in said.out
    assert "pve-passthrough reassign --vm 100" in said.out
    assert "hookscript error for 100 on pre-start" in said.err
    assert host.says("check", "--vm", "100", "--output-format", "json") == Exit.BLOCKED
    rules = {one["rule"]: one for one in json.loads(capfd.readouterr().out)["findings"]}
    assert rules["drift.moved"]["level"] == "blocks" and "guests.hostpci" not in rules
    assert host.says("plan", "07:00.0", "--vm", "100") == Exit.BLOCKED, "not a second entry beside the stale one"
    assert host.says("verify", "--vm", "100") == Exit.REFUSED
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE
    assert host.option("hostpci0") == "0000:07:00,pcie=1"
    assert host.inside("qm", "start", "100") == 0
    assert host.host.world.driver_of("0000:07:00.0") == "vfio-pci"
    assert host.inside("qm", "stop", "100") == 0
    capfd.readouterr()
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE
    assert "Every device is where it was given" in capfd.readouterr().err
    assert host.says("undo", "--yes") == Exit.UNDONE
    assert host.text(CONF) == before


def test_a_disk_that_got_the_cards_address_is_not_given_away(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    """The buses of the card and of the root disk exchange their numbers: the entry now names the root disk."""
    host = given(machine("default"))
    host.move("01:00", "02:00")
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 255
    said = capfd.readouterr().out
    assert "was at 0000:01:00.0 and is at 0000:02:00.0 now" in said and "now holds Samsung" in said
    assert host.host.world.driver_of("0000:01:00.0") == "nvme"
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE, "the disk's hazard is not the card's"
    assert host.option("hostpci0") == "0000:02:00,pcie=1"
    assert host.inside("qm", "start", "100") == 0
    assert host.host.world.driver_of("0000:01:00.0") == "nvme"


def test_a_guest_that_starts_at_boot_is_stopped_there(machine: Callable[[str], Machine]) -> None:
    host = given(machine("default"))
    assert host.inside("qm", "set", "100", "--onboot", "1") == 0
    assert host.inside("systemctl", "reboot") == 0
    assert host.host.world.exists("/run/qemu-server/100.pid")
    host.move("01:00", "07:00")
    assert not host.host.world.exists("/run/qemu-server/100.pid")


def test_twins_whose_buses_exchange_numbers_are_told_apart(machine: Callable[[str], Machine]) -> None:
    """Same IDs, no serial numbers: both addresses are taken as before, by the other card each."""
    host = given(machine("twins"))
    claims = "/etc/initramfs-tools/scripts/init-top/pve-passthrough"
    host.host.world.put(claims, None)
    host.move("01:00", "04:00")
    assert host.inside("qm", "start", "100") == 255
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE
    assert host.option("hostpci0") == "0000:04:00,pcie=1"
    assert host.inside("qm", "start", "100") == 0
    assert host.host.world.driver_of("0000:01:00.0") == "nouveau"


def removed(host: Machine, slot: str) -> None:
    """The card is taken out while the machine is off."""
    world = host.host.world
    machine = world.machine()
    for address in [one for one in world.addresses() if one.startswith(slot)]:
        home = world.tree.real(world.device_directory(address))
        world.place(address, None)
        world.put_link(f"/sys/bus/pci/devices/{address}", None)
        Path(home).rename(host.folder / f"removed-{address}")
        for part in ("natural", "groups", "classes"):
            machine[part].pop(address, None)
    world.save_machine(machine)
    world.forget_places()
    assert host.inside("systemctl", "reboot") == 0


def test_a_missing_card_is_not_replaced_by_its_twin(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = given(machine("twins"))
    removed(host, "0000:01:00")
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 255
    assert "given to guest 100, are not on this machine" in capfd.readouterr().out
    assert host.says("check", "--vm", "100", "--output-format", "json") == Exit.BLOCKED
    assert "drift.gone" in {one["rule"] for one in json.loads(capfd.readouterr().out)["findings"]}
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.BLOCKED
    assert "of the same kind: NVIDIA" in capfd.readouterr().err
    assert host.option("hostpci0") == "0000:01:00,pcie=1"
    # … unless a person says that it is to be the one
    assert host.says("reassign", "01:00=04:00.0", "--vm", "100", "--yes") == Exit.FINE
    assert host.option("hostpci0") == "0000:04:00,pcie=1"


def with_serials(spec: MachineSpec) -> MachineSpec:
    def serial(device: PciSpec) -> PciSpec:
        return replace(device, serial=SERIALS.get(device.address, ""))

    return replace(spec, devices=tuple(map(serial, spec.devices)))


def test_a_serial_number_finds_the_card_that_took_its_twins_slot(tmp_path: Path) -> None:
    """Two cards change slots: no address changes, and only the serial numbers tell."""
    host = given(Machine(tmp_path / "host", with_serials(SEEDS["twins"])))
    world = host.host.world
    spaces = {address: world.tree.read(f"/sys/bus/pci/devices/{address}/config") for address in SERIALS}
    for address, other in zip(SERIALS, reversed(SERIALS), strict=True):
        Path(world.tree.real(f"/sys/bus/pci/devices/{address}/config")).write_bytes(spaces[other])
    assert host.inside("systemctl", "reboot") == 0
    assert host.inside("qm", "start", "100") == 255
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE
    assert host.option("hostpci0") == "0000:04:00,pcie=1"


def test_a_group_with_a_newcomer_stops_the_start_until_it_is_judged(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = given(machine("default"))
    host.regroup("0000:00:1f.3", 1)
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 255
    assert "would leave the host with it when guest 100 starts" in capfd.readouterr().out
    assert host.host.world.driver_of("0000:00:1f.3") == "snd_hda_intel"
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.REFUSED, "the newcomer is a hazard like any other"
    assert host.says("reassign", "--vm", "100", "--accept", "shared-group", "--yes") == Exit.FINE
    assert "remembered as they are now" in capfd.readouterr().err
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE, "what was accepted is not asked again"
    assert "Every device is where it was given" in capfd.readouterr().err
    assert host.inside("qm", "start", "100") == 0


def test_a_group_with_the_root_disk_is_never_remembered(machine: Callable[[str], Machine]) -> None:
    host = given(machine("default"))
    host.regroup("0000:02:00.0", 1)
    assert host.inside("qm", "start", "100") == 255
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.REFUSED
    assert host.inside("qm", "start", "100") == 255


def test_a_garbled_record_stops_nobody_and_is_said(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = given(machine("default"))
    (run_id,) = host.host.names("/var/lib/pve-passthrough/runs")
    host.host.world.put(f"/var/lib/pve-passthrough/runs/{run_id}/plan.json", '{"plan": {"vmid": [], "identities": 3}}')
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 0
    assert host.says("check", "--vm", "100", "--output-format", "json") in (Exit.FINE, Exit.PENDING, Exit.COULD_NOT)
    checked = json.loads(capfd.readouterr().out)
    assert any(gap["about"] == "assignments" for gap in checked["gaps"])
    assert "drift.remembered" in {one["rule"] for one in checked["findings"]}
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.USAGE


def test_an_entry_made_by_hand_is_said_to_be_unknown_and_up_remembers_it(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    assert host.inside("qm", "set", "100", "--machine", "q35", "--hostpci0", "0000:01:00,pcie=1", "--cpu", "host") == 0
    capfd.readouterr()
    host.says("check", "--vm", "100", "--output-format", "json")
    rules = {one["rule"] for one in json.loads(capfd.readouterr().out)["findings"]}
    assert "drift.remembered" in rules
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.USAGE
    assert "Entries made by hand name a place" in capfd.readouterr().err
    given(host)
    host.move("01:00", "07:00")
    assert host.inside("qm", "start", "100") == 255


# -- the hookscript in its place -----------------------------------------------------------------


def test_a_hookscript_that_was_there_is_kept_and_comes_back_to_the_byte(machine: Callable[[str], Machine]) -> None:
    host = machine("default")
    host.host.world.put("/var/lib/vz/snippets/mine.sh", "#!/bin/sh\n", 0o755)
    assert host.inside("qm", "set", "100", "--hookscript", "local:snippets/mine.sh") == 0
    before = host.text(CONF)
    given(host)
    assert host.option("hookscript") == "local:snippets/pve-passthrough-hook-100"
    found = parse(host.text(HOOK))
    assert found is not None and found.other == "local:snippets/mine.sh"
    assert Path(host.host.world.tree.real(HOOK)).stat().st_mode & 0o111
    assert host.inside("qm", "start", "100") == 0 and host.inside("qm", "stop", "100") == 0
    host.host.world.put("/var/lib/vz/snippets/mine.sh", None)
    assert host.inside("qm", "start", "100") == 255, "as it would be without us"
    host.host.world.put("/var/lib/vz/snippets/mine.sh", "#!/bin/sh\n", 0o755)
    assert host.says("undo", "--yes") == Exit.UNDONE
    assert host.text(CONF) == before and not host.host.world.exists(HOOK)


def test_without_a_storage_for_snippets_the_plan_goes_on_and_says_how(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = machine("default")
    storage = host.text("/etc/pve/storage.cfg").replace(",snippets", "")
    host.host.world.put("/etc/pve/storage.cfg", storage)
    assert host.says("plan", "gpu", "--vm", "100", "--output-format", "json") == Exit.PENDING
    planned = json.loads(capfd.readouterr().out)
    assert "vm:100/hookscript" not in {one["cell"] for one in planned["changes"]}
    (note,) = [one for one in planned["risks"] if one["rule"] == "plan.no-guard"]
    assert note["fix"]["commands"] == ["pvesm set local --content backup,iso,snippets,vztmpl"]
    given(host)
    host.move("01:00", "07:00")
    assert host.says("verify", "--vm", "100") == Exit.REFUSED, "our own start is guarded all the same"


def test_two_guests_are_taken_back_independently(machine: Callable[[str], Machine]) -> None:
    host = machine("twins")
    host.host.world.put(CONF.replace("100", "101"), host.text(CONF).replace("vm-100", "vm-101"))
    given(host, "01:00.0", "100")
    first = host.host.names("/var/lib/pve-passthrough/runs")[0]
    given(host, "04:00.0", "101")
    assert host.says("undo", first, "--yes") == Exit.UNDONE
    assert host.inside("qm", "start", "101") == 0
    host.move("04:00", "07:00")
    assert host.inside("qm", "start", "101") == 255


def test_the_hook_lets_everything_else_go_on(machine: Callable[[str], Machine]) -> None:
    host = given(machine("default"))
    for words in (("100", "pre-stop"), ("100", "no-such-phase"), ("999", "pre-start")):
        assert host.says("hook", *words) == Exit.FINE
    assert host.says("hook", "100", "pre-start") == Exit.FINE
    host.move("01:00", "07:00")
    assert host.says("hook", "100", "pre-start") == Exit.REFUSED


def test_a_mapping_follows_its_card(machine: Callable[[str], Machine]) -> None:
    """Proxmox VE itself refuses a mapping whose path is wrong; after `reassign` it accepts it again."""
    host = machine("default")
    line = "node=pve,path=0000:01:00,id=10de:2684,subsystem-id=1043:889a,iommugroup=1"
    assert host.inside("pvesh", "create", "/cluster/mapping/pci", "--id", "card", "--map", line) == 0
    given(host, "card")
    assert "mapping=card" in host.option("hostpci0")
    assert host.inside("qm", "start", "100") == 0 and host.inside("qm", "stop", "100") == 0
    host.move("01:00", "07:00")
    assert host.inside("qm", "start", "100") == 255
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.FINE
    assert "path=0000:07:00" in host.text("/etc/pve/mapping/pci.cfg")
    assert host.inside("qm", "start", "100") == 0 and host.inside("qm", "stop", "100") == 0
    assert host.says("undo", "--yes") == Exit.UNDONE
    assert "path=0000:01:00" in host.text("/etc/pve/mapping/pci.cfg")


def test_a_new_card_in_the_old_slot_is_given_like_any_other(
    machine: Callable[[str], Machine], capfd: pytest.CaptureFixture[str]
) -> None:
    host = given(machine("default"))
    for name, text in (("device", "0x1234\n"), ("subsystem_device", "0x0001\n")):
        host.host.world.put(f"/sys/bus/pci/devices/0000:01:00.0/{name}", text)
    assert host.inside("systemctl", "reboot") == 0
    capfd.readouterr()
    assert host.inside("qm", "start", "100") == 255
    said = capfd.readouterr().out
    assert "0000:01:00.0 holds another device now" in said
    assert "qm set 100 --delete hostpci0 pve-passthrough up 0000:01:00.0 --vm 100" in said
    assert host.says("reassign", "--vm", "100", "--yes") == Exit.BLOCKED
    assert host.inside("qm", "set", "100", "--delete", "hostpci0") == 0
    given(host, "gpu:2")  # named in another way, as runs of one second have the names of their goals
    assert host.inside("qm", "start", "100") == 0


# -- the steps of a hook -------------------------------------------------------------------------


def boom(host: object, vmid: int) -> tuple[str, ...]:
    raise RuntimeError("a defect of ours")


def unanswered(host: object, vmid: int) -> tuple[str, ...]:
    raise HostError("/sys/x", "permission denied")


def failing(host: object, vmid: int) -> tuple[str, ...]:
    raise Failure("x.y", "Something of ours did not work.")


def refusing(host: object, vmid: int) -> tuple[str, ...]:
    raise Failure("x.y", "The card is another one.", "line", hint="do this", code=Exit.REFUSED)


def speaking(host: object, vmid: int) -> tuple[str, ...]:
    return (f"about {vmid}",)


@pytest.mark.parametrize("step", [boom, unanswered, failing])
def test_our_own_failures_are_said_and_stop_nobody(step: hooks.Step, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.PHASES, "pre-start", (step, speaking))
    said: list[str] = []
    host = Replay(Answers(), "capture:empty")
    assert hooks.call(host, 100, "pre-start", said.append) == Exit.FINE
    assert "goes on without it" in said[0] and said[1:] == ["about 100"]


def test_a_refusal_ends_the_phase_with_its_reason_and_the_way_out(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(hooks.PHASES, "pre-start", (speaking, refusing, boom))
    said: list[str] = []
    assert hooks.call(Replay(Answers(), "capture:empty"), 100, "pre-start", said.append) == Exit.REFUSED
    assert said == ["about 100", "x.y: The card is another one.", "  line", "→ do this"]


def test_a_host_that_answers_nothing_stops_no_guest() -> None:
    said: list[str] = []
    assert hooks.call(Replay(Answers(), "capture:empty"), 100, "pre-start", said.append) == Exit.FINE


def test_the_real_script_with_the_real_program(machine: Callable[[str], Machine], tmp_path: Path) -> None:
    """Started by a shell as Proxmox VE would; a launcher of the test's own says which host is meant."""
    host = given(machine("default"))
    launcher, script = tmp_path / "launcher", tmp_path / "script"
    launcher.write_text(f'#!/bin/sh\nexec {sys.executable} {sys.argv[0]} --host "sim:{host.folder}" "$@"\n')
    script.write_text(render(Hook(str(launcher))))
    for file in (launcher, script):
        file.chmod(0o755)

    def started() -> tuple[int, str]:
        words = (str(script), "100", "pre-start")
        ran = subprocess.run(words, capture_output=True, text=True, check=False, timeout=60, stdin=subprocess.DEVNULL)
        return ran.returncode, ran.stdout + ran.stderr

    assert started() == (0, "")
    host.move("01:00", "07:00")
    code, said = started()
    assert code == 1 and "it was at 0000:01:00.0 and is at 0000:07:00.0 now" in said
