"""The verb `mapping`, and devices given through a mapping: made, held against the hardware, mended, taken away."""

from __future__ import annotations

import itertools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import mappings
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated
from pve_passthrough.knowledge.mappings import State
from pve_passthrough.model.plan import Cell
from pve_passthrough.model.run import Phase
from pve_passthrough.model.wish import VmOption
from tests.copies import copy_of

PCI_CFG, USB_CFG = "/etc/pve/mapping/pci.cfg", "/etc/pve/mapping/usb.cfg"
CARD, TWIN, NIC = "0000:01:00", "0000:04:00", "0000:03:00.0"
NUMBERS = "id=10de:2684,iommugroup=1,subsystem-id=1043:889a"


@pytest.fixture
def twins(tmp_path: Path) -> Simulated:
    return copy_of("twins", tmp_path / "host")


@pytest.fixture(autouse=True)
def ticking(monkeypatch: pytest.MonkeyPatch) -> None:
    """Runs are named by the second, and these tests make several in one."""
    seconds = itertools.count(10)
    monkeypatch.setattr(mappings, "now", lambda: f"20261121-1405{next(seconds)}")


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, "mapping", *words])


def told(host: Simulated, capsys: pytest.CaptureFixture[str], *words: str) -> dict[str, Any]:
    capsys.readouterr()
    says(host, *words, "--output-format", "json")
    found = json.loads(capsys.readouterr().out)
    assert isinstance(found, dict)
    return found


def refused(host: Simulated, ref: str, call: object, *args: object, **more: object) -> Failure:
    before = host.world.text(PCI_CFG), host.world.text(USB_CFG)
    with pytest.raises(Failure) as caught:
        call(host, *args, **more)  # type: ignore[operator]
    assert caught.value.problem.ref == ref
    assert (host.world.text(PCI_CFG), host.world.text(USB_CFG)) == before
    return caught.value


def make(host: Simulated, name: str = "card", words: Sequence[str] = ("01:00",), usb: bool = False) -> None:
    assert app.apply(host, mappings.plan_create(host, name, words, usb=usb)).phase is Phase.KEPT


def edit(host: Simulated, old: str, new: str, path: str = PCI_CFG) -> None:
    text = host.world.text(path) or ""
    assert old in text
    host.world.put(path, text.replace(old, new))


def state(host: Simulated, name: str = "card") -> State:
    return mappings.listed(host, name).mappings[0].state


def proxmox_says(host: Simulated, kind: str = "pci") -> dict[str, list[str]]:
    """What Proxmox' own check of this node says of each mapping."""
    ran = host.run(("pvesh", "get", f"/cluster/mapping/{kind}", "--check-node", "pve", "--output-format", "json"))
    key = "checks" if kind == "pci" else "errors"
    return {one["id"]: [item["message"] for item in one[key]] for one in json.loads(ran.stdout)}


# -- making and taking away ------------------------------------------------------------------------


def test_a_whole_card_is_one_line_that_proxmox_accepts(twins: Simulated) -> None:
    make(twins)
    assert f"path={CARD}," in (twins.world.text(PCI_CFG) or "")
    assert proxmox_says(twins) == {"card": []}
    assert state(twins) is State.FINE


def test_undo_takes_it_away_again_and_back_once_more(twins: Simulated) -> None:
    make(twins)
    text = twins.world.text(PCI_CFG)
    gone = app.apply(twins, mappings.plan_delete(twins, "card"))
    assert gone.phase is Phase.KEPT and "card" not in (twins.world.text(PCI_CFG) or "")
    assert app.undo(twins, gone.plan.id).phase is Phase.UNDONE
    assert twins.world.text(PCI_CFG) == text
    assert app.undo(twins, None).phase is Phase.UNDONE
    assert "card" not in (twins.world.text(PCI_CFG) or "")


def test_several_cards_are_a_pool(twins: Simulated) -> None:
    make(twins, "cards", ("01:00", "04:00"))
    assert [line.line.path for line in mappings.listed(twins, "cards").mappings[0].lines] == [CARD, TWIN]
    assert proxmox_says(twins) == {"cards": []}


