"""What a plan carries besides its texts: its name, its order, its room, and what it refuses to be."""

from __future__ import annotations

from datetime import datetime

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Boot, Gap, Loader, Space
from pve_passthrough.model.finding import Level
from pve_passthrough.model.plan import Cell, Change, Plan
from pve_passthrough.model.wish import ArgAbsent, ArgPresent, ClaimByAddress, ClaimById, Wish
from pve_passthrough.planning import make_plan, unified

from .worlds import CMDLINE, GPU, after, at, facts, files, next_words

ON = ArgPresent("intel_iommu=on", "wanted")


def plan(*wishes: Wish, **changes: object) -> Plan:
    return make_plan(facts(**changes), wishes, goal="give GPU:2 to guest 100", now="2026-11-21 14:05:01", machine="pve")


def test_names_say_when_and_what() -> None:
    assert plan().id == "20261121-140501-gpu-2-100"
    made = make_plan(facts(), (), goal="!", now=datetime(2026, 1, 2, 3, 4, 5), machine="pve")
    assert made.id == "20260102-030405-plan"
    with pytest.raises(ValueError, match="no time"):
        make_plan(facts(), (), goal="x", now="tomorrow", machine="pve")


def test_nothing_to_do_is_a_plan_without_anything() -> None:
    made = plan()
    assert (made.changes, made.refreshes, made.reboot, made.expects, made.way_home) == ((), (), False, (), ())


@pytest.mark.parametrize(
    ("loaders", "wishes", "wanted"),
    [
        ((Loader.GRUB,), (ON,), ("grub",)),
        ((Loader.GRUB_ESP,), (ON,), ("boot-tool",)),
        ((Loader.SYSTEMD_BOOT,), (ON,), ("boot-tool",)),
        ((Loader.GRUB_ESP, Loader.SYSTEMD_BOOT), (ON,), ("boot-tool",)),
        ((Loader.GRUB,), (ON, ClaimById(("10de:2684",), (), "w")), ("initramfs", "grub")),
        ((Loader.SYSTEMD_BOOT,), (ClaimById(("10de:2684",), (), "w"),), ("initramfs",)),
        ((Loader.SYSTEMD_BOOT,), (ON, ClaimById(("10de:2684",), (), "w")), ("initramfs", "boot-tool")),
        ((Loader.GRUB,), (ClaimByAddress(GPU.address, GPU.id, "w"),), ("initramfs",)),
    ],
)
def test_each_refresh_once_and_in_order(
    loaders: tuple[Loader, ...], wishes: tuple[Wish, ...], wanted: tuple[str, ...]
) -> None:
    assert plan(*wishes, boot=Boot(loaders), files=files(cmdline=CMDLINE)).refreshes == wanted


@pytest.mark.parametrize("loader", list(Loader))
def test_the_planned_texts_give_the_wished_words(loader: Loader) -> None:
    texts = files('GRUB_CMDLINE_LINUX_DEFAULT="quiet x=off"\n', "root=/dev/x quiet x=off\n")
    known = facts(boot=Boot((loader,)), files=texts)
    made = make_plan(known, (ON, ArgAbsent("x=off", "w")), goal="x", now="20261121140501", machine="pve")
    words = next_words(after(known, {change.cell.name: change.after for change in made.changes}))
    assert "intel_iommu=on" in words
    assert "quiet" in words
    assert "x=off" not in words


def test_a_contradiction_goes_even_when_nobody_wished_it_away() -> None:
    made = plan(ON, files=files('GRUB_CMDLINE_LINUX="intel_iommu=off"\n'))
    assert {change.cell.name for change in made.changes} == {
        "/etc/default/grub", "/etc/default/grub.d/zz-pve-passthrough.cfg",
    }  # fmt: skip


def test_wishing_for_and_against_is_a_mistake_of_the_caller() -> None:
    with pytest.raises(ValueError, match="wished for and away"):
        plan(ON, ArgAbsent(ON.token, "w"))


def test_the_script_is_a_script() -> None:
    kinds = {change.cell.name.rpartition("/")[2]: change.cell.kind for change in plan(
        ClaimByAddress(GPU.address, GPU.id, "w")).changes}  # fmt: skip
    assert kinds == {"pve-passthrough": "script", "pve-passthrough.conf": "file"}


