"""Single USB devices: from words to devices, from devices to usbN entries.

1. Pure. A word is `usb:1-4.2`, `usb:046d:c52b`, or the name of a USB mapping, with or without `usb:`.
2. Nothing is guessed: twins by their ID, hubs, and ports that the machine does not have are refused with what is there.
3. The entry names the device by its ID where that is unique and stays, else by its port; a mapping is used when it was
   named. Whoever asks for another way gets it, unless it cannot tell devices apart.
4. A running guest is changed only where Proxmox VE applies usbN at once.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Exit, Failure
from ..knowledge.usb_devices import changeling
from ..knowledge.usb_guests import FEW, MANY, XHCI_MACHINE, modern, naming, plugs_at_once, slots
from ..model.facts import Facts, ResourceMapping
from ..model.finding import Finding, Level
from ..model.usb import SUPER_SPEED, UsbDevice, is_id, is_port, is_root_hub, parent_of
from ..model.usb_guest import (
    UsbEntry,
    below,
    mappings_of,
    matching,
    parse_entry,
    twins_of,
    usb_entries,
    usb_keys,
)
from ..model.value import dataclass
from ..model.vm import Vm
from ..model.wish import MappingText, VmOption
from .choose import USB_PREFIX as PREFIX
from .choose import is_usb_word
from .goals import changeable_guest, refuse_pending, unknown
from .mappings import mapping_of

_ID_OR_PORT = {"id": "ID", "port": "port"}


@dataclass(frozen=True, slots=True)
class UsbChoice:
    """What a word means, and how an entry is to name it. `device` None: it is not plugged in."""

    word: str
    device: UsbDevice | None
    way: str
    name: str
    why: str

    @property
    def source(self) -> str:
        """The beginning of the entry: `host=046d:c52b`, `mapping=dongle`."""
        return f"{'mapping' if self.way == 'mapping' else 'host'}={self.name}"

    def __str__(self) -> str:
        return str(self.device) if self.device is not None else f"whatever is {self.name}"


# -- words ---------------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class UsbHow:
    """How USB devices are given. `way`: `id`, `port` or `mapping` instead of the usual choice. `usb3`: None is what
    the device and the guest need. `absent_ok`: a device that is not plugged in will do."""

    way: str = ""
    usb3: bool | None = None
    absent_ok: bool = False


def resolve_usb(facts: Facts, words: Iterable[str], how: UsbHow | None = None) -> tuple[UsbChoice, ...]:
    """What those of the words that mean USB devices mean, each device once. Raises Failure (USAGE)."""
    how = how or UsbHow()
    found: dict[str, UsbChoice] = {}
    for word in words:
        if is_usb_word(facts, word):
            choice = _resolve(facts, word.strip(), how.way, how.absent_ok)
            found.setdefault(choice.device.port if choice.device is not None else choice.name, choice)
    return tuple(found.values())


def _resolve(facts: Facts, word: str, way: str, absent_ok: bool) -> UsbChoice:
    rest = word[len(PREFIX) :] if word.lower().startswith(PREFIX) else word
    mapping = next((one for one in facts.mappings if one.kind == "usb" and one.name == rest), None)
    if mapping is not None:
        return _by_mapping(facts, word, mapping)
    lower = rest.lower()
    if is_root_hub(lower):
        raise _root_hub(facts, lower)
    if not facts.usb:
        raise unknown(facts, "usb.devices", "which USB devices there are")
    if is_port(lower):
        device = facts.usb_at(lower)
        return _absent(facts, word, lower, "port", absent_ok) if device is None else _chosen(facts, word, device, way)
    if is_id(lower):
        return _by_id(facts, word, lower, way, absent_ok)
    raise _unknown(facts, f"{word!r} is no port (1-4.2), no vendor:product (046d:c52b) and no USB mapping")


def _by_id(facts: Facts, word: str, identity: str, way: str, absent_ok: bool) -> UsbChoice:
    found = [one for one in facts.usb if one.id == identity]
    if not found:
        return _absent(facts, word, identity, "id", absent_ok)
    if len(found) > 1:
        raise Failure(
            "device.ambiguous", f"Nothing was planned: {len(found)} USB devices are {identity}.",
            *(_line(one) for one in found),
            hint=f"Name the one that you mean by its port: {PREFIX}{found[0].port}", code=Exit.USAGE,
        )  # fmt: skip
    return _chosen(facts, word, found[0], way)


def _by_mapping(facts: Facts, word: str, mapping: ResourceMapping) -> UsbChoice:
    """A guest whose mapping offers nothing, or something else, does not start: refused here.
    Source: pve-guest-common, Mapping/USB.pm, assert_valid; recorded starts (`usbmap`) of 8.4 and 9.2."""
    node = facts.pve.node or ""
    entry = parse_entry(facts, node, "usb0", f"mapping={mapping.name}")
    devices = matching(facts, entry)
    fault = entry.fault
    if not fault and not devices:
        fault = f"it names {entry.port or entry.id or 'nothing'}, which is not plugged in"
    elif not fault and entry.expected != devices[0].id:
        fault = f"it says {entry.expected}, and at {devices[0].port} is {devices[0].id}"
    if fault:
        raise Failure(
            "mapping.stale", f"Nothing was planned: no guest starts with the mapping {mapping.name}: {fault}.",
            *(f"node {line.node}: {line.options.get('id', '')} {line.path}".rstrip() for line in mapping.entries),
            hint="Plug the device in, or write what is there into the mapping.", code=Exit.USAGE,
        )  # fmt: skip
    if devices[0].hub:
        raise _hub(facts, devices[0])
    return UsbChoice(word, devices[0], "mapping", mapping.name, f"through the mapping {mapping.name}")


def _chosen(facts: Facts, word: str, device: UsbDevice, way: str) -> UsbChoice:
    if device.hub:
        raise _hub(facts, device)
    usual, why = usual_way(facts, device)
    if way == "mapping":
        return _through(facts, word, device)
    if way == "id" and usual == "port" and (twins_of(facts, device) or "?" in device.id):
        raise Failure(
            "usb.twins", f"Nothing was planned: {device.id} does not tell {device} from others.",
            *(_line(one) for one in (device, *twins_of(facts, device))),
            hint=f"Leave --by away, or say --by port: the entry names port {device.port}.", code=Exit.USAGE,
        )  # fmt: skip
    if way and way != usual:
        why = f"by its {_ID_OR_PORT[way]}, as was asked"
    chosen = way or usual
    return UsbChoice(word, device, chosen, device.id if chosen == "id" else device.port, why)


def usual_way(facts: Facts, device: UsbDevice) -> tuple[str, str]:
    """(`id` or `port`, why)."""
    row = changeling(device.id)
    if row is not None:
        return "port", f"by its port: {row.changes}"
    if "?" in device.id:
        return "port", "by its port, for its ID could not be read"
    if twins := twins_of(facts, device):
        return "port", f"by its port, for {twins[0].port} is {device.id}, too"
    return "id", f"by its ID, for nothing else here is {device.id}"


def _through(facts: Facts, word: str, device: UsbDevice) -> UsbChoice:
    names = mappings_of(facts, device)
    if len(names) != 1:
        raise Failure(
            "mapping.which" if names else "mapping.none",
            f"Nothing was planned: {len(names) or 'no'} USB mapping{'s' if len(names) > 1 else ''} of this node "
            f"name{'' if len(names) > 1 else 's'} {device}.",
            *names,
            hint=f"Name one: {PREFIX}{names[0]}" if names else "Make one (pve-passthrough mapping), or say --by port.",
            code=Exit.USAGE,
        )  # fmt: skip
    return _by_mapping(facts, word, next(one for one in facts.mappings if one.kind == "usb" and one.name == names[0]))


def usb_through(facts: Facts, name: str, choices: Sequence[UsbChoice]) -> MappingText:
    """The USB mapping `name` for the one device that was named, made where it is not there: with its port where its ID
    does not tell it from others. Raises Failure."""
    devices = [one.device for one in choices if one.device is not None]
    if len(choices) != 1 or len(devices) != 1:
        raise Failure(
            "mapping.one", f"Nothing was planned: a USB mapping offers one device, and {len(choices)} were named.",
            *map(str, choices), hint="Give the devices one after the other, each with its own --mapping.",
            code=Exit.USAGE,
        )  # fmt: skip
    return mapping_of(facts, "usb", name, devices, by_port=usual_way(facts, devices[0])[0] == "port")


def _absent(facts: Facts, word: str, name: str, way: str, absent_ok: bool) -> UsbChoice:
    """Nothing is plugged in there. Source: qemu-server starts without it, and QEMU attaches it when it comes
    (hw/usb/host-libusb.c, usb_host_auto_check)."""
    if absent_ok and (way == "id" or _port_exists(facts, name)):
        return UsbChoice(word, None, way, name, f"by its {_ID_OR_PORT[way]}; it is not plugged in now")
    where = f"no USB device is {name}" if way == "id" else _empty_port(facts, name)
    if way == "port" and not _port_exists(facts, name):
        raise _unknown(facts, where)
    raise _unknown(
        facts, where, hint="Plug it in, or say --absent-ok with `usb add`: the guest gets it when it appears."
    )


def _port_exists(facts: Facts, port: str) -> bool:
    """Whether the hub above is there, and is not known to have fewer ports."""
    hub = facts.usb_at(parent_of(port) or "")
    number = int(port.replace("-", ".").rpartition(".")[2])
    return hub is not None and hub.hub and number > 0 and (hub.ports is None or number <= hub.ports)


def _empty_port(facts: Facts, port: str) -> str:
    above = parent_of(port) or ""
    hub = facts.usb_at(above)
    if hub is None:
        return f"there is no port {port}, for there is no {above}"
    if not hub.hub:
        return f"there is no port {port}, for {hub} is no hub"
    if not _port_exists(facts, port):
        return f"there is no port {port}: {above} has {hub.ports}"
    return f"nothing is plugged into port {port}"


def _root_hub(facts: Facts, port: str) -> Failure:
    device = facts.usb_at(port)
    controller = device.controller if device is not None else None
    way = f"pve-passthrough plan {controller} --vm ID" if controller is not None else "pve-passthrough usb"
    return Failure(
        "usb.hub", f"Nothing was planned: {port} is the controller's own hub and no device.",
        *(_line(one) for one in below(facts, port)),
        hint=f"For all of its ports, pass the controller: {way}", code=Exit.USAGE,
    )  # fmt: skip


def _hub(facts: Facts, device: UsbDevice) -> Failure:
    """QEMU does not take hubs (hw/usb/host-libusb.c, usb_host_auto_check skips class 9)."""
    if device.root_hub:
        return _root_hub(facts, device.port)
    behind = below(facts, device.port)
    return Failure(
        "usb.hub", f"Nothing was planned: {device} is a hub, and no guest can have a hub.",
        *(_line(one) for one in behind),
        hint=f"Name what is plugged into it: {PREFIX}{behind[0].port}" if behind else "Nothing is plugged into it.",
        code=Exit.USAGE,
    )  # fmt: skip


def _unknown(facts: Facts, reason: str, *, hint: str = "pve-passthrough usb") -> Failure:
    there = [_line(one) for one in facts.usb if not one.hub]
    more = [f"and {len(there) - 12} more"] if len(there) > 12 else []
    return Failure("device.unknown", f"Nothing was planned: {reason}.", *there[:12], *more, hint=hint, code=Exit.USAGE)


def _line(device: UsbDevice) -> str:
    return f"{PREFIX}{device.port}  {device.id}  {device.name or '–'}"


# -- giving --------------------------------------------------------------------------------------


def give_usb(
    facts: Facts, choices: Sequence[UsbChoice], vmid: int, how: UsbHow | None = None
) -> tuple[VmOption, ...]:  # fmt: skip
    """The usbN entries that guest `vmid` lacks. Raises Failure when the facts forbid it or do not suffice.

    A device that the guest has under another name keeps it, unless a way to name it was asked for.
    """
    how = how or UsbHow()
    guest = changeable_guest(facts, vmid)
    taken = set(usb_keys(guest))
    wishes: list[VmOption] = []
    for choice in choices:
        mine = _mine(facts, guest, choice)
        if mine is not None and _enough(mine, choice, how):
            continue
        value = f"{choice.source}{_usb3(guest, choice, how.usb3)}"
        key = mine.key if mine is not None else _free_key(guest, taken)
        wishes.append(VmOption(vmid, key, value, f"the guest gets {choice} {choice.why}"))
    if wishes:
        refuse_pending(guest, wishes)
        refuse_busy(facts, guest)
    return tuple(wishes)


def _enough(mine: UsbEntry, choice: UsbChoice, how: UsbHow) -> bool:
    """Whether the entry that is there does what was asked for."""
    named = not (how.way or choice.way == "mapping") or _source_of(mine) == choice.source
    return named and how.usb3 in (None, mine.usb3)


def _mine(facts: Facts, guest: Vm, choice: UsbChoice) -> UsbEntry | None:
    """The guest's own entry that names the device already."""
    for entry in usb_entries(facts, guest):
        if choice.device in matching(facts, entry) or (choice.device is None and choice.name in (entry.id, entry.port)):
            return entry
    return None


