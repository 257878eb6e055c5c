"""`diagnose --for slow`: a guest that works but is slow, as a person measures it; and what must not be called slow."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough.app import look
from pve_passthrough.app.performance import Slow, measure
from pve_passthrough.diagnosis.performance import judge, observations
from pve_passthrough.diagnosis.slow_case import links
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import Missing, Unreadable
from pve_passthrough.host.simulated import Simulated
from pve_passthrough.knowledge.performance import ROWS, lane_rate
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.pci import Address, Device, Link
from pve_passthrough.model.performance import Gpu, Inside, LinkSample, Measured, Pages, Samples, State
from pve_passthrough.model.vm import Vm
from tests.copies import BESIDE, copy_of

CARD, SOUND, PORT = Address(0, 1, 0, 0), Address(0, 1, 0, 1), Address(0, 0, 1, 0)
FULL = LinkSample(16.0, 16)


def started(host: Simulated) -> None:
    assert host.run(("qm", "start", "100")).ok


@pytest.fixture
def slow(tmp_path: Path) -> Simulated:
    return copy_of("slow-guest", tmp_path / "host", started)


@pytest.fixture
def quick(tmp_path: Path) -> Simulated:
    return copy_of("quick-guest", tmp_path / "host", started)


def clock() -> Callable[[], float]:
    ticks: Iterator[float] = iter(float(number) for number in range(10_000))
    return lambda: next(ticks)


def measured(host: Simulated, seconds: float = 2, sleep: Callable[[float], None] = lambda _: None) -> Slow:
    return measure(host, 100, seconds, sleep=sleep, clock=clock())


def states(result: Slow) -> dict[str, set[State]]:
    found: dict[str, set[State]] = {}
    for one in result.measured:
        found.setdefault(one.measure, set()).add(one.state)
    return found


def change(host: Simulated, **what: Any) -> None:
    machine = host.world.machine()
    machine["guests"]["100"] |= what
    host.world.save_machine(machine)


# -- whole machines ------------------------------------------------------------------------------


def test_everything_that_costs_speed_is_named(slow: Simulated) -> None:
    found = {one for one, seen in states(measured(slow)).items() if State.SLOW in seen}
    assert found == {"link", "interrupts", "cpu", "node", "balloon", "disk"}


def test_a_guest_that_is_as_it_should_be_is_not_called_slow(quick: Simulated) -> None:
    result = measured(quick)
    assert {state for seen in states(result).values() for state in seen} == {State.GOOD, State.NOTE}
    assert [one.measure for one in result.measured if one.state is State.NOTE] == ["window"]
    assert result.observations == ()
    assert result.remark == ""


def test_a_table_for_people(slow: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--host", slow.name, "diagnose", "--for", "slow", "--vm", "100", "--seconds", "0"]) == Exit.BLOCKED
    shown = capsys.readouterr().out
    assert "desk (100)" in shown
    assert "6 things cost speed" in shown
    assert "qm set 100 --cpu host" in shown
    assert "qm set 100 --affinity 8-15 --numa 1 --numa0 cpus=0-3,hostnodes=1,memory=8192,policy=bind" in shown


def test_the_same_for_scripts(quick: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    words = ["--host", quick.name, "diagnose", "--for", "slow", "--vm", "100", "--seconds", "0"]
    assert run([*words, "--output-format", "json"]) == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    assert (told["format"], told["vmid"]) == (1, 100)
    encoder = next(one for one in told["measured"] if one["measure"] == "encoder")
    assert (encoder["state"], encoder["here"]) == ("good", "34 % busy, 1 session")
    assert all(one["source"] and one["title"] for one in told["measured"])


def test_the_proposed_commands_are_taken_and_help(slow: Simulated) -> None:
    commands = [command.split() for one in measured(slow).measured for command in one.commands]
    for command in (one for one in commands if one[0] == "qm" and "--hugepages" not in one):
        assert slow.run(command).ok, command
    assert slow.run(("qm", "stop", "100")).ok
    started(slow)
    after = states(measured(slow))
    for measure_id in ("cpu", "node", "balloon"):
        assert after[measure_id] == {State.GOOD}, measure_id


def test_a_guest_that_does_not_run_is_measured_as_far_as_it_goes(slow: Simulated) -> None:
    assert slow.run(("qm", "stop", "100")).ok
    result = measured(slow)
    found = states(result)
    assert found["disk"] == {State.SLOW}
    assert found["waiting"] == {State.UNKNOWN}
    reasons = {one.reason for one in result.measured if one.state is State.UNKNOWN}
    assert reasons == {"the guest does not run"}


def test_a_guest_without_an_agent_says_why(slow: Simulated) -> None:
    change(slow, agent=False)
    clocks = next(one for one in measured(slow).measured if one.measure == "clock")
    assert (clocks.state, clocks.reason) == (State.UNKNOWN, "QEMU guest agent is not running")


def test_a_windows_guest(slow: Simulated) -> None:
    change(slow, os="windows", looks={"vbs": 2, "plan": "a1841308-3541-4fab-bc81-f71556f20b4a"})
    result = measured(slow)
    found = {one.measure: one for one in result.measured if one.state is State.SLOW}
    assert {"nested", "plan", "enlightenments", "interrupts"} <= set(found)
    assert found["enlightenments"].commands == ("qm set 100 --ostype win11",)
    assert "MSISupported to 1 (now not set)" in found["interrupts"].change
    assert found["cpu"].commands == () or "x86-64-v3" in found["cpu"].commands[0]
    assert "VirtIO driver in Windows first" in found["disk"].change


def test_a_link_that_comes_up_while_we_look_is_good(quick: Simulated) -> None:
    """The best of all samples counts: a card at rest is slow only between two frames."""
    path = f"/sys/bus/pci/devices/{CARD}/current_link_speed"
    above = f"/sys/bus/pci/devices/{PORT}/current_link_speed"
    texts = iter(["2.5 GT/s PCIe\n", "16.0 GT/s PCIe\n", "2.5 GT/s PCIe\n"] + ["2.5 GT/s PCIe\n"] * 50)

    def tick(_: float = 0) -> None:
        text = next(texts)
        for one in (path, above):
            quick.world.put(one, text)

    tick()
    link = next(one for one in measured(quick, 8, tick).measured if one.measure == "link")
    assert (link.state, link.here) == (State.GOOD, "16 GT/s, 16 lanes (31.5 GB/s)")


def test_processors_that_wait_are_seen_between_two_looks(quick: Simulated) -> None:
    pid = (quick.world.text("/run/qemu-server/100.pid") or "").strip()
    thread = quick.world.names(f"/proc/{pid}/task")[0]

    def busy_host(_: float) -> None:
        quick.world.put(f"/proc/{pid}/task/{thread}/schedstat", f"9000000000 {10**6 + 2 * 10**9} 9\n")

    waiting = next(one for one in measured(quick, 5, busy_host).measured if one.measure == "waiting")
    assert waiting.state is State.SLOW
    assert "CPU 0/KVM waited" in waiting.evidence[0]


def test_what_a_guest_says_cannot_write_to_the_terminal(slow: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    change(slow, looks={"clock": "hpet\x1b[31m", "cpu": "model name\t: \x1b]0;x\x07\nflags: fpu\n"})
    run(["--host", slow.name, "diagnose", "--for", "slow", "--vm", "100", "--seconds", "0"])
    shown = capsys.readouterr().out
    assert "\x1b" not in shown
    assert "\x07" not in shown


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("--vm", "101"), "this node has no guest 101"),
        (("--seconds", "5"), "--seconds belongs to --for slow --vm ID"),
    ],
)
def test_wrong_words(slow: Simulated, words: tuple[str, ...], why: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--host", slow.name, "diagnose", "--for", "slow", *words]) == Exit.USAGE
    assert why in capsys.readouterr().err


@pytest.mark.parametrize("seconds", [-1, 601, float("nan")])
def test_a_time_without_an_end_is_refused(slow: Simulated, seconds: float) -> None:
    with pytest.raises(Failure, match="are not between"):
        measure(slow, 100, seconds)


def test_nothing_is_changed_by_looking(slow: Simulated) -> None:
    before = (slow.world.text("/etc/pve/nodes/pve/qemu-server/100.conf"), slow.world.state())
    measured(slow)
    assert (slow.world.text("/etc/pve/nodes/pve/qemu-server/100.conf"), slow.world.state()) == before


# -- single judgements ---------------------------------------------------------------------------


@cache
def _facts() -> Facts:
    import tempfile

    with tempfile.TemporaryDirectory(dir=BESIDE) as folder:
        facts = look(copy_of("quick-guest", Path(folder) / "host", started), inventory=True)
    silent = Link(None, None, 16.0, 16)  # what the links do is the samples' to say
    return _with(_with(facts, CARD, link=silent), PORT, link=silent)


def gpu(**more: Any) -> Gpu:
    return Gpu("10de:2206", "nvidia-smi -q", **more)


def inside(**more: Any) -> Inside:
    return Inside("linux", **more)


def told(samples: Samples, measure_id: str, facts: Facts | None = None, **config: str) -> Measured:
    known = facts or _facts()
    vm = known.guest(100)
    assert vm is not None
    vm = replace(vm, config={**vm.config, **config})
    devices = [device for address in (CARD, SOUND) if (device := known.device(address))]
    return next(one for one in judge(known, vm, devices, samples) if one.measure == measure_id)


def linked(*seen: LinkSample, use: int | None = None) -> Samples:
    return Samples(True, links={CARD: seen}, inside=(inside(gpus=(gpu(use=use),)),))


@pytest.mark.parametrize(
    ("samples", "state"),
    [
        (linked(FULL), State.GOOD),
        (linked(LinkSample(2.5, 16)), State.UNKNOWN),
        (linked(LinkSample(2.5, 16), use=0), State.UNKNOWN),
        (linked(LinkSample(2.5, 16), use=90), State.SLOW),
        (linked(LinkSample(2.5, 16), FULL, LinkSample(2.5, 16), use=0), State.GOOD),
        (linked(LinkSample(16.0, 8), use=0), State.SLOW),
        (linked(LinkSample(2.5, 8)), State.SLOW),
        (linked(LinkSample(None, None)), State.UNKNOWN),
        (Samples(True), State.UNKNOWN),
    ],
)
def test_a_link_is_judged_by_what_it_does_at_work(samples: Samples, state: State) -> None:
    assert told(samples, "link").state is state


def _with(facts: Facts, address: Address, **more: Any) -> Facts:
    return replace(
        facts, devices=tuple(replace(one, **more) if one.address == address else one for one in facts.devices)
    )


def test_an_idle_radeon_may_give_up_lanes_too() -> None:
    radeon = _with(_facts(), CARD, vendor=0x1002)
    assert told(Samples(True, links={CARD: (LinkSample(2.5, 8),)}), "link", radeon).state is State.UNKNOWN
    assert told(Samples(True, links={CARD: (LinkSample(16.0, 8),)}), "link", radeon).state is State.SLOW


def test_a_smaller_slot_is_told() -> None:
    narrow = _with(_facts(), PORT, link=Link(16.0, 4, 16.0, 4))
    found = told(linked(LinkSample(16.0, 4)), "slot", narrow)
    assert (found.state, found.here) == (State.SLOW, "16 GT/s, 4 lanes (7.9 GB/s)")
    half = _with(_facts(), PORT, link=Link(8.0, 16, 8.0, 16))
    assert told(linked(LinkSample(8.0, 16)), "slot", half).state is State.NOTE


def test_the_link_inside_a_card_with_a_switch_is_passed_over() -> None:
    """Arc: the picture sits behind two bridges of the card's own and claims 2.5 GT/s and one lane."""
    facts = _facts()
    card, root = facts.device(CARD), facts.device(PORT)
    assert card is not None and root is not None and root.capabilities is not None
    wrong, right = Link(2.5, 1, 2.5, 1), Link(16.0, 16, 16.0, 16)
    upstream = replace(root, address=Address(0, 2, 0, 0), parent=PORT, vendor=0x8086, link=right,
                       capabilities=replace(root.capabilities, express=5))  # fmt: skip
    downstream = replace(upstream, address=Address(0, 3, 1, 0), parent=upstream.address, link=wrong,
                         capabilities=replace(root.capabilities, express=6))  # fmt: skip
    arc = replace(card, address=Address(0, 4, 0, 0), parent=downstream.address, vendor=0x8086, link=wrong)
    tree = replace(facts, devices=(root, upstream, downstream, arc))
    assert links(tree, arc) == ((upstream, root),)
    foreign = replace(tree, devices=(root, replace(upstream, vendor=0x10B5), replace(downstream, vendor=0x10B5), arc))
    assert len(links(foreign, arc)) == 2


