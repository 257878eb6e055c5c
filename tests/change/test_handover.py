"""The host's display goes to a guest and comes back: whole, or the message says exactly what stays."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

import pytest

from pve_passthrough.change import handover
from pve_passthrough.change.handover import Receipt, hand_back, hand_over, watch
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.host.base import Host, Ran, Unreadable
from pve_passthrough.host.simulated import Simulated, create, power_cut
from pve_passthrough.host.simulated.world import DEVICES
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.vm import Vm
from pve_passthrough.probe import probe
from tests.hosts.faulty import FAIL, KILL, Fault, Faulty, Killed

CARD, SOUND = "0000:01:00.0", "0000:01:00.1"
VMID = 100
DM = "display-manager.service"
MANAGER = {"pid": 1412, "name": "Xorg", "open": ["/dev/dri/card0", "/dev/tty7"]}
NOTE = f"/run/pve-passthrough/handover/{VMID}.json"


@pytest.fixture(scope="module")
def template(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One card, which shows the console by its own driver; a display manager; guest 100 borrows the card."""
    place = tmp_path_factory.mktemp("one-card") / "host"
    world = create(str(place), "only-display").world
    machine = world.machine()
    machine["users"] = {"lightdm.service": [MANAGER]}
    world.save_machine(machine)
    world.put("/lib/systemd/system/lightdm.service", "[Unit]\nDescription=lightdm\n")
    world.put_link(f"/etc/systemd/system/{DM}", "/lib/systemd/system/lightdm.service")
    ids = [f"{address} {world.id_of(address).replace(' ', ':')}" for address in (CARD, SOUND)]
    world.put(f"/etc/pve-passthrough/lent-{VMID}.conf", "# the card\n" + "\n".join(ids) + "\n")
    conf = f"/etc/pve/nodes/{world.names('/etc/pve/nodes')[0]}/qemu-server/{VMID}.conf"
    world.put(conf, (world.text(conf) or "") + f"hostpci0: {CARD[:-2]}\n")
    power_cut(world)
    return place


@pytest.fixture
def host(template: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Simulated]:
    """A copy of it, on which nobody waits long."""
    for name in ("HOLDERS_SECONDS", "CONSOLE_SECONDS", "LOCK_SECONDS"):
        monkeypatch.setattr(handover, name, 0.02)
    shutil.copytree(template, tmp_path / "host", symlinks=True)
    yield Simulated(str(tmp_path / "host"))


def facts_of(host: Host) -> tuple[Facts, Vm]:
    facts = probe(host)
    guest = facts.guest(VMID)
    assert guest is not None
    return facts, guest


def take(host: Host) -> Receipt:
    receipt = hand_over(host, *facts_of(host))
    assert receipt is not None
    return receipt


def like_proxmox(host: Simulated) -> None:
    """What a guest's start does to the functions after the hook."""
    host.world.load_driver("vfio-pci")
    for address in (CARD, SOUND):
        host.world.place(address, "vfio-pci")
    host.write(f"{DEVICES}/{CARD}/driver_override", b"\n")  # lets the screen follow


def display(host: Simulated) -> tuple[object, ...]:
    """All that a person at the machine could see."""
    world = host.world
    drivers = [world.driver_of(address) for address in (CARD, SOUND)]
    overrides = [world.attribute(address, "driver_override") for address in (CARD, SOUND)]
    consoles = [(name, world.text(f"/sys/class/vtconsole/{name}/bind")) for name in world.names("/sys/class/vtconsole")]
    unit = host.run(("systemctl", "is-active", DM)).stdout.strip()
    return (drivers, overrides, consoles, unit, world.text("/proc/fb"), world.text("/proc/1412/comm"))


def without_driver(host: Simulated) -> dict[str, object]:
    """nouveau has been unloaded, and its module is gone; the machine as it was before is returned."""
    machine = host.world.machine()
    host.run(("modprobe", "-r", "nouveau"))
    host.world.save_machine({**machine, "absent_modules": ["nouveau"]})
    return machine


