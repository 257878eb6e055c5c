"""How large the window for 64-bit BARs is that a guest's firmware opens, and how much of it devices need.

1. Formulas and rows, each with its source; nothing is read here. What nobody could say is None, never a guess.
2. OVMF asks the processor that the guest sees, so the answer follows from the guest's `cpu` line, the host's processor
   and the guest's memory. Source: edk2, OvmfPkg/Library/PlatformInitLib/MemDetect.c (edk2-stable202505, as Proxmox VE
   ships it): PlatformAddressWidthFromCpuid, PlatformDynamicMmioWindow, PlatformGetFirstNonAddress.
3. What QEMU tells the guest: 40 bits for a model, the host's own with host-phys-bits, which `host` and `max` have, or
   the number that was asked for. Source: QEMU, target/i386/cpu.c and host-cpu.c; qemu-server, CPUConfig.pm.
4. Five-level paging in OVMF (more than 46 bits, only for guests that need more than 1 TiB of addresses) is left out:
   the window said here is never larger than the one that is opened.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..model.facts import Cpu, Iommu
from ..model.pci import Bar, Device
from ..model.value import dataclass
from ..model.vm import Vm, parse_options

GIB = 1 << 30

CLASSIC = 32 * GIB
"""The window when the processor's address bits are not believed (PcdPciMmio64Size of OvmfPkgX64.dsc, 0x800000000)."""

MODEL_BITS = 40
"""What QEMU says for every processor model that is not told otherwise (target/i386/cpu.c, TCG_PHYS_ADDR_BITS)."""

FOUR_LEVELS = 46
SMALL_PAGES = 40
"""Most bits that OVMF uses with four-level paging, and without pages of 1 GiB (pdpe1gb)."""

GUEST_PHYS_BITS = (9, 0, 18)
"""qemu-server knows `guest-phys-bits` from here on (its changelog)."""

HUGE_PAGES = (
    "EPYC", "Opteron_G4", "Opteron_G5", "phenom", "Skylake-Server", "Cascadelake-Server", "Cooperlake",
    "Icelake-Server", "Icelake-Client", "KnightsMill", "SapphireRapids", "GraniteRapids", "SierraForest",
    "ClearwaterForest",
)  # fmt: skip
"""Beginnings of the models that have pages of 1 GiB. Asked of QEMU 7.2 (query-cpu-model-expansion); the last four are
newer and taken to be like their forerunners. Icelake-Client is started as Icelake-Server (qemu-server, CPUConfig.pm).
Proxmox' own x86-64-v2 to v4 are qemu64 with flags, and qemu64 and kvm64 have no such pages."""

_AMD_MODELS = ("EPYC", "Opteron", "phenom", "athlon")
_NO_MAKER = ("host", "max", "kvm64", "kvm32", "qemu64", "qemu32")
"""Models that show the host's own maker (qemu-server, CPUConfig.pm: `default`; x86-64-v… are made of qemu64)."""

_OVERRIDE = re.compile(r"opt/ovmf/X-PciMmio64Mb,string=(\d{1,8})(?![\d])")
_MOST_OVERRIDE = 0x1000000
"""OVMF ignores more MiB than that, 16 TiB."""


@dataclass(frozen=True, slots=True)
class Window:
    """What the guest's firmware opens for 64-bit BARs.

    size  bytes; None when nobody could say
    bits  address bits that the firmware goes by; None: it does not believe the processor, or nobody could say
    why   one line that explains it, for people
    """

    size: int | None
    bits: int | None
    why: str


@dataclass(frozen=True, slots=True)
class GuestCpu:
    """The part of a guest's processor that decides. `told`: somebody gave guest-phys-bits, which is always believed."""

    bits: int | None
    maker: str | None
    huge_pages: bool | None
    told: bool
    why: str


