"""Builds of the kernel and of QEMU that are known for a fault, as rows with a source each.

1. A version alone is no evidence: a row speaks only where `fits` is found in what was said or noticed as well.
2. `first` and `last` are both included; numbers as they stand in the version: (6, 14, 2) holds for all of 6.14.2.
3. Where a source names the repaired build only, the first faulty one is the one that reports name; a row says so.
4. What breaks drivers or devices of this very machine before anything is started is told from `kernels.BAD_BUILDS`.
"""

from __future__ import annotations

from collections.abc import Mapping

from ..model.value import dataclass

Number = tuple[int, ...]

_IGD = r"(?:\bigd\b|\bigpu\b|\bintel (?:integrated|u?hd|iris|graphics)|\bu?hd graphics|\b00:02\.0\b)"
_AMD = r"(?:\bamdgpu\b|\bradeon\b|\brx \d{3,4}|\bvega\b|\bamd (?:gpu|card|graphics|igpu|apu))"


@dataclass(frozen=True, slots=True)
class Regression:
    """id · program: `kernel` or `qemu` · first, last · flavour: what the version's text must contain, empty: any

    fits     patterns, all of which must be found in the words and lines (lower case)
    better   the build to use instead, empty when no source names one
    """

    id: str
    program: str
    first: Number
    last: Number
    flavour: str
    fits: tuple[str, ...]
    says: str
    points: tuple[tuple[str, float], ...]
    better: str
    source: str


def _row(
    name: str,
    program: str,
    first: Number,
    last: Number,
    fits: tuple[str, ...],
    says: str,
    points: Mapping[str, float],
    source: str,
    *,
    better: str = "",
    flavour: str = "",
) -> Regression:
    return Regression(
        f"build.{name}", program, first, last, flavour, fits, says, tuple(points.items()), better, source
    )  # fmt: skip


_PERMISSION = (
    r"\berror getting device from group \d+: permission denied|\berror getting device info: input/output error",
)
_PERMISSION_SAYS = "This build refuses virtual functions and vGPUs that were fine before."
_PERMISSION_SOURCE = "strongtz/i915-sriov-dkms#321, #322; Proxmox kernel changelog 6.14.8-2 and 6.8.12-13"
_NO_GROUP = (r"\bcannot open iommu_group\b|\b(?:no|without an?|not (?:in|part of) an?) iommu[_ ]groups?\b", _IGD)
_NO_GROUP_SAYS = "This build keeps the graphics of Skylake to Comet Lake out of the IOMMU, so they have no group."
_RESET = (
    r"\breset\w*\b|\bsecond (?:start|boot)\b|\b(?:re-?boot|re-?start|shut ?down)\w*\b",
    r"\b(?:hangs?|hung|broke\w*|fail\w*|dead|stuck)\b",
)
_RESET_SAYS = "This build is reported to hang the reset of cards that were reset well before."

