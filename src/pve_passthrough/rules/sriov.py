"""Rules about virtual functions: will those that are wanted be there, and does their card let them be what they should?

1. What our own files wish is held against what is; what others made is told, and left to them.
2. A machine without SR-IOV hears nothing of all this.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.sriov import pf_driver
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.own import SRIOV, SRIOV_UNIT
from ..model.pci import Address, Device
from ..model.sriov import NO_MAC, PhysicalFunction, SriovState, parse_conf
from .subject import Request, ask, chosen, is_local, names, show

_NVIDIA = 0x10DE
_NETWORK = 0x02
_BEFORE, _AFTER = SRIOV.split("{address}")


def _wanted(facts: Facts) -> Iterator[tuple[str, SriovState | None, str]]:
    """Our files: (address, what it wishes or None for half a file, why it cannot be read)."""
    for path, text in sorted(facts.files.items()):
        if text is not None and path.startswith(_BEFORE) and path.endswith(_AFTER):
            address = path[len(_BEFORE) : -len(_AFTER)]
            try:
                yield address, parse_conf(text), ""
            except ValueError as error:
                yield address, None, str(error)


def _standing(facts: Facts) -> Iterator[tuple[Device, SriovState]]:
    """Our files whose device is there, and is the one that they were written for."""
    devices = {str(device.address): device for device in facts.devices}
    for address, wanted, _ in _wanted(facts):
        device = devices.get(address)
        if wanted is not None and device is not None and device.id == wanted.id:
            yield device, wanted


def _having(facts: Facts, addresses: tuple[Address, ...], *, whole: bool = False) -> list[str]:
    """`guest 100 (name)` for each guest of this node that is to get one of these; `whole`: no mere share of it."""
    return [
        f"guest {guest.vmid} ({guest.name})"
        for guest in facts.guests or ()
        if is_local(facts, guest)
        and any(one in (entry.binds if whole else entry.addresses) for entry in guest.hostpci for one in addresses)
    ]  # fmt: skip


def conf_broken(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the files be read from which virtual functions are made at a start?

    Why: A file that was not written to its end, or that somebody edited into something else, makes nothing: guests that
        are to get those virtual functions do not start after the next boot.
    Look at: /etc/pve-passthrough/sriov-ADDRESS.conf; its last line is `end`.
    Fix: `pve-passthrough sriov create PF COUNT` writes it anew.
    Source: this program's own form.
    """
    for address, wanted, why in _wanted(facts):
        if wanted is None:
            path = SRIOV.format(address=address)
            yield Finding(
                "sriov.conf-broken", Level.HARMS, address,
                f"The virtual functions of {address} will not be made at the next start: their file cannot be read.",
                (f"{path}: {why}",), Actor.US,
                ask("Write it anew.", f"pve-passthrough sriov create {address} COUNT"),
            )  # fmt: skip


