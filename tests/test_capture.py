"""Captures: what goes in comes out, nothing personal goes in, and nothing hostile is believed."""

from __future__ import annotations

import gzip
import io
import json
import tarfile

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough import capture
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Missing, Ran, Refused, Room, Unreadable
from pve_passthrough.host.replay import Answers, NoAnswer, Recorder, Replay

PATHS = st.text(st.characters(codec="utf-8", exclude_characters="\0"), min_size=1, max_size=20).map("/".__add__)
ANSWERS = st.builds(
    Answers,
    reads=st.dictionaries(PATHS, st.binary(max_size=40) | st.builds(NoAnswer, st.booleans(), st.text(max_size=9))),
    names=st.dictionaries(PATHS, st.lists(st.text(max_size=9), max_size=4).map(tuple)),
    links=st.dictionaries(PATHS, st.text(max_size=20)),
    rooms=st.dictionaries(PATHS, st.builds(Room, st.integers(0, 2**60), st.integers(0, 2**60))),
    runs=st.dictionaries(
        st.lists(st.text(max_size=9), min_size=1, max_size=3).map(tuple),
        st.builds(Ran, st.integers(-9, 255), st.text(max_size=20), st.text(max_size=20)),
    ),
)


@given(ANSWERS)
def test_unredacted_answers_survive_the_file(answers: Answers) -> None:
    trimmed = capture.trim_pci_ids(answers)
    assert capture.unpack(capture.pack(answers, redacted=False), "f") == trimmed


@given(ANSWERS)
def test_redaction_never_fails_and_can_be_read_back(answers: Answers) -> None:
    capture.unpack(capture.pack(answers), "f")


def test_the_same_answers_give_the_same_bytes() -> None:
    answers = Answers(reads={"/b": b"2", "/a": b"1"})
    assert capture.pack(answers) == capture.pack(Answers(reads={"/a": b"1", "/b": b"2"}))


SECRETS = {
    "/etc/hostname": "athena.example.org\n",
    "/etc/machine-id": "c0ffee00c0ffee00c0ffee00c0ffee00\n",
    "/etc/pve/nodes/athena/qemu-server/100.conf": (
        "# my bank pin is 4711\nname: payroll-db\ncipassword: hunter2\nciuser: alice\n"
        "sshkeys: ssh-ed25519%20AAAAC3NzaC1lZDI1NTE5AAAAIJfakefakefakefakefakefakefakefake%20alice%40home\n"
        "net0: virtio=BC:24:11:42:A5:3B,bridge=vmbr0\nsmbios1: uuid=1f9bf931-89fc-4249-b91d-df594f0f0a9f\n"
        "scsi0: local-lvm:vm-100-disk-0,serial=WD-WCC4N7,size=32G\nsearchdomain: example.org\n"
        "args: -cpu 'host,kvm=off' -device foo,secret=letmein\nhostpci0: 0000:01:00,pcie=1\n"
    ),
    "/etc/network/interfaces": "iface vmbr0 inet static\n address 10.77.3.9/24\n gateway 10.77.3.1\n",
    "/sys/class/net/eno1/address": "3c:ec:ef:12:34:56\n",
    "/proc/cmdline": "BOOT_IMAGE=/vmlinuz root=UUID=6a1cf9e2-7e54-4d2b-9a5e-0b1c2d3e4f50 ro ip=2003:db:1234::77\n",
    "/etc/kernel/proxmox-boot-uuids": "4B1D-77AF\n",
    "/sys/class/block/sda/device/serial": "S3Z9NB0K\n",
}
LEAKS = (
    "athena", "example.org", "c0ffee00", "4711", "payroll", "hunter2", "alice", "AAAAC3Nza", "BC:24:11", "1f9bf931",
    "WCC4N7", "letmein", "10.77.3", "3c:ec:ef", "6a1cf9e2", "2003:db", "4B1D-77AF", "S3Z9NB0K", "S4EVNX0M",
)  # fmt: skip


def _recorded() -> Answers:
    return Answers(
        reads={path: text.encode() for path, text in SECRETS.items()},
        names={"/etc/pve/nodes": ("athena",)},
        links={"/dev/disk/by-uuid/4B1D-77AF": "../../sda2"},
        runs={
            ("zpool", "status", "-P"): Ran(0, "  /dev/disk/by-id/ata-Samsung_SSD_870_S4EVNX0M123456-part3  ONLINE\n"),
            ("proxmox-boot-tool", "status"): Ran(0, "4B1D-77AF is configured with: grub (versions: 6.8)\n"),
        },
    )


def test_nothing_personal_is_written() -> None:
    text = gzip.decompress(capture.pack(_recorded())).decode("utf-8", "replace")
    assert [leak for leak in LEAKS if leak.lower() in text.lower()] == []


def test_what_the_rules_need_stays() -> None:
    answers = capture.unpack(capture.pack(_recorded()), "f")
    (conf,) = (data for path, data in answers.reads.items() if path.endswith("/100.conf"))
    assert b"hostpci0: 0000:01:00,pcie=1" in conf  # type: ignore[operator]
    assert b"-cpu 'host,kvm=off'" in conf  # type: ignore[operator]