REGRESSIONS: tuple[Regression, ...] = (
    _row(
        "vf-permission-6.8", "kernel", (6, 8, 12, 12), (6, 8, 12, 12), _PERMISSION, _PERMISSION_SAYS,
        {"kernel-regression": 6}, _PERMISSION_SOURCE, better="6.8.12-13", flavour="-pve",
    ),
    _row(
        "vf-permission-6.14", "kernel", (6, 14, 8, 1), (6, 14, 8, 1), _PERMISSION, _PERMISSION_SAYS,
        {"kernel-regression": 6}, _PERMISSION_SOURCE, better="6.14.8-2", flavour="-pve",
    ),
    _row(
        "igpu-group-6.8", "kernel", (6, 8, 4, 1), (6, 8, 12, 4), _NO_GROUP, _NO_GROUP_SAYS,
        {"kernel-regression": 5}, "Proxmox kernel changelog 6.8.12-5, patch 0011", better="6.8.12-5", flavour="-pve",
    ),
    _row(
        "igpu-group-6.11", "kernel", (6, 11, 0, 1), (6, 11, 0, 1), _NO_GROUP, _NO_GROUP_SAYS,
        {"kernel-regression": 5}, "Proxmox kernel changelog 6.11.0-2", better="6.11.0-2", flavour="-pve",
    ),
    _row(
        "amdgpu-unbind", "kernel", (7, 0, 14, 1), (7, 0, 14, 2),
        (_AMD, r"\b(?:oops|hangs?|hung|null pointer|unbind\w*|bug:|stuck|never (?:starts|returns))\b"),
        "amdgpu oopses in this build when the card is taken from it, and the guest's start hangs.",
        {"kernel-regression": 6}, "Proxmox kernel changelog 7.0.14-3 (reverted) and 7.0.14-4 (mended)",
        better="7.0.14-4", flavour="-pve",
    ),
    _row(
        "reset-6.14.2", "kernel", (6, 14, 2), (6, 14, 2), _RESET, _RESET_SAYS, {"kernel-regression": 3.5},
        "zen-kernel/zen-kernel#380; which build mended it is unverified",
    ),
    _row(
        "reset-6.12.23", "kernel", (6, 12, 23), (6, 12, 23), _RESET, _RESET_SAYS, {"kernel-regression": 3.5},
        "zen-kernel/zen-kernel#380; which build mended it is unverified",
    ),
    _row(
        "simpledrm-ignores-efifb-off", "kernel", (5, 15, 19, 2), (6, 0),
        (
            r"\bvideo=efifb:off\b|\bcan(?:'t|not) reserve\b",
            r"\b(?:black|dark|blank|reserve|framebuffer|simpledrm|simplefb)\b",
        ),
        "From this build on simpledrm holds the boot display, and video=efifb:off does nothing.",
        {"boot-framebuffer": 2}, "Proxmox kernel changelog 5.15.19-2", flavour="-pve",
    ),
    _row(
        "vendor-reset-order", "kernel", (5, 15), (99,), (r"\bvendor[-_ ]reset\b",),
        "From 5.15 on vendor-reset is used only where reset_method says device_specific.",
        {"vendor-reset-method": 1.5}, "gnif/vendor-reset#46, #64; kernel: Documentation/ABI/testing/sysfs-bus-pci",
    ),
    _row(
        "vgpu-unlock-6.8", "kernel", (6, 8), (99,), (r"\bvgpu[-_ ]unlock\b|\benable_apicv\b",),
        "Unlocked vGPU drivers of older branches do not fit kernels from 6.8 on.",
        {"vgpu-config": 2}, "wvthoog/proxmox-vgpu-installer, README",
    ),
    _row(
        "qemu-10.1-vfio", "qemu", (10, 1, 0), (10, 1, 1),
        (
            r"\b(?:vfio|hostpci|pass(?:ed)?[- ]?through|passthrough)\b",
            r"\b(?:crash\w*|fail\w*|hang\w*|broke\w*|error|not start)\b",
        ),
        "VFIO has a fault in QEMU 10.1 before the build that Proxmox VE mended.",
        {"qemu-regression": 3.5}, "pve-qemu changelog 10.1.2-1", better="10.1.2-1",
    ),
    _row(
        "qemu-10.1-igd", "qemu", (10, 1), (99,),
        (_IGD, r"\b(?:no (?:display|picture|output|signal)|black|dark|legacy)\b"),
        "From 10.1 on QEMU takes Intel's graphics in legacy mode by itself only from Sandy Bridge to Comet Lake.",
        {"igd-legacy": 2}, "QEMU: hw/vfio/igd.c (10.1)",
    ),
    _row(
        "qemu-4.0-irqchip", "qemu", (4, 0), (4, 0, 1),
        (r"\bcode 43\b|\berror 43\b|\bq35\b", r"\b(?:43|audio|slow|stutter\w*|crackl\w*|fail\w*)\b"),
        "q35 guests of QEMU 4.0 split the interrupt controller, which breaks line interrupts of given devices.",
        {"qemu-regression": 3.5}, "64kramsystem/vga-passthrough#22; QEMU 4.0.1 release notes", better="4.1",
    ),
)  # fmt: skip


def regressions(program: str, number: Number, text: str) -> tuple[Regression, ...]:
    """Rows that speak about this version of a program."""
    return tuple(
        row
        for row in REGRESSIONS
        if row.program == program
        and row.flavour in text
        and row.first <= number
        and number[: len(row.last)] <= row.last
    )
