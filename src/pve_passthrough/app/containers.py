"""Containers and the host's device nodes: look, give, take, and prove from inside.

1. Nothing here prints or asks. A plan is returned; `app.apply` runs it.
2. A container is only ever looked into while it runs, by programs that change nothing; it is not started, stopped or
   mounted for it. What only a running one could tell is unknown, never guessed.
3. What a program inside says is untrusted: only numbers are taken from it, the rest is shown.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING

from ..errors import Exit, Failure
from ..host.base import Host, HostError, Ran
from ..model.value import dataclass
from . import hazards, look, machine_of, now, refusal

if TYPE_CHECKING:
    from ..guest import Rung
    from ..model.ct import Ct, CtDevice, DevNode
    from ..model.facts import Facts
    from ..model.plan import Plan
    from ..planning.containers import How

PATIENCE = 20.0
"""Seconds for one program inside a container."""
TOOL_PATIENCE = 30.0
MOST_SAID = 8192
_NAME = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]{0,31}")


@dataclass(frozen=True, slots=True)
class Holder:
    """A container that has a node. `entry`: its devN key, or the raw line that gives it."""

    ct: Ct
    entry: str
    raw: bool


@dataclass(frozen=True, slots=True)
class Shared:
    """One node and who has it."""

    node: DevNode
    holders: tuple[Holder, ...]


@dataclass(frozen=True, slots=True)
class Listed:
    facts: Facts
    nodes: tuple[Shared, ...]
    absent: tuple[tuple[Ct, CtDevice], ...]
    """Entries whose path is no node of the host now: such a container does not start."""


@dataclass(frozen=True, slots=True)
class Checked:
    facts: Facts
    ct: Ct
    rungs: tuple[Rung, ...]


# -- looking -------------------------------------------------------------------------------------


def listed(host: Host) -> Listed:
    """What a container could be given, and which containers have it. Raises Failure when nobody could say."""
    from ..planning.goals import unknown

    facts = look(host, deep=True)
    if facts.dev_nodes is None:
        raise unknown(facts, "dev_nodes", "which device nodes there are")
    cts = facts.own_containers or ()
    shared = tuple(Shared(node, tuple(_holders(cts, node))) for node in facts.dev_nodes)
    paths = {name for node in facts.dev_nodes for name in (node.path, *node.links)}
    absent = [(ct, one) for ct in cts for one in ct.devices if one.path not in paths and _at(host, one.path) is None]
    return Listed(facts, shared, tuple(absent))


def _holders(cts: Iterable[Ct], node: DevNode) -> Iterable[Holder]:
    names = (node.path, *node.links)
    for ct in cts:
        yield from (Holder(ct, one.key, False) for one in ct.devices if one.path in names)
        for mount in ct.mounts:
            if any(name == mount.source or name.startswith(f"{mount.source.rstrip('/')}/") for name in names):
                yield Holder(ct, mount.line, True)


def _at(host: Host, path: str) -> DevNode | None:
    from ..probe.containers import node_at

    return node_at(host, path)


# -- plans ---------------------------------------------------------------------------------------


def plan_add(host: Host, words: Sequence[str], number: int, how: How, accept: Iterable[str] = ()) -> Plan:
    """The plan that gives the nodes to the container. Raises Failure, HazardRefused among them."""
    from ..planning import containers

    facts = look(host, deep=True)
    ct = containers.changeable(facts, number)
    facts = _with_paths(host, facts, words)
    nodes = containers.nodes_named(facts, words)
    refused = hazards(containers.hazards(facts, nodes), frozenset(accept))
    if refused:
        raise refusal(refused)
    groups = groups_inside(host, ct) if how.gid is None else {}
    return containers.add(facts, number, nodes, how, groups, now=now(), machine=machine_of(host))


def plan_remove(host: Host, words: Sequence[str], number: int) -> Plan:
    """The plan that takes entries away. Raises Failure."""
    from ..planning import containers

    facts = look(host, deep=True)
    return containers.remove(facts, number, words, now=now(), machine=machine_of(host))


def _with_paths(host: Host, facts: Facts, words: Iterable[str]) -> Facts:
    """A path that is none of the usual nodes (/dev/net/tun) is asked about by itself."""
    from ..model.ct import is_dev_path

    known = {name for node in facts.dev_nodes or () for name in (node.path, *node.links)}
    asked = [word.strip() for word in words if is_dev_path(word.strip()) and word.strip() not in known]
    found = [node for path in asked if (node := _at(host, path)) is not None]
    return replace(facts, dev_nodes=(*(facts.dev_nodes or ()), *found)) if found else facts


def groups_inside(host: Host, ct: Ct) -> dict[str, int] | None:
    """The container's groups by name; None where it does not run or gave no answer.

    `getent group` reads every source that the container's own programs do; musl's systems have it too (Alpine:
    musl-utils). A name or a number that cannot be one is passed over.
    """
    if ct.running is False:
        return None
    ran = _inside(host, ct, ("getent", "group"))
    if ran is None or (ran.rc != 0 and not ran.stdout):
        ran = _inside(host, ct, ("cat", "/etc/group"))
    if ran is None or not ran.ok:
        return None
    found: dict[str, int] = {}
    for line in ran.stdout[: 64 * MOST_SAID].splitlines():
        name, _, gid, *_ = (*line.split(":"), "", "", "")
        if _NAME.fullmatch(name) and re.fullmatch(r"[0-9]{1,9}", gid):
            found.setdefault(name, int(gid))
    return found or None


def _inside(host: Host, ct: Ct, argv: Sequence[str], patience: float = PATIENCE) -> Ran | None:
    """A program in a running container; its exit status is the program's own (lxc-attach(1))."""
    try:
        return host.run(("pct", "exec", str(ct.number), "--", *argv), timeout=patience)
    except HostError:
        return None


