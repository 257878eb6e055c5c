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
from .usb import UsbHow, give_usb, resolve_usb

__all__ = [
    "UsbHow",
    "changeable_guest",
    "give",
    "give_usb",
    "guard",
    "make_plan",
    "mappings_named",
    "outcome",
    "resolve",
    "resolve_usb",
    "unified",
]
