"""The host's display, handed to a guest before it starts and taken back after it has stopped.

1. Only for a guest whose person has said so: /etc/pve-passthrough/lent-VMID.conf names the functions.
2. Asked, never forced: units are stopped, and if anybody still has the card open then, or a step does not take within
   its time, what was taken so far is given back and the start fails with the names. No process is ended, no module
   unloaded.
3. What is about to be taken is written down before it is: /run/pve-passthrough/handover/VMID.json. A reboot empties
   /run and undoes what the file describes. Each step can be taken, and given back, twice.
4. Proxmox VE calls no post-stop after a start that failed (qemu-server, vm_start_nolock), and our own process may die:
   a timer is set before anything is taken and calls `watch` until everything is back.
5. What could not be given back is said, and kept written down as long as trying again makes sense.
"""

from __future__ import annotations

import contextlib
import json
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import asdict, dataclass, replace

from ..errors import Exit, Failure
from ..host.base import Busy, Host, HostError, Missing, text_or_none, to_bytes
from ..knowledge.framebuffers import EVICTED_CLASS, SERVICES, TEXT_CONSOLE, broken_build, framebuffer
from ..model.blast import blast_radius
from ..model.facts import Facts
from ..model.lent import lent_file, parse_lent
from ..model.pci import Address
from ..model.plan import Cell
from ..model.vm import Vm
from .cells import DEVICES, DRIVERS, last_words, read_cell, write_cell
from .holders import Holder, holders

HOME = "/run/pve-passthrough"
DIRECTORY = f"{HOME}/handover"
LOCK = f"{DIRECTORY}/lock"
GUEST_LOCK = "/run/lock/qemu-server/lock-{vmid}.conf"
"""Proxmox VE holds it (flock) while it starts or stops a guest. Source: qemu-server QemuConfig.pm, config_file_lock,
with /var/lock/qemu-server; /var/lock is /run/lock."""

TIMER = "pve-passthrough-handback-{vmid}"
FIRST_LOOK, NEXT_LOOK = 30, 120
"""Seconds until the timer looks whether the guest runs, and between its looks."""

UNIT_SECONDS = 60.0
LOCK_SECONDS = 30.0
HOLDERS_SECONDS = 15.0
"""A session's programs end after its display manager has."""
UNBIND_SECONDS = 30.0
CONSOLE_SECONDS = 10.0
MOST_TRIES = 20
"""Tries of giving back before the timer is given up."""

_FRAMEBUFFERS = "/proc/fb"
_CONSOLES = "/sys/class/vtconsole"
_PLATFORM = "/sys/bus/platform"


@dataclass(frozen=True, slots=True)
class Step:
    """One thing that is taken. Kinds, in the order in which they are:

    unit      `name`: a unit that runs and holds the card
    console   `name`: the text console as /sys/class/vtconsole/*/name calls it
    firmware  `name`: the platform device of the firmware's framebuffer, `was`: its driver
    left      `name`: a function that goes with the card because of its group, `was`: its driver; Proxmox VE takes it
    driver    `name`: a function of the card, `was`: its driver
    """

    kind: str
    name: str
    was: str = ""


ORDER = ("unit", "console", "firmware", "left", "driver")


