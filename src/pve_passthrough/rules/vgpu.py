"""Rules about shares of devices: mediated devices, NVIDIA's virtual functions, GVT-g.

1. A device that is shared stays with its driver, so nothing here is about groups or binding.
2. What a driver offers is judged only where somebody looked that deep; else the finding is UNKNOWN.
3. Rows about drivers and generations are `knowledge.vgpu`; reports are called reports.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.compute_cards import NVIDIA
from ..knowledge.vgpu import (
    BRANCHES,
    LICENCE,
    Igpu,
    igpu,
    releases_for,
    vgpu_generation,
)
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.mediated import MDEV, VF, Parent, guest_of, nvidia_number, sharers, shares, whole
from ..model.pci import Address, Device
from ..model.vm import HostPci, Vm
from .subject import Request, guests, is_local, names, reason, show, unknown

_TRUE = ("1", "on", "yes", "true")
_MIG_GENERATIONS = frozenset({"Hopper", "Blackwell"})
_MIG_AMPERE = range(0x20B0, 0x2100)
"""GA100: A30 and A100. Other cards are not listed here (NVIDIA Multi-Instance GPU user guide, supported GPUs)."""


def _asked(facts: Facts, request: Request) -> tuple[Device, ...]:
    """Devices of which a share is asked for, or that a guest in question shares."""
    wanted = set(request.addresses) if request.share else set()
    if not wanted and (request.vmid is not None or not request.addresses):
        wanted = {address for guest in guests(facts, request) for one in shares(guest) for address in one.addresses}
    return tuple(device for device in facts.devices if device.address in wanted)


def _card(facts: Facts, device: Device) -> Device:
    """The physical function of a virtual one."""
    return (facts.device(device.physical_function) if device.physical_function else None) or device


def _cards(facts: Facts, request: Request) -> tuple[Device, ...]:
    return tuple(dict.fromkeys(_card(facts, device) for device in _asked(facts, request)))


def _entries(facts: Facts, request: Request) -> Iterator[tuple[Vm, HostPci]]:
    for guest in guests(facts, request):
        if is_local(facts, guest):
            for entry in shares(guest):
                yield guest, entry


def _line(guest: Vm, entry: HostPci) -> str:
    return f"/etc/pve/nodes/{guest.node}/qemu-server/{guest.vmid}.conf: {entry.key}: {guest.value(entry.key) or ''}"


def driver(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the host have the driver that shares this card?

    Why: NVIDIA's desktop driver shares nothing: it takes the vGPU driver for KVM, whose manager is a module of its
        own. Each release knows certain generations and kernels only: Maxwell and Pascal end with release 16 (branch
        535), and kernels from 7.0 on need release 20 (branch 595). With any other driver the types are missing and the
        guest does not start.
    Look at: `lspci -nnk -s ADDRESS`; `lsmod | grep vgpu`; /proc/driver/nvidia/version.
    Fix: `pve-passthrough vgpu setup ADDRESS` lists what is there and what is missing, in order.
    Source: NVIDIA vGPU documentation, installing the manager; matrix of a community installer for Proxmox VE, v1.84
        (which release knows what; not NVIDIA's own words).
    """
    for device in _cards(facts, request):
        row = vgpu_generation(device)
        if device.vendor != NVIDIA or device.driver is None:
            continue
        setup = show("See what is missing.", f"pve-passthrough vgpu setup {device.address}")
        if device.driver != "nvidia":
            yield Finding(
                "vgpu.driver", Level.BLOCKS, str(device.address),
                f"{device} is held by {device.driver or 'no driver'}, and only NVIDIA's vGPU driver shares it.",
                (f"/sys/bus/pci/devices/{device.address}/driver: {device.driver or 'none'}",), Actor.NOBODY, setup,
            )  # fmt: skip
        elif row is not None and not releases_for(row, facts.kernel.version):
            yield Finding(
                "vgpu.driver", Level.HARMS, str(device.address),
                f"{device} ({row.name}) is known to no release of NVIDIA's vGPU driver that runs on kernel "
                f"{facts.kernel.release}.",
                (f"{row.name}: release {row.releases[0]} to {row.releases[1] or max(BRANCHES)} ({row.source})",),
                Actor.NOBODY, setup,
            )  # fmt: skip


