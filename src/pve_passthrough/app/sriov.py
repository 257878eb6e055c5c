"""Virtual functions: which there are, making them and taking them away, and making them again at a start.

1. Nothing here prints or asks. Plans are returned; `app.apply` runs them.
2. `at_boot` is what our unit calls: it waits for the driver, no longer than it says, makes what our file says for the
   device that is still the same, and touches nothing else. Twice is as good as once.
3. A pool of virtual functions is a mapping of functions that are there: their groups are known only then.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host, HostError, text_or_none
from ..model.facts import Facts
from ..model.own import SRIOV, SRIOV_UNIT
from ..model.pci import Address, Device
from ..model.sriov import NO_MAC, SriovState, VfSettings, parse_conf, state_text
from ..model.value import dataclass
from ..planning.sriov import PATIENCE, Wanted
from . import hook_program, look, machine_of, now, prefix, refuse_hazards, resolve

if TYPE_CHECKING:
    from ..model.plan import Plan

__all__ = [
    "Physical", "Virtual", "Wanted", "at_boot", "listed", "next_step", "plan_create", "plan_mapping", "plan_remove",
]  # fmt: skip

PAUSE = 0.5


@dataclass(frozen=True, slots=True)
class Virtual:
    """One virtual function. `settings`: what is enforced; `guests`: who is to get it; `uses`: what the host does."""

    index: int
    device: Device
    settings: VfSettings
    guests: tuple[int, ...]
    uses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Physical:
    """One physical function.

    trouble   why its driver makes no virtual functions; empty: nothing says so
    at_boot   how many the next start makes; None: none of ours; -1: our file cannot be read
    """

    device: Device
    interface: str
    trouble: str
    at_boot: int | None
    vfs: tuple[Virtual, ...]
    known: bool


def closely(host: Host) -> Facts:
    """A quick look, and a close one at every function that can have virtual ones."""
    from ..probe.sriov import look_at_sriov

    facts = look(host)
    return replace(facts, sriov=look_at_sriov(host, facts.devices))


def listed(host: Host) -> tuple[Facts, tuple[Physical, ...]]:
    """Every function that can have virtual ones, with those it has."""
    facts = closely(host)
    return facts, tuple(_physical(facts, device) for device in facts.devices if device.sriov_total)


def _physical(facts: Facts, device: Device) -> Physical:
    from ..planning import sriov

    pf = next((one for one in facts.sriov or () if one.address == device.address), None)
    state = pf.state if pf else None
    trouble = sriov.not_ready(facts, device, pf)
    try:
        conf = sriov.conf_of(facts, device.address)
        boot = None if conf is None else conf.count
    except ValueError:
        boot = -1
    vfs = tuple(
        _virtual(facts, index, virtual, state)
        for index, address in enumerate(device.virtual_functions)
        if (virtual := facts.device(address)) is not None
    )
    return Physical(device, pf.interface if pf else "", trouble[0] if trouble else "", boot, vfs, state is not None)


def _virtual(facts: Facts, index: int, device: Device, state: SriovState | None) -> Virtual:
    settings = state.vfs[index] if state is not None and index < len(state.vfs) else VfSettings()
    guests = tuple(
        guest.vmid
        for guest in facts.guests or ()
        if facts.pve.node in (None, guest.node) and any(device.address in entry.addresses for entry in guest.hostpci)
    )
    return Virtual(index, device, settings, guests, tuple(use.detail for use in facts.uses_of(device.address)))


def next_step(facts: Facts, found: Sequence[Physical]) -> str:
    """The command that a person would type next."""
    start = prefix(facts.host)
    for one in found:
        free = [virtual for virtual in one.vfs if not virtual.guests and not virtual.uses]
        if free:
            return f"{start} plan {free[0].device.address} --vm ID"
    able = next((one for one in found if not one.trouble and not one.vfs), None)
    return f"{start} sriov create {able.device.address} {min(4, able.device.sriov_total or 1)}" if able else ""


# -- plans ---------------------------------------------------------------------------------------


def plan_create(host: Host, word: str, wanted: Wanted, accept: Iterable[str] = ()) -> Plan:
    """The plan that gives the named function so many virtual ones. Raises Failure."""
    from ..planning import sriov

    facts = closely(host)
    device = _one(facts, word)
    made = sriov.create(
        facts, device, wanted, program=hook_program(host), seed=_seed(host), now=now(), machine=machine_of(host)
    )
    return _judged(facts, device, wanted.count, made, accept)


def plan_remove(host: Host, word: str, accept: Iterable[str] = ()) -> Plan:
    """The plan that takes the virtual functions away, and what makes them at a start. Raises Failure."""
    from ..planning import sriov

    facts = closely(host)
    if (address := _astray(facts, word)) is not None:
        unit = SRIOV_UNIT.format(address=address)
        text, state = _unit(host, unit)
        return sriov.forget(facts, address, state, text, now=now(), machine=machine_of(host))
    device = _one(facts, word)
    made = sriov.remove(facts, device, now=now(), machine=machine_of(host))
    return _judged(facts, device, 0, made, accept)


def _judged(facts: Facts, device: Device, count: int, made: Plan, accept: Iterable[str]) -> Plan:
    """The plan, unless what it would cost stands in the way; notes travel with it."""
    from ..model.finding import Level
    from ..planning import sriov

    found = sriov.hazards(facts, device, count) if made.changes else ()
    refuse_hazards(found, frozenset(accept))
    notes = tuple(one for one in found if one.level in (Level.NOTE, Level.HARMS))
    return replace(made, risks=(*made.risks, *notes))


def plan_mapping(host: Host, word: str, name: str) -> Plan:
    """The plan that makes the virtual functions of the named one a pool: one mapping, the first free one is taken.

    Raises Failure when there are none yet.
    """
    from ..planning import make_plan
    from ..planning.mappings import mapping_of

    facts = closely(host)
    device = _one(facts, word)
    vfs = [virtual for address in device.virtual_functions if (virtual := facts.device(address)) is not None]
    if not vfs:
        raise Failure(
            "sriov.no-pool", f"Nothing was planned: {device} has no virtual functions that could be a pool.",
            hint=f"pve-passthrough sriov create {device.address} COUNT", code=Exit.USAGE,
        )  # fmt: skip
    wish = mapping_of(facts, "pci", name, vfs)
    goal = f"{len(vfs)} virtual functions of {device.address} as the pool {name}"
    wishes = () if wish.text == wish.before else (wish,)
    made = make_plan(facts, wishes, goal=goal, now=now(), machine=machine_of(host))
    return replace(made, devices={str(one.address): one.id for one in vfs})


def _one(facts: Facts, word: str) -> Device:
    """The one function that the word names, which need not be its card's only one."""
    found = [device for device in map(facts.device, resolve(facts, (word,), alone=True)) if device is not None]
    able = [device for device in found if device.sriov_total] if len(found) > 1 else found
    if len(able) == 1:
        return able[0]
    raise Failure(
        "sriov.which", f"Nothing was planned: {word} names {len(found)} functions.", *map(str, found[:16]),
        hint="Name one by its address.", code=Exit.USAGE,
    )  # fmt: skip


