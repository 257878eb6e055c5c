"""The fault storm on simulated Proxmox hosts: whole runs, driven as the program drives them.

1. A machine is prepared once, planned for once and kept as a template. Plays work on a bench, a copy whose files are
   hard links to the template's; that is safe because the simulation replaces files and never writes into them. What is
   appended to or locked is copied. Before a play only what differs is put back.
2. Plans come from `app.plan`; runs go through `app`, the boot unit and the marker included: a machine that comes up
   takes a run on only if systemd would start the unit there.
3. A template is never changed once it is made, so the content of its files is read once and known by inode.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from functools import cache

from pve_passthrough import app, change
from pve_passthrough.change import boot_unit
from pve_passthrough.change.engine import LOCK
from pve_passthrough.change.refresh import run_refresh
from pve_passthrough.host.base import Host
from pve_passthrough.host.simulated import Simulated, World, create, power_cut
from pve_passthrough.host.simulated.world import DRIVERS
from pve_passthrough.model.plan import Cell, Plan
from pve_passthrough.model.run import Phase, Run
from tests.change import storm
from tests.change.storm import Drive, Scenario, Script
from tests.hosts.faulty import Faulty, FaultySimulated

RECORDS = "var/lib/pve-passthrough"
OWN = (f"/{RECORDS}", LOCK.rpartition("/")[0])
"""What each bench has for itself: files that are appended to or locked, and a lock is the inode's."""
LASTING = ("etc", "boot", "root", "var/lib", "sim/esp")
"""Where what survives a power cut lies; /sim/esp are the EFI system partitions."""
FOREIGN = "# somebody else was here\n"
CARD, TWIN = "0000:01:00.0", "0000:04:00.0"


@dataclass(frozen=True, slots=True)
class Machine:
    """A machine of the storm: the seed, what is done to it before, the device for guest 100, the accepted hazards."""

    name: str
    seed: str
    device: str = "gpu"
    prepare: Callable[[Simulated], None] = lambda host: None
    accept: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that is only copied from, its lasting content and how it runs when it is started."""

    directory: str
    lasting: Mapping[str, bytes]
    running: Mapping[str, str]


# -- preparing -----------------------------------------------------------------------------------


def _held_by_nvidia(*addresses: str) -> Callable[[Simulated], None]:
    """As if the vendor's driver were installed: Proxmox cannot take a card from it while the machine runs."""

    def prepare(host: Simulated) -> None:
        machine = host.world.machine()
        for address in addresses:
            machine["natural"][address] = {"driver": "nvidia", "module": "nvidia", "others": []}
        host.world.save_machine(machine)
        power_cut(host.world)
        assert all(host.world.driver_of(address) == "nvidia" for address in addresses)

    return prepare


def _switched_off(host: Simulated) -> None:
    """A machine of systemd-boot whose owner has turned the IOMMU off."""
    path = "/etc/kernel/cmdline"
    host.world.put(path, (host.world.text(path) or "").rstrip("\n") + " intel_iommu=off\n")
    assert host.run(("proxmox-boot-tool", "refresh")).ok
    power_cut(host.world)
    assert "intel_iommu=off" in (host.world.text("/proc/cmdline") or "").split()


MACHINES = (
    Machine("intel 6.5, grub", "intel-6.5-grub"),
    Machine("zfs, iommu off", "intel-zfs", prepare=_switched_off),
    Machine("zfs as it is", "intel-zfs"),
    Machine("amd, secure boot", "amd-secureboot"),
    Machine("twins, by address", "twins", TWIN, _held_by_nvidia(CARD, TWIN)),
    Machine("only display", "only-display", accept=("only-display",)),
    Machine("mixed, nvidia", "mixed", prepare=_held_by_nvidia(CARD)),
)


# -- worlds --------------------------------------------------------------------------------------


