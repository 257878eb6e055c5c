"""Virtual GPUs: mediated devices, NVIDIA's manager, GVT-g, and Intel's graphics split by SR-IOV.

1. Proxmox VE's own words about types and instances stand here too.
2. NVIDIA's manager says most of what goes wrong in its own journal (nvidia-vgpu-mgr), not in the task's log.
"""

from __future__ import annotations

from .row import Sign, harmless, sign

_QS = "qemu-server"

_MEDIATED: tuple[Sign, ...] = (
    sign(
        "vgpu.no-instances", "pci device '",
        r"pci device '[^']+' has no available instances of '",
        "All instances of this type are in use, or another type on the same card leaves no room.",
        {"vgpu-config": 6}, program=_QS,
        source="qemu-server: QemuServer/PCI/Mdev.pm, pci_create_mdev_device",
        sample="pci device '0000:00:02.0' has no available instances of 'i915-GVTg_V5_4'",
        confirm="pve-passthrough vgpu list",
    ),
    sign(
        "vgpu.no-type", "pci device '",
        r"pci device '[^']+' (has no type '|does not support mediated devices)",
        "The card does not offer this type: another driver, another card, or the driver is not loaded.",
        {"vgpu-config": 6}, program=_QS,
        source="qemu-server: QemuServer/PCI/Mdev.pm, pci_create_mdev_device",
        sample="pci device '0000:00:02.0' has no type 'i915-GVTg_V5_4'",
        confirm="ls /sys/bus/pci/devices/ADDRESS/mdev_supported_types",
    ),
    sign(
        "vgpu.not-created", "' for pci devices '",
        r"could not create '[^']+' for pci devices '",
        "The kernel refused to make the instance.",
        {"vgpu-config": 5}, program=_QS,
        source="qemu-server: QemuServer/PCI/Mdev.pm, pci_create_mdev_device",
        sample="could not create 'nvidia-259' for pci devices '0000:41:00.0'",
        confirm="dmesg; journalctl -u nvidia-vgpu-mgr",
    ),
    sign(
        "vgpu.mediated-failed", "create mediated device",
        r"could not create mediated device",
        "The kernel refused to make the instance.",
        {"vgpu-config": 4.5}, program=_QS,
        source="qemu-server: QemuServer.pm, vm_start_nolock",
        sample="can't reserve or could not create mediated device",
        follows=("vgpu.not-created", "vgpu.no-*"),
    ),
    sign(
        "vgpu.other-type", "mdev instance '",
        r"mdev instance '[^']+' already exists, but type is not '",
        "An instance of an earlier start is left, of another type.",
        {"vgpu-config": 5}, program=_QS,
        source="qemu-server: QemuServer/PCI/Mdev.pm, pci_create_mdev_device",
        sample="mdev instance '00000000-0000-0000-0000-000000000100' already exists, but type is not 'nvidia-259'",
        confirm="ls /sys/bus/mdev/devices",
    ),
    harmless(
        "vgpu.left-over", "mdev instance '",
        r"mdev instance '[^']+' already existed, using it",
        "An instance of an earlier start is left and is used again.",
        source="qemu-server: QemuServer/PCI/Mdev.pm, pci_create_mdev_device",
        sample="mdev instance '00000000-0000-0000-0000-000000000100' already existed, using it.",
    ),
    sign(
        "vgpu.no-sysfs", "no nvidia sysfs",
        r"no nvidia sysfs api for '",
        "This function has no switch for vGPUs: the virtual functions are not made, or the driver is not the vGPU "
        "driver.",
        {"vgpu-config": 5, "sriov-setup": 2}, program=_QS, since=(8, 2),
        source="qemu-server: QemuServer/PCI/Mdev.pm, create_nvidia_device",
        sample="no nvidia sysfs api for '0000:41:00.4'",
        confirm="ls /sys/bus/pci/devices/ADDRESS/nvidia; systemctl status 'pve-nvidia-sriov@*'",
    ),
    sign(
        "vgpu.type-unavailable", "vgpu type '",
        r"vgpu type '[^']+' not available for '",
        "The card does not offer this type now: another type is in use on it, or no room is left.",
        {"vgpu-config": 6}, program=_QS, since=(8, 2),
        source="qemu-server: QemuServer/PCI/Mdev.pm, create_nvidia_device",
        sample="vgpu type '660' not available for '0000:41:00.4'",
        confirm="cat /sys/bus/pci/devices/ADDRESS/nvidia/creatable_vgpu_types",
    ),
    sign(
        "vgpu.type-not-set", "vgpu type",
        r"(could not set|unable to reset) vgpu type",
        "The kernel refused the vGPU type.",
        {"vgpu-config": 5}, program=_QS, since=(8, 2),
        source="qemu-server: QemuServer/PCI/Mdev.pm, create_nvidia_device",
        sample="could not set vgpu type to '660' for '0000:41:00.4'",
    ),
    sign(
        "vgpu.query-failed", "failed to query NVIDIA vGPU types",
        r"failed to query NVIDIA vGPU types",
        "NVIDIA's vGPU driver does not answer.",
        {"vgpu-config": 5}, program=_QS, since=(9, 1),
        source="qemu-server: QemuServer/PCI/Mdev.pm, get_mdev_types",
        sample="failed to query NVIDIA vGPU types for 0000:41:00.4 - Driver Not Loaded",
    ),
    sign(
        "vgpu.multifunction", "mediated device with",
        r"cannot use mediated device with multifunction device",
        "A device line that asks for an mdev names all functions of a device.",
        {"vgpu-config": 4, "bad-vm-config": 3}, program=_QS,
        source="qemu-server: QemuServer/PCI.pm, parse_hostpci",
        sample="cannot use mediated device with multifunction device",
    ),
    sign(
        "vgpu.not-cleaned", "cleanup nvidia vgpu",
        r"could not cleanup nvidia vgpu for '",
        "NVIDIA's manager did not let go of the vGPU within ten seconds.",
        {"vgpu-config": 3}, program=_QS,
        source="qemu-server: QemuServer.pm, cleanup_pci_devices",
        sample="could not cleanup nvidia vgpu for '0000:01:00.4'",
    ),
    harmless(
        "vgpu.waited", "mediated device driver",
        r"waited \d+ seconds for mediated device driver finishing clean up",
        "Proxmox VE waits for NVIDIA's manager after a stop.",
        source="qemu-server: QemuServer.pm, cleanup_pci_devices",
        sample="waited 10 seconds for mediated device driver finishing clean up",
    ),
    sign(
        "vgpu.mdev-lookup", "/sys/bus/mdev/devices/",
        r"(vfio .*|lstat |realpath )?/sys/bus/mdev/devices/[0-9a-f-]{36}'?: (no such host device: )?No such file or "
        r"directory",
        "The instance that the guest's configuration names does not exist: instances are gone after a reboot.",
        {"vgpu-config": 5},
        source="QEMU: hw/vfio/helpers.c, vfio_device_get_name; kernel: "
        "Documentation/driver-api/vfio-mediated-device.rst",
        sample="vfio /sys/bus/mdev/devices/0b5fd3fb-2389-4a22-ba70-52969a26b9d5: no such host device: No such file or "
        "directory",
        confirm="ls /sys/bus/mdev/devices",
    ),
    sign(
        "vgpu.config-space", "device config space: Bad address",
        r"failed to read device config space: Bad address",
        "The vGPU could not be set up: type and driver do not fit together.",
        {"vgpu-config": 5}, program="qemu",
        source="QEMU: hw/vfio/pci.c, vfio_pci_realize; mbilker/vgpu_unlock-rs#6, #10",
        sample="vfio 00000000-0000-0000-0000-000000000100: failed to read device config space: Bad address",
        confirm="journalctl -u nvidia-vgpu-mgr",
    ),
    sign(
        "vgpu.device-info", "error getting device info",
        r"error getting device info: Input/output error",
        "The vGPU's function did not answer. Kernels 6.14 before 6.14.8-2 and 6.8 before 6.8.12-13 fail so.",
        {"kernel-regression": 3.5, "vgpu-config": 3}, program="qemu",
        source="QEMU: hw/vfio/container.c; pve-kernel changelog 6.14.8-2, 6.8.12-13",
        sample="vfio 0000:21:00.4: error getting device info: Input/output error",
        confirm="uname -r; journalctl -u nvidia-vgpu-mgr",
    ),
    sign(
        "vgpu.create-full", "mdev_supported_types",
        r"mdev_supported_types/\S+: (write error: )?No space left on device",
        "No instance of this type is left: another is in use, or the aperture is too small.",
        {"vgpu-config": 6},
        source="kernel: Documentation/driver-api/vfio-mediated-device.rst; intel/gvt-linux#122, #172",
        sample="error writing '00000000-0000-0000-0000-000000000100' to '/sys/bus/pci/devices/0000:00:02.0/"
        "mdev_supported_types/i915-GVTg_V5_4/create': No space left on device",
    ),
)  # fmt: skip

