"""plan, apply, up, resume, undo, status: the run from intention to proof, and the way back."""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import TYPE_CHECKING

import click

from ...errors import Exit, Failure
from ...model.run import Phase, Run
from ..printable import printable
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...app import Planned
    from ...host.base import Host
    from ...model.plan import Plan

_EXITS = {
    Phase.KEPT: Exit.FINE,
    Phase.VERIFYING: Exit.PENDING,
    Phase.APPLYING: Exit.PENDING,
    Phase.UNDOING: Exit.PENDING,
    Phase.REBOOT: Exit.REBOOT,
    Phase.UNDO_REBOOT: Exit.REBOOT,
    Phase.UNDONE: Exit.UNDONE,
    Phase.STUCK: Exit.COULD_NOT,
}

_vm = click.option(
    "--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest that gets them."
)
_words = click.argument("words", nargs=-1, required=True, metavar="DEVICE...")
_accept = click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
_profile = click.option(
    "--profile", metavar="PROFILE", help="compute (the default) or gaming: the card is also the guest's screen."
)
_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")


@click.command()
@_words
@_vm
@_profile
@_accept
@click.option("--save", type=click.Path(dir_okay=False), help="Keep the plan in a file for `apply --saved FILE`.")
@output_format
@click.pass_context
def plan(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int,
    profile: str | None,
    accept: tuple[str, ...],
    save: str | None,
    form: str,
) -> int:
    """What would be changed to give DEVICE to the guest: wishes, diffs, rebuilds, reboots, risks. Changes nothing.

    Exit: 0 nothing to change, 4 changes pending, 3 blocked, 7 refused.
    """
    from ... import app
    from ..render import data

    made = app.plan(host_of(ctx), words, vmid, profile=profile, accept=accept)

    def text() -> None:
        from ..render import text as people

        out = people.console()
        people.planned(out, made)
        people.way_home(out, made.plan)

    emit(form, lambda: data.planned(made), text)
    if save is not None:
        app.save_plan(made.plan, save)
    return Exit.PENDING if made.plan.changes else Exit.FINE


@click.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]...")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="The guest that gets them.")
@click.option("--saved", type=click.Path(exists=True, dir_okay=False), help="Run exactly this saved plan.")
@_profile
@_accept
@_yes
@output_format
@click.pass_context
def apply(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int | None,
    saved: str | None,
    profile: str | None,
    accept: tuple[str, ...],
    yes: bool,
    form: str,
) -> int:
    """Plan and run, or run a saved plan: all of it or nothing.

    Exit: 0 done, 5 reboot needed, 6 it failed and was taken back, 1 stuck.
    """
    from ... import app

    host = host_of(ctx)
    app.may_change(host)
    if saved is not None:
        made = app.load_plan(saved)
    elif words and vmid is not None:
        made = app.plan(host, words, vmid, profile=profile, accept=accept).plan
    else:
        raise click.UsageError("Name DEVICE... and --vm ID, or --saved FILE.")
    if not made.changes:
        click.echo("Nothing has to be changed.", err=True)
        return Exit.FINE
    _show_plan(made)
    _confirm("Apply this plan?", yes)
    done = app.apply(host, made)
    _show_run(done, form)
    return _EXITS[done.phase]


@click.command()
@_words
@_vm
@_profile
@_accept
@_yes
@click.option("--reboot/--no-reboot", default=None, help="Restart the machine when the plan needs it (else: ask).")
@click.option("--patience", type=float, help="Seconds to wait for the guest's agent.")
@click.pass_context
def up(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int,
    profile: str | None,
    accept: tuple[str, ...],
    yes: bool,
    reboot: bool | None,
    patience: float | None,
) -> int:
    """Give DEVICE to the guest: check, plan, confirm, apply, reboot once if it must be, and prove it.

    Run it again after the reboot: it goes on where it stopped.
    """
    from ... import app

    host = host_of(ctx)
    app.may_change(host)
    _finish_earlier(host)
    made = _plan_or_ask(host, words, vmid, profile, accept, yes)
    if made.plan.changes:
        _show_plan(made.plan)
        _confirm("Apply this plan?", yes)
        done = app.apply(host, made.plan)
        _show_run(done)
        if done.phase is Phase.REBOOT:
            done = _restart(host, done, yes, reboot)
        if done.phase is not Phase.KEPT:
            return _EXITS[done.phase]
    else:
        click.echo("Everything is in place already.", err=True)
    from .proving import prove

    return prove(host, vmid, patience=patience)


@click.command()
@click.option("--boot", is_flag=True, help="As called by the boot unit: silent when there is nothing to do.")
@output_format
@click.pass_context
def resume(ctx: click.Context, boot: bool, form: str) -> int:
    """Bring an unfinished run to its end. After an unexpected reboot that is back, never forward."""
    from ... import app

    done = app.resume(host_of(ctx), booting=boot)
    if done is None:
        if not boot:
            click.echo("No unfinished run.", err=True)
        return Exit.FINE
    _show_run(done, form)
    return Exit.FINE if boot and done.phase is not Phase.STUCK else _EXITS[done.phase]