def test_a_virtual_function_has_the_link_of_its_physical_one() -> None:
    facts = _facts()
    card, root = facts.device(CARD), facts.device(PORT)
    assert card is not None and root is not None
    virtual = replace(card, address=Address(0, 1, 0, 4), physical_function=CARD, link=None)
    assert links(replace(facts, devices=(*facts.devices, virtual)), virtual) == ((card, root),)


@pytest.mark.parametrize(
    ("kinds", "state"),
    [({"msi": 5}, State.GOOD), ({"msix": 0}, State.GOOD), ({"intx": 5}, State.SLOW), ({}, State.NOTE)],
)
def test_interrupts(kinds: dict[str, int], state: State) -> None:
    assert told(Samples(True, interrupts={CARD: kinds}), "interrupts").state is state


def test_a_device_that_has_only_line_interrupts_is_not_to_blame() -> None:
    facts = _facts()
    card = facts.device(CARD)
    assert card is not None and card.capabilities is not None
    old = _with(facts, CARD, capabilities=replace(card.capabilities, msi=False, msix=False))
    assert told(Samples(True, interrupts={CARD: {"intx": 5}}), "interrupts", old).state is State.NOTE


def powered(**more: Any) -> Samples:
    return Samples(True, power={CARD: ("D0",)}, inside=(inside(gpus=(gpu(**more),)),))


