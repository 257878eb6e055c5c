"""Rules about resets: will the device come back when its guest stops and starts again?

1. Known devices are rows in `knowledge.resets`, with a source each; a device in no row is not called good.
2. What the kernel refuses is told before a guest finds out.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.resets import INTEL_500, effective, on_same_bus, reset_row, rows_of
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.own import UDEV_RULES
from ..model.pci import Device
from .subject import Request, chosen, names, show, taken

_SHARED = frozenset({"bus", "cxl_bus"})


def bus_siblings(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the device be reset without a neighbour that stays behind?

    Why: A device without a reset of its own is reset together with its bus. The kernel does that for one function only
        when no other lies on the bus, and QEMU only when all of them are the guest's: "Cannot reset device, depends on
        group N which is not owned". Where a neighbour stays with the host or with another guest, nothing is reset, and
        a second start of the guest may find a device in a state that it cannot use.
    Look at: `pve-passthrough reset show ADDRESS`; `lspci -s BUS:`; /sys/bus/pci/devices/ADDRESS/reset_method.
    Fix: Give the neighbours to the same guest, or use a slot where the device is alone behind its bridge. Never write
        to reset_subordinate of that bridge while anything uses a neighbour: it resets all of them.
    Source: kernel: drivers/pci/pci.c, pci_parent_bus_reset; drivers/vfio/pci/vfio_pci_core.c,
        vfio_pci_ioctl_pci_hot_reset; ABI/testing/sysfs-bus-pci, reset_subordinate; QEMU: hw/vfio/pci.c,
        vfio_pci_hot_reset.
    """
    leaving = {device.address for device in taken(facts, request)}
    for device in chosen(facts, request):
        methods = effective(device, facts.devices)
        if methods is None or device.parent is None or not _SHARED.issuperset(methods):
            continue
        staying = [one for one in on_same_bus(device, facts.devices) if one.address not in leaving and not one.bridge]
        if staying:
            yield Finding(
                "resets.bus-siblings",
                Level.HARMS,
                str(device.address),
                f"{device} can be reset with its bus only, and {names(staying)} would not go along: nothing is reset.",
                (
                    f"/sys/bus/pci/devices/{device.address}/reset_method: {_listed(device)}",
                    *(f"{one.address}: on the same bus, {_owner(facts, one)}" for one in staying),
                ),
                Actor.HARDWARE,
                show("Give all functions of the bus to the same guest, or use another slot."),
            )


def _owner(facts: Facts, device: Device) -> str:
    for guest in facts.guests or ():
        if any(device.address in entry.addresses for entry in guest.hostpci):
            return f"guest {guest.vmid} ({guest.name}) has it"
    return f"the host has it, driver {device.driver}" if device.driver else "the host has it"


def switched_off(facts: Facts, request: Request) -> Iterator[Finding]:
    """Has somebody switched every reset off?

    Why: An empty reset_method forbids every reset of the device. Proxmox' own reset at a guest's start fails then, and
        so does vfio's: the guest gets the device in the state that the last one left.
    Look at: /sys/bus/pci/devices/ADDRESS/reset_method: empty; `grep -r reset_method /etc/udev/rules.d`.
    Fix: `echo default > /sys/bus/pci/devices/ADDRESS/reset_method`, and take away what empties it at boot.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, reset_method.
    """
    for device in chosen(facts, request):
        if device.reset_methods == () and device.resettable:
            path = f"/sys/bus/pci/devices/{device.address}/reset_method"
            yield Finding(
                "resets.switched-off",
                Level.HARMS,
                str(device.address),
                f"Every reset of {device} is switched off.",
                (f"{path}: empty",),
                Actor.US,
                show("Let the kernel choose again.", f"echo default > {path}"),
            )


