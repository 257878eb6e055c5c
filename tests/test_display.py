"""The second step: the guest's virtual display goes once somebody gets in without it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import screen
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.model.run import Phase

CONFIG = "/etc/pve/qemu-server/100.conf"


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    create(str(tmp_path / "sim"), "rtx-3080")
    host = Simulated(str(tmp_path / "sim"))
    assert app.apply(host, app.plan(host, ["gpu"], 100).plan).phase is Phase.KEPT
    return host


def inside(host: Simulated, **what: Any) -> None:
    path = Path(host.world.directory, "sim", "machine.json")
    machine = json.loads(path.read_text())
    machine["guests"]["100"] |= what
    path.write_text(json.dumps(machine))


def config(host: Simulated) -> dict[str, str]:
    lines = host.read(CONFIG).decode().split("\n[", 1)[0].splitlines()
    return dict(line.split(": ", 1) for line in lines if ": " in line)


def test_nothing_goes_while_nobody_answers(host: Simulated) -> None:
    before = host.read(CONFIG)
    with pytest.raises(Failure) as caught:
        screen.card_only(host, 100)
    assert caught.value.problem.ref == "display.no-agent"
    assert host.run(("qm", "start", "100")).ok
    inside(host, addresses=["192.0.2.10"], listens={"3389": "not RDP"})
    with pytest.raises(Failure) as caught:
        screen.card_only(host, 100)
    assert caught.value.problem.ref == "display.nobody-answers" and caught.value.code is Exit.REFUSED
    assert any("SSH" in line and "closed" in line for line in caught.value.problem.context)
    assert host.read(CONFIG) == before


def test_an_answer_is_proof_and_the_change_waits_for_the_next_start(host: Simulated) -> None:
    assert host.run(("qm", "start", "100")).ok
    inside(host, addresses=["192.0.2.10"], listens={"22": "SSH-2.0-OpenSSH_9.2"})
    found = screen.card_only(host, 100)
    assert [one.service for one in found.answers if not one.error] == ["SSH"]
    assert app.apply(host, found.plan).phase is Phase.KEPT
    assert "vga" not in config(host)
    assert host.run(("qm", "stop", "100")).ok and host.run(("qm", "start", "100")).ok
    assert (config(host)["vga"], config(host)["hostpci0"]) == ("none", "0000:01:00,pcie=1,x-vga=1")


def test_insisting_and_the_way_back(host: Simulated) -> None:
    before = host.read(CONFIG)
    assert run(["--host", host.name, "display", "--vm", "100", "--insist", "--yes"]) == Exit.FINE
    assert config(host)["vga"] == "none"
    assert run(["--host", host.name, "display", "--vm", "100", "--rescue", "--yes"]) == Exit.FINE
    assert (config(host)["vga"], config(host)["hostpci0"]) == ("std", "0000:01:00,pcie=1")
    assert app.undo(host).phase is Phase.UNDONE and app.undo(host).phase is Phase.UNDONE
    assert host.read(CONFIG) == before
