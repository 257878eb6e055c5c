"""PCI functions out of sysfs.

1. A function's directory is listed once, and only what is there is read: hosts have hundreds of functions.
2. Every function that the bus lists becomes a `Device`, however little of it can be read; each hole is a gap.
3. "There is none" is said only when the kernel would have shown it: an attribute missing from a directory that lacks
   even what the kernel always creates is unknown (a tree taken from a log, a vanished function).
4. Attributes and their meaning: Documentation/ABI/testing/sysfs-bus-pci and drivers/pci/pci-sysfs.c.
"""

from __future__ import annotations

from ..model.pci import NO_GROUP, Address, Bar, Device, Link
from ..model.value import dataclass
from .asking import Asking
from .config_space import STANDARD, ConfigSpace, read_config, sizes_of_bitmap
from .names import Names

DEVICES = "/sys/bus/pci/devices"
DRIVERS = "/sys/bus/pci/drivers"
GROUPS = "/sys/kernel/iommu_groups"
IOMMUS = "/sys/class/iommu"

_ALWAYS = frozenset({"config", "resource", "enable"})
"""Attributes that pci-sysfs.c creates for every function: a directory with all of them is complete."""
_BRIDGES = frozenset({0x0604, 0x0609})
_VGA = 0x0300
_DISPLAY = 0x03
_NO_CONFIG = ConfigSpace(0)

# struct resource's flags as the `resource` file shows them: include/linux/ioport.h
_IO, _PREFETCH, _MEM_64 = 0x100, 0x2000, 0x100000
_ROM = 6
_REGISTER_64 = 0x4
"""Type bits of a 64-bit memory BAR's register (PCI_BASE_ADDRESS_MEM_TYPE_64)."""
_UNKNOWN_WIDTH = 0xFF
"""PCIE_LNK_WIDTH_UNKNOWN, include/linux/pci.h."""


@dataclass(frozen=True, slots=True)
class _Here:
    """One function's directory: `have` names what is in it, `chain` the PCI functions above it, outermost first."""

    name: str
    path: str
    have: frozenset[str]
    chain: tuple[Address, ...]

    @property
    def complete(self) -> bool:
        return self.have >= _ALWAYS


@dataclass(frozen=True, slots=True)
class _Bus:
    """What the whole bus tells about a function's missing links.

    drivers   whether this host shows drivers at all
    groups    whether this host would show a group if there were one
    members   group by address, from the groups' side, for trees that kept only that side
    """

    drivers: bool
    groups: bool
    members: dict[str, int]


def probe_pci(
    ask: Asking, names: Names, *, glance: bool = False, named: frozenset[Address] = frozenset()
) -> tuple[Device, ...]:
    """All PCI functions, sorted by address; empty with a gap when the bus itself cannot be seen.

    `glance`: read the configuration space of displays and of the functions `named` only.
    """
    entries = ask.names(DEVICES, "pci.devices")
    if entries is None:
        ask.gap("pci.devices", "the kernel shows no PCI bus", DEVICES)
        return ()
    found: dict[Address, _Here] = {}
    for name in entries:
        address = _address(name)
        if address is None or address in found:
            ask.gap("pci.devices", "not the name of a PCI function", ascii(name))
        else:
            found[address] = _here(ask, name)
    bus = _bus(ask, tuple(found.values()))
    briefly = {address: glance and address not in named for address in found}
    return tuple(_device(ask, names, bus, address, found[address], briefly[address]) for address in sorted(found))


# -- where things are ------------------------------------------------------------------------


def _address(name: str) -> Address | None:
    """The address behind a kernel's name; names without a domain are none."""
    try:
        return Address.parse(name) if name.count(":") == 2 else None
    except ValueError:
        return None


def _here(ask: Asking, name: str) -> _Here:
    """Follow the bus' link by text, so that later questions need not follow it again."""
    path = f"{DEVICES}/{name}"
    chain: tuple[Address, ...] = ()
    target = ask.link(path, "pci.parent")
    if target is not None and target.endswith(f"/{name}"):
        path = _joined(DEVICES, target)
        above = (_address(part) for part in target.split("/")[:-1] if ":" in part)
        chain = tuple(address for address in above if address is not None)
    listed = ask.names(path, "pci.devices")
    if listed is None:
        ask.gap("pci.devices", "the function's directory could not be listed", name)
    return _Here(name, path, frozenset(listed or ()), chain)


def _joined(directory: str, target: str) -> str:
    """`target`, a link's text in `directory`, as an absolute path."""
    parts = [] if target.startswith("/") else directory.split("/")[1:]
    for part in target.split("/"):
        if part == "..":
            del parts[-1:]
        elif part not in {"", "."}:
            parts.append(part)
    return "/" + "/".join(parts)


