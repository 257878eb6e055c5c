"""The machines of the lab as QEMU devices: which IOMMU, which slots, what is plugged into them.

Each row says what the kernel is expected to make of it; the scenarios hold the kernel to it. QEMU's root ports and
switch ports announce ACS unless `disable-acs=on` (hw/pci-bridge/gen_pcie_root_port.c), multifunction endpoints do not.
"""

from __future__ import annotations

from dataclasses import dataclass

INTEL = ("intel-iommu,intremap=on,caching-mode=on,device-iotlb=on",)
INTEL_WITHOUT_REMAPPING = ("intel-iommu,intremap=off,caching-mode=on",)
AMD = ("amd-iommu,intremap=on,xtsup=on,device-iotlb=on",)
VIRTIO = ("virtio-iommu-pci,addr=1b.0",)


@dataclass(frozen=True, slots=True)
class Hardware:
    """name · iommu: devices that make one, before all others · devices: QEMU `-device` words or options with their word
    · split_irqchip: interrupt remapping wants the interrupt controller outside of KVM."""

    name: str
    iommu: tuple[str, ...]
    devices: tuple[str, ...]
    split_irqchip: bool = True


def _port(name: str, slot: int, more: str = "") -> str:
    return f"pcie-root-port,id={name},chassis={slot},slot={slot},addr={slot:02x}.0{more}"


def _null_disk(name: str) -> str:
    return f"-blockdev driver=null-co,node-name={name},size=67108864"


def _twin(bus: str) -> tuple[str, ...]:
    """A display and an audio function, of which the machine has two that only their place tells apart."""
    return (f"bochs-display,bus={bus},addr=00.0,multifunction=on", f"intel-hda,bus={bus},addr=00.1")


_CARD = (_port("card", 2), "cirrus-vga,bus=card,addr=00.0,multifunction=on", "ich9-intel-hda,bus=card,addr=00.1")
_ROOT_DISK = (_port("disk", 3), "nvme,bus=disk,serial=ROOT,drive=root,bootindex=1")
_PLAIN_DISK = ("virtio-blk-pci,drive=root,bootindex=1,addr=1d.0",)
"""Not behind the IOMMU: on QEMU 10's AMD one an NVMe controller did not answer ("Identify Controller failed (-4)"), and
a host with USB and a network card did not come up."""
_USB = (
    _port("usb", 4), "qemu-xhci,bus=usb,id=xhci", "usb-tablet,bus=xhci.0,port=1",
    _null_disk("stick1"), "usb-storage,bus=xhci.0,port=2,drive=stick1,serial=S1",
    _null_disk("stick2"), "usb-storage,bus=xhci.0,port=3,drive=stick2,serial=S2",
    "-chardev null,id=serial1", "usb-serial,bus=xhci.0,port=4,chardev=serial1",
)  # fmt: skip
_NETWORK = (_port("net", 5), "-netdev user,id=lan,restrict=on", "e1000e,bus=net,netdev=lan")
_TWINS = (_port("twin1", 6), *_twin("twin1"), _port("twin2", 7), *_twin("twin2"))
_HOST = (*_CARD, *_ROOT_DISK, *_USB, *_NETWORK)
"""One display only, so that the kernel's console is on it, whichever driver is quicker."""

HOST_INTEL = Hardware("intel", INTEL, _HOST)
HOST_TWINS = Hardware("twins", INTEL, (*_ROOT_DISK, *_USB, *_NETWORK, *_TWINS))
"""The kernel's console is on one of the two cards, so that this one has to be claimed at boot."""
_OTHER_USB = (
    _port("usb", 4), "qemu-xhci,bus=usb,id=xhci", "usb-tablet,bus=xhci.0,port=1",
    _null_disk("stick1"), "usb-storage,bus=xhci.0,port=2,drive=stick1,serial=S1,id=stick1",
    _null_disk("stick2"), "usb-storage,bus=xhci.0,port=3,drive=stick2,serial=S2,id=stick2",
    "usb-kbd,bus=xhci.0,port=4",
    _port("spare", 10), "qemu-xhci,bus=spare,id=more",
    "usb-hub,bus=more.0,port=1,id=hub", "-chardev null,id=serial1",
    "usb-serial,bus=more.0,port=1.2,chardev=serial1,always-plugged=on,id=line",
)  # fmt: skip
_SHARED = (
    _port("shared", 8), "-netdev user,id=away,restrict=on", "igb,bus=shared,netdev=away",
    _port("solid", 9), _null_disk("solid1"), "nvme,bus=solid,serial=SOLID,drive=solid1",
    "edu,addr=0b.0",
)  # fmt: skip
HOST_DEVICES = Hardware("devices", INTEL, (*_CARD, *_ROOT_DISK, *_OTHER_USB, *_NETWORK, *_SHARED))
"""What is no card: a network card with virtual functions, a second NVMe, two USB controllers of which one carries a
keyboard, and QEMU's teaching device, at which the kernel's sample of a mediated device is at home (see `mtty`)."""
_OTHER_HOST = (*_CARD, *_PLAIN_DISK)
HOST_AMD = Hardware("amd", AMD, _OTHER_HOST)
HOST_VIRTIO = Hardware("virtio-iommu", VIRTIO, _OTHER_HOST, split_irqchip=False)
NO_REMAPPING = Hardware("no-remapping", INTEL_WITHOUT_REMAPPING, _HOST)

