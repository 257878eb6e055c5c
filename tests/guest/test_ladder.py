"""The ladder against a host that answers from a table: every outcome of every rung."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence

import pytest

from pve_passthrough.guest import Outcome, agent, climb
from pve_passthrough.host.base import Missing, Ran, Unreadable
from pve_passthrough.host.replay import Answers, Replay
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.vm import HostPci, Vm

GPU = Address.parse("0000:01:00.0")
AUDIO = Address.parse("0000:01:00.1")
FACTS = Facts(
    "test",
    devices=(
        Device(GPU, vendor=0x10DE, product=0x2684, name="NVIDIA AD102"),
        Device(AUDIO, vendor=0x10DE, product=0x22BA, name="NVIDIA AD102 audio"),
    ),
)
VM = Vm(100, "pve", {"name": "win"}, hostpci=(HostPci("hostpci0", {}, (GPU, AUDIO)),))
LINUX_GUEST = (
    "DRIVER=nvidia\nPCI_CLASS=30000\nPCI_ID=10DE:2684\nPCI_SLOT_NAME=0000:01:00.0\nMODALIAS=pci:x\n"
    "PCI_CLASS=40300\nPCI_ID=10DE:22BA\nPCI_SLOT_NAME=0000:01:00.1\nMODALIAS=pci:y\n"
)


class Table(Replay):
    """A replay that may start programs: `programs` maps the first words of a command to its answer."""

    def __init__(self, programs: Mapping[str, Ran], *, running: bool = False, driver: str = "vfio-pci") -> None:
        links = {f"/sys/bus/pci/devices/{address}/driver": f"../drivers/{driver}" for address in (GPU, AUDIO)}
        super().__init__(Answers(links=dict(links)), "test")
        self.programs = programs
        self.running = running
        self.started: list[str] = []

    def read(self, path: str) -> bytes:
        if path == "/run/qemu-server/100.pid" and not self.running:
            raise Missing(path, "gone")
        return b"1\n"

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        line = " ".join(argv)
        self.started.append(line)
        for words, ran in self.programs.items():
            if line.startswith(words):
                self.running = self.running or (words == "qm start" and ran.ok)
                return ran
        raise Unreadable(argv[0], "no answer")


def _json(**values: object) -> Ran:
    return Ran(0, json.dumps(values))


def _linux(output: str = LINUX_GUEST) -> dict[str, Ran]:
    return {
        "qm start": Ran(0),
        "qm guest cmd 100 get-osinfo": _json(id="debian"),
        "qm guest exec": _json(exited=1, exitcode=0, **{"out-data": output}),
    }


def outcomes(host: Table, *, start: bool = True) -> list[str]:
    return [rung.outcome.value for rung in climb(host, FACTS, VM, patience=0, start=start)]


def test_all_rungs_hold() -> None:
    host = Table(_linux())
    rungs = climb(host, FACTS, VM, patience=0)
    assert [(rung.level, rung.outcome) for rung in rungs] == [
        (0, Outcome.PASSED),
        (1, Outcome.PASSED),
        (2, Outcome.PASSED),
        (3, Outcome.PASSED),
    ]
    assert any("10de:2684 driver nvidia" in line for line in rungs[3].evidence)
    assert any("10de:22ba no driver yet" in line for line in rungs[3].evidence)


def test_a_stopped_guest_is_started_only_when_allowed() -> None:
    host = Table(_linux())
    assert outcomes(host, start=False) == ["passed", "passed", "skipped", "skipped"]
    assert host.started == []


def test_a_failed_start_shows_what_proxmox_said() -> None:
    host = Table({"qm start": Ran(255, "", "PCI device '0000:01:00.0' already in use by VMID '7'\n")}, driver="nouveau")
    rungs = climb(host, FACTS, VM, patience=0)
    assert [rung.outcome.value for rung in rungs] == ["passed", "skipped", "failed", "skipped"]
    assert "already in use by VMID '7'" in rungs[2].evidence[0]


def test_a_running_guest_without_its_device_fails_rung_one() -> None:
    assert outcomes(Table(_linux(), running=True, driver="nouveau"))[1] == "failed"


def test_no_agent_is_unknown_not_no() -> None:
    silent = {"qm start": Ran(0), "qm guest": Ran(255, "", "QEMU guest agent is not running\n")}
    rungs = climb(Table(silent), FACTS, VM, patience=0)
    assert rungs[3].outcome is Outcome.UNKNOWN
    assert "agent" in rungs[3].hint


def test_the_agent_gets_time_to_appear() -> None:
    naps: list[float] = []
    silent = {"qm start": Ran(0), "qm guest": Ran(255, "", "QEMU guest agent is not running\n")}
    climb(Table(silent), FACTS, VM, patience=10, sleep=naps.append)
    assert sum(naps) == pytest.approx(10)


def test_a_device_that_the_guest_lacks_fails() -> None:
    host = Table(_linux("PCI_ID=10DE:2684\nMODALIAS=x\n"))
    rungs = climb(host, FACTS, VM, patience=0)
    assert rungs[3].outcome is Outcome.FAILED
    assert "no device with id 10de:22ba" in rungs[3].evidence[-1]


def test_two_identical_cards_need_two_in_the_guest() -> None:
    twin = Device(Address.parse("0000:02:00.0"), vendor=0x10DE, product=0x2684)
    facts = Facts("test", devices=(FACTS.devices[0], twin))
    vm = Vm(100, "pve", {}, hostpci=(HostPci("hostpci0", {}, (GPU, twin.address)),))
    rungs = climb(Table(_linux()), facts, vm, patience=0)
    assert rungs[3].outcome is Outcome.FAILED


def test_windows_problems_are_told() -> None:
    rows = [
        {"InstanceId": "PCI\\VEN_10DE&DEV_2684&SUBSYS_1\\3", "Status": "Error", "Problem": 43, "Service": "nvlddmkm"},
        {"InstanceId": "PCI\\VEN_10DE&DEV_22BA&SUBSYS_1\\3", "Status": "OK", "Problem": 0, "Service": "HDAudBus"},
        {"InstanceId": "USB\\VID_1", "Status": "OK"},
    ]
    programs = {
        "qm start": Ran(0),
        "qm guest cmd": _json(id="mswindows"),
        "qm guest exec": _json(exited=1, exitcode=0, **{"out-data": json.dumps(rows)}),
    }
    rung = climb(Table(programs), FACTS, VM, patience=0)[3]
    assert rung.outcome is Outcome.PASSED and "complains" in rung.message
    assert "reports Error 43" in rung.evidence[0]


@pytest.mark.parametrize(
    "answer",
    [
        Ran(0, "{"),
        Ran(0, "[]"),
        _json(exited=0),
        _json(exited=1, exitcode=1),
        _json(exited=1, exitcode=0, **{"out-data": 7}),
    ],
)
def test_odd_agent_answers_are_silence(answer: Ran) -> None:
    host = Table({"qm guest cmd": _json(id="debian"), "qm guest exec": answer}, running=True)
    assert isinstance(agent.devices_in(host, 100), agent.Silence)


def test_whether_it_runs_may_be_unknown() -> None:
    class Blind(Table):
        def read(self, path: str) -> bytes:
            raise Unreadable(path, "Input/output error")

    host = Blind(_linux())
    assert outcomes(host) == ["passed", "passed", "unknown", "skipped"]
    assert host.started == []


def test_a_guest_without_devices_fails_at_the_bottom() -> None:
    bare = Vm(100, "pve", {})
    rungs = climb(Table({}), FACTS, bare, patience=0)
    assert rungs[0].outcome is Outcome.FAILED


def test_a_lost_device_is_named() -> None:
    rungs = climb(Table({}), Facts("test"), VM, patience=0)
    assert rungs[0].outcome is Outcome.FAILED and "0000:01:00.0 is not on this machine" in rungs[0].evidence[0]
