"""What people want of a new guest, what becomes of it, and how a guest is refused that cannot be made.

1. Values only. A refusal says first that no guest was made.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import field

from ..errors import Exit, Failure
from ..model.facts import Facts
from ..model.pci import Address
from ..model.value import dataclass
from ..model.vm import Vm


@dataclass(frozen=True, slots=True)
class Wanted:
    """What people ask for; empty or None: the profile's own choice.

    memory   MiB
    disk     as typed: `64`, `64G`, `1T`
    isos     names of the ISO files of each storage that was looked into
    free     bytes that each storage has left; None: it is not active now; a storage that is not named is unknown
    ssh_key  path of the file on the host; `ssh_keys` is its text
    ip       `dhcp`, or `ADDRESS/LENGTH[,gw=ADDRESS]`
    devices  what the guest is made for
    """

    vmid: int | None = None
    name: str = ""
    storage: str = ""
    disk: str = ""
    memory: int | None = None
    cores: int | None = None
    iso: str = ""
    virtio_iso: str = ""
    isos: Mapping[str, tuple[str, ...]] = field(default_factory=dict)
    free: Mapping[str, int | None] = field(default_factory=dict)
    bridge: str = ""
    vlan: int | None = None
    bios: str = ""
    secure_boot: bool | None = None
    tpm: bool | None = None
    cloud_init: bool = False
    cloud_image: str = ""
    user: str = ""
    ssh_key: str = ""
    ssh_keys: str = ""
    ip: str = ""
    numa_of: Address | None = None
    hugepages: str = ""
    devices: tuple[Address, ...] = ()


@dataclass(frozen=True, slots=True)
class NewGuest:
    """A guest that can be made: `options` in the spelling of `qm create`, `vm` as it will stand in the facts.

    grow  size of the disk after an image was imported, empty when it is made in its size
    """

    vmid: int
    node: str
    profile: str
    options: Mapping[str, str]
    notes: tuple[str, ...]
    vm: Vm
    ssh_key: str = ""
    grow: str = ""


def usage(ref: str, message: str, *context: str, hint: str = "") -> Failure:
    return Failure(ref, f"No guest was made: {message}", *context, hint=hint, code=Exit.USAGE)


def unfit(ref: str, message: str, *context: str, hint: str = "") -> Failure:
    return Failure(ref, f"No guest was made: {message}", *context, hint=hint)


def unknown(facts: Facts, about: str, what: str) -> Failure:
    gap = facts.gap(about)
    return Failure(
        "plan.unknown", f"No guest was made: {what} is unknown.", f"{about}: {gap.reason if gap else 'not answered'}",
        hint="Run it on the machine itself, as root; `check` lists every gap.",
    )  # fmt: skip
