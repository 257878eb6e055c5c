"""Lines together: what the card is, what came before, how often it stands there."""

from __future__ import annotations

import pytest

from pve_passthrough.diagnosis import Material, diagnose
from pve_passthrough.model.diagnosis import Diagnosis

AMD = "pci 0000:0b:00.0: [1002:67df] type 00 class 0x030000"
NVIDIA = "pci 0000:0b:00.0: [10de:2206] type 00 class 0x030000"
GAVE_UP = "vfio-pci 0000:0b:00.0: not ready 65535ms after bus reset; giving up"
LOADED = "vendor_reset_hook: installed"
USED = "vfio-pci 0000:0b:00.0: AMD_POLARIS10: performing pre-reset"


def diagnosed(*lines: str) -> Diagnosis:
    text = "".join(f"[{20 + number:5}.000000] {line}\n" for number, line in enumerate(lines))
    return diagnose([Material("kernel log", (text.encode(),))])


def first(*lines: str) -> str:
    return diagnosed(*lines).first.cause


@pytest.mark.parametrize(
    ("lines", "cause"),
    [
        ((GAVE_UP,), "reset-defective"),
        ((NVIDIA, GAVE_UP), "reset-defective"),
        ((AMD, GAVE_UP), "amd-reset-bug"),
        (("pci 0000:0c:00.0: [1002:67df] type 00 class 0x030000", GAVE_UP), "reset-defective"),
        (("options vfio-pci ids=1002:67df,1002:aaf0", GAVE_UP), "amd-reset-bug"),
        (("options vfio-pci ids=1002:67df,10de:2206", GAVE_UP), "reset-defective"),
        ((AMD, LOADED, GAVE_UP), "vendor-reset-method"),
        ((AMD, LOADED, USED, GAVE_UP), "amd-reset-bug"),
    ],
)
def test_the_card_and_vendor_reset_tell_which_reset_trouble_it_is(lines: tuple[str, ...], cause: str) -> None:
    assert first(*lines) == cause


@pytest.mark.parametrize(
    "after",
    [
        "vfio-pci 0000:0b:00.0: Unable to change power state from D3cold to D0, device inaccessible",
        "AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:0b:00.0 address=0x100203d40]",
        "AMD-Vi: Completion-Wait loop timed out",
        "DMAR: VT-d detected Invalidation Time-out Error: SID b00",
        "pcieport 0000:00:03.1: PCIe Bus Error: severity=Uncorrected (Fatal), type=Transaction Layer, (Requester ID)",
        "pci 0000:0b:00.0: unknown header type 7f, ignoring device",
        "INFO: task kvm:4242 blocked for more than 122 seconds.",
        "vfio-pci 0000:0b:00.0: Invalid PCI ROM header signature: expecting 0xaa55, got 0xffff",
    ],
)
def test_a_failed_reset_explains_what_comes_after_it(after: str) -> None:
    found = diagnosed(GAVE_UP, after)
    assert found.first.cause == "reset-defective"
    assert [one.text for one in found.first.explains] == [after]


def test_a_line_that_repeats_means_more_than_one_that_stands_alone() -> None:
    fault = "vfio-pci 0000:0b:00.0: AMD-Vi: Event logged [IO_PAGE_FAULT domain=0x001e address=0x{:x}000 flags=0x0050]"
    assert first(AMD, fault.format(1)) == "unknown"
    assert first(AMD, *(fault.format(number) for number in range(1, 9))) == "amd-reset-bug"


def test_missing_interrupt_remapping_is_the_cause_and_the_firmware_the_second() -> None:
    found = diagnosed(
        "AMD-Vi: [Firmware Bug]: : No southbridge IOAPIC found",
        "AMD-Vi: Disabling interrupt remapping",
        "vfio_iommu_type1_attach_group: No interrupt remapping support.  Use the module param "
        '"allow_unsafe_interrupts" to enable VFIO IOMMU support on this platform',
    )
    assert [one.cause for one in found.candidates[:2]] == ["no-interrupt-remapping", "iommu-firmware"]


