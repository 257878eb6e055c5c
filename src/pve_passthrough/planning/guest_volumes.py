"""Where a new guest's disk and its media come from: storages, volumes, ISO files.

1. Pure. A storage is chosen only where there is no choice; otherwise people are asked.
Sources: Proxmox VE administration guide, "Proxmox VE Storage" and "Qemu/KVM Virtual Machines" (QM below).
"""

from __future__ import annotations

import re

from ..knowledge.guest_profiles import NEEDS, WINDOWS, GuestProfile
from ..model.facts import Facts, Storage
from .guest_wanted import Wanted, unfit, unknown, usage

LARGEST_DISK = 65536
"""GiB; above it a size is taken for a slip of the finger."""
NO_MEDIUM = "none"
_NO_IMAGES = frozenset({"iscsi", "iscsidirect", "pbs", "esxi"})
"""Storages that cannot make a volume, whatever their content says (administration guide, Storage Types)."""
_VOLUME = re.compile(r"([A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]):([^\s,;]+)")
_SIZE = re.compile(r"([1-9][0-9]{0,6})(G|T)?")


def storage_of(facts: Facts, node: str, name: str, content: str, option: str) -> Storage:
    """The named storage, else the only one that takes this content here; two are a question, not a choice."""
    usable = storages_for(facts, node, content)
    if name:
        return named_storage(facts, node, name, content)
    if len(usable) == 1:
        return usable[0]
    if not usable:
        raise unfit(
            "guest.no-storage", f"no storage of node {node} takes content of kind {content!r}.",
            *(f"{one.name}: {', '.join(sorted(one.content)) or 'nothing'}" for one in facts.storages or ()),
            hint=f"Allow {content!r} on one of them (Datacenter, Storage), or add a storage.",
        )  # fmt: skip
    raise usage(
        "guest.which-storage", f"more than one storage of node {node} takes {content!r}.",
        *(f"{one.name} ({one.type})" for one in usable), hint=f"Choose one with {option}.",
    )  # fmt: skip


def storages_for(facts: Facts, node: str, content: str) -> tuple[Storage, ...]:
    """Storages of the node that take this kind of volume. Raises Failure when nobody could say which there are."""
    if facts.storages is None:
        raise unknown(facts, "storages", "which storages there are")
    return tuple(one for one in facts.storages if not _why_not(one, node, content))


def _why_not(one: Storage, node: str, content: str) -> str:
    """Why a storage is of no use here; empty when it is."""
    if not one.enabled:
        return "is switched off"
    if one.nodes and node not in one.nodes:
        return f"belongs to {', '.join(sorted(one.nodes))}, this is {node}"
    if content not in one.content:
        return f"takes no content of kind {content!r}, but {', '.join(sorted(one.content)) or 'nothing'}"
    if content == "images" and one.type in _NO_IMAGES:
        return f"is of type {one.type}, where no volume can be made"
    return ""


def named_storage(facts: Facts, node: str, name: str, content: str) -> Storage:
    usable = [one.name for one in storages_for(facts, node, content)]
    hint = f"Of use here: {', '.join(usable)}." if usable else ""
    one = next((one for one in facts.storages or () if one.name == name), None)
    if one is None:
        raise usage("guest.no-storage", f"there is no storage {name!r}.", hint=hint)
    if why := _why_not(one, node, content):
        raise unfit("guest.no-storage", f"the storage {name} {why}.", hint=hint)
    return one


def gibibytes(row: GuestProfile, wanted: Wanted) -> int:
    needs = NEEDS[row.os]
    if not wanted.disk:
        return row.disk
    match = _SIZE.fullmatch(wanted.disk.strip())
    size = int(match.group(1)) * (1024 if match.group(2) == "T" else 1) if match else 0
    if not 0 < size <= LARGEST_DISK:
        raise usage("guest.size", f"{wanted.disk!r} is no size of a disk.", hint="For example --disk 64G or --disk 1T.")
    if size < needs.disk:
        raise usage(
            "guest.size", f"{needs.who} needs a disk of {needs.disk} GiB, not {size}.", f"source: {needs.source}"
        )
    return size


def room(row: GuestProfile, wanted: Wanted, storage: str, notes: list[str]) -> None:
    """A storage that is not active makes no volume; one with too little room may promise more than it has, if thin."""
    if storage not in wanted.free:
        return
    free = wanted.free[storage]
    if free is None:
        raise unfit("guest.no-storage", f"the storage {storage} is not active now.", hint="pvesm status")
    if gibibytes(row, wanted) << 30 > free:
        notes.append(f"{storage} has {free >> 30} GiB left: less than the disk may grow to.")


