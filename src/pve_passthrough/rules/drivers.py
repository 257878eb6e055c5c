"""Rules about any device that is to be passed through: is it there, who holds it now and after the next boot?

1. Proxmox takes a device from its driver at guest start; early binding is for drivers that do not let go.
2. Numbers alone are no subject: devices are named.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ..knowledge.binding import NOT_A_HOST_DRIVER, host_driver, module_of
from ..knowledge.performance import SHEDS_LANES
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from ..model.texts import MODPROBE_DIR, modprobe_lines
from .bootfiles import address_claims, early_ids
from .subject import Request, ask, card_name, cards, chosen, names, reason, show, taken, unknown, up


def present(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the device there?

    Why: Addresses change when cards are added or the firmware's settings change; a guest whose device is gone does
        not start: "no PCI device found".
    Look at: `lspci -D`; `pve-passthrough devices`.
    Fix: Name the device's present address, or use a resource mapping, which Proxmox checks at start.
    Source: pve-common SysFSTools.pm, pci_device_info; Proxmox VE administration guide, Resource Mapping.
    """
    for address in request.addresses:
        if facts.device(address) is not None:
            continue
        if not facts.devices:
            yield unknown(
                "drivers.present",
                str(address),
                f"Whether there is a device at {address}, nobody could say.",
                reason(facts, "pci.devices", "devices", "pci"),
            )
            continue
        yield Finding(
            "drivers.present",
            Level.BLOCKS,
            str(address),
            f"There is no device at {address}.",
            (f"/sys/bus/pci/devices/{address}: absent",),
            Actor.NOBODY,
            show("Name the device's present address.", "pve-passthrough devices"),
        )


def holder(facts: Facts, request: Request) -> Iterator[Finding]:
    """Who holds the device, and does it let go?

    Why: At guest start Proxmox unbinds the device from its driver. Most drivers let go; some do not while anything
        has the device open, and some oops. Only those must be kept away from it at boot.
    Look at: `lspci -k -s ADDRESS`; /sys/bus/pci/devices/ADDRESS/driver.
    Fix: For such a driver: let vfio-pci claim the device at boot (softdep and ids, or driver_override by address for
        one of several identical cards). For all others: nothing.
    Source: pve-common SysFSTools.pm, pci_dev_bind_to_vfio; Proxmox VE administration guide, PCI(e) passthrough, Host
        Device Passthrough; modprobe.d(5), softdep.
    """
    for card in cards(chosen(facts, request)):
        unsaid = [device for device in card if device.driver is None]
        if unsaid:
            yield unknown(
                "drivers.holder",
                str(card[0].address),
                f"Which driver holds {card_name(unsaid)}, nobody could say.",
                reason(facts, "pci.driver", "pci"),
            )
        known = [device for device in card if device.driver is not None]
        if known:
            yield _held(facts, request, known)


def _held(facts: Facts, request: Request, card: Sequence[Device]) -> Finding:
    """One card whose drivers are known: the worst of its functions decides."""
    subject = str(card[0].address)
    lines = tuple(f"/sys/bus/pci/devices/{device.address}/driver: {device.driver or 'absent'}" for device in card)
    for device in card:
        row = host_driver(device.driver)
        if row is not None and not row.lets_go:
            return Finding(
                "drivers.holder",
                Level.HARMS,
                str(device.address),
                f"{device} is held by {device.driver}, which may not let go at run time: {row.why}.",
                lines,
                Actor.US,
                ask("Let vfio-pci claim the card at boot.", up(facts, request, device)),
            )
    held = [device for device in card if device.driver not in NOT_A_HOST_DRIVER]
    if held:
        drivers = names(dict.fromkeys(str(device.driver) for device in held))
        text = f"{card_name(held)} is held by {drivers}; Proxmox takes it from there when the guest starts."
        return Finding("drivers.holder", Level.NOTE, subject, text, lines)
    stubs = names(dict.fromkeys(device.driver for device in card if device.driver))
    text = f"is already held by {stubs}" if stubs else "is held by no driver"
    return Finding("drivers.holder", Level.FINE, subject, f"{card_name(card)} {text}.", lines)


