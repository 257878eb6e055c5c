"""Each rule fires on a machine that has its fault, and is silent on one that has not; and each has a page."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from pve_passthrough.model.facts import (
    Boot,
    Display,
    Esp,
    Facts,
    Firmware,
    Iommu,
    Kernel,
    Loader,
    Pve,
    Space,
    UseKind,
)
from pve_passthrough.model.finding import Finding, Level
from pve_passthrough.model.identity import Assignment
from pve_passthrough.model.own import UDEV_RULES
from pve_passthrough.model.pci import NO_GROUP, Address, Bar, Capabilities, Device, Link
from pve_passthrough.model.sighting import remember
from pve_passthrough.rules import RULES, Request, page, page_ids

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
    in_group,
    with_device,
)

SYSTEMD = Boot((Loader.SYSTEMD_BOOT,), (Esp("AAAA-BBBB", (Loader.SYSTEMD_BOOT,)),), managed=True)
MIXED = Boot((Loader.GRUB_ESP, Loader.SYSTEMD_BOOT), (Esp("AAAA-BBBB", (Loader.GRUB_ESP,)),), managed=True)
TESLA = Address(0, 4, 0, 0)


def kernel(cmdline: str = "root=/dev/sda1 quiet", release: str = "6.8.12-9-pve") -> Kernel:
    return Kernel(release, cmdline, "boot")


LENT = "0000:01:00.0 10de:2684\n0000:01:00.1 10de:22ba\n"
HOOK = "local:snippets/pve-passthrough-hook-100"


def lending(text: str = LENT, **config: str) -> Facts:
    """The good machine, whose guest borrows the card."""
    return host(files={"/etc/pve-passthrough/lent-100.conf": text}, guests=(guest(**config),))  # type: ignore[arg-type]


def grub(words: str) -> dict[str, str]:
    return {GRUB: f'GRUB_CMDLINE_LINUX_DEFAULT="{words}"\n'}


def modprobe(*lines: str) -> Facts:
    return host(files={VFIO: "".join(f"{line}\n" for line in lines)})


def config(*, drop: tuple[str, ...] = (), running: bool | None = False, **values: Any) -> Facts:
    return host(guests=(guest(drop=drop, running=running, **values),))


def plus(address: Address, name: str, ids: str, klass: int, group: int, driver: str = "", **more: object) -> Facts:
    return host(devices=(*DEVICES, device(address, name, ids, klass, group, driver, **more)))


NEW = (guest(drop=("hostpci0",)),)
"""A guest that does not have the card yet."""


def given(**changes: Any) -> Facts:
    """The good machine, changed since the guest was given its card."""
    return replace(host(**changes), assignments=(Assignment("run", 100, remember(host(), (GPU, SOUND))),))


def on_bus_7() -> tuple[Device, ...]:
    """The card behind its port, whose bus has another number now."""
    return tuple(replace(one, address=one.address._replace(bus=7)) if one.parent else one for one in DEVICES)


def without_card() -> tuple[Device, ...]:
    return tuple(one for one in DEVICES if one.parent is None)


FIRES: dict[str, tuple[Facts, Request, Level]] = {
    "platform.proxmox": (host(pve=Pve(installed=False)), BOTH, Level.BLOCKS),
    "platform.iommu": (host(iommu=Iommu(units=()), firmware=Firmware(dmar=False, ivrs=False)), BOTH, Level.BLOCKS),
    "platform.interrupt-remapping": (host(iommu=Iommu(("dmar0",), False)), BOTH, Level.BLOCKS),
    "platform.unsafe-interrupts": (
        modprobe("options vfio_iommu_type1 allow_unsafe_interrupts=1"),
        BOTH,
        Level.HARMS,
    ),
    "platform.kernel-build": (
        host(kernel=kernel(release="7.0.14-2-pve"), devices=with_device(GPU, driver="amdgpu")),
        BOTH,
        Level.BLOCKS,
    ),
    "platform.quorum": (host(pve=Pve(True, node="pve", quorate=False)), BOTH, Level.BLOCKS),
    "platform.config-writable": (host(pve=Pve(True, node="pve", quorate=True, writable=False)), BOTH, Level.BLOCKS),
    "platform.boot-space": (host(spaces=(Space("/boot", 512 * 1024**2, 20 * 1024**2),)), BOTH, Level.HARMS),
    "platform.address-width": (host(iommu=Iommu(("dmar0",), True, 39)), BOTH, Level.NOTE),
    "platform.secure-boot": (host(firmware=Firmware(True, secure_boot=True, dmar=True)), BOTH, Level.NOTE),
    "platform.unplaced-bars": (
        host(devices=with_device(GPU, bars=(Bar(1, 0, 16 * 1024**3, wide=True),))),
        BOTH,
        Level.HARMS,
    ),
    "drivers.present": (host(), Request((Address(0, 9, 0, 0),)), Level.BLOCKS),
    "groups.group": (host(devices=with_device(GPU, iommu_group=NO_GROUP)), BOTH, Level.BLOCKS),
    "hazards.root-disk": (in_group(UseKind.ROOT_DISK, vital=True), BOTH, Level.BLOCKS),
    "hazards.boot-disk": (in_group(UseKind.BOOT_DISK, vital=True), BOTH, Level.BLOCKS),
    "hazards.pool-disk": (in_group(UseKind.POOL_DISK), BOTH, Level.BLOCKS),
    "hazards.management-net": (in_group(UseKind.MANAGEMENT_NET, vital=True), BOTH, Level.BLOCKS),
    "hazards.cluster-net": (in_group(UseKind.CLUSTER_NET), BOTH, Level.BLOCKS),
    "hazards.only-display": (
        host(devices=tuple(one for one in with_device(GPU, driver="nouveau") if one.address != IGPU)),
        BOTH,
        Level.BLOCKS,
    ),
    "hazards.guest-conflict": (
        host(guests=(*NEW, guest(101, name="other", running=True))),
        BOTH,
        Level.BLOCKS,
    ),
    "hazards.boot-usb": (in_group(UseKind.BOOT_USB), BOTH, Level.HARMS),
    "hazards.data-disk": (in_group(UseKind.DATA_DISK), BOTH, Level.HARMS),
    "hazards.bridge-net": (in_group(UseKind.BRIDGE_NET), BOTH, Level.HARMS),
    "hazards.console": (
        host(display=Display(GPU, framebuffer="nouveaudrmfb"), devices=with_device(GPU, driver="nouveau")),
        BOTH,
        Level.HARMS,
    ),
    "hazards.keyboard": (in_group(UseKind.KEYBOARD), BOTH, Level.HARMS),
    "hazards.unknown-uses": (host(uses_known=frozenset({"disks"})), BOTH, Level.UNKNOWN),
    "groups.shared": (host(devices=with_device(XHCI, iommu_group=1)), BOTH, Level.HARMS),
    "groups.alone": (host(), BOTH, Level.FINE),
    "groups.companions": (host(), Request((GPU,), 100), Level.NOTE),
    "groups.nvswitch": (plus(TESLA, "NVSwitch", "10de:22a3", 0x068000, 1), BOTH, Level.HARMS),
    "groups.acs-override": (
        host(kernel=kernel("quiet pcie_acs_override=downstream,multifunction")),
        BOTH,
        Level.HARMS,
    ),
    "drivers.holder": (host(devices=with_device(GPU, driver="amdgpu")), BOTH, Level.HARMS),
    "drivers.after-boot": (
        replace(modprobe("options vfio-pci ids=10de:2684"), devices=with_device(GPU, driver="nouveau")),
        BOTH,
        Level.HARMS,
    ),
    "drivers.identical-ids": (plus(TESLA, "second RTX 4090", "10de:2684", 0x030000, 9, "nouveau"), BOTH, Level.NOTE),
    "drivers.sriov-pf": (
        host(devices=with_device(NIC, sriov_active=4)),
        Request((NIC,)),
        Level.BLOCKS,
    ),
    "drivers.reset": (host(devices=with_device(NIC, resettable=False)), Request((NIC,)), Level.NOTE),
    "drivers.d3cold": (host(devices=with_device(GPU, power_state="D3cold")), BOTH, Level.NOTE),
    "resets.bus-siblings": (
        host(
            devices=(
                *with_device(GPU, reset_methods=("bus",)),
                device(Address(0, 1, 0, 2), "USB", "10de:1ad8", 0x0C0330, 9, "xhci_hcd", parent=PORT),
            )
        ),
        BOTH,
        Level.HARMS,
    ),
    "resets.switched-off": (host(devices=with_device(GPU, reset_methods=())), BOTH, Level.HARMS),
    "resets.not-in-force": (
        host(
            devices=with_device(GPU, reset_methods=("flr",)),
            files={UDEV_RULES: f'KERNEL=="{GPU}", ATTR{{reset_method}}="pm"\n'},
        ),
        BOTH,
        Level.HARMS,
    ),
    "resets.never-ends": (
        host(
            devices=(
                *with_device(IGPU, reset_methods=("flr",)),
                device(Address(0, 0, 0x1F, 0), "LPC", "8086:438b", 0x060100, 7),
            )
        ),
        Request((IGPU,)),
        Level.HARMS,
    ),
    "resets.known": (
        host(devices=with_device(NIC, product=0x1502, reset_methods=("pm",))),
        Request((NIC,)),
        Level.FINE,
    ),
    "drivers.conventional-pci": (
        plus(TESLA, "Sound Blaster", "1102:0004", 0x040100, 9, capabilities=Capabilities()),
        Request((TESLA,)),
        Level.NOTE,
    ),
    "drivers.link": (host(devices=with_device(GPU, link=Link(2.5, 4, 16.0, 16))), BOTH, Level.NOTE),
    "gpu.reset-bug": (host(devices=with_device(GPU, vendor=0x1002, product=0x67DF)), BOTH, Level.HARMS),
    "gpu.vendor-reset": (host(files={MODULES: "vendor-reset\n"}), BOTH, Level.NOTE),
    "gpu.apu": (
        host(
            devices=(
                *with_device(GPU, vendor=0x1002, product=0x1636),
                device(Address(0, 1, 0, 2), "PSP", "1022:15df", 0x108000, 1),
            )
        ),
        BOTH,
        Level.HARMS,
    ),
    "gpu.framebuffer": (
        host(
            display=Display(console_owner=GPU, framebuffer="simpledrmdrmfb"),
            devices=with_device(GPU, class_code=0x038000),
        ),
        BOTH,
        Level.HARMS,
    ),
    "gpu.data-centre": (host(devices=with_device(GPU, product=0x1B38, class_code=0x030200)), BOTH, Level.NOTE),
    "gpu.no-outputs": (host(devices=with_device(GPU, class_code=0x030200)), BOTH, Level.NOTE),
    "gpu.intel-graphics": (host(), Request((IGPU,)), Level.NOTE),
    "gpu.option-rom": (host(devices=with_device(GPU, option_rom=False)), BOTH, Level.NOTE),
    "gpu.resizable-bar": (
        host(devices=with_device(GPU, bars=(Bar(1, 1 << 38, 1 << 28, wide=True, sizes=(1 << 28, 1 << 33)),))),
        BOTH,
        Level.NOTE,
    ),
    "guests.known": (host(), Request((GPU,), 999), Level.BLOCKS),
    "guests.locked": (config(lock="backup"), BOTH, Level.BLOCKS),
    "guests.template": (config(template="1"), BOTH, Level.BLOCKS),
    "guests.running": (config(drop=("hostpci0",), running=True), BOTH, Level.HARMS),
    "guests.assigned": (host(guests=NEW), BOTH, Level.HARMS),
    "guests.hostpci": (config(hostpci0="0A:00.0,pcie=1"), BOTH, Level.HARMS),
    "guests.rom-file": (
        host(guests=(guest(hostpci0="0000:01:00,romfile=gpu.rom"),), rom_files={"gpu.rom": False}),
        BOTH,
        Level.HARMS,
    ),
    "guests.twice": (config(hostpci1="01:00.1"), BOTH, Level.HARMS),
    "guests.mapping": (config(hostpci0="mapping=gone"), Request((), 100), Level.HARMS),
    "guests.machine": (config(machine="pc"), BOTH, Level.HARMS),
    "guests.firmware": (config(bios="seabios"), BOTH, Level.NOTE),
    "guests.efi-disk": (config(drop=("efidisk0",)), BOTH, Level.HARMS),
    "guests.cpu": (config(cpu="kvm64"), BOTH, Level.HARMS),
    "guests.cpu-invalid": (config(cpu="host,hv_vendor_id=proxmox,hidden=1"), BOTH, Level.HARMS),
    "guests.args-cpu": (config(args="-cpu 'host,kvm=off'"), BOTH, Level.HARMS),
    "guests.hidden": (config(cpu="host,hidden=1"), BOTH, Level.NOTE),
    "guests.window": (
        host(
            guests=(guest(cpu="x86-64-v2-AES"),),
            devices=with_device(GPU, bars=(Bar(1, 0, 32 * 1024**3, wide=True),)),
        ),
        BOTH,
        Level.HARMS,
    ),
    "guests.balloon": (config(balloon="2048"), BOTH, Level.HARMS),
    "guests.memory": (config(memory="131072"), BOTH, Level.BLOCKS),
    "guests.hugepages": (config(hugepages="1024"), BOTH, Level.HARMS),
    "guests.display": (config(hostpci0="0000:01:00,pcie=1,x-vga=1", vga="std"), BOTH, Level.NOTE),
    "guests.legacy-igd": (config(hostpci0="00:02.0,legacy-igd=1", machine="pc"), BOTH, Level.HARMS),
    "guests.onboot": (host(guests=(guest(drop=("hostpci0",), onboot="1"),)), BOTH, Level.HARMS),
    "guests.ha": (host(guests=(replace(guest(), ha_managed=True),)), BOTH, Level.NOTE),
    "guests.backup": (
        host(pve=Pve(True, node="pve", quorate=True, backup_vmids={100: "snapshot"})),
        BOTH,
        Level.NOTE,
    ),
    "guests.snapshots": (config(lock="suspended"), BOTH, Level.HARMS),
    "guests.comments": (config(balloon="0  # off"), BOTH, Level.HARMS),
    "guests.agent": (config(drop=("agent",)), BOTH, Level.NOTE),
    "drift.moved": (given(devices=on_bus_7()), Request((), 100), Level.BLOCKS),
    "drift.gone": (given(devices=without_card()), Request((), 100), Level.BLOCKS),
    "drift.other-card": (given(devices=with_device(GPU, product=0x1234)), Request((), 100), Level.BLOCKS),
    "drift.group": (given(devices=with_device(XHCI, iommu_group=1)), Request((), 100), Level.BLOCKS),
    "drift.remembered": (host(), Request((), 100), Level.NOTE),
    "drift.guarded": (given(), Request((), 100), Level.NOTE),
    "handover.lent": (lending(hookscript=HOOK), Request((), 100), Level.NOTE),
    "handover.no-hook": (lending(), Request((), 100), Level.HARMS),
    "handover.stale": (lending(LENT.replace("2684", "2685"), hookscript=HOOK), Request((), 100), Level.HARMS),
    "bootconfig.loader": (host(boot=MIXED), BOTH, Level.NOTE),
    "bootconfig.readable": (replace(host(boot=SYSTEMD), files={}), BOTH, Level.UNKNOWN),
    "bootconfig.broken-quote": (
        host(files={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet amd_iommu=on\nGRUB_CMDLINE_LINUX=""\n'}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.lost-assignment": (
        host(files={GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX_DEFAULT+=" iommu=pt"\n'}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.wrong-file": (
        host(boot=SYSTEMD, files={**grub("quiet intel_iommu=on"), CMDLINE: "root=ZFS=rpool/ROOT/pve-1 boot=zfs\n"}),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.no-root": (host(boot=SYSTEMD, files={CMDLINE: "quiet intel_iommu=on\n"}), BOTH, Level.HARMS),
    "bootconfig.not-running": (host(files=grub("quiet intel_iommu=on")), BOTH, Level.NOTE),
    "bootconfig.prose": (host(files=grub("quiet # added by me")), BOTH, Level.HARMS),
    "bootconfig.no-effect": (host(kernel=kernel("quiet amd_iommu=on")), BOTH, Level.NOTE),
    "bootconfig.dark-console": (host(files=grub("quiet initcall_blacklist=sysfb_init")), BOTH, Level.NOTE),
    "bootconfig.duplicates": (host(kernel=kernel("vfio-pci.ids=10de:1 vfio-pci.ids=10de:2")), BOTH, Level.NOTE),
    "bootconfig.vfio-ids-host": (modprobe("options vfio-pci ids=10de:2684,8086:7ae2"), BOTH, Level.BLOCKS),
    "bootconfig.vfio-ids": (modprobe("options vfio-pci ids=10de,2684"), BOTH, Level.HARMS),
    "bootconfig.vfio-ids-stale": (modprobe("options vfio-pci ids=10de:1b81"), BOTH, Level.NOTE),
    "bootconfig.vfio-options": (modprobe("options vfio-pci diable_vga=1"), BOTH, Level.HARMS),
    "bootconfig.disable-vga": (
        host(
            guests=(guest(bios="seabios", hostpci0="0000:01:00,pcie=1,x-vga=1"),),
            files={VFIO: "options vfio-pci disable_vga=1\n"},
        ),
        BOTH,
        Level.HARMS,
    ),
    "bootconfig.blacklist-host": (modprobe("blacklist i915"), BOTH, Level.HARMS),
    "bootconfig.blacklist-glob": (modprobe("blacklist nvidia*"), BOTH, Level.NOTE),
    "bootconfig.misspelt": (modprobe("blacklist nvidia_fb"), BOTH, Level.NOTE),
    "bootconfig.softdep": (modprobe("softdep nouveau pre:vfio-pci"), BOTH, Level.HARMS),
    "bootconfig.modprobe-comments": (modprobe("options kvm ignore_msrs=1 # for macOS"), BOTH, Level.HARMS),
    "bootconfig.package-file": (
        host(files={"/etc/modprobe.d/pve-blacklist.conf": "blacklist nvidiafb\nblacklist igb\n"}),
        BOTH,
        Level.NOTE,
    ),
    "bootconfig.virqfd": (host(files={MODULES: "vfio\nvfio_virqfd\n"}), BOTH, Level.NOTE),
    "bootconfig.module-list": (host(files={MODULES: "vfio vfio_pci ids=10de:2684\n"}), BOTH, Level.HARMS),
}

NOBODY = Request()
SILENT_ELSEWHERE: dict[str, tuple[Facts, Request]] = {
    "drift.remembered": (given(), BOTH),
    "drift.guarded": (given(guests=(guest(hookscript="local:snippets/pve-passthrough-hook-100"),)), BOTH),
    "groups.alone": FIRES["groups.shared"][:2],
    "guests.snapshots": (host(guests=()), NOBODY),
    "guests.memory": (host(guests=()), NOBODY),
}
"""Rules that have something to say on the good machine, too."""


def findings(rule_id: str, facts: Facts, request: Request) -> list[Finding]:
    rule = next(rule for rule in RULES if rule.id == rule_id)
    return list(rule.function(facts, request))


def test_the_table_names_every_rule() -> None:
    assert sorted(FIRES) == sorted(rule.id for rule in RULES)


@pytest.mark.parametrize("rule_id", [rule.id for rule in RULES])
def test_fires(rule_id: str) -> None:
    facts, request, level = FIRES[rule_id]
    found = findings(rule_id, facts, request)
    assert level in {finding.level for finding in found}
    for finding in found:
        assert finding.rule == rule_id
        assert finding.subject and finding.message.endswith(".")
        if finding.level not in (Level.FINE, Level.NOTE):
            assert finding.evidence or rule_id in NO_LINE, "a serious finding proves itself"
        for line in finding.evidence:
            assert ": " in line or rule_id in ("hazards.keyboard",), line


NO_LINE = frozenset({"guests.assigned", "guests.running", "guests.known", "platform.interrupt-remapping"})
"""Rules about something that is absent: there is no line to show."""


@pytest.mark.parametrize("rule_id", [rule.id for rule in RULES])
def test_silent(rule_id: str) -> None:
    facts, request = SILENT_ELSEWHERE.get(rule_id, (host(), BOTH))
    found = findings(rule_id, facts, request)
    if rule_id == "groups.alone":
        assert GPU not in {Address.parse(finding.subject) for finding in found}
    else:
        assert [finding for finding in found if finding.level is not Level.FINE] == []


@pytest.mark.parametrize("rule_id", page_ids())
def test_every_page_has_its_four_sections(rule_id: str) -> None:
    text = page(rule_id)
    assert text is not None
    lines = text.split("\n")
    assert lines[0].endswith("?"), "a page begins with its question"
    heads = [line.split(":")[0] for line in lines if line and not line.startswith(" ") and ":" in line]
    sections = ["Why", "Look at", "Fix", "Source"]
    assert [head for head in heads if head in sections] == sections
    assert "http" not in text


def test_an_unknown_rule_has_no_page() -> None:
    assert page("platform.nonsense") is None


def test_ids_are_unique_and_in_families() -> None:
    ids = page_ids()
    assert len(set(ids)) == len(ids)
    families = {
        "platform",
        "groups",
        "drivers",
        "resets",
        "gpu",
        "hazards",
        "guests",
        "drift",
        "handover",
        "bootconfig",
    }
    assert {one.split(".")[0] for one in ids} == families
