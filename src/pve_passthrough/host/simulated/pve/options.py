"""Which options a guest's configuration may hold and which values they take, for Proxmox VE 8 and 9.

1. Literal tables, from the API schema that Proxmox VE 8.4 and 9.2 print about themselves and from recorded refusals.
2. `guest_options(major)` is the whole table; numbered options stand in it one by one (`hostpci0` … `hostpci15`).
"""

from __future__ import annotations

import re
from functools import cache

from .schema import ID, Format, Invalid, Prop, split

_FLAG = Prop("boolean")
_NUMBER = Prop("integer")
_HEX_ID = Prop(pattern=r"0x[0-9a-fA-F]{4}")
_ADDRESS = r"([0-9a-f]{4,}:)?[0-9a-f]{2}:[0-9a-f]{2}(\.[0-9a-f])?"
USB_ID = r"(0x)?([0-9A-Fa-f]{4}):(0x)?([0-9A-Fa-f]{4})"
USB_PORT = r"(\d+)-(\d+(\.\d+)*)"
_CPU_SET = r"\d+(-\d+)?(;\d+(-\d+)?)*"
_UUID = r"[a-fA-F0-9]{8}(-[a-fA-F0-9]{4}){3}-[a-fA-F0-9]{12}"


def config_id(value: str) -> None:
    """The name of a mapping, a job, …"""
    if not ID.fullmatch(value):
        raise Invalid(f"invalid configuration ID '{value}'")


def _node_name(value: str) -> None:
    if not re.fullmatch(r"(?i:[a-z0-9]([a-z0-9-]*[a-z0-9])?)", value):
        raise Invalid("value does not look like a valid node name")


def _dns_name(value: str) -> None:
    label = r"[A-Za-z0-9]([A-Za-z0-9-]{0,61}[A-Za-z0-9])?"
    if not re.fullmatch(rf"({label}\.)*{label}", value):
        raise Invalid("value does not look like a valid DNS name")


def _cpu_list(value: str) -> None:
    for part in value.split(","):
        match = re.fullmatch(r"(\d+)(?:-(\d+))?", part)
        if match is None or (match.group(2) and int(match.group(2)) < int(match.group(1))):
            raise Invalid("unable to parse cpuset option")


def _startup(value: str) -> None:
    for part in value.split(","):
        if part and not re.fullmatch(r"(order=)?\d+|(up|down)=\d+", part):
            raise Invalid("unable to parse startup options")


def _tags(value: str) -> None:
    for tag in re.split(r"[\s,;]+", value):
        if tag and not re.fullmatch(r"(?i:[a-z0-9_][a-z0-9_\-+.]*)", tag):
            raise Invalid("invalid characters in tag")


def _volume_id(value: str) -> None:
    if not re.fullmatch(r"(?i:[a-z][a-z0-9\-_.]*[a-z0-9]):\S+", value):
        raise Invalid(f"unable to parse volume ID '{value}'")


def _hotplug(value: str) -> None:
    if value in ("0", "1"):
        return
    for part in re.split(r"[\s,;]+", value):
        if part and part not in ("network", "disk", "cpu", "memory", "usb", "cloudinit"):
            raise Invalid(f"invalid hotplug feature '{part}'")


_BOOT_DEVICE = re.compile(
    r"(ide[0-3]|sata[0-5]|scsi([0-9]|[12][0-9]|30)|virtio([0-9]|1[0-5])|net([0-9]|[12][0-9]|3[01])"
    r"|hostpci([0-9]|1[0-5])|usb([0-9]|1[0-3])|efidisk0)"
)


def _boot_order(value: str) -> None:
    for device in re.split(r"[\s,;]+", value):
        if device and not _BOOT_DEVICE.fullmatch(device):
            raise Invalid(f"invalid boot device '{device}'")


