"""Options that several verbs share, and how a result becomes output."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from typing import Any, TypeVar

import click

from ...errors import Exit, Failure

_Command = TypeVar("_Command", bound=Callable[..., Any])

FORMATS = ("text", "json", "json-pretty", "yaml")


def output_format(command: _Command) -> _Command:
    """--output-format as in Proxmox VE's own tools."""
    return click.option(
        "--output-format",
        "form",
        type=click.Choice(FORMATS),
        default="text",
        show_default=True,
        help="How the result is printed.",
    )(command)


def host_of(context: click.Context) -> Any:
    """The host named by --host, opened."""
    from ...app import open_host

    return open_host(context.obj)


def emit(form: str, data: Callable[[], Any], text: Callable[[], None]) -> None:
    """Print the result: `data` makes plain values, `text` prints for people."""
    if form == "text":
        text()
    elif form == "yaml":
        import yaml

        click.echo(yaml.safe_dump(data(), sort_keys=False), nl=False)
    else:
        indent = 2 if form == "json-pretty" else None
        click.echo(json.dumps(data(), indent=indent, ensure_ascii=True))


def confirm(question: str, yes: bool) -> None:
    """Ask, unless the answer was given. Raises Failure where there is nobody to ask, Abort for a no."""
    if yes:
        return
    if not someone_is_there():
        raise Failure(
            "confirm.nobody", "Nothing was changed: there is nobody to ask.", hint="Add --yes.", code=Exit.USAGE
        )
    if not click.confirm(question, err=True, default=False):
        raise click.Abort


def someone_is_there() -> bool:
    return sys.stdin is not None and sys.stdin.isatty()
