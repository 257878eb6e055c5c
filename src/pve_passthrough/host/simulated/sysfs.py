"""/sys and /proc of a described machine, as far as files: the parts that no power cut changes.

1. Functions lie at their places below /sys/devices, bus and class directories hold links, as in the kernel.
2. Attributes follow Documentation/ABI/testing/sysfs-bus-pci, sysfs-class-iommu, sysfs-bus-usb, sysfs-block.
3. Drivers, IOMMU groups and everything else that a boot decides is laid down by `boot`.
"""

from __future__ import annotations

from collections.abc import Iterator

from . import config_space, nodes, option_rom, usb_tree
from .spec import DiskSpec, MachineSpec, NicSpec, PciSpec, SriovSpec
from .world import DEVICES, World

_MEMORY_32 = 0x0000_0000_8000_0000
_MEMORY_64 = 0x0000_0040_0000_0000
_ROOT_WINDOWS = ((0xA0000, 0xBFFFF), (_MEMORY_32, 0xDFFF_FFFF), (_MEMORY_64, 0x7F_FFFF_FFFF))
"""What the root bus decodes: the VGA hole, below 4 GiB, and 256 GiB above."""
_FLAGS = {False: 0x40200, True: 0x14220C}
"""IORESOURCE flags of a plain 32-bit memory BAR and of a 64-bit prefetchable one (include/linux/ioport.h)."""
_ROM_FLAGS = 0x46200
_SECURE_BOOT = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"


def place(spec: MachineSpec, address: str) -> str:
    """Where a function's directory lies: below its bridge, or on the root bus."""
    device = next(device for device in spec.devices if device.address == address)
    if device.parent:
        return f"{place(spec, device.parent)}/{address}"
    return f"/sys/devices/pci{address[:7]}/{address}"


def lay_down(world: World, spec: MachineSpec) -> None:
    starts = _Starts()
    for device in spec.devices:
        _device(world, spec, device, starts)
    for disk in spec.disks:
        _disk(world, spec, disk)
    if spec.root.value == "lvm":
        _mapper(world, spec)
    for nic in spec.nics:
        _nic(world, spec, nic)
    _bridge(world, spec)
    _usb(world, spec)
    _screens(world, spec)
    _firmware(world, spec)
    _iommu_units(world, spec)
    _memory_nodes(world, spec)
    for name in ("block", "net", "drm", "graphics", "iommu", "vtconsole"):
        world.make_dir(f"/sys/class/{name}")
    for name in ("/sys/kernel/iommu_groups", "/sys/block", "/sys/bus/pci/drivers", "/sys/bus/usb/devices"):
        world.make_dir(name)
    world.put("/sys/bus/pci/drivers_probe", "")
    world.put("/sys/bus/pci/rescan", "")
    world.put("/proc/iomem", "".join(f"{start:08x}-{end:08x} : PCI Bus 0000:00\n" for start, end in _ROOT_WINDOWS))


class _Starts:
    """Gives out BAR addresses, aligned to their size."""

    def __init__(self) -> None:
        self._next = {False: _MEMORY_32, True: _MEMORY_64}

    def take(self, size: int, wide: bool) -> int:
        start = (self._next[wide] + size - 1) // size * size
        self._next[wide] = start + size
        return start


# -- PCI -----------------------------------------------------------------------------------


