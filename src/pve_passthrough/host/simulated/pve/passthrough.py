"""What a guest's start takes from the host: hostpci and usb entries, mappings, reservations, binding to vfio-pci.

1. Order and words follow qemu-server 9.2.6 and 8.4.10 as recorded: expand, check the mapping, reserve, then for each
   function: an IOMMU must be there, every non-bridge member of its IOMMU group goes to vfio-pci, then one reset.
2. Drivers change through `World.sysfs` alone, so the simulated kernel decides and remembers.
3. Nothing is ever bound back: a failed bind leaves the device without a driver, and a stop leaves it on vfio-pci.
"""

from __future__ import annotations

import errno
import os
import re
from collections.abc import Mapping
from dataclasses import dataclass

from .. import kernel, modprobe, resets
from ..world import DEVICES, DRIVERS, SysfsError
from .config import Config, options_of
from .inventory import Mdev, mdev_types, usb_devices
from .mappings import Unfit, fit_pci, fit_usb, node_maps
from .node import Die, Node, NotCovered, now
from .refusals import group_refusal, msix_refusal

RESERVATIONS = "/run/qemu-server/pci-id-reservations"
RESERVED_SECONDS = 60
"""How long a guest that is starting keeps its devices until its QEMU has a process id."""
_VFIO = f"{DRIVERS}/vfio-pci"
_PCI_PM_LINE = {8: 501, 9: 510}
"""The line in qemu-server's PCI.pm that the `q35 machine model` message names (recorded, 8.4.10 and 9.2.6)."""


@dataclass(slots=True)
class Entry:
    """One hostpciN: its options and, one tuple of functions each, the devices that may serve it."""

    key: str
    options: dict[str, str]
    choices: list[tuple[str, ...]]
    taken: tuple[str, ...] = ()

    nvidia: str = ""
    """Number of the type that a virtual function of NVIDIA's driver becomes (parse_hostpci: then it is no mdev)."""

    @property
    def mdev(self) -> str:
        return "" if self.nvidia else self.options.get("mdev", "")

    def on(self, option: str) -> bool:
        return self.options.get(option, "0") == "1"


def index_of(key: str) -> int:
    return int(re.sub(r"\D", "", key))


def functions(node: Node, host: str) -> tuple[str, ...]:
    """Addresses that one part of `host=` takes: `01:00` means every function that is there."""
    full = host if re.match(r"[0-9a-f]{4,}:[0-9a-f]{2}:", host) else f"0000:{host}"
    if "." in full:
        found = [full] if node.world.exists(f"{DEVICES}/{full}") else []
    else:
        found = [address for address in node.world.addresses() if address.startswith(f"{full}.")]
    if not found:
        raise _both(node, f"no PCI device found for '{full}'")
    return tuple(sorted(found))


def _both(node: Node, text: str, end: str = "") -> Die:
    """A failure that PVE 9's log names twice, because the clean-up after a failed start parses the entry again."""
    return Die(text + end, 255, text + end if node.major >= 9 else "")


def entries(node: Node, config: dict[str, str]) -> list[Entry]:
    """All hostpci entries of a configuration, expanded. Raises `Die` as a start does."""
    found = []
    for key in sorted((key for key in config if re.fullmatch(r"hostpci\d+", key)), key=index_of):
        options = options_of(node, key, config[key])
        if ("mapping" in options) == ("host" in options):
            raise NotCovered(f"{key} with both host and mapping, or with neither")
        if "mapping" in options:
            choices = _mapped(node, options["mapping"])
        else:
            choices = [tuple(a for part in options["host"].split(";") for a in functions(node, part))]
        entry = Entry(key, options, choices)
        if entry.mdev and any(len(choice) > 1 for choice in choices):
            raise _both(node, "cannot use mediated device with multifunction device")
        entry.nvidia = _nvidia_number(node, entry)
        found.append(entry)
    return found


def _nvidia_number(node: Node, entry: Entry) -> str:
    """Number of the type for a function that NVIDIA's driver shares without the kernel's mediated devices.

    Source: qemu-server PCI.pm, parse_hostpci; pve-common SysFSTools.pm, lspci (`nvidia`).
    """
    match = re.fullmatch(r"nvidia-(\d+)", entry.mdev)
    home = f"{DEVICES}/{entry.choices[0][0]}"
    own_way = node.world.exists(f"{home}/nvidia") and not node.world.exists(f"{home}/mdev_supported_types")
    return match.group(1) if match and own_way else ""


