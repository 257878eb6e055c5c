"""From a goal to wishes: what has to be true so that a guest gets these functions, and no more than that.

1. Pure. Every wish says why, from evidence in the facts; what is already so gives no wish.
2. What nobody could say and what matters is a Failure that names the gap; it is never assumed.
3. Proxmox VE binds devices itself when a guest starts. A claim at boot is wished only where the host's driver would
   not let go. Source: pve-common, SysFSTools.pm; qemu-server, QemuServer/PCI.pm.
4. A guest's firmware (`bios`) is never changed: an installed system may not boot with the other one.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence

from ..errors import Exit, Failure
from ..knowledge.binding import hold_back, host_driver, likely_driver
from ..knowledge.guestconfig import CPU_OPTIONS, HOSTPCI_MAX, WINDOW, bar_bytes, own_cpu
from ..knowledge.mappings import fault, hardware_of
from ..model.blast import blast_radius
from ..model.cards import processor_functions
from ..model.facts import Facts, Loader, ResourceMapping
from ..model.lent import lent_to
from ..model.mappings import find, lines_of
from ..model.own import CLAIM_SCRIPT, MODPROBE
from ..model.pci import Address, Device
from ..model.texts import KERNEL_CMDLINE, argument_values, split_argument, split_cmdline
from ..model.vm import HostPci, Vm, expand_host, parse_options, same_options
from ..model.wish import ArgAbsent, ArgPresent, ClaimByAddress, ClaimById, VmOption, Wish
from . import claim_script, disk_controllers, edit_cmdline, edit_grub, edit_modprobe
from .choose import shows_console
from .msix import relocations
from .proof import Unprovable
from .single_gpu import lend, lent_card
from .tweaks import NO_TWEAKS, GuestTweaks, guest_tweaks, host_tweaks

ON_BY_DEFAULT = (6, 8)
"""From this kernel on the Intel IOMMU is on without an argument. Source: pve-docs, qm-pci-passthrough."""


def give(
    facts: Facts,
    addresses: Sequence[Address],
    vmid: int,
    *,
    accept: frozenset[str] = frozenset(),
    mappings: Sequence[str] = (),
    tweaks: Sequence[str] = (),
    lend_display: bool = False,
) -> tuple[Wish, ...]:
    """Wishes that give these functions to guest `vmid`. Raises Failure when the facts forbid it or do not suffice.

    `accept` names hazards that people have accepted; a device that the host lives on is refused whatever it holds.
    `mappings` names resource mappings: a card that one of them covers exactly goes through it.
    `tweaks` names settings that few guests need (see `tweaks`).
    `lend_display`: the card that shows the console is handed over at each start, and not claimed at boot.
    """
    if not addresses:
        raise Failure("device.none", "Nothing was planned: no device was named.", code=Exit.USAGE)
    devices = tuple(_present(facts, address) for address in dict.fromkeys(addresses))
    refuse_vital(facts, addresses)
    guest = changeable_guest(facts, vmid)
    tweaked = guest_tweaks(guest, devices, tweaks)
    lent = lent_card(facts, devices, vmid) if lend_display else []
    borrowed = {device.address for device in lent} | lent_to(facts.files, vmid)
    claimed = claims(facts, [device for device in devices if device.address not in borrowed])
    claimed += disk_controllers.keep_from_host(facts, devices, claimed)
    host = (*iommu(facts), *claimed, *lend(facts, lent, vmid), *host_tweaks(facts, tweaks))
    wishes = (*host, *guest_options(facts, guest, devices, mappings, tweaked))
    if wishes:
        refuse_busy(facts, guest)
    return wishes


def _present(facts: Facts, address: Address) -> Device:
    device = facts.device(address)
    if device is None:
        raise Failure("device.unknown", f"Nothing was planned: {address} is not on this machine.", code=Exit.USAGE)
    return device


def refuse_vital(facts: Facts, addresses: Iterable[Address]) -> None:
    """Second line of defence behind the rules: nothing may take from the host what it lives on."""
    for device in blast_radius(facts, addresses):
        vital = [use for use in facts.uses_of(device.address) if use.vital]
        if vital:
            raise Failure(
                "plan.vital", f"Nothing was planned: the guest's start would take {device} from the host.",
                *(f"{use.kind.value}: {use.detail}" for use in vital),
                hint="Nothing overrides this. Move the card to another slot, or the host to another device.",
                code=Exit.REFUSED,
            )  # fmt: skip


def unknown(facts: Facts, about: str, what: str) -> Failure:
    """The refusal to plan on a fact that nobody could tell."""
    gap = facts.gap(about)
    return Failure(
        "plan.unknown", f"Nothing was planned: {what} is unknown.", f"{about}: {gap.reason if gap else 'not answered'}",
        hint="Run it on the machine itself, as root; `check` lists every gap.",
    )  # fmt: skip


# -- the host: IOMMU -----------------------------------------------------------------------------


def iommu(facts: Facts) -> tuple[Wish, ...]:
    """Kernel arguments without which the IOMMU is off at the next boot."""
    if facts.iommu.on is None:
        raise unknown(facts, "iommu", "whether the IOMMU is on")
    if not facts.iommu.on and facts.firmware.dmar is False and facts.firmware.ivrs is False:
        return ()  # the firmware hides it: no argument helps, the rules say so
    sources = next_boot(facts)
    standing = sources or [split_cmdline(facts.kernel.cmdline or "")]
    every = dict.fromkeys(token for tokens in standing for token in tokens)
    wishes: list[Wish] = [
        ArgAbsent(token, f"`{token}` switches the IOMMU off") for token in every if _switches_off(token)
    ]
    told_on = all(any(_says(token, "intel_iommu", "on") for token in tokens) for tokens in standing)
    if _needs_intel(facts) and not told_on:
        wishes.append(ArgPresent("intel_iommu=on", _why_intel(facts)))
    return tuple(wishes)


def _says(token: str, name: str, word: str) -> bool:
    found, value = split_argument(token)
    return found == name and word in (value or "").split(",")


def _switches_off(token: str) -> bool:
    """Source: kernel, Documentation/admin-guide/kernel-parameters.txt: iommu=, intel_iommu=, amd_iommu=."""
    return any(_says(token, name, "off") for name in ("intel_iommu", "amd_iommu", "iommu"))


def _needs_intel(facts: Facts) -> bool:
    """AMD needs no argument; Intel needs one before 6.8, or when a kernel leaves the IOMMU off without being told."""
    intel, version = facts.intel_iommu, facts.kernel.version
    if intel is None and not facts.iommu.on:
        raise unknown(facts, "cpu", "the processor's maker")
    if not intel or _on_untold(facts):
        return False
    if version is None:
        if facts.iommu.on:
            return False
        raise unknown(facts, "kernel.release", "the kernel's version")
    if version < ON_BY_DEFAULT:
        return True
    told_off = any(_switches_off(token) for token in split_cmdline(facts.kernel.cmdline or ""))
    return not facts.iommu.on and facts.firmware.dmar is True and facts.kernel.cmdline is not None and not told_off


def _on_untold(facts: Facts) -> bool:
    """The running kernel has the IOMMU on without having been told: its build says so, whatever its version is.

    Debian's kernels do, 6.1 included (seen in Debian 12; CONFIG_INTEL_IOMMU_DEFAULT_ON).
    """
    line = facts.kernel.cmdline
    told = line is None or any(_says(token, "intel_iommu", "on") for token in split_cmdline(line))
    return bool(facts.iommu.on) and not told


def _why_intel(facts: Facts) -> str:
    release, version = facts.kernel.release, facts.kernel.version
    if version is not None and version < ON_BY_DEFAULT:
        return f"kernel {release} leaves Intel's IOMMU off unless told otherwise"
    return f"the firmware offers VT-d, nothing switches it off, and kernel {release} still leaves it off"


def next_boot(facts: Facts) -> list[list[str]] | None:
    """Words that each loader's source gives the next boot; None when a loader or a source cannot be told."""
    if not facts.boot.loaders:
        return None
    try:
        return [_source_tokens(facts, loader) for loader in facts.boot.loaders]
    except Unprovable:
        return None


