"""A new guest on facts alone: what each profile becomes, what a host must have, and what contradicts itself."""

from __future__ import annotations

from dataclasses import replace

import pytest

from pve_passthrough.errors import Exit, Failure
from pve_passthrough.knowledge.guest_profiles import LINUX, NAMES, NEEDS, PROFILES, WINDOWS
from pve_passthrough.model.facts import Cpu, Facts, Gap, Modules, NumaNode, Pve, Storage
from pve_passthrough.model.pci import Address
from pve_passthrough.model.vm import parse_options
from pve_passthrough.planning.guest_place import ranges
from pve_passthrough.planning.guest_stored import differences
from pve_passthrough.planning.guest_wanted import NewGuest, Wanted
from pve_passthrough.planning.new_guest import command, grow_command, new_guest, with_new_guest
from tests.planning.worlds import GPU, NIC, guest

GIB = 1 << 30
KEY = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIGd1ZXN0LWtleS1mb3ItdGVzdHMtb25seS0wMQ me@desk\n"
LOCAL = Storage("local", "dir", frozenset({"iso", "vztmpl", "backup"}), "/var/lib/vz")
THIN = Storage("local-lvm", "lvmthin", frozenset({"images", "rootdir"}))
ISOS = {"local": ("virtio-win-0.1.271.iso", "virtio-win-0.1.99.iso", "win11.iso")}
HOST = Facts(
    host="test",
    devices=(replace(GPU, numa_node=1), replace(NIC, numa_node=-1)),
    cpu=Cpu("GenuineIntel", "Xeon", 46, frozenset({"vmx", "pdpe1gb"}), 16, True),
    pve=Pve(installed=True, version="9.2.11", node="pve", nodes=("pve", "other"), quorate=True),
    guests=(guest(100), replace(guest(102), node="other")),
    containers={101: "other"},
    storages=(LOCAL, THIN),
    bridges=("vmbr0", "vmbr1"),
    memory_total=64 * GIB,
    memory_free=60 * GIB,
    numa_nodes=(
        NumaNode(0, tuple(range(8)), 32 * GIB),
        NumaNode(1, tuple(range(8, 16)), 32 * GIB),
    ),
)


def made(profile: str = "linux-ai", facts: Facts = HOST, **wanted: object) -> NewGuest:
    return new_guest(facts, profile, Wanted(isos=ISOS, **{"memory": 8192, **wanted}))  # type: ignore[arg-type]


def refused(profile: str = "linux-ai", facts: Facts = HOST, **wanted: object) -> Failure:
    with pytest.raises(Failure) as caught:
        made(profile, facts, **wanted)
    assert caught.value.problem.message.startswith("No guest was made: ")
    return caught.value


# -- profiles ------------------------------------------------------------------------------------


@pytest.mark.parametrize("profile", NAMES)
def test_every_profile_is_a_machine_for_passthrough_with_a_way_in(profile: str) -> None:
    options = made(profile).options
    fixed = {
        "machine": "q35", "bios": "ovmf", "cpu": "host", "balloon": "0", "scsihw": "virtio-scsi-single",
        "agent": "enabled=1", "onboot": "0",
    }  # fmt: skip
    assert fixed.items() <= options.items()
    disk = parse_options(options["scsi0"], "file")
    assert (disk["iothread"], disk["discard"], disk["ssd"]) == ("1", "on", "1")
    assert parse_options(options["efidisk0"], "file")["efitype"] == "4m"
    assert options["vga"] not in ("", "none") and "x-vga" not in str(options) and "hostpci0" not in options
    assert options["boot"].startswith("order=scsi0;")


def test_windows_has_what_its_setup_asks_for_and_sees_its_disk() -> None:
    new = made("windows-gaming", iso="local:iso/win11.iso")
    assert new.options["ostype"] == WINDOWS and new.options["tpmstate0"] == "local-lvm:1,version=v2.0"
    assert new.options["efidisk0"].endswith("pre-enrolled-keys=1")
    assert new.options["ide2"] == "local:iso/win11.iso,media=cdrom"
    assert new.options["ide0"] == "local:iso/virtio-win-0.1.271.iso,media=cdrom"  # 271 is newer than 99
    assert "serial0" not in new.options