def _astray(facts: Facts, word: str) -> Address | None:
    """An address for which we have a file, and where no such function is."""
    try:
        address = Address.parse(word.strip().lower())
    except ValueError:
        return None
    device = facts.device(address)
    there = device is not None and bool(device.sriov_total)
    return address if facts.files.get(SRIOV.format(address=address)) is not None and not there else None


def _unit(host: Host, unit: str) -> tuple[str | None, str]:
    """The unit's text and whether a start runs it."""
    try:
        text = text_or_none(host, f"/etc/systemd/system/{unit}")
        wants = host.names("/etc/systemd/system/multi-user.target.wants")
    except HostError as error:
        raise Failure("sriov.unit", "Nothing was planned: the unit could not be read.", str(error)) from error
    return text, "enabled" if unit in wants else "disabled"


def _seed(host: Host) -> str:
    """What fixed addresses follow from: the machine's id, which is confidential (machine-id(5)), so it is hashed."""
    try:
        return host.read("/etc/machine-id").decode("ascii", "replace").strip() or machine_of(host)
    except HostError:
        return machine_of(host)


# -- at a start ----------------------------------------------------------------------------------


def at_boot(host: Host, address: str, say: Callable[[str], None], patience: float = PATIENCE) -> None:
    """Make what our file says. Raises Failure, with nothing changed, when the device is another one or its driver
    is not there in time."""
    from ..change.cells import read_cell, same_text, write_cell
    from ..model.plan import Cell

    place = _address(address)
    wanted = _conf(host, place)
    _await(host, place, wanted.id, patience)
    cell = Cell("sriov", str(place))
    standing = read_cell(host, cell)
    text = state_text(wanted)
    if same_text(cell, standing, text):
        say(f"{place} has its {wanted.count} virtual functions.")
        return
    write_cell(host, cell, standing, text)
    if not same_text(cell, read_cell(host, cell), text):
        raise Failure(
            "sriov.not-made", f"{place} was told to have {wanted.count} virtual functions, and has not.",
            *(read_cell(host, cell) or "").splitlines(), hint=f"pve-passthrough sriov create {place} {wanted.count}",
        )  # fmt: skip
    say(f"{place} has {wanted.count} virtual functions.")


