"""Lines about the host's memory and about tasks that wait: pinning, limits, huge pages, hung tasks.

1. A hung task or a lockup is a consequence of whatever stands before it, wherever something does.
"""

from __future__ import annotations

from .row import Sign, harmless, sign

_BEFORE = (
    "reset.*", "power.vfio-*", "aer.*uncorrected", "iommu.iotlb-timeout", "iommu.completion-wait",
    "iommu.invalidation-timeout", "driver.nvidia-in-use", "driver.removal*", "trace.*", "memory.*",
)  # fmt: skip

SIGNS: tuple[Sign, ...] = (
    sign(
        "memory.limit", "MEMLOCK", r"RLIMIT_MEMLOCK \(\d+\) exceeded",
        "QEMU may not pin as much memory as the guest has.", {"memory-pinning": 6}, where="host",
        source="kernel: drivers/vfio/vfio_iommu_type1.c, vfio_pin_pages_remote",
        sample="vfio_pin_pages_remote: RLIMIT_MEMLOCK (67108864) exceeded", confirm="who starts QEMU; ulimit -l",
    ),
    sign(
        "memory.guest-killed", "Out of memory", r"Out of memory: Kill(?:ed)? process \d+ \((?:kvm|qemu\S*)\)",
        "The host ran out of memory and killed the guest.", {"memory-pinning": 5}, where="host",
        source="kernel: mm/oom_kill.c, oom_kill_process",
        sample="Out of memory: Killed process 4242 (kvm) total-vm:34567890kB, anon-rss:33554432kB", confirm="free -m",
    ),
    sign(
        "memory.oom-by-guest", "oom-killer", r"(?:kvm|qemu\S*|CPU \d+/KVM) invoked oom-killer",
        "The host ran out of memory while it served a guest.", {"memory-pinning": 4}, where="host",
        source="kernel: mm/oom_kill.c, dump_header", follows=("memory.guest-killed",),
        sample="kvm invoked oom-killer: gfp_mask=0x140cca(GFP_HIGHUSER_MOVABLE|__GFP_COMP), order=0, oom_score_adj=0",
    ),
    sign(
        "memory.other-killed", "Out of memory", r"Out of memory: Kill(?:ed)? process \d+ \((?!kvm\)|qemu)",
        "The host ran out of memory and killed something.", {"memory-pinning": 1.4}, where="host",
        source="kernel: mm/oom_kill.c, oom_kill_process", follows=("memory.guest-killed", "memory.oom-by-guest"),
        sample="Out of memory: Killed process 1234 (java) total-vm:4567890kB",
    ),
    sign(
        "memory.hugepages-missing", "hugepages", r"(?i:hugetlb): allocating \d+ of page size \S+ \S+ "
        r"failed(?: node\d+)?\.\s+Only allocated",
        "Fewer huge pages were set aside at boot than asked for.", {"memory-pinning": 3}, where="host",
        source="kernel: mm/hugetlb.c, hugetlb_hstate_alloc_pages",
        sample="HugeTLB: allocating 32 of page size 1.00 GiB failed.  Only allocated 20 hugepages.",
    ),
    # -- waiting -----------------------------------------------------------------------------------------------------
    sign(
        "trace.pinning", "vfio_", r"\b(?:vfio_pin_pages_remote|vfio_pin_map_dma"
        r"|vfio_dma_do_map|vfio_unmap_unpin|vfio_remove_dma)\+0x",
        "The kernel was pinning or releasing a guest's memory when it complained.", {"memory-pinning": 2}, where="host",
        source="kernel: drivers/vfio/vfio_iommu_type1.c", sample=" vfio_pin_map_dma+0x14d/0x2c0 [vfio_iommu_type1]",
    ),
    sign(
        "trace.bar-mapping", "vfio_pci_", r"(?:vfio_pci_mmap_(?:huge_)?fault|vfio_pci_mmap_page_fault"
        r"|vfio_pci_zap_(?:bars|and_\w+))\+0x",
        "The kernel was mapping a large BAR page by page when it complained.", {"guest-address-space": 2}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_mmap_fault",
        sample=" vfio_pci_mmap_fault+0x11a/0x1b0 [vfio_pci_core]",
    ),
    *(
        sign(
            f"trace.reset-{number}", function, rf"\b{function}0x".replace("+", r"\+"),
            "The kernel was resetting a device when it complained.", {"reset-defective": 2}, where="host",
            source="kernel: drivers/pci/pci.c; drivers/vfio/pci/vfio_pci_core.c", sample=f" {function}0x2a/0x160",
            follows=("reset.gave-up*", *(f"trace.reset-{earlier}" for earlier in range(number))),
        )
        for number, function in enumerate(
            ("pci_dev_wait+", "pci_bridge_secondary_bus_reset+", "__pci_reset_function_locked+", "vfio_pci_core_dis"
            "able+")
        )
    ),
    sign(
        "task.guest-hung", "blocked for more", r"task (?:kvm|qemu\S*|CPU \d+/KVM|vfio\S*):\d+ blocked for more than",
        "The guest's process hangs inside of the kernel and cannot be killed.",
        {"reset-defective": 1.4, "memory-pinning": 1, "host-driver-busy": 0.5}, follows=_BEFORE, where="host",
        source="kernel: kernel/hung_task.c, check_hung_task",
        sample="INFO: task kvm:4242 blocked for more than 122 seconds.", confirm="the call trace below the line",
    ),
    sign(
        "task.unbind-hung", "blocked for more", r"task (?:pvedaemon\S*|task UPID\S*|bash|sh|tee|rmmod|modprobe|qm|virsh"
        r"|libvirtd|rpc-\S+|nvidia\S*|Xorg|systemd-logind)\S*:\d+ blocked for more than",
        "Something that takes a device from the host hangs inside of the kernel.", {"host-driver-busy": 1.4},
        source="kernel: kernel/hung_task.c, check_hung_task", follows=_BEFORE, where="host",
        sample="INFO: task bash:2345 blocked for more than 120 seconds.",
    ),
    sign(
        "task.guest-lockup", "BUG: soft lockup", r"soft lockup - CPU#\d+ stuck for \d+s! \[(?:kvm|qemu\S*|CPU "
        r"\d+/KVM):",
        "A processor of the host did nothing but serve the guest's device for seconds.",
        {"guest-address-space": 1, "memory-pinning": 1, "reset-defective": 1}, follows=_BEFORE, where="host",
        source="kernel: kernel/watchdog.c, watchdog_timer_fn",
        sample="watchdog: BUG: soft lockup - CPU#3 stuck for 22s! [CPU 0/KVM:4242]",
    ),
    # -- harmless ----------------------------------------------------------------------------------------------------
    harmless(
        "cpu.tsc-deadline", "TSC_DEADLINE", r"TSC_DEADLINE disabled due to Errata",
        "The processor's microcode is old. It has nothing to do with passthrough.",
        source="kernel: arch/x86/kernel/apic/apic.c, apic_validate_deadline_timer",
        sample="[Firmware Bug]: TSC_DEADLINE disabled due to Errata; please update microcode to version: 0x22 (or "
        "later)",
    ),
    harmless(
        "cpu.split-lock", "split", r"took a (?:split_lock|bus_lock) trap at address",
        "The guest does something slow to the processor's bus, and the host slows that down. It may stutter, it is no "
        "fault.", source="kernel: arch/x86/kernel/cpu/bus_lock.c, split_lock_warn",
        sample="x86/split lock detection: #AC: CPU 0/KVM/4242 took a split_lock trap at address: 0xfffff8021",
    ),
    harmless(
        "kvm.unknown-msr", "kvm", r"kvm.*(?:ignored (?:rd|wr)msr|[Uu]nhandled (?:RD|WR|rd|wr)MSR|[Uu]nhandled "
        r"(?:rd|wr)msr)",
        "The guest asked for a register that KVM does not have. Most guests go on.",
        source="kernel: arch/x86/kvm/x86.h, kvm_pr_unimpl_rdmsr", where="host",
        sample="kvm [52392]: ignored rdmsr: 0xc0011029 data 0x0",
    ),
)  # fmt: skip
