"""The whole of it: order, verdicts, hazards by name, and facts that nobody knows."""

from __future__ import annotations

from dataclasses import fields, replace
from time import perf_counter
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from pve_passthrough.model.facts import (
    Boot,
    Cpu,
    Display,
    Facts,
    Firmware,
    Gap,
    Iommu,
    Kernel,
    Loader,
    MapEntry,
    Modules,
    Pve,
    ResourceMapping,
    Use,
    UseKind,
)
from pve_passthrough.model.finding import Actor, Finding, Level, Safety, Verdict
from pve_passthrough.model.pci import Address, Capabilities, Device
from pve_passthrough.model.usb import UsbDevice
from pve_passthrough.model.vm import HostPci
from pve_passthrough.rules import Request, judge, verdict

from .worlds import (
    BOTH,
    CMDLINE,
    DEVICES,
    GPU,
    GRUB,
    IGPU,
    NIC,
    PORT,
    SATA,
    SOUND,
    VFIO,
    XHCI,
    device,
    guest,
    host,
    in_group,
    with_device,
)

INTEL_65 = Kernel("6.5.13-6-pve", "root=/dev/sda1 quiet", "boot")
OFF = Iommu(units=(), interrupt_remapping=None)


def only(rule: str, found: tuple[Finding, ...]) -> Finding:
    (one,) = [finding for finding in found if finding.rule == rule and finding.level is not Level.FINE]
    return one


# -- verdicts -------------------------------------------------------------------------------------------------------


def test_the_good_machine_is_ready() -> None:
    assert verdict(judge(host(), BOTH)) is Verdict.READY


def test_a_fit_host_without_a_request_is_ready() -> None:
    assert verdict(judge(host(), Request())) is Verdict.READY


def test_a_new_device_needs_changes() -> None:
    facts = host(guests=(guest(drop=("hostpci0",), machine="pc", cpu="kvm64"),))
    assert verdict(judge(facts, BOTH)) is Verdict.CHANGES_NEEDED


def test_a_hazard_blocks_until_it_is_accepted() -> None:
    found = judge(host(devices=with_device(XHCI, iommu_group=1), uses=()), BOTH)
    assert verdict(found) is Verdict.BLOCKED
    assert verdict(one for one in found if one.hazard not in {"shared-group"}) is Verdict.READY


def test_unknown_is_no_verdict_of_ready() -> None:
    facts = host(uses_known=frozenset({"network", "console", "keyboard"}), gaps=(Gap("uses.disks", "not root"),))
    found = judge(facts, BOTH)
    assert verdict(found) is Verdict.UNKNOWN
    assert only("hazards.unknown-uses", found).evidence == ("uses.disks: not root",)


def test_what_nobody_asked_for_is_a_note() -> None:
    facts = host(devices=tuple(one for one in DEVICES if one.address != IGPU and one.address != GPU))
    facts = replace(facts, devices=(*facts.devices, device(GPU, "card", "10de:2684", 0x030000, 1, "nouveau")))
    assert only("hazards.only-display", judge(facts, Request())).level is Level.NOTE
    assert only("hazards.only-display", judge(facts, BOTH)).level is Level.BLOCKS


# -- the IOMMU ------------------------------------------------------------------------------------------------------


def test_iommu_off_by_kernel_age_is_ours_to_mend() -> None:
    finding = only("platform.iommu", judge(host(iommu=OFF, kernel=INTEL_65), BOTH))
    assert (finding.level, finding.actor) == (Level.HARMS, Actor.US)
    assert finding.fix and GRUB in finding.fix.text and "update-grub" in finding.fix.text
    assert finding.fix.commands == ("pve-passthrough up 0000:01:00.0 --vm 100",)
    assert finding.fix.safety is Safety.ASK


def test_the_fix_names_this_loaders_file() -> None:
    facts = host(iommu=OFF, kernel=INTEL_65, boot=Boot((Loader.SYSTEMD_BOOT,), managed=True))
    fix = only("platform.iommu", judge(facts, BOTH)).fix
    assert fix and CMDLINE in fix.text and GRUB not in fix.text
    assert "proxmox-boot-tool refresh" in fix.text