def _mapped(node: Node, name: str) -> list[tuple[str, ...]]:
    section, maps = node_maps(node, "pci", name)
    if section is None or not maps:
        raise _both(node, f"PCI device mapping not found for '{name}'")
    choices = []
    for entry in maps:
        try:
            fit_pci(node, section, entry)
        except Unfit as error:
            text = f"PCI device mapping invalid (hardware probably changed): {error}"
            raise _both(node, text, "\n") from None
        choices.append(tuple(a for part in entry["path"].split(";") for a in functions(node, part)))
    return choices


# -- what the command line's builder refuses ------------------------------------------------------


def check_machine(node: Node, config: dict[str, str], found: list[Entry]) -> None:
    """Raises what the builder of QEMU's command line dies with."""
    machine = options_of(node, "machine", config.get("machine", "")).get("type", "pc")
    q35 = machine == "q35" or machine.startswith("pc-q35")
    for entry in found:
        if entry.on("legacy-igd"):
            _check_legacy_igd(node, config, entry, q35, len(found))
        if entry.on("pcie") and not q35:
            line = _PCI_PM_LINE.get(node.major, 510)
            raise Die(f"q35 machine model is not enabled at /usr/share/perl5/PVE/QemuServer/PCI.pm line {line}.")


def _check_legacy_igd(node: Node, config: dict[str, str], entry: Entry, q35: bool, count: int) -> None:
    if count > 1:
        raise Die("only one device can be assigned in legacy-igd mode", 25)
    if entry.on("x-vga"):
        raise Die("legacy IGD assignment is not compatible with x-vga", 25)
    if entry.mdev:
        raise Die("legacy IGD assignment is not compatible with mdev", 25)
    if options_of(node, "vga", config.get("vga", "")).get("type") != "none":
        raise Die("legacy IGD assignment requires VGA mode to be 'none'", 25)
    if entry.options.get("rombar") == "0":
        raise Die("legacy IGD assignment requires rombar to be enabled", 25)
    if q35:
        raise Die("legacy IGD assignment is not compatible with q35", 25)
    if entry.choices[0][0] != "0000:00:02.0":
        raise Die("legacy IGD assignment only works for devices on host bus 00:02.0", 25)


# -- choosing and reserving -----------------------------------------------------------------------


def reservations(node: Node) -> dict[str, tuple[int, str]]:
    """Address → (guest, `pid:N` or `time:EPOCH`)."""
    found: dict[str, tuple[int, str]] = {}
    for line in (node.world.text(RESERVATIONS) or "").splitlines():
        match = re.fullmatch(r"(\S+) (\d+) ((?:pid|time):\d+)", line)
        if match:
            found[match.group(1)] = (int(match.group(2)), match.group(3))
    return found


def _save(node: Node, table: dict[str, tuple[int, str]]) -> None:
    lines = [f"{address} {vmid} {until}\n" for address, (vmid, until) in sorted(table.items())]
    node.world.put(RESERVATIONS, "".join(lines))


def choose(node: Node, vmid: int, found: list[Entry], starting: bool = False) -> None:
    """Give every entry its device: the mapped ones take the first that nobody has."""
    used: set[str] = set()
    held = {address for address, (owner, until) in reservations(node).items() if _alive(node, owner, until, vmid)}
    for entry in found:
        if len(entry.choices) == 1 and "mapping" not in entry.options:
            entry.taken = entry.choices[0]
            _become(node, vmid, entry, entry.taken[0], starting)
            continue
        free = [choice for choice in entry.choices if not (set(choice) & (used | held)) or entry.mdev]
        if not free and len(entry.choices) == 1 and not set(entry.choices[0]) & used:
            free = entry.choices
        if entry.nvidia:
            free = [choice for choice in free if _becomes(node, vmid, entry, choice[0], starting)]
        if not free:
            if node.major < 9 and starting:
                # 8.4 reserves while it chooses and then leaves the reservation to run out (recorded row `mapstart`)
                reserve(node, vmid, found, f"time:{now() + RESERVED_SECONDS}")
            raise Die(f"could not find a free device for '{entry.key}'")
        entry.taken = free[0]
        used |= set(free[0]) if not entry.mdev else set()
    _check_twice(found)


