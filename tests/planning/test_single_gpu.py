"""A guest borrows the host's display: what the plan leaves behind, and when it refuses."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import hooks
from pve_passthrough.change import handover
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.knowledge.framebuffers import FRAMEBUFFERS, broken_build, framebuffer
from pve_passthrough.model.facts import Facts
from pve_passthrough.model.lent import lent_text, parse_lent
from pve_passthrough.model.pci import Address
from pve_passthrough.model.wish import ClaimByAddress, ClaimById, LendDisplay
from pve_passthrough.planning import give, make_plan

CARD, SOUND = Address.parse("01:00.0"), Address.parse("01:00.1")
LIST = "/etc/pve-passthrough/lent-100.conf"


@pytest.fixture(scope="module")
def facts(tmp_path_factory: pytest.TempPathFactory) -> Facts:
    return app.look(create(str(tmp_path_factory.mktemp("one-card") / "host"), "only-display"), deep=True)


def wishes(facts: Facts, **more: Any) -> tuple[object, ...]:
    return give(facts, (CARD, SOUND), 100, **more)


def changed(facts: Facts, **fields: Any) -> Facts:
    """The card with other fields."""
    devices = tuple(replace(device, **fields) if device.address == CARD else device for device in facts.devices)
    return replace(facts, devices=devices)


def test_it_is_lent_instead_of_claimed(facts: Facts) -> None:
    assert any(isinstance(wish, ClaimById | ClaimByAddress) for wish in wishes(facts))
    lent = wishes(facts, lend_display=True)
    assert not any(isinstance(wish, ClaimById | ClaimByAddress) for wish in lent)
    (wish,) = [wish for wish in lent if isinstance(wish, LendDisplay)]
    assert wish.functions == ("0000:01:00.0 10de:2684", "0000:01:00.1 10de:22ba")


def test_its_plan_is_a_file_of_ours_and_no_reboot(facts: Facts) -> None:
    plan = make_plan(
        facts,
        give(facts, (CARD, SOUND), 100, lend_display=True),
        goal="lend",
        vmid=100,
        now="2026-11-21 20:00:00",
        machine="pve",
    )
    texts = {str(change.cell): (change.before, change.after) for change in plan.changes}
    assert texts["dir:/etc/pve-passthrough"] == (None, "directory")
    before, after = texts[f"file:{LIST}"]
    assert before is None and parse_lent(after or "") == {CARD: "10de:2684", SOUND: "10de:22ba"}
    assert not plan.reboot and plan.refreshes == ()
    assert {finding.rule for finding in plan.risks} >= {"plan.display-lent"}


def test_a_second_time_nothing_is_left_to_do(facts: Facts) -> None:
    text = lent_text(100, ("0000:01:00.0 10de:2684", "0000:01:00.1 10de:22ba"))
    listed = replace(facts, files={**facts.files, "/etc/pve-passthrough/": "directory", LIST: text})
    running = changed(listed, driver="vfio-pci")
    for known in (listed, running):
        assert not any(isinstance(wish, LendDisplay) for wish in wishes(known, lend_display=True))
        assert not any(isinstance(wish, ClaimById | ClaimByAddress) for wish in wishes(known)), (
            "claimed at boot as well"
        )


@pytest.mark.parametrize(
    ("change", "ref", "says"),
    [
        (lambda known: changed(known, driver="vfio-pci"), "lend.claimed", "vfio-pci holds"),
        (lambda known: changed(known, driver=""), "lend.no-driver", "before the next start"),
        (
            lambda known: replace(known, display=replace(known.display, framebuffer="simpledrmdrmfb")),
            "lend.no-driver",
            "firmware's framebuffer (simpledrmdrmfb)",
        ),
        (
            lambda known: replace(
                changed(known, driver="amdgpu"), kernel=replace(known.kernel, release="7.0.14-1-pve")
            ),
            "lend.broken-kernel",
            "kernel 7.0.14-1-pve crashes",
        ),
        (
            lambda known: replace(changed(known, boot_vga=False), display=replace(known.display, console_owner=None)),
            "lend.no-console",
            "does not show its console",
        ),
        (lambda known: changed(known, product=None), "lend.unknown", "could not be read"),
    ],
)
def test_what_could_not_come_back_is_not_lent(
    facts: Facts, change: Callable[[Facts], Facts], ref: str, says: str
) -> None:
    with pytest.raises(Failure) as failure:
        wishes(change(facts), lend_display=True)
    assert failure.value.problem.ref == ref and says in failure.value.problem.message


def test_what_the_list_holds_must_be_known(facts: Facts) -> None:
    unread = replace(facts, files={path: text for path, text in facts.files.items() if "pve-passthrough/" not in path})
    lent = give(unread, (CARD, SOUND), 100, lend_display=True)
    with pytest.raises(Failure, match="is unknown"):
        make_plan(unread, lent, goal="lend", vmid=100, now="2026-11-21 20:00:00", machine="pve")


@pytest.mark.parametrize(
    "text",
    ["", "# nothing\n", "0000:01:00.0\n", "0000:01:00.0 10de:2684 more\n", "../../0:01:00.0 10de:2684\n",
     "".join(f"0000:{bus:02x}:00.0 10de:2684\n" for bus in range(65))],
)  # fmt: skip
def test_a_list_that_is_not_ours(text: str) -> None:
    with pytest.raises(ValueError, match=r"names|not a function"):
        parse_lent(text)


def test_rows() -> None:
    assert len({row.name for row in FRAMEBUFFERS}) == len(FRAMEBUFFERS)
    row = framebuffer("EFI VGA")
    assert row is not None and row.firmware
    assert broken_build("amdgpu", "7.0.14-2-pve") and not broken_build("amdgpu", "7.0.14-4-pve")
    assert not broken_build("nouveau", "7.0.14-2-pve") and not broken_build("amdgpu", None)


# -- the whole way: plan, start, stop, as people do it ------------------------------------------------


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    host = app.open_host(f"sim:{create(str(tmp_path / 'host'), 'only-display').world.directory}")
    assert isinstance(host, Simulated)
    return host


def qm(host: Simulated, verb: str) -> tuple[int, str]:
    ran = host.run(("qm", verb, "100"))
    return ran.rc, ran.stdout + ran.stderr


def test_start_and_stop(host: Simulated) -> None:
    made = app.plan(host, ["gpu"], 100, lend_display=True)
    assert app.apply(host, made.plan).phase.name == "KEPT"
    assert host.world.text("/proc/fb") == "0 nouveaudrmfb\n"
    code, said = qm(host, "start")
    assert code == 0 and "took 0000:01:00.0 from nouveau" in said, said
    assert (host.world.driver_of(str(CARD)), host.world.text("/proc/fb")) == ("vfio-pci", "")
    code, said = qm(host, "stop")
    assert code == 0 and "the text console is on the framebuffer again" in said, said
    assert (host.world.driver_of(str(CARD)), host.world.text("/proc/fb")) == ("nouveau", "0 nouveaudrmfb\n")
    assert app.undo(host).phase.name == "UNDONE"
    assert not host.world.exists("/etc/pve-passthrough")


def test_a_start_that_fails_later_is_healed_by_the_timers_call(host: Simulated) -> None:
    app.apply(host, app.plan(host, ["gpu"], 100, lend_display=True).plan)
    machine = host.world.machine()
    host.world.save_machine({**machine, "faults": [f"bind:{SOUND}"]})
    code, said = qm(host, "start")
    assert code != 0 and "took 0000:01:00.0 from nouveau" in said, said
    assert host.world.text("/proc/fb") == "", "nobody gives it back but the timer"
    host.world.save_machine(machine)
    timer = host.world.state()["timers"]["pve-passthrough-handback-100.timer"]
    assert hooks.as_program(host, timer["command"]).rc == 0
    assert (host.world.driver_of(str(CARD)), host.world.text("/proc/fb")) == ("nouveau", "0 nouveaudrmfb\n")


def test_the_guest_does_not_start_while_the_card_is_in_use(host: Simulated, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(handover, "HOLDERS_SECONDS", 0.0)
    app.apply(host, app.plan(host, ["gpu"], 100, lend_display=True).plan)
    host.world.put("/proc/2200/comm", "ffmpeg\n")
    host.world.put_link("/proc/2200/fd/7", "/dev/dri/card0")
    code, said = qm(host, "start")
    assert code != 0 and "ffmpeg (process 2200) has /dev/dri/card0 open" in said, said
    assert (host.world.driver_of(str(CARD)), host.world.text("/proc/fb")) == ("nouveau", "0 nouveaudrmfb\n")


def test_without_a_hook_nothing_is_lent(host: Simulated) -> None:
    text = (host.world.text("/etc/pve/storage.cfg") or "").replace("snippets", "rootdir")
    host.world.put("/etc/pve/storage.cfg", text)
    with pytest.raises(Failure) as failure:
        app.plan(host, ["gpu"], 100, lend_display=True)
    assert failure.value.problem.ref == "lend.no-hook" and failure.value.code is Exit.REFUSED


def test_whoever_lends_need_not_name_the_dark_screen_again(host: Simulated) -> None:
    with pytest.raises(app.HazardRefused) as failure:
        app.plan(host, ["gpu"], 100)
    assert failure.value.names == ("only-display",) and "--lend-display" in failure.value.problem.hint


def test_an_undo_while_the_guest_runs_takes_the_hook_away_and_the_timer_still_gives_back(host: Simulated) -> None:
    app.apply(host, app.plan(host, ["gpu"], 100, lend_display=True).plan)
    assert qm(host, "start")[0] == 0
    assert app.undo(host).phase.name == "UNDONE"
    assert host.world.driver_of(str(CARD)) == "vfio-pci"
    qm(host, "stop")
    timer = host.world.state()["timers"]["pve-passthrough-handback-100.timer"]
    hooks.as_program(host, timer["command"])
    assert (host.world.driver_of(str(CARD)), host.world.text("/proc/fb")) == ("nouveau", "0 nouveaudrmfb\n")
