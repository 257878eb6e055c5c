"""From the words on the command line to PCI functions.

1. A word is an address, a slot, `vendor:device`, the name of a PCI mapping, or a class word (`gpu`, `gpu:2`, `nic` …).
2. Nothing is ever guessed: a word that fits more than one device is refused with the list, a word that fits none with
   what comes nearest. The one preference: `gpu` is not the display that shows the host's console.
3. Function 0 of a graphics card stands for the card: its own sound, USB and USB-C functions come along
   (`model.cards`), unless only what was named is wanted.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterable, Sequence

from ..errors import Exit, Failure
from ..model.cards import companions
from ..model.facts import Facts, ResourceMapping
from ..model.mappings import lines_of
from ..model.pci import Address, Device
from ..model.vm import expand_host

_SLOT = re.compile(r"(?:([0-9a-f]{4,8}):)?([0-9a-f]{2}:[01][0-9a-f])")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
USB_PREFIX = "usb:"
_COUNTED = re.compile(r"([a-z-]+)(?::([0-9]+))?")


def _in(*classes: int) -> Callable[[Device], bool]:
    return lambda device: device.subclass in classes


CLASS_WORDS: dict[str, Callable[[Device], bool]] = {
    "gpu": lambda device: device.is_display,
    "nic": lambda device: device.base_class == 0x02,
    "nvme": _in(0x0108),
    "sata": _in(0x0106),
    "hba": _in(0x0104, 0x0107),
    "usb-controller": _in(0x0C03),
    "audio": _in(0x0403),
    "capture": _in(0x0400),
    "serial": _in(0x0700),
    "accelerator": _in(0x0B40, 0x1200),
}
"""Class and subclass as in the PCI code and ID assignment specification (pci.ids, section C)."""


def resolve(facts: Facts, words: Sequence[str], *, alone: bool = False) -> tuple[Address, ...]:
    """The functions that `words` name, each once, in the order of the words. Raises Failure (USAGE).

    `alone`: without the companions of a graphics card.
    """
    found: dict[Address, None] = {}
    for word in words:
        if is_usb_word(facts, word):
            raise Failure(
                "device.usb", f"Nothing was planned: {word} is a single USB device, and this is about PCI functions.",
                hint="pve-passthrough usb --help", code=Exit.USAGE,
            )  # fmt: skip
        named = _resolve(facts, word.strip())
        found.update(dict.fromkeys(_without_companions(facts, named) if alone else named))
    return tuple(found)


def _without_companions(facts: Facts, named: Sequence[Address]) -> tuple[Address, ...]:
    """What a word brought along goes again."""
    cards = [device for device in facts.devices if device.address in named]
    brought = {other.address for card in cards for other in companions(facts, card)}
    return tuple(address for address in named if address not in brought)


def is_usb_word(facts: Facts, word: str) -> bool:
    """Whether the word means a single USB device (see `usb`): by its prefix `usb:`, or as the name of a USB mapping
    and of no PCI mapping."""
    word = word.strip()
    return word.lower().startswith(USB_PREFIX) or {one.kind for one in facts.mappings if one.name == word} == {"usb"}


def mappings_named(facts: Facts, words: Sequence[str]) -> tuple[str, ...]:
    """Which of the words are names of PCI mappings: a guest gets those devices through the mapping."""
    known = {entry.name for entry in facts.mappings if entry.kind == "pci"}
    return tuple(word.strip() for word in words if word.strip() in known)


def shows_console(facts: Facts, device: Device) -> bool:
    """Whether the host's console is on this display, as far as anyone could say."""
    return device.boot_vga is True or device.address == facts.display.console_owner


def _resolve(facts: Facts, word: str) -> tuple[Address, ...]:
    mapping = next((entry for entry in facts.mappings if entry.kind == "pci" and entry.name == word), None)
    if mapping is not None:
        return _by_mapping(facts, mapping)
    lower = word.lower()
    try:
        return _by_address(facts, word, Address.parse(lower))
    except ValueError:
        pass
    if match := _SLOT.fullmatch(lower):
        return _by_slot(facts, word, f"{int(match.group(1) or '0', 16):04x}:{match.group(2)}")
    if _ID.fullmatch(lower):
        return _by_id(facts, word, lower)
    if (match := _COUNTED.fullmatch(lower)) and match.group(1) in CLASS_WORDS:
        return _by_class(facts, match.group(1), match.group(2))
    raise _unknown(facts, word, "is no address, no vendor:device, no mapping and no class word")


def _by_address(facts: Facts, word: str, address: Address) -> tuple[Address, ...]:
    device = facts.device(address)
    if device is None:
        raise _unknown(facts, word, "is not on this machine")
    if device.bridge:
        raise Failure(
            "device.bridge", f"Nothing was planned: {device} is a bridge, and bridges stay with the host.",
            hint="Name a device behind it: `pve-passthrough devices --tree` shows them.", code=Exit.USAGE,
        )  # fmt: skip
    return _card(facts, (device,))


