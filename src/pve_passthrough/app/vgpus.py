"""Shares of devices: which there are, what has to be set up for them, and the plan that gives one to a guest.

1. Looks, judges and plans; what a plan changes, the engine changes.
2. NVIDIA's driver is never fetched or installed here: what a person has to do is printed, in order.
3. A share needs no guard against the group: the device stays with the host. It is remembered all the same.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import rules
from ..errors import Exit, Failure
from ..host.base import Host, HostError
from ..knowledge import vgpu as known_vgpu
from ..knowledge.compute_cards import NVIDIA
from ..model.facts import Facts
from ..model.finding import Finding, Level, Verdict
from ..model.mediated import VF, Instance, MediatedType, Parent, guest_of, sharers
from ..model.pci import Address, Device
from ..model.plan import Cell, Change, Plan
from ..model.sighting import remember
from ..model.value import dataclass
from ..model.vm import HostPci, Vm
from ..planning import changeable_guest, guard, make_plan, outcome
from ..planning import vgpu as planning
from . import Checked, Planned, look, machine_of, now, refuse_hazards, resolve

if TYPE_CHECKING:
    from ..model.wish import Wish

VERSION_FILE = "/proc/driver/nvidia/version"
"""NVIDIA's driver says here which one it is (open-gpu-kernel-modules, kernel-open/nvidia/nv-procfs.c)."""


@dataclass(frozen=True, slots=True)
class Shared:
    """One device whose driver shares it. `functions`: the device itself, or its virtual functions.

    device     None: no PCI device
    instances  what exists; `names` are the guests that name a share, with the entry
    """

    device: Device | None
    name: str
    functions: tuple[Parent, ...]
    types: tuple[MediatedType, ...]
    instances: tuple[Instance, ...]
    names: tuple[tuple[Vm, HostPci], ...]

    @property
    def way(self) -> str:
        return self.functions[0].way if self.functions else ""


@dataclass(frozen=True, slots=True)
class CouldShare:
    """A display that offers no shares now, why, and the next step."""

    device: Device
    why: str
    hint: str


@dataclass(frozen=True, slots=True)
class Listing:
    facts: Facts
    shared: tuple[Shared, ...]
    others: tuple[CouldShare, ...]


# -- looking -------------------------------------------------------------------------------------


def listing(host: Host, words: Sequence[str] = ()) -> Listing:
    """All devices that are shared, and the displays that are not; or only the named ones. Raises Failure."""
    facts = look(host, inventory=True)
    mediated = planning.known(facts)
    foreign = {one.name for one in mediated.parents if one.address is None}
    wanted = {address for word in words if word not in foreign for address in resolve(facts, (word,), alone=True)}
    cards = _cards(facts)
    shared = [
        _shared(facts, name, parents)
        for name, parents in cards.items()
        if not words or name in words or wanted & _addresses(facts, parents)
    ]
    told = {address for parents in cards.values() for address in _addresses(facts, parents)}
    silent = [
        device
        for device in facts.devices
        if device.address not in told
        and (device.address in wanted or (not words and device.is_display and device.physical_function is None))
    ]
    return Listing(facts, tuple(shared), tuple(CouldShare(one, *planning.why_nothing(facts, one)) for one in silent))


def _cards(facts: Facts) -> dict[str, list[Parent]]:
    """Parents by the card that they belong to: virtual functions by their physical one."""
    cards: dict[str, list[Parent]] = {}
    for parent in planning.known(facts).parents:
        device = facts.device(parent.address) if parent.address else None
        card = device.physical_function if device is not None else None
        cards.setdefault(str(card or parent.name), []).append(parent)
    return cards


def _addresses(facts: Facts, parents: Iterable[Parent]) -> set[Address]:
    """The functions, and their physical one."""
    own = {parent.address for parent in parents if parent.address is not None}
    devices = (facts.device(address) for address in own)
    return own | {device.physical_function for device in devices if device and device.physical_function}


def _shared(facts: Facts, name: str, parents: Sequence[Parent]) -> Shared:
    mediated = planning.known(facts)
    device = next((one for one in facts.devices if str(one.address) == name), None)
    found = (pair for parent in parents if parent.address for pair in sharers(facts.guests or (), parent.address))
    names = list({(guest.vmid, entry.key): (guest, entry) for guest, entry in found}.values())
    instances = tuple(one for parent in parents for one in mediated.of(parent.name))
    return Shared(device, name, tuple(parents), _counted(parents), instances, tuple(names))


