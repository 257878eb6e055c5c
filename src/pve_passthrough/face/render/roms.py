"""Option ROMs, as data and for people. The JSON is a contract: a field is added, never changed."""

from __future__ import annotations

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

from ...knowledge.rom_marks import named
from ...model.finding import Level
from ..printable import printable

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.roms import Dumped, Fixed, Report
    from ...model.rom import Image

FORMAT = 1

Values = dict[str, Any]


def report(one: Report) -> Values:
    return {
        "format": FORMAT,
        "file": one.name,
        "size": one.size,
        "sha256": one.sha256 or None,
        "form": one.rom.form.value,
        "images": [image(each) for each in one.rom.images],
        "prefix": one.rom.prefix,
        "trailer": one.rom.trailer,
        "uefi": one.rom.uefi,
        "device": None if one.wanted is None else f"{one.wanted[0]:04x}:{one.wanted[1]:04x}",
        "verdict": one.verdict.value,
        "problems": [
            {
                "problem": each.mark.name,
                "level": each.mark.level.value,
                "message": each.message,
                "source": each.mark.source,
                "hazard": each.mark.hazard,
            }
            for each in one.problems
        ],
    }


def image(one: Image) -> Values:
    return {
        "offset": one.offset,
        "length": one.length,
        "code_type": one.code_type,
        "kind": named(one),
        "vendor": f"{one.vendor:04x}",
        "device": f"{one.device:04x}",
        "devices": [f"{device:04x}" for device in one.devices],
        "class": f"{one.class_code:06x}",
        "revision": one.revision,
        "last": one.last,
        "complete": one.complete,
        "checksum": one.checksum,
        "efi": None
        if one.efi is None
        else {
            "valid": one.efi.valid,
            "subsystem": one.efi.subsystem,
            "machine": f"{one.efi.machine:04x}",
            "compressed": one.efi.compressed,
        },
    }


def fixed(one: Fixed) -> Values:
    return report(one.report) | {"removed_before": one.before, "removed_after": one.after}


def dumped(one: Dumped) -> Values:
    return report(one.report) | {"address": str(one.device.address), "source": one.source, "notes": list(one.notes)}


# -- for people ------------------------------------------------------------------------------------

_STYLES = {"usable": "bold green", "legacy-only": "bold yellow", "fixable": "bold yellow"}
_MARKS = {Level.BLOCKS: ("✗", "bold red"), Level.HARMS: ("!", "bold yellow"), Level.NOTE: ("·", "cyan")}


def show(out: Console, one: Report, next_step: str = "") -> None:
    """The verdict, the images as a table, then what is wrong."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    word = one.verdict.value
    out.print(
        Text.assemble(
            (f"{word.upper()}  ", _STYLES.get(word, "bold red")), printable(one.name), (f"  {one.size} bytes", "dim")
        )
    )
    if one.rom.images:
        table = Table(box=None, pad_edge=False, header_style="bold")
        for title in ("offset", "length", "kind", "for", "class", "last", "sum"):
            table.add_column(title, no_wrap=True)
        for each in one.rom.images:
            table.add_row(*_cells(each))
        out.print(Padding(table, (0, 0, 0, 2)))
    for problem in one.problems:
        mark, style = _MARKS[problem.mark.level]
        line = Table.grid(padding=0)
        line.add_column(width=2, no_wrap=True)
        line.add_column(ratio=1)
        line.add_row(
            Text(mark, style=style), Text.assemble(printable(problem.message), (f"  {problem.mark.name}", "dim"))
        )
        out.print(line)
    if next_step:
        out.print(Text.assemble(("→ next: ", "bold cyan"), printable(next_step)))


def _cells(one: Image) -> tuple[str, ...]:
    sums = {None: "–", True: "good", False: "bad"}
    more = f" +{len(one.devices)}" if one.devices else ""
    return (
        f"{one.offset:#x}",
        f"{one.length}" if one.complete else f"{one.length} (cut off)",
        named(one),
        f"{one.vendor:04x}:{one.device:04x}{more}",
        f"{one.class_code:06x}",
        "yes" if one.last else "no",
        sums[one.checksum],
    )


def table(out: Console, found: Iterable[Report]) -> None:
    """One row for each file."""
    from rich.table import Table

    shown = Table(box=None, pad_edge=False, header_style="bold")
    for title in ("file", "bytes", "images", "for", "UEFI", "verdict", "problems"):
        shown.add_column(title)
    for one in found:
        images = one.rom.images
        shown.add_row(
            printable(one.name),
            str(one.size),
            " + ".join(named(each) for each in images) or one.rom.form.value,
            " ".join(dict.fromkeys(f"{each.vendor:04x}:{each.device:04x}" for each in images)) or "–",
            "yes" if one.rom.uefi else "no",
            one.verdict.value,
            " ".join(problem.mark.name for problem in one.problems) or "–",
        )
    out.print(shown)