def _address(text: str) -> Address:
    try:
        return Address.parse(text)
    except ValueError as error:
        raise Failure("device.unknown", f"Nothing was changed: {error}.", code=Exit.USAGE) from error


def _conf(host: Host, place: Address) -> SriovState:
    path = SRIOV.format(address=place)
    try:
        text = text_or_none(host, path)
        if text is None:
            raise Failure(
                "sriov.no-conf", f"Nothing was changed: {path} is not there.",
                hint=f"pve-passthrough sriov create {place} COUNT", code=Exit.USAGE,
            )  # fmt: skip
        return parse_conf(text)
    except (HostError, ValueError) as error:
        raise Failure(
            "sriov.conf-broken", f"Nothing was changed: {path} is not a file of ours as we write it.", str(error),
            hint=f"pve-passthrough sriov create {place} COUNT writes it anew.",
        ) from error  # fmt: skip


def _await(host: Host, place: Address, identity: str, patience: float) -> None:
    """Wait until the right device is there with a driver that is not a guest's. Raises Failure."""
    until = time.monotonic() + patience
    while trouble := _trouble(host, place, identity):
        if time.monotonic() >= until:
            raise Failure(
                "sriov.not-ready", f"No virtual functions were made on {place}: {trouble}.",
                f"waited {patience:g} seconds", hint=f"pve-passthrough sriov list; systemctl restart "
                f"{SRIOV_UNIT.format(address=place)}",
            )  # fmt: skip
        time.sleep(PAUSE)


def _trouble(host: Host, place: Address, identity: str) -> str:
    """What is still missing, in words. Raises Failure at once for another device: waiting does not change it."""
    from ..host.virtual import identity as present

    home = f"/sys/bus/pci/devices/{place}"
    try:
        found = present(host, str(place))
    except HostError:
        return "there is no such device"
    if found != identity:
        raise Failure(
            "sriov.other-device", f"Nothing was changed: {place} holds {found}, and our file is for {identity}.",
            f"{SRIOV.format(address=place)}: device {identity}",
            hint=f"pve-passthrough sriov remove {place} forgets it; pve-passthrough sriov list shows what is there.",
        )  # fmt: skip
    try:
        driver = host.link(f"{home}/driver").rpartition("/")[2]
        host.read(f"{home}/sriov_numvfs")
    except HostError as error:
        return "it has no driver" if error.path.endswith("/driver") else "it offers no virtual functions"
    return "vfio-pci holds it for a guest" if driver == "vfio-pci" else ""


def shown_mac(settings: VfSettings) -> str:
    """The address as people read it: a driver shows zeros where nobody gave one."""
    return "none" if settings.mac in (None, NO_MAC) else str(settings.mac)
