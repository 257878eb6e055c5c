"""Host -> Facts: everything that is known about a machine at one moment.

1. A probe only looks: it reads files and starts programs that change nothing.
2. It never raises for what it finds. What nobody could say is a gap, whatever the tree looks like.
3. A quick probe reads files and starts next to nothing; an inventory also reads every configuration space, which is
   slow and wakes sleeping devices; a deep one may open the initramfs and read the kernel's log as well.
   What a quicker one leaves out is None with a gap, never a guess.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import TypeVar

from ..host.base import Host
from ..model.facts import Boot, Cpu, Display, Facts, Firmware, Iommu, Kernel, Modules, Pve
from ..model.lifecycle import Lifecycle
from ..model.pci import Address
from .asking import Asking
from .assignments import probe_assignments, probe_hookscripts
from .boot import probe_boot, probe_spaces
from .disks import mounts
from .display import probe_display
from .dpkg import Packages
from .files import probe_files
from .iomem import probe_root_windows
from .lifecycle import probe_hook_files, probe_lifecycle
from .mediated import probe_mediated
from .names import Names
from .network import probe_bridges
from .pci import probe_pci
from .platform import probe_cpu, probe_firmware, probe_iommu, probe_kernel, probe_memory, probe_modules, probe_numa
from .pve import (
    probe_containers,
    probe_guests,
    probe_mappings,
    probe_pve,
    probe_rom_files,
    probe_storages,
)
from .usb import probe_usb
from .uses import Uses, probe_uses

__all__ = ["probe", "remembered_places", "usb_closely"]

_T = TypeVar("_T")

FAILED = "the probe failed:"
"""Begins the reason of a gap that is our own defect."""


def probe(
    host: Host,
    *,
    deep: bool = False,
    inventory: bool = False,
    pci_ids: bytes | None = None,
    named: frozenset[Address] = frozenset(),
) -> Facts:
    """Ask `host` everything. `pci_ids` is a list of PCI names for hosts without one of their own; of the functions
    `named` even a quick probe reads the configuration space."""
    glance = not (deep or inventory)
    ask = Asking(host)

    def part(about: str, look: Callable[[], _T]) -> _T | None:
        return _part(ask, about, look)

    packages = part("packages", lambda: Packages.load(ask)) or Packages(None)
    kernel = part("kernel", lambda: probe_kernel(ask)) or Kernel()
    firmware = part("firmware", lambda: probe_firmware(ask)) or Firmware()
    devices = part("pci", lambda: probe_pci(ask, Names.load(ask, pci_ids), glance=glance, named=named)) or ()
    usb = part("usb", lambda: probe_usb(ask, closely=not glance)) or ()
    mounted = part("mounts", lambda: mounts(ask))
    boot = part("boot", lambda: probe_boot(ask, kernel, firmware)) or Boot()
    display = part("display", lambda: probe_display(ask, devices, kernel)) or Display()
    pve = part("pve", lambda: probe_pve(ask, packages, deep)) or Pve()
    mappings = part("mappings", lambda: probe_mappings(ask)) or ()
    storages = part("storages", lambda: probe_storages(ask))
    known = tuple(device.address for device in devices)
    guests = part("guests", lambda: probe_guests(ask, pve, mappings, known))
    uses = part("uses", lambda: probe_uses(ask, devices, usb, display, boot, pve, mounted, guests or ())) or Uses()
    memory = part("memory", lambda: probe_memory(ask)) or (None, None)
    points = frozenset(mount.point for mount in mounted or ())
    facts = Facts(
        host=host.name,
        devices=devices,
        usb=usb,
        iommu=part("iommu", lambda: probe_iommu(ask, kernel, firmware, deep)) or Iommu(),
        cpu=part("cpu", lambda: probe_cpu(ask)) or Cpu(),
        firmware=firmware,
        kernel=kernel,
        modules=part("modules", lambda: probe_modules(ask, kernel, packages, deep)) or Modules(),
        boot=boot,
        display=display,
        pve=pve,
        guests=guests,
        mappings=mappings,
        lifecycle=part("pve.backup", lambda: probe_lifecycle(ask, guests or (), pve.node, deep=deep)) or Lifecycle(),
        hook_files=part("guests.hookscript", lambda: probe_hook_files(ask, guests or (), storages, pve.node)) or {},
        mediated=part("mediated", lambda: probe_mediated(ask, devices, guests, not glance)),
        assignments=part("assignments", lambda: probe_assignments(ask)) or (),
        storages=storages,
        rom_files=part("rom_files", lambda: probe_rom_files(ask, guests or (), pve.node)) or {},
        uses=uses.uses,
        usb_uses=uses.usb,
        uses_known=uses.known,
        spaces=part("spaces", lambda: probe_spaces(ask, boot, points)) or (),
        containers=part("containers", lambda: probe_containers(ask, pve)),
        bridges=part("bridges", lambda: probe_bridges(ask)),
        memory_total=memory[0],
        memory_free=memory[1],
        root_windows=part("root_windows", lambda: probe_root_windows(ask)) if deep else None,
        numa_nodes=part("numa", lambda: probe_numa(ask)),
        files={
            **(part("files", lambda: probe_files(ask)) or {}),
            **((part("files", lambda: probe_hookscripts(ask, storages or ())) or {}) if deep else {}),
        },
    )
    if deep:
        facts = _deeper(ask, facts)
    return replace(facts, gaps=ask.gaps)


def _deeper(ask: Asking, facts: Facts) -> Facts:
    """What a deep look alone asks; its modules are loaded then, for a glance has no time for them."""
    from .attached import probe_attached
    from .containers import probe_given_nodes, probe_nodes, probe_own_containers
    from .sriov import probe_sriov

    return replace(
        facts,
        attached=_part(ask, "attached", lambda: probe_attached(ask)),
        own_containers=_part(ask, "own_containers", lambda: probe_own_containers(ask, facts.pve)),
        dev_nodes=_part(ask, "dev_nodes", lambda: probe_nodes(ask)),
        given_nodes=_part(ask, "assignments", lambda: probe_given_nodes(ask)) or (),
        sriov=_part(ask, "sriov", lambda: probe_sriov(ask, facts.devices)),
    )


def remembered_places(host: Host, vmid: int) -> frozenset[Address]:
    """Addresses of all that kept runs have given to this guest."""
    given = (one for one in probe_assignments(Asking(host)) if one.vmid == vmid)
    return frozenset(identity.address for one in given for identity in one.identities)


def usb_closely(host: Host, facts: Facts) -> Facts:
    """The facts of a glance, with a closer look at the USB devices and at nothing else."""
    ask = Asking(host)
    usb = _part(ask, "usb", lambda: probe_usb(ask, closely=True))
    said = {(gap.about, gap.reason) for gap in facts.gaps}
    more = tuple(gap for gap in ask.gaps if (gap.about, gap.reason) not in said)
    return facts if usb is None else replace(facts, usb=usb, gaps=(*facts.gaps, *more))


def _part(ask: Asking, about: str, look: Callable[[], _T]) -> _T | None:
    """One part of the facts. A defect of ours that a strange tree brings out costs this part alone, and is said."""
    try:
        return look()
    except Exception as error:
        ask.gap(about, f"{FAILED} {type(error).__name__}: {error}")
        return None
