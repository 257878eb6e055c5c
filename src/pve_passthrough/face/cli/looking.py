"""check, devices, explain, capture: verbs that change nothing on the host."""

from __future__ import annotations

import os

import click

from ...errors import Exit, Failure
from ...model.finding import Verdict
from .options import emit, host_of, output_format

_EXITS = {
    Verdict.READY: Exit.FINE,
    Verdict.CHANGES_NEEDED: Exit.PENDING,
    Verdict.BLOCKED: Exit.BLOCKED,
    Verdict.UNKNOWN: Exit.COULD_NOT,
}


@click.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]...")
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="Judge this guest too.")
@click.option("--all", "all_findings", is_flag=True, help="Show what is fine as well.")
@output_format
@click.pass_context
def check(ctx: click.Context, words: tuple[str, ...], vmid: int | None, all_findings: bool, form: str) -> int:
    """Is this host (or DEVICE, or guest --vm) ready for passthrough, and why?

    DEVICE is an address, vendor:device, a mapping name, or a class word such as gpu or gpu:2.

    Exit: 0 ready, 1 unknown, 3 blocked, 4 changes needed.
    """
    from ... import app
    from ..render import data

    result = app.check(host_of(ctx), words, vmid)
    next_step = app.next_step(result, words)

    def text() -> None:
        from ..render import text as people

        people.checked(people.console(), result, next_step, all_findings=all_findings)

    emit(form, lambda: data.checked(result, next_step), text)
    return _EXITS[result.verdict]


@click.command()
@click.argument("words", nargs=-1, metavar="[DEVICE]...")
@click.option("--groups", "shape", flag_value="groups", help="By IOMMU group.")
@click.option("--tree", "shape", flag_value="tree", help="As the tree of bridges.")
@click.option("--usb", "shape", flag_value="usb", help="USB devices and their controllers.")
@output_format
@click.pass_context
def devices(ctx: click.Context, words: tuple[str, ...], shape: str | None, form: str) -> int:
    """Inventory: groups, drivers, who uses what, and what a guest start would take from the host."""
    from ... import app
    from ..render import data

    facts = app.look(host_of(ctx), inventory=True)
    wanted = frozenset(app.resolve(facts, words))
    chosen = [one for one in facts.devices if not wanted or one.address in wanted]

    def text() -> None:
        from ..render import text as people

        out = people.console()
        if shape == "groups":
            people.groups(out, facts)
        elif shape == "tree":
            people.tree(out, facts)
        elif shape == "usb":
            people.usb(out, facts)
        else:
            people.devices(out, facts, chosen)

    emit(form, lambda: data.devices(facts, chosen), text)
    return Exit.FINE


@click.command()
@click.argument("rule", required=False)
def explain(rule: str | None) -> int:
    """The page of RULE, or of a cause that diagnose names: why it matters, where to look, how to mend it, and the
    source. Without RULE: all names, those of causes last."""
    from ... import rules
    from ...app import causes

    names = (*rules.page_ids(), *causes.names())
    if rule is None:
        for name in names:
            click.echo(name)
        return Exit.FINE
    page = rules.page(rule)
    if page is None and (told := causes.page(rule)) is not None:
        click.echo(told)
        return Exit.FINE
    if page is None:
        near = ", ".join(name for name in names if rule.rpartition(".")[2] in name)
        raise Failure(
            "explain.unknown", f"There is no page {rule!r}.",
            hint=f"Near: {near}" if near else "List them: pve-passthrough explain", code=Exit.USAGE,
        )  # fmt: skip
    click.echo(f"{rule}\n{'=' * len(rule)}\n\n{page}")
    return Exit.FINE


@click.command()
@click.option("-o", "--output", default="capture.tar.gz", show_default=True, type=click.Path(dir_okay=False))
@click.option("--not-redacted", is_flag=True, help="Keep serials, addresses, names. For your own eyes only.")
@click.option("--force", is_flag=True, help="Replace an existing file.")
@click.option("--logs", is_flag=True, help="What diagnose reads too: kernel log, tasks of guests with devices.")
@click.pass_context
def capture(ctx: click.Context, output: str, not_redacted: bool, force: bool, logs: bool) -> int:
    """Record every question and answer of a deep look at this host.

    Serial numbers, MAC and IP addresses, UUIDs, names, keys and cloud-init passwords are replaced before anything is
    written. The file replays anywhere: pve-passthrough --host capture:FILE check
    """
    from ... import app

    if os.path.exists(output) and not force:
        raise Failure("capture.exists", f"Nothing was written: {output} exists.", hint="Use --force or another name.")
    data = app.capture(host_of(ctx), redacted=not not_redacted, logs=logs)
    try:
        with open(output, "wb", opener=lambda path, flags: os.open(path, flags, 0o600)) as stream:
            stream.write(data)
    except OSError as error:
        raise Failure("capture.not-written", f"The capture was not written: {output}: {error.strerror}.") from error
    click.echo(f"{output}: {len(data)} bytes. Look through it before you share it: tar xOf {output} answers.json")
    return Exit.FINE