@pytest.mark.parametrize(
    ("ref", "name", "words"),
    [
        ("mapping.name", "bad id", ("01:00",)),
        ("mapping.name", "x", ("01:00",)),
        ("mapping.name", "0000:01:00", ("01:00",)),
        ("mapping.part", "card", ("01:00.1", "01:00.0", "00:1f.3", "00:1f.4")),
        ("plan.vital", "net", ("03:00",)),
        ("device.unknown", "card", ("0a:00",)),
    ],
)
def test_what_cannot_be_a_mapping_is_refused(twins: Simulated, ref: str, name: str, words: tuple[str, ...]) -> None:
    refused(twins, ref, mappings.plan_create, name, words)


def test_a_name_is_given_once(twins: Simulated) -> None:
    make(twins, "stick", ("1-3",), usb=True)
    refused(twins, "mapping.kind", mappings.plan_create, "stick", ("01:00",))
    refused(twins, "mapping.exists", mappings.plan_create, "stick", ("1-2",), usb=True)


def test_while_the_iommu_is_off_the_group_is_not_invented(tmp_path: Path) -> None:
    host = copy_of("intel-6.5-grub", tmp_path / "host")
    assert app.look(host).iommu.on is False
    refused(host, "mapping.no-iommu", mappings.plan_create, "card", ("gpu",))


def test_what_the_host_loses_is_said_when_the_mapping_is_made(twins: Simulated) -> None:
    made = mappings.plan_create(twins, "igpu", ("00:02.0",))
    assert "hazards.console" in {risk.rule for risk in made.risks}


def test_a_broken_file_is_left_alone(twins: Simulated) -> None:
    """Proxmox writes what it could read: the broken part would be lost."""
    make(twins)
    edit(twins, "\tmap ", "half a mapp\n\tmap ")
    assert mappings.listed(twins).unread
    assert says(twins, "check") == Exit.COULD_NOT
    refused(twins, "mapping.unread", mappings.plan_create, "other", ("04:00",))
    refused(twins, "mapping.unread", mappings.plan_delete, "card")


@pytest.mark.parametrize(
    "text",
    ["gpu\n\tmap node=pve,path=0000:01:00\n", "gpu\n", "\tmap node=pve\n", "gpu\n\tmap id=1:2,node=pve,path=x\ngpu\n"],
)
def test_every_broken_part_is_a_gap_and_no_crash(twins: Simulated, text: str) -> None:
    twins.world.make_dir("/etc/pve/mapping")
    twins.world.put(PCI_CFG, text)
    assert app.look(twins).gap("mappings.pci")
    assert says(twins, "list") == Exit.FINE


def test_without_a_quorum_nothing_is_planned(twins: Simulated) -> None:
    make(twins)
    members = {"nodename": "pve", "version": 1, "cluster": {"name": "c", "version": 1, "nodes": 2, "quorate": 0}}
    twins.world.put("/etc/pve/.members", json.dumps(members))
    refused(twins, "pve.no-quorum", mappings.plan_create, "other", ("04:00",))
    refused(twins, "pve.no-quorum", mappings.plan_delete, "card")


# -- other people ---------------------------------------------------------------------------------


def test_somebody_else_changed_it_between_plan_and_apply(twins: Simulated) -> None:
    make(twins)
    made = mappings.plan_add(twins, "card", ("04:00",))
    edit(twins, "map id", "map description=theirs,id")
    text = twins.world.text(PCI_CFG)
    with pytest.raises(Failure):
        app.apply(twins, made)
    assert twins.world.text(PCI_CFG) == text


def test_somebody_elses_other_mapping_is_no_hindrance(twins: Simulated) -> None:
    make(twins)
    made = mappings.plan_add(twins, "card", ("04:00",))
    assert twins.run(("pvesh", "create", "/cluster/mapping/pci", "--id", "net2", "--map",
                      f"node=pve,path={NIC},id=8086:15f3,iommugroup=11")).ok  # fmt: skip
    assert app.apply(twins, made).phase is Phase.KEPT
    assert proxmox_says(twins)["card"] == []


