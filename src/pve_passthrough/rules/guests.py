"""Rules about the guest: will this configuration start, and will the device work inside?

1. Proxmox drops a line that its schema does not know as a whole and starts the guest without it; what `qm set` would
   refuse, hand-editing lets through.
2. Values are those that the next start will see: pending over active.
3. What only makes a start fail is HARMS with a way out, not a hazard.
"""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import replace

from ..knowledge.guestconfig import (
    CPU_FLAGS,
    CPU_OPTIONS,
    HOSTPCI_HOST,
    HOSTPCI_MAX,
    HOSTPCI_OPTIONS,
    HV_VENDOR_ID,
    own_cpu,
)
from ..knowledge.mappings import fault, hardware_of
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Fix, Level
from ..model.pci import Address, Device
from ..model.sighting import covers, standing
from ..model.vm import HostPci, Vm, expand_host, parse_options
from .memory import unfit
from .subject import (
    OUTPUTS_NOT,
    Request,
    ask,
    assigned,
    card_name,
    cards,
    guests,
    is_local,
    names,
    reason,
    show,
    unknown,
    up,
)

MIB = 1024**2
GIB = 1024**3

_FALSE = frozenset({"0", "off", "no", "false"})


def _line(guest: Vm, key: str) -> str:
    node = guest.node or "NODE"
    return f"/etc/pve/nodes/{node}/qemu-server/{guest.vmid}.conf: {key}: {guest.value(key) or '(not set)'}"


def _say(
    guest: Vm, rule: str, level: Level, message: str, *keys: str, fix: Fix | None = None, actor: Actor = Actor.US
) -> Finding:
    lines = tuple(_line(guest, key) for key in keys)
    return Finding(f"guests.{rule}", level, f"vm:{guest.vmid}", message, lines, actor, fix)


def _set(guest: Vm, text: str, *options: str) -> Fix:
    return ask(text, *(f"qm set {guest.vmid} {option}" for option in options))


def _plan(facts: Facts, request: Request, guest: Vm, text: str, option: str) -> Fix:
    """What a plan of ours sets as well: the command for all of it, or the one option where no device is in question."""
    devices = _devices(facts, request, guest)
    if not devices:
        return _set(guest, text, option)
    return ask(text, up(facts, replace(request, vmid=guest.vmid), *devices))


def _storage(guest: Vm) -> str:
    """Where the guest's first disk lies: `local-lvm`; the word STORAGE when it has none."""
    disks = (guest.value(key) or "" for key in sorted(guest.config) if re.fullmatch(r"(scsi|virtio|sata|ide)\d+", key))
    found = (match.group(1) for disk in disks if "media=cdrom" not in disk and (match := _VOLUME.match(disk)))
    return next(found, "STORAGE")


_VOLUME = re.compile(r"([A-Za-z][A-Za-z0-9._-]*):")


def _called(guest: Vm) -> str:
    return f"Guest {guest.vmid} ({guest.name})"


def _entries(guest: Vm) -> list[tuple[str, dict[str, str]]]:
    """hostpciN lines of the next start, read as option strings."""
    keys = {key for key in (*guest.config, *guest.pending) if re.fullmatch(r"hostpci\d+", key)}
    found = [(key, guest.value(key)) for key in sorted(keys, key=lambda key: int(key[7:]))]
    return [(key, parse_options(value, "host")) for key, value in found if value is not None]


def _on(options: dict[str, str], name: str, default: str = "0") -> bool:
    return options.get(name, default).lower() in ("1", "on", "yes", "true")


def _devices(facts: Facts, request: Request, guest: Vm) -> list[Device]:
    """What the guest has or shall have."""
    wanted = {address for entry in guest.hostpci for address in entry.binds} | set(request.addresses)
    return [device for device in facts.devices if device.address in wanted]


def _graphics(facts: Facts, request: Request, guest: Vm) -> list[Device]:
    return [device for device in _devices(facts, request, guest) if device.is_display]


