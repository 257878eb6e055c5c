"""How devices are reset: the kernel's methods, and the devices that resets trouble, as rows with a source each.

1. A row is what its source says, no more: reports of users are marked as reports.
2. An ID in no row is not a promise that the device resets well.
"""

from __future__ import annotations

from collections.abc import Iterable

from ..model.pci import Device
from ..model.value import dataclass

METHODS = ("device_specific", "acpi", "flr", "af_flr", "pm", "bus", "cxl_bus")
"""All methods in the order in which the kernel tries them (6.18: drivers/pci/pci.c, pci_reset_fn_methods)."""

MEANINGS = {
    "device_specific": "a sequence that the kernel, or a module such as vendor-reset, knows for this very device",
    "acpi": "the firmware's own method _RST",
    "flr": "function level reset: this function alone",
    "af_flr": "function level reset of a conventional function (Advanced Features)",
    "pm": "to D3hot and back to D0: this function alone",
    "bus": "reset of the bus below the bridge: refused when another function is on that bus",
    "cxl_bus": "reset of the bus below a CXL port",
}

METHOD_CHOICE = (5, 15)
"""From this kernel on `reset_method` can be read and written (kernel, ABI/testing/sysfs-bus-pci)."""

START_GOES_ON = (8, 2, 6)
"""From this qemu-server on a failing reset at guest start is a warning only (its changelog, commit 458b487b)."""

NEW_HEADERS = (6, 12)
"""From this kernel on vendor-reset builds only from a tree of 2026-05-31 or later (its issues 86, 104 and 105)."""


@dataclass(frozen=True, slots=True)
class ResetRow:
    """Cards of one family.

    products     empty: the row is not found by ID but by what else is known of the device, see `rows_of`
    certain      False: reports of users, some of them to the contrary
    vendor_reset whether the out-of-tree module vendor-reset knows the card
    doubted      methods that hang the device, or are reported to
    absent       methods that the kernel never offers for the device, whatever its configuration space promises
    offers       methods that the kernel has for the device beside those that its configuration space promises
    handled      the kernel knows and does the right thing by itself: nothing is to be done
    """

    vendor: int
    products: frozenset[int]
    family: str
    behaviour: str
    remedy: str
    certain: bool
    vendor_reset: bool
    source: str
    doubted: tuple[str, ...] = ()
    absent: tuple[str, ...] = ()
    offers: tuple[str, ...] = ()
    handled: bool = False


def _ids(text: str) -> frozenset[int]:
    """Hex numbers and ranges: `67c0 6860-6864`."""
    found: set[int] = set()
    for word in text.split():
        first, _, last = word.partition("-")
        found.update(range(int(first, 16), int(last or first, 16) + 1))
    return frozenset(found)


_DB = "vendor-reset: src/device-db.h (2024-04)"
_NO_FLR = (
    "it has no usable function level reset: after the guest stops, the card often stays dead until the host reboots"
)
_MODULE = (
    "install the DKMS module vendor-reset (master of 2026-05-31 or later on kernels from 6.12 on), let a udev rule "
    "write device_specific to the function's reset_method, and load it before the first use"
)
_USERS = "test one start, stop and start again before relying on it; let the guest switch the card off at shutdown"

_QUIRKS = "kernel: drivers/pci/quirks.c"
_SPECIFIC = "the kernel has a reset sequence of its own for it"
_KEEP_FIRST = "leave device_specific first in reset_method"
_HANDLED = "nothing to do: the kernel chooses another way by itself"

AMD, NVIDIA, INTEL, AMD_CPU = 0x1002, 0x10DE, 0x8086, 0x1022
MEDIATEK, SAMSUNG, SOLIDIGM = 0x14C3, 0x144D, 0x025E

