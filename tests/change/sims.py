"""The fault storm on simulated Proxmox hosts, with plans that the planner made.

1. A machine is built once and kept as a template; each play works on a copy whose files are hard links, which is safe
   because the simulation replaces files and never writes into them; our own records, which are appended to, are copied.
2. Plans come from the real probe and planner; claims that the machine would not need are added, so that every kind of
   file and every refresh takes part.
"""

from __future__ import annotations

import atexit
import os
import shutil
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import cache

from pve_passthrough import change
from pve_passthrough.change.refresh import run_refresh
from pve_passthrough.host.base import Host
from pve_passthrough.host.simulated import Simulated, create, power_cut
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.plan import Cell, Plan
from pve_passthrough.model.run import Phase
from pve_passthrough.model.wish import ArgPresent, ClaimByAddress, ClaimById, Wish
from pve_passthrough.planning import give, make_plan, resolve
from pve_passthrough.probe import probe
from tests.change import storm
from tests.change.storm import Scenario, World

RECORDS = "var/lib/pve-passthrough"
LASTING = ("etc", "boot", "root", "var/lib", "sim/esp")
"""Where what survives a power cut lies; /sim/esp are the EFI system partitions."""


@dataclass(frozen=True, slots=True)
class Template:
    """A machine that is only copied from, its lasting content and the plan for it."""

    directory: str
    lasting: Mapping[str, bytes]
    plan: Plan


class Sim:
    """A copy of a template; until `begin` it looks at the template itself."""

    def __init__(self, template: Template) -> None:
        self.template = template
        self.directory = ""
        self.host: Host = Simulated(template.directory)

    def begin(self, directory: str) -> None:
        self.directory = tempfile.mkdtemp(dir=_scratch())
        _copy(directory, f"{self.directory}/m")
        self.host = Simulated(f"{self.directory}/m")

    def power_cut(self) -> None:
        assert isinstance(self.host, Simulated)
        power_cut(self.host.world)

    def lasting(self) -> Mapping[str, bytes]:
        return _lasting(f"{self.directory}/m") if self.directory else self.template.lasting

    def refreshed(self) -> bool:
        """Whether refreshing once more would change nothing."""
        now = self.lasting()
        for name in self.template.plan.refreshes:
            run_refresh(self.host, name)
        return self.lasting() == now

    def meddle(self) -> None:
        cell = self._first()
        if cell.kind == "vm":
            vmid, _, key = cell.name.partition("/")
            assert self.host.run(("qm", "set", vmid, f"--{key}", "pc")).ok
        else:
            self.host.write(cell.name, b"# somebody else was here\n")

    def meddled(self) -> bool:
        return change.read_cell(self.host, self._first()) in ("pc", "# somebody else was here\n")

    def _first(self) -> Cell:
        return self.template.plan.changes[0].cell

    def close(self) -> None:
        if self.directory:
            shutil.rmtree(self.directory)


# -- templates -----------------------------------------------------------------------------------


@cache
def _scratch() -> str:
    """In memory where there is such a place: a play makes and removes a thousand files."""
    folder = tempfile.mkdtemp(prefix="pve-passthrough-storm-", dir="/dev/shm" if os.path.isdir("/dev/shm") else None)
    atexit.register(shutil.rmtree, folder, ignore_errors=True)
    return folder


def _copy(source: str, target: str, plain: bool = False) -> None:
    os.mkdir(target)
    with os.scandir(source) as entries:
        for entry in entries:
            path = f"{target}/{entry.name}"
            if entry.is_symlink():
                os.symlink(os.readlink(entry.path), path)
            elif entry.is_dir():
                _copy(entry.path, path, plain or entry.path.endswith(RECORDS))
            elif plain:
                shutil.copy2(entry.path, path)
            else:
                os.link(entry.path, path)


