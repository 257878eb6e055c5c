"""Virtual functions of a physical one: how many there are, and what the physical function lets each of them do.

1. Values and text only. The same text is the content of the cell `sriov:ADDRESS` and, between two lines of ours, the
   file that a start reads; so what was planned, what is and what a start makes are compared as one thing.
2. A setting that a text does not name is not wished: it fits whatever there is.
3. Text from a file or a program is not trusted: what is not of this form is a ValueError.
"""

from __future__ import annotations

import re

from .pci import Address
from .value import dataclass

MOST = 65535
"""The capability counts virtual functions with 16 bits."""
NO_MAC = "00:00:00:00:00:00"
"""What drivers show for a virtual function that nobody gave an address: its guest makes one up at each start."""

_MAC = re.compile(r"[0-9a-f]{2}(:[0-9a-f]{2}){5}")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")
_SWITCH = {True: "on", False: "off"}
_LINKS = ("auto", "enable", "disable")
HEAD = "# Written by pve-passthrough: virtual functions that are made again at every start."
END = "end"


@dataclass(frozen=True, slots=True)
class VfSettings:
    """What the physical function enforces for one virtual function; None: not said."""

    mac: str | None = None
    vlan: int | None = None
    """0: untagged, the guest may use any."""
    trust: bool | None = None
    spoofcheck: bool | None = None
    link: str | None = None
    held: bool | None = None
    """Only vfio-pci may have it (driver_override), so that no driver of the host takes it."""

    def named(self) -> dict[str, str]:
        """The settings that are said, as words."""
        return {
            name: _SWITCH[value] if isinstance(value, bool) else str(value)
            for name in VfSettings.__slots__
            if (value := getattr(self, name)) is not None
        }


@dataclass(frozen=True, slots=True)
class SriovState:
    """All virtual functions of one physical function. `vfs`: settings by index, as far as they are said.

    id         vendor:device of the physical function; empty: nobody said
    autoprobe  whether drivers may take its virtual functions at all; None: nobody said. Where it is off, not even
               Proxmox VE can hand them to vfio-pci: its way, new_id and bind, is answered ENODEV (kernel:
               drivers/pci/pci-driver.c, pci_device_can_probe)
    """

    count: int
    id: str = ""
    autoprobe: bool | None = None
    vfs: tuple[VfSettings, ...] = ()


@dataclass(frozen=True, slots=True)
class PhysicalFunction:
    """One function that can have virtual ones, as a closer look found it.

    text        content of its cell now; None: nobody could say
    vf_product  product number of its virtual functions
    interface   its network interface; empty: it has none
    unit        `enabled` or `disabled`: the unit that makes its virtual functions at a start; None: nobody could say
    unit_text   that unit's text, None when it is not there
    """

    address: Address
    text: str | None = None
    vf_product: int | None = None
    offset: int | None = None
    stride: int | None = None
    interface: str = ""
    unit: str | None = None
    unit_text: str | None = None
    limit: str | None = None
    """The driver's module parameter `max_vfs`; None: it has none."""
    placed: bool | None = None
    """Whether the kernel found addresses for the memory of the virtual functions; None: nobody could say."""

    @property
    def state(self) -> SriovState | None:
        return None if self.text is None else parse_state(self.text)


# -- text ----------------------------------------------------------------------------------------


def state_text(state: SriovState) -> str:
    """The canonical text; the inverse of `parse_state`."""
    lines = [f"device {state.id}"] if state.id else []
    lines.append(f"vfs {state.count}")
    if state.autoprobe is not None:
        lines.append(f"autoprobe {_SWITCH[state.autoprobe]}")
    for index, one in enumerate(state.vfs):
        words = " ".join(f"{name}={word}" for name, word in one.named().items())
        if words:
            lines.append(f"vf {index} {words}")
    return "\n".join(lines)


def parse_state(text: str) -> SriovState:
    """Raises ValueError for anything that `state_text` would not write."""
    identity, count, autoprobe = "", None, None
    settings: dict[int, VfSettings] = {}
    for line in text.splitlines():
        key, _, rest = line.strip().partition(" ")
        if key == "device" and _ID.fullmatch(rest) and not identity:
            identity = rest
        elif key == "vfs" and count is None:
            count = _number(rest, MOST)
        elif key == "autoprobe" and autoprobe is None:
            autoprobe = _switch(rest)
        elif key == "vf" and count is not None:
            number, _, words = rest.partition(" ")
            index = _number(number, count - 1)
            if index in settings:
                raise ValueError(f"virtual function {index} is named twice")
            settings[index] = _settings(words)
        else:
            raise ValueError(f"not a line about virtual functions: {line[:60]!a}")
    if count is None:
        raise ValueError("it does not say how many virtual functions")
    highest = max(settings, default=-1)
    vfs = tuple(settings.get(index, VfSettings()) for index in range(highest + 1))
    return SriovState(count, identity, autoprobe, vfs)