class Sim:
    """A machine of the storm; until `begin` it looks at the template itself."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.simulated = Simulated(template(machine).directory)
        self.host: Host = self.simulated

    def begin(self, source: Template) -> None:
        self.host = self.simulated = Simulated(_bench(source.directory, os.getpid()).clean())

    def faulty(self, script: Script) -> Faulty:
        return FaultySimulated(self.simulated, script, self.meddle)

    def power_cut(self) -> None:
        power_cut(self.simulated.world)

    def is_taken_on(self) -> bool:
        return bool(self.simulated.world.state().get("boot_unit_due"))

    def lasting(self) -> Mapping[str, bytes]:
        return _lasting(self.simulated.world.directory)

    def running(self) -> Mapping[str, str]:
        return _running(self.simulated.world)

    def lasting_when(self, kept: bool) -> Mapping[str, bytes]:
        return (kept_template(self.machine) if kept else template(self.machine)).lasting

    def running_when(self, kept: bool) -> Mapping[str, str]:
        return (kept_template(self.machine) if kept else template(self.machine)).running

    def traces(self) -> list[str]:
        """What a run needs while it is unfinished, and nobody after."""
        wants = "/etc/systemd/system/multi-user.target.wants"
        world = self.simulated.world
        return [one for one in (change.MARKER, boot_unit.PATH, f"{wants}/{boot_unit.NAME}") if world.exists(one)]

    def refreshed(self) -> bool:
        """Whether refreshing once more would change nothing."""
        now = self.lasting()
        for name in plan(self.machine).refreshes:
            run_refresh(self.host, name)
        return self.lasting() == now

    def meddle(self) -> None:
        cell = self._prey()
        if cell.kind == "vm":
            vmid, _, key = cell.name.partition("/")
            assert self.host.run(("qm", "set", vmid, f"--{key}", "pc")).ok
        else:
            self.host.write(cell.name, FOREIGN.encode())

    def meddled(self) -> bool:
        return change.read_cell(self.host, self._prey()) in ("pc", FOREIGN)

    def _prey(self) -> Cell:
        """The cell that somebody else edits: a file where the plan has one, else the guest's machine type."""
        cells = [one.cell for one in plan(self.machine).changes]
        files = [cell for cell in cells if cell.kind == "file"]
        return files[0] if files else next(cell for cell in cells if cell.name.endswith("/machine"))

    def close(self) -> None:
        """The bench is put in order when it is used next."""


@cache
def template(machine: Machine) -> Template:
    directory = f"{tempfile.mkdtemp(dir=_scratch())}/m"
    machine.prepare(create(directory, machine.seed))
    return _as_template(directory)


@cache
def plan(machine: Machine) -> Plan:
    host = Simulated(template(machine).directory)
    return app.plan(host, (machine.device,), 100, accept=machine.accept).plan


@cache
def kept_template(machine: Machine) -> Template:
    """The same machine after its plan was made real."""
    directory = f"{tempfile.mkdtemp(dir=_scratch())}/m"
    _copy(template(machine).directory, directory)
    host = Simulated(directory)
    run: Run | None = app.apply(host, plan(machine))
    if run is not None and run.phase is Phase.REBOOT:
        app.reboot(host)
        run = app.after_boot(host)
    assert run is not None and run.phase is Phase.KEPT, run
    return _as_template(directory)


def _as_template(directory: str) -> Template:
    """How it runs is looked at on a copy that is started once more."""
    copy = f"{tempfile.mkdtemp(dir=_scratch())}/m"
    _copy(directory, copy)
    world = Simulated(copy).world
    power_cut(world)
    found = Template(directory, _lasting(directory, remember=True), _running(world))
    shutil.rmtree(copy)
    return found


# -- benches -------------------------------------------------------------------------------------


