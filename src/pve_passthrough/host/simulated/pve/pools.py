"""Pools as far as guests enter and leave them: the `pool:` lines of /etc/pve/user.cfg.

1. Every other line of user.cfg is kept as it stands.
"""

from __future__ import annotations

from .node import Die, Node

USERS = "/etc/pve/user.cfg"


def _lines(node: Node) -> list[str]:
    return (node.world.text(USERS) or "").splitlines()


def members(node: Node) -> dict[str, list[str]]:
    """Pool → guest ids. A line is `pool:NAME:comment:ids:storages:`."""
    fields = [line.split(":") for line in _lines(node) if line.startswith("pool:")]
    return {parts[1]: [vmid for vmid in parts[3].split(",") if vmid] for parts in fields if len(parts) > 4}


def pool_of(node: Node, vmid: int) -> str | None:
    return next((name for name, ids in members(node).items() if str(vmid) in ids), None)


def require(node: Node, name: str) -> None:
    if name not in members(node):
        raise Die(f"no such pool '{name}'")


def move(node: Node, vmid: int, name: str | None) -> None:
    """Take a guest out of its pool and put it into another one, or none."""
    if pool_of(node, vmid) == name:
        return
    found = []
    for line in _lines(node):
        parts = line.split(":")
        if parts[0] == "pool" and len(parts) > 4:
            ids = {one for one in parts[3].split(",") if one and one != str(vmid)}
            ids |= {str(vmid)} if parts[1] == name else set()
            parts[3] = ",".join(sorted(ids, key=int))
        found.append(":".join(parts))
    node.write(USERS, "".join(f"{line}\n" for line in found))
