"""Built-in machines whose guests work and are slow. Data only.

1. `slow-guest`: two sockets; the card hangs on the second one's node and has 4 of its 16 lanes, its sound uses
   old-style interrupts, and the guest has what people have who changed no default: kvm64, SATA, an e1000, a balloon.
2. `quick-guest`: the same machine with all of that as it should be.
"""

from __future__ import annotations

from dataclasses import replace

from . import seeds
from .graphics_seeds import RTX_3080
from .spec import GIB, MachineSpec, PciSpec

_CARD, _SOUND, _PORT = "0000:01:00.0", "0000:01:00.1", "0000:00:01.0"
_DRIVERS = {"10de:2206": "nvidia", "10de:1aef": "snd_hda_intel"}
_GUEST = """\
agent: 1
bios: ovmf
boot: order=scsi0;sata0
cores: 4
efidisk0: local-lvm:vm-100-disk-0,efitype=4m,size=4M
hostpci0: 0000:01:00,pcie=1
machine: q35
memory: 8192
name: desk
ostype: l26
smbios1: uuid=2f2c1d5e-8c0a-4d0f-9a43-2f3a61c3a100
sockets: 1
"""
_SLOW = """\
balloon: 2048
net0: e1000=BC:24:11:00:01:00,bridge=vmbr0
sata0: local-lvm:vm-100-disk-1,size=64G
"""
_QUICK = """\
affinity: 8-15
balloon: 0
cpu: host
net0: virtio=BC:24:11:00:01:00,bridge=vmbr0
numa: 1
numa0: cpus=0-3,hostnodes=1,memory=8192,policy=bind
scsi0: local-lvm:vm-100-disk-1,iothread=1,size=64G
scsihw: virtio-scsi-single
vga: none
"""


def _config(more: str) -> str:
    return "".join(sorted(f"{_GUEST}{more}".splitlines(keepends=True)))


def _placed(device: PciSpec, lanes: int) -> PciSpec:
    """On the second node; the card with these lanes."""
    node = 1 if device.address in (_CARD, _SOUND, _PORT) else 0
    if device.address == _PORT:
        return replace(device, numa=node, link=("2.5 GT/s PCIe", "16.0 GT/s PCIe", lanes, 16))
    if device.address in (_CARD, _SOUND):
        return replace(device, numa=node, link=("2.5 GT/s PCIe", "16.0 GT/s PCIe", lanes, 16))
    return replace(device, numa=node)


QUICK_GUEST = replace(
    RTX_3080,
    name="quick-guest",
    devices=tuple(_placed(device, 16) for device in RTX_3080.devices),
    cores=16,
    nodes=2,
    memory=64 * GIB,
    guests={100: _config(_QUICK)},
    insides={100: {"drivers": _DRIVERS, "busy": True}},
    files={**seeds.DEFAULT.files, "/sys/module/pcie_aspm/parameters/policy": "[default] performance powersave\n"},
)
SLOW_GUEST = replace(
    QUICK_GUEST,
    name="slow-guest",
    devices=tuple(_placed(device, 4) for device in RTX_3080.devices),
    guests={100: _config(_SLOW)},
    insides={100: {"drivers": _DRIVERS, "interrupts": {"10de:1aef": "intx"}, "huge": 0.1}},
    files={**QUICK_GUEST.files, "/sys/module/pcie_aspm/parameters/policy": "default performance [powersave]\n"},
)

PERFORMANCE_SEEDS: dict[str, MachineSpec] = {seed.name: seed for seed in (SLOW_GUEST, QUICK_GUEST)}
