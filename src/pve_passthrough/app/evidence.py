"""What a host, and through its agent a guest, can show about a trouble: logs of the kernel, of tasks, of the guest.

1. Nothing is changed and nothing waits long: every question is bounded, and what nobody could answer is a doubt.
2. Tasks are read from their files, not through `pvenode`: the files hold all lines, and a tree has them too.
   (`pvenode task log` gives 50 lines unless it is told otherwise: API schema, read_task_log, limit.)
3. A guest is asked only while it runs, and what it says is text to be read, never a command.
4. The same questions are asked of a capture, so that what was recorded with the logs can be diagnosed anywhere.
"""

from __future__ import annotations

import calendar
import re
import time
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING

from ..diagnosis import Material
from ..guest.agent import GuestDevice, Silence, devices_in, os_of, spoken
from ..host.base import Host, HostError, Missing
from ..knowledge.symptom_words import STOPS_THE_START
from ..model.diagnosis import NO_FAULT, Observation, Point
from ..model.value import dataclass

if TYPE_CHECKING:
    from ..model.facts import Facts
    from ..model.vm import Vm

LOG_LINES = 20_000
"""Lines of a kernel's log that are asked for."""
TASKS = "/var/log/pve/tasks"
FAILED = 3
"""Failed starts of a guest that are read: an older one may have had another cause."""
INDEX_TAIL = 1 << 20
REFUTED = -3.0
"""Points of a guest that runs, against what would keep it from running."""
WORKS = 4.0
"""Points of a content driver in the guest, for `nothing is wrong`, while nobody says what is."""

_JOURNAL = ("journalctl", "-k", "-n", str(LOG_LINES), "-o", "short-monotonic", "--no-pager")
NOW, BEFORE = (*_JOURNAL, "-b"), (*_JOURNAL, "-b", "-1")
THIS_BOOT, LAST_BOOT = "kernel log, this boot", "kernel log, boot before"

_LINE = re.compile(
    r"^(UPID:[^:\s]+:[0-9A-F]+:[0-9A-F]+:([0-9A-F]{8,9}):(\w+):(\d*):\S+?:)(?: ([0-9A-Fa-f]{8,9})(?: (.*))?)?$"
)
"""A line of the index. Source: pve-manager, PVE/API2/Tasks.pm, node_tasks; pve-common, PVE/Tools.pm, upid_encode."""
_STARTS = frozenset({"qmstart", "qmreboot", "qmresume"})

_LINUX_LOG = ("dmesg",)
_NVIDIA_SMI = ("nvidia-smi",)
_WINDOWS_SMI = (r"C:\Windows\System32\nvidia-smi.exe",)
_PROBLEMS = {
    "10": "CM_PROB_FAILED_START",
    "12": "CM_PROB_NORMAL_CONFLICT",
    "22": "CM_PROB_DISABLED",
    "28": "CM_PROB_FAILED_INSTALL",
    "31": "CM_PROB_FAILED_ADD",
    "37": "CM_PROB_FAILED_DRIVER_ENTRY",
    "39": "CM_PROB_DRIVER_FAILED_LOAD",
    "43": "CM_PROB_FAILED_POST_START",
    "45": "CM_PROB_PHANTOM",
    "52": "CM_PROB_UNSIGNED_DRIVER",
}
"""Windows' own names for its codes. Source: Microsoft, "Device Manager error messages"; cfg.h."""


@dataclass(frozen=True, slots=True)
class Task:
    """One line of the index. `began`: seconds of the epoch. `status` empty: it runs, or nobody saw its end."""

    upid: str
    kind: str
    vmid: str
    began: int
    status: str = ""

    @property
    def well(self) -> bool:
        """Warnings are no failure (PVE/Tools.pm, upid_status_is_error)."""
        return self.status == "OK" or self.status.startswith("WARNINGS")


@dataclass(frozen=True, slots=True)
class Gathered:
    """materials: what there is to read · noticed: what speaks for or against causes without being a line of a log ·
    remarks: who changed what, when it last worked"""

    materials: tuple[Material, ...]
    noticed: tuple[Observation, ...] = ()
    remarks: tuple[str, ...] = ()
    doubts: tuple[str, ...] = ()