def _device(world: World, spec: MachineSpec, device: PciSpec, give: _Starts) -> None:
    home = place(spec, device.address)
    vendor, _, product = device.ids.partition(":")
    sub_vendor, _, sub_product = (device.subsystem or "0000:0000").partition(":")
    starts = {index: give.take(size, wide) for index, size, wide in device.bars}
    rom = give.take(512 << 10, False) if device.rom else None
    rom = option_rom.SHADOW if option_rom.shadowed(device) else rom
    texts = {
        "vendor": f"0x{vendor}",
        "device": f"0x{product}",
        "subsystem_vendor": f"0x{sub_vendor}",
        "subsystem_device": f"0x{sub_product}",
        "class": f"0x{device.class_code:06x}",
        "revision": f"0x{device.revision:02x}",
        "numa_node": str(device.numa),
        "power_state": "D0",
        "d3cold_allowed": "1",
        "enable": "1",
        "irq": "16",
        "driver_override": "(null)",
        "resource": _resource(device, starts, rom),
        "modalias": _modalias(vendor, product, sub_vendor, sub_product, device.class_code),
    }
    if device.boot_vga is not None:
        texts["boot_vga"] = str(int(device.boot_vga))
    if device.reset:
        texts["reset_method"] = " ".join(device.reset)
        world.put(f"{home}/reset", "", 0o200)
    if device.link:
        keys = ("current_link_speed", "max_link_speed", "current_link_width", "max_link_width")
        texts.update(zip(keys, map(str, device.link), strict=True))
    if device.rebar:
        index = next(index for index, size, wide in device.bars if wide and size >= 1 << 28)
        texts[f"resource{index}_resize"] = f"{sum(1 << (size.bit_length() - 21) for size in device.rebar):016x}"
    if device.sriov:
        texts.update(_virtual(device.sriov))
        texts["resource"] += "\n" + _virtual_memory(device.sriov, give)
    for name, text in texts.items():
        world.put(f"{home}/{name}", text + "\n")
    if rom is not None:
        world.put(f"{home}/rom", option_rom.content(spec, device).decode("utf-8", "surrogateescape"))
    if device.class_code >> 8 == 0x0604:
        bus = _bus_below(spec, device.address)
        world.make_dir(f"{home}/pci_bus/{bus}")
    multifunction = sum(other.address[:-2] == device.address[:-2] for other in spec.devices) > 1
    space = config_space.config_bytes(device, multifunction, starts)
    world.put(f"{home}/config", space.decode("utf-8", "surrogateescape"))
    world.put_link(f"{DEVICES}/{device.address}", f"../../../{home.removeprefix('/sys/')}")


def _virtual(sriov: SriovSpec) -> dict[str, str]:
    """Documentation/ABI/testing/sysfs-bus-pci, sriov_*."""
    return {
        "sriov_totalvfs": str(sriov.total),
        "sriov_numvfs": "0",
        "sriov_drivers_autoprobe": "1",
        "sriov_offset": str(sriov.offset),
        "sriov_stride": str(sriov.stride),
        "sriov_vf_device": sriov.product,
    }


def _virtual_memory(sriov: SriovSpec, give: _Starts) -> str:
    """Six lines for the memory of all virtual functions, then four for windows of bridges; 16 KiB for each of them."""
    size = sriov.total * (16 << 10)
    start = give.take(1 << (size - 1).bit_length(), True)
    empty = "0x0000000000000000 0x0000000000000000 0x0000000000000000"
    return "\n".join((f"0x{start:016x} 0x{start + size - 1:016x} 0x{_FLAGS[True]:016x}", *[empty] * 9))


def _bus_below(spec: MachineSpec, bridge: str) -> str:
    """`0000:01`, the bus behind a bridge; an empty slot gets the number of its own device, unused elsewhere."""
    child = next((device.address for device in spec.devices if device.parent == bridge), "")
    return child[:7] if child else f"{bridge[:5]}{0xE0 + int(bridge[8:10], 16):02x}"


def _modalias(vendor: str, product: str, sub_vendor: str, sub_product: str, code: int) -> str:
    numbers = f"v0000{vendor}d0000{product}sv0000{sub_vendor}sd0000{sub_product}".upper()
    for letter in ("V", "D", "SV", "SD"):
        numbers = numbers.replace(f"{letter}0000", f"{letter.lower()}0000")
    return f"pci:{numbers}bc{code >> 16:02X}sc{code >> 8 & 0xFF:02X}i{code & 0xFF:02X}"


def _resource(device: PciSpec, starts: dict[int, int], rom: int | None) -> str:
    lines = ["0x0000000000000000 0x0000000000000000 0x0000000000000000"] * 7
    for index, size, wide in device.bars:
        lines[index] = f"0x{starts[index]:016x} 0x{starts[index] + size - 1:016x} 0x{_FLAGS[wide]:016x}"
    if rom == option_rom.SHADOW:
        end = option_rom.SHADOW + option_rom.SHADOW_SIZE - 1
        lines[6] = f"0x{rom:016x} 0x{end:016x} 0x{option_rom.SHADOW_FLAGS:016x}"
    elif rom is not None:
        lines[6] = f"0x{rom:016x} 0x{rom + (512 << 10) - 1:016x} 0x{_ROM_FLAGS:016x}"
    return "\n".join(lines)


