"""lxc: the host's devices, shared with containers."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import Exit
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...host.base import Host
    from ...model.plan import Plan

_ct = click.option("--ct", "number", type=click.IntRange(100, 999_999_999), required=True, help="The container.")
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")
_words = click.argument("words", nargs=-1, required=True, metavar="DEVICE...")


@click.group()
def lxc() -> None:
    """Share the host's devices with containers: the host keeps its driver, nothing is taken away from anybody."""


@lxc.command(name="list")
@output_format
@click.pass_context
def list_(ctx: click.Context, form: str) -> int:
    """What a container could be given, what is behind each, and which containers have it."""
    from ...app import containers
    from ..render import containers as render

    found = containers.listed(host_of(ctx))

    def text() -> None:
        from ..render import text as people

        render.listed(people.console(), found)

    emit(form, lambda: render.listed_data(found), text)
    return Exit.FINE


@lxc.command()
@_words
@_ct
@click.option("--group", default="", metavar="NAME", help="The group in the container that may open it.")
@click.option("--gid", type=click.IntRange(0, 65535), help="Its number in the container, instead of a name.")
@click.option("--uid", type=click.IntRange(0, 65535), help="The user in the container that owns it.")
@click.option("--mode", default="", metavar="0660", help="Access mode in the container.")
@click.option("--deny-write", is_flag=True, help="Let the container only read.")
@click.option("--by-path", is_flag=True, help="By the name that follows the slot (/dev/dri/by-path/…).")
@click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
@_only_plan
@_yes
@output_format
@click.pass_context
def add(
    ctx: click.Context,
    words: tuple[str, ...],
    number: int,
    group: str,
    gid: int | None,
    uid: int | None,
    mode: str,
    deny_write: bool,
    by_path: bool,
    accept: tuple[str, ...],
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """Give DEVICE to a container: gpu, gpu:2, an address, nvidia, kfd, usb:PORT, or a path below /dev.

    The group's number is asked for inside the container, so it must run, or be told by --gid.

    Exit: 0 done, 4 with --plan when something would change, 6 it failed and was taken back, 7 refused.
    """
    import re

    from ...app import containers
    from ...planning.containers import How

    if mode and not re.fullmatch(r"0[0-7]{3}", mode):
        raise click.UsageError("--mode is four octal digits that begin with 0, e.g. 0660.")
    if group and gid is not None:
        raise click.UsageError("Give --group or --gid, not both.")
    host = host_of(ctx)
    how = How(gid, group, uid, mode, deny_write, by_path)
    return _carry_out(host, containers.plan_add(host, words, number, how, accept), only_plan, yes, form)


@lxc.command()
@_words
@_ct
@_only_plan
@_yes
@output_format
@click.pass_context
def remove(ctx: click.Context, words: tuple[str, ...], number: int, only_plan: bool, yes: bool, form: str) -> int:
    """Take DEVICE from a container: devN, its path, or what `lxc add` took.

    Exit: 0 done, 4 with --plan when something would change.
    """
    from ...app import containers

    host = host_of(ctx)
    return _carry_out(host, containers.plan_remove(host, words, number), only_plan, yes, form)


@lxc.command()
@_ct
@click.option("--user", default="root", show_default=True, metavar="NAME", help="Who in the container shall use it.")
@output_format
@click.pass_context
def check(ctx: click.Context, number: int, user: str, form: str) -> int:
    """L0 config · L1 the container has the host's node · L2 USER may open it · L3 a tool in the container sees it.

    Exit: 0 every rung holds, 1 one failed or nobody could say.
    """
    from ...app import containers
    from ...guest import Outcome
    from ..render import containers as render

    result = containers.check(host_of(ctx), number, user=user)

    def text() -> None:
        from ..render import text as people

        render.checked(people.console(), result)

    emit(form, lambda: render.checked_data(result), text)
    holds = all(rung.outcome in (Outcome.PASSED, Outcome.SKIPPED) for rung in result.rungs)
    return Exit.FINE if holds else Exit.COULD_NOT


def _carry_out(host: Host, made: Plan, only_plan: bool, yes: bool, form: str) -> int:
    """The plan alone, or all of it."""
    from ... import app
    from ..render import data
    from ..render import text as people
    from .changing import carry_out

    if only_plan:
        emit(form, lambda: data.plan(made), lambda: people.plan(people.console(), made))
        return Exit.PENDING if made.changes else Exit.FINE
    app.may_change(host)
    return carry_out(host, made, yes, form)
