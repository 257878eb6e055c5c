"""Device nodes for containers: from words to nodes, and the plan that gives or takes them.

1. Pure. Entries are `dev[n]` lines alone; raw lxc.* lines are nobody's but root's and are only talked about.
2. The group's number is that of the container, never the host's; where nobody could read it, nothing is planned.
3. A device that belongs to a guest, or that vfio-pci has or will have, is refused with the way to free it.
4. What is given is remembered: which function stood behind the node. Node numbers follow the order in which drivers
   load, and may mean another card after the next boot.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import replace

from ..errors import Exit, Failure
from ..knowledge.containers import NEEDS_VERSION, NVIDIA_NODES, NVIDIA_VERSION, NodeKind, kind_of, refused
from ..model.ct import MOST_DEVICES, Ct, CtDevice, DevNode, is_dev_path, render_device, same_device
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level, Safety
from ..model.own import CLAIM_SCRIPT, MODPROBE
from ..model.pci import Address, Device
from ..model.plan import Cell, Change, Expectation, Plan
from ..model.sighting import remember
from ..model.usb_guest import usb_entries
from ..model.value import dataclass
from ..model.vm import Vm
from . import claim_script, edit_modprobe
from .choose import is_usb_word, resolve
from .goals import unknown
from .proof import Unprovable
from .usb import resolve_usb

CONFLICT = "container-conflict"
"""The hazard of a device that a guest and a container both have."""


@dataclass(frozen=True, slots=True)
class How:
    """What was asked for beside the device; empty and None: what fits the kind of node.

    by_path  the name that follows the slot, not the order of loading (/dev/dri/by-path); the container sees that name
    """

    gid: int | None = None
    group: str = ""
    uid: int | None = None
    mode: str = ""
    deny_write: bool = False
    by_path: bool = False


# -- the container -------------------------------------------------------------------------------


def changeable(facts: Facts, number: int) -> Ct:
    """The container, when it may be changed. Raises Failure `lxc.*`."""
    if facts.own_containers is None:
        raise unknown(facts, "own_containers", "which containers there are")
    found = facts.container(number)
    if found is None:
        raise _missing(facts, number)
    if found.template:
        raise _unfit("lxc.template", f"{found.name} ({number}) is a template; a container made from it gets a device.")
    if found.lock:
        raise _unfit("lxc.locked", f"{found.name} ({number}) is locked ({found.lock}): something works on it.",
                     hint=f"Wait for it. If nothing does any more: pct unlock {number}")  # fmt: skip
    return found


def _missing(facts: Facts, number: int) -> Failure:
    if facts.guest(number) is not None:
        return _unfit("lxc.is-vm", f"{number} is a virtual machine, no container.",
                      hint=f"pve-passthrough plan DEVICE --vm {number}", code=Exit.USAGE)  # fmt: skip
    where = (facts.containers or {}).get(number)
    if where is not None:
        return _unfit("lxc.other-node", f"container {number} is on {where}, and its devices are that node's.",
                      hint=f"Run pve-passthrough on {where}.", code=Exit.USAGE)  # fmt: skip
    there = [f"{one.number}: {one.name}" for one in facts.own_containers or ()]
    return _unfit("lxc.missing", f"this node has no container {number}.", *there, hint="pct list", code=Exit.USAGE)


def _unfit(ref: str, message: str, *context: str, hint: str = "", code: Exit = Exit.REFUSED) -> Failure:
    return Failure(ref, f"Nothing was planned: {message}", *context, hint=hint, code=code)


def _refuse_old(facts: Facts) -> None:
    text = facts.pve.version
    match = re.match(r"(\d{1,3})\.(\d{1,3})", text or "")
    if match is None:
        raise unknown(facts, "pve.version", "whether this Proxmox VE has dev[n] entries")
    if (int(match.group(1)), int(match.group(2))) < NEEDS_VERSION:
        raise _unfit("lxc.too-old", f"dev[n] entries came with Proxmox VE 8.1, this is {text}.",
                     hint="Upgrade this node; raw lxc.cgroup2 and lxc.mount.entry lines are the old way.")  # fmt: skip


# -- the nodes -----------------------------------------------------------------------------------


def nodes_named(facts: Facts, words: Sequence[str]) -> tuple[DevNode, ...]:
    """The nodes that the words mean, each once. Raises Failure `lxc.*`, `device.*`."""
    if facts.dev_nodes is None:
        raise unknown(facts, "dev_nodes", "which device nodes there are")
    found: dict[str, DevNode] = {}
    for word in words:
        found.update({node.path: node for node in _named(facts, word.strip())})
    return tuple(found.values())


def _named(facts: Facts, word: str) -> tuple[DevNode, ...]:
    nodes = facts.dev_nodes or ()
    if word.startswith("/") or ".." in word:
        return (_by_path(nodes, word),)
    if word == "kfd":
        return (_by_path(nodes, "/dev/kfd"),)
    if word == "nvidia":
        return _nvidia(nodes, None)
    if is_usb_word(facts, word):
        return _usb(facts, word)
    return _by_device(facts, word)


def _by_path(nodes: Iterable[DevNode], path: str) -> DevNode:
    if not is_dev_path(path):
        raise _unfit("lxc.bad-path", f"{path!r} is no path of a device.", code=Exit.USAGE,
                     hint="Proxmox takes paths below /dev, without . and ..")  # fmt: skip
    if (why := refused(path)) is not None:
        raise _unfit("lxc.not-for-containers", f"{path} is given to no container: {why[0]}.", hint=why[1])
    node = next((one for one in nodes if path == one.path or path in one.links), None)
    if node is None:
        raise _absent(path)
    if node.type == "b":
        raise _unfit(
            "lxc.block-device", f"{path} is a disk: a container that writes to it can destroy what the host has on it.",
            hint="Give the container a directory or a volume instead: pct set ID --mp0 /path,mp=/path",
        )  # fmt: skip
    return node if path == node.path else replace(node, path=path)


def _absent(path: str) -> Failure:
    hint = "pve-passthrough lxc list shows what there is."
    if path in NVIDIA_NODES:
        hint = "nvidia-modprobe -c 0 -u -m makes it; at every boot: pve-passthrough explain lxc.absent-node"
    return _unfit("lxc.no-node", f"there is no device {path} on this host now, and the container would not start.",
                  hint=hint, code=Exit.COULD_NOT)  # fmt: skip


def _nvidia(nodes: Sequence[DevNode], card: Address | None) -> tuple[DevNode, ...]:
    """The cards (one, if named) and what every CUDA program opens beside them."""
    cards = [one for one in nodes if re.fullmatch(r"/dev/nvidia\d+", one.path) and card in (None, one.address)]
    if not cards:
        raise _unfit("lxc.no-node", "NVIDIA's driver has made no device nodes on this host.",
                     hint="nvidia-smi on the host must work first; then: nvidia-modprobe -c 0 -u -m",
                     code=Exit.COULD_NOT)  # fmt: skip
    shared = [_by_path(nodes, path) for path in NVIDIA_NODES if path != "/dev/nvidia-modeset"]
    modeset = [one for one in nodes if one.path == "/dev/nvidia-modeset"]
    return (*cards, *shared, *modeset)


def _usb(facts: Facts, word: str) -> tuple[DevNode, ...]:
    """The serial lines of a USB device, by the names that follow the adapter."""
    (choice,) = resolve_usb(facts, [word])
    found = [one for one in facts.dev_nodes or () if choice.device is not None and one.port == choice.device.port]
    if not found:
        raise _unfit(
            "lxc.no-node", f"{choice} has no device node that a container could be given by a lasting name.",
            hint=f"Give it to a guest instead: pve-passthrough plan {word} --vm ID",
        )  # fmt: skip
    return tuple(replace(one, path=one.links[0]) if one.links else one for one in found)


def _by_device(facts: Facts, word: str) -> tuple[DevNode, ...]:
    """The nodes of the function that a word names; of graphics the render node, which is all that a program needs."""
    device = next(one for one in map(facts.device, resolve(facts, [word], alone=True)) if one is not None)
    nodes = [one for one in facts.dev_nodes or () if one.address == device.address]
    if any(re.fullmatch(r"/dev/nvidia\d+", one.path) for one in nodes):
        return _nvidia(facts.dev_nodes or (), device.address)
    if device.driver == "nvidia" and device.is_display:
        return _nvidia(facts.dev_nodes or (), device.address)
    chosen = [one for one in nodes if (kind := kind_of(one.path)) is not None and kind.name not in ("card", "serial")]
    if chosen:
        return tuple(chosen)
    raise _no_node(facts, device, nodes)


def _no_node(facts: Facts, device: Device, nodes: Sequence[DevNode]) -> Failure:
    if device.driver == "vfio-pci":
        return _bound(facts, device)
    if nodes:
        return _unfit("lxc.no-node", f"{device} has no node of the kind that programs share.",
                      *(one.path for one in nodes), hint="Name the node that you mean.", code=Exit.USAGE)  # fmt: skip
    held = f"held by {device.driver}" if device.driver else "held by no driver"
    return _unfit("lxc.no-node", f"{device} has no device node that a container could share: it is {held}.",
                  hint=_INSTEAD.get(device.base_class or 0, "pve-passthrough lxc list"))  # fmt: skip


_INSTEAD = {
    0x01: "Give the container a directory or a volume: pct set ID --mp0 /path,mp=/path",
    0x02: "Containers share a network card through a bridge: pct set ID --net0 name=eth0,bridge=vmbr0,ip=dhcp",
    0x03: "Load the host's driver for it; a container uses the host's driver and brings none.",
    0x0C: "Name what is plugged into it: usb:PORT; pve-passthrough devices --usb",
}
"""What to do instead, by the function's class."""