def timers(host: Simulated) -> list[str]:
    return list(host.world.state().get("timers", {}))


def test_over_and_back(host: Simulated) -> None:
    before = display(host)
    assert before[3:] == ("active", "0 nouveaudrmfb\n", "Xorg\n")
    receipt = take(host)
    assert receipt.did == (
        f"stopped {DM}",
        "took the text console from the framebuffer ((M) frame buffer device)",
        f"took {SOUND} from snd_hda_intel",
        f"took {CARD} from nouveau",
    )
    assert receipt.shown == ""
    assert [host.world.driver_of(address) for address in (CARD, SOUND)] == [None, None]
    assert timers(host) == ["pve-passthrough-handback-100.timer"]
    assert host.world.state()["timers"][timers(host)[0]]["command"][1:] == ["hook", "100", "watch"]
    like_proxmox(host)
    back = hand_back(host, VMID)
    assert back is not None and back.stays == () and back.shown == "0 nouveaudrmfb"
    assert display(host) == before
    assert timers(host) == []
    assert host.world.text(NOTE) is None
    assert hand_back(host, VMID) is None


def test_a_guest_that_borrows_nothing_is_left_alone(host: Simulated) -> None:
    facts, guest = facts_of(host)
    host.write(f"/etc/pve-passthrough/lent-{VMID}.conf", None)
    before = display(host)
    assert hand_over(host, facts, guest) is None
    assert hand_back(host, VMID) is None and watch(host, VMID) is None
    assert display(host) == before and timers(host) == []


def test_what_the_configuration_no_longer_names_is_not_taken(host: Simulated) -> None:
    host.run(("qm", "set", str(VMID), "--delete", "hostpci0"))
    before = display(host)
    assert hand_over(host, *facts_of(host)) is None
    assert display(host) == before


@pytest.mark.parametrize(
    ("text", "ref"),
    [("rm -rf /\n", "handover.file"), ("", "handover.file"), (f"{CARD} 1002:73bf\n", "handover.moved"),
     ("0000:05:00.0 10de:2206\n", "")],
)  # fmt: skip
def test_a_garbled_or_outdated_list_takes_nothing(host: Simulated, text: str, ref: str) -> None:
    host.write(f"/etc/pve-passthrough/lent-{VMID}.conf", text.encode())
    before = display(host)
    if not ref:
        assert hand_over(host, *facts_of(host)) is None
    else:
        with pytest.raises(Failure) as failure:
            take(host)
        assert failure.value.problem.ref == ref
    assert display(host) == before and timers(host) == []


def test_a_user_who_stays_is_named_and_nothing_is_taken(host: Simulated) -> None:
    host.world.put("/proc/2200/comm", "ffmpeg\n")
    host.world.put("/proc/2200/cgroup", "0::/lxc/105/ns/system.slice/frigate.service\n")
    host.world.put_link("/proc/2200/fd/7", "/dev/dri/card0")
    before = display(host)
    with pytest.raises(Failure) as failure:
        take(host)
    problem = failure.value.problem
    assert problem.ref == "handover.aborted"
    assert "was not started; the host has its display as before" in problem.message
    assert problem.context == ("ffmpeg (process 2200, container 105) has /dev/dri/card0 open",)
    assert display(host) == before
    assert host.world.text("/proc/2200/comm") == "ffmpeg\n"
    assert timers(host) == [] and host.world.text(NOTE) is None


def test_sound_and_other_cards(host: Simulated) -> None:
    """Who has the card's sound open counts; who has another card's, or no device file at all, does not."""
    host.world.make_dir(f"{DEVICES}/{SOUND}/sound/card1")
    host.world.put("/proc/3000/comm", "mpd\n")
    host.world.put_link("/proc/3000/fd/3", "/dev/snd/pcmC0D0p")
    host.world.put_link("/proc/3000/fd/4", "socket:[11]")
    take(host)
    hand_back(host, VMID)
    host.world.put_link("/proc/3000/fd/5", "/dev/snd/pcmC1D3p")
    with pytest.raises(Failure) as failure:
        take(host)
    assert failure.value.problem.context == ("mpd (process 3000) has /dev/snd/pcmC1D3p open",)


