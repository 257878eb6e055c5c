"""Devices and IOMMU groups out of listings that people paste: lspci in its forms, and the loops over the groups.

1. What a listing does not show is None: `lspci` without `-k` says nothing about drivers, one without `-nn` nothing
   about numbers.
2. Any text may come in; a line that is none of a listing is passed over.
3. Names are kept short and printable; nothing in a listing is trusted.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from ..model.pci import Address, Capabilities, Device
from ..model.value import dataclass

MOST = 4096
NAME = 120

_ADDRESS = r"(?:[0-9a-f]{4,8}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_ROW = re.compile(
    rf"^(?P<lead>.{{0,60}}?)(?<![0-9a-f:.])(?P<address>{_ADDRESS})[\"\s]+(?P<class>[A-Za-z][^:\[\]]{{2,60}}?)"
    r"(?: \[(?P<code>[0-9a-f]{4})\])?: (?P<name>.+)$"
)
_BARE = re.compile(
    rf"^(?P<lead>.{{0,60}}?)(?P<address>{_ADDRESS}) (?P<code>[0-9a-f]{{4}}): (?P<ids>[0-9a-f]{{4}}:[0-9a-f]{{4}})"
)
_PATH = re.compile(rf"iommu_groups/(?P<group>\d{{1,5}})/devices/(?P<address>{_ADDRESS})")
_IDS = re.compile(r"\[([0-9a-f]{4}):([0-9a-f]{4})\](?!.*\[[0-9a-f]{4}:[0-9a-f]{4}\])")
_REVISION = re.compile(r"\(rev ([0-9a-f]{2})\)")
_GROUP = re.compile(r"group[:\s#]*(\d{1,5})\b", re.I)
_DETAIL = re.compile(r"^\s+(?P<key>[A-Za-z][\w /-]{2,40}): ?(?P<value>.*)$")
_BUSES = re.compile(r"primary=[0-9a-f]{2,4}, secondary=(?P<secondary>[0-9a-f]{2})")
_FOUND = re.compile(
    rf"\bpci (?P<address>{_ADDRESS}): \[(?P<vendor>[0-9a-f]{{4}}):(?P<product>[0-9a-f]{{4}})\]"
    r" type (?P<type>[0-9a-f]{2}) class 0x(?P<code>[0-9a-f]{6})"
)
"""Source: kernel, drivers/pci/probe.c, pci_setup_device."""
_BRIDGE = re.compile(rf"\bpci (?P<address>{_ADDRESS}): PCI bridge to \[bus (?P<secondary>[0-9a-f]{{2}})")
_BOOT_VGA = re.compile(rf"\b(?P<address>{_ADDRESS}): vgaarb: setting as boot VGA device")
_SLOT = re.compile(rf"^(?:Slot|Device):\s+(?P<address>{_ADDRESS})$")
_FIELD = re.compile(r"^(?P<key>Class|Vendor|Device|SVendor|SDevice|Rev|Driver|Module|IOMMUGroup):\s+(?P<value>.+)$")
"""`lspci -vmm`, with -nn and -k. Source: lspci(8), machine readable output."""
_QUOTED = re.compile(
    rf"^(?P<address>{_ADDRESS}) \"(?P<class>[^\"]*)\" \"(?P<vendor>[^\"]*)\" \"(?P<product>[^\"]*)\"(?P<rest>.*)$"
)
"""`lspci -mm`."""
_CELLS = re.compile(r"[│|]")
_TABLE_ID = re.compile(r"0x([0-9a-f]{1,6})", re.I)
_ADDING = re.compile(rf"\b(?P<address>{_ADDRESS}): Adding to iommu group (?P<group>\d{{1,5}})\b")

CLASSES: Mapping[str, int] = {
    "VGA compatible controller": 0x0300,
    "3D controller": 0x0302,
    "Display controller": 0x0380,
    "Audio device": 0x0403,
    "Multimedia audio controller": 0x0401,
    "Ethernet controller": 0x0200,
    "Network controller": 0x0280,
    "Non-Volatile memory controller": 0x0108,
    "SATA controller": 0x0106,
    "RAID bus controller": 0x0104,
    "Serial Attached SCSI controller": 0x0107,
    "USB controller": 0x0C03,
    "FireWire (IEEE 1394)": 0x0C00,
    "SMBus": 0x0C05,
    "PCI bridge": 0x0604,
    "ISA bridge": 0x0601,
    "Host bridge": 0x0600,
    "Serial bus controller": 0x0C80,
}
"""Names as in pci.ids, section C; only those that matter here."""


@dataclass(frozen=True, slots=True)
class Listed:
    """One function as a listing shows it. `detailed`: the listing shows capabilities (-vvv, as root)."""

    device: Device
    modules: tuple[str, ...] = ()
    detailed: bool = False
    secondary: int | None = None
    """The bus behind a bridge."""


def listed(text: str) -> tuple[Listed, ...]:
    """Every function that the text lists, by address; details of several listings are joined."""
    found: dict[Address, Listed] = {}
    group: int | None = None
    current: Address | None = None
    columns: list[str] = []
    for line in text.splitlines():
        if _CELLS.match(line.strip()):
            columns = _row_of_table(found, columns, line)
            if columns:
                continue
        if (match := _ADDING.search(line)) or (match := _PATH.search(line)):
            _join(found, Device(Address.parse(match["address"]), iommu_group=int(match["group"])))
        elif "pci " in line and _logged(found, line):
            continue
        elif match := _QUOTED.match(line):
            current = _join(found, _quoted(match))
        elif match := _SLOT.match(line):
            current = _join(found, Device(Address.parse(match["address"])))
        elif current is not None and (match := _FIELD.match(line)):
            found[current] = _field(found[current], match["key"], match["value"].strip())
        elif (match := _ROW.match(line) or _BARE.match(line)) and len(found) < MOST:
            inline = _GROUP.search(match["lead"])
            group = int(inline[1]) if inline else group if _indented(match["lead"]) else None
            current = _join(found, _device(match, group))
        elif current is not None and (detail := _DETAIL.match(line)):
            found[current] = _detailed(found[current], detail["key"], detail["value"])
        elif header := _GROUP.search(line):
            group, current = int(header[1]), None
        elif line.strip():
            current = current if line[:1] in " \t" else None
    return _with_drivers(text, found)


def _logged(found: dict[Address, Listed], line: str) -> bool:
    """What the kernel says while it finds its functions."""
    if match := _FOUND.search(line):
        device = Device(
            Address.parse(match["address"]), vendor=int(match["vendor"], 16), product=int(match["product"], 16),
            class_code=int(match["code"], 16), bridge=match["type"] == "01",
        )  # fmt: skip
        _join(found, device)
    elif match := _BRIDGE.search(line):
        address = _join(found, Device(Address.parse(match["address"]), bridge=True))
        found[address] = replace(found[address], secondary=int(match["secondary"], 16))
    elif match := _BOOT_VGA.search(line):
        address = _join(found, Device(Address.parse(match["address"])))
        found[address] = replace(found[address], device=replace(found[address].device, boot_vga=True))
    return match is not None


def _bracketed(text: str) -> int | None:
    """The number of `NVIDIA Corporation [10de]`, or of `10de` alone."""
    match = re.search(r"\[([0-9a-f]{4})\]$|^([0-9a-f]{4})$", text.strip())
    return int(match[1] or match[2], 16) if match else None


def _quoted(match: re.Match[str]) -> Device:
    code = _bracketed(match["class"])
    code = CLASSES.get(match["class"].strip()) if code is None else code
    revision = re.search(r" -r([0-9a-f]{2})\b", match["rest"])
    return Device(
        Address.parse(match["address"]), vendor=_bracketed(match["vendor"]), product=_bracketed(match["product"]),
        class_code=None if code is None else code << 8, revision=int(revision[1], 16) if revision else None,
        name="".join(letter for letter in match["product"] if letter.isprintable())[:NAME], bridge=code == 0x0604,
    )  # fmt: skip


def _field(one: Listed, key: str, value: str) -> Listed:
    """One line of `lspci -vmm`."""
    number = _bracketed(value)
    if key == "Class":
        number = CLASSES.get(value) if number is None else number
        code = None if number is None else number << 8
        return replace(one, device=replace(one.device, class_code=code, bridge=number == 0x0604))
    if key == "Driver":
        return replace(one, device=replace(one.device, driver=value[:64]))
    if key == "Module":
        return replace(one, modules=(*one.modules, value[:64]))
    if key == "IOMMUGroup":
        return replace(one, device=replace(one.device, iommu_group=int(value))) if value.isdecimal() else one
    names = {"Vendor": "vendor", "Device": "product", "SVendor": "subsystem_vendor", "SDevice": "subsystem_product"}
    if key in names and number is not None:
        return replace(one, device=replace(one.device, **{names[key]: number}))  # type: ignore[arg-type]
    return one


def _row_of_table(found: dict[Address, Listed], columns: list[str], line: str) -> list[str]:
    """A row of what `pvesh get /nodes/NODE/hardware/pci` draws; the columns' names, empty for any other table."""
    cells = [cell.strip() for cell in _CELLS.split(line.strip())[1:-1]]
    if {"id", "iommugroup"} <= set(cells):
        return cells
    if not columns or len(cells) != len(columns):
        return []
    row = dict(zip(columns, cells, strict=True))
    if re.fullmatch(_ADDRESS, row.get("id", "")) and len(found) < MOST:
        numbers = {name: _TABLE_ID.fullmatch(row.get(name, "")) for name in ("vendor", "device", "class")}
        vendor, product, code = (int(match[1], 16) if match else None for match in numbers.values())
        group = int(row["iommugroup"]) if re.fullmatch(r"-?\d{1,5}", row["iommugroup"]) else None
        name = "".join(letter for letter in row.get("device_name", "") if letter.isprintable())[:NAME]
        _join(found, Device(
            Address.parse(row["id"]), vendor=vendor, product=product, class_code=code, name=name, iommu_group=group,
            bridge=code is not None and code >> 8 == 0x0604,
        ))  # fmt: skip
    return columns


