"""A new guest that installs what its card needs when it starts for the first time.

1. Pure. The person names the system; it is never guessed from an image's name.
2. It is cloud-init's vendor data, beside what Proxmox VE makes itself (user, keys, network), so none of it is lost.
   Source: Proxmox VE administration guide, Cloud-Init, "Custom Cloud-Init Configuration"; cloud-init, vendor data.
3. cloud-init works at a system's first boot only; in a system that has started already it does nothing.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Exit, Failure
from ..knowledge.guest_drivers import AI
from ..model.facts import Facts
from ..model.hookscript import OURS
from ..model.pci import Device
from ..model.vm import Vm, parse_options
from ..model.wish import Script, VmOption, Wish
from .hookscript import how_to_enable, snippets_storage
from .inside import cards_of, cloud_init, recipe


def first_boot(facts: Facts, guest: Vm, devices: Sequence[Device], inside: str) -> tuple[Wish, ...]:
    """Wishes that let `guest` install what `devices` need. Raises Failure.

    `inside`: the guest's system, and what the card is for when that is not computing: `debian-12`, `debian-12:desktop`.
    """
    system, _, use = inside.partition(":")
    if not any("cloudinit" in value for value in guest.config.values()):
        raise Failure(
            "inside.no-cloud-init", f"Nothing was planned: guest {guest.vmid} ({guest.name}) has no cloud-init drive.",
            hint=f"Make it with `vm create --cloud-image IMAGE`, or install by hand: pve-passthrough inside "
            f"{devices[0].address if devices else 'DEVICE'} --os {system}",
            code=Exit.REFUSED,
        )  # fmt: skip
    chosen = snippets_storage(facts)
    if chosen is None:
        raise _no_storage(facts)
    storage, folder = chosen
    made = recipe(cards_of(devices), system, use or AI, secure_boot=guest.secure_boot)
    name = f"{OURS}guest-{guest.vmid}.yaml"
    why = f"at its first boot the guest installs what {', '.join(map(str, made.cards))} needs"
    option = VmOption(guest.vmid, "cicustom", _custom(guest, f"{storage.name}:snippets/{name}"), why)
    return Script(f"{folder}/{name}", cloud_init(made), why, executable=False), option


def _custom(guest: Vm, volume: str) -> str:
    """The guest's own custom data stays; vendor data of its own is not replaced."""
    had = parse_options(guest.config.get("cicustom", ""), "vendor")
    if had.get("vendor", volume) != volume:
        raise Failure(
            "inside.vendor-data", f"Nothing was planned: guest {guest.vmid} has vendor data of its own.",
            f"cicustom: {guest.config['cicustom']}", hint="Add what `pve-passthrough inside` prints to that file.",
            code=Exit.REFUSED,
        )  # fmt: skip
    return ",".join(f"{key}={text}" for key, text in {**had, "vendor": volume}.items())


def _no_storage(facts: Facts) -> Failure:
    fix = how_to_enable(facts)
    return Failure(
        "inside.no-snippets", "Nothing was planned: no storage on this machine's own disks takes snippets.",
        hint=" ".join((fix.text, *fix.commands)), code=Exit.REFUSED,
    )  # fmt: skip
