"""The verb `sriov`, as a person uses it: make virtual functions, keep them over starts, take them away; and what must
not happen to a host or a guest meanwhile."""

from __future__ import annotations

import itertools
import json
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.app import sriov
from pve_passthrough.app.sriov import Wanted
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.host.simulated import create as make
from pve_passthrough.host.simulated.sriov_seeds import SRIOV_NIC
from pve_passthrough.model.own import SRIOV, SRIOV_UNIT
from pve_passthrough.model.plan import Plan
from pve_passthrough.model.run import Phase
from tests.copies import copy_of
from tests.hosts import faulty
from tests.hosts.faulty import Fault, FaultySimulated, Killed, PowerCut

PF, OTHER_PF, GPU = "0000:05:00.0", "0000:05:00.1", "0000:01:00.0"
VFS = tuple(f"0000:06:1{number // 4}.{number % 4 * 2}" for number in range(7))
CONF, UNIT = SRIOV.format(address=PF), SRIOV_UNIT.format(address=PF)
WANTS = f"/etc/systemd/system/multi-user.target.wants/{UNIT}"


@pytest.fixture(autouse=True)
def clock(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are named after seconds, and a test has many in one."""
    seconds = itertools.count(20261121120000)
    monkeypatch.setattr(sriov, "now", lambda: f"{(text := str(next(seconds)))[:8]}-{text[8:]}")


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return opened(copy_of("sriov-nic", tmp_path / "host"))


def opened(host: Simulated) -> Simulated:
    """With this program on it, as the command line opens it."""
    found = app.open_host(host.name)
    assert isinstance(found, Simulated)
    return found


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, "sriov", *words])


def made(host: Simulated, count: int = 4, word: str = PF, **more: object) -> Plan:
    return sriov.plan_create(host, word, Wanted(count, **more))  # type: ignore[arg-type]


def create(host: Simulated, count: int = 4, word: str = PF, **more: object) -> None:
    assert app.apply(host, made(host, count, word, **more)).phase is Phase.KEPT


def refused(act: Callable[[], object]) -> Failure:
    with pytest.raises(Failure) as caught:
        act()
    return caught.value


def present(host: Simulated) -> tuple[str, ...]:
    return tuple(one for one in VFS if one in host.world.addresses())


def settings(host: Simulated, pf: str = PF) -> list[tuple[str | None, int | None, bool | None]]:
    _, found = sriov.listed(host)
    one = next(one for one in found if str(one.device.address) == pf)
    return [(vf.settings.mac, vf.settings.vlan, vf.settings.trust) for vf in one.vfs]


def restart(host: Simulated) -> None:
    power_cut(host.world)
    app.after_boot(host)


# -- making, keeping, taking away ----------------------------------------------------------------


def test_they_are_made_with_fixed_addresses_in_groups_of_their_own_and_come_back_after_a_start(host: Simulated) -> None:
    create(host, vlan=10, trust=True)
    before = settings(host)
    assert present(host) == VFS[:4]
    assert len({mac for mac, _, _ in before}) == 4
    for mac, vlan, trust in before:
        assert mac is not None and int(mac[:2], 16) & 3 == 2, "locally administered, and one station's"
        assert (vlan, trust) == (10, True)
    facts = app.look(host)
    groups = [device.iommu_group for device in facts.devices if str(device.address) in VFS]
    assert len(set(groups)) == 4
    restart(host)
    assert present(host) == VFS[:4] and settings(host) == before


def test_without_our_unit_a_start_forgets_them_and_the_rule_says_so(host: Simulated) -> None:
    host.write(f"/sys/bus/pci/devices/{PF}/sriov_numvfs", b"2\n")
    assert [one.rule for one in app.check(host).findings if one.rule.startswith("sriov.")] == ["sriov.not-persistent"]
    restart(host)
    assert present(host) == ()


def test_undo_and_remove_leave_nothing(host: Simulated) -> None:
    create(host)
    assert host.world.exists(WANTS)
    assert app.undo(host).phase is Phase.UNDONE
    assert present(host) == ()
    assert not any(map(host.world.exists, (CONF, WANTS, f"/etc/systemd/system/{UNIT}")))
    create(host)
    assert says(host, "remove", PF, "--yes") == Exit.FINE
    assert present(host) == ()
    assert not any(map(host.world.exists, (CONF, WANTS, f"/etc/systemd/system/{UNIT}")))
    assert app.undo(host).phase is Phase.UNDONE
    assert present(host) == VFS[:4] and host.world.exists(WANTS)


def test_the_same_again_changes_nothing_and_what_is_not_named_stays(host: Simulated) -> None:
    create(host, vlan=7)
    assert made(host).changes == ()
    create(host, 4, spoofcheck=False)
    assert {vlan for _, vlan, _ in settings(host)} == {7}
    create(host, 6)
    assert [vlan for _, vlan, _ in settings(host)] == [7, 7, 7, 7, 0, 0]


def test_another_number_goes_by_way_of_none(host: Simulated) -> None:
    create(host, 2)
    create(host, 3)
    path = f"/sys/bus/pci/devices/{PF}/sriov_numvfs"
    assert [text for written, text in host.world.state()["sysfs_writes"] if written == path] == ["2", "0", "3"]


def test_settings_come_before_drivers(host: Simulated) -> None:
    """A driver asks for its address when it starts."""
    create(host, 1)
    wrote = [(path.rpartition("/")[2], text) for path, text in host.world.state()["sysfs_writes"]]
    order = [
        one
        for one in wrote
        if one[0] in ("sriov_numvfs", "sriov_drivers_autoprobe") or one == ("drivers_probe", VFS[0])
    ]
    assert order == [
        ("sriov_drivers_autoprobe", "0"), ("sriov_numvfs", "1"), ("sriov_drivers_autoprobe", "1"),
        ("drivers_probe", VFS[0]),
    ]  # fmt: skip
    assert host.world.driver_of(VFS[0]) == "igbvf"


def test_held_ones_get_no_driver_of_the_host_and_a_guest_starts_with_one(host: Simulated) -> None:
    create(host, 2, autoprobe=False)
    assert host.world.driver_of(VFS[0]) is None
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[0])).ok
    assert host.run(("qm", "start", "100")).ok
    assert host.world.driver_of(VFS[0]) == "vfio-pci"


def test_switched_off_autoprobe_keeps_guests_off_and_the_rule_and_create_mend_it(host: Simulated) -> None:
    create(host, 1)
    attribute = f"/sys/bus/pci/devices/{PF}/sriov_drivers_autoprobe"
    host.write(attribute, b"0\n")
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[0])).ok
    assert not host.run(("qm", "start", "100")).ok
    assert "sriov.autoprobe-off" in {one.rule for one in app.check(host, [VFS[0]]).findings}
    create(host, 1)
    assert host.run(("qm", "start", "100")).ok


def test_a_pool_is_one_mapping_of_which_two_guests_get_different_ones(host: Simulated) -> None:
    assert says(host, "create", PF, "2", "--mapping", "pool", "--yes") == Exit.FINE
    assert host.run(("qm", "create", "101", "--memory", "1024")).ok
    for vmid in ("100", "101"):
        assert host.run(("qm", "set", vmid, "--hostpci0", "mapping=pool")).ok
        assert host.run(("qm", "start", vmid)).ok
    assert [host.world.driver_of(one) for one in VFS[:2]] == ["vfio-pci", "vfio-pci"]
    assert says(host, "create", PF, "2", "--mapping", "pool", "--yes") == Exit.FINE, "twice is as good as once"


# -- what is refused -----------------------------------------------------------------------------


@pytest.mark.parametrize("count, word, ref", [
    (0, PF, "sriov.count"), (8, PF, "sriov.count"), (999, PF, "sriov.count"), (2**40, PF, "sriov.count"),
    (1, GPU, "sriov.no-capability"), (1, "0000:07:00.0", "device.unknown"), (1, "nonsense", "device.unknown"),
])  # fmt: skip
def test_what_makes_no_sense_is_refused_and_changes_nothing(host: Simulated, count: int, word: str, ref: str) -> None:
    failure = refused(lambda: made(host, count, word))
    assert failure.problem.ref == ref and failure.code is Exit.USAGE
    assert failure.problem.message.startswith("Nothing was planned")
    assert present(host) == ()


def test_a_virtual_function_is_no_physical_one(host: Simulated) -> None:
    create(host, 1)
    failure = refused(lambda: made(host, 1, VFS[0]))
    assert failure.problem.ref == "sriov.is-virtual" and PF in failure.problem.hint


@pytest.mark.parametrize("macs", [
    ("01:00:00:00:00:01", "02:00:00:00:00:02"), ("02:00:00:00:00:01",), ("02:00:00:00:00:01", "02:00:00:00:00:01"),
    ("zz", "02:00:00:00:00:01"), ("00:00:00:00:00:00", "02:00:00:00:00:01"),
])  # fmt: skip
def test_addresses_must_be_those_of_different_stations(host: Simulated, macs: tuple[str, ...]) -> None:
    assert refused(lambda: made(host, 2, mac=macs)).problem.ref == "sriov.mac"


def test_a_function_that_vfio_pci_holds_makes_none(host: Simulated) -> None:
    host.run(("modprobe", "vfio-pci"))
    host.world.place(PF, "vfio-pci")
    assert refused(lambda: made(host)).problem.ref == "sriov.not-ready"


def test_a_guest_that_is_to_get_the_function_itself_stands_in_the_way(host: Simulated) -> None:
    assert host.run(("qm", "set", "100", "--hostpci0", PF)).ok
    failure = refused(lambda: made(host))
    assert failure.problem.ref == "sriov.pf-claimed" and "100" in failure.problem.message


def test_a_function_with_virtual_ones_is_not_given_itself_neither_now_nor_when_a_start_makes_them(
    host: Simulated,
) -> None:
    create(host)
    assert refused(lambda: app.plan(host, [PF], 100)).problem.ref == "blocked.drivers.sriov-pf"
    host.write(f"/sys/bus/pci/devices/{PF}/sriov_numvfs", b"0\n")
    assert refused(lambda: app.plan(host, [PF], 100)).problem.ref == "blocked.sriov.pf-claimed"
    create(host)
    assert app.plan(host, [VFS[0]], 100).plan.changes


def test_none_is_taken_from_a_running_guest_neither_by_remove_nor_by_another_number_nor_by_undo(
    host: Simulated,
) -> None:
    create(host)
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[0])).ok
    assert host.run(("qm", "start", "100")).ok
    for act in (lambda: sriov.plan_remove(host, PF, ("vf-running", "never", "vf-assigned")), lambda: made(host, 2)):
        failure = refused(act)
        assert failure.problem.ref == "refused.plan.vf-running" and "--accept" not in failure.problem.hint
    done = app.undo(host)
    assert done.phase is Phase.STUCK and "guest 100" in done.reason
    assert present(host) == VFS[:4] and host.world.driver_of(VFS[0]) == "vfio-pci"
    assert host.run(("qm", "stop", "100")).ok
    assert app.undo(host, done.id).phase is Phase.UNDONE and present(host) == ()


def test_a_stopped_guest_that_would_lose_one_is_a_hazard_with_a_name(host: Simulated) -> None:
    create(host)
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[3])).ok
    assert refused(lambda: made(host, 2)).problem.hint.endswith("--accept vf-assigned")
    assert sriov.plan_create(host, PF, Wanted(2), ["vf-assigned"]).changes
    assert made(host, 5).risks, "those that stay at their addresses are a note"


def test_the_card_of_the_host_s_own_network_is_a_hazard_with_a_name(tmp_path: Path) -> None:
    nic = replace(SRIOV_NIC.nics[1], master="vmbr0")
    host = opened(make(str(tmp_path / "host"), replace(SRIOV_NIC, nics=(nic,))))
    assert refused(lambda: made(host)).problem.ref == "refused.plan.pf-management"
    assert sriov.plan_create(host, PF, Wanted(4), ["pf-management"]).changes


def test_graphics_whose_driver_cannot_are_told_what_they_would_need(tmp_path: Path) -> None:
    host = opened(copy_of("sriov-igpu", tmp_path / "host"))
    failure = refused(lambda: made(host, 4, "0000:00:02.0"))
    told = "\n".join(failure.problem.context)
    assert failure.problem.ref == "sriov.not-ready"
    assert "i915.enable_guc=3 i915.max_vfs=7" in told and "2026.05.06" in told


def test_a_kernel_that_refuses_is_quoted_and_all_is_taken_back(host: Simulated) -> None:
    machine = host.world.machine()
    machine["sriov"][PF]["refuses"] = "not enough MMIO resources for SR-IOV"
    host.world.save_machine(machine)
    done = app.apply(host, made(host))
    assert done.phase is Phase.UNDONE
    assert "not enough MMIO resources for SR-IOV" in done.reason
    assert not any(map(host.world.exists, (CONF, WANTS)))


# -- at a start ----------------------------------------------------------------------------------


def at_boot(host: Simulated, address: str = PF) -> list[str]:
    said: list[str] = []
    sriov.at_boot(host, address, said.append, patience=0.0)
    return said


def test_another_card_at_the_address_is_left_alone_told_and_forgotten(host: Simulated) -> None:
    create(host)
    host.world.put(CONF, (host.world.text(CONF) or "").replace("8086:10c9", "8086:1521"))
    restart(host)
    assert present(host) == ()
    assert refused(lambda: at_boot(host)).problem.ref == "sriov.other-device"
    assert "sriov.conf-stale" in {one.rule for one in app.check(host).findings}


def test_a_card_that_is_gone_is_waited_for_and_then_told(host: Simulated) -> None:
    gone = "0000:0b:00.0"
    host.world.make_dir("/etc/pve-passthrough")
    host.world.put(SRIOV.format(address=gone), "device 8086:10c9\nvfs 2\nend\n")
    failure = refused(lambda: at_boot(host, gone))
    assert failure.problem.ref == "sriov.not-ready" and "no such device" in failure.problem.message
    plan = sriov.plan_remove(host, gone)
    assert app.apply(host, plan).phase is Phase.KEPT
    assert not host.world.exists(SRIOV.format(address=gone))


@pytest.mark.parametrize(
    "text", ["", "vfs 4\nend\n", "device 8086:10c9\nvfs 4\n", "device 8086:10c9\nvfs 4\nvf 9 x\nend\n"]
)
def test_half_a_file_makes_nothing_and_create_writes_it_anew(host: Simulated, text: str) -> None:
    create(host)
    host.world.put(CONF, text)
    restart(host)
    assert present(host) == ()
    assert refused(lambda: at_boot(host)).problem.ref == "sriov.conf-broken"
    assert "sriov.conf-broken" in {one.rule for one in app.check(host).findings}
    create(host)
    assert present(host) == VFS[:4]


def test_a_start_twice_is_as_good_as_once_and_leaves_a_running_guest_alone(host: Simulated) -> None:
    create(host)
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[0])).ok and host.run(("qm", "start", "100")).ok
    assert "virtual functions" in at_boot(host)[0]
    assert host.run(("systemctl", "restart", UNIT)).ok
    assert host.world.driver_of(VFS[0]) == "vfio-pci"


# -- faults --------------------------------------------------------------------------------------


_RECORDS = ("append ", "write /var/lib/pve-passthrough", "make_dir /var/lib/pve-passthrough")


def effects(tmp_path: Path) -> list[str]:
    host = opened(copy_of("sriov-nic", tmp_path / "counted"))
    counted = FaultySimulated(host, {}, lambda: None)
    assert app.apply(counted, made(host, 2)).phase is Phase.KEPT
    return counted.log


@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("kind", [faulty.KILL, faulty.POWER_CUT, faulty.FAIL])
def test_a_fault_at_any_effect_ends_with_all_or_nothing_and_so_does_the_next_start(
    tmp_path: Path, kind: str, after: bool
) -> None:
    """Each effect is struck once, by one of six faults in turn; the run's own records are the engine's matter."""
    log = effects(tmp_path)
    assert f"write /sys/bus/pci/devices/{PF}/sriov_numvfs" in log and f"write {CONF}" in log
    endings = set()
    kinds = [(one, when) for one in (faulty.KILL, faulty.POWER_CUT, faulty.FAIL) for when in (False, True)]
    ours = [number for number, name in enumerate(log, 1) if not name.startswith(_RECORDS)]
    for number in ours[kinds.index((kind, after)) :: len(kinds)]:
        host = opened(copy_of("sriov-nic", tmp_path / f"host{number}"))
        endings.add(_play(host, number, Fault(kind, after)))
    assert endings <= {0, 2}


def _play(host: Simulated, number: int, fault: Fault) -> int:
    plan = made(host, 2)
    try:
        app.apply(FaultySimulated(host, {number: fault}, lambda: None), plan)
    except Killed:
        app.resume(host)
    except PowerCut:
        restart(host)
    except Failure:
        pass
    app.resume(host)
    count = len(present(host))
    phases = {one.phase for one in app.history(host).runs}
    assert phases <= {Phase.KEPT, Phase.UNDONE, Phase.STUCK}
    if Phase.STUCK in phases:
        assert app.undo(host).phase is Phase.UNDONE
        count = len(present(host))
    restart(host)
    assert len(present(host)) == count, "what is now and what a start makes are the same"
    assert host.world.exists(CONF) == host.world.exists(WANTS) == bool(count)
    return count


# -- output --------------------------------------------------------------------------------------


def test_list_as_data_and_for_people(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    create(host, 2, vlan=30)
    assert host.run(("qm", "set", "100", "--hostpci0", VFS[1])).ok
    assert says(host, "list", "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    one = next(one for one in told["functions"] if one["address"] == PF)
    assert (one["total"], one["active"], one["at_boot"], one["trouble"]) == (7, 2, 2, None)
    assert [vf["guests"] for vf in one["virtual"]] == [[], [100]]
    assert [vf["vlan"] for vf in one["virtual"]] == [30, 30]
    assert says(host, "list") == Exit.FINE
    text = capsys.readouterr().out
    assert "2 of 7 virtual functions, 2 at every start" in text and "VLAN 30" in text and "guest 100" in text


def test_a_plan_changes_nothing(host: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(host, "create", PF, "3", "--plan", "--mapping", "pool") == Exit.PENDING
    assert present(host) == () and not host.world.exists(CONF)
    assert "pool" in capsys.readouterr().err


def test_a_machine_without_any_says_so(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    host = opened(copy_of("default", tmp_path / "host"))
    assert says(host, "list") == Exit.FINE
    assert "No function of this machine" in capsys.readouterr().out


def test_nvidia_s_are_left_to_the_unit_that_makes_them(host: Simulated) -> None:
    machine = host.world.machine()
    machine["natural"][PF] = {"driver": "nvidia", "module": "nvidia", "others": []}
    host.world.save_machine(machine)
    power_cut(host.world)
    failure = refused(lambda: made(host))
    assert failure.problem.ref == "sriov.not-ready" and "pve-nvidia-sriov@ALL" in failure.problem.hint
