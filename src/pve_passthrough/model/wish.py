"""What should be true, before anyone has looked at what is. Values only; a wish is a union of small facts."""

from __future__ import annotations

from .pci import Address
from .value import dataclass


@dataclass(frozen=True, slots=True)
class ArgPresent:
    """The next boot's kernel command line contains `token`, e.g. `intel_iommu=on`."""

    token: str
    why: str


@dataclass(frozen=True, slots=True)
class ArgAbsent:
    """No `token` on the next boot's kernel command line; `token` is compared whole."""

    token: str
    why: str


@dataclass(frozen=True, slots=True)
class ClaimById:
    """vfio-pci takes every function with one of these IDs at boot, before the drivers named in `before` load."""

    ids: tuple[str, ...]
    before: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class ClaimByAddress:
    """vfio-pci takes exactly this function at boot, if `id` (vendor:device) is still what sits there."""

    address: Address
    id: str
    why: str


@dataclass(frozen=True, slots=True)
class BarSize:
    """BAR `index` of this function has `size` bytes from every boot on, if `id` (vendor:device) is still what sits
    there."""

    address: Address
    id: str
    index: int
    size: int
    why: str


@dataclass(frozen=True, slots=True)
class ModuleOption:
    """`options MODULE TEXT` in our modprobe file, e.g. kvm ignore_msrs=1."""

    module: str
    text: str
    why: str


@dataclass(frozen=True, slots=True)
class VmOption:
    """Guest `vmid` has `key` set to `value` (None: unset)."""

    vmid: int
    key: str
    value: str | None
    why: str


@dataclass(frozen=True, slots=True)
class LendDisplay:
    """Guest `vmid` gets the card that shows the host's console for as long as it runs, and no claim at boot.

    `functions`: `ADDRESS VENDOR:DEVICE`, each.
    """

    vmid: int
    functions: tuple[str, ...]
    why: str


@dataclass(frozen=True, slots=True)
class Script:
    """A file of ours at `path` has this text; no boot depends on it. `executable`: programs start it."""

    path: str
    text: str
    why: str
    executable: bool = True


@dataclass(frozen=True, slots=True)
class MappingText:
    """The resource mapping `name` has this canonical text (see the cell `mapping`); None: there is no such mapping."""

    name: str
    before: str | None
    text: str | None
    why: str
    kind: str = "pci"


@dataclass(frozen=True, slots=True)
class Text:
    """A file we do not own shall have this text: used to mend a line that is broken."""

    path: str
    text: str
    why: str


Wish = (
    ArgPresent
    | ArgAbsent
    | ClaimById
    | ClaimByAddress
    | ModuleOption
    | VmOption
    | LendDisplay
    | Script
    | MappingText
    | Text
    | BarSize
)