RESETS: tuple[ResetRow, ...] = (
    ResetRow(
        AMD,
        _ids("67c0 67c1 67c2 67c4 67c7 67d0 67df 67c8 67c9 67ca 67cc 67cf 6fdf"),
        "AMD Polaris 10",
        _NO_FLR,
        _MODULE,
        True,
        True,
        _DB,
    ),
    ResetRow(
        AMD, _ids("67e0 67e3 67e8 67eb 67ef 67ff 67e1 67e7 67e9"), "AMD Polaris 11", _NO_FLR, _MODULE, True, True, _DB
    ),
    ResetRow(AMD, _ids("6980 6981 6985 6986 6987 6995 6997 699f"), "AMD Polaris 12", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("6860-6864 6867-686f 687f"), "AMD Vega 10", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("66a0-66a4 66a7 66af"), "AMD Vega 20", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("7310 7312 7318 7319 731a 731b 731e 731f"), "AMD Navi 10", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("7340 7341 7347 734f"), "AMD Navi 14", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("7360 7362"), "AMD Navi 12", _NO_FLR, _MODULE, True, True, _DB),
    ResetRow(AMD, _ids("738c"), "AMD Arcturus", _NO_FLR, _MODULE, True, True, _DB),
    # RDNA2 to RDNA4: IDs of the chips named in the reports (Navi 21, 23, 31, 32, 44 and 48).
    ResetRow(
        AMD,
        _ids("73bf 73af 73a5 73ff 747e 744c 7550 7590"),
        "AMD RDNA2 to RDNA4",
        "users report that some boards fail to reset, others that they reset well",
        _USERS,
        False,
        False,
        "vendor-reset issues 41, 53, 65, 97 and 107",
    ),
    ResetRow(
        NVIDIA,
        _ids("2340-237f"),
        "NVIDIA H100 class",
        "the kernel never resets its bus; only a function level reset is used",
        "nothing to do on these kernels",
        True,
        False,
        f"{_QUIRKS}, quirk_no_bus_reset",
        absent=("bus",),
        handled=True,
    ),
    ResetRow(
        NVIDIA,
        _ids("2b85 2b87 2b8c 2c05"),
        "NVIDIA Blackwell (RTX 50)",
        "users report that a function level reset hangs the card and freezes the host; others report the opposite",
        "choose reset_method per card after a test, and keep the NVIDIA driver off the host",
        False,
        False,
        "NVIDIA open-gpu-kernel-modules issues 853 and 1353",
        doubted=("flr", "bus"),
    ),
    # 1487 sound, 148c and 149c USB, 7901 SATA: functions of the processor and of its chipset.
    ResetRow(
        AMD_CPU,
        _ids("1487 148c 149c 7901"),
        "AMD Matisse and Starship",
        "it offers a function level reset and hangs on it; the kernel leaves that one out",
        _HANDLED,
        True,
        False,
        f"{_QUIRKS}, quirk_no_flr",
        absent=("flr", "af_flr"),
        handled=True,
    ),
    ResetRow(
        INTEL,
        _ids("1502 1503"),
        "Intel 82579",
        "a function level reset may hang it; the kernel leaves that one out",
        _HANDLED,
        True,
        False,
        f"{_QUIRKS}, quirk_no_flr",
        absent=("flr", "af_flr"),
        handled=True,
    ),
    ResetRow(
        MEDIATEK,
        _ids("0616"),
        "MediaTek MT7922",
        "a function level reset hangs it; the kernel leaves that one out",
        _HANDLED,
        True,
        False,
        f"{_QUIRKS}, quirk_no_flr",
        absent=("flr", "af_flr"),
        handled=True,
    ),
    ResetRow(
        SAMSUNG,
        _ids("a804"),
        "Samsung NVMe a804",
        _SPECIFIC,
        _KEEP_FIRST,
        True,
        False,
        f"{_QUIRKS}, pci_dev_reset_methods",
        offers=("device_specific",),
        handled=True,
    ),
    ResetRow(
        INTEL,
        _ids("0953 0a54"),
        "Intel NVMe 0953 and 0a54",
        _SPECIFIC,
        _KEEP_FIRST,
        True,
        False,
        f"{_QUIRKS}, pci_dev_reset_methods",
        offers=("device_specific",),
        handled=True,
    ),
    ResetRow(
        SOLIDIGM,
        _ids("f1ac"),
        "Solidigm NVMe f1ac",
        _SPECIFIC,
        _KEEP_FIRST,
        True,
        False,
        f"{_QUIRKS}, pci_dev_reset_methods",
        offers=("device_specific",),
        handled=True,
    ),
)

