"""Proxmox VE: versions, node, cluster, guests of all nodes, resource mappings, storages.

1. Files only; `qm`, `pvesh` and `pveversion` cost a second each to say what stands in /etc/pve.
   A deep probe asks `pvesh` for the quorum where no file tells it.
2. A guest whose configuration could not be read is left out and named in a gap: unknown, not empty.
3. A guest's hostpci entries are those that its next start will see (pending over active). Whole-slot entries of guests
   on other nodes stay unexpanded: their functions are not this machine's.
4. Nothing in /etc/pve is trusted: numbers, names and sizes are checked before they are used.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace

from ..host.base import HostError, Missing
from ..model.facts import MapEntry, Pve, ResourceMapping, Storage
from ..model.pci import Address
from ..model.vm import ROM_DIR, HostPci, Vm, digest_of, expand_host, parse_config, parse_options, parse_snapshots
from .asking import Asking
from .dpkg import Packages
from .lifecycle import ha_resources
from .paths import answered
from .sections import Section, sections

SHARED = frozenset({"cephfs", "cifs", "glusterfs", "iscsi", "iscsidirect", "nfs", "pbs", "rbd", "zfs"})
"""Kinds of storages that all nodes see alike, whatever is written. Source: pve-docs, pvesm, Storage Types."""
NODES = "/etc/pve/nodes"
MOST_GUESTS = 20000
MOST_NODES = 256
LONGEST_CONFIG = 1024 * 1024
"""Bytes; pmxcfs holds no longer file (pve-cluster, MEMDB_MAX_FILE_SIZE)."""

_NODE = re.compile(r"[A-Za-z0-9](?:[A-Za-z0-9.-]{0,250}[A-Za-z0-9])?")
_GUEST_FILE = re.compile(r"([1-9][0-9]{1,8})\.conf")
_HOSTPCI = re.compile(r"hostpci([0-9]|1[0-5])")


# -- the installation and the cluster ---------------------------------------------------------


def probe_pve(ask: Asking, packages: Packages, deep: bool) -> Pve:
    """The installation and the cluster."""
    nodes = _nodes(ask)
    installed = _installed(ask, packages, nodes)
    if not installed:
        return Pve(installed=installed, node=_node(ask))
    if nodes is None and not any(gap.about == "pve.nodes" for gap in ask.gaps):
        ask.gap("pve.nodes", "there is no /etc/pve/nodes: the cluster file system is not mounted")
    quorate = _quorate(ask, nodes, deep)
    if quorate is None:
        ask.gap("pve.quorate", "no member list of the cluster file system")
    return Pve(
        installed=True,
        version=packages.version("pve-manager"),
        qemu_server=packages.version("qemu-server"),
        node=_node(ask),
        nodes=nodes,
        quorate=quorate,
        writable=_writable(ask, quorate),
    )


def _installed(ask: Asking, packages: Packages, nodes: tuple[str, ...] | None) -> bool | None:
    if nodes or packages.version("pve-manager") is not None:
        return True  # only Proxmox' own file system puts node directories there
    if packages.known:
        return False
    known, release = answered(ask, "/etc/os-release", "pve.installed")
    asked, status = answered(ask, "/var/lib/dpkg/status", "pve.installed")
    if known and asked and release is not None and status is None:
        return False  # an operating system without Debian's package database
    ask.gap("pve.installed", "there is no package database to look into")
    return None


def _node(ask: Asking) -> str | None:
    """/etc/pve/local is a link to nodes/NAME; without it PVE::INotify takes the host name up to its first dot."""
    text = ask.link("/etc/pve/local", "pve.node") if ask.names("/etc/pve") else None
    name = text.rpartition("/")[2] if text is not None and text.startswith("nodes/") else None
    name = name or (ask.trimmed("/etc/hostname", "pve.node") or "").partition(".")[0]
    if _NODE.fullmatch(name):
        return name
    ask.gap("pve.node", "neither /etc/pve/local nor /etc/hostname names the node")
    return None


def _nodes(ask: Asking) -> tuple[str, ...] | None:
    names = ask.names(NODES, "pve.nodes")
    if not names:
        return None
    found = tuple(name for name in names if _NODE.fullmatch(name))
    for name in sorted({*names} - {*found}):
        ask.gap("guests", "not the name of a node; its guests are not known", ascii(name)[:80])
    if len(found) > MOST_NODES:
        ask.gap("guests", f"more than {MOST_NODES} nodes")
    return found[:MOST_NODES] or None


def _quorate(ask: Asking, nodes: tuple[str, ...] | None, deep: bool) -> bool | None:
    text = ask.text("/etc/pve/.members", "pve.quorate")
    told = quorate_in(text) if text is not None else None
    if told is not None or nodes is None:
        return told
    known, corosync = answered(ask, "/etc/pve/corosync.conf", "pve.quorate")
    if known and corosync is None and len(nodes) == 1:
        return True  # a node on its own is always quorate
    return _quorate_asked(ask) if deep else None


def quorate_in(members: str) -> bool | None:
    """/etc/pve/.members is JSON; only a clustered node has `cluster` with `quorate` in it.

    Source: pve-cluster, src/pmxcfs/status.c, cfs_create_memberlist_msg.
    """
    content = _json(members)
    if not isinstance(content, dict) or "nodename" not in content:
        return None
    cluster = content.get("cluster")
    if cluster is None:
        return True
    quorate = cluster.get("quorate") if isinstance(cluster, dict) else None
    return bool(quorate) if isinstance(quorate, (int, bool)) else None


def _quorate_asked(ask: Asking) -> bool | None:
    ran = ask.run(("pvesh", "get", "/cluster/status", "--output-format", "json"), "pve.quorate", 30.0)
    rows = _json(ran.stdout) if ran is not None and ran.ok else None
    if not isinstance(rows, list):
        return None
    clusters = [row for row in rows if isinstance(row, dict) and row.get("type") == "cluster"]
    return bool(clusters[0].get("quorate")) if clusters else True


def _json(text: str) -> object:
    import json

    try:
        loaded: object = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return loaded


def _writable(ask: Asking, quorate: bool | None) -> bool | None:
    """Only "no" can be seen without writing: pmxcfs refuses every write without quorum, or a read-only mount."""
    if quorate is False:
        return False
    for line in (ask.text("/proc/mounts") or "").splitlines():
        words = line.split()
        if len(words) >= 4 and words[1] == "/etc/pve":
            return False if "ro" in words[3].split(",") else None
    return None


# -- storages ---------------------------------------------------------------------------------


def probe_storages(ask: Asking) -> tuple[Storage, ...] | None:
    """Sections of /etc/pve/storage.cfg. Source: Proxmox VE administration guide, storage configuration."""
    text = ask.text("/etc/pve/storage.cfg", "storages")
    if text is None:
        if ask.names("/etc/pve", "storages"):
            ask.gap("storages", "there is no /etc/pve/storage.cfg")
        return None
    return tuple(_storage(section) for section in sections(text) if section.kind and section.name)


def _storage(section: Section) -> Storage:
    return Storage(
        name=section.name,
        type=section.kind,
        content=_words(section.get("content")),
        path=section.get("path"),
        nodes=_words(section.get("nodes")),
        enabled=not any(key == "disable" and value != "0" for key, value in section.pairs),
        shared=section.kind in SHARED or any(key == "shared" and value != "0" for key, value in section.pairs),
        folders=section.get("content-dirs"),
        pool=section.get("pool"),
        vgname=section.get("vgname"),
    )


def _words(listed: str) -> frozenset[str]:
    return frozenset(word.strip() for word in listed.split(",") if word.strip())


# -- containers -------------------------------------------------------------------------------


def probe_containers(ask: Asking, pve: Pve) -> dict[int, str] | None:
    """Node by number. Containers take their numbers from the range of the guests, over the whole cluster
    (pve-cluster, PVE::Cluster::check_vmid_unused)."""
    if pve.installed is False:
        return {}
    if pve.nodes is None:
        return None
    found: dict[int, str] = {}
    for node in pve.nodes:
        names = ask.names(f"{NODES}/{node}/lxc", "containers")
        matches = (_GUEST_FILE.fullmatch(name) for name in names or ())
        found.update({int(match.group(1)): node for match in matches if match})
    return None if any(gap.about == "containers" for gap in ask.gaps) else found


# -- resource mappings ------------------------------------------------------------------------


def probe_mappings(ask: Asking) -> tuple[ResourceMapping, ...]:
    """What could be read of both files; a part that Proxmox would pass over is a gap, since it would be lost with the
    next change (pve-common, SectionConfig.pm, parse_config)."""
    found: list[ResourceMapping] = []
    for kind in ("pci", "usb"):
        path = f"/etc/pve/mapping/{kind}.cfg"
        text = ask.text(path, f"mappings.{kind}") or ""
        if fault := _broken_part(kind, text):
            ask.gap(f"mappings.{kind}", fault, path)
        named = (section for section in sections(text) if _MAPPING_NAME.fullmatch(section.name))
        found += [_mapping(kind, section) for section in named]
    return tuple(found)


_MAPPING_NAME = re.compile(r"[A-Za-z][A-Za-z0-9_-]+")


def _broken_part(kind: str, text: str) -> str:
    """The first part that means nothing to Proxmox; empty when there is none."""
    needed = {"pci": {"node", "path", "id"}, "usb": {"node", "id"}}[kind]
    devices: dict[str, int] = {}
    name = ""
    for number, line in enumerate(text.splitlines(), 1):
        if not line.strip():
            name = ""
        elif line.lstrip().startswith("#"):
            continue
        elif not line[0].isspace():
            name = line.strip()
            if _MAPPING_NAME.fullmatch(name) is None or name in devices:
                return f"line {number} is no name of a mapping, or the second of that name: {name[:60]!a}"
            devices[name] = 0
        elif not name:
            return f"line {number} belongs to no mapping: {line.strip()[:60]!a}"
        elif line.split()[0] == "map":
            devices[name] += 1
            if missing := needed - set(parse_options(line.strip()[4:].strip(), "")):
                return f"line {number} lacks {', '.join(sorted(missing))}: {line.strip()[:60]!a}"
    empty = next((one for one, count in devices.items() if not count), "")
    return f"{empty} names no device" if empty else ""


def _mapping(kind: str, section: Section) -> ResourceMapping:
    entries = []
    for line in section.all("map"):
        options = parse_options(line, "node")
        entries.append(MapEntry(options.pop("node", ""), options.pop("path", ""), options))
    rest = {key: value for key, value in section.pairs if key != "map"}
    return ResourceMapping(kind, section.name, tuple(entries), rest)


# -- guests -----------------------------------------------------------------------------------


def probe_guests(
    ask: Asking, pve: Pve, mappings: Iterable[ResourceMapping], known: Collection[Address]
) -> tuple[Vm, ...] | None:
    """All guests of all nodes, by number. None: nobody could say; empty: there is none."""
    if pve.installed is False:
        return ()
    if pve.nodes is None:
        told = (gap.reason for gap in ask.gaps if gap.about == "pve.nodes")
        ask.gap("guests", next(told, "there is no /etc/pve/nodes to look into"))
        return None
    paths = {mapping.name: mapping for mapping in mappings if mapping.kind == "pci"}
    resources = ha_resources(ask)
    managed = None if resources is None else frozenset(one.vmid for one in resources)
    running = _running(ask)
    if any(node != pve.node for node in pve.nodes):
        ask.gap("guests.running", "whether guests of other nodes run cannot be seen from here")
    found = []
    for node, vmid, text in _configurations(ask, pve.nodes):
        here = node == pve.node
        config, pending, deleting = parse_config(text)
        if not config or "\0" in text:
            ask.gap("guests", "no configuration of a guest", f"{NODES}/{node}/qemu-server/{vmid}.conf")
            continue
        vm = Vm(
            vmid=vmid,
            node=node,
            config=config,
            pending=pending,
            deleting=deleting,
            digest=digest_of(text),
            running=f"{vmid}.pid" in running if here and running is not None else None,
            ha_managed=None if managed is None else vmid in managed,
            snapshots=parse_snapshots(text),
        )
        found.append(_with_devices(vm, paths, known if here else ()))
    return tuple(sorted(found, key=lambda vm: (vm.vmid, vm.node)))


def _running(ask: Asking) -> tuple[str, ...] | None:
    """Names of the pid files of this node's guests."""
    try:
        return ask.host.names("/run/qemu-server")
    except Missing:
        if ask.names("/run"):
            return ()  # the directory is made when the first guest starts
        ask.gap("guests.running", "there is no /run to look into")
    except HostError as error:
        ask.gap("guests.running", error.reason, "/run/qemu-server")
    return None


