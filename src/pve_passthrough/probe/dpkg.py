"""Which Debian packages are installed, from the package database's text.

1. /var/lib/dpkg/status is read once and searched as bytes: starting `dpkg-query` or `pveversion` would cost more than
   everything else in a probe.
2. No database is no answer; a database without the package is the answer "not installed".
"""

from __future__ import annotations

from .asking import Asking

STATUS = "/var/lib/dpkg/status"


class Packages:
    """The package database; `known` is False when it could not be read."""

    def __init__(self, status: bytes | None) -> None:
        self._status = status

    @classmethod
    def load(cls, ask: Asking) -> Packages:
        return cls(ask.data(STATUS, "packages"))

    @property
    def known(self) -> bool:
        """Whether the database can say "not installed": it has packages, and its end is there."""
        status = self._status or b""
        return status.endswith(b"\n") and (status.startswith(b"Package: ") or b"\nPackage: " in status)

    def version(self, package: str) -> str | None:
        """Version of an installed package (`9.2.11`), None when it is not installed or the database is unknown."""
        stanza = self._stanza(package)
        if stanza is None:
            return None
        fields = dict(line.split(b": ", 1) for line in stanza.split(b"\n") if b": " in line and line[:1] not in b" \t")
        # dpkg(1): the third word of Status is the package's state; `config-files` means that it was removed.
        if fields.get(b"Status", b"").split()[-1:] != [b"installed"]:
            return None
        return fields.get(b"Version", b"").decode("ascii", "replace").strip() or None

    def _stanza(self, package: str) -> bytes | None:
        status = self._status or b""
        head = b"Package: " + package.encode("ascii", "replace") + b"\n"
        start = 0 if status.startswith(head) else status.find(b"\n" + head) + 1
        if start == 0 and not status.startswith(head):
            return None
        end = status.find(b"\n\n", start)
        return status[start : end if end >= 0 else len(status)]
