"""A machine made from a capture has the captured one's USB tree, and can have its virtual functions."""

from __future__ import annotations

from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.host.replay import Replay
from pve_passthrough.host.simulated import Simulated, create, create_from
from pve_passthrough.model.facts import Facts


def _copied(tmp_path: Path, seed: str) -> tuple[Simulated, Simulated]:
    first = create(str(tmp_path / "first"), seed)
    file = tmp_path / "first.tar.gz"
    file.write_bytes(app.capture(first, redacted=False))
    source = app.open_host(f"capture:{file}")
    assert isinstance(source, Replay)
    create_from(str(tmp_path / "second"), source)
    return first, Simulated(str(tmp_path / "second"))


def _tree(facts: Facts) -> list[tuple[object, ...]]:
    return sorted((one.port, one.id, one.speed, one.name, str(one.controller), one.drivers) for one in facts.usb)


@pytest.mark.parametrize("seed", ["usb-desk", "sriov-nic"])
def test_the_usb_tree_is_the_captured_one(tmp_path: Path, seed: str) -> None:
    first, second = _copied(tmp_path, seed)
    before, after = _tree(app.look(first)), _tree(app.look(second))
    assert before
    assert after == before


def test_virtual_functions_are_made_where_the_captured_card_would_make_them(tmp_path: Path) -> None:
    first, second = _copied(tmp_path, "sriov-nic")
    pf = next(str(one.address) for one in app.look(first).devices if one.sriov_total)
    attribute = f"/sys/bus/pci/devices/{pf}/sriov_numvfs"
    for host in (first, second):
        host.world.sysfs(attribute, "2")
    made, found = (
        {str(one.address): (one.id, one.driver) for one in app.look(host).devices if one.physical_function}
        for host in (first, second)
    )
    assert len(made) == 2
    assert found == made


def test_virtual_functions_that_were_there_go_like_others(tmp_path: Path) -> None:
    first = create(str(tmp_path / "origin"), "sriov-nic")
    pf = next(str(one.address) for one in app.look(first).devices if one.sriov_total)
    alone = first.world.addresses()
    first.world.sysfs(f"/sys/bus/pci/devices/{pf}/sriov_numvfs", "2")
    second = create_from(str(tmp_path / "second"), first)
    assert second.world.addresses() == first.world.addresses() != alone
    second.world.sysfs(f"/sys/bus/pci/devices/{pf}/sriov_numvfs", "0")
    assert second.world.addresses() == alone