def _physical_bits(value: str) -> None:
    if value != "host" and not (value.isdigit() and 8 <= int(value) <= 64):
        raise Invalid("value must be an integer between 8 and 64 or 'host'")


def _urlencoded(value: str) -> None:
    """pve-common, JSONSchema.pm, format `urlencoded`"""
    if not re.fullmatch(r"[-%a-zA-Z0-9_.!~*'()]*", value):
        raise Invalid(f"invalid urlencoded string: {value}")


def _network4(value: str) -> None:
    """pve-common, JSONSchema.pm, format `pve-ipv4-config`"""
    match = re.fullmatch(r"(\d{1,3}\.){3}\d{1,3}/(\d+)", value)
    if value not in ("dhcp", "manual") and not (match and 8 <= int(match.group(2)) <= 32):
        raise Invalid("value does not look like a valid ipv4 network configuration")


def _network6(value: str) -> None:
    """The same, `pve-ipv6-config`"""
    if value not in ("auto", "dhcp", "manual") and not re.fullmatch(r"[0-9a-fA-F:]+(:[0-9.]+)?/\d{1,3}", value):
        raise Invalid("value does not look like a valid ipv6 network configuration")


IPCONFIG_KEYS: Format = {
    "gw": Prop(pattern=r"(\d{1,3}\.){3}\d{1,3}"),
    "gw6": Prop(pattern=r"[0-9a-fA-F:.]+"),
    "ip": Prop(check=_network4),
    "ip6": Prop(check=_network6),
}


_CPU_FLAGS = {
    8: "pcid spec-ctrl ibpb ssbd virt-ssbd amd-ssbd amd-no-ssb pdpe1gb md-clear hv-tlbflush hv-evmcs aes",
    9: "aes amd-no-ssb amd-ssbd hv-evmcs hv-tlbflush ibpb md-clear nested-virt pcid pdpe1gb spec-ctrl ssbd virt-ssbd",
}
_CPU_MODEL_NAMES = (
    "486 pentium pentium2 pentium3 coreduo core2duo athlon phenom qemu32 qemu64 kvm32 kvm64 max host Conroe Penryn "
    "Nehalem Nehalem-IBRS Westmere Westmere-IBRS SandyBridge SandyBridge-IBRS IvyBridge IvyBridge-IBRS Haswell "
    "Haswell-IBRS Haswell-noTSX Haswell-noTSX-IBRS Broadwell Broadwell-IBRS Broadwell-noTSX Broadwell-noTSX-IBRS "
    "Skylake-Client Skylake-Client-IBRS Skylake-Client-noTSX-IBRS Skylake-Client-v4 Skylake-Server Skylake-Server- "
    "IBRS Skylake-Server-noTSX-IBRS Skylake-Server-v4 Skylake-Server-v5 Cascadelake-Server Cascadelake-Server-v2 "
    "Cascadelake-Server-noTSX Cascadelake-Server-v4 Cascadelake-Server-v5 Cooperlake Cooperlake-v2 Icelake-Client "
    "Icelake-Client-noTSX Icelake-Server Icelake-Server-noTSX Icelake-Server-v3 Icelake-Server-v4 Icelake-Server-v5 "
    "Icelake-Server-v6 SapphireRapids SapphireRapids-v2 GraniteRapids KnightsMill Opteron_G1 Opteron_G2 Opteron_G3 "
    "Opteron_G4 Opteron_G5 EPYC EPYC-IBPB EPYC-v3 EPYC-v4 EPYC-Rome EPYC-Rome-v2 EPYC-Rome-v3 EPYC-Rome-v4 EPYC- "
    "Milan EPYC-Milan-v2 EPYC-Genoa x86-64-v2 x86-64-v2-AES x86-64-v3 x86-64-v4"
)
_CPU_MODELS = frozenset(_CPU_MODEL_NAMES.split())