@pytest.mark.parametrize("profile", [row.name for row in PROFILES if row.os == LINUX])
def test_linux_has_no_secure_boot_and_says_why_and_a_serial_console(profile: str) -> None:
    new = made(profile)
    assert new.options["ostype"] == LINUX and new.options["efidisk0"].endswith("pre-enrolled-keys=0")
    assert new.options["serial0"] == "socket" and "tpmstate0" not in new.options
    assert any("DKMS" in note for note in new.notes)


def test_secure_boot_and_tpm_follow_the_person() -> None:
    on = made("linux-ai", secure_boot=True, tpm=True)
    assert on.options["efidisk0"].endswith("pre-enrolled-keys=1") and "tpmstate0" in on.options
    off = made("windows-gaming", secure_boot=False)
    assert off.options["efidisk0"].endswith("pre-enrolled-keys=0")
    assert any("setup refuses" in note for note in off.notes)


def test_every_profile_starts_with_what_its_system_needs() -> None:
    for row in PROFILES:
        needs = NEEDS[row.os]
        assert row.memory >= needs.memory and row.cores >= needs.cores and row.disk >= needs.disk


def test_the_next_free_number_is_free_of_guests_and_containers_on_all_nodes() -> None:
    assert made().vmid == 103
    assert made(vmid=500).options["name"] == "linux-ai-500"


def test_fewer_processors_than_the_profile_wants_is_said() -> None:
    small = replace(HOST, cpu=replace(HOST.cpu, count=4))
    new = made(facts=small)
    assert new.options["cores"] == "4" and any("instead of the profile's 8" in note for note in new.notes)


def test_room_that_a_storage_lacks_is_said_and_one_that_is_away_is_refused() -> None:
    assert any("has 10 GiB left" in note for note in made(free={"local-lvm": 10 * GIB}).notes)
    assert not any("left" in note for note in made(free={"local-lvm": 500 * GIB, "local": 0}).notes)
    assert refused(free={"local-lvm": None}).problem.ref == "guest.no-storage"


def test_a_host_without_kvms_module_is_told_so() -> None:
    def said(*loaded: str) -> bool:
        notes = made(facts=replace(HOST, modules=Modules(loaded=frozenset(loaded)))).notes
        return any("kvm_amd" in note for note in notes)

    assert said("vfio") and not said("vfio", "kvm_amd") and not any("kvm_amd" in note for note in made().notes)


def test_memory_that_is_not_free_now_is_said() -> None:
    assert any("are free now" in note for note in made(facts=replace(HOST, memory_free=4 * GIB)).notes)


# -- cloud-init ----------------------------------------------------------------------------------


def test_an_image_is_imported_grown_and_set_up() -> None:
    new = made(cloud_image="/var/lib/vz/noble.img", user="ubuntu", ssh_key="/root/id.pub", ssh_keys=KEY, disk="1T",
               ip="10.0.0.5/24,gw=10.0.0.1")  # fmt: skip
    assert new.options["scsi0"].startswith("local-lvm:0,import-from=/var/lib/vz/noble.img,")
    assert new.options["scsi1"] == "local-lvm:cloudinit" and new.options["ciuser"] == "ubuntu"
    assert new.options["ipconfig0"] == "ip=10.0.0.5/24,gw=10.0.0.1"
    assert new.options["sshkeys"].startswith("ssh-ed25519%20AAAA") and " " not in new.options["sshkeys"]
    assert "ide2" not in new.options
    words = command(new)
    assert words[words.index("--sshkeys") + 1] == "/root/id.pub"
    assert grow_command(new) == ("qm", "disk", "resize", "103", "scsi0", "1024G")


def test_ipv6_and_dhcp() -> None:
    assert made(cloud_init=True).options["ipconfig0"] == "ip=dhcp"
    six = made(cloud_init=True, ip="2001:db8::5/64,gw=2001:db8::1")
    assert six.options["ipconfig0"] == "ip6=2001:db8::5/64,gw6=2001:db8::1"


# -- where processors and memory lie -------------------------------------------------------------


def test_the_guest_is_bound_to_the_devices_node_only_when_asked() -> None:
    noted = made(devices=(GPU.address,))
    assert "affinity" not in noted.options and noted.options["numa"] == "0"
    assert any(f"--numa-of {GPU.address}" in note and "8-15" in note for note in noted.notes)
    bound = made(numa_of=GPU.address, cores=4)
    assert bound.options["affinity"] == "8-15" and bound.options["numa"] == "1"
    assert bound.options["numa0"] == "cpus=0-3,hostnodes=1,memory=8192,policy=bind"


