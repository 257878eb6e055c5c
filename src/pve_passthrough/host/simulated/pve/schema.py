"""How Proxmox judges the text of an option: types, patterns, property strings.

1. Values and text only; no machine is looked at. What needs one (a hookscript's file) is judged by its caller.
2. Every refusal is the sentence that Proxmox VE 8.4 and 9.2 gave in the recorded exchanges; nothing is paraphrased.
3. A table of options is a plain mapping from name to `Prop`; tables lie in `options`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass

TRUE = re.compile(r"(?i:1|on|yes|true)")
FALSE = re.compile(r"(?i:0|off|no|false)")
ID = re.compile(r"(?i:[a-z][a-z0-9_-]+)")

Format = Mapping[str, "Prop"]


class Invalid(Exception):
    """A value that does not fit. The text is Proxmox' own, possibly of several lines; `rc` is its exit code."""

    def __init__(self, text: str, rc: int = 255) -> None:
        super().__init__(text)
        self.text = text
        self.rc = rc


@dataclass(frozen=True, slots=True)
class Prop:
    """What one option or one key of a property string may hold.

    kind    string, boolean, integer or number
    keys    the keys of a property string; None for a plain value
    check   a further judge: raises `Invalid` with its sentence
    alias   another key of the same property string, whose value this one gives
    named   the key that receives this key's own name (network models: `virtio=MAC` means model=virtio,macaddr=MAC)
    """

    kind: str = "string"
    optional: bool = True
    enum: tuple[str, ...] = ()
    pattern: str = ""
    minimum: int | None = None
    maximum: int | None = None
    max_length: int | None = None
    default_key: bool = False
    keys: Format | None = None
    check: Callable[[str], None] | None = None
    alias: str = ""
    named: str = ""
    description: str = ""


def boolean(value: str) -> str | None:
    """`1` or `0` for every spelling of true and false; None when it is neither."""
    if TRUE.fullmatch(value):
        return "1"
    return "0" if FALSE.fullmatch(value) else None


def judge(prop: Prop, value: str, name: str = "") -> None:
    """Raise `Invalid` with the words that follow `NAME: ` when the value does not fit (`name`: see `parse`)."""
    if prop.kind == "boolean" and boolean(value) is None:
        raise Invalid(f"type check ('boolean') failed - got '{value}'")
    if prop.kind == "integer" and not re.fullmatch(r"[+-]?\d+", value):
        raise Invalid(f"type check ('integer') failed - got '{value}'")
    if prop.kind == "number" and not re.fullmatch(r"[+-]?\d+(\.\d+)?", value):
        raise Invalid(f"type check ('number') failed - got '{value}'")
    if prop.kind == "string":
        _judge_format(prop, value, name)
        if prop.max_length is not None and len(value) > prop.max_length:
            raise Invalid(f"value may only be {prop.max_length} characters long")
        if prop.pattern and not re.fullmatch(prop.pattern, value):
            raise Invalid("value does not match the regex pattern")
    elif prop.kind != "boolean":
        _judge_range(prop, float(value))
    if prop.enum and value not in prop.enum:
        raise Invalid(f"value '{value}' does not have a value in the enumeration '{', '.join(prop.enum)}'")


def _judge_format(prop: Prop, value: str, name: str) -> None:
    try:
        if prop.keys is not None:
            parse(prop.keys, value, name)
        if prop.check is not None:
            prop.check(value)
    except Invalid as error:
        raise Invalid(f"invalid format - {error.text}\n", error.rc) from None


def _judge_range(prop: Prop, value: float) -> None:
    if prop.minimum is not None and value < prop.minimum:
        raise Invalid(f"value must have a minimum value of {prop.minimum}")
    if prop.maximum is not None and value > prop.maximum:
        raise Invalid(f"value must have a maximum value of {prop.maximum}")


def parse(keys: Format, value: str, path: str = "") -> dict[str, str]:
    """Read a property string (`01:00,pcie=on`); booleans become 1 and 0. Raises `Invalid`.

    `path` is the option's name: Proxmox puts it before each key in a refused parameter (`hostpci0.host: …`) and
    leaves it out when it complains about a line of the file (`host: …`).
    """
    found = split(keys, value)
    dot = f"{path}." if path else ""
    problems = []
    for key, prop in keys.items():
        if not prop.optional and not prop.alias and key not in found:
            problems.append(f"{dot}{key}: property is missing and it is not optional")
    rc = 255
    for key in sorted(found):
        try:
            if key not in keys:
                raise Invalid("property is not defined in schema and the schema does not allow additional properties")
            judge(keys[key], found[key])
        except Invalid as error:
            rc = error.rc
            problems.append(f"{dot}{key}: {error.text}")
    if problems:
        raise Invalid("format error\n" + "\n".join(problems), rc)
    return {key: _plain(keys[key], text) for key, text in found.items()}


def _plain(prop: Prop, text: str) -> str:
    return boolean(text) or text if prop.kind == "boolean" else text


def split(keys: Format, value: str) -> dict[str, str]:
    """Cut a property string into keys and texts without judging the texts (order: as written)."""
    default = next((key for key, prop in keys.items() if prop.default_key), None)
    found: dict[str, str] = {}
    for part in value.split(","):
        if not part.strip():
            continue
        key, equals, text = part.partition("=")
        if not equals:
            if default is None:
                raise Invalid("value without key, but schema does not define a default key")
            key, text = default, part
        elif not key or not text:
            raise Invalid("missing key in comma-separated list property")
        prop = keys.get(key)
        if prop is not None and prop.alias:
            if prop.named:
                _once(found, prop.named, key)
            key = prop.alias
        _once(found, key, text)
    return found


def _once(found: dict[str, str], key: str, text: str) -> None:
    if key in found:
        raise Invalid(f"duplicate key in comma-separated list property: {key}")
    found[key] = text


def printed(keys: Format, values: Mapping[str, str]) -> str:
    """A property string as Proxmox prints it: the default key first and bare, the others sorted."""
    parts = []
    rest = dict(values)
    for key, prop in keys.items():
        if prop.default_key and key in rest:
            named = next((p for p in keys.values() if p.named == key and p.alias in rest), None)
            parts.append(f"{rest[key]}={rest.pop(named.alias)}" if named else rest[key])
            del rest[key]
    return ",".join(parts + [f"{key}={rest[key]}" for key in sorted(rest)])
