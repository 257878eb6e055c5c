"""The talk with an agent that is slow, dead, or still has old answers to give."""

from __future__ import annotations

import base64
import json
import socket
import threading
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from .agent import Agent, NoAgent
from .programs import LabError

_Answers = Callable[[dict[str, Any]], bytes]


def serve(path: Path, answers: _Answers) -> None:
    """One talk at a time, in a thread that ends with the test's process."""
    server = socket.socket(socket.AF_UNIX)
    server.bind(str(path))
    server.listen()

    def work() -> None:
        while True:
            talk, _ = server.accept()
            with talk, talk.makefile("rwb") as stream:
                for line in stream:
                    stream.write(answers(json.loads(line.lstrip(b"\xff"))))
                    stream.flush()

    threading.Thread(target=work, daemon=True).start()


def returned(value: Any) -> bytes:
    return json.dumps({"return": value}).encode() + b"\n"


@pytest.fixture
def agent(tmp_path: Path) -> Iterator[Agent]:
    made = Agent(tmp_path / "agent")
    yield made
    made.close()


def synced(asked: dict[str, Any]) -> bytes | None:
    """What every agent answers to the first question, behind an answer that nobody waits for any more."""
    if asked["execute"] != "guest-sync-delimited":
        return None
    return returned({"pid": 1}) + b"\xff" + returned(asked["arguments"]["id"])


def test_old_answers_are_dropped_and_a_program_is_waited_for(tmp_path: Path, agent: Agent) -> None:
    asked_for: list[str] = []

    def answers(asked: dict[str, Any]) -> bytes:
        asked_for.append(asked["execute"])
        if (first := synced(asked)) is not None:
            return first
        if asked["execute"] == "guest-exec":
            return returned({"pid": 7})
        done = asked_for.count("guest-exec-status") > 1
        out = base64.b64encode(b"lab\n").decode()
        return returned({"exited": True, "exitcode": 3, "out-data": out} if done else {"exited": False})

    serve(tmp_path / "agent", answers)
    said = agent.run(("/bin/hostname",))
    assert (said.rc, said.out, said.err) == (3, "lab\n", "")


def test_a_refusal_is_told_in_the_agents_words(tmp_path: Path, agent: Agent) -> None:
    serve(tmp_path / "agent", lambda asked: synced(asked) or b'{"error": {"desc": "no such program"}}\n')
    with pytest.raises(LabError, match="no such program"):
        agent.begin(("/bin/none",))


def test_silence_ends_in_time(tmp_path: Path, agent: Agent) -> None:
    serve(tmp_path / "agent", lambda asked: b"")
    assert not agent.alive(0.2)
    with pytest.raises(NoAgent):
        agent.ask("guest-ping", seconds=0.2)


def test_no_socket_is_no_agent(tmp_path: Path, agent: Agent) -> None:
    assert not agent.alive(0.2)


def test_a_program_that_does_not_end_is_given_up(tmp_path: Path, agent: Agent) -> None:
    serve(tmp_path / "agent", lambda asked: synced(asked) or returned({"pid": 7, "exited": False}))
    with pytest.raises(LabError, match="did not end within 0 s"):
        agent.run(("/bin/sleep", "9"), seconds=0.2)
