"""The one thing to do next about a cause, with this host's device and guest filled in.

1. One change, and one command: with two nobody learns which it was.
2. A command is named only when all of its places are known; otherwise the words stand alone, or with capitals for what
   the person has to fill in where only files were read.
3. Nothing is planned here: the command shows its plan and asks before it changes anything.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING

from ..knowledge.causes import cause as row_of
from ..knowledge.one_change import one_change
from ..model.diagnosis import UNKNOWN, Candidate, Kind
from ..model.finding import Actor, Finding, Fix
from ..model.pci import Address
from ..model.value import dataclass

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.vm import Vm


@dataclass(frozen=True, slots=True)
class NextChange:
    """confirm: what makes sure · change: the one change in words · commands: what to type for it · helped: how to tell
    · keep: what to leave as it is meanwhile. All empty for a cause that nobody described."""

    confirm: str = ""
    change: str = ""
    commands: tuple[str, ...] = ()
    helped: str = ""
    keep: str = ""


def next_change(
    candidate: Candidate, facts: Facts | None = None, vmid: int | None = None, findings: Sequence[Finding] = ()
) -> NextChange:
    """What to do about a candidate on this host, or in general when only files were read. `findings`: what the rules
    say of this host; where one of them is evidence, its own way out is the more exact one."""
    row = row_of(candidate.cause)
    if row is None:
        return NextChange()
    change = one_change(row.code)
    if (other := _other_guest(candidate, vmid)) is not None:
        return _between_guests(facts, other, vmid)
    guest = facts.guest(vmid) if facts is not None and vmid is not None else None
    device = _device(candidate, facts, guest)
    places = {
        "device": _word(device, facts, change.types) if device else "",
        "vmid": str(vmid) if vmid is not None else "",
        "mapping": _mapping(guest),
    }
    typed = _filled(change.types, places, general=facts is None)
    own = (f"{_program(facts)} {typed}",) if typed else ()
    program = _program(facts)
    if (fix := _ruled(candidate, findings)) is not None:
        ruled = tuple(command.replace("pve-passthrough ", f"{program} ") for command in fix.commands[:1])
        confirm, helped = (
            _placed(words, device, vmid).replace("pve-passthrough ", f"{program} ")
            for words in (row.confirm, row.helped)
        )
        return NextChange(confirm, fix.text, ruled, helped, change.keep)
    confirm, helped, *others = (
        _placed(words, device, vmid).replace("pve-passthrough ", f"{program} ")
        for words in (row.confirm, row.helped, *row.commands)
    )
    return NextChange(confirm, row.change, (*own, *others), helped, change.keep)


_HELD = re.compile(r"PCI device '[0-9a-f:.]+' (?:already in use|currently reserved for use) by VMID '(\d+)'")
"""Source: qemu-server, QemuServer/PCI.pm, reserve_pci_usage."""


def _other_guest(candidate: Candidate, vmid: int | None) -> int | None:
    """The guest that has the device, where Proxmox VE says so."""
    found = (match for one in candidate.supporting if (match := _HELD.search(one.text)))
    return next((number for match in found if (number := int(match[1])) != vmid), None)


def _between_guests(facts: Facts | None, other: int, vmid: int | None) -> NextChange:
    """Two guests want one device: nothing on the host has to be changed."""
    mine = "the other guest" if vmid is None else f"guest {vmid}"
    return NextChange(
        f"{_program(facts)} check --vm {other}",
        f"Shut guest {other} down before {mine} starts; or take the device from one of the two.",
        (f"qm shutdown {other}",),
        f"The start of {mine} no longer speaks of VMID '{other}'.",
        "Leave drivers and kernel arguments of the host as they are: they have no part in this.",
    )


_MISSING = (
    (Kind.KERNEL_LOG, "the host's kernel log of the start (journalctl -k -b)"),
    (Kind.TASK_LOG, "the log of the failed start (Proxmox VE's task history of the guest)"),
    (Kind.GUEST_CONFIG, "the guest's configuration (qm config ID)"),
    (Kind.LSPCI, "the devices with their drivers (lspci -nnk)"),
    (Kind.IOMMU_LISTING, "the IOMMU groups (pve-passthrough devices --groups)"),
)
"""What tells most, in the order in which it is asked for."""


def next_look(read: Mapping[str, Kind], facts: Facts | None = None, vmid: int | None = None) -> NextChange:
    """Not enough evidence: what to look at next. Of a host that is looked at, a start under its eyes; of files, those
    that were not among them."""
    keep = one_change(UNKNOWN).keep
    if facts is not None and vmid is not None:
        guest = facts.guest(vmid)
        running = guest is not None and bool(guest.running)
        verb = f"diagnose --walk --vm {vmid}" if running else f"diagnose --watch --vm {vmid}"
        what = (
            "The guest runs, and nothing that was read complains: walk through it, one variable at a time."
            if running
            else "Nothing that was read complains: start the guest while it is watched."
        )
        return NextChange(change=what, commands=(f"{_program(facts)} {verb}",), keep=keep)
    if facts is not None:
        return NextChange(change="Name the guest that has the trouble.",
                          commands=(f"{_program(facts)} diagnose --vm ID",), keep=keep)  # fmt: skip
    known = set(read.values())
    if Kind.JOURNAL in known:
        known.add(Kind.KERNEL_LOG)
    missing = [words for kind, words in _MISSING if kind not in known]
    change = f"Add {missing[0]}." if missing else "Look at the host itself, with this program on it."
    return NextChange(change=change, commands=("pve-passthrough diagnose --log FILE" if missing else
                      "pve-passthrough diagnose --vm ID",), keep=keep)  # fmt: skip


def _ruled(candidate: Candidate, findings: Sequence[Finding]) -> Fix | None:
    """The way out of the strongest finding among the evidence that has more than a look to offer, or that says that
    no plan can help."""
    for one in candidate.supporting:
        for finding in findings:
            same = one.sign == f"rule:{finding.rule}" and one.says == finding.message
            if same and finding.fix is not None and (finding.actor in _BEYOND or _changes(finding.fix)):
                return finding.fix
    return None


_BEYOND = (Actor.FIRMWARE, Actor.HARDWARE)
_LOOKS = ("devices", "check", "explain", "status")


def _changes(fix: Fix) -> bool:
    """Whether its command is one of this program that plans a change."""
    words = fix.commands[0].split() if fix.commands else []
    return len(words) > 1 and words[0] == "pve-passthrough" and words[1] not in _LOOKS


def _program(facts: Facts | None) -> str:
    if facts is None or facts.host == "local":
        return "pve-passthrough"
    return f"pve-passthrough --host {facts.host}"


def _device(candidate: Candidate, facts: Facts | None, guest: Vm | None) -> Address | None:
    """The device that the evidence names, if it is the guest's; else the guest's first; else the evidence's."""
    named = [address for one in candidate.supporting if (address := _parsed(one.device)) is not None]
    given = [address for entry in guest.hostpci for address in entry.addresses] if guest is not None else []
    if facts is not None:
        named = [address for address in named if facts.device(address) is not None]
    slots = {address.slot for address in given}
    own = [address for address in named if address.slot in slots]
    return next(iter((*own, *given, *named)), None)


