"""What follows a card that moved: entries, mappings, claims, our own files; and what is left alone."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.model.facts import Facts, MapEntry, ResourceMapping
from pve_passthrough.model.identity import Assignment
from pve_passthrough.model.mappings import mapping_text
from pve_passthrough.model.own import CLAIM_SCRIPT, LENT, UDEV_RULES
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.plan import Cell
from pve_passthrough.model.sighting import remember
from pve_passthrough.model.wish import MappingText, Script, Text, VmOption
from pve_passthrough.planning import make_plan
from pve_passthrough.planning.claim_script import claims_of, render
from pve_passthrough.planning.reassign import afterwards, remembered, repair

from .worlds import DEVICES, FIT, GPU, SOUND, TWIN, at, facts, guest

PORT_A = replace(DEVICES[0], address=at("00:01.0"), class_code=0x060400, bridge=True, boot_vga=None, iommu_group=13)
PORT_B = replace(PORT_A, address=at("00:06.0"), iommu_group=16)
CARD = (replace(GPU, parent=PORT_A.address), replace(SOUND, parent=PORT_A.address))
OTHER = (replace(TWIN, parent=PORT_B.address),)
REST = tuple(one for one in DEVICES if one not in (GPU, SOUND))


def moved(card: Sequence[Device], bus: int, parent: Device = PORT_A) -> tuple[Device, ...]:
    return tuple(replace(one, address=one.address._replace(bus=bus), parent=parent.address) for one in card)


def world(
    *cards: Sequence[Device],
    config: Mapping[str, str] | None = None,
    before: Sequence[Sequence[Device]] = (CARD,),
    given: Sequence[Device] = CARD,
    **changes: object,
) -> Facts:
    """The machine now, with what guest 100 was given when it was as `before`."""
    then = facts(devices=(*REST, PORT_A, PORT_B, *(one for card in before for one in card)))
    now = (*REST, PORT_A, PORT_B, *(one for card in cards for one in card))
    told = Assignment("20260101-run", 100, remember(then, [one.address for one in given]))
    entries = {**FIT, **({"hostpci0": "0000:01:00,pcie=1"} if config is None else config)}
    plain: dict[str, object] = {"guests": (guest(known=now, config=entries),)}
    return facts(devices=now, assignments=(told,), **{**plain, **changes})


def options(known: Facts, *words: str) -> dict[str, str | None]:
    return {wish.key: wish.value for wish in repair(known, 100, words).wishes if isinstance(wish, VmOption)}


def refused(known: Facts, *words: str) -> Failure:
    with pytest.raises(Failure) as caught:
        repair(known, 100, words)
    return caught.value


def test_nothing_is_to_be_done_where_nothing_moved() -> None:
    found = repair(world(CARD), 100)
    assert found.wishes == () and not found.news and not found.gone


@pytest.mark.parametrize(
    ("entry", "after"),
    [
        ("0000:01:00,pcie=1,romfile=a.rom", "0000:07:00,pcie=1,romfile=a.rom"),
        ("01:00", "07:00"),
        ("host=01:00.0;01:00.1,pcie=1", "host=07:00.0;07:00.1,pcie=1"),
        ("pcie=1,host=0000:01:00.0", "pcie=1,host=0000:07:00.0"),
        ("0000:02:00.0;0000:01:00.0", "0000:02:00.0;0000:07:00.0"),
    ],
)
def test_an_entry_keeps_its_form_and_its_options(entry: str, after: str) -> None:
    assert options(world(moved(CARD, 7), config={"hostpci0": entry})) == {"hostpci0": after}


def test_another_domain_is_always_written_out() -> None:
    there = tuple(replace(one, address=one.address._replace(domain=1)) for one in CARD)
    assert options(world(there, config={"hostpci0": "01:00"})) == {"hostpci0": "0001:01:00"}


def test_two_cards_of_one_guest_that_changed_places() -> None:
    both = (*CARD, *OTHER)
    known = world(
        moved(CARD, 4), moved(OTHER, 1, PORT_B), before=(CARD, OTHER), given=both,
        config={"hostpci0": "0000:01:00,pcie=1", "hostpci1": "0000:04:00.0,x-vga=1"},
    )  # fmt: skip
    assert options(known) == {"hostpci0": "0000:04:00,pcie=1", "hostpci1": "0000:01:00.0,x-vga=1"}


def test_a_mapping_follows_with_the_numbers_of_the_hardware() -> None:
    lines = (
        MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "13", "subsystem-id": "1043:1"}),
        MapEntry("pve2", "0000:01:00", {"id": "10de:2684"}),
    )
    there = tuple(replace(one, iommu_group=21) for one in moved(CARD, 7))
    mapping = ResourceMapping("pci", "gpu", lines, {"description": "the card", "mdev": "0"})
    entry = {"hostpci0": "mapping=gpu,pcie=1"}
    known = world(there, config=entry, mappings=(mapping, ResourceMapping("pci", "idle", lines)))
    (wish,) = [wish for wish in repair(known, 100).wishes if isinstance(wish, MappingText)]
    assert wish.name == "gpu" and wish.before == mapping_text(mapping)
    assert wish.text is not None and wish.text.splitlines() == [
        "map id=10de:2684,iommugroup=21,node=pve,path=0000:07:00,subsystem-id=1043:1",
        "map id=10de:2684,node=pve2,path=0000:01:00",
        "description the card",
        "mdev 0",
    ]
    made = make_plan(known, repair(known, 100).wishes, goal="x", vmid=100, now="20260101-000000", machine="m")
    assert [change.cell for change in made.changes] == [Cell("mapping", "pci/gpu")] and not made.reboot
    then = afterwards(known, made, repair(known, 100)).guest(100)
    assert then is not None and {str(a) for a in then.hostpci[0].addresses} == {"0000:07:00.0", "0000:07:00.1"}


def test_a_mapping_whose_group_number_changed_alone_is_mended_too() -> None:
    mapping = ResourceMapping("pci", "gpu", (MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "13"}),))
    there = tuple(replace(one, iommu_group=30) for one in CARD)
    found = repair(world(there, config={"hostpci0": "mapping=gpu"}, mappings=(mapping,)), 100)
    assert [wish.text for wish in found.wishes if isinstance(wish, MappingText)] == [
        "map id=10de:2684,iommugroup=30,node=pve,path=0000:01:00"
    ]


# -- what names the card at boot -----------------------------------------------------------------


def claims(known: Facts) -> dict[Address, str]:
    (text,) = [wish.text for wish in repair(known, 100).wishes if isinstance(wish, Text) and wish.path == CLAIM_SCRIPT]
    return claims_of(text)


def with_script(known: Facts, claimed: Mapping[Address, str]) -> Facts:
    return replace(known, files={**known.files, CLAIM_SCRIPT: render(claimed)})


def test_the_claim_at_boot_goes_with_its_card() -> None:
    known = with_script(world(moved(CARD, 7)), {at("01:00.0"): "10de:2684", at("09:00.0"): "8086:15f3"})
    assert claims(known) == {at("07:00.0"): "10de:2684", at("09:00.0"): "8086:15f3"}
    made = make_plan(known, repair(known, 100).wishes, goal="x", vmid=100, now="20260101-000000", machine="m")
    assert made.reboot and made.refreshes == ("initramfs",)


def test_the_hosts_twin_is_not_claimed_when_it_gets_the_old_number() -> None:
    known = world(moved(CARD, 4), moved(OTHER, 1, PORT_B), before=(CARD, OTHER))
    assert claims(with_script(known, {at("01:00.0"): "10de:2684"})) == {at("04:00.0"): "10de:2684"}


def test_another_guests_twin_keeps_its_claim() -> None:
    """Twins of two guests changed places: both are still wanted, so both places stay claimed."""
    known = world(moved(CARD, 4), moved(OTHER, 1, PORT_B), before=(CARD, OTHER))
    second = guest(101, known=known.devices, config={"hostpci0": "0000:04:00.0"})
    then = facts(devices=(*REST, PORT_A, PORT_B, *CARD, *OTHER))
    told = Assignment("20260102-run", 101, remember(then, [at("04:00.0")]))
    known = replace(known, guests=(*(known.guests or ()), second), assignments=(*known.assignments, told))
    script = {at("01:00.0"): "10de:2684", at("04:00.0"): "10de:2684"}
    assert not [wish for wish in repair(with_script(known, script), 100).wishes if isinstance(wish, Text)]


def test_sizes_of_bars_go_along() -> None:
    known = world(moved(CARD, 7))
    text = render({}, {(at("01:00.0"), 1): ("10de:2684", 1 << 30)})
    known = replace(known, files={**known.files, CLAIM_SCRIPT: text})
    (new,) = [wish.text for wish in repair(known, 100).wishes if isinstance(wish, Text)]
    assert new == render({}, {(at("07:00.0"), 1): ("10de:2684", 1 << 30)})


def test_a_claim_script_that_is_not_ours_is_not_touched() -> None:
    known = world(moved(CARD, 7))
    failure = refused(replace(known, files={**known.files, CLAIM_SCRIPT: "#!/bin/sh\nclaim 0000:01:00.0\n"}))
    assert failure.code is Exit.REFUSED


def test_our_other_files_follow_and_those_beside_the_boot_ask_for_none() -> None:
    known = world(moved(CARD, 7))
    lent, rules = LENT.format(vmid=100), 'KERNEL=="0000:01:00.0", ATTR{d3cold_allowed}="0"\n'
    files = {
        **known.files,
        lent: "0000:01:00.0 10de:2684\n",
        UDEV_RULES: rules,
        f"{lent.rpartition('/')[0]}/": "directory",
    }
    wishes = repair(replace(known, files=files), 100).wishes
    assert [wish.text for wish in wishes if isinstance(wish, Script)] == ["0000:07:00.0 10de:2684\n"]
    assert [wish.text for wish in wishes if isinstance(wish, Text)] == [rules.replace("01:00", "07:00")]


# -- who is which --------------------------------------------------------------------------------


def doubtful() -> Facts:
    """Both twins left their slots, and one of them is in a third one."""
    port_c = replace(PORT_A, address=at("00:1c.0"))
    return world(moved(CARD, 8, port_c), (port_c,), before=(CARD, OTHER))


def test_what_cannot_be_told_apart_is_asked() -> None:
    failure = refused(doubtful())
    assert failure.code is Exit.USAGE and failure.problem.ref == "reassign.ambiguous"
    assert "0000:01:00.0=0000:08:00.0" in failure.problem.hint
    for words in (("08:00.0",), ("01:00=08:00.0",), ("0000:01:00.0=08:00",)):
        assert options(doubtful(), *words) == {"hostpci0": "0000:08:00,pcie=1"}


def test_what_is_said_must_be_possible() -> None:
    assert refused(doubtful(), "08:00.0", "02:00.0").problem.ref == "reassign.not-it"
    assert refused(doubtful(), "01:00=02:00.0").problem.ref in ("reassign.not-it", "reassign.ambiguous")
    assert refused(world(CARD), "02:00.0").problem.ref == "reassign.not-it"
    assert refused(doubtful(), "nonsense=08:00.0").code is Exit.USAGE


def test_a_card_that_is_nowhere_is_said_and_the_others_are_mended() -> None:
    nic = next(one for one in REST if one.address == at("02:00.0"))
    config = {"hostpci0": "0000:01:00", "hostpci1": "0000:02:00.0"}
    gone = world(config=config, given=(*CARD, nic))
    assert refused(gone).problem.ref == "reassign.gone" and refused(gone).code is Exit.BLOCKED
    elsewhere = replace(nic, address=at("05:00.0"))
    devices = (*(one for one in gone.devices if one != nic), elsewhere)
    partly = replace(gone, devices=devices, guests=(guest(known=devices, config={**FIT, **config}),))
    found = repair(partly, 100)
    assert [wish.value for wish in found.wishes if isinstance(wish, VmOption)] == ["0000:05:00.0"]
    told = partly.guest(100)
    assert told is not None and [one.address for one in remembered(partly, told, found)] == [
        at("01:00.0"),
        at("01:00.1"),
    ]


def test_what_nobody_remembers_is_said() -> None:
    failure = refused(replace(world(CARD), assignments=()))
    assert failure.problem.ref == "reassign.unremembered" and "hostpci0: 0000:01:00,pcie=1" in failure.problem.context


def test_a_running_guest_and_a_pending_change_are_refused() -> None:
    known = world(moved(CARD, 7))
    (there,) = known.guests or ()
    assert refused(replace(known, guests=(replace(there, running=True),))).problem.ref == "guest.running"
    pending = replace(there, pending={"hostpci0": "0000:01:00"})
    assert refused(replace(known, guests=(pending,))).problem.ref == "guest.pending"