def known(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there such a guest, and is it on this node?

    Why: A device belongs to one machine; a guest can only take devices of the node that it lives on.
    Look at: `qm list`, `pvesh get /cluster/resources --type vm`.
    Fix: Name a guest of this node, create one, or run this on the guest's node.
    Source: Proxmox VE administration guide, QEMU/KVM Virtual Machines.
    """
    if request.vmid is None:
        return
    guest = facts.guest(request.vmid)
    subject = f"vm:{request.vmid}"
    if guest is None and (facts.guests is None or facts.gap("guests") is not None):
        yield unknown(
            "guests.known",
            subject,
            f"Whether there is a guest {request.vmid}, nobody could say.",
            reason(facts, "guests", "pve.guests", "pve"),
        )
    elif guest is None:
        yield Finding(
            "guests.known",
            Level.BLOCKS,
            subject,
            f"There is no guest {request.vmid}.",
            (f"/etc/pve/nodes/*/qemu-server/{request.vmid}.conf: absent",),
            Actor.NOBODY,
            show("Name another guest, or create this one.", "qm list"),
        )
    elif not is_local(facts, guest):
        yield _say(
            guest,
            "known",
            Level.BLOCKS,
            f"{_called(guest)} lives on node {guest.node}, not on {facts.pve.node}.",
            fix=show(f"Run this on {guest.node}, or migrate it here.", f"qm migrate {guest.vmid} {facts.pve.node}"),
            actor=Actor.NOBODY,
        )


def locked(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the guest locked?

    Why: While a backup, a snapshot or a migration runs, Proxmox refuses every change. A lock that outlived its task
        stays until somebody takes it off.
    Look at: the line `lock:` in the guest's configuration; `pvenode task list --vmid ID`.
    Fix: Wait for the task. Only if certainly none runs: `qm unlock ID`.
    Source: qemu-server, PVE/AbstractConfig check_lock; Proxmox VE administration guide, qm.
    """
    for guest in guests(facts, request):
        if guest.lock:
            yield _say(
                guest,
                "locked",
                Level.BLOCKS,
                f"{_called(guest)} is locked ({guest.lock}): nothing of it can be changed.",
                "lock",
                fix=show("Wait for the task; only if certainly none runs:", f"qm unlock {guest.vmid}"),
                actor=Actor.NOBODY,
            )


def template(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it a template?

    Why: A template never starts, and Proxmox leaves its PCI devices out.
    Look at: the line `template: 1`.
    Fix: Clone it and give the device to the clone.
    Source: qemu-server QemuServer.pm, config_to_command (templates).
    """
    for guest in guests(facts, request):
        if guest.flag("template"):
            yield _say(
                guest,
                "template",
                Level.BLOCKS,
                f"{_called(guest)} is a template and never starts.",
                "template",
                fix=show("Clone it.", f"qm clone {guest.vmid} NEWID"),
                actor=Actor.NOBODY,
            )


def running(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the guest running now?

    Why: PCI devices are not hot-plugged from these settings: a change of a running guest stays pending until it was
        fully stopped. A reboot inside the guest is not enough.
    Look at: `qm status ID`, `qm pending ID`.
    Fix: Shut the guest down first.
    Source: qemu-server, vmconfig_hotplug_pending; recorded exchanges with Proxmox VE 8.4 and 9.2.
    """
    if not request.addresses:
        return
    for guest in guests(facts, request):
        if guest.running and not assigned(guest, request):
            yield _say(
                guest,
                "running",
                Level.HARMS,
                f"{_called(guest)} is running: a new device waits until it was fully stopped.",
                fix=show("Shut it down first.", f"qm shutdown {guest.vmid}"),
            )


def not_assigned(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest have the device?

    Why: Without a hostpci line the guest starts without the device.
    Look at: `qm config ID`.
    Fix: `pve-passthrough plan DEVICE --vm ID` shows the change, `pve-passthrough up DEVICE --vm ID` makes it.
    Source: qemu-server PCI.pm, hostpci; Proxmox VE administration guide, PCI(e) passthrough, VM Configuration.
    """
    if request.vmid is None or not request.addresses:
        return
    for guest in guests(facts, request):
        owned = {address for entry in guest.hostpci for address in entry.addresses}
        missing = [address for address in request.addresses if address not in owned]
        if missing:
            known = [device for device in map(facts.device, missing) if device is not None]
            what = [card_name(card) for card in cards(known)] or missing
            yield _say(
                guest,
                "assigned",
                Level.HARMS,
                f"{_called(guest)} does not have {names(what)} yet.",
                fix=ask("Give it the device.", up(facts, request, *known)),
            )


def machine(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the machine type fit?

    Why: pcie=1 works on q35 only; on i440fx the start fails with "q35 machine model is not enabled". Without pcie=1
        i440fx works, but some drivers expect PCI Express. Legacy graphics passthrough is the other way round: it
        needs i440fx.
    Look at: the lines `machine:` and `hostpciN:`.
    Fix: `qm set ID --machine q35`, or pc-q35-9.0 for a guest that is pinned to pc-i440fx-9.0: Windows guests are
        pinned to a version, and a bare q35 takes the pin away. An installed guest finds new hardware then.
    Source: qemu-server PCI.pm, "q35 machine model is not enabled"; recorded exchanges with Proxmox VE 9.2 (pinning);
        Proxmox VE administration guide, PCI(e) passthrough.
    """
    for guest in guests(facts, request):
        q35 = "q35" in (guest.value("machine") or "")
        express = [key for key, options in _entries(guest) if _on(options, "pcie")]
        legacy = [key for key, options in _entries(guest) if _on(options, "legacy-igd")]
        if express and not q35:
            yield _say(
                guest,
                "machine",
                Level.HARMS,
                f"{_called(guest)} is not a q35 machine, so {names(express)} with pcie=1 keeps it from starting.",
                "machine",
                express[0],
                fix=_plan(facts, request, guest, "Make it a q35 machine.", "--machine q35"),
            )
        elif legacy and q35:
            yield _say(
                guest,
                "machine",
                Level.HARMS,
                f"{_called(guest)} is a q35 machine, but {names(legacy)} with legacy-igd=1 needs i440fx.",
                "machine",
                legacy[0],
                fix=_set(guest, "Make it an i440fx machine.", "--machine pc"),
            )
        elif not q35 and not legacy and request.addresses and _graphics(facts, request, guest):
            yield _say(
                guest,
                "machine",
                Level.NOTE,
                f"{_called(guest)} is an i440fx machine: a graphics card works there, but only as a PCI device.",
                "machine",
                fix=None
                if assigned(guest, request)
                else _plan(facts, request, guest, "Make it a q35 machine.", "--machine q35"),
            )


def firmware(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest's firmware fit the card?

    Why: Modern cards bring a UEFI driver in their ROM, and large BARs need a firmware that places them above 4 GiB:
        that is OVMF. SeaBIOS works with older cards. An installed system starts only with the firmware it was
        installed with.
    Look at: the line `bios:`; `pve-passthrough rom check FILE` tells whether a ROM has a UEFI image.
    Fix: For a new guest: OVMF with an EFI disk. Never switch an installed guest without a way back.
    Source: Proxmox VE administration guide, PCI(e) passthrough ("otherwise use SeaBIOS"); edk2 MemDetect.c.
    """
    for guest in guests(facts, request):
        graphics = _graphics(facts, request, guest)
        legacy = any(_on(options, "legacy-igd") for _, options in _entries(guest))
        if graphics and (guest.value("bios") or "seabios") != "ovmf" and not legacy:
            yield _say(
                guest,
                "firmware",
                Level.NOTE,
                f"{_called(guest)} starts with SeaBIOS: {names(graphics)} may show nothing there, "
                "and its large memory windows may not fit.",
                "bios",
                fix=show(
                    "Only for a guest without an installed system; an installed one starts only with its own firmware.",
                    f"qm set {guest.vmid} --bios ovmf --efidisk0 {_storage(guest)}:1,efitype=4m,pre-enrolled-keys=0",
                ),
            )


def efi_disk(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does an OVMF guest have a sound EFI disk?

    Why: Without an EFI disk OVMF forgets its boot entries at every stop. With pre-enrolled-keys=1 Secure Boot is on
        in the guest, so that unsigned drivers (DKMS) do not load there; Windows' drivers are signed. The default image
        type is the old 2m one, which works, but knows no Secure Boot.
    Look at: the lines `bios:` and `efidisk0:`.
    Fix: `qm set ID --efidisk0 STORAGE:1,efitype=4m,pre-enrolled-keys=0` (or =1 for Windows 11).
    Source: qemu-server Drive.pm, efitype; Proxmox VE administration guide, BIOS and UEFI.
    """
    for guest in guests(facts, request):
        if guest.value("bios") != "ovmf":
            continue
        disk = guest.value("efidisk0")
        if disk is None:
            yield _say(
                guest,
                "efi-disk",
                Level.HARMS,
                f"{_called(guest)} starts with OVMF but has no EFI disk: it forgets its boot entries.",
                "bios",
                "efidisk0",
                fix=show(
                    "Add one.", f"qm set {guest.vmid} --efidisk0 {_storage(guest)}:1,efitype=4m,pre-enrolled-keys=0"
                ),
            )
        elif _builds_drivers(facts, request, guest) and _on(parse_options(disk, "file"), "pre-enrolled-keys"):
            yield _say(
                guest,
                "efi-disk",
                Level.NOTE,
                f"{_called(guest)} starts with Secure Boot: a driver built there (DKMS) needs an enrolled key.",
                "efidisk0",
                fix=show("Enrol the key in the guest, or switch Secure Boot off in its firmware's menu."),
            )


def _builds_drivers(facts: Facts, request: Request, guest: Vm) -> bool:
    """A guest with graphics that is no Windows: their ostypes all begin with w (API schema of 9.2, option ostype)."""
    return bool(_graphics(facts, request, guest)) and not (guest.value("ostype") or "other").startswith("w")


def cpu(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the CPU type `host`?

    Why: With CPU type host the guest's firmware learns the real number of address bits and makes its window for BARs
        large enough; drivers for graphics and compute expect the features. The default kvm64 has neither.
    Look at: the line `cpu:`.
    Fix: `qm set ID --cpu host`; for guests that must move between unlike nodes `x86-64-v2-AES,phys-bits=host,
        flags=+pdpe1gb`.
    Source: edk2 OvmfPkg MemDetect.c; qemu-server CPUConfig.pm; Proxmox VE administration guide, CPU Type.
    """
    for guest in guests(facts, request):
        graphics = _graphics(facts, request, guest)
        options = parse_options(guest.value("cpu") or "", "cputype")
        kind = options.get("cputype", "kvm64")
        if unfit(facts, request, guest):
            continue  # the rule about the window says it with the size
        if not own_cpu(options) and graphics:
            yield _say(
                guest,
                "cpu",
                Level.HARMS,
                f"{_called(guest)} has CPU type {kind}, and drivers of {graphics[0]} expect the host's own.",
                "cpu",
                fix=_plan(facts, request, guest, "Give it the host's CPU.", "--cpu host"),
            )


def cpu_invalid(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does Proxmox understand the CPU line?

    Why: One unknown word makes the whole line invalid. Proxmox then starts the guest with kvm64 and says so only in
        the log: "unable to parse value of 'cpu'". Guides spread hv_vendor_id (it is hv-vendor-id), kvm=off (it is
        hidden=1) and flags separated by commas (they are separated by semicolons).
    Look at: `qm config ID` prints the warning; the line `cpu:` in the file.
    Fix: Write the line as Proxmox knows it, with `qm set`, which refuses what it does not know.
    Source: qemu-server CPUConfig.pm; recorded exchanges with Proxmox VE 8.4 and 9.2.
    """
    for guest in guests(facts, request):
        value = guest.value("cpu") or ""
        fault = cpu_fault(value) if value else ""
        if fault:
            yield _say(
                guest,
                "cpu-invalid",
                Level.HARMS,
                f"{_called(guest)} has a CPU line that Proxmox drops as a whole ({fault}): it starts with kvm64.",
                "cpu",
                fix=_set(guest, "Write it as Proxmox knows it.", f"--cpu {_cpu_words(value)}"),
            )


def cpu_fault(value: str) -> str:
    """What Proxmox would refuse in a `cpu` value; empty when nothing is known to be wrong."""
    seen: set[str] = set()
    for part in value.split(","):
        key, equals, text = part.partition("=")
        key = key if equals else "cputype"
        if key not in CPU_OPTIONS:
            better = {"hv_vendor_id": "; it is hv-vendor-id", "kvm": "; it is hidden=1"}.get(key, "")
            return f"it has no option {key}{better}"
        if key in seen:
            return "a word without = stands twice; flags are separated by semicolons"
        seen.add(key)
        if key == "hv-vendor-id" and not HV_VENDOR_ID.fullmatch(text):
            return "hv-vendor-id takes 1 to 12 letters and digits"
        if key == "flags" and (wrong := [flag for flag in text.split(";") if not _flag(flag)]):
            return f"it has no flag {wrong[0]}"
        if key == "cputype" and (part if not equals else text) != (part if not equals else text).strip():
            return "there is a space in it"
    return ""


def _cpu_words(value: str) -> str:
    """What of a CPU line (or of QEMU's own -cpu) Proxmox knows, in Proxmox' words: `host,hidden=1`."""
    kept: dict[str, str] = {}
    for number, part in enumerate(value.replace("<br>", "").split(",")):
        key, equals, text = (word.strip() for word in part.partition("="))
        if number == 0 and (not equals or key == "cputype") and re.fullmatch(r"[A-Za-z0-9-]+", text or key):
            kept["cputype"] = text or key
        elif (key, text) == ("kvm", "off") or (key == "hidden" and text in ("1", "on", "yes", "true")):
            kept["hidden"] = "1"
        elif key in ("hv_vendor_id", "hv-vendor-id") and HV_VENDOR_ID.fullmatch(text):
            kept["hv-vendor-id"] = text
        elif key == "flags":
            flags = ";".join(flag for flag in text.split(";") if _flag(flag))
            kept |= {"flags": flags} if flags else {}
        elif key in CPU_OPTIONS and re.fullmatch(r"[A-Za-z0-9-]+", text):
            kept[key] = text
    first = kept.pop("cputype", "host")
    return ",".join((first, *(f"{key}={text}" for key, text in kept.items())))


def _flag(flag: str) -> bool:
    return flag[:1] in ("+", "-") and flag[1:] in CPU_FLAGS


def args_cpu(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does `args` replace the CPU line?

    Why: `args` comes last on QEMU's command line, and QEMU keeps the last -cpu. All that Proxmox made of `cpu:` is
        lost: hidden=1, the Hyper-V enlightenments, flags. Nothing checks `args`; an unbalanced quote drops it without
        a word.
    Look at: `qm showcmd ID --pretty`: two -cpu.
    Fix: `qm set ID --delete args`, and say it with `cpu: host,hidden=1,hv-vendor-id=XXXX`; most need none of it since
        NVIDIA's driver 465.
    Source: qemu-server QemuServer.pm, config_to_command; QEMU system/vl.c, -cpu.
    """
    for guest in guests(facts, request):
        value = guest.value("args")
        if value is None:
            continue
        if value.count("'") % 2 or value.count('"') % 2:
            yield _say(
                guest,
                "args-cpu",
                Level.HARMS,
                f"{_called(guest)} has an unbalanced quote in args: Proxmox drops all of it without a word.",
                "args",
                fix=show("Balance the quotes, or delete it.", f"qm set {guest.vmid} --delete args"),
            )
        elif re.search(r"(?:^|\s)-cpu[\s=]", value):
            yield _say(
                guest,
                "args-cpu",
                Level.HARMS,
                f"{_called(guest)} has a -cpu in args that replaces its cpu line "
                f"({guest.value('cpu') or 'not set'}) as a whole.",
                "args",
                "cpu",
                fix=_without_cpu(guest, value),
            )


def _without_cpu(guest: Vm, value: str) -> Fix:
    """The same in Proxmox' own words: what else stands in args stays. Recipes for macOS and for Intel Arc under Windows
    need QEMU's own words, so nothing of this is done by us."""
    try:
        words = shlex.split(value)
    except ValueError:
        return show("Say it with the cpu line instead.", f"qm set {guest.vmid} --delete args")
    said, rest = "", []
    while words:
        word = words.pop(0)
        if word == "-cpu" and words:
            said = words.pop(0)
        elif word.startswith("-cpu="):
            said = word[5:]
        else:
            rest.append(word)
    keep = f"--args {shlex.quote(shlex.join(rest))}" if rest else "--delete args"
    return show(
        "Unless the guest needs QEMU's own words (macOS, Intel Arc under Windows), say it with the cpu line.",
        f"qm set {guest.vmid} {keep}",
        f"qm set {guest.vmid} --cpu {_cpu_words(said)}",
    )


def hidden(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the hypervisor hidden without need?

    Why: hidden=1 was needed for NVIDIA's consumer drivers before 465 (2021). Today it only costs KVM's paravirtual
        features, and x-vga=1 sets it by itself.
    Look at: the line `cpu:`.
    Fix: Take hidden=1 out unless the guest's driver is older than 465.
    Source: NVIDIA, GeForce GPU passthrough in release 465; qemu-server PCI.pm (x-vga sets kvm=off).
    """
    for guest in guests(facts, request):
        options = parse_options(guest.value("cpu") or "", "cputype")
        if _on(options, "hidden"):
            yield _say(
                guest,
                "hidden",
                Level.NOTE,
                f"{_called(guest)} hides the hypervisor, which drivers have not needed since NVIDIA's 465.",
                "cpu",
            )


def balloon(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does ballooning promise memory that cannot come back?

    Why: With a passed-through device all of the guest's memory is pinned at start. The balloon then takes memory from
        the guest and gives nothing back to the host.
    Look at: the lines `memory:` and `balloon:`.
    Fix: `qm set ID --balloon 0`, or balloon equal to memory.
    Source: QEMU hw/vfio/container.c (ram_block_discard_disable), hw/virtio/virtio-balloon.c; Proxmox VE
        administration guide, Memory.
    """
    for guest in guests(facts, request):
        memory, least = _mib(guest, "memory", 512), guest.value("balloon")
        number = least is not None and least.isdecimal() and len(least) < 12
        if not least or not number or memory is None or not (guest.hostpci or request.addresses):
            continue
        if 0 < int(least) < memory:
            yield _say(
                guest,
                "balloon",
                Level.HARMS,
                f"{_called(guest)} may shrink from {memory} to {least} MiB, but with a device all of it stays pinned.",
                "memory",
                "balloon",
                fix=_plan(facts, request, guest, "Switch ballooning off.", "--balloon 0"),
            )


def _mib(guest: Vm, key: str, default: int) -> int | None:
    """Memory in MiB; Proxmox' default is 512. None for what is no number."""
    value = guest.value(key)
    text = parse_options(value, "current").get("current", "") if value else str(default)
    return int(text) if text.isdecimal() and len(text) < 12 else None


def memory(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there memory enough to pin?

    Why: All of the guest's memory is pinned at start: it must be free then, and stays taken. ZFS gives its cache back
        only slowly. Too little ends in a start that fails, or in the host's out-of-memory killer.
    Look at: MemAvailable in /proc/meminfo; the line `memory:`; `arc_summary`.
    Fix: Give the guest less, stop others, or limit the ARC.
    Source: QEMU hw/vfio/container.c; Proxmox VE administration guide, Memory; ZFS on Linux, Limit ZFS Memory Usage.
    """
    for guest in guests(facts, request):
        size = _mib(guest, "memory", 512)
        if size is None or not (guest.hostpci or request.addresses):
            continue
        if facts.memory_total is None:
            yield unknown(
                "guests.memory",
                f"vm:{guest.vmid}",
                f"Whether the host has {size} MiB for {_called(guest)}, nobody could say.",
                reason(facts, "memory"),
            )
        elif size * MIB > facts.memory_total:
            yield _say(
                guest,
                "memory",
                Level.BLOCKS,
                f"{_called(guest)} wants {size} MiB, and the host has {facts.memory_total // MIB} MiB in all.",
                "memory",
                fix=show("Give the guest less.", f"qm set {guest.vmid} --memory N"),
            )
        elif facts.memory_free is not None and not guest.running and size * MIB > facts.memory_free:
            yield _say(
                guest,
                "memory",
                Level.HARMS,
                f"{_called(guest)} pins {size} MiB at start, and {facts.memory_free // MIB} MiB are free now.",
                "memory",
                fix=show("Give the guest less, stop others, or limit the ZFS cache."),
                actor=Actor.NOBODY,
            )


def hugepages(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are huge pages set up as Proxmox wants them?

    Why: hugepages without numa keeps the guest from starting: "numa needs to be enabled to use hugepages".
    Look at: the lines `hugepages:` and `numa:`.
    Fix: `qm set ID --numa 1`.
    Source: recorded exchanges with Proxmox VE 9.2; qemu-server Memory.pm.
    """
    for guest in guests(facts, request):
        if guest.value("hugepages") is not None and not guest.flag("numa"):
            yield _say(
                guest,
                "hugepages",
                Level.HARMS,
                f"{_called(guest)} wants huge pages without numa and does not start.",
                "hugepages",
                "numa",
                fix=_set(guest, "Switch numa on.", "--numa 1"),
            )


def twice(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest name a device twice?

    Why: `01:00` already means all functions. With `01:00.1` beside it the start fails: "device '0000:01:00.1'
        assigned more than once". `qm set` accepts it.
    Look at: the lines `hostpciN:`.
    Fix: Delete the second line.
    Source: qemu-server PCI.pm, parse_hostpci; recorded exchanges with Proxmox VE 8.4 and 9.2.
    """
    for guest in guests(facts, request):
        owners: dict[Address, str] = {}
        for entry in guest.hostpci:
            double = [address for address in entry.binds if owners.setdefault(address, entry.key) != entry.key]
            if double and not entry.mapping:
                first = owners[double[0]]
                yield _say(
                    guest,
                    "twice",
                    Level.HARMS,
                    f"{_called(guest)} has {facts.device(double[0]) or double[0]} twice and does not start.",
                    first,
                    entry.key,
                    fix=ask("Delete the second line.", f"qm set {guest.vmid} --delete {entry.key}"),
                )


def hostpci(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does Proxmox understand the hostpci lines, and are the devices there?

    Why: A line that the schema does not know is dropped, and the guest starts without the device. An address that
        nobody has makes the start fail: "no PCI device found". A ROM file is named, not given by its path.
    Look at: `qm config ID`, `lspci -D`.
    Fix: Write the line with `qm set`, in lower case, with two digits for the bus; ROM files go to /usr/share/kvm.
    Source: qemu-server PCI.pm, hostpci format; recorded exchanges with Proxmox VE 8.4 and 9.2.
    """
    for guest in guests(facts, request):
        yield from _gone(facts, guest)
        for key, options in _entries(guest):
            fault = hostpci_fault(key, options)
            if fault:
                yield _say(
                    guest,
                    "hostpci",
                    Level.HARMS,
                    f"{_called(guest)}: {key} {fault}.",
                    key,
                    fix=show("Write it as Proxmox knows it.", f"qm set {guest.vmid} --{key} 0000:BB:DD,pcie=1"),
                )


def hostpci_fault(key: str, options: dict[str, str]) -> str:
    """What Proxmox would refuse in a hostpci line; empty when nothing is known to be wrong."""
    if int(key[7:]) >= HOSTPCI_MAX:
        return f"is dropped: there are only hostpci0 to hostpci{HOSTPCI_MAX - 1}"
    for name in options:
        if name not in HOSTPCI_OPTIONS:
            return f"is dropped as a whole: it has no option {name}"
    host = options.get("host")
    if host is not None and not HOSTPCI_HOST.fullmatch(host):
        return f"is dropped as a whole: {host} is no address as Proxmox writes it"
    if host is None and "mapping" not in options:
        return "names neither a host address nor a mapping"
    if "/" in options.get("romfile", ""):
        return "gives its ROM file by path; it is looked for below /usr/share/kvm by its bare name"
    return ""


def _gone(facts: Facts, guest: Vm) -> Iterator[Finding]:
    """One finding for all lines that name what is not there: after a card was moved, several of them go wrong.

    Of lines whose card is remembered the rules about drift speak: they know where it is now.
    """
    remembered = standing(facts, guest)
    gone = {
        key: lost
        for key, options in _entries(guest)
        if not hostpci_fault(key, options)
        and (lost := _absent(facts, options))
        and not any(covers(options.get("host", ""), one.address) for one in remembered)
    }
    if gone:
        yield _say(
            guest,
            "hostpci",
            Level.HARMS,
            f"{_called(guest)} does not start: "
            f"{names(f'{key} names {names(lost)}' for key, lost in gone.items())}, which this machine does not have.",
            *gone,
            fix=show(
                "Name the present address (`pve-passthrough devices`), or take the line away.",
                *(f"qm set {guest.vmid} --delete {key}" for key in gone),
            ),
        )


def _absent(facts: Facts, options: dict[str, str]) -> list[str]:
    host = options.get("host")
    if host is None or not facts.devices:
        return []
    known_addresses = {device.address for device in facts.devices}
    found = expand_host(host, known_addresses)
    missing = [str(address) for address in found if address not in known_addresses]
    return missing if found else [host]


def mapping(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the resource mapping still describe the hardware?

    Why: At start Proxmox compares a mapping's id, subsystem-id and iommugroup with the hardware and refuses when one
        differs or is missing: "PCI device mapping invalid (hardware probably changed)". New firmware,
        kernels and the ACS override renumber groups.
    Look at: `pve-passthrough mapping check`, `pvesh get /cluster/mapping/pci --check-node NODE`.
    Fix: `pve-passthrough mapping repair NAME`, or `pve-passthrough reassign --vm VMID` where the card has moved.
    Source: pve-guest-common, PVE/Mapping/PCI.pm, assert_valid; recorded exchanges with Proxmox VE 9.2.
    """
    for guest in guests(facts, request):
        for entry in guest.hostpci:
            wrong = _mapping_fault(facts, guest, entry) if entry.mapping else ""
            if wrong:
                yield _say(
                    guest,
                    "mapping",
                    Level.HARMS,
                    f"{_called(guest)}: mapping {entry.mapping} {wrong}, so the guest does not start.",
                    entry.key,
                    fix=_way_to_mapping(facts, guest, entry.mapping),
                )


def _way_to_mapping(facts: Facts, guest: Vm, name: str) -> Fix:
    """Where it is remembered which card the guest was given, the mapping can follow it."""
    if standing(facts, guest):
        return ask("Let the mapping follow its device.", f"pve-passthrough reassign --vm {guest.vmid}")
    if not any(one.name == name for one in facts.mappings):
        return ask("Make the mapping.", f"pve-passthrough mapping create {name} DEVICE")
    return ask("Write the present values into the mapping.", f"pve-passthrough mapping repair {name}")


def _mapping_fault(facts: Facts, guest: Vm, entry: HostPci) -> str:
    found = next((m for m in facts.mappings if m.kind == "pci" and m.name == entry.mapping), None)
    if found is None:
        return "" if facts.gap("mappings.pci") or facts.gap("mappings") else "does not exist"
    if not is_local(facts, guest):
        return ""
    return fault(replace(hardware_of(facts), node=guest.node), found)


def display(facts: Facts, request: Request) -> Iterator[Finding]:
    """Do the virtual display and the card get along?

    Why: With x-vga Proxmox switches the virtual display off by itself when none is set; an explicit `vga: std` stays
        beside the card and systems show their picture there. A 3D controller has no outputs and can never be the
        primary display. Without any virtual display there is no console for installing or for rescue.
    Look at: the lines `vga:` and `hostpciN:`.
    Fix: Card as the only display: x-vga=1 and no `vga:` line, once remote access works in the guest. Compute card:
        `vga: std` and no x-vga.
    Source: qemu-server PCI.pm, print_hostpci_devices; recorded exchanges with Proxmox VE 9.2.
    """
    for guest in guests(facts, request):
        claims = [entry for entry in guest.hostpci if entry.on("x-vga")]
        primary = [(entry, facts.device(entry.addresses[0]) if entry.addresses else None) for entry in claims]
        vga = guest.value("vga")
        kind = parse_options(vga or "", "type").get("type", "std")
        blind = [(entry, device) for entry, device in primary if device and device.subclass == OUTPUTS_NOT]
        if blind:
            yield _say(
                guest,
                "display",
                Level.HARMS,
                f"{_called(guest)} has {blind[0][1]} as its primary display, which has no outputs: it shows nothing.",
                blind[0][0].key,
                "vga",
                fix=show("Take x-vga out of the line."),
            )
        elif len(primary) > 1:
            yield _say(
                guest,
                "display",
                Level.NOTE,
                f"{_called(guest)} has {len(primary)} primary displays.",
                *(entry.key for entry, _ in primary),
            )
        elif primary and vga is not None and kind != "none":
            yield _say(
                guest,
                "display",
                Level.NOTE,
                f"{_called(guest)} has x-vga=1 and a virtual display ({kind}) beside it: the picture may appear there.",
                "vga",
                primary[0][0].key,
                fix=ask("Let Proxmox switch it off.", f"qm set {guest.vmid} --delete vga"),
            )
        elif primary and primary[0][0].options.get("rombar", "1").lower() in _FALSE:
            yield _say(
                guest,
                "display",
                Level.NOTE,
                f"{_called(guest)} has its card's ROM switched off: no picture before the system's driver loads.",
                primary[0][0].key,
                fix=show(f"Take rombar=0 out of {primary[0][0].key} unless the ROM hangs the guest."),
            )
        elif kind == "none" and vga is not None and not primary:
            yield _say(
                guest,
                "display",
                Level.NOTE,
                f"{_called(guest)} has no virtual display: without a picture from the card nobody can rescue it.",
                "vga",
                fix=show("Keep one until remote access works.", f"qm set {guest.vmid} --vga std"),
            )


def legacy_igd(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are the conditions of legacy graphics passthrough met?

    Why: legacy-igd=1 is checked at start only: display none, i440fx, ROM bar on, no x-vga and no mdev, and the host
        address xx:02.0. Anything else makes the start fail.
    Look at: the lines `vga:`, `machine:` and `hostpciN:`.
    Fix: Meet all conditions, or leave legacy-igd out.
    Source: qemu-server PCI.pm, legacy-igd; recorded exchanges with Proxmox VE 9.2.
    """
    for guest in guests(facts, request):
        legacy = [(key, options) for key, options in _entries(guest) if _on(options, "legacy-igd")]
        for key, options in legacy:
            fault = _legacy_fault(guest, options) or ("only one device can use it" if len(legacy) > 1 else "")
            if fault:
                yield _say(
                    guest,
                    "legacy-igd",
                    Level.HARMS,
                    f"{_called(guest)} does not start with legacy-igd=1: {fault}.",
                    key,
                    "vga",
                    fix=show("Meet all conditions, or leave legacy-igd out."),
                )


def _legacy_fault(guest: Vm, options: dict[str, str]) -> str:
    if guest.value("vga") != "none":
        return "vga must be none"
    if not _on(options, "rombar", "1"):
        return "rombar must be on"
    if _on(options, "x-vga") or "mdev" in options:
        return "it goes neither with x-vga nor with mdev"
    return "" if re.search(r":02(?:\.0)?$", options.get("host", "")) else "it works for the host's 00:02.0 only"


def onboot(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the guest start with the host before it was ever seen to work?

    Why: A start that takes the host's network or disk away, at every boot, before anybody can log in, makes a host
        that cannot be mended remotely.
    Look at: the line `onboot:`.
    Fix: A plan sets `onboot: 0`. When `pve-passthrough verify --vm ID` has seen the guest work with its device:
        `qm set ID --onboot 1`.
    Source: Proxmox VE administration guide, Automatic Start; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio.
    """
    if not request.addresses:
        return
    for guest in guests(facts, request):
        if guest.flag("onboot") and not assigned(guest, request):
            yield _say(
                guest,
                "onboot",
                Level.HARMS,
                f"{_called(guest)} starts with the host, and with its new device it was never seen to work.",
                "onboot",
                fix=ask(
                    f"A plan switches it off. Once a start is verified, back again: qm set {guest.vmid} --onboot 1",
                    up(facts, request),
                ),
            )


def comments(facts: Facts, request: Request) -> Iterator[Finding]:
    """Do the configuration's values carry comments or markup?

    Why: The file knows no comments behind a value: `balloon: 0  # off` is an invalid value, and Proxmox drops the
        line. Lines that begin with # become the guest's description. Text pasted from web pages brings tags along.
    Look at: `qm config ID` prints "unable to parse value".
    Fix: Remove what follows the value.
    Source: qemu-server QemuServer.pm, parse_vm_config; recorded exchanges with Proxmox VE 9.2.
    """
    free = ("description", "args", "name", "tags", "parent")
    for guest in guests(facts, request):
        dirty = [key for key, value in guest.config.items() if key not in free and re.search(r"\s#|<br\s*/?>", value)]
        if dirty:
            yield _say(
                guest,
                "comments",
                Level.HARMS,
                f"{_called(guest)} has text behind the value of {names(dirty)}: Proxmox drops such lines.",
                *dirty[:6],
                fix=show("Remove what follows the value."),
            )


def agent(facts: Facts, request: Request) -> Iterator[Finding]:
    """Can anybody look inside the guest?

    Why: Whether the device works inside the guest can only be proven from inside; that takes the guest agent.
    Look at: the line `agent:`; `qm agent ID ping`.
    Fix: `qm set ID --agent 1`, and install qemu-guest-agent in the guest.
    Source: Proxmox VE administration guide, QEMU Guest Agent.
    """
    if request.vmid is None:
        return
    for guest in guests(facts, request):
        options = parse_options(guest.value("agent") or "0", "enabled")
        if not _on(options, "enabled"):
            yield _say(
                guest,
                "agent",
                Level.NOTE,
                f"{_called(guest)} has no guest agent: what happens inside it cannot be verified.",
                "agent",
                fix=ask("Switch it on and install it in the guest.", f"qm set {guest.vmid} --agent 1"),
            )
