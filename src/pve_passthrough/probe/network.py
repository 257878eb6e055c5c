"""Which PCI functions carry networks that the host needs: management, cluster links, bridges.

1. Management is an interface with a default route, or one that carries an address of this host.
   Vital are those with a default route or with the node's own address; where neither is known, all of them.
2. A virtual interface is followed down (bridge ports, bond members, VLAN links, Open vSwitch) to network cards.
3. What is not understood is a gap about `uses.network`; then the network is not fully known.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from ..model.facts import UseKind
from ..model.pci import Address
from .asking import Asking
from .paths import answered, functions_behind, plain, target

ABOUT = "uses.network"
NET = "/sys/class/net"
MOST_INTERFACES = 8192
DEEPEST = 16
_REJECT = 0x0200
"""RTF_REJECT in the flags of a route (kernel: include/uapi/linux/route.h)."""
_OF_GUESTS = ("tap", "veth", "fwbr", "fwpr", "fwln")
"""Made by Proxmox for guests; a network card is never below them."""
_OVS_BRIDGE = re.compile(r"(?m)^\s*iface\s+(\S+)\s.*(?:\n[ \t]+.*)*?\n[ \t]+ovs_type[ \t]+OVSBridge[ \t]*$")
_NETWORK_FILES = frozenset({"nfs", "nfs4", "cifs", "smb3"})
_RING = re.compile(r"(?:ring|link)\d_addr\s*:\s*(\S+)")


class Net(NamedTuple):
    """One reason why the host needs a function."""

    address: Address
    kind: UseKind
    detail: str
    vital: bool
    path: str = ""
    """The network card's own path in sysfs."""


class Configured(NamedTuple):
    """Addresses in /etc/network/interfaces: (interface, address without its prefix length)."""

    interface: str
    address: str


def networks(ask: Asking, node: str | None) -> tuple[list[Net], bool]:
    """(what was found, whether everything was understood)."""
    walk = _Walk(ask)
    if not walk.names:
        walk.doubt(f"there is no {NET} to look into")
        return [], False
    found = [*_management(walk, node), *_cluster(walk, node), *_storage(walk), *_bridges(walk)]
    return found, walk.certain


class _Walk:
    """The network interfaces of one host, followed down to network cards."""

    def __init__(self, ask: Asking) -> None:
        self.ask = ask
        self.certain = True
        names = ask.names(NET, ABOUT) or ()
        if len(names) > MOST_INTERFACES:
            self.doubt(f"more than {MOST_INTERFACES} interfaces")
        self.names = tuple(name for name in names[:MOST_INTERFACES] if plain(name))
        self.addresses = tuple(configured(_interfaces_text(ask)))
        self.routes = tuple(_routes(ask))
        self._paths: dict[str, str] = {}
        self._others: dict[str, str] | None = None

    def doubt(self, reason: str, place: str = "") -> None:
        self.certain = False
        self.ask.gap(ABOUT, reason, place)

    def real(self, name: str) -> str:
        """The name that sysfs has, for one that may be an alternative name; what is neither stays as it is.

        Sysfs does not show alternative names, so `ip` is asked, and only where a name is not there (ip-link(8)).
        """
        if name in self.names or not plain(name):
            return name
        if self._others is None:
            ran = self.ask.run(("ip", "-json", "link", "show"), ABOUT, 15.0)
            self._others = alternative_names(ran.stdout) if ran is not None and ran.ok else {}
        return self._others.get(name, name)

    def path(self, name: str) -> str:
        """sysfs path of an interface; its `device` link where the interface is no link itself."""
        if name not in self._paths:
            text = target(self.ask, f"{NET}/{name}")
            self._paths[name] = text if text is not None else target(self.ask, f"{NET}/{name}/device") or ""
        return self._paths[name]

    def cards(self, name: str) -> tuple[str, ...]:
        """Names of the interfaces with hardware below `name`, itself included."""
        return tuple(dict.fromkeys(self._down(name, DEEPEST, set())))

    def _down(self, name: str, depth: int, seen: set[str]) -> Iterator[str]:
        if name in seen or name not in self.names:
            return
        seen.add(name)
        path = self.path(name)
        if path and (functions_behind(path) or "/virtual/" not in path):
            yield name
        elif depth == 0:
            self.doubt("stacked too deep", name)
        else:
            for lower in self._lowers(name):
                yield from self._down(lower, depth - 1, seen)

    def _lowers(self, name: str) -> tuple[str, ...]:
        """Bridge ports and all `lower_*` links (kernel: net/core/dev.c, for bridges, bonds and VLANs alike)."""
        entries = self.ask.names(f"{NET}/{name}", ABOUT) or ()
        found = [entry.removeprefix("lower_") for entry in entries if entry.startswith("lower_")]
        if "brif" in entries:
            found += self.ask.names(f"{NET}/{name}/brif", ABOUT) or ()
        if "bonding" in entries:
            found += (self.ask.text(f"{NET}/{name}/bonding/slaves", ABOUT) or "").split()
        if not found and "." in name and (parent := name.rpartition(".")[0]) in self.names:
            found = [parent]  # a VLAN by its name, where the tree has no links
        if not found and "ovs-system" in self.names and name != "ovs-system":
            found = ["ovs-system"]  # ports of Open vSwitch hang on its datapath, not on the bridge
        return tuple(dict.fromkeys(found))


