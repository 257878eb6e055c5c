"""From a size to a plan, and what is refused."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import pytest

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.model.facts import Facts, Kernel, RootWindow
from pve_passthrough.model.finding import Level
from pve_passthrough.model.own import CLAIM_SCRIPT
from pve_passthrough.model.pci import Bar, Capabilities, Device
from pve_passthrough.model.plan import Cell, Plan
from pve_passthrough.model.wish import BarSize, ClaimByAddress, Wish
from pve_passthrough.planning import bars, claim_script, make_plan

from .worlds import DEVICES, RADEON, SATA, at, facts

GIB = 1 << 30
OFFERED = tuple(1 << power for power in range(28, 34))
EXPRESS = Capabilities(express=0, extended=True)
CARD = replace(
    RADEON,
    capabilities=EXPRESS,
    bars=(
        Bar(0, 1 << 38, 1 << 28, wide=True, prefetchable=True, sizes=OFFERED),
        Bar(2, 1 << 37, 2 << 20, wide=True),
        Bar(4, 0xE000, 256, io=True),
        Bar(5, 0xFC000000, 1 << 20),
        Bar(6, 0xFC100000, 1 << 17),
    ),
)


def world(card: Device = CARD, **changes: object) -> Facts:
    devices = tuple(card if one.address == card.address else one for one in DEVICES)
    return facts(devices=devices, **changes)


def planned(found: Facts, wishes: Sequence[Wish]) -> Plan:
    return make_plan(found, wishes, goal="set BAR 0", now="20260101-000000", machine="pve")


def refused(card: Device, index: int, size: int, **changes: object) -> Failure:
    with pytest.raises(Failure) as caught:
        bars.size(world(card, **changes), card, index, size)
    assert caught.value.problem.message.startswith("Nothing was planned")
    return caught.value


def test_a_plan_has_the_script_the_rebuild_the_reboot_and_its_proof() -> None:
    found = world()
    made = planned(found, bars.size(found, CARD, 0, 8 * GIB))
    assert [change.cell for change in made.changes if change.cell.kind == "script"] == [Cell("script", CLAIM_SCRIPT)]
    assert made.refreshes == ("initramfs",) and made.reboot
    assert {(str(one.cell), one.text) for one in made.expects} == {(f"bar:{CARD.address}/0", "8G")}
    after = made.changes[-1].after
    assert claim_script.sizes_of(after) == {(CARD.address, 0): ("1002:73bf", 8 * GIB)}
    assert claim_script.claims_of(after) == {}, "a size claims nothing"
    assert made.inverse().changes[0].after is None


def test_what_is_so_already_needs_no_change_unless_the_script_says_otherwise() -> None:
    assert bars.size(world(), CARD, 0, 1 << 28) == ()
    script = claim_script.render({}, {(CARD.address, 0): (CARD.id, 8 * GIB)})
    found = world(files={CLAIM_SCRIPT: script})
    made = planned(found, bars.size(found, CARD, 0, 1 << 28))
    assert claim_script.sizes_of(made.changes[-1].after) == {(CARD.address, 0): (CARD.id, 1 << 28)}


@pytest.mark.parametrize(
    ("index", "size", "ref", "code"),
    [
        (0, 3 * GIB, "bars.not-offered", Exit.USAGE),
        (0, 16 * GIB, "bars.not-offered", Exit.USAGE),
        (2, 4 << 20, "bars.fixed", Exit.REFUSED),
        (1, GIB, "bars.no-such", Exit.USAGE),
        (4, GIB, "bars.no-such", Exit.USAGE),
        (6, GIB, "bars.no-such", Exit.USAGE),
    ],
)
def test_what_the_card_does_not_offer_is_refused(index: int, size: int, ref: str, code: Exit) -> None:
    failure = refused(CARD, index, size)
    assert (failure.problem.ref, failure.code) == (ref, code)


def test_a_kernel_before_6_1_has_no_such_attribute() -> None:
    failure = refused(CARD, 0, 8 * GIB, kernel=Kernel("5.15.158-2-pve"))
    assert (failure.problem.ref, failure.code) == ("bars.old-kernel", Exit.REFUSED)
    assert bars.size(world(kernel=Kernel("6.1.0-30-amd64")), CARD, 0, 8 * GIB)
    assert bars.size(world(kernel=Kernel()), CARD, 0, 8 * GIB), "nobody knows, and the plan proves it after the boot"


def test_unknown_is_not_no() -> None:
    assert refused(replace(CARD, bars=None), 0, GIB).problem.ref == "plan.unknown"
    unread = replace(CARD, capabilities=None)
    assert refused(unread, 2, GIB).problem.ref == "plan.unknown", "nobody saw the capabilities"
    assert refused(replace(CARD, product=None), 0, GIB).problem.ref == "plan.unknown"


def test_what_the_host_lives_on_is_left_alone() -> None:
    disks = replace(SATA, bars=CARD.bars, capabilities=EXPRESS)
    vital = refused(disks, 0, GIB)
    assert (vital.problem.ref, vital.code) == ("plan.vital", Exit.REFUSED)


def test_only_the_windows_of_the_cards_own_root_bus_count() -> None:
    low, high = RootWindow(0, 0, 0x80000000, 0xDFFFFFFF), RootWindow(0, 0x40, 1 << 38, (1 << 39) - 1)
    port = replace(SATA, address=at("00:01.0"), bridge=True, bars=())
    other = replace(port, address=at("40:01.0"))

    def tried(parent: Device, *windows: RootWindow) -> tuple[BarSize, ...]:
        card = replace(CARD, parent=parent.address)
        found = facts(devices=(port, other, card), root_windows=windows, uses=())
        return bars.size(found, card, 0, 8 * GIB)

    assert tried(other, low, high)
    with pytest.raises(Failure, match="decodes no addresses"):
        tried(port, low, high)
    assert tried(port, high), "nothing is known of its own bus"
    with pytest.raises(Failure):
        tried(port, RootWindow(0, 0, (1 << 38) + 1, (1 << 38) + 9 * GIB))  # no multiple of 8 GiB with room behind it


def test_what_may_go_otherwise_is_said_beforehand() -> None:
    def rules(card: Device, wishes: Sequence[Wish] = (), size: int = 8 * GIB) -> list[str]:
        found = world(card)
        return [one.rule for one in bars.risks(found, (*bars.size(found, card, 0, size), *wishes))]

    assert rules(CARD) == ["gpu.resizable-bar"], "amdgpu has a will of its own"
    assert rules(CARD, [ClaimByAddress(CARD.address, CARD.id, "")]) == []
    assert rules(replace(CARD, driver="vfio-pci")) == []
    low = replace(CARD, driver="", bars=(Bar(0, 0xE0000000, 1 << 28, wide=True, sizes=OFFERED),))
    assert rules(low) == ["platform.unplaced-bars"], "nothing lies above 4 GiB"
    assert rules(low, size=GIB) == [], "so little may fit below"


def test_a_bar_that_pins_the_window_above_is_said() -> None:
    """An Intel Arc card is a switch with a BAR of its own."""
    switch = replace(
        SATA, address=at("01:00.0"), bridge=True, bars=(Bar(0, 1 << 39, 8 << 20, wide=True, prefetchable=True),)
    )
    card = replace(CARD, driver="", parent=switch.address)
    found = facts(devices=(switch, card), uses=())
    (risk,) = bars.risks(found, bars.size(found, card, 0, 8 * GIB))
    assert (risk.rule, risk.level) == ("gpu.resizable-bar", Level.HARMS)
    assert risk.evidence == ("0000:01:00.0: a 64-bit prefetchable BAR",)
    large = replace(card, bars=(replace(CARD.bars[0], size=8 * GIB),) if CARD.bars else ())
    found = facts(devices=(switch, large), uses=())
    assert bars.risks(found, bars.size(found, large, 0, 1 << 28)) == [], "smaller always fits"


def test_the_boot_console_goes_dark() -> None:
    found = world(replace(CARD, driver=""))
    found = replace(found, display=replace(found.display, console_owner=CARD.address))
    wishes = bars.size(found, CARD, 0, 8 * GIB)
    assert [one.rule for one in bars.risks(found, wishes)] == ["gpu.framebuffer"]


def test_dracut_is_refused_with_the_line_to_type() -> None:
    found = world()
    found = replace(found, modules=replace(found.modules, initramfs_tool="dracut"))
    with pytest.raises(Failure) as caught:
        planned(found, bars.size(found, CARD, 0, 8 * GIB))
    assert caught.value.problem.ref == "plan.dracut"
    assert any(f"echo 13 > /sys/bus/pci/devices/{CARD.address}/resource0_resize" in line
               for line in caught.value.problem.context)  # fmt: skip
