"""How a slow guest itself runs: its processors, its memory, and what Proxmox VE emulates for it.

1. Pure. What nobody could measure is UNKNOWN with the reason; the configuration speaks where it is the only witness.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from ..knowledge import performance as known
from ..model.facts import NumaNode
from ..model.pci import Device
from ..model.performance import Inside, Measured, State
from ..model.vm import Vm, parse_options
from ..planning.guest_place import ranges
from .slow_case import Case, cores_of, heads, memory_of, shown, whole

_DISK = re.compile(r"(ide|sata|scsi|virtio)\d+")


# -- processors ----------------------------------------------------------------------------------


def _cpu(case: Case) -> Iterator[Measured]:
    line = case.vm.value("cpu") or ""
    options = parse_options(line, "cputype")
    kind = options.get("cputype", "kvm64")
    replaced = re.search(r"(?:^|\s)-cpu[\s=]", case.vm.value("args") or "") is not None
    host, inside = case.facts.cpu.flags, case.last.flags if case.last else None
    shown = "a -cpu in args" if replaced else kind if line else "not set (kvm64)"
    named = (f"guest: {case.last.model}",) if case.last and case.last.model else ()
    evidence = (f"cpu: {line or '(not set)'}", *named)
    if host is not None and inside is not None:
        missing = [flag for flag in known.WATCHED if flag in host and flag not in inside]
    elif kind in known.GENERIC and not replaced:
        missing = [flag for flag in known.GENERIC[kind].split() if host is None or flag in host]
    elif replaced or not (kind in ("host", "max") or kind.startswith("x86-64-v")):
        yield case.unknown("cpu", case.guest, case.silence("cpu"), "host", shown)
        return
    else:
        missing = []
    if not missing:
        yield Measured("cpu", case.guest, State.GOOD, shown, "host", evidence=evidence)
        return
    rest = ",".join(f"{key}={value}" for key, value in options.items() if key in ("hidden", "hv-vendor-id"))
    better = "x86-64-v3" if case.windows and case.last and case.last.vbs else "host"
    yield Measured(
        "cpu", case.guest, State.SLOW, f"{shown}: hides {', '.join(missing)}", better,
        "Give it the host's CPU; a guest with devices does not move to another node anyhow.",
        (f"qm set {case.vm.vmid} --cpu {better}{',' + rest if rest else ''}",), evidence,
    )  # fmt: skip


def _enlightenments(case: Case) -> Iterator[Measured]:
    if not case.last or case.last.system != "windows":
        return
    kind = case.vm.value("ostype") or "other"
    evidence = (f"ostype: {kind}", "guest agent: Microsoft Windows")
    if kind.startswith("w"):
        yield Measured("enlightenments", case.guest, State.GOOD, kind, "a Windows", evidence=evidence)
    else:
        yield Measured(
            "enlightenments", case.guest, State.SLOW, f"ostype {kind}", "win11 (win10 for Windows 10)",
            "Tell Proxmox VE which system it is, then stop the guest and start it again.",
            (f"qm set {case.vm.vmid} --ostype win11",), evidence,
        )  # fmt: skip


def _nested(case: Case) -> Iterator[Measured]:
    if not case.windows:
        return
    vbs = case.last.vbs if case.last else None
    evidence = ("guest: Win32_DeviceGuard.VirtualizationBasedSecurityStatus",)
    if vbs is None:
        yield case.unknown("nested", case.guest, case.silence("vbs"), "not running")
    elif vbs:
        yield Measured(
            "nested", case.guest, State.SLOW, "running", "not running",
            "In Windows: Device security, Core isolation, Memory integrity off, and restart. That gives up a "
            "protection; the other way is a CPU type without nested virtualisation (x86-64-v3).", evidence=evidence,
        )  # fmt: skip
    else:
        yield Measured("nested", case.guest, State.GOOD, "not running", "not running", evidence=evidence)


def _waiting(case: Case) -> Iterator[Measured]:
    waits, should = case.samples.waiting, f"less than {known.WAITING:.0%} of the time"
    if not case.samples.running or not waits:
        yield case.unknown("waiting", case.guest, case.silence("waiting"), should)
        return
    name, worst = max(waits.items(), key=lambda pair: pair[1])
    steal = _steal(case.samples.inside)
    evidence = [f"/proc/PID/task/TID/schedstat: {name} waited {worst:.0%} of {case.samples.seconds:g} s"]
    evidence += [f"guest, /proc/stat: steal {steal:.0%}"] if steal is not None else []
    evidence += [said] if (said := _demand(case)) else []
    here = f"{worst:.0%}"
    if worst > known.WAITING or (steal or 0) > known.STEAL:
        yield Measured("waiting", case.guest, State.SLOW, here, should,
                       "Give the running guests fewer processors, or this one its own (affinity).",
                       evidence=tuple(evidence))  # fmt: skip
    else:
        state = State.NOTE if worst > known.WAITING_NOTE else State.GOOD
        yield Measured("waiting", case.guest, state, here, should, evidence=tuple(evidence))


def _steal(inside: Sequence[Inside]) -> float | None:
    seen = [one.steal for one in inside if one.steal]
    if len(seen) < 2 or seen[-1][1] <= seen[0][1]:
        return None
    return max(0.0, (seen[-1][0] - seen[0][0]) / (seen[-1][1] - seen[0][1]))


def _demand(case: Case) -> str:
    count = case.facts.cpu.count
    running = [vm for vm in case.facts.guests or () if vm.running]
    if count is None or not running:
        return ""
    return f"{sum(map(cores_of, running))} processors of {len(running)} running guests share {count} of the host"


def _hybrid(case: Case) -> Iterator[Measured]:
    """Said only of a host with two kinds of processor."""
    small, allowed = case.samples.efficient, case.samples.allowed
    if not small:
        return
    if not case.samples.running or allowed is None:
        yield case.unknown("hybrid", case.guest, case.silence("hybrid"), "one kind only")
        return
    large = allowed - small
    evidence = (f"/sys/devices/cpu_atom/cpus: {ranges(small)}", f"Cpus_allowed_list: {ranges(allowed)}")
    if large and allowed & small:
        everywhere = frozenset(range(case.facts.cpu.count or 0)) - small
        fits = cores_of(case.vm) <= len(everywhere)
        yield Measured(
            "hybrid", case.guest, State.NOTE, "runs on both kinds", "one kind only",
            "Bind it to the large ones, when it has no more processors than they are.",
            (f"qm set {case.vm.vmid} --affinity {ranges(everywhere)}",) if everywhere and fits else (), evidence,
        )  # fmt: skip
    else:
        here = "the large ones" if large else "the small ones"
        yield Measured("hybrid", case.guest, State.GOOD if large else State.NOTE, here, "one kind only",
                       evidence=evidence)  # fmt: skip


def _governor(case: Case) -> Iterator[Measured]:
    found = case.samples.governors
    should = "not powersave"
    if found is None:
        yield case.unknown("governor", "host", case.samples.silences.get("governor", "nobody could say"), should)
        return
    low = found.get("powersave")
    slow = [f"powersave ({low})"] if low is not None and low not in known.OWN_POWERSAVE else []
    evidence = tuple(f"/sys/devices/system/cpu/cpufreq: {name}, driver {driver}" for name, driver in found.items())
    if slow:
        yield Measured(
            "governor", "host", State.SLOW, slow[0], should, "Choose another governor; it lasts until the next boot.",
            ("echo performance | tee /sys/devices/system/cpu/cpufreq/policy*/scaling_governor",), evidence,
        )  # fmt: skip
    else:
        here = ", ".join(found) or "the firmware alone decides"
        yield Measured("governor", "host", State.GOOD, here, should, evidence=evidence)


# -- memory --------------------------------------------------------------------------------------


def _node(case: Case) -> Iterator[Measured]:
    nodes = case.facts.numa_nodes
    if nodes is None:
        yield case.unknown("node", case.guest, "which memory nodes there are could not be read")
        return
    if len(nodes) < 2:
        return
    for device in heads(case.devices):
        near = next((node for node in nodes if node.number == device.numa_node), None)
        if near is None:
            yield case.unknown("node", str(device.address), "the firmware does not say on which node the device hangs")
        else:
            yield _distance(case, device, near)
        return  # a guest has one place; that of its first device


def _distance(case: Case, device: Device, near: NumaNode) -> Measured:
    subject, should = str(device.address), f"node {near.number}, processors {ranges(near.cpus)}"
    lying, allowed = case.samples.pages.nodes, case.samples.allowed
    if not case.samples.running or (lying is None and allowed is None):
        return case.unknown("node", subject, case.silence("node"), should)
    total = sum((lying or {}).values())
    far = 1 - (lying or {}).get(near.number, 0) / total if total else None
    elsewhere = None if allowed is None else not allowed <= set(near.cpus)
    evidence = (f"/sys/bus/pci/devices/{subject}/numa_node: {near.number}",
                *(f"numa_maps: node {node} has {shown(size)}" for node, size in sorted((lying or {}).items())),
                *((f"Cpus_allowed_list: {ranges(allowed)}",) if allowed else ()))  # fmt: skip
    memory = "" if far is None else f"{far:.0%} of its memory elsewhere"
    here = " and ".join(filter(None, (memory, "runs on any processor" if elsewhere else "")))
    if (far or 0) > known.FAR_MEMORY or elsewhere:
        state = State.SLOW if (far or 0) > known.FAR_MEMORY else State.NOTE
        return Measured("node", subject, state, here, should, "Bind the guest to the device's node, then restart it.",
                        _binding(case.vm, near), evidence)  # fmt: skip
    return Measured("node", subject, State.GOOD, f"node {near.number}", should, evidence=evidence)


def _binding(vm: Vm, near: NumaNode) -> tuple[str, ...]:
    """The commands, unless the guest does not fit the node."""
    cores, memory = cores_of(vm), memory_of(vm)
    if cores > len(near.cpus) or near.memory is None or memory > near.memory >> 20:
        return ()
    guest_cpus = f"0-{cores - 1}" if cores > 1 else "0"
    return (
        f"qm set {vm.vmid} --affinity {ranges(near.cpus)} --numa 1 "
        f"--numa0 cpus={guest_cpus},hostnodes={near.number},memory={memory},policy=bind",
    )


def _pages(case: Case) -> Iterator[Measured]:
    seen, should = case.samples.pages, f"at least {known.HUGE_LEAST:.0%} in huge pages"
    if memory_of(case.vm) << 20 < known.LARGE_GUEST:
        return
    if not case.samples.running or seen.huge is None or not seen.total:
        yield case.unknown("pages", case.guest, case.silence("pages"), should)
        return
    share = min(1.0, seen.huge / seen.total)
    evidence = (f"smaps_rollup: {shown(seen.huge)} of {shown(seen.total)}",)
    if share >= known.HUGE_LEAST:
        yield Measured("pages", case.guest, State.GOOD, f"{share:.0%}", should, evidence=evidence)
    else:
        yield Measured(
            "pages", case.guest, State.NOTE, f"{share:.0%}", should,
            "Start the guest while the host has free memory in one piece, or reserve huge pages (they want numa: 1).",
            (f"qm set {case.vm.vmid} --numa 1 --hugepages 2",), evidence,
        )  # fmt: skip


def _pinned(case: Case) -> Iterator[Measured]:
    seen, should = case.samples.pages, "all of it, and nothing swapped out"
    if not case.samples.running or (seen.pinned is None and seen.swapped is None):
        yield case.unknown("pinned", case.guest, case.silence("pinned"), should)
    elif seen.swapped:
        yield Measured(
            "pinned", case.guest, State.SLOW, f"{shown(seen.swapped)} swapped out", should,
            "The host is short of memory: give the guests less, or shrink the ZFS cache.",
            evidence=(f"/proc/PID/status: VmSwap {shown(seen.swapped)}",),
        )  # fmt: skip
    else:
        here = f"{shown(seen.pinned or 0)} pinned, nothing swapped out"
        yield Measured("pinned", case.guest, State.GOOD, here, should, evidence=(f"/proc/PID/status: {here}",))


def _balloon(case: Case) -> Iterator[Measured]:
    least, memory = case.vm.value("balloon"), memory_of(case.vm)
    shrinks = least is not None and 0 < whole(least, 0) < memory
    here = f"{least} of {memory} MiB" if shrinks else "off" if least == "0" else f"{memory} MiB, fixed"
    evidence = (f"balloon: {least or '(not set)'}, memory: {memory}",)
    if shrinks:
        yield Measured("balloon", case.guest, State.SLOW, here, "off", "Switch ballooning off.",
                       (f"qm set {case.vm.vmid} --balloon 0",), evidence)  # fmt: skip
    else:
        yield Measured("balloon", case.guest, State.GOOD, here, "off", evidence=evidence)


# -- what Proxmox VE emulates --------------------------------------------------------------------


def _disks(case: Case) -> Iterator[Measured]:
    controller = case.vm.value("scsihw") or "lsi"
    should = "VirtIO SCSI single, iothread"
    found: list[tuple[int, str, str]] = []
    for key in sorted({*case.vm.config, *case.vm.pending}):
        value = case.vm.value(key) or ""
        match = _DISK.fullmatch(key)
        if match is None or not value or _removable(value):
            continue
        options, bus = parse_options(value, "file"), match.group(1)
        line = f"{key}: {value.split(',')[0][:80]}"
        if bus in known.EMULATED_DISKS or (bus == "scsi" and not controller.startswith("virtio-scsi")):
            found.append((0, f"{key} on {controller if bus == 'scsi' else bus.upper()}", line))
        elif options.get("iothread", "0") != "1" or (bus == "scsi" and controller != "virtio-scsi-single"):
            found.append((1, f"{key} without a thread of its own", line))
        else:
            found.append((2, f"{key}, {'VirtIO' if bus == 'virtio' else 'VirtIO SCSI'} with iothread", line))
    if not found:
        return
    worst, here, _ = min(found)
    evidence = (*(line for _, _, line in found[:8]), f"scsihw: {controller}")
    if worst == 0:
        change = f"{_first(case)}ove the disk to VirtIO SCSI."
        yield Measured("disk", case.guest, State.SLOW, here, should, change, evidence=evidence)
    elif worst == 1:
        change = "Set iothread on the disk and VirtIO SCSI single as the controller; it counts from the next start."
        yield Measured("disk", case.guest, State.NOTE, here, should, change,
                       (f"qm set {case.vm.vmid} --scsihw virtio-scsi-single",), evidence)  # fmt: skip
    else:
        yield Measured("disk", case.guest, State.GOOD, here, should, evidence=evidence)


def _first(case: Case) -> str:
    """Windows brings no VirtIO driver, every Linux does."""
    return "Install the VirtIO driver in Windows first, then m" if case.windows else "M"


def _removable(value: str) -> bool:
    return "media=cdrom" in value or value.startswith(("none", "cdrom")) or "cloudinit" in value.partition(",")[0]


def _network(case: Case) -> Iterator[Measured]:
    cards = {key: value for key in case.vm.config if re.fullmatch(r"net\d+", key) and (value := case.vm.value(key))}
    if not cards:
        return
    slow = {
        key: model for key, value in cards.items()
        if (model := next((one for one in parse_options(value, "model") if one in known.EMULATED_NICS), ""))
    }  # fmt: skip
    evidence = tuple(f"{key}: {value.split('=')[0][:40]}" for key, value in cards.items())
    if slow:
        key, model = next(iter(slow.items()))
        yield Measured("network", case.guest, State.NOTE, f"{key} is an emulated {model}", "VirtIO",
                       f"{_first(case)}ake it a VirtIO card; the guest sees a new one.",
                       evidence=evidence)  # fmt: skip
    else:
        yield Measured("network", case.guest, State.GOOD, "no emulated card", "VirtIO", evidence=evidence)


def _clock(case: Case) -> Iterator[Measured]:
    should = "the processor's own" if case.windows else "tsc or kvm-clock"
    if case.last is None:
        yield case.unknown("clock", case.guest, case.silence(), should)
    elif case.last.clock == "useplatformclock":
        yield Measured("clock", case.guest, State.SLOW, "useplatformclock is set", should,
                       "In Windows, as administrator: bcdedit /deletevalue useplatformclock, then restart.",
                       evidence=("guest, bcdedit /enum: useplatformclock",))  # fmt: skip
    elif case.windows:
        yield Measured("clock", case.guest, State.GOOD, "the processor's own", should,
                       evidence=("guest, bcdedit /enum: no useplatformclock",))  # fmt: skip
    elif not case.last.clock:
        yield case.unknown("clock", case.guest, case.silence("clock"), should)
    else:
        slow = known.SLOW_CLOCKS.get(case.last.clock)
        evidence = (f"guest, current_clocksource: {case.last.clock}",)
        change = "In the guest: take clocksource= and tsc=unstable off its kernel's command line." if slow else ""
        yield Measured("clock", case.guest, State.SLOW if slow else State.GOOD, slow or case.last.clock, should, change,
                       evidence=evidence)  # fmt: skip


def _plan(case: Case) -> Iterator[Measured]:
    if not case.windows or case.last is None:
        return
    if not case.last.plan:
        yield case.unknown("plan", case.guest, case.silence("plan"), "not Power saver")
    elif case.last.plan == known.POWER_SAVER:
        yield Measured("plan", case.guest, State.SLOW, "Power saver", "Balanced or High performance",
                       "In Windows: powercfg /setactive SCHEME_MIN", evidence=(f"guest, powercfg: {case.last.plan}",),
                       )  # fmt: skip
    else:
        yield Measured("plan", case.guest, State.GOOD, "not Power saver", "Balanced or High performance",
                       evidence=(f"guest, powercfg: {case.last.plan}",))  # fmt: skip


def _split_locks(case: Case) -> Iterator[Measured]:
    count = case.samples.split_locks
    if count is None:
        why = case.samples.silences.get("split-locks", "the kernel's log could not be read")
        yield case.unknown("split-locks", case.guest, why, "none")
    elif count and "split_lock_detect=off" not in (case.facts.kernel.cmdline or "").split():
        yield Measured(
            "split-locks", case.guest, State.SLOW, f"{count} in the log of this boot", "none",
            "Let the kernel tell of them without slowing the guest down; only where all guests are trusted, since such "
            "locks slow the whole machine.", ("sysctl kernel.split_lock_mitigate=0",),
            (f"kernel log: took a split_lock trap ({count} times)",),
        )  # fmt: skip
    else:
        yield Measured("split-locks", case.guest, State.GOOD, "none" if not count else f"{count}, not slowed", "none")


GUEST = (
    _cpu, _enlightenments, _nested, _waiting, _hybrid, _governor, _node, _pages, _pinned, _balloon, _disks, _network,
    _clock, _plan, _split_locks,
)  # fmt: skip
