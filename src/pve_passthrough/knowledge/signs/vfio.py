"""Lines of the kernel's VFIO: binding, groups, what it hides, what it refuses."""

from __future__ import annotations

from .row import Sign, harmless, on_amd, sign

_RESET = ("reset.gave-up*", "reset.no-link*", "device.dead-header*", "power.vfio-inaccessible")

SIGNS: tuple[Sign, ...] = (
    # -- groups and binding ------------------------------------------------------------------------------------------
    sign(
        "vfio.group-not-viable", "is not viable",
        r"group \d+ is not viable",
        "Another member of the IOMMU group is still held by a driver of the host.",
        {"group-shared-host-device": 6, "group-no-acs": 1},
        source="QEMU: hw/vfio/container.c; kernel: drivers/vfio/group.c",
        sample="vfio 0000:86:00.0: group 6 is not viable, device",
        confirm="the drivers of all members: pve-passthrough devices --groups",
    ),
    sign(
        "vfio.group-taken-back", "drivers/vfio/vfio.c", r"kernel BUG at drivers/vfio/vfio\.c",
        "A driver of the host took a member of a group that a guest uses, and the kernel stopped on the spot.",
        {"group-shared-host-device": 5}, where="host", until=(5, 18),
        source="kernel: drivers/vfio/vfio.c, vfio_iommu_group_notifier (until 5.18)",
        sample="kernel BUG at drivers/vfio/vfio.c:788!",
    ),
    sign(
        "vfio.acs-override", "PCIe ACS overrides", r"PCIe ACS overrides enabled",
        "pcie_acs_override is on: the groups that are shown are narrower than what the hardware keeps apart.",
        {"group-no-acs": 1}, where="host",
        source="Proxmox VE kernel patch 0004",
        sample="Warning: PCIe ACS overrides enabled; This may allow non-IOMMU protected peer-to-peer DMA",
    ),
    sign(
        "vfio.probe-invalid", "failed with error -22",
        r"vfio-pci(?: \S+)?: probe (?:of \S+|with driver vfio-pci) failed with error -22",
        "vfio-pci cannot have the device: it has no IOMMU group (the IOMMU is off), or it is a bridge.",
        {"iommu-off": 3, "iommu-firmware": 1}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_register_device; drivers/vfio/group.c, "
        "vfio_group_find_or_alloc; text of drivers/base/dd.c, changed in 6.7",
        sample="vfio-pci: probe of 0000:01:00.0 failed with error -22", follows=("vfio.denylist",),
        confirm="ls -l /sys/bus/pci/devices/ADDRESS/iommu_group",
        when={("vfio.pf-has-vfs",): {"sriov-setup": 1}},
    ),
    sign(
        "vfio.probe-busy", "failed with error -16",
        r"vfio-pci(?: \S+)?: probe (?:of \S+|with driver vfio-pci) failed with error -16",
        "vfio-pci cannot have the device: its virtual functions are in use.", {"sriov-setup": 3, "host-driver-busy": 1},
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_register_device",
        sample="vfio-pci 0000:03:00.0: probe with driver vfio-pci failed with error -16", where="host",
        follows=("vfio.pf-has-vfs",),
    ),
    sign(
        "vfio.ids-added", "vfio_pci: add [", r"vfio_pci: add \[[0-9a-f]{4}:[0-9a-f]{4}\[",
        "options vfio-pci ids= were read when the module was loaded.", {"bad-modprobe": -1}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids",
        sample="vfio_pci: add [10de:2206[ffffffff:ffffffff]] class 0x000000/00000000",
    ),
    sign(
        "vfio.ids-malformed", "vfio_pci: invalid id", r"vfio_pci: invalid id string",
        "A word after ids= is no vendor:device; it was passed over.", {"bad-modprobe": 6}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids", sample='vfio_pci: invalid id string "10de"',
        confirm="grep -r ids= /etc/modprobe.d /proc/cmdline",
    ),
    sign(
        "vfio.ids-refused", "failed to add dynamic id", r"vfio_pci: failed to add dynamic id",
        "An ID after ids= could not be added; mostly it stands there twice.", {"bad-modprobe": 1.4}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids",
        sample="vfio_pci: failed to add dynamic id [10de:2206[ffffffff:ffffffff]] class 0x000000/00000000 (-17)",
    ),
    sign(
        "vfio.parameter-unknown", "unknown parameter", r"(?:vfio\w*|kvm\w*): unknown parameter '",
        "An option of the module is misspelt and was passed over.", {"bad-modprobe": 5}, where="host",
        source="kernel: kernel/module/main.c, unknown_module_param_cb",
        sample="vfio_pci: unknown parameter 'disable_vgaa' ignored",
    ),
    sign(
        "vfio.parameter-old", "unknown parameter", r"(?:i915|xe|amdgpu|nvidia\w*|nouveau): unknown parameter '",
        "A driver of the host does not know an option that it was given: another build of it was loaded than meant.",
        {"bad-modprobe": 2}, source="kernel: kernel/module/main.c, unknown_module_param_cb", where="host",
        when={("sriov.*",): {"sriov-setup": 4, "bad-modprobe": 1}},
        sample="i915: unknown parameter 'max_vfs' ignored",
    ),
    sign(
        "vfio.parameter-invalid", "invalid for parameter", r"(?:vfio|kvm)\w*: `.*' invalid for parameter `",
        "An option of the module has a value that it cannot have, so the module was not loaded.", {"bad-modprobe": 6},
        source="kernel: kernel/params.c, parse_args", where="host",
        sample="vfio_pci: `maybe' invalid for parameter `disable_vga'",
    ),
    sign(
        "vfio.denylist", "device denylist", r"exists in vfio-pci device denylist, driver probing disallowed",
        "vfio-pci refuses this model: it has known errata that a guest could use. disable_denylist=1 lifts that.",
        {"bad-modprobe": 2}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_is_denylisted",
        sample="vfio-pci 0000:6b:00.0: 8086:37c8 exists in vfio-pci device denylist, driver probing disallowed.",
    ),
    sign(
        "vfio.unbind-while-used", "elaying device request",
        r"Relaying device request to user",
        "Something on the host wants the device back while a guest uses it, and waits.", {"host-driver-busy": 2},
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_request", where="host",
        sample="vfio-pci 0000:01:00.0: Relaying device request to user (#0)",
    ),
    sign(
        "vfio.unbind-blocked", "device request channel",
        r"No device request channel registered, blocked until released",
        "Something on the host wants the device back while a guest uses it, and waits.", {"host-driver-busy": 2},
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_request", where="host",
        sample="vfio-pci 0000:01:00.0: No device request channel registered, blocked until released by user",
    ),
    # -- memory of the device ----------------------------------------------------------------------------------------
    sign(
        "vfio.bar-taken", "can't reserve [", r"vfio-pci \S+: BAR \d(?: \[[^]]*\])?: can't reserve \[mem ",
        "Something else holds the device's memory: mostly the firmware's picture (BOOTFB, simpledrm, efifb).",
        {"boot-framebuffer": 5, "host-driver-busy": 1}, where="host",
        source="kernel: drivers/pci/pci.c, __pci_request_region; drivers/vfio/pci/vfio_pci_core.c",
        sample="vfio-pci 0000:01:00.0: BAR 1: can't reserve [mem 0xe0000000-0xefffffff 64bit pref]",
        confirm='grep -B1 -A2 -iE "BOOTFB|simpledrm|efifb" /proc/iomem',
    ),
    sign(
        "vfio.bar-restore", "vfio_bar_restore", r"vfio_bar_restore: .*reset recovery",
        "The device forgot its addresses while a guest used it: it was reset behind the guest's back, or it died.",
        {"reset-defective": 2}, follows=_RESET, where="host",
        when=on_amd({"amd-reset-bug": 3, "reset-defective": 1}),
        source="kernel: drivers/vfio/pci/vfio_pci_config.c, vfio_bar_restore",
        sample="vfio-pci 0000:01:00.0: vfio_bar_restore: reset recovery - restoring BARs",
    ),
    sign(
        "vfio.igd-regions", "Intel IGD regions", r"Failed to setup Intel IGD regions",
        "VFIO could not offer what legacy assignment of Intel's graphics needs (OpRegion, host bridge, LPC bridge).",
        {"igd-legacy": 3, "firmware-defect": 1}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_open_device",
        sample="vfio-pci 0000:00:02.0: Failed to setup Intel IGD regions",
    ),
    # -- virtual functions -------------------------------------------------------------------------------------------
    sign(
        "vfio.vf-token", "VF token required to access device", r"VF token required to access device",
        "The physical function is with vfio-pci itself, so its virtual functions need a token that Proxmox VE never "
        "gives.", {"sriov-setup": 5}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_validate_vf_token",
        sample="vfio-pci 0000:03:10.0: VF token required to access device",
        confirm="lspci -nnk of the physical function: it should be with its own driver",
    ),
    sign(
        "vfio.pf-has-vfs", "PF with SR-IOV", r"Cannot bind to PF with SR-IOV enabled",
        "The physical function has virtual functions, so vfio-pci leaves it alone.", {"sriov-setup": 5}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_register_device",
        sample="vfio-pci 0000:03:00.0: Cannot bind to PF with SR-IOV enabled",
    ),
    # -- harmless ----------------------------------------------------------------------------------------------------
    harmless(
        "vfio.hiding-capability", "vfio_",
        r"vfio_e?cap_init: .*hiding e?cap",
        "VFIO hides a capability that it does not know from the guest.",
        source="kernel: drivers/vfio/pci/vfio_pci_config.c",
        sample="vfio-pci 0000:01:00.0: vfio_ecap_init: hiding ecap 0x1e@0x258",
    ),
    harmless(
        "vfio.denylist-off", "device denylist dis", r"device denylist disabled - allowing device",
        "disable_denylist=1 is set, and the device is given away as asked.", where="host",
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_is_denylisted",
        sample="vfio-pci 0000:6b:00.0: device denylist disabled - allowing device 8086:37c8.",
    ),
)  # fmt: skip
