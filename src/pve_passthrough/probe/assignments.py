"""What earlier runs have given to guests, and the hookscripts that they have put in place.

1. Read from the runs' own records, which may be torn, forged or of another version: what does not fit is a gap and
   never believed in part.
2. Cheap: without records one question; a record is opened only when its run stands.
3. An older plan remembers no identities. That is no gap; the rules say that nothing is remembered.
4. Hookscripts are looked for on storages of this machine's own disks alone: a file server that does not answer must not
   hold up a look.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from typing import Any

from ..host.base import HostError
from ..model.facts import Storage
from ..model.hookscript import OURS, folder_of
from ..model.identity import Assignment, Identity
from ..model.own import RUNS
from ..model.pci import Address
from ..model.run import Event, IllegalEvent, Kind, Phase, phase_after
from ..model.usb import is_port
from .asking import Asking

MOST_RUNS = 2000
MOST_FUNCTIONS = 1024
MOST_SCRIPTS = 512
LONGEST = 4 * 1024 * 1024
_RUN = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,99}")
_ID = re.compile(r"[0-9a-f]{4}:[0-9a-f]{4}")


class _Unfit(ValueError):
    """A record that is not one."""


def probe_assignments(ask: Asking) -> tuple[Assignment, ...]:
    """One for each kept run that remembers devices, oldest first."""
    names = tuple(name for name in ask.names(RUNS, "assignments") or () if _RUN.fullmatch(name))
    if len(names) > MOST_RUNS:
        ask.gap("assignments", f"more than {MOST_RUNS} runs; only the latest are known")
    found = (_assignment(ask, name) for name in names[-MOST_RUNS:])
    return tuple(one for one in found if one is not None)


def kept_plans(ask: Asking) -> Iterator[dict[str, Any]]:
    """The plans of all kept runs as they were written down, oldest first; what is no record is a gap."""
    for name in [name for name in ask.names(RUNS, "assignments") or () if _RUN.fullmatch(name)][-MOST_RUNS:]:
        try:
            text = ask.text(f"{RUNS}/{name}/plan.json") if _kept(ask.text(f"{RUNS}/{name}/journal.jsonl")) else None
            if text is not None:
                yield _object(_object(_json(text)).get("plan"))
        except _Unfit as error:
            ask.gap("assignments", f"not a record of this program: {error}", f"{RUNS}/{name}")


def _assignment(ask: Asking, name: str) -> Assignment | None:
    try:
        if not _kept(ask.text(f"{RUNS}/{name}/journal.jsonl", "assignments")):
            return None
        text = ask.text(f"{RUNS}/{name}/plan.json", "assignments")
        return None if text is None else _parsed(name, text)
    except _Unfit as error:
        ask.gap("assignments", f"not a record of this program: {error}", f"{RUNS}/{name}")
    return None


def _kept(journal: str | None) -> bool:
    """Whether the run stands. A torn last line did not happen (see change.journal)."""
    if journal is None:
        return False
    lines = journal.split("\n")[:-1]
    kinds = [_kind(line) for line in lines]
    if kinds and kinds[-1] is None:
        del kinds[-1]
    if None in kinds:
        raise _Unfit("a line of the journal is no event")
    try:
        return phase_after(Event(kind, "", "") for kind in kinds if kind is not None) is Phase.KEPT
    except IllegalEvent as error:
        raise _Unfit(str(error)) from error


def _kind(line: str) -> Kind | None:
    try:
        return Kind(_object(_json(line)).get("event"))
    except ValueError:
        return None


def _json(text: str) -> object:
    import json  # most hosts have no record to read

    if len(text) > LONGEST:
        raise _Unfit(f"longer than {LONGEST} characters")
    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise _Unfit("no JSON") from error
    return loaded


def _object(value: object) -> dict[str, Any]:
    if not isinstance(value, dict):
        raise _Unfit("a JSON object was expected")
    return value


def _parsed(run: str, text: str) -> Assignment | None:
    plan = _object(_object(_json(text)).get("plan"))
    listed, vmid, usb = plan.get("identities") or [], plan.get("vmid"), _object(plan.get("usb") or {})
    if not (listed or usb) or vmid is None:
        return None
    if not isinstance(listed, list) or not isinstance(vmid, int) or len(listed) + len(usb) > MOST_FUNCTIONS:
        raise _Unfit("vmid and identities do not fit")
    if not all(is_port(port) and isinstance(one, str) and _ID.fullmatch(one) for port, one in usb.items()):
        raise _Unfit("its USB devices do not fit")
    return Assignment(run, vmid, tuple(_identity(_object(one)) for one in listed), usb)


def _identity(data: dict[str, Any]) -> Identity:
    """Every field is checked; a name is only ever shown."""
    try:
        address = Address.parse(_text(data, "address"))
    except ValueError as error:
        raise _Unfit(str(error)) from error
    identity, code, group, twins = _text(data, "id"), data.get("class_code"), data.get("group"), data.get("twins", [])
    if _ID.fullmatch(identity) is None or not (code is None or isinstance(code, int)):
        raise _Unfit(f"{address} has no identity")
    if not isinstance(twins, list) or not all(isinstance(one, str) for one in twins):
        raise _Unfit(f"the twins of {address} do not fit")
    return Identity(
        address, identity, _text(data, "name", ""), _text(data, "subsystem", ""), code, _text(data, "serial", ""),
        _text(data, "path", ""), None if group is None else _group(_object(group)), tuple(twins),
    )  # fmt: skip


def _text(data: dict[str, Any], key: str, default: str | None = None) -> str:
    value = data.get(key, default)
    if not isinstance(value, str) or len(value) > 1024:
        raise _Unfit(f"{key} is no text")
    return value


def _group(members: dict[str, Any]) -> dict[str, str]:
    if not all(isinstance(value, str) for value in members.values()):
        raise _Unfit("the members of a group do not fit")
    return members


# -- hookscripts ---------------------------------------------------------------------------------


def probe_hookscripts(ask: Asking, storages: Iterable[Storage]) -> dict[str, str | None]:
    """Folders that may hold our hookscripts, and the texts of those that are there."""
    found: dict[str, str | None] = {}
    for folder in dict.fromkeys(folder for storage in storages if (folder := folder_of(storage)) is not None):
        names = ask.names(folder, f"files.{folder}/")
        if names is None:
            if not any(gap.about == f"files.{folder}/" for gap in ask.gaps):
                found[f"{folder}/"] = None
            continue
        found[f"{folder}/"] = "directory"
        for name in [name for name in names if name.startswith(OURS)][:MOST_SCRIPTS]:
            _script(ask, f"{folder}/{name}", found)
    return found


def _script(ask: Asking, path: str, found: dict[str, str | None]) -> None:
    try:
        found[path] = ask.host.read(path).decode("utf-8", "surrogateescape")
    except HostError as error:
        ask.gap(f"files.{path}", error.reason)
