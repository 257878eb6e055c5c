"""One connection over TCP: what does somebody say who is said something?

1. Nothing is kept open, nothing is retried; the answer is bounded and trusted by nobody.
"""

from __future__ import annotations

import socket
from collections.abc import Callable

from .base import Missing, Unreadable

ANSWER_LIMIT = 4096
"""Bytes."""

Dial = Callable[[str, int, bytes, float], bytes]
"""(IP address, port, what is said first, seconds) -> what comes back first, perhaps nothing. Raises Missing when the
port is closed, Unreadable when nobody answers."""


def dial(address: str, port: int, say: bytes, timeout: float) -> bytes:
    """See `Dial`; from this machine."""
    where = f"{address} port {port}"
    try:
        with socket.create_connection((address, port), timeout) as connection:
            if say:
                connection.sendall(say)
            return connection.recv(ANSWER_LIMIT)
    except ConnectionRefusedError as error:
        raise Missing(where, "the port is closed") from error
    except OSError as error:
        raise Unreadable(where, error.strerror or str(error) or "no answer in time") from error