@click.command()
@click.argument("run_id", required=False, metavar="[RUN]")
@_yes
@output_format
@click.pass_context
def undo(ctx: click.Context, run_id: str | None, yes: bool, form: str) -> int:
    """Take RUN (default: the newest that stands) back to the byte, and rebuild what was rebuilt.

    Exit: 6 undone, 5 undone on disk and one reboot is needed, 1 stuck.
    """
    from ... import app

    host = host_of(ctx)
    app.may_change(host)
    _show_undo(app.history(host).runs, run_id)
    _confirm("Take it back?", yes)
    done = app.undo(host, run_id)
    _show_run(done, form)
    if app.still_runs(host, done):
        click.echo(f"Guest {done.plan.vmid} still runs as before; stop it, and it has given the device up.", err=True)
    return _EXITS[done.phase]


@click.command()
@output_format
@click.pass_context
def status(ctx: click.Context, form: str) -> int:
    """The runs on this host and how far they came."""
    from ... import app
    from ..render import data

    listing = app.history(host_of(ctx))

    def text() -> None:
        from ..render import text as people

        people.history(people.console(), listing)

    emit(form, lambda: data.history(listing), text)
    open_runs = [one for one in listing.runs if one.phase not in (Phase.KEPT, Phase.UNDONE)]
    return _EXITS[open_runs[-1].phase] if open_runs else Exit.FINE


# -- steps ---------------------------------------------------------------------------------------


def _plan_or_ask(
    host: Host, words: tuple[str, ...], vmid: int, profile: str | None, accept: tuple[str, ...], yes: bool
) -> Planned:
    """Plan; when a hazard stands in the way and a person sits there, ask for its name."""
    from ... import app

    accepted = list(accept)
    while True:
        try:
            return app.plan(host, words, vmid, profile=profile, accept=accepted)
        except app.HazardRefused as failure:
            names = failure.names
            if yes or not names or not _someone_is_there():
                raise
            click.secho(printable(failure.problem.message), err=True, bold=True)
            for line in failure.problem.context:
                click.echo(f"    {printable(line)}", err=True)
            answer = click.prompt(
                f"Type {names[0]!r} to accept this hazard, anything else to stop",
                err=True,
                default="",
                show_default=False,
            )
            if answer != names[0]:
                raise
            accepted.append(names[0])


def _finish_earlier(host: Host) -> None:
    """A run that an earlier call left open is brought to its end before a new one is planned."""
    from ... import app

    earlier = app.resume(host)
    if earlier is None:
        return
    _show_run(earlier)
    if earlier.phase not in (Phase.KEPT, Phase.UNDONE):
        raise Failure(
            "run.unfinished", f"Nothing new was begun: run {earlier.plan.id} is {earlier.phase.name}.",
            hint={
                Phase.REBOOT: "Reboot, then run this again.",
                Phase.UNDO_REBOOT: "Reboot, then run this again.",
            }.get(earlier.phase, "Look at `pve-passthrough status`."),
            code=Exit.REBOOT if earlier.phase in (Phase.REBOOT, Phase.UNDO_REBOOT) else Exit.COULD_NOT,
        )  # fmt: skip


def _restart(host: Host, done: Run, yes: bool, wanted: bool | None) -> Run:
    """Restart the machine if that is wanted. A simulated host is up again at once, and its boot unit has run."""
    from ... import app
    from ..render import text as people

    people.way_home(people.console(err=True), done.plan)
    if wanted is None:
        wanted = (yes and app.is_simulated(host)) or (
            _someone_is_there() and click.confirm("Restart this machine now?", err=True, default=False)
        )
    if not wanted:
        click.echo("Reboot when it suits you, then run the same command again: it goes on from here.", err=True)
        return done
    app.reboot(host)
    if not app.is_simulated(host):
        click.echo("The machine is going down. After the boot, run the same command again.", err=True)
        return done
    after = app.after_boot(host) or app.history(host).runs[-1]
    click.echo("(simulated reboot; the boot unit has run)", err=True)
    _show_run(after)
    return after


def _show_plan(made: Plan) -> None:
    from ..render import text as people

    people.plan(people.console(err=True), made)


def _show_run(done: Run, form: str = "") -> None:
    """For people on standard error; as data on standard output when a format was asked for."""
    from ..render import data
    from ..render import text as people

    if form and form != "text":
        emit(form, lambda: data.run(done), lambda: None)
    else:
        people.run(people.console(err=not form), done)


def _show_undo(all_runs: Iterable[Run], run_id: str | None) -> None:
    """The diffs of the way back, of the run that `undo` would choose."""
    from ..render import text as people

    named = [one for one in all_runs if one.plan.id == run_id or (run_id is None and one.phase is not Phase.UNDONE)]
    if named:
        people.plan(people.console(err=True), named[-1].plan.inverse())


def _confirm(question: str, yes: bool) -> None:
    if yes:
        return
    if not _someone_is_there():
        raise Failure(
            "confirm.nobody", "Nothing was changed: there is nobody to ask.", hint="Add --yes.", code=Exit.USAGE
        )
    if not click.confirm(question, err=True, default=False):
        raise click.Abort


def _someone_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
