"""The probe as a whole: complete on a whole host, never "no" for what a bare tree lacks, and never an exception."""

from __future__ import annotations

import os
import shutil
import tempfile
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pve_passthrough.host.local import Local
from pve_passthrough.host.replay import Recorder, Replay
from pve_passthrough.host.simulated import Simulated, create
from pve_passthrough.model.facts import Facts, Loader, UseKind
from pve_passthrough.model.pci import Address
from pve_passthrough.probe import FAILED, probe

from ..lab_tree import complete, lay_out
from ..shared import lab_captures, needs_shared, realhosts
from .trees import DIRECTORY, Content, Link, Scripted, plant


def failures(facts: Facts) -> list[str]:
    return [f"{gap.about}: {gap.reason}" for gap in facts.gaps if gap.reason.startswith(FAILED)]


def assert_nothing_is_denied(facts: Facts) -> None:
    """A tree that holds none of the sources says "unknown" everywhere, and never "no"."""
    assert failures(facts) == []
    assert (facts.iommu.on, facts.firmware.uefi, facts.firmware.dmar, facts.firmware.secure_boot) == (None,) * 4
    assert (facts.boot.loaders, facts.boot.managed) == (None, None)
    assert (facts.pve.installed, facts.guests, facts.pve.quorate, facts.pve.writable) == (None,) * 4
    assert (facts.modules.loaded, facts.modules.initramfs, facts.modules.initramfs_tool) == (None,) * 3
    assert (facts.display.framebuffer, facts.display.console_owner) == (None, None)
    assert facts.files == {} and facts.spaces == ()
    assert not facts.uses_known & {"disks", "network", "console"}
    about = {gap.about for gap in facts.gaps}
    assert {"iommu.units", "firmware.uefi", "boot.loaders", "pve.installed", "guests", "files"} <= about
    assert {"uses.disks", "uses.network", "modules.loaded", "display.framebuffer"} <= about


# -- nothing, almost nothing, nonsense --------------------------------------------------------


@pytest.mark.parametrize("deep", [False, True])
def test_an_empty_tree(tmp_path: Path, deep: bool) -> None:
    facts = probe(Local(str(tmp_path)), deep=deep)
    assert_nothing_is_denied(facts)
    assert facts.host == f"root:{tmp_path}"
    assert (facts.kernel.cmdline, facts.cpu.vendor, facts.memory_total, facts.display.serial_console) == (None,) * 4


def test_a_host_that_was_never_asked() -> None:
    """Every question of a capture that holds no answers is unreadable."""
    from pve_passthrough.host.replay import Answers

    assert_nothing_is_denied(probe(Replay(Answers(), "capture:empty")))


def test_a_quick_probe_starts_next_to_nothing(tmp_path: Path) -> None:
    host = Scripted(
        plant(tmp_path, {"/etc/hostname": "a\n", "/etc/default/grub": "", "/proc/mounts": "/dev/sda / x rw 0 0\n"})
    )
    probe(host)
    assert host.started == []
    probe(host, deep=True)
    assert ("dmesg",) in host.started


PATHS = (
    "/proc/mounts", "/proc/cmdline", "/proc/cpuinfo", "/proc/meminfo", "/proc/modules", "/proc/fb", "/proc/swaps",
    "/proc/interrupts", "/proc/net/route", "/proc/net/ipv6_route", "/proc/version", "/var/lib/dpkg/status",
    "/etc/hosts", "/etc/hostname", "/etc/kernel/proxmox-boot-uuids", "/etc/network/interfaces", "/etc/default/grub",
    "/etc/pve/.members", "/etc/pve/corosync.conf", "/etc/pve/jobs.cfg", "/etc/pve/vzdump.cron", "/etc/pve/user.cfg",
    "/etc/pve/mapping/pci.cfg", "/etc/pve/ha/resources.cfg", "/etc/pve/nodes/pve/qemu-server/100.conf",
    "/etc/pve/local",
    "/run/qemu-server/100.pid", "/sys/class/iommu/dmar0/intel-iommu/cap", "/sys/firmware/acpi/tables/DMAR",
    "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c", "/sys/class/dmi/id/chassis_type",
    "/sys/class/block/sda", "/sys/class/block/dm-0", "/sys/class/block/dm-0/dm/name",
    "/sys/class/block/dm-0/slaves/sda", "/sys/class/block/sda/holders/dm-0", "/sys/class/net/vmbr0",
    "/sys/class/net/vmbr0/brif/eno1", "/sys/class/net/eno1",
    "/sys/class/graphics/fb0", "/sys/class/graphics/fb0/name", "/sys/class/drm/card0-HDMI-A-1/status",
    "/sys/class/vtconsole/vtcon0/bind", "/sys/class/vtconsole/vtcon0/name", "/sys/bus/pci/devices/0000:01:00.0/class",
    "/sys/bus/usb/devices/1-1/idVendor", "/sys/fs/btrfs/u/devices/sda", "/etc/modprobe.d/a.conf", "/sys/firmware/efi",
)  # fmt: skip

