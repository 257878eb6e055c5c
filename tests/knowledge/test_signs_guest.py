"""Lines of tasks, QEMU, guests and tools: what they lead to alone, together, and beside what a person says."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from fnmatch import fnmatchcase

import pytest
import yaml

from pve_passthrough.diagnosis import Material, diagnose
from pve_passthrough.knowledge.signs import SIGNS
from pve_passthrough.model.diagnosis import Diagnosis

from ..shared import SHARED, needs_shared

DEVICE = "kvm: -device vfio-pci,host=0000:0b:00.0,id=hostpci0,bus=ich9-pcie-port-1,addr=0x0"
VFIO = f"{DEVICE}: vfio 0000:0b:00.0"
STARTED = "UPID:pve:00001092:0002A3F4:6913C2A0:qmstart:100:root@pam:"
EPERM = "Operation not permitted"
ENDED = "TASK ERROR: start failed: QEMU exited with code 1"
AREAS = ("qemu", "pve", "guest", "windows", "vgpu", "usb", "builds")


def diagnosed(*lines: str, symptom: str = "", name: str = "task.log") -> Diagnosis:
    return diagnose([Material(name, ("\n".join((STARTED, *lines)).encode(),))], symptom)


def first(*lines: str, symptom: str = "") -> str:
    return diagnosed(*lines, symptom=symptom).first.cause


@pytest.mark.parametrize(
    ("line", "cause"),
    [
        (f"{VFIO}: group 12 is not viable", "group-shared-host-device"),
        (f"{VFIO}: error getting device from group 23: Device or resource busy", "host-driver-busy"),
        (f"{VFIO}: error getting device from group 23: Permission denied", "kernel-regression"),
        (f"{VFIO}: no iommu_group found: No such file or directory", "iommu-off"),
        (f"{VFIO}: no such host device: No such file or directory", "bdf-renumbered"),
        (f"{VFIO}: failed to setup container for group 7: No available IOMMU models", "bad-modprobe"),
        (f"{VFIO}: Could not open '/dev/vfio/12': Device or resource busy", "host-driver-busy"),
        (f"{VFIO}: failed to setup container for group 12: memory listener initialization failed: Region pc.ram: "
         "vfio_container_dma_map(0x55d2a0, 0x100000000, 0x380000000, 0x7f1a000) = -12 (Cannot allocate memory)",
         "memory-pinning"),
        ("kvm: VFIO_MAP_DMA failed: Cannot allocate memory", "memory-pinning"),
        ("kvm: cannot set up guest memory 'pc.ram': Cannot allocate memory", "memory-pinning"),
        ("kvm: vfio: Unable to power on device, stuck in D3", "power-state"),
        ("kvm: vfio: Cannot reset device 0000:0b:00.1, depends on group 12 which is not owned.",
         "partial-multifunction"),
        (f"{DEVICE}: Failed to mmap 0000:0b:00.0 BAR 1. Performance may be slow", "boot-framebuffer"),
        ("kvm: vfio_region_write(0000:0b:00.0:region1+0x10c, 0x0,4) failed: Device or resource busy",
         "boot-framebuffer"),
        (f'{DEVICE}: failed to find romfile "/usr/share/kvm/card.rom"', "rom-invalid"),
        (f"{VFIO}: failed to add PCI capability 0x11[0x50]@0xb0: table & pba overlap, or they don't fit in BARs, or "
         "don't align", "msix-layout"),
        (f"{VFIO}: Failed to set up TRIGGER eventfd signaling for interrupt INTX-0: VFIO_DEVICE_SET_IRQS failure: "
         "Device or resource busy", "intx-broken"),
        ("kvm: IGD device 0000:00:02.0 cannot support legacy mode due to existing devices at address 1f.0",
         "igd-legacy"),
        (f"{DEVICE}: PCI: slot 2 function 0 not available for vfio-pci, in use by VGA,id=vga", "bad-vm-config"),
        (f"{DEVICE}: Bus 'ich9-pcie-port-1' not found", "bad-vm-config"),
        ("Requested operation is not valid: PCI device 0000:0b:00.0 is in use by driver QEMU, domain games",
         "host-driver-busy"),
        ("error: unsupported configuration: host doesn't support passthrough of host PCI devices", "iommu-off"),
        ("internal error: Device 0000:0b:00.0 is behind a switch lacking ACS and cannot be assigned", "group-no-acs"),
        ("failed to generate spec: lstat /dev/vfio/53: no such file or directory", "group-renumbered"),
        ("TASK ERROR: cannot prepare PCI pass-through, IOMMU not present", "iommu-off"),
        ("TASK ERROR: no PCI device found for '0000:0b:00'", "bdf-renumbered"),
        ("TASK ERROR: PCI device '0000:0b:00.0' already in use by VMID '101'", "host-driver-busy"),
        ("TASK ERROR: q35 machine model is not enabled at /usr/share/perl5/PVE/QemuServer/PCI.pm line 500.",
         "bad-vm-config"),
        ("vm 100 - unable to parse value of 'cpu' - format error", "bad-vm-config"),
        ("TASK ERROR: PCI device mapping invalid (hardware probably changed): 'iommugroup' does not match for 'card' "
         "(15 != 13)", "group-renumbered"),
        ("TASK ERROR: PCI device mapping invalid (hardware probably changed): 'id' does not match for 'card' "
         "(10de:2206 != 8086:1533)", "bdf-renumbered"),
        ("TASK ERROR: pci device '0000:00:02.0' has no available instances of 'i915-GVTg_V5_4'", "vgpu-config"),
        ("TASK ERROR: Cannot find vfio-pci module!", "bad-modprobe"),
        ("TASK ERROR: legacy IGD assignment is not compatible with q35", "igd-legacy"),
        ("/usr/sbin/grub-mkconfig: 12: /etc/default/grub: 9: Syntax error: Unterminated quoted string",
         "bad-kernel-arguments"),
        ("NVRM: BAR1 is 0M @ 0x0 (PCI:0000:01:00.0)", "guest-address-space"),
        ("NVRM: _kgspBootGspRm: unexpected WPR2 already up, cannot proceed with booting GSP", "reset-defective"),
        ("amdgpu 0000:01:00.0: amdgpu: PSP create ring failed!", "amd-reset-bug"),
        ("amdgpu 0000:01:00.0: amdgpu: Unable to locate a BIOS ROM", "rom-invalid"),
        ("This device cannot find enough free resources that it can use. (Code 12)", "guest-address-space"),
        ("error: vmiop_env_log: Failed to get VM UUID from QEMU command-line 0x57", "vgpu-config"),
        ("i915 0000:00:02.0: [drm] Unsupported device. GVT-g is disabled", "vgpu-config"),
        ("i915 0000:06:10.0: [drm] *ERROR* GT0: GUC: mmio request 0x4100: failure 201/0", "sriov-setup"),
        ("modprobe: FATAL: Module nvidia is in use.", "host-driver-busy"),
        ("modprobe: FATAL: Module vendor-reset not found in directory /lib/modules/6.14.8-2-pve",
         "vendor-reset-method"),
        ("modprobe: libkmod: kmod_config_parse: /etc/modprobe.d/vfio.conf line 3: ignoring bad line starting with "
         "'option'", "bad-modprobe"),
    ],
)  # fmt: skip
def test_a_line_leads_to_its_cause(line: str, cause: str) -> None:
    assert first(line) == cause
    assert first("swtpm_setup: Not overwriting existing state file.", line, ENDED) == cause


# -- lines together ------------------------------------------------------------------------------


def test_a_failed_reset_explains_what_qemu_and_the_guest_say_of_the_device_afterwards() -> None:
    host = "[  100.0] vfio-pci 0000:0b:00.0: not ready 65535ms after FLR; giving up"
    later = f"{DEVICE}: vfio: Unable to power on device, stuck in D3"
    found = diagnose([Material("kernel.log", (host.encode(),)), Material("task.log", (f"{later}\n{ENDED}".encode(),))])
    assert found.first.cause == "reset-defective"
    assert "qemu.stuck-d3" in {one.sign for one in found.first.explains}


def test_what_the_kernel_said_explains_qemus_refusal() -> None:
    refused = f"{VFIO}: failed to setup container for group 7: Failed to set iommu for container: {EPERM}"
    reserved = (
        "vfio-pci 0000:0b:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the "
        "device without a 1:1 mapping. Contact your platform vendor."
    )
    assert first(reserved, refused) == "reserved-region"
    assert {one.cause for one in diagnosed(refused).candidates[:2]} == {"no-interrupt-remapping", "reserved-region"}


def test_a_mapping_that_only_other_cards_need_is_no_trouble_of_the_guest() -> None:
    line = "kvm: vfio_dma_map(0x5e043daea2f0, 0x380010000000, 0x2000000, 0x771a6ce00000) = -22 (Invalid argument)"
    hint = "kvm: vfio 0000:0b:00.0: failed to vfio_dma_map. pci p2p may not work"
    assert first(line) == "guest-address-space"
    assert first("kvm: VFIO_MAP_DMA failed: Invalid argument", hint, line) == "no-fault"


@pytest.mark.parametrize(
    "words",
    [
        "vfio 0000:0b:00.0: failed to vfio_dma_map. pci p2p may not work",
        "vfio: PCI p2p may not work: vfio_container_dma_map(0x5e, 0x380010000000, 0x2000000, 0x77) = -22 (Invalid "
        "argument)",
        "vfio: 0000:0b:00.0: PCI peer-to-peer transactions on BARs are not supported.",
    ],
)
def test_every_qemus_words_for_it_accuse_nobody(words: str) -> None:
    assert first(f"kvm: {words}") in ("no-fault", "unknown")


def test_memory_that_the_host_holds_explains_the_drivers_failure() -> None:
    taken = f"{DEVICE}: Failed to mmap 0000:0b:00.0 BAR 0. Performance may be slow"
    assert first(taken, "amdgpu 0000:01:00.0: amdgpu: Fatal error during GPU init") == "boot-framebuffer"
    assert first("amdgpu 0000:01:00.0: amdgpu: Fatal error during GPU init") == "amd-reset-bug"


@pytest.mark.parametrize(
    "reason",
    [
        "NVRM: installed in this system requires use of the NVIDIA open kernel modules.",
        "NVRM: nvidia.ko because it does not include the required GPU",
        "NVRM: GPU 0000:01:00.0: GPU does not have the necessary power cables connected.",
    ],
)
def test_a_wrong_driver_or_a_cable_is_not_blamed_on_the_passthrough(reason: str) -> None:
    failed = "NVRM: GPU 0000:01:00.0: RmInitAdapter failed! (0x22:0x56:1017)"
    none = "NVIDIA-SMI has failed because it couldn't communicate with the NVIDIA driver."
    assert first(reason, failed, none) == "unknown"
    assert first(failed) == "reset-defective"


def test_missing_firmware_of_the_guest_explains_amds_driver() -> None:
    missing = "amdgpu 0000:01:00.0: Direct firmware load for amdgpu/gc_11_0_0_pfp.bin failed with error -2"
    assert first(missing, "amdgpu 0000:01:00.0: amdgpu: Fatal error during GPU init") == "unknown"


def test_a_wrapper_beside_harmless_lines_is_not_called_harmless() -> None:
    warning = "kvm: warning: host doesn't support requested feature: CPUID.80000001H:ECX.svm [bit 2]"
    assert first(warning) == "no-fault"
    assert first(warning, ENDED) == "unknown"


# -- beside what a person says -------------------------------------------------------------------

CODE_43 = "Windows has stopped this device because it has reported problems. (Code 43)"


@pytest.mark.parametrize(
    ("symptom", "cause"),
    [
        ("GeForce of a laptop, error 43", "laptop-battery"),
        ("vGPU profile of a Tesla card", "vgpu-config"),
        ("Radeon card: works at the first start, after a reboot of the guest it fails", "amd-reset-bug"),
    ],
)
def test_what_a_person_says_decides_what_code_43_means(symptom: str, cause: str) -> None:
    assert first(CODE_43, symptom=symptom) == cause


def test_code_43_alone_is_open_between_several_causes() -> None:
    found = diagnosed(CODE_43)
    assert found.first.confidence < 0.5
    assert {"guest-detects-vm", "rom-invalid", "guest-firmware"} <= {one.cause for one in found.candidates[:4]}


@pytest.mark.parametrize("words", ["ConfigManagerErrorCode : 12", "Problem : CM_PROB_NORMAL_CONFLICT"])
def test_a_windows_code_is_read_in_every_spelling(words: str) -> None:
    assert first(words) == "guest-address-space"


def test_a_code_in_two_spellings_counts_once() -> None:
    one = diagnosed("This device cannot find enough free resources that it can use. (Code 12)")
    two = diagnosed("This device cannot find enough free resources. (Code 12)", "Problem : CM_PROB_NORMAL_CONFLICT")
    assert one.first.score == two.first.score


# -- the rows as such ----------------------------------------------------------------------------


@pytest.mark.parametrize("sample", [row.sample for row in SIGNS if row.harmless and row.id.split(".")[0] in AREAS])
def test_a_harmless_line_alone_is_no_fault(sample: str) -> None:
    assert first(sample) == "no-fault"


def test_no_two_rows_explain_each_other_away() -> None:
    names = [row.id for row in SIGNS]
    follows = {
        row.id: {name for name in names for pattern in row.follows if name != row.id and fnmatchcase(name, pattern)}
        for row in SIGNS
    }

    def circle(start: str) -> bool:
        seen: set[str] = set()
        left = list(follows[start])
        while left:
            name = left.pop()
            if name == start:
                return True
            if name not in seen:
                seen.add(name)
                left += follows[name]
        return False

    assert [name for name in names if circle(name)] == []


def test_the_words_of_every_program_have_a_known_name() -> None:
    assert {row.program for row in SIGNS} <= {"kernel", "qemu", "qemu-server"}


ACCEPTED: Mapping[str, set[str]] = {
    "Q01": {"group-shared-host-device"}, "Q02": {"kernel-regression"}, "Q03": {"group-shared-host-device"},
    "Q04": {"no-interrupt-remapping", "reserved-region"}, "Q05": {"bad-modprobe"}, "Q06": {"memory-pinning"},
    "Q07": {"guest-address-space"}, "Q09": {"memory-pinning", "guest-address-space"}, "Q10": {"power-state"},
    "Q11": {"partial-multifunction"}, "Q12": {"boot-framebuffer"}, "Q13": {"rom-invalid"}, "Q14": {"rom-invalid"},
    "Q15": {"msix-layout"}, "Q16": {"msix-layout"}, "Q17": {"bad-modprobe", "bad-vm-config"}, "Q18": {"igd-legacy"},
    "Q19": {"igd-legacy"}, "Q20": {"igd-legacy"}, "Q21": {"reset-defective", "power-state"}, "Q23": {"bdf-renumbered"},
    "Q24": {"host-driver-busy"}, "Q25": {"reset-defective", "power-state"}, "Q26": {"rom-invalid"},
    "Q28": {"kernel-regression"}, "Q29": {"vgpu-config"},
    "P01": {"iommu-off"}, "P02": {"host-driver-busy", "group-shared-host-device"}, "P03": {"host-driver-busy"},
    "P06": {"bdf-renumbered"}, "P07": {"host-driver-busy"}, "P09": {"bad-vm-config"}, "P10": {"bad-vm-config"},
    "P11": {"memory-pinning", "reset-defective"}, "P12": {"group-renumbered"}, "P13": {"bad-vm-config"},
    "P15": {"bad-vm-config"}, "P18": {"bad-vm-config"}, "P19": {"igd-legacy"}, "P20": {"vgpu-config"},
    "P21": {"vgpu-config"}, "P23": {"guest-address-space"}, "P24": {"bad-vm-config"}, "P27": {"bad-modprobe"},
    "P28": {"kernel-regression", "iommu-off"}, "P29": {"bad-vm-config"}, "P30": {"vgpu-config"},
    "P31": {"reset-defective"},
    "G01": {"guest-address-space"}, "G02": {"guest-address-space"}, "G03": {"reset-defective"}, "G07": {"power-state"},
    "G08": {"reset-defective"}, "G11": {"amd-reset-bug"}, "G12": {"amd-reset-bug", "boot-framebuffer"},
    "G13": {"sriov-setup"}, "G14": {"vgpu-config"}, "G16": {"vgpu-config"},
    "W01": {"guest-detects-vm"}, "W02": {"guest-address-space"}, "W07": {"guest-detects-vm"},
    "B01": {"vendor-reset-method"},
}  # fmt: skip
"""Lines of the list of symptoms by number, and the causes that fit."""
SILENT = ("Q08", "Q22", "Q27", "P04", "P05", "P08", "P16", "P17", "P22", "P25", "P26", "G04", "G05", "G06", "G09",
          "G10", "G15", "W03", "W04", "W05", "B02", "Q30")  # fmt: skip
"""Lines of the same list that name no cause of the passthrough by themselves."""


@pytest.fixture(scope="module")
def symptoms() -> Iterator[dict[str, str]]:
    rows = yaml.safe_load((SHARED / "symptoms.yaml").read_text())
    yield {row["id"]: row["sample"] for row in rows}


@needs_shared
@pytest.mark.parametrize("number", ACCEPTED)
def test_a_line_of_the_list_leads_to_a_cause_that_fits(number: str, symptoms: Mapping[str, str]) -> None:
    assert first(symptoms[number]) in ACCEPTED[number]


@needs_shared
@pytest.mark.parametrize("number", SILENT)
def test_a_line_of_the_list_that_proves_nothing_accuses_nobody(number: str, symptoms: Mapping[str, str]) -> None:
    assert any(row.needle in symptoms[number] and row.pattern.search(symptoms[number]) for row in SIGNS)
    assert first(symptoms[number]) in ("unknown", "no-fault")