def _bus(ask: Asking, functions: tuple[_Here, ...]) -> _Bus:
    drivers = any("driver" in here.have for here in functions) or ask.names(DRIVERS, "pci.driver") is not None
    groups = ask.names(GROUPS, "pci.iommu_group")
    linked = any("iommu_group" in here.have for here in functions)
    members: dict[str, int] = {}
    if groups and not linked:
        for group in groups:
            if group.isdecimal() and len(group) < 10:
                listed = ask.names(f"{GROUPS}/{group}/devices", "pci.iommu_group") or ()
                members.update(dict.fromkeys(listed, int(group)))
    known = linked or groups is not None or ask.names(IOMMUS, "pci.iommu_group") is not None
    return _Bus(drivers, known, members)


# -- one function ----------------------------------------------------------------------------


def _device(ask: Asking, names: Names, bus: _Bus, address: Address, here: _Here, glance: bool) -> Device:
    if not here.have:
        return Device(address, parent=here.chain[-1] if here.chain else None)
    # Reading the configuration space resumes a sleeping function (pci_read_config), so its power state comes first.
    power_state = _optional(ask, here, "power_state")
    vendor = _number(ask, here, "vendor", 0xFFFF)
    product = _number(ask, here, "device", 0xFFFF)
    class_code = _number(ask, here, "class", 0xFFFFFF)
    passed_over = glance and class_code is not None and class_code >> 16 != _DISPLAY
    config = _left_out(ask, here) if passed_over else _config(ask, here)
    vendor_name, name = names.lookup(vendor, product)
    bars, rom_window = _bars(ask, here, config)
    return Device(
        address,
        vendor,
        product,
        class_code,
        _revision(ask, here, config),
        _number(ask, here, "subsystem_vendor", 0xFFFF),
        _number(ask, here, "subsystem_device", 0xFFFF),
        vendor_name,
        name,
        driver=_driver(ask, bus, here),
        driver_override=_override(ask, here),
        iommu_group=_group(ask, bus, here),
        bridge="pci_bus" in here.have or (class_code is not None and class_code >> 8 in _BRIDGES),
        parent=here.chain[-1] if here.chain else None,
        boot_vga=_boot_vga(ask, here, class_code),
        resettable=True if "reset" in here.have else (False if here.complete else None),
        reset_methods=_reset_methods(ask, here),
        d3cold_allowed=_flag(ask, here, "d3cold_allowed"),
        power_state=power_state,
        numa_node=_integer(ask, here, "numa_node"),
        link=_link(ask, here, config),
        bars=bars,
        option_rom=True if "rom" in here.have else rom_window,
        capabilities=config.capabilities,
        sriov_total=_count(ask, here, "sriov_totalvfs"),
        sriov_active=_count(ask, here, "sriov_numvfs"),
        physical_function=_relative(ask, here, "physfn"),
        virtual_functions=_virtual_functions(ask, here),
        mediated_types=_mediated_types(ask, here),
        nvidia_types="nvidia" in here.have,
        serial=config.serial,
    )


def _optional(ask: Asking, here: _Here, name: str) -> str | None:
    """Trimmed text of an attribute that not every function has; None when this one has not."""
    if name not in here.have:
        return None
    text = ask.need(f"{here.path}/{name}", f"pci.{name}")
    return None if text is None else text.strip()


def _malformed(ask: Asking, here: _Here, name: str, text: str) -> None:
    ask.gap(f"pci.{name}", f"not a value that the kernel writes: {text[:40]!a}", here.name)


def _number(ask: Asking, here: _Here, name: str, limit: int) -> int | None:
    """A hexadecimal attribute of every function."""
    text = _optional(ask, here, name)
    if text is None:
        if name not in here.have:
            ask.gap(f"pci.{name}", "the kernel's attribute is missing", here.name)
        return None
    try:
        number = int(text, 16)
    except ValueError:
        number = -1
    if not 0 <= number <= limit:
        _malformed(ask, here, name, text)
        return None
    return number


def _integer(ask: Asking, here: _Here, name: str) -> int | None:
    text = _optional(ask, here, name)
    if text is None:
        return None
    if len(text) > 20 or not text.removeprefix("-").isdecimal():
        _malformed(ask, here, name, text)
        return None
    return int(text)


def _count(ask: Asking, here: _Here, name: str) -> int | None:
    """A number of virtual functions; 0 when a complete directory has no such attribute: no SR-IOV."""
    if name not in here.have:
        return 0 if here.complete else None
    number = _integer(ask, here, name)
    if number is not None and number < 0:
        _malformed(ask, here, name, str(number))
        return None
    return number


def _flag(ask: Asking, here: _Here, name: str) -> bool | None:
    text = _optional(ask, here, name)
    if text is None or text in {"0", "1"}:
        return None if text is None else text == "1"
    _malformed(ask, here, name, text)
    return None


