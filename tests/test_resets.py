"""The verb `reset`, as a person uses it: look, choose, take back, prove; and all that it must not do."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from pve_passthrough import app
from pve_passthrough.app import resets
from pve_passthrough.app.resets import Cycle, Verdict
from pve_passthrough.capture import unpack
from pve_passthrough.errors import Exit, Failure
from pve_passthrough.face.cli import run
from pve_passthrough.host.base import Ran, Unreadable
from pve_passthrough.host.replay import Replay
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.model.own import MODULES_LOAD, UDEV_RULES
from tests.copies import copy_of

CARD, NIC = "0000:01:00.0", "0000:03:00.0"


@pytest.fixture
def polaris(tmp_path: Path) -> Simulated:
    return copy_of("polaris", tmp_path / "host", give)


def give(host: Simulated, vmid: int = 100, what: str = "0000:01:00,pcie=1") -> None:
    assert host.run(("qm", "set", str(vmid), "--hostpci0", what, "--machine", "q35")).ok


def says(host: Simulated, *words: str) -> int:
    return run(["--host", host.name, "reset", *words])


def methods(host: Simulated, address: str) -> str | None:
    return host.world.attribute(address, "reset_method")


def prove(host: Simulated, word: str = CARD, vmid: int = 100, **more: Any) -> resets.Tested:
    return resets.test(host, word, vmid, sleep=lambda seconds: None, **more)


def refused(host: Simulated, word: str = CARD, vmid: int = 100, **more: Any) -> Failure:
    with pytest.raises(Failure) as caught:
        prove(host, word, vmid, **more)
    assert "qm start" not in str(caught.value.problem.context)
    return caught.value


# -- show ------------------------------------------------------------------------------------


def test_show_says_what_is_known_and_what_to_do(polaris: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(polaris, "show", CARD, "--output-format", "json") == Exit.FINE
    told = json.loads(capsys.readouterr().out)
    card = next(one for one in told["devices"] if one["address"] == CARD)
    assert told["format"] == 1
    assert card["methods"] == []  # `bus` is shown by the kernel and refused by it
    assert card["known"][0]["family"] == "AMD Polaris 10"
    assert card["advice"][0]["command"] == f"pve-passthrough reset vendor-reset {CARD}"
    assert says(polaris, "show", "nic") == Exit.FINE
    assert "flr" in capsys.readouterr().out


def test_a_name_from_the_machine_cannot_write_to_the_terminal(
    polaris: Simulated, capsys: pytest.CaptureFixture[str]
) -> None:
    polaris.world.put("/etc/udev/rules.d/99-x.rules", f'ATTR{{reset_method}}="\x1b[2J", KERNEL=="{CARD}"\n')
    says(polaris, "show", CARD)
    assert "\x1b" not in capsys.readouterr().out


# -- method, idle ----------------------------------------------------------------------------


def test_a_choice_holds_now_and_after_a_boot_and_default_takes_it_back(polaris: Simulated) -> None:
    assert says(polaris, "method", NIC, "bus,flr", "--yes") == Exit.FINE
    assert methods(polaris, NIC) == "bus flr"
    power_cut(polaris.world)
    assert methods(polaris, NIC) == "bus flr"
    assert says(polaris, "method", NIC, "bus", "--yes") == Exit.FINE
    assert says(polaris, "method", NIC, "default", "--yes") == Exit.FINE
    assert methods(polaris, NIC) == "flr bus"
    assert not polaris.world.exists(UDEV_RULES)
    power_cut(polaris.world)
    assert methods(polaris, NIC) == "flr bus"


def test_undo_after_a_boot_writes_the_attribute_back_too(polaris: Simulated) -> None:
    assert says(polaris, "method", NIC, "bus", "--yes") == Exit.FINE
    power_cut(polaris.world)
    assert run(["--host", polaris.name, "undo", "--yes"]) == Exit.UNDONE
    assert methods(polaris, NIC) == "flr bus"
    assert not polaris.world.exists(UDEV_RULES)


def test_what_the_kernel_refuses_is_taken_back(polaris: Simulated) -> None:
    """The configuration space promises a reset that this kernel does not do."""
    config = bytearray(polaris.read(f"/sys/bus/pci/devices/{NIC}/config"))
    config[0x44] &= ~0x08
    polaris.world.put(f"/sys/bus/pci/devices/{NIC}/config", config.decode("utf-8", "surrogateescape"))
    assert says(polaris, "method", NIC, "pm", "--yes") == Exit.UNDONE
    assert methods(polaris, NIC) == "flr bus"
    assert not polaris.world.exists(UDEV_RULES)


def test_a_plan_alone_changes_nothing(polaris: Simulated, capsys: pytest.CaptureFixture[str]) -> None:
    assert says(polaris, "method", NIC, "bus", "--plan", "--output-format", "json") == Exit.PENDING
    assert json.loads(capsys.readouterr().out)["refreshes"] == ["udev"]
    assert methods(polaris, NIC) == "flr bus"
    assert says(polaris, "method", NIC, "flr,bus", "--plan") == Exit.PENDING  # it does not last yet


BAD_WORDS: dict[tuple[str, ...], Exit] = {
    ("method", NIC, "warm"): Exit.USAGE,
    ("method", NIC, ""): Exit.USAGE,
    ("method", CARD, "bus"): Exit.REFUSED,
    ("method", "0000:01:00.1", "flr"): Exit.REFUSED,
    ("method", "nonsense", "flr"): Exit.USAGE,
    ("vendor-reset", NIC): Exit.REFUSED,
    ("method", NIC, "bus"): Exit.USAGE,  # nobody is there to ask
}


def test_bad_words_change_nothing(polaris: Simulated) -> None:
    assert {words: says(polaris, *words) for words in BAD_WORDS} == BAD_WORDS
    assert methods(polaris, NIC) == "flr bus"
    assert not polaris.world.exists(UDEV_RULES)


def test_power_is_kept_now_and_after_a_boot(polaris: Simulated) -> None:
    assert says(polaris, "idle", NIC, "--yes") == Exit.FINE
    power_cut(polaris.world)
    assert polaris.world.attribute(NIC, "d3cold_allowed") == "0"
    assert says(polaris, "idle", NIC, "--yes") == Exit.FINE  # nothing is left to do


def test_the_modules_own_option_takes_a_reboot(polaris: Simulated) -> None:
    assert says(polaris, "idle", NIC, "--module", "--yes") == Exit.REBOOT
    assert "disable_idle_d3=1" in (polaris.world.text("/etc/modprobe.d/pve-passthrough.conf") or "")


# -- vendor-reset ----------------------------------------------------------------------------


def restart(host: Simulated) -> None:
    assert run(["sim", "exec", host.world.directory, "--", "reboot"]) == 0


def test_vendor_reset_from_nothing_to_a_card_that_comes_back_and_away_again(polaris: Simulated) -> None:
    assert says(polaris, "vendor-reset", CARD, "--yes") == Exit.REBOOT
    restart(polaris)
    assert methods(polaris, CARD) == "device_specific"
    assert prove(polaris).verdict is Verdict.HOLDS
    assert says(polaris, "vendor-reset", CARD, "--yes") == Exit.FINE
    assert run(["--host", polaris.name, "undo", "--yes"]) == Exit.REBOOT
    restart(polaris)
    assert methods(polaris, CARD) == "bus"
    assert not any(map(polaris.world.exists, (UDEV_RULES, MODULES_LOAD, "/var/lib/dkms/vendor-reset")))


def test_a_module_that_secure_boot_refuses_is_taken_back_after_the_reboot(polaris: Simulated) -> None:
    machine = polaris.world.machine()
    machine["firmware"]["secure_boot"] = True
    polaris.world.save_machine(machine)
    name = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    polaris.world.put(name, "\x06\0\0\0\x01")
    assert says(polaris, "vendor-reset", CARD, "--yes") == Exit.REFUSED
    assert says(polaris, "vendor-reset", CARD, "--yes", "--accept", "unsigned-module") == Exit.REBOOT
    restart(polaris)
    assert not polaris.world.exists(UDEV_RULES)
    assert not polaris.world.names("/var/lib/dkms/vendor-reset")


def test_a_build_that_fails_leaves_nothing(polaris: Simulated) -> None:
    polaris.world.put("/usr/src/vendor-reset-0.1.1/src/amd/amdgpu/atom.c", "nothing to tell\n")
    machine = polaris.world.machine()
    machine["failing"] = ["dkms"]
    polaris.world.save_machine(machine)
    assert says(polaris, "vendor-reset", CARD, "--yes") == Exit.COULD_NOT  # its state could not even be asked
    assert not polaris.world.exists(UDEV_RULES)


# -- test ------------------------------------------------------------------------------------


def test_a_card_that_dies_is_found_out_in_the_first_cycle(polaris: Simulated) -> None:
    told: list[Cycle] = []
    result = prove(polaris, cycles=3, tell=told.append)
    assert result.verdict is Verdict.FAILS
    assert [one.number for one in result.cycles] == [1] == [one.number for one in told]
    first = result.cycles[0]
    assert (first.started, first.stopped, first.answers) == (True, True, False)
    assert any(one.row.fatal and "giving up" in one.line for one in first.troubles)
    assert (result.left, result.as_found) == ("stopped", True)
    assert refused(polaris).problem.ref == "reset.dead"


def test_a_card_that_comes_back_holds(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host", give)
    result = prove(host, "gpu", cycles=2)
    assert result.verdict is Verdict.HOLDS
    assert [one.lines for one in result.cycles] == [(), ()]


def test_the_exit_code_and_the_data_say_the_same(
    polaris: Simulated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    assert says(polaris, "test", CARD, "--vm", "100", "--hold", "0", "--output-format", "json") == Exit.BLOCKED
    told = json.loads(capsys.readouterr().out)
    assert (told["verdict"], told["left"], told["cycles"][0]["answers"]) == ("fails", "stopped", False)
    assert told["cycles"][0]["troubles"][0]["fatal"] is True


def test_people_are_told_the_lines_that_prove_it_and_the_next_step(
    polaris: Simulated, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("time.sleep", lambda seconds: None)
    monkeypatch.setenv("COLUMNS", "200")
    assert says(polaris, "test", CARD, "--vm", "100", "--hold", "0") == Exit.BLOCKED
    out = capsys.readouterr().out
    for words in ("FAILS", "DOES NOT ANSWER", "giving up", "as it was found", f"pve-passthrough reset show {CARD}"):
        assert words in out


def test_a_guest_that_runs_is_stopped_only_when_allowed_and_runs_again(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host", give)
    assert host.run(("qm", "start", "100")).ok
    assert refused(host).problem.ref == "guest.running"
    result = prove(host, cycles=1, stop_first=True)
    assert (result.left, result.as_found) == ("running", True)


def test_a_guest_that_does_not_listen_is_not_switched_off(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host", give)
    machine = host.world.machine()
    machine["guests"]["100"] = {"acpi": False, "agent": False}
    host.world.save_machine(machine)
    assert host.run(("qm", "start", "100")).ok
    assert refused(host, stop_first=True).problem.ref == "guest.running"
    assert host.world.exists("/run/qemu-server/100.pid")


def test_a_guest_that_the_test_started_is_switched_off_in_the_end(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host", give)
    machine = host.world.machine()
    machine["guests"]["100"] = {"acpi": False, "agent": False}
    host.world.save_machine(machine)
    result = prove(host, cycles=1)
    assert (result.verdict, result.left) == (Verdict.HOLDS, "stopped")


def test_what_the_host_uses_is_never_tested(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host")
    give(host, what="0000:03:00.0")
    failure = refused(host, NIC)
    assert (failure.problem.ref, failure.code) == ("reset.in-use", Exit.REFUSED)
    assert host.world.driver_of(NIC) == "igc"


def test_what_another_running_guest_has_is_never_tested(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host")
    config = host.world.text("/etc/pve/nodes/pve/qemu-server/100.conf") or ""
    host.world.put("/etc/pve/nodes/pve/qemu-server/101.conf", config.replace("workstation", "other"))
    give(host)
    give(host, 101)
    assert host.run(("qm", "start", "101")).ok
    assert refused(host).problem.ref == "reset.in-use"


def test_a_test_of_something_else_is_refused(polaris: Simulated) -> None:
    asked = ((NIC, 100), (CARD, 999), ("0000:09:00.0", 100))
    refs = [refused(polaris, word, vmid).problem.ref for word, vmid in asked]
    assert refs == ["reset.not-given", "guest.missing", "device.unknown"]


def test_a_guest_that_must_not_be_started_is_not(polaris: Simulated) -> None:
    conf = "/etc/pve/nodes/pve/qemu-server/100.conf"
    text = polaris.world.text(conf) or ""
    for line in ("lock: backup", "template: 1"):
        polaris.world.put(conf, f"{text}{line}\n")
        assert refused(polaris).problem.ref == "guest.not-testable"


class Silent(Simulated):
    """A host on which some programs give no answer."""

    mute: tuple[str, ...] = ()

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if " ".join(argv).startswith(self.mute):
            raise Unreadable(argv[0], "no answer in time")
        return super().run(argv, stdin, timeout)


def silent(tmp_path: Path, *mute: str) -> Silent:
    copy_of("default", tmp_path / "host", give)
    host = Silent(str(tmp_path / "host"))
    host.mute = mute
    return host


def test_without_the_kernels_log_nobody_can_say(tmp_path: Path) -> None:
    result = prove(silent(tmp_path, "dmesg"), cycles=1)
    assert (result.verdict, result.cycles[0].lines) == (Verdict.UNKNOWN, None)


def test_a_start_that_hangs_is_a_failure_and_ends_the_test(tmp_path: Path) -> None:
    result = prove(silent(tmp_path, "qm start"), cycles=3)
    assert (result.verdict, len(result.cycles), result.cycles[0].started) == (Verdict.FAILS, 1, None)


def test_a_guest_that_cannot_be_stopped_is_told(tmp_path: Path) -> None:
    result = prove(silent(tmp_path, "qm shutdown", "qm stop"), cycles=1)
    assert (result.verdict, result.left, result.as_found) == (Verdict.FAILS, "running", False)


def test_an_interrupted_test_leaves_the_guest_as_it_was(tmp_path: Path) -> None:
    host = copy_of("default", tmp_path / "host", give)

    def stop(seconds: float) -> None:
        raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        resets.test(host, CARD, 100, sleep=stop)
    assert not host.world.exists("/run/qemu-server/100.pid")


# -- the log ---------------------------------------------------------------------------------

NEAR = frozenset({CARD, "0000:00:01.0"})


def fresh(before: Sequence[str], after: Sequence[str]) -> tuple[str, ...] | None:
    return resets._fresh(tuple(before), tuple(after), NEAR)


def test_only_new_lines_about_the_device_count() -> None:
    old = ["[1] vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up"]
    new = [
        "[2] vfio-pci 0000:01:00.0: enabling device (0000 -> 0003)",
        "[3] igc 0000:03:00.0 nic0: NIC Link is Down",
        "[4] pcieport 0000:00:01.0: PCIe Bus Error: severity=Uncorrected (Fatal)",
        "[5] AMD-Vi: Completion-Wait loop timed out",
        "[6] audit: type=1400",
    ]
    assert fresh(old, [*old, *new]) == (new[0], new[2], new[3])


def test_the_same_words_again_are_news_where_lines_carry_no_time() -> None:
    line = "vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up"
    assert fresh([line], [line, line]) == (line,)


def test_a_buffer_that_moved_on_is_followed_from_the_last_line_known() -> None:
    old, new = "[7] vfio-pci 0000:01:00.0: enabling device", "[8] vfio-pci 0000:01:00.0: resetting"
    assert fresh(["[1] gone", old], [old, new]) == (new,)


def test_a_log_that_has_wrapped_is_looked_at_whole() -> None:
    lines = ["[8] vfio-pci 0000:01:00.0: not ready 65535ms after FLR; giving up"]
    assert fresh(["[1] long gone"], lines) == tuple(lines)
    assert resets._fresh(None, (), NEAR) is None


# -- captures --------------------------------------------------------------------------------


def test_a_capture_keeps_rules_about_resets_and_nobodys_serial_numbers(polaris: Simulated) -> None:
    polaris.world.put(
        "/etc/udev/rules.d/70-stick.rules",
        '# the stick of Alice\nATTRS{serial}=="AB12CD34EF56X", SYMLINK+="alice"\nATTR{reset_method}="bus"\n',
    )
    says(polaris, "method", NIC, "bus", "--yes")
    answers = unpack(app.capture(polaris), "test")
    replayed = app.look(Replay(answers, "capture:test"), inventory=True)
    stick = replayed.files["/etc/udev/rules.d/70-stick.rules"] or ""
    assert "AB12CD34EF56X" not in stick
    assert "lice" not in stick
    assert 'ATTR{reset_method}="bus"' in stick
    assert replayed.files[UDEV_RULES] == polaris.world.text(UDEV_RULES)
