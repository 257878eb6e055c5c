"""BARs: what a device has, what it could have, what a guest would see of it, and another size from the next boot on.

1. Nothing here prints or asks. A plan is returned; `app.apply` runs it.
2. A size is looked at on the host only: a guest sees the size that the BAR has there.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import rules
from ..errors import Exit, Failure
from ..host.base import Host
from ..knowledge import windows
from ..knowledge.windows import Window, shown
from ..model.facts import Facts
from ..model.finding import Finding, Level
from ..model.own import CLAIM_SCRIPT
from ..model.pci import Address, Bar, Device
from ..model.value import dataclass
from ..model.vm import Vm
from . import look, machine_of, now, prefix, resolve

if TYPE_CHECKING:
    from ..model.plan import Plan


@dataclass(frozen=True, slots=True)
class Inside:
    """What a guest has of addresses for its devices: `need` bytes into `window`; `fits` None: nobody could say."""

    vm: Vm
    need: int
    window: Window
    fits: bool | None


@dataclass(frozen=True, slots=True)
class Looked:
    """`lasting`: sizes that our script sets at boot, by function and BAR."""

    facts: Facts
    devices: tuple[Device, ...]
    inside: tuple[Inside, ...]
    lasting: Mapping[tuple[Address, int], int]


def look_at(host: Host, word: str, vmid: int | None = None) -> Looked:
    """The BARs of the functions that `word` names, and what guests that have them (or guest `vmid`) open for them."""
    facts = look(host, deep=True)
    addresses = resolve(facts, (word,))
    devices = tuple(device for device in map(facts.device, addresses) if device is not None)
    if vmid is not None and facts.guest(vmid) is None:
        raise Failure(
            "guest.missing", f"Nothing was looked at: this node has no guest {vmid}.",
            hint="qm list shows the guests.", code=Exit.USAGE,
        )  # fmt: skip
    having = [guest for guest in facts.guests or () if guest.vmid == vmid or _has(guest, addresses)]
    return Looked(facts, devices, tuple(_inside(facts, guest, addresses) for guest in having), _lasting(facts))


def _has(guest: Vm, addresses: Sequence[Address]) -> bool:
    return any(address in entry.addresses for entry in guest.hostpci for address in addresses)


def _inside(facts: Facts, guest: Vm, addresses: Sequence[Address]) -> Inside:
    wanted = {address for entry in guest.hostpci for address in entry.addresses} | set(addresses)
    slots: dict[str, list[Device]] = {}
    for device in facts.devices:
        if device.address in wanted:
            slots.setdefault(device.address.slot, []).append(device)
    need, opened = windows.demand(slots.values()), windows.window_of(guest, facts.cpu)
    return Inside(guest, need, opened, windows.fits(need, opened))


def _lasting(facts: Facts) -> dict[tuple[Address, int], int]:
    from ..planning import claim_script
    from ..planning.proof import Unprovable

    try:
        found = claim_script.sizes_of(facts.files.get(CLAIM_SCRIPT))
    except Unprovable:
        return {}
    return {place: size for place, (identity, size) in found.items() if _is_there(facts, place[0], identity)}


def _is_there(facts: Facts, address: Address, identity: str) -> bool:
    device = facts.device(address)
    return device is not None and device.id == identity


def next_step(result: Looked) -> str:
    """The command that a person would type next; empty when nothing is left to wish."""
    start = prefix(result.facts.host)
    for one in result.inside:
        if one.fits is False and result.devices:
            return f"{start} check {result.devices[0].address} --vm {one.vm.vmid}"
    for device in result.devices:
        for bar in device.bars or ():
            if device.is_display and bar.placed and 0 < bar.size < max(bar.sizes, default=0):
                return f"{start} bars {device.address} --set {bar.index}={windows.short(max(bar.sizes))}"
    return ""


# -- another size --------------------------------------------------------------------------------


def parse_setting(text: str) -> tuple[int, int]:
    """`1=8G` as (BAR, bytes). Raises Failure."""
    index, equals, size = text.partition("=")
    wanted = windows.parse_size(size) if equals else None
    if not (index.isascii() and index.isdecimal() and int(index) < 6) or not wanted:
        raise Failure(
            "bars.setting", f"Nothing was planned: {text!r} names no BAR and size.",
            hint="Write the BAR's number and a size, as in 1=8G or 0=256M.", code=Exit.USAGE,
        )  # fmt: skip
    return int(index), wanted


def plan_sizes(host: Host, word: str, settings: Sequence[tuple[int, int]]) -> Plan:
    """The plan that gives these BARs of one function these sizes. Raises Failure."""
    return plan_sizes_from(look(host, deep=True), word, settings, machine=machine_of(host))


def plan_sizes_from(facts: Facts, word: str, settings: Sequence[tuple[int, int]], *, machine: str) -> Plan:
    """The same from facts alone."""
    from ..planning import bars, make_plan

    if len({index for index, _ in settings}) != len(settings):
        raise Failure(
            "bars.setting", "Nothing was planned: one BAR is named with two sizes.",
            hint="Name each BAR once.", code=Exit.USAGE,
        )  # fmt: skip
    device = _one_function(facts, word, [index for index, _ in settings])
    wishes = [wish for index, size in settings for wish in bars.size(facts, device, index, size)]
    said = ", ".join(f"BAR {index} to {shown(size)}" for index, size in settings)
    made = make_plan(facts, wishes, goal=f"set {said} on {device.address}", now=now(), machine=machine)
    then = _resized(device, {wish.index: wish.size for wish in wishes})
    return replace(
        made, risks=(*made.risks, *_too_large(facts, then)), devices={str(device.address): device.id} if wishes else {}
    )


def _one_function(facts: Facts, word: str, indices: Sequence[int]) -> Device:
    """Of a card's functions the one that is meant: the only one named, else the only one with such BARs."""
    found = [device for device in map(facts.device, resolve(facts, (word,))) if device is not None]
    having = [device for device in found if all(_bar(device, index) for index in indices)]
    resizing = [device for device in having if all((bar := _bar(device, index)) and bar.sizes for index in indices)]
    for candidates in (found, resizing, having, found[:1]):
        if len(candidates) == 1:
            return candidates[0]
    raise Failure(
        "bars.which", f"Nothing was planned: {word} names several functions with such a BAR.",
        *map(str, resizing or having), hint="Name one by its address.", code=Exit.USAGE,
    )  # fmt: skip


def _bar(device: Device, index: int) -> Bar | None:
    return next((bar for bar in device.bars or () if bar.index == index and not bar.io), None)


def _resized(device: Device, sizes: Mapping[int, int]) -> Device:
    return replace(device, bars=tuple(replace(bar, size=sizes.get(bar.index, bar.size)) for bar in device.bars or ()))


def _too_large(facts: Facts, then: Device) -> tuple[Finding, ...]:
    """What the rule about windows would say of the guests that have the function, were its BARs as planned."""
    devices = tuple(then if device.address == then.address else device for device in facts.devices)
    changed = replace(facts, devices=devices)
    having = [guest.vmid for guest in facts.guests or () if _has(guest, (then.address,))]
    return tuple(
        finding
        for vmid in having
        for finding in rules.judge(changed, rules.Request((), vmid))
        if finding.rule == "guests.window" and finding.level in (Level.HARMS, Level.UNKNOWN)
    )