def _card(facts: Facts, devices: Iterable[Device]) -> tuple[Address, ...]:
    whole = {other.address for device in devices for other in (device, *companions(facts, device))}
    return tuple(sorted(whole))


def _by_slot(facts: Facts, word: str, slot: str) -> tuple[Address, ...]:
    found = tuple(device.address for device in facts.devices if device.address.slot == slot and not device.bridge)
    if not found:
        raise _unknown(facts, word, "is a slot without a device on this machine")
    return tuple(sorted(found))


def _by_id(facts: Facts, word: str, identity: str) -> tuple[Address, ...]:
    found = [device for device in facts.devices if device.id == identity and not device.bridge]
    if not found:
        raise _unknown(facts, word, "is the ID of no device on this machine")
    if len({device.address.slot for device in found}) > 1:
        raise _ambiguous(word, found, "Name the one that you mean by its address.")
    return _card(facts, found)


def _by_mapping(facts: Facts, mapping: ResourceMapping) -> tuple[Address, ...]:
    """All that a start may take: of a pool each member, since the first free one is taken."""
    node = facts.pve.node
    lines = lines_of(mapping, node)
    known = [device.address for device in facts.devices]
    if not lines:
        raise _unknown(facts, mapping.name, f"is a mapping with no device on node {node}")
    found: dict[Address, None] = {}
    for line in lines:
        functions = expand_host(line.path, known)
        if not functions or any(address not in known for address in functions):
            raise _unknown(facts, mapping.name, f"is a mapping with path {line.path}, which this machine does not have")
        found.update(dict.fromkeys(functions))
    return tuple(found)


def _by_class(facts: Facts, kind: str, count: str | None) -> tuple[Address, ...]:
    cards = candidates(facts, kind)
    word = kind if count is None else f"{kind}:{count}"
    if not cards:
        raise _unknown(facts, word, "fits no device of this machine")
    if count is not None:
        if not 1 <= int(count) <= len(cards):
            raise _unknown(facts, word, f"is out of range: the machine has {len(cards)}", cards)
        return _card(facts, (cards[int(count) - 1],))
    free = [card for card in cards if not (kind == "gpu" and shows_console(facts, card))]
    chosen = free if len(cards) > 1 else cards
    if len(chosen) != 1:
        lines = [f"{kind}:{number}  {card}" for number, card in enumerate(cards, 1)]
        raise _ambiguous(word, lines, f"Say which, e.g. {kind}:1, or give the address.")
    return _card(facts, chosen)


def candidates(facts: Facts, kind: str) -> list[Device]:
    """What `kind:1`, `kind:2`, … mean, by address; without virtual functions and without a card's companions."""
    fits = CLASS_WORDS[kind]
    belongs = {other.address for device in facts.devices for other in companions(facts, device)}
    found = [
        device for device in facts.devices
        if fits(device) and device.physical_function is None and device.address not in belongs and not device.bridge
    ]  # fmt: skip
    return sorted(found, key=lambda device: device.address)


def _ambiguous(word: str, found: Iterable[object], hint: str) -> Failure:
    lines = [str(one) for one in found]
    return Failure(
        "device.ambiguous", f"Nothing was planned: {word!r} fits {len(lines)} devices.", *lines,
        hint=hint, code=Exit.USAGE,
    )  # fmt: skip


def _unknown(facts: Facts, word: str, reason: str, near: Sequence[Device] | None = None) -> Failure:
    gap = facts.gap("pci") or facts.gap("devices")
    lines = [str(device) for device in (_nearest(facts, word) if near is None else near)]
    if gap is not None and not facts.devices:
        lines.append(f"The devices of this machine could not be read: {gap.reason}")
    return Failure(
        "device.unknown", f"Nothing was planned: {word!r} {reason}.", *lines,
        hint=f"`pve-passthrough devices` lists all. Class words: {', '.join(CLASS_WORDS)}.", code=Exit.USAGE,
    )  # fmt: skip


def _nearest(facts: Facts, word: str) -> list[Device]:
    """At most five devices whose address, ID or name looks like `word`."""
    import difflib  # costs start-up time, and only a mistake needs it

    names: dict[str, Device] = {}
    for device in facts.devices:
        if not device.bridge:
            short = str(device.address).removeprefix("0000:")
            names |= {str(device.address): device, short: device, device.id: device, device.name.lower(): device}
    close = difflib.get_close_matches(word.lower()[:80], list(names), n=10, cutoff=0.5)
    close += [name for name in names if len(word) > 2 and word.lower() in name]
    return list({names[name].address: names[name] for name in close}.values())[:5]