def window_of(vm: Vm, cpu: Cpu) -> Window:
    """The window that OVMF opens for this guest on this host."""
    if vm.value("bios") != "ovmf":
        return Window(None, None, "the guest starts with SeaBIOS, whose window is not known")
    if vm.value("arch") not in (None, "x86_64") or not vm.flag("kvm", True):
        return Window(None, None, "the guest does not run on this host's processor")
    args = vm.value("args") or ""
    if re.search(r"(?:^|\s)-cpu\b", args):
        return Window(None, None, "`args` replaces the processor that Proxmox VE would give")
    seen = guest_cpu(vm.value("cpu") or "", cpu)
    if seen.bits is None:
        return Window(None, None, seen.why)
    return ovmf_window(seen, _memory(vm), _override(args))


def guest_cpu(line: str, cpu: Cpu) -> GuestCpu:
    """What a guest with this `cpu` line on this host sees of its processor."""
    options = parse_options(line, "cputype")
    kind = options.get("cputype", "kvm64")
    if kind.startswith("custom-"):
        return GuestCpu(None, None, None, False, f"{kind} is a model of this cluster's own")
    own = kind in ("host", "max")
    told = options.get("phys-bits", "host" if own else str(MODEL_BITS))
    bits = cpu.physical_bits if told == "host" else _number(told)
    why = f"CPU type {kind}, {bits} address bits"
    if bits is None:
        why = "the host's number of address bits is not known" if told == "host" else f"phys-bits={told} is no number"
    limit = _number(options.get("guest-phys-bits", ""))
    if limit is not None and bits is not None and limit < bits:
        bits, why = limit, f"CPU type {kind}, guest-phys-bits={limit}"
    return GuestCpu(bits, _maker(kind, cpu), _huge_pages(kind, options, cpu), limit is not None, why)


def ovmf_window(seen: GuestCpu, memory: int | None, override: int | None = None) -> Window:
    """The window by OVMF's rules, for a processor with known bits. `override`: bytes from X-PciMmio64Mb."""
    least = CLASSIC if override is None else override
    classic = Window(least, None, f"{seen.why}, which OVMF does not believe: its classic window")
    if override is not None:
        classic = Window(least, None, f"X-PciMmio64Mb={override >> 20}")
    if seen.bits is None:
        return Window(None, None, seen.why)
    if not seen.told and seen.bits <= 40 and seen.maker is None:
        return Window(None, None, f"{seen.why}, and the processor's maker is not known")
    if not believed(seen):
        return classic
    bits, why = min(seen.bits, FOUR_LEVELS), seen.why
    if bits > SMALL_PAGES and seen.huge_pages is not True:
        if seen.huge_pages is None:
            return Window(None, None, f"{why}, and whether it has pages of 1 GiB is not known")
        bits, why = SMALL_PAGES, f"{why}, limited to {SMALL_PAGES} without pages of 1 GiB (pdpe1gb)"
    size = 1 << bits - 3
    if size <= least:
        return Window(least, bits, why) if override is None else classic
    if memory is not None and _above(memory, least) + size >= 1 << bits:
        return Window(least, bits, f"{why}, of which the guest's memory leaves no eighth: the classic window")
    return Window(size, bits, f"{why}: an eighth of the addresses")


def believed(seen: GuestCpu) -> bool:
    """Whether OVMF believes the number: QEMU's old default of 40 says nothing about an Intel host."""
    if seen.bits is None:
        return False
    if seen.told or seen.bits >= 41:
        return True
    return seen.bits in {"GenuineIntel": (36, 39), "AuthenticAMD": (40,)}.get(seen.maker or "", ())