def _source_of(entry: UsbEntry) -> str:
    return f"mapping={entry.mapping}" if entry.mapping else f"host={entry.port or entry.id}"


def _usb3(guest: Vm, choice: UsbChoice, wanted: bool | None) -> str:
    """`usb3` means something only to older machines and systems (qemu-server, USB.pm)."""
    fast = choice.device is not None and (choice.device.speed or 0) >= SUPER_SPEED
    if wanted is None:
        wanted = fast and not modern(guest)
    return ",usb3=1" if wanted else ""


def _free_key(guest: Vm, taken: set[str]) -> str:
    """The first free entry, spice redirections count; it is taken then."""
    limit = slots(guest)
    for number in range(limit):
        if f"usb{number}" not in taken:
            taken.add(f"usb{number}")
            return f"usb{number}"
    version = ".".join(map(str, XHCI_MACHINE))
    raise Failure(
        "guest.full", f"Nothing was planned: guest {guest.vmid} ({guest.name}) has all {limit} USB entries in use.",
        *(f"{key}: {guest.value(key)}" for key in usb_keys(guest)),
        f"machine: {guest.value('machine') or 'default'}, ostype: {guest.value('ostype') or 'not set'}",
        hint=f"Take one away: pve-passthrough usb remove usb0 --vm {guest.vmid}"
        if limit == MANY
        else f"More than {FEW} need a machine from {version} on and the system Linux or Windows 8 and later.",
        code=Exit.REFUSED,
    )  # fmt: skip


