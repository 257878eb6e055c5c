"""Captures: what goes in comes out, nothing personal goes in, and nothing hostile is believed."""

from __future__ import annotations

import gzip
import io
import itertools
import json
import re
import tarfile
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from pve_passthrough import app, capture
from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Missing, Ran, Refused, Room, Unreadable
from pve_passthrough.host.replay import Answers, NoAnswer, Recorder, Replay
from pve_passthrough.host.simulated import SEEDS, Simulated, create
from pve_passthrough.model.usb import UsbDevice

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


MORE_SECRETS = {
    "/etc/hostname": "Zeus\n",
    "/etc/hosts": "127.0.0.1 localhost\n10.20.30.40 zeus.olymp.example zeus\n10.20.30.50 hera.olymp.example\n",
    "/etc/network/interfaces": (
        "# uplink to Mallory's flat\niface vmbr0 inet static\n\taddress 10.20.30.40/24\n\t# knock three times\n"
        "iface vmbr0 inet6 static\n\taddress 2A02:810D:1:2:3:4:5:6/64\n\tgateway 2a02:810d::1\n"
        "\twpa-psk correcthorse\n\twpa-ssid HomeSweet\n"
        "\tpost-up wg set wg0 private-key yAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n"
        "iface enxbc241142a53b inet manual\n"
    ),
    "/etc/pve/corosync.conf": (
        "nodelist {\n node {\n  name: zeus\n  ring0_addr: zeus-ring.olymp.example\n }\n node {\n  name: hermes\n"
        "  ring0_addr: fd00:0:0:0:1:2:3:9\n }\n}\ntotem {\n cluster_name: pantheon\n}\n"
    ),
    "/etc/pve/.members": (
        '{"nodename": "zeus", "cluster": {"name": "pantheon"}, "nodelist": {"hermes": {"ip": "10.20.30.41"}}}'
    ),
    "/etc/pve/user.cfg": (
        "user:ganymede@pam:1:0:Gany:Mede:gany@olymp.example:nectar:\npool:ambrosia:my wine:100:cellar:\n"
    ),
    "/etc/pve/jobs.cfg": (
        "vzdump: backup-1\n\tenabled 1\n\tpool ambrosia\n\tmailto dionysos@olymp.example\n\tcomment grapes\n"
    ),
    "/etc/pve/vzdump.cron": (
        '0 1 * * 6 root vzdump 100 --mailto "dionysos@olymp.example" --mode stop --storage cellar\n'
    ),
    "/etc/pve/storage.cfg": (
        "cifs: cellar\n\tserver nas.olymp.example\n\tshare wine\n\tusername bacchus\n\tpassword grape123\n"
    ),
    "/etc/pve/nodes/zeus/qemu-server/101.conf": (
        "#caf\udce9 with the nymphs\nname: olive.olymp.example\ncicustom: user=cellar:snippets/bacchus.yml\n"
        "scsi0: cellar:vm-101-olive,size=3G\nscsi1: iscsi://bacchus:grape123@10.20.30.60/iqn.2003-01.org.olymp:disk1/0\n"
        "ipconfig0: ip=10.20.30.70/24,gw6=2a02:810d::2\nparent: before-party\n\n[before-party]\nname: olive\n"
    ),
    "/proc/mounts": (
        "nas.olymp.example:/export/wine /mnt/pve/cellar nfs4 rw 0 0\n"
        "//hestia/hearth /mnt/hearth cifs rw,username=bacchus 0 0\n"
    ),
    "/proc/cmdline": (
        "root=/dev/mapper/vg_zeus-root nfsroot=10.20.30.80:/boot rd.luks.token=sesame db_password=opensesame\n"
    ),
    "/proc/net/route": (
        "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\n"
        "vmbr0\t00000000\t011E140A\t0003\t0\t0\t0\t00000000\nvmbr0\t001E140A\t00000000\t0001\t0\t0\t0\t00FFFFFF\n"
    ),
    "/sys/class/dmi/id/chassis_asset_tag": "TAG4711\n",
    "/sys/class/block/dm-0/dm/uuid": "LVM-yWq1mXhE3G8sD0abcdefGHIJKLMNopqrstuvwxyz0123456789ABCDEFghijklmn\n",
    "/etc/misc": (
        "MAC BC241142A53B, BC-24-11-42-A5-3B, http://bacchus:grape123@hestia/x, at 10.20.30.90. mail gany@olymp.example"
    ),
}
MORE_LEAKS = (
    "zeus", "olymp", "hera.", "10.20.30", "mallory", "knock", "810d", "correcthorse", "homesweet", "yAnz5TF",
    "bc241142a53b", "dionysos", "grapes",
    "hermes", "fd00:0", "pantheon", "ganymede", "gany@", "nectar", "ambrosia", "my wine", "cellar",
    "bacchus", "grape123", "nymphs", "olive", "hestia", "hearth", "wine", "before-party", "sesame", "1e140a", "tag4711",
    "bc-24-11", "ywq1mxhe", "2003-01.org", "s3cr3tusb", "ginger", "001E140A",
)  # fmt: skip


