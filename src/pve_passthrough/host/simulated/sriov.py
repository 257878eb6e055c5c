"""Virtual functions of a simulated card: how the kernel makes them and takes them away, and what `ip` sets for them.

1. sriov_numvfs obeys drivers/pci/iov.c, sriov_numvfs_store: no number EINVAL, over the total ERANGE, the same number
   nothing, no driver or one without the callback ENOENT, another number while there are some EBUSY.
2. Addresses follow from offset and stride (virtfn_bus, virtfn_devfn); `physfn` and `virtfnN` are links. Power takes
   every virtual function away, and so does its physical function's driver when it lets go (igb_main.c, igb_remove).
3. A virtual function has no vendor and device number of its own in its configuration space (SR-IOV specification,
   3.4.1.1); the kernel shows its physical function's vendor and the capability's device number.
4. Groups: a virtual function is alone where every port above it has ACS, else it is where its physical one is
   (drivers/iommu/iommu.c, pci_device_group); numbers are the lowest free ones.
5. `machine.json` says under `sriov`, by physical function, what no attribute shows: `driver` and `module` of the
   virtual ones, `callback` (whether the physical one's driver can), `names` of their interfaces, `refuses` (an errno).
"""

from __future__ import annotations

import errno
import json
import os
import shutil
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from ...model.pci import Address
from ...model.sriov import NO_MAC, is_mac, vf_address
from ..base import Ran

if TYPE_CHECKING:
    from .world import World

DEVICES = "/sys/bus/pci/devices"
GROUPS = "/sys/kernel/iommu_groups"
_TEXTS = {
    "numa_node": "-1", "power_state": "D0", "d3cold_allowed": "1", "enable": "0", "irq": "0",
    "driver_override": "(null)", "reset_method": "flr",
}  # fmt: skip


def concerns(path: str) -> bool:
    return path.endswith(("/sriov_numvfs", "/sriov_drivers_autoprobe"))


def write(world: World, path: str, value: str) -> str:
    """What the attribute holds after this write. Raises SysfsError."""
    from .world import SysfsError

    directory, _, name = path.rpartition("/")
    pf = directory.rpartition("/")[2]
    if not value.isascii() or not value.isdecimal() or len(value) > 5:
        raise SysfsError(errno.EINVAL, path)
    if name == "sriov_drivers_autoprobe":
        return "1" if int(value) else "0"
    wanted, now = int(value), int(world.attribute(pf, "sriov_numvfs") or 0)
    number = _refused(world, pf, wanted, now)
    if number:
        raise SysfsError(number, path)
    if wanted != now:
        _make(world, pf, wanted) if wanted else remove(world, pf)
    return str(wanted)


def _refused(world: World, pf: str, wanted: int, now: int) -> int:
    """The errno, 0 when the kernel does it."""
    total = int(world.attribute(pf, "sriov_totalvfs") or 0)
    known = _known(world, pf)
    if wanted > total:
        return errno.ERANGE
    if wanted == now:
        return 0
    if world.driver_of(pf) is None:
        _say(world, pf, "no driver bound to device; cannot configure SR-IOV")
        return errno.ENOENT
    if not known.get("callback", True) or world.driver_of(pf) == "vfio-pci":
        _say(world, pf, "driver does not support SR-IOV configuration via sysfs")
        return errno.ENOENT
    if wanted and now:
        _say(world, pf, f"{now} VFs already enabled. Disable before enabling {wanted} VFs")
        return errno.EBUSY
    if wanted and known.get("refuses"):
        _say(world, pf, str(known["refuses"]))
        return errno.ENOMEM
    return 0


def _known(world: World, pf: str) -> dict[str, Any]:
    known: dict[str, Any] = world.machine().get("sriov", {}).get(pf, {})
    return known


def _say(world: World, pf: str, words: str) -> None:
    state = world.state()
    state.setdefault("dmesg", []).append(f"{world.driver_of(pf) or 'pci'} {pf}: {words}")
    world.save_state(state)


# -- making and taking away ----------------------------------------------------------------------


def _make(world: World, pf: str, count: int) -> None:
    offset, stride = (int(world.attribute(pf, f"sriov_{name}") or 1) for name in ("offset", "stride"))
    made = [str(vf_address(Address.parse(pf), offset, stride, index)) for index in range(count)]
    state = world.state()
    state.setdefault("vfs", {})[pf] = {"addresses": made, "links": [dict(_FRESH) for _ in made]}
    world.save_state(state)
    for index, address in enumerate(made):
        _lay_down(world, pf, address, index)
    _learn(world, pf, made)
    _group(world, pf, made)
    _load(world, pf)
    if world.attribute(pf, "sriov_drivers_autoprobe") != "0":
        for address in made:
            world.sysfs("/sys/bus/pci/drivers_probe", address)


