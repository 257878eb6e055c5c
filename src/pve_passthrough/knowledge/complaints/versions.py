"""Words about what changed: kernels, QEMU, firmware; and the comparison with what worked."""

from __future__ import annotations

from .row import said
from .vocabulary import ADDED, BIOS, CARD, FREEZES, GAP, GPU, KERNEL_VERSION, NOT, UPDATE, VM, WIDE, WORKS

_FAILS = (
    rf"(?:\b(?:{NOT}\b|disabled\b|denied\b|fail(?:s|ed|ing|ure)?|broke|broken|breaks|stopped|crash\w*|{FREEZES}"
    r"|aborts?|asserts?"
    r"|regress\w*|error\w*|gone|lost|no longer|black|dark|hangs?|oops|dead|missing|disappear\w*))"
)
_OLD = r"(?:\b(?:old|older|previous|earlier|former|prior|original|last)\b)"
_KERNEL = r"(?:\b(?:(?:linux|host|pve|proxmox|opt-in|new|newer|latest|current|running|lts|stable)[ -])?kernels?\b)"
_QEMU = r"(?:\b(?:pve-)?qemu(?:-kvm|-server)?\b|\bqemu-system\S*)"
_MACHINE = r"(?:\b(?:pc-(?:q35|i440fx)-\d+\.\d+\S*|machine[ -](?:version|type)s?)\b)"
_PVE = (
    r"(?:\b(?:pve|proxmox(?: ve)?|unraid|truenas(?: scale)?|ubuntu|debian|arch|fedora|qubes(?: os)?|harvester"
    r"|distro|distribution)[ -]?(?:from )?v?\d*(?:\.\d+)*\b)"
)
_SETTING = (
    r"(?:\b(?:above 4g(?: decoding)?|re-?size?able bar|re-?bar|csm|fast boot|aspm|c-states?|cstates?"
    r"|pcie (?:link )?(?:speed|gen\w*|bifurcation)|secure boot|legacy usb|sr-?iov support|primary display"
    r"|initial display|internal graphics|multi-?monitor|option rom|ari(?: support)?|acs(?: enable)?|sme|smee|tsme"
    r"|dma protection|pre-?boot dma|wake on lan|bmc|ipmi|smm|smi)\b)"
)