def test_one_node_has_nothing_to_bind() -> None:
    new = made(facts=replace(HOST, numa_nodes=HOST.numa_nodes[:1] if HOST.numa_nodes else ()), numa_of=GPU.address)
    assert "affinity" not in new.options and any("one memory node" in note for note in new.notes)


def test_hugepages_bring_numa_along() -> None:
    options = made(hugepages="1024").options
    assert (options["hugepages"], options["numa"]) == ("1024", "1")


@pytest.mark.parametrize(
    ("cpus", "text"), [((), ""), ((3,), "3"), ((0, 1, 2, 8), "0-2,8"), ((9, 1, 2, 2), "1-2,9")], ids=str
)
def test_ranges(cpus: tuple[int, ...], text: str) -> None:
    assert ranges(cpus) == text


# -- refusals ------------------------------------------------------------------------------------

CONTRADICTIONS = [
    ("windows-gaming", {"cloud_init": True}, "guest.contradiction"),
    ("windows-gaming", {"cloud_image": "/x.img"}, "guest.contradiction"),
    ("windows-gaming", {"bios": "seabios"}, "guest.contradiction"),
    ("linux-ai", {"bios": "seabios", "tpm": True}, "guest.contradiction"),
    ("linux-ai", {"bios": "seabios", "secure_boot": True}, "guest.contradiction"),
    ("linux-ai", {"bios": "coreboot"}, "guest.contradiction"),
    ("linux-ai", {"virtio_iso": "local:iso/win11.iso"}, "guest.contradiction"),
    ("linux-ai", {"cloud_image": "/x.img", "iso": "local:iso/win11.iso"}, "guest.contradiction"),
    ("linux-ai", {"ip": "dhcp"}, "guest.contradiction"),
    ("linux-ai", {"ssh_key": "/root/id.pub", "ssh_keys": KEY}, "guest.contradiction"),
    ("no-such", {}, "guest.profile"),
    ("linux-ai", {"name": "bad_name!"}, "guest.name"),
    ("linux-ai", {"name": "--yes"}, "guest.name"),
    ("linux-ai", {"disk": "0"}, "guest.size"),
    ("linux-ai", {"disk": "-5G"}, "guest.size"),
    ("linux-ai", {"disk": "64GB"}, "guest.size"),
    ("linux-ai", {"disk": "9999T"}, "guest.size"),
    ("linux-ai", {"disk": "64,format=raw"}, "guest.size"),
    ("windows-gaming", {"disk": "32G"}, "guest.size"),
    ("windows-gaming", {"memory": 2048}, "guest.size"),
    ("windows-gaming", {"cores": 1}, "guest.size"),
    ("linux-ai", {"memory": 1}, "guest.size"),
    ("linux-ai", {"hugepages": "4"}, "guest.hugepages"),
    ("linux-ai", {"hugepages": "1024", "memory": 8000}, "guest.hugepages"),
    ("linux-ai", {"vlan": 5000}, "guest.vlan"),
    ("linux-ai", {"iso": "win11.iso"}, "guest.iso"),
    ("linux-ai", {"iso": "local:iso/win11.iso,media=disk"}, "guest.iso"),
    ("linux-ai", {"iso": "local:iso/../../etc/x.iso"}, "guest.iso"),
    ("linux-ai", {"cloud_image": "relative.img"}, "guest.image"),
    ("linux-ai", {"cloud_image": "/x.img,size=1"}, "guest.image"),
    ("linux-ai", {"cloud_image": "local:iso/noble.img"}, "guest.image"),
    ("linux-ai", {"cloud_init": True, "user": "a b"}, "guest.user"),
    ("linux-ai", {"cloud_init": True, "ip": "10.0.0.5"}, "guest.ip"),
    ("linux-ai", {"cloud_init": True, "ip": "10.0.0.500/24"}, "guest.ip"),
    ("linux-ai", {"cloud_init": True, "ip": "10.0.0.5/24,gw=2001:db8::1"}, "guest.ip"),
    ("linux-ai", {"cloud_init": True, "ip": "10.0.0.5/24,gw=x,searchdomain=y"}, "guest.ip"),
    ("linux-ai", {"cloud_init": True, "ssh_key": "/k", "ssh_keys": "hello\n"}, "guest.ssh-key"),
    ("linux-ai", {"cloud_init": True, "ssh_key": "/k", "ssh_keys": ""}, "guest.ssh-key"),
    ("linux-ai", {"cloud_init": True, "ssh_key": "/k", "ssh_keys": "-----BEGIN OPENSSH PRIVATE KEY-----"},
     "guest.ssh-key"),
    ("linux-ai", {"storage": "nowhere"}, "guest.no-storage"),
    ("linux-ai", {"numa_of": Address.parse("0000:7f:00.0")}, "device.unknown"),
]  # fmt: skip


