"""Giving a share of a device: which function serves it, what the guest's configuration says, what forbids it.

1. Pure. The device stays with the host's driver: no claim at boot, no group leaves the host. Proxmox VE makes the share
   when the guest starts and ends it afterwards (qemu-server PCI.pm, prepare_pci_device; recorded on 8.4 and 9.2).
2. A type is taken only where the device offers it now. What it does not offer is refused with what it does offer, and a
   device that offers none with the reason, as far as one is known.
3. Nothing of a driver is installed here, and nothing is unlocked.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..errors import Exit, Failure
from ..knowledge.vgpu import (
    GVT_ARGUMENT,
    GVT_MODULE,
    NVIDIA_MODULE,
    OWN_WAY_SINCE,
    SRIOV_UNIT,
    Igpu,
    desktop_card,
    igpu,
    vgpu_generation,
)
from ..model.facts import Facts, ResourceMapping
from ..model.mediated import MDEV, Mediated, MediatedType, Parent, guest_of, plain_type, sharers, shares, whole
from ..model.pci import Address, Device
from ..model.texts import split_cmdline
from ..model.vm import HostPci, Vm, expand_host
from ..model.wish import ArgPresent, Text, VmOption, Wish
from .choose import resolve
from .goals import changeable_guest, free_key, guest_drivers_need, iommu, is_q35, refuse_busy, refuse_pending, unknown

GVT_FILE = "/etc/modules-load.d/pve-passthrough-gvt.conf"
_NVIDIA = 0x10DE
_SHOWN = 12


# -- which function ------------------------------------------------------------------------------


def share_of(facts: Facts, words: Sequence[str], identity: str, vmid: int) -> tuple[tuple[Address, ...], str]:
    """(functions that may serve the share, name of the mapping that they are given through or nothing).

    A card's name stands for the first of its virtual functions that is free and offers the type.
    """
    if not plain_type(identity):
        raise Failure(
            "vgpu.type-name", f"Nothing was planned: {identity[:80]!r} is no name of a type.",
            hint="`pve-passthrough vgpu list` shows the types, such as i915-GVTg_V5_4 or nvidia-660.", code=Exit.USAGE,
        )  # fmt: skip
    mediated = known(facts)
    if len(words) != 1:
        raise Failure(
            "vgpu.one-device", f"Nothing was planned: a share is of one device, and {len(words)} were named.",
            hint="Name one device; give the next share with a second call.", code=Exit.USAGE,
        )  # fmt: skip
    mapping = next((one for one in facts.mappings if one.kind == "pci" and one.name == words[0].strip()), None)
    if mapping is not None:
        return _through(facts, mediated, mapping, identity), mapping.name
    _refuse_foreign_parent(mediated, words[0].strip())
    named = [device for address in resolve(facts, words, alone=True) if (device := facts.device(address))]
    device = _the_one(mediated, named, words[0])
    parents = _parents_of(facts, mediated, device)
    if not parents:
        raise _offers_nothing(facts, device)
    return (_serving(facts, device, parents, identity, vmid),), ""


def known(facts: Facts) -> Mediated:
    if facts.mediated is None:
        raise unknown(facts, "mediated", "which shares the devices offer")
    return facts.mediated


def _refuse_foreign_parent(mediated: Mediated, word: str) -> None:
    if any(one.address is None and one.name == word for one in mediated.parents):
        raise Failure(
            "vgpu.not-pci", f"Nothing was planned: {word} is no PCI device, and Proxmox VE gives shares of PCI devices "
            "only.", "hostpciN takes an address or a mapping of PCI devices (qemu-server PCI.pm, parse_hostpci)",
            hint="Such a share can be given with QEMU's own arguments only: qm set ID --args '-device vfio-pci,…'.",
            code=Exit.REFUSED,
        )  # fmt: skip


def _the_one(mediated: Mediated, named: Sequence[Device], word: str) -> Device:
    """Of a slot's functions the one that offers types, or is the display."""
    offering = [device for device in named if mediated.at(device.address)]
    fit = offering or [device for device in named if device.is_display] or list(named)
    if len(fit) != 1:
        raise Failure(
            "vgpu.one-device", f"Nothing was planned: {word!r} names {len(fit)} devices, and a share is of one.",
            *map(str, fit[:_SHOWN]), hint="Name one of them by its address.", code=Exit.USAGE,
        )  # fmt: skip
    return fit[0]


def _parents_of(facts: Facts, mediated: Mediated, device: Device) -> list[Parent]:
    """The device itself, or its virtual functions."""
    own = mediated.at(device.address)
    if own is not None:
        return [own]
    return [one for address in device.virtual_functions if (one := mediated.at(address)) is not None]


