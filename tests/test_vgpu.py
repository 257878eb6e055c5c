"""The verb `vgpu` and --mdev, as a person uses them: look, set up, give, prove, take back; and what is refused."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import hooks, vgpus
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.guest import Outcome, climb
from pve_passthrough.host.simulated import Simulated, power_on
from pve_passthrough.model.mediated import VF
from pve_passthrough.planning.vgpu import GVT_FILE
from tests.copies import copy_of

IGPU, T4, L4, FIRST = "0000:00:02.0", "0000:01:00.0", "0000:05:00.0", "0000:05:00.4"
GVT = "i915-GVTg_V5_4"


def two_guests(host: Simulated) -> None:
    assert host.run(("qm", "create", "101", "--name", "two", "--memory", "2048")).ok


@pytest.fixture
def old(tmp_path: Path) -> Simulated:
    """A T4 with mediated devices."""
    return copy_of("vgpu-old", tmp_path / "host", two_guests)


@pytest.fixture
def node(tmp_path: Path) -> Simulated:
    """An L4 with four virtual functions."""
    return copy_of("vgpu-node", tmp_path / "host", two_guests)


def switch_on(host: Simulated) -> None:
    done = app.apply(host, planned(vgpus.setup(host, (IGPU,))))
    assert done.phase.name == "REBOOT"
    app.reboot(host)
    after = app.after_boot(host)
    assert after is None or after.phase.name == "KEPT"


@pytest.fixture
def igpu(tmp_path: Path) -> Simulated:
    """Coffee Lake graphics on which the host's console is, with GVT-g switched on."""
    return copy_of("gvt-g", tmp_path / "host", switch_on)


def planned(found: vgpus.Setup) -> Any:
    assert found.planned is not None
    return found.planned.plan


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, *words])


def config(host: Simulated, vmid: int = 100) -> str:
    return host.world.text(f"/etc/pve/nodes/pve/qemu-server/{vmid}.conf") or ""


def give(host: Simulated, device: str, kind: str, vmid: int = 100, **more: Any) -> None:
    app.apply(host, app.plan(host, (device,), vmid, mdev=kind, **more).plan)


