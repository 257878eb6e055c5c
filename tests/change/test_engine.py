"""What start, advance, resume and undo do when nothing breaks, and what they refuse."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace

import pytest

from pve_passthrough import change
from pve_passthrough.change.engine import LOCK
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.host.base import to_bytes
from pve_passthrough.host.local import Local
from pve_passthrough.model.plan import Cell, Expectation, Plan
from pve_passthrough.model.run import Kind, Phase, Run
from tests.change.scenarios import DROP_IN, LiveToy, Toy, change_of, toy_live, toy_reboot, toy_wrong
from tests.hosts.memory import CARD, CONF, DEVICE, GRUB, GRUB_DIR, MODPROBE, Memory


@pytest.fixture
def toy() -> Toy:
    return Toy()


@pytest.fixture
def live() -> LiveToy:
    return LiveToy()


@pytest.fixture
def plan(toy: Toy) -> Plan:
    return toy_reboot(toy)


def test_there_and_back(toy: Toy, plan: Plan) -> None:
    before = toy.lasting()
    run = change.start(toy.memory, plan)
    assert run.phase is Phase.REBOOT
    assert change.MARKER in toy.memory.disk
    assert change.advance(toy.memory, plan.id).phase is Phase.REBOOT, "no reboot, no step"
    toy.power_cut()
    kept = change.resume(toy.memory)
    assert kept is not None and kept.phase is Phase.KEPT
    assert change.MARKER not in toy.memory.disk
    assert "hostpci0: 0000:01:00,pcie=1" in toy.memory.disk[CONF].decode()
    back = change.undo(toy.memory, plan.id)
    assert back.phase is Phase.UNDO_REBOOT, "the running system was booted with the changes"
    assert toy.lasting() == before
    toy.power_cut()
    assert change.advance(toy.memory, plan.id).phase is Phase.UNDONE
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDONE, "twice is as good as once"


def test_undo_before_the_reboot_needs_no_reboot(toy: Toy, plan: Plan) -> None:
    change.start(toy.memory, plan)
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDONE
    assert toy.memory.refreshed()


def test_an_expectation_that_fails_turns_back_with_the_texts(toy: Toy) -> None:
    plan = toy_wrong(toy)
    change.start(toy.memory, plan)
    toy.power_cut()
    run = change.advance(toy.memory, plan.id)
    assert run.phase is Phase.UNDO_REBOOT
    assert run.retreats == 1
    assert "'intel_iommu=on' instead of 'intel_iommu=off'" in run.reason


def test_a_reboot_undoes_what_lives_until_reboot(live: LiveToy) -> None:
    plan = toy_live(live)
    assert change.start(live.memory, plan).phase is Phase.KEPT
    live.power_cut()
    run = change.undo(live.memory, plan.id)
    assert run.phase is Phase.UNDONE
    wrote = [event.detail for event in run.events if event.kind is Kind.WROTE][len(plan.changes) :]
    assert not any(cell.startswith(("driver:", "sysfs:", "vmstate:")) for cell in wrote)
    assert "unit:ours.service" in wrote


def test_drift_before_the_start_touches_nothing(toy: Toy, plan: Plan) -> None:
    toy.meddle()
    before = dict(toy.memory.disk)
    with pytest.raises(change.Drift) as caught:
        change.start(toy.memory, plan)
    problem = caught.value.problem
    assert problem.ref == "plan.drift"
    assert "  now: # somebody else was here" in problem.context
    assert '  before: GRUB_CMDLINE_LINUX_DEFAULT="quiet"' in problem.context
    assert '  planned: GRUB_CMDLINE_LINUX_DEFAULT="quiet splash"' in problem.context
    assert toy.memory.disk == before
    assert change.all_runs(toy.memory).runs == ()


def test_drift_on_the_way_back_keeps_the_run_and_the_foreign_text(live: LiveToy) -> None:
    plan = toy_live(live)
    change.start(live.memory, plan)
    live.meddle()
    with pytest.raises(change.Drift):
        change.undo(live.memory, plan.id)
    assert live.meddled()
    assert change.load(live.memory, plan.id).phase is Phase.KEPT


def test_drift_while_waiting_for_the_reboot_is_stuck_and_opens_when_the_text_is_put_back(toy: Toy, plan: Plan) -> None:
    change.start(toy.memory, plan)
    toy.meddle()
    toy.power_cut()
    run = change.advance(toy.memory, plan.id)
    assert run.phase is Phase.STUCK
    assert toy.meddled()
    assert change.unfinished(toy.memory) is None and change.MARKER not in toy.memory.disk
    toy.memory.disk[GRUB] = to_bytes(plan.changes[3].after or "")
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDO_REBOOT


def test_other_keys_of_the_guest_may_change_meanwhile(toy: Toy) -> None:
    """Only our keys are compared, and the way back leaves the others alone."""
    plan = replace(toy_reboot(toy), reboot=False, expects=())
    assert change.start(toy.memory, plan).phase is Phase.KEPT
    toy.memory.disk[CONF] = toy.memory.disk[CONF].replace(b"name: lin", b"name: renamed")
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDONE
    assert toy.memory.disk[CONF] == b"bios: ovmf\ncores: 4\nname: renamed\n"


def test_a_failing_retreat_is_stuck_and_can_be_asked_again(toy: Toy, plan: Plan) -> None:
    before = toy.lasting()
    toy.memory.broken.add("update-initramfs")
    run = change.start(toy.memory, plan)
    assert run.phase is Phase.STUCK
    assert run.retreats == 1
    assert "update-initramfs: failed for" in run.reason
    assert change.resume(toy.memory) is None, "stuck is left to people"
    toy.memory.broken.clear()
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDONE
    assert toy.lasting() == before


def test_a_command_that_refuses_turns_back_with_its_words(toy: Toy, plan: Plan) -> None:
    toy.memory.broken.add("pvesh")
    run = change.start(toy.memory, plan)
    assert run.phase is Phase.UNDONE
    assert "pvesh: failed for" in run.reason


def test_one_at_a_time(toy: Toy, plan: Plan) -> None:
    with toy.memory.lock(LOCK), pytest.raises(Failure) as caught:
        change.start(toy.memory, plan)
    assert caught.value.problem.ref == "run.locked"
    assert caught.value.code is Exit.LOCKED


def test_no_second_plan_while_a_run_has_not_ended(toy: Toy, plan: Plan) -> None:
    older = replace(toy_live(LiveToy()), changes=(change_of("unit:ours.service", "disabled", "enabled"),))
    assert change.start(toy.memory, older).phase is Phase.KEPT
    waiting = change.start(toy.memory, plan)
    calls: list[Callable[[], Run]] = [
        lambda: change.start(toy.memory, replace(plan, id="new")),
        lambda: change.undo(toy.memory, older.id),
    ]
    for call in calls:
        with pytest.raises(Failure) as caught:
            call()
        assert caught.value.problem.ref == "run.unfinished"
        assert waiting.plan.id in caught.value.problem.hint
    assert [run.phase for run in change.all_runs(toy.memory).runs] == [Phase.KEPT, Phase.REBOOT]


def test_runs_are_listed_in_the_order_in_which_they_began(toy: Toy) -> None:
    """Two plans of one second, and one that was kept for later: the newest run is undone first."""
    live = toy_live(LiveToy())
    later = replace(live, id="20261121-140502-b", changes=(change_of("unit:ours.service", "disabled", "enabled"),))
    kept = replace(live, id="20261121-140502-a", changes=(change_of("unit:ours.service", "enabled", "disabled"),))
    assert change.start(toy.memory, later).phase is Phase.KEPT
    assert change.start(toy.memory, kept).plan.id == "20261121-140503-a"
    assert [run.plan.id[-1] for run in change.all_runs(toy.memory).runs] == ["b", "a"]


def test_another_plan_of_the_same_name_is_a_run_of_its_own(toy: Toy) -> None:
    """Two commands in one second have one goal and one name; the very same plan does not run twice."""
    live = toy_live(LiveToy())
    there = replace(live, id="20261121-140502-a", changes=(change_of("unit:ours.service", "disabled", "enabled"),))
    back = replace(there, changes=(change_of("unit:ours.service", "enabled", "disabled"),))
    assert change.start(toy.memory, there).phase is Phase.KEPT
    with pytest.raises(Failure, match="there is already a run"):
        change.start(toy.memory, there)
    assert change.start(toy.memory, back).plan.id == "20261121-140503-a"


def test_a_plan_is_for_its_machine(toy: Toy, plan: Plan) -> None:
    with pytest.raises(Failure) as caught:
        change.start(toy.memory, replace(plan, machine="elsewhere-12345678"))
    assert caught.value.problem.ref == "run.other-machine"
    change.start(toy.memory, plan)
    toy.memory.disk["/etc/machine-id"] = b"f" * 32
    with pytest.raises(Failure) as caught:
        change.advance(toy.memory, plan.id)
    assert caught.value.problem.ref == "run.other-machine"


def test_the_machine_name_hides_the_machine_id(toy: Toy) -> None:
    name = change.machine_name(toy.memory)
    assert name.startswith("pve-") and len(name) == len("pve-") + 8
    assert "0123456789ab" not in name
    del toy.memory.disk["/etc/machine-id"]
    assert change.machine_name(toy.memory) == "pve"
    del toy.memory.disk["/etc/hostname"]
    with pytest.raises(Failure):
        change.machine_name(toy.memory)


def test_no_room_stops_before_the_first_change(toy: Toy, plan: Plan) -> None:
    toy.memory.free = 20 << 20
    before = dict(toy.memory.disk)
    with pytest.raises(Failure) as caught:
        change.start(toy.memory, plan)
    assert caught.value.problem.ref == "plan.no-space"
    assert toy.memory.disk == before


def test_no_room_on_the_way_back_still_gives_the_texts_back(toy: Toy) -> None:
    """The files go first: a stale image of the old texts is better than a new image of nobody's."""
    plan = toy_reboot(toy)
    change.start(toy.memory, plan)
    toy.memory.free = 0
    run = change.undo(toy.memory, plan.id)
    assert run.phase is Phase.STUCK
    assert MODPROBE not in toy.memory.disk
    toy.memory.free = 1 << 30
    assert change.undo(toy.memory, plan.id).phase is Phase.UNDONE


