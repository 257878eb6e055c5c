"""What a rule is, what it is asked about, and the words that all rules share.

1. A rule is a function of facts and a request; it reads nothing else and remembers nothing.
2. Its docstring is its published page: a first line, then Why, Look at, Fix and Source.
3. Unknown facts give an UNKNOWN finding that names the gap; they never give silence, and never BLOCKS.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence, Sized

from ..model.blast import blast_radius
from ..model.facts import Facts, UseKind
from ..model.finding import Finding, Fix, Level, Safety
from ..model.pci import Address, Device
from ..model.value import dataclass
from ..model.vm import Vm

OUTPUTS_NOT = 0x0302
"""3D controllers have no monitor outputs (PCI class 03, subclass 02)."""


@dataclass(frozen=True, slots=True)
class Request:
    """What the check is about: `addresses` and `usb` to pass through, `vmid` the guest; all empty: the whole host."""

    addresses: tuple[Address, ...] = ()
    vmid: int | None = None
    usb: tuple[str, ...] = ()
    """Ports of single USB devices."""
    share: str = ""
    """Type of which a share is asked for: the addresses stay with the host, only the rules `vgpu` judge them."""


RuleFunction = Callable[[Facts, Request], Iterator[Finding]]


@dataclass(frozen=True, slots=True)
class Rule:
    """One question.

    needs     `host`, `device` or `guest`: without such a thing in the request the findings are notes about all of them
    decisive  nobody can call the machine ready while this question has no answer
    """

    id: str
    function: RuleFunction
    needs: str
    decisive: bool = False


def chosen(facts: Facts, request: Request) -> tuple[Device, ...]:
    """The devices in question: those asked for, else those of the guest asked for, else every display device."""
    wanted = frozenset(request.addresses) or claimed(facts, request.vmid)
    if wanted:
        return tuple(device for device in facts.devices if device.address in wanted)
    if request.vmid is not None or request.usb:
        return ()
    return tuple(device for device in facts.devices if device.is_display and device.physical_function is None)


def claimed(facts: Facts, vmid: int | None) -> frozenset[Address]:
    """Functions that the guest's configuration takes."""
    guest = None if vmid is None else facts.guest(vmid)
    return frozenset(address for entry in guest.hostpci for address in entry.binds) if guest else frozenset()


def taken(facts: Facts, request: Request) -> tuple[Device, ...]:
    """All that leaves the host when the guest starts: the chosen devices, the guest's others, and their groups."""
    addresses = {device.address for device in chosen(facts, request)} | claimed(facts, request.vmid)
    return blast_radius(facts, addresses)


def guests(facts: Facts, request: Request) -> tuple[Vm, ...]:
    """The guest asked for, else every guest of this node that has passed-through devices."""
    if request.vmid is not None:
        guest = facts.guest(request.vmid)
        return (guest,) if guest else ()
    return tuple(guest for guest in facts.guests or () if is_local(facts, guest) and guest.hostpci)


def is_local(facts: Facts, guest: Vm) -> bool:
    """Whether the guest lives on this node, as far as anybody can say."""
    return facts.pve.node is None or not guest.node or guest.node == facts.pve.node


def assigned(guest: Vm, request: Request) -> bool:
    """The guest's configuration already has all that was asked for."""
    owned = {address for entry in guest.hostpci for address in entry.addresses}
    return bool(guest.hostpci) and owned.issuperset(request.addresses)


def same_card(device: Device, other: Device) -> bool:
    """Functions of one card: the same slot, and display, sound or serial bus (USB, UCSI), but not SMBus.

    Several functions in one slot of bus 0 are a chipset, not a card, unless one of them is the display itself.
    """
    if device.address.slot != other.address.slot or device.address == other.address:
        return False
    if device.address.bus == 0 and not (device.is_display or other.is_display):
        return False
    return other.base_class in (0x03, 0x04, 0x0C) and other.subclass != 0x0C05


def beside(facts: Facts, device: Device) -> tuple[Device, ...]:
    """Other functions in the card's slot, its own and what merely lies beside it."""
    return tuple(other for other in facts.devices if same_card(device, other))


def cards(devices: Iterable[Device]) -> tuple[tuple[Device, ...], ...]:
    """The devices by card, so that one finding speaks about one card; bus 0 is a chipset but for its graphics."""
    ordered = sorted(devices, key=lambda one: one.address)
    displays = {device.address.slot for device in ordered if device.is_display}
    found: dict[str, list[Device]] = {}
    for device in ordered:
        slot = device.address.slot
        card = slot if device.address.bus != 0 or slot in displays else str(device.address)
        found.setdefault(card, []).append(device)
    return tuple(tuple(card) for card in found.values())


def card_name(card: Sequence[Device]) -> str:
    """`GeForce RTX 4090 (0000:01:00.0) with its function 1`: the first function speaks for its card."""
    head, *others = card
    if not others:
        return str(head)
    numbers = [f"{other.address.function:x}" for other in others]
    return f"{head} with its function{'s' if len(numbers) > 1 else ''} {names(numbers)}"


def up(facts: Facts, request: Request, *devices: Device) -> str:
    """The command that makes all this program's changes at once, for these devices, else for those in question."""
    heads = [card[0] for card in cards(devices or chosen(facts, request))] if devices or request != Request() else []
    displays = any(device.is_display for device in facts.devices)
    words = " ".join(str(device.address) for device in heads) or ("gpu" if displays else "DEVICE")
    return f"pve-passthrough up {words} --vm {'ID' if request.vmid is None else request.vmid}"


def are(count: object) -> str:
    """`is` for one, `are` for more."""
    return "is" if count == 1 or (isinstance(count, Sized) and len(count) == 1) else "are"


def reason(facts: Facts, *abouts: str) -> str:
    """Why nobody could say: the gap about one of these facts (or about a part of them)."""
    for about in abouts:
        for gap in facts.gaps:
            if gap.about == about or gap.about.startswith((f"{about}.", f"{about}/", f"{about} ")):
                return f"{gap.about}: {gap.reason}"
    return f"{abouts[0]}: nobody could say" if abouts else "nobody could say"


def names(devices: Iterable[object]) -> str:
    """`A, B and C`."""
    words = [str(device) for device in devices]
    return " and ".join((", ".join(words[:-1]), words[-1])) if len(words) > 1 else "".join(words)


def unknown(rule: str, subject: str, message: str, why: str) -> Finding:
    return Finding(rule, Level.UNKNOWN, subject, message, (why,))


def show(text: str, *commands: str) -> Fix:
    """A way out that a person goes."""
    return Fix(text, Safety.SHOW, commands)


def ask(text: str, *commands: str) -> Fix:
    """A way out that a plan can go, after asking."""
    return Fix(text, Safety.ASK, commands)


def uses(facts: Facts, devices: Iterable[Device], *kinds: UseKind) -> Iterator[tuple[Device, str, bool]]:
    """(device, what the host uses it for, vital) for uses of these kinds."""
    by_address = {device.address: device for device in devices}
    for use in facts.uses:
        if use.kind in kinds and (device := by_address.get(use.address)):
            yield device, use.detail, use.vital
