"""diagnose --walk: the guided order, one variable at a time, that remembers what was tried.

1. The order: IOMMU, groups, who holds the device, the start and its log, inside the guest, then a configuration with
   nothing but what is needed. Each step is judged from what the machine shows where that is possible.
2. A step names one change. Nothing is changed here: the person makes the change, and says whether it helped, or asks
   again and the machine is looked at anew.
3. What was tried is kept in /var/lib/pve-passthrough/walks/VMID.json and never proposed again. What is read from there
   is checked like anything else; a file that does not fit is shown and left alone.
4. A capture or a tree can be walked too; then nothing is remembered, and that is said.
"""

from __future__ import annotations

import json
import time
from collections.abc import Mapping
from enum import Enum
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host, HostError, Missing
from ..model.diagnosis import NO_FAULT, UNKNOWN, Observation
from ..model.finding import Finding, Level
from ..model.hookscript import OURS
from ..model.own import STATE
from ..model.value import dataclass

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.vm import Vm
    from .diagnose import Asked

WALKS = f"{STATE}/walks"
FORMAT = 1
LONGEST = 1 << 18
MOST = 200
"""Answers that are kept for one guest."""


class Answer(Enum):
    HELPED = "helped"
    NO = "no"
    SKIP = "skip"


class Judged(Enum):
    FINE = "fine"
    WRONG = "wrong"
    OPEN = "open"
    """The machine does not show it: only trying tells."""


@dataclass(frozen=True, slots=True)
class Tried:
    """One answer: which try, what came of it, when (UTC)."""

    name: str
    answer: Answer
    when: str


@dataclass(frozen=True, slots=True)
class Try:
    """name: unique within a walk · change: one change in words · commands: what is typed · back: how it is taken back
    · helped: how to tell"""

    name: str
    change: str
    commands: tuple[str, ...]
    back: tuple[str, ...] = ()
    helped: str = ""


@dataclass(frozen=True, slots=True)
class Step:
    """One station of the walk. `shows`: evidence, one line each. `tries`: in the order in which they are made."""

    name: str
    title: str
    judged: Judged
    shows: tuple[str, ...]
    tries: tuple[Try, ...] = ()


@dataclass(frozen=True, slots=True)
class Walk:
    """steps · tried: what was answered before · here: the step and the try to make now; None: the walk is over"""

    vmid: int
    steps: tuple[Step, ...]
    tried: tuple[Tried, ...]
    here: Step | None
    now: Try | None
    helped: Tried | None = None
    """What ended the trouble."""
    remembered: bool = True
    program: str = "pve-passthrough"
    """How this program is called for this host."""


def walk(host: Host, vmid: int, answer: Answer | None = None) -> Walk:
    """Where the walk stands; `answer` is about the try that was shown last. Raises Failure."""
    tried = recall(host, vmid)
    steps = _steps(host, vmid)
    place = _place(steps, tried)
    if answer is not None:
        if place[1] is None:
            raise Failure("walk.nothing-asked", "Nothing was remembered: no try is waiting for an answer.",
                          hint=f"pve-passthrough diagnose --walk --vm {vmid}", code=Exit.USAGE)  # fmt: skip
        tried = (*tried, Tried(place[1].name, answer, time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())))
        remember(host, vmid, tried)
        place = _place(steps, tried)
    helped = next((one for one in tried if one.answer is Answer.HELPED), None)
    here, now = (None, None) if helped else place
    program = "pve-passthrough" if host.name == "local" else f"pve-passthrough --host {host.name}"
    return Walk(vmid, steps, tried, here, now, helped, host.changeable, program)


def forget(host: Host, vmid: int) -> bool:
    """Begin anew; whether there was anything to forget."""
    try:
        host.read(path_of(vmid))
    except Missing:
        return False
    host.write(path_of(vmid), None)
    return True


