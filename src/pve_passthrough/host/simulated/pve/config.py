"""A guest's configuration file as qemu-server reads and writes it.

1. `load` drops a line that does not parse and says so; the next `save` therefore loses it, as on a real node.
2. Values are kept verbatim; only what the callers rewrite changes. Keys are written sorted, the description first.
3. Snapshot sections are kept as text: they are read by name and written back untouched.
Source: recorded exchanges with Proxmox VE 8.4 and 9.2 (rows `badfile`, `description`, `snap`, `run`).
"""

from __future__ import annotations

import re
from dataclasses import dataclass, field

from .node import Die, Node, sha1
from .options import FILE_ONLY, guest_options
from .schema import Invalid, boolean, judge, parse

_LINE = re.compile(r"([a-z][a-z_\-]*\d*):\s*(.+?)\s*")
_SAFE = re.compile(r"[\x20-\x24\x26-\x39\x3b-\x7e]")


@dataclass(slots=True)
class Config:
    """active and pending values; `deleting` = {key: forced} that become unset; `snapshots` = {name: section text}."""

    vmid: int
    active: dict[str, str] = field(default_factory=dict)
    pending: dict[str, str] = field(default_factory=dict)
    deleting: dict[str, bool] = field(default_factory=dict)
    snapshots: dict[str, str] = field(default_factory=dict)
    digest: str = ""

    def shown(self) -> dict[str, str]:
        """What the next start will see."""
        values = {key: text for key, text in self.active.items() if key not in self.deleting}
        return {**values, **self.pending}


def path_of(node: Node, vmid: int) -> str:
    return f"/etc/pve/nodes/{node.name}/qemu-server/{vmid}.conf"


def vmids(node: Node) -> list[int]:
    """The guests of this node, ascending."""
    names = node.world.names(f"/etc/pve/nodes/{node.name}/qemu-server")
    return sorted(int(name[:-5]) for name in names if re.fullmatch(r"[1-9]\d{2,8}\.conf", name))


def load(node: Node, vmid: int) -> Config:
    text = node.world.text(path_of(node, vmid))
    if text is None:
        raise Die(f"Configuration file 'nodes/{node.name}/qemu-server/{vmid}.conf' does not exist", 2)
    config = read(node, vmid, text)
    config.digest = sha1(text)
    return config


def read(node: Node, vmid: int, text: str) -> Config:
    """Parse a file's text; complaints go to `node.warn`."""
    config = Config(vmid)
    head, *sections = re.split(r"(?m)^(?=\[)", text)
    _section(node, config, head, config.active)
    for section in sections:
        header, _, body = section.partition("\n")
        name = header.strip().strip("[]")
        if name == "PENDING":
            _section(node, config, body, config.pending)
        else:
            config.snapshots[name] = body
    return config


def _section(node: Node, config: Config, text: str, values: dict[str, str]) -> None:
    description = ""
    for line in text.splitlines():
        if not line.strip():
            continue
        if line.startswith("#"):
            description += decode(line[1:]) + "\n"
        elif match := _LINE.fullmatch(line):
            _value(node, config, values, match.group(1), match.group(2))
        else:
            node.warn(f"vm {config.vmid} - unable to parse config: {line}")
    if description:
        values["description"] = description.removesuffix("\n")


def _value(node: Node, config: Config, values: dict[str, str], key: str, text: str) -> None:
    if key == "delete" and values is config.pending:
        for name in re.split(r"[\s,;]+", text):
            if name:
                config.deleting[name.removeprefix("!")] = name.startswith("!")
    elif key in ("snaptime", "snapstate"):
        values[key] = text
    else:
        try:
            values[key] = checked(node, key, text)
        except Invalid as error:
            node.warn(f"vm {config.vmid} - unable to parse value of '{key}' - {error.text}")


def checked(node: Node, key: str, text: str) -> str:
    """A line's value, booleans as 1 and 0. Raises `Invalid` with the words that PVE writes about a line."""
    prop = guest_options(node.major).get(key)
    if prop is None:
        raise Invalid(f"unknown setting '{key}'")
    if prop.kind == "boolean":
        value = boolean(text)
        if value is None:
            raise Invalid(f"type check ('boolean') failed - got '{text}'")
        return value
    if key in FILE_ONLY:
        return text
    if prop.keys is not None:
        parse(prop.keys, text)
    else:
        judge(prop, text)
    return text


def encode(text: str) -> str:
    """A description's line as it stands in the file: `%`, `:` and everything beyond printable ASCII as %XX."""
    return "".join(
        char if _SAFE.fullmatch(char) else "".join(f"%{byte:02X}" for byte in char.encode("utf-8", "surrogateescape"))
        for char in text
    )


def decode(text: str) -> str:
    raw = text.encode("utf-8", "surrogateescape")
    plain = re.sub(rb"%([0-9A-Fa-f]{2})", lambda match: bytes([int(match.group(1), 16)]), raw)
    return plain.decode("utf-8", "surrogateescape")


def render(config: Config) -> str:
    """The file's text."""
    parts = [_render_values(config.active, {})]
    if config.pending or config.deleting:
        parts.append("[PENDING]\n" + _render_values(config.pending, config.deleting))
    parts += [f"[{name}]\n{body}" for name, body in sorted(config.snapshots.items())]
    return "\n".join(part if part.endswith("\n") or not part else f"{part}\n" for part in parts)


def _render_values(values: dict[str, str], deleting: dict[str, bool]) -> str:
    lines = [f"#{encode(line)}" for line in values.get("description", "").splitlines()]
    shown = {key: text for key, text in values.items() if key != "description"}
    if deleting:
        shown["delete"] = ",".join(f"!{key}" if forced else key for key, forced in sorted(deleting.items()))
    return "".join(f"{line}\n" for line in [*lines, *(f"{key}: {shown[key]}" for key in sorted(shown))])


def save(node: Node, config: Config) -> Config:
    """Write the file and read it back, as every change of qemu-server does."""
    text = render(config)
    node.write(path_of(node, config.vmid), text)
    again = read(node, config.vmid, text)
    again.digest = sha1(text)
    return again


def check_lock(config: Config, skip: bool = False) -> None:
    if not skip and (lock := config.active.get("lock")):
        raise Die(f"VM is locked ({lock})")


def options_of(node: Node, key: str, text: str) -> dict[str, str]:
    """A property string that is known to be well-formed, as keys and texts; {} when it is not."""
    prop = guest_options(node.major)[key]
    try:
        return parse(prop.keys or {}, text)
    except Invalid:
        return {}
