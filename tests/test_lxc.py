"""The verb `lxc`, as a person uses it: list, give, prove, take; and all that it must refuse."""

from __future__ import annotations

import itertools
import json
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import containers
from pve_passthrough.capture import unpack
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.guest import Outcome
from pve_passthrough.host.base import Ran, Unreadable
from pve_passthrough.host.replay import Replay
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.planning.containers import How
from tests.copies import copy_of

CARD = "0000:15:00.0"
RENDER = "/dev/dri/renderD128"
SERIAL = "/dev/serial/by-id/usb-Silicon_Labs_Sonoff_Zigbee_3_0_USB_Dongle_Plus-if00-port0"
_RUNS = itertools.count()
CONF = "/etc/pve/nodes/pve/lxc/200.conf"


@pytest.fixture
def apu(tmp_path: Path) -> Simulated:
    return copy_of("containers", tmp_path / "host")


@pytest.fixture
def nvidia(tmp_path: Path) -> Simulated:
    return copy_of("containers-nvidia", tmp_path / "host")


@pytest.fixture(scope="module")
def untouched(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """For tests that change nothing."""
    return copy_of("containers", tmp_path_factory.mktemp("untouched") / "host")


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, "lxc", *words])


def give(host: Simulated, *words: str, ct: int = 200, **how: Any) -> None:
    made = containers.plan_add(host, words, ct, How(**how))
    assert app.apply(host, replace(made, id=f"{made.id}-{next(_RUNS)}")).ended


def refused(host: Simulated, *words: str, ct: int = 200, **how: Any) -> Failure:
    before = host.world.text(CONF)
    with pytest.raises(Failure) as caught:
        containers.plan_add(host, words, ct, How(**how))
    assert host.world.text(CONF) == before and caught.value.problem.message.startswith("Nothing was ")
    return caught.value


def entries(host: Simulated, number: int = 200) -> list[str]:
    text = host.world.text(f"/etc/pve/nodes/pve/lxc/{number}.conf") or ""
    return [line for line in text.split("\n[")[0].splitlines() if line.startswith("dev")]


def hand_to_vfio(host: Simulated) -> None:
    assert host.run(("modprobe", "vfio-pci")).ok
    host.write("/sys/bus/pci/drivers/amdgpu/unbind", CARD.encode())
    host.write(f"/sys/bus/pci/devices/{CARD}/driver_override", b"vfio-pci\n")
    host.write("/sys/bus/pci/drivers_probe", CARD.encode())


# -- list ----------------------------------------------------------------------------------------


