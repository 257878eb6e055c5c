"""Runs on the disk of the machine they concern: /var/lib/pve-passthrough/runs/<id>/{plan.json,journal.jsonl}.

1. A journal is only appended to, one JSON object a line, each durable before the next step is taken.
2. A last line without its newline, or one that is no event, is torn: it did not happen. Before the next append the torn
   tail is cut off, so that it cannot swallow the next event. A bad line anywhere else makes the run unreadable.
3. `unfinished` is the file the boot unit looks for. It is there before the first change and goes when the run has
   ended. It is a hint for systemd; the journals decide.
4. An event that could not be recorded stops everything (`Unrecorded`): the next call finds the last recorded truth.
5. What is read back is checked: a plan or a journal that does not fit is a Failure `run.unreadable` naming the file.
"""

from __future__ import annotations

import json
import re
import time
from dataclasses import dataclass
from functools import cache
from typing import TYPE_CHECKING, Any, get_args

from ..errors import Failure, Problem
from ..host.base import Host, HostError, Missing, read_text, text_or_none, to_bytes
from ..model import own
from ..model.pci import Address
from ..model.plan import Plan
from ..model.run import ENDED, Event, IllegalEvent, Kind, Phase, Run, phase_after
from ..model.wish import Wish

if TYPE_CHECKING:
    from cattrs import Converter

STATE = own.STATE
RUNS = own.RUNS
MARKER = f"{STATE}/unfinished"
FORMAT = 1
_ID = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")


class Unrecorded(Failure):
    """An event could not be written down."""


@dataclass(frozen=True, slots=True)
class Listing:
    """All runs of a machine, oldest name first, and what could not be read."""

    runs: tuple[Run, ...]
    problems: tuple[Problem, ...]


# -- plans ---------------------------------------------------------------------------------------


def dump_plan(plan: Plan) -> str:
    """The plan as JSON text with a format number. Bytes that are not UTF-8 survive as escaped surrogates."""
    return json.dumps({"format": FORMAT, "plan": _converter().unstructure(plan)}, indent=1) + "\n"


def load_plan(text: str, origin: str = "plan.json") -> Plan:
    """The inverse of `dump_plan`. Raises Failure `run.unreadable` naming `origin`."""
    try:
        data = json.loads(text)
        number = data["format"]
        if number != FORMAT:
            raise ValueError(f"format {number!r}, this program reads {FORMAT}")
        return _converter().structure(data["plan"], Plan)
    except Exception as error:  # cattrs raises groups and whatever a constructor raises: all mean the same here
        raise _unreadable(origin, _innermost(error)) from error


def _innermost(error: BaseException) -> str:
    """cattrs groups the real reason inside groups; one line of it is enough."""
    while isinstance(inner := getattr(error, "exceptions", None), tuple) and inner:
        error = inner[0]
    return f"{type(error).__name__}: {error}"


@cache
def _converter() -> Converter:
    """JSON forms: an address as text, an enum as its value, a wish with the name of its class under `wish`."""
    from cattrs.preconf.json import make_converter

    converter = make_converter(forbid_extra_keys=True)
    wishes = {kind.__name__: kind for kind in get_args(Wish)}

    def tag(wish: Any) -> dict[str, Any]:
        return {"wish": type(wish).__name__, **converter.unstructure(wish, type(wish))}

    def untag(data: dict[str, Any], _: object) -> Any:
        fields = dict(data)
        return converter.structure(fields, wishes[fields.pop("wish")])

    def text(data: object, _: object) -> str:
        if not isinstance(data, str):
            raise ValueError(f"text was expected, not {data!r}")
        return data

    converter.register_unstructure_hook_func(lambda kind: kind == Wish, tag)
    converter.register_structure_hook_func(lambda kind: kind == Wish, untag)
    converter.register_unstructure_hook_func(lambda kind: kind is Address, str)
    converter.register_structure_hook_func(lambda kind: kind is Address, lambda data, _: Address.parse(data))
    converter.register_structure_hook(str, text)
    return converter


# -- journals ------------------------------------------------------------------------------------


def boot_id(host: Host) -> str:
    """This boot's name. Raises Failure `host.no-boot-id`."""
    path = "/proc/sys/kernel/random/boot_id"
    try:
        return read_text(host, path).strip()
    except HostError as error:
        raise Failure("host.no-boot-id", "nothing was changed: this boot has no readable id", str(error)) from error


def create(host: Host, plan: Plan) -> Run:
    """Write the plan down and record that it starts. Raises Failure `run.exists`, Unrecorded."""
    folder = _folder(plan.id)
    try:
        if _events(host, plan.id):
            message = f"nothing was changed: there is already a run {plan.id}"
            raise Failure("run.exists", message, hint="make a new plan")
        for directory in (STATE, RUNS, folder):
            host.make_dir(directory, 0o700)
        host.write(f"{folder}/plan.json", to_bytes(dump_plan(plan)), 0o600)
    except HostError as error:
        message = "nothing was changed: the plan could not be written down"
        raise Unrecorded("run.unrecorded", message, str(error)) from error
    mark(host, plan.id)
    return record(host, Run(plan, ()), Kind.STARTED)