@pytest.mark.parametrize(
    ("samples", "state"),
    [
        (powered(use=95, state="P0"), State.GOOD),
        (powered(use=0, state="P8"), State.GOOD),
        (powered(use=95, state="P8"), State.SLOW),
        (powered(use=95, state="P2", brakes=("SW Power Cap",)), State.GOOD),
        (powered(use=95, state="P2", brakes=("HW Thermal Slowdown",)), State.SLOW),
        (powered(use=0, state="P8", brakes=("HW Slowdown",)), State.GOOD),
        (powered(use=95, profile="low"), State.SLOW),
        (Samples(True, power={CARD: ("D3hot", "D3hot")}), State.NOTE),
        (Samples(True, power={CARD: ("D3hot", "D0")}), State.GOOD),
        (Samples(False, power={CARD: ("D3hot",)}), State.UNKNOWN),
    ],
)
def test_power(samples: Samples, state: State) -> None:
    assert told(samples, "power").state is state


@pytest.mark.parametrize(
    ("cpu", "flags", "state"),
    [
        ("host", None, State.GOOD),
        ("kvm64", None, State.SLOW),
        ("x86-64-v2-AES", None, State.SLOW),
        ("x86-64-v3", None, State.GOOD),
        ("Skylake-Server", None, State.UNKNOWN),
        ("Skylake-Server", "aes avx avx2", State.GOOD),
        ("host", "sse", State.SLOW),
    ],
)
def test_the_processor_is_judged_by_its_flags_or_by_its_name(cpu: str, flags: str | None, state: State) -> None:
    said = () if flags is None else (inside(flags=frozenset(flags.split())),)
    assert told(Samples(True, inside=said), "cpu", cpu=cpu).state is state


