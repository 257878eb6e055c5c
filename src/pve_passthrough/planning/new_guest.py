"""A guest made for a device: every option of its `qm create`, from a profile, what is wanted, and what the host has.

1. Pure. What nobody could say and what matters is a Failure that names the gap; nothing is assumed.
2. A host that cannot carry the guest, and wishes that contradict each other, are refused before anything is made.
3. Every guest keeps a virtual display: the only console until something else has been seen to work.
4. Nothing here gives a device to the guest; that is an ordinary plan on the facts as they will be.
Sources: qemu-server 9.2.6 and 8.4.10 (PVE/API2/Qemu.pm, QemuServer/Drive.pm), recorded exchanges with both;
Proxmox VE administration guide, "Qemu/KVM Virtual Machines" (QM below).
"""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import replace

from ..knowledge.guest_profiles import NAMES, WINDOWS, GuestProfile, profile_named
from ..model.facts import Facts
from ..model.vm import Vm
from .guest_place import cores_of, memory_of, placement
from .guest_volumes import disk, gibibytes, media, room, storage_of
from .guest_wanted import NewGuest, Wanted, unfit, unknown, usage

FIRST_VMID = 100
_NAME = re.compile(r"(?:[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?\.)*[A-Za-z0-9](?:[A-Za-z0-9-]{0,61}[A-Za-z0-9])?")
_USER = re.compile(r"[a-z_][a-z0-9_-]{0,31}")
_KEY = re.compile(r"(?:(?:sk-)?(?:ssh|ecdsa)-[A-Za-z0-9@.-]+)[ \t]+[A-Za-z0-9+/]+={0,3}(?:[ \t].*)?")


def new_guest(facts: Facts, profile: str, wanted: Wanted) -> NewGuest:
    """Everything about the guest that a profile and wishes make on this host. Raises Failure."""
    row = _row(profile)
    _refuse_contradictions(row, wanted)
    node = _node(facts)
    _refuse_unfit(facts)
    vmid = _vmid(facts, wanted)
    notes = _kvm_note(facts)
    storage = storage_of(facts, node, wanted.storage, "images", "--storage").name
    room(row, wanted, storage, notes)
    memory, cores = memory_of(facts, row, wanted, notes), cores_of(facts, row, wanted, notes)
    options = {
        "name": _name(row, wanted, vmid),
        "ostype": row.os,
        "machine": "q35",
        **_firmware(row, wanted, storage, notes),
        "cpu": "host",
        "sockets": "1",
        "cores": str(cores),
        "memory": str(memory),
        "balloon": "0",
        **placement(facts, wanted, memory, cores, notes),
        "scsihw": "virtio-scsi-single",
        **disk(facts, node, row, wanted, storage),
        **media(facts, node, row, wanted, notes),
        **_cloud(row, wanted, storage, notes),
        "net0": _network(facts, wanted),
        "agent": "enabled=1",
        **_console(row),
        "onboot": "0",
    }
    options["boot"] = "order=" + ";".join(key for key in ("scsi0", "ide2", "net0") if key in options)
    notes.append("A virtual display stays until the guest has been seen to work without it.")
    grow = f"{gibibytes(row, wanted)}G" if wanted.cloud_image else ""
    vm = Vm(vmid, node, dict(options), running=False, ha_managed=False)
    return NewGuest(vmid, node, row.name, options, tuple(notes), vm, wanted.ssh_key, grow)


def with_new_guest(facts: Facts, new: NewGuest) -> Facts:
    """The facts as they will be once the guest is there."""
    others = tuple(guest for guest in facts.guests or () if guest.vmid != new.vmid)
    return replace(facts, guests=tuple(sorted((*others, new.vm), key=lambda guest: guest.vmid)))


# -- commands ------------------------------------------------------------------------------------