def _source_tokens(facts: Facts, loader: Loader) -> list[str]:
    if loader is not Loader.SYSTEMD_BOOT:
        return edit_grub.tokens_of(facts.files)
    text = facts.files.get(KERNEL_CMDLINE)
    if text is None:
        raise Unprovable(KERNEL_CMDLINE, "it is not there")
    return edit_cmdline.tokens_of(text)


# -- the host: claims at boot --------------------------------------------------------------------


def claims(facts: Facts, devices: Sequence[Device]) -> tuple[Wish, ...]:
    """Claims at boot for the cards of which a function would not let go at run time; whole cards, one way each."""
    by_id: dict[str, None] = {}
    before: dict[str, None] = {}
    reasons: list[str] = []
    addressed: list[Wish] = []
    for slot in dict.fromkeys(device.address.slot for device in devices):
        card = [device for device in devices if device.address.slot == slot]
        why = next((reason for device in card if (reason := holds_on(facts, device))), "")
        if not why or _claimed_already(facts, card):
            continue
        if twin := _why_not_by_id(facts, devices, card):
            addressed += [ClaimByAddress(device.address, device.id, f"{why}; {twin}") for device in card]
            continue
        by_id.update(dict.fromkeys(device.id for device in card))
        before.update({module: None for device in card for module in hold_back(device)})
        reasons.append(why)
    if by_id:
        return (ClaimById(tuple(by_id), tuple(before), "; ".join(dict.fromkeys(reasons))), *addressed)
    return tuple(addressed)