def test_the_rest_of_the_cpu_line_stays() -> None:
    found = told(Samples(True), "cpu", cpu="kvm64,hidden=1")
    assert found.commands == ("qm set 100 --cpu host,hidden=1",)


@pytest.mark.parametrize(
    ("governors", "state"),
    [
        ({"powersave": "acpi-cpufreq"}, State.SLOW),
        ({"powersave": "intel_pstate"}, State.GOOD),
        ({"powersave": "amd-pstate-epp"}, State.GOOD),
        ({"schedutil": "acpi-cpufreq"}, State.GOOD),
        ({}, State.GOOD),
        (None, State.UNKNOWN),
    ],
)
def test_the_governor(governors: dict[str, str] | None, state: State) -> None:
    assert told(Samples(True, governors=governors), "governor").state is state


@pytest.mark.parametrize(
    ("nodes", "allowed", "state"),
    [
        ({1: 8 << 30}, frozenset(range(8, 16)), State.GOOD),
        ({0: 4 << 20, 1: 8 << 30}, frozenset({9}), State.GOOD),
        ({0: 4 << 30, 1: 4 << 30}, frozenset(range(8, 16)), State.SLOW),
        ({1: 8 << 30}, frozenset(range(16)), State.NOTE),
        (None, None, State.UNKNOWN),
    ],
)
def test_the_distance(nodes: dict[int, int] | None, allowed: frozenset[int] | None, state: State) -> None:
    assert told(Samples(True, pages=Pages(nodes), allowed=allowed), "node").state is state


