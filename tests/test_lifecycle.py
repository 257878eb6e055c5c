"""The verb `lifecycle`, as a person uses it; the guard of starts beyond an ordinary one; what a clone is left with."""

from __future__ import annotations

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import capture
from pve_passthrough.app import look, open_host
from pve_passthrough.errors import Exit
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import Ran
from pve_passthrough.host.replay import Recorder, Replay
from pve_passthrough.host.simulated import Simulated
from tests.copies import copy_of

CONF = "/etc/pve/nodes/pve/qemu-server/{}.conf"
HOOK = "/var/lib/vz/snippets/pve-passthrough-hook-{}"


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    """A guest with a card that somebody gave it by hand."""
    return copy_of("default", tmp_path / "host", _by_hand)


@pytest.fixture
def guarded(tmp_path: Path) -> Simulated:
    """The same card, given by a run of ours."""
    return copy_of("default", tmp_path / "host", _by_us)


def _by_hand(host: Simulated) -> None:
    assert host.run(("qm", "set", "100", "--hostpci0", "0000:01:00,pcie=1", "--machine", "q35")).ok


def _by_us(host: Simulated) -> None:
    assert run(["--host", host.name, "apply", "01:00.0", "--vm", "100", "--yes"]) in (Exit.FINE, Exit.REBOOT)


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, *words])


