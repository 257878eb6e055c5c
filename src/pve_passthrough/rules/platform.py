"""Rules about the machine as a whole: is this a Proxmox VE host on which passthrough can work at all?

1. The test for the IOMMU is Proxmox' own: /sys/class/iommu is not empty. Kernel messages prove nothing.
2. What an argument can mend is HARMS with the argument; what only the firmware can mend is BLOCKS.
"""

from __future__ import annotations

from collections.abc import Iterator

from ..knowledge.arguments import SWITCH_OFF_IOMMU
from ..knowledge.kernels import INITRAMFS_ROOM, BadBuild, bad_builds
from ..model.facts import Facts, Space
from ..model.finding import Actor, Finding, Level
from ..model.pci import NO_GROUP, Device
from ..model.texts import modprobe_lines
from .bootfiles import RUNNING, argument_fix, configured, edit_fix, find, planned_argument_fix, refreshes
from .subject import Request, chosen, reason, show, unknown, up

INTEL, AMD = "GenuineIntel", "AuthenticAMD"


def proxmox(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is this a Proxmox VE host?

    Why: Guests are started by Proxmox VE (qemu-server); without it nothing here can give a device to a guest.
    Look at: `pveversion -v`, or the packages pve-manager and qemu-server in `dpkg -l`.
    Fix: Run this on a Proxmox VE node, or name one with --host.
    Source: Proxmox VE administration guide, Installation.
    """
    if facts.pve.installed is False:
        yield Finding(
            "platform.proxmox",
            Level.BLOCKS,
            "host",
            "This machine is not a Proxmox VE host: pve-manager is not installed.",
            ("/var/lib/dpkg/status: no package pve-manager",),
            fix=show("Run this on a Proxmox VE node, or name one with --host."),
        )
    elif facts.pve.installed is None:
        yield unknown(
            "platform.proxmox",
            "host",
            "Whether this is a Proxmox VE host, nobody could say.",
            reason(facts, "pve.installed", "pve"),
        )
    elif facts.pve.version is None:
        yield unknown(
            "platform.proxmox",
            "host",
            "Which version of Proxmox VE this is, nobody could say.",
            reason(facts, "packages", "/var/lib/dpkg/status"),
        )


def iommu(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the IOMMU really on?

    Why: Without an IOMMU there are no groups, and Proxmox refuses the start: "cannot prepare PCI pass-through, IOMMU
        not present". The kernel message "DMAR: IOMMU enabled" is no proof: it comes from the argument's parser and is
        printed with VT-d switched off in the firmware, and missing on 6.8 and later with the IOMMU on.
    Look at: `ls /sys/class/iommu` is not empty (the test that Proxmox makes itself). /sys/firmware/acpi/tables has
        DMAR (Intel) or IVRS (AMD) when the firmware offers one. `cat /proc/cmdline` shows what the kernel was told.
    Fix: No table: switch on VT-d (Intel) or AMD-Vi/IOMMU (AMD) in the firmware's setup. Intel with a kernel before
        6.8: add intel_iommu=on to the file that this boot loader reads. An argument that switches it off: remove it.
        AMD needs no argument at any kernel version.
    Source: pve-common SysFSTools.pm, check_iommu_support; Proxmox VE administration guide, PCI(e) passthrough;
        kernel: drivers/iommu/intel/iommu.c, intel_iommu_setup; Documentation/admin-guide/kernel-parameters.txt.
    """
    units = facts.iommu.units
    if units is None:
        yield unknown(
            "platform.iommu",
            "host",
            "Whether the IOMMU is on, nobody could say.",
            reason(facts, "iommu.units", "iommu"),
        )
    elif units:
        shown = ", ".join(units[:4]) + ("" if len(units) <= 4 else f" and {len(units) - 4} more")
        yield Finding("platform.iommu", Level.FINE, "host", "The IOMMU is on.", (f"/sys/class/iommu: {shown}",))
    else:
        yield _iommu_off(facts, up(facts, request))


def _iommu_off(facts: Facts, command: str) -> Finding:
    """Why it is off decides who can mend it."""
    evidence = ["/sys/class/iommu: empty", *_table_lines(facts), *_processor_lines(facts)]
    table = _table(facts)
    if table is False:
        switch = {INTEL: "VT-d", AMD: "AMD-Vi (often named IOMMU)"}.get(facts.cpu.vendor or "", "VT-d or AMD-Vi")
        return Finding(
            "platform.iommu",
            Level.BLOCKS,
            "host",
            "The IOMMU is off, and the firmware offers none: its table is missing.",
            tuple(evidence),
            Actor.FIRMWARE,
            show(f"Switch on {switch} in the firmware's setup; SVM or VT-x alone is another switch."),
        )
    offs = [
        (source, f"{name}={value}")
        for name, value in SWITCH_OFF_IOMMU
        for source, found in find(facts, name)
        if found == value and source.path == RUNNING
    ]
    if offs:
        token = offs[0][1]
        return Finding(
            "platform.iommu",
            Level.HARMS,
            "host",
            f"The IOMMU is off because the kernel was told so: {token}.",
            (*evidence, f"{RUNNING}: {token}"),
            Actor.US,
            planned_argument_fix(facts, token, command, remove=True),
        )
    if facts.intel_iommu:
        return _intel_off(facts, evidence, command)
    hint = "Look into the kernel log for AMD-Vi or DMAR errors, and into the firmware's setup for AMD-Vi or VT-d."
    return Finding(
        "platform.iommu",
        Level.BLOCKS,
        "host",
        "The IOMMU is off, and no kernel argument is to blame.",
        tuple(evidence),
        Actor.FIRMWARE if table else Actor.NOBODY,
        show(hint, "journalctl -k -b | grep -e AMD-Vi -e DMAR"),
    )


def _intel_off(facts: Facts, evidence: list[str], command: str) -> Finding:
    """Intel: before kernel 6.8 the argument is needed; later the firmware's table was not usable."""
    version = facts.kernel.version
    kernel = f"uname -r: {facts.kernel.release}" if facts.kernel.release else reason(facts, "kernel.release", "kernel")
    waiting = [source for source in configured(facts) if "on" in source.values("intel_iommu") and source.used]
    running = facts.kernel.cmdline is not None and any(s.path == RUNNING for s, v in find(facts, "intel_iommu") if v)
    if waiting and not running:
        return Finding(
            "platform.iommu",
            Level.HARMS,
            "host",
            "The IOMMU is off: intel_iommu=on is written down, but the running kernel was not started with it.",
            (*evidence, *(f"{source.where}: intel_iommu=on" for source in waiting), f"{RUNNING}: no intel_iommu"),
            Actor.US,
            show("Refresh the boot loader and reboot.", *refreshes(facts), "reboot"),
        )
    if version is not None and version < (6, 8) and not running:
        return Finding(
            "platform.iommu",
            Level.HARMS,
            "host",
            f"The IOMMU is off: kernel {facts.kernel.release} needs intel_iommu=on and was started without it.",
            (*evidence, kernel),
            Actor.US,
            planned_argument_fix(facts, "intel_iommu=on", command),
        )
    known = _table(facts)
    return Finding(
        "platform.iommu",
        Level.BLOCKS,
        "host",
        "The IOMMU is off although nothing on the kernel command line asks for that.",
        (*evidence, kernel),
        Actor.FIRMWARE if known else Actor.NOBODY,
        show(
            "Switch on VT-d in the firmware's setup; if it is on, look for DMAR errors in the kernel log "
            "(intel_iommu=on does no harm where the kernel's default is off).",
            "journalctl -k -b | grep -e DMAR -e IOMMU",
        ),
    )


def _table(facts: Facts) -> bool | None:
    """Whether the firmware has an IOMMU's ACPI table; of those that are unknown, the one of the CPU's maker counts."""
    firmware = facts.firmware
    if firmware.dmar or firmware.ivrs:
        return True
    if facts.cpu.vendor == INTEL:
        return firmware.dmar
    if facts.cpu.vendor == AMD:
        return firmware.ivrs
    return False if firmware.dmar is False and firmware.ivrs is False else None


def _processor_lines(facts: Facts) -> list[str]:
    """VT-x and SVM are other switches than VT-d and AMD-Vi, and people take one for the other.

    Source: kernel, arch/x86/kernel/cpu/feat_ctl.c and Documentation/arch/x86/cpuinfo.rst: the flag is missing when the
    firmware has switched it off.
    """
    if not facts.cpu.flags or facts.cpu.vendor not in (INTEL, AMD):
        return []
    flag, switch = ("vmx", "VT-x") if facts.cpu.vendor == INTEL else ("svm", "SVM")
    there = flag in facts.cpu.flags
    said = f"{switch} is on, which is another switch" if there else f"{switch} is switched off in the firmware, too"
    return [f"/proc/cpuinfo: {flag if there else f'no {flag}'}: {said}"]


def _table_lines(facts: Facts) -> list[str]:
    said = {True: "present", False: "absent"}
    tables = (("DMAR", facts.firmware.dmar), ("IVRS", facts.firmware.ivrs))
    lines = [f"/sys/firmware/acpi/tables/{name}: {said[there]}" for name, there in tables if there is not None]
    return lines or [reason(facts, "firmware.tables", "firmware")]


def interrupt_remapping(facts: Facts, request: Request) -> Iterator[Finding]:
    """Are interrupts remapped?

    Why: Without interrupt remapping a device could send the host any interrupt, so VFIO refuses to attach it: "No
        interrupt remapping support". An IOMMU can be on without it.
    Look at: The kernel log says "Enabled IRQ remapping" (Intel) or "Interrupt remapping enabled" (AMD); the argument
        intremap=off switches it off.
    Fix: Switch on x2APIC and interrupt remapping in the firmware's setup, or update the firmware. As the last resort,
        on a host whose guests are all trusted: options vfio_iommu_type1 allow_unsafe_interrupts=1.
    Source: kernel: drivers/vfio/vfio_iommu_type1.c, vfio_iommu_type1_attach_group; drivers/iommu/irq_remapping.c;
        Proxmox VE administration guide, PCI(e) passthrough.
    """
    if not facts.iommu.on:
        return  # off or unknown: that is another rule's answer
    remapping = facts.iommu.interrupt_remapping
    if remapping is None:
        yield unknown(
            "platform.interrupt-remapping",
            "host",
            "Whether interrupts are remapped, nobody could say.",
            reason(facts, "iommu.interrupt_remapping", "iommu"),
        )
        return
    if remapping:
        yield Finding("platform.interrupt-remapping", Level.FINE, "host", "Interrupts are remapped.")
        return
    offs = [source for source, value in find(facts, "intremap") if value == "off" and source.path == RUNNING]
    allowed = facts.iommu.unsafe_interrupts is True
    yield Finding(
        "platform.interrupt-remapping",
        Level.HARMS if offs or allowed else Level.BLOCKS,
        "host",
        "Interrupts are not remapped"
        + (", and VFIO was told to accept that: any guest with a device can disturb the host." if allowed else "."),
        tuple(f"{source.where}: intremap=off" for source in offs)
        or ("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts: Y",) * allowed,
        Actor.US if offs else Actor.FIRMWARE,
        argument_fix(facts, "intremap=off", remove=True)
        if offs
        else show(
            "Switch on interrupt remapping (x2APIC) in the firmware's setup or update the firmware; only where every "
            "guest is trusted: options vfio_iommu_type1 allow_unsafe_interrupts=1."
        ),
    )


def unsafe_interrupts(facts: Facts, request: Request) -> Iterator[Finding]:
    """Were unsafe interrupts left on?

    Why: allow_unsafe_interrupts=1 lets guests attack the host through interrupts. Guides hand it out against shared
        groups, with which it has nothing to do. On a host that remaps interrupts it only takes safety away.
    Look at: /sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts, `grep -r allow_unsafe_interrupts
        /etc/modprobe.d`, and vfio_iommu_type1.allow_unsafe_interrupts on the kernel command line.
    Fix: Remove the option, rebuild the initramfs (`update-initramfs -u -k all`) and reboot.
    Source: kernel: drivers/vfio/vfio_iommu_type1.c, allow_unsafe_interrupts; Proxmox VE administration guide, PCI(e)
        passthrough.
    """
    places = [
        f"{line.path}:{line.number}: {line.raw.strip()}"
        for line in modprobe_lines(facts.files)
        if line.command == "options"
        and line.module == "vfio_iommu_type1"
        and any(word.partition("=")[0] == "allow_unsafe_interrupts" and _on(word) for word in line.rest.split())
    ]
    places += [
        f"{source.where}: vfio_iommu_type1.allow_unsafe_interrupts={value}"
        for source, value in reversed(find(facts, "vfio_iommu_type1.allow_unsafe_interrupts"))  # files before /proc
        if value.lower() in ("1", "y", "yes", "on", "") and source.used is not False
    ]
    if facts.iommu.unsafe_interrupts:
        places.append("/sys/module/vfio_iommu_type1/parameters/allow_unsafe_interrupts: Y")
    if places and facts.iommu.interrupt_remapping is not False:
        sure = facts.iommu.interrupt_remapping is True
        yield Finding(
            "platform.unsafe-interrupts",
            Level.HARMS if sure else Level.NOTE,
            "host",
            "Unsafe interrupts are allowed"
            + (", although this host remaps interrupts and does not need that." if sure else "."),
            tuple(places),
            Actor.US,
            edit_fix(places[0].split(":")[0], "Remove the option, rebuild what is made from that file, and reboot."),
        )


def _on(word: str) -> bool:
    return word.partition("=")[2].lower() in ("1", "y", "yes", "on", "true", "")


def kernel_build(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is the running kernel a build that is known to break passthrough?

    Why: Some builds had faults that no setting works around: 7.0.14-1 and -2 hang the guest start when amdgpu is
        unbound; the 6.8 builds before 6.8.12-5 and 6.11.0-1 took the IOMMU group from Intel graphics of Skylake to
        Comet Lake.
    Look at: `uname -r`, and which driver holds the device.
    Fix: Install and boot the build named in the finding; on a ZFS root check that an older kernel can still read the
        pool before pinning one.
    Source: Proxmox kernel changelogs 7.0.14-3, 7.0.14-4, 6.8.12-5 and 6.11.0-2.
    """
    for row in bad_builds(facts.kernel.release):
        for device in chosen(facts, request):
            if _hit(facts, row, device):
                yield Finding(
                    "platform.kernel-build",
                    Level.BLOCKS,
                    str(device.address),
                    f"{device} meets a known fault of kernel {facts.kernel.release}: {row.what}.",
                    (f"uname -r: {facts.kernel.release}", f"{device.address}: driver {device.driver or 'none'}"),
                    Actor.US,
                    show(f"Boot kernel {row.better} or later ({row.source}).", "apt update", "apt full-upgrade"),
                )


def _hit(facts: Facts, row: BadBuild, device: Device) -> bool:
    if row.hits.startswith("driver:"):
        return device.driver == row.hits.partition(":")[2]
    intel_graphics = device.vendor == 0x8086 and device.is_display and device.address[1:] == (0, 2, 0)
    return intel_graphics and device.iommu_group == NO_GROUP and bool(facts.iommu.on)


def secure_boot(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is Secure Boot on?

    Why: With Secure Boot the kernel loads only signed modules. What ships with Proxmox is signed; modules built by
        DKMS (vendor-reset, i915-sriov, the NVIDIA driver) load only with a machine owner key that was enrolled. Such
        hosts start through GRUB, never through systemd-boot.
    Look at: `mokutil --sb-state`.
    Fix: Nothing, unless a DKMS module is needed: then enrol its key with `mokutil --import` and confirm it at the
        next boot.
    Source: Proxmox VE administration guide, Host System Administration, Secure Boot.
    """
    if facts.firmware.secure_boot:
        yield Finding(
            "platform.secure-boot",
            Level.NOTE,
            "host",
            "Secure Boot is on: modules built by DKMS (such as vendor-reset) load only with an enrolled key.",
            ("efivars SecureBoot: 1",),
        )


def quorum(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does the cluster have quorum?

    Why: Without quorum /etc/pve is read-only: no guest's configuration can be changed, and guests do not start.
    Look at: `pvecm status`, the line Quorate; /etc/pve/.members.
    Fix: Bring the other nodes or their network back. `pvecm expected 1` only on purpose and only while the others are
        certainly down.
    Source: Proxmox VE administration guide, Cluster Manager, Quorum.
    """
    if facts.pve.installed is False:
        return
    if facts.pve.quorate is False:
        yield Finding(
            "platform.quorum",
            Level.BLOCKS,
            "host",
            "The cluster has no quorum: guests can neither be changed nor started.",
            ("/etc/pve/.members: quorate 0",),
            fix=show("Bring the other nodes back.", "pvecm status"),
        )
    elif facts.pve.quorate is None and len(facts.pve.nodes or ()) > 1:
        yield unknown(
            "platform.quorum",
            "host",
            f"Whether this cluster of {len(facts.pve.nodes or ())} nodes has quorum, nobody could say.",
            reason(facts, "pve.quorate", "pve.quorum", "pve"),
        )


def config_writable(facts: Facts, request: Request) -> Iterator[Finding]:
    """Does /etc/pve accept writes?

    Why: All guests' settings live in /etc/pve. When pmxcfs is stopped or lost quorum it is read-only or empty, and
        every change of a guest fails half-way.
    Look at: `touch /etc/pve/.probe && rm /etc/pve/.probe`; `systemctl status pve-cluster`.
    Fix: Mend the cluster service or the quorum first.
    Source: Proxmox VE administration guide, Proxmox Cluster File System (pmxcfs).
    """
    if facts.pve.writable is False:
        yield Finding(
            "platform.config-writable",
            Level.BLOCKS,
            "host",
            "/etc/pve does not accept writes: no guest can be changed.",
            ("/etc/pve: read-only",),
            fix=show("Mend pve-cluster or the quorum first.", "systemctl status pve-cluster", "pvecm status"),
        )


def boot_space(facts: Facts, request: Request) -> Iterator[Finding]:
    """Is there room on /boot and on the ESPs?

    Why: Every change of modprobe.d or of the kernel command line rewrites boot files. When the file system is full,
        the rebuild fails, and the way back, which rebuilds again, fails too.
    Look at: `df -h /boot /boot/efi`; for ESPs kept by proxmox-boot-tool, mount each and look.
    Fix: Remove kernels that are not needed: `apt autoremove --purge`, `proxmox-boot-tool kernel list`.
    Source: Debian initramfs-tools, mkinitramfs (the new image is written beside the old one); Proxmox VE
        administration guide, Host Bootloader.
    """
    for space in facts.spaces:
        if _boots(facts, space) and space.free < INITRAMFS_ROOM:
            yield Finding(
                "platform.boot-space",
                Level.HARMS,
                space.path,
                f"{space.path} has {space.free // 1024**2} MiB free: too little to rebuild the boot files "
                "and to go back again.",
                (f"{space.path}: {space.free} of {space.total} bytes free",),
                Actor.US,
                show("Remove old kernels.", "apt autoremove --purge", "proxmox-boot-tool kernel list"),
            )
    if facts.boot.managed and facts.gap("spaces.esp") and request.vmid is None:  # a plan says it where it matters
        yield unknown(
            "platform.boot-space",
            "esp",
            "How much room there is on the ESPs that proxmox-boot-tool keeps, nobody could say.",
            reason(facts, "spaces.esp"),
        )
    if not any(_boots(facts, space) for space in facts.spaces) and facts.pve.installed is not False:
        yield unknown(
            "platform.boot-space",
            "host",
            "How much room there is for new boot files, nobody could say.",
            reason(facts, "spaces", "boot.space", "space"),
        )


def _boots(facts: Facts, space: Space) -> bool:
    """Whether kernels are written there: to /boot, and to ESPs only where proxmox-boot-tool copies them."""
    esp = "esp" in space.path.lower() or "efi" in space.path.lower()
    return (facts.boot.managed is not False) if esp else space.path.startswith("/boot")
