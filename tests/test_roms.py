"""`rom` through the command line on simulated hosts: nothing is overwritten, no window stays open, all is undone."""

from __future__ import annotations

import json
import os
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app, rules
from pve_passthrough.app import HazardRefused, roms
from pve_passthrough.change import dump_plan, load_plan
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.face.render import data as published
from pve_passthrough.host.base import Ran, Unreadable
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.host.simulated.option_rom import make, vfct
from pve_passthrough.host.simulated.spec import PciSpec
from pve_passthrough.knowledge.rom_marks import Verdict
from pve_passthrough.model.finding import Level
from pve_passthrough.model.pci import Address
from pve_passthrough.model.plan import Cell, Change, Plan
from pve_passthrough.model.rom import EFI, LEGACY
from pve_passthrough.model.run import Phase
from pve_passthrough.planning import unified
from tests.copies import copy_of

CARD, SOUND, APU = "0000:01:00.0", "0000:01:00.1", "0000:15:00.0"
IDS = "10de:2684"
WHOLE = make(IDS, 0x030000)
DEVICES = "/sys/bus/pci/devices"
CONF = "etc/pve/nodes/pve/qemu-server/100.conf"


class Machine:
    """A simulated host whose guest 100 has the card, or what a test makes of it."""

    def __init__(self, folder: Path, seed: str = "default") -> None:
        self.folder = folder / seed
        self.host = copy_of(seed, self.folder)

    def says(self, *words: str) -> int:
        return run(["--host", f"sim:{self.folder}", *words])

    def qm(self, *words: str) -> int:
        return run(["sim", "exec", str(self.folder), "--", "qm", *words])

    def free(self, address: str = CARD) -> None:
        """No driver has it, as after a claim for guests."""
        driver = self.host.world.driver_of(address)
        self.host.write(f"/sys/bus/pci/drivers/{driver}/unbind", address.encode())

    def window(self, address: str, content: bytes) -> None:
        self.put("sys/devices/" + self._home(address) + "/rom", content)

    def put(self, path: str, content: bytes | None) -> None:
        """Another file in place of the one that is there: that one is shared with other tests' machines."""
        place = self.folder / path
        place.unlink()
        if content is not None:
            place.write_bytes(content)

    def _home(self, address: str) -> str:
        return self.host.world.device_directory(address).removeprefix("/sys/devices/")

    def is_open(self, address: str) -> bool:
        return address in self.host.world.state().get("rom_open", ())

    def config(self) -> str:
        return (self.folder / CONF).read_text()


@pytest.fixture
def machine(tmp_path: Path) -> Machine:
    return Machine(tmp_path)


@pytest.fixture
def given(machine: Machine) -> Machine:
    assert machine.qm("set", "100", "--machine", "q35", "--hostpci0", "0000:01:00,pcie=1") == 0
    return machine


@pytest.fixture(scope="module")
def settled(tmp_path_factory: pytest.TempPathFactory) -> Machine:
    """The same for tests that only plan, and change nothing."""
    machine = Machine(tmp_path_factory.mktemp("settled"))
    assert machine.qm("set", "100", "--machine", "q35", "--hostpci0", "0000:01:00,pcie=1") == 0
    return machine


def write(folder: Path, data: bytes, name: str = "card.rom") -> str:
    (folder / name).write_bytes(data)
    return str(folder / name)


# -- check and fix -----------------------------------------------------------------------------------


def test_the_published_answer(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert run(["rom", "check", write(tmp_path, WHOLE), "--device", IDS, "--output-format", "json"]) == Exit.FINE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["format"], answer["uefi"], answer["verdict"], answer["problems"]) == (1, True, "usable", [])
    first, second = answer["images"]
    wanted = {"offset": 0, "length": 56320, "code_type": 0, "vendor": "10de", "device": "2684", "last": False}
    assert {key: first[key] for key in wanted} == wanted
    assert (second["offset"], second["code_type"], second["last"]) == (56320, 3, True)


