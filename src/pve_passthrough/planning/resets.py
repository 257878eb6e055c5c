"""How a function is reset: what the kernel can do, what is known of the device, and the plans that change it.

1. Pure. A method is planned only when the kernel lists it or the function's own configuration space promises it; the
   kernel has the last word, and a refusal takes the run back.
2. A choice is one line of our udev rules file and the attribute itself, so that it holds now and after every boot.
3. Nothing is changed under a guest that runs with the function.
4. vendor-reset is planned for the cards that it knows and for no others.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import replace

from ..errors import Exit, Failure
from ..knowledge.resets import (
    D3COLD_REMEDY,
    MEANINGS,
    METHOD_CHOICE,
    METHODS,
    NEW_HEADERS,
    START_GOES_ON,
    ResetRow,
    on_same_bus,
    reset_row,
    rows_of,
)
from ..knowledge.resets import effective as in_force
from ..model.dkms import Dkms, Source
from ..model.facts import Facts, Gap
from ..model.finding import Actor, Finding, Fix, Level, Safety
from ..model.own import MODULES_LOAD, UDEV_RULES
from ..model.pci import Address, Device
from ..model.plan import Cell, Change, Expectation, Plan
from ..model.value import dataclass
from . import edit_udev
from .goals import unknown
from .proof import MARK, Unprovable

MODULE = "vendor-reset"
PROBE_FILE = "src/amd/amdgpu/atom.c"
"""The file of its tree whose headers moved in 6.12 (vendor-reset issue 87)."""
ORIGIN = "https://github.com/gnif/vendor-reset"
UNSIGNED = "unsigned-module"
"""The hazard of a module that Secure Boot may refuse."""


@dataclass(frozen=True, slots=True)
class Method:
    """One way to reset. `order`: its place among the enabled ones from 1 on, None: off. `possible`: None is unknown."""

    name: str
    order: int | None
    possible: bool | None
    meaning: str


@dataclass(frozen=True, slots=True)
class Advice:
    """What to do about it, and the command; both may be all there is to say."""

    text: str
    command: str = ""


@dataclass(frozen=True, slots=True)
class Outlook:
    """All that is known about resetting one function.

    methods   None: nobody could say which ones the kernel has
    lasting   what our rule sets at every boot, None: nothing
    foreign   other people's udev rules that choose methods
    siblings  functions on the same bus, which a bus reset would reset too
    at_start  what Proxmox and the kernel do when a guest with this function starts, in order
    """

    device: Device
    methods: tuple[Method, ...] | None
    rows: tuple[ResetRow, ...]
    lasting: str | None
    foreign: tuple[str, ...]
    siblings: tuple[Device, ...]
    at_start: tuple[str, ...]
    advice: tuple[Advice, ...]


# -- looking -------------------------------------------------------------------------------------


def outlook(facts: Facts, device: Device) -> Outlook:
    """What is known about resetting this function."""
    rules = edit_udev.settings_of(facts.files.get(UDEV_RULES))
    return Outlook(
        device,
        methods(facts, device),
        rows_of(device, facts.devices),
        rules.get((device.address, "reset_method")),
        _foreign(facts, device),
        siblings(facts, device),
        tuple(_at_start(facts, device)),
        tuple(_advice(facts, device)),
    )


def siblings(facts: Facts, device: Device) -> tuple[Device, ...]:
    """Other functions on the function's bus."""
    return on_same_bus(device, facts.devices)


def effective(facts: Facts, device: Device) -> tuple[str, ...] | None:
    """The enabled methods that the kernel would carry out."""
    return in_force(device, facts.devices)


def methods(facts: Facts, device: Device) -> tuple[Method, ...] | None:
    """Every method that is on, could be on, or may be there; None when nobody could say anything."""
    on = effective(facts, device)
    if on is None:
        return None
    found = []
    for name in METHODS:
        order = on.index(name) + 1 if name in on else None
        possible = True if order else _possible(facts, device, name)
        if possible is not False:
            found.append(Method(name, order, possible, MEANINGS[name]))
    return tuple(sorted(found, key=lambda one: (one.order is None, one.order or 0)))


