"""A new guest's processors and memory, and where on the machine they lie.

1. Pure. Processors and memory are bound to a memory node only when that was asked for; else it is a note.
Sources: Proxmox VE administration guide, "Qemu/KVM Virtual Machines" (QM below); recorded exchanges with PVE.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from ..knowledge.guest_profiles import NEEDS, GuestProfile
from ..model.facts import Facts, NumaNode
from ..model.pci import Address
from .guest_wanted import Wanted, unfit, unknown, usage

HOST_MEMORY = 2048
"""MiB that the host keeps: "Minimum 2 GB for the OS and Proxmox VE services" (administration guide, Requirements)."""


def memory_of(facts: Facts, row: GuestProfile, wanted: Wanted, notes: list[str]) -> int:
    needs = NEEDS[row.os]
    memory = row.memory if wanted.memory is None else wanted.memory
    if memory < needs.memory:
        raise usage(
            "guest.size", f"{needs.who} needs {needs.memory} MiB of memory, not {memory}.", f"source: {needs.source}"
        )
    if facts.memory_total is None:
        raise unknown(facts, "memory", "how much memory the host has")
    most = facts.memory_total // (1 << 20) - HOST_MEMORY
    if memory > most:
        raise unfit(
            "guest.memory", f"the guest would take {memory} MiB, and the host can give {max(most, 0)} MiB.",
            f"A guest with a device takes all of its memory at start; {HOST_MEMORY} MiB stay with the host.",
            hint=f"Name less: --memory {most // 1024 * 1024}" if most >= max(needs.memory, 1024) else "",
        )  # fmt: skip
    if facts.memory_free is not None and memory > facts.memory_free // (1 << 20):
        notes.append(
            f"Only {facts.memory_free // (1 << 20)} MiB are free now: the guest starts once others gave memory back."
        )
    return memory


def cores_of(facts: Facts, row: GuestProfile, wanted: Wanted, notes: list[str]) -> int:
    """Proxmox refuses to start a guest with more processors than the host has ("MAX 16 vcpus allowed", recorded)."""
    count, needs = facts.cpu.count, NEEDS[row.os]
    if count is None:
        raise unknown(facts, "cpu", "how many processors the host has")
    cores = min(row.cores, count) if wanted.cores is None else wanted.cores
    if cores < needs.cores:
        raise usage(
            "guest.size", f"{needs.who} needs {needs.cores} processors, not {cores}.", f"source: {needs.source}"
        )
    if cores > count:
        raise unfit(
            "guest.cores", f"it would have {cores} processors, and the host has {count}.", hint=f"--cores {count}"
        )
    if wanted.cores is None and cores < row.cores:
        notes.append(f"{cores} processors instead of the profile's {row.cores}: the host has no more.")
    return cores


def placement(facts: Facts, wanted: Wanted, memory: int, cores: int, notes: list[str]) -> dict[str, str]:
    """Where processors and memory lie; only when asked for, else a note (QM, "NUMA", "CPU Affinity", "hugepages")."""
    options = _numa(facts, wanted, memory, cores, notes)
    if wanted.numa_of is None:
        _say_where(facts, wanted.devices, notes)
    if wanted.hugepages:
        _refuse_hugepages(facts, wanted.hugepages, memory)
        options |= {"numa": "1", "hugepages": wanted.hugepages}
        notes.append("Proxmox takes the huge pages when the guest starts; where memory is fragmented the start fails.")
    return {"numa": "0", **options}


def _numa(facts: Facts, wanted: Wanted, memory: int, cores: int, notes: list[str]) -> dict[str, str]:
    if wanted.numa_of is None:
        return {}
    node = _node_of(facts, wanted.numa_of)
    if facts.numa_nodes is not None and len(facts.numa_nodes) < 2:
        notes.append("The host has one memory node: there is nothing to bind the guest to.")
        return {}
    if node is None:
        raise unfit(
            "guest.no-node", f"the firmware does not say which memory node {wanted.numa_of} hangs on.",
            hint="Leave --numa-of out; the mainboard's manual may know the slot.",
        )  # fmt: skip
    if cores > len(node.cpus) or memory > (node.memory or 0) >> 20:
        raise unfit(
            "guest.node-small", f"the guest does not fit memory node {node.number}, where {wanted.numa_of} is.",
            f"it has {len(node.cpus)} processors and {(node.memory or 0) >> 20} MiB; wanted: {cores} and {memory} MiB",
            hint="Name fewer --cores and less --memory, or leave --numa-of out.",
        )  # fmt: skip
    guest_cpus = f"0-{cores - 1}" if cores > 1 else "0"
    return {
        "affinity": ranges(node.cpus),
        "numa": "1",
        "numa0": f"cpus={guest_cpus},hostnodes={node.number},memory={memory},policy=bind",
    }


def _node_of(facts: Facts, address: Address) -> NumaNode | None:
    """None: the firmware does not say (numa_node is -1)."""
    device = facts.device(address)
    if device is None:
        raise usage("device.unknown", f"{address} is not on this machine.")
    if facts.numa_nodes is None or device.numa_node is None:
        raise unknown(facts, "numa", f"which memory node {address} hangs on")
    return next((node for node in facts.numa_nodes if node.number == device.numa_node), None)


def _say_where(facts: Facts, devices: Sequence[Address], notes: list[str]) -> None:
    nodes = {device.numa_node: device for device in map(facts.device, devices) if device is not None}
    for node in facts.numa_nodes or ():
        if len(facts.numa_nodes or ()) > 1 and node.number in nodes:
            one = nodes[node.number]
            notes.append(
                f"{one.address} hangs on memory node {node.number} (processors {ranges(node.cpus)}): "
                f"--numa-of {one.address} binds the guest to it."
            )


def _refuse_hugepages(facts: Facts, size: str, memory: int) -> None:
    if size not in ("2", "1024"):
        raise usage("guest.hugepages", f"there are no huge pages of {size!r} MiB.", hint="--hugepages 2 or 1024.")
    if memory % int(size):
        raise usage(
            "guest.hugepages", f"{memory} MiB are not a multiple of {size} MiB.", hint="Choose --memory to fit."
        )
    if size == "1024" and "pdpe1gb" not in (facts.cpu.flags or ()):
        raise unfit("guest.hugepages", "the processor has no pages of 1 GiB (pdpe1gb).", hint="--hugepages 2")


def ranges(cpus: Iterable[int]) -> str:
    """0 1 2 3 8 → `0-3,8`, as `affinity` takes it."""
    runs: list[list[int]] = []
    for cpu in sorted(set(cpus)):
        if runs and cpu == runs[-1][1] + 1:
            runs[-1][1] = cpu
        else:
            runs.append([cpu, cpu])
    return ",".join(f"{first}-{last}" if last > first else str(first) for first, last in runs)