def holds_on(facts: Facts, device: Device) -> str:
    """Why the host would not let go of this function at run time; empty when it would."""
    if shows_console(facts, device):
        return f"the host shows its console on {device}"
    if device.subclass == 0x0300 and device.boot_vga is None and not _console_known(facts):
        raise unknown(facts, "display", f"whether the host shows its console on {device}")
    if device.driver is None:
        raise unknown(facts, f"pci.{device.address}", f"which driver holds {device}")
    row = host_driver(likely_driver(device))
    return "" if row is None or row.lets_go else row.why


def _console_known(facts: Facts) -> bool:
    display = facts.display
    return "console" in facts.uses_known or display.console_owner is not None or display.framebuffer == ""


def _claimed_already(facts: Facts, card: Sequence[Device]) -> bool:
    """Whether vfio-pci has the whole card now, and something on disk shows that it will again."""
    if any(device.driver != "vfio-pci" for device in card):
        return False
    listed = {identity for ids in edit_modprobe.foreign_ids(facts.files).values() for identity in ids}
    listed |= set(edit_modprobe.own_ids(facts.files.get(MODPROBE)))
    listed |= _cmdline_ids(facts)
    try:
        addressed = claim_script.claims_of(facts.files.get(CLAIM_SCRIPT))
    except Unprovable:
        addressed = {}
    return all(device.id in listed or addressed.get(device.address) == device.id for device in card)


def _cmdline_ids(facts: Facts) -> set[str]:
    values = argument_values(facts.kernel.cmdline or "", "vfio-pci.ids")
    for tokens in next_boot(facts) or []:
        values += [value for token in tokens for value in argument_values(token, "vfio-pci.ids")]
    return {identity.lower() for value in values for identity in value.split(",")}


def _why_not_by_id(facts: Facts, devices: Sequence[Device], card: Sequence[Device]) -> str:
    """Why this card must be claimed by address; empty when its IDs are its own."""
    given = {device.address for device in devices}
    ids = {device.id for device in card}
    for other in facts.devices:
        if other.id in ids and other.address not in given and not other.bridge:
            return f"{other} has the same ID and stays with the host, so it is claimed by address"
    if foreign := edit_modprobe.foreign_ids(facts.files):
        return f"{next(iter(foreign))} already has a list of IDs, and only one list counts, so it is claimed by address"
    if _cmdline_ids(facts):
        return "the kernel command line already has a list of IDs, and only one counts, so it is claimed by address"
    return "an ID could not be read, so it is claimed by address" if any("?" in identity for identity in ids) else ""


# -- the guest -----------------------------------------------------------------------------------


def changeable_cluster(facts: Facts) -> None:
    """Whether the cluster's configuration can be changed at all. Raises Failure."""
    if facts.pve.quorate is False:
        raise Failure(
            "pve.no-quorum", "Nothing was planned: this node's cluster has no quorum, so no configuration can change.",
            hint="Bring the other nodes back; `pvecm status` shows the votes.",
        )  # fmt: skip
    if facts.pve.writable is False:
        raise Failure(
            "pve.readonly", "Nothing was planned: /etc/pve accepts no changes now.",
            hint="`pvecm status` shows whether the cluster has quorum; `systemctl status pve-cluster`.",
        )  # fmt: skip


