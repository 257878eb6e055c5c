"""The QEMU guest agent of a simulated guest: `qm agent`, `qm guest cmd|exec|exec-status`, …/agent/*.

1. The inside of a guest is machine.json's `guests`, {"100": {…}}:
   agent     true: the agent answers (the guest's configuration must have `agent: 1` as well)
   os        "linux" (default) or "windows"
   kernel    what `uname -r` prints
   drivers   {"10de:2684": "nvidia"}: the driver that the guest has bound; a device that is not named has none
   problems  {"10de:2684": 43}: the problem code that Windows shows for a device
   commands  {"nvidia-smi -L": {"exitcode": 0, "out-data": "…", "err-data": "…"}}: any further program
   files     {"/path": "text"}: what `cat` prints
   looks     what a look at its speed prints, see `inside`; `busy`: its cards work
   addresses ["192.0.2.10"]: IPv4 addresses of its first network card
   listens   {"22": "SSH-2.0-OpenSSH_9.2"}: what it says to whoever connects
2. A silent agent speaks in recorded words; what a working one says has the form of the agent's protocol, unrecorded.
3. Only what these tables and the passed devices say is answered; an unknown program does not exist in the guest.
4. A node with a `machinery` asks the real agent; what it says is put into Proxmox' form here.
"""

from __future__ import annotations

import base64
import json
import re
import time
from collections.abc import Callable, Sequence
from typing import Any

from .changes import is_running
from .config import load, options_of
from .guests import running_with, usb_in_guest
from .inside import encoded, is_look, sections
from .inventory import device_ids
from .node import Die, Node, NotCovered

EXEC_SECONDS = 30
"""How long `qm guest exec` waits when nobody says so (the default of its --timeout)."""

_CLASSES = {
    "0106": "SATA controller",
    "0107": "Serial Attached SCSI controller",
    "0108": "Non-Volatile memory controller",
    "0200": "Ethernet controller",
    "0280": "Network controller",
    "0300": "VGA compatible controller",
    "0302": "3D controller",
    "0380": "Display controller",
    "0403": "Audio device",
    "0c03": "USB controller",
}
_WINDOWS_CLASSES = {"03": "Display", "04": "MEDIA", "02": "Net", "01": "SCSIAdapter", "0c": "USB"}


def _ready(node: Node, vmid: int) -> dict[str, Any]:
    """What the guest is made of, or the refusal of an agent that does not answer."""
    load(node, vmid)
    if not is_running(node, vmid):
        raise Die(f"VM {vmid} is not running", 2)
    config = running_with(node, vmid).get("config") or load(node, vmid).active
    if options_of(node, "agent", config.get("agent", "0")).get("enabled") != "1":
        raise Die("No QEMU guest agent configured")
    guest = node.guest(vmid)
    if not (node.machinery.answers(node, vmid) if node.machinery else guest.get("agent")):
        raise Die("QEMU guest agent is not running")
    return guest


def command(node: Node, vmid: int, name: str) -> Any:
    """`qm guest cmd ID NAME`: the agent's result."""
    guest = _ready(node, vmid)
    if node.machinery:
        return node.machinery.ask(node, vmid, f"guest-{name}", {})
    windows = guest.get("os") == "windows"
    if name == "ping":
        return {}
    if name == "get-osinfo":
        if windows:
            return {"id": "mswindows", "name": "Microsoft Windows", "pretty-name": "Windows 11 Pro"}
        kernel = _kernel(guest)
        return {"id": "debian", "name": "Debian GNU/Linux", "kernel-release": kernel, "machine": "x86_64"}
    if name == "get-host-name":
        return {"host-name": load(node, vmid).active.get("name", f"VM{vmid}")}
    if name == "network-get-interfaces":
        return _interfaces(node, vmid, guest)
    raise NotCovered(f"the guest agent's {name}")