def mdev_on_vfio(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the card's types where guides look for them?

    Why: On kernels from 6.8 on NVIDIA's driver does not use the kernel's mediated devices any more for cards with
        virtual functions: mdev_supported_types is missing, and each virtual function has nvidia/creatable_vgpu_types
        and nvidia/current_vgpu_type instead. Proxmox VE handles both since qemu-server 8.2.5, under the same names
        (mdev=nvidia-NUMBER); an entry that names the card itself does not start.
    Look at: `ls /sys/bus/pci/devices/ADDRESS/nvidia`; `pve-passthrough vgpu list`.
    Fix: Name a virtual function, or a mapping of several, in the guest's entry.
    Source: qemu-server PCI.pm, create_nvidia_device (8.2.5); pve-common SysFSTools.pm, get_mdev_types.
    """
    for guest, entry in _entries(facts, request):
        for address in entry.addresses:
            device = facts.device(address)
            if device is None or nvidia_number(entry.mdev) is None or not device.virtual_functions:
                continue
            functions = [one for one in map(facts.device, device.virtual_functions) if one and one.nvidia_types]
            if functions and not device.mediated_types:
                yield Finding(
                    "vgpu.mdev-on-vfio", Level.HARMS, str(address),
                    f"{guest.name} ({guest.vmid}) names {device} for its share, but on this kernel the types belong to "
                    "its virtual functions.",
                    (_line(guest, entry), f"{functions[0].address}: has nvidia/creatable_vgpu_types"), Actor.US,
                    show("Take the entry out, and give the share anew.", f"qm set {guest.vmid} --delete {entry.key}",
                         f"pve-passthrough up {address} --vm {guest.vmid} --mdev {entry.mdev}"),
                )  # fmt: skip


def gvt_generation(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can this Intel graphics be shared by GVT-g?

    Why: GVT-g exists for Broadwell to Comet Lake only. Ice, Jasper and Rocket Lake have neither GVT-g nor virtual
        functions; from Tiger Lake on virtual functions take its place. The argument i915.enable_gvt=1 does nothing
        there.
    Look at: `lspci -nn -s 00:02.0`; /proc/cmdline.
    Fix: Take the argument away; from Tiger Lake on use virtual functions, else give the graphics as a whole or use a
        container with /dev/dri.
    Source: kernel 6.18: drivers/gpu/drm/i915/intel_gvt.c, is_supported_device; drivers/gpu/drm/xe/xe_pci.c, has_sriov.
    """
    asked = "i915.enable_gvt=1" in (facts.kernel.cmdline or "").split()
    for device in facts.devices:
        row = igpu(device)
        if row is None or row.way is Igpu.GVT or not asked:
            continue
        other = "shared through virtual functions instead" if row.way is Igpu.SRIOV else "not shared at all"
        yield Finding(
            "vgpu.gvt-generation", Level.NOTE, str(device.address),
            f"{device} has no GVT-g: {row.name} graphics are {other}, and i915.enable_gvt=1 does nothing.",
            (f"/proc/cmdline: {facts.kernel.cmdline}", f"{device.address}: {device.id}"),
            fix=show("Take the argument away."),
        )  # fmt: skip


def mig(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it a card that can be cut into instances (MIG)?

    Why: A30, A100, H100 and their successors can be cut into GPU instances by hardware. While MIG is on, NVIDIA's
        driver offers only types that are backed by an instance, and none before instances have been made; while it is
        off, only time-shared ones. This program lists what the driver offers and makes no instances.
    Look at: `nvidia-smi -i ADDRESS --query-gpu=mig.mode.current --format=csv`; `nvidia-smi mig -lgi`.
    Fix: Decide for one mode per card; make the instances with `nvidia-smi mig -cgi PROFILE -C` before guests start.
    Source: NVIDIA Multi-Instance GPU user guide; NVIDIA vGPU user guide, MIG-backed vGPU (read, not tried here).
    """
    for device in _cards(facts, request):
        row = vgpu_generation(device)
        number = device.product or 0
        if device.vendor == NVIDIA and (number in _MIG_AMPERE or (row is not None and row.name in _MIG_GENERATIONS)):
            yield Finding(
                "vgpu.mig", Level.NOTE, str(device.address),
                f"{device} may be cut into instances (MIG): which types it offers depends on that mode.",
                (f"{device.address}: {device.id}",), Actor.NOBODY,
                show("See the mode.", f"nvidia-smi -i {device.address} --query-gpu=mig.mode.current --format=csv"),
            )  # fmt: skip


def licence(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest have a licence for its vGPU?

    Why: NVIDIA's vGPU is licensed per guest: the guest gets its licence from a CLS or DLS licence server by a client
        token, and needs the vGPU guest driver of a release that fits the host's. What a guest without one can do is
        not known here.
    Look at: in the guest, `nvidia-smi -q | grep -i licen`.
    Fix: Put the client token into the guest and install the guest driver of the same release.
    Source: NVIDIA Virtual GPU Client Licensing User Guide.
    """
    for device in _cards(facts, request):
        if device.vendor == NVIDIA:
            yield Finding(
                "vgpu.licence", Level.NOTE, str(device.address), f"{LICENCE}.", (f"{device.address}: {device.id}",),
                fix=show("Put the client token into the guest.", "nvidia-smi -q | grep -i licen"),
            )  # fmt: skip


def whole_and_share(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is a card given to one guest as a whole and shared with another?

    Why: Whoever gets a card as a whole takes it from the driver that shares it: its types vanish, and guests with a
        share do not start. While a share is in use, the card cannot be taken.
    Look at: the lines hostpciN of both guests.
    Fix: Decide for one of the two.
    Source: qemu-server PCI.pm, prepare_pci_device; kernel: drivers/vfio/mdev.
    """
    yield from _whole_asked(facts, request)
    owners: dict[Address, tuple[Vm, HostPci]] = {}
    for guest in facts.guests or ():
        if is_local(facts, guest):
            owners.update({address: (guest, entry) for entry in whole(guest) for address in entry.addresses})
    for guest, entry in _entries(facts, request):
        for address in entry.addresses:
            device = facts.device(address)
            card = _card(facts, device) if device else None
            other = owners.get(address) or (owners.get(card.address) if card else None)
            if other is not None:
                yield Finding(
                    "vgpu.whole-and-share", Level.HARMS, f"vm:{guest.vmid}",
                    f"{guest.name} ({guest.vmid}) has a share of {card or address}, and {other[0].name} "
                    f"({other[0].vmid}) has all of it: only one of them can run.",
                    (_line(guest, entry), _line(*other)), Actor.NOBODY,
                    show("Decide for one.", f"qm set {other[0].vmid} --delete {other[1].key}"),
                )  # fmt: skip


def _whole_asked(facts: Facts, request: Request) -> Iterator[Finding]:
    """A card is to be given as a whole, and guests have shares of it through its virtual functions."""
    for device in map(facts.device, request.addresses if not request.share else ()):
        for address in device.virtual_functions if device else ():
            for guest, entry in sharers(facts.guests or (), address):
                if not is_local(facts, guest):
                    continue
                yield Finding(
                    "vgpu.whole-and-share", Level.BLOCKS if guest.running else Level.HARMS, str(address),
                    f"{guest.name} ({guest.vmid}) {'runs with' if guest.running else 'has'} a share of {device}, and "
                    "who has all of a card leaves none.",
                    (_line(guest, entry),), Actor.NOBODY,
                    show("Decide for one.", f"qm set {guest.vmid} --delete {entry.key}"), "guest-conflict",
                )  # fmt: skip


def type_gone(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the device still offer the type that the guest names?

    Why: Types come and go with the driver's version, its mode and the kernel. A guest that names one that is not
        offered does not start: "pci device '…' has no type '…'", or "vgpu type '…' not available for '…'".
    Look at: `pve-passthrough vgpu types ADDRESS`; `qm config VMID`.
    Fix: Give the guest a type that is offered; where none is, see to the driver.
    Source: qemu-server PCI/Mdev.pm, pci_create_mdev_device and create_nvidia_device; recorded starts on 8.4 and 9.2.
    """
    for guest, entry in _entries(facts, request):
        if facts.mediated is None:
            yield unknown(
                "vgpu.type-gone", f"vm:{guest.vmid}", f"Whether {entry.mdev} is still offered, nobody could say.",
                reason(facts, "mediated"),
            )  # fmt: skip
            return
        parents = [one for address in entry.addresses if (one := facts.mediated.at(address)) is not None]
        if not entry.addresses or any(_has(facts, parent, guest, entry) for parent in parents):
            continue
        offered = list(dict.fromkeys(kind.id for parent in parents for kind in parent.types))
        where = names(facts.device(address) or address for address in entry.addresses[:3])
        yield Finding(
            "vgpu.type-gone", Level.BLOCKS, f"vm:{guest.vmid}",
            f"{guest.name} ({guest.vmid}) does not start: {where} does not offer {entry.mdev}.",
            (_line(guest, entry), f"offered: {', '.join(offered[:12]) or 'nothing'}"), Actor.NOBODY,
            show("Give it a type that is offered.", f"pve-passthrough vgpu types {entry.addresses[0]}"),
        )  # fmt: skip


def _has(facts: Facts, parent: Parent, guest: Vm, entry: HostPci) -> bool:
    """Offered, or in use by this very guest; a virtual function of a full card offers nothing to the next."""
    if parent.type(entry.mdev) is not None or parent.current == entry.mdev:
        return True
    if parent.way == VF:
        return any(one.current == entry.mdev or one.type(entry.mdev) for one in _siblings(facts, parent))
    return False


def _siblings(facts: Facts, parent: Parent) -> list[Parent]:
    """The other virtual functions of the same card."""
    device = facts.device(parent.address) if parent.address else None
    card = device.physical_function if device else None
    mediated = facts.mediated
    if card is None or mediated is None:
        return []
    own = {one.address for one in facts.devices if one.physical_function == card}
    return [one for one in mediated.parents if one.address in own]


def instances(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there a share left for the guest?

    Why: A device has so many shares and no more, and without a mixed mode all shares of an NVIDIA card have as much
        memory. A virtual function serves one guest. Who starts last does not start: "has no available instances", "not
        available for", "already in use by VMID".
    Look at: `pve-passthrough vgpu list`.
    Fix: Stop a guest that has one, take smaller types, or let a mapping of several functions choose.
    Source: qemu-server PCI/Mdev.pm, pci_create_mdev_device; PCI.pm, reserve_pci_usage; NVIDIA vGPU user guide.
    """
    for guest, entry in _entries(facts, request):
        if facts.mediated is None or guest.running:
            continue
        parents = [one for address in entry.addresses if (one := facts.mediated.at(address)) is not None]
        if not parents or any(_free(facts, one, guest, entry) for one in parents):
            continue
        taken = [line for one in parents for line in _in_use(facts, one)]
        yield Finding(
            "vgpu.instances", Level.HARMS, f"vm:{guest.vmid}",
            f"{guest.name} ({guest.vmid}) does not start now: no share of type {entry.mdev} is left.",
            (_line(guest, entry), *taken[:8]), Actor.NOBODY,
            show("Stop a guest that has one, or take smaller types.", "pve-passthrough vgpu list"),
        )  # fmt: skip


def _free(facts: Facts, parent: Parent, guest: Vm, entry: HostPci) -> bool:
    """Whether one more can be made; unknown counts as yes, and so does a type that is not offered (another rule)."""
    mediated = facts.mediated
    kind = parent.type(entry.mdev)
    if parent.way == MDEV:
        own = mediated is not None and any(
            guest_of(one.uuid) == (guest.vmid, entry.key) for one in mediated.of(parent.name)
        )
        return own or kind is None or kind.available != 0
    holders = [other for other, _ in sharers(facts.guests or (), parent.address or Address(0, 0, 0, 0))]
    held = any(other.vmid != guest.vmid and other.running for other in holders)
    if parent.current:
        return parent.current == entry.mdev and not held
    return not held and (kind is not None or not _siblings_in_use(facts, parent))


def _siblings_in_use(facts: Facts, parent: Parent) -> bool:
    return any(one.current for one in _siblings(facts, parent))


def _in_use(facts: Facts, parent: Parent) -> list[str]:
    mediated = facts.mediated
    found = [f"{parent.name}: is {parent.current}"] if parent.current else []
    for one in mediated.of(parent.name) if mediated is not None else ():
        owner = guest_of(one.uuid)
        found.append(f"{parent.name}: {one.type} in use by {f'guest {owner[0]}' if owner else one.uuid}")
    return found


def mapping_mdev(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the mapping that the guest's share goes through marked for shares?

    Why: Proxmox VE compares a mapping's mark `mdev` with what the device is. A mapping of a shared device has to carry
        mdev=1 since qemu-server 8.3.9, or the start fails: "PCI device mapping invalid (hardware probably
        changed)".
    Look at: /etc/pve/mapping/pci.cfg, the line `mdev`; `pvesh get /cluster/mapping/pci`.
    Fix: Tick `Use with Mediated Devices` in the mapping; with `pvesh set` the lines `map` have to be given again
        (recorded: "missing value for required option 'map'").
    Source: pve-guest-common, PVE/Mapping/PCI.pm, assert_valid; recorded exchanges with Proxmox VE 8.4 and 9.2.
    """
    for guest, entry in _entries(facts, request):
        found = next((one for one in facts.mappings if one.kind == "pci" and one.name == entry.mapping), None)
        if found is None or found.options.get("mdev", "0").lower() in _TRUE:
            continue
        properties = ({"node": one.node, "path": one.path, **one.options} for one in found.entries[:8])
        lines = [f"--map {','.join(f'{key}={text}' for key, text in one.items())}" for one in properties]
        yield Finding(
            "vgpu.mapping-mdev", Level.HARMS, f"vm:{guest.vmid}",
            f"{guest.name} ({guest.vmid}) has a share through the mapping {found.name}, which is not marked for them.",
            (_line(guest, entry), f"/etc/pve/mapping/pci.cfg: {found.name}: mdev is not set"), Actor.NOBODY,
            show("Mark it.", f"pvesh set /cluster/mapping/pci/{found.name} --mdev 1 {' '.join(lines)}"),
        )  # fmt: skip
