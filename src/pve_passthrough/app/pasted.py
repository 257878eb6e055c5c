"""A machine rebuilt from what people paste: listings and configurations become a tree, and the ordinary probe reads it.

1. So nothing is parsed twice: a pasted guest configuration goes through the very code that reads the real one.
2. What nobody pasted is not there to be asked: it stays unknown, never absent. Absence is said where a paste shows it:
   a kernel's whole boot without one line about groups, a listing of the whole bus without an address.
3. Nothing pasted is trusted; the probe trusts nothing either.
"""

from __future__ import annotations

import os
import re
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import field, replace
from itertools import chain

from ..diagnosis import Material, diagnose
from ..diagnosis.files import Paper, as_config, maker_of
from ..diagnosis.listings import Listed, listed
from ..host.base import Ran
from ..host.replay import Answers, NoAnswer, Replay
from ..model.diagnosis import Diagnosis, Kind, Observation
from ..model.facts import Facts
from ..model.pci import Address, Device
from ..model.value import dataclass
from ..model.vm import parse_config
from ..probe import probe

MOST_PAPERS = 400

NODE = "host"
"""A node nobody named."""
_PCI = "/sys/bus/pci/devices"
_GROUPS = "/sys/kernel/iommu_groups"
_UNSAID = NoAnswer(False, "what was pasted does not show it")
_ABSENT = NoAnswer(True, "not there")

_LOGS = frozenset({Kind.KERNEL_LOG, Kind.JOURNAL})
_LISTINGS = frozenset({Kind.LSPCI, Kind.IOMMU_LISTING, Kind.PROSE, *_LOGS})
_VMID = re.compile(r"(?<![0-9])([1-9][0-9]{2,8})[^/]*$")
_COMMAND_LINE = re.compile(r"Command line: (.+)$|^((?:BOOT_IMAGE=|initrd=\\).*\broot=.+)$", re.M)
_RELEASE = re.compile(r"Linux version (\d\S+)")
_UNAME = re.compile(r"^(?:Linux \S+ )?(\d\.\d{1,2}\.\d{1,3}-\d+(?:-\w+)*-pve)\b|running kernel: (\S+?)\)", re.M)
_PACKAGE = re.compile(
    r"^(?P<name>pve-manager|qemu-server|pve-qemu-kvm|proxmox-ve|proxmox-kernel-\S+|pve-kernel-\S+|zfsutils-linux)"
    r"[:/ ]\s*(?P<version>\d[\w.+~-]*)", re.M,
)  # fmt: skip
_FREE = re.compile(
    r"^\s+total\s+used\s+free\s+shared\s+buff/cache\s+available\s*\n"
    r"Mem:\s+(?P<total>\d[\d.,]*[KMGT]?i?)(?:\s+\S+){4}\s+(?P<available>\d[\d.,]*[KMGT]?i?)\s*$", re.M,
)  # fmt: skip
"""Source: free(1), procps-ng."""
_ESP = re.compile(r"^(\S+) is configured with: .*$", re.M)
_BOOTED = re.compile(r"System currently booted with (uefi|legacy bios)")
_ATTRIBUTE = re.compile(
    r"/proc/(meminfo|cpuinfo|sys/kernel/osrelease)"
    r"|/sys/bus/pci/devices/[0-9a-f:.]{12,16}/(reset_method|d3cold_allowed|power_state|numa_node|driver_override)"
)
"""Files without a kind of their own that count when a paste names them."""
_NAMES_GROUPS = re.compile(r"iommu group|DMAR: IOMMU enabled")
_WHOLE_BOOT = ("Run /init as init", "Freeing unused kernel image")


def understood(
    materials: Iterable[Material],
    symptom: str = "",
    *,
    facts: Facts | None = None,
    vmid: int | None = None,
    doubts: Sequence[str] = (),
    also: Sequence[Observation] = (),
    live: Sequence[Material] = (),
) -> Diagnosis:
    """`diagnose`, with what the materials say about the machine as further evidence. `live`: what the host itself says;
    what its machine is, `facts` know."""
    everything = chain(materials, (replace(one, live=True) for one in live))
    return diagnose(
        everything, symptom, facts=facts, vmid=vmid, doubts=doubts, also=also, pasted=facts_of
    )  # fmt: skip


