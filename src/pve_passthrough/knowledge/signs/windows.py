"""What Windows says of a device: its problem codes in the spellings that people paste, and its displays' crashes.

1. A code says that a driver gave up, seldom why: most rows give a little to several causes, and other evidence decides.
2. Only Windows' own words count here. What a person writes about a code is a complaint, where "no longer" can be heard.
3. Each code is read as the device manager, `Get-PnpDevice` or pnputil, and WMI print it.
"""

from __future__ import annotations

from collections.abc import Mapping

from .row import Sign, sign

_SOURCE = "Microsoft: Device Manager error messages; cfg.h, CM_PROB"


def _problem(
    code: int,
    name: str,
    sentence: str,
    says: str,
    points: Mapping[str, float],
    confirm: str = "",
    when: Mapping[tuple[str, ...], Mapping[str, float]] = {},
) -> tuple[Sign, ...]:
    """The rows of one code: the device manager's words, the symbol, and WMI's number."""
    return (
        sign(
            f"windows.code-{code}", f"(Code {code})", rf"\(Code {code}\)", says, points, source=_SOURCE,
            sample=f"{sentence} (Code {code})", confirm=confirm, when=when,
        ),
        sign(
            f"windows.problem-{code}", name, rf"\b{name}\b", says, points, source=_SOURCE,
            sample=f"Problem : {name}", follows=(f"windows.code-{code}",), confirm=confirm, when=when,
        ),
        sign(
            f"windows.wmi-{code}", "ConfigManagerErrorCode", rf"ConfigManagerErrorCode\s*[:=]\s*{code}\b", says, points,
            source="Microsoft: Win32_PnPEntity, ConfigManagerErrorCode", sample=f"ConfigManagerErrorCode : {code}",
            follows=(f"windows.code-{code}", f"windows.problem-{code}"), confirm=confirm, when=when,
        ),
    )  # fmt: skip


_SECOND_START: Mapping[tuple[str, ...], Mapping[str, float]] = {
    ("said.amd-*",): {"amd-reset-bug": 3.5, "reset-defective": 0.5},
    ("said.reset-bug-amd",): {"amd-reset-bug": 3.5},
    ("said.second-start",): {"reset-defective": 2.5, "amd-reset-bug": 2},
    ("said.power-cycle",): {"reset-defective": 2.5, "amd-reset-bug": 2},
}
"""A code that comes with the second start only speaks of the reset, whatever it says by itself."""
_FORTY_THREE: Mapping[tuple[str, ...], Mapping[str, float]] = {
    **_SECOND_START,
    ("said.laptop-*",): {"laptop-battery": 3.5, "guest-detects-vm": 1, "rom-invalid": 1},
    ("said.seabios-dark",): {"guest-firmware": 3, "rom-invalid": 1},
    ("said.uefi-only-rom",): {"guest-firmware": 3, "rom-invalid": 1},
    ("said.rom-*",): {"rom-invalid": 3, "guest-firmware": 1},
    ("vgpu.*",): {"vgpu-config": 3},
    ("said.vgpu*",): {"vgpu-config": 3},
    ("vfio.bar-taken",): {"boot-framebuffer": 4},
    ("qemu.mmap-failed",): {"boot-framebuffer": 4},
    ("given.amd-*",): {"amd-reset-bug": 2, "rom-invalid": 1.8, "guest-firmware": 1},
    ("said.code-43-igd",): {"rom-invalid": 2.5, "guest-detects-vm": 0.5, "igd-legacy": 1.5},
    ("given.nvidia-*",): {"guest-detects-vm": 2.5, "rom-invalid": 1, "guest-firmware": 1},
}
"""What decides between the many meanings of code 43."""

