"""Rules about graphics cards: the quirks that no other device has.

1. Known cards are rows in `knowledge`, with a source each; a card in no row is not called good.
2. Reports of users are called reports.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.resets import reset_row
from ..model.cards import processor_functions
from ..model.facts import Facts
from ..model.finding import Actor, Finding, Level
from ..model.texts import module_lines
from .subject import OUTPUTS_NOT, Request, chosen, show

_INTEL = 0x8086


def reset_bug(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the card known not to come back from a reset?

    Why: AMD Polaris, Vega and Navi 10 to 14 have no usable function level reset: the first start works, the next
        finds a dead card until the host reboots. Later cards are reported both ways.
    Look at: `lspci -nn -s ADDRESS`; /sys/bus/pci/devices/ADDRESS/reset_method; `lsmod | grep vendor_reset`.
    Fix: For the families that it knows, the DKMS module vendor-reset, with reset_method set to device_specific (since
        kernel 5.15 nothing else selects it) and loaded before the first use. For others: test a start, stop and start
        again first.
    Source: vendor-reset: README and src/device-db.h; its issues 46, 86, 104, 105; kernel: drivers/pci/quirks.c;
        NVIDIA open-gpu-kernel-modules issues 853 and 1353.
    """
    for device in chosen(facts, request):
        row = reset_row(device.vendor, device.product)
        if row is None or (row.handled and not device.is_display):
            continue
        loaded = facts.modules.loaded is not None and "vendor_reset" in facts.modules.loaded
        methods = device.reset_methods
        if row.vendor_reset and loaded and methods and methods[0] == "device_specific":
            yield Finding(
                "gpu.reset-bug",
                Level.FINE,
                str(device.address),
                f"{device} ({row.family}) is reset by vendor-reset.",
                (f"reset_method: {' '.join(methods)}",),
            )
            continue
        shown = "unknown" if methods is None else (" ".join(methods) or "none")
        yield Finding(
            "gpu.reset-bug",
            Level.HARMS if row.vendor_reset else Level.NOTE,
            str(device.address),
            f"{device} belongs to {row.family}: {row.behaviour}.",
            (
                f"{device.address}: {device.id} ({row.source})",
                f"/sys/bus/pci/devices/{device.address}/reset_method: {shown}",
                *(("/proc/modules: vendor_reset is loaded, but not selected",) if loaded and row.vendor_reset else ()),
            ),
            Actor.HARDWARE,
            show(
                f"Let reset_method be device_specific: {row.remedy}."
                if loaded and row.vendor_reset
                else f"{row.remedy[0].upper()}{row.remedy[1:]}.",
                f"pve-passthrough reset {'vendor-reset' if row.vendor_reset else 'show'} {device.address}",
            ),
        )


