"""The verb `diagnose` on hosts: starts that failed, watching, the walk, captures with logs, pages of causes."""

from __future__ import annotations

import json
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import evidence, walk, watch
from pve_passthrough.app.diagnose import ask
from pve_passthrough.capture import unpack
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import Ran
from pve_passthrough.host.replay import Replay
from pve_passthrough.host.simulated import Simulated, move, power_on
from pve_passthrough.knowledge.causes import CAUSES
from pve_passthrough.knowledge.one_change import CHANGES
from pve_passthrough.knowledge.symptom_words import WORDS
from tests.copies import copy_of

CARD, SOUND = "0000:01:00.0", "0000:01:00.1"


def qm(host: Simulated, *words: str) -> Ran:
    return host.run(("qm", *words))


def set_up(host: Simulated) -> None:
    """A guest with the card, as a sensible person makes it, and with an agent that answers."""
    assert qm(host, "set", "100", "--machine", "q35", "--cpu", "host", "--agent", "1", "--hostpci0", "01:00,pcie=1").ok
    drivers = {"10de:2684": "nvidia", "10de:22ba": "snd_hda_intel"}
    change(host, guests={"100": {"agent": True, "drivers": drivers}})


def change(host: Simulated, **values: Any) -> None:
    machine = host.world.machine()
    machine.update(values)
    host.world.save_machine(machine)
    power_on(host.world)


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return copy_of("default", tmp_path / "host", set_up)


def told(host: Simulated, capsys: pytest.CaptureFixture[str], *words: str) -> tuple[int, Any]:
    """Exit code and the JSON of a diagnosis."""
    capsys.readouterr()
    code = run(["--host", host.name, "diagnose", "--output-format", "json", *words])
    return code, json.loads(capsys.readouterr().out)


# -- starts that failed --------------------------------------------------------------------------


def no_iommu(host: Simulated) -> None:
    change(host, firmware={**host.world.machine().get("firmware", {}), "iommu": False})
    assert not qm(host, "start", "100").ok


def shared_group(host: Simulated) -> None:
    """The sound function goes back to its driver after the bind: as a driver does that somebody binds by hand."""
    assert qm(host, "set", "100", "--hostpci0", "0000:01:00.0,pcie=1").ok
    change(host, faults=[f"bind:{SOUND}"])
    assert not qm(host, "start", "100").ok


def moved_card(host: Simulated) -> None:
    entry = f"node=pve,path={CARD},id=10de:2684,iommugroup=1"
    assert host.run(("pvesh", "create", "/cluster/mapping/pci", "--id", "card", "--map", entry)).ok
    assert qm(host, "set", "100", "--hostpci0", "mapping=card,pcie=1").ok
    move(host.world, CARD, "0000:05:00.0")
    assert not qm(host, "start", "100").ok


def dead_card(host: Simulated) -> None:
    change(host, faults=[f"dead-after-stop:{CARD}"])
    assert qm(host, "start", "100").ok
    assert qm(host, "stop", "100").ok
    assert not qm(host, "start", "100").ok


def two_guests(host: Simulated) -> None:
    assert qm(host, "create", "101", "--machine", "q35", "--hostpci0", "01:00,pcie=1").ok
    assert qm(host, "start", "101").ok
    assert not qm(host, "start", "100").ok


def lost_rom(host: Simulated) -> None:
    assert qm(host, "set", "100", "--hostpci0", "01:00,pcie=1,romfile=card.rom").ok
    assert not qm(host, "start", "100").ok


SCENARIOS: tuple[tuple[Callable[[Simulated], None], frozenset[str], str], ...] = (
    (no_iommu, frozenset({"iommu-off"}), "firmware's setup"),
    (shared_group, frozenset({"host-driver-busy", "group-shared-host-device"}), "plan 01:00 --vm 100"),
    (moved_card, frozenset({"bdf-renumbered"}), "mapping repair card"),
    (dead_card, frozenset({"reset-defective"}), "reset show 01:00.0"),
    (two_guests, frozenset({"bad-vm-config", "host-driver-busy"}), "qm shutdown 101"),
    (lost_rom, frozenset({"rom-invalid"}), "rom install card.rom"),
)


