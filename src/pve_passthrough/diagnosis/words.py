"""A person's own words: prose, and keys with values, as observations.

1. Words are evidence of less weight than logs; see `knowledge.complaints`.
2. Text is looked at up to `LIMIT` characters; whatever stands further back in a report is searched for log lines only.
   Pasted lines of logs and files are no words of a person: they are left to the catalogue.
3. What is denied does not count as said: "no error 43 any more", `error 43: no`.
4. A row's words stand within `REACH` of each other in one text; its conditions may come from any of the texts.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from functools import cache

from ..knowledge.complaints import COMPLAINTS, Complaint
from ..model.diagnosis import Observation, Point

LIMIT = 1 << 15
DEPTH = 6
REACH = 400
"""Characters in which all words of a row stand: two or three sentences."""
MOST = 40
"""Places of one pattern in one text that are looked at."""
SHORT = 2000
"""Characters of a text in which one little word makes a line a sentence."""
SENTENCE = 4
"""Words of the shortest sentence."""

_LITTLE = frozenset((
    "the", "a", "an", "is", "are", "was", "were", "and", "but", "i", "i'm", "i've", "my", "it", "its", "it's", "when",
    "after", "since", "does", "doesn't", "do", "not", "with", "can", "can't", "this", "that", "then", "there", "no",
    "if", "only", "still", "works", "work", "before", "until", "have", "has", "had",
))  # fmt: skip
_COMMENTS = ("#", "//", ";", "/*", "%", "--", "<!--")

_PASTED = re.compile(
    r"^\s*(?:\[\s*\d+\.\d+\]|<\d+>|[a-z]{3} [ \d]\d \d\d:\d\d:\d\d |\d{4}-\d\d-\d\d[t ]\d\d:\d\d|kvm: |qemu-system"
    r"|task error|hostpci\d+: |(?:pci|pcieport|vfio-pci|nvidia|amdgpu|i915) 0000:|options |softdep |blacklist "
    r"|(?:dmar|amd-vi|nvrm|vfio|iommu)[:\]] |(?:0000:)?[0-9a-f]{2}:[01][0-9a-f]\.\d |grub_cmdline|iommu group \d+"
    r"|\tkernel |\s+(?:subsystem|kernel (?:driver|modules)|region|capabilities): )",
    re.I,
)
_CITED = re.compile(r'(?<!\()"[^"\n]{24,400}"')
"""What a person cites is a program's word, which the catalogue knows; the title of a change stands in brackets."""
_KEY = re.compile(r"^\s*[a-z]\w{0,40}: ", re.I)
_FILLER = (
    r"(?:(?:an?|the|any|single|such|more|longer|further|get|gets|getting|got|see|sees|seeing|seen|have|has|having|had"
    r"|been|be|using|use|on|in|really|actually|my|this|that|problems? with|of|sign|trace|hint|because of|due to"
    r"|caused by|related to|about|possible|show|shows|showing|showed|shown|saw|with) )"
)
_DENIED_BEFORE = re.compile(
    r"\b(?:no|not|isn'?t|aren'?t|wasn'?t|weren'?t|don'?t|doesn'?t|didn'?t|without|never|neither|nor|no longer"
    rf"|ruled out|rather than|instead of|unlike|free of)[ ,]+{_FILLER}{{0,4}}$"
)
_DENIED_AFTER = re.compile(
    r" ?(?:is|are|was|were|has|have|does|do|did)?(?: been| now| also)? ?(?:gone|disappeared|went away|ruled out"
    r"|excluded|no longer (?:there|present|the case|appear\w*|shows?|happen\w*|occurs?|an? (?:issue|problem))"
    r"|not the (?:case|problem|cause|issue|reason)|(?:not|n'?t) (?:happen|occur|appear|apply))\b"
)
"""What takes a symptom back."""
_STATED_NO = re.compile(r"[\w ()/.-]{0,30}: *(?:no|none|false|never|not set|n/a|nothing)\s*(?:[,;.\n]|$)")
_SYMPTOM = re.compile(
    r"\b(?:errors?|codes?|problems?|issues?|bugs?|messages?|warnings?|fail\w*|crash\w*|freez\w*|hangs?|black|dark|blank"
    r"|lines?)\b"
)
_VERB = re.compile(r"(?:re-?)?(?:start|boot|launch|power|turn|spin|use)")
"""What follows "does not" is the trouble itself."""
_NEGATIVE = re.compile(r"\b(?:no|not|never|cannot|without|fails?|failed|unable|missing|lacks?)\b|n't\b")


def complaints(text: str, source: str) -> tuple[Observation, ...]:
    """What the words of one text say, once per row."""
    return heard(((source, text),))


def heard(texts: Sequence[tuple[str, str]], around: str = "") -> tuple[Observation, ...]:
    """What the words say, once per row. `texts`: source and words; `around`: more text, for conditions only."""
    voices = [_Voice(source, words) for source, text in texts if _enough(words := plain(text))]
    if not voices:
        return ()
    scene = [*voices, _Voice("", plain(around))] if around else voices
    noticed = (_noticed(row, voices, scene) for row in COMPLAINTS)
    return tuple(one for one in noticed if one is not None)


def plain(text: str) -> str:
    """Words in lower case, a paragraph to a line, without pasted lines of logs."""
    text = _CITED.sub(" ", text[:LIMIT].replace("\u2019", "'").replace("\u00b4", "'"))
    lines = text.splitlines()
    kept = [_KEY.sub(_spaced, line) for line in lines if len(lines) == 1 or not _PASTED.match(line)]
    paragraphs = re.split(r"\n\s*\n", "\n".join(kept))
    return "\n".join(" ".join(paragraph.split()) for paragraph in paragraphs).lower()


