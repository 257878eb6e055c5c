"""What makes a guest slow, as rows: what is measured, what it should be, and where that is from.

1. A threshold that no source names is ours, and says so.
2. `points`: what a bad measurement speaks for, in the vocabulary of causes; most speak for none of them.
"""

from __future__ import annotations

from ..model.diagnosis import Point
from ..model.value import dataclass

BUSY = 30
"""Per cent of use from which a card counts as working, so that its link and clocks say something. Ours."""
WAITING = 0.10
"""Share of the time that a processor of the guest may wait for one of the host. Ours: one frame in ten."""
WAITING_NOTE = 0.03
STEAL = 0.05
HALF = 0.5
"""Of what a card can move: less than this is slow, more is a note. Ours."""
FAR_MEMORY = 0.10
"""Share of the guest's memory that may lie on another node. Ours."""
HUGE_LEAST = 0.5
"""Share of the guest's memory in huge pages below which it is a note. Ours."""
LARGE_GUEST = 4 << 30
"""Bytes from which huge pages are worth a word. Ours."""
CLOCK_GENERATIONS = 3
"""States P0 to P3 are those of work; NVML names P0 maximum and P15 minimum performance."""

LANE_RATES = ((2.5, 0.8), (5.0, 0.8), (8.0, 128 / 130), (16.0, 128 / 130), (32.0, 128 / 130), (64.0, 1.0))
"""Speed in GT/s and what of it is left after its encoding (kernel: drivers/pci/pci.h, PCIE_SPEED2MBS_ENC)."""
INSIDE_REPORTS = frozenset({0x8086, 0x1002})
"""Makers whose cards carry a switch of their own: the link between it and the picture says nothing, the one above it
is the slot's. Arc cards say 2.5 GT/s and one lane there (Syllo/nvtop#344); Radeon cards from RDNA on always the maximum
(ilya-zlobintsev/LACT#334)."""

SHEDS_LANES = frozenset({0x1002})
"""Makers whose idle cards give up lanes as well as speed: amdgpu's pp_dpm_pcie has `0: 2.5GT/s, x8` and
`1: 8.0GT/s, x16` (kernel: drivers/gpu/drm/amd/pm/powerplay/hwmgr/smu7_hwmgr.c)."""


def lane_rate(speed: float, width: int) -> float:
    """Gigabytes a second in one direction."""
    share = next((share for known, share in LANE_RATES if known == speed), 1.0)
    return speed * width * share / 8


@dataclass(frozen=True, slots=True)
class Row:
    """One measurement."""

    id: str
    title: str
    means: str
    source: str
    points: tuple[Point, ...] = ()


