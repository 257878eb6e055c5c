"""What people say about their trouble, and what it speaks for, as rows: one module per area.

1. `COMPLAINTS` is all of them. What a row is, and what weights mean: `row`. Shared fragments of patterns: `vocabulary`.
"""

from __future__ import annotations

from . import guests, harmless, places, platform, resets, setups, versions
from .row import Complaint

__all__ = ["COMPLAINTS", "Complaint"]

COMPLAINTS: tuple[Complaint, ...] = (
    *platform.ROWS,
    *places.ROWS,
    *resets.ROWS,
    *guests.ROWS,
    *setups.ROWS,
    *versions.ROWS,
    *harmless.ROWS,
)
