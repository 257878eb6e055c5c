"""Words about what a guest shows: codes, dark screens, ROMs, firmware, windows for memory."""

from __future__ import annotations

from .row import said
from .vocabulary import AMD, BIOS, CODE_12, CODE_43, DARK, GAP, GPU, NOT, NVIDIA, SECOND, STARTING, VM, WIDE

_LAPTOP = (
    r"(?:\b(?:laptops?|notebooks?|mobile(?: gpu| card| workstation)?|optimus|max-q|muxless|muxed|thinkpads?"
    r"|razer blade|zenbook|zephyrus|legion|gtx ?\d{3,4}m|\d{3,4}m|[mt]x ?\d{3}|dell xps|precision \d{4}"
    r"|laptop gpu)\b)"
)
_ROM = (
    r"(?:\b(?:v?bios(?: file)?(?= of the card)|vbios|option[ -]rom|opt(?:ion)?rom|romfile|rom ?file|rom ?bar"
    r"|gpu rom|gpu bios|card'?s? rom|(?:pci )?expansion rom|\.rom\b|rom image|roms?|gop(?: driver| rom| image)?"
    r"|video bios)\b)"
)
_SEABIOS = r"(?:\b(?:seabios|bios: seabios|legacy bios|non-uefi (?:vm|guest)|i440fx (?:with|and) (?:sea)?bios)\b)"
_OVMF = r"(?:\b(?:ovmf|uefi (?:vm|guest|firmware|boot)|bios: ovmf|tianocore|edk2)\b)"
_BIG = (
    r"(?:\b(?:resizable bar|re-?size?able bar|re-?bar|large bars?|big bars?|huge bars?|64[- ]bit bars?"
    r"|bars? of \d+ ?g\w*|\d{2,3} ?gi?b? (?:of )?(?:vram|bar|hbm\w*|gpu memory|video memory)|above[ -]?4g(?:b"
    r"|ib)?(?: decod\w+)?|4g decod\w+|mmio(?: window| space| aperture| size| range| region)?|x-pcimmio64mb"
    r"|pci-?mmio64\w*|phys[-_ ]?bits|address width|64-bit (?:window|aperture|mmio)|pci hole|pci64)\b)"
)
_COMPUTE = (
    r"(?:\b(?:a100|h100|h200|h20|b200|b300|l40s?|a40|a6000|p40|p100|m40|v100|k80|mi\d{2,3}x?|tesla"
    r"|rtx (?:pro )?6000|instinct)\b)"
)
_HIDING = (
    r"(?:\b(?:kvm[= ]off|hidden(?:=1| state|: on)?|kvm hidden|hv[-_]vendor[-_]id|vendor[-_ ]id"
    r"|hide (?:the )?(?:hypervisor|kvm|vm)|-?hypervisor(?: (?:flag|bit))?|anti-?detect\w*|cpu ?id)\b)"
)
_FIXES = (
    r"(?:\b(?:helps?|helped|works?|worked|fix(?:es|ed)?|solv\w+|resolved|cures?|gone|goes away|went away"
    r"|disappear\w*)\b)"
)