def _place(steps: tuple[Step, ...], tried: tuple[Tried, ...]) -> tuple[Step | None, Try | None]:
    """The first step that is not fine and has a try that was not made."""
    made = {one.name for one in tried}
    for step in steps:
        waiting = [one for one in step.tries if one.name not in made]
        if step.judged is not Judged.FINE and waiting:
            return step, waiting[0]
    return None, None


# -- memory --------------------------------------------------------------------------------------


def path_of(vmid: int) -> str:
    return f"{WALKS}/{vmid}.json"


def recall(host: Host, vmid: int) -> tuple[Tried, ...]:
    """What was tried before. Raises Failure for a file that nobody can read."""
    path = path_of(vmid)
    try:
        data = host.head(path, LONGEST + 1)
    except Missing:
        return ()
    except HostError as error:
        if not host.changeable:
            return ()
        raise _unreadable(path, error.reason) from error
    try:
        return _parsed(data, vmid)
    except (ValueError, KeyError, TypeError, RecursionError) as error:
        raise _unreadable(path, str(error) or type(error).__name__) from error


def _parsed(data: bytes, vmid: int) -> tuple[Tried, ...]:
    if len(data) > LONGEST:
        raise ValueError("too long")
    value = json.loads(data)
    if value["format"] != FORMAT or value["vmid"] != vmid:
        raise ValueError("of another format, or another guest's")
    rows = value["tried"]
    if not isinstance(rows, list) or len(rows) > MOST:
        raise ValueError("no list of tries")
    return tuple(Tried(_word(row["name"]), Answer(row["answer"]), _word(row["when"])) for row in rows)


def _word(value: object) -> str:
    if not isinstance(value, str) or len(value) > 80 or not value.isprintable():
        raise ValueError("a name that is none")
    return value


def _unreadable(path: str, why: str) -> Failure:
    return Failure(
        "walk.unreadable", f"Nothing was changed: what was tried before could not be read from {path}.", why,
        hint=f"Look at the file; move it away to begin anew: mv {path} {path}.old",
    )  # fmt: skip


def remember(host: Host, vmid: int, tried: tuple[Tried, ...]) -> None:
    """Write it down, whole or not at all. On a host that cannot be changed nothing is kept."""
    if not host.changeable:
        return
    rows = [{"name": one.name, "answer": one.answer.value, "when": one.when} for one in tried[-MOST:]]
    text = json.dumps({"format": FORMAT, "vmid": vmid, "tried": rows}, indent=1) + "\n"
    try:
        for directory in (STATE, WALKS):
            host.make_dir(directory, 0o700)
        host.write(path_of(vmid), text.encode(), 0o600)
    except HostError as error:
        raise Failure("walk.not-written", f"The answer was not kept: {path_of(vmid)}: {error.reason}.") from error


# -- steps ---------------------------------------------------------------------------------------

_IOMMU = ("platform.iommu", "platform.interrupt-remapping", "platform.reserved-region", "platform.address-width",
          "bootconfig.not-running", "bootconfig.wrong-file", "bootconfig.no-effect", "bootconfig.loader")  # fmt: skip
_GROUPS = ("groups.", "hazards.")
_BINDING = ("drivers.", "bootconfig.vfio", "bootconfig.blacklist", "bootconfig.misspelt", "bootconfig.softdep",
            "bootconfig.stale-initramfs", "gpu.framebuffer", "devices.", "resets.", "drift.", "gpu.reset-bug",
            "gpu.vendor-reset")  # fmt: skip
_CONFIG = ("guests.", "mappings.", "usb.", "vgpu.", "storage.")
_TELLING = (Level.BLOCKS, Level.HARMS)


