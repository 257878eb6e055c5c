"""Candidate texts judged by the programs that will read them, before anything is written where it counts.

1. The candidate lies alone in a directory under /run; nothing else is written, and it is removed afterwards.
2. Who judges what is one literal table. A judge that is not installed is skipped, and the skipping is told.
3. A verdict is the program's own: its status, and for modprobe, which passes over bad lines with status 0, its
   complaint.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from ..errors import Failure
from ..host.base import Host, HostError, Missing, Ran, to_bytes
from ..model.plan import Change
from .cells import last_words

FOLDER = "/run/pve-passthrough"
CANDIDATES = f"{FOLDER}/candidate"


@dataclass(frozen=True, slots=True)
class Judge:
    """reads: whether it reads a file at this path with this text · argv: for the candidate's path · bad: its verdict"""

    reads: Callable[[str, str], bool]
    argv: Callable[[str], tuple[str, ...]]
    bad: Callable[[Ran], bool]


def _is_shell(path: str, text: str) -> bool:
    """/etc/default/grub and its drop-ins are sourced by sh (grub-mkconfig); initramfs scripts say so themselves."""
    return path.startswith("/etc/default/grub") or text.startswith(("#!/bin/sh\n", "#! /bin/sh\n"))


def _is_modprobe(path: str, text: str) -> bool:
    return path.startswith("/etc/modprobe.d/") and path.endswith(".conf")


JUDGES: tuple[Judge, ...] = (
    Judge(_is_shell, lambda path: ("sh", "-n", path), lambda ran: not ran.ok),
    # kmod 30: "… line 2: ignoring bad line starting with 'bogus'" on stderr, status 0.
    Judge(
        _is_modprobe,
        lambda path: ("modprobe", "-c", "-C", CANDIDATES),
        lambda ran: not ran.ok or f"{CANDIDATES}/" in ran.stderr,
    ),
)


def judge_candidates(host: Host, changes: Iterable[Change]) -> tuple[str, ...]:
    """Judge the new text of every file that has a judge. Raises Failure `plan.bad-text`, `plan.unjudged`.

    Returns the judges that were not there, in words.
    """
    notes: list[str] = []
    for change in changes:
        path, text = change.cell.name, change.after
        if change.cell.kind not in ("file", "script") or text is None:
            continue
        for judge in JUDGES:
            if judge.reads(path, text):
                notes += _judge(host, judge, path, text)
    return tuple(notes)


def _judge(host: Host, judge: Judge, path: str, text: str) -> list[str]:
    candidate = f"{CANDIDATES}/{path.rpartition('/')[2]}"
    argv = judge.argv(candidate)
    try:
        _prepare(host)
        host.write(candidate, to_bytes(text), 0o600)
        try:
            ran = host.run(argv)
        except Missing:
            return [f"{path} was not judged: {argv[0]} is not installed"]
        finally:
            host.write(candidate, None)
            host.remove_dir(CANDIDATES)
    except HostError as error:
        message = f"nothing was changed: the new text of {path} could not be judged"
        raise Failure("plan.unjudged", message, str(error)) from error
    if judge.bad(ran):
        words = (line.replace(candidate, path) for line in last_words(ran))
        raise Failure("plan.bad-text", f"nothing was changed: {argv[0]} does not take the new text of {path}", *words)
    return []


def _prepare(host: Host) -> None:
    """An empty directory for one candidate; what an interrupted judgement left in it goes."""
    host.make_dir(FOLDER, 0o700)
    host.make_dir(CANDIDATES, 0o700)
    for name in host.names(CANDIDATES):
        host.write(f"{CANDIDATES}/{name}", None)
