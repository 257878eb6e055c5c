"""A quicker `dataclass` for the many frozen values of this program.

1. Same meaning as `dataclasses.dataclass`, and type checkers see exactly that one.
2. The standard decorator writes and compiles `__eq__`, `__hash__` and `__repr__` anew for each class; with some fifty
   classes on the way to a `check` that is a tenth of its time. Here the three are the same functions for all.
"""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

__all__ = ["dataclass"]

if TYPE_CHECKING:
    from dataclasses import dataclass
else:
    import dataclasses

    def dataclass(cls: type | None = None, /, **options: bool) -> Any:
        """`dataclasses.dataclass` for frozen, slotted classes; anything else is left to the original."""
        if cls is None:
            return lambda decorated: dataclass(decorated, **options)
        if options != {"frozen": True, "slots": True}:
            return dataclasses.dataclass(cls, **options)
        own_repr = "__repr__" in cls.__dict__
        made = dataclasses.dataclass(cls, eq=False, repr=False, **options)
        made.__eq__ = _equal
        made.__hash__ = _hash
        if not own_repr:
            made.__repr__ = _repr
        return made


def _fields(value: Any) -> tuple[Any, ...]:
    return tuple([getattr(value, name) for name in value.__slots__])


def _equal(self: Any, other: object) -> bool:
    return _fields(self) == _fields(other) if other.__class__ is self.__class__ else NotImplemented


def _hash(self: Any) -> int:
    return hash(_fields(self))


def _repr(self: Any) -> str:
    shown = ", ".join(f"{name}={getattr(self, name)!r}" for name in self.__slots__)
    return f"{self.__class__.__qualname__}({shown})"