def _lasting(directory: str) -> dict[str, bytes]:
    """Files with their content, directories and links; what the simulation or we ourselves keep for us is left out."""
    found: dict[str, bytes] = {}
    for top in LASTING:
        for folder, folders, files in os.walk(f"{directory}/{top}"):
            if folder.endswith(RECORDS):
                folders.clear()
                continue
            name = folder.removeprefix(directory)
            if not folder.endswith("var/lib"):
                found[f"{name}/"] = b"directory"
            for file in files:
                path = f"{folder}/{file}"
                if os.path.islink(path):
                    found[f"{name}/{file}"] = os.readlink(path).encode()
                else:
                    with open(path, "rb") as handle:
                        found[f"{name}/{file}"] = handle.read()
    return found


@cache
def template(seed: str, extra: Callable[[Facts], Sequence[Wish]]) -> Template:
    directory = f"{tempfile.mkdtemp(dir=_scratch())}/m"
    host = create(directory, seed)
    facts = probe(host, deep=True)
    words = ["gpu"] if seed == "amd-secureboot" else ["01:00"]
    wishes = (*give(facts, resolve(facts, words), 100), *extra(facts)) if seed != "amd-secureboot" else extra(facts)
    plan = make_plan(facts, wishes, goal="storm", vmid=100, now="20261121-140501", machine=change.machine_name(host))
    return Template(directory, _lasting(directory), plan)


@cache
def applied(seed: str, extra: Callable[[Facts], Sequence[Wish]], reboot: bool) -> str:
    """Where the same machine lies after its plan was made real; `reboot`: up to the end, else up to the wait."""
    world = Sim(template(seed, extra))
    world.begin(world.template.directory)
    run = change.start(world.host, world.template.plan)
    while reboot and not run.ended:
        world.power_cut()
        run = change.advance(world.host, run.id)
    assert run.phase in (Phase.KEPT, Phase.REBOOT), run.reason
    return f"{world.directory}/m"


def nothing(facts: Facts) -> Sequence[Wish]:
    return ()


def ids(facts: Facts) -> Sequence[Wish]:
    """Early binding by ID and one more argument: modprobe.d, modules-load.d, the initramfs and the loader."""
    card = next(device for device in facts.devices if str(device.address) == "0000:01:00.0")
    identity = f"{card.vendor:04x}:{card.product:04x}"
    return (ClaimById((identity,), ("nouveau",), "a test"), ArgPresent("iommu=pt", "a test"))


def addresses(facts: Facts) -> Sequence[Wish]:
    """Early binding by address: an initramfs script."""
    card = next(device for device in facts.devices if str(device.address) == "0000:01:00.0")
    return (ClaimByAddress(card.address, f"{card.vendor:04x}:{card.product:04x}", "a test"),)


def argument(facts: Facts) -> Sequence[Wish]:
    return (ArgPresent("iommu=pt", "a test"),)


# -- scenarios -----------------------------------------------------------------------------------


def _scenarios(name: str, seed: str, extra: Callable[[Facts], Sequence[Wish]]) -> tuple[Scenario, Scenario]:
    def world() -> World:
        return Sim(template(seed, extra))

    def plan(world: World) -> Plan:
        return template(seed, extra).plan

    def before_apply(world: World, plan: Plan) -> None:
        assert isinstance(world, Sim)
        world.begin(world.template.directory)

    def before_undo(world: World, plan: Plan) -> None:
        assert isinstance(world, Sim)
        world.begin(applied(seed, extra, reboot=True))

    return (
        Scenario(f"{name}: apply", world, plan, storm.apply, before_apply),
        Scenario(f"{name}: undo", world, plan, storm.take_back, before_undo, keeps=False),
    )


SIMS: tuple[Scenario, ...] = (
    *_scenarios("sim default, guest only", "default", nothing),
    *_scenarios("sim intel 6.5, by address", "intel-6.5-grub", addresses),
    *_scenarios("sim zfs, by id", "intel-zfs", ids),
    *_scenarios("sim amd, grub on esp", "amd-secureboot", argument),
    *_scenarios("sim mixed loaders", "mixed", argument),
)
