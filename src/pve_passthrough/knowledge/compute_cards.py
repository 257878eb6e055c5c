"""NVIDIA's generations, and the cards that are made for servers: no monitor, no fan, drivers of their own.

1. A row is what its source says; what nobody could check is None, or says `unverified`.
2. A generation is told by the number of the chip, because names are missing from old lists.
3. An ID in no row is unknown, not a desktop card.
"""

from __future__ import annotations

from ..model.value import dataclass

NVIDIA, AMD, INTEL = 0x10DE, 0x1002, 0x8086

PROPRIETARY, EITHER, OPEN = "proprietary", "either", "open"
"""Flavours of NVIDIA's kernel modules."""

_MATRIX = (
    "NVIDIA Data Center Drivers, CUDA Toolkit, Driver, and Architecture Matrix; "
    "NVIDIA Driver Installation Guide, Kernel Modules"
)


@dataclass(frozen=True, slots=True)
class Generation:
    """One generation of NVIDIA's chips.

    chips         first and last product number of each block
    flavour       kernel modules that a guest can use: `proprietary`, `either` or `open`
    first_branch  oldest driver branch that knows it, None: older than every supported system's
    last_branch   newest driver branch that knows it, None: still supported
    cuda          first CUDA toolkit that compiles for it
    cuda_before   first CUDA toolkit that no longer does, None: still does
    """

    name: str
    chips: tuple[tuple[int, int], ...]
    flavour: str
    first_branch: int | None
    last_branch: int | None
    cuda: tuple[int, int]
    cuda_before: tuple[int, int] | None
    source: str = _MATRIX


# Blocks of numbers: pci.ids of 2025-06-09; every display function named there falls into the block of its chip.
# Pascal stands before Maxwell: three of its numbers lie in Maxwell's block. Branch 570 for Blackwell: CUDA 12.8, the
# first toolkit that knows it, comes with that driver branch (CUDA 12.8 release notes).
GENERATIONS: tuple[Generation, ...] = (
    Generation(
        "Pascal", ((0x15C2, 0x15C2), (0x15F0, 0x15FF), (0x1725, 0x1725), (0x172E, 0x172F), (0x1B00, 0x1D7F)),
        PROPRIETARY, None, 580, (8, 0), (13, 0),
    ),
    Generation(
        "Maxwell", ((0x1340, 0x147F), (0x1600, 0x16FF), (0x1700, 0x17FF)), PROPRIETARY, None, 580, (6, 5), (13, 0)
    ),
    Generation("Volta", ((0x1D80, 0x1DFF),), PROPRIETARY, None, 580, (9, 0), (13, 0)),
    Generation("Turing", ((0x1E00, 0x1FFF), (0x2180, 0x21FF)), EITHER, None, None, (10, 0), None),
    Generation("Ampere", ((0x2080, 0x20FF), (0x2200, 0x227F), (0x2400, 0x25FF)), EITHER, None, None, (11, 0), None),
    Generation("Hopper", ((0x2300, 0x23FF),), EITHER, None, None, (11, 8), None),
    Generation("Ada", ((0x2680, 0x28FF),), EITHER, None, None, (11, 8), None),
    Generation(
        "Blackwell", ((0x2900, 0x29FF), (0x2B80, 0x2FFF), (0x3180, 0x31FF), (0x3340, 0x33FF)),
        OPEN, 570, None, (12, 8), None,
    ),
    Generation(
        "Kepler", ((0x101E, 0x103F), (0x118F, 0x118F), (0x11B1, 0x11B1)), PROPRIETARY, None, 470, (6, 0), (12, 0)
    ),
)  # fmt: skip


def nvidia_generation(product: int | None) -> Generation | None:
    """The generation of the NVIDIA display function with this product number."""
    if product is None:
        return None
    return next((row for row in GENERATIONS if any(low <= product <= high for low, high in row.chips)), None)


@dataclass(frozen=True, slots=True)
class ComputeCard:
    """A card made for servers.

    outputs   monitor connectors: False none, None: may have some that are switched off (unverified)
    passive   no fan of its own: it needs the server's air
    sriov     has an SR-IOV capability: whole-card passthrough only while sriov_numvfs is 0
    fabric    the board's cards hang together by NVLink and NVSwitch
    """

    vendor: int
    products: frozenset[int]
    name: str
    outputs: bool | None
    passive: bool
    sriov: bool
    fabric: bool
    source: str


_IDS = "pci.ids of 2025-06-09"
_PASSIVE = f"{_IDS}; NVIDIA's server boards are passively cooled (not checked card by card)"
_VF = f"{_PASSIVE}; SR-IOV from Ampere on: NVIDIA vGPU documentation"
_HGX = f"{_IDS}; Proxmox forum thread 179366 (single cards of an HGX board)"