def _possible(facts: Facts, device: Device, name: str) -> bool | None:
    """Whether the kernel would take this method, from what it looks at itself (drivers/pci/pci.c)."""
    rows = rows_of(device, facts.devices)
    if any(name in row.absent for row in rows):
        return False
    if any(name in row.offers for row in rows):
        return True
    if name == "device_specific":
        loaded = facts.modules.loaded
        known = any(row.vendor_reset for row in rows)
        return known and (None if loaded is None else "vendor_reset" in loaded)
    if name == "bus":
        return device.parent is not None and not siblings(facts, device)
    if name in ("flr", "pm"):
        seen = device.capabilities
        return None if seen is None else (seen.flr if name == "flr" else seen.pm_reset)
    return False


def _foreign(facts: Facts, device: Device) -> tuple[str, ...]:
    """Other rules that choose a method for this function, or for who knows which."""
    address, product = str(device.address), f"0x{device.product or 0:04x}"
    rules = edit_udev.foreign_rules(facts.files, "reset_method")
    return tuple(rule for rule in rules if address in rule or product in rule.lower() or "ATTR{device}==" not in rule)


def _at_start(facts: Facts, device: Device) -> Iterator[str]:
    """Sources: qemu-server, QemuServer/PCI.pm, prepare_pci_device; kernel, drivers/vfio/pci/vfio_pci_core.c."""
    if device.resettable is False:
        yield "Proxmox resets nothing: the kernel shows no file `reset` for this function"
    elif device.resettable is None:
        yield "Proxmox writes 1 to the file `reset` if the kernel shows one"
    else:
        version = _numbers(facts.pve.qemu_server)
        stops = version is not None and version < START_GOES_ON
        failing = "a failing reset stops the start" if stops else "a failing reset is a warning in the task's log"
        yield f"Proxmox writes 1 to the file `reset`; {failing}"
    yield "vfio-pci resets the function again when QEMU opens it, and once more when QEMU ends"
    yield "when the guest restarts by itself QEMU stays: it resets the function, Proxmox does nothing"


def _numbers(version: str | None) -> tuple[int, ...] | None:
    words = re.findall(r"\d{1,6}", version or "")[:3]
    return tuple(int(word) for word in words) if len(words) == 3 else None


def _advice(facts: Facts, device: Device) -> Iterator[Advice]:
    """From the most certain to the least; the last word is always a test."""
    if any(gap.about == "pci.config" and str(device.address) in gap.reason for gap in _deaf(facts)):
        yield Advice("It answers with nothing but ones: power the host off and on, a restart may not do")
    at, rows, on = device.address, rows_of(device, facts.devices), effective(facts, device)
    if any(row.vendor_reset for row in rows):
        if on and on[0] == "device_specific":
            yield Advice("vendor-reset is in charge: leave it so")
        else:
            yield Advice("Let vendor-reset take over", f"pve-passthrough reset vendor-reset {at}")
    doubted = {method for row in rows for method in row.doubted}
    others = [one.name for one in methods(facts, device) or () if one.possible and one.name not in doubted]
    if on and on[0] in doubted:
        if others:
            yield Advice(f"Try another method than {on[0]}", f"pve-passthrough reset method {at} {others[0]}")
        else:
            yield Advice(f"Only {' and '.join(on)} can be chosen here: test before you rely on it")
    for row in rows:
        if not row.handled and not row.vendor_reset:
            yield Advice(f"{row.family}: {row.remedy}")
    if on == () and not any(row.vendor_reset for row in rows):
        card = [one for one in siblings(facts, device) if one.address.slot == at.slot and one.resettable]
        yield Advice(
            f"It has no reset of its own: vfio-pci resets it with its card ({card[0].address}) where one guest has both"
            if card
            else "The kernel has no way to reset this function: give it to a guest once per boot of the host"
        )
    if device.power_state == "D3cold":
        yield Advice(f"It is switched off: {D3COLD_REMEDY}", f"pve-passthrough reset idle {at}")
    yield Advice("Prove it", f"pve-passthrough reset test {at} --vm {_user(facts, device) or 'ID'}")


def _deaf(facts: Facts) -> tuple[Gap, ...]:
    """What the probe says of functions whose configuration space reads FF."""
    return tuple(gap for gap in facts.gaps if "does not answer" in gap.reason)


def _user(facts: Facts, device: Device) -> int | None:
    """The first guest whose configuration takes the function."""
    return next((one.vmid for one in facts.guests or () if _takes(one.hostpci, device.address)), None)


def _takes(entries: Iterable[object], address: Address) -> bool:
    return any(address in getattr(entry, "addresses", ()) for entry in entries)


# -- choosing a method ---------------------------------------------------------------------------