def not_in_force(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the chosen reset method in force?

    Why: A rule of ours sets the method at every boot. When the attribute holds another list, another rule came later,
        somebody wrote to it, or the kernel refused (a module that brings the method is not loaded).
    Look at: /etc/udev/rules.d; /sys/bus/pci/devices/ADDRESS/reset_method; `dmesg | grep "reset method"`.
    Fix: Choose the method again with `pve-passthrough reset method`, after whatever overrules it has gone.
    Source: udev(7), order of rules files; kernel: drivers/pci/pci-sysfs.c, reset_method_store.
    """
    text = facts.files.get(UDEV_RULES) or ""
    for device in chosen(facts, request):
        wanted = _chosen_method(text, device)
        found = effective(device, facts.devices)
        if wanted is not None and found is not None and wanted.split() != list(found):
            yield Finding(
                "resets.not-in-force",
                Level.HARMS,
                str(device.address),
                f"{device} is to be reset by {wanted}, and the kernel has {' '.join(found) or 'nothing'}.",
                (
                    f"{UDEV_RULES}: {wanted}",
                    f"/sys/bus/pci/devices/{device.address}/reset_method: {_listed(device)}",
                ),
                Actor.US,
                show("Choose it again.", f"pve-passthrough reset method {device.address} {wanted.replace(' ', ',')}"),
            )


def _chosen_method(text: str, device: Device) -> str | None:
    """What our rules file sets for this function; its form is `planning.edit_udev`'s."""
    for line in text.split("\n"):
        if line.lstrip().startswith("#") or f'KERNEL=="{device.address}"' not in line:
            continue
        if 'ATTR{reset_method}="' in line:
            return line.partition('ATTR{reset_method}="')[2].partition('"')[0]
        if "/reset_method'" in line:
            return line.partition("echo ")[2].partition(" ")[0]
    return None


def never_ends(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a reset of the processor's graphics never end on this board?

    Why: Users of Intel's own graphics on boards with a 500-series chipset report that the function level reset waits
        for ever, and the host freezes with the guest's start or stop.
    Look at: `lspci -nn -s 00:1f.0`: a bridge of that series; the kernel's log: "not ready … after FLR; waiting".
    Fix: Share the graphics (virtual functions, GVT-g, a container) instead of passing it whole, or use a kernel that is
        patched to leave the function level reset out. Save your work before the first start.
    Source: i915ovmfPkg issue 23; gvt-linux issue 189. Which chipset IDs belong to the series is unverified beyond 438b.
    """
    for device in chosen(facts, request):
        if INTEL_500 in rows_of(device, facts.devices) and "flr" in (device.reset_methods or ()):
            yield Finding(
                "resets.never-ends",
                Level.HARMS,
                str(device.address),
                f"{device} sits on a 500-series board: {INTEL_500.behaviour}.",
                (f"{device.address}: {device.id} ({INTEL_500.source})", f"reset_method: {_listed(device)}"),
                Actor.HARDWARE,
                show(f"{INTEL_500.remedy[0].upper()}{INTEL_500.remedy[1:]}."),
            )


def known(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the kernel know a peculiarity of the device's reset?

    Why: Some devices promise a reset that hangs them, and some need a sequence of their own. Kernels of Proxmox VE 8
        and 9 know these and do the right thing; guides that say otherwise are about older kernels.
    Look at: /sys/bus/pci/devices/ADDRESS/reset_method: without the method that hangs, or with device_specific first.
    Fix: None needed. Leave reset_method as the kernel made it.
    Source: kernel: drivers/pci/quirks.c, quirk_no_flr and pci_dev_reset_methods.
    """
    for device in chosen(facts, request):
        row = reset_row(device.vendor, device.product)
        if row is None or not row.handled or device.is_display:
            continue
        missing = [name for name in row.offers if name not in (device.reset_methods or (name,))]
        if missing:
            path = f"/sys/bus/pci/devices/{device.address}/reset_method"
            text = f"{device} needs {missing[0]}, and it is switched off."
            yield Finding(
                "resets.known", Level.NOTE, str(device.address), text, (f"{path}: {_listed(device)} ({row.source})",),
                Actor.US, show("Let the kernel choose again.", f"echo default > {path}"),
            )  # fmt: skip
        else:
            yield Finding(
                "resets.known", Level.FINE, str(device.address), f"{device} ({row.family}): {row.behaviour}.",
                (f"{device.address}: {device.id} ({row.source})",),
            )  # fmt: skip


def _listed(device: Device) -> str:
    if device.reset_methods is None:
        return "absent" if device.resettable is False else "unknown"
    return " ".join(device.reset_methods) or "empty"
