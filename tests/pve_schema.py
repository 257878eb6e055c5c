"""What Proxmox' API says about itself, as a judge of options: recorded schemas of both majors."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest

from tests.shared import SHARED

needs_schema = pytest.mark.skipif(
    not (SHARED / "pve" / "schema-9.json").exists(), reason="the recorded schemas of Proxmox' API are not here"
)


def parameters(major: int) -> dict[str, Any]:
    """What POST /nodes/{node}/qemu takes, as the API says about itself."""
    found: dict[str, Any] = next(_posts(json.loads((SHARED / "pve" / f"schema-{major}.json").read_text())))
    return found


def _posts(part: Any) -> Iterator[dict[str, Any]]:
    if isinstance(part, dict):
        if part.get("path") == "/nodes/{node}/qemu":
            yield part["info"]["POST"]["parameters"]["properties"]
        for inner in part.values():
            yield from _posts(inner)
    elif isinstance(part, list):
        for inner in part:
            yield from _posts(inner)


def complaint(schema: dict[str, Any], text: str) -> str:
    """Why the API would not take this text; empty when it would."""
    if isinstance(schema.get("format"), dict):
        return _complaint_about_keys(schema["format"], text)
    if schema.get("type") == "boolean" and text not in ("0", "1"):
        return "no boolean"
    if schema.get("type") == "integer":
        if not text.isdecimal():
            return "no integer"
        if not schema.get("minimum", 0) <= int(text) <= schema.get("maximum", 1 << 40):
            return "out of range"
    if "enum" in schema and text not in schema["enum"]:
        return f"not one of {schema['enum']}"
    pattern = schema.get("pattern", "").replace("(?^:", "(?:")
    return f"does not match {pattern}" if pattern and not re.fullmatch(pattern, text) else ""


def _complaint_about_keys(keys: dict[str, Any], text: str) -> str:
    default = next((key for key, about in keys.items() if about.get("default_key")), "")
    for part in text.split(","):
        key, equals, value = part.partition("=")
        key, value = (key, value) if equals else (default, part)
        if key not in keys:
            return f"{key} is no key"
        if wrong := complaint(keys[key], value):
            return f"{key}: {wrong}"
    return ""


def about(schema: dict[str, Any], key: str) -> dict[str, Any]:
    """What the schema says of one option; numbered ones share a row. Fails for an option that there is not."""
    found: dict[str, Any] | None = schema.get(key) or schema.get(re.sub(r"\d+$", "[n]", key))
    assert found is not None, f"{key} is no option"
    return found