def choose_method(facts: Facts, device: Device, wanted: Sequence[str], *, now: str, machine: str) -> Plan:
    """The plan that lets `wanted` be the function's methods, in this order. Raises Failure."""
    _refuse_words(wanted)
    before = _standing(facts, device)
    _refuse_running(facts, device)
    for name in wanted:
        _refuse_method(facts, device, name)
    value = " ".join(wanted)
    why = f"{device} is to be reset by {' then '.join(wanted)}"
    changes = [
        *_rule(facts, device, "reset_method", value, why),
        *_attribute(device, "reset_method", before, value, why),
    ]
    slug = f"reset-{'-'.join(wanted).replace('_', '')}"
    risks = (*_doubts(facts, device, wanted), *_overruled(facts, device))
    return _plan(f"reset {device} by {' then '.join(wanted)}", slug, device, changes, now, machine, risks)


def default_method(facts: Facts, device: Device, original: str | None, *, now: str, machine: str) -> Plan:
    """The plan that takes our choice away. `original`: the methods before the first of our runs, None: nobody knows."""
    before = _standing(facts, device)
    _refuse_running(facts, device)
    why = f"{device} is to be reset as the kernel chooses"
    changes = _rule(facts, device, "reset_method", None, why)
    if original is not None:
        changes += _attribute(device, "reset_method", before, original, why)
    elif changes:
        at = f"/sys/bus/pci/devices/{device.address}/reset_method"
        raise Failure(
            "reset.original-unknown",
            f"Nothing was planned: a rule of ours sets the method of {device}, and no run tells what it was before.",
            f"{UDEV_RULES}: {edit_udev.settings_of(facts.files.get(UDEV_RULES))[device.address, 'reset_method']}",
            hint=f"Take its line out of {UDEV_RULES}, then: echo default > {at}", code=Exit.REFUSED,
        )  # fmt: skip
    return _plan(f"reset {device} as the kernel chooses", "reset-default", device, changes, now, machine)


def _refuse_words(wanted: Sequence[str]) -> None:
    unknown_words = [name for name in wanted if name not in METHODS]
    if unknown_words or not wanted or len(set(wanted)) != len(wanted):
        said = f"{unknown_words[0]!r} is no method" if unknown_words else "methods are named once each"
        raise Failure(
            "reset.no-method", f"Nothing was planned: {said}.",
            hint=f"Methods, with commas between: {', '.join(METHODS)}; or default.", code=Exit.USAGE,
        )  # fmt: skip


def _standing(facts: Facts, device: Device) -> tuple[str, ...]:
    """The methods in force. Raises Failure where there is nothing to choose, or nobody can say."""
    on = effective(facts, device)
    if device.reset_methods is not None and on is not None and device.resettable is not False:
        return on
    if facts.kernel.version is not None and facts.kernel.version < METHOD_CHOICE:
        raise Failure(
            "reset.old-kernel", f"Nothing was planned: kernel {facts.kernel.release} lets nobody choose a method.",
            hint="Kernels from 5.15 on do.", code=Exit.REFUSED,
        )  # fmt: skip
    if device.resettable is False:
        raise Failure(
            "reset.none", f"Nothing was planned: the kernel knows no way to reset {device}.",
            f"/sys/bus/pci/devices/{device.address}/reset: absent",
            hint="There is nothing to choose. It can be used once per boot of the host.", code=Exit.REFUSED,
        )  # fmt: skip
    raise unknown(facts, "pci.reset_method", f"how {device} can be reset")


def _refuse_running(facts: Facts, device: Device) -> None:
    if facts.guests is None:
        raise unknown(facts, "guests", f"whether a guest runs with {device}")
    for guest in facts.guests:
        if guest.running is not False and _takes(guest.hostpci, device.address) and _is_here(facts, guest.node):
            state = "runs" if guest.running else "may run (nobody could say)"
            raise Failure(
                "reset.in-use", f"Nothing was planned: guest {guest.vmid} ({guest.name}) {state} with {device}.",
                hint=f"qm shutdown {guest.vmid}", code=Exit.REFUSED,
            )  # fmt: skip


def _is_here(facts: Facts, node: str) -> bool:
    return facts.pve.node is None or not node or node == facts.pve.node


