"""Kernel arguments that guides for passthrough spread, and what they do in truth. Rows only, each with its source.

1. A row never says more than its source. `values` empty: any value.
2. Nothing here decides anything; the rules read it.
"""

from __future__ import annotations

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class Argument:
    """`name` with underscores as the kernel compares it; `values` the spellings meant; `why` what happens in truth."""

    name: str
    values: tuple[str, ...]
    why: str
    source: str


_PARAMETERS = "kernel: Documentation/admin-guide/kernel-parameters.txt"

WITHOUT_EFFECT: tuple[Argument, ...] = (
    Argument(
        "amd_iommu",
        ("on",),
        "`on` is no value of amd_iommu; the kernel prints \"Unknown option - 'on'\" and the AMD IOMMU is on by default",
        f"{_PARAMETERS}; drivers/iommu/amd/init.c, parse_amd_iommu_options",
    ),
    Argument(
        "iommu",
        ("on", "1", "true", "yes"),
        "is no value of iommu= on x86 and is passed over",
        f"{_PARAMETERS}, iommu=",
    ),
    Argument(
        "video",
        (
            "efifb:off",
            "vesafb:off",
            "efifb:off,vesafb:off",
            "vesafb:off,efifb:off",
            "vesa:off",
            "simplefb:off",
            "efi:off",
        ),
        "switches off a frame buffer that Proxmox kernels no longer use (since 5.15.19-2 it is simpledrm, "
        "which does not read this argument)",
        "Proxmox kernel changelog 5.15.19-2; kernel: drivers/video/fbdev/efifb.c, drivers/gpu/drm/sysfb",
    ),
)
"""Harmless, but they make people believe that something is set."""

SWITCH_OFF_IOMMU: tuple[tuple[str, str], ...] = (
    ("intel_iommu", "off"),
    ("amd_iommu", "off"),
    ("iommu", "off"),
)
"""Arguments that leave the host without an IOMMU. Source: kernel-parameters.txt."""

RELEVANT: frozenset[str] = frozenset(
    {
        "intel_iommu",
        "amd_iommu",
        "iommu",
        "intremap",
        "pcie_acs_override",
        "vfio_pci.ids",
        "vfio_iommu_type1.allow_unsafe_interrupts",
        "initcall_blacklist",
        "module_blacklist",
        "modprobe.blacklist",
        "video",
        "pci",
        "pcie_aspm",
        "pcie_port_pm",
        "kvm.ignore_msrs",
        "i915.enable_gvt",
        "i915.enable_guc",
        "i915.max_vfs",
        "nomodeset",
        "default_hugepagesz",
        "hugepagesz",
        "hugepages",
    }
)
"""Names that somebody who sets up passthrough writes; one of them in the wrong file is a sign of a wrong turn."""

REPEATABLE: frozenset[str] = frozenset(
    {
        "console",
        "earlycon",
        "video",
        "hugepagesz",
        "hugepages",
        "pci",
        "pcie_acs_override",
        "iommu",
        "intel_iommu",
        "initrd",
        "dyndbg",
        "module_blacklist",
        "modprobe.blacklist",
        "memmap",
        "systemd.mask",
        "isolcpus",
        "root",
        "init",
        "ivrs_ioapic",
        "ivrs_hpet",
        "ivrs_acpihid",
    }
)
"""Arguments whose repeated forms add up, each with another value. Source: kernel-parameters.txt; early_param handlers
are called once for every occurrence (kernel: init/main.c, do_early_param). root= stands twice on every ZFS root
that GRUB starts: grub-mkconfig writes one and the installer another (recorded /proc/cmdline of Proxmox hosts).
rd.lvm.lv, rd.luks.uuid and their like may be repeated, too (dracut.cmdline(7)); all of `rd.` is taken to be so."""

VFIO_PCI_OPTIONS: frozenset[str] = frozenset(
    {"ids", "nointxmask", "disable_vga", "disable_idle_d3", "enable_sriov", "disable_denylist"}
)
"""Parameters of the module vfio-pci. Source: kernel: drivers/vfio/pci/vfio_pci.c, module_param."""

MISSPELT: tuple[tuple[str, str, str], ...] = (
    ("nvidia_fb", "nvidiafb", "kernel: drivers/video/fbdev/nvidia/Makefile"),
    ("xhci_hdc", "xhci_pci", "kernel: drivers/usb/host/Makefile"),
    ("snd_hda_codec_nvhdmi", "snd_hda_codec_hdmi", "kernel: sound/pci/hda/Makefile"),
)
"""(what guides write, the module's real name, source): a line with the first does nothing."""

PROSE: frozenset[str] = frozenset(
    {"the", "and", "to", "for", "is", "you", "your", "if", "this", "add", "with", "then", "or", "of", "in", "line"}
)
"""Words that no kernel argument is called; they get onto a command line when text is pasted from a web page."""
