"""The plays of the fault storm: toy worlds here, simulated hosts where they can be built."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace

from pve_passthrough import change
from pve_passthrough.host.base import Host, text_or_none
from pve_passthrough.model.plan import Cell, Change, Expectation, Plan
from tests.change import storm
from tests.change.storm import Scenario, Script, World
from tests.hosts.faulty import Faulty
from tests.hosts.memory import CARD, GRUB, GRUB_DIR, MODPROBE, Memory

FOREIGN = "# somebody else was here\n"
NUMVFS = f"/sys/bus/pci/devices/{CARD}/sriov_numvfs"
DROP_IN = f"{GRUB_DIR}/zz-pve-passthrough.cfg"


class Toy:
    """A world in memory."""

    def __init__(self) -> None:
        self.memory = Memory()
        self.host: Host = self.memory

    def faulty(self, script: Script) -> Faulty:
        return Faulty(self.host, script, self.meddle)

    def power_cut(self) -> None:
        self.memory.locked = False
        self.memory.power_cut()

    def is_taken_on(self) -> bool:
        return text_or_none(self.host, change.MARKER) is not None

    def lasting(self) -> Mapping[str, bytes]:
        return self.memory.lasting()

    def running(self) -> Mapping[str, str]:
        return {}

    def lasting_when(self, kept: bool) -> Mapping[str, bytes] | None:
        return None

    def running_when(self, kept: bool) -> Mapping[str, str]:
        return {}

    def traces(self) -> list[str]:
        return [change.MARKER] if self.is_taken_on() else []

    def refreshed(self) -> bool:
        return self.memory.refreshed()

    def meddle(self) -> None:
        self.memory.disk[GRUB] = FOREIGN.encode()

    def meddled(self) -> bool:
        return self.memory.disk[GRUB] == FOREIGN.encode()

    def close(self) -> None:
        pass


class LiveToy(Toy):
    """The same machine with two virtual functions at work, a number that only changes by way of 0."""

    def __init__(self) -> None:
        super().__init__()
        self.memory.volatile[NUMVFS] = b"2\n"


def file_text(world: World, path: str) -> str:
    return world.host.read(path).decode("utf-8", "surrogateescape")


def change_of(cell: str, before: str | None, after: str | None) -> Change:
    return Change(Cell.parse(cell), before, after, "a test")


def toy_reboot(world: World) -> Plan:
    """Files, a directory, guest options; both refreshes and a reboot."""
    grub = file_text(world, GRUB)
    return Plan(
        "20261121-140501-reboot",
        change.machine_name(world.host),
        "give the card to guest 100",
        changes=(
            change_of(f"file:{MODPROBE}", None, "options vfio-pci ids=10de:2684\n"),
            change_of(f"dir:{GRUB_DIR}", None, "directory"),
            change_of(f"file:{DROP_IN}", None, 'GRUB_CMDLINE_LINUX_DEFAULT="$X intel_iommu=on"\n'),
            change_of(f"file:{GRUB}", grub, grub.replace("quiet", "quiet splash")),
            change_of("vm:100/hostpci0", None, "0000:01:00,pcie=1"),
            change_of("vm:100/machine", None, "q35"),
            change_of("vm:100/cores", "4", "8"),
        ),
        refreshes=("initramfs", "grub"),
        reboot=True,
        expects=(
            Expectation(Cell("arg", "intel_iommu"), "intel_iommu=on", "a test"),
            Expectation(Cell("driver", CARD), "vfio-pci", "a test"),
        ),
    )


def toy_live(world: World) -> Plan:
    """What takes effect at once: a driver, an attribute, a running guest, a unit, mappings."""
    return Plan(
        "20261121-140502-live",
        change.machine_name(world.host),
        "lend the card to guest 100",
        changes=(
            change_of(f"file:{GRUB}", file_text(world, GRUB), "GRUB_TIMEOUT=3\n"),
            change_of(f"driver:{CARD}", "nouveau", "vfio-pci"),
            change_of(f"sysfs:{NUMVFS}", "2", "4"),
            change_of("unit:ours.service", "disabled", "enabled"),
            change_of("mapping:pci/card", None, f"map node=pve,path={CARD},id=10de:2684"),
            change_of(
                "mapping:pci/nic",
                "map node=pve,path=0000:02:00.0,id=8086:1521",
                "map node=pve,path=0000:02:00.0,id=8086:1521,iommugroup=14",
            ),
            change_of("vmstate:100", "stopped", "running"),
        ),
        refreshes=("udev", "grub"),
        expects=(Expectation(Cell("group", CARD), "13", "a test"),),
    )


def toy_wrong(world: World) -> Plan:
    """A plan whose expectation does not come true after the reboot."""
    plan = toy_reboot(world)
    return replace(plan, expects=(Expectation(Cell("arg", "intel_iommu"), "intel_iommu=off", "never true"),))


TOYS = (
    Scenario("toy: apply, reboot", Toy, toy_reboot, storm.apply),
    Scenario("toy: apply, live", LiveToy, toy_live, storm.apply),
    Scenario("toy: comes out wrong", Toy, toy_wrong, storm.apply, keeps=False),
    Scenario("toy: undo after reboot", Toy, toy_reboot, storm.take_back, storm.until_ended, keeps=False),
    Scenario("toy: undo before reboot", Toy, toy_reboot, storm.take_back, storm.until_reboot, keeps=False),
    Scenario("toy: undo, live", LiveToy, toy_live, storm.take_back, storm.until_ended, keeps=False),
)


def pairs_of(scenario: Scenario) -> int:
    """How many pairs are played when not all are: a simulated host takes twenty times as long as a toy."""
    return 400 if scenario in TOYS else 60


def every() -> tuple[Scenario, ...]:
    from tests.change import sims  # builds nothing yet

    return (*TOYS, *sims.SIMS)