ROWS = (
    # -- kernels -----------------------------------------------------------------------------
    said(
        "kernel-downgrade-helps",
        (
            r"\b(?:downgrad\w+|revert\w*|roll(?:ed|ing)?[ -]?back|going back|went back|pinn(?:ed|ing)|pin"
            r"|boot(?:ing|ed)?|using|switch\w* back|return\w*|fall\w* back|with|under|on|in)\b(?: to| into| with"
            rf"| the| an?| from)*{GAP}(?:{_OLD}{GAP}{_KERNEL}|{_KERNEL} ?(?:version )?{KERNEL_VERSION}"
            rf"|{KERNEL_VERSION}(?: kernel)?){GAP}\b(?:fix\w*|solv\w+|help\w*|works?|worked|resolv\w+|fine|gone"
            r"|cures?|all (?:is )?(?:good|well)|everything|does not (?:show|have)|no (?:problem|issue|error)s?)\b"
            r"|\b(?:works?|worked|fine|ok|good|no (?:problem|issue|error)s?|not (?:affected|happen\w*)|unaffected"
            rf"|last (?:good|working)|known good)\b{GAP}\b(?:with|on|under|in|using|before|until|up to"
            rf"|and including|when booting|kernel|version)?\b{GAP}(?:{_OLD}{GAP}{_KERNEL}"
            rf"|{_KERNEL} ?(?:version )?(?:was )?{KERNEL_VERSION}|{KERNEL_VERSION})",
        ),
        "With another kernel it works.", {"kernel-regression": 4.5},
        "strongtz/i915-sriov-dkms#321, #322; zen-kernel/zen-kernel#380",
        none_of=(
            rf"\b(?:old(?:er)?|previous|other|different|several|both|all) kernels?\b{GAP}(?:same|too|also|as well"
            rf"|{NOT} (?:help|work|fix|change))",
            r"\b(?:virtio|driver) (?:version )?\d",
            _MACHINE,
            r"\bvendor[-_ ]reset\b",
            r"\bqemu (?:version )?\d+\.\d+[^.;\n]{0,20}\b(?:works?|worked|fine)\b",
            r"\bsame (?:on|with|under|in) (?:all|both|every|other|older|several|different"
            r"|any)\b[^.;\n]{0,20}\bkernels?\b",
        ),
    ),
    said(
        "kernel-since",
        (
            r"\b(?:since|after|following|as of|starting (?:with|from|in)|introduced (?:in|with|by)|broke\w* (?:in"
            r"|with|by|since)|fails? since|only (?:occurs?|happens?|fails?|broken|with|on"
            rf"|under))\b{GAP}(?:{UPDATE}{GAP}{_KERNEL}|{_KERNEL}{GAP}{UPDATE}"
            rf"|{_KERNEL} ?(?:version )?{KERNEL_VERSION}|{KERNEL_VERSION} ?{_KERNEL}|\b{KERNEL_VERSION}-pve\b"
            rf"|\b\d\.\d+(?:\.\d+)?(?:-\d+)?-pve\b)|{UPDATE}{GAP}(?:{_KERNEL}|\b(?:from|to) {KERNEL_VERSION})"
            rf"|{_KERNEL} (?:{UPDATE}|regress\w*)|\bkernel (?:bug|regression|oops)\b|\bregression\b{GAP}{_KERNEL}"
            r"|\bbisect\w*\b",
            rf"{_FAILS}|\bworked (?:before|fine)\b|\bused to work\b",
        ),
        "The trouble came with a kernel.", {"kernel-regression": 3.5},
        "bryansteiner/gpu-passthrough-tutorial#29; strongtz/i915-sriov-dkms#321",
        none_of=(
            rf"\b(?:old(?:er)?|previous|other|different) kernels?\b{GAP}(?:same|too|also|as well|{NOT} (?:help"
            r"|work|fix|change))",
            r"\bguest(?:'s)? kernel\b",
            r"\bvendor[-_ ]reset\b",
            r"\bdkms\b[^.;\n]{0,30}\b(?:fail|build|compil)",
        ),
    ),
    said(
        "kernel-commit",
        (
            r"\b[0-9a-f]{12,40} ?\(\"[^\"\n]{5,90}\"\)",
            r"\b(?:remov\w+|broke\w*|introduc\w+|regress\w*|bisect\w*|caus\w+|chang\w+|previously|used to)\b",
        ),
        "A change of the kernel is named as the culprit.", {"kernel-regression": 3.5},
        "kernel: Documentation/admin-guide/reporting-regressions.rst",
    ),
    said(
        "kernel-two",
        (
            rf"{KERNEL_VERSION}{WIDE}\b(?:works?|worked|good|ok|fine|unaffected"
            rf"|start\w*)\b{WIDE}{KERNEL_VERSION}{WIDE}{_FAILS}"
            rf"|{KERNEL_VERSION}{WIDE}{_FAILS}{WIDE}{KERNEL_VERSION}{WIDE}\b(?:works?|worked|good|ok|fine"
            r"|unaffected)\b|\b(?:works?|worked|fine|ok"
            rf"|good)\b{GAP}{KERNEL_VERSION}{WIDE}{_FAILS}{GAP}{KERNEL_VERSION}"
            rf"|{_FAILS}{GAP}{KERNEL_VERSION}{WIDE}\b(?:works?|worked|fine|ok|good)\b{GAP}{KERNEL_VERSION}"
            rf"|{_FAILS}{GAP}{KERNEL_VERSION}{WIDE}\bno (?:panic|crash|hang|problem|issue|error|trouble)s? (?:on"
            r"|with|under"
            rf"|in){GAP}{KERNEL_VERSION}",
        ),
        "One kernel version works, another does not.", {"kernel-regression": 4}, "zen-kernel/zen-kernel#380",
        none_of=(
            rf"{_QEMU} ?(?:version )?\d",
            rf"{_MACHINE}",
            rf"{BIOS} (?:version )?\d",
            r"\b(?:ovmf|edk2|driver|nvidia|agesa) (?:version )?\d",
        ),
        follows=("said.qemu-*",),
    ),
    said(
        "kernel-stated",
        (
            r"\b(?:last (?:good|working)|good|working|previous|old|works (?:with|on)|worked (?:with"
            r"|on)) kernel(?: version)?: ?\d|\bkernel (?:good|works|worked|working|last good|before): ?\d"
            r"|\b(?:bad|broken|failing|fails (?:with|on)|first bad|new) kernel(?: version)?: ?\d|\bkernel (?:bad"
            r"|fails|broken|first bad|after): ?\d|\bregression: (?:yes|true)\b",
        ),
        "It was stated which kernel works.", {"kernel-regression": 3.5}, "the person's own statement",
    ),
    said(
        "release-since",
        (
            rf"\b(?:since|after)\b{GAP}(?:{UPDATE}|{ADDED}){GAP}{_PVE}|{UPDATE}{GAP}(?:from |to ){GAP}{_PVE}"
            rf"|{UPDATE} {_PVE}|\bafter (?:an? |the |last |latest )*(?:system |host |apt |dist[- ])?(?:upgrade"
            r"|update)\b|\b(?:since|after) (?:the )?(?:last |latest |recent )?(?:updates?|upgrades?)\b",
            rf"{_FAILS}|\bworked (?:before|fine|perfectly)\b|\bused to work\b",
        ),
        "The trouble came with an upgrade.",
        {"kernel-regression": 2.5, "qemu-regression": 1, "bdf-renumbered": 0.5, "group-renumbered": 0.5},
        "an upgrade brings kernel, QEMU and qemu-server together: Proxmox VE administration guide",
        none_of=(
            rf"{BIOS}{GAP}{UPDATE}|{UPDATE}{GAP}{BIOS}",
            rf"{_QEMU} ?(?:to )?(?:version )?\d",
            r"\b(?:driver|windows|guest|nvidia|dkms) (?:update|upgrade)",
            rf"{UPDATE} (?:the )?(?:guest|windows|driver|nvidia)\b",
        ),
        follows=("said.kernel-*", "said.qemu-*"),
    ),
    said(
        "kernel-oops",
        (
            r"\b(?:oops|kernel (?:bug|panic|crash)|null pointer|general protection fault|call ?trace|stack ?trace"
            r"|bug: )\b",
            rf"\b(?:unbind\w*|bind\w*|vfio|passthrough|{VM}|amdgpu|i915|xe|nouveau)\b",
        ),
        "The kernel stumbles over itself.", {"kernel-regression": 2},
        "kernel: Documentation/admin-guide/bug-hunting.rst",
        none_of=(r"\bproprietary\b|\binside (?:the )?(?:vm|guest)\b",),
    ),
    # -- QEMU --------------------------------------------------------------------------------
    said(
        "qemu-since",
        (
            r"\b(?:since|after|following|starting with|introduced in|broke\w* (?:in|with|by|since)|came with"
            rf"|only (?:with|on|under|in))\b{GAP}{_QEMU}{GAP}(?:\d+\.\d+|{UPDATE})|{UPDATE}{GAP}{_QEMU}"
            rf"|{_QEMU} ?(?:version "
            rf"|packages? )?(?:\d+\.\d+(?:\.\d+)?(?:-\d+)?)?{GAP}(?:{UPDATE}|\bregress\w*|\bbroke\b|\bbug\b)",
            rf"{_FAILS}|\bworked (?:before|fine)\b|\bregress\w*",
        ),
        "The trouble came with a QEMU.", {"qemu-regression": 4},
        "strongtz/i915-sriov-dkms#290; 64kramsystem/vga-passthrough#22",
        none_of=(
            rf"\b(?:old(?:er)?|previous|other|different) {_QEMU}{GAP}(?:same|too|also|as well|{NOT} (?:help|work"
            r"|fix|change))",
            r"\bqemu exited with code\b[^.;\n]{0,30}$",
        ),
    ),
    said(
        "qemu-two",
        (
            rf"{_QEMU} ?(?:version )?\d+\.\d+{WIDE}{_FAILS}{WIDE}\b\d+\.\d+\S* (?:was |is |were )?(?:okay|ok|fine"
            r"|good"
            rf"|works?|worked|not affected)\b|{_QEMU} ?(?:version )?\d+\.\d+\S* (?:was |is )?(?:okay|ok|fine|good"
            r"|works?"
            rf"|worked)\b{WIDE}\b\d+\.\d+{WIDE}{_FAILS}",
        ),
        "One QEMU works, another does not.", {"qemu-regression": 4}, "64kramsystem/vga-passthrough#22",
    ),
    said(
        "qemu-downgrade-helps",
        (
            r"\b(?:downgrad\w+|revert\w*|roll\w*[ -]?back|going back|went back|old(?:er)?|previous|earlier|with"
            rf"|under|on|using)\b{GAP}{_QEMU}{GAP}\b(?:fix\w*|solv\w+|help\w*|works?|worked|resolv\w+|fine|gone"
            rf"|cures?)\b|\b(?:works?|worked|fine|ok)\b{GAP}\b(?:with|on|under|before"
            rf"|until)\b{GAP}{_QEMU} ?(?:version )?\d|\b(?:downgrad\w+|revert\w*)\b{GAP}{_QEMU}",
        ),
        "With another QEMU it works.", {"qemu-regression": 4.5}, "64kramsystem/vga-passthrough#22",
        none_of=(rf"{_QEMU}{GAP}(?:did(?:n't| not)|does(?:n't| not)|no) (?:help|fix|change|work)",),
    ),
    said(
        "machine-version-helps",
        (
            rf"{_MACHINE}{WIDE}\b(?:fix\w*|solv\w+|help\w*|works?|worked|resolv\w+|fine|older|{NOT})\b|\b(?:works?"
            rf"|worked|fine|fix\w*|only)\b{GAP}{_MACHINE}|\bkernel_irqchip=on\b",
            r"\b\d+\.\d+\b|\bolder\b|\bkernel_irqchip\b|\bprevious\b",
        ),
        "With another machine version it works.", {"qemu-regression": 4},
        "qemu-server: machine versions; 64kramsystem/vga-passthrough#22",
        none_of=(r"\bi440fx\b[^.;\n]{0,30}\bq35\b(?!-)",),
    ),
    # -- firmware ----------------------------------------------------------------------------
    said(
        "firmware-since",
        (
            rf"\b(?:since|after|following|with)\b{GAP}(?:{UPDATE}{GAP}{BIOS}|{BIOS}{GAP}(?:{UPDATE}|flash\w*"
            rf"|version|f?\d+\w*))|{UPDATE} (?:the |my )?(?:\w+ )?{BIOS}{WIDE}\bsince\b|{BIOS} (?:{UPDATE}"
            rf"|flash\w*){GAP}(?:broke|caused|since|{NOT})|\bflash\w* (?:the |a )?(?:new )?{BIOS}",
            rf"{_FAILS}|\bworked (?:before|fine)\b|\bused to work\b",
        ),
        "The trouble came with a firmware of the machine.", {"firmware-defect": 3.5, "iommu-firmware": 0.5},
        "bryansteiner/gpu-passthrough-tutorial#4",
        none_of=(
            r"\b(?:address\w*|numbers?|ids?|bus)\b[^.;\n]{0,30}\b(?:changed|shifted|moved|differ\w*)\b"
            r"|\brenumber\w*\b|\brenamed\b",
            r"\biommu\b|\bdmar\b|\bivrs\b|\bvt-?d\b",
            rf"{BIOS}{GAP}(?:did(?:n't| not)|does(?:n't| not)) (?:help|fix|change)",
            r"\b(?:linux-firmware|gpu firmware|guc|huc|ovmf|nvidia firmware|gsp)\b",
        ),
    ),
    said(
        "firmware-other-helps",
        (
            r"\b(?:downgrad\w+|revert\w*|roll\w*[ -]?back|older|previous|newer|updat\w+|flash\w*|with"
            rf"|new)\b{GAP}{BIOS}{GAP}\b(?:fix\w*|solv\w+|help(?:s|ed)\b|works?|worked|resolv\w+|cures?|gone"
            r"|is (?:fine|ok|good)|no (?:problem|issue)s?)\b|\b(?:fix\w*|solv\w+|resolv\w+|works?|worked) (?:by"
            rf"|with|after|in|on|since)\b{GAP}(?:{UPDATE}{GAP}{BIOS}|{BIOS}{GAP}(?:{UPDATE}|version|f?\d))",
        ),
        "With another firmware of the machine it works.", {"firmware-defect": 4, "iommu-firmware": 0.5},
        "bryansteiner/gpu-passthrough-tutorial#4",
        none_of=(
            rf"{BIOS}{GAP}(?:did(?:n't| not)|does(?:n't| not)|no) (?:help|fix|change|work)",
            r"\bvbios\b|\bgpu bios\b|\bovmf\b",
            r"\bdmar\b|\bivrs\b",
        ),
    ),
    said(
        "firmware-switch-helps",
        (
            r"\b(?:disabl\w+|enabl\w+|turn\w* (?:off|on)|switch\w* (?:off|on)|set(?:ting)?|chang\w+|without"
            rf"|with)\b{GAP}{_SETTING}{GAP}\b(?:helps?|helped|fix\w*|works?|worked|solv\w+|resolv\w+|cures?|gone"
            r"|avoid\w*|stops?)\b|\b(?:helps?|helped|fix(?:ed|es)|works?|worked|solv\w+"
            rf"|resolv\w+)\b{GAP}\b(?:disabl\w+|enabl\w+|turn\w* (?:off|on)|switch\w* (?:off|on)"
            rf"|by setting)\b{GAP}{_SETTING}",
        ),
        "A switch of the machine's firmware decides.", {"firmware-defect": 3},
        "Proxmox VE administration guide, PCI(e) passthrough, host device", none_of=(r"\b(?:acs|sr-?iov|vfs?)\b",),
    ),
    said(
        "firmware-behind-the-back",
        (
            r"\b(?:bmc|ipmi|idrac|ilo|management (?:engine|controller)|smm|smi|me firmware|bios|uefi"
            r"|firmware)\b[^.;\n]{0,80}\b(?:behind|touch\w*|access\w*|writes?|writing|dma|uses|using|keeps?|left"
            r"|leaves?|initiali[sz]\w*|handoff|hand-?over|owns?|still (?:active|running))\b",
            rf"\b(?:hidden|unexpected|fault\w*|dma|bad state|half|wrong state|corrupt\w*|{FREEZES}|fail\w*"
            rf"|{NOT})\b",
        ),
        "The firmware has its hand in the device.", {"firmware-defect": 3.5, "reserved-region": 0.5},
        "Proxmox VE administration guide, PCI(e) passthrough",
        none_of=(r"\brmrr\b", r"\b(?:iommu|vt-?d|dmar|ivrs)\b", r"\b(?:seabios|ovmf|vbios)\b"),
    ),
    said(
        "other-machine-works",
        (
            rf"\bsame (?:\w+ ){{0,2}}?(?:{CARD}|{GPU}|disk|setup|config\w*)\b{WIDE}{WORKS}{WIDE}\b(?:other|another"
            r"|different|second|older|old) (?:\w+ )?(?:machine|board|mainboard|motherboard|pc|server|computer"
            r"|host|platform)\b|\b(?:other|another|different|second|older|old) (?:\w+ )?(?:machine|board"
            rf"|mainboard|motherboard|pc|server|computer|host|platform)\b{GAP}{WORKS}",
        ),
        "The same works in another machine.", {"firmware-defect": 2}, "what stays different is board and firmware",
        none_of=(r"\b(?:iommu )?groups?\b", r"\blaptop\b", r"\b(?:code|error) 43\b"),
    ),
    said(
        "after-suspend-of-host",
        (
            r"\b(?:suspend\w*|resum\w*|s3|sleep|hibernat\w*|warm (?:boot|re-?boot)|cold boot"
            r"|after power loss)\b[^.;\n]{0,60}\b(?:host|machine|only|works?|fail\w*|first)\b",
            r"\b(?:only after|works? (?:only )?after|fail\w* after|different\w*)\b",
        ),
        "How the machine was started decides.", {"firmware-defect": 2},
        "firmware leaves devices in another state after a warm start",
        none_of=(r"\b(?:vm|guest)\b[^.;\n]{0,30}\b(?:suspend|sleep|hibernat)",),
    ),
)  # fmt: skip
