"""Lines of the host's own drivers: who holds the device, who died when it was taken away, and how the host boots.

1. What a driver says inside of a guest stands with the guests' lines; here it is the host that speaks.
"""

from __future__ import annotations

from .row import Sign, harmless, sign

_GONE = ("reset.gave-up*", "reset.no-link*", "power.vfio-inaccessible", "device.dead-header*")

SIGNS: tuple[Sign, ...] = (
    # -- taking a device from the host -------------------------------------------------------------------------------
    sign(
        "driver.nvidia-in-use", "NVRM: Attempting", r"NVRM: Attempting to remove device \S+ with non-zero usage count",
        "A program on the host uses the card (persistence daemon, desktop, container), so it cannot be taken away: the "
        "start of the guest hangs.", {"host-driver-busy": 6}, where="host",
        source="NVIDIA open-gpu-kernel-modules: kernel-open/nvidia/nv-pci.c, nv_pci_remove",
        sample="NVRM: Attempting to remove device 0000:07:00.0 with non-zero usage count!",
        confirm="fuser -v /dev/nvidia*",
    ),
    sign(
        "driver.removal-amdgpu", "amdgpu_pci_remove [",
        r"amdgpu_pci_remove \[amdgpu\].*(?:Device removal is currently not supported "
        r"outside of fbcon|Hotplug removal is not supported)",
        "The host's graphics driver was taken from its card while it was in use.", {"host-driver-busy": 3},
        where="host",
        source="kernel: drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c, amdgpu_pci_remove",
        sample="[drm:amdgpu_pci_remove [amdgpu]] *ERROR* Device removal is currently not supported outside of fbcon",
        confirm="lspci -nnk before the guest starts",
    ),
    sign(
        "driver.removal-amdgpu-users", "amdgpu: ",
        r"amdgpu: (?:leaking bo va|failed to clear page tables on GEM object close) \(-19\)",
        "Programs of the host still used the card when it was taken from its driver.", {"host-driver-busy": 4},
        source="kernel: drivers/gpu/drm/amd/amdgpu/amdgpu_gem.c, amdgpu_gem_object_close", where="host",
        sample="vfio-pci 0000:09:00.0: amdgpu: leaking bo va (-19)", confirm="fuser -v /dev/dri/*",
    ),
    sign(
        "driver.atombios-stuck", "atombios", r"atombios stuck (?:in loop for more than|executing)",
        "The card's own start-up program hangs: the card was left in a state that it cannot be started from.",
        {"amd-reset-bug": 4, "rom-invalid": 1},
        source="kernel: drivers/gpu/drm/amd/amdgpu/atom.c, atom_op_jump; gnif/vendor-reset#80",
        sample="[drm:atom_op_jump [amdgpu]] *ERROR* atombios stuck in loop for more than 20secs aborting",
        follows=("reset.gave-up*", "reset.vendor-failed", "power.vfio-inaccessible"),
    ),
    *(
        sign(
            f"driver.removal-trace-{name}", f"{function}+", rf"\b{function}\+0x",
            "The host's graphics driver failed while its card was taken away.",
            {"host-driver-busy": 2, "kernel-regression": 1}, where="host", source=source,
            sample=f" {function}+0x6f/0xd0",
            follows=("driver.nvidia-in-use",),
        )
        for name, function, source in (
            ("amdgpu", "amdgpu_pci_remove", "kernel: drivers/gpu/drm/amd/amdgpu/amdgpu_drv.c"),
            ("i915", "i915_pci_remove", "kernel: drivers/gpu/drm/i915/i915_pci.c"),
            ("xe", "xe_pci_remove", "kernel: drivers/gpu/drm/xe/xe_pci.c"),
            ("nvidia", "nv_pci_remove", "NVIDIA open-gpu-kernel-modules: kernel-open/nvidia/nv-pci.c"),
        )
    ),
    sign(
        "driver.sound-unpowered", "GPU sound probed", r"GPU sound probed, but not operational",
        "The host's sound driver took the card's HDMI function while nothing drove the card.", {"host-driver-busy": 2},
        source="kernel: sound/hda/controllers/intel.c, azx_probe_continue", where="host",
        sample="snd_hda_intel 0000:10:00.1: GPU sound probed, but not operational: please add a quirk to "
        "driver_denylist",
        confirm="lspci -nnk of the function .1",
    ),
    sign(
        "driver.sound-dead", "snd_hda", r"snd_hda_intel \S+: (?:CORB reset timeout|azx_get_response timeout|Codec "
        r"#\d+ probe "
        r"error|no codecs initialized|spurious response)",
        "The sound function of a card does not answer the host.", {"reset-defective": 1, "host-driver-busy": 0.5},
        source="kernel: sound/hda, azx_rirb_get_response", follows=_GONE, where="host",
        sample="snd_hda_intel 0000:01:00.1: CORB reset timeout#2, CORBRP = 65535",
    ),
    sign(
        "driver.oops", "BUG: ", r"BUG: (?:kernel NULL pointer dereference|unable to handle page fault)",
        "The kernel stumbled over itself; the names below the line say in which driver.", {"kernel-regression": 1.4},
        source="kernel: arch/x86/mm/fault.c, show_fault_oops", follows=("driver.nvidia-in-use",),
        sample="BUG: kernel NULL pointer dereference, address: 0000000000000020",
    ),
    sign(
        "driver.vfio-warning", "drivers/vfio", r"WARNING: (?:CPU: \d+ PID: \d+ at )?drivers/vfio/",
        "VFIO found itself in a state that should not be.", {"kernel-regression": 2}, where="host",
        source="kernel: lib/panic.c, __warn", follows=_GONE,
        sample="WARNING: CPU: 4 PID: 4242 at drivers/vfio/pci/vfio_pci_core.c:1774 vfio_pci_core_mmap+0x1/0x2",
    ),
    sign(
        "driver.vfio-bug", "vfio_", r"RIP: \S+:(?:vfio_|vfio_pci_)\w+\+0x",
        "The kernel stumbled inside of VFIO.", {"kernel-regression": 3}, where="host",
        source="kernel: arch/x86/kernel/dumpstack.c",
        sample="RIP: 0010:vfio_pci_core_disable+0x1d3/0x440 [vfio_pci_core]",
        follows=("memory.*", "task.*"),
    ),
    # -- what the host lost ------------------------------------------------------------------------------------------
    sign(
        "host.pool-suspended", "Pool '", r"Pool '[^']+' has encountered an uncorrectable I/O failure and has been "
        r"suspended",
        "The host lost the disks of a pool: their controller went to a guest, or died.",
        {"group-shared-host-device": 3, "bdf-renumbered": 2.5}, where="host",
        source="OpenZFS: module/zfs/zio.c, zio_suspend; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio",
        sample="WARNING: Pool 'rpool' has encountered an uncorrectable I/O failure and has been suspended.",
        confirm="lspci -nnk of the disks' controller, and the members of its group",
    ),
    sign(
        "host.disk-taken", "Synchronize Cache(10) failed",
        r"Synchronize Cache\(10\) failed: Result: hostbyte=DID_(?:NO_CONNECT|BAD_TARGET)",
        "A disk of the host went away while it was in use: unplugged, or its controller went to a guest.",
        {"group-shared-host-device": 1.4, "bdf-renumbered": 1}, where="host",
        source="kernel: drivers/scsi/sd.c, sd_sync_cache",
        sample="sd 2:0:0:0: [sdb] Synchronize Cache(10) failed: Result: hostbyte=DID_BAD_TARGET driverbyte=DRIVER_OK",
    ),
    sign(
        "host.read-only", "Remounting filesystem read-only", r"EXT4-fs \(\S+\): Remounting filesystem read-only",
        "The host can no longer write to a disk.", {"group-shared-host-device": 1, "bdf-renumbered": 1}, where="host",
        source="kernel: fs/ext4/super.c, ext4_handle_error", follows=("host.disk-taken", "host.nvme-down"),
        sample="EXT4-fs (dm-1): Remounting filesystem read-only",
    ),
    sign(
        "host.nic-left", "left promiscuous", r"(?:device )?(?:en|eth|nic)\w+(?::)? left promiscuous mode",
        "A network card left its bridge: it went away, or the host shuts down.",
        {"group-shared-host-device": 1, "bdf-renumbered": 0.5}, where="host",
        source="kernel: net/core/dev.c, __dev_set_promiscuity",
        sample="e1000e 0000:00:1f.6 eno1: left promiscuous mode",
    ),
    sign(
        "host.nvme-down", "nvme", r"nvme nvme\d+: (?:controller is down; will reset: CSTS=0xffffffff|Device not ready; "
        r"aborting|Removing after probe failure|Disabling device after reset failure)",
        "An NVMe disk no longer answers the host.", {"power-state": 1.4, "reset-defective": 1.4}, follows=_GONE,
        source="kernel: drivers/nvme/host/pci.c, nvme_warn_reset",
        sample="nvme nvme1: controller is down; will reset: CSTS=0xffffffff, PCI_STATUS=0xffff",
    ),
    sign(
        "host.nic-link-lost", "PCIe link lost", r"PCIe link lost",
        "A network card of the host no longer answers.", {"power-state": 1.4, "reset-defective": 1}, follows=_GONE,
        source="kernel: drivers/net/ethernet/intel/igc/igc_main.c, igc_rd32", where="host",
        sample="igc 0000:05:00.0 enp5s0: PCIe link lost, device now detached",
    ),
    sign(
        "driver.xhci-dead", "xhci_hcd", r"xhci_hcd \S+: (?:HC died; cleaning up|xHCI host controller not "
        r"responding, assume dead"
        r"|xHCI host not responding to stop endpoint command)",
        "A USB controller no longer answers.", {"reset-defective": 0.5, "power-state": 0.5}, follows=_GONE,
        source="kernel: drivers/usb/host/xhci-ring.c, xhci_hc_died",
        sample="xhci_hcd 0000:0a:00.3: xHCI host controller not responding, assume dead",
    ),
    # -- how the host boots ------------------------------------------------------------------------------------------
    sign(
        "boot.no-root", "panic", r"Kernel panic - not syncing: VFS: Unable to mount root fs",
        "The host does not find its own disk at boot: a driver or the initramfs was changed so that it is left out.",
        {"bad-modprobe": 3, "identical-ids": 3, "bad-kernel-arguments": 1}, where="host",
        source="kernel: init/do_mounts.c, mount_root_generic",
        sample="Kernel panic - not syncing: VFS: Unable to mount root fs on unknown-block(0,0)",
    ),
    sign(
        "boot.root-missing", "does not exist", r"ALERT!\s+\S+ does not exist\.\s+Dropping to a shell",
        "The host does not find its own disk at boot: its controller went to vfio-pci, or its driver is left out.",
        {"identical-ids": 3, "bad-modprobe": 3}, where="host",
        source="initramfs-tools: scripts/local",
        sample="ALERT!  /dev/mapper/pve-root does not exist.  Dropping to a shell!",
    ),
    sign(
        "boot.unknown-words", "command line parameters",
        r"Unknown kernel command line parameters \".*(?:iommu|vfio|pcie_acs|intel_|amd_|"
        r"immou|hugepage|initcall)",
        "Words on the kernel's command line are none of its own: misspelt, or meant for another kernel.",
        {"bad-kernel-arguments": 4}, source="kernel: init/main.c, print_unknown_bootoptions (from 5.14)", since=(5, 14),
        sample='Unknown kernel command line parameters "BOOT_IMAGE=/boot/vmlinuz intel_immou=on", will be passed '
        'to user '
        "space.", where="host",
    ),
    harmless(
        "boot.unknown-everyday", "command line parameters",
        r"Unknown kernel command line parameters \"(?!.*(?:iommu|vfio|pcie_acs|"
        r"intel_|amd_|immou|hugepage|initcall))",
        "Words of the boot loader and of systemd; the kernel hands them on.",
        source="kernel: init/main.c, print_unknown_bootoptions",
        sample='Unknown kernel command line parameters "BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve boot=zfs", will be '
        'passed to '
        "user space.",
    ),
    sign(
        "boot.malformed", "Malformed early option", r"Malformed early option '",
        "A word on the kernel's command line cannot be read.", {"bad-kernel-arguments": 5}, where="host",
        source="kernel: init/main.c, do_early_param", sample="Malformed early option 'iommu'",
    ),
    sign(
        "boot.pci-option", "PCI: Unknown option", r"PCI: Unknown option `",
        "A word after pci= is none that the kernel knows.", {"bad-kernel-arguments": 4}, where="host",
        source="kernel: drivers/pci/pci.c, pci_setup", sample="PCI: Unknown option `noatss'",
    ),
    # -- hardware ----------------------------------------------------------------------------------------------------
    sign(
        "host.machine-check", "Hardware Error", r"mce: \[Hardware Error\]: CPU \d+: Machine Check",
        "The processor reported an error of the hardware, often in the boot before.", {"firmware-defect": 1},
        where="host",
        source="kernel: arch/x86/kernel/cpu/mce/core.c, __print_mce",
        sample="mce: [Hardware Error]: CPU 5: Machine Check: 0 Bank 5: bea0000000000108",
    ),
    # -- harmless ----------------------------------------------------------------------------------------------------
    harmless(
        "driver.ucsi", "i2c_transfer failed", r"ucsi_ccg \S+: i2c_transfer failed",
        "The card's USB-C port does not answer; most cards' is not fitted, or asleep.",
        source="kernel: drivers/usb/typec/ucsi/ucsi_ccg.c", sample="ucsi_ccg 0-0008: i2c_transfer failed -110",
    ),
    harmless(
        "driver.nvidia-i2c", "i2c timeout", r"nvidia-gpu \S+: i2c timeout error",
        "The card's USB-C port does not answer; most cards' is not fitted, or asleep.",
        source="kernel: drivers/i2c/busses/i2c-nvidia-gpu.c, gpu_i2c_check_status",
        sample="nvidia-gpu 0000:01:00.3: i2c timeout error e0000000",
    ),
    harmless(
        "driver.taints", "module", r"module verification failed: signature and/or required key missing - tainting "
        r"kernel"
        r"|loading out-of-tree module taints kernel",
        "A module from outside of the kernel was loaded. It works.",
        source="kernel: kernel/module/main.c", sample="vendor_reset: loading out-of-tree module taints kernel.",
    ),
    harmless(
        "firmware.acpi-names", "AE_NOT_FOUND", r"ACPI (?:BIOS )?Error(?: \(bug\))?: .*AE_NOT_FOUND",
        "The firmware speaks of parts that the board does not have. Nearly every board does.",
        source="kernel: drivers/acpi/acpica", where="host",
        sample="ACPI BIOS Error (bug): Could not resolve symbol [\\_SB.PCI0.GPP0.SWUS], AE_NOT_FOUND "
        "(20230628/dswload2-162)",
    ),
)  # fmt: skip
