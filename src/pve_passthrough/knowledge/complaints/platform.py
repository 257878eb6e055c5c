"""Words about the platform: the IOMMU, the kernel's arguments, module options, reserved memory, address translation."""

from __future__ import annotations

from .row import said
from .vocabulary import ADDED, BIOS, CARD, FREEZES, GAP, GROUP, HOST, IGD, NOT, STARTING, UPDATE, WIDE, WORKS

_OFF = (
    r"(?:disabled|off|not (?:active|enabled|on|detected|found|present|available|working|supported|initiali[sz]ed)"
    r"|missing|inactive)"
)
_OFF_IN_FIRMWARE = rf"{_OFF}(?: again)?,? (?:in|by|from) (?:the |my )?{BIOS}"
_TABLE = r"(?:\b(?:dmar|ivrs|ivhd|drhd)\b(?: acpi)?(?: tables?)?|\bacpi (?:dmar|ivrs)\b)"
_ARGUMENTS = (
    r"(?:\b(?:kernel|boot)[ -]?(?:command[ -]?line )?(?:parameters?|arguments?|args|options?|params?|flags?)\b"
    r"|\b(?:kernel )?(?:cmdline|command[ -]?line)\b|\b(?:intel|amd)_iommu=\w+|\biommu=pt\b|\bgrub (?:changes?"
    r"|edits?|config\w*|line|parameters?|options?|settings?)\b)"
)
_FAILING = (
    r"(?:\b(?:bad|broken|invalid|corrupt\w*|wrong|missing|absent|incomplete|hidden|hides?|buggy|malformed"
    r"|reject\w*"
    r"|checksum|does(?:n't| not) (?:exist|appear|list|contain|include|match)|no such|not (?:there|present|found"
    r"|exposed|published|provided)|without a|lacks?|empty|bug)\b|\bno\b)"
)
_SWITCHED_ON = (
    r"(?:\b(?:vt-?d|amd-?vi|iommu|virtuali[sz]ation)\b[^.;\n]{0,60}\b(?:is |are |was )?(?:enabled|on|active"
    r"|switched on|turned on|set)\b)"
)