def tree_in(path: str) -> str:
    """The root of the machine's tree that a folder is, or holds as `fsroot`; empty when there is none."""
    for root in (path, os.path.join(path, "fsroot")):
        if any(
            os.path.isdir(os.path.join(root, mark)) for mark in ("sys/bus/pci/devices", "etc/pve", "proc/sys/kernel")
        ):
            return root
    return ""


def files_beside(path: str) -> list[str]:
    """Plain files that lie in a folder beside a tree."""
    return sorted(entry.path for entry in os.scandir(path) if entry.is_file(follow_symlinks=False))


# -- the tree ----------------------------------------------------------------------------------


@dataclass(frozen=True, slots=True)
class Rebuilt:
    """A machine that answers from papers. `origins`: the material that each path of it was made from."""

    host: Replay
    origins: Mapping[str, Paper] = field(default_factory=dict)
    devices: Mapping[Address, Listed] = field(default_factory=dict)


def facts_of(papers: Sequence[Paper]) -> tuple[Facts | None, Mapping[str, Paper]]:
    """What papers say about the machine, and where each path comes from; None when they say nothing."""
    built = rebuilt(papers)
    if not built.origins:
        return None, {}
    facts = probe(built.host, inventory=True)
    devices = tuple(_shown(device, built.devices.get(device.address)) for device in facts.devices)
    return replace(facts, devices=devices), built.origins


def _shown(device: Device, one: Listed | None) -> Device:
    """What a listing says in words, for which sysfs has no text: the name, and the capabilities."""
    if one is None:
        return device
    return replace(
        device, name=one.device.name or device.name, capabilities=device.capabilities or one.device.capabilities
    )  # fmt: skip


def rebuilt(everything: Sequence[Paper]) -> Rebuilt:
    """A host that answers from these papers and knows nothing else."""
    papers = everything[:MOST_PAPERS]
    tree = _Tree()
    devices = _listed(papers, tree)
    for one in devices.values():
        _device(tree, one, devices)
    _iommu(tree, papers, devices)
    _files(tree, papers)
    _guests(tree, papers)
    _machine(tree, papers)
    return Rebuilt(Replay(tree.answers(), "pasted"), tree.origins, devices)


def _listed(papers: Sequence[Paper], tree: _Tree) -> dict[Address, Listed]:
    """Every function; what a later listing adds is joined, what it says otherwise is left out."""
    found: dict[Address, Listed] = {}
    for paper in papers:
        for one in listed(paper.text) if paper.kind in _LISTINGS else ():
            address = one.device.address
            tree.origins.setdefault(f"{_PCI}/{address}", paper)
            found[address] = _joined(found[address], one) if address in found else one
    return found


def _joined(first: Listed, other: Listed) -> Listed:
    """What either listing shows; the first counts where both speak."""
    had, new = first.device, other.device
    parts = {
        name: getattr(new, name)
        for name in ("vendor", "product", "class_code", "revision", "subsystem_vendor", "subsystem_product", "driver",
                     "iommu_group", "capabilities", "boot_vga")
        if getattr(had, name) is None and getattr(new, name) is not None
    }  # fmt: skip
    return replace(
        first, device=replace(had, name=had.name or new.name, bridge=had.bridge or new.bridge, **parts),
        secondary=other.secondary if first.secondary is None else first.secondary,
    )  # fmt: skip


def _iommu(tree: _Tree, papers: Sequence[Paper], devices: Mapping[Address, Listed]) -> None:
    """On where there are groups; off where a kernel's whole boot speaks of none (since 5.3 it names each function)."""
    if any(one.device.iommu_group is not None for one in devices.values()):
        amd = any(one.device.vendor == 0x1022 for one in devices.values())
        tree.directory("/sys/class/iommu", ("ivhd0" if amd else "dmar0",))
        return
    for paper in papers:
        if paper.kind in _LOGS and _whole_boot(paper.text) and not _NAMES_GROUPS.search(paper.text):
            tree.directory("/sys/class/iommu", ())
            tree.origins["/sys/class/iommu"] = paper


