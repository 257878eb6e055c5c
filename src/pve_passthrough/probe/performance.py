"""How fast a guest's devices, processors and memory run, asked of the host's kernel.

1. Only reads. What could not be read is None, and its reason goes into `silences`.
2. One function takes one look; how often and how long is the caller's business.
3. Where a process has its memory is asked once: the kernel walks all its pages for the answer.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping

from ..host.base import Host, HostError, Missing, read_text
from ..model.pci import Address
from ..model.performance import LinkSample, Pages

DEVICES = "/sys/bus/pci/devices"
MOST_THREADS = 1024
MOST_POLICIES = 1024
_KIND = re.compile(r"\bvfio-(msix|msi|intx)(?:\[\d+\])?\(([0-9a-f:.]+)\)")
"""Names that vfio gives its interrupts (kernel: drivers/vfio/pci/vfio_pci_intrs.c)."""
_NODE_PAGES = re.compile(r"\bN(\d+)=(\d+)")
_SPLIT_LOCK = re.compile(r"#AC: CPU \d+/KVM/(\d+) (?:\([a-z]+\) )?took a split_lock trap")
"""QEMU names its threads "CPU 0/KVM" (kernel: arch/x86/kernel/cpu/bus_lock.c, split_lock_warn)."""
_LOG = ("journalctl", "-k", "-b", "-n", "20000", "-o", "short-monotonic", "--no-pager")


def link(host: Host, address: Address) -> LinkSample:
    """What the link does now; None where the function has none or nobody could say."""
    home = f"{DEVICES}/{address}"
    speed, _, unit = _text(host, f"{home}/current_link_speed").partition(" ")
    width = _text(host, f"{home}/current_link_width")
    known = unit.startswith("GT/s") and re.fullmatch(r"\d{1,3}(\.\d{1,2})?", speed)
    lanes = int(width) if re.fullmatch(r"[0-9]{1,2}", width) else None
    return LinkSample(float(speed) if known else None, lanes if lanes and lanes <= 32 else None)


def power_state(host: Host, address: Address) -> str:
    """`D0`, `D3hot`, …; empty when nobody could say."""
    return _text(host, f"{DEVICES}/{address}/power_state")[:16]


def _text(host: Host, path: str) -> str:
    try:
        return read_text(host, path).strip()
    except HostError:
        return ""


def interrupts(
    host: Host, wanted: Iterable[Address], silences: dict[str, str]
) -> Mapping[Address, Mapping[str, int]] | None:
    """Kinds of interrupt that vfio has set up for these functions, and how often they came since."""
    try:
        table = read_text(host, "/proc/interrupts")
    except HostError as error:
        silences["interrupts"] = f"/proc/interrupts: {error.reason}"
        return None
    found: dict[Address, dict[str, int]] = {address: {} for address in wanted}
    for line in table.splitlines():
        for kind, name in _KIND.findall(line):
            address = _address(name)
            if address in found:
                counted = found[address]
                counted[kind] = counted.get(kind, 0) + _sum_of_counts(line)
    return found


def _sum_of_counts(line: str) -> int:
    """The numbers behind the colon, one for each processor, up to the first word."""
    total = 0
    for word in line.partition(":")[2].split():
        if not word.isdecimal():
            break
        total += int(word)
    return total


def _address(name: str) -> Address | None:
    try:
        return Address.parse(name)
    except ValueError:
        return None


# -- the process of the guest --------------------------------------------------------------------


def pid_of(host: Host, vmid: int) -> int | None:
    """QEMU's process id; None: the guest does not run, or nobody could say (qemu-server Helpers.pm, pidfile_name)."""
    text = _text(host, f"/run/qemu-server/{vmid}.pid")
    return int(text) if re.fullmatch(r"[1-9][0-9]{0,9}", text) else None


def waits(host: Host, pid: int, silences: dict[str, str]) -> Mapping[str, int] | None:
    """Nanoseconds that each processor of the guest has waited for one of the host, by its thread's name.

    /proc/PID/task/TID/schedstat: running, waiting, times (kernel: Documentation/scheduler/sched-stats.rst). Proxmox VE
    starts QEMU with debug-threads=on, so its processors are the threads `CPU N/KVM` (recorded command lines).
    """
    home = f"/proc/{pid}/task"
    try:
        threads = host.names(home)[:MOST_THREADS]
    except HostError as error:
        silences["waiting"] = f"{home}: {error.reason}"
        return None
    found: dict[str, int] = {}
    for thread in threads:
        name = _text(host, f"{home}/{thread}/comm")
        words = _text(host, f"{home}/{thread}/schedstat").split() if re.fullmatch(r"CPU \d+/KVM", name) else []
        if len(words) == 3 and words[1].isdecimal():
            found[name] = int(words[1])
    if not found:
        silences["waiting"] = f"{home}: no thread named CPU N/KVM with a schedstat"
        return None
    return found


def allowed(host: Host, pid: int) -> frozenset[int] | None:
    """Processors of the host on which QEMU may run."""
    status = _fields(_text(host, f"/proc/{pid}/status"))
    return cpu_list(status.get("Cpus_allowed_list", ""))


