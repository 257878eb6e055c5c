"""What hangs on controllers and network cards, as the host sees it, and what the host does with it by itself.

1. Values only. `None` means that nobody could say; an empty tuple means that there is none.
2. A disk whose controller vfio-pci holds is not there for the host, so it is not in the list.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from .pci import Address
from .value import dataclass


@dataclass(frozen=True, slots=True)
class Disk:
    """A block device with something on it.

    name       kernel name: `sdb`, `sdb1`
    functions  PCI functions without which it is gone
    kind       what its contents are, as libblkid names them: `zfs_member`, `LVM2_member`, `ext4`; empty: nothing known
    label      of these contents; the pool's name for `zfs_member`, the volume group's for `LVM2_member`
    """

    name: str
    functions: tuple[Address, ...]
    kind: str
    label: str


@dataclass(frozen=True, slots=True)
class PoolImports:
    """What imports ZFS pools without being asked.

    imported  pools that are imported now; None: nobody could say
    cached    pools in /etc/zfs/zpool.cache, empty when it is not there or empty; None: it could not be understood
    scan      zfs-import-scan.service is enabled, which imports everything that it finds while there is no cache
    units     pools whose zfs-import@NAME.service is enabled, as Proxmox' web interface leaves them
    """

    imported: frozenset[str] | None = None
    cached: frozenset[str] | None = None
    scan: bool | None = None
    units: frozenset[str] | None = None


@dataclass(frozen=True, slots=True)
class Interface:
    """A network interface with hardware below it.

    named   lines of the network configuration that name it, each `where: text`
    pinned  .link files that give it its name, or a name of this very form
    """

    name: str
    function: Address
    named: tuple[str, ...] = ()
    pinned: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Attached:
    """The result of a deep look. `direct`: lines of type `direct` in an IOMMU group's reserved_regions; a group
    without any is left out."""

    disks: tuple[Disk, ...] | None = None
    imports: PoolImports = PoolImports()
    interfaces: tuple[Interface, ...] | None = None
    direct: Mapping[int, tuple[str, ...]] = field(default_factory=dict)