def _whole_boot(log: str) -> bool:
    """From the kernel's first line past the time when it finds its functions."""
    ended = any(word in log for word in _WHOLE_BOOT)
    return ended and "] type " in log and _RELEASE.search(log) is not None


def _files(tree: _Tree, papers: Sequence[Paper]) -> None:
    for paper in papers:
        if paper.path == "proxmox-boot-tool status" or _BOOTED.search(paper.text):
            _boot_tool(tree, paper)
        elif path := _path(paper):
            path = tree.free(path) if path.endswith("/pasted.conf") else path
            tree.file(path, paper.text if paper.text.endswith("\n") else f"{paper.text}\n", paper)
        if re.search(r"vendor[_-]reset", paper.text):
            tree.origins.setdefault("vendor_reset", paper)
        if paper.kind in (*_LOGS, Kind.PROSE, Kind.CMDLINE) and (match := _COMMAND_LINE.search(paper.text)):
            tree.file("/proc/cmdline", (match[1] or match[2]).strip() + "\n", paper)
    running = tree.text("/proc/cmdline")
    if running and not tree.text("/etc/kernel/proxmox-boot-uuids"):
        _loader_by_arguments(tree, running)


def _loader_by_arguments(tree: _Tree, running: str) -> None:
    """systemd-boot hands over initrd=\\EFI\\proxmox\\…, GRUB BOOT_IMAGE=. Source: proxmox-boot-tool, zz-proxmox-boot
    (entries `linux /EFI/proxmox/…`, `initrd /EFI/proxmox/…`); GRUB, loader/i386/linux.c."""
    if re.search(r"initrd=\\EFI\\proxmox\\", running):
        tree.file("/etc/kernel/proxmox-boot-uuids", "0000-0000\n")
        tree.directory("/sys/firmware", ("efi",))
        tree.run(("proxmox-boot-tool", "status"), "0000-0000 is configured with: uefi (versions: unknown)\n")
    elif "BOOT_IMAGE=" in running:
        tree.absent("/etc/kernel/proxmox-boot-uuids")
        tree.directory("/boot/grub", ("grub.cfg",))


def _boot_tool(tree: _Tree, paper: Paper) -> None:
    """`proxmox-boot-tool status`: the ESPs that it keeps, and how the machine was started."""
    uuids = [match[1] for match in _ESP.finditer(paper.text)]
    if uuids:
        tree.file("/etc/kernel/proxmox-boot-uuids", "\n".join(uuids) + "\n", paper)
        tree.run(("proxmox-boot-tool", "status"), paper.text)
    elif "/etc/kernel/proxmox-boot-uuids does not exist" in paper.text:
        tree.absent("/etc/kernel/proxmox-boot-uuids")
        tree.directory("/boot/grub", ("grub.cfg",))
    if booted := _BOOTED.search(paper.text):
        tree.directory("/sys/firmware", ("acpi", *(("efi",) if booted[1] == "uefi" else ())))


def _path(paper: Paper) -> str:
    """Where the file lay on the machine; empty when it is none that a probe reads."""
    if paper.kind is Kind.PROSE:
        return paper.path if _ATTRIBUTE.fullmatch(paper.path) else ""
    plain = paper.path or paper.name.replace("__", "/").removesuffix(".txt")
    base = re.sub(r"[^\w.-]", "_", plain.rpartition("/")[2])
    if paper.kind is Kind.GRUB:
        return f"/etc/default/grub.d/{base}" if "grub.d" in plain else "/etc/default/grub"
    if paper.kind is Kind.MODPROBE:
        return f"/etc/modprobe.d/{base if base.endswith('.conf') else 'pasted.conf'}"
    if paper.kind is Kind.MODULES:
        return "/etc/modules"
    if paper.kind is Kind.MAPPING:
        return f"/etc/pve/mapping/{'usb' if 'usb' in base else 'pci'}.cfg"
    if paper.kind is Kind.CMDLINE and re.search(r"etc/kernel|kernel[_.-]cmdline", plain):
        return "/etc/kernel/cmdline"
    if paper.kind is Kind.CMDLINE and "root=" in paper.text:
        return "/proc/cmdline"
    return ""


