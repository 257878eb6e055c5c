"""`systemctl`: unit files, the links that enable them, and which units run.

1. Enabled means a link in TARGET.wants or TARGET.requires below /etc/systemd/system, made from the unit's [Install].
2. Units are never run; `start` and `stop` only say so in `state.json`, and the processes that `machine.json` lists for
   them come and go (display.users).
3. An alias is a link in /etc/systemd/system to another unit's file (systemd.unit(5)). graphical.target wants
   display-manager.service, the alias of whichever display manager is enabled.
4. A transient timer (systemd-run(1)) stands in `state.json` under `timers` until it is stopped. It never fires itself.
"""

from __future__ import annotations

from collections.abc import Sequence

from ..base import Ran
from . import boot, display, mediated
from .world import World

HOME = "/etc/systemd/system"
FOLDERS = (
    HOME,
    "/run/systemd/system",
    "/usr/local/lib/systemd/system",
    "/usr/lib/systemd/system",
    "/lib/systemd/system",
)


def systemctl(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    words = [word for word in argv[1:] if not word.startswith("-")]
    verb, units = (words[0], [_full(world, name) for name in words[1:]]) if words else ("", [])
    if verb == "daemon-reload":
        return Ran(0)
    if verb == "reboot":
        boot.power_on(world)
        return Ran(0)
    if verb == "is-system-running":
        return Ran(0, "running\n")
    if verb not in _VERBS or not units:
        return Ran(1, "", f"Unknown command verb '{verb}'.\n")
    done = [_VERBS[verb](world, unit) for unit in units]
    worst = max(done, key=lambda one: one.rc)
    return Ran(worst.rc, "".join(one.stdout for one in done), "".join(one.stderr for one in done))


def _full(world: World, name: str) -> str:
    unit = name if "." in name else f"{name}.service"
    alias = (world.link(f"{HOME}/{unit}") or "").rpartition("/")[2]
    return alias if alias.endswith(".service") else unit


def _unit_path(world: World, unit: str) -> str | None:
    """The unit's own file, else its template's (systemd.unit(5): `name@instance.service` from `name@.service`)."""
    begin, at, rest = unit.partition("@")
    names = [unit, f"{begin}@.{rest.rpartition('.')[2]}"] if at else [unit]
    found = (f"{folder}/{name}" for name in names for folder in FOLDERS if world.text(f"{folder}/{name}") is not None)
    return next(found, None)


def _links(world: World, unit: str) -> list[str]:
    folders = [name for name in world.names(HOME) if name.endswith((".wants", ".requires"))]
    return [f"{HOME}/{name}/{unit}" for name in folders if unit in world.names(f"{HOME}/{name}")]


def _wanted_by(text: str) -> list[tuple[str, str]]:
    """(target, `wants` or `requires`) of the [Install] section."""
    section, found = "", []
    for line in text.splitlines():
        if line.startswith("["):
            section = line.strip()
        elif section == "[Install]":
            key, _, value = line.partition("=")
            kind = {"WantedBy": "wants", "RequiredBy": "requires"}.get(key.strip())
            found += [(target, kind) for target in value.split()] if kind else []
    return found


def _is_enabled(world: World, unit: str) -> Ran:
    path = _unit_path(world, unit)
    if _links(world, unit):
        return Ran(0, "enabled\n")
    if path is None:
        # systemd 252 (Debian 12) complains, 257 (Debian 13) has a word of its own for it
        old = "12" in (world.text("/etc/os-release") or "")
        return (
            Ran(1, "", f"Failed to get unit file state for {unit}: No such file or directory\n")
            if old
            else Ran(4, "not-found\n")
        )
    return Ran(1, "disabled\n") if _wanted_by(world.text(path) or "") else Ran(0, "static\n")


def _enable(world: World, unit: str) -> Ran:
    path = _unit_path(world, unit)
    if path is None:
        return Ran(1, "", f"Failed to enable unit: Unit file {unit} does not exist.\n")
    targets = _wanted_by(world.text(path) or "")
    if not targets:
        return Ran(0, "", "The unit files have no installation config (WantedBy=, RequiredBy=, …).\n")
    said = ""
    for target, kind in targets:
        link = f"{HOME}/{target}.{kind}/{unit}"
        if world.link(link) != path:
            world.put_link(link, path)
            said += f"Created symlink {link} → {path}.\n"
    return Ran(0, "", said)


def _disable(world: World, unit: str) -> Ran:
    links = _links(world, unit)
    if not links and _unit_path(world, unit) is None:
        return Ran(1, "", f"Failed to disable unit: Unit file {unit} does not exist.\n")
    for link in links:
        world.put_link(link, None)
    return Ran(0, "", "".join(f"Removed {link}.\n" for link in links))


def _start(world: World, unit: str) -> Ran:
    if _unit_path(world, unit) is None:
        return Ran(5, "", f"Failed to start {unit}: Unit {unit} not found.\n")
    if unit.startswith(boot.OTHER_UNITS) and not run_unit(world, unit).ok:
        return Ran(1, "", f"Job for {unit} failed because the control process exited with error code.\n")
    if unit == mediated.UNIT:
        mediated.make_functions(world)
    _set_active(world, unit, True)
    return Ran(0)


def run_unit(world: World, unit: str) -> Ran:
    """ExecStart of a unit that starts this very program, over this machine; no other program is started."""
    text = world.text(_unit_path(world, unit) or "") or ""
    commands = [line.partition("=")[2].split() for line in text.splitlines() if line.startswith("ExecStart=")]
    if len(commands) != 1 or world.own_program is None:
        return Ran(0)
    ran = world.own_program(commands[0])
    state = world.state()
    said = [f"{unit}: {line}" for line in (ran.stdout + ran.stderr).splitlines()]
    said += [] if ran.ok else [f"systemd: {unit}: Failed with result 'exit-code'."]
    state.setdefault("dmesg", []).extend(said)
    state.setdefault("units", {})[unit] = ran.ok
    world.save_state(state)
    return ran


def _stop(world: World, unit: str) -> Ran:
    state = world.state()
    if state.get("timers", {}).pop(unit, None) is not None:
        world.save_state(state)
        return Ran(0)
    if _unit_path(world, unit) is None:
        return Ran(5, "", f"Failed to stop {unit}: Unit {unit} not loaded.\n")
    _set_active(world, unit, False)
    return Ran(0)


def _set_active(world: World, unit: str, active: bool) -> None:
    state = world.state()
    units = state.setdefault("units", {})
    units[unit] = active
    world.save_state(state)
    display.users(world)


def is_active(world: World, unit: str) -> bool:
    """What was started by hand, or what came up with the machine: it is enabled, or the display manager."""
    state = world.state()
    if unit.endswith(".timer"):
        return unit in state.get("timers", {})
    unit = _full(world, unit)
    came_up = bool(_links(world, unit)) or unit == _full(world, _SCREENS) != _SCREENS
    return bool(state.get("units", {}).get(unit, came_up))


def _is_active(world: World, unit: str) -> Ran:
    return Ran(0, "active\n") if is_active(world, unit) else Ran(3, "inactive\n")


_SCREENS = "display-manager.service"


def systemd_run(world: World, argv: Sequence[str], stdin: bytes) -> Ran:
    """`systemd-run --unit=NAME --on-active=… PROGRAM …`: a timer. Anything else is not simulated."""
    options = [word for word in argv[1:] if word.startswith("--")]
    command = list(argv[1 + len(options) :])
    name = next((word.partition("=")[2] for word in options if word.startswith("--unit=")), "")
    when = [word for word in options if word.startswith("--on-")]
    if not name or not when or not command:
        return Ran(1, "", "systemd-run: only timers with a name are simulated\n")
    state = world.state()
    timers = state.setdefault("timers", {})
    if f"{name}.timer" in timers:
        told = f"Unit {name}.timer was already loaded or has a fragment file."
        return Ran(1, "", f"Failed to start transient timer unit: {told}\n")
    timers[f"{name}.timer"] = {"when": when, "command": command}
    world.save_state(state)
    return Ran(0)


_VERBS = {
    "disable": _disable,
    "enable": _enable,
    "is-active": _is_active,
    "is-enabled": _is_enabled,
    "restart": _start,
    "start": _start,
    "stop": _stop,
}