def _serving(facts: Facts, device: Device, parents: Sequence[Parent], identity: str, vmid: int) -> Address:
    """The function whose share the guest has already, else the first that can serve it."""
    guest = changeable_guest(facts, vmid)
    addresses = [one.address for one in parents if one.address is not None]
    _refuse_whole(facts, guest, device, addresses)
    had = next(
        (a for entry in shares(guest) for a in entry.addresses if a in addresses and entry.mdev == identity), None
    )
    if had is not None:
        return had
    offering = [one for one in parents if one.type(identity) is not None]
    if not offering:
        raise _no_such_type(facts, device, parents, identity)
    free = [one for one in offering if _left(facts, one, identity, vmid)]
    if not free:
        raise _none_left(facts, device, offering, identity)
    chosen = free[0].address
    if chosen is None:  # _refuse_foreign_parent has seen to it
        raise ValueError("a parent without an address")
    return chosen


def _left(facts: Facts, parent: Parent, identity: str, vmid: int) -> bool:
    """Whether one more can be made, as far as anybody can say. A virtual function serves one guest."""
    kind = parent.type(identity)
    if parent.way == MDEV:
        return kind is not None and kind.available != 0
    others = sharers((one for one in facts.guests or () if one.vmid != vmid), parent.address or Address(0, 0, 0, 0))
    return kind is not None and not parent.current and not others


def _refuse_whole(facts: Facts, guest: Vm, device: Device, serving: Iterable[Address]) -> None:
    """A card that is given away as a whole has no driver on the host that could share it."""
    card = {device.address, *serving, *((device.physical_function,) if device.physical_function else ())}
    for other in facts.guests or ():
        taken = next((entry for entry in whole(other) if card & set(entry.addresses)), None)
        if taken is None or (other.vmid != guest.vmid and not other.running):
            continue
        raise Failure(
            "vgpu.whole-card", f"Nothing was planned: guest {other.vmid} has {device} as a whole, and who has all of a "
            "card leaves none to share.", f"{taken.key}: {other.value(taken.key) or ''}",
            hint=f"Take that entry out first: qm set {other.vmid} --delete {taken.key}", code=Exit.REFUSED,
        )  # fmt: skip


def _through(facts: Facts, mediated: Mediated, mapping: ResourceMapping, identity: str) -> tuple[Address, ...]:
    """The functions of a mapping on this node, one of which offers the type; Proxmox VE takes the first free one."""
    here = [line for line in mapping.entries if facts.pve.node in (None, line.node)]
    addresses = [device.address for device in facts.devices]
    functions = [address for line in here for address in expand_host(line.path, addresses)]
    parents = [one for address in functions if (one := mediated.at(address)) is not None]
    if not functions:
        raise Failure(
            "vgpu.mapping-empty", f"Nothing was planned: the mapping {mapping.name} names no device of this node.",
            *(f"{line.node}: {line.path}" for line in mapping.entries[:_SHOWN]), hint="pve-passthrough devices",
        )  # fmt: skip
    if mapping.options.get("mdev", "0") not in ("1", "on", "yes", "true"):
        raise Failure(
            "vgpu.mapping-mdev", f"Nothing was planned: the mapping {mapping.name} is not marked for shares, so no "
            "guest starts with one.", "mdev: not set (pve-guest-common, Mapping/PCI.pm, assert_valid)",
            hint="Tick `Use with Mediated Devices` in it (Datacenter, Resource Mappings).", code=Exit.REFUSED,
        )  # fmt: skip
    if not any(one.type(identity) for one in parents):
        device = facts.device(functions[0])
        if device is not None and not parents:
            raise _offers_nothing(facts, device)
        raise _no_such_type(facts, device or mapping.name, parents, identity)
    return tuple(dict.fromkeys(one.address for one in parents if one.address is not None))


# -- what is refused, and why --------------------------------------------------------------------


def _rows(types: Iterable[MediatedType]) -> list[str]:
    return [
        f"{one.id}  {one.name}" + (f", {one.memory} MiB" if one.memory else "") + f", {left(one)} left" for one in types
    ][:40]


def left(one: MediatedType) -> str:
    return "?" if one.available is None else str(one.available)


def types_of(parents: Iterable[Parent]) -> list[MediatedType]:
    """The types of several functions, each once."""
    return list({one.id: one for parent in parents for one in parent.types}.values())