def disk(facts: Facts, node: str, row: GuestProfile, wanted: Wanted, storage: str) -> dict[str, str]:
    """discard gives freed blocks back to thin storages, ssd lets the guest see that it may (QM, "Trim/Discard")."""
    size, tail = gibibytes(row, wanted), "discard=on,iothread=1,ssd=1"
    if not wanted.cloud_image:
        return {"scsi0": f"{storage}:{size},{tail}"}
    _refuse_image(facts, node, wanted.cloud_image)
    return {"scsi0": f"{storage}:0,import-from={wanted.cloud_image},{tail}"}


def _refuse_image(facts: Facts, node: str, image: str) -> None:
    """What `import-from` takes: a volume of kind images or import, or, for root, a file's path.
    Source: recorded refusal "has wrong type 'iso' - needs to be 'images' or 'import'"; API schema, scsiN."""
    if re.fullmatch(r"/[^\s,;]+", image):
        return
    match = _VOLUME.fullmatch(image)
    if match is None:
        raise usage(
            "guest.image", f"{image!r} is neither a volume nor a file's path.",
            hint="For example --cloud-image local:import/noble.qcow2, or the path /var/lib/vz/template/iso/noble.img",
        )  # fmt: skip
    kind = match.group(2).partition("/")[0]
    if kind in ("iso", "vztmpl", "backup", "snippets"):
        raise usage(
            "guest.image", f"{image} is of kind {kind!r}, and Proxmox imports 'images' and 'import' only.",
            hint="Move it to the storage's import folder, or name the file by its path.",
        )  # fmt: skip
    named_storage(facts, node, match.group(1), "import" if kind == "import" else "images")


def media(facts: Facts, node: str, row: GuestProfile, wanted: Wanted, notes: list[str]) -> dict[str, str]:
    """The installer in ide2 and, for Windows, the VirtIO drivers in ide0: setup sees no virtio-scsi disk without."""
    found: dict[str, str] = {}
    if wanted.iso:
        found["ide2"] = f"{_iso(facts, node, wanted, wanted.iso)},media=cdrom"
    elif row.os == WINDOWS or not (wanted.cloud_image or wanted.cloud_init):
        found["ide2"] = f"{NO_MEDIUM},media=cdrom"
        notes.append("Nothing to install from: name it with --iso, or put a medium into the drive ide2 later.")
    if row.os == WINDOWS:
        drivers = _driver_iso(facts, node, wanted, notes)
        found |= {"ide0": f"{drivers},media=cdrom"} if drivers else {}
    return found


def _iso(facts: Facts, node: str, wanted: Wanted, volume: str) -> str:
    match = re.fullmatch(r"([A-Za-z][A-Za-z0-9\-_.]*[A-Za-z0-9]):iso/([^\s,;/]+\.(?:iso|img))", volume, re.IGNORECASE)
    if match is None:
        raise usage("guest.iso", f"{volume!r} is no ISO volume.", hint="For example local:iso/win11.iso")
    name, file = match.groups()
    storage = named_storage(facts, node, name, "iso")
    there = wanted.isos.get(storage.name)
    if there is not None and file not in there:
        raise unfit(
            "guest.iso", f"{volume} is not there.", *(f"{name}:iso/{other}" for other in there[:20]),
            hint=f"Upload it to {name} first, or name one of these." if there else f"Upload it to {name} first.",
        )  # fmt: skip
    return volume


def _driver_iso(facts: Facts, node: str, wanted: Wanted, notes: list[str]) -> str:
    if wanted.virtio_iso == NO_MEDIUM:
        notes.append("No VirtIO drivers: Windows' setup will see neither the disk nor the network card.")
        return ""
    if wanted.virtio_iso:
        return _iso(facts, node, wanted, wanted.virtio_iso)
    places = storages_for(facts, node, "iso")
    if not places:
        storage_of(facts, node, "", "iso", "--virtio-iso")
    found = [
        f"{place.name}:iso/{file}" for place in places for file in wanted.isos.get(place.name, ())
        if re.fullmatch(r"virtio-win.*\.iso", file, re.IGNORECASE)
    ]  # fmt: skip
    if not found:
        raise unfit(
            "guest.no-drivers", "no virtio-win ISO was found, and Windows' setup sees no disk without its drivers.",
            *(f"{one.name}: {'no such file' if one.name in wanted.isos else 'not looked into'}" for one in places),
            hint="Upload virtio-win.iso to an ISO storage, or name it with --virtio-iso (`none`: go without).",
        )  # fmt: skip
    newest = max(found, key=_by_number)
    notes.append(f"VirtIO drivers: {newest}" + ("" if len(found) == 1 else f", the newest of {len(found)} by its name"))
    return newest


def _by_number(name: str) -> list[tuple[int, str]]:
    return [(int(part), "") if part.isdigit() else (0, part) for part in re.split(r"(\d{1,9})", name)]