_MANAGER: tuple[Sign, ...] = (
    sign(
        "vgpu.no-uuid", "vmiop_env_log: Failed to get VM",
        r"vmiop_env_log: Failed to get VM UUID from QEMU command-line",
        "NVIDIA's manager needs the guest's UUID on QEMU's command line; Proxmox VE adds it to its own mdev lines "
        "only.",
        {"vgpu-config": 6},
        source="DualCoder/vgpu_unlock#71; qemu-server: QemuServer.pm, vm_start_nolock",
        sample="error: vmiop_env_log: Failed to get VM UUID from QEMU command-line 0x57",
    ),
    sign(
        "vgpu.versions", "Incompatible Guest/Host drivers",
        r"Incompatible Guest/Host drivers: ",
        "The driver in the guest and the vGPU driver of the host do not fit together.",
        {"vgpu-config": 6},
        source="NVIDIA open-gpu-kernel-modules: rpc.c; mbilker/vgpu_unlock-rs#10",
        sample="error: vmiop_log: (0x0): Incompatible Guest/Host drivers: Guest VGX version is older than the minimum "
        "version supported by the Host. Disabling vGPU.",
    ),
    sign(
        "vgpu.manager-error", "error: vmiop",
        r"error: vmiop_(env_)?log: (?!.*(Failed to get VM UUID|Incompatible Guest))",
        "NVIDIA's manager reports an error.",
        {"vgpu-config": 2.5},
        source="NVIDIA vGPU manager; DualCoder/vgpu_unlock#1, #99",
        sample="error: vmiop_log: NVOS status 0x56",
        follows=("vgpu.no-uuid", "vgpu.versions"),
    ),
    sign(
        "vgpu.unlicensed", "vmiop_log",
        r"vmiop_log: .*(Guest is unlicensed|vGPU license state: Unlicensed)",
        "The guest has no licence for its vGPU and runs slowly.",
        {"vgpu-config": 2},
        source="NVIDIA vGPU documentation, Client Licensing",
        sample="notice: vmiop_log: (0x0): vGPU license state: Unlicensed (Unrestricted)",
    ),
    sign(
        "vgpu.license-failed", "acquire license from",
        r"Failed to acquire license from",
        "The guest cannot reach its licence server.",
        {"vgpu-config": 4},
        source="NVIDIA vGPU documentation, Client Licensing; nvidia-gridd",
        sample="nvidia-gridd: Failed to acquire license from 10.0.0.5 (Info: NVIDIA RTX Virtual Workstation)",
    ),
    sign(
        "vgpu.vfio-symbol", "nvidia-vgpu-vfio",
        r"\[nvidia-vgpu-vfio\] .*(failed|[Ee]rror|[Tt]imeout)",
        "NVIDIA's vGPU module reports an error.",
        {"vgpu-config": 4},
        source="NVIDIA vGPU host driver, nvidia-vgpu-vfio; DualCoder/vgpu_unlock#57",
        sample="[nvidia-vgpu-vfio] 00000000-0000-0000-0000-000000000100: start failed. status: 0x1",
    ),
    sign(
        "vgpu.daemon", "failed to allocate client",
        r"error: failed to allocate client: \d+",
        "NVIDIA's vGPU service found no card that makes vGPUs.",
        {"vgpu-config": 5},
        source="NVIDIA vGPU host driver, nvidia-vgpud",
        sample="error: failed to allocate client: 59",
    ),
    sign(
        "vgpu.not-a-vgpu-driver", "devices in vGPU mode",
        r"No supported devices in vGPU mode",
        "This card, or this driver, makes no vGPUs.",
        {"vgpu-config": 5},
        source="NVIDIA vGPU documentation; nvidia-smi vgpu",
        sample="No supported devices in vGPU mode",
    ),
)  # fmt: skip