def test_a_started_iommu_speaks_against_its_being_off() -> None:
    refused = "vfio-pci: probe of 0000:01:00.0 failed with error -22"
    assert first(refused) == "iommu-off"
    assert first("pci 0000:01:00.0: Adding to iommu group 12", refused) != "iommu-off"


def test_a_switched_off_line_is_that_of_the_guest_when_its_handler_is_listed() -> None:
    storm = ('irq 16: nobody cared (try booting with the "irqpoll" option)', "Disabling IRQ #16")
    handler = "[<00000000a1b2c3d4>] vfio_intx_handler [vfio_pci_core]"
    plain, guests = diagnosed(*storm).first, diagnosed(*storm, handler).first
    assert plain.cause == guests.cause == "intx-broken"
    assert guests.score > plain.score


@pytest.mark.parametrize(
    "lines",
    [
        ("DMAR: No ATSR found", "DMAR: DRHD: handling fault status reg 2"),
        ("DMAR: IOMMU enabled", "DMAR: No RMRR found", "DMAR: No SATC found"),
        ("[Firmware Bug]: TSC_DEADLINE disabled due to Errata; please update microcode to version: 0x22 (or later)",),
        ("kvm [4242]: ignored rdmsr: 0xc0011029 data 0x0", "kvm [4242]: ignored wrmsr: 0x122 data 0x0"),
        ("pcieport 0000:00:1c.5: PCIe Bus Error: severity=Corrected, type=Physical Layer, (Receiver ID)",) * 200,
        ("pci 0000:01:01.0: BAR 13: failed to assign [io  size 0x1000]",
         "pci 0000:01:00.0: BAR 6: failed to assign [mem size 0x00080000 pref]"),
        ("DMAR: [DMA Read NO_PASID] Request device [01:00.0] fault addr 0x0 [fault reason 0x06] PTE Read access is not "
         "set",),
        ("[drm] Initialized simpledrm 1.0.0 for simple-framebuffer.0 on minor 0",
         "pci 0000:01:00.0: Video device with shadowed ROM at [mem 0x000c0000-0x000dffff]"),
        ("vfio-pci 0000:01:00.0: not ready 1023ms after bus reset; waiting",
         "vfio-pci 0000:01:00.0: ready 2047ms after bus reset"),
    ],
)  # fmt: skip
def test_what_working_machines_say_accuses_nobody(lines: tuple[str, ...]) -> None:
    assert first(*lines) in ("no-fault", "unknown")


def test_a_reserved_region_explains_that_qemu_may_not_set_the_iommu() -> None:
    refused = (
        "kvm: vfio 0000:03:00.0: failed to setup container for group 7: Failed to set iommu for container: Operation "
    )
    found = diagnosed(
        "vfio-pci 0000:03:00.0: Firmware has requested this device have a 1:1 IOMMU mapping, rejecting configuring the "
        "device without a 1:1 mapping. Contact your platform vendor.",
        f"{refused}not permitted",
    )
    assert found.first.cause == "reserved-region"
    assert [one.sign for one in found.first.explains] == ["qemu.container-eperm"]


def test_a_large_bar_without_room_is_the_guests_matter_in_a_guests_log_and_the_firmwares_on_a_host() -> None:
    no_room = "pci 0000:01:00.0: BAR 1 [mem size 0x400000000 64bit pref]: can't assign; no space"
    guest = diagnosed("DMI: QEMU Standard PC (Q35 + ICH9, 2009)", "Hypervisor detected: KVM", no_room)
    host = diagnosed("DMI: ASRock X570 Taichi, BIOS P5.00", no_room)
    assert guest.first.cause == "guest-address-space"
    assert host.first.cause == "firmware-defect"


def test_a_broken_address_cache_is_told_from_a_dead_card_by_the_model() -> None:
    stuck = "iommu ivhd0: AMD-Vi: Event logged [IOTLB_INV_TIMEOUT device=0000:05:00.0 address=0x100203d40]"
    known = "pci 0000:05:00.0: [1002:15d8] type 00 class 0x030000"
    assert first(known, stuck) == "ats-broken"
    assert first(known, "vfio-pci 0000:05:00.0: not ready 65535ms after bus reset; giving up", stuck) == "amd-reset-bug"
