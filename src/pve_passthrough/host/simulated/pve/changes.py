"""Changes to a guest's configuration: set, create, destroy, unlock.

1. The order of refusals is Proxmox': parameters, then digest, then lock, then what the configuration forbids.
2. A running guest takes some options at once and keeps the others as pending; a stopped one takes all.
3. Stored text is the given text, except what Proxmox rewrites: booleans, tags, network cards, disks.
Source: recorded rows `hostpci` … `run` of PVE 8.4 and 9.2.
"""

from __future__ import annotations

import os
import re
import secrets
import uuid
from collections.abc import Callable, Mapping
from urllib.parse import quote, unquote

from . import ha, jobs, pools, storage
from .arguments import failed
from .config import Config, check_lock, load, options_of, path_of, save
from .node import Die, Node, NotCovered, now
from .options import DRIVES, FILE_ONLY, NET_KEYS, guest_options
from .passthrough import has_xhci, remove_mdevs
from .schema import Format, Prop, parse, printed

_AT_ONCE = frozenset(
    ["lock", "name", "onboot", "shares", "startup", "description", "protection", "vmstatestorage", "hookscript", "tags"]
)
"""qemu-server's fast-plug options: they never become pending (recorded rows `run` confirm those that occur)."""
_DISK = re.compile(r"(ide|sata|scsi|virtio|efidisk|tpmstate)\d+")
_WINDOWS = re.compile(r"win\d+|w2k\d*|wxp|wvista")
_META = ("delete", "revert", "force", "skiplock", "digest", "background_delay")
QEMU = {8: ("9.2.0", "9.2+pve1"), 9: ("11.0.0", "11.0+pve2")}
"""QEMU's version and the newest machine version of the two recorded nodes."""


def update_table(major: int) -> Format:
    """What `qm set` and PUT …/config take."""
    table = {name: prop for name, prop in guest_options(major).items() if name not in FILE_ONLY}
    table |= {"delete": Prop(), "revert": Prop(), "digest": Prop(max_length=40), "cdrom": Prop()}
    return table | {name: Prop("boolean") for name in ("force", "skiplock")}


def create_table(major: int) -> Format:
    """What `qm create` and POST /nodes/N/qemu take."""
    table = {name: prop for name, prop in update_table(major).items() if name not in ("delete", "revert", "digest")}
    table |= {name: Prop() for name in ("archive", "bwlimit", "pool", "storage", "import-working-storage")}
    return table | {name: Prop("boolean") for name in ("ha-managed", "live-restore", "start", "unique")}


def _names(text: str) -> list[str]:
    return [name for name in re.split(r"[\s,;\0]+", text) if name]


def update(node: Node, vmid: int, given: Mapping[str, str], usage: str) -> Callable[[], None]:
    """Judge a change; what comes back makes it. Raises `Die` before and inside."""
    params = dict(given)
    digest = params.pop("digest", "")
    params.pop("background_delay", None)
    if not params:
        raise Die("no options specified")
    deleting, reverting = _names(params.get("delete", "")), _names(params.get("revert", ""))
    _check_names(node, params, deleting, reverting, usage)
    values = {key: text for key, text in params.items() if key not in _META}
    _check_hookscript(node, values, usage)
    if "cdrom" in values:
        raise NotCovered("the option cdrom, use ide2")

    def work() -> None:
        config = load(node, vmid)
        if digest and digest != config.digest:
            raise Die("checksum mismatch (file change by other user?)")
        check_lock(config, params.get("skiplock") == "1")
        _check_balloon(node, config, values)
        node.say(f"update VM {vmid}: " + " ".join(f"-{key} {params[key]}" for key in sorted(params)))
        _check_values(node, config, values)
        _make(node, config, rewritten(node, values), deleting, reverting, params.get("force") == "1")

    return work


def _check_names(node: Node, params: dict[str, str], deleting: list[str], reverting: list[str], usage: str) -> None:
    known = guest_options(node.major)
    for option, names in (("delete", deleting), ("revert", reverting)):
        for name in names:
            if name not in known:
                raise failed({option: f"unknown option '{name}'"}, usage)
            if name in params:
                raise failed({option: f"you can't use '-{name}' and -{option} {name}' at the same time"}, usage)


def _check_hookscript(node: Node, values: Mapping[str, str], usage: str) -> None:
    if values.get("hookscript"):
        try:
            storage.check_hookscript(node, values["hookscript"])
        except Die as error:
            raise failed({"hookscript": f"{error.text}\n"}, usage, 2) from None


