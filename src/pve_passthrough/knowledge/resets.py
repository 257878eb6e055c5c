"""Cards that do not come back from a reset, as rows with a source each.

1. A row is what its source says, no more: reports of users are marked as reports.
2. An ID in no row is not a promise that the card resets well.
"""

from __future__ import annotations

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class ResetRow:
    """Cards of one family.

    certain      False: reports of users, some of them to the contrary
    vendor_reset whether the out-of-tree module vendor-reset knows the card
    """

    vendor: int
    products: frozenset[int]
    family: str
    behaviour: str
    remedy: str
    certain: bool
    vendor_reset: bool
    source: str


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

AMD, NVIDIA = 0x1002, 0x10DE

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
        "kernel: drivers/pci/quirks.c, quirk_no_bus_reset",
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
    ),
)


def reset_row(vendor: int | None, product: int | None) -> ResetRow | None:
    """The row that names this ID."""
    if vendor is None or product is None:
        return None
    return next((row for row in RESETS if row.vendor == vendor and product in row.products), None)
