"""The quick `dataclass` means what the standard one means."""

from __future__ import annotations

import dataclasses
import pickle
from typing import Any

import pytest

from pve_passthrough.model.facts import Facts, Gap, Space
from pve_passthrough.model.value import dataclass


@dataclass(frozen=True, slots=True)
class Quick:
    """Ours."""

    name: str
    size: int = 0


@dataclasses.dataclass(frozen=True, slots=True)
class Plain:
    """The standard one, with the same fields."""

    name: str
    size: int = 0


@pytest.mark.parametrize("kind", [Quick, Plain])
def test_same_meaning(kind: Any) -> None:
    one, same, other = kind("a", 1), kind("a", 1), kind("a", 2)
    assert one == same and hash(one) == hash(same) and one != other
    assert repr(one) == f"{kind.__name__}(name='a', size=1)"
    assert dataclasses.replace(one, size=2) == other
    assert [field.name for field in dataclasses.fields(one)] == ["name", "size"]
    assert pickle.loads(pickle.dumps(one)) == one
    with pytest.raises(dataclasses.FrozenInstanceError):
        one.size = 3
    with pytest.raises((AttributeError, TypeError)):
        one.colour = "red"


def test_different_classes_are_never_equal() -> None:
    strangers: list[object] = [Quick("a"), Plain("a"), ("a", 0), Gap("a", "0")]
    assert all(one != other for one in strangers for other in strangers if one is not other)


def test_fields_that_cannot_be_hashed_say_so() -> None:
    with pytest.raises(TypeError):
        hash(Facts("x", files={}))
    assert {Space("/boot", 2, 1), Space("/boot", 2, 1)} == {Space("/boot", 2, 1)}