def _bound(facts: Facts, device: Device) -> Failure:
    """Held by vfio-pci there is no node to give; the host's driver has to have it back first."""
    users = [
        f"guest {one.vmid} ({one.name}) has it: qm set {one.vmid} --delete {key}" for one, key in _users(facts, device)
    ]
    claims = [f"claimed at boot: {place}" for place in claimed_at_boot(facts, device)]
    way = "Take back the run that gave it away (pve-passthrough status, pve-passthrough undo RUN)"
    return _unfit(
        "lxc.vfio-bound", f"{device} is bound to vfio-pci, so the host has no device node of it to share.",
        f"/sys/bus/pci/devices/{device.address}/driver: vfio-pci", *users, *claims,
        hint=f"{way}, and reboot if it was claimed at boot." if claims else f"{way}, or stop the guest.",
    )  # fmt: skip


def _users(facts: Facts, device: Device) -> Iterator[tuple[Vm, str]]:
    for guest in facts.guests or ():
        here = facts.pve.node is None or not guest.node or guest.node == facts.pve.node
        for entry in guest.hostpci if here else ():
            if device.address in entry.addresses:
                yield guest, entry.key


def claimed_at_boot(facts: Facts, device: Device) -> tuple[str, ...]:
    """Where it is written down that vfio-pci takes this function at boot."""
    foreign = edit_modprobe.foreign_ids(facts.files)
    found = [f"{path}: ids={device.id}" for path, ids in foreign.items() if device.id in ids]
    if device.id in edit_modprobe.own_ids(facts.files.get(MODPROBE)):
        found.append(f"{MODPROBE}: ids={device.id}")
    if device.id in _words_of(facts):
        found.append(f"kernel command line: vfio-pci.ids={device.id}")
    try:
        if device.address in claim_script.claims_of(facts.files.get(CLAIM_SCRIPT)):
            found.append(f"{CLAIM_SCRIPT}: {device.address}")
    except Unprovable:
        found.append(f"{CLAIM_SCRIPT}: could not be understood")
    return tuple(found)