def _check_balloon(node: Node, config: Config, values: Mapping[str, str]) -> None:
    if "balloon" in values:
        memory = values.get("memory") or config.shown().get("memory") or "512"
        if int(values["balloon"]) > int(options_of(node, "memory", memory).get("current", "512")):
            raise Die("balloon value too large (must be smaller than assigned memory)")


def _check_values(node: Node, config: Config, values: Mapping[str, str]) -> None:
    """What is refused only after the change was announced."""
    order = options_of(node, "boot", values["boot"]).get("order", "") if values.get("boot") else ""
    for device in _names(order):
        if device not in values and device not in config.shown():
            raise Die(f"invalid bootorder: device '{device}' does not exist'")
    machine = options_of(node, "machine", values["machine"]) if values.get("machine") else {}
    kind = machine.get("type", "")
    if machine.get("viommu") == "intel" and not (kind == "q35" or kind.startswith("pc-q35")):
        raise Die("to use Intel vIOMMU please set the machine type to q35")


def rewritten(node: Node, values: Mapping[str, str]) -> dict[str, str]:
    """Values as they will be stored (disks excepted: they need an allocation)."""
    found = dict(values)
    if "tags" in found:
        found["tags"] = ";".join(sorted({tag.lower() for tag in re.split(r"[\s,;]+", found["tags"]) if tag}))
    for key, text in values.items():
        if re.fullmatch(r"net\d+", key):
            card = parse(NET_KEYS, text)
            found[key] = printed(NET_KEYS, {"macaddr": _mac(), **card})
    return found


def _mac() -> str:
    """A random address below Proxmox' own prefix BC:24:11."""
    return "BC:24:11:" + ":".join(f"{byte:02X}" for byte in secrets.token_bytes(3))


# -- making the change ----------------------------------------------------------------------------


def is_running(node: Node, vmid: int) -> bool:
    return node.world.exists(f"/run/qemu-server/{vmid}.pid")


def _make(
    node: Node, config: Config, values: dict[str, str], deleting: list[str], reverting: list[str], force: bool
) -> None:
    before = dict(config.active)
    running = is_running(node, config.vmid)
    for key in reverting:
        config.pending.pop(key, None)
        config.deleting.pop(key, None)
    for key in deleting:
        _delete(node, config, key, force, running)
    for key in sorted(values):
        text = _disk(node, config.vmid, key, values[key]) if _DISK.fullmatch(key) else values[key]
        config.pending[key] = text
        config.deleting.pop(key, None)
    config = save(node, config)
    _pin_machine(node, config, before, values)
    _clean_pending(config)
    for key in list(config.pending):
        if not running or _takes_at_once(node, config, key):
            config.active[key] = config.pending.pop(key)
            if running and key.startswith("usb") and node.machinery is not None:
                node.machinery.plug(node, config, key)
    if values.get("description") == "":
        config.active.pop("description", None)
    save(node, config)


def _clean_pending(config: Config) -> None:
    """A pending value equal to the active one, and a deletion of what is not set, are nothing."""
    for key in [key for key, text in config.pending.items() if config.active.get(key) == text]:
        del config.pending[key]
    for key in [key for key in config.deleting if key not in config.active]:
        del config.deleting[key]


def apply_pending(node: Node, vmid: int) -> None:
    """What the end of a run does: pending values become active."""
    config = load(node, vmid)
    if not config.pending and not config.deleting:
        return
    for key in config.deleting:
        config.active.pop(key, None)
    config.active |= config.pending
    config.pending, config.deleting = {}, {}
    save(node, config)


def _takes_at_once(node: Node, config: Config, key: str) -> bool:
    if key in _AT_ONCE:
        return True
    if key == "agent":
        return _same_agent(node, config)
    features = config.active.get("hotplug", "network,disk,usb")
    features = {"0": "", "1": "network,disk,usb"}.get(features, features)
    kind = re.sub(r"\d+$", "", key)
    if kind == "usb" and not has_xhci(node, config.active):
        return False
    return {"usb": "usb", "net": "network", "scsi": "disk", "virtio": "disk"}.get(kind, "-") in _names(features)


def _same_agent(node: Node, config: Config) -> bool:
    """Whether only what can change while the guest runs differs (recorded: `enabled=1` → `1` applies at once)."""
    old = options_of(node, "agent", config.active.get("agent", "0"))
    new = options_of(node, "agent", config.pending["agent"])
    return all(old.get(key) == new.get(key) for key in ("enabled", "type"))


