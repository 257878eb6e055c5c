"""`bars` from end to end: look, plan, apply, reboot, take back, on simulated hosts."""

from __future__ import annotations

import json
import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_passthrough import app
from pve_passthrough.app import bars as app_bars
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.simulated import Simulated, create, power_on
from pve_passthrough.model.own import CLAIM_SCRIPT

CARD = "0000:03:00.0"
GIB = 1 << 30


@pytest.fixture(scope="module")
def originals() -> Iterator[Path]:
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        for name in ("amd-secureboot", "default"):
            create(f"{folder}/{name}", name)
        yield Path(folder)


@pytest.fixture
def place(originals: Path, request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    name = getattr(request, "param", "amd-secureboot")
    # The boot unit names the launcher that started us; a test has none.
    monkeypatch.setattr(app, "_program", lambda host: "/usr/bin/pve-passthrough")
    with tempfile.TemporaryDirectory(dir=originals) as folder:
        shutil.copytree(originals / name, f"{folder}/{name}", symlinks=True, copy_function=os.link)
        yield f"{folder}/{name}"


nvidia = pytest.mark.parametrize("place", ["default"], indirect=True)


def say(place: str, *words: str) -> int:
    return run(["--host", f"sim:{place}", *words])


def size(place: str) -> int:
    looked = app_bars.look_at(Simulated(place), CARD)
    return next(bar.size for bar in looked.devices[0].bars or () if bar.index == 0)


def test_the_table_says_sizes_offers_and_the_guests_window(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(place, "bars", CARD, "--vm", "100") == Exit.FINE
    shown = capsys.readouterr().out
    assert "256 MiB – 8 GiB" in shown and "firmware's" in shown
    assert "a window of 128 GiB" in shown and "fits" in shown and "cannot change it" in shown
    assert f"bars {CARD} --set 0=8G" in " ".join(shown.split())


@nvidia
def test_what_does_not_fit_is_said(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(place, "bars", "gpu", "--vm", "100", "--output-format", "json") == Exit.FINE
    answer = json.loads(capsys.readouterr().out)
    assert answer["format"] == 1
    (card, sound) = answer["devices"]
    assert card["bars"][1] == {
        "index": 1, "kind": "memory64", "size": 32 * GIB, "placed": True, "prefetchable": True,
        "offered": [1 << power for power in range(26, 36)], "at_boot": None,
    }  # fmt: skip
    assert sound["address"] == "0000:01:00.1"
    (guest,) = answer["guests"]
    assert (guest["vmid"], guest["window"], guest["fits"]) == (100, 32 * GIB, False)
    assert answer["next"].endswith(" check 0000:01:00.0 --vm 100")


def test_a_size_lasts_and_is_taken_back(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    before = {path: path.read_bytes() for path in Path(place, "etc").rglob("*") if path.is_file()}
    assert say(place, "bars", CARD, "--set", "0=8G", "--yes") == Exit.REBOOT
    assert size(place) == 1 << 28, "nothing happens before the boot"
    for _ in range(2):
        power_on(Simulated(place).world)
        app.after_boot(Simulated(place))
        assert size(place) == 8 * GIB
    assert say(place, "status") == Exit.FINE
    assert say(place, "bars", CARD, "--set", "0=8G", "--yes") == Exit.FINE
    assert "Nothing has to be changed" in capsys.readouterr().err
    assert say(place, "undo", "--yes") == Exit.REBOOT
    power_on(Simulated(place).world)
    app.after_boot(Simulated(place))
    assert size(place) == 1 << 28
    after = {path: path.read_bytes() for path in Path(place, "etc").rglob("*") if path.is_file()}
    assert after == before


def test_no_room_is_found_out_at_boot_and_taken_back(place: str) -> None:
    world = Simulated(place).world
    assert say(place, "bars", CARD, "--set", "0=8G", "--yes") == Exit.REBOOT
    # Nobody can see beforehand what else the kernel has to place: here it finds less room than the window promised.
    world.put("/proc/iomem", "4000000000-40ffffffff : PCI Bus 0000:00\n")
    power_on(world)
    app.after_boot(Simulated(place))
    assert size(place) == 1 << 28
    assert not Path(place, CLAIM_SCRIPT.lstrip("/")).exists()


def test_a_host_without_above_4g_decoding_refuses_what_it_cannot_place(
    place: str, capsys: pytest.CaptureFixture[str]
) -> None:
    Simulated(place).world.put("/proc/iomem", "80000000-dfffffff : PCI Bus 0000:00\n")
    assert say(place, "bars", CARD, "--set", "0=8G", "--yes") == Exit.REFUSED
    told = capsys.readouterr().err
    assert told.startswith("bars.no-room") and "Above 4G Decoding" in told and "80000000-dfffffff, 1.5 GiB" in told
    assert say(place, "bars", CARD, "--set", "0=1G", "--plan") == Exit.PENDING


def test_the_plan_alone_changes_nothing(place: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert say(place, "bars", CARD, "--set", "0=8G", "--plan", "--output-format", "json") == Exit.PENDING
    answer = json.loads(capsys.readouterr().out)
    assert {"cell": f"bar:{CARD}/0", "text": "8G"} == {key: answer["expects"][0][key] for key in ("cell", "text")}
    assert answer["reboot"] and answer["devices"] == {CARD: "1002:73ff"}
    assert not Path(place, CLAIM_SCRIPT.lstrip("/")).exists()
    assert say(place, "bars", CARD, "--set", "0=256M", "--plan") == Exit.FINE


@pytest.mark.parametrize(
    ("words", "ref", "code"),
    [
        ((CARD, "--set", "0=3G"), "bars.not-offered", Exit.USAGE),
        ((CARD, "--set", "2=8G"), "bars.fixed", Exit.REFUSED),
        ((CARD, "--set", "0"), "bars.setting", Exit.USAGE),
        ((CARD, "--set", "7=8G"), "bars.setting", Exit.USAGE),
        ((CARD, "--set", "0=huge"), "bars.setting", Exit.USAGE),
        ((CARD, "--set", "0=0"), "bars.setting", Exit.USAGE),
        ((CARD, "--set", "0=8G", "--set", "0=4G"), "bars.setting", Exit.USAGE),
        (("gpu", "--set", "3=8G"), "bars.no-such", Exit.USAGE),
        ((CARD, "--vm", "999"), "guest.missing", Exit.USAGE),
    ],
)
def test_bad_input_is_refused_with_its_way_out(
    place: str, words: tuple[str, ...], ref: str, code: Exit, capsys: pytest.CaptureFixture[str]
) -> None:
    assert say(place, "bars", *words) == code
    told = capsys.readouterr().err
    assert told.startswith(f"{ref}: Nothing was") and "→" in told
    assert not Path(place, CLAIM_SCRIPT.lstrip("/")).exists()


@nvidia
def test_a_size_that_the_guest_has_no_room_for_is_a_risk(place: str) -> None:
    host = Simulated(place)
    assert host.run(["qm", "set", "100", "--hostpci0", "0000:01:00"]).ok
    facts = app.look(host, deep=True)
    small = app_bars.plan_sizes_from(facts, "0000:01:00.0", [(1, 8 * GIB)], machine="pve")
    assert "guests.window" not in {risk.rule for risk in small.risks}
    assert app_bars._too_large(facts, facts.devices[[str(d.address) for d in facts.devices].index("0000:01:00.0")])


def test_a_capture_can_be_looked_at_and_not_changed(place: str, tmp_path: Path) -> None:
    file = tmp_path / "capture.tar.gz"
    file.write_bytes(app.capture(Simulated(place)))
    assert run(["--host", f"capture:{file}", "bars", CARD]) == Exit.FINE
    assert run(["--host", f"capture:{file}", "bars", CARD, "--set", "0=8G", "--yes"]) == Exit.USAGE
    assert run(["--host", f"capture:{file}", "bars", CARD, "--set", "0=8G", "--plan"]) == Exit.PENDING


def test_a_setting_is_parsed() -> None:
    assert app_bars.parse_setting("1=8G") == (1, 8 * GIB)
    for text in ("", "=", "1=", "=8G", "x=8G", "1=8G=2", "-1=8G", "6=1G"):
        with pytest.raises(Failure):
            app_bars.parse_setting(text)