@dataclass(frozen=True, slots=True)
class Record:
    """What was taken for a guest. `begun`: of how many steps the taking has begun; `shown`: /proc/fb before.

    `tries` counts attempts to give back.
    """

    vmid: int
    steps: tuple[Step, ...]
    begun: int = 0
    shown: str = ""
    tries: int = 0


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was done, and what could not be; `shown` is /proc/fb afterwards."""

    vmid: int
    did: tuple[str, ...]
    stays: tuple[str, ...] = ()
    shown: str = ""


class _Refusal(Exception):
    """A step did not take; `lines` prove it."""

    def __init__(self, reason: str, *lines: str) -> None:
        super().__init__(reason)
        self.lines = lines


# -- before the start ------------------------------------------------------------------------------


def hand_over(host: Host, facts: Facts, vm: Vm, program: str = "pve-passthrough") -> Receipt | None:
    """Take the display from the host for a guest that is about to start; None when this guest borrows none.

    `program` is what the timer calls. Raises Failure, with everything given back as far as the host lets it.
    """
    functions = _lent(host, vm)
    if not functions:
        return None
    try:
        _refuse_unsafe(host, facts, functions)
        return _hand_over(host, facts, vm, functions, program)
    except HostError as error:
        raise Failure(
            "handover.no-answer", f"{_named(vm)} was not started, and nothing was taken from the host: it did not "
            "answer.", str(error),
        ) from error  # fmt: skip


def _hand_over(host: Host, facts: Facts, vm: Vm, functions: dict[str, str], program: str) -> Receipt:
    with _locked(host):
        _settle_others(host, vm.vmid, functions)
        record = _resumed(host, Record(vm.vmid, _survey(host, facts, functions), shown=_shown(host)))
        if not record.steps:
            return Receipt(vm.vmid, (), (), record.shown)
        try:
            _keep(host, record)
            _arm(host, vm.vmid, program)
            did = _take_all(host, record)
        except (_Refusal, Failure, HostError) as error:
            raise _aborted(host, vm, error) from error
    return Receipt(vm.vmid, did, (), _shown(host))


def borrows(host: Host, vmid: int) -> bool:
    """Whether there is anything to do before this guest's start, at the price of one question."""
    path = lent_file(vmid)
    return _asked(lambda: text_or_none(host, path), path) is not None


def _lent(host: Host, vm: Vm) -> dict[str, str]:
    """Functions that this guest borrows and that its configuration names, with their IDs."""
    path = lent_file(vm.vmid)
    text = _asked(lambda: text_or_none(host, path), path)
    if text is None:
        return {}
    try:
        lent = parse_lent(text)
    except ValueError as error:
        raise Failure(
            "handover.file", f"{_named(vm)} was not started: the list of what it borrows from the host is garbled.",
            f"{path}: {error}", hint=f"Remove {path}, or plan again with --lend-display.",
        ) from error  # fmt: skip
    given = {address for entry in vm.hostpci for address in entry.addresses}
    return {str(address): identity for address, identity in lent.items() if address in given}


def _named(vm: Vm) -> str:
    return f"{vm.name or 'The guest'} ({vm.vmid})"


def _asked(question: Callable[[], str | None], path: str) -> str | None:
    try:
        return question()
    except HostError as error:
        raise Failure("handover.unreadable", f"Nothing was taken from the host: {path} could not be read.",
                      str(error)) from error  # fmt: skip


def _refuse_unsafe(host: Host, facts: Facts, functions: dict[str, str]) -> None:
    """A card that moved, or a kernel that is known to crash: nothing is touched."""
    for address, identity in functions.items():
        device = facts.device(Address.parse(address))
        if device is None or device.id != identity:
            raise Failure(
                "handover.moved", "Nothing was taken from the host: the card that the guest borrows is not where it "
                "was.",
                f"{address}: {device.id if device else 'nothing there'}, and was {identity}",
                hint="Plan again with --lend-display for the card's new place.",
            )  # fmt: skip
        driver = _driver(host, address)
        if row := broken_build(driver, facts.kernel.release):
            raise Failure(
                "handover.broken-kernel", f"Nothing was taken from the host: kernel {facts.kernel.release} crashes "
                f"when {driver} lets go of {address}.",
                f"source: {row.source}", hint="Start another kernel: proxmox-boot-tool kernel list.", code=Exit.REFUSED,
            )  # fmt: skip