def gather(host: Host, facts: Facts, vmid: int | None, *, inside: bool = True, complained: bool = False) -> Gathered:
    """Everything that speaks about the host, or about one guest's trouble. `inside`: ask the guest too. `complained`:
    somebody has said what is wrong, so a guest whose driver is content proves little."""
    doubts: list[str] = []
    materials = list(_kernel_logs(host, doubts))
    noticed: tuple[Observation, ...] = ()
    remarks: tuple[str, ...] = ()
    if vmid is not None:
        tasks = [one for one in tasks_of(host, vmid, doubts) if one.kind in _STARTS]
        materials += failed_starts(host, tasks, doubts)
        remarks = _remarks(host, vmid, tasks, doubts) if inside else ()
        guest = facts.guest(vmid)
        if inside and guest is not None and guest.running:
            seen = devices_in(host, vmid)
            materials += _inside(host, vmid, seen, doubts)
            noticed = (_runs(vmid), *_content(facts, guest, seen, 1.0 if complained else WORKS))
    return Gathered(tuple(materials), noticed, remarks, tuple(doubts))


# -- kernel --------------------------------------------------------------------------------------


def _kernel_logs(host: Host, doubts: list[str]) -> Iterator[Material]:
    """This boot first: what is true now speaks first. Without a journal there is the kernel's own memory."""
    now = said(host, NOW)
    if not isinstance(now, str):
        now = said(host, ("dmesg",))
    if isinstance(now, str):
        yield Material(THIS_BOOT, (_bytes(now),))
    else:
        doubts.append(f"{THIS_BOOT}: {now[0]}")
    before = said(host, BEFORE)
    if isinstance(before, str) and before.strip() not in ("", "-- No entries --"):
        yield Material(LAST_BOOT, (_bytes(before),))


def said(host: Host, argv: Sequence[str], timeout: float = 60.0) -> str | tuple[str]:
    """What a program printed, or (why there is nothing,)."""
    try:
        ran = host.run(argv, timeout=timeout)
    except HostError as error:
        return (error.reason,)
    if not ran.ok:
        return ((ran.stderr.strip().split("\n")[-1] or f"{argv[0]} ended with status {ran.rc}")[:200],)
    return ran.stdout


def _bytes(text: str) -> bytes:
    return text.encode("utf-8", "surrogateescape")


# -- tasks ---------------------------------------------------------------------------------------


def tasks_of(host: Host, vmid: int, doubts: list[str]) -> list[Task]:
    """Tasks of a guest by time, the oldest first."""
    found: dict[str, Task] = {}
    for name in ("index.1", "index", "active"):
        try:
            data = host.read(f"{TASKS}/{name}")
        except Missing:
            continue
        except HostError as error:
            doubts.append(f"{TASKS}/{name}: {error.reason}")
            continue
        for line in data[-INDEX_TAIL:].decode("utf-8", "replace").splitlines():
            task = _task(line, active=name == "active")
            if task is not None and task.vmid == str(vmid) and (task.status or task.upid not in found):
                found[task.upid] = task
    return sorted(found.values(), key=lambda one: one.began)


def _task(line: str, *, active: bool) -> Task | None:
    """One line. Those of `active` have a 0 or 1 after the name: whether the task is in the index as well."""
    if active:
        line = re.sub(r"^(UPID:\S+) [01](?= |$)", r"\1", line)
    match = _LINE.match(line)
    if match is None:
        return None
    upid, began, kind, vmid, _, status = match.groups()
    return Task(upid, kind, vmid, int(began, 16), (status or "").strip())


def failed_starts(host: Host, tasks: Sequence[Task], doubts: list[str]) -> list[Material]:
    """Logs of the last starts that failed, the oldest first; those before a start that went well are history."""
    recent: list[Task] = []
    for task in reversed(tasks):
        if task.well:
            break
        recent.append(task)
    found = []
    for task in reversed(recent[:FAILED]):
        material = task_log(host, task)
        if isinstance(material, Material):
            found.append(material)
        else:
            doubts.append(f"{task_name(task)}: {material}")
    return found


def task_log(host: Host, task: Task) -> Material | str:
    """The log of a task, or why there is none."""
    try:
        return Material(task_name(task), (host.read(log_path(task.upid)),))
    except HostError as error:
        return error.reason


def log_path(upid: str) -> str:
    """One of sixteen folders, by the last digit of the task's start."""
    return f"{TASKS}/{upid.split(':')[4][-1]}/{upid}"


def task_name(task: Task) -> str:
    """A name that people can read, and with which they find it among Proxmox VE's tasks."""
    return f"task {task.kind} {task.vmid}, {_clock(task.began)}"


def _clock(seconds: int) -> str:
    return time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(seconds))


# -- this program's own runs ---------------------------------------------------------------------


