"""What an assignment remembers of a device, so that it is known again wherever it sits.

1. Values only. An address is a place, not a thing: firmware updates, new cards and other slots renumber the buses.
2. Empty text means that the device has none or that nobody could read it; neither ever counts as "another device".
3. What is remembered lies in the plan of the run that made the assignment.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from .pci import Address
from .value import dataclass


@dataclass(frozen=True, slots=True)
class Identity:
    """One function as it was when it was given to a guest.

    id         vendor:device
    subsystem  vendor:device of the board's maker, empty when unknown or 0000:0000
    serial     Device Serial Number as lspci writes it, empty: none, or not readable
    path       where it sits, whatever the buses are called: the root port, then slot.function below each bridge
    group      address to vendor:device of its IOMMU group without bridges, itself included; None: unknown or no group
    twins      paths of the other devices of the same kind at that time
    """

    address: Address
    id: str
    name: str = ""
    subsystem: str = ""
    class_code: int | None = None
    serial: str = ""
    path: str = ""
    group: Mapping[str, str] | None = None
    twins: tuple[str, ...] = ()

    def __str__(self) -> str:
        return f"{self.name or self.id} ({self.address})"


@dataclass(frozen=True, slots=True)
class Assignment:
    """What the run `run` has given to guest `vmid`. It stands while the run is kept and the guest claims the places."""

    run: str
    vmid: int
    identities: tuple[Identity, ...]
    usb: Mapping[str, str] = field(default_factory=dict)
    """Port to vendor:product of USB devices, as they were plugged in at that time."""