def _settle_others(host: Host, vmid: int, functions: dict[str, str]) -> None:
    """The same card may have been lent to another guest, whose hand-back has not happened yet."""
    for other in _recorded(host):
        record = _load(host, other) if other != vmid else None
        if record is None or not any(step.kind == "driver" and step.name in functions for step in record.steps):
            continue
        if _runs(host, other):
            raise Failure(
                "handover.elsewhere", f"Nothing was taken from the host: guest {other} has its display now.",
                hint=f"Stop it first: qm shutdown {other}",
            )  # fmt: skip
        receipt = _give_back(host, record)
        if receipt.stays:
            raise Failure(
                "handover.elsewhere", f"Nothing was taken from the host: guest {other} had its display, and it is not "
                "back yet.", *receipt.stays,
            )  # fmt: skip


def _survey(host: Host, facts: Facts, functions: dict[str, str]) -> tuple[Step, ...]:
    """What has to be taken as things are now."""
    drivers = {address: _driver(host, address) for address in functions}
    steps = [
        Step("unit", row.unit)
        for row in SERVICES
        if (not row.drivers or set(row.drivers) & set(drivers.values())) and _active(host, row.unit)
    ]
    where = _target(host, "/sys/class/graphics/fb0")
    owner = next((address for address in functions if _is_shown_by(facts, where, address)), "")
    if owner:
        steps += [Step("console", name) for name, bound in _consoles(host) if bound and TEXT_CONSOLE in name]
        steps += _firmware(host, facts, where, owner)
    gone = blast_radius(facts, (Address.parse(address) for address in functions))
    left = [str(device.address) for device in gone if str(device.address) not in functions]
    steps += [Step("left", name, driver) for name in left if (driver := _driver(host, name)) not in ("", "vfio-pci")]
    last = sorted(functions, key=lambda address: (_is_display(facts, address), address))
    steps += [Step("driver", name, drivers[name]) for name in last if drivers[name] not in ("", "vfio-pci")]
    return tuple(steps)


def _is_display(facts: Facts, address: str) -> bool:
    device = facts.device(Address.parse(address))
    return device is not None and device.is_display


def _is_shown_by(facts: Facts, where: str, address: str) -> bool:
    """Whether fb0 hangs below this function, or is the firmware's and the firmware showed itself on it."""
    if f"/{address}/" in where:
        return True
    return "/platform/" in where and str(facts.display.console_owner) == address


def _firmware(host: Host, facts: Facts, where: str, owner: str) -> list[Step]:
    """The firmware's framebuffer on a card from which vfio-pci would not evict it: it would hold the card's memory."""
    device = facts.device(Address.parse(owner))
    parts = where.split("/")
    names = [name for name in parts if name.endswith(("-framebuffer.0", "-display.0"))]
    if device is None or device.subclass == EVICTED_CLASS or not names:
        return []
    driver = _target(host, f"{_PLATFORM}/devices/{names[-1]}/driver").rpartition("/")[2]
    return [Step("firmware", names[-1], driver)] if driver else []


def _resumed(host: Host, fresh: Record) -> Record:
    """An earlier start failed and its display is not back: what was taken then stays known, what is new joins it."""
    old = _load(host, fresh.vmid)
    if old is None:
        return fresh
    known = {(step.kind, step.name) for step in old.steps}
    steps = (*old.steps, *(step for step in fresh.steps if (step.kind, step.name) not in known))
    ordered = tuple(sorted(steps, key=lambda step: ORDER.index(step.kind)))
    return Record(fresh.vmid, ordered, len(ordered) if old.begun else 0, old.shown or fresh.shown)


def _take_all(host: Host, record: Record) -> tuple[str, ...]:
    did: list[str] = []
    for number, step in enumerate(record.steps, 1):
        if step.kind != "unit":
            _wait_for_holders(host, record)
        if record.begun < number:
            record = replace(record, begun=number)
            _keep(host, record)
        did += _TAKE[step.kind](host, step)
    _move_console(host, record)
    return tuple(did)


def _wait_for_holders(host: Host, record: Record) -> None:
    """Raises _Refusal when somebody still has the card open after its time."""
    cards = [step.name for step in record.steps if step.kind == "driver" and _driver(host, step.name) == step.was]
    if found := _still_held(host, cards):
        raise _Refusal("somebody still uses the card", *(str(one) for one in found))


