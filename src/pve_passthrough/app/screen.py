"""The second step with a graphics card: the guest's virtual display goes, once somebody gets in without it.

1. The rescue console is taken away by proof or by insistence, never by default.
2. The guest may run: Proxmox VE keeps the change until it stops and starts.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..errors import Exit, Failure
from ..guest.remote import Answer, ask, own_addresses
from ..host.base import Host
from ..host.network import Dial, dial
from ..model.facts import Facts
from ..model.plan import Plan
from ..model.value import dataclass
from ..model.vm import Vm
from ..model.wish import Wish
from . import look, machine_of, now


@dataclass(frozen=True, slots=True)
class Screen:
    """`answers`: who was asked; empty when nobody had to be."""

    vm: Vm
    answers: tuple[Answer, ...]
    plan: Plan


def card_only(host: Host, vmid: int, *, insist: bool = False, at: Sequence[str] = ()) -> Screen:
    """The plan that makes the card the guest's only display. Raises Failure when nobody is seen to get in.

    `at`: addresses to ask instead of those that the guest's agent names. `insist`: without proof.
    """
    from ..planning import screen

    facts, vm = _guest(host, vmid)
    wishes = screen.card_only(facts, vm)
    answers = () if insist else _proof(host, vm, at)
    return Screen(vm, answers, _plan(host, facts, wishes, f"give the screen of guest {vmid} to its card", vmid))


def with_rescue(host: Host, vmid: int) -> Screen:
    """The plan that brings the virtual display back. Raises Failure."""
    from ..planning import screen

    facts, vm = _guest(host, vmid)
    wishes = screen.with_rescue(facts, vm)
    return Screen(vm, (), _plan(host, facts, wishes, f"bring the virtual display of guest {vmid} back", vmid))


def _guest(host: Host, vmid: int) -> tuple[Facts, Vm]:
    from ..planning import changeable_guest

    facts = look(host)
    return facts, changeable_guest(facts, vmid)


def _plan(host: Host, facts: Facts, wishes: Sequence[Wish], goal: str, vmid: int) -> Plan:
    from ..planning import make_plan

    return make_plan(facts, wishes, goal=goal, vmid=vmid, now=now(), machine=machine_of(host))


def _proof(host: Host, vm: Vm, at: Sequence[str]) -> tuple[Answer, ...]:
    """Who answers in the guest. Raises Failure when nobody does."""
    addresses = tuple(at) or _addresses(host, vm)
    answers = ask(_dial(host), addresses)
    if any(not answer.error for answer in answers):
        return answers
    tried = [f"{one.service} at {one.address} port {one.port}: {one.error}" for one in answers]
    raise Failure(
        "display.nobody-answers",
        f"Nothing was changed: nobody is seen to get into {vm.name} ({vm.vmid}) without its virtual display.",
        *(tried or ["no address of the guest is known"]),
        hint="Set up SSH, RDP or Sunshine in the guest and try again; --at ADDRESS names one; --insist goes without "
        "proof (Parsec cannot be seen from here).",
        code=Exit.REFUSED,
    )


def _addresses(host: Host, vm: Vm) -> tuple[str, ...]:
    from ..guest import agent

    interfaces = agent.interfaces_in(host, vm.vmid)
    if isinstance(interfaces, agent.Silence):
        raise Failure(
            "display.no-agent",
            f"Nothing was changed: where {vm.name} ({vm.vmid}) can be reached is unknown.",
            f"guest agent: {interfaces.reason}",
            hint="Start the guest with its agent, or name its address: --at ADDRESS.", code=Exit.REFUSED,
        )  # fmt: skip
    return own_addresses(vm, interfaces)


def _dial(host: Host) -> Dial:
    """Connections from the host itself; from inside the simulation for a simulated one."""
    from ..host.simulated import Simulated

    if not isinstance(host, Simulated):
        return dial
    from ..host.simulated import remote

    world = host.world
    return lambda address, port, say, timeout: remote.dial(world, address, port, say, timeout)