# -- proving -------------------------------------------------------------------------------------


def check(host: Host, number: int, *, user: str = "root") -> Checked:
    """L0 configured · L1 the node is the host's, inside too · L2 the user may open it · L3 a tool sees it.

    Raises Failure for a number that is no container of this node, and for a user's name that is none.
    """
    from ..guest import Outcome
    from ..planning.containers import changeable

    if _NAME.fullmatch(user) is None:
        raise Failure("lxc.bad-user", f"Nothing was asked: {user!r} is no name of a user.", code=Exit.USAGE)
    facts = look(host, deep=True)
    ct = facts.container(number) or changeable(facts, number)
    rungs = [_configured(facts, ct)]
    if ct.devices:
        rungs.append(_there(host, facts, ct))
        rungs += [_openable(host, ct, user), _seen(host, ct)] if rungs[-1].outcome is not Outcome.FAILED else []
    return Checked(facts, ct, tuple(rungs))


def _configured(facts: Facts, ct: Ct) -> Rung:
    from ..guest import Outcome, Rung

    lines = tuple(f"{ct.number}.conf: {one.key}: {ct.value(one.key)}" for one in ct.devices)
    raw = tuple(f"{ct.number}.conf: {one.line}" for one in ct.mounts)
    if ct.devices:
        return Rung(
            0,
            "config",
            Outcome.PASSED,
            f"{ct.name} has {len(lines)} devN entr{'y' if len(lines) == 1 else 'ies'}.",
            lines,
        )
    hint = f"pve-passthrough lxc add DEVICE --ct {ct.number}"
    if raw:
        return Rung(
            0, "config", Outcome.UNKNOWN, "It has devices by raw lines alone, and those are not checked.", raw, hint
        )
    return Rung(0, "config", Outcome.FAILED, f"{ct.name} has no device.", (), hint)


def _there(host: Host, facts: Facts, ct: Ct) -> Rung:
    """The host's node and the container's must have the same numbers."""
    from ..guest import Outcome, Rung

    own = {one.path: _at(host, one.path) for one in ct.devices}
    gone = [path for path, node in own.items() if node is None]
    if gone:
        return Rung(1, "node", Outcome.FAILED, f"The host has no {', '.join(gone)}: the container does not start.",
                    tuple(f"{path}: not there" for path in gone),
                    "pve-passthrough explain lxc.absent-node")  # fmt: skip
    host_lines = tuple(f"host {path}: {node.number} {node.owner}:{node.group}" for path, node in own.items() if node)
    inside = _stats(host, ct)
    if inside is None:
        state = "does not run" if ct.running is False else "gave no answer"
        return Rung(1, "node", Outcome.UNKNOWN, f"The host has them; the container {state}.", host_lines,
                    f"pct start {ct.number}")  # fmt: skip
    lines, wrong = [*host_lines], False
    for path, node in own.items():
        seen = inside.get(path)
        lines.append(f"inside {path}: {'not there' if seen is None else seen.number}")
        wrong |= seen is None or node is None or seen.number != node.number
    if wrong:
        return Rung(1, "node", Outcome.FAILED, "The container does not have the host's nodes: it runs with an older "
                    "configuration, or a number has changed.", tuple(lines), f"pct reboot {ct.number}")  # fmt: skip
    return Rung(1, "node", Outcome.PASSED, "The host has them, and the container has the same ones.", tuple(lines))


