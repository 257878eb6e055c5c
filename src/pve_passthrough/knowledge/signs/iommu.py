"""Lines about the IOMMU: its tables, its start, the remapping of interrupts, and its faults.

1. Lines that show a working IOMMU are rows too: they speak against its being off.
2. A fault by itself says only that a device read or wrote what it should not; the reset that failed before it, or the
   card that makes it, says why.
"""

from __future__ import annotations

from .row import Sign, harmless, on_amd, sign

_ADDRESS = r"(?:[0-9a-f]{4}:)?[0-9a-f]{2}:[01][0-9a-f]\.[0-7]"
_RESET = ("reset.gave-up*", "reset.no-link*", "device.dead-header*", "power.vfio-inaccessible")
"""Signs of a device that has gone: whatever the IOMMU says about it afterwards follows."""

SIGNS: tuple[Sign, ...] = (
    # -- on or off ---------------------------------------------------------------------------------------------------
    sign(
        "iommu.intel-running", "DMAR: Intel(R) Virt", r"DMAR: Intel\(R\) Virtualization Technology for Directed I/O",
        "VT-d translates: the IOMMU is on.", {"iommu-off": -4, "wrong-boot-loader": -1}, where="host",
        source="kernel: drivers/iommu/intel/iommu.c, intel_iommu_init",
        sample="DMAR: Intel(R) Virtualization Technology for Directed I/O",
    ),
    sign(
        "iommu.amd-running", "AMD-Vi: Interrupt", r"AMD-Vi: Interrupt remapping enabled",
        "The AMD IOMMU is on and isolates interrupts.", {"iommu-off": -4, "no-interrupt-remapping": -4}, where="host",
        source="kernel: drivers/iommu/amd/init.c, print_iommu_info", sample="AMD-Vi: Interrupt remapping enabled",
    ),
    sign(
        "iommu.amd-features", "AMD-Vi: ", r"AMD-Vi: (?:Extended features|Found IOMMU (?:at|cap))",
        "The AMD IOMMU is there and is being started.", {"iommu-off": -2}, where="host",
        source="kernel: drivers/iommu/amd/init.c, print_iommu_info; Found IOMMU until 6.6",
        sample="AMD-Vi: Extended features (0x58f77ef22294a5a, 0x0): PPR NX GT IA GA PC GA_vapic",
    ),
    sign(
        "iommu.intel-remapping", "Enabled IRQ rem", r"DMAR-IR: Enabled IRQ remapping in (?:x2apic|xapic) mode",
        "Interrupts are remapped: VFIO has what it needs.", {"no-interrupt-remapping": -4, "iommu-off": -1},
        where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, intel_enable_irq_remapping",
        sample="DMAR-IR: Enabled IRQ remapping in x2apic mode",
    ),
    sign(
        "iommu.group", "Adding to iommu group", r"Adding to iommu group \d+",
        "Devices are put into IOMMU groups: the IOMMU is on.", {"iommu-off": -4}, where="host",
        source="kernel: drivers/iommu/iommu.c, iommu_group_add_device",
        sample="pci 0000:01:00.0: Adding to iommu group 12",
    ),
    sign(
        "iommu.domain-type", "iommu: Default", r"iommu: Default domain type: (?:Passthrough|Translated)",
        "How the host's own devices are treated (iommu=pt or not). It says nothing about guests.", {},
        source="kernel: drivers/iommu/iommu.c, iommu_subsys_init",
        sample="iommu: Default domain type: Passthrough (set via kernel command line)", where="host",
    ),
    sign(
        "iommu.intel-argument", "DMAR: IOMMU enabled", r"DMAR: IOMMU enabled",
        "The kernel has read intel_iommu=on. That is said before the hardware is looked at, and proves nothing.", {},
        source="kernel: drivers/iommu/intel/iommu.c, intel_iommu_setup", sample="DMAR: IOMMU enabled",
    ),
    sign(
        "iommu.intel-off", "DMAR: IOMMU disabled", r"DMAR: IOMMU disabled",
        "The kernel was told to leave VT-d off (intel_iommu=off).", {"iommu-off": 6}, where="host",
        source="kernel: drivers/iommu/intel/iommu.c, intel_iommu_setup", sample="DMAR: IOMMU disabled",
        confirm="grep -o 'intel_iommu=[^ ]*' /proc/cmdline",
    ),
    sign(
        "iommu.amd-off", "AMD IOMMU disabled", r"AMD IOMMU disabled",
        "The kernel was told to leave the AMD IOMMU off (amd_iommu=off).", {"iommu-off": 6}, where="host",
        source="kernel: drivers/iommu/amd/init.c, state_next (text until 5.14)",
        sample="AMD-Vi: AMD IOMMU disabled", confirm="grep -o 'amd_iommu=[^ ]*' /proc/cmdline", until=(5, 14),
    ),
    sign(
        "iommu.noiommu-taint", "noiommu group", r"Adding kernel taint for vfio-noiommu group on device",
        "VFIO was told to do without an IOMMU: this machine has none that works.", {"iommu-off": 4},
        source="kernel: drivers/vfio/group.c, vfio_noiommu_group_alloc",
        sample="vfio-pci 0000:01:00.0: Adding kernel taint for vfio-noiommu group on device", where="host",
    ),
    # -- what the firmware's tables say ------------------------------------------------------------------------------
    sign(
        "iommu.no-dmar-devices", "DMAR: No DMAR dev", r"DMAR: No DMAR devices found",
        "The firmware has a DMAR table without any unit in it.", {"iommu-firmware": 4, "iommu-off": 2}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, dmar_table_init", sample="DMAR: No DMAR devices found",
        confirm="ls -l /sys/firmware/acpi/tables/DMAR", follows=("iommu.dmar-at-zero",),
    ),
    sign(
        "iommu.dmar-parse", "DMAR table failure", r"[Pp]arse DMAR table failure",
        "The kernel rejects the firmware's DMAR table.", {"iommu-firmware": 5, "iommu-off": 1}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, dmar_table_init", sample="DMAR: Parse DMAR table failure.",
        confirm="dmesg | grep -i 'firmware bug'", follows=("iommu.dmar-at-zero",),
    ),
    sign(
        "iommu.dmar-at-zero", "BIOS is broken; DMAR", r"Your BIOS is broken; DMAR reported at address",
        "The firmware gives a wrong address for the IOMMU, so the kernel does not use it.",
        {"iommu-firmware": 5, "iommu-off": 1}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, warn_invalid_dmar",
        sample="DMAR: [Firmware Bug]: Your BIOS is broken; DMAR reported at address 0!",
        confirm="ls /sys/class/iommu (empty: the kernel gave up)",
    ),
    sign(
        "iommu.dmar-start", "DMAR: Initialization", r"DMAR: Initialization failed",
        "VT-d could not be started.", {"iommu-firmware": 4, "iommu-off": 1}, where="host",
        source="kernel: drivers/iommu/intel/iommu.c, intel_iommu_init", sample="DMAR: Initialization failed",
    ),
    sign(
        "iommu.bad-rmrr", "bad RMRR", r"Your BIOS is broken; bad RMRR",
        "A reserved region in the firmware's table makes no sense. The IOMMU is used all the same.",
        {"iommu-firmware": 1.4}, follows=("iommu.uncovered-rmrr",), where="host",
        source="kernel: drivers/iommu/intel/iommu.c, dmar_parse_one_rmrr",
        sample="DMAR: [Firmware Bug]: Your BIOS is broken; bad RMRR [0x0000000000000000-0x0000000000000fff]",
    ),
    sign(
        "iommu.uncovered-rmrr", "cover this RMRR", r"No firmware reserved region can cover this RMRR",
        "The firmware reserves memory for a device in one table and not in the other. The IOMMU is used all the same.",
        {"iommu-firmware": 1.4}, where="host",
        source="kernel: arch/x86/include/asm/iommu.h, arch_rmrr_sanity_check",
        sample="DMAR: [Firmware Bug]: No firmware reserved region can cover this RMRR "
        "[0x00000000bdc00000-0x00000000bfffffff], contact BIOS vendor for fixes",
    ),
    sign(
        "iommu.rhsa", "DMAR unit", r"Your BIOS is broken; RHSA refers to non-existent DMAR unit",
        "The firmware's table names an IOMMU that does not exist; only the choice of memory nodes suffers.",
        {"iommu-firmware": 1}, source="kernel: drivers/iommu/intel/dmar.c, dmar_parse_one_rhsa",
        sample="DMAR: [Firmware Bug]: Your BIOS is broken; RHSA refers to non-existent DMAR unit at fed91000",
        where="host",
    ),
    sign(
        "iommu.graphics-left-out", "IOMMU for graphics", r"[Dd]isabling IOMMU for graphics",
        "The kernel leaves the processor's graphics outside of the IOMMU: it has no group and cannot be given away.",
        {"iommu-firmware": 1.4, "iommu-off": 1}, where="host",
        source="kernel: drivers/iommu/intel/iommu.c, quirk_calpella_no_shadow_gtt, quirk_iommu_igfx",
        sample="pci 0000:00:00.0: DMAR: Disabling IOMMU for graphics on this chipset",
    ),
    sign(
        "iommu.intel-stuck", "DMAR hardware is", r"DMAR hardware is malfunctioning",
        "The IOMMU does not carry out commands, and the kernel stops.", {"firmware-defect": 4, "iommu-firmware": 3},
        source="kernel: drivers/iommu/intel/iommu.h, IOMMU_WAIT_OP", where="host",
        sample="Kernel panic - not syncing: DMAR hardware is malfunctioning",
    ),
    sign(
        "iommu.ivrs", "IVRS", r"IVRS table error: |IVRS invalid checksum",
        "The kernel rejects the firmware's IVRS table.", {"iommu-firmware": 5}, where="host",
        source="kernel: drivers/iommu/amd/init.c, early_amd_iommu_init, check_ivrs_checksum",
        sample="AMD-Vi: IVRS table error: AE_NOT_FOUND",
    ),
    sign(
        "iommu.ivrs-mmio", "reserve memory region", r"AMD-Vi: Can not reserve memory region \S+ for mmio",
        "The firmware placed the IOMMU where memory already belongs to something else.", {"iommu-firmware": 5},
        source="kernel: drivers/iommu/amd/init.c, iommu_map_mmio_space", where="host",
        sample="AMD-Vi: Can not reserve memory region feb80000-feb84000 for mmio",
    ),
    sign(
        "iommu.ivrs-ioapic", "AMD-Vi: ", r"AMD-Vi: .*(?:No southbridge IOAPIC found|IOAPIC\[\d+\] not in IVRS table)",
        "The firmware's IVRS table forgets an interrupt controller, so the kernel switches interrupt remapping off.",
        {"iommu-firmware": 4, "no-interrupt-remapping": 4}, where="host",
        source="kernel: drivers/iommu/amd/init.c, check_ioapic_information",
        sample="AMD-Vi: [Firmware Bug]: : No southbridge IOAPIC found", confirm="dmesg | grep 'interrupt remapping'",
    ),
    sign(
        "iommu.amd-remapping-off", "AMD-Vi: Disabling int", r"AMD-Vi: Disabling interrupt remapping",
        "Interrupt remapping is off: VFIO will refuse every device.",
        {"no-interrupt-remapping": 4, "iommu-firmware": 3},
        source="kernel: drivers/iommu/amd/init.c, check_ioapic_information", where="host",
        sample="AMD-Vi: Disabling interrupt remapping", follows=("iommu.ivrs-ioapic",),
    ),
    # -- interrupt remapping -----------------------------------------------------------------------------------------
    sign(
        "iommu.ioapic-unmapped", "has no mapping iommu", r"ioapic \d+ has no mapping iommu",
        "The firmware's DMAR table forgets an interrupt controller, so interrupts are not remapped.",
        {"no-interrupt-remapping": 4, "iommu-firmware": 4}, where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, parse_ioapics_under_ir",
        sample="DMAR-IR: [Firmware Bug]: ioapic 2 has no mapping iommu, interrupt remapping will be disabled",
    ),
    sign(
        "iommu.remapping-failed", "irq-injection", r"Failed to enable irq remapping\. You are vulnerable",
        "Interrupts are not remapped: VFIO will refuse every device.", {"no-interrupt-remapping": 3}, where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, intel_cleanup_irq_remapping",
        sample="DMAR-IR: Failed to enable irq remapping. You are vulnerable to irq-injection attacks.",
        follows=("iommu.ioapic-unmapped", "iommu.remapping-erratum", "iommu.remapping-setup"),
    ),
    sign(
        "iommu.remapping-setup", "setup irq remapping", r"Failed to setup irq remapping for dmar\d+",
        "The IOMMU could not be set up for interrupts.", {"no-interrupt-remapping": 4}, where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, intel_prepare_irq_remapping",
        sample="DMAR-IR: Failed to setup irq remapping for dmar0",
    ),
    sign(
        "iommu.remapping-erratum", "has enabled interrupt remapping",
        r"This system BIOS has enabled interrupt remapping",
        "This chipset's interrupt remapping has an erratum, and the kernel leaves it off.",
        {"no-interrupt-remapping": 5}, where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, intel_prepare_irq_remapping",
        sample="DMAR-IR: This system BIOS has enabled interrupt remapping",
        confirm="lspci -nn -s 0:0 (5500, 5520, X58 in early revisions)",
    ),
    harmless(
        "iommu.x2apic-opt-out", "DMAR-IR: x2apic is dis", r"x2apic is disabled because BIOS sets x2apic opt out bit",
        "The firmware asks for xAPIC; interrupts are remapped in that mode as well.", where="host",
        source="kernel: drivers/iommu/intel/irq_remapping.c, intel_prepare_irq_remapping",
        sample="DMAR-IR: x2apic is disabled because BIOS sets x2apic opt out bit.",
    ),
    sign(
        "iommu.vfio-needs-remapping", "No interrupt remapping", r"No interrupt remapping (?:support|for this platform)",
        "VFIO refuses every device, since a guest could forge interrupts.", {"no-interrupt-remapping": 6}, where="host",
        source="kernel: drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_attach_group",
        sample="vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param "
        '"allow_unsafe_interrupts" to enable VFIO IOMMU support on this platform',
    ),
    sign(
        "iommu.interrupt-fault", "equest device [", r"(?:INTR-REMAP.*|\] )(?:Present field in the IRTE entry is clear"
        r"|Detected reserved fields in the IRTE entry)",
        "A device sent an interrupt that the kernel had not set up, as after a reset that left it running.",
        {"reset-defective": 1, "intx-broken": 1}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, irq_remap_fault_reasons",
        sample="DMAR: [INTR-REMAP] Request device [03:00.0] fault index 0x1a [fault reason 0x22] Present field in the "
        "IRTE entry is clear",
    ),
    sign(
        "iommu.interrupt-source", "equest device [", r"INTR-REMAP.*(?:Blocked an interrupt request due to source-id"
        r"|Blocked a compatibility format)",
        "A device sent interrupts under another device's name, and the IOMMU stopped them.",
        {"firmware-defect": 1.4, "intx-broken": 1}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, irq_remap_fault_reasons",
        sample="DMAR: [INTR-REMAP] Request device [00:1f.7] fault index 0x21 [fault reason 0x26] Blocked an interrupt "
        "request due to source-id verification failure",
    ),
    # -- reserved memory ---------------------------------------------------------------------------------------------
    sign(
        "iommu.rmrr-ineligible", "RMRR requirement",
        r"Device is ineligible for IOMMU domain attach due to platform RMRR requirement",
        "The firmware keeps memory reserved for this device, so the kernel does not let VFIO have it.",
        {"reserved-region": 6}, where="host",
        source="kernel: drivers/iommu/intel/iommu.c, device_is_rmrr_locked (up to 6.5)",
        sample="vfio-pci 0000:04:00.1: DMAR: Device is ineligible for IOMMU domain attach due to platform RMRR "
        "requirement.  Contact your platform vendor.",
        confirm="grep -c direct /sys/kernel/iommu_groups/*/reserved_regions", until=(6, 5),
    ),
    sign(
        "iommu.rmrr-1to1", "IOMMU mapping",
        r"Firmware has requested this device have a 1:1 IOMMU mapping, rejecting",
        "The firmware keeps memory reserved for this device, so the kernel does not let VFIO have it.",
        {"reserved-region": 6}, where="host",
        source="kernel: drivers/iommu/iommu.c (6.6 and later)",
        sample="vfio-pci 0000:03:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting "
        "configuring the device without a 1:1 mapping. Contact your platform vendor.",
        since=(6, 6), confirm="grep -c direct /sys/kernel/iommu_groups/*/reserved_regions",
    ),
    sign(
        "iommu.rmrr-relaxed", "RMRRs are relaxable", r"assuming all RMRRs are relaxable",
        "relax_rmrr is on: the kernel looks away from memory that the firmware keeps for devices.",
        {"reserved-region": 1}, where="host",
        source="Proxmox VE kernel patch 0009",
        sample="DMAR: Intel-IOMMU: assuming all RMRRs are relaxable. This can lead to instability or data loss",
    ),
    # -- faults ------------------------------------------------------------------------------------------------------
    sign(
        "iommu.dma-fault-context", "equest device [", rf"DMAR:.*Request device \[{_ADDRESS}\].*"
        r"Present bit in (?:context|root|Context|Root) [Ee]ntry is clear|\[DMA (?:Read|Write).*"
        r"Present bit in (?:context|root|Context|Root) [Ee]ntry is clear",
        "A device uses memory under the number of a function that does not exist; the kernel knows such controllers "
        "by a list of quirks.",
        {"firmware-defect": 1.4, "kernel-regression": 1}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, dma_remap_fault_reasons; drivers/pci/quirks.c, "
        "quirk_dma_func1_alias",
        sample="DMAR: [DMA Write NO_PASID] Request device [04:00.1] fault addr 0xfff00000 [fault reason 0x02] Present "
        "bit in context entry is clear",
    ),
    sign(
        "iommu.dma-fault", "equest device [", rf"\[DMA (?:Read|Write)(?: NO_PASID| PASID \S+)?\] Request device "
        rf"\[{_ADDRESS}\](?!.*[Ee]ntry is clear)",
        "A device read or wrote memory that is not mapped for it. A few at boot or at a reset mean nothing; many mean "
        "that it runs on after a reset, or that the firmware uses it behind the kernel's back.",
        {"reset-defective": 1, "firmware-defect": 0.5, "reserved-region": 0.5}, follows=_RESET, where="host",
        when={**on_amd({"amd-reset-bug": 2, "ats-broken": 1}, "times:10"),
              ("times:20",): {"firmware-defect": 2, "reset-defective": 1.4, "reserved-region": 1}},
        source="kernel: drivers/iommu/intel/dmar.c, dmar_fault_do_one; QEMU: docs/igd-assign.txt",
        sample="DMAR: [DMA Read NO_PASID] Request device [01:00.0] fault addr 0xda000000 [fault reason 0x06] PTE Read "
        "access is not set",
        confirm="which device the address belongs to, and whether the lines go on",
    ),
    sign(
        "iommu.fault-status", "DMAR: DRHD: handling", r"DRHD: handling fault status reg",
        "The IOMMU caught a device at something; the next line says which and what.", {}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, dmar_fault", sample="DMAR: DRHD: handling fault status reg 2",
    ),
    sign(
        "iommu.invalidation-timeout", "DMAR: VT-d detected",
        r"VT-d detected Invalidation (?:Time-out|Queue|Completion) Error",
        "A device no longer answers when its address cache is to be emptied: it is dead, or its ATS does not work.",
        {"ats-broken": 3, "reset-defective": 2, "power-state": 1}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, qi_dump_fault (from 5.18)",
        sample="DMAR: VT-d detected Invalidation Time-out Error: SID 100",
        confirm="lspci -vvv: ATSCtl of the device; lines about its reset before this one",
    ),
    sign(
        "iommu.iotlb-timeout", "Event logged [IOTLB_INV", r"IOTLB_INV_TIMEOUT device=",
        "A device no longer answers when its address cache is to be emptied: it is dead, or its ATS does not work.",
        {"ats-broken": 3, "reset-defective": 2}, follows=_RESET, where="host",
        when={("device.ats-quirk*",): {"ats-broken": 5, "amd-reset-bug": 1},
              **on_amd({"amd-reset-bug": 3, "ats-broken": 3})},
        source="kernel: drivers/iommu/amd/iommu.c, iommu_print_event; drivers/pci/quirks.c, quirk_amd_harvest_no_ats",
        sample="iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:0a:00.0 address=0x100203d40]",
        confirm="lspci -vvv: ATSCtl of the device; lines about its reset before this one",
    ),
    sign(
        "iommu.completion-wait", "AMD-Vi: Completion-Wait", r"Completion-Wait loop timed out",
        "The IOMMU waits for a device that no longer answers; the host slows down or hangs.",
        {"ats-broken": 2, "reset-defective": 2}, follows=(*_RESET, "iommu.iotlb-timeout"), where="host",
        source="kernel: drivers/iommu/amd/iommu.c, wait_on_sem", sample="AMD-Vi: Completion-Wait loop timed out",
    ),
    sign(
        "iommu.page-fault", "Event logged [IO_PAGE_FAULT", r"IO_PAGE_FAULT (?:device|domain)=",
        "A device used memory that is not mapped for it: a reset left it running, or its companions (audio, security "
        "processor) were not given along.",
        {"reset-defective": 1, "ats-broken": 1, "firmware-defect": 0.5}, follows=_RESET, where="host",
        when={("device.ats-quirk*", "times:3"): {"ats-broken": 3, "amd-reset-bug": 1.4},
              **on_amd({"amd-reset-bug": 2, "ats-broken": 1.4}, "times:3"),
              ("times:20",): {"ats-broken": 1.4, "reset-defective": 1.4, "firmware-defect": 1.4}},
        source="kernel: drivers/iommu/amd/iommu.c, amd_iommu_report_page_fault",
        sample="vfio-pci 0000:11:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x001e address=0x1da414000 "
        "flags=0x0050]",
    ),
    sign(
        "iommu.invalid-request", "Event logged [INVALID_DEV", r"INVALID_DEVICE_REQUEST device=",
        "A device asked the IOMMU for what it may not: mostly an address that it translated by itself (ATS).",
        {"ats-broken": 3, "firmware-defect": 1}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/amd/iommu.c, iommu_print_event",
        sample="AMD-Vi: Event logged [INVALID_DEVICE_REQUEST device=0000:0a:00.0 pasid=0x00000 "
        "address=0xfffffffdf8000000 flags=0x0a00]",
    ),
    sign(
        "iommu.illegal-entry", "Event logged [ILLEGAL_DEV", r"ILLEGAL_DEV_TABLE_ENTRY device=",
        "A device works for which the IOMMU has no entry: the firmware's table does not know it.",
        {"iommu-firmware": 2, "firmware-defect": 2}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/amd/iommu.c, iommu_print_event",
        sample="AMD-Vi: Event logged [ILLEGAL_DEV_TABLE_ENTRY device=0000:0a:00.0 pasid=0x00000 "
        "address=0xfffffffdf8000000 flags=0x0a00]",
    ),
    sign(
        "iommu.hardware-error", "Event logged [", r"Event logged \[(?:DEV_TAB|PAGE_TAB|COMMAND)_HARDWARE_ERROR",
        "The IOMMU could not read its own tables: memory, or a bus that a dead device blocks.",
        {"firmware-defect": 2, "ats-broken": 1, "reset-defective": 1}, follows=_RESET, where="host",
        source="kernel: drivers/iommu/amd/iommu.c, iommu_print_event",
        sample="AMD-Vi: Event logged [COMMAND_HARDWARE_ERROR address=0x100203d40 flags=0x0000]",
    ),
    sign(
        "iommu.group-failed", "to iommu group", r"Failed to add to iommu group \d+",
        "A device could not be put into an IOMMU group, so it cannot be given away.", {"iommu-firmware": 3},
        source="kernel: drivers/iommu/iommu.c, iommu_group_add_device", where="host",
        sample="pci 0000:00:02.0: Failed to add to iommu group 0: -16",
    ),
    sign(
        "iommu.scope-mismatch", "Device scope type does not", r"Device scope type does not match for",
        "The firmware's table takes a port for a device, or the other way round, and the kernel gives the IOMMU up.",
        {"iommu-firmware": 4, "iommu-off": 1}, where="host",
        source="kernel: drivers/iommu/intel/dmar.c, dmar_insert_dev_scope",
        sample="DMAR: Device scope type does not match for 0000:80:00.0",
    ),
    # -- harmless ----------------------------------------------------------------------------------------------------
    harmless(
        "iommu.no-atsr", "DMAR: No ",
        r"DMAR: No (?:ATSR|RMRR|SATC) found",
        "An optional table of the firmware is not there; nothing needs it.",
        source="kernel: drivers/iommu/intel/iommu.c, init_dmars",
        sample="DMAR: No ATSR found",
    ),
    harmless(
        "iommu.inconsistent-feature", "IOMMU feature", r"DMAR: IOMMU feature \w+ inconsistent",
        "The units differ in a feature, which is then not used.", where="host",
        source="kernel: drivers/iommu/intel/cap_audit.c, check_iommu_cap",
        sample="DMAR: IOMMU feature sc_support inconsistent",
    ),
    harmless(
        "iommu.graphics-kept", "Skip IOMMU disabling", r"Skip IOMMU disabling for graphics",
        "The processor's graphics stay behind the IOMMU, as wanted.", where="host",
        source="kernel: drivers/iommu/intel/iommu.c, quirk_igfx_skip_te_disable",
        sample="pci 0000:00:02.0: DMAR: Skip IOMMU disabling for graphics",
    ),
    harmless(
        "iommu.v2-missing", "AMD IOMMUv2", r"AMD IOMMUv2 (?:functionality not available|loaded and "
        r"initialized|driver by)",
        "An extension for the host's own graphics; passthrough does not use it. Newer kernels have no such line.",
        source="kernel: drivers/iommu/amd/iommu_v2.c (until 6.6)",
        sample="AMD-Vi: AMD IOMMUv2 functionality not available on this system - This is not a bug.",
    ),
    harmless(
        "iommu.amd-on", "Unknown option - 'on'", r"AMD-Vi: Unknown option - 'on'",
        "amd_iommu=on is no argument that exists; the AMD IOMMU is on without it.",
        source="kernel: drivers/iommu/amd/init.c, parse_amd_iommu_options", sample="AMD-Vi: Unknown option - 'on'",
    ),
    sign(
        "iommu.unknown-option", "Unknown option - '", r"(?:DMAR|AMD-Vi): Unknown option - '(?!on')",
        "The value of intel_iommu= or amd_iommu= is none that the kernel knows.", {"bad-kernel-arguments": 4},
        source="kernel: drivers/iommu/intel/iommu.c, intel_iommu_setup; drivers/iommu/amd/init.c",
        sample="DMAR: Unknown option - 'enabled'", where="host",
    ),
    harmless(
        "iommu.perf-counter", "IOMMU perf counter", r"AMD-Vi: Unable to (?:read/)?write to IOMMU perf counter",
        "Performance counters of the IOMMU cannot be used; nothing else is touched.", where="host",
        source="kernel: drivers/iommu/amd/init.c, init_iommu_perf_ctr",
        sample="AMD-Vi: Unable to read/write to IOMMU perf counter.",
    ),
    harmless(
        "iommu.efr-mismatch", "AMD-Vi: [Firmware W", r"AMD-Vi: .*EFR mismatch",
        "The firmware's table and the hardware differ in the list of features; the kernel copes.", where="host",
        source="kernel: drivers/iommu/amd/init.c, late_iommu_features_init",
        sample="AMD-Vi: [Firmware Warn]: EFR mismatch. Use IVHD EFR (0xf77ef22294ada : 0x400f77ef22294ada).",
    ),
    harmless(
        "iommu.no-x2apic-mode", "X2APIC mode", r"x2apic: IRQ remapping doesn't support X2APIC mode",
        "Interrupts go another way than x2APIC; they may be remapped all the same.", where="host",
        source="kernel: arch/x86/kernel/apic/apic.c, try_to_enable_x2apic",
        sample="x2apic: IRQ remapping doesn't support X2APIC mode",
    ),
    harmless(
        "iommu.own-interrupt", "routing for PCI INT A", r"pci \S+:00:00\.2: can't derive routing for PCI INT A",
        "The IOMMU has no line interrupt and needs none.", where="host",
        source="kernel: drivers/acpi/pci_irq.c, acpi_pci_irq_enable",
        sample="pci 0000:00:00.2: can't derive routing for PCI INT A",
    ),
)  # fmt: skip
