"""lifecycle: what works for a guest with devices beyond its start, and its own settings around starts."""

from __future__ import annotations

import click

from ...errors import Exit, Failure
from .options import emit, host_of, output_format


@click.command()
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, metavar="ID", help="The guest.")
@click.option("--onboot/--no-onboot", default=None, help="Start it with the host; only while it runs with its devices.")
@click.option("--startup", metavar="ORDER", help="Its place among the others: order=2,up=30,down=120.")
@click.option("--guard", is_flag=True, help="Look at its devices before each start, whoever starts it.")
@click.option("--plan", "only_plan", is_flag=True, help="Show the plan and change nothing.")
@click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
@output_format
@click.pass_context
def lifecycle(
    ctx: click.Context,
    vmid: int,
    onboot: bool | None,
    startup: str | None,
    guard: bool,
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """What works for a guest with devices, on this version, and what to set: backup, snapshots, replication, migration,
    high availability, shutdown.

    Jobs, HA and mappings are shared with others: their commands are shown. The guest's own settings are planned and run
    like everything else, and undone by `pve-passthrough undo`: --onboot, --startup, --guard.

    Exit: 0 shown or done, 4 with --plan when something would change, 7 refused.
    """
    if onboot is None and startup is None and not guard:
        if only_plan or yes:
            raise Failure(
                "lifecycle.nothing-to-set", "Nothing was planned: no setting was named.",
                hint="Name --onboot, --startup or --guard; without them this verb only looks.", code=Exit.USAGE,
            )  # fmt: skip
        return _show(ctx, vmid, form)
    return _change(ctx, vmid, onboot, startup, guard, only_plan, yes, form)


def _show(ctx: click.Context, vmid: int, form: str) -> int:
    from ...app import lifecycle as app
    from ..render import lifecycle as render

    result = app.show(host_of(ctx), vmid)

    def text() -> None:
        from ..render import text as people

        render.shown(people.console(), result)

    emit(form, lambda: render.shown_data(result), text)
    return Exit.FINE


def _change(
    ctx: click.Context,
    vmid: int,
    onboot: bool | None,
    startup: str | None,
    guard: bool,
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    from ... import app
    from ...app import lifecycle
    from ..render import data
    from ..render import text as people
    from .changing import carry_out

    host = host_of(ctx)
    made = lifecycle.plan(host, vmid, onboot=onboot, startup=startup, guard=guard)
    if only_plan:
        emit(form, lambda: data.plan(made), lambda: people.plan(people.console(), made))
        return Exit.PENDING if made.changes else Exit.FINE
    app.may_change(host)
    return carry_out(host, made, yes, form)
