"""USB devices: look at the tree, give single devices to guests, take them back.

1. Nothing here prints or asks. A plan is returned; `app.apply` runs it, and `app.undo` takes it back.
2. The look is a glance with the USB devices looked at closely: no card is woken, no image is opened.
"""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host
from ..model.facts import Facts
from . import look, machine_of, now, plan_from

if TYPE_CHECKING:
    from ..model.plan import Plan
    from . import Planned

PREFIX = "usb:"


def look_usb(host: Host) -> Facts:
    """A glance, and a closer look at the USB devices."""
    from ..probe import usb_closely

    return usb_closely(host, look(host))


def plan_add(
    host: Host,
    word: str,
    vmid: int,
    *,
    way: str = "",
    usb3: bool | None = None,
    absent_ok: bool = False,
    accept: Iterable[str] = (),
) -> Planned:
    """The plan that gives one device to a guest, which may run. Raises Failure when something forbids it."""
    from ..planning import UsbHow

    facts = look_usb(host)
    how = UsbHow(way, usb3, absent_ok)
    return plan_from(facts, (_prefixed(word),), vmid, machine=machine_of(host), accept=accept, usb=how)


def plan_remove(host: Host, word: str, vmid: int) -> Plan:
    """The plan that takes a device, or the entry of this name, from a guest, which may run."""
    from ..planning import make_plan
    from ..planning.usb import remove_usb

    facts = look_usb(host)
    wishes = remove_usb(facts, word, vmid)
    goal = f"take {word} from guest {vmid}"
    return make_plan(facts, wishes, goal=goal, vmid=vmid, now=now(), machine=machine_of(host))


def _prefixed(word: str) -> str:
    """The verb takes `1-4.2` as well as `usb:1-4.2`."""
    word = word.strip()
    if not word:
        raise Failure("device.none", "Nothing was planned: no device was named.", code=Exit.USAGE)
    return word if word.lower().startswith(PREFIX) else f"{PREFIX}{word}"
