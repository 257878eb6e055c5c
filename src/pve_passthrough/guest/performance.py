"""How fast a guest runs, in its own words: one read-only script for each system, through the guest agent.

1. The scripts are constants; nothing that a guest says ever becomes part of a command.
2. They only look: no program is installed, no load is made, nothing is written inside the guest.
3. Answers are bounded, cut, and read line by line; what has a wrong form is left out.
4. What a guest does not say is missing from the answer, and `silences` says why where that is known.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from ..host.base import Host
from ..model.performance import Gpu, Inside
from .agent import Silence, execute, os_of

MOST = 16
"""Graphics cards and engines that are looked at."""
LINES = 20_000
_SHOWN = 64

LINUX_SCRIPT = """LC_ALL=C; export LC_ALL
echo '@stat'; head -n 1 /proc/stat
echo '@cpu'; grep -m 1 '^model name' /proc/cpuinfo; grep -m 1 '^flags' /proc/cpuinfo
echo '@clock'; cat /sys/devices/system/clocksource/clocksource0/current_clocksource
echo '@drm'; for d in /sys/class/drm/card[0-9] /sys/class/drm/card[0-9][0-9]; do
[ -e $d/device/vendor ] || continue
for f in vendor device gpu_busy_percent vcn_busy_percent power_dpm_force_performance_level mem_info_vram_total \
mem_info_vis_vram_total; do [ -r $d/device/$f ] && echo \"${d##*/} $f $(head -c 64 $d/device/$f)\"; done; done
echo '@engines'; grep -sH '^drm-' /proc/[0-9]*/fdinfo/* | head -n 4000
echo '@nvidia'; nvidia-smi -q 2>&1 | head -n 4000
exit 0
"""
"""Sections that begin with @NAME. A glob that matches nothing and a program that is missing end in silence."""
LINUX = ("/bin/sh", "-c", LINUX_SCRIPT)

WINDOWS_SCRIPT = r"""$ErrorActionPreference = 'SilentlyContinue'
$o = @{}
$o.cpu = (Get-CimInstance Win32_Processor | Select-Object -First 1).Name
$o.plan = (powercfg /getactivescheme) -join ' '
$g = Get-CimInstance -Namespace root\Microsoft\Windows\DeviceGuard -ClassName Win32_DeviceGuard
$o.vbs = $g.VirtualizationBasedSecurityStatus
$o.clock = [string]((bcdedit /enum '{current}') -match 'useplatformclock')
$o.msi = @(Get-PnpDevice -PresentOnly | Where-Object { $_.InstanceId -like 'PCI\*' } | ForEach-Object {
$p = 'HKLM:\SYSTEM\CurrentControlSet\Enum\' + $_.InstanceId + '\Device Parameters\Interrupt Management'
$v = (Get-ItemProperty ($p + '\MessageSignaledInterruptProperties')).MSISupported
@{ id = $_.InstanceId; msi = $v } })
$o.smi = (nvidia-smi.exe -q | Select-Object -First 4000) -join [string][char]10
$o | ConvertTo-Json -Depth 4 -Compress
"""
WINDOWS = (
    "powershell.exe", "-NoProfile", "-NonInteractive", "-EncodedCommand",
    base64.b64encode(WINDOWS_SCRIPT.encode("utf-16-le")).decode("ascii"),
)  # fmt: skip
"""As base64 of UTF-16, which is what -EncodedCommand takes: no quoting can go wrong on the way."""
_WINDOWS_ID = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)
_GUID = re.compile(r"[0-9a-f]{8}(?:-[0-9a-f]{4}){3}-[0-9a-f]{12}", re.IGNORECASE)


def inside(host: Host, vmid: int) -> Inside | Silence:
    """What the guest says at this moment."""
    system = os_of(host, vmid)
    if isinstance(system, Silence):
        return system
    windows = system == "mswindows"
    output = execute(host, vmid, WINDOWS if windows else LINUX)
    if isinstance(output, Silence):
        return output
    return read_windows(output) if windows else read_linux(output)


# -- Linux ---------------------------------------------------------------------------------------


def read_linux(output: str) -> Inside | Silence:
    parts: dict[str, list[str]] = {}
    name = ""
    for line in output.splitlines()[:LINES]:
        if re.fullmatch(r"@[a-z]{1,16}", line):
            name = line[1:]
        parts.setdefault(name, []).append(line[:4096])
    if "stat" not in parts:
        return Silence("the guest's answer had a wrong form")
    silences: dict[str, str] = {}
    cpu = {key.strip(): value.strip() for key, _, value in (line.partition(":") for line in parts.get("cpu", ()))}
    nvidia = _nvidia(parts.get("nvidia", ()), silences)
    clock = [line.strip() for line in parts.get("clock", ())[1:]]
    return Inside(
        "linux",
        frozenset(cpu["flags"].split()) if cpu.get("flags") else None,
        cpu.get("model name", "")[:_SHOWN],
        clock[0][:_SHOWN] if clock else "",
        _steal(parts["stat"]),
        _engines(parts.get("engines", ())),
        (*nvidia, *_drm(parts.get("drm", ()))),
        silences=silences,
    )


def _steal(lines: Sequence[str]) -> tuple[int, int] | None:
    """`cpu user nice system idle iowait irq softirq steal guest guest_nice`; the last two are counted in the first
    (kernel: Documentation/filesystems/proc.rst)."""
    for line in lines:
        words = line.split()
        if words[:1] == ["cpu"] and len(words) >= 9 and all(re.fullmatch(r"\d{1,19}", one) for one in words[1:9]):
            numbers = [int(one) for one in words[1:9]]
            return numbers[7], sum(numbers)
    return None


def _engines(lines: Sequence[str]) -> dict[str, int]:
    """Work of each engine so far, every client of a card counted once: a program may have it open many times.

    `drm-engine-NAME: N ns`, and for xe `drm-cycles-NAME` (kernel: Documentation/gpu/drm-usage-stats.rst).
    """
    clients: dict[str, list[tuple[str, str]]] = {}
    for line in lines:
        file, found, rest = line.partition(":drm-")
        key, _, value = rest.partition(":")
        if found:
            clients.setdefault(file, []).append((key, value.strip()))
    seen: set[tuple[str, str]] = set()
    total: dict[str, int] = {}
    for fields in clients.values():
        known = dict(fields)
        client = (known.get("pdev", ""), known.get("client-id", ""))
        if client in seen:
            continue
        seen.add(client)
        for key, value in fields:
            match = re.fullmatch(r"(?:engine|cycles)-([a-z0-9_-]{1,24})", key)
            number = re.match(r"(\d{1,19})\b", value)
            if match and number and not match.group(1).startswith("capacity"):
                total[match.group(1)] = total.get(match.group(1), 0) + int(number.group(1))
    return dict(list(total.items())[:64])


def _drm(lines: Sequence[str]) -> Iterator[Gpu]:
    """Cards with attributes of amdgpu (kernel: Documentation/gpu/amdgpu)."""
    cards: dict[str, dict[str, str]] = {}
    for line in lines:
        words = line.split(" ", 2)
        if len(words) == 3 and re.fullmatch(r"card\d{1,2}", words[0]):
            cards.setdefault(words[0], {})[words[1]] = words[2].strip()
    for name, fields in list(cards.items())[:MOST]:
        identity = f"{fields.get('vendor', '')[2:6]}:{fields.get('device', '')[2:6]}".lower()
        if re.fullmatch(r"[0-9a-f]{4}:[0-9a-f]{4}", identity) and not identity.startswith("10de"):
            yield Gpu(
                identity,
                f"/sys/class/drm/{name}/device",
                _number(fields.get("gpu_busy_percent", ""), 100),
                _number(fields.get("vcn_busy_percent", ""), 100),
                window=_number(fields.get("mem_info_vis_vram_total", ""), 1 << 50),
                memory=_number(fields.get("mem_info_vram_total", ""), 1 << 50),
                profile=fields.get("power_dpm_force_performance_level", "")[:_SHOWN],
            )


def _number(text: str, most: int) -> int | None:
    match = re.match(r"(\d{1,18})\b", text.strip())
    return int(match.group(1)) if match and int(match.group(1)) <= most else None


# -- nvidia-smi ----------------------------------------------------------------------------------

_MIB = re.compile(r"(\d{1,9}) Mi?B")


def _nvidia(lines: Sequence[str], silences: dict[str, str]) -> tuple[Gpu, ...]:
    """The cards of `nvidia-smi -q`: `Key : value` by depth, each card from a line `GPU 00000000:01:00.0` on."""
    cards: list[dict[str, str]] = []
    path: list[tuple[int, str]] = []
    for line in lines:
        if re.match(r"GPU [0-9A-Fa-f]{4,8}:", line):
            cards.append({})
            path = []
            continue
        key, _, value = line.partition(" : ")
        depth = len(line) - len(line.lstrip())
        if not cards or len(cards) > MOST or not line.strip() or depth == 0:
            continue
        while path and path[-1][0] >= depth:
            path.pop()
        path.append((depth, key.strip()))
        if value:
            cards[-1].setdefault("/".join(name for _, name in path), value.strip()[:_SHOWN])
    if not cards:
        said = [line.strip() for line in lines if line.strip() and not line.startswith("@")]
        silences["nvidia"] = said[0][:200] if said else "nvidia-smi said nothing"
    return tuple(_nvidia_card(card) for card in cards[:MOST])


def _nvidia_card(card: dict[str, str]) -> Gpu:
    number = re.fullmatch(r"0x([0-9A-Fa-f]{4})([0-9A-Fa-f]{4})", card.get("PCI/Device Id", ""))
    brakes = tuple(
        key.rpartition("/")[2]
        for key, value in card.items()
        if re.match(r"Clocks (?:Event|Throttle) Reasons/", key) and value == "Active"
    )
    return Gpu(
        f"{number.group(2)}:{number.group(1)}".lower() if number else "",
        "nvidia-smi -q",
        _number(card.get("Utilization/Gpu", card.get("Utilization/GPU", "")), 100),
        _number(card.get("Utilization/Encoder", ""), 100),
        _number(card.get("Encoder Stats/Active Sessions", ""), 10_000),
        state if re.fullmatch(r"P\d{1,2}", state := card.get("Performance State", "")) else "",
        brakes,
        _mebibytes(card.get("BAR1 Memory Usage/Total", "")),
        _mebibytes(card.get("FB Memory Usage/Total", "")),
    )


def _mebibytes(text: str) -> int | None:
    match = _MIB.fullmatch(text)
    return int(match.group(1)) << 20 if match else None


# -- Windows -------------------------------------------------------------------------------------


def read_windows(output: str) -> Inside | Silence:
    try:
        said = json.loads(output.lstrip("\ufeff"))
    except (ValueError, RecursionError):
        return Silence("the guest's answer was not whole")
    if not isinstance(said, dict):
        return Silence("the guest's answer had a wrong form")
    silences: dict[str, str] = {}
    smi = said.get("smi")
    lines = smi.splitlines()[:LINES] if isinstance(smi, str) else []
    plan = _GUID.search(str(said.get("plan"))[:1000])
    vbs = said.get("vbs")
    return Inside(
        "windows",
        None,
        _words(said.get("cpu")),
        "useplatformclock" if said.get("clock") not in (None, "", "False") else "",
        gpus=_nvidia(lines, silences),
        msi=_msi(said.get("msi")),
        vbs=vbs == 2 if isinstance(vbs, int) else None,
        plan=plan.group().lower() if plan else "",
        silences=silences,
    )


def _words(value: Any) -> str:
    return value.strip()[:_SHOWN] if isinstance(value, str) else ""


def _msi(rows: Any) -> dict[str, bool | None] | None:
    """By device whether Windows lets it use message interrupts. None: it says nothing, and an INF file decides."""
    if isinstance(rows, dict):
        rows = [rows]
    if not isinstance(rows, list):
        return None
    found: dict[str, bool | None] = {}
    for row in rows[:1000]:
        match = _WINDOWS_ID.match(str(row.get("id"))[:200]) if isinstance(row, dict) else None
        if match:
            value = row.get("msi")
            found[":".join(match.groups()).lower()] = bool(value) if isinstance(value, int) else None
    return found