def _target(ask: Asking, here: _Here, name: str) -> str | None:
    """Last component of a link's text."""
    text = ask.link(f"{here.path}/{name}", f"pci.{name}")
    last = "" if text is None else text.rpartition("/")[2]
    if not last:
        ask.gap(f"pci.{name}", "the link could not be followed", here.name)
    return last or None


def _relative(ask: Asking, here: _Here, name: str) -> Address | None:
    """The function that a link points at."""
    if name not in here.have:
        return None
    last = _target(ask, here, name)
    address = None if last is None else _address(last)
    if last is not None and address is None:
        _malformed(ask, here, name, last)
    return address


# -- binding ---------------------------------------------------------------------------------


def _driver(ask: Asking, bus: _Bus, here: _Here) -> str | None:
    if "driver" in here.have:
        return _target(ask, here, "driver")
    if bus.drivers:
        return ""
    ask.gap("pci.driver", "neither a driver nor the directory of drivers is to be seen", here.name)
    return None


def _override(ask: Asking, here: _Here) -> str | None:
    """Empty when none is set; the kernel prints its null pointer as `(null)`."""
    text = _optional(ask, here, "driver_override")
    return "" if text == "(null)" else text


def _group(ask: Asking, bus: _Bus, here: _Here) -> int | None:
    if "iommu_group" in here.have:
        last = _target(ask, here, "iommu_group")
        if last is not None and not (last.isdecimal() and len(last) < 10):
            _malformed(ask, here, "iommu_group", last)
            return None
        return None if last is None else int(last)
    if here.name in bus.members:
        return bus.members[here.name]
    if bus.groups:
        return NO_GROUP
    ask.gap("pci.iommu_group", f"neither a group nor {GROUPS} nor {IOMMUS} is to be seen", here.name)
    return None


# -- what it is ------------------------------------------------------------------------------


def _left_out(ask: Asking, here: _Here) -> ConfigSpace:
    """Reading it resumes a sleeping function and takes a device access per four bytes."""
    ask.gap("pci.config", "left out of a glance, which looks into displays only", here.name)
    return _NO_CONFIG


def _config(ask: Asking, here: _Here) -> ConfigSpace:
    if "config" not in here.have:
        ask.gap("pci.config", "the configuration space is missing", here.name)
        return _NO_CONFIG
    path = f"{here.path}/config"
    data = ask.head(path, STANDARD, "pci.config")
    if data is None:
        ask.gap("pci.config", "the configuration space could not be read", here.name)
        return _NO_CONFIG
    config = read_config(data)
    if config.capabilities is not None and config.capabilities.express is not None:
        # Only PCI Express has more than 256 bytes; each further byte is a slow access to the device.
        config = read_config(ask.data(path, "pci.config") or data)
    if not config.answering:
        ask.gap("pci.config", "the function does not answer: fewer than 64 bytes, or all of them FF", here.name)
    elif config.capabilities is None:
        ask.gap("pci.config", f"only {config.length} of at least {STANDARD} bytes are readable", here.name)
    elif config.capabilities.express is not None and not config.capabilities.extended:
        ask.gap("pci.config.extended", "the extended configuration space is not readable", here.name)
    return config


def _revision(ask: Asking, here: _Here, config: ConfigSpace) -> int | None:
    """From the configuration space, which was read anyway; the attribute is younger (kernel 4.10)."""
    return _number(ask, here, "revision", 0xFF) if config.revision is None else config.revision


def _boot_vga(ask: Asking, here: _Here, class_code: int | None) -> bool | None:
    """The attribute is shown for VGA controllers alone (pci_dev_attrs_are_visible)."""
    if "boot_vga" in here.have:
        return _flag(ask, here, "boot_vga")
    return False if class_code is not None and class_code >> 8 != _VGA else None


def _reset_methods(ask: Asking, here: _Here) -> tuple[str, ...] | None:
    """In the kernel's order; empty when there is none or all were disabled, None before kernel 5.15."""
    text = _optional(ask, here, "reset_method")
    if text is not None:
        return tuple(text.split())
    return () if here.complete and "reset" not in here.have else None


def _link(ask: Asking, here: _Here, config: ConfigSpace) -> Link | None:
    """From the attributes, else from the configuration space. A function without a link shows unknown values."""
    if "max_link_speed" not in here.have:
        return config.link
    speeds = [_speed(_optional(ask, here, f"{which}_link_speed")) for which in ("current", "max")]
    widths = [_width(_optional(ask, here, f"{which}_link_width")) for which in ("current", "max")]
    if speeds[1] is None and not widths[1]:
        return config.link
    return Link(speeds[0], widths[0], speeds[1], widths[1])


