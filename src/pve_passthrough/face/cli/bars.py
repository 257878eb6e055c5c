"""bars: memory windows of a device, and another size for them."""

from __future__ import annotations

import click

from ...errors import Exit
from .options import emit, host_of, output_format


@click.command()
@click.argument("word", metavar="DEVICE")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="Show what this guest would have for it.")
@click.option(
    "--set", "settings", multiple=True, metavar="N=SIZE", help="Size of BAR N from the next boot on, as 1=8G."
)
@click.option("--plan", "only_plan", is_flag=True, help="Show what --set would change, and change nothing.")
@click.option("--yes", is_flag=True, help="Answer the question with yes.")
@output_format
@click.pass_context
def bars(
    ctx: click.Context,
    word: str,
    vmid: int | None,
    settings: tuple[str, ...],
    only_plan: bool,
    yes: bool,
    form: str,
) -> int:
    """The BARs of DEVICE: their sizes, the sizes offered, and whether the guests that have it have room for them.

    With --set a resizable BAR gets another size at every boot, before any driver is loaded; `undo` takes it back.

    Exit: 0 fine or done, 4 changes pending (--plan), 5 reboot needed.
    """
    if settings:
        return _set(ctx, word, settings, only_plan, yes, form)
    from ...app.bars import look_at, next_step
    from ..render import bars as render

    result = look_at(host_of(ctx), word, vmid)
    step = next_step(result)

    def text() -> None:
        from ..render import text as people

        render.looked(people.console(), result, step)

    emit(form, lambda: render.looked_data(result, step), text)
    return Exit.FINE


def _set(ctx: click.Context, word: str, settings: tuple[str, ...], only_plan: bool, yes: bool, form: str) -> int:
    from ...app import may_change
    from ...app.bars import parse_setting, plan_sizes
    from ..render import data
    from .changing import carry_out

    host = host_of(ctx)
    wanted = [parse_setting(setting) for setting in settings]
    if not only_plan:
        may_change(host)
    made = plan_sizes(host, word, wanted)
    if not only_plan:
        return carry_out(host, made, yes, form)

    def text() -> None:
        from ..render import text as people

        people.plan(people.console(), made)
        people.way_home(people.console(), made)

    emit(form, lambda: data.plan(made), text)
    return Exit.PENDING if made.changes else Exit.FINE
