"""The hookscript as a program: started by a real shell, with stand-ins for the programs that it calls."""

from __future__ import annotations

import os
import subprocess
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.model.facts import Storage
from pve_passthrough.model.hookscript import PATIENCE, Hook, folder_of, parse, render, volume

LOCAL = Storage("local", "dir", frozenset({"iso", "snippets"}), "/var/lib/vz")


class Node:
    """A directory with our program, `pvesm` and another hookscript, each writing down how it was called."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.program = folder / "pve-passthrough"
        self.log = folder / "log"
        self.put("theirs", 'echo "theirs $*" >> {log}; exit ${{THEIRS:-0}}')
        self.put("pvesm", 'test "$*" = "path local:snippets/it\'s.sh" && echo {folder}/theirs')

    def put(self, name: str, body: str) -> Path:
        path = self.folder / name
        path.write_text("#!/bin/sh\n" + body.format(log=self.log, folder=self.folder) + "\n")
        path.chmod(0o755)
        return path

    def call(self, phase: str, *, ours: int | None = 0, theirs: int | None = None) -> tuple[int, list[str], str]:
        """(exit status, calls, stderr); None: that script is not there."""
        if ours is not None:
            self.put("pve-passthrough", f'echo "ours $*" >> {{log}}; exit {ours}')
        other = "" if theirs is None else "local:snippets/it's.sh"
        script = self.folder / "script"
        script.write_text(render(Hook(str(self.program), other)))
        self.log.write_text("")
        environment = {"PATH": f"{self.folder}:/usr/bin:/bin", "THEIRS": str(theirs or 0)}
        ran = subprocess.run(
            ("/bin/sh", str(script), "100", phase), env=environment, capture_output=True, text=True, check=False,
            timeout=20,
        )  # fmt: skip
        return ran.returncode, self.log.read_text().splitlines(), ran.stderr


@pytest.fixture
def node(tmp_path: Path) -> Node:
    return Node(tmp_path)


def test_what_it_passes_on(node: Node) -> None:
    for phase in ("pre-start", "post-start", "pre-stop", "post-stop"):
        assert node.call(phase) == (0, [f"ours hook 100 {phase}"], "")


def test_only_a_proven_finding_stops_a_start(node: Node) -> None:
    assert node.call("pre-start", ours=7)[0] == 1
    for status in (1, 2, 3, 8, 70, 124, 137):
        code, _, said = node.call("pre-start", ours=status)
        assert code == 0 and f"status {status}: guest 100 goes on" in said
    assert node.call("post-stop", ours=7)[0] == 0


def test_without_the_program_the_guest_starts_and_says_so(node: Node) -> None:
    code, calls, said = node.call("pre-start", ours=None)
    assert (code, calls) == (0, []) and "not installed any more: guest 100 goes on (pre-start)" in said


def test_a_program_that_moved_to_the_path_is_found(node: Node, tmp_path: Path) -> None:
    node.put("pve-passthrough", 'echo "ours $*" >> {log}')
    node.program = tmp_path / "gone" / "pve-passthrough"
    assert node.call("pre-start", ours=None)[1] == ["ours hook 100 pre-start"]


def test_the_guests_own_script_runs_too_and_keeps_its_status(node: Node) -> None:
    assert node.call("pre-start", theirs=0)[:2] == (0, ["ours hook 100 pre-start", "theirs 100 pre-start"])
    assert node.call("pre-start", theirs=3)[0] == 3
    assert node.call("post-stop", theirs=3)[:2] == (3, ["theirs 100 post-stop", "ours hook 100 post-stop"])


def test_a_start_that_we_refuse_has_not_touched_anything_of_theirs(node: Node) -> None:
    assert node.call("pre-start", ours=7, theirs=0)[:2] == (1, ["ours hook 100 pre-start"])


def test_their_script_missing_stops_the_start_as_it_would_without_us(node: Node) -> None:
    (node.folder / "theirs").unlink()
    assert node.call("pre-start", theirs=0)[0] != 0
    node.put("pvesm", "echo no such volume >&2; exit 2")
    code, _, said = node.call("pre-start", theirs=0)
    assert code != 0 and "no such volume" in said


def test_a_program_that_hangs_is_ended(node: Node) -> None:
    text = render(Hook(str(node.program)))
    assert f"timeout -k 10 {PATIENCE} " in text
    node.put("pve-passthrough", "sleep 30")
    script = node.put("script", "")
    script.write_text(text.replace(f"timeout -k 10 {PATIENCE}", "timeout -k 1 0.3"))
    ran = subprocess.run((str(script), "100", "pre-start"), capture_output=True, text=True, timeout=10, check=False)
    assert ran.returncode == 0 and "status 124" in ran.stderr


@given(st.text(min_size=1).filter(lambda text: "\n" not in text), st.text().filter(lambda text: "\n" not in text))
def test_what_is_written_is_read_again_and_nothing_else_is_ours(program: str, other: str) -> None:
    text = render(Hook(program, other))
    if parse(text) is not None:  # white space that only the shell's quoting would keep is not promised
        assert parse(text) == Hook(program, other)
    assert parse(text + "#") is None and parse(text.replace("#!/bin/sh", "#!/bin/bash")) is None


def test_plain_paths_are_always_read_again() -> None:
    for hook in (Hook(), Hook("/opt/a b/it's"), Hook("/x", "local:snippets/hook.pl")):
        assert parse(render(hook)) == hook
    assert parse(None) is None and parse("") is None and parse("program='\nother=\n") is None


def test_where_it_may_lie() -> None:
    assert (
        folder_of(LOCAL) == "/var/lib/vz/snippets" and volume(LOCAL, 100) == "local:snippets/pve-passthrough-hook-100"
    )
    unusable = (
        replace(LOCAL, content=frozenset({"iso"})), replace(LOCAL, enabled=False), replace(LOCAL, type="nfs"),
        replace(LOCAL, path=""), replace(LOCAL, path="redacted"), replace(LOCAL, folders="snippets=x"),
    )  # fmt: skip
    assert [folder_of(one) for one in unusable] == [None] * len(unusable)


def test_no_shell_complains() -> None:
    ran = subprocess.run(("sh", "-n"), input=render(Hook("/a b", "c:d")), text=True, check=False, env=dict(os.environ))
    assert ran.returncode == 0
