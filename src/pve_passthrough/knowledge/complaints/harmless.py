"""Words of people whose device works, and of tools that refuse without need."""

from __future__ import annotations

from .row import said
from .vocabulary import CODE_12, CODE_43, DARK, FREEZES, GAP, GROUP, NOT, VM, WIDE

_ALARM = (
    r"(?:\b(?:warnings?|messages?|errors?|lines?|log(?:s|ged)?|dmesg|spam\w*|notices?|complain\w*|printed|says"
    r"|alarm\w*)\b)"
)
_THING = (
    r"(?:\b(?:pass-?through|it|everything|all|gpu|card|device|vm|guest|nic|disk|controller|transcoding|driver"
    r"|games?|setup|system|that|passthrough itself|otherwise)\b)"
)
_TROUBLE = (
    rf"{DARK}|{CODE_43}|{CODE_12}|\b(?:host|vm|guest|server|windows|gpu|card|it) (?:\w+ )?{FREEZES}|\b(?:vm|guest"
    rf"|gpu|card|it|passthrough|windows|device) (?:\w+ )?{NOT} (?:work|start|boot|show|come|init|detect|be|use"
    r"|load)"
    r"|\b(?:start|task) failed\b|\bexited with code\b|\bworks? (?:only )?(?:once|the first time)\b|\b(?:second"
    r"|next) (?:start|boot)\b|\buntil\b|\bregression\b"
)

ROWS = (
    said(
        "works",
        (
            r"\b(?:although|but|and|yet|though|while|still|however|even so|nevertheless|apart from that"
            rf"|otherwise)\b,? ?(?:the )?(?:\w+ )?{_THING} (?:itself |still |actually |all |does |just |now "
            r"|seems to |both )*(?:works?|worked|working|runs?|is (?:fine|working|ok|usable)|(?:is|are) working"
            r"|performs?)\b(?! (?:only|once|until|on|with|under|in|for a|again|as|before|after|when|if|at first"
            r"|initially|the first))|[,;:.?!-] ?(?:the )?(?:pass-?through|everything|it all)(?: is)?(?: itself"
            r"| still)? (?:works?|working)\b(?! (?:only|once|until|on|with|under|in|for))|\bdespite (?:this|that"
            rf"|the)\b[^.;\n]{0,60}\bworks?\b|\beverything (?:else )?(?:seems (?:to be )?|is |still "
            r"|appears to )?(?:works?|working|fine|ok|normal)\b|\bworks? (?:fine|perfectly|flawlessly|well"
            r"|without (?:any )?(?:problems?|issues?)|as expected|normally)\b(?! (?:on|with|under|in|until|before"
            r"|when|the first|at first|once|if|for|again))",
        ),
        "It works, whatever the log says.", {"no-fault": 3.5}, "the person's own words", none_of=(_TROUBLE,),
    ),
    said(
        "alarmed-only",
        (
            rf"{_ALARM}",
            r"\b(?:harmless|benign|cosmetic|ignor(?:e|ed|able)|safe|worr(?:y|ied|ying|isome)|concern\w*|normal"
            r"|expected|should i|is (?:this|that|it) (?:a|an|ok|normal|bad)|any (?:impact|effect|harm)"
            r"|without (?:any )?(?:effect|consequence|impact|visible)|no (?:visible|functional|real|actual"
            r"|apparent|noticeable|negative)? ?(?:impact|effect|consequences?|problems?|harm|symptoms?|issues?)"
            r"|what does (?:it|this) mean)\b",
        ),
        "Lines in a log worry the person, not the device.", {"no-fault": 3}, "the person's own words",
        none_of=(_TROUBLE,),
    ),
    said(
        "bridge-in-group",
        (
            rf"{GROUP}|\bgroup\b|\bmembers?\b",
            r"\b(?:pcieport|pci(?:e)?[ -](?:to[ -]pci )?bridges?|root ports?|host bridges?|upstream bridge"
            r"|bridges?|shpchp)\b",
            r"\b(?:refus\w*|reject\w*|complain\w*|claims?|says?|reports?|insist\w*|warn\w*|thinks?|declines?"
            r"|aborts?|must|all devices|not (?:isolated|viable|bound)|exclud\w*|only|because|bound to pcieport"
            r"|whole group)\b",
        ),
        "A bridge of the group stays with its port driver; that is as it should be.", {"no-fault": 3.5},
        "kernel: drivers/vfio/vfio.h and group.c: pcieport and bridges do not make a group unviable; "
        "lexi-src/sGPUpt#16",
        none_of=(
            rf"\b(?:vm|guest)\b[^.;\n]{{0,30}}\b{NOT} (?:start|boot)",
            FREEZES,
            r"\b(?:nic|sata|ethernet|audio|nvme|usb)\b[^.;\n]{0,40}\b(?:same|group)\b",
            r"\bacs\b",
        ),
    ),
    said(
        "tool-refuses",
        (
            r"\b(?:script|tool|checker|installer|helper|wizard|program|utility|guide)\b[^.;\n]{0,80}\b(?:refus\w*"
            r"|reject\w*|complain\w*|claims?|says?|reports?|insist\w*|warn\w*|thinks?|declines?|aborts?|flags?)\b",
            r"\bworks?\b|\bstart(?:s|ed)? fine\b|\bby hand\b|\bmanual\w*\b|\bnevertheless\b|\bthough\b"
            r"|\bpcieport\b",
        ),
        "A tool objects to what works.", {"no-fault": 2.5}, "HikariKnight/quickpassthrough#12", none_of=(_TROUBLE,),
    ),
    said(
        "no-trouble",
        (
            r"\bno (?:problems?|issues?|faults?|failures?|complaints?|errors?)\b(?: at all| whatsoever| so far"
            r"| with| in)?|\bnothing (?:is )?(?:wrong|broken|fails)\b|\b(?:symptom|problem|fault|failure"
            rf"|issue)s?: (?:none|no|nothing)\b|\bworks: (?:yes|true)\b|\b{VM} (?:starts|runs|boots) (?:fine"
            rf"|normally|without){WIDE}",
        ),
        "Nothing is said to fail.", {"no-fault": 2.5}, "the person's own words",
        none_of=(
            _TROUBLE,
            r"\bno (?:problems?|issues?|errors?) (?:on|with|under|in|before|until)\b",
            rf"{GAP}\b(?:fails?|broken|stopped|crash\w*)\b",
        ),
    ),
)  # fmt: skip