def mark(host: Host, run_id: str) -> None:
    """Give the boot unit its reason to start; always before the run begins or begins to go back. Raises Unrecorded."""
    try:
        host.write(MARKER, to_bytes(f"{run_id}\n"), 0o600)
    except HostError as error:
        message = f"nothing was changed: {MARKER} could not be written, so a reboot could not be survived"
        raise Unrecorded("run.unrecorded", message, str(error)) from error


def record(host: Host, run: Run, kind: Kind, detail: str = "") -> Run:
    """Append one event and return the run after it. Raises IllegalEvent, Unrecorded; then nothing has happened."""
    event = Event(kind, boot_id(host), time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime()), detail)
    after = run.with_event(event)
    path = f"{_folder(run.id)}/journal.jsonl"
    line = {"event": kind.value, "boot": event.boot_id, "time": event.time, "detail": detail}
    try:
        _cut_torn_tail(host, path)
        host.append(path, to_bytes(json.dumps(line) + "\n"))
    except HostError as error:
        message = f"run {run.id} stopped in phase '{(run.phase if run.events else Phase.APPLYING).value}': "
        raise Unrecorded(
            "run.unrecorded",
            f"{message}its journal could not be written",
            str(error),
            hint="make room or make it writable, then `pve-passthrough resume`",
        ) from error
    return after


def finish(host: Host) -> None:
    """Take away the boot unit's reason to start."""
    try:
        if text_or_none(host, MARKER) is not None:
            host.write(MARKER, None)
    except HostError as error:
        raise Unrecorded("run.unrecorded", "the run has ended; its marker could not be removed", str(error)) from error


def load(host: Host, run_id: str) -> Run:
    """Raises Failure `run.missing`, `run.unreadable`."""
    folder = _folder(run_id)
    events = _events(host, run_id)
    if not events:
        raise Failure("run.missing", f"there is no run {run_id}", hint="`pve-passthrough status` lists the runs")
    path = f"{folder}/plan.json"
    try:
        plan = load_plan(read_text(host, path), path)
    except HostError as error:
        raise _unreadable(path, str(error)) from error
    if plan.id != run_id:
        raise _unreadable(path, f"it is the plan of run {plan.id}")
    return Run(plan, events)


def run_ids(host: Host) -> tuple[str, ...]:
    """Names of all runs, oldest name first. Raises Failure `run.unreadable` when the folder cannot be read."""
    try:
        return tuple(name for name in host.names(RUNS) if _ID.fullmatch(name))
    except Missing:
        return ()
    except HostError as error:
        raise _unreadable(RUNS, str(error)) from error


def all_runs(host: Host) -> Listing:
    """Every run that began, and a problem for each that cannot be read."""
    runs: list[Run] = []
    problems: list[Problem] = []
    for run_id in run_ids(host):
        try:
            if _events(host, run_id):
                runs.append(load(host, run_id))
        except Failure as failure:
            problems.append(failure.problem)
    return Listing(tuple(runs), tuple(problems))


def unfinished(host: Host) -> Run | None:
    """The run that has not ended. Raises Failure `run.unreadable` when that run cannot be read.

    A journal that cannot be read is passed over unless the marker says that it is the unfinished one.
    """
    marked = (_marked(host) or "").strip()
    for run_id in reversed(run_ids(host)):
        try:
            phase = phase_after(_events(host, run_id))
        except Failure:
            if run_id == marked:
                raise
            continue
        if phase is not None and phase not in ENDED:
            return load(host, run_id)
    return None


def _marked(host: Host) -> str | None:
    try:
        return text_or_none(host, MARKER)
    except HostError as error:
        raise _unreadable(MARKER, str(error)) from error


def _events(host: Host, run_id: str) -> tuple[Event, ...]:
    path = f"{_folder(run_id)}/journal.jsonl"
    try:
        text = text_or_none(host, path) or ""
    except HostError as error:
        raise _unreadable(path, str(error)) from error
    events = tuple(_event(line, path, number) for number, line in enumerate(_whole_lines(text), 1))
    try:
        phase_after(events)
    except IllegalEvent as error:
        raise _unreadable(path, str(error)) from error
    return events


def _whole_lines(text: str) -> list[str]:
    """The lines that count: all up to the last newline, without a last one that is no event."""
    lines = text.split("\n")[:-1]
    if lines and _decode(lines[-1]) is None:
        del lines[-1]
    return lines


def _event(line: str, path: str, number: int) -> Event:
    event = _decode(line)
    if event is None:
        raise _unreadable(path, f"line {number} is no event: {line[:80]!r}")
    return event


def _decode(line: str) -> Event | None:
    try:
        data = json.loads(line)
        parts = (data["boot"], data["time"], data["detail"])
        return Event(Kind(data["event"]), *parts) if all(isinstance(part, str) for part in parts) else None
    except (ValueError, KeyError, TypeError):
        return None


def _cut_torn_tail(host: Host, path: str) -> None:
    text = text_or_none(host, path) or ""
    kept = "".join(f"{line}\n" for line in _whole_lines(text))
    if kept != text:
        host.write(path, to_bytes(kept), 0o600)


def _folder(run_id: str) -> str:
    if _ID.fullmatch(run_id) is None:
        raise Failure("run.missing", f"{run_id!r} cannot be the name of a run")
    return f"{RUNS}/{run_id}"


def _unreadable(path: str, reason: str) -> Failure:
    hint = "nothing is done with a run that cannot be read; its plan.json names every place and the text it had before"
    return Failure("run.unreadable", f"{path} cannot be read", reason, hint=hint)