_QM = "Proxmox VE administration guide, QEMU/KVM Virtual Machines"
ROWS: tuple[Row, ...] = (
    Row(
        "link", "PCI Express link",
        "Fewer lanes or a lower speed than both ends can do. A card lowers the speed when it idles (Radeons "
        "some of the lanes, too); what the guest shows is its virtual port.",
        "kernel: Documentation/ABI/testing/sysfs-bus-pci, current_link_speed and current_link_width; "
        "drivers/pci/pci.c, pcie_bandwidth_available; qemu-server PCI.pm (x-speed and x-width of the guest's ports)",
    ),
    Row(
        "slot", "slot",
        "The port above the card has fewer lanes or a lower speed than the card.",
        "kernel: Documentation/ABI/testing/sysfs-bus-pci, max_link_width of the card and of the port",
    ),
    Row(
        "driver", "driver in the guest",
        "Without the maker's driver the processor draws; nouveau cannot raise the clocks of many cards.",
        "Microsoft: BasicDisplay.sys, Microsoft Basic Display Adapter; nouveau's feature matrix, power management",
    ),
    Row(
        "display", "virtual display",
        "Windows shown on the virtual display are drawn by the processor, and a desktop may prefer it.",
        f"{_QM}, Display; PCI Passthrough",
    ),
    Row(
        "interrupts", "interrupts",
        "Old-style interrupts (INTx) take a way through the host for every one; message interrupts (MSI, MSI-X) go to "
        "the guest's processor at once.",
        "kernel: drivers/vfio/pci/vfio_pci_intrs.c (names in /proc/interrupts); QEMU: hw/vfio/pci.c, "
        "vfio_intx_enable_kvm and vfio_intx_mmap_enable",
        (Point("intx-broken", 0.3),),
    ),
    Row(
        "power", "power state",
        "A device that sleeps while the guest runs, or is at work and holds its clocks down.",
        "kernel: Documentation/ABI/testing/sysfs-bus-pci, power_state; NVML: nvmlPstates_t and "
        "NvmlClocksThrottleReasons",
        (Point("power-state", 1.0),),
    ),
    Row(
        "aspm", "ASPM policy",
        "Links that sleep deeply take longer to wake.",
        "kernel: Documentation/admin-guide/kernel-parameters.txt, pcie_aspm.policy; drivers/pci/pcie/aspm.c",
    ),
    Row(
        "window", "resizable BAR",
        "The processor reaches the card's memory through a small window, and the guest cannot make it larger.",
        "QEMU commit b5048a4cbf (8.1): the guest sees the capability with the present size alone",
    ),
    Row(
        "encoder", "video encoder",
        "Whether the card's encoder works: a program that encodes on the processor is slow while the card idles.",
        "NVML: nvmlDeviceGetEncoderUtilization; kernel: Documentation/gpu/drm-usage-stats.rst",
    ),
    Row(
        "cpu", "CPU type",
        "A model CPU hides what the host's can do (AES, AVX, AVX2), and programs take slower ways.",
        f"{_QM}, CPU Type; qemu-server CPUConfig.pm (built-in models)",
    ),
    Row(
        "enlightenments", "Hyper-V enlightenments",
        "Proxmox VE gives a guest Hyper-V's clocks and interrupts only when its ostype is a Windows.",
        "qemu-server CPUConfig.pm, add_hyperv_enlightenments",
    ),
    Row(
        "nested", "VBS (Windows' own hypervisor)",
        "Memory integrity and other parts of Windows run it under a hypervisor of its own, inside the guest: every "
        "trap costs twice.",
        "Microsoft: Win32_DeviceGuard, VirtualizationBasedSecurityStatus (2: running)",
    ),
    Row(
        "waiting", "waiting for a CPU",
        "The host has fewer free processors than the guest wants at this moment.",
        "kernel: Documentation/scheduler/sched-stats.rst, /proc/PID/schedstat; "
        "Documentation/filesystems/proc.rst, steal",
    ),
    Row(
        "hybrid", "two kinds of CPU",
        "The guest's processors are alike to it; a thread that lands on a small one of the host's is late.",
        "kernel: Documentation/admin-guide/perf (cpu_core and cpu_atom of hybrid processors)",
    ),
    Row(
        "governor", "CPU governor",
        "The governor keeps the host's processors at a low frequency.",
        "kernel: Documentation/admin-guide/pm/cpufreq.rst, powersave; intel_pstate.rst and amd-pstate.rst (their "
        "powersave is another one)",
    ),
    Row(
        "node", "NUMA node",
        "Processors and memory on another memory node than the device: each access goes over the link between them.",
        f"{_QM}, NUMA and CPU Affinity; kernel: Documentation/ABI/testing/sysfs-bus-pci, numa_node; "
        "Documentation/filesystems/proc.rst, numa_maps",
    ),
    Row(
        "pages", "huge pages",
        "Memory in pages of 4 KiB takes longer to find and to pin.",
        f"{_QM}, hugepages; kernel: Documentation/admin-guide/mm/transhuge.rst",
        (Point("memory-pinning", 1.0),),
    ),
    Row(
        "pinned", "pinned memory",
        "All memory of a guest with devices is pinned at its start; what was swapped out is slow to come back.",
        "kernel: drivers/vfio/vfio_iommu_type1.c, vfio_lock_acct; Documentation/filesystems/proc.rst, VmLck and VmSwap",
        (Point("memory-pinning", 2.0),),
    ),
    Row(
        "balloon", "ballooning",
        "The balloon takes memory from a guest whose memory is pinned: the host gets none of it back.",
        "QEMU: hw/vfio/container.c, hw/virtio/virtio-balloon.c",
    ),
    Row(
        "disk", "disks",
        "An emulated IDE or SATA controller traps for every register; a shared thread does all other work as well.",
        f"{_QM}, Hard Disk (bus and IO Thread)",
    ),
    Row(
        "network", "network cards",
        "An emulated card traps for every register, a VirtIO one does not.",
        f"{_QM}, Network Device",
    ),
    Row(
        "clock", "clock",
        "A guest that reads its time from an emulated chip leaves the processor for every look at the clock.",
        "kernel: Documentation/virt/kvm/x86/timekeeping.rst; /sys/devices/system/clocksource",
    ),
    Row(
        "plan", "power plan",
        "The plan for saving power keeps the guest's processors idle more deeply.",
        "Microsoft: powercfg (GUID of the plan Power saver)",
    ),
    Row(
        "split-locks", "split locks",
        "The host's kernel slows down whoever locks two cache lines at once: a game stands still for moments.",
        "kernel: arch/x86/kernel/cpu/bus_lock.c, split_lock_warn; kernel-parameters.txt, split_lock_detect",
    ),
)  # fmt: skip


