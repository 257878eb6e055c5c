"""Pools: mappings with several lines of this node, of which each start takes the first free one.

1. Guests that share a pool are no conflict while it has a member for each that runs.
2. Which member a guest has is known to Proxmox alone; here only how many are taken.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.facts import Facts, ResourceMapping
from ..model.mappings import find, lines_of
from ..model.pci import Device
from ..model.vm import HostPci, Vm, expand_host
from .subject import is_local


def pool_named(facts: Facts, name: str) -> ResourceMapping | None:
    """The PCI mapping of this name, when it offers several devices on this node."""
    mapping = find(facts.mappings, "pci", name) if name else None
    return mapping if mapping is not None and len(lines_of(mapping, facts.pve.node)) > 1 else None


def roomy_pool(facts: Facts, entry: HostPci) -> bool:
    """Whether this entry takes from a pool that has a member for every guest of this node that names it."""
    pool = pool_named(facts, entry.mapping)
    if pool is None:
        return False
    return _entries(facts, pool, facts.guests or ()) <= len(lines_of(pool, facts.pve.node))


def _entries(facts: Facts, pool: ResourceMapping, guests: Iterable[Vm]) -> int:
    named = (entry for guest in guests if is_local(facts, guest) for entry in guest.hostpci)
    return sum(entry.mapping == pool.name for entry in named)


def shared_pool(
    facts: Facts, other: Vm, key: str, mine: Vm | None, hit: Iterable[Device]
) -> ResourceMapping | None:  # fmt: skip
    """The pool that the other guest's entry takes from and that is asked for too: by name, or with all its members."""
    entry = next((one for one in other.hostpci if one.key == key), None)
    pool = pool_named(facts, entry.mapping) if entry is not None else None
    if pool is None:
        return None
    known = [device.address for device in facts.devices]
    members = {a for line in lines_of(pool, facts.pve.node) for a in expand_host(line.path, known)}
    bare = {a for one in (mine.hostpci if mine else ()) if one.mapping != pool.name for a in one.addresses}
    named = mine is not None and any(one.mapping == pool.name for one in mine.hostpci)
    asked = members <= {device.address for device in hit}
    return pool if (named or asked) and not bare & members else None


def pool_has_room(facts: Facts, pool: ResourceMapping, vmid: int | None) -> bool:
    """Whether a member is left when all guests but this one that run, or may run, have taken theirs."""
    others = [guest for guest in facts.guests or () if guest.vmid != vmid and guest.running is not False]
    return _entries(facts, pool, others) < len(lines_of(pool, facts.pve.node))