def _more() -> Answers:
    return Answers(
        reads={path: text.encode("utf-8", "surrogateescape") for path, text in MORE_SECRETS.items()},
        names={"/etc/pve/nodes": ("zeus", "hermes"), "/sys/class/net": ("enxbc241142a53b", "lo", "vmbr0")},
        runs={
            ("dmesg",): Ran(
                0, "DMAR: IOMMU on\nusb 1-1: SerialNumber: S3CR3TUSB\nginger\nDMAR-IR: Enabled IRQ remapping\n"
            ),
            ("pvesh", "get", "/cluster/status"): Ran(0, '[{"type":"node","name":"hermes","ip":"10.20.30.41"}]'),
        },
    )


def _plain_text(data: bytes) -> str:
    """All texts of a capture, those that are kept as base64 included."""
    answers = capture.unpack(data, "f")
    whole = gzip.decompress(data).decode("utf-8", "replace")
    return whole + "".join(one.decode("latin-1") for one in answers.reads.values() if isinstance(one, bytes))


def test_nothing_personal_is_written_from_odd_places() -> None:
    text = _plain_text(capture.pack(_more())).lower()
    assert [leak for leak in MORE_LEAKS if leak.lower() in text] == []


def test_routes_and_addresses_keep_their_relation() -> None:
    answers = capture.unpack(capture.pack(_more()), "f")

    def read(path: str) -> str:
        data = answers.reads[path]
        assert isinstance(data, bytes)
        return data.decode("utf-8", "surrogateescape")

    address = re.search(r"address (\d\S+)/24", read("/etc/network/interfaces"))
    assert address is not None and f"{address.group(1)} node1.domain1 node1" in read("/etc/hosts")
    rows = [row.split("\t") for row in read("/proc/net/route").splitlines()[1:]]
    assert rows[0][1] == "00000000" and rows[0][7] == "00000000"
    network, mask = (int.from_bytes(bytes.fromhex(rows[1][at]), "little") for at in (1, 7))
    number = int.from_bytes(bytes(map(int, address.group(1).split("."))), "big")
    assert number & mask == network
    assert int.from_bytes(bytes.fromhex(rows[0][2]), "little") & mask == network
    assert "DMAR-IR: Enabled IRQ remapping" in str(answers.runs[("dmesg",)])


def test_technical_words_keep_their_meaning_whatever_a_guest_is_called() -> None:
    answers = Answers(
        reads={
            "/etc/pve/nodes/pve/qemu-server/100.conf": b"name: nouveau\nhostpci0: 0000:01:00\n",
            "/proc/cmdline": b"intel_iommu=on nouveau.modeset=0",
            "/etc/hostname": b"intel_iommu\n",
            "/etc/hosts": b"10.0.0.1 hosts.etc cmdline\n",
            "/var/lib/dpkg/status": b"Package: x\nVersion: 1.2.3.4\n",
        },
        names={"/sys/bus/pci/drivers": ("nouveau",)},
    )
    kept = capture.unpack(capture.pack(answers), "f")
    assert kept.reads["/proc/cmdline"] == answers.reads["/proc/cmdline"]
    assert kept.reads["/var/lib/dpkg/status"] == answers.reads["/var/lib/dpkg/status"]
    assert kept.names == answers.names
    assert "/etc/hosts" in kept.reads and "/proc/cmdline" in kept.reads


