"""Measurements of a guest that works but is slow -> lines of a table, and what they speak for.

1. Pure: what was sampled and what is known of the machine in, `Measured` out.
2. What nobody could measure is UNKNOWN with the reason; a link that idles says nothing about its speed.
3. SLOW is said only of what costs speed on this machine and can be changed; the rest is a note.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..knowledge import performance as known
from ..model.diagnosis import Observation
from ..model.facts import Facts
from ..model.pci import Device
from ..model.performance import Measured, Samples, State
from ..model.vm import Vm
from .slow_case import Case
from .slow_devices import DEVICES
from .slow_guest import GUEST

_ORDER = {State.SLOW: 0, State.NOTE: 1, State.UNKNOWN: 2, State.GOOD: 3}


def judge(facts: Facts, vm: Vm, devices: Sequence[Device], samples: Samples) -> tuple[Measured, ...]:
    """The whole table, what is slow first."""
    case = Case(facts, vm, tuple(devices), samples)
    found = [one for measure in (*DEVICES, *GUEST) for one in measure(case)]
    places = {row.id: number for number, row in enumerate(known.ROWS)}
    return tuple(sorted(found, key=lambda one: (_ORDER[one.state], places[one.measure])))


def observations(measured: Sequence[Measured]) -> tuple[Observation, ...]:
    """What is slow, as a diagnosis takes it."""
    return tuple(
        Observation(
            f"slow:{one.measure}",
            f"{known.row(one.measure).title}: {one.here}; it should be {one.should}.",
            "measured",
            one.evidence[0] if one.evidence else one.here,
            known.row(one.measure).points,
            device="" if one.subject.startswith("vm:") else one.subject,
        )
        for one in measured
        if one.state is State.SLOW
    )