def after_boot(facts: Facts, request: Request) -> Iterator[Finding]:
    """Did the early binding that is written down take effect?

    Why: `ids=` only helps when vfio-pci is loaded before the host's driver, and only with a rebuilt initramfs. Where
        it is written down and another driver holds the device, something is missing: the softdep, the rebuild, or the
        reboot.
    Look at: `grep -r vfio-pci /etc/modprobe.d`, `lspci -k -s ADDRESS`, `lsinitramfs /boot/initrd.img-$(uname -r)`.
    Fix: Add `softdep DRIVER pre: vfio-pci`, run `update-initramfs -u -k all`, reboot.
    Source: modprobe.d(5), softdep; Debian initramfs-tools, mkinitramfs; kernel: drivers/vfio/pci/vfio_pci.c, ids.
    """
    lists = early_ids(facts)
    claims = address_claims(facts)
    for card in cards(chosen(facts, request)):
        late: list[Device] = []
        places: dict[str, None] = {}
        for device in card:
            if device.driver is None or device.driver in NOT_A_HOST_DRIVER:
                continue
            said = [f"{one.where}: ids={one.text}" for one in lists if not one.replaced and device.id in one.ids]
            if claims.get(str(device.address)) == device.id:
                said.append(f"claim script: {device.address} {device.id}")
            places.update(dict.fromkeys(said))
            late += [device] if said else []
        if late:
            drivers = list(dict.fromkeys(str(device.driver) for device in late))
            modules = [one for one in dict.fromkeys(map(module_of, drivers)) if one not in _preceded(facts)]
            soft = "; ".join(f"softdep {module} pre: vfio-pci" for module in modules)
            yield Finding(
                "drivers.after-boot",
                Level.HARMS,
                str(late[0].address),
                f"{card_name(late)} is held by {names(drivers)} although it is written down for vfio-pci.",
                (*places, *(f"/sys/bus/pci/devices/{one.address}/driver: {one.driver}" for one in late)),
                Actor.US,
                show(
                    f"{f'Let vfio-pci load first ({soft}), rebuild' if soft else 'Rebuild'} the initramfs and reboot.",
                    *((f"editor {MODPROBE_DIR}vfio.conf",) if soft else ()),
                    "update-initramfs -u -k all",
                    "reboot",
                ),
            )


def _preceded(facts: Facts) -> set[str]:
    """Modules that a softdep puts behind vfio-pci already."""
    lines = (line for line in modprobe_lines(facts.files) if line.command == "softdep")
    said = ((line.module, line.rest.replace("vfio_pci", "vfio-pci").split()) for line in lines)
    return {module for module, words in said if {"pre:", "vfio-pci"} <= set(words)}


