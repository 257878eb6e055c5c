"""How devices are reset: look, choose, and prove by stopping and starting a guest.

1. Nothing here prints or asks. A plan is returned; `app.apply` runs it.
2. A test starts and stops one guest that has the device, and leaves it as it was found, whatever happens in between.
3. A test never touches what the host or another running guest uses, and it writes to no device itself: Proxmox does
   what it always does at a start, and the kernel's log and the device's first bytes are looked at.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence
from enum import Enum
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host, HostError
from ..knowledge.reset_log import LogRow, row_for
from ..model.blast import blast_radius
from ..model.pci import Address
from ..model.value import dataclass
from . import hazards, history, look, machine_of, may_change, now, refusal, resolve

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.pci import Device
    from ..model.plan import Plan
    from ..model.vm import Vm
    from ..planning.resets import Outlook

DEVICES = "/sys/bus/pci/devices"
HOLD = 10.0
"""Seconds that the guest runs in each cycle: enough for its firmware to have touched the device."""
GRACE = 60
"""Seconds that the guest gets to shut down; then it is switched off. It has done no work: the test started it."""
START_LIMIT = 600.0
MOST_LINES = 40


# -- looking -------------------------------------------------------------------------------------


def show(host: Host, words: Sequence[str]) -> tuple[Facts, tuple[Outlook, ...]]:
    """How each of the named functions is reset."""
    from ..planning.resets import outlook

    facts = look(host, inventory=True)
    found = [facts.device(address) for address in resolve(facts, words)]
    return facts, tuple(outlook(facts, device) for device in found if device is not None)


def _one(facts: Facts, word: str) -> Device:
    """The single function that a word names; of a card the picture alone."""
    addresses = resolve(facts, [word], alone=True)
    device = facts.device(addresses[0]) if len(addresses) == 1 else None
    if device is None:
        raise Failure(
            "device.several", f"Nothing was done: {word!r} names {len(addresses)} functions.",
            *map(str, addresses), hint="Name one of them.", code=Exit.USAGE,
        )  # fmt: skip
    return device


# -- plans ---------------------------------------------------------------------------------------


def plan_method(host: Host, word: str, wanted: Sequence[str]) -> Plan:
    """The plan that chooses reset methods; `default` alone takes our choice away. Raises Failure."""
    from ..planning import resets

    facts = look(host, inventory=True)
    device = _one(facts, word)
    if tuple(wanted) == ("default",):
        return resets.default_method(facts, device, _original(host, device), now=now(), machine=machine_of(host))
    return resets.choose_method(facts, device, wanted, now=now(), machine=machine_of(host))


def _original(host: Host, device: Device) -> str | None:
    """The methods before the first run of ours that still stands. A run that changed the rule alone found them so."""
    from ..model.own import UDEV_RULES
    from ..model.run import Phase
    from ..planning.edit_udev import settings_of

    key, cell = (device.address, "reset_method"), f"pci:{device.address}/reset_method"
    for run in history(host).runs if host.changeable else ():
        if run.phase is not Phase.KEPT:
            continue
        changes = {str(change.cell): change for change in run.plan.changes}
        if cell in changes:
            return changes[cell].before
        rules = changes.get(f"file:{UDEV_RULES}")
        if rules is not None and key in settings_of(rules.after) and key not in settings_of(rules.before):
            return settings_of(rules.after)[key]
    return None


def plan_idle(host: Host, word: str, *, module: bool = False) -> Plan:
    """The plan that keeps the device powered; `module`: vfio-pci lets none of its devices sleep. Raises Failure."""
    from ..model.wish import ModuleOption
    from ..planning import make_plan, resets

    facts = look(host, inventory=True, deep=module)
    device = _one(facts, word)
    if not module:
        return resets.keep_powered(facts, device, now=now(), machine=machine_of(host))
    why = f"{device} does not wake up again; the option is the module's, so none of its devices will sleep"
    return make_plan(
        facts, (ModuleOption("vfio-pci", "disable_idle_d3=1", why),),
        goal="let vfio-pci keep its devices awake", now=now(), machine=machine_of(host),
    )  # fmt: skip


def plan_vendor_reset(host: Host, word: str, accept: Iterable[str] = ()) -> Plan:
    """The plan that installs vendor-reset for this card. Raises Failure, HazardRefused among them."""
    from ..change import read_cell
    from ..model.plan import Cell
    from ..planning import resets
    from ..probe.dkms import probe_dkms

    facts = look(host, inventory=True)
    device = _one(facts, word)
    dkms = probe_dkms(
        host, resets.MODULE, facts.kernel.release,
        lambda name, version: read_cell(host, Cell("dkms", f"{name}/{version}")), resets.PROBE_FILE,
    )  # fmt: skip
    made = resets.install_vendor_reset(facts, device, dkms, now=now(), machine=machine_of(host))
    refused = hazards(resets.module_hazards(facts, dkms), frozenset(accept)) if made.changes else ()
    if refused:
        raise refusal(refused)
    return made


# -- proving -------------------------------------------------------------------------------------


class Verdict(Enum):
    HOLDS = "holds"
    FAILS = "fails"
    UNKNOWN = "unknown"


@dataclass(frozen=True, slots=True)
class Trouble:
    """A line of the kernel's or of the start's log, and what it means."""

    line: str
    row: LogRow


@dataclass(frozen=True, slots=True)
class Cycle:
    """One start and stop.

    started, stopped   None: Proxmox gave no answer in time
    answers            whether the device's first bytes are its own after the stop, None: they could not be read
    lines              new lines of the kernel's log about the device, None: the log could not be read
    said               Proxmox' last words where it did not do what it was told
    """

    number: int
    started: bool | None
    stopped: bool | None
    answers: bool | None
    lines: tuple[str, ...] | None
    troubles: tuple[Trouble, ...]
    said: tuple[str, ...]
    seconds: float

    @property
    def verdict(self) -> Verdict:
        if self.started and self.stopped and not any(one.row.fatal for one in self.troubles):
            if self.answers:
                return Verdict.HOLDS if self.lines is not None else Verdict.UNKNOWN
            return Verdict.UNKNOWN if self.answers is None else Verdict.FAILS
        return Verdict.FAILS


@dataclass(frozen=True, slots=True)
class Tested:
    """left: how the guest was left, `running` or `stopped` · as_found: whether that is how it was found"""

    facts: Facts
    device: Device
    vm: Vm
    wanted: int
    cycles: tuple[Cycle, ...]
    left: str
    as_found: bool

    @property
    def verdict(self) -> Verdict:
        found = {cycle.verdict for cycle in self.cycles}
        if Verdict.FAILS in found or not self.as_found:
            return Verdict.FAILS
        return Verdict.HOLDS if found == {Verdict.HOLDS} and len(self.cycles) == self.wanted else Verdict.UNKNOWN


def test(
    host: Host,
    word: str,
    vmid: int,
    *,
    cycles: int = 3,
    hold: float = HOLD,
    stop_first: bool = False,
    sleep: Callable[[float], None] = time.sleep,
    tell: Callable[[Cycle], None] = lambda cycle: None,
) -> Tested:
    """Start and stop the guest `cycles` times and look at the device after each stop; ends with the first failure.

    `stop_first`: a guest that runs may be asked to shut down; it is started again in the end. Raises Failure with
    nothing started: `reset.in-use`, `reset.not-given`, `reset.dead`, `guest.*`,
    `run.unfinished`.
    """
    may_change(host)
    facts = look(host, inventory=True)
    device = _one(facts, word)
    vm = _testable(facts, device, vmid)
    _refuse_unfinished(host)
    _refuse_dead(host, device)
    was_running = _running(host, vmid)
    if was_running:
        _stop_first(host, vm, stop_first)
    done: list[Cycle] = []
    near = _neighbourhood(facts, device)
    try:
        while len(done) < cycles and (not done or done[-1].verdict is not Verdict.FAILS):
            done.append(_cycle(host, device, vmid, len(done) + 1, hold, near, sleep))
            tell(done[-1])
    finally:
        left = _leave(host, vmid, was_running)
    return Tested(facts, device, vm, cycles, tuple(done), left, left == ("running" if was_running else "stopped"))


def _testable(facts: Facts, device: Device, vmid: int) -> Vm:
    """The guest, when a start of it harms nobody. Raises Failure."""
    vm = facts.guest(vmid)
    if vm is None or (facts.pve.node is not None and vm.node != facts.pve.node):
        where = "" if vm is None else f"; it is on {vm.node}"
        raise Failure("guest.missing", f"Nothing was started: this node has no guest {vmid}{where}.",
                      hint="qm list shows the guests.", code=Exit.USAGE)  # fmt: skip
    claimed = tuple(address for entry in vm.hostpci for address in entry.addresses)
    if device.address not in claimed:
        raise Failure(
            "reset.not-given", f"Nothing was started: {vm.name} ({vmid}) does not have {device}.",
            *(f"{entry.key}: {', '.join(map(str, entry.addresses))}" for entry in vm.hostpci),
            hint=f"pve-passthrough up {device.address} --vm {vmid}", code=Exit.USAGE,
        )  # fmt: skip
    for reason, wrong in (
        (f"it is locked ({vm.lock})", bool(vm.lock)),
        ("it is a template, which never runs", vm.flag("template")),
        ("high availability starts and stops it, not we", bool(vm.ha_managed)),
    ):
        if wrong:
            raise Failure(
                "guest.not-testable", f"Nothing was started: {vm.name} ({vmid}): {reason}.", code=Exit.REFUSED
            )
    _refuse_used(facts, vm, claimed)
    return vm


def _refuse_used(facts: Facts, vm: Vm, claimed: Sequence[Address]) -> None:
    """Neither the host nor another guest may be using anything that the start takes."""
    taken = {device.address: device for device in blast_radius(facts, claimed)}
    uses = [f"{use.address}: {use.kind.value}: {use.detail}" for use in facts.uses if use.address in taken]
    if uses:
        raise Failure(
            "reset.in-use", f"Nothing was started: {vm.name} ({vm.vmid}) would take from the host what it uses.", *uses,
            hint=f"pve-passthrough check --vm {vm.vmid}", code=Exit.REFUSED,
        )  # fmt: skip
    unknown = sorted({"disks", "network", "console", "keyboard"} - facts.uses_known)
    if unknown:
        raise Failure(
            "plan.unknown", "Nothing was started: whether the host uses these devices is unknown.",
            f"not fully looked at: {', '.join(unknown)}",
            hint="Run it on the machine itself, as root; `check` lists every gap.",
        )  # fmt: skip
    for other in facts.guests or ():
        theirs = {address for entry in other.hostpci for address in entry.addresses} & set(taken)
        if other.vmid != vm.vmid and theirs and other.running is not False and other.node == vm.node:
            state = "runs" if other.running else "may run"
            raise Failure(
                "reset.in-use", f"Nothing was started: guest {other.vmid} ({other.name}) {state} with these devices.",
                *map(str, sorted(theirs)), hint=f"qm shutdown {other.vmid}", code=Exit.REFUSED,
            )  # fmt: skip


def _refuse_unfinished(host: Host) -> None:
    from ..change import unfinished

    if unfinished(host) is not None:
        raise Failure("run.unfinished", "Nothing was started: a run of this program is unfinished.",
                      hint="pve-passthrough resume")  # fmt: skip


def _refuse_dead(host: Host, device: Device) -> None:
    if _answers(host, device) is False:
        raise Failure(
            "reset.dead", f"Nothing was started: {device} does not answer already, so a start would fail.",
            f"{DEVICES}/{device.address}/config: not {device.id}",
            hint="Power the host off and on; a restart alone may not bring it back.",
        )  # fmt: skip


def _running(host: Host, vmid: int) -> bool:
    from ..guest import is_running

    state = is_running(host, vmid)
    if state is None:
        raise Failure("guest.unknown", f"Nothing was started: whether guest {vmid} runs could not be read.")
    return state


def _stop_first(host: Host, vm: Vm, allowed: bool) -> None:
    """A guest that does work is asked, never switched off."""
    if not allowed:
        raise Failure(
            "guest.running", f"Nothing was started: {vm.name} ({vm.vmid}) runs, and the test stops it.",
            hint=f"qm shutdown {vm.vmid}, or add --yes: it is shut down, and started again in the end.",
            code=Exit.REFUSED,
        )  # fmt: skip
    said = _told(host, ("qm", "shutdown", str(vm.vmid), "--timeout", "180"), 240.0)[1]
    if _running(host, vm.vmid):
        raise Failure(
            "guest.running", f"Nothing was tested: {vm.name} ({vm.vmid}) did not shut down and runs as before.", *said
        )


def _neighbourhood(facts: Facts, device: Device) -> frozenset[str]:
    """Addresses whose lines in the log concern the device: its slot, its group, and the bridges above it."""
    found = {one.address for one in facts.devices if one.address.slot == device.address.slot}
    group = device.iommu_group
    found |= {one.address for one in facts.group(group)} if group is not None and group >= 0 else set()
    above = device.parent
    while above is not None and above not in found:
        found.add(above)
        bridge = facts.device(above)
        above = bridge.parent if bridge else None
    return frozenset(map(str, found))


def _cycle(
    host: Host,
    device: Device,
    vmid: int,
    number: int,
    hold: float,
    near: frozenset[str],
    sleep: Callable[[float], None],
) -> Cycle:
    begun = time.monotonic()
    before = _log(host)
    started, said = _told(host, ("qm", "start", str(vmid)), START_LIMIT)
    started = started and _running(host, vmid)
    lines = list(said)
    stopped: bool | None = True
    if started:
        sleep(hold)
        argv = ("qm", "shutdown", str(vmid), "--timeout", str(GRACE), "--forceStop", "1")
        stopped, more = _told(host, argv, GRACE + 240.0)
        stopped = stopped and not _running(host, vmid)
        lines += more
    sleep(1.0)
    fresh = _fresh(before, _log(host), near)
    troubles = [Trouble(line, row) for line in (*(fresh or ()), *lines) if (row := row_for(line))]
    answers = _answers(host, device)
    shown = () if started and stopped else tuple(lines)[-12:]
    return Cycle(number, started, stopped, answers, fresh, tuple(troubles), shown, time.monotonic() - begun)


def _told(host: Host, argv: Sequence[str], limit: float) -> tuple[bool | None, tuple[str, ...]]:
    """Whether Proxmox did it, and what it said; None when it gave no answer in time."""
    try:
        ran = host.run(argv, timeout=limit)
    except HostError as error:
        return None, (str(error),)
    return ran.ok, tuple(line.strip() for line in (ran.stdout + ran.stderr).splitlines() if line.strip())


def _log(host: Host) -> tuple[str, ...] | None:
    """The kernel's ring buffer; None when it could not be read."""
    try:
        ran = host.run(("dmesg",), timeout=30.0)
    except HostError:
        return None
    return tuple(ran.stdout.splitlines()) if ran.ok else None