def test_a_guest_larger_than_the_node_gets_no_command() -> None:
    far = Samples(True, pages=Pages({0: 8 << 30}), allowed=frozenset(range(16)))
    found = told(far, "node", memory="60000")
    assert (found.state, found.commands) == (State.SLOW, ())


def test_memory() -> None:
    small, large = Pages(huge=1 << 30, total=8 << 30), Pages(huge=7 << 30, total=8 << 30)
    assert told(Samples(True, pages=small), "pages").state is State.NOTE
    assert told(Samples(True, pages=large), "pages").state is State.GOOD
    assert told(Samples(True, pages=Pages(pinned=8 << 30, swapped=0)), "pinned").state is State.GOOD
    swapped = told(Samples(True, pages=Pages(pinned=8 << 30, swapped=1 << 30)), "pinned")
    assert swapped.state is State.SLOW
    assert {point.cause for one in observations([swapped]) for point in one.points} == {"memory-pinning"}


@pytest.mark.parametrize(
    ("config", "state"),
    [
        ({"scsi0": "local:1,iothread=1", "scsihw": "virtio-scsi-single"}, State.GOOD),
        ({"scsi0": "local:1", "scsihw": "virtio-scsi-single"}, State.NOTE),
        ({"scsi0": "local:1,iothread=1", "scsihw": "virtio-scsi-pci"}, State.NOTE),
        ({"scsi0": "local:1,iothread=1", "scsihw": "lsi"}, State.SLOW),
        ({"scsi0": "local:1,iothread=1", "sata3": "local:2", "scsihw": "virtio-scsi-single"}, State.SLOW),
        ({"scsi0": "local:1,iothread=1", "ide2": "local:iso/x.iso,media=cdrom"}, State.GOOD),
        ({"scsi0": "local:1,iothread=1", "ide2": "none,media=cdrom"}, State.GOOD),
    ],
)
def test_disks(config: dict[str, str], state: State) -> None:
    assert told(Samples(True), "disk", None, **config).state is state


@pytest.mark.parametrize(
    ("clock_name", "state"), [("tsc", State.GOOD), ("kvm-clock", State.GOOD), ("hpet", State.SLOW)]
)
def test_clocks(clock_name: str, state: State) -> None:
    assert told(Samples(True, inside=(inside(clock=clock_name),)), "clock").state is state


def test_an_encoder_of_another_maker_is_seen_by_its_engines() -> None:
    radeon = _with(_facts(), CARD, vendor=0x1002)
    works = (inside(engines={"enc": 100}), inside(engines={"enc": 900}))
    idles = (inside(engines={"enc": 100}), inside(engines={"enc": 100}))
    assert told(Samples(True, inside=works), "encoder", radeon).state is State.GOOD
    assert told(Samples(True, inside=idles), "encoder", radeon).state is State.NOTE
    assert told(Samples(True, inside=works[:1]), "encoder", radeon).state is State.UNKNOWN


@pytest.mark.parametrize(
    ("driver", "problem", "state"),
    [
        ("nvidia", "", State.GOOD),
        ("nvlddmkm", "Error 43", State.SLOW),
        ("BasicDisplay", "", State.SLOW),
        ("", "", State.SLOW),
        ("nouveau", "", State.NOTE),
    ],
)
def test_the_driver_in_the_guest(driver: str, problem: str, state: State) -> None:
    assert told(Samples(True, drivers=(("10de:2206", driver, problem),)), "driver").state is state


def test_a_device_that_the_guest_does_not_list_is_unknown() -> None:
    assert told(Samples(True, drivers=()), "driver").state is State.UNKNOWN
    assert told(Samples(True), "driver").state is State.UNKNOWN