@pytest.mark.parametrize(("profile", "wanted", "ref"), CONTRADICTIONS, ids=lambda value: str(value)[:60])
def test_what_makes_no_sense_is_a_usage_failure(profile: str, wanted: dict[str, object], ref: str) -> None:
    failure = refused(profile, HOST, **wanted)
    assert failure.problem.ref == ref and failure.code is Exit.USAGE


ELSEWHERE = Storage("nas", "nfs", frozenset({"images"}), nodes=frozenset({"other"}))
UNFIT = [
    ({"pve": Pve(installed=False)}, {}, "guest.no-proxmox"),
    ({"pve": replace(HOST.pve, quorate=False)}, {}, "pve.no-quorum"),
    ({"pve": replace(HOST.pve, writable=False)}, {}, "pve.readonly"),
    ({"cpu": Cpu(flags=None, count=4, x86=False)}, {}, "guest.not-x86"),
    ({"cpu": replace(HOST.cpu, flags=frozenset({"fpu"}))}, {}, "guest.no-kvm"),
    ({"cpu": replace(HOST.cpu, flags=frozenset({"svm"}))}, {"hugepages": "1024"}, "guest.hugepages"),
    ({}, {"vmid": 100}, "guest.exists"),
    ({}, {"vmid": 102}, "guest.exists"),
    ({}, {"vmid": 101}, "guest.exists"),
    ({}, {"memory": 64 * 1024}, "guest.memory"),
    ({"memory_total": 6 * GIB}, {}, "guest.memory"),
    ({}, {"cores": 17}, "guest.cores"),
    ({"storages": (LOCAL,)}, {}, "guest.no-storage"),
    ({"storages": (LOCAL, ELSEWHERE)}, {}, "guest.no-storage"),
    ({"storages": (LOCAL, THIN, ELSEWHERE)}, {"storage": "nas"}, "guest.no-storage"),
    ({"storages": (LOCAL, replace(THIN, enabled=False))}, {"storage": "local-lvm"}, "guest.no-storage"),
    ({"storages": (LOCAL, replace(THIN, type="iscsi"))}, {}, "guest.no-storage"),
    ({}, {"storage": "local"}, "guest.no-storage"),
    ({}, {"bridge": "vmbr9"}, "guest.no-bridge"),
    ({"bridges": ()}, {}, "guest.no-bridge"),
    ({}, {"iso": "local:iso/absent.iso"}, "guest.iso"),
    ({}, {"iso": "local-lvm:iso/absent.iso"}, "guest.no-storage"),
    ({}, {"numa_of": NIC.address}, "guest.no-node"),
    ({}, {"numa_of": GPU.address, "cores": 9}, "guest.node-small"),
    ({}, {"numa_of": GPU.address, "memory": 33 * 1024}, "guest.node-small"),
]


@pytest.mark.parametrize(("facts", "wanted", "ref"), UNFIT, ids=range(len(UNFIT)))
def test_a_host_that_cannot_carry_it_is_refused(facts: dict[str, object], wanted: dict[str, object], ref: str) -> None:
    failure = refused(facts=replace(HOST, **facts), **wanted)  # type: ignore[arg-type]
    assert failure.problem.ref == ref and failure.code is Exit.COULD_NOT


def test_windows_without_its_drivers_or_a_place_for_them_is_refused() -> None:
    with pytest.raises(Failure) as caught:
        new_guest(HOST, "windows-gaming", Wanted(isos={"local": ("win11.iso",)}))
    assert caught.value.problem.ref == "guest.no-drivers"
    with pytest.raises(Failure) as caught:
        new_guest(replace(HOST, storages=(THIN,)), "windows-gaming", Wanted())
    assert caught.value.problem.ref == "guest.no-storage"
    without = new_guest(HOST, "windows-gaming", Wanted(virtio_iso="none"))
    assert "ide0" not in without.options and any("neither the disk" in note for note in without.notes)


