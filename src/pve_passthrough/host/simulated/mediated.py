"""Shares of devices, as their drivers make them: mediated devices, and the types of NVIDIA's virtual functions.

1. `machine.json` lists under `mediated` what a function's driver offers once it holds the function:
   {address: {"law", "driver", …}}. What is listed there appears and goes with the driver; a tree that has types of its
   own keeps them, and only the type that was taken gets fewer.
2. Attributes follow Documentation/ABI/testing/sysfs-bus-vfio-mdev and drivers/vfio/mdev/mdev_sysfs.c.
3. Three laws: `gvt` (kernel, drivers/gpu/drm/i915/gvt/vgpu.c), `nvidia-mdev` and `nvidia-vf` (NVIDIA's vGPU guide:
   without the mixed mode all shares of one card have as much memory; NVIDIA's vgpu-vfio module: the two attributes).
4. Instances and types are volatile: a start begins without any.
"""

from __future__ import annotations

import errno
import os
import posixpath
import re
import shutil
from typing import Any

from .world import DEVICES, SysfsError, World

BUS = "/sys/class/mdev_bus"
INSTANCES = "/sys/bus/mdev/devices"
HEADLINE = "ID    : vGPU Name\n"

_HOST_LOW, _HOST_HIGH = 128, 384
"""MiB of the graphics address space that the host keeps (drivers/gpu/drm/i915/gvt/gvt.h)."""
_GTT = 4096
_GVT = ((64, 384, "8", "1024x768"), (128, 512, "4", "1920x1200"), (256, 1024, "2", "1920x1200"),
        (512, 2048, "1", "1920x1200"))  # fmt: skip
"""Low and high memory in MiB, name and resolution (intel_vgpu_configs); the weight is 16 by the name."""
_FENCES = 4

Law = dict[str, Any]


def concerns(path: str) -> bool:
    """Whether a write to this attribute makes, ends or chooses a share."""
    return ("/mdev_supported_types/" in path and path.endswith("/create")) or _is_remove(path) or _is_choice(path)


def _is_remove(path: str) -> bool:
    return re.search(r"/[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}/remove$", path) is not None


def _is_choice(path: str) -> bool:
    return path.endswith("/nvidia/current_vgpu_type")


def write(world: World, path: str, value: str) -> None:
    """write(2) to one of these attributes. Raises SysfsError."""
    if _is_choice(path):
        _choose(world, path, value)
    elif _is_remove(path):
        _remove(world, path.rpartition("/")[0])
    else:
        _create(world, path, value)


UNIT = "pve-nvidia-sriov@ALL.service"
_WANTED = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"
_TEMPLATE = "/usr/lib/systemd/system/pve-nvidia-sriov@.service"


def lay_down(world: World, laws: dict[str, Law]) -> None:
    """The unit that makes NVIDIA's virtual functions at boot, enabled where a law says so."""
    if any(law["law"] == "nvidia-vf" for law in laws.values()):
        world.put(_TEMPLATE, "[Service]\nType=oneshot\n\n[Install]\nWantedBy=multi-user.target\n")
    if any(law.get("unit") for law in laws.values()):
        world.put_link(_WANTED, _TEMPLATE)


def make_functions(world: World) -> None:
    """What the unit does (NVIDIA's sriov-manage -e ALL): as many as the card can have."""
    laws: dict[str, Law] = world.machine().get("mediated", {})
    for card in dict.fromkeys(law["card"] for law in laws.values() if "card" in law):
        if world.driver_of(card) == "nvidia" and world.attribute(card, "sriov_numvfs") == "0":
            world.sysfs(f"{DEVICES}/{card}/sriov_numvfs", world.attribute(card, "sriov_totalvfs") or "0")


# -- what a driver offers ------------------------------------------------------------------------


def after_boot(world: World) -> None:
    """Every function offers what its driver offers, and no share exists."""
    laws: dict[str, Law] = world.machine().get("mediated", {})
    for name in world.names(INSTANCES):
        world.put_link(f"{INSTANCES}/{name}", None)
    for address in laws:
        _withdraw(world, address)
    for address in laws:
        settle(world, address)
    if world.exists(_WANTED):
        make_functions(world)


def settle(world: World, address: str) -> None:
    """The function's driver has come, gone or changed: so do its types."""
    law = world.machine().get("mediated", {}).get(address)
    if law is None:
        return
    offered = world.driver_of(address) == law["driver"] and _switched_on(world, law)
    home = world.device_directory(address)
    shown = world.exists(f"{home}/mdev_supported_types") or world.exists(f"{home}/nvidia")
    if shown and not offered:
        _withdraw(world, address)
    if offered and not shown:
        world.put(f"{home}/nvidia/current_vgpu_type", "0\n") if law["law"] == "nvidia-vf" else _offer(world, home, law)
    if offered:
        _count(world, address, law)


