"""What people who are not root@pam need so that they may give a mapped device to a guest, and no more.

1. Pure, and only ever printed: rights are not taken back by an undo, since nobody could tell ours from others'.
2. Each right is there for a reason that can be looked up; take one away and something that is promised is refused.
3. A bare address, a ROM file, `args` and a hookscript stay root@pam's alone, whatever rights somebody has: not even a
   token of root's may set them (recorded requests api-047 to api-055 of 8.4 and 9.2).
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from ..errors import Exit, Failure
from ..model.facts import Facts, ResourceMapping
from ..model.mappings import users
from ..model.value import dataclass
from .mappings import existing

MAPPING_ROLE, GUEST_ROLE = "PassthroughMapping", "PassthroughGuest"

_USER = re.compile(r"[^\s:/,'\"\\]{1,60}@[A-Za-z][A-Za-z0-9._-]{1,30}")
"""Source: pve-access-control, pve-userid: NAME@REALM, at most 64 letters."""
_TOKEN = re.compile(rf"({_USER.pattern})!([A-Za-z][A-Za-z0-9._-]+)")
"""Source: API schema of 9.2, tokenid."""


@dataclass(frozen=True, slots=True)
class Right:
    """One right, where it is needed, what for, and where that is written."""

    name: str
    path: str
    role: str
    why: str
    source: str


@dataclass(frozen=True, slots=True)
class Recipe:
    """`commands`: to be typed as root@pam on any node of the cluster. `notes`: what stays impossible, and why."""

    who: str
    rights: tuple[Right, ...]
    commands: tuple[str, ...]
    check: str
    notes: tuple[str, ...]


def grant(facts: Facts, name: str, *, user: str = "", token: str = "", vmid: int | None = None) -> Recipe:
    """What this user, or this token, needs for the mapping, and for the guest. Raises Failure."""
    mapping = existing(facts, name)
    owner, secret = _who(user, token)
    guests = (vmid,) if vmid is not None else tuple(dict.fromkeys(g.vmid for g, _ in users(facts, mapping)))
    if vmid is not None and facts.guests is not None and facts.guest(vmid) is None and not facts.gap("guests"):
        raise Failure("guest.missing", f"Nothing was done: there is no guest {vmid}.", code=Exit.USAGE)
    rights = _rights(mapping, guests)
    return Recipe(
        token or user,
        rights,
        _commands(mapping, guests, owner, secret),
        f"pveum {'user token permissions ' + owner + ' ' + secret if secret else 'user permissions ' + owner}",
        _notes(mapping, guests, owner, secret),
    )


def _who(user: str, token: str) -> tuple[str, str]:
    """(user, name of the token or empty)."""
    if bool(user) == bool(token):
        raise Failure("grant.who", "Nothing was done: name one of --user and --token.", code=Exit.USAGE)
    if token:
        match = _TOKEN.fullmatch(token)
        if match is None:
            raise _not_a_name(token, "a token", "USER@REALM!NAME")
        return match.group(1), match.group(2)
    if _USER.fullmatch(user) is None:
        raise _not_a_name(user, "a user", "USER@REALM")
    if user == "root@pam":
        raise Failure(
            "grant.root", "Nothing was done: root@pam may do everything already.",
            hint="For a token of root's: --token 'root@pam!NAME'.", code=Exit.USAGE,
        )  # fmt: skip
    return user, ""


def _not_a_name(text: str, what: str, form: str) -> Failure:
    return Failure("grant.who", f"Nothing was done: {text!r} is not {what}.", hint=f"Write {form}.", code=Exit.USAGE)


def _rights(mapping: ResourceMapping, guests: Sequence[int]) -> tuple[Right, ...]:
    path = f"/mapping/{mapping.kind}/{mapping.name}"
    key = "hostpciN" if mapping.kind == "pci" else "usbN"
    found = [
        Right("Mapping.Use", path, MAPPING_ROLE, f"to name the mapping in {key}, and to see it",
              "recorded requests api-195, api-269: without it 403 (…, Mapping.Use); API schema, GET /cluster/mapping"),
    ]  # fmt: skip
    for vmid in guests:
        where = f"/vms/{vmid}"
        found += [
            Right("VM.Config.HWType", where, GUEST_ROLE, f"to set {key}, machine and vga",
                  "recorded requests api-121, api-268; qemu-server, check_vm_modify_config_perm"),
            Right("VM.Audit", where, GUEST_ROLE, "to see the guest and its configuration",
                  "recorded request api-119: without it 403 (…, VM.Audit)"),
            Right("VM.PowerMgmt", where, GUEST_ROLE, "to start and stop it",
                  "API schema, POST /nodes/{node}/qemu/{vmid}/status/start; recorded request api-350"),
        ]  # fmt: skip
    return tuple(found)


def _commands(mapping: ResourceMapping, guests: Sequence[int], owner: str, secret: str) -> tuple[str, ...]:
    """Roles are made once; a second `role add` of the same name is refused and changes nothing."""
    lines = [f"pveum role add {MAPPING_ROLE} --privs Mapping.Use"]
    lines += [f"pveum role add {GUEST_ROLE} --privs VM.Audit,VM.Config.HWType,VM.PowerMgmt"] if guests else []
    if secret:
        lines.append(f"pveum user token add {owner} {secret} --privsep 1")
    # A token with rights of its own has at most those of its user, so the user needs them too.
    bearers = [] if owner == "root@pam" else [f"--users {owner}"]
    bearers += [f"--tokens '{owner}!{secret}'"] if secret else []
    for bearer in bearers:
        lines.append(f"pveum acl modify /mapping/{mapping.kind}/{mapping.name} {bearer} --roles {MAPPING_ROLE}")
        lines += [f"pveum acl modify /vms/{vmid} {bearer} --roles {GUEST_ROLE}" for vmid in guests]
    return tuple(lines)


def _notes(mapping: ResourceMapping, guests: Sequence[int], owner: str, secret: str) -> tuple[str, ...]:
    notes = []
    if not guests:
        notes.append("No guest was named and none uses the mapping yet: --vm ID adds the guest's own rights.")
    if secret:
        notes.append(f"`token add` shows the token's secret once; with --privsep 1 the token has at most what {owner} "
                     "has.")  # fmt: skip
    if mapping.kind == "pci":
        notes.append("An entry with a bare address stays root@pam's, to change and to delete: give the guest the "
                     f"mapping first, as root: pve-passthrough plan {mapping.name} --vm ID.")  # fmt: skip
    notes.append("ROM files, args and hookscripts stay root@pam's. Memory, processor and boot order need "
                 "VM.Config.Memory, VM.Config.CPU and VM.Config.Options.")  # fmt: skip
    return tuple(notes)