def changeable_guest(facts: Facts, vmid: int) -> Vm:
    """The guest, if its configuration may be changed from this node at all. Raises Failure."""
    changeable_cluster(facts)
    if facts.guests is None:
        raise unknown(facts, "guests", "which guests there are")
    guest = facts.guest(vmid)
    if guest is None:
        raise Failure(
            "guest.missing", f"Nothing was planned: there is no guest {vmid}.",
            *(f"{other.vmid} {other.name} on {other.node}" for other in facts.guests[:20]),
            hint="Name one of these, or make it: pve-passthrough vm create --help",
        )  # fmt: skip
    name = f"guest {guest.vmid} ({guest.name})"
    if facts.pve.node is not None and guest.node != facts.pve.node:
        raise Failure(
            "guest.elsewhere", f"Nothing was planned: {name} is on node {guest.node}, this is {facts.pve.node}.",
            hint=f"Run it on {guest.node}, or move the guest here first.",
        )  # fmt: skip
    if guest.flag("template"):
        raise Failure(
            "guest.template", f"Nothing was planned: {name} is a template, which never runs.", code=Exit.REFUSED
        )
    return guest


def refuse_busy(facts: Facts, guest: Vm) -> None:
    """Changes need a guest that is stopped and that no task of Proxmox holds."""
    name = f"guest {guest.vmid} ({guest.name})"
    if guest.lock:
        raise Failure(
            "guest.locked", f"Nothing was planned: {name} is locked.", f"lock: {guest.lock}",
            hint="Wait for the task that holds it (backup, migration, snapshot), then try again.",
        )  # fmt: skip
    if guest.running is None:
        raise unknown(facts, "guests.running", f"whether {name} runs")
    if guest.running:
        raise Failure(
            "guest.running", f"Nothing was planned: {name} runs, and devices are given to stopped guests only.",
            hint=f"qm shutdown {guest.vmid}", code=Exit.REFUSED,
        )  # fmt: skip


def guest_options(
    facts: Facts,
    guest: Vm,
    devices: Sequence[Device],
    mappings: Sequence[str] = (),
    tweaked: GuestTweaks = NO_TWEAKS,
) -> tuple[Wish, ...]:
    """What the guest's configuration lacks. Who has the device already keeps machine type and automatic start."""
    owned = {address for entry in guest.hostpci for address in entry.addresses}
    settled = owned.issuperset(device.address for device in devices)
    pcie = _is_x86(guest) and any(_wants_pcie(device) for device in devices) and _express(guest, devices, settled)
    wishes = [
        *_machine(guest, pcie),
        *_cpu(guest, devices, tweaked),
        *_memory(guest),
        *([] if settled else _onboot(guest)),
    ]
    taken = {entry.key for entry in guest.hostpci} | {key for key in guest.config if key.startswith("hostpci")}
    for entry in _entries(facts, devices, mappings, guest.node):
        extra = {"pcie": "1"} if pcie and any(_wants_pcie(device) for device in entry) else {}
        covering = _covering(facts, guest, entry, mappings)
        wishes += _hostpci(facts, guest, entry, {**extra, **tweaked.entry}, taken, covering)
    wishes += relocations(facts, guest, wishes, tweaked.msix)
    refuse_pending(guest, wishes)
    return tuple(wishes)


def guest_drivers_need(guest: Vm, devices: Sequence[Device]) -> list[VmOption]:
    """Processor and memory of the guest, as the drivers of these devices and their pinned memory want them."""
    return [*_cpu(guest, devices, NO_TWEAKS), *_memory(guest)]


def refuse_pending(guest: Vm, wishes: Iterable[VmOption]) -> None:
    """A key that waits for the next start has two values, and only one of them could be kept."""
    for wish in wishes:
        if wish.key in guest.pending or wish.key in guest.deleting:
            raise Failure(
                "guest.pending", f"Nothing was planned: guest {guest.vmid} has an unapplied change of {wish.key}.",
                hint=f"Start and stop the guest, or take it back: qm set {guest.vmid} --revert {wish.key}",
            )  # fmt: skip


