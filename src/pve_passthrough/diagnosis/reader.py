"""One material read in one go: what its lines show, what it is made of, and what a person says in it.

1. Bytes pass by once. The first `KEEP` of them are held to tell the parts apart; logs are only streamed.
2. Doubts are said, never raised: whatever cannot be understood is left aside.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from itertools import chain

from ..model.diagnosis import Kind, Observation
from ..model.value import dataclass
from .layout import blocks
from .lines import decode
from .parts import LOGS, Part, split, words_of
from .stream import read
from .versions import Version, named

KEEP = 1 << 22
"""Bytes of a listing, a configuration or a report that are held at once."""
LOG_KEEP = 1 << 16
"""Of a log so many are held: whether it is one from end to end shows at once."""

_SIDES: Mapping[Kind, str] = {Kind.GUEST_LOG: "guest", Kind.WINDOWS: "guest", Kind.TASK_LOG: "host"}


@dataclass(frozen=True, slots=True)
class Text:
    """What a material shows.

    kinds      what each part is, by name and lines; the material alone when it is of one piece
    said       the writer's own words
    listings   devices that it lists
    machines   lines by host name
    side       whose log it is
    parts      what it is made of; none of a long log
    """

    observations: tuple[Observation, ...]
    kinds: Mapping[str, Kind]
    said: str = ""
    listings: str = ""
    versions: tuple[Version, ...] = ()
    machines: tuple[tuple[str, int], ...] = ()
    side: str = ""
    parts: tuple[Part, ...] = ()


def read_text(name: str, kind: Kind, chunks: Iterable[bytes]) -> Text:
    """What a text of this kind shows."""
    held = bytearray()
    keep = LOG_KEEP if kind in LOGS else KEEP
    shown = read(blocks(_held(chunks, held, keep)), name, _SIDES.get(kind, ""))
    parts = parts_of(name, kind, bytes(held))
    if kind in LOGS and len(held) >= keep:
        parts = (Part(kind, 1, ()),)
    return Text(
        shown.observations,
        _named(name, kind, parts),
        "" if kind in LOGS else words_of(parts),
        "\n".join(part.text for part in parts if part.kind in (Kind.LSPCI, Kind.IOMMU_LISTING)),
        (*shown.versions, *_versions(parts, name)),
        shown.machines,
        shown.side,
        parts,
    )


def parts_of(name: str, kind: Kind, held: bytes) -> tuple[Part, ...]:
    """The parts of a text that is held, with encodings, mark-up and broken lines repaired."""
    lines: list[bytes] = []
    numbers: list[int] = []
    for block in blocks((held,)):
        lines += block.lines
        numbers += block.numbers
    return split(name, kind, [decode(line) for line in lines], numbers)


def _held(chunks: Iterable[bytes], held: bytearray, keep: int) -> Iterator[bytes]:
    for chunk in chunks:
        if len(held) < keep:
            held += chunk[: keep - len(held)]
        yield chunk


def _named(name: str, kind: Kind, parts: tuple[Part, ...]) -> Mapping[str, Kind]:
    if len(parts) == 1:
        return {name: parts[0].kind}
    shown = [part for part in parts if part.kind is not Kind.PROSE]
    return dict(
        chain(
            ((name, Kind.PROSE if len(shown) < len(parts) else kind),),
            ((f"{name}:{part.first}-{part.last}", part.kind) for part in shown),
        )
    )


def _versions(parts: tuple[Part, ...], name: str) -> Iterator[Version]:
    """Versions in what was pasted; in a person's own words they may be those of another machine."""
    for part in parts:
        if part.kind is Kind.PROSE and part.path in ("uname -r", "pveversion -v"):
            yield from named(part.text, name)
