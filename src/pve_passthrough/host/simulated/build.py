"""Building a simulated machine: from a description, or from any host that answers.

1. Never into a directory that holds something already; never a link followed out of the source.
2. Files are laid down as a freshly installed Proxmox host has them; drivers, groups, /proc/cmdline and the boot
   loader's files are not laid down but follow from refreshing and switching on, as on a real machine.
3. What a source could not tell and the builder made up is listed in `machine.json` under `invented`.
"""

from __future__ import annotations

import os
from typing import Any

from ...errors import Exit, Failure
from . import boot, etc, initramfs, loaders, mediated, sysfs, zfs
from .spec import MachineSpec, PciSpec
from .world import World


def create(directory: str, seed: str | MachineSpec) -> World:
    """Make the machine in an empty or new directory and switch it on. Raises Failure."""
    spec = seed if isinstance(seed, MachineSpec) else _seed(seed)
    world = empty_world(directory)
    world.save_machine(_machine(spec))
    sysfs.lay_down(world, spec)
    etc.lay_down(world, spec)
    for path, text in spec.files.items():
        world.put(path, text)
    zfs.write_cache(world, spec.pools) if spec.pools else None
    mediated.lay_down(world, spec.mediated)
    first_boot(world)
    return world


def empty_world(directory: str) -> World:
    if os.path.lexists(directory) and not (os.path.isdir(directory) and not os.listdir(directory)):
        raise Failure(
            "sim.not-empty",
            f"{directory} exists and is not an empty directory; nothing was written",
            hint="name a directory that does not exist yet",
            code=Exit.USAGE,
        )
    try:
        os.makedirs(directory, exist_ok=True)
    except OSError as error:
        raise Failure("sim.no-directory", f"{directory} could not be made: {error.strerror}") from error
    return World(directory)


def first_boot(world: World) -> None:
    """Refresh everything that is derived from files, then switch on."""
    for release in initramfs.kernels(world):
        initramfs.build(world, release)
    done = loaders.refresh_all(world)
    if not done.ok:
        raise Failure("sim.no-boot", "the new machine's boot loader could not be set up", done.stdout, done.stderr)
    boot.power_on(world)


def _seed(name: str) -> MachineSpec:
    from .container_seeds import CONTAINER_SEEDS
    from .graphics_seeds import GRAPHICS_SEEDS
    from .performance_seeds import PERFORMANCE_SEEDS
    from .reset_seeds import RESET_SEEDS
    from .seeds import SEEDS
    from .sriov_seeds import SRIOV_SEEDS
    from .storage_seeds import STORAGE_SEEDS
    from .usb_seeds import USB_SEEDS
    from .vgpu_seeds import VGPU_SEEDS

    machines = SEEDS | GRAPHICS_SEEDS | STORAGE_SEEDS | RESET_SEEDS
    machines |= SRIOV_SEEDS | CONTAINER_SEEDS | VGPU_SEEDS | USB_SEEDS | PERFORMANCE_SEEDS
    if name not in machines:
        raise Failure(
            "sim.unknown-seed",
            f"there is no built-in machine called {name}",
            hint=f"built in are: {', '.join(machines)}",
            code=Exit.USAGE,
        )
    return machines[name]


def _machine(spec: MachineSpec) -> dict[str, Any]:
    """`sim/machine.json`: what no file of a real machine would show."""
    natural = {}
    for device in spec.devices:
        if device.driver:
            natural[device.address] = {
                "driver": device.driver,
                "module": device.module or None,
                "others": [{"driver": driver, "module": module} for driver, module in device.others],
            }
    holders = {part.rstrip("0123456789") for part in spec.root_partitions}
    return {
        "name": spec.name,
        "natural": natural,
        "groups": {device.address: device.group for device in spec.devices},
        "groups_acs": {device.address: device.acs_group for device in spec.devices if device.acs_group is not None},
        "early": sorted({device.module for device in spec.devices if device.early and device.module}),
        "cpu": {"vendor": spec.cpu_vendor},
        "firmware": {"uefi": spec.uefi, "secure_boot": spec.secure_boot, "iommu": True},
        "sriov": {device.address: _sriov(spec, device) for device in spec.devices if device.sriov},
        "esps": [{"uuid": esp.uuid, "grub": esp.grub} for esp in spec.esps],
        "boot_order": [esp.uuid for esp in spec.esps] or ["disk"],
        "root": "root=ZFS=" if spec.root.value == "zfs" else "root=/dev/mapper/pve-root",
        "root_devices": sorted({disk.controller for disk in spec.disks if disk.name.rstrip("p") in _disks_of(holders)}),
        "screens": {address: list(screen) for address, screen in spec.screens.items()},
        "classes": sysfs.class_links(spec),
        "zpool": {"rpool": list(spec.root_partitions)} if spec.root.value == "zfs" else {},
        "pools": {name: list(members) for name, members in spec.pools.items()},
        "contents": {name: list(found) for name, found in spec.contents.items()},
        "reserved": {str(group): list(lines) for group, lines in spec.reserved.items()},
        "pve": dict(zip(("version", "repoid", "qemu_server"), spec.pve, strict=True)),
        "guests": {str(vmid): _inside(spec) | spec.insides.get(vmid, {}) for vmid in spec.guests},
        "containers": spec.containers,
        "rooms": {},
        "failing": [],
        "faults": list(spec.faults),
        "invented": [],
        "mediated": spec.mediated,
    }


def _sriov(spec: MachineSpec, device: PciSpec) -> dict[str, Any]:
    """What no attribute shows of its virtual functions; alone in their groups where the port above has ACS."""
    above = next((one for one in spec.devices if one.address == device.parent), None)
    kind = device.sriov
    assert kind is not None
    return {
        "driver": kind.driver,
        "module": kind.module or None,
        "names": kind.names,
        "callback": kind.callback,
        "alone": above is None or above.acs,
    }


def _inside(spec: MachineSpec) -> dict[str, Any]:
    """What runs in a built-in guest: a Linux with an agent, whose drivers are the ones that the host would use."""
    drivers = {device.ids: device.driver for device in spec.devices if device.driver}
    return {"agent": True, "os": "linux", "drivers": drivers}


def _disks_of(holders: set[str]) -> set[str]:
    """`nvme0n1p` without its partition's `p` is the disk."""
    return {holder.rstrip("p") if holder.startswith("nvme") else holder for holder in holders}
