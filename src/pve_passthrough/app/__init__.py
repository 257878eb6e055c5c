"""The verbs of the program, as functions of plain values.

1. Nothing here prints, asks or reads the command line: the face does.
2. A verb looks first, judges second, changes last; what it found travels with what it returns.
3. A hazard is accepted by its name or not at all; some by nothing.
"""

from __future__ import annotations

import contextlib
import os
import re
import sys
import time
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from .. import rules
from ..errors import Exit, Failure
from ..host.base import Host, HostError
from ..host.local import Local
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level, Verdict
from ..model.hookscript import PACKAGED
from ..model.pci import Address
from ..model.sighting import Where, remember, sightings
from ..model.value import dataclass

if TYPE_CHECKING:
    from ..change import Listing
    from ..guest import Rung
    from ..model.plan import Plan
    from ..model.run import Run
    from ..model.vm import Vm
    from ..model.wish import Wish
    from ..planning.guest_wanted import NewGuest
    from ..planning.usb import UsbChoice, UsbHow

QUORUM_PATIENCE = 300.0
"""Seconds that the boot unit gives the cluster to become quorate before it touches a guest."""
_GONE_AFTER_BOOT = ("/tmp/", "/run/", "/dev/shm/")
"""Emptied by a reboot (Debian 13: /tmp is a tmpfs; Debian 12: systemd-tmpfiles(8) empties it at boot)."""
_NAME_LISTS = ("/usr/share/misc/pci.ids", "/usr/share/hwdata/pci.ids")

ALONG = "usb.controller"
"""The rule that names everything that leaves the host with a whole USB controller: always told."""
_USB_CELL = re.compile(r"vm:\d+/usb\d+")

NEVER = "never"
"""The hazard that nothing accepts."""
LENT_HAZARDS = frozenset({"console", "only-display"})
"""What whoever lends the host's display has named by lending it: the screen is dark while the guest runs."""


@dataclass(frozen=True, slots=True)
class Checked:
    """What `check` found. `addresses` are the functions that the words named; empty for a look at the whole host."""

    facts: Facts
    addresses: tuple[Address, ...]
    vmid: int | None
    findings: tuple[Finding, ...]
    verdict: Verdict
    usb: tuple[UsbChoice, ...] = ()
    """Single USB devices that the words named."""

    @property
    def ports(self) -> tuple[str, ...]:
        """Where those are plugged in that are."""
        return tuple(one.device.port for one in self.usb if one.device is not None)


@dataclass(frozen=True, slots=True)
class Planned:
    """A plan together with the look that it rests on."""

    checked: Checked
    plan: Plan


@dataclass(frozen=True, slots=True)
class Proof:
    """What the ladder found for one guest."""

    facts: Facts
    vm: Vm
    rungs: tuple[Rung, ...]


# -- looking -------------------------------------------------------------------------------------


def open_host(spec: str) -> Host:
    """The host that `--host SPEC` names. Raises Failure for a spec that names none."""
    kind, _, rest = spec.partition(":")
    if spec == "local":
        return Local()
    if kind == "root" and rest:
        return _existing(Local(rest), rest)
    if kind == "capture" and rest:
        return _replay(rest)
    if kind == "sim" and rest:
        return _simulated(rest)
    if kind == "ssh" and rest:
        raise Failure(
            "host.ssh", "Nothing was done: other machines over SSH are not built yet.",
            hint="Run pve-passthrough on that node.", code=Exit.USAGE,
        )  # fmt: skip
    raise Failure(
        "host.unknown", f"Nothing was done: {spec!r} names no host.",
        hint="Use local, root:DIR, capture:FILE or sim:DIR.", code=Exit.USAGE,
    )  # fmt: skip


def _existing(host: Local, directory: str) -> Local:
    if not os.path.isdir(directory):
        raise Failure("host.unknown", f"Nothing was done: there is no directory {directory}.", code=Exit.USAGE)
    return host


