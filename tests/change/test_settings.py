"""Cells of functions' settings and of DKMS: read, written and compared as the kernel and DKMS answer."""

from __future__ import annotations

import contextlib
from pathlib import Path

import pytest

from pve_passthrough import app, change
from pve_passthrough.app import resets
from pve_passthrough.change.cells import may_be_between, read_cell, write_cell
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated import Simulated, power_cut
from pve_passthrough.model.own import UDEV_RULES
from pve_passthrough.model.plan import Cell
from tests.copies import copy_of
from tests.hosts.faulty import KILL, POWER_CUT, Fault, FaultySimulated, Killed, PowerCut

CARD, NIC = "0000:01:00.0", "0000:03:00.0"
MODULE = Cell("dkms", "vendor-reset/0.1.1")


@pytest.fixture
def host(tmp_path: Path) -> Simulated:
    return copy_of("polaris", tmp_path / "host")


def setting(address: str, attribute: str = "reset_method") -> Cell:
    return Cell("pci", f"{address}/{attribute}")


def test_bus_counts_only_where_the_function_is_alone(host: Simulated) -> None:
    assert host.read(f"/sys/bus/pci/devices/{CARD}/reset_method") == b"bus\n"
    assert read_cell(host, setting(CARD)) == ""
    assert read_cell(host, setting(NIC)) == "flr bus"


def test_the_order_is_kept_and_comes_back(host: Simulated) -> None:
    write_cell(host, setting(NIC), "flr bus", "bus flr")
    assert read_cell(host, setting(NIC)) == "bus flr"
    write_cell(host, setting(NIC), "bus flr", "flr bus")
    assert read_cell(host, setting(NIC)) == "flr bus"


def test_nothing_is_written_as_the_kernels_own_choice(host: Simulated) -> None:
    write_cell(host, setting(NIC), "flr bus", "bus")
    write_cell(host, setting(NIC), "bus", "")
    assert read_cell(host, setting(NIC)) == "flr bus"


def test_what_the_kernel_refuses_is_a_failure_and_changes_nothing(host: Simulated) -> None:
    with pytest.raises(Failure) as caught:
        write_cell(host, setting(NIC), "flr bus", "pm")
    assert caught.value.problem.ref == "cell.write"
    assert read_cell(host, setting(NIC)) == "flr bus"


def test_power_is_a_setting_too(host: Simulated) -> None:
    cell = setting(NIC, "d3cold_allowed")
    assert read_cell(host, cell) == "1"
    write_cell(host, cell, "1", "0")
    assert read_cell(host, cell) == "0"


def test_a_name_of_another_form_is_no_place(host: Simulated) -> None:
    names = (f"{NIC}/driver_override", f"{NIC}/../{CARD}/reset_method", "reset_method")
    cells = [Cell("pci", name) for name in names]
    cells += [Cell("dkms", name) for name in ("vendor-reset", "--all/1", "a/b/c")]
    for cell in cells:
        with pytest.raises(Failure) as caught:
            read_cell(host, cell)
        assert caught.value.problem.ref == "cell.unknown"


class Says(Simulated):
    """The simulated host with a DKMS that says what it is told."""

    words = Ran(0)

    def run(self, argv: object, stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        return self.words


SAID: dict[str, str | None] = {
    "": None,
    "vendor-reset/0.1.1: added\n": "added",
    "vendor-reset/0.1.1, 7.0.14-4-pve, x86_64: installed\n": "installed",
    "vendor-reset/0.1.1, 7.0.14-4-pve, x86_64: built\n": "built",
    "vendor-reset, 0.1.1, 7.0.14-4-pve, x86_64: installed\n": "installed",
    "vendor-reset/0.1.1, 6.8.12-1-pve, x86_64: installed\n": "added",
    "vendor-reset/0.1.1, 7.0.14-4-pve, x86_64: installed (WARNING! Diff between built and installed module!)\n": (
        "installed"
    ),
}


def test_what_dkms_says_is_read_for_the_running_kernel(host: Simulated) -> None:
    found = {}
    says = Says(host.world.directory)
    for words in SAID:
        says.words = Ran(0, words)
        found[words] = read_cell(says, MODULE)
    assert found == SAID


def test_a_dkms_that_fails_is_no_answer(tmp_path: Path) -> None:
    host = Says(copy_of("polaris", tmp_path / "host").world.directory)
    host.words = Ran(4, "", "Error! Could not locate dkms.conf file.\n")
    with pytest.raises(Failure) as caught:
        read_cell(host, MODULE)
    assert caught.value.problem.ref == "cell.unreadable"


@pytest.mark.parametrize("before", [None, "added"])
def test_a_module_is_installed_and_taken_back_to_what_it_was(host: Simulated, before: str | None) -> None:
    if before == "added":
        assert host.run(("dkms", "add", "-m", "vendor-reset", "-v", "0.1.1")).ok
    assert read_cell(host, MODULE) == before
    write_cell(host, MODULE, before, "installed")
    assert read_cell(host, MODULE) == "installed"
    write_cell(host, MODULE, "installed", before)
    assert read_cell(host, MODULE) == before


def test_a_build_that_stopped_half_way_is_ours() -> None:
    assert may_be_between(MODULE, "built")
    assert not may_be_between(setting(NIC), "pm")


def test_a_build_that_fails_is_a_failure_with_its_last_words(host: Simulated) -> None:
    host.world.put("/usr/src/vendor-reset-0.1.1/src/amd/amdgpu/atom.c", "#include <asm/unaligned.h>\n")
    with pytest.raises(Failure) as caught:
        write_cell(host, MODULE, None, "installed")
    assert any("Bad return status" in line for line in caught.value.problem.context)


# -- whole runs that stop anywhere -----------------------------------------------------------


def run_with(host: Simulated, effect: int, fault: Fault) -> tuple[bool, str | None, bool]:
    """Begin a choice of method with a fault at one effect, bring the run to an end, and look: (struck, list, rule)."""
    faulty = FaultySimulated(host, {effect: fault}, lambda: None)
    made = resets.plan_method(host, NIC, ("bus",))
    try:
        with contextlib.suppress(Failure):
            app.apply(faulty, made)
    except Killed:
        app.resume(host)
    except PowerCut:
        power_cut(host.world)
        app.after_boot(host)
    ended = change.unfinished(host)
    if ended is not None:
        app.resume(host)
    return bool(faulty.fired), read_cell(host, setting(NIC)), host.world.exists(UDEV_RULES)


@pytest.mark.parametrize("fault", [Fault(POWER_CUT), Fault(KILL, after=True)], ids=str)
def test_a_choice_that_is_interrupted_anywhere_is_made_whole_or_taken_back(tmp_path: Path, fault: Fault) -> None:
    effect, struck = 1, True
    while struck:
        host = copy_of("polaris", tmp_path / f"{effect}")
        struck, methods, ruled = run_with(host, effect, fault)
        assert (methods, ruled) in (("flr bus", False), ("bus", True)), effect
        assert change.unfinished(host) is None
        effect += 4
    assert effect > 10
