"""Who gets into a guest: proof in the service's own protocol, at the guest's own addresses."""

from __future__ import annotations

import json
import socket
import threading
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest

from pve_passthrough.guest.agent import Interface, Silence, interfaces_in
from pve_passthrough.guest.remote import SERVICES, Answer, ask, own_addresses
from pve_passthrough.host.base import Missing, Ran, Unreadable
from pve_passthrough.host.network import dial
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.model.vm import Vm

GUEST = Vm(100, "pve", {"net0": "virtio=BC:24:11:5A:01:00,bridge=vmbr0", "smbios1": "uuid=BC:24:11:5A:01:99"})
CONFIRMED = bytes.fromhex("030000130ed000001234000200080002000000")
KNOWN = {22: b"SSH-2.0-OpenSSH_9.2p1 Debian-2\r\n", 3389: CONFIRMED, 47989: b"HTTP/1.1 200 OK\r\n"}


class _Guest(Replay):
    def __init__(self, said: object) -> None:
        super().__init__(Answers(), "guest")
        self.said = said

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        return Ran(0, json.dumps(self.said))


def errors(answers: Sequence[Answer]) -> dict[int, str]:
    return {answer.port: answer.error for answer in answers}


def test_each_service_is_known_by_its_own_words() -> None:
    found = ask(lambda address, port, say, timeout: KNOWN[port], ["192.0.2.7"])
    assert errors(found) == {22: "", 3389: "", 47989: ""}


@pytest.mark.parametrize("said", [b"", b"\x03", b"220 mail ready\r\n", bytes(64), b"\x16\x03\x01\x02\x00\x01\x00"])
def test_somebody_else_is_no_proof(said: bytes) -> None:
    found = ask(lambda address, port, say, timeout: said, ["192.0.2.7"])
    assert all("it is not" in answer.error for answer in found)


def test_a_closed_port_and_silence_say_so() -> None:
    def closed(address: str, port: int, say: bytes, timeout: float) -> bytes:
        raise (Missing if port == 22 else Unreadable)(address, "closed" if port == 22 else "timed out")

    found = errors(ask(closed, ["192.0.2.7"]))
    assert (found[22], found[3389]) == ("closed", "timed out")


def test_only_addresses_of_the_guests_own_cards_count() -> None:
    interfaces = (
        Interface("lo", "00:00:00:00:00:00", ("127.0.0.1", "::1")),
        Interface("eth0", "bc:24:11:5a:01:00", ("192.0.2.10", "fe80::1", "2001:db8::5", "nonsense", "127.0.0.9")),
        Interface("docker0", "02:42:aa:bb:cc:dd", ("172.17.0.1",)),
        Interface("odd", "bc:24:11:5a:01:99", ("198.51.100.1",)),
    )
    assert own_addresses(GUEST, interfaces) == ("192.0.2.10", "2001:db8::5")
    many = Interface("eth0", "bc:24:11:5a:01:00", tuple(f"192.0.2.{n}" for n in range(1, 40)))
    assert len(own_addresses(GUEST, (many,))) == 8


def test_the_agents_list_is_read_defensively() -> None:
    good = [{"name": "eth0", "hardware-address": "bc:24:11:5a:01:00", "ip-addresses": [{"ip-address": "192.0.2.10"}]}]
    assert interfaces_in(_Guest(good), 100) == (Interface("eth0", "bc:24:11:5a:01:00", ("192.0.2.10",)),)
    strange = [7, {"name": ["x"] * 999, "ip-addresses": [None, {"ip-address": 5}, {"ip-address": "x" * 99}]}, {}]
    found = interfaces_in(_Guest(strange), 100)
    assert not isinstance(found, Silence)
    assert [one.addresses for one in found] == [(), ()] and all(len(one.name) <= 200 for one in found)
    assert interfaces_in(_Guest({"not": "a list"}), 100) == ()


@contextmanager
def listening(answer: bytes) -> Iterator[tuple[int, list[bytes]]]:
    """A server on loopback that answers one connection."""
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as server:

        def serve() -> None:
            connection, _ = server.accept()
            with connection:
                connection.settimeout(0.2)
                try:
                    heard.append(connection.recv(100))
                except TimeoutError:
                    heard.append(b"")
                connection.sendall(answer)

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        yield server.getsockname()[1], heard
        thread.join(5)


def test_a_real_connection_says_what_it_was_told_to_and_brings_the_answer() -> None:
    with listening(CONFIRMED) as (port, heard):
        assert dial("127.0.0.1", port, SERVICES[1].say, 3.0) == CONFIRMED
    assert heard == [SERVICES[1].say] and len(SERVICES[1].say) == SERVICES[1].say[3] == 19


def test_a_port_that_nobody_listens_on() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(Missing):
        dial("127.0.0.1", port, b"", 1.0)
