"""vm: make guests that are fit for devices; and the guest that `up` and `plan` make first."""

from __future__ import annotations

import functools
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any

import click

from ...errors import Exit, Failure
from ...knowledge.guest_profiles import NAMES, profile_named
from .guest_options import guest_options, spelled, wanted
from .options import confirm, emit, host_of, output_format

if TYPE_CHECKING:
    from ...app.guests import Made
    from ...host.base import Host
    from ...model.plan import Plan
    from ...planning.guest_wanted import NewGuest


@click.group()
def vm() -> None:
    """Make guests that are fit for devices."""


@vm.command()
@click.option("--profile", type=click.Choice(NAMES), required=True, help="What the guest is for.")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="Its number (default: the next free one).")
@guest_options
@click.option("--start/--no-start", default=False, show_default=True, help="Start it once it is made.")
@click.option("--dry-run", is_flag=True, help="Show the guest and its command; make nothing.")
@click.option("--yes", is_flag=True, help="Answer the ordinary question with yes.")
@output_format
@click.pass_context
def create(
    ctx: click.Context,
    profile: str,
    vmid: int | None,
    guest: dict[str, Any],
    start: bool,
    dry_run: bool,
    yes: bool,
    form: str,
) -> int:
    """Make a guest that a device can be given to: q35, UEFI, fixed memory, and a virtual display to set it up with.

    Exit: 0 made, 1 not made or not as wanted, 4 with --dry-run.
    """
    from ...app import guests

    host = host_of(ctx)
    facts = guests.facts_for(host)
    new = guests.plan_guest(host, facts, profile, wanted(facts, guest, vmid))
    if dry_run:
        _show(new, None, form)
        return Exit.PENDING
    return _made(host, new, start, yes, form)


def _made(host: Host, new: NewGuest, start: bool, yes: bool, form: str) -> int:
    from ... import app
    from ...app import guests
    from ..render import guests as pages
    from ..render import text as people

    app.may_change(host)
    pages.planned(people.console(err=True), new)
    confirm("Make this guest?", yes)
    done = guests.create(host, new)
    if start:
        guests.start(host, new.vmid)
    if form == "text":
        pages.made(people.console(), done)
    else:
        _show(new, done, form)
    return Exit.COULD_NOT if done.differences else Exit.FINE


def _show(new: NewGuest, done: Made | None, form: str) -> None:
    from ..render import guests as pages

    def text() -> None:
        from ..render import text as people

        pages.planned(people.console(), new)

    emit(form, lambda: pages.data(new, done), text)


# -- for `up` and `plan` -------------------------------------------------------------------------


def missing(host: Host, vmid: int, profile: str, guest: dict[str, Any], words: tuple[str, ...]) -> NewGuest | None:
    """The guest that would be made first; None when it is there. Raises Failure when it cannot be made."""
    from ...app import guests
    from ...planning import changeable_guest

    facts = guests.facts_for(host)
    if facts.guest(vmid) is not None:
        changeable_guest(facts, vmid)
        unused = " ".join(("--profile", spelled(guest))).strip()
        click.echo(f"Guest {vmid} is there already and keeps its options; {unused} would be for a new one.", err=True)
        return None
    return guests.plan_guest(host, facts, profile, wanted(facts, guest, vmid, words))


def show_both(
    host: Host, new: NewGuest, words: tuple[str, ...], how: dict[str, Any], save: str | None, form: str
) -> int:
    """`plan` for a guest that is not there: the guest, and the plan on the facts as they will be."""
    from ... import app
    from ..render import data
    from ..render import guests as pages

    if save is not None:
        raise Failure(
            "plan.not-saved", f"The plan was not saved: guest {new.vmid} does not exist yet.",
            hint=f"Make it first: pve-passthrough vm create --vm {new.vmid} --profile {new.profile}", code=Exit.USAGE,
        )  # fmt: skip
    made = app.plan(host, words, new.vmid, first=new, **how)

    def text() -> None:
        from ..render import text as people

        out = people.console()
        pages.planned(out, new)
        out.print()
        people.planned(out, made)
        people.way_home(out, made.plan)

    emit(form, lambda: data.planned(made) | {"new_guest": pages.data(new, None)}, text)
    return Exit.PENDING


def make_first(
    host: Host, new: NewGuest, words: tuple[str, ...], how: dict[str, Any], yes: bool
) -> tuple[dict[str, Any], Plan]:
    """Show guest and plan, ask once, make the guest. `how` with what was accepted, and the plan that was shown."""
    from ... import app
    from ...app import guests
    from ...planning.new_guest import remove_command
    from ..render import guests as pages
    from ..render import text as people
    from .changing import plan_or_ask

    foreseen, how = plan_or_ask(functools.partial(app.plan, host, words, new.vmid, first=new), how, yes)
    out = people.console(err=True)
    pages.planned(out, new)
    out.print()
    people.plan(out, foreseen.plan)
    confirm("Make this guest and apply this plan?", yes)
    done = guests.create(host, new)
    pages.made(out, done)
    if done.differences:
        raise Failure(
            "guest.differs", f"Guest {new.vmid} was made, but not as wanted, so no device was given to it.",
            *done.differences, hint=f"Look at `qm config {new.vmid}`, mend it, and run this again; or remove it with: "
            f"{remove_command(new.vmid)}",
        )  # fmt: skip
    return how, foreseen.plan


@contextmanager
def stays(vmid: int) -> Iterator[None]:
    """Whatever fails in here, the guest that was made before stays, and the failure says so."""
    from ...planning.new_guest import remove_command

    try:
        yield
    except Failure as failure:
        problem = failure.problem
        raise Failure(
            problem.ref, problem.message, *problem.context,
            f"Guest {vmid} was made before that and stays; undo does not remove it.",
            hint=f"{problem.hint.rstrip('.')}. To remove the guest: {remove_command(vmid)}".removeprefix(". "),
            code=failure.code,
        ) from failure  # fmt: skip


def told(host: Host, vmid: int, profile: str, code: int) -> int:
    """Say what is next, or what stays when the plan did not hold."""
    from ...app import prefix
    from ...planning.new_guest import remove_command

    program = prefix(host.name)
    if code == Exit.FINE:
        click.echo("It starts with its device. Set it up on its virtual display (the guest's Console), then:", err=True)
        click.echo(f"  {program} verify --vm {vmid}", err=True)
        row = profile_named(profile)
        if row is not None and row.shows_picture:
            click.echo("When SSH, RDP or Sunshine in it answers, the card can become its only display:", err=True)
            click.echo(f"  {program} display --vm {vmid}", err=True)
    elif code != Exit.REBOOT:
        click.echo(f"Guest {vmid} was made and stays. To remove it, disks included: {remove_command(vmid)}", err=True)
    return code
