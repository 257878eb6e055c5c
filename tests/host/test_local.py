"""Local: links stay inside the tree, writing is whole or not at all, and "not there" is not "could not say"."""

from __future__ import annotations

import os
import stat
import subprocess
import time
from pathlib import Path

import pytest

from pve_passthrough.host import local
from pve_passthrough.host.base import Busy, Missing, Refused, Unreadable
from pve_passthrough.host.local import READ_LIMIT, Local, replace_file, run_program


@pytest.fixture
def tree(tmp_path: Path) -> Path:
    root = tmp_path / "root"
    (root / "sys/devices/a").mkdir(parents=True)
    (root / "sys/bus").mkdir()
    (root / "sys/devices/a/vendor").write_text("0x10de\n")
    (root / "sys/bus/link").symlink_to("../devices/a")
    (root / "sys/bus/absolute").symlink_to("/sys/devices/a/vendor")
    (root / "sys/bus/escape").symlink_to("../../../../../../../../../../etc/passwd")
    (root / "sys/bus/outside").symlink_to("/etc/passwd")
    (root / "sys/bus/loop").symlink_to("loop")
    return root


def test_reads_through_links_inside_the_tree(tree: Path) -> None:
    host = Local(str(tree))
    assert host.read("/sys/bus/link/vendor") == b"0x10de\n"
    assert host.read("/sys/bus/absolute") == b"0x10de\n"
    assert host.link("/sys/bus/link") == "../devices/a"
    assert host.names("/sys/bus/link") == ("vendor",)


@pytest.mark.parametrize("name", ["escape", "outside"])
def test_no_link_leads_out_of_the_tree(tree: Path, name: str) -> None:
    with pytest.raises(Missing):
        Local(str(tree)).read(f"/sys/bus/{name}")


def test_parent_directories_end_at_the_root(tree: Path) -> None:
    (tree / "etc").mkdir()
    (tree / "etc/passwd").write_text("ours")
    assert Local(str(tree)).read("/sys/bus/escape") == b"ours"


def test_missing_and_unreadable_are_two_answers(tree: Path) -> None:
    host = Local(str(tree))
    with pytest.raises(Missing):
        host.read("/sys/nothing")
    with pytest.raises(Missing):
        host.read("/sys/devices/a/vendor/below")
    with pytest.raises(Unreadable):
        host.read("/sys/bus/loop")
    with pytest.raises(Unreadable):
        host.read("/sys/devices")


def test_too_long_a_file_is_unreadable(tmp_path: Path) -> None:
    with open(tmp_path / "long", "wb") as stream:
        stream.truncate(READ_LIMIT + 1)
    with pytest.raises(Unreadable, match="longer"):
        Local(str(tmp_path)).read("/long")


def test_a_tree_is_never_changed_and_starts_no_program(tree: Path) -> None:
    host = Local(str(tree))
    with pytest.raises(Refused):
        host.write("/sys/bus/new", b"x")
    with pytest.raises(Refused):
        host.append("/log", b"x")
    with pytest.raises(Unreadable):
        host.run(["true"])
    assert not (tree / "log").exists()


def test_replacing_keeps_mode_and_follows_the_link(tmp_path: Path) -> None:
    real = tmp_path / "modules"
    real.write_text("old")
    real.chmod(0o640)
    (tmp_path / "modules.conf").symlink_to("modules")
    replace_file(str(tmp_path / "modules.conf"), b"new", None)
    assert real.read_text() == "new"
    assert real.stat().st_mode & 0o7777 == 0o640
    assert (tmp_path / "modules.conf").is_symlink()


def test_a_new_file_is_readable_and_a_script_executable(tmp_path: Path) -> None:
    replace_file(str(tmp_path / "plain"), b"x", None)
    replace_file(str(tmp_path / "script"), b"x", 0o755)
    assert (tmp_path / "plain").stat().st_mode & 0o777 == 0o644
    assert (tmp_path / "script").stat().st_mode & 0o777 == 0o755


