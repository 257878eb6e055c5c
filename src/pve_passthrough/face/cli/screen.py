"""display: whose picture the guest shows."""

from __future__ import annotations

import click

from ...errors import Exit
from .options import host_of, output_format


@click.command()
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest.")
@click.option("--rescue", is_flag=True, help="Bring the virtual display back instead.")
@click.option("--insist", is_flag=True, help="Without proof that somebody gets in (Parsec cannot be seen from here).")
@click.option("--at", multiple=True, metavar="ADDRESS", help="An IP address of the guest to ask; repeatable.")
@click.option("--yes", is_flag=True, help="Answer the ordinary question with yes.")
@output_format
@click.pass_context
def display(
    ctx: click.Context, vmid: int, rescue: bool, insist: bool, at: tuple[str, ...], yes: bool, form: str
) -> int:
    """Make the card the guest's only display, once SSH, RDP or Sunshine in the guest is seen to answer.

    Until then the virtual display stays: it is the way in when the card shows nothing. A running guest gets the change
    when it stops and starts.

    Exit: 0 done or nothing to do, 7 nobody answers.
    """
    from ... import app
    from ...app import screen
    from ..printable import printable
    from .changing import carry_out

    host = host_of(ctx)
    app.may_change(host)
    found = screen.with_rescue(host, vmid) if rescue else screen.card_only(host, vmid, insist=insist, at=at)
    for one in found.answers:
        state = one.error or "answers"
        click.echo(printable(f"{one.service} at {one.address} port {one.port}: {state}"), err=True)
    code = carry_out(host, found.plan, yes, form)
    if code == Exit.FINE and found.plan.changes and app.guest_runs(host, vmid):
        click.echo(f"Guest {vmid} runs: it takes effect when it has been stopped and started.", err=True)
    return code
