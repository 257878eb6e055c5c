"""Each kind of cell: what it reads, what it writes, what it refuses."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import pytest

from pve_passthrough.change import cells
from pve_passthrough.change.refresh import check_room, run_refresh
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Ran, Room, Unreadable
from pve_passthrough.model.plan import READ_ONLY, WRITABLE, Cell
from tests.hosts.memory import CARD, CONF, PCI_CFG, Memory


@pytest.fixture
def memory() -> Memory:
    return Memory()


def read(host: Memory, cell: str) -> str | None:
    return cells.read_cell(host, Cell.parse(cell))


def write(host: Memory, cell: str, after: str | None) -> str:
    return cells.write_cell(host, Cell.parse(cell), read(host, cell), after)


def test_every_kind_that_a_plan_may_name_is_known() -> None:
    assert set(cells.KINDS) == WRITABLE | READ_ONLY
    assert {name for name, kind in cells.KINDS.items() if kind.write is None} == READ_ONLY


@pytest.mark.parametrize(
    "cell",
    [
        "file:etc/passwd",
        "file:/etc/../etc/passwd",
        "file:/etc/a\nb",
        "sysfs:/etc/passwd",
        "sysfs:/sys/../etc/passwd",
        "driver:01:00.0",
        "driver:../../x",
        "vm:0/cores",
        "vm:100/Cores",
        "vm:100/cores --force",
        "vm:../100/cores",
        "vmstate:--help",
        "unit:--now",
        "unit:a b",
        "mapping:dir/x",
        "mapping:pci/../x",
        "iommu:x",
    ],
)
def test_a_name_of_the_wrong_form_reaches_no_path(memory: Memory, cell: str) -> None:
    with pytest.raises(Failure) as caught:
        read(memory, cell)
    assert caught.value.problem.ref == "cell.unknown"


@pytest.mark.parametrize("cell", ["arg:quiet", f"group:{CARD}", "iommu:"])
def test_what_is_only_read_is_not_written(memory: Memory, cell: str) -> None:
    with pytest.raises(Failure) as caught:
        cells.write_cell(memory, Cell.parse(cell), None, "x")
    assert caught.value.problem.ref == "cell.unknown"


def test_bytes_that_are_no_text_survive(memory: Memory) -> None:
    memory.disk["/etc/default/odd"] = b"caf\xe9\r\n\x00"
    text = read(memory, "file:/etc/default/odd")
    write(memory, "file:/etc/default/other", text)
    assert memory.disk["/etc/default/other"] == b"caf\xe9\r\n\x00"


def test_an_argument_is_the_last_one_of_its_name_or_the_whole_token(memory: Memory) -> None:
    memory.volatile["/proc/cmdline"] = b'root=/dev/sda1 console=tty0 console=ttyS0 vfio-pci.ids=1:2 x="a b" quiet\n'
    assert read(memory, "arg:console") == "console=ttyS0"
    assert read(memory, "arg:quiet") == "quiet"
    assert read(memory, "arg:vfio_pci.ids") == "vfio-pci.ids=1:2"
    assert read(memory, "arg:console=tty0") == "console=tty0"
    assert read(memory, "arg:console=tty1") is None
    assert read(memory, "arg:b") is None


def test_the_iommu_is_on_when_it_has_units(memory: Memory) -> None:
    assert read(memory, "iommu:") == "off"
    memory.volatile["/sys/class/iommu/dmar0"] = b""
    assert read(memory, "iommu:") == "on"


def test_a_device_that_is_gone_is_unreadable_not_unbound(memory: Memory) -> None:
    memory.volatile["driver"] = b""
    assert read(memory, f"driver:{CARD}") == ""
    for cell in ("driver:0000:02:00.0", "group:0000:02:00.0"):
        with pytest.raises(Failure) as caught:
            read(memory, cell)
        assert caught.value.problem.ref == "cell.unreadable"


# -- guests --------------------------------------------------------------------------------------


def test_pending_counts_for_the_next_start(memory: Memory) -> None:
    memory.disk[CONF] = b"cores: 4\nname: lin\nvga: std\n\n[PENDING]\ncores: 8\ndelete: vga\n\n[snap]\nname: old\n"
    assert read(memory, "vm:100/cores") == "8"
    assert read(memory, "vm:100/vga") is None
    assert read(memory, "vm:100/name") == "lin"


def test_options_are_compared_as_proxmox_reads_them() -> None:
    cell = Cell("vm", "100/hostpci0")
    assert cells.same_text(cell, "0000:01:00,pcie=1", "pcie=on,0000:01:00")
    assert not cells.same_text(cell, "0000:01:00,pcie=1", "0000:01:00")
    assert not cells.same_text(cell, None, "")


def test_an_edit_of_another_key_at_the_same_moment_is_not_overwritten(memory: Memory) -> None:
    """The digest refuses the first attempt; the second one builds on the new text."""
    real = memory.run
    calls: list[Sequence[str]] = []

    def racing(argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        calls.append(argv)
        if len(calls) == 1:
            memory.disk[CONF] += b"onboot: 1\n"
        return real(argv, stdin, timeout)

    memory.run = racing  # type: ignore[method-assign]
    write(memory, "vm:100/hostpci0", "0000:01:00")
    assert len(calls) == 2
    assert memory.disk[CONF] == b"bios: ovmf\ncores: 4\nhostpci0: 0000:01:00\nname: lin\nonboot: 1\n"


def test_an_edit_of_the_same_key_at_the_same_moment_wins(memory: Memory) -> None:
    real = memory.run

    def racing(argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        memory.disk[CONF] = memory.disk[CONF].replace(b"cores: 4", b"cores: 6")
        return real(argv, stdin, timeout)

    memory.run = racing  # type: ignore[method-assign]
    with pytest.raises(Failure) as caught:
        write(memory, "vm:100/cores", "8")
    assert "somebody changed it" in caught.value.problem.message
    assert b"cores: 6" in memory.disk[CONF]


def test_a_refusal_carries_the_words_of_proxmox(memory: Memory) -> None:
    memory.run = lambda argv, stdin=b"", timeout=60.0: Ran(255, "", "VM is locked (backup)\n")  # type: ignore[method-assign]
    with pytest.raises(Failure) as caught:
        write(memory, "vm:100/cores", "8")
    assert "VM is locked (backup)" in caught.value.problem.context
    assert "255" in caught.value.problem.message


# -- commands inside writes ------------------------------------------------------------------------


@dataclass
class Scripted(Memory):
    """Answers each program with what `answers` says, in order; remembers what was asked."""

    answers: list[Ran] = field(default_factory=list)
    asked: list[tuple[str, ...]] = field(default_factory=list)

    def __post_init__(self) -> None:
        super().__init__()

    def run(self, argv: Sequence[str], stdin: bytes = b"", timeout: float = 60.0) -> Ran:
        self.asked.append(tuple(argv))
        return self.answers.pop(0)


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        (Ran(0, "enabled\n"), "enabled"),
        (Ran(1, "disabled\n"), "disabled"),
        (Ran(0, "static\n"), "static"),
        (Ran(4, "not-found\n"), "disabled"),
        (Ran(1, "", "Failed to get unit file state for x.service: No such file or directory\n"), "disabled"),
    ],
)
def test_units(answer: Ran, text: str) -> None:
    assert read(Scripted([answer]), "unit:x.service") == text


def test_a_unit_that_nobody_can_tell_about_is_unreadable() -> None:
    with pytest.raises(Failure) as caught:
        read(Scripted([Ran(1, "", "Failed to connect to bus: Permission denied\n")]), "unit:x.service")
    assert caught.value.problem.ref == "cell.unreadable"


@pytest.mark.parametrize(
    ("said", "text"),
    [("stopped", "stopped"), ("running", "running"), ("prelaunch", "running"), ("internal-error", "running")],
)
def test_states_of_guests(said: str, text: str) -> None:
    assert read(Scripted([Ran(0, f"status: {said}\n")]), "vmstate:100") == text


def test_a_guest_that_does_not_exist_has_no_state() -> None:
    said = Ran(2, "", "Configuration file 'nodes/pve/qemu-server/799.conf' does not exist\n")
    with pytest.raises(Failure) as caught:
        read(Scripted([said]), "vmstate:799")
    assert "does not exist" in caught.value.problem.context[0]


def test_a_guest_that_does_not_listen_is_not_killed() -> None:
    host = Scripted([Ran(255, "", "VM quit/powerdown failed - got timeout\n")])
    with pytest.raises(Failure) as caught:
        cells.write_cell(host, Cell("vmstate", "100"), "running", "stopped")
    assert "got timeout" in caught.value.problem.context[-1]
    assert [words[1] for words in host.asked] == ["shutdown"]


# -- mappings ------------------------------------------------------------------------------------


def test_mappings_are_compared_by_meaning_and_keep_the_order_of_their_lines() -> None:
    cell = Cell("mapping", "pci/xx")
    one = "map node=a,path=0000:01:00\nmap node=b,path=0000:02:00\nmdev 1\ndescription d"
    assert cells.same_text(cell, one, "description d\nmap path=0000:01:00,node=a\nmap node=b,path=0000:02:00\nmdev 1\n")
    assert not cells.same_text(
        cell, one, "map node=b,path=0000:02:00\nmap node=a,path=0000:01:00\nmdev 1\ndescription d"
    )


def test_a_mapping_is_made_changed_and_removed_and_others_stay(memory: Memory) -> None:
    text = f"map node=pve,path={CARD},id=10de:2684\ndescription RTX"
    write(memory, "mapping:pci/card", text)
    assert cells.same_text(Cell("mapping", "pci/card"), read(memory, "mapping:pci/card"), text)
    write(memory, "mapping:pci/card", f"map node=pve,path={CARD},id=10de:2684,iommugroup=1")
    assert read(memory, "mapping:pci/card") == f"map id=10de:2684,iommugroup=1,node=pve,path={CARD}"
    write(memory, "mapping:pci/card", None)
    assert read(memory, "mapping:pci/card") is None
    assert memory.disk[PCI_CFG] == b"nic\n\tmap node=pve,path=0000:02:00.0,id=8086:1521\n\n"


def test_the_words_of_a_mapping_change() -> None:
    host = Scripted([Ran(0)])
    host.disk[PCI_CFG] = b"xx\n\tmap node=a,path=0000:01:00,id=1:2\n\tdescription old\n\tmdev 1\n\n"
    write(host, "mapping:pci/xx", "map node=a,path=0000:01:00,id=1:2\nmap node=b,path=0000:02:00,id=1:2\nmdev 1")
    (words,) = host.asked
    assert words[:5] == ("pvesh", "set", "/cluster/mapping/pci/xx", "--map", "node=a,path=0000:01:00,id=1:2")
    assert words[words.index("--delete") : words.index("--delete") + 2] == ("--delete", "description")
    assert len(words[words.index("--digest") + 1]) == 40


# -- refreshes -----------------------------------------------------------------------------------


def test_a_failing_refresh_shows_the_last_lines() -> None:
    host = Scripted([Ran(1, "update-initramfs: Generating …\n", "gzip: stdout: No space left on device\n")])
    with pytest.raises(Failure) as caught:
        run_refresh(host, "initramfs")
    assert caught.value.problem.context == ("$ update-initramfs -u -k all", "gzip: stdout: No space left on device")


def test_a_refresh_whose_program_is_missing_is_a_failure(memory: Memory) -> None:
    with pytest.raises(Failure) as caught:
        run_refresh(memory, "boot-tool")
    assert "not installed" in caught.value.problem.message


def test_room_that_nobody_knows_is_told_and_stops_nobody(memory: Memory) -> None:
    def unknown(path: str) -> Room:
        raise Unreadable(path, "Permission denied")

    memory.room = unknown  # type: ignore[method-assign]
    assert check_room(memory, ("initramfs", "grub")) == ("free space is unknown: /boot: Permission denied",)


def test_the_largest_need_counts(memory: Memory) -> None:
    memory.free = 64 << 20
    assert check_room(memory, ("grub",)) == ()
    with pytest.raises(Failure):
        check_room(memory, ("grub", "initramfs"))


def test_a_missing_host_answer_is_never_a_text(memory: Memory) -> None:
    def broken(path: str) -> bytes:
        raise Unreadable(path, "Input/output error")

    memory.read = broken  # type: ignore[method-assign]
    for cell in ("file:/etc/x", "vm:100/cores", "sysfs:/sys/x", "arg:x", "mapping:pci/xx"):
        with pytest.raises(Failure) as caught:
            read(memory, cell)
        assert caught.value.problem.ref == "cell.unreadable"