def _indented(lead: str) -> bool:
    """Whether a row stands below a heading: most loops indent it, some put the number in brackets."""
    return bool(lead) and not lead.strip(" \t*->|`0123456789()")


def _device(match: re.Match[str], group: int | None) -> Device:
    parts = match.groupdict()
    ids = _IDS.search(parts.get("name") or "") or re.fullmatch(r"(\w{4}):(\w{4})", parts.get("ids") or "")
    revision = _REVISION.search(parts.get("name") or "")
    code = int(parts["code"], 16) if parts["code"] else CLASSES.get((parts.get("class") or "").strip())
    name = re.sub(r" ?\[[0-9a-f]{4}:[0-9a-f]{4}\].*$", "", parts.get("name") or "")
    return Device(
        Address.parse(parts["address"]),
        vendor=int(ids[1], 16) if ids else None,
        product=int(ids[2], 16) if ids else None,
        class_code=None if code is None else code << 8,
        revision=int(revision[1], 16) if revision else None,
        name="".join(letter for letter in name if letter.isprintable())[:NAME],
        iommu_group=group,
        bridge=code == 0x0604,
    )


def _join(found: dict[Address, Listed], device: Device) -> Address:
    """Keep what is known already, add what is new."""
    known = found.get(device.address)
    if known is None:
        found[device.address] = Listed(device)
        return device.address
    had = known.device
    fresh = {
        "vendor": had.vendor if device.vendor is None else device.vendor,
        "product": had.product if device.product is None else device.product,
        "class_code": had.class_code if device.class_code is None else device.class_code,
        "revision": had.revision if device.revision is None else device.revision,
        "name": device.name or had.name,
        "iommu_group": had.iommu_group if device.iommu_group is None else device.iommu_group,
        "bridge": had.bridge or device.bridge,
    }
    found[device.address] = replace(known, device=replace(had, **fresh))  # type: ignore[arg-type]
    return device.address


