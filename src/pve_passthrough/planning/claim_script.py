"""The initramfs script that prepares single functions before any driver is loaded: hands them to vfio-pci, or gives
their BARs another size. Text in, text out.

1. For functions whose IDs other devices share: `ids=` would take those too. Source: kernel,
   Documentation/ABI/testing/sysfs-bus-pci, driver_override.
2. The script writes a device's override only when the expected vendor and device still sit at the address, and it
   can never stop the boot: it ends with 0 whatever happens. It uses shell builtins only.
3. It only names the driver; vfio-pci itself is loaded from our modules-load.d file. Until then nobody else may bind.
4. It runs before udev, which starts loading drivers: scripts without prerequisites run in the order of tsort's output,
   which is sorted, and `pve-passthrough` comes before `udev` (initramfs-tools, hook-functions, cache_run_scripts).
5. Claims and sizes of earlier runs are kept. One function per `claim ADDRESS VENDOR:DEVICE` line, one BAR per
   `resize ADDRESS VENDOR:DEVICE BAR POWER` line; POWER is that of two, from 1 MiB.
6. A BAR is resized only when it has another size, since the kernel takes the console from a display that it resizes
   (drivers/pci/pci-sysfs.c, __resource_resize_store). What it refuses (no room: ENOSPC) is said in the kernel's log and
   the BAR stays as it was.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model.own import CLAIM_SCRIPT
from ..model.pci import Address
from .proof import MARK, Unprovable

_CLAIM = re.compile(r"^claim\s+(\S+)\s+([0-9a-f]{4}:[0-9a-f]{4})[ \t]*$", re.MULTILINE)

_SIZE = re.compile(r"^resize\s+(\S+)\s+([0-9a-f]{4}:[0-9a-f]{4})\s+([0-5])\s+([0-9]{1,2})[ \t]*$", re.MULTILINE)

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
_RESIZE = """# The BARs below get their size while no driver holds the function; what the kernel refuses stays.
resize() {
    device=/sys/bus/pci/devices/$1
    test -r "$device/vendor" && test -r "$device/device" && test -r "$device/resource" || return 0
    test -w "$device/resource$3_resize" || return 0
    vendor= product=
    read -r vendor < "$device/vendor"
    read -r product < "$device/device"
    test "${vendor#0x}:${product#0x}" = "$2" || return 0
    row=0
    while read -r first last flags; do
        if test "$row" = "$3"; then
            test $((last - first)) = $(((1 << ($4 + 20)) - 1)) && return 0
            break
        fi
        row=$((row + 1))
    done < "$device/resource"
    { echo "$4" > "$device/resource$3_resize"; } 2> /dev/null && return 0
    { echo "pve-passthrough: BAR $3 of $1 keeps its size" > /dev/kmsg; } 2> /dev/null
    return 0
}

"""
_TAIL = "\nexit 0\n"

MEBIBYTE_POWER = 20
Sizes = Mapping[tuple[Address, int], tuple[str, int]]
"""(vendor:device, size in bytes) by function and BAR."""


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


def sizes_of(text: str | None) -> dict[tuple[Address, int], tuple[str, int]]:
    """Which BARs an existing script resizes. Raises Unprovable as `claims_of` does."""
    claims_of(text)
    found: dict[tuple[Address, int], tuple[str, int]] = {}
    for address, identity, index, power in _SIZE.findall(text or ""):
        try:
            found[Address.parse(address), int(index)] = identity, 1 << int(power) + MEBIBYTE_POWER
        except ValueError as error:
            raise Unprovable(CLAIM_SCRIPT, str(error)) from error
    return found


def render(claims: Mapping[Address, str], sizes: Sizes | None = None) -> str | None:
    """The script for these claims and sizes, in the order of addresses; None when there is nothing to do."""
    if not claims and not sizes:
        return None
    lines = "".join(f"claim {address} {identity}\n" for address, identity in sorted(claims.items()))
    for (address, index), (identity, size) in sorted((sizes or {}).items()):
        lines += f"resize {address} {identity} {index} {size.bit_length() - 1 - MEBIBYTE_POWER}\n"
    return _HEAD + (_RESIZE if sizes else "") + lines + _TAIL


def edit(text: str | None, add: Mapping[Address, str], sizes: Sizes | None = None) -> str | None:
    """The script with these claims and sizes and those it had. What is named again gets the new one."""
    had, had_sizes = claims_of(text), sizes_of(text)
    wanted, wanted_sizes = {**had, **add}, {**had_sizes, **(sizes or {})}
    return text if (wanted, wanted_sizes) == (had, had_sizes) else render(wanted, wanted_sizes)
