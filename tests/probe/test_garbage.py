"""A machine whose files are cut, garbled or gone: everything still answers, and nothing becomes fine for it."""

from __future__ import annotations

from functools import cache
from tempfile import mkdtemp
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pve_passthrough import app
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Ran
from pve_passthrough.host.replay import Answers, NoAnswer, Recorder, Replay
from pve_passthrough.host.simulated import create
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.finding import Level, Verdict
from pve_passthrough.probe import FAILED

SEEDS = ("default", "mixed", "bios-grub")
KINDS = ("reads", "names", "links", "rooms", "runs")
NOISE = bytes(range(255, 0, -1)) + b"\x00\x1b]0;x\x07\xff\n[" * 20


@cache
def recorded(seed: str) -> Answers:
    recorder = Recorder(create(f"{mkdtemp(prefix='pve-passthrough-garbage-')}/sim", seed))
    app.look(recorder, deep=True)
    return recorder.answers


def looked(answers: Answers) -> Facts:
    """Facts; a probe part that raised is a defect."""
    facts = app.look(Replay(answers, "capture:x"), deep=True)
    assert [gap for gap in facts.gaps if gap.reason.startswith(FAILED)] == []
    return facts


def verdicts(facts: Facts) -> list[Verdict | None]:
    """Of the host and of the only card for guest 100; None where words could not be understood any more."""
    found: list[Verdict | None] = [app.judge(facts, (), None).verdict]
    try:
        found.append(app.judge(facts, ("0000:01:00.0",), 100).verdict)
        app.plan_from(facts, ("0000:01:00.0",), 100, machine="m")
    except Failure as failure:
        assert failure.problem.ref and failure.problem.message
    return found


def _damaged(answer: Any, how: str, at: float) -> Any:
    if how == "unreadable":
        return NoAnswer(False, "Input/output error")
    if how == "absent":
        return NoAnswer(True, "No such file or directory")
    if isinstance(answer, bytes):
        cut = int(at * len(answer))
        garbled = {"cut": answer[:cut], "empty": b"", "noise": NOISE, "mixed": answer[:cut] + NOISE + answer[cut:]}
        return garbled[how]
    if isinstance(answer, str):
        return {"cut": answer[: int(at * len(answer))], "empty": "", "noise": "\x1b/../\udcff\0", "mixed": answer * 9}[
            how
        ]
    if isinstance(answer, tuple):
        odd = ("..", "a/b", "\x1b[2J", "\udcff", "9" * 5000, "²", "")
        return {"cut": answer[: int(at * len(answer))], "empty": (), "noise": odd, "mixed": answer + odd}[how]
    if isinstance(answer, Ran):
        text = answer.stdout
        said = {"cut": text[: int(at * len(text))], "empty": "", "noise": NOISE.decode("latin-1"), "mixed": text * 2}[
            how
        ]
        return Ran(answer.rc if how != "noise" else 1, said, said)
    return answer


DAMAGE = st.tuples(
    st.sampled_from(KINDS), st.integers(0, 10_000),
    st.sampled_from(["unreadable", "absent", "cut", "empty", "noise", "mixed"]), st.floats(0, 1),
)  # fmt: skip


@settings(max_examples=120, deadline=None, suppress_health_check=list(HealthCheck))
@given(st.sampled_from(SEEDS), st.lists(DAMAGE, min_size=1, max_size=25))
def test_no_damage_is_a_crash(seed: str, damage: list[tuple[str, int, str, float]]) -> None:
    whole = recorded(seed)
    answers = Answers(*(dict(getattr(whole, kind)) for kind in KINDS))
    for kind, number, how, at in damage:
        there = getattr(answers, kind)
        key = sorted(there)[number % len(there)]
        there[key] = there[key] if isinstance(there[key], NoAnswer) else _damaged(there[key], how, at)
    verdicts(looked(answers))


@pytest.mark.parametrize("how", ["unreadable", "noise", "empty"])
def test_a_machine_of_nothing_but_garbage_is_not_ready(how: str) -> None:
    whole = recorded("default")
    for kind in ("reads", "runs"):
        answers = Answers(*(dict(getattr(whole, one)) for one in KINDS))
        there = getattr(answers, kind)
        for key, answer in list(there.items()):
            there[key] = _damaged(answer, how, 0.5)
        if kind == "reads":
            assert Verdict.READY not in verdicts(looked(answers))
        else:
            verdicts(looked(answers))