def _delete(node: Node, config: Config, key: str, force: bool, running: bool) -> None:
    if key not in config.active and key not in config.pending:
        node.warn(f"cannot delete '{key}' - not set in current configuration!")
        return
    config.pending.pop(key, None)
    if key not in config.active:
        return
    at_once = _takes_at_once(node, config, key) if key.startswith("usb") else key in _AT_ONCE or key.startswith("net")
    if running and not at_once:
        config.deleting[key] = force
        return
    text = config.active.pop(key)
    if running and key.startswith("usb") and node.machinery is not None:
        node.machinery.unplug(node, config, key)
    if key.startswith("unused"):
        storage.remove(node, text.split(",")[0])
    elif _DISK.fullmatch(key):
        _drop_disk(node, config, key, text)


def _drop_disk(node: Node, config: Config, key: str, text: str) -> None:
    """A removed disk's volume is kept as unusedN, and the boot order loses the device."""
    volume = text.split(",", maxsplit=1)[0].removeprefix("file=")
    if ":" in volume and "media=cdrom" not in text:
        index = next(i for i in range(256) if f"unused{i}" not in config.active)
        config.active[f"unused{index}"] = volume
    order = options_of(node, "boot", config.active.get("boot", "")).get("order", "")
    if key in _names(order):
        config.active["boot"] = "order=" + ";".join(name for name in _names(order) if name != key)


def _disk(node: Node, vmid: int, key: str, text: str) -> str:
    """Allocate `STORAGE:GB`, or check that a volume is there; the text to store."""
    keys = DRIVES[re.sub(r"\d+$", "", key)]
    options = parse(keys, text)
    volume = options.get("file", "")
    match = re.fullmatch(r"([^:/]+):(\d+(?:\.\d+)?|cloudinit)", volume)
    if match:
        if match.group(2) == "cloudinit":
            options["file"] = storage.allocate_cloudinit(node, match.group(1), vmid, options.pop("format", ""))
            options["media"] = "cdrom"
        else:
            _allocated(node, vmid, key, match.group(1), float(match.group(2)), options)
        stored = printed(keys, options)
        node.say(f"{key}: successfully created disk '{stored}'")
        return stored
    if options.get("media") == "cdrom" and volume not in ("none", "cdrom"):
        return _inserted(node, keys, options)
    if volume in ("none", "cdrom") or volume in storage.volumes(node):
        return text
    if volume.startswith("/") and not node.world.exists(volume):
        raise Die(f"volume {volume} does not exist")
    if ":" in volume:
        storage.storage_of(node, volume.partition(":")[0])
        raise Die(f"volume '{volume}' does not exist")
    return text


def _allocated(node: Node, vmid: int, key: str, name: str, gigabytes: float, options: dict[str, str]) -> None:
    """Make the volume that a disk asks for. An import gives its own size, firmware and TPM have fixed ones
    (PVE/API2/Qemu.pm, create_disks; QemuServer/Drive.pm, TPMSTATE_DISK_SIZE)."""
    form = options.pop("format", "raw")
    source = options.pop("import-from", "")
    if source:
        size = _import_size(node, source)
    elif key.startswith("efidisk"):
        size = storage.firmware_size(node, name)
    else:
        size = (4 << 20) if key.startswith("tpmstate") else int(gigabytes * (1 << 30))
    options["file"] = storage.allocate(node, name, vmid, size, form)
    options["size"] = storage.size_text(size)
    if key.startswith("efidisk"):
        _copy_variables(node, options)


def _import_size(node: Node, source: str) -> int:
    """A file's path (root only, and we are), or a volume of kind images or import."""
    if source in storage.volumes(node):
        return int(storage.volumes(node)[source]["size"])
    if source.startswith("/"):
        return storage.image_size(node, source)
    if source.partition(":")[2].partition("/")[0] != "import":
        raise Die(f"volume '{source}' does not exist")
    return storage.image_size(node, storage.volume_path(node, source))


def _inserted(node: Node, keys: Format, options: dict[str, str]) -> str:
    """A medium that is there is stored with its size (PVE/API2/Qemu.pm, create_disks: volume_size_info)."""
    volume = options["file"]
    if volume in storage.volumes(node):
        return printed(keys, options)
    if ":" not in volume:
        raise NotCovered(f"the medium {volume}")
    path = storage.volume_path(node, volume)
    if not node.world.exists(path):
        raise Die(f"volume {volume} does not exist")
    size = os.stat(node.world.tree.real(path)).st_size
    return printed(keys, {**options, "size": storage.size_text(size)} if size else options)