def _words_of(facts: Facts) -> set[str]:
    words = [word for word in (facts.kernel.cmdline or "").split() if word.startswith("vfio-pci.ids=")]
    return {one.lower() for word in words for one in word.partition("=")[2].split(",")}


# -- hazards -------------------------------------------------------------------------------------


def hazards(facts: Facts, nodes: Iterable[DevNode]) -> tuple[Finding, ...]:
    """Guests that would take the device away from the container, and claims that would at the next boot."""
    nodes = tuple(nodes)
    found = list(_usb_guests(facts, nodes))
    for device in _devices(facts, nodes):
        for guest, key in _users(facts, device):
            found.append(_guest_has_it(device, guest, key))
        claims = claimed_at_boot(facts, device)
        if claims:
            found.append(Finding(
                "lxc.also-in-container", Level.HARMS, str(device.address),
                f"{device} will be claimed by vfio-pci at the next boot: its node is gone then, and the container does "
                "not start.",
                tuple(claims), Actor.NOBODY,
                Fix("Take the claim away first.", Safety.SHOW, ("pve-passthrough status",)),
                CONFLICT,
            ))  # fmt: skip
    return tuple(found)


def _usb_guests(facts: Facts, nodes: Iterable[DevNode]) -> Iterator[Finding]:
    """A guest that takes the USB device unbinds the host's driver from it, and the node is gone (QEMU,
    hw/usb/host-libusb.c, usb_host_detach_kernel)."""
    devices = [one for one in facts.usb if one.port in {node.port for node in nodes if node.port}]
    for guest in facts.guests or ():
        here = facts.pve.node is None or not guest.node or guest.node == facts.pve.node
        for entry in usb_entries(facts, guest) if here else ():
            for device in devices:
                if device.port == entry.port or device.id == entry.id:
                    yield Finding(
                        "lxc.also-in-container", Level.HARMS, device.port,
                        f"guest {guest.vmid} ({guest.name}) takes {device} when it runs: the node is gone then.",
                        (f"{guest.vmid}.conf: {entry.key}: {entry.value}",), Actor.NOBODY,
                        _out_of_guest(guest.vmid, entry.key),
                        CONFLICT,
                    )  # fmt: skip