def _still_held(host: Host, cards: Sequence[str]) -> tuple[Holder, ...]:
    found: tuple[Holder, ...] = ()
    for _ in _moments(HOLDERS_SECONDS):
        found = tuple(holder for card in cards for holder in holders(host, card))
        if not found:
            break
    return found


def _take_unit(host: Host, step: Step) -> list[str]:
    if not _active(host, step.name):
        return []
    ran = host.run(("systemctl", "stop", step.name), timeout=UNIT_SECONDS)
    if not ran.ok or _active(host, step.name):
        raise _Refusal(f"{step.name} did not stop", *last_words(ran))
    return [f"stopped {step.name}"]


def _take_console(host: Host, step: Step) -> list[str]:
    """A write that the kernel does not follow is no error to it (drivers/tty/vt/vt.c, store_bind), so look."""
    taken = False
    for name, bound, path in _console_places(host):
        if name == step.name and bound:
            host.write(path, b"0\n")
            taken = True
    for _ in _moments(CONSOLE_SECONDS):
        if (step.name, True) not in _consoles(host):
            return [f"took the text console from the framebuffer ({step.name})"] if taken else []
    raise _Refusal(f"the text console stays on the framebuffer ({step.name})")


def _take_firmware(host: Host, step: Step) -> list[str]:
    path = f"{_PLATFORM}/drivers/{step.was}/unbind"
    if not _target(host, f"{_PLATFORM}/devices/{step.name}/driver"):
        return []
    host.write(path, to_bytes(step.name))
    if _target(host, f"{_PLATFORM}/devices/{step.name}/driver"):
        raise _Refusal(f"{step.was} keeps the firmware's framebuffer")
    return [f"took the firmware's framebuffer from {step.was}"]


def _take_nothing(host: Host, step: Step) -> list[str]:
    return []


def _take_driver(host: Host, step: Step) -> list[str]:
    now = _driver(host, step.name)
    if now in ("", "vfio-pci"):
        return []
    if now != step.was:
        raise _Refusal(f"{step.name} is held by {now}, and was by {step.was} a moment ago")
    _unbind(host, step.name, now)
    return [f"took {step.name} from {now}"]


_TAKE: dict[str, Callable[[Host, Step], list[str]]] = {
    "unit": _take_unit,
    "console": _take_console,
    "firmware": _take_firmware,
    "left": _take_nothing,
    "driver": _take_driver,
}


def _unbind(host: Host, address: str, driver: str) -> None:
    """By a program, because the kernel may keep a writer for ever (a driver that waits for its users, or crashed), and
    a program can be left behind. Raises _Refusal."""
    path = f"{DRIVERS}/{driver}/unbind"
    try:
        ran = host.run(("tee", path), to_bytes(address), timeout=UNBIND_SECONDS)
    except HostError as error:
        why = f"the kernel did not take {address} from {driver} within {UNBIND_SECONDS:g} s"
        raise _Refusal(why, str(error), "dmesg shows whether the driver crashed; then only a restart helps") from error
    if _driver(host, address) == driver:
        raise _Refusal(f"the kernel does not take {address} from {driver}", *last_words(ran))


def _move_console(host: Host, record: Record) -> None:
    """With a framebuffer of another card left, the host's text console goes on there."""
    if _shown(host):
        for step in record.steps:
            if step.kind == "console":
                _bind_console(host, step.name)


def _aborted(host: Host, vm: Vm, error: Exception) -> Failure:
    """Give back what was taken, and say what came of it."""
    reason, lines = _said(error)
    try:
        record = _load(host, vm.vmid)
        stays = _give_back(host, record).stays if record is not None else ()
    except (Failure, HostError) as second:
        stays = (f"what was taken could not be looked up: {_said(second)[0]}",)
    if stays:
        state = "it was stopped half-way, and not everything could be given back."
        hint = f"It is tried again every {NEXT_LOOK} s; at once: pve-passthrough hook {vm.vmid} watch"
    else:
        state = "the host has its display as before."
        hint = "Log out of the host's desktop, stop what is named, then start the guest again."
    return Failure(
        "handover.aborted", f"{_named(vm)} was not started; {state} The reason: {reason}.",
        *lines, *(f"not given back: {line}" for line in stays), hint=hint,
    )  # fmt: skip


