"""Rules about any device that is to be passed through: is it there, who holds it now and after the next boot?

1. Proxmox takes a device from its driver at guest start; early binding is for drivers that do not let go.
2. Numbers alone are no subject: devices are named.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.binding import NOT_A_HOST_DRIVER, host_driver
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from .bootfiles import address_claims, early_ids
from .subject import Request, ask, chosen, names, reason, show, taken, unknown


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
    for device in chosen(facts, request):
        if device.driver is None:
            yield unknown(
                "drivers.holder",
                str(device.address),
                f"Which driver holds {device}, nobody could say.",
                reason(facts, "pci.driver", "pci"),
            )
            continue
        where = f"/sys/bus/pci/devices/{device.address}/driver: {device.driver or 'absent'}"
        if device.driver in NOT_A_HOST_DRIVER:
            text = "is held by no driver" if not device.driver else f"is already held by {device.driver}"
            yield Finding("drivers.holder", Level.FINE, str(device.address), f"{device} {text}.", (where,))
            continue
        row = host_driver(device.driver)
        if row is not None and not row.lets_go:
            yield Finding(
                "drivers.holder",
                Level.HARMS,
                str(device.address),
                f"{device} is held by {device.driver}, which does not let go at run time: {row.why}.",
                (where,),
                Actor.US,
                ask("Let vfio-pci claim the device at boot.", f"pve-passthrough plan {device.address}"),
            )
        else:
            yield Finding(
                "drivers.holder",
                Level.NOTE,
                str(device.address),
                f"{device} is held by {device.driver}; Proxmox takes it from there when the guest starts.",
                (where,),
            )


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
    for device in chosen(facts, request):
        if device.driver is None or device.driver in NOT_A_HOST_DRIVER:
            continue
        taken_by = (entry for entry in lists if not entry.replaced and device.id in entry.ids)
        places = [f"{entry.where}: ids={entry.text}" for entry in taken_by]
        if claims.get(str(device.address)) == device.id:
            places.append(f"claim script: {device.address} {device.id}")
        if places:
            yield Finding(
                "drivers.after-boot",
                Level.HARMS,
                str(device.address),
                f"{device} is held by {device.driver} although it is written down for vfio-pci.",
                (*places, f"/sys/bus/pci/devices/{device.address}/driver: {device.driver}"),
                Actor.US,
                ask(
                    f"Let vfio-pci load first (softdep {device.driver.replace('-', '_')} pre: vfio-pci), "
                    "rebuild the initramfs and reboot.",
                    "update-initramfs -u -k all",
                    "reboot",
                ),
            )


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
    for device in chosen(facts, request):
        if "?" in device.id:
            continue
        twins = [d for d in facts.devices if d.id == device.id and d.address not in leaving]
        if not twins:
            continue
        lines = [f"{entry.where}: ids={entry.text}" for entry in lists if not entry.replaced and device.id in entry.ids]
        yield Finding(
            "drivers.identical-ids",
            Level.HARMS if lines else Level.NOTE,
            str(device.address),
            f"{device} has a twin with the same ID {device.id}: {names(twins)}"
            + (", and early binding by ID takes both." if lines else "; it can only be told apart by its address."),
            (*lines, *(f"{twin.address}: {twin.id}, driver {twin.driver or 'none'}" for twin in twins)),
            Actor.US,
            show("Claim by address instead of by ID.", f"pve-passthrough plan {device.address}"),
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
    for device in chosen(facts, request):
        slot = [other for other in facts.devices if other.address.slot == device.address.slot]
        if device.resettable is False and not any(other.resettable for other in slot):
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
    Fix: `echo 0 > /sys/bus/pci/devices/ADDRESS/d3cold_allowed`; if it happens under vfio-pci, `options vfio-pci
        disable_idle_d3=1`.
    Source: kernel: Documentation/ABI/testing/sysfs-bus-pci, d3cold_allowed; drivers/vfio/pci/vfio_pci.c,
        disable_idle_d3.
    """
    for device in chosen(facts, request):
        if device.power_state == "D3cold":
            path = f"/sys/bus/pci/devices/{device.address}"
            yield Finding(
                "drivers.d3cold",
                Level.NOTE,
                str(device.address),
                f"{device} is switched off (D3cold); some devices do not come back from there.",
                (f"{path}/power_state: D3cold",),
                Actor.US,
                show("Keep it powered.", f"echo 0 > {path}/d3cold_allowed", f"echo on > {path}/power/control"),
            )


def sriov(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device have virtual functions in use?

    Why: vfio-pci refuses a physical function whose virtual functions exist: "Cannot bind to PF with SR-IOV enabled".
        Pass the virtual functions instead; the physical one stays with its driver.
    Look at: /sys/bus/pci/devices/ADDRESS/sriov_numvfs, and the virtfn links beside it.
    Fix: Pass a virtual function, or write 0 to sriov_numvfs first.
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
                Actor.US,
                show("Pass a virtual function instead, or switch them off.", f"echo 0 > {path}"),
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