TEXTS = (
    "/dev/sda / ext4 rw 0 0\n/dev/mapper/x /boot btrfs rw 0 0\nrpool/a / zfs rw 0 0\n/dev/\\000 /x x rw 0 0\n",
    "Iface\nvmbr0 00000000 0 0003 0 0 0 00000000\neno1 zz\n..  00000000 0 1 0 0 0 00000000\n",
    "iface ../.. inet static\n address 10.0.0.2/24\niface vmbr0 inet static\n address 10.0.0.3\n",
    "node { name: pve ring0_addr: 10.0.0.3 }",
    "name: x\nhostpci0: mapping=a,,=\nhostpci1: 01:00;02:00.9\nhostpci2: mapping=gpu\n[PENDING]\ndelete: hostpci1\n",
    "gpu\n\tmap node=pve,path=0000:01:00\n\tmap\n\t\n: \nvm: 100\nvzdump: a\n\tall 1\n\texclude x,100\n",
    "Package: pve-manager\nStatus: install ok installed\nVersion: 9\n\nPackage: qemu-server\n",
    "processor\t: 0\naddress sizes\t: 999 bits physical\nflags\n\n",
    "ABCD-1234\n../../../etc\n#\n", "0 simpledrmdrmfb\n", "connected\n", "1\n", "VGA+\n", "0x030000\n", "pve\n", "",
    '{"nodename": "x", "cluster": {"quorate": "maybe"}}', "\0\0\0", "9" * 5000, "console=ttyS0 initrd=x intremap=off",
    "MemTotal: " + "9" * 30 + " kB\n", "0 0 0 0 0 root vzdump 100 --mode\n* * * * * root vzdump --pool p --exclude=",
)  # fmt: skip

contents: st.SearchStrategy[Content] = st.one_of(
    st.sampled_from(TEXTS),
    st.sampled_from(TEXTS).flatmap(lambda text: st.integers(0, len(text)).map(lambda end: text[:end])),
    st.binary(max_size=64),
    st.just(DIRECTORY),
    st.sampled_from(
        ("../../devices/pci0000:00/0000:01:00.0/x/y", "../../devices/virtual/block/dm-0", "/", ".", "../../../../..",
         "/sys/class/block/sda", "../../devices/virtual/nvme-subsystem", "/etc/hosts", "nodes/pve", "fb0", "dm-0")
    ).map(Link),
)  # fmt: skip


