"""Rules about memory windows: BARs on the host, and the addresses that a guest has for them.

1. How large a window is and what fits is computed in `knowledge.windows`; here it is only judged.
2. A remedy is offered when the same computation says that it is one, never by habit.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import replace

from ..knowledge import windows
from ..knowledge.windows import Window, short, shown
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level
from ..model.pci import Bar, Device
from ..model.vm import Vm, parse_options
from .subject import Request, ask, cards, chosen, claimed, guests, names, show, unknown, up

FOUR_GIB = 4 << 30


def _line(guest: Vm, key: str) -> str:
    node = guest.node or "NODE"
    return f"/etc/pve/nodes/{node}/qemu-server/{guest.vmid}.conf: {key}: {guest.value(key) or '(not set)'}"


def _cards(facts: Facts, request: Request, guest: Vm) -> tuple[tuple[Device, ...], ...]:
    """What the guest has or shall have, card by card."""
    wanted = claimed(facts, guest.vmid) | set(request.addresses)
    return cards([device for device in facts.devices if device.address in wanted])


# -- the guest's window --------------------------------------------------------------------------


def window(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the guest's window for memory BARs large enough?

    Why: OVMF makes its 64-bit window from the address bits that the guest's CPU shows: an eighth of the address space
        when it believes them, else the classic 32 GiB, which is what every model CPU gives on an Intel host. A card
        whose BARs do not fit gets none: "BAR 1 is 0M", Code 12.
    Look at: `pve-passthrough bars DEVICE --vm ID`; `lspci -vv -s ADDRESS`, Region lines; the lines `cpu:` and `bios:`.
    Fix: What the finding says, which has been computed: `cpu: host`; or phys-bits=host,flags=+pdpe1gb with a model; or
        a smaller BAR (`pve-passthrough bars`); as the last resort the firmware's own switch X-PciMmio64Mb.
    Source: edk2 OvmfPkg/Library/PlatformInitLib/MemDetect.c; qemu-server changelog 9.1.7.
    """
    for guest in guests(facts, request):
        held = _cards(facts, request, guest)
        need = windows.demand(held)
        opened = windows.window_of(guest, facts.cpu)
        fit = windows.fits(need, opened)
        if fit:
            continue
        large = names(device for card in held for device in card if _large(device))
        if guest.value("bios") != "ovmf":
            yield Finding(
                "guests.window",
                Level.NOTE,
                f"vm:{guest.vmid}",
                f"{large} takes {shown(need)} of 64-bit addresses; whether SeaBIOS opens that much is not verified.",
                (_line(guest, "bios"), *_bar_lines(held)),
                Actor.NOBODY,
                show("OVMF opens a window that is known; only for a guest without an installed system."),
            )
        elif fit is None:
            yield unknown(
                "guests.window",
                f"vm:{guest.vmid}",
                f"Whether guest {guest.vmid} ({guest.name}) has the {shown(need)} of addresses for {large}, "
                "nobody could say.",
                opened.why,
            )
        else:
            yield _too_small(facts, request, guest, held, need, opened, large)


def unfit(facts: Facts, request: Request, guest: Vm) -> bool:
    """Whether the rule about the window speaks of this guest, its processor included."""
    need = windows.demand(_cards(facts, request, guest))
    return windows.fits(need, windows.window_of(guest, facts.cpu)) is False


def _large(device: Device) -> bool:
    return any(bar.size >= 1 << 30 for bar in windows.high_bars(device))


def _bar_lines(held: Sequence[Sequence[Device]]) -> list[str]:
    devices = [device for card in held for device in card]
    return [
        f"{device.address}: BAR {bar.index} is {shown(bar.size)}"
        for device in devices
        for bar in windows.high_bars(device)
        if bar.size >= 1 << 28
    ]


def _too_small(
    facts: Facts,
    request: Request,
    guest: Vm,
    held: Sequence[Sequence[Device]],
    need: int,
    opened: Window,
    large: str,
) -> Finding:
    kind = parse_options(guest.value("cpu") or "", "cputype").get("cputype", "kvm64")
    return Finding(
        "guests.window",
        Level.HARMS,
        f"vm:{guest.vmid}",
        f"{large} needs {shown(need)} of 64-bit addresses, "
        f"and the firmware of guest {guest.vmid} ({guest.name}) opens {shown(opened.size or 0)} with CPU type {kind}.",
        (_line(guest, "cpu"), f"{opened.why} = {shown(opened.size or 0)}", *_bar_lines(held)),
        Actor.US,
        _remedy(facts, request, guest, held, need),
    )


