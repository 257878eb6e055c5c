"""The systemd unit that takes an unfinished run on after a reboot.

1. It starts only while `journal.MARKER` exists, so it costs a finished machine nothing.
2. It is not a cell of a plan: the way back removes a plan's cells before its refreshes and before its reboot, and a
   power cut in between would find nobody to go on. `install` comes before a run, `remove` after it has ended.
3. A unit that a package brought is used as it is and never removed.
4. It runs after /etc/pve is there and before guests start: a way back must reach a guest before the guest is started.
"""

from __future__ import annotations

import re

from ..errors import Failure
from ..host.base import Host, HostError, text_or_none, to_bytes
from ..model.plan import Cell
from .cells import read_cell, write_cell
from .journal import MARKER

NAME = "pve-passthrough-resume.service"
PATH = f"/etc/systemd/system/{NAME}"
PACKAGED = f"/usr/lib/systemd/system/{NAME}"
_UNIT = Cell("unit", NAME)


def install(host: Host, program: str) -> None:
    """Make sure that the unit is there and enabled; twice is as good as once. Raises Failure `unit.not-installed`."""
    try:
        if text_or_none(host, PACKAGED) is None and text_or_none(host, PATH) != unit_text(program):
            host.write(PATH, to_bytes(unit_text(program)))
    except HostError as error:
        message = "nothing was changed: the unit that finishes a run after a reboot could not be installed"
        raise Failure("unit.not-installed", message, str(error)) from error
    if (now := read_cell(host, _UNIT)) != "enabled":
        write_cell(host, _UNIT, now, "enabled")


def remove(host: Host) -> None:
    """Take away what `install` wrote; for when no run is unfinished. What is left behind by a failure is harmless:
    without the marker the unit does nothing."""
    try:
        if text_or_none(host, PATH) is None:
            return
        if (now := read_cell(host, _UNIT)) == "enabled":
            write_cell(host, _UNIT, now, "disabled")
        host.write(PATH, None)
    except (HostError, Failure) as error:
        raise Failure("unit.not-removed", f"{PATH} could not be removed; it does nothing", str(error)) from error


def unit_text(program: str) -> str:
    """The unit's text; `program` is the absolute path of this program. Raises Failure `unit.not-installed`.

    Guests that are under high availability are started by pve-ha-lrm, all others by pve-guests.

    TimeoutStartSec: rebuilding every kernel's initial RAM disk takes minutes on slow machines, and a way back that is
    killed half-way is what the unit is there to prevent.
    """
    return f"""\
[Unit]
Description=Take on an unfinished pve-passthrough run
ConditionPathExists={MARKER}
After=local-fs.target corosync.service pve-cluster.service
Before=pve-guests.service pve-ha-lrm.service

[Service]
Type=oneshot
ExecStart={_word(program)} resume --boot
TimeoutStartSec=1h

[Install]
WantedBy=multi-user.target
"""


def _word(program: str) -> str:
    """One word of a command line: in quotes, with `%` doubled (systemd.service(5), COMMAND LINES).

    A `$` stays: variables are not substituted in the path of the program itself. systemd 252 refuses a path with
    quotes, backslashes or control characters, however it is written ("Executable name contains special characters").
    """
    if not program.isprintable() or not {"'", '"', "\\"}.isdisjoint(program):
        message = "nothing was changed: the path of this program cannot stand in a unit"
        raise Failure("unit.not-installed", message, ascii(program), hint="put the program elsewhere")
    plain = re.fullmatch(r"[A-Za-z0-9_./+@:,=-]+", program)
    return program if plain else '"{}"'.format(program.replace("%", "%%"))
