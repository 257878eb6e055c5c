"""How people call things: fragments of patterns that the rows share.

1. Every fragment is a group of its own and can stand anywhere in a pattern.
2. A fragment is a word of everyday use, in the forms that reports show; it means no cause by itself.
"""

from __future__ import annotations

GAP = r"(?:[^.;\n]|\.(?=\S)){0,60}?"
"""A few words of the same sentence; a dot inside of a word (a version, a file's name) ends none."""
WIDE = r"(?:[^.;\n]|\.(?=\S)){0,140}?"

NOT = (
    r"(?:(?:do|does|did|wo|would|ca|could|is|are|was|has|have)n'?t|(?:do|does|did|will|would|can|could|is|are|has"
    r"|have)"
    r" not|cannot|can't|never|no longer|not|(?:is|are|was) not able to|fails? to|failed to|failing to|refuses? to"
    r"|unable to|stop(?:s|ped) )"
)
VM = r"(?:\b(?:vms?|guests?|virtual machines?|windows(?: \d+)?|domain|instance|qubes?)\b)"
HOST = (
    r"(?:\b(?:host|hosts|node|server|proxmox|pve|hypervisor|whole (?:machine|system|pc|box)|physical machine"
    r"|nas)\b)"
)
CARD = (
    r"(?:\b(?:gpus?|cards?|graphics|igpu|apu|devices?|adapters?|controllers?|nics?|hbas?|nvmes?|ssds?|drives?"
    r"|disks?|functions?|accelerators?|tuners?)\b)"
)
GPU = r"(?:\b(?:d?gpus?|igpu|graphics(?: cards?)?|video cards?|vga|geforce|radeon|quadro|rtx|gtx|nvidia|arc)\b)"
AMD = (
    r"(?:\bradeon\b|\bvega\b|\bnavi\b|\bpolaris\b|\brdna ?[1-4]?\b|\bamdgpu\b|\bfirepro\b|\bamd (?:apu|i?gpu|card"
    r"|graphics)"
    r"|\brx ?-?(?:4[678]0|5[5-9]0|5[3-7]00|6[4-9][05]0|7[5-9]00|90[67]0)|\b[67]80m\b|\b8[04]60s\b|\bamd/ati\b"
    r"|\b1002:[0-9a-f]{4}\b|\brocm\b|\b(?:strix halo|phoenix|raphael|cezanne|renoir|rembrandt|hawk point)\b"
    r"|\bw[567][5-9]00\b)"
)
NVIDIA = r"(?:\bnvidia\b|\bgeforce\b|\b[rg]tx ?\d|\bgt ?\d{3,4}\b|\bquadro\b|\btesla\b|\b10de:[0-9a-f]{4}\b)"
IGD = (
    r"(?:\bigd\b|\bi?gpu of the cpu\b|\b(?:intel )?(?:u?hd|iris(?: xe)?) graphics\b|\bintel (?:i?gpu|integrated)"
    r"|\b(?:u?hd ?(?:graphics )?(?:5|6|7)\d0)\b|\bigpu\b)"
)
CODE_43 = r"(?:\b(?:error|code)[ :-]{0,2}\(?43\b|\b43 error\b)"
CODE_12 = r"(?:\b(?:error|code)[ :-]{0,2}\(?12\b)"
DARK = (
    r"(?:\b(?:black|blank|dark) ?(?:screen|display|monitor|picture)|\bno (?:picture|signal|video|display|image"
    r"|output|hdmi)\b"
    r"|\b(?:screen|display|monitor|output|hdmi)s? (?:just |only )?(?:stays?|stayed|remains?|remained|is|was|goes"
    r"|went|turns|turned) (?:completely |totally |just )?(?:black|blank|dark|off)\b|\b(?:stays?|stayed|remains?"
    r"|remained) (?:completely |totally )?(?:black|dark|blank)\b|\bnothing (?:is shown |appears "
    r"|shows (?:up )?)?on (?:the )?(?:screen|monitor|display)\b"
    r"|\b(?:screen|monitor) (?:never|does(?:n't| not)) (?:lights? up|wakes? up|turns? on|shows? anything))"
)
STARTING = (
    r"(?:\b(?:re-?)?(?:start(?:ed|ing|s)?|boot(?:ed|ing|s)?|launch(?:ed|ing|es)?|power(?:ed|ing)? on|turn(?:ed"
    r"|ing)? on|spin(?:ning)? up)\b)"
)
SECOND = (
    r"(?:\b(?:second|2nd|next|subsequent|further|later|every other|another) (?:(?:vm |guest )?(?:start|boot|run"
    r"|launch|attempt|time)s?)\b"
    r"|\bafter (?:a |the |any |every |each |one |i |first |its |that )*(?:(?:vm|guest|windows"
    r"|virtual machine)(?:'s)?(?: (?:is|was|has been))? )"
    r"(?:re-?boots?(?:ed)?|re-?starts?(?:ed)?|shut(?:s|ting)? ?down|shutdown|stop(?:s|ped)?|resets?|powered off"
    r"|power off|crash(?:ed|es)?)\b"
    r"|\bafter (?:re-?booting|re-?starting|shutting down|stopping|a (?:reboot|shutdown|restart) of) (?:the |my "
    r"|a )?(?:vm|guest|windows|virtual machine|it)\b"
    r"|\b(?:only )?works? (?:only |exactly |just )?(?:once|the first time|one time)\b|\bworked (?:only )?(?:once"
    r"|the first time)\b|\bonly (?:works?|starts?|boots?) (?:once|the first time|after a (?:fresh|cold|host))"
    r"|\b(?:the )?first (?:vm |guest )?(?:start|boot|run|launch)(?: after| of|) ?[^.;\n]{0,40}(?:works?|fine|ok"
    r"|good|succeeds?|perfect)"
    r"|\b(?:starts?|boots?|works?) (?:fine |well |ok |perfectly |correctly )?(?:on |at |the "
    r"|for )*(?:very )?first (?:start|boot|time|run)"
    r"|\b(?:start|boot|run)(?:ing|s)? (?:the vm |it |the guest |the machine |windows )?(?:a second time|twice"
    r"|again)\b|\b(?:re-?boot|re-?start|shut ?down|stop|reset)(?:/\w+)* of (?:the |my |a )?(?:vm|guest|windows)\b"
    r"|\b(?:starts?|boots?|started|booted|used) again\b|\bonce (?:the )?(?:vm|guest) (?:is|has been"
    r"|was) (?:shut ?down|stopped|rebooted|restarted)\b)"
)
POWER_CYCLE = (
    r"(?:\b(?:not|cannot|can't|won't|never|unable|unusable|impossible)\b[^.;\n]{0,60}\bwithout (?:an? "
    r"|the )?(?:full |complete |cold |host )?(?:power|re-?boot|re-?start)\w*|"
    r"\b(?:until|unless|without|before|needs?|requires?|requiring|have to|has to|had to|must|only|except|by"
    r"|then)[^.;\n]{0,50}?"
    r"(?:(?:re-?boot(?:ed|ing|s)?|re-?start(?:ed|ing|s)?|power(?:ed)?[ -]?(?:cycl\w+|off|down|ed)|cold boot"
    r"|shut ?down|reset(?:ting)?|pull(?:ing)? the plug|unplug\w*)"
    r"[^.;\n]{0,24}?\b(?:host|node|server|proxmox|pve|machine|pc|computer|system|box|hypervisor)\b"
    r"|\b(?:host|node|server|proxmox|pve|pc|computer|hypervisor|physical machine|whole machine)(?: machine"
    r"| system| pc| server)?(?: itself)?(?: (?:is|was|has been|gets))?(?: (?:fully|completely))?[ -]"
    r"(?:re-?boot(?:ed|s)?|re-?start(?:ed|s)?|power(?:ed)?[ -]?(?:cycl\w+|off|down)|shut ?down|cold boot|reset))"
    r"|\bonly an? (?:full |complete |cold |hard |host )?(?:re-?boot|re-?start|power)\b|\b(?:full |complete "
    r"|cold )(?:power[ -]?(?:cycle|off|down)|host (?:reboot|restart|power)\w*)|\bpower[ -]?cycl\w+\b)"
)
CHANGED = (
    r"(?:\b(?:changed|changes|change|shifted|shifts?|moved|renumbered|differ(?:s|ent)?|incremented|swapped|is now"
    r"|are now|became|become|no longer match\w*|does(?:n't| not) match|mismatch|not the same)\b)"
)
ADDED = (
    r"(?:\b(?:add(?:ed|ing)|install(?:ed|ing)|insert(?:ed|ing)|plug(?:ged|ging)(?: in)?|remov(?:ed|ing)"
    r"|swapp(?:ed|ing)|mov(?:ed|ing)|replac(?:ed|ing)|new)\b)"
)
HARDWARE = (
    r"(?:\b(?:nvme|ssds?|m\.2|drives?|cards?|gpus?|nics?|hbas?|adapters?|devices?|disks?|hardware|pcie? (?:card"
    r"|device)s?|mainboard|motherboard)\b)"
)
UPDATE = (
    r"(?:\b(?:(?:dist-?|full-?)?(?:upgrad|updat)(?:e|ed|ing|es)|mov(?:ed|ing) (?:from|to)|went from|switch(?:ed"
    r"|ing) to|newer|new|going (?:from|to)|jump(?:ed|ing)?|bump)\b)"
)
BIOS = r"(?:\b(?:bios|uefi|firmware|agesa|microcode)\b)"
KERNEL_VERSION = (
    r"(?:(?<![\d.])(?<!fx-)(?<!q35-)\b[4-7]\.\d{1,2}(?:\.\d+)?(?:[-.]\d+)?(?:-(?:pve|generic|bpo\d+-pve|lts"
    r"|zen\d*|arch\d*)\S*)?\b)"
)
GROUP = r"(?:\biommu[ _-]?groups?\b)"
FREEZES = (
    r"(?:\b(?:freez\w+|froze|frozen|hangs?|hung|lock(?:s|ed)(?: up)?|lock-?ups?|crash\w*|reboots? itself|dies"
    r"|died|unresponsive|panics?)\b)"
)
WORKS = (
    r"(?:\b(?:works?|worked|working|runs? fine|ran fine|is fine|was fine|are fine|were fine|starts? fine"
    r"|boots? fine|ok|good|no (?:problem|issue|trouble)s?)\b)"
)