def _memory_nodes(world: World, spec: MachineSpec) -> None:
    """Processors in equal runs and memory in equal parts over the nodes; one node where the machine has no NUMA
    (Documentation/ABI/stable/sysfs-devices-node)."""
    share = spec.cores // spec.nodes
    for number in range(spec.nodes):
        last = spec.cores - 1 if number == spec.nodes - 1 else (number + 1) * share - 1
        home = f"/sys/devices/system/node/node{number}"
        world.put(f"{home}/cpulist", f"{number * share}-{last}\n")
        world.put(f"{home}/meminfo", f"Node {number} MemTotal:       {(spec.memory // spec.nodes) >> 10} kB\n")


def _iommu_units(world: World, spec: MachineSpec) -> None:
    """The units' own directories; the links in /sys/class/iommu appear when the IOMMU is on.

    The `cap` word has its address width minus one in bits 16-21 (0x26: 39 bits).
    """
    if spec.cpu_vendor == "GenuineIntel":
        for name, cap, ecap in (("dmar0", "1c0000c40660462", "29a00f0505e"), ("dmar1", "d2008c40660462", "f050da")):
            home = f"/sys/devices/virtual/iommu/{name}"
            values = {"cap": cap, "ecap": ecap, "version": "4:0", "address": "fed90000", "domains_supported": "256"}
            for key, value in values.items():
                world.put(f"{home}/intel-iommu/{key}", value + "\n")
    else:
        unit = next((device.address for device in spec.devices if device.class_code >> 8 == 0x0806), "")
        home = f"{place(spec, unit)}/iommu/ivhd0" if unit else "/sys/devices/virtual/iommu/ivhd0"
        world.put(f"{home}/amd-iommu/cap", "1f130e0f\n")
        world.put(f"{home}/amd-iommu/features", "58f77ef22294ade\n")


# -- class devices -------------------------------------------------------------------------


def class_links(spec: MachineSpec) -> dict[str, dict[str, dict[str, str]]]:
    """{address: {driver: {path of a link: its text}}}: what is there only while that driver holds the function."""
    links: dict[str, dict[str, dict[str, str]]] = {}
    for address, path, home in _class_devices(spec):
        device = next(device for device in spec.devices if device.address == address)
        up = "../" * (path.count("/") - 2)
        links.setdefault(address, {}).setdefault(device.driver, {})[path] = f"{up}{home.removeprefix('/sys/')}"
    for usb in spec.usb:
        driver = next(device.driver for device in spec.devices if device.address == usb.controller)
        found = dict(usb_tree.links(usb, place(spec, usb.controller)))
        links.setdefault(usb.controller, {}).setdefault(driver, {}).update(found)
    return links


def _class_devices(spec: MachineSpec) -> Iterator[tuple[str, str, str]]:
    """(address, link's path, where it points)"""
    for disk in spec.disks:
        home = disk_home(spec, disk)
        yield disk.controller, f"/sys/block/{disk.name}", home
        yield disk.controller, f"/sys/class/block/{disk.name}", home
        for number in range(1, len(disk.parts) + 1):
            name = partition(disk, number)
            yield disk.controller, f"/sys/class/block/{name}", f"{home}/{name}"
    for nic in spec.nics:
        home = f"{place(spec, nic.address)}/net/{nic.name}"
        yield nic.address, f"/sys/class/net/{nic.name}", home
        if nic.master:
            yield nic.address, f"/sys/devices/virtual/net/{nic.master}/brif/{nic.name}", f"{home}/brport"
            yield nic.address, f"/sys/devices/virtual/net/{nic.master}/lower_{nic.name}", home
    for address, (card, connector, _) in spec.screens.items():
        home = f"{place(spec, address)}/drm/{card}"
        yield address, f"/sys/class/drm/{card}", home
        if nodes.has_render_node(next(device.driver for device in spec.devices if device.address == address)):
            render = f"renderD{nodes.render_number(card)}"
            yield address, f"/sys/class/drm/{render}", f"{place(spec, address)}/drm/{render}"
        yield address, f"/sys/class/drm/{card}-{connector}", f"{home}/{card}-{connector}"


def partition(disk: DiskSpec, number: int) -> str:
    return f"{disk.name}p{number}" if disk.name.startswith("nvme") else f"{disk.name}{number}"