def identical_ids(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there a second device of the same kind that the host keeps?

    Why: `ids=` takes every device with that vendor:device number, also the twin that the host needs. Proxmox' own
        write to new_id has the same effect on a twin that no driver holds.
    Look at: `lspci -nn -d VENDOR:DEVICE`.
    Fix: Claim by address (driver_override) instead of by ID, or let Proxmox bind at guest start.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, driver_override and new_id; pve-common SysFSTools.pm,
        pci_dev_bind_to_vfio.
    """
    if not request.addresses and request.vmid is None:
        return
    leaving = {device.address for device in taken(facts, request)}
    lists = early_ids(facts)
    for card in cards(chosen(facts, request)):
        ids = {device.id for device in card if "?" not in device.id}
        twins = [other for other in facts.devices if other.id in ids and other.address not in leaving]
        if not twins:
            continue
        shared = {twin.id for twin in twins}
        device = next(one for one in card if one.id in shared)
        lines = [f"{one.where}: ids={one.text}" for one in lists if not one.replaced and shared & set(one.ids)]
        yield Finding(
            "drivers.identical-ids",
            Level.HARMS if lines else Level.NOTE,
            str(device.address),
            f"{device} has a twin with the same ID {device.id}: {names(card_name(one) for one in cards(twins))}"
            + (", and early binding by ID takes both." if lines else "; it can only be told apart by its address."),
            (*lines, *(f"{twin.address}: {twin.id}, driver {twin.driver or 'none'}" for twin in twins)),
            Actor.US,
            show("Take the ID off the list; a plan of ours claims by address.", up(facts, request, *card))
            if lines
            else None,
        )


def reset(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the device be reset?

    Why: VFIO resets a device when a guest opens and closes it. A function without any reset keeps its state from one
        start to the next, and the second start often fails. Sound and USB functions without a reset of their own are
        reset together with their card.
    Look at: /sys/bus/pci/devices/ADDRESS/reset_method; the file `reset` exists when the kernel knows a way.
    Fix: None in software. Start the guest once per host boot, or use another device.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, reset and reset_method; drivers/pci/pci.c.
    """
    for device in (card[0] for card in cards(one for one in chosen(facts, request) if one.resettable is False)):
        slot = [other for other in facts.devices if other.address.slot == device.address.slot]
        if not any(other.resettable for other in slot):
            yield Finding(
                "drivers.reset",
                Level.NOTE,
                str(device.address),
                f"The kernel knows no way to reset {device}: a second start of the guest may fail.",
                (f"/sys/bus/pci/devices/{device.address}/reset: absent",),
                Actor.HARDWARE,
                show("Try a start, stop and start again before relying on it."),
            )


def d3cold(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the device switched off?

    Why: A device in D3cold has no power. Some do not come back: "Unable to power on device, stuck in D3".
    Look at: /sys/bus/pci/devices/ADDRESS/power_state and d3cold_allowed.
    Fix: `pve-passthrough reset idle ADDRESS` writes 0 to d3cold_allowed, now and at every boot; if it happens under
        vfio-pci, `pve-passthrough reset idle ADDRESS --module` sets disable_idle_d3=1 for all its devices.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, d3cold_allowed; drivers/vfio/pci/vfio_pci.c,
        disable_idle_d3.
    """
    for device in (card[0] for card in cards(one for one in chosen(facts, request) if one.power_state == "D3cold")):
        path = f"/sys/bus/pci/devices/{device.address}"
        yield Finding(
            "drivers.d3cold",
            Level.NOTE,
            str(device.address),
            f"{device} is switched off (D3cold); some devices do not come back from there.",
            (f"{path}/power_state: D3cold",),
            Actor.US,
            show("Keep it powered.", f"pve-passthrough reset idle {device.address}"),
        )


def link(facts: Facts, request: Request) -> Iterator[Finding]:
    """Has the device all the lanes that it could have?

    Why: A card in a slot with fewer lanes, or badly seated, moves data at a fraction of its rate, in the guest as well.
        The speed drops when a card idles and says nothing then; an AMD card may drop lanes with it, so its lanes are
        judged at full speed only. What the guest shows is not the link: its virtual port claims 16 GT/s and 32 lanes.
    Look at: /sys/bus/pci/devices/ADDRESS/current_link_width and max_link_width; `lspci -vv -s ADDRESS`: LnkSta, LnkCap.
    Fix: Reseat the card, or move it to a slot with more lanes; a second card in a shared pair of slots halves both.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, current_link_width; drivers/gpu/drm/amd/pm, pp_dpm_pcie
        (its levels name speed and lanes); qemu-server PCI.pm (the root ports' x-speed and x-width).
    """
    for device in chosen(facts, request):
        lanes = device.link
        if lanes is None or not lanes.width or not lanes.max_width or lanes.width >= lanes.max_width:
            continue
        if device.vendor in SHEDS_LANES and lanes.speed and lanes.max_speed and lanes.speed < lanes.max_speed:
            continue  # it idles
        if device.is_display or request.addresses:
            path = f"/sys/bus/pci/devices/{device.address}"
            yield Finding(
                "drivers.link",
                Level.NOTE,
                str(device.address),
                f"{device} runs on {lanes.width} of its {lanes.max_width} lanes.",
                (f"{path}/current_link_width: {lanes.width}", f"{path}/max_link_width: {lanes.max_width}"),
                Actor.HARDWARE,
                show("Reseat the card, or use a slot with more lanes."),
            )


def sriov(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device have virtual functions in use?

    Why: vfio-pci refuses a physical function whose virtual functions exist: "Cannot bind to PF with SR-IOV enabled".
        Pass the virtual functions instead; the physical one stays with its driver.
    Look at: /sys/bus/pci/devices/ADDRESS/sriov_numvfs, and the virtfn links beside it.
    Fix: Pass a virtual function, or `pve-passthrough sriov remove ADDRESS` first.
    Source: kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_register_device.
    """
    for device in chosen(facts, request):
        if device.sriov_active and device.driver != "vfio-pci":
            path = f"/sys/bus/pci/devices/{device.address}/sriov_numvfs"
            yield Finding(
                "drivers.sriov-pf",
                Level.BLOCKS,
                str(device.address),
                f"{device} has {device.sriov_active} virtual functions: it cannot be passed through itself.",
                (f"{path}: {device.sriov_active}", *(f"virtual function: {vf}" for vf in device.virtual_functions[:4])),
                Actor.NOBODY,  # no plan for a guest takes them away on the side
                show(
                    "Pass a virtual function instead, or take them away.",
                    f"pve-passthrough sriov remove {device.address}",
                ),
            )


def conventional(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the device behind a conventional PCI bridge?

    Why: Devices on a conventional PCI bus use the bridge's own requester ID, so the IOMMU cannot tell them apart: all
        of them share one group, and pcie=1 gains nothing.
    Look at: `lspci -t`, `lspci -vv -s ADDRESS` (no PCI Express capability).
    Fix: None. Pass all devices behind the bridge to one guest, or use a PCI Express card.
    Source: kernel: drivers/iommu/iommu.c, pci_device_group; PCI Express to PCI bridge specification.
    """
    for device in chosen(facts, request):
        seen = device.capabilities
        if seen is None or seen.express is not None or device.address.bus == 0 or device.physical_function is not None:
            continue
        yield Finding(
            "drivers.conventional-pci",
            Level.NOTE,
            str(device.address),
            f"{device} is a conventional PCI device: everything behind its bridge goes together.",
            (f"{device.address}: no PCI Express capability",),
            Actor.HARDWARE,
            show("Leave pcie=1 out of the guest's hostpci line."),
        )
