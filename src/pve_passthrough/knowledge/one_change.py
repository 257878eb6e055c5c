"""One change at a time: what a person types for a cause's change, and what to leave alone meanwhile, as rows.

1. `types` is a command of this program with places to fill in: {device} (one function's or one card's address), {vmid},
   {mapping}. A row whose places cannot be filled is shown as words alone.
2. `keep` names what people usually change at the same time, and must not: with two changes nobody learns which it was.
"""

from __future__ import annotations

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class OneChange:
    """cause · types: command after `pve-passthrough` · keep: what to leave as it is until the next start"""

    cause: str
    types: str
    keep: str


DEFAULT_KEEP = "Leave everything else as it is until you have seen the next start."

CHANGES: tuple[OneChange, ...] = (
    OneChange("iommu-off", "plan {device} --vm {vmid}", "Leave the guest's configuration as it is: without an IOMMU no "
              "setting of it can help."),
    OneChange("iommu-firmware", "", "Leave the kernel's arguments as they are while you change the firmware."),
    OneChange("no-interrupt-remapping", "", "Do not allow unsafe interrupts before the firmware has been looked at."),
    OneChange("group-no-acs", "devices --groups", "Do not add pcie_acs_override before another slot has been tried."),
    OneChange("group-shared-host-device", "plan {device} --vm {vmid}", "Do not start the guest again before the plan: "
              "each start takes the whole group from the host."),
    OneChange("group-renumbered", "mapping repair {mapping}", "Leave the guest's own entries as they are."),
    OneChange("bdf-renumbered", "reassign --vm {vmid}", "Do not move cards between slots meanwhile."),
    OneChange("wrong-boot-loader", "plan {device} --vm {vmid}", "Leave the files that are not read alone for now; they "
              "do no harm."),
    OneChange("bad-kernel-arguments", "plan {device} --vm {vmid}", "Add no argument from a guide at the same time."),
    OneChange("bad-modprobe", "plan {device} --vm {vmid}", "Leave the guest's configuration as it is."),
    OneChange("bad-vm-config", "plan {device} --vm {vmid}", "Leave the host's kernel arguments and drivers as they "
              "are: the host was never asked."),
    OneChange("identical-ids", "plan {device} --vm {vmid}", "Add no further ids= meanwhile."),
    OneChange("host-driver-busy", "plan {device} --vm {vmid}", "Do not unbind by hand at the same time: a driver that "
              "hangs takes the host with it."),
    OneChange("boot-framebuffer", "plan {device} --vm {vmid}", "Leave the ROM file as it is; a new one would hide "
              "which of the two it was."),
    OneChange("reset-defective", "reset show {device}", "Restart the host first (power off, not reboot), so that the "
              "device is alive when you try."),
    OneChange("amd-reset-bug", "reset vendor-reset {device} --plan", "Power the host off before you try; leave "
              "reset_method to the plan."),
    OneChange("vendor-reset-method", "reset method {device} device_specific --plan", "Power the host off before you "
              "try, so that the card is alive."),
    OneChange("partial-multifunction", "plan {device} --vm {vmid}", "Leave the reset methods as they are."),
    OneChange("power-state", "reset idle {device} --plan", "Power the host off before you try: a device that is stuck "
              "in D3cold comes back only so."),
    OneChange("rom-invalid", "check --vm {vmid}", "Leave bios and machine of the guest as they are."),
    OneChange("guest-address-space", "bars {device} --vm {vmid}", "Leave the card's own BAR sizes as they are until "
              "the guest's side is right."),
    OneChange("memory-pinning", "", "Leave the devices as they are; the memory is what is being tried."),
    OneChange("guest-detects-vm", "plan {device} --vm {vmid} --tweak hide-hypervisor", "Install no other driver at "
              "the same time."),
    OneChange("sriov-setup", "sriov list", "Give no function to a guest before the number stands."),
    OneChange("vgpu-config", "vgpu list", "Leave the guest's driver as it is until the host offers the type."),
    OneChange("kernel-regression", "", "Change no setting at all: the kernel is what is being tried."),
    OneChange("qemu-regression", "", "Change no setting at all: QEMU is what is being tried."),
    OneChange("no-fault", "verify --vm {vmid}", ""),
    OneChange("unknown", "diagnose --walk --vm {vmid}", "Change nothing yet: what is not known cannot be mended."),
)  # fmt: skip


def one_change(cause: str) -> OneChange:
    """The row of a cause; one without a command where there is none."""
    return next((row for row in CHANGES if row.cause == cause), OneChange(cause, "", DEFAULT_KEEP))
