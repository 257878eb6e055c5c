"""What people read: one finding for one card, the state of the world first, and a way out that fits this host."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.model.facts import (
    Boot,
    Display,
    Facts,
    Gap,
    Iommu,
    Kernel,
    Loader,
    Space,
    Use,
    UseKind,
)
from pve_passthrough.model.finding import Finding, Level, Safety
from pve_passthrough.model.pci import NO_GROUP, Address, Bar, Capabilities
from pve_passthrough.rules import Request, judge

from .worlds import (
    BOTH,
    CMDLINE,
    DEVICES,
    GPU,
    GRUB,
    IGPU,
    MODULES,
    NIC,
    PORT,
    SOUND,
    VFIO,
    XHCI,
    device,
    guest,
    host,
    with_device,
)

SYSTEMD = Boot((Loader.SYSTEMD_BOOT,), managed=True)
USB, UCSI = Address(0, 1, 0, 2), Address(0, 1, 0, 3)
NEW = (guest(drop=("hostpci0",)),)
DEVICE_ONLY = Request((GPU, SOUND))


def said(rule: str, facts: Facts, request: Request = BOTH) -> list[Finding]:
    return [finding for finding in judge(facts, request) if finding.rule == rule]


def only(rule: str, facts: Facts, request: Request = BOTH) -> Finding:
    (finding,) = said(rule, facts, request)
    return finding


def commands(finding: Finding) -> tuple[str, ...]:
    assert finding.fix is not None
    return finding.fix.commands


def card(**drivers: str) -> Facts:
    """The card with four functions and these drivers."""
    held = {"gpu": "nouveau", "sound": "snd_hda_intel", "usb": "xhci_hcd", "ucsi": ""} | drivers
    taken = {GPU: held["gpu"], SOUND: held["sound"]}
    devices = tuple(replace(one, driver=taken.get(one.address, one.driver)) for one in DEVICES)
    more = (
        device(USB, "AD102 USB", "10de:22bb", 0x0C0330, 1, held["usb"], parent=PORT),
        device(UCSI, "AD102 UCSI", "10de:22bc", 0x0C8000, 1, held["ucsi"], parent=PORT),
    )
    return host(devices=(*devices, *more), guests=NEW)


WHOLE = Request((GPU, SOUND, USB, UCSI), 100)


# -- one card, one finding ------------------------------------------------------------------------------------------


def test_a_card_is_held_once() -> None:
    finding = only("drivers.holder", card(), WHOLE)
    assert finding.level is Level.NOTE
    assert "with its functions 1 and 2 is held by nouveau, snd_hda_intel and xhci_hcd" in finding.message
    assert len(finding.evidence) == 4


def test_the_one_driver_that_does_not_let_go_speaks_for_the_card() -> None:
    finding = only("drivers.holder", card(gpu="nvidia"), WHOLE)
    assert (finding.level, finding.subject) == (Level.HARMS, str(GPU))
    assert commands(finding) == (f"pve-passthrough up {GPU} --vm 100",)


def test_free_cards_and_unknown_drivers_are_told_once() -> None:
    assert only("drivers.holder", card(gpu="", sound="", usb=""), WHOLE).level is Level.FINE
    lost = card()
    facts = replace(lost, devices=tuple(replace(one, driver=None) for one in lost.devices))
    assert only("drivers.holder", facts, WHOLE).level is Level.UNKNOWN


def test_groups_are_told_by_card() -> None:
    assert "0000:01:00.1, 0000:01:00.2 and 0000:01:00.3" in only("groups.alone", card(), WHOLE).message
    split = replace(card(), devices=tuple(replace(one, iommu_group=n + 20) for n, one in enumerate(card().devices)))
    assert "groups of their own" in only("groups.alone", split, WHOLE).message
    without = card()
    facts = replace(without, devices=tuple(replace(one, iommu_group=NO_GROUP) for one in without.devices))
    assert only("groups.group", facts, WHOLE).level is Level.BLOCKS


def test_a_twin_card_is_one_finding() -> None:
    twin = (
        device(Address(0, 4, 0, 0), "second RTX 4090", "10de:2684", 0x030000, 9, "nouveau"),
        device(Address(0, 4, 0, 1), "second sound", "10de:22ba", 0x040300, 9, "snd_hda_intel"),
    )
    finding = only("drivers.identical-ids", host(devices=(*DEVICES, *twin)))
    assert "second RTX 4090 (0000:04:00.0) with its function 1" in finding.message


def test_late_binding_is_one_finding_and_asks_only_for_what_is_missing() -> None:
    bound = tuple(
        replace(one, driver={GPU: "nouveau", SOUND: "snd_hda_intel"}.get(one.address, one.driver)) for one in DEVICES
    )
    ids = "options vfio-pci ids=10de:2684,10de:22ba\n"
    finding = only("drivers.after-boot", host(devices=bound, files={VFIO: ids}))
    assert finding.fix and "softdep nouveau pre: vfio-pci; softdep snd_hda_intel pre: vfio-pci" in finding.fix.text
    soft = "softdep nouveau pre: vfio-pci\nsoftdep snd_hda_intel pre: vfio-pci\n"
    again = only("drivers.after-boot", host(devices=bound, files={VFIO: ids + soft}))
    assert again.fix and "softdep" not in again.fix.text
    assert commands(again) == ("update-initramfs -u -k all", "reboot")


def test_what_was_not_looked_at_is_one_finding() -> None:
    gaps = (Gap("uses.disks", "not root"), Gap("uses.network", "no ip"))
    finding = only("hazards.unknown-uses", host(uses_known=frozenset({"console", "keyboard"}), gaps=gaps))
    assert "disks or network" in finding.message
    assert finding.evidence == ("uses.disks: not root", "uses.network: no ip")


def test_lines_that_name_absent_devices_are_one_finding() -> None:
    facts = host(guests=(guest(hostpci1="0000:0a:00.0", hostpci2="0b:00"),))
    finding = only("guests.hostpci", facts)
    assert "hostpci1 names 0000:0a:00.0 and hostpci2 names 0b:00" in finding.message
    assert commands(finding) == ("qm set 100 --delete hostpci1", "qm set 100 --delete hostpci2")


def test_the_processors_type_is_told_once_with_the_size_where_it_is_known() -> None:
    wide = with_device(GPU, bars=(Bar(1, 0, 32 * 1024**3, wide=True),))
    rules = {one.rule for one in judge(host(devices=wide, guests=(guest(cpu="kvm64"),)), BOTH)}
    assert "guests.window" in rules and "guests.cpu" not in rules


# -- whom it concerns -----------------------------------------------------------------------------------------------


def test_a_driverless_neighbour_is_no_hazard() -> None:
    dummy = device(Address(0, 0, 8, 0), "Dummy Host Bridge", "1022:1632", 0x060000, 1, "")
    finding = only("groups.shared", host(devices=(*DEVICES, dummy)))
    assert (finding.level, finding.hazard) == (Level.NOTE, "")
    used = host(devices=(*DEVICES, dummy), uses=(Use(dummy.address, UseKind.DATA_DISK, "vg data"),))
    assert only("groups.shared", used).hazard == "shared-group"
    held = host(devices=(*DEVICES, replace(dummy, driver="k10temp")))
    assert only("groups.shared", held).level is Level.HARMS
    unread = host(devices=(*DEVICES, replace(dummy, driver=None)))
    assert only("groups.shared", unread).level is Level.HARMS


def test_the_guests_own_devices_are_no_strangers() -> None:
    facts = host(devices=with_device(NIC, iommu_group=1), uses=(), guests=(guest(hostpci1="0000:03:00.0"),))
    assert said("groups.shared", facts) == []
    assert said("groups.shared", facts, DEVICE_ONLY) != []


def test_the_hosts_own_console_is_nobodys_fault() -> None:
    assert said("hazards.console", host(), Request()) == []
    assert said("gpu.intel-graphics", host(), Request()) == []
    two = host(devices=with_device(GPU, driver="nouveau"))
    assert only("hazards.console", two, Request((IGPU,))).hazard == "console"


def test_the_processors_graphics_is_no_way_out_of_its_own_loss() -> None:
    alone = host(devices=tuple(one for one in DEVICES if one.address != GPU))
    finding = only("hazards.only-display", alone, Request((IGPU,), 100))
    assert finding.fix and "processor's own graphics" not in finding.fix.text
    other = tuple(one for one in with_device(GPU, driver="nouveau") if one.address != IGPU)
    gone = only("hazards.only-display", host(devices=other))
    assert gone.fix and "processor's own graphics" in gone.fix.text


def test_graphics_on_bus_0_are_a_card_with_their_sound() -> None:
    apu = device(Address(0, 0, 1, 0), "Trinity", "1002:9990", 0x030000, 7, "radeon")
    sound = device(Address(0, 0, 1, 1), "Trinity Sound", "1002:9902", 0x040300, 7, "snd_hda_intel")
    facts = host(devices=(apu, sound), uses=())
    assert said("groups.shared", facts, Request((apu.address,))) == []
    assert "with its function 1" in only("drivers.holder", facts, Request((apu.address, sound.address))).message


def test_what_the_guest_shall_have_is_no_mistake_of_the_list() -> None:
    facts = host(files={VFIO: "options vfio-pci ids=10de:2684\n"}, uses=(Use(GPU, UseKind.CONSOLE, "console"),))
    assert said("bootconfig.vfio-ids-host", facts) == []
    assert said("bootconfig.vfio-ids-host", facts, Request()) != []
    vital = replace(facts, uses=(Use(GPU, UseKind.ROOT_DISK, "root", vital=True),))
    assert only("bootconfig.vfio-ids-host", vital).hazard == "never"


def test_a_settled_guest_is_left_in_peace() -> None:
    facts = host(guests=(replace(guest(onboot="1", lock=""), ha_managed=True),))
    levels = {one.rule: one.level for one in judge(facts, BOTH)}
    assert "guests.onboot" not in levels and "guests.snapshots" not in levels
    assert levels["guests.ha"] is Level.NOTE
    new = host(guests=(replace(guest(drop=("hostpci0",), onboot="1"), ha_managed=True),))
    levels = {one.rule: one.level for one in judge(new, BOTH)}
    assert (levels["guests.onboot"], levels["guests.ha"]) == (Level.HARMS, Level.HARMS)


def test_secure_boot_in_the_guest_matters_to_those_who_build_drivers() -> None:
    disk = "local-lvm:vm-100-disk-0,efitype=4m,pre-enrolled-keys=1"
    assert only("guests.efi-disk", host(guests=(guest(efidisk0=disk),))).level is Level.NOTE
    assert said("guests.efi-disk", host(guests=(guest(efidisk0=disk, ostype="win11"),))) == []
    assert said("guests.efi-disk", host(guests=(guest(efidisk0="local-lvm:vm-100-disk-0,size=4M"),))) == []


def test_level_is_a_word_of_the_cpu_line() -> None:
    assert said("guests.cpu-invalid", host(guests=(guest(cpu="host,level=30"),))) == []


# -- ways out -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("rule", "config"),
    [
        ("guests.cpu", {"cpu": "kvm64"}),
        ("guests.balloon", {"balloon": "1024"}),
        ("guests.machine", {"machine": "pc"}),
    ],
)
def test_what_a_plan_does_is_left_to_it(rule: str, config: dict[str, Any]) -> None:
    for request in (BOTH, Request((), 100)):
        finding = only(rule, host(guests=(guest(**config),)), request)
        assert commands(finding) == ("pve-passthrough up 0000:01:00.0 --vm 100",)


def test_automatic_start_says_how_it_comes_back() -> None:
    finding = only("guests.onboot", host(guests=(guest(drop=("hostpci0",), onboot="1"),)))
    assert finding.fix and "qm set 100 --onboot 1" in finding.fix.text
    assert commands(finding) == ("pve-passthrough up 0000:01:00.0 --vm 100",)


@pytest.mark.parametrize(
    ("args", "cpu", "wanted"),
    [
        ("-cpu 'host,kvm=off'", "host", ("--delete args", "--cpu host,hidden=1")),
        ("-cpu 'max,hv_vendor_id=NV43FIX'", "max", ("--delete args", "--cpu max,hv-vendor-id=NV43FIX")),
        ("-device 'x,y=1' -cpu host,+kvm_pv_eoi", "host", ("--args '-device x,y=1'", "--cpu host")),
        ("-cpu host,hv_vendor_id=not-allowed", "host", ("--delete args", "--cpu host")),
    ],
)  # fmt: skip
def test_a_cpu_in_args_is_said_in_proxmox_words(args: str, cpu: str, wanted: tuple[str, ...]) -> None:
    finding = only("guests.args-cpu", host(guests=(guest(args=args, cpu=cpu),)))
    assert commands(finding) == tuple(f"qm set 100 {words}" for words in wanted)


def test_a_void_cpu_line_is_said_in_proxmox_words() -> None:
    finding = only("guests.cpu-invalid", host(guests=(guest(cpu="host,hv_vendor_id=proxmox,hidden=1"),)))
    assert commands(finding) == ("qm set 100 --cpu host,hv-vendor-id=proxmox,hidden=1",)


def test_seabios_is_left_alone_and_the_commands_are_shown() -> None:
    config = guest(drop=("efidisk0",), bios="seabios", ide2="local:iso/x.iso,media=cdrom", scsi0="tank:vm-100-disk-0")
    finding = only("guests.firmware", host(guests=(config,)))
    assert finding.fix and finding.fix.safety is Safety.SHOW
    assert commands(finding) == ("qm set 100 --bios ovmf --efidisk0 tank:1,efitype=4m,pre-enrolled-keys=0",)


def test_a_rom_that_is_switched_off_leaves_the_screen_dark() -> None:
    config = guest(drop=("vga",), hostpci0="0000:01:00,pcie=1,x-vga=1,rombar=0")
    assert "ROM switched off" in only("guests.display", host(guests=(config,))).message
    assert said("guests.display", host(guests=(guest(hostpci0="0000:01:00,pcie=1,x-vga=1,rombar=1"),))) == []


@pytest.mark.parametrize(
    ("path", "text", "rule", "refresh"),
    [
        (GRUB, 'GRUB_CMDLINE_LINUX_DEFAULT="vfio-pci.ids=10de:ffff"\n', "bootconfig.vfio-ids-stale", "update-grub"),
        (VFIO, "options vfio-pci ids=10de:ffff\n", "bootconfig.vfio-ids-stale", "update-initramfs -u -k all"),
        (
            GRUB,
            'GRUB_CMDLINE_LINUX="vfio_iommu_type1.allow_unsafe_interrupts=1"\n',
            "platform.unsafe-interrupts",
            "update-grub",
        ),
    ],
)
def test_what_is_rebuilt_follows_the_file(path: str, text: str, rule: str, refresh: str) -> None:
    finding = only(rule, host(files={path: text}))
    assert commands(finding) == (f"editor {path}", refresh, "reboot")


def test_the_one_line_of_systemd_boot_has_its_own_refresh() -> None:
    words = "root=ZFS=rpool/ROOT/pve-1 boot=zfs vfio-pci.ids=10de:ffff\n"
    finding = only("bootconfig.vfio-ids-stale", host(boot=SYSTEMD, files={CMDLINE: words}))
    assert commands(finding) == (f"editor {CMDLINE}", "proxmox-boot-tool refresh", "reboot")


def test_an_argument_is_taken_out_of_the_file_that_has_it() -> None:
    drop_in = "/etc/default/grub.d/guide.cfg"
    files = {drop_in: 'GRUB_CMDLINE_LINUX="$GRUB_CMDLINE_LINUX amd_iommu=on"\n'}
    finding = only("bootconfig.no-effect", host(files=files))
    assert finding.fix and f"GRUB_CMDLINE_LINUX in {drop_in}" in finding.fix.text


def test_the_override_is_advised_with_the_file_of_this_loader() -> None:
    lacking = with_device(PORT, capabilities=Capabilities(express=4, extended=True))
    devices = tuple(replace(one, iommu_group=1) if one.address == XHCI else one for one in lacking)
    facts = host(devices=devices, uses=(), boot=SYSTEMD)
    finding = only("groups.shared", facts)
    assert finding.fix and f"pcie_acs_override=id:8086:460d to the one line of {CMDLINE}" in finding.fix.text
    assert finding.fix.safety is Safety.SHOW


def test_an_override_of_unknown_words_does_not_count_as_one() -> None:
    words = Kernel("6.8.12-9-pve", "pcie_acs_override=downstream,multifuntion,id:8086:46d", "boot")
    odd = said("groups.acs-override", host(kernel=words))
    assert any("'multifuntion' and 'id:8086:46d'" in one.message for one in odd)
    narrow = Kernel("6.8.12-9-pve", "pcie_acs_override=id:8086:460d,id:8086:460D", "boot")
    assert [one.level for one in said("groups.acs-override", host(kernel=narrow))] == [Level.NOTE]


# -- the host -------------------------------------------------------------------------------------------------------


def test_what_stands_in_a_file_is_not_told_again_from_the_running_kernel() -> None:
    line = "vfio-pci.ids=10de:ffff"
    facts = host(files={GRUB: f'GRUB_CMDLINE_LINUX="{line}"\n'}, kernel=Kernel("6.8.12-9-pve", f"quiet {line}", "b"))
    assert only("bootconfig.vfio-ids-stale", facts).subject == GRUB
    gone = replace(facts, files={GRUB: "", CMDLINE: None})
    assert only("bootconfig.vfio-ids-stale", gone).subject == "/proc/cmdline"


def test_words_without_effect_are_not_waited_for() -> None:
    facts = host(files={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet amd_iommu=on iommu=pt video=efifb:off"\n'})
    assert only("bootconfig.not-running", facts).message.startswith("iommu=pt is written down")


def test_arguments_that_add_up_are_no_duplicates() -> None:
    words = "rd.lvm.lv=pve/root rd.lvm.lv=pve/swap ivrs_ioapic=4@0000:00:14.0 ivrs_ioapic=5@0000:00:00.2"
    assert said("bootconfig.duplicates", host(kernel=Kernel("6.8.12-9-pve", words, "b"))) == []


def test_an_esp_counts_only_where_kernels_are_copied_to_it() -> None:
    small = (Space("/boot", 1 << 34, 1 << 33), Space("/boot/efi", 1 << 28, 1 << 26))
    assert said("platform.boot-space", host(spaces=small)) == []
    managed = Boot((Loader.SYSTEMD_BOOT,), managed=True)
    assert only("platform.boot-space", host(spaces=small, boot=managed)).subject == "/boot/efi"


def test_esps_that_nobody_looked_into_are_unknown() -> None:
    facts = host(boot=replace(SYSTEMD, managed=True), gaps=(Gap("spaces.esp", "not mounted"),))
    assert only("platform.boot-space", facts, Request()).level is Level.UNKNOWN


def test_unknown_interrupts_are_not_told_where_the_iommu_is_unknown() -> None:
    assert said("platform.interrupt-remapping", host(iommu=Iommu())) == []
    assert only("platform.interrupt-remapping", host(iommu=Iommu(("dmar0",)))).level is Level.UNKNOWN


def test_vendor_reset_for_a_card_that_it_knows_is_no_leftover() -> None:
    lines = {MODULES: "vendor-reset\n"}
    assert said("gpu.vendor-reset", host(files=lines)) != []
    known = with_device(GPU, vendor=0x1002, product=0x67DF)
    assert said("gpu.vendor-reset", host(files=lines, devices=known)) == []


def test_a_guest_with_its_own_limit_needs_no_word_about_address_bits() -> None:
    narrow = Iommu(("dmar0",), True, 39)
    assert commands(only("platform.address-width", host(iommu=narrow))) == ("qm set 100 --cpu host,phys-bits=39",)
    assert said("platform.address-width", host(iommu=narrow, guests=(guest(cpu="host,phys-bits=39"),))) == []


def test_a_console_elsewhere_needs_no_word_when_nobody_asked() -> None:
    facts = host(display=Display(console_owner=IGPU, framebuffer="simpledrmdrmfb"))
    serious = [one for one in judge(facts, Request()) if one.level in (Level.BLOCKS, Level.HARMS)]
    assert serious == []
