"""Rules about speed that the configuration alone breaks; everything else is measured (`diagnose --for slow`).

1. Nothing here is said of a guest that nobody bound anywhere: where it runs is for a measurement to tell.
"""

from __future__ import annotations

import re
from collections.abc import Iterator

from ..model.facts import Facts, NumaNode
from ..model.finding import Actor, Finding, Level
from ..model.pci import Device
from ..model.vm import Vm
from .subject import Request, claimed, guests, show

_HOSTNODES = re.compile(r"(?:^|,)hostnodes=([\d;-]+)")


def bound_elsewhere(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the guest bound to the memory node that its device hangs on?

    Why: A guest whose processors or memory are bound to another node reaches its device over the link between the
        nodes, with every access; bound to none it would be no worse off.
    Look at: /sys/bus/pci/devices/ADDRESS/numa_node; the lines `affinity:` and `numaN:` of the guest.
    Fix: Bind it to the device's node, or to none; `pve-passthrough diagnose --for slow --vm ID` prints the line.
    Source: Proxmox VE administration guide, NUMA and CPU Affinity; kernel: Documentation/ABI/testing/sysfs-bus-pci,
        numa_node.
    """
    nodes = facts.numa_nodes or ()
    if len(nodes) < 2:
        return
    for guest in guests(facts, request):
        for device in _placed(facts, request, guest):
            near = next((node for node in nodes if node.number == device.numa_node), None)
            lines = [] if near is None else _elsewhere(guest, near)
            if near is not None and lines:
                yield Finding(
                    "guests.bound-elsewhere",
                    Level.NOTE,
                    f"vm:{guest.vmid}",
                    f"Guest {guest.vmid} ({guest.name}) is bound to another memory node than {device}, "
                    f"which hangs on node {near.number}.",
                    (f"/sys/bus/pci/devices/{device.address}/numa_node: {near.number}", *lines),
                    Actor.US,
                    show("Bind it to the device's node, or to none.",
                         f"pve-passthrough diagnose --for slow --vm {guest.vmid}"),
                )  # fmt: skip
                break


def _placed(facts: Facts, request: Request, guest: Vm) -> tuple[Device, ...]:
    wanted = claimed(facts, guest.vmid) | set(request.addresses if request.vmid == guest.vmid else ())
    return tuple(device for device in facts.devices if device.address in wanted)


def _elsewhere(guest: Vm, near: NumaNode) -> list[str]:
    """The guest's lines that bind it to processors or memory none of which are the node's."""
    affinity = guest.value("affinity")
    found = []
    if affinity and (cpus := _numbers(affinity, ",")) and not cpus & set(near.cpus):
        found.append(f"affinity: {affinity}")
    bound = {key: value for key in guest.config if re.fullmatch(r"numa\d+", key) and (value := guest.value(key))}
    hosts = {key: _HOSTNODES.search(value) for key, value in bound.items()}
    named = {key: _numbers(match.group(1), ";") for key, match in hosts.items() if match}
    if named and not any(near.number in numbers for numbers in named.values()):
        found += [f"{key}: {bound[key]}" for key in named]
    return found


def _numbers(text: str, separator: str) -> set[int]:
    """`0-3,8`; empty for anything else."""
    found: set[int] = set()
    for part in text.split(separator):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part.strip())
        if match is None:
            return set()
        found.update(range(int(match.group(1)), int(match.group(2) or match.group(1)) + 1))
    return found