def test_without_the_firmwares_table_only_the_firmware_helps() -> None:
    facts = host(iommu=OFF, kernel=INTEL_65, firmware=Firmware(dmar=False, ivrs=False))
    finding = only("platform.iommu", judge(facts, BOTH))
    assert (finding.level, finding.actor) == (Level.BLOCKS, Actor.FIRMWARE)


def test_an_argument_that_switches_it_off_is_taken_out() -> None:
    facts = host(iommu=OFF, kernel=Kernel("6.8.12-9-pve", "quiet intel_iommu=off", "boot"))
    finding = only("platform.iommu", judge(facts, BOTH))
    assert finding.actor is Actor.US and finding.fix and "out of" in finding.fix.text
    assert "/proc/cmdline: intel_iommu=off" in finding.evidence


def test_amd_is_never_told_to_add_an_argument() -> None:
    facts = host(iommu=OFF, cpu=Cpu("AuthenticAMD"), firmware=Firmware(dmar=False, ivrs=True))
    finding = only("platform.iommu", judge(facts, BOTH))
    assert finding.fix and "amd_iommu=on" not in finding.fix.text


def test_a_written_but_unbooted_argument_is_recognised() -> None:
    files = {GRUB: 'GRUB_CMDLINE_LINUX_DEFAULT="quiet intel_iommu=on"\n'}
    finding = only("platform.iommu", judge(host(iommu=OFF, kernel=INTEL_65, files=files), BOTH))
    assert f"{GRUB}:1: intel_iommu=on" in finding.evidence


# -- hazards --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("kind", "hazard"),
    [
        (UseKind.ROOT_DISK, "never"),
        (UseKind.BOOT_DISK, "never"),
        (UseKind.POOL_DISK, "never"),
        (UseKind.MANAGEMENT_NET, "never"),
        (UseKind.CLUSTER_NET, "never"),
        (UseKind.DATA_DISK, "data-disk"),
        (UseKind.BRIDGE_NET, "bridge-net"),
        (UseKind.KEYBOARD, "keyboard"),
        (UseKind.BOOT_USB, "boot-usb"),
    ],
)
def test_every_use_has_its_hazard(kind: UseKind, hazard: str) -> None:
    found = [one for one in judge(in_group(kind), BOTH) if one.rule.startswith("hazards.")]
    (finding,) = [one for one in found if one.hazard == hazard]
    assert "SATA Controller" in finding.message and finding.subject == str(SATA)


def test_a_vital_use_is_accepted_by_nothing() -> None:
    found = judge(in_group(UseKind.DATA_DISK, vital=True), BOTH)
    assert "never" in {one.hazard for one in found}


def test_the_guests_other_devices_count() -> None:
    facts = host(guests=(guest(hostpci1="0000:03:00.0"),))
    found = judge(facts, BOTH)
    assert only("hazards.management-net", found).subject == str(NIC)


def test_a_second_card_that_a_guest_holds_is_no_display_for_the_host() -> None:
    second = device(Address(0, 4, 0, 0), "other card", "10de:1b81", 0x030000, 9, "vfio-pci")
    devices = (*(one for one in with_device(GPU, driver="nouveau") if one.address != IGPU), second)
    assert only("hazards.only-display", judge(host(devices=devices), BOTH)).hazard == "only-display"


def test_a_keyboard_elsewhere_softens_the_loss() -> None:
    facts = in_group(UseKind.KEYBOARD)
    spare = UsbDevice("1-2", 0x046D, 0xC31C, 0, "spare keyboard", XHCI, keyboard=True)
    assert only("hazards.keyboard", judge(facts, BOTH)).level is Level.HARMS
    assert only("hazards.keyboard", judge(replace(facts, usb=(spare,)), BOTH)).level is Level.NOTE


