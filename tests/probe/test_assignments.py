"""Records of runs, as they are and as somebody may have left them: believed whole or not at all."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pve_passthrough.capture import pack, unpack
from pve_passthrough.change import dump_plan, load_plan
from pve_passthrough.change.journal import RUNS as JOURNAL_RUNS
from pve_passthrough.host.local import Local
from pve_passthrough.host.replay import Answers, Recorder, Replay
from pve_passthrough.model.facts import Storage
from pve_passthrough.model.hookscript import Hook, render
from pve_passthrough.model.identity import Assignment, Identity
from pve_passthrough.model.own import RUNS
from pve_passthrough.model.pci import Address
from pve_passthrough.model.plan import Plan
from pve_passthrough.model.run import Kind
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.assignments import probe_assignments, probe_hookscripts

from .trees import plant

CARD = Identity(
    Address.parse("01:00.0"), "10de:2684", "RTX 4090", "1043:889a", 0x030000, "04-42-1a-ff-ff-00-00-01",
    "0000:00:01.0/00.0", {"0000:01:00.0": "10de:2684"}, ("0000:00:06.0/00.0",),
)  # fmt: skip
PLAN = Plan("20261121-120000-gpu", "pve-1", "give gpu to guest 100", vmid=100, identities=(CARD,))
KEPT = (Kind.STARTED, Kind.APPLIED, Kind.VERIFIED)


def journal(*kinds: Kind) -> str:
    return "".join(
        json.dumps({"event": kind.value, "boot": "b", "time": "t", "detail": "of athena"}) + "\n" for kind in kinds
    )


def record(root: Path, name: str = PLAN.id, events: str = journal(*KEPT), plan: str = dump_plan(PLAN)) -> Path:
    return plant(root, {f"{RUNS}/{name}/journal.jsonl": events, f"{RUNS}/{name}/plan.json": plan})


def asked(root: Path) -> tuple[tuple[Assignment, ...], str]:
    ask = Asking(Local(str(root)))
    return probe_assignments(ask), "; ".join(f"{gap.about}: {gap.reason}" for gap in ask.gaps)


def test_the_places_are_the_journals_own() -> None:
    assert RUNS == JOURNAL_RUNS


def test_a_kept_run_is_remembered_whole(tmp_path: Path) -> None:
    assert asked(record(tmp_path)) == ((Assignment(PLAN.id, 100, (CARD,)),), "")


def test_plans_with_identities_are_read_back_and_older_ones_without(tmp_path: Path) -> None:
    assert load_plan(dump_plan(PLAN)) == PLAN
    older = json.loads(dump_plan(PLAN))
    del older["plan"]["identities"]
    text = json.dumps(older)
    assert load_plan(text) == replace(PLAN, identities=())
    assert asked(record(tmp_path, plan=text)) == ((), "")


@pytest.mark.parametrize(
    "kinds",
    [(), (Kind.STARTED,), (Kind.STARTED, Kind.BOOT_NEEDED), (*KEPT, Kind.UNDO_ASKED),
     (*KEPT, Kind.UNDO_ASKED, Kind.RESTORED), (Kind.STARTED, Kind.STUCK)],
)  # fmt: skip
def test_a_run_that_does_not_stand_gives_nothing(tmp_path: Path, kinds: tuple[Kind, ...]) -> None:
    assert asked(record(tmp_path, events=journal(*kinds))) == ((), "")


def test_a_torn_last_line_did_not_happen(tmp_path: Path) -> None:
    assert asked(record(tmp_path, events=journal(*KEPT) + '{"event": "undo-')) != ((), "")
    assert len(asked(record(tmp_path / "b", events=journal(*KEPT) + '{"eve\n'))[0]) == 1


def edited(**changes: object) -> str:
    data = json.loads(dump_plan(PLAN))
    data["plan"]["identities"][0].update(changes)
    return json.dumps(data)


@pytest.mark.parametrize(
    "plan",
    ["", "{", "[]", "null", '{"plan": 3}', '{"plan": {"vmid": 100, "identities": {"a": 1}}}',
     '{"plan": {"vmid": "100; rm", "identities": [1]}}', '{"plan": {"vmid": 100, "identities": [[]]}}', "[" * 5000,
     edited(address="../../etc"), edited(address=3), edited(id="10de"), edited(class_code="x"), edited(group=[1]),
     edited(group={"a": 1}), edited(twins="x"), edited(twins=[1]), edited(serial=None), edited(path="x" * 5000)],
)  # fmt: skip
def test_a_record_that_is_none_is_a_gap_and_never_believed_in_part(tmp_path: Path, plan: str) -> None:
    record(tmp_path, plan=plan)
    record(tmp_path, name="20261122-good")
    found, gaps = asked(tmp_path)
    assert [one.run for one in found] == ["20261122-good"]
    assert gaps.startswith("assignments: ") and PLAN.id in gaps


def test_a_journal_that_is_none_is_a_gap(tmp_path: Path) -> None:
    for number, events in enumerate(('{"event": "no"}\n' + journal(*KEPT), journal(Kind.VERIFIED))):
        found, gaps = asked(record(tmp_path / str(number), events=events))
        assert found == () and "not a record of this program" in gaps


def test_strange_names_are_passed_over_and_missing_files_are_nothing(tmp_path: Path) -> None:
    plant(tmp_path, {f"{RUNS}/.hidden/plan.json": "{", f"{RUNS}/a b/plan.json": "{", f"{RUNS}/empty/x": ""})
    assert asked(tmp_path) == ((), "")
    assert asked(tmp_path / "nothing") == ((), "")


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    events=st.text(max_size=40) | st.just(journal(*KEPT)), plan=st.text(max_size=60) | st.just(edited(name="\x1b[2J"))
)
def test_nothing_makes_it_raise(tmp_path: Path, events: str, plan: str) -> None:
    folder = tmp_path / RUNS.lstrip("/") / "run"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "journal.jsonl").write_bytes(events.encode("utf-8", "replace"))
    (folder / "plan.json").write_bytes(plan.encode("utf-8", "replace"))
    asked(tmp_path)


def test_a_capture_keeps_the_devices_and_neither_serials_nor_words(tmp_path: Path) -> None:
    recorder = Recorder(Local(str(record(tmp_path))))
    probe_assignments(Asking(recorder))
    data = pack(recorder.answers)
    answers: Answers = unpack(data, "c")
    told = repr(answers)
    assert "04-42-1a" not in told and "athena" not in told and "guest 100" not in told
    (found,) = probe_assignments(Asking(Replay(answers, "capture:c")))
    assert found.identities == (replace(CARD, serial=""),)


# -- hookscripts ---------------------------------------------------------------------------------

LOCAL = Storage("local", "dir", frozenset({"snippets"}), "/var/lib/vz")


def test_a_capture_names_no_other_snippets_and_nobodys_scripts(tmp_path: Path) -> None:
    mine, folder = "/var/lib/vz/snippets/pve-passthrough-hook-100", "/var/lib/vz/snippets"
    plant(tmp_path, {mine: render(Hook("/home/alice/x", "local:snippets/bob.pl")), f"{folder}/carol.sh": ""})
    recorder = Recorder(Local(str(tmp_path)))
    true = probe_hookscripts(Asking(recorder), (LOCAL,))
    answers = unpack(pack(recorder.answers), "c")
    assert not {name for name in ("alice", "bob", "carol") if name in repr(answers)}
    told = probe_hookscripts(Asking(Replay(answers, "capture:c")), (LOCAL,))
    assert told.keys() == true.keys() and told[mine] == render(Hook(other="redacted"))


def test_our_scripts_and_no_others_are_read(tmp_path: Path) -> None:
    mine, folder = "/var/lib/vz/snippets/pve-passthrough-hook-100", "/var/lib/vz/snippets"
    plant(tmp_path, {mine: render(Hook()), f"{folder}/other.sh": "secret"})
    ask = Asking(Local(str(tmp_path)))
    assert probe_hookscripts(ask, (LOCAL, LOCAL)) == {f"{folder}/": "directory", mine: render(Hook())}
    assert probe_hookscripts(ask, (replace(LOCAL, path="/mnt"),)) == {"/mnt/snippets/": None}
    assert probe_hookscripts(ask, (replace(LOCAL, type="nfs"),)) == {}