def _copy_variables(node: Node, options: Mapping[str, str]) -> None:
    node.say("transferred 0.0 B of 528.0 KiB (0.00%)")
    for _ in range(2):
        node.say("transferred 528.0 KiB of 528.0 KiB (100.00%)")
    if options.get("pre-enrolled-keys") == "1":
        node.say("INFO: reading raw edk2 varstore from /usr/share/pve-edk2-firmware//OVMF_VARS_4M.ms.fd")
        node.say("INFO: var store range: 0x64 -> 0x40000")


def _pin_machine(node: Node, config: Config, before: Mapping[str, str], values: Mapping[str, str]) -> None:
    """A guest that becomes Windows keeps its machine version from then on; `set --machine` alone unpins."""
    ostype = values.get("ostype", "")
    if not _WINDOWS.fullmatch(ostype) or before.get("ostype") == ostype:
        return
    text = config.shown().get("machine", "pc")
    options = options_of(node, "machine", text)
    kinds = {"pc": "pc-i440fx", "q35": "pc-q35"}
    if options.get("type", "pc") not in kinds:
        return
    pinned = f"{kinds[options.get('type', 'pc')]}-{qemu(node)[1]}"
    node.say(f"pinning machine type to '{pinned}' for Windows guest OS")
    keys = guest_options(node.major)["machine"].keys or {}
    config.pending["machine"] = printed(keys, {**options, "type": pinned})


def qemu(node: Node) -> tuple[str, str]:
    """QEMU's version and its newest machine version."""
    pve = node.machine.get("pve", {})
    version, machine = QEMU[9 if node.major >= 9 else 8]
    return str(pve.get("qemu", version)), str(pve.get("qemu_machine", machine))


# -- create, destroy, unlock ----------------------------------------------------------------------


def create(node: Node, vmid: int, given: Mapping[str, str], usage: str) -> Callable[[], None]:
    """Judge a creation; what comes back makes it."""
    values = dict(given)
    pool = values.pop("pool", "")
    for option in ("archive", "start", "unique", "ha-managed", "live-restore", "import-working-storage"):
        if values.pop(option, "0") not in ("0", ""):
            raise NotCovered(f"qm create --{option}")
    for option in ("bwlimit", "storage", "force", "skiplock"):
        values.pop(option, None)
    if found := taken(node, vmid):
        raise Die(f"unable to create VM {vmid} - {found}")
    if pool:
        pools.require(node, pool)
    _check_hookscript(node, values, usage)
    _check_keys(values)
    for key, text in values.items():
        if _DISK.fullmatch(key):
            _check_disk(node, key, text, usage)

    def work() -> None:
        config = Config(vmid)
        node.require_writable(path_of(node, vmid))
        _check_balloon(node, config, values)
        stored = rewritten(node, values)
        before = storage.volumes(node)
        for key in sorted(key for key in stored if _DISK.fullmatch(key)):
            try:
                stored[key] = _disk(node, vmid, key, stored[key])
            except NotCovered:
                raise
            except Die as error:
                _free(node, before)
                raise Die(f"unable to create VM {vmid} - {error.text}", error.rc) from None
        stored.setdefault("boot", _boot_order(stored))
        stored["meta"] = f"creation-qemu={qemu(node)[0]},ctime={now()}"
        stored.setdefault("smbios1", f"uuid={uuid.uuid4()}")
        stored["vmgenid"] = stored["vmgenid"] if len(stored.get("vmgenid", "1")) > 1 else str(uuid.uuid4())
        config.active = stored
        _pin_machine(node, config, {}, stored)
        config.active |= config.pending
        config.pending = {}
        save(node, config)
        if pool:
            pools.move(node, vmid, pool)

    return work


def taken(node: Node, vmid: int) -> str:
    """Who has this number, guest or container, on any node (pve-cluster, PVE::Cluster::check_vmid_unused)."""
    for name in node.world.names("/etc/pve/nodes"):
        for folder, kind in (("qemu-server", "VM"), ("lxc", "CT")):
            if node.world.exists(f"/etc/pve/nodes/{name}/{folder}/{vmid}.conf"):
                return f"{kind} {vmid} already exists on node '{name}'"
    return ""


def keys_of_file(node: Node, path: str) -> str:
    """What `qm` makes of `--sshkeys FILE` (PVE/CLI/qm.pm, param_mapping); the API takes the text itself."""
    text = node.world.text(path)
    if text is None:
        raise Die(f"can't open '{path}' - No such file or directory", 2)
    return quote(text, safe="-._~")


