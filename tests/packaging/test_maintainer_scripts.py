"""Removing and purging on made-up machines: the scripts and the program agree on which runs stand.

The scripts are run with DPKG_ROOT, as dpkg(1) does it for a machine in a folder; this machine's own files stay alone.
"""

from __future__ import annotations

import fcntl
import subprocess
from collections.abc import Iterator
from itertools import count
from pathlib import Path

import pytest

from pve_passthrough.change import journal
from pve_passthrough.change.engine import LOCK
from pve_passthrough.model.plan import Cell, Change, Plan
from pve_passthrough.model.run import TRANSITIONS, Kind, Phase, phase_after
from tests.hosts.memory import Memory

DEBIAN = Path(__file__).resolve().parents[2] / "packaging" / "debian"
DECOY = '{"event": "restored", "boot": "", "time": "", "detail": ""}\n{"event": "restored"}'
"""The detail of an event may hold anything, the words of an event too."""


def script(name: str, word: str, root: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        ["/bin/sh", str(DEBIAN / f"pve-passthrough.{name}"), word],
        env={"PATH": "/usr/sbin:/usr/bin:/sbin:/bin", "DPKG_ROOT": str(root), "LC_ALL": "C"},
        capture_output=True, text=True, timeout=30, check=False,
    )  # fmt: skip


def walks(longest: int) -> Iterator[tuple[Kind, ...]]:
    """Every way through the table of events that changes the phase, up to this length."""
    open_ones: list[tuple[tuple[Kind, ...], Phase | None]] = [((), None)]
    while open_ones:
        walk, phase = open_ones.pop()
        if walk:
            yield walk
        if len(walk) < longest:
            for (before, kind), after in TRANSITIONS.items():
                if before is phase and after is not phase:
                    open_ones.append(((*walk, kind), after))


def make(root: Path, *all_walks: tuple[Kind, ...]) -> dict[str, Phase | None]:
    """Write down runs with these events as the program writes them. The phase by the name of the run."""
    memory, phases = Memory(), dict[str, Phase | None]()
    for number, walk in zip(count(1), all_walks, strict=False):
        name = f"20261121-{number:06}"
        change = Change(Cell("file", "/etc/x"), None, "x", "why")
        run = journal.create(memory, Plan(name, "m", "goal", (), (change,), (), False, (), ()))
        run = journal.record(memory, run, Kind.NOTED, DECOY)
        for kind in walk[1:]:
            run = journal.record(memory, run, kind, DECOY)
        phases[name] = phase_after(run.events)
    for path, data in memory.disk.items():
        if path.startswith(journal.STATE):
            (root / path[1:]).parent.mkdir(parents=True, exist_ok=True)
            (root / path[1:]).write_bytes(data)
    return phases


def named(text: str) -> set[str]:
    return {line.strip() for line in text.splitlines() if line.startswith("    2")}


UNDONE = (Kind.STARTED, Kind.APPLIED, Kind.VERIFIED, Kind.UNDO_ASKED, Kind.RESTORED)
KEPT = UNDONE[:3]


@pytest.mark.parametrize(("name", "word"), [("prerm", "remove"), ("postrm", "purge")])
def test_the_scripts_name_exactly_the_runs_that_the_program_calls_not_undone(
    tmp_path: Path, name: str, word: str
) -> None:
    phases = make(tmp_path, *walks(5))
    assert set(phases.values()) == set(Phase)
    done = script(name, word, tmp_path)
    assert done.returncode == 0
    assert named(done.stderr) == {run for run, phase in phases.items() if phase is not Phase.UNDONE}
    assert (tmp_path / journal.STATE[1:]).is_dir()


def test_purge_leaves_nothing_where_nothing_stands(tmp_path: Path) -> None:
    make(tmp_path, UNDONE, UNDONE)
    (tmp_path / LOCK[1:]).parent.mkdir(parents=True)
    (tmp_path / LOCK[1:]).touch()
    done = script("postrm", "purge", tmp_path)
    assert (done.returncode, done.stderr) == (0, "")
    assert not (tmp_path / journal.STATE[1:]).exists()
    assert not (tmp_path / LOCK[1:]).parent.exists()
    assert (tmp_path / "var/lib").is_dir()