def _become(node: Node, vmid: int, entry: Entry, address: str, starting: bool) -> None:
    """NVIDIA's function becomes a share of its card before QEMU's command line is built.

    Source: qemu-server PCI.pm, choose_hostpci_devices and create_nvidia_device.
    """
    if not entry.nvidia or not starting or _is_up(node, vmid):
        return
    home = f"{DEVICES}/{address}/nvidia"
    now = (node.world.text(f"{home}/current_vgpu_type") or "0").strip()
    if now == entry.nvidia:
        return
    if now != "0" and not _write(node, f"{home}/current_vgpu_type", "0"):
        raise Die(f"unable to reset vgpu type for '{address}'")
    if f"nvidia-{entry.nvidia}" not in {kind.type for kind in mdev_types(node, address)}:
        raise Die(f"vgpu type '{entry.nvidia}' not available for '{address}'")
    if not _write(node, f"{home}/current_vgpu_type", entry.nvidia):
        raise Die(f"could not set vgpu type to '{entry.nvidia}' for '{address}'")


def _becomes(node: Node, vmid: int, entry: Entry, address: str, starting: bool) -> bool:
    """The same for one of several functions: the next one is tried where it fails."""
    if entry.taken:
        return False
    try:
        _become(node, vmid, entry, address, starting)
    except Die as died:
        node.warn(died.text)
        return False
    entry.taken = (address,)
    return True


def _is_up(node: Node, vmid: int) -> bool:
    return node.world.exists(f"/run/qemu-server/{vmid}.pid")


def _check_twice(found: list[Entry]) -> None:
    seen: set[str] = set()
    for entry in found:
        for address in entry.taken:
            if address in seen and not entry.mdev:
                raise Die(f"device '{address}' assigned more than once", 2)
            seen.add(address)


def _alive(node: Node, owner: int, until: str, vmid: int) -> bool:
    """A reservation of another guest that still holds: it runs, or it has a moment yet to start."""
    if owner == vmid:
        return False
    kind, _, value = until.partition(":")
    if kind == "time":
        return int(value) > now()
    return node.world.exists(f"/run/qemu-server/{owner}.pid")


def reserve(node: Node, vmid: int, found: list[Entry], until: str) -> None:
    table = reservations(node)
    for entry in found:
        for address in () if entry.mdev else entry.taken:
            owner, held = table.get(address, (vmid, ""))
            if held and _alive(node, owner, held, vmid):
                words = "currently reserved for use by" if held.startswith("time:") else "already in use by"
                raise Die(f"PCI device '{address}' {words} VMID '{owner}'")
            if held and owner != vmid:
                node.warn(f"leftover PCI reservation found for {address}, lets take it...")
            table[address] = (vmid, until)
    if any(not entry.mdev for entry in found):
        _save(node, table)


def release(node: Node, vmid: int) -> None:
    """Give up every reservation of a guest; functions that were a share of NVIDIA's card are none any more.

    Source: qemu-server 8.2.5 changelog and PCI.pm, get_reservations: `0` is written at the end, tried for 10 s.
    """
    table = reservations(node)
    for address in sorted(address for address, (owner, _) in table.items() if owner == vmid):
        path = f"{DEVICES}/{address}/nvidia/current_vgpu_type"
        if (node.world.text(path) or "0").strip() != "0" and not _write(node, path, "0"):
            node.warn(f"could not cleanup nvidia vgpu for '{address}'")
    kept = {address: held for address, held in table.items() if held[0] != vmid}
    if kept != table:
        _save(node, kept)


# -- preparing ------------------------------------------------------------------------------------


def prepare(node: Node, vmid: int, entry: Entry) -> None:
    """Make one entry's device ready for QEMU. Raises `Die`."""
    for address in entry.taken:
        try:
            _prepare_function(node, vmid, entry, address)
        except Die as died:
            if not entry.mdev:
                raise
            raise Die("could not create mediated device", 255, died.text) from None


def _prepare_function(node: Node, vmid: int, entry: Entry, address: str) -> None:
    if not node.world.names("/sys/class/iommu"):
        raise Die("cannot prepare PCI pass-through, IOMMU not present")
    if not node.world.exists(f"{DEVICES}/{address}"):
        raise Die(f"no pci device info for device '{address}'")
    if entry.options.get("driver") == "keep" or entry.nvidia:
        return
    if entry.mdev:
        _create_mdev(node, vmid, entry, address)
        return
    bind_group(node, address)
    _reset(node, address)


def bind_group(node: Node, address: str) -> None:
    """Take every member of the device's IOMMU group but the bridges (those with a `pci_bus` directory)."""
    _load_vfio(node)
    group = node.world.group_of(address)
    if group is None:
        raise Die(f"Cannot open iommu_group: {os.strerror(errno.ENOENT)}")
    members = [name for name in node.world.addresses() if node.world.group_of(name) == group]
    # the recorded order is the directory's own, which was the reverse of the sorted one in every recorded group
    for member in sorted(members, reverse=True):
        if not node.world.exists(f"{DEVICES}/{member}/pci_bus") and not _bind(node, member):
            raise Die(f"Cannot bind {member} to vfio")