def apu(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it the graphics part of an AMD processor?

    Why: Graphics inside an AMD processor have no reset: after the guest stops or restarts, the next start usually
        fails until the host reboots. They also need their video BIOS and, for OVMF, the sound function's GOP driver
        as files.
    Look at: the slot holds a 1002 display together with functions of vendor 1022 (security processor, USB).
    Fix: Extract the video BIOS from the ACPI table VFCT and give it as romfile; avoid stopping the guest. For
        transcoding or inference on Linux a container with /dev/dri serves better.
    Source: ryzen-gpu-passthrough-proxmox README (2026-01-28); Proxmox VE administration guide, Linux Container,
        device passthrough.
    """
    for device in chosen(facts, request):
        if processor_functions(facts, device):
            yield Finding(
                "gpu.apu",
                Level.HARMS,
                str(device.address),
                f"{device} is the graphics part of an AMD processor: it has no reset, "
                "so a second start of the guest usually needs a host reboot.",
                tuple(f"{d.address}: {d.id} in the same slot" for d in processor_functions(facts, device))[:3],
                Actor.HARDWARE,
                show("Give the guest its video BIOS as romfile and avoid stopping it, or use a container instead."),
            )


def framebuffer(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the boot frame buffer hold the card's memory?

    Why: vfio-pci evicts the boot frame buffer only from class 0300. From a 3D controller or another display
        controller it does not, and QEMU then reports "BAR 1: can't reserve" and the guest shows nothing.
    Look at: `grep -e simpledrm -e efifb -e BOOTFB /proc/iomem`; `cat /proc/fb`.
    Fix: Make another card primary in the firmware's setup, or start the kernel with initcall_blacklist=sysfb_init
        (the console then stays dark until a graphics driver loads). video=efifb:off has no effect on Proxmox kernels.
    Source: kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_init_dev and vfio_pci_vga_init;
        drivers/video/aperture.c; Proxmox kernel changelog 5.15.19-2.
    """
    fb = facts.display.framebuffer or ""
    firmware_fb = any(name in fb for name in ("simpledrm", "simple", "EFI VGA", "efifb", "VESA"))
    for device in chosen(facts, request):
        if firmware_fb and device.is_display and device.address == facts.display.console_owner:
            if device.subclass == 0x0300:
                continue
            yield Finding(
                "gpu.framebuffer",
                Level.HARMS,
                str(device.address),
                f"The boot frame buffer ({fb}) lies in the memory of {device}, and vfio-pci does not evict it there.",
                (f"/proc/fb: {fb}", f"{device.address}: class {device.class_code or 0:06x}"),
                Actor.FIRMWARE,
                show("Make another card primary; or start the kernel with initcall_blacklist=sysfb_init."),
            )


def no_outputs(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the card have monitor outputs?

    Why: 3D controllers (class 0302: Tesla, mobile NVIDIA, compute cards) have no outputs. Made the guest's primary
        display they leave it without any picture.
    Look at: `lspci -nn -s ADDRESS`: [0302].
    Fix: Keep a virtual display (`vga: std`) and do not set x-vga.
    Source: PCI code and ID assignment specification, class 03; kernel: include/linux/pci.h, pci_is_vga.
    """
    for device in chosen(facts, request):
        if device.subclass == OUTPUTS_NOT:
            yield Finding(
                "gpu.no-outputs",
                Level.NOTE,
                str(device.address),
                f"{device} has no monitor outputs: the guest needs a virtual display beside it.",
                (f"{device.address}: class {device.class_code or 0:06x}",),
            )


def intel_graphics(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is it Intel's processor graphics?

    Why: Whole-device passthrough of Intel's own graphics is a special case: legacy mode needs i440fx, vga none and
        the host address 00:02.0, newer generations need a ROM with the right driver, and the host loses its console.
        Many processors can share it instead: SR-IOV from Tiger Lake on, GVT-g from Broadwell to Comet Lake.
    Look at: `lspci -nn -s 00:02.0`; sriov_totalvfs and mdev_supported_types beside it.
    Fix: Prefer a virtual function, or a container with /dev/dri; else follow the generation's recipe.
    Source: QEMU documentation, igd-assign.txt; qemu-server PCI.pm, legacy-igd; i915-sriov-dkms README; kernel:
        drivers/gpu/drm/i915/intel_gvt.c.
    """
    shown = chosen(facts, request)
    for device in shown:
        if request == Request() and len(shown) > 1:
            return  # another card is there to be passed, and this one shows the console
        if device.vendor == _INTEL and device.is_display and device.address[1:] == (0, 2, 0):
            yield Finding(
                "gpu.intel-graphics",
                Level.NOTE,
                str(device.address),
                f"{device} is the processor's own graphics: passing it whole is a special case.",
                (f"{device.address}: {device.id}", f"sriov_totalvfs: {device.sriov_total or 0}"),
                fix=show("Prefer a virtual function or a container; legacy-igd has conditions of its own."),
            )


def vendor_reset(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is vendor-reset installed for a card that it knows?

    Why: Guides hand the module out against every reset problem, for NVIDIA's cards and for AMD's RX 6000 to 9000, too.
        It knows AMD Polaris, Vega, Navi 10 to 14 and Arcturus only; for anything else it does nothing, and it has to
        be built anew for every kernel.
    Look at: `lsmod | grep vendor_reset`; /etc/modules; `dkms status`.
    Fix: Take its line out of the module list, and `dkms remove vendor-reset/VERSION --all`.
    Source: vendor-reset: README and src/device-db.h.
    """
    lines = [line for line in module_lines(facts.files) if line.module == "vendor_reset"]
    loaded = facts.modules.loaded is not None and "vendor_reset" in facts.modules.loaded
    rows = (reset_row(device.vendor, device.product) for device in facts.devices)
    if not facts.devices or not (lines or loaded) or any(row is not None and row.vendor_reset for row in rows):
        return
    yield Finding(
        "gpu.vendor-reset",
        Level.NOTE,
        "host",
        "vendor-reset is set up, and this machine has no card that it knows.",
        (
            *(f"{line.path}:{line.number}: {line.module}" for line in lines),
            *(("/proc/modules: vendor_reset",) if loaded else ()),
        ),
        Actor.US,
        show("Take it away.", *(f"editor {line.path}" for line in lines[:1]), "dkms status"),
    )