def _refuse_method(facts: Facts, device: Device, name: str) -> None:
    """The kernel refuses what it cannot do (Unsupported reset method); better said before anything is written."""
    known = {one.name: one for one in methods(facts, device) or ()}
    if name in known and known[name].possible:
        return
    beside = siblings(facts, device)
    if name == "bus" and beside:
        reason = f"{beside[0]} is on the same bus, and the kernel resets a bus for one function only when it is alone"
    elif name == "bus" and device.parent is None:
        reason = "it sits on a root bus, which has no bridge above it that could reset it"
    elif name == "device_specific" and any(row.vendor_reset for row in rows_of(device, facts.devices)):
        reason = f"the module vendor-reset is not loaded; pve-passthrough reset vendor-reset {device.address}"
    elif name in known:
        reason = "its configuration space was not readable, so nobody can say whether it has it"
    else:
        reason = next(
            (f"{row.behaviour} ({row.source})" for row in rows_of(device, facts.devices) if name in row.absent),
            "neither the kernel's list nor its configuration space has it",
        )
    there = [one.name for one in known.values() if one.possible]
    raise Failure(
        "reset.method-unsupported", f"Nothing was planned: {device} cannot be reset by {name}.", reason,
        hint=f"It has: {', '.join(there)}." if there else "It has no other method either.", code=Exit.REFUSED,
    )  # fmt: skip


def _doubts(facts: Facts, device: Device, wanted: Sequence[str]) -> Iterator[Finding]:
    for row in rows_of(device, facts.devices):
        bad = [name for name in wanted if name in row.doubted]
        if bad:
            yield Finding(
                "reset.doubted", Level.HARMS, str(device.address),
                f"{row.family}: {row.behaviour}. Save your work before the first start with {bad[0]}.",
                (f"{device.address}: {device.id} ({row.source})",), Actor.HARDWARE,
            )  # fmt: skip


def _overruled(facts: Facts, device: Device) -> Iterator[Finding]:
    """udev reads its rules in the order of the files' names, and the last assignment counts (udev(7))."""
    later = [rule for rule in _foreign(facts, device) if rule.partition(":")[0] > UDEV_RULES]
    if later:
        yield Finding(
            "reset.overruled", Level.HARMS, str(device.address),
            "At the next boot another rule comes after ours and may choose another method.", tuple(later), Actor.NOBODY,
        )  # fmt: skip


# -- power ---------------------------------------------------------------------------------------


def keep_powered(facts: Facts, device: Device, *, now: str, machine: str) -> Plan:
    """The plan that keeps the function out of D3cold, now and after every boot. Raises Failure.

    Source: kernel, ABI/testing/sysfs-bus-pci, d3cold_allowed: writing it also wakes the function up.
    """
    if device.d3cold_allowed is None:
        raise unknown(facts, "pci.d3cold_allowed", f"whether {device} may go to D3cold")
    _refuse_running(facts, device)
    why = f"{device} is to keep its power while nobody uses it"
    before = ("1",) if device.d3cold_allowed else ("0",)
    changes = [
        *_rule(facts, device, "d3cold_allowed", "0", why),
        *_attribute(device, "d3cold_allowed", before, "0", why),
    ]
    return _plan(f"keep {device} out of D3cold", "keep-powered", device, changes, now, machine)


# -- vendor-reset --------------------------------------------------------------------------------


def module_hazards(facts: Facts, dkms: Dkms) -> tuple[Finding, ...]:
    """Secure Boot lets in only modules whose signing key the firmware's shim trusts (kernel lockdown)."""
    if facts.firmware.secure_boot is False or dkms.enrolled:
        return ()
    state = "on" if facts.firmware.secure_boot else "perhaps on (nobody could say)"
    key = "is not trusted" if dkms.enrolled is False else "may not be trusted: nobody could say"
    return (
        Finding(
            "reset.unsigned-module", Level.HARMS, "host",
            f"Secure Boot is {state}, and the key that DKMS signs with {key}: the kernel may refuse the module.",
            (
                f"key: {dkms.certificate} (DKMS makes one at its first build where there is none)",
                f"to have it trusted: mokutil --import {dkms.certificate}, then confirm it when the host starts",
                "accepted all the same: after the reboot the run is taken back if the module is not in charge",
            ),
            Actor.NOBODY, None, UNSIGNED,
        ),
    )  # fmt: skip