def _guest_has_it(device: Device, guest: Vm, key: str) -> Finding:
    vmid, name = guest.vmid, guest.name
    return Finding(
        "lxc.also-in-container", Level.HARMS, str(device.address),
        f"guest {vmid} ({name}) has {device} in its configuration: its start takes the device from the container.",
        (f"{vmid}.conf: {key}",), Actor.NOBODY,
        _out_of_guest(vmid, key), CONFLICT,
    )  # fmt: skip


def _out_of_guest(vmid: int, key: str) -> Fix:
    return Fix("Take it out of the guest first.", Safety.SHOW, (f"qm set {vmid} --delete {key}",))


def _devices(facts: Facts, nodes: Iterable[DevNode]) -> tuple[Device, ...]:
    """The functions behind the nodes; a USB device's controller is not what is given."""
    addresses = dict.fromkeys(one.address for one in nodes if one.address is not None and not one.port)
    return tuple(device for address in addresses if (device := facts.device(address)) is not None)


# -- plans ---------------------------------------------------------------------------------------


def add(
    facts: Facts, number: int, nodes: Sequence[DevNode], how: How, groups: Mapping[str, int] | None, *, now: str,
    machine: str,
) -> Plan:  # fmt: skip
    """The plan that gives these nodes to the container. Raises Failure.

    `groups`: the container's own, None: nobody could read them.
    """
    _refuse_old(facts)
    ct = changeable(facts, number)
    changes: list[Change] = []
    taken = {key for key in {*ct.config, *ct.pending} if key.startswith("dev")}
    for node in nodes:
        path = _path(node, how)
        present = next((one for one in ct.devices if one.path in {path, node.path, *node.links}), None)
        key = present.key if present else _free_key(ct, taken)
        taken.add(key)
        text = render_device(path, _gid(ct, node, how, groups), how.uid, _mode(node, how), how.deny_write)
        if not same_device(ct.value(key), text):
            why = f"{ct.name} gets {_behind(facts, node)}"
            changes.append(Change(Cell("ct", f"{number}/{key}"), ct.value(key), text, why))
    given = [replace(node, path=_path(node, how)) for node in nodes]
    return _plan(facts, ct, given, changes, f"give {', '.join(one.path for one in given)} to container {number}",
                 now, machine, _notes(facts, ct, nodes, how))  # fmt: skip


def _path(node: DevNode, how: How) -> str:
    return node.links[0] if how.by_path and node.links and node.path not in node.links else node.path


