"""What a guest installs, for people and as published JSON (`format` 1)."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from ..printable import printable
from .data import FORMAT

if TYPE_CHECKING:
    from ...planning.inside import Card, Recipe


def data(made: Recipe) -> dict[str, Any]:
    from ...planning.inside import cloud_init, shell

    return {
        "format": FORMAT,
        "os": made.os,
        "use": made.use,
        "cards": [_card(card) for card in made.cards],
        "packages": list(made.packages),
        "dkms": made.dkms,
        "notes": list(made.notes),
        "checks": list(made.checks),
        "sources": list(made.sources),
        "shell": shell(made),
        "cloud_init": cloud_init(made),
    }


def _card(card: Card) -> dict[str, Any]:
    return {"id": card.id, "address": card.address or None, "name": printable(card.name) or None, "seen": card.seen}


def text(made: Recipe) -> None:
    """Packages, notes and checks, in a terminal of any width."""
    from .text import console

    out = console()
    out.print(f"Inside the guest ({made.os}, {made.use})", style="bold")
    for card in made.cards:
        out.print(f"  {card}{f' at {card.address}' if card.address else ''}")
    out.print("\nPackages of the distribution", style="bold")
    for name in made.packages:
        out.print(f"  {name}")
    if any("$kernel" in name for name in made.packages):
        out.print("  $kernel follows the guest's kernel (`uname -r`): the script finds it.", style="dim")
    out.print("\nNotes", style="bold")
    for note in made.notes:
        out.print(f"· {note}")
    out.print("\nAfterwards, in the guest", style="bold")
    for command in made.checks:
        out.print(f"  {command}")
    out.print("\nThe same as a script: --format shell; for a guest's first boot: --format cloud-init", style="dim")