def _needs(walk: _Walk, name: str, kind: UseKind, why: str, vital: bool) -> Iterator[Net]:
    cards = walk.cards(name)
    if not cards:
        walk.doubt("leads to no network card", name)
    for card in cards:
        chain = card if card == name else f"{name} ← {card}"
        for address in functions_behind(walk.path(card)):
            yield Net(address, kind, f"{chain} ({why})" if why else chain, vital, walk.path(card))


# -- management -------------------------------------------------------------------------------


def alternative_names(text: str) -> dict[str, str]:
    """Interface by alternative name, from what `ip -json link show` prints; nothing from what is no such text."""
    try:
        rows = json.loads(text)
        return {str(other): str(row["ifname"]) for row in rows for other in row.get("altnames", ())}
    except (ValueError, LookupError, TypeError, AttributeError, RecursionError):
        return {}


def _management(walk: _Walk, node: str | None) -> Iterator[Net]:
    reasons: dict[str, str] = {}
    vital: set[str] = set()
    own = _own_addresses(walk.ask, node)
    for listed, address in walk.addresses:
        name = walk.real(listed)
        reasons[name] = address
        if address in own:
            vital.add(name)
    for route in walk.routes:
        if route.default:
            reasons[route.interface] = "default route"
            vital.add(route.interface)
    if not reasons:
        walk.doubt("no interface with a default route or an address was found")
    for name, why in reasons.items():
        if name not in walk.names:
            walk.doubt("has an address or a route, but is not there", name)
            continue
        yield from _needs(walk, name, UseKind.MANAGEMENT_NET, why, name in vital or not vital)


def _own_addresses(ask: Asking, node: str | None) -> frozenset[str]:
    """What /etc/hosts gives for the node's name: Proxmox' own idea of the node's address (PVE::Cluster)."""
    found = set()
    for line in (ask.text("/etc/hosts") or "").splitlines():
        words = line.partition("#")[0].split()
        if node and any(word.partition(".")[0] == node for word in words[1:]):
            found.add(words[0].lower())
    return frozenset(found)


def _interfaces_text(ask: Asking) -> str:
    """/etc/network/interfaces and everything in interfaces.d, where Proxmox' software-defined networks stand."""
    texts = [ask.text("/etc/network/interfaces", ABOUT) or ""]
    for name in (ask.names("/etc/network/interfaces.d") or ())[:64]:
        if plain(name):
            texts.append(ask.text(f"/etc/network/interfaces.d/{name}", ABOUT) or "")
    return "\n".join(texts)