def _remedy(facts: Facts, request: Request, guest: Vm, held: Sequence[Sequence[Device]], need: int) -> Fix:
    """The first way that the same computation calls large enough, and that the IOMMU can follow."""
    options = parse_options(guest.value("cpu") or "", "cputype")
    kind = options.get("cputype", "kvm64")
    rest = {key: text for key, text in options.items() if key in ("hidden", "hv-vendor-id", "flags", "level")}
    devices = [device for card in held for device in card]
    if kind not in ("host", "max") and _enough(facts, guest, need, _cpu_line("host", rest)):
        return ask("Give it the host's CPU.", up(facts, replace(request, vmid=guest.vmid), *devices))
    believed = {key: text for key, text in rest.items() if key != "flags"} | {
        "phys-bits": "host",
        "flags": _with_pages(options.get("flags", "")),
    }
    if _enough(facts, guest, need, _cpu_line(kind, believed)):
        return ask(
            "Let it show the host's address bits.", f"qm set {guest.vmid} --cpu {_quoted(_cpu_line(kind, believed))}"
        )
    if smaller := _shrunk(facts, guest, held):
        device, bar, size = smaller
        return ask(
            f"Make BAR {bar.index} of {device} smaller; the guest sees the size that it has on the host.",
            f"pve-passthrough bars {device.address} --set {bar.index}={short(size)}",
        )
    mebibytes = (1 << (need + windows.RESERVE - 1).bit_length()) >> 20
    return show(
        "No CPU option opens enough. The firmware's own switch is experimental, and takes the last word of `args`:",
        f"qm set {guest.vmid} --args '-fw_cfg name=opt/ovmf/X-PciMmio64Mb,string={mebibytes}'",
    )


def _enough(facts: Facts, guest: Vm, need: int, line: str) -> bool:
    changed = replace(guest, config={**guest.config, "cpu": line}, pending={}, deleting=())
    return windows.fits(need, windows.window_of(changed, facts.cpu)) is True


def _cpu_line(kind: str, options: dict[str, str]) -> str:
    return ",".join((kind, *(f"{key}={text}" for key, text in options.items())))


def _quoted(value: str) -> str:
    """For a shell, where a semicolon ends the command."""
    return f"'{value}'" if ";" in value else value


def _with_pages(flags: str) -> str:
    kept = [flag for flag in flags.split(";") if flag and flag[1:] != "pdpe1gb"]
    return ";".join([*kept, "+pdpe1gb"])


def _shrunk(facts: Facts, guest: Vm, held: Sequence[Sequence[Device]]) -> tuple[Device, Bar, int] | None:
    """The resizable BAR, and its largest offered size with which all fits into the window of now."""
    opened = windows.window_of(guest, facts.cpu)
    candidates = [(bar.size, device, bar) for card in held for device in card for bar in windows.high_bars(device)]
    for _, device, bar in sorted(candidates, key=lambda one: (-one[0], one[1].address)):
        for size in sorted((size for size in bar.sizes if size < bar.size), reverse=True):
            if windows.fits(windows.demand(_with_size(held, device, bar, size)), opened):
                return device, bar, size
    return None


def _with_size(held: Sequence[Sequence[Device]], device: Device, bar: Bar, size: int) -> tuple[tuple[Device, ...], ...]:
    """The cards as they would be with this BAR at this size."""
    bars = tuple(replace(one, size=size) if one.index == bar.index else one for one in device.bars or ())
    return tuple(
        tuple(replace(one, bars=bars) if one.address == device.address else one for one in card) for card in held
    )


# -- the host's IOMMU ----------------------------------------------------------------------------


