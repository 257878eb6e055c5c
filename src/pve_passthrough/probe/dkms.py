"""Can a module be built by DKMS here? Asked only by the verb that builds one, never by a look at the host.

1. Files and two commands that change nothing. dkms.conf is a shell script: it is read, never run, and a value that is
   not a plain word counts as absent.
2. Sources: dkms(8); DKMS, framework.conf (mok_certificate); mokutil(1), --list-enrolled.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Callable

from ..host.base import Host, HostError, Missing
from ..model.dkms import Dkms, Source
from .asking import Asking
from .paths import plain, there

PROGRAM = "/usr/sbin/dkms"
TREES = "/usr/src"
FRAMEWORK = "/etc/dkms/framework.conf"
CERTIFICATE = "/var/lib/dkms/mok.pub"
"""Made by DKMS before its first build where there is none."""
_WORD = re.compile(r"[A-Za-z0-9][A-Za-z0-9_+.~-]{0,63}")
_FINGERPRINT = re.compile(r"SHA1 Fingerprint:\s*([0-9a-f:]{59})", re.I)

ReadState = Callable[[str, str], str | None]


def probe_dkms(host: Host, module: str, release: str | None, state_of: ReadState, probe_file: str) -> Dkms:
    """About `module`. `state_of(name, version)` asks DKMS; `probe_file` in the tree shows which headers it knows."""
    ask = Asking(host)
    installed = there(ask, PROGRAM) or there(ask, "/usr/bin/dkms")
    headers = _has_headers(ask, release) if release and plain(release) else None
    trees = _trees(ask, module)
    sources = (
        None
        if trees is None
        else tuple(one for path in trees if (one := _source(ask, path, module, installed, state_of, probe_file)))
    )
    certificate = _setting(ask.text(FRAMEWORK), "mok_certificate", path=True) or CERTIFICATE
    return Dkms(
        installed, headers, sources, certificate, _enrolled(ask, certificate),
        tuple(f"{gap.about}: {gap.reason}" for gap in ask.gaps),
    )  # fmt: skip


def _has_headers(ask: Asking, release: str) -> bool | None:
    """The headers' package brings the tree that this link names (Debian and Proxmox kernel packages)."""
    try:
        return bool(ask.host.names(f"/lib/modules/{release}/build"))
    except Missing:
        return False
    except HostError as error:
        ask.gap("dkms.headers", error.reason)
        return None


def _trees(ask: Asking, module: str) -> tuple[str, ...] | None:
    try:
        names = ask.host.names(TREES)
    except Missing:
        return ()
    except HostError as error:
        ask.gap("dkms.sources", error.reason)
        return None
    return tuple(f"{TREES}/{name}" for name in names if name.startswith(f"{module}-") and plain(name))


def _source(
    ask: Asking, path: str, module: str, installed: bool | None, state_of: ReadState, probe_file: str
) -> Source | None:
    """A tree whose dkms.conf names this module, in the directory that DKMS demands: NAME-VERSION."""
    text = ask.text(f"{path}/dkms.conf", "dkms.sources")
    name, version = _setting(text, "PACKAGE_NAME"), _setting(text, "PACKAGE_VERSION")
    if name != module or not version or path != f"{TREES}/{name}-{version}":
        ask.gap("dkms.sources", f"{path}/dkms.conf does not say that this is {module}, in the version of its directory")
        return None
    return Source(
        path, name, version, state_of(name, version) if installed else None, _headers_of(ask, path, probe_file)
    )


def _headers_of(ask: Asking, path: str, probe_file: str) -> bool | None:
    """6.12 moved asm/unaligned.h to linux/unaligned.h (Proxmox hosts: vendor-reset's issues 87, 104 and 105)."""
    text = ask.text(f"{path}/{probe_file}", "dkms.headers")
    if text is None:
        return None
    return True if "linux/unaligned.h" in text else (False if "asm/unaligned.h" in text else None)


def _setting(text: str | None, key: str, *, path: bool = False) -> str:
    """The last plain `KEY=value` or `KEY="value"` of a shell file; empty when there is none."""
    found = re.findall(rf"^\s*{key}=(\"?)([^\"\s$`;|&<>]+)\1\s*(?:#.*)?$", text or "", re.M)
    value = found[-1][1] if found else ""
    if path:
        return value if value.startswith("/") and "/../" not in value else ""
    return value if _WORD.fullmatch(value) else ""


def _enrolled(ask: Asking, certificate: str) -> bool | None:
    """Whether the firmware's shim trusts the key. A certificate that does not exist yet is trusted by nobody."""
    data = ask.data(certificate, "dkms.key")
    if data is None:
        return None if any(gap.about == "dkms.key" for gap in ask.gaps) else False
    ran = ask.run(("mokutil", "--list-enrolled"), "dkms.key", 20.0)
    if ran is None or not ran.ok:
        return None
    wanted = hashlib.sha1(data, usedforsecurity=False).hexdigest()
    return wanted in {found.replace(":", "").lower() for found in _FINGERPRINT.findall(ran.stdout)}
