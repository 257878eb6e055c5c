"""Our udev rules file: attributes of functions that are set again at every boot. Text in, text out.

1. One line for each attribute of each function, by address and by vendor and device: a card that moved is left alone.
2. The same settings always give the same text; lines that are not of this form are kept.
3. When it takes effect: the file lies on the root file system, and systemd-udev-trigger.service sends `add` for every
   device once that is there (systemd: units/systemd-udev-trigger.service). Before a guest starts, networking.service
   has waited for ifupdown2-pre.service, and that for udev's queue to be empty (seen in a Proxmox host's start-up log).
   What happens before the root file system is there (claims at boot) is earlier, and needs no reset.
4. A method that a module brings is refused until the module is in the kernel, so that line loads it first, as
   vendor-reset's own rules do (its udev/99-vendor-reset.rules, pull request 64).
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model.own import UDEV_RULES
from ..model.pci import Address
from .proof import MARK, Unprovable

Settings = dict[tuple[Address, str], str]
"""(function, attribute) -> value"""

MODULE_METHOD = "device_specific"
_WHO = (
    'ACTION=="add", SUBSYSTEM=="pci", KERNEL=="{address}", ATTR{{vendor}}=="0x{vendor}", ATTR{{device}}=="0x{device}", '
)
_LOADS = "RUN+=\"/bin/sh -c '/sbin/modprobe {module}; echo {value} > /sys/bus/pci/devices/%k/{attribute}'\""
_KERNEL = r'KERNEL=="(?P<address>[0-9a-f]{4,8}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7])", .*'
_PLAIN = re.compile(_KERNEL + r'ATTR\{(?P<attribute>[a-z0-9_]+)\}="(?P<value>[a-z0-9_ ]+)"')
_BY_MODULE = re.compile(_KERNEL + r"echo (?P<value>[a-z0-9_]+) > /sys/bus/pci/devices/%k/(?P<attribute>[a-z0-9_]+)'\"")


def settings_of(text: str | None) -> Settings:
    """What the file sets."""
    found: Settings = {}
    for line in (text or "").split("\n"):
        parsed = _parse(line)
        if parsed is not None:
            found[parsed[0], parsed[1]] = parsed[2]
    return found


def _parse(line: str) -> tuple[Address, str, str] | None:
    if line.lstrip().startswith("#"):
        return None
    match = _PLAIN.search(line) or _BY_MODULE.search(line)
    return None if match is None else (Address.parse(match["address"]), match["attribute"], match["value"])


def edit(
    text: str | None,
    address: Address,
    identity: str,
    attribute: str,
    value: str | None,
    module: str = "",
) -> str | None:
    """Our file with this attribute of this function set to `value` (None: not set); None when it holds nothing.

    `module`: what has to be in the kernel before the value is accepted.
    """
    kept = [line for line in (text or "").split("\n") if line.strip() and line != MARK]
    kept = [line for line in kept if (found := _parse(line)) is None or found[:2] != (address, attribute)]
    if value is not None:
        kept.append(_line(address, identity, attribute, value, module))
    result = "\n".join((MARK, *kept, "")) if kept else None
    wanted = {key: one for key, one in settings_of(text).items() if key != (address, attribute)}
    wanted |= {} if value is None else {(address, attribute): value}
    if settings_of(result) != wanted:
        raise Unprovable(UDEV_RULES, f"the rule for {address} would not be read as it is written")
    return result


def _line(address: Address, identity: str, attribute: str, value: str, module: str) -> str:
    vendor, _, device = identity.partition(":")
    who = _WHO.format(address=address, vendor=vendor, device=device)
    if module:
        return who + _LOADS.format(module=module, value=value, attribute=attribute)
    return f'{who}ATTR{{{attribute}}}="{value}"'


def foreign_rules(files: Mapping[str, str | None], attribute: str) -> tuple[str, ...]:
    """`path:line` of other people's rules that write the attribute of PCI functions."""
    return tuple(
        f"{path}:{number}: {line.strip()}"
        for path, text in files.items()
        if path.startswith(UDEV_RULES.rpartition("/")[0] + "/") and path != UDEV_RULES and text
        for number, line in enumerate(text.split("\n"), 1)
        if attribute in line and not line.lstrip().startswith("#")
    )