def command(new: NewGuest) -> tuple[str, ...]:
    """The one command that makes it. `qm` reads keys from a file; the API would want them URL-encoded
    (qemu-server, PVE/CLI/qm.pm, param_mapping)."""
    values = {**new.options, **({"sshkeys": new.ssh_key} if "sshkeys" in new.options else {})}
    return ("qm", "create", str(new.vmid), *(word for key in values for word in (f"--{key}", values[key])))


def grow_command(new: NewGuest) -> tuple[str, ...]:
    """What gives an imported image its wanted size; () when nothing is to be done."""
    return ("qm", "disk", "resize", str(new.vmid), "scsi0", new.grow) if new.grow else ()


def remove_command(vmid: int) -> str:
    return f"qm destroy {vmid} --purge"


# -- may it be made at all -----------------------------------------------------------------------


def _row(name: str) -> GuestProfile:
    row = profile_named(name)
    if row is None:
        raise usage(
            "guest.profile", f"there is no profile {name!r} for a new guest.", hint=f"Profiles: {', '.join(NAMES)}."
        )
    return row


def _refuse_contradictions(row: GuestProfile, wanted: Wanted) -> None:
    for clash, words, hint in _clashes(row, wanted):
        if clash:
            raise usage("guest.contradiction", words, hint=hint)


def _clashes(row: GuestProfile, wanted: Wanted) -> Iterable[tuple[bool, str, str]]:
    """(whether it is so, what contradicts what, the way out)"""
    windows, seabios = row.os == WINDOWS, wanted.bios == "seabios"
    cloud = wanted.cloud_init or bool(wanted.cloud_image)
    yield (
        windows and cloud,
        "Windows is not set up by Proxmox' cloud-init drive.",
        "Leave --cloud-init and --cloud-image out.",
    )
    yield windows and seabios, "Windows 11 starts from UEFI firmware only.", "Leave --bios out."
    yield (
        seabios and bool(wanted.secure_boot), "Secure Boot is a part of UEFI, and --bios seabios is none.",
        "Leave one of --secure-boot and --bios seabios out.",
    )  # fmt: skip
    yield (
        seabios and bool(wanted.tpm), "a TPM 2.0 is of use to UEFI firmware only, and --bios seabios is none.",
        "Leave one of --tpm and --bios seabios out.",
    )  # fmt: skip
    yield not windows and bool(wanted.virtio_iso), "Linux has the VirtIO drivers already.", "Leave --virtio-iso out."
    yield (
        bool(wanted.cloud_image and wanted.iso), "an image is installed already, an ISO installs anew.",
        "Leave one of --cloud-image and --iso out.",
    )  # fmt: skip
    told = [
        name for name, value in (("--user", wanted.user), ("--ssh-key", wanted.ssh_key), ("--ip", wanted.ip)) if value
    ]
    yield (
        bool(told) and not cloud, f"{' and '.join(told)} reach a guest through cloud-init, and it has none.",
        "Add --cloud-image VOLUME or --cloud-init.",
    )  # fmt: skip
    yield wanted.bios not in ("", "ovmf", "seabios"), f"{wanted.bios!r} is no firmware.", "--bios ovmf or seabios."


def _node(facts: Facts) -> str:
    if facts.pve.installed is False:
        raise unfit("guest.no-proxmox", "this is no Proxmox VE host.", hint="pve-passthrough check")
    if facts.pve.node is None:
        raise unknown(facts, "pve.node", "which node this is")
    if facts.pve.quorate is False:
        raise unfit(
            "pve.no-quorum", "this node's cluster has no quorum, so no guest can be added.",
            hint="Bring the other nodes back; `pvecm status` shows the votes.",
        )  # fmt: skip
    if facts.pve.writable is False:
        raise unfit(
            "pve.readonly", "/etc/pve accepts no changes now.",
            hint="`pvecm status` shows whether the cluster has quorum; `systemctl status pve-cluster`.",
        )  # fmt: skip
    return facts.pve.node


