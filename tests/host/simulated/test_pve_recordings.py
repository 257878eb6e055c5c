"""Every recorded exchange with the real Proxmox VE 9.2 and 8.4, answered by the simulated one."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.host.simulated.replay_recordings import AGREE, DIFFER, KNOWN, replay
from tests.shared import needs_shared

FLOOR = {"pve9": 797, "pve8": 775}
"""Rows that agreed when this was written; fewer is a step back."""


@needs_shared
@pytest.mark.parametrize("recording", sorted(FLOOR))
def test_answers_are_those_of_the_recording(recording: str, tmp_path: Path) -> None:
    outcomes = replay(recording, tmp_path)
    differing = {f"{recording}:{outcome.row}": outcome for outcome in outcomes if outcome.verdict == DIFFER}
    unknown = [f"{name} {outcome.command}: {outcome.why}" for name, outcome in differing.items() if name not in KNOWN]
    assert not unknown, "\n".join(unknown)
    healed = [name for name in KNOWN if name.startswith(recording) and name not in differing]
    assert not healed, f"no longer differs, take it off the list: {healed}"
    assert sum(outcome.verdict == AGREE for outcome in outcomes) >= FLOOR[recording]
