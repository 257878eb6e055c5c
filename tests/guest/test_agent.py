"""A guest may answer anything; what it says becomes devices or silence, never a crash and never a false "no"."""

from __future__ import annotations

import json
from collections.abc import Sequence
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough.guest.agent import ANSWER_LIMIT, GuestDevice, Silence, devices_in
from pve_passthrough.host.base import Ran, Unreadable
from pve_passthrough.host.replay import Answers, Replay

UEVENT = "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2684\nMODALIAS=pci:v0\nPCI_ID=8086:29C0\nMODALIAS=x\n"


class _Guest(Replay):
    def __init__(self, system: object, answer: Ran | Unreadable) -> None:
        super().__init__(Answers(), "guest")
        self.system, self.answer = system, answer

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if "get-osinfo" in argv:
            return Ran(0, json.dumps({"id": self.system}))
        if isinstance(self.answer, Unreadable):
            raise self.answer
        return self.answer


def _said(output: object, **more: object) -> Ran:
    return Ran(0, json.dumps({"exited": 1, "exitcode": 0, "out-data": output, **more}))


def _asked(answer: Ran | Unreadable, system: object = "debian") -> tuple[GuestDevice, ...] | Silence:
    return devices_in(_Guest(system, answer), 100)


def test_an_ordinary_answer() -> None:
    assert _asked(_said(UEVENT)) == (GuestDevice("10de:2684", "nvidia"), GuestDevice("8086:29c0", ""))


@pytest.mark.parametrize(
    "answer",
    [
        _said(UEVENT, **{"out-truncated": True}),
        _said(""),
        _said("[]"),
        _said("nothing of the kind\n" * 5),
        _said({"a": 1}),
        _said("x" * (ANSWER_LIMIT + 1)),
        Ran(0, '{"exited":1,"exitcode":0,"out-data":"' + "PCI_ID=1:2\\n" * (ANSWER_LIMIT // 10)),
        Ran(0, "[" * 100_000),
        Ran(0, '{"exitcode": ' + "9" * 5000 + "}"),
        Ran(0, "null"),
        Ran(255, "", "\x1b[31m" + "y" * 100_000),
        Ran(255, "", "\x1c\n\x85"),
        _said(UEVENT, exitcode="z" * 100_000),
        Unreadable("qm", "x" * 100_000),
    ],
)
@pytest.mark.parametrize("system", ["debian", "mswindows"])
def test_no_usable_answer_is_silence_of_a_bounded_length(answer: Ran | Unreadable, system: str) -> None:
    found = _asked(answer, system)
    assert isinstance(found, Silence)
    assert 0 < len(found.reason) < 400


JSON: st.SearchStrategy[Any] = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=20),
    lambda inner: (
        st.lists(inner, max_size=4)
        | st.dictionaries(
            st.sampled_from(["exited", "exitcode", "out-data", "InstanceId", "Status", "Problem", "Service"]), inner
        )
    ),
    max_leaves=8,
)


@given(JSON, st.sampled_from(["debian", "mswindows", "", 7, None]), st.booleans())
def test_any_answer_is_devices_or_silence(value: Any, system: object, nested: bool) -> None:
    answer = _said(json.dumps(value) if nested else value)
    found = _asked(answer, system)
    assert isinstance(found, Silence) or all(isinstance(one, GuestDevice) for one in found)


@given(st.text(st.characters(), max_size=300))
def test_long_and_odd_words_are_cut(word: str) -> None:
    row = {"InstanceId": "PCI\\VEN_10DE&DEV_2684", "Status": word * 50, "Problem": [word], "Service": word * 50}
    found = _asked(_said(json.dumps([row])), "mswindows")
    assert not isinstance(found, Silence)
    assert max(len(found[0].driver), len(found[0].problem)) <= 200
