"""Can somebody get into the guest without its virtual display?

1. A service counts when it answers in its own protocol; an open port alone is no proof.
2. Only addresses of the network cards that Proxmox gave the guest are asked: a container bridge inside the guest may
   have an address that the host has, too, and then the host would answer.
3. The guest is not trusted: what it says is bounded, and only compared.
"""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Callable, Sequence

from ..host.base import HostError
from ..host.network import Dial
from ..model.value import dataclass
from ..model.vm import Vm
from .agent import Interface

PATIENCE = 3.0
"""Seconds for one service on one address."""
MOST_ADDRESSES = 8
_MAC = re.compile(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}")


@dataclass(frozen=True, slots=True)
class Service:
    """A way into a guest. `say` is sent first; `known` tells its answer from anybody else's."""

    name: str
    port: int
    say: bytes
    known: Callable[[bytes], bool]
    source: str


@dataclass(frozen=True, slots=True)
class Answer:
    """What became of one question: `error` empty when the service answered in its own protocol."""

    service: str
    address: str
    port: int
    error: str = ""


def _is_rdp(said: bytes) -> bool:
    """A TPKT packet (version 3) with an X.224 Connection Confirm (0xd0)."""
    return len(said) > 5 and said[0] == 3 and said[5] == 0xD0


_RDP_REQUEST = bytes.fromhex("030000130ee000000000000100080003000000")
"""TPKT of 19 bytes, X.224 Connection Request, and a negotiation request for TLS or CredSSP."""
SERVICES: tuple[Service, ...] = (
    Service("SSH", 22, b"", lambda said: said.startswith(b"SSH-"), "RFC 4253, section 4.2"),
    Service("RDP", 3389, _RDP_REQUEST, _is_rdp, "[MS-RDPBCGR] 2.2.1.1 and 2.2.1.2"),
    Service(
        "Sunshine (Moonlight)", 47989, b"GET /serverinfo HTTP/1.0\r\n\r\n", lambda said: said.startswith(b"HTTP/"),
        "Sunshine documentation: HTTP on its base port 47989",
    ),
)  # fmt: skip
"""Parsec is not among them: it talks UDP and only to its own clients, so nobody can see from here that it answers."""


def own_addresses(vm: Vm, interfaces: Sequence[Interface]) -> tuple[str, ...]:
    """Addresses of the guest's own network cards that can be reached from elsewhere, at most eight."""
    cards = {
        mac.lower() for key, value in vm.config.items() if re.fullmatch(r"net\d+", key) for mac in _MAC.findall(value)
    }
    found = (address for card in interfaces if card.mac.lower() in cards for address in card.addresses)
    return tuple(address for address in found if _reachable(address))[:MOST_ADDRESSES]


def _reachable(address: str) -> bool:
    try:
        known = ipaddress.ip_address(address)
    except ValueError:
        return False
    return not (known.is_loopback or known.is_link_local or known.is_multicast or known.is_unspecified)


def ask(dial: Dial, addresses: Sequence[str], services: Sequence[Service] = SERVICES) -> tuple[Answer, ...]:
    """Every service on every address."""
    return tuple(_ask(dial, address, service) for address in addresses for service in services)


def _ask(dial: Dial, address: str, service: Service) -> Answer:
    try:
        said = dial(address, service.port, service.say, PATIENCE)
    except HostError as error:
        return Answer(service.name, address, service.port, error.reason)
    wrong = "" if service.known(said) else f"somebody is there, but it is not {service.name}"
    return Answer(service.name, address, service.port, wrong)