def _steps(host: Host, vmid: int) -> tuple[Step, ...]:
    from .. import rules
    from .diagnose import ask

    asked = ask(host, vmid=vmid)
    facts = asked.facts
    guest = facts.guest(vmid) if facts is not None else None
    if facts is None or guest is None:
        raise Failure("guest.missing", f"Nothing was walked: there is no guest {vmid} that could be read.",
                      hint="qm list shows the guests.", code=Exit.USAGE)  # fmt: skip
    addresses = tuple(address for entry in guest.hostpci for address in entry.addresses)
    findings = rules.judge(facts, rules.Request(addresses, vmid))
    program = "pve-passthrough" if facts.host == "local" else f"pve-passthrough --host {facts.host}"
    device = addresses[0].slot.removeprefix("0000:") if addresses else ""
    plan = f"{program} plan {device} --vm {vmid}" if device else ""

    def judge(name: str, title: str, families: tuple[str, ...], good: tuple[str, ...]) -> Step:
        return _judged(name, title, [one for one in findings if one.rule.startswith(families)], good, plan)

    return (
        judge("iommu", "Is the IOMMU on?", _IOMMU, _iommu_shows(facts)),
        judge("groups", "May the whole group leave the host?", _GROUPS, _group_shows(facts, guest)),
        judge("binding", "Is the device free for the guest?", _BINDING, _binding_shows(facts, guest)),
        judge("config", "Does the configuration say what is meant?", _CONFIG, _config_shows(guest)),
        _log_step(asked, guest),
        _minimal(guest, program, asked),
    )


def _judged(name: str, title: str, findings: list[Finding], good: tuple[str, ...], plan: str) -> Step:
    """Fine unless a rule blocks or harms; each finding is one try, with the rule's own way out."""
    wrong = [one for one in findings if one.level in _TELLING]
    if not wrong:
        return Step(name, title, Judged.FINE, good)
    shows = tuple(line for one in wrong for line in (one.message, *one.evidence[:2]))
    return Step(name, title, Judged.WRONG, shows, tuple(_try_of(name, one, plan) for one in wrong))


def _try_of(step: str, finding: Finding, plan: str) -> Try:
    words = finding.fix.text if finding.fix else finding.message
    commands = finding.fix.commands if finding.fix else ()
    if not commands and plan and finding.fix is not None:
        commands = (plan,)
    helped = "The walk says so when you come back: this step is looked at anew."
    return Try(f"{step}:{finding.rule}:{finding.subject}"[:80], words, commands[:1], helped=helped)


def _iommu_shows(facts: Facts) -> tuple[str, ...]:
    groups = {one.iommu_group for one in facts.devices if one.iommu_group is not None}
    return (f"{len(groups)} IOMMU groups", f"kernel command line: {facts.kernel.cmdline}"[:300])


def _group_shows(facts: Facts, guest: Vm) -> tuple[str, ...]:
    numbers = {device.iommu_group for entry in guest.hostpci for address in entry.addresses
               if (device := facts.device(address)) and device.iommu_group is not None}  # fmt: skip
    return tuple(
        f"group {number}: " + ", ".join(str(one.address) for one in facts.group(number)) for number in sorted(numbers)
    )


def _binding_shows(facts: Facts, guest: Vm) -> tuple[str, ...]:
    found = [facts.device(address) for entry in guest.hostpci for address in entry.addresses]
    return tuple(f"{one.address}: {one.driver or 'no driver'}" for one in found if one is not None)


def _config_shows(guest: Vm) -> tuple[str, ...]:
    keys = ("machine", "bios", "cpu", "vga", "args")
    shown = [f"{key}: {guest.value(key)}" for key in keys if guest.value(key)]
    return (*shown, *(f"{entry.key}: {guest.value(entry.key)}" for entry in guest.hostpci))


def _log_step(asked: Asked, guest: Vm) -> Step:
    """What the start and the guest said. One try: the change for the likeliest cause."""
    first = asked.diagnosis.first
    title = "What did the start and the guest say?"
    remarks = asked.remarks
    if first.cause in (NO_FAULT, UNKNOWN):
        return Step("log", title, Judged.FINE if first.cause == NO_FAULT else Judged.OPEN, remarks)
    step = asked.nexts[0]
    shows = (*remarks, *(_quoted(one) for one in first.supporting[:3]))
    return Step("log", title, Judged.WRONG, shows,
                (Try(f"log:{first.cause}", step.change, step.commands[:1], helped=step.helped),))  # fmt: skip