def test_a_display_manager_that_does_not_run_is_not_started(host: Simulated) -> None:
    host.run(("systemctl", "stop", DM))
    before = display(host)
    assert f"stopped {DM}" not in take(host).did
    assert hand_back(host, VMID) is not None
    assert display(host) == before and before[3] == "inactive"


class Slow:
    """A host whose kernel never answers a certain unbind."""

    def __init__(self, inner: Simulated, path: str) -> None:
        self.inner, self.path = inner, path

    def __getattr__(self, name: str) -> object:
        return getattr(self.inner, name)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if argv[0] == "tee" and argv[1] == self.path:
            raise Unreadable("tee", f"gave no answer in {timeout:g} s")
        return self.inner.run(argv, stdin, timeout)


def test_a_driver_that_never_lets_go_stops_the_start_and_the_rest_comes_back(host: Simulated) -> None:
    before = display(host)
    slow: Host = Slow(host, "/sys/bus/pci/drivers/nouveau/unbind")  # type: ignore[assignment]
    facts, guest = facts_of(host)
    with pytest.raises(Failure) as failure:
        hand_over(slow, facts, guest)
    assert f"did not take {CARD} from nouveau within 30 s" in failure.value.problem.message
    assert "as before" in failure.value.problem.message
    assert display(host) == before


def test_what_does_not_come_back_is_said_and_tried_again(host: Simulated) -> None:
    before = display(host)
    take(host)
    like_proxmox(host)
    machine = without_driver(host)
    back = hand_back(host, VMID)
    assert back is not None
    assert any(CARD in line and "nouveau" in line for line in back.stays), back.stays
    assert any(DM in line and "is not started" in line for line in back.stays), back.stays
    assert host.world.driver_of(SOUND) == "snd_hda_intel"
    assert timers(host) and host.world.text(NOTE) is not None
    host.world.save_machine(machine)
    again = watch(host, VMID)
    assert again is not None and again.stays == ()
    assert display(host) == before and timers(host) == []


def test_the_timer_gives_up_in_the_end(host: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "MOST_TRIES", 2)
    take(host)
    like_proxmox(host)
    without_driver(host)
    assert hand_back(host, VMID) and timers(host)
    assert watch(host, VMID) and not timers(host)
    assert host.world.text(NOTE) is not None


def test_a_failed_start_is_healed_by_the_timer_and_a_running_guest_is_left_alone(host: Simulated) -> None:
    before = display(host)
    take(host)
    like_proxmox(host)
    state = host.world.state()
    with host.lock(handover.GUEST_LOCK.format(vmid=VMID)):
        assert watch(host, VMID) is None  # Proxmox is starting it
    assert host.world.driver_of(CARD) == "vfio-pci"
    host.run(("systemctl", "stop", "nothing"))
    assert state == host.world.state()
    receipt = watch(host, VMID)
    assert receipt is not None and receipt.stays == ()
    assert display(host) == before


