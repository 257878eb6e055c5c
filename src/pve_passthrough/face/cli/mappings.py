"""mapping: the cluster's resource mappings – look, make, mend, take away, and who may use them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...errors import Exit
from .options import emit, host_of, output_format
from .resets import _carry_out

_Command = TypeVar("_Command", bound=Callable[..., Any])
_name = click.argument("name", metavar="NAME")
_devices = click.argument("words", nargs=-1, required=True, metavar="DEVICE...")
_alone = click.option("--alone", is_flag=True, help="Only the functions named, without a card's own sound and USB.")
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")


@click.group()
def mapping() -> None:
    """Resource mappings: names for devices, which the cluster keeps and people who are not root may use."""


@mapping.command(name="list")
@output_format
@click.pass_context
def list_(ctx: click.Context, form: str) -> int:
    """Every mapping: what it offers on which node, whether this node's lines still fit, and who uses it."""
    return _show(ctx, "", form, judged=False)


@mapping.command()
@click.argument("name", required=False, default="", metavar="[NAME]")
@output_format
@click.pass_context
def check(ctx: click.Context, name: str, form: str) -> int:
    """Hold this node's lines against the hardware, as Proxmox does when a guest starts.

    Exit: 0 they fit, 3 a guest would not start with one, 1 nobody could say.
    """
    return _show(ctx, name, form, judged=True)


def _show(ctx: click.Context, name: str, form: str, *, judged: bool) -> int:
    from ...app import mappings
    from ..render import mappings as render

    found = mappings.listed(host_of(ctx), name)

    def text() -> None:
        from ..render import text as people

        render.listed(people.console(), found)

    emit(form, lambda: render.listed_data(found), text)
    if not judged:
        return Exit.FINE
    return Exit.BLOCKED if found.stale else Exit.COULD_NOT if found.unknown else Exit.FINE


@mapping.command()
@_name
@_devices
@click.option("--usb", is_flag=True, help="DEVICE is a USB socket (1-4.2) or a number (046d:c52b).")
@_alone
@click.option("--mdev", is_flag=True, help="Its devices make mediated devices (vGPU).")
@click.option("--live-migration", is_flag=True, help="Its devices can migrate while they run (few drivers can).")
@click.option("--description", metavar="TEXT", default="", help="One line for the people who see it.")
@_only_plan
@_yes
@output_format
@click.pass_context
def create(
    ctx: click.Context,
    name: str,
    words: tuple[str, ...],
    usb: bool,
    alone: bool,
    mdev: bool,
    live_migration: bool,
    description: str,
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """Make the mapping NAME that offers DEVICE of this node; of several, a pool, a start takes the first free one.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ...app import mappings

    host = host_of(ctx)
    made = mappings.plan_create(
        host, name, words,
        usb=usb, alone=alone, mdev=mdev, live_migration=live_migration, description=description,
    )  # fmt: skip
    return _carry_out(host, made, only_plan, yes, form)


@mapping.command()
@_name
@_devices
@_alone
@_only_plan
@_yes
@output_format
@click.pass_context
def add(
    ctx: click.Context, name: str, words: tuple[str, ...], alone: bool, only_plan: bool, yes: bool, form: str
) -> int:  # fmt: skip
    """Let the mapping NAME offer DEVICE of this node too: the first of this node, or one more of a pool.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ...app import mappings

    host = host_of(ctx)
    return _carry_out(host, mappings.plan_add(host, name, words, alone=alone), only_plan, yes, form)


@mapping.command()
@_name
@click.argument("words", nargs=-1, metavar="[OLD=NEW]...")
@_only_plan
@_yes
@output_format
@click.pass_context
def repair(ctx: click.Context, name: str, words: tuple[str, ...], only_plan: bool, yes: bool, form: str) -> int:
    """Write this node's present numbers into the mapping NAME, where it is certain that it is still the same device.

    Where it is not, OLD=NEW says where the device is now; another product is never taken for it.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ...app import mappings

    host = host_of(ctx)
    return _carry_out(host, mappings.plan_repair(host, name, words), only_plan, yes, form)


@mapping.command()
@_name
@click.option("--here", is_flag=True, help="Only what it offers of this node; lines of other nodes stay.")
@_only_plan
@_yes
@output_format
@click.pass_context
def delete(ctx: click.Context, name: str, here: bool, only_plan: bool, yes: bool, form: str) -> int:
    """Take the mapping NAME away; refused while a guest names it.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ...app import mappings

    host = host_of(ctx)
    return _carry_out(host, mappings.plan_delete(host, name, here=here), only_plan, yes, form)


@mapping.command()
@_name
@click.option("--user", metavar="USER@REALM", default="", help="Who shall use it.")
@click.option("--token", metavar="USER@REALM!NAME", default="", help="Or: the API token that shall use it.")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="The guest that gets it (else: its users).")
@output_format
@click.pass_context
def grant(ctx: click.Context, name: str, user: str, token: str, vmid: int | None, form: str) -> int:
    """Show the rights that somebody who is not root@pam needs for the mapping NAME, and the commands that give them.

    Changes nothing.
    """
    from ...app import mappings
    from ..render import mappings as render

    recipe = mappings.grant(host_of(ctx), name, user=user, token=token, vmid=vmid)

    def text() -> None:
        from ..render import text as people

        render.recipe(people.console(), recipe)

    emit(form, lambda: render.recipe_data(recipe), text)
    return Exit.FINE
