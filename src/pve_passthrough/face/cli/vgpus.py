"""vgpu: devices that several guests share, by mediated devices, NVIDIA's vGPU or Intel's GVT-g."""

from __future__ import annotations

from typing import Any

import click

from ...errors import Exit
from .options import emit, host_of, output_format

_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")


@click.group()
def vgpu() -> None:
    """Share one device between guests: types, who uses them, what the host needs, and giving a share."""


@vgpu.command("list")
@output_format
@click.pass_context
def listed(ctx: click.Context, form: str) -> int:
    """All devices that are shared: types, memory, how many are left, who uses them. And why a display is not."""
    return _show(ctx, (), form)


@vgpu.command("types")
@click.argument("word", metavar="DEVICE")
@output_format
@click.pass_context
def types_of(ctx: click.Context, word: str, form: str) -> int:
    """The types of DEVICE in its driver's own words."""
    return _show(ctx, (word,), form)


def _show(ctx: click.Context, words: tuple[str, ...], form: str) -> int:
    from ...app import vgpus
    from ..render import vgpus as render

    found = vgpus.listing(host_of(ctx), words)

    def text() -> None:
        from ..render import text as people

        (render.types if words else render.listing)(people.console(), found)

    emit(form, lambda: render.listing_data(found), text)
    return Exit.FINE


@vgpu.command()
@click.argument("word", metavar="DEVICE")
@click.argument("mdev", metavar="TYPE")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest that gets it.")
@click.option("--mapping", metavar="NAME", default="", help="Through this resource mapping; made when it is not there.")
@click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
@_only_plan
@_yes
@output_format
@click.pass_context
def give(
    ctx: click.Context,
    word: str,
    mdev: str,
    vmid: int,
    mapping: str,
    accept: tuple[str, ...],
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """Give the guest a share of DEVICE, of this TYPE: the same as `apply DEVICE --vm ID --mdev TYPE`.

    Exit: 0 done, 4 with --plan when something would change, 7 refused.
    """
    from ... import app
    from .changing import carry_out

    host = host_of(ctx)
    if not only_plan:
        app.may_change(host)
    made = app.plan(host, (word,), vmid, accept=accept, mdev=mdev, mapping=mapping)
    return _show_plan(made, form) if only_plan else carry_out(host, made.plan, yes, form)


@vgpu.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]")
@_only_plan
@_yes
@output_format
@click.pass_context
def setup(ctx: click.Context, words: tuple[str, ...], only_plan: bool, yes: bool, form: str) -> int:
    """What the host needs before DEVICE can be shared, in order; the part that this program does is planned and run.

    Exit: 0 nothing to do here, 4 with --plan when something would change, 5 reboot needed, 7 refused.
    """
    from ... import app
    from ...app import vgpus
    from ..render import vgpus as render
    from .changing import carry_out

    host = host_of(ctx)
    found = vgpus.setup(host, words)

    def text() -> None:
        from ..render import text as people

        render.setup(people.console(), found)

    if found.planned is None or only_plan:
        emit(form, lambda: render.setup_data(found), text)
        return Exit.FINE if found.planned is None else _show_plan(found.planned, form if form == "text" else "")
    text() if form == "text" else None
    app.may_change(host)
    return carry_out(host, found.planned.plan, yes, form)


def _show_plan(made: Any, form: str) -> int:
    """A plan on standard output; with an empty form nothing is printed."""
    from ..render import data

    def text() -> None:
        from ..render import text as people

        out = people.console()
        people.planned(out, made)
        people.way_home(out, made.plan)

    if form:
        emit(form, lambda: data.planned(made), text)
    return Exit.PENDING if made.plan.changes else Exit.FINE