def _simulated(directory: str) -> Host:
    from ..host.simulated import Simulated

    if not os.path.isfile(os.path.join(directory, "sim", "machine.json")):
        raise Failure(
            "host.unknown", f"Nothing was done: {directory} holds no simulated host.",
            hint=f"Make one with `pve-passthrough sim create {directory}`.", code=Exit.USAGE,
        )  # fmt: skip
    from .hooks import as_program

    host = Simulated(directory)
    host.world.own_program = lambda argv: as_program(host, argv)
    return host


def _replay(file: str) -> Host:
    from ..capture import ARCHIVE_LIMIT, unpack
    from ..host.replay import Replay

    try:
        with open(file, "rb") as stream:
            data = stream.read(ARCHIVE_LIMIT + 1)
    except OSError as error:
        raise Failure(
            "capture.unreadable", f"Nothing was done: {file} could not be read ({error.strerror}).", code=Exit.USAGE
        ) from error
    return Replay(unpack(data, file), f"capture:{file}")


def look(host: Host, *, deep: bool = False, inventory: bool = False, named: frozenset[Address] = frozenset()) -> Facts:
    """Facts about the host. `inventory`: every function's configuration space too; `deep`: also what takes seconds;
    `named`: the configuration space of these functions in any case."""
    from ..probe import probe

    return probe(host, deep=deep, inventory=inventory, pci_ids=_own_name_list(host), named=named)


def _own_name_list(host: Host) -> bytes | None:
    """This machine's pci.ids, for a tree or a capture that brought none: names are no facts about the host."""
    if isinstance(host, Local) and host.changeable:
        return None
    for path in _NAME_LISTS:
        with contextlib.suppress(OSError), open(path, "rb") as stream:
            return stream.read()
    return None


def check(host: Host, words: Sequence[str] = (), vmid: int | None = None) -> Checked:
    """Readiness of the host, or of the devices that `words` name, or of a guest."""
    facts = look(host, deep=True) if words else look(host) if vmid is None else look_closely(host, vmid)
    return judge(facts, words, vmid)


def look_closely(host: Host, vmid: int) -> Facts:
    """A quick look that reads the serial numbers of what the guest was given; when one of these devices is not where it
    was, a slow one, since a serial number elsewhere may tell where it is now."""
    from ..probe import remembered_places

    facts = look(host, named=remembered_places(host, vmid))
    guest = facts.guest(vmid)
    astray = guest is not None and any(one.where is not Where.HERE for one in sightings(facts, guest))
    return look(host, inventory=True) if astray else facts


def judge(
    facts: Facts, words: Sequence[str], vmid: int | None, *, alone: bool = False, usb: UsbHow | None = None
) -> Checked:
    addresses = resolve(facts, pci_words(facts, words), alone=alone)
    chosen = usb_named(facts, words, usb)
    ports = tuple(one.device.port for one in chosen if one.device is not None)
    findings = rules.judge(facts, rules.Request(addresses, vmid, ports))
    return Checked(facts, addresses, vmid, findings, rules.verdict(findings), chosen)


def pci_words(facts: Facts, words: Sequence[str]) -> tuple[str, ...]:
    """The words without those that mean single USB devices."""
    if not words:
        return ()
    from ..planning.choose import is_usb_word

    return tuple(word for word in words if not is_usb_word(facts, word))


def usb_named(facts: Facts, words: Sequence[str], how: UsbHow | None = None) -> tuple[UsbChoice, ...]:
    """Single USB devices that the words name. Raises Failure for a word that means one and names none."""
    if not words:
        return ()
    from .. import planning

    return planning.resolve_usb(facts, words, how)


def resolve(facts: Facts, words: Sequence[str], *, alone: bool = False) -> tuple[Address, ...]:
    """Functions that the words name; none for no words. Raises Failure for a word that names nothing."""
    if not words:
        return ()
    from .. import planning

    return planning.resolve(facts, words, alone=alone)


def prefix(host: str) -> str:
    """How a person starts this program for the host of this name."""
    return "pve-passthrough" if host == "local" else f"pve-passthrough --host {host}"


