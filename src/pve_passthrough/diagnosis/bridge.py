"""From facts to evidence: what the rules find, and what two papers say against each other.

1. Findings speak only where somebody complains: a machine that works is not ill because something could be better.
   What keeps every guest from starting speaks always.
2. Nothing is concluded from what was not shown. Absence counts where the whole bus is known.
3. Every observation names the paper that it rests on and, where the words stand in it, the line.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence

from ..knowledge.ats import ats_row
from ..knowledge.judgements import judgement
from ..knowledge.resets import reset_row
from ..model.cards import companions
from ..model.diagnosis import Kind, Observation, Point
from ..model.facts import Facts
from ..model.finding import Finding
from ..model.pci import Address, Device
from ..model.texts import modprobe_lines
from ..model.vm import Vm
from ..rules import Request, judge
from ..rules.bootfiles import RUNNING, configured, early_ids
from .files import Paper

MOST_GUESTS = 8
HINT = 0.25
"""What counts of a hint that nothing else supports."""
WHOLE = 8
"""A listing with the root complex and at least so many functions is one of the whole bus."""

_SIFTED = frozenset({Kind.KERNEL_LOG, Kind.JOURNAL})
"""Of these a paper holds some lines only."""
_VFIO = frozenset({"vfio-pci", "pci-stub", ""})
_BUS = ("pcieport", "shpchp", "pci_bus")
_SWITCHES = re.compile(r"(intel_iommu|amd_iommu|iommu|vfio[_-]pci\.ids|pcie_acs_override|initcall_blacklist)(=|$)")
_COMMANDS = frozenset({"alias", "blacklist", "config", "install", "options", "remove", "softdep", "weakdep"})
"""Source: modprobe.d(5)."""
_MISSPELT = frozenset({"option", "black", "blacklist", "softdep", "soft_dep", "instal", "alia", "module", "softdeps"})
"""What people write instead."""
_STORED = re.compile(r"^(stored|saved|configured|mapping|mapped|old|previous|expected|recorded)_(?P<what>\w+)$")
_NOW = ("current", "actual", "new", "now", "present", "real")
_GROUP_WORDS = frozenset({"group", "iommu_group", "iommugroup"})
_PLACE_WORDS = frozenset({"bdf", "address", "slot", "pci", "pci_address", "id", "ids", "device_id"})


def judged(
    facts: Facts,
    asked: bool,
    vmid: int | None = None,
    origins: Mapping[str, Paper] | None = None,
    mentioned: Sequence[str] = (),
    suspected: frozenset[str] = frozenset(),
) -> tuple[Observation, ...]:
    """What the facts speak for. `asked`: somebody complains · `origins`: the paper that a path was made from ·
    `mentioned`: addresses in other evidence · `suspected`: causes that other evidence speaks for."""
    papers = origins or {}
    found: dict[str, Observation] = {}
    for request in _requests(facts, vmid, mentioned):
        for one in (
            *_findings(facts, request, papers, asked, suspected),
            *(_across(facts, request, papers) if asked else ()),
        ):
            found.setdefault(one.sign, one)
    return tuple(found.values())


def _requests(facts: Facts, vmid: int | None, mentioned: Sequence[str]) -> Iterator[Request]:
    """What the trouble is about: the guest; else every guest with devices; else the devices that vfio-pci has, that
    are spoken of, or that show a picture."""
    guests = [one for one in facts.guests or () if (vmid is None or one.vmid == vmid) and one.hostpci]
    for guest in guests[:MOST_GUESTS]:
        yield Request(tuple(sorted(_claimed(guest))), guest.vmid)
    if guests:
        return
    spoken = {str(device.address): device for device in facts.devices if not device.bridge}
    chosen = [device for device in facts.devices if device.driver == "vfio-pci"]
    chosen = chosen or [spoken[name] for name in mentioned if name in spoken]
    chosen = chosen or [device for device in facts.devices if device.is_display and not device.boot_vga]
    yield Request(tuple(dict.fromkeys(device.address for device in chosen)))


def _claimed(guest: Vm) -> set[Address]:
    return {address for entry in guest.hostpci for address in entry.addresses}


def whole_bus(facts: Facts) -> bool:
    """Whether every function of the machine is known."""
    return len(facts.devices) >= WHOLE and any(device.address[1:] == (0, 0, 0) for device in facts.devices)


# -- findings ---------------------------------------------------------------------------------


def _findings(
    facts: Facts, request: Request, origins: Mapping[str, Paper], asked: bool, suspected: frozenset[str]
) -> Iterator[Observation]:  # fmt: skip
    whole = whole_bus(facts)
    for finding in judge(facts, request):
        row = judgement(finding.rule, finding.level.value, finding.message, whole)
        if row is not None and (asked or row.sure) and not (origins and _left_out(facts, request, finding, asked)):
            alone = HINT if row.hint else 1.0
            points = (Point(cause, weight * (1 if cause in suspected else alone)) for cause, weight in row.points)
            yield _observed(finding, tuple(points), origins)


def _left_out(facts: Facts, request: Request, finding: Finding, asked: bool) -> bool:
    """Whether the finding rests on a line that a guest's configuration lacks: people paste parts of it."""
    if not any(line.endswith("(not set)") for line in finding.evidence[:1]):
        return False
    guest = None if request.vmid is None else facts.guest(request.vmid)
    return not asked or guest is None or not {"boot", "smbios1"} <= set(guest.config)