def address_width(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can the IOMMU reach as far as the CPU?

    Why: With CPU type host the guest's firmware places large BARs at the top of the CPU's address space. If the IOMMU
        has fewer address bits, mapping them fails: "VFIO_MAP_DMA failed: Invalid argument" (-22).
    Look at: bits 16 to 21 of /sys/class/iommu/dmar0/intel-iommu/cap plus one; "address sizes" in /proc/cpuinfo.
    Fix: Limit the guest: guest-phys-bits=N from qemu-server 9.0.18 on, phys-bits=N before, with N from the finding.
    Source: QEMU documentation, igd-assign.txt, known issues; edk2 OvmfPkg, MemDetect.c; qemu-server changelog 9.0.18.
    """
    width, bits = facts.iommu.address_width, facts.cpu.physical_bits
    if facts.iommu.on is False or width is None or bits is None or width >= bits:
        return
    guest = None if request.vmid is None else facts.guest(request.vmid)
    opened = Window(None, None, "") if guest is None else windows.window_of(guest, facts.cpu)
    own = guest is None or windows.guest_cpu(guest.value("cpu") or "", facts.cpu).bits in (None, bits)
    if not (windows.beyond_iommu(opened.bits, facts.iommu) or (opened.size is None and own)):
        return  # the guest has its own limit, or the classic window right above its memory
    option = f"{limit_option(facts)}={width}"
    line = (guest.value("cpu") if guest else None) or "host"
    yield Finding(
        "platform.address-width",
        Level.NOTE,
        "host",
        f"The IOMMU addresses {width} bits and the CPU {bits}: "
        "a guest with CPU type host may place BARs where DMA cannot reach them.",
        (f"/sys/class/iommu/*/intel-iommu/cap: {width} bits", f"/proc/cpuinfo: {bits} bits physical"),
        Actor.NOBODY,
        show(
            f"Only if a guest fails with VFIO_MAP_DMA and -22; its window is then {shown(1 << width - 3)}:",
            f"qm set {'ID' if request.vmid is None else request.vmid} --cpu {_quoted(_limited(line, option))}",
        ),
    )


def limit_option(facts: Facts) -> str:
    """The option that limits a guest's addresses: `guest-phys-bits` where Proxmox VE knows it, as it changes nothing
    else; `phys-bits` everywhere."""
    parts = (facts.pve.qemu_server or "").split("-")[0].split(".")
    known = all(part.isdecimal() for part in parts) and tuple(map(int, parts)) >= windows.GUEST_PHYS_BITS
    return "guest-phys-bits" if known else "phys-bits"


def _limited(line: str, option: str) -> str:
    name = option.partition("=")[0]
    return ",".join([*(part for part in line.split(",") if not part.startswith(f"{name}=")), option])


# -- BARs on the host ----------------------------------------------------------------------------


def resizable(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the card offer larger BARs than it has?

    Why: Through a BAR as large as its memory the processor reaches all of it at once. Games can gain by it, and
        Intel's Arc cards lose about a quarter of their speed without it. The guest sees the size that the BAR has on
        the host and cannot change it.
    Look at: `pve-passthrough bars DEVICE`; /sys/bus/pci/devices/ADDRESS/resourceN_resize (bit n is 2^n MiB).
    Fix: Resizable BAR and Above 4G Decoding in the firmware's setup; or `pve-passthrough bars DEVICE --set N=SIZE`,
        which sets it at every boot.
    Source: kernel Documentation/ABI/testing/sysfs-bus-pci; QEMU commit b5048a4cbf, read-only capability since 8.1;
        published measurements of the Arc A770 (2022-10).
    """
    for device in chosen(facts, request):
        for bar in device.bars or ():
            best = max(bar.sizes, default=0)
            if not device.is_display or not bar.placed or not 0 < bar.size < best:
                continue
            arc = device.vendor == 0x8086 and device.address.bus != 0
            yield Finding(
                "gpu.resizable-bar",
                Level.HARMS if arc else Level.NOTE,
                str(device.address),
                f"BAR {bar.index} of {device} is {shown(bar.size)} and could be {shown(best)}"
                + (": Intel's Arc cards are much slower so." if arc else "."),
                (f"resource{bar.index}_resize: {sizes_shown(bar.sizes)}", f"resource: {shown(bar.size)}"),
                Actor.FIRMWARE,
                show(
                    "Switch on Resizable BAR and Above 4G Decoding in the firmware's setup, or set the size at boot:",
                    f"pve-passthrough bars {device.address} --set {bar.index}={short(best)}",
                ),
            )


def sizes_shown(sizes: Sequence[int]) -> str:
    """`256 MiB, 512 MiB, 1 GiB`"""
    return ", ".join(map(shown, sizes))


def unplaced(facts: Facts, request: Request) -> Iterator[Finding]:
    """Did the host find room for all the device's BARs?

    Why: A BAR without an address does not exist for anybody, and a guest gets the device as the host sees it. Large
        BARs need addresses above 4 GiB, which the firmware gives out only with Above 4G Decoding.
    Look at: `lspci -vv -s ADDRESS`: "Memory at <unassigned>" or "<ignored>"; `journalctl -k | grep -i "can't assign"`.
    Fix: In the firmware's setup Above 4G Decoding on (Resizable BAR, SR-IOV where the card needs it), CSM off. If the
        firmware has no such switch, the kernel can place BARs anew: argument pci=realloc.
    Source: kernel drivers/pci/setup-bus.c, setup-res.c; Documentation/admin-guide/kernel-parameters.txt, pci=realloc.
    """
    for device in chosen(facts, request):
        lost = [bar for bar in device.bars or () if not bar.placed and not bar.io and bar.index < 6]
        if not lost or device.bridge:
            continue
        numbers = names(f"{bar.index}{f' ({shown(bar.size)})' if bar.size else ''}" for bar in lost)
        yield Finding(
            "platform.unplaced-bars",
            Level.HARMS,
            str(device.address),
            f"The host found no addresses for BAR {numbers} of {device}: it works neither here nor in a guest.",
            (
                *(f"/sys/bus/pci/devices/{device.address}/resource: BAR {bar.index} has no address" for bar in lost),
                *_nothing_high(facts),
            ),
            Actor.FIRMWARE,
            show(
                "Switch on Above 4G Decoding in the firmware's setup (and SR-IOV support where it has that switch). "
                "Where there is none, the kernel argument pci=realloc lets the kernel place BARs anew."
            ),
        )


def _nothing_high(facts: Facts) -> tuple[str, ...]:
    line = "no BAR of any device lies above 4 GiB: Above 4G Decoding seems to be off"
    return () if above_4g(facts) else (line,)


def above_4g(facts: Facts) -> bool:
    """Whether some BAR lies above 4 GiB, which proves that the firmware decodes there. No proof is not a no."""
    return any(bar.start >= FOUR_GIB for device in facts.devices for bar in device.bars or ())
