"""QEMU's command line for a guest of the lab, placed and named as recorded command lines of Proxmox VE 8.4 and 9.2 are.

1. Pure: a configuration and the devices that were chosen in, words out. What a lab guest cannot have is NotCovered.
2. Left out of Proxmox' line, because nothing here needs it: VNC, the tablet, vmgenid, smbios, `-no-shutdown` (QEMU ends
   by itself with its guest, so that no qmeventd is needed), Proxmox' own patches (`-id`).
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence

from pve_passthrough.host.simulated.pve.config import Config, options_of
from pve_passthrough.host.simulated.pve.mappings import node_maps
from pve_passthrough.host.simulated.pve.node import Node, NotCovered
from pve_passthrough.host.simulated.pve.passthrough import Entry, index_of, mdev_uuid

RUN = "/run/qemu-server"
LOGS = "/var/log/lab"
_NEVER = re.compile(r"(scsi|sata|ide|virtio|net|efidisk|tpmstate|parallel|virtiofs|audio|rng)\d+")
XHCI = "qemu-xhci,p2=15,p3=15,id=xhci,bus=pci.1,addr=0x1b"
_NUMBERS = ("vendorid", "productid", "hostbus", "p2", "p3")
_PLAIN_SLOTS = ("0x10", "0x11", "0x1b", "0x1c")
"""hostpci0 and hostpci1 are recorded at 0x10 and 0x11 of pci.0; the next two are not, and are free there."""


def build(node: Node, config: Config, found: Sequence[Entry], accelerator: str) -> list[str]:
    """The words after the program's name. Raises NotCovered."""
    values, vmid = config.active, config.vmid
    _refuse(node, values)
    q35 = options_of(node, "machine", values.get("machine", "")).get("type", "pc").removeprefix("pc-").startswith("q35")
    words = ["-name", f"{values.get('name', f'VM{vmid}')},debug-threads=on"]
    words += ["-chardev", f"socket,id=qmp,path={RUN}/{vmid}.qmp,server=on,wait=off", "-mon", "chardev=qmp,mode=control"]
    words += ["-pidfile", f"{RUN}/{vmid}.pid", "-daemonize", "-nodefaults", "-display", "none"]
    words += [*_processor(node, values, accelerator), *_buses(q35, found), *_display(node, values, q35)]
    words += _usb(node, values)
    for entry in found:
        words += _hostpci(vmid, entry, values.get("bios") == "ovmf")
    words += [*_serial(values, vmid), *_agent(node, values, vmid)]
    words += ["-machine", f"type={'q35' if q35 else 'pc'},accel={accelerator}"]
    return words + _arguments(values.get("args", ""))


def _refuse(node: Node, values: dict[str, str]) -> None:
    if values.get("bios") == "ovmf":
        raise NotCovered("a lab guest with bios: ovmf")
    for key, text in values.items():
        if _NEVER.fullmatch(key) and text != "none,media=cdrom":
            raise NotCovered(f"a lab guest with {key}")


def _processor(node: Node, values: dict[str, str], accelerator: str) -> list[str]:
    """Names that QEMU itself does not have (x86-64-v2-AES …) become its plain one."""
    cpu = options_of(node, "cpu", values.get("cpu", ""))
    kind = cpu.get("cputype", "kvm64")
    if kind == "host" and accelerator != "kvm":
        kind = "max"
    if kind not in ("host", "max", "kvm64", "qemu64"):
        kind = "qemu64"
    x_vga = any(
        options_of(node, key, text).get("x-vga") == "1" for key, text in values.items() if key.startswith("hostpci")
    )
    hidden = ",kvm=off" if cpu.get("hidden") == "1" or x_vga else ""
    sockets, cores = int(values.get("sockets", "1")), int(values.get("cores", "1"))
    count = sockets * cores
    memory = options_of(node, "memory", values.get("memory", "512")).get("current", "512")
    smp = f"{count},sockets={sockets},cores={cores},maxcpus={count}"
    return ["-smp", smp, "-cpu", f"{kind}{hidden}", "-m", memory]


def _buses(q35: bool, found: Sequence[Entry]) -> list[str]:
    """What has to be there before devices are plugged into it: pci.0 and pci.1, and on q35 the ports that are used.

    Slots: the recorded lines name the buses only; on q35 the ports lie at 1c.0 to 1c.3 and the bridge at 1e.0 as in
    QEMU's docs/config/q35-emulated.cfg, further ports at 10.0 and following.
    """
    if not q35:
        return ["-device", "pci-bridge,id=pci.1,chassis_nr=1,bus=pci.0,addr=0x1e"]
    words = ["-device", "i82801b11-bridge,id=pcidmi,bus=pcie.0,addr=1e.0"]
    for number in (0, 1):
        words += ["-device", f"pci-bridge,id=pci.{number},bus=pcidmi,addr={number + 1}.0,chassis_nr={number + 1}"]
    ports = sorted({index_of(entry.key) + 1 for entry in found if entry.on("pcie")})
    behind = [port for port in range(1, max(ports, default=0) + 1) if port in ports or port in (1, 5, 13)]
    for port in behind:  # the first function of each slot must be there, or the others are not looked for
        where = f"1c.{port - 1}" if port < 5 else f"{0x10 + (port - 5) // 8:x}.{(port - 5) % 8}"
        words += ["-device", f"pcie-root-port,id=ich9-pcie-port-{port},bus=pcie.0,addr={where},multifunction=on,"
                  f"port={port},chassis={port},x-speed=16,x-width=32"]  # fmt: skip
    return words


