"""Machines rebuilt from what people paste, and the causes that one paper against another speaks for."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from pve_passthrough.app.pasted import facts_of, files_beside, tree_in, understood
from pve_passthrough.diagnosis import Material
from pve_passthrough.diagnosis.bridge import judged
from pve_passthrough.diagnosis.files import Paper
from pve_passthrough.model.diagnosis import NO_FAULT, UNKNOWN, Diagnosis, Kind
from pve_passthrough.model.facts import Facts, Loader
from pve_passthrough.model.pci import Address
from tests.shared import needs_shared, realhosts

LISTING = """\
00:00.0 Host bridge [0600]: Intel Corporation 8th Gen Core Processor Host Bridge [8086:3ec2] (rev 07)
\tKernel driver in use: skl_uncore
00:01.0 PCI bridge [0604]: Intel Corporation PCIe Controller (x16) [8086:1901] (rev 07)
\tBus: primary=00, secondary=01, subordinate=01, sec-latency=0
\tKernel driver in use: pcieport
00:02.0 VGA compatible controller [0300]: Intel Corporation UHD Graphics 630 [8086:3e92]
\tKernel driver in use: i915
00:17.0 SATA controller [0106]: Intel Corporation SATA AHCI Controller [8086:a352] (rev 10)
\tKernel driver in use: ahci
00:1b.0 PCI bridge [0604]: Intel Corporation PCI Express Root Port #17 [8086:a340] (rev f0)
\tKernel driver in use: pcieport
00:1f.6 Ethernet controller [0200]: Intel Corporation Ethernet Connection I219-V [8086:15bc] (rev 10)
\tKernel driver in use: e1000e
01:00.0 VGA compatible controller [0300]: NVIDIA Corporation GP104 [GeForce GTX 1070] [10de:1b81] (rev a1)
\tKernel driver in use: vfio-pci
01:00.1 Audio device [0403]: NVIDIA Corporation GP104 High Definition Audio Controller [10de:10f0] (rev a1)
\tKernel driver in use: vfio-pci
02:00.0 Non-Volatile memory controller [0108]: Samsung Electronics Co Ltd SM981 [144d:a808]
\tKernel driver in use: nvme
"""
GUEST = "bios: ovmf\ncores: 4\ncpu: host\nhostpci0: 0000:01:00,pcie=1\nmachine: q35\nmemory: 8192\n"
ALONE = "IOMMU Group 1:\n\t01:00.0 VGA [0300]: NVIDIA [10de:1b81]\n\t01:00.1 Audio device [0403]: NVIDIA [10de:10f0]\n"
CROWDED = f"""{ALONE}\t00:01.0 PCI bridge [0604]: Intel [8086:1901]
\t02:00.0 Non-Volatile memory controller [0108]: S [144d:a808]
"""
GRUB = 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on iommu=pt"\n'
BOOT_WITHOUT = """\
[    0.000000] Linux version 6.8.12-4-pve (build@proxmox) #1 SMP PREEMPT_DYNAMIC
[    0.000000] Command line: BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro quiet
[    0.200000] smpboot: CPU0: Intel(R) Core(TM) i7-8700 CPU @ 3.20GHz (family: 0x6, model: 0x9e, stepping: 0xa)
[    0.300000] pci 0000:00:01.0: [8086:1901] type 01 class 0x060400 PCIe Root Port
[    0.300000] pci 0000:00:01.0: PCI bridge to [bus 01]
[    0.300000] pci 0000:01:00.0: [10de:1b81] type 00 class 0x030000 PCIe Legacy Endpoint
[    1.300000] Run /init as init process
"""


def about(symptom: str, **files: str) -> Diagnosis:
    named = ((name.replace("__", "/").replace("_", "."), text) for name, text in files.items())
    return understood([Material(name, (text.encode(),)) for name, text in named], symptom)


def facts(*papers: Paper) -> Facts:
    found, _ = facts_of(papers)
    assert found is not None
    return found


# -- the machine -------------------------------------------------------------------------------


def test_a_listing_gives_devices_with_their_place_driver_and_name() -> None:
    known = facts(Paper("lspci", Kind.LSPCI, LISTING), Paper("groups", Kind.IOMMU_LISTING, ALONE))
    gpu = known.device(Address(0, 1, 0, 0))
    assert gpu is not None and gpu.parent == Address(0, 0, 1, 0) and gpu.driver == "vfio-pci" and gpu.iommu_group == 1
    assert "GTX 1070" in str(gpu) and known.iommu.on
    disk = known.device(Address(0, 2, 0, 0))
    assert disk is not None and disk.iommu_group is None, "not in the listing of groups: unknown, not without a group"


def test_what_nobody_pasted_is_unknown() -> None:
    known = facts(Paper("lspci", Kind.LSPCI, LISTING))
    assert known.iommu.on is None and known.guests is None and known.boot.loaders is None
    assert known.kernel.cmdline is None and known.files == {} and known.memory_total is None


@pytest.mark.parametrize(
    ("cmdline", "loader"),
    [
        (r"initrd=\EFI\proxmox\6.8.12-4-pve\initrd.img-6.8.12-4-pve root=ZFS=rpool/ROOT/pve-1", Loader.SYSTEMD_BOOT),
        ("BOOT_IMAGE=/boot/vmlinuz-6.8.12-4-pve root=/dev/mapper/pve-root ro", Loader.GRUB),
        ("root=/dev/sda2 ro", None),
    ],
)
def test_the_loader_by_what_it_hands_over(cmdline: str, loader: Loader | None) -> None:
    known = facts(Paper("cmdline", Kind.CMDLINE, cmdline, "/proc/cmdline"), Paper("grub", Kind.GRUB, GRUB))
    assert known.boot.loaders == (None if loader is None else (loader,))


def test_the_loader_by_what_proxmox_boot_tool_says() -> None:
    status = "System currently booted with uefi\n12AB-34CD is configured with: grub (versions: 6.8.12-4-pve)\n"
    known = facts(Paper("status", Kind.PROSE, status, "proxmox-boot-tool status"))
    assert known.boot.loaders == (Loader.GRUB_ESP,) and known.firmware.uefi


def test_a_whole_boot_without_groups_is_an_iommu_that_is_off_and_a_part_of_one_is_nothing() -> None:
    lines = "\n".join(line.partition("] ")[2] for line in BOOT_WITHOUT.splitlines())
    assert facts(Paper("log", Kind.KERNEL_LOG, lines)).iommu.on is False
    assert facts(Paper("log", Kind.KERNEL_LOG, lines.replace("Run /init as init process", ""))).iommu.on is None
    grouped = f"{lines}\npci 0000:01:00.0: Adding to iommu group 1"
    assert facts(Paper("log", Kind.KERNEL_LOG, grouped)).iommu.on is True


def test_versions_out_of_pveversion() -> None:
    text = "proxmox-ve: 8.2.0 (running kernel: 6.8.12-4-pve)\npve-manager: 8.2.7 (running version: 8.2.7/3e0176e6)\n"
    known = facts(Paper("v", Kind.PROSE, text, "pveversion -v"))
    assert known.pve.version == "8.2.7" and known.kernel.release == "6.8.12-4-pve"


@pytest.mark.parametrize(
    ("total", "free"), [("31900", "12000"), ("32665600", "12288000"), ("31Gi", "11Gi"), ("31,1G", "11,7G")]
)
def test_the_memory_that_free_shows(total: str, free: str) -> None:
    head = "               total        used        free      shared  buff/cache   available"
    text = f"{head}\nMem:  {total} 1 2 3 4 {free}\nSwap: 0 0 0"
    known = facts(Paper("free", Kind.PROSE, text))
    assert known.memory_total and known.memory_free and 30 < known.memory_total / (1 << 30) < 32
    assert 10 < known.memory_free / (1 << 30) < 13


def test_a_path_that_leads_elsewhere_is_no_file() -> None:
    hostile = Paper("x", Kind.PROSE, "1\n", "/sys/bus/pci/devices/../../../../etc/passwd")
    assert facts_of([hostile]) == (None, {})


# -- causes -------------------------------------------------------------------------------------

CASES: dict[str, tuple[str, str, dict[str, str]]] = {
    "a disk of the host in the group": (
        "group-shared-host-device", "the guest does not start",
        {"lspci_txt": LISTING, "groups_txt": f"# IOMMU groups\n{CROWDED}", "100_conf": GUEST},
    ),
    "many slots in one group": (
        "group-no-acs", "everything is in one group",
        {"groups_txt": "".join(
            f"IOMMU Group 14 {row}\n"
            for row in ("00:1c.0 PCI bridge [0604]: Intel [8086:a110]",
                        "02:00.0 Ethernet controller [0200]: R [10ec:8168]",
                        "03:00.0 VGA compatible controller [0300]: AMD [1002:699f]",
                        "04:00.0 SATA controller [0106]: ASMedia [1b21:0612]")
        )},
    ),
    "pcie without q35": (
        "bad-vm-config", "the guest does not start",
        {"lspci_txt": LISTING, "100_conf": GUEST.replace("q35", "pc-i440fx-8.1")},
    ),
    "an address without a device": (
        "bdf-renumbered", "no start", {"lspci_txt": LISTING, "100_conf": GUEST.replace("01:00", "03:00")},
    ),
    "an address with a bridge": (
        "bdf-renumbered", "no start", {"lspci_txt": LISTING, "100_conf": GUEST.replace("01:00", "00:1b.0")},
    ),
    "IDs of a card that sits elsewhere": (
        "bdf-renumbered", "the host hangs",
        {"lspci_txt": LISTING, "100_conf": GUEST.replace("01:00", "02:00"),
         "vfio_conf": "options vfio-pci ids=10de:1b81,10de:10f0\n"},
    ),
    "a mapping of an earlier boot": (
        "group-renumbered", "no start",
        {"lspci_txt": LISTING, "groups_txt": ALONE, "100_conf": GUEST.replace("0000:01:00", "mapping=gpu"),
         "pci_cfg": "gpu\n\tmap id=10de:1b81,iommugroup=16,node=pve,path=0000:01:00.0\n"},
    ),
    "a mapping with another card": (
        "bdf-renumbered", "no start",
        {"lspci_txt": LISTING, "groups_txt": ALONE, "100_conf": GUEST.replace("0000:01:00", "mapping=gpu"),
         "pci_cfg": "gpu\n\tmap id=10de:2684,iommugroup=1,node=pve,path=0000:01:00.0\n"},
    ),
    "GRUB's file on a host that systemd-boot starts": (
        "wrong-boot-loader", "no groups",
        {"facts_json": json.dumps({
            "etc_default_grub": GRUB,
            "proc_cmdline": r"initrd=\EFI\proxmox\6.2.16-3-pve\initrd.img-6.2.16-3-pve root=ZFS=rpool/ROOT/pve-1",
        })},
    ),
    "arguments that never reached the kernel": (
        "wrong-boot-loader", "no groups",
        {"grub": GRUB, "cmdline": "BOOT_IMAGE=/boot/vmlinuz-6.8.4-2-pve root=/dev/mapper/pve-root ro quiet\n"},
    ),
    "a comment on the command line": (
        "bad-kernel-arguments", "strange",
        {"cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/mapper/pve-root ro intel_iommu=on # enable iommu for my gpu\n"},
    ),
    "an option that is none": (
        "bad-modprobe", "the driver stays", {"vfio_conf": "option vfio-pci ids=10de:1b81\n", "lspci_txt": LISTING},
    ),
    "a list that a space ends": (
        "bad-modprobe", "half of it",
        {"vfio_conf": "options vfio-pci ids=10de:1b81, 10de:10f0\n", "lspci_txt": LISTING},
    ),
    "a twin that goes along": (
        "identical-ids", "the host loses its picture",
        {"lspci_txt": LISTING.replace("[8086:3e92]", "[10de:1b81]"), "100_conf": GUEST,
         "vfio_conf": "options vfio-pci ids=10de:1b81,10de:10f0\n"},
    ),
    "more memory than there is": (
        "memory-pinning", "no start",
        {"facts_json": json.dumps({"ram_gib": 32, "hostpci0": "0000:01:00,pcie=1", "machine": "q35", "memory": 40960})},
    ),
    "a whole boot without an IOMMU": ("iommu-off", "no start", {"dmesg_txt": BOOT_WITHOUT}),
    "vendor-reset that nothing selects": (
        "vendor-reset-method", "the second start fails",
        {"facts_json": json.dumps(
            {"bdf": "0a:00.0", "gpu": "RX 580 [1002:67df]", "reset_method": "bus", "vendor_reset": "installed"}
        )},
    ),
    "ATS on a chip that does not stand it": (
        "ats-broken", "the host stalls under load",
        {"lspci_txt": "0a:00.0 VGA compatible controller [0300]: AMD Navi 14 [1002:7340] (rev c5)\n"
         "\tCapabilities: [2a0 v1] Access Control Services\n"
         "\tCapabilities: [2b0 v1] Address Translation Service (ATS)\n\t\tATSCtl:\tEnable+, Smallest STU: 00\n"},
    ),
    "a domain of libvirt that names a bridge": (
        "bdf-renumbered", "no start",
        {"lspci_txt": LISTING,
         "vm_xml": "<domain><hostdev mode='subsystem' type='pci'><source><address domain='0x0000' bus='0x00' "
         "slot='0x1b' function='0x0'/></source></hostdev></domain>"},
    ),
    "two devices of one statement": (
        "group-shared-host-device", "no start",
        {"facts_json": json.dumps({"group": 1, "devices": [
            {"bdf": "01:00.0", "class": "0300", "driver": "vfio-pci"},
            {"bdf": "00:17.0", "class": "0106", "driver": "ahci"}]})},
    ),
}  # fmt: skip


@pytest.mark.parametrize(("cause", "symptom", "files"), CASES.values(), ids=CASES.keys())
def test_the_cause_is_named(cause: str, symptom: str, files: dict[str, str]) -> None:
    found = about(symptom, **files)
    assert found.first.cause == cause, [(one.cause, one.score) for one in found.candidates]
    assert found.first.supporting, "a cause without evidence"


@pytest.mark.parametrize(
    ("cause", "files"),
    [
        ("iommu-off", {"groups_txt": ALONE, "lspci_txt": LISTING}),
        ("group-no-acs", {"groups_txt": ALONE, "lspci_txt": LISTING}),
        ("identical-ids", {"groups_txt": ALONE, "lspci_txt": LISTING}),
        ("wrong-boot-loader", {"grub": GRUB, "cmdline": "BOOT_IMAGE=/vmlinuz root=/dev/sda1 intel_iommu=on iommu=pt"}),
    ],
)  # fmt: skip
def test_what_speaks_against_a_cause_is_evidence_too(cause: str, files: dict[str, str]) -> None:
    found = about("no IOMMU groups; the card has the same ids twice; grub was edited; it shares a group", **files)
    known = {one.cause: one for one in found.candidates}
    assert cause not in known or known[cause].contradicting


def test_evidence_names_the_paper_and_its_line() -> None:
    found = about("no start", lspci_txt=LISTING, **{"100_conf": GUEST.replace("q35", "pc")})
    (one,) = (one for one in found.first.supporting if one.sign == "rule:guests.machine")
    assert (one.source, one.line, one.text) == ("100.conf", 5, "machine: pc")


def test_a_paste_of_everything_keeps_the_lines_of_its_parts() -> None:
    config = GUEST.replace("q35", "pc")
    text = f"My guest does not start.\n\nroot@pve:~# qm config 100\n{config}\nroot@pve:~# lspci -nnk\n{LISTING}"
    found = understood([Material("standard input", (text.encode(),))])
    (one,) = (one for one in found.first.supporting if one.sign == "rule:guests.machine")
    assert found.first.cause == "bad-vm-config" and one.line == 8


# -- no false alarm ---------------------------------------------------------------------------------

QUIET: dict[str, dict[str, str]] = {
    "a fine guest and a fine listing": {"lspci_txt": LISTING, "groups_txt": ALONE, "100_conf": GUEST},
    "a crowded group of which nobody complains": {"lspci_txt": LISTING, "groups_txt": CROWDED, "100_conf": GUEST},
    "a boot without an IOMMU of which nobody complains": {"dmesg_txt": BOOT_WITHOUT},
    "a part of a guest's lines": {"lspci_txt": LISTING, "100_conf": "hostpci0: 0000:01:00,pcie=1\nbios: ovmf\n"},
    "a listing of one slot": {"lspci_txt": LISTING.partition("01:00.0")[1] + LISTING.partition("01:00.0")[2],
                              "100_conf": GUEST.replace("01:00", "04:00")},
    "a card that is switched off": {"lspci_txt": f"{LISTING}03:00.0 3D controller [0302]: NVIDIA [10de:0ffb] (rev ff)\n"
                                                 "\t!!! Unknown header type 7f\n"},
}  # fmt: skip


@pytest.mark.parametrize("files", QUIET.values(), ids=QUIET.keys())
def test_where_nobody_complains_an_imperfect_machine_is_not_ill(files: dict[str, str]) -> None:
    found = about("", **files)
    assert found.first.cause in (NO_FAULT, UNKNOWN), found.first


def test_a_fine_machine_stays_unknown_with_a_complaint_too() -> None:
    found = about("strange", lspci_txt=LISTING, groups_txt=ALONE, **{"100_conf": GUEST})
    assert found.first.cause in (NO_FAULT, UNKNOWN), found.first


@settings(max_examples=40, deadline=None)
@given(st.lists(st.sampled_from([*LISTING.splitlines(), *GUEST.splitlines(), *CROWDED.splitlines(), GRUB, "\tmap id=1",
                                 "hostpci0: ,,=", "options vfio-pci ids=", "\x00\x1b[31m", "IOMMU Group 99999999"])),
       st.sampled_from(["paste", "100.conf", "pci.cfg", "grub", "lspci.txt"]))  # fmt: skip
def test_any_mixture_is_read(lines: list[str], name: str) -> None:
    text = "\n".join(lines).encode()
    assert understood([Material(name, (text,))], "it hangs").candidates


TROUBLED = {
    "mldmesg-new-vfio-pci-screen-graphics-artifacts-after-6-1": "a report of trouble after a reset by vfio-pci",
    "vmconf-pve-test-ostype-usb13-error": "made to be refused",
    "vmconf-pve-test-q35-usb13-error": "made to be refused",
}
"""Recorded folders that are no machine that worked, and why."""
WORKED = (
    "boot-",
    "dmesg-",
    "fwattr-",
    "iommu-",
    "lspci-",
    "lsusb-",
    "mlspci-",
    "mldmesg-",
    "sysfs-derived-",
    "vmconf-",
)


@needs_shared
def test_no_alarm_on_recorded_machines_that_worked() -> None:
    alarms = {}
    for folder in sorted((realhosts() / "share").iterdir()):
        if not folder.name.startswith(WORKED) or folder.name in TROUBLED:
            continue
        files = sorted(file for file in folder.glob("*") if file.is_file() and file.name != "source.json")
        found = understood([Material(file.name, (file.read_bytes(),)) for file in files])
        if found.first.cause not in (NO_FAULT, UNKNOWN):
            alarms[folder.name] = (found.first.cause, [one.sign for one in found.first.supporting])
    assert alarms == {}


def test_a_folder_that_holds_a_machines_tree_is_told_from_one_that_does_not(tmp_path: Path) -> None:
    assert tree_in(str(tmp_path)) == ""
    (tmp_path / "fsroot/sys/bus/pci/devices").mkdir(parents=True)
    (tmp_path / "dmesg.txt").write_text("nothing\n")
    assert tree_in(str(tmp_path)) == str(tmp_path / "fsroot")
    assert files_beside(str(tmp_path)) == [str(tmp_path / "dmesg.txt")]


def test_a_known_card_is_a_hint_that_counts_beside_other_evidence_only() -> None:
    card = Paper("lspci", Kind.LSPCI, "03:00.0 VGA compatible controller [0300]: AMD Ellesmere [1002:67df] (rev e7)\n")
    weights = [
        max(point.weight for one in judged(facts(card), True, suspected=suspected) for point in one.points)
        for suspected in (frozenset(), frozenset({"amd-reset-bug"}))
    ]
    assert weights[0] < 0.5 <= weights[1]
