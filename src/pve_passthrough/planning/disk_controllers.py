"""Controllers whose disks the host would take by itself are claimed at boot, so that the host never sees these disks.

1. Pure. By address always: a twin of the controller may carry the host's own disks.
2. No list of disks to leave alone (LVM's global_filter, multipath's blacklist): without a driver there are no disks.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..knowledge.disk_contents import TAKEN_BY_ITSELF, pool_of
from ..model.facts import Facts
from ..model.pci import Device
from ..model.wish import ClaimByAddress, ClaimById, Wish


def keep_from_host(facts: Facts, devices: Sequence[Device], claimed: Iterable[Wish]) -> tuple[Wish, ...]:
    """Claims for those of the devices that carry what a booting host imports, activates or assembles; what is claimed
    already in another way is left out."""
    standing = tuple(claimed)
    ids = {identity for wish in standing if isinstance(wish, ClaimById) for identity in wish.ids}
    addresses = {wish.address for wish in standing if isinstance(wish, ClaimByAddress)}
    wishes: list[Wish] = []
    for device in devices:
        found = dict.fromkeys(
            pool_of(disk)
            for disk in (facts.attached.disks if facts.attached else None) or ()
            if device.address in disk.functions and disk.kind in TAKEN_BY_ITSELF
        )
        if found and device.id not in ids and device.address not in addresses and "?" not in device.id:
            why = f"the host would take {', '.join(found)} behind it when it boots, before the guest has it"
            wishes.append(ClaimByAddress(device.address, device.id, why))
    return tuple(wishes)
