"""BARs for people and as plain values: published JSON, versioned by `format`."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ...knowledge.windows import shown
from ..printable import printable
from .data import FORMAT, gaps

if TYPE_CHECKING:
    from rich.console import Console

    from ...app.bars import Inside, Looked
    from ...model.pci import Bar, Device

Values = dict[str, Any]


def looked_data(result: Looked, next_step: str) -> Values:
    return {
        "format": FORMAT,
        "host": result.facts.host,
        "devices": [_device_data(result, device) for device in result.devices],
        "guests": [_inside_data(one) for one in result.inside],
        "gaps": gaps(result.facts),
        "next": next_step,
    }


def _device_data(result: Looked, device: Device) -> Values:
    return {
        "address": str(device.address),
        "id": device.id,
        "name": device.name or None,
        "bars": None
        if device.bars is None
        else [
            {
                "index": bar.index,
                "kind": _kind(bar),
                "size": bar.size,
                "placed": bar.placed,
                "prefetchable": bar.prefetchable,
                "offered": list(bar.sizes),
                "at_boot": result.lasting.get((device.address, bar.index)),
            }
            for bar in device.bars
        ],
    }


def _inside_data(one: Inside) -> Values:
    return {
        "vmid": one.vm.vmid,
        "name": one.vm.name,
        "needs": one.need,
        "window": one.window.size,
        "address_bits": one.window.bits,
        "why": one.window.why,
        "fits": one.fits,
    }


def _kind(bar: Bar) -> str:
    if bar.index == 6:
        return "rom"
    return "io" if bar.io else "memory64" if bar.wide else "memory32"


_KINDS = {"rom": "ROM", "io": "I/O ports", "memory64": "64-bit memory", "memory32": "32-bit memory"}
_FITS = {True: ("fits", "green"), False: ("does not fit", "bold red"), None: ("unknown", "bold magenta")}


def looked(out: Console, result: Looked, next_step: str) -> None:
    """A table per function, a line or two per guest, then what to do next."""
    from rich.padding import Padding
    from rich.table import Table
    from rich.text import Text

    for device in result.devices:
        out.print(Text(printable(str(device)), style="bold"))
        if not device.bars:
            out.print("  no BARs" if device.bars is not None else "  its BARs could not be read")
            continue
        table = Table("BAR", "kind", "size now", "sizes offered", "at boot", box=None, pad_edge=False)
        for bar in device.bars:
            lasting = result.lasting.get((device.address, bar.index))
            now = Text(shown(bar.size)) if bar.placed else Text("no address", style="bold yellow")
            offered = _span(bar) if bar.sizes else "–"
            boot = shown(lasting) if lasting else "firmware's" if bar.sizes else "–"
            table.add_row(str(bar.index), _KINDS[_kind(bar)], now, offered, boot)
        out.print(Padding(table, (0, 0, 0, 2)))
    for one in result.inside:
        word, style = _FITS[one.fits]
        opened = "an unknown window" if one.window.size is None else f"a window of {shown(one.window.size)}"
        line = f"\nGuest {one.vm.vmid} ({one.vm.name}): its devices need {shown(one.need)}, it opens {opened}: "
        out.print(Text.assemble(printable(line, keep="\n"), (word, style)))
        out.print(Text(printable(f"  {one.window.why}"), style="dim"))
    if any(bar.sizes for device in result.devices for bar in device.bars or ()):
        out.print(Text("\nA guest sees the size that a BAR has on the host, and cannot change it.", style="dim"))
    if next_step:
        out.print(Text.assemble(("\n→ next: ", "bold cyan"), printable(next_step)))


def _span(bar: Bar) -> str:
    """`64 MiB – 32 GiB` when every step between is offered, else all of them."""
    steps = [size.bit_length() for size in bar.sizes]
    if len(steps) > 3 and steps == list(range(steps[0], steps[0] + len(steps))):
        return f"{shown(bar.sizes[0])} – {shown(bar.sizes[-1])}"
    return ", ".join(map(shown, bar.sizes))