def test_unknown_room_is_a_risk_and_little_room_a_refusal() -> None:
    (risk,) = plan(ON, spaces=()).risks
    assert (risk.level, risk.rule) == (Level.UNKNOWN, "plan.space")
    assert plan(ON).risks == ()
    with pytest.raises(Failure) as caught:
        plan(ON, spaces=(Space("/boot", 1 << 30, 1 << 20),))
    assert caught.value.problem.ref == "plan.no-space"
    assert plan(spaces=(Space("/boot", 1 << 30, 0),)).risks == ()


def test_a_snippet_that_could_not_be_read_stops_the_plan() -> None:
    gap = Gap("files./etc/default/grub.d/x.cfg", "permission denied")
    with pytest.raises(Failure) as caught:
        plan(ON, gaps=(gap,))
    assert caught.value.problem.ref == "plan.unknown"
    assert "permission denied" in caught.value.problem.context[0]


def test_a_claim_is_expected_of_every_function_it_takes() -> None:
    cells = {
        str(expected.cell): expected.text for expected in plan(ClaimById(("10de:2684", "10de:22ba"), (), "w")).expects
    }
    assert cells["driver:0000:01:00.0"] == cells["driver:0000:01:00.1"] == "vfio-pci"
    assert cells["group:0000:01:00.0"] == "13"


def test_groups_are_not_expected_to_stay_when_an_argument_may_regroup() -> None:
    made = plan(ArgPresent("pcie_acs_override=id:8086:1234", "w"), ClaimByAddress(GPU.address, GPU.id, "w"))
    assert not [expected for expected in made.expects if expected.cell.kind == "group"]


def test_a_claim_by_address_of_a_vital_device_is_refused() -> None:
    with pytest.raises(Failure) as caught:
        plan(ClaimByAddress(at("00:17.0"), "8086:7ae2", "w"))
    assert caught.value.problem.ref == "plan.vital"


@pytest.mark.parametrize(
    ("change", "wanted"),
    [
        (Change(Cell("vm", "100/cpu"), "kvm64", "host", "w"),
         "--- vm:100/cpu\n+++ vm:100/cpu\n-cpu: kvm64\n+cpu: host\n"),
        (Change(Cell("file", "/x"), "a\n", None, "w"), "--- /x\n+++ /dev/null\n@@ -1 +0,0 @@\n-a\n"),
        (Change(Cell("file", "/x"), "a", "a\n", "w"),
         "--- /x\n+++ /x\n@@ -1 +1 @@\n-a\n\\ No newline at end of file\n+a\n"),
        (Change(Cell("file", "/x"), None, "", "w"), "--- None\n+++ ''\n"),
        (Change(Cell("file", "/x"), None, "\udcff\n", "w"), "--- /dev/null\n+++ /x\n@@ -0,0 +1 @@\n+?\n"),
        (Change(Cell("unit", "x.service"), "disabled", "enabled", "w"),
         "--- unit:x.service\n+++ unit:x.service\n-unit:x.service: disabled\n+unit:x.service: enabled\n"),
    ],
)  # fmt: skip
def test_diffs(change: Change, wanted: str) -> None:
    assert unified(change) == wanted


def test_the_way_home_names_every_file_and_the_words() -> None:
    made = plan(ON, ClaimById(("10de:2684",), (), "w"))
    text = "\n".join(made.way_home)
    assert all(change.cell.name in text for change in made.changes)
    assert "delete intel_iommu=on" in text


@pytest.mark.parametrize("wish", [ON, ClaimById(("10de:2684",), (), "w")])
def test_a_refresh_that_must_fail_is_not_planned(wish: Wish) -> None:
    """GRUB boots, but a command line file without root= lies there: proxmox-boot-tool refuses it all the same."""
    managed = Boot((Loader.GRUB_ESP,), managed=True)
    with pytest.raises(Failure) as refusal:
        plan(wish, boot=managed, files=files(cmdline="quiet\nroot=/dev/x\n"))
    assert refusal.value.problem.ref == "plan.no-root"
    assert plan(wish, boot=managed, files=files(cmdline="root=/dev/x quiet\n")).refreshes
    assert plan(boot=managed, files=files(cmdline="quiet\n")).changes == ()
