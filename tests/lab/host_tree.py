"""What makes a Debian tree a lab host: names, network, boot loader, and the program as a user installs it.

1. The tree that is changed is a copy; the one of the cache stays as its packages made it.
2. The host starts like a Proxmox node: GRUB on UEFI from an NVMe disk, a bridge that carries the management address.
"""

from __future__ import annotations

import shutil
from pathlib import Path

from .programs import in_root, run
from .root import kernel_of

ROOT_UUID = "11111111-2222-3333-4444-555555555555"
ALWAYS = "console=ttyS0,115200 nohz=off highres=off no_timer_check"
"""On every lab host's command line. A ticking clock: under TCG an idle processor was seen to lose its one-shot timer
("rcu_preempt kthread timer wakeup didn't happen"), and then the host stands still; a periodic one comes again. No test
of the timer at boot: on a busy machine an emulated one is late, and the kernel panics ("timer doesn't work through
Interrupt-remapped IO-APIC"; kernel-parameters.txt, no_timer_check)."""
_INITRAMFS_MODULES = (
    "nvme",
    "virtio_iommu",
    "virtio_pci",
    "virtio_blk",
    "ext4",
    "bochs",
    "cirrus",
    "snd_hda_intel",
    "xhci_pci",
    "hid_generic",
    "usbhid",
)
"""The root disk's, and what a display's or a sound function's driver is on a real host: there before the root is."""
_MASKED = (
    "apt-daily.timer", "apt-daily-upgrade.timer", "dpkg-db-backup.timer", "e2scrub_all.timer", "e2scrub_reap.service",
    "fstrim.timer", "getty@tty1.service", "systemd-hwdb-update.service", "systemd-networkd-wait-online.service",
    "systemd-timesyncd.service", "systemd-update-utmp.service", "systemd-pcrphase.service", "systemd-pstore.service",
    "systemd-logind.service", "serial-getty@ttyS0.service", "systemd-binfmt.service",
)  # fmt: skip
_FILES = {
    "/etc/fstab": f"UUID={ROOT_UUID} / ext4 defaults,noatime 0 1\n",
    "/etc/systemd/network/10-bridge.netdev": "[NetDev]\nName=vmbr0\nKind=bridge\n",
    "/etc/systemd/network/20-port.network": "[Match]\nDriver=e1000e\n\n[Network]\nBridge=vmbr0\n",
    "/etc/systemd/network/30-bridge.network": (
        "[Match]\nName=vmbr0\n\n[Network]\nAddress=10.0.2.15/24\nGateway=10.0.2.2\nLinkLocalAddressing=no\n"
        "ConfigureWithoutCarrier=yes\n"
    ),
    "/etc/default/grub": (
        "GRUB_DEFAULT=0\nGRUB_TIMEOUT=0\nGRUB_RECORDFAIL_TIMEOUT=0\nGRUB_DISTRIBUTOR=Debian\n"
        f'GRUB_CMDLINE_LINUX_DEFAULT="quiet"\nGRUB_CMDLINE_LINUX="{ALWAYS}"\n'
        'GRUB_TERMINAL=serial\nGRUB_SERIAL_COMMAND="serial --speed=115200"\nGRUB_DISABLE_OS_PROBER=true\n'
    ),
    "/etc/initramfs-tools/conf.d/lab": "MODULES=list\nCOMPRESS=zstd\nCOMPRESSLEVEL=1\n",
    "/etc/initramfs-tools/modules": "".join(f"{module}\n" for module in _INITRAMFS_MODULES),
}
"""An emulated processor copies modules slowly, so the initramfs lists its modules; a Proxmox node has MODULES=most."""

_HOOKS = "usr/share/initramfs-tools/hooks"
_LEFT_OUT = ("fsck", "dmsetup")
"""Hooks of initramfs-tools that copy what a lab host does not need, and take long about it."""
_BUSYBOX_HOOK = """#!/bin/sh
case "${1:-}" in prereqs) echo; exit 0 ;; esac
. /usr/share/initramfs-tools/hook-functions
if [ -f "$DESTDIR/bin/sh" ] && cmp -s "$DESTDIR/bin/sh" /bin/busybox; then rm -f "$DESTDIR/bin/sh"; fi
rm -f "$DESTDIR/bin/busybox"
copy_exec /bin/busybox /bin/busybox
/bin/busybox --list-long | python3 -c '
import os, sys
for name in sys.stdin.read().split():
    name = name.removeprefix("usr/")
    alias = os.path.join(sys.argv[1], name if "/" in name else "bin/" + name)
    if not os.path.lexists(alias):
        os.link(sys.argv[1] + "/bin/busybox", alias)
' "$DESTDIR"
"""
"""What the package's own hook does, in one process instead of one for each of 270 links: a minute under TCG."""


def copy(source: Path, target: Path) -> None:
    """A copy of a tree with owners, modes, times and links."""
    target.parent.mkdir(parents=True, exist_ok=True)
    run(("cp", "-a", "--reflink=auto", source.resolve(), target), 300)


def prepare(root: Path, suite: str, deb: Path, arguments: str = "") -> None:
    """Turn `root`, a tree of `suite`, into a lab host that has the program installed from `deb`. Raises LabError.

    `arguments`: what the kernel's command line has besides `quiet`.
    """
    quiet = f"quiet {arguments}".rstrip()
    for path, text in _FILES.items():
        place = root / path[1:]
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_text(text.replace('="quiet"', f'="{quiet}"'))
    (root / "etc/hostname").write_text(f"lab-{suite}\n")
    (root / "etc/hosts").write_text(f"127.0.0.1 localhost\n10.0.2.15 lab-{suite}.lab lab-{suite}\n")
    in_root(root, ("passwd", "-q", "-d", "root"), 30)
    in_root(root, ("systemctl", "-q", "mask", *_MASKED), 60)
    in_root(root, ("systemctl", "-q", "enable", "systemd-networkd.service"), 60)
    _install(root, deb)
    for hook in _LEFT_OUT:
        (root / _HOOKS / hook).chmod(0o644)
    (root / _HOOKS / "zz-busybox").write_text(_BUSYBOX_HOOK)
    in_root(root, ("update-initramfs", "-c", "-k", kernel_of(root)), 300)
    _boot_loader(root, f"{ALWAYS} {quiet}")


def _install(root: Path, deb: Path) -> None:
    """As a user does it: apt, with the file's own dependencies (they are in the tree already)."""
    shutil.copy(deb, root / "root" / deb.name)
    in_root(root, ("apt-get", "-qq", "install", "-y", "--no-install-recommends", f"/root/{deb.name}"), 300)
    (root / "root" / deb.name).unlink()


def _boot_loader(root: Path, arguments: str) -> None:
    """GRUB's modules, and a grub.cfg to begin with; `update-grub` in the running host replaces it."""
    modules = root / "boot/grub/x86_64-efi"
    modules.mkdir(parents=True, exist_ok=True)
    for pattern in ("*.mod", "*.lst"):
        for file in (root / "usr/lib/grub/x86_64-efi").glob(pattern):
            shutil.copy(file, modules / file.name)
    kernel = kernel_of(root)
    (root / "boot/grub/grub.cfg").write_text(
        f"set timeout=0\nsearch --no-floppy --fs-uuid --set=root {ROOT_UUID}\n"
        f"menuentry 'Debian' {{\n"
        f"    linux /boot/vmlinuz-{kernel} root=UUID={ROOT_UUID} ro {arguments}\n"
        f"    initrd /boot/initrd.img-{kernel}\n}}\n"
    )
    (root / "boot/efi").mkdir(exist_ok=True)
