"""inside: what to install in the guest. Changes nothing."""

from __future__ import annotations

import click

from ...errors import Exit
from ...knowledge.guest_drivers import AI, OSES, USES
from .options import emit, host_of, output_format

FORMS = ("text", "cloud-init", "shell")


@click.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]...")
@click.option("--os", "os_name", required=True, type=click.Choice(OSES), help="The system in the guest.")
@click.option("--use", type=click.Choice(USES), default=AI, show_default=True, help="What the card is for.")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="The guest: its devices, its Secure Boot.")
@click.option(
    "--format",
    "shape",
    type=click.Choice(FORMS),
    default="text",
    show_default=True,
    help="In words, as user data for cloud-init, or as a script.",
)
@output_format
@click.pass_context
def inside(
    ctx: click.Context, words: tuple[str, ...], os_name: str, use: str, vmid: int | None, shape: str, form: str
) -> int:
    """What a Linux guest installs so that it can use DEVICE (or all devices of guest --vm).

    DEVICE is as for check. A vendor:device may also be of a card that this host does not have.

    Only packages of the distribution's own archive are used. Windows: see guest-windows.md in the documentation.
    """
    from ...app.inside import inside as look_inside
    from ...planning.inside import cloud_init, shell
    from ..render import inside as render

    made = look_inside(host_of(ctx), words, os_name, use, vmid)

    def text() -> None:
        if shape == "text":
            render.text(made)
        else:
            click.echo(cloud_init(made) if shape == "cloud-init" else shell(made), nl=False)

    emit(form, lambda: render.data(made), text)
    return Exit.FINE