def _cpu(major: int) -> Prop:
    flags = _CPU_FLAGS[major].split()
    keys = {
        "cputype": Prop(default_key=True),
        "flags": Prop(pattern=r"([+-][a-zA-Z0-9\-_.]+)(;[+-][a-zA-Z0-9\-_.]+)*"),
        "hidden": _FLAG,
        "hv-vendor-id": Prop(pattern=r"[a-zA-Z0-9]{1,12}"),
        "level": Prop("integer", minimum=1, maximum=4294967295),
        "phys-bits": Prop(check=_physical_bits),
        "reported-model": Prop(),
    }
    if major >= 9:
        keys["guest-phys-bits"] = Prop("integer", minimum=32, maximum=64)

    def check(value: str) -> None:
        found = split(keys, value)
        model = found.get("cputype")
        if model is None:
            raise Invalid("CPU is missing cputype")
        if model.startswith("custom-"):
            raise Invalid(f"Custom cputype '{model.removeprefix('custom-')}' not found", 2)
        if model not in _CPU_MODELS:
            raise Invalid(f"Built-in cputype '{model}' is not defined (missing 'custom-' prefix?)")
        if "reported-model" in found:
            raise Invalid("Property 'reported-model' not allowed in VM-specific CPU config.")
        for flag in found.get("flags", "").split(";"):
            if flag and flag[1:] not in flags:
                raise Invalid(f"VM-specific CPU flags must be a subset of: {', '.join(flags)}")

    return Prop(keys=keys, check=check)


def hostpci_keys(major: int) -> Format:
    """Keys of hostpciN (source: the API schema; `driver` came with Proxmox VE 9)."""
    keys = {
        "host": Prop(pattern=rf"{_ADDRESS}(;{_ADDRESS})*", default_key=True),
        "device-id": _HEX_ID,
        "legacy-igd": _FLAG,
        "mapping": Prop(check=config_id),
        "mdev": Prop(pattern=r"[^/.:]+"),
        "pcie": _FLAG,
        "rombar": _FLAG,
        "romfile": Prop(pattern=r"[^,;]+"),
        "sub-device-id": _HEX_ID,
        "sub-vendor-id": _HEX_ID,
        "vendor-id": _HEX_ID,
        "x-vga": _FLAG,
    }
    if major >= 9:
        keys["driver"] = Prop(enum=("vfio", "keep"))
    return keys


USB_KEYS: Format = {
    "host": Prop(pattern=rf"{USB_ID}|{USB_PORT}|(?i:spice)", default_key=True),
    "mapping": Prop(check=config_id),
    "usb3": _FLAG,
}
MACHINE_KEYS: Format = {
    "type": Prop(
        max_length=40,
        pattern=r"pc|pc(-i440fx)?-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?|q35|pc-q35-\d+(\.\d+)+(\+pve\d+)?(\.pxe)?"
        r"|virt(-\d+(\.\d+)+)?(\+pve\d+)?",
        default_key=True,
    ),
    "enable-s3": _FLAG,
    "enable-s4": _FLAG,
    "viommu": Prop(enum=("intel", "virtio")),
}
_VGA_TYPES = ("cirrus", "qxl", "qxl2", "qxl3", "qxl4", "none", "serial0", "serial1", "serial2", "serial3", "std")
VGA_KEYS: Format = {
    "type": Prop(enum=(*_VGA_TYPES, "virtio", "virtio-gl", "vmware"), default_key=True),
    "clipboard": Prop(enum=("vnc",)),
    "memory": Prop("integer", minimum=4, maximum=512),
}
AGENT_KEYS: Format = {
    "enabled": Prop("boolean", optional=False, default_key=True),
    "freeze-fs-on-backup": _FLAG,
    "fstrim_cloned_disks": _FLAG,
    "type": Prop(enum=("virtio", "isa")),
}
_AGENT_KEYS_9: Format = {
    **AGENT_KEYS,
    "freeze-fs": _FLAG,
    "freeze-fs-on-backup": Prop(alias="freeze-fs"),
    "guest-fsfreeze": Prop(alias="freeze-fs"),
}
MEMORY_KEYS: Format = {"current": Prop("integer", optional=False, minimum=16, default_key=True)}
_MODELS = (
    "e1000 e1000-82540em e1000-82544gc e1000-82545em e1000e i82551 i82557b i82559er ne2k_isa ne2k_pci pcnet rtl8139 "
    "virtio vmxnet3"
)