def configured(text: str) -> Iterator[Configured]:
    """Addresses by interface, from interfaces(5): `iface NAME …` and the indented `address` below it."""
    name = ""
    for line in text.splitlines():
        words = line.split()
        if not words or words[0].startswith("#"):
            continue
        if words[0] == "iface" and len(words) > 1:
            name = words[1].partition(":")[0]  # `eno1:1` is one more address of eno1
        elif words[0] in ("auto", "allow-hotplug", "mapping", "source", "source-directory"):
            name = ""
        elif words[0] == "address" and len(words) > 1 and name not in ("", "lo"):
            yield Configured(name, words[1].partition("/")[0].lower())


class Route(NamedTuple):
    """One route of the running host; `network` and `mask` are IPv4 numbers, 0 for IPv6."""

    interface: str
    default: bool
    network: int = 0
    mask: int = 0


def _routes(ask: Asking) -> Iterator[Route]:
    known, text = answered(ask, "/proc/net/route", ABOUT)
    if known and text is None:
        ask.gap(ABOUT, "there is no /proc/net/route")
    for row in (text or "").splitlines()[1:]:
        yield from _route4(row.split())
    for row in (ask.text("/proc/net/ipv6_route", ABOUT) or "").splitlines():
        yield from _route6(row.split())


def _route4(words: list[str]) -> Iterator[Route]:
    """`IFACE DESTINATION GATEWAY FLAGS REFCNT USE METRIC MASK …`, addresses as little-endian hexadecimal words."""
    try:
        network, flags, mask = _swapped(words[1]), int(words[3], 16), _swapped(words[7])
    except (IndexError, ValueError):
        return
    if not flags & _REJECT:
        yield Route(words[0], network == 0 and mask == 0, network, mask)


def _swapped(text: str) -> int:
    return int.from_bytes(bytes.fromhex(text)[:4][::-1], "big")


def _route6(words: list[str]) -> Iterator[Route]:
    """`DESTINATION LENGTH SOURCE LENGTH GATEWAY METRIC REFCNT USE FLAGS IFACE`."""
    try:
        default = int(words[0], 16) == 0 and int(words[1], 16) == 0 and not int(words[8], 16) & _REJECT
    except (IndexError, ValueError):
        return
    if default and words[-1] != "lo":
        yield Route(words[-1], True)


# -- cluster ----------------------------------------------------------------------------------


def _cluster(walk: _Walk, node: str | None) -> Iterator[Net]:
    known, text = answered(walk.ask, "/etc/pve/corosync.conf", ABOUT)
    if text is None:
        walk.certain = walk.certain and known
        return
    links = corosync_links(text, node or "")
    if not links:
        walk.doubt("corosync.conf names no link of this node")
    for address in links:
        found = _carrier(walk, address)
        name = None if found is None else walk.real(found)
        if name is None:
            walk.doubt("no interface carries this cluster link", address)
        else:
            yield from _needs(walk, name, UseKind.CLUSTER_NET, f"cluster link {address}", True)


def corosync_links(text: str, node: str) -> tuple[str, ...]:
    """Addresses of `node`'s links: `ring0_addr` … in its `node { … }` block (corosync.conf(5))."""
    for block in re.findall(r"\bnode\s*\{([^{}]*)\}", text):
        named = re.search(r"^\s*name\s*:\s*(\S+)", block, re.MULTILINE)
        if named is not None and named.group(1) == node:
            return tuple(dict.fromkeys(address.lower() for address in _RING.findall(block)))
    return ()


def _carrier(walk: _Walk, address: str) -> str | None:
    """The interface that has `address`: by configuration, else the directly connected network that contains it."""
    addresses = {address, *_addresses_of(walk.ask, address)}
    for entry in walk.addresses:
        if entry.address in addresses:
            return entry.interface
    for text in addresses:
        number = _ipv4(text)
        for route in walk.routes if number is not None else ():
            if route.mask and number is not None and number & route.mask == route.network:
                return route.interface
    return None


