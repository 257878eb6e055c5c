"""What happens around a guest's start and stop, when Proxmox VE calls the guest's hookscript.

1. `PHASES` lists, literally, what is done in which phase and in which order. Every start comes through it: the web
   interface's, a boot's, HA's, a rollback's, `qm start --skiplock`, and the one of a backup, which starts a guest that
   does not run (qemu-server QemuServer.pm, vm_start_nolock; VZDump/QemuServer.pm, enforce_vm_running_for_backup;
   pve-ha-manager Resources/PVEVM.pm). Only a start by the KVM program itself does not.
2. A step stops a start by raising a Failure with Exit.REFUSED, and by nothing else. Whatever else goes wrong with us is
   said, and the guest starts: a guard with a defect must not keep machines off.
3. The guard looks quickly, and thoroughly only where something is wrong. Guests of this machine start at boot as well,
   so it is also what finds at boot that a card has moved.
4. Nothing here takes the lock of runs: a run of ours may be what starts the guest.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from typing import TYPE_CHECKING

from .. import rules
from ..errors import Exit, Failure
from ..host.base import Host, HostError, Ran
from ..model.facts import Facts
from ..model.finding import Finding, Level
from ..model.vm import Vm, gives_usb
from . import NEVER, hook_program, look, look_closely, way_out

if TYPE_CHECKING:
    from ..change.handover import Receipt
    from ..model.run import Run

Step = Callable[[Host, int], Iterable[str]]
"""(host, guest) → lines for the task's log. Raises Failure."""


# -- the guard -----------------------------------------------------------------------------------


def guard(host: Host, vmid: int) -> Iterator[str]:
    """Look before a start. Raises Failure (REFUSED) for what is proven to cost the host, or to be another device."""
    facts = look_closely(host, vmid)
    vm = facts.guest(vmid)
    if vm is not None and (vm.hostpci or gives_usb(vm.config)):
        refuse(facts, vm)
        yield from _doubts(facts, vm)


def findings(facts: Facts, vm: Vm) -> tuple[Finding, ...]:
    claimed = tuple(address for entry in vm.hostpci for address in entry.binds)
    return rules.judge(facts, rules.Request(claimed, vm.vmid))


def stopping(facts: Facts, vm: Vm) -> tuple[Finding, ...]:
    """What no start may get past: hazards that nothing accepts, and devices that are not what was given."""
    return tuple(
        one
        for one in findings(facts, vm)
        if one.hazard == NEVER or (one.rule.startswith("drift.") and one.level is Level.BLOCKS)
    )


def refuse(facts: Facts, vm: Vm) -> None:
    """Raises Failure (REFUSED): one paragraph, what moved first, then what it would cost."""
    fatal = sorted(stopping(facts, vm), key=lambda one: not one.rule.startswith("drift."))
    if not fatal:
        return
    first, *others = fatal
    raise Failure(
        f"refused.{first.rule}", f"{vm.name} ({vm.vmid}) was not started. {first.message}",
        *first.evidence, *(other.message for other in others),
        hint=way_out(first) or "Take the device out of the guest: pve-passthrough undo", code=Exit.REFUSED,
    )  # fmt: skip


def _doubts(facts: Facts, vm: Vm) -> Iterator[str]:
    """What nobody could tell about the guest's devices, and what is wrong with its USB devices, which QEMU takes as
    they come and go: said, and no reason to stop."""
    for one in findings(facts, vm):
        unknown = one.rule.startswith("drift.") and one.level is Level.UNKNOWN
        if unknown or (one.rule.startswith("usb.") and one.subject == f"vm:{vm.vmid}" and one.level is Level.HARMS):
            yield one.message


def left_without(facts: Facts, run: Run) -> tuple[Vm, ...]:
    """Guests that will not start once this run is taken back, because they name its hookscript: its clones."""
    going = {
        change.cell.name.rpartition("/")[2]
        for change in run.plan.changes
        if change.cell.kind == "script" and change.before is None
    }
    return tuple(
        vm
        for vm in facts.guests or ()
        if vm.vmid != run.plan.vmid and (vm.value("hookscript") or "").rpartition("/")[2] in going - {""}
    )


