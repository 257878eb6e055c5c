"""What the guest itself says, through Proxmox' `qm guest`.

1. The guest is not trusted: every answer is bounded, parsed defensively, and never used as a command.
2. Inside the guest only programs that every system has are started, as argument vectors.
3. No agent is "unknown", never "the guest does not see it".
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence

from ..host.base import Host, HostError
from ..model.value import dataclass

ANSWER_LIMIT = 4 * 1024 * 1024
"""Characters of guest output that are looked at."""
_MOST_INTERFACES = 64
_SHOWN = 200
"""Characters of what the guest says that are passed on to people."""

_LINUX_DEVICES = (
    "find", "-L", "/sys/bus/pci/devices", "-maxdepth", "2", "-name", "uevent", "-exec", "cat", "{}", ";",
)  # fmt: skip
_WINDOWS_DEVICES = (
    "powershell.exe", "-NoProfile", "-NonInteractive", "-Command",
    "Get-PnpDevice -PresentOnly | Select-Object InstanceId,Status,Problem,Service | ConvertTo-Json -Compress",
)  # fmt: skip
_LINUX_USB = (
    "find", "-L", "/sys/bus/usb/devices", "-maxdepth", "2", "-name", "uevent", "-exec", "cat", "{}", ";",
)  # fmt: skip
_WINDOWS_USB_ID = re.compile(r"USB\\VID_([0-9A-F]{4})&PID_([0-9A-F]{4})\\", re.IGNORECASE)
_WINDOWS_ID = re.compile(r"PCI\\VEN_([0-9A-F]{4})&DEV_([0-9A-F]{4})", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class GuestDevice:
    """One PCI function as the guest sees it. `driver` empty: none. `problem`: what Windows complains about."""

    id: str
    driver: str
    problem: str = ""


@dataclass(frozen=True, slots=True)
class Interface:
    """One network interface as the guest names it."""

    name: str
    mac: str
    addresses: tuple[str, ...]


@dataclass(frozen=True, slots=True)
class Silence:
    """The guest gave no usable answer; `reason` in Proxmox' or our words."""

    reason: str


def os_of(host: Host, vmid: int) -> str | Silence:
    """`mswindows`, `debian`, … as the agent's get-osinfo says."""
    answer = _qm(host, ("qm", "guest", "cmd", str(vmid), "get-osinfo"))
    if isinstance(answer, Silence):
        return answer
    identity = answer.get("id")
    return identity if isinstance(identity, str) else Silence("the agent did not name the guest's system")


def devices_in(host: Host, vmid: int) -> tuple[GuestDevice, ...] | Silence:
    """All PCI functions that the guest's own kernel lists."""
    system = os_of(host, vmid)
    if isinstance(system, Silence):
        return system
    windows = system == "mswindows"
    output = execute(host, vmid, _WINDOWS_DEVICES if windows else _LINUX_DEVICES)
    if isinstance(output, Silence):
        return output
    return _windows_devices(output) if windows else _linux_devices(output)


def usb_devices_in(host: Host, vmid: int) -> tuple[GuestDevice, ...] | Silence:
    """All USB devices that the guest's own kernel lists, its own tablet among them."""
    system = os_of(host, vmid)
    if isinstance(system, Silence):
        return system
    windows = system == "mswindows"
    output = execute(host, vmid, _WINDOWS_DEVICES if windows else _LINUX_USB)
    if isinstance(output, Silence):
        return output
    return _windows_devices(output, _WINDOWS_USB_ID) if windows else _linux_usb(output)


def interfaces_in(host: Host, vmid: int) -> tuple[Interface, ...] | Silence:
    """The guest's network interfaces, as its agent lists them (qga/qapi-schema.json, guest-network-get-interfaces)."""
    answer = _answer(host, ("qm", "guest", "cmd", str(vmid), "network-get-interfaces"))
    if isinstance(answer, Silence):
        return answer
    rows = answer if isinstance(answer, list) else []
    return tuple(_interface(row) for row in rows[:_MOST_INTERFACES] if isinstance(row, dict))


def _interface(row: dict[str, object]) -> Interface:
    listed = row.get("ip-addresses")
    rows = listed if isinstance(listed, list) else []
    found = (one.get("ip-address") for one in rows[:_MOST_INTERFACES] if isinstance(one, dict))
    addresses = tuple(one for one in found if isinstance(one, str) and len(one) < 64)
    return Interface(_cut(row.get("name", "")), _cut(row.get("hardware-address", "")), addresses)


def spoken(host: Host, vmid: int, argv: Sequence[str], timeout: int = 30) -> str | Silence:
    """What a program in the guest said on both of its outputs, however it ended: a diagnosis reads the complaint."""
    answer = _qm(host, ("qm", "guest", "exec", str(vmid), "--timeout", str(timeout), "--", *argv), timeout + 15)
    if isinstance(answer, Silence):
        return answer
    if not answer.get("exited"):
        return Silence(f"{argv[0]} did not end within {timeout} s in the guest")
    said = (answer.get("out-data"), answer.get("err-data"))
    return "\n".join(text for text in said if isinstance(text, str) and text)[-ANSWER_LIMIT:]