def _said(error: Exception) -> tuple[str, tuple[str, ...]]:
    if isinstance(error, Failure):
        return error.problem.message.rstrip("."), error.problem.context
    return str(error), error.lines if isinstance(error, _Refusal) else ()


# -- after the stop --------------------------------------------------------------------------------


def hand_back(host: Host, vmid: int) -> Receipt | None:
    """Give the host its display back; None when this guest has nothing of it. What stays is told, and no failure.

    Raises Failure when it could not even be tried.
    """
    try:
        if text_or_none(host, _place(vmid)) is None:
            return None
        with _locked(host):
            record = _load(host, vmid)
            return None if record is None else _give_back(host, record)
    except HostError as error:
        raise Failure("handover.no-answer", "It could not be seen to it that the host has its display back.",
                      str(error), hint=f"pve-passthrough hook {vmid} watch") from error  # fmt: skip


def watch(host: Host, vmid: int) -> Receipt | None:
    """What the timer does: give back when the guest does not run, and end when there is nothing to give back."""
    if _asked(lambda: text_or_none(host, _place(vmid)), _place(vmid)) is None:
        _disarm(host, vmid)
        return None
    try:
        with host.lock(GUEST_LOCK.format(vmid=vmid)):
            return None if _runs(host, vmid) else hand_back(host, vmid)
    except Busy:
        return None  # it is being started or stopped: the timer comes again
    except HostError as error:
        raise Failure("handover.no-answer", f"Whether guest {vmid} runs could not be seen.", str(error)) from error


def _give_back(host: Host, record: Record) -> Receipt:
    """In the opposite order; whatever does not come back is told, and does not keep the rest from it."""
    record = replace(record, tries=record.tries + 1)
    with contextlib.suppress(HostError):
        _keep(host, record)
    did: list[str] = []
    stays: list[str] = []
    lost: list[str] = []
    for step in reversed(record.steps[: record.begun]):
        try:
            if step.kind == "unit" and stays:
                raise _Refusal(f"{step.name} is not started while the display is not back")
            did += _GIVE[step.kind](host, step, record)
        except _Lost as error:
            lost.append(str(error))
        except (_Refusal, Failure, HostError) as error:
            reason, lines = _said(error)
            stays.append("; ".join((reason, *lines)))
    if not stays:
        host.write(_place(record.vmid), None)
    if not stays or record.tries >= MOST_TRIES:
        _disarm(host, record.vmid)
    return Receipt(record.vmid, tuple(did), (*stays, *lost), _shown(host))


class _Lost(Exception):
    """Not before the next start of the host: trying again would not help."""


def _give_unit(host: Host, step: Step, record: Record) -> list[str]:
    if _active(host, step.name):
        return []
    ran = host.run(("systemctl", "start", step.name), timeout=UNIT_SECONDS)
    if not ran.ok:
        raise _Refusal(f"{step.name} did not start", *last_words(ran))
    return [f"started {step.name}"]


def _give_console(host: Host, step: Step, record: Record) -> list[str]:
    """The console comes with the first framebuffer by itself, unless it had been taken while another one was there."""
    for _ in _moments(CONSOLE_SECONDS):
        if _bind_console(host, step.name):
            return [f"the text console is on the framebuffer again ({_shown(host) or step.name})"]
        if _only_firmware(record) and not _shown(host):
            break
    if _only_firmware(record):
        raise _Lost("the firmware's framebuffer is gone until the next start of the host: its screen stays dark")
    raise _Refusal("the text console is not back: the host has no framebuffer that it could be on")


