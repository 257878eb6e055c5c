"""Who builds the command line of the next boot, and how much room there is for it.

1. The presence of /etc/kernel/cmdline proves nothing: every ZFS or BTRFS installation has it, even where GRUB boots.
   Source: pve-installer, Proxmox/Install.pm.
2. With /etc/kernel/proxmox-boot-uuids the answer comes from `proxmox-boot-tool status`; nothing else is asked.
3. When the evidence contradicts itself the loaders are unknown, and the gap says what was seen.
"""

from __future__ import annotations

import re

from ..model.facts import Boot, Esp, Firmware, Kernel, Loader, Space
from .asking import Asking
from .paths import answered

UUIDS = "/etc/kernel/proxmox-boot-uuids"
MAX_ESPS = 64

# proxmox-boot-tool prints `1A2B-3C4D is configured with: uefi (versions: 6.8.4-2-pve), grub (versions: …)`.
# The two patterns are Proxmox' own (pve-manager, PVE/CLI/pve8to9.pm); `uefi` is its word for systemd-boot.
_CONFIGURED = re.compile(r"(\S+) is configured with:(.*)")
_SYSTEMD_BOOT = re.compile(r"\b(?:uefi|systemd-boot) \(versions:")
_GRUB = re.compile(r"\bgrub \(versions:")
_UUID = re.compile(r"[0-9A-Fa-f]{4}-[0-9A-Fa-f]{4}|[0-9A-Fa-f-]{8,36}")


def probe_boot(ask: Asking, kernel: Kernel, firmware: Firmware) -> Boot:
    known, text = answered(ask, UUIDS, "boot.managed")
    if text is not None:
        return _managed(ask, text, firmware)
    if not known or not ask.names("/etc", "boot.managed"):
        ask.gap("boot.loaders", "there is no /etc to look into")
        return Boot()
    return Boot(_plain_grub(ask, kernel), (), False)


def uuids_in(text: str) -> tuple[str, ...]:
    """The UUIDs that proxmox-boot-tool keeps, one a line; comments and empty lines do not count."""
    words = (line.partition("#")[0].strip() for line in text.splitlines())
    return tuple(dict.fromkeys(word for word in words if _UUID.fullmatch(word)))[:MAX_ESPS]


def _managed(ask: Asking, text: str, firmware: Firmware) -> Boot:
    uuids = uuids_in(text)
    found = _status(ask)
    esps = tuple(Esp(uuid, (found or {}).get(uuid, ())) for uuid in uuids)
    if found is not None:
        loaders = _may_start({loader for on_esp in found.values() for loader in on_esp}, firmware)
        if loaders:
            return Boot(loaders, esps, True)
        ask.gap("boot.loaders", "proxmox-boot-tool found no loader on any ESP that it keeps")
    elif firmware.uefi is False:
        # Without EFI only GRUB can start from the ESPs (Proxmox VE administration guide, system booting).
        return Boot((Loader.GRUB_ESP,), tuple(Esp(uuid, (Loader.GRUB_ESP,)) for uuid in uuids), True)
    else:
        ask.gap("boot.loaders", "proxmox-boot-tool keeps the ESPs but could not be asked what is on them")
    return Boot(None, esps, True)


def _status(ask: Asking) -> dict[str, tuple[Loader, ...]] | None:
    ran = ask.run(("proxmox-boot-tool", "status"), "boot.loaders", 60.0)
    if ran is None:
        return None
    if not ran.ok:
        ask.gap("boot.loaders", f"proxmox-boot-tool status ended with {ran.rc}: {ran.stderr.strip()[-200:]}")
        return None
    return loaders_in(ran.stdout)


def loaders_in(status: str) -> dict[str, tuple[Loader, ...]]:
    """Loaders by ESP UUID, from what `proxmox-boot-tool status` prints."""
    found: dict[str, tuple[Loader, ...]] = {}
    for line in status.splitlines():
        if match := _CONFIGURED.search(line):
            uuid, words = match.groups()
            pairs = ((_GRUB, Loader.GRUB_ESP), (_SYSTEMD_BOOT, Loader.SYSTEMD_BOOT))
            found[uuid] = tuple(loader for pattern, loader in pairs if pattern.search(words))
    return found


def _may_start(loaders: set[Loader], firmware: Firmware) -> tuple[Loader, ...]:
    """Without EFI systemd-boot cannot start, whatever lies on the ESP."""
    if firmware.uefi is False:
        loaders = loaders - {Loader.SYSTEMD_BOOT}
    return tuple(loader for loader in Loader if loader in loaders)


def _plain_grub(ask: Asking, kernel: Kernel) -> tuple[Loader, ...] | None:
    """GRUB on the root file system, unless the running kernel was visibly started by something else.

    GRUB names the kernel in BOOT_IMAGE=; systemd-boot and the EFI stub pass initrd= instead.
    """
    configured = ask.text("/etc/default/grub", "boot.loaders") is not None
    menu = ask.names("/boot/grub", "boot.loaders") is not None
    # Its settings alone prove nothing where its menu is missing: the file stays behind when another loader takes over.
    seen = menu or (configured and not ask.names("/boot", "boot.loaders"))
    keys = {word.partition("=")[0] for word in (kernel.cmdline or "").split()}
    elsewhere = "initrd" in keys and "BOOT_IMAGE" not in keys
    if seen and not elsewhere:
        return (Loader.GRUB,)
    if elsewhere:
        ask.gap("boot.loaders", "the running kernel was not started by GRUB, and proxmox-boot-tool keeps no ESP")
    else:
        ask.gap("boot.loaders", "neither proxmox-boot-tool's list of ESPs nor GRUB's configuration is there")
    return None


# -- room -------------------------------------------------------------------------------------


def probe_spaces(ask: Asking, boot: Boot, mount_points: frozenset[str]) -> tuple[Space, ...]:
    """Room where kernels and their initramfs go. ESPs that proxmox-boot-tool keeps are not mounted: unknown."""
    paths = ["/boot", *(path for path in ("/boot/efi", "/efi") if path in mount_points)]
    found = []
    for path in paths:
        room = ask.room(path, f"spaces.{path}")
        if room is not None:
            found.append(Space(path, room.total, room.free))
    if boot.managed and boot.esps:
        ask.gap("spaces.esp", "the ESPs that proxmox-boot-tool keeps are not mounted, their room is not known")
    return tuple(found)
