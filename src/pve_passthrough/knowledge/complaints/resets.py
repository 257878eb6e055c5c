"""Words about the second start: resets, sleep, and devices that do not come back."""

from __future__ import annotations

from .row import said
from .vocabulary import (
    AMD,
    CARD,
    CODE_43,
    DARK,
    FREEZES,
    GAP,
    GPU,
    HOST,
    NOT,
    NVIDIA,
    POWER_CYCLE,
    SECOND,
    STARTING,
    VM,
    WIDE,
)  # fmt: skip

_TROUBLE = (
    rf"(?:{DARK}|{CODE_43}|\b(?:{NOT} (?:{STARTING}|work\w*|come|init\w*|detect\w*|be|show|output|respond\w*|re\w*"
    rf"|load\w*|use|survive)|{FREEZES}"
    r"|fail(?:s|ed|ure)?|error\w*|broken|gone|missing|disappear\w*|vanish\w*|unusable|dead|stuck|lost|nothing"
    r"|no longer|bsod|blue ?screen|timeout|glitch\w*|not ready)\b)"
)
_VENDOR_RESET = r"(?:\bvendor[-_ ]reset\b)"
_STOPPING = (
    r"(?:\b(?:(?:shut(?:s|ting)? ?down|shutdown|stop(?:s|ped|ping)?|reboot\w*|restart\w*|power(?:ing|ed)? off"
    rf"|kill\w*)\b{GAP}{VM}|{VM}{GAP}\b(?:shut(?:s|ting)? ?down|shutdown|stop(?:s|ped|ping)?|reboot\w*|restart\w*"
    r"|exit\w*|powered off|power off|killed)))"
)
_D3 = r"(?:\bd3(?:[ -]?(?:cold|hot))?\b)"

_NO_BUS_RESET = r"(?:\b(?:qca61[67]4|qca98[89]\d|qca9377|ar9[3-5]\d\d|ath(?:9|10)k|fw643|asm1164|keystone|c667x)\b)"
"""Chips that the kernel's list keeps from a bus reset, as people call them."""

