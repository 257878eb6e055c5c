"""Hold the simulated Proxmox against every recorded exchange of the real one.

Run it: `python -m tests.host.simulated.replay_recordings [-v]` prints, per recording, how many rows agree, differ and
are not covered, and why. Rules of the comparison:

1. Rows are replayed in order on one world; after each row the recorded files, drivers and volumes are taken over, so
   that random values (uuid, MAC, time) go on as recorded and one miss does not cascade.
2. Compared are exit code, stdout, stderr, every watched file, drivers and the writes to /sys in order. What the
   recording itself calls random or an artefact is normalised (`_plain`), nothing else.
3. A row whose stdout holds a hookscript's words is not covered (scripts are never executed), but the rest of it counts.
"""

from __future__ import annotations

import json
import re
import sys
import tempfile
from collections import Counter
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated.loaders import boot_tool
from pve_passthrough.host.simulated.pve import COMMANDS
from pve_passthrough.host.simulated.world import World
from tests.host.simulated.recorded_node import build, set_driver
from tests.shared import SHARED

AGREE, DIFFER, UNCOVERED = "agree", "differ", "not covered"

WATCHED = (
    "mapping/pci.cfg",
    "mapping/usb.cfg",
    "ha/resources.cfg",
    "ha/rules.cfg",
    "jobs.cfg",
    "storage.cfg",
    "user.cfg",
)
"""Below /etc/pve, beside the guests' own files."""

NOT_COVERED: tuple[tuple[str, str], ...] = (
    (r"^env PVE_KVM_FAIL=", "QEMU's words were put in by hand"),
    (r"^bash ", "env: prepares the node"),
    (r"^qm (snapshot|listsnapshot|rollback|delsnapshot|migrate)|/snapshot |/migrate ", "snapshots and migration"),
    (r"^qm nosuch|^pvesh get --output-format|^pvesh ls", "usage texts and listing of the API"),
    (r"^pveversion -v", "package versions"),
    (r"^pvesm (status|list local --)|^pvesh \w+ (/nodes/\w+)?/storage", "storage"),
    (r"^pvesh \w+ /pools", "pools"),
    (
        r"/cluster/backup-info|/cluster/backup/.*included|^pvesh (create|set|delete) /cluster/backup",
        "backup jobs: writing",
    ),
    (r"/access/|/network |/capabilities/|/monitor ", "users, network, capabilities, monitor"),
    (
        r"^pvesh get /nodes/\w+/status|^pvesh get /nodes --|^pvesh get /cluster/resources --output",
        "load, room and names of a real node",
    ),
    (r"^ha-manager groupadd|/cluster/ha/(groups|rules|status)", "HA groups, rules and manager status"),
)
"""Patterns over the command line: the first that matches is the reason why a row is not compared."""

NOT_ANSWERED: tuple[tuple[str, str], ...] = (
    (r"^/usr/bin/kvm ", "the full QEMU command line"),
    (r"^kvm: -bogus", "QEMU's own judgement of args"),
)
"""The same over the recorded stdout."""

_LATIN = "Perl printed the announced text as Latin-1, which the recording could not keep"
_STUB = "update-grub was a stub on the recorded node and named no kernel"
_UNPACKAGED = "no package was installed on the recorded node: no kernel is selected, the loader's package is missed"
KNOWN: dict[str, str] = {
    **{f"pve9:boot-{number}": _STUB for number in (955, 958, 959, 960)},
    **{f"pve9:boot-{number}": _UNPACKAGED for number in (953, 954, 970, 979)},
    "pve9:description-357": _LATIN,
    "pve8:description-357": _LATIN,
    "pve8:pt-499": "tasks of guests that the node had before the recording began",
}
"""Rows that differ, `recording:id`, each with its reason."""


@dataclass(frozen=True, slots=True)
class Outcome:
    """One row: what became of it and why."""

    recording: str
    row: str
    command: str
    verdict: str
    why: str


def rows_of(recording: str) -> list[dict[str, Any]]:
    lines = (SHARED / "pve" / f"{recording}.jsonl").read_text().splitlines()
    return [json.loads(line) for line in lines[1:]]


def replay(recording: str, folder: Path) -> list[Outcome]:
    """Every row of a recording, in order."""
    major = int(recording.removeprefix("pve"))
    world = build(folder / "default", SHARED, major)
    outcomes = []
    upids: dict[str, str] = {}
    for row in rows_of(recording):
        if row["id"] == "noiommu":
            world = rebooted(world, build(folder / "noiommu", SHARED, major, iommu=False))
        outcome = _one(world, recording, row, upids)
        outcomes.append(outcome)
        take_over(world, row, outcome.verdict != AGREE)
    return outcomes