def test_another_guest_with_the_device() -> None:
    new = guest(drop=("hostpci0",))
    stopped = judge(host(guests=(new, guest(101, name="other"))), BOTH)
    assert only("hazards.guest-conflict", stopped).level is Level.HARMS
    assert only("hazards.guest-conflict", stopped).hazard == "guest-conflict"
    settled = judge(host(guests=(guest(), guest(101, name="other"))), BOTH)
    assert only("hazards.guest-conflict", settled).hazard == ""
    elsewhere = replace(guest(101, name="other", running=True), node="far")
    assert not [one for one in judge(host(guests=(new, elsewhere)), BOTH) if one.rule == "hazards.guest-conflict"]


# -- groups ---------------------------------------------------------------------------------------------------------


def test_the_override_names_only_the_port_that_lacks_acs() -> None:
    lacking = with_device(PORT, capabilities=Capabilities(express=4, extended=True))
    devices = tuple(replace(one, iommu_group=1) if one.address == XHCI else one for one in lacking)
    fix = only("groups.shared", judge(host(devices=devices, uses=()), BOTH)).fix
    assert fix and "pcie_acs_override=id:8086:460d " in fix.text and "downstream" not in fix.text


def test_no_override_is_advised_where_the_port_has_acs() -> None:
    able = with_device(PORT, capabilities=Capabilities(express=4, acs=0x1D, extended=True))
    devices = tuple(replace(one, iommu_group=1) if one.address == XHCI else one for one in able)
    fix = only("groups.shared", judge(host(devices=devices, uses=()), BOTH)).fix
    assert fix and "pcie_acs_override=" not in fix.text


def test_the_chipset_is_no_card() -> None:
    sound = device(Address(0, 0, 0x1F, 3), "HD Audio", "8086:7ad0", 0x040300, 8)
    bridge = device(Address(0, 0, 0x1F, 4), "SMBus", "8086:7aa3", 0x0C0500, 8)
    facts = host(devices=(*DEVICES, sound, bridge))
    assert "SMBus" in only("groups.shared", judge(facts, Request((sound.address,)))).message


def test_an_unknown_group_is_unknown() -> None:
    facts = host(devices=with_device(GPU, iommu_group=None), gaps=(Gap("pci.iommu_group", "permission denied"),))
    finding = only("groups.group", judge(facts, BOTH))
    assert finding.level is Level.UNKNOWN and finding.evidence == ("pci.iommu_group: permission denied",)
    assert verdict(judge(facts, BOTH)) is Verdict.UNKNOWN


def test_twins_and_a_list_of_ids_are_worse_than_twins() -> None:
    twin = device(Address(0, 4, 0, 0), "second RTX 4090", "10de:2684", 0x030000, 9, "nouveau")
    facts = host(devices=(*DEVICES, twin), files={VFIO: "options vfio-pci ids=10de:2684\n"})
    assert only("drivers.identical-ids", judge(facts, BOTH)).level is Level.HARMS


# -- mappings -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("options", "fault"),
    [
        ({"id": "10de:2684", "iommugroup": "1"}, ""),
        ({"id": "10de:1b81"}, "10de:2684"),
        ({"id": "10de:2684", "iommugroup": "14"}, "has 1"),
        ({"id": "10de:2684"}, "lacks iommugroup=1"),
        ({"iommugroup": "1"}, "lacks id=10de:2684"),
    ],
)
def test_a_mapping_is_held_against_the_hardware(options: dict[str, str], fault: str) -> None:
    entry = HostPci("hostpci0", {"mapping": "card"}, (GPU, SOUND), "card")
    mapping = ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", options),))
    facts = host(guests=(replace(guest(hostpci0="mapping=card"), hostpci=(entry,)),), mappings=(mapping,))
    found = [one for one in judge(facts, BOTH) if one.rule == "guests.mapping"]
    assert bool(found) is bool(fault)
    assert all(fault in one.message for one in found)


# -- what nobody knows ----------------------------------------------------------------------------------------------


def test_a_machine_that_nobody_knows_blocks_nothing() -> None:
    for request in (Request(), BOTH, Request((GPU,)), Request((), 100)):
        found = judge(Facts("nowhere"), request)
        assert verdict(found) is Verdict.UNKNOWN
        assert {one.level for one in found} <= {Level.UNKNOWN, Level.NOTE, Level.FINE}