def _detailed(one: Listed, key: str, value: str) -> Listed:
    """What an indented line below a row adds."""
    device = one.device
    if key == "Kernel driver in use":
        return replace(one, device=replace(device, driver=value.strip()[:64]))
    if key == "Kernel modules":
        return replace(one, modules=tuple(name.strip()[:64] for name in value.split(",")))
    if key == "IOMMU group" and value.strip().isdecimal():
        return replace(one, device=replace(device, iommu_group=int(value)))
    if key == "Subsystem" and (ids := _IDS.search(value)):
        return replace(one, device=replace(device, subsystem_vendor=int(ids[1], 16), subsystem_product=int(ids[2], 16)))
    if key == "Capabilities" and "access denied" not in value:
        return replace(one, detailed=True, device=_capable(device, value))
    if key == "ACSCap":
        known = device.capabilities or Capabilities()
        return replace(one, device=replace(device, capabilities=replace(known, acs=_acs(value), extended=True)))
    if key == "Bus" and (match := _BUSES.search(value)):
        return replace(one, secondary=int(match["secondary"], 16))
    if key == "ATSCtl":
        known = device.capabilities or Capabilities()
        return replace(one, device=replace(device, capabilities=replace(known, ats="Enable+" in value)))
    return one


def _capable(device: Device, value: str) -> Device:
    known = device.capabilities or Capabilities()
    if " Express " in value:
        kind = {"Root Port": 4, "Upstream Port": 5, "Downstream Port": 6, "Root Complex Integrated": 9}
        port = next((number for word, number in kind.items() if word in value), 0)
        known = replace(known, express=port)
    known = replace(known, extended=known.extended or bool(re.match(r"\[[0-9a-f]{3} ", value)))
    if "Single Root I/O Virtualization" in value:
        known = replace(known, sriov=True)
    return replace(device, capabilities=known)


def _acs(flags: str) -> int:
    """The bits of lspci's words, in the order of the capability. Source: pciutils ls-ecaps.c, cap_acs."""
    words = ("SrcValid", "TransBlk", "ReqRedir", "CmpltRedir", "UpstreamFwd", "EgressCtrl", "DirectTrans")
    return sum(1 << number for number, word in enumerate(words) if f"{word}+" in flags)


def _with_drivers(text: str, found: Mapping[Address, Listed]) -> tuple[Listed, ...]:
    """Where the listing shows drivers at all, a function without the line has none."""
    shows = "Kernel driver in use:" in text
    return tuple(
        replace(one, device=replace(one.device, driver="")) if shows and one.device.driver is None else one
        for _, one in sorted(found.items())
    )
