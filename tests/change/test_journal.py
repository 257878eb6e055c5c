"""Plans and journals on disk: nothing is lost, nothing torn is believed, nothing odd is taken."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough import change
from pve_passthrough.change import journal
from pve_passthrough.errors import Failure
from pve_passthrough.model.finding import Actor, Finding, Fix, Level, Safety
from pve_passthrough.model.pci import Address
from pve_passthrough.model.plan import Cell, Change, Expectation, Plan
from pve_passthrough.model.run import Kind, Phase, Run
from pve_passthrough.model.wish import ArgAbsent, ArgPresent, ClaimByAddress, ClaimById, ModuleOption, Text, VmOption
from tests.change.scenarios import Toy, toy_reboot
from tests.hosts.memory import Memory

TEXTS = st.text(st.characters(codec=None), max_size=40)
"""All characters, lone surrogates (bytes that are not UTF-8) included."""

WISHES = st.one_of(
    st.builds(ArgPresent, TEXTS, TEXTS),
    st.builds(ArgAbsent, TEXTS, TEXTS),
    st.builds(ClaimById, st.tuples(TEXTS, TEXTS), st.tuples(TEXTS), TEXTS),
    st.builds(
        ClaimByAddress, st.builds(Address, st.integers(0, 0xFFFFFF), st.just(1), st.just(0), st.just(7)), TEXTS, TEXTS
    ),
    st.builds(ModuleOption, TEXTS, TEXTS, TEXTS),
    st.builds(VmOption, st.integers(100, 999), TEXTS, st.none() | TEXTS, TEXTS),
    st.builds(Text, TEXTS, TEXTS, TEXTS),
)
FINDINGS = st.builds(
    Finding,
    TEXTS,
    st.sampled_from(Level),
    TEXTS,
    TEXTS,
    st.lists(TEXTS, max_size=2).map(tuple),
    st.sampled_from(Actor),
    st.none() | st.builds(Fix, TEXTS, st.sampled_from(Safety), st.lists(TEXTS, max_size=2).map(tuple)),
    TEXTS,
)
PLANS = st.builds(
    Plan,
    id=TEXTS,
    machine=TEXTS,
    goal=TEXTS,
    wishes=st.lists(WISHES, max_size=3).map(tuple),
    changes=st.lists(
        st.builds(lambda name, text: Change(Cell("file", name), None, text, "why"), TEXTS, TEXTS),
        max_size=3,
        unique_by=lambda one: one.cell,
    ).map(tuple),
    refreshes=st.lists(TEXTS, max_size=2).map(tuple),
    reboot=st.booleans(),
    expects=st.lists(st.builds(Expectation, st.builds(Cell, TEXTS, TEXTS), st.none() | TEXTS, TEXTS), max_size=2).map(
        tuple
    ),
    irreversible=st.lists(TEXTS, max_size=2).map(tuple),
    risks=st.lists(FINDINGS, max_size=2).map(tuple),
    way_home=st.lists(TEXTS, max_size=2).map(tuple),
    vmid=st.none() | st.integers(100, 999),
)


@settings(max_examples=60)
@given(PLANS)
def test_a_plan_comes_back_as_it_was(plan: Plan) -> None:
    assert journal.load_plan(journal.dump_plan(plan)) == plan


@settings(max_examples=40)
@given(
    st.recursive(
        st.none() | st.booleans() | st.integers() | TEXTS, lambda more: st.lists(more) | st.dictionaries(TEXTS, more)
    )
)
def test_what_is_no_plan_is_refused(data: object) -> None:
    for text in (json.dumps(data), json.dumps({"format": 1, "plan": data}), str(data)):
        with pytest.raises(Failure) as caught:
            journal.load_plan(text)
        assert caught.value.problem.ref == "run.unreadable"


@pytest.mark.parametrize(
    "harm",
    [
        lambda data: data.update(format=2),
        lambda data: data["plan"].update(extra=1),
        lambda data: data["plan"].update(id=5),
        lambda data: data["plan"].pop("machine"),
        lambda data: data["plan"]["changes"].append(data["plan"]["changes"][0]),
        lambda data: data["plan"]["changes"][0]["cell"].update(kind="arg"),
    ],
)
def test_a_plan_with_one_thing_wrong_is_refused(harm: object) -> None:
    data = json.loads(journal.dump_plan(toy_reboot(Toy())))
    harm(data)  # type: ignore[operator]
    with pytest.raises(Failure):
        journal.load_plan(json.dumps(data))


@pytest.fixture
def memory() -> Memory:
    return Memory()


@pytest.fixture
def run(memory: Memory) -> Run:
    return journal.create(memory, Plan("one", "pve", "a test"))


PATH = f"{journal.RUNS}/one/journal.jsonl"


def test_every_cut_of_a_journal_is_an_earlier_state(memory: Memory, run: Run) -> None:
    for kind in (Kind.WROTE, Kind.REFRESHED, Kind.APPLIED, Kind.VERIFIED):
        run = journal.record(memory, run, kind, "détail\nwith two lines \udcff")
    whole = memory.disk[PATH]
    for length in range(len(whole) + 1):
        memory.disk[PATH] = whole[:length]
        count = whole[:length].count(b"\n")
        if count:
            assert journal.load(memory, "one").events == run.events[:count]
        else:
            with pytest.raises(Failure):
                journal.load(memory, "one")


def test_a_torn_tail_is_cut_off_before_the_next_event(memory: Memory, run: Run) -> None:
    for tail in (b'{"event": "wro', b"\x00\x00\x00", b"\x00\x00\n", b"not json\n"):
        good = memory.disk[PATH]
        memory.disk[PATH] = good + tail
        run = journal.record(memory, journal.load(memory, "one"), Kind.WROTE, "x")
        assert memory.disk[PATH].startswith(good + b'{"event": "wrote"')
        assert journal.load(memory, "one") == run


def test_a_bad_line_in_the_middle_is_not_passed_over(memory: Memory, run: Run) -> None:
    journal.record(memory, run, Kind.WROTE, "x")
    first, second, _ = memory.disk[PATH].split(b"\n")
    memory.disk[PATH] = b"\n".join((first, b"garbage", second, b""))
    with pytest.raises(Failure) as caught:
        journal.load(memory, "one")
    assert caught.value.problem.ref == "run.unreadable"
    assert "line 2" in caught.value.problem.context[0]


def test_events_in_an_order_that_cannot_be_are_refused(memory: Memory, run: Run) -> None:
    memory.disk[PATH] += memory.disk[PATH]
    with pytest.raises(Failure) as caught:
        journal.load(memory, "one")
    assert caught.value.problem.ref == "run.unreadable"


def test_one_unreadable_run_hides_no_other(memory: Memory, run: Run) -> None:
    memory.disk[f"{journal.RUNS}/zero/journal.jsonl"] = b"x\ny\n"
    listing = change.all_runs(memory)
    assert [one.id for one in listing.runs] == ["one"]
    assert len(listing.problems) == 1
    found = change.unfinished(memory)
    assert found is not None and found.phase is Phase.APPLYING


def test_an_unreadable_run_that_is_marked_stops_everything(memory: Memory, run: Run) -> None:
    memory.disk[PATH] = b"x\ny\n"
    with pytest.raises(Failure) as caught:
        change.unfinished(memory)
    assert caught.value.problem.ref == "run.unreadable"


@pytest.mark.parametrize("name", ["", ".", "..", "../../etc", "a/b", "x" * 101])
def test_a_name_that_is_no_name_reaches_no_path(memory: Memory, name: str) -> None:
    with pytest.raises(Failure) as caught:
        journal.load(memory, name)
    assert caught.value.problem.ref == "run.missing"


def test_records_are_for_root_alone(memory: Memory, monkeypatch: pytest.MonkeyPatch) -> None:
    modes: dict[str, int | None] = {}
    write, make_dir = memory.write, memory.make_dir

    def seen_write(path: str, data: bytes | None, mode: int | None = None) -> None:
        modes[path] = mode
        write(path, data, mode)

    def seen_make_dir(path: str, mode: int = 0o755) -> None:
        modes[path] = mode
        make_dir(path, mode)

    monkeypatch.setattr(memory, "write", seen_write)
    monkeypatch.setattr(memory, "make_dir", seen_make_dir)
    journal.create(memory, Plan("two", "pve", "a test"))
    assert modes[f"{journal.RUNS}/two/plan.json"] == 0o600
    assert modes[f"{journal.RUNS}/two"] == modes[journal.STATE] == 0o700
