"""The section files of Proxmox: mapping/pci.cfg, mapping/usb.cfg, ha/resources.cfg, jobs.cfg, storage.cfg.

1. A section is `type: name` or, where the file knows one type only, `name`; its lines start with a tab.
2. A key may stand more than once (`map`); unknown keys are kept.
"""

from __future__ import annotations

from dataclasses import dataclass, field


@dataclass(slots=True)
class Section:
    """One section. `values` holds the last value of a key, `maps` every `map` line in order."""

    name: str
    type: str = ""
    values: dict[str, str] = field(default_factory=dict)
    maps: list[str] = field(default_factory=list)


def parse_sections(text: str) -> list[Section]:
    found: list[Section] = []
    for line in text.splitlines():
        if not line.strip() or line.startswith("#"):
            continue
        if line[0] in "\t ":
            key, _, value = line.strip().partition(" ")
            if found and key == "map":
                found[-1].maps.append(value.strip())
            elif found:
                found[-1].values[key] = value.strip()
        else:
            kind, colon, name = line.partition(":")
            found.append(Section(name.strip(), kind.strip()) if colon else Section(line.strip()))
    return found


def render_sections(sections: list[Section], first: tuple[str, ...] = ()) -> str:
    """The file's text: `map` lines, then the keys of `first`, then the others sorted; a blank line after each."""
    parts = []
    for section in sections:
        keys = [key for key in first if key in section.values]
        keys += sorted(key for key in section.values if key not in first)
        head = f"{section.type}: {section.name}" if section.type else section.name
        lines = [head, *(f"\tmap {entry}" for entry in section.maps)]
        lines += [f"\t{key} {section.values[key]}".rstrip() for key in keys]
        parts.append("\n".join(lines) + "\n\n")
    return "".join(parts)
