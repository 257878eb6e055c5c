"""diagnose: from "it does not work" to the cause."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

import click

from ...errors import Exit, Failure
from ...knowledge.symptom_words import WORDS
from ...model.diagnosis import NO_FAULT, UNKNOWN
from .options import emit, host_of, output_format, someone_is_there

if TYPE_CHECKING:
    from ...app.walk import Walk

_EXITS = {NO_FAULT: Exit.FINE, UNKNOWN: Exit.COULD_NOT}


@click.command()
@click.option("--vm", "vmid", type=click.IntRange(100, 999_999_999), help="The guest that has the trouble.")
@click.option("--symptom", default="", metavar="TEXT", help="What is wrong, in your own words.")
@click.option("--for", "seen", type=click.Choice(tuple(WORDS)), help="What you see, in one word.")
@click.option("--log", "logs", multiple=True, metavar="FILE|FOLDER|-", help="Read this; repeatable.")
@click.option("--live/--no-live", default=None, help="Read this host too. Default: only when no --log is named.")
@click.option("--seconds", type=click.FloatRange(0, 600), default=None, metavar="SECONDS",
              help="With --for slow: how long to measure (3).")  # fmt: skip
@click.option("--watch", "watching", is_flag=True, help="Follow the guest's next start, then diagnose.")
@click.option("--start", is_flag=True, help="With --watch: start the guest.")
@click.option("--patience", type=click.IntRange(5, 3600), default=300, show_default=True, metavar="SECONDS",
              help="With --watch: how long.")  # fmt: skip
@click.option("--walk", "walking", is_flag=True, help="One variable at a time, remembering what was tried.")
@click.option("--answer", type=click.Choice(("helped", "no", "skip")), help="With --walk: what came of the last try.")
@click.option("--anew", is_flag=True, help="With --walk: forget what was tried.")
@output_format
@click.pass_context
def diagnose(ctx: click.Context, /, form: str, **given: Any) -> int:
    """Name the cause, with the lines that prove it, and the one change to make next.

    Reads logs, listings, configurations, captures and reports, alone or together: from files and folders (--log), from
    standard input (--log -), or from this host. Nothing is changed.

    Exit: 0 nothing is wrong, 1 not established, 3 a cause is named.
    """
    _sensible(given)
    if given["walking"]:
        return _walk(ctx, given["vmid"], given["answer"], given["anew"], form)
    if given["seen"] == "slow" and given["vmid"] is not None and not (given["logs"] or given["symptom"]):
        from .slowness import slow

        return slow(ctx, given["vmid"], given["seconds"], form)
    if given["watching"]:
        _watch(ctx, given["vmid"], given["start"], given["patience"])
    return _ask(ctx, given, form)


def _sensible(given: dict[str, Any]) -> None:
    """Raises Failure for words that do not go together."""
    wrong = ""
    if (given["walking"] or given["watching"]) and given["vmid"] is None:
        wrong = "--walk and --watch are about one guest: name it with --vm"
    elif given["walking"] and (given["watching"] or given["logs"] or given["symptom"] or given["seen"]):
        wrong = "--walk looks at the guest itself and takes no --watch, --log, --symptom or --for"
    elif given["seconds"] is not None and (given["seen"] != "slow" or given["vmid"] is None):
        wrong = "--seconds belongs to --for slow --vm ID"
    elif given["seconds"] is not None and (given["logs"] or given["symptom"] or given["watching"]):
        wrong = "--seconds measures a running guest and takes no --log, --symptom or --watch"
    elif given["start"] and not given["watching"]:
        wrong = "--start belongs to --watch"
    elif (given["answer"] or given["anew"]) and not given["walking"]:
        wrong = "--answer and --anew belong to --walk"
    elif given["vmid"] is not None and given["live"] is False:
        wrong = "--vm looks at this host, --no-live forbids it"
    if wrong:
        raise Failure("diagnose.words", f"Nothing was read: {wrong}.", code=Exit.USAGE)


def _ask(ctx: click.Context, given: dict[str, Any], form: str) -> int:
    from ...app.diagnose import ask
    from ..render import diagnosis as render

    live, logs, vmid = given["live"], given["logs"], given["vmid"]
    here = live if live is not None else not logs or vmid is not None
    asked = ask(host_of(ctx) if here else None, logs, vmid, given["symptom"], seen=given["seen"] or "")

    def text() -> None:
        from ..render import text as people

        render.diagnosed(people.console(), asked)

    emit(form, lambda: render.diagnosed_data(asked), text)
    return _EXITS.get(asked.diagnosis.first.cause, Exit.BLOCKED)


# -- watching ------------------------------------------------------------------------------------


def _watch(ctx: click.Context, vmid: int, start: bool, patience: int) -> None:
    """Signs go to standard error as they come; the diagnosis follows on standard output."""
    from ...app.watch import Ended, Said, watch
    from ..render import diagnosis as render
    from ..render import text as people

    out = people.console(err=True)

    def tell(said: Said) -> None:
        if said.sign is not None:
            render.noticed(out, said.sign)
        else:
            render.remark(out, said.text)

    try:
        ended = watch(host_of(ctx), vmid, tell=tell, start=start, patience=float(patience))
    except KeyboardInterrupt:
        # A terminal interrupts every program in front of it, so `qm start` may have been stopped as well.
        asks = f"; whether its start was stopped too, `qm status {vmid}` says" if start else ""
        render.remark(out, f"stopped watching; nothing else was changed{asks}")
        return
    words = {
        Ended.WORKS: f"guest {vmid} runs and its agent answers",
        Ended.RUNS: f"guest {vmid} runs; no agent said whether its system is up",
        Ended.FAILED: f"the start of guest {vmid} failed",
        Ended.TIMEOUT: f"no start of guest {vmid} was seen within {patience} s",
    }
    render.remark(out, words[ended])


# -- walking -------------------------------------------------------------------------------------


def _walk(ctx: click.Context, vmid: int, answer: str | None, anew: bool, form: str) -> int:
    from ...app import walk as walking
    from ..render import walk as render
    from ..render.text import console

    host = host_of(ctx)
    if anew:
        click.echo("Forgotten." if walking.forget(host, vmid) else "There was nothing to forget.", err=True)
    result = walking.walk(host, vmid, walking.Answer(answer) if answer else None)
    asking = form == "text" and answer is None and someone_is_there() and host.changeable
    emit(form, lambda: render.walk_data(result), lambda: render.walked(console(), result, asking=asking))
    while asking and result.now is not None:
        given = click.prompt("Did it help?", type=click.Choice(("helped", "no", "skip", "look", "stop")),
                             default="look", err=True)  # fmt: skip
        if given == "stop":
            break
        result = walking.walk(host, vmid, walking.Answer(given) if given != "look" else None)
        render.walked(console(), result, asking=True)
    return _walk_exit(result)


def _walk_exit(result: Walk) -> int:
    if result.helped is not None:
        return Exit.FINE
    return Exit.BLOCKED if result.now is not None else Exit.COULD_NOT
