"""Guests made for devices: what one would be, making it, and whether it is what was wanted.

1. A guest is planned on facts alone and made by one command; nothing is made that was not shown before.
2. Making a guest is no part of a run: `undo` never removes one, for somebody's data may lie on its disk by then.
3. What was made is read back and compared option by option; a difference is told, never mended in silence.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import replace

from ..errors import Exit, Failure
from ..host.base import Host, HostError, Missing, Ran, Unreadable, read_text
from ..model.facts import Facts
from ..model.value import dataclass
from ..model.vm import parse_config
from ..planning.guest_stored import differences
from ..planning.guest_wanted import NewGuest, Wanted
from ..planning.new_guest import command, grow_command, new_guest, remove_command, with_new_guest
from . import look, may_change

__all__ = ["Made", "create", "facts_for", "plan_guest", "start", "with_new_guest"]

PATIENCE = 3600.0
"""Seconds for `qm create`: an image of many gigabytes may have to be copied to a slow storage."""
MOST_KEYS = 64 * 1024
_STAYS = "The guest stays as it is; undo does not remove it, for somebody's data may lie on its disk."


@dataclass(frozen=True, slots=True)
class Made:
    """A guest that is there now. `differences`: one line per option that was stored otherwise than wanted."""

    new: NewGuest
    differences: tuple[str, ...]


def facts_for(host: Host) -> Facts:
    """What is needed to know for a new guest; quick, no device is woken."""
    return look(host)


def plan_guest(host: Host, facts: Facts, profile: str, wanted: Wanted) -> NewGuest:
    """The guest that would be made. Raises Failure when this host cannot carry it."""
    told = replace(
        wanted,
        vmid=_next_id(host) if wanted.vmid is None else wanted.vmid,
        isos=_isos(host, facts),
        free=_free(host, facts.pve.node),
        ssh_keys=_keys(host, wanted.ssh_key),
    )
    return new_guest(facts, profile, told)


def _next_id(host: Host) -> int | None:
    """Proxmox knows the range that people have set for new numbers (datacenter.cfg, next-id); None: not asked."""
    answer = _asked(host, "/cluster/nextid")
    return int(answer) if isinstance(answer, (str, int)) and re.fullmatch(r"[1-9][0-9]{2,8}", str(answer)) else None


def _free(host: Host, node: str | None) -> dict[str, int | None]:
    """Bytes left on each storage of the node, None where it is not active (recorded answers of PVE 8.4 and 9.2)."""
    rows = _asked(host, f"/nodes/{node}/storage") if node else None
    found: dict[str, int | None] = {}
    for row in rows if isinstance(rows, list) else ():
        if isinstance(row, dict) and isinstance(row.get("storage"), str):
            free = row.get("avail")
            if not row.get("active"):
                found[row["storage"]] = None
            elif isinstance(free, int):
                found[row["storage"]] = free
    return found


def _asked(host: Host, path: str) -> object:
    """What the API says; None where nobody answers. It only refines: what matters is refused again by `qm create`."""
    import json

    try:
        ran = host.run(("pvesh", "get", path, "--output-format", "json"), timeout=30.0)
        loaded: object = json.loads(ran.stdout) if ran.ok else None
    except (HostError, ValueError, RecursionError):
        return None
    return loaded


def _isos(host: Host, facts: Facts) -> dict[str, tuple[str, ...]]:
    """Files of each storage of ISO images that lies in a directory of this node; others are left out.

    Directory and network file systems keep them in template/iso, NFS and CIFS below /mnt/pve/NAME
    (Proxmox VE administration guide, "Directory Backend").
    """
    found = {}
    for one in facts.storages or ():
        path = one.path or (f"/mnt/pve/{one.name}" if one.type in ("nfs", "cifs", "cephfs") else "")
        if "iso" not in one.content or not path or not one.enabled:
            continue
        try:
            found[one.name] = tuple(name for name in host.names(f"{path}/template/iso"))
        except Missing:
            found[one.name] = ()
        except HostError:
            continue
    return found


def _keys(host: Host, path: str) -> str:
    """`qm` reads the keys itself, from the same file of the host, as root."""
    if not path:
        return ""
    if not path.startswith("/"):
        raise _no_keys(path, "an absolute path of the host is needed")
    try:
        data = host.head(path, MOST_KEYS + 1)
    except HostError as error:
        raise _no_keys(path, error.reason) from error
    if len(data) > MOST_KEYS:
        raise _no_keys(path, f"it is longer than {MOST_KEYS} bytes")
    return data.decode("utf-8", "replace")


def _no_keys(path: str, why: str) -> Failure:
    return Failure(
        "guest.ssh-key", f"No guest was made: the key file {path} is of no use: {why}.",
        hint="Name a public key file of the host, for example --ssh-key /root/.ssh/id_ed25519.pub", code=Exit.USAGE,
    )  # fmt: skip


# -- making it -----------------------------------------------------------------------------------


def create(host: Host, new: NewGuest) -> Made:
    """Make the guest, and read it back. Raises Failure; what is left then is said in it."""
    may_change(host)
    ran = _run(host, command(new))
    if not ran.ok:
        raise _not_made(host, new, ran)
    _grow(host, new)
    return Made(new, differences(new, _stored(host, new)))


def start(host: Host, vmid: int) -> None:
    """Start the guest. Raises Failure with what Proxmox said."""
    ran = _run(host, ("qm", "start", str(vmid)))
    if not ran.ok:
        raise Failure(
            "guest.not-started", f"Guest {vmid} was made, but it did not start.", *_said(ran), _STAYS,
            hint=f"Remove it with: {remove_command(vmid)}",
        )  # fmt: skip


def _run(host: Host, argv: Sequence[str]) -> Ran:
    try:
        return host.run(argv, timeout=PATIENCE)
    except Missing as error:
        raise Failure("guest.no-qm", "No guest was made: this host has no `qm`.", error.reason) from error
    except Unreadable as error:
        raise Failure(
            "guest.unclear", f"Nobody can say what became of it: {' '.join(argv[:3])} gave no answer.", error.reason,
            hint=f"Look at `qm config {argv[-1] if len(argv) == 3 else argv[2]}` and at the node's task log.",
        ) from error  # fmt: skip


def _said(ran: Ran) -> tuple[str, ...]:
    lines = (ran.stderr.strip() or ran.stdout.strip() or f"exit code {ran.rc}").splitlines()
    return tuple(lines[-12:])


def _not_made(host: Host, new: NewGuest, ran: Ran) -> Failure:
    """A failed creation takes its volumes and its file back (PVE/API2/Qemu.pm); whether it did is looked at."""
    path = f"/etc/pve/nodes/{new.node}/qemu-server/{new.vmid}.conf"
    try:
        host.head(path, 1)
    except Missing:
        return Failure("guest.not-made", f"No guest was made: Proxmox refused guest {new.vmid}.", *_said(ran))
    except HostError as error:
        return Failure(
            "guest.unclear", f"Proxmox refused, and whether a part of guest {new.vmid} is there is unknown.",
            *_said(ran), str(error), hint=f"qm config {new.vmid}",
        )  # fmt: skip
    return Failure(
        "guest.half-made", f"Guest {new.vmid} is there, but Proxmox did not make it as wanted.", *_said(ran), _STAYS,
        hint=f"Look at `qm config {new.vmid}`: somebody else may have made it. Remove your own with: "
        f"{remove_command(new.vmid)}",
    )  # fmt: skip


def _grow(host: Host, new: NewGuest) -> None:
    argv = grow_command(new)
    if not argv:
        return
    ran = _run(host, argv)
    if not ran.ok:
        raise Failure(
            "guest.half-made", f"Guest {new.vmid} was made, but its disk did not become {new.grow}.",
            *_said(ran), _STAYS, hint=f"The image may be larger. Remove the guest with: {remove_command(new.vmid)}",
        )  # fmt: skip


def _stored(host: Host, new: NewGuest) -> dict[str, str]:
    path = f"/etc/pve/nodes/{new.node}/qemu-server/{new.vmid}.conf"
    try:
        return parse_config(read_text(host, path))[0]
    except HostError as error:
        raise Failure(
            "guest.unread", f"Guest {new.vmid} was made, but its configuration could not be read back.", str(error),
            _STAYS, hint=f"qm config {new.vmid}",
        ) from error  # fmt: skip