def disk_home(spec: MachineSpec, disk: DiskSpec) -> str:
    home = place(spec, disk.controller)
    if disk.name.startswith("nvme"):
        return f"{home}/nvme/{disk.name[:5]}/{disk.name}"
    port = 1 + sorted(one.name for one in spec.disks if one.controller == disk.controller).index(disk.name)
    return f"{home}/ata{port}/host{port - 1}/target{port - 1}:0:0/{port - 1}:0:0:0/block/{disk.name}"


def _disk(world: World, spec: MachineSpec, disk: DiskSpec) -> None:
    home = disk_home(spec, disk)
    nvme = disk.name.startswith("nvme")
    major, minor = (259, 0) if nvme else (8, 16 * (ord(disk.name[2]) - ord("a")))
    world.put(f"{home}/size", f"{disk.size // 512}\n")
    world.put(f"{home}/dev", f"{major}:{minor}\n")
    world.put(f"{home}/removable", "0\n")
    world.make_dir(f"{home}/slaves")
    world.make_dir(f"{home}/holders")
    model = "Samsung SSD 980 PRO 1TB" if nvme else "Samsung SSD 860"
    by_id = f"{'nvme' if nvme else 'ata'}-{model.replace(' ', '_')}_{disk.serial}"
    world.put(f"/dev/{disk.name}", "")
    world.put_link(f"/dev/disk/by-id/{by_id}", f"../../{disk.name}")
    device = home.rpartition("/")[0] if nvme else home.rpartition("/block/")[0]
    world.put(f"{device}/model", model + "\n")
    world.put_link(f"{home}/device", "../../" if not nvme else "..")
    for number, size in enumerate(disk.parts, 1):
        name = partition(disk, number)
        for key, text in (("partition", str(number)), ("size", str(size // 512)), ("dev", f"{major}:{minor + number}")):
            world.put(f"{home}/{name}/{key}", text + "\n")
        world.make_dir(f"{home}/{name}/holders")
        world.put(f"/dev/{name}", "")
        world.put_link(f"/dev/disk/by-id/{by_id}-part{number}", f"../../{name}")


def _mapper(world: World, spec: MachineSpec) -> None:
    """LVM: swap and root on the volume group `pve`, as the installer makes it."""
    disk = next(disk for disk in spec.disks if spec.root_partitions[0].startswith(disk.name))
    below = f"{disk_home(spec, disk)}/{spec.root_partitions[0]}"
    for number, name in enumerate(("swap", "root")):
        home = f"/sys/devices/virtual/block/dm-{number}"
        for key, text in (
            ("dm/name", f"pve-{name}"),
            ("dm/uuid", f"LVM-{name}"),
            ("size", "16777216"),
            ("dev", f"252:{number}"),
        ):
            world.put(f"{home}/{key}", text + "\n")
        world.put_link(f"{home}/slaves/{spec.root_partitions[0]}", f"../../../../{below.removeprefix('/sys/devices/')}")
        world.put_link(f"{below}/holders/dm-{number}", _up(f"{below}/holders") + f"devices/virtual/block/dm-{number}")
        world.put_link(f"/sys/block/dm-{number}", f"../devices/virtual/block/dm-{number}")
        world.put_link(f"/sys/class/block/dm-{number}", f"../../devices/virtual/block/dm-{number}")
        world.put(f"/dev/dm-{number}", "")
        world.put_link(f"/dev/mapper/pve-{name}", f"../dm-{number}")
        world.put_link(f"/dev/pve/{name}", f"../dm-{number}")


def _up(directory: str) -> str:
    """From inside `directory` up to /sys/."""
    return "../" * (directory.count("/") - 1)


def _nic(world: World, spec: MachineSpec, nic: NicSpec) -> None:
    above = place(spec, nic.address)
    home = f"{above}/net/{nic.name}"
    for key, text in (("address", nic.mac), ("operstate", "up"), ("carrier", "1"), ("type", "1"), ("mtu", "1500")):
        world.put(f"{home}/{key}", text + "\n")
    world.put_link(f"{home}/device", "../../")
    if nic.master:
        world.put_link(f"{home}/master", f"{_up(home)}devices/virtual/net/{nic.master}")
        world.put_link(f"{home}/upper_{nic.master}", f"{_up(home)}devices/virtual/net/{nic.master}")
        world.put(f"{home}/brport/port_id", "0x8001\n")
        world.put_link(f"{home}/brport/bridge", f"{_up(home + '/brport')}devices/virtual/net/{nic.master}")


def _bridge(world: World, spec: MachineSpec) -> None:
    for name in sorted({nic.master for nic in spec.nics if nic.master}):
        home = f"/sys/devices/virtual/net/{name}"
        mac = next(nic.mac for nic in spec.nics if nic.master == name)
        for key, text in (
            ("address", mac),
            ("operstate", "up"),
            ("type", "1"),
            ("bridge/bridge_id", "8000.0442.1a000001"),
        ):
            world.put(f"{home}/{key}", text + "\n")
        world.make_dir(f"{home}/brif")
        world.put_link(f"/sys/class/net/{name}", f"../../devices/virtual/net/{name}")
    world.put("/sys/devices/virtual/net/lo/address", "00:00:00:00:00:00\n")
    world.put("/sys/devices/virtual/net/lo/type", "772\n")
    world.put_link("/sys/class/net/lo", "../../devices/virtual/net/lo")


def _usb(world: World, spec: MachineSpec) -> None:
    usb_tree.lay_down(world, spec.usb, {usb.controller: place(spec, usb.controller) for usb in spec.usb})


def _screens(world: World, spec: MachineSpec) -> None:
    """Cards and connectors: a monitor hangs on the console's card alone."""
    primary = next((device.address for device in spec.devices if device.boot_vga), "")
    for address, (card, connector, framebuffer) in spec.screens.items():
        above = place(spec, address)
        home = f"{above}/drm/{card}"
        world.put(f"{home}/{card}-{connector}/status", "connected\n" if address == primary else "disconnected\n")
        world.put(f"{home}/{card}-{connector}/enabled", "enabled\n" if address == primary else "disabled\n")
        world.put_link(f"{home}/device", "../../")
        number = nodes.render_number(card)
        world.put(f"{home}/dev", f"226:{number - 128}\n")
        world.put(f"{above}/drm/renderD{number}/dev", f"226:{number}\n")
        world.put_link(f"{above}/drm/renderD{number}/device", "../../")
        world.put_link(f"{home}/{card}-{connector}/device", f"../../{card}")
        if address == primary:
            world.put(f"{above}/graphics/fb0/name", framebuffer + "\n")
            world.put_link(f"{above}/graphics/fb0/device", "../../")
    firmware_framebuffer(world)
    for number, name, bound in ((0, "(S) dummy device", 0), (1, "(M) frame buffer device", 1)):
        home = f"/sys/devices/virtual/vtconsole/vtcon{number}"
        world.put(f"{home}/name", name + "\n")
        world.put(f"{home}/bind", f"{bound}\n")
        world.put_link(f"/sys/class/vtconsole/vtcon{number}", f"../../devices/virtual/vtconsole/vtcon{number}")


def firmware_framebuffer(world: World) -> None:
    """Where simpledrm's framebuffer lies; `display` decides whether it is the console."""
    simple = "/sys/devices/platform/simple-framebuffer.0/graphics/fb0"
    world.put(f"{simple}/name", "simpledrmdrmfb\n")
    world.put_link(f"{simple}/device", "../../")


# -- firmware ------------------------------------------------------------------------------


def _firmware(world: World, spec: MachineSpec) -> None:
    intel = spec.cpu_vendor == "GenuineIntel"
    acpi_table(world, "DMAR" if intel else "IVRS")
    acpi_table(world, "FACP")
    option_rom.lay_down_vfct(world, spec)
    if spec.uefi:
        world.put("/sys/firmware/efi/fw_platform_size", "64\n")
        world.put(_SECURE_BOOT, f"\x06\x00\x00\x00{chr(int(spec.secure_boot))}")
    for key, text in (
        ("product_name", spec.product),
        ("board_name", spec.product),
        ("chassis_type", "3"),
        ("sys_vendor", "Simulated"),
    ):
        world.put(f"/sys/devices/virtual/dmi/id/{key}", text + "\n")
    world.put_link("/sys/class/dmi/id", "../../devices/virtual/dmi/id")


def acpi_table(world: World, name: str) -> None:
    """A table with a right header. DMAR: host address width minus one, then flags with bit 0, interrupt remapping."""
    body = bytes((38, 0x01)) + bytes(10) if name == "DMAR" else bytes(12)
    length = (36 + len(body)).to_bytes(4, "little")
    table = name.encode() + length + b"\x01\x00" + b"SIMUL " + b"SIMULATE" + bytes(12) + body
    world.put(f"/sys/firmware/acpi/tables/{name}", table.decode("utf-8", "surrogateescape"))
