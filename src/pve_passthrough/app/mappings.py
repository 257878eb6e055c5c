"""Resource mappings: look, make, mend, take away, and who may use them.

1. Nothing here prints or asks. A plan is returned; `app.apply` runs it as any other.
2. Rights are described, never given: an undo could not tell ours from others'.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import rules
from ..errors import Exit, Failure
from ..host.base import Host
from ..knowledge.mappings import Judged, State, fault, hardware_of, judge_mapping
from ..model.facts import Facts, ResourceMapping
from ..model.finding import Finding, Level
from ..model.mappings import lines_of, parse_mapping, users
from ..model.usb import UsbDevice
from ..model.value import dataclass
from ..model.vm import Vm, expand_host
from . import look, machine_of, now, resolve

if TYPE_CHECKING:
    from ..model.pci import Address
    from ..model.plan import Plan
    from ..model.wish import MappingText
    from ..planning.grants import Recipe


@dataclass(frozen=True, slots=True)
class Shown:
    """One mapping.

    lines  every line, judged: those of other nodes are `elsewhere`
    users  guests that name it, of all nodes, and under which key; None: nobody could say
    fault  why no guest of this node starts with it, empty when nothing is known to be wrong
    """

    mapping: ResourceMapping
    lines: tuple[Judged, ...]
    users: tuple[tuple[Vm, str], ...] | None
    fault: str

    @property
    def state(self) -> State:
        """Of this node's lines the worst."""
        here = [one.state for one in self.lines if one.state is not State.ELSEWHERE]
        order = (State.LIES, State.ABSENT, State.STALE, State.UNKNOWN, State.FINE)
        if self.fault and not any(one.wrong for one in self.lines) and here:
            return State.STALE  # every line is right, and together no guest starts with them
        return next((state for state in order if state in here), State.ELSEWHERE)


@dataclass(frozen=True, slots=True)
class Listed:
    """All mappings asked for. `unread`: parts of the files that could not be read."""

    facts: Facts
    mappings: tuple[Shown, ...]
    unread: tuple[str, ...]

    @property
    def stale(self) -> bool:
        return any(one.state in (State.LIES, State.ABSENT, State.STALE) for one in self.mappings)

    @property
    def unknown(self) -> bool:
        return bool(self.unread) or any(one.state is State.UNKNOWN for one in self.mappings)


def listed(host: Host, name: str = "") -> Listed:
    """All mappings, or the one with this name. Raises Failure for a name that there is not."""
    facts = look(host)
    if name:
        from ..planning.mappings import existing

        existing(facts, name)
    hardware = hardware_of(facts)
    known = facts.guests is not None and facts.gap("guests") is None
    shown = tuple(
        Shown(
            one,
            judge_mapping(hardware, one),
            users(facts, one) if known else None,
            fault(hardware, one) if lines_of(one, hardware.node) else "",
        )
        for one in facts.mappings
        if name in ("", one.name)
    )
    gaps = (gap for gap in facts.gaps if gap.about.partition(".")[0] == "mappings")
    return Listed(facts, shown, tuple(f"{gap.about}: {gap.reason}" for gap in gaps))


# -- plans ----------------------------------------------------------------------------------------


def plan_create(
    host: Host,
    name: str,
    words: Sequence[str],
    *,
    usb: bool = False,
    alone: bool = False,
    mdev: bool = False,
    live_migration: bool = False,
    description: str = "",
) -> Plan:
    """The plan that makes the mapping. Raises Failure, also when there is one of that name."""
    from ..model.mappings import find
    from ..planning.mappings import mapping_of

    facts = look(host, inventory=mdev)
    kind = "usb" if usb or any(word.startswith("usb:") for word in words) else "pci"
    there = find(facts.mappings, kind, name)
    if there is not None:
        raise Failure(
            "mapping.exists", f"Nothing was planned: there is a mapping {name} already.",
            *(f"{line.node}: {line.path or line.options.get('id', '')}" for line in there.entries),
            hint=f"pve-passthrough mapping add {name} DEVICE", code=Exit.USAGE,
        )  # fmt: skip
    devices, by_port = _devices(facts, kind, words, alone)
    wish = mapping_of(
        facts, kind, name, devices,
        mdev=mdev, description=description, live_migration=live_migration, by_port=by_port,
    )  # fmt: skip
    return _plan(host, facts, wish, f"make the mapping {name}")