_CODES: tuple[Sign, ...] = (
    *_problem(
        43, "CM_PROB_FAILED_POST_START", "Windows has stopped this device because it has reported problems.",
        "The driver started and gave the device up: it refuses a virtual machine, misses the card's ROM or a battery, "
        "or "
        "the card was not reset since its last use.",
        {"guest-detects-vm": 2, "rom-invalid": 1.5, "guest-firmware": 1.2, "amd-reset-bug": 1, "laptop-battery": 0.7,
         "reset-defective": 0.5, "guest-address-space": 0.5, "vgpu-config": 0.3},
        "the card and the driver's version; is it the first start after power-on, or a later one?", _FORTY_THREE,
    ),
    *_problem(
        12, "CM_PROB_NORMAL_CONFLICT", "This device cannot find enough free resources that it can use.",
        "Windows found no place for the device's memory.",
        {"guest-address-space": 5, "igd-legacy": 0.5},
        "the sizes of the card's memory regions; the guest's firmware and processor type",
    ),
    *_problem(
        10, "CM_PROB_FAILED_START", "This device cannot start.",
        "The driver could not start the device.",
        {"reset-defective": 1.2, "amd-reset-bug": 1, "guest-detects-vm": 0.7, "rom-invalid": 0.7, "power-state": 0.5,
         "intx-broken": 0.5},
        "is it the first start after power-on, or a later one?", _SECOND_START,
    ),
    *_problem(
        31, "CM_PROB_FAILED_ADD",
        "This device is not working properly because Windows cannot load the drivers required for this device.",
        "The driver could not take the device on: an incomplete or unfitting driver.",
        {"unknown": 0.5, "guest-detects-vm": 0.7, "vgpu-config": 0.5, "rom-invalid": 0.5},
    ),
    *_problem(
        28, "CM_PROB_FAILED_INSTALL", "The drivers for this device are not installed.",
        "Windows has no driver for the device yet; the passthrough is fine.",
        {"unknown": 1.5, "no-fault": 0.5},
        "the maker's driver in the guest",
    ),
    *_problem(
        29, "CM_PROB_HARDWARE_DISABLED",
        "This device is disabled because the firmware of the device did not give it the required resources.",
        "The firmware left the device without what it needs.",
        {"guest-address-space": 1.5, "rom-invalid": 1, "guest-firmware": 0.7},
    ),
    *_problem(
        35, "CM_PROB_BIOS_TABLE",
        "Your computer's system firmware does not include enough information to properly configure and use this "
        "device.",
        "The guest's firmware does not describe what the device needs.",
        {"guest-firmware": 2, "guest-address-space": 1},
    ),
    *_problem(
        39, "CM_PROB_DRIVER_FAILED_LOAD", "Windows cannot load the device driver for this hardware.",
        "The driver is damaged, or Windows does not let it in.",
        {"unknown": 1.5},
    ),
    *_problem(
        52, "CM_PROB_UNSIGNED_DRIVER",
        "Windows cannot verify the digital signature for the drivers required for this device.",
        "The driver is not signed, and Windows under Secure Boot does not let it in; the passthrough is fine.",
        {"unknown": 1.5},
        "efidisk0 with pre-enrolled-keys=1: Secure Boot is on in the guest",
    ),
    *_problem(
        22, "CM_PROB_DISABLED", "This device is disabled.",
        "Somebody, or a script that guards against a bad reset, switched the device off in Windows.",
        {"unknown": 1},
    ),
    *_problem(
        24, "CM_PROB_DEVICE_NOT_THERE",
        "This device is not present, is not working properly, or does not have all its drivers installed.",
        "The device does not answer, or its driver is incomplete.",
        {"power-state": 1, "reset-defective": 1, "unknown": 0.5},
    ),
    *_problem(
        45, "CM_PROB_PHANTOM", "Currently, this hardware device is not connected to the computer.",
        "Windows remembers a device that it does not have now.",
        {"unknown": 0.5, "bdf-renumbered": 0.3},
    ),
)  # fmt: skip

_DISPLAY: tuple[Sign, ...] = (
    sign(
        "windows.tdr-failure", "VIDEO_TDR",
        r"VIDEO_TDR_(FAILURE|ERROR|TIMEOUT_DETECTED)",
        "The display's driver did not come back after it hung, and Windows crashed.",
        {"reset-defective": 1.2, "amd-reset-bug": 1.2, "power-state": 0.7, "guest-address-space": 0.3},
        source="Microsoft: bug checks 0x116, 0x117, 0x119",
        sample="VIDEO_TDR_FAILURE (116)",
        follows=("reset.gave-up*", "reset.vendor-failed", "power.vfio-inaccessible"),
        when=_SECOND_START,
    ),
    sign(
        "windows.amd-crash", "kmdag",
        r"(SYSTEM_(THREAD|SERVICE)_EXCEPTION|KMODE_EXCEPTION|THREAD_STUCK_IN_DEVICE_DRIVER|What failed).*"
        r"(atikmdag|amdkmdag)|(atikmdag|amdkmdag)\.sys",
        "AMD's driver crashed Windows; at the second start of a guest that is the reset bug.",
        {"amd-reset-bug": 2.5},
        source="gnif/vendor-reset, README; isc30/ryzen-gpu-passthrough-proxmox, README",
        sample="What failed: atikmdag.sys",
        follows=("reset.gave-up*", "reset.vendor-failed", "power.vfio-inaccessible"),
    ),
    sign(
        "windows.nvlddmkm", "nvlddmkm",
        r"[Dd]isplay driver nvlddmkm stopped responding",
        "NVIDIA's driver hung and was started again.",
        {"unknown": 0.7, "reset-defective": 0.5, "power-state": 0.5},
        source="Microsoft: event 4101, Display",
        sample="Display driver nvlddmkm stopped responding and has successfully recovered.",
    ),
    sign(
        "windows.arc-interface", "DxgKrnl",
        r"DxgKrnl.*E_NOINTERFACE",
        "Intel's driver for Arc refuses the machine, reportedly because it sees the hypervisor.",
        {"guest-detects-vm": 4},
        source="fidpa/proxmox-gpu-passthrough, TROUBLESHOOTING; reported by users",
        sample="Microsoft-Windows-DxgKrnl-Admin 549: starting the adapter failed with E_NOINTERFACE",
    ),
)  # fmt: skip

SIGNS: tuple[Sign, ...] = (*_CODES, *_DISPLAY)