def next_step(result: Checked, words: Sequence[str]) -> str:
    """The command that a person would type next."""
    devices = " ".join(words) or ("gpu" if any(device.is_display for device in result.facts.devices) else "DEVICE")
    vm = result.vmid or "ID"
    start = prefix(result.facts.host)
    if result.verdict is Verdict.BLOCKED:
        worst = next((one for one in result.findings if one.level is Level.BLOCKS), None)
        return f"{start} explain {worst.rule}" if worst else ""
    if result.verdict is Verdict.UNKNOWN or not result.facts.devices:
        return f"{start} check --output-format json-pretty"
    if not words:
        return f"{start} plan {devices} --vm {vm}"
    if result.verdict is Verdict.CHANGES_NEEDED:
        return f"{start} up {devices} --vm {vm}"
    return f"{start} verify --vm {vm}" if result.vmid and not result.usb else f"{start} plan {devices} --vm {vm}"


# -- planning ------------------------------------------------------------------------------------


def plan(
    host: Host,
    words: Sequence[str],
    vmid: int,
    *,
    accept: Iterable[str] = (),
    alone: bool = False,
    tweaks: Sequence[str] = (),
    lend_display: bool = False,
    inside: str = "",
    mapping: str = "",
    mdev: str = "",
    first: NewGuest | None = None,
) -> Planned:
    """The plan that gives the named devices to a guest. Raises Failure when something forbids it.

    `alone`: without a card's companions. `tweaks`: settings that few guests need, by name. `lend_display`: the host
    gives the card that shows its console at each start of the guest, and takes it back afterwards. `inside`: the
    guest's system, for which cloud-init shall install drivers. `mapping`: the guest gets the card through the resource
    mapping of this name, which is made when it is not there. `mdev`: a share of this type, not the device. `first`: a
    guest that will be made before; the plan is for the facts as they will be then.
    """
    facts = look(host, deep=True)
    machine = machine_of(host)
    program = hook_program(host)
    if first is not None:
        from ..planning.new_guest import with_new_guest

        facts = with_new_guest(facts, first)
    return plan_from(
        facts, words, vmid, machine=machine, accept=accept, alone=alone, tweaks=tweaks, program=program,
        lend_display=lend_display, inside=inside, mapping=mapping, mdev=mdev,
    )  # fmt: skip


def machine_of(host: Host) -> str:
    """The machine that a plan is for. A tree or a capture is planned for itself: its plan can be applied nowhere."""
    from ..change import machine_name

    return machine_name(host) if host.changeable else host.name


def now() -> str:
    """What a plan that is made now is named after."""
    return time.strftime("%Y%m%d-%H%M%S")