def rebooted(old: World, new: World) -> World:
    """The node after a reboot with other hardware: the configuration is kept, /run and /sys are new."""
    for folder in ("/etc/pve/qemu-server", "/etc/pve/mapping", "/etc/pve/ha"):
        for name in old.names(folder):
            new.put(f"{folder}/{name}", old.text(f"{folder}/{name}"))
    for path in ("/sim/volumes.json", "/etc/pve/storage.cfg", "/etc/pve/user.cfg", "/etc/pve/jobs.cfg"):
        new.put(path, old.text(path))
    return new


def _one(world: World, recording: str, row: dict[str, Any], upids: dict[str, str]) -> Outcome:
    command = " ".join(row["argv"])
    reason = next((why for pattern, why in NOT_COVERED if re.search(pattern, command)), "")
    reason = reason or next((why for pattern, why in NOT_ANSWERED if re.search(pattern, row["stdout"])), "")
    if row.get("kind") == "env":
        prepare(world, row)
        reason = "env: prepares the node"
    elif row.get("artefact"):
        reason = f"artefact: {row['artefact']}"
    if reason:
        return Outcome(recording, row["id"], command, UNCOVERED, reason)
    return _compared(world, recording, row, command, upids)


def _compared(world: World, recording: str, row: dict[str, Any], command: str, upids: dict[str, str]) -> Outcome:
    argv = [_filled(world, word, upids) for word in row["argv"]]
    count = len(world.state().get("sysfs_writes", []))
    before, bound = watched(world), drivers(world)
    ran = boot_tool(world, argv[1:]) if argv[0] == "proxmox-boot-tool" else COMMANDS[argv[0]](world, argv, b"")
    if match := re.search(r'"(UPID:[^"]+)"', ran.stdout):
        upids[row["id"]] = match.group(1)
    hooked = "HOOK vmid=" in row["stdout"] or "hookscript error" in row["stdout"] + row["stderr"]
    wrong = _differences(world, row, ran, world.state().get("sysfs_writes", [])[count:])
    wrong += _unasked(world, row, before, bound)
    if hooked and "hookfail" in str(world.machine().get("test", "")):
        return Outcome(recording, row["id"], command, UNCOVERED, "hookscripts are not executed: one that fails")
    if wrong:
        return Outcome(recording, row["id"], command, DIFFER, wrong)
    if "HOOK vmid=" in row["stdout"]:
        return Outcome(recording, row["id"], command, UNCOVERED, "a hookscript's own words (the rest was compared)")
    return Outcome(recording, row["id"], command, AGREE, "")


def _filled(world: World, word: str, upids: dict[str, str]) -> str:
    """`<sha1 of 702.conf>` and `<UPID of …>` stand for the real values."""
    from hashlib import sha1

    def digest(match: re.Match[str]) -> str:
        text = world.text(f"/etc/pve/qemu-server/{match.group(1)}") or ""
        return sha1(text.encode("utf-8", "surrogateescape")).hexdigest()

    word = re.sub(r"<sha1 of (\d+\.conf)>", digest, word)
    return re.sub(r"<UPID of ([^>]+)>", lambda match: upids.get(match.group(1), "UPID:none"), word)


# -- what is compared -----------------------------------------------------------------------------


def _differences(world: World, row: dict[str, Any], ran: Ran, writes: list[list[str]]) -> str:
    """Every field that differs, in words; empty when all agree."""
    wrong = []
    if ran.rc != row["rc"]:
        wrong.append(f"rc {ran.rc} instead of {row['rc']}")
    for name, text, wanted in (("stdout", ran.stdout, row["stdout"]), ("stderr", ran.stderr, row["stderr"])):
        got, want = _answer(text), _answer(wanted)
        if got != want:
            wrong.append(f"{name} {got!r} instead of {want!r}")
    for path, wanted in (row.get("after") or {}).items():
        got, want = _plain(world.text(path) or ""), _plain(wanted or "")
        if got != want:
            wrong.append(f"{path} {got!r} instead of {want!r}")
    recorded = row.get("sys") or {}
    for address, driver in (recorded.get("drivers") or {}).items():
        if world.driver_of(address) != driver:
            wrong.append(f"driver of {address} {world.driver_of(address)} instead of {driver}")
    done = [f"{_kernel_path(world, path)} <- '{value}'" for path, value in writes]
    if done != list(recorded.get("writes") or []):
        wrong.append(f"writes {done} instead of {recorded.get('writes')}")
    if "mdev" in recorded and list(world.names("/sys/bus/mdev/devices")) != recorded["mdev"]:
        wrong.append(f"mdevs {world.names('/sys/bus/mdev/devices')} instead of {recorded['mdev']}")
    return "; ".join(wrong)


def watched(world: World) -> dict[str, str]:
    """Text of every file that the recordings watch."""
    guests = [f"/etc/pve/qemu-server/{name}" for name in world.names("/etc/pve/qemu-server")]
    paths = [*guests, *(f"/etc/pve/{name}" for name in WATCHED), "/run/qemu-server/pci-id-reservations"]
    return {path: text for path in paths if (text := world.text(path))}


