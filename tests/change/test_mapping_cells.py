"""The cell `mapping`: made, changed and taken away through the cluster's API, and never over somebody else's change."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from pathlib import Path

import pytest

from pve_passthrough.change.cells import read_cell, same_text, write_cell
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Ran
from pve_passthrough.host.simulated import Simulated
from pve_passthrough.model.plan import Cell
from tests.copies import copy_of

CARD, STICK = Cell("mapping", "pci/card"), Cell("mapping", "usb/stick")
LINE = "map id=10de:2684,iommugroup=1,node=pve,path=0000:01:00"
OTHER = "map id=10de:2684,node=second,path=0000:41:00"
PCI_CFG = "/etc/pve/mapping/pci.cfg"


@pytest.fixture
def node(tmp_path: Path) -> Simulated:
    return copy_of("default", tmp_path / "host")


class Meanwhile:
    """A host on which something happens right before the n-th call of pvesh."""

    def __init__(self, host: Simulated, act: Callable[[], None], times: int = 1) -> None:
        self._host, self._act, self._left = host, act, times
        self.calls = 0

    def __getattr__(self, name: str) -> object:
        return getattr(self._host, name)

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        if argv[0] == "pvesh":
            self.calls += 1
            if self._left:
                self._left -= 1
                self._act()
        return self._host.run(argv, stdin, timeout)


def pvesh(host: Simulated, name: str, line: str, verb: str = "create") -> None:
    value = line.removeprefix("map ")
    words = ("/cluster/mapping/pci", "--id", name) if verb == "create" else (f"/cluster/mapping/pci/{name}",)
    assert host.run(("pvesh", verb, *words, "--map", value)).ok


@pytest.mark.parametrize(("cell", "first"), [(CARD, LINE), (STICK, "map id=1a86:7523,node=pve,path=1-3")])
def test_made_changed_and_taken_away(node: Simulated, cell: Cell, first: str) -> None:
    assert read_cell(node, cell) is None
    steps: list[str | None] = [f"{first}\ndescription a b", first, f"{first}\n{first.replace('=pve', '=second')}", None]
    now = None
    for after in steps:
        write_cell(node, cell, now, after)
        assert same_text(cell, read_cell(node, cell), after)
        now = after
    assert node.world.text(f"/etc/pve/mapping/{cell.name.split('/')[0]}.cfg") == ""


def test_other_mappings_of_the_file_stay(node: Simulated) -> None:
    pvesh(node, "theirs", OTHER)
    write_cell(node, CARD, None, LINE)
    write_cell(node, CARD, LINE, f"{LINE}\n{OTHER}")
    write_cell(node, CARD, f"{LINE}\n{OTHER}", None)
    assert read_cell(node, Cell("mapping", "pci/theirs")) == OTHER


def test_somebody_changing_another_mapping_is_waited_out(node: Simulated) -> None:
    write_cell(node, CARD, None, LINE)
    host = Meanwhile(node, lambda: pvesh(node, "theirs", OTHER))
    write_cell(host, CARD, LINE, f"{LINE}\n{OTHER}")  # type: ignore[arg-type]
    assert host.calls == 2
    assert read_cell(node, CARD) == f"{LINE}\n{OTHER}" and read_cell(node, Cell("mapping", "pci/theirs")) == OTHER


def test_somebody_changing_this_mapping_is_not_overwritten(node: Simulated) -> None:
    write_cell(node, CARD, None, LINE)
    host = Meanwhile(node, lambda: pvesh(node, "card", OTHER, "set"))
    with pytest.raises(Failure) as caught:
        write_cell(host, CARD, LINE, f"{LINE}\n{OTHER}")  # type: ignore[arg-type]
    assert "somebody changed it" in caught.value.problem.message
    assert read_cell(node, CARD) == OTHER


def test_somebody_making_it_first_keeps_it(node: Simulated) -> None:
    host = Meanwhile(node, lambda: pvesh(node, "card", OTHER))
    with pytest.raises(Failure) as caught:
        write_cell(host, CARD, None, LINE)  # type: ignore[arg-type]
    assert any("already defined" in line for line in caught.value.problem.context)
    assert read_cell(node, CARD) == OTHER


@pytest.mark.parametrize("after", [None, f"{LINE}\n{OTHER}"])
def test_a_third_text_is_never_touched(node: Simulated, after: str | None) -> None:
    write_cell(node, CARD, None, OTHER)
    with pytest.raises(Failure):
        write_cell(node, CARD, LINE, after)
    assert read_cell(node, CARD) == OTHER


def test_sections_that_only_begin_alike_are_told_apart(node: Simulated) -> None:
    node.world.make_dir("/etc/pve/mapping")
    node.world.put(PCI_CFG, f"card2\n\t{OTHER}\n\n# card\ncard\n\t{LINE}\n\tdescription card2\n\n")
    assert read_cell(node, CARD) == f"{LINE}\ndescription card2"


@pytest.mark.parametrize("name", ["pci/", "pci/../x", "dir/card", "pci/9card", "pci/c", "usb/a b"])
def test_names_that_proxmox_would_not_take(node: Simulated, name: str) -> None:
    with pytest.raises(Failure) as caught:
        read_cell(node, Cell("mapping", name))
    assert caught.value.problem.ref == "cell.unknown"
