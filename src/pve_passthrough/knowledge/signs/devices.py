"""Lines about devices themselves: which card it is, its memory, its ROM, the firmware's picture on it.

1. Rows `device.*` without points say what stands in a slot; rows of other modules ask for them (`when`).
2. Memory that a device could not get counts only where it is a large BAR of its own: ports, ROMs and virtual functions
   without memory are everyday lines.
"""

from __future__ import annotations

from .row import Sign, harmless, on_amd, sign

_LARGE = r"size 0x(?:[1-9a-f][0-9a-f]{7,})"
"""256 MiB and more: a format of eight digits that does not begin with a zero."""
_NO_ATS = r"(?:98e4|7340|7341|7347|734f|15d8)"
"""Source: drivers/pci/quirks.c, quirk_amd_harvest_no_ats (Stoney, Navi 14, Picasso of some boards)."""

SIGNS: tuple[Sign, ...] = (
    # -- what it is --------------------------------------------------------------------------------------------------
    sign(
        "device.ats-quirk", "class 0x03", rf"\[1002:{_NO_ATS}\] type 00 class 0x03",
        "An AMD card whose address cache (ATS) is known as broken on some boards.", {},
        source="kernel: drivers/pci/probe.c, pci_setup_device; drivers/pci/quirks.c, quirk_amd_harvest_no_ats",
        sample="pci 0000:0a:00.0: [1002:15d8] type 00 class 0x030000",
    ),
    sign(
        "device.amd-gpu", "class 0x03", r"\[1002:[0-9a-f]{4}\] type 00 class 0x03",
        "An AMD graphics card.", {}, source="kernel: drivers/pci/probe.c, pci_setup_device",
        sample="pci 0000:0b:00.0: [1002:67df] type 00 class 0x030000",
    ),
    sign(
        "device.amd-gpu-listed", "VGA compatible", r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\"? \"?VGA compatible controller.*"
        r"(?:\[1002:|AMD/ATI)",
        "An AMD graphics card.", {}, source="lspci(8)",
        sample="0b:00.0 VGA compatible controller [0300]: Advanced Micro Devices, Inc. [AMD/ATI] Ellesmere [1002:67df] "
        "(rev e7)",
    ),
    sign(
        "device.amd-display-listed", "Display controller", r"[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\"? \"?Display controller.*"
        r"(?:\[1002:|AMD/ATI)",
        "An AMD graphics card.", {}, source="lspci(8)",
        sample="0b:00.0 Display controller [0380]: Advanced Micro Devices, Inc. [AMD/ATI] Navi 10 [1002:731f]",
    ),
    sign(
        "device.amd-driver", "amdgpu 0", r"\bamdgpu [0-9a-f]{4}:[0-9a-f]{2}:[01][0-9a-f]\.[0-7]: ",
        "An AMD graphics card, with the host's or guest's driver.", {}, source="kernel: include/linux/dev_printk.h",
        sample="amdgpu 0000:0b:00.0: enabling device (0006 -> 0007)",
    ),
    sign(
        "given.amd-option", "ids=", r"\bids=[0-9a-fA-F:,]*\b1002:",
        "An AMD device is given away by its ID.", {}, source="kernel: drivers/vfio/pci/vfio_pci.c, ids",
        sample="options vfio-pci ids=1002:67df,1002:aaf0",
    ),
    sign(
        "given.nvidia-option", "ids=", r"\bids=[0-9a-fA-F:,]*\b10[dD][eE]:",
        "An NVIDIA device is given away by its ID.", {}, source="kernel: drivers/vfio/pci/vfio_pci.c, ids",
        sample="options vfio-pci ids=10de:2206,10de:1aef",
    ),
    sign(
        "given.amd-added", "vfio_pci: add [1002", r"vfio_pci: add \[1002:",
        "An AMD device is given away by its ID.", {}, source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids",
        sample="vfio_pci: add [1002:67df[ffffffff:ffffffff]] class 0x000000/00000000",
    ),
    sign(
        "given.nvidia-added", "vfio_pci: add [10de", r"vfio_pci: add \[10de:",
        "An NVIDIA device is given away by its ID.", {},
        source="kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids",
        sample="vfio_pci: add [10de:2206[ffffffff:ffffffff]] class 0x000000/00000000",
    ),
    # -- dead --------------------------------------------------------------------------------------------------------
    sign(
        "device.dead-header", "nknown header type", r"unknown header type 7f, ignoring device",
        "The device answers nothing but ones: it has gone.", {"reset-defective": 4, "power-state": 2}, where="host",
        when=on_amd({"amd-reset-bug": 5, "power-state": 2}), follows=("reset.gave-up*", "reset.no-link"),
        source="kernel: drivers/pci/probe.c, pci_setup_device",
        sample="pci 0000:01:00.0: unknown header type 7f, ignoring device",
    ),
    sign(
        "device.dead-header-listed", "Unknown header type", r"!!! Unknown header type 7f",
        "The device answers nothing but ones: it has gone.", {"reset-defective": 4, "power-state": 2}, where="host",
        when=on_amd({"amd-reset-bug": 5, "power-state": 2}), follows=("reset.gave-up*", "reset.no-link"),
        source="lspci(8)", sample="!!! Unknown header type 7f",
    ),
    # -- memory of the device ----------------------------------------------------------------------------------------
    *(
        sign(
            f"device.{name}-{side}", needle, rf"pci\S* \S+: {pattern}", says, points,
            source="kernel: drivers/pci/setup-res.c, pci_assign_resource", sample=sample, where=side,
            confirm=confirm, follows=("device.bar-no-room-*",) if name == "bar-failed" else (),
        )
        for side, says, points, confirm in (
            ("host", "A large BAR of the device found no room on the host.", {"firmware-defect": 3, "guest-address-"
            "space": 2},
             'the switch "Above 4G decoding" in the firmware'),
            ("guest", "A large BAR of the device found no room in the guest.", {"guest-address-space": 5},
             "qm config VMID: bios and cpu; pve-passthrough bars ADDRESS --vm VMID"),
        )
        for name, needle, pattern, sample in (
            ("bar-no-room", "no space", rf"BAR [0-5](?:: no space for \[mem {_LARGE}| \[mem {_LARGE}[^]]*\]: can't "
            rf"assign; no space)",
             "pci 0000:01:00.0: BAR 1 [mem size 0x400000000 64bit pref]: can't assign; no space"),
            ("bar-failed", "failed to assign", rf"BAR [0-5](?:: failed to assign \[mem {_LARGE}| \[mem "
            rf"{_LARGE}[^]]*\]: failed)",
             "pci 0000:01:00.0: BAR 1: failed to assign [mem size 0x400000000 64bit pref]"),
        )
    ),
    *(
        sign(
            f"device.bar-unassigned-{side}", "can't enable device: BAR",
            r"can't enable device: BAR [0-6] .*not (?:assigned|claimed)",
            f"The device has memory without an address {place}, so no driver can use it.", points, where=side,
            source="kernel: drivers/pci/setup-res.c, pci_enable_resources",
            follows=("device.bar-no-room-*", "device.bar-failed-*"),
            sample="vfio-pci 0000:01:00.0: can't enable device: BAR 1 [mem size 0x400000000 64bit pref]: not assigned",
        )
        for side, place, points in (
            ("host", "on the host", {"firmware-defect": 3, "guest-address-space": 1}),
            ("guest", "in the guest", {"guest-address-space": 5}),
        )
    ),
    harmless(
        "device.bar-small", "failed to assign", r"(?:BAR (?:[6-9]|1[0-6])(?:: | \[)|ROM \[|bridge window \[).*?"
        r"failed to assign",
        "A port, a ROM or virtual functions got no room of their own. They rarely need it.", where="host",
        source="kernel: drivers/pci/setup-res.c, pci_assign_resource; drivers/pci/setup-bus.c",
        sample="pci 0000:01:01.0: BAR 13: failed to assign [io  size 0x1000]",
    ),
    sign(
        "device.bar-invalid", "invalid BAR", r"invalid BAR \(can't size\)",
        "The device says no sensible size for its memory: a fault of its firmware, or it did not answer.",
        {"firmware-defect": 1}, where="host",
        source="kernel: drivers/pci/probe.c, __pci_read_base",
        sample="pci 0000:00:1f.5: [Firmware Bug]: reg 0x10: invalid BAR (can't size)",
    ),
    harmless(
        "device.mapping-several", "multiple BARs", r"resource sanity check: requesting .*mapping multiple BARs|"
        r"mapping multiple BARs",
        "A driver maps more memory at once than one BAR; it works all the same.", where="host",
        source="kernel: kernel/resource.c, iomem_map_sanity_check",
        sample="caller os_map_kernel_space+0x120/0x130 [nvidia] mapping multiple BARs",
    ),
    # -- ROM ---------------------------------------------------------------------------------------------------------
    sign(
        "device.rom-unreadable", "PCI ROM header", r"vfio-pci \S+: Invalid PCI ROM header signature: expecting 0xaa55",
        "The device's ROM cannot be read: shadowed by the firmware on the boot card, asleep, or not there. Many cards "
        "work all the same.", {"rom-invalid": 2.5}, where="host", follows=("reset.gave-up*", "power.vfio-inaccessible"),
        source="kernel: drivers/pci/rom.c, pci_get_rom_size",
        sample="vfio-pci 0000:01:00.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0xffff",
        confirm="cat /sys/bus/pci/devices/ADDRESS/boot_vga; pve-passthrough rom check",
    ),
    sign(
        "device.rom-unreadable-other", "PCI ROM header",
        r"^(?!.*vfio-pci ).*Invalid PCI ROM header signature: expecting 0xaa55",
        "A device's ROM cannot be read; most drivers do without.", {"rom-invalid": 1},
        source="kernel: drivers/pci/rom.c, pci_get_rom_size", follows=("device.rom-unreadable",),
        sample="pci 0000:01:00.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0xffff",
    ),
    sign(
        "device.rom-corrupt", "PCI ROM data", r"Invalid PCI ROM data signature: expecting 0x52494350",
        "What stands in the device's ROM is no ROM.", {"rom-invalid": 4},
        source="kernel: drivers/pci/rom.c, pci_get_rom_size", follows=("reset.gave-up*",),
        sample="pci 0000:01:00.0: Invalid PCI ROM data signature: expecting 0x52494350, got 0x00000000",
    ),
    sign(
        "device.rom-shadowed", "shadowed ROM", r"Video device with shadowed ROM at",
        "The firmware started this card as its first display: what can be read as its ROM is a copy that was changed.",
        {"rom-invalid": 0.5}, where="host",
        source="kernel: arch/x86/pci/fixup.c, pci_fixup_video",
        sample="pci 0000:01:00.0: Video device with shadowed ROM at [mem 0x000c0000-0x000dffff]",
    ),
    # -- the firmware's picture --------------------------------------------------------------------------------------
    sign(
        "boot.bar-taken", "can't reserve [", r"^(?!.*vfio-pci )\S+ \S+: BAR \d(?: \[[^]]*\])?: can't reserve \[mem ",
        "Something else holds memory of the device.", {"boot-framebuffer": 1}, where="host",
        source="kernel: drivers/pci/pci.c, __pci_request_region", follows=("vfio.bar-taken",),
        sample="amdgpu 0000:0a:00.0: BAR 0: can't reserve [mem 0xd0000000-0xdfffffff 64bit pref]",
    ),
    sign(
        "boot.conflicting-memory", "conflicting memory", r"x86/PAT: (?:kvm|CPU \d+/KVM|qemu\S*):\d+ conflicting memory "
        r"types",
        "The guest wants the card's memory otherwise than something on the host holds it: mostly the firmware's "
        "picture.",
        {"boot-framebuffer": 3}, where="host", follows=("vfio.bar-taken",),
        source="kernel: arch/x86/mm/pat/memtype_interval.c, memtype_check_insert",
        sample="x86/PAT: kvm:4242 conflicting memory types e0000000-f0000000 uncached-minus<->write-combining",
    ),
    sign(
        "boot.simpledrm", "Initialized simpledrm", r"Initialized simpledrm",
        "The firmware's picture has a driver, on the card that the firmware chose.", {"boot-framebuffer": 0.5},
        source="kernel: drivers/gpu/drm/tiny/simpledrm.c", where="host",
        sample="[drm] Initialized simpledrm 1.0.0 for simple-framebuffer.0 on minor 0",
    ),
)  # fmt: skip