def _entries(
    facts: Facts, devices: Sequence[Device], mappings: Sequence[str] = (), node: str = ""
) -> list[list[Device]]:
    """Which functions share a hostpci entry: those of a named pool (a start takes one member), else those of a slot.
    The picture and the sound of an AMD processor need a ROM file each, and an entry's ROM file goes to its first
    function only, so they get an entry each.
    Source: qemu-server PCI.pm (romfile, rombar and x-vga apply to function 0 of an entry)."""
    alone = {device.address.slot for device in devices if processor_functions(facts, device)}
    named = (one for one in facts.mappings if one.kind == "pci" and one.name in mappings)
    several = [one for one in named if len(lines_of(one, node)) > 1]
    pools = {address: one.name for one in several for address in _offered(facts, one, node)}
    entries: dict[str, list[Device]] = {}
    for device in devices:
        slot = device.address.slot
        key = pools.get(device.address) or (str(device.address) if slot in alone else slot)
        entries.setdefault(key, []).append(device)
    return list(entries.values())


def is_q35(guest: Vm) -> bool:
    kind = parse_options(guest.value("machine") or "", "type").get("type", "")
    return kind == "q35" or kind.startswith("pc-q35")


def _express(guest: Vm, devices: Sequence[Device], settled: bool) -> bool:
    """Whether PCI Express is worth a new machine type: for graphics that are new to the guest, or when an entry
    demands it. Anything else works on i440fx as a PCI device, and pcie=1 only sets a flag.
    Source: Proxmox VE administration guide, PCI(e) passthrough; qemu-server PCI.pm, "q35 machine model is not enabled".
    """
    if any(entry.on("legacy-igd") for entry in guest.hostpci):
        return False  # "legacy IGD assignment is not compatible with q35" (recorded exchanges with Proxmox VE 9.2)
    demanded = any(entry.on("pcie") for entry in guest.hostpci)
    return is_q35(guest) or demanded or (not settled and any(device.is_display for device in devices))


def _covering(facts: Facts, guest: Vm, card: Sequence[Device], mappings: Sequence[str]) -> str:
    """The named mapping that offers exactly these functions on the guest's node, at once or one of them; empty when
    none does.

    A mapping that Proxmox would refuse at start is refused here: no guest of it would run.
    """
    wanted = {device.address for device in card}
    for mapping in facts.mappings:
        if mapping.kind != "pci" or mapping.name not in mappings or _offered(facts, mapping, guest.node) != wanted:
            continue
        if why := fault(hardware_of(facts), mapping):
            raise Failure(
                "mapping.stale", f"Nothing was planned: the mapping {mapping.name} {why}, so no guest starts with it.",
                hint=f"pve-passthrough mapping repair {mapping.name}; or name the address.",
            )  # fmt: skip
        _refuse_mixed(mapping, guest.node)
        return mapping.name
    return ""


def _offered(facts: Facts, mapping: ResourceMapping, node: str) -> set[Address]:
    """All functions that the mapping may give on this node."""
    known = [device.address for device in facts.devices]
    return {address for line in lines_of(mapping, node) for address in expand_host(line.path, known)}


def _refuse_mixed(mapping: ResourceMapping, node: str) -> None:
    """A pool gives the guest whichever member is free, so all must be the same product to the guest's driver."""
    lines = lines_of(mapping, node)
    if len({line.options.get("id", "") for line in lines}) > 1:
        raise Failure(
            "mapping.mixed", f"Nothing was planned: the pool {mapping.name} holds different products, and each start "
            "of the guest may take another one.",
            *(f"{line.path}: {line.options.get('id', '')}" for line in lines),
            hint="Make a pool for each product, or name the address.", code=Exit.REFUSED,
        )  # fmt: skip


def _wants_pcie(device: Device) -> bool:
    """PCI Express functions, and displays whose capabilities nobody could read: on q35, pcie=1 does a PCI card no harm
    (it sets a flag only: Proxmox VE administration guide, PCI(e) passthrough)."""
    known = device.capabilities
    return device.is_display if known is None else known.express is not None


def _is_x86(guest: Vm) -> bool:
    return guest.config.get("arch", "x86_64") == "x86_64"


def _machine(guest: Vm, pcie: bool) -> list[VmOption]:
    """A guest that is pinned to a version stays pinned to it: Windows guests are (recorded: "pinning machine type to
    'pc-q35-11.0+pve2' for Windows guest OS"), and a bare `q35` would take the pin away."""
    options = parse_options(guest.value("machine") or "", "type")
    kind = options.get("type", "")
    if not pcie or is_q35(guest):
        return []
    rest = "".join(f",{key}={value}" for key, value in options.items() if key != "type")
    pin = re.fullmatch(r"pc(?:-i440fx)?-(\d+\.\d+(?:\.\d+)*(?:\+pve\d+)?)(?:\.pxe)?", kind)
    wanted = f"pc-q35-{pin.group(1)}" if pin else "q35"
    was = kind or "i440fx, the default"
    why = f"PCI Express needs the q35 machine, the guest has {was}"
    return [VmOption(guest.vmid, "machine", f"{wanted}{rest}", f"{why}; its version stays" if pin else why)]