_PORTS_WITHOUT_ACS = (
    "pcie-root-port,id=bad0,chassis=20,slot=20,addr=04.0,multifunction=on,disable-acs=on",
    "pcie-root-port,id=bad1,chassis=21,slot=21,addr=04.1,disable-acs=on",
    "pcie-root-port,id=bad2,chassis=22,slot=22,addr=04.2,disable-acs=on",
    *_twin("bad0"), _null_disk("spare"), "nvme,bus=bad1,serial=SPARE,drive=spare", "e1000e,bus=bad2",
)  # fmt: skip
_PORTS_WITH_ACS = (
    "pcie-root-port,id=good0,chassis=23,slot=23,addr=09.0,multifunction=on",
    "pcie-root-port,id=good1,chassis=24,slot=24,addr=09.1",
    "bochs-display,bus=good0", "e1000e,bus=good1",
)  # fmt: skip
_SWITCH = (
    _port("above", 5), "x3130-upstream,id=up,bus=above",
    "xio3130-downstream,id=down0,bus=up,chassis=26,slot=26,addr=00.0",
    "xio3130-downstream,id=down1,bus=up,chassis=27,slot=27,addr=01.0",
    "bochs-display,bus=down0", "qemu-xhci,bus=down1",
)  # fmt: skip
_CONVENTIONAL = (
    _port("bridge", 6), "pcie-pci-bridge,id=pci,bus=bridge", "e1000,bus=pci,addr=02.0",
    "-audiodev none,id=quiet", "ES1370,bus=pci,addr=03.0,audiodev=quiet",
)  # fmt: skip
_ENDPOINT = ("bochs-display,addr=07.0,multifunction=on", "qemu-xhci,addr=07.1", "ahci,addr=07.2")
_LONE_PORT = (_port("lone", 8, ",disable-acs=on"), "bochs-display,bus=lone")
ZOO = Hardware(
    "zoo", INTEL,
    (*_CARD, *_ROOT_DISK, *_PORTS_WITHOUT_ACS, *_SWITCH, *_CONVENTIONAL, *_ENDPOINT, *_LONE_PORT, *_PORTS_WITH_ACS),
)  # fmt: skip
ZOO_GROUPS: dict[str, tuple[str, ...]] = {
    "a card behind a port with ACS": ("02.0/00.0", "02.0/00.1"),
    "functions of a port without ACS, and all behind them": (
        "04.0", "04.1", "04.2", "04.0/00.0", "04.0/00.1", "04.1/00.0", "04.2/00.0",
    ),
    "a switch's first port and what is behind it": ("05.0/00.0/00.0", "05.0/00.0/00.0/00.0"),
    "a switch's second port": ("05.0/00.0/01.0", "05.0/00.0/01.0/00.0"),
    "a conventional bridge and its bus": ("06.0/00.0", "06.0/00.0/02.0", "06.0/00.0/03.0"),
    "an endpoint of several functions at the root": ("07.0", "07.1", "07.2"),
    "a lone port without ACS": ("08.0", "08.0/00.0"),
    "the first function of a port with ACS": ("09.0/00.0",),
    "the second function of a port with ACS": ("09.1/00.0",),
}  # fmt: skip
"""Groups by place: the slots on the way from the root, so that no bus number counts. QEMU's switch ports have no ACS of
their own by default (hw/pci-bridge/xio3130_downstream.c), so a port and its device share a group."""