def test_two_storages_are_a_question() -> None:
    two = replace(HOST, storages=(LOCAL, THIN, replace(THIN, name="fast")))
    failure = refused(facts=two)
    assert failure.problem.ref == "guest.which-storage" and "--storage" in failure.problem.hint
    assert made(facts=two, storage="fast").options["scsi0"].startswith("fast:")


UNKNOWN = [
    ({"pve": replace(HOST.pve, node=None)}, "pve.node"),
    ({"cpu": Cpu()}, "cpu"),
    ({"cpu": replace(HOST.cpu, count=None)}, "cpu"),
    ({"guests": None}, "guests"),
    ({"containers": None}, "containers"),
    ({"storages": None}, "storages"),
    ({"bridges": None}, "bridges"),
    ({"memory_total": None}, "memory"),
]


@pytest.mark.parametrize(("facts", "about"), UNKNOWN, ids=[about for _, about in UNKNOWN])
def test_what_nobody_could_say_is_never_assumed(facts: dict[str, object], about: str) -> None:
    gaps = (Gap(about, "I/O error"),)
    failure = refused(facts=replace(HOST, gaps=gaps, **facts))  # type: ignore[arg-type]
    assert failure.problem.ref == "plan.unknown" and f"{about}: I/O error" in failure.problem.context


def test_an_unknown_memory_node_is_not_guessed() -> None:
    unknown = replace(HOST, devices=(replace(GPU, numa_node=None),))
    assert refused(facts=unknown, numa_of=GPU.address).problem.ref == "plan.unknown"
    assert refused(facts=replace(HOST, numa_nodes=None), numa_of=GPU.address).problem.ref == "plan.unknown"


# -- afterwards ----------------------------------------------------------------------------------


def test_the_facts_as_they_will_be_hold_the_guest() -> None:
    then = with_new_guest(HOST, made())
    found = then.guest(103)
    assert found is not None and found.running is False and found.node == "pve" and found.config["machine"] == "q35"
    assert [one.vmid for one in then.guests or ()] == [100, 102, 103]


def stored(new: NewGuest) -> dict[str, str]:
    """What a node stores for it."""
    return {
        **new.options,
        "machine": "pc-q35-11.0+pve2",
        "scsi0": "local-lvm:vm-103-disk-1,discard=on,iothread=1,size=128G,ssd=1",
        "efidisk0": "local-lvm:vm-103-disk-0,efitype=4m,pre-enrolled-keys=1,size=4M",
        "tpmstate0": "local-lvm:vm-103-disk-2,size=4M,version=v2.0",
        "ide0": new.options["ide0"] + ",size=700M",
        "net0": "virtio=BC:24:11:00:00:01,bridge=vmbr0",
        "meta": "creation-qemu=11.0.0",
    }


def test_what_proxmox_chooses_itself_is_no_difference() -> None:
    new = made("windows-gaming")
    assert differences(new, stored(new)) == ()


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("memory", "512"),
        ("cpu", "kvm64"),
        ("machine", "pc-i440fx-9.0"),
        ("scsi0", "local-lvm:vm-103-disk-1,discard=on,iothread=1,size=64G,ssd=1"),
        ("scsi0", "other:vm-103-disk-1,discard=on,iothread=1,size=128G,ssd=1"),
        ("scsi0", "local-lvm:vm-103-disk-1,size=128G"),
        ("efidisk0", "local-lvm:vm-103-disk-0,efitype=4m,pre-enrolled-keys=0,size=4M"),
        ("net0", "virtio=BC:24:11:00:00:01,bridge=vmbr1"),
        ("net0", "e1000=BC:24:11:00:00:01,bridge=vmbr0"),
        ("ide0", "local:iso/other.iso,media=cdrom"),
        ("boot", "order=net0"),
        ("agent", None),
    ],
    ids=str,
)
def test_what_was_not_wanted_is_named(key: str, value: str | None) -> None:
    new = made("windows-gaming")
    config = {name: text for name, text in {**stored(new), key: value}.items() if text is not None}
    told = differences(new, config)
    assert len(told) == 1 and told[0].startswith(f"{key}: wanted ")