def plan_from(
    facts: Facts,
    words: Sequence[str],
    vmid: int,
    *,
    machine: str,
    accept: Iterable[str] = (),
    alone: bool = False,
    tweaks: Sequence[str] = (),
    program: str = PACKAGED,
    lend_display: bool = False,
    inside: str = "",
    mapping: str = "",
    mdev: str = "",
    usb: UsbHow | None = None,
) -> Planned:
    """The same from facts alone, for the machine with this name. Raises Failure when something forbids it.

    `program`: the launcher that the guest's hookscript calls. `usb`: how single USB devices are named.
    """
    from ..planning import changeable_guest, give, give_usb, guard, make_plan, mappings_named
    from ..planning.hookscript import Guard
    from ..planning.usb import notes

    if mdev:
        from .vgpus import plan_share, refuse_beside

        refuse_beside({"--lend-display": lend_display, "--tweak": tweaks, "--inside": inside})
        return plan_share(facts, words, vmid, mdev, machine=machine, accept=accept, program=program, mapping=mapping)
    accepted = frozenset(accept) | (LENT_HAZARDS if lend_display else frozenset())
    resolve(facts, pci_words(facts, words))
    changeable_guest(facts, vmid)
    checked = judge(facts, words, vmid, alone=alone, usb=usb)
    refuse_hazards(checked.findings, accepted)
    through = mappings_named(facts, words)
    mapped: tuple[Wish, ...] = ()
    only_usb = bool(checked.usb) and not checked.addresses
    named = checked.usb
    if mapping:
        from ..planning.mappings import through as mapped_as
        from ..planning.mappings import with_wish
        from ..planning.usb import usb_through

        made_so = usb_through(facts, mapping, named) if only_usb else mapped_as(facts, mapping, checked.addresses)
        facts, mapped, through = with_wish(facts, made_so), (made_so,), (*through, mapping)
        named = usb_named(facts, (f"usb:{mapping}",)) if only_usb else named
    plugged = give_usb(facts, named, vmid, usb) if named else ()
    wishes = () if only_usb else give(
        facts, checked.addresses, vmid, accept=accepted, mappings=through, tweaks=tweaks, lend_display=lend_display
    )  # fmt: skip
    guarded = Guard() if only_usb else guard(facts, vmid, program)
    if lend_display and guarded.notes:
        raise _unguarded(guarded.notes[0])
    made = make_plan(
        facts,
        (*guarded.wishes, *mapped, *wishes, *plugged, *_driver_inside(facts, checked.addresses, vmid, inside)),
        goal=f"give {' '.join(words)} to guest {vmid}",
        vmid=vmid,
        now=now(),
        machine=machine,
    )
    made = replace(
        made,
        risks=(*made.risks, *guarded.notes, *notes(named, plugged), *_remaining(checked, made)),
        devices={str(device.address): device.id for device in map(facts.device, checked.addresses) if device},
        identities=remember(facts, checked.addresses),
        usb={one.device.port: one.device.id for one in checked.usb if one.device is not None},
    )
    return Planned(checked, made)


def _driver_inside(facts: Facts, addresses: Sequence[Address], vmid: int, inside: str) -> tuple[Wish, ...]:
    """What lets the guest's first boot install its driver; nothing unless somebody named the guest's system."""
    if not inside:
        return ()
    from ..planning import changeable_guest
    from ..planning.first_boot import first_boot

    devices = [device for address in addresses if (device := facts.device(address))]
    return first_boot(facts, changeable_guest(facts, vmid), devices, inside)


def _unguarded(note: Finding) -> Failure:
    """Without its hookscript nobody would take the display from the host, nor give it back."""
    fix = note.fix
    return Failure(
        "lend.no-hook", "Nothing was planned: the guest cannot get a hookscript, and only that hands the host's "
        "display over and back.",
        *note.evidence, hint=" ".join((fix.text, *fix.commands)) if fix else "Leave --lend-display away.",
        code=Exit.REFUSED,
    )  # fmt: skip


def _remaining(checked: Checked, made: Plan) -> tuple[Finding, ...]:
    """What will still be wrong or unknown when the plan has been carried out."""
    from ..planning import outcome

    then = rules.judge(outcome(checked.facts, made), rules.Request(checked.addresses, checked.vmid, checked.ports))
    awaited = {"platform.iommu"} if any(one.cell.kind == "iommu" for one in made.expects) else set()
    return tuple(
        finding
        for finding in then
        if (finding.level in (Level.HARMS, Level.UNKNOWN) and finding.rule not in awaited)
        or (finding.level is Level.NOTE and finding.rule == ALONG)
    )


def hazards(findings: Iterable[Finding], accepted: frozenset[str]) -> tuple[Finding, ...]:
    """Hazards that nobody has accepted, those that nothing accepts first."""
    open_ones = [
        finding
        for finding in findings
        if finding.hazard and finding.level in (Level.BLOCKS, Level.HARMS) and finding.hazard not in accepted - {NEVER}
    ]
    return tuple(sorted(open_ones, key=lambda finding: finding.hazard != NEVER))


class HazardRefused(Failure):
    """A hazard stands in the way. `names`: what `--accept` takes to get past it; empty when nothing does."""

    names: tuple[str, ...] = ()


