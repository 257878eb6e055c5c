"""The causes that a diagnosis speaks of, as rows.

1. `code` is the vocabulary that scripts rely on; `also` are other words for the same in older reports.
2. A row says what the cause means, how to make sure, what to change next (one change), and how to tell that it helped.
3. A change that costs protection or data says so in its own words.
"""

from __future__ import annotations

from ..model.value import dataclass


@dataclass(frozen=True, slots=True)
class Cause:
    """One cause.

    title    in a few words
    means    what is wrong
    confirm  what would make sure: a command or a look
    change   the one change to make next
    helped   how to tell whether it helped
    source   where the facts are from
    commands what a person types for the change; empty where firmware or hardware is meant
    plans    the verb of this program that makes the change, empty when it has none
    """

    code: str
    title: str
    means: str
    confirm: str
    change: str
    helped: str
    source: str
    commands: tuple[str, ...] = ()
    plans: str = ""
    also: tuple[str, ...] = ()


def canonical(word: str) -> str:
    """The code that a word of the vocabulary stands for; the word itself when it is none."""
    return next((cause.code for cause in CAUSES if word == cause.code or word in cause.also), word)


def cause(code: str) -> Cause | None:
    """The row of a code, or of another word for it."""
    wanted = canonical(code)
    return next((row for row in CAUSES if row.code == wanted), None)