def _check_keys(values: Mapping[str, str]) -> None:
    """Each line must be a key that ssh-keygen can read (pve-common, Tools.pm, validate_ssh_public_keys)."""
    for line in unquote(values.get("sshkeys", "")).splitlines():
        if line.strip() and not re.match(r"\s*(sk-)?(ssh|ecdsa)-\S+\s+[A-Za-z0-9+/]{20,}", line):
            raise Die("SSH public key validation error")


def _check_disk(node: Node, key: str, text: str, usage: str) -> None:
    """What is refused before the task begins (PVE/API2/Qemu.pm, check_storage_access)."""
    options = parse(DRIVES[re.sub(r"\d+$", "", key)], text)
    volume, source = options.get("file", ""), options.get("import-from", "")
    name, _, what = volume.partition(":")
    if what and not volume.startswith("/"):
        storage.storage_of(node, name)
    if re.fullmatch(r"\d+(\.\d+)?", what) and not storage.takes_images(node, name):
        raise failed({"storage": f"storage '{name}' does not support vm images"}, usage)
    kind = source.partition(":")[2].partition("/")[0]
    if not source.startswith("/") and kind in ("iso", "vztmpl", "snippets", "backup"):
        raise failed({key: f"{source} has wrong type '{kind}' - needs to be 'images' or 'import'"}, usage)


def _free(node: Node, before: Mapping[str, object]) -> None:
    """A creation that fails takes back the volumes that it made."""
    for volume in sorted(set(storage.volumes(node)) - set(before), reverse=True):
        storage.remove(node, volume)


def resize(node: Node, vmid: int, key: str, size: str) -> None:
    """PVE/API2/Qemu.pm, resize_vm: larger only. A running guest's block device is not covered."""
    config = load(node, vmid)
    check_lock(config)
    if key not in config.active:
        raise Die(f"disk '{key}' does not exist")
    keys = DRIVES[re.sub(r"\d+$", "", key)]
    options = parse(keys, config.active[key])
    if options.get("media") == "cdrom":
        raise Die("you can't resize a cdrom")
    if is_running(node, vmid):
        raise NotCovered("qm disk resize of a running guest")
    now_size = storage.bytes_of(options.get("size", "0"))
    wanted = storage.bytes_of(size.removeprefix("+")) + (now_size if size.startswith("+") else 0)
    if wanted < now_size:
        raise Die("shrinking disks is not supported")
    storage.resize(node, options["file"], wanted)
    config.active[key] = printed(keys, {**options, "size": storage.size_text(wanted)})
    save(node, config)


def _boot_order(values: Mapping[str, str]) -> str:
    """The first disk, a CD drive, the first network card."""
    kinds = ("ide", "scsi", "virtio", "sata")
    disks = [key for kind in kinds for key in sorted(values) if re.fullmatch(rf"{kind}\d+", key)]
    cds = [key for key in disks if "media=cdrom" in values[key]]
    plain = [key for key in disks if key not in cds]
    nets = sorted(key for key in values if re.fullmatch(r"net\d+", key))
    order = [*plain[:1], *cds, *nets[:1]]
    return "order=" + ";".join(order) if order else ""


def destroy(node: Node, vmid: int, purge: bool) -> Callable[[], None]:
    config = load(node, vmid)
    if config.active.get("protection") == "1":
        raise Die(f"can't remove VM {vmid} - protection mode enabled")
    if ha.resource(node, vmid) is not None and not purge:
        raise Die(f"unable to remove VM {vmid} - used in HA resources and purge parameter not set.")
    if is_running(node, vmid):
        raise Die(f"VM {vmid} is running - destroy failed", 25)

    def work() -> None:
        check_lock(config)
        node.require_writable(path_of(node, vmid))
        for volume, about in sorted(storage.volumes(node).items(), reverse=True):
            if about["vmid"] == vmid:
                storage.remove(node, volume)
        if purge:
            node.say(f"purging VM {vmid} from related configurations..")
            ha.remove(node, vmid)
            jobs.leave(node, vmid)
        pools.move(node, vmid, None)
        node.write(path_of(node, vmid), None)

    return work


def unlock(node: Node, vmid: int) -> None:
    config = load(node, vmid)
    config.active.pop("lock", None)
    save(node, config)


def after_stop(node: Node, vmid: int, config: Mapping[str, str]) -> None:
    """What the clean-up after a run does to devices and to the configuration."""
    with node.task():
        remove_mdevs(node, vmid, dict(config))
    apply_pending(node, vmid)
