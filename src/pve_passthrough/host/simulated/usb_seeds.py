"""A built-in machine with a desk full of USB devices. Data only.

1. Vendor and product numbers are those of the USB ID list; serial numbers are made up.
2. A keyboard and a receiver, a hub with two identical serial adapters and a ZigBee stick, a Coral accelerator that
   changes its ID, a UPS, and a USB 3 disk.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .spec import MachineSpec, UsbSpec

_XHCI = "0000:00:14.0"
_GUEST = (
    "agent: 1\nboot: order=scsi0;net0\ncores: 2\nmemory: 2048\nmeta: creation-qemu=10.0.2,ctime=1795260000\n"
    "name: {name}\nnet0: virtio=BC:24:11:00:01:{vmid:02X},bridge=vmbr0\nostype: {ostype}\n"
    "scsi0: local-lvm:vm-{vmid}-disk-0,iothread=1,size=32G\nscsihw: virtio-scsi-single\n"
)

USB_DESK = replace(
    seeds.DEFAULT,
    name="usb-desk",
    usb=(
        UsbSpec("1-1", _XHCI, "046d:c31c", "Keyboard K120", ((3, 1, 1), (3, 0, 0)), "1.5", driver="usbhid"),
        UsbSpec("1-2", _XHCI, "046d:c52b", "Unifying Receiver", ((3, 1, 1), (3, 1, 2)), "12", driver="usbhid"),
        UsbSpec("1-4", _XHCI, "05e3:0608", "USB2.0 Hub", ((9, 0, 0),), "480", hub=4, driver="hub"),
        UsbSpec("1-4.1", _XHCI, "10c4:ea60", "CP2102N USB to UART Bridge Controller", ((0xFF, 0, 0),), "12",
                serial="a0001", driver="cp210x", terminal="ttyUSB0"),
        UsbSpec("1-4.2", _XHCI, "10c4:ea60", "CP2102N USB to UART Bridge Controller", ((0xFF, 0, 0),), "12",
                serial="a0002", driver="cp210x", terminal="ttyUSB1"),
        UsbSpec("1-4.3", _XHCI, "1cf1:0030", "ConBee II", ((2, 2, 1), (10, 0, 0)), "12", serial="DE2480001",
                driver="cdc_acm", terminal="ttyACM0"),
        UsbSpec("1-5", _XHCI, "051d:0002", "Back-UPS ES 700G", ((3, 0, 0),), "12", serial="5B1800T00001",
                driver="usbhid"),
        UsbSpec("2-1", _XHCI, "1a6e:089a", "", ((0xFE, 1, 2),), "5000"),
        UsbSpec("2-3", _XHCI, "0781:5583", "Ultra Fit", ((8, 6, 80),), "5000", serial="4C5300010001",
                driver="usb-storage"),
    ),
    guests={
        **seeds.DEFAULT.guests,
        201: _GUEST.format(name="home", vmid=201, ostype="l26"),
        202: _GUEST.format(name="old", vmid=202, ostype="win7"),
    },
)  # fmt: skip

USB_SEEDS: dict[str, MachineSpec] = {USB_DESK.name: USB_DESK}
