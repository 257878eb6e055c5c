"""rom: look at an option ROM file, mend it, take one from a card, give one to a guest's card."""

from __future__ import annotations

import shlex
from typing import TYPE_CHECKING

import click

from ...errors import Exit
from .options import emit, host_of, output_format

if TYPE_CHECKING:
    from ...app.roms import Report

_out = click.option("-o", "--output", "out", required=True, type=click.Path(dir_okay=False), help="The new file.")
_accept = click.option("--accept", multiple=True, metavar="HAZARD", help="Take a hazard that was named; repeatable.")


@click.group()
def rom() -> None:
    """Option ROMs of graphics cards: check a file, fix it, dump a card's own, install one for a guest."""


@rom.command()
@click.argument("file", type=click.Path())
@click.option("--device", "word", metavar="DEVICE|ID", help="Is it for this device (an address) or ID (10de:2684)?")
@output_format
@click.pass_context
def check(ctx: click.Context, file: str, word: str | None, form: str) -> int:
    """What FILE holds, and whether a guest can use it.

    The verdict is usable, legacy-only (for SeaBIOS; AMD processors' usually are), fixable, truncated or unusable.

    Exit: 0 usable or legacy-only, 3 of no use as it is.
    """
    from ...app import roms
    from ..render import roms as render

    found = roms.check(host_of(ctx) if word else None, file, word)
    step = _next(found, word or "DEVICE")

    def text() -> None:
        from ..render import text as people

        render.show(people.console(), found, step)

    emit(form, lambda: render.report(found) | {"next": step}, text)
    return Exit.FINE if found.usable else Exit.BLOCKED


@rom.command()
@click.argument("file", type=click.Path())
@_out
@output_format
@click.pass_context
def fix(ctx: click.Context, file: str, out: str, form: str) -> int:
    """Write the images of FILE alone: without a container before them, without mere padding behind them.

    Nothing is written when it cannot be proven right, and no file is replaced.
    """
    from ...app import roms
    from ..render import roms as render

    done = roms.fix(file, out)

    def text() -> None:
        from ..render import text as people

        render.show(people.console(), done.report, _next(done.report))
        click.echo(f"{done.before} bytes before the images and {done.after} behind them were left out.", err=True)

    emit(form, lambda: render.fixed(done), text)
    return Exit.FINE if done.report.usable else Exit.BLOCKED


@rom.command()
@click.argument("word", metavar="DEVICE")
@_out
@click.option(
    "--source", type=click.Choice(["card", "vfct"]), help="The card's own window, or the firmware's table VFCT (AMD)."
)
@_accept
@output_format
@click.pass_context
def dump(ctx: click.Context, word: str, out: str, source: str | None, accept: tuple[str, ...], form: str) -> int:
    """Take the ROM of DEVICE into a new file.

    Graphics in an AMD processor have theirs in the firmware's table VFCT. A card in use is not read: it may not answer
    its driver meanwhile. The boot display shows a copy that the firmware may have changed.

    Exit: 0 usable or legacy-only, 3 written and of no use as it is, 1 nothing could be read, 7 refused.
    """
    from ...app import roms
    from ..render import roms as render

    done = roms.dump(host_of(ctx), word, out, source=source, accept=accept)

    def text() -> None:
        from ..render import text as people

        screen = people.console()
        render.show(screen, done.report, _next(done.report, str(done.device.address)))
        for note in (f"read from {done.source}", *done.notes):
            click.echo(f"  {note}", err=True)

    emit(form, lambda: render.dumped(done), text)
    return Exit.FINE if done.report.usable else Exit.BLOCKED


@rom.command()
@click.argument("file", type=click.Path())
@click.argument("word", metavar="DEVICE")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), required=True, help="The guest that has DEVICE.")
@click.option("--name", help="The file's name in /usr/share/kvm (default: FILE's own).")
@_accept
@click.option("--yes", is_flag=True, help="Answer the ordinary question with yes. Never answers a hazard.")
@output_format
@click.pass_context
def install(
    ctx: click.Context,
    file: str,
    word: str,
    vmid: int,
    name: str | None,
    accept: tuple[str, ...],
    yes: bool,
    form: str,
) -> int:
    """Put FILE where Proxmox VE reads it, and let the guest's entry of DEVICE name it; `undo` takes it back.

    A function that is not the first of its entry gets an entry of its own.

    Exit: 0 done, 3 the file is of no use, 7 refused, 6 it failed and was taken back.
    """
    from ... import app
    from ...app import roms
    from .changing import carry_out

    host = host_of(ctx)
    app.may_change(host)
    made = roms.plan_install(host, file, word, vmid, name=name, accept=accept)
    return carry_out(host, made.plan, yes, form)


def _next(found: Report, device: str = "DEVICE") -> str:
    """The command that a person would type next."""
    file = shlex.quote(found.name)
    if found.verdict.value == "fixable":
        return f"pve-passthrough rom fix {file} -o NEWFILE"
    return f"pve-passthrough rom install {file} {device} --vm ID" if found.usable else ""