def install_vendor_reset(facts: Facts, device: Device, dkms: Dkms, *, now: str, machine: str) -> Plan:
    """The plan that builds vendor-reset for the running kernel and puts it in charge of this card. Raises Failure."""
    row = reset_row(device.vendor, device.product)
    if row is None or not row.vendor_reset:
        raise _not_for(device, row)
    _refuse_running(facts, device)
    _standing(facts, device)
    source = _buildable(facts, dkms)
    why = f"{device} ({row.family}) is reset by {MODULE}"
    changes = []
    if source.state != "installed":
        changes.append(Change(Cell("dkms", f"{source.name}/{source.version}"), source.state, "installed", why))
    listed = _listed(_text(facts, MODULES_LOAD))
    if listed != _text(facts, MODULES_LOAD):
        changes += _parent(facts, MODULES_LOAD)
        changes.append(Change(Cell("file", MODULES_LOAD), _text(facts, MODULES_LOAD), listed, why))
    changes += _rule(facts, device, "reset_method", "device_specific", why, module=MODULE)
    in_charge = effective(facts, device) == ("device_specific",)
    risks = (*_unproven(facts, source), *_overruled(facts, device), *_next_kernel(facts, source))
    plan = _plan(f"let {MODULE} reset {device}", MODULE, device, changes, now, machine, risks)
    if not changes and in_charge:
        return plan
    return _rebooting(plan, device, why) if changes else _only_now(plan, facts, device, why)


def _rebooting(plan: Plan, device: Device, why: str) -> Plan:
    """The module must be there before the card is first used: the change is one of the next boot, and proven there."""
    return replace(
        plan, reboot=True,
        expects=(Expectation(Cell("pci", f"{device.address}/reset_method"), "device_specific", why),),
        way_home=(
            "If the host does not come back:",
            "  GRUB: press e at the menu, in the line that begins with linux add module_blacklist=vendor_reset, then "
            "press Ctrl-x.",
            "  systemd-boot: press e at the menu, add the same word to the line that appears, then press Enter.",
            "  Then, on the host: pve-passthrough undo",
        ),
    )  # fmt: skip


def _only_now(plan: Plan, facts: Facts, device: Device, why: str) -> Plan:
    """All is written down already, and the attribute has been changed since: set it again."""
    before = _standing(facts, device)
    return _plan(plan.goal, MODULE, device, _attribute(device, "reset_method", before, "device_specific", why),
                 plan.id[:15], plan.machine)  # fmt: skip


def _not_for(device: Device, row: ResetRow | None) -> Failure:
    reason = "it is in no list of that module" if row is None else f"{row.family}: {row.behaviour}; {row.remedy}"
    return Failure(
        "reset.not-for-this-card", f"Nothing was planned: vendor-reset does nothing for {device} ({device.id}).",
        reason,
        hint="It knows AMD Polaris 10 to 12, Vega 10 and 20, Navi 10, 12 and 14, and Arcturus. "
        f"For this one: pve-passthrough reset show {device.address}", code=Exit.REFUSED,
    )  # fmt: skip


def _buildable(facts: Facts, dkms: Dkms) -> Source:
    """The one source tree, when all that a build needs is there. Raises Failure with the commands to type."""
    missing: list[str] = []
    release = facts.kernel.release or "$(uname -r)"
    packages = ["dkms"] if dkms.installed is False else []
    packages += [f"proxmox-headers-{release}"] if dkms.headers is False else []
    if packages:
        missing.append(f"apt install {' '.join(packages)}")
    if dkms.sources == ():
        missing += [f"git clone {ORIGIN} /root/{MODULE}", f"dkms add /root/{MODULE}"]
    if missing:
        raise Failure(
            "reset.not-buildable", "Nothing was planned: what a build of vendor-reset needs is not all here.",
            *missing, *dkms.unsaid, hint="Type these, look at what you fetched, then run this again.",
            code=Exit.REFUSED,
        )  # fmt: skip
    if dkms.installed is None or dkms.headers is None or dkms.sources is None:
        raise Failure("plan.unknown", "Nothing was planned: whether vendor-reset can be built here is unknown.",
                      *dkms.unsaid, hint="Run it on the machine itself, as root.")  # fmt: skip
    if len(dkms.sources) > 1:
        raise Failure(
            "reset.two-sources", "Nothing was planned: there are several source trees of vendor-reset.",
            *(one.path for one in dkms.sources), hint="Leave one of them.", code=Exit.REFUSED,
        )  # fmt: skip
    source = dkms.sources[0]
    version = facts.kernel.version
    if source.new_headers is False and version is not None and version >= NEW_HEADERS and source.state != "installed":
        raise Failure(
            "reset.old-source", f"Nothing was planned: {source.path} does not build on kernel {facts.kernel.release}.",
            f"{source.path}/{PROBE_FILE}: includes asm/unaligned.h, which kernel 6.12 moved to linux/unaligned.h",
            hint=f"Take a tree of 2026-05-31 or later: dkms remove {MODULE}/{source.version} --all; "
            f"rm -r {source.path}; git clone {ORIGIN} /root/{MODULE}; dkms add /root/{MODULE}", code=Exit.REFUSED,
        )  # fmt: skip
    return source


