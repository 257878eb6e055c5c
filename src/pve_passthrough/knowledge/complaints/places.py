"""Words about groups, addresses, drivers of the host, and the boot display."""

from __future__ import annotations

from .row import said
from .vocabulary import (
    ADDED,
    BIOS,
    CARD,
    CHANGED,
    DARK,
    FREEZES,
    GAP,
    GPU,
    GROUP,
    HARDWARE,
    HOST,
    NOT,
    STARTING,
    UPDATE,
    VM,
    WIDE,
)  # fmt: skip

_LOSES = (
    r"(?:\b(?:los(?:es?|t|ing)|drops?|dropped|kills?|disconnects?|disconnected|disappears?|disappeared|vanish\w*"
    r"|gone|goes? (?:down|offline|away)|went (?:down|offline|away)"
    r"|unreachable|inaccessible|stops? responding|cuts? off|offline|no (?:network|connection|ssh)|is taken"
    r"|unavailable|i/o errors?|read-only)\b)"
)
_BELONGINGS = (
    r"(?:\b(?:network|networking|connection|connectivity|ssh|web ?(?:ui|gui|interface)|nics?|ethernet|lan"
    r"|interface|sata|disks?|ssds?|storage|zfs pool|root (?:disk|filesystem|fs)|file ?system"
    r"|boot (?:disk|drive)|keyboard|usb (?:ports?|controllers?|devices?)|internet|hosts? nic)\b)"
)
_TOGETHER = (
    r"(?:\b(?:same|single|one|shared?|sharing|shares|big|huge|large|giant|together|all)\b"
    rf"[^.;\n]{{0,50}}?{GROUP}|{GROUP}[^.;\n]{{0,60}}\b(?:shared?|shares|sharing|together|also contains?"
    r"|contains? (?:also|other|everything|both)|includes?|including|along with|with (?:other|the|my)"
    r"|not (?:isolated|separated?|clean|split)|bad(?:ly)?|poor(?:ly)?|messed|mixed|grouped|lumped)\b)"
)
_ADDRESS = (
    r"(?:\b(?:pci|pcie|bus|device|slot|bdf)[ -]?(?:bus )?(?:addresses|address|ids?|numbers?|numbering|enumeration"
    r"|location|slots?|paths?)\b|\baddress(?:es)?\b|\b[0-9a-f]{2}:[01][0-9a-f]\.[0-7]\b|\bbus numbers?\b)"
)
_HOLDS = (
    r"(?:\b(?:in use|busy|still (?:in use|loaded|bound|attached|held|claimed|used|using|active|open|driving"
    r"|owned)|holds?|holding|held|occup\w+|claims?|claimed|claiming|grabs?|grabbed|grabbing"
    r"|bound to|binds? to|using the|uses the|used by|opened by|locked by|attached to|owns|owned by|takes)\b)"
)
_DRIVER = (
    r"(?:\b(?:nouveau|nvidia(?:fb|_drm|_modeset)?|amdgpu|radeon|i915|xe|snd_hda_intel|xhci_hcd|ahci|nvme|ixgbe"
    r"|i40e|igb|e1000e|r8169|mlx[45]_core|mpt[23]sas|megaraid_sas|hpsa|host'?s? drivers?|kernel drivers?"
    r"|(?:original|native|default) drivers?|drivers?)\b)"
)
_DAEMON = (
    r"(?:\b(?:xorg|x11|x server|x session|wayland|gdm3?|sddm|lightdm|display manager|desktop|nvidia-persistenced"
    r"|persistenced|persistence mode|docker|podman|containers?|lxc|jellyfin|plex|ollama|frigate|cuda|dcgm\S*"
    r"|nvidia-smi|monitoring|process(?:es)?|pulseaudio|pipewire|lm-?sensors|zpool|zfs|lvm|mdadm|multipath\w*)\b)"
)
_BOOTFB = (
    r"(?:\b(?:efi-?fb|vesa-?fb|simple-?fb|simpledrm|simple-framebuffer|sysfb\w*|bootfb|efi-framebuffer|(?:boot"
    r"|efi|system|console) ?-?frame ?buffers?|frame ?buffers?|vtcon\d?)\b)"
)

