"""The state machine of a run: its table, and what folding it can never do."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.model.plan import Plan
from pve_passthrough.model.run import ENDED, TRANSITIONS, Event, IllegalEvent, Kind, Phase, Run, phase_after

PLAN = Plan("a-run", "pve", "a test")


def _run(*kinds: Kind) -> Run:
    return Run(PLAN, tuple(Event(kind, "boot", "now") for kind in kinds))


@st.composite
def lives(draw: st.DrawFn) -> tuple[Kind, ...]:
    """A random walk through the table."""
    kinds = [Kind.STARTED]
    phase: Phase = Phase.APPLYING
    for _ in range(draw(st.integers(0, 20))):
        choices = sorted((kind for at, kind in TRANSITIONS if at is phase), key=lambda kind: kind.value)
        if not choices:
            break
        kinds.append(draw(st.sampled_from(choices)))
        phase = TRANSITIONS[phase, kinds[-1]]
    return tuple(kinds)


@given(lives())
def test_a_run_retreats_by_itself_at_most_once_and_never_goes_forward_again(kinds: tuple[Kind, ...]) -> None:
    assert _run(*kinds).retreats <= 1
    back = [at for at, kind in enumerate(kinds) if kind in (Kind.RETREATED, Kind.UNDO_ASKED)]
    if back:
        assert not {Kind.APPLIED, Kind.VERIFIED, Kind.BOOTED} & set(kinds[back[0] :])


@given(lives(), st.sampled_from(list(Kind)))
def test_what_is_not_in_the_table_is_an_error(kinds: tuple[Kind, ...], another: Kind) -> None:
    run = _run(*kinds)
    if (run.phase, another) in TRANSITIONS:
        assert run.with_event(Event(another, "b", "t")).phase is TRANSITIONS[run.phase, another]
    else:
        with pytest.raises(IllegalEvent):
            run.with_event(Event(another, "b", "t"))


def test_every_phase_can_be_reached_and_every_one_but_undone_can_be_left() -> None:
    assert set(TRANSITIONS.values()) == set(Phase)
    assert {phase for phase, _ in TRANSITIONS if phase} == set(Phase) - {Phase.UNDONE}


def test_only_a_person_leaves_what_has_ended() -> None:
    assert {kind for phase, kind in TRANSITIONS if phase in ENDED} == {Kind.UNDO_ASKED}


def test_no_events_no_phase() -> None:
    assert phase_after(()) is None
    with pytest.raises(IllegalEvent):
        _ = _run().phase