def _unproven(facts: Facts, source: Source) -> Iterator[Finding]:
    version = facts.kernel.version
    if source.new_headers is None and (version is None or version >= NEW_HEADERS) and source.state != "installed":
        yield Finding(
            "reset.source-unknown", Level.UNKNOWN, "host",
            "Whether this tree of vendor-reset is new enough for the kernel, nobody could say. A build that fails is "
            "taken back.", (f"{source.path}/{PROBE_FILE}: says nothing about it",), Actor.NOBODY,
        )  # fmt: skip


def _next_kernel(facts: Facts, source: Source) -> Iterator[Finding]:
    """DKMS builds again for each kernel that is installed, where that kernel's headers are (dkms(8), autoinstall)."""
    if source.state != "installed":
        yield Finding(
            "reset.next-kernel", Level.NOTE, "host",
            "The module is built for this kernel. DKMS builds it for the next one too, if its headers are there.",
            (f"running: {facts.kernel.release or 'unknown'}",), Actor.NOBODY,
            Fix("Let the headers follow every new kernel.", Safety.SHOW, ("apt install proxmox-default-headers",)),
        )  # fmt: skip


def _listed(text: str | None) -> str:
    """Our modules-load.d file with the module in it (modules-load.d(5))."""
    if text is not None and any(line.strip().replace("_", "-") == MODULE for line in text.split("\n")):
        return text
    return "\n".join(((text or MARK).rstrip("\n"), MODULE, ""))


# -- parts of plans ------------------------------------------------------------------------------


def _plan(
    goal: str, slug: str, device: Device, changes: Sequence[Change], now: str, machine: str,
    risks: Iterable[Finding] = (),
) -> Plan:  # fmt: skip
    rules = any(change.cell.name == UDEV_RULES for change in changes)
    return Plan(
        id=f"{now}-{slug}-{re.sub(r'[^0-9a-f]', '', str(device.address))}",
        machine=machine,
        goal=goal,
        changes=tuple(changes),
        refreshes=("udev",) if rules else (),
        risks=tuple(risks),
        devices={str(device.address): device.id},
    )


def _rule(
    facts: Facts, device: Device, attribute: str, value: str | None, why: str, module: str = ""
) -> list[Change]:  # fmt: skip
    """The change of our udev rules file, and of its directory where there is none."""
    if "?" in device.id:
        raise unknown(facts, "pci.vendor", f"what {device.address} is, so that a rule could know it again")
    text = _text(facts, UDEV_RULES)
    with _proving():
        after = edit_udev.edit(text, device.address, device.id, attribute, value, module)
    if after == text:
        return []
    return [*(_parent(facts, UDEV_RULES) if after else []), Change(Cell("file", UDEV_RULES), text, after, why)]


def _attribute(device: Device, attribute: str, before: Sequence[str], value: str, why: str) -> list[Change]:
    now = " ".join(before)
    return [] if now == value else [Change(Cell("pci", f"{device.address}/{attribute}"), now, value, why)]


def _parent(facts: Facts, path: str) -> list[Change]:
    directory = path.rpartition("/")[0]
    if facts.files.get(f"{directory}/", "directory") is not None:
        return []
    return [Change(Cell("dir", directory), None, "directory", "holds the new file")]


def _text(facts: Facts, path: str) -> str | None:
    if path not in facts.files:
        raise unknown(facts, f"files.{path}", f"what {path} holds")
    return facts.files[path]


@contextmanager
def _proving() -> Iterator[None]:
    try:
        yield
    except Unprovable as error:
        raise Failure(
            "plan.unprovable", f"Nothing was planned: the result of editing {UDEV_RULES} cannot be foretold.",
            f"{error.where}: {error.reason}", hint="Mend that file, then plan again.", code=Exit.REFUSED,
        ) from error  # fmt: skip
