"""Words about setups: guests' configurations, memory, interrupts, MSI-X, Intel graphics, virtual functions, vGPU."""

from __future__ import annotations

from .row import said
from .vocabulary import ADDED, CARD, DARK, FREEZES, GAP, IGD, NOT, STARTING, VM, WIDE, WORKS

_TIME_OUT = (
    r"(?:\btime-?(?:d )?outs?\b|\btimed out\b|\bgot timeout\b|\btimes out\b|\btakes? (?:too long|ages|forever"
    r"|very long|several minutes|\d+ ?(?:s|sec\w*|min\w*))\b|\bslow\w*\b|\bminutes\b|\bhangs? for\b)"
)
_MUCH_MEMORY = (
    r"(?:\b(?:(?:a lot of|lots of|large|huge|big|much|more|high|most of the|all|too much|increas\w*|full"
    r"|large amounts? of) (?:guest |vm |host )?(?:ram|memory)\b|\b\d{2,4} ?(?:gi?b?|g) (?:of )?(?:guest |vm "
    r"|host )?(?:ram|memory)|\b(?:ram|memory)(?: size| gib| gb)?: ?\d{2,}\b|(?:ram|memory) (?:allocation|of \d"
    r"|is (?:large|set to \d)))|\btib of (?:ram|memory)\b)"
)
_VF = r"(?:\b(?:vfs?|virtual functions?|sr-?iov|sriov_numvfs|numvfs|max_vfs)\b)"
_VGPU = (
    r"(?:\b(?:vgpus?|mdevs?|mediated devices?|nvidia grid|grid driver|gvt-?g|mig\b|mdevctl|vgpu[-_ ]unlock\w*"
    r"|nvidia-vgpu-mgr|vgpu profile|gridd|i915-gvtg\S*)\b)"
)
_CONFIG = (
    r"(?:\b(?:vm|guest|qemu)?(?:'s)? ?(?:config(?:uration)?(?: file| line)?|conf file|hostpci\d?|args|cpu line"
    r"|machine type|\d{3}\.conf|option|parameter|setting|property|line)\b)"
)
_MSIX = r"(?:\bmsi-?x\b)"
_INTX = (
    r"(?:\b(?:intx|nointxmask|legacy interrupts?|line interrupts?|level[- ]triggered|pci=nomsi|irq ?#?\d+|irqs?"
    r"|interrupts?|interrupt lines?)\b)"
)