def row(measure: str) -> Row:
    return next(one for one in ROWS if one.id == measure)


GENERIC = {
    "qemu64": "aes avx avx2", "qemu32": "aes avx avx2", "kvm64": "aes avx avx2", "kvm32": "aes avx avx2",
    "x86-64-v2": "aes avx avx2", "x86-64-v2-AES": "avx avx2",
}  # fmt: skip
"""Processor types that hide much, and what of the usual they hide. x86-64-v3 and v4 hide none of these.
Source: qemu-server CPUConfig.pm, builtin models."""
WATCHED = ("aes", "avx", "avx2")
EMULATED_DISKS = ("ide", "sata")
EMULATED_NICS = ("e1000", "e1000e", "rtl8139", "ne2k_pci", "ne2k_isa", "pcnet", "i82551", "i82557b", "i82559er")
"""Source: qemu-server schema, net[n] model; vmxnet3 is paravirtual, yet no VirtIO."""
SLOW_CLOCKS = {
    "hpet": "an emulated HPET", "acpi_pm": "an emulated ACPI timer", "pit": "an emulated PIT", "jiffies": "no clock"
}  # fmt: skip
BASIC_DRIVERS = ("basicdisplay", "basicrender", "simple-framebuffer", "simpledrm", "efifb", "vesafb")
"""Drivers that only show what the firmware set up."""
POWER_SAVER = "a1841308-3541-4fab-bc81-f71556f20b4a"
"""Windows' plan "Power saver"; the others are Balanced 381b4222… and High performance 8c5e7fda… (powercfg)."""
OWN_POWERSAVE = ("intel_pstate", "amd-pstate-epp", "amd_pstate_epp")
"""Drivers whose governor `powersave` follows the load, unlike the general one of that name."""
BRAKES = {
    "HW Slowdown": "the card slows itself down (heat or power)",
    "HW Thermal Slowdown": "the card is too hot",
    "HW Power Brake Slowdown": "the power supply tells the card to slow down",
    "SW Thermal Slowdown": "the driver cools the card down",
}
"""Names of nvidia-smi for reasons that cost speed. "SW Power Cap" is every busy card's and says nothing."""
ENCODERS = ("enc", "enc_1", "video", "video-enhance", "vcs", "vecs", "vcn")
"""Engines that encode: amdgpu's enc, i915's video, xe's vcs (kernel: drm-usage-stats.rst and the drivers' own pages).
i915's and xe's decode as well."""
