"""Facts to findings: one function per question, one literal registry, nothing that reads the machine.

1. `judge` asks every rule and orders the answers, worst first; the same facts give the same findings.
2. Without devices in the request, the rules about devices speak about every display device, and without a guest those
   about guests speak about every guest with devices; what they find is a note then: nobody asked for these.
3. `verdict` folds findings into one word. A hazard that nobody accepted blocks.
4. A rule's docstring is its page.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level, Verdict
from . import (
    bootconfig,
    compute,
    containers,
    devices,
    drift,
    drivers,
    gpu,
    groups,
    guests,
    handover,
    hazards,
    lifecycle,
    mappings,
    memory,
    nics,
    performance,
    platform,
    resets,
    roms,
    sriov,
    storage,
    usb,
    vgpu,
)
from .subject import Request, Rule

__all__ = ["RULES", "Request", "Rule", "judge", "page", "page_ids", "verdict"]

RULES: tuple[Rule, ...] = (
    Rule("platform.proxmox", platform.proxmox, "host", decisive=True),
    Rule("platform.iommu", platform.iommu, "host", decisive=True),
    Rule("platform.interrupt-remapping", platform.interrupt_remapping, "host"),
    Rule("platform.unsafe-interrupts", platform.unsafe_interrupts, "host"),
    Rule("platform.kernel-build", platform.kernel_build, "device"),
    Rule("platform.quorum", platform.quorum, "host"),
    Rule("platform.config-writable", platform.config_writable, "host"),
    Rule("platform.boot-space", platform.boot_space, "host"),
    Rule("platform.address-width", memory.address_width, "host"),
    Rule("platform.secure-boot", platform.secure_boot, "host"),
    Rule("platform.unplaced-bars", memory.unplaced, "device"),
    Rule("platform.reserved-region", devices.reserved_region, "device"),
    Rule("drivers.present", drivers.present, "device", decisive=True),
    Rule("groups.group", groups.group, "device", decisive=True),
    Rule("hazards.root-disk", hazards.root_disk, "device"),
    Rule("hazards.boot-disk", hazards.boot_disk, "device"),
    Rule("hazards.pool-disk", hazards.pool_disk, "device"),
    Rule("hazards.management-net", hazards.management_net, "device"),
    Rule("hazards.cluster-net", hazards.cluster_net, "device"),
    Rule("hazards.only-display", hazards.only_display, "device"),
    Rule("hazards.guest-conflict", hazards.guest_conflict, "device"),
    Rule("hazards.boot-usb", hazards.boot_usb, "device"),
    Rule("hazards.data-disk", hazards.data_disk, "device"),
    Rule("hazards.bridge-net", hazards.bridge_net, "device"),
    Rule("hazards.storage-net", hazards.storage_net, "device"),
    Rule("hazards.console", hazards.console, "device"),
    Rule("hazards.keyboard", hazards.keyboard, "device"),
    Rule("hazards.unknown-uses", hazards.unknown_uses, "device", decisive=True),
    Rule("groups.shared", groups.shared, "device"),
    Rule("groups.alone", groups.alone, "device"),
    Rule("groups.companions", groups.companion, "device"),
    Rule("groups.nvswitch", compute.nvswitch, "device"),
    Rule("groups.acs-override", groups.acs_override, "host"),
    Rule("drivers.holder", drivers.holder, "device"),
    Rule("drivers.after-boot", drivers.after_boot, "device"),
    Rule("drivers.identical-ids", drivers.identical_ids, "device"),
    Rule("drivers.sriov-pf", drivers.sriov, "device"),
    Rule("sriov.conf-broken", sriov.conf_broken, "host"),
    Rule("sriov.conf-stale", sriov.conf_stale, "host"),
    Rule("sriov.not-ready", sriov.not_ready, "host"),
    Rule("sriov.count-differs", sriov.count_differs, "host"),
    Rule("sriov.pf-claimed", sriov.pf_claimed, "host"),
    Rule("sriov.not-persistent", sriov.not_persistent, "host"),
    Rule("sriov.autoprobe-off", sriov.autoprobe_off, "device"),
    Rule("sriov.vf-without-mac", sriov.without_mac, "device"),
    Rule("sriov.no-room", sriov.no_room, "device"),
    Rule("drivers.reset", drivers.reset, "device"),
    Rule("drivers.d3cold", drivers.d3cold, "device"),
    Rule("resets.bus-siblings", resets.bus_siblings, "device"),
    Rule("resets.switched-off", resets.switched_off, "device"),
    Rule("resets.not-in-force", resets.not_in_force, "device"),
    Rule("resets.never-ends", resets.never_ends, "device"),
    Rule("resets.known", resets.known, "device"),
    Rule("drivers.link", drivers.link, "device"),
    Rule("drivers.conventional-pci", drivers.conventional, "device"),
    Rule("gpu.reset-bug", gpu.reset_bug, "device"),
    Rule("gpu.vendor-reset", gpu.vendor_reset, "host"),
    Rule("gpu.apu", gpu.apu, "device"),
    Rule("gpu.framebuffer", gpu.framebuffer, "device"),
    Rule("gpu.no-outputs", gpu.no_outputs, "device"),
    Rule("gpu.data-centre", compute.data_centre, "device"),
    Rule("gpu.intel-graphics", gpu.intel_graphics, "device"),
    Rule("gpu.option-rom", roms.option_rom, "device"),
    Rule("gpu.resizable-bar", memory.resizable, "device"),
    Rule("devices.denylist", devices.denylist, "device"),
    Rule("devices.msix-layout", devices.msix_layout, "device"),
    Rule("devices.option-rom", devices.option_rom, "device"),
    Rule("devices.accelerator", devices.accelerator, "device"),
    Rule("devices.virtio-serves", devices.virtio_serves, "device"),
    Rule("nics.name-in-config", nics.name_in_config, "device"),
    Rule("nics.names-may-change", nics.names_may_change, "device"),
    Rule("nics.no-intx", nics.no_intx, "device"),
    Rule("storage.would-import", storage.would_import, "device"),
    Rule("storage.asks", storage.storage_asks, "device"),
    Rule("vgpu.driver", vgpu.driver, "device"),
    Rule("vgpu.mdev-on-vfio", vgpu.mdev_on_vfio, "device"),
    Rule("vgpu.gvt-generation", vgpu.gvt_generation, "device"),
    Rule("vgpu.mig", vgpu.mig, "device"),
    Rule("vgpu.licence", vgpu.licence, "device"),
    Rule("vgpu.whole-and-share", vgpu.whole_and_share, "guest"),
    Rule("vgpu.type-gone", vgpu.type_gone, "guest"),
    Rule("vgpu.instances", vgpu.instances, "guest"),
    Rule("vgpu.mapping-mdev", vgpu.mapping_mdev, "guest"),
    Rule("lxc.also-in-container", containers.also_in_container, "device"),
    Rule("lxc.better", containers.better, "device"),
    Rule("lxc.absent-node", containers.absent_node, "host"),
    Rule("lxc.node-renumbered", containers.node_renumbered, "host"),
    Rule("lxc.raw-lines", containers.raw_lines, "host"),
    Rule("guests.known", guests.known, "guest", decisive=True),
    Rule("guests.locked", guests.locked, "guest"),
    Rule("guests.template", guests.template, "guest"),
    Rule("guests.running", guests.running, "guest"),
    Rule("guests.assigned", guests.not_assigned, "guest"),
    Rule("guests.hostpci", guests.hostpci, "guest"),
    Rule("guests.rom-file", roms.rom_file, "guest"),
    Rule("guests.twice", guests.twice, "guest"),
    Rule("guests.mapping", guests.mapping, "guest"),
    Rule("mappings.stale", mappings.stale, "guest"),
    Rule("mappings.lies", mappings.lies, "guest"),
    Rule("mappings.other-node", mappings.other_node, "guest"),
    Rule("mappings.pool-mixed", mappings.pool_mixed, "guest"),
    Rule("mappings.ambiguous-usb", mappings.ambiguous_usb, "guest"),
    Rule("mappings.unused", mappings.unused, "host"),
    Rule("guests.machine", guests.machine, "guest"),
    Rule("guests.firmware", guests.firmware, "guest"),
    Rule("guests.efi-disk", guests.efi_disk, "guest"),
    Rule("guests.cpu", guests.cpu, "guest"),
    Rule("guests.cpu-invalid", guests.cpu_invalid, "guest"),
    Rule("guests.args-cpu", guests.args_cpu, "guest"),
    Rule("guests.hidden", guests.hidden, "guest"),
    Rule("guests.window", memory.window, "guest"),
    Rule("guests.balloon", guests.balloon, "guest"),
    Rule("guests.memory", guests.memory, "guest"),
    Rule("guests.hugepages", guests.hugepages, "guest"),
    Rule("guests.bound-elsewhere", performance.bound_elsewhere, "guest"),
    Rule("guests.display", guests.display, "guest"),
    Rule("guests.legacy-igd", guests.legacy_igd, "guest"),
    Rule("guests.onboot", guests.onboot, "guest"),
    Rule("guests.ha", lifecycle.ha, "guest"),
    Rule("guests.backup", lifecycle.backup, "guest"),
    Rule("guests.snapshots", lifecycle.snapshots, "guest"),
    Rule("lifecycle.hook-missing", lifecycle.hook_missing, "guest"),
    Rule("lifecycle.hook-elsewhere", lifecycle.hook_elsewhere, "guest"),
    Rule("lifecycle.hook-borrowed", lifecycle.hook_borrowed, "guest"),
    Rule("lifecycle.ha-nodes", lifecycle.ha_nodes, "guest"),
    Rule("lifecycle.ha-shutdown", lifecycle.ha_shutdown, "guest"),
    Rule("lifecycle.replication", lifecycle.replication, "guest"),
    Rule("lifecycle.snapshot-devices", lifecycle.snapshot_devices, "guest"),
    Rule("guests.comments", guests.comments, "guest"),
    Rule("guests.agent", guests.agent, "guest"),
    Rule("drift.moved", drift.moved, "guest"),
    Rule("drift.gone", drift.gone, "guest"),
    Rule("drift.other-card", drift.other_card, "guest"),
    Rule("drift.group", drift.group, "guest"),
    Rule("drift.remembered", drift.remembered, "guest"),
    Rule("drift.guarded", drift.guarded, "guest"),
    Rule("usb.controller", usb.controller, "device"),
    Rule("usb.host-uses", usb.host_uses, "device"),
    Rule("usb.two-guests", usb.two_guests, "guest"),
    Rule("usb.mapping", usb.mapping, "guest"),
    Rule("usb.limit", usb.limit, "guest"),
    Rule("usb.port-moved", usb.port_moved, "guest"),
    Rule("usb.absent", usb.absent, "guest"),
    Rule("usb.twins", usb.twins, "guest"),
    Rule("usb.re-enumerates", usb.re_enumerates, "guest"),
    Rule("usb.serial-path", usb.serial_path, "guest"),
    Rule("handover.lent", handover.lent, "guest"),
    Rule("handover.no-hook", handover.no_hook, "guest"),
    Rule("handover.stale", handover.stale, "guest"),
    Rule("bootconfig.loader", bootconfig.loader, "host"),
    Rule("bootconfig.readable", bootconfig.readable, "host"),
    Rule("bootconfig.broken-quote", bootconfig.broken_quote, "host"),
    Rule("bootconfig.lost-assignment", bootconfig.lost_assignment, "host"),
    Rule("bootconfig.wrong-file", bootconfig.wrong_file, "host"),
    Rule("bootconfig.no-root", bootconfig.no_root, "host"),
    Rule("bootconfig.not-running", bootconfig.not_running, "host"),
    Rule("bootconfig.stale-initramfs", bootconfig.stale_initramfs, "host"),
    Rule("bootconfig.needless", bootconfig.needless, "host"),
    Rule("bootconfig.prose", bootconfig.prose, "host"),
    Rule("bootconfig.no-effect", bootconfig.no_effect, "host"),
    Rule("bootconfig.dark-console", bootconfig.dark_console, "host"),
    Rule("bootconfig.duplicates", bootconfig.duplicates, "host"),
    Rule("bootconfig.vfio-ids-host", bootconfig.vfio_ids_host, "host"),
    Rule("bootconfig.vfio-ids", bootconfig.vfio_ids, "host"),
    Rule("bootconfig.vfio-ids-stale", bootconfig.vfio_ids_stale, "host"),
    Rule("bootconfig.vfio-options", bootconfig.vfio_options, "host"),
    Rule("bootconfig.disable-vga", bootconfig.disable_vga, "guest"),
    Rule("bootconfig.blacklist-host", bootconfig.blacklist_host, "host"),
    Rule("bootconfig.blacklist-glob", bootconfig.blacklist_glob, "host"),
    Rule("bootconfig.misspelt", bootconfig.misspelt, "host"),
    Rule("bootconfig.softdep", bootconfig.softdep, "host"),
    Rule("bootconfig.modprobe-comments", bootconfig.modprobe_comments, "host"),
    Rule("bootconfig.package-file", bootconfig.package_file, "host"),
    Rule("bootconfig.virqfd", bootconfig.virqfd, "host"),
    Rule("bootconfig.module-list", bootconfig.module_list, "host"),
)

_FOR_USB = frozenset(
    {
        "platform.proxmox",
        "platform.quorum",
        "platform.config-writable",
        "guests.known",
        "guests.locked",
        "guests.template",
    }
)
"""Rules that concern a request for single USB devices alone, besides those of `usb`."""
_ORDER = {level: number for number, level in enumerate(Level)}
_DECISIVE = frozenset(rule.id for rule in RULES if rule.decisive)


def judge(facts: Facts, request: Request) -> tuple[Finding, ...]:
    """All findings, worst first; among equals in the order of the registry, then of the subjects."""
    found: dict[Finding, int] = {}
    for number, rule in enumerate(RULES):
        if not _concerns(rule, request):
            continue
        for finding in rule.function(facts, _seen_by(rule, request)):
            found.setdefault(_toned_down(finding, rule, request), number)
    return tuple(sorted(found, key=lambda one: (_ORDER[one.level], found[one], one.subject, one.message)))


def _concerns(rule: Rule, request: Request) -> bool:
    """Single USB devices need no IOMMU, no group and no driver of ours: QEMU opens them through usbfs."""
    return not request.usb or bool(request.addresses) or rule.id in _FOR_USB or rule.id.startswith("usb.")


def _seen_by(rule: Rule, request: Request) -> Request:
    """A device that is shared leaves nobody: to every other rule nothing is asked about it."""
    return replace(request, addresses=()) if request.share and not rule.id.startswith("vgpu.") else request


def _toned_down(finding: Finding, rule: Rule, request: Request) -> Finding:
    """A note, where nobody asked for this device or guest."""
    asked = {"host": True, "device": request != Request(), "guest": request.vmid is not None}[rule.needs]
    if asked or finding.level not in (Level.BLOCKS, Level.HARMS):
        return finding
    return replace(finding, level=Level.NOTE)


def verdict(findings: Iterable[Finding]) -> Verdict:
    """One word.

    blocked          something blocks, or a hazard stands that nobody accepted (leave accepted findings out)
    unknown          a question has no answer without which nobody can say
    changes-needed   something harms, and we or a person at this keyboard can mend it
    ready            none of these
    """
    kept = tuple(findings)
    serious = [finding for finding in kept if finding.level in (Level.BLOCKS, Level.HARMS)]
    if any(finding.level is Level.BLOCKS or finding.hazard for finding in serious):
        return Verdict.BLOCKED
    if any(finding.level is Level.UNKNOWN and finding.rule in _DECISIVE for finding in kept):
        return Verdict.UNKNOWN
    if any(finding.actor is Actor.US for finding in serious):
        return Verdict.CHANGES_NEEDED
    return Verdict.READY


def page(rule_id: str) -> str | None:
    """The rule's published page as plain text, None when there is no such rule."""
    text = next((rule.function.__doc__ for rule in RULES if rule.id == rule_id), None)
    return None if text is None else "\n".join(_unindented(text)) + "\n"


def page_ids() -> tuple[str, ...]:
    """Every rule that has a page, in the order of the registry."""
    return tuple(rule.id for rule in RULES)


def _unindented(text: str) -> Iterator[str]:
    for line in text.strip().split("\n"):
        yield (line.removeprefix("    ")).rstrip()