def refused(host: Simulated, device: str, kind: str, vmid: int = 100, **more: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        app.plan(host, (device,), vmid, mdev=kind, **more)
    return caught.value


def rungs(host: Simulated, vmid: int = 100) -> dict[int, Any]:
    facts = app.look(host)
    vm = facts.guest(vmid)
    assert vm is not None
    return {one.level: one for one in climb(host, facts, vm, sleep=lambda seconds: None)}


# -- looking -------------------------------------------------------------------------------------


def test_list_as_data(old: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(old, "vgpu", "list", "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    (card,) = told["shared"]
    assert (card["device"], card["way"], card["pci"]) == (T4, "mdev", True)
    by_type = {one["type"]: one for one in card["types"]}
    assert (by_type["nvidia-232"]["memory_mib"], by_type["nvidia-232"]["available"]) == (4096, 4)
    assert [one["address"] for one in told["not_shared"]] == [IGPU]


def test_list_counts_virtual_functions_by_the_card_s_memory(node: Simulated) -> None:
    (card,) = vgpus.listing(node).shared
    assert card.way == VF and str(card.device and card.device.address) == L4
    assert {one.id: one.available for one in card.types} == {
        "nvidia-909": 4, "nvidia-910": 4, "nvidia-912": 4, "nvidia-914": 3, "nvidia-916": 2, "nvidia-917": 1,
    }  # fmt: skip


def test_types_tells_the_driver_s_own_words(old: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(old, "vgpu", "types", T4) == Exit.FINE
    assert "framebuffer=4096M" in capsys.readouterr().out


def test_a_parent_that_is_no_pci_device_is_listed_and_never_given(
    old: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    """The kernel's sample driver mtty: /sys/devices/virtual/mtty/mtty."""
    home = "/sys/devices/virtual/mtty/mtty"
    for name, text in (("available_instances", "24"), ("name", "Dual port serial"), ("device_api", "vfio-pci")):
        old.world.put(f"{home}/mdev_supported_types/mtty-2/{name}", text + "\n")
    old.world.put_link("/sys/class/mdev_bus/mtty", "../../devices/virtual/mtty/mtty")
    assert says(old, "vgpu", "list") == Exit.FINE
    text = capsys.readouterr().out
    assert "mtty-2" in text and "24 left" in text and "no PCI device" in text
    failure = refused(old, "mtty", "mtty-2")
    assert failure.problem.ref == "vgpu.not-pci" and failure.code is Exit.REFUSED


def test_hostile_names_and_counts_of_a_driver(old: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    home = f"{old.world.device_directory(T4)}/mdev_supported_types"
    old.world.put(f"{home}/evil\x1b[2J,x=1/available_instances", "99999999999999999999\n")
    old.world.put(f"{home}/evil\x1b[2J,x=1/name", "\x1b]0;x\x07\n")
    assert says(old, "vgpu", "list") == Exit.FINE
    assert "\x1b[2J" not in capsys.readouterr().out
    facts = app.look(old, inventory=True)
    assert facts.gap("mediated.available") is not None
    assert refused(old, T4, "evil\x1b[2J,x=1").problem.ref == "vgpu.type-name"


# -- GVT-g ---------------------------------------------------------------------------------------


def test_gvt_is_planned_with_a_reboot_and_taken_back_to_the_byte(tmp_path: Path) -> None:
    host = copy_of("gvt-g", tmp_path / "host")
    plan = planned(vgpus.setup(host, ()))
    assert plan.reboot and any("i915.enable_gvt=1" in (one.after or "") for one in plan.changes)
    assert [one.after for one in plan.changes if one.cell.name == GVT_FILE] == [
        f"# Made by pve-passthrough: shares of {IGPU} by GVT-g.\nkvmgt\n"
    ]
    switch_on(host)
    assert vgpus.setup(host, ()).planned is None
    app.undo(host, None)
    power_on(host.world)
    assert host.world.text(GVT_FILE) is None
    assert not host.world.exists(f"/sys/class/mdev_bus/{IGPU}")


def test_a_share_of_the_console_s_graphics(igpu: Simulated) -> None:
    """The host's console stays, and the guard lets the guest start: nothing leaves the host."""
    give(igpu, IGPU, GVT)
    assert f"hostpci0: {IGPU},mdev={GVT}\n" in config(igpu)
    assert "hookscript: " in config(igpu)
    climbed = rungs(igpu)
    assert [climbed[level].outcome for level in range(4)] == [Outcome.PASSED] * 4
    assert igpu.world.names("/sys/bus/mdev/devices") == ("00000000-0000-0000-0000-000000000100",)
    assert igpu.world.driver_of(IGPU) == "i915"
    assert igpu.run(("qm", "stop", "100")).ok
    assert igpu.world.names("/sys/bus/mdev/devices") == ()


def test_the_guard_says_nothing_about_the_group_of_a_share(igpu: Simulated) -> None:
    give(igpu, IGPU, GVT)
    said: list[str] = []
    assert hooks.call(igpu, 100, "pre-start", said.append) is Exit.FINE
    assert said == []


def test_memory_of_the_window_is_shared_out(igpu: Simulated) -> None:
    give(igpu, IGPU, "i915-GVTg_V5_2")
    assert igpu.run(("qm", "start", "100")).ok
    (card,) = vgpus.listing(igpu).shared
    assert {one.id: one.available for one in card.types} == {"i915-GVTg_V5_2": 0, GVT: 1, "i915-GVTg_V5_8": 2}


def test_gvt_where_the_kernel_has_none(old: Simulated) -> None:
    with pytest.raises(Failure) as caught:
        vgpus.setup(old, (IGPU,))
    assert caught.value.problem.ref == "vgpu.gvt-unsupported"


# -- NVIDIA --------------------------------------------------------------------------------------


def test_mediated_devices_of_the_old_way(old: Simulated) -> None:
    give(old, T4, "nvidia-232")
    assert f"{T4},mdev=nvidia-232" in config(old)
    assert old.run(("qm", "start", "100")).ok
    assert rungs(old)[1].outcome is Outcome.PASSED
    failure = refused(old, T4, "nvidia-233", 101)
    assert failure.problem.ref == "vgpu.none-left"
    assert any("guest 100" in line for line in failure.problem.context)
    assert refused(old, T4, "nvidia-233", 101).code is Exit.REFUSED


def test_a_card_s_name_means_its_first_free_function(node: Simulated) -> None:
    give(node, L4, "nvidia-912")
    assert f"{FIRST},mdev=nvidia-912" in config(node)
    assert node.run(("qm", "start", "100")).ok
    assert node.world.text(f"/sys/bus/pci/devices/{FIRST}/nvidia/current_vgpu_type") == "912\n"
    assert node.world.driver_of(FIRST) == "nvidia"
    climbed = rungs(node)
    assert [climbed[level].outcome for level in range(4)] == [Outcome.PASSED] * 4
    give(node, L4, "nvidia-912", 101)
    assert "0000:05:00.5,mdev=nvidia-912" in config(node, 101)
    assert node.run(("qm", "stop", "100")).ok
    assert node.world.text(f"/sys/bus/pci/devices/{FIRST}/nvidia/current_vgpu_type") == "0\n"


def test_a_function_serves_one_guest(node: Simulated) -> None:
    give(node, L4, "nvidia-912")
    assert refused(node, FIRST, "nvidia-912", 101).problem.ref == "vgpu.none-left"


def test_other_sizes_are_not_offered_while_one_is_in_use(node: Simulated) -> None:
    give(node, L4, "nvidia-912")
    assert node.run(("qm", "start", "100")).ok
    failure = refused(node, L4, "nvidia-914", 101)
    assert failure.problem.ref == "vgpu.type-unknown" and "as much memory" in failure.problem.hint


def test_a_guest_that_runs_without_its_share_fails_the_rung(node: Simulated) -> None:
    give(node, L4, "nvidia-912")
    assert node.run(("qm", "start", "100")).ok
    node.world.put(f"/sys/bus/pci/devices/{FIRST}/nvidia/current_vgpu_type", "909\n")
    assert rungs(node)[1].outcome is Outcome.FAILED


def test_through_a_mapping_that_is_made_for_it(node: Simulated) -> None:
    give(node, FIRST, "nvidia-912", 101, mapping="l4")
    assert "hostpci0: mapping=l4,mdev=nvidia-912" in config(node, 101)
    assert "\tmdev 1\n" in (node.world.text("/etc/pve/mapping/pci.cfg") or "")
    assert node.run(("qm", "start", "101")).ok
    assert app.plan(node, ("l4",), 101, mdev="nvidia-912").plan.changes == ()


def test_through_a_mapping_that_is_not_marked(node: Simulated) -> None:
    group = node.world.group_of(FIRST)
    line = f"node=pve,path={FIRST},id=10de:27b8,subsystem-id=10de:16ca,iommugroup={group}"
    assert node.run(("pvesh", "create", "/cluster/mapping/pci", "--id", "bare", "--map", line)).ok
    assert refused(node, "bare", "nvidia-912").problem.ref == "vgpu.mapping-mdev"


def test_a_card_without_its_virtual_functions(tmp_path: Path) -> None:
    host = copy_of("vgpu-bare", tmp_path / "host")
    failure = refused(host, L4, "nvidia-912")
    assert failure.problem.ref == "vgpu.no-types" and "pve-nvidia-sriov@ALL.service" in failure.problem.hint
    done = app.apply(host, planned(vgpus.setup(host, (L4,))))
    assert done.phase.name == "KEPT"
    assert host.run(("systemctl", "start", "pve-nvidia-sriov@ALL.service")).ok
    give(host, L4, "nvidia-912")
    power_on(host.world)
    assert host.world.attribute(L4, "sriov_numvfs") == "4"


# -- refusals ------------------------------------------------------------------------------------


def test_names_that_are_no_type(old: Simulated) -> None:
    for kind in ("a b", "x,y=1", "../x", "nvidia-232\n"):
        failure = refused(old, T4, kind)
        assert (failure.problem.ref, failure.code) == ("vgpu.type-name", Exit.USAGE)


def test_a_type_of_another_device_names_that_device(node: Simulated) -> None:
    home = f"{node.world.device_directory(IGPU)}"
    node.world.put(f"{home}/mdev_supported_types/{GVT}/available_instances", "1\n")
    node.world.put_link(f"/sys/class/mdev_bus/{IGPU}", "../../" + home.removeprefix("/sys/"))
    failure = refused(node, L4, GVT)
    assert failure.problem.ref == "vgpu.type-unknown"
    assert any(IGPU in line for line in failure.problem.context)


def test_never_a_share_and_the_whole_card(old: Simulated) -> None:
    assert old.run(("qm", "set", "100", "--hostpci0", "0000:01:00")).ok
    assert refused(old, T4, "nvidia-232").problem.ref == "vgpu.whole-card"


def test_a_device_that_shares_nothing(old: Simulated) -> None:
    failure = refused(old, "0000:03:00.0", "nvidia-232")
    assert failure.problem.ref == "vgpu.no-types" and failure.code is Exit.REFUSED


def test_unplugged_between_plan_and_apply(node: Simulated) -> None:
    made = app.plan(node, (L4,), 100, mdev="nvidia-912").plan
    before = config(node)
    node.world.sysfs(f"/sys/bus/pci/devices/{L4}/sriov_numvfs", "0")
    with pytest.raises(Failure) as caught:
        app.apply(node, made)
    assert caught.value.problem.ref == "plan.device-gone"
    assert config(node) == before


def test_an_instance_that_somebody_else_has_made(old: Simulated) -> None:
    uuid = "b1e0a1f2-1111-2222-3333-444444444444"
    old.world.sysfs(f"/sys/bus/pci/devices/{T4}/mdev_supported_types/nvidia-234/create", uuid)
    failure = refused(old, T4, "nvidia-234")
    assert failure.problem.ref == "vgpu.none-left"
    assert any("not made by Proxmox VE" in line for line in failure.problem.context)


def test_a_type_that_is_gone_is_told_before_the_start(old: Simulated) -> None:
    give(old, T4, "nvidia-232")
    shutil.rmtree(old.world.tree.real(f"{old.world.device_directory(T4)}/mdev_supported_types/nvidia-232"))
    found = {one.rule: one for one in app.check(old, (), 100).findings}
    assert "vgpu.type-gone" in found
    assert not old.run(("qm", "start", "100")).ok


def test_giving_it_twice_changes_nothing(old: Simulated) -> None:
    give(old, T4, "nvidia-232")
    assert app.plan(old, (T4,), 100, mdev="nvidia-232").plan.changes == ()


def test_another_type_replaces_the_one_that_was_given(old: Simulated) -> None:
    give(old, T4, "nvidia-232")
    give(old, T4, "nvidia-231")
    assert f"hostpci0: {T4},mdev=nvidia-231\n" in config(old) and "hostpci1" not in config(old)


def test_the_command_line_says_the_same_as_up(old: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(old, "vgpu", "give", T4, "nvidia-232", "--vm", "100", "--plan") == Exit.PENDING
    one = capsys.readouterr().out
    assert says(old, "plan", T4, "--vm", "100", "--mdev", "nvidia-232") == Exit.PENDING
    assert capsys.readouterr().out == one
    assert f"hostpci0: {T4},mdev=nvidia-232" in one


def test_a_pool_of_functions_serves_as_many_guests(node: Simulated) -> None:
    """Proxmox takes the first that is free; the third guest is told before its start, and its start says the same."""
    lines = []
    for address in (FIRST, "0000:05:00.5"):
        group = node.world.group_of(address)
        lines += ["--map", f"node=pve,path={address},id=10de:27b8,subsystem-id=10de:16ca,iommugroup={group}"]
    assert node.run(("pvesh", "create", "/cluster/mapping/pci", "--id", "pool", "--mdev", "1", *lines)).ok
    assert node.run(("qm", "create", "102", "--name", "three", "--memory", "2048")).ok
    for vmid in (100, 101, 102):
        give(node, "pool", "nvidia-912", vmid)
    assert node.run(("qm", "start", "100")).ok and node.run(("qm", "start", "101")).ok
    assert node.world.text("/sys/bus/pci/devices/0000:05:00.5/nvidia/current_vgpu_type") == "912\n"
    assert "vgpu.instances" in {one.rule for one in app.check(node, (), 102).findings}
    assert not node.run(("qm", "start", "102")).ok
    climbed = rungs(node, 102)
    assert (climbed[1].outcome, climbed[2].outcome) == (Outcome.SKIPPED, Outcome.FAILED)


def test_a_capture_tells_whose_share_it_is(igpu: Simulated, tmp_path: Path) -> None:
    give(igpu, IGPU, GVT)
    assert igpu.run(("qm", "start", "100")).ok
    file = tmp_path / "host.tar.gz"
    assert run(["--host", igpu.name, "capture", "-o", str(file)]) == Exit.FINE
    (card,) = vgpus.listing(app.open_host(f"capture:{file}")).shared
    assert [vgpus.owner(one) for one in card.instances] == ["guest 100 (hostpci0)"]


def test_the_whole_card_while_guests_share_it(node: Simulated) -> None:
    give(node, L4, "nvidia-912")
    with pytest.raises(Failure) as caught:
        app.plan(node, (L4,), 101)
    assert caught.value.problem.ref.startswith("refused.") or "sriov" in caught.value.problem.ref
    found = {one.rule for one in app.check(node, (L4,), 101).findings}
    assert "vgpu.whole-and-share" in found


def test_options_of_whole_cards_are_refused_beside_a_share(old: Simulated) -> None:
    options: tuple[dict[str, Any], ...] = ({"lend_display": True}, {"tweaks": ("no-rom-bar",)}, {"inside": "debian-13"})
    for beside in options:
        failure = refused(old, T4, "nvidia-232", **beside)
        assert (failure.problem.ref, failure.code) == ("vgpu.options", Exit.USAGE)


def test_an_entry_made_by_hand_is_remembered_as_the_share_that_it_is(old: Simulated) -> None:
    assert old.run(("qm", "set", "100", "--hostpci0", f"{T4},mdev=nvidia-232")).ok
    (told,) = [one for one in app.check(old, (), 100).findings if one.rule == "drift.remembered"]
    assert told.fix is not None and told.fix.commands == (f"pve-passthrough up {T4} --vm 100 --mdev nvidia-232",)
