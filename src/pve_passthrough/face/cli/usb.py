"""usb: the tree of USB devices, who uses them, and single devices for guests."""

from __future__ import annotations

import functools

import click

from ...errors import Exit
from .options import emit, host_of, output_format

_device = click.argument("word", metavar="DEVICE")
_vm = click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest.")
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")


@click.group(invoke_without_command=True)
@click.pass_context
def usb(ctx: click.Context) -> int:
    """USB devices: the tree with speeds and users; give single devices to guests, running ones too, and take them back.

    DEVICE is a port (1-4.2), vendor:product (046d:c52b), or the name of a USB mapping.
    """
    return Exit.FINE if ctx.invoked_subcommand is not None else int(ctx.invoke(list_, shape="tree", form="text"))


@usb.command(name="list")
@click.option("--tree", "shape", flag_value="tree", default=True, help="As the tree of hubs (default).")
@click.option("--flat", "shape", flag_value="flat", help="One below the other.")
@output_format
@click.pass_context
def list_(ctx: click.Context, shape: str, form: str) -> int:
    """Controllers, hubs and devices: speed, ID, who uses each, and by which names a guest can be given it."""
    from ...app import usb as verbs
    from ..render import usb as render

    facts = verbs.look_usb(host_of(ctx))

    def text() -> None:
        from ..render import text as people

        render.listed(people.console(), facts, flat=shape == "flat")

    emit(form, lambda: render.listed_data(facts), text)
    return Exit.FINE


@usb.command()
@_device
@_vm
@click.option(
    "--by", "way", type=click.Choice(["id", "port", "mapping"]), default=None,
    help="How the entry names the device. Default: its ID where that is unique and stays, else its port.",
)  # fmt: skip
@click.option(
    "--usb3/--no-usb3", default=None, help="For guests of old systems or machines: on their USB 3 controller."
)
@click.option("--absent-ok", is_flag=True, help="It need not be plugged in: the guest gets it when it appears.")
@click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
@_only_plan
@_yes
@output_format
@click.pass_context
def add(
    ctx: click.Context,
    word: str,
    vmid: int,
    way: str | None,
    usb3: bool | None,
    absent_ok: bool,
    accept: tuple[str, ...],
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """Give DEVICE to the guest. A running guest gets it at once where Proxmox VE can do that.

    Exit: 0 done, 4 with --plan when something would change, 6 it failed and was taken back, 7 refused.
    """
    from ... import app
    from ...app import usb as verbs
    from ..render import data
    from ..render import text as people
    from .changing import carry_out, plan_or_ask

    host = host_of(ctx)
    if not only_plan:
        app.may_change(host)
    make = functools.partial(
        verbs.plan_add, host, word, vmid, way=way or "", usb3=usb3, absent_ok=absent_ok
    )  # fmt: skip
    made, _ = plan_or_ask(make, {"accept": accept}, yes or only_plan)
    if only_plan:
        emit(form, lambda: data.planned(made), lambda: people.planned(people.console(), made))
        return Exit.PENDING if made.plan.changes else Exit.FINE
    return carry_out(host, made.plan, yes, form)


@usb.command()
@_device
@_vm
@_only_plan
@_yes
@output_format
@click.pass_context
def remove(ctx: click.Context, word: str, vmid: int, only_plan: bool, yes: bool, form: str) -> int:
    """Take DEVICE, or the entry of this name (usb2), from the guest; a running guest loses it at once.

    Exit: 0 done, 4 with --plan when something would change, 2 the guest does not have it, 7 refused.
    """
    from ... import app
    from ...app import usb as verbs
    from ..render import data
    from ..render import text as people
    from .changing import carry_out

    host = host_of(ctx)
    if not only_plan:
        app.may_change(host)
    made = verbs.plan_remove(host, word, vmid)
    if only_plan:
        emit(form, lambda: data.plan(made), lambda: people.plan(people.console(), made))
        return Exit.PENDING if made.changes else Exit.FINE
    return carry_out(host, made, yes, form)