@pytest.mark.parametrize("how", ["unreadable", "noise", "empty"])
def test_no_single_file_makes_a_card_ready_or_denies_what_is_there(how: str) -> None:
    """Every file in turn. Without it the card may be unknown or blocked, but not ready; and Proxmox VE and the guest do
    not vanish because nobody could read about them."""
    whole = recorded("default")
    assert verdicts(looked(whole))[1] is Verdict.CHANGES_NEEDED
    for path, answer in whole.reads.items():
        if isinstance(answer, NoAnswer) or (path.startswith("/sys/devices/") and "0000:01:00.0" not in path):
            continue
        facts = looked(
            Answers({**whole.reads, path: _damaged(answer, how, 0.5)}, *(getattr(whole, k) for k in KINDS[1:]))
        )
        assert facts.pve.installed is not False, path
        checked = app.judge(facts, ("0000:01:00.0",), 100)
        assert checked.verdict is not Verdict.READY, path
        known = [one.level for one in checked.findings if one.rule == "guests.known"]
        assert Level.BLOCKS not in known, path
        assert facts.guest(100) is not None or facts.gap("guests") is not None or facts.guests is None, path


def test_a_cluster_with_odd_nodes_and_broken_files() -> None:
    whole = recorded("default")
    nodes = "/etc/pve/nodes"
    names = {
        **whole.names,
        nodes: ("pve", "other", "..", "x\x1b[2J", "a_b"),
        f"{nodes}/other/qemu-server": (
            "200.conf",
            "201.conf",
            "202.conf",
            "203.conf.tmp",
            "9" * 30 + ".conf",
            "x\n.conf",
        ),
        f"{nodes}/other/lxc": ("300.conf",),
    }
    reads = {
        **whole.reads,
        f"{nodes}/other/qemu-server/200.conf": NoAnswer(False, "Input/output error"),
        f"{nodes}/other/qemu-server/201.conf": NoAnswer(True, "No such file or directory"),
        f"{nodes}/other/qemu-server/202.conf": b"\x00\xff\x00",
    }
    facts = looked(Answers(reads, names, whole.links, whole.rooms, whole.runs))
    assert facts.guests is not None
    assert {vm.vmid for vm in facts.guests}.isdisjoint({200, 201, 202, 203, 300})
    reasons = " ".join(gap.reason for gap in facts.gaps if gap.about == "guests")
    for part in ("200.conf", "201.conf", "202.conf", "a_b", "\\x1b"):
        assert part in reasons, (part, reasons)
    for vmid in (200, 201, 202):
        (known,) = [one for one in app.judge(facts, (), vmid).findings if one.rule == "guests.known"]
        assert known.level is Level.UNKNOWN


@pytest.mark.parametrize("number", ["²", "9" * 5000, "٣", "-1", "1e9", ""])
def test_numbers_that_are_none(number: str) -> None:
    """Digits that int() refuses, in a guest's configuration and where the kernel would put a plain number."""
    whole = recorded("default")
    conf = f"balloon: {number}\nmemory: {number}\ncores: {number}\nhostpci0: {number}\nname: x\n".encode()
    reads = {
        **whole.reads,
        "/etc/pve/nodes/pve/qemu-server/100.conf": conf,
        "/proc/sys/kernel/osrelease": f"{number}.{number}-pve".encode(),
        "/proc/meminfo": f"MemTotal: {number} kB\n".encode(),
    }
    names = {**whole.names, "/sys/bus/usb/devices": (f"usb{number}", f"{number}-1")}
    verdicts(looked(Answers(reads, names, whole.links, whole.rooms, whole.runs)))


def test_only_odd_nodes_are_not_an_empty_cluster() -> None:
    whole = recorded("default")
    facts = looked(
        Answers(whole.reads, {**whole.names, "/etc/pve/nodes": ("a/b", "..")}, *(getattr(whole, k) for k in KINDS[2:]))
    )
    assert facts.guests is None and facts.pve.nodes is None
