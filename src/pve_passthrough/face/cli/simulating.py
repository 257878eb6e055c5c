"""sim: make a simulated host, and run its commands."""

from __future__ import annotations

import sys

import click

from ...errors import Exit, Failure


@click.group()
def sim() -> None:
    """A simulated Proxmox host in a directory: a place to try everything. Use it with --host sim:DIR."""


@sim.command()
@click.argument("directory", type=click.Path(file_okay=False))
@click.option(
    "--from",
    "source",
    default="default",
    show_default=True,
    metavar="NAME|HOST",
    help="A built-in machine, or capture:FILE, or root:DIR with a sysfs tree.",
)
def create(directory: str, source: str) -> int:
    """Make a simulated host in DIRECTORY (which must be empty or absent)."""
    from ...app import open_host
    from ...host import simulated

    if source in simulated.SEEDS:
        simulated.create(directory, source)
    elif source.partition(":")[0] in ("capture", "root", "local"):
        simulated.create_from(directory, open_host(source))
    else:
        raise Failure(
            "sim.unknown", f"Nothing was made: {source!r} is no built-in machine and no host.",
            hint=f"Built in: {', '.join(simulated.SEEDS)}", code=Exit.USAGE,
        )  # fmt: skip
    click.echo(f"{directory}: a simulated host ({source}). Try: pve-passthrough --host sim:{directory} check")
    return Exit.FINE


@sim.command(name="list")
def seeds() -> int:
    """The built-in machines."""
    from ...host import simulated

    for name in simulated.SEEDS:
        click.echo(name)
    return Exit.FINE


@sim.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("old")
@click.argument("new")
def move(directory: str, old: str, new: str) -> int:
    """Give the card at OLD the address NEW, as a firmware update does that renumbers the buses, and start again."""
    from ... import app
    from ...host import simulated

    host = app.open_host(f"sim:{directory}")
    assert isinstance(host, simulated.Simulated)
    simulated.move(host.world, old, new)
    app.after_boot(host)
    click.echo(f"{directory}: started again; what was at {old} is at {new} now.")
    return Exit.FINE


@sim.command()
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.option("--unplug", "pulled", metavar="PORT", help="Pull what is plugged into PORT.")
@click.option("--plug", "port", metavar="PORT", help="Plug in what was pulled, into PORT; with --id, a new device.")
@click.option("--from", "old", metavar="PORT", help="With --plug: the port that it was pulled from, if another.")
@click.option("--id", "ids", metavar="VVVV:PPPP", help="With --plug: a new device; else what the one in --at becomes.")
@click.option("--name", default="", help="With --plug --id: what the new device calls itself.")
@click.option("--at", metavar="PORT", help="With --id alone: the device that comes back as another one.")
def usb(
    directory: str, pulled: str | None, port: str | None, old: str | None, ids: str | None, name: str, at: str | None
) -> int:
    """Pull and plug USB devices of a running machine: --unplug 1-4, --plug 1-5 --from 1-4, --at 2-1 --id 18d1:9302."""
    from ... import app
    from ...host import simulated

    host = app.open_host(f"sim:{directory}")
    assert isinstance(host, simulated.Simulated)
    if not (pulled or port or (at and ids)):
        raise click.UsageError("Say --unplug PORT, --plug PORT, or --at PORT --id VVVV:PPPP.")
    if pulled:
        simulated.unplug(host.world, pulled)
        click.echo(f"{directory}: nothing is plugged into {pulled} any more.")
    if port:
        simulated.plug(host.world, port, pulled=old or "", ids=ids or "", name=name)
        click.echo(f"{directory}: plugged into {port}.")
    if at and ids and not port:
        simulated.become(host.world, at, ids)
        click.echo(f"{directory}: what is in {at} is {ids} now.")
    return Exit.FINE


@sim.command(name="exec", context_settings={"ignore_unknown_options": True, "allow_interspersed_args": False})
@click.argument("directory", type=click.Path(exists=True, file_okay=False))
@click.argument("words", nargs=-1, required=True, type=click.UNPROCESSED, metavar="-- COMMAND...")
def execute(directory: str, words: tuple[str, ...]) -> int:
    """Run one of the simulated host's commands, e.g.: sim exec DIR -- qm config 100"""
    from ... import app
    from ...host.base import HostError

    argv = words[1:] if words[0] == "--" else words
    if not argv:
        raise click.UsageError("Which command?")
    try:
        host = app.open_host(f"sim:{directory}")
        ran = host.run(argv)
    except HostError as error:
        raise Failure("sim.no-command", f"{argv[0]} did not run: {error.reason}.") from error
    sys.stdout.write(ran.stdout)
    sys.stderr.write(ran.stderr)
    done = app.after_boot(host)
    if done is not None:
        from ..render import text as people

        click.echo("(the boot unit has run)", err=True)
        people.run(people.console(err=True), done)
    return ran.rc