ROWS = (
    said(
        "no-iommu",
        (
            rf"\biommu\b{GAP}\b{_OFF}\b|\bno (?:working )?iommu\b|\biommu (?:was |is )?{_OFF}"
            r"|no iommu (?:was )?(?:found|detected)"
            r"|\biommu[_ ]groups? (?:is |are |director\w+ is |folder is |list is )?(?:empty|missing)"
            r"|\bno iommu[_ ]groups?\b"
            rf"|\b(?:not|isn't|never) (?:in|part of|assigned to|have) an? {GROUP}",
        ),
        "The person found no working IOMMU.", {"iommu-off": 3, "wrong-boot-loader": 1, "iommu-firmware": 1},
        "Proxmox VE administration guide, PCI(e) passthrough; kernel: drivers/iommu",
        none_of=(rf"{IGD}{WIDE}{GROUP}",), follows=("said.table-absent", "said.arguments-unused", "said.wrong-file"),
    ),
    said(
        "vt-d-off",
        (
            rf"\biommu\b{GAP}{_OFF_IN_FIRMWARE}|\b(?:vt-?d|amd-?vi|svm"
            rf"|virtuali[sz]ation for directed)\b{GAP}\b(?:disabled|off|not (?:enabled|set|active|on))\b"
            r"|\b(?:forgot|forgotten|need|needed|had) to (?:enable|switch on|turn on|activate) (?:the )?(?:vt-?d"
            r"|iommu|amd-?vi)\b"
            rf"|\b(?:vt-?d|iommu)\b {BIOS}: (?:disabled|off|no)\b|\b(?:vt-?d|iommu)(?: (?:in"
            rf"|enabled in) {BIOS})?: (?:disabled|off|no)\b",
        ),
        "The switch in the firmware is off.", {"iommu-off": 5}, "Proxmox VE administration guide, PCI(e) passthrough",
    ),
    said(
        "iommu-argument-off", (r"\b(?:intel_iommu|amd_iommu|iommu)=off\b",),
        "The kernel was told to leave the IOMMU off.", {"iommu-off": 5},
        "kernel: Documentation/admin-guide/kernel-parameters.txt, intel_iommu, amd_iommu, iommu",
    ),
    said(
        "iommu-needs-on",
        (
            rf"\bintel_iommu=on\b{WIDE}\b(?:fix\w*|solve\w*|help\w*|required|needed|necessary|missing|forgot\w*"
            r"|absent|not set|was not)\b|\b(?:without|no|missing|forgot\w*|lacks?) (?:the )?intel_iommu(?:=on)?\b",
        ),
        "The argument that switches the Intel IOMMU on is not there.", {"iommu-off": 4, "wrong-boot-loader": 1},
        "kernel: Documentation/admin-guide/kernel-parameters.txt, intel_iommu",
    ),
    said(
        "table-absent", (rf"{_TABLE}{WIDE}{_FAILING}|{_FAILING}{GAP}{_TABLE}",),
        "The firmware's table of the IOMMU is missing or wrong.", {"iommu-firmware": 4, "iommu-off": 1},
        "kernel: drivers/iommu/intel/dmar.c; drivers/iommu/amd/init.c", none_of=(r"\bno (?:atsr|rmrr|satc)\b",),
    ),
    said(
        "table-hidden-though-on", (rf"{_TABLE}|\bno iommu\b|\biommu\b{GAP}\b{_OFF}", _SWITCHED_ON),
        "The IOMMU is switched on in the firmware and does not show.",
        {"iommu-firmware": 2.5, "wrong-boot-loader": 0.5},
        "many reports of boards whose firmware hides or breaks the table: "
        "bryansteiner/gpu-passthrough-tutorial#18, chironjit/single-gpu-passthrough#1",
        anywhere=(r"\b(?:bios|uefi|firmware|setup)\b",), none_of=(_OFF_IN_FIRMWARE,),
    ),
    said(
        "table-of-new-firmware",
        (
            rf"\b(?:since|after|with|following)\b{GAP}{BIOS}|{BIOS}{GAP}{UPDATE}|{UPDATE}{GAP}{BIOS}",
            rf"\biommu\b|{_TABLE}|\bamd-vi\b|\bvt-?d\b",
        ),
        "The IOMMU's trouble came with a change of firmware.", {"iommu-firmware": 3, "firmware-defect": 1},
        "bryansteiner/gpu-passthrough-tutorial#4",
        none_of=(
            rf"{BIOS}{GAP}(?:did(?:n't| not)|does(?:n't| not)) (?:help|change)",
            rf"{_OFF}{GAP}(?:in|by) (?:the )?{BIOS}",
        ),
    ),
    said(
        "firmware-table-words",
        (
            r"\b(?:ioapic|hpet)\b[^.;\n]{0,60}\b(?:not in|missing|mapping|table|spurious|override)\b"
            r"|\bivrs_ioapic\b|\bfirmware bug\b",
        ),
        "The tables of the firmware contradict themselves.", {"iommu-firmware": 3, "no-interrupt-remapping": 0.5},
        "kernel: drivers/iommu/amd/init.c, check_ioapic_information",
    ),
    said(
        "no-remapping",
        (
            rf"\b(?:interrupt|irq)[ -]remapping\b{WIDE}\b(?:no|not|disabled|missing|unsupported|lacks?|absent"
            r"|unavailable|broken|off|fail\w*|without|hardware not found)\b"
            r"|\b(?:no|without|lacks?|lacking|missing|not support|doesn't support|does not support) (?:working "
            r"|hardware )?(?:interrupt|irq)[ -]remapping"
            r"|\bunsafe[ _]interrupts?\b|\bx2apic opt[ -]?out\b|\bno_x2apic_optout\b|\bintremap=off\b",
        ),
        "Interrupts cannot be isolated on this machine.", {"no-interrupt-remapping": 4.5},
        "kernel: drivers/vfio/vfio_iommu_type1.c; Proxmox VE administration guide, PCI(e) passthrough",
        none_of=(r"\bremapping\b[^.;\n]{0,20}\b(?:is |was )?(?:enabled|on|active|works?)\b",),
    ),
    said(
        "old-chipset-operation-not-permitted",
        (
            r"\b(?:x58|5500|5520|5400|nehalem|westmere|core 2|lga ?1366|lga ?775)\b",
            r"\boperation not permitted\b|\bnot permitted\b|\bpermission\b",
        ),
        "Chipsets of this age have broken or no interrupt remapping.",
        {"no-interrupt-remapping": 3, "reserved-region": 1},
        "kernel: arch/x86/kernel/early-quirks.c, intel_remapping_check",
    ),
    # -- arguments and options ---------------------------------------------------------------
    said(
        "arguments-unused",
        (
            rf"{_ARGUMENTS}{WIDE}\b(?:no effect|not (?:be(?:ing)? )?(?:applied|used|active|there|present|picked up"
            r"|visible|taken)|ignored|"
            rf"{NOT} (?:have any effect|take effect|show(?: up)?|appear|apply|make any difference|change anything"
            r"|work|stick|get applied|contain|include|reach)|missing|unchanged|has nothing)\b"
            rf"|\b(?:no effect|{NOT} (?:show up|appear|apply|get applied)|ignor\w+|missing){GAP}{_ARGUMENTS}"
            rf"|/proc/cmdline{GAP}(?:{NOT}|without|missing|lacks?|only|unchanged|old|no )",
        ),
        "What was written does not reach the running kernel.", {"wrong-boot-loader": 4},
        "Proxmox VE administration guide, host bootloader; strongtz/i915-sriov-dkms#435, MacRimi/ProxMenux#15",
        none_of=(r"\b(?:typo|misspel\w+|syntax|quot(?:e|es|ation)|unknown (?:kernel )?(?:parameter|option)|comma)\b",),
    ),
    said(
        "wrong-file",
        (
            r"\b(?:systemd-boot|proxmox-boot-tool|pve-efiboot-tool|/etc/kernel/cmdline|zfs(?: root| on root"
            r"| mirror| raid\w*)?|root: zfs|root=zfs|rpool)\b",
            r"\b(?:(?:edit|chang|modif|updat|correct|follow)\w+|set|put|wrote|instead of|add(?:ed|ing)?|ran"
            rf"|run(?:ning)?|using)\b{WIDE}(?:/etc/default/grub|\bgrub\b|\bupdate-grub\b)|\bupdate-grub\b"
            r"|\betc default grub\b",
        ),
        "The edited file belongs to another boot loader than the one that starts this host.",
        {"wrong-boot-loader": 4},
        "Proxmox VE administration guide, host bootloader; strongtz/i915-sriov-dkms#208, #435",
        none_of=(r"\bproxmox-boot-tool refresh (?:was|has been) (?:run|done)\b",),
    ),
    said(
        "not-refreshed",
        (
            r"\b(?:forgot|forgotten|did(?:n't| not)|without|never|not|before) (?:to )?(?:run|ran|running"
            r"|execut\w+|do|did|call\w*)? ?(?:`|')?"
            r"(?:update-grub|proxmox-boot-tool refresh|grub-mkconfig|pve-efiboot-tool)",
        ),
        "The boot loader's own copy was not rewritten.", {"wrong-boot-loader": 4},
        "Proxmox VE administration guide, editing the kernel commandline",
    ),
    said(
        "arguments-misspelt",
        (
            rf"{_ARGUMENTS}{WIDE}\b(?:typos?|misspel\w+|mis-?typed|syntax|quot(?:e|es|ation marks?)|commas?"
            r"|line ?breaks?|new ?lines?|two lines|second line|malformed|twice|duplicate\w*"
            r"|unknown (?:kernel )?(?:parameter|option|argument)|missing space|semicolons?|comments?|prose"
            r"|garbage|pasted)\b|\b(?:typos?|misspel\w+|mis-?typed|malformed|stray|wrong(?:ly)? (?:quot\w+"
            rf"|spelled))\b{WIDE}{_ARGUMENTS}"
            r"|\bunknown kernel command line parameters?\b|\bunknown option - ",
        ),
        "The kernel's arguments are not written as the kernel reads them.", {"bad-kernel-arguments": 4.5},
        "kernel: init/main.c, unknown_bootoption; Documentation/admin-guide/kernel-parameters.rst",
    ),
    said(
        "arguments-break-boot",
        (
            rf"\b(?:{NOT} boot|boot loop|kernel panic|initramfs prompt|emergency|drops? to)\b",
            rf"{ADDED}?{GAP}{_ARGUMENTS}|{_ARGUMENTS}",
        ),
        "The host does not start with these arguments.", {"bad-kernel-arguments": 2.5, "kernel-regression": 0.5},
        "kernel: Documentation/admin-guide/kernel-parameters.rst",
        none_of=(rf"\b(?:vm|guest|windows)\b{GAP}{NOT} boot",),
    ),
    said(
        "options-unused",
        (
            r"(?:\bmodprobe\.d\b|\b\w+\.conf\b|\bblack-?list(?:ed|ing|s)?\b|\bsoftdeps?\b|\boptions vfio-pci\b"
            r"|\bmodule options?\b|\bvfio\.conf\b|\bids=)",
            rf"\b(?:no effect|ignored|{NOT} (?:take effect|applied|apply|honou?red|work|respected|picked up"
            r"|have any effect|used|help)|still (?:loads?|loaded|binds?|bound|grabs?|claims?|takes?|gets loaded"
            r"|uses?)|typos?|misspel\w+|syntax|unknown parameter|wrong (?:name|file|spelling|extension)"
            r"|invalid for parameter|spaces?)\b",
        ),
        "What stands in modprobe.d does not do what it is meant to.", {"bad-modprobe": 3, "host-driver-busy": 1.5},
        "modprobe.d(5); update-initramfs(8)", none_of=(r"\bcompiled in(?:to)?\b|\bbuilt[ -]?in(?:to)?\b",),
    ),
    said(
        "initramfs-not-rebuilt",
        (
            r"\b(?:forgot|forgotten|did(?:n't| not)|without|never|not|missed|after) (?:to )?(?:run|ran|running"
            r"|re-?build\w*|updat\w+|regenerat\w+|execut\w+|do)? ?(?:the |an |my )?(?:`|')?"
            r"(?:update-initramfs|initramfs|initrd|mkinitcpio|dracut)",
        ),
        "The options are not in the initramfs, from which the drivers are loaded.", {"bad-modprobe": 4},
        "update-initramfs(8); Proxmox VE administration guide, PCI(e) passthrough",
        none_of=(rf"after (?:updating|update|rebuild\w+){GAP}initramfs{GAP}{NOT}",),
    ),
    said(
        "module-parameter-wrong",
        (
            r"\b(?:unknown parameter|invalid for parameter|module parameter|option)\b[^.;\n]{0,80}\b(?:ignored"
            r"|typo|misspel\w+|dashes?|underscores?|quotes?|does(?:n't| not) exist)\b"
            r"|\bvfio_virqfd\b[^.;\n]{0,40}\b(?:not found|fail\w*|missing)",
        ),
        "A module's option is misspelt.", {"bad-modprobe": 3.5}, "modprobe.d(5)",
    ),
    # -- reserved memory and address translation ---------------------------------------------
    said(
        "reserved",
        (
            r"\brmrr (?:requirement|devices?|restriction|lock\w*|problem|issue)\b|\brelax_rmrr\b"
            r"|\b1:1 (?:iommu )?(?:mapping|map)\b|\bone[- ]to[- ]one mapping\b"
            r"|\breserved (?:memory )?regions?\b|\bineligible for (?:iommu|domain)\b|\b(?:hp|hpe) shared memory\b",
        ),
        "The firmware keeps memory reserved for a device.", {"reserved-region": 5},
        "kernel: drivers/iommu/iommu.c; kiler129/relax-intel-rmrr, deep-dive.md; harvester/harvester#7340",
        none_of=(r"\bno (?:rmrrs?|reserved regions?)\b",),
    ),
    said(
        "rmrr-named", (r"\brmrrs?\b",), "Reserved memory of the firmware is spoken of.", {"reserved-region": 3},
        "kernel: drivers/iommu/intel/iommu.c", none_of=(r"\bno rmrrs?\b",), follows=("said.reserved",),
    ),
    said(
        "proliant-refuses",
        (
            r"\b(?:proliant|hpe?|hewlett)\b[^.;\n]{0,40}\b(?:gen ?\d+|g[5-9]|ml\d{2,3}\w*|dl\d{2,3}\w*|bl\d{3}\w*"
            r"|microserver)\b|\bproliant\b|\bilo ?[2-6]?\b",
            r"\boperation not permitted\b|\b(?:rejec\w+|refus\w+|ineligible|not eligible"
            r"|contact your platform vendor)\b|\bfailed to set(?:up)? (?:container|iommu)\b",
        ),
        "Servers of this maker tie reserved memory to their slots.", {"reserved-region": 4},
        "AltraMayor/gatekeeper#718; Aterfax/relax-intel-rmrr#32",
    ),
    said(
        "operation-not-permitted",
        (r"\b(?:vfio|iommu|container|passthrough|hostpci|pci)\b", r"\boperation not permitted\b"),
        "The kernel refuses the device: interrupts, reserved memory or a group stand against it.",
        {"no-interrupt-remapping": 1.5, "reserved-region": 1.5}, "kernel: drivers/vfio/vfio_iommu_type1.c",
    ),
    said(
        "ats",
        (
            r"\bats\b[^.;\n]{0,60}\b(?:broken|bugs?|quirks?|disabl\w+|off|problem|capab\w+|invalidation"
            r"|time-?outs?|fault\w*|harvest\w*|enabled|ctl)\b|\bpci=noats\b|\bnoats\b"
            r"|\b(?:disabl\w+|without|switch\w* off|turn\w* off) ats\b|\baddress translation (?:services?"
            r"|cache)\b|\b(?:iotlb|ats|device[- ]tlb)[ _](?:inv\w*|invalidation)[ _]?\w*(?: time-?out)?"
            r"|\binvalidation time-?out\b|\bcompletion-wait\b",
        ),
        "Address translation by the device itself is in the game.", {"ats-broken": 4.5},
        "kernel: drivers/pci/quirks.c, quirk_amd_harvest_no_ats; "
        "Documentation/admin-guide/kernel-parameters.txt, pci=noats",
    ),
    said(
        "raven-iommu",
        (
            r"\b(?:raven(?: ridge)?|picasso|stoney(?: ridge)?|carrizo|bristol ridge|ryzen [35] [23][24]00ge?"
            r"|[23][24]00g)\b",
            rf"\biommu\b|\bpage ?faults?\b|\bflicker\w*|\b{FREEZES}",
        ),
        "The graphics of these processors do not keep to ATS.", {"ats-broken": 2.5, "iommu-firmware": 1},
        "kernel: drivers/pci/quirks.c, quirk_amd_harvest_no_ats (Stoney, Raven and others)",
    ),
    said(
        "faults-go-on",
        (
            r"\b(?:io_page_fault|i/?o page faults?|dmar faults?|pte (?:read|write) access)\b",
            rf"{CARD}|{HOST}|{STARTING}|{WORKS}",
        ),
        "The device reaches for memory that is not mapped for it.",
        {"ats-broken": 1, "reset-defective": 0.5, "firmware-defect": 0.5},
        "kernel: drivers/iommu/amd/iommu.c; drivers/iommu/intel/dmar.c",
    ),
)  # fmt: skip