# -- the host's display --------------------------------------------------------------------------


def lend_display(host: Host, vmid: int) -> Iterator[str]:
    """A guest that borrows the host's display gets it, or does not start: Proxmox VE would take the card by force."""
    from ..change import handover

    if not handover.borrows(host, vmid):
        return
    facts = look(host)
    vm = facts.guest(vmid)
    if vm is None:
        return
    try:
        receipt = handover.hand_over(host, facts, vm, hook_program(host))
    except Failure as failure:
        failure.code = Exit.REFUSED
        raise
    yield from receipt.did if receipt is not None else ()


def take_display_back(host: Host, vmid: int) -> Iterator[str]:
    """The host has its display again, or the task's log says what it has not."""
    from ..change import handover

    yield from _came_back(handover.hand_back(host, vmid))


def watch_display(host: Host, vmid: int) -> Iterator[str]:
    """As the timer calls it: a start that failed gets no post-stop."""
    from ..change import handover

    yield from _came_back(handover.watch(host, vmid))


def _came_back(receipt: Receipt | None) -> Iterator[str]:
    if receipt is not None:
        yield from receipt.did
        yield from (f"not given back: {line}" for line in receipt.stays)


# -- phases --------------------------------------------------------------------------------------

PHASES: dict[str, tuple[Step, ...]] = {
    "pre-start": (guard, lend_display),
    "post-start": (),
    "pre-stop": (),
    "post-stop": (take_display_back,),
    "watch": (watch_display,),
}
"""Steps by phase. The first four are Proxmox VE's own (guest-example-hookscript.pl of pve-docs); `watch` is ours."""


def call(host: Host, vmid: int, phase: str, say: Callable[[str], None]) -> Exit:
    """Do what belongs to the phase. A phase that is not known is none of ours. REFUSED stops a start."""
    for step in PHASES.get(phase, ()):
        try:
            for line in step(host, vmid):
                say(line)
        except Failure as failure:
            if failure.code is Exit.REFUSED:
                for line in told(failure):
                    say(line)
                return Exit.REFUSED
            say(f"{failure.problem.message} The guest goes on without it.")
        except HostError as error:
            say(f"pve-passthrough had no answer from the host ({error}); the guest goes on without it.")
        except Exception as error:  # our own defect: see rule 2
            say(f"pve-passthrough failed ({type(error).__name__}: {error}); the guest goes on without it.")
    return Exit.FINE


def told(failure: Failure) -> tuple[str, ...]:
    """A failure as lines of a task's log."""
    problem = failure.problem
    context = (f"  {line}" for line in "\n".join(problem.context).split("\n") if line)
    return (f"{problem.ref}: {problem.message}", *context, *((f"→ {problem.hint}",) if problem.hint else ()))


def as_program(host: Host, argv: Sequence[str]) -> Ran:
    """`pve-passthrough hook VMID PHASE` as a program of a simulated machine: the same call, its words on stderr; and
    `pve-passthrough sriov at-boot ADDRESS`, as our unit calls it."""
    if len(argv) == 4 and list(argv[1:3]) == ["sriov", "at-boot"]:
        return _at_boot(host, argv[3])
    if len(argv) != 4 or argv[1] != "hook" or not argv[2].isdecimal():
        return Ran(
            int(Exit.USAGE), "", "only `pve-passthrough hook VMID PHASE` is started inside a simulated machine\n"
        )
    said: list[str] = []
    code = call(host, int(argv[2]), argv[3], said.append)
    return Ran(int(code), "", "".join(f"{line}\n" for line in said))


def _at_boot(host: Host, address: str) -> Ran:
    """Nothing happens on a simulated machine while somebody waits, so nobody does."""
    from .sriov import at_boot

    said: list[str] = []
    try:
        at_boot(host, address, said.append, patience=0.0)
    except Failure as failure:
        return Ran(int(failure.code), "", "".join(f"{line}\n" for line in told(failure)))
    return Ran(0, "".join(f"{line}\n" for line in said))