def _guests(tree: _Tree, papers: Sequence[Paper]) -> None:
    """Guests and mappings, on the node that the mappings name."""
    guests = [paper for paper in papers if paper.kind is Kind.GUEST_CONFIG and parse_config(paper.text)[0]]
    if not guests:
        told = ((paper, as_config(paper.text)) for paper in papers if paper.kind is Kind.PROSE)
        guests = [replace(paper, text=config) for paper, config in told if config][:1]
    mappings = "\n".join(paper.text for paper in papers if paper.kind is Kind.MAPPING)
    if mappings[:1] in (" ", "\t"):  # its name stands above the part that is the mapping
        wanted = next((match[1] for paper in guests if (match := re.search(r"mapping=([\w-]+)", paper.text))), "pasted")
        mappings = f"{wanted}\n{mappings}"
        tree.file("/etc/pve/mapping/pci.cfg", f"{mappings}\n", next(p for p in papers if p.kind is Kind.MAPPING))
    named = re.search(r"\bnode=([A-Za-z0-9][\w.-]{0,60})", mappings)
    node = named[1] if named else NODE
    home = f"/etc/pve/nodes/{node}/qemu-server"
    taken: set[int] = set()
    for paper in guests:
        match = _VMID.search(paper.path or paper.name)
        vmid = int(match[1]) if match and int(match[1]) not in taken else max(taken | {99}) + 1
        taken.add(vmid)
        tree.file(f"{home}/{vmid}.conf", paper.text, paper)
    if taken or mappings:
        tree.directory(home, ())
        tree.link("/etc/pve/local", f"nodes/{node}")
        tree.file("/etc/hostname", f"{node}\n")


def _machine(tree: _Tree, papers: Sequence[Paper]) -> None:
    """Versions, firmware and processor."""
    packages: dict[str, str] = {}
    for paper in papers:
        for match in _PACKAGE.finditer(paper.text):
            packages.setdefault(match["name"], match["version"])
        release = _RELEASE.search(paper.text) if paper.kind in _LOGS else None
        release = release or _UNAME.search(paper.text)
        if release and not tree.text("/proc/sys/kernel/osrelease"):
            tree.file("/proc/sys/kernel/osrelease", f"{release[1] or release[2]}\n", paper)
        if paper.kind in _LOGS:
            _firmware(tree, paper)
        if (table := _FREE.search(paper.text)) and not tree.text("/proc/meminfo"):
            tree.file("/proc/meminfo", _meminfo(table), paper)
    if "pve-manager" in packages:
        stanzas = (f"Package: {name}\nStatus: install ok installed\nVersion: {packages[name]}\n" for name in packages)
        tree.file("/var/lib/dpkg/status", "\n".join(stanzas))


def _meminfo(table: re.Match[str]) -> str:
    """What `free` prints: KiB without a unit, MiB where the numbers are too small for that (`free -m`), or with one."""
    small = table["total"].isdecimal() and int(table["total"]) < 1 << 20
    total, free = (_kib(table[name], "M" if small else "K") for name in ("total", "available"))
    return f"MemTotal: {total} kB\nMemAvailable: {free} kB\n"


def _kib(text: str, plain: str) -> int:
    number = text.replace(",", ".").rstrip("KMGTi")
    unit = next((letter for letter in "KMGT" if letter in text), plain)
    return int((float(number) if number.count(".") < 2 else 0.0) * 1024 ** "KMGT".index(unit))


def _firmware(tree: _Tree, paper: Paper) -> None:
    tables = [name for name in ("DMAR", "IVRS") if f"ACPI: {name}" in paper.text]
    if tables:
        tree.directory("/sys/firmware/acpi/tables", ("FACP", *tables))
    if "efi: EFI v" in paper.text:
        tree.directory("/sys/firmware", ("acpi", "efi"))
    match = re.search(r"smpboot: CPU0: (.+?) \(family", paper.text)
    if match and (maker := maker_of(match[1])) and not tree.text("/proc/cpuinfo"):
        tree.file("/proc/cpuinfo", f"vendor_id\t: {maker}\nmodel name\t: {match[1]}\n", paper)