def _speed(text: str | None) -> float | None:
    """`16.0 GT/s PCIe`, `8 GT/s`, `Unknown speed`."""
    head, _, unit = (text or "").partition(" ")
    if not unit.startswith("GT/s") or len(head) > 8 or not head.replace(".", "", 1).isdecimal():
        return None
    return float(head)


def _width(text: str | None) -> int | None:
    if text is None or len(text) > 3 or not text.isdecimal():
        return None
    width = int(text)
    return None if width >= _UNKNOWN_WIDTH else width


def _bars(ask: Asking, here: _Here, config: ConfigSpace) -> tuple[tuple[Bar, ...] | None, bool | None]:
    """Address windows 0 to 6, and whether window 6, the expansion ROM, exists."""
    text = _optional(ask, here, "resource")
    if text is None:
        if "resource" not in here.have:
            ask.gap("pci.resource", "the kernel's attribute is missing", here.name)
        return None, None
    found: list[Bar] = []
    for index, line in enumerate(text.split("\n")[: _ROM + 1]):
        if line.startswith("0x0000000000000000 0x0000000000000000 0x0000000000000000"):
            found += _unplaced(ask, here, config, index, text)
            continue
        bar = _bar(ask, here, config, index, line)
        if bar is None:
            _malformed(ask, here, "resource", line)
            return None, None
        found.append(bar)
    return tuple(found), any(bar.index == _ROM for bar in found)


def _bar(ask: Asking, here: _Here, config: ConfigSpace, index: int, line: str) -> Bar | None:
    """`start end flags`; a window that the kernel could not place has flags and the size 0."""
    try:
        start, end, flags = (int(word, 16) for word in line.split())
    except ValueError:
        return None
    if min(start, end, flags) < 0:
        return None
    size = end - start + 1 if end > start else 0
    sizes = _sizes(ask, here, config, index)
    return Bar(index, start, size, bool(flags & _IO), bool(flags & _MEM_64), bool(flags & _PREFETCH), sizes)


def _unplaced(ask: Asking, here: _Here, config: ConfigSpace, index: int, text: str) -> list[Bar]:
    """A BAR that the kernel gave up on: its resource is cleared (setup-bus.c, reset_resource), and only the device
    itself still says that it is there. Told apart from "no BAR" for 64-bit and for resizable ones alone: a 32-bit
    register of zeros may be either. A file of zeros beside registers with addresses tells nothing (trees made from
    what lspci printed have such files)."""
    if index >= len(config.registers):
        return []
    register, above = config.registers[index], (*config.registers, 0)[index + 1]
    wide = register & 0x7 == _REGISTER_64
    if not (wide or index in config.rebar) or _upper_half(config.registers, index):
        return []
    addressed = register & ~0xF or (wide and above)
    if addressed and not text.strip("0x \n"):
        return []
    size = config.rebar_now.get(index, 0)
    return [Bar(index, 0, size, False, wide, bool(register & 0x8), _sizes(ask, here, config, index))]


def _upper_half(registers: tuple[int, ...], index: int) -> bool:
    """Whether this register is the second half of a 64-bit BAR."""
    return index > 0 and registers[index - 1] & 0x7 == _REGISTER_64 and not _upper_half(registers, index - 1)


def _sizes(ask: Asking, here: _Here, config: ConfigSpace, index: int) -> tuple[int, ...]:
    name = f"resource{index}_resize"
    if name not in here.have:
        return config.rebar.get(index, ())
    text = _optional(ask, here, name)
    try:
        return sizes_of_bitmap(int(text, 16) & 0xFFFFFFFFFFF) if text else ()
    except ValueError:
        _malformed(ask, here, name, text or "")
        return ()


# -- parts of one device ---------------------------------------------------------------------


def _virtual_functions(ask: Asking, here: _Here) -> tuple[Address, ...]:
    links = [name for name in here.have if name.startswith("virtfn") and name[6:].isdecimal() and len(name) < 12]
    links.sort(key=lambda name: int(name[6:]))
    found = (_relative(ask, here, name) for name in links)
    return tuple(address for address in found if address is not None)


def _mediated_types(ask: Asking, here: _Here) -> tuple[str, ...]:
    """What `mdev=` of a hostpci line may name: mediated types, or `nvidia-NUMBER` for each type of a virtual function
    of NVIDIA's driver since kernel 6.8 (lines `NUMBER : NAME` of nvidia/creatable_vgpu_types)."""
    found: tuple[str, ...] = ()
    if "mdev_supported_types" in here.have:
        found = ask.names(f"{here.path}/mdev_supported_types", "pci.mdev_supported_types") or ()
    if "nvidia" in here.have:
        text = ask.text(f"{here.path}/nvidia/creatable_vgpu_types", "pci.nvidia") or ""
        numbers = (line.partition(":")[0].strip() for line in text.split("\n"))
        found += tuple(f"nvidia-{number}" for number in numbers if number.isdecimal())
    return found