def _only_firmware(record: Record) -> bool:
    name = record.shown.partition("\n")[0].partition(" ")[2].strip()
    row = framebuffer(name)
    return row is not None and row.firmware


def _bind_console(host: Host, name: str) -> bool:
    for found, bound, path in _console_places(host):
        if found == name:
            if not bound:
                host.write(path, b"1\n")
            return (name, True) in _consoles(host)
    return False


def _give_firmware(host: Host, step: Step, record: Record) -> list[str]:
    device = f"{_PLATFORM}/devices/{step.name}"
    if _target(host, f"{device}/driver"):
        return []
    try:
        host.names(device)
    except Missing:
        raise _Lost("the firmware's framebuffer is gone until the next start of the host") from None
    host.write(f"{_PLATFORM}/drivers/{step.was}/bind", to_bytes(step.name))
    return [f"gave the firmware's framebuffer back to {step.was}"]


def _give_driver(host: Host, step: Step, record: Record) -> list[str]:
    now = read_cell(host, Cell("driver", step.name))
    if now == step.was:
        _clear_override(host, step)
        return []
    if now not in ("", "vfio-pci"):
        raise _Lost(f"{step.name} is held by {now} now, and was by {step.was}")
    if now == "vfio-pci":
        if found := _still_held(host, (step.name,)):
            raise _Refusal(f"{step.name} is still in use", *(str(one) for one in found))
        _unbind(host, step.name, now)
    write_cell(host, Cell("driver", step.name), "", step.was)
    if _driver(host, step.name) != step.was:
        raise _Refusal(f"{step.was} does not take {step.name} back")
    return [f"gave {step.name} back to {step.was}"]


def _clear_override(host: Host, step: Step) -> None:
    """A hand-back that died may have left the driver's name there, and then vfio-pci could not bind at the next start
    (kernel: Documentation/ABI/testing/sysfs-bus-pci, driver_override)."""
    path = f"{DEVICES}/{step.name}/driver_override"
    if (text_or_none(host, path) or "").strip() == step.was:
        host.write(path, b"\n")


_GIVE: dict[str, Callable[[Host, Step, Record], list[str]]] = {
    "unit": _give_unit,
    "console": _give_console,
    "firmware": _give_firmware,
    "left": _give_driver,
    "driver": _give_driver,
}


# -- the record ------------------------------------------------------------------------------------


def _place(vmid: int) -> str:
    return f"{DIRECTORY}/{vmid}.json"


def _recorded(host: Host) -> list[int]:
    try:
        names = host.names(DIRECTORY)
    except Missing:
        return []
    return [int(name[:-5]) for name in names if name.endswith(".json") and name[:-5].isdecimal()]


def _keep(host: Host, record: Record) -> None:
    host.write(_place(record.vmid), to_bytes(json.dumps({"format": 1, **asdict(record)}, indent=1) + "\n"), 0o600)


def _load(host: Host, vmid: int) -> Record | None:
    """The record of a guest, None when there is none. Raises Failure for one that this program did not write."""
    text = _asked(lambda: text_or_none(host, _place(vmid)), _place(vmid))
    if text is None:
        return None
    try:
        data = json.loads(text)
        steps = tuple(_step(row) for row in data["steps"])
        numbers = [data[key] for key in ("begun", "tries")]
        if data["format"] != 1 or not all(type(one) is int and 0 <= one < 1000 for one in numbers):
            raise ValueError("not of this format")
        return Record(vmid, steps, min(numbers[0], len(steps)), str(data["shown"]), numbers[1])
    except (ValueError, TypeError, KeyError, RecursionError) as error:
        raise Failure(
            "handover.garbled", f"What guest {vmid} has of the host's display is not known: the note is garbled.",
            f"{_place(vmid)}: {error!r}"[:300],
            hint=f"Bind the card's functions to their drivers by hand, or restart the host; then rm {_place(vmid)}",
        ) from error  # fmt: skip