def _above(memory: int, least: int) -> int:
    """First address past the guest's memory, where the classic window would begin: 2 GiB of it lie below 4 GiB on
    q35 (QEMU, hw/i386/pc_q35.c), and the window is aligned to its own size."""
    end = max(memory + 2 * GIB, 4 * GIB)
    unit = 1 << max(least, GIB).bit_length() - 1
    return -(-end // unit) * unit


def _memory(vm: Vm) -> int | None:
    mebibytes = _number(parse_options(vm.value("memory") or "512", "current").get("current", ""))
    return None if mebibytes is None else mebibytes << 20


def _override(args: str) -> int | None:
    found = _OVERRIDE.search(args)
    if found is None or not 0 < int(found.group(1)) <= _MOST_OVERRIDE:
        return None
    return -(-int(found.group(1)) // 1024) * GIB


def _maker(kind: str, cpu: Cpu) -> str | None:
    if kind in _NO_MAKER or kind.startswith("x86-64-v"):
        return cpu.vendor
    return "AuthenticAMD" if kind.startswith(_AMD_MODELS) else "GenuineIntel"


def _huge_pages(kind: str, options: Mapping[str, str], cpu: Cpu) -> bool | None:
    flags = options.get("flags", "").split(";")
    if "+pdpe1gb" in flags or "-pdpe1gb" in flags:
        return "+pdpe1gb" in flags
    if kind in ("host", "max"):
        return None if cpu.flags is None else "pdpe1gb" in cpu.flags
    return kind.startswith(HUGE_PAGES)


def _number(text: str) -> int | None:
    return int(text) if text.isascii() and text.isdecimal() and len(text) < 10 else None


# -- what devices need ---------------------------------------------------------------------------


RESERVE = 256 << 20
"""What the guest's own emulated devices may take of the window beside the cards: each virtio function has 16 KiB, each
root port a window of at least 1 MiB."""


def high_bars(device: Device) -> tuple[Bar, ...]:
    """The BARs that go into the 64-bit window."""
    return tuple(bar for bar in device.bars or () if bar.wide and not bar.io and bar.index < 6)


def demand(cards: Iterable[Sequence[Device]]) -> int:
    """Bytes that all these cards take, each behind a root port of its own, largest alignment first: a BAR lies at a
    multiple of its size, and a port's window at a multiple of its largest BAR (edk2, PciBusDxe,
    PciResourceSupport.c, CalculateResourceAperture; the space between is lost)."""
    ports = []
    for card in cards:
        sizes = sorted((bar.size for device in card for bar in high_bars(device) if bar.size), reverse=True)
        if sizes:
            ports.append((sizes[0], sum(sizes)))
    end = 0
    for unit, size in sorted(ports, reverse=True):
        end = -(-end // unit) * unit + size
    return end


def fits(need: int, window: Window) -> bool | None:
    """Whether cards that take `need` bytes get them all; None when nobody could say. Little fits everywhere."""
    if need + RESERVE <= CLASSIC // 2:
        return True
    return None if window.size is None else need + RESERVE <= window.size


def beyond_iommu(bits: int | None, iommu: Iommu) -> bool:
    """Whether the firmware may place BARs where the host's IOMMU cannot map them: QEMU then reports
    `VFIO_MAP_DMA failed: Invalid argument` (QEMU, docs/igd-assign.txt, known issues)."""
    return bits is not None and iommu.address_width is not None and iommu.address_width < bits


# -- words ---------------------------------------------------------------------------------------


def shown(size: int) -> str:
    """`32 GiB`, `256 MiB`, `16 KiB`, `32.03 GiB`."""
    for unit, name in ((1 << 40, "TiB"), (GIB, "GiB"), (1 << 20, "MiB"), (1 << 10, "KiB")):
        if size >= unit:
            return f"{size / unit:.2f}".rstrip("0").rstrip(".") + f" {name}"
    return f"{size} bytes"


def short(size: int) -> str:
    """`16G`, `256M`: as people write it, see `parse_size`."""
    return f"{size >> 30}G" if size and size % GIB == 0 else f"{size >> 20}M"


def parse_size(text: str) -> int | None:
    """Bytes of `8G`, `256M`, `8GiB`, `8192` (a plain number is MiB); None when it is no such thing."""
    found = re.fullmatch(r"(\d{1,9})\s*(?:([KMGT])(?:i?B)?)?", text.strip(), re.IGNORECASE | re.ASCII)
    if found is None:
        return None
    shift = {"K": 10, "M": 20, "G": 30, "T": 40}[(found.group(2) or "M").upper()]
    return int(found.group(1)) << shift
