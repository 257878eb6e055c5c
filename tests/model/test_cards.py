"""What belongs to a card, and what merely lies beside it."""

from __future__ import annotations

from dataclasses import replace

from pve_passthrough.model.cards import companions, processor_functions
from pve_passthrough.model.pci import Device

from ..planning.worlds import DEVICES, GPU, SOUND, at, device, facts

UPSTREAM = device("05:00.0", "8086:4fa0", 0x060400, bridge=True, parent=at("00:01.0"))
LEFT = device("06:01.0", "8086:4fa4", 0x060400, bridge=True, parent=UPSTREAM.address)
RIGHT = device("06:04.0", "8086:4fa4", 0x060400, bridge=True, parent=UPSTREAM.address)
ARC = device("07:00.0", "8086:56a0", 0x030000, "i915", parent=LEFT.address)
ARC_SOUND = device("08:00.0", "8086:4f90", 0x040300, "snd_hda_intel", parent=RIGHT.address)
PORT = device("00:01.0", "8086:460d", 0x060400, bridge=True)
ARC_HOST = (PORT, UPSTREAM, LEFT, RIGHT, ARC, ARC_SOUND)


def found(card: Device, *devices: Device) -> set[str]:
    return {str(other.address) for other in companions(facts(devices=devices), card)}


def test_sound_of_the_same_slot_and_maker() -> None:
    assert found(GPU, *DEVICES) == {"0000:01:00.1"}
    assert found(SOUND, *DEVICES) == set()


def test_an_arc_card_has_its_sound_behind_the_other_port_of_its_switch() -> None:
    assert found(ARC, *ARC_HOST) == {"0000:08:00.0"}
    assert found(ARC_SOUND, *ARC_HOST) == set()


def test_a_sound_card_that_shares_only_the_root_port_or_another_makers_switch_is_not_the_cards() -> None:
    other = replace(ARC_SOUND, parent=PORT.address)
    assert found(ARC, *(other if one is ARC_SOUND else one for one in ARC_HOST)) == set()
    switch = [replace(one, vendor=0x1022) if one is UPSTREAM else one for one in ARC_HOST]
    assert found(ARC, *switch) == set()
    assert found(ARC, ARC, ARC_SOUND) == set(), "nothing is known about the bridges"


def test_a_processors_functions_lie_beside_its_graphics_and_belong_to_the_processor() -> None:
    picture = device("15:00.0", "1002:164e", 0x030000, "amdgpu")
    sound = device("15:00.1", "1002:1640", 0x040300, "snd_hda_intel")
    usb = device("15:00.3", "1022:15b6", 0x0C0330, "xhci_hcd")
    known = facts(devices=(picture, sound, usb))
    assert processor_functions(known, picture) == (usb,)
    assert processor_functions(known, sound) == ()
    assert companions(known, picture) == (sound,)
