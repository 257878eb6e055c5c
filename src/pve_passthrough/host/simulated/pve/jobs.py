"""Backup jobs, listed, and left by a destroyed guest: sections of /etc/pve/jobs.cfg.

1. A job is told apart by its id; when it runs next is nobody's business here, so `next-run` is left out.
"""

from __future__ import annotations

from typing import Any

from .arguments import failed
from .node import Node
from .sections import Section, parse_sections, render_sections

JOBS = "/etc/pve/jobs.cfg"
_NUMBERS = ("enabled", "all", "remove", "protected")


def jobs(node: Node) -> list[Section]:
    found = parse_sections(node.world.text(JOBS) or "")
    return [section for section in found if section.type == "vzdump"]


def leave(node: Node, vmid: int) -> None:
    """A guest that is purged leaves every job; a job that was for it alone is gone."""
    text = node.world.text(JOBS)
    if text is None:
        return
    kept = []
    for job in parse_sections(text):
        had = "vmid" in job.values
        for key in ("vmid", "exclude"):
            ids = [one for one in job.values.pop(key, "").split(",") if one and one != str(vmid)]
            job.values |= {key: ",".join(ids)} if ids else {}
        kept += [job] if "vmid" in job.values or not had else []
    node.write(JOBS, render_sections(kept))


def _item(section: Section) -> dict[str, Any]:
    values: dict[str, Any] = dict(section.values)
    for key in _NUMBERS:
        if key in values:
            values[key] = int(values[key])
    if "prune-backups" in values:
        values["prune-backups"] = dict(part.split("=", 1) for part in values["prune-backups"].split(",") if "=" in part)
    return {**values, "id": section.name, "type": "vzdump"}


def listed(node: Node) -> list[dict[str, Any]]:
    return [_item(section) for section in jobs(node)]


def shown(node: Node, name: str, usage: str) -> dict[str, Any]:
    for section in jobs(node):
        if section.name == name:
            return _item(section)
    raise failed({"id": f"No such job '{name}'"}, usage)