def test_list_says_what_is_behind_each_node_and_who_has_it(apu: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    give(apu, "gpu")
    capsys.readouterr()
    assert says(apu, "list", "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    nodes = {one["path"]: one for one in told["nodes"]}
    assert nodes[RENDER]["address"] == CARD and nodes[RENDER]["driver"] == "amdgpu"
    assert nodes[RENDER]["number"] == "226:128" and nodes[RENDER]["mode"] == "0660"
    assert [(one["ct"], one["raw"]) for one in nodes[RENDER]["containers"]] == [(200, False), (201, True)]
    assert nodes["/dev/ttyUSB0"]["usb_port"] == "1-3" and nodes["/dev/ttyUSB0"]["links"] == [SERIAL]
    assert nodes["/dev/kfd"]["address"] is None
    assert told["absent"] == []
    assert says(apu, "list") == Exit.FINE
    out = capsys.readouterr().out
    assert "jellyfin (200, runs): dev0" in out and "frigate (201, stopped)" in out


def test_list_names_entries_that_keep_a_container_from_starting(apu: Simulated) -> None:
    give(apu, "gpu", "kfd")
    hand_to_vfio(apu)
    found = containers.listed(apu)
    assert [entry.path for _, entry in found.absent] == [RENDER, "/dev/kfd"]
    assert [one.node.path for one in found.nodes] == ["/dev/ttyUSB0"]
    assert "does not exist" in apu.run(("pct", "reboot", "200")).stderr


def test_a_capture_lists_the_same(apu: Simulated) -> None:
    give(apu, "gpu")
    replay = Replay(unpack(app.capture(apu, redacted=False), "it"), "capture:it")
    live, old = app.look(apu, deep=True), app.look(replay, deep=True)
    assert old.dev_nodes == live.dev_nodes and old.own_containers == live.own_containers
    assert old.given_nodes == live.given_nodes != ()


def test_a_glance_does_not_look_into_containers(untouched: Simulated) -> None:
    facts = app.look(untouched)
    assert facts.own_containers is None and facts.dev_nodes is None and facts.containers == {200: "pve", 201: "pve"}


# -- add -----------------------------------------------------------------------------------------


def test_the_group_is_the_containers_own(apu: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    """The host's render is 993, this container's 106."""
    assert says(apu, "add", "gpu", "kfd", "--ct", "200", "--plan") == Exit.PENDING
    assert entries(apu) == []
    assert says(apu, "add", "gpu", "kfd", "usb:1-3", "--ct", "200", "--yes") == Exit.FINE
    assert entries(apu) == [
        f"dev0: {RENDER},gid=106,mode=0660", "dev1: /dev/kfd,gid=106,mode=0660", f"dev2: {SERIAL},gid=20,mode=0660"
    ]  # fmt: skip
    assert says(apu, "add", "gpu", "--ct", "200", "--yes") == Exit.FINE
    assert len(entries(apu)) == 3 and "Nothing has to be changed" in capsys.readouterr().err


def test_undo_takes_it_back_to_the_byte(apu: Simulated) -> None:
    assert apu.run(("pct", "stop", "200")).ok
    before = apu.world.text(CONF)
    give(apu, "gpu", gid=106)
    assert apu.world.text(CONF) != before
    app.undo(apu)
    assert apu.world.text(CONF) == before


@pytest.mark.parametrize(
    ("how", "tail"),
    [
        ({"group": "video"}, "gid=44,mode=0660"),
        ({"gid": 7, "mode": "0600"}, "gid=7,mode=0600"),
        ({"uid": 103}, "mode=0660,uid=103"),
        ({"mode": "0666"}, "mode=0666"),
        ({"gid": 7, "deny_write": True}, "gid=7,mode=0660,deny-write=1"),
    ],
)
def test_what_was_asked_for_wins(untouched: Simulated, how: dict[str, Any], tail: str) -> None:
    (change,) = containers.plan_add(untouched, [RENDER], 200, How(**how)).changes
    assert change.after == f"{RENDER},{tail}"


def test_the_name_of_the_slot_is_what_the_container_sees(apu: Simulated) -> None:
    give(apu, "gpu", by_path=True)
    path = f"/dev/dri/by-path/pci-{CARD}-render"
    assert entries(apu) == [f"dev0: {path},gid=106,mode=0660"]
    assert [one.path for one in app.look(apu, deep=True).given_nodes] == [path]
    give(apu, "gpu")
    assert entries(apu) == [f"dev0: {path},gid=106,mode=0660"], "a running container's entry changes at its next start"
    assert "dev0: /dev/dri/renderD128" in (apu.world.text(CONF) or "")


def test_an_entry_that_is_there_is_changed_in_its_place(apu: Simulated) -> None:
    assert apu.run(("pct", "set", "200", "--dev7", f"{RENDER},gid=44")).ok
    (change,) = containers.plan_add(apu, ["gpu"], 200, How()).changes
    assert str(change.cell) == "ct:200/dev7" and change.before == f"{RENDER},gid=44"


def test_any_other_character_device_by_its_path(apu: Simulated) -> None:
    """Not one of the usual nodes: asked about by itself."""
    apu.world.put("/dev/net/tun", "")
    assert refused(apu, "/dev/net/tun").problem.ref == "lxc.no-node", "a plain file is no device"


def test_a_file_changed_meanwhile_is_not_overwritten(apu: Simulated) -> None:
    made = containers.plan_add(apu, ["gpu"], 200, How())
    assert apu.run(("pct", "set", "200", "--dev0", "/dev/kfd,gid=1")).ok
    with pytest.raises(Failure):
        app.apply(apu, made)
    assert entries(apu) == ["dev0: /dev/kfd,gid=1"]


def test_a_card_that_vanished_meanwhile_gives_nothing(apu: Simulated) -> None:
    made = containers.plan_add(apu, ["gpu"], 200, How())
    hand_to_vfio(apu)
    with pytest.raises(Failure):
        done = app.apply(apu, made)
        raise Failure("run", str(done.phase))
    assert entries(apu) == []


# -- refusals ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "ref"),
    [
        ("/etc/passwd", "lxc.bad-path"),
        ("/dev/../etc/passwd", "lxc.bad-path"),
        ("/dev/dri/./renderD128", "lxc.bad-path"),
        ("/dev/a,gid=0", "lxc.bad-path"),
        ("/dev/a\nlxc.x: y", "lxc.bad-path"),
        ("/dev/dri/renderD129", "lxc.no-node"),
        ("/dev/mem", "lxc.not-for-containers"),
        ("/dev/vfio/vfio", "lxc.not-for-containers"),
        ("/dev/bus/usb/001/002", "lxc.not-for-containers"),
        ("/dev/nvme0n1", "lxc.block-device"),
        ("nic", "lxc.no-node"),
        ("usb:1-2", "lxc.no-node"),
        ("usb:9-9", "device.unknown"),
        ("gpu:2", "device.unknown"),
        ("nvidia", "lxc.no-node"),
        ("0000:99:00.0", "device.unknown"),
    ],
)
def test_what_is_no_device_to_share(untouched: Simulated, word: str, ref: str) -> None:
    failure = refused(untouched, word)
    assert failure.problem.ref == ref and failure.problem.hint


def test_what_is_no_container_of_this_node(apu: Simulated) -> None:
    apu.world.put("/etc/pve/nodes/pve2/lxc/300.conf", "hostname: far\n")
    for number, ref in ((100, "lxc.is-vm"), (555, "lxc.missing"), (300, "lxc.other-node")):
        assert refused(apu, "gpu", ct=number).problem.ref == ref
        with pytest.raises(Failure) as caught:
            containers.check(apu, number)
        assert caught.value.problem.ref == ref


def test_a_container_that_may_not_be_changed(apu: Simulated) -> None:
    text = apu.world.text(CONF)
    for line, ref in (("lock: backup", "lxc.locked"), ("template: 1", "lxc.template")):
        apu.world.put(CONF, f"{text}{line}\n")
        assert refused(apu, "gpu").problem.ref == ref
        apu.world.put(CONF, f"{text}\n[before]\n{line}\n")
        assert containers.plan_add(apu, ["gpu"], 200, How()).changes, "a snapshot's line says nothing"


def test_every_entry_taken(apu: Simulated) -> None:
    lines = "".join(f"dev{number}: /dev/null{number}\n" for number in range(256))
    apu.world.put(CONF, f"{apu.world.text(CONF)}{lines}")
    assert refused(apu, "gpu").problem.ref == "lxc.full"


def test_a_group_is_never_guessed(apu: Simulated) -> None:
    stopped = refused(apu, "gpu", ct=201)
    assert stopped.problem.ref == "lxc.groups-unknown" and "pct start 201" in stopped.problem.hint
    assert refused(apu, "gpu", group="rendre").problem.ref == "lxc.no-group"
    machine = apu.world.machine()
    machine["containers"]["200"]["without"] = ["getent"]
    apu.world.save_machine(machine)
    assert refused(apu, "gpu").problem.ref == "lxc.groups-unknown"
    assert containers.plan_add(apu, ["gpu"], 201, How(gid=104)).changes


def test_an_answer_from_inside_is_not_trusted(untouched: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    apu = untouched
    ct = app.look(apu, deep=True).container(200)
    assert ct is not None
    said = "render:x:106:\nrender:x:0:\nevil;rm:x:1:\nvideo:x:-4:\nx\n" + "a" * 10 + ":x:99999999999:\n"
    monkeypatch.setattr(apu, "run", lambda argv, stdin=b"", timeout=60.0: Ran(0, said))
    assert containers.groups_inside(apu, ct) == {"render": 106}

    def silent(*words: object, **more: object) -> Ran:
        raise Unreadable("pct", "no answer in time")

    monkeypatch.setattr(apu, "run", silent)
    assert containers.groups_inside(apu, ct) is None


def test_an_older_proxmox_has_no_entries(apu: Simulated) -> None:
    status = apu.world.text("/var/lib/dpkg/status") or ""
    apu.world.put("/var/lib/dpkg/status", status.replace("Version: 9.2.11", "Version: 8.0.9"))
    assert refused(apu, "gpu").problem.ref == "lxc.too-old"


def test_bound_to_vfio_there_is_nothing_to_share(apu: Simulated) -> None:
    assert apu.run(("qm", "set", "100", "--hostpci0", "0000:15:00.0")).ok
    hand_to_vfio(apu)
    failure = refused(apu, "gpu")
    assert failure.problem.ref == "lxc.vfio-bound" and "undo" in failure.problem.hint
    assert any("guest 100" in line for line in failure.problem.context)


@pytest.mark.parametrize("how", ["guest", "modprobe", "usb"])
def test_given_elsewhere_is_a_hazard_with_a_name(apu: Simulated, how: str) -> None:
    word = "usb:1-3" if how == "usb" else "gpu"
    if how == "guest":
        assert apu.run(("qm", "set", "100", "--hostpci0", "0000:15:00,pcie=1", "--machine", "q35")).ok
    elif how == "usb":
        assert apu.run(("qm", "set", "100", "--usb0", "host=10c4:ea60")).ok
    else:
        apu.world.put("/etc/modprobe.d/vfio.conf", "options vfio-pci ids=1002:164e\n")
    with pytest.raises(app.HazardRefused) as caught:
        containers.plan_add(apu, [word], 200, How())
    assert caught.value.names == ("container-conflict",) and caught.value.code is Exit.REFUSED
    assert containers.plan_add(apu, [word], 200, How(), ["container-conflict"]).changes


# -- NVIDIA --------------------------------------------------------------------------------------


def test_nvidia_needs_its_memory_node_first(nvidia: Simulated) -> None:
    failure = refused(nvidia, "nvidia")
    assert failure.problem.ref == "lxc.no-node" and "nvidia-modprobe" in failure.problem.hint
    assert nvidia.run(("modprobe", "nvidia_uvm")).ok
    made = containers.plan_add(nvidia, ["gpu:2"], 200, How())
    assert [change.after for change in made.changes] == [
        "/dev/nvidia0,mode=0666", "/dev/nvidiactl,mode=0666", "/dev/nvidia-uvm,mode=0666",
        "/dev/nvidia-uvm-tools,mode=0666", "/dev/nvidia-modeset,mode=0666",
    ]  # fmt: skip
    assert made.devices == {"0000:01:00.0": "10de:2206"} and any("unverified" in one.message for one in made.risks)
    (change,) = containers.plan_add(nvidia, ["gpu:1"], 200, How(gid=1)).changes
    assert change.after == "/dev/dri/renderD128,gid=1,mode=0660", "the other card is the processor's"


def test_two_cards_are_told_apart_by_the_run(nvidia: Simulated) -> None:
    """The kernel gives the numbers out anew; what was given is remembered."""
    give(nvidia, "/dev/dri/renderD129", gid=5)
    world = nvidia.world
    for card, number in (("0000:00:02.0", 128), ("0000:01:00.0", 129)):
        world.put(f"{world.device_directory(card)}/drm/renderD{number}/dev", f"226:{257 - number}\n")
    nodes = {one.path: one for one in app.look(nvidia, deep=True).dev_nodes or ()}
    assert nodes["/dev/dri/renderD129"].number == "226:128"
    assert app.look(nvidia, deep=True).given_nodes[0].path == "/dev/dri/renderD129"
    assert any("numbers follow the order" in one.message for one in containers.plan_add(
        nvidia, ["/dev/dri/renderD128"], 200, How(gid=5)).risks)  # fmt: skip


# -- remove --------------------------------------------------------------------------------------


def test_taken_by_any_of_its_names(apu: Simulated) -> None:
    give(apu, "gpu")
    assert apu.run(("pct", "stop", "200")).ok
    for word in ("dev0", RENDER, "gpu", CARD):
        (change,) = containers.plan_remove(apu, [word], 200).changes
        assert str(change.cell) == "ct:200/dev0" and change.after is None
    assert says(apu, "remove", "gpu", "--ct", "200", "--yes") == Exit.FINE
    assert entries(apu) == []
    app.undo(apu)
    assert entries(apu) == [f"dev0: {RENDER},gid=106,mode=0660"]


def test_a_running_container_keeps_it_until_its_next_start(apu: Simulated) -> None:
    give(apu, "gpu")
    made = containers.plan_remove(apu, ["gpu"], 200)
    assert any("until it is stopped" in one.message for one in made.risks)
    app.apply(apu, made)
    assert "delete: dev0" in (apu.world.text(CONF) or "")
    app.undo(apu)
    assert "delete" not in (apu.world.text(CONF) or "") and len(entries(apu)) == 1


@pytest.mark.parametrize("word", ["dev3", "/dev/kfd", "kfd", "gpu"])
def test_what_it_does_not_have_is_not_taken(untouched: Simulated, word: str) -> None:
    with pytest.raises(Failure) as caught:
        containers.plan_remove(untouched, [word], 201)
    assert caught.value.problem.ref == "lxc.not-given"
    assert any("raw" in line for line in caught.value.problem.context), "it has the card by raw lines"


# -- check ---------------------------------------------------------------------------------------


def outcomes(host: Simulated, user: str = "root", ct: int = 200) -> list[Outcome]:
    return [rung.outcome for rung in containers.check(host, ct, user=user).rungs]


def test_the_ladder(apu: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert outcomes(apu) == [Outcome.FAILED]
    give(apu, "gpu")
    for user in ("root", "jellyfin"):
        assert outcomes(apu, user) == [Outcome.PASSED] * 4
    assert outcomes(apu, "nobody")[2] is Outcome.FAILED
    assert outcomes(apu, "stranger")[2] is Outcome.UNKNOWN
    capsys.readouterr()
    assert says(apu, "check", "--ct", "200", "--user", "nobody", "--output-format", "json") == Exit.COULD_NOT
    assert [one["outcome"] for one in json.loads(capsys.readouterr().out)["rungs"]] == [
        "passed", "passed", "failed", "passed"
    ]  # fmt: skip
    with pytest.raises(Failure):
        containers.check(apu, 200, user="$(reboot)")


def test_a_wrong_group_is_found_from_inside(apu: Simulated) -> None:
    give(apu, "gpu", gid=993)
    assert outcomes(apu, "jellyfin")[2] is Outcome.FAILED, "993 is the host's number"


def test_a_changed_entry_is_not_in_force_before_the_restart(apu: Simulated) -> None:
    give(apu, "/dev/dri/card0")
    assert apu.run(("pct", "set", "200", "--dev0", f"{RENDER},gid=106,mode=0660")).ok
    assert outcomes(apu)[1] is Outcome.FAILED
    assert apu.run(("pct", "reboot", "200")).ok
    assert outcomes(apu)[1] is Outcome.PASSED


def test_a_stopped_container_is_not_started_for_it(apu: Simulated) -> None:
    give(apu, "gpu")
    assert apu.run(("pct", "stop", "200")).ok
    assert outcomes(apu) == [Outcome.PASSED, Outcome.UNKNOWN, Outcome.UNKNOWN, Outcome.UNKNOWN]
    assert outcomes(apu, ct=201) == [Outcome.UNKNOWN], "raw lines alone"
    assert not apu.world.exists("/sys/fs/cgroup/lxc/201")


def test_after_a_power_cut_the_nodes_and_the_container_are_there_again(apu: Simulated) -> None:
    give(apu, "gpu")
    power_cut(apu.world)
    assert outcomes(apu, "jellyfin") == [Outcome.PASSED] * 4


# -- a plan for a guest --------------------------------------------------------------------------


def test_a_guest_is_not_given_what_a_container_uses(apu: Simulated) -> None:
    give(apu, "gpu")
    accepted = ["only-display", "console"]
    with pytest.raises(app.HazardRefused) as caught:
        app.plan(apu, ["gpu"], 100, accept=accepted)
    assert caught.value.names == ("container-conflict",)
    assert any("jellyfin" in line for line in (caught.value.problem.message, *caught.value.problem.context))
    assert app.plan(apu, ["gpu"], 100, accept=[*accepted, "container-conflict"]).plan.changes