def _switched_on(world: World, law: Law) -> bool:
    """The module beside the driver that shares it, and the driver's own switch, where there are such."""
    loaded = {line.split()[0] for line in (world.text("/proc/modules") or "").splitlines() if line}
    return law.get("module", "") in (loaded | {""}) and law.get("argument", "") in _switches(world)


def _switches(world: World) -> set[str]:
    """Options of modules from the command line and from modprobe's files, as `i915.enable_gvt=1`."""
    from . import modprobe

    line = world.text("/proc/cmdline") or ""
    config = modprobe.parse(modprobe.config_files(world).values(), line)
    options = {f"{module}.{word}" for module, text in config.options for word in text.split()}
    return options | set(line.split()) | {""}


def _offer(world: World, home: str, law: Law) -> None:
    for kind in _types(law):
        place = f"{home}/mdev_supported_types/{kind['id']}"
        world.put(f"{place}/create", "", 0o200)
        world.put(f"{place}/available_instances", "0\n")
        world.put(f"{place}/device_api", "vfio-pci\n")
        world.put(f"{place}/name", f"{kind['name']}\n")
        world.put(f"{place}/description", kind["description"])
        world.make_dir(f"{place}/devices")
    world.put_link(f"{BUS}/{posixpath.basename(home)}", "../../" + home.removeprefix("/sys/"))


def _withdraw(world: World, address: str) -> None:
    home = world.device_directory(address)
    for instance in _instances(world, home):
        _forget(world, home, instance)
    for name in ("mdev_supported_types", "nvidia"):
        shutil.rmtree(world.tree.real(f"{home}/{name}"), ignore_errors=True)
    world.put_link(f"{BUS}/{address}", None)
    world.forget_places()


def _types(law: Law) -> list[dict[str, Any]]:
    """Types with their memory in MiB; Intel's come from the window of the card."""
    if law["law"] != "gvt":
        return list(law["types"])
    low, high = law["window"] - _HOST_LOW, _GTT - law["window"] - _HOST_HIGH
    version = 4 if law.get("generation") == 8 else 5
    return [
        {
            "id": f"i915-GVTg_V{version}_{name}",
            "name": f"GVTg_V{version}_{name}",
            "description": f"low_gm_size: {below}MB\nhigh_gm_size: {above}MB\nfence: {_FENCES}\n"
            f"resolution: {resolution}\nweight: {16 // int(name)}\n",
            "low": below,
            "high": above,
        }
        for below, above, name, resolution in _GVT
        if low // below and high // above
    ]


# -- how many are left ---------------------------------------------------------------------------


def _count(world: World, address: str, law: Law) -> None:
    """Write down what can still be made, after the law of the driver."""
    home = world.device_directory(address)
    if law["law"] == "nvidia-vf":
        _count_functions(world, law["card"])
        return
    taken = [_type_of(world, home, one) for one in _instances(world, home)]
    for kind in _types(law):
        left = _left_gvt(law, kind, taken) if law["law"] == "gvt" else _left_nvidia(law, kind, taken)
        world.put(f"{home}/mdev_supported_types/{kind['id']}/available_instances", f"{left}\n")