def _settings(words: str) -> VfSettings:
    found: dict[str, str] = {}
    for word in words.split():
        name, _, value = word.partition("=")
        if name in found or name not in VfSettings.__slots__:
            raise ValueError(f"not a setting of a virtual function: {word[:60]!a}")
        found[name] = value
    mac, link = found.get("mac"), found.get("link")
    if (mac is not None and not _MAC.fullmatch(mac)) or (link is not None and link not in _LINKS):
        raise ValueError(f"not a setting of a virtual function: {words[:80]!a}")
    return VfSettings(
        mac,
        _number(found["vlan"], 4095) if "vlan" in found else None,
        _switch(found["trust"]) if "trust" in found else None,
        _switch(found["spoofcheck"]) if "spoofcheck" in found else None,
        link,
        _switch(found["held"]) if "held" in found else None,
    )


def _number(text: str, most: int) -> int:
    if not (text.isascii() and text.isdecimal() and len(text) < 6 and int(text) <= most):
        raise ValueError(f"not a number from 0 to {most}: {text[:40]!a}")
    return int(text)


def _switch(text: str) -> bool:
    if text not in ("on", "off"):
        raise ValueError(f"neither on nor off: {text[:40]!a}")
    return text == "on"


def same_state(left: SriovState, right: SriovState) -> bool:
    """Whether the two agree, as far as both say. Without virtual functions it does not matter which card it is."""
    if left.count != right.count or not _agree(left.autoprobe, right.autoprobe):
        return False
    if left.count and left.id and right.id and left.id != right.id:
        return False
    pairs = zip(left.vfs, right.vfs, strict=False)
    return all(
        _agree(getattr(one, name), getattr(other, name)) for one, other in pairs for name in VfSettings.__slots__
    )


def _agree(left: object, right: object) -> bool:
    return left is None or right is None or left == right


# -- the file that a start reads -----------------------------------------------------------------


def conf_text(state: SriovState) -> str:
    """Our file: the state between a first line and a last one, so that half a file is known for what it is."""
    return "\n".join((HEAD, state_text(state), END, ""))


def parse_conf(text: str) -> SriovState:
    """The inverse of `conf_text`. Raises ValueError; a file that does not say which device it is for is refused."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    if not lines or lines[-1].strip() != END:
        raise ValueError(f"its last line is not `{END}`: it was not written to its end")
    state = parse_state("\n".join(lines[:-1]))
    if not state.id:
        raise ValueError("it does not say which device it is for")
    return state


# -- what `ip -j link show` says ------------------------------------------------------------------


def parse_links(data: object) -> tuple[VfSettings, ...]:
    """`vfinfo_list` of one interface by index. Raises ValueError for what iproute2 does not write.

    Source: iproute2, ip/ipaddress.c, print_vfinfo: vf, address (before 5.0: mac), vlan_list or vlan, spoofchk,
    link_state, trust. A setting that the driver does not have is left out.
    """
    if not (isinstance(data, list) and len(data) == 1 and isinstance(data[0], dict)):
        raise ValueError("not one interface")
    found: dict[int, VfSettings] = {}
    for one in data[0].get("vfinfo_list", []):
        index = one.get("vf") if isinstance(one, dict) else None
        if type(index) is not int or not 0 <= index < MOST:
            raise ValueError("a virtual function without a number")
        found[index] = _link(one)
    return tuple(found.get(index, VfSettings()) for index in range(max(found, default=-1) + 1))


def _link(one: dict[str, object]) -> VfSettings:
    mac = str(one.get("address", one.get("mac", ""))).lower()
    trust, spoofcheck, link = one.get("trust"), one.get("spoofchk"), one.get("link_state")
    return VfSettings(
        mac if _MAC.fullmatch(mac) else None,
        _vlan(one),
        trust if isinstance(trust, bool) else None,
        spoofcheck if isinstance(spoofcheck, bool) else None,
        link if isinstance(link, str) and link in _LINKS else None,
    )


def _vlan(one: dict[str, object]) -> int:
    """No VLAN is said by leaving it out, or as 0."""
    listed = one.get("vlan_list")
    first = listed[0] if isinstance(listed, list) and listed and isinstance(listed[0], dict) else one
    vlan = first.get("vlan", 0)
    return vlan if type(vlan) is int and 0 <= vlan <= 4095 else 0


# -- addresses -----------------------------------------------------------------------------------


def is_mac(text: str) -> bool:
    """An address that one station may have: written out, not a group's, not all zero."""
    return bool(_MAC.fullmatch(text)) and not int(text[:2], 16) & 1 and text != NO_MAC


def vf_address(pf: Address, offset: int, stride: int, index: int) -> Address:
    """Where the kernel puts virtual function `index` (drivers/pci/iov.c, virtfn_bus and virtfn_devfn)."""
    routing = (pf.bus << 8 | pf.device << 3 | pf.function) + offset + stride * index
    return Address(pf.domain, routing >> 8, routing >> 3 & 0x1F, routing & 7)
