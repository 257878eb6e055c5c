"""The laws of motion, one by one: what a refresh, a boot and modprobe do to a simulated machine."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from pve_passthrough.errors import Failure
from pve_passthrough.host.base import Missing, Refused, Unreadable
from pve_passthrough.host.simulated import SEEDS, Simulated, create, finish_boot, power_cut, power_on
from pve_passthrough.host.simulated.boot import iommu_on

GPU, AUDIO = "0000:01:00.0", "0000:01:00.1"
OURS = "/etc/modprobe.d/ours.conf"
SCRIPT = "/etc/initramfs-tools/scripts/init-top/pve-passthrough"


@pytest.fixture(scope="module")
def scratch() -> Iterator[Path]:
    """A folder in memory where there is one: a machine is a thousand small files."""
    with tempfile.TemporaryDirectory(dir="/dev/shm" if os.access("/dev/shm", os.W_OK) else None) as folder:
        yield Path(folder)


@pytest.fixture(scope="module")
def originals(scratch: Path) -> dict[str, Path]:
    """Each built-in machine, made once."""
    for name in SEEDS:
        create(str(scratch / name), name)
    return {name: scratch / name for name in SEEDS}


@pytest.fixture
def machine(originals: dict[str, Path], scratch: Path, request: pytest.FixtureRequest) -> Iterator[Simulated]:
    """A fresh copy of one machine, `default` unless the test says otherwise."""
    name = getattr(request, "param", "default")
    with tempfile.TemporaryDirectory(dir=scratch) as folder:
        # the simulation replaces files and never writes into them, so copies may share what they do not change
        shutil.copytree(originals[name], f"{folder}/{name}", symlinks=True, copy_function=os.link)
        yield Simulated(f"{folder}/{name}")


def on(name: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("machine", [name], indirect=True)


def cmdline(host: Simulated) -> list[str]:
    return host.read("/proc/cmdline").decode().split()


def rebuild(host: Simulated) -> None:
    done = host.run(["update-initramfs", "-u", "-k", "all"])
    assert done.ok, done.stderr


def configure(host: Simulated, modprobe: str, load: str = "", refresh: bool = True) -> None:
    host.write(OURS, modprobe.encode())
    if load:
        host.write("/etc/modules-load.d/ours.conf", load.encode())
    if refresh:
        rebuild(host)
    power_on(host.world)


def drivers(host: Simulated, *addresses: str) -> list[str | None]:
    return [host.world.driver_of(address) for address in addresses]


# -- seeds -----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", SEEDS)
def test_seed_holds_together(originals: dict[str, Path], name: str) -> None:
    host = Simulated(str(originals[name]))
    world, spec = host.world, host.world.machine()
    assert not world.state().get("down")
    assert spec["root_devices"], "the root's controller is known"
    for address in world.addresses():
        natural = spec["natural"].get(address, {}).get("driver")
        assert world.driver_of(address) == natural
        assert len(host.read(f"/sys/bus/pci/devices/{address}/config")) in (256, 4096)
        # A virtual function's own vendor register reads FFFF (SR-IOV specification 1.1, 3.4.1.1).
        virtual = world.exists(f"/sys/bus/pci/devices/{address}/physfn")
        number = 0xFFFF if virtual else int(host.read(f"/sys/bus/pci/devices/{address}/vendor"), 16)
        assert host.read(f"/sys/bus/pci/devices/{address}/config")[:2] == number.to_bytes(2, "little")
    for links in spec["classes"].values():
        for path in (path for by_driver in links.values() for path in by_driver):
            assert world.tree.real(path) != f"{world.directory}{path}", path
            assert Path(world.tree.real(path)).exists(), f"{path} leads nowhere"


@pytest.mark.parametrize("name", SEEDS)
def test_seed_is_on_and_groups_match_their_directories(originals: dict[str, Path], name: str) -> None:
    host = Simulated(str(originals[name]))
    expected = name != "intel-6.5-grub"
    assert bool(host.names("/sys/class/iommu")) is expected
    for address in host.world.addresses():
        group = host.world.group_of(address)
        assert (group is not None) is expected
        if group is not None:
            assert address in host.names(f"/sys/kernel/iommu_groups/{group}/devices")


def test_what_the_seeds_are_named_after(originals: dict[str, Path]) -> None:
    twins = Simulated(str(originals["twins"])).world
    assert twins.id_of("0000:01:00.0") == twins.id_of("0000:04:00.0")
    assert twins.group_of("0000:01:00.0") != twins.group_of("0000:04:00.0")
    shared = Simulated(str(originals["shared-sata"])).world
    assert shared.group_of("0000:00:17.0") == shared.group_of(GPU)
    assert shared.machine()["root_devices"] == ["0000:00:17.0"]
    only = Simulated(str(originals["only-display"]))
    assert only.read("/proc/fb") == b"0 nouveaudrmfb\n"
    bios = Simulated(str(originals["bios-grub"]))
    assert "efi" not in bios.names("/sys/firmware")
    secure = Simulated(str(originals["amd-secureboot"]))
    variable = "/sys/firmware/efi/efivars/SecureBoot-8be4df61-93ca-11d2-aa0d-00e098032b8c"
    assert secure.read(variable) == b"\x06\x00\x00\x00\x01"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("intel-zfs", ["uefi"]),
        ("amd-secureboot", ["grub"]),
        ("mixed", ["grub", "uefi"]),
        ("default", []),
    ],
)
def test_boot_tool_status(originals: dict[str, Path], name: str, words: list[str]) -> None:
    done = Simulated(str(originals[name])).run(["proxmox-boot-tool", "status"])
    found = sorted(
        {row.split("configured with: ")[1].split(" (")[0] for row in done.stdout.splitlines() if " with: " in row}
    )
    assert found == words
    assert done.rc == (0 if words else 2)


def test_create_refuses_what_is_not_empty(tmp_path: Path) -> None:
    (tmp_path / "mine").write_text("kept")
    with pytest.raises(Failure) as caught:
        create(str(tmp_path), "default")
    assert caught.value.problem.ref == "sim.not-empty"
    assert [path.name for path in tmp_path.iterdir()] == ["mine"]
    with pytest.raises(Failure, match="no built-in machine"):
        create(str(tmp_path / "new"), "nonsense")
    assert not (tmp_path / "new").exists()


# -- the host --------------------------------------------------------------------------------


def test_simulation_is_hidden_and_links_do_not_reveal_it(machine: Simulated) -> None:
    assert "sim" not in machine.names("/")
    machine.world.put_link("/root/door", "../sim/machine.json")
    for path in ("/sim/machine.json", "/etc/../sim/machine.json", "/root/door"):
        with pytest.raises(Missing):
            machine.read(path)
    with pytest.raises(Missing):
        machine.write("/sim/state.json", b"{}")


def test_attributes_answer_as_the_kernel(machine: Simulated) -> None:
    with pytest.raises(Unreadable, match="No such device"):
        machine.write("/sys/bus/pci/drivers/nouveau/bind", b"0000:ff:00.0")
    machine.write(f"/sys/bus/pci/devices/{GPU}/driver_override", b"vfio-pci\n")
    machine.write("/sys/bus/pci/drivers/nouveau/unbind", GPU.encode())
    assert machine.run(["modprobe", "vfio-pci"]).ok
    assert drivers(machine, GPU, AUDIO) == ["vfio-pci", "snd_hda_intel"]
    assert "vfio_iommu_type1" in machine.read("/proc/modules").decode()
    power_on(machine.world)
    assert machine.read(f"/sys/bus/pci/devices/{GPU}/driver_override") == b"(null)\n"
    assert drivers(machine, GPU) == ["nouveau"]


def test_class_devices_leave_with_their_driver(machine: Simulated) -> None:
    assert "nic0" in machine.names("/sys/class/net/vmbr0/brif")
    machine.write("/sys/bus/pci/drivers/igc/unbind", b"0000:03:00.0")
    assert "nic0" not in machine.names("/sys/class/net")
    assert machine.names("/sys/class/net/vmbr0/brif") == ()
    power_on(machine.world)
    assert "nic0" in machine.names("/sys/class/net")


def test_readonly_cluster_and_full_file_system_refuse(machine: Simulated) -> None:
    spec = machine.world.machine()
    machine.world.save_machine({**spec, "pve_readonly": True, "rooms": {"/boot": [1 << 30, 1000]}})
    with pytest.raises(Refused):
        machine.write("/etc/pve/nodes/pve/qemu-server/100.conf", b"name: x\n")
    with pytest.raises(Unreadable, match="No space left"):
        machine.write("/boot/large", b"x" * 2000)
    before = machine.read("/boot/initrd.img-7.0.14-4-pve")
    done = machine.run(["update-initramfs", "-u", "-k", "all"])
    assert done.rc == 1 and "No space left on device" in done.stderr
    assert machine.read("/boot/initrd.img-7.0.14-4-pve") == before
    assert machine.room("/boot/grub").free == 1000


def test_unknown_programs_are_missing_and_failing_ones_fail(machine: Simulated) -> None:
    for argv in (["emacs"], ["/opt/bin/uname"]):
        with pytest.raises(Missing):
            machine.run(argv)
    assert machine.run(["/usr/bin/uname", "-r"]).stdout == "7.0.14-4-pve\n"
    machine.world.save_machine({**machine.world.machine(), "failing": ["update-initramfs", "lsmod"]})
    assert machine.run(["update-initramfs", "-u"]).rc == 1
    assert machine.run(["lsmod"]).rc == 1
    assert machine.run(["update-grub"]).ok


# -- command line ----------------------------------------------------------------------------


def test_grub_source_alone_changes_nothing(machine: Simulated) -> None:
    text = machine.read("/etc/default/grub").decode()
    machine.write("/etc/default/grub", text.replace('"quiet"', '"quiet intel_iommu=on"').encode())
    power_on(machine.world)
    assert "intel_iommu=on" not in cmdline(machine)
    assert machine.run(["update-grub"]).ok
    assert "intel_iommu=on" not in cmdline(machine)
    power_on(machine.world)
    assert "intel_iommu=on" in cmdline(machine)


def test_grub_drop_in_extends_the_variable(machine: Simulated) -> None:
    machine.write(
        "/etc/default/grub.d/zz.cfg", b'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT a=1"  # why\n'
    )
    assert machine.run(["update-grub"]).ok
    power_on(machine.world)
    assert cmdline(machine)[-2:] == ["quiet", "a=1"]


@pytest.mark.parametrize(
    ("line", "status", "words"),
    [
        ('GRUB_CMDLINE_LINUX_DEFAULT="quiet', 2, "Unterminated quoted string"),
        ("GRUB_X+=y", 127, "not found"),
        ("GRUB_X = y", 127, "not found"),
    ],
)
def test_broken_grub_file_stops_update_grub(machine: Simulated, line: str, status: int, words: str) -> None:
    before = machine.read("/boot/grub/grub.cfg")
    machine.write("/etc/default/grub", line.encode() + b"\n")
    done = machine.run(["update-grub"])
    assert (done.rc, words in done.stderr) == (status, True)
    assert machine.read("/boot/grub/grub.cfg") == before


@on("intel-zfs")
def test_systemd_boot_ignores_grub_and_takes_the_first_line(machine: Simulated) -> None:
    machine.write("/etc/default/grub.d/zz.cfg", b'GRUB_CMDLINE_LINUX_DEFAULT="lost=1"\n')
    machine.write("/etc/kernel/cmdline", b"root=ZFS=rpool/ROOT/pve-1 boot=zfs first=1\nsecond=1\n")
    power_on(machine.world)
    assert "first=1" not in cmdline(machine)
    assert machine.run(["proxmox-boot-tool", "refresh"]).ok
    power_on(machine.world)
    assert "first=1" in cmdline(machine)
    assert not {"second=1", "lost=1"} & set(cmdline(machine))


@on("amd-secureboot")
def test_grub_on_esp_ignores_the_cmdline_file_but_demands_its_root(machine: Simulated) -> None:
    machine.write("/etc/kernel/cmdline", b"root=ZFS=rpool/ROOT/pve-1 boot=zfs lost=1\n")
    machine.write("/etc/default/grub.d/zz.cfg", b'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT kept=1"\n')
    assert machine.run(["proxmox-boot-tool", "refresh"]).ok
    power_on(machine.world)
    assert "kept=1" in cmdline(machine) and "lost=1" not in cmdline(machine)
    machine.write("/etc/kernel/cmdline", b"quiet\n")
    done = machine.run(["proxmox-boot-tool", "refresh"])
    assert (done.rc, done.stderr) == (1, "No root= parameter in /etc/kernel/cmdline found!\n")


@on("intel-zfs")
def test_image_on_esp_is_refreshed_with_the_initramfs(machine: Simulated) -> None:
    done = machine.run(["update-initramfs", "-u", "-k", "all"])
    assert done.stdout.count("Copying and configuring kernels on /dev/disk/by-uuid/5EBA-2B61") == 2
    copy = machine.world.text("/sim/esp/5EBA-2B61/EFI/proxmox/7.0.14-4-pve/initrd.img-7.0.14-4-pve")
    assert copy == machine.read("/boot/initrd.img-7.0.14-4-pve").decode()


@on("intel-zfs")
def test_a_line_without_the_right_root_does_not_come_up_and_can_be_helped(machine: Simulated) -> None:
    machine.write("/etc/kernel/cmdline", b"root=/dev/sda1\n")
    assert machine.run(["proxmox-boot-tool", "refresh"]).ok
    machine.run(["reboot"])
    with pytest.raises(Unreadable, match="did not start"):
        machine.read("/etc/hostname")
    power_on(machine.world, cmdline="root=ZFS=rpool/ROOT/pve-1 boot=zfs")
    assert machine.read("/etc/hostname") == b"pve\n"


def test_pinned_kernel_starts(machine: Simulated) -> None:
    machine.world.put("/boot/vmlinuz-6.17.2-1-pve", "kernel\n")
    rebuild(machine)
    assert machine.run(["proxmox-boot-tool", "kernel", "pin", "6.17.2-1-pve"]).ok
    power_on(machine.world)
    assert machine.run(["uname", "-r"]).stdout == "6.17.2-1-pve\n"
    assert machine.run(["proxmox-boot-tool", "kernel", "unpin"]).ok
    power_on(machine.world)
    assert machine.run(["uname", "-r"]).stdout == "7.0.14-4-pve\n"


# -- IOMMU -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("vendor", "tables", "line", "release", "expected"),
    [
        ("GenuineIntel", ("DMAR",), "quiet", "6.5.13-6-pve", False),
        ("GenuineIntel", ("DMAR",), "intel_iommu=on", "6.5.13-6-pve", True),
        ("GenuineIntel", ("DMAR",), "intel_iommu=on,sm_on", "6.5.13-6-pve", True),
        ("GenuineIntel", ("DMAR",), "quiet", "6.8.4-2-pve", True),
        ("GenuineIntel", ("DMAR",), "quiet", "6.17.2-1-pve", True),
        ("GenuineIntel", ("DMAR",), "intel_iommu=off", "7.0.14-4-pve", False),
        ("GenuineIntel", (), "intel_iommu=on", "7.0.14-4-pve", False),
        ("AuthenticAMD", ("IVRS",), "quiet", "6.5.13-6-pve", True),
        ("AuthenticAMD", ("IVRS",), "amd_iommu=off", "7.0.14-4-pve", False),
        ("AuthenticAMD", ("DMAR",), "amd_iommu=on", "7.0.14-4-pve", True),
        ("AuthenticAMD", ("DMAR",), "quiet", "6.5.13-6-pve", False),
        ("AuthenticAMD", (), "amd_iommu=on", "7.0.14-4-pve", False),
        ("AuthenticAMD", ("IVRS",), "iommu=off", "7.0.14-4-pve", False),
    ],
)
def test_when_the_iommu_is_on(vendor: str, tables: tuple[str, ...], line: str, release: str, expected: bool) -> None:
    assert iommu_on({"cpu": {"vendor": vendor}}, tables, line, release) is expected


def test_a_kernel_may_be_built_with_the_iommu_on() -> None:
    """As Debian's 6.1 is; the lab's capture brings `iommu_by_default` along."""
    assert iommu_on({"iommu_by_default": True}, ("DMAR",), "quiet", "6.1.0-56-amd64")
    assert not iommu_on({"iommu_by_default": True}, ("DMAR",), "intel_iommu=off", "6.1.0-56-amd64")


@on("intel-6.5-grub")
def test_switching_the_iommu_on_makes_groups_appear_and_off_takes_them_away(machine: Simulated) -> None:
    drop_in = "/etc/default/grub.d/zz.cfg"
    machine.write(drop_in, b'GRUB_CMDLINE_LINUX_DEFAULT="$GRUB_CMDLINE_LINUX_DEFAULT intel_iommu=on"\n')
    machine.run(["update-grub"])
    power_on(machine.world)
    assert machine.world.group_of(GPU) == machine.world.group_of(AUDIO) == 1
    assert "DMAR: IOMMU enabled" in machine.run(["dmesg"]).stdout
    machine.write(drop_in, None)
    machine.run(["update-grub"])
    power_on(machine.world)
    assert machine.world.group_of(GPU) is None
    assert machine.names("/sys/class/iommu") == machine.names("/sys/kernel/iommu_groups") == ()


@on("shared-sata")
def test_acs_override_splits_the_group(machine: Simulated) -> None:
    machine.write("/etc/kernel/cmdline", b"root=ZFS=rpool/ROOT/pve-1 boot=zfs pcie_acs_override=downstream\n")
    machine.run(["proxmox-boot-tool", "refresh"])
    power_on(machine.world)
    assert machine.world.group_of("0000:00:17.0") != machine.world.group_of(GPU)
    assert "0000:00:17.0" not in machine.names("/sys/kernel/iommu_groups/1/devices")


# -- modules ---------------------------------------------------------------------------------


def test_blacklist_by_glob_is_a_no_op_and_by_name_works(machine: Simulated) -> None:
    configure(machine, "blacklist nouv*\n")
    assert drivers(machine, GPU) == ["nouveau"]
    configure(machine, "blacklist nouveau\n")
    assert drivers(machine, GPU) == [None]
    assert machine.run(["modprobe", "nouveau"]).ok, "an explicit modprobe ignores the blacklist"
    assert drivers(machine, GPU) == ["nouveau"]


def test_shipped_blacklist_keeps_nvidiafb_away(machine: Simulated) -> None:
    machine.write("/etc/modprobe.d/pve-blacklist.conf", b"")
    power_on(machine.world)
    assert drivers(machine, GPU) == ["nvidiafb"]


def test_ids_without_order_lose_and_with_softdep_win(machine: Simulated) -> None:
    ids = "options vfio-pci ids=10de:2684,10de:22ba\n"
    configure(machine, ids, load="vfio-pci\n")
    assert drivers(machine, GPU, AUDIO) == ["nouveau", "snd_hda_intel"]
    configure(machine, ids + "softdep nouveau pre: vfio-pci\nsoftdep snd_hda_intel pre: vfio-pci\n")
    assert drivers(machine, GPU, AUDIO, "0000:00:1f.3") == ["vfio-pci", "vfio-pci", "snd_hda_intel"]


def test_softdep_for_the_card_alone_loses_the_sound_to_the_onboard_driver(machine: Simulated) -> None:
    configure(machine, "options vfio-pci ids=10de:2684,10de:22ba\nsoftdep nouveau pre: vfio-pci\n")
    assert drivers(machine, GPU, AUDIO) == ["vfio-pci", "snd_hda_intel"]


@pytest.mark.parametrize(
    "softdep", ["softdep nouveau pre:vfio-pci", "softdep nouveau vfio-pci", "# softdep nouveau pre: vfio-pci"]
)
def test_misspelt_softdep_does_nothing(machine: Simulated, softdep: str) -> None:
    configure(machine, f"options vfio-pci ids=10de:2684\n{softdep}\n")
    assert drivers(machine, GPU) == ["nouveau"]


def test_only_the_first_softdep_line_counts_and_globs_match(machine: Simulated) -> None:
    configure(machine, "options vfio-pci ids=10de:2684\nsoftdep nouveau pre: msr\nsoftdep nouveau pre: vfio-pci\n")
    assert drivers(machine, GPU) == ["nouveau"]
    configure(machine, "options vfio-pci ids=10de:2684\nsoftdep nouv* pre: vfio-pci\n")
    assert drivers(machine, GPU) == ["vfio-pci"]


@pytest.mark.parametrize(("ids", "taken"), [("10de:2684 ,10de:22ba", [True, False]), ("10de,2684", [False, False])])
def test_ids_are_read_as_the_kernel_reads_them(machine: Simulated, ids: str, taken: list[bool]) -> None:
    configure(
        machine, f"options vfio-pci ids={ids}\nsoftdep nouveau pre: vfio-pci\nsoftdep snd_hda_intel pre: vfio-pci\n"
    )
    assert [driver == "vfio-pci" for driver in drivers(machine, GPU, AUDIO)] == taken


def test_install_false_and_module_blacklist_are_hard(machine: Simulated) -> None:
    configure(machine, "install nouveau /bin/false\n")
    assert drivers(machine, GPU) == [None]
    assert machine.run(["modprobe", "nouveau"]).rc == 1
    configure(machine, "")
    power_on(machine.world, cmdline=" ".join([*cmdline(machine), "module_blacklist=nouveau"]))
    assert drivers(machine, GPU) == [None]
    assert "Operation not permitted" in machine.run(["modprobe", "nouveau"]).stderr


def test_ids_on_the_command_line_count(machine: Simulated) -> None:
    configure(machine, "softdep nouveau pre: vfio-pci\n")
    power_on(machine.world, cmdline=" ".join([*cmdline(machine), "vfio-pci.ids=10de:2684"]))
    assert drivers(machine, GPU) == ["vfio-pci"]


@on("intel-zfs")
def test_modules_in_the_initramfs_need_a_rebuilt_image(machine: Simulated) -> None:
    usb = "0000:01:00.2"
    text = "options vfio-pci ids=10de:1ad8\nsoftdep xhci_pci pre: vfio-pci\n"
    configure(machine, text, refresh=False)
    assert drivers(machine, usb) == ["xhci_hcd"], "the image still has the old modprobe.d"
    configure(machine, text)
    assert drivers(machine, usb, "0000:00:14.0") == ["vfio-pci", "xhci_hcd"]
    assert any(
        "vfio-pci.ko" in name for name in machine.run(["lsinitramfs", "/boot/initrd.img-7.0.14-4-pve"]).stdout.split()
    )


def test_the_image_s_own_module_list_comes_after_the_devices(machine: Simulated) -> None:
    machine.write("/etc/initramfs-tools/modules", b"vfio-pci ids=10de:2684\n")
    rebuild(machine)
    power_on(machine.world)
    assert drivers(machine, GPU, "0000:02:00.0") == ["vfio-pci", "nvme"], "nouveau is not in the image, nvme is"


@on("shared-sata")
def test_taking_the_root_controller_early_leaves_the_machine_down(machine: Simulated) -> None:
    configure(machine, "options vfio-pci ids=8086:7ae2\nsoftdep ahci pre: vfio-pci\n")
    with pytest.raises(Unreadable, match="the root does not exist"):
        machine.read("/proc/cmdline")


# -- claims ----------------------------------------------------------------------------------


@on("twins")
def test_ids_take_both_twins(machine: Simulated) -> None:
    configure(machine, "options vfio-pci ids=10de:2684\nsoftdep nouveau pre: vfio-pci\n")
    assert drivers(machine, GPU, "0000:04:00.0") == ["vfio-pci", "vfio-pci"]


@on("twins")
def test_claim_by_address_takes_one_twin(machine: Simulated) -> None:
    machine.write(
        SCRIPT, f"#!/bin/sh\nclaim() {{ :; }}\nclaim {GPU} 10de:2684\nclaim {AUDIO} 10de:22ba\n".encode(), 0o755
    )
    configure(machine, "", load="vfio-pci\n")
    assert drivers(machine, GPU, AUDIO, "0000:04:00.0", "0000:04:00.1") == [
        "vfio-pci",
        "vfio-pci",
        "nouveau",
        "snd_hda_intel",
    ]
    assert machine.read(f"/sys/bus/pci/devices/{GPU}/driver_override") == b"vfio-pci\n"


@pytest.mark.parametrize(("line", "mode"), [(f"claim {GPU} 10de:ffff", 0o755), (f"claim {GPU} 10de:2684", 0o644)])
def test_claim_needs_the_right_id_and_an_executable_script(machine: Simulated, line: str, mode: int) -> None:
    machine.write(SCRIPT, f"#!/bin/sh\n{line}\n".encode(), mode)
    configure(machine, "", load="vfio-pci\n")
    assert drivers(machine, GPU) == ["nouveau"]


def test_claim_without_a_rebuilt_image_or_without_the_module_does_not_bind(machine: Simulated) -> None:
    machine.write(SCRIPT, f"claim {GPU} 10de:2684\n".encode(), 0o755)
    configure(machine, "", load="vfio-pci\n", refresh=False)
    assert drivers(machine, GPU) == ["nouveau"]
    machine.write("/etc/modules-load.d/ours.conf", None)
    configure(machine, "")
    assert drivers(machine, GPU) == [None], "overridden, but nobody loaded vfio-pci"


def test_a_bus_is_not_reset_for_one_of_two_functions(machine: Simulated) -> None:
    """As a real kernel did it: function 0 shows `bus`, and the write is answered with ENOTTY."""
    where = f"/sys/bus/pci/devices/{GPU}"
    machine.write(f"{where}/reset", b"1")
    machine.world.put(f"{where}/reset_method", "bus\n")
    with pytest.raises(Unreadable, match="Inappropriate ioctl"):
        machine.write(f"{where}/reset", b"1")


# -- starting --------------------------------------------------------------------------------


def test_power_cut_loses_what_is_volatile_and_keeps_files(machine: Simulated) -> None:
    first = machine.read("/proc/sys/kernel/random/boot_id")
    machine.write("/run/candidate", b"x")
    machine.write("/etc/kept", b"x")
    machine.run(["modprobe", "vfio-pci", "ids=10de:2684"])
    machine.write(f"/sys/bus/pci/devices/{GPU}/reset_method", b"flr")
    power_cut(machine.world)
    assert machine.read("/proc/sys/kernel/random/boot_id") != first
    assert machine.names("/run") == ("lock", "qemu-server")
    assert machine.read("/etc/kept") == b"x"
    assert machine.read(f"/sys/bus/pci/devices/{GPU}/reset_method") == b"flr bus\n"
    assert "vfio_pci" not in machine.read("/proc/modules").decode()


def test_boot_unit_holds_guests_back(machine: Simulated) -> None:
    unit = "/etc/systemd/system/pve-passthrough.service"
    machine.write(
        unit,
        b"[Unit]\nConditionPathExists=/var/lib/unfinished\n[Service]\nExecStart=/bin/true\n[Install]\nWantedBy=multi-user.target\n",
    )
    assert machine.run(["systemctl", "is-enabled", "pve-passthrough"]).stdout == "disabled\n"
    assert machine.run(["systemctl", "enable", "pve-passthrough.service"]).ok
    assert machine.run(["systemctl", "is-enabled", "pve-passthrough"]).stdout == "enabled\n"
    conf = "/etc/pve/nodes/pve/qemu-server/100.conf"
    machine.write(conf, b"onboot: 1\n" + machine.read(conf))
    power_on(machine.world)
    assert machine.world.state()["boot_unit_due"] is False, "the condition does not hold"
    machine.write("/var/lib/unfinished", b"")
    power_on(machine.world)
    assert machine.world.state()["boot_unit_due"] is True
    assert "100.pid" not in machine.names("/run/qemu-server")
    finish_boot(machine.world)
    assert machine.world.state()["boot_unit_due"] is False
    assert "100.pid" in machine.names("/run/qemu-server")
    assert machine.run(["systemctl", "disable", "pve-passthrough.service"]).ok
    power_on(machine.world)
    assert machine.world.state()["boot_unit_due"] is False


@on("only-display")
def test_console_framebuffer_follows_the_boot_display(machine: Simulated) -> None:
    assert machine.link("/sys/class/graphics/fb0").endswith(f"{GPU}/graphics/fb0")
    machine.write("/sys/bus/pci/drivers/nouveau/unbind", GPU.encode())
    assert machine.read("/proc/fb") == b""
    configure(machine, "blacklist nouveau\n")
    assert machine.read("/proc/fb") == b"0 simpledrmdrmfb\n"
    configure(machine, "options vfio-pci ids=10de:2684\nsoftdep nouveau pre: vfio-pci\n")
    assert machine.read("/proc/fb") == b""


# -- small programs --------------------------------------------------------------------------


def test_sh_checks_and_never_runs(machine: Simulated) -> None:
    machine.write("/run/candidate", b'A="x\n')
    done = machine.run(["sh", "-n", "/run/candidate"])
    assert (done.rc, done.stderr) == (2, "/run/candidate: 2: Syntax error: Unterminated quoted string\n")
    machine.write("/run/candidate", b"touch /root/ran # it's\nA=\"x\" B='y'\n")
    assert machine.run(["sh", "-n", "/run/candidate"]).ok
    assert machine.run(["sh", "/run/candidate"]).rc == 126
    assert machine.names("/root") == ()


def test_modprobe_shows_the_configuration_of_a_directory(machine: Simulated) -> None:
    machine.make_dir("/run/check")
    machine.write("/run/check/a.conf", b"options vfio-pci ids=1:2\nsoftdep a pre: b post: c\nblacklist d\n")
    shown = machine.run(["modprobe", "-c", "-C", "/run/check"]).stdout.splitlines()
    assert "options vfio_pci ids=1:2" in shown and "softdep a pre: b post: c" in shown and "blacklist d" in shown
    assert not any("nvidiafb" in line for line in shown)
    assert machine.run(["modprobe", "no-such"]).stderr.startswith("modprobe: FATAL: Module no-such not found")


@on("intel-zfs")
def test_zpool_names_members_by_id_and_follows_them(machine: Simulated) -> None:
    assert "/dev/disk/by-id/ata-" in machine.run(["zpool", "status", "-P"]).stdout
    followed = machine.run(["zpool", "status", "-P", "-L", "rpool"]).stdout
    assert "/dev/sda3" in followed and "/dev/sdb3" in followed
    assert machine.run(["zpool", "list", "-vHPL"]).stdout.splitlines()[2].startswith("\t/dev/sda3\t")