def _fresh(
    before: tuple[str, ...] | None, after: tuple[str, ...] | None, near: frozenset[str]
) -> tuple[str, ...] | None:
    """Lines that came since, about these addresses or about none. A buffer that has wrapped is looked at whole."""
    if before is None or after is None:
        return None
    start = 0
    if after[: len(before)] == before:
        start = len(before)
    elif before[-1] in after:
        start = len(after) - tuple(reversed(after)).index(before[-1])
    return tuple(line for line in after[start:] if _concerns(line, near))


def _concerns(line: str, near: frozenset[str]) -> bool:
    named = [word.strip("[]():,;'\"") for word in line.split()]
    addresses = {word for word in named if word.count(":") == 2 and "." in word and _is_address(word)}
    return bool(addresses & near) if addresses else row_for(line) is not None


def _is_address(word: str) -> bool:
    try:
        Address.parse(word)
    except ValueError:
        return False
    return True


def _answers(host: Host, device: Device) -> bool | None:
    """The first bytes of the configuration space are the device's own: a dead one answers with nothing but ones.

    Source: PCI Express base specification, vendor id FFFF is no device; kernel, drivers/pci/probe.c, header type 7f.
    """
    try:
        head = host.head(f"{DEVICES}/{device.address}/config", 64)
    except HostError:
        return None
    if len(head) < 16 or device.vendor is None or device.product is None:
        return None
    identity = (int.from_bytes(head[0:2], "little"), int.from_bytes(head[2:4], "little"))
    if device.physical_function is not None:  # a virtual function has FFFF in both (SR-IOV 1.1, 3.4.1.1 and 3.4.1.2)
        return head[4:16] != b"\xff" * 12 and head[14] & 0x7F == 0
    return identity == (device.vendor, device.product) and head[14] & 0x7F in (0, 1, 2)


def _leave(host: Host, vmid: int, running: bool) -> str:
    """As it was found, as far as that goes."""
    try:
        now = _running(host, vmid)
        if running and not now:
            _told(host, ("qm", "start", str(vmid)), START_LIMIT)
        elif now and not running:
            _told(host, ("qm", "stop", str(vmid), "--timeout", str(GRACE)), GRACE + 60.0)
        return "running" if _running(host, vmid) else "stopped"
    except Failure:
        return "unknown"
