"""Lines about resets and about the power state that a device does not leave.

1. A device that does not come back from a reset explains what the IOMMU, the drivers and the guest say afterwards.
2. Whether that is the AMD reset bug is told by the card, not by the line.
"""

from __future__ import annotations

from .row import Sign, harmless, on_amd, sign

_UNUSED = ("reset.vendor-loaded", "!reset.vendor-used", "!given.nvidia-*")
"""vendor-reset is loaded, and has not said a word."""
_GONE = ("reset.gave-up*", "reset.no-link*")

SIGNS: tuple[Sign, ...] = (
    sign(
        "reset.gave-up", "ms after ", r"not ready \d+ms after (?!resume|PM |D3)[\w >-]+; giving up",
        "The device did not come back from its reset; only a power cycle of the host helps now.",
        {"reset-defective": 5, "power-state": 1}, where="host",
        when={_UNUSED: {"vendor-reset-method": 6, "amd-reset-bug": 3},
              **on_amd({"amd-reset-bug": 6, "reset-defective": 2})},
        source="kernel: drivers/pci/pci.c, pci_dev_wait",
        sample="vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up",
        confirm="lspci -s ADDRESS: Unknown header type 7f; cat reset_method",
    ),
    sign(
        "reset.gave-up-waking", "ms after ", r"not ready \d+ms after (?:resume|PM |D3)[\w >-]*; giving up",
        "The device did not wake up from its sleep; only a power cycle of the host helps now.",
        {"power-state": 5, "reset-defective": 2}, where="host",
        when=on_amd({"amd-reset-bug": 4, "power-state": 3}),
        source="kernel: drivers/pci/pci.c, pci_dev_wait, pci_pm_reset",
        sample="vfio-pci 0000:01:00.0: not ready 65535ms after resume; giving up",
    ),
    sign(
        "reset.waiting", "ms after ", r"not ready \d+ms after [\w >-]+; waiting",
        "The device takes long to come back from a reset. It counts only if it gives up in the end.",
        {"reset-defective": 2, "power-state": 1}, follows=_GONE, where="host",
        when={_UNUSED: {"vendor-reset-method": 3, "amd-reset-bug": 2},
              **on_amd({"amd-reset-bug": 3, "reset-defective": 1}),
              ("reset.came-back",): {"reset-defective": 0.5}},
        source="kernel: drivers/pci/pci.c, pci_dev_wait",
        sample="vfio-pci 0000:01:00.0: not ready 1023ms after bus reset; waiting",
    ),
    sign(
        "reset.came-back", "ms after ", r": ready \d+ms after ",
        "The device came back from its reset, though late.", {}, where="host",
        source="kernel: drivers/pci/pci.c, pci_dev_wait", sample="vfio-pci 0000:01:00.0: ready 2047ms after bus reset",
    ),
    sign(
        "reset.pending-transaction", "function level reset anyway",
        r"timed out waiting for pending transaction; performing .*reset anyway",
        "The device was still busy when it was reset: the guest was stopped hard.", {"reset-defective": 1.4},
        source="kernel: drivers/pci/pci.c, pcie_flr, pci_af_flr", where="host", follows=_GONE,
        sample="vfio-pci 0000:01:00.0: timed out waiting for pending transaction; performing function level reset "
        "anyway",
    ),
    sign(
        "reset.method-unsupported", "reset method '", r"Unsupported reset method 'device_specific'",
        "device_specific was chosen, and the kernel has no such reset for this device: vendor-reset was not loaded "
        "before, or does not know it.", {"vendor-reset-method": 5}, where="host",
        when={("reset.vendor-loaded",): {"vendor-reset-method": 4, "amd-reset-bug": 2}},
        source="kernel: drivers/pci/pci-sysfs.c, reset_method_store; gnif/vendor-reset#97, #82",
        sample="vfio-pci 0000:03:00.0: Unsupported reset method 'device_specific'",
        confirm="lsmod | grep vendor_reset; cat /sys/bus/pci/devices/ADDRESS/reset_method",
    ),
    sign(
        "reset.method-wrong", "reset method '", r"(?:Unsupported|Invalid) reset method '(?!device_specific)",
        "A way of resetting was chosen that this device does not have, or that does not exist.",
        {"reset-defective": 2, "vendor-reset-method": 1}, where="host",
        source="kernel: drivers/pci/pci-sysfs.c, reset_method_store",
        sample="pci 0000:03:00.0: Unsupported reset method 'flr'",
    ),
    # -- vendor-reset ------------------------------------------------------------------------------------------------
    sign(
        "reset.vendor-loaded", "vendor_reset", r"vendor_reset_hook: installed",
        "The module vendor-reset is loaded. It is used only where device_specific stands in reset_method.", {},
        source="gnif/vendor-reset: src/hooks.c; kernel: Documentation/ABI/testing/sysfs-bus-pci, reset_method",
        sample="vendor_reset_hook: installed", where="host",
    ),
    sign(
        "reset.vendor-used", "-reset", r"AMD_\w+: performing (?:pre-reset|post-reset)",
        "vendor-reset resets the card.", {"vendor-reset-method": -4}, where="host",
        source="gnif/vendor-reset: src/vendor-reset.c",
        sample="vfio-pci 0000:11:00.0: AMD_NAVI10: performing pre-reset",
    ),
    sign(
        "reset.vendor-failed", "reset", r"AMD_\w+: (?:failed to reset device|reset result = -\d+)",
        "vendor-reset tried, and the card did not come back.", {"amd-reset-bug": 5}, where="host",
        source="gnif/vendor-reset#109, #3", sample="vfio-pci 0000:0d:00.0: AMD_POLARIS10: failed to reset device",
    ),
    sign(
        "reset.vendor-smu", "SMU", r"AMD_\w+: (?:SMU error 0x|could not get enabled SMU features)|vfio-pci.*SMU "
        r"error 0x",
        "The card's own controller was stopped by the guest's driver, so the gentle reset is impossible.",
        {"amd-reset-bug": 5}, where="host", source="gnif/vendor-reset#109, #25",
        sample="vfio-pci 0000:0d:00.0: AMD_VEGA10: could not get enabled SMU features",
    ),
    # -- links -------------------------------------------------------------------------------------------------------
    sign(
        "reset.no-link", "Link Active", r"Data Link Layer Link Active not set in \d+ msec",
        "The link to the device did not come up again after a reset.", {"reset-defective": 3, "power-state": 2},
        source="kernel: drivers/pci/pci.c, pci_bridge_wait_for_secondary_bus", where="host",
        when=on_amd({"amd-reset-bug": 4, "reset-defective": 1}),
        sample="pcieport 0000:00:1b.4: Data Link Layer Link Active not set in 1000 msec", follows=("reset.gave-up*",),
    ),
    sign(
        "reset.retraining", "broken device, retraining", r"broken device, retraining non-functional downstream link",
        "The link to the device came up badly and is trained again at the lowest speed.",
        {"reset-defective": 1.4, "power-state": 0.5}, follows=_GONE, where="host",
        source="kernel: drivers/pci/quirks.c, pcie_failed_link_retrain",
        sample="pcieport 0000:00:01.1: broken device, retraining non-functional downstream link at 2.5GT/s",
    ),
    sign(
        "reset.link-down", "Link Down", r"pciehp: Slot\(\S+\): (?:Link Down|Card not present)",
        "The slot says that its card has gone: pulled out, switched off, or a link that fell at a reset.",
        {"reset-defective": 1.4, "power-state": 1}, follows=_GONE, where="host",
        source="kernel: drivers/pci/hotplug/pciehp_ctrl.c", sample="pcieport 0000:00:1c.4: pciehp: Slot(4): Link Down",
    ),
    # -- power -------------------------------------------------------------------------------------------------------
    sign(
        "power.vfio-inaccessible", "change power state",
        r"vfio-pci \S+: (?:Unable to|can't) change power state from \S+ to \S+(?:,| \() ?(?:device|config space) "
        r"inaccessible",
        "The device does not leave its sleep and can no longer be reached.", {"power-state": 4, "reset-defective": 2},
        follows=("reset.gave-up*", "reset.vendor-failed"), where="host",
        when={_UNUSED: {"vendor-reset-method": 3, "power-state": 2},
              **on_amd({"amd-reset-bug": 4, "power-state": 3})},
        source="kernel: drivers/pci/pci.c, pci_power_up (words until 5.17: can't change … config space inaccessible)",
        sample="vfio-pci 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible",
        confirm="cat /sys/bus/pci/devices/ADDRESS/power_state",
    ),
    sign(
        "power.driver-inaccessible", "change power state",
        r"(?:nvidia\S*|amdgpu|nouveau|i915|xe|snd_hda_intel|nvme) \S+: (?:Unable to|can't) change power state from "
        r"\S+ to "
        r"\S+(?:,| \() ?(?:device|config space) inaccessible",
        "The device does not leave its sleep and can no longer be reached by its driver.",
        {"power-state": 3, "reset-defective": 1}, follows=(*_GONE, "power.vfio-inaccessible"),
        when=on_amd({"amd-reset-bug": 2, "power-state": 2}),
        source="kernel: drivers/pci/pci.c, pci_power_up",
        sample="nvidia 0000:01:00.0: Unable to change power state from D3cold to D0, device inaccessible",
    ),
    sign(
        "power.other-inaccessible", "change power state",
        r"^(?!.*vfio-pci |nvidia|amdgpu |nouveau |i915 |xe |snd_hda_intel |nvme ).*(?:Unable to|can't) change "
        r"power state "
        r"from \S+ to \S+(?:,| \() ?(?:device|config space) inaccessible",
        "A device or port of the host can no longer be reached, as a dock that was pulled out, or all below a dead "
        "port.",
        {"power-state": 1}, follows=(*_GONE, "power.vfio-inaccessible"), where="host",
        source="kernel: drivers/pci/pci.c, pci_power_up",
        sample="pcieport 0000:02:00.0: Unable to change power state from D3cold to D0, device inaccessible",
    ),
    sign(
        "power.vfio-refused", "efused to change power",
        r"vfio-pci \S+: [Rr]efused to change power state(?:,| from)",
        "The device does not change its power state when told to.", {"power-state": 3, "reset-defective": 1},
        follows=(*_GONE, "reset.vendor-failed"), where="host", when=on_amd({"amd-reset-bug": 3, "power-state": 2}),
        source="kernel: drivers/pci/pci.c, pci_set_low_power_state",
        sample="vfio-pci 0000:01:00.0: Refused to change power state from D0 to D3hot",
    ),
    sign(
        "power.refused", "efused to change power", r"^(?!.*vfio-pci ).*[Rr]efused to change power state(?:,| from)",
        "A device of the host does not change its power state when told to.", {"power-state": 1}, follows=_GONE,
        source="kernel: drivers/pci/pci.c, pci_set_low_power_state",
        sample="xhci_hcd 0000:0a:00.3: Refused to change power state from D0 to D3hot",
    ),
    # -- errors on the bus -------------------------------------------------------------------------------------------
    sign(
        "aer.vfio-uncorrected", "severity=Uncorrect", r"vfio-pci \S+: .*severity=Uncorrect(?:ed|able)",
        "The guest's device reported an error on the bus that nothing corrected.",
        {"reset-defective": 3, "power-state": 1}, follows=(*_GONE, "power.vfio-inaccessible"), where="host",
        when=on_amd({"amd-reset-bug": 3, "reset-defective": 2}),
        source="kernel: drivers/pci/pcie/aer.c, aer_print_error",
        sample="vfio-pci 0000:01:00.0: PCIe Bus Error: severity=Uncorrected (Non-Fatal), type=Transaction Layer, "
        "(Requester ID)",
    ),
    sign(
        "aer.uncorrected", "severity=Uncorrect", r"^(?!.*vfio-pci ).*PCIe Bus Error: severity=Uncorrect(?:ed|able)",
        "A port saw an error that nothing corrected: a device that stopped answering, or a bad link.",
        {"reset-defective": 2, "power-state": 1}, follows=(*_GONE, "power.vfio-inaccessible", "aer.vfio-uncorrected"),
        source="kernel: drivers/pci/pcie/aer.c, aer_print_error; gnif/vendor-reset#72", where="host",
        sample="pcieport 0000:00:01.0: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, "
        "(Requester ID)",
    ),
    sign(
        "aer.not-recovered", "device recovery failed", r"AER: device recovery failed",
        "The host could not bring the devices below the port back.", {"reset-defective": 1.4}, where="host",
        source="kernel: drivers/pci/pcie/err.c, pcie_do_recovery",
        sample="pcieport 0000:00:01.4: AER: device recovery failed", follows=("aer.*uncorrected", *_GONE),
    ),
    sign(
        "aer.firmware-reported", "Hardware Error", r"\[Hardware Error\]:\s+section_type: PCIe error",
        "The firmware reports an error on the bus.", {"reset-defective": 1.4, "firmware-defect": 1}, where="host",
        source="kernel: drivers/firmware/efi/cper.c", follows=_GONE,
        sample="{1}[Hardware Error]:   section_type: PCIe error",
    ),
    sign(
        "aer.fatal-panic", "Fatal hardware error", r"Kernel panic - not syncing: Fatal hardware error",
        "The firmware reported a fatal error and the kernel stopped: on servers often a device that was used while it "
        "was switched off or reset.", {"reset-defective": 2, "firmware-defect": 2}, follows=_GONE, where="host",
        source="kernel: drivers/acpi/apei/ghes.c, __ghes_panic",
        sample="Kernel panic - not syncing: Fatal hardware error!",
    ),
    harmless(
        "aer.corrected", "severity=Correct", r"PCIe Bus Error: severity=Correct(?:ed|able)",
        "Errors that the link corrected by itself. Many of them speak of a riser, a slot or power saving of the link "
        "(ASPM), not of passthrough.", where="host",
        source="kernel: drivers/pci/pcie/aer.c, aer_print_error",
        sample="pcieport 0000:00:1c.5: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",
    ),
)  # fmt: skip
