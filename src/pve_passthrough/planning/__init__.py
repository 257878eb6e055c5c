"""Wishes + facts -> plan. Pure: nothing here reads or changes a machine.

1. `resolve` turns words into functions, `give` a goal into wishes, `make_plan` wishes into a plan,
   `unified` a change into something to read.
2. Imports knowledge, model and errors only; it cannot ask the machine, so it can be run on last year's capture.
"""

from __future__ import annotations

from .choose import mappings_named, resolve
from .compile import make_plan
from .diff import unified
from .goals import changeable_guest, give
from .hookscript import guard
from .outcome import outcome

__all__ = ["changeable_guest", "give", "guard", "make_plan", "mappings_named", "outcome", "resolve", "unified"]