def _free_key(ct: Ct, taken: set[str]) -> str:
    key = next((f"dev{number}" for number in range(MOST_DEVICES) if f"dev{number}" not in taken), None)
    if key is None:
        raise _unfit("lxc.full", f"{ct.name} ({ct.number}) has all of its {MOST_DEVICES} dev[n] entries in use.",
                     hint=f"pve-passthrough lxc remove devN --ct {ct.number}")  # fmt: skip
    return key


def _gid(ct: Ct, node: DevNode, how: How, groups: Mapping[str, int] | None) -> int | None:
    """The group's number inside the container; None: the node is open to everybody, or a user was named instead."""
    if how.gid is not None:
        return how.gid
    kind = kind_of(node.path)
    name = how.group or _group_of(ct, node, kind, how)
    if not name:
        return None
    if groups is None:
        raise _unfit(
            "lxc.groups-unknown",
            f"the number of the group {name} in {ct.name} ({ct.number}) is unknown: "
            + ("the container does not run." if ct.running is False else "it could not be asked."),
            "numbers differ between distributions, and the host's own says nothing about the container",
            hint=f"pct start {ct.number}, then run this again; or give the number yourself: --gid N",
        )  # fmt: skip
    if name not in groups:
        there = [f"{one}: {gid}" for one, gid in sorted(groups.items()) if one in ("render", "video", "dialout", "tty")]
        raise _unfit(
            "lxc.no-group", f"{ct.name} ({ct.number}) has no group {name}.", *there,
            hint=f"pct exec {ct.number} -- groupadd --system {name}, then run this again; or another: --group NAME",
        )  # fmt: skip
    return groups[name]


def _group_of(ct: Ct, node: DevNode, kind: NodeKind | None, how: How) -> str:
    if how.uid is not None or how.mode.endswith(("6", "7")):
        return ""
    if kind is not None and kind.group is not None:
        return kind.group
    raise _unfit("lxc.group-unsaid", f"nothing says which group in {ct.name} should open {node.path}.",
                 hint="Say it: --group NAME, --gid N, --uid N or --mode 0666.", code=Exit.USAGE)  # fmt: skip


def _mode(node: DevNode, how: How) -> str:
    """Always written: what Proxmox takes when it is left out is not documented."""
    if how.mode:
        return how.mode
    kind = kind_of(node.path)
    return "0666" if kind is not None and kind.group == "" else "0660"


def _behind(facts: Facts, node: DevNode) -> str:
    device = facts.device(node.address) if node.address is not None and not node.port else None
    usb = next((one for one in facts.usb if node.port and one.port == node.port), None)
    if device is not None:
        return f"{node.path} of {device}"
    return f"{node.path} of {usb.name} at {usb.port}" if usb is not None else node.path


def remove(facts: Facts, number: int, words: Sequence[str], *, now: str, machine: str) -> Plan:
    """The plan that takes entries away: by key, by path, or by a word that names the device. Raises Failure."""
    ct = changeable(facts, number)
    found: dict[str, CtDevice] = {}
    for word in words:
        found.update({one.key: one for one in _entries(facts, ct, word.strip())})
    changes = [
        Change(Cell("ct", f"{number}/{key}"), ct.value(key), None, f"{ct.name} gives {one.path} up")
        for key, one in found.items()
    ]
    paths = ", ".join(one.path for one in found.values())
    return _plan(facts, ct, (), changes, f"take {paths} from container {number}", now, machine, _waits(ct))


def _entries(facts: Facts, ct: Ct, word: str) -> list[CtDevice]:
    direct = [one for one in ct.devices if word in (one.key, one.path)]
    if direct:
        return direct
    lines = [
        *(f"{one.key}: {one.path}" for one in ct.devices),
        *(f"raw, edited by root alone: {one.line}" for one in ct.mounts),
    ]
    if re.fullmatch(r"dev\d+", word) or word.startswith("/"):
        raise _unfit("lxc.not-given", f"{ct.name} ({ct.number}) has no {word}.", *lines, code=Exit.USAGE,
                     hint="pve-passthrough lxc list")  # fmt: skip
    paths = {name for node in nodes_named(facts, [word]) for name in (node.path, *node.links)}
    found = [one for one in ct.devices if one.path in paths]
    if not found:
        raise _unfit("lxc.not-given", f"{ct.name} ({ct.number}) has nothing of {word}.", *lines, code=Exit.USAGE,
                     hint="Name the entry: devN.")  # fmt: skip
    return found