def test_a_card_that_left_between_plan_and_apply_is_not_mapped(twins: Simulated) -> None:
    made = mappings.plan_create(twins, "card", ("04:00",))
    twins.world.put_link("/sys/bus/pci/devices/0000:04:00.0", None)
    with pytest.raises(Failure) as caught:
        app.apply(twins, made)
    assert caught.value.problem.ref == "plan.device-gone"
    assert twins.world.text(PCI_CFG) in (None, "")


def other_node(host: Simulated, name: str = "card") -> None:
    """Another node's line, as its administrator wrote it there."""
    argv = ("pvesh", "create", "/cluster/mapping/pci", "--id", name, "--map")
    assert host.run((*argv, "node=second,path=0000:41:00,id=10de:2684,iommugroup=40")).ok


def test_lines_of_other_nodes_are_unknown_and_stay(twins: Simulated) -> None:
    other_node(twins)
    assert state(twins) is State.ELSEWHERE
    refused(twins, "mapping.elsewhere", mappings.plan_repair, "card")
    app.apply(twins, mappings.plan_add(twins, "card", ("01:00",)))
    assert state(twins) is State.FINE
    assert "node=second,path=0000:41:00" in (twins.world.text(PCI_CFG) or "")
    refused(twins, "mapping.shared", mappings.plan_delete, "card")
    assert app.apply(twins, mappings.plan_delete(twins, "card", here=True)).phase is Phase.KEPT
    text = twins.world.text(PCI_CFG) or ""
    assert "node=second" in text and "node=pve" not in text


# -- checking and mending -------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("old", "new", "wanted"),
    [
        ("iommugroup=1,", "iommugroup=99,", State.STALE),
        ("iommugroup=1,", "", State.STALE),
        (",subsystem-id=1043:889a", "", State.STALE),
        ("10de:2684", "10DE:2684", State.STALE),
        ("1043:889a", "1043:0001", State.LIES),
        ("10de:2684", "10de:1b81", State.LIES),
        (f"path={CARD}", "path=0000:0a:00", State.ABSENT),
        (f"path={CARD}", f"path={CARD}.0;{CARD}.1", State.STALE),
    ],
)
def test_we_and_proxmox_agree_on_what_is_wrong(twins: Simulated, old: str, new: str, wanted: State) -> None:
    make(twins)
    edit(twins, old, new)
    assert state(twins) is wanted
    assert proxmox_says(twins)["card"] != []
    assert says(twins, "check", "card") == Exit.BLOCKED


def test_the_group_of_an_only_card_is_written_anew(tmp_path: Path) -> None:
    host = copy_of("rtx-3080", tmp_path / "host")
    make(host, "card", ("gpu",))
    good = host.world.text(PCI_CFG) or ""
    edit(host, "iommugroup=1", "iommugroup=77")
    assert app.apply(host, mappings.plan_repair(host, "card")).phase is Phase.KEPT
    assert host.world.text(PCI_CFG) == good
    assert not mappings.plan_repair(host, "card").changes


def test_a_group_that_changed_beside_a_twin_is_not_certain_until_somebody_says_so(twins: Simulated) -> None:
    make(twins)
    edit(twins, "iommugroup=1,", "iommugroup=99,")
    refused(twins, "mapping.uncertain", mappings.plan_repair, "card")
    made = mappings.plan_repair(twins, "card", [f"{CARD}=01:00"])
    assert app.apply(twins, made).phase is Phase.KEPT
    assert state(twins) is State.FINE


def test_what_was_remembered_makes_it_certain(twins: Simulated) -> None:
    assert app.apply(twins, app.plan(twins, ["01:00"], 100, mapping="card").plan).phase is Phase.KEPT
    edit(twins, "iommugroup=1,", "iommugroup=99,")
    assert app.apply(twins, mappings.plan_repair(twins, "card")).phase is Phase.KEPT
    assert state(twins) is State.FINE


def test_a_mapping_that_lies_is_not_taught_another_device(twins: Simulated) -> None:
    make(twins)
    edit(twins, f"path={CARD}", f"path={NIC}")
    assert state(twins) is State.LIES
    failure = refused(twins, "mapping.lies", mappings.plan_repair, "card")
    assert failure.code == Exit.REFUSED and "OLD=NEW" not in failure.problem.hint
    refused(twins, "mapping.other-product", mappings.plan_repair, "card", [f"{NIC}=03:00"])