def test_purge_of_a_machine_that_was_never_changed_says_nothing(tmp_path: Path) -> None:
    done = script("postrm", "purge", tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_purge_keeps_every_record_while_one_run_stands(tmp_path: Path) -> None:
    make(tmp_path, UNDONE, KEPT)
    before = sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*"))
    done = script("postrm", "purge", tmp_path)
    assert done.returncode == 0
    assert "pve-passthrough undo" in done.stderr
    assert sorted((path, path.is_file() and path.read_bytes()) for path in tmp_path.rglob("*")) == before


@pytest.mark.parametrize("word", ["remove", "upgrade", "failed-upgrade", "abort-install", "disappear"])
def test_only_purge_deletes_anything(tmp_path: Path, word: str) -> None:
    make(tmp_path, UNDONE)
    assert script("postrm", word, tmp_path).returncode == 0
    assert (tmp_path / journal.RUNS[1:]).is_dir()


@pytest.mark.parametrize("word", ["upgrade", "deconfigure", "failed-upgrade"])
def test_an_upgrade_warns_of_nothing(tmp_path: Path, word: str) -> None:
    make(tmp_path, KEPT)
    done = script("prerm", word, tmp_path)
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_a_run_that_never_began_does_not_stand(tmp_path: Path) -> None:
    """A plan without a journal, an empty journal, and a first line that was torn: nothing was changed."""
    make(tmp_path, KEPT, KEPT, KEPT)
    first, second, third = sorted((tmp_path / journal.RUNS[1:]).iterdir())
    (first / "journal.jsonl").unlink()
    (second / "journal.jsonl").write_bytes(b"")
    (third / "journal.jsonl").write_bytes(b'{"event": "star')
    assert script("postrm", "purge", tmp_path).stderr == ""
    assert not (tmp_path / journal.STATE[1:]).exists()


@pytest.mark.parametrize(
    "text",
    [
        b"\0\xff\n",
        b'{"event": "restored", "boot": ',
        b' {"event": "restored", "boot": "", "time": "", "detail": ""}\n',
    ],
    ids=["garbage", "torn", "indented"],
)
def test_what_is_no_event_proves_no_undo(tmp_path: Path, text: bytes) -> None:
    """A torn last event did not happen, for the program and for the scripts."""
    make(tmp_path, KEPT)
    file = next((tmp_path / journal.RUNS[1:]).iterdir()) / "journal.jsonl"
    file.write_bytes(file.read_bytes() + text)
    assert named(script("postrm", "purge", tmp_path).stderr) == {"20261121-000001"}
    assert file.exists()


def test_names_of_runs_reach_the_terminal_without_control_characters(tmp_path: Path) -> None:
    make(tmp_path, KEPT)
    folder = next((tmp_path / journal.RUNS[1:]).iterdir())
    folder.rename(folder.with_name("2\033[2J x"))
    done = script("postrm", "purge", tmp_path)
    assert "\033" not in done.stderr
    assert (tmp_path / journal.RUNS[1:]).is_dir()


def test_a_removal_says_that_a_run_is_unfinished(tmp_path: Path) -> None:
    make(tmp_path, KEPT[:2])
    assert "unfinished" in script("prerm", "remove", tmp_path).stderr
    (tmp_path / journal.MARKER[1:]).unlink()
    assert "unfinished" not in script("prerm", "remove", tmp_path).stderr


def test_a_removal_waits_for_a_run_at_work(tmp_path: Path) -> None:
    lock = tmp_path / LOCK[1:]
    lock.parent.mkdir(parents=True)
    with lock.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        with pytest.raises(subprocess.TimeoutExpired):
            subprocess.run(
                ["/bin/sh", str(DEBIAN / "pve-passthrough.prerm"), "remove"],
                env={"PATH": "/usr/bin:/bin", "DPKG_ROOT": str(tmp_path)}, timeout=0.5, check=False,
            )  # fmt: skip
    assert script("prerm", "remove", tmp_path).returncode == 0
