"""What a finding of a rule says about the cause of somebody's trouble, as rows.

1. A finding is evidence where somebody complains; a machine that works has many imperfections. So a row weighs less
   than a line of a log that names the cause, and nothing where nobody complains, unless it is `sure`.
2. What merely could be better (a processor type, an EFI disk, an agent) has no row.
3. `words` narrows a row to findings whose message has them. The first row that fits a finding counts.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class Judgement:
    """What findings of one rule speak for.

    rule    its id, or the beginning of one before a `*`
    levels  levels of a finding, as their words
    points  cause and weight
    words   what the message must have
    whole   only where the whole bus is known
    sure    no guest starts with it, whether somebody complains or not
    hint    it counts where other evidence speaks for the same cause; alone it is next to nothing
    """

    rule: str
    levels: frozenset[str]
    points: tuple[tuple[str, float], ...]
    words: re.Pattern[str] | None = None
    whole: bool = False
    sure: bool = False
    hint: bool = False


_BAD = frozenset({"blocks", "harms"})
_ANY = frozenset({"blocks", "harms", "note"})


def _row(
    rule: str,
    points: Mapping[str, float],
    levels: frozenset[str] = _BAD,
    words: str = "",
    *,
    whole: bool = False,
    sure: bool = False,
    hint: bool = False,
) -> Judgement:
    return Judgement(rule, levels, tuple(points.items()), re.compile(words) if words else None, whole, sure, hint)


JUDGEMENTS: tuple[Judgement, ...] = (
    # the platform
    _row("platform.iommu", {"iommu-off": 5}),
    _row("platform.interrupt-remapping", {"no-interrupt-remapping": 4}),
    _row("platform.unplaced-bars", {"guest-address-space": 2}),
    _row("platform.reserved-region", {"reserved-region": 5}),
    _row("groups.group", {"iommu-firmware": 2, "iommu-off": 1}),
    _row("groups.acs-override", {"bad-kernel-arguments": 3}, words="does not know"),
    # who has the device
    _row("drivers.present", {"bdf-renumbered": 4}, whole=True),
    _row("drivers.after-boot", {"bad-modprobe": 2.5, "host-driver-busy": 1.5}, hint=True),
    _row("drivers.identical-ids", {"identical-ids": 4}),
    _row("drivers.identical-ids", {"identical-ids": 1}, _ANY, hint=True),
    _row("drivers.holder", {"host-driver-busy": 2}, hint=True),
    _row("drivers.d3cold", {"power-state": 1}, hint=True),
    _row("gpu.framebuffer", {"boot-framebuffer": 3}),
    # resets
    _row("gpu.reset-bug", {"amd-reset-bug": 1}, hint=True),
    _row("resets.bus-siblings", {"partial-multifunction": 3}),
    _row("resets.not-in-force", {"reset-defective": 2}),
    _row("resets.never-ends", {"reset-defective": 3}),
    _row("resets.switched-off", {"reset-defective": 2}),
    _row("resets.known", {"reset-defective": 1.25}, _ANY, hint=True),
    # devices with a defect of their own
    _row("devices.msix-layout", {"msix-layout": 4}),
    _row("devices.denylist", {"reset-defective": 1}),
    # the guest
    _row("guests.hostpci", {"bdf-renumbered": 4}, words="this machine does not have", whole=True),
    _row("guests.hostpci", {}, words="this machine does not have"),
    _row("guests.hostpci", {"bad-vm-config": 4}, sure=True),
    _row("guests.twice", {"bad-vm-config": 4}, sure=True),
    _row("guests.machine", {"bad-vm-config": 4}, sure=True),
    _row("guests.cpu-invalid", {"bad-vm-config": 3}),
    _row("guests.args-cpu", {"bad-vm-config": 3}, words="unbalanced"),
    _row("guests.args-cpu", {"bad-vm-config": 1}),
    _row("guests.hugepages", {"bad-vm-config": 3.5}, sure=True),
    _row("guests.comments", {"bad-vm-config": 3}),
    _row("guests.display", {"bad-vm-config": 2}),
    _row("guests.firmware", {"guest-firmware": 1}, _ANY, hint=True),
    _row("guests.legacy-igd", {"igd-legacy": 5}, sure=True),
    _row("guests.memory", {"memory-pinning": 4}, frozenset({"blocks"}), sure=True),
    _row("guests.memory", {"memory-pinning": 2}),
    _row("guests.window", {"guest-address-space": 3}),
    _row("guests.rom-file", {"rom-invalid": 4}),
    _row("guests.mapping", {"bad-vm-config": 3}, words="lacks "),
    _row("guests.mapping", {"group-renumbered": 5}, words="iommugroup", sure=True),
    _row("guests.mapping", {"bad-vm-config": 4}, words="does not exist"),
    _row("guests.mapping", {"bdf-renumbered": 4}, words="this machine does not have", whole=True),
    _row("guests.mapping", {}, words="this machine does not have"),
    _row("guests.mapping", {"bdf-renumbered": 4}),
    _row("mappings.stale", {"bad-vm-config": 2}, _ANY, words="lacks "),
    _row("mappings.stale", {"group-renumbered": 5}, _ANY, words="iommugroup"),
    _row("mappings.stale", {}, _ANY, words="does not have|nothing is at"),
    _row("mappings.stale", {"bdf-renumbered": 3.5}),
    _row("mappings.lies", {"bdf-renumbered": 5}, _ANY, sure=True),
    _row("drift.moved", {"bdf-renumbered": 5}),
    _row("drift.other-card", {"bdf-renumbered": 5}),
    _row("drift.group", {"group-shared-host-device": 2, "group-renumbered": 1}),
    # boot and modprobe files
    _row("bootconfig.broken-quote", {"bad-kernel-arguments": 4}, sure=True),
    _row("bootconfig.lost-assignment", {"bad-kernel-arguments": 3, "wrong-boot-loader": 1}),
    _row("bootconfig.no-root", {"bad-kernel-arguments": 4}, sure=True),
    _row("bootconfig.prose", {"bad-kernel-arguments": 5}),
    _row("bootconfig.duplicates", {"bad-kernel-arguments": 1}, _ANY, hint=True),
    _row("bootconfig.wrong-file", {"bad-kernel-arguments": 3}, words="more than one line"),
    _row("bootconfig.wrong-file", {"wrong-boot-loader": 5}),
    _row("bootconfig.not-running", {"wrong-boot-loader": 3}, _ANY),
    _row("bootconfig.stale-initramfs", {"bad-modprobe": 3}),
    _row("bootconfig.misspelt", {"bad-modprobe": 3}, _ANY),
    _row("bootconfig.softdep", {"bad-modprobe": 2.5}),
    _row("bootconfig.modprobe-comments", {"bad-modprobe": 3}),
    _row("bootconfig.vfio-ids", {"bad-modprobe": 4}),
    _row("bootconfig.vfio-ids-host", {"identical-ids": 2, "bad-modprobe": 1}),
    _row("bootconfig.vfio-ids-stale", {"bad-modprobe": 1.5}, _ANY, whole=True),
    _row("bootconfig.vfio-options", {"bad-modprobe": 4}),
    _row("bootconfig.blacklist-glob", {"bad-modprobe": 1.5}, _ANY),
    _row("bootconfig.module-list", {"bad-modprobe": 2.5}),
    # shares of devices
    _row("sriov.vf-without-mac", {}, _ANY),
    _row("sriov.*", {"sriov-setup": 3}),
    _row("vgpu.*", {"vgpu-config": 3}),
)


def judgement(rule: str, level: str, message: str, whole: bool) -> Judgement | None:
    """The row for a finding; None when it says nothing about a cause."""
    for row in JUDGEMENTS:
        same = rule.startswith(row.rule[:-1]) if row.rule.endswith("*") else rule == row.rule
        if same and level in row.levels and (row.words is None or row.words.search(message)):
            if row.whole and not whole:
                continue
            return row if row.points else None
    return None