def _cpu(guest: Vm, devices: Sequence[Device], tweaked: GuestTweaks) -> list[VmOption]:
    """The host's own processor for graphics and for large BARs; other devices do not care. And what hides it."""
    options = parse_options(guest.value("cpu") or "", "cputype")
    _refuse_void(guest, options)
    kind = options.get("cputype", "")
    reasons = [tweaked.why] if any(options.get(key) != text for key, text in tweaked.cpu.items()) else []
    needed = any(device.is_display or bar_bytes(device) > WINDOW for device in devices)
    fixed = own_cpu(options) or kind.startswith("custom-") or not guest.flag("kvm", True) or not _is_x86(guest)
    if needed and not fixed:
        options = {key: text for key, text in options.items() if key not in ("cputype", "reported-model")}
        was = kind or "the default"
        reasons.insert(0, f"guest drivers and large device windows need the host's own processor, the guest has {was}")
        kind = "host"
    if not reasons:
        return []
    rest = {key: text for key, text in {**options, **tweaked.cpu}.items() if key != "cputype"}
    value = ",".join((*([kind] if kind else []), *(f"{key}={text}" for key, text in rest.items())))
    return [VmOption(guest.vmid, "cpu", value, "; ".join(reasons))]


def _refuse_void(guest: Vm, options: Mapping[str, str]) -> None:
    """A line that Proxmox VE cannot parse goes with its next write to the file, and no undo could bring it back."""
    void = [key for key in options if key not in CPU_OPTIONS]
    if void:
        kept = ",".join(f"{key}={text}" for key, text in options.items() if key in CPU_OPTIONS)
        raise Failure(
            "guest.void-line", f"Nothing was planned: Proxmox VE cannot read the cpu line of guest {guest.vmid}.",
            f"cpu: {guest.value('cpu')}", f"no option of Proxmox VE: {', '.join(void)}",
            "the guest starts with the default processor instead, and the next change of any option drops the line",
            hint=f"Mend it by hand: qm set {guest.vmid} --cpu {kept or 'host'}", code=Exit.REFUSED,
        )  # fmt: skip


def _memory(guest: Vm) -> list[VmOption]:
    """All guest memory is pinned while a device is assigned; a balloon then frees nothing on the host and still takes
    it from the guest (QEMU, hw/vfio/container.c; hw/virtio/virtio-balloon.c). Without `balloon` it never inflates."""
    memory = parse_options(guest.value("memory") or "512", "current").get("current", "")
    balloon = guest.value("balloon") or ""
    if not all(one.isdecimal() and len(one) < 16 for one in (balloon, memory)):
        return []
    if int(balloon) == 0 or int(balloon) >= int(memory):
        return []
    why = f"an assigned device pins all {memory} MiB; shrinking to {balloon} MiB would only starve the guest"
    return [VmOption(guest.vmid, "balloon", "0", why)]


def _onboot(guest: Vm) -> list[VmOption]:
    if not guest.flag("onboot"):
        return []
    why = (
        "until one start is verified, nothing may take devices from the host before anyone can log in; "
        f"afterwards: qm set {guest.vmid} --onboot 1"
    )
    return [VmOption(guest.vmid, "onboot", "0", why)]


# -- the guest's hostpci entries -----------------------------------------------------------------