def nameless(device: UsbDevice) -> tuple[UsbDevice, int]:
    """Without its serial number and the stable names that end in it; how many of these there are stays."""
    return replace(device, serial=None, paths=None), len(device.paths or ())


@pytest.mark.parametrize("seed", SEEDS)
def test_a_redacted_machine_has_the_same_facts(seed: str, tmp_path: Path) -> None:
    """Up to names and digests: the devices, the boot, who uses what, and every finding."""
    host = create(str(tmp_path / "sim"), seed)
    recorder = Recorder(Simulated(host.world.directory) if isinstance(host, Simulated) else host)
    true = app.look(recorder, deep=True)
    told = app.look(Replay(capture.unpack(capture.pack(recorder.answers), "f"), true.host), deep=True)
    for part in (
        "devices", "iommu", "cpu", "firmware", "modules", "display", "uses_known", "spaces", "memory_total",
    ):  # fmt: skip
        assert getattr(told, part) == getattr(true, part), part
    assert [nameless(one) for one in told.usb] == [nameless(one) for one in true.usb]
    assert [(u.address, u.kind, u.vital) for u in told.uses] == [(u.address, u.kind, u.vital) for u in true.uses]
    assert (told.boot.loaders, len(told.boot.esps)) == (true.boot.loaders, len(true.boot.esps))
    assert told.files.keys() == true.files.keys()
    assert [gap.about for gap in told.gaps] == [gap.about for gap in true.gaps]
    assert [(vm.vmid, vm.hostpci, vm.running, vm.config.keys()) for vm in told.guests or ()] == [
        (vm.vmid, vm.hostpci, vm.running, vm.config.keys()) for vm in true.guests or ()
    ]
    for words, vmid in (((), None), (("gpu:1",), 100)):
        judged = [[(one.rule, one.level) for one in app.judge(facts, words, vmid).findings] for facts in (told, true)]
        assert judged[0] == judged[1]


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


def _with(**parts: object) -> str:
    return json.dumps({**json.loads(GOOD), **parts})


@pytest.mark.parametrize(
    "document",
    [
        _with(rooms={"/": [1, float("inf")]}),
        _with(rooms={"/": [1, float("nan")]}),
        _with(rooms={"/": [1, 2]}).replace("[1, 2]", "[1e999, 1]"),
        _with(rooms={"/": [1, 2]}).replace("[1, 2]", f"[{'9' * 4000}, 1]"),
        _with(rooms={"/": [1, 2]}).replace("[1, 2]", f"[{'9' * 9000}, 1]"),
        _with(rooms={"/": [True, "3"]}),
        _with(rooms={"/": [-1, 3]}),
        _with(reads={"/x": "y"})[:-1] + ', "reads": {"/x": "z"}}',
        _with(reads={"/x": "y"}).replace('"/x": "y"', '"/x": "y", "/x": "z"'),
        _with(reads={"../x": "y"}),
        _with(reads={"/x\0": "y"}),
        _with(reads={"/x": {"base64": ["eA=="]}}),
        _with(reads={"/x": {"none": [], "reason": ""}}),
        _with(names={"/x": "abc"}),
        _with(names={"/x": {"a": 1}}),
        _with(names={"/x": ["\ud800"]}),
        _with(links={"/x": 1}),
        _with(runs=[{"argv": [], "answer": [0, "", ""]}]),
        _with(runs=[{"argv": "zpool", "answer": [0, "", ""]}]),
        _with(runs=[{"argv": ["a"], "answer": [0, "", ""]}] * 2),
        _with(runs=[{"argv": ["a"], "answer": [10**30, "", ""]}]),
        _with(runs=[{"argv": ["a"], "answer": "abc"}]),
        _with(format=True),
        _with(format=1.0),
    ],
    ids=itertools.count(),
)
def test_an_answer_of_a_wrong_form_is_refused(document: str) -> None:
    with pytest.raises(Failure) as caught:
        capture.unpack(_archive((_info("answers.json"), document.encode())), "odd")
    assert caught.value.problem.ref == "capture.unreadable"


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(st.characters(), max_size=5),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.dictionaries(st.sampled_from(["base64", "none", "reason", "argv", "answer", "/x", "x"]), inner, max_size=3)
    ),
    max_leaves=6,
)


