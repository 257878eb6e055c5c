"""The few files on a host that are this product's alone.

1. Names only. Whoever plans, probes or applies takes them from here, so that they never drift apart.
2. Their undo is deletion: nothing else on the host writes them.
"""

from __future__ import annotations

STATE = "/var/lib/pve-passthrough"
"""What this program remembers of this machine."""

RUNS = f"{STATE}/runs"
"""A directory for each run: plan.json, journal.jsonl."""

GRUB_DROP_IN = "/etc/default/grub.d/zz-pve-passthrough.cfg"
"""Read by grub-mkconfig after /etc/default/grub, in the order of the names; `zz` comes after the installer's own."""

MODPROBE = "/etc/modprobe.d/pve-passthrough.conf"
MODULES_LOAD = "/etc/modules-load.d/pve-passthrough.conf"

CLAIM_SCRIPT = "/etc/initramfs-tools/scripts/init-top/pve-passthrough"
"""Claims functions by address inside the initramfs, before udev loads their drivers."""

UDEV_RULES = "/etc/udev/rules.d/99-pve-passthrough.rules"
"""Sets attributes of functions again at every boot, when udev goes through all devices."""

LENT = "/etc/pve-passthrough/lent-{vmid}.conf"
"""Functions of the host's own display that a guest borrows; one file for each such guest."""

SRIOV = "/etc/pve-passthrough/sriov-{address}.conf"
"""Virtual functions that are made again at every start; one file for each physical function."""

SRIOV_UNIT = "pve-passthrough-sriov-{address}.service"
"""The unit that makes them, once the physical function's driver is there."""

OWN_FILES = (GRUB_DROP_IN, MODPROBE, MODULES_LOAD, UDEV_RULES, CLAIM_SCRIPT)
