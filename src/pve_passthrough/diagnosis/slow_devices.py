"""How a slow guest's devices run: links, interrupts, clocks, windows, encoders.

1. Pure. A link that idles says nothing about its speed; the best of all samples counts.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence

from ..knowledge import performance as known
from ..model.pci import Device
from ..model.performance import Gpu, Inside, LinkSample, Measured, State
from .slow_case import Case, heads, links, shown


def _links(case: Case) -> Iterator[Measured]:
    for device in heads(case.devices):
        for number, (below, port) in enumerate(links(case.facts, device)):
            yield from _slot(case, device, below, port)
            yield _link(case, device, below, port, far=number > 0)


def _link(case: Case, device: Device, below: Device, port: Device, *, far: bool) -> Measured:
    subject = str(device.address)
    speeds = [one.link.max_speed for one in (below, port) if one.link and one.link.max_speed]
    widths = [one.link.max_width for one in (below, port) if one.link and one.link.max_width]
    best = _best([one for end in (below, port) for one in (_first_look(end), *case.samples.links.get(end.address, ()))])
    if not speeds or not widths or best.speed is None or best.width is None:
        return case.unknown("link", subject, "the kernel does not say how the link runs")
    speed, width = min(speeds), min(widths)
    where = tuple(f"/sys/bus/pci/devices/{one.address}/current_link_speed" for one in (below, port))
    evidence = (f"{where[0]}: {best.speed:g} GT/s, {best.width} lanes", f"port above: {port.address}")
    here, should = _spoken(best.speed, best.width), _spoken(speed, width)
    idle = device.is_display and not far and _busy(case, device) is not True
    if best.width < width and not (idle and best.speed < speed and device.vendor in known.SHEDS_LANES):
        change = "Reseat the card; look for a second card or an M.2 disk that shares the slot's lanes, and for a riser."
        return Measured("link", subject, State.SLOW, here, should, change, evidence=evidence)
    if best.speed >= speed and best.width >= width:
        return Measured("link", subject, State.GOOD, here, should, evidence=evidence)
    if idle:
        again = f"pve-passthrough diagnose --for slow --vm {case.vm.vmid} --seconds 30"
        why = "a card lowers its link when it idles"
        return Measured("link", subject, State.UNKNOWN, here, should, "Measure again while it works.", (again,),
                        evidence, why)  # fmt: skip
    change = "Set the slot's speed in the firmware (not Auto), and try without a riser."
    state = State.SLOW if device.is_display else State.NOTE
    return Measured("link", subject, state, here, should, change, evidence=evidence)


def _first_look(device: Device) -> LinkSample:
    """What the facts say, from before the samples."""
    return LinkSample(device.link.speed, device.link.width) if device.link else LinkSample(None, None)


def _best(seen: Sequence[LinkSample]) -> LinkSample:
    return LinkSample(
        max((one.speed for one in seen if one.speed is not None), default=None),
        max((one.width for one in seen if one.width is not None), default=None),
    )


def _spoken(speed: float, width: int) -> str:
    return f"{speed:g} GT/s, {width} lane{'s' if width > 1 else ''} ({known.lane_rate(speed, width):.1f} GB/s)"


def _slot(case: Case, device: Device, below: Device, port: Device) -> Iterator[Measured]:
    """Said only when the port is the smaller end."""
    card, above = below.link, port.link
    if not card or not above or not (card.max_speed and card.max_width and above.max_speed and above.max_width):
        return
    speed, width = min(card.max_speed, above.max_speed), min(card.max_width, above.max_width)
    share = known.lane_rate(speed, width) / known.lane_rate(card.max_speed, card.max_width)
    if share < 1:
        yield Measured(
            "slot", str(device.address), State.SLOW if share < known.HALF else State.NOTE,
            _spoken(speed, width), _spoken(card.max_speed, card.max_width),
            "Use a slot with more or faster lanes, preferably one of the processor's.",
            evidence=(f"port {port.address}: at most {above.max_width} lanes, {above.max_speed:g} GT/s",),
        )  # fmt: skip


def _gpus(case: Case, device: Device) -> tuple[Gpu, ...]:
    """What the guest's driver said of this device, in order of time; identical cards are told apart by their order."""
    same = [one.address for one in case.devices if one.id == device.id]
    place = same.index(device.address)
    found = ([gpu for gpu in one.gpus or () if gpu.id == device.id] for one in case.samples.inside)
    return tuple(gpus[place] for gpus in found if len(gpus) > place)


def _busy(case: Case, device: Device) -> bool | None:
    seen = [gpu for gpu in _gpus(case, device) if gpu.use is not None]
    if not seen:
        return None
    return any((gpu.use or 0) >= known.BUSY or (gpu.encoder or 0) >= known.BUSY for gpu in seen)


# -- devices -------------------------------------------------------------------------------------