def test_a_text_that_its_reader_refuses_is_never_written(toy: Toy, plan: Plan) -> None:
    for cell, text in ((f"file:{DROP_IN}", 'GRUB_CMDLINE_LINUX_DEFAULT="x\n'), (f"file:{MODPROBE}", "bogus line\n")):
        bad = replace(plan, changes=(change_of(f"dir:{GRUB_DIR}", None, "directory"), change_of(cell, None, text)))
        before = dict(toy.memory.disk)
        with pytest.raises(Failure) as caught:
            change.start(toy.memory, bad)
        assert caught.value.problem.ref == "plan.bad-text"
        assert cell.partition(":")[2] in " ".join(caught.value.problem.context), "told by its own name"
        assert toy.memory.disk == before


def test_an_absent_judge_is_told(toy: Toy, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    from pve_passthrough.host.base import Missing, Ran

    real = toy.memory.run

    def without_modprobe(argv: tuple[str, ...], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if argv[0] == "modprobe":
            raise Missing("modprobe", "no such program")
        return real(argv, stdin, timeout)

    monkeypatch.setattr(toy.memory, "run", without_modprobe)
    run = change.start(toy.memory, plan)
    notes = [event.detail for event in run.events if event.kind is Kind.NOTED]
    assert notes == [f"{MODPROBE} was not judged: modprobe is not installed"]


def test_an_unreadable_cell_stops_before_anything(toy: Toy, plan: Plan) -> None:
    del toy.memory.disk[CONF]
    before = dict(toy.memory.disk)
    with pytest.raises(Failure) as caught:
        change.start(toy.memory, plan)
    assert caught.value.problem.ref == "cell.unreadable"
    assert "vm:100/hostpci0" in caught.value.problem.message
    assert toy.memory.disk == before


def test_a_guest_that_was_destroyed_does_not_block_the_machine_for_ever(toy: Toy, plan: Plan) -> None:
    change.start(toy.memory, plan)
    del toy.memory.disk[CONF]
    toy.power_cut()
    with pytest.raises(Failure) as caught:
        change.advance(toy.memory, plan.id)
    assert caught.value.problem.ref == "cell.unreadable"
    assert change.undo(toy.memory, plan.id).phase is Phase.STUCK
    assert change.unfinished(toy.memory) is None


def test_a_directory_that_others_moved_into_stays(toy: Toy, plan: Plan) -> None:
    change.start(toy.memory, plan)
    toy.memory.disk[f"{GRUB_DIR}/theirs.cfg"] = b"GRUB_TIMEOUT=9\n"
    run = change.undo(toy.memory, plan.id)
    assert run.phase is Phase.UNDONE
    assert toy.memory.disk[f"{GRUB_DIR}/theirs.cfg"] == b"GRUB_TIMEOUT=9\n"
    assert any("theirs.cfg" in event.detail for event in run.events if event.kind is Kind.NOTED)


def test_a_driver_between_two_drivers_is_ours_only_after_the_start(live: LiveToy) -> None:
    plan = toy_live(live)
    live.memory.volatile["driver"] = b""
    with pytest.raises(change.Drift):
        change.start(live.memory, plan)


def test_the_driver_override_is_left_as_it_was(live: LiveToy) -> None:
    plan = toy_live(live)
    change.start(live.memory, plan)
    assert live.memory.volatile["driver"] == b"vfio-pci"
    assert live.memory.volatile[f"{DEVICE}/driver_override"] == b"(null)\n"
    change.undo(live.memory, plan.id)
    assert live.memory.volatile["driver"] == b"nouveau"


def test_a_foreign_driver_override_survives(live: LiveToy) -> None:
    live.memory.volatile[f"{DEVICE}/driver_override"] = b"nvidia\n"
    change.start(live.memory, toy_live(live))
    assert live.memory.volatile[f"{DEVICE}/driver_override"] == b"nvidia\n"


def test_unknown_refreshes_and_cells_are_refused(toy: Toy, plan: Plan) -> None:
    with pytest.raises(Failure) as caught:
        change.start(toy.memory, replace(plan, refreshes=("rm -rf /",)))
    assert caught.value.problem.ref == "refresh.unknown"
    for name in ("relative", "/etc/../etc/shadow"):
        with pytest.raises(Failure) as caught:
            change.start(toy.memory, replace(plan, changes=(change_of(f"file:{name}", None, "x"),)))
        assert caught.value.problem.ref == "cell.unknown"


def test_nothing_to_change_is_a_run_that_is_kept(toy: Toy) -> None:
    expects = (Expectation(Cell("driver", CARD), "nouveau", "a test"),)
    plan = Plan("empty", change.machine_name(toy.memory), "nothing", expects=expects)
    assert change.start(toy.memory, plan).phase is Phase.KEPT
    with pytest.raises(Failure) as caught:
        change.start(toy.memory, plan)
    assert caught.value.problem.ref == "run.exists"


def test_a_tree_that_is_only_read_refuses(tmp_path: object, plan: Plan) -> None:
    with pytest.raises(Failure) as caught:
        change.start(Local(str(tmp_path)), plan)
    assert caught.value.code is Exit.REFUSED


def test_the_boot_unit_waits_for_quorum_only_while_told(toy: Toy, plan: Plan, monkeypatch: pytest.MonkeyPatch) -> None:
    change.start(toy.memory, plan)
    toy.power_cut()
    toy.memory.disk["/etc/pve/.members"] = b'{"nodename": "pve", "cluster": {"quorate": 0}}'
    slept: list[float] = []

    def sleep(seconds: float) -> None:
        slept.append(seconds)
        toy.memory.disk["/etc/pve/.members"] = b'{"nodename": "pve", "cluster": {"quorate": 1}}'

    monkeypatch.setattr("time.sleep", sleep)
    run = change.resume(toy.memory, patience=30.0)
    assert run is not None and run.phase is Phase.KEPT
    assert len(slept) == 1


def test_a_leftover_marker_goes(toy: Toy) -> None:
    memory: Memory = toy.memory
    memory.directories.add("/var/lib/pve-passthrough")
    memory.disk[change.MARKER] = b"gone\n"
    assert change.resume(memory) is None
    assert change.MARKER not in memory.disk
