"""What a simulated guest tells of its own speed: the sections of a shell script, the JSON of a PowerShell one.

1. A shell script whose lines begin with `echo '@NAME';` prints for each NAME what the guest's `looks` in machine.json
   says, else what follows from its configuration and its devices. A PowerShell script that asks Win32_DeviceGuard
   prints its answers as one JSON object in the same way.
2. The guest sees the processor that its `cpu` line gives it (qemu-server CPUConfig.pm: what the models hide).
3. nvidia-smi is there when the guest has NVIDIA's driver on a card; with `busy` in machine.json the card works.
"""

from __future__ import annotations

import base64
import json
import re
from collections.abc import Iterator, Sequence
from typing import Any

from .config import options_of
from .guests import running_with
from .inventory import device_ids
from .node import Node

_SECTION = re.compile(r"(?m)^echo '@([a-z]+)'")
_HIDDEN = {"x86-64-v2": {"aes", "avx", "avx2"}, "x86-64-v2-AES": {"avx", "avx2"}}
_HOSTS = ("host", "max", "x86-64-v3", "x86-64-v4")


def is_look(script: str) -> bool:
    return _SECTION.search(script) is not None


def sections(node: Node, vmid: int, script: str) -> str:
    said = _linux(node, vmid) | {name: str(text) for name, text in node.guest(vmid).get("looks", {}).items()}
    return "".join(f"@{name}\n{_ended(said.get(name, ''))}" for name in _SECTION.findall(script))


def encoded(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    """`powershell -EncodedCommand BASE64` of UTF-16 (little endian)."""
    words = list(argv)
    place = words.index("-EncodedCommand") + 1
    try:
        script = base64.b64decode(words[place]).decode("utf-16-le")
    except (IndexError, ValueError):
        return 1, ""
    if "Win32_DeviceGuard" not in script:
        return 1, ""
    return 0, json.dumps(_windows(node, vmid) | node.guest(vmid).get("looks", {})) + "\r\n"


def _ended(text: str) -> str:
    return text if not text or text.endswith("\n") else f"{text}\n"


def _linux(node: Node, vmid: int) -> dict[str, str]:
    model, flags = _processor(node, vmid)
    return {
        "stat": "cpu  1000 0 500 100000 0 0 0 0 0 0",
        "cpu": f"model name\t: {model}\nflags\t\t: {flags}",
        "clock": "kvm-clock",
        "nvidia": _nvidia(node, vmid) or "/bin/sh: 9: nvidia-smi: not found",
    }


def _windows(node: Node, vmid: int) -> dict[str, Any]:
    rows = []
    for _, host in running_with(node, vmid).get("devices", []):
        ids = device_ids(node, host)
        kind = node.guest(vmid).get("interrupts", {}).get(f"{ids.vendor}:{ids.device}")
        name = f"PCI\\VEN_{ids.vendor}&DEV_{ids.device}&SUBSYS_00000000\\4&0&0&{host[-2:]}".upper()
        rows.append({"id": name, "msi": None if kind == "intx" else 1})
    return {
        "cpu": _processor(node, vmid)[0],
        "plan": "Power Scheme GUID: 381b4222-f694-41f0-9685-ff5bb260df2e  (Balanced)",
        "vbs": 0,
        "clock": "",
        "msi": rows,
        "smi": _nvidia(node, vmid),
    }


def _processor(node: Node, vmid: int) -> tuple[str, str]:
    config = running_with(node, vmid).get("config", {})
    kind = options_of(node, "cpu", config.get("cpu", "kvm64")).get("cputype", "kvm64")
    text = node.world.text("/proc/cpuinfo") or ""
    flags = re.search(r"(?m)^flags\s*: (.*)$", text)
    model = re.search(r"(?m)^model name\s*: (.*)$", text)
    words = flags.group(1).split() if flags else []
    hidden = set() if kind in _HOSTS else _HIDDEN.get(kind, {"aes", "avx", "avx2"})
    name = model.group(1) if model and kind in ("host", "max") else "Common KVM processor"
    return name, " ".join(word for word in words if word not in hidden)


def _nvidia(node: Node, vmid: int) -> str:
    """`nvidia-smi -q`, the lines that matter, with the depth and the names of today's drivers."""
    cards = list(_cards(node, vmid))
    if not cards:
        return ""
    busy = bool(node.guest(vmid).get("busy"))
    blocks = [_card(address, number, busy) for address, number in cards]
    return f"\n==============NVSMI LOG==============\n\nAttached GPUs{'':29}: {len(cards)}\n" + "".join(blocks)


def _cards(node: Node, vmid: int) -> Iterator[tuple[str, str]]:
    for guest, host in running_with(node, vmid).get("devices", []):
        ids = device_ids(node, host)
        driver = node.guest(vmid).get("drivers", {}).get(f"{ids.vendor}:{ids.device}", "")
        if ids.vendor == "10de" and driver in ("nvidia", "nvlddmkm"):
            yield guest, f"0x{ids.device}{ids.vendor}".upper().replace("0X", "0x")


def _card(address: str, number: str, busy: bool) -> str:
    rows = (
        (4, "Product Name", "NVIDIA"), (4, "PCI", None), (8, "Device Id", number), (8, "Bus Id", f"0000{address}"),
        (4, "Performance State", "P0" if busy else "P8"),
        (4, "Clocks Event Reasons", None), (8, "Idle", "Not Active" if busy else "Active"),
        (8, "SW Power Cap", "Active" if busy else "Not Active"), (8, "HW Slowdown", "Not Active"),
        (12, "HW Thermal Slowdown", "Not Active"), (8, "SW Thermal Slowdown", "Not Active"),
        (4, "FB Memory Usage", None), (8, "Total", "10240 MiB"), (4, "BAR1 Memory Usage", None),
        (8, "Total", "256 MiB"),
        (4, "Utilization", None), (8, "Gpu", f"{97 if busy else 0} %"), (8, "Memory", "0 %"),
        (8, "Encoder", f"{34 if busy else 0} %"), (8, "Decoder", "0 %"),
        (4, "Encoder Stats", None), (8, "Active Sessions", f"{int(busy)}"), (8, "Average FPS", "0"),
    )  # fmt: skip
    lines = (f"{'':{depth}}{name}" if value is None else f"{'':{depth}}{name:<{38 - depth}}: {value}"
             for depth, name, value in rows)  # fmt: skip
    return f"\nGPU 0000{address}\n" + "".join(f"{line}\n" for line in lines)