def _hostpci(
    facts: Facts,
    guest: Vm,
    card: Sequence[Device],
    extra: Mapping[str, str],
    taken: set[str],
    mapping: str,
) -> list[VmOption]:
    """The wishes for one card: an entry of its own, or the entry that claims part of it already, completed."""
    wanted = {device.address for device in card}
    mine = [entry for entry in guest.hostpci if wanted & set(entry.addresses)]
    if not mine:
        key = free_key(guest, taken)
        # Without `mapping=` the name would be read as an address (qemu-server PCI.pm, hostpci format).
        source = f"mapping={mapping}" if mapping else _host(facts, wanted)
        value = ",".join((source, *(f"{name}={text}" for name, text in extra.items())))
        through = f", through the mapping {mapping}" if mapping else ""
        why = _why_pool(facts, mapping, guest.node) or _why_entry(facts, card) + through
        return [VmOption(guest.vmid, key, value, why)]
    first = next((entry for entry in mine if wanted <= set(entry.addresses)), mine[0])
    union = wanted.union(*(entry.addresses for entry in mine))
    _refuse_tangle(guest, mine, wanted, union)
    changed = _merged(facts, first, union, extra, mapping)
    switched = mapping if mapping and not first.mapping else ""
    does = f"now through the mapping {switched}" if switched else "completes the entry that is there"
    wishes = [] if same_options(guest.config.get(first.key), changed) else [
        VmOption(guest.vmid, first.key, changed, f"{_why_entry(facts, card)}; {does}")
    ]  # fmt: skip
    doubled = (entry for entry in mine if entry is not first)
    return wishes + [VmOption(guest.vmid, e.key, None, f"{first.key} has these functions too") for e in doubled]


def _refuse_tangle(guest: Vm, mine: Sequence[HostPci], wanted: set[Address], union: set[Address]) -> None:
    """An entry through a mapping, or over several cards, is not ours to rebuild unless it already is enough."""
    enough = len(mine) == 1 and wanted <= set(mine[0].addresses)
    if not enough and (any(entry.mapping for entry in mine) or len({address.slot for address in union}) > 1):
        raise Failure(
            "guest.tangled", f"Nothing was planned: guest {guest.vmid} claims part of this card in a way of its own.",
            *(f"{entry.key}: {guest.config.get(entry.key, '')}" for entry in mine),
            hint=f"Remove that entry first: qm set {guest.vmid} --delete {mine[0].key}", code=Exit.REFUSED,
        )  # fmt: skip


def _merged(facts: Facts, entry: HostPci, union: set[Address], extra: Mapping[str, str], mapping: str = "") -> str:
    """The entry's options, with all functions in `host` and what is missing added; options that are there stay.

    `mapping`: what offers exactly these functions takes the place of a bare address.
    """
    options = dict(entry.options)
    if mapping and not entry.mapping:
        rest = {name: text for name, text in options.items() if name != "host"}
        rest |= {name: text for name, text in extra.items() if text == "0" or not entry.on(name)}
        return ",".join((f"mapping={mapping}", *(f"{name}={text}" for name, text in rest.items())))
    if set(entry.addresses) != union:
        options["host"] = _host(facts, union)
    for name, text in extra.items():
        if text == "0" or not entry.on(name):
            options[name] = text
    host = options.pop("host", None)
    return ",".join(([host] if host else []) + [f"{name}={text}" for name, text in options.items()])


def _host(facts: Facts, wanted: set[Address]) -> str:
    """`0000:01:00` for all of a card's several functions, else the functions joined by `;`.

    Source: qemu-server, QemuServer/PCI.pm: an address without a function takes all, with pci_id_list joined by `;`.
    """
    present = {device.address for device in facts.devices if device.address.slot in {a.slot for a in wanted}}
    if wanted == present and len(wanted) > 1:
        return next(iter(wanted)).slot
    return ";".join(str(address) for address in sorted(wanted))


def _why_pool(facts: Facts, mapping: str, node: str) -> str:
    """Empty for a mapping that offers one device."""
    pool = find(facts.mappings, "pci", mapping)
    paths = [line.path for line in lines_of(pool, node)] if pool else []
    if len(paths) < 2:
        return ""
    return f"each start gives the guest the first of {', '.join(paths)} that is free, through the mapping {mapping}"


def _why_entry(facts: Facts, card: Sequence[Device]) -> str:
    head, *others = sorted(card, key=lambda device: device.address)
    if not others:
        return f"the guest gets {head}"
    return f"the guest gets {head} as a whole card, with {', '.join(str(device) for device in others)}"


def free_key(guest: Vm, taken: set[str]) -> str:
    """The first hostpci entry that is neither in `taken` nor waiting for the next start; it is taken then."""
    taken |= {key for key in guest.pending if key.startswith("hostpci")}
    for number in range(HOSTPCI_MAX):
        if f"hostpci{number}" not in taken:
            taken.add(f"hostpci{number}")
            return f"hostpci{number}"
    raise Failure(
        "guest.full", f"Nothing was planned: guest {guest.vmid} has all {HOSTPCI_MAX} hostpci entries in use.",
        hint=f"qm config {guest.vmid}",
    )  # fmt: skip
