"""Lines about interrupts that nobody answers or that cannot be shared."""

from __future__ import annotations

from .row import Sign, harmless, sign

SIGNS: tuple[Sign, ...] = (
    sign(
        "irq.nobody-cared", "irqpoll", r"irq \d+: nobody cared .*irqpoll",
        "A line interrupt fired without end and nobody answered, so the kernel switches the line off: everything on it "
        "is dead from then on.", {"intx-broken": 3},
        when={("irq.vfio-handler",): {"intx-broken": 6}},
        source="kernel: kernel/irq/spurious.c, __report_bad_irq",
        sample='irq 16: nobody cared (try booting with the "irqpoll" option)',
        confirm="grep -E 'vfio|IO-APIC' /proc/interrupts",
    ),
    sign(
        "irq.switched-off", "Disabling IRQ #", r"Disabling IRQ #\d+",
        "The kernel switched an interrupt line off.", {"intx-broken": 3},
        source="kernel: kernel/irq/spurious.c, note_interrupt", sample="Disabling IRQ #16",
        follows=("irq.nobody-cared",),
    ),
    sign(
        "irq.vfio-handler", "vfio_intx", r"\bvfio_intx_handler\b",
        "The line that nobody answers is that of a device in a guest.", {"intx-broken": 4}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_intrs.c; kernel/irq/spurious.c, the list of handlers",
        sample="[<00000000a1b2c3d4>] vfio_intx_handler [vfio_pci_core]",
    ),
    sign(
        "irq.not-shared", "Flags mismatch irq", r"Flags mismatch irq \d+\..*vfio-intx",
        "The device cannot mask its line interrupt and would need a line of its own, but shares one with another "
        "device.",
        {"intx-broken": 6}, where="host",
        source="kernel: kernel/irq/manage.c, __setup_irq; drivers/vfio/pci/vfio_pci_intrs.c, vfio_intx_set_signal",
        sample="genirq: Flags mismatch irq 16. 00000000 (vfio-intx(0000:03:00.0)) vs. 00000080 (ehci_hcd:usb1)",
        confirm="grep vfio-intx /proc/interrupts",
    ),
    sign(
        "irq.vfio-unrouted", "for PCI INT", r"vfio-pci \S+: (?:can't (?:find IRQ|derive routing) for PCI INT|PCI "
        r"INT \w: "
        r"(?:no GSI|not connected))",
        "The firmware says no line for the device's interrupt.", {"intx-broken": 3}, where="host",
        source="kernel: drivers/acpi/pci_irq.c, acpi_pci_irq_enable",
        sample="vfio-pci 0000:03:00.0: can't derive routing for PCI INT A",
    ),
    sign(
        "irq.quirk", "Masking broken INTx", r"Masking broken INTx support",
        "The kernel knows that this model cannot mask its line interrupt, and hides that interrupt from the guest: its "
        "driver must use MSI.", {"intx-broken": 1}, where="host",
        source="kernel: drivers/vfio/pci/vfio_pci_core.c, vfio_pci_nointx",
        sample="vfio-pci 0000:04:00.0: Masking broken INTx support",
    ),
    harmless(
        "irq.no-handler", "irq handler", r"(?:do_IRQ|__common_interrupt): \d+\.\d+ No irq handler for vector",
        "An interrupt came late, after its device had been moved to another processor.", where="host",
        source="kernel: arch/x86/kernel/irq.c, common_interrupt",
        sample="__common_interrupt: 3.55 No irq handler for vector",
    ),
)  # fmt: skip