def drivers(world: World) -> dict[str, str | None]:
    return {address: world.driver_of(address) for address in world.addresses()}


def _unasked(world: World, row: dict[str, Any], before: dict[str, str], bound: dict[str, str | None]) -> str:
    """Files and drivers that changed here and did not change there (no key in a row = nothing changed)."""
    after, now = watched(world), drivers(world)
    files = {path for path in {*before, *after} if before.get(path) != after.get(path)} - set(row.get("after") or ())
    devices = {address for address in now if now[address] != bound[address]}
    devices -= set((row.get("sys") or {}).get("drivers") or ())
    return f"; changed unasked: {sorted(files)} {sorted(devices)}" if files or devices else ""


def _kernel_path(world: World, path: str) -> str:
    """A path as the recording names it: without /sys, the device's own directory instead of the link in bus/pci."""
    match = re.fullmatch(r"/sys/bus/pci/devices/([^/]+)(/.*)", path)
    return f"/devices/pci0000:00/{match.group(1)}{match.group(2)}" if match else path.removeprefix("/sys")


def _answer(text: str) -> str:
    """An answer without what is random; a JSON list's order is Perl's hash order, which means nothing."""
    plain = _plain(text)
    head, _, last = plain.rstrip("\n").rpartition("\n")
    try:
        data = json.loads(last)
    except ValueError:
        return plain
    ordered = _ordered(_ageless(data))
    return f"{head}\n{json.dumps(ordered, sort_keys=True)}"


def _ageless(data: Any) -> Any:
    """Times and process ids of a live system count as there, not by value."""
    live = {"uptime", "pid", "pstart", "starttime", "endtime", "upid"}
    if isinstance(data, dict):
        live |= {"mem"} if "pid" in data else set()
        # next-run was a stub there, and is left out here
        return {key: "<live>" if key in live else _ageless(value) for key, value in data.items() if key != "next-run"}
    return [_ageless(value) for value in data] if isinstance(data, list) else data


def _ordered(data: Any) -> Any:
    if isinstance(data, list):
        return sorted((_ordered(item) for item in data), key=lambda item: json.dumps(item, sort_keys=True))
    return {key: _ordered(value) for key, value in data.items()} if isinstance(data, dict) else data


_PLAIN: tuple[tuple[str, str], ...] = (
    (r"UPID:(\w+):[^:\s]+:[^:\s]+:[^:\s]+:", r"UPID:\1:<PID>:<PSTART>:<TIME>:"),
    (r"[0-9a-f]{8}-[0-9a-f]{4}-4[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}", "<UUID>"),
    (r"BC:24:11:(?!00:07)[0-9A-F]{2}:[0-9A-F]{2}:[0-9A-F]{2}", "<MAC>"),
    (r"ctime=\d+", "ctime=<TIME>"),
    (r'"digest":"[0-9a-f]{40}"', '"digest":"<SHA1>"'),
    (r'(\{"key":"digest","value":)"[0-9a-f]{40}"', r'\1"<SHA1>"'),
    (r"pid:(\d+|<PID>)", "pid:<PID>"),
    (r"time:(\d+|<EPOCH>)", "time:<EPOCH>"),
    (r"(?m)^(mem|pid|uptime): \d+", r"\1: <live>"),
    # artefacts named by the recordings: no firmware runs, QEMU warns about its network, scripts' own words
    (r"internal-error", "running"),
    (r"prelaunch", "paused"),
    (r"(?m)^kvm: warning: .*\n", ""),
    (r"(?m)^HOOK vmid=.*\n", ""),
    (r"(?m)^(Use of uninitialized value .* line \d+\.\n)", ""),
    # process ids in the table of guests
    (r"(?m)^( +\d+ \S+ +running .* )\d+ +$", r"\1<PID>"),
)


def _plain(text: str) -> str:
    for pattern, replacement in _PLAIN:
        text = re.sub(pattern, replacement, text)
    return text


# -- what is taken over ---------------------------------------------------------------------------


