"""Containers and device nodes as probed from trees: strange files, a host that answers nothing, no program to ask."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough.host.base import Ran
from pve_passthrough.host.local import Local
from pve_passthrough.model.facts import Pve
from pve_passthrough.probe.asking import Asking
from pve_passthrough.probe.containers import node_at, probe_given_nodes, probe_nodes, probe_own_containers
from tests.copies import copy_of

HERE = Pve(True, "9.2.11", "9.2.6", "pve", ("pve",))


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    for folder in ("etc/pve/nodes/pve/lxc", "sys/fs/cgroup/lxc/100", "dev/dri", "sys/class/drm/renderD128"):
        (tmp_path / folder).mkdir(parents=True)
    return tmp_path


def conf(tree: Path, name: str, text: str) -> None:
    (tree / "etc/pve/nodes/pve/lxc" / name).write_text(text)


def test_only_files_of_containers_are_read(tree: Path) -> None:
    conf(tree, "100.conf", "hostname: a\ndev0: /dev/kfd,gid=5\n")
    conf(tree, "101.conf", "hostname: b\0\n")
    conf(tree, "99.conf", "hostname: c\n")
    conf(tree, "x.conf", "hostname: d\n")
    ask = Asking(Local(str(tree)))
    found = probe_own_containers(ask, HERE)
    assert found is not None and [(one.number, one.running) for one in found] == [(100, True)]
    assert found[0].devices[0].gid == 5
    assert any(gap.about == "own_containers" and "101" in gap.reason for gap in ask.gaps)


def test_without_a_node_nobody_can_say(tree: Path) -> None:
    assert probe_own_containers(Asking(Local(str(tree))), Pve(True)) is None
    assert probe_own_containers(Asking(Local(str(tree))), Pve(False)) == ()


def test_a_tree_tells_numbers_alone(tree: Path) -> None:
    """No program is started for a tree; the kernel's class still says which number the node had."""
    (tree / "dev/dri/renderD128").write_text("")
    (tree / "dev/dri/renderD128x").write_text("")
    (tree / "sys/class/drm/renderD128/dev").write_text("226:128\n")
    ask = Asking(Local(str(tree)))
    (node,) = probe_nodes(ask) or ()
    assert (node.number, node.mode, node.address) == ("226:128", None, None)
    assert any(gap.about == "dev_nodes" for gap in ask.gaps)


@pytest.mark.parametrize(
    "said", ["", "x", "/dev/kfd\t21b0\tzz\t0\t0\t0\ta\tb", "/dev/else\t21b0\t1\t0\t0\t0\ta\tb", "\t" * 7]
)
def test_what_stat_says_is_checked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str) -> None:
    host = copy_of("containers", tmp_path / "host")
    monkeypatch.setattr(host, "run", lambda argv, stdin=b"", timeout=60.0: Ran(0, f"{said}\n"))
    assert probe_nodes(Asking(host)) == ()
    assert node_at(host, "/dev/kfd") is None
    assert node_at(host, "/etc/passwd") is None


def test_a_record_that_is_none_gives_nothing(tmp_path: Path) -> None:
    host = copy_of("containers", tmp_path / "host")
    home = "/var/lib/pve-passthrough/runs/20260101-000000-lxc-200"
    host.world.put(f"{home}/journal.jsonl", "")
    host.world.put(f"{home}/plan.json", "{")
    assert probe_given_nodes(Asking(host)) == ()