ATI_VGA = ResetRow(
    AMD,
    frozenset(),
    "AMD and ATI display",
    "a change of the power state does not reset it, whatever it promises; the kernel leaves that one out",
    _HANDLED,
    True,
    False,
    f"{_QUIRKS}, quirk_no_pm_reset",
    absent=("pm",),
    handled=True,
)
"""Every display (class 0300) of vendor 1002 that is not on a root bus."""

AMD_APU = ResetRow(
    AMD,
    frozenset(),
    "AMD processor graphics",
    "it has no reset that works: a second start of the guest fails until the host reboots",
    "pass its companion functions along, avoid stopping and restarting the guest; in a Windows guest the service "
    "RadeonResetBugFix switches the card off at shutdown; vendor-reset does not know it",
    True,
    False,
    "ryzen-gpu-passthrough-proxmox README (2026-01-28)",
)
"""A display of vendor 1002 in one slot with functions of vendor 1022."""

INTEL_500 = ResetRow(
    INTEL,
    frozenset(),
    "Intel processor graphics on a 500-series board",
    "users report that a function level reset never ends there and the host freezes",
    "use GVT-g or a virtual function, or a kernel that is patched for it; choose another method only if it has one",
    False,
    False,
    "i915ovmfPkg issue 23; gvt-linux issue 189",
    doubted=("flr",),
)
"""The display 00:02.0 of a board whose chipset is of that series; the chipset's IDs below are unverified."""

_SERIES_500 = range(0x4380, 0x43A0)
"""Product numbers of the chipset's bridge 00:1f.0; the list of PCI IDs has 438b, the rest of it is unverified."""

D3COLD_REMEDY = (
    "keep it out of D3cold (d3cold_allowed 0), and if it sticks in D3 under vfio-pci, options vfio-pci "
    "disable_idle_d3=1 for all its devices; pcie_port_pm=off on the kernel command line keeps the ports awake"
)
"""Source: reports "stuck in D3" and "device inaccessible" (vm-curator 60 and 63, vendor-reset 76); kernel:
drivers/vfio/pci/vfio_pci.c, disable_idle_d3; admin-guide/kernel-parameters.txt, pcie_port_pm."""


def reset_row(vendor: int | None, product: int | None) -> ResetRow | None:
    """The row that names this ID."""
    if vendor is None or product is None:
        return None
    return next((row for row in RESETS if row.vendor == vendor and product in row.products), None)


def on_same_bus(device: Device, others: Iterable[Device]) -> tuple[Device, ...]:
    """Other functions on the function's bus. The kernel resets a bus for one function only when there are none.

    A root bus has no bridge that could reset it, so nobody on it counts. Source: drivers/pci/pci.c,
    pci_parent_bus_reset, pci_dev_reset_slot_function (never for a multi-function device).
    """
    if device.parent is None:
        return ()
    here = device.address[:2]
    return tuple(one for one in others if one.address[:2] == here and one.address != device.address)


def effective(device: Device, others: Iterable[Device]) -> tuple[str, ...] | None:
    """The enabled methods that the kernel would carry out, None when nobody could say.

    Function 0 of a card shows `bus` although it has companions: it was asked before they were found.
    """
    if device.reset_methods is None:
        return () if device.resettable is False else None
    multi = any(one.address.slot == device.address.slot for one in on_same_bus(device, others))
    return tuple(method for method in device.reset_methods if method != "bus" or not multi)


def rows_of(device: Device, others: Iterable[Device]) -> tuple[ResetRow, ...]:
    """Every row that says something about the device; `others` are the machine's devices."""
    found = [row for row in (reset_row(device.vendor, device.product),) if row is not None]
    everything = tuple(others)
    if device.vendor == AMD and device.subclass == 0x0300 and device.address.bus != 0:
        found.append(ATI_VGA)
    if device.vendor == AMD and device.is_display:
        slot = device.address.slot
        found += [AMD_APU] if any(o.vendor == AMD_CPU and o.address.slot == slot for o in everything) else []
    if device.vendor == INTEL and device.is_display and device.address[1:] == (0, 2, 0):
        boards = (o.product for o in everything if o.vendor == INTEL and o.address[1:] == (0, 0x1F, 0))
        found += [INTEL_500] if any(product in _SERIES_500 for product in boards if product is not None) else []
    return tuple(found)
