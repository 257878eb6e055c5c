"""What is tried in the lab, in the order of its worth: a run that is short of time leaves out the last ones."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from ..lab import Lab
from . import devices, handover, main_job, package, power_cuts, topologies, twins


@dataclass(frozen=True, slots=True)
class Scenario:
    """name · about: one line for `--list` · seconds: what it takes on an idle machine of two cores."""

    name: str
    about: str
    seconds: int
    run: Callable[[Lab], None]


ALL = (
    Scenario("main-job", "a card by its IDs to a guest that sees it, and back to the byte", 400, main_job.run),
    Scenario("twins", "one of two identical cards by its address; a kernel argument", 310, twins.run),
    Scenario("power-cuts", "the plug is pulled at three moments of apply; Debian 13", 460, power_cuts.run),
    Scenario("handover", "the host's own display to a guest and back; a failed start heals", 160, handover.run),
    Scenario("devices", "virtual functions, USB, NVMe and shares: to a guest and back", 360, devices.run),
    Scenario("package", "the .deb installed, used, removed and purged in both Debians", 180, package.scenario),
    Scenario("zoo", "every kind of slot and its group; binding at run time; a group not viable", 80, topologies.zoo),
    Scenario("amd", "groups on an AMD IOMMU", 65, topologies.amd),
    Scenario("virtio-iommu", "groups on a virtio-iommu", 65, topologies.virtio),
    Scenario("no-remapping", "no interrupt remapping: refused by the kernel and foretold", 65, topologies.no_remapping),
)
"""Every scenario is independent of the others."""