def _addresses_of(ask: Asking, name: str) -> tuple[str, ...]:
    """What /etc/hosts gives for a host name."""
    rows = (line.partition("#")[0].split() for line in (ask.text("/etc/hosts") or "").splitlines())
    return tuple(words[0].lower() for words in rows if name in (word.lower() for word in words[1:]))


def _ipv4(text: str) -> int | None:
    parts = text.split(".")
    if len(parts) != 4 or not all(part.isascii() and part.isdigit() and len(part) <= 3 for part in parts):
        return None
    numbers = [int(part) for part in parts]
    return int.from_bytes(bytes(numbers), "big") if max(numbers) < 256 else None


# -- storage ----------------------------------------------------------------------------------


def _storage(walk: _Walk) -> Iterator[Net]:
    """Cards that lead to mounted network file systems and to iSCSI targets; a root there is vital."""
    for address, why, vital in dict.fromkeys(_servers(walk.ask)):
        default = next((route.interface for route in walk.routes if route.default), None)
        name = _carrier(walk, address) or default
        if name is None:
            walk.doubt("no interface leads to this storage", address)
        elif not address.startswith("127.") and address != "::1":
            yield from _needs(walk, walk.real(name), UseKind.STORAGE_NET, why, vital)


def _servers(ask: Asking) -> Iterator[tuple[str, str, bool]]:
    """(address, what it is needed for, vital): `addr=` of NFS and SMB mounts (nfs(5), mount.cifs(8)), and the targets
    of iSCSI connections (kernel: drivers/scsi/scsi_transport_iscsi.c, persistent_address)."""
    for line in (ask.text("/proc/mounts", ABOUT) or "").splitlines():
        words = line.split()
        if len(words) > 3 and words[2] in _NETWORK_FILES:
            addresses = [word.removeprefix("addr=") for word in words[3].split(",") if word.startswith("addr=")]
            for address in addresses[-1:]:
                yield address.lower(), f"{words[2]} at {words[1]} from {address}", words[1] == "/"
    for name in (ask.names("/sys/class/iscsi_connection") or ())[:256]:
        if plain(name):
            path = f"/sys/class/iscsi_connection/{name}/persistent_address"
            if (text := ask.trimmed(path, ABOUT)) and text != "(null)":
                yield text.lower(), f"iSCSI from {text}", False


# -- bridges ----------------------------------------------------------------------------------


def _bridges(walk: _Walk) -> Iterator[Net]:
    """Cards that are ports of a bridge: guests lose their network with them, the host itself may not."""
    for name in walk.names:
        if name == "lo" or name.startswith(_OF_GUESTS) or "/virtual/" not in walk.path(name):
            continue
        entries = walk.ask.names(f"{NET}/{name}", ABOUT) or ()
        if "bridge" not in entries and "brif" not in entries and name != "ovs-system":
            continue
        for card in walk.cards(name):
            for address in functions_behind(walk.path(card)):
                yield Net(address, UseKind.BRIDGE_NET, f"{name} ← {card}", False)


def probe_bridges(ask: Asking) -> tuple[str, ...] | None:
    """Bridges that a guest's network card can hang on. A Linux bridge has a `bridge` directory (kernel:
    net/bridge/br_sysfs_br.c); one of Open vSwitch is told by its line in interfaces(5) and by being there."""
    names = ask.names(NET, "bridges")
    if names is None:
        ask.gap("bridges", f"there is no {NET} to look into")
        return None
    ours = [name for name in names[:MOST_INTERFACES] if plain(name) and not name.startswith((*_OF_GUESTS, "lo"))]
    found = {name for name in ours if _is_virtual(ask, name) and "bridge" in (ask.names(f"{NET}/{name}") or ())}
    if "ovs-system" in names:
        found |= set(_OVS_BRIDGE.findall(_interfaces_text(ask))) & set(ours)
    return tuple(sorted(found))


def _is_virtual(ask: Asking, name: str) -> bool:
    return "/virtual/" in (target(ask, f"{NET}/{name}") or "")