def test_a_card_that_moved_is_followed_when_somebody_says_where(twins: Simulated) -> None:
    make(twins)
    edit(twins, f"path={CARD}", "path=0000:0a:00")
    refused(twins, "mapping.uncertain", mappings.plan_repair, "card")
    assert app.apply(twins, mappings.plan_repair(twins, "card", ["04:00"])).phase is Phase.KEPT
    assert f"path={TWIN}" in (twins.world.text(PCI_CFG) or "") and state(twins) is State.FINE


def test_a_usb_mapping_names_one_device(twins: Simulated) -> None:
    make(twins, "stick", ("1-3",), usb=True)
    assert proxmox_says(twins, "usb") == {"stick": []}
    refused(twins, "mapping.usb-several", mappings.plan_add, "stick", ("1-2",))
    edit(twins, "id=1a86:7523", "id=1A86:7523", USB_CFG)
    assert state(twins, "stick") is State.STALE
    app.apply(twins, mappings.plan_repair(twins, "stick"))
    assert state(twins, "stick") is State.FINE
    edit(twins, "path=1-3", "path=1-2", USB_CFG)
    assert state(twins, "stick") is State.LIES
    refused(twins, "mapping.lies", mappings.plan_repair, "stick")
    app.apply(twins, mappings.plan_repair(twins, "stick", ["1-2=1-3"]))
    assert state(twins, "stick") is State.FINE


# -- giving through a mapping -----------------------------------------------------------------------


def test_a_plan_makes_the_mapping_and_gives_through_it(twins: Simulated) -> None:
    planned = app.plan(twins, ["01:00"], 100, mapping="card")
    assert Cell("mapping", "pci/card") in {change.cell for change in planned.plan.changes}
    done = app.apply(twins, planned.plan)
    assert done.phase is Phase.KEPT
    assert "hostpci0: mapping=card,pcie=1" in (twins.world.text("/etc/pve/qemu-server/100.conf") or "")
    assert not app.plan(twins, ["01:00"], 100, mapping="card").plan.changes
    assert twins.run(("qm", "start", "100")).ok
    assert twins.run(("qm", "stop", "100")).ok
    refused(twins, "mapping.used", mappings.plan_delete, "card")
    assert app.undo(twins, None).phase is Phase.UNDONE
    assert "card" not in (twins.world.text(PCI_CFG) or "")


def test_a_bare_address_becomes_the_mapping(twins: Simulated) -> None:
    assert twins.run(("qm", "set", "100", "--hostpci0", "0000:01:00,x-vga=1", "--machine", "q35")).ok
    wishes = app.plan(twins, ["01:00"], 100, mapping="card").plan.wishes
    entries = [wish.value for wish in wishes if isinstance(wish, VmOption) and wish.key == "hostpci0"]
    assert entries == ["mapping=card,x-vga=1,pcie=1"]


def test_a_mapping_that_offers_something_else_is_not_made_a_pool_by_the_way(twins: Simulated) -> None:
    make(twins, "card", ("04:00",))
    with pytest.raises(Failure) as caught:
        app.plan(twins, ["01:00"], 100, mapping="card")
    assert caught.value.problem.ref == "mapping.taken"
    with pytest.raises(Failure) as caught:
        app.plan(twins, ["01:00", "04:00"], 100, mapping="both")
    assert caught.value.problem.ref == "mapping.several"
    make(twins, "cards", ("01:00", "04:00"))
    with pytest.raises(Failure) as caught:
        app.plan(twins, ["01:00"], 100, mapping="cards")
    assert caught.value.problem.ref == "mapping.taken"