def _quoted(one: Observation) -> str:
    where = one.source if one.line is None else f"{one.source}, line {one.line}"
    return f"{where}: {one.text}"


# -- the minimal configuration -------------------------------------------------------------------


def _minimal(guest: Vm, program: str, asked: Asked) -> Step:
    """What is not needed, one by one: each is left away, tried, and put back when it was not it."""
    title = "Which part of the configuration is it? One at a time."
    runs = asked.diagnosis.first.cause == NO_FAULT
    return Step("minimal", title, Judged.FINE if runs else Judged.OPEN, _config_shows(guest), tuple(_variables(guest)))


def _variables(guest: Vm) -> list[Try]:
    """Each with its way back. The order: what stops starts first, then what hides pictures."""
    found = [_without(guest, key, why) for key, why in _REMOVABLE if guest.value(key) and not _ours(guest, key)]
    found += [_without(guest, key, "one device less: does the guest start without it?") for key in _usb(guest)]
    entries = guest.hostpci
    found += [_without(guest, entry.key, "one device less: does it start with the others?") for entry in entries[1:]]
    for entry in entries[:1]:
        found += _entry_variants(guest, entry.key, guest.value(entry.key) or "", entry.options)
    if (guest.value("vga") or "std").startswith("none"):
        found.append(_set(guest, "vga", "std", "a virtual display shows what the guest's firmware and system say"))
    found += [_without(guest, entry.key, "the guest without the device: if this fails too, the device is not the cause")
              for entry in entries[:1]]  # fmt: skip
    return found


_REMOVABLE = (
    ("args", "arguments of your own go to QEMU past Proxmox VE's checks"),
    ("hugepages", "huge pages must be free in one piece when the guest starts"),
    ("hookscript", "a hookscript may stop the start"),
)


def _ours(guest: Vm, key: str) -> bool:
    """The guard of this program stays: without it a start may take what the host needs."""
    return key == "hookscript" and OURS in (guest.value(key) or "")


def _usb(guest: Vm) -> list[str]:
    return sorted(key for key in guest.config if key.startswith("usb") and key[3:].isdecimal())


def _entry_variants(guest: Vm, key: str, value: str, options: Mapping[str, str]) -> list[Try]:
    """The options of the first device, one at a time."""
    found = []
    for name, why in (
        ("romfile", "the card's own ROM instead of a file"),
        ("x-vga", "the card as a second display, beside the virtual one"),
        ("pcie", "the card as a plain PCI device, for a driver that stumbles over the PCIe port"),
    ):
        if name in options:
            found.append(_set(guest, key, _less(value, name), f"{why}: {key} without {name}"))
    if "rombar" not in options:
        found.append(_set(guest, key, f"{value},rombar=0", "the guest's firmware does not run the card's ROM"))
    return found


def _less(value: str, name: str) -> str:
    return ",".join(part for part in value.split(",") if part.partition("=")[0] != name)


def _set(guest: Vm, key: str, value: str, why: str) -> Try:
    """One value changed, with the command that puts the old one back."""
    before = guest.value(key)
    back = f"qm set {guest.vmid} --{key} {_quote(before)}" if before else f"qm set {guest.vmid} --delete {key}"
    return Try(f"minimal:{key}={value}"[:80], f"{why[:1].upper()}{why[1:]}.",
               (f"qm set {guest.vmid} --{key} {_quote(value)}",), (back,), _HELPED)  # fmt: skip


def _without(guest: Vm, key: str, why: str) -> Try:
    before = guest.value(key) or ""
    return Try(f"minimal:-{key}", f"Leave {key} away: {why}.", (f"qm set {guest.vmid} --delete {key}",),
               (f"qm set {guest.vmid} --{key} {_quote(before)}",), _HELPED)  # fmt: skip


_HELPED = "Stop and start the guest (a reboot inside it is not enough), and look."


def _quote(value: str) -> str:
    import shlex

    return shlex.quote(value)
