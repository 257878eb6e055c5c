"""USB devices given one by one: what QEMU, Proxmox VE and the kernel say of them.

1. A USB device belongs to a port or to an ID; what is lost is mostly one of the two, not the passthrough.
2. Errors of a cable are the cable's on the host as in a guest.
"""

from __future__ import annotations

from .row import Sign, harmless, sign

SIGNS: tuple[Sign, ...] = (
    sign(
        "usb.limit", "only possible with machine type",
        r"using usb\d+ is only possible with machine type >= 7\.1",
        "More than five USB devices need a newer machine type and a newer system.",
        {"bad-vm-config": 6}, program="qemu-server",
        source="qemu-server: QemuServer/USB.pm, assert_usb_index_is_useable",
        sample="using usb5 is only possible with machine type >= 7.1 and ostype l26 or windows > 7",
    ),
    sign(
        "usb.mapping", "USB Mapping invalid",
        r"USB Mapping invalid \(hardware probably changed\)",
        "The mapping's USB device is not the one at that port.",
        {"bad-vm-config": 4, "bdf-renumbered": 2}, program="qemu-server",
        source="qemu-server: QemuServer/USB.pm; pve-guest-common: Mapping/USB.pm, assert_valid",
        sample="USB Mapping invalid (hardware probably changed): no usb device found",
        confirm="lsusb -t; cat /etc/pve/mapping/usb.cfg",
    ),
    sign(
        "usb.mapping-many", "USB mapping per host",
        r"More than one USB mapping per host not supported",
        "A mapping of a USB device may name one device per node.",
        {"bad-vm-config": 6}, program="qemu-server",
        source="qemu-server: QemuServer/USB.pm, parse_usb_device",
        sample="More than one USB mapping per host not supported",
    ),
    sign(
        "usb.not-found", "host usb device",
        r"failed to (find|open) host usb device",
        "The USB device is not at this place now, or another guest has it.",
        {"bad-vm-config": 2, "host-driver-busy": 1.5}, program="qemu",
        source="QEMU: hw/usb/host-libusb.c, usb_host_open",
        sample="failed to find host usb device 1:4",
        confirm="lsusb -t",
    ),
    sign(
        "usb.lost", "libusb_",
        r"libusb_\w+: -\d+ \[(NO_DEVICE|IO|TIMEOUT|PIPE|NOT_FOUND|OTHER|BUSY)\]",
        "The USB device went away, or came back as another, while the guest used it.",
        {"unknown": 0.7, "bad-vm-config": 0.5}, program="qemu",
        source="QEMU: hw/usb/host-libusb.c, usb_host_libusb_error",
        sample="libusb_release_interface: -4 [NO_DEVICE]",
        confirm="dmesg of the host: usb lines at that time",
    ),
    sign(
        "usb.descriptor", "device descriptor read/",
        r"usb \d+-[\d.]+: device descriptor read/(64|all|8), error -\d+",
        "The kernel cannot talk to a USB device: cable, port, power, or the device itself.",
        {"unknown": 0.7},
        source="kernel: drivers/usb/core/hub.c, hub_port_init",
        sample="usb 1-2: device descriptor read/64, error -71",
    ),
    sign(
        "usb.address", "device not accepting address",
        r"usb \d+-[\d.]+: device not accepting address \d+, error -\d+",
        "The kernel cannot talk to a USB device: cable, port, power, or the device itself.",
        {"unknown": 0.7},
        source="kernel: drivers/usb/core/hub.c, hub_port_init",
        sample="usb 1-2: device not accepting address 5, error -71",
        follows=("usb.descriptor",),
    ),
    sign(
        "usb.enumerate", "unable to enumerate USB device",
        r"usb (usb)?\d+-[\w.]+: unable to enumerate USB device",
        "The kernel gave a USB device up.",
        {"unknown": 0.7},
        source="kernel: drivers/usb/core/hub.c, hub_port_connect",
        sample="usb usb1-port2: unable to enumerate USB device",
        follows=("usb.descriptor", "usb.address"),
    ),
    sign(
        "usb.current", "over-current ",
        r"usb \S+: over-current (condition|change)",
        "A USB port gives no power: something on it draws too much.",
        {"unknown": 0.7},
        source="kernel: drivers/usb/core/hub.c",
        sample="usb usb1-port2: over-current condition",
    ),
    sign(
        "usb.power", "insufficient available bus power",
        r"usb \S+: rejected \d+ configurations? due to insufficient available bus power",
        "A USB port has too little power for a device.",
        {"unknown": 0.7},
        source="kernel: drivers/usb/core/generic.c, usb_choose_configuration",
        sample="usb 1-2: rejected 1 configuration due to insufficient available bus power",
    ),
    harmless(
        "usb.reset", "USB device number",
        r"usb \d+-[\d.]+: reset (low|full|high|[Ss]uper|SuperSpeed)\S*[ -][Ss]peed\S* .*USB device number",
        "A guest takes a USB device, and the device starts anew.",
        source="kernel: drivers/usb/core/hub.c, hub_port_init",
        sample="usb 1-2: reset high-speed USB device number 4 using xhci_hcd",
    ),
    harmless(
        "usb.claim", "usbfs",
        r"usbfs: (process|interface) .*(did not claim interface|while '\w+' sets config)",
        "QEMU uses a USB device in a way that the kernel finds untidy.",
        source="kernel: drivers/usb/core/devio.c, checkintf",
        sample="usb 1-2: usbfs: process 4242 (CPU 0/KVM) did not claim interface 0 before use",
    ),
)  # fmt: skip