@pytest.mark.parametrize(
    ("data", "word", "code"),
    [
        (WHOLE, "usable", Exit.FINE),
        (make(IDS, 0x030000, kinds=(LEGACY,)), "legacy-only", Exit.FINE),
        (b"NVGI" + bytes(508) + WHOLE, "fixable", Exit.BLOCKED),
        (WHOLE[:-5], "truncated", Exit.BLOCKED),
        (bytes(65536), "unusable", Exit.BLOCKED),
        (b"\xff" * 65536, "unusable", Exit.BLOCKED),
        (b"", "unusable", Exit.BLOCKED),
        (b"#!/bin/sh\n", "unusable", Exit.BLOCKED),
    ],
)
def test_a_word_and_an_exit_code(
    data: bytes, word: str, code: Exit, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert run(["rom", "check", write(tmp_path, data)]) == code
    assert capsys.readouterr().out.startswith(word.upper())


def test_a_device_of_the_host_can_be_held_against(settled: Machine, tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE)
    assert roms.check(settled.host, file, "01:00").problems == ()
    (other,) = roms.check(settled.host, file, "00:02.0").problems
    assert other.mark.name == "other-device" and "8086:4680" in other.message
    with pytest.raises(Failure) as caught:
        roms.check(settled.host, file, "0000:7f:00.0")
    assert caught.value.code is Exit.USAGE


@pytest.mark.parametrize("kind", ["directory", "fifo", "missing", "odd name"])
def test_what_is_no_file_is_said_in_words(kind: str, tmp_path: Path) -> None:
    place = tmp_path / "thing"
    if kind == "directory":
        place.mkdir()
    elif kind == "fifo":
        os.mkfifo(place)
    with pytest.raises(Failure) as caught:
        roms.check(None, "a\0b" if kind == "odd name" else str(place))
    assert caught.value.problem.ref == "rom.unreadable"


def test_a_huge_file_is_not_read_to_its_end(tmp_path: Path) -> None:
    file = tmp_path / "huge"
    with file.open("wb") as stream:
        stream.truncate(1 << 40)
    found = roms.check(None, str(file))
    assert (found.verdict, found.problems[0].mark.name, found.size) == (Verdict.UNUSABLE, "too-large", 1 << 40)


def test_fix_writes_the_images_alone(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    file, out = write(tmp_path, b"NVGI" + bytes(508) + WHOLE + b"\xff" * 100), tmp_path / "out.rom"
    assert run(["rom", "fix", file, "-o", str(out), "--output-format", "json"]) == Exit.FINE
    answer = json.loads(capsys.readouterr().out)
    assert (answer["removed_before"], answer["removed_after"], answer["verdict"]) == (512, 100, "usable")
    assert out.read_bytes() == WHOLE
    assert sorted(tmp_path.iterdir()) == sorted([Path(file), out])


@pytest.mark.parametrize("data", [WHOLE, bytes(100), WHOLE[:3000], b"x"])
def test_fix_leaves_alone_what_it_cannot_prove(data: bytes, tmp_path: Path) -> None:
    out = tmp_path / "out.rom"
    assert run(["rom", "fix", write(tmp_path, data), "-o", str(out)]) == Exit.REFUSED
    assert not out.exists()


@pytest.mark.parametrize("kind", ["file", "dangling link"])
def test_nothing_that_exists_is_overwritten(kind: str, tmp_path: Path, machine: Machine) -> None:
    out = tmp_path / "out.rom"
    out.write_bytes(b"mine") if kind == "file" else out.symlink_to("nowhere")
    file = write(tmp_path, b"NVGI" + bytes(508) + WHOLE)
    machine.free()
    assert run(["rom", "fix", file, "-o", str(out)]) == Exit.REFUSED
    assert machine.says("rom", "dump", CARD, "-o", str(out)) == Exit.REFUSED
    assert out.is_symlink() or out.read_bytes() == b"mine"
    assert not (tmp_path / "nowhere").exists()
    assert machine.host.world.state().get("rom_open") is None


def test_a_file_without_links_gets_its_name_all_the_same(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: object) -> None:
        raise PermissionError(1, "Operation not permitted")

    monkeypatch.setattr(os, "link", refuse)
    roms.write_new(str(tmp_path / "new"), b"data")
    assert [(one.name, one.read_bytes()) for one in tmp_path.iterdir()] == [("new", b"data")]


# -- dump --------------------------------------------------------------------------------------------


def test_a_free_cards_rom_comes_byte_by_byte_and_its_window_is_shut(machine: Machine, tmp_path: Path) -> None:
    machine.free()
    out = tmp_path / "card.rom"
    assert machine.says("rom", "dump", CARD, "-o", str(out)) == Exit.FINE
    assert out.read_bytes() == WHOLE
    assert not machine.is_open(CARD)


def test_a_card_in_use_is_read_only_when_that_is_named(machine: Machine, tmp_path: Path) -> None:
    out = tmp_path / "card.rom"
    assert machine.says("rom", "dump", CARD, "-o", str(out)) == Exit.REFUSED
    assert not out.exists() and machine.host.world.state().get("rom_open") is None
    assert machine.says("rom", "dump", CARD, "-o", str(out), "--accept", "rom-in-use") == Exit.FINE


def test_a_guests_card_is_never_read_while_it_runs(given: Machine, tmp_path: Path) -> None:
    assert given.qm("start", "100") == 0
    with pytest.raises(Failure) as caught:
        roms.dump(given.host, CARD, str(tmp_path / "x"), accept=("rom-in-use",))
    assert (caught.value.problem.ref, caught.value.code) == ("rom.guest-runs", Exit.REFUSED)
    assert not given.is_open(CARD)


def test_a_sleeping_and_silent_card_is_woken_and_put_back(machine: Machine, tmp_path: Path) -> None:
    machine.free()
    world, home = machine.host.world, f"{DEVICES}/{CARD}"
    world.put(f"{home}/power/control", "auto\n")
    world.put(f"{home}/enable", "0\n")
    assert machine.says("rom", "dump", CARD, "-o", str(tmp_path / "card.rom")) == Exit.FINE
    assert [world.attribute(CARD, name) for name in ("power/control", "enable")] == ["auto", "0"]
    told = [(path.removeprefix(f"{home}/"), value) for path, value in world.state()["sysfs_writes"][-6:]]
    assert told == [
        ("power/control", "on"), ("enable", "1"), ("rom", "1"),
        ("rom", "0"), ("enable", "0"), ("power/control", "auto"),
    ]  # fmt: skip


@pytest.mark.parametrize(
    ("content", "ref"),
    [(b"", "rom.unread"), (b"\xff" * 65536, "rom.unread"), (bytes(65536), "rom.unread")],
    ids=["empty", "ffff", "zeros"],
)
def test_a_card_that_gives_nothing_is_told(content: bytes, ref: str, machine: Machine, tmp_path: Path) -> None:
    """The kernel looks for the first image itself, so all of these are I/O errors."""
    machine.free()
    machine.window(CARD, content)
    with pytest.raises(Failure) as caught:
        roms.dump(machine.host, CARD, str(tmp_path / "x"))
    assert caught.value.problem.ref == ref
    assert "Invalid PCI ROM header signature" in "\n".join(caught.value.problem.context)
    assert not machine.is_open(CARD) and not (tmp_path / "x").exists()


class Odd(Simulated):
    """A host on which reading or writing the window goes wrong."""

    def __init__(self, directory: str, act: Callable[[str, bytes | None], bytes | None]) -> None:
        super().__init__(directory)
        self.act = act

    def read(self, path: str) -> bytes:
        if path.endswith("/rom"):
            answer = self.act("read", None)
            if answer is not None:
                return answer
        return super().read(path)

    def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
        if path.endswith("/rom"):
            self.act("write", data)
        super().write(path, data, mode)


def test_bytes_that_are_no_rom_are_not_written(machine: Machine, tmp_path: Path) -> None:
    machine.free()
    odd = Odd(str(machine.folder), lambda what, _: b"\xff" * 4096 if what == "read" else None)
    with pytest.raises(Failure) as caught:
        roms.dump(odd, CARD, str(tmp_path / "x"))
    assert caught.value.problem.ref == "rom.nothing"
    assert "Every byte is ff" in caught.value.problem.context[0]
    assert not machine.is_open(CARD) and not (tmp_path / "x").exists()


@pytest.mark.parametrize("trouble", [Unreadable("rom", "Input/output error"), KeyboardInterrupt()])
def test_the_window_is_shut_whatever_happens(trouble: BaseException, machine: Machine, tmp_path: Path) -> None:
    def act(what: str, _: bytes | None) -> None:
        if what == "read":
            assert machine.is_open(CARD)
            raise trouble

    machine.free()
    with pytest.raises((Failure, KeyboardInterrupt)):
        roms.dump(Odd(str(machine.folder), act), CARD, str(tmp_path / "x"))
    assert not machine.is_open(CARD)


def test_a_window_that_stays_open_is_told_before_anything_else(machine: Machine, tmp_path: Path) -> None:
    def act(what: str, data: bytes | None) -> None:
        if what == "write" and data == b"0\n":
            raise Unreadable("rom", "No such device")

    machine.free()
    with pytest.raises(Failure) as caught:
        roms.dump(Odd(str(machine.folder), act), CARD, str(tmp_path / "x"))
    assert caught.value.problem.ref == "rom.left-open"
    assert f"{DEVICES}/{CARD}/rom: should be 0 (No such device)" in caught.value.problem.context
    assert not (tmp_path / "x").exists()


def test_the_kernel_shuts_a_window_for_two_bytes_only(machine: Machine) -> None:
    """drivers/pci/pci-sysfs.c, pci_write_rom: anything but "0" with a line feed opens it."""
    machine.free()
    path = f"{DEVICES}/{CARD}/rom"
    with pytest.raises(Unreadable, match="Invalid argument"):
        machine.host.read(path)
    machine.host.write(path, b"0")
    assert machine.host.read(path) == WHOLE
    machine.host.write(path, b"0\n")
    with pytest.raises(Unreadable, match="Invalid argument"):
        machine.host.read(path)


def test_a_function_without_a_window_is_told_so(machine: Machine, tmp_path: Path) -> None:
    machine.free(SOUND)
    with pytest.raises(Failure) as caught:
        roms.dump(machine.host, SOUND, str(tmp_path / "x"))
    assert caught.value.problem.ref == "rom.no-window"


def test_the_boot_display_of_a_bios_host_gives_a_copy(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    machine = Machine(tmp_path, "bios-grub")
    facts = app.look(machine.host)
    (boot,) = [device for device in facts.devices if device.boot_vga]
    assert roms.shadowed(boot)
    out = tmp_path / "copy.rom"
    assert machine.says("rom", "dump", str(boot.address), "-o", str(out), "--accept", "rom-in-use") == Exit.BLOCKED
    shown = capsys.readouterr()
    assert "TRUNCATED" in shown.out and "checksum" in shown.out and "is the boot display" in shown.err
    assert out.exists()


def test_graphics_in_an_amd_processor_have_theirs_in_the_firmwares_table(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "amd-apu")
    out = tmp_path / "vbios.rom"
    assert machine.says("rom", "dump", "gpu", "-o", str(out)) == Exit.FINE
    assert out.read_bytes() == make("1002:164e", 0x030000, kinds=(LEGACY,))
    assert machine.host.world.state().get("rom_open") is None


@pytest.mark.parametrize(
    ("table", "ref"),
    [
        (None, "rom.no-table"),
        (b"VFCT", "rom.not-in-table"),
        (vfct([PciSpec("0000:16:00.0", "1002:164e", 0x030000, 1)]), "rom.not-in-table"),
        (vfct([PciSpec(APU, "1002:1638", 0x030000, 1)]), "rom.not-in-table"),
        (vfct([PciSpec(APU, "1002:164e", 0x030000, 1)])[:-1], "rom.not-in-table"),
    ],
    ids=["none", "too short", "another place", "another device", "cut off"],
)
def test_a_table_without_the_function_is_told(table: bytes | None, ref: str, tmp_path: Path) -> None:
    machine = Machine(tmp_path, "amd-apu")
    machine.put("sys/firmware/acpi/tables/VFCT", table)
    with pytest.raises(Failure) as caught:
        roms.dump(machine.host, APU, str(tmp_path / "x"), source="vfct")
    assert caught.value.problem.ref == ref


def test_a_capture_gives_no_rom(tmp_path: Path, machine: Machine) -> None:
    assert machine.says("capture", "-o", str(tmp_path / "c.tar.gz")) == Exit.FINE
    words = ["--host", f"capture:{tmp_path}/c.tar.gz", "rom", "dump", CARD, "-o", str(tmp_path / "x")]
    assert run(words) == Exit.USAGE


# -- install -------------------------------------------------------------------------------------------


def test_a_rom_is_installed_and_undone_to_the_byte(given: Machine, tmp_path: Path) -> None:
    before = given.config()
    data = WHOLE + bytes(range(256)) * 3616
    assert len(data) > 1_000_000
    assert given.says("rom", "install", write(tmp_path, data, "big.rom"), CARD, "--vm", "100", "--yes") == Exit.FINE
    assert (given.folder / "usr/share/kvm/big.rom").read_bytes() == data
    assert "hostpci0: 0000:01:00,pcie=1,romfile=big.rom\n" in given.config()
    assert given.qm("start", "100") == 0 and given.qm("stop", "100") == 0
    assert given.says("undo", "--yes") == Exit.UNDONE
    assert given.config() == before
    assert list((given.folder / "usr/share/kvm").iterdir()) == []


def test_doing_it_twice_changes_nothing(given: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    words = ("rom", "install", write(tmp_path, WHOLE), CARD, "--vm", "100", "--yes")
    assert given.says(*words) == Exit.FINE
    assert given.says(*words) == Exit.FINE
    assert "Nothing has to be changed." in capsys.readouterr().err


def test_another_function_gets_an_entry_of_its_own(given: Machine, tmp_path: Path) -> None:
    before = given.config()
    file = write(tmp_path, make("10de:ffff", 0, kinds=(EFI,)))
    assert given.says("rom", "install", file, SOUND, "--vm", "100", "--yes") == Exit.FINE
    assert "hostpci0: 0000:01:00.0,pcie=1\n" in given.config()
    assert "hostpci1: 0000:01:00.1,pcie=1,romfile=card.rom\n" in given.config()
    assert given.qm("start", "100") == 0 and given.qm("stop", "100") == 0
    assert given.says("undo", "--yes") == Exit.UNDONE
    assert given.config() == before


def test_a_card_of_many_functions_keeps_the_others_together(tmp_path: Path) -> None:
    machine = Machine(tmp_path, "amd-apu")
    assert machine.qm("set", "100", "--machine", "q35", "--hostpci0", "0000:15:00,pcie=1,x-vga=1") == 0
    file = write(tmp_path, make("1002:ffff", 0, kinds=(EFI,)), "AMDGopDriver.rom")
    assert machine.says("rom", "install", file, "0000:15:00.1", "--vm", "100", "--yes") == Exit.FINE
    rest = ";".join(f"0000:15:00.{number}" for number in (0, 2, 3, 6))
    assert f"hostpci0: {rest},pcie=1,x-vga=1\n" in machine.config()
    assert "hostpci1: 0000:15:00.1,pcie=1,romfile=AMDGopDriver.rom\n" in machine.config()


def test_a_mapped_card_gets_its_rom_and_its_sound_does_not(machine: Machine, tmp_path: Path) -> None:
    device = app.look(machine.host).device(Address.parse(CARD))
    assert device is not None
    entry = f"node=pve,path=0000:01:00,id={IDS},iommugroup={device.iommu_group},subsystem-id={device.subsystem}"
    assert machine.host.run(["pvesh", "create", "/cluster/mapping/pci", "--id", "card", "--map", entry]).ok
    assert machine.qm("set", "100", "--machine", "q35", "--hostpci0", "mapping=card,pcie=1") == 0
    file = write(tmp_path, make("10de:ffff", 0, kinds=(EFI,)))
    failure = refused(machine, file, SOUND)
    assert failure.problem.ref == "rom.mapped" and "romfile=card.rom" in failure.problem.hint
    assert machine.says("rom", "install", file, CARD, "--vm", "100", "--yes") == Exit.FINE
    assert "hostpci0: mapping=card,pcie=1,romfile=card.rom\n" in machine.config()
    assert machine.qm("start", "100") == 0


def test_a_plan_shows_size_and_hash_and_not_the_bytes(
    given: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    made = roms.plan_install(given.host, write(tmp_path, WHOLE), CARD, 100).plan
    given.says("rom", "install", write(tmp_path, WHOLE), CARD, "--vm", "100", "--yes")
    shown = capsys.readouterr().err
    assert f"(binary, {len(WHOLE)} bytes, SHA-256" in shown and "PCIR" not in shown
    assert "PCIR" not in json.dumps(published.plan(made))
    assert f"{len(WHOLE)} bytes" in unified(made.changes[0])


def test_any_byte_survives_the_plan_that_is_kept() -> None:
    text = bytes(range(256)).decode("utf-8", "surrogateescape") * 64
    kept = Plan("id", "m", "g", changes=(Change(Cell("file", "/a"), None, text, "why"),))
    assert load_plan(dump_plan(kept)) == kept
    assert text.encode("utf-8", "surrogateescape") == bytes(range(256)) * 64


def refused(machine: Machine, file: str, word: str = CARD, vmid: int = 100, **more: Any) -> Failure:
    before = machine.config()
    with pytest.raises(Failure) as caught:
        roms.plan_install(machine.host, file, word, vmid, **more)
    assert machine.config() == before and not list((machine.folder / "usr/share/kvm").glob("card*"))
    return caught.value


@pytest.mark.parametrize(
    ("data", "ref"),
    [
        (bytes(512), "rom.all-zero"),
        (b"NVGI" + bytes(508) + WHOLE, "rom.prefix"),
        (WHOLE[:-1], "rom.cut"),
        (b"text", "rom.no-rom"),
        (b"", "rom.empty"),
    ],
)
def test_a_file_of_no_use_is_not_installed(data: bytes, ref: str, settled: Machine, tmp_path: Path) -> None:
    failure = refused(settled, write(tmp_path, data))
    assert (failure.problem.ref, failure.code) == (ref, Exit.BLOCKED)
    assert ("rom fix" in failure.problem.hint) == (ref == "rom.prefix")


@pytest.mark.parametrize(
    ("data", "hazard"),
    [
        (make("10de:2700", 0x030000), "rom-other-device"),
        (make(IDS, 0x030000, kinds=(LEGACY,), last=False), "rom-unfinished"),
        (WHOLE[:200] + b"\x01" + WHOLE[201:], "rom-checksum"),
    ],
)
def test_a_doubtful_file_is_installed_by_name_only(data: bytes, hazard: str, settled: Machine, tmp_path: Path) -> None:
    file = write(tmp_path, data)
    failure = refused(settled, file)
    assert isinstance(failure, HazardRefused) and failure.names == (hazard,)
    assert failure.code is Exit.REFUSED and hazard in failure.problem.hint
    assert len(roms.plan_install(settled.host, file, CARD, 100, accept=(hazard,)).plan.changes) == 2


@pytest.mark.parametrize("name", ["../x.rom", "a,b.rom", ".hidden", "a b", "", "x" * 101, "a;b", "-o"])
def test_a_name_is_a_name(name: str, settled: Machine, tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE)
    with pytest.raises(Failure) as caught:
        roms.plan_install(settled.host, file, CARD, 100, name=name or " ")
    assert caught.value.problem.ref == "rom.bad-name"


def test_another_file_of_that_name_stays(given: Machine, tmp_path: Path) -> None:
    there = given.folder / "usr/share/kvm/vgabios.bin"
    there.write_bytes(b"theirs")
    failure = refused(given, write(tmp_path, WHOLE), name="vgabios.bin")
    assert failure.problem.ref == "rom.other-file" and there.read_bytes() == b"theirs"


@pytest.mark.parametrize(
    ("entry", "ref"),
    [
        ("", "rom.not-given"),
        ("0000:01:00,rombar=0", "rom.no-window"),
        ("0000:00:02.0", "rom.not-given"),
    ],
)
def test_the_guest_must_have_the_device(entry: str, ref: str, machine: Machine, tmp_path: Path) -> None:
    if entry:
        assert machine.qm("set", "100", "--hostpci0", entry) == 0
    assert refused(machine, write(tmp_path, WHOLE)).problem.ref == ref


def test_a_running_or_missing_guest_is_refused(given: Machine, tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE)
    assert refused(given, file, vmid=999).problem.ref == "guest.missing"
    assert given.qm("start", "100") == 0
    assert refused(given, file).problem.ref == "guest.running"


def test_a_file_that_no_plan_could_hold_is_refused(settled: Machine, tmp_path: Path) -> None:
    file = write(tmp_path, WHOLE + b"\xfe" * (3 << 20))
    assert refused(settled, file).problem.ref == "rom.plan-too-large"


@pytest.mark.parametrize(("bios", "told"), [("ovmf", ()), ("seabios", ("rom.firmware",))])
def test_a_rom_that_the_guests_firmware_does_not_know_is_told(
    bios: str, told: tuple[str, ...], given: Machine, tmp_path: Path
) -> None:
    assert given.qm("set", "100", "--bios", bios) == 0
    made = roms.plan_install(given.host, write(tmp_path, make(IDS, 0x030000, kinds=(EFI,))), CARD, 100).plan
    assert tuple(risk.rule for risk in made.risks) == told


# -- what the facts and rules say ------------------------------------------------------------------------


def test_a_named_file_that_is_not_there_is_found_before_the_start(
    given: Machine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert given.says("rom", "install", write(tmp_path, WHOLE), CARD, "--vm", "100", "--yes") == Exit.FINE
    assert app.look(given.host).rom_files == {"card.rom": True}
    (given.folder / "usr/share/kvm/card.rom").unlink()
    assert app.look(given.host).rom_files == {"card.rom": False}
    capsys.readouterr()
    assert given.says("check", "--vm", "100", "--output-format", "json") != Exit.FINE
    found = json.loads(capsys.readouterr().out)["findings"]
    assert [one["level"] for one in found if one["rule"] == "guests.rom-file"] == ["harms"]
    assert given.qm("start", "100") != 0
    assert 'failed to find romfile "/usr/share/kvm/card.rom"' in capsys.readouterr().out


def test_without_a_named_file_nothing_is_asked(machine: Machine) -> None:
    asked = []

    class Listening(Simulated):
        def names(self, path: str) -> tuple[str, ...]:
            asked.append(path)
            return super().names(path)

    assert app.look(Listening(str(machine.folder))).rom_files == {}
    assert "/usr/share/kvm" not in asked


@pytest.mark.parametrize(
    ("seed", "word", "said"),
    [
        ("amd-apu", "gpu", "has no ROM of its own"),
        ("only-display", "gpu", "is the boot display"),
        ("default", "gpu", ""),
    ],
)
def test_what_is_known_about_a_cards_rom(
    seed: str, word: str, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    Machine(tmp_path, seed).says("check", word, "--output-format", "json")
    found = json.loads(capsys.readouterr().out)["findings"]
    told = [one["message"] for one in found if one["rule"] == "gpu.option-rom"]
    assert [said in one for one in told] == ([True] if said else [])


def test_what_nobody_could_say_about_a_rom_is_said() -> None:
    from .rules.worlds import BOTH, GPU, guest, host, with_device

    blank = rules.judge(host(devices=with_device(GPU, option_rom=None)), BOTH)
    unsure = rules.judge(host(guests=(guest(hostpci0="0000:01:00,romfile=gpu.rom"),)), BOTH)
    told = [(one.rule, one.level) for one in (*blank, *unsure) if one.rule in ("gpu.option-rom", "guests.rom-file")]
    assert told == [("gpu.option-rom", Level.UNKNOWN), ("guests.rom-file", Level.UNKNOWN)]


def test_a_report_can_be_made_without_a_host() -> None:
    found = roms.report("x", WHOLE, (0x10DE, 0x2684))
    assert found.usable and replace(found, verdict=Verdict.FIXABLE).usable is False


@pytest.mark.parametrize("moment", ["file", "entry"])
def test_a_power_cut_on_the_way_takes_all_back(moment: str, given: Machine, tmp_path: Path) -> None:
    """The run stops before the file or before the guest's entry is written; after the boot nothing of it is left."""

    class Cut(BaseException):
        pass

    class Stopping(Simulated):
        def write(self, path: str, data: bytes | None, mode: int | None = None) -> None:
            if moment == "file" and path.startswith("/usr/share/kvm/"):
                raise Cut
            super().write(path, data, mode)

        def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
            if moment == "entry" and argv[:2] == ("pvesh", "set"):
                raise Cut
            return super().run(argv, stdin, timeout)

    before = given.config()
    host = Stopping(str(given.folder))
    made = roms.plan_install(host, write(tmp_path, WHOLE), CARD, 100).plan
    with pytest.raises(Cut):
        app.apply(host, made)
    power_cut(given.host.world)
    done = app.after_boot(given.host)
    assert done is not None and done.phase is Phase.UNDONE
    assert given.config() == before and list((given.folder / "usr/share/kvm").iterdir()) == []
