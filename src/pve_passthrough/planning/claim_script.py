"""The initramfs script that hands single functions to vfio-pci before any driver is loaded. Text in, text out.

1. For functions whose IDs other devices share: `ids=` would take those too. Source: kernel,
   Documentation/ABI/testing/sysfs-bus-pci, driver_override.
2. The script writes a device's override only when the expected vendor and device still sit at the address, and it
   can never stop the boot: it ends with 0 whatever happens. It uses shell builtins only.
3. It only names the driver; vfio-pci itself is loaded from our modules-load.d file. Until then nobody else may bind.
4. It runs before udev, which starts loading drivers: scripts without prerequisites run in the order of tsort's output,
   which is sorted, and `pve-passthrough` comes before `udev` (initramfs-tools, hook-functions, cache_run_scripts).
5. Claims of earlier runs are kept. One function per `claim ADDRESS VENDOR:DEVICE` line.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model.own import CLAIM_SCRIPT
from ..model.pci import Address
from .proof import MARK, Unprovable

_CLAIM = re.compile(r"^claim\s+(\S+)\s+([0-9a-f]{4}:[0-9a-f]{4})[ \t]*$", re.MULTILINE)

# `prereqs` is how initramfs-tools asks every boot script what must run before it (initramfs-tools(7), BOOT SCRIPTS).
_HEAD = f"""#!/bin/sh
{MARK}
# Before any driver is loaded, the functions below are reserved for vfio-pci, each at its address and only
# if the device that was meant still sits there.

PREREQS=""

prereqs() {{ echo "$PREREQS"; }}

case "$1" in
    prereqs)
        prereqs
        exit 0
        ;;
esac

claim() {{
    device=/sys/bus/pci/devices/$1
    test -r "$device/vendor" && test -r "$device/device" && test -w "$device/driver_override" || return 0
    vendor= product=
    read -r vendor < "$device/vendor"
    read -r product < "$device/device"
    if test "${{vendor#0x}}:${{product#0x}}" = "$2"; then
        echo vfio-pci > "$device/driver_override"
    fi
    return 0
}}

"""
_TAIL = "\nexit 0\n"


def claims_of(text: str | None) -> dict[Address, str]:
    """What an existing script claims. Raises Unprovable when it is not ours or a line cannot be read."""
    if text is None:
        return {}
    if MARK not in text.split("\n")[:3]:
        raise Unprovable(CLAIM_SCRIPT, "a script of this name is there, and this program has not written it")
    claims: dict[Address, str] = {}
    for address, identity in _CLAIM.findall(text):
        try:
            claims[Address.parse(address)] = identity
        except ValueError as error:
            raise Unprovable(CLAIM_SCRIPT, str(error)) from error
    return claims


def render(claims: Mapping[Address, str]) -> str | None:
    """The script for these claims, in the order of addresses; None when nothing is claimed."""
    if not claims:
        return None
    lines = "".join(f"claim {address} {identity}\n" for address, identity in sorted(claims.items()))
    return _HEAD + lines + _TAIL


def edit(text: str | None, add: Mapping[Address, str]) -> str | None:
    """The script with these claims and those it had. A function claimed again with another ID gets the new one."""
    had = claims_of(text)
    wanted = {**had, **add}
    return text if wanted == had else render(wanted)