def refuse_busy(facts: Facts, guest: Vm) -> None:
    """A change of usbN needs a guest that no task holds, and that is stopped or takes USB devices while it runs."""
    name = f"guest {guest.vmid} ({guest.name})"
    if guest.lock:
        raise Failure(
            "guest.locked", f"Nothing was planned: {name} is locked.", f"lock: {guest.lock}",
            hint="Wait for the task that holds it (backup, migration, snapshot), then try again.",
        )  # fmt: skip
    if guest.running is None:
        raise unknown(facts, "guests.running", f"whether {name} runs")
    if guest.running and not plugs_at_once(guest):
        raise Failure(
            "guest.running", f"Nothing was planned: {name} runs, and Proxmox VE would change its USB devices only at "
            "its next start.",
            f"hotplug: {guest.config.get('hotplug', 'network,disk,usb')}",
            f"machine: {guest.value('machine') or 'default'}, ostype: {guest.value('ostype') or 'not set'}",
            hint=f"qm shutdown {guest.vmid}", code=Exit.REFUSED,
        )  # fmt: skip


def notes(choices: Iterable[UsbChoice], wishes: Iterable[VmOption]) -> tuple[Finding, ...]:
    """What each new entry follows, and what breaks it."""
    written = {choice.source: wish.key for choice in choices for wish in wishes if _begins(wish, choice)}
    return tuple(
        Finding(
            "plan.usb-naming", Level.NOTE, choice.name,
            f"{written[choice.source]} follows {row.follows}. It breaks when {row.breaks}.",
            (f"{written[choice.source]}: {choice.source}: {choice.why}",),
        )
        for choice in choices if choice.source in written for row in (naming(choice.way),)
    )  # fmt: skip


