"""verify: climb the ladder and say how far it holds."""

from __future__ import annotations

from typing import TYPE_CHECKING

import click

from ...errors import Exit
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...app import Proof
    from ...host.base import Host


@click.command()
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest.")
@click.option("--level", "top", type=click.IntRange(0, 3), default=3, show_default=True, help="Highest rung to climb.")
@click.option("--start/--no-start", default=True, help="Whether a stopped guest may be started (L2).")
@click.option("--patience", type=float, help="Seconds to wait for the guest's agent.")
@output_format
@click.pass_context
def verify(ctx: click.Context, vmid: int, top: int, start: bool, patience: float | None, form: str) -> int:
    """L0 config · L1 bound by address · L2 guest starts · L3 guest sees it.

    Exit: 0 every rung asked for holds, 1 one failed or nobody could say.
    """
    return prove(host_of(ctx), vmid, top=top, start=start, patience=patience, form=form)


def prove(
    host: Host, vmid: int, *, top: int = 3, start: bool = True, patience: float | None = None, form: str = "text"
) -> int:
    """Climb, show, and give the exit code."""
    from ... import app
    from ..render import data

    result = app.verify(host, vmid, top=top, start=start, patience=patience)

    def text() -> None:
        from ..render import text as people

        people.proof(people.console(), result)

    emit(form, lambda: data.proof(result), text)
    return Exit.FINE if _holds(result) else Exit.COULD_NOT


def _holds(result: Proof) -> bool:
    from ...guest import Outcome

    return all(rung.outcome in (Outcome.PASSED, Outcome.SKIPPED) for rung in result.rungs)