def conf_stale(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the card still there for which virtual functions are made at a start?

    Why: Addresses change when cards are added or moved. The unit makes virtual functions only on the very device that
        they were asked for, so nothing happens to the other one; but those that guests expect are missing.
    Look at: /etc/pve-passthrough/sriov-ADDRESS.conf, its line `device`; `lspci -nn -s ADDRESS`.
    Fix: `pve-passthrough sriov remove ADDRESS` forgets it; `sriov create` at the new address makes them there.
    Source: this program's own form; PCI addresses follow the enumeration of buses (kernel: drivers/pci/probe.c).
    """
    if not facts.devices:
        return
    devices = {str(device.address): device for device in facts.devices}
    for address, wanted, _ in _wanted(facts):
        device = devices.get(address)
        if wanted is None or (device is not None and (device.id == wanted.id or "?" in device.id)):
            continue
        there = f"{device} is there now" if device else "nothing is there now"
        yield Finding(
            "sriov.conf-stale", Level.HARMS, address,
            f"Virtual functions of {wanted.id} are to be made at {address}, and {there}.",
            (f"{SRIOV.format(address=address)}: device {wanted.id}",), Actor.US,
            ask("Forget it, or make them where the card is now.", f"pve-passthrough sriov remove {address}"),
        )  # fmt: skip


def not_ready(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the driver make the virtual functions that are wanted at every start?

    Why: Only the physical function's own driver makes virtual functions. Without a driver, or with vfio-pci, the kernel
        refuses ("no driver bound to device", "driver does not support SR-IOV configuration via sysfs").
    Look at: `pve-passthrough sriov list`; `lspci -k -s ADDRESS`; `systemctl status pve-passthrough-sriov-ADDRESS`.
    Fix: Give the function back to its own driver, or take the virtual ones away: `pve-passthrough sriov remove PF`.
    Source: kernel: drivers/pci/iov.c, sriov_numvfs_store; drivers/vfio/pci/vfio_pci.c, enable_sriov.
    """
    for device, wanted in _standing(facts):
        row = pf_driver(device.driver)
        if device.driver is None or (device.driver and (row is None or row.able)):
            continue
        why = "no driver holds it" if not device.driver else f"{device.driver} holds it"
        yield Finding(
            "sriov.not-ready", Level.HARMS, str(device.address),
            f"{device} is to have {wanted.count} virtual functions and cannot: {why}.",
            (f"driver of {device.address}: {device.driver or 'none'}",), Actor.US,
            show(row.way if row else "Load its own driver, or give the virtual functions up.",
                 f"pve-passthrough sriov remove {device.address}"),
        )  # fmt: skip


def count_differs(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are there as many virtual functions as a start should have made?

    Why: The unit waits for the driver for a minute. Where the kernel refused, or the driver came later, or somebody
        wrote another number since, there are fewer or more than guests were promised.
    Look at: /sys/bus/pci/devices/ADDRESS/sriov_numvfs; `systemctl status pve-passthrough-sriov-ADDRESS`; `dmesg`.
    Fix: Start the unit again, or ask for the number that should be.
    Source: kernel: drivers/pci/iov.c, sriov_enable: not enough memory windows or bus numbers.
    """
    for device, wanted in _standing(facts):
        if device.sriov_active is None or device.sriov_active == wanted.count:
            continue
        unit = SRIOV_UNIT.format(address=device.address)
        yield Finding(
            "sriov.count-differs", Level.HARMS, str(device.address),
            f"{device} has {device.sriov_active} virtual functions and should have {wanted.count}.",
            (
                f"/sys/bus/pci/devices/{device.address}/sriov_numvfs: {device.sriov_active}",
                f"{SRIOV.format(address=device.address)}: vfs {wanted.count}",
            ),
            Actor.US,
            ask("Make them, or ask why not.", f"pve-passthrough sriov create {device.address} {wanted.count}",
                f"systemctl status {unit}"),
        )  # fmt: skip


def pf_claimed(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a guest to get a physical function that has, or is to have, virtual ones?

    Why: vfio-pci refuses a physical function whose virtual functions exist: "Cannot bind to PF with SR-IOV enabled". So
        that guest does not start; and were it started first, the virtual functions could not be made.
    Look at: the guest's hostpci lines; /sys/bus/pci/devices/ADDRESS/sriov_numvfs.
    Fix: Give the guest one of the virtual functions, or take them all away: `pve-passthrough sriov remove PF`.
    Source: kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_register_device.
    """
    wanted = {device.address: state.count for device, state in _standing(facts)}
    for device in facts.devices:
        if not device.sriov_active and device.address not in wanted:
            continue
        if device.address in request.addresses and not device.sriov_active:
            yield Finding(
                "sriov.pf-claimed", Level.BLOCKS, str(device.address),
                f"{device} is to have virtual functions at every start, so it cannot be a guest's.",
                (f"{SRIOV.format(address=device.address)}: vfs {wanted[device.address]}",), Actor.NOBODY,
                show("Give one of the virtual functions, or give them up.",
                     f"pve-passthrough sriov remove {device.address}"),
            )  # fmt: skip
        for guest in _having(facts, (device.address,), whole=True):
            yield Finding(
                "sriov.pf-claimed", Level.HARMS, str(device.address),
                f"{guest[0].upper()}{guest[1:]} is to get {device} itself, which has virtual functions: it will not "
                "start.",
                (f"virtual functions now: {device.sriov_active or 0}",), Actor.US,
                show("Give it one of the virtual functions instead, or take them away.",
                     f"pve-passthrough sriov remove {device.address}"),
            )  # fmt: skip


def not_persistent(facts: Facts, request: Request) -> Iterator[Finding]:
    """Will the virtual functions be there after the next start?

    Why: A number written to sriov_numvfs by hand is forgotten when the machine starts again. A guest that is to get
        such a virtual function then fails with "no PCI device found".
    Look at: /etc/pve-passthrough/sriov-ADDRESS.conf; /etc/sysfs.conf, udev rules and units of your own.
    Fix: `pve-passthrough sriov create PF COUNT` keeps them. Where something else makes them, leave it at that.
    Source: kernel: drivers/pci/iov.c, sriov_init: a start finds none. NVIDIA's are made by pve-nvidia-sriov@ of Proxmox
        VE and are not meant here.
    """
    ours = {device.address for device, _ in _standing(facts)}
    texts = [text for path, text in facts.files.items() if text and not path.startswith(_BEFORE)]
    others = any("sriov_numvfs" in text or "max_vfs" in text for text in (*texts, facts.kernel.cmdline or ""))
    for device in facts.devices:
        if not device.sriov_active or device.address in ours or device.vendor == _NVIDIA or others:
            continue
        users = _having(facts, device.virtual_functions)
        yield Finding(
            "sriov.not-persistent", Level.HARMS if users else Level.NOTE, str(device.address),
            f"Nothing that is known here makes the {device.sriov_active} virtual functions of {device} again at the "
            f"next start{f'; {names(users)} would not start' if users else ''}.",
            (f"{SRIOV.format(address=device.address)}: not there",), Actor.US,
            ask("Keep them, unless something else makes them.",
                f"pve-passthrough sriov create {device.address} {device.sriov_active}"),
        )  # fmt: skip


def _close(facts: Facts, address: Address | None) -> tuple[PhysicalFunction, SriovState] | None:
    """The closer look at a physical function, where there was one."""
    found = next((one for one in facts.sriov or () if one.address == address), None)
    state = found.state if found else None
    return (found, state) if found and state else None


def autoprobe_off(facts: Facts, request: Request) -> Iterator[Finding]:
    """May drivers take the virtual function at all?

    Why: With sriov_drivers_autoprobe off the kernel lets a virtual function have only the driver that driver_override
        names. Proxmox VE hands functions to vfio-pci by new_id and bind, and gets "No such device": the guest's
        start ends with "Cannot bind ADDRESS to vfio".
    Look at: /sys/bus/pci/devices/PF/sriov_drivers_autoprobe: 0; driver_override of the virtual function.
    Fix: Write 1 there, or let `pve-passthrough sriov create PF COUNT --autoprobe off` keep the host's drivers away,
        which names vfio-pci in driver_override instead.
    Source: kernel: drivers/pci/pci-driver.c, pci_device_can_probe; ABI/testing/sysfs-bus-pci; pve-common SysFSTools.pm.
    """
    for device in chosen(facts, request):
        close = _close(facts, device.physical_function)
        if close is None or close[1].autoprobe is not False or device.driver_override == "vfio-pci":
            continue
        path = f"/sys/bus/pci/devices/{device.physical_function}/sriov_drivers_autoprobe"
        yield Finding(
            "sriov.autoprobe-off", Level.HARMS, str(device.address),
            f"Proxmox VE cannot hand {device} to vfio-pci: its physical function lets drivers take none of them.",
            (f"{path}: 0", f"driver_override of {device.address}: {device.driver_override or 'none'}"), Actor.US,
            show("Let drivers take them again.", f"echo 1 > {path}"),
        )  # fmt: skip


def without_mac(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the virtual network card have a fixed hardware address?

    Why: Where the physical function gives it none, the guest's driver makes one up at every start: leases, names of
        interfaces and rules by address change with it.
    Look at: `pve-passthrough sriov list`; `ip link show dev INTERFACE` lists `vf N ... link/ether 00:00:00:00:00:00`.
    Fix: `pve-passthrough sriov create PF COUNT` gives fixed ones, or `ip link set dev INTERFACE vf N mac ADDRESS`.
    Source: ip-link(8), vf; kernel: igbvf and ixgbevf, eth_random_addr where the address is all zero.
    """
    for device in chosen(facts, request):
        close = _close(facts, device.physical_function)
        physical = facts.device(device.physical_function) if device.physical_function else None
        if close is None or physical is None or device.base_class != _NETWORK or not close[0].interface:
            continue
        vfs = physical.virtual_functions
        index = vfs.index(device.address) if device.address in vfs else -1
        if 0 <= index < len(close[1].vfs) and close[1].vfs[index].mac == NO_MAC:
            yield Finding(
                "sriov.vf-without-mac", Level.NOTE, str(device.address),
                f"{device} has no fixed hardware address: the guest makes one up at every start.",
                (f"{close[0].interface}: vf {index} {NO_MAC}",), Actor.US,
                ask("Give it one.",
                    f"pve-passthrough sriov create {physical.address} {physical.sriov_active} --mac auto"),
            )  # fmt: skip


def no_room(facts: Facts, request: Request) -> Iterator[Finding]:
    """Did the firmware leave room for virtual functions?

    Why: Each virtual function needs memory windows of its own, and often a bus number past its card's. Where the
        firmware leaves none, the kernel says "not enough MMIO resources for SR-IOV" or "SR-IOV: bus number out of
        range", and makes none.
    Look at: `dmesg | grep -i sr-iov`; lines 8 to 13 of /sys/bus/pci/devices/ADDRESS/resource.
    Fix: In the firmware's setup SR-IOV, Above 4G Decoding and ARI on; else the kernel argument pci=realloc (windows) or
        pci=assign-busses (numbers).
    Source: kernel: drivers/pci/iov.c, sriov_enable; kernel-parameters.txt, pci=realloc, pci=assign-busses.
    """
    wanted = {device.address for device, _ in _standing(facts)} | set(request.addresses)
    for one in facts.sriov or ():
        device = facts.device(one.address)
        if device is None or one.placed is not False or one.address not in wanted or device.sriov_active:
            continue
        yield Finding(
            "sriov.no-room", Level.HARMS if one.address in {d.address for d, _ in _standing(facts)} else Level.NOTE,
            str(one.address),
            f"There are no addresses for virtual functions of {device}: the kernel will make none.",
            (f"/sys/bus/pci/devices/{one.address}/resource: lines 8 to 13",), Actor.FIRMWARE,
            show("Switch on SR-IOV and Above 4G Decoding in the firmware's setup, or add pci=realloc."),
        )  # fmt: skip
