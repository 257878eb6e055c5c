"""reset: how a device is reset, which way is chosen, and whether it holds."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...errors import Exit
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...host.base import Host
    from ...model.plan import Plan

_Command = TypeVar("_Command", bound=Callable[..., Any])
_device = click.argument("word", metavar="DEVICE")
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
_only_plan = click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")


@click.group()
def reset() -> None:
    """How a device is reset between two starts of a guest: look, choose, and prove it."""


@reset.command()
@click.argument("words", nargs=-1, required=True, metavar="DEVICE...")
@output_format
@click.pass_context
def show(ctx: click.Context, words: tuple[str, ...], form: str) -> int:
    """The methods that the kernel has, in order, what is known of the device, and what happens at a guest's start."""
    from ...app import resets
    from ..render import resets as render

    facts, found = resets.show(host_of(ctx), words)

    def text() -> None:
        from ..render import text as people

        render.shown(people.console(), facts, found)

    emit(form, lambda: render.shown_data(facts, found), text)
    return Exit.FINE


@reset.command()
@_device
@click.argument("methods", metavar="METHOD[,METHOD...]")
@_only_plan
@_yes
@output_format
@click.pass_context
def method(ctx: click.Context, word: str, methods: str, only_plan: bool, yes: bool, form: str) -> int:
    """Let these be the methods for DEVICE, in this order, now and after every boot; `default` takes the choice back.

    Exit: 0 done, 4 with --plan when something would change, 6 the kernel refused and it was taken back, 7 refused.
    """
    from ...app import resets

    host = host_of(ctx)
    return _carry_out(
        host, resets.plan_method(host, word, [one.strip() for one in methods.split(",")]), only_plan, yes, form
    )


@reset.command()
@_device
@click.option("--module", is_flag=True, help="Let vfio-pci keep all its devices awake instead (takes a reboot).")
@_only_plan
@_yes
@output_format
@click.pass_context
def idle(ctx: click.Context, word: str, module: bool, only_plan: bool, yes: bool, form: str) -> int:
    """Keep DEVICE out of D3cold, now and after every boot, for devices that do not wake up from there.

    Exit: 0 done, 4 with --plan when something would change, 5 reboot needed.
    """
    from ...app import resets

    host = host_of(ctx)
    return _carry_out(host, resets.plan_idle(host, word, module=module), only_plan, yes, form)


@reset.command(name="vendor-reset")
@_device
@click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
@_only_plan
@_yes
@output_format
@click.pass_context
def vendor_reset(
    ctx: click.Context, word: str, accept: tuple[str, ...], only_plan: bool, yes: bool, form: str
) -> int:  # fmt: skip
    """Build vendor-reset with DKMS and let it reset DEVICE; for the AMD cards that it knows, and for no other.

    Its source must lie in /usr/src already: what is missing is named with the commands to type. After the reboot the
    run is taken back if the module is not in charge.

    Exit: 5 reboot needed, 0 nothing to do, 6 the build failed and was taken back, 7 refused.
    """
    from ...app import resets

    host = host_of(ctx)
    return _carry_out(host, resets.plan_vendor_reset(host, word, accept), only_plan, yes, form)


@reset.command()
@_device
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="A guest that has DEVICE.")
@click.option("--cycles", type=click.IntRange(1, 20), default=3, show_default=True, help="How often.")
@click.option(
    "--hold", type=click.FloatRange(0, 600), default=10, show_default=True, help="Seconds that the guest runs."
)
@click.option("--yes", is_flag=True, help="A guest that runs may be shut down; it is started again in the end.")
@output_format
@click.pass_context
def test(ctx: click.Context, word: str, vmid: int, cycles: int, hold: float, yes: bool, form: str) -> int:
    """Start and stop the guest, and look at the kernel's log and at DEVICE after each stop. The guest ends as it began.

    A guest that does not shut down within a minute is switched off; one that ran before the test never is.

    Exit: 0 it holds, 3 it does not, 1 nobody could say.
    """
    from ...app import resets
    from ..render import resets as render

    def tell(cycle: resets.Cycle) -> None:
        click.echo(f"cycle {cycle.number} of {cycles} is over ({cycle.seconds:.0f} s)", err=True)

    result = resets.test(host_of(ctx), word, vmid, cycles=cycles, hold=hold, stop_first=yes, tell=tell)

    def text() -> None:
        from ..render import text as people

        render.tested(people.console(), result)

    emit(form, lambda: render.tested_data(result), text)
    return {
        resets.Verdict.HOLDS: Exit.FINE,
        resets.Verdict.FAILS: Exit.BLOCKED,
        resets.Verdict.UNKNOWN: Exit.COULD_NOT,
    }[result.verdict]


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
    code = carry_out(host, made, yes, form)
    if code == Exit.REBOOT:
        people.way_home(people.console(err=True), made)
    return code
