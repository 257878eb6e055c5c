"""Files, folders, archives and pipes: streamed, bounded, and never followed."""

from __future__ import annotations

import bz2
import gzip
import io
import lzma
import os
import tarfile
import zipfile
from collections.abc import Callable
from pathlib import Path

import pytest

from pve_passthrough.app import materials as reading
from pve_passthrough.app.diagnose import ask
from pve_passthrough.app.materials import is_capture, materials
from pve_passthrough.errors import Exit, Failure

LOG = b"[   12.345678] vfio 0000:86:00.0: group 6 is not viable, please ensure all devices are bound\n"


def got(*paths: Path | str) -> tuple[dict[str, bytes], list[str]]:
    doubts: list[str] = []
    return {one.name: b"".join(one.chunks) for one in materials([str(path) for path in paths], doubts)}, doubts


def tarred(members: dict[str, bytes], mode: str = "w:gz") -> bytes:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode=mode) as archive:  # type: ignore[call-overload]
        for name, content in members.items():
            member = tarfile.TarInfo(name)
            member.size = len(content)
            archive.addfile(member, io.BytesIO(content))
    return held.getvalue()


def zipped(members: dict[str, bytes]) -> bytes:
    held = io.BytesIO()
    with zipfile.ZipFile(held, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in members.items():
            archive.writestr(name, content)
    return held.getvalue()


@pytest.mark.parametrize(
    "pack", [bytes, gzip.compress, lzma.compress, bz2.compress, lambda data: gzip.compress(data) * 2]
)
def test_packed_files(tmp_path: Path, pack: Callable[[bytes], bytes]) -> None:
    (tmp_path / "kern.log.2").write_bytes(pack(LOG))
    found, doubts = got(tmp_path / "kern.log.2")
    assert set(found.values()) <= {LOG, LOG * 2} and not doubts


@pytest.mark.parametrize("mode", ["w", "w:gz", "w:xz", "w:bz2"])
def test_archives(tmp_path: Path, mode: str) -> None:
    path = tmp_path / "report"
    path.write_bytes(
        tarred({"a/dmesg": LOG, "empty": b"", "kern.log.2.gz": gzip.compress(LOG), "big": LOG * 9000}, mode)
    )
    found, doubts = got(path)
    assert found == {
        f"{path}: a/dmesg": LOG, f"{path}: empty": b"", f"{path}: kern.log.2": LOG, f"{path}: big": LOG * 9000,
    }  # fmt: skip
    assert not doubts


def test_zip(tmp_path: Path) -> None:
    path = tmp_path / "report.zip"
    path.write_bytes(zipped({"dmesg": LOG, "folder/": b"", "x.gz": gzip.compress(LOG)}))
    found, doubts = got(path)
    assert found == {f"{path}: dmesg": LOG, f"{path}: x": LOG} and not doubts


def test_hostile_members_are_left_alone(tmp_path: Path) -> None:
    held = io.BytesIO()
    with tarfile.open(fileobj=held, mode="w") as archive:
        for name, kind in (
            ("link", tarfile.SYMTYPE),
            ("hard", tarfile.LNKTYPE),
            ("null", tarfile.CHRTYPE),
            ("pipe", tarfile.FIFOTYPE),
        ):
            member = tarfile.TarInfo(name)
            member.type, member.linkname = kind, "/etc/passwd"
            archive.addfile(member)
        member = tarfile.TarInfo("../../etc/cron.d/x")
        member.size = len(LOG)
        archive.addfile(member, io.BytesIO(LOG))
    (tmp_path / "a.tar").write_bytes(held.getvalue())
    before = sorted(tmp_path.parent.rglob("*"))
    found, doubts = got(tmp_path / "a.tar")
    assert list(found.values()) == [LOG] and "4 links or devices" in doubts[0]
    assert sorted(tmp_path.parent.rglob("*")) == before


def test_an_archive_in_an_archive_in_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tarred({"b.tgz": tarred({"c.tgz": tarred({"d": LOG})})}))
    found, doubts = got(tmp_path / "a.tgz")
    assert found == {} and "unpack it" in doubts[0]