def execute(host: Host, vmid: int, argv: Sequence[str], timeout: int = 60) -> str | Silence:
    """Standard output of a program in the guest that ended with 0."""
    answer = _qm(host, ("qm", "guest", "exec", str(vmid), "--timeout", str(timeout), "--", *argv), timeout + 15)
    if isinstance(answer, Silence):
        return answer
    if not answer.get("exited"):
        return Silence(f"{argv[0]} did not end within {timeout} s in the guest")
    if answer.get("exitcode") != 0:
        return Silence(f"{argv[0]} ended with {_cut(answer.get('exitcode'))} in the guest")
    output = answer.get("out-data", "")
    if not isinstance(output, str):
        return Silence("the agent's output was no text")
    # QEMU's agent keeps 16 MiB of a program's output and says when there was more (qga/qapi-schema.json).
    return Silence(f"{argv[0]} said too much") if answer.get("out-truncated") else output


def _qm(host: Host, argv: Sequence[str], timeout: float = 30.0) -> dict[str, object] | Silence:
    answer = _answer(host, argv, timeout)
    return answer if isinstance(answer, dict | Silence) else Silence("the agent's answer had a wrong form")


def _answer(host: Host, argv: Sequence[str], timeout: float = 30.0) -> object:
    """Whatever JSON the agent gave, or Silence."""
    try:
        ran = host.run(argv, timeout=timeout)
    except HostError as error:
        return Silence(_cut(error))
    if not ran.ok:
        return Silence(_cut((ran.stderr.strip() or ran.stdout.strip() or f"qm ended with {ran.rc}").split("\n")[-1]))
    if len(ran.stdout) > ANSWER_LIMIT:
        return Silence("the agent's answer was too long")
    try:
        return json.loads(ran.stdout or "{}")
    except (ValueError, RecursionError):
        return Silence("the agent's answer was not whole")


def _cut(said: object) -> str:
    return str(said)[:_SHOWN]


def _listed(found: list[GuestDevice]) -> tuple[GuestDevice, ...] | Silence:
    """Every guest has at least the bridge that QEMU gives it: an empty list is no answer."""
    return tuple(found) or Silence("the guest listed no PCI device at all")


def _linux_devices(output: str) -> tuple[GuestDevice, ...] | Silence:
    """uevent files one after the other; DRIVER, when there is one, is the first line of its device's block."""
    found: list[GuestDevice] = []
    driver = ""
    for line in output.splitlines():
        key, _, value = line.partition("=")
        if key == "DRIVER":
            driver = value[:_SHOWN]
        elif key == "PCI_ID":
            found.append(GuestDevice(value[:_SHOWN].lower(), driver))
        elif key == "MODALIAS":
            driver = ""
    return _listed(found)


_USB_PRODUCT = re.compile(r"([0-9a-f]{1,4})/([0-9a-f]{1,4})/[0-9a-f]{1,4}")


def _linux_usb(output: str) -> tuple[GuestDevice, ...]:
    """uevent files of devices and of interfaces; both have PRODUCT=46d/c52b/1211 after DEVTYPE and DRIVER, and the
    driver of interest is that of an interface (kernel: drivers/usb/core/driver.c, usb_uevent)."""
    found: list[str] = []
    drivers: dict[str, str] = {}
    kind = driver = ""
    for line in output.splitlines():
        key, _, value = line.partition("=")
        if key == "DEVTYPE":
            kind, driver = value, ""
        elif key == "DRIVER":
            driver = value[:_SHOWN]
        elif key == "PRODUCT" and (match := _USB_PRODUCT.fullmatch(value)):
            identity = f"{int(match.group(1), 16):04x}:{int(match.group(2), 16):04x}"
            if kind == "usb_device":
                found.append(identity)
            elif driver:
                drivers.setdefault(identity, driver)
    return tuple(GuestDevice(identity, drivers.get(identity, "")) for identity in found)


def _windows_devices(
    output: str, pattern: re.Pattern[str] = _WINDOWS_ID
) -> tuple[GuestDevice, ...] | Silence:  # fmt: skip
    try:
        rows = json.loads(output)
    except (ValueError, RecursionError):
        return Silence("the list of devices was not whole")
    found: list[GuestDevice] = []
    for row in rows if isinstance(rows, list) else [rows]:
        match = pattern.match(str(row.get("InstanceId", ""))) if isinstance(row, dict) else None
        if match is not None:
            healthy = row.get("Status") == "OK"
            problem = "" if healthy else _cut(f"{row.get('Status')} {row.get('Problem') or ''}".strip())
            found.append(GuestDevice(":".join(match.groups()).lower(), _cut(row.get("Service") or ""), problem))
    return _listed(found) if pattern is _WINDOWS_ID else tuple(found)