@given(st.sampled_from(["format", "reads", "names", "links", "rooms", "runs"]), JSON, st.integers(0, 2))
def test_any_value_at_any_place_is_an_answer_or_a_failure(part: str, value: object, depth: int) -> None:
    placed = {0: value, 1: {"/x": value}, 2: [{"argv": ["a"], "answer": value}]}[depth]
    try:
        answers = capture.unpack(_archive((_info("answers.json"), _with(**{part: placed}).encode())), "odd")
    except Failure:
        return
    assert capture.unpack(capture.pack(answers, redacted=False), "again") == capture.trim_pci_ids(answers)
    capture.pack(answers)


def _special(**headers: str) -> bytes:
    buffer = io.BytesIO()
    with tarfile.open(fileobj=buffer, mode="w:gz", format=tarfile.PAX_FORMAT) as archive:
        member = _info("answers.json")
        member.size, member.pax_headers = len(GOOD), headers
        archive.addfile(member, io.BytesIO(GOOD))
    return buffer.getvalue()


@pytest.mark.parametrize(
    "headers",
    [
        {"size": "99999999999999"},
        {"size": "-5"},
        {"path": "../x"},
        {"GNU.sparse.map": "0,10,99999999999,5", "GNU.sparse.size": "99999999999"},
        {"GNU.sparse.major": "1", "GNU.sparse.minor": "0", "GNU.sparse.realsize": "60000000"},
        {"comment": "1 " * 100_000},
    ],
)
def test_extended_headers_are_refused_unread(headers: dict[str, str]) -> None:
    with pytest.raises(Failure) as caught:
        capture.unpack(_special(**headers), "odd")
    assert caught.value.problem.ref == "capture.hostile"


def test_a_chain_of_long_names_is_refused() -> None:
    link = tarfile.TarInfo("././@LongLink")
    link.type, link.size = tarfile.GNUTYPE_LONGNAME, 512
    block = link.tobuf(tarfile.GNU_FORMAT) + b"answers.json".ljust(512, b"\0")
    with pytest.raises(Failure) as caught:
        capture.unpack(gzip.compress(block * 5000), "odd")
    assert caught.value.problem.ref == "capture.hostile"


@pytest.mark.parametrize(
    "size", [b"\x80" + b"\xff" * 11, b"\xff" * 12, b"zzzzzzzzzzz\0", b"77777777777\0", b"-0000000005\0"]
)
def test_odd_sizes_are_refused(size: bytes) -> None:
    raw = bytearray(gzip.decompress(_archive((_info("answers.json"), GOOD))))
    raw[124:136], raw[148:156] = size, b" " * 8
    raw[148:156] = b"%06o\0 " % sum(raw[:512])
    with pytest.raises(Failure):
        capture.unpack(gzip.compress(bytes(raw)), "odd")


def test_gzip_members_are_joined_and_bounded_together(monkeypatch: pytest.MonkeyPatch) -> None:
    raw = gzip.decompress(_archive((_info("answers.json"), GOOD)))
    assert capture.unpack(gzip.compress(raw[:700]) + gzip.compress(raw[700:]), "f") == Answers()
    with pytest.raises(Failure):
        capture.unpack(gzip.compress(raw) + b"rest", "f")
    monkeypatch.setattr(capture, "MEMBER_LIMIT", 1 << 20)
    with pytest.raises(Failure, match="more than a capture"):
        capture.unpack(gzip.compress(raw) + gzip.compress(b"\0" * (1 << 20)) * 3, "f")


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