def _drivers(case: Case) -> Iterator[Measured]:
    should = "the maker's own"
    left = list(case.samples.drivers or ())
    for device in (one for one in case.devices if one.is_display):
        subject = str(device.address)
        found = next((one for one in left if one[0] == device.id), None)
        if found is None:
            why = case.silence("driver") if case.samples.drivers is None else "the guest does not list the device"
            yield case.unknown("driver", subject, why, should)
            continue
        left.remove(found)
        _, driver, problem = found
        evidence = (f"guest: {device.id} {driver or 'no driver'}{f', {problem}' if problem else ''}",)
        if not driver or problem or driver.lower() in known.BASIC_DRIVERS:
            here = problem or driver or "none"
            change = "Install the maker's driver in the guest; a problem that Windows reports comes first."
            yield Measured("driver", subject, State.SLOW, here, should, change, evidence=evidence)
        elif driver == "nouveau":
            change = "Install NVIDIA's driver in the guest."
            yield Measured("driver", subject, State.NOTE, driver, should, change, evidence=evidence)
        else:
            yield Measured("driver", subject, State.GOOD, driver, should, evidence=evidence)


def _display(case: Case) -> Iterator[Measured]:
    """A second screen that nothing accelerates. One that is lent out whole needs it for its console."""
    if not any(device.is_display for device in case.devices):
        return
    kind = (case.vm.value("vga") or "not set (std)").partition(",")[0]
    primary = any(entry.on("x-vga") for entry in case.vm.hostpci)
    evidence = (f"vga: {kind}",)
    if kind.startswith(("none", "serial")) or primary:
        here = "none" if not primary else "none (x-vga)"
        yield Measured("display", case.guest, State.GOOD, here, "none, once the card's own works", evidence=evidence)
    else:
        yield Measured(
            "display", case.guest, State.NOTE, kind, "none, once the card's own works",
            "Look at the card's own output, or at a stream of it; when that works, the virtual one can go.",
            (f"pve-passthrough display --vm {case.vm.vmid}",), evidence,
        )  # fmt: skip


def _interrupts(case: Case) -> Iterator[Measured]:
    for device in case.devices:
        subject = str(device.address)
        if not case.samples.running or case.samples.interrupts is None:
            yield case.unknown("interrupts", subject, case.silence("interrupts"), "MSI or MSI-X")
            continue
        kinds = case.samples.interrupts.get(device.address, {})
        evidence = tuple(f"/proc/interrupts: vfio-{kind}({subject}): {count}" for kind, count in kinds.items())
        if "msi" in kinds or "msix" in kinds:
            yield Measured("interrupts", subject, State.GOOD, _kinds(kinds), "MSI or MSI-X", evidence=evidence)
        elif "intx" in kinds:
            yield _old_style(case, device, kinds, evidence)
        elif device.is_display:
            yield Measured("interrupts", subject, State.NOTE, "none set up", "MSI or MSI-X",
                           "The guest has no driver that uses the device: look at its driver first.")  # fmt: skip


def _kinds(kinds: Mapping[str, int]) -> str:
    return ", ".join({"msi": "MSI", "msix": "MSI-X", "intx": "INTx"}[kind] for kind in kinds)


def _old_style(case: Case, device: Device, kinds: Mapping[str, int], evidence: tuple[str, ...]) -> Measured:
    can = device.capabilities
    if can is not None and not can.msi and not can.msix:
        return Measured("interrupts", str(device.address), State.NOTE, "INTx", "MSI or MSI-X",
                        "The device has nothing else.", evidence=evidence)  # fmt: skip
    if case.windows:
        told = (case.last.msi or {}).get(device.id) if case.last else None
        change = (
            "In Windows: device manager, Details, Device instance path; below that key in HKLM\\SYSTEM\\"
            "CurrentControlSet\\Enum set Device Parameters\\Interrupt Management\\MessageSignaledInterruptProperties\\"
            f"MSISupported to 1 (now {'not set' if told is None else int(told)}), then restart the guest."
        )
    else:
        change = "In the guest: take pci=nomsi off its kernel's command line, and use the device's own driver."
    return Measured("interrupts", str(device.address), State.SLOW, _kinds(kinds), "MSI or MSI-X", change,
                    evidence=evidence)  # fmt: skip


def _power(case: Case) -> Iterator[Measured]:
    for device in heads(case.devices):
        subject = str(device.address)
        states = [state for state in case.samples.power.get(device.address, ()) if state and state != "unknown"]
        if not case.samples.running or not states:
            why = case.silence("power") if not case.samples.running else "the kernel does not say"
            yield case.unknown("power", subject, why, "D0")
            continue
        evidence = (f"/sys/bus/pci/devices/{subject}/power_state: {states[-1]}",)
        if "D0" not in states:
            yield Measured("power", subject, State.NOTE, states[-1], "D0 while it works",
                           "The guest lets it sleep; it should wake when it is used.", evidence=evidence)  # fmt: skip
        else:
            yield from _clocks(case, device, evidence)