def _parsed(text: str) -> Address | None:
    try:
        return Address.parse(text) if text else None
    except ValueError:
        return None


def _word(address: Address, facts: Facts | None, types: str) -> str:
    """A card for a plan (all its functions go together), one function for the verbs that concern one."""
    text = address.slot if types.startswith("plan ") and _whole(address, facts) else str(address)
    return text.removeprefix("0000:")


def _whole(address: Address, facts: Facts | None) -> bool:
    if facts is None:
        return False
    return sum(device.address.slot == address.slot for device in facts.devices) > 1


def _mapping(guest: Vm | None) -> str:
    return next((entry.mapping for entry in guest.hostpci if entry.mapping), "") if guest is not None else ""


def _filled(types: str, places: dict[str, str], *, general: bool) -> str:
    """The command, or nothing when a place of it is unknown here."""
    capitals = {"device": "DEVICE", "vmid": "ID", "mapping": "NAME"}
    for name, word in places.items():
        if f"{{{name}}}" in types and not word and not general:
            return ""
        types = types.replace(f"{{{name}}}", word or capitals[name])
    return types


def _placed(words: str, device: Address | None, vmid: int | None) -> str:
    """Words with the address and the number in them where they stand in capitals."""
    if device is not None:
        words = words.replace("ADDRESS", str(device)).replace("BUS:DEVICE", device.slot)
    return words.replace("VMID", "ID" if vmid is None else str(vmid))