_FRESH: dict[str, Any] = {"mac": NO_MAC, "vlan": 0, "spoofchk": True, "trust": False, "state": "auto"}
"""As igb has it: no address, a check, no trust (igb_main.c, igb_vf_configure)."""


def left_alone(world: World, address: str) -> bool:
    """No driver takes it by itself (drivers/pci/pci-driver.c, pci_device_can_probe)."""
    physical = world.link(f"{DEVICES}/{address}/physfn")
    return physical is not None and world.attribute(physical.rpartition("/")[2], "sriov_drivers_autoprobe") == "0"


def _lay_down(world: World, pf: str, address: str, index: int) -> None:
    above = world.device_directory(pf)
    home = f"{above.rpartition('/')[0]}/{address}"
    product = world.attribute(pf, "sriov_vf_device") or "ffff"
    texts = dict(_TEXTS) | {
        name: world.attribute(pf, name) or "0x0000" for name in ("vendor", "subsystem_vendor", "subsystem_device")
    }
    texts |= {"device": f"0x{product}", "class": world.attribute(pf, "class") or "0x000000", "revision": "0x01"}
    texts["resource"] = "\n".join(["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7)
    for name, text in texts.items():
        world.put(f"{home}/{name}", text + "\n")
    world.put(f"{home}/reset", "", 0o200)
    world.put(f"{home}/config", _config(texts["class"]))
    world.put_link(f"{home}/physfn", f"../{pf}")
    world.put_link(f"{above}/virtfn{index}", f"../{address}")
    world.put_link(f"{DEVICES}/{address}", f"../../../{home.removeprefix('/sys/')}")
    world.forget_places()


def _config(class_text: str) -> str:
    """Header without numbers and BARs, then PCI Express: an endpoint that can reset itself alone."""
    space = bytearray(4096)
    space[0:4] = b"\xff\xff\xff\xff"
    space[0x06] = 0x10
    space[0x09:0x0C] = int(class_text, 16).to_bytes(3, "little")
    space[0x34] = 0x40
    space[0x40:0x44] = bytes((0x10, 0x00, 0x02, 0x00))
    space[0x44:0x48] = (1 << 28 | 1 << 15).to_bytes(4, "little")
    return space.decode("utf-8", "surrogateescape")


def _learn(world: World, pf: str, made: Sequence[str]) -> None:
    """Which driver fits them, and the interfaces that it makes of them."""
    known = _known(world, pf)
    if not known.get("driver"):
        return
    machine = world.machine()
    for index, address in enumerate(made):
        machine.setdefault("natural", {})[address] = {
            "driver": known["driver"], "module": known.get("module"), "others": [],
        }  # fmt: skip
        if known.get("names"):
            name, home = f"{known['names']}{index}", world.device_directory(address)
            world.put(f"{home}/net/{name}/operstate", "down\n")
            world.put(f"{home}/net/{name}/address", NO_MAC + "\n")
            world.put_link(f"{home}/net/{name}/device", "../../")
            link = {f"/sys/class/net/{name}": f"../../{home.removeprefix('/sys/')}/net/{name}"}
            machine.setdefault("classes", {})[address] = {known["driver"]: link}
    world.save_machine(machine)


def _load(world: World, pf: str) -> None:
    """udev loads the module by the new device's alias, whether or not its driver may bind."""
    from . import kernel

    module = _known(world, pf).get("module")
    if module:
        loader = kernel.running_loader(world)
        loader.by_alias(module)
        kernel.list_modules(world, loader.loaded)


def _group(world: World, pf: str, made: Sequence[str]) -> None:
    if world.group_of(pf) is None:
        return
    alone = _known(world, pf).get("alone", True)
    for address in made:
        number = _free(world) if alone else world.group_of(pf)
        home = world.device_directory(address)
        world.put(f"{GROUPS}/{number}/type", world.text(f"{GROUPS}/{world.group_of(pf)}/type") or "DMA-FQ\n")
        world.put_link(f"{home}/iommu_group", "../" * (home.count("/") - 1) + f"kernel/iommu_groups/{number}")
        world.put_link(f"{GROUPS}/{number}/devices/{address}", f"../../../../{home.removeprefix('/sys/')}")


def _free(world: World) -> int:
    used = {int(name) for name in world.names(GROUPS) if name.isdecimal()}
    return next(number for number in range(len(used) + 1) if number not in used)


def adopt(world: World) -> None:
    """Virtual functions that a machine has from the one that it was copied from: what takes them away is ours now."""
    state, there = world.state(), set(world.addresses())
    for pf in there:
        links = {name: world.link(f"{DEVICES}/{pf}/{name}") or "" for name in world.names(f"{DEVICES}/{pf}")}
        numbered = {name.removeprefix("virtfn"): link for name, link in links.items() if name.startswith("virtfn")}
        made = [numbered[number].rpartition("/")[2] for number in sorted(filter(str.isdecimal, numbered), key=int)]
        if made and there.issuperset(made):
            state.setdefault("vfs", {})[pf] = {"addresses": made, "links": [dict(_FRESH) for _ in made]}
    world.save_state(state)


def remove(world: World, pf: str) -> None:
    """Every virtual function of this one goes, from the driver that holds it, too."""
    state = world.state()
    gone = state.get("vfs", {}).pop(pf, {}).get("addresses", [])
    world.save_state(state)
    machine = world.machine()
    for index, address in enumerate(gone):
        world.place(address, None)
        home, group = world.device_directory(address), world.group_of(address)
        if group is not None:
            _ungroup(world, group, address)
        machine.get("natural", {}).pop(address, None)
        machine.get("classes", {}).pop(address, None)
        world.put_link(f"{world.device_directory(pf)}/virtfn{index}", None)
        world.put_link(f"{DEVICES}/{address}", None)
        shutil.rmtree(world.tree.real(home), ignore_errors=True)
    world.save_machine(machine)
    world.forget_places()


def _ungroup(world: World, group: int, address: str) -> None:
    world.put_link(f"{GROUPS}/{group}/devices/{address}", None)
    if not world.names(f"{GROUPS}/{group}/devices"):
        shutil.rmtree(world.tree.real(f"{GROUPS}/{group}"), ignore_errors=True)


def let_go(world: World, pf: str) -> None:
    """Its driver leaves a physical function."""
    if pf in world.state().get("vfs", {}):
        remove(world, pf)
        world.put(f"{DEVICES}/{pf}/sriov_numvfs", "0\n")


def power_off(world: World) -> None:
    """What a start finds: no virtual function anywhere."""
    for pf in list(world.state().get("vfs", {})):
        remove(world, pf)
        world.put(f"{DEVICES}/{pf}/sriov_numvfs", "0\n")


# -- ip ------------------------------------------------------------------------------------------


def ip(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`ip -j link show dev NAME` and `ip link set dev NAME vf N KEY VALUE …` (ip-link(8)); nothing else."""
    words = [word for word in argv[1:] if not word.startswith("-")]
    if words[:3] == ["link", "show", "dev"] and len(words) == 4:
        return _show(world, words[3])
    if words[:3] == ["link", "set", "dev"] and len(words) >= 7 and words[4] == "vf":
        return _set(world, words[3], words[5], words[6:])
    return Ran(255, "", "ip: only `link show dev` and `link set dev … vf` are simulated\n")


def _holder(world: World, name: str) -> str | None:
    """The function whose interface this is; its driver must hold it."""
    if not world.exists(f"/sys/class/net/{name}"):
        return None
    return next((one for one in world.addresses() if name in world.names(f"{DEVICES}/{one}/net")), None)


def _show(world: World, name: str) -> Ran:
    pf = _holder(world, name)
    if pf is None:
        return Ran(1, "", f'Device "{name}" does not exist.\n')
    links = world.state().get("vfs", {}).get(pf, {}).get("links", [])
    listed = [_as_json(number, one) for number, one in enumerate(links)]
    said: dict[str, Any] = {"ifname": name, "operstate": "UP"} | ({"vfinfo_list": listed} if listed else {})
    return Ran(0, json.dumps([said]) + "\n")


def _as_json(number: int, one: dict[str, Any]) -> dict[str, Any]:
    vlan = {"vlan_list": [{"vlan": one["vlan"]}]} if one["vlan"] else {}
    return {
        "vf": number, "link_type": "ether", "address": one["mac"], "broadcast": "ff:ff:ff:ff:ff:ff", **vlan,
        "spoofchk": one["spoofchk"], "link_state": one["state"], "trust": one["trust"], "query_rss_en": False,
    }  # fmt: skip


def _set(world: World, name: str, number: str, words: Sequence[str]) -> Ran:
    pf = _holder(world, name)
    if pf is None:
        return Ran(1, "", f'Cannot find device "{name}"\n')
    state = world.state()
    links = state.get("vfs", {}).get(pf, {}).get("links", [])
    if not number.isdecimal() or int(number) >= len(links):
        return Ran(2, "", f"RTNETLINK answers: {os.strerror(errno.EINVAL)}\n")
    one = links[int(number)]
    for key, value in zip(words[::2], words[1::2], strict=False):
        if not _apply(one, key, value):
            return Ran(2, "", f"RTNETLINK answers: {os.strerror(errno.EINVAL)}\n")
    world.save_state(state)
    return Ran(0)


def _apply(one: dict[str, Any], key: str, value: str) -> bool:
    if key == "mac" and (is_mac(value) or value == NO_MAC):
        one["mac"] = value
    elif key == "vlan" and value.isdecimal() and int(value) < 4096:
        one["vlan"] = int(value)
    elif key in ("spoofchk", "trust") and value in ("on", "off"):
        one[key] = value == "on"
    elif key == "state" and value in ("auto", "enable", "disable"):
        one["state"] = value
    else:
        return False
    return True
