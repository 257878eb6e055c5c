"""The guest agent inside a lab host: run programs, read and write files.

Source of the protocol: QEMU's qga/qapi-schema.json. `guest-sync-delimited` drops what an earlier, broken talk left in
the channel; it begins its answer with the byte 0xFF.
"""

from __future__ import annotations

import base64
import json
import socket
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from .programs import LabError

_POLL_SECONDS = 0.1


@dataclass(frozen=True, slots=True)
class Said:
    """How a program in the lab host ended."""

    rc: int
    out: str
    err: str

    @property
    def text(self) -> str:
        return self.out + self.err


class NoAgent(LabError):
    """The agent does not answer (now)."""


class Agent:
    """One talk over the agent's socket. `ask` opens it when it is needed; after an error it is opened anew."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._socket: socket.socket | None = None
        self._rest = b""

    def close(self) -> None:
        if self._socket is not None:
            self._socket.close()
        self._socket, self._rest = None, b""

    def alive(self, seconds: float = 3.0) -> bool:
        """Does the agent answer now? Opens a new talk."""
        self.close()
        try:
            self._open(seconds)
        except NoAgent:
            return False
        return True

    def ask(self, command: str, seconds: float = 30.0, **arguments: Any) -> Any:
        """The agent's answer. Raises NoAgent, or LabError with what the agent refused."""
        if self._socket is None:
            self._open(seconds)
        self._send(command, arguments)
        answer = json.loads(self._line(seconds))
        if "error" in answer:
            raise LabError(f"the agent refused {command}: {answer['error'].get('desc')}")
        return answer["return"]

    def run(self, argv: Sequence[str], seconds: float = 120.0, stdin: bytes = b"") -> Said:
        """A program's end. Raises LabError when it takes longer than `seconds`."""
        pid = self.begin(argv, stdin)
        until = time.monotonic() + seconds
        while (said := self.ended(pid)) is None:
            if time.monotonic() > until:
                raise LabError(f"{' '.join(argv)[:200]} did not end within {seconds:.0f} s in the lab host")
            time.sleep(_POLL_SECONDS)
        return said

    def ended(self, pid: int) -> Said | None:
        """How a program that was begun has ended; None while it runs. The agent tells it once."""
        state = self.ask("guest-exec-status", pid=pid)
        if not state["exited"]:
            return None
        return Said(
            int(state.get("exitcode", 128 + int(state.get("signal", 0)))),
            base64.b64decode(state.get("out-data", "")).decode(errors="replace"),
            base64.b64decode(state.get("err-data", "")).decode(errors="replace"),
        )

    def begin(self, argv: Sequence[str], stdin: bytes = b"") -> int:
        """Start a program and do not wait for it; its process id."""
        environment = ["PATH=/usr/sbin:/usr/bin:/sbin:/bin", "HOME=/root", "LC_ALL=C.UTF-8"]
        command: dict[str, Any] = {"path": argv[0], "arg": list(argv[1:]), "env": environment, "capture-output": True}
        if stdin:
            command["input-data"] = base64.b64encode(stdin).decode()
        return int(self.ask("guest-exec", **command)["pid"])

    def _open(self, seconds: float) -> None:
        token = time.monotonic_ns() & 0x7FFFFFFF
        try:
            self._socket = socket.socket(socket.AF_UNIX)
            self._socket.settimeout(seconds)
            self._socket.connect(str(self._path))
            self._socket.sendall(b"\xff")
            self._send("guest-sync-delimited", {"id": token})
            self._line(seconds, after=b"\xff", holding=str(token).encode())
        except (OSError, NoAgent) as error:
            self.close()
            raise NoAgent(f"the agent in the lab host does not answer: {error}") from None

    def _send(self, command: str, arguments: dict[str, Any]) -> None:
        assert self._socket is not None
        message = {"execute": command, "arguments": arguments} if arguments else {"execute": command}
        try:
            self._socket.sendall(json.dumps(message).encode() + b"\n")
        except OSError as error:
            self.close()
            raise NoAgent(str(error)) from None

    def _line(self, seconds: float, after: bytes = b"", holding: bytes = b"") -> bytes:
        """The next line; with `holding` the next that starts behind `after` and holds that word."""
        assert self._socket is not None
        until = time.monotonic() + seconds
        while True:
            line, found, self._rest = self._rest.partition(b"\n")
            if found:
                if holding not in line:
                    continue
                return line.rpartition(after)[2] if after else line
            self._rest = line
            self._socket.settimeout(max(0.05, until - time.monotonic()))
            try:
                more = self._socket.recv(1 << 20)
            except OSError as error:
                self.close()
                raise NoAgent(f"no answer within {seconds:.0f} s ({error})") from None
            if not more:
                self.close()
                raise NoAgent("the talk was ended")
            self._rest += more