@pytest.mark.parametrize(("vga", "state"), [("none", State.GOOD), ("std", State.NOTE), ("serial0", State.GOOD)])
def test_a_virtual_display_beside_the_card(vga: str, state: State) -> None:
    assert told(Samples(True), "display", vga=vga).state is state


def test_a_guest_on_both_kinds_of_processor() -> None:
    small = frozenset({14, 15})
    both = told(Samples(True, efficient=small, allowed=frozenset(range(16))), "hybrid")
    assert (both.state, both.commands) == (State.NOTE, ("qm set 100 --affinity 0-13",))
    assert told(Samples(True, efficient=small, allowed=frozenset(range(14))), "hybrid").state is State.GOOD
    assert told(Samples(True, efficient=small, allowed=small), "hybrid").state is State.NOTE
    assert told(Samples(True, efficient=small), "hybrid").state is State.UNKNOWN


def test_a_guest_with_more_processors_than_there_are_large_ones_gets_no_command() -> None:
    both = Samples(True, efficient=frozenset(range(2, 16)), allowed=frozenset(range(16)))
    assert told(both, "hybrid").commands == ()


def test_split_locks_that_the_kernel_does_not_punish_cost_nothing() -> None:
    assert told(Samples(True, split_locks=3), "split-locks").state is State.SLOW
    facts = _facts()
    off = replace(facts, kernel=replace(facts.kernel, cmdline="quiet split_lock_detect=off"))
    assert told(Samples(True, split_locks=3), "split-locks", off).state is State.GOOD


def test_identical_cards_are_told_apart_by_their_order() -> None:
    facts = _facts()
    card = facts.device(CARD)
    vm = facts.guest(100)
    assert card is not None and vm is not None
    twin = replace(card, address=Address(0, 5, 0, 0))
    both = replace(facts, devices=(*facts.devices, twin))
    said = (inside(gpus=(gpu(encoder=0, sessions=0), gpu(encoder=50, sessions=1))),)
    found = {one.subject: one.state for one in judge(both, vm, (card, twin), Samples(True, inside=said))
             if one.measure == "encoder"}  # fmt: skip
    assert found == {str(CARD): State.NOTE, str(twin.address): State.GOOD}


def test_steal_counts_what_the_host_took() -> None:
    """4 of 40 ticks between the two looks."""
    said = (inside(steal=(10, 1000)), inside(steal=(14, 1040)))
    found = told(Samples(True, 3.0, waiting={"CPU 0/KVM": 0.01}, inside=said), "waiting")
    assert found.state is State.SLOW
    assert "guest, /proc/stat: steal 10%" in found.evidence


def test_lanes_carry_what_their_encoding_leaves() -> None:
    assert lane_rate(2.5, 1) == pytest.approx(0.25)
    assert lane_rate(8.0, 16) == pytest.approx(15.75, abs=0.01)
    assert lane_rate(64.0, 16) == pytest.approx(128.0)


def test_every_row_is_judged_somewhere(slow: Simulated) -> None:
    change(slow, os="windows")
    seen = {one.measure for one in measured(slow).measured} | {"slot", "hybrid"}
    assert {row.id for row in ROWS} == seen
    assert all(row.source and row.means for row in ROWS)


def test_a_recording_that_was_never_asked_is_unknown_not_fine(slow: Simulated) -> None:
    class Mute(Simulated):
        def read(self, path: str) -> bytes:
            if path.startswith(("/proc/interrupts", "/proc/2")):
                raise Unreadable(path, "not asked")
            if path.endswith("_link_speed"):
                raise Missing(path, "not there")
            return super().read(path)

    found = measure(Mute(slow.world.directory), 100, 0, clock=clock())
    unknown = {one.measure for one in found.measured if one.state is State.UNKNOWN}
    assert {"link", "interrupts", "pages", "pinned"} <= unknown


def test_a_device_and_a_guest_are_what_the_judge_gets() -> None:
    """Nothing is judged of a guest without devices but what its configuration says."""
    facts = _facts()
    vm = Vm(200, "pve", {"memory": "1024", "scsi0": "local:1,iothread=1", "scsihw": "virtio-scsi-single"})
    empty: tuple[Device, ...] = ()
    found = {one.measure for one in judge(facts, vm, empty, Samples(False))}
    assert found.isdisjoint({"link", "interrupts", "power", "window", "encoder", "node"})