def refuse_hazards(findings: tuple[Finding, ...], accepted: frozenset[str]) -> None:
    """Raises Failure for a hazard that is not accepted, and for what neither we nor an option can mend."""
    refused = hazards(findings, accepted)
    if refused:
        raise refusal(refused, tuple(one for one in findings if one.rule == ALONG and one.level is Level.NOTE))
    blocking = [f for f in findings if f.level is Level.BLOCKS and f.actor is not Actor.US and not f.hazard]
    if blocking:
        worst = blocking[0]
        raise Failure(
            f"blocked.{worst.rule}", f"Nothing was changed. {worst.message}", *worst.evidence,
            hint=way_out(worst) or f"pve-passthrough explain {worst.rule}", code=Exit.BLOCKED,
        )  # fmt: skip


def way_out(one: Finding) -> str:
    """A finding's fix in one line, with the commands; empty when it has none."""
    return " ".join((one.fix.text, *one.fix.commands)) if one.fix else ""


def refusal(refused: tuple[Finding, ...], beside: tuple[Finding, ...] = ()) -> HazardRefused:
    """The worst hazard in full, the others by their message; and which names get past them, if any do. `beside`: what
    else is to be known before somebody accepts."""
    worst = refused[0]
    never = worst.hazard == NEVER
    names = () if never else tuple(sorted({finding.hazard for finding in refused}))
    if never:
        hint = way_out(worst) or "No option overrides this."
    else:
        hint = f"If that is what you want, name it: {' '.join(f'--accept {name}' for name in names)}"
        hint += "; or lend it only while the guest runs: --lend-display" if LENT_HAZARDS.issuperset(names) else ""
    others = [finding.message for finding in refused if finding is not worst]
    others += [line for finding in beside for line in (finding.message, *finding.evidence)]
    refusal = HazardRefused(
        f"refused.{worst.rule}", f"Nothing was changed. {worst.message}", *others, *worst.evidence,
        hint=hint, code=Exit.REFUSED,
    )  # fmt: skip
    refusal.names = names
    return refusal