def _device(tree: _Tree, one: Listed, devices: Mapping[Address, Listed]) -> None:
    """A function's attributes; what the listing leaves out cannot be read."""
    device = one.device
    home = f"/sys/devices/pci{device.address.domain:04x}:00{_above(one, devices)}/{device.address}"
    tree.link(f"{_PCI}/{device.address}", f"../../..{home.removeprefix('/sys')}")
    numbers: tuple[tuple[str, int | None, int], ...] = (
        ("vendor", device.vendor, 4),
        ("device", device.product, 4),
        ("class", device.class_code, 6),
        ("revision", device.revision, 2),
        ("subsystem_vendor", device.subsystem_vendor, 4),
        ("subsystem_device", device.subsystem_product, 4),
    )
    for name, number, width in numbers:
        if number is None:
            tree.unsaid(f"{home}/{name}")
        else:
            tree.file(f"{home}/{name}", f"0x{number:0{width}x}\n")
    _linked(tree, f"{home}/driver", device.driver, "../../bus/pci/drivers")
    group = None if device.iommu_group is None else str(device.iommu_group)
    _linked(tree, f"{home}/iommu_group", group, "../../kernel/iommu_groups")
    if device.bridge:
        tree.directory(f"{home}/pci_bus", ())
    if device.boot_vga is not None:
        tree.file(f"{home}/boot_vga", f"{int(device.boot_vga)}\n")


def _linked(tree: _Tree, path: str, name: str | None, where: str) -> None:
    if name is None:
        tree.unsaid(path)
    elif name:
        tree.link(path, f"{where}/{name}")


def _above(one: Listed, devices: Mapping[Address, Listed]) -> str:
    """The bridges above a function, as a part of its path, as far as listings show their secondary buses."""
    below = {(address.domain, port.secondary): address for address, port in devices.items() if port.secondary}
    chain: list[Address] = []
    at = one.device.address
    while (port := below.get((at.domain, at.bus))) is not None and port not in chain and len(chain) < 32:
        chain.append(port)
        at = port
    return "".join(f"/{address}" for address in reversed(chain))


class _Tree:
    """Files and links by path; directories follow from them."""

    def __init__(self) -> None:
        self._answers = Answers()
        self._children: defaultdict[str, set[str]] = defaultdict(set)
        self.origins: dict[str, Paper] = {}

    def file(self, path: str, text: str, origin: Paper | None = None) -> None:
        if not path.startswith("/") or "\0" in path or "/../" in path:
            return
        match = re.match(rf"{_PCI}/[^/]+", path)
        if match and isinstance(target := self._answers.links.get(match[0]), str):
            path = f"/sys/{target.lstrip('./')}{path[match.end() :]}"
        self._answers.reads[path] = text.encode("utf-8", "surrogateescape")
        self._listed(path)
        if origin is not None:
            self.origins[path] = origin

    def free(self, path: str) -> str:
        """The same path, numbered when it is taken."""
        number = 2
        while path in self._answers.reads:
            path = re.sub(r"(-\d+)?\.conf$", f"-{number}.conf", path)
            number += 1
        return path

    def text(self, path: str) -> str:
        held = self._answers.reads.get(path)
        return held.decode("utf-8", "surrogateescape") if isinstance(held, bytes) else ""

    def link(self, path: str, target: str) -> None:
        self._answers.links[path] = target
        self._listed(path)

    def run(self, argv: tuple[str, ...], said: str) -> None:
        self._answers.runs[argv] = Ran(0, said)

    def absent(self, path: str) -> None:
        self._answers.reads[path] = _ABSENT

    def unsaid(self, path: str) -> None:
        """It may be there; what was pasted does not tell."""
        self._answers.reads[path] = _UNSAID
        self._answers.links[path] = _UNSAID
        self._listed(path)

    def directory(self, path: str, names: Iterable[str]) -> None:
        self._children[path].update(names)
        self._listed(path)

    def answers(self) -> Answers:
        for path, names in self._children.items():
            self._answers.names[path] = tuple(sorted(names))
        return self._answers

    def _listed(self, path: str) -> None:
        parent, _, name = path.rpartition("/")
        while name:
            self._children[parent or "/"].add(name)
            parent, _, name = parent.rpartition("/")