def _refuse_unfit(facts: Facts) -> None:
    """q35, OVMF and `cpu: host` need an x86 processor that runs guests. The kernel hides vmx when the firmware has
    switched it off (arch/x86/kernel/cpu/feat_ctl.c), and since 6.7 svm, too (arch/x86/kernel/cpu/amd.c)."""
    if facts.cpu.x86 is False:
        raise unfit("guest.not-x86", "the profiles are for x86 hosts, and this processor is none.")
    if facts.cpu.x86 is None or facts.cpu.flags is None:
        raise unknown(facts, "cpu", "whether the processor can run guests")
    if not facts.cpu.flags & {"vmx", "svm"}:
        raise unfit(
            "guest.no-kvm", "the processor offers no virtualisation (neither vmx nor svm), so no guest runs under KVM.",
            hint="Switch on VT-x or SVM in the firmware's setup, then `check` again.",
        )  # fmt: skip


def _kvm_note(facts: Facts) -> list[str]:
    """Where the firmware has switched it off, kvm_amd and kvm_intel do not load (arch/x86/kvm/svm, vmx)."""
    loaded = facts.modules.loaded
    if loaded is None or loaded & {"kvm_intel", "kvm_amd"}:
        return []
    return ["Neither kvm_intel nor kvm_amd is loaded: unless KVM is built in, no guest starts; `modprobe` says why."]


def _vmid(facts: Facts, wanted: Wanted) -> int:
    """Numbers belong to guests and containers of all nodes together (pve-cluster, PVE::Cluster::check_vmid_unused)."""
    if facts.guests is None:
        raise unknown(facts, "guests", "which guests there are")
    if facts.containers is None:
        raise unknown(facts, "containers", "which containers there are")
    if wanted.vmid is None:
        taken = {guest.vmid for guest in facts.guests} | set(facts.containers)
        return next(number for number in range(FIRST_VMID, FIRST_VMID + len(taken) + 1) if number not in taken)
    free = "Leave --vm out for the next free number."
    guest = facts.guest(wanted.vmid)
    if guest is not None:
        raise unfit("guest.exists", f"{wanted.vmid} is a guest already ({guest.name} on {guest.node}).", hint=free)
    if wanted.vmid in facts.containers:
        where = facts.containers[wanted.vmid]
        raise unfit("guest.exists", f"{wanted.vmid} is a container already (on {where}).", hint=free)
    return wanted.vmid


def _name(row: GuestProfile, wanted: Wanted, vmid: int) -> str:
    name = wanted.name or f"{row.name}-{vmid}"
    if not _NAME.fullmatch(name):
        raise usage(
            "guest.name", f"{name!r} is no DNS name, which a guest's name must be.", hint="Letters, digits, - and dots."
        )
    return name


# -- firmware, console, network, cloud-init ------------------------------------------------------


def _firmware(row: GuestProfile, wanted: Wanted, storage: str, notes: list[str]) -> dict[str, str]:
    """`efitype=4m`: the older 2m image knows no Secure Boot (qemu-server, Drive.pm). The sizes are Proxmox' own."""
    if wanted.bios == "seabios":
        notes.append("SeaBIOS: cards with large BARs, and cards without a legacy option ROM, want OVMF instead.")
        return {"bios": "seabios"}
    keys = row.secure_boot if wanted.secure_boot is None else wanted.secure_boot
    tpm = row.tpm if wanted.tpm is None else wanted.tpm
    if wanted.secure_boot is None:
        notes.append(f"Secure Boot is {'on' if keys else 'off'}: {row.secure_why}.")
    elif keys and not row.secure_boot:
        notes.append(f"Secure Boot is on, as asked: {row.secure_why}.")
    if row.os == WINDOWS and not (keys and tpm):
        notes.append("Windows 11's setup refuses a machine without Secure Boot and TPM 2.0.")
    found = {"bios": "ovmf", "efidisk0": f"{storage}:1,efitype=4m,pre-enrolled-keys={int(keys)}"}
    return {**found, "tpmstate0": f"{storage}:1,version=v2.0"} if tpm else found


