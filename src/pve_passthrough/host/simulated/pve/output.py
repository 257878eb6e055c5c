"""Answers as Proxmox prints them: JSON with sorted keys, pretty JSON, YAML, a table.

1. Data in, text out.
"""

from __future__ import annotations

import json
from typing import Any

FORMATS = ("text", "json", "json-pretty", "yaml")


def formatted(data: Any, form: str) -> str:
    """Text with its final newline; nothing for an answer without content."""
    if data is None:
        return ""
    if form == "json":
        return json.dumps(data, sort_keys=True, separators=(",", ":"), ensure_ascii=False) + "\n"
    if form == "json-pretty":
        return pretty(data)
    if form == "yaml":
        return "---\n" + "".join(f"{line}\n" for line in _yaml(data))
    return _table(data)


def pretty(data: Any) -> str:
    """Perl's pretty, canonical JSON: three blanks a level, ` : ` after a key."""
    return json.dumps(data, sort_keys=True, indent=3, separators=(",", " : "), ensure_ascii=False) + "\n"


def _yaml(data: Any) -> list[str]:
    if isinstance(data, dict):
        lines = []
        for key in sorted(data):
            value = data[key]
            if isinstance(value, (dict, list)) and value:
                lines += [f"{key}:", *(_indent(_yaml(value), "  ") if isinstance(value, dict) else _yaml(value))]
            else:
                lines.append(f"{key}: {_scalar(value)}")
        return lines
    if isinstance(data, list):
        return [line for item in data for line in _item(item)]
    return [_scalar(data)]


def _item(item: Any) -> list[str]:
    first, *rest = _yaml(item) or ["{}"]
    return [f"- {first}", *_indent(rest, "  ")]


def _indent(lines: list[str], by: str) -> list[str]:
    return [f"{by}{line}" for line in lines]


def _scalar(value: Any) -> str:
    if value is None:
        return "~"
    if value in ({}, []):
        return json.dumps(value)
    return "''" if value == "" else str(value)


def _table(data: Any) -> str:
    """An object as key and value, a list of objects with one column per key; frames as `pvesh` draws them."""
    if isinstance(data, dict):
        return _frame([["key", "value"], *([key, _cell(data[key])] for key in sorted(data))])
    if isinstance(data, list) and all(isinstance(row, dict) for row in data):
        keys = sorted({key for row in data for key in row})
        return _frame([keys, *([_cell(row.get(key, "")) for key in keys] for row in data)]) if data else ""
    return f"{data}\n"


def _cell(value: Any) -> str:
    return json.dumps(value, sort_keys=True, separators=(",", ":")) if isinstance(value, (dict, list)) else str(value)


def _frame(rows: list[list[str]]) -> str:
    widths = [max(len(row[column]) for row in rows) for column in range(len(rows[0]))]

    def rule(left: str, line: str, cross: str, right: str) -> str:
        return left + cross.join(line * (width + 2) for width in widths) + right

    lines = [rule("┌", "─", "┬", "┐")]
    for number, row in enumerate(rows):
        if number:
            lines.append(rule("╞", "═", "╪", "╡") if number == 1 else rule("├", "─", "┼", "┤"))
        lines.append("│" + "│".join(f" {text:<{width}} " for text, width in zip(row, widths, strict=True)) + "│")
    return "".join(f"{line}\n" for line in [*lines, rule("└", "─", "┴", "┘")])