def _load_vfio(node: Node) -> None:
    if node.world.driver_loaded("vfio-pci"):
        return
    if not node.fault("modprobe:vfio-pci"):
        kernel.show_parameters(node.world, "vfio_pci", _vfio_options(node))
        node.world.load_driver("vfio-pci")
    if not node.world.driver_loaded("vfio-pci"):
        raise Die("Cannot find vfio-pci module!")


def _vfio_options(node: Node) -> str:
    """What modprobe.d and the kernel command line give the module."""
    files = modprobe.config_files(node.world).values()
    config = modprobe.parse(files, node.world.text("/proc/cmdline") or "")
    return " ".join(text for name, text in config.options if modprobe.plain(name) == "vfio_pci")


def _bind(node: Node, address: str) -> bool:
    """new_id, unbind, bind; never driver_override (seen in every recorded start)."""
    world = node.world
    if world.driver_of(address) == "vfio-pci":
        return True
    if not _write(node, f"{_VFIO}/new_id", world.id_of(address), known_is_fine=True):
        return False
    driver = world.driver_of(address)
    if driver is not None and not _write(node, f"{DRIVERS}/{driver}/unbind", address):
        return False
    if world.driver_of(address) != "vfio-pci" and not _write(node, f"{_VFIO}/bind", address):
        return False
    return world.driver_of(address) == "vfio-pci"


def _write(node: Node, path: str, text: str, known_is_fine: bool = False) -> bool:
    try:
        node.world.sysfs(path, text)
    except SysfsError as error:
        if known_is_fine and error.errno == errno.EEXIST:
            return True
        node.warn(f"error writing '{text}' to '{path}': {error.strerror}")
        return False
    return True


def _reset(node: Node, address: str) -> None:
    path = f"{DEVICES}/{address}/reset"
    if node.world.exists(path) and not _write(node, path, "1"):
        node.warn(f"failed to reset PCI device '{address}', but trying to continue as not all devices need a reset")


# -- mediated devices -----------------------------------------------------------------------------


def mdev_uuid(vmid: int, key: str) -> str:
    """sprintf("%08d-0000-0000-0000-%012d", index, vmid)"""
    return f"{index_of(key):08d}-0000-0000-0000-{vmid:012d}"


def _create_mdev(node: Node, vmid: int, entry: Entry, address: str) -> None:
    types = {kind.type: kind for kind in mdev_types(node, address)}
    if not node.world.exists(f"{DEVICES}/{address}/mdev_supported_types"):
        raise Die(f"pci device '{address}' does not support mediated devices ")
    kind: Mdev | None = types.get(entry.mdev)
    if kind is None:
        raise Die(f"pci device '{address}' has no type '{entry.mdev}'")
    uuid = mdev_uuid(vmid, entry.key)
    if node.world.exists(f"{DEVICES}/{address}/{uuid}"):
        there = (node.world.link(f"{DEVICES}/{address}/{uuid}/mdev_type") or "").rpartition("/")[2]
        if there != entry.mdev:
            raise Die(f"mdev instance '{uuid}' already exists, but type is not '{entry.mdev}'")
        node.warn(f"mdev instance '{uuid}' already existed, using it.")
        return
    if kind.available < 1:
        raise Die(f"pci device '{address}' has no available instances of '{entry.mdev}'")
    base = f"{DEVICES}/{address}/mdev_supported_types/{entry.mdev}"
    if not _write(node, f"{base}/create", uuid):
        raise Die(f"could not create '{entry.mdev}' for pci devices '{address}'")


def remove_mdevs(node: Node, vmid: int, config: dict[str, str]) -> None:
    """What the clean-up after a stop does: write 1 to `remove` of each mediated device of the guest."""
    for key in sorted(key for key in config if re.fullmatch(r"hostpci\d+", key)):
        uuid = mdev_uuid(vmid, key)
        link = f"/sys/bus/mdev/devices/{uuid}"
        if "mdev" not in options_of(node, key, config[key]) or not node.world.exists(link):
            continue
        node.say(f"actively clean up mediated device with UUID {uuid}")
        _remove_mdev(node, link, uuid)


def _remove_mdev(node: Node, link: str, uuid: str) -> None:
    target = node.world.link(link) or ""
    address = target.rpartition("/")[0].rpartition("/")[2]
    _write(node, f"{DEVICES}/{address}/{uuid}/remove", "1")