def _nvidia(
    name: str, ids: str, source: str = _PASSIVE, *, outputs: bool | None = False, sriov: bool = False,
    fabric: bool = False,
) -> ComputeCard:  # fmt: skip
    products = frozenset(int(word, 16) for word in ids.split())
    return ComputeCard(NVIDIA, products, name, outputs, True, sriov, fabric, source)


COMPUTE_CARDS: tuple[ComputeCard, ...] = (
    _nvidia("Tesla K20/K40/K80", "101e 101f 1020 1021 1023 1028 1029 102a 102d"),
    _nvidia("Tesla M4", "1431"),
    _nvidia("Tesla M6", "13f3"),
    _nvidia("Tesla M10", "13bd"),
    _nvidia("Tesla M40", "17fd"),
    _nvidia("Tesla M60", "13f2"),
    _nvidia("Tesla P4", "1bb3"),
    _nvidia("Tesla P6", "1bb4"),
    _nvidia("Tesla P10", "1b39"),
    _nvidia("Tesla P40", "1b38"),
    _nvidia("Tesla P100", "15f7 15f8"),
    _nvidia("Tesla P100 SXM2", "15f9"),
    _nvidia("Tesla V100", "1db3 1db4 1db6 1df6"),
    _nvidia("Tesla V100 SXM", "1db1 1db5 1db8 1df5"),
    _nvidia("Tesla T10/T40", "1e37 1e38"),
    _nvidia("Tesla T4", "1eb8"),
    _nvidia("A2/A16", "25b6", _VF, sriov=True),
    _nvidia("A10", "2236 2237 2238", _VF, sriov=True),
    _nvidia("A30", "20b7 20b9", _VF, sriov=True),
    _nvidia("A40", "2235", _VF, outputs=None, sriov=True),
    _nvidia("A100 PCIe", "20b1 20b5 20b8 20f1 20f5 20f6", _VF, sriov=True),
    _nvidia("A100 SXM4", "20b0 20b2 20b3 20f3", _HGX, sriov=True, fabric=True),
    _nvidia("L2", "27b6", _VF, sriov=True),
    _nvidia("L4", "27b8", _VF, sriov=True),
    _nvidia("L20", "26b7 26ba", _VF, outputs=None, sriov=True),
    _nvidia("L40/L40S", "26b5 26b8 26b9 26f5", _VF, outputs=None, sriov=True),
    _nvidia("H100 PCIe", "2313 2321 2322 2331 233a", _VF, sriov=True),
    _nvidia("H200 NVL", "233b", _VF, sriov=True),
    _nvidia(
        "H100/H200/H20 SXM", "2324 2328 2329 232c 2330 2335 2336 2337 2338 2339 233d", _HGX, sriov=True, fabric=True
    ),
    _nvidia("GH200", "2342 2348", _IDS, sriov=True),
    _nvidia("B100/B200/GB200", "2901 2920 2941 29bc", _HGX, sriov=True, fabric=True),
    _nvidia("RTX PRO 6000 Blackwell Server", "2bb5", _VF, outputs=None, sriov=True),
    ComputeCard(
        AMD, frozenset((0x738C, 0x738E, 0x7408, 0x740C, 0x740F, 0x74A0, 0x74A1, 0x74A2, 0x74A5, 0x74A9, 0x74BD)),
        "Instinct MI100 to MI300", False, True, True, False, _IDS,
    ),
    ComputeCard(
        INTEL, frozenset((0x56C0, 0x56C1, 0x56C2)), "Data Center GPU Flex", False, True, True, False,
        f"{_IDS}; kernel: drivers/gpu/drm/xe/xe_pci.c, has_sriov",
    ),
    ComputeCard(
        INTEL, frozenset((0x0B69, 0x0B6E, *range(0x0BD4, 0x0BDC))), "Data Center GPU Max", False, True, True, False,
        _IDS,
    ),
)  # fmt: skip


def compute_card(vendor: int | None, product: int | None) -> ComputeCard | None:
    """The row that names this ID."""
    if vendor is None or product is None:
        return None
    return next((row for row in COMPUTE_CARDS if row.vendor == vendor and product in row.products), None)


NVSWITCHES: dict[int, str] = {0x1AF1: "A100 NVSwitch", 0x22A3: "H100 NVSwitch"}
"""Product numbers of NVIDIA's NVSwitches. Source: pci.ids of 2025-06-09; the V100's is not in the list."""

OTHER_BRIDGE = 0x0680
"""Class and subclass of an NVSwitch, and of old nForce Ethernet too, which sits on bus 0 (kernel: forcedeth.c)."""
