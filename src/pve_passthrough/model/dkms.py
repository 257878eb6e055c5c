"""What is known about building one module with DKMS. Values only; `None` means that nobody could say."""

from __future__ import annotations

from .value import dataclass


@dataclass(frozen=True, slots=True)
class Source:
    """A source tree below /usr/src that DKMS can add.

    state        what DKMS has made of it for the running kernel: `added`, `built`, `installed`, None: nothing
    new_headers  whether the tree knows the headers of kernel 6.12
    """

    path: str
    name: str
    version: str
    state: str | None = None
    new_headers: bool | None = None


@dataclass(frozen=True, slots=True)
class Dkms:
    """installed: the program · headers: of the running kernel · enrolled: the key that DKMS signs with is trusted"""

    installed: bool | None = None
    headers: bool | None = None
    sources: tuple[Source, ...] | None = None
    certificate: str = ""
    enrolled: bool | None = None
    unsaid: tuple[str, ...] = ()
    """Why nobody could say something, in words."""