def _interfaces(node: Node, vmid: int, guest: dict[str, Any]) -> list[dict[str, Any]]:
    """The loopback, and one card for net0 with the guest's addresses (qga/qapi-schema.json, GuestNetworkInterface)."""
    mac = re.search(r"(?:[0-9A-Fa-f]{2}:){5}[0-9A-Fa-f]{2}", load(node, vmid).active.get("net0", ""))
    cards = [("lo", "00:00:00:00:00:00", ["127.0.0.1"])]
    if mac:
        cards.append(("eth0", mac.group().lower(), guest.get("addresses", [])))
    return [
        {
            "name": name,
            "hardware-address": address,
            "ip-addresses": [{"ip-address": one, "ip-address-type": "ipv4", "prefix": 24} for one in listed],
        }
        for name, address, listed in cards
    ]


def _kernel(guest: dict[str, Any]) -> str:
    return str(guest.get("kernel", "6.12.48+deb13-amd64"))


def execute(node: Node, vmid: int, argv: Sequence[str], seconds: int = EXEC_SECONDS) -> dict[str, Any]:
    """Run a program in the guest to its end: exited, exitcode, out-data, err-data; `pid` alone when it did not end
    within `seconds` (0: wait for ever), as qm's own loop does it."""
    guest = _ready(node, vmid)
    if node.machinery:
        return _execute_really(node, vmid, argv, seconds)
    known = guest.get("commands", {}).get(" ".join(argv))
    if known is not None:
        return {"exited": 1, "exitcode": 0, **known}
    windows = guest.get("os") == "windows"
    program = argv[0].rpartition("/")[2] if argv else ""
    table = _WINDOWS_PROGRAMS if windows else _LINUX_PROGRAMS
    if program not in table:
        raise Die(
            "Agent error: Guest agent command failed, error was 'Failed to execute child process "
            f"“{program}” (No such file or directory)'"
        )
    code, output = table[program](node, vmid, argv)
    return {"exited": 1, "exitcode": code, **({"out-data": output} if output else {})}


def _execute_really(node: Node, vmid: int, argv: Sequence[str], seconds: int) -> dict[str, Any]:
    pid = exec_start(node, vmid, argv)
    end = time.monotonic() + seconds
    pause = 0.05
    while not seconds or time.monotonic() < end:
        answer = exec_status(node, vmid, str(pid))
        if answer.get("exited"):
            return answer
        time.sleep(pause)
        pause = min(2 * pause, 1.0)
    node.warn("timeout reached, returning pid")
    return {"pid": pid}


def _plain(answer: dict[str, Any]) -> dict[str, Any]:
    """guest-exec-status as Proxmox hands it on: data decoded, booleans as 1 and 0 (qga/qapi-schema.json)."""
    found: dict[str, Any] = {}
    for key, value in answer.items():
        if key in ("out-data", "err-data"):
            found[key] = base64.b64decode(str(value)).decode("utf-8", "replace")
        else:
            found[key] = int(value) if isinstance(value, bool) else value
    return found


def exec_start(node: Node, vmid: int, argv: Sequence[str]) -> int:
    """Start a program; its process id, for `exec_status`."""
    if node.machinery:
        _ready(node, vmid)
        wanted = {"path": argv[0] if argv else "", "arg": list(argv[1:]), "capture-output": True}
        return int(node.machinery.ask(node, vmid, "guest-exec", wanted)["pid"])
    result = execute(node, vmid, argv)
    state = node.state()
    started = state.setdefault("agent_programs", {})
    pid = 900 + len(started)
    started[f"{vmid}/{pid}"] = result
    node.world.save_state(state)
    return pid


def exec_status(node: Node, vmid: int, pid: str) -> dict[str, Any]:
    _ready(node, vmid)
    if node.machinery:
        return _plain(node.machinery.ask(node, vmid, "guest-exec-status", {"pid": int(pid)}))
    found: dict[str, Any] | None = node.state().get("agent_programs", {}).get(f"{vmid}/{pid}")
    if found is None:
        raise Die(f"Agent error: Guest agent command failed, error was 'PID {pid} does not exist'")
    return found


# -- programs in the guest ------------------------------------------------------------------------


def _devices(node: Node, vmid: int) -> list[tuple[str, str]]:
    return [(guest, host) for guest, host in running_with(node, vmid).get("devices", [])]


