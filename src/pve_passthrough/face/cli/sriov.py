"""sriov: virtual functions of a card: which there are, making them and taking them away, now and at every start."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import Exit
from ..printable import printable
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...host.base import Host
    from ...model.plan import Plan

_SWITCH = {"on": True, "off": False, None: None}
_pf = click.argument("word", metavar="PF")
_accept = click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")


@click.group()
def sriov() -> None:
    """Virtual functions (SR-IOV): one card for several guests. PF is the physical function that has them."""


@sriov.command(name="list")
@output_format
@click.pass_context
def show(ctx: click.Context, form: str) -> int:
    """Every function that can have virtual ones, those it has, and what it enforces for each."""
    from ...app import sriov as app
    from ..render import sriov as render

    facts, found = app.listed(host_of(ctx))
    step = app.next_step(facts, found)

    def text() -> None:
        from ..render import text as people

        render.listed(people.console(), found, step)

    emit(form, lambda: render.listed_data(facts, found, step), text)
    return Exit.FINE


@sriov.command()
@_pf
@click.argument("count", type=int)
@click.option(
    "--mac", metavar="auto|none|LIST", help="Hardware addresses: fixed ones (default), the driver's, or these."
)
@click.option("--vlan", type=click.IntRange(0, 4094), help="Every packet belongs to this VLAN; 0: to none.")
@click.option("--trust/--no-trust", default=None, help="The guest may change its address and receive everything.")
@click.option("--spoofcheck", type=click.Choice(("on", "off")), help="Drop what a guest sends under another address.")
@click.option("--autoprobe", type=click.Choice(("on", "off")), help="off: no driver of the host takes them.")
@click.option("--mapping", metavar="NAME", help="Make them one mapping: a guest gets the first free one.")
@_accept
@_only_plan
@_yes
@output_format
@click.pass_context
def create(
    ctx: click.Context,
    word: str,
    count: int,
    mac: str | None,
    vlan: int | None,
    trust: bool | None,
    spoofcheck: str | None,
    autoprobe: str | None,
    mapping: str | None,
    accept: tuple[str, ...],
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """Let PF have COUNT virtual functions, now and after every start.

    Another COUNT takes those away that are there and makes new ones. What is not named stays as it was.

    Exit: 0 done, 4 with --plan when something would change, 6 the kernel refused and it was taken back, 7 refused.
    """
    from ...app import may_change
    from ...app import sriov as app

    host = host_of(ctx)
    if not only_plan:
        may_change(host)
    wanted = app.Wanted(count, _macs(mac), vlan, trust, _SWITCH[spoofcheck], _SWITCH[autoprobe])
    made = app.plan_create(host, word, wanted, accept)
    done = _carry_out(host, made, only_plan, yes, form)
    if mapping is None:
        return done
    if only_plan and made.changes:
        click.echo(f"The mapping {printable(mapping)} is planned when they are there: it names their groups.", err=True)
        return done
    return _carry_out(host, app.plan_mapping(host, word, mapping), only_plan, yes, form) if done == Exit.FINE else done


@sriov.command()
@_pf
@_accept
@_only_plan
@_yes
@output_format
@click.pass_context
def remove(ctx: click.Context, word: str, accept: tuple[str, ...], only_plan: bool, yes: bool, form: str) -> int:
    """Take all virtual functions of PF away, now and after every start.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ...app import may_change
    from ...app import sriov as app

    host = host_of(ctx)
    if not only_plan:
        may_change(host)
    return _carry_out(host, app.plan_remove(host, word, accept), only_plan, yes, form)


@sriov.command(name="at-boot", hidden=True)
@click.argument("address")
@click.pass_context
def at_boot(ctx: click.Context, address: str) -> int:
    """As called by our unit at a start: make what our file says for the function at ADDRESS."""
    from ...app import may_change
    from ...app import sriov as app

    host = host_of(ctx)
    may_change(host)
    app.at_boot(host, address, lambda line: click.echo(printable(line)))
    return Exit.FINE


def _macs(text: str | None) -> str | tuple[str, ...] | None:
    if text is None or text in ("auto", "none"):
        return text
    return tuple(word.strip() for word in text.split(","))


def _carry_out(host: Host, made: Plan, only_plan: bool, yes: bool, form: str) -> int:
    from ..render import data
    from .changing import carry_out

    if not only_plan:
        return carry_out(host, made, yes, form)

    def text() -> None:
        from ..render import text as people

        people.plan(people.console(), made)

    emit(form, lambda: data.plan(made), text)
    return Exit.PENDING if made.changes else Exit.FINE