@settings(max_examples=80, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(files=st.dictionaries(st.sampled_from(PATHS), contents, max_size=14), said=st.sampled_from(TEXTS))
def test_no_tree_makes_the_probe_fail(files: dict[str, Content], said: str) -> None:
    folder = Path(tempfile.mkdtemp(dir="/dev/shm" if os.path.isdir("/dev/shm") else None))
    try:
        for path, content in files.items():
            try:
                plant(folder, {path: content})
            except OSError:  # a file stands where this one needs a directory
                continue
        status, pools = ("proxmox-boot-tool", "status"), ("zpool", "status", "-P", "-L")
        host = Scripted(folder, {status: said, pools: said, ("dmesg",): said})
        for deep in (False, True):
            facts = probe(host, deep=deep)
            assert failures(facts) == []
            assert len(facts.gaps) < 300
    finally:
        shutil.rmtree(folder)


# -- whole hosts ------------------------------------------------------------------------------

CONSOLE, ROOT, BRIDGE = UseKind.CONSOLE, UseKind.ROOT_DISK, UseKind.MANAGEMENT_NET


@pytest.mark.parametrize(
    ("seed", "loaders", "console", "root", "network"),
    [
        ("default", (Loader.GRUB,), "00:02.0", "02:00.0", "03:00.0"),
        ("intel-zfs", (Loader.SYSTEMD_BOOT,), "00:02.0", "00:17.0", "00:1f.6"),
        ("amd-secureboot", (Loader.GRUB_ESP,), "06:00.0", "04:00.0", "05:00.0"),
        ("mixed", (Loader.GRUB_ESP, Loader.SYSTEMD_BOOT), "00:02.0", "00:17.0", "00:1f.6"),
        ("bios-grub", (Loader.GRUB,), "00:02.0", "00:17.0", "00:1f.6"),
        ("shared-sata", (Loader.SYSTEMD_BOOT,), "00:02.0", "00:17.0", "03:00.0"),
        ("only-display", (Loader.GRUB,), "01:00.0", "02:00.0", "03:00.0"),
    ],
)
def test_simulated_hosts(
    tmp_path: Path, seed: str, loaders: tuple[Loader, ...], console: str, root: str, network: str
) -> None:
    directory = str(tmp_path / seed)
    create(directory, seed)
    facts = probe(Simulated(directory), deep=True)
    assert failures(facts) == []
    assert {gap.about for gap in facts.gaps} <= {"spaces.esp"}
    assert facts.boot.loaders == loaders
    assert facts.display.console_owner == Address.parse(console)
    assert {use.address for use in facts.uses if use.kind is CONSOLE} == {Address.parse(console)}
    assert {use.address for use in facts.uses if use.kind is ROOT} == {Address.parse(root)}
    assert [(use.address, use.vital) for use in facts.uses if use.kind is BRIDGE] == [(Address.parse(network), True)]
    assert facts.uses_known == {"disks", "network", "console", "keyboard"}
    assert facts.iommu.on and facts.iommu.interrupt_remapping
    assert facts.pve.installed and facts.pve.node == "pve" and facts.pve.quorate
    assert [guest.vmid for guest in facts.guests or ()] == [100]
    assert facts.modules.loaded and facts.modules.initramfs and facts.modules.initramfs_tool == "initramfs-tools"
    assert facts.files["/etc/default/grub"] and facts.files["/etc/modprobe.d/pve-passthrough.conf"] is None
    assert facts.memory_total and facts.cpu.vendor and facts.kernel.boot_id


def test_a_replay_gives_the_same_facts(tmp_path: Path) -> None:
    directory = str(tmp_path / "sim")
    create(directory, "intel-zfs")
    recorder = Recorder(Simulated(directory))
    first = probe(recorder, deep=True)
    again = probe(Replay(recorder.answers, first.host), deep=True)
    assert again == first


def test_iommu_off_is_no_group_and_not_unknown(tmp_path: Path) -> None:
    directory = str(tmp_path / "sim")
    create(directory, "intel-6.5-grub")
    facts = probe(Simulated(directory))
    assert facts.iommu.on is False and facts.firmware.dmar is True


# -- recordings of real machines --------------------------------------------------------------


@needs_shared
def test_trees_of_real_machines() -> None:
    trees = sorted((realhosts() / "share").glob("sysfs-*/fsroot"))
    assert len(trees) == 64
    for tree in trees:
        facts = probe(Local(str(tree)))
        assert failures(facts) == [], tree
        assert facts.devices, tree
        assert facts.pve.installed is None and facts.boot.loaders is None and facts.guests is None, tree
        assert facts.iommu.on is None and facts.firmware.uefi is None and facts.files.get("/etc/default/grub") is None
        assert not facts.uses_known & {"disks", "network"}, tree
        assert (facts.kernel.cmdline is None) is not (tree / "proc/cmdline").exists(), tree
        assert (facts.cpu.count is None) is not (tree / "proc/cpuinfo").exists(), tree


@needs_shared
def test_lab_machines(tmp_path: Path) -> None:
    """Interrupt remapping as the kernel's log says, with and without the live interrupt table."""
    seen = set()
    captures = [capture for capture in sorted((lab_captures() / "captures").iterdir()) if complete(capture)]
    assert len(captures) == 13
    for capture in captures:
        root = lay_out(capture, tmp_path)
        log = (capture / "dmesg.txt").read_text()
        remapped = "Enabled IRQ remapping" in log or "AMD-Vi: Interrupt remapping enabled" in log
        facts = probe(Local(str(root)))
        assert failures(facts) == []
        assert facts.iommu.interrupt_remapping is remapped, capture.name
        (root / "proc/interrupts").unlink()
        promised = probe(Local(str(root))).iommu.interrupt_remapping
        assert promised in (remapped, None), capture.name
        assert facts.iommu.on is ("->" in (capture / "class-iommu.txt").read_text()), capture.name
        assert facts.firmware.uefi is ((capture / "firmware.txt").read_text().strip() == "uefi")
        assert facts.kernel.cmdline == (capture / "cmdline.txt").read_text().rstrip("\n")
        seen.add((remapped, facts.iommu.on))
    assert seen == {(True, True), (False, True), (False, False), (True, False)}


@needs_shared
def test_boot_files_of_real_machines(tmp_path: Path) -> None:
    """Each set of boot files under the names that it came from: read back unchanged, whatever stands in it."""
    count = 0
    for case in sorted((realhosts() / "share").glob("boot-*")):
        files: dict[str, Content] = {"/etc/hostname": "pve\n"}
        for file in case.iterdir():
            if file.name.startswith("etc__"):
                files["/" + file.name.replace("__", "/")] = file.read_bytes()
        facts = probe(Local(str(plant(tmp_path / case.name, files))))
        assert failures(facts) == [], case
        for path, content in files.items():
            if path == "/etc/default/grub" or (path.startswith("/etc/modprobe.d/") and path.endswith(".conf")):
                assert isinstance(content, bytes)
                assert (facts.files[path] or "").encode("utf-8", "surrogateescape") == content
                count += 1
        assert facts.boot.loaders == ((Loader.GRUB,) if "/etc/default/grub" in files else None)
    assert count > 40