def _configurations(ask: Asking, nodes: Iterable[str]) -> Iterator[tuple[str, int, str]]:
    count = 0
    for node in nodes:
        directory = f"{NODES}/{node}/qemu-server"
        names = ask.names(directory, "guests")
        if names is None:
            ask.gap("guests", "the directory of its guests could not be listed", node)
        for name in names or ():
            match = _GUEST_FILE.fullmatch(name)
            if match is None:
                continue
            count += 1
            if count > MOST_GUESTS:
                ask.gap("guests", f"more than {MOST_GUESTS} guests")
                return
            text = ask.need(f"{directory}/{name}", "guests")
            if text is not None and len(text) > LONGEST_CONFIG:
                ask.gap("guests", f"longer than {LONGEST_CONFIG} bytes", f"{directory}/{name}")
            elif text is not None:
                yield node, int(match.group(1)), text


def _with_devices(vm: Vm, mappings: Mapping[str, ResourceMapping], known: Collection[Address]) -> Vm:
    keys = sorted(
        (key for key in {*vm.config, *vm.pending} if _HOSTPCI.fullmatch(key)),
        key=lambda key: int(key.removeprefix("hostpci")),
    )
    entries = []
    for key in keys:
        value = vm.value(key)
        if value is not None:
            entries.append(_entry(key, value, vm.node, mappings, known))
    return replace(vm, hostpci=tuple(entries)) if entries else vm


def _entry(
    key: str, value: str, node: str, mappings: Mapping[str, ResourceMapping], known: Collection[Address]
) -> HostPci:
    options = parse_options(value, "host")
    name = options.get("mapping", "")
    hosts = [options["host"]] if "host" in options else []
    if name in mappings:
        # Several entries of one node are alternatives: the first free one is taken, so the guest may claim any of them.
        hosts += [entry.path for entry in mappings[name].entries if entry.node == node]
    addresses = dict.fromkeys(address for host in hosts for address in expand_host(host, known))
    return HostPci(key, options, tuple(addresses), name)


def probe_rom_files(ask: Asking, guests: Iterable[Vm], node: str | None) -> dict[str, bool]:
    """Which of the ROM files that guests of this node name are there; nothing is asked when none names one."""
    entries = [entry for vm in guests if vm.node == node for entry in vm.hostpci]
    named = sorted({entry.options["romfile"] for entry in entries if entry.options.get("romfile")})
    if not named:
        return {}
    try:
        there = frozenset(ask.host.names(ROM_DIR))
    except Missing:
        there = frozenset()
    except HostError as error:
        ask.gap("rom_files", error.reason, ROM_DIR)
        return {}
    return {name: name in there for name in named}