def test_watch_leaves_a_running_guest_its_card(host: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    take(host)
    like_proxmox(host)
    monkeypatch.setattr(handover, "_runs", lambda *_: True)
    assert watch(host, VMID) is None
    assert host.world.driver_of(CARD) == "vfio-pci" and timers(host)


def test_qemu_that_still_has_the_card_is_waited_for(host: Simulated) -> None:
    take(host)
    like_proxmox(host)
    group = host.world.group_of(CARD)
    host.world.put("/proc/4000/comm", "kvm\n")
    host.world.put("/proc/4000/cgroup", f"0::/qemu.slice/{VMID}.scope\n")
    host.world.put_link("/proc/4000/fd/30", f"/dev/vfio/{group}")
    back = hand_back(host, VMID)
    assert back is not None and f"kvm (process 4000, guest {VMID}) has /dev/vfio/{group} open" in back.stays[0]
    assert host.world.driver_of(CARD) == "vfio-pci"


def test_a_second_start_after_a_failed_one_keeps_what_was_taken_first(host: Simulated) -> None:
    before = display(host)
    take(host)
    like_proxmox(host)
    take(host)  # the timer has not come yet
    assert hand_back(host, VMID) is not None
    assert display(host) == before


def test_another_guest_with_the_same_card(host: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    take(host)
    like_proxmox(host)
    note = json.loads(host.world.text(NOTE) or "")
    host.world.put("/run/pve-passthrough/handover/101.json", json.dumps(note))
    host.write(NOTE, None)
    monkeypatch.setattr(handover, "_runs", lambda _, vmid: vmid == 101)
    with pytest.raises(Failure, match="guest 101 has its display now"):
        take(host)
    monkeypatch.setattr(handover, "_runs", lambda *_: False)
    assert f"took {CARD} from nouveau" in take(host).did  # given back by 101, then taken anew
    assert host.world.text("/run/pve-passthrough/handover/101.json") is None


def test_two_at_a_time_is_one_too_many(host: Simulated) -> None:
    facts, guest = facts_of(host)
    host.make_dir("/run/pve-passthrough")
    host.make_dir("/run/pve-passthrough/handover")
    with host.lock(handover.LOCK), pytest.raises(Failure) as failure:
        hand_over(host, facts, guest)
    assert failure.value.code is Exit.LOCKED


@pytest.mark.parametrize(
    "change",
    [
        lambda note: "{",
        lambda note: "[" * 100_000,
        lambda note: json.dumps({**note, "steps": [{"kind": "unit", "name": "--help", "was": ""}]}),
        lambda note: json.dumps({**note, "steps": [{"kind": "driver", "name": "../../x", "was": "nouveau"}]}),
        lambda note: json.dumps({**note, "begun": "all"}),
        lambda note: json.dumps({**note, "format": 2}),
    ],
)
def test_a_garbled_note_is_refused_and_kept(host: Simulated, change: Callable[[dict[str, object]], str]) -> None:
    take(host)
    garbled = change(json.loads(host.world.text(NOTE) or ""))
    host.world.put(NOTE, garbled)
    with pytest.raises(Failure) as failure:
        hand_back(host, VMID)
    assert failure.value.problem.ref == "handover.garbled"
    assert host.world.text(NOTE) == garbled


def test_a_reboot_undoes_it_all(host: Simulated) -> None:
    before = display(host)
    take(host)
    like_proxmox(host)
    power_cut(host.world)
    assert display(host) == before
    assert hand_back(host, VMID) is None


def test_the_firmwares_screen_stays_dark_and_that_is_said(host: Simulated) -> None:
    machine = host.world.machine()
    del machine["natural"][CARD]
    host.world.save_machine(machine)
    power_cut(host.world)
    assert host.world.text("/proc/fb") == "0 simpledrmdrmfb\n" and host.world.driver_of(CARD) is None
    take(host)
    like_proxmox(host)
    assert host.world.text("/proc/fb") == ""
    back = hand_back(host, VMID)
    assert back is not None
    assert back.stays == ("the firmware's framebuffer is gone until the next start of the host: its screen stays dark",)
    assert f"started {DM}" in back.did
    assert host.world.text(NOTE) is None and timers(host) == []  # trying again would not help


def test_the_firmwares_screen_on_a_card_that_is_no_vga_is_taken_and_comes_back(host: Simulated) -> None:
    """vfio-pci evicts nothing from class 0302, so simpledrm would keep the card's memory."""
    machine = host.world.machine()
    del machine["natural"][CARD]
    host.world.save_machine(machine)
    power_cut(host.world)
    host.world.put(f"{DEVICES}/{CARD}/class", "0x030200\n")
    before = display(host)
    assert before[0] == [None, "snd_hda_intel"] and before[4] == "0 simpledrmdrmfb\n"
    receipt = take(host)
    assert "took the firmware's framebuffer from simple-framebuffer" in receipt.did and receipt.shown == ""
    like_proxmox(host)
    back = hand_back(host, VMID)
    assert back is not None and back.stays == ()
    assert host.world.text("/proc/fb") == "0 simpledrmdrmfb\n"
    host.world.place(CARD, None)
    assert display(host) == before


def test_a_kernel_that_would_crash_is_not_asked(host: Simulated) -> None:
    machine = host.world.machine()
    machine["natural"][CARD] = {"driver": "amdgpu", "module": "amdgpu"}
    host.world.save_machine(machine)
    power_cut(host.world)
    host.world.put("/proc/sys/kernel/osrelease", "7.0.14-2-pve\n")
    before = display(host)
    assert before[0] == ["amdgpu", "snd_hda_intel"]
    with pytest.raises(Failure, match="crashes when amdgpu lets go"):
        take(host)
    assert display(host) == before
    host.world.put("/proc/sys/kernel/osrelease", "7.0.14-4-pve\n")
    assert f"took {CARD} from amdgpu" in take(host).did


# -- every effect fails once, and the process dies at every effect -----------------------------------


def effects(template: Path, place: Path) -> int:
    shutil.copytree(template, place, symlinks=True)
    counting = Faulty(Simulated(str(place)), {})
    take(counting)
    return len(counting.log)


@pytest.mark.parametrize("after", [False, True])
def test_a_failure_at_any_effect(template: Path, tmp_path: Path, host: Simulated, after: bool) -> None:
    """The hand-over happens, or the host has its display as before, or the message says what stays."""
    total = effects(template, tmp_path / "count")
    before = display(host)
    facts, guest = facts_of(host)
    ended = set()
    for number in range(1, total + 1):
        faulty = Faulty(host, {number: Fault(FAIL, after)})
        try:
            assert hand_over(faulty, facts, guest) is not None
            ended.add("taken")
            like_proxmox(host)
            assert hand_back(host, VMID) is not None
        except Failure as failure:
            ended.add(failure.problem.ref)
            if "as before" not in failure.problem.message and failure.problem.ref == "handover.aborted":
                assert any(line.startswith("not given back:") for line in failure.problem.context), number
        watch(host, VMID)
        assert display(host) == before, (number, faulty.log)
        assert timers(host) == [] and host.world.text(NOTE) is None, (number, faulty.log)
    assert "handover.aborted" in ended


@pytest.mark.parametrize("after", [False, True])
def test_a_death_at_any_effect_is_healed(template: Path, tmp_path: Path, host: Simulated, after: bool) -> None:
    total = effects(template, tmp_path / "count")
    before = display(host)
    facts, guest = facts_of(host)
    for number in range(1, total + 1):
        faulty = Faulty(host, {number: Fault(KILL, after)})
        with pytest.raises(Killed):
            hand_over(faulty, facts, guest)
        if display(host) != before:
            assert timers(host), f"nobody would bring the display back after {faulty.log}"
        watch(host, VMID)
        assert display(host) == before, (number, faulty.log)


def test_a_death_at_any_effect_of_the_way_back_is_healed(host: Simulated) -> None:
    before = display(host)
    facts, guest = facts_of(host)
    for number in range(1, 60):
        assert hand_over(host, facts, guest) is not None
        like_proxmox(host)
        try:
            hand_back(Faulty(host, {number: Fault(KILL)}), VMID)
            break
        except Killed:
            assert timers(host) or host.world.text(NOTE) is None or display(host) == before
            watch(host, VMID)
            assert display(host) == before, number
    else:
        raise AssertionError("the way back has no end")
    assert number > 8