@pytest.mark.parametrize("cut", [30, 80, 150])
@pytest.mark.parametrize(
    "pack", [gzip.compress, lzma.compress, lambda data: tarred({"a": data}), lambda data: zipped({"a": data})]
)
def test_torn(tmp_path: Path, pack: Callable[[bytes], bytes], cut: int) -> None:
    whole = pack(os.urandom(5000) + LOG)
    (tmp_path / "torn").write_bytes(whole[: len(whole) * cut // 200])
    found, doubts = got(tmp_path / "torn")
    assert any("torn" in doubt for doubt in doubts) or not found


def test_a_bomb_is_cut(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "UNPACKED", 1 << 20)
    for name, data in (
        ("a.gz", gzip.compress(b"x" * (8 << 20))),
        ("a.tgz", tarred({"x": b"y" * (8 << 20)})),
        ("a.zip", zipped({"x": b"z" * (8 << 20)})),
    ):
        (tmp_path / name).write_bytes(data)
        doubts: list[str] = []
        size = sum(len(chunk) for one in materials([str(tmp_path / name)], doubts) for chunk in one.chunks)
        assert size <= 1 << 20 and "1 MiB" in doubts[0]


def test_what_an_archive_claims_is_not_believed(tmp_path: Path) -> None:
    member = tarfile.TarInfo("x")
    member.type, member.size = tarfile.XHDTYPE, 1 << 40
    (tmp_path / "a.tar").write_bytes(member.tobuf() + b"a" * 4096)
    end = zipped({"a": LOG})
    at = end.rfind(b"PK\x05\x06")
    (tmp_path / "a.zip").write_bytes(end[: at + 12] + b"\xff\xff\xff\x7f" + end[at + 16 :])
    for name in ("a.tar", "a.zip"):
        found, doubts = got(tmp_path / name)
        assert found == {} and len(doubts) == 1


def test_memory_that_an_xz_file_asks_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a.xz").write_bytes(lzma.compress(LOG, preset=6))
    monkeypatch.setattr(reading, "DICTIONARY", 1 << 20)
    found, doubts = got(tmp_path / "a.xz")
    assert b"".join(found.values()) == b"" and doubts


def test_many_members(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reading, "MOST_FILES", 3)
    (tmp_path / "a.tgz").write_bytes(tarred({f"{number}": LOG for number in range(9)}))
    (tmp_path / "a.zip").write_bytes(zipped({f"{number}": LOG for number in range(9)}))
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a.bin", "b.bin", "c.bin", "dmesg.log", "e.bin"):
        (folder / name).write_bytes(LOG)
    for path in (tmp_path / "a.tgz", tmp_path / "a.zip", folder):
        found, doubts = got(path)
        assert len(found) == 3 and "more than 3" in doubts[0]
    assert "dmesg.log" in found


# -- folders, pipes, devices ---------------------------------------------------------------------


def test_a_folder(tmp_path: Path) -> None:
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "dmesg").write_bytes(LOG)
    (tmp_path / "link").symlink_to("/etc/passwd")
    os.mkfifo(tmp_path / "pipe")
    found, doubts = got(tmp_path)
    assert found == {"sub/dmesg": LOG} and not doubts


def test_a_folder_without_a_file(tmp_path: Path) -> None:
    assert got(tmp_path) == ({}, [f"{tmp_path}: no file in it"])


def test_a_pipe_without_a_writer_does_not_wait(tmp_path: Path) -> None:
    os.mkfifo(tmp_path / "pipe")
    found, doubts = got(tmp_path / "pipe")
    assert found == {str(tmp_path / "pipe"): b""} and "nothing came out" in doubts[0]


def test_a_pipe(tmp_path: Path) -> None:
    reader, writer = os.pipe()
    os.write(writer, LOG)
    os.close(writer)
    found, _ = got(f"/dev/fd/{reader}")
    os.close(reader)
    assert list(found.values()) == [LOG]


@pytest.mark.parametrize("path", ["/dev/zero", "/dev/null", "/nowhere/at/all", "a\0b"])
def test_what_cannot_be_read_at_all(path: str) -> None:
    with pytest.raises(Failure) as raised:
        list(materials(["/etc/hostname", path], []))
    assert raised.value.code is Exit.USAGE
    assert raised.value.problem.message.startswith("Nothing was read")


def test_a_file_that_goes_away(tmp_path: Path) -> None:
    for name in ("a", "b"):
        (tmp_path / name).write_bytes(LOG)
    doubts: list[str] = []
    found = materials([str(tmp_path / "a"), str(tmp_path / "b")], doubts)
    first = b"".join(next(iter(found)).chunks)
    (tmp_path / "b").unlink()
    assert first == LOG and list(found) == [] and "No such file" in doubts[0]


def test_reading_that_breaks_off(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "a").write_bytes(LOG)

    def broken(stream: object) -> object:
        yield LOG[:20]
        raise OSError(5, "Input/output error")

    monkeypatch.setattr(reading, "_chunks", broken)
    found, doubts = got(tmp_path / "a")
    assert list(found.values()) == [LOG[:20]] and doubts == [
        f"{tmp_path / 'a'}: could not be read beyond byte 20: Input/output error"
    ]


# -- the whole -----------------------------------------------------------------------------------


def test_an_archive_is_diagnosed_with_its_doubts(tmp_path: Path) -> None:
    whole = tarred({"dmesg": LOG, "image.bin": os.urandom(9000), "kern.log.1": LOG.replace(b"86", b"87")})
    (tmp_path / "report.tgz").write_bytes(whole)
    asked = ask(None, [str(tmp_path / "report.tgz")])
    assert asked.diagnosis.first.cause == "group-shared-host-device"
    assert asked.diagnosis.first.supporting[0].source.endswith("report.tgz: dmesg")
    assert any("image.bin" in doubt for doubt in asked.diagnosis.doubts)


def test_a_capture_is_told_from_an_archive(tmp_path: Path) -> None:
    (tmp_path / "a.tgz").write_bytes(tarred({"README.txt": b"words", "answers.json": b"{}"}))
    (tmp_path / "b.tgz").write_bytes(tarred({"dmesg": LOG}))
    (tmp_path / "c").write_bytes(b"\x1f\x8b\x08 no")
    assert [is_capture(str(tmp_path / name)) for name in ("a.tgz", "b.tgz", "c", "none")] == [True, False, False, False]
    with pytest.raises(Failure, match=r"answers\.json|read"):
        ask(None, [str(tmp_path / "a.tgz")])