def _no_such_type(facts: Facts, device: Device | str, parents: Sequence[Parent], identity: str) -> Failure:
    others = [one for one in known(facts).parents if one.type(identity) is not None and one not in parents]
    elsewhere = [f"{identity} is a type of {facts.device(one.address) if one.address else one.name}" for one in others]
    rows = _rows(types_of(parents))
    used = [f"{one.name} is {one.current} now" for one in parents if one.current]
    return Failure(
        "vgpu.type-unknown", f"Nothing was planned: {device} does not offer {identity}.",
        *elsewhere[:3], *(rows or ["it offers no type now"]), *used[:_SHOWN],
        hint="Name one of these. Without a mixed mode all shares of one NVIDIA card have as much memory: what is in "
        "use decides what is left." if used else "Name one of these.", code=Exit.USAGE,
    )  # fmt: skip


def _none_left(facts: Facts, device: Device, parents: Sequence[Parent], identity: str) -> Failure:
    return Failure(
        "vgpu.none-left", f"Nothing was planned: {device} has no share of type {identity} left.",
        *users(facts, parents)[:_SHOWN], hint="Stop a guest that has one, or take a smaller type: pve-passthrough vgpu "
        f"types {device.address}", code=Exit.REFUSED,
    )  # fmt: skip


def users(facts: Facts, parents: Iterable[Parent]) -> list[str]:
    """Who has shares of these: what exists, and what configurations name."""
    found: list[str] = []
    for parent in parents:
        for one in known(facts).of(parent.name):
            owner = guest_of(one.uuid)
            who = f"guest {owner[0]} ({owner[1]})" if owner else "not made by Proxmox VE"
            found.append(f"{parent.name}: {one.type or 'a share'} in use, {who}")
        if parent.current:
            found.append(f"{parent.name}: is {parent.current}")
        if parent.address is not None:
            for guest, entry in sharers(facts.guests or (), parent.address):
                state = {True: "runs", False: "is stopped", None: "may run"}[guest.running]
                found.append(f"{parent.name}: guest {guest.vmid} ({guest.name}) names {entry.mdev} and {state}")
    return found


def _offers_nothing(facts: Facts, device: Device) -> Failure:
    """Why a device offers no type, as far as one can tell, with the next step."""
    why, hint = why_nothing(facts, device)
    return Failure(
        "vgpu.no-types", f"Nothing was planned: {device} offers no shares. {why}",
        f"{device.address}: {device.id}, driver {device.driver or 'none' if device.driver is not None else 'unknown'}",
        hint=hint, code=Exit.REFUSED,
    )  # fmt: skip


def why_nothing(facts: Facts, device: Device) -> tuple[str, str]:
    """(why this device offers no types, what to do), in words."""
    if device.driver == "vfio-pci":
        return (
            "vfio-pci holds it, and only its own driver can share it.",
            "Leave it to its driver: pve-passthrough status shows whether a run has claimed it; pve-passthrough undo",
        )
    if device.vendor == _NVIDIA:
        return _why_nvidia(facts, device)
    row = igpu(device)
    if row is None:
        return "Its driver has no shares that this program knows.", "pve-passthrough devices"
    if row.way is Igpu.SRIOV:
        return f"{row.name} graphics are shared through virtual functions, not types.", "pve-passthrough devices"
    if row.way is Igpu.NEITHER:
        return (
            f"{row.name} graphics can be shared neither by GVT-g nor by virtual functions.",
            "Give it as a whole, or use a container with /dev/dri.",
        )
    return (
        f"{row.name} graphics can be shared by GVT-g, which is not switched on.",
        f"pve-passthrough vgpu setup {device.address}",
    )


def _why_nvidia(facts: Facts, device: Device) -> tuple[str, str]:
    setup = f"pve-passthrough vgpu setup {device.address}"
    row = vgpu_generation(device)
    if desktop_card(device):
        unlock = f" What unlocks it is {row.unlock}, and not done here." if row is not None and row.unlock else ""
        return f"It is a desktop card, which NVIDIA does not share.{unlock}", "Give it as a whole: pve-passthrough up"
    if device.driver != "nvidia":
        return "NVIDIA's vGPU driver does not hold it.", setup
    if row is not None and row.vf and not device.virtual_functions and device.physical_function is None:
        return (
            f"Cards of its generation ({row.name}) are shared through virtual functions, and there are none.",
            f"systemctl enable --now {SRIOV_UNIT}; more: {setup}",
        )
    if facts.modules.loaded is not None and NVIDIA_MODULE not in facts.modules.loaded and not device.nvidia_types:
        return f"Its driver is not the vGPU driver: the module {NVIDIA_MODULE} is not loaded.", setup
    return "Its driver offers none.", setup


# -- the guest's configuration -------------------------------------------------------------------


