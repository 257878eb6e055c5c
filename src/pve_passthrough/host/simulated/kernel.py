"""The running kernel as modprobe sees it: which modules exist, which are in, and what inserting one does.

1. Works on the tree at once (a `modprobe` typed now); what happens during boot is computed in `boot`.
2. /proc/modules and /sys/module are kept in step with the drivers.
"""

from __future__ import annotations

from typing import Any

from . import dkms, modprobe
from .world import World

PARAMETERS: dict[str, dict[str, str]] = {
    "vfio_iommu_type1": {"allow_unsafe_interrupts": "N", "disable_hugepages": "N", "dma_entry_limit": "65535"},
    "vfio_pci": {"ids": "", "disable_vga": "N", "disable_idle_d3": "N", "nointxmask": "N", "disable_denylist": "N"},
    "kvm": {"ignore_msrs": "N", "report_ignored_msrs": "Y"},
    "kvm_intel": {"nested": "Y"},
    "kvm_amd": {"nested": "1"},
}
"""Parameters that sysfs shows, with their defaults (vfio_iommu_type1.c, vfio_pci.c, arch/x86/kvm)."""

_SWITCH = {"1": "Y", "y": "Y", "yes": "Y", "on": "Y", "0": "N", "n": "N", "no": "N", "off": "N"}


def known_modules(machine: dict[str, Any]) -> frozenset[str]:
    """Every module that lies in /lib/modules of this machine."""
    found = set(modprobe.ALWAYS) | set(modprobe.DEPENDS) | set(machine.get("modules", ()))
    for needed in modprobe.DEPENDS.values():
        found.update(needed)
    for natural in machine.get("natural", {}).values():
        for entry in (natural, *natural.get("others", ())):
            if entry.get("module"):
                found.add(modprobe.plain(entry["module"]))
    return frozenset(found) - frozenset(machine.get("absent_modules", ()))


def drivers_of(machine: dict[str, Any]) -> dict[str, str]:
    """{module: the PCI driver it brings}."""
    found = dict(modprobe.DRIVERS)
    for natural in machine.get("natural", {}).values():
        for entry in (natural, *natural.get("others", ())):
            if entry.get("module"):
                found[modprobe.plain(entry["module"])] = entry["driver"]
    return found


def loaded_modules(world: World) -> list[str]:
    """Names in /proc/modules, oldest first."""
    lines = (world.text("/proc/modules") or "").splitlines()
    return [line.split()[0] for line in reversed(lines) if line.split()]


def list_modules(world: World, names: list[str]) -> None:
    """/proc/modules, newest first as the kernel lists them; sizes and addresses are not simulated."""
    world.put("/proc/modules", "".join(f"{name} 16384 0 - Live 0x0000000000000000\n" for name in reversed(names)))


def show_parameters(world: World, module: str, options: str) -> None:
    """/sys/module/NAME/parameters for the few modules whose parameters matter here."""
    defaults = PARAMETERS.get(module)
    if defaults is None:
        return
    values = dict(defaults)
    for word in options.split():
        key, equals, text = word.partition("=")
        if modprobe.plain(key) in values:
            switch = values[modprobe.plain(key)] in ("Y", "N")
            values[modprobe.plain(key)] = (
                _SWITCH.get(text.lower(), text) if switch and equals else text if equals else "Y"
            )
    for key, text in values.items():
        world.put(f"/sys/module/{module}/parameters/{key}", text + "\n")


def running_loader(world: World) -> modprobe.Loader:
    """modprobe on the running system."""
    machine = world.machine()
    drivers = drivers_of(machine)
    config = modprobe.parse(modprobe.config_files(world).values(), world.text("/proc/cmdline") or "")

    def insert(module: str, options: str) -> None:
        show_parameters(world, module, options)
        if module in drivers:
            world.load_driver(drivers[module], modprobe.vfio_ids(options) if module == "vfio_pci" else ())

    known = known_modules(machine) - dkms.refused(world)
    return modprobe.Loader(config, known, loaded_modules(world), insert)