_INTEL: tuple[Sign, ...] = (
    sign(
        "vgpu.gvt-unsupported", "GVT-g is disabled",
        r"Unsupported device\. GVT-g is disabled",
        "GVT-g knows Intel's graphics from Broadwell to Comet Lake only; newer ones are split by SR-IOV.",
        {"vgpu-config": 6},
        source="kernel: drivers/gpu/drm/i915/intel_gvt.c, intel_gvt_init",
        sample="i915 0000:00:02.0: [drm] Unsupported device. GVT-g is disabled",
    ),
    sign(
        "vgpu.gvt-guc", "with GuC submission",
        r"Graphics virtualization is not yet supported with GuC submission",
        "GVT-g does not work together with i915.enable_guc.",
        {"vgpu-config": 5, "bad-kernel-arguments": 2},
        source="kernel: drivers/gpu/drm/i915/intel_gvt.c, intel_gvt_init",
        sample="i915 0000:00:02.0: [drm] *ERROR* Graphics virtualization is not yet supported with GuC submission",
        confirm="cat /proc/cmdline: i915.enable_guc",
    ),
    sign(
        "vgpu.guc-mmio", "mmio request 0x",
        r"(GUC|GuC): mmio request 0x[0-9a-f]+: failure",
        "A virtual function of Intel's graphics and its parent do not understand each other: their drivers differ.",
        {"sriov-setup": 4, "vgpu-config": 2},
        source="strongtz/i915-sriov-dkms#214, #122",
        sample="i915 0000:06:10.0: [drm] *ERROR* GT0: GUC: mmio request 0x4100: failure 201/0",
        confirm="dkms status on host and guest; uname -r of both",
    ),
    sign(
        "vgpu.iov-version", "IOV: Unable to confirm version",
        r"IOV: Unable to confirm version",
        "A virtual function of Intel's graphics and its parent speak different versions: their drivers differ.",
        {"sriov-setup": 3, "vgpu-config": 1.5},
        source="strongtz/i915-sriov-dkms#186",
        sample="i915 0000:06:10.0: [drm] *ERROR* GT0: IOV: Unable to confirm version 1.4 (0000000000000000)",
        follows=("vgpu.guc-mmio",),
        confirm="dkms status on host and guest",
    ),
    sign(
        "vgpu.guc-submission", "submission disabled",
        r"\*ERROR\* .*(GuC|GUC) submission disabled",
        "A virtual function of Intel's graphics works only with GuC submission: i915.enable_guc=3 in the guest.",
        {"sriov-setup": 3.5, "bad-kernel-arguments": 1},
        source="strongtz/i915-sriov-dkms#103",
        sample="i915 0000:01:00.0: [drm] *ERROR* GuC submission disabled",
        where="guest",
    ),
    sign(
        "vgpu.xe-vf", "xe ",
        r"xe \S+: \[drm\] \*ERROR\* .*VF: .*(failed|unsupported|mismatch)",
        "A virtual function of Intel's graphics and its parent do not understand each other.",
        {"sriov-setup": 3.5},
        source="kernel: drivers/gpu/drm/xe/xe_gt_sriov_vf.c",
        sample="xe 0000:06:10.0: [drm] *ERROR* GT0: VF: GuC bootstrap failed (-EPROTO)",
    ),
)  # fmt: skip

SIGNS: tuple[Sign, ...] = (*_MEDIATED, *_MANAGER, *_INTEL)