CAUSES: tuple[Cause, ...] = (
    Cause(
        "iommu-off",
        "the IOMMU is off",
        "The kernel translates no device's memory accesses: the firmware switch is off, or the kernel was told so.",
        "ls /sys/class/iommu (empty: off); ls /sys/firmware/acpi/tables (DMAR or IVRS: the firmware offers one)",
        "Without the table: switch VT-d (Intel) or IOMMU (AMD) on in the firmware. With it: let the plan set the "
        "kernel's "
        "arguments.",
        "/sys/class/iommu is not empty after the reboot, and every device has an IOMMU group.",
        "Proxmox VE administration guide, PCI(e) passthrough; pve-common SysFSTools.pm, check_iommu_support",
        plans="plan",
        also=("control-iommu-off",),
    ),
    Cause(
        "iommu-firmware",
        "the firmware's IOMMU tables are broken",
        "The tables by which the firmware describes the IOMMU (DMAR, IVRS) are missing, contradict themselves, or are "
        "rejected by this kernel, although the switch is on.",
        'dmesg | grep -iE "dmar|amd-vi|ivrs|firmware bug"',
        "Update the firmware. Until there is one, the kernel that last accepted the tables is the way around.",
        "The kernel's log has no Firmware Bug line about DMAR or IVRS, and the IOMMU starts.",
        "kernel: drivers/iommu/intel/dmar.c, iommu.c; drivers/iommu/amd/init.c",
        also=("firmware-rmrr",),
    ),
    Cause(
        "no-interrupt-remapping",
        "interrupts cannot be isolated",
        "The machine has no working interrupt remapping, so VFIO refuses every device: a guest could forge interrupts.",
        'dmesg | grep -iE "remapping|unsafe_interrupts"',
        "Look for x2APIC and interrupt remapping in the firmware, and update it. Only for guests that you trust: "
        "options vfio_iommu_type1 allow_unsafe_interrupts=1.",
        'The kernel says "Enabled IRQ remapping" (Intel) or "Interrupt remapping enabled" (AMD).',
        "kernel: drivers/vfio/vfio_iommu_type1.c; drivers/iommu/intel/irq_remapping.c",
    ),
    Cause(
        "group-no-acs",
        "ports without ACS put devices into one group",
        "The ports above these devices cannot keep them apart (no Access Control Services), so they form one IOMMU "
        "group "
        "and go to a guest together.",
        "pve-passthrough devices --groups; lspci -vvv of the ports: no ACSCtl",
        "Move the card to another slot, preferably one of the processor's. pcie_acs_override only pretends, and "
        "gives up "
        "the isolation that groups stand for.",
        "The device is alone in its group, or only with functions that may go along.",
        "kernel: drivers/iommu/iommu.c, pci_device_group; drivers/pci/quirks.c, ACS quirks",
        plans="plan",
    ),
    Cause(
        "group-shared-host-device",
        "the group holds a device that the host uses",
        "A member of the device's IOMMU group is still with a driver of the host. VFIO gives away whole groups only; "
        "Proxmox VE takes the member from the host without asking.",
        "pve-passthrough devices --groups; ls -l /sys/kernel/iommu_groups/N/devices/*/driver",
        "Give all functions of the card to the guest; let vfio-pci have the others of the group, or move the card.",
        "Every member of the group but bridges is with vfio-pci while the guest runs.",
        "kernel: drivers/vfio/group.c; pve-common SysFSTools.pm, pci_dev_group_bind_to_vfio",
        plans="plan",
        also=("group-companion-unbound",),
    ),
    Cause(
        "group-renumbered",
        "the group has another number now",
        "IOMMU groups are numbered anew at every boot. A stored number (a mapping, a script, a configuration of "
        "another "
        "program) is that of an earlier boot.",
        "readlink /sys/bus/pci/devices/ADDRESS/iommu_group; pve-passthrough mapping check",
        "Write today's number into the mapping, or name the device by its address.",
        "The mapping is fine for this node, and the guest starts.",
        "kernel: drivers/iommu/iommu.c, iommu_group_alloc; pve-guest-common Mapping/PCI.pm",
        plans="mapping repair",
    ),
    Cause(
        "bdf-renumbered",
        "the address belongs to another device now",
        "Bus numbers follow what the firmware finds: a card, a disk or a switch in the firmware that came or went "
        "moves "
        "the others. The stored address is no longer this device's.",
        "lspci -nn, compared with the guest's configuration",
        "Let the configuration follow the card.",
        "The address in the guest's configuration has the vendor and device ID of the card that you mean.",
        "kernel: drivers/pci/probe.c, pci_scan_bridge; Proxmox VE administration guide, resource mapping",
        plans="reassign",
    ),
    Cause(
        "wrong-boot-loader",
        "the edited file is not the one that this host boots from",
        "The arguments stand in a file of a boot loader that does not start this host: systemd-boot reads "
        "/etc/kernel/cmdline, GRUB reads /etc/default/grub, and neither knows of a change before a refresh.",
        "cat /proc/cmdline; proxmox-boot-tool status",
        "Put the arguments where this host's loader reads them, and refresh it.",
        "/proc/cmdline holds the arguments after the reboot.",
        "Proxmox VE administration guide, host boot loader",
        commands=("proxmox-boot-tool status",),
        plans="plan",
        also=("wrong-bootloader-config",),
    ),
    Cause(
        "bad-kernel-arguments",
        "the kernel's command line is malformed",
        "An argument is misspelt, quoted, given twice with different values, or prose was pasted among the arguments; "
        "the kernel ignores what it does not know, and may read the rest otherwise than meant.",
        "cat /proc/cmdline",
        "Write the line anew with the arguments that are meant and no others.",
        "/proc/cmdline shows exactly these words after the reboot.",
        "kernel: Documentation/admin-guide/kernel-parameters.rst",
        plans="plan",
        also=("bad-cmdline",),
    ),
    Cause(
        "bad-modprobe",
        "a modprobe file does not mean what its author thought",
        "A line in /etc/modprobe.d is misspelt, names a module or ID that does not exist, is overruled by another, or "
        "has not reached the initramfs.",
        "modprobe -c | grep -E '^(options|softdep|blacklist) .*vfio'; cat /sys/module/vfio_pci/parameters/ids",
        "Mend the line, then rebuild the initramfs.",
        "lspci -nnk shows the driver that you meant after the reboot.",
        "modprobe.d(5); kernel: drivers/vfio/pci/vfio_pci.c, vfio_pci_fill_ids",
        commands=("update-initramfs -u -k all",),
        plans="plan",
    ),
    Cause(
        "bad-vm-config",
        "Proxmox VE rejects or drops a line of the guest's configuration",
        "An option is misspelt, contradicts another, names a device twice, or demands a machine type that the guest "
        "does "
        "not have. A line that cannot be parsed is left out silently.",
        "qm config VMID --current; qm showcmd VMID --pretty",
        "Mend the line that is named.",
        "qm showcmd shows the device, and the guest starts.",
        "qemu-server: QemuServer.pm, parse_vm_config; QemuServer/PCI.pm",
        plans="plan",
    ),
    Cause(
        "identical-ids",
        "binding by vendor:device took the wrong card, or too many",
        "Two devices have the same IDs. What is told by ID (ids=, blacklists of a driver) fits them all, so the host's "
        "card goes along, or the wrong one does.",
        "lspci -nn: the same [vendor:device] twice",
        "Claim the one card by its address.",
        "One of the two is with vfio-pci, the other with the host's driver.",
        "kernel: drivers/pci/pci-driver.c, driver_override; drivers/vfio/pci/vfio_pci.c, ids",
        plans="plan",
    ),
    Cause(
        "host-driver-busy",
        "something on the host still holds the device",
        "A driver, a daemon or a desktop of the host has the device open, so that unbinding waits, fails, or takes the "
        "driver down with it.",
        "fuser -v /dev/nvidia* /dev/dri/* /dev/snd/*; lspci -nnk",
        "Let vfio-pci claim the device at boot, before the host's driver loads; or stop what holds it.",
        "lspci -nnk shows vfio-pci for the device before the guest starts.",
        "kernel: drivers/base/dd.c, device_release_driver; nvidia: nv_pci_remove",
        plans="plan",
    ),
    Cause(
        "boot-framebuffer",
        "the boot framebuffer holds the card's memory",
        "The firmware's picture (simpledrm, efifb, BOOTFB) lies in the card's BAR. vfio-pci cannot reserve the "
        "memory, and "
        "the guest sees a card without it.",
        'grep -iE "BOOTFB|simpledrm|efifb|vesafb" /proc/iomem',
        "Make another card the firmware's first display; else keep the framebuffer off: initcall_blacklist=sysfb_init "
        "(the host's screen stays dark).",
        "No BOOTFB in /proc/iomem inside the card's memory, and no \"can't reserve\" in the kernel's log.",
        "kernel: drivers/firmware/sysfb.c; drivers/vfio/pci/vfio_pci_core.c, vfio_pci_core_enable",
        plans="plan",
    ),
    Cause(
        "reset-defective",
        "the device does not survive its reset",
        "The reset that VFIO chooses leaves the device dead or half alive: it works once after power-on, and not "
        "again.",
        "cat /sys/bus/pci/devices/ADDRESS/reset_method; pve-passthrough reset show ADDRESS",
        "Choose another way of resetting it, and try it by stopping and starting the guest.",
        "pve-passthrough reset test ends well several times.",
        "kernel: drivers/pci/pci.c, reset_methods; drivers/pci/quirks.c, quirk_no_bus_reset",
        plans="reset method",
        also=("reset-quirk",),
    ),
    Cause(
        "amd-reset-bug",
        "the AMD reset bug",
        "This AMD GPU cannot be reset by what the kernel knows: after a guest has used it, it stays in a state that no "
        "driver can start from, until the host is powered off.",
        "The first start after power-on works, the second does not.",
        "Use vendor-reset where it knows the card; else shut the guest's driver down cleanly before the guest stops.",
        "The guest starts again without a power cycle of the host.",
        "vendor-reset, README; knowledge/resets.py",
        plans="reset vendor-reset",
    ),
    Cause(
        "vendor-reset-method",
        "vendor-reset is there and not used",
        "From 5.15 on a kernel resets by the methods in reset_method; vendor-reset is used only where device_specific "
        "stands first, and only if the module was loaded before.",
        "lsmod | grep vendor_reset; cat /sys/bus/pci/devices/ADDRESS/reset_method",
        "Load the module at boot and choose device_specific for this device.",
        'The kernel says "performing pre-reset" with the chip\'s name when the guest starts.',
        "kernel: Documentation/ABI/testing/sysfs-bus-pci, reset_method; gnif/vendor-reset#46",
        plans="reset method",
    ),
    Cause(
        "partial-multifunction",
        "a reset needs all functions of the slot",
        "The only reset that works concerns the whole slot or bus, and a function of it is not the guest's: the kernel "
        "refuses, and the device is used without a reset.",
        "lspci -s BUS:DEVICE; pve-passthrough reset show ADDRESS",
        "Give all functions of the slot to the guest.",
        "QEMU says nothing about a group that is not owned.",
        "QEMU: hw/vfio/pci.c, vfio_pci_hot_reset; kernel: drivers/vfio/pci/vfio_pci_core.c",
        plans="plan",
    ),
    Cause(
        "power-state",
        "the device does not wake up",
        "The device was put to sleep (D3hot, D3cold) and does not come back when it is needed.",
        "cat /sys/bus/pci/devices/ADDRESS/power_state /sys/bus/pci/devices/ADDRESS/d3cold_allowed",
        "Keep it awake: options vfio-pci disable_idle_d3=1, or d3cold_allowed 0 for this device.",
        "power_state stays D0, and the kernel's log has no \"device inaccessible\".",
        "kernel: drivers/vfio/pci/vfio_pci.c, disable_idle_d3; drivers/pci/pci.c, pci_power_up",
        plans="reset idle",
        also=("d3cold",),
    ),
    Cause(
        "rom-invalid",
        "the option ROM is missing, shadowed or corrupt",
        "What stands in the device's ROM, or in the file given for it, is no usable ROM: shadowed by the firmware at "
        "boot, "
        "truncated, for another card, or simply not there.",
        "pve-passthrough rom check FILE; dmesg | grep -i 'ROM header'",
        "Give the guest a ROM file of exactly this card, or no ROM when it does not need one.",
        "The guest's firmware shows a picture on the card; no more ROM lines in the log.",
        "kernel: drivers/pci/rom.c; QEMU: hw/vfio/pci.c, vfio_pci_load_rom",
        plans="rom install",
        also=("rom-bad", "rom-missing", "vbios-corrupt-on-card"),
    ),
    Cause(
        "guest-address-space",
        "the device's memory does not fit into the guest",
        "The guest's firmware or kernel cannot place the card's large BARs: the window above 4 GiB is too small, "
        "missing "
        "(SeaBIOS), or reaches beyond what the host's IOMMU can address.",
        "pve-passthrough bars ADDRESS --vm VMID; lspci -vv in the guest: BARs without an address",
        "OVMF and the processor type host; for BARs beyond the IOMMU's width, fewer phys-bits.",
        "All BARs have an address in the guest.",
        "edk2: OvmfPkg PlatformInitLib; QEMU: hw/i386/pc.c; knowledge of memory windows in this program",
        plans="bars",
        also=("mmio-window", "large-bar-slow"),
    ),
    Cause(
        "memory-pinning",
        "the guest's memory cannot be pinned, or takes long",
        "With a device all of the guest's memory is pinned at the start: a limit (memlock), too little free memory, or "
        "mere size stands in the way, and the start fails or exceeds its time.",
        "free -m; arc_summary | head; the time between start and failure",
        "Start it with more time. If that is not it: less memory for the guest, to see whether size is the trouble.",
        "The guest starts within its time.",
        "kernel: drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote; qemu-server Helpers.pm, config_aware_timeout",
        commands=("qm start VMID --timeout 600",),
        also=("memlock", "ram-exhausted", "slow-ram-pinning"),
    ),
    Cause(
        "reserved-region",
        "the firmware keeps memory reserved for this device",
        "A reserved memory region (RMRR) is tied to the device: the platform's management talks to it behind the "
        "host's "
        "back, so the kernel does not let VFIO have it.",
        "grep direct /sys/kernel/iommu_groups/N/reserved_regions",
        "Switch the shared memory off in the server's firmware for this slot. relax_rmrr of Proxmox VE's kernels only "
        "looks away and can destroy data.",
        "The kernel's log no longer refuses the device, and the guest starts.",
        "kernel: drivers/iommu/iommu.c; Proxmox VE kernel patch 0009",
        also=("rmrr",),
    ),
    Cause(
        "intx-broken",
        "the device's line interrupts do not work",
        "The device claims to be able to mask its line interrupt (INTx) and cannot, or shares it with another: nobody "
        "answers, and the kernel switches the line off.",
        "grep -E 'vfio|IO-APIC' /proc/interrupts; dmesg | grep 'nobody cared'",
        "options vfio-pci nointxmask=1; in the guest, let the driver use MSI.",
        'No "nobody cared" in the kernel\'s log under load.',
        "kernel: drivers/vfio/pci/vfio_pci.c, nointxmask; drivers/pci/quirks.c, quirk_broken_intx_masking",
        also=("intx",),
    ),
    Cause(
        "msix-layout",
        "the MSI-X table lies where it cannot be mapped",
        "The device's MSI-X table or its pending bits lie outside of the BAR, overlap, or share a page with registers "
        "that the guest needs.",
        "lspci -vvv -s ADDRESS: MSI-X, Vector table, PBA",
        "Let QEMU put the table elsewhere: x-msix-relocation for this device.",
        "QEMU starts without words about MSI-X.",
        "QEMU: hw/vfio/pci.c, vfio_msix_early_setup; hw/pci/msix.c",
        also=("device-msix-layout",),
    ),
    Cause(
        "ats-broken",
        "the device's address translation cache does not work",
        "The device announces Address Translation Services and does not keep to them: pages are used that have gone, "
        "or "
        "invalidations are never answered.",
        "lspci -vvv -s ADDRESS: ATSCap, ATSCtl; dmesg | grep -iE 'IOTLB_INV_TIMEOUT|INVALID_DEVICE_REQUEST'",
        "Switch ATS off: pci=noats (for all devices), or a kernel that knows the device as a quirk.",
        "lspci -vvv shows ATSCtl: Enable-, and the faults stop.",
        "kernel: drivers/pci/quirks.c, quirk_amd_harvest_no_ats; Documentation/admin-guide/kernel-parameters.txt, "
        "pci=noats",
    ),
    Cause(
        "guest-detects-vm",
        "the guest's driver refuses a virtual machine",
        "The driver sees the hypervisor and stops. NVIDIA's do so before 465, and Intel Arc's under Windows are "
        "reported to.",
        "The driver's version in the guest; the device manager's code 43",
        "Install a newer driver; only where that cannot be, hide the hypervisor.",
        "The device manager shows the card without a code.",
        "knowledge/error43.py",
        plans="plan --tweak hide-hypervisor",
        also=("code43-hypervisor",),
    ),
    Cause(
        "guest-firmware",
        "the guest's firmware does not run the card's ROM",
        "The card's ROM speaks to the other kind of firmware: a UEFI-only ROM under SeaBIOS, a legacy one under "
        "OVMF. The "
        "card is then never initialised before the driver comes.",
        "qm config VMID | grep bios; pve-passthrough rom check",
        "Use OVMF for cards with a UEFI ROM. An installed system may not start with the other firmware: make a new "
        "guest.",
        "The guest's firmware shows its picture on the card.",
        "knowledge/error43.py; PCI firmware specification, code types",
        also=("code43-firmware",),
    ),
    Cause(
        "laptop-battery",
        "the driver of a mobile GPU wants a battery",
        "Drivers of mobile cards stop with code 43 in a machine that shows no battery.",
        "The card is a laptop's (Mobile, Max-Q, M) and the code is 43.",
        "Give the guest a battery by an ACPI table of its own (SSDT, through args: -acpitable).",
        "The device manager shows the card without a code.",
        "knowledge/error43.py",
        also=("code43-no-battery",),
    ),
    Cause(
        "igd-legacy",
        "the preconditions of legacy IGD assignment are not met",
        "Intel's graphics as the guest's first display (legacy mode) wants i440fx, address 02.0, a ROM, no other "
        "display, "
        "and a generation that QEMU knows.",
        "qm config VMID; the lines about IGD in the start's task log",
        "Meet what the line names, or give the graphics as an ordinary device with a ROM file.",
        "QEMU starts without words about legacy mode.",
        "QEMU: docs/igd-assign.txt, hw/vfio/igd.c; qemu-server PCI.pm, legacy-igd",
        also=("igd-legacy-needs-i440fx",),
    ),
    Cause(
        "sriov-setup",
        "virtual functions cannot be made or used",
        "The physical function's driver, the firmware's room for them, or the order of steps does not allow the "
        "virtual "
        "functions that are asked for.",
        "pve-passthrough sriov list; cat /sys/bus/pci/devices/ADDRESS/sriov_totalvfs",
        "Make them through the driver of the physical function, as many as it allows, from zero.",
        "sriov_numvfs has the number, and every function has a group.",
        "kernel: drivers/pci/iov.c; Documentation/PCI/pci-iov-howto.rst",
        plans="sriov create",
    ),
    Cause(
        "vgpu-config",
        "the mediated device or vGPU is not set up",
        "The type is not offered, no instance is left, the vGPU driver or its manager does not run, or host and guest "
        "have drivers that do not fit together.",
        "pve-passthrough vgpu list; journalctl -u nvidia-vgpu-mgr",
        "Choose a type that is offered, with the vGPU driver loaded on the host.",
        "The instance exists while the guest runs.",
        "qemu-server: QemuServer/PCI/Mdev.pm",
        plans="vgpu setup",
    ),
    Cause(
        "kernel-regression",
        "this kernel build is at fault",
        "It worked with another kernel on the same machine with the same settings.",
        "Start the kernel that worked, and change nothing else.",
        "Pin the kernel that works until there is a mended one. On ZFS, check before that it can read the pool.",
        "The same guest works under the pinned kernel.",
        "Proxmox VE administration guide, proxmox-boot-tool kernel pin",
        commands=("proxmox-boot-tool kernel list", "proxmox-boot-tool kernel pin VERSION"),
        also=("kernel-bug",),
    ),
    Cause(
        "qemu-regression",
        "this QEMU build is at fault",
        "It worked with another QEMU (pve-qemu-kvm) or machine version on the same machine.",
        "pveversion -v; grep pve-qemu-kvm /var/log/dpkg.log",
        "Install the version that worked, or give the guest the machine version that worked.",
        "The same guest works with it.",
        "apt(8); qemu-server: machine versions",
        commands=("apt install pve-qemu-kvm=VERSION",),
        also=("qemu-bug",),
    ),
    Cause(
        "firmware-defect",
        "the machine's firmware misbehaves",
        "The firmware does something that an operating system can only avoid: it touches a device behind the kernel's "
        "back, leaves it in a bad state, or assigns what it should not.",
        "The same with another kernel and another guest; another firmware version behaves differently.",
        "Update the firmware, or set its switches for this device otherwise.",
        "The same start works after the update.",
        "Proxmox VE administration guide, PCI(e) passthrough, host device",
        also=("firmware", "firmware-gpu-state", "firmware-hidden-dma"),
    ),
    Cause(
        "no-fault",
        "nothing is wrong",
        "What looks like an alarm is harmless.",
        "The device works in the guest: pve-passthrough verify --vm VMID",
        "Change nothing.",
        "It goes on working.",
        "the catalogue of this program, harmless rows",
        plans="verify",
        also=("benign", "control-ok"),
    ),
    Cause(
        "unknown",
        "not established",
        "What was shown does not tell the cause.",
        "Look at what is named next, and ask again with it.",
        "Collect more: the kernel's log of the start (journalctl -k -b), the task's log, the guest's configuration.",
        "A cause can be named.",
        "",
        commands=("pve-passthrough capture",),
        also=("unresolved",),
    ),
)  # fmt: skip