def test_a_failed_write_leaves_the_old_file_and_no_rest(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    target = tmp_path / "grub"
    target.write_text("old")

    def full(handle: int, data: bytes) -> int:
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(os, "write", full)
    with pytest.raises(OSError, match="No space"):
        replace_file(str(target), b"new", None)
    monkeypatch.undo()
    assert target.read_text() == "old"
    assert os.listdir(tmp_path) == ["grub"]


def test_a_second_lock_is_busy(tmp_path: Path) -> None:
    host = Local()
    path = str(tmp_path / "lock")
    with host.lock(path), pytest.raises(Busy), host.lock(path):
        pytest.fail("two held the lock")
    with host.lock(path):
        pass


def test_programs_answer_in_plain_english_or_not_at_all() -> None:
    assert run_program(["sh", "-c", "echo $LC_ALL; exit 3"], b"", 10).stdout == "C\n"
    assert run_program(["sh", "-c", "exit 3"], b"", 10).rc == 3
    assert run_program(["cat"], b"in", 10).stdout == "in"
    with pytest.raises(Missing):
        run_program(["/no/such/program"], b"", 10)
    with pytest.raises(Unreadable, match="no answer"):
        run_program(["sleep", "5"], b"", 0.05)


def test_a_program_that_not_even_a_kill_ends_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    """As a process in uninterruptible sleep does: the time-out holds, and nobody waits for it."""
    held: list[subprocess.Popen[bytes]] = []
    monkeypatch.setattr(local, "KILL_SECONDS", 0.05)
    with monkeypatch.context() as deaf:
        deaf.setattr(subprocess.Popen, "kill", lambda process: held.append(process))  # noqa: PLW0108 - a list.append binds no self
        begun = time.monotonic()
        with pytest.raises(Unreadable, match="no answer"):
            run_program(["sleep", "5"], b"", 0.05)
        assert time.monotonic() - begun < 3.0
    for process in held:
        process.kill()
        process.wait()
    assert held


def test_a_new_directory_is_durable_in_its_parent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    synced: list[str] = []
    monkeypatch.setattr(local, "_sync_directory", synced.append)
    Local().make_dir(str(tmp_path / "new"))
    Local().make_dir(str(tmp_path / "new"))
    assert (tmp_path / "new").is_dir() and synced == [str(tmp_path)]


# -- a hostile or breaking tree --------------------------------------------------------------


def test_a_short_read_is_not_the_end_of_a_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """/proc hands out whole lines, less than a page at a time, and ends with an empty read."""
    text = b"".join(b"module_%d 16384 0 - Live 0x0\n" % number for number in range(400))
    (tmp_path / "modules").write_bytes(text)
    whole = os.read

    def seq_file(handle: int, size: int) -> bytes:
        chunk = whole(handle, min(size, 4096))
        kept = chunk.rfind(b"\n") + 1
        os.lseek(handle, kept - len(chunk), os.SEEK_CUR)
        return chunk[:kept]

    monkeypatch.setattr(os, "read", seq_file)
    assert Local().read(str(tmp_path / "modules")) == text
    assert Local(str(tmp_path)).read("/modules") == text


def test_a_fifo_neither_hangs_nor_says_empty(tree: Path) -> None:
    os.mkfifo(tree / "fifo")
    (tree / "to-fifo").symlink_to("fifo")
    for path in ("/fifo", "/to-fifo"):
        with pytest.raises(Unreadable, match="FIFO"):
            Local(str(tree)).read(path)
        with pytest.raises(Unreadable, match="FIFO"):
            Local(str(tree)).head(path, 4)
    with pytest.raises(Unreadable, match="plain"):
        Local().read(str(tree / "fifo"))


def test_a_device_node_in_a_tree_is_not_opened(tree: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tree / "node").write_text("of this machine")
    true_stat = os.lstat

    def as_device(path: str) -> os.stat_result:
        found = true_stat(path)
        return os.stat_result((stat.S_IFCHR | 0o666, *found[1:])) if path.endswith("/node") else found

    opened: list[str] = []
    monkeypatch.setattr(os, "lstat", as_device)
    monkeypatch.setattr(os, "open", lambda path, *_: opened.append(path))
    with pytest.raises(Unreadable, match="device node"):
        Local(str(tree)).read("/node")
    assert opened == []


def test_the_last_component_does_not_lead_out_either(tree: Path) -> None:
    (tree.parent / "secret").write_text("x")
    host = Local(str(tree))
    assert "secret" not in host.names("/..")
    assert host.names("/..") == host.names("/") == host.names("/sys/bus/../..")
    assert host.names("/sys/bus/..") == host.names("/sys")


def test_names_that_no_file_can_have(tree: Path) -> None:
    host = Local(str(tree))
    for path in ("/sys/a\0b", "/sys/\ud800"):
        for ask in (host.read, host.names, host.link, lambda path: host.head(path, 1)):
            with pytest.raises(Unreadable):
                ask(path)
    with pytest.raises(Unreadable):
        run_program(["true", "a\0b"], b"", 10)


def test_odd_names_are_listed_and_can_be_asked_for(tmp_path: Path) -> None:
    for name in (b"line\nfeed", b"\xff\xfe", b"\x1b[31m"):
        (tmp_path / os.fsdecode(name)).write_bytes(name)
    host = Local(str(tmp_path))
    assert {host.read(f"/{name}") for name in host.names("/")} == {b"line\nfeed", b"\xff\xfe", b"\x1b[31m"}


def test_a_directory_without_end_is_unreadable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "NAMES_LIMIT", 10)
    for number in range(11):
        (tmp_path / str(number)).touch()
    with pytest.raises(Unreadable, match="more than 10"):
        Local(str(tmp_path)).names("/")
    (tmp_path / "0").unlink()
    assert len(Local(str(tmp_path)).names("/")) == 10


def test_a_path_that_vanishes_is_missing(tree: Path) -> None:
    host = Local(str(tree))
    assert host.read("/sys/devices/a/vendor")
    (tree / "sys/devices/a/vendor").unlink()
    (tree / "sys/devices/a").rmdir()
    for ask in (host.read, host.names, host.link):
        with pytest.raises(Missing):
            ask("/sys/devices/a/vendor")