def test_stand_ins_are_consistent() -> None:
    answers = capture.unpack(capture.pack(_recorded()), "f")
    esp = answers.reads["/etc/kernel/proxmox-boot-uuids"]
    assert isinstance(esp, bytes)
    assert f"/dev/disk/by-uuid/{esp.decode().strip()}" in answers.links
    status = answers.runs["proxmox-boot-tool", "status"]
    assert isinstance(status, Ran) and status.stdout.startswith(esp.decode().strip())
    assert "/etc/pve/nodes/node1/qemu-server/100.conf" in answers.reads
    assert answers.names["/etc/pve/nodes"] == ("node1",)


def test_pci_addresses_and_ids_are_not_taken_for_secrets() -> None:
    text = "0000:01:00.0 10de:2684 0x00000000fe000000 0x00000000feffffff 0x0000000000040200 10000:e1:00.0"
    answers = capture.unpack(capture.pack(Answers(reads={"/sys/x": text.encode()})), "f")
    assert answers.reads["/sys/x"] == text.encode()


def test_kernel_names_are_not_taken_for_serials() -> None:
    names = ("iommu_groups", "d3cold_allowed", "SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c")
    answers = capture.unpack(capture.pack(Answers(names={"/sys/d": names})), "f")
    assert answers.names["/sys/d"] == names


def test_the_device_serial_number_capability_is_blanked() -> None:
    space = bytearray(b"\xff" * 512)
    space[0x100:0x10C] = bytes.fromhex("03000100") + b"\x3c\xec\xef\xff\xff\x12\x34\x56"
    answers = capture.unpack(capture.pack(Answers(reads={"/sys/d/config": bytes(space)})), "f")
    assert answers.reads["/sys/d/config"] == bytes(space[:0x104]) + bytes(8) + bytes(space[0x10C:])


# -- hostile files -------------------------------------------------------------------------------


def _archive(*members: tuple[tarfile.TarInfo, bytes]) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz") as archive:
        for member, data in members:
            member.size = len(data) if member.isreg() else 0
            archive.addfile(member, io.BytesIO(data))
    return buffer.getvalue()


def _info(name: str, kind: bytes = tarfile.REGTYPE, target: str = "") -> tarfile.TarInfo:
    member = tarfile.TarInfo(name)
    member.type = kind
    member.linkname = target
    return member


GOOD = json.dumps(capture.to_document(Answers())).encode()


@pytest.mark.parametrize(
    "members",
    [
        [(_info("../../etc/cron.d/x"), b"evil"), (_info("answers.json"), GOOD)],
        [(_info("/etc/passwd"), b"evil"), (_info("answers.json"), GOOD)],
        [(_info("answers.json", tarfile.SYMTYPE, "/etc/shadow"), b"")],
        [(_info("answers.json", tarfile.LNKTYPE, "README.txt"), b"")],
        [(_info("answers.json", tarfile.CHRTYPE), b"")],
        [(_info("answers.json"), GOOD), (_info("answers.json"), GOOD)],
    ],
    ids=["traversal", "absolute", "symlink", "hardlink", "device", "twice"],
)
def test_hostile_archives_are_refused(members: list[tuple[tarfile.TarInfo, bytes]]) -> None:
    with pytest.raises(Failure) as caught:
        capture.unpack(_archive(*members), "evil.tar.gz")
    assert caught.value.problem.ref == "capture.hostile"
    assert "nothing was changed" in caught.value.problem.message


def test_a_member_that_unpacks_without_end_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(capture, "MEMBER_LIMIT", 1 << 20)
    bomb = _archive((_info("answers.json"), b"0" * (5 << 20)))
    assert len(bomb) < 20_000
    with pytest.raises(Failure):
        capture.unpack(bomb, "bomb")
    stream = gzip.compress(b"\0" * (8 << 20))
    with pytest.raises(Failure):
        capture.unpack(stream, "bomb")


@given(st.integers(0, 2000))
def test_every_truncation_is_an_error_not_a_crash(length: int) -> None:
    whole = capture.pack(_recorded())
    with pytest.raises(Failure):
        capture.unpack(whole[: min(length, len(whole) - 9)], "cut")


@given(st.binary(max_size=300))
def test_noise_is_an_error_not_a_crash(noise: bytes) -> None:
    with pytest.raises(Failure):
        capture.unpack(noise, "noise")


@pytest.mark.parametrize(
    "document",
    ["[]", "{}", '{"format": 99}', '{"format": 1, "reads": []}', '{"format": 1, "reads": {"/a": 7}}', "[" * 100_000],
)
def test_wrong_documents_are_refused(document: str) -> None:
    with pytest.raises(Failure):
        capture.unpack(_archive((_info("answers.json"), document.encode())), "odd")


# -- recorder and replay -------------------------------------------------------------------------


def test_a_recorder_keeps_answers_and_refusals_apart() -> None:
    inner = Replay(
        Answers(reads={"/a": b"1", "/b": NoAnswer(True, "gone"), "/c": NoAnswer(False, "denied")}), "capture:x"
    )
    recorder = Recorder(inner)
    assert recorder.read("/a") == b"1"
    with pytest.raises(Missing):
        recorder.read("/b")
    with pytest.raises(Unreadable):
        recorder.read("/c")
    again = Replay(recorder.answers, "capture:y")
    assert again.read("/a") == b"1"
    with pytest.raises(Missing, match="gone"):
        again.read("/b")
    with pytest.raises(Unreadable, match="denied"):
        again.read("/c")
    with pytest.raises(Unreadable, match="not asked"):
        again.read("/never")
    with pytest.raises(Refused):
        again.write("/a", b"2")