def _observed(finding: Finding, points: tuple[Point, ...], origins: Mapping[str, Paper]) -> Observation:
    """A finding as evidence: its first line, and the paper that this line stands in."""
    first = finding.evidence[0] if finding.evidence else finding.subject
    path, _, said = first.partition(": ")
    where, _, number = path.partition(":") if path.startswith("/") else (path, "", "")
    device = finding.subject if re.fullmatch(r"[0-9a-f]{4,}:[0-9a-f:.]+", finding.subject) else ""
    paper = origins.get(where) or origins.get(f"/sys/bus/pci/devices/{device or where}")
    text = first if not said or where.startswith("/sys/") else said
    line = int(number) if number.isdecimal() else None
    if paper is not None:
        stands = _line_of(paper, said)
        line, text = stands, (said if stands else text)
    source = paper.name if paper else where
    return Observation(f"rule:{finding.rule}", finding.message, source, text, points, line, device)


def _line_of(paper: Paper, said: str) -> int | None:
    """The line of the paper that holds the words; None where the paper was sifted, or says it in other words."""
    if not said or paper.kind in _SIFTED:
        return None
    return next((number for number, line in enumerate(paper.text.splitlines(), paper.first) if said in line), None)


# -- one paper against another -----------------------------------------------------------------


def _across(facts: Facts, request: Request, origins: Mapping[str, Paper]) -> Iterator[Observation]:
    devices = [device for address in request.addresses if (device := facts.device(address)) is not None]
    for device in devices:
        yield from _company(facts, request, device, origins)
    yield from _against(facts, devices, origins)
    yield from _translating(devices or facts.devices, origins)
    yield from _misplaced(facts, request, devices, origins)
    yield from _other_card(facts, request, devices, origins)
    yield from _not_in_force(facts, origins)
    yield from _no_command(facts, origins)
    yield from _unselected(facts, devices, origins)
    yield from _parts(facts, request, devices, origins)


def _said(
    sign: str, says: str, text: str, points: Mapping[str, float], source: str, device: Device | None = None
) -> Observation:
    weights = tuple(Point(*point) for point in points.items())
    return Observation(sign, says, source, text, weights, device=str(device.address) if device else "")


def _name(path: str, origins: Mapping[str, Paper]) -> str:
    return origins[path].name if path in origins else path


def _home(device: Device, origins: Mapping[str, Paper]) -> str:
    return _name(f"/sys/bus/pci/devices/{device.address}", origins)