def _openable(host: Host, ct: Ct, user: str) -> Rung:
    """By owner, group and mode, as the kernel does it; no program is run as the user."""
    from ..guest import Outcome, Rung

    inside = _stats(host, ct) or {}
    ids = _ids(host, ct, user)
    if not inside or ids is None:
        why = f"{ct.name} has no user {user}, or gave no answer." if inside else "The container does not run."
        return Rung(2, "opens", Outcome.UNKNOWN, why, (), f"pve-passthrough lxc check --ct {ct.number} --user NAME")
    lines, shut = [], []
    for one in ct.devices:
        node = inside.get(one.path)
        if node is None or node.mode is None:
            continue
        wanted = 4 if one.deny_write else 6
        lines.append(f"inside {one.path}: {node.mode:04o} {node.uid}:{node.gid}")
        if ids[0] != 0 and not _may(node, ids, wanted):
            shut.append(one.path)
    lines.append(f"{user}: uid {ids[0]}, groups {' '.join(map(str, ids[1]))}")
    if shut:
        gids = sorted({str(inside[path].gid) for path in shut})
        hint = f"pct exec {ct.number} -- usermod -aG {','.join(gids)} {user}, then restart its service"
        return Rung(2, "opens", Outcome.FAILED, f"{user} may not open {', '.join(shut)}.", tuple(lines), hint)
    return Rung(2, "opens", Outcome.PASSED, f"{user} may open all of them.", tuple(lines))


def _may(node: DevNode, ids: tuple[int, frozenset[int]], wanted: int) -> bool:
    """The first of owner, group and others that fits decides (path_resolution(7))."""
    mode = node.mode or 0
    if node.uid == ids[0]:
        return (mode >> 6) & wanted == wanted
    return ((mode >> 3) if node.gid in ids[1] else mode) & wanted == wanted


_TOOLS = (("/dev/nvidia", ("nvidia-smi", "-L")), ("/dev/dri/renderD", ("vainfo", "--display", "drm", "--device")))


def _seen(host: Host, ct: Ct) -> Rung:
    """A tool of the container's own, where it has one: it opens the device in earnest."""
    from ..guest import Outcome, Rung

    if ct.running is False:
        return Rung(3, "seen", Outcome.UNKNOWN, "The container does not run.", (), f"pct start {ct.number}")
    for prefix, argv in _TOOLS:
        path = next((one.path for one in ct.devices if one.path.startswith(prefix)), None)
        if path is None:
            continue
        command = (*argv, path) if argv[0] == "vainfo" else argv
        ran = _inside(host, ct, command, TOOL_PATIENCE)
        if ran is None or ran.rc == 127 or "No such file" in ran.stderr:
            return Rung(3, "seen", Outcome.SKIPPED, f"The container has no {argv[0]} to ask.", (),
                        f"apt install {'vainfo' if argv[0] == 'vainfo' else 'nvidia-smi'} in the container, if it is "
                        "wanted there")  # fmt: skip
        said = [line.strip()[:160] for line in (ran.stdout + ran.stderr)[:MOST_SAID].splitlines() if line.strip()][:4]
        lines = tuple(f"{argv[0]}: {line}" for line in said)
        if ran.ok:
            return Rung(3, "seen", Outcome.PASSED, f"{argv[0]} sees it.", lines)
        return Rung(3, "seen", Outcome.FAILED, f"{argv[0]} ended with status {ran.rc}.", lines)
    return Rung(3, "seen", Outcome.SKIPPED, "No tool is known that would ask these devices.")


def _stats(host: Host, ct: Ct) -> dict[str, DevNode] | None:
    """The nodes as the container sees them; None: it does not run or gave no answer."""
    from ..probe.containers import STAT, node_of

    if ct.running is False:
        return None
    paths = [one.path for one in ct.devices]
    ran = _inside(host, ct, ("stat", "-c", STAT, "--", *paths))
    if ran is None or ran.rc not in (0, 1) or "lxc-attach" in ran.stderr:
        return None
    found = [node_of(line.split("\t")) for line in ran.stdout[: 8 * MOST_SAID].splitlines()]
    return {node.path: node for node in found if node is not None and node.path in paths}


def _ids(host: Host, ct: Ct, user: str) -> tuple[int, frozenset[int]] | None:
    numbers = []
    for option in ("-u", "-G"):
        ran = _inside(host, ct, ("id", option, user))
        words = ran.stdout[:MOST_SAID].split() if ran is not None and ran.ok else []
        if not words or not all(re.fullmatch(r"[0-9]{1,9}", word) for word in words):
            return None
        numbers.append([int(word) for word in words])
    return numbers[0][0], frozenset(numbers[1])