def _console(row: GuestProfile) -> dict[str, str]:
    return {"vga": row.display, **({"serial0": "socket"} if row.serial else {})}


def _network(facts: Facts, wanted: Wanted) -> str:
    if facts.bridges is None:
        raise unknown(facts, "bridges", "which bridges there are")
    bridge = wanted.bridge or "vmbr0"
    if bridge not in facts.bridges:
        raise unfit(
            "guest.no-bridge", f"there is no bridge {bridge}.",
            hint=f"Name one with --bridge: {', '.join(facts.bridges)}" if facts.bridges else "Make one: node, Network.",
        )  # fmt: skip
    if wanted.vlan is not None and not 1 <= wanted.vlan <= 4094:
        raise usage("guest.vlan", f"{wanted.vlan} is no VLAN.", hint="1 to 4094.")
    return f"virtio,bridge={bridge}" + (f",tag={wanted.vlan}" if wanted.vlan is not None else "")


def _cloud(row: GuestProfile, wanted: Wanted, storage: str, notes: list[str]) -> dict[str, str]:
    """The drive hangs on the disk's own controller: an image that finds its disk finds it, too."""
    if not (wanted.cloud_image or wanted.cloud_init):
        return {}
    found = {"scsi1": f"{storage}:cloudinit", "ipconfig0": _ip(wanted.ip or "dhcp")}
    if wanted.user:
        if not _USER.fullmatch(wanted.user):
            raise usage("guest.user", f"{wanted.user!r} is no user name.", hint="Small letters, digits, - and _.")
        found["ciuser"] = wanted.user
    if wanted.ssh_key:
        found["sshkeys"] = _keys(wanted)
    else:
        notes.append("No --ssh-key: most images then let nobody in. Add one: qm set ID --sshkeys FILE")
    if not wanted.cloud_image:
        notes.append("The disk is empty; cloud-init needs a system on it: name one with --cloud-image.")
    notes.append("The guest agent answers once qemu-guest-agent is installed in the guest.")
    return found


def _keys(wanted: Wanted) -> str:
    """URL-encoded as Proxmox stores it. A private key would land in a file that every guest owner may read."""
    from urllib.parse import quote

    lines = [line.strip() for line in wanted.ssh_keys.splitlines() if line.strip()]
    if "PRIVATE KEY" in wanted.ssh_keys:
        raise usage(
            "guest.ssh-key", f"{wanted.ssh_key} holds a private key.", hint="Name the public one, often FILE.pub"
        )
    if not lines or not all(_KEY.fullmatch(line) for line in lines):
        raise usage(
            "guest.ssh-key",
            f"{wanted.ssh_key} holds no public SSH keys.",
            hint="One key per line, as in id_ed25519.pub",
        )
    return quote(wanted.ssh_keys, safe="-._~")


def _ip(text: str) -> str:
    """`ipconfig0` as Proxmox takes it (pve-common, JSONSchema.pm: pve-ipv4-config, pve-ipv6-config)."""
    import ipaddress

    if text == "dhcp":
        return "ip=dhcp"
    address, _, rest = text.partition(",")
    try:
        own = ipaddress.ip_interface(address)
        gateway = ipaddress.ip_address(rest.removeprefix("gw=")) if rest else None
    except ValueError as error:
        raise usage(
            "guest.ip", f"{text!r} is no address: {error}.", hint="dhcp, or ADDRESS/LENGTH,gw=ADDRESS"
        ) from error
    if "/" not in address or (gateway is not None and gateway.version != own.version) or own.network.prefixlen < 8:
        raise usage("guest.ip", f"{text!r} is no address with its network.", hint="dhcp, or ADDRESS/LENGTH,gw=ADDRESS")
    six = "6" if own.version == 6 else ""
    return f"ip{six}={own.with_prefixlen}" + (f",gw{six}={gateway}" if gateway is not None else "")
