"""The verb `usb`, as a person uses it: the tree, single devices for guests that run or not, and all that is refused."""

from __future__ import annotations

import io
import json
import re
import tarfile
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import usb as verbs
from pve_passthrough.capture import unpack
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.guest import Outcome
from pve_passthrough.host.local import Local
from pve_passthrough.host.replay import Replay
from pve_passthrough.host.simulated import Simulated, become, plug, unplug
from pve_passthrough.knowledge.usb_devices import changeling
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.finding import Level
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.planning import resolve_usb
from tests.copies import copy_of
from tests.shared import needs_shared, realhosts

STICK = "/mnt/stick"


@pytest.fixture
def desk(tmp_path: Path) -> Simulated:
    return copy_of("usb-desk", tmp_path / "host")


@pytest.fixture(scope="module")
def same_desk(tmp_path_factory: pytest.TempPathFactory) -> Simulated:
    """For tests that leave it as it was."""
    return copy_of("usb-desk", tmp_path_factory.mktemp("usb") / "host")


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, *words])


def config(host: Simulated, vmid: int = 201, *, current: bool = True) -> dict[str, str]:
    ran = host.run(("qm", "config", str(vmid), *(("--current", "1") if current else ())))
    lines = (line.partition(": ") for line in ran.stdout.splitlines())
    return {key: value for key, _, value in lines if key.startswith("usb")}


def qm(host: Simulated, *words: str) -> None:
    ran = host.run(("qm", *words))
    assert ran.ok, ran.stderr


def start(host: Simulated, vmid: int = 201) -> None:
    qm(host, "start", str(vmid))


def refused(host: Simulated, word: str, vmid: int = 201, **how: Any) -> Failure:
    before = config(host, vmid)
    with pytest.raises(Failure) as caught:
        verbs.plan_add(host, word, vmid, **how)
    assert config(host, vmid) == before
    assert caught.value.problem.message.startswith("Nothing was")
    return caught.value


def mounted(host: Simulated, point: str) -> None:
    """The stick at 2-3 is /dev/sdb, and its file system is in use."""
    world = host.world
    place = "/sys/devices/pci0000:00/0000:00:14.0/usb2/2-3/2-3:1.0/host6/target6:0:0/6:0:0:0/block/sdb"
    world.put(f"{place}/size", "100\n")
    world.put_link("/sys/class/block/sdb", f"../../{place.removeprefix('/sys/')}")
    world.put("/proc/mounts", (world.text("/proc/mounts") or "") + f"/dev/sdb {point} ext4 rw 0 0\n")


# -- list ----------------------------------------------------------------------------------------