def _remarks(host: Host, vmid: int, tasks: Sequence[Task], doubts: list[str]) -> tuple[str, ...]:
    """When it last started, and what this program has changed for the guest since."""
    from ..change import all_runs
    from ..errors import Failure
    from ..model.run import Phase

    try:
        runs = [run for run in all_runs(host).runs if run.plan.vmid == vmid and run.phase is not Phase.UNDONE]
    except (Failure, HostError) as error:
        doubts.append(f"runs of this program: {error}")
        runs = []
    if not runs:
        return _last_start(tasks)
    run = runs[-1]
    when, name = run.events[0].time, run.plan.id
    return (*_last_start(tasks), f"This program last changed something for it with run {name} ({when}): "
            f"{run.plan.goal}.", *_turned(tasks, when, name))  # fmt: skip


def _last_start(tasks: Sequence[Task]) -> tuple[str, ...]:
    if not tasks:
        return ("Proxmox VE remembers no start of it.",)
    good = [task for task in tasks if task.well]
    if not good:
        return (f"No start that Proxmox VE remembers went well; {len(tasks)} failed.",)
    count = len(tasks) - 1 - max(at for at, task in enumerate(tasks) if task.well)
    last = f"It last started at {_clock(good[-1].began)}"
    return (f"{last}; {count} failed since." if count else f"{last}.",)


def _turned(tasks: Sequence[Task], when: str, name: str) -> tuple[str, ...]:
    """It started before the run and never since: taking the run back is the one change to try."""
    try:
        moment = calendar.timegm(time.strptime(when, "%Y-%m-%dT%H:%M:%SZ"))
    except (ValueError, OverflowError):
        return ()
    before = [task for task in tasks if task.began < moment]
    after = [task for task in tasks if task.began >= moment]
    if any(task.well for task in before) and after and not any(task.well for task in after):
        return (f"It started before that run and has not since: pve-passthrough undo {name} takes the run back.",)
    return ()


# -- the guest -----------------------------------------------------------------------------------


def _runs(vmid: int) -> Observation:
    """Whatever keeps a guest from starting has not kept this one. It may have been started before the last change."""
    against = tuple(Point(cause, REFUTED) for cause in STOPS_THE_START)
    says = "The guest runs, so nothing stops its start."
    return Observation("live.runs", says, f"/run/qemu-server/{vmid}.pid", "", against)


def _content(facts: Facts, guest: Vm, seen: Sequence[GuestDevice] | Silence, weight: float) -> tuple[Observation, ...]:
    """Whether each device of the guest has a driver there that does not complain."""
    given = [facts.device(address) for entry in guest.hostpci for address in entry.addresses]
    wanted = {device.id for device in given if device is not None and device.is_display} or {
        device.id for device in given if device is not None
    }
    if isinstance(seen, Silence) or not wanted:
        return ()
    working = {one.id: one.driver for one in seen if one.driver and not one.problem}
    if not wanted <= working.keys():
        return ()
    text = ", ".join(f"{identity}: {working[identity]}" for identity in sorted(wanted))
    says = "The guest sees the device, and its driver there does not complain."
    return (Observation("live.content", says, f"guest {guest.vmid}", text, (Point(NO_FAULT, weight),)),)


def _inside(host: Host, vmid: int, devices: Sequence[GuestDevice] | Silence, doubts: list[str]) -> Iterator[Material]:
    """What the guest's own system says: a Linux guest's kernel log, Windows' problem codes, NVIDIA's tool."""
    system = os_of(host, vmid)
    if isinstance(system, Silence):
        doubts.append(f"guest {vmid}: {system.reason}")
        return
    windows = system == "mswindows"
    if windows:
        rows = () if isinstance(devices, Silence) else devices
        lines = [_problem(one.id, one.problem) for one in rows if one.problem]
        if lines:
            yield Material(f"guest {vmid}, device manager", (_bytes("".join(lines)),))
    else:
        log = spoken(host, vmid, _LINUX_LOG)
        if not isinstance(log, Silence):
            yield Material(f"guest {vmid}, kernel log", (_bytes(log),))
        else:
            doubts.append(f"guest {vmid}, kernel log: {log.reason}")
    tool = spoken(host, vmid, _WINDOWS_SMI if windows else _NVIDIA_SMI)
    if not isinstance(tool, Silence) and tool.strip():
        yield Material(f"guest {vmid}, nvidia-smi", (_bytes(tool),))


def _problem(identity: str, problem: str) -> str:
    code = problem.rpartition(" ")[2]
    name = _PROBLEMS.get(code, code)
    vendor, _, device = identity.upper().partition(":")
    return f"PCI\\VEN_{vendor}&DEV_{device}: {problem}; {name} (Code {code})\n"
