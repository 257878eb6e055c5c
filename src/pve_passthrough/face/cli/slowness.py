"""`diagnose --for slow --vm ID`: the table of what makes a guest slow."""

from __future__ import annotations

import click

from ...errors import Exit
from ...model.performance import State
from .options import emit, host_of


def slow(ctx: click.Context, vmid: int, seconds: float | None, form: str) -> int:
    """Exit: 0 nothing that was measured is slow, 1 nothing could be measured, 3 something costs speed."""
    from ...app.performance import SECONDS, measure
    from ..render import performance as render

    result = measure(host_of(ctx), vmid, SECONDS if seconds is None else seconds)

    def text() -> None:
        from ..render import text as people

        render.slow(people.console(), result)

    emit(form, lambda: render.slow_data(result), text)
    states = {one.state for one in result.measured}
    if State.SLOW in states:
        return Exit.BLOCKED
    return Exit.COULD_NOT if states <= {State.UNKNOWN} else Exit.FINE