def _clocks(case: Case, device: Device, evidence: tuple[str, ...]) -> Iterator[Measured]:
    subject, busy = str(device.address), _busy(case, device)
    seen = _gpus(case, device)
    brakes = dict.fromkeys(one for gpu in seen for one in gpu.brakes if one in known.BRAKES)
    states = [int(gpu.state[1:]) for gpu in seen if gpu.state]
    lines = (*evidence, *(f"{gpu.source}: {gpu.state or gpu.profile}, use {gpu.use} %" for gpu in seen[-1:]))
    if brakes and busy is not False:
        said = "; ".join(known.BRAKES[one] for one in brakes)
        yield Measured("power", subject, State.SLOW, f"clocks held down: {', '.join(brakes)}", "no such reason",
                       f"{said[0].upper()}{said[1:]}: look at its fans, its power cables and the case's air.",
                       evidence=lines)  # fmt: skip
    elif any(gpu.profile == "low" for gpu in seen):
        yield Measured("power", subject, State.SLOW, "clocks held at the lowest", "auto",
                       "In the guest: write auto to power_dpm_force_performance_level of the card.",
                       evidence=lines)  # fmt: skip
    elif busy and states and min(states) > known.CLOCK_GENERATIONS:
        yield Measured("power", subject, State.SLOW, f"P{min(states)} at work", "P0 to P3",
                       "In Windows: NVIDIA control panel, Power management mode, Prefer maximum performance.",
                       evidence=lines)  # fmt: skip
    else:
        shown = f"D0, P{min(states)}" if states else "D0"
        yield Measured("power", subject, State.GOOD, f"{shown}{', idle' if busy is False else ''}", "D0",
                       evidence=lines)  # fmt: skip


def _aspm(case: Case) -> Iterator[Measured]:
    policy = case.samples.aspm
    evidence = (f"/sys/module/pcie_aspm/parameters/policy: {policy}",)
    if not policy:
        yield case.unknown("aspm", "host", "/sys/module/pcie_aspm/parameters/policy: not readable", "default")
    elif policy.startswith("powers"):
        yield Measured("aspm", "host", State.NOTE, policy, "default or performance",
                       "Take pcie_aspm.policy off the kernel's command line, or try performance.",
                       ("echo performance > /sys/module/pcie_aspm/parameters/policy",), evidence)  # fmt: skip
    else:
        yield Measured("aspm", "host", State.GOOD, policy, "default or performance", evidence=evidence)


def _window(case: Case) -> Iterator[Measured]:
    for device in case.devices:
        bars = [bar for bar in device.bars or () if bar.sizes]
        if not device.is_display or not bars:
            continue
        bar = max(bars, key=lambda one: max(one.sizes))
        subject, largest = str(device.address), max(bar.sizes)
        inside = [f"{gpu.source}: {shown(gpu.window)} of {shown(gpu.memory)}" for gpu in _gpus(case, device)[-1:]
                  if gpu.window and gpu.memory]  # fmt: skip
        evidence = (f"{subject}: BAR {bar.index} is {shown(bar.size)}, offered up to {shown(largest)}", *inside)
        if bar.size >= largest:
            yield Measured("window", subject, State.GOOD, shown(bar.size), shown(largest), evidence=evidence)
        else:
            yield Measured(
                "window", subject, State.NOTE, shown(bar.size), shown(largest),
                "Set it on the host, before the guest starts; cards that expect it (Intel Arc) lose much without.",
                (f"pve-passthrough bars {subject} --vm {case.vm.vmid}",), evidence,
            )  # fmt: skip


def _encoder(case: Case) -> Iterator[Measured]:
    should = "busy while something is encoded"
    for device in case.devices:
        if not device.is_display:
            continue
        subject = str(device.address)
        seen = [gpu for gpu in _gpus(case, device) if gpu.encoder is not None or gpu.sessions is not None]
        worked = _engines(case.samples.inside)
        if seen:
            most, sessions = max(gpu.encoder or 0 for gpu in seen), max(gpu.sessions or 0 for gpu in seen)
            works = bool(most or sessions)
            here = f"{most} % busy, {sessions} session{'' if sessions == 1 else 's'}" if works else "idle"
            source = seen[-1].source
        elif worked is not None and device.vendor != 0x10DE:
            works, here, source = any(worked.values()), "busy" if any(worked.values()) else "idle", "fdinfo"
        else:
            yield case.unknown("encoder", subject, _no_encoder(case, device), should)
            continue
        change = "" if works else "If a program encodes now, it does so on the processor: choose the card's in it."
        yield Measured("encoder", subject, State.GOOD if works else State.NOTE, here, should, change,
                       evidence=(f"guest, {source}: {here}",))  # fmt: skip


def _no_encoder(case: Case, device: Device) -> str:
    if case.last is None:
        return case.silence()
    if device.vendor == 0x10DE:
        return case.silence("nvidia")
    return (
        "Windows has no program that says so in every language: look at Video Encode in its task manager"
        if case.windows
        else "two looks are needed, and no program has the card open"
    )


def _engines(inside: Sequence[Inside]) -> Mapping[str, int] | None:
    """Work of the encoding engines between the first look and the last; None without two looks at any."""
    seen = [one.engines for one in inside if one.engines]
    if len(seen) < 2:
        return None
    names = [name for name in known.ENCODERS if name in seen[-1]]
    return {name: max(0, seen[-1][name] - seen[0].get(name, 0)) for name in names} if names else None


DEVICES = (_links, _drivers, _display, _interrupts, _power, _aspm, _window, _encoder)
