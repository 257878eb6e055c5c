"""Plan -> reality. Knows cells, refreshes and boots, not passthrough, so that it can be proven right alone.

1. `engine` decides, `cells` and `refresh` act, `journal` remembers; only they touch the host.
2. Callers use `start`, `advance`, `resume`, `undo`, and read runs through `load`, `unfinished`, `all_runs`.
"""

from . import boot_unit
from .cells import read_cell, same_text
from .engine import Drift, advance, machine_name, resume, start, undo
from .journal import MARKER, Listing, Unrecorded, all_runs, dump_plan, load, load_plan, unfinished

__all__ = [
    "MARKER",
    "Drift",
    "Listing",
    "Unrecorded",
    "advance",
    "all_runs",
    "boot_unit",
    "dump_plan",
    "load",
    "load_plan",
    "machine_name",
    "read_cell",
    "resume",
    "same_text",
    "start",
    "undo",
    "unfinished",
]
