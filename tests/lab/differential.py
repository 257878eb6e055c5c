"""The simulated host beside the lab host: made from its capture, put through the same steps, held against its kernel.

1. A difference is a bug of the simulation, and is mended there.
2. Compared: each function's driver, who shares a group with whom, virtual functions, the tree of USB devices, the
   kernel's command line, the text of every file that the program may write, and the guest's configuration.
"""

from __future__ import annotations

import base64
import json
import posixpath
from pathlib import Path

from pve_passthrough import app
from pve_passthrough.app import sriov
from pve_passthrough.host.simulated import Simulated, create_from
from pve_passthrough.host.simulated.world import World

from . import answers
from .lab import program
from .machine import Machine
from .programs import LabError
from .stand_in import VMID

_FILES = (
    "/etc/modprobe.d/pve-passthrough.conf", "/etc/modules-load.d/pve-passthrough.conf", "/etc/default/grub",
    "/etc/default/grub.d/zz-pve-passthrough.cfg", "/etc/initramfs-tools/scripts/init-top/pve-passthrough",
    f"/etc/pve/qemu-server/{VMID}.conf",
)  # fmt: skip
_READ = r"""
import json, sys
def text(path):
    try:
        with open(path, errors="surrogateescape") as file:
            return file.read()
    except OSError:
        return None
print(json.dumps({path: text(path) for path in sys.argv[1:]}))
"""


class Twin:
    """A simulated host that began as the lab host was when this was made."""

    def __init__(self, machine: Machine, folder: Path) -> None:
        """Raises LabError when the host cannot be recorded."""
        self._machine = machine
        ended = program(machine, "capture", "--not-redacted", "--force", "-o", "/root/twin.tar.gz")
        if ended.rc != 0:
            raise LabError(f"no capture: {ended.err}")
        file = folder.with_suffix(".tar.gz")
        file.write_bytes(base64.b64decode(machine.shell("base64 /root/twin.tar.gz; rm /root/twin.tar.gz")))
        create_from(str(folder), app.open_host(f"capture:{file}"))
        self.host = Simulated(str(folder))

    def apply(self, device: str, *accepted: str) -> None:
        """The same plan, applied."""
        app.apply(self.host, app.plan(self.host, (device,), VMID, accept=accepted).plan)

    def undo(self) -> None:
        app.undo(self.host)

    def reboot(self) -> None:
        app.reboot(self.host)
        app.after_boot(self.host)

    def virtual_functions(self, pf: str, count: int, vlan: int) -> None:
        """The same virtual functions, with addresses of its own choice."""
        app.apply(self.host, sriov.plan_create(self.host, pf, sriov.Wanted(count, vlan=vlan)))

    def command(self, *argv: str) -> None:
        """One of the host's own programs, e.g. `qm start 100`. Raises LabError when it fails."""
        ran = self.host.run(argv)
        if not ran.ok:
            raise LabError(f"the simulated {' '.join(argv)} ended with {ran.rc}: {ran.stderr}")

    def agrees(self) -> None:
        """Raises AssertionError naming every difference between what the simulation says and what the kernel says."""
        said, real = self._says(), _asked(self._machine)
        assert said == real, "simulated → real:\n" + "\n".join(
            f"{name}: {said.get(name)!r} → {real.get(name)!r}"
            for name in sorted(said.keys() | real.keys())
            if said.get(name) != real.get(name)
        )

    def _says(self) -> dict[str, object]:
        world = self.host.world
        functions = {
            address: answers.Function(
                world.driver_of(address) or "",
                posixpath.basename(world.link(f"/sys/bus/pci/devices/{address}/iommu_group") or ""),
                "", "", _virtual(world, address),
            )
            for address in world.addresses()
        }  # fmt: skip
        words = answers.arguments(world.text("/proc/cmdline") or "")
        return _flat(answers.Answers(words, functions, _usb(world)), {path: world.text(path) for path in _FILES})


def _virtual(world: World, address: str) -> tuple[str, ...]:
    count = (world.attribute(address, "sriov_numvfs") or "").strip()
    names = ("physfn", *(f"virtfn{number}" for number in range(int(count or 0))))
    base = f"/sys/bus/pci/devices/{address}"
    return (count, *(posixpath.basename(world.link(f"{base}/{name}") or "") for name in names))


def _usb(world: World) -> dict[str, answers.Usb]:
    base = "/sys/bus/usb/devices"

    def text(name: str, attribute: str) -> str:
        return (world.text(f"{base}/{name}/{attribute}") or "").strip()

    def described(name: str) -> answers.Usb:
        ids = f"{text(name, 'idVendor')}:{text(name, 'idProduct')}"
        return answers.Usb(ids, text(name, "speed"), text(name, "serial"), "")

    return {name: described(name) for name in world.names(base) if ":" not in name}


def _asked(machine: Machine) -> dict[str, object]:
    said = machine.run("/usr/bin/python3", "-c", _READ, *_FILES)
    if said.rc != 0:
        raise LabError(said.text)
    return _flat(answers.kernel(machine), json.loads(said.out))


def _flat(kernel: answers.Answers, files: dict[str, str | None]) -> dict[str, object]:
    """One name per thing that is compared."""
    flat: dict[str, object] = {f"driver of {address}": driver for address, driver in kernel.drivers().items()}
    flat |= {f"group of {min(group)}": sorted(group) for group in kernel.groups()}
    flat |= {f"virtual functions of {address}": row.vfs for address, row in kernel.functions.items()}
    flat |= {f"USB {name}": (row.id, row.speed, row.serial) for name, row in kernel.usb.items()}
    flat["command line"] = kernel.cmdline
    return flat | {f"file {path}": text for path, text in files.items()}