def _mac(value: str) -> None:
    if not re.fullmatch(r"(?i:[a-f0-9][02468ace](:[a-f0-9]{2}){5})", value):
        raise Invalid("value does not look like a valid unicast MAC address")


NET_KEYS: Format = {
    "model": Prop(enum=tuple(_MODELS.split()), optional=False, default_key=True),
    **{model: Prop(alias="macaddr", named="model") for model in _MODELS.split()},
    "macaddr": Prop(check=_mac),
    "bridge": Prop(),
    "firewall": _FLAG,
    "host-tunnel": _FLAG,
    "link_down": _FLAG,
    "mtu": Prop("integer", minimum=1, maximum=65520),
    "queues": Prop("integer", minimum=0, maximum=64),
    "rate": Prop("number", minimum=0),
    "tag": Prop("integer", minimum=1, maximum=4094),
    "trunks": Prop(pattern=_CPU_SET),
}
_FILE = Prop(optional=False, default_key=True)
_VOLUME = Prop(alias="file")
_SIZE = Prop(pattern=r"\d+(\.\d+)?[KMGT]?")
_IMAGE = Prop(enum=("raw", "qcow", "qed", "qcow2", "vmdk", "cloop"))
_ERRORS = ("ignore", "report", "stop")
_LIMITS = ("bps", "bps_rd", "bps_wr", "iops", "iops_max", "iops_rd", "iops_rd_max", "iops_wr", "iops_wr_max")
_RATES = ("mbps", "mbps_max", "mbps_rd", "mbps_rd_max", "mbps_wr", "mbps_wr_max")
_DRIVE: Format = {
    "file": _FILE,
    "volume": _VOLUME,
    "aio": Prop(enum=("native", "threads", "io_uring")),
    "backup": _FLAG,
    "cache": Prop(enum=("none", "writethrough", "writeback", "unsafe", "directsync")),
    "detect_zeroes": _FLAG,
    "discard": Prop(enum=("ignore", "on")),
    "format": _IMAGE,
    "import-from": Prop(),
    "media": Prop(enum=("cdrom", "disk")),
    "replicate": _FLAG,
    "rerror": Prop(enum=_ERRORS),
    "serial": Prop(max_length=60),
    "shared": _FLAG,
    "size": _SIZE,
    "snapshot": _FLAG,
    "werror": Prop(enum=("enospc", *_ERRORS)),
    **dict.fromkeys(_LIMITS, _NUMBER),
    **dict.fromkeys(_RATES, Prop("number")),
}
_SSD: Format = {"ssd": _FLAG, "wwn": Prop(pattern=r"0x[0-9a-fA-F]{16}")}
_THREAD: Format = {"iothread": _FLAG, "ro": _FLAG}
_SCSI: Format = {**_DRIVE, **_SSD, **_THREAD, "queues": Prop("integer", minimum=2), "scsiblock": _FLAG}
DRIVES: dict[str, Format] = {
    "efidisk": {
        "file": _FILE,
        "volume": _VOLUME,
        "efitype": Prop(enum=("2m", "4m")),
        "format": _IMAGE,
        "import-from": Prop(),
        "ms-cert": Prop(enum=("2011", "2023", "2023w", "2023k")),
        "pre-enrolled-keys": _FLAG,
        "size": _SIZE,
    },
    "ide": {**_DRIVE, **_SSD, "model": Prop(max_length=120)},
    "sata": {**_DRIVE, **_SSD},
    "scsi": {**_SCSI, "product": Prop(max_length=16), "vendor": Prop(max_length=8)},
    "tpmstate": {
        "file": _FILE,
        "volume": _VOLUME,
        "format": Prop(enum=("raw", "qcow2", "vmdk")),
        "import-from": Prop(),
        "size": _SIZE,
        "version": Prop(enum=("v1.2", "v2.0")),
    },
    "virtio": {**_DRIVE, **_THREAD},
    "unused": {"file": _FILE, "volume": _VOLUME},
}
_BASE64 = Prop(pattern=r"[A-Za-z0-9+/]+={0,2}")
_NUMA: Format = {
    "cpus": Prop(optional=False, pattern=_CPU_SET),
    "hostnodes": Prop(pattern=_CPU_SET),
    "memory": Prop("number"),
    "policy": Prop(enum=("preferred", "bind", "interleave")),
}
_BOOT: Format = {
    "legacy": Prop(pattern=r"[acdn]{1,4}", default_key=True),
    "order": Prop(check=_boot_order),
}
_PLAIN: Format = {
    "affinity": Prop(check=_cpu_list),
    "arch": Prop(enum=("x86_64", "aarch64")),
    "args": Prop(),
    "audio0": Prop(
        keys={
            "device": Prop(optional=False, enum=("ich9-intel-hda", "intel-hda", "AC97")),
            "driver": Prop(enum=("spice", "none")),
        }
    ),
    "balloon": Prop("integer", minimum=0),
    "bios": Prop(enum=("seabios", "ovmf")),
    "boot": Prop(keys=_BOOT),
    "bootdisk": Prop(pattern=r"(ide|sata|scsi|virtio)\d+"),
    "cores": Prop("integer", minimum=1),
    "cpulimit": Prop("number", minimum=0, maximum=128),
    "cpuunits": Prop("integer", minimum=1, maximum=262144),
    "description": Prop(max_length=8192),
    "hookscript": Prop(check=_volume_id),
    "hotplug": Prop(check=_hotplug),
    "hugepages": Prop(enum=("any", "2", "1024")),
    "ivshmem": Prop(keys={"size": Prop("integer", optional=False, minimum=1), "name": Prop(pattern=r"[a-zA-Z0-9\-]+")}),
    "lock": Prop(
        enum=(
            "backup",
            "clone",
            "create",
            "migrate",
            "rollback",
            "snapshot",
            "snapshot-delete",
            "suspending",
            "suspended",
        )
    ),
    "memory": Prop(keys=MEMORY_KEYS),
    "name": Prop(check=_dns_name),
    "ostype": Prop(
        enum=(
            "other",
            "wxp",
            "w2k",
            "w2k3",
            "w2k8",
            "wvista",
            "win7",
            "win8",
            "win10",
            "win11",
            "l24",
            "l26",
            "solaris",
        )
    ),
    "rng0": Prop(
        keys={
            "source": Prop(optional=False, default_key=True, enum=("/dev/urandom", "/dev/random", "/dev/hwrng")),
            "max_bytes": _NUMBER,
            "period": _NUMBER,
        }
    ),
    "scsihw": Prop(enum=("lsi", "lsi53c810", "virtio-scsi-pci", "virtio-scsi-single", "megasas", "pvscsi")),
    "shares": Prop("integer", minimum=0, maximum=50000),
    "smbios1": Prop(
        max_length=512,
        keys={
            **dict.fromkeys(("family", "manufacturer", "product", "serial", "sku", "version"), _BASE64),
            "base64": _FLAG,
            "uuid": Prop(pattern=_UUID),
        },
    ),
    "sockets": Prop("integer", minimum=1),
    "startup": Prop(check=_startup),
    "tags": Prop(check=_tags),
    "usb": Prop(keys=USB_KEYS),
    "vcpus": Prop("integer", minimum=1),
    "vga": Prop(keys=VGA_KEYS),
    "vmgenid": Prop(pattern=rf"{_UUID}|[01]"),
}
_FREE_TEXT = "amd-sev cicustom cipassword ciuser keyboard nameserver searchdomain spice_enhancements sshkeys startdate"
_FREE = (*_FREE_TEXT.split(), "citype", "vmstatestorage", "watchdog", "meta", "parent", "runningmachine", "runningcpu")
_SWITCHES = (
    "acpi autostart ciupgrade freeze keephugepages kvm localtime numa onboot protection reboot tablet tdf template"
)
FILE_ONLY = frozenset({"meta", "parent", "runningmachine", "runningcpu", "snaptime", "vmstate"})
"""Keys that stand in files but cannot be given as an option."""
_NUMBERED: tuple[tuple[str, int, Prop], ...] = (
    ("ide", 4, Prop(keys=DRIVES["ide"])),
    ("ipconfig", 32, Prop(keys=IPCONFIG_KEYS)),
    ("net", 32, Prop(keys=NET_KEYS)),
    ("numa", 8, Prop(keys=_NUMA)),
    ("parallel", 3, Prop(pattern=r"/dev/parport\d+|/dev/usb/lp\d+")),
    ("sata", 6, Prop(keys=DRIVES["sata"])),
    ("scsi", 31, Prop(keys=DRIVES["scsi"])),
    ("unused", 256, Prop(keys=DRIVES["unused"])),
    ("usb", 14, Prop(keys=USB_KEYS)),
    ("virtio", 16, Prop(keys=DRIVES["virtio"])),
    ("virtiofs", 10, Prop()),
)