ROWS = (
    # -- guests' configurations --------------------------------------------------------------
    said(
        "config-refused",
        (
            r"\b(?:unable to parse|format error|parameter verification failed|schema|property is not defined"
            r"|invalid format|duplicate key|value does not match|unknown option|unexpected property)\b"
            r"|\bcannot set both\b|\bq35 machine model is not enabled\b|\b(?:pcie(?:=1)?"
            r"|pci-?express)[^.;\n]{0,40}\b(?:needs?|requires?|only|without|not)\b[^.;\n]{0,20}\bq35\b"
            r"|\bonly root can\b|\bno such (?:romfile|file)\b[^.;\n]{0,20}\bromfile",
        ),
        "Proxmox VE does not accept a line of the guest's configuration.", {"bad-vm-config": 4},
        "qemu-server: PCI.pm, QemuServer.pm", none_of=(r"\bkernel command\b",),
    ),
    said(
        "config-wrong",
        (
            rf"{_CONFIG}{WIDE}\b(?:ignored|dropped|rejected|typos?|misspel\w+|syntax|wrong|invalid|malformed"
            r"|refused|not (?:accepted|applied|used|allowed|supported|recogni[sz]ed|parsed)|twice|duplicate\w*"
            r"|conflict\w*|missing (?:a )?(?:comma|function|semicolon)|overwrit\w+|overrid\w+|overrul\w+"
            r"|disappears?)\b",
        ),
        "A line of the guest's configuration is not what its author meant.", {"bad-vm-config": 3},
        "qemu-server: QemuServer.pm, parse_vm_config",
        none_of=(
            r"\b(?:modprobe|grub|cmdline|kernel|rom|module)\b[^.;\n]{0,30}\b(?:option|parameter|line|file)",
            r"\bbios (?:option|setting)\b",
        ),
    ),
    said(
        "args-overwrite",
        (
            r"\bargs:? ?[^.;\n]{0,40}-cpu\b|\btwo -cpu\b|\b-cpu (?:twice|in args)\b"
            r"|\bargs\b[^.;\n]{0,40}\b(?:overwrit\w+|overrid\w+|replac\w+|second)\b",
        ),
        "Words in args take the place of what Proxmox VE says.", {"bad-vm-config": 3},
        "qemu-server: QemuServer.pm, args",
    ),
    said(
        "pcie-without-q35", (r"\bpcie(?:=1)?\b", r"\bi440fx\b|\bnot q35\b|\bwithout q35\b"),
        "PCIe needs the machine type q35.", {"bad-vm-config": 3},
        "qemu-server: PCI.pm, q35 machine model is not enabled", none_of=(IGD,),
    ),
    # -- memory ------------------------------------------------------------------------------
    said(
        "memory-start-slow",
        (
            _MUCH_MEMORY,
            rf"{_TIME_OUT}|\b{NOT} {STARTING}|\bfail\w*\b|\bcannot allocate\b|\bcrash\w*\b|\bkilled\b"
            r"|\bboot ?loop\b|\brestarts?\b",
            rf"{STARTING}|{VM}",
        ),
        "A guest with much memory starts late or not at all.", {"memory-pinning": 4},
        "bpg/terraform-provider-proxmox#1353; harvester/harvester#7463; qemu-server: Helpers.pm, "
        "config_aware_timeout",
        none_of=(r"\bvram\b|\bgpu memory\b|\bmmio\b|\bhbm\w*\b", r"\bsecond start\b"),
    ),
    said(
        "less-memory-helps",
        (
            r"\b(?:less|smaller|reduc\w+|lower\w*|fewer|half|with only|at most|up to|below"
            rf"|\d+ ?g(?:i?b)?)\b[^.;\n]{{0,40}}\b(?:ram|memory)\b[^.;\n]{{0,50}}\b{WORKS}"
            rf"|\b{WORKS}[^.;\n]{{0,40}}\b(?:with|at|when|if|up to|below)\b[^.;\n]{{0,30}}\b(?:less|smaller"
            r"|reduc\w+|lower|fewer|only|\d+ ?g(?:i?b)?)\b[^.;\n]{0,20}\b(?:ram|memory)\b",
        ),
        "With less memory the guest starts.", {"memory-pinning": 4.5}, "harvester/harvester#7463",
        none_of=(r"\bvram\b|\bgpu memory\b",),
    ),
    said(
        "memory-cannot-lock",
        (
            r"\b(?:memlock|rlimit_memlock|mlock|locked memory|ulimit -l|pin(?:ned|ning)? (?:the |all |guest "
            r"|of )*(?:memory|ram|pages)|vfio_dma_map|dma[ _]map\w*)\b",
        ),
        "The guest's memory cannot be locked.", {"memory-pinning": 3.5},
        "kernel: drivers/vfio/vfio_iommu_type1.c; kubevirt/kubevirt#8472",
    ),
    said(
        "memory-out",
        (
            r"\b(?:cannot allocate memory|out of memory|oom(?:[ -]kill\w*)?|not enough (?:free )?(?:memory|ram)"
            r"|insufficient memory|no hugepages?|hugepages?[^.;\n]{0,30}(?:fail\w*|not enough|unavailable"
            r"|allocate)|zfs arc|\barc\b[^.;\n]{0,20}\b(?:ram|memory))\b",
            rf"{STARTING}|{VM}",
        ),
        "The host has too little free memory for a guest whose memory is pinned.", {"memory-pinning": 3},
        "kernel: drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote",
        none_of=(_VF, r"\b(?:gpu|video) memory\b|\bcuda\b"),
    ),
    said(
        "start-times-out",
        (
            rf"{_TIME_OUT}{WIDE}{STARTING}|{STARTING}{WIDE}{_TIME_OUT}",
            r"\b(?:pass-?(?:through|thru|ed through)|hostpci|gpu|vfio|device|card)\b",
        ),
        "The start takes longer than it may.",
        {"memory-pinning": 1.5, "guest-address-space": 1, "reset-defective": 0.5},
        "qemu-server: Helpers.pm, config_aware_timeout", none_of=(r"\bafter flr\b|\bnot ready\b",),
    ),
    # -- interrupts --------------------------------------------------------------------------
    said(
        "nobody-cared",
        (
            r"\bnobody cared\b|\bnointxmask\b|\b(?:irq|interrupt)[ -]?storms?\b|\bdisabling irq\b"
            r"|\bspurious interrupts?\b",
        ),
        "The host's line interrupt was switched off, or storms.", {"intx-broken": 4.5},
        "kernel: kernel/irq/spurious.c; drivers/vfio/pci/vfio_pci.c, nointxmask",
    ),
    said(
        "line-interrupts",
        (
            rf"{_INTX}",
            r"\b(?:intx|mask\w*|shared?|sharing|shares|legacy|level|line|without msi|no msi|not support msi"
            r"|storm\w*|stuck|lost|missing|never (?:arrive|fire)\w*|no longer|stops?)\b",
            rf"\b(?:broken|fail\w*|{NOT}|problem|conflict\w*|busy|shared?|sharing|shares|stops?|lost|storm\w*"
            r"|slow\w*|stutter\w*|exclusive)\b",
        ),
        "Line interrupts play a part.", {"intx-broken": 2.5}, "kernel: drivers/vfio/pci/vfio_pci_intrs.c",
        none_of=(_MSIX, r"\bremapping\b", r"\bunsafe[ _]interrupts?\b"),
    ),
    said(
        "msi-helps",
        (
            r"\b(?:msi|message[- ]signall?ed)(?: mode| interrupts?)?\b[^.;\n]{0,50}\b(?:helps?|helped|fix\w*"
            r"|works?|solv\w+|cures?)\b|\b(?:enabling|forcing|with) msi\b",
        ),
        "With message-signalled interrupts it works.", {"intx-broken": 3}, "kernel: Documentation/PCI/msi-howto.rst",
        none_of=(_MSIX,),
    ),
    said(
        "msix-layout",
        (
            _MSIX,
            r"\b(?:tables?|pba|bars?|overlap\w*|relocat\w*|offset|outside|layout|beyond|map(?:ped|ping)?|page"
            r"|size|vectors?|mmap\w*|capability)\b",
        ),
        "The place of the MSI-X table plays a part.", {"msix-layout": 4.5},
        "QEMU: hw/vfio/pci.c, vfio_msix_early_setup; cloud-hypervisor/cloud-hypervisor#7898",
    ),
    said(
        "msix-controller",
        (
            r"\b(?:sm226[0-9]\w*|silicon motion|sm2259\w*|intel (?:ssd )?(?:660p|760p|600p)|adata sx8200\w*"
            r"|sx8200|hp ex9[25]0|mushkin pilot)\b",
            r"\b(?:nvme|ssd|disk|drive|controller|passthrough)\b",
            rf"{NOT} {STARTING}|\bfail\w*\b|\berror\b|\b{NOT}\b|{FREEZES}",
        ),
        "Disks with this controller are known for a misplaced MSI-X table.", {"msix-layout": 3.5},
        "QEMU: hw/vfio/pci-quirks.c and x-msix-relocation; reports of users of SM2262/SM2263 disks",
    ),
    # -- Intel graphics ----------------------------------------------------------------------
    said(
        "igd-legacy",
        (
            r"\b(?:legacy[- ](?:mode|igd)|x-igd-\w+|opregion|lpc bridge|legacy-igd|stolen memory|gvtd|gms)\b",
            rf"{IGD}|\bintel\b|\bx-igd|\bopregion\b",
        ),
        "Legacy assignment of Intel's graphics plays a part.", {"igd-legacy": 4},
        "QEMU: docs/igd-assign.txt, hw/vfio/igd.c; qemu-server: PCI.pm, legacy-igd",
    ),
    said(
        "igd-preconditions",
        (
            IGD,
            r"\b(?:i440fx|q35|02\.0|vga: ?(?:none|std)|display: ?none|rombar|pc machine|address 0?2|slot 0?2"
            r"|primary (?:display|vga))\b",
            rf"{DARK}|{NOT}|\b(?:fail\w*|needs?|requires?|only|must|refus\w*|wants?)\b",
        ),
        "A precondition of Intel's legacy graphics assignment is not met.", {"igd-legacy": 3.5},
        "QEMU: docs/igd-assign.txt", none_of=(_VF, _VGPU, r"\bigpu (?:for|of|on) the host\b"),
    ),
    said(
        "igd-dark", (IGD, DARK), "Intel's graphics show no picture in the guest.",
        {"igd-legacy": 2, "rom-invalid": 1.5}, "QEMU: docs/igd-assign.txt",
        none_of=(
            r"\b(?:amd|ryzen|radeon|apu|[67]80m|vega)\b",
            r"\b(?:dgpu|nvidia|geforce|gtx|rtx)\b",
            _VF,
            _VGPU,
            r"\bhost\b[^.;\n]{0,40}\bigpu\b",
        ),
    ),
    # -- virtual functions -------------------------------------------------------------------
    said(
        "vfs-missing",
        (
            rf"{_VF}{WIDE}\b(?:{NOT} (?:be )?(?:creat\w*|appear\w*|show\w*|enabl\w*|work\w*|generat\w*|exist\w*"
            r"|visible|load\w*|initiali\w*|get\w*|come|start\w*|set)|fail\w*|error\w*|missing|gone|lost"
            r"|disappear\w*|vanish\w*|only|zero|0\b|not enough|no (?:vfs?|space|resources)|disabled|denied"
            r"|out of range|busy|reset to|empty|limit\w*|permission)\b|\b(?:cannot|can't|unable to|fail\w* to"
            rf"|could not|not able to|no|missing|not enough|without) (?:\w+ ){{0,3}}?{_VF}",
        ),
        "Virtual functions cannot be made or used.", {"sriov-setup": 4},
        "kernel: drivers/pci/iov.c; strongtz/i915-sriov-dkms#129, #246",
        none_of=(r"\bsr-?iov (?:is )?not (?:used|needed|involved)\b",),
        follows=("said.kernel-since", "said.kernel-two", "said.kernel-downgrade-helps"),
    ),
    said(
        "vfs-after-reboot",
        (_VF, r"\bafter (?:a |the |every |each |host )*re-?boot\b|\bpersist\w*\b|\bat boot\b|\bon boot\b"),
        "The number of virtual functions does not survive a reboot.", {"sriov-setup": 3},
        "kernel: Documentation/PCI/pci-iov-howto.rst; xcp-ng/xcp#544",
    ),
    said(
        "vfs-mmio",
        (
            r"\bnot enough mmio\b|\bmmio resources for sr-?iov\b|\bvf bars?\b|\b(?:vf|virtual function)s? bar\b"
            r"|\bpci=realloc\b|\barifwd\b|\bari forwarding\b|\bsr-?iov (?:global )?(?:is )?(?:disabled|off"
            r"|not enabled|enabled only) in (?:the )?(?:bios|uefi)",
        ),
        "The firmware leaves no room for virtual functions.", {"sriov-setup": 4},
        "kernel: drivers/pci/iov.c; openshift/openshift-docs#32619",
    ),
    said(
        "vf-network",
        (
            _VF,
            r"\b(?:no (?:link|network|traffic|connectivity|carrier)|mac address|vlan|spoof\w*|trust\w*"
            r"|link (?:down|state)|packets)\b",
        ),
        "A virtual function has no network in the guest.", {"sriov-setup": 3},
        "kernel: Documentation/networking; ip-link(8), vf",
    ),
    # -- vGPU --------------------------------------------------------------------------------
    said(
        "vgpu",
        (
            rf"(?:\b(?:no|without|missing|not) )?{_VGPU}",
            rf"\b(?:{NOT}|fail\w*|error\w*|missing|no\b|licen[cs]\w*|types?|profiles?|unsupported|mismatch\w*"
            r"|version\w*|unlock\w*|empty|instances?|expired|unlicen\w*|i/o error|input/output|denied|only|busy"
            r"|crash\w*|nothing|none)\b",
        ),
        "A mediated device or vGPU is not set up.", {"vgpu-config": 4},
        "qemu-server: PCI/Mdev.pm; Proxmox VE wiki, NVIDIA vGPU",
        none_of=(r"\b(?:no|without|not using) (?:vgpu|mdev|gvt-g)\b",),
    ),
    said(
        "vgpu-driver-pair",
        (
            rf"{_VGPU}|\bgrid\b",
            r"\b(?:host|guest) (?:and|/|driver) ?(?:guest|host)?[^.;\n]{0,60}\b(?:versions?|branch\w*|drivers?)\b"
            r"|\bdriver (?:version|branch)\w*\b[^.;\n]{0,60}\b(?:mismatch\w*|incompatible|differ\w*|fit|match\w*"
            r"|newer|older)\b",
        ),
        "Drivers of host and guest do not fit together.", {"vgpu-config": 3}, "Proxmox VE wiki, NVIDIA vGPU",
    ),
    said(
        "vgpu-licence",
        (
            r"\blicen[cs](?:e|es|ed|ing)\b[^.;\n]{0,60}\b(?:server|token|expired|acquire\w*|fail\w*|not"
            r"|unlicen\w*|dls|cls|gridd|throttl\w*|fps|slow\w*)\b",
            rf"{_VGPU}|\bnvidia\b|\bgrid\b",
        ),
        "A vGPU has no licence.", {"vgpu-config": 3.5}, "Proxmox VE wiki, NVIDIA vGPU",
    ),
    said(
        "bar-of-usb",
        (rf"{ADDED}{GAP}\busb\b", rf"\b{CARD}", r"\bbandwidth\b|\bnot enough host controller resources\b"),
        "A USB controller has no room for more devices.", {"bad-vm-config": 1}, "kernel: drivers/usb/host/xhci.c",
    ),
)  # fmt: skip
