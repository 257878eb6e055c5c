"""completion: what a shell needs to complete verbs and options."""

from __future__ import annotations

import click
from click.shell_completion import get_completion_class

from ...errors import Exit


@click.command()
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(shell: str) -> int:
    """Print the completion script for SHELL, e.g.: eval "$(pve-passthrough completion bash)" """
    from . import cli

    maker = get_completion_class(shell)
    if maker is None:
        return Exit.COULD_NOT
    click.echo(maker(cli, {}, "pve-passthrough", "_PVE_PASSTHROUGH_COMPLETE").source())
    return Exit.FINE