def _counted(parents: Sequence[Parent]) -> tuple[MediatedType, ...]:
    """Types, each once; of virtual functions, as many are left as functions without a type offer it."""
    types = planning.types_of(parents)
    if not parents or parents[0].way != VF:
        return tuple(types)
    free = {one.id: sum(not parent.current and parent.type(one.id) is not None for parent in parents) for one in types}
    # Nothing in use: the largest type has all of the card's memory (NVIDIA vGPU user guide, virtual GPU types).
    total = 0 if any(parent.current for parent in parents) else max((one.memory or 0 for one in types), default=0)
    return tuple(
        replace(one, available=min(free[one.id], total // one.memory) if total and one.memory else free[one.id])
        for one in types
    )


def owner(one: Instance) -> str:
    """`guest 100 (hostpci0)`, or that Proxmox VE has not made it."""
    found = guest_of(one.uuid)
    return f"guest {found[0]} ({found[1]})" if found else "not made by Proxmox VE"


# -- giving --------------------------------------------------------------------------------------


def refuse_beside(options: Mapping[str, object]) -> None:
    """What is said about a whole card means nothing for a share. Raises Failure."""
    given = [name for name, value in options.items() if value]
    if given:
        raise Failure(
            "vgpu.options", f"Nothing was planned: --mdev does not go together with {', '.join(given)}.",
            "--lend-display, --tweak and --inside are for devices that a guest gets as a whole", code=Exit.USAGE,
            hint="Leave it away.",
        )  # fmt: skip


def plan_share(
    facts: Facts,
    words: Sequence[str],
    vmid: int,
    mdev: str,
    *,
    machine: str,
    accept: Iterable[str] = (),
    program: str = "",
    mapping: str = "",
) -> Planned:
    """The plan that gives the guest a share of the named device. Raises Failure when something forbids it."""
    from ..model.hookscript import PACKAGED

    changeable_guest(facts, vmid)
    addresses, through = planning.share_of(facts, words, mdev, vmid)
    request = rules.Request(addresses, vmid, share=mdev)
    findings = rules.judge(facts, request)
    checked = Checked(facts, addresses, vmid, findings, rules.verdict(findings))
    refuse_hazards(findings, frozenset(accept))
    mapped: tuple[Wish, ...] = ()
    if mapping and not through:
        facts, mapped, through = _mapped(facts, addresses, mapping)
    wishes = planning.give_share(facts, addresses, vmid, mdev, mapping=through)
    guarded = guard(facts, vmid, program or PACKAGED)
    made = make_plan(
        facts, (*guarded.wishes, *mapped, *wishes), goal=f"give a share of {' '.join(words)} ({mdev}) to guest {vmid}",
        vmid=vmid, now=now(), machine=machine,
    )  # fmt: skip
    made = replace(
        made,
        risks=(*made.risks, *guarded.notes, *_remaining(facts, request, made)),
        devices={str(device.address): device.id for device in map(facts.device, addresses) if device},
        # Whoever else is in the group stays with the host, so it is no part of what was given.
        identities=tuple(replace(one, group=None) for one in remember(facts, addresses)),
    )
    return Planned(checked, made)


def _remaining(facts: Facts, request: rules.Request, made: Plan) -> tuple[Finding, ...]:
    """What will still be wrong or unknown when the plan has been carried out."""
    then = rules.judge(outcome(facts, made), request)
    awaited = {"platform.iommu"} if any(one.cell.kind == "iommu" for one in made.expects) else set()
    return tuple(one for one in then if one.level in (Level.HARMS, Level.UNKNOWN) and one.rule not in awaited)


def _mapped(facts: Facts, addresses: Sequence[Address], name: str) -> tuple[Facts, tuple[Wish, ...], str]:
    """The mapping of this name offers these functions as shares; it is made when it is not there."""
    from ..planning.mappings import mapping_of, with_wish

    devices = [device for address in addresses if (device := facts.device(address))]
    wish = mapping_of(facts, "pci", name, devices, mdev=True)
    return with_wish(facts, wish), (wish,), name


# -- setting up ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that has to be so before the card is shared. `done` None: nobody could say."""

    text: str
    done: bool | None
    command: str = ""


@dataclass(frozen=True, slots=True)
class Setup:
    """What a card needs. `planned`: what this program can do about it; None: nothing, or all is done."""

    facts: Facts
    device: Device
    steps: tuple[Step, ...]
    notes: tuple[str, ...]
    planned: Planned | None


def setup(host: Host, words: Sequence[str]) -> Setup:
    """What has to be done before this card's driver shares it. Raises Failure where it never will."""
    facts = look(host, deep=True)
    device = _display(facts, words)
    if device.vendor == NVIDIA:
        return _setup_nvidia(host, facts, device)
    return _setup_gvt(host, facts, device)


def _display(facts: Facts, words: Sequence[str]) -> Device:
    named = [one for address in resolve(facts, words, alone=True) if (one := facts.device(address))]
    if not words:
        named = [one for one in facts.devices if one.is_display and one.physical_function is None]
    displays = [one for one in named if one.is_display] or named
    cards = {one.physical_function or one.address for one in displays}
    found = facts.device(next(iter(cards))) if len(cards) == 1 else None
    if found is None:
        raise Failure(
            "vgpu.one-device", f"Nothing was looked at: {len(cards)} devices fit.", *map(str, displays[:12]),
            hint="Name one: pve-passthrough vgpu setup ADDRESS", code=Exit.USAGE,
        )  # fmt: skip
    return found


def _setup_gvt(host: Host, facts: Facts, device: Device) -> Setup:
    wishes = planning.gvt(facts, device)
    made = make_plan(facts, wishes, goal=f"share {device.address} by GVT-g", now=now(), machine=machine_of(host))
    made = replace(made, devices={str(device.address): device.id})
    row = known_vgpu.igpu(device)
    offered = bool(device.mediated_types)
    steps = (
        Step(f"{row.name if row else 'these'} graphics are shared by GVT-g", True),
        Step("the IOMMU is on: without it Proxmox VE prepares no share", facts.iommu.on),
        Step(f"the next boots have {known_vgpu.GVT_ARGUMENT} and load {known_vgpu.GVT_MODULE}", not wishes),
        Step("i915 offers types", offered, "" if offered or wishes else "reboot"),
    )
    aperture = next((bar.size >> 20 for bar in device.bars or () if bar.index == 2), None)
    notes = [
        f"The host keeps {known_vgpu.HOST_LOW_GM} MiB of the aperture (BAR 2"
        + (f", {aperture} MiB" if aperture else "")
        + "); the rest is what shares are made of, so a larger aperture in the firmware's setup gives more of them.",
        "The guest needs Intel's own driver. It has no output of its own: keep the virtual display.",
    ]
    planned = Planned(Checked(facts, (device.address,), None, (), Verdict.READY), made) if made.changes else None
    return Setup(facts, device, steps, tuple(notes), planned)


def _setup_nvidia(host: Host, facts: Facts, device: Device) -> Setup:
    if known_vgpu.desktop_card(device):
        why, hint = planning.why_nothing(facts, device)
        raise Failure(
            "vgpu.desktop-card", f"Nothing was planned: {device} is not shared. {why}", hint=hint, code=Exit.REFUSED
        )
    row = known_vgpu.vgpu_generation(device)
    releases = known_vgpu.releases_for(row, facts.kernel.version) if row else ()
    version = _driver_version(host)
    branch = known_vgpu.branch_of(version)
    fits = None if branch is None or not releases else branch in {known_vgpu.BRANCHES[one] for one in releases}
    manager = _vgpu_driver(facts, device)
    steps = [
        Step("the IOMMU is on: without it Proxmox VE prepares no share", facts.iommu.on,
             f"pve-passthrough check {device.address}" if not facts.iommu.on else ""),
        Step("the host is prepared for NVIDIA's driver: headers, DKMS, no nouveau",
             device.driver == "nvidia" or None, f"{known_vgpu.HELPER} setup" if device.driver != "nvidia" else ""),
        Step(f"NVIDIA's vGPU driver for KVM is installed ({_wanted(releases)})" + (version and f", here {version}"),
             False if device.driver != "nvidia" or manager is False else fits if fits is not None else manager,
             "sh NVIDIA-Linux-x86_64-VERSION-vgpu-kvm.run --dkms" if manager is not True else ""),
    ]  # fmt: skip
    state = _unit_state(host) if row is not None and row.vf else ""
    if row is not None and row.vf:
        steps.append(
            Step(
                f"{known_vgpu.SRIOV_UNIT} makes virtual functions at every boot",
                state == "enabled" if state else None,
                "" if state else f"{known_vgpu.HELPER} setup",
            )
        )
        steps.append(
            Step(
                "there are virtual functions now",
                bool(device.virtual_functions),
                f"systemctl start {known_vgpu.SRIOV_UNIT}" if not device.virtual_functions else "",
            )
        )
    parents = [one for one in planning.known(facts).parents if one.address in _family(device)]
    steps.append(Step("the driver offers types", bool(parents)))
    planned = _enabling(host, facts, device) if device.driver == "nvidia" and state == "disabled" else None
    return Setup(facts, device, tuple(steps), _notes(facts, device, row), planned)


def _unit_state(host: Host) -> str:
    """`enabled`, `disabled` …; empty when there is no such unit, or nobody could say."""
    try:
        ran = host.run(("systemctl", "is-enabled", known_vgpu.SRIOV_UNIT), timeout=30.0)
    except HostError:
        return ""
    word = ran.stdout.strip()
    return "" if word == "not-found" else word[:40]


def _enabling(host: Host, facts: Facts, device: Device) -> Planned:
    """The unit enabled: from the next boot on, or from `systemctl start`, the card has its virtual functions."""
    why = "makes the virtual functions of NVIDIA's cards at every boot"
    goal = f"make virtual functions of {device.address} at boot"
    made = make_plan(facts, (), goal=goal, now=now(), machine=machine_of(host))
    change = Change(Cell("unit", known_vgpu.SRIOV_UNIT), "disabled", "enabled", why)
    made = replace(made, changes=(change,), devices={str(device.address): device.id})
    return Planned(Checked(facts, (device.address,), None, (), Verdict.READY), made)


def _family(device: Device) -> set[Address | None]:
    return {device.address, *device.virtual_functions}


def _vgpu_driver(facts: Facts, device: Device) -> bool | None:
    """Whether the driver is the one that shares: its module is loaded, or it offers types; None: nobody could say."""
    if any(one.address in _family(device) for one in planning.known(facts).parents):
        return True
    return None if facts.modules.loaded is None else known_vgpu.NVIDIA_MODULE in facts.modules.loaded


def _wanted(releases: Sequence[int]) -> str:
    if not releases:
        return "which release knows this card on this kernel is not known"
    shown = ", ".join(f"{one} = branch {known_vgpu.BRANCHES[one]}" for one in releases)
    return f"release {shown}"


def _notes(facts: Facts, device: Device, row: known_vgpu.VgpuGeneration | None) -> tuple[str, ...]:
    notes = [f"{known_vgpu.LICENCE}."]
    if row is not None:
        notes.append(f"Which release knows {row.name} cards: {row.source}.")
    if planning.own_way(facts) and row is not None and row.vf:
        notes.append("From kernel 6.8 on the types belong to virtual functions, and mdev_supported_types is not there.")
    if (version := _version(facts.pve.version)) is not None and version < known_vgpu.HELPER_SINCE:
        since = ".".join(map(str, known_vgpu.HELPER_SINCE))
        notes.append(f"{known_vgpu.HELPER} comes with pve-manager {since}; this host has {facts.pve.version}.")
    return (*notes, "This program neither fetches nor installs NVIDIA's driver, and unlocks nothing.")


def _version(text: str | None) -> tuple[int, ...] | None:
    parts = (text or "").split("-")[0].split(".")
    return tuple(map(int, parts)) if all(one.isascii() and one.isdecimal() and len(one) < 6 for one in parts) else None


def _driver_version(host: Host) -> str:
    """`535.161.05` of the loaded driver; empty when there is none, or nobody could say."""
    try:
        text = host.read(VERSION_FILE).decode("utf-8", "replace")
    except HostError:
        return ""
    words = text.partition("\n")[0].split()
    return next((word for word in words if word[:3].isdecimal() and "." in word and len(word) < 20), "")