def told(host: Simulated, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    assert says(host, "lifecycle", "--vm", "100", "--output-format", "json", *words) == Exit.FINE
    found: dict[str, Any] = json.loads(capsys.readouterr().out)
    return found


def option(host: Simulated, vmid: int, key: str) -> str:
    lines = (host.world.text(CONF.format(vmid)) or "").splitlines()
    return next((line.partition(": ")[2] for line in lines if line.startswith(f"{key}:")), "")


def put(host: Simulated, path: str, text: str) -> None:
    """Replaced, never written into: its template shares the file."""
    host.write(path, text.encode())


def start(host: Simulated, vmid: int = 100) -> Ran:
    """As somebody who presses Start, on a machine that has this program."""
    return open_host(host.name).run(("qm", "start", str(vmid)))


# -- the table -------------------------------------------------------------------------------


def test_the_table_as_data(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    put(host, "/etc/pve/jobs.cfg", "vzdump: nightly\n\tschedule 21:00\n\tmode stop\n\tall 1\n")
    found = told(host, capsys)
    assert (found["format"], found["vmid"], found["versions"]["qemu_server"]) == (1, 100, "9.2.6")
    operations = {one["operation"]: one for one in found["operations"]}
    assert {name: one["works"] for name, one in operations.items()} == {
        "backup": "partly",
        "snapshot": "yes",
        "memory-snapshot": "no",
        "rollback": "none",
        "pause": "yes",
        "hibernate": "no",
        "replication": "none",
        "offline-migration": "none",
        "live-migration": "none",
        "ha": "none",
        "host-shutdown": "yes",
        "clone": "partly",
    }
    assert all(one["source"] and one["why"] for one in operations.values())
    assert operations["backup"]["set"][0]["command"] == "pvesh set /cluster/backup/nightly --mode snapshot"
    assert "guests.backup" in {one["rule"] for one in found["findings"]}


def test_the_table_for_people(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(host, "lifecycle", "--vm", "100") == Exit.FINE
    out = capsys.readouterr().out
    assert "workstation (100) on pve, stopped, Proxmox VE 9.2.11" in out
    assert "snapshot with memory" in out and "QEMU cannot read the state of hostpci0." in out


def test_a_running_guest_in_mode_snapshot_is_left_alone(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    put(host, "/etc/pve/jobs.cfg", "vzdump: nightly\n\tschedule 21:00\n\tvmid 100\n")
    assert start(host).ok
    found = {one["operation"]: one for one in told(host, capsys)["operations"]}
    assert (found["backup"]["works"], found["backup"]["set"]) == ("yes", [])
    assert "nothing else is said" in found["backup"]["evidence"][0]


def test_a_guest_without_devices_and_no_guest(
    host: Simulated, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert host.run(("qm", "set", "100", "--delete", "hostpci0")).ok
    assert told(host, capsys)["operations"] == []
    assert says(host, "lifecycle", "--vm", "100") == Exit.FINE
    assert "no device of its host" in capsys.readouterr().out
    assert says(host, "lifecycle", "--vm", "999") == Exit.USAGE
    empty = tmp_path / "empty"
    empty.mkdir()
    assert run(["--host", f"root:{empty}", "lifecycle", "--vm", "100"]) == Exit.COULD_NOT
    assert says(host, "lifecycle", "--vm", "100", "--yes") == Exit.USAGE


def test_what_the_simulated_hibernate_says_is_what_the_table_says(host: Simulated) -> None:
    assert start(host).ok
    ran = host.run(("qm", "suspend", "100", "--todisk", "1"))
    assert ran.rc == 255 and "passed-through PCI device" in ran.stderr


# -- settings --------------------------------------------------------------------------------


def test_a_guard_for_what_was_given_by_hand(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--plan") == Exit.PENDING
    assert option(host, 100, "hookscript") == ""
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.FINE
    assert option(host, 100, "hookscript") == "local:snippets/pve-passthrough-hook-100"
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.FINE
    assert run(["sim", "move", host.name.removeprefix("sim:"), "01:00", "07:00"]) == 0
    ran = start(host, 100)
    assert ran.rc == 255 and "it was at 0000:01:00.0 and is at 0000:07:00.0 now" in ran.stdout + ran.stderr
    assert says(host, "undo", "--yes") == Exit.UNDONE
    assert option(host, 100, "hookscript") == "" and host.world.text(HOOK.format(100)) is None


def test_a_hookscript_that_is_gone_is_seen_and_written_again(
    guarded: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    guarded.write(HOOK.format(100), None)
    ran = start(guarded, 100)
    assert ran.rc == 255 and "does not exist" in ran.stderr
    rules = {one["rule"]: one for one in told(guarded, capsys)["findings"]}
    assert rules["lifecycle.hook-missing"]["level"] == "harms"
    command = rules["lifecycle.hook-missing"]["fix"]["commands"][0]
    assert says(guarded, *command.split()[1:], "--yes") == Exit.FINE
    assert start(guarded).ok


def test_start_order_and_start_at_boot(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(host, "lifecycle", "--vm", "100", "--startup", "soon", "--yes") == Exit.USAGE
    assert says(host, "lifecycle", "--vm", "100", "--startup", "order=2,order=3", "--yes") == Exit.USAGE
    assert says(host, "lifecycle", "--vm", "100", "--startup", "order=2,up=30", "--yes") == Exit.FINE
    assert option(host, 100, "startup") == "order=2,up=30"
    capsys.readouterr()
    assert says(host, "lifecycle", "--vm", "100", "--onboot", "--yes") == Exit.REFUSED
    assert "lifecycle.not-seen-to-work" in capsys.readouterr().err
    assert option(host, 100, "onboot") == ""
    assert start(host).ok
    assert says(host, "lifecycle", "--vm", "100", "--onboot", "--yes") == Exit.FINE
    assert option(host, 100, "onboot") == "1"
    assert says(host, "lifecycle", "--vm", "100", "--no-onboot", "--yes") == Exit.FINE
    assert option(host, 100, "onboot") == "0"
    for _ in range(3):
        assert says(host, "undo", "--yes") == Exit.UNDONE
    assert (option(host, 100, "onboot"), option(host, 100, "startup")) == ("", "")


def test_no_guard_without_a_storage_for_snippets(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    text = (host.world.text("/etc/pve/storage.cfg") or "").replace(",snippets", "")
    put(host, "/etc/pve/storage.cfg", text)
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.REFUSED
    said = capsys.readouterr().err
    assert "no storage on this machine's own disks takes snippets" in " ".join(said.split())
    assert "pvesm set local --content" in said
    assert option(host, 100, "hookscript") == ""


def test_no_guard_where_ha_may_take_the_guest_away_and_how_to_keep_it(
    host: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    host.make_dir("/etc/pve/nodes/pve2")
    host.make_dir("/etc/pve/nodes/pve2/qemu-server")
    assert host.run(("ha-manager", "add", "vm:100", "--state", "stopped")).ok
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.REFUSED
    said = capsys.readouterr().err
    assert "ha-manager set vm:100 --state ignored" in said
    assert host.run(("ha-manager", "set", "vm:100", "--state", "ignored")).ok
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.FINE


def test_no_guard_for_a_guest_that_takes_what_the_host_lives_on(
    host: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    machine = host.world.machine()
    machine["groups"] |= dict.fromkeys(machine["groups"], 1)
    host.world.save_machine(machine)
    assert host.run(("systemctl", "reboot")).ok
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.REFUSED
    assert option(host, 100, "hookscript") == ""


def test_a_usb_stick_alone_is_guarded_too(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert host.run(("qm", "set", "100", "--delete", "hostpci0")).ok
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.USAGE
    assert host.run(("qm", "set", "100", "--usb0", "host=1-9")).ok
    assert says(host, "lifecycle", "--vm", "100", "--guard", "--yes") == Exit.FINE
    assert start(host).ok


# -- clones ----------------------------------------------------------------------------------


def test_a_clone_borrows_the_guard_and_is_named_before_the_original_is_taken_back(
    guarded: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    text = (guarded.world.text(CONF.format(100)) or "").replace("name: workstation", "name: copy")
    put(guarded, CONF.format(101), text)
    capsys.readouterr()
    assert says(guarded, "check", "--vm", "101") in (Exit.FINE, Exit.PENDING, Exit.BLOCKED)
    assert "copy (101) uses the guard of guest 100" in " ".join(capsys.readouterr().out.split())
    assert says(guarded, "undo", "--yes") in (Exit.UNDONE, Exit.REBOOT)
    said = capsys.readouterr().err
    assert "copy (101) names the hookscript that goes, and will not start without it." in said
    assert "pve-passthrough lifecycle --vm 101 --guard" in said
    ran = start(guarded, 101)
    assert ran.rc == 255 and "does not exist" in ran.stderr
    assert says(guarded, "lifecycle", "--vm", "101", "--guard", "--yes") == Exit.FINE
    assert option(guarded, 101, "hookscript") == "local:snippets/pve-passthrough-hook-101"


# -- captures --------------------------------------------------------------------------------


def test_a_capture_keeps_what_is_arranged_and_no_words_of_people(host: Simulated) -> None:
    put(host, "/etc/pve/jobs.cfg", "vzdump: alices-job\n\tschedule 21:00\n\tmailto alice@example.org\n\tall 1\n")
    put(host, "/etc/pve/datacenter.cfg", "http_proxy: http://alice:letmein@10.1.2.3\nha: shutdown_policy=migrate\n")
    put(host, "/etc/vzdump.conf", "mode: stop\nmailto: alice@example.org\n")
    put(host, "/etc/pve/replication.cfg", "local: 100-0\n\ttarget pve\n\tcomment alices copy\n")
    assert host.run(("ha-manager", "add", "vm:100")).ok
    recorder = Recorder(host)
    true = look(recorder, deep=True)
    packed = capture.pack(recorder.answers)
    told = look(Replay(capture.unpack(packed, "f"), host.name), deep=True)
    text = json.dumps(gzip.decompress(packed).decode("utf-8", "replace"))
    assert not [word for word in ("alice", "letmein", "10.1.2.3") if word in text]
    (job,) = told.lifecycle.jobs or ()
    assert (job.mode, job.everything, job.schedule) == ("stop", True, "21:00")
    assert replace(told.lifecycle, jobs=()) == replace(true.lifecycle, jobs=())
    assert told.lifecycle.shutdown_policy == "migrate" and told.lifecycle.replications
