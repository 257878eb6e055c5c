"""What to install inside a guest, for devices of this host, for a guest's devices, or for an ID alone.

1. Looks at the host only as far as names have to be resolved; changes nothing, there or in the guest.
2. A bare `vendor:device` may be of a card that is not here: what a guest needs depends on the card, not on the host.
   It is said then that nobody looked at a device.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import Exit, Failure
from ..host.base import Host
from ..model.facts import Facts
from ..model.vm import Vm
from ..planning.inside import WINDOWS_PAGE, Card, Recipe, card_by_id, cards_of, plain, recipe

_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


def inside(host: Host, words: Sequence[str], os: str, use: str, vmid: int | None = None) -> Recipe:
    """The recipe for the devices that the words name, else for the guest's own. Raises Failure."""
    from . import look

    facts = look(host)
    guest = None if vmid is None else _guest(facts, vmid)
    cards = _named(facts, words) if words else _owned(facts, guest)
    return recipe(cards, os, use, secure_boot=None if guest is None else guest.secure_boot)


def _guest(facts: Facts, vmid: int) -> Vm:
    guest = facts.guest(vmid)
    if guest is None:
        known = ", ".join(str(one.vmid) for one in facts.guests or ()) or "none"
        reason = "the guests of this node could not be read" if facts.guests is None else f"guests here: {known}"
        raise Failure(
            "inside.no-guest", f"Nothing was printed: there is no guest {vmid} on this node ({reason}).",
            hint="Name the devices instead: pve-passthrough inside gpu --os SYSTEM", code=Exit.USAGE,
        )  # fmt: skip
    if (guest.value("ostype") or "").startswith("w"):
        raise Failure(
            "inside.windows", f"Nothing was printed: guest {vmid} ({plain(guest.name)}) is set up for Windows.",
            hint=WINDOWS_PAGE, code=Exit.USAGE,
        )  # fmt: skip
    return guest


def _owned(facts: Facts, guest: Vm | None) -> tuple[Card, ...]:
    """The cards that the guest's configuration takes."""
    if guest is None:
        raise Failure(
            "inside.nothing-named", "Nothing was printed: neither a device nor a guest was named.",
            hint="pve-passthrough inside gpu --os ubuntu-24.04, or --vm ID for all devices of a guest.",
            code=Exit.USAGE,
        )  # fmt: skip
    addresses = [address for entry in guest.hostpci for address in entry.addresses]
    devices = [device for address in dict.fromkeys(addresses) if (device := facts.device(address))]
    if not devices:
        raise Failure(
            "inside.no-devices",
            f"Nothing was printed: guest {guest.vmid} ({plain(guest.name)}) has no device of this host.",
            hint=f"pve-passthrough plan gpu --vm {guest.vmid}", code=Exit.USAGE,
        )  # fmt: skip
    shared = {address for entry in guest.hostpci if "mdev" in entry.options for address in entry.addresses}
    return cards_of(devices, shared)


def _named(facts: Facts, words: Sequence[str]) -> tuple[Card, ...]:
    """Each word on this host, else as an ID of a card that is elsewhere."""
    cards = [card for word in words for card in _card(facts, word.strip())]
    return tuple(dict.fromkeys(cards))


def _card(facts: Facts, word: str) -> tuple[Card, ...]:
    from ..planning import resolve

    identity = word.lower()
    if not _ID.fullmatch(identity):
        return cards_of([device for address in resolve(facts, (word,)) if (device := facts.device(address))])
    here = [device for device in facts.devices if device.id == identity]
    if here:
        return cards_of(here[:1])  # cards with one ID are alike: which of them it is makes no difference inside
    card = card_by_id(identity)
    if card is None:
        raise Failure(
            "inside.unknown-card",
            f"Nothing was printed: no device of this host is {identity}, and its number tells of no graphics card.",
            hint="Name a device of this host, or the ID of an AMD, Intel or NVIDIA graphics card.", code=Exit.USAGE,
        )  # fmt: skip
    return (card,)
