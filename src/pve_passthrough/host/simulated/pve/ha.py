"""High availability as far as starts and removals ask about it: /etc/pve/ha/resources.cfg.

1. No manager runs here: a request changes the file, nothing else happens by itself.
"""

from __future__ import annotations

from typing import Any

from .node import Die, Node, sha1
from .sections import Section, parse_sections, render_sections

RESOURCES = "/etc/pve/ha/resources.cfg"
RULES = "/etc/pve/ha/rules.cfg"
STATES = ("started", "stopped", "enabled", "disabled", "ignored")


def resources(node: Node) -> list[Section]:
    return parse_sections(node.world.text(RESOURCES) or "")


def resource(node: Node, vmid: int) -> Section | None:
    return next((found for found in resources(node) if found.type == "vm" and found.name == str(vmid)), None)


def managed(node: Node, vmid: int) -> bool:
    """Whether HA starts and stops the guest; a resource in state `ignored` is left alone."""
    found = resource(node, vmid)
    return found is not None and found.values.get("state") != "ignored"


def save(node: Node, found: list[Section]) -> None:
    node.write(RESOURCES, render_sections(sorted(found, key=lambda section: int(section.name))))


def set_values(node: Node, vmid: int, values: dict[str, str]) -> None:
    found = resources(node)
    section = next((section for section in found if section.name == str(vmid)), None)
    if section is None:
        raise Die(f"no such resource 'vm:{vmid}'", 2)
    section.values |= values
    save(node, found)


def add(node: Node, vmid: int, values: dict[str, str], exists: bool) -> None:
    if not exists:
        raise Die(f"resource 'vm:{vmid}' does not exist in cluster", 17)
    if resource(node, vmid) is not None:
        raise Die(f"create resource failed: resource ID 'vm:{vmid}' already defined")
    save(node, [*resources(node), Section(str(vmid), "vm", values)])


def remove(node: Node, vmid: int) -> bool:
    """Whether there was something to remove."""
    found = resources(node)
    kept = [section for section in found if section.name != str(vmid)]
    if len(kept) != len(found):
        save(node, kept)
        _leave_rules(node, f"vm:{vmid}")
    return len(kept) != len(found)


def _leave_rules(node: Node, sid: str) -> None:
    """A rule loses the resource; one that would have none is gone (recorded row `ha`)."""
    text = node.world.text(RULES)
    if text is None:
        return
    kept = []
    for rule in parse_sections(text):
        ids = rule.values.get("resources", "").split(",")
        rule.values["resources"] = ",".join(one for one in ids if one != sid)
        kept += [rule] if rule.values["resources"] else []
    node.write(RULES, render_sections(kept))


def item(node: Node, section: Section) -> dict[str, Any]:
    values: dict[str, Any] = dict(section.values)
    for number in ("max_restart", "max_relocate"):
        if number in values:
            values[number] = int(values[number])
    digest = sha1(node.world.text(RESOURCES) or "")
    return {**values, "digest": digest, "sid": f"{section.type}:{section.name}", "type": section.type}