def save_plan(made: Plan, file: str) -> None:
    """Keep a plan for later; it still runs only on its machine and while nothing has changed."""
    from ..change import dump_plan

    try:
        with open(file, "x", encoding="utf-8", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(dump_plan(made))
    except OSError as error:
        raise Failure("plan.not-saved", f"The plan was not saved: {file}: {error.strerror}.") from error


def load_plan(file: str) -> Plan:
    """A plan kept by `save_plan`. Raises Failure for a file that is not one."""
    from ..change import load_plan as parse_plan

    try:
        with open(file, encoding="utf-8") as stream:
            return parse_plan(stream.read(4 * 1024 * 1024), file)
    except (OSError, UnicodeError) as error:
        raise Failure("plan.unreadable", f"Nothing was changed: {file} could not be read ({error}).") from error


def hook_program(host: Host) -> str:
    """The launcher that a hookscript calls: ours if it will still be there after a reboot, else the package's."""
    try:
        return _program(host)
    except Failure:
        return PACKAGED


def _program(host: Host) -> str:
    """The command that the boot unit starts: the launcher that started us, else the one on the path."""
    import shutil

    launcher = sys.argv[0] if os.access(sys.argv[0], os.X_OK) else shutil.which("pve-passthrough")
    if launcher is None:
        raise Failure(
            "host.no-launcher", "Nothing was changed: the boot unit would not know which program to start.",
            hint="Start it through its launcher `pve-passthrough`, not as a module.",
        )  # fmt: skip
    program = os.path.realpath(launcher)
    if host.name == "local" and program.startswith(_GONE_AFTER_BOOT):
        raise Failure(
            "host.launcher-volatile", "Nothing was changed: the boot unit would not find this program after a reboot.",
            program, hint="Put it in a place that lasts, such as /opt or /root, and start it from there.",
        )  # fmt: skip
    return program


# -- changing ------------------------------------------------------------------------------------


def apply(host: Host, made: Plan) -> Run:
    """Run the plan. The run's phase says how far it came; a reboot is the caller's business."""
    from ..change import start

    may_change(host)
    _still_there(host, made)
    return _looked_after(host, lambda: start(host, made))


def _still_there(host: Host, made: Plan) -> None:
    """Cards move and vanish between a plan and its run: every function must be the one the plan was made for."""
    for address, identity in made.devices.items():
        try:
            now = ":".join(
                host.read(f"/sys/bus/pci/devices/{address}/{name}")
                .decode("ascii", "replace")
                .strip()
                .removeprefix("0x")
                for name in ("vendor", "device")
            )
        except HostError as error:
            raise Failure(
                "plan.device-gone", f"Nothing was changed: {address} ({identity}) is not there any more.", str(error),
                hint="Look again with `pve-passthrough devices`, and plan again.",
            ) from error  # fmt: skip
        if now != identity:
            raise Failure(
                "plan.device-gone", f"Nothing was changed: {address} holds {now}, the plan was made for {identity}.",
                hint="Look again with `pve-passthrough devices`, and plan again.",
            )  # fmt: skip
    for port, identity in made.usb.items():
        _still_plugged(host, port, identity)


def _still_plugged(host: Host, port: str, identity: str) -> None:
    """USB devices come and go: the one that the plan was made for must be in its port."""
    try:
        now = ":".join(
            host.read(f"/sys/bus/usb/devices/{port}/{name}").decode("ascii", "replace").strip()
            for name in ("idVendor", "idProduct")
        )
    except HostError as error:
        raise Failure(
            "plan.usb-gone", f"Nothing was changed: {identity} is not plugged into port {port} any more.", str(error),
            hint="Plug it in again and repeat the command, or look with `pve-passthrough usb` and plan again.",
        ) from error  # fmt: skip
    if now != identity:
        raise Failure(
            "plan.usb-gone", f"Nothing was changed: port {port} holds {now}, the plan was made for {identity}.",
            hint="Look again with `pve-passthrough usb`, and plan again.",
        )  # fmt: skip


def resume(host: Host, *, booting: bool = False) -> Run | None:
    """Bring the unfinished run on as far as it goes; None when there is none. Safe at any time, twice, by anyone."""
    from .. import change

    may_change(host)
    done = change.resume(host, patience=QUORUM_PATIENCE if booting else 0.0)
    if done is None or done.ended:
        change.boot_unit.remove(host)
    return done


def undo(host: Host, run_id: str | None = None) -> Run:
    """Take back a run: the named one, else the newest that is not undone."""
    from .. import change

    may_change(host)
    chosen = run_id or _newest_standing(host)
    return _looked_after(host, lambda: change.undo(host, chosen))


def _looked_after(host: Host, act: Callable[[], Run]) -> Run:
    """Let the boot unit stand by for as long as a run is unfinished: a power cut may come at any moment."""
    from ..change import boot_unit

    try:
        boot_unit.install(host, _program(host))
        done = act()
    except Failure as failure:
        # Whoever holds the lock still needs the unit.
        if failure.code is not Exit.LOCKED:
            _leave_nothing(host)
        raise
    if done.ended:
        boot_unit.remove(host)
    return done


def _leave_nothing(host: Host) -> None:
    """Where nothing is unfinished, the marker and the boot unit go. What failed first is what is told."""
    from ..change import unfinished

    with contextlib.suppress(Failure):
        if unfinished(host) is None:
            resume(host)


def _newest_standing(host: Host) -> str:
    from ..model.run import Phase

    standing = [run for run in history(host).runs if run.phase is not Phase.UNDONE]
    if not standing:
        raise Failure("run.none", "Nothing was changed: there is no run to undo.", hint="pve-passthrough status")
    return standing[-1].plan.id


def history(host: Host) -> Listing:
    """All runs on this host, oldest first, and those whose record could not be read.

    An undo whose reboot has happened meanwhile is recorded as finished, should the boot unit not have done so.
    """
    from ..change import all_runs
    from ..model.run import Phase

    listing = all_runs(host)
    awaiting = any(run.phase is Phase.UNDO_REBOOT for run in listing.runs)
    if awaiting and host.changeable and (host.name != "local" or os.geteuid() == 0):
        resume(host)
        return all_runs(host)
    return listing


def reboot(host: Host) -> None:
    """Ask the host to restart."""
    ran = host.run(("systemctl", "reboot"))
    if not ran.ok:
        raise Failure("reboot.failed", "The machine was not restarted.", ran.stderr.strip() or ran.stdout.strip())


def after_boot(host: Host) -> Run | None:
    """On a simulated host that has just started: the boot unit's work, then the guests start. Else nothing."""
    from ..host import simulated

    if not isinstance(host, simulated.Simulated) or not host.world.state().get("boot_unit_due"):
        return None
    try:
        return resume(host, booting=True)
    finally:
        # pve-guests.service is only ordered after the unit: guests start whatever has become of it.
        simulated.finish_boot(host.world)


def still_runs(host: Host, run: Run) -> bool:
    """Whether the guest of this run is running: Proxmox keeps changes of its options pending until it stops."""
    from ..guest import is_running

    if run.plan.changes and all(_USB_CELL.fullmatch(str(change.cell)) for change in run.plan.changes):
        return False  # these a running guest takes and gives back at once, or they are not planned
    return run.plan.vmid is not None and is_running(host, run.plan.vmid) is True


def guest_runs(host: Host, vmid: int) -> bool | None:
    """Whether the guest runs now; None: nobody could say."""
    from ..guest import is_running

    return is_running(host, vmid)


def is_simulated(host: Host) -> bool:
    return host.name.startswith("sim:")


def may_change(host: Host) -> None:
    """Raises Failure when this host cannot be changed, or not by this user."""
    if not host.changeable:
        raise Failure(
            "host.read-only", f"Nothing was changed: {host.name} can only be looked at.", code=Exit.USAGE
        )  # fmt: skip
    if host.name == "local" and os.geteuid() != 0:
        raise Failure("host.not-root", "Nothing was changed: only root may change this machine.", hint="Use sudo.")


# -- proving -------------------------------------------------------------------------------------


def verify(host: Host, vmid: int, *, top: int = 3, start: bool = True, patience: float | None = None) -> Proof:
    """Climb the ladder for one guest of this node."""
    from ..guest import AGENT_PATIENCE, climb

    if start:
        may_change(host)
    facts = look(host)
    vm = facts.guest(vmid)
    if vm is None:
        raise Failure(
            "guest.missing", f"Nothing was asked: this node has no guest {vmid}.",
            hint="qm list shows the guests.", code=Exit.USAGE,
        )  # fmt: skip
    if start:
        _guard_the_start(facts, vm)
    waiting = AGENT_PATIENCE if patience is None else patience
    return Proof(facts, vm, climb(host, facts, vm, top=top, start=start, patience=waiting))


def _guard_the_start(facts: Facts, vm: Vm) -> None:
    """Starting a guest takes whole IOMMU groups from the host, and groups may be known only since the last boot.

    What was accepted when the device was given stays accepted; what nothing accepts stops the start, and so does a
    device that is not the one that was given.
    """
    from .hooks import refuse

    refuse(facts, vm)


def capture(host: Host, *, redacted: bool = True, logs: bool = False) -> bytes:
    """The capture file of a deep look at the host. `logs`: what `diagnose` reads of it as well: the kernel's log, and
    the tasks of guests with devices."""
    from ..capture import pack
    from ..host.replay import Recorder

    recorder = Recorder(host)
    look(recorder, deep=True)
    if logs:
        from .evidence import gather

        facts = look(recorder, deep=True, inventory=True)
        guests = [guest.vmid for guest in facts.guests or () if guest.hostpci]
        for vmid in guests or (None,):
            gather(recorder, facts, vmid, inside=False)
    return pack(recorder.answers, redacted=redacted)