def give_share(
    facts: Facts, addresses: Sequence[Address], vmid: int, identity: str, *, mapping: str = ""
) -> tuple[Wish, ...]:
    """Wishes that give a share of type `identity` to guest `vmid`. Raises Failure."""
    guest = changeable_guest(facts, vmid)
    wishes: list[Wish] = [*iommu(facts)]
    device = facts.device(addresses[0])
    if device is None:
        raise Failure("device.unknown", f"Nothing was planned: {addresses[0]} is not on this machine.", code=Exit.USAGE)
    options = _entry(facts, guest, device, addresses, identity, mapping)
    # A mediated device needs no window of its own in the guest; a virtual function is handed over as it is.
    options = [*guest_drivers_need(guest, [device] if device.nvidia_types else []), *options]
    refuse_pending(guest, options)
    wishes += options
    if wishes:
        refuse_busy(facts, guest)
    return tuple(wishes)


def _entry(
    facts: Facts, guest: Vm, device: Device, addresses: Sequence[Address], identity: str, mapping: str
) -> list[VmOption]:
    """An entry of its own; one that names another type of the same function is changed."""
    source = f"mapping={mapping}" if mapping else str(addresses[0])
    why = f"a share of {device} ({identity}){f', through the mapping {mapping}' if mapping else ''}"
    mine = [entry for entry in shares(guest) if _same_source(entry, addresses, mapping)]
    if any(entry.mdev == identity for entry in mine):
        return []
    if mine:
        kept = {
            name: text for name, text in mine[0].options.items() if name not in ("host", "mapping", "mdev", "x-vga")
        }
        value = ",".join((source, f"mdev={identity}", *(f"{name}={text}" for name, text in kept.items())))
        return [VmOption(guest.vmid, mine[0].key, value, f"{why}, instead of {mine[0].mdev}")]
    key = free_key(guest, {key for key in guest.config if key.startswith("hostpci")})
    # A virtual function is a PCI Express device; graphics inside a processor and on i440fx are not.
    express = ",pcie=1" if is_q35(guest) and device.vendor == _NVIDIA else ""
    return [VmOption(guest.vmid, key, f"{source},mdev={identity}{express}", why)]


def _same_source(entry: HostPci, addresses: Sequence[Address], mapping: str) -> bool:
    return entry.mapping == mapping if mapping else not entry.mapping and set(addresses) >= set(entry.addresses)


# -- setting up ----------------------------------------------------------------------------------


def gvt(facts: Facts, device: Device) -> tuple[Wish, ...]:
    """What the next boot needs so that i915 shares this device. Raises Failure where the kernel would not."""
    row = igpu(device)
    if row is None or row.way is not Igpu.GVT:
        why, hint = why_nothing(facts, device)
        raise Failure(
            "vgpu.gvt-unsupported", f"Nothing was planned: {device} has no GVT-g. {why}", hint=hint, code=Exit.REFUSED
        )
    if GVT_FILE not in facts.files and "/etc/modules-load.d/" not in facts.files:
        raise unknown(facts, f"files.{GVT_FILE}", "which modules are loaded at boot")
    wishes: list[Wish] = [*iommu(facts)]
    had = facts.files.get(GVT_FILE)
    text = f"# Made by pve-passthrough: shares of {device.address} by GVT-g.\n{GVT_MODULE}\n"
    if not any(_names_module(body or "") for path, body in facts.files.items() if _lists_modules(path)) and had != text:
        wishes.append(Text(GVT_FILE, text, f"{GVT_MODULE} makes i915 offer shares"))
    if GVT_ARGUMENT not in _words(facts):
        wishes.append(ArgPresent(GVT_ARGUMENT, f"{row.name} graphics are shared only when i915 is told at its start"))
    return tuple(wishes)


def _lists_modules(path: str) -> bool:
    return path == "/etc/modules" or (path.startswith("/etc/modules-load.d/") and path.endswith(".conf"))


def _names_module(text: str) -> bool:
    return any(line.strip() == GVT_MODULE for line in text.split("\n"))


def _words(facts: Facts) -> list[str]:
    """Words that every loader's source gives the next boot, as far as they can be told; else the running kernel's."""
    from .goals import next_boot

    standing = next_boot(facts)
    if not standing:
        return split_cmdline(facts.kernel.cmdline or "")
    return [word for word in standing[0] if all(word in tokens for tokens in standing)]


def own_way(facts: Facts) -> bool | None:
    """Whether NVIDIA's driver gives types to virtual functions by itself on this kernel; None: nobody could say."""
    version = facts.kernel.version
    return None if version is None else version >= OWN_WAY_SINCE
