"""A stand-in for Proxmox VE in a lab host: what is put into the tree, and how.

1. The node is what a fresh one is: no cluster, one storage, and one guest that starts the nested kernel directly.
2. The programs come from `pve_stand_in` and use the product's package as it is installed in the lab host.
3. /etc/pve is a plain folder here; on a node it is pmxcfs.
"""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from .. import nested
from ..programs import LabError, in_root

HOME = "usr/local/lib/pve-stand-in"
VMID = 100
_NODES = {
    "bookworm": {"version": "8.4.1", "repoid": "2a5fa54a8503f96d", "qemu_server": "8.4.10"},
    "trixie": {"version": "9.2.11", "repoid": "14a22df35955d97d", "qemu_server": "9.2.6"},
}
"""What a node of either Debian is; the numbers are those of recorded nodes."""
_PROGRAMS = ("usr/sbin/qm", "usr/bin/pvesh", "usr/bin/pveversion", "usr/sbin/pvesm", "usr/sbin/ha-manager")
_LAUNCHER = f"""#!/usr/bin/python3
import sys

sys.path.insert(0, "/{HOME}")
from pve_stand_in.program import main

sys.exit(main(sys.argv))
"""
_START_GUESTS = f"""#!/bin/sh
# Eight seconds of every start, when there is nobody to start.
grep -qs '^onboot: 1' /etc/pve/qemu-server/*.conf || exit 0
exec /{HOME}/run-guests/start-guests
"""
_STORAGE = "dir: local\n\tpath /var/lib/vz\n\tcontent iso,vztmpl,backup,snippets\n\n"
_UNITS = {
    "pve-cluster.service": (
        "[Unit]\nDescription=The Proxmox VE cluster filesystem (stand-in)\n\n"
        "[Service]\nType=oneshot\nRemainAfterExit=yes\nExecStart=/bin/true\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    ),
    "pve-guests.service": (
        "[Unit]\nDescription=PVE guests (stand-in)\nWants=pve-cluster.service\nAfter=pve-cluster.service\n\n"
        f"[Service]\nType=oneshot\nRemainAfterExit=yes\nTimeoutStartSec=900\nExecStart=/{HOME}/start-guests\n\n"
        "[Install]\nWantedBy=multi-user.target\n"
    ),
}


def install(root: Path, suite: str) -> None:
    """Make the unpacked Debian tree `root` a node. Raises LabError for a suite without one."""
    if suite not in _NODES:
        raise LabError(f"no Proxmox VE is known for {suite}")
    home = root / HOME
    shutil.copytree(Path(__file__).parent / "pve_stand_in", home / "pve_stand_in", dirs_exist_ok=True,
                    ignore=shutil.ignore_patterns("__pycache__"))  # fmt: skip
    for name, text in {"run": _LAUNCHER, "run-guests/start-guests": _LAUNCHER, "start-guests": _START_GUESTS}.items():
        _write(home / name, text)
        (home / name).chmod(0o755)
    for program in _PROGRAMS:
        _link(root / program, f"/{HOME}/run")
    in_root(root, ("python3", "-m", "compileall", "-q", f"/{HOME}/pve_stand_in"), 60)
    nested.build(root, home / "nested")
    _packages(root, _NODES[suite])
    _write(root / "sim/machine.json", json.dumps({"pve": _NODES[suite]}, indent=1) + "\n")
    _write(root / "etc/tmpfiles.d/pve-stand-in.conf", "d /run/qemu-server 0755\nd /var/log/lab 0755\n")
    _node(root)
    for unit, text in _UNITS.items():
        _write(root / "etc/systemd/system" / unit, text)
        _link(root / "etc/systemd/system/multi-user.target.wants" / unit, f"/etc/systemd/system/{unit}")


def _packages(root: Path, node: dict[str, str]) -> None:
    """Empty packages with the names and versions that tell which Proxmox VE a node is; nothing else is pretended."""
    scratch = root / "tmp/pve-packages"
    for name, version in {"pve-manager": node["version"], "qemu-server": node["qemu_server"]}.items():
        _write(
            scratch / name / "DEBIAN/control",
            f"Package: {name}\nVersion: {version}\nArchitecture: all\nMaintainer: none <none@localhost>\n"
            f"Description: empty stand-in for {name}\n",
        )
        (scratch / name / "DEBIAN").chmod(0o755)
        in_root(root, ("dpkg-deb", "--build", f"/tmp/pve-packages/{name}"), 60)
    in_root(root, ("dpkg", "-i", "/tmp/pve-packages/pve-manager.deb", "/tmp/pve-packages/qemu-server.deb"), 60)
    shutil.rmtree(scratch)


def _node(root: Path) -> None:
    """/etc/pve, and the folders of the storage `local`."""
    name = (root / "etc/hostname").read_text().strip().partition(".")[0]
    pve = root / "etc/pve"
    _write(pve / f"nodes/{name}/qemu-server/{VMID}.conf", guest())
    for folder in ("lxc", "priv"):
        (pve / f"nodes/{name}/{folder}").mkdir(parents=True, exist_ok=True)
    for folder in ("mapping", "ha", "priv"):
        (pve / folder).mkdir(exist_ok=True)
    _link(pve / "local", f"nodes/{name}")
    for folder in ("qemu-server", "lxc"):
        _link(pve / folder, f"nodes/{name}/{folder}")
    for file, text in {"storage.cfg": _STORAGE, "user.cfg": "", "datacenter.cfg": "keyboard: en-us\n"}.items():
        _write(pve / file, text)
    for folder in ("var/lib/vz/snippets", "var/lib/vz/template/iso", "usr/share/kvm"):
        (root / folder).mkdir(parents=True, exist_ok=True)


def guest() -> str:
    """The configuration of the guest that the lab host has from the beginning. All its memory is pinned for a device,
    page by page on an emulated processor, so it has little."""
    words = (
        f"-kernel /{HOME}/nested/vmlinux", f"-initrd /{HOME}/nested/nested.img",
        f"-append '{nested.ARGUMENTS}'",
    )  # fmt: skip
    values = {
        "agent": "1", "args": " ".join(words), "bios": "seabios", "cores": "1", "machine": "q35",
        "memory": "256", "name": "nested", "ostype": "l26", "serial0": "socket", "sockets": "1", "vga": "serial0",
    }  # fmt: skip
    return "".join(f"{key}: {values[key]}\n" for key in sorted(values))


def _write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def _link(path: Path, target: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.unlink(missing_ok=True)
    path.symlink_to(target)
