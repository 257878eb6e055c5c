"""A guest's `args` that move an MSI-X table which QEMU would refuse where it is.

1. Pure. Written only when somebody names the tweak; everything else in `args` stays.
2. QEMU's `auto` is not implemented, so the BAR is always named (QEMU 9.2: hw/vfio/pci.c, vfio_pci_relocate_msix).
3. An entry with several functions cannot be reached: QEMU names them hostpciN.M, and `-set` ends a name at the dot
   (qemu-server PCI.pm, print_hostpci_devices; QEMU: system/vl.c, qemu_set_option).
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence

from ..errors import Exit, Failure
from ..knowledge.device_classes import MSIX, msix_fault, relocation_targets, row_of
from ..knowledge.guestconfig import entry_functions
from ..model.facts import Facts
from ..model.pci import Address, Device
from ..model.vm import Vm, parse_options
from ..model.wish import VmOption

TWEAK = "msix-relocation"
_BAR = re.compile(r"bar([0-5])")


def targets(devices: Sequence[Device], tweaks: Sequence[str]) -> dict[Address, int]:
    """The BAR that takes the table of each device that needs it. Raises Failure when nobody needs it, or when the
    named BAR cannot take it."""
    words = [tweak.partition("=")[2] for tweak in tweaks if tweak.partition("=")[0] == TWEAK]
    if not words:
        return {}
    with_table = [one for one in devices if one.capabilities is not None and one.capabilities.msix]
    faulty = [one for one in with_table if msix_fault(one) or row_of(MSIX, one)]
    named = words[-1]
    chosen = faulty or (with_table if named and len(with_table) == 1 else [])
    if not chosen:
        raise Failure(
            "tweak.no-use", "Nothing was planned: QEMU is not known to refuse the MSI-X table of any of these.",
            *(str(one) for one in devices),
            hint=f"If a start failed because of it, name one device and a BAR: --tweak {TWEAK}=bar2", code=Exit.REFUSED,
        )  # fmt: skip
    return {one.address: _target(one, named) for one in chosen}


def _target(device: Device, named: str) -> int:
    able = relocation_targets(device.bars or ())
    match = _BAR.fullmatch(named)
    wanted = int(match.group(1)) if match else None
    if (named and wanted is None) or (wanted is not None and wanted not in able) or not able:
        raise Failure(
            "tweak.bar", f"Nothing was planned: {named or 'any BAR'} cannot take the MSI-X table of {device}.",
            f"able: {', '.join(f'bar{index}' for index in able) or 'none'}", code=Exit.USAGE,
        )  # fmt: skip
    return able[0] if wanted is None else wanted


def relocations(facts: Facts, guest: Vm, wishes: Sequence[VmOption], bars: Mapping[Address, int]) -> list[VmOption]:
    """The wish for `args`, when some table has to move; none when all of them have moved already."""
    if not bars:
        return []
    keys = _keys(facts, guest, wishes)
    args = guest.value("args") or ""
    had = args
    for address, bar in sorted(bars.items()):
        key, alone = keys.get(address, ("", False))
        if not key:
            continue
        if not alone:
            raise Failure(
                "tweak.functions", f"Nothing was planned: {key} takes several functions, and QEMU's -set reaches none "
                "of them.", f"{address}: hostpci entry {key}",
                hint="Give that function an entry of its own: name it with --alone.", code=Exit.REFUSED,
            )  # fmt: skip
        args = _with(args, key, bar)
    why = "QEMU refuses the device's MSI-X table where it is; for the guest it lies in a BAR of its own"
    return [] if args == had else [VmOption(guest.vmid, "args", args, why)]


def _with(args: str, key: str, bar: int) -> str:
    word = f"-set device.{key}.x-msix-relocation=bar{bar}"
    before = re.search(rf"-set\s+device\.{key}\.x-msix-relocation=\S*", args)
    if before is None:
        return f"{args} {word}".strip()
    return args if before.group(0).split() == word.split() else args.replace(before.group(0), word)


def _keys(facts: Facts, guest: Vm, wishes: Sequence[VmOption]) -> dict[Address, tuple[str, bool]]:
    """(entry, whether it takes this function alone) by function, as the guest will be."""
    known = [device.address for device in facts.devices]
    lines = {entry.key: entry.addresses for entry in guest.hostpci}
    for wish in wishes:
        if wish.key.startswith("hostpci"):
            options = parse_options(wish.value or "", "host")
            lines[wish.key] = tuple(entry_functions(options, guest.node, facts.mappings, known)) if wish.value else ()
    return {address: (key, len(found) == 1) for key, found in lines.items() for address in found}
