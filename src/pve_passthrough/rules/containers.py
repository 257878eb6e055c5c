"""Rules about containers: what they have of the host's devices, what a guest takes from them, and when one is better.

1. They speak where a deep look has read the containers; a glance leaves them out, and they are silent.
2. A container shares the host's driver. So it loses its device as soon as vfio-pci has it, and does not start any more.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..knowledge.containers import NVIDIA_NODES, SHARING_DRIVERS, kind_of
from ..model.ct import Ct, DevNode
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.pci import Address, Device
from ..model.vm import Vm
from .subject import Request, assigned, chosen, show, taken, unknown


def better(facts: Facts, request: Request) -> Iterator[Finding]:
    """Would a container serve better than passing the whole card through?

    Why: A container uses the driver that the host has loaded: no IOMMU, no reset problem, live backups, and several
        containers and the host share one card. It is no isolation like a virtual machine's, it runs no Windows and
        no other kernel, and its libraries must fit the host's driver. For transcoding and for computing under Linux
        that is usually enough; for Windows, for another driver or for a hard border it is not.
    Look at: `pve-passthrough lxc list`, `lspci -k -s ADDRESS`.
    Fix: `pve-passthrough lxc add gpu --ct ID`; the host's driver must stay loaded, so the card is not claimed at boot.
    Source: Proxmox VE administration guide, Linux Container, device pass-through (dev[n], since 8.1).
    """
    if not request.addresses or facts.dev_nodes is None:
        return
    guest = facts.guest(request.vmid) if request.vmid is not None else None
    if guest is not None and (_shows_pictures(guest) or assigned(guest, request)):
        return
    for device in chosen(facts, request):
        nodes = [one for one in facts.dev_nodes if one.address == device.address and _shared(one)]
        if device.is_display and device.driver in SHARING_DRIVERS and nodes:
            yield Finding(
                "lxc.better", Level.NOTE, str(device.address),
                f"{device} works with the host's driver {device.driver}: for transcoding or computing under Linux a "
                "container can share it, with live backups and without the IOMMU; it is less isolated, and no Windows.",
                (f"/sys/bus/pci/devices/{device.address}/driver: {device.driver}",
                 *(f"{one.path}: {one.number}" for one in nodes)),
                Actor.NOBODY,
                show("If that is enough, leave it with the host.", f"pve-passthrough lxc add {device.address} --ct ID"),
            )  # fmt: skip


def _shared(node: DevNode) -> bool:
    kind = kind_of(node.path)
    return kind is not None and kind.name in ("render", "nvidia")


def _shows_pictures(guest: Vm) -> bool:
    """No Linux, or the card is its display: then a container is no answer."""
    return not (guest.value("ostype") or "").startswith("l2") or guest.value("vga") == "none" or any(
        entry.on("x-vga") for entry in guest.hostpci
    )  # fmt: skip


def also_in_container(facts: Facts, request: Request) -> Iterator[Finding]:
    """Do containers use a device that the guest's start takes?

    Why: A container has the host's driver's node. When vfio-pci takes the device, programs in running containers lose
        it in the middle of their work (a driver may even wait for them and never let go), and a container that names
        the node does not start any more: "Device … does not exist".
    Look at: `pve-passthrough lxc list`, `grep -H 'dev[0-9]' /etc/pve/lxc/*.conf`.
    Fix: Take it from the containers first (`pve-passthrough lxc remove DEVICE --ct ID`), or leave it with the host.
    Source: pve-container, PVE/LXC.pm, update_lxc_config; kernel: drivers/base/devtmpfs.c.
    """
    if facts.own_containers is None:
        if request != Request() and (gap := facts.gap("own_containers")) is not None:
            yield unknown("lxc.also-in-container", "host", "Whether containers use this device, nobody could say.",
                          f"own_containers: {gap.reason}")  # fmt: skip
        return
    if request == Request():
        return
    guest = facts.guest(request.vmid) if request.vmid is not None else None
    settled = guest is not None and assigned(guest, request)
    devices = {one.address: one for one in (*taken(facts, request), *chosen(facts, request))}
    for ct in facts.own_containers:
        for address, lines in _uses(facts, ct).items():
            if address in devices:
                yield _taken(ct, devices[address], lines, settled, raw=not any(": dev" in line for line in lines))


def _uses(facts: Facts, ct: Ct) -> dict[Address, list[str]]:
    """The functions that the container has nodes of, with the lines that say so."""
    found: dict[Address, list[str]] = {}
    given = {one.path: one.address for one in facts.given_nodes if one.number == ct.number}
    there = {name: one for one in facts.dev_nodes or () for name in (one.path, *one.links)}
    for entry in ct.devices:
        node = there.get(entry.path)
        address = node.address if node is not None and not node.port else given.get(entry.path)
        if address is not None:
            found.setdefault(address, []).append(f"{ct.number}.conf: {entry.key}: {entry.path}")
    for mount in ct.mounts:
        for path, node in there.items():
            inside = path == mount.source or path.startswith(f"{mount.source.rstrip('/')}/")
            if inside and path == node.path and node.address is not None and not node.port:
                line = f"{ct.number}.conf: {mount.line}"
                lines = found.setdefault(node.address, [])
                lines += [] if line in lines else [line]
    return found


def _taken(ct: Ct, device: Device, lines: list[str], settled: bool, *, raw: bool) -> Finding:
    starts = (ct.config.get("onboot") or "0") in ("1", "on", "yes", "true")
    state = {True: "uses", False: "has", None: "may be using"}[ct.running]
    serious = ct.running is not False or starts
    loss = "loses it when the guest starts" if ct.running is not False else "does not start while the guest has it"
    return Finding(
        "lxc.also-in-container",
        Level.HARMS if serious and not settled else Level.NOTE,
        str(device.address),
        f"Container {ct.number} ({ct.name}) {state} {device}: it {loss}.",
        tuple(lines),
        Actor.NOBODY,
        show(
            "Take it from the container first.",
            f"editor /etc/pve/lxc/{ct.number}.conf"
            if raw
            else f"pve-passthrough lxc remove {device.address} --ct {ct.number}",
        ),
        "container-conflict" if serious and not settled else "",
    )


_KNOWN = re.compile(r"/dev/(dri/|nvidia|kfd$|accel/|apex_|serial/by-id/|tty(USB|ACM)\d)")


def absent_node(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a container name a device that the host does not have?

    Why: Proxmox looks each entry's path up when the container starts, and refuses the start when it is missing:
        "Device /dev/… does not exist". NVIDIA's unified memory node is the usual one: nothing makes it at boot until a
        program computes on the host, so containers that start with the host come too early.
    Look at: `pve-passthrough lxc list`, `ls -l /dev/dri /dev/nvidia*`, `lspci -k`.
    Fix: Load the driver that makes it. For NVIDIA a unit that runs before the guests start, in
        /etc/systemd/system/nvidia-nodes.service, then `systemctl enable nvidia-nodes`:
        [Unit]
        After=systemd-modules-load.service
        Before=pve-guests.service
        [Service]
        Type=oneshot
        ExecStart=/usr/bin/nvidia-modprobe -c 0 -u -m
        RemainAfterExit=yes
        [Install]
        WantedBy=multi-user.target
        If the device is gone for good: `pve-passthrough lxc remove devN --ct ID`.
    Source: pve-container, PVE/LXC.pm, update_lxc_config; nvidia-modprobe(1).
    """
    if facts.dev_nodes is None:
        return
    there = {name for one in facts.dev_nodes for name in (one.path, *one.links)}
    for ct in facts.own_containers or ():
        gone = [one for one in ct.devices if _KNOWN.match(one.path) and one.path not in there]
        if gone:
            nvidia = any(one.path in NVIDIA_NODES for one in gone)
            commands = ("nvidia-modprobe -c 0 -u -m", "pve-passthrough explain lxc.absent-node") if nvidia else ()
            yield Finding(
                "lxc.absent-node", Level.HARMS, f"ct:{ct.number}",
                f"{ct.name} ({ct.number}) does not start: the host has no {', '.join(one.path for one in gone)}.",
                tuple(f"{ct.number}.conf: {one.key}: {one.path}" for one in gone), Actor.NOBODY,
                show("Let its driver make it before the container starts." if nvidia else
                     "Load the driver that makes it, or take the entry out.",
                     *(commands or (f"pve-passthrough lxc remove {gone[0].key} --ct {ct.number}",))),
            )  # fmt: skip