def _company(facts: Facts, request: Request, device: Device, origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """Who stands in the same group. Bridges and their driver pcieport may stay: VFIO lets them pass (kernel:
    drivers/vfio/group.c and vfio_main.c, vfio_dev_driver_allowed; Documentation/driver-api/vfio.rst)."""
    if device.iommu_group is None or device.iommu_group < 0:
        return
    members = [one for one in facts.group(device.iommu_group) if one.address != device.address]
    others = [one for one in members if not _bridge(one) and one.address not in request.addresses]
    strangers = [one for one in others if one.address.slot != device.address.slot]
    held = [one for one in others if one.driver is not None and one.driver not in _VFIO]
    text = f"group {device.iommu_group}: {', '.join(str(one.address) for one in (device, *others)[:8])}"
    if held:
        names = ", ".join(f"{one.address} ({one.driver})" for one in held[:4])
        yield _said(
            "facts.group-held", f"The group of {device.address} also has {names}, which the host uses.", text,
            {"group-shared-host-device": 3.5 if strangers else 3}, _home(device, origins), device,
        )  # fmt: skip
    if strangers:
        bridged = any(_bridge(one) for one in members)
        slots = len({one.address.slot for one in strangers})
        bare = _portless(facts, device.iommu_group)
        weight = (2.5 if bridged else 2) + (1 if slots > 2 else 0) + (1 if bare else 0)
        if all(one.driver == "vfio-pci" for one in strangers):
            weight = 1  # somebody has seen to it
        ports = f"; {', '.join(str(one.address) for one in bare[:4])} without ACS" if bare else ""
        yield _said(
            "facts.group-wide", f"{device.address} shares its group with functions of other slots ({slots}).",
            f"{text}{ports}", {"group-no-acs": weight, "group-shared-host-device": 1}, _home(device, origins), device,
        )  # fmt: skip
    elif not held:
        yield _said(
            "facts.group-clean", f"{device.address} is in a group of its own card.", text,
            {"group-no-acs": -2, "group-shared-host-device": -2}, _home(device, origins), device,
        )  # fmt: skip


def _translating(devices: Sequence[Device], origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """ATS is on for a chip of which the kernel knows revisions that do not stand it."""
    for device in devices:
        row = ats_row(device.vendor, device.product)
        if row is not None and device.capabilities is not None and device.capabilities.ats:
            known = device.revision in row.revisions or not row.revisions
            yield _said(
                "facts.ats-on", f"ATS is on for {device.address}, and the kernel knows {row.name} chips that break it.",
                str(device), {"ats-broken": 3 if known else 2}, _home(device, origins), device,
            )  # fmt: skip


def _portless(facts: Facts, group: int) -> list[Device]:
    """Ports of a group whose listing shows every capability and no Access Control Services."""
    ports = [
        one for one in facts.group(group) if one.capabilities is not None and one.capabilities.express in (4, 5, 6)
    ]
    return [one for one in ports if one.capabilities and one.capabilities.extended and one.capabilities.acs is None]


def _against(facts: Facts, devices: Sequence[Device], origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """What speaks against a cause: groups that there are, a running kernel that has its arguments, no twin."""
    grouped = [device for device in devices if device.iommu_group is not None and device.iommu_group >= 0]
    if facts.iommu.on and grouped:
        text = f"{grouped[0].address}: group {grouped[0].iommu_group}"
        yield _said(
            "facts.iommu-on", "There are IOMMU groups, so the IOMMU is on.", text, {"iommu-off": -3},
            _home(grouped[0], origins), grouped[0],
        )  # fmt: skip
    running = set((facts.kernel.cmdline or "").split())
    wanted = [token for source in configured(facts) for token in source.tokens if _SWITCHES.match(token)]
    if wanted and running.issuperset(wanted):
        yield _said(
            "facts.in-force", "What the boot loader's file says is what the kernel was started with.",
            " ".join(wanted)[:200], {"wrong-boot-loader": -3}, _name(RUNNING, origins),
        )  # fmt: skip
    if devices and whole_bus(facts) and all("?" not in device.id for device in facts.devices):
        numbers = [device.id for device in facts.devices]
        if all(numbers.count(device.id) == 1 for device in devices):
            yield _said(
                "facts.no-twin", "No other device of this machine has the same numbers.",
                ", ".join(device.id for device in devices[:4]), {"identical-ids": -2}, _home(devices[0], origins),
                devices[0],
            )  # fmt: skip


def _bridge(device: Device) -> bool:
    return device.bridge or device.base_class == 0x06 or device.driver in _BUS


def _misplaced(
    facts: Facts, request: Request, devices: Sequence[Device], origins: Mapping[str, Paper]
) -> Iterator[Observation]:
    """A guest's line that names a bridge: nobody gives one away, so something else stood there once."""
    for device in devices if request.vmid is not None else ():
        if device.base_class == 0x06:
            yield _said(
                "facts.names-bridge", f"The guest's line names {device.address}, which is a bridge today.",
                str(device), {"bdf-renumbered": 4}, _home(device, origins), device,
            )  # fmt: skip


def _other_card(
    facts: Facts, request: Request, devices: Sequence[Device], origins: Mapping[str, Paper]
) -> Iterator[Observation]:
    """The list of IDs for vfio-pci means a card that now sits at another address than the guest's line says."""
    listed = {one for entry in early_ids(facts) if not entry.replaced for one in entry.ids}
    guest = None if request.vmid is None else facts.guest(request.vmid)
    if guest is None or not listed or not devices or any(device.id in listed or "?" in device.id for device in devices):
        return
    elsewhere = [one for one in facts.devices if one.id in listed and one.address not in request.addresses]
    if elsewhere:
        yield _said(
            "facts.ids-elsewhere",
            f"vfio-pci is to have {elsewhere[0].id}, which sits at {elsewhere[0].address}; the guest's line names "
            f"{devices[0].address}, {devices[0].id}.",
            f"{devices[0]}", {"bdf-renumbered": 3}, _home(devices[0], origins), devices[0],
        )  # fmt: skip


def _not_in_force(facts: Facts, origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """Arguments that stand in a file and not on the running kernel's line, where nobody knows the loader."""
    if facts.kernel.cmdline is None or facts.boot.loaders is not None:
        return
    running = set(facts.kernel.cmdline.split())
    for source in configured(facts):
        waiting = [token for token in source.tokens if _SWITCHES.match(token) and token not in running]
        if waiting:
            zfs = 1.0 if "grub" in source.path and re.search(r"root=ZFS", facts.kernel.cmdline) else 0.0
            yield _said(
                "facts.not-in-force",
                f"{' '.join(waiting)} stands in {source.path}, and the running kernel was not started with it.",
                facts.kernel.cmdline[:200], {"wrong-boot-loader": 3 + zfs}, _name(RUNNING, origins),
            )  # fmt: skip


def _no_command(facts: Facts, origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """A line of modprobe.d that begins with no command of it: modprobe warns and goes on. Source: modprobe.d(5)."""
    for line in modprobe_lines(facts.files):
        word = line.command
        if word and word not in _COMMANDS and word.rstrip("s") in _MISSPELT:
            yield Observation(
                "facts.modprobe-word", f"modprobe knows no line that begins with {word}.",
                _name(line.path, origins), line.raw.strip()[:200], (Point("bad-modprobe", 4),),
                line=line.number + (origins[line.path].first - 1 if line.path in origins else 0),
            )  # fmt: skip


def _unselected(facts: Facts, devices: Sequence[Device], origins: Mapping[str, Paper]) -> Iterator[Observation]:
    """vendor-reset knows the card and is there, and reset_method does not begin with device_specific (since 5.15).

    Source: kernel, Documentation/ABI/testing/sysfs-bus-pci, reset_method; vendor-reset, issue 46.
    """
    loaded = "vendor_reset" in (facts.modules.loaded or ())
    listed = any("vendor_reset" in text.replace("-", "_") for text in _module_files(facts))
    wanted = loaded or listed or "vendor_reset" in origins
    for device in devices or facts.devices:
        row = reset_row(device.vendor, device.product)
        methods = device.reset_methods
        if wanted and methods is not None and methods[:1] != ("device_specific",) and (row is None or row.vendor_reset):
            yield _said(
                "facts.vendor-reset-unused",
                f"vendor-reset is spoken of, and {device.address} is reset by other methods.",
                f"reset_method: {' '.join(methods) or 'none'}", {"vendor-reset-method": 5}, _home(device, origins),
                device,
            )  # fmt: skip


def _module_files(facts: Facts) -> Iterator[str]:
    for path, text in facts.files.items():
        if text and (path == "/etc/modules" or "modules-load.d" in path or "initramfs-tools/modules" in path):
            yield "\n".join(line for line in text.splitlines() if not line.lstrip().startswith("#"))


def _parts(
    facts: Facts, request: Request, devices: Sequence[Device], origins: Mapping[str, Paper]
) -> Iterator[Observation]:
    """A guest that has one function of a card whose others the host uses."""
    for device in devices if request.vmid is not None else ():
        left = [one for one in companions(facts, device) if one.address not in request.addresses]
        if any(one.driver not in _VFIO and one.driver is not None for one in left):
            names = ", ".join(f"{one.address} ({one.driver})" for one in left[:4])
            yield _said(
                "facts.part-of-card", f"{device.address} goes to the guest without {names} of the same card.",
                names, {"partial-multifunction": 1.5}, _home(device, origins), device,
            )  # fmt: skip


# -- statements --------------------------------------------------------------------------------


def remembered(stated: Mapping[str, object], source: str) -> tuple[Observation, ...]:
    """What a person wrote down as stored, against what they wrote down as today's: a group, an address."""
    words = {re.sub(r"\W+", "_", str(key).lower()).strip("_"): value for key, value in stated.items()}
    found = []
    for key, value in words.items():
        match = _STORED.match(key)
        what = match["what"] if match else ""
        sort = _GROUP_WORDS if what in _GROUP_WORDS else _PLACE_WORDS if what in _PLACE_WORDS else frozenset()
        now = [words[name] for name in _keys_of_now(what, sort) if name in words]
        if not sort or not now or not isinstance(value, (str, int)) or str(value).lower() == str(now[0]).lower():
            continue
        cause = "group-renumbered" if sort is _GROUP_WORDS else "bdf-renumbered"
        text = f"{key}: {value}, now {now[0]}"[:200]
        says = f"The {what.replace('_', ' ')} that was written down is not today's."
        found.append(_said(f"stated.{cause}", says, text, {cause: 5}, source))
    return tuple(found)


def _keys_of_now(what: str, sort: frozenset[str]) -> Iterator[str]:
    for name in (what, *sorted(sort)):
        yield from (f"{when}_{name}" for when in _NOW)
        yield name
