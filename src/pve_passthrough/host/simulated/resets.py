"""How the simulated kernel resets a function, and what becomes of one that does not come back.

1. reset_method and d3cold_allowed obey drivers/pci/pci-sysfs.c: reset_method_store takes names that the kernel knows
   and the function supports, refuses a list with any other and leaves the old one standing; `default` asks again;
   an empty text switches every reset off. d3cold_allowed_store takes a number and wakes the function up.
2. What a function supports is what it showed when the machine started, less `bus` where it is not alone on its bus
   (pci_parent_bus_reset), and device_specific while vendor-reset is loaded and knows the card (its src/hook.c).
3. `machine.json` may list `dead-after-stop:ADDRESS` under `faults`: the function is gone after the first reset at the
   end of a guest, as cards with the AMD reset bug are, unless vendor-reset does the reset. Power brings it back.
"""

from __future__ import annotations

import errno
from typing import TYPE_CHECKING

from ...knowledge.resets import METHODS, reset_row

if TYPE_CHECKING:
    from .world import World

DEVICES = "/sys/bus/pci/devices"
_WORDS = {"flr": "FLR", "af_flr": "AF_FLR", "pm": "PM D3hot->D0", "bus": "bus reset"}
"""What pci_dev_wait calls them (drivers/pci/pci.c)."""


def concerns(path: str) -> bool:
    return path.endswith(("/reset_method", "/d3cold_allowed"))


def write(world: World, path: str, value: str) -> str:
    """What the attribute holds after this write. Raises SysfsError."""
    from .world import SysfsError

    directory, _, name = path.rpartition("/")
    address = directory.rpartition("/")[2]
    if name == "d3cold_allowed":
        return _power(world, address, value, path)
    names = value.split()
    if value == "default":
        return " ".join(supported(world, address))
    if not names:
        say(world, address, "All device reset methods disabled by user")
        return ""
    for method in names:
        if method not in METHODS:
            say(world, address, f"Invalid reset method '{method}'")
            raise SysfsError(errno.EINVAL, path)
        if method not in supported(world, address):
            say(world, address, f"Unsupported reset method '{method}'")
            raise SysfsError(errno.EINVAL, path)
    return " ".join(names)


def _power(world: World, address: str, value: str, path: str) -> str:
    from .world import SysfsError

    try:
        allowed = int(value, 0) != 0
    except ValueError:
        raise SysfsError(errno.EINVAL, path) from None
    if world.attribute(address, "power_state") == "D3cold":
        world.put(f"{DEVICES}/{address}/power_state", "D0\n")
    return str(int(allowed))


def supported(world: World, address: str) -> tuple[str, ...]:
    """Methods whose probe succeeds now, in the kernel's order."""
    path = f"{DEVICES}/{address}/reset_method"
    first = world.state().get("attributes", {}).get(path)
    shown = (first if first is not None else world.text(path) or "").split()
    found = {method for method in shown if method != "bus" or alone(world, address)}
    if vendor_reset(world, address):
        found.add("device_specific")
    return tuple(method for method in METHODS if method in found)


def alone(world: World, address: str) -> bool:
    """No other function on its bus."""
    bus = address.rpartition(":")[0]
    return sum(other.startswith(f"{bus}:") for other in world.addresses()) == 1


def vendor_reset(world: World, address: str) -> bool:
    """Whether the module is loaded and knows this card."""
    if "vendor_reset " not in (world.text("/proc/modules") or ""):
        return False
    vendor, _, product = world.id_of(address).partition(" ")
    row = reset_row(int(vendor, 16), int(product, 16)) if vendor and product else None
    return row is not None and row.vendor_reset


def say(world: World, address: str, text: str) -> None:
    """A line of the kernel's log about a function."""
    state = world.state()
    state.setdefault("dmesg", []).append(f"{world.driver_of(address) or 'pci'} {address}: {text}")
    world.save_state(state)


def happened(world: World, address: str) -> None:
    """A reset of the function was carried out; vendor-reset tells of its own (its src/amd, `performing reset`)."""
    if _by_module(world, address):
        row = reset_row(*(int(part, 16) for part in world.id_of(address).split()))
        family = row.family if row else "AMD"
        say(world, address, f"{family.upper().replace(' ', '_', 1).replace(' ', '')}: performing reset")


def _by_module(world: World, address: str) -> bool:
    first = (world.attribute(address, "reset_method") or "").split()[:1]
    return first == ["device_specific"] and vendor_reset(world, address)


def closed(world: World, address: str) -> None:
    """QEMU has let go of the function, and vfio-pci resets it (drivers/vfio/pci/vfio_pci_core.c, close)."""
    happened(world, address)
    broken = f"dead-after-stop:{address}" in world.machine().get("faults", ())
    if not broken or _by_module(world, address) or dead(world, address):
        return
    method = ((world.attribute(address, "reset_method") or "").split() or ["bus"])[0]
    say(world, address, f"not ready 65535ms after {_WORDS.get(method, method)}; giving up")
    path = f"{DEVICES}/{address}/config"
    state = world.state()
    state.setdefault("attributes", {}).setdefault(path, world.text(path))
    world.save_state(state)
    size = len((world.text(path) or "").encode("utf-8", "surrogateescape"))
    world.put(path, (b"\xff" * size).decode("utf-8", "surrogateescape"))


def dead(world: World, address: str) -> bool:
    """Nothing but ones comes back from its configuration space."""
    return (world.text(f"{DEVICES}/{address}/config") or "").encode("utf-8", "surrogateescape")[:8] == b"\xff" * 8
