"""Cluster resource mappings as text: the form of their cell, and what a name may look like.

1. Values and text only.
2. The text of a mapping is its `map` lines in order (Proxmox takes the first free one), then its other properties.
   Properties of a line are sorted: their order means nothing.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import replace

from .facts import Facts, MapEntry, ResourceMapping
from .vm import Vm, parse_options

KINDS = ("pci", "usb")

NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]+")
"""Source: API schema of 8.4 and 9.2, pve-configid; recorded refusals of `x`, `bad id` and `0000:01:00`."""

TRUE = frozenset({"1", "on", "yes", "true"})


def find(mappings: Iterable[ResourceMapping], kind: str, name: str) -> ResourceMapping | None:
    """The mapping of this kind and name."""
    return next((one for one in mappings if one.kind == kind and one.name == name), None)


def lines_of(mapping: ResourceMapping, node: str | None) -> tuple[MapEntry, ...]:
    """The lines of one node; all of them when nobody knows which node this is."""
    return tuple(line for line in mapping.entries if node is None or line.node == node)


def flag(mapping: ResourceMapping, name: str) -> bool:
    return mapping.options.get(name, "0").lower() in TRUE


def mapping_text(mapping: ResourceMapping) -> str:
    """The mapping as its cell has it: `map` lines in order, then its properties."""
    maps = [f"map {','.join(properties(line))}" for line in mapping.entries]
    return "\n".join([*maps, *sorted(f"{key} {value}" for key, value in mapping.options.items())])


def properties(line: MapEntry) -> list[str]:
    """`id=…`, `node=…`, …, sorted. A line without a path (USB by its number) has none."""
    named = {"node": line.node, **({"path": line.path} if line.path else {}), **line.options}
    return sorted(f"{key}={text}" for key, text in named.items())


def parse_mapping(kind: str, name: str, text: str | None) -> ResourceMapping | None:
    """The inverse of `mapping_text`; None: there is no such mapping."""
    if text is None:
        return None
    lines: list[MapEntry] = []
    options: dict[str, str] = {}
    for row in filter(None, map(str.strip, text.splitlines())):
        key, _, value = row.partition(" ")
        if key == "map":
            lines.append(_line(value.strip()))
        else:
            options[key] = value.strip()
    return ResourceMapping(kind, name, tuple(lines), options)


def _line(text: str) -> MapEntry:
    pairs = dict(part.partition("=")[::2] for part in text.split(",") if part)
    return MapEntry(pairs.pop("node", ""), pairs.pop("path", ""), pairs)


def with_mapping(mappings: Sequence[ResourceMapping], new: ResourceMapping) -> tuple[ResourceMapping, ...]:
    """The mappings with this one in the place of its namesake, or at the end."""
    if find(mappings, new.kind, new.name) is None:
        return (*mappings, new)
    return tuple(new if (one.kind, one.name) == (new.kind, new.name) else one for one in mappings)


def with_line(mapping: ResourceMapping, old: MapEntry, path: str, options: Mapping[str, str]) -> ResourceMapping:
    """The mapping with this line's path and properties exchanged; all other lines stay as they are."""
    lines = tuple(replace(line, path=path, options=dict(options)) if line is old else line for line in mapping.entries)
    return replace(mapping, entries=lines)


def users(facts: Facts, mapping: ResourceMapping) -> tuple[tuple[Vm, str], ...]:
    """Guests of all nodes whose configuration, or its next start, names the mapping; and under which key."""
    return tuple((guest, key) for guest in facts.guests or () for key in _naming(guest, mapping))


def _naming(guest: Vm, mapping: ResourceMapping) -> list[str]:
    """A cluster may have thousands of guests, so a configuration is gone through only where it must be."""
    if mapping.kind == "pci" and not guest.pending and not guest.deleting:
        return [entry.key for entry in guest.hostpci if entry.mapping == mapping.name]
    prefix = "hostpci" if mapping.kind == "pci" else "usb"
    named = {
        key
        for config in (guest.config, guest.pending)
        for key, text in config.items()
        if key.startswith(prefix) and key[len(prefix) :].isdecimal() and _names(text, mapping.name)
    }
    return sorted(named)


def _names(text: str, name: str) -> bool:
    return parse_options(text, "host").get("mapping") == name