def node_renumbered(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does a container's node belong to another card than when it was given?

    Why: /dev/dri/renderD128 is the first card whose driver loaded. With two cards, a kernel or a BIOS setting later the
        numbers may be the other way round, and the container computes on the wrong card without any error.
    Look at: `ls -l /dev/dri/by-path`, `pve-passthrough lxc list`.
    Fix: Take the entry out and give it again; `--by-path` names the slot instead of the order, and the program in the
        container must then be told that name.
    Source: kernel: drivers/gpu/drm/drm_drv.c, drm_minor_alloc; systemd, rules.d/60-drm.rules.
    """
    nodes = {one.path: one for one in facts.dev_nodes or ()}
    for given in facts.given_nodes:
        ct, node = facts.container(given.number), nodes.get(given.path)
        if ct is None or node is None or node.address in (None, given.address):
            continue
        entry = next((one for one in ct.devices if one.path == given.path), None)
        if entry is not None:
            yield Finding(
                "lxc.node-renumbered", Level.HARMS, f"ct:{ct.number}",
                f"{given.path} in {ct.name} ({ct.number}) was the card at {given.address}, now it is {node.address}.",
                (f"{ct.number}.conf: {entry.key}: {entry.path}", f"/sys/dev/char/{node.number}: {node.address}"),
                Actor.NOBODY,
                show("Give it the card that is meant.", f"pve-passthrough lxc remove {entry.key} --ct {ct.number}",
                     f"pve-passthrough lxc add {given.address} --ct {ct.number} --by-path"),
            )  # fmt: skip


def raw_lines(facts: Facts, request: Request) -> Iterator[Finding]:
    """Has a container its devices by raw lxc lines?

    Why: Before Proxmox VE 8.1 a device took three kinds of lines: `lxc.cgroup2.devices.allow` with its numbers,
        `lxc.mount.entry` that binds the node, and for unprivileged containers `lxc.idmap` that lets the host's group
        through. The numbers change (NVIDIA's unified memory gets another one at each boot), `optional` hides that the
        node is missing, idmap lines are easily wrong, and no tool checks any of it. `devN` replaces them all.
    Look at: `grep -H ^lxc /etc/pve/lxc/*.conf`.
    Fix: Stop the container, take those lines out of its file as root (no command of Proxmox edits them), give the
        device with `pve-passthrough lxc add`, and start it. Files of a group that an idmap line let through must be
        given back to the container's own group.
    Source: pve-container, PVE/LXC/Config.pm; Proxmox VE administration guide, pct.conf, dev[n].
    """
    for ct in facts.own_containers or ():
        nodes = [one.source for one in ct.mounts if _KNOWN.match(f"{one.source}/") or _KNOWN.match(one.source)]
        if not nodes:
            continue
        mounted = " ".join(dict.fromkeys(nodes))
        lines = [*(one.line for one in ct.allows), *(one.line for one in ct.mounts), *ct.idmaps]
        yield Finding(
            "lxc.raw-lines", Level.NOTE, f"ct:{ct.number}",
            f"{ct.name} ({ct.number}) has {mounted} by raw lines, which nothing checks; devN entries replace them.",
            tuple(f"{ct.number}.conf: {line}" for line in lines), Actor.NOBODY,
            show("Take the lines out, then give it as an entry.", f"editor /etc/pve/lxc/{ct.number}.conf",
                 f"pve-passthrough lxc add {_words(facts, nodes)} --ct {ct.number}"),
        )  # fmt: skip


def _words(facts: Facts, sources: list[str]) -> str:
    """A directory stands for the nodes in it that programs share."""
    words: list[str] = []
    for source in sources:
        inside = [one.path for one in facts.dev_nodes or () if one.path.startswith(f"{source.rstrip('/')}/")]
        words += [path for path in inside if (kind := kind_of(path)) is not None and kind.name != "card"] or [source]
    return " ".join(dict.fromkeys(words))