def cpu_list(text: str) -> frozenset[int] | None:
    """`0-3,8`; None for anything else."""
    found: set[int] = set()
    for part in text.strip().split(","):
        match = re.fullmatch(r"(\d{1,5})(?:-(\d{1,5}))?", part)
        if match is None:
            return None
        first, last = int(match.group(1)), int(match.group(2) or match.group(1))
        found.update(range(first, last + 1))
    return frozenset(found)


def pages(host: Host, pid: int, *, by_node: bool, silences: dict[str, str]) -> Pages:
    """Where QEMU's memory lies. `by_node`: also on which memory nodes, which takes the kernel longest."""
    status = _fields(_text(host, f"/proc/{pid}/status"))
    rolled = _fields(_text(host, f"/proc/{pid}/smaps_rollup"))
    pinned = [size for name in ("VmLck", "VmPin") if (size := _kib(status, name)) is not None]
    huge = [size for name in ("AnonHugePages", "ShmemPmdMapped", "Private_Hugetlb", "Shared_Hugetlb")
            if (size := _kib(rolled, name)) is not None]  # fmt: skip
    reserved = sum(_kib(rolled, name) or 0 for name in ("Private_Hugetlb", "Shared_Hugetlb"))
    resident = _kib(rolled, "Rss")  # reserved huge pages are not counted there (Documentation/filesystems/proc.rst)
    if not huge:
        silences["pages"] = f"/proc/{pid}/smaps_rollup: not readable"
    if not pinned:
        silences["pinned"] = f"/proc/{pid}/status: not readable"
    return Pages(
        _by_node(host, pid, silences) if by_node else None,
        sum(huge) if huge else None,
        None if resident is None else resident + reserved,
        max(pinned) if pinned else None,
        _kib(status, "VmSwap"),
    )


def _fields(text: str) -> dict[str, str]:
    return {name: value.strip() for name, _, value in (line.partition(":") for line in text.splitlines())}


def _kib(fields: Mapping[str, str], name: str) -> int | None:
    match = re.fullmatch(r"(\d{1,15}) kB", fields.get(name, ""))
    return None if match is None else int(match.group(1)) << 10


def _by_node(host: Host, pid: int, silences: dict[str, str]) -> Mapping[int, int] | None:
    """Bytes by memory node: `N0=512 … kernelpagesize_kB=4` (kernel: Documentation/filesystems/proc.rst, numa_maps)."""
    path = f"/proc/{pid}/numa_maps"
    try:
        text = read_text(host, path)
    except HostError as error:
        silences["node"] = f"{path}: {error.reason}"
        return None
    found: dict[int, int] = {}
    for line in text.splitlines():
        size = re.search(r"\bkernelpagesize_kB=(\d+)", line)
        for node, count in _NODE_PAGES.findall(line) if size else ():
            found[int(node)] = found.get(int(node), 0) + int(count) * (int(size.group(1)) << 10)  # type: ignore[union-attr]
    return found


# -- the host ------------------------------------------------------------------------------------


def governors(host: Host, silences: dict[str, str]) -> Mapping[str, str] | None:
    """Governor by name, with its driver; empty when the firmware alone decides (no cpufreq)."""
    home = "/sys/devices/system/cpu/cpufreq"
    try:
        policies = [name for name in host.names(home) if name.startswith("policy")][:MOST_POLICIES]
    except Missing:
        return {}
    except HostError as error:
        silences["governor"] = f"{home}: {error.reason}"
        return None
    found = {
        _text(host, f"{home}/{one}/scaling_governor")[:32]: _text(host, f"{home}/{one}/scaling_driver")[:32]
        for one in policies
    }
    return {name: driver for name, driver in found.items() if name}


def efficient(host: Host) -> frozenset[int] | None:
    """The small processors of a hybrid one (kernel: Documentation/admin-guide/perf, the PMUs cpu_core and cpu_atom);
    empty where all are alike."""
    try:
        text = read_text(host, "/sys/devices/cpu_atom/cpus")
    except Missing:
        return frozenset()
    except HostError:
        return None
    return cpu_list(text)


def aspm(host: Host) -> str:
    """The policy in force: `default`, `performance`, `powersave`, `powersupersave`; empty when nobody could say."""
    match = re.search(r"\[(\w+)\]", _text(host, "/sys/module/pcie_aspm/parameters/policy"))
    return match.group(1) if match else ""


def split_locks(host: Host, pid: int | None, silences: dict[str, str]) -> int | None:
    """Traps of guests' processors in this boot's kernel log; of this guest alone while it runs."""
    try:
        ran = host.run(_LOG, timeout=30.0)
    except HostError as error:
        silences["split-locks"] = f"journalctl: {error.reason}"
        return None
    if not ran.ok:
        silences["split-locks"] = f"journalctl ended with status {ran.rc}"
        return None
    traps = [int(number) for number in _SPLIT_LOCK.findall(ran.stdout)]
    if pid is None or not traps:
        return len(traps)
    try:
        own = {int(name) for name in host.names(f"/proc/{pid}/task") if name.isdecimal()}
    except HostError:
        return len(traps)
    return sum(one in own for one in traps)