def plan_add(host: Host, name: str, words: Sequence[str], *, alone: bool = False) -> Plan:
    """The plan that lets a mapping offer these devices of this node too. Raises Failure."""
    from ..planning.mappings import existing, mapping_of

    facts = look(host)
    mapping = existing(facts, name)
    devices, by_port = _devices(facts, mapping.kind, words, alone)
    wish = mapping_of(facts, mapping.kind, name, devices, by_port=by_port)
    return _plan(host, facts, wish, f"add {' '.join(words)} to the mapping {name}")


def plan_repair(host: Host, name: str, words: Sequence[str] = ()) -> Plan:
    """The plan that sets this node's lines right. Raises Failure where nothing is certain."""
    from ..planning.mapping_repair import repair

    facts = look(host, inventory=True)
    return _plan(host, facts, repair(facts, name, words), f"repair the mapping {name}")


def plan_delete(host: Host, name: str, *, here: bool = False) -> Plan:
    """The plan that takes the mapping away; `here`: only what it offers of this node. Raises Failure."""
    from ..planning.mapping_repair import remove

    facts = look(host)
    return _plan(host, facts, remove(facts, name, here=here), f"delete the mapping {name}")


def grant(host: Host, name: str, *, user: str = "", token: str = "", vmid: int | None = None) -> Recipe:
    """What a user or a token needs for the mapping. Changes nothing."""
    from ..planning.grants import grant as rights

    return rights(look(host), name, user=user, token=token, vmid=vmid)


def _plan(host: Host, facts: Facts, wish: MappingText, goal: str) -> Plan:
    """The mapping's own plan: the devices that it names must still be there when it is applied."""
    from ..planning import make_plan

    made = make_plan(facts, (wish,), goal=goal, now=now(), machine=machine_of(host))
    offered = _named(facts, wish)
    named = {str(device.address): device.id for device in map(facts.device, offered) if device}
    risks = _hazards(facts, offered) if made.changes else ()
    return replace(made, devices=named, risks=(*made.risks, *risks))


def _hazards(facts: Facts, offered: tuple[Address, ...]) -> tuple[Finding, ...]:
    """What the host loses when somebody who may use the mapping starts a guest: nobody asks a person then."""
    if not offered:
        return ()
    found = rules.judge(facts, rules.Request(offered))
    return tuple(one for one in found if one.hazard and one.level in (Level.BLOCKS, Level.HARMS))


def _named(facts: Facts, wish: MappingText) -> tuple[Address, ...]:
    """Functions of this node that the mapping will offer."""
    made = parse_mapping(wish.kind, wish.name, wish.text)
    if made is None or made.kind != "pci" or facts.pve.node is None:
        return ()
    known = [device.address for device in facts.devices]
    return tuple(a for line in lines_of(made, facts.pve.node) for a in expand_host(line.path, known))


def _devices(
    facts: Facts, kind: str, words: Sequence[str], alone: bool
) -> tuple[tuple[Address | UsbDevice, ...], bool]:  # fmt: skip
    """What the words name; the second: whether a USB device is meant by its socket."""
    if kind == "pci":
        return resolve(facts, words, alone=alone), True
    found = [_usb(facts, word.removeprefix("usb:")) for word in words]
    return tuple(device for device, _ in found), all(by_port for _, by_port in found)


def _usb(facts: Facts, word: str) -> tuple[UsbDevice, bool]:
    at = next((one for one in facts.usb if one.port == word), None)
    if at is not None and not word.startswith("usb"):
        return at, True
    alike = [one for one in facts.usb if one.id == word.lower()]
    if alike:
        return alike[0], False
    raise Failure(
        "device.unknown", f"Nothing was planned: {word!r} is no USB device that is plugged in.",
        *(f"{one.port}  {one.id}  {one.name}" for one in facts.usb if not one.port.startswith("usb")),
        *((f"usb.devices: {gap.reason}",) if (gap := facts.gap("usb.devices")) else ()),
        hint="Name a socket (1-4, 2-1.3) or a number (046d:c52b).", code=Exit.USAGE,
    )  # fmt: skip
