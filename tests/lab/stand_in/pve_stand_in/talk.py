"""Talks with a running guest: QEMU's monitor and the guest's agent, one JSON object a line over a UNIX socket.

1. Every talk is opened, bounded in time and closed again: the agent's port serves one talker at a time.
2. An answer is data from a guest: it is parsed and bounded, never believed further than its form.
Source: QEMU's docs/interop/qmp-spec (greeting, qmp_capabilities, events between the answers) and qga/qapi-schema.json
(guest-sync-delimited, whose answer begins with the byte 0xFF).
"""

from __future__ import annotations

import json
import socket
import time
from typing import Any

LIMIT = 64 << 20


class Silence(Exception):
    """Nobody answered (in time), or not in the protocol's form."""


class Refusal(Exception):
    """The other side's own words for what it did not do."""


class _Line:
    """A socket as lines, all within `seconds` from now."""

    def __init__(self, path: str, seconds: float) -> None:
        self._until = time.monotonic() + seconds
        self._rest = b""
        self._socket = socket.socket(socket.AF_UNIX)
        try:
            self._wait()
            self._socket.connect(path)
        except OSError as error:
            self._socket.close()
            raise Silence(str(error)) from None

    def __enter__(self) -> _Line:
        return self

    def __exit__(self, *_: object) -> None:
        self._socket.close()

    def send(self, data: bytes) -> None:
        try:
            self._wait()
            self._socket.sendall(data)
        except OSError as error:
            raise Silence(str(error)) from None

    def line(self) -> bytes:
        """The next line without its end. Raises Silence."""
        while b"\n" not in self._rest:
            try:
                self._wait()
                more = self._socket.recv(1 << 16)
            except OSError as error:
                raise Silence(str(error)) from None
            if not more or len(self._rest) > LIMIT:
                raise Silence("the talk was ended" if not more else "too long an answer")
            self._rest += more
        line, _, self._rest = self._rest.partition(b"\n")
        return line

    def _wait(self) -> None:
        left = self._until - time.monotonic()
        if left <= 0:
            raise TimeoutError("timed out")
        self._socket.settimeout(left)


def _message(command: str, arguments: dict[str, Any]) -> bytes:
    return json.dumps({"execute": command, **({"arguments": arguments} if arguments else {})}).encode() + b"\n"


def _returned(line: bytes) -> Any:
    """The `return` of an answer. Raises Refusal, or Silence when it is none."""
    try:
        answer = json.loads(line)
    except (ValueError, RecursionError):
        raise Silence("an answer that is no JSON") from None
    if not isinstance(answer, dict) or not answer.keys() & {"return", "error"}:
        raise Silence("an answer of another form")
    if "error" in answer:
        error = answer["error"]
        raise Refusal(str(error.get("desc", error)) if isinstance(error, dict) else str(error))
    return answer["return"]


def monitor(path: str, command: str, seconds: float = 10.0, /, **arguments: Any) -> Any:
    """A QMP command's answer. Raises Silence, Refusal."""
    with _Line(path, seconds) as line:
        line.line()  # the greeting
        for message in (_message("qmp_capabilities", {}), _message(command, arguments)):
            line.send(message)
            said = line.line()
            while b'"event"' in said and b'"return"' not in said:
                said = line.line()
            answer = _returned(said)
        return answer


def agent(path: str, command: str, arguments: dict[str, Any], seconds: float = 10.0, silent: bool = False) -> Any:
    """An agent command's answer; with `silent` none is awaited. Raises Silence, Refusal."""
    token = time.monotonic_ns() & 0x7FFFFFFF
    with _Line(path, seconds) as line:
        line.send(b"\xff" + _message("guest-sync-delimited", {"id": token}))
        while str(token).encode() not in line.line().rpartition(b"\xff")[2]:
            pass
        line.send(_message(command, arguments))
        return None if silent else _returned(line.line())
