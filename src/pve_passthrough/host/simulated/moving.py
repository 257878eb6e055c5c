"""A card gets another address, as after a firmware update that renumbers the buses.

1. The number of the bus behind the card's port changes and nothing else: the card stays below its port. Where the new
   number belongs to another card, the two exchange their numbers.
2. The machine is off meanwhile; it is switched on again with what its files say, which still name the old address.
   Source: kernel, drivers/pci/probe.c, pci_scan_bridge_extend: a bus number that the firmware has set is kept.
3. What has no bus of its own (functions on a root bus, several cards on one bus) cannot be renumbered in this way.
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator, Mapping

from ...errors import Exit, Failure
from ...model.pci import Address
from . import boot
from .world import MACHINE, STATE, World

_MOVING = ".moving"


def move(world: World, old: str, new: str) -> None:
    """Give the card in slot `old` (`0000:01:00`, or one of its functions) the bus number of `new`. Raises Failure."""
    source, target = _slot(old), _slot(new)
    if source.slot == target.slot:
        raise _refusal(f"{old} is {new} already")
    if (source.domain, source.device) != (target.domain, target.device):
        raise _refusal("only the number of the bus can change")
    _check_alone(world, source)
    exchanged = any(address.startswith(_bus(target)) for address in world.addresses())
    if exchanged:
        _check_alone(world, target)
    elif _bus(target) in {f"{name}:" for name in _known_buses(world)}:
        raise _refusal(f"bus {_bus(target)[:-1]} belongs to a port without a card")
    numbers = {_bus(source)[:-1]: _bus(target)[:-1]}
    numbers |= {_bus(target)[:-1]: _bus(source)[:-1]} if exchanged else {}
    _renumber(world, numbers)
    boot.power_on(world)


def _slot(text: str) -> Address:
    try:
        return Address.parse(text if "." in text else f"{text}.0")
    except ValueError as error:
        raise _refusal(str(error)) from error


def _refusal(reason: str) -> Failure:
    return Failure("sim.no-move", f"Nothing was moved: {reason}.", code=Exit.USAGE)


def _bus(address: Address) -> str:
    return f"{address.domain:04x}:{address.bus:02x}:"


def _check_alone(world: World, card: Address) -> None:
    """The card is there, below a port, and the only one on its bus."""
    mine = [address for address in world.addresses() if address.startswith(_bus(card))]
    if not any(address.startswith(f"{card.slot}.") for address in mine):
        raise _refusal(f"there is nothing in slot {card.slot}")
    if not all(address.startswith(f"{card.slot}.") for address in mine):
        raise _refusal(f"{card.slot} is not alone on its bus")
    if world.device_directory(mine[0]).count("/") < 5:
        raise _refusal(f"{card.slot} sits on the root bus, which has no port")


def _known_buses(world: World) -> Iterator[str]:
    """Numbers that ports have given to the buses below them: `0000:01`."""
    for address in world.addresses():
        yield from world.names(f"{world.device_directory(address)}/pci_bus")


def _renumber(world: World, numbers: Mapping[str, str]) -> None:
    """Every name and every link below /sys that holds a bus number, and what the simulation knows of the hardware."""
    pattern = re.compile(rf"(?<![0-9a-z:])({'|'.join(map(re.escape, numbers))})(?![0-9a-f])")

    def renamed(text: str) -> str:
        return pattern.sub(lambda match: numbers[match.group()], text)

    for path in (MACHINE, STATE):
        world.put(path, renamed(world.text(path) or "{}"))
    top = world.tree.real("/sys")
    waiting: list[str] = []
    for folder, folders, files in os.walk(top, topdown=False):
        for name in (*folders, *files):
            path = f"{folder}/{name}"
            if os.path.islink(path):
                text = os.readlink(path)
                if renamed(text) != text:
                    os.unlink(path)
                    os.symlink(renamed(text), path)
            if renamed(name) != name:
                os.rename(path, f"{folder}/{renamed(name)}{_MOVING}")
                waiting.append(f"{folder}/{renamed(name)}")
    for path in waiting:
        os.rename(f"{path}{_MOVING}", path)
    world.forget_places()