@pytest.mark.parametrize(("happens", "causes", "typed"), SCENARIOS, ids=lambda one: getattr(one, "__name__", ""))
def test_a_start_that_failed_names_its_cause(
    host: Simulated, capsys: pytest.CaptureFixture[str], happens: Callable[[Simulated], None],
    causes: frozenset[str], typed: str,
) -> None:  # fmt: skip
    happens(host)
    code, answer = told(host, capsys, "--vm", "100")
    first = answer["causes"][0]
    assert code == Exit.BLOCKED
    assert first["cause"] in causes
    assert {"cause", "confidence", "evidence", "next"} <= first.keys()
    assert all({"source", "line", "text"} <= one.keys() for one in first["evidence"])
    assert 0 < first["confidence"] < 1
    assert any(typed in words for words in (first["next"]["change"], *first["next"]["commands"]))
    assert all(host.name in command for command in first["next"]["commands"] if command.startswith("pve-passthrough"))


def test_the_log_of_the_failed_start_is_part_of_the_evidence(
    host: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    lost_rom(host)
    _, answer = told(host, capsys, "--vm", "100")
    lines = [one for one in answer["causes"][0]["evidence"] if one["source"].startswith("task qmstart 100")]
    assert [one["line"] for one in lines] == [1]
    assert "failed to find romfile" in lines[0]["text"]


def test_a_failure_before_the_last_good_start_is_history(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    lost_rom(host)
    assert qm(host, "set", "100", "--hostpci0", "01:00,pcie=1").ok
    assert qm(host, "start", "100").ok
    _, answer = told(host, capsys, "--vm", "100")
    assert not any(source.startswith("task") for source in answer["read"])


def test_a_guest_that_works_is_said_to_work(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert qm(host, "start", "100").ok
    code, answer = told(host, capsys, "--vm", "100")
    assert (code, answer["causes"][0]["cause"]) == (Exit.FINE, "no-fault")
    assert "10de:2684: nvidia" in [one["text"] for one in answer["causes"][0]["evidence"]]


def test_windows_codes_come_through_the_agent(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    guest = {"agent": True, "os": "windows", "drivers": {"10de:2684": "nvlddmkm"}, "problems": {"10de:2684": 43}}
    change(host, guests={"100": guest})
    assert qm(host, "start", "100").ok
    _, answer = told(host, capsys, "--vm", "100")
    assert "guest 100, device manager" in answer["read"]
    assert answer["causes"][0]["cause"] != "no-fault"


def test_the_guests_own_kernel_is_asked(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert qm(host, "start", "100").ok
    _, answer = told(host, capsys, "--vm", "100")
    assert answer["read"]["guest 100, kernel log"] == "guest-log"


# -- what is read --------------------------------------------------------------------------------


def test_the_log_of_the_boot_before_is_read(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    dead_card(host)
    power_on(host.world)
    _, answer = told(host, capsys)
    sources = {one["source"] for cause in answer["causes"] for one in cause["evidence"]}
    assert evidence.LAST_BOOT in answer["read"]
    assert evidence.LAST_BOOT in sources


def test_that_it_was_well_before_the_last_boot_refutes_nothing(
    host: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    no_iommu(host)
    _, answer = told(host, capsys, "--vm", "100")
    assert "iommu group" in host.run(evidence.BEFORE).stdout
    assert not any(one["source"] == evidence.LAST_BOOT for one in answer["causes"][0]["against"])


def test_without_a_journal_the_kernels_memory_is_read(host: Simulated) -> None:
    change(host, failing=["journalctl"])
    found = ask(host)
    assert evidence.THIS_BOOT in found.diagnosis.read
    assert evidence.LAST_BOOT not in found.diagnosis.read


def test_what_nobody_can_read_is_said(host: Simulated) -> None:
    change(host, failing=["journalctl", "dmesg"])
    assert any(doubt.startswith(evidence.THIS_BOOT) for doubt in ask(host).diagnosis.doubts)


def test_an_index_full_of_junk_is_read_as_far_as_it_makes_sense(host: Simulated) -> None:
    lost_rom(host)
    good = host.world.text(f"{evidence.TASKS}/index") or ""
    host.world.put(f"{evidence.TASKS}/index", "\x00\x01 junk\nUPID:\nUPID:a:b:c:d:qmstart:100:x:\n" + good)
    tasks = evidence.tasks_of(host, 100, [])
    assert [task.kind for task in tasks if task.kind == "qmstart"] == ["qmstart"]
    host.world.put(evidence.log_path(tasks[-1].upid), None)
    doubts: list[str] = []
    assert evidence.failed_starts(host, tasks, doubts) == []
    assert len(doubts) == 1


def test_a_task_that_runs_is_in_the_list_of_the_active_ones(host: Simulated) -> None:
    upid = "UPID:pve:000003F1:00018704:65920080:qmstart:100:root@pam:"
    host.world.put(f"{evidence.TASKS}/active", f"{upid} 0\n")
    assert [(task.upid, task.status) for task in evidence.tasks_of(host, 100, [])] == [(upid, "")]


def test_a_run_after_which_it_never_started_is_named(host: Simulated) -> None:
    tasks = [evidence.Task("a", "qmstart", "100", 1000, "OK"), evidence.Task("b", "qmstart", "100", 9000, "failed")]
    assert "undo 7" in evidence._turned(tasks, "1970-01-01T01:00:00Z", "7")[0]
    assert evidence._turned(tasks, "1970-01-01T04:00:00Z", "7") == ()
    assert evidence._turned(tasks, "yesterday", "7") == ()


def test_a_guest_that_is_not_there_is_a_usage_error(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["--host", host.name, "diagnose", "--vm", "999"]) == Exit.USAGE
    assert "100" in capsys.readouterr().err


@pytest.mark.parametrize(
    "words",
    [("--walk",), ("--watch",), ("--start", "--vm", "100"), ("--answer", "no", "--vm", "100"),
     ("--walk", "--vm", "100", "--symptom", "x"), ("--vm", "100", "--no-live"), ("--for", "magic")],
)  # fmt: skip
def test_words_that_do_not_go_together_are_refused(
    host: Simulated, capsys: pytest.CaptureFixture[str], words: tuple[str, ...]
) -> None:
    assert run(["--host", host.name, "diagnose", *words]) == Exit.USAGE
    assert capsys.readouterr().out == ""


# -- symptom words -------------------------------------------------------------------------------


def test_words_and_changes_speak_of_causes_that_exist() -> None:
    codes = {row.code for row in CAUSES}
    assert {cause for seen in WORDS.values() for cause in (*seen.so, *seen.never)} <= codes
    assert {row.cause for row in CHANGES} <= codes


@pytest.mark.parametrize("word", WORDS)
def test_a_word_alone_names_no_cause(word: str) -> None:
    assert ask(None, symptom="it does not work", seen=word).diagnosis.first.cause == "unknown"


def test_a_word_decides_between_two_causes(tmp_path: Path) -> None:
    log = tmp_path / "kernel.txt"
    log.write_text("vfio-pci 0000:01:00.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0xffff\n")
    plain, with_word = ask(None, [str(log)]), ask(None, [str(log)], seen="black-screen")

    def share(asked: Any) -> float:
        return float(sum(one.confidence for one in asked.diagnosis.candidates if one.cause == "rom-invalid"))

    assert share(with_word) > share(plain) > 0


# -- captures ------------------------------------------------------------------------------------


def test_a_capture_with_logs_gives_the_same_cause_elsewhere(host: Simulated, tmp_path: Path) -> None:
    lost_rom(host)
    data = app.capture(host, logs=True)
    replay = Replay(unpack(data, "x"), "capture:x")
    found = ask(replay, vmid=100)
    assert found.diagnosis.first.cause == "rom-invalid"
    assert any("failed to find romfile" in one.text for one in found.diagnosis.first.supporting)


def test_a_capture_says_nobody_who_started_what(host: Simulated) -> None:
    lost_rom(host)
    index = f"{evidence.TASKS}/index"
    upid = "UPID:pve:000003F1:00018704:65920080:qmstart:100:alice@pve!token:"
    backup = "UPID:pve:000003F2:00018705:65920081:vzdump:100:bob@pve:"
    host.world.put(index, f"{upid} 65920090 secret words\n{backup} 65920091 OK\n{host.world.text(index)}")
    host.world.put(evidence.log_path(upid), "start failed: QEMU exited with code 1\n")
    answers = unpack(app.capture(host, logs=True), "x")
    text = repr(answers)
    assert "qmstart" in text
    assert "alice" not in text
    assert "bob" not in text


def test_without_logs_a_capture_holds_none(host: Simulated) -> None:
    lost_rom(host)
    answers = unpack(app.capture(host), "x")
    assert not any(path.startswith(evidence.TASKS) for path in answers.reads)


# -- watching ------------------------------------------------------------------------------------


class Clock:
    """Time that passes only while somebody sleeps; `events` happen at their moment."""

    def __init__(self, *events: tuple[float, Callable[[], object]]) -> None:
        self.now, self._events = 0.0, sorted(events, key=lambda one: one[0])

    def sleep(self, seconds: float) -> None:
        self.now += seconds
        while self._events and self._events[0][0] <= self.now:
            self._events.pop(0)[1]()


def follow(host: Simulated, clock: Clock, **more: Any) -> tuple[watch.Ended, list[watch.Said]]:
    said: list[watch.Said] = []
    ended = watch.watch(host, 100, tell=said.append, sleep=clock.sleep, clock=lambda: clock.now, patience=60, **more)
    return ended, said


def test_a_person_presses_start_and_it_fails(host: Simulated) -> None:
    assert qm(host, "set", "100", "--hostpci0", "01:00,pcie=1,romfile=card.rom").ok
    ended, said = follow(host, Clock((5.0, lambda: qm(host, "start", "100"))))
    assert ended is watch.Ended.FAILED
    assert any(one.sign is not None and "failed to find romfile" in one.sign.text for one in said)
    assert "press Start" in said[0].text


def test_a_person_presses_start_and_it_works(host: Simulated) -> None:
    ended, said = follow(host, Clock((5.0, lambda: qm(host, "start", "100"))))
    assert ended is watch.Ended.WORKS
    assert [one.text.partition(" ended: ")[2] for one in said if " ended: " in one.text] == ["OK"]


def test_lines_of_the_kernel_are_told_once_and_none_from_before(host: Simulated) -> None:
    def kernel(line: str) -> None:
        state = host.world.state()
        state.setdefault("dmesg", []).append(line)
        host.world.save_state(state)

    line = f"vfio-pci {CARD}: not ready 65535ms after FLR; giving up"
    kernel(line)
    ended, said = follow(host, Clock((3.0, lambda: kernel(line.replace("FLR", "bus reset")))))
    assert ended is watch.Ended.TIMEOUT
    assert [one.sign.text for one in said if one.sign is not None] == [line.replace("FLR", "bus reset")]


def test_a_guest_without_an_agent_runs_and_no_more_is_said(host: Simulated) -> None:
    assert qm(host, "set", "100", "--delete", "agent").ok
    ended, _ = follow(host, Clock((2.0, lambda: qm(host, "start", "100"))))
    assert ended is watch.Ended.RUNS


def test_it_starts_the_guest_when_asked(host: Simulated) -> None:
    ended = watch.watch(
        host, 100, tell=lambda said: None, start=True, patience=120.0, sleep=lambda seconds: time.sleep(0.02)
    )
    assert ended is watch.Ended.WORKS


def test_a_start_that_would_take_the_roots_disk_is_refused(tmp_path: Path) -> None:
    host = copy_of("shared-sata", tmp_path / "host", set_up)
    with pytest.raises(Failure) as caught:
        follow(host, Clock(), start=True)
    assert caught.value.code is Exit.REFUSED
    assert not host.world.exists("/run/qemu-server/100.pid")


def test_a_guest_that_runs_is_not_watched(host: Simulated) -> None:
    assert qm(host, "start", "100").ok
    with pytest.raises(Failure) as caught:
        follow(host, Clock())
    assert caught.value.problem.ref == "watch.running"


def test_the_watch_ends_in_a_diagnosis(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert qm(host, "set", "100", "--hostpci0", "01:00,pcie=1,romfile=card.rom").ok
    code = run(["--host", host.name, "diagnose", "--vm", "100", "--watch", "--start", "--output-format", "json"])
    shown = capsys.readouterr()
    assert code == Exit.BLOCKED
    assert json.loads(shown.out)["causes"][0]["cause"] == "rom-invalid"
    assert "failed to find romfile" in " ".join(shown.err.split())


def test_an_interrupt_ends_the_watch_and_not_the_diagnosis(
    host: Simulated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupted(*given: object, **more: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(watch, "watch", interrupted)
    code = run(["--host", host.name, "diagnose", "--vm", "100", "--watch", "--start", "--output-format", "json"])
    shown = capsys.readouterr()
    assert code == Exit.COULD_NOT
    assert json.loads(shown.out)["causes"][0]["cause"] == "unknown"
    assert "qm status 100" in shown.err


# -- the walk ------------------------------------------------------------------------------------


def test_the_walk_stands_where_something_is_wrong(host: Simulated) -> None:
    no_iommu(host)
    here = walk.walk(host, 100).here
    assert here is not None
    assert (here.name, here.judged) == ("iommu", walk.Judged.WRONG)


def test_a_try_is_never_repeated_and_every_answer_stays(host: Simulated) -> None:
    lost_rom(host)
    names: list[str] = []
    result = walk.walk(host, 100)
    while result.now is not None:
        assert len(names) < 40
        names.append(result.now.name)
        assert len(result.now.commands) <= 1
        result = walk.walk(host, 100, walk.Answer.NO)
    assert len(names) == len(set(names)) > 3
    assert [one.name for one in walk.recall(host, 100)] == names
    assert walk.walk(host, 100).now is None
    with pytest.raises(Failure):
        walk.walk(host, 100, walk.Answer.NO)


def test_what_was_mended_is_seen_without_an_answer(host: Simulated) -> None:
    lost_rom(host)
    before = walk.walk(host, 100)
    assert before.here is not None
    assert before.here.name == "config"
    assert qm(host, "set", "100", "--hostpci0", "01:00,pcie=1").ok
    after = walk.walk(host, 100)
    assert before.now is not None
    assert "guests.rom-file" in before.now.name
    assert before.now.name not in {one.name for step in after.steps for one in step.tries}
    assert after.tried == ()


def test_what_helped_ends_the_walk(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    lost_rom(host)
    words = ["--host", host.name, "diagnose", "--walk", "--vm", "100"]
    assert run([*words, "--answer", "helped"]) == Exit.FINE
    assert "This was it" in capsys.readouterr().out
    assert run(words) == Exit.FINE
    assert run([*words, "--anew"]) == Exit.BLOCKED
    assert not host.world.exists(walk.path_of(100))


def test_every_variable_has_its_way_back(host: Simulated) -> None:
    assert qm(host, "set", "100", "--args", "-cpu 'host,kvm=off'", "--usb0", "host=046d:c52b").ok
    step = next(one for one in walk.walk(host, 100).steps if one.name == "minimal")
    assert {"minimal:-args", "minimal:-usb0", "minimal:-hostpci0"} <= {one.name for one in step.tries}
    for one in step.tries:
        before = dict(app.look(host).guest(100).config)  # type: ignore[union-attr]
        _typed(host, one.commands[0])
        assert dict(app.look(host).guest(100).config) != before  # type: ignore[union-attr]
        _typed(host, one.back[0])
        assert dict(app.look(host).guest(100).config) == before  # type: ignore[union-attr]


def _typed(host: Simulated, command: str) -> None:
    import shlex

    assert host.run(tuple(shlex.split(command))).ok, command


def test_the_guard_against_harmful_starts_is_no_variable(host: Simulated) -> None:
    plan = app.plan(host, ["gpu"], 100, accept=("only-display",))
    app.apply(host, plan.plan)
    guest = app.look(host).guest(100)
    assert guest is not None
    assert guest.value("hookscript")
    step = next(one for one in walk.walk(host, 100).steps if one.name == "minimal")
    assert "minimal:-hookscript" not in {one.name for one in step.tries}


@pytest.mark.parametrize(
    "text",
    ["", "[]", "{", '{"format": 2, "vmid": 100, "tried": []}', '{"format": 1, "vmid": 101, "tried": []}',
     '{"format": 1, "vmid": 100, "tried": [{"name": "a\\u001b[2J", "answer": "no", "when": ""}]}',
     '{"format": 1, "vmid": 100, "tried": [{"name": "a", "answer": "perhaps", "when": ""}]}', "[" * 5000],
)  # fmt: skip
def test_a_memory_that_does_not_fit_is_left_alone(host: Simulated, text: str) -> None:
    host.world.put(walk.path_of(100), text)
    with pytest.raises(Failure) as caught:
        walk.walk(host, 100, walk.Answer.NO)
    assert caught.value.problem.ref == "walk.unreadable"
    assert host.world.text(walk.path_of(100)) == text


def test_a_capture_is_walked_without_a_memory(host: Simulated) -> None:
    lost_rom(host)
    replay = Replay(unpack(app.capture(host, logs=True), "x"), "capture:x")
    result = walk.walk(replay, 100, walk.Answer.NO)
    assert not result.remembered
    assert walk.walk(replay, 100).tried == ()


# -- pages ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("code", [row.code for row in CAUSES])
def test_every_cause_has_a_page(code: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain", code]) == Exit.FINE
    shown = capsys.readouterr().out
    assert shown.startswith(f"{code}: ")
    assert "Change:" in shown


def test_causes_are_listed_and_another_word_for_one_is_understood(capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["explain"]) == Exit.FINE
    assert {row.code for row in CAUSES} <= set(capsys.readouterr().out.split())
    assert run(["explain", "d3cold"]) == Exit.FINE
    assert capsys.readouterr().out.startswith("power-state: ")
    assert run(["explain", "no-such-thing"]) == Exit.USAGE