@cache
def _scratch() -> str:
    """In memory where there is such a place: a play makes and removes hundreds of files."""
    folder = tempfile.mkdtemp(prefix="pve-passthrough-storm-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


class _Bench:
    """A working copy of a template."""

    def __init__(self, source: str) -> None:
        self.source = source
        self.place = f"{tempfile.mkdtemp(dir=_scratch())}/m"
        _copy(source, self.place)
        self.known: dict[str, dict[str, int | str | None]] = {}
        self._learn("")

    def clean(self) -> str:
        """Put back what differs from the template; returns where the copy lies."""
        self._mend("")
        return self.place

    def _learn(self, folder: str) -> None:
        self.known[folder] = _listed(self.source + folder)
        for name, what in self.known[folder].items():
            if what is None:
                self._learn(f"{folder}/{name}")

    def _mend(self, folder: str) -> None:
        wanted = self.known[folder]
        if folder in OWN:
            shutil.rmtree(self.place + folder)
            _copy(self.source + folder, self.place + folder)
            return
        here = _listed(self.place + folder)
        for name in here.keys() | wanted.keys():
            path = f"{folder}/{name}"
            if name in here and name in wanted and here[name] == wanted[name]:
                if wanted[name] is None:
                    self._mend(path)
                continue
            if name in here:
                _remove(self.place + path, here[name])
            if name in wanted:
                _copy_one(self.source + path, self.place + path, wanted[name])


@cache
def _bench(source: str, process: int) -> _Bench:
    return _Bench(source)


def _listed(folder: str) -> dict[str, int | str | None]:
    """Names with a file's inode, a link's text, None for a directory."""
    found: dict[str, int | str | None] = {}
    with os.scandir(folder) as entries:
        for entry in entries:
            if entry.is_symlink():
                found[entry.name] = os.readlink(entry.path)
            else:
                found[entry.name] = None if entry.is_dir(follow_symlinks=False) else entry.inode()
    return found


def _remove(path: str, what: int | str | None) -> None:
    shutil.rmtree(path) if what is None else os.unlink(path)


def _copy(source: str, target: str, plain: bool = False) -> None:
    os.mkdir(target)
    plain = plain or source.endswith(OWN)
    for name, what in _listed(source).items():
        _copy_one(f"{source}/{name}", f"{target}/{name}", what, plain)


def _copy_one(source: str, target: str, what: int | str | None, plain: bool = False) -> None:
    if isinstance(what, str):
        os.symlink(what, target)
    elif what is None:
        _copy(source, target, plain)
    elif plain:
        shutil.copy2(source, target)
    else:
        os.link(source, target)


# -- looking -------------------------------------------------------------------------------------

_CONTENTS: dict[int, bytes] = {}
"""Content by inode, of files that a template holds on to: such an inode is never another file's."""


def _lasting(directory: str, remember: bool = False) -> dict[str, bytes]:
    """Files with their content, directories and links; what the simulation or we ourselves keep for us is left out."""
    found: dict[str, bytes] = {}
    for top in LASTING:
        if os.path.isdir(f"{directory}/{top}"):
            _gather(directory, f"/{top}", found, remember)
    return found


def _gather(directory: str, folder: str, found: dict[str, bytes], remember: bool) -> None:
    for name, what in _listed(directory + folder).items():
        path = f"{folder}/{name}"
        if path == f"/{RECORDS}":
            continue
        if what is None:
            found[f"{path}/"] = b"directory"
            _gather(directory, path, found, remember)
        elif isinstance(what, str):
            found[path] = what.encode()
        else:
            found[path] = _content(directory + path, what, remember)


def _content(path: str, inode: int, remember: bool) -> bytes:
    """Mode and content."""
    known = _CONTENTS.get(inode)
    if known is None:
        with open(path, "rb") as handle:
            known = f"{os.fstat(handle.fileno()).st_mode:o} ".encode() + handle.read()
        if remember:
            _CONTENTS[inode] = known
    return known


def _running(world: World) -> dict[str, str]:
    """What a start decides: the command line, modules, groups, and who holds what."""
    state = world.state()
    found = {path: world.text(path) or "" for path in ("/proc/cmdline", "/proc/modules", "/proc/sys/kernel/osrelease")}
    found["down"] = state.get("down", "")
    found["guests"] = str(state.get("running"))
    found["ids"] = str(state.get("dynamic_ids"))
    found["units"] = " ".join(world.names("/sys/class/iommu"))
    found["drivers"] = " ".join(world.names(DRIVERS))
    for address in world.addresses():
        parts = (world.driver_of(address), world.group_of(address), world.attribute(address, "driver_override"))
        found[address] = " ".join(map(str, parts))
    return found


# -- scenarios -----------------------------------------------------------------------------------


def _go_on(world: storm.World, host: Host) -> Run | None:
    """The boot unit when the machine has just come up and systemd would start it; else a person."""
    return app.after_boot(host) if world.is_taken_on() else app.resume(host)


PROGRAM = Drive(
    go_on=_go_on,
    restart=lambda world, host: app.reboot(host),
    take_back=lambda host, plan: app.undo(host, plan.id),
)


def scenarios(machine: Machine) -> tuple[Scenario, Scenario]:
    def before_apply(world: storm.World, plan: Plan) -> None:
        assert isinstance(world, Sim)
        world.begin(template(machine))

    def before_undo(world: storm.World, plan: Plan) -> None:
        assert isinstance(world, Sim)
        world.begin(kept_template(machine))

    def made(world: storm.World) -> Plan:
        return plan(machine)

    def world() -> storm.World:
        return Sim(machine)

    return (
        Scenario(f"{machine.name}: apply", world, made, app.apply, before_apply, drive=PROGRAM),
        Scenario(f"{machine.name}: undo", world, made, PROGRAM.take_back, before_undo, keeps=False, drive=PROGRAM),
    )


SIMS: tuple[Scenario, ...] = tuple(scenario for machine in MACHINES for scenario in scenarios(machine))
