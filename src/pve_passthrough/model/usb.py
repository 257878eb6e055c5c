"""USB devices and the controller that each hangs on. Values only."""

from __future__ import annotations

from .pci import Address
from .value import dataclass


@dataclass(frozen=True, slots=True)
class UsbDevice:
    """One USB device; `port` is the kernel's name, `BUS-PORT[.PORT…]`, or `usbN` for a root hub."""

    port: str
    vendor: int | None
    product: int | None
    device_class: int | None
    name: str
    controller: Address | None
    """The PCI function of its host controller; None when the path did not lead to one."""
    keyboard: bool = False
    """Has an interface of class 03, subclass 01, protocol 01 (HID boot keyboard)."""
    storage: bool = False
    """Has an interface of class 08 (mass storage)."""

    @property
    def id(self) -> str:
        vendor = "????" if self.vendor is None else f"{self.vendor:04x}"
        product = "????" if self.product is None else f"{self.product:04x}"
        return f"{vendor}:{product}"
