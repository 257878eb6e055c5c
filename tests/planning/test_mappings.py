"""The text of a mapping, made from the hardware; what is refused because no guest would start with it."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.model.facts import Facts, Gap, MapEntry, Pve, ResourceMapping
from pve_passthrough.model.identity import Assignment
from pve_passthrough.model.mappings import mapping_text
from pve_passthrough.model.pci import Address, Device
from pve_passthrough.model.plan import Change
from pve_passthrough.model.sighting import remember
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.model.vm import HostPci
from pve_passthrough.model.wish import VmOption
from pve_passthrough.planning import give
from pve_passthrough.planning.mapping_repair import remove, repair
from pve_passthrough.planning.mappings import changes, mapping_of, through, with_wish

from .worlds import DEVICES, GPU, SOUND, TWIN, at, device, facts, guest

CARD = (GPU.address, SOUND.address)
PF = at("05:00.0")


def vf(function: int, group: int) -> Device:
    return device(f"05:10.{function}", "8086:1565", 0x020000, "ixgbevf", group=group, physical_function=PF)


VFS = (vf(0, 21), vf(2, 22), vf(4, 23))
PORTS = tuple(device(f"06:00.{n}", "8086:1521", 0x020000, "igb", group=30 + n) for n in range(2))
STICK = UsbDevice("1-3", 0x1A86, 0x7523, 0xFF, "USB Serial", None)
SECOND = UsbDevice("1-4", 0x1A86, 0x7523, 0xFF, "USB Serial", None)


def known(**more: object) -> Facts:
    every = more.pop("devices", (*DEVICES, TWIN, *VFS, *PORTS))
    read = tuple(replace(one, subsystem_vendor=0x1043, subsystem_product=0x889A) for one in every)  # type: ignore[attr-defined]
    return facts(**{"devices": read, "usb": (STICK,), **more})


def lines(text: str | None) -> list[str]:
    return [line for line in (text or "").splitlines() if line.startswith("map ")]


def refusal(call: object, *args: object, **more: object) -> Failure:
    with pytest.raises(Failure) as caught:
        call(*args, **more)  # type: ignore[operator]
    return caught.value


def test_a_pool_of_virtual_functions_is_a_line_each() -> None:
    wish = mapping_of(known(), "pci", "vfs", VFS, description="for guests")
    assert (wish.before, wish.kind) == (None, "pci")
    assert [line.split("path=")[1].split(",")[0] for line in lines(wish.text)] == [
        "0000:05:10.0", "0000:05:10.2", "0000:05:10.4",
    ]  # fmt: skip
    assert "description for guests" in (wish.text or "")


def test_ports_of_one_kind_are_devices_of_their_own_and_a_card_is_one() -> None:
    assert len(lines(mapping_of(known(), "pci", "ports", PORTS).text)) == 2
    (card,) = lines(mapping_of(known(), "pci", "card", CARD).text)
    assert "path=0000:01:00" in card.split(",")[-1] or "path=0000:01:00," in f"{card},"


def test_it_is_extended_and_what_is_there_stays() -> None:
    there = ResourceMapping("pci", "vfs", (MapEntry("second", "0000:41:00.0", {"id": "8086:1565"}),), {"mdev": "1"})
    before = known(mappings=(there,))
    wish = mapping_of(before, "pci", "vfs", VFS[:1], mdev=True)
    assert wish.before == mapping_text(there)
    assert lines(wish.text)[0] == lines(wish.before)[0] and len(lines(wish.text)) == 2
    again = mapping_of(with_wish(before, wish), "pci", "vfs", VFS[:1], mdev=True)
    assert again.before == again.text and changes([again]) == ()


def test_a_line_of_the_same_place_gets_the_present_numbers() -> None:
    old = MapEntry("pve", "0000:05:10.0", {"id": "8086:1565", "iommugroup": "99", "description": "left"})
    wish = mapping_of(known(mappings=(ResourceMapping("pci", "vfs", (old,)),)), "pci", "vfs", VFS[:1])
    (line,) = lines(wish.text)
    assert "iommugroup=21" in line and "description=left" in line


def test_making_and_taking_away_are_changes_of_one_cell() -> None:
    made = mapping_of(known(), "usb", "stick", (STICK,))
    (change,) = changes([made])
    assert isinstance(change, Change) and (str(change.cell), change.before) == ("mapping:usb/stick", None)
    after = with_wish(known(), made)
    (gone,) = changes([remove(after, "stick")])
    assert gone.before == change.after and gone.after is None
    assert with_wish(after, remove(after, "stick")).mappings == ()


@pytest.mark.parametrize(
    ("ref", "changed", "more"),
    [
        ("mapping.no-iommu", {"devices": tuple(replace(one, iommu_group=-1) for one in DEVICES)}, {}),
        ("plan.unknown", {"devices": (replace(GPU, iommu_group=None), *DEVICES[:2])}, {}),
        ("plan.unknown", {"pve": Pve(True, "9.2.11")}, {}),
        ("pve.no-quorum", {"pve": Pve(True, "9.2.11", node="pve", quorate=False)}, {}),
        ("mapping.unread", {"gaps": (Gap("mappings.pci", "half"),)}, {}),
        ("mapping.description", {}, {"description": "two\nlines"}),
    ],
)
def test_what_cannot_be_told_or_written_is_refused(
    ref: str, changed: dict[str, object], more: dict[str, str]
) -> None:  # fmt: skip
    assert refusal(mapping_of, known(**changed), "pci", "card", [GPU.address], **more).problem.ref == ref


def test_usb_by_its_number_must_be_the_only_one() -> None:
    wish = mapping_of(known(), "usb", "stick", (STICK,), by_port=False)
    assert lines(wish.text) == ["map id=1a86:7523,node=pve"]
    failure = refusal(mapping_of, known(usb=(STICK, SECOND)), "usb", "stick", (STICK,), by_port=False)
    assert failure.problem.ref == "mapping.ambiguous-usb"
    assert refusal(mapping_of, known(usb=(STICK, SECOND)), "usb", "two", (STICK, SECOND)).problem.ref == (
        "mapping.usb-several"
    )


def test_who_is_given_by_mapping_gets_the_present_line() -> None:
    assert through(known(), "card", CARD).text == mapping_of(known(), "pci", "card", CARD).text
    stale = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "9"}),))
    assert "iommugroup=13" in (through(known(mappings=(stale,)), "card", CARD).text or "")


def given(*mappings: ResourceMapping, addresses: tuple[Address, ...] = CARD, serial: str = "") -> Facts:
    """Guest 100 has the card through `card`, and a run remembers it."""
    devices = tuple(replace(one, serial=serial) if one.address in addresses else one for one in known().devices)
    then = known(devices=devices)
    one = guest(config={"hostpci0": "mapping=card"})
    entry = HostPci("hostpci0", {"mapping": "card"}, addresses, "card")
    runs = (Assignment("20261121-1", 100, remember(then, addresses)),)
    return replace(then, mappings=mappings, guests=(replace(one, hostpci=(entry,)),), assignments=runs)


def moved(world: Facts, old: str, new: str) -> Facts:
    """The card sits in another slot now."""

    def there(one: Device) -> Device:
        return replace(one, address=at(f"{new}.{one.address.function}")) if one.address.slot == f"0000:{old}" else one

    return replace(world, devices=tuple(there(one) for one in world.devices))


def test_a_remembered_card_is_followed_by_its_serial_number() -> None:
    mapping = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "13"}),))
    world = moved(given(mapping, serial="00-11-22-33-44-55-66-77"), "01:00", "0b:00")
    wish = repair(world, "card")
    assert "path=0000:0b:00" in (wish.text or "") and wish.why == "0000:01:00 is at 0000:0b:00 now"


def test_the_twin_is_not_taken_for_a_card_that_is_gone() -> None:
    mapping = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", {"id": "10de:2684", "iommugroup": "13"}),))
    world = given(mapping, serial="00-11-22-33-44-55-66-77")
    gone = replace(world, devices=tuple(one for one in world.devices if one.address not in CARD))
    gone = replace(gone, devices=tuple(replace(one, serial="other") if one.address == TWIN.address else one
                                       for one in gone.devices))  # fmt: skip
    assert refusal(repair, gone, "card").problem.ref == "mapping.uncertain"


def test_a_mapping_stays_while_anybody_may_name_it() -> None:
    mapping = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", {"id": "10de:2684"}),))
    assert refusal(remove, given(mapping), "card").problem.ref == "mapping.used"
    assert refusal(remove, known(mappings=(mapping,), guests=None), "card").problem.ref == "plan.unknown"
    pending = replace(guest(), pending={"hostpci3": "mapping=card"})
    assert refusal(remove, known(mappings=(mapping,), guests=(pending,)), "card").problem.ref == "mapping.used"


def test_a_pool_is_one_entry_and_holds_one_product() -> None:
    pool = mapping_of(known(), "pci", "vfs", VFS)
    world = with_wish(known(guests=(guest(config={"cpu": "host", "machine": "q35"}),)), pool)
    members = [one.address for one in VFS]
    entries = [w.value for w in give(world, members, 100, mappings=("vfs",)) if isinstance(w, VmOption)]
    assert entries == ["mapping=vfs,pcie=1"]
    mixed = with_wish(world, mapping_of(world, "pci", "vfs", PORTS[:1]))
    failure = refusal(give, mixed, [*members, PORTS[0].address], 100, mappings=("vfs",))
    assert failure.problem.ref == "mapping.mixed"