def test_a_pool_is_given_started_and_proven(twins: Simulated) -> None:
    make(twins, "cards", ("01:00", "04:00"))
    planned = app.plan(twins, ["cards"], 100)
    assert sorted(planned.plan.devices) == [f"{CARD}.0", f"{CARD}.1", f"{TWIN}.0", f"{TWIN}.1"]
    assert app.apply(twins, planned.plan).phase is Phase.KEPT
    proof = app.verify(twins, 100, top=2)
    bound = next(rung for rung in proof.rungs if rung.name == "bound")
    assert [line.split("/")[5] for line in bound.evidence] == [f"{CARD}.0", f"{CARD}.1"]
    assert [rung.outcome.value for rung in proof.rungs[:3]] == ["passed"] * 3
    twins.world.put("/run/qemu-server/pci-id-reservations", None)
    again = next(rung for rung in app.verify(twins, 100, top=1).rungs if rung.name == "bound")
    assert again.evidence == bound.evidence, "without Proxmox' note, the member that vfio-pci holds"


def second_guest(host: Simulated, vmid: str = "101") -> None:
    assert host.run(("qm", "create", vmid, "--name", f"g{vmid}", "--memory", "2048", "--machine", "q35")).ok


def test_two_guests_share_a_pool_until_it_is_empty(twins: Simulated) -> None:
    make(twins, "cards", ("01:00", "04:00"))
    for vmid in ("101", "102", "103"):
        second_guest(twins, vmid)
        assert twins.run(("qm", "set", vmid, "--hostpci0", "mapping=cards")).ok

    def conflicts(vmid: int) -> list[str]:
        return [one.message for one in app.check(twins, (), vmid).findings if one.rule == "hazards.guest-conflict"]

    assert twins.run(("qm", "start", "101")).ok
    assert conflicts(102) == []
    assert twins.run(("qm", "start", "102")).ok
    assert len(conflicts(103)) == 2 and "All 2 members" in conflicts(103)[0]
    bound = [one for rung in app.verify(twins, 102, top=1).rungs if rung.name == "bound" for one in rung.evidence]
    assert bound and all(TWIN in line for line in bound)


def test_a_second_guest_gets_the_pool_while_the_first_runs(twins: Simulated) -> None:
    make(twins, "cards", ("01:00", "04:00"))
    second_guest(twins)
    assert app.apply(twins, app.plan(twins, ["cards"], 100).plan).phase is Phase.KEPT
    assert twins.run(("qm", "start", "100")).ok
    assert app.apply(twins, app.plan(twins, ["cards"], 101).plan).phase is Phase.KEPT
    started = twins.run(("qm", "start", "101"))
    assert started.ok, started.stderr
    third = twins.run(("qm", "create", "102", "--memory", "1024", "--hostpci0", "mapping=cards"))
    assert third.ok and "could not find a free device" in twins.run(("qm", "start", "102")).stderr


# -- people and scripts ----------------------------------------------------------------------------


def test_list_and_check_as_data(twins: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    make(twins)
    edit(twins, "iommugroup=1,", "iommugroup=99,")
    found = told(twins, capsys, "check")
    (one,) = found["mappings"]
    assert (one["name"], one["state"], one["users"]) == ("card", "stale", [])
    assert one["lines"][0]["differences"] == [{"name": "iommugroup", "said": "99", "real": "1"}]
    assert says(twins, "list") == Exit.FINE
    assert "the device has changed" in capsys.readouterr().out


def test_a_plan_alone_changes_nothing(twins: Simulated) -> None:
    assert says(twins, "create", "card", "01:00", "--plan") == Exit.PENDING
    assert twins.world.text(PCI_CFG) in (None, "")
    assert says(twins, "create", "card", "01:00", "--yes") == Exit.FINE
    assert says(twins, "delete", "card", "--yes") == Exit.FINE
    assert says(twins, "check", "card") == Exit.USAGE


def test_a_device_without_a_board_number_says_zeros(twins: Simulated) -> None:
    """SysFSTools.pm expects what sysfs shows, and sysfs always shows something."""
    for name in ("subsystem_vendor", "subsystem_device"):
        twins.world.put(f"/sys/bus/pci/devices/0000:04:00.0/{name}", "0x0000\n")
    make(twins, "plain", ("04:00",))
    assert "subsystem-id=0000:0000" in (twins.world.text(PCI_CFG) or "")
    assert proxmox_says(twins) == {"plain": []} and state(twins, "plain") is State.FINE
    edit(twins, ",subsystem-id=0000:0000", "")
    assert proxmox_says(twins)["plain"] != [] and state(twins, "plain") is State.STALE