def talk(text: str) -> str:
    """What a person may have written in a text of any kind: its sentences, without comments, code and listings.

    Mails break a sentence into lines: a line of words beside a sentence belongs to it.
    """
    wanted = 1 if len(text) <= SHORT else 2
    lines = text[:LIMIT].splitlines()
    sure = [_is_sentence(line, wanted) for line in lines]
    beside = [any(sure[max(0, number - 1) : number + 2]) for number in range(len(lines))]
    kept = zip(lines, sure, beside, strict=True)
    return "\n".join(line for line, said, near in kept if not line.strip() or said or (near and _is_wordy(line)))


def _is_sentence(line: str, wanted: int) -> bool:
    """Words of a language, tied together by its little words."""
    tokens = line.lower().split()
    return len(tokens) >= SENTENCE and _is_wordy(line) and len(_LITTLE.intersection(tokens)) >= wanted


def _is_wordy(line: str) -> bool:
    """Mostly words, and neither a comment nor a pasted line."""
    tokens = line.lower().split()
    letters = sum(token.strip(".,:;!?()'\"*`-").replace("'", "").replace("-", "").isalpha() for token in tokens)
    return 2 * letters >= len(tokens) and not line.lstrip().startswith(_COMMENTS) and not _PASTED.match(line)


def _spaced(key: re.Match[str]) -> str:
    """`last_good_kernel:` in plain words."""
    return key[0].replace("_", " ")


def statements(text: str) -> dict[str, object]:
    """Keys and values of a JSON object; empty for anything else."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return {}
    return value if isinstance(value, dict) else {}


def spoken(stated: Mapping[str, object]) -> str:
    """Statements as plain words, so that the rows for prose fit them too: `root: ZFS`, a paragraph each."""
    return "\n\n".join(_flatten(stated, "", 0))


def _flatten(value: object, name: str, depth: int) -> Iterator[str]:
    if depth > DEPTH:
        return
    if isinstance(value, Mapping):
        for key, inner in value.items():
            yield from _flatten(inner, str(key), depth + 1)
    elif isinstance(value, list):
        for inner in value:
            yield from _flatten(inner, name, depth + 1)
    elif value is not None:
        said = {True: "yes", False: "no"}[value] if isinstance(value, bool) else value
        yield f"{name.replace('_', ' ')}: {said}"[:2000]


def _enough(words: str) -> bool:
    """Values of files and bare numbers are no speech."""
    return len(words) > 2 and any(letter.isalpha() for letter in words) and " " in words


_GRAPHICS = re.compile(r"^.*(?:vga compatible|3d controller|display controller).*$", re.I | re.M)
_MAKERS = ("nvidia", "amd/ati", "intel")


def cards(listing: str) -> str:
    """The graphics of a listing of devices, when one maker made them all: which card is meant is plain then."""
    lines = _GRAPHICS.findall(listing)
    makers = {maker for maker in _MAKERS for line in lines if maker in line.lower()}
    return "\n\n".join(lines) if len(makers) == 1 else ""


# -- one text ------------------------------------------------------------------------------------


class _Voice:
    """One text, and where each pattern was found in it."""

    def __init__(self, source: str, words: str) -> None:
        self.source = source
        self.words = words
        self._places: dict[str, list[re.Match[str]]] = {}

    def places(self, pattern: str) -> list[re.Match[str]]:
        """Where it was said, and not denied."""
        if pattern not in self._places:
            found = []
            for match in _compiled(pattern).finditer(self.words):
                if match[0] and not self._denied(match):
                    found.append(match)
                if len(found) >= MOST:
                    break
            self._places[pattern] = found
        return self._places[pattern]

    def together(self, patterns: Sequence[str]) -> list[re.Match[str]]:
        """A place of each pattern, all of them near the first one's; empty when there is none."""
        if not all(self.places(pattern) for pattern in patterns):
            return []
        for start in self.places(patterns[0]):
            near = [min(self.places(pattern), key=lambda one: _apart(start, one)) for pattern in patterns[1:]]
            if all(_apart(start, one) <= REACH for one in near):
                return [start, *near]
        return []

    def _denied(self, match: re.Match[str]) -> bool:
        before = self.words[max(0, match.start() - 60) : match.start()]
        if _DENIED_BEFORE.search(before) and not before.endswith("not only ") and not _VERB.match(match[0]):
            return True
        if _NEGATIVE.search(match[0]):
            return False
        taken_back = _SYMPTOM.search(match[0]) and _DENIED_AFTER.match(self.words, match.end())
        return bool(taken_back or _STATED_NO.match(self.words, match.end()))


@cache
def _compiled(pattern: str) -> re.Pattern[str]:
    return re.compile(pattern)


def _apart(one: re.Match[str], other: re.Match[str]) -> int:
    return max(0, max(one.start(), other.start()) - min(one.end(), other.end()))


def _noticed(row: Complaint, voices: Sequence[_Voice], scene: Sequence[_Voice]) -> Observation | None:
    for voice in voices:
        hits = voice.together(row.all_of)
        if not hits:
            continue
        if any(one.places(pattern) for pattern in row.none_of for one in voices):
            return None
        if not all(any(one.places(pattern) for one in scene) for pattern in row.anywhere):
            return None
        words = " … ".join(dict.fromkeys(hit[0].strip() for hit in hits))
        points = tuple(Point(*point) for point in row.points)
        return Observation(row.id, row.says, voice.source, words[:200], points, follows=row.follows)
    return None
