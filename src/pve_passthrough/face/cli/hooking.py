"""hook: what Proxmox VE calls, through the guest's hookscript, around a start and a stop."""

from __future__ import annotations

import click

from ..printable import printable
from .options import host_of


@click.command(hidden=True)
@click.argument("vmid", type=click.IntRange(100, 999_999_999))
@click.argument("phase")
@click.pass_context
def hook(ctx: click.Context, vmid: int, phase: str) -> int:
    """As called by Proxmox VE for guest VMID in PHASE (pre-start, post-start, pre-stop, post-stop).

    Exit: 7 the start must not happen; anything else lets it go on.
    """
    from ...app.hooks import call

    return call(host_of(ctx), vmid, phase, lambda line: click.echo(printable(line), err=True))