def test_a_device_that_nobody_could_read_blocks_nothing() -> None:
    found = judge(Facts("nowhere", devices=(Device(GPU), Device(SOUND))), BOTH)
    assert verdict(found) is Verdict.UNKNOWN
    assert not [one for one in found if one.level is Level.BLOCKS]


KNOWN = host(
    files={VFIO: "options vfio-pci ids=10de:2684 # x\nsoftdep a pre:b\nblacklist nvidia*\n", CMDLINE: "quiet\n\n"},
    usb=(UsbDevice("1-2", None, None, None, "", XHCI, keyboard=True),),
    mappings=(ResourceMapping("pci", "card", (MapEntry("pve", "0000:01:00", {}),)),),
)
PARTS = {
    "iommu": Iommu(),
    "cpu": Cpu(),
    "firmware": Firmware(),
    "kernel": Kernel(),
    "modules": Modules(),
    "boot": Boot(),
    "display": Display(),
    "pve": Pve(),
}


@st.composite
def partial_facts(draw: st.DrawFn) -> Facts:
    """The known machine with any of its parts, fields and devices' fields taken away."""
    gone: dict[str, Any] = {}
    for name, nothing in PARTS.items():
        part = getattr(KNOWN, name)
        lost = {f.name: getattr(nothing, f.name) for f in fields(part) if draw(st.booleans())}
        gone[name] = replace(part, **lost)
    for name in ("guests", "memory_total", "memory_free"):
        if draw(st.booleans()):
            gone[name] = None
    for name, nothing in (("files", {}), ("uses", ()), ("spaces", ()), ("mappings", ()), ("usb", ())):
        if draw(st.booleans()):
            gone[name] = nothing
    blank = Device(GPU)
    names = [f.name for f in fields(blank) if f.name not in ("address", "name")]
    lost_names = draw(st.sets(st.sampled_from(names)))
    gone["devices"] = tuple(
        replace(one, **{name: getattr(blank, name) for name in lost_names}) for one in KNOWN.devices
    )
    return replace(KNOWN, **gone)


REQUESTS = (Request(), BOTH, Request((GPU,)), Request((), 100), Request((NIC,), 999))


@settings(max_examples=120, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(partial_facts(), st.sampled_from(REQUESTS))
def test_judge_takes_any_facts_and_is_deterministic(facts: Facts, request: Request) -> None:
    found = judge(facts, request)
    assert found == judge(facts, request)
    order = [list(Level).index(one.level) for one in found]
    assert order == sorted(order), "worst first"
    assert len(set(found)) == len(found)
    verdict(found)
    known = {(one.rule, one.subject) for one in judge(KNOWN, request) if one.level is Level.BLOCKS}
    blocks = {(one.rule, one.subject) for one in found if one.level is Level.BLOCKS}
    assert blocks <= known, "what is unknown never blocks"


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.text(max_size=200), st.sampled_from([GRUB, CMDLINE, VFIO, "/etc/modules"]), st.text(max_size=40))
def test_any_text_in_a_file_or_a_guest_is_only_text(text: str, path: str, value: str) -> None:
    keys = ("cpu", "args", "memory", "balloon", "machine", "vga", "hostpci1", "agent")
    values: dict[str, Any] = dict.fromkeys(keys, value)
    judge(host(files={path: text}, guests=(guest(**values),), kernel=Kernel(value, text, None)), BOTH)


def test_a_machine_of_559_functions_is_judged_in_no_time() -> None:
    many = tuple(
        device(Address(0, 16 + number // 256, number // 8 % 32, number % 8), "port", "8086:1234", 0x020000, number)
        for number in range(552)
    )
    facts = host(devices=(*DEVICES, *many), uses=(Use(SATA, UseKind.ROOT_DISK, "root", vital=True),))
    judge(facts, BOTH)
    best = min(_seconds(facts) for _ in range(3))
    assert best < 0.1


def _seconds(facts: Facts) -> float:
    begin = perf_counter()
    judge(facts, Request())
    return perf_counter() - begin