# -- USB ------------------------------------------------------------------------------------------


def has_xhci(node: Node, config: Mapping[str, str]) -> bool:
    """QEMU's own xHCI controller: machine version 7.1, and l26 or a Windows after 7. Only such guests take more than
    five devices, and USB devices while they run (qemu-server, USB.pm, get_usb_controllers; QemuServer.pm,
    vmconfig_hotplug_pending)."""
    windows = re.fullmatch(r"win(\d+)", config.get("ostype", ""))
    kind = options_of(node, "machine", config.get("machine", "")).get("type", "")
    pinned = re.match(r"pc-(?:i440fx|q35)-(\d+)\.(\d+)", kind)
    modern = config.get("ostype") == "l26" or (windows is not None and int(windows.group(1)) > 7)
    return modern and (pinned is None or (int(pinned.group(1)), int(pinned.group(2))) >= (7, 1))


def check_usb(node: Node, config: dict[str, str]) -> None:
    """Raises what a start dies with for usbN entries. A device that is not plugged in is no error."""
    for key in sorted((key for key in config if re.fullmatch(r"usb\d+", key)), key=index_of):
        if index_of(key) >= 5 and not has_xhci(node, config):  # USB.pm, assert_usb_index_is_useable
            raise Die(f"using {key} is only possible with machine type >= 7.1 and ostype l26 or windows > 7")
        name = options_of(node, key, config[key]).get("mapping")
        if name is None:
            continue
        _, maps = node_maps(node, "usb", name)
        if not maps:
            raise Die(f"USB device mapping not found for '{name}'")
        if len(maps) > 1:
            raise Die("More than one USB mapping per host not supported")
        try:
            fit_usb(usb_devices(node), name, maps[0])
        except Unfit as error:
            raise Die(f"USB Mapping invalid (hardware probably changed): {error}\n") from None


# -- QEMU -----------------------------------------------------------------------------------------


def qemu_refusal(node: Node, config: Config, found: list[Entry]) -> str | None:
    """What QEMU and the kernel would say about the prepared devices, None when they are content."""
    args = config.shown().get("args", "")
    for entry in found:
        for address in () if entry.mdev or entry.nvidia else entry.taken:
            driver = node.world.driver_of(address)
            slot = f"-device vfio-pci,host={address},id={entry.key}"
            if driver is None or "vfio" not in driver:
                why = f"device is bound to {driver}" if driver else "device has no driver"
                where = _bus(entry) if len(entry.taken) == 1 else ""
                return f"kvm: {slot}{where}: vfio {address}: error getting device from group: {why}"
            if not viable(node, address):
                group = node.world.group_of(address)
                return (
                    f"kvm: {slot}: vfio {address}: group {group} is not viable\n"
                    "Please ensure all devices within the iommu_group are bound to their vfio bus driver."
                )
            if refused := group_refusal(node.world, address) or msix_refusal(node.world, address, entry.key, args):
                return f"kvm: {slot}: vfio {address}: {refused}"
            if resets.dead(node.world, address):
                return f"kvm: {slot}: vfio: Unable to power on device, stuck in D3"
        if lost := _lost_rom(node, entry):
            return lost
    return None


def _lost_rom(node: Node, entry: Entry) -> str:
    """QEMU, hw/pci/pci.c, pci_add_option_rom: a ROM file that is not there, or is empty, ends the start."""
    name = entry.options.get("romfile", "")
    path = f"/usr/share/kvm/{name}"
    text = node.world.text(path) if name else ""
    if not name or text:
        return ""
    slot = f"-device vfio-pci,host={entry.taken[0]},id={entry.key}{_bus(entry)},romfile={path}"
    why = f'failed to find romfile "{path}"' if text is None else f'romfile "{path}" is empty'
    return f"kvm: {slot}: {why}"


def _bus(entry: Entry) -> str:
    if entry.on("pcie"):
        return f",bus=ich9-pcie-port-{index_of(entry.key) + 1},addr=0x0"
    return ",bus=pci.0,addr=0x10"


def viable(node: Node, address: str) -> bool:
    """Whether no member of the group is held by a host driver (bridges on pcieport are allowed:
    drivers/vfio/vfio_main.c and drivers/iommu/iommu.c, DMA ownership of a group)."""
    group = node.world.group_of(address)
    for member in node.world.addresses():
        driver = node.world.driver_of(member) if node.world.group_of(member) == group else None
        if driver is not None and driver not in ("pcieport", "pci-stub") and "vfio" not in driver:
            return False
    return True