ROWS = (
    # -- groups ------------------------------------------------------------------------------
    said(
        "same-group", (_TOGETHER,), "The device shares its IOMMU group with others.",
        {"group-no-acs": 3, "group-shared-host-device": 1.5}, "kernel: drivers/iommu/iommu.c, pci_device_group",
        none_of=(
            r"\b(?:own|separate|dedicated|isolated|alone in|only device in)[^.;\n]{0,20}\bgroups?\b",
            r"\b(?:fine|good|clean|ok|okay) iommu groups?\b",
        ),
    ),
    said(
        "acs",
        (
            r"\b(?:pcie_)?acs[ _](?:override|patch|support|capab\w+)\b|\b(?:no|lacks?|lacking|without|missing"
            r"|broken|not support(?:ing)?) (?:proper |pcie )?acs\b|\bacs (?:is |are )?(?:missing|not|disabled"
            r"|unsupported|broken|off)\b|\baccess control services?\b",
        ),
        "Isolation between ports is missing or only pretended.", {"group-no-acs": 2.5},
        "kernel: drivers/pci/quirks.c; lexi-src/sGPUpt#16",
    ),
    said(
        "acs-helps",
        (
            r"\b(?:works?|worked|fix(?:ed|es)|solv\w+|split\w*|separat\w+|help(?:s|ed)"
            r"|resolved)\b[^.;\n]{0,60}\b(?:acs[ _](?:override|patch)|pcie_acs_override|another slot"
            r"|different slot|other slot)\b"
            r"|\b(?:acs[ _](?:override|patch)|pcie_acs_override|another slot|different slot"
            r"|other slot)\b[^.;\n]{0,60}\b(?:works?|worked|fix(?:ed|es)|solv\w+|split\w*|separat\w+|help(?:s|ed)"
            r"|resolved)\b",
        ),
        "With pretended isolation, or in another slot, it goes.", {"group-no-acs": 3.5}, "lexi-src/sGPUpt#16",
        none_of=(
            r"\b(?:acs|slot)\b[^.;\n]{0,30}\b(?:did(?:n't| not)|does(?:n't| not)|no) (?:help|work|change"
            r"|difference)",
        ),
    ),
    said(
        "not-viable",
        (
            r"\bnot viable\b|\bensure all devices within the iommu[_ ]group\b|\ball devices (?:in|of"
            r"|within) the (?:iommu[_ ])?group\b",
        ),
        "Another member of the group is still with a driver of the host.",
        {"group-shared-host-device": 3.5, "group-no-acs": 1},
        "kernel: drivers/vfio/group.c; NVIDIA/kubevirt-gpu-device-plugin#27, #50",
    ),
    said(
        "host-loses",
        (
            rf"{_BELONGINGS}{WIDE}{_LOSES}|{_LOSES}{WIDE}{_BELONGINGS}|{HOST} (?:itself )?(?:becomes?|became|is"
            r"|goes|gets|was|drops?)? ?(?:unreachable|offline|inaccessible|disconnected)\b",
            r"\b(?:when|as soon as|once|after|on|upon|the moment|while|whenever|every time|by"
            rf"|if)\b{GAP}(?:{STARTING}{GAP}{VM}|{VM}{GAP}{STARTING})|{STARTING} (?:the |a |my "
            rf"|this )?{VM}{WIDE}{_LOSES}|\bvm (?:is )?started\b",
        ),
        "When the guest starts, the host loses a device of its own.",
        {"group-shared-host-device": 4, "bdf-renumbered": 1},
        "ra1nstorm/ra1nstorm-helper#131; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio",
        none_of=(
            r"\bsuspend\b",
            r"\binside (?:the )?(?:vm|guest)\b|\bin the (?:vm|guest)\b[^.;\n]{0,30}\b(?:network|internet)\b",
        ),
    ),
    said(
        "host-device-in-group",
        (
            rf"{GROUP}",
            r"\b(?:host'?s? (?:nic|network|disk|sata|usb|boot|own)|sata controller|usb controller|nic|ethernet"
            r"|network card|nvme|audio (?:device|function))\b",
            rf"{_LOSES}|{_HOLDS}|{FREEZES}|\bnot viable\b|\bstill with\b",
        ),
        "The group holds a device that the host needs.", {"group-shared-host-device": 3},
        "kernel: drivers/vfio/group.c",
    ),
    said(
        "group-number",
        (
            rf"{GROUP}(?:'?s)? ?(?:number|id|numbers|ids|assignments?|numbering)?{GAP}{CHANGED}"
            rf"|{CHANGED}{GAP}{GROUP} ?(?:number|id)s?\b"
            r"|\biommugroup\b[^.;\n]{0,60}\b(?:expected|differs?|mismatch|match|wrong|correct|changed)\b"
            r"|\bstored group\b|\b(?:old|former|previous|configured) (?:iommu )?group (?:number )?\d+\b",
        ),
        "The number of the group is not the one that was stored.", {"group-renumbered": 4.5},
        "kernel: drivers/iommu/iommu.c, iommu_group_alloc; pve-guest-common Mapping/PCI.pm",
        none_of=(r"\bmov(?:ed|ing) (?:it |the \w+ )?to another group\b", r"\bdifferent iommu groups\b"),
    ),
    said(
        "mapping-mismatch",
        (
            r"\b(?:resource )?mapping\b[^.;\n]{0,80}\b(?:invalid|hardware (?:probably )?changed|mismatch"
            r"|does(?:n't| not) match|not correct|no longer valid|outdated|stale)\b",
        ),
        "The stored mapping does not fit the hardware any more.", {"group-renumbered": 2.5, "bdf-renumbered": 2.5},
        "pve-guest-common Mapping/PCI.pm, assert_valid",
    ),
    # -- addresses ---------------------------------------------------------------------------
    said(
        "addresses-moved",
        (
            rf"{_ADDRESS}{GAP}{CHANGED}|{CHANGED}{GAP}{_ADDRESS}|\bre-?number\w+\b"
            rf"|{_ADDRESS}{GAP}\b(?:suddenly|now) (?:is |are |belongs to |points to )?(?:the|an?|my|another)\b",
        ),
        "Devices have other addresses than before.", {"bdf-renumbered": 4},
        "QubesOS/qubes-issues#7792; systemd/systemd#33347",
        none_of=(GROUP + r"[^.;\n]{0,20}(?:number|id)[^.;\n]{0,40}chang", r"\b(?:e?mac|ip) address(?:es)?\b"),
    ),
    said(
        "added-then-wrong",
        (
            rf"\b(?:after|since|when|once|by)\b{GAP}{ADDED}{GAP}{HARDWARE}",
            rf"\b(?:wrong|different|another) (?:device|card|gpu|disk|nic|controller)\b|{CHANGED}|{_LOSES}"
            rf"|\benp?\d+s\d+\w*\b|\b(?:interface|nic)s? (?:name )?(?:renamed|has another name)\b|{NOT} {STARTING}"
            r"|\bno (?:longer )?network\b|\bno such device\b|\bno pci device info\b",
        ),
        "The trouble came with a card or disk that was added, taken out or moved.",
        {"bdf-renumbered": 3.5, "group-renumbered": 1}, "QubesOS/qubes-issues#7792; systemd/systemd#2811, #33347",
        none_of=(r"\bnew (?:nvidia |amd )?drivers?\b",),
    ),
    said(
        "interface-renamed",
        (
            r"\b(?:interface|nic|network)\b[^.;\n]{0,40}\b(?:renamed|name (?:has )?changed|other name|new name"
            r"|different name)\b|\benp?\d+s\d+\w*\b[^.;\n]{0,40}(?:->|=>|became|to|now|instead of"
            r"|is) (?:now )?enp?\d+s\d+",
        ),
        "A network interface has another name, which follows from its address.", {"bdf-renumbered": 3.5},
        "systemd.net-naming-scheme(7); systemd/systemd#2811",
    ),
    said(
        "wrong-device-given",
        (
            r"\b(?:wrong|another|different|other) (?:pci(?:e)? )?(?:device|card|controller|disk|nic"
            r"|gpu)\b[^.;\n]{0,60}\b(?:passed|passed through|given|assigned|attached|taken|in the (?:vm|guest)"
            r"|bound)\b|\b(?:passes|passed|gives|assigns|took|takes) (?:through )?(?:the )?wrong\b",
        ),
        "The guest gets another device than was meant.", {"bdf-renumbered": 3, "identical-ids": 2},
        "QubesOS/qubes-issues#7792",
    ),
    said(
        "firmware-renumbered",
        (
            rf"{UPDATE}{GAP}{BIOS}|{BIOS}{GAP}{UPDATE}|\bafter (?:a |the )?(?:bios|uefi|firmware)\b",
            rf"{_ADDRESS}{GAP}{CHANGED}|{CHANGED}{GAP}{_ADDRESS}",
        ),
        "A firmware update gave the devices other addresses.", {"bdf-renumbered": 3}, "systemd/systemd#33347",
    ),
    said(
        "no-such-device",
        (
            r"\bno (?:such )?pci device(?: info)?\b|\bpci device \S+ (?:does(?:n't| not) exist|not found)\b"
            r"|\bno device (?:at|with) (?:that|this) address\b",
        ),
        "At the configured address there is no device.", {"bdf-renumbered": 2, "sriov-setup": 1, "power-state": 0.5},
        "pve-common SysFSTools.pm",
    ),
    # -- alike devices -----------------------------------------------------------------------
    said(
        "identical",
        (
            r"\b(?:identical|same) (?:vendor|device|pci|hardware|model|product|ids?|vendor:device"
            r"|vendor and device|card|gpu|nic|hba|controller|graphics|nvme|ssd)\w*(?: ?(?:/|:|and) ?\w+)?(?: ids?"
            r"| model| cards?| gpus?)?\b"
            r"|\b(?:two|2|both|three|3|four|4|pair of)\b(?: of)?(?: the)?(?: exact(?:ly)?)? (?:same|identical"
            r"|equal|alike)\b|\bsame (?:pci |vendor(?:/|:| )?device |device |hardware )?ids?\b"
            r"|\bidentical (?:\w+ ){0,2}(?:gpus?|cards?|nics?|nvmes?|controllers?|devices?|disks?|ssds?)\b",
        ),
        "Several devices of the host have the same vendor and device numbers.", {"identical-ids": 3.5},
        "HikariKnight/quickpassthrough#10; truenas/middleware#11397; kernel: drivers/vfio/pci/vfio_pci.c, ids",
        none_of=(
            r"\bsame (?:device|card|gpu) (?:works?|worked)\b",
            r"\bidentical (?:setup|config\w*|host|server|machine|hardware)\b",
        ),
    ),
    said(
        "both-taken",
        (
            rf"\bboth (?:(?:of )?(?:the|my|them)\s?)?(?:\w+ )?(?:{CARD}|ports?|are|get|were|go|disappear|vanish"
            r"|bind|bound|grab)|\ball (?:of )?(?:the |my )?(?:\w+ )?(?:gpus|cards|nics|nvmes|controllers"
            r"|devices)\b",
            rf"{_LOSES}|\bvfio-pci\b|\bbound\b|\btaken\b|\bgrabb?\w*\b|\bclaim\w*\b|\bisolated\b",
        ),
        "Binding took more than the one device that was meant.", {"identical-ids": 2.5},
        "truenas/middleware#11397; kernel: drivers/vfio/pci/vfio_pci.c, ids", none_of=(GROUP,),
    ),
    # -- the host's drivers ------------------------------------------------------------------
    said(
        "driver-holds",
        (
            rf"{_DRIVER}{GAP}{_HOLDS}{GAP}(?:{CARD}|{GPU})|(?:{CARD}|{GPU}){GAP}{_HOLDS}{GAP}{_DRIVER}"
            r"|\bkernel driver in use: (?!vfio)",
        ),
        "A driver of the host still has the device.", {"host-driver-busy": 3}, "lspci(8); kernel: drivers/vfio/pci",
        none_of=(GROUP, r"\bbound to vfio", r"\bin the (?:guest|vm)\b[^.;\n]{0,30}\bdriver"),
    ),
    said(
        "daemon-holds",
        (
            rf"{_DAEMON}{GAP}{_HOLDS}{GAP}(?:{CARD}|{GPU}|/dev/nvidia\w*|/dev/dri)|(?:{CARD}|{GPU}|/dev/nvidia\w*"
            rf"|/dev/dri\S*){GAP}{_HOLDS}{GAP}{_DAEMON}|\b(?:stopping|killing"
            rf"|disabling) (?:the )?{_DAEMON}{GAP}\b(?:helps?|fix\w*|works?|solv\w+)|\b(?:had|have|needed|need"
            rf"|must|forgot\w*)(?: to)?:? (?:stop|kill|close|disable|quit)\w*{GAP}{_DAEMON}|\b(?:has|have|had"
            rf"|keeps?|holding|with) (?:the |an? )?(?:{CARD}|{GPU}|nvidia card|/dev/nvidia\w*) open\b"
            r"|\b(?:it )?was (?:the )?nvidia-persistenced\b",
        ),
        "A program of the host has the device open.", {"host-driver-busy": 4},
        "chironjit/single-gpu-passthrough#2; QaidVoid/Complete-Single-GPU-Passthrough#9",
    ),
    said(
        "module-in-use",
        (
            r"\bmodule \w+ is in use\b|\b(?:rmmod|modprobe -r|unload\w*|unbind\w*|detach\w*|nodedev-detach"
            r"|driver unbind)\b[^.;\n]{0,80}\b(?:hangs?|hung|in use|busy|fail\w*|blocks?|never returns|stuck"
            r"|freez\w*|crash\w*|oops)\b|\b(?:hangs?|hung|stuck|freez\w*|fail\w*) (?:when|while|at|on"
            r"|during) (?:unbind|unload|detach|releas)\w*",
        ),
        "The host's driver does not let go of the device.", {"host-driver-busy": 3.5, "kernel-regression": 0.5},
        "QaidVoid/Complete-Single-GPU-Passthrough#9; chironjit/single-gpu-passthrough#2",
    ),
    said(
        "busy",
        (
            rf"\b(?:device|resource|group|card|gpu)\b{GAP}\b(?:busy|in use|already (?:in use|used|opened"
            r"|assigned))\b|\bstill (?:active|in use|used|running|bound|loaded|attached|enabled) (?:in|on|by|to"
            r"|for) (?:the |my )?host\b|\bnon-?zero usage count\b",
        ),
        "Something has the device already.", {"host-driver-busy": 2.5, "group-shared-host-device": 0.5},
        "kernel: drivers/vfio/group.c", none_of=(r"\bby (?:another |other |vmid |vm )(?:vm|guest|\d+)\b",),
    ),
    said(
        "used-by-other-guest",
        (
            r"\b(?:in use|used|assigned|taken|attached|already) (?:already )?(?:by|to) (?:another|other|a second"
            r"|a different|vmid|vm|two) ?(?:vms?|guests?|'?\d+'?)?\b|\b(?:two|both|several) (?:vms"
            r"|guests)\b[^.;\n]{0,40}\bsame (?:device|card|gpu|disk)\b",
        ),
        "Two guests have the same device.", {"bad-vm-config": 3}, "qemu-server: PCI.pm, reserve_pci_usage",
    ),
    said(
        "driver-loads-first",
        (
            rf"{_DRIVER}{GAP}\b(?:loads? (?:first|before|early|anyway)|still (?:loads?|gets loaded|binds?|grabs?"
            r"|takes over)|before vfio(?:-pci)?|instead of vfio(?:-pci)?|binds? (?:first|before)|(?:takes?"
            r"|claims?|grabs?) (?:it|the (?:card|gpu|device)) (?:first|at boot|before))\b"
            rf"|\bvfio-pci\b{GAP}\b(?:{NOT} (?:bind|claim|get|take|load)|does(?:n't| not) (?:bind|claim|take))\w*",
        ),
        "The host's driver is quicker than vfio-pci.", {"host-driver-busy": 2.5, "bad-modprobe": 2.5},
        "modprobe.d(5), softdep", none_of=(r"\b(?:bios|uefi) (?:update|upgrade)\b",),
    ),
    # -- the boot display --------------------------------------------------------------------
    said(
        "boot-display", (rf"{_BOOTFB}",), "The display that the firmware set up plays a part.",
        {"boot-framebuffer": 2.5}, "kernel: drivers/firmware/sysfb.c; joeknock90/Single-GPU-Passthrough",
        none_of=(r"\blooking glass\b|\bfbdev\b",),
    ),
    said(
        "boot-display-holds",
        (
            rf"{_BOOTFB}",
            rf"{_HOLDS}|\bcan(?:'t|not) reserve\b|\breserve\b|\bunbind\w*|\breleas\w+|\bbar \d\b|\bvideo=\w+:off\b"
            r"|\binitcall_blacklist\b|\b(?:disabl\w+|turn\w* off|switch\w* off)\b",
        ),
        "The boot display holds the card's memory.", {"boot-framebuffer": 3.5},
        "kernel: drivers/firmware/sysfb.c; drivers/vfio/pci/vfio_pci_core.c",
    ),
    said(
        "cannot-reserve", (r"\bcan(?:'t|not) reserve\b",), "The kernel cannot take the card's memory for VFIO.",
        {"boot-framebuffer": 3.5}, "kernel: drivers/pci/pci.c, __pci_request_region", follows=("vfio.*reserve*",),
    ),
    said(
        "only-card",
        (
            r"\b(?:single|only|sole|primary|boot|main|one)[ -](?:gpu|graphics card|vga|video card|display adapter"
            r"|card)\b|\b(?:gpu|card)\b[^.;\n]{0,30}\b(?:is|was|as|set as) (?:the )?(?:primary|only|boot|main"
            r"|console)\b|\bheadless (?:host|server)\b[^.;\n]{0,40}\bone gpu\b|\bhost(?:'s)? (?:console"
            r"|boot (?:screen|messages?|output)|login prompt)\b[^.;\n]{0,40}\b(?:on|shown|appears|freez\w+"
            r"|stuck)\b",
            rf"{DARK}|{NOT} {STARTING}|\breserve\b|{FREEZES}|\bcode 43\b|\berror 43\b",
        ),
        "The card is the one that the host started with.", {"boot-framebuffer": 2.5, "rom-invalid": 2},
        "QEMU and firmware leave the ROM of the first card shadowed: joeknock90/Single-GPU-Passthrough#5, #67",
        none_of=(r"\bsecond(?:ary)? (?:gpu|card)\b",),
    ),
    said(
        "dark-but-alive",
        (
            DARK,
            r"\b(?:rdp|ssh|ping\w*|vnc|parsec|moonlight|teamviewer|anydesk|remote(?: desktop)?|guest agent"
            rf"|network)\b{GAP}\b(?:works?|fine|ok|reachable|respond\w*|possible|reply|answers?|in)\b"
            rf"|\b(?:reachable|respond\w*|accessible|can (?:connect|log ?in|ping|ssh|rdp))\b{GAP}\b(?:rdp|ssh|ping"
            r"|vnc|network|remote\w*|agent)\b|\b(?:vm|guest) (?:itself )?(?:runs|is running|boots|is up|is alive"
            r"|is reachable)\b",
        ),
        "The guest runs, only the card's picture is missing.",
        {"rom-invalid": 1.5, "boot-framebuffer": 1.5, "guest-firmware": 1},
        "joeknock90/Single-GPU-Passthrough#67; knowledge/error43.py",
        follows=("said.second-start*", "said.amd-second-start*"),
    ),
)  # fmt: skip
