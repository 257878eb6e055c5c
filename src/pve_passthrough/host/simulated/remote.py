"""Connections over TCP to the guests of a simulated machine.

1. Who has the address and listens is machine.json's `guests` (see pve/agent.py); only a running guest answers.
2. As in a real network, an address that nobody has is silence, and a port that nobody listens on is refused.
"""

from __future__ import annotations

from ..base import Missing, Unreadable
from .world import World


def dial(world: World, address: str, port: int, say: bytes, timeout: float) -> bytes:
    """See host.network.Dial."""
    where = f"{address} port {port}"
    for vmid, guest in world.machine().get("guests", {}).items():
        if address in guest.get("addresses", []) and world.exists(f"/run/qemu-server/{vmid}.pid"):
            answer = guest.get("listens", {}).get(str(port))
            if answer is None:
                raise Missing(where, "the port is closed")
            return str(answer).encode("latin-1", "replace")
    raise Unreadable(where, "timed out")
