"""Which driver refuses to work in a virtual machine, and what Proxmox VE can be told so that it does not.

1. Everything is said in Proxmox' own words for `cpu:`; never with `args: -cpu`, which throws away all that Proxmox
   would say (source: qemu-server, QemuServer.pm, where args are added last, and CPUConfig.pm).
2. A row with no options says that nothing is needed, and what to look at instead.
3. Reports of users are not `certain`.
"""

from __future__ import annotations

from ..model.value import dataclass
from .compute_cards import AMD, INTEL, NVIDIA, nvidia_generation

ANY, WINDOWS = "any", "windows"

HIDDEN, OWN_VENDOR = "hidden=1", "hv-vendor-id"
"""Words of `cpu:`. hv-vendor-id takes 1 to 12 letters and digits."""


@dataclass(frozen=True, slots=True)
class HidingRow:
    """Cards and drivers of one kind.

    guests     `windows` or `any`
    below      the driver branch from which on nothing is needed, None: no such branch is known
    cpu        words for `cpu:`; empty: nothing is needed
    instead    what helps apart from `cpu:`; empty: nothing more
    cost       what the words cost the guest
    """

    vendor: int
    products: frozenset[int] | None
    name: str
    guests: str
    below: int | None
    cpu: tuple[str, ...]
    instead: str
    cost: str
    certain: bool
    source: str


_PARAVIRT = "the guest loses KVM's paravirtual clock and interrupts"

HIDING: tuple[HidingRow, ...] = (
    HidingRow(
        NVIDIA, None, "GeForce with a driver before 465", ANY, 465,
        (HIDDEN, f"{OWN_VENDOR}=proxmox"), "x-vga=1 makes Proxmox set both by itself", _PARAVIRT, True,
        "NVIDIA's statement on GeForce passthrough with R465 (2021), as reported by the press; qemu-server PCI.pm",
    ),
    HidingRow(
        INTEL, frozenset(range(0x5690, 0x56C0)), "Arc A-series (DG2)", WINDOWS, None,
        (HIDDEN, f"{OWN_VENDOR}=GenuineIntel"),
        "users report success only with the hypervisor bit hidden as well, which `cpu:` cannot say",
        f"{_PARAVIRT}; without Hyper-V enlightenments Windows is slower", False,
        "reports of users (2026-05, Proxmox VE 9.1); whether the words of `cpu:` suffice is unverified",
    ),
    HidingRow(
        AMD, frozenset({0x747E}), "Radeon RX 7700 XT / 7800 XT", WINDOWS, None,
        (f"{OWN_VENDOR}=AuthenticAMD",), "", "none known", False,
        "report of a user (vfio-gigabyte-rx7800xt); not confirmed elsewhere",
    ),
)  # fmt: skip


def hiding_rows(vendor: int | None, product: int | None, *, windows: bool) -> tuple[HidingRow, ...]:
    """Rows that may speak about this card in such a guest. NVIDIA's generations that 465 is too old for have none."""
    if vendor is None:
        return ()
    found = (row for row in HIDING if row.vendor == vendor and (row.products is None or product in row.products))
    return tuple(
        row for row in found
        if (windows or row.guests == ANY) and not (vendor == NVIDIA and _always_newer(product))
    )  # fmt: skip


def _always_newer(product: int | None) -> bool:
    """Generations whose oldest driver is newer than 465: CUDA 11.8 (Ada, Hopper) and 12.8 came with branches 520, 570.

    Source: NVIDIA CUDA Toolkit, Driver, and Architecture Matrix; CUDA 11.8 and 12.8 release notes.
    """
    generation = nvidia_generation(product)
    return generation is not None and generation.cuda >= (11, 8)