def _driver(node: Node, vmid: int, host: str) -> str:
    ids = device_ids(node, host)
    return str(node.guest(vmid).get("drivers", {}).get(f"{ids.vendor}:{ids.device}", ""))


def _lspci(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    flags = "".join(word[1:] for word in argv[1:] if word.startswith("-") and word[1:2] not in ("s", "d"))
    chosen = _lspci_filter(argv)
    lines = []
    for address, host in _devices(node, vmid):
        ids = device_ids(node, host)
        code = (node.world.attribute(host, "class") or "").removeprefix("0x")[:4]
        identity = f"{ids.vendor}:{ids.device}"
        if not chosen(address, identity):
            continue
        shown = address if "D" in flags else address.removeprefix("0000:")
        lines.append(f"{shown} {_CLASSES.get(code, 'Class')} [{code}]: Device [{identity}]")
        if "k" in flags:
            lines += [f"\tSubsystem: Device [{ids.subsystem}]"] if ids.subsystem else []
            driver = _driver(node, vmid, host)
            lines += [f"\tKernel driver in use: {driver}"] if driver else []
    return 0, "".join(f"{line}\n" for line in lines)


def _lspci_filter(argv: Sequence[str]) -> Callable[[str, str], bool]:
    """`-s ADDRESS` and `-d VENDOR:[DEVICE]`, joined or as a word of their own."""
    slot = vendor = ""
    for position, word in enumerate(argv):
        following = argv[position + 1] if position + 1 < len(argv) else ""
        if word.startswith("-s"):
            slot = word[2:] or following
        elif word.startswith("-d"):
            vendor = word[2:] or following
    return lambda address, identity: address.endswith(slot) and identity.startswith(vendor)


def _find(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    """`find … /sys/bus/pci/devices … -name uevent -exec cat {} ;`: the uevent files, one after the other."""
    if "/sys/bus/usb/devices" in argv and "uevent" in argv:
        return 0, "".join(_usb_uevent(identity, number) for number, identity in enumerate(_usb(node, vmid), 1))
    if "/sys/bus/pci/devices" not in argv or "uevent" not in argv:
        return 1, ""
    return 0, "".join(_uevent(node, vmid, address, host) for address, host in _devices(node, vmid))


def _uevent(node: Node, vmid: int, address: str, host: str) -> str:
    """Form: drivers/pci/pci-driver.c, pci_uevent; DRIVER first, only when there is one (drivers/base/core.c)."""
    ids = device_ids(node, host)
    code = (node.world.attribute(host, "class") or "").removeprefix("0x").lstrip("0").upper()
    driver = _driver(node, vmid, host)
    lines = [f"DRIVER={driver}"] if driver else []
    lines += [f"PCI_CLASS={code}", f"PCI_ID={ids.vendor}:{ids.device}".upper()]
    lines += [f"PCI_SUBSYS_ID={ids.subsystem.upper()}", f"PCI_SLOT_NAME={address}"]
    lines += [f"MODALIAS=pci:v0000{ids.vendor.upper()}d0000{ids.device.upper()}"]
    return "".join(f"{line}\n" for line in lines)


def _usb(node: Node, vmid: int) -> list[str]:
    """QEMU's own root hub and tablet, then what the host gave."""
    return ["1d6b:0002", "0627:0001", *usb_in_guest(node, vmid)]


def _usb_uevent(identity: str, number: int) -> str:
    """Form: drivers/usb/core/usb.c, usb_dev_uevent, and driver.c, usb_uevent; PRODUCT without leading zeros."""
    product = "/".join(f"{int(part, 16):x}" for part in identity.split(":"))
    return (
        f"MAJOR=189\nMINOR={number - 1}\nDEVNAME=bus/usb/001/{number:03d}\nDEVTYPE=usb_device\nDRIVER=usb\n"
        f"PRODUCT={product}/100\nTYPE=0/0/0\nBUSNUM=001\nDEVNUM={number:03d}\n"
    )


def _lsusb(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    lines = [
        f"Bus 001 Device {index:03d}: ID {identity}\n" for index, identity in enumerate(usb_in_guest(node, vmid), 2)
    ]
    return 0, "Bus 001 Device 001: ID 1d6b:0002\n" + "".join(lines)


def _uname(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    kernel = _kernel(node.guest(vmid))
    return 0, f"{kernel}\n" if "-r" in argv else f"Linux {kernel} x86_64 GNU/Linux\n" if "-a" in argv else "Linux\n"


def _cat(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    files = node.guest(vmid).get("files", {})
    texts = [files.get(path) for path in argv[1:]]
    return (1 if None in texts else 0), "".join(text for text in texts if text is not None)


def _shell(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    """`sh -c 'PROGRAM WORDS'`: one plain command only."""
    import shlex

    line = argv[2] if len(argv) > 2 and argv[1] == "-c" else ""
    if is_look(line):
        return 0, sections(node, vmid, line)
    words = shlex.split(line)
    program = words[0].rpartition("/")[2] if words else ""
    if any(sign in line for sign in ";|&<>$`") or program not in _LINUX_PROGRAMS or program == "sh":
        return 127, ""
    return _LINUX_PROGRAMS[program](node, vmid, words)


def _dmesg(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    """The first lines of a kernel under KVM (arch/x86/kernel/cpu/hypervisor.c); machine.json's `commands` has more."""
    said = (f"Linux version {_kernel(node.guest(vmid))}", "Hypervisor detected: KVM")
    return 0, "".join(f"[    0.000000] {line}\n" for line in said)


def _true(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    return 0, ""


def _powershell(node: Node, vmid: int, argv: Sequence[str]) -> tuple[int, str]:
    """Get-PnpDevice as JSON: a list, or the one object itself, as ConvertTo-Json writes it."""
    if "-EncodedCommand" in argv:
        return encoded(node, vmid, argv)
    if "Get-PnpDevice" not in " ".join(argv):
        return 1, ""
    rows = [_pnp(node, vmid, host) for _, host in _devices(node, vmid)]
    rows += [_usb_pnp(identity) for identity in usb_in_guest(node, vmid)]
    if not rows:
        return 0, ""
    return 0, json.dumps(rows if len(rows) > 1 else rows[0], separators=(",", ":")) + "\r\n"


def _pnp(node: Node, vmid: int, host: str) -> dict[str, Any]:
    ids = device_ids(node, host)
    identity = f"{ids.vendor}:{ids.device}"
    vendor, _, device = ids.subsystem.partition(":")
    driver = _driver(node, vmid, host)
    # 28: no driver installed (Windows' device manager error codes)
    problem = int(node.guest(vmid).get("problems", {}).get(identity, 0 if driver else 28))
    code = (node.world.attribute(host, "class") or "").removeprefix("0x")[:2]
    name = f"PCI\\VEN_{ids.vendor}&DEV_{ids.device}&SUBSYS_{device}{vendor}".upper()
    return {
        "InstanceId": f"{name}\\4&0&0&{host[-2:]}",
        "Class": _WINDOWS_CLASSES.get(code, "System") if driver else None,
        "Status": "OK" if problem == 0 else "Error",
        "Problem": problem,
        "Service": driver or None,
    }


def _usb_pnp(identity: str) -> dict[str, Any]:
    vendor, _, product = identity.upper().partition(":")
    name = f"USB\\VID_{vendor}&PID_{product}\\5&1&0&2"
    return {"InstanceId": name, "Class": "USB", "Status": "OK", "Problem": 0, "Service": "usbccgp"}


_Program = Callable[[Node, int, Sequence[str]], tuple[int, str]]
_LINUX_PROGRAMS: dict[str, _Program] = {
    "cat": _cat,
    "dmesg": _dmesg,
    "find": _find,
    "lspci": _lspci,
    "lsusb": _lsusb,
    "sh": _shell,
    "true": _true,
    "uname": _uname,
}
_WINDOWS_PROGRAMS: dict[str, _Program] = {"powershell": _powershell, "powershell.exe": _powershell}