def test_the_tree_names_speeds_users_and_names(desk: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    qm(desk, "set", "201", "--usb0", "host=10c4:ea60")
    mounted(desk, STICK)
    assert says(desk, "usb", "list", "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    ports = {one["port"]: one for one in told["devices"]}
    assert told["format"] == 1
    assert (ports["1-4.2"]["parent"], ports["1-4"]["ports"], ports["usb1"]["parent"]) == ("1-4", 4, None)
    assert (ports["1-1"]["speed"], ports["2-3"]["speed"]) == (1.5, 5000.0)
    assert (ports["1-4.1"]["naming"]["usual"], ports["1-4.1"]["naming"]["twins"]) == ("port", ["1-4.2"])
    assert ports["2-1"]["naming"]["usual"] == "port", "its ID changes"
    assert ports["1-4.3"]["naming"]["usual"] == "id"
    assert ports["1-4.3"]["paths"] == ["/dev/serial/by-id/usb-ConBee_II_DE2480001-if00"]
    assert ports["1-4.1"]["guests"] == [{"vmid": 201, "entry": "usb0"}]
    assert ports["2-3"]["host_uses"][0]["detail"] == f"{STICK} on /dev/sdb (USB)"
    assert ports["1-1"]["host_uses"][0]["kind"] == "keyboard"
    assert ports["1-4.2"]["drivers"] == ["cp210x"]
    assert ports["1-4.2"]["serial"] == "a0002"
    controller = told["controllers"][0]
    assert (controller["address"], controller["driver"]) == ("0000:00:14.0", "xhci_hcd")
    assert says(desk, "usb") == Exit.FINE
    shown = capsys.readouterr().out
    assert "ttyUSB0" in shown
    assert "guest 201 (home, stopped): usb0" in shown
    assert "breaks when" in shown


def test_a_device_that_is_waited_for_is_shown(desk: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    qm(desk, "set", "201", "--usb1", "host=dead:beef")
    says(desk, "usb")
    assert "guest 201 (home) waits for dead:beef (usb1)" in capsys.readouterr().out


def test_names_from_devices_cannot_write_to_the_terminal(
    desk: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:  # fmt: skip
    plug(desk.world, "1-9", ids="dead:0001", name="\x1b[2Jevil\u202e")
    for words in (("usb",), ("usb", "list", "--output-format", "json"), ("usb", "add", "1-9", "--vm", "201", "--plan")):
        says(desk, *words)
        told = capsys.readouterr()
        assert "\x1b[2J" not in told.out + told.err
        assert "\u202e" not in told.out + told.err


def test_128_devices_are_listed_in_order(desk: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    world = desk.world
    bus = "/sys/devices/pci0000:00/0000:00:14.0/usb1"
    for number in range(100, 228):
        place = f"{bus}/1-{number}"
        for name, text in (("idVendor", "dead"), ("idProduct", f"{number:04x}"), ("bDeviceClass", "00")):
            world.put(f"{place}/{name}", f"{text}\n")
        world.put_link(f"/sys/bus/usb/devices/1-{number}", f"../../../{place.removeprefix('/sys/')}")
    assert says(desk, "usb", "list", "--flat") == Exit.FINE
    listed = [line for line in capsys.readouterr().out.splitlines() if "dead:" in line and "port" not in line]
    assert len(listed) == 128
    assert listed == sorted(listed, key=lambda line: int(line.split("1-")[1].split()[0]))


# -- giving --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "how", "entry"),
    [
        ("1-5", {}, "host=051d:0002"),
        ("051d:0002", {}, "host=051d:0002"),
        ("usb:051D:0002", {}, "host=051d:0002"),
        ("1-5", {"way": "port"}, "host=1-5"),
        ("1-4.1", {}, "host=1-4.1"),  # a twin
        ("2-1", {}, "host=2-1"),  # changes its ID
        ("1a6e:089a", {"way": "id"}, "host=1a6e:089a"),  # asked for, and not impossible
        ("2-3", {"usb3": True}, "host=0781:5583,usb3=1"),
        ("1-7", {"absent_ok": True}, "host=1-7"),
        ("dead:beef", {"absent_ok": True}, "host=dead:beef"),
    ],
)
def test_the_entry_names_the_device_by_what_stays(
    desk: Simulated, word: str, how: dict[str, Any], entry: str
) -> None:  # fmt: skip
    made = verbs.plan_add(desk, word, 201, **how).plan
    assert [(str(one.cell), one.after) for one in made.changes] == [("vm:201/usb0", entry)]
    assert not made.reboot
    assert made.expects == ()
    assert app.apply(desk, made).ended
    assert config(desk) == {"usb0": entry}
    app.undo(desk)
    assert config(desk) == {}


def test_what_the_entry_follows_is_said(same_desk: Simulated) -> None:
    by_id, by_port = (verbs.plan_add(same_desk, word, 201).plan for word in ("1-5", "1-4.1"))
    assert "follows the device" in by_id.risks[0].message
    assert "follows the socket" in by_port.risks[0].message
    assert "1-4.2 is 10c4:ea60, too" in by_port.changes[0].why


def test_what_is_there_already_changes_nothing_unless_another_name_is_wanted(desk: Simulated) -> None:
    qm(desk, "set", "201", "--usb3", "host=051d:0002")
    assert verbs.plan_add(desk, "1-5", 201).plan.changes == ()
    changed = verbs.plan_add(desk, "1-5", 201, way="port").plan.changes
    assert [(str(one.cell), one.after) for one in changed] == [("vm:201/usb3", "host=1-5")]


def test_a_mapping_is_used_when_it_is_named_or_asked_for(desk: Simulated) -> None:
    words = ("--id", "bee", "--map", "node=pve,id=1cf1:0030")
    assert desk.run(("pvesh", "create", "/cluster/mapping/usb", *words)).ok
    for word, how in (("bee", {}), ("usb:bee", {}), ("1-4.3", {"way": "mapping"})):
        made = verbs.plan_add(desk, word, 201, **how).plan  # type: ignore[arg-type]
        assert [one.after for one in made.changes] == ["mapping=bee"]
    assert "mapping" in made.risks[0].message
    assert app.plan(desk, ("bee",), 201).plan.changes[0].after == "mapping=bee"
    assert refused(desk, "1-5", way="mapping").problem.ref == "mapping.none"
    unplug(desk.world, "1-4.3")
    assert refused(desk, "bee", absent_ok=True).problem.ref == "mapping.stale"


def test_a_running_guest_gets_it_at_once_and_gives_it_back(desk: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    start(desk)
    assert says(desk, "usb", "add", "1-4.3", "--vm", "201", "--yes") == Exit.FINE
    assert config(desk, current=True) == {"usb0": "host=1cf1:0030"}
    proof = app.verify(desk, 201, patience=0)
    assert [(rung.level, rung.outcome) for rung in proof.rungs] == [
        (0, Outcome.PASSED), (1, Outcome.SKIPPED), (2, Outcome.PASSED), (3, Outcome.PASSED),
    ]  # fmt: skip
    assert says(desk, "usb", "remove", "1-4.3", "--vm", "201", "--yes") == Exit.FINE
    assert config(desk, current=True) == {}
    assert says(desk, "undo", "--yes") == Exit.UNDONE
    assert config(desk, current=True) == {"usb0": "host=1cf1:0030"}
    assert "still runs as before" not in capsys.readouterr().err


@pytest.mark.parametrize("options", [("--hotplug", "network,disk"), ("--hotplug", "0"), ("--machine", "pc-i440fx-6.2")])
def test_a_running_guest_that_would_not_get_it_is_left_alone(desk: Simulated, options: tuple[str, ...]) -> None:
    qm(desk, "set", "201", *options)
    start(desk)
    assert refused(desk, "1-5").problem.ref == "guest.running"
    qm(desk, "set", "201", "--usb0", "host=1-5")
    assert config(desk, current=True) == {}, "it waits for the next start, as Proxmox VE has it"


def test_usb_and_pci_words_mix_in_one_plan(desk: Simulated) -> None:
    made = app.plan(desk, ("gpu", "usb:1-5"), 100).plan
    cells = {str(one.cell): one.after for one in made.changes}
    assert cells["vm:100/usb0"] == "host=051d:0002"
    assert cells["vm:100/hostpci0"] == "0000:01:00,pcie=1"
    assert made.usb == {"1-5": "051d:0002"}
    assert set(made.devices) == {"0000:01:00.0", "0000:01:00.1"}
    start(desk, 100)
    with pytest.raises(Failure, match="devices are given to stopped guests only"):
        app.plan(desk, ("gpu", "usb:1-5"), 100)
    assert app.plan(desk, ("usb:1-5",), 100).plan.changes, "alone it can be given"


def test_a_single_device_needs_no_iommu(desk: Simulated) -> None:
    desk.world.put("/etc/default/grub", 'GRUB_CMDLINE_LINUX_DEFAULT="intel_iommu=off"\n')
    assert desk.run(("update-grub",)).ok
    app.reboot(desk)
    app.after_boot(desk)
    assert app.look(desk).iommu.on is False
    assert [one.cell.kind for one in app.plan(desk, ("usb:1-5",), 201).plan.changes] == ["vm"]


# -- refusing ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("word", "ref", "said"),
    [
        ("1-4", "usb.hub", "is a hub"),
        ("usb1", "usb.hub", "the controller's own hub"),
        ("10c4:ea60", "device.ambiguous", "2 USB devices"),
        ("dead:beef", "device.unknown", "no USB device is dead:beef"),
        ("1-7", "device.unknown", "nothing is plugged into port 1-7"),
        ("1-4.9", "device.unknown", "1-4 has 4"),
        ("1-5.1", "device.unknown", "is no hub"),
        ("9-1", "device.unknown", "there is no usb9"),
        ("1-99999", "device.unknown", "is no port"),
        ("../../etc", "device.unknown", "is no port"),
        ("", "device.none", "no device was named"),
        ("usb:", "device.unknown", "is no port"),
    ],
)
def test_nonsense_is_refused_with_what_is_there(same_desk: Simulated, word: str, ref: str, said: str) -> None:
    failure = refused(same_desk, word)
    assert failure.problem.ref == ref
    assert said in failure.problem.message
    assert failure.code is Exit.USAGE


def test_a_port_that_is_not_there_is_refused_even_for_later(same_desk: Simulated) -> None:
    assert refused(same_desk, "1-4.9", absent_ok=True).problem.ref == "device.unknown"
    assert refused(same_desk, "1-99", absent_ok=True).problem.ref == "device.unknown"
    assert refused(same_desk, "1-4.1", way="id").problem.ref == "usb.twins"


def test_the_limit_of_the_machine(desk: Simulated) -> None:
    for number in range(5):
        qm(desk, "set", "202", f"--usb{number}", "spice" if number else "host=1-9")
        qm(desk, "set", "201", f"--usb{number}", "spice")
    failure = refused(desk, "1-5", 202)
    assert failure.problem.ref == "guest.full"
    assert "ostype: win7" in failure.problem.context[-1]
    assert verbs.plan_add(desk, "1-5", 201).plan.changes[0].cell.name == "201/usb5"
    for number in range(5, 14):
        qm(desk, "set", "201", f"--usb{number}", "spice")
    assert refused(desk, "1-5", 201).problem.ref == "guest.full"
    qm(desk, "set", "202", "--usb5", "host=1-5")
    ran = desk.run(("qm", "start", "202"))
    assert "using usb5 is only possible with machine type >= 7.1" in ran.stderr


def test_two_guests_with_one_device_must_be_named(desk: Simulated) -> None:
    qm(desk, "set", "202", "--usb0", "host=1-5")
    failure = refused(desk, "1-5")
    assert failure.problem.ref == "refused.usb.two-guests"
    assert "--accept guest-conflict" in failure.problem.hint
    assert verbs.plan_add(desk, "1-5", 201, accept=("guest-conflict",)).plan.changes


def test_what_the_host_needs_is_a_hazard(desk: Simulated) -> None:
    assert verbs.plan_add(desk, "1-1", 201).plan.changes, "another keyboard stays"
    unplug(desk.world, "1-2")
    assert "--accept keyboard" in refused(desk, "1-1").problem.hint
    mounted(desk, STICK)
    failure = refused(desk, "2-3")
    assert failure.problem.ref == "refused.usb.host-uses"
    assert "--accept data-disk" in failure.problem.hint
    assert verbs.plan_add(desk, "2-3", 201, accept=("data-disk",)).plan.changes


def test_the_stick_that_the_host_boots_from_is_never_given(desk: Simulated) -> None:
    mounted(desk, "/boot")
    failure = refused(desk, "2-3", accept=("boot-usb", "data-disk", "never"))
    assert failure.problem.ref == "refused.usb.host-uses"
    assert "--accept" not in failure.problem.hint


def test_a_locked_guest_and_one_that_is_not_there(desk: Simulated) -> None:
    assert refused(desk, "1-5", 999).problem.ref == "guest.missing"
    qm(desk, "set", "201", "--lock", "backup")
    assert refused(desk, "1-5").problem.ref in ("guest.locked", "blocked.guests.locked")


def test_removing_what_the_guest_does_not_have(desk: Simulated) -> None:
    qm(desk, "set", "201", "--usb4", "host=0x051D:0x0002")
    for word in ("1-4.3", "nonsense", "usb3"):
        with pytest.raises(Failure) as caught:
            verbs.plan_remove(desk, word, 201)
        assert caught.value.problem.ref == "usb.not-given"
    for word in ("1-5", "usb:1-5", "051d:0002", "usb4"):
        assert [str(one.cell) for one in verbs.plan_remove(desk, word, 201).changes] == ["vm:201/usb4"]
    unplug(desk.world, "1-5")
    assert verbs.plan_remove(desk, "051d:0002", 201).changes, "it need not be plugged in"


# -- the world moves -----------------------------------------------------------------------------


def test_unplugged_between_plan_and_apply(desk: Simulated) -> None:
    made = verbs.plan_add(desk, "1-5", 201).plan
    unplug(desk.world, "1-5")
    with pytest.raises(Failure) as caught:
        app.apply(desk, made)
    assert caught.value.problem.ref == "plan.usb-gone"
    assert config(desk) == {}
    assert app.history(desk).runs == ()
    plug(desk.world, "1-5")
    assert app.apply(desk, made).ended
    made = verbs.plan_add(desk, "1-4.1", 201).plan
    unplug(desk.world, "1-4.1")
    plug(desk.world, "1-4.1", ids="dead:0001", name="another")
    with pytest.raises(Failure, match=r"port 1-4.1 holds dead:0001"):
        app.apply(desk, made)


def test_changed_by_others_between_plan_and_apply(desk: Simulated) -> None:
    made = verbs.plan_add(desk, "1-5", 201).plan
    qm(desk, "set", "201", "--usb0", "spice")
    with pytest.raises(Failure):
        app.apply(desk, made)
    assert config(desk) == {"usb0": "spice"}


def test_pulled_and_plugged_in_again_the_guest_has_it_again(desk: Simulated) -> None:
    start(desk)
    says(desk, "usb", "add", "1-4.3", "--vm", "201", "--yes")
    unplug(desk.world, "1-4")
    proof = app.verify(desk, 201, patience=0)
    assert proof.rungs[-1].outcome is Outcome.SKIPPED
    plug(desk.world, "1-8", pulled="1-4")
    proof = app.verify(desk, 201, patience=0)
    assert proof.rungs[-1].outcome is Outcome.PASSED
    assert "1-8.3" in proof.rungs[-1].evidence[0], "by its ID it is found in any port"
    assert desk.world.exists("/dev/serial/by-id/usb-ConBee_II_DE2480001-if00")


def test_a_device_that_comes_back_as_another_one_stays_with_the_guest_by_port_only(desk: Simulated) -> None:
    start(desk)
    qm(desk, "set", "201", "--usb0", "host=2-1", "--usb1", "host=1a6e:089a")
    findings = {one.rule: one for one in app.check(desk, (), 201).findings}
    assert "comes back as 18d1:9302" in findings["usb.re-enumerates"].message
    become(desk.world, "2-1", "18d1:9302")
    proof = app.verify(desk, 201, patience=0)
    assert proof.rungs[-1].outcome is Outcome.PASSED
    assert len(proof.rungs[-1].evidence) == 1
    assert "usb.port-moved" not in {one.rule for one in app.check(desk, (), 201).findings}


def test_plugs_that_were_exchanged_are_told(desk: Simulated) -> None:
    app.apply(desk, verbs.plan_add(desk, "1-5", 201, way="port").plan)
    assert "usb.port-moved" not in {one.rule for one in app.check(desk, (), 201).findings}
    unplug(desk.world, "1-5")
    plug(desk.world, "1-7", pulled="1-5")
    plug(desk.world, "1-5", ids="dead:0001", name="backup disk")
    moved = next(one for one in app.check(desk, (), 201).findings if one.rule == "usb.port-moved")
    assert moved.level is Level.HARMS
    assert "was given 051d:0002 at port 1-5, and dead:0001 backup disk" in moved.message
    assert moved.fix is not None
    assert moved.fix.commands[-1] == "pve-passthrough usb add usb:1-7 --vm 201"


def test_the_guest_that_lacks_a_device_is_found_out(desk: Simulated) -> None:
    qm(desk, "set", "201", "--usb0", "host=1-5")
    qm(desk, "set", "202", "--usb0", "host=1-5", "--agent", "1")
    start(desk)
    proof = app.verify(desk, 201, patience=0)
    assert proof.rungs[-1].outcome is Outcome.PASSED
    assert "1-5" in proof.rungs[0].evidence[0]


def test_a_whole_controller_says_what_goes_with_it(desk: Simulated) -> None:
    with pytest.raises(Failure) as caught:
        app.plan(desk, ("00:14.0",), 201)
    text = "\n".join(caught.value.problem.context)
    assert "takes 8 USB devices and 1 hub along" in text
    assert "Back-UPS" in text
    made = app.plan(desk, ("00:14.0",), 201, accept=("keyboard",)).plan
    assert "usb.controller" in {one.rule for one in made.risks}


# -- the verb `sim usb` --------------------------------------------------------------------------


def test_plugs_are_pulled_by_the_command(desk: Simulated) -> None:
    folder = desk.name.removeprefix("sim:")
    assert run(["sim", "usb", folder, "--unplug", "1-4"]) == Exit.FINE
    assert [one.port for one in app.look(desk).usb] == ["usb1", "1-1", "1-2", "1-5", "usb2", "2-1", "2-3"]
    assert not desk.world.exists("/dev/ttyUSB0")
    assert run(["sim", "usb", folder, "--plug", "1-4"]) == Exit.FINE
    assert len(app.look(desk).usb) == 11
    assert run(["sim", "usb", folder, "--at", "2-1", "--id", "18d1:9302"]) == Exit.FINE
    for words in (
        ["--unplug", "1-7"], ["--plug", "1-1"], ["--plug", "1-4.9", "--id", "dead:beef"], ["--unplug", "x"],
        ["--plug", "1-5.1", "--id", "dead:beef"], ["--plug", "1-7", "--id", "nonsense"], [],
    ):  # fmt: skip
        assert run(["sim", "usb", folder, *words]) == Exit.USAGE


# -- real machines -------------------------------------------------------------------------------


@needs_shared
def test_real_trees_are_listed_and_judged() -> None:
    from pve_passthrough.face.render import text as people
    from pve_passthrough.face.render import usb as render

    seen = 0
    for tree in sorted((realhosts() / "share").glob("sysfs-*/fsroot")):
        if (tree / "sys/bus/usb/devices").is_dir():
            seen += 1
            facts = verbs.look_usb(Local(str(tree)))
            assert len(render.listed_data(facts)["devices"]) == len(facts.usb)
            render.listed(people.console(), facts)
            for one in facts.usb:
                chosen = app.judge(facts, (f"usb:{one.port}",), None) if not one.hub else None
                assert chosen is None or chosen.ports == (one.port,)
    assert seen


_LSUSB = re.compile(r"Bus (\d+) Device (\d+): ID ([0-9a-f]{4}):([0-9a-f]{4}) ?(.*)")


def listing(text: str) -> Facts:
    """What `lsusb` printed; it tells no ports, so the device's number stands for one."""
    found = []
    for bus, number, vendor, product, name in _LSUSB.findall(text):
        hub = vendor == "1d6b"
        port = f"usb{int(bus)}" if hub else f"{int(bus)}-{int(number)}"
        found.append(UsbDevice(port, int(vendor, 16), int(product, 16), 9 if hub else 0, name, None))
    return Facts(host="lsusb", usb=tuple(found))


@needs_shared
def test_lsusb_listings_of_real_machines() -> None:
    """Each device can be named, twins by their port, and an ID that several have is refused."""
    listings = [path.read_text(errors="replace") for path in sorted((realhosts() / "share").glob("*/lsusb.txt"))]
    twins = 0
    for facts in map(listing, listings):
        ids = [one.id for one in facts.usb if not one.hub]
        assert facts.usb
        for one in facts.usb:
            if one.hub:
                continue
            choice = resolve_usb(facts, (f"usb:{one.port}",))[0]
            assert choice.way == ("id" if ids.count(one.id) == 1 and changeling(one.id) is None else "port")
            if ids.count(one.id) > 1:
                twins += 1
                with pytest.raises(Failure, match=f"USB devices are {one.id}"):
                    resolve_usb(facts, (f"usb:{one.id}",))
    assert len(listings) >= 9
    assert twins


# -- captures ------------------------------------------------------------------------------------


def test_a_capture_shows_the_tree_and_no_serial_number(desk: Simulated) -> None:
    app.apply(desk, verbs.plan_add(desk, "1-5", 201, way="port").plan)
    data = app.capture(desk)
    with tarfile.open(fileobj=io.BytesIO(data)) as packed:
        inside = b"".join(packed.extractfile(one).read() for one in packed.getmembers() if one.isfile())  # type: ignore[union-attr]
    for serial in (b"a0001", b"DE2480001", b"5B1800T00001", b"4C5300010001"):
        assert serial not in inside
    there = Replay(unpack(data, "capture"), "capture:desk")
    facts = app.look(there, deep=True)
    ports = {one.port: one for one in facts.usb}
    assert ports["1-4.1"].terminals == ("ttyUSB0",)
    assert len(ports["1-4.1"].paths or ()) == 1
    assert [one.usb for one in facts.assignments] == [{"1-5": "051d:0002"}]
    assert app.plan(there, ("usb:1-4.2",), 201).plan.changes[0].after == "host=1-4.2"


def test_what_a_guest_has_already_stands_in_no_other_plans_way(desk: Simulated) -> None:
    """Two guests that take turns with one stick are told about, and asked about only when one of them gets it."""
    for vmid in ("201", "202"):
        qm(desk, "set", vmid, "--usb0", "host=1-5")
    made = app.plan(desk, ("gpu",), 201).plan
    assert made.changes
    assert "usb.two-guests" in {one.rule for one in made.risks}


def test_a_mapping_can_be_made_with_the_entry(desk: Simulated) -> None:
    made = app.plan(desk, ("usb:1-4.1",), 201, mapping="meter").plan
    assert [(str(one.cell), one.after) for one in made.changes] == [
        ("mapping:usb/meter", "map id=10c4:ea60,node=pve,path=1-4.1"),
        ("vm:201/usb0", "mapping=meter"),
    ]
    assert app.apply(desk, made).ended
    start(desk)
    assert app.verify(desk, 201, patience=0).rungs[-1].outcome is Outcome.PASSED
    with pytest.raises(Failure, match="offers one device, and 2 were named"):
        app.plan(desk, ("usb:1-4.2", "usb:1-5"), 201, mapping="both")
