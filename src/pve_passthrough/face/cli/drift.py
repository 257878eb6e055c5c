"""reassign: a guest's configuration follows its cards."""

from __future__ import annotations

import click

from ...errors import Exit
from .options import host_of, output_format


@click.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]...")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest.")
@click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
@click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
@output_format
@click.pass_context
def reassign(
    ctx: click.Context, words: tuple[str, ...], vmid: int, accept: tuple[str, ...], yes: bool, form: str
) -> int:
    """Let the guest's entries, its mapping and the claims at boot follow cards that have moved.

    DEVICE says which card it is where nobody can tell them apart: its address, or OLD=NEW for one of several.

    Exit: 0 done or nothing to do, 5 reboot needed, 3 a card is nowhere, 7 refused.
    """
    from ... import app
    from ...app.drift import reassign as planned
    from ..printable import printable
    from .changing import carry_out

    host = host_of(ctx)
    app.may_change(host)
    found = planned(host, vmid, words, accept=accept)
    for old, new in found.moved:
        click.echo(printable(f"{old} → {new}"), err=True)
    for line in found.gone:
        click.echo(printable(f"{line} is nowhere on this machine; its entry stays"), err=True)
    if not found.plan.changes and not found.plan.identities:
        click.echo("Every device is where it was given. Nothing has to be changed.", err=True)
        return Exit.FINE
    return carry_out(host, found.plan, yes, form, remembering=True)