def _display(node: Node, values: dict[str, str], q35: bool) -> list[str]:
    kind = options_of(node, "vga", values.get("vga", "")).get("type")
    primary = any(
        options_of(node, key, text).get("x-vga") == "1" for key, text in values.items() if key.startswith("hostpci")
    )
    if kind == "none" or (kind or "").startswith("serial") or (kind is None and primary):
        return ["-vga", "none"]
    return ["-vga", "none", "-device", f"VGA,id=vga,bus={'pcie.0,addr=0x1' if q35 else 'pci.0,addr=0x2'}"]


def _hostpci(vmid: int, entry: Entry, ovmf: bool) -> list[str]:
    """A mediated device is named by its instance (recorded forms of `mdev=`). Options other than the place go to
    function 0 alone."""
    index, several = index_of(entry.key), len(entry.taken) > 1
    if not entry.on("pcie") and index >= len(_PLAIN_SLOTS):
        raise NotCovered(f"{entry.key} without pcie=1 in the lab")
    bus, slot = (f"ich9-pcie-port-{index + 1}", "0x0") if entry.on("pcie") else ("pci.0", _PLAIN_SLOTS[index])
    words: list[str] = []
    for function, address in enumerate(entry.taken):
        tail = f".{function}" if several else ""
        more = _first_function(entry, ovmf) if function == 0 else ""
        more += ",multifunction=on" if several and function == 0 else ""
        what = f"sysfsdev=/sys/bus/mdev/devices/{mdev_uuid(vmid, entry.key)}" if entry.mdev else f"host={address}"
        words += ["-device", f"vfio-pci,{what},id={entry.key}{tail},bus={bus},addr={slot}{tail}{more}"]
    return words


def _first_function(entry: Entry, ovmf: bool) -> str:
    found = ",x-vga=on" if entry.on("x-vga") and not ovmf else ""
    found += ",rombar=0" if entry.options.get("rombar") == "0" else ""
    if "romfile" in entry.options:
        found += f",romfile=/usr/share/kvm/{entry.options['romfile']}"
    for name in ("vendor-id", "device-id", "sub-vendor-id", "sub-device-id"):
        found += f",x-pci-{name}={entry.options[name]}" if name in entry.options else ""
    return found


def _usb(node: Node, values: dict[str, str]) -> list[str]:
    words: list[str] = []
    for key in sorted((key for key in values if re.fullmatch(r"usb\d+", key)), key=index_of):
        words += ["-device", usb_device(node, key, values[key])]
    return ["-device", XHCI, *words] if words else []


def usb_device(node: Node, key: str, text: str) -> str:
    """What an entry usbN is to QEMU, at a start and when it is plugged into a running guest.

    Source: qemu-server, src/PVE/QemuServer/USB.pm, print_usbdevice_full, with a port as machines from 7.1 on have it.
    """
    options = options_of(node, key, text)
    wanted = options.get("host", "")
    if "mapping" in options:
        _, maps = node_maps(node, "usb", options["mapping"])
        wanted = maps[0].get("path", maps[0]["id"])
    return f"usb-host,bus=xhci.0,port={index_of(key) + 1},{_usb_device(key, wanted)},id={key}"


def arguments(device: str) -> dict[str, str | int]:
    """The words of `-device` as the arguments of QMP's device_add, numbers as numbers (what QEMU's schema wants)."""
    driver, *options = device.split(",")
    found: dict[str, str | int] = {"driver": driver}
    for option in options:
        name, _, value = option.partition("=")
        found[name] = int(value, 0) if name in _NUMBERS else value
    return found


def _usb_device(key: str, wanted: str) -> str:
    """`vvvv:dddd` (also with 0x) or `bus-port[.port]`."""
    if match := re.fullmatch(r"(?:0x)?([0-9A-Fa-f]{4}):(?:0x)?([0-9A-Fa-f]{4})", wanted):
        return f"vendorid=0x{match.group(1)},productid=0x{match.group(2)}"
    if match := re.fullmatch(r"(\d+)-(\d+(?:\.\d+)*)", wanted):
        return f"hostbus={match.group(1)},hostport={match.group(2)}"
    raise NotCovered(f"{key}: host={wanted}")


def _serial(values: dict[str, str], vmid: int) -> list[str]:
    words: list[str] = []
    for number in range(4):
        if values.get(f"serial{number}") == "socket":
            log = f"{LOGS}/{vmid}.serial" if number == 0 else f"{LOGS}/{vmid}.serial{number}"
            path = f"{RUN}/{vmid}.serial{number}"
            words += ["-chardev", f"socket,id=serial{number},path={path},server=on,wait=off,logfile={log}"]
            words += ["-device", f"isa-serial,chardev=serial{number}"]
    return words


def _agent(node: Node, values: dict[str, str], vmid: int) -> list[str]:
    if options_of(node, "agent", values.get("agent", "0")).get("enabled") != "1":
        return []
    return [
        "-chardev", f"socket,path={RUN}/{vmid}.qga,server=on,wait=off,id=qga0",
        "-device", "virtio-serial,id=qga0,bus=pci.0,addr=0x8",
        "-device", "virtserialport,chardev=qga0,name=org.qemu.guest_agent.0",
    ]  # fmt: skip


def _arguments(text: str) -> list[str]:
    """`args` come last; what does not parse is dropped without a word, as Proxmox does it (recorded forms)."""
    try:
        return shlex.split(text)
    except ValueError:
        return []