def _begins(wish: VmOption, choice: UsbChoice) -> bool:
    return wish.value is not None and wish.value.partition(",")[0] == choice.source


# -- taking away ---------------------------------------------------------------------------------


def remove_usb(facts: Facts, word: str, vmid: int) -> tuple[VmOption, ...]:
    """The entries that name the device go. `word` may be the entry's own name, `usb2`. Raises Failure."""
    guest = changeable_guest(facts, vmid)
    entries = usb_entries(facts, guest)
    named = [entry for entry in entries if _names(facts, entry, word.strip())]
    if not named:
        raise Failure(
            "usb.not-given", f"Nothing was planned: guest {vmid} ({guest.name}) has no USB entry for {word}.",
            *(f"{entry.key}: {entry.value}" for entry in entries),
            hint=f"Name one of these: pve-passthrough usb remove {entries[0].key} --vm {vmid}"
            if entries
            else f"It has no USB entry at all: qm config {vmid}",
            code=Exit.USAGE,
        )  # fmt: skip
    wishes = tuple(VmOption(vmid, one.key, None, f"the guest gives back {_what(facts, one)}") for one in named)
    refuse_pending(guest, wishes)
    refuse_busy(facts, guest)
    return wishes


def _names(facts: Facts, entry: UsbEntry, word: str) -> bool:
    rest = word[len(PREFIX) :] if word.lower().startswith(PREFIX) else word
    lower = rest.lower()
    if lower == entry.key or rest == entry.mapping or lower in (entry.id, entry.port):
        return bool(lower)
    return any(lower in (one.port, one.id) for one in matching(facts, entry))


def _what(facts: Facts, entry: UsbEntry) -> str:
    found = matching(facts, entry)
    return str(found[0]) if found else f"{entry.names}, which is not plugged in"