def _left_gvt(law: Law, kind: dict[str, Any], taken: list[str]) -> int:
    """The least of what both parts of the address space and the fence registers (32, four for the host) still hold."""
    sizes = {one["id"]: one for one in _types(law)}
    low = law["window"] - _HOST_LOW - sum(sizes[one]["low"] for one in taken)
    high = _GTT - law["window"] - _HOST_HIGH - sum(sizes[one]["high"] for one in taken)
    return int(min(low // kind["low"], high // kind["high"], (32 - _FENCES) // _FENCES - len(taken)))


def _left_nvidia(law: Law, kind: dict[str, Any], taken: list[str]) -> int:
    memory = {one["id"]: one["memory"] for one in law["types"]}
    if any(memory[one] != kind["memory"] for one in taken):
        return 0
    return int(law["memory"] // kind["memory"] - len(taken))


def _count_functions(world: World, card: str) -> None:
    """What each virtual function of the card can become: the same list for all, and none without memory."""
    laws: dict[str, Law] = world.machine().get("mediated", {})
    functions = [one for one, law in laws.items() if law.get("card") == card and _chosen(world, one) is not None]
    taken = [number for one in functions if (number := _chosen(world, one))]
    for address in functions:
        law = laws[address]
        rows = [kind for kind in law["types"] if _left_nvidia(law, kind, [f"nvidia-{one}" for one in taken]) > 0]
        lines = "".join(f"{kind['id'].removeprefix('nvidia-'):<5} : {kind['name']}\n" for kind in rows)
        world.put(f"{DEVICES}/{address}/nvidia/creatable_vgpu_types", HEADLINE + lines)


def _chosen(world: World, address: str) -> int | None:
    text = (world.text(f"{DEVICES}/{address}/nvidia/current_vgpu_type") or "").strip()
    return int(text) if text.isdecimal() else None


# -- making and ending ---------------------------------------------------------------------------


def _create(world: World, path: str, uuid: str) -> None:
    """create_store and mdev_device_create: EEXIST for a UUID that is there, ENOSPC when none is left."""
    kind = path.rpartition("/")[0]
    if not world.exists(kind):
        raise SysfsError(errno.ENOENT, path)
    if not re.fullmatch(r"[0-9a-fA-F]{8}(-[0-9a-fA-F]{4}){3}-[0-9a-fA-F]{12}", uuid):
        raise SysfsError(errno.EINVAL, path)
    if world.exists(f"{INSTANCES}/{uuid}"):
        raise SysfsError(errno.EEXIST, path)
    left = int((world.text(f"{kind}/available_instances") or "0").strip() or 0)
    if left < 1:
        raise SysfsError(errno.ENOSPC, path)
    home = _real_home(world, kind.partition("/mdev_supported_types/")[0])
    identity = posixpath.basename(kind)
    world.put(f"{home}/{uuid}/remove", "", 0o200)
    world.put_link(f"{home}/{uuid}/mdev_type", f"../mdev_supported_types/{identity}")
    world.put_link(f"{INSTANCES}/{uuid}", "../../../" + f"{home}/{uuid}".removeprefix("/sys/"))
    _recount(world, home, identity, left - 1)


def _remove(world: World, device: str) -> None:
    if not world.exists(device):
        raise SysfsError(errno.ENOENT, f"{device}/remove")
    target = world.link(device)  # by its bus it is a link, below its parent it is itself
    device = device if target is None else posixpath.normpath(posixpath.join(posixpath.dirname(device), target))
    home, _, uuid = device.rpartition("/")
    home = _real_home(world, home)
    identity = _type_of(world, home, uuid)
    _forget(world, home, uuid)
    path = f"{home}/mdev_supported_types/{identity}/available_instances"
    _recount(world, home, identity, int((world.text(path) or "0").strip() or 0) + 1)


def _recount(world: World, home: str, identity: str, left: int) -> None:
    address = posixpath.basename(home)
    law = world.machine().get("mediated", {}).get(address)
    if law is not None:
        _count(world, address, law)
    else:
        world.put(f"{home}/mdev_supported_types/{identity}/available_instances", f"{left}\n")


def _forget(world: World, home: str, uuid: str) -> None:
    world.put_link(f"{INSTANCES}/{uuid}", None)
    shutil.rmtree(world.tree.real(f"{home}/{uuid}"), ignore_errors=True)
    world.forget_places()


def _real_home(world: World, directory: str) -> str:
    """The parent's own directory, however it was named."""
    if directory.startswith(f"{DEVICES}/"):
        return world.device_directory(posixpath.basename(directory))
    target = world.link(directory)
    return directory if target is None else posixpath.normpath(posixpath.join(posixpath.dirname(directory), target))


def _instances(world: World, home: str) -> list[str]:
    return [
        name for name in world.names(home) if name.count("-") == 4 and os.path.isdir(world.tree.real(f"{home}/{name}"))
    ]


def _type_of(world: World, home: str, uuid: str) -> str:
    return posixpath.basename(world.link(f"{home}/{uuid}/mdev_type") or "")


def _choose(world: World, path: str, value: str) -> None:
    """current_vgpu_type_store: a number that can be made now, or 0. That a type must be 0 before another can be chosen
    follows from qemu-server PCI.pm, create_nvidia_device; which error the driver gives is unverified."""
    address = path.split("/")[-3]
    now = _chosen(world, address)
    if now is None:
        raise SysfsError(errno.ENOENT, path)
    creatable = (world.text(f"{path.rpartition('/')[0]}/creatable_vgpu_types") or "").splitlines()
    numbers = {line.partition(":")[0].strip() for line in creatable}
    if value != "0" and (now or value not in numbers or not value.isdecimal()):
        raise SysfsError(errno.EPERM if now else errno.EINVAL, path)
    world.put(path, f"{value}\n")
    law = world.machine().get("mediated", {}).get(address)
    if law is not None:
        _count_functions(world, law["card"])