ROWS = (
    said(
        "no-bus-reset-chip", (_NO_BUS_RESET, _TROUBLE), "This chip is known not to survive a bus reset.",
        {"reset-defective": 3},
        "kernel: drivers/pci/quirks.c, quirk_no_bus_reset",
    ),
    said(
        "amd-second-start", (SECOND, _TROUBLE), "An AMD GPU that works once and not again.",
        {"amd-reset-bug": 4, "reset-defective": 1},
        "gnif/vendor-reset; isc30/ryzen-gpu-passthrough-proxmox#33; ROCm/amdgpu#59", anywhere=(AMD,),
        none_of=(_VENDOR_RESET,),
    ),
    said(
        "second-start", (SECOND, _TROUBLE), "The device works once and not again.",
        {"reset-defective": 3.5, "amd-reset-bug": 0.5, "power-state": 0.5},
        "kernel: drivers/pci/pci.c, reset_methods; zen-kernel/zen-kernel#380",
        none_of=(AMD, r"\b(?:bios|uefi) (?:update|upgrade)\b", r"\bno (?:second|next) "),
    ),
    said(
        "amd-power-cycle", (POWER_CYCLE,), "An AMD GPU that comes back with the host's power only.",
        {"amd-reset-bug": 3, "reset-defective": 1}, "gnif/vendor-reset#38; isc30/ryzen-gpu-passthrough-proxmox#33",
        anywhere=(AMD,), none_of=(_VENDOR_RESET, r"\btried (?:to )?(?:re-?boot\w*|re-?start\w*|power)"),
    ),
    said(
        "power-cycle", (POWER_CYCLE, rf"{CARD}|{GPU}|{VM}|\bpassthrough\b|\breset\b"),
        "Only a restart of the host brings the device back.", {"reset-defective": 2.5, "power-state": 0.5},
        "kernel: drivers/pci/pci.c, reset_methods",
        none_of=(
            AMD,
            r"\btried (?:to )?(?:re-?boot\w*|re-?start\w*|power)",
            r"\bafter (?:a |the |every )?(?:host )?reboot\b[^.;\n]{0,40}\b(?:lost|gone|reset to|back to)\b",
        ),
    ),
    said(
        "reset-bug-amd", (r"\breset[ -](?:bug|issue|problem)\b|\bnavi reset\b|\bcannot be reset\b",),
        "The person speaks of the AMD reset bug.", {"amd-reset-bug": 4},
        "gnif/vendor-reset, README; inga-lovinde/RadeonResetBugFix#6", anywhere=(AMD,), none_of=(_VENDOR_RESET,),
    ),
    said(
        "reset-bug",
        (
            r"\breset[ -](?:bug|issue|problem)\b|\breset (?:of the \w+ )?(?:fail\w*|does(?:n't| not) work"
            r"|is broken|hangs?|never (?:completes|returns|finishes))|\b(?:fails?|failed|failing|unable|cannot"
            r"|can't|not) (?:to )?(?:be )?reset\b|\bno (?:available )?reset (?:mechanism|method)\b",
        ),
        "The device cannot be reset.", {"reset-defective": 3, "amd-reset-bug": 0.5},
        "kernel: drivers/pci/pci.c, reset_methods", none_of=(AMD,),
    ),
    said(
        "flr",
        (
            r"\b(?:no |without |lacks? |has no )?(?:flr|function[ -]level[ -]reset|(?:secondary )?bus[ -]reset"
            r"|hot[ -]reset|slot reset|pm reset|reset_method|reset method)\b",
            rf"\b(?:{FREEZES}|fail\w*|broken|hang\w*|time-?outs?|never|not ready|giving up|dead|does(?:n't| not)"
            r"|wrong|defect\w*|quirk\w*|lost|disappear\w*|kills?|crash\w*|stuck|advertis\w+|claims?"
            r"|takes? down)\b",
        ),
        "A way of resetting the device does not work on it.", {"reset-defective": 3.5, "amd-reset-bug": 0.5},
        "kernel: drivers/pci/quirks.c, quirk_no_flr, quirk_no_bus_reset", none_of=(_VENDOR_RESET,),
    ),
    said(
        "other-reset-helps",
        (
            r"\b(?:reset_method|reset method|disabling flr|without flr|bus reset|no-?flr|flr off"
            r"|quirk)\b[^.;\n]{0,80}\b(?:helps?|helped|works?|worked|fix(?:es|ed)|solv\w+|survives?|cures?)\b"
            r"|\b(?:helps?|helped|works?|worked|fix(?:es|ed)|solv\w+) (?:with|after|by"
            r"|when)[^.;\n]{0,60}\b(?:reset_method|another reset|bus reset|flr)\b",
        ),
        "With another way of resetting it works.", {"reset-defective": 4.5},
        "kernel: Documentation/ABI/testing/sysfs-bus-pci, reset_method", none_of=(_VENDOR_RESET,),
    ),
    said(
        "stop-freezes-host", (_STOPPING, rf"{HOST}{GAP}{FREEZES}|{FREEZES}{GAP}{HOST}"),
        "The host stops with the guest.", {"reset-defective": 2.5, "firmware-defect": 0.5, "kernel-regression": 0.5},
        "kernel: drivers/pci/pci.c, pcie_flr; facts of Blackwell cards are reports of users",
    ),
    said(
        "gone-after-stop",
        (
            _STOPPING,
            rf"(?:{CARD}|{GPU}){GAP}\b(?:gone|missing|disappear\w*|vanish\w*|{NOT} (?:come back|return|show|appear"
            r"|be (?:found|seen|detected))|lost|not (?:back|listed|visible)|rev ff|unknown header)\b",
        ),
        "After the guest's stop the device is not there any more.", {"reset-defective": 3, "power-state": 2},
        "kernel: drivers/pci/pci.c, pci_power_up; kernel: drivers/pci/quirks.c, quirk_no_bus_reset", none_of=(AMD,),
    ),
    said(
        "reads-ff",
        (
            r"\brev ff\b|\bunknown header type (?:7f|0x7f)\b|\b(?:reads?|returns?|all) (?:only )?(?:0x)?f{2,8}\b"
            r"|\ball ones\b|\bconfig space (?:is )?(?:unreadable|inaccessible)\b",
        ),
        "The device does not answer any more.", {"reset-defective": 2, "power-state": 2, "amd-reset-bug": 1},
        "lspci(8); kernel: drivers/pci/access.c",
    ),
    said(
        "blackwell",
        (
            r"\b(?:rtx ?(?:pro )?(?:50[5-9]0|6000 blackwell|5000|4500)|blackwell|gb20[2-7])\b",
            rf"{_TROUBLE}|{FREEZES}|\breset\b",
        ),
        "Cards of this generation are reported to hang in their reset.", {"reset-defective": 2.5},
        "NVIDIA/open-gpu-kernel-modules#853, #1353", none_of=(CODE_43 + r"[^.;\n]{0,60}\blaptop\b",),
    ),
    # -- vendor-reset ------------------------------------------------------------------------
    said(
        "vendor-reset-idle", (_VENDOR_RESET,), "vendor-reset is there, and the reset fails all the same.",
        {"vendor-reset-method": 4, "amd-reset-bug": 1},
        "gnif/vendor-reset#46; kernel: Documentation/ABI/testing/sysfs-bus-pci, reset_method",
        none_of=(
            rf"\b(?:without|no|not (?:using|installed|loaded)|instead of|tried neither) (?:the )?{_VENDOR_RESET}",
            r"\bcompil\w+|\bbuild(?:ing)? (?:fail|error)|\bdkms\b[^.;\n]{0,40}\b(?:fail|error)",
            r"\bvendor[-_ ]reset (?:module )?(?:is |does )?(?:not (?:installed|loaded|support)|missing|absent)",
        ),
    ),
    said(
        "vendor-reset-method", (r"\breset[_ ]method\b[^\n]{0,40}\b(?:bus|flr|pm|af_flr|acpi)\b|\bdevice_specific\b",),
        "The kernel is told to reset by another method than vendor-reset's.", {"vendor-reset-method": 3.5},
        "gnif/vendor-reset#46", anywhere=(_VENDOR_RESET,), none_of=(r"\breset[_ ]method: device_specific\b",),
    ),
    said(
        "vendor-reset-not-built",
        (
            _VENDOR_RESET,
            r"\b(?:compil\w+|build\w*|dkms|make)\b[^.;\n]{0,60}\b(?:fail\w*|error\w*|not)\b|\bunaligned\.h\b",
        ),
        "vendor-reset could not be built for this kernel.", {"vendor-reset-method": 2.5, "amd-reset-bug": 1.5},
        "gnif/vendor-reset#87, #104",
    ),
    said(
        "vendor-reset-not-loaded",
        (rf"{_VENDOR_RESET}{WIDE}\b(?:not loaded|loaded (?:too )?late|after vfio|{NOT} load)\b",),
        "vendor-reset is loaded too late or not at all.", {"vendor-reset-method": 3.5}, "gnif/vendor-reset, README",
    ),
    # -- several functions -------------------------------------------------------------------
    said(
        "part-of-card",
        (
            r"\b(?:only|just) (?:passed|pass(?:ing)? ?(?:through)?|gave|give|giving|added|assign(?:ed|ing)"
            r"|the gpu|the vga|the video|function 0|the first (?:function|port)|one (?:port|function)"
            r"|\.0)\b[^.;\n]{0,80}\b(?:not|without|stays?|remains?|audio|other|second|function\w*|port\w*|left"
            r"|host)\b"
            r"|\bwithout (?:the |its )?(?:hdmi |usb |gpu'?s? )?(?:audio|sound|usb|companion)\b[^.;\n]{0,30}"
            r"|\b(?:audio|usb-?c?|other|second|companion) (?:function|port|half|part)\b[^.;\n]{0,60}\b(?:stays?"
            r"|remains?|left|still|not (?:passed|given|assigned|owned)|with the host|kept|on the host)\b"
            r"|\b(?:one|single) (?:port|function) of (?:a |an |the |my )?(?:dual|quad|two|four|multi)\w*"
            r"|\ball functions\b",
            r"\b(?:reset\w*|not owned|depends on|multi-?function|dual[- ]port|quad[- ]port|second start|group"
            r"|re-?boot\w*|re-?start\w*|bus)\b",
        ),
        "Only a part of the card went to the guest, and its reset needs all of it.", {"partial-multifunction": 4},
        "QEMU: hw/vfio/pci.c, vfio_pci_hot_reset; kernel: drivers/vfio/pci/vfio_pci_core.c",
        none_of=(r"\ball functions (?:are |were )?(?:passed|given|assigned|owned)",),
    ),
    said(
        "not-owned",
        (
            r"\b(?:depends on group|which is not owned|not owned by)\b|\breset\w*\b[^.;\n]{0,60}\b(?:all|other"
            r"|both) (?:functions|ports|devices)\b",
        ),
        "A reset concerns a function that the guest does not have.",
        {"partial-multifunction": 3.5, "group-shared-host-device": 0.5}, "QEMU: hw/vfio/pci.c, vfio_pci_hot_reset",
    ),
    # -- sleep -------------------------------------------------------------------------------
    said(
        "asleep",
        (
            rf"{_D3}|\bpower[ -]?states?\b|\bruntime (?:pm|power management|suspend)\b|\bdisable_idle_d3\b"
            r"|\bd3cold_allowed\b",
        ),
        "The device's sleep plays a part.", {"power-state": 3.5},
        "kernel: drivers/vfio/pci/vfio_pci.c, disable_idle_d3; mroboff/vm-curator#60, #63",
        none_of=(r"\bpower[ -]?states?\b[^.;\n]{0,40}\b(?:p0|p8|performance)\b",),
    ),
    said(
        "does-not-wake",
        (
            rf"{_D3}|\b(?:asleep|sleep\w*|suspend\w*|low[- ]power|idle|wakes?|waking|wake up|power on)\b",
            rf"(?:{CARD}|{GPU}|\bit\b){WIDE}\b(?:{NOT} (?:wake|come back|leave|resume|power|return)|stuck"
            r"|inaccessible|unable to change|remains? in|stays? in)\w*|\bunable to (?:change|power)\b"
            r"|\bstuck in\b",
        ),
        "The device does not wake up.", {"power-state": 3}, "kernel: drivers/pci/pci.c, pci_power_up",
        none_of=(r"\b(?:guest|vm|windows)\b[^.;\n]{0,30}\b(?:sleep|hibernat\w+|suspend\w*)\b",),
    ),
    said(
        "awake-helps",
        (
            r"\b(?:disable_idle_d3(?:=1)?|d3cold_allowed|power/control|pcie_port_pm=off|pcie_aspm=off"
            r"|power management)\b[^.;\n]{0,60}\b(?:helps?|helped|works?|worked|fix(?:es|ed)?|solv\w+|cures?)\b"
            r"|\b(?:fixed|solved|works|worked|helped) (?:with|by|after)[^.;\n]{0,40}\b(?:disable_idle_d3|d3cold"
            r"|aspm|power management)\b",
        ),
        "Kept awake it works.", {"power-state": 5}, "mroboff/vm-curator#60, #63",
    ),
    said(
        "reset-after-crash",
        (
            rf"\b(?:forced?|hard|abrupt\w*|unclean|kill\w*|crash\w*)\b{GAP}(?:stop|off|shut ?down|reset|reboot"
            rf"|power|{VM})",
            _TROUBLE,
        ),
        "The guest did not end cleanly, and its device stayed in that state.",
        {"reset-defective": 1.5, "amd-reset-bug": 1}, "gnif/vendor-reset#38",
        none_of=(NVIDIA + r"[^.;\n]{0,30}\blaptop\b",),
    ),
)  # fmt: skip
