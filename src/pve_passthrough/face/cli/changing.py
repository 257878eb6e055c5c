"""plan, apply, up, resume, undo, status: the run from intention to proof, and the way back."""

from __future__ import annotations

import functools
from collections.abc import Callable, Iterable
from typing import TYPE_CHECKING, Any, TypeVar

import click

from ...errors import Exit, Failure
from ...knowledge.guest_profiles import NAMES
from ...model.run import Phase, Run
from ..printable import printable
from .guest_options import guest_options
from .options import confirm as _confirm
from .options import emit, host_of, output_format
from .options import someone_is_there as _someone_is_there

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
_profile = click.option("--profile", type=click.Choice(NAMES), help="What a guest that does not exist is made for.")
_Command = TypeVar("_Command", bound=Callable[..., Any])


def _how(command: _Command) -> Callable[..., Any]:
    """How the devices are given: options that plan, apply and up share, handed over as `how` for `app.plan`."""

    @click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")
    @click.option("--alone", is_flag=True, help="Only the functions named, without a card's own sound and USB.")
    @click.option(
        "--tweak", "tweaks", multiple=True, metavar="NAME",
        help="hide-hypervisor, ignore-msrs, no-rom-bar, split-lock, msix-relocation or disable-denylist; few guests "
        "need one; repeatable.",
    )  # fmt: skip
    @click.option(
        "--lend-display", is_flag=True,
        help="The card shows the host's console: take it from the host when the guest starts, give it back afterwards.",
    )  # fmt: skip
    @click.option(
        "--inside", metavar="SYSTEM", default="",
        help="Let cloud-init install the driver at the guest's first boot: ubuntu-24.04, debian-13:transcode, …",
    )  # fmt: skip
    @click.option(
        "--mapping", metavar="NAME", default="",
        help="Give the card through this resource mapping, which is made when it is not there.",
    )  # fmt: skip
    @click.option(
        "--mdev", metavar="TYPE", default="",
        help="A share of this type instead of the device itself: see `pve-passthrough vgpu list`.",
    )  # fmt: skip
    @functools.wraps(command)
    def told(*args: Any, **given: Any) -> Any:
        names = ("mdev", "mapping", "accept", "alone", "tweaks", "lend_display", "inside")
        how = {name: given.pop(name) for name in names}
        return command(*args, how=how, **given)

    return told


_yes = click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")


@click.command()
@_words
@_vm
@_profile
@_how
@click.option("--save", type=click.Path(dir_okay=False), help="Keep the plan in a file for `apply --saved FILE`.")
@guest_options
@output_format
@click.pass_context
def plan(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int,
    profile: str | None,
    guest: dict[str, Any],
    how: dict[str, Any],
    save: str | None,
    form: str,
) -> int:
    """What would be changed to give DEVICE to the guest: wishes, diffs, rebuilds, reboots, risks. Changes nothing.

    Exit: 0 nothing to change, 4 changes pending, 3 blocked, 7 refused.
    """
    from ... import app
    from ..render import data

    host = host_of(ctx)
    if profile is not None:
        from . import guests

        new = guests.missing(host, vmid, profile, guest, words)
        if new is not None:
            return guests.show_both(host, new, words, how, save, form)
    made = app.plan(host, words, vmid, **how)

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
@_how
@_yes
@output_format
@click.pass_context
def apply(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int | None,
    saved: str | None,
    how: dict[str, Any],
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
        made = app.plan(host, words, vmid, **how).plan
    else:
        raise click.UsageError("Name DEVICE... and --vm ID, or --saved FILE.")
    return carry_out(host, made, yes, form)


def carry_out(host: Host, made: Plan, yes: bool, form: str, *, remembering: bool = False) -> int:
    """Show a plan, ask, run it, show the run; its exit code. `remembering`: a run may be only for what it remembers."""
    from ... import app

    if not made.changes and remembering:
        click.echo("Nothing has to be changed; the devices are remembered as they are now.", err=True)
    elif not made.changes:
        click.echo("Nothing has to be changed.", err=True)
        return Exit.FINE
    else:
        _show_plan(made)
    _confirm("Apply this plan?", yes)
    done = app.apply(host, made)
    _show_run(done, form)
    return _EXITS[done.phase]


@click.command()
@_words
@_vm
@_profile
@_how
@_yes
@click.option("--reboot/--no-reboot", default=None, help="Restart the machine when the plan needs it (else: ask).")
@click.option("--patience", type=float, help="Seconds to wait for the guest's agent.")
@guest_options
@click.pass_context
def up(
    ctx: click.Context,
    words: tuple[str, ...],
    vmid: int,
    profile: str | None,
    guest: dict[str, Any],
    how: dict[str, Any],
    yes: bool,
    reboot: bool | None,
    patience: float | None,
) -> int:
    """Give DEVICE to the guest: check, plan, confirm, apply, reboot once if it must be, and prove it.

    With --profile, a guest that does not exist is made first. Run it again after the reboot: it goes on from there.
    """
    from ... import app

    host = host_of(ctx)
    app.may_change(host)
    _finish_earlier(host)
    if profile is None:
        return _give(host, words, vmid, how, yes, reboot, patience)
    from . import guests

    new = guests.missing(host, vmid, profile, guest, words)
    if new is None:
        return _give(host, words, vmid, how, yes, reboot, patience)
    how, shown = guests.make_first(host, new, words, how, yes)
    with guests.stays(vmid):
        return guests.told(host, vmid, profile, _give(host, words, vmid, how, yes, reboot, patience, shown))


def _give(
    host: Host,
    words: tuple[str, ...],
    vmid: int,
    how: dict[str, Any],
    yes: bool,
    reboot: bool | None,
    patience: float | None,
    agreed: Plan | None = None,
) -> int:
    """`up` for a guest that is there. `agreed`: a plan that was shown and agreed to before the guest was made."""
    from ... import app

    made, how = plan_or_ask(functools.partial(app.plan, host, words, vmid), how, yes)
    if made.plan.changes:
        if agreed is None or not agreed.same_changes(made.plan):
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

    # What was made a moment ago has no system yet that could say what it sees.
    return prove(host, vmid, top=3 if agreed is None else 2, patience=patience)


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
    _show_undo(host, app.history(host).runs, run_id)
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


def plan_or_ask(make: Callable[..., Planned], how: dict[str, Any], yes: bool) -> tuple[Planned, dict[str, Any]]:
    """Plan; when a hazard stands in the way and a person sits there, ask for its name. The second: `how`, with what
    was accepted meanwhile."""
    from ... import app

    accepted = list(how["accept"])
    while True:
        try:
            return make(**(how | {"accept": accepted})), how | {"accept": tuple(accepted)}
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


def _show_undo(host: Host, all_runs: Iterable[Run], run_id: str | None) -> None:
    """The diffs of the way back, of the run that `undo` would choose, and which other guests it leaves in the lurch."""
    from ... import app
    from ...app.hooks import left_without
    from ..render import text as people

    named = [one for one in all_runs if one.plan.id == run_id or (run_id is None and one.phase is not Phase.UNDONE)]
    if named:
        people.plan(people.console(err=True), named[-1].plan.inverse())
        for vm in left_without(app.look(host), named[-1]):
            told = f"{vm.name} ({vm.vmid}) names the hookscript that goes, and will not start without it."
            click.secho(printable(told), err=True, bold=True)
            click.echo(f"  → first: pve-passthrough lifecycle --vm {vm.vmid} --guard", err=True)