def _step(row: dict[str, str]) -> Step:
    """Names become parts of paths and of commands, so they must look like what this program writes."""
    step = Step(str(row["kind"]), str(row["name"]), str(row["was"]))
    if step.kind not in ORDER or any("/" in one or "\n" in one or one[:1] == "-" for one in (step.name, step.was)):
        raise ValueError(f"not a step: {row!r}")
    if step.kind in ("left", "driver"):
        Address.parse(step.name)
    return step


@contextlib.contextmanager
def _locked(host: Host) -> Iterator[None]:
    """One hand-over or hand-back at a time, whichever guest it is for."""
    host.make_dir(HOME, 0o700)
    host.make_dir(DIRECTORY, 0o700)
    with contextlib.ExitStack() as stack:
        for _ in _moments(LOCK_SECONDS):
            with contextlib.suppress(Busy):
                stack.enter_context(host.lock(LOCK))
                break
        else:
            raise Failure(
                "handover.locked", "Nothing was done: the host's display is being handed over or back just now.",
                hint="Try again in a minute.", code=Exit.LOCKED,
            )  # fmt: skip
        yield


# -- the timer -------------------------------------------------------------------------------------


def _arm(host: Host, vmid: int, program: str) -> None:
    """A transient timer that comes again until it is stopped. Source: systemd-run(1), systemd.timer(5)."""
    _disarm(host, vmid)
    when = (f"--on-active={FIRST_LOOK}", f"--on-unit-inactive={NEXT_LOOK}")
    unit = f"--unit={TIMER.format(vmid=vmid)}"
    ran = host.run(("systemd-run", "--quiet", "--collect", unit, *when, program, "hook", str(vmid), "watch"))
    if not ran.ok:
        raise _Refusal("no timer could be set that would bring the display back if the start fails", *last_words(ran))


def _disarm(host: Host, vmid: int) -> None:
    """The timer alone: its service may be what runs us. That there is no such timer is no failure."""
    with contextlib.suppress(HostError):
        host.run(("systemctl", "stop", f"{TIMER.format(vmid=vmid)}.timer"), timeout=UNIT_SECONDS)


# -- questions -------------------------------------------------------------------------------------


def _moments(seconds: float) -> Iterator[None]:
    """Now, and again until the time is over, at growing distances."""
    end, pause = time.monotonic() + seconds, 0.1
    yield
    while time.monotonic() < end:
        time.sleep(min(pause, max(0.0, end - time.monotonic())))
        pause = min(2 * pause, 1.0)
        yield


def _runs(host: Host, vmid: int) -> bool:
    return read_cell(host, Cell("vmstate", str(vmid))) == "running"


def _active(host: Host, unit: str) -> bool:
    """`active`, and `activating` too: it has the card, or is about to."""
    return host.run(("systemctl", "is-active", unit), timeout=UNIT_SECONDS).stdout.strip() in (
        "active", "activating", "reloading", "deactivating",
    )  # fmt: skip


def _driver(host: Host, address: str) -> str:
    return _target(host, f"{DEVICES}/{address}/driver").rpartition("/")[2]


def _target(host: Host, path: str) -> str:
    """Text of a link, empty when there is none. Raises HostError when nobody could say."""
    try:
        return host.link(path)
    except Missing:
        return ""


def _shown(host: Host) -> str:
    return (text_or_none(host, _FRAMEBUFFERS) or "").strip()


def _consoles(host: Host) -> list[tuple[str, bool]]:
    return [(name, bound) for name, bound, _ in _console_places(host)]


def _console_places(host: Host) -> list[tuple[str, bool, str]]:
    """(name, whether it is bound, path of its switch) of every text console."""
    found: list[tuple[str, bool, str]] = []
    try:
        entries = host.names(_CONSOLES)
    except Missing:
        return []
    for entry in entries:
        path = f"{_CONSOLES}/{entry}/bind"
        name, bound = text_or_none(host, f"{_CONSOLES}/{entry}/name"), text_or_none(host, path)
        if name is not None and bound is not None:
            found.append((name.strip(), bound.strip() == "1", path))
    return found
