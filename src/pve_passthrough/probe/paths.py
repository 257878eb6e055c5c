"""What the text of a sysfs path says, and which names may become part of a path.

1. Pure functions of text, but for `target`, `answered` and `there`, which ask one question each.
2. A name from a file, a program or a directory listing goes through `plain` before it becomes part of a path.
"""

from __future__ import annotations

import re

from ..host.base import HostError, Missing
from ..model.pci import Address
from .asking import Asking

_LONGEST_NAME = 255
_HOST_BRIDGE = re.compile(r"pci[0-9a-fA-F]{4,8}:[0-9a-fA-F]{2}")


def plain(name: str) -> bool:
    """Whether `name` is one harmless component of a path."""
    return 0 < len(name) <= _LONGEST_NAME and name not in (".", "..") and "/" not in name and "\0" not in name


def function_behind(path: str) -> Address | None:
    """The PCI function nearest to the end of a sysfs path: the one whose driver made what the path names."""
    found = functions_behind(path)
    return found[-1] if found else None


def functions_behind(path: str) -> tuple[Address, ...]:
    """All functions that a sysfs path depends on, bridges left out, the nearest last.

    A function whose child is a PCI root of its own is no bridge but carries everything below it: Intel VMD
    (drivers/pci/controller/vmd.c makes `…/0000:00:0e.0/pci10000:e0/10000:e0:1d.0/…`).
    """
    found: list[Address] = []
    nearest: Address | None = None
    for part in path.split("/"):
        if nearest is not None and _HOST_BRIDGE.fullmatch(part):
            found.append(nearest)
            nearest = None
        elif part.count(":") == 2 and (address := _address(part)) is not None:
            nearest = address
    return (*found, nearest) if nearest is not None else tuple(found)


def _address(text: str) -> Address | None:
    try:
        return Address.parse(text)
    except ValueError:
        return None


def target(ask: Asking, path: str) -> str | None:
    """Text of a link, or None for anything that is no readable link: whoever asks says what that means."""
    try:
        return ask.host.link(path)
    except HostError:
        return None


def answered(ask: Asking, path: str, about: str) -> tuple[bool, str | None]:
    """(whether the host answered, the text or None when it is not there). No answer leaves a gap."""
    try:
        return True, ask.host.read(path).decode("utf-8", "surrogateescape")
    except Missing:
        return True, None
    except HostError as error:
        ask.gap(about, error.reason, path)
        return False, None


def there(ask: Asking, path: str) -> bool | None:
    """Whether a small file is there: True, False, or None when nobody could say."""
    try:
        ask.host.read(path)
    except Missing:
        return False
    except HostError:
        return None
    return True