def prepare(world: World, row: dict[str, Any]) -> None:
    """The effect of a row that only prepared the node."""
    script = row["argv"][-1]
    machine = world.machine()
    if match := re.fullmatch(r"echo ((?:bind|reset):\S+) > /run/fault\.list", script):
        machine["faults"] = [match.group(1)]
    elif "fault.list" in script:
        machine["faults"] = []
    elif "touch /root/hookfail" in script or "hookfail.*" in script:
        machine["test"] = script if "touch" in script else ""
    elif "install -m 644 /var/lib/vz/snippets/hook.sh" in script:
        world.put("/var/lib/vz/snippets/noexec.sh", "#!/bin/sh\n", 0o644)
    elif "chmod 644" in script:
        world.put("/var/lib/vz/snippets/hook.sh", "#!/bin/sh\n", 0o644)
    elif "rm /var/lib/vz/snippets/hook.sh" in script:
        world.put("/var/lib/vz/snippets/hook.sh", None)
    elif "rm -f /etc/kernel/proxmox-boot-*" in script:
        prepare_boot(world, machine, row)
    elif "install -m 755" in script:
        world.put("/var/lib/vz/snippets/hook.sh", "#!/bin/sh\n", 0o755)
    world.save_machine(machine)
    state = world.state()
    if "remove_id" in script:
        state["dynamic_ids"] = {}
        world.save_state(state)


def prepare_boot(world: World, machine: dict[str, Any], row: dict[str, Any]) -> None:
    """The part about the boot tool: UEFI, one kernel in /boot, no ESP; `row` shows the command line."""
    machine["firmware"] = {"uefi": True, "secure_boot": False}
    machine["root"] = "root=/dev/mapper/pve-root"
    world.make_dir("/sys/firmware/efi")
    world.put("/proc/cmdline", row["stdout"].splitlines()[0] + "\n")
    world.put("/boot/vmlinuz-6.17.2-1-pve", "kernel\n")
    for name in world.names("/etc/kernel"):
        if name.startswith(("proxmox-boot-", "next-boot-pin")):
            world.put(f"/etc/kernel/{name}", None)


def take_over(world: World, row: dict[str, Any], missed: bool) -> None:
    """Make files, drivers and volumes what the recording says they are."""
    for path, text in (row.get("after") or {}).items():
        wanted = None if text is None else _with_pids(world, text)
        if world.text(path) != wanted:
            world.put(path, wanted)
    for address, driver in ((row.get("sys") or {}).get("drivers") or {}).items():
        if world.driver_of(address) != driver:
            set_driver(world, address, driver)
    if missed:
        _take_over_running(world, row)
        _take_over_volumes(world)


def _with_pids(world: World, text: str) -> str:
    """Reservations with the process ids of this world's guests."""

    def pid(match: re.Match[str]) -> str:
        return f"{match.group(1)} pid:{(world.text(f'/run/qemu-server/{match.group(1)}.pid') or '9999').strip()}"

    return re.sub(r"(\d+) pid:<PID>", pid, text).replace("time:<EPOCH>", "time:9999999999")


def _take_over_running(world: World, row: dict[str, Any]) -> None:
    """A start or stop that was not simulated: its process id and reservations are there or not."""
    match = re.fullmatch(r"(?:env \S+ )?qm (start|stop) (\d+)", " ".join(row["argv"]))
    if match and row["rc"] == 0 and "HA" not in row["stdout"]:
        path = f"/run/qemu-server/{match.group(2)}.pid"
        started = match.group(1) == "start"
        world.put(path, (world.text(path) or "9999\n") if started else None)
    elif match and match.group(1) == "start" and row["rc"] != 0 and "already running" not in row["stderr"]:
        world.put(f"/run/qemu-server/{match.group(2)}.pid", None)


def _take_over_volumes(world: World) -> None:
    """Volumes are those that the recorded configurations name, plus those that are there already."""
    table = json.loads(world.text("/sim/volumes.json") or "{}")
    before = len(table)
    for name in world.names("/etc/pve/qemu-server"):
        for match in re.finditer(
            r"(?m)(local-lvm:vm-(\d+)-disk-\d+)\S*?size=(\d+)([GM])", world.text(f"/etc/pve/qemu-server/{name}") or ""
        ):
            size = int(match.group(3)) << (30 if match.group(4) == "G" else 20)
            table.setdefault(match.group(1), {"size": size, "vmid": int(match.group(2))})
    if len(table) != before:
        world.put("/sim/volumes.json", json.dumps(table))


def main(argv: list[str]) -> int:
    """Print the totals; `-v` prints every row that differs."""
    bad = 0
    for recording in ("pve9", "pve8"):
        with tempfile.TemporaryDirectory() as folder:
            outcomes = replay(recording, Path(folder))
        totals = Counter(outcome.verdict for outcome in outcomes)
        print(f"{recording}: {len(outcomes)} rows: " + ", ".join(f"{count} {name}" for name, count in totals.items()))
        for why, count in Counter(outcome.why for outcome in outcomes if outcome.verdict == UNCOVERED).most_common():
            print(f"  not covered {count:4}  {why}")
        for outcome in outcomes:
            known = KNOWN.get(f"{recording}:{outcome.row}")
            if outcome.verdict == DIFFER:
                bad += known is None
                print(f"  differs {outcome.row} {outcome.command}: {known or ''}")
                if "-v" in argv and known is None:
                    print(f"    {outcome.why}")
    return 1 if bad else 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