ROWS = (
    # -- code 43 -----------------------------------------------------------------------------
    said(
        "laptop-43", (CODE_43,), "Drivers of mobile cards refuse to work in a machine without a battery.",
        {"laptop-battery": 4.5, "guest-detects-vm": 1},
        "knowledge/error43.py; jscinoz/optimus-vfio-docs#2, zhaodice/qemu-anti-detection#33", anywhere=(_LAPTOP,),
        none_of=(AMD + r"[^.;\n]{0,20}\b(?:apu|igpu|780m|680m)\b",),
    ),
    said(
        "battery",
        (
            r"\b(?:fake |virtual |simulated |acpi |emulated |no |missing |without (?:a )?)?batter(?:y|ies)\b"
            r"|\bssdt\d?\b|\bacpitable\b",
        ),
        "A battery plays a part.", {"laptop-battery": 3.5},
        "jscinoz/optimus-vfio-docs#2; zhaodice/qemu-anti-detection#33",
        none_of=(r"\b(?:cmos|raid|bbu|ups|cache|controller) batter", r"\bbattery[- ]backed\b"),
    ),
    said(
        "laptop-nvidia",
        (_LAPTOP, rf"{NVIDIA}", rf"\b(?:{NOT} (?:work|load|start|init\w*)|code 43|error 43|driver)\b|{DARK}"),
        "A mobile NVIDIA card in a guest.", {"laptop-battery": 1.5}, "jscinoz/optimus-vfio-docs",
    ),
    said(
        "code-43", (CODE_43,), "The guest's driver has stopped the device.",
        {"guest-detects-vm": 2, "rom-invalid": 1, "guest-firmware": 0.5, "reset-defective": 0.3},
        "knowledge/error43.py; Microsoft: device manager error codes",
        follows=(
            "said.laptop-43",
            "said.second-start",
            "said.amd-second-start",
            "said.amd-power-cycle",
            "said.seabios*",
            "said.code-43-*",
            "said.reset-bug*",
        ),
    ),
    said(
        "code-43-geforce", (CODE_43,), "GeForce drivers before 465 refuse a virtual machine.",
        {"guest-detects-vm": 2.5}, "knowledge/error43.py",
        anywhere=(
            r"\bgeforce\b|\bgt[xs]? ?\d{3,4}\b|\brtx ?20\d0\b|\b(?:nvidia|old|older) drivers?\b"
            r"|\bdriver (?:version )?(?:3\d\d|4[0-5]\d|46[0-4])\b",
        ),
        none_of=(_LAPTOP, SECOND, r"\bdriver (?:version )?(?:46[5-9]|4[7-9]\d|5\d\d|6\d\d)(?:\.\d+)?\b", _SEABIOS),
    ),
    said(
        "code-43-old-driver",
        (CODE_43, r"\bdrivers?(?: version| branch)?:? ?(?:is |was )?(?:3\d\d|4[0-5]\d|46[0-4])(?:\.\d+)?\b"),
        "The driver is older than the one that allows virtual machines.", {"guest-detects-vm": 3},
        "knowledge/error43.py",
    ),
    said(
        "code-43-arc",
        (
            r"\b(?:intel )?arc\b(?: a\d{3})?|\bdg2\b|\ba[3-7][1-8]0\b",
            rf"{CODE_43}|\bcode 31\b|\bdriver {NOT}|\be_nointerface\b",
        ),
        "Intel Arc's Windows driver is reported to refuse a virtual machine.", {"guest-detects-vm": 3.5},
        "knowledge/error43.py",
    ),
    said(
        "code-43-igd", (CODE_43,), "Integrated graphics in Windows need their ROM.",
        {"rom-invalid": 2, "igd-legacy": 1}, "knowledge/error43.py; isc30/ryzen-gpu-passthrough-proxmox#135",
        anywhere=(r"\b(?:igpu|igd|integrated|uhd|iris|apu|[67]80m|raphael|phoenix|vbios)\b",),
        none_of=(
            SECOND,
            r"\b(?:host|server|proxmox)\b[^.;\n]{0,40}\bigpu\b|\bigpu (?:for|is used by|drives"
            r"|stays with) the host\b",
            _LAPTOP,
        ),
    ),
    said(
        "driver-detects",
        (
            r"\b(?:detect\w*|sees|notices|recogni[sz]es|refuses?|knows"
            r"|check\w*)\b[^.;\n]{0,60}\b(?:virtual machine|vm\b|virtuali[sz]\w+|hypervisor|kvm)\b"
            r"|\bvm detection\b",
        ),
        "The driver sees the hypervisor.", {"guest-detects-vm": 4}, "knowledge/error43.py",
        none_of=(r"\banti-?cheat\b", r"\b(?:iommu|vfio|kernel|group)\b[^.;\n]{0,20}\brefus"),
    ),
    said(
        "hiding-helps",
        (
            rf"{_HIDING}{WIDE}{_FIXES}|{_FIXES} (?:with|by|after|when){GAP}{_HIDING}|\b(?:without|missing|no"
            rf"|forgot\w*|not set) (?:the )?{_HIDING}",
        ),
        "With a hidden hypervisor the driver works.", {"guest-detects-vm": 4},
        "knowledge/error43.py; vagrant-libvirt/vagrant-libvirt#676",
        none_of=(
            rf"{_HIDING}[^.;\n]{{0,60}}\b(?:did(?:n't| not)|does(?:n't| not)|no) (?:help|work|effect|change"
            r"|difference|success)\b",
        ),
    ),
    # -- the guest's firmware and the ROM ------------------------------------------------------
    said(
        "seabios-dark",
        (_SEABIOS, rf"{DARK}|{CODE_43}|\buefi[ -]only\b|\bgop\b|{NOT} (?:init\w*|output|show|display)"),
        "A card of today under a BIOS of yesterday.", {"guest-firmware": 4},
        "knowledge/error43.py; PCI firmware specification, code types", none_of=(_BIG,),
    ),
    said(
        "uefi-only-rom",
        (
            r"\b(?:uefi|efi|gop)[ -]only\b|\bonly (?:an? |contains? (?:an? )?|has (?:an? )?)?(?:uefi|efi|gop"
            r"|legacy|bios)\b[^.;\n]{0,30}\b(?:rom|image|vbios|part|code)?|\b(?:no|without|lacks?|lacking|missing"
            r"|not have|doesn't have|not contain) (?:an? |any )?(?:uefi|efi|gop|legacy|x86"
            r"|bios)\b[^.;\n]{0,30}\b(?:rom|image|gop|support|vbios|part|driver)\b|\b(?:no|without"
            r"|lacks?) (?:an? |any )?gop\b|\b(?:vbios|rom"
            r"|card)\b[^.;\n]{0,40}\b(?:not uefi|non-uefi|(?:no|without) (?:uefi|gop))\b|\blegacy[- ]only\b"
            r"|\bold card\b[^.;\n]{0,30}\buefi\b",
            r"\b(?:rom|vbios|card|gpu|image|gop)\b",
        ),
        "The ROM speaks to one kind of firmware only.", {"guest-firmware": 3.5, "rom-invalid": 1},
        "PCI firmware specification, code types; knowledge/error43.py",
    ),
    said(
        "other-firmware-helps",
        (
            rf"(?:{_OVMF}|{_SEABIOS}|\bq35\b|\buefi\b|\bovmf\b){GAP}{_FIXES}{WIDE}\b(?:{_SEABIOS}|{_OVMF}|ovmf"
            rf"|uefi|bios)|\b{_FIXES} (?:with|under|in|on|when|after|if){GAP}(?:{_OVMF}|{_SEABIOS}|\bovmf\b"
            rf"|\buefi\b){WIDE}\b(?:but|not|while|whereas|{NOT}|instead)\b|\b(?:switch\w*|chang\w*|mov\w*"
            rf"|convert\w*|reinstall\w*)\b{GAP}(?:to |from ){GAP}(?:{_OVMF}|{_SEABIOS}|\bovmf\b|\buefi\b"
            rf"|\bseabios\b){GAP}{_FIXES}",
        ),
        "With the other firmware of guests it works.", {"guest-firmware": 4.5}, "knowledge/error43.py",
        none_of=(rf"{BIOS} (?:update|upgrade|version)\b",),
    ),
    said(
        "no-boot-logo",
        (
            r"\b(?:boot ?logo|boot screen|uefi screen|firmware screen|bios screen|proxmox logo|tianocore logo"
            r"|boot messages?|setup screen)\b[^.;\n]{0,60}\b(?:not|never|no|missing|only after|until)\b"
            r"|\b(?:picture|screen|output|image) (?:only )?(?:appears?|comes?"
            r"|shows?)[^.;\n]{0,20}\b(?:only )?(?:after|when|once) (?:windows|the driver|the os)\b",
        ),
        "The card shows nothing before its driver runs.", {"guest-firmware": 2, "rom-invalid": 2},
        "Zile995/PinnacleRidge-Polaris-GPU-Passthrough#1",
    ),
    said(
        "rom-bad",
        (
            rf"{_ROM}{WIDE}\b(?:invalid|corrupt\w*|broken|missing|absent|shadow\w*|truncated|wrong|bad|garbage"
            rf"|damaged|unreadable|empty|cannot be read|can't be read|{NOT} (?:read|dump\w*|load\w*|be (?:read"
            r"|dumped|loaded|found)|match|fit)|checksum|signature|0xaa55|all (?:zeros?|ff)|other card"
            r"|another card|different card|nvflash header|header)\b|\b(?:invalid|corrupt\w*|broken|missing|wrong"
            rf"|bad|damaged|no) (?:\w+ ){{0,2}}?{_ROM}",
        ),
        "The option ROM is not what it should be.", {"rom-invalid": 3.5},
        "kernel: drivers/pci/rom.c; QEMU: hw/vfio/pci.c, vfio_pci_load_rom",
        none_of=(
            r"\bno (?:\w+ )?(?:vbios|rom)\w* (?:is )?(?:needed|required|necessary)\b",
            _SEABIOS,
            r"\b(?:cd|dvd)-?rom\b",
            r"\buefi[ -]only\b",
        ),
    ),
    said(
        "rom-helps",
        (
            rf"{_ROM}{WIDE}{_FIXES}|{_FIXES}{GAP}\b(?:with|after|by|once|when|using|supply\w+|giv\w+|add\w+"
            rf"|provid\w+){GAP}{_ROM}|\b(?:needs?|requires?|required|needed|must have|without)\b{GAP}{_ROM}",
        ),
        "With a ROM file it works.", {"rom-invalid": 3.5},
        "isc30/ryzen-gpu-passthrough-proxmox#135; Zile995/PinnacleRidge-Polaris-GPU-Passthrough#1",
        none_of=(
            rf"{_ROM}[^.;\n]{{0,60}}\b(?:did(?:n't| not)|does(?:n't| not)|no) (?:help|work|effect|change"
            r"|difference)\b",
            r"\b(?:cd|dvd)-?rom\b",
            r"\bwithout (?:an? )?(?:uefi|gop)\b",
            r"\b(?:no|not) (?:\w+ ){0,2}(?:rom\w*|vbios) (?:is )?(?:needed|required)\b",
        ),
    ),
    said(
        "dark-guest", (DARK, rf"{VM}|{STARTING}|{GPU}|\bpassthrough\b"), "The card shows no picture.",
        {"rom-invalid": 1.2, "boot-framebuffer": 1, "guest-firmware": 1, "amd-reset-bug": 0.3},
        "many causes: joeknock90/Single-GPU-Passthrough#67, #19",
        follows=(
            "said.second-start",
            "said.amd-second-start",
            "said.amd-power-cycle",
            "said.seabios-dark",
            "said.only-card",
            "said.dark-but-alive",
            "said.boot-display-holds",
            "said.igd*",
            "said.rom-*",
            "said.kernel-*",
            "said.not-enough*",
        ),
    ),
    # -- memory windows ----------------------------------------------------------------------
    said(
        "code-12", (rf"{CODE_12}|\b(?:not|cannot find) (?:find )?enough (?:free )?resources\b",),
        "The guest has no room for the device's memory.", {"guest-address-space": 4.5},
        "Microsoft: device manager error codes; knowledge/windows.py",
    ),
    said(
        "bars",
        (
            _BIG,
            rf"\b(?:{NOT} (?:fit|enough|assign\w*|map\w*|be (?:mapped|assigned|placed)|work\w*|start\w*|boot\w*"
            r"|init\w*)|too (?:small|large|big|little)|not assigned|unassigned|no space|no room|fail\w*|limit\w*"
            r"|exceed\w*|beyond|hang\w*|stuck|slow\w*|minutes|forever|invalid|0m\b|enlarg\w*|increas\w*|larger"
            rf"|missing|ignored|insufficient|out of)\b|{_FIXES}",
        ),
        "The room for large memory windows plays a part.", {"guest-address-space": 3.5},
        "edk2: OvmfPkg PlatformInitLib; kubevirt/kubevirt#11093, tianocore/edk2#10856",
        none_of=(
            r"\bsr-?iov\b|\bvfs?\b|\bvirtual functions?\b",
            r"\bre-?size?able bar\b[^.;\n]{0,40}\b(?:in|from) (?:the )?bios\b[^.;\n]{0,60}\b(?:host|boot)",
            r"\b(?:disabl\w+|turn\w* off|switch\w* off|without) (?:resizable bar|re-?bar"
            r"|above 4g)\b[^.;\n]{0,50}\b(?:helps?|fix\w*|works?|solv\w*)",
        ),
    ),
    said(
        "bar-zero",
        (
            r"\bunassigned (?:\w+ )?bars?\b|\bbar ?\d?\b[^.;\n]{0,30}\b(?:is )?(?:0m|0 ?mb?|unassigned"
            r"|not assigned|zero|empty|missing|ignored"
            r"|disabled|invalid|virtual)\b|\bcan(?:'t|not) assign\b|\bfailed to assign\b|\bbars? (?:without"
            r"|with no) (?:an )?address\b",
        ),
        "A memory window has no address in the guest.", {"guest-address-space": 3.5}, "kubevirt/kubevirt#11093",
        none_of=(r"\bsr-?iov\b|\bvfs?\b",),
    ),
    said(
        "big-card-slow",
        (
            _COMPUTE + r"|\b(?:[2-9]\d|1\d\d) ?gi?b (?:of )?(?:vram|hbm\w*|gpu memory|cards?|gpus?)\b|" + _BIG,
            r"\b(?:slow\w*|minutes|long time|takes (?:ages|forever|long|\d+)|hours?)\b",
            rf"{STARTING}|{VM}|\bpost\b|\bfirmware\b|\bovmf\b",
        ),
        "Guests with very large cards start slowly.", {"guest-address-space": 3, "memory-pinning": 1},
        "tianocore/edk2#10856",
    ),
    said(
        "card-count-limit",
        (
            r"\b(?:one|two|three|1|2|3|4|fewer|single)\b[^.;\n]{0,20}\b(?:gpus?"
            rf"|cards?)\b[^.;\n]{{0,30}}\b{_FIXES}[^.;\n]{{0,80}}\b(?:more|second|third|fourth|two|three|four"
            rf"|eight|all|8|4)\b[^.;\n]{{0,60}}\b(?:{NOT}|fail\w*|hang\w*|stuck|missing|only)\b",
            rf"\b(?:gpus?|cards?|{_COMPUTE})\b",
        ),
        "With fewer cards it works: the room for their memory is used up.", {"guest-address-space": 3},
        "edk2: OvmfPkg PlatformInitLib; yunionio/cloudpods#25408",
    ),
)  # fmt: skip