@cache
def guest_options(major: int) -> Format:
    """Every key of a guest's configuration file."""
    table = {name: prop for name, prop in _PLAIN.items() if name != "usb"}
    table |= dict.fromkeys(_SWITCHES.split(), _FLAG) | dict.fromkeys(_FREE, Prop())
    table["sshkeys"] = Prop(check=_urlencoded)
    table["agent"] = Prop(keys=_AGENT_KEYS_9 if major >= 9 else AGENT_KEYS)
    table["cpu"] = _cpu(major)
    extra = {"aw-bits": Prop("number", minimum=32, maximum=64)} if major >= 9 else {}
    table["machine"] = Prop(keys={**MACHINE_KEYS, **extra})
    table["efidisk0"] = Prop(keys=DRIVES["efidisk"])
    table["tpmstate0"] = Prop(keys=DRIVES["tpmstate"])
    hostpci = Prop(keys=hostpci_keys(major))
    serial = Prop(pattern=r"(/dev/[^,]+|socket)" if major >= 9 else r"(/dev/.+|socket)")
    for name, count, prop in (*_NUMBERED, ("hostpci", 16, hostpci), ("serial", 4, serial)):
        table |= {f"{name}{index}": prop for index in range(count)}
    if major >= 9:
        table |= {"allow-ksm": _FLAG, "intel-tdx": Prop()}
    return table


PCI_MAP_KEYS: Format = {
    "node": Prop(optional=False, check=_node_name),
    "path": Prop(
        optional=False,
        pattern=r"([a-f0-9]{4,}:[a-f0-9]{2}:[a-f0-9]{2}(.[a-f0-9])?;)*[a-f0-9]{4,}:[a-f0-9]{2}:[a-f0-9]{2}(.[a-f0-9])?",
    ),
    "id": Prop(optional=False, pattern=r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}"),
    "iommugroup": _NUMBER,
    "subsystem-id": Prop(pattern=r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}"),
    "description": Prop(),
}
USB_MAP_KEYS: Format = {
    "node": Prop(optional=False, check=_node_name),
    "id": Prop(optional=False, pattern=r"[0-9A-Fa-f]{4}:[0-9A-Fa-f]{4}"),
    "path": Prop(pattern=r"\d+-\d+(\.\d+)*"),
    "description": Prop(),
}