def _plan(
    facts: Facts, ct: Ct, nodes: Sequence[DevNode], changes: Sequence[Change], goal: str, now: str, machine: str,
    risks: Iterable[Finding],
) -> Plan:  # fmt: skip
    devices = _devices(facts, nodes)
    known = [
        one for one in nodes if one.address is not None and not one.port and not one.path.startswith("/dev/nvidia")
    ]
    return Plan(
        id=f"{now}-lxc-{ct.number}{'' if nodes else '-remove'}",
        machine=machine,
        goal=goal,
        changes=tuple(changes),
        expects=tuple(Expectation(Cell("node", one.path), str(one.address), "the same card as now") for one in known)
        if changes else (),
        risks=tuple(risks),
        devices={str(device.address): device.id for device in devices},
        identities=remember(facts, tuple(device.address for device in devices)),
    )  # fmt: skip


# -- what a person should know -------------------------------------------------------------------


def _notes(facts: Facts, ct: Ct, nodes: Sequence[DevNode], how: How) -> Iterator[Finding]:
    subject = f"ct:{ct.number}"
    raw = [one.line for one in ct.mounts if any(_covers(one.source, node) for node in nodes)]
    if raw:
        yield Finding(
            "lxc.raw-lines", Level.HARMS, subject,
            "The container has the same node by raw lines already: take those out, or it has it twice.",
            tuple(f"{ct.number}.conf: {line}" for line in raw), Actor.NOBODY,
            Fix("Edit the file as root, then restart the container.", Safety.SHOW,
                (f"editor /etc/pve/lxc/{ct.number}.conf",)),
        )  # fmt: skip
    cards = [one for one in facts.dev_nodes or () if re.fullmatch(r"/dev/dri/renderD\d+", one.path)]
    if len(cards) > 1 and any(one in cards for one in nodes) and not how.by_path:
        yield Finding(
            "lxc.node-renumbered", Level.NOTE, subject,
            f"This host has {len(cards)} render nodes, and their numbers follow the order in which drivers load. "
            "The run remembers which card is behind; --by-path uses the name of the slot instead.",
            tuple(f"{one.path}: {one.address}" for one in cards), Actor.NOBODY,
        )  # fmt: skip
    if any(one.path.startswith("/dev/nvidia") for one in nodes):
        yield Finding("lxc.absent-node", Level.NOTE, subject, NVIDIA_VERSION,
                      ("/proc/driver/nvidia/version: the host driver's version",), Actor.NOBODY)  # fmt: skip
    amd = any((device.driver == "amdgpu") for device in _devices(facts, nodes))
    if amd and "/dev/kfd" not in {one.path for one in nodes} | {one.path for one in ct.devices}:
        yield Finding("lxc.better", Level.NOTE, subject, "For ROCm it needs /dev/kfd as well: add the word kfd.",
                      ("/dev/kfd: one node for all of AMD's cards",), Actor.NOBODY)  # fmt: skip
    yield from _waits(ct, adding=True)


def _covers(source: str, node: DevNode) -> bool:
    return any(name == source or name.startswith(f"{source}/") for name in (node.path, *node.links))


def _waits(ct: Ct, adding: bool = False) -> Iterator[Finding]:
    """On a running container Proxmox plugs a new entry in; anything else waits (pve-container,
    vmconfig_hotplug_pending)."""
    if ct.running is False:
        return
    message = (
        "An entry that is new is plugged into the running container at once where this Proxmox VE can; one that is "
        "changed waits for its next start."
        if adding
        else "The container keeps the device until it is stopped and started."
    )
    yield Finding("lxc.waits", Level.NOTE, f"ct:{ct.number}", message, (), Actor.NOBODY,
                  Fix("Then, when it suits:", Safety.SHOW, (f"pct reboot {ct.number}",)))  # fmt: skip
