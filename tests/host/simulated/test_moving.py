"""A card's bus gets another number: everything the kernel shows follows, and nothing that a person wrote does."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.errors import Failure
from pve_passthrough.host import simulated
from pve_passthrough.host.simulated import Simulated
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.pci import Address

Machine = Callable[[str], Simulated]


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return lambda seed: simulated.create(str(tmp_path / seed), seed)


def facts(host: Simulated) -> Facts:
    return app.look(host, inventory=True)


def shape(known: Facts, bus: int) -> list[tuple[object, ...]]:
    """What is known of the functions on a bus, without their addresses."""
    found = [one for one in known.devices if one.address.bus == bus]
    return [
        (
            one.address.function,
            one.id,
            one.name,
            one.driver,
            one.iommu_group,
            one.parent,
            one.bars,
            one.serial,
            one.link,
        )
        for one in found
    ]


def dangling(host: Simulated) -> list[str]:
    top = str(Path(host.world.directory) / "sys")
    places = [os.path.join(folder, name) for folder, folders, files in os.walk(top) for name in folders + files]
    return [place for place in places if os.path.islink(place) and not os.path.exists(place)]


@pytest.mark.parametrize("seed", ["default", "amd-secureboot"])
def test_the_card_is_the_same_at_its_new_address(machine: Machine, seed: str) -> None:
    host = machine(seed)
    slot = {"default": "0000:01:00", "amd-secureboot": "0000:03:00"}[seed]
    bus, broken = int(slot[5:7], 16), dangling(host)
    before = facts(host)
    assert shape(before, bus)
    etc = {path: path.read_bytes() for path in Path(host.world.directory, "etc").rglob("*") if path.is_file()}
    simulated.move(host.world, slot, "0000:20:00")
    after = facts(host)
    assert shape(after, 0x20) == shape(before, bus) and not shape(after, bus)
    assert len(after.devices) == len(before.devices) and dangling(host) == broken
    assert {path: path.read_bytes() for path in etc} == etc
    assert not any(slot in place for place in map(str, Path(host.world.directory, "sys").rglob("*")))


def test_two_buses_exchange_their_numbers(machine: Machine) -> None:
    """The root disk's bus, too: the machine starts, and its uses follow the controller."""
    host = machine("default")
    before = facts(host)
    simulated.move(host.world, "01:00.0", "02:00.0")
    after = facts(host)
    assert shape(after, 2) == shape(before, 1) and shape(after, 1) == shape(before, 2)
    assert not host.world.state().get("down")
    disk = [use for use in after.uses if use.kind.value == "root-disk"]
    assert {use.address for use in disk} == {Address.parse("01:00.0")}


def test_there_and_back_is_the_machine_that_it_was(machine: Machine) -> None:
    host = machine("twins")
    before = facts(host)
    simulated.move(host.world, "01:00", "0a:00")
    simulated.move(host.world, "0a:00", "01:00")
    assert facts(host).devices == before.devices and facts(host).uses == before.uses


@pytest.mark.parametrize(
    ("old", "new", "why"),
    [
        ("01:00", "01:00", "already"),
        ("09:00", "0a:00", "nothing in slot"),
        ("00:17.0", "05:17.0", "alone"),
        ("01:00", "01:01", "number of the bus"),
        ("01:00", "0001:01:00", "number of the bus"),
        ("gpu", "0a:00", "not a PCI address"),
    ],
)
def test_what_cannot_be_renumbered_is_refused(machine: Machine, old: str, new: str, why: str) -> None:
    host = machine("default")
    before = facts(host).devices
    with pytest.raises(Failure, match=why):
        simulated.move(host.world, old, new)
    assert facts(host).devices == before
